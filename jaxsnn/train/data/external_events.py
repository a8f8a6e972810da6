"""Event data of other libraries as `Events`: arrays as tonic gives them, and NIR's own data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from jaxsnn.errors import UsageError
from jaxsnn.network.spikes import Events
from jaxsnn.network.valued_inputs import Currents, Input
from jaxsnn.train.data.datasets import Data
from jaxsnn.train.data.splitting import labelled
from jaxsnn.units import parse_time

if TYPE_CHECKING:
    from jaxsnn.nir.io.data_files import Observable


def events_of_arrays(
    recordings: Sequence[np.ndarray],
    sensor_size: tuple[int, ...],
    *,
    time_unit: str = "1us",
    most: int | None = None,
) -> Events:
    """Events (samples, events) of structured arrays with fields t and p and, of a camera, x and y.

    That is how tonic gives recordings of event cameras (x, y, p, t) and of cochleas (x, t, p). The
    channel of an event is its place in an array (p, y, x).

    Args:
        recordings: one structured array for each sample; times from the start of the recording.
        sensor_size: (x, y, p), as tonic has it.
        time_unit: of t.
        most: events of each sample; None: all. Events beyond are refused, not dropped.

    Raises:
        UsageError: fields that lack, events outside the sensor, between its pixels, or at times that
            are below 0 or not finite, or too many.

    >>> one = np.array([(1, 0, 1, 2000)], dtype=[("x", int), ("y", int), ("p", int), ("t", int)])
    >>> events = events_of_arrays([one], (2, 1, 2))
    >>> events.time.tolist(), events.index.tolist()
    ([[0.002]], [[3]])
    """
    if np.size(sensor_size) != 3:
        raise UsageError(f"sensor_size is {sensor_size}", fix="give (x, y, p), 1 for what lacks")
    unit, (width, height, polarities) = parse_time(time_unit), sensor_size
    recordings = [np.asarray(recording) for recording in recordings]
    slots = max([len(recording) for recording in recordings] + [1])
    if most is not None and slots > most:
        raise UsageError(
            f"a recording has {slots} events, more than the {most} that are allowed",
            fix="cut it, or allow more with most=...",
        )
    time = np.full((len(recordings), slots), np.inf)
    index = np.full(time.shape, width * height * polarities, np.int32)
    for sample, recording in enumerate(recordings):
        t = _times(recording, sample)
        order = np.argsort(t, kind="stable")
        places = [
            _places(recording, name, size, sample)
            for name, size in zip("xyp", sensor_size, strict=True)
        ]
        x, y, p = (place[order] for place in places)
        time[sample, : len(order)] = t[order] * unit
        index[sample, : len(order)] = (p * height + y) * width + x
    return Events(time=time, index=index)


def _times(recording: np.ndarray, sample: int) -> np.ndarray:
    """(events,) in the unit of the recording, from its start."""
    if "t" not in (recording.dtype.names or ()):
        raise UsageError(
            f"sample {sample} has no field 't': it is {recording.dtype} of shape {recording.shape}",
            fix="give a structured array with the fields t and p, of a camera x and y too",
        )
    t = np.asarray(recording["t"], float)
    bad = t[~(np.isfinite(t) & (t >= 0))]
    if bad.size:
        what = "before time 0" if bad[0] < 0 else f"at time {bad[0]:g}"
        raise UsageError(
            f"sample {sample} has an event {what}", fix="count times from its first event"
        )
    return t


def _places(recording: np.ndarray, name: str, size: int, sample: int) -> np.ndarray:
    fields = recording.dtype.names or ()
    if name not in fields:
        if size != 1:
            raise UsageError(
                f"sample {sample} has the fields {', '.join(fields)}: '{name}' lacks, its size is"
                f" {size}",
                fix=f"give it, or a sensor_size of 1 for {name}",
            )
        return np.zeros(len(recording), int)
    place = np.asarray(recording[name])
    outside = ~((place >= 0) & (place < size) & (place == np.rint(place)))
    if outside.any():
        raise UsageError(
            f"sample {sample} has an event with {name} = {place[outside][0]}",
            fix=f"the sensor goes from 0 to {size - 1}, give another sensor_size",
        )
    return place.astype(int)


def data_of_nir(
    observable: Observable, labels: Any, *, classes: Sequence[str] | None = None, name: str = "data"
) -> Data:
    """Labelled samples of what NIR's data format holds of an Input node
    (`jaxsnn.nir.io.data_files.read_data`).

    Args:
        observable: EventData; ValuedEventData, whose events are `GradedEvents` where they carry
            other values than 1; or TimeGriddedData, which are spikes if they are whole numbers, else
            currents that are held for each step.
        labels: (samples,) whole numbers from 0.
        classes: names; None: the numbers.

    Raises:
        UsageError: the data are broken, labels are no whole numbers, or not one for each sample.
    """
    x = _input_of_nir(observable, name)
    channels = int(cast(Any, observable).n_neurons)
    return replace(labelled(x, labels, classes=classes, name=name), channels=channels)


def _input_of_nir(observable: Observable, name: str) -> Input:
    """Events, graded events or currents (samples, ...)."""
    from jaxsnn.simulation.nir_data import to_events, to_input

    given: Any = to_input(observable, name=name)
    if not isinstance(given, np.ndarray):
        return given
    counts = ((given >= 0) & (given == np.rint(given))).all()
    step = cast(Any, observable).dt
    return to_events(observable, name=name) if counts else Currents.held(given, step)
