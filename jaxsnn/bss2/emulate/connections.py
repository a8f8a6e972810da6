"""The program of an emulated chip: its connections, run by run, read from the synapses of a
mapping.

Nothing here depends on the values of weights: the chip adds a weight of the network times a gain, so
that weights may change in place, as they do in training.

For JAX a program is a pytree of its numbers: the calibration and the fixed pattern of a chip. These
are arguments of compiled code; the rest (the circuits that are used, and the connections) is static.
Programs of one mapping on other chips, or with other scales, run the same compiled code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.bss2.check.legality import members
from jaxsnn.bss2.check.propagate import events_of, listening, passed
from jaxsnn.bss2.chip import HEMISPHERES, HICANN_X, ROWS_PER_DRIVER, Chip
from jaxsnn.bss2.emulate.emulated_chip import EmulatedChip, Pattern, pattern_of
from jaxsnn.bss2.mapping import Mapping as ChipMapping
from jaxsnn.bss2.mapping import Run
from jaxsnn.bss2.netlist import Netlist
from jaxsnn.bss2.search.quantize import ChipPopulation, Quantized
from jaxsnn.network.network import with_tau_facts
from jaxsnn.network.structure import Population, with_unknown_taus

#: Smallest distance of a threshold above the reset on an emulated chip, CADC LSB: the event engine
#: has no crossing where V is reset to above the threshold.
LOWEST_THRESHOLD = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Neurons:
    """Neurons of one population in one run, with their parameters on the chip.

    Attributes:
        name: Name of the population.
        index: (neurons,) indices of the neurons in the population, ascending.
        fires: Whether the neurons have a threshold.
        output: (neurons,) event output of each neuron.
        tau_mem, tau_syn: (neurons,) time constants, seconds of the chip.
        v_leak, v_threshold, v_reset: (neurons,) potentials, CADC LSB.
        recorded: (neurons,) whether the host records the spikes.
        capacitance: (neurons,) membrane capacitance, relative to that of one circuit.
        population: Population of the event engine; None before `prepared`.
    """

    name: str
    index: np.ndarray
    fires: bool
    output: np.ndarray
    tau_mem: np.ndarray
    tau_syn: np.ndarray
    v_leak: np.ndarray
    v_threshold: np.ndarray
    v_reset: np.ndarray
    recorded: np.ndarray
    capacitance: np.ndarray
    population: Population | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class HostEvents:
    """Events that the host sends in one run for the spikes of one population.

    Attributes:
        source: Name of the population.
        channels: (neurons of the population, maximum number of events per spike) channel of each
            event, -1 in unused slots.
        sender: (channels,) neuron whose spikes a channel carries.
    """

    source: str
    channels: np.ndarray
    sender: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Projection:
    """Connections into one population of a run.

    Attributes:
        source: Name of the presynaptic population.
        from_host: Whether the host sends the spikes; otherwise neurons of the same run emit them.
        target: Name of the postsynaptic population.
        sender: (channels,) neuron of `source` whose spikes a channel carries; a channel is an event
            of the host, or a neuron of the run.
        excite, inhibit: (channels, neurons) factors of positive and of negative weights; 0 where
            there is no synapse.
    """

    source: str
    from_host: bool
    target: str
    sender: np.ndarray
    excite: np.ndarray
    inhibit: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class RunWiring:
    """Neurons and connections of one run.

    Attributes:
        neurons: Neurons of each population, in the order of the network.
        host: Events that the host sends, by population.
        projections: All connections.
    """

    neurons: tuple[Neurons, ...]
    host: tuple[HostEvents, ...]
    projections: tuple[Projection, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """Static description of an emulation, independent of spikes. It is a pytree, whose leaves are the
    numbers that compiled code takes as arguments.

    Attributes:
        layout: Sizes of the chip.
        chip: Emulated chip.
        runs: Runs in the order of execution.
        sizes: Number of neurons of each population, and of channels of each input.
        speedup: Speed of the chip relative to the file.
        slope: Change of dV/dt for one LSB of a weight, CADC LSB per second of the chip.
        refractory_time: Refractory period, seconds of the chip.
        structure: Static part of the program, which compiled code depends on; None before
            `prepared`.
    """

    layout: Chip
    chip: EmulatedChip
    runs: tuple[RunWiring, ...]
    sizes: Mapping[str, int]
    speedup: float
    slope: float
    refractory_time: float
    structure: Hashable = None


def wired(
    quantized: Quantized,
    net: Netlist,
    mapping: ChipMapping | None,
    chip: EmulatedChip,
    slope: float,
) -> Program:
    """Return the program of a mapping, or of the net alone on a chip that is large enough for all
    of it.

    Args:
        net: Mapped netlist, with the populations of `quantized`.
        mapping: Mapping without violations.
        slope: Change of dV/dt for one LSB of a weight, CADC LSB per second of the chip.
    """
    layout = HICANN_X if mapping is None else mapping.chip
    if mapping is None:
        runs = (_wire_net(net, quantized.populations),)
    else:
        runs = tuple(
            _wire_run(
                net, quantized.populations, layout, run, pattern_of(layout, chip.of_run(number))
            )
            for number, run in enumerate(mapping.runs)
        )
    return Program(
        layout=layout,
        chip=chip,
        runs=runs,
        sizes={population.name: population.size for population in net.populations},
        speedup=quantized.speedup,
        slope=slope,
        refractory_time=max(
            population.refractory_time for population in quantized.populations.values()
        ),
    )


def _wire_net(net: Netlist, populations: Mapping[str, ChipPopulation]) -> RunWiring:
    """Return the wiring of the net in one run, every gain 1, with a separate channel for each input
    channel.
    """
    neurons, host, projections = [], [], []
    for number, part in enumerate(net.populations):
        every = np.arange(part.size)
        if part.external:
            host.append(HostEvents(source=part.name, channels=every[:, None], sender=every))
        else:
            ones = np.ones(part.size)
            neurons.append(
                _neurons(populations[part.name], every, 0 * every, ones.astype(bool), ones)
            )
        for target in np.unique(net.owner[net.post[net.owner[net.pre] == number]]).tolist():
            gains = np.ones((part.size, net.populations[target].size))
            projections.append(
                Projection(
                    source=part.name,
                    from_host=part.external,
                    target=net.populations[target].name,
                    sender=every,
                    excite=gains,
                    inhibit=gains,
                )
            )
    return RunWiring(neurons=tuple(neurons), host=tuple(host), projections=tuple(projections))


def _neurons(
    population: ChipPopulation,
    index: np.ndarray,
    output: np.ndarray,
    recorded: np.ndarray,
    capacitance: np.ndarray,
    pattern: Pattern | None = None,
    head: tuple[np.ndarray, ...] = (),
) -> Neurons:
    """Return some neurons of a population, with the fixed pattern of their head circuits (rows,
    columns).
    """
    tau_mem, tau_syn, v_leak, v_threshold, v_reset = (
        np.asarray(values[index], float)
        for values in (
            population.tau_mem,
            population.tau_syn,
            population.v_leak,
            population.v_threshold,
            population.v_reset,
        )
    )
    if pattern is not None:
        tau_mem = tau_mem * pattern.tau_mem[head] * capacitance
        tau_syn = tau_syn * pattern.tau_syn[head]
        v_leak, v_reset = v_leak + pattern.v_leak[head], v_reset + pattern.v_reset[head]
        v_threshold = np.maximum(
            v_threshold + pattern.v_threshold[head], v_reset + LOWEST_THRESHOLD
        )
    return Neurons(
        name=population.name,
        index=index,
        fires=population.fires,
        output=output,
        tau_mem=tau_mem,
        tau_syn=tau_syn,
        v_leak=v_leak,
        v_threshold=v_threshold,
        v_reset=v_reset,
        recorded=recorded,
        capacitance=capacitance,
    )


def _wire_run(
    net: Netlist,
    populations: Mapping[str, ChipPopulation],
    layout: Chip,
    run: Run,
    pattern: Pattern,
) -> RunWiring:
    inside = members(net, run)
    owner = net.owner[inside.neurons]
    within = inside.neurons - net.offsets[owner]
    heads = np.array([neuron.circuits[neuron.head] for neuron in run.neurons]).reshape(-1, 2)
    recorded = np.array([neuron.recorded for neuron in run.neurons], bool)
    joined = np.array([len(neuron.circuits) for neuron in run.neurons])
    neurons, places = [], {}
    for number, part in enumerate(net.populations):
        chosen = np.flatnonzero(owner == number)
        if not chosen.size:
            continue
        chosen = places[number] = chosen[np.argsort(within[chosen], kind="stable")]
        row, column = heads[chosen].T
        neurons.append(
            _neurons(
                populations[part.name],
                within[chosen],
                column // layout.output_columns,
                recorded[chosen],
                1 + pattern.joined_capacitance * (joined[chosen] - 1),
                pattern,
                (row, column),
            )
        )
    # Numbers of events: first the neurons of the run, then the events of each host source.
    host, host_events = [], []
    begins = len(run.neurons) + np.cumsum(
        [0, *(len(source.events) for source in run.sources)], dtype=int
    )
    for number in np.unique(net.owner[inside.sources]).tolist():
        sources = [
            place
            for place, host_source in enumerate(run.sources)
            if host_source.population == number
        ]
        most = max(len(run.sources[place].events) for place in sources)
        channels = np.full((net.populations[number].size, most), -1)
        sender, events = [], []
        for place in sources:
            source = run.sources[place]
            count = len(source.events)
            channels[source.index, :count] = len(sender) + np.arange(count)
            sender += [source.index] * count
            events += range(begins[place], begins[place] + count)
        host.append(
            HostEvents(
                source=net.populations[number].name, channels=channels, sender=np.array(sender, int)
            )
        )
        host_events.append(np.array(events, int))

    synapse, event, sender, neuron = responding_pairs(net, layout, run)
    hemisphere, row, column, _, weight = run.synapses[synapse].T.astype(np.int64)
    # Share of a connection's weight that each synapse carries, times the synapse's gains.
    _, pair = np.unique(sender * net.size + inside.neurons[neuron], return_inverse=True)
    share = weight / np.bincount(pair, weights=weight)[pair]
    driver_gain = pattern.driver_gain[hemisphere, row // ROWS_PER_DRIVER]
    shares = driver_gain * pattern.input_gain[:, hemisphere, column] * share

    def projection(
        source: str, events: np.ndarray, sender: np.ndarray, target: int, from_host: bool
    ) -> Iterator[Projection]:
        """Yield a projection with the summed shares; none if no neuron receives an event."""
        event_row, neuron_column = np.full(begins[-1], -1), np.full(len(run.neurons), -1)
        event_row[events], neuron_column[places[target]] = (
            np.arange(len(events)),
            np.arange(len(places[target])),
        )
        row, column = event_row[event], neuron_column[neuron]
        responds = (row >= 0) & (column >= 0)
        if responds.any():
            excite, inhibit = np.zeros((2, len(events), len(places[target])))
            for table, values in zip((excite, inhibit), shares, strict=True):
                np.add.at(table, (row[responds], column[responds]), values[responds])
            yield Projection(
                source=source,
                from_host=from_host,
                target=net.populations[target].name,
                sender=sender,
                excite=excite,
                inhibit=inhibit,
            )

    projections: list[Projection] = []
    for target in places:
        for source, events in places.items():
            name = net.populations[source].name
            projections += projection(name, events, within[events], target, False)
        for part, events in zip(host, host_events, strict=True):
            projections += projection(part.source, events, part.sender, target, True)
    return RunWiring(neurons=tuple(neurons), host=tuple(host), projections=tuple(projections))


def responding_pairs(
    net: Netlist, layout: Chip, run: Run
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return each synapse of a run with each event that it responds to.

    Returns:
        (pairs,) each: the synapse; the event, those of the run's neurons first, then the host's
        source by source; the global index of the neuron or channel that sends the event; and the
        index, within the run, of the neuron that receives it.
    """
    inside, on_chip = members(net, run), len(run.neurons)
    events = events_of(layout, run, np.arange(on_chip), on_chip + np.arange(len(run.sources)))
    arrivals = passed(events, run.crossbar)
    received, first, count = listening(layout, events, arrivals, run)
    synapse = np.repeat(np.arange(len(count)), count)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    event = received[np.repeat(first, count) + within]
    neuron_at = np.full((HEMISPHERES, layout.columns), -1)
    for number, mapped_neuron in enumerate(run.neurons):
        for circuit in mapped_neuron.circuits:
            neuron_at[circuit] = number
    neuron = neuron_at[run.synapses[synapse, 0], run.synapses[synapse, 2]]
    sender = np.concatenate([inside.neurons, inside.sources])[events.sender[event]]
    return synapse, event, sender, neuron


# -- numbers of a program, which compiled code takes as arguments

_OF_NEURONS = ("tau_mem", "tau_syn", "v_leak", "v_threshold", "v_reset", "capacitance")
_OF_PROJECTIONS = ("excite", "inhibit")

#: Arrays of neurons and of projections, run by run, and the program's slope.
Numbers = tuple[Any, Any]


class Structure:
    """Structure of a program without its numbers; equal structures share compiled code."""

    def __init__(self, program: Program):
        self.program = program
        digest = hashlib.sha256()
        for piece in _pieces(program):
            digest.update(
                piece.tobytes() if isinstance(piece, np.ndarray) else repr(piece).encode()
            )
        self._identity = replace(program.chip, seed=0), digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Structure) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)


def _pieces(program: Program) -> Iterator[Any]:
    """Yield all parts of a program that compiled code depends on, except its chip."""

    def shaped(*arrays: np.ndarray) -> Iterator[Any]:
        for array in arrays:
            yield array.shape, array.dtype.str
            yield np.ascontiguousarray(array)

    yield program.layout, dict(program.sizes), program.speedup, program.refractory_time
    for wiring in program.runs:
        yield len(wiring.neurons), len(wiring.host), len(wiring.projections)
        for neurons in wiring.neurons:
            yield from shaped(neurons.index, neurons.output, neurons.recorded)
            yield neurons.name, neurons.fires, neurons.population
        for part in wiring.host:
            yield from shaped(part.channels, part.sender)
            yield part.source
        for part in wiring.projections:
            yield from shaped(part.sender)
            yield part.source, part.from_host, part.target, np.shape(part.excite)


def prepared(program: Program, taus_known: bool = True) -> Program:
    """Return the program in a form that JAX can trace: a pytree of its numbers.

    Args:
        taus_known: whether to store facts about the time constants, such as whether all are equal,
            as static data; they cannot be inspected once they are traced.
    """
    runs = []
    for wiring in program.runs:
        neurons = []
        for neuron_group in wiring.neurons:
            population = Population(
                name=neuron_group.name,
                kind="CubaLIF" if neuron_group.fires else "CubaLI",
                size=len(neuron_group.index),
                # Neurons are not reset before a sample in BrainScaleS OS 12, see
                # search/chip_dynamics.py.
                initial="v_leak",
            )
            if taus_known:
                taus: dict[str, Any] = {
                    name: np.asarray(getattr(neuron_group, name), jnp.result_type(float))
                    for name in ("tau_mem", "tau_syn")
                }
                population = with_tau_facts(population, taus)
            else:
                population = with_unknown_taus(population)
            neurons.append(replace(neuron_group, population=replace(population, taus_last=True)))
        runs.append(replace(wiring, neurons=tuple(neurons)))
    program = replace(program, runs=tuple(runs))
    return replace(program, structure=Structure(program))


def stacked(programs: Sequence[Program]) -> Program:
    """Return programs of one mapping on several chips of a kind as one program, with arrays
    (programs, ...) for its numbers.
    """
    if len({program.structure for program in programs}) > 1:  # their known time constants differ
        programs = [prepared(program, taus_known=False) for program in programs]
    return jax.tree.map(lambda *arrays: np.stack(arrays), *programs)


def _flatten(program: Program) -> tuple[Numbers, Structure]:
    """Return the numbers of a program as a tree of arrays, and its structure, which many programs
    may share.
    """
    structure = program.structure
    assert isinstance(structure, Structure)
    runs = tuple(
        tuple(
            tuple(tuple(getattr(part, name) for name in field_names) for part in parts)
            for parts, field_names in (
                (wiring.neurons, _OF_NEURONS),
                (wiring.projections, _OF_PROJECTIONS),
            )
        )
        for wiring in program.runs
    )
    return (runs, program.slope), structure


def _unflatten(structure: Structure, numbers: Numbers) -> Program:
    """Return the program with other numbers, which may be traced."""
    filled, (runs, slope) = [], numbers
    for wiring, (neurons, projections) in zip(structure.program.runs, runs, strict=True):
        filled.append(
            replace(
                wiring,
                neurons=tuple(
                    replace(neuron_group, **dict(zip(_OF_NEURONS, values, strict=True)))
                    for neuron_group, values in zip(wiring.neurons, neurons, strict=True)
                ),
                projections=tuple(
                    replace(part, **dict(zip(_OF_PROJECTIONS, values, strict=True)))
                    for part, values in zip(wiring.projections, projections, strict=True)
                ),
            )
        )
    return replace(structure.program, runs=tuple(filled), slope=slope, structure=structure)


jax.tree_util.register_pytree_node(Program, _flatten, _unflatten)
