"""Spike trains in HDF5 files with the layout of the Spiking Heidelberg Digits: ragged datasets
spikes/times and spikes/units, one entry for each sample, and labels.

A file is read in parts: each call reads some of the samples, in a process with limits.

Source: Cramer et al., "The Heidelberg Spiking Data Sets for the Systematic Evaluation of Spiking Neural
Networks", IEEE Transactions on Neural Networks and Learning Systems 33 (2022) 2744, and
zenkelab.org/resources/spiking-heidelberg-datasets-shd.
"""

# h5py has no types for its low-level modules.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import os
from functools import partial
from typing import Any, NamedTuple

import h5py
import numpy as np
from h5py import h5l

from jaxsnn.errors import FileError, listing
from jaxsnn.files.read_limits import ByteBudget
from jaxsnn.nir.io.files import Dataset, Group
from jaxsnn.nir.io.hdf5_objects import refuse_storage
from jaxsnn.nir.io.reading import read_hdf5
from jaxsnn.wording import Text

Name = str | os.PathLike[str]

#: Number of consecutive samples that are read by one call of HDF5.
_AT_ONCE = 64
#: Maximum number of samples, classes, and characters of the name of a class.
_MOST_SAMPLES, _MOST_CLASSES, _LONGEST_KEY = 2**24, 2**16, 256


class SpikeLabels(NamedTuple):
    """Labels of the samples of a file.

    Attributes:
        labels: (samples,) integers; None: the file has none.
        keys: names of the classes; empty: the file has none.
        samples: number of samples.
    """

    labels: np.ndarray | None
    keys: tuple[str, ...]
    samples: int


def is_spike_file(path: Name) -> bool:
    """Return whether an HDF5 file has the layout of spike trains.

    Raises:
        FileError: the file cannot be read.
    """

    def load(file: h5py.File, path: str, budget: ByteBudget) -> Group:
        del path, budget
        return Group({"spikes": _stored(np.array(_has_member(file, "spikes")))})

    return bool(read_hdf5(path, "an HDF5 file", load)["spikes"].value)


def read_spike_labels(path: Name) -> SpikeLabels:
    """Read the labels of a file, the names of its classes, and its number of samples.

    Raises:
        FileError: the file cannot be read, has another layout, or exceeds a limit.
    """
    document = read_hdf5(path, "a file of spike trains", _load_labels)
    keys = tuple(str(key) for key in document["keys"].value.tolist())
    labels = document["labels"].value if "labels" in document else None
    return SpikeLabels(labels=labels, keys=keys, samples=int(document["samples"].value))


def read_spike_trains(path: Name, index: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read the spikes of some samples, one after the other.

    Args:
        index: (samples,) numbers of the samples, in any order.

    Returns:
        Number of spikes of each sample, (samples,); times in seconds, (spikes,) float64, widened from
        the float16 of these data sets before any arithmetic; and units, (spikes,) int64.

    Raises:
        FileError: the file cannot be read, has another layout, or exceeds a limit.
    """
    document = read_hdf5(path, "a file of spike trains", partial(_load_trains, index=index))
    counts, times, units = (document[name].value for name in ("counts", "times", "units"))
    return counts, times.astype(np.float64), units.astype(np.int64)


def _load_labels(file: h5py.File, path: str, budget: ByteBudget) -> Group:
    times, _ = _trains(file, path)
    entries = {"samples": _stored(np.array(len(times))), "keys": _stored(np.zeros(0, "U1"))}
    if _has_link(file, "labels"):
        labels = _dataset(file, path, "labels")
        if labels.dtype.kind not in "iuf" or labels.shape != times.shape:
            raise FileError(
                Text(
                    "{path}: labels are {dtype} of shape {shape}, and there are {samples} samples",
                    path=path,
                    dtype=labels.dtype,
                    shape=labels.shape,
                    samples=len(times),
                ),
                fix="write an integer for each sample",
            )
        budget.take("/labels", labels.size * labels.dtype.itemsize)
        entries["labels"] = _stored(labels[()])
    if _has_member(file, "extra"):
        extra = file["extra"]
        if isinstance(extra, h5py.Group) and _has_link(extra, "keys"):
            entries["keys"] = _stored(_keys(_dataset(extra, path, "keys"), path, budget))
    return Group(entries)


def _keys(dataset: h5py.Dataset, path: str, budget: ByteBudget) -> np.ndarray:
    """Return the names of the classes."""
    is_text = dataset.dtype.kind == "S" or h5py.check_string_dtype(dataset.dtype) is not None
    if not is_text or dataset.ndim != 1 or len(dataset) > _MOST_CLASSES:
        raise FileError(
            Text(
                "{path}: /extra/keys is {dtype} of shape {shape}",
                path=path,
                dtype=dataset.dtype,
                shape=dataset.shape,
            ),
            fix=f"write at most {_MOST_CLASSES} texts",
        )
    budget.take("/extra/keys", len(dataset) * max(dataset.dtype.itemsize, 4 * _LONGEST_KEY))
    names = []
    for number in range(len(dataset)):
        budget.refuse_late()
        entry = dataset[number]
        text = entry.decode("utf-8", "replace") if isinstance(entry, bytes) else str(entry)
        if len(text) > _LONGEST_KEY:
            raise FileError(
                Text(
                    "{path}: /extra/keys has a name of {count} characters",
                    path=path,
                    count=len(text),
                ),
                fix=f"write names of at most {_LONGEST_KEY} characters",
            )
        names.append(text)
    return np.array(names, dtype=np.str_) if names else np.zeros(0, "U1")


def _load_trains(file: h5py.File, path: str, budget: ByteBudget, index: np.ndarray) -> Group:
    times, units = _trains(file, path)
    if len(index) and int(np.max(index)) >= len(times):
        raise FileError(
            Text(
                "{path} has {count} samples, and sample {sample} is needed",
                path=path,
                count=len(times),
                sample=int(np.max(index)),
            ),
            fix="do not change the file while it is used",
        )
    counts, time_parts, unit_parts = [], [], []
    # Runs of consecutive samples are read together.
    ends = np.flatnonzero(np.diff(index) != 1) + 1
    for run in np.split(np.asarray(index), ends):
        for first in range(0, len(run), _AT_ONCE):
            budget.refuse_late()
            part = run[first : first + _AT_ONCE]
            begin, end = int(part[0]), int(part[-1]) + 1
            for number, time, unit in zip(part, times[begin:end], units[begin:end], strict=True):
                if len(time) != len(unit):
                    raise FileError(
                        Text(
                            "{path}: sample {sample} has {times} times and {units} units",
                            path=path,
                            sample=int(number),
                            times=len(time),
                            units=len(unit),
                        ),
                        fix="write a unit for each time",
                    )
                budget.take(f"sample {number}", 32 * len(time))
                counts.append(len(time))
                time_parts.append(np.asarray(time))
                unit_parts.append(np.asarray(unit))
    entries = {
        "counts": np.array(counts, np.int64),
        "times": np.concatenate(time_parts) if time_parts else np.zeros(0),
        "units": np.concatenate(unit_parts) if unit_parts else np.zeros(0, np.int64),
    }
    return Group({name: _stored(array) for name, array in entries.items()})


def _trains(file: h5py.File, path: str) -> tuple[h5py.Dataset, h5py.Dataset]:
    """Return the ragged datasets of times and units."""
    spikes = file["spikes"] if _has_member(file, "spikes") else None
    if not isinstance(spikes, h5py.Group):
        raise FileError(
            Text(
                "{path} has no group 'spikes', only {entries}",
                path=path,
                entries=listing(list(file)[:20]) if len(file) else "nothing",
            ),
            fix="pass a file with spikes/times and spikes/units, such as shd_train.h5",
        )
    times, units = (_dataset(spikes, path, name) for name in ("times", "units"))
    for dataset, kinds in ((times, "f"), (units, "iu")):
        base = h5py.check_vlen_dtype(dataset.dtype)
        if base is None or dataset.ndim != 1 or base.kind not in kinds or base.itemsize > 8:
            raise FileError(
                Text(
                    "{path}: {object} is {dtype} of shape {shape}",
                    path=path,
                    object=dataset.name,
                    dtype=dataset.dtype if base is None else Text("ragged {base}", base=base),
                    shape=dataset.shape,
                ),
                fix="write ragged arrays with an entry for each sample: times as floats in seconds, "
                "units as integers",
            )
    # At least a byte of the file for each sample: a small file must not cause endless reading.
    if times.shape != units.shape or len(times) > min(_MOST_SAMPLES, file.id.get_filesize()):
        raise FileError(
            Text(
                "{path} has times of {times} samples and units of {units} samples",
                path=path,
                times=len(times),
                units=len(units),
            ),
            fix=f"write both for each sample, at most {_MOST_SAMPLES} samples",
        )
    return times, units


def _dataset(group: Any, path: str, name: str) -> h5py.Dataset:
    """Return a dataset of a group; refuse links, and data outside of the file."""
    location = f"{group.name.rstrip('/')}/{name}"
    if not _has_member(group, name) or not isinstance(group[name], h5py.Dataset):
        state = "is not a dataset of this file" if _has_link(group, name) else "is missing"
        raise FileError(
            Text("{path}: {object} {state}", path=path, object=location, state=state),
            fix="write the datasets spikes/times, spikes/units and labels",
        )
    refuse_storage(path, group[name].id.get_create_plist(), location)
    return group[name]


def _has_link(group: Any, name: str) -> bool:
    """Return whether a group has an entry, without opening it: a link may point to another file."""
    return group.id.links.exists(name.encode())


def _has_member(group: Any, name: str) -> bool:
    """Return whether a group has an object under a name, and not a link to another place."""
    if not _has_link(group, name):
        return False
    return group.id.links.get_info(name.encode()).type == h5l.TYPE_HARD


def _stored(array: np.ndarray) -> Dataset:
    return Dataset(value=array, dtype=array.dtype)
