"""Conversion of the arrays of an .npz file to inputs of a network, and of its outputs in continuous
time to such arrays.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import Note, UsageError, listing, suggestion
from jaxsnn.event.event_solution import EventSolution
from jaxsnn.files.array_files import load_arrays
from jaxsnn.files.event_files import CAMERA_ENDINGS
from jaxsnn.files.read_limits import LIMIT_VARIABLE, read_limits
from jaxsnn.network.inputs import plain_events, refuse_other_axes, shape_of_input
from jaxsnn.network.network import Network
from jaxsnn.network.spikes import Events, dense_to_events, sort_events
from jaxsnn.network.valued_inputs import Currents, GradedEvents
from jaxsnn.nir.io.spike_trains import is_spike_file, read_spike_labels
from jaxsnn.options import DT, T_END, VALUES
from jaxsnn.simulation.recordings import (
    inputs_of,
    inputs_of_nir_data,
    is_hdf5,
    unread_notes,
)
from jaxsnn.simulation.stored_events import (
    COCHLEA,
    RaggedArrays,
    SpikeTrainFile,
    StoredEvents,
    are_event_arrays,
    axes_of_sensor,
    dropped_note,
    ragged_of_arrays,
    read_sample,
    size_of_input,
)
from jaxsnn.units import format_time
from jaxsnn.wording import Text

#: Meanings of values per time step. "auto": integers are spikes, other values a current; "spikes":
#: numbers of spikes; "current": a current that is held for each step; "graded": a spike of that
#: size at each step.
VALUE_KINDS = ("auto", "spikes", "current", "graded")
#: Relative tolerance of ends of steps, which are rounded.
_ROUNDING = 1e-9
#: Time constants after the last input event at which a sample ends if nothing specifies its duration.
_DECAY = 10.0
#: Bytes of a spike: its time and its neuron.
_BYTES_OF_A_SPIKE = 12


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Inputs of a network.

    Attributes:
        events: Input node -> Events or GradedEvents (batch, events), or Currents; seconds.
        t_end: seconds, the end of the steps of dense inputs; None for event arrays.
        sample_times: (steps,) seconds, the steps of dense inputs; None for event arrays.
        notes: the interpretation of values, a sentence each.
    """

    events: dict[str, Any]
    t_end: float | None
    sample_times: np.ndarray | None
    notes: tuple[str, ...] = ()

    def sampled(self, network: Network, t_end: float) -> np.ndarray | None:
        """Return the sample times until t_end, also after the end of the input, seconds; None if
        there are no sample times or no readouts.
        """
        readouts = [
            population for population in network.populations.values() if not population.fires
        ]
        if self.sample_times is None or not readouts or self.t_end is None:
            return None
        times, dt = self.sample_times, self.t_end / len(self.sample_times)
        steps = t_end / dt * (1 - _ROUNDING)
        if steps * times.itemsize > read_limits().max_bytes:
            raise UsageError(
                Text(
                    "{option} is {value:g} s: membrane potentials at {steps:.3g} time steps of "
                    "{dt:g} s exceed the memory limit",
                    option=T_END,
                    value=t_end,
                    steps=steps,
                    dt=dt,
                ),
                fix=f"use an earlier end, or set {LIMIT_VARIABLE}",
            )
        # t_end may be after the end of the input: continue the steps
        later = np.arange(len(times), math.ceil(steps)) * dt
        times = np.append(times, later)
        return times[times <= t_end]


def network_inputs(
    arrays: dict[str, np.ndarray], network: Network, dt: float | None, values: str = "auto"
) -> Inputs:
    """Return the inputs of a network from arrays.

    Arrays as in `jaxsnn.simulation.recordings`; step k of a raster "NODE.x", (time, batch, ...), is
    at k dt.

    Args:
        dt: seconds, length of a step; needed for rasters.
        values: kind of the rasters' values, one of `VALUE_KINDS`.

    Raises:
        UsageError: arrays that are missing or do not fit.
    """
    inputs = inputs_by_node(inputs_of(arrays, network), network, dt, values)
    return replace(inputs, notes=(*inputs.notes, *unread_notes(arrays)))


def load_inputs(
    path: str | os.PathLike[str], network: Network, dt: float | None, values: str = "auto"
) -> Inputs:
    """Load the inputs of a network from an .npz file (`network_inputs`), a recording of events
    (`jaxsnn.simulation.stored_events`), or a file of NIR data, which has a recording of each Input
    node: values in steps, events, or events with values, which are `GradedEvents`.

    Args:
        dt, values: see `network_inputs`; time-stepped NIR data specify their dt.

    Raises:
        FileError, UsageError: it cannot be read, or does not fit.
    """
    content = _content(path, network, values)
    if isinstance(content, Inputs):
        return content
    if content is not None:
        arrays, notes = content
        inputs = network_inputs(arrays, network, dt, values)
        return replace(inputs, notes=(*notes, *inputs.notes))
    recorded_inputs, step, end, notes = inputs_of_nir_data(path, network, dt)
    inputs = inputs_by_node(recorded_inputs, network, step, values)
    notes = (*notes, *inputs.notes)
    return replace(inputs, t_end=end if inputs.t_end is None else inputs.t_end, notes=notes)


def _content(
    path: str | os.PathLike[str], network: Network, values: str = "auto"
) -> Inputs | tuple[dict[str, np.ndarray], tuple[str, ...]] | None:
    """Return the events of a recording, or the arrays of another .npz file with notes; None for NIR
    data.
    """
    name = next(iter(network.inputs))
    shape = shape_of_input(network, name)
    size = size_of_input(shape)
    notes: tuple[str, ...] = ()
    if Path(path).suffix in CAMERA_ENDINGS:
        sample, sensor = read_sample(Path(path), size)
        notes = sample.notes
        offsets = np.array([0, len(sample.time)])
        source: Any = RaggedArrays(
            name=os.fspath(path), time=sample.time, index=sample.index, offsets=offsets
        )
        if sample.dropped:
            notes = (*notes, dropped_note(source.name, sample.dropped))
    elif is_hdf5(path):
        if not is_spike_file(path):
            return None
        samples, sensor = read_spike_labels(path).samples, COCHLEA
        source = SpikeTrainFile(name=os.fspath(path), samples=samples)
    else:
        arrays = load_arrays(path)
        if not are_event_arrays(arrays):
            return _test_samples(arrays, path, shape)
        source, sensor, notes = ragged_of_arrays(arrays, os.fspath(path), size)
    if len(network.inputs) > 1:
        raise UsageError(
            Text(
                "{path} has events of one input, and the network has {count}",
                path=path,
                count=len(network.inputs),
            ),
            fix="pass arrays NODE.time and NODE.index, (samples, events), for each input",
        )
    if math.prod(sensor) != network.inputs[name]:
        raise UsageError(
            Text(
                "{path} has events of {actual} channels, and input '{input}' has {expected}",
                path=path,
                actual=math.prod(sensor),
                input=name,
                expected=network.inputs[name],
            ),
            fix="use recordings of that input, or an input with as many channels",
            node=name,
        )
    refuse_other_axes(name, axes_of_sensor(sensor), shape)
    stored = StoredEvents(source, math.prod(sensor))
    events = {name: stored.load(np.arange(len(stored)))}
    _refuse_values(events, values)
    return Inputs(events=events, t_end=None, sample_times=None, notes=(*notes, *stored.notes))


def _test_samples(
    arrays: dict[str, np.ndarray], path: str | os.PathLike[str], shape: tuple[int, ...]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Return the arrays of a run; of a file of training data, its test samples with the axes of a run.

    Args:
        shape: shape of the input.

    Raises:
        UsageError: test samples without time steps, or labels that contradict the axes of x.
    """
    x, labels = arrays.get("x"), arrays.get("label")
    if (
        x is not None
        and labels is not None
        and x.ndim >= 3
        and labels.shape == x.shape[:1]
        and x.shape[0] != x.shape[1]
    ):
        raise UsageError(
            Text(
                "{path}: x has shape {shape}, (time, samples, ...), and there are {count} labels",
                path=path,
                shape=x.shape,
                count=len(labels),
            ),
            fix="exchange the first two axes, or save x as x_test: samples come first there",
        )
    if "y_test" not in arrays or not {"x", "time"}.isdisjoint(arrays):
        return arrays, ()
    note = Note(
        Text("{path} contains training data, of which the test samples are used", path=path),
        kind="assumed",
        code="test-samples",
    )
    names = {"time_test": "time", "index_test": "index", "value_test": "value", "y_test": "label"}
    chosen = {name: arrays[key] for key, name in names.items() if key in arrays}
    if "x_test" in arrays:
        x = arrays["x_test"]
        if x.ndim < 3 or x.shape[1:] == shape:
            raise UsageError(
                Text(
                    "{path}: x_test has shape {shape}, and a run needs time steps or events",
                    path=path,
                    shape=x.shape,
                ),
                fix="save x_test as (samples, time, ...), or encode the values as events",
            )
        chosen["x"] = np.moveaxis(x, 0, 1)  # (samples, time, ...) to (time, samples, ...)
    return chosen, (note,)


def sent_to_chip(
    path: str | os.PathLike[str], network: Network, dt: float | None
) -> tuple[Inputs, np.ndarray | None]:
    """Load inputs that are spikes, as `load_inputs` does, and the array `label` (samples,) of an .npz
    file; None if the file has no labels.

    Raises:
        FileError, UsageError: the file cannot be read, or does not match the network.
    """
    content, labels = _content(path, network), None
    if isinstance(content, tuple):
        arrays, notes = content
        labels = arrays.pop("label", None)
        sent_inputs = network_inputs(arrays, network, dt)
        sent_inputs = replace(sent_inputs, notes=(*notes, *sent_inputs.notes))
    else:
        sent_inputs = content or load_inputs(path, network, dt)
    plain_events(sent_inputs.events, "the chip")
    return sent_inputs, labels


def assumed_end(
    network: Network, events: Mapping[str, Any], dt: float | None = None
) -> tuple[float, Note]:
    """Return the end of a sample whose duration is unknown, in seconds, and a note that states it:
    membranes have decayed at 10 of the longest time constants after the last input event.

    Args:
        events: Input node -> Events (batch, events), seconds.
        dt: seconds, length of a time step, of which the end is a multiple; None: any end.

    Raises:
        UsageError: the network has no time constant.
    """
    last = max(
        float(np.max(times, initial=0.0, where=np.isfinite(times)))
        for times in (np.asarray(train.time) for train in events.values())
    )
    time_constants = [
        float(np.max(np.asarray(value)))
        for parameters in network.parameters.values()
        for name, value in parameters.items()
        if name.startswith("tau")
    ]
    if not time_constants:
        raise UsageError(
            "the duration of a sample is unknown, and the network has no time constant from which it "
            "could follow",
            fix=Text("pass {t_end}", t_end=T_END.keyword),
        )
    longest = max(time_constants)
    end = last + _DECAY * longest
    if dt is not None:
        end = math.ceil(end / dt * (1 - _ROUNDING)) * dt
    text = Text(
        "the duration of a sample is unknown; {option} is used, 10 of the longest time constants "
        "after the last input event",
        option=T_END.set_to(format_time(end)),
    )
    return end, Note(text, kind="assumed", code="assumed-end")


def stepped_inputs(
    path: str | os.PathLike[str], network: Network, dt: float | None, values: str = "auto"
) -> Inputs:
    """Load inputs like `load_inputs`, for the time-stepped engine: arrays are not converted.

    Spikes and currents differ only in NIR's own equations; in the time steps of frameworks there is
    a single kind of input.
    """
    literal = any(population.membrane == "exact" for population in network.populations.values())
    if literal or values not in ("auto", "current", "graded"):
        return load_inputs(path, network, dt, values)
    content = _content(path, network, values)
    if isinstance(content, Inputs):
        return content
    if content is not None:
        arrays, notes = content
        input_arrays = inputs_of(arrays, network)
        _refuse_values(input_arrays, values)
        notes = (*notes, *unread_notes(arrays))
        return Inputs(events=input_arrays, t_end=None, sample_times=None, notes=notes)
    recorded_inputs, _, end, notes = inputs_of_nir_data(path, network, dt)
    _refuse_values(recorded_inputs, values)
    by_steps = any(not hasattr(recorded, "time") for recorded in recorded_inputs.values())
    end = None if by_steps else end
    return Inputs(events=recorded_inputs, t_end=end, sample_times=None, notes=notes)


def refuse_large_rasters(
    inputs: Inputs, network: Network, t_end: float | None, dt: float | None
) -> None:
    """Refuse events whose sorting into time steps needs more memory than the limit.

    Args:
        inputs: inputs of the time-stepped engine.
        network: the network.
        t_end: seconds, end of the sample; None: that of the inputs, which are arrays.
        dt: seconds, length of a time step.

    Raises:
        UsageError: the arrays of an input would exceed the limit.
    """
    if t_end is None or dt is None:
        return
    for name, events in inputs.events.items():
        if not hasattr(events, "time"):
            continue
        samples, channels = len(np.atleast_2d(events.time)), network.inputs[name]
        size = t_end / dt * samples * channels * np.dtype(network.dtype).itemsize
        if size > read_limits().max_bytes:
            raise UsageError(
                Text(
                    "input '{node}': {steps:.3g} time steps of {dt:g} s until {t_end:g} s, {samples} "
                    "samples and {channels} channels exceed the limit of {limit} bytes",
                    node=name,
                    steps=t_end / dt,
                    dt=dt,
                    t_end=t_end,
                    samples=samples,
                    channels=channels,
                    limit=read_limits().max_bytes,
                ),
                fix=Text(
                    "pass a smaller {t_end} or a larger {dt}, or set {variable}",
                    t_end=T_END,
                    dt=DT,
                    variable=LIMIT_VARIABLE,
                ),
                node=name,
            )


def inputs_by_node(
    input_arrays: Mapping[str, Any], network: Network, dt: float | None, values: str = "auto"
) -> Inputs:
    """Return the inputs of a network: rasters (time, batch, ...) interpreted by `values`, events
    unchanged; see `network_inputs`.
    """
    if values not in VALUE_KINDS:
        raise UsageError(
            Text("{option} is {values!r}", option=VALUES, values=values),
            fix=suggestion(values, VALUE_KINDS),
        )
    _refuse_values(input_arrays, values)
    events, steps, notes = {}, {}, []
    for name, input_array in input_arrays.items():
        if hasattr(input_array, "time"):
            events[name] = input_array
            continue
        if dt is None:
            raise UsageError(
                Text("input '{node}' is time-stepped, and the file does not specify dt", node=name),
                fix=Text("pass {dt}", dt=DT.keyword),
                node=name,
            )
        refuse_other_axes(name, np.shape(input_array)[2:], shape_of_input(network, name))
        events[name] = _from_raster(name, input_array, network.inputs[name], dt, values)
        steps[name] = len(input_array)
        if values == "auto" and isinstance(events[name], Currents):
            text = Text(
                "input '{node}' contains values that are not spike counts. They are used as a "
                "current that is constant during each time step; pass {values} to use them as "
                "graded spikes",
                node=name,
                values=VALUES.set_to("graded"),
            )
            notes.append(Note(text, kind="assumed", code="taken-for-current"))
    if not steps:
        return Inputs(events=events, t_end=None, sample_times=None)
    if others := [name for name in events if name not in steps]:
        raise UsageError(
            Text(
                "inputs {stepped} are time-stepped, but inputs {events} are events",
                stepped=listing(steps),
                events=listing(others),
            ),
            fix="pass all inputs as time-stepped arrays, or all as events; "
            "jaxsnn.Events.of_steps(x, dt) converts arrays to events",
        )
    if len(set(steps.values())) > 1:
        raise UsageError(
            Text("the inputs have different numbers of time steps, {steps}", steps=steps),
            fix="pass inputs with the same number of time steps",
        )
    count = next(iter(steps.values()))
    times = np.arange(count) * (dt or 0.0)
    return Inputs(events=events, t_end=count * (dt or 0.0), sample_times=times, notes=tuple(notes))


def _refuse_values(input_arrays: Mapping[str, Any], values: str) -> None:
    """Refuse an option `values` that contradicts inputs that are all events."""
    for input_array in input_arrays.values():
        if not hasattr(input_array, "time") or values == (
            "graded" if hasattr(input_array, "value") else "spikes"
        ):
            return
    if values in ("spikes", "current", "graded") and input_arrays:
        name, input_array = next(iter(input_arrays.items()))
        kind = "graded events" if hasattr(input_array, "value") else "events"
        raise UsageError(
            Text(
                "{option} has no effect: input '{node}' consists of {kind} and is not time-stepped",
                option=VALUES.set_to(values),
                node=name,
                kind=kind,
            ),
            fix="remove the option",
            node=name,
        )


def _from_raster(
    name: str, raster: np.ndarray, size: int, dt: float, values: str
) -> Events | Currents | GradedEvents:
    if raster.ndim < 3:
        raise UsageError(
            Text("input '{node}': x has shape {shape}", node=name, shape=raster.shape),
            fix="save an array of shape (time, batch, channels)",
            node=name,
        )
    channels = math.prod(raster.shape[2:])
    if channels != size:
        raise UsageError(
            Text(
                "input '{node}': x has {actual} channels, but the network has {expected}",
                node=name,
                actual=channels,
                expected=size,
            ),
            fix=f"save an array with {size} channels",
            node=name,
        )
    counted = np.issubdtype(raster.dtype, np.bool_) or bool(
        ((raster >= 0) & (raster == np.rint(raster))).all()
    )
    if values == "current" or (values == "auto" and not counted):
        return Currents.held(raster, dt)
    if values == "graded":
        return _sized(raster, dt)
    # a time and a neuron for each spike must fit into memory
    of_a_sample = raster.sum(axis=(0, *range(2, raster.ndim)), dtype=float)
    count, limit = float(of_a_sample.max(initial=0.0)), read_limits().max_bytes
    if count * raster.shape[1] * _BYTES_OF_A_SPIKE > limit:
        raise UsageError(
            Text(
                "input '{node}': its values, used as spike counts, amount to {count:g} spikes in "
                "one sample; the events of all samples exceed the limit of {limit} bytes",
                node=name,
                count=count,
                limit=limit,
            ),
            fix=Text(
                "pass {current} or {graded} if the values are not spike counts, or set {variable}",
                current=VALUES.set_to("current"),
                graded=VALUES.set_to("graded"),
                variable=LIMIT_VARIABLE,
            ),
            node=name,
        )
    try:
        return dense_to_events(raster, dt)
    except ValueError as error:
        raise UsageError(
            Text("input '{node}': {error}", node=name, error=error),
            fix=Text(
                "use spike counts, or pass {current} or {graded}",
                current=VALUES.set_to("current"),
                graded=VALUES.set_to("graded"),
            ),
            node=name,
        ) from error


def _sized(raster: np.ndarray, dt: float) -> GradedEvents:
    """Convert each nonzero value of a raster (time, batch, *shape) to an event of that size."""
    flat = np.asarray(raster, float).reshape(*raster.shape[:2], -1)
    plain = dense_to_events(flat != 0, dt)
    used = np.isfinite(np.asarray(plain.time))
    value = np.zeros(used.shape)
    for sample in range(len(used)):
        # In the order of `dense_to_events`: step by step, and channel by channel.
        sample_values = flat[:, sample]
        value[sample, used[sample]] = sample_values[sample_values != 0]
    return GradedEvents(time=plain.time, index=plain.index, value=value)


def output_arrays(network: Network, solution: EventSolution) -> dict[str, np.ndarray]:
    """Return the outputs of a network, by Output node.

    An output of spikes has the arrays "NODE.time", sorted times in seconds, and "NODE.index", both
    (batch, events); unused slots contain inf and the population's size. A readout has "NODE.y"
    (time, batch, neurons) and "NODE.sample_time" (time,) in seconds.

    Raises:
        UsageError: an Output that is not fed by spiking populations alone, or by one readout.
    """
    arrays = {}
    for name, sources in network.outputs.items():
        if sources and all(source in solution.spikes for source in sources):
            trains = [solution.events(source) for source in sources]
            merged = sort_events(
                jnp.concatenate([train.time for train in trains], axis=1),
                jnp.concatenate([train.index for train in trains], axis=1),
            )
            time, index = map(np.asarray, merged)
            # slots at the end that no sample uses are left out
            used = max(int(np.isfinite(time).sum(axis=1).max(initial=0)), 1)
            arrays[f"{name}.time"], arrays[f"{name}.index"] = time[:, :used], index[:, :used]
        elif len(sources) == 1 and sources[0] in solution.voltages:
            arrays[f"{name}.y"] = np.moveaxis(np.asarray(solution.voltages[sources[0]]), 1, 0)
            arrays[f"{name}.sample_time"] = np.asarray(solution.sample_times)
        else:
            raise UsageError(
                Text(
                    "output '{node}' is fed by {sources}, which cannot be saved as one array",
                    node=name,
                    sources=listing(sources),
                ),
                fix="connect only spiking populations, or one readout, to it",
                node=name,
            )
    return arrays
