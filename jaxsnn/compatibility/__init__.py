"""What an engine, the chip or another simulator's importer supports of a graph: `check` and `matrix`."""
