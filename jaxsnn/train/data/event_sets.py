"""Labelled recordings of events in the formats of the field, which stay in their files until they are
needed: the Spiking Heidelberg data sets, N-MNIST, DVS128 Gesture, and files and sequences of the user.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from jaxsnn.errors import FileError, Note, UsageError, listing, warn_of
from jaxsnn.files.array_files import load_arrays
from jaxsnn.files.event_files import CAMERA_ENDINGS
from jaxsnn.files.opening import read_text
from jaxsnn.keywords import suggests_keywords
from jaxsnn.network.spikes import Events
from jaxsnn.nir.initializers import Seed
from jaxsnn.nir.io.spike_trains import read_spike_labels
from jaxsnn.options import TIME_UNIT
from jaxsnn.output import write_arrays
from jaxsnn.simulation.stored_events import (
    COCHLEA,
    EventSource,
    RecordingFiles,
    RecordingSequence,
    RecordingWindows,
    SensorSize,
    SpikeTrainFile,
    StoredColumn,
    StoredEvents,
    assumed_unit,
    axes_of_sensor,
    checked_size,
    ragged_of_arrays,
    read_sample,
    size_of_input,
)
from jaxsnn.simulation.stored_events import events_of_arrays as events_of_arrays
from jaxsnn.train.data.datasets import (
    MOST_CLASSES,
    Data,
    Rows,
    Splits,
    as_splits,
    check_data,
    held_out,
    refuse_labels,
)
from jaxsnn.units import parse_time_unit
from jaxsnn.wording import Text

#: Cameras of N-MNIST and of DVS128 Gesture.
_NMNIST: SensorSize = (34, 34, 2)
_DVS128: SensorSize = (128, 128, 2)
#: Names of the gestures, by label from 1.
_GESTURES = (
    "hand clapping",
    "right hand wave",
    "left hand wave",
    "right arm clockwise",
    "right arm counter clockwise",
    "left arm clockwise",
    "left arm counter clockwise",
    "arm roll",
    "air drums",
    "air guitar",
    "other gestures",
)
_PARTS = ("train", "validation", "test")
#: Endings of the names of files with one sample.
SAMPLE_ENDINGS = (*CAMERA_ENDINGS, ".npz")

Notes = tuple[str, ...]


def event_data(
    source: EventSource,
    labels: Any,
    classes: Sequence[str],
    size: SensorSize,
    outputs: int = MOST_CLASSES,
) -> tuple[Data, Notes]:
    """Return labelled samples that are read when they are needed, and notes on what was changed.

    Args:
        source: the samples.
        labels: (samples,) integers from 0.
        classes: names of the classes.
        size: size of the sensor, (x, y, p).
        outputs: number of outputs of the network, which exceeds all labels.

    Raises:
        FileError, UsageError: labels that are not classes, or samples that cannot be read.
    """
    labels = np.asarray(labels)
    refuse_labels(labels, source.name)
    if len(labels) != len(source):
        raise UsageError(
            Text(
                "{data}: the number of samples is {samples}, that of labels {count}",
                data=source.name,
                samples=len(source),
                count=len(labels),
            ),
            fix="pass one label per sample",
        )
    invalid = (labels < 0) | (labels >= outputs)
    if invalid.any():
        raise UsageError(
            Text(
                "{data}: sample {sample} has the label {value:g}, and with {outputs} outputs labels "
                "range from 0 to {maximum}",
                data=source.name,
                sample=int(invalid.argmax()),
                value=labels[invalid.argmax()],
                outputs=outputs,
                maximum=outputs - 1,
            ),
            fix="number the classes from 0, or use a network with one output per class",
        )
    events = StoredEvents(source, math.prod(size))
    all_samples = np.arange(len(events))
    x = Events(
        time=Rows(StoredColumn(events, "time"), all_samples),  # pyright: ignore[reportArgumentType]
        index=Rows(StoredColumn(events, "index"), all_samples),  # pyright: ignore[reportArgumentType]
    )
    data = Data(
        x=x,
        y=labels.astype(np.int32),
        classes=tuple(classes),
        channels=math.prod(size),
        shape=axes_of_sensor(size),
    )
    check_data(data, source.name)
    return data, events.notes


@suggests_keywords
def data_of_recordings(
    recordings: Iterable[tuple[Any, Any]],
    sensor_size: tuple[int, int, int],
    *,
    time_unit: str | float | None = None,
    classes: Sequence[str] | None = None,
    name: str = "recordings",
) -> Data:
    """Return labelled samples of a sequence of pairs (structured array, label), such as a data set of
    tonic.

    The samples are taken from the sequence when they are needed, so that a sequence that reads files does
    not have to fit into memory. It is read from beginning to end once for the labels, and once to check
    all events. A generator, or another iterable without `len` and indices, is loaded into memory. The
    channel of an event is its index in an array (p, y, x).

    Args:
        recordings: sequence with `len` and indices from 0, or an iterable; each element is a structured
            array with fields t and, as far as the sensor has them, x, y and p, and an integer label.
        sensor_size: (x, y, p), as in tonic; 1 for a dimension without a field.
        time_unit: unit of t, a number with a unit, such as "1ms", or seconds; None: microseconds if t are
            integers, as in tonic, which a note reports. Floating-point numbers need a unit.
        classes: names of the classes; None: their indices.
        name: name of the data in messages.

    Returns:
        The samples for `fit` and `evaluate`.

    Raises:
        UsageError: elements that are not such pairs, events outside of the sensor, times that are
            negative, not finite or without a unit, or labels that are not integers from 0.

    >>> recording = np.array([(2000, 1)], dtype=[("t", int), ("x", int)])
    >>> data = data_of_recordings([(recording, 0), (recording, 1)], (3, 1, 1), time_unit="1us")
    >>> len(data), data.channels, data.x.time[np.array([1])].tolist()
    (2, 3, [[0.002]])
    """
    size = checked_size(sensor_size)
    if not hasattr(recordings, "__iter__") and not hasattr(recordings, "__getitem__"):
        raise UsageError(
            Text("{data} is of type {type}", data=name, type=type(recordings).__name__),
            fix="pass a sequence of pairs (structured array, label)",
        )
    is_sequence = hasattr(recordings, "__len__") and hasattr(recordings, "__getitem__")
    sequence: Any = recordings if is_sequence else list(recordings)
    labels, times, notes = [], [], list[str]()
    for number in range(len(sequence)):
        element = sequence[number]
        if not isinstance(element, tuple | list) or len(element) != 2:
            raise UsageError(
                Text(
                    "{data}: element {number} is of type {type}",
                    data=name,
                    number=number,
                    type=type(element).__name__,
                ),
                fix="pass a sequence of pairs (structured array, label)",
            )
        recording, label = element
        labels.append(np.asarray(label)[()])
        if "t" in (np.asarray(recording).dtype.names or ()):
            times.append(np.max(np.asarray(recording)["t"], initial=0))  # keeps the type
    if time_unit is None:
        notes.append(assumed_unit(name, times, TIME_UNIT.set_to("1s")))
    unit = parse_time_unit("1us" if time_unit is None else time_unit)
    source = RecordingSequence(name=name, recordings=sequence, size=size, unit=unit)
    refuse_labels(np.array(labels), name)
    if classes is None:
        classes = tuple(map(str, range(int(max(labels, default=0)) + 1)))
    data, reading_notes = event_data(source, labels, classes, size, outputs=len(classes))
    warn_of((*notes, *reading_notes))
    return data


@suggests_keywords
def save_events(
    path: str | os.PathLike[str],
    recordings: Iterable[Any],
    labels: Any = None,
    *,
    sensor_size: tuple[int, int, int],
    time_unit: str | float,
    force: bool = False,
) -> None:
    """Write recordings of events to an .npz file that `jaxsnn train --data events:FILE` and
    `jaxsnn run --input FILE` read.

    The file has one entry for each event, sample after sample: t, and x, y and p where the sensor has
    them; offsets (samples + 1,), the first event of each sample and the number of events; labels
    (samples,); sensor_size (3,), (x, y, p); and time_unit, a text.

    Args:
        path: path of the file.
        recordings: structured arrays with fields t and, as far as the sensor has them, x, y and p.
        labels: (samples,) integers from 0; None: no labels.
        sensor_size: (x, y, p); 1 for a dimension without a field.
        time_unit: unit of t, a number with a unit, such as "1us", or seconds.
        force: whether an existing file is overwritten.

    Raises:
        FileError: the file exists, or cannot be written.
        UsageError: no recordings, or recordings or labels that `data_of_recordings` refuses.
    """
    size, unit = checked_size(sensor_size), parse_time_unit(time_unit)
    arrays = [np.asarray(recording) for recording in recordings]
    if not arrays:
        raise UsageError("there are no recordings", fix="pass at least one recording")
    if labels is not None:
        labels = np.asarray(labels)
        refuse_labels(labels, "labels")
        if (labels < 0).any():
            sample = int((labels < 0).argmax())
            raise UsageError(
                Text(
                    "the label of sample {sample} is {value:g}, and labels begin with 0",
                    sample=sample,
                    value=labels[sample],
                ),
                fix="number the classes from 0",
            )
        if len(labels) != len(arrays):
            raise UsageError(
                Text(
                    "the number of recordings is {samples}, that of labels {count}",
                    samples=len(arrays),
                    count=len(labels),
                ),
                fix="pass one label per recording",
            )
    pairs = [(array, 0) for array in arrays]
    source = RecordingSequence(name="recordings", recordings=pairs, size=size, unit=unit)
    StoredEvents(source, math.prod(size))  # checks them
    fields = ["t", *(axis for axis, extent in zip("xyp", size, strict=True) if extent > 1)]
    fields += ["x"] if "x" not in fields else []
    content: dict[str, np.ndarray] = {
        key: np.concatenate(
            [
                array[key] if key in (array.dtype.names or ()) else np.zeros(len(array), int)
                for array in arrays
            ]
        )
        for key in fields
    }
    counts = [len(array) for array in arrays]
    content["offsets"] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    content["sensor_size"] = np.array(size)
    content["time_unit"] = np.array(time_unit if isinstance(time_unit, str) else f"{unit!r}s")
    if labels is not None:
        content["labels"] = labels.astype(np.int64)
    write_arrays(path, content, force)


def event_splits(
    kind: str,
    location: str,
    seed: Seed = 0,
    *,
    shape: tuple[int, ...] | None = None,
    outputs: int = MOST_CLASSES,
) -> tuple[Splits, Notes]:
    """Return the parts of a data set, and notes on default choices.

    Args:
        kind: key of `EVENT_SETS`.
        location: folder of the data set, or path of a file.
        seed: random seed of samples that are held out: an integer or a `jax.random` key.
        shape: shape of the network's input, (p, y, x) or (channels,), which is the size of the sensor
            for files that do not specify it; None: unknown.
        outputs: number of outputs of the network.

    Raises:
        FileError, UsageError: files that are missing or cannot be read, or labels without an output.
    """
    return EVENT_SETS[kind](kind, location, seed, shape, outputs)


def _heidelberg(
    kind: str, location: str, seed: Seed, shape: tuple[int, ...] | None, outputs: int
) -> tuple[Splits, Notes]:
    """Return SHD or SSC, whose validation samples are those of the file KIND_valid.h5, if it exists."""
    del shape
    files = {
        "train": f"{kind}_train.h5",
        "validation": f"{kind}_valid.h5",
        "test": f"{kind}_test.h5",
    }
    paths = {part: Path(location) / name for part, name in files.items()}
    if not paths["validation"].exists():
        del paths["validation"]
    tables = {part: read_spike_labels(path) for part, path in paths.items()}
    for part, table in tables.items():
        if table.labels is None:
            raise FileError(
                Text("{path}: /labels is missing", path=paths[part]),
                fix="write an integer for each sample",
            )
        refuse_labels(table.labels, str(paths[part]))
    keys = next((table.keys for table in tables.values() if table.keys), ())
    largest = max(int(np.max(table.labels, initial=0)) for table in tables.values())  # pyright: ignore
    classes = keys or tuple(map(str, range(min(largest, MOST_CLASSES - 1) + 1)))
    parts, notes = dict[str, Data](), list[str]()
    for part, table in tables.items():
        source = SpikeTrainFile(name=str(paths[part]), samples=table.samples)
        parts[part], more = event_data(
            source, table.labels, classes, COCHLEA, min(outputs, len(classes))
        )
        notes += more
    return _in_three_parts(kind, parts, seed, notes)


def _nmnist(
    kind: str, location: str, seed: Seed, shape: tuple[int, ...] | None, outputs: int
) -> tuple[Splits, Notes]:
    """Return N-MNIST: files Train/DIGIT/NUMBER.bin and Test/DIGIT/NUMBER.bin."""
    del shape
    return _of_folders(kind, location, seed, _NMNIST, outputs)


def _gestures(
    kind: str, location: str, seed: Seed, shape: tuple[int, ...] | None, outputs: int
) -> tuple[Splits, Notes]:
    """Return DVS128 Gesture: AEDAT files that trials_to_train.txt and trials_to_test.txt list, each with
    a table NAME_labels.csv of the label, begin and end of its samples.
    """
    del shape
    parts, notes = dict[str, Data](), list[str]()
    for part in ("train", "test"):
        table = Path(location) / f"trials_to_{part}.txt"
        names = [line.strip() for line in read_text(table, "a list of files").splitlines()]
        windows, labels = [], []
        for name in filter(None, names):
            if Path(name).name != name or not name.endswith(".aedat"):
                raise FileError(
                    Text("{path} lists {name}", path=table, name=name[:80]),
                    fix="list names of .aedat files of the same folder",
                )
            path = Path(location) / name
            for label, begin, end in _windows(path.with_name(f"{path.stem}_labels.csv")):
                windows.append((path, begin, end))
                labels.append(label - 1)
        source = RecordingWindows(name=str(table), windows=tuple(windows), size=_DVS128)
        parts[part], more = event_data(
            source, np.array(labels, int), _GESTURES, _DVS128, min(outputs, len(_GESTURES))
        )
        notes += more
    return _in_three_parts(kind, parts, seed, notes)


def _windows(path: Path) -> list[tuple[int, int, int]]:
    """Return label, begin and end in microseconds of each sample in a recording of gestures."""
    lines = read_text(path, "a table of labels").splitlines()
    rows = []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        entry = re.fullmatch(r"\s*(\d{1,4})\s*,\s*(\d{1,18})\s*,\s*(\d{1,18})\s*", line)
        if entry is None or int(entry[2]) >= int(entry[3]) or int(entry[1]) < 1:
            raise FileError(
                Text(
                    "{path}, line {line}: '{text}' is not a label, a begin and an end",
                    path=path,
                    line=number,
                    text=line[:80],
                ),
                fix="write class,startTime_usec,endTime_usec, with classes from 1",
            )
        rows.append((int(entry[1]), int(entry[2]), int(entry[3])))
    return rows


def _user_files(
    kind: str, location: str, seed: Seed, shape: tuple[int, ...] | None, outputs: int
) -> tuple[Splits, Notes]:
    """Return events of an .npz file, of train.npz and test.npz in a folder, or of folders of files."""
    size = size_of_input(shape)
    if not os.path.isdir(location):
        data, notes = _of_npz(Path(location), size, outputs)
        return _at_random(location, data, seed, notes)
    paths = {part: Path(location) / f"{part}.npz" for part in _PARTS}
    if not any(path.exists() for path in paths.values()):
        return _of_folders(f"{kind}:{location}", location, seed, size, outputs)
    if not paths["validation"].exists():
        del paths["validation"]
    parts, notes = dict[str, Data](), list[str]()
    for part, path in paths.items():
        parts[part], more = _of_npz(path, size, outputs)
        notes += more
    classes = max((data.classes for data in parts.values()), key=len)
    parts = {part: replace(data, classes=classes) for part, data in parts.items()}
    return _in_three_parts(location, parts, seed, notes)


#: Prefix of `--data` -> function of the kind, the location, the seed, the shape of the input and the number
#: of outputs.
EVENT_SETS: Mapping[
    str, Callable[[str, str, Seed, tuple[int, ...] | None, int], tuple[Splits, Notes]]
] = MappingProxyType(
    {
        "shd": _heidelberg,
        "ssc": _heidelberg,
        "nmnist": _nmnist,
        "dvsgesture": _gestures,
        "events": _user_files,
    }
)


def _of_npz(path: Path, size: SensorSize | None, outputs: int) -> tuple[Data, Notes]:
    arrays = load_arrays(path)
    ragged, sensor, notes = ragged_of_arrays(arrays, str(path), size)
    if "labels" not in arrays:
        raise FileError(
            Text("{path} has no array 'labels'", path=path), fix="write an integer for each sample"
        )
    labels = arrays["labels"]
    refuse_labels(labels, str(path))
    classes = tuple(map(str, range(min(int(np.max(labels, initial=0)), MOST_CLASSES) + 1)))
    data, more = event_data(ragged, labels, classes, sensor, outputs)
    return data, (*notes, *more)


def _of_folders(
    name: str, location: str, seed: Seed, size: SensorSize | None, outputs: int
) -> tuple[Splits, Notes]:
    """Return samples in files PART/LABEL/NAME, or LABEL/NAME, which are split at random."""
    root = Path(location)
    if not root.is_dir():
        raise FileError(
            Text("{path} is not a folder", path=location), fix="pass the folder of the data"
        )
    folders = {
        part: folder
        for folder in sorted(root.iterdir())
        for part in _PARTS
        if folder.is_dir() and folder.name.lower() == part
    }
    has_parts = bool(folders)
    if has_parts and not {"train", "test"} <= folders.keys():
        raise FileError(
            Text("{path} has the parts {parts}", path=location, parts=listing(folders)),
            fix="add the folders train and test, or remove these folders to split at random",
        )
    folders = folders or {"samples": root}
    notes = list[str]()
    files = {part: _files_by_label(folder, notes) for part, folder in folders.items()}
    classes = sorted({label for labels in files.values() for label in labels}, key=_by_number)
    if not classes:
        raise FileError(
            Text(
                "{path} contains no files in folders of labels whose names end with {endings}",
                path=location,
                endings=listing(SAMPLE_ENDINGS),
            ),
            fix=(
                "sort files with these endings into folders, train/LABEL and test/LABEL; save other "
                "arrays with numpy.savez"
            ),
        )
    parts = dict[str, Data]()
    for part, by_label in files.items():
        paths = [path for label in classes for path in by_label.get(label, ())]
        labels = [number for number, label in enumerate(classes) for _ in by_label.get(label, ())]
        if size is None and paths:
            _, size = read_sample(paths[0], None)
        source = RecordingFiles(name=str(folders[part]), paths=tuple(paths), size=size or (1, 1, 1))
        parts[part], more = event_data(source, np.array(labels, int), classes, source.size, outputs)
        notes += more
    if has_parts:
        return _in_three_parts(name, parts, seed, notes)
    return _at_random(name, parts["samples"], seed, tuple(notes))


def _files_by_label(folder: Path, notes: list[str]) -> dict[str, list[Path]]:
    """Return the files of samples by the name of their folder, in the order of their names. Hidden files
    and folders are ignored.

    Args:
        notes: list to which a note on other entries is added.

    Raises:
        FileError: the folder of a label has no sample, so that later labels would get other numbers.
    """
    files, ignored = dict[str, list[Path]](), 0
    for label in sorted(folder.iterdir()):
        if not label.is_dir() or label.name.startswith("."):
            continue
        entries = sorted(path for path in label.iterdir() if not path.name.startswith("."))
        files[label.name] = [path for path in entries if path.suffix in SAMPLE_ENDINGS]
        ignored += len(entries) - len(files[label.name])
    if any(files.values()) and (empty := [label for label, paths in files.items() if not paths]):
        raise FileError(
            Text(
                "{path} contains no file whose name ends with {endings}",
                path=folder / empty[0],
                endings=listing(SAMPLE_ENDINGS),
            ),
            fix="add samples, or remove the folder",
        )
    if ignored:
        text = Text("{path}: entries that are not samples: {count}", path=folder, count=ignored)
        notes.append(Note(text, kind="dropped", code="not-read"))
    return {label: paths for label, paths in files.items() if paths}


def _by_number(label: str) -> tuple[bool, int, str]:
    is_number = label.isascii() and label.isdigit() and len(label) < 10
    return not is_number, int(label) if is_number else 0, label


def _in_three_parts(
    name: str, parts: Mapping[str, Data], seed: Seed, notes: Sequence[str]
) -> tuple[Splits, Notes]:
    """Return the parts; without validation samples, a fifth of the training samples is held out."""
    training, validation = parts["train"], parts.get("validation")
    if validation is None:
        training, validation, note = held_out(training, name, seed)
        notes = [*notes, note]
    splits = Splits(name=name, train=training, validation=validation, test=parts["test"])
    return splits, tuple(notes)


def _at_random(name: str, data: Data, seed: Seed, notes: Notes) -> tuple[Splits, Notes]:
    splits, more = as_splits(data, seed)
    return replace(splits, name=name), (*notes, *more)
