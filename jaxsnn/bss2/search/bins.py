"""Assign sources to bins, in which counting alone decides whether all synapses find a row.

Compare masks that look only at the lowest bits of the row select split the synapse drivers of each
bus into 1, 2, 4, ... groups. A bin is one group of one bus, in both hemispheres, such as bin 5 of
4 buses with 2 groups each:

    bin number = bus * groups + group                  5 = 2 * 2 + 1

    bus                          0             1             2             3
    hemisphere 0 (top)       | 0 | 1 |     | 2 | 3 |     | 4 | 5 |     | 6 | 7 |
    hemisphere 1 (bottom)    | 0 | 1 |     | 2 | 3 |     | 4 | 5 |     | 6 | 7 |

Each source is put into one bin, with a mode: its events reach the top hemisphere, the bottom one,
or both. Each of its synapses then takes a slot: a row of the bin in the column of a circuit of the
target neuron. A neuron on which a synapses come from sources that reach only the top, b only the
bottom and c both has room for them if and only if a <= top slots, b <= bottom slots and
a + b + c <= all slots (Hall's condition). The assignment is greedy, the most constrained sources
first; then sources are moved out of bins that overflow.

    split      (hemispheres, kinds, bins)            rows for each kind of synapse; kinds are
                                                     excitatory and inhibitory, or one if signs are
                                                     free
    slack      (hemispheres, bins, kinds, targets)   free slots for sources that reach only one
                                                     hemisphere
    slack_sum  (bins, kinds, targets)                free slots for all sources
    labels     (hemispheres, bins)                   free labels
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from jaxsnn.bss2.chip import HEMISPHERES, ROWS_PER_DRIVER, Chip
from jaxsnn.bss2.search.place import Placement
from jaxsnn.bss2.search.task import ChipParts, Task

#: Hemispheres that the events of a source reach.
TOP, BOTTOM, EVERYWHERE = 0, 1, 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Bins:
    """Bins of a chip: bin number = bus * groups + group.

    Attributes:
        groups: Number of groups of drivers per bus, a power of two.
        rows: For each hemisphere and bin, the working rows; if signs are free, the lower rows of
            the working drivers.
    """

    groups: int
    rows: tuple[tuple[np.ndarray, ...], ...]

    def sizes(self) -> np.ndarray:
        """Return the slots of a circuit, (hemispheres, bins)."""
        return np.array([[len(rows) for rows in side] for side in self.rows])


def reachable(chip: Chip, output: int, groups: int) -> np.ndarray:
    """Return the bins that neurons behind an event output can address: their row select begins with
    the output's number.
    """
    free_bits = chip.row_select_bits - chip.output_bits
    local_bins = np.unique((output << free_bits | np.arange(1 << free_bits)) & (groups - 1))
    return output % chip.buses * groups + local_bins


def bins_of(parts: ChipParts, signs: str, groups: int) -> Bins:
    """Return the bins of a chip whose buses are split into `groups` groups."""
    chip = parts.chip
    rows = []
    for hemisphere in range(HEMISPHERES):
        side = []
        for bus in range(chip.buses):
            for group in range(groups):
                drivers = [
                    chip.driver_at(bus, index)
                    for index in range(group, chip.drivers_per_bus, groups)
                ]
                if signs == "free":
                    usable = [
                        ROWS_PER_DRIVER * driver
                        for driver in drivers
                        if parts.drivers[hemisphere, driver]
                    ]
                else:
                    every = (
                        ROWS_PER_DRIVER * driver + side
                        for driver in drivers
                        for side in range(ROWS_PER_DRIVER)
                    )
                    usable = [row for row in every if parts.rows[hemisphere, row]]
                side.append(np.array(usable, int))
        rows.append(tuple(side))
    return Bins(groups=groups, rows=tuple(rows))


class Loads:
    """Free space of bins during the assignment of sources; a negative slack is an overflow.

    Attributes:
        split: (hemispheres, kinds, bins) slots of a circuit for each kind of synapse.
        slack: (hemispheres, bins, kinds, targets) free slots for sources that reach one hemisphere
            only.
        slack_sum: (bins, kinds, targets) free slots for all sources.
        labels: (hemispheres, bins) free labels.
    """

    def __init__(self, task: Task, placement: Placement, bins: Bins, split: np.ndarray) -> None:
        self.counts, self.split = placement.counts, split
        self.slack = np.einsum("hzk,hn->hkzn", split, self.counts)
        self.slack_sum = self.slack.sum(axis=0)
        self.labels = np.full((HEMISPHERES, split.shape[2]), task.parts.chip.labels)

    def resplit(self, split: np.ndarray) -> None:
        """Change the division of the rows between the kinds of synapse."""
        change = np.einsum("hzk,hn->hkzn", split - self.split, self.counts)
        self.slack += change
        self.slack_sum += change.sum(axis=0)
        self.split = split

    def put(self, source: Demand, bin_number: int, mode: int, sign: int = 1) -> None:
        """Put a source into a bin, or remove it (`sign` -1)."""
        amount = sign * source.amount
        self.slack_sum[bin_number][:, source.targets] -= amount
        if mode != EVERYWHERE:
            self.slack[mode, bin_number][:, source.targets] -= amount
        for hemisphere in range(HEMISPHERES):
            if mode in (hemisphere, EVERYWHERE):
                self.labels[hemisphere, bin_number] -= sign

    def price(
        self, source: Demand, choices: np.ndarray, mode: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the cost of a source in each of the bins: overflow, and pressure on neurons that
        are nearly full.
        """
        reach = [h for h in range(HEMISPHERES) if mode in (h, EVERYWHERE)]
        overflow = sum((self.labels[h, choices] <= 0).astype(float) for h in reach)
        slack_sum = self._of(self.slack_sum, choices, source.targets)
        overflow = overflow + _added(slack_sum, source.amount)
        if mode != EVERYWHERE:
            slack = self._of(self.slack[mode], choices, source.targets)
            overflow = overflow + _added(slack, source.amount)
            slack_sum = np.minimum(slack_sum, slack)
        pressure = (source.amount / (np.maximum(slack_sum, 0) + 0.5)).sum(axis=(1, 2))
        scarce = np.max([1 / (np.maximum(self.labels[h, choices], 0) + 0.5) for h in reach], axis=0)
        return np.asarray(overflow), pressure / max(source.targets.size, 1) + scarce

    @staticmethod
    def _of(slack: np.ndarray, choices: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return slack[choices] if len(targets) == slack.shape[-1] else slack[choices][:, :, targets]

    def overflow(self) -> int:
        """Return the total overflow of neurons and labels."""
        arrays = (self.slack, self.slack_sum, self.labels)
        return -int(sum(np.minimum(array, 0).sum() for array in arrays))


def _added(slack: np.ndarray, amount: np.ndarray) -> np.ndarray:
    return (np.maximum(amount - slack, 0) - np.maximum(-slack, 0)).sum(axis=(1, 2))


@dataclass(frozen=True, kw_only=True, eq=False)
class Demand:
    """Requirements of a source.

    Attributes:
        targets: Neurons on which the source has synapses.
        amount: (kinds, targets) number of synapses on each of them.
        bins: Bins to which the source may be assigned.
        modes: Hemispheres that the source may reach: TOP, BOTTOM or EVERYWHERE.
    """

    targets: np.ndarray
    amount: np.ndarray
    bins: np.ndarray
    modes: tuple[int, ...]


def best_split(task: Task, bins: Bins, loads: Loads | None, placement: Placement) -> np.ndarray:
    """Return the number of slots for each kind of synapse, (hemispheres, kinds, bins).

    With loads, each bin is split such that its overflow is smallest; without loads, in proportion to
    the number of synapses of each kind.
    """
    sizes = bins.sizes()
    if task.signs == "free":
        return sizes[:, None, :]
    if loads is None:
        circuits = np.maximum(placement.counts.sum(axis=0), 1)
        excites, inhibits = (task.demand.sum(axis=0) / circuits).max(axis=1, initial=0)
        share = excites / (excites + inhibits) if excites + inhibits else 0.5
        first = np.rint(sizes * share).astype(int)
        return np.stack([first, sizes - first], axis=1)
    split = loads.split.copy()
    counts = placement.counts
    used_sum = np.einsum("hzk,hn->kzn", split, counts) - loads.slack_sum
    for hemisphere, opposite in ((TOP, BOTTOM), (BOTTOM, TOP)):
        used = (
            np.einsum("zk,n->kzn", split[hemisphere], counts[hemisphere]) - loads.slack[hemisphere]
        )
        for number, size in enumerate(sizes[hemisphere]):
            tried = np.arange(size + 1)
            slots = np.stack([tried, size - tried], axis=1)[:, :, None] * counts[hemisphere]
            others = split[opposite, :, number][:, None] * counts[opposite]
            over = np.maximum(used[number] - slots, 0) + np.maximum(
                used_sum[number] - others - slots, 0
            )
            cost = over.sum(axis=(1, 2))
            least = np.flatnonzero(cost == cost.min())
            first = least[np.argmin(np.abs(least - split[hemisphere, 0, number]))]
            split[hemisphere, :, number] = first, size - first
    return split


# -- assignment: each source to the bin with the most room, then repairs while bins overflow

#: Fraction of all labels that sources of both hemispheres may use; the rest is kept free, so that
#: bins can be filled evenly.
_LABELS_USED = 0.9


def is_hopeless(task: Task, overflow: int) -> bool:
    """Return whether the overflow is too large for repairs to help."""
    return overflow > max(20, len(task.pre) // 500)


@dataclass(frozen=True, kw_only=True, eq=False)
class Assignment:
    """Bins and hemispheres that are assigned to sources.

    Attributes:
        bins: (sources,) bin of each source.
        modes: (sources,) TOP, BOTTOM or EVERYWHERE.
        split: (hemispheres, kinds, bins) slots of a circuit for each kind of synapse.
        overflow: Number of synapses and labels without room; 0 if everything fits.
    """

    bins: np.ndarray
    modes: np.ndarray
    split: np.ndarray
    overflow: int


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
        on_chip_modes: (sources,) hemispheres that sources on the chip reach; other sources may use
            every mode that reaches all their targets.
        reserved: (bins,) labels in each hemisphere that sources must not use.
        repairs: Maximum number of moves of a source once all sources are assigned.
        deadline: Value of `time.monotonic()` at which moving stops.
    """
    loads = Loads(task, placement, bins, best_split(task, bins, None, placement))
    loads.labels -= reserved
    demands = _demands(task, placement, bins, on_chip_modes)
    needed_labels = sum(2 if demand.modes == (EVERYWHERE,) else 1 for demand in demands)
    bin_of, mode_of = np.zeros(len(demands), int), np.zeros(len(demands), int)
    if (missing := needed_labels - int(loads.labels.sum())) > 0:
        return Assignment(bins=bin_of, modes=mode_of, split=loads.split, overflow=missing)
    for source in _order(task, demands, loads):
        bin_of[source], mode_of[source] = _best(loads, demands[source])
        loads.put(demands[source], bin_of[source], mode_of[source])
    if loads.overflow() and task.signs == "fixed":
        loads.resplit(best_split(task, bins, loads, placement))
    if repairs and loads.overflow() and not is_hopeless(task, loads.overflow()):
        _repair(task, placement, bins, loads, demands, bin_of, mode_of, rng, repairs, deadline)
    return Assignment(bins=bin_of, modes=mode_of, split=loads.split, overflow=loads.overflow())


def reassign(
    task: Task,
    placement: Placement,
    bins: Bins,
    assignment: Assignment,
    rng: np.random.Generator,
    *,
    reserved: np.ndarray,
    repairs: int,
    deadline: float,
) -> Assignment:
    """Repair an assignment that was chosen before its neurons were placed.

    Args:
        assignment: Each source on the chip is in a bin that its neuron can reach; its overflow is
            not used.
        reserved, repairs, deadline: As in `assign`.
    """
    loads = Loads(task, placement, bins, assignment.split)
    loads.labels -= reserved
    bin_of, mode_of = assignment.bins.copy(), assignment.modes.copy()
    demands = _demands(task, placement, bins, mode_of)
    for source, demand in enumerate(demands):
        loads.put(demand, bin_of[source], mode_of[source])
    if loads.overflow():
        if task.signs == "fixed":
            loads.resplit(best_split(task, bins, loads, placement))
        _repair(task, placement, bins, loads, demands, bin_of, mode_of, rng, repairs, deadline)
    return Assignment(bins=bin_of, modes=mode_of, split=loads.split, overflow=loads.overflow())


def _demands(
    task: Task, placement: Placement, bins: Bins, on_chip_modes: np.ndarray
) -> list[Demand]:
    """Return the requirements of all sources."""
    every_bin = np.arange(placement.chip.buses * bins.groups)
    in_both = placement.counts > 0
    demands = []
    for source, amount in enumerate(task.demand):
        targets = np.flatnonzero(amount.any(axis=0))
        neuron = task.on_chip[source]
        if neuron >= 0:
            choices = reachable(placement.chip, int(placement.outputs[neuron]), bins.groups)
            modes = (int(on_chip_modes[source]),)
        else:
            choices = every_bin
            modes = (*(mode for mode in (TOP, BOTTOM) if in_both[mode, targets].all()), EVERYWHERE)
        demands.append(
            Demand(targets=targets, amount=amount[:, targets], bins=choices, modes=modes)
        )
    return demands


def _order(task: Task, demands: list[Demand], loads: Loads) -> list[int]:
    """Return the order of assignment: sources with the least freedom first, then those with the
    most synapses.

    As long as there are enough labels, sources reach both hemispheres. This takes two labels, but
    lets each synapse be in either hemisphere, so that these sources fit best into bins that are
    nearly full, and come last. Their entries of `demands` are replaced.
    """
    size = [int(demand.amount.sum()) for demand in demands]
    rank = {}
    labels = int(_LABELS_USED * loads.labels.sum())
    labels -= sum(2 if demand.modes == (EVERYWHERE,) else 1 for demand in demands)
    for source in sorted(range(len(demands)), key=lambda source: size[source]):
        demand = demands[source]
        if task.on_chip[source] >= 0:
            rank[source] = 0
        elif demand.modes == (EVERYWHERE,):
            rank[source] = 1
        elif labels > 0:
            labels -= 1
            rank[source] = 3
            demands[source] = replace(demand, modes=(EVERYWHERE, *demand.modes[:-1]))
        else:
            rank[source] = 2
    room = np.maximum(loads.slack_sum.sum(axis=(0, 1)), 1)
    fullness = np.round(task.fan_in / room, 1)
    tightness = [float(fullness[demand.targets].max(initial=0)) for demand in demands]

    def key(source: int) -> tuple[float, ...]:
        return min(rank[source], 2), -tightness[source], rank[source], -size[source], source

    return sorted(range(len(demands)), key=key)


def _best(loads: Loads, demand: Demand, avoid: int | None = None) -> tuple[int, int]:
    """Return the bin and mode with the least overflow, then with the least pressure; modes at the
    front are preferred.
    """
    best = None
    for mode in demand.modes:
        overflow, pressure = loads.price(demand, demand.bins, mode)
        if avoid is not None and len(demand.bins) > 1:
            overflow = np.where(demand.bins == avoid, np.inf, overflow)
        place = int(np.lexsort((pressure, overflow))[0])
        price = (float(overflow[place]), float(pressure[place]))
        if best is None or price < best[0]:
            best = price, int(demand.bins[place]), mode
        # The preferred modes come first: EVERYWHERE, or the two single hemispheres.
        is_preferred = (mode == EVERYWHERE) == (demand.modes[0] == EVERYWHERE)
        if best[0][0] == 0 and is_preferred and mode != TOP:
            break
    if best is None:
        raise AssertionError("a source has at least one mode")
    return best[1], best[2]


def _repair(
    task: Task,
    placement: Placement,
    bins: Bins,
    loads: Loads,
    demands: list[Demand],
    bin_of: np.ndarray,
    mode_of: np.ndarray,
    rng: np.random.Generator,
    repairs: int,
    deadline: float,
) -> None:
    """Move sources out of bins that overflow until none does (min-conflicts, with a few moves that
    do not help); modify `loads`, `bin_of` and `mode_of`.
    """
    overflow = loads.overflow()
    for step in range(repairs):
        if not overflow or time.monotonic() > deadline:
            return
        if task.signs == "fixed" and step % 100 == 99:
            loads.resplit(best_split(task, bins, loads, placement))
            overflow = loads.overflow()
            continue
        # Candidates are sources in a bin whose labels overflow, or with synapses on a neuron that
        # has no room for them in their bin.
        full_labels = np.argwhere(loads.labels < 0)
        full, full_side = np.argwhere(loads.slack_sum < 0), np.argwhere(loads.slack < 0)
        pick = int(rng.integers(len(full_labels) + len(full) + len(full_side)))
        if pick < len(full_labels):
            side, number = full_labels[pick]
            candidates = (bin_of == number) & ((mode_of == side) | (mode_of == EVERYWHERE))
        elif (pick := pick - len(full_labels)) < len(full):
            number, kind, neuron = full[pick]
            candidates = (bin_of == number) & (task.demand[:, kind, neuron] > 0)
        else:
            side, number, kind, neuron = full_side[pick - len(full)]
            candidates = (bin_of == number) & (mode_of == side)
            candidates &= task.demand[:, kind, neuron] > 0
        movable = [
            source
            for source in np.flatnonzero(candidates)
            if len(demands[source].bins) > 1 or len(demands[source].modes) > 1
        ]
        if not movable:
            continue
        source = int(movable[int(rng.integers(len(movable)))])
        demand, before = demands[source], (int(bin_of[source]), int(mode_of[source]))
        loads.put(demand, *before, sign=-1)
        after = _best(loads, demand, avoid=before[0])
        loads.put(demand, *after)
        changed = loads.overflow()
        if changed <= overflow or rng.random() < np.exp((overflow - changed) / 0.5):
            bin_of[source], mode_of[source] = after
            overflow = changed
        else:
            loads.put(demand, *after, sign=-1)
            loads.put(demand, *before)
