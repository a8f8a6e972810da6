"""What an HDF5 file holds, to the last bit."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np


def entries_of(path: Path) -> dict[str, Any]:
    """Return everything that a file holds, by path: attributes, dtypes, kinds of text, shapes, bits,
    compression.
    """
    content: dict[str, Any] = {}

    def visit(name: str, entry: h5py.Group | h5py.Dataset) -> None:
        attributes = {
            key: (entry.attrs.get_id(key).dtype, repr(entry.attrs[key])) for key in entry.attrs
        }
        if isinstance(entry, h5py.Group):
            content[name] = attributes
            return
        value = entry[()]
        text = h5py.check_string_dtype(entry.dtype)
        bits = (
            np.asarray(value).tobytes()
            if text is None and not isinstance(value, h5py.Empty)
            else repr(value)
        )
        storage = (
            entry.chunks,
            entry.compression,
            entry.compression_opts,
            entry.shuffle,
            entry.maxshape,
        )
        content[name] = (attributes, entry.dtype, text, entry.shape, bits, storage)

    with h5py.File(path) as file:
        content[""] = {key: repr(file.attrs[key]) for key in file.attrs}
        file.visititems(visit)
    return content
