"""Recordings in NIR's data format, to and from arrays.

NIR keeps what a node received or emitted as `TimeGriddedData`, `EventData` or `ValuedEventData`, by
node and name of the observable, nested as the graph is. Here nested names are joined by "/", as in
`Graph`.

Events are `jaxsnn.Events`: seconds, unused slots at time inf with the population's size as index.
NIR's unused slots have the index -1. Arrays are (time, batch, *shape); NIR's are (batch, time,
neurons), so the shape must be specified separately.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import nir
import numpy as np
from nir import EventData as EventData
from nir import TimeGriddedData as TimeGriddedData
from nir import ValuedEventData as ValuedEventData

from jaxsnn.errors import UsageError
from jaxsnn.files.read_limits import LIMIT_VARIABLE, read_limits
from jaxsnn.nir.io.data_files import TOLERANCE, Observable, refuse_broken
from jaxsnn.nir.io.data_files import read_data as read_data
from jaxsnn.nir.io.data_files import write_data as write_data
from jaxsnn.options import DT
from jaxsnn.wording import Text

#: Bytes of a count in a time step of `bin_events`, with the array of values.
_COUNT_BYTES = 12


def event_data(events: Any, size: int, t_max: float, values: Any = None) -> EventData:
    """Convert events of one population to NIR's EventData; to ValuedEventData if there are values.

    Args:
        events: Object with `time` (batch, events) in seconds and `index`; unused slots have the time
            inf.
        size: Number of neurons.
        t_max: End of the recording in seconds.
        values: Value of each event, shape (batch, events).

    Raises:
        UsageError: An event is before 0 or after t_max or has an invalid neuron index, or shapes do
            not match.

    >>> from types import SimpleNamespace
    >>> event_data(SimpleNamespace(time=[[0.5, np.inf]], index=[[1, 3]]), size=3, t_max=1.0).idx.tolist()
    [[1, -1]]
    """
    time, index = np.asarray(events.time), np.asarray(events.index)
    if time.ndim != 2 or time.shape != index.shape:
        raise UsageError(
            Text(
                "events have times of shape {shape} and indices of shape {index_shape}",
                shape=time.shape,
                index_shape=index.shape,
            ),
            fix="both must have the shape (batch, events)",
        )
    if np.isnan(time).any():
        raise UsageError("events have a time that is NaN", fix="set unused slots to inf")
    used = np.isfinite(time)
    signed = np.int64 if index.dtype.kind == "u" else index.dtype
    data = EventData(
        idx=np.where(used, index.astype(signed), -1),
        time=np.where(used, time, np.inf),
        n_neurons=size,
        t_max=float(t_max),
    )
    if values is not None:
        event_values = np.asarray(values)
        if event_values.shape != time.shape:
            raise UsageError(
                Text(
                    "values have the shape {shape}, but events have the shape {event_shape}",
                    shape=event_values.shape,
                    event_shape=time.shape,
                ),
                fix="pass one value per slot",
            )
        data = ValuedEventData(
            **vars(data), value=np.where(used, event_values, np.zeros((), event_values.dtype))
        )
    refuse_broken(data, "events")
    return data


def gridded_data(array: Any, dt: float, *, spikes: bool = False) -> TimeGriddedData:
    """Convert an array (time, batch, *shape) to NIR's TimeGriddedData; `shape` is joined into one
    axis of neurons.

    Args:
        dt: Length of a time step in seconds.
        spikes: Whether to store spikes, as booleans.

    Raises:
        UsageError: There are fewer than three axes, dt is not positive, or with `spikes` there are
            entries other than 0 and 1.
    """
    values = np.asarray(array)
    if values.ndim < 3:
        raise UsageError(
            Text("an array of shape {shape} is not a recording", shape=values.shape),
            fix="its shape must be (time, batch, ...)",
        )
    if spikes and values.dtype != bool:
        if (not_binary := (values != 0) & (values != 1)).any():
            step, sample = (int(place) for place in np.argwhere(not_binary)[0][:2])
            raise UsageError(
                Text(
                    "NIR stores spikes as 0 or 1; entries with other values: {count}, the first is "
                    "{value:g} in time step {step} of sample {sample}",
                    count=int(not_binary.sum()),
                    value=values[not_binary][0],
                    step=step,
                    sample=sample,
                ),
                fix="use a smaller dt, or store counts with spikes=False",
            )
        values = values != 0
    flat = values.reshape(*values.shape[:2], math.prod(values.shape[2:]))
    data = TimeGriddedData(data=np.ascontiguousarray(flat.transpose(1, 0, 2)), dt=float(dt))
    refuse_broken(data, "array")
    return data


def to_array(data: TimeGriddedData, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Convert gridded data to an array (time, batch, *shape), dtype unchanged; default shape:
    (neurons,).

    Raises:
        UsageError: The shape has a different number of elements.
    """
    moved = data.data.transpose(1, 0, 2)
    if shape is None:
        return moved
    if math.prod(shape) != data.n_neurons:
        raise UsageError(
            Text(
                "the data have {actual} neurons, but the shape {shape} has {expected}",
                actual=data.n_neurons,
                shape=shape,
                expected=math.prod(shape),
            ),
            fix="pass a shape with one element per neuron",
        )
    return moved.reshape(*moved.shape[:2], *shape)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Binned:
    """Events counted in steps, and the losses of the conversion.

    Attributes:
        array: Counts (time, batch, neurons) as int32; for valued events the sums of their values,
            as floats.
        dt: Length of a time step in seconds.
        moved: Number of events that were not at a multiple of dt and were moved to the beginning of
            their time step.
        farthest: Largest shift in seconds.
        merged: Number of time steps of a neuron with more than one event.
    """

    array: np.ndarray
    dt: float
    moved: int
    farthest: float
    merged: int


def bin_events(data: EventData, dt: float, *, move: bool = False, name: str = "data") -> Binned:
    """Count events in steps; step k holds the events from k dt to before (k + 1) dt.

    Args:
        dt: Length of a time step in seconds; t_max must be a multiple of it.
        move: Whether to move events to the beginning of their time step; moved events are counted.
        name: Description of the data for messages.

    Raises:
        UsageError: Times are not multiples of dt (without `move`), or are after the last time step.

    >>> data = EventData(idx=np.array([[1, 1]]), time=np.array([[0.1, 0.25]]), n_neurons=2, t_max=0.3)
    >>> bin_events(data, 0.1, move=True).array[:, 0].tolist(), bin_events(data, 0.1, move=True).moved
    ([[0, 0], [0, 1], [0, 1]], 1)
    """
    refuse_broken(data, name)
    if not (math.isfinite(dt) and dt > 0):
        raise UsageError(
            Text("{option} is {dt:g} s", option=DT, dt=dt), fix="pass a positive value"
        )
    count = _steps(np.asarray(data.t_max), dt)
    if not bool(_is_on_grid(np.asarray(data.t_max), count, dt)):
        raise UsageError(
            Text(
                "{name} end at {t_max:g} s, which is not an integer number of time steps: {steps:g} "
                "of {dt:g} s",
                name=name,
                t_max=data.t_max,
                steps=data.t_max / dt,
                dt=dt,
            ),
            fix="choose a dt that divides t_max",
        )
    size, limit = (
        float(count) * data.n_samples * data.n_neurons * _COUNT_BYTES,
        read_limits().max_bytes,
    )
    if size > limit:
        raise UsageError(
            Text(
                "{name}: {steps:.4g} time steps of {dt:g} s, {samples} samples and {neurons} neurons need "
                "{size:.3g} bytes; the limit is {limit} bytes",
                name=name,
                steps=float(count),
                dt=dt,
                samples=data.n_samples,
                neurons=data.n_neurons,
                size=size,
                limit=limit,
            ),
            fix=Text("use a larger dt, or set {variable}", variable=LIMIT_VARIABLE),
        )
    used = data.idx >= 0
    sample, neuron, time = np.nonzero(used)[0], data.idx[used], data.time[used].astype(float)
    step = _steps(time, dt)
    off = ~_is_on_grid(time, step, dt)
    if off.any() and not move:
        raise UsageError(
            Text(
                "{name}: events that are not at a multiple of {dt:g} s: {count} of {size}, the first "
                "at {time:g} s",
                name=name,
                count=int(off.sum()),
                size=time.size,
                dt=dt,
                time=time[off][0],
            ),
            fix="choose a dt that divides the times, or pass move=True",
        )
    step = np.where(off, np.floor(time / dt), step).astype(np.int64)
    if (late := step >= count).any():
        raise UsageError(
            Text(
                "{name}: events after the last of {steps} time steps of {dt:g} s: {count}, the first "
                "at {time:g} s",
                name=name,
                count=int(late.sum()),
                time=time[late][0],
                steps=int(count),
                dt=dt,
            ),
            fix="use a larger t_max",
        )
    place = (step, sample, neuron)
    counts = np.zeros((int(count), data.n_samples, data.n_neurons), np.int32)
    np.add.at(counts, place, 1)
    array = counts
    if isinstance(data, ValuedEventData):
        array = np.zeros(counts.shape, np.result_type(data.value.dtype, np.float32))
        np.add.at(array, place, data.value[used])
    shift = (time - step * dt)[off]
    return Binned(
        array=array,
        dt=float(dt),
        moved=int(off.sum()),
        farthest=float(shift.max(initial=0.0)),
        merged=int((counts > 1).sum()),
    )


def in_steps(
    data: Observable, shape: tuple[int, ...], dt: float | None, *, name: str = "data"
) -> tuple[np.ndarray, str | None]:
    """Return a recording as an array (time, batch, *shape), and a remark if its own dt differs.

    Args:
        dt: Length of a time step in seconds; required for events.
        name: Description of the data for messages.

    Raises:
        UsageError: Events are not at multiples of dt, or the shape does not match.
    """
    if isinstance(data, TimeGriddedData):
        differs = dt is not None and abs(data.dt - dt) > TOLERANCE * dt
        remark = (
            Text(
                "the {name} has time steps of {actual:g} s, which are used as time steps of {dt:g} s",
                name=name,
                actual=data.dt,
                dt=dt,
            )
            if differs
            else None
        )
        return to_array(data, shape), remark
    if dt is None:
        raise UsageError(
            Text(
                "the {name} consists of events, and the length of a time step is not specified",
                name=name,
            ),
            fix=Text("pass {dt}", dt=DT.keyword),
        )
    return to_array(gridded_data(bin_events(data, dt, name=name).array, dt), shape), None


def _steps(time: np.ndarray, dt: float) -> np.ndarray:
    return np.rint(time / dt)


def _is_on_grid(time: np.ndarray, step: np.ndarray, dt: float) -> np.ndarray:
    return np.abs(time / dt - step) <= TOLERANCE * np.maximum(step, 1)


def graph_data(observations: Mapping[str, Mapping[str, Observable]]) -> nir.NIRGraphData:
    """Convert recordings by node and observable to NIR's nested data; "/" in a node's name nests.

    Raises:
        UsageError: A name is empty, or is both a node and a nested graph.

    >>> spikes = TimeGriddedData(np.zeros((1, 2, 3), bool), 0.001)
    >>> graph_data({"layer/lif": {"spikes": spikes}}).nodes["layer"].nodes["lif"].observables["spikes"].dt
    0.001
    """
    root = nir.NIRGraphData(nodes={})
    for name, observables in observations.items():
        *outer, last = name.split("/")
        level: Any = root
        for part in outer:
            level = level.nodes.setdefault(part, nir.NIRGraphData(nodes={}))
            if not isinstance(level, nir.NIRGraphData):
                raise UsageError(
                    Text(
                        "'{name}' cannot be a node, because '{node}' is a node and cannot contain other nodes",
                        node=part,
                        name=name,
                    ),
                    fix="rename one of them",
                )
        if not all(name.split("/")) or last in level.nodes:
            raise UsageError(
                Text("'{name}' is not a valid name of a node", name=name),
                fix="use names that differ and are not empty",
            )
        level.nodes[last] = nir.NIRNodeData(observables=dict(observables))
    return root


def observations(data: nir.NIRGraphData) -> dict[str, dict[str, Observable]]:
    """Return the recordings of NIR's nested data by node and observable; nested names are joined by
    "/".
    """
    recordings: dict[str, dict[str, Observable]] = {}

    def visit(level: nir.NIRGraphData, prefix: str) -> None:
        for name, entry in level.nodes.items():
            if isinstance(entry, nir.NIRGraphData):
                visit(entry, f"{prefix}{name}/")
            else:
                recordings[f"{prefix}{name}"] = dict(entry.observables)

    visit(data, "")
    return recordings
