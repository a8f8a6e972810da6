"""Graphs from NIR documents and back: parsing, repairs, export."""
