"""All mappings of one run on a chip small enough: a run, or the proof that there is none.

For chips with one bus in each hemisphere. Assumed: each weight has synapses of its own, to which
nothing else responds, a source sends at most one event to a bus, and all neurons are recorded, so
that their addresses differ. Tried are all circuits of all neurons, all addresses, all filters of
the crossbar, all codes of sources in each hemisphere, all compare masks and all row signs. Sets of
sources are integers, bit i for source i.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Iterator, Sequence

import numpy as np

from jaxsnn.bss2.chip import DISABLED, EXCITATORY, HEMISPHERES, INHIBITORY, ROWS_PER_DRIVER, Circuit
from jaxsnn.bss2.mapping import Run
from jaxsnn.bss2.netlist import synapses_of
from jaxsnn.bss2.search.feasibility import Certificate
from jaxsnn.bss2.search.hemisphere_settings import HemisphereSetting, settings_of
from jaxsnn.bss2.search.make_run import Codes, record, units_of
from jaxsnn.bss2.search.placement import Placement
from jaxsnn.bss2.search.task import Task

_MOST_CIRCUITS, _MOST_CODES, _MOST_DRIVERS = 4, 4, 2


def is_small(task: Task) -> bool:
    """Whether all mappings of a run can be tried."""
    chip = task.parts.chip
    small = chip.circuits <= _MOST_CIRCUITS and chip.drivers_per_bus <= _MOST_DRIVERS
    return (
        small and chip.outputs == 1 and 1 << chip.label_bits + chip.row_select_bits <= _MOST_CODES
    )


def search(task: Task, deadline: float) -> Run | Certificate | None:
    """A run, a proof that there is none, or None where time is up (`deadline` as of
    `time.monotonic()`).
    """
    needs = _needs(task)
    for addresses in _addresses(task):
        settings = settings_of(task, addresses)
        for circuits in _placements(task):
            if time.monotonic() > deadline:
                return None
            found = _settings(task, needs, circuits, settings)
            if found is not None:
                return _run(task, circuits, addresses, *found)
    names = ", ".join(
        f"'{task.net.populations[number].name}'"
        for number in dict.fromkeys(task.population.tolist())
    )
    return Certificate(
        resource="all mappings",
        where=names,
        needed=None,
        available=None,
        message=f"none of all mappings of {names} in one run gives each synapse a row that only "
        "its source reaches",
        fix="allow max_runs=2 or more, or remove synapses",
    )


def _needs(task: Task) -> list[list[tuple[int, int, int]]]:
    """For each neuron (source, kind, synapses); kind 0 is excitatory, or either where signs are
    free.
    """
    kinds = np.zeros(len(task.pre), int) if task.signs == "free" else (task.weight < 0).astype(int)
    needs: list[list[tuple[int, int, int]]] = [[] for _ in task.targets]
    for source, target, kind, units in zip(
        task.pre, task.post, kinds, synapses_of(task.weight), strict=True
    ):
        needs[int(target)].append((int(source), int(kind), int(units)))
    return needs


def _addresses(task: Task) -> Iterator[tuple[int, ...]]:
    """All different addresses of the neurons; one choice where nothing on the chip listens."""
    every = itertools.permutations(range(1 << task.parts.chip.address_bits), len(task.targets))
    yield from every if (task.on_chip >= 0).any() else itertools.islice(every, 1)


def _placements(task: Task) -> list[tuple[tuple[Circuit, ...], ...]]:
    """One placement for each way to give the neurons circuits in both hemispheres (columns are
    alike).
    """
    chip = task.parts.chip
    free = [
        (row, column)
        for row in range(HEMISPHERES)
        for column in range(chip.columns)
        if task.parts.circuits[row, column]
    ]
    found: dict[tuple[tuple[int, int], ...], tuple[tuple[Circuit, ...], ...]] = {}
    for owners in itertools.product(range(-1, len(task.targets)), repeat=len(free)):
        own = tuple(
            tuple(circuit for circuit, owner in zip(free, owners, strict=True) if owner == number)
            for number in range(len(task.targets))
        )
        if all(circuits and _connected(circuits) for circuits in own):
            tops = (sum(row == 0 for row, _ in circuits) for circuits in own)
            found.setdefault(
                tuple((top, len(own[place]) - top) for place, top in enumerate(tops)), own
            )
    return list(found.values())


def _connected(circuits: Sequence[Circuit]) -> bool:
    reached, rest = [circuits[0]], list(circuits[1:])
    while near := [
        one
        for one in rest
        if any(abs(one[0] - row) + abs(one[1] - column) == 1 for row, column in reached)
    ]:
        reached += near
        rest = [one for one in rest if one not in near]
    return not rest


Split = tuple[tuple[int, ...], ...]


def _splits(task: Task, hemisphere: int) -> list[Split]:
    """For each kind of synapse, the rows of each driver that have it: all divisions of the rows
    that work.
    """
    if task.signs == "free":
        return [(tuple(int(works) for works in task.parts.drivers[hemisphere]),)]
    rows = task.parts.rows[hemisphere].reshape(-1, ROWS_PER_DRIVER).sum(axis=1).tolist()
    choices = itertools.product(*(range(size + 1) for size in rows))
    return [
        (first, tuple(size - one for size, one in zip(rows, first, strict=True)))
        for first in choices
    ]


def _settings(
    task: Task,
    needs: list[list[tuple[int, int, int]]],
    circuits: tuple[tuple[Circuit, ...], ...],
    settings: list[HemisphereSetting],
) -> tuple[tuple[HemisphereSetting, HemisphereSetting], tuple[Split, Split]] | None:
    """Settings of both hemispheres with which all neurons have what they need."""
    counts = [
        (sum(row == 0 for row, _ in own), sum(row == 1 for row, _ in own)) for own in circuits
    ]
    wanted = [
        functools.reduce(int.__or__, (1 << source for source, _, _ in need), 0) for need in needs
    ]
    reached = np.array([one.reached for one in settings])
    pairs = np.ones((len(settings), len(settings)), bool)
    for (top, bottom), want in zip(counts, wanted, strict=True):
        both = (reached[:, None] if top else 0) | (reached[None, :] if bottom else 0)
        pairs &= both & want == want
    splits = [_splits(task, hemisphere) for hemisphere in range(HEMISPHERES)]

    @functools.cache
    def enough(neuron: int, alone: tuple[int, ...], rows: Split) -> bool:
        return _hall(needs[neuron], alone, rows)

    def all_enough(
        top: HemisphereSetting, bottom: HemisphereSetting, rows: tuple[Split, Split]
    ) -> bool:
        for neuron, count in enumerate(counts):
            alone = tuple(one & wanted[neuron] for one in (*top.alone, *bottom.alone))
            capacity = tuple(
                (*(count[0] * size for size in upper), *(count[1] * size for size in lower))
                for upper, lower in zip(*rows, strict=True)
            )
            if not enough(neuron, alone, capacity):
                return False
        return True

    for top, bottom in np.argwhere(pairs).tolist():
        for rows in itertools.product(*splits):
            if all_enough(settings[top], settings[bottom], (rows[0], rows[1])):
                return (settings[top], settings[bottom]), (rows[0], rows[1])
    return None


def _hall(need: list[tuple[int, int, int]], alone: tuple[int, ...], capacity: Split) -> bool:
    """Whether every set of drivers has room for the synapses that only these drivers can have
    (Hall's condition).
    """
    drivers = range(len(alone))
    for kind, rows in enumerate(capacity):
        own = [(source, units) for source, of, units in need if of == kind]
        where = [
            sum(1 << driver for driver in drivers if alone[driver] >> source & 1 and rows[driver])
            for source, _ in own
        ]
        for some in range(1 << len(alone)):
            asked = sum(
                units for (_, units), place in zip(own, where, strict=True) if place & ~some == 0
            )
            if asked > sum(rows[driver] for driver in drivers if some >> driver & 1):
                return False
    return True


def _run(
    task: Task,
    circuits: tuple[tuple[Circuit, ...], ...],
    addresses: tuple[int, ...],
    settings: tuple[HemisphereSetting, HemisphereSetting],
    splits: tuple[Split, Split],
) -> Run:
    chip = task.parts.chip
    not_received = (1 << chip.event_bits - 1, 1 << chip.event_bits - 2)
    nodes = {
        (chip.link_input(0), chip.bus_output(h, 0)): (not_received[h], 0)
        for h in range(HEMISPHERES)
    }
    codes = [dict(one.codes) for one in settings]
    for source in np.flatnonzero(task.on_chip >= 0).tolist():
        for own in codes:
            own[source] = addresses[task.on_chip[source]]
    events: list[tuple[int, ...]] = []
    for source in range(len(task.sources)):
        top, bottom = (codes[h].get(source) for h in range(HEMISPHERES))
        if top == bottom and top is not None:
            events.append((top,))
        else:
            singles = ((top, not_received[1]), (bottom, not_received[0]))
            events.append(tuple(flag | code for code, flag in singles if code is not None))
    for h, one in enumerate(settings):
        if one.passing is not None:
            nodes[0, chip.bus_output(h, 0)] = one.passing
    synapses, modes = _synapses(task, circuits, settings, splits, codes)
    return record(
        task,
        Placement(chip=chip, circuits=circuits),
        Codes(events=events, addresses=np.array(addresses), nodes=nodes),
        method="exhaustive",
        compare_masks=np.array([one.masks for one in settings]),
        row_modes=modes,
        synapses=synapses,
    )


def _synapses(
    task: Task,
    circuits: tuple[tuple[Circuit, ...], ...],
    settings: tuple[HemisphereSetting, HemisphereSetting],
    splits: tuple[Split, Split],
    codes: list[dict[int, int]],
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of all synapses: each is given a free place, others moving where it needs
    theirs.
    """
    chip, free = task.parts.chip, task.signs == "free"
    modes = np.full((HEMISPHERES, chip.rows), DISABLED, np.int8)
    rows: dict[tuple[int, int, int], list[int]] = {}
    for h, driver in itertools.product(range(HEMISPHERES), range(chip.drivers)):
        alive = [
            ROWS_PER_DRIVER * driver + k
            for k in range(ROWS_PER_DRIVER)
            if task.parts.rows[h, ROWS_PER_DRIVER * driver + k]
        ]
        first = splits[h][0][driver]
        if free:
            rows[h, driver, 0] = alive[:1] if first else []
            modes[h, alive if first else []] = (EXCITATORY, INHIBITORY) if first else ()
        else:
            rows[h, driver, 0], rows[h, driver, 1] = alive[:first], alive[first:]
            modes[h, alive[:first]], modes[h, alive[first:]] = EXCITATORY, INHIBITORY
    units, weights = units_of(task)
    found = []
    for neuron, own in enumerate(circuits):
        mine = np.flatnonzero(task.post[units] == neuron).tolist()
        options = []
        for unit in mine:
            source, kind = (
                int(task.pre[units[unit]]),
                0 if free else int(task.weight[units[unit]] < 0),
            )
            options.append(
                [
                    (h, row, column)
                    for h, column in own
                    for driver in range(chip.drivers)
                    if settings[h].alone[driver] >> source & 1
                    for row in rows[h, driver, kind]
                ]
            )
        for unit, (h, row, column) in zip(mine, _matched(options), strict=True):
            source, inhibits = int(task.pre[units[unit]]), bool(task.weight[units[unit]] < 0)
            label = codes[h][source] & (chip.labels - 1)
            found.append((h, row + (free and inhibits), column, label, int(weights[unit])))
    return np.array(found, int).reshape(-1, 5), modes


def _matched(options: list[list[tuple[int, int, int]]]) -> list[tuple[int, int, int]]:
    """A place of its own for each, by augmenting paths; there is one, by Hall's condition."""
    owner: dict[tuple[int, int, int], int] = {}

    def give(one: int, seen: set[tuple[int, int, int]]) -> bool:
        for place in options[one]:
            if place not in seen:
                seen.add(place)
                if place not in owner or give(owner[place], seen):
                    owner[place] = one
                    return True
        return False

    for one in range(len(options)):
        if not give(one, set()):
            raise AssertionError("Hall's condition held")
    places = {one: place for place, one in owner.items()}
    return [places[one] for one in range(len(options))]
