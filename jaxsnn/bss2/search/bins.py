"""Bins, groups of synapse drivers that all their sources reach: inside one, whether synapses fit is
a matter of counting.

Compare masks that look at the lowest bits of the row select only split every bus into 1, 2, 4, ...
groups of drivers. A bin is one group of one bus, in both hemispheres. Each source is put into one
bin, and reaches the top hemisphere, the bottom one, or both. A neuron with synapses of `a` sources
that reach only the top, `b` only the bottom and `c` both has room for them iff a <= top slots, b <=
bottom slots and a + b + c <= all slots (Hall's condition).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxsnn.bss2.chip import HEMISPHERES, ROWS_PER_DRIVER, Chip
from jaxsnn.bss2.search.placement import Placement
from jaxsnn.bss2.search.task import ChipParts, Task

#: The hemisphere that the events of a source reach.
TOP, BOTTOM, EVERYWHERE = 0, 1, 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Bins:
    """The bins of a chip: bin number = bus * groups + group.

    Attributes:
        groups: groups of a bus, a power of two.
        rows: per hemisphere and bin the rows that work; where signs are free, the lower rows of the
            drivers that work.
    """

    groups: int
    rows: tuple[tuple[np.ndarray, ...], ...]

    def sizes(self) -> np.ndarray:
        """(hemispheres, bins) slots of a circuit."""
        return np.array([[len(rows) for rows in side] for side in self.rows])


def reachable(chip: Chip, output: int, groups: int) -> np.ndarray:
    """The bins that neurons behind an event output can address: their row select begins with the
    output's number.
    """
    free_bits = chip.row_select_bits - chip.output_bits
    own = np.unique((output << free_bits | np.arange(1 << free_bits)) & (groups - 1))
    return output % chip.buses * groups + own


def bins_of(parts: ChipParts, signs: str, groups: int) -> Bins:
    """The bins of a chip whose buses are split into so many groups."""
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
    """How full bins are while sources are put into them; a negative slack is an overflow.

    Attributes:
        split: (hemispheres, kinds, bins) slots of a circuit for each kind of synapse.
        slack: (hemispheres, bins, kinds, targets) what is left for sources that reach one
            hemisphere only.
        slack_sum: (bins, kinds, targets) what is left for all.
        labels: (hemispheres, bins) labels that are left.
    """

    def __init__(self, task: Task, placement: Placement, bins: Bins, split: np.ndarray) -> None:
        self.counts, self.split = placement.counts, split
        self.slack = np.einsum("hzk,hn->hkzn", split, self.counts)
        self.slack_sum = self.slack.sum(axis=0)
        self.labels = np.full((HEMISPHERES, split.shape[2]), task.parts.chip.labels)

    def resplit(self, split: np.ndarray) -> None:
        """Divide the rows between the kinds of synapse in another way."""
        change = np.einsum("hzk,hn->hkzn", split - self.split, self.counts)
        self.slack += change
        self.slack_sum += change.sum(axis=0)
        self.split = split

    def put(self, source: Demand, where: int, mode: int, sign: int = 1) -> None:
        """Put a source into a bin, or take it out (`sign` -1)."""
        amount = sign * source.amount
        self.slack_sum[where][:, source.targets] -= amount
        if mode != EVERYWHERE:
            self.slack[mode, where][:, source.targets] -= amount
        for hemisphere in range(HEMISPHERES):
            if mode in (hemisphere, EVERYWHERE):
                self.labels[hemisphere, where] -= sign

    def price(
        self, source: Demand, choices: np.ndarray, mode: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """What a source in each of the bins would add: overflow, and pressure on neurons that are
        nearly full.
        """
        reach = [h for h in range(HEMISPHERES) if mode in (h, EVERYWHERE)]
        overflow = sum((self.labels[h, choices] <= 0).astype(float) for h in reach)
        left = self._of(self.slack_sum, choices, source.targets)
        overflow = overflow + _added(left, source.amount)
        if mode != EVERYWHERE:
            own = self._of(self.slack[mode], choices, source.targets)
            overflow = overflow + _added(own, source.amount)
            left = np.minimum(left, own)
        pressure = (source.amount / (np.maximum(left, 0) + 0.5)).sum(axis=(1, 2))
        scarce = np.max([1 / (np.maximum(self.labels[h, choices], 0) + 0.5) for h in reach], axis=0)
        return np.asarray(overflow), pressure / max(source.targets.size, 1) + scarce

    @staticmethod
    def _of(slack: np.ndarray, choices: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return slack[choices] if len(targets) == slack.shape[-1] else slack[choices][:, :, targets]

    def overflow(self) -> int:
        """By how much neurons and labels overflow, together."""
        arrays = (self.slack, self.slack_sum, self.labels)
        return -int(sum(np.minimum(array, 0).sum() for array in arrays))


def _added(left: np.ndarray, amount: np.ndarray) -> np.ndarray:
    return (np.maximum(amount - left, 0) - np.maximum(-left, 0)).sum(axis=(1, 2))


@dataclass(frozen=True, kw_only=True, eq=False)
class Demand:
    """What a source needs.

    Attributes:
        targets: the neurons that it has synapses on.
        amount: (kinds, its targets) synapses.
        bins: where it may go.
        modes: which hemispheres it may reach: TOP, BOTTOM or EVERYWHERE.
    """

    targets: np.ndarray
    amount: np.ndarray
    bins: np.ndarray
    modes: tuple[int, ...]


def best_split(task: Task, bins: Bins, loads: Loads | None, placement: Placement) -> np.ndarray:
    """(hemispheres, kinds, bins) slots for each kind of synapse; without loads in proportion to the
    synapses of each.

    With loads, the split of each bin is the one with the least overflow.
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
    for hemisphere, other in ((TOP, BOTTOM), (BOTTOM, TOP)):
        used = (
            np.einsum("zk,n->kzn", split[hemisphere], counts[hemisphere]) - loads.slack[hemisphere]
        )
        for number, size in enumerate(sizes[hemisphere]):
            tried = np.arange(size + 1)
            slots = np.stack([tried, size - tried], axis=1)[:, :, None] * counts[hemisphere]
            others = split[other, :, number][:, None] * counts[other]
            over = np.maximum(used[number] - slots, 0) + np.maximum(
                used_sum[number] - others - slots, 0
            )
            cost = over.sum(axis=(1, 2))
            least = np.flatnonzero(cost == cost.min())
            first = least[np.argmin(np.abs(least - split[hemisphere, 0, number]))]
            split[hemisphere, :, number] = first, size - first
    return split
