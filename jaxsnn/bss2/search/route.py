"""Routers choose addresses and synapse rows, so that each event reaches exactly its synapses.

An event is an address. On the way from its source to a neuron it is filtered four times:

    source -> crossbar node -> event bus -> synapse driver -> synapse row -> synapse -> neuron
              mask, target                  compare mask      mode (sign)    label

    address, highest bit first:   | link | filter bits | row select | label |

A crossbar node passes an event if address & mask == target. A driver accepts an event of its bus if
the row select equals the number of the driver on the bus, in the bits of the compare mask. A
synapse in an enabled row responds if its label equals that of the event. Two sources with equal
addresses on one bus are therefore indistinguishable, and a router has to find addresses for all
sources and rows for all synapses such that each synapse responds to its own source and no other.

The routers of this module use compare masks that look only at the lowest bits of the row select.
They split the drivers of every bus into 1, 2, 4, ... groups: `label_only` makes one group, so that
only labels distinguish the sources of a bus, and `mixed` tries several numbers of groups. A group
of a bus is a bin (see `jaxsnn.bss2.search.bins`). `_route_in_groups` then proceeds in six steps:

1. `_on_chip_modes`: the hemispheres that the events of neurons on the chip reach.
2. `assign`: a bin and hemispheres (the "mode") for each source.
3. `_labels`: a label for each source that is unique among those that reach the same drivers.
4. `_addresses`: the addresses of neurons, and the filters of the crossbar nodes.
5. `fill`: the hemisphere, row and column of each synapse.
6. `record`: the `Run`.

All routers have one signature, `Router`. Arrays:

    task.demand          (sources, kinds, targets)    synapses of the chip; kinds are excitatory and
                                                      inhibitory, or one kind if signs are free
    placement.counts     (hemispheres, targets)       circuits of each neuron
    assignment.bins      (sources,)                   bus * groups + group
    assignment.modes     (sources,)                   TOP, BOTTOM or EVERYWHERE
    assignment.split     (hemispheres, kinds, bins)   rows for each kind of synapse
    synapses             (synapses, 5)                hemisphere, row, column, label, weight
    row_modes            (hemispheres, rows)          disabled, excitatory or inhibitory
    crossbar             (nodes, 4)                   input, output, mask, target
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
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
from jaxsnn.bss2.search.strategies import Registry
from jaxsnn.bss2.search.task import Task, rank_within
from jaxsnn.wording import Text


@dataclass(frozen=True, kw_only=True)
class Effort:
    """Limits of a router.

    Attributes:
        repairs: Maximum number of moves of a source after all sources are assigned.
        deadline: Value of `time.monotonic()` at which the router stops.
    """

    repairs: int = 0
    deadline: float = math.inf


@dataclass(frozen=True, kw_only=True)
class Unrouted:
    """Failure of a router.

    Attributes:
        why: Reason, for messages.
        overflow: Number of synapses or labels without room; None if it is unknown.
    """

    why: str
    overflow: int | None = None


#: Signature of a router. `router(task, placement, rng, effort)` chooses addresses for all events of
#: a placed task and rows for all its synapses, so that each synapse responds to its own source and
#: to no other, and returns a run, built by `record`; or it returns the reason why it failed. All
#: random numbers come from `rng`.
Router = Callable[[Task, Placement, np.random.Generator, Effort], Run | Unrouted]


def label_only(
    task: Task, placement: Placement, rng: np.random.Generator, effort: Effort
) -> Run | Unrouted:
    """Route with one group of drivers per bus, so that the number of sources on a bus and hemisphere is
    at most the number of labels.
    """
    return _route_in_groups(task, placement, rng, effort, 1)


def mixed(
    task: Task, placement: Placement, rng: np.random.Generator, effort: Effort
) -> Run | Unrouted:
    """Route with groups of drivers, as few as possible: 1, 2 or 4 groups per bus, or more if there are
    too few labels.
    """
    best: Unrouted | None = None
    for groups in group_counts(task):
        result = _route_in_groups(task, placement, rng, effort, groups)
        if isinstance(result, Run):
            return result
        if best is None or (result.overflow or 0) < (best.overflow or 0):
            best = result
        if time.monotonic() > effort.deadline:
            break
    return best or Unrouted(why="the event buses cannot be split into groups of drivers")


#: Routers by name; `register_router` adds others, and so do entry points of "jaxsnn.routers".
ROUTERS: Registry[Router] = Registry(
    "router", "jaxsnn.routers", {"label-only": label_only, "mixed": mixed}
)


def register_router(name: str, function: Router) -> None:
    """Add a router, to be chosen by its name: `Portfolio(routers=[name])`, `jaxsnn map --router`.

    Args:
        name: for the command line.
        function: see `Router`.

    Raises:
        UsageError: another router has this name.
    """
    ROUTERS.register(name, function)


def group_counts(task: Task) -> tuple[int, ...]:
    """Return the numbers of groups into which a bus may be split.

    Neurons can reach every group if the groups differ only in bits of the row select that neurons
    can choose. More groups leave less room in each of them; they are used if fewer groups do not
    have enough labels for the sources.
    """
    chip = task.parts.chip
    free_bits = chip.address_bits - chip.label_bits
    labels = HEMISPHERES * chip.buses * chip.labels
    return tuple(
        1 << bits
        for bits in range((chip.drivers_per_bus - 1).bit_length() + 1)
        if bits <= free_bits or 2 * len(task.sources) > labels << bits - 1
    )


def _route_in_groups(
    task: Task, placement: Placement, rng: np.random.Generator, effort: Effort, groups: int
) -> Run | Unrouted:
    bins = bins_of(task.parts, task.signs, groups)
    overflow: int | None = None
    for modes in _on_chip_modes(task, placement, groups):
        assignment = assign(
            task,
            placement,
            bins,
            modes,
            rng,
            reserved=reserved_labels(task, placement, groups),
            repairs=effort.repairs,
            deadline=effort.deadline,
        )
        if assignment.overflow == 0:
            run = realise(task, placement, bins, assignment)
            if run is not None:
                return run
        overflow = assignment.overflow if overflow is None else min(overflow, assignment.overflow)
    if not overflow:
        return Unrouted(
            why=Text(
                "too few neuron addresses for {groups} groups of drivers per bus",
                groups=groups,
            )
        )
    why = Text(
        "synapses or labels without room: {overflow}, with {groups} groups of drivers per bus",
        overflow=overflow,
        groups=groups,
    )
    return Unrouted(why=why, overflow=overflow)


def realise(task: Task, placement: Placement, bins: Bins, assignment: Assignment) -> Run | None:
    """Return the run of an assignment that does not overflow; None if there are too few addresses
    for neurons without targets.
    """
    chip, groups = placement.chip, bins.groups
    labels = _labels(assignment)
    # Two filter bits, which mean "not to the top" and "not to the bottom" hemisphere.
    not_received = (1 << chip.event_bits - 1, 1 << chip.event_bits - 2)
    nodes = {
        (chip.link_input(link), chip.bus_output(h, link)): (not_received[h], 0)
        for link in range(chip.buses)
        for h in range(HEMISPHERES)
    }
    addresses = _addresses(task, placement, groups, assignment, labels, nodes)
    if addresses is None:
        return None
    events = [
        number // groups << chip.event_bits
        | sum(not_received[h] for h in range(HEMISPHERES) if mode not in (h, EVERYWHERE))
        | number % groups << chip.label_bits
        | label
        for number, mode, label in zip(
            assignment.bins.tolist(), assignment.modes.tolist(), labels.tolist(), strict=True
        )
    ]
    synapses, row_modes = fill(task, placement, bins, assignment, labels)
    return record(
        task,
        placement,
        events=[(event,) for event in events],
        addresses=addresses,
        nodes=nodes,
        method=f"{'label-only' if groups == 1 else 'mixed'}, {groups} groups",
        compare_masks=np.full((HEMISPHERES, chip.drivers), groups - 1),
        row_modes=row_modes,
        synapses=synapses,
    )


def _on_chip_modes(task: Task, placement: Placement, groups: int) -> list[np.ndarray]:
    """Return alternatives for the hemispheres that receive the events of neurons on the chip.

    The first alternative is both hemispheres for all neurons. In the second, neurons send to one
    hemisphere only if all their targets have circuits there; it depends on the half of the chip.
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
        # Without spare bits, the filters of an event output pass all of its sources, or none.
        outputs = placement.outputs[task.on_chip[sources]]
        for output in np.unique(outputs):
            members = sources[outputs == output]
            if (split[members] != split[members[0]]).any():
                split[members] = EVERYWHERE
    return [everywhere] if (split == everywhere).all() else [everywhere, split]


def reserved_labels(task: Task, placement: Placement, groups: int) -> np.ndarray:
    """Return the labels reserved for neurons without targets, (bins,): an event output passes the
    events of all its neurons.
    """
    reserved = np.zeros(placement.chip.buses * groups, int)
    if spare_bits(task, groups):
        return reserved
    sources = task.on_chip[task.on_chip >= 0]
    for output in np.unique(placement.outputs[sources]):
        silent = int(
            (placement.outputs == output).sum() - (placement.outputs[sources] == output).sum()
        )
        reached = reachable(placement.chip, int(output), groups)
        reserved[reached] += -(-silent // len(reached))
    return reserved


def spare_bits(task: Task, groups: int) -> int:
    """Return the number of bits of a neuron's local address that neither synapses nor drivers
    compare.
    """
    chip = task.parts.chip
    return max(0, chip.address_bits - chip.label_bits - (groups - 1).bit_length())


def _labels(assignment: Assignment) -> np.ndarray:
    """Return a label for each source, (sources,), different from all others that reach the same
    drivers.
    """
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
    groups: int,
    assignment: Assignment,
    labels: np.ndarray,
    nodes: dict[Node, tuple[int, int]],
) -> np.ndarray | None:
    """Return the local address of each neuron, (targets,), or None where there are too few; store
    the filters of its event output in `nodes`.

    Two spare bits of an address mean "not top" and "not bottom", a single one "not received". Without
    spare bits, neurons without targets on the chip use labels to which no synapse responds.
    """
    chip, spare = placement.chip, spare_bits(task, groups)
    addresses = np.full(len(task.targets), -1)
    top_bits = [1 << chip.address_bits - 1, 1 << chip.address_bits - (2 if spare >= 2 else 1)]
    flags = sum(set(top_bits)) if spare else 0
    is_used = np.zeros((HEMISPHERES, chip.buses * groups, chip.labels), bool)
    for number, mode in enumerate(assignment.modes):
        for h in range(HEMISPHERES):
            is_used[h, assignment.bins[number], labels[number]] |= mode in (h, EVERYWHERE)
    sources = np.flatnonzero(task.on_chip >= 0)
    for output in range(chip.outputs):
        bus = output % chip.buses
        behind = sources[placement.outputs[task.on_chip[sources]] == output]
        passes = [
            bool(((assignment.modes[behind] == h) | (assignment.modes[behind] == EVERYWHERE)).any())
            for h in range(HEMISPHERES)
        ]
        for source in behind:
            free = (1 << chip.address_bits - chip.label_bits) - 1
            group = int(assignment.bins[source]) % groups & free
            address = group << chip.label_bits | int(labels[source])
            if spare >= 2:
                address |= sum(
                    top_bits[h]
                    for h in range(HEMISPHERES)
                    if assignment.modes[source] not in (h, EVERYWHERE)
                )
            addresses[task.on_chip[source]] = address
        for h in range(HEMISPHERES):
            if passes[h]:
                nodes[output, chip.bus_output(h, bus)] = (top_bits[h] if spare else 0, 0)
        neurons = np.flatnonzero(placement.outputs == output)
        used = {int(address) for address in addresses[neurons]}
        for neuron in neurons[addresses[neurons] < 0]:
            address = _silent_address(chip, groups, output, passes, is_used, used, flags)
            if address is None:
                return None
            addresses[neuron] = address
            used.add(address)
    return addresses


def _silent_address(
    chip: Chip,
    groups: int,
    output: int,
    passes: list[bool],
    is_used: np.ndarray,
    used: set[int],
    flags: int,
) -> int | None:
    """Return an address that nothing on the chip receives, or that is unique on its bus."""
    unused = [address for address in range(1 << chip.address_bits) if address not in used]
    for address in unused:
        if not any(passes) or (flags and address & flags == flags):
            return address
    for address in unused:
        select = chip.row_select_of(output << chip.address_bits | address)
        number = (output % chip.buses) * groups + select % groups
        label = address & (chip.labels - 1)
        is_heard = any(passes[h] and is_used[h, number, label] for h in range(HEMISPHERES))
        if not address & flags and not is_heard:
            for h in range(HEMISPHERES):
                is_used[h, number, label] |= passes[h]
            return address
    return None


# -- synapses of a run


def fill(
    task: Task, placement: Placement, bins: Bins, assignment: Assignment, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the synapses of an assignment that does not overflow.

    Returns:
        (synapses, 5) as in `Run.synapses`, and (hemispheres, rows) row modes.
    """
    chip, counts = placement.chip, placement.counts
    synapse, weight = units_of(task)
    source, neuron = task.pre[synapse], task.post[synapse]
    inhibits = (task.weight[synapse] < 0).astype(int)
    kinds = assignment.split.shape[1]
    kind = inhibits if kinds == 2 else np.zeros_like(inhibits)
    number, mode = assignment.bins[source], assignment.modes[source]
    key = (number * kinds + kind) * len(task.targets) + neuron  # groups synapses that share slots

    # Hemisphere of each synapse; sources that reach both divide their synapses by the room there.
    size = int(key.max(initial=-1)) + 1
    room_top, room_bottom = (
        assignment.split[side, kind, number] * counts[side, neuron]
        - np.bincount(key[mode == side], minlength=size)[key]
        for side in (TOP, BOTTOM)
    )
    is_both = mode == EVERYWHERE
    both = np.bincount(key[is_both], minlength=size)[key]
    even = both * room_top // np.maximum(room_top + room_bottom, 1)
    top = np.clip(even, np.maximum(both - room_bottom, 0), np.minimum(both, room_top))
    rank = np.zeros(len(key), int)
    rank[is_both] = rank_within(key[is_both])
    side = np.where(is_both, np.where(rank < top, TOP, BOTTOM), mode)

    # Assign columns, then rows.
    columns = np.zeros(
        (HEMISPHERES, len(placement.circuits), max(1, int(counts.max(initial=1)))), int
    )
    for target, circuits in enumerate(placement.circuits):
        for hemisphere in range(HEMISPHERES):
            inside = [column for row, column in circuits if row == hemisphere]
            columns[hemisphere, target, : len(inside)] = inside
    rows = np.zeros((HEMISPHERES, chip.buses * bins.groups, chip.rows), int)
    for hemisphere, members in enumerate(bins.rows):
        for place, bin_rows in enumerate(members):
            rows[hemisphere, place, : len(bin_rows)] = bin_rows
    rank = rank_within(key * HEMISPHERES + side)
    count = counts[side, neuron]
    column = columns[side, neuron, rank % count]
    offset = np.where(kind == 1, assignment.split[side, 0, number], 0)
    row = rows[side, number, rank // count + offset]
    row_modes = np.full((HEMISPHERES, chip.rows), DISABLED, np.int8)
    if kinds == 2:
        row_modes[side, row] = np.where(inhibits, INHIBITORY, EXCITATORY)
    else:
        row_modes[side, row], row_modes[side, row + 1] = EXCITATORY, INHIBITORY
        row = row + inhibits
    return np.stack([side, row, column, labels[source], weight], axis=1), row_modes


def units_of(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Return for each synapse of the chip the number of the net's synapse, and its part of the
    weight, the largest first; (synapses of the chip,) each.
    """
    largest = task.parts.chip.weight_max
    parts = synapses_of(task.weight)
    synapse = np.repeat(np.arange(len(parts)), parts)
    before = np.arange(len(synapse)) - np.repeat(np.cumsum(parts) - parts, parts)
    return synapse, np.minimum(np.abs(task.weight[synapse]) - largest * before, largest)


def record(
    task: Task,
    placement: Placement,
    *,
    events: Sequence[tuple[int, ...]],
    addresses: np.ndarray,
    nodes: Mapping[Node, tuple[int, int]],
    method: str,
    compare_masks: np.ndarray,
    row_modes: np.ndarray,
    synapses: np.ndarray,
) -> Run:
    """Return the run. For replayed neurons, the numbers of the runs that recorded them are -1 until the
    search sets them.

    Args:
        task: Routed task.
        placement: Placement of its neurons.
        events: For each source, the addresses of the events that the host sends for a spike.
        addresses: (targets,) local address of each neuron.
        nodes: Mask and target of the crossbar nodes that pass events to a bus. The other nodes of
            buses drop all events; the nodes from neurons to the host pass all events.
        method: Name of the router and its choices, for the mapping file.
        compare_masks, row_modes, synapses: As in `Run`; synapses in any order.
    """
    net, chip = task.net, placement.chip
    population = net.owner.tolist()
    index = (np.arange(net.size) - net.offsets[net.owner]).tolist()
    neurons = tuple(
        PlacedNeuron(
            population=population[target],
            index=index[target],
            circuits=circuits,
            head=0,
            address=address,
            recorded=True,
        )
        for target, circuits, address in zip(
            task.targets.tolist(), placement.circuits, addresses.tolist(), strict=True
        )
    )
    sources = tuple(
        Source(
            population=population[source],
            index=index[source],
            from_run=None if net.external[source] else -1,
            events=events[number],
        )
        for number, source in enumerate(task.sources.tolist())
        if task.on_chip[number] < 0
    )
    drop = (0, (1 << chip.event_bits) - 1)
    crossbar = []
    for node in crossbar_nodes(chip):
        to_host = node[0] < chip.outputs and node[1] >= HEMISPHERES * chip.buses
        crossbar.append((*node, *nodes.get(node, (0, 0) if to_host else drop)))
    return Run(
        method=method,
        neurons=neurons,
        sources=sources,
        compare_masks=compare_masks.astype(np.int32),
        row_modes=row_modes.astype(np.int8),
        synapses=synapses[np.lexsort(synapses[:, 2::-1].T)].astype(np.int32),
        crossbar=np.array(crossbar, np.int32),
    )
