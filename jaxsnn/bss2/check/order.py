"""That the runs of a mapping are complete and in order: each neuron once, its sources there,
recorded before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from jaxsnn.bss2.mapping import Mapping, PlacedNeuron, Run, Source
from jaxsnn.bss2.netlist import Netlist
from jaxsnn.errors import Problem


@dataclass(frozen=True, kw_only=True, eq=False)
class Members:
    """Global indices of a run's neurons and of its sources, in their order; -1 for what the net
    does not have.
    """

    neurons: np.ndarray
    sources: np.ndarray


def members(net: Netlist, run: Run) -> Members:
    """The members of a run."""

    def index(one: PlacedNeuron | Source) -> int:
        if (
            not 0 <= one.population < len(net.populations)
            or not 0 <= one.index < net.populations[one.population].size
        ):
            return -1
        return int(net.offsets[one.population]) + one.index

    neurons = np.array([index(one) for one in run.neurons], np.int64)
    neurons[net.external[neurons]] = -1  # where it is -1 it stays so
    return Members(neurons=neurons, sources=np.array([index(one) for one in run.sources], np.int64))


def order_violations(mapping: Mapping, net: Netlist, runs: Sequence[Members]) -> Iterator[Problem]:
    """What is missing, comes twice, comes too late, or is torn apart."""
    where_placed = np.full(net.size, -1)
    for number, inside in enumerate(runs):
        yield from _unknown(mapping.runs[number], inside, f"run {number}")
        for index in inside.neurons[inside.neurons >= 0].tolist():
            if where_placed[index] >= 0:
                message = f"it is also placed in run {where_placed[index]}"
                yield Problem(
                    code="placed-twice", node=f"run {number}: {net.neuron(index)}", message=message
                )
            where_placed[index] = number
    for index in np.flatnonzero((where_placed < 0) & ~net.external).tolist():
        message = f"none of the {len(runs)} runs has it"
        yield Problem(code="not-placed", node=net.neuron(index), message=message)
    for number, run in enumerate(mapping.runs):
        if not run.neurons:
            message = "it has no neuron, it does nothing"
            yield Problem(code="empty-run", node=f"run {number}", message=message)
    for part in net.recurrent_components():
        numbers = np.unique(where_placed[part])
        if len(numbers) > 1:
            message = (
                f"the {len(part)} neurons that feed each other are in {len(numbers)} runs, they "
                "belong in one"
            )
            yield Problem(code="torn-apart", node=net.neuron(part[0]), message=message)
    recorded = [
        _recorded(run, inside, net.size) for run, inside in zip(mapping.runs, runs, strict=True)
    ]
    seen = np.any([np.zeros(net.size, bool), *recorded], axis=0)
    asked = net.outputs & (where_placed >= 0) & ~seen
    for index in np.flatnonzero(asked).tolist():
        message = "it is an output of the network, and the host does not record its spikes"
        where = f"run {where_placed[index]}: {net.neuron(index)}"
        yield Problem(code="not-recorded", node=where, message=message)
    for number, (run, inside) in enumerate(zip(mapping.runs, runs, strict=True)):
        yield from _source_violations(net, run, inside, recorded[:number], f"run {number}")
        yield from _needed(net, inside, f"run {number}")


def _unknown(run: Run, inside: Members, where: str) -> Iterator[Problem]:
    for kind, listed, indices in (
        ("neuron", run.neurons, inside.neurons),
        ("source", run.sources, inside.sources),
    ):
        for number in np.flatnonzero(indices < 0).tolist():
            one = listed[number]
            message = f"the net has no {kind} {one.index} of population {one.population}"
            yield Problem(code=f"unknown-{kind}", node=f"{where}: {kind} {number}", message=message)


def _recorded(run: Run, inside: Members, size: int) -> np.ndarray:
    """(size,) bool: the run records the neuron."""
    found = np.zeros(size, bool)
    for neuron, index in zip(run.neurons, inside.neurons.tolist(), strict=True):
        if index >= 0 and neuron.recorded:
            found[index] = True
    return found


def _source_violations(
    net: Netlist, run: Run, inside: Members, recorded: Sequence[np.ndarray], where: str
) -> Iterator[Problem]:
    seen = np.zeros(net.size, bool)
    seen[inside.neurons[inside.neurons >= 0]] = True
    for source, index in zip(run.sources, inside.sources.tolist(), strict=True):
        if index < 0:
            continue
        here = f"{where}: {net.neuron(index)}"
        if seen[index]:
            message = "its spikes come twice: it is listed again, or is itself on the chip"
            yield Problem(code="source-twice", node=here, message=message)
        seen[index] = True
        if net.external[index] and source.from_run is not None:
            message = f"it is an input, and is said to be recorded by run {source.from_run}"
            yield Problem(code="bad-origin", node=here, message=message)
        elif not net.external[index]:
            origin = source.from_run
            if origin is None or not 0 <= origin < len(recorded):
                message = (
                    f"its spikes are to come from run {origin}, earlier are {len(recorded)} runs"
                )
                yield Problem(code="bad-origin", node=here, message=message)
            elif not recorded[origin][index]:
                message = f"run {origin} does not record it"
                yield Problem(code="bad-origin", node=here, message=message)


def _needed(net: Netlist, inside: Members, where: str) -> Iterator[Problem]:
    """Sources that a run's neurons have in the net, and the run does not have."""
    here, there = np.zeros(net.size, bool), np.zeros(net.size, bool)
    here[inside.neurons[inside.neurons >= 0]] = True
    there[inside.sources[inside.sources >= 0]] = True
    lacking = here[net.post] & ~(here | there)[net.pre]
    sources, counts = np.unique(net.pre[lacking], return_counts=True)
    for index, count in zip(sources.tolist(), counts.tolist(), strict=True):
        message = (
            f"it feeds {count} neurons of the run, which neither has it nor sends its spikes in"
        )
        yield Problem(code="no-source", node=f"{where}: {net.neuron(index)}", message=message)
