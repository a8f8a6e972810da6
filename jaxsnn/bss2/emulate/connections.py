"""What a mapping connects, run by run, read off its synapses: which event moves which neuron, and
how strongly.

Nothing here depends on the weights' values: a weight of the network times a gain is what the chip
adds, so that weights may change in place, as they do in training.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxsnn.bss2.check.order import members
from jaxsnn.bss2.check.propagate import events_of, listening, passed
from jaxsnn.bss2.chip import HEMISPHERES, HICANN_X, ROWS_PER_DRIVER, Chip
from jaxsnn.bss2.emulate.emulated_chip import EmulatedChip, Pattern, pattern_of
from jaxsnn.bss2.mapping import Mapping as ChipMapping
from jaxsnn.bss2.mapping import Run
from jaxsnn.bss2.netlist import Netlist
from jaxsnn.bss2.search.quantize import ChipPopulation, Quantized
from jaxsnn.network.structure import Population


@dataclass(frozen=True, kw_only=True, eq=False)
class Neurons:
    """The neurons of one population in one run, as the chip has them.

    Attributes:
        name: of the population.
        index: (neurons,) which ones, rising.
        fires: whether they have a threshold.
        output: (neurons,) the event output of each.
        tau_mem, tau_syn: (neurons,) seconds of the chip.
        v_leak, v_threshold, v_reset: (neurons,) CADC LSB.
        recorded: (neurons,) whether the host records the spikes of each.
        capacitance: (neurons,) of the membrane, over that of one circuit.
        population: of the event engine; None before `program_numbers.prepared`.
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
    """What the host sends in one run for the spikes of one population.

    Attributes:
        source: name of the population.
        channels: (neurons of the population, events of a spike at most): the channel of each event,
            -1 for none.
        sender: (channels,) the neuron whose spikes a channel carries.
    """

    source: str
    channels: np.ndarray
    sender: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Projection:
    """Connections into one population of a run.

    Attributes:
        source: name of the population whose spikes arrive.
        from_host: the host sends them; else they come from neurons of the same run.
        target: name of the population.
        sender: (channels,) the neuron of `source` behind each channel, or behind each of the run's
            own neurons.
        excite, inhibit: (channels, neurons), by what a positive and a negative weight is
            multiplied; 0 where there is no synapse.
    """

    source: str
    from_host: bool
    target: str
    sender: np.ndarray
    excite: np.ndarray
    inhibit: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class RunWiring:
    """One run.

    Attributes:
        neurons: in the order of the network's populations.
        host: what the host sends.
        projections: all connections.
    """

    neurons: tuple[Neurons, ...]
    host: tuple[HostEvents, ...]
    projections: tuple[Projection, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """All that is known before any spike. Compiled code takes its numbers as arguments
    (`program_numbers`).

    Attributes:
        layout: the chip's sizes.
        chip: which one is emulated.
        runs: in order.
        sizes: neurons of each population, inputs too.
        speedup: of the chip over the file.
        slope: CADC LSB per second of the chip by which one LSB of a weight changes dV/dt.
        refractory_time: seconds of the chip.
        structure: what compiled code knows of it; None before `program_numbers.prepared`.
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
    """The program of a mapping, or of the net by itself on a chip that is large enough for all of
    it.

    Args:
        net: what was mapped; its populations are those of `quantized`.
        mapping: without violations.
        slope: CADC LSB per second of the chip.
    """
    layout = HICANN_X if mapping is None else mapping.chip
    populations = quantized.populations
    if mapping is None:
        runs = (_whole(net, populations),)
    else:
        patterns = [pattern_of(layout, chip.of_run(number)) for number in range(len(mapping.runs))]
        runs = tuple(
            _mapped(net, populations, layout, run, pattern)
            for run, pattern in zip(mapping.runs, patterns, strict=True)
        )
    return Program(
        layout=layout,
        chip=chip,
        runs=runs,
        sizes={part.name: part.size for part in net.populations},
        speedup=quantized.speedup,
        slope=slope,
        refractory_time=max(one.refractory_time for one in populations.values()),
    )


def _whole(net: Netlist, populations: Mapping[str, ChipPopulation]) -> RunWiring:
    """The net in one run, every gain 1: each input channel is a channel of its own."""
    neurons, host, projections = [], [], []
    for number, part in enumerate(net.populations):
        every = np.arange(part.size)
        if part.external:
            host.append(HostEvents(source=part.name, channels=every[:, None], sender=every))
        else:
            one, shape = populations[part.name], part.size
            neurons.append(_neurons(one, every, np.zeros(shape, int), np.ones(shape, bool)))
        for target in np.unique(net.owner[net.post[net.owner[net.pre] == number]]).tolist():
            shape = part.size, net.populations[target].size
            projections.append(
                Projection(
                    source=part.name,
                    from_host=part.external,
                    target=net.populations[target].name,
                    sender=every,
                    excite=np.ones(shape),
                    inhibit=np.ones(shape),
                )
            )
    return RunWiring(neurons=tuple(neurons), host=tuple(host), projections=tuple(projections))


def _neurons(
    one: ChipPopulation, index: np.ndarray, output: np.ndarray, recorded: np.ndarray
) -> Neurons:
    names = ("tau_mem", "tau_syn", "v_leak", "v_threshold", "v_reset")
    values: dict[str, Any] = {name: np.asarray(getattr(one, name)[index], float) for name in names}
    return Neurons(
        name=one.name,
        index=index,
        fires=one.fires,
        output=output,
        recorded=recorded,
        capacitance=np.ones(len(index)),
        **values,
    )


def _mapped(
    net: Netlist,
    populations: Mapping[str, ChipPopulation],
    layout: Chip,
    run: Run,
    pattern: Pattern,
) -> RunWiring:
    inside = members(net, run)
    owner, within = (
        net.owner[inside.neurons],
        inside.neurons - net.offsets[net.owner[inside.neurons]],
    )
    heads = np.array([one.circuits[one.head] for one in run.neurons]).reshape(-1, 2)
    recorded = np.array([one.recorded for one in run.neurons], bool)
    joined = np.array([len(one.circuits) for one in run.neurons])
    placed, places = [], {}
    for number, part in enumerate(net.populations):
        chosen = np.flatnonzero(owner == number)
        if chosen.size:
            chosen = chosen[np.argsort(within[chosen], kind="stable")]
            row, column = heads[chosen].T
            own = _neurons(
                populations[part.name],
                within[chosen],
                column // layout.output_columns,
                recorded[chosen],
            )
            placed.append(_deviating(own, pattern, (row, column), joined[chosen]))
            places[number] = chosen
    host = tuple(_host_events(net, run, inside.sources))
    projections = tuple(_projections(net, layout, run, pattern, places, host))
    return RunWiring(neurons=tuple(placed), host=host, projections=projections)


def _deviating(
    own: Neurons, pattern: Pattern, circuit: tuple[np.ndarray, np.ndarray], joined: np.ndarray
) -> Neurons:
    """The neurons with the fixed pattern of their head circuits, and what the `joined` (neurons,)
    circuits of each add to its membrane.
    """
    capacitance = 1 + pattern.joined_capacitance * (joined - 1)
    v_leak = own.v_leak + pattern.v_leak[circuit]
    return Neurons(
        name=own.name,
        index=own.index,
        fires=own.fires,
        output=own.output,
        tau_mem=own.tau_mem * pattern.tau_mem[circuit] * capacitance,
        tau_syn=own.tau_syn * pattern.tau_syn[circuit],
        v_leak=v_leak,
        v_threshold=own.v_leak + (own.v_threshold - own.v_leak) * pattern.threshold[circuit],
        v_reset=own.v_reset + pattern.v_reset[circuit],
        recorded=own.recorded,
        capacitance=capacitance,
    )


def _host_events(net: Netlist, run: Run, sources: np.ndarray) -> Iterator[HostEvents]:
    """By population, channels in the order of the run's sources."""
    for number in np.unique(net.owner[sources]).tolist():
        own = [(place, one) for place, one in enumerate(run.sources) if one.population == number]
        most = max(len(one.events) for _, one in own)
        channels = np.full((net.populations[number].size, most), -1)
        sender = []
        for _, one in own:
            channels[one.index, : len(one.events)] = len(sender) + np.arange(len(one.events))
            sender += [one.index] * len(one.events)
        yield HostEvents(
            source=net.populations[number].name, channels=channels, sender=np.array(sender, int)
        )


def _projections(
    net: Netlist,
    layout: Chip,
    run: Run,
    pattern: Pattern,
    places: Mapping[int, np.ndarray],
    host: tuple[HostEvents, ...],
) -> Iterator[Projection]:
    """The responses of all synapses, by pairs of populations."""
    found = _responses(net, layout, run, pattern)
    names = [part.name for part in net.populations]
    ends = len(run.neurons) + np.cumsum([len(one.events) for one in run.sources], dtype=int)
    for target, columns in places.items():
        for source, events in places.items():
            sender = np.array([run.neurons[number].index for number in events.tolist()])
            yield from _projection(
                (names[source], names[target]), False, sender, found.table(events, columns)
            )
        for part in host:
            number = names.index(part.source)
            events = np.concatenate(
                [
                    np.arange(end - len(one.events), end)
                    for one, end in zip(run.sources, ends.tolist(), strict=True)
                    if one.population == number
                ]
            )
            yield from _projection(
                (part.source, names[target]), True, part.sender, found.table(events, columns)
            )


def _projection(
    names: tuple[str, str], from_host: bool, sender: np.ndarray, table: np.ndarray | None
) -> Iterator[Projection]:
    if table is not None:
        source, target = names
        yield Projection(
            source=source,
            from_host=from_host,
            target=target,
            sender=sender,
            excite=table[0],
            inhibit=table[1],
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Responses:
    """What synapses do, one entry for each synapse and event that it responds to.

    Attributes:
        event: its number: those of the run's neurons come first, then the host's, source by source.
        neuron: number in the run of the neuron that responds.
        shares: (2, responses), of the weight of the connection, for either sign: how much of it the
            synapse carries, times its gains.
    """

    event: np.ndarray
    neuron: np.ndarray
    shares: np.ndarray

    def table(self, events: np.ndarray, neurons: np.ndarray) -> np.ndarray | None:
        """(2, events, neurons): shares summed up; None where none of the neurons receives any of
        the events.
        """
        row, column = (
            np.full(int(max(found.max(initial=0), wanted.max(initial=0))) + 1, -1)
            for found, wanted in ((self.event, events), (self.neuron, neurons))
        )
        row[events], column[neurons] = np.arange(len(events)), np.arange(len(neurons))
        where = row[self.event], column[self.neuron]
        own = (where[0] >= 0) & (where[1] >= 0)
        if not own.any():
            return None
        tables = np.zeros((2, len(events), len(neurons)))
        for table, share in zip(tables, self.shares, strict=True):
            np.add.at(table, (where[0][own], where[1][own]), share[own])
        return tables


def _responses(net: Netlist, layout: Chip, run: Run, pattern: Pattern) -> _Responses:
    synapse, event, sender, neuron = responding_pairs(net, layout, run)
    hemisphere, row, column, _, weight = run.synapses[synapse].T.astype(np.int64)
    _, pair = np.unique(sender * net.size + members(net, run).neurons[neuron], return_inverse=True)
    share = weight / np.bincount(pair, weights=weight)[pair]
    gains = (
        pattern.driver_gain[hemisphere, row // ROWS_PER_DRIVER]
        * pattern.input_gain[:, hemisphere, column]
    )
    return _Responses(event=event, neuron=neuron, shares=gains * share)


def responding_pairs(
    net: Netlist, layout: Chip, run: Run
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Each synapse of a run with each event that it responds to.

    Returns:
        (pairs,) each: the synapse; the event, those of the run's neurons first, then the host's
            source by source; the
        global index of the neuron or channel whose event it is; and the number in the run of the
        neuron that it moves.
    """
    inside, on_chip = members(net, run), len(run.neurons)
    events = events_of(layout, run, np.arange(on_chip), on_chip + np.arange(len(run.sources)))
    arrivals = passed(events, run.crossbar)
    received, first, count = listening(layout, events, arrivals, run)
    synapse = np.repeat(np.arange(len(count)), count)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    event = received[np.repeat(first, count) + within]
    neuron_at = np.full((HEMISPHERES, layout.columns), -1)
    for number, one in enumerate(run.neurons):
        for circuit in one.circuits:
            neuron_at[circuit] = number
    neuron = neuron_at[run.synapses[synapse, 0], run.synapses[synapse, 2]]
    sender = np.concatenate([inside.neurons, inside.sources])[events.sender[event]]
    return synapse, event, sender, neuron
