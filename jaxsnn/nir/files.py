"""NIR files (HDF5) to plain nested dicts and back, without losing or adding anything.

A document is a nested dict: a group is a `Group` (a dict that also has the group's attributes), a
dataset a `Dataset`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from jaxsnn.errors import FileError
from jaxsnn.output import write_whole

#: How deep groups may nest: enough for every network, few enough to stop at a file whose groups
#: contain themselves.
MAXIMUM_DEPTH = 32


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


def _encoded(text: Any) -> Any:
    return text.encode() if isinstance(text, str) else [_encoded(part) for part in text]


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


def load(path: str | os.PathLike[str]) -> Group:
    """Read a NIR file into a document.

    Returns:
        The root group, with the entries "node" and, in all but the oldest files, "version".

    Raises:
        FileError: The file is missing, a directory, not HDF5, cut short, or HDF5 but not NIR.
    """
    document = load_hdf5(path, "a NIR file")
    if not isinstance(document.get("node"), Group):
        entries = ", ".join(document) or "nothing"
        raise FileError(
            f"{path} is HDF5 but not NIR, it has no group 'node', only {entries}",
            fix="name a file that a NIR exporter wrote",
        )
    return document


def load_hdf5(path: str | os.PathLike[str], kind: str) -> Group:
    """Read any HDF5 file into a document; `kind` says what it should be, for messages: "a NIR
    file".

    Raises:
        FileError: The file is missing, a directory, not HDF5, or cut short.
    """
    path = Path(path)
    if not path.exists():
        raise FileError(f"{path}: no such file")
    if path.is_dir():
        raise FileError(f"{path} is a directory", fix=f"name {kind}")
    try:
        is_hdf5 = h5py.is_hdf5(path)
        if not is_hdf5 and path.read_bytes()[:8] != b"\x89HDF\r\n\x1a\n":
            raise FileError(
                f"{path} is not an HDF5 file ({path.stat().st_size} bytes), so it cannot be {kind}",
                fix="name another file, or export it again",
            )
        with h5py.File(path, "r") as file:
            return _load_group(file, str(path), 0)
    except PermissionError as error:
        raise FileError(
            f"{path} cannot be opened: {error.strerror}", fix="change its permissions"
        ) from error
    except (OSError, RuntimeError, KeyError) as error:
        raise FileError(
            f"{path} is damaged or cut short: {_first_line(error)}", fix="fetch or export it again"
        ) from error


def _first_line(error: Exception) -> str:
    text = str(error).strip("'\"")
    return text.splitlines()[0] if text else type(error).__name__


def _load_group(group: h5py.Group, path: str, depth: int) -> Group:
    if depth > MAXIMUM_DEPTH:
        raise FileError(
            f"{path}: groups nest more than {MAXIMUM_DEPTH} deep at {group.name}",
            fix="export it again without a group that contains itself",
        )
    entries: dict[str, Any] = {}
    for name in map(str, group):
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise FileError(
                f"{path}: {group.name}/{name} is a link to elsewhere, "
                "which a NIR file must not have",
                fix="write what it leads to into the file",
            )
        entry = group[name]
        if isinstance(entry, h5py.Group):
            entries[name] = _load_group(entry, path, depth + 1)
        elif isinstance(entry, h5py.Dataset):
            entries[name] = _load_dataset(entry)
        else:
            raise FileError(
                f"{path}: {group.name}/{name} is neither a group nor a dataset",
                fix="export the file again without it",
            )
    return Group(entries, _load_attributes(group))


def _load_attributes(entry: h5py.Group | h5py.Dataset) -> dict[str, Dataset]:
    attributes = {}
    for name in entry.attrs:
        attributes[name] = Dataset(
            value=_frozen(entry.attrs[name]), dtype=entry.attrs.get_id(name).dtype
        )
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


def _load_dataset(dataset: h5py.Dataset) -> Dataset:
    value = _frozen(dataset[()])
    names = ("chunks", "compression", "compression_opts", "shuffle", "fletcher32", "maxshape")
    # What create_dataset would do by itself is left out.
    defaults = {"shuffle": False, "fletcher32": False, "maxshape": dataset.shape}
    storage = {name: getattr(dataset, name) for name in names}
    kept = {name: setting for name, setting in storage.items() if setting is not None}
    kept = {
        name: setting
        for name, setting in kept.items()
        if name not in defaults or setting != defaults[name]
    }
    return Dataset(
        value=value, dtype=dataset.dtype, attributes=_load_attributes(dataset), storage=kept
    )


def save(path: str | os.PathLike[str], document: Group, force: bool = False) -> None:
    """Write a document. The file appears whole or not at all, and is not overwritten unless `force`
    is set.

    Raises:
        FileError: The file exists, or the folder cannot be written.
    """

    def write(temporary: Path) -> None:
        with h5py.File(temporary, "w") as file:
            _save_group(file, document)

    write_whole(path, write, force)


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
