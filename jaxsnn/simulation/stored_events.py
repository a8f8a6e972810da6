"""Recorded events of many samples, which are read when they are needed, as padded arrays.

A sample is a list of events of any length. The channel of an event is its index in an array (p, y, x), the
order of the pixels of images: row by row from the top, one polarity after the other.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from jaxsnn.errors import FileError, Note, UsageError, listing, warn_of
from jaxsnn.files.array_files import load_arrays
from jaxsnn.files.event_files import (
    PacketIndex,
    packets_of,
    read_camera_file,
    read_window,
)
from jaxsnn.files.read_limits import ByteBudget
from jaxsnn.network.spikes import Events
from jaxsnn.nir.io.spike_trains import read_spike_trains
from jaxsnn.options import TIME_UNIT
from jaxsnn.units import format_time, parse_time
from jaxsnn.wording import Reference, Text

#: Columns, rows and polarities of a camera; (channels, 1, 1) of a cochlea.
SensorSize = tuple[int, int, int]
#: Channels of the artificial cochlea of the Spiking Heidelberg Digits.
COCHLEA: SensorSize = (700, 1, 1)
#: Number of samples of an HDF5 file that one process reads.
_SAMPLES_OF_A_PROCESS = 256
#: Bytes of a padded event: its time and its channel.
BYTES_OF_AN_EVENT = 12
#: Bytes of what is remembered of each sample.
_BYTES_OF_A_SAMPLE = 128
#: Unit of the times of event cameras and of tonic, and of integer times without a unit.
_CAMERA_UNIT = "1us"


class Sample(NamedTuple):
    """Events of one sample.

    Attributes:
        time: (events,) float64, seconds.
        index: (events,) integers, channels.
        dropped: number of entries of the file that are not events.
        notes: what was assumed or not used in reading.
    """

    time: np.ndarray
    index: np.ndarray
    dropped: int = 0
    notes: tuple[Note, ...] = ()


class EventSource(Protocol):
    """Samples of events."""

    @property
    def name(self) -> str:
        """Name in messages."""
        ...

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def read(self, index: np.ndarray) -> Iterator[Sample]:
        """Yield the samples of an index array."""
        ...


@dataclass(frozen=True, kw_only=True)
class SpikeTrainFile:
    """Spike trains of an HDF5 file with the layout of the Spiking Heidelberg Digits.

    Attributes:
        name: path of the file.
        samples: number of samples.
    """

    name: str
    samples: int

    def __len__(self) -> int:
        return self.samples

    def read(self, index: np.ndarray) -> Iterator[Sample]:
        """Yield the samples of an index array, read in processes of 256 samples each."""
        for first in range(0, len(index), _SAMPLES_OF_A_PROCESS):
            counts, times, units = read_spike_trains(
                self.name, index[first : first + _SAMPLES_OF_A_PROCESS]
            )
            ends = np.cumsum(counts)
            for end, count in zip(ends, counts, strict=True):
                yield Sample(times[end - count : end], units[end - count : end])


@dataclass(frozen=True, kw_only=True)
class RecordingFiles:
    """Files with one sample each: recordings of event cameras, or .npz files.

    Attributes:
        name: name of the data in messages.
        paths: paths of the files.
        size: size of the sensor.
    """

    name: str
    paths: tuple[Path, ...]
    size: SensorSize

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: np.ndarray) -> Iterator[Sample]:
        """Yield the samples of an index array, file by file.

        Raises:
            FileError, UsageError: a file cannot be read, or has another sensor.
        """
        for number in index:
            path = self.paths[number]
            sample, sensor = read_sample(path, self.size)
            if sensor != self.size:
                raise UsageError(
                    Text(
                        "{path} has events of a sensor of size {actual}, (x, y, p), and the sensor of the "
                        "data has {expected}",
                        path=path,
                        actual=sensor,
                        expected=self.size,
                    ),
                    fix="use recordings of one sensor, and an input of its shape, (p, y, x)",
                )
            yield sample


@dataclass(frozen=True, kw_only=True)
class RecordingWindows:
    """Parts of AEDAT 3.1 files with one sample each, as in DVS128 Gesture.

    Attributes:
        name: name of the data in messages.
        windows: path, begin and end in microseconds of each sample.
        size: size of the sensor.
    """

    name: str
    windows: tuple[tuple[Path, int, int], ...]
    size: SensorSize
    packets: dict[Path, PacketIndex] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.windows)

    def read(self, index: np.ndarray) -> Iterator[Sample]:
        """Yield the samples of an index array, of which only the packets in question are read."""
        for number in index:
            path, begin, end = self.windows[number]
            if path not in self.packets:
                self.packets[path] = packets_of(path)
            recording = read_window(path, self.packets[path], begin, end)
            refuse_other_size(path, recording.size, self.size)
            index_of_events = channels_of(recording.events, self.size, str(path))
            yield Sample(
                recording.events["t"] * parse_time(_CAMERA_UNIT), index_of_events, recording.dropped
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class RaggedArrays:
    """Samples in memory, one after the other.

    Attributes:
        name: name of the data in messages.
        time: (events,) seconds.
        index: (events,) channels.
        offsets: (samples + 1,) first event of each sample, and the number of events.
    """

    name: str
    time: np.ndarray
    index: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def read(self, index: np.ndarray) -> Iterator[Sample]:
        """Yield the samples of an index array."""
        for number in index:
            part = slice(int(self.offsets[number]), int(self.offsets[number + 1]))
            yield Sample(self.time[part], self.index[part])


@dataclass(frozen=True, kw_only=True, eq=False)
class RecordingSequence:
    """A sequence of pairs of a structured array and a label, such as a data set of tonic.

    Attributes:
        name: name of the data in messages.
        recordings: the sequence; the sample of a number is always the same.
        size: size of the sensor.
        unit: unit of the times in seconds.
    """

    name: str
    recordings: Sequence[Any]
    size: SensorSize
    unit: float

    def __len__(self) -> int:
        return len(self.recordings)

    def read(self, index: np.ndarray) -> Iterator[Sample]:
        """Yield the samples of an index array, which are taken from the sequence in turn."""
        for number in index:
            recording = np.asarray(self.recordings[int(number)][0])
            yield sample_of_recording(recording, self.size, self.unit, f"sample {number}")


class StoredEvents:
    """Samples of a source, checked once, of which some at a time are loaded as padded arrays.

    Args:
        source: the samples.
        channels: number of channels.

    Attributes:
        counts: number of events of each sample.
        last: time of the last event of each sample, seconds.
        notes: what was dropped or changed in reading.

    Raises:
        FileError, UsageError: a sample cannot be read, or has a time or a channel that no event has.
    """

    def __init__(self, source: EventSource, channels: int):
        self.source, self.channels = source, channels
        samples = len(source)
        self.counts, self.last = np.zeros(samples, np.int64), np.zeros(samples)
        self._digests: list[bytes] = []
        unsorted = dropped = 0
        noted: dict[str, list[Note]] = {}
        budget = ByteBudget(source.name)
        budget.take("hashes of its samples", samples * _BYTES_OF_A_SAMPLE)
        for number, sample in enumerate(source.read(np.arange(samples))):
            budget.refuse_late()
            checked = self._checked(sample, number)
            unsorted += bool((np.diff(sample.time) < 0).any())
            dropped += sample.dropped
            for note in sample.notes:
                noted.setdefault(note.code, []).append(note)
            self.counts[number] = len(checked.time)
            self.last[number] = checked.time[-1] if len(checked.time) else 0.0
            self._digests.append(_digest(checked))
        #: Number of slots of each sample in a padded array.
        self.slots = max(int(self.counts.max(initial=0)), 1)
        self.notes = (*_first_of_each(noted, source.name), *self._notes(unsorted, dropped))
        self._loaded: tuple[bytes, Events] | None = None

    def _notes(self, unsorted: int, dropped: int) -> tuple[Note, ...]:
        notes, name, empty = list[Note](), self.source.name, int((self.counts == 0).sum())
        if unsorted:
            notes.append(sorted_note(name, unsorted))
        if empty:
            text = Text("{data}: samples without events: {count}", data=name, count=empty)
            notes.append(Note(text, code="no-events"))
        if dropped:
            notes.append(dropped_note(name, dropped))
        return tuple(notes)

    def __len__(self) -> int:
        return len(self.counts)

    def load(self, index: np.ndarray) -> Events:
        """Load some samples: times (samples, slots) float64, inf in unused slots, and channels.

        The samples of the last call are remembered, so that times and channels can be requested in turn.

        Raises:
            FileError: the padded arrays exceed the limit of bytes.
        """
        key = np.asarray(index, np.int64).tobytes()
        if self._loaded is None or self._loaded[0] != key:
            budget = ByteBudget(self.source.name)
            budget.take(
                f"events of {len(index)} samples", len(index) * self.slots * BYTES_OF_AN_EVENT
            )
            time = np.full((len(index), self.slots), np.inf)
            channel = np.full(time.shape, self.channels, np.int32)
            for row, sample in enumerate(self.source.read(np.asarray(index))):
                checked = self._checked(sample, int(index[row]))
                count = len(checked.time)
                if _digest(checked) != self._digests[index[row]]:
                    raise FileError(
                        Text(
                            "{data}: sample {sample} changed while it was in use: {expected} events "
                            "before, {actual} now",
                            data=self.source.name,
                            sample=int(index[row]),
                            actual=count,
                            expected=int(self.counts[index[row]]),
                        ),
                        fix="pass data whose samples are the same in each epoch",
                    )
                time[row, :count], channel[row, :count] = checked.time, checked.index
            self._loaded = (key, Events(time=time, index=channel))
        return self._loaded[1]

    def digest(self, index: np.ndarray) -> bytes:
        """Return a hash of the events of some samples, without reading them again."""
        return hashlib.sha256(b"".join(self._digests[number] for number in index)).digest()

    def _checked(self, sample: Sample, number: int) -> Sample:
        """Return a sample sorted by time; simultaneous events keep their order."""
        time, index = np.asarray(sample.time, np.float64), np.asarray(sample.index)
        for values, invalid, quantity in (
            (time, ~(np.isfinite(time) & (time >= 0)), "the time"),
            (index, (index < 0) | (index >= self.channels), "the channel"),
        ):
            if invalid.any():
                event = int(invalid.argmax())
                raise UsageError(
                    Text(
                        "{data}: event {event} of sample {sample} has {quantity} {value:g}",
                        data=self.source.name,
                        event=event,
                        sample=number,
                        quantity=quantity,
                        value=values[event],
                    ),
                    fix="write finite times of at least 0"
                    if quantity == "the time"
                    else f"use channels from 0 to {self.channels - 1}",
                )
        index = index.astype(np.int32)
        if (np.diff(time) < 0).any():
            order = np.argsort(time, kind="stable")
            time, index = time[order], index[order]
        return Sample(time, index)


def _digest(sample: Sample) -> bytes:
    return hashlib.sha256(sample.time.tobytes() + sample.index.tobytes()).digest()


def _first_of_each(noted: Mapping[str, list[Note]], name: str) -> Iterator[Note]:
    """Yield the first of all notes with the same code, and the number of the others.

    Args:
        noted: notes by code.
        name: name of the data.
    """
    for code, notes in noted.items():
        yield notes[0]
        if len(notes) > 1:
            text = Text("{data}: files with the same note: {count}", data=name, count=len(notes))
            yield Note(text, kind=notes[0].kind, code=code)


@dataclass(frozen=True, eq=False)
class StoredColumn:
    """Times or channels of stored events, as an array (samples, slots) whose rows are read when they are
    indexed.

    Attributes:
        events: the stored events.
        name: "time" or "index".
    """

    events: StoredEvents
    name: Literal["time", "index"]

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the array."""
        return len(self.events), self.events.slots

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return 2

    @property
    def dtype(self) -> np.dtype:
        """Type of the entries."""
        return np.dtype(np.float64 if self.name == "time" else np.int32)

    def __len__(self) -> int:
        return len(self.events)

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        """Read rows into memory."""
        return np.asarray(getattr(self.events.load(index), self.name))


def sorted_note(name: str, count: int) -> Note:
    """Return a note on samples whose events were sorted."""
    text = Text(
        "{data}: samples whose events are not in the order of time, and are sorted: {count}",
        data=name,
        count=count,
    )
    return Note(text, kind="assumed", code="sorted-events")


def dropped_note(name: str, count: int) -> Note:
    """Return a note on entries of files that are not events."""
    text = Text(
        "{data}: entries that are not events of pixels, such as synchronisation signals, and are left "
        "out: {count}",
        data=name,
        count=count,
    )
    return Note(text, kind="dropped", code="left-out")


# -- samples of structured arrays and of files


def checked_size(sensor_size: Any) -> SensorSize:
    """Return the size of a sensor.

    Raises:
        UsageError: it is not (x, y, p) of positive integers.
    """
    sizes = np.asarray(sensor_size)
    if sizes.shape != (3,) or sizes.dtype.kind not in "iu" or (sizes < 1).any():
        raise UsageError(
            Text("sensor_size is {sensor_size}", sensor_size=sensor_size),
            fix="pass (x, y, p), with 1 for a missing dimension",
        )
    if math.prod(sizes.tolist()) >= 2**31:
        raise UsageError(
            Text("sensor_size is {sensor_size}", sensor_size=sensor_size),
            fix="pass a sensor of fewer than 2147483648 channels",
        )
    return tuple(sizes.tolist())


def axes_of_sensor(size: SensorSize) -> tuple[int, ...]:
    """Return the axes of the channels of a sensor: (p, y, x), or (channels,) if it has columns only."""
    return size[:1] if size[1:] == (1, 1) else size[::-1]


def size_of_input(shape: tuple[int, ...] | None) -> SensorSize | None:
    """Return the size of the sensor whose events have the shape of an input; None: unknown."""
    if shape is None or len(shape) != 3:
        return None
    p, y, x = shape
    return x, y, p


def channels_of(recording: np.ndarray, size: SensorSize, name: str) -> np.ndarray:
    """Return the channel of each event of a structured array, (p * rows + y) * columns + x.

    Args:
        name: name of the recording in messages.

    Raises:
        UsageError: a field is missing, or an event is outside of the sensor or between its pixels.
    """
    width, height, _ = size
    x, y, p = (
        _coordinates(recording, axis, extent, name)
        for axis, extent in zip("xyp", size, strict=True)
    )
    return (p * height + y) * width + x


def sample_of_recording(recording: np.ndarray, size: SensorSize, unit: float, name: str) -> Sample:
    """Return the events of a structured array with fields t and, as far as the sensor has them, x, y, p.

    Args:
        unit: unit of t in seconds.
        name: name of the recording in messages.

    Raises:
        UsageError: missing fields, events outside of the sensor, or times that are below 0 or not
            finite.
    """
    return Sample(_times(recording, name) * unit, channels_of(recording, size, name))


def events_of_arrays(
    recordings: Sequence[np.ndarray],
    sensor_size: tuple[int, ...],
    *,
    time_unit: str | None = None,
    max_events: int | None = None,
) -> Events:
    """Return events (samples, events) of structured arrays with fields t and p and, of a camera, x
    and y.

    This is the format of tonic for recordings of event cameras (x, y, p, t) and of cochleas (x, t, p).
    The channel of an event is its index in an array (p, y, x).

    Args:
        recordings: one structured array for each sample; times from the start of the recording.
        sensor_size: (x, y, p), as in tonic.
        time_unit: unit of t; None: microseconds if t are integers, as in tonic, which a note reports.
            Floating-point numbers need a unit.
        max_events: largest number of events of a sample; None: no limit. Longer samples are refused.

    Raises:
        UsageError: missing fields, events outside the sensor, between its pixels, or at times that
            are below 0, not finite or without a unit, or too many.

    >>> recording = np.array([(1, 0, 1, 2000)], dtype=[("x", int), ("y", int), ("p", int), ("t", int)])
    >>> events = events_of_arrays([recording], (2, 1, 2), time_unit="1us")
    >>> events.time.tolist(), events.index.tolist()
    ([[0.002]], [[3]])
    """
    name, size, notes = "recordings", checked_size(sensor_size), list[Note]()
    recordings = [np.asarray(recording) for recording in recordings]
    if time_unit is None:
        times = [recording["t"] for recording in recordings if "t" in (recording.dtype.names or ())]
        notes.append(assumed_unit(name, times, TIME_UNIT.set_to("1s")))
    unit = parse_time(_CAMERA_UNIT if time_unit is None else time_unit)
    slots = max([len(recording) for recording in recordings] + [1])
    if max_events is not None and slots > max_events:
        raise UsageError(
            Text(
                "a recording has {count} events, more than max_events = {limit}",
                count=slots,
                limit=max_events,
            ),
            fix="shorten the recording, or pass a larger max_events",
        )
    time = np.full((len(recordings), slots), np.inf)
    index = np.full(time.shape, math.prod(size), np.int32)
    unsorted = 0
    for number, recording in enumerate(recordings):
        sample = sample_of_recording(recording, size, unit, f"sample {number}")
        unsorted += bool((np.diff(sample.time) < 0).any())
        order = np.argsort(sample.time, kind="stable")
        time[number, : len(order)] = sample.time[order]
        index[number, : len(order)] = sample.index[order]
    if unsorted:
        notes.append(sorted_note(name, unsorted))
    warn_of(notes)
    return Events(time=time, index=index)


def _times(recording: np.ndarray, name: str) -> np.ndarray:
    """Return the times of the events, (events,) in the unit of the recording, from its start."""
    if "t" not in (recording.dtype.names or ()):
        raise UsageError(
            Text(
                "{sample} has no field 't', and is {dtype} of shape {shape}",
                sample=name,
                dtype=recording.dtype,
                shape=recording.shape,
            ),
            fix="pass a structured array with the fields t and p; for a camera also x and y",
        )
    t = np.asarray(recording["t"], float)
    invalid = t[~(np.isfinite(t) & (t >= 0))]
    if invalid.size:
        moment = "before time 0" if invalid[0] < 0 else Text("at time {time:g}", time=invalid[0])
        raise UsageError(
            Text("{sample} has an event {moment}", sample=name, moment=moment),
            fix="measure times from the first event",
        )
    return t


def _coordinates(recording: np.ndarray, axis: str, extent: int, name: str) -> np.ndarray:
    """Return the columns, rows or polarities of the events; zeros for an axis without a field."""
    fields = recording.dtype.names or ()
    if axis not in fields:
        if extent != 1:
            raise UsageError(
                Text(
                    "{sample} has no field '{field}', but its sensor_size is {size}. Fields: "
                    "{fields}",
                    sample=name,
                    fields=", ".join(fields),
                    field=axis,
                    size=extent,
                ),
                fix=f"add the field, or pass a sensor_size of 1 for {axis}",
            )
        return np.zeros(len(recording), int)
    return _checked_coordinates(np.asarray(recording[axis]), axis, extent, name)


def _checked_coordinates(coordinates: np.ndarray, axis: str, extent: int, name: str) -> np.ndarray:
    """Return coordinates as integers; refuse those outside of the sensor or between its pixels."""
    outside = ~((coordinates >= 0) & (coordinates < extent) & (coordinates == np.rint(coordinates)))
    if outside.any():
        raise UsageError(
            Text(
                "{sample} has an event with {field} = {value}",
                sample=name,
                field=axis,
                value=coordinates[outside][0],
            ),
            fix=f"pass a larger sensor_size: {axis} ranges from 0 to {extent - 1}",
        )
    return coordinates.astype(int)


def refuse_other_size(path: Any, size: tuple[int, int] | None, sensor: SensorSize) -> None:
    """Refuse a recording of another camera.

    Args:
        size: columns and rows that the file specifies; None: it specifies none.
        sensor: size of the sensor of the data.
    """
    if size not in (None, sensor[:2]):
        raise UsageError(
            Text(
                "{path} is a recording of {actual} pixels, and the sensor of the data has {expected}",
                path=path,
                actual=size,
                expected=sensor[:2],
            ),
            fix="use recordings of one camera, and an input of its shape, (p, y, x)",
        )


def read_sample(path: Path, size: SensorSize | None) -> tuple[Sample, SensorSize]:
    """Read a file with one sample.

    Args:
        size: size of the sensor of the data; None: the file must specify it.

    Returns:
        The sample, with notes on what was assumed, and the size of the sensor.

    Raises:
        FileError, UsageError: the file cannot be read, or its sensor is unknown or another one.
    """
    if path.suffix == ".npz":
        arrays, sensor, notes = ragged_of_file(path, size)
        if len(arrays) != 1:
            raise UsageError(
                Text("{path} has {count} samples", path=path, count=len(arrays)),
                fix="write one sample per file, or all samples into one .npz file",
            )
        return Sample(arrays.time, arrays.index, notes=notes), sensor
    recording = read_camera_file(path)
    if size is not None:
        sensor = size
    elif recording.size is not None:
        sensor = (recording.size[0], recording.size[1], 2)
    else:
        raise _no_size(path)
    refuse_other_size(path, recording.size, sensor)
    index = channels_of(recording.events, sensor, str(path))
    time = recording.events["t"] * parse_time(_CAMERA_UNIT)
    return Sample(time, index, recording.dropped), sensor


def _no_size(path: Any) -> UsageError:
    return UsageError(
        Text("{path} does not specify the size of its sensor", path=path),
        fix="use a network whose Input has the shape (p, y, x) of the sensor, or save an .npz file "
        "with sensor_size",
    )


#: Arrays of an .npz file of events.
EVENT_ARRAYS = ("t", "x", "y", "p", "unit", "offsets", "labels", "sensor_size", "time_unit")


def are_event_arrays(arrays: Mapping[str, Any]) -> bool:
    """Return whether arrays of a file are events in the format of `jaxsnn.train.save_events`. An `x` of
    several axes is a raster, beside which `t` may be its axis of time.
    """
    has_column = "x" in arrays and np.ndim(arrays["x"]) == 1
    return "t" in arrays and ("unit" in arrays or has_column)


def ragged_of_file(
    path: str | os.PathLike[str], size: SensorSize | None
) -> tuple[RaggedArrays, SensorSize, tuple[Note, ...]]:
    """Read the events of an .npz file; arguments, returned values and errors as in
    `ragged_of_arrays`.
    """
    return ragged_of_arrays(load_arrays(path), os.fspath(path), size)


def ragged_of_arrays(
    arrays: Mapping[str, np.ndarray], name: str, size: SensorSize | None
) -> tuple[RaggedArrays, SensorSize, tuple[Note, ...]]:
    """Return the samples of arrays in the format of `jaxsnn.train.save_events`.

    Args:
        name: name of the file, for messages.
        size: size of the sensor, if the arrays do not specify it; None: unknown.

    Returns:
        The samples, the size of the sensor, and notes on what was assumed.

    Raises:
        FileError, UsageError: arrays that are missing or do not fit each other, or an unknown size.
    """
    if not are_event_arrays(arrays) or ("x" in arrays and "unit" in arrays):
        raise FileError(
            Text(
                "{path} needs the array 't', and either 'x' or 'unit'; it has {arrays}",
                path=name,
                arrays=listing(arrays) if arrays else "none",
            ),
            fix="write events with jaxsnn.train.save_events",
        )
    events = {key: arrays[key] for key in ("t", "x", "y", "p", "unit") if key in arrays}
    for key, array in events.items():
        if array.ndim != 1 or array.dtype.kind not in "biuf" or len(array) != len(arrays["t"]):
            raise FileError(
                Text(
                    "{path}: '{array}' is {dtype} of shape {shape}, and 't' has shape {t}",
                    path=name,
                    array=key,
                    dtype=array.dtype,
                    shape=array.shape,
                    t=arrays["t"].shape,
                ),
                fix="write a number for each event",
            )
    offsets = _offsets(arrays, name)
    if "sensor_size" in arrays:
        declared = checked_size(arrays["sensor_size"])
        if size is not None and size != declared and math.prod(size) != math.prod(declared):
            raise UsageError(
                Text(
                    "{path} has events of a sensor of size {actual}, (x, y, p), and the input has "
                    "size {expected}",
                    path=name,
                    actual=declared,
                    expected=size,
                ),
                fix="use a network with as many input channels as the sensor",
            )
        size = declared
    if size is None:
        raise _no_size(name)
    columns = {"x": events.get("x", events.get("unit")), "y": events.get("y"), "p": events.get("p")}
    coordinates = [
        np.zeros(len(arrays["t"]), int)
        if column is None
        else _checked_coordinates(column, axis, extent, name)
        for (axis, column), extent in zip(columns.items(), size, strict=True)
    ]
    if missing := [
        axis
        for (axis, column), extent in zip(columns.items(), size, strict=True)
        if column is None and extent > 1
    ]:
        raise UsageError(
            Text(
                "{path} has no array '{array}', and its sensor has size {size}, (x, y, p)",
                path=name,
                array=missing[0],
                size=size,
            ),
            fix="write the array, or a sensor_size of 1 for it",
        )
    unit, notes = _unit(arrays, name)
    x, y, p = coordinates
    index = (p * size[1] + y) * size[0] + x
    time = np.asarray(arrays["t"], float) * unit
    if unread := sorted(set(arrays) - set(EVENT_ARRAYS)):
        text = Text(
            "{path} contains arrays that are not used: {arrays}", path=name, arrays=listing(unread)
        )
        notes = (*notes, Note(text, kind="dropped", code="not-read"))
    return RaggedArrays(name=name, time=time, index=index, offsets=offsets), size, notes


def _offsets(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """Return the first event of each sample, and the number of events."""
    events = len(arrays["t"])
    if "offsets" not in arrays:
        return np.array([0, events])
    offsets = arrays["offsets"]
    is_valid = offsets.ndim == 1 and offsets.dtype.kind in "iu" and len(offsets) > 1
    if is_valid:
        offsets = offsets.astype(np.int64)
        is_valid = offsets[0] == 0 and offsets[-1] == events and bool((np.diff(offsets) >= 0).all())
    if not is_valid:
        raise FileError(
            Text(
                "{path}: 'offsets' is {dtype} of shape {shape}, and does not divide {events} events "
                "into samples",
                path=name,
                dtype=offsets.dtype,
                shape=offsets.shape,
                events=events,
            ),
            fix="write integers that rise from 0 to the number of events, one more than samples",
        )
    return offsets


def _unit(arrays: Mapping[str, np.ndarray], name: str) -> tuple[float, tuple[Note, ...]]:
    """Return the unit of the times in seconds, and a note if it is assumed."""
    if "time_unit" in arrays:
        declared = arrays["time_unit"]
        if declared.shape != () or declared.dtype.kind not in "US":
            raise FileError(
                Text(
                    "{path}: 'time_unit' is {dtype} of shape {shape}",
                    path=name,
                    dtype=declared.dtype,
                    shape=declared.shape,
                ),
                fix="write a text, such as 1us",
            )
        text = declared[()]
        return parse_time(
            text.decode("ascii", "replace") if isinstance(text, bytes) else str(text)
        ), ()
    note = assumed_unit(name, [arrays["t"]], "an array time_unit with a text, such as 1s")
    return parse_time(_CAMERA_UNIT), (note,)


def assumed_unit(name: str, times: Iterable[np.ndarray], advice: str | Reference) -> Note:
    """Return the note that times without a unit are used as microseconds, if they are integers.

    Args:
        name: name of the data in messages.
        times: times of the samples.
        advice: what specifies a unit of seconds.

    Raises:
        UsageError: times are floating-point numbers.
    """
    last = 0.0
    for t in times:
        if t.dtype.kind not in "iu":
            raise UsageError(
                Text("{data}: the times are floating-point numbers without a unit", data=name),
                fix=Text("pass {time_unit}, or another unit", time_unit=advice),
            )
        last = max(last, float(np.max(t, initial=0)))
    text = Text(
        "{data} does not specify the unit of its times, which are used as microseconds; the last event "
        "is at {last}",
        data=name,
        last=format_time(last * parse_time(_CAMERA_UNIT)),
    )
    return Note(text, kind="assumed", code="assumed-unit")
