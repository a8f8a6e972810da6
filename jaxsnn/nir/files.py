"""NIR files (HDF5) to plain nested dicts and back, without losing or adding anything.

A document is a nested dict: a group is a `Group` (a dict that also has the group's attributes), a
dataset a `Dataset`.
"""

from __future__ import annotations

import dataclasses
import io
import operator
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Before HDF5 is loaded: filters that are not built in are code that is looked for in folders.
os.environ.setdefault("HDF5_PLUGIN_PRELOAD", "::")

import h5py
import numpy as np
from h5py import Empty as Empty
from h5py import h5a, h5l, h5o  # pyright: ignore[reportAttributeAccessIssue]

from jaxsnn.errors import FileError, JaxsnnError, listing
from jaxsnn.nir.read_limits import ByteBudget, read_limits
from jaxsnn.output import refuse_unreadable, write_whole

#: How deep groups may nest: enough for every network, few enough to stop at a file whose groups
#: contain themselves.
MAXIMUM_DEPTH = 32

#: Where numbers may lie, and what they may be compressed by: gzip, shuffle, Fletcher's sum, szip, lzf.
_LAYOUTS = (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED)
_FILTERS = (
    h5py.h5z.FILTER_DEFLATE,
    h5py.h5z.FILTER_SHUFFLE,
    h5py.h5z.FILTER_FLETCHER32,
    h5py.h5z.FILTER_SZIP,
    h5py.h5z.FILTER_LZF,
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """One dataset.

    Attributes:
        value: The numbers; a scalar is a 0-d array. Text of variable length is an object array of
            bytes.
        dtype: HDF5's type as h5py shows it: kind of text, its encoding and booleans included.
        attributes: HDF5 attributes, each a dataset of its own.
        storage: Chunks, compression and the like, as arguments of h5py's create_dataset.
    """

    value: np.ndarray | h5py.Empty
    dtype: np.dtype
    attributes: Mapping[str, Dataset] = dataclasses.field(default_factory=dict)
    storage: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Group(dict[str, Any]):
    """One group: a dict of groups and datasets, with the group's HDF5 attributes."""

    def __init__(
        self,
        entries: Mapping[str, Any] | None = None,
        attributes: Mapping[str, Dataset] | None = None,
    ):
        super().__init__(entries or {})
        self.attributes = dict(attributes or {})


def text_dataset(text: str | list[Any]) -> Dataset:
    """Text as NIR writes it: UTF-8 of variable length."""
    return Dataset(value=np.array(_encoded(text), dtype=object), dtype=h5py.string_dtype())


def _bytes(text: Any) -> Any:
    return text.encode() if isinstance(text, str) else text


def _encoded(text: Any) -> Any:
    return _bytes(text) if isinstance(text, str) else [_encoded(part) for part in text]


def text_of(dataset: Dataset) -> str | None:
    """The text of a scalar dataset that holds text, else None."""
    value = dataset.value
    if (
        isinstance(value, h5py.Empty)
        or value.shape != ()
        or h5py.check_string_dtype(dataset.dtype) is None
    ):
        return None
    item = value[()]
    return item.decode(errors="replace") if isinstance(item, bytes) else str(item)


def said_of_dtype(dtype: np.dtype) -> Any:
    """A type as JSON has it; `dtype_of` makes it again."""
    text = h5py.check_string_dtype(dtype)
    if text is not None:
        return {"text": text.encoding, "length": text.length}
    names = h5py.check_enum_dtype(dtype)
    if names is not None:
        return {"enum": {name: int(value) for name, value in names.items()}, "of": dtype.str}
    if dtype.subdtype is not None:
        return {"array": said_of_dtype(dtype.subdtype[0]), "shape": dtype.subdtype[1]}
    if dtype.names is not None:
        layout: Any = dtype.fields
        fields = [said_of_dtype(layout[name][0]) for name in dtype.names]
        offsets = [layout[name][1] for name in dtype.names]
        return {"names": dtype.names, "of": fields, "offsets": offsets, "size": dtype.itemsize}
    return dtype.str


def dtype_of(said: Any) -> np.dtype:
    """The type that `said_of_dtype` wrote down."""
    if isinstance(said, str):
        return np.dtype(said)
    if "text" in said:
        return h5py.string_dtype(said["text"], said["length"])
    if "enum" in said:
        return h5py.enum_dtype(said["enum"], np.dtype(said["of"]))
    if "array" in said:
        return np.dtype((dtype_of(said["array"]), tuple(said["shape"])))
    formats = [dtype_of(field) for field in said["of"]]
    layout: Any = {"names": said["names"], "formats": formats, "offsets": said["offsets"]}
    return np.dtype(layout | {"itemsize": said["size"]})


def load(path: str | os.PathLike[str]) -> Group:
    """Read a NIR file into a document, in this process.

    Returns:
        The root group, with the entries "node" and, in all but the oldest files, "version".

    Raises:
        FileError: The file is missing, a directory, not HDF5, cut short, or HDF5 but not NIR.
    """
    return nir_document(path, load_hdf5(path, "a NIR file"))


def nir_document(path: str | os.PathLike[str], document: Group) -> Group:
    """A document, if it is one of NIR.

    Raises:
        FileError: It has no group "node".
    """
    if not isinstance(document.get("node"), Group):
        entries = listing(document) if document else "nothing"
        raise FileError(
            f"{path} is HDF5 but not NIR, it has no group 'node', only {entries}",
            fix="name a file that a NIR exporter wrote",
        )
    return document


def load_hdf5(path: str | os.PathLike[str], kind: str) -> Group:
    """Read any HDF5 file into a document, in this process; `kind` says what it should be, for
    messages: "a NIR file".

    Raises:
        FileError: The file is missing, no regular file, not HDF5, cut short, or larger than
            the limit (`read_limits`); or its numbers lie elsewhere, or only a plug-in decodes them,
            or they are of a type that NumPy does not have.
    """
    path = refuse_unreadable(path, kind)
    reading = _Reading(path=str(path), budget=ByteBudget(path))
    try:
        is_hdf5 = h5py.is_hdf5(path)
        if not is_hdf5 and _begin(path) != b"\x89HDF\r\n\x1a\n":
            raise FileError(
                f"{path} is not an HDF5 file ({path.stat().st_size} bytes), so it cannot be {kind}",
                fix="name another file, or export it again",
            )
        with h5py.File(path, "r") as file:
            return _load_group(file, reading, 0)
    except JaxsnnError:
        raise
    except MemoryError as error:
        raise out_of_memory(path) from error
    except PermissionError as error:
        raise FileError(
            f"{path} cannot be opened: {error.strerror}", fix="change its permissions"
        ) from error
    except Exception as error:  # what h5py raises on a damaged file is not documented
        if re.search(r"allocation failed|(?:unable to|can.t) allocate", str(error)):
            raise out_of_memory(path) from error
        raise FileError(
            f"{path} is damaged or cut short: {_first_line(error)}", fix="fetch or export it again"
        ) from error


def out_of_memory(path: str | os.PathLike[str]) -> FileError:
    """What is said where there is no room for what a file holds."""
    allowed = read_limits().max_bytes
    return FileError(
        f"{os.fspath(path)} takes more memory to decode than there is, or than {allowed} bytes of"
        " arrays do",
        fix=f"pass max_bytes={2 * allowed} if you trust it, or export it again",
    )


def _begin(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(8)


@dataclasses.dataclass(kw_only=True)
class _Reading:
    """A file that is being read.

    Attributes:
        path: for messages.
        budget: of bytes that arrays may have.
        seen: objects that have been read: a file must not hold one under two names, which would
            let a small file grow without bound.
    """

    path: str
    budget: ByteBudget
    seen: set[bytes] = dataclasses.field(default_factory=set)

    def enter(self, entry: h5py.Group | h5py.Dataset) -> None:
        """Refuse an object that was there before."""
        information = h5o.get_info(entry.id)
        key = b"%d %d" % (information.fileno, information.addr)
        if key in self.seen:
            raise FileError(
                f"{self.path}: {entry.name} is there under another name, too",
                fix="export it again, with a copy under each name",
            )
        self.seen.add(key)

    def type_of(self, name: str, entry: Any) -> np.dtype:
        """The type of a dataset or attribute.

        Raises:
            FileError: NumPy has none, or it points elsewhere.
        """
        try:
            dtype = entry.dtype
        except TypeError as error:  # of 24 bits, of times, ...
            raise FileError(
                f"{self.path}: {name} has a type that NumPy does not have"
                f" ({_first_line(error).removeprefix('No NumPy equivalent for ')})",
                fix="write it as float64, int64 or text",
            ) from error
        if dtype.hasobject and h5py.check_string_dtype(dtype) is None:
            raise FileError(
                f"{self.path}: {name} holds references or arrays of variable length",
                fix="write it as float64, int64 or text",
            )
        return dtype


def _first_line(error: Exception) -> str:
    text = str(error).strip("'\"")
    return text.splitlines()[0].strip() if text.strip() else type(error).__name__


def _load_group(group: h5py.Group, reading: _Reading, depth: int) -> Group:
    path = reading.path
    reading.enter(group)
    if depth > MAXIMUM_DEPTH:
        raise FileError(
            f"{path}: groups nest more than {MAXIMUM_DEPTH} deep at {group.name}",
            fix="export it again without a group that contains itself",
        )
    entries: dict[str, Any] = {}
    for stored in group.id:
        name = stored.decode("utf-8", "surrogateescape")
        if group.id.links.get_info(stored).type != h5l.TYPE_HARD:
            raise FileError(
                f"{path}: {group.name}/{name} is a link to elsewhere, "
                "which a NIR file must not have",
                fix="write what it leads to into the file",
            )
        entry = group[stored]
        if isinstance(entry, h5py.Group):
            entries[name] = _load_group(entry, reading, depth + 1)
        elif isinstance(entry, h5py.Dataset):
            entries[name] = _load_dataset(entry, reading)
        else:
            raise FileError(
                f"{path}: {group.name}/{name} is neither a group nor a dataset",
                fix="export the file again without it",
            )
    return Group(entries, _load_attributes(group, reading))


def _load_attributes(entry: h5py.Group | h5py.Dataset, reading: _Reading) -> dict[str, Dataset]:
    attributes = {}
    if h5a.get_num_attrs(entry.id) == 0:
        return attributes
    for name in entry.attrs:
        stored, where = entry.attrs.get_id(name), f"{entry.name}@{name}"
        dtype = reading.type_of(where, stored)
        numbers = stored.get_space().get_simple_extent_npoints()
        reading.budget.take(where, int(numbers) * dtype.itemsize)
        attributes[name] = Dataset(value=_frozen(entry.attrs[name]), dtype=dtype)
    return attributes


def _frozen(value: Any) -> np.ndarray | h5py.Empty:
    if isinstance(value, h5py.Empty):
        return value
    # Text of variable length comes as plain bytes, which numpy would cut at a zero byte.
    array = np.asarray(
        value, dtype=getattr(value, "dtype", object if isinstance(value, bytes | str) else None)
    )
    array.setflags(write=False)
    return array


def _refuse_storage(dataset: h5py.Dataset, reading: _Reading) -> int:
    """Refuse numbers that do not lie in this file as they are, or that only a plug-in decodes:
    nothing is read from elsewhere, and no code is loaded. The layout of all others.
    """
    properties = dataset.id.get_create_plist()
    layout = properties.get_layout()
    filters = [properties.get_filter(n)[0] for n in range(properties.get_nfilters())]
    strange = [number for number in filters if number not in _FILTERS]
    if layout not in _LAYOUTS or properties.get_external_count():
        what = "has its numbers elsewhere (external storage or a virtual dataset)"
    elif strange:
        what = f"is compressed by filter {strange[0]}, which only a plug-in decodes"
    else:
        return layout
    raise FileError(
        f"{reading.path}: {dataset.name} {what}, and a NIR file holds them itself",
        fix="write it again with h5py, plain or compressed by gzip",
    )


def _load_dataset(dataset: h5py.Dataset, reading: _Reading) -> Dataset:
    reading.enter(dataset)
    chunked = _refuse_storage(dataset, reading) == h5py.h5d.CHUNKED
    dtype = reading.type_of(str(dataset.name), dataset)
    reading.budget.take(str(dataset.name), dataset.size * dtype.itemsize if dataset.size else 0)
    return Dataset(
        value=_frozen(dataset[()]),
        dtype=dtype,
        attributes=_load_attributes(dataset, reading),
        storage=_storage(dataset) if chunked else {},
    )


def _storage(dataset: h5py.Dataset) -> dict[str, Any]:
    """How the chunks of a dataset are stored; nothing else has more than one way."""
    names = ("chunks", "compression", "compression_opts", "shuffle", "fletcher32", "maxshape")
    # What create_dataset would do by itself is left out.
    defaults = {"shuffle": False, "fletcher32": False, "maxshape": dataset.shape}
    storage = {name: getattr(dataset, name) for name in names}
    kept = {name: setting for name, setting in storage.items() if setting is not None}
    return {
        name: setting
        for name, setting in kept.items()
        if name not in defaults or setting != defaults[name]
    }


def save(path: str | os.PathLike[str], document: Group, force: bool = False) -> None:
    """Write a document. The file appears whole or not at all, and is not overwritten unless `force`
    is set.

    Raises:
        FileError: The file exists, or the folder cannot be written.
    """
    write_whole(path, image_of(path, document), force)


def image_of(path: str | os.PathLike[str], document: Group) -> bytes:
    """The bytes of a file of a document, which were read back; `path` is for messages.

    Raises:
        FileError: what HDF5 made of it reads otherwise.
    """
    try:
        image = _image(document)
    except UnicodeError as error:
        raise FileError(
            f"{path} was not written: a text in it is not UTF-8", fix="correct it in the source"
        ) from error
    # HDF5 may not say that it could not write: what was written is read before it counts.
    if not _same(_load_image(image), document):
        raise FileError(
            f"{path} was not written: what HDF5 made of it reads otherwise",
            fix="please report it, with the versions that jaxsnn doctor shows",
        )
    return image


def _image(document: Group) -> bytes:
    """The bytes of a file, made in memory."""
    with h5py.File("image", "w", driver="core", backing_store=False) as file:
        _save_group(file, document)
        file.flush()
        return file.id.get_file_image()


def _load_image(image: bytes) -> Group:
    with h5py.File(io.BytesIO(image), "r") as file:
        return _load_group(file, _Reading(path="", budget=ByteBudget("", sys.maxsize)), 0)


def _same(found: Any, wanted: Any) -> bool:
    """Whether two documents, or parts of them, have the same entries and numbers."""
    if isinstance(wanted, Mapping):
        attributes = (getattr(part, "attributes", {}) for part in (found, wanted))
        return (
            isinstance(found, Mapping)
            and found.keys() == wanted.keys()
            and all(_same(found[name], entry) for name, entry in wanted.items())
            and (not isinstance(wanted, Group) or _same(*attributes))
        )
    if not isinstance(found, Dataset):
        return False
    return _same_value(found.value, wanted.value) and _same(found.attributes, wanted.attributes)


def _same_value(found: Any, wanted: Any) -> bool:
    if isinstance(found, h5py.Empty) or isinstance(wanted, h5py.Empty):
        return isinstance(found, h5py.Empty) and isinstance(wanted, h5py.Empty)
    found, wanted = np.asarray(found), np.asarray(wanted)
    if found.dtype == object or wanted.dtype == object:  # text of variable length
        texts = ([_bytes(part) for part in array.flat] for array in (found, wanted))
        return found.shape == wanted.shape and operator.eq(*texts)
    return np.array_equal(found, wanted, equal_nan=found.dtype.kind in "fc")


def _save_group(target: h5py.Group, group: Group) -> None:
    _save_attributes(target, group.attributes)
    # Sorted as a file lists them when it is read, so that the same content gives the same bytes.
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
