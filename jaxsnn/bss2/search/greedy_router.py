"""The greedy rules of the vendor's release (grenade: GreedyPlacer, GreedyRouter), the baseline for
the others.

Synapses go to the circuit of their neuron with the fewest so far; the neurons behind one event
output are one group, as are as many external sources as have room on a bus; each group has drivers
of its own, told apart by row select and masks. An external source sends one event to each
hemisphere. Where signs are free, a weight takes both rows of a driver, which is what the vendor's
dense synapses come to if their number is even.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxsnn.bss2.chip import DISABLED, EXCITATORY, HEMISPHERES, INHIBITORY, ROWS_PER_DRIVER, Chip
from jaxsnn.bss2.mapping import Run
from jaxsnn.bss2.search.effort import Effort, Unrouted
from jaxsnn.bss2.search.greedy_drivers import DriverGroup, allocate
from jaxsnn.bss2.search.make_run import Codes, rank_within, record, units_of
from jaxsnn.bss2.search.placement import Placement
from jaxsnn.bss2.search.task import Task


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
    codes = Codes(events=events, addresses=addresses, nodes=nodes)
    return record(
        task,
        placement,
        codes,
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
