"""Puts each source into a bin: the one with the most room, then moved while something overflows."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from jaxsnn.bss2.search.bins import (
    BOTTOM,
    EVERYWHERE,
    TOP,
    Bins,
    Demand,
    Loads,
    best_split,
    reachable,
)
from jaxsnn.bss2.search.placement import Placement
from jaxsnn.bss2.search.task import Task

#: The part of all labels that sources which reach both hemispheres may take; the rest keeps bins
#: from being uneven.
_LABELS_USED = 0.9


def hopeless(task: Task, overflow: int) -> bool:
    """So much overflows that moving sources will not help."""
    return overflow > max(20, len(task.pre) // 500)


@dataclass(frozen=True, kw_only=True, eq=False)
class Assignment:
    """Where sources go.

    Attributes:
        bins: (sources,) the bin of each.
        modes: (sources,) TOP, BOTTOM or EVERYWHERE.
        split: (hemispheres, kinds, bins) slots of a circuit for each kind of synapse.
        overflow: by how much neurons and labels overflow: 0 where everything fits.
    """

    bins: np.ndarray
    modes: np.ndarray
    split: np.ndarray
    overflow: int


@dataclass(frozen=True, kw_only=True, eq=False)
class _Filled:
    """All sources in bins, some of which overflow; moving a source changes `loads`, `where` and
    `modes` in place.

    Attributes:
        task, placement, bins: what is routed.
        loads: how full the bins are.
        wanted: (sources,) what each needs.
        where, modes: (sources,) its bin, and the hemispheres that it reaches.
    """

    task: Task
    placement: Placement
    bins: Bins
    loads: Loads
    wanted: list[Demand]
    where: np.ndarray
    modes: np.ndarray


def demands(
    task: Task, placement: Placement, bins: Bins, on_chip_modes: np.ndarray
) -> list[Demand]:
    """What each source needs, and where it may go.

    Args:
        on_chip_modes: (sources,) which hemispheres those on the chip reach; others may go wherever
            all their targets are.
    """
    groups = bins.groups
    every = np.arange(placement.chip.buses * groups)
    in_both = placement.counts > 0
    found = []
    for number, amount in enumerate(task.demand):
        targets = np.flatnonzero(amount.any(axis=0))
        neuron = task.on_chip[number]
        if neuron >= 0:
            choices = reachable(placement.chip, int(placement.outputs[neuron]), groups)
            modes = (int(on_chip_modes[number]),)
        else:
            choices = every
            modes = (*(mode for mode in (TOP, BOTTOM) if in_both[mode, targets].all()), EVERYWHERE)
        found.append(Demand(targets=targets, amount=amount[:, targets], bins=choices, modes=modes))
    return found


def assign(
    task: Task,
    placement: Placement,
    bins: Bins,
    on_chip_modes: np.ndarray,
    rng: np.random.Generator,
    *,
    reserved: np.ndarray,
    repairs: int,
    deadline: float,
) -> Assignment:
    """Put each source of a run into a bin.

    Args:
        on_chip_modes: (sources,) which hemispheres sources on the chip reach.
        reserved: (bins,) labels that sources must leave in each hemisphere.
        repairs: how many sources may be moved once all are in.
        deadline: `time.monotonic()` at which moving stops.
    """
    loads = Loads(task, placement, bins, best_split(task, bins, None, placement))
    loads.labels -= reserved
    wanted = demands(task, placement, bins, on_chip_modes)
    short = sum(2 if demand.modes == (EVERYWHERE,) else 1 for demand in wanted) - int(
        loads.labels.sum()
    )
    if short > 0:
        nowhere = np.zeros(len(wanted), int)
        return Assignment(bins=nowhere, modes=nowhere, split=loads.split, overflow=short)
    where, modes = np.zeros(len(wanted), int), np.zeros(len(wanted), int)
    for number in _order(task, wanted, loads):
        demand = wanted[number]
        where[number], modes[number] = _best(loads, demand, demand.modes)
        loads.put(demand, where[number], modes[number])
    if loads.overflow() and task.signs == "fixed":
        loads.resplit(best_split(task, bins, loads, placement))
    if repairs and loads.overflow() and not hopeless(task, loads.overflow()):
        filled = _Filled(
            task=task,
            placement=placement,
            bins=bins,
            loads=loads,
            wanted=wanted,
            where=where,
            modes=modes,
        )
        _repair(filled, rng, repairs, deadline)
    return Assignment(bins=where, modes=modes, split=loads.split, overflow=loads.overflow())


def _order(task: Task, wanted: list[Demand], loads: Loads) -> list[int]:
    """Those with the least freedom first, then those with the most synapses.

    While labels last, sources reach both hemispheres: that takes two labels, and leaves the choice
    to each target. How many may be is counted first; these come last, for they fit best where
    little room is left.
    """
    size = [int(demand.amount.sum()) for demand in wanted]
    rank = {}
    labels = int(_LABELS_USED * loads.labels.sum())
    for demand in wanted:
        labels -= 2 if demand.modes == (EVERYWHERE,) else 1
    for number in sorted(range(len(wanted)), key=lambda number: size[number]):
        demand = wanted[number]
        if task.on_chip[number] >= 0:
            rank[number] = 0
        elif demand.modes == (EVERYWHERE,):
            rank[number] = 1
        elif labels > 0:
            labels -= 1
            rank[number] = 3
            wanted[number] = Demand(
                targets=demand.targets,
                amount=demand.amount,
                bins=demand.bins,
                modes=(EVERYWHERE, *demand.modes[:-1]),
            )
        else:
            rank[number] = 2
    room = np.maximum(loads.slack_sum.sum(axis=(0, 1)), 1)
    fullness = np.round(task.fan_in / room, 1)
    tight = [float(fullness[demand.targets].max(initial=0)) for demand in wanted]
    return sorted(
        range(len(wanted)),
        key=lambda number: (
            min(rank[number], 2),
            -tight[number],
            rank[number],
            -size[number],
            number,
        ),
    )


def _best(
    loads: Loads, demand: Demand, modes: tuple[int, ...], avoid: int | None = None
) -> tuple[int, int]:
    """The bin and mode that overflow least, then those with the least pressure; a mode at the front
    is preferred.
    """
    best = None
    for mode in modes:
        overflow, pressure = loads.price(demand, demand.bins, mode)
        if avoid is not None and len(demand.bins) > 1:
            overflow = np.where(demand.bins == avoid, np.inf, overflow)
        place = int(np.lexsort((pressure, overflow))[0])
        found = (float(overflow[place]), float(pressure[place]))
        if best is None or found < best[0]:
            best = found, int(demand.bins[place]), mode
        # what is preferred comes first: either EVERYWHERE, or the two hemispheres
        if best[0][0] == 0 and (mode == EVERYWHERE) == (modes[0] == EVERYWHERE) and mode != TOP:
            break
    if best is None:
        raise AssertionError("a source has at least one mode")
    return best[1], best[2]


def _repair(filled: _Filled, rng: np.random.Generator, repairs: int, deadline: float) -> None:
    """Move sources out of bins that overflow until none does (min-conflicts, with a few moves that
    do not help).
    """
    task, loads, where, modes = filled.task, filled.loads, filled.where, filled.modes
    current = loads.overflow()
    for step in range(repairs):
        if not current or time.monotonic() > deadline:
            return
        if task.signs == "fixed" and step % 100 == 99:
            loads.resplit(best_split(task, filled.bins, loads, filled.placement))
            current = loads.overflow()
            continue
        number = _culprit(filled, rng)
        if number is None:
            continue
        demand, before = filled.wanted[number], (int(where[number]), int(modes[number]))
        loads.put(demand, *before, sign=-1)
        after = _best(loads, demand, demand.modes, avoid=before[0])
        loads.put(demand, *after)
        changed = loads.overflow()
        if changed <= current or rng.random() < np.exp((current - changed) / 0.5):
            where[number], modes[number] = after
            current = changed
        else:
            loads.put(demand, *after, sign=-1)
            loads.put(demand, *before)


def _culprit(filled: _Filled, rng: np.random.Generator) -> int | None:
    """A source in a bin that overflows, one that can be moved and has synapses on a neuron that is
    too full.
    """
    loads, where, modes, demand = filled.loads, filled.where, filled.modes, filled.task.demand
    full_labels = np.argwhere(loads.labels < 0)
    full = np.argwhere(loads.slack_sum < 0)
    full_side = np.argwhere(loads.slack < 0)
    pick = int(rng.integers(len(full_labels) + len(full) + len(full_side)))
    if pick < len(full_labels):
        side, number = full_labels[pick]
        inside = np.flatnonzero((where == number) & ((modes == side) | (modes == EVERYWHERE)))
    elif pick < len(full_labels) + len(full):
        number, kind, neuron = full[pick - len(full_labels)]
        inside = np.flatnonzero((where == number) & (demand[:, kind, neuron] > 0))
    else:
        side, number, kind, neuron = full_side[pick - len(full_labels) - len(full)]
        here = (where == number) & (modes == side)
        inside = np.flatnonzero(here & (demand[:, kind, neuron] > 0))
    wanted = filled.wanted
    movable = [one for one in inside if len(wanted[one].bins) > 1 or len(wanted[one].modes) > 1]
    return int(movable[int(rng.integers(len(movable)))]) if movable else None
