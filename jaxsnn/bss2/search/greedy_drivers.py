"""Which drivers of a bus belong to which group of sources, each told apart by its row select: the
vendor's rules.

A driver accepts a group's events and no other's where some mask lets it; the groups share the
drivers out such that each has as many as it needs (Hall's condition).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jaxsnn.bss2.chip import HEMISPHERES, Chip
from jaxsnn.bss2.search.effort import Effort, Unrouted
from jaxsnn.bss2.search.task import Task

#: Combinations of row selects that are tried for the groups of one bus; the vendor's own search has
#: no bound.
_MOST_COMBINATIONS = 5_000


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
