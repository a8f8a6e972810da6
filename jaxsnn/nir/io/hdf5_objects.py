"""Groups and datasets of an open HDF5 file as plain records (`Group`, `Dataset`); other objects are
refused.

The file is read through h5py's low-level calls: its high-level objects query the same property many
times, which for a hundred thousand small datasets would take most of the time.
"""

# h5py has no types for its low-level modules.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import dataclasses
import math
import mmap
import os
from collections.abc import Mapping
from typing import Any

# Set before HDF5 is loaded: it would search folders for filter plug-ins and run their code.
os.environ.setdefault("HDF5_PLUGIN_PRELOAD", "::")

import h5py
import numpy as np
from h5py import h5d, h5g, h5l, h5o, h5s, h5t, h5z

from jaxsnn.errors import FileError, first_line
from jaxsnn.files.read_limits import ByteBudget
from jaxsnn.wording import Text

#: Maximum depth of nested groups: sufficient for every network, and small enough to stop at a file
#: whose groups contain themselves.
MAXIMUM_DEPTH = 32
#: Size of an array from which it has a memory mapping of its own.
_MAPPED_SIZE = 2**20
#: Maximum size of all texts of variable length: enough for names and metadata. Many texts of a file can
#: be the same bytes of it, so that its size is no bound.
_MAXIMUM_TEXT = 2**26

#: Allowed layouts and compression filters of datasets: gzip, shuffle, Fletcher's sum, szip, lzf.
_LAYOUTS = (h5d.COMPACT, h5d.CONTIGUOUS, h5d.CHUNKED)
_FILTERS = (
    h5z.FILTER_DEFLATE,
    h5z.FILTER_SHUFFLE,
    h5z.FILTER_FLETCHER32,
    h5z.FILTER_SZIP,
    h5z.FILTER_LZF,
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """One dataset.

    Attributes:
        value: Values; a scalar is a 0-d array. Text of variable length is an object array of bytes.
        dtype: Type of HDF5 as h5py represents it, including kind of text, encoding and booleans.
        attributes: HDF5 attributes, each as a dataset.
        storage: Chunks, compression etc., as arguments of h5py's create_dataset.
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


def load_root(file: h5py.File, path: str, budget: ByteBudget) -> Group:
    """Load the root group of an open file, with all objects in it.

    Args:
        file: Open file.
        path: Path for messages.
        budget: Budget of bytes for arrays.

    Raises:
        FileError: The file has objects that are not allowed in a NIR file, or exceeds a limit.
        Exception: h5py may raise any error on a damaged file.
    """
    root = h5g.open(file.id, b"/")
    return _Reading(path=path, budget=budget).group(root, "", 0)


@dataclasses.dataclass(kw_only=True)
class _Reading:
    """A file that is being read.

    Attributes:
        path: Path for messages.
        budget: Budget of bytes for arrays.
        seen: Objects that have been read: a file must not contain an object under two names, which
            would let a small file grow without bound.
        text: Size of the texts of variable length that were read, bytes.
    """

    path: str
    budget: ByteBudget
    text: int = 0
    seen: set[tuple[int, int]] = dataclasses.field(default_factory=set)

    def enter(self, entry: Any, name: str) -> int:
        """Return the number of attributes of an object; reject an object that was read before."""
        information = h5o.get_info(entry)
        key = (information.fileno, information.addr)
        if key in self.seen:
            raise FileError(
                Text(
                    "{path}: {object} and another name in the file are links to the same object",
                    path=self.path,
                    object=name,
                ),
                fix="export it again with a separate copy for each name",
            )
        self.seen.add(key)
        return information.num_attrs

    def group(self, group: Any, name: str, depth: int) -> Group:
        """Read a group and everything below it; the name of the root is empty."""
        attributes = self.enter(group, name or "/")
        if depth > MAXIMUM_DEPTH:
            raise FileError(
                Text(
                    "{path}: groups are nested more than {limit} levels deep at {object}",
                    path=self.path,
                    limit=MAXIMUM_DEPTH,
                    object=name,
                ),
                fix="export it again without a group that contains itself",
            )
        links: list[tuple[bytes, int]] = []
        group.links.iterate(lambda link, link_info: links.append((link, link_info.type)), info=True)
        entries: dict[str, Any] = {}
        for stored, kind in links:
            key = stored.decode("utf-8", "surrogateescape")
            if kind != h5l.TYPE_HARD:
                raise FileError(
                    Text(
                        "{path}: {object}/{key} is a link, which is not allowed in a NIR file",
                        path=self.path,
                        object=name,
                        key=key,
                    ),
                    fix="replace the link by its target",
                )
            entries[key] = self.entry(h5o.open(group, stored), f"{name}/{key}", depth + 1)
        return Group(entries, self.attributes(h5py.Group(group), name or "/") if attributes else {})

    def entry(self, entry: Any, name: str, depth: int) -> Group | Dataset:
        """Read a group or a dataset."""
        if isinstance(entry, h5d.DatasetID):
            return self.dataset(entry, name)
        if isinstance(entry, h5g.GroupID):
            return self.group(entry, name, depth)
        raise FileError(
            Text("{path}: {object} is neither a group nor a dataset", path=self.path, object=name),
            fix="export the file again without it",
        )

    def dataset(self, dataset: Any, name: str) -> Dataset:
        """Read a dataset, its numbers and attributes."""
        attributes = self.enter(dataset, name)
        chunked = refuse_storage(self.path, dataset.get_create_plist(), name) == h5d.CHUNKED
        dtype, space = self.type_of(name, dataset.get_type()), dataset.get_space()
        if space.get_simple_extent_type() == h5s.NULL:
            value: np.ndarray | h5py.Empty = h5py.Empty(dtype)
        else:
            self.budget.take(name, math.prod(space.shape) * dtype.itemsize)
            value = _numbers(dataset, space.shape, dtype)
            self.count_text(name, value)
        shown = h5py.Dataset(dataset) if attributes or chunked else None
        return Dataset(
            value=value,
            dtype=dtype,
            attributes=self.attributes(shown, name) if attributes and shown else {},
            storage=_storage(shown) if chunked and shown else {},
        )

    def type_of(self, name: str, stored: Any) -> np.dtype:
        """Return the type of a dataset or attribute.

        Raises:
            FileError: NumPy does not support the type, or it is a reference.
        """
        try:
            dtype = stored.dtype
        except TypeError as error:  # such as integers of 24 bits, or HDF5's times
            raise FileError(
                Text(
                    "{path}: {object} has a type that NumPy does not support ({type})",
                    path=self.path,
                    object=name,
                    type=first_line(error).removeprefix("No NumPy equivalent for "),
                ),
                fix="write it as float64, int64 or text",
            ) from error
        if dtype.hasobject and h5py.check_string_dtype(dtype) is None:
            raise FileError(
                Text(
                    "{path}: {object} contains references or arrays of variable length",
                    path=self.path,
                    object=name,
                ),
                fix="write it as float64, int64 or text",
            )
        return dtype

    def attributes(self, entry: h5py.Group | h5py.Dataset, name: str) -> dict[str, Dataset]:
        """Read all attributes of a group or dataset; few have any, so the slower h5py interface is
        fine.
        """
        attributes = {}
        for key in entry.attrs:
            stored, location = entry.attrs.get_id(key), f"{name}@{key}"
            dtype = self.type_of(location, stored)
            numbers = stored.get_space().get_simple_extent_npoints()
            self.budget.take(location, int(numbers) * dtype.itemsize)
            attributes[key] = Dataset(value=_frozen(entry.attrs[key]), dtype=dtype)
            self.count_text(location, attributes[key].value)
        return attributes

    def count_text(self, name: str, value: np.ndarray | h5py.Empty) -> None:
        """Count texts of variable length, whose size is known only after they were read."""
        if isinstance(value, h5py.Empty) or value.dtype != object:
            return
        self.text += sum(map(len, value.flat))
        if self.text > _MAXIMUM_TEXT:
            raise FileError(
                Text(
                    "{path}: with {object} its texts exceed the limit of {limit} bytes",
                    path=self.path,
                    object=name,
                    limit=_MAXIMUM_TEXT,
                ),
                fix="export it again with shorter texts",
            )


def refuse_storage(path: str, properties: Any, name: str) -> int:
    """Refuse a dataset that is stored outside of its file or with a filter other than `_FILTERS`, so
    that nothing is read from elsewhere and no code is loaded; return its layout.

    Args:
        path: Path of the file, for messages.
        properties: Creation properties of the dataset.
        name: Name of the dataset, for messages.

    Raises:
        FileError: The storage is not allowed.
    """
    layout = properties.get_layout()
    filters = [properties.get_filter(n)[0] for n in range(properties.get_nfilters())]
    strange = [number for number in filters if number not in _FILTERS]
    if layout not in _LAYOUTS or properties.get_external_count():
        description = (
            "stores its data outside of the file (external storage or a virtual dataset), "
            "which is not allowed"
        )
    elif strange:
        description = Text(
            "is compressed with filter {filter}, but only gzip, szip and lzf are supported",
            filter=strange[0],
        )
    else:
        return layout
    raise FileError(
        Text(
            "{path}: {object} {description}",
            path=path,
            object=name,
            description=description,
        ),
        fix="write it again with h5py, uncompressed or compressed with gzip",
    )


def _numbers(dataset: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return all numbers of a dataset, which may be empty, as a read-only array."""
    stored = h5t.py_create(dtype)
    if dtype.subdtype is not None:  # each number is an array: its axes come last
        dtype, inner = dtype.subdtype
        shape = (*shape, *inner)
    array = _zeros(shape, dtype)
    if array.size:
        dataset.read(h5s.ALL, h5s.ALL, array, stored)
    # A scalar is taken out of its array once, as h5py does, so that a boolean becomes numpy.bool.
    return _frozen(array[()] if array.ndim == 0 else array)


def _zeros(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return zeros; large arrays have a memory mapping of their own, of which parts can be released
    (`jaxsnn.nir.io.reading.send`).
    """
    size = math.prod(shape) * dtype.itemsize
    if size < _MAPPED_SIZE or dtype.hasobject:
        return np.zeros(shape, dtype)
    return np.ndarray(shape, dtype, buffer=mmap.mmap(-1, size))


def _frozen(value: Any) -> Any:
    if isinstance(value, h5py.Empty):
        return value
    # Variable-length text is plain bytes, which a NumPy string type would cut at a zero byte.
    array = np.asarray(
        value, dtype=getattr(value, "dtype", object if isinstance(value, bytes | str) else None)
    )
    array.setflags(write=False)
    return array


def _storage(dataset: h5py.Dataset) -> dict[str, Any]:
    """Return the storage settings of a dataset's chunks; other layouts have no settings."""
    setting_names = (
        "chunks",
        "compression",
        "compression_opts",
        "shuffle",
        "fletcher32",
        "maxshape",
    )
    # Settings that equal the defaults of create_dataset are left out.
    defaults = {"shuffle": False, "fletcher32": False, "maxshape": dataset.shape}
    storage = {name: getattr(dataset, name) for name in setting_names}
    settings = {name: setting for name, setting in storage.items() if setting is not None}
    return {
        name: setting
        for name, setting in settings.items()
        if name not in defaults or setting != defaults[name]
    }
