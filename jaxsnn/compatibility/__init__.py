"""Compatibility of a graph with engines, the chip and other simulators' importers: `check` and
`matrix`.
"""
