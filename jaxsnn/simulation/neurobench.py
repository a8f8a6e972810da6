"""Metrics of NeuroBench for a network and its runs: footprint, sparsity, synaptic operations.

The definitions are those of Yik et al., "The NeuroBench framework for benchmarking neuromorphic
computing algorithms and systems", Nature Communications 16:1545, 2025 (arXiv:2304.04640), as version
2.3.0 of the package `neurobench` computes them; `docs/guide_results.md` lists the differences.

Only Linear, Affine and convolution nodes have synaptic operations. A value x_c that is not zero at
channel c of the input of such a node costs as many operations as the channel has nonzero weights,
its fan-out f_c. In time steps the values are those of each step; in continuous time each event is
one value, whenever it arrives.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import LoweringError, SimulationError, UsageError, listing, refuse_type
from jaxsnn.event.event_solution import EventSolution
from jaxsnn.grid.linear import delayed
from jaxsnn.grid.parts import Parts, take_apart
from jaxsnn.grid.rasters import rasters
from jaxsnn.grid.step_input import StepInput
from jaxsnn.grid.stepped_solution import SteppedSolution
from jaxsnn.grid.timing import known_dt
from jaxsnn.keywords import suggests_keywords
from jaxsnn.linear_map import window_table
from jaxsnn.network.cycles import Cycle, groups
from jaxsnn.network.inputs import checked_inputs
from jaxsnn.network.linear_nodes import entries_of
from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.network import Network
from jaxsnn.network.results import refuse_several
from jaxsnn.network.spikes import refuse_traced
from jaxsnn.network.structure import Wire, carried
from jaxsnn.network.valued_inputs import Currents, GradedEvents
from jaxsnn.nir.model.graph import Graph
from jaxsnn.options import DT
from jaxsnn.simulation.solution import Solution
from jaxsnn.summary import summarised
from jaxsnn.units import SECONDS, refuse_no_time
from jaxsnn.wording import Text

#: Node types with synaptic operations; those of convolutions have a window.
_MATRICES, _CONVOLUTIONS = ("Linear", "Affine"), ("Conv1d", "Conv2d")
#: Node types without a state and without weights of their own.
_WEIGHTLESS = ("input", "output", "neuron", "Flatten", "Delay", "SumPool2d", "AvgPool2d")


@summarised
@dataclass(frozen=True, kw_only=True)
class NeuroBench:
    """Metrics of NeuroBench. Numbers of operations are means over samples.

    Attributes:
        footprint: bytes of all parameters in the precision of the run: those of nodes without a
            state, and each parameter of a neuron once per population if it is the same for all. A
            bias of zeros of a convolution is not counted, because NIR cannot omit it. States are not
            counted.
        weight_bytes: the part of nodes without a state: weights, biases, factors and delays.
        connection_sparsity: fraction of the weights that are zero, without biases; None without
            weights.
        activation_sparsity: fraction of all pairs of a neuron and a time step without a spike, of
            populations that fire; None if the length of a time step is unknown, or no population
            fires.
        effective_macs: multiply-accumulate operations: inputs that are neither 0, 1 nor -1, times
            their nonzero weights.
        effective_acs: accumulate operations: spikes, times their nonzero weights.
        dense: operations if all weights and all inputs of all time steps were not zero; None if the
            length of a time step is unknown.
        accuracy: fraction of the samples that are classified correctly; None without labels.
        samples: number of samples.
        steps: number of time steps of a sample; None if their length is unknown.
        notes: notes on operations that are not counted, and on metrics that are None.
    """

    footprint: int
    weight_bytes: int
    connection_sparsity: float | None
    activation_sparsity: float | None
    effective_macs: float
    effective_acs: float
    dense: float | None
    accuracy: float | None = None
    samples: int
    steps: int | None
    notes: tuple[str, ...] = ()

    @property
    def operations(self) -> float:
        """Effective synaptic operations per sample, MACs and ACs."""
        return self.effective_macs + self.effective_acs

    def as_dict(self) -> dict[str, Any]:
        """Return the metrics as a dict for JSON, named and grouped as in the package `neurobench`."""
        return {
            "footprint": self.footprint,
            "weight_bytes": self.weight_bytes,
            "connection_sparsity": self.connection_sparsity,
            "activation_sparsity": self.activation_sparsity,
            "synaptic_operations": {
                "effective_macs": self.effective_macs,
                "effective_acs": self.effective_acs,
                "dense": self.dense,
            },
            "accuracy": self.accuracy,
            "samples": self.samples,
            "steps": self.steps,
            "notes": list(self.notes),
        }

    def rows(self) -> dict[str, str]:
        """Return the metrics as text, by their titles in tables and reports."""
        accuracy = {} if self.accuracy is None else {"accuracy": f"{self.accuracy:.2%}"}
        return accuracy | {
            "footprint": f"{self.footprint} bytes, {self.weight_bytes} of them of weights, biases, factors and delays",
            "connection sparsity": _number(self.connection_sparsity),
            "activation sparsity": _number(self.activation_sparsity),
            "effective MACs per sample": _number(self.effective_macs),
            "effective ACs per sample": _number(self.effective_acs),
            "dense operations per sample": _number(self.dense),
        }

    def as_text(self) -> str:
        """Return the metrics as a table."""
        return "\n".join(f"{name:28} {value}" for name, value in self.rows().items())


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.6g}"


@suggests_keywords
def neurobench(
    network: Network | Graph,
    solution: Solution,
    inputs: Any,
    *,
    dt: float | None = None,
) -> NeuroBench:
    """Compute the metrics of NeuroBench of a finished run.

    A synaptic operation is a nonzero input of a Linear, Affine or convolution node, times a nonzero
    weight. It is an accumulate operation (AC) if the input is a spike, else a multiply-accumulate
    operation (MAC). In time steps an input is a value of one step, and all inputs of a node in one step
    of a sample are spikes, or none of them is, as in the package for batches of one sample. In
    continuous time an input is an event, or a piece of a current; `dense` and `activation_sparsity`
    refer to time steps and need `dt`. Biases, pools, scales and delays have no synaptic operations.

    `jaxsnn.train.evaluate_neurobench` evaluates labelled data, and adds the accuracy.

    Args:
        network: the network of the run, or its Graph.
        solution: the run. In time steps, all populations must be recorded:
            `TimeStepped(record=True)`.
        inputs: the inputs of the run, as for `jaxsnn.simulate`.
        dt: length of a time step in seconds, for a run in continuous time; default: that of the
            framework that wrote the file.

    Raises:
        UsageError: inputs that do not match the network or the run, a population that is not
            recorded, or an invalid dt.
        SimulationError: the run failed.

    Source: Yik et al., Nature Communications 16:1545, 2025 (arXiv:2304.04640).

    >>> from jaxsnn import Events, lower, simulate
    >>> from jaxsnn.nir import build
    >>> neurons = build.cubalif(tau_mem="10ms", tau_syn="5ms")
    >>> weight = [[9.0], [0.0]]
    >>> network = lower(build.sequential(build.input(1), build.linear(weight=weight), neurons))
    >>> events = Events(time=[[0.0, 0.02]], index=[[0, 0]])
    >>> metrics = neurobench(network, simulate(network, events, 30e-3), events, dt=1e-3)
    >>> metrics.effective_acs, metrics.dense, metrics.connection_sparsity
    (2.0, 60.0, 0.5)
    """
    refuse_traced((solution, inputs), "the spikes of a run")
    if isinstance(network, Graph):
        counter = OperationCounter.of(network, dt)
    else:
        refuse_type(network, Network, fix="pass the network of the run, or its graph")
        counter = OperationCounter(network, dt)
    counter.add(solution, inputs)
    return counter.metrics()


class _Layer(NamedTuple):
    """Weights of one node that has synaptic operations.

    Attributes:
        fan_out: number of nonzero weights that each channel of the input reaches, (channels,).
        dense: number of connections, those with a weight of zero included.
        zeros, weights: number of zeros, and of all entries, of the weight array.
    """

    fan_out: np.ndarray
    dense: int
    zeros: int
    weights: int


class _Events(NamedTuple):
    """Events of all samples at one node: time in seconds, channel, value; (events,) each."""

    time: np.ndarray
    channel: np.ndarray
    value: np.ndarray

    def where(self, mask: np.ndarray) -> _Events:
        """Return the events that a mask selects."""
        return _Events(self.time[mask], self.channel[mask], self.value[mask])


_NO_EVENTS = _Events(np.zeros(0), np.zeros(0, int), np.zeros(0))


@dataclass(kw_only=True)
class _Totals:
    """Sums over all runs that were added."""

    macs: int = 0
    acs: int = 0
    samples: int = 0
    active: int = 0
    steps: set[int | None] = field(default_factory=set)
    analog: set[str] = field(default_factory=set)  # nodes that readouts feed in continuous time
    dense: int = 0
    activations: int = 0


class OperationCounter:
    """Counter of the synaptic operations and spikes of several runs of one network.

    Args:
        network: the network.
        dt: length of a time step in seconds for runs in continuous time; None: that of the network.
    """

    def __init__(self, network: Network, dt: float | None = None) -> None:
        if dt is not None:
            refuse_no_time(dt, DT)
        self.network, self.dt = network, known_dt(network.populations, dt)
        self.wires = {wire.name: wire for wire in network.wires}
        self.layers = {
            wire.name: _layer(wire, self._inward(wire), self._parameters(wire))
            for wire in network.wires
            if _has_operations(wire)
        }
        self.totals = _Totals()

    @classmethod
    def of(cls, graph: Graph, dt: float | None = None) -> OperationCounter:
        """Return a counter for the network of a graph; dt None: the time step of its dialect."""
        return cls(lower(graph), graph.dialect.dt if dt is None else dt)

    def add(self, solution: Solution, inputs: Any) -> None:
        """Count the operations and spikes of a run; arguments and errors as in `neurobench`."""
        if not isinstance(solution, SteppedSolution):
            refuse_type(solution, EventSolution, fix="pass the result of jaxsnn.simulate")
        refuse_several(solution.result)
        if solution.problem is not None:
            raise SimulationError.of(solution.problem)
        firing = [name for name, part in self.network.populations.items() if part.fires]
        unrecorded = [name for name in firing if name not in solution.spikes]
        if unrecorded:
            raise UsageError(
                Text("the spikes of '{node}' are not recorded", node=unrecorded[0]),
                fix="pass TimeStepped(record=True)",
                node=unrecorded[0],
            )
        if isinstance(solution, SteppedSolution):
            self._add_steps(solution, inputs, firing)
        elif isinstance(solution, EventSolution):
            self._add_events(solution, inputs, firing)

    def metrics(self, accuracy: float | None = None) -> NeuroBench:
        """Return the metrics of all runs that were added."""
        totals, layers = self.totals, self.layers.values()
        weights = sum(layer.weights for layer in layers)
        notes = list(self._notes())
        steps = next(iter(totals.steps)) if len(totals.steps) == 1 else None
        timed = None not in totals.steps
        if not timed:
            notes.append(
                Text(
                    "dense operations and activation sparsity refer to time steps, whose length is "
                    "not specified: specify it, for example {dt}",
                    dt=DT.set_to(SECONDS["ms"]),
                )
            )
        return NeuroBench(
            **_footprint(self.network),
            connection_sparsity=sum(layer.zeros for layer in layers) / weights if weights else None,
            activation_sparsity=1 - totals.active / totals.activations
            if timed and totals.activations
            else None,
            effective_macs=totals.macs / totals.samples,
            effective_acs=totals.acs / totals.samples,
            dense=totals.dense / totals.samples if timed else None,
            accuracy=accuracy,
            samples=totals.samples,
            steps=steps,
            notes=tuple(notes),
        )

    def _notes(self) -> Iterator[str]:
        """Yield notes on operations that are not counted."""
        others = [
            wire.name
            for wire in self.network.wires
            if wire.kind not in (*_WEIGHTLESS, *_MATRICES, *_CONVOLUTIONS)
        ]
        if others:
            yield Text(
                "operations of {nodes} are not counted, because only Linear, Affine and convolution "
                "nodes have synaptic operations in NeuroBench",
                nodes=listing(f"'{name}'" for name in others),
            )
        if self.totals.analog:
            yield Text(
                "operations of {nodes} on membrane potentials are not counted, because they are not "
                "computed in continuous time",
                nodes=listing(f"'{name}'" for name in sorted(self.totals.analog)),
            )

    def _inward(self, wire: Wire) -> tuple[int, ...]:
        return self.wires[wire.sources[0]].shape if wire.sources else wire.shape

    def _parameters(self, wire: Wire) -> Mapping[str, Any]:
        return self.network.parameters.get(wire.name, {})

    def _add_size(self, samples: int, steps: int | None, firing: Iterable[str]) -> None:
        """Add a run of a number of samples and time steps to the denominators."""
        totals = self.totals
        totals.samples += samples
        totals.steps.add(steps)
        if steps is None:
            return
        neurons = sum(self.network.populations[name].size for name in firing)
        totals.activations += neurons * samples * steps
        totals.dense += sum(layer.dense for layer in self.layers.values()) * samples * steps

    # ---- in time steps

    def _add_steps(self, solution: SteppedSolution, inputs: Any, firing: list[str]) -> None:
        recorded = {**solution.voltages, **solution.spikes}
        steps, samples = next(iter(recorded.values())).shape[:2]
        t_end = None if solution.dt is None else steps * solution.dt
        x = rasters(self.network, inputs, t_end=t_end, dt=solution.dt).x
        _refuse_other_run(next(iter(x.values())).shape[:2], (steps, samples))
        signals = _StepSignals(self.network, solution, {**x, **recorded})
        for name, layer in self.layers.items():
            entering = np.asarray(signals.entering(name)).reshape(steps, -1, layer.fan_out.size)
            operations = (entering != 0) @ layer.fan_out  # (steps, batch)
            is_spiking = np.isin(entering, (-1, 0, 1)).all(axis=2)
            self.totals.acs += int(operations[is_spiking].sum())
            self.totals.macs += int(operations[~is_spiking].sum())
        self.totals.active += sum(
            int(np.count_nonzero(np.asarray(solution.spikes[name]))) for name in firing
        )
        self._add_size(samples, steps, firing)

    # ---- in continuous time

    def _add_events(self, solution: EventSolution, inputs: Any, firing: list[str]) -> None:
        end = float(solution.t_end)
        trains = checked_inputs(self.network, inputs)
        samples = next(iter(trains.values())).time.shape[0]
        for name in firing[:1]:
            _refuse_other_run((samples,), solution.spikes[name].time.shape[:1])
        sent = dict.fromkeys(self.network.populations, _NO_EVENTS)  # a readout has no events
        sent |= {name: _input_events(train) for name, train in trains.items()}
        for name in firing:
            time = np.asarray(solution.spikes[name].time)
            _, neuron, _ = np.nonzero(np.isfinite(time))
            sent[name] = _Events(time[np.isfinite(time)], neuron, np.ones(neuron.size))
        readouts = [name for name in self.network.populations if name not in firing]
        origins = carried(self.network.wires, readouts)
        self.totals.analog |= {name for name in self.layers if origins[name]}
        emitted: dict[str, _Events] = {}

        def entering(wire: Wire) -> _Events:
            columns = zip(_NO_EVENTS, *(leaving(source) for source in wire.sources), strict=True)
            return _Events(*map(np.concatenate, columns))

        def leaving(name: str) -> _Events:
            """Return the events of a node that arrive before the end."""
            if name not in emitted:
                wire = self.wires[name]
                events = sent[name] if name in sent else self._passed(wire, entering(wire))
                emitted[name] = events.where(events.time < end)
            return emitted[name]

        for name, layer in self.layers.items():
            events = entering(self.wires[name])
            operations, is_spike = layer.fan_out[events.channel], np.abs(events.value) == 1
            self.totals.acs += int(operations[is_spike].sum())
            self.totals.macs += int(operations[~is_spike].sum())
        steps = None
        if self.dt is not None:
            steps = max(round(end / self.dt), 1)
            for name in firing:
                self.totals.active += _active_steps(solution.spikes[name].time, self.dt, steps)
        self._add_size(samples, steps, firing)

    def _passed(self, wire: Wire, events: _Events) -> _Events:
        """Return events after a node without a state; each event is sent on by itself."""
        if wire.kind == "Delay":
            delay = np.broadcast_to(np.asarray(wire.detail, float).reshape(-1), wire.size)
            return events._replace(time=events.time + delay[events.channel])
        source, target, weight = entries_of(
            wire, self._inward(wire), self._parameters(wire), self.network.dtype
        )
        nonzero = np.asarray(weight) != 0
        order = np.argsort(source[nonzero], kind="stable")
        source, target, weight = (
            np.asarray(column)[nonzero][order] for column in (source, target, weight)
        )
        first = np.searchsorted(source, events.channel)
        count = np.searchsorted(source, events.channel, side="right") - first
        event = np.repeat(np.arange(len(count)), count)
        # 0, 1, ... within the connections of each event
        within = np.arange(len(event)) - np.repeat(np.cumsum(count) - count, count)
        connection = first[event] + within
        return _Events(
            events.time[event], target[connection], events.value[event] * weight[connection]
        )


def _refuse_other_run(of_inputs: tuple[int, ...], of_run: tuple[int, ...]) -> None:
    """Refuse inputs whose numbers of time steps and samples are not those of the run."""
    if of_inputs != of_run:
        raise UsageError(
            Text(
                "the inputs have {actual} samples, and the run {expected}",
                actual=of_inputs[-1],
                expected=of_run[-1],
            )
            if of_inputs[-1] != of_run[-1]
            else Text(
                "the inputs have {actual} time steps, and the run {expected}",
                actual=of_inputs[0],
                expected=of_run[0],
            ),
            fix="pass the inputs of the run",
        )


def _has_operations(wire: Wire) -> bool:
    """Return whether a node has synaptic operations; a Linear that only copies channels into a
    Delay is part of the delay.
    """
    is_copy = wire.kind == "Linear" and wire.detail is not None
    return wire.kind in (*_MATRICES, *_CONVOLUTIONS) and not is_copy


def _layer(wire: Wire, inward: tuple[int, ...], parameters: Mapping[str, Any]) -> _Layer:
    """Return the numbers of weights of a node.

    Args:
        inward: shape of its input.
    """
    weight = np.asarray(parameters["weight"])
    nonzero = weight != 0
    sizes = {"zeros": int((~nonzero).sum()), "weights": weight.size}
    if wire.kind in _MATRICES:
        return _Layer(fan_out=nonzero.sum(axis=0), dense=weight.size, **sizes)
    groups, taps = wire.detail.groups, math.prod(wire.detail.kernel)
    pixel, tap, _ = window_table(wire.detail, inward[1:], wire.shape[1:])
    # number of output pixels that each input pixel reaches through each tap
    reached = np.zeros((math.prod(inward[1:]), taps), np.int64)
    np.add.at(reached, (pixel, tap), 1)
    # number of output channels that each input channel reaches through each tap
    channels = nonzero.reshape(groups, -1, weight.shape[1], taps).sum(axis=1).reshape(-1, taps)
    dense = len(pixel) * weight.shape[0] * weight.shape[1]
    return _Layer(fan_out=(channels @ reached.T).reshape(-1), dense=dense, **sizes)


def _footprint(network: Network) -> dict[str, int]:
    """Return the bytes of all parameters, and those of weights and biases."""
    weight_bytes = neuron_bytes = 0
    for wire in network.wires:
        for name, value in network.parameters.get(wire.name, {}).items():
            array = np.asarray(value)
            if wire.kind == "neuron":
                is_shared = array.size and (array == array.flat[0]).all()
                neuron_bytes += array.itemsize if is_shared else array.nbytes
            elif not (wire.kind in _CONVOLUTIONS and name == "bias" and not array.any()):
                weight_bytes += array.nbytes
    return {"footprint": weight_bytes + neuron_bytes, "weight_bytes": weight_bytes}


def _active_steps(time: Any, dt: float, steps: int) -> int:
    """Return the number of pairs of a neuron and a time step in which it fires.

    Args:
        time: spike times in seconds, (batch, neurons, spikes), inf in unused slots.
    """
    time = np.asarray(time)
    sample, neuron, _ = np.nonzero(np.isfinite(time))
    # Times on the grid belong to the step that they begin, although their quotient is rounded.
    quotient = np.floor(time[np.isfinite(time)].astype(float) / dt + 1e-4)
    step = np.minimum(quotient, steps - 1).astype(np.int64)
    return len(np.unique((sample * time.shape[1] + neuron) * steps + step))


def _input_events(train: Any) -> _Events:
    """Return the events of an input, without those of value 0; of currents, one event for each piece
    and channel.
    """
    time = np.asarray(train.time)
    if isinstance(train, Currents):
        value = np.asarray(train.value).reshape(*time.shape, -1)
        sample, piece, channel = np.nonzero(value)
        return _Events(time[sample, piece], channel, value[sample, piece, channel])
    used = np.isfinite(time)
    value = np.asarray(train.value) if isinstance(train, GradedEvents) else np.ones_like(time)
    events = _Events(time[used], np.asarray(train.index)[used], value[used])
    return events.where(events.value != 0)


class _StepSignals:
    """Signals of a run in time steps, between its recorded populations.

    Args:
        recorded: name of an Input or a population -> its output, (time, batch, *shape).
    """

    def __init__(
        self, network: Network, solution: SteppedSolution, recorded: Mapping[str, Any]
    ) -> None:
        self.parts: Parts = take_apart(network, dt=solution.dt, surrogate=None, detach_reset=None)
        self.wires = {wire.name: wire for wire in network.wires}
        self.late = set(_late_edges(network))
        self.recorded = recorded
        self.waiting: list[str] = []

    def entering(self, name: str) -> Any:
        """Return the input of a node, (time, batch, *shape)."""
        sources = self.wires[name].sources
        return sum(
            delayed((int((source, name) in self.late),), self._leaving(source))
            for source in sources
        )

    def _leaving(self, name: str) -> Any:
        if name in self.recorded:
            return jnp.asarray(self.recorded[name])
        if name in self.waiting:
            raise LoweringError(
                Text("node '{node}' is part of a cycle without a neuron", node=name),
                fix="insert a neuron into the cycle",
                node=name,
            )
        self.waiting.append(name)
        entering = self.entering(name)
        self.waiting.remove(name)
        wire = self.wires[name]
        if wire.kind == "Delay":
            return delayed(self.parts.delays[name], entering)
        return self.parts.through(wire, StepInput(level=entering)).only


def _late_edges(network: Network) -> Iterator[tuple[str, str]]:
    """Yield the edges of cycles whose signal arrives one time step late at a node without a state,
    in the order in which the time-stepped engine runs a cycle.
    """
    for cycle in groups(network.wires):
        if not isinstance(cycle, Cycle):
            continue
        if cycle.in_turn:
            yield from ((source, wire.name) for wire in cycle.wires for source in wire.late)
            continue
        place = {name: number for number, name in enumerate(cycle.order)}
        for wire in cycle.wires:
            if wire.kind in ("neuron", "Delay"):
                continue
            ends = _first_stateful(cycle, wire.name)
            for source in wire.sources:
                # a neuron that runs later receives the output of the same step
                if (
                    source in place
                    and ends
                    and all(name in place and place[name] <= place[source] for name in ends)
                    and network.populations[source].spikes_from == "after"
                ):
                    yield source, wire.name


def _first_stateful(cycle: Cycle, name: str) -> set[str]:
    """Return the neurons and Delays of a cycle that a node without a state reaches first."""
    ends, waiting, seen = set[str](), [name], {name}
    while waiting:
        current = waiting.pop()
        for wire in cycle.wires:
            if current not in wire.sources or wire.name in seen:
                continue
            seen.add(wire.name)
            (ends.add if wire.kind in ("neuron", "Delay") else waiting.append)(wire.name)
    return ends
