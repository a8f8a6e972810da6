"""Recorded inputs and outputs of a network, from .npz files or files of NIR data, as `Events`,
`GradedEvents` or arrays.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxsnn.errors import FileError, Note, UsageError, listing, suggestion
from jaxsnn.files.array_files import load_arrays
from jaxsnn.files.opening import open_input
from jaxsnn.network.network import Network
from jaxsnn.network.spikes import Events, dense_to_events
from jaxsnn.network.valued_inputs import GradedEvents
from jaxsnn.nir.io.data_files import Observable, refuse_broken
from jaxsnn.nir.io.files import HDF5_SIGNATURE
from jaxsnn.nir.io.recorded_data import EventData, TimeGriddedData, ValuedEventData, to_array
from jaxsnn.wording import Text

#: Names of the observable that is used if a file of NIR data has several for a node.
SPIKES = ("spikes", "spike")
MEMBRANES = ("voltages", "voltage", "v")
#: Known last parts of the names of arrays.
_READ = ("x", "time", "index", "value", "y", "label")
#: Relative difference up to which lengths of steps count as equal: the rounding of float32.
SAME_STEP = 2**-18


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Recorded inputs and outputs, by the names of Input and Output nodes.

    Attributes:
        x: Input node -> array (time, batch, *shape), or `Events` or `GradedEvents` (batch, events).
        y: Output node -> array (time, batch, *shape); those that were not recorded are left out.
        notes: data that were changed or not used in reading, a sentence each.
    """

    x: dict[str, Any]
    y: dict[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def load_recording(path: str | os.PathLike[str], network: Network, dt: float | None) -> Recording:
    """Load the inputs and outputs of a network from a file.

    An .npz file has for each Input node "NODE.x", (time, batch, *shape), or "NODE.time" in seconds
    and "NODE.index", (batch, events), with "NODE.value" if the events have sizes; and for each Output
    node "NODE.y". If there is one Input or one Output, "NODE." may be omitted. A file of NIR data has
    recordings of the Input nodes, and of the Output nodes or of the node that feeds each of them.

    Args:
        dt: seconds, length of a step; needed for NIR's events.

    Raises:
        FileError: a file that cannot be read.
        UsageError: an array is missing, specified twice, not of a node of the network, or does not
            fit.
    """
    if is_hdf5(path):
        return _from_nir_data(path, network, dt)
    arrays = load_arrays(path)
    inputs = inputs_of(arrays, network)
    return Recording(x=inputs, y=_outputs_of(arrays, network), notes=unread_notes(arrays))


def saved_events(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the spikes of a node that `jaxsnn run` wrote: times in seconds, sorted or not, and neurons,
    (samples, events) each; unused slots have the time inf.

    Args:
        path: path of the file, for messages.
        arrays: arrays of the file.
        name: name of the node.

    Raises:
        FileError: an array is missing, has another type or shape, or has a time or neuron that no spike
            has.
    """

    def refused(array: str, reason: Text) -> FileError:
        return FileError(
            Text("{path}: '{array}' {reason}", path=path, array=array, reason=reason),
            fix="pass a file that jaxsnn run wrote",
            node=name,
        )

    time_name, index_name = f"{name}.time", f"{name}.index"
    for key, kinds in ((time_name, "iuf"), (index_name, "iu")):
        if key not in arrays:
            raise refused(key, Text("is missing"))
        if arrays[key].dtype.kind not in kinds:
            raise refused(key, Text("has dtype {dtype}", dtype=arrays[key].dtype))
    time, index = arrays[time_name], arrays[index_name]
    if time.shape != index.shape or time.ndim not in (1, 2):
        raise refused(
            time_name,
            Text(
                "has shape {shape}, and '{index}' has shape {index_shape}; both must have the same "
                "shape, (events,) or (samples, events)",
                shape=time.shape,
                index=index_name,
                index_shape=index.shape,
            ),
        )
    time, index = np.atleast_2d(time), np.atleast_2d(index)
    for key, array, wrong in (
        (time_name, time, np.isnan(time) | (time < 0)),
        (index_name, index, (index < 0) | (index > np.iinfo(np.int32).max)),
    ):
        if wrong.any():
            place = tuple(int(axis) for axis in np.argwhere(wrong)[0])
            raise refused(
                key,
                Text(
                    "has {value:g} at {place}, and must be {requirement}",
                    value=array[place],
                    place=place,
                    requirement="at least 0 s, or inf"
                    if key == time_name
                    else "from 0 to 2147483647",
                ),
            )
    return time, index


def is_hdf5(path: str | os.PathLike[str]) -> bool:
    """Return whether a file starts with the signature of HDF5."""
    if not Path(path).is_file():
        return False
    with open_input(path, "a recording") as file:
        return file.read(len(HDF5_SIGNATURE)) == HDF5_SIGNATURE


def inputs_of(arrays: Mapping[str, np.ndarray], network: Network) -> dict[str, Any]:
    """Return arrays or events for each Input node; see `load_recording`.

    Raises:
        UsageError: an input is missing or specified twice, or "NODE.x" is not an array of an Input
            node.
    """
    if not isinstance(arrays, Mapping):
        raise UsageError(
            Text(
                "inputs have type {actual}, but must be a mapping from names to arrays",
                actual=type(arrays).__name__,
            ),
            fix='pass {"x": array}, or {"NODE.x": array} for several inputs',
        )
    for ending in ("x", "time", "index", "value"):
        _refuse_strangers(arrays, ending, network.inputs, "input")
    _refuse_misspelt(arrays, network.inputs)
    inputs_by_node: dict[str, Any] = {}
    alone = len(network.inputs) == 1
    for name in network.inputs:
        prefixes = (f"{name}.", "") if alone else (f"{name}.",)
        ways = [
            next(key for key in array_keys if key in arrays)
            for prefix in prefixes
            for array_keys in ((f"{prefix}x",), (f"{prefix}time", f"{prefix}index"))
            if not arrays.keys().isdisjoint(array_keys)
        ]
        if len(ways) > 1:
            raise UsageError(
                Text(
                    "input '{node}' is specified twice, as '{first}' and as '{second}'",
                    node=name,
                    first=ways[0],
                    second=ways[1],
                ),
                fix="remove one of them",
                node=name,
            )
        prefix = "" if alone and not (ways and ways[0].startswith(f"{name}.")) else f"{name}."
        if f"{prefix}x" in arrays:
            inputs_by_node[name] = _by_steps(name, arrays[f"{prefix}x"])
        elif f"{prefix}time" in arrays and f"{prefix}index" in arrays:
            time, index = arrays[f"{prefix}time"], arrays[f"{prefix}index"]
            for key, array in (("time", time), ("index", index)):
                _refuse_text(name, key, array)
            inputs_by_node[name] = Events(time=time, index=index)
            if f"{prefix}value" in arrays:
                value = arrays[f"{prefix}value"]
                _refuse_text(name, "value", value)
                inputs_by_node[name] = GradedEvents(time=time, index=index, value=value)
        else:
            raise UsageError(
                Text(
                    "input '{node}' has no data: neither array '{prefix}x' nor arrays "
                    "'{prefix}time' and '{prefix}index' exist",
                    prefix=prefix,
                    node=name,
                ),
                fix=f"add them; the file contains {listing(arrays)}",
                node=name,
            )
    return inputs_by_node


def unread_notes(arrays: Iterable[str]) -> tuple[str, ...]:
    """Return a note on arrays with unknown names, which may be misspelt."""
    others = [name for name in arrays if name.rpartition(".")[2] not in _READ]
    text = Text("arrays with unknown names are ignored: {arrays}", arrays=listing(others))
    return (Note(text, kind="dropped", code="not-read"),) if others else ()


def _refuse_text(name: str, key: str, array: np.ndarray) -> None:
    if array.dtype.kind not in "biuf":
        raise UsageError(
            Text(
                "input '{node}': {array} has dtype {dtype}", node=name, array=key, dtype=array.dtype
            ),
            fix="save numbers",
            node=name,
        )


def _by_steps(name: str, x: np.ndarray) -> np.ndarray:
    """Return an input in steps, after checking that it holds numbers."""
    _refuse_text(name, "x", x)
    if x.ndim >= 2 and 0 in x.shape:
        raise UsageError(
            Text(
                "input '{node}': x is empty, its shape is {shape}",
                node=name,
                shape=x.shape,
            ),
            fix="save at least one time step and one sample",
            node=name,
        )
    if not (finite := np.isfinite(x)).all():
        place = tuple(int(index) for index in np.argwhere(~finite)[0])
        raise UsageError(
            Text(
                "input '{node}': x has {value} at {index}",
                node=name,
                value=float(x[place]),
                index=place,
            ),
            fix="save finite values",
            node=name,
        )
    return x


def _outputs_of(arrays: Mapping[str, np.ndarray], network: Network) -> dict[str, np.ndarray]:
    _refuse_strangers(arrays, "y", network.outputs, "output")
    output_arrays = {name: arrays[f"{name}.y"] for name in network.outputs if f"{name}.y" in arrays}
    if "y" in arrays and output_arrays:
        name = next(iter(output_arrays))
        raise UsageError(
            Text("output '{node}' is specified twice, as '{node}.y' and as 'y'", node=name),
            fix="remove one of them",
            node=name,
        )
    output_arrays = {next(iter(network.outputs)): arrays["y"]} if "y" in arrays else output_arrays
    for name, y in output_arrays.items():
        if y.dtype.kind not in "biuf":
            message = Text("output '{node}': y has dtype {dtype}", node=name, dtype=y.dtype)
            raise UsageError(message, fix="save real numbers", node=name)
    return output_arrays


def _refuse_misspelt(arrays: Mapping[str, np.ndarray], inputs: Iterable[str]) -> None:
    """Refuse arrays of an input with an unknown ending, which would be ignored."""
    input_names, array_kinds = list(inputs), ("x", "time", "index", "value", "y")
    for key in arrays:
        name, dot, last = key.rpartition(".")
        if dot and name in input_names and last not in array_kinds:
            raise UsageError(
                Text("array '{array}' of input '{node}' has an unknown name", array=key, node=name),
                fix=suggestion(last, array_kinds[:-1]),
                node=name,
            )


def _refuse_strangers(
    arrays: Mapping[str, np.ndarray], ending: str, nodes: Iterable[str], kind: str
) -> None:
    """Refuse arrays with a certain ending that belong to no node: the node's name is misspelt, or
    missing although there are several nodes.
    """
    node_names = list(nodes)
    for key in arrays:
        name, dot, last = key.rpartition(".")
        if last == ending and dot and name not in node_names:
            raise UsageError(
                Text(
                    "array '{array}': the network has no {kind} '{node}'",
                    array=key,
                    kind=kind,
                    node=name,
                ),
                fix=suggestion(name, node_names),
                node=name,
            )
        if key == ending and len(node_names) > 1:
            raise UsageError(
                Text(
                    "array '{array}' is ambiguous: the network has {count} {kind}s",
                    array=key,
                    count=len(node_names),
                    kind=kind,
                ),
                fix=f"name it 'NODE.{ending}'",
            )


def inputs_of_nir_data(
    path: str | os.PathLike[str], network: Network, dt: float | None
) -> tuple[dict[str, Any], float | None, float | None, tuple[str, ...]]:
    """Return the inputs in a file of NIR data: by Input node an array (time, batch, *shape),
    `Events` or `GradedEvents`; the length of a step, the end of the events (seconds), and notes.

    Args:
        dt: seconds, length of a step that the network has; None: that of the data.

    Raises:
        UsageError: an input that is missing, or data of another dt.
    """
    from jaxsnn.nir.io.recorded_data import observations, read_data
    from jaxsnn.simulation.recordings import to_input

    observables = observations(read_data(path))
    shapes = {wire.name: wire.shape for wire in network.wires}
    inputs: dict[str, Any] = {}
    step, ends = dt, dict[str, float]()
    for name in network.inputs:
        _refuse_missing(path, name, observables)
        data, description = _chosen(name, observables[name], SPIKES), f"recording of '{name}'"
        inputs[name] = to_input(data, name=description)
        if math.prod(shapes[name]) != data.n_neurons:
            raise UsageError(
                Text(
                    "the {recording} has {actual} neurons, but the input has {expected}",
                    recording=description,
                    actual=data.n_neurons,
                    expected=math.prod(shapes[name]),
                ),
                fix="pass a recording of this input",
                node=name,
            )
        if not isinstance(inputs[name], np.ndarray):
            ends[name] = float(data.t_max)
            continue
        flat = _by_steps(name, inputs[name])
        inputs[name] = flat.reshape(*flat.shape[:2], *shapes[name])
        if step is not None and abs(data.dt - step) > SAME_STEP * step:
            raise UsageError(
                Text(
                    "the {recording} has time steps of {actual:g} s, but the network has "
                    "{expected:g} s",
                    recording=description,
                    actual=data.dt,
                    expected=step,
                ),
                fix="pass data with the time step of the network",
                node=name,
            )
        step = data.dt if step is None else step
    unused = [name for name in observables if name not in inputs and name not in network.outputs]
    notes: list[str] = [_not_used(unused)] if unused else []
    if len(set(ends.values())) > 1:
        text = listing(f"'{name}' at {end:g} s" for name, end in ends.items())
        notes.append(
            Text(
                "the recordings end at different times, {ends}; inputs are silent after their end",
                ends=text,
            )
        )
    return inputs, step, max(ends.values(), default=None), tuple(notes)


def _not_used(nodes: Iterable[str]) -> Note:
    return Note(
        Text("recordings of {nodes} are ignored", nodes=listing(nodes)),
        kind="dropped",
        code="not-read",
    )


def _refuse_missing(path: str | os.PathLike[str], name: str, recordings: Mapping[str, Any]) -> None:
    if name not in recordings:
        raise UsageError(
            Text("{path} has no recording of input '{node}'", path=path, node=name),
            fix=f"add it; the file contains recordings of {listing(recordings)}",
            node=name,
        )


def _from_nir_data(path: str | os.PathLike[str], network: Network, dt: float | None) -> Recording:
    from jaxsnn.nir.io.recorded_data import in_steps, observations, read_data

    recordings = observations(read_data(path))
    shapes = {wire.name: wire.shape for wire in network.wires}
    notes: list[str] = []
    for name in network.inputs:
        _refuse_missing(path, name, recordings)

    def steps(node: str, observables: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
        array, note = in_steps(
            _chosen(node, recordings[node], observables), shape, dt, name=f"recording of '{node}'"
        )
        notes.extend([note] if note else [])
        return array

    x = {name: steps(name, SPIKES, shapes[name]) for name in network.inputs}
    y = {}
    for name, sources in network.outputs.items():
        node = (
            name
            if name in recordings
            else sources[0]
            if len(sources) == 1 and sources[0] in recordings
            else None
        )
        if node is not None:
            populations = [
                network.populations[source] for source in sources if source in network.populations
            ]
            observables = (
                MEMBRANES if any(not population.fires for population in populations) else SPIKES
            )
            y[name] = steps(node, observables, shapes[name])
    unused = [
        name
        for name in recordings
        if name not in (*x, *y, *(s for out in network.outputs.values() for s in out))
    ]
    if unused:
        notes.append(_not_used(unused))
    return Recording(x=x, y=y, notes=tuple(notes))


def _chosen(node: str, observables: Mapping[str, Any], preferred: tuple[str, ...]) -> Any:
    """Return the observable of a node: the only one, or the first preferred one."""
    if len(observables) == 1:
        return next(iter(observables.values()))
    for name in preferred:
        if name in observables:
            return observables[name]
    raise UsageError(
        Text(
            "node '{node}' has several recordings, {recordings}",
            node=node,
            recordings=listing(observables),
        ),
        fix=f"rename one of them to '{preferred[0]}'",
        node=node,
    )


def to_events(data: Observable, *, name: str = "data") -> Events:
    """Convert a recording of spikes to `jaxsnn.Events` (batch, events), sorted by time.

    In gridded data, step k is at time k dt; a count above 1 becomes as many events at one time.

    Args:
        name: name of the data in messages.

    Raises:
        UsageError: the data are broken, are not spikes, or carry values other than 1.
    """
    refuse_broken(data, name)
    if isinstance(data, TimeGriddedData):
        try:
            return dense_to_events(to_array(data), data.dt)
        except ValueError as error:
            raise UsageError(
                Text("{recording} does not contain spikes: {error}", recording=name, error=error),
                fix="convert it with to_array and Currents.held",
            ) from error
    used = data.idx >= 0
    if isinstance(data, ValuedEventData) and (is_graded := used & (data.value != 1)).any():
        raise UsageError(
            Text(
                "{recording}: events with values other than 1, which spikes do not have: {count} "
                "of {events}, the first is {value:g}",
                recording=name,
                count=int(is_graded.sum()),
                events=int(used.sum()),
                value=float(data.value[is_graded][0]),
            ),
            fix="use to_graded_events",
        )
    order = np.argsort(data.time, axis=1, kind="stable")
    index = np.where(used, data.idx, data.n_neurons).astype(np.int32)
    time, index = (np.take_along_axis(array, order, axis=1) for array in (data.time, index))
    return Events(time=time, index=index)


def to_graded_events(data: EventData, *, name: str = "data") -> GradedEvents:
    """Convert events to `jaxsnn.GradedEvents` (batch, events), each with its value; events
    without values have the value 1.

    Args:
        name: name of the data in messages.

    Raises:
        UsageError: the data are broken.
    """
    refuse_broken(data, name)
    used = data.idx >= 0
    ones = np.ones(data.idx.shape)
    value = np.asarray(data.value, float) if isinstance(data, ValuedEventData) else ones
    index = np.where(used, data.idx, data.n_neurons).astype(np.int32)
    value = np.where(used, value, 0.0)
    return GradedEvents(time=data.time, index=index, value=value)


def to_input(data: Observable, *, name: str = "data") -> Events | GradedEvents | np.ndarray:
    """Convert a recording to an input of a network: events; graded events, if some carry other
    values than 1; for gridded data an array (time, batch, neurons).

    Args:
        name: name of the data in messages.

    Raises:
        UsageError: the data are broken.
    """
    refuse_broken(data, name)
    if isinstance(data, TimeGriddedData):
        return to_array(data)
    used = data.idx >= 0
    sized = isinstance(data, ValuedEventData) and bool((data.value[used] != 1).any())
    return to_graded_events(data, name=name) if sized else to_events(data, name=name)
