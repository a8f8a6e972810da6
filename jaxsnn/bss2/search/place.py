"""Placers assign neurons to circuits of the chip. All have one signature, `Placer`.

The placers of this module first divide the chip into tiles, each with the number of circuits that a
neuron needs, and then assign neurons to tiles of their size. The column of a tile determines its
event output, and so the only bus on which the neuron can reach other neurons:

    columns           0 ...                        ... 255
    hemisphere 0    | tile | tile |    ...   |            |      a tile is contiguous, stays in one
    hemisphere 1    | tile |      |    ...   |            |      half, and may span both hemispheres
    event output    |  0   |  1   |    ...   |  7         |      bus = output % buses
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from jaxsnn.bss2.chip import HEMISPHERES, Chip, Circuit
from jaxsnn.bss2.search.strategies import Registry
from jaxsnn.bss2.search.task import ChipParts, Task, rank_within
from jaxsnn.errors import MappingError
from jaxsnn.wording import Text


@dataclass(frozen=True, kw_only=True, eq=False)
class Placement:
    """Circuits of each neuron of a run; the first is the head.

    Attributes:
        chip: The chip.
        circuits: (row, column) of the circuits of each target of the task, the head first.
    """

    chip: Chip
    circuits: tuple[tuple[Circuit, ...], ...]

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """Number of circuits of each neuron in each hemisphere, (hemispheres, targets)."""
        counts = np.zeros((HEMISPHERES, len(self.circuits)), int)
        for number, circuits in enumerate(self.circuits):
            for row, _ in circuits:
                counts[row, number] += 1
        return counts

    @functools.cached_property
    def outputs(self) -> np.ndarray:
        """Event output of each neuron, (targets,)."""
        return np.array([self.chip.output_of(circuits[0][1]) for circuits in self.circuits], int)

    @functools.cached_property
    def buses(self) -> np.ndarray:
        """Bus that each neuron's events can reach, (targets,)."""
        return self.outputs % self.chip.buses


#: Signature of a placer. `placer(task, counts, rng)` assigns `counts[k]` circuits to target k of the
#: task, or returns None if there is no room. The circuits of a neuron are adjacent, in one half of
#: the chip, and work; none belongs to two neurons. All random numbers come from `rng`, so that the
#: same seed gives the same mapping.
Placer = Callable[[Task, np.ndarray, np.random.Generator], Placement | None]


def refuse_misplaced(name: str, task: Task, counts: np.ndarray, placement: Placement) -> None:
    """Refuse a placement that no router can work with.

    Args:
        name: Name of the placer.
        task: Placed task.
        counts: (targets,) required number of circuits of each neuron.
        placement: Result of the placer.

    Raises:
        MappingError: The result is not a placement of all neurons, or a neuron has a wrong number
            of circuits, or a circuit that is dead, not on the chip, or assigned twice.
    """
    who, fix = (
        Text("placer '{placer}'", placer=name),
        f"correct the placer, or select a placer other than '{name}'",
    )
    if not isinstance(placement, Placement):
        kind = type(placement).__name__
        raise MappingError(
            Text(
                "{placer} returned {actual} instead of Placement or None", placer=who, actual=kind
            ),
            fix=fix,
        )
    if len(placement.circuits) != len(counts):
        placed = len(placement.circuits)
        raise MappingError(
            Text(
                "{placer} placed {count} of {neurons} neurons",
                placer=who,
                count=placed,
                neurons=len(counts),
            ),
            fix=fix,
        )
    free = task.parts.circuits.copy()
    for target, circuits, count in zip(task.targets, placement.circuits, counts, strict=True):
        neuron = task.net.neuron(target)
        if len(circuits) != count:
            raise MappingError(
                Text(
                    "{placer} assigned {actual} circuits to {neuron}, which needs {expected} circuits",
                    placer=who,
                    actual=len(circuits),
                    neuron=neuron,
                    expected=count,
                ),
                fix=fix,
            )
        for row, column in circuits:
            inside = 0 <= row < HEMISPHERES and 0 <= column < free.shape[1]
            if not (inside and free[row, column]):
                raise MappingError(
                    Text(
                        "{placer} assigned to {neuron} a circuit that is dead, occupied or not among the "
                        "{rows} x {columns} of the chip: ({row}, {column})",
                        placer=who,
                        row=row,
                        column=column,
                        neuron=neuron,
                        rows=HEMISPHERES,
                        columns=free.shape[1],
                    ),
                    fix=fix,
                )
            free[row, column] = False


# -- placers

Order = Callable[[list[int], np.ndarray], np.ndarray]


def _placed(task: Task, counts: np.ndarray, order: Order | None) -> Placement | None:
    """Divide the chip into tiles, the largest first, then assign the tiles of each size to neurons.

    `order(outputs, neurons)` receives the event outputs of the tiles and the neurons of one size,
    and returns the neurons in the order of the tiles. Without it, neurons keep their order.
    """
    chip = task.parts.chip
    by_size = np.argsort(-counts, kind="stable")
    sizes = counts[by_size].tolist()
    tiles = (tile_evenly(task.parts, sizes) if order else None) or tile(task.parts, sizes)
    if tiles is None:
        return None
    circuits: list[tuple[Circuit, ...]] = [()] * len(counts)
    for size in np.unique(counts):
        places = np.flatnonzero(counts[by_size] == size)
        outputs = [chip.output_of(tiles[place][0][1]) for place in places]
        neurons = by_size[places]
        for place, neuron in zip(
            places, order(outputs, neurons) if order else neurons, strict=True
        ):
            circuits[neuron] = tiles[place]
    return Placement(chip=chip, circuits=tuple(circuits))


def first_fit(task: Task, counts: np.ndarray, rng: np.random.Generator) -> Placement | None:
    """Place neurons in their order from the left."""
    return _placed(task, counts, None)


def spread(task: Task, counts: np.ndarray, rng: np.random.Generator) -> Placement | None:
    """Distribute each population evenly over the event outputs, so that its events reach its
    targets on all buses.
    """

    def order(outputs: list[int], neurons: np.ndarray) -> np.ndarray:
        rank = rank_within(np.array(outputs))
        ordered = np.empty_like(neurons)
        ordered[np.lexsort((np.array(outputs), rank))] = neurons
        return ordered

    return _placed(task, counts, order)


def by_connectivity(task: Task, counts: np.ndarray, rng: np.random.Generator) -> Placement | None:
    """Place neurons with the most targets first, each on the bus on which its targets receive the
    least so far.
    """
    chip = task.parts.chip
    received = _received(task)
    load = np.zeros((chip.buses, len(task.targets)))

    def order(outputs: list[int], neurons: np.ndarray) -> np.ndarray:
        waiting: list[list[int]] = [[] for _ in range(chip.outputs)]
        for place in range(len(outputs) - 1, -1, -1):
            waiting[outputs[place]].append(place)
        ordered = np.empty_like(neurons)
        for neuron in neurons[np.argsort(-received[neurons].sum(axis=1), kind="stable")]:
            price = load @ received[neuron]
            open_outputs = [output for output in range(chip.outputs) if waiting[output]]
            output = min(
                open_outputs, key=lambda output: (price[output % chip.buses], -len(waiting[output]))
            )
            ordered[waiting[output].pop()] = neuron
            load[output % chip.buses] += received[neuron]
        return ordered

    return _placed(task, counts, order)


def _received(task: Task) -> np.ndarray:
    """Return the number of synapses between each pair of neurons on the chip, as a fraction of the
    fan-in of the target, (source, target).
    """
    received = np.zeros((len(task.targets), len(task.targets)))
    sources = np.flatnonzero(task.on_chip >= 0)
    received[task.on_chip[sources]] = task.demand[sources].sum(axis=1)
    return received / np.maximum(task.fan_in, 1)


def annealed(task: Task, counts: np.ndarray, rng: np.random.Generator) -> Placement | None:
    """Start from `by_connectivity`, and swap neurons of equal size while that balances each
    neuron's inputs over the buses.
    """
    placement = by_connectivity(task, counts, rng)
    if placement is None or len(task.targets) < 2 or not (task.on_chip >= 0).any():
        return placement
    received = _received(task)
    circuits, buses = list(placement.circuits), placement.buses.copy()
    load = np.zeros((placement.chip.buses, len(task.targets)))
    np.add.at(load, buses, received)
    steps = 20 * len(task.targets)
    for step, (first, second) in enumerate(
        rng.integers(len(task.targets), size=(steps, 2)).tolist()
    ):
        here, there = buses[first], buses[second]
        if here == there or counts[first] != counts[second]:
            continue
        change = received[second] - received[first]
        # increase of the sum of squares of the loads
        growth = 2 * change @ (load[here] - load[there]) + 2 * change @ change
        heat = 0.01 * (1 - step / steps)
        if growth <= 0 or rng.random() < np.exp(-growth / max(heat, 1e-12)):
            load[here] += change
            load[there] -= change
            buses[first], buses[second] = there, here
            circuits[first], circuits[second] = circuits[second], circuits[first]
    return Placement(chip=placement.chip, circuits=tuple(circuits))


#: Placers by name; `register_placer` adds others, and so do entry points of "jaxsnn.placers".
PLACERS: Registry[Placer] = Registry(
    "placer",
    "jaxsnn.placers",
    {
        "first-fit": first_fit,
        "spread": spread,
        "by-connectivity": by_connectivity,
        "annealed": annealed,
    },
)


def register_placer(name: str, function: Placer) -> None:
    """Add a placer, to be chosen by its name: `Portfolio(placers=[name])`, `jaxsnn map --placer`.

    Args:
        name: for a mapping's `method` and the command line.
        function: see `Placer`.

    Raises:
        UsageError: another placer has this name.

    >>> register_placer("from the left", first_fit)
    >>> "from the left" in PLACERS
    True
    """
    PLACERS.register(name, function)


# -- tiles of legal shape


def tile(parts: ChipParts, counts: Sequence[int]) -> list[tuple[Circuit, ...]] | None:
    """Return tiles of legal shape for neurons of the specified numbers of circuits, in order, from
    the left; None if they do not fit.

    A tile is contiguous, stays in one half, and is distributed over both hemispheres as evenly as the
    previous tiles allow.
    """
    chip, free = parts.chip, parts.circuits.copy()
    tiles: list[tuple[Circuit, ...]] = []
    regions = [
        (half * chip.half_columns, (half + 1) * chip.half_columns) for half in range(chip.halves)
    ]
    starts = [[first, first] for first, _ in regions]
    half = 0
    for count in counts:
        block = None
        while block is None and half < chip.halves:
            block = take(free, count, starts[half], regions[half])
            half += block is None
        if block is None:
            # Try gaps that earlier tiles have left.
            gaps = (take(free, count, [first, first], (first, end)) for first, end in regions)
            block = next((gap for gap in gaps if gap is not None), None)
        if block is None:
            return None
        tiles.append(block)
    return tiles


def tile_evenly(parts: ChipParts, counts: Sequence[int]) -> list[tuple[Circuit, ...]] | None:
    """Return tiles distributed over the event outputs in turn, each with all its columns on one
    output; None where they do not fit.
    """
    chip, free = parts.chip, parts.circuits.copy()
    width = chip.output_columns
    regions = [(output * width, (output + 1) * width) for output in range(chip.outputs)]
    starts = [[first, first] for first, _ in regions]
    tiles: list[tuple[Circuit, ...]] = []
    turn = 0
    for count in counts:
        for step in range(chip.outputs):
            output = (turn + step) % chip.outputs
            block = take(free, count, starts[output], regions[output])
            if block is not None:
                tiles.append(block)
                turn = output + 1
                break
        else:
            return None
    return tiles


def take(
    free: np.ndarray, count: int, start: list[int], region: tuple[int, int]
) -> tuple[Circuit, ...] | None:
    """Reserve a tile in a region and return it; `start`, the first column for tiles in each row,
    advances.
    """
    block = _single(free, region) if count == 1 else _block(free, count, start, region[1])
    for row, column in block or ():
        free[row, column] = False
        if count > 1:
            start[row] = max(start[row], column + 1)
    return block


def _single(free: np.ndarray, region: tuple[int, int]) -> tuple[Circuit, ...] | None:
    """Return the leftmost free circuit of a region."""
    columns, rows = np.nonzero(free[:, slice(*region)].T)
    return ((int(rows[0]), region[0] + int(columns[0])),) if len(rows) else None


def _block(
    free: np.ndarray, count: int, start: Sequence[int], end: int
) -> tuple[Circuit, ...] | None:
    """Return the tile of `count` circuits that ends leftmost, from `start` of each row on."""
    best: tuple[tuple[int, int, int], tuple[Circuit, ...]] | None = None
    for top in sorted(range(count + 1), key=lambda top: (abs(2 * top - count), -top)):
        bottom = count - top
        if best is not None and min(top, bottom) < count // 2 - 1:
            break
        columns = _overlapping(free, (top, bottom), start, end)
        if columns is None:
            continue
        ends = columns[0] + top if top else start[0], columns[1] + bottom if bottom else start[1]
        rank = (max(ends), abs(2 * top - count), abs(ends[0] - ends[1]))
        if best is None or rank < best[0]:
            circuits = [(0, columns[0] + k) for k in range(top)] + [
                (1, columns[1] + k) for k in range(bottom)
            ]
            best = rank, tuple(circuits)
    return None if best is None else best[1]


def _overlapping(
    free: np.ndarray, lengths: Sequence[int], start: Sequence[int], end: int
) -> tuple[int, int] | None:
    """Return the first columns of two stretches of free circuits, one in each row, that share a
    column (if both exist).
    """
    at = [start[0], start[1]]
    while True:
        for row in range(HEMISPHERES):
            if lengths[row]:
                stretch = _stretch(free[row], lengths[row], at[row], end)
                if stretch is None:
                    return None
                at[row] = stretch
        if not all(lengths):
            return at[0], at[1]
        if at[0] + lengths[0] <= at[1]:
            at[0] = at[1] - lengths[0] + 1
        elif at[1] + lengths[1] <= at[0]:
            at[1] = at[0] - lengths[1] + 1
        else:
            return at[0], at[1]


def _stretch(free: np.ndarray, length: int, start: int, end: int) -> int | None:
    """Return the first column at or right of `start` from which `length` circuits are free."""
    column = start
    while column + length <= end:
        occupied = np.flatnonzero(~free[column : column + length])
        if not len(occupied):
            return column
        column += int(occupied[-1]) + 1
    return None
