"""NIR files (HDF5) to plain nested dicts and back, without losing or adding anything.

A document is a nested dict: a group is a `Group` (a dict that also has the group's attributes), a
dataset a `Dataset`.
"""

from __future__ import annotations

import io
import operator
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

# Set before HDF5 is loaded: it would search folders for filter plug-ins and run their code.
os.environ.setdefault("HDF5_PLUGIN_PRELOAD", "::")

import h5py
import numpy as np
from h5py import Empty as Empty

from jaxsnn.errors import FileError, JaxsnnError, first_line, listing
from jaxsnn.files.opening import name_of_open, open_input, size_of
from jaxsnn.files.read_limits import ByteBudget, out_of_memory
from jaxsnn.nir.io.global_heaps import refuse_broken_heaps
from jaxsnn.nir.io.hdf5_objects import Dataset as Dataset
from jaxsnn.nir.io.hdf5_objects import Group as Group
from jaxsnn.nir.io.hdf5_objects import load_root
from jaxsnn.output import write_atomically
from jaxsnn.wording import Text

#: First bytes of most HDF5 files; others have a user block before it.
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def text_dataset(text: str | list[Any]) -> Dataset:
    """Return text as NIR writes it: UTF-8 of variable length."""
    return Dataset(value=np.array(_encoded(text), dtype=object), dtype=h5py.string_dtype())


def _encoded(text: Any) -> Any:
    if isinstance(text, list):
        return [_encoded(part) for part in text]
    return text.encode() if isinstance(text, str) else text


def text_of(dataset: Dataset) -> str | None:
    """Return the text of a scalar text dataset, else None."""
    value = dataset.value
    if (
        isinstance(value, h5py.Empty)
        or value.shape != ()
        or h5py.check_string_dtype(dataset.dtype) is None
    ):
        return None
    item = value[()]
    return item.decode(errors="replace") if isinstance(item, bytes) else str(item)


def describe_dtype(dtype: np.dtype) -> Any:
    """Return a JSON description of a dtype; `dtype_of` is the inverse."""
    text = h5py.check_string_dtype(dtype)
    if text is not None:
        return {"text": text.encoding, "length": text.length}
    enum_values = h5py.check_enum_dtype(dtype)
    if enum_values is not None:
        return {"enum": {name: int(value) for name, value in enum_values.items()}, "of": dtype.str}
    if dtype.subdtype is not None:
        return {"array": describe_dtype(dtype.subdtype[0]), "shape": dtype.subdtype[1]}
    if dtype.names is not None:
        layout: Any = dtype.fields
        fields = [describe_dtype(layout[name][0]) for name in dtype.names]
        offsets = [layout[name][1] for name in dtype.names]
        return {"names": dtype.names, "of": fields, "offsets": offsets, "size": dtype.itemsize}
    return dtype.str


def dtype_of(dtype_json: Any) -> np.dtype:
    """Return the dtype that `describe_dtype` described."""
    if isinstance(dtype_json, str):
        return np.dtype(dtype_json)
    if "text" in dtype_json:
        return h5py.string_dtype(dtype_json["text"], dtype_json["length"])
    if "enum" in dtype_json:
        return h5py.enum_dtype(dtype_json["enum"], np.dtype(dtype_json["of"]))
    if "array" in dtype_json:
        return np.dtype((dtype_of(dtype_json["array"]), tuple(dtype_json["shape"])))
    formats = [dtype_of(field) for field in dtype_json["of"]]
    layout: Any = {
        "names": dtype_json["names"],
        "formats": formats,
        "offsets": dtype_json["offsets"],
    }
    return np.dtype(layout | {"itemsize": dtype_json["size"]})


def load(path: str | os.PathLike[str]) -> Group:
    """Read a NIR file into a document, in this process.

    Returns:
        The root group, with the entries "node" and, in all but the oldest files, "version".

    Raises:
        FileError: The file is missing, a directory, not HDF5, truncated, or HDF5 but not NIR.
    """
    return nir_document(path, load_hdf5(path, "a NIR file"))


def nir_document(path: str | os.PathLike[str], document: Group) -> Group:
    """Return a document; refuse one that is not NIR.

    Raises:
        FileError: The document has no group "node".
    """
    if not isinstance(document.get("node"), Group):
        entries = listing(document) if document else "nothing"
        raise FileError(
            Text(
                "{path} is HDF5 but not NIR: it has no group 'node', only {entries}",
                path=path,
                entries=entries,
            ),
            fix="pass a file that a NIR exporter wrote",
        )
    return document


def load_hdf5(
    path: str | os.PathLike[str],
    kind: str,
    load: Callable[[h5py.File, str, ByteBudget], Group] = load_root,
) -> Group:
    """Read any HDF5 file into a document, in this process.

    Args:
        path: Path of the file.
        kind: Description of the file for messages: "a NIR file".
        load: Function that reads the open file; by default all of it.

    Raises:
        FileError: The file is missing, not a regular file, not HDF5, truncated, or exceeds the limit
            (`read_limits`); or its data are stored outside of the file, compressed with a filter
            other than gzip, szip and lzf, or of a type that NumPy does not support.
    """
    path = os.fspath(path)
    try:
        with open_input(path, kind) as opened:
            open_name = name_of_open(opened, path)
            if not h5py.is_hdf5(open_name) and opened.read(8) != HDF5_SIGNATURE:
                raise FileError(
                    Text(
                        "{path} is not an HDF5 file ({size} bytes), so it cannot be {kind}",
                        path=path,
                        size=size_of(opened),
                        kind=kind,
                    ),
                    fix="pass a different file, or export it again",
                )
            refuse_broken_heaps(opened, path)
            with h5py.File(open_name, "r") as file:
                return load(file, path, ByteBudget(path))
    except JaxsnnError:
        raise
    except MemoryError as error:
        raise out_of_memory(path) from error
    except Exception as error:  # what h5py raises on a damaged file is not documented
        if re.search(r"allocation failed|(?:unable to|can.t) allocate", str(error)):
            raise out_of_memory(path) from error
        raise FileError(
            Text("{path} is damaged or truncated: {reason}", path=path, reason=first_line(error)),
            fix="download or export it again",
        ) from error


def save(path: str | os.PathLike[str], document: Group, force: bool = False) -> None:
    """Write a document. The file appears whole or not at all, and is not overwritten unless `force`
    is set.

    Raises:
        FileError: The file exists, or the folder cannot be written.
    """
    write_atomically(path, image_of(path, document), force)


def image_of(path: str | os.PathLike[str], document: Group) -> bytes:
    """Return the bytes of a document's file, checked by reading them back; `path` is for messages.

    Raises:
        FileError: A name is not allowed in a file, or reading back does not give the same document.
    """
    _refuse_names(path, document)
    try:
        image = _image(document)
    except UnicodeError as error:
        raise FileError(
            Text("{path} was not written: it would contain text that is not UTF-8", path=path),
            fix="correct the text in the graph",
        ) from error
    # HDF5 may not report a failed write, so the written bytes are read back and compared.
    if not _same(_load_image(image), document):
        raise FileError(
            Text(
                "{path} was not written: reading it back does not give the same graph",
                path=path,
            ),
            fix="please report this defect with the output of jaxsnn doctor",
        )
    return image


def _refuse_names(path: str | os.PathLike[str], group: Group) -> None:
    """Refuse names that HDF5 takes for a path."""
    for name, entry in group.items():
        if "/" in name or name in ("", "."):
            raise FileError(
                Text(
                    "{path} was not written: the name '{name}' is not allowed in a file",
                    path=path,
                    name=name,
                ),
                fix="rename it; names must not contain '/'",
            )
        if isinstance(entry, Group):
            _refuse_names(path, entry)


def _image(document: Group) -> bytes:
    """Return the bytes of a file, created in memory."""
    with h5py.File("image", "w", driver="core", backing_store=False) as file:
        _save_group(file, document)
        file.flush()
        return file.id.get_file_image()


def _load_image(image: bytes) -> Group:
    with h5py.File(io.BytesIO(image), "r") as file:
        return load_root(file, "", ByteBudget("", sys.maxsize))


def _same(actual: Any, expected: Any) -> bool:
    """Return whether two documents, or parts of them, have the same entries and numbers."""
    if isinstance(expected, Mapping):
        attributes = (getattr(part, "attributes", {}) for part in (actual, expected))
        return (
            isinstance(actual, Mapping)
            and actual.keys() == expected.keys()
            and all(_same(actual[name], entry) for name, entry in expected.items())
            and (not isinstance(expected, Group) or _same(*attributes))
        )
    if not isinstance(actual, Dataset):
        return False
    return _same_value(actual.value, expected.value) and _same(
        actual.attributes, expected.attributes
    )


def _same_value(actual: Any, expected: Any) -> bool:
    if isinstance(actual, h5py.Empty) or isinstance(expected, h5py.Empty):
        return isinstance(actual, h5py.Empty) and isinstance(expected, h5py.Empty)
    actual, expected = np.asarray(actual), np.asarray(expected)
    if actual.dtype == object or expected.dtype == object:  # text of variable length
        texts = ([_encoded(part) for part in array.flat] for array in (actual, expected))
        return actual.shape == expected.shape and operator.eq(*texts)
    return np.array_equal(actual, expected, equal_nan=actual.dtype.kind in "fc")


def _save_group(target: h5py.Group, group: Group) -> None:
    _save_attributes(target, group.attributes)
    # Sorted as HDF5 lists members on reading, so that equal documents give equal bytes.
    for name, entry in sorted(group.items()):
        if isinstance(entry, Group):
            _save_group(target.create_group(name), entry)
        else:
            _save_dataset(target, name, entry)


def _save_dataset(target: h5py.Group, name: str, dataset: Dataset) -> None:
    if isinstance(dataset.value, h5py.Empty):
        created = target.create_dataset(name, data=dataset.value)
    else:
        created = target.create_dataset(
            name, data=dataset.value, dtype=dataset.dtype, **dataset.storage
        )
    _save_attributes(created, dataset.attributes)


def _save_attributes(target: h5py.Group | h5py.Dataset, attributes: Mapping[str, Dataset]) -> None:
    for name, attribute in attributes.items():
        if isinstance(attribute.value, h5py.Empty):
            target.attrs[name] = attribute.value
        else:
            target.attrs.create(name, attribute.value, dtype=attribute.dtype)
