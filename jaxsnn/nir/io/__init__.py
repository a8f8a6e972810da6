"""Files: HDF5, the sandboxed reader and its limits, NIR documents and recorded data."""
