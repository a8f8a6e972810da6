"""Placers: which neuron is where on the chip. All have one signature, `placement.Placer`.

Those here first tile the chip with as many circuits as each neuron takes, then give neurons of
equal size to tiles. The tile's column decides the only bus on which the neuron can reach others.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from jaxsnn.bss2.chip import HEMISPHERES, Circuit
from jaxsnn.bss2.search.placement import Placement, Placer
from jaxsnn.bss2.search.strategies import Registry
from jaxsnn.bss2.search.task import Task
from jaxsnn.bss2.search.tiling import tile, tile_evenly

Order = Callable[[list[int], np.ndarray], np.ndarray]


def _placed(task: Task, counts: np.ndarray, order: Order | None) -> Placement | None:
    """Tiles the chip, larger neurons first, then gives the tiles of each size to the neurons in an
    order.

    `order` is given the outputs of the tiles and the neurons, both of one size, and returns the
    neurons tile by tile; without it, neurons come from the left as they are.
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
    """Neurons in their order from the left."""
    return _placed(task, counts, None)


def spread(task: Task, counts: np.ndarray, rng: np.random.Generator) -> Placement | None:
    """Each population evenly over the event outputs, so that its targets see it on all buses."""

    def order(outputs: list[int], neurons: np.ndarray) -> np.ndarray:
        rank = _rank_within(np.array(outputs))
        found = np.empty_like(neurons)
        found[np.lexsort((np.array(outputs), rank))] = neurons
        return found

    return _placed(task, counts, order)


def _rank_within(keys: np.ndarray) -> np.ndarray:
    """How many equal keys stand before each."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    first = np.searchsorted(ordered, ordered, side="left")
    rank = np.empty(len(keys), int)
    rank[order] = np.arange(len(keys)) - first
    return rank


def by_connectivity(task: Task, counts: np.ndarray, rng: np.random.Generator) -> Placement | None:
    """Neurons with the most targets first, each on the bus on which its targets receive the least
    so far.
    """
    chip = task.parts.chip
    received = _received(task)
    load = np.zeros((chip.buses, len(task.targets)))

    def order(outputs: list[int], neurons: np.ndarray) -> np.ndarray:
        waiting: list[list[int]] = [[] for _ in range(chip.outputs)]
        for place in range(len(outputs) - 1, -1, -1):
            waiting[outputs[place]].append(place)
        found = np.empty_like(neurons)
        for neuron in neurons[np.argsort(-received[neurons].sum(axis=1), kind="stable")]:
            price = load @ received[neuron]
            open_outputs = [output for output in range(chip.outputs) if waiting[output]]
            output = min(
                open_outputs, key=lambda output: (price[output % chip.buses], -len(waiting[output]))
            )
            found[waiting[output].pop()] = neuron
            load[output % chip.buses] += received[neuron]
        return found

    return _placed(task, counts, order)


def _received(task: Task) -> np.ndarray:
    """(targets, targets) synapses from each neuron on the chip to each other one, as parts of the
    latter's fan-in.
    """
    received = np.zeros((len(task.targets), len(task.targets)))
    sources = np.flatnonzero(task.on_chip >= 0)
    received[task.on_chip[sources]] = task.demand[sources].sum(axis=1)
    return received / np.maximum(task.fan_in, 1)


def annealed(task: Task, counts: np.ndarray, rng: np.random.Generator) -> Placement | None:
    """From `by_connectivity`, swaps neurons of equal size while that evens out what each neuron
    receives on the buses.
    """
    placement = by_connectivity(task, counts, rng)
    if placement is None or len(task.targets) < 2 or not (task.on_chip >= 0).any():
        return placement
    received = _received(task)
    circuits, buses = list(placement.circuits), placement.buses.copy()
    load = np.zeros((placement.chip.buses, len(task.targets)))
    np.add.at(load, buses, received)
    steps = 20 * len(task.targets)
    for step, (one, other) in enumerate(rng.integers(len(task.targets), size=(steps, 2)).tolist()):
        here, there = buses[one], buses[other]
        if here == there or counts[one] != counts[other]:
            continue
        change = received[other] - received[one]
        # what the sum of squares of the loads grows by
        growth = 2 * change @ (load[here] - load[there]) + 2 * change @ change
        heat = 0.01 * (1 - step / steps)
        if growth <= 0 or rng.random() < np.exp(-growth / max(heat, 1e-12)):
            load[here] += change
            load[there] -= change
            buses[one], buses[other] = there, here
            circuits[one], circuits[other] = circuits[other], circuits[one]
    return Placement(chip=placement.chip, circuits=tuple(circuits))


def vendor_fit(task: Task, counts: np.ndarray, rng: np.random.Generator) -> Placement | None:
    """As the vendor's: each neuron at the first anchor with all its circuits free, column after
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


#: Placers by name; `register_placer` adds others, and so do entry points of "jaxsnn.placers".
PLACERS: Registry[Placer] = Registry(
    "placer",
    "jaxsnn.placers",
    {
        "first-fit": first_fit,
        "spread": spread,
        "by-connectivity": by_connectivity,
        "annealed": annealed,
        "vendor": vendor_fit,
    },
)


def register_placer(name: str, function: Placer) -> None:
    """Add a placer, to be chosen by its name: `Portfolio(placers=[name])`, `jaxsnn map --placer`.

    Args:
        name: for a mapping's `method` and the command line.
        function: see `jaxsnn.bss2.search.placement.Placer`.

    Raises:
        UsageError: the name is another placer's.

    >>> register_placer("from the left", first_fit)
    >>> "from the left" in PLACERS
    True
    """
    PLACERS.register(name, function)
