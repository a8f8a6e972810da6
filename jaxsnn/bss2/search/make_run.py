"""Makes a run of what a router decided: rows and columns of all synapses, and the record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jaxsnn.bss2.chip import (
    DISABLED,
    EXCITATORY,
    HEMISPHERES,
    INHIBITORY,
    Chip,
    Node,
    crossbar_nodes,
)
from jaxsnn.bss2.mapping import PlacedNeuron, Run, Source
from jaxsnn.bss2.netlist import synapses_of
from jaxsnn.bss2.search.assign_bins import Assignment
from jaxsnn.bss2.search.bins import BOTTOM, EVERYWHERE, TOP, Bins
from jaxsnn.bss2.search.placement import Placement
from jaxsnn.bss2.search.task import Task


@dataclass(frozen=True, kw_only=True, eq=False)
class Codes:
    """The addresses of a run.

    Attributes:
        events: for each source the address of its event if the host sends it (a tuple of several
            where it takes more).
        addresses: (targets,) the own address of each neuron.
        nodes: mask and target of the crossbar nodes that pass something to a bus; all others there
            drop.
    """

    events: list[int] | list[tuple[int, ...]]
    addresses: np.ndarray
    nodes: Mapping[Node, tuple[int, int]]


def crossbar(chip: Chip, nodes: Mapping[Node, tuple[int, int]]) -> np.ndarray:
    """(nodes, 4): those given; neurons to the host pass; all others drop."""
    drop = (0, (1 << chip.event_bits) - 1)
    entries = []
    for node in crossbar_nodes(chip):
        to_host = node[0] < chip.outputs and node[1] >= HEMISPHERES * chip.buses
        entries.append((*node, *nodes.get(node, (0, 0) if to_host else drop)))
    return np.array(entries, np.int32)


def record(
    task: Task,
    placement: Placement,
    codes: Codes,
    *,
    method: str,
    compare_masks: np.ndarray,
    row_modes: np.ndarray,
    synapses: np.ndarray,
) -> Run:
    """The run.

    Where replayed spikes come from is entered when all runs are known: `from_run` is -1 until then.
    """
    net = task.net

    def owner(index: int) -> tuple[int, int]:
        number = int(net.owner[index])
        return number, int(index - net.offsets[number])

    neurons = []
    for number, index in enumerate(task.targets):
        population, own = owner(int(index))
        neurons.append(
            PlacedNeuron(
                population=population,
                index=own,
                circuits=placement.circuits[number],
                head=0,
                address=int(codes.addresses[number]),
                recorded=True,
            )
        )
    sources = []
    for number, index in enumerate(task.sources):
        if task.on_chip[number] >= 0:
            continue
        population, own = owner(int(index))
        event = codes.events[number]
        sources.append(
            Source(
                population=population,
                index=own,
                from_run=None if net.external[index] else -1,
                events=event if isinstance(event, tuple) else (event,),
            )
        )
    return Run(
        method=method,
        neurons=tuple(neurons),
        sources=tuple(sources),
        compare_masks=compare_masks.astype(np.int32),
        row_modes=row_modes.astype(np.int8),
        synapses=synapses[np.lexsort(synapses[:, 2::-1].T)].astype(np.int32),
        crossbar=crossbar(placement.chip, codes.nodes),
    )


def units_of(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """(synapses of the chip,) each: the number of the net's synapse, and the part of its weight,
    the largest first.
    """
    largest = task.parts.chip.weight_max
    parts = synapses_of(task.weight)
    synapse = np.repeat(np.arange(len(parts)), parts)
    before = np.arange(len(synapse)) - np.repeat(np.cumsum(parts) - parts, parts)
    return synapse, np.minimum(np.abs(task.weight[synapse]) - largest * before, largest)


def rank_within(keys: np.ndarray) -> np.ndarray:
    """How many equal keys stand before each.

    >>> rank_within(np.array([7, 3, 7, 7])).tolist()
    [0, 0, 1, 2]
    """
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    rank = np.empty(len(keys), int)
    rank[order] = np.arange(len(keys)) - np.searchsorted(ordered, ordered, side="left")
    return rank


def fill(
    task: Task, placement: Placement, bins: Bins, found: Assignment, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the synapses of an assignment that does not overflow.

    Returns:
        (synapses, 5) as in `Run.synapses`, and (hemispheres, rows) row modes.
    """
    chip = placement.chip
    synapse, weight = units_of(task)
    source, neuron = task.pre[synapse], task.post[synapse]
    inhibits = (task.weight[synapse] < 0).astype(int)
    kinds = found.split.shape[1]
    kind = inhibits if kinds == 2 else np.zeros_like(inhibits)
    number = found.bins[source]
    key = (number * kinds + kind) * len(task.targets) + neuron
    side = _sides(placement, found, key, number, kind, neuron, found.modes[source])
    rank = rank_within(key * HEMISPHERES + side)
    count = placement.counts[side, neuron]
    columns = _columns(placement)[side, neuron, rank % count]
    place = rank // count + np.where(kind == 1, found.split[side, 0, number], 0)
    row = _row_table(chip, bins)[side, number, place]
    if kinds == 1:
        row = row + inhibits
    row_modes = np.full((HEMISPHERES, chip.rows), DISABLED, np.int8)
    row_modes[side, row] = np.where(inhibits, INHIBITORY, EXCITATORY)
    if kinds == 1:
        row_modes[side, row - inhibits] = EXCITATORY
        row_modes[side, row - inhibits + 1] = INHIBITORY
    return np.stack([side, row, columns, labels[source], weight], axis=1), row_modes


def _sides(
    placement: Placement,
    found: Assignment,
    key: np.ndarray,
    number: np.ndarray,
    kind: np.ndarray,
    neuron: np.ndarray,
    mode: np.ndarray,
) -> np.ndarray:
    """The hemisphere of each synapse; of sources that reach both, evenly where there is room."""
    size = int(key.max(initial=-1)) + 1
    single = [np.bincount(key[mode == side], minlength=size) for side in (TOP, BOTTOM)]
    room = [
        found.split[side, kind, number] * placement.counts[side, neuron] - single[side][key]
        for side in (0, 1)
    ]
    both = np.bincount(key[mode == EVERYWHERE], minlength=size)[key]
    even = both * room[TOP] // np.maximum(room[TOP] + room[BOTTOM], 1)
    top = np.clip(even, np.maximum(both - room[BOTTOM], 0), np.minimum(both, room[TOP]))
    rank = np.zeros(len(key), int)
    rank[mode == EVERYWHERE] = rank_within(key[mode == EVERYWHERE])
    return np.where(mode == EVERYWHERE, np.where(rank < top, TOP, BOTTOM), mode)


def _columns(placement: Placement) -> np.ndarray:
    """(hemispheres, targets, circuits) columns of the circuits of each neuron."""
    columns = np.zeros(
        (HEMISPHERES, len(placement.circuits), max(1, int(placement.counts.max(initial=1)))), int
    )
    for number, circuits in enumerate(placement.circuits):
        for side in range(HEMISPHERES):
            own = [column for row, column in circuits if row == side]
            columns[side, number, : len(own)] = own
    return columns


def _row_table(chip: Chip, bins: Bins) -> np.ndarray:
    """(hemispheres, bins, places) rows of the bins."""
    table = np.zeros((HEMISPHERES, chip.buses * bins.groups, chip.rows), int)
    for side, members in enumerate(bins.rows):
        for number, rows in enumerate(members):
            table[side, number, : len(rows)] = rows
    return table
