"""Files: HDF5, NIR documents and recorded data."""
