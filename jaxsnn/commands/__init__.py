"""The command line: one file per command, with its parser, its work and its outcome.

`cli` dispatches.
"""
