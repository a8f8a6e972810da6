"""Documents of HDF5 files, which may be malicious and are read within limits.

A malicious file can make libhdf5 loop, crash or exhaust memory, and no check beforehand detects all
such files. So a separate process reads the file and returns plain arrays. A program that trusts its
files and must not fork sets an infinite time limit (`limit_reading`): then this process reads them.
"""

from __future__ import annotations

import io
import mmap
import os
from collections import deque
from collections.abc import Callable
from io import BufferedWriter
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxsnn.files.opening import refuse_unreadable
from jaxsnn.files.read_process import (
    ReadProcess,
    process_limits,
    receive_header,
    reporting_errors,
    send_header,
)
from jaxsnn.nir.io.files import (
    Dataset,
    Empty,
    Group,
    describe_dtype,
    dtype_of,
    load_hdf5,
    load_root,
    nir_document,
)

if TYPE_CHECKING:
    import h5py

    from jaxsnn.files.read_limits import ByteBudget


def read_nir(path: str | os.PathLike[str]) -> Group:
    """Read the document of a NIR file.

    Raises:
        FileError: As for `jaxsnn.nir.io.files.load`, or a limit is exceeded.
    """
    return nir_document(path, read_hdf5(path, "a NIR file"))


def read_hdf5(
    path: str | os.PathLike[str],
    kind: str,
    load: Callable[[h5py.File, str, ByteBudget], Group] = load_root,
) -> Group:
    """Read the document of any HDF5 file; arguments as in `jaxsnn.nir.io.files.load_hdf5`.

    Raises:
        FileError: As for `jaxsnn.nir.io.files.load_hdf5`, or a limit is exceeded.
    """
    limits = process_limits()
    if limits is None:
        return load_hdf5(path, kind, load)
    refuse_unreadable(path, kind)

    def document(out: BufferedWriter) -> Group:
        with reporting_errors(out, path):
            return load_hdf5(path, kind, load)

    with ReadProcess(path, lambda out: send(document(out), out), limits) as child:
        return receive(child, path)


# -- serialised documents: a JSON header, then the bytes of all arrays one after the other

#: Bytes that are sent before their memory is released.
_PIECE = 2**20


def send(document: Group, out: BufferedWriter | io.BytesIO) -> None:
    """Write a document to a pipe. The memory of its arrays is released on the way, so that both
    processes together need it only once.
    """
    arrays: deque[np.ndarray] = deque()
    send_header(out, {"document": _tree(document, arrays)})
    del document
    while arrays:
        array = arrays.popleft()
        content = array.reshape(-1).view(np.uint8).data if array.nbytes else memoryview(b"")
        mapping = array.base if isinstance(array.base, mmap.mmap) else None
        for start in range(0, len(content), _PIECE):
            out.write(content[start : start + _PIECE])
            if mapping is not None and hasattr(mapping, "madvise"):
                size = min(_PIECE, len(content) - start)
                mapping.madvise(mmap.MADV_DONTNEED, start, size)


def _tree(entry: Group | Dataset, arrays: deque[np.ndarray]) -> dict[str, Any]:
    attributes = {name: _tree(item, arrays) for name, item in entry.attributes.items()}
    if isinstance(entry, Group):
        entries = {name: _tree(item, arrays) for name, item in entry.items()}
        return {"entries": entries, "attributes": attributes}
    header = {"dtype": describe_dtype(entry.dtype), "attributes": attributes}
    header["storage"] = dict(entry.storage)
    if isinstance(entry.value, Empty):
        return header | {"empty": describe_dtype(entry.value.dtype)}
    header["shape"] = entry.value.shape
    if entry.value.dtype == object:
        header["text"], encoded = _texts(entry.value)
        arrays += encoded
    else:
        header["array"] = describe_dtype(entry.value.dtype)
        arrays.append(np.ascontiguousarray(entry.value))
    return header


def _texts(value: np.ndarray) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Return texts of variable length: their total number of bytes, their lengths and their
    bytes.
    """
    decoded = any(isinstance(text, str) for text in value.flat)
    parts = [
        text.encode("utf-8", "surrogateescape") if isinstance(text, str) else bytes(text)
        for text in value.flat
    ]
    lengths = np.array([len(part) for part in parts], np.int64)
    joined = np.frombuffer(b"".join(parts), np.uint8)
    return {"decoded": decoded, "bytes": joined.size}, [lengths, joined]


def receive(child: Any, path: str | os.PathLike[str]) -> Group:
    """Receive the document that a child sent; `child` has the `read` and `read_into` of
    `ReadProcess`.

    Raises:
        JaxsnnError: The error that occurred in the child.
        FileError: The description of the document is too long.
    """
    content = receive_header(child, path)
    return _group(content["document"], child)


def _group(header: dict[str, Any], child: Any) -> Group:
    # Attributes before entries, in the order in which their arrays were sent.
    attributes = {
        name: _dataset(item_header, child) for name, item_header in header["attributes"].items()
    }
    entries = {
        name: _group(item_header, child)
        if "entries" in item_header
        else _dataset(item_header, child)
        for name, item_header in header["entries"].items()
    }
    return Group(entries, attributes)


def _dataset(header: dict[str, Any], child: Any) -> Dataset:
    attributes = {
        name: _dataset(attribute_header, child)
        for name, attribute_header in header["attributes"].items()
    }
    storage = {
        name: tuple(setting) if isinstance(setting, list) else setting
        for name, setting in header["storage"].items()
    }
    return Dataset(
        value=_value(header, child),
        dtype=dtype_of(header["dtype"]),
        attributes=attributes,
        storage=storage,
    )


def _value(header: dict[str, Any], child: Any) -> Any:
    if "empty" in header:
        return Empty(dtype_of(header["empty"]))
    shape = tuple(header["shape"])
    if "text" in header:
        value = _received_texts(header["text"], shape, child)
    else:
        value = np.empty(shape, dtype_of(header["array"]))
        if value.nbytes:
            child.read_into(value.reshape(-1).view(np.uint8).data)
    value.setflags(write=False)
    return value


def _received_texts(header: dict[str, Any], shape: tuple[int, ...], child: Any) -> np.ndarray:
    value = np.empty(shape, object)
    lengths = np.empty(value.size, np.int64)
    if value.size:
        child.read_into(lengths.view(np.uint8).data)
    joined = bytes(child.read(header["bytes"]))
    start = 0
    for number, length in enumerate(lengths.tolist()):
        text = joined[start : start + length]
        value.flat[number] = text.decode("utf-8", "surrogateescape") if header["decoded"] else text
        start += length
    return value
