"""The baseline of the mapping benchmark: the greedy rules of the vendor's release (grenade:
GreedyPlacer, GreedyRouter).

Synapses go to the circuit of their neuron with the fewest so far; the neurons behind one event
output are one group, as are as many external sources as have room on a bus; each group has drivers
of its own, told apart by row select and masks. An external source sends one event to each
hemisphere. Where signs are free, a weight takes both rows of a driver, which is what the vendor's
dense synapses come to if their number is even.

In no search of the tests and of the benchmark did these rules find a mapping where the library's
own placers and routers found none, so they are not part of the library. `register` adds both as
"vendor" and "greedy".
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jaxsnn.bss2.chip import DISABLED, EXCITATORY, HEMISPHERES, INHIBITORY, ROWS_PER_DRIVER, Chip
from jaxsnn.bss2.mapping import Run
from jaxsnn.bss2.search.place import Placement, register_placer
from jaxsnn.bss2.search.route import Effort, Unrouted, record, register_router, units_of
from jaxsnn.bss2.search.task import Task, rank_within

#: Combinations of row selects that are tried for the groups of one bus; the vendor's own search has
#: no bound.
_MOST_COMBINATIONS = 5_000


def register() -> None:
    """Make the baseline known to `place_and_route` and `jaxsnn map`."""
    register_placer("vendor", vendor_fit)
    register_router("greedy", route_greedily)


def vendor_fit(task: Task, counts: np.ndarray, rng: np.random.Generator) -> Placement | None:
    """Each neuron at the first anchor with all its circuits free, column after
    column.
    """
    chip, free = task.parts.chip, task.parts.circuits.copy()
    circuits = []
    for count in counts.tolist():
        shape = [(place % HEMISPHERES, place // HEMISPHERES) for place in range(count)]
        width = shape[-1][1] + 1
        anchors = itertools.product(
            range(HEMISPHERES if count == 1 else 1), range(chip.columns - width + 1)
        )
        for row, column in anchors:
            own = tuple((row + down, column + right) for down, right in shape)
            if chip.half_of(column) == chip.half_of(column + width - 1) and all(
                free[one] for one in own
            ):
                break
        else:
            return None
        for one in own:
            free[one] = False
        circuits.append(own)
    return Placement(chip=chip, circuits=tuple(circuits))


@dataclass(frozen=True, kw_only=True, eq=False)
class DriverGroup:
    """Sources that share drivers of one bus and hemisphere.

    Attributes:
        hemisphere, bus: where.
        members: positions in the task's sources, in the order of their labels; -1 for a neuron that
            is no source.
        rows: rows of each kind of synapse that its drivers need; drivers where signs are free.
        drivers: how many drivers that is.
        output: the event output of its neurons, None for external sources.
    """

    hemisphere: int
    bus: int
    members: tuple[int, ...]
    rows: tuple[int, ...]
    drivers: int
    output: int | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Units:
    """The synapses of the chip, in the order in which they are made.

    Attributes:
        source, weight, inhibits: of each; the weight without its sign.
        circuit: its circuit: hemisphere * columns + column.
    """

    source: np.ndarray
    weight: np.ndarray
    inhibits: np.ndarray
    circuit: np.ndarray


def route_greedily(
    task: Task, placement: Placement, rng: np.random.Generator, effort: Effort
) -> Run | Unrouted:
    """Route a run by the vendor's rules."""
    chip = placement.chip
    if chip.output_columns * HEMISPHERES > chip.labels:
        return Unrouted(why=f"an event output has more than {chip.labels} circuits")
    units = _circuits(task, placement)
    load = _loads(task, chip, units)
    groups = _internal(task, placement, load)
    external = _external(task, chip, load, groups)
    if isinstance(external, Unrouted):
        return external
    groups += external
    found = allocate(task, groups, effort)
    if isinstance(found, Unrouted):
        return found
    return _run(task, placement, units, groups, *found)


def _circuits(task: Task, placement: Placement) -> Units:
    """Each synapse on the circuit of its neuron that has the fewest: in turn, projection by
    projection.
    """
    synapse, weight = units_of(task)
    source, neuron = task.pre[synapse], task.post[synapse]
    inhibits = (task.weight[synapse] < 0).astype(int)
    projection = task.net.owner[task.sources[source]]
    part = rank_within(synapse)
    order = np.lexsort(
        (source, part, inhibits if task.signs == "fixed" else 0 * inhibits, projection, neuron)
    )
    source, neuron, inhibits, weight = source[order], neuron[order], inhibits[order], weight[order]
    columns = placement.chip.columns
    flat = [[row * columns + column for row, column in circuits] for circuits in placement.circuits]
    table = np.zeros((len(flat), max([1, *map(len, flat)])), int)
    for number, own in enumerate(flat):
        table[number, : len(own)] = own
    count = placement.counts.sum(axis=0)[neuron]
    circuit = table[neuron, rank_within(neuron) % np.maximum(count, 1)]
    return Units(source=source, weight=weight, inhibits=inhibits, circuit=circuit)


def _loads(task: Task, chip: Chip, units: Units) -> np.ndarray:
    """(sources, hemispheres, kinds, columns) synapses of each source on each circuit."""
    kinds = 1 if task.signs == "free" else 2
    load = np.zeros((len(task.sources), HEMISPHERES, kinds, chip.columns), np.int32)
    kind = units.inhibits if kinds == 2 else 0 * units.inhibits
    np.add.at(
        load, (units.source, units.circuit // chip.columns, kind, units.circuit % chip.columns), 1
    )
    return load


def _needs(load: np.ndarray) -> tuple[tuple[int, ...], int]:
    """Rows of each kind, and drivers, for a group with (kinds, columns) synapses."""
    rows = tuple(int(most) for most in load.max(axis=1))
    return rows, rows[0] if len(rows) == 1 else -(-sum(rows) // ROWS_PER_DRIVER)


def _internal(task: Task, placement: Placement, load: np.ndarray) -> list[DriverGroup]:
    """The groups of neurons: all behind one event output."""
    groups = []
    source_of = {int(neuron): number for number, neuron in enumerate(task.on_chip) if neuron >= 0}
    for output in range(placement.chip.outputs):
        members = tuple(
            source_of.get(int(one), -1) for one in np.flatnonzero(placement.outputs == output)
        )
        sources = [one for one in members if one >= 0]
        for hemisphere in range(HEMISPHERES):
            rows, drivers = _needs(load[sources, hemisphere].sum(axis=0)) if sources else ((), 0)
            if drivers:
                bus = output % placement.chip.buses
                groups.append(
                    DriverGroup(
                        hemisphere=hemisphere,
                        bus=bus,
                        members=members,
                        rows=rows,
                        drivers=drivers,
                        output=output,
                    )
                )
    return groups


def _external(
    task: Task, chip: Chip, load: np.ndarray, internal: list[DriverGroup]
) -> list[DriverGroup] | Unrouted:
    """The groups of external sources: on each bus in turn, as many as have room beside the
    neurons'.
    """
    groups = []
    every = np.flatnonzero(task.on_chip < 0)
    for hemisphere in range(HEMISPHERES):
        waiting = [int(one) for one in every if load[one, hemisphere].any()]
        for bus in range(chip.buses):
            taken = sum(
                one.drivers for one in internal if (one.hemisphere, one.bus) == (hemisphere, bus)
            )
            free = int(task.parts.drivers[hemisphere, bus :: chip.buses].sum()) - taken
            if free < 0:
                where = f"bus {bus} of hemisphere {hemisphere}"
                return Unrouted(
                    why=f"greedy: neurons need {taken} drivers on {where}, it has {taken + free}"
                )
            while waiting:
                members, total = [], np.zeros(load.shape[2:], np.int32)
                while waiting and len(members) < chip.labels:
                    more = total + load[waiting[0], hemisphere]
                    if _needs(more)[1] > free:
                        break
                    members.append(waiting.pop(0))
                    total = more
                if not members:
                    break
                rows, drivers = _needs(total)
                free -= drivers
                groups.append(
                    DriverGroup(
                        hemisphere=hemisphere,
                        bus=bus,
                        members=tuple(members),
                        rows=rows,
                        drivers=drivers,
                        output=None,
                    )
                )
        if waiting:
            left = f"{len(waiting)} sources are left without drivers"
            return Unrouted(why=f"greedy: {left} in hemisphere {hemisphere}")
    return groups


def _run(
    task: Task,
    placement: Placement,
    units: Units,
    groups: list[DriverGroup],
    selects: list[int],
    drivers: list[dict[int, int]],
) -> Run:
    chip = placement.chip
    events: list[tuple[int, ...]] = [()] * len(task.sources)
    group_of = np.full((HEMISPHERES, len(task.sources)), -1)
    labels = np.zeros((HEMISPHERES, len(task.sources)), int)
    # neurons behind an output that nothing listens to are told apart all the same, for the host
    addresses = rank_within(placement.outputs)
    not_top = 1 << chip.event_bits - 1
    nodes = {
        (chip.link_input(link), chip.bus_output(h, link)): (not_top, h * not_top)
        for link in range(chip.buses)
        for h in range(HEMISPHERES)
    }
    for number, one in enumerate(groups):
        for label, member in enumerate(one.members):
            if member >= 0:
                group_of[one.hemisphere, member], labels[one.hemisphere, member] = number, label
            if one.output is None:
                high = one.bus << chip.event_bits | one.hemisphere * not_top
                events[member] += (high | selects[number] << chip.label_bits | label,)
        if one.output is not None:
            nodes[one.output, chip.bus_output(one.hemisphere, one.bus)] = (0, 0)
            behind = np.flatnonzero(placement.outputs == one.output)
            low = selects[number] & ((1 << chip.address_bits - chip.label_bits) - 1)
            addresses[behind] = low << chip.label_bits | np.arange(len(behind))
    masks = np.full((HEMISPHERES, chip.drivers), (1 << chip.row_select_bits) - 1)
    for one, own in zip(groups, drivers, strict=True):
        for driver, mask in own.items():
            masks[one.hemisphere, driver] = mask
    synapses, modes = _fill(task, chip, units, groups, drivers, group_of, labels)
    return record(
        task,
        placement,
        events=events,
        addresses=addresses,
        nodes=nodes,
        method="greedy",
        compare_masks=masks,
        row_modes=modes,
        synapses=synapses,
    )


def _fill(
    task: Task,
    chip: Chip,
    units: Units,
    groups: list[DriverGroup],
    drivers: list[dict[int, int]],
    group_of: np.ndarray,
    labels: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Each circuit fills rows of a group in the order of its synapses, excitatory rows first."""
    side = units.circuit // chip.columns
    group = group_of[side, units.source]
    free = task.signs == "free"
    kind = 0 * units.inhibits if free else units.inhibits
    rank = rank_within((group * 2 + kind) * chip.circuits + units.circuit)
    table = np.zeros((len(groups), chip.rows), int)
    modes = np.full((HEMISPHERES, chip.rows), DISABLED, np.int8)
    excitatory = np.zeros(len(groups), int)
    for number, (one, own) in enumerate(zip(groups, drivers, strict=True)):
        rows = [
            row
            for driver in sorted(own)
            for row in (ROWS_PER_DRIVER * driver, ROWS_PER_DRIVER * driver + 1)
        ]
        if free:
            modes[one.hemisphere, rows[::2]], modes[one.hemisphere, rows[1::2]] = (
                EXCITATORY,
                INHIBITORY,
            )
            rows = rows[::2]
        else:
            excitatory[number] = one.rows[0]
            modes[one.hemisphere, rows[: one.rows[0]]] = EXCITATORY
            modes[one.hemisphere, rows[one.rows[0] : sum(one.rows)]] = INHIBITORY
        table[number, : len(rows)] = rows
    row = table[group, rank + kind * excitatory[group]] + (units.inhibits if free else 0)
    column = units.circuit % chip.columns
    return np.stack([side, row, column, labels[side, units.source], units.weight], axis=1), modes


# -- which drivers of a bus belong to which group


def allocate(
    task: Task, groups: list[DriverGroup], effort: Effort
) -> tuple[list[int], list[dict[int, int]]] | Unrouted:
    """The row select of each group, and its drivers with their masks."""
    chip = task.parts.chip
    selects = [0] * len(groups)
    drivers: list[dict[int, int]] = [{} for _ in groups]
    for bus in range(chip.buses):
        outputs = sorted(
            {one.output for one in groups if one.bus == bus and one.output is not None}
        )
        found = None
        for own in _internal_selects(chip, outputs):
            if time.monotonic() > effort.deadline:
                return Unrouted(why="greedy: time is up while drivers are allocated")
            sides = [
                _allocate_side(task, groups, hemisphere, bus, own)
                for hemisphere in range(HEMISPHERES)
            ]
            if all(side is not None for side in sides):
                found = sides
                break
        if found is None:
            return Unrouted(why=f"greedy: no row selects tell the groups of bus {bus} apart")
        for side in found:
            for number, (select, masks) in (side or {}).items():
                selects[number], drivers[number] = select, masks
    return selects, drivers


def _internal_selects(chip: Chip, outputs: list[int]) -> Iterator[dict[int, int]]:
    """Row selects that the neurons of event outputs can have, the same in both hemispheres."""
    free_bits = chip.row_select_bits - chip.output_bits
    choices = [[output << free_bits | low for low in range(1 << free_bits)] for output in outputs]
    for chosen in itertools.product(*choices):
        yield dict(zip(outputs, chosen, strict=True))


def _allocate_side(
    task: Task, groups: list[DriverGroup], hemisphere: int, bus: int, own: dict[int, int]
) -> dict[int, tuple[int, dict[int, int]]] | None:
    """Row select and drivers of the groups of one bus; None where no row selects of external ones
    do.
    """
    chip = task.parts.chip
    mine = [
        number
        for number, one in enumerate(groups)
        if (one.hemisphere, one.bus) == (hemisphere, bus)
    ]
    choices = [
        range(1 << chip.row_select_bits)
        if groups[number].output is None
        else (own[groups[number].output or 0],)
        for number in mine
    ]
    alive = np.array(
        [
            bool(task.parts.drivers[hemisphere, chip.driver_at(bus, k)])
            for k in range(chip.drivers_per_bus)
        ]
    )
    sizes = [groups[number].drivers for number in mine]
    for selects in itertools.islice(itertools.product(*choices), _MOST_COMBINATIONS):
        if len(set(selects)) < len(selects):
            continue
        taken = _divide(usable(selects, chip) & alive, sizes)
        if taken is not None:
            return {
                number: (
                    selects[place],
                    {
                        chip.driver_at(bus, k): mask_of(selects, place, k, chip)
                        for k in taken[place]
                    },
                )
                for place, number in enumerate(mine)
            }
    return None


def usable(selects: tuple[int, ...], chip: Chip) -> np.ndarray:
    """(groups, drivers of a bus) bool: some mask lets the driver accept one group's events and no
    other's.
    """
    index = np.arange(chip.drivers_per_bus)
    found = np.ones((len(selects), chip.drivers_per_bus), bool)
    for place, own in enumerate(selects):
        for other in selects:
            if other != own:
                found[place] &= (
                    (own ^ other) & ~(index ^ own) & ((1 << chip.row_select_bits) - 1)
                ) != 0
    return found


def mask_of(selects: tuple[int, ...], place: int, index: int, chip: Chip) -> int:
    """The smallest mask by which a driver accepts one group's events and no other's."""
    own = selects[place]
    for mask in range(1 << chip.row_select_bits):
        others = (other for number, other in enumerate(selects) if number != place)
        if own & mask == index & mask and all(other & mask != own & mask for other in others):
            return mask
    raise AssertionError("only usable drivers are asked for")


def _divide(allowed: np.ndarray, sizes: list[int]) -> list[list[int]] | None:
    """Drivers for each group: the first group in order for which Hall's condition still holds for
    the rest.
    """
    left, taken = list(sizes), [[] for _ in sizes]
    if not _hall(allowed, left):
        return None
    for index in range(allowed.shape[1]):
        rest = allowed[:, index + 1 :]
        for place in range(len(sizes)):
            if allowed[place, index] and left[place]:
                left[place] -= 1
                if _hall(rest, left):
                    taken[place].append(index)
                    break
                left[place] += 1
    return taken


def _hall(allowed: np.ndarray, sizes: list[int]) -> bool:
    """Every set of groups has at least as many drivers as it needs."""
    wanting = [place for place, size in enumerate(sizes) if size]
    return all(
        allowed[list(some)].any(axis=0).sum() >= sum(sizes[place] for place in some)
        for count in range(1, len(wanting) + 1)
        for some in itertools.combinations(wanting, count)
    )
