"""Routers: which events reach which synapses. All have one signature, `Router`: they make a run of a
placed task, or say why not.

`label_only` (compare mask 0: every driver of a bus sees all its events, synapses tell them apart)
and `mixed` (masks that split buses into groups of drivers) both put sources into bins.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
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
from jaxsnn.bss2.search.bins import (
    BOTTOM,
    EVERYWHERE,
    TOP,
    Assignment,
    Bins,
    assign,
    bins_of,
    reachable,
)
from jaxsnn.bss2.search.place import Placement
from jaxsnn.bss2.search.registry import Registry
from jaxsnn.bss2.search.task import Task, rank_within


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long a router may try.

    Attributes:
        repairs: moves of a source after all are placed.
        deadline: `time.monotonic()` at which it stops.
    """

    repairs: int = 0
    deadline: float = math.inf


@dataclass(frozen=True, kw_only=True)
class Unrouted:
    """A router found nothing.

    Attributes:
        why: for people.
        overflow: how many synapses or labels are too many; None where that is not known.
    """

    why: str
    overflow: int | None = None


#: A router: `router(task, placement, rng, effort)` gives all events of a placed task addresses, and
#: all its synapses rows, so that each responds to its own source and to no other; or it says why it
#: found nothing. `record` makes the run. What it draws, it draws from `rng`.
Router = Callable[[Task, Placement, np.random.Generator, Effort], Run | Unrouted]


def label_only(
    task: Task, placement: Placement, rng: np.random.Generator, effort: Effort
) -> Run | Unrouted:
    """One group of drivers a bus: up to as many sources on a bus and hemisphere as there are
    labels.
    """
    return _grouped(task, placement, rng, effort, 1)


def mixed(
    task: Task, placement: Placement, rng: np.random.Generator, effort: Effort
) -> Run | Unrouted:
    """Groups of drivers, the fewest that work: 1, 2 or 4 of them a bus, more where labels are too
    few.
    """
    best: Unrouted | None = None
    for groups in group_counts(task):
        found = _grouped(task, placement, rng, effort, groups)
        if isinstance(found, Run):
            return found
        if best is None or (found.overflow or 0) < (best.overflow or 0):
            best = found
        if time.monotonic() > effort.deadline:
            break
    return best or Unrouted(why="buses cannot be split")


def group_counts(task: Task) -> tuple[int, ...]:
    """Into how many groups a bus may be split.

    Neurons reach every group while these are told apart by the bits of the row select that are
    theirs to choose. More groups make their room smaller, and are for sources that are too many for
    the labels of fewer groups.
    """
    chip = task.parts.chip
    free_bits = chip.address_bits - chip.label_bits
    labels = HEMISPHERES * chip.buses * chip.labels
    return tuple(
        1 << bits
        for bits in range((chip.drivers_per_bus - 1).bit_length() + 1)
        if bits <= free_bits or 2 * len(task.sources) > labels << bits - 1
    )


def _grouped(
    task: Task, placement: Placement, rng: np.random.Generator, effort: Effort, groups: int
) -> Run | Unrouted:
    bins = bins_of(task.parts, task.signs, groups)
    least: Assignment | None = None
    for modes in _on_chip_modes(task, placement, groups):
        found = assign(
            task,
            placement,
            bins,
            modes,
            rng,
            reserved=_reserved(task, placement, groups),
            repairs=effort.repairs,
            deadline=effort.deadline,
        )
        if found.overflow == 0:
            labels = _labels(found)
            codes = label_codes(task, placement, bins, found, labels)
            if codes is not None:
                return _run(task, placement, bins, found, codes, labels)
        if least is None or found.overflow < least.overflow:
            least = found
    if least is None or not least.overflow:
        return Unrouted(
            why=f"addresses of neurons are too few for {groups} groups of drivers a bus"
        )
    why = f"{least.overflow} synapses or labels are too many for {groups} groups of drivers a bus"
    return Unrouted(why=why, overflow=least.overflow)


def _on_chip_modes(task: Task, placement: Placement, groups: int) -> list[np.ndarray]:
    """Which hemispheres sources on the chip may reach: both, or those of a half only one if that is
    enough.
    """
    chip = placement.chip
    sources = np.flatnonzero(task.on_chip >= 0)
    everywhere = np.full(len(task.sources), EVERYWHERE)
    if not len(sources):
        return [everywhere]
    split = everywhere.copy()
    for source in sources:
        neuron = task.on_chip[source]
        side = BOTTOM if chip.half_of(placement.circuits[neuron][0][1]) % 2 == 0 else TOP
        targets = np.flatnonzero(task.demand[source].any(axis=0))
        if (placement.counts[side, targets] > 0).all():
            split[source] = side
    if spare_bits(task, groups) < 2:
        # the nodes of an event output pass all its sources, or none
        outputs = placement.outputs[task.on_chip[sources]]
        for output in np.unique(outputs):
            members = sources[outputs == output]
            if (split[members] != split[members[0]]).any():
                split[members] = EVERYWHERE
    return [everywhere] if (split == everywhere).all() else [everywhere, split]


def _reserved(task: Task, placement: Placement, groups: int) -> np.ndarray:
    """(bins,) labels for neurons that nothing listens to: what an event output passes, it passes of
    all its neurons.
    """
    reserved = np.zeros(placement.chip.buses * groups, int)
    if spare_bits(task, groups):
        return reserved
    sources = task.on_chip[task.on_chip >= 0]
    for output in np.unique(placement.outputs[sources]):
        silent = int(
            (placement.outputs == output).sum() - (placement.outputs[sources] == output).sum()
        )
        own = reachable(placement.chip, int(output), groups)
        reserved[own] += -(-silent // len(own))
    return reserved


def spare_bits(task: Task, groups: int) -> int:
    """Bits of a neuron's own address that neither synapses nor drivers compare."""
    chip = task.parts.chip
    return max(0, chip.address_bits - chip.label_bits - (groups - 1).bit_length())


def label_codes(
    task: Task, placement: Placement, bins: Bins, assignment: Assignment, labels: np.ndarray
) -> Codes | None:
    """Labels, addresses and crossbar nodes of an assignment; None where an event output lacks
    addresses.
    """
    chip, groups = placement.chip, bins.groups
    group = assignment.bins % groups
    select = group << chip.label_bits
    not_received = (1 << chip.event_bits - 1, 1 << chip.event_bits - 2)
    events: list[int] = []
    for number, mode in enumerate(assignment.modes):
        flags = sum(not_received[h] for h in range(HEMISPHERES) if mode not in (h, EVERYWHERE))
        link = int(assignment.bins[number]) // groups
        events.append(link << chip.event_bits | flags | int(select[number]) | int(labels[number]))
    nodes = {
        (chip.link_input(link), chip.bus_output(h, link)): (not_received[h], 0)
        for link in range(chip.buses)
        for h in range(HEMISPHERES)
    }
    addresses = _addresses(task, placement, bins, assignment, labels, nodes)
    return None if addresses is None else Codes(events=events, addresses=addresses, nodes=nodes)


def _labels(assignment: Assignment) -> np.ndarray:
    """(sources,) a label for each, different from all others that reach the same drivers."""
    labels = np.zeros(len(assignment.bins), int)
    for number in np.unique(assignment.bins):
        inside = assignment.bins == number
        both = np.flatnonzero(inside & (assignment.modes == EVERYWHERE))
        labels[both] = np.arange(len(both))
        for mode in (TOP, BOTTOM):
            single = np.flatnonzero(inside & (assignment.modes == mode))
            labels[single] = len(both) + np.arange(len(single))
    return labels


def _addresses(
    task: Task,
    placement: Placement,
    bins: Bins,
    assignment: Assignment,
    labels: np.ndarray,
    nodes: dict[tuple[int, int], tuple[int, int]],
) -> np.ndarray | None:
    """(targets,) the own address of each neuron; enters into `nodes` what its event output passes.

    With two spare bits they say "not top" and "not bottom", with one "not received". Without,
    neurons that nothing on the chip listens to take labels where they do not disturb.
    """
    chip, spare = placement.chip, spare_bits(task, bins.groups)
    addresses = np.full(len(task.targets), -1)
    top_bits = [1 << chip.address_bits - 1, 1 << chip.address_bits - (2 if spare >= 2 else 1)]
    taken = np.zeros((HEMISPHERES, chip.buses * bins.groups, chip.labels), bool)
    for number, mode in enumerate(assignment.modes):
        for h in range(HEMISPHERES):
            taken[h, assignment.bins[number], labels[number]] |= mode in (h, EVERYWHERE)
    sources = np.flatnonzero(task.on_chip >= 0)
    for output in range(chip.outputs):
        bus = output % chip.buses
        mine = sources[placement.outputs[task.on_chip[sources]] == output]
        passes = [
            bool(((assignment.modes[mine] == h) | (assignment.modes[mine] == EVERYWHERE)).any())
            for h in (0, 1)
        ]
        for source in mine:
            free = (1 << chip.address_bits - chip.label_bits) - 1
            own = (int(assignment.bins[source]) % bins.groups & free) << chip.label_bits | int(
                labels[source]
            )
            if spare >= 2:
                own |= sum(
                    top_bits[h] for h in (0, 1) if assignment.modes[source] not in (h, EVERYWHERE)
                )
            addresses[task.on_chip[source]] = own
        for h in (0, 1):
            if passes[h]:
                nodes[output, chip.bus_output(h, bus)] = (top_bits[h] if spare else 0, 0)
        silent = [one for one in np.flatnonzero(placement.outputs == output) if addresses[one] < 0]
        used = {int(address) for address in addresses[placement.outputs == output]}
        for neuron in silent:
            address = _silent_address(
                chip, bins, output, passes, taken, used, sum(set(top_bits)) if spare else 0
            )
            if address is None:
                return None
            addresses[neuron] = address
            used.add(address)
    return addresses


def _silent_address(
    chip: Chip,
    bins: Bins,
    output: int,
    passes: list[bool],
    taken: np.ndarray,
    used: set[int],
    flags: int,
) -> int | None:
    """An address that nothing on the chip receives, or that no other source on its bus has."""
    for address in range(1 << chip.address_bits):
        if address in used:
            continue
        if not any(passes) or (flags and address & flags == flags):
            return address
    for address in range(1 << chip.address_bits):
        select = chip.row_select_of(output << chip.address_bits | address)
        number = (output % chip.buses) * bins.groups + select % bins.groups
        label = address & (chip.labels - 1)
        if (
            address in used
            or address & flags
            or any(passes[h] and taken[h, number, label] for h in range(HEMISPHERES))
        ):
            continue
        for h in range(HEMISPHERES):
            taken[h, number, label] |= passes[h]
        return address
    return None


def _run(
    task: Task,
    placement: Placement,
    bins: Bins,
    found: Assignment,
    codes: Codes,
    labels: np.ndarray,
) -> Run:
    masks = np.full((HEMISPHERES, placement.chip.drivers), bins.groups - 1, np.int32)
    synapses, row_modes = fill(task, placement, bins, found, labels)
    return record(
        task,
        placement,
        codes,
        method=f"{'label-only' if bins.groups == 1 else 'mixed'}, {bins.groups} groups",
        compare_masks=masks,
        row_modes=row_modes,
        synapses=synapses,
    )


#: Routers by name; `register_router` adds others, and so do entry points of "jaxsnn.routers".
ROUTERS: Registry[Router] = Registry(
    "router",
    "jaxsnn.routers",
    {"label-only": label_only, "mixed": mixed},
)


def register_router(name: str, function: Router) -> None:
    """Add a router, to be chosen by its name: `Portfolio(routers=[name])`, `jaxsnn map --router`.

    Args:
        name: for the command line.
        function: see `Router`.

    Raises:
        UsageError: the name is another router's.
    """
    ROUTERS.register(name, function)


# -- the record of a run


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
