"""Rewriting a graph for another simulator's importer: a list of passes, then that importer's writer."""
