"""Assign sources to bins first, and place the neurons accordingly.

Placers fix the bus of each neuron before a router assigns sources to bins. If most synapse rows of
the chip are in use, hardly any placement leaves each neuron few enough synapses in each bin (see
`jaxsnn.bss2.search.bins`), and the buses have to be chosen together with the groups. This module
does so by simulated annealing (Kirkpatrick, Gelatt and Vecchi, Science 220, 1983), in three steps:

1. `_anneal_deviations`: bins for all sources with the smallest sum of squares of the deviations of
   each neuron's number of synapses in a bin from an even share. Moves are cheap, because the sum is
   a quadratic form of the assignment. If the net leaves each neuron about the same number of
   synapses in all bins of some assignment, annealing finds this assignment or a similar one.
2. `_anneal_overflow`: moves of sources that reduce the number of synapses without room. Circuits
   that are not needed go to the neurons with the most of these, and rows to the kind of synapse
   that lacks them.
3. `_placed`: circuits for the neurons, on the event outputs of their buses.

Arrays have the axes of `jaxsnn.bss2.search.bins`; kinds and targets are joined where numbers of
synapses are multiplied: (sources, kinds * targets).
"""

from __future__ import annotations

import time

import numpy as np

from jaxsnn.bss2.chip import HEMISPHERES, Circuit
from jaxsnn.bss2.mapping import Run
from jaxsnn.bss2.search.bins import EVERYWHERE, Assignment, bins_of, reassign
from jaxsnn.bss2.search.place import Placement, take
from jaxsnn.bss2.search.route import (
    Effort,
    Unrouted,
    group_counts,
    realise,
    reserved_labels,
    spare_bits,
)
from jaxsnn.bss2.search.task import Task
from jaxsnn.wording import Text

#: First and last temperature of the deviations, in units of the sources per bin.
_DEVIATION_HEAT = (1.4, 0.8)
#: First and last temperature of the overflow, in units of the cost of the first missing slot.
_OVERFLOW_HEAT = (0.5, 0.15)
#: Weight of even numbers of synapses per bin, relative to that of even numbers for all neurons.
_EVEN_LOADS = 0.05
#: Sources whose moves are priced together, and how many of them move before prices are updated.
_PRICED, _MOVED = 24, 3
#: Sweeps between changes of the division of the rows between the kinds of synapse.
_SPLIT_INTERVAL = 10
#: Number of moves that repair an assignment after its neurons are placed.
_REPAIRS = 500


def balanced_groups(task: Task) -> tuple[int, ...]:
    """Return the numbers of groups per bus with which `balanced` can assign the sources of a task:
    there are enough labels, and neurons reach all groups of their bus.
    """
    chip = task.parts.chip
    if (task.on_chip >= 0).any():
        largest = 1 << chip.row_select_bits - chip.output_bits
    else:
        largest = chip.drivers_per_bus
    return tuple(
        groups
        for groups in group_counts(task)
        if groups <= largest and len(task.sources) <= int(_label_limits(task, groups).sum())
    )


def balanced(
    task: Task,
    least: np.ndarray,
    groups: int,
    sweeps: int,
    rng: np.random.Generator,
    effort: Effort,
) -> Run | Unrouted:
    """Place and route a task with buses that are split into `groups` groups.

    Args:
        task: Neurons, sources and synapses of a run.
        least: (targets,) minimum number of circuits of each neuron.
        groups: Number of groups per bus, one of `balanced_groups`.
        sweeps: Number of times that each source may move.
        rng: Source of all random numbers.
        effort: Its deadline stops the search.
    """
    balance = _Balance(task, least, groups)
    _anneal_deviations(balance, rng, sweeps, effort.deadline)
    overflow = _anneal_overflow(balance, rng, max(1, sweeps // 2), effort.deadline)
    if overflow:
        return Unrouted(
            why=Text(
                "synapses or labels without room: {overflow}, with {groups} groups of drivers per "
                "bus",
                overflow=overflow,
                groups=groups,
            ),
            overflow=overflow,
        )
    placement = _placed(balance)
    if placement is None:
        return Unrouted(
            why=Text("no room for {circuits} circuits", circuits=int(balance.circuits.sum()))
        )
    bins = bins_of(task.parts, task.signs, groups)
    assignment = Assignment(
        bins=balance.bin_of,
        modes=np.full(len(task.sources), EVERYWHERE),
        split=balance.hemisphere_split(bins.sizes()),
        overflow=0,
    )
    assignment = reassign(
        task,
        placement,
        bins,
        assignment,
        rng,
        reserved=reserved_labels(task, placement, groups),
        repairs=_REPAIRS,
        deadline=effort.deadline,
    )
    result = None
    if not assignment.overflow:
        result = realise(task, placement, bins, assignment)
    return result or Unrouted(
        why=Text(
            "synapses or labels without room: {overflow}, with {groups} groups of drivers per bus",
            overflow=assignment.overflow,
            groups=groups,
        ),
        overflow=assignment.overflow or None,
    )


def _label_limits(task: Task, groups: int) -> np.ndarray:
    """Return the number of sources that each bin may have, (bins,). Without spare address bits,
    neurons without targets use labels, too.
    """
    chip = task.parts.chip
    bins = chip.buses * groups
    silent = len(task.targets) - int((task.on_chip >= 0).sum())
    reserved = 0 if spare_bits(task, groups) or not (task.on_chip >= 0).any() else silent
    return np.full(bins, max(0, chip.labels - -(-reserved // bins)))


class _Balance:
    """Assignment of the sources of a task to bins, and of circuits to its neurons.

    Attributes:
        amount: (sources, kinds * targets) number of synapses.
        groups: Number of groups per bus.
        labels: (bins,) maximum number of sources.
        sizes: (bins,) slots of a circuit, those of the hemisphere with fewer.
        room: (buses,) circuits on the event outputs of each bus.
        circuits: (targets,) circuits of each neuron.
        split: (kinds, bins) slots of a circuit for each kind of synapse.
        bin_of: (sources,) bin of each source.
    """

    def __init__(self, task: Task, least: np.ndarray, groups: int) -> None:
        chip = task.parts.chip
        self.task, self.least, self.groups = task, np.asarray(least, int), groups
        self.amount = task.demand.reshape(len(task.sources), -1).astype(np.float32)
        self.labels = _label_limits(task, groups)
        self.sizes = bins_of(task.parts, task.signs, groups).sizes().min(axis=0)
        alive = task.parts.circuits.reshape(HEMISPHERES, chip.halves, chip.buses, -1)
        self.room = alive.sum(axis=(0, 1, 3))
        self.circuits = self.least.copy()
        self.bin_of = np.zeros(len(task.sources), int)
        kinds = task.demand.shape[1]
        total = task.demand.sum(axis=(0, 2))
        share = total[0] / max(1, total.sum())
        first = np.rint(share * self.sizes).astype(int)
        self.split = np.stack([first, self.sizes - first] if kinds == 2 else [self.sizes])

    def capacity(self, circuits: np.ndarray) -> np.ndarray:
        """Return the slots of neurons with some numbers of circuits, (bins, kinds * targets)."""
        slots = (self.split.T[:, :, None] * circuits).reshape(len(self.sizes), -1)
        return slots.astype(np.float32)

    def loads(self) -> np.ndarray:
        """Return the number of synapses of each neuron, (bins, kinds * targets)."""
        return self._members().T @ self.amount

    def used_circuits(self) -> np.ndarray:
        """Return the minimum number of circuits of the sources on each bus, (buses,)."""
        on_chip = self.task.on_chip >= 0
        return np.bincount(
            self.bin_of[on_chip] // self.groups,
            weights=self.least[self.task.on_chip[on_chip]],
            minlength=len(self.room),
        ).astype(int)

    def hemisphere_split(self, sizes: np.ndarray) -> np.ndarray:
        """Return the split of the (hemispheres, bins) rows, (hemispheres, kinds, bins)."""
        if self.task.signs == "free":
            return sizes[:, None, :]
        first = np.broadcast_to(self.split[0], sizes.shape)
        return np.stack([first, sizes - first], axis=1)

    def assign_spare_circuits(self, missing: np.ndarray) -> None:
        """Give an additional circuit to the neurons with the most `missing` slots, (bins, kinds *
        targets), while the event outputs of their bus have room.
        """
        task = self.task
        excess = (missing**2).reshape(-1, len(task.targets)).sum(axis=0)
        bus = np.full(len(task.targets), -1)
        on_chip = np.flatnonzero(task.on_chip >= 0)
        bus[task.on_chip[on_chip]] = self.bin_of[on_chip] // self.groups
        room = (self.room - self.used_circuits()).tolist()
        spare = int(self.room.sum() - self.least.sum())
        self.circuits = self.least.copy()
        for neuron in np.argsort(-excess, kind="stable").tolist():
            if spare <= 0:
                break
            if bus[neuron] >= 0:
                if room[bus[neuron]] <= 0:
                    continue
                room[bus[neuron]] -= 1
            spare -= 1
            self.circuits[neuron] += 1

    def split_rows(self, loads: np.ndarray) -> None:
        """Divide the rows of each bin between the kinds of synapse such that its overflow is
        smallest.
        """
        if len(self.split) == 1:
            return
        by_kind = loads.reshape(len(self.sizes), 2, -1)
        for number, size in enumerate(self.sizes.tolist()):
            first = np.arange(size + 1)
            slots = np.stack([first, size - first], axis=1)[:, :, None] * self.circuits
            cost = (np.maximum(by_kind[number] - slots, 0) ** 2).sum(axis=(1, 2))
            least = np.flatnonzero(cost == cost.min())
            best = least[np.argmin(np.abs(least - self.split[0, number]))]
            self.split[:, number] = best, size - best

    def _members(self) -> np.ndarray:
        members = np.zeros((len(self.bin_of), len(self.sizes)), np.float32)
        members[np.arange(len(self.bin_of)), self.bin_of] = 1
        return members


def _features(balance: _Balance) -> np.ndarray:
    """Return the columns whose sums over the sources of a bin should be even, (sources, columns):
    sum and difference of the kinds of synapse on each neuron, with unit variance, weighted by how
    full the neuron is.

    The last column is the component along the mean of all sources, with a small weight, because
    every move of a source changes it: it makes bins have about the same number of synapses, though
    not of sources.
    """
    task = balance.task
    kinds = task.demand.astype(float).transpose(1, 0, 2)
    channels = [kinds[0] + kinds[1], kinds[0] - kinds[1]] if len(kinds) == 2 else [kinds[0]]
    slots = balance.least * balance.sizes.sum()
    fullness = np.minimum(1, task.fan_in / np.maximum(slots, 1))
    columns = []
    for channel in channels:
        scale = channel.std(axis=0)
        columns.append(channel * np.where(scale > 0, fullness / np.where(scale > 0, scale, 1), 0))
    features = np.concatenate(columns, axis=1)
    mean = features.mean(axis=0)
    norm = float(np.linalg.norm(mean))
    if norm == 0:
        return np.concatenate([features, np.zeros((len(features), 1))], axis=1)
    total = features @ (mean / norm)
    features -= np.outer(total, mean / norm)
    weight = np.sqrt(_EVEN_LOADS * (features**2).sum() / (total**2).sum())
    return np.concatenate([features, weight * total[:, None]], axis=1)


def _anneal_deviations(
    balance: _Balance, rng: np.random.Generator, sweeps: int, deadline: float
) -> None:
    """Set the bins of all sources such that the features of each bin add up to about the same."""
    task, groups = balance.task, balance.groups
    features = _features(balance)
    sources, bins = len(features), len(balance.sizes)
    product = features @ features.T
    self_products = np.diag(product).copy()
    share = balance.sizes / max(1, balance.sizes.sum())
    bin_of = rng.permutation(_even_start(balance))
    balance.bin_of = bin_of
    members = np.eye(bins)[bin_of]
    # Cost of each source in each bin, from the sources that are there: (sources, bins).
    field = product @ (members - share)
    count = np.bincount(bin_of, minlength=bins)
    circuits = np.where(task.on_chip >= 0, balance.least[task.on_chip], 0)
    largest = int(circuits.max(initial=0))
    used = balance.used_circuits()
    # Mean square of a feature times sources per bin: the variance of a sum over a bin, if its
    # sources are chosen at random.
    varying = int((features[:, :-1].std(axis=0) > 1e-9).sum())
    unit = float((features[:, :-1] ** 2).sum()) / max(1, varying * sources) * sources / bins
    closed = np.where(count >= balance.labels, np.inf, 0.0)
    closed_bus = np.where(used + largest > balance.room, np.inf, 0.0).repeat(groups)
    for sweep in range(sweeps):
        if time.monotonic() > deadline:
            return
        heat = unit * _cooled(_DEVIATION_HEAT, sweep / sweeps)
        noise = heat * rng.gumbel(size=(sources, bins))
        for source in rng.permutation(sources).tolist():
            before = bin_of[source]
            cost = field[source] + closed
            if circuits[source]:
                cost += closed_bus
            cost[before] = field[source, before] - self_products[source]
            after = int((cost - noise[source]).argmin())
            if after == before:
                continue
            field[:, after] += product[source]
            field[:, before] -= product[source]
            bin_of[source] = after
            count[before] -= 1
            count[after] += 1
            used[before // groups] -= circuits[source]
            used[after // groups] += circuits[source]
            closed = np.where(count >= balance.labels, np.inf, 0.0)
            closed_bus = np.where(used + largest > balance.room, np.inf, 0.0).repeat(groups)


def _even_start(balance: _Balance) -> np.ndarray:
    """Return bins for all sources, (sources,), in proportion to the rows of each bin."""
    share = np.cumsum(balance.sizes) / max(1, balance.sizes.sum())
    place = (np.arange(len(balance.bin_of)) + 0.5) / len(balance.bin_of)
    return np.searchsorted(share, place, side="right").clip(max=len(share) - 1)


def _cooled(heat: tuple[float, float], progress: float) -> float:
    return heat[0] * (heat[1] / heat[0]) ** progress


def _anneal_overflow(
    balance: _Balance, rng: np.random.Generator, sweeps: int, deadline: float
) -> int:
    """Move sources such that the number of synapses without room becomes small, and return it.

    The cost is the sum of squares of the missing slots. The assignment is the last one, which has
    no overflow if the result is 0.
    """
    task, groups = balance.task, balance.groups
    amount, bins = balance.amount, len(balance.sizes)
    sources = len(amount)
    sizes_of_synapses = np.unique(amount[amount > 0])
    masks = [(size, (amount == size).astype(np.float32)) for size in sizes_of_synapses.tolist()]
    needed = np.where(task.on_chip >= 0, balance.least[task.on_chip], 0)
    loads = balance.loads()
    least: int | None = None
    for sweep in range(sweeps):
        if sweep % _SPLIT_INTERVAL == 0:
            balance.split_rows(loads)
        missing = loads - balance.capacity(balance.least)
        balance.assign_spare_circuits(np.maximum(missing, 0))
        count = np.bincount(balance.bin_of, minlength=bins)
        with_spares = loads - balance.capacity(balance.circuits)
        overflow = int(
            np.maximum(with_spares, 0).sum() + np.maximum(count - balance.labels, 0).sum()
        )
        least = overflow if least is None else min(least, overflow)
        if not overflow or time.monotonic() > deadline:
            break
        # Without spare circuits, the cost shows more of a hidden solution; with them, there are
        # more solutions.
        circuits = balance.least if sweep < sweeps // 2 else balance.circuits
        missing = loads - balance.capacity(circuits)
        used = balance.used_circuits()
        heat = _cooled(_OVERFLOW_HEAT, sweep / sweeps)
        order = rng.permutation(sources)
        for start in range(0, sources, _PRICED):
            priced = order[start : start + _PRICED]
            before = balance.bin_of[priced]
            rank = np.arange(len(priced))
            cost, saving = np.zeros((2, len(priced), bins), np.float32)
            for size, mask in masks:
                here = np.maximum(missing, 0) ** 2
                cost += mask[priced] @ (np.maximum(missing + size, 0) ** 2 - here).T
                saving += mask[priced] @ (here - np.maximum(missing - size, 0) ** 2).T
            cost[:, count >= balance.labels] = np.inf
            is_closed = (used + needed[priced][:, None] > balance.room).repeat(groups, axis=1)
            cost[is_closed & (needed[priced] > 0)[:, None]] = np.inf
            cost[rank, before] = saving[rank, before]
            after = (cost - heat * rng.gumbel(size=cost.shape)).argmin(axis=1)
            for place in np.flatnonzero(after != before)[:_MOVED].tolist():
                source, bin_before, bin_after = priced[place], before[place], after[place]
                missing[bin_after] += amount[source]
                missing[bin_before] -= amount[source]
                balance.bin_of[source] = bin_after
                used[bin_before // groups] -= needed[source]
                used[bin_after // groups] += needed[source]
            count = np.bincount(balance.bin_of, minlength=bins)
        loads = missing + balance.capacity(circuits)
    return int(least or 0)


def _placed(balance: _Balance) -> Placement | None:
    """Place each neuron that is a source on an event output of its bus, and the others where there
    is room; the largest first. Return None if they do not fit.
    """
    task, parts = balance.task, balance.task.parts
    chip, free = parts.chip, parts.circuits.copy()
    width = chip.output_columns
    regions = [(output * width, (output + 1) * width) for output in range(chip.outputs)]
    starts = [[first, first] for first, _ in regions]
    outputs = [tuple(range(chip.outputs))] * len(task.targets)
    on_chip = np.flatnonzero(task.on_chip >= 0)
    for source in on_chip.tolist():
        bus = int(balance.bin_of[source]) // balance.groups
        outputs[task.on_chip[source]] = tuple(range(bus, chip.outputs, chip.buses))
    is_source = np.zeros(len(task.targets), bool)
    is_source[task.on_chip[on_chip]] = True
    circuits: list[tuple[Circuit, ...]] = [()] * len(task.targets)
    for neuron in np.lexsort((-balance.circuits, ~is_source)).tolist():
        count = int(balance.circuits[neuron])
        room = {output: int(free[:, slice(*regions[output])].sum()) for output in outputs[neuron]}
        for output in sorted(room, key=lambda output: -room[output]):
            block = take(free, count, starts[output], regions[output])
            if block is not None:
                circuits[neuron] = block
                break
        else:
            return None
    return Placement(chip=chip, circuits=tuple(circuits))
