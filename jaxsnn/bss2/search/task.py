"""The task of a placer for one run: neurons, their sources, and the synapses between them."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from jaxsnn.bss2.chip import HEMISPHERES, ROWS_PER_DRIVER, Chip, Dead, check_dead
from jaxsnn.bss2.netlist import Netlist, synapses_of


@dataclass(frozen=True, kw_only=True, eq=False)
class ChipParts:
    """Usable parts of a chip.

    Attributes:
        chip: The chip.
        dead: Dead parts of the chip.
        circuits: (hemispheres, columns) bool: the circuit works.
        rows: (hemispheres, rows) bool: the synapse row and its driver work.
    """

    chip: Chip
    dead: Dead
    circuits: np.ndarray
    rows: np.ndarray

    @functools.cached_property
    def drivers(self) -> np.ndarray:
        """Mask of the drivers with two working rows, (hemispheres, drivers) bool."""
        return np.asarray(
            self.rows.reshape(HEMISPHERES, self.chip.drivers, ROWS_PER_DRIVER).all(axis=2)
        )

    def slots(self, signs: str) -> np.ndarray:
        """Return the number of synapses that a circuit can have, (hemispheres,): rows, or drivers
        where each weight owns both rows.
        """
        return (self.drivers if signs == "free" else self.rows).sum(axis=1)


def usable_parts(chip: Chip, dead: Dead) -> ChipParts:
    """Return the parts of a chip that are not dead.

    Raises:
        ChipError: a dead part does not exist.
    """
    check_dead(chip, dead)
    circuits = np.ones((HEMISPHERES, chip.columns), bool)
    rows = np.ones((HEMISPHERES, chip.rows), bool)
    for circuit in dead.circuits:
        circuits[circuit] = False
    for row in dead.unusable_rows():
        rows[row] = False
    return ChipParts(chip=chip, dead=dead, circuits=circuits, rows=rows)


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """Neurons, sources and synapses of one run, before it is placed.

    Attributes:
        net: The entire netlist.
        parts: Usable parts of the chip.
        signs: "fixed" or "free".
        targets: (targets,) global indices of the neurons on the chip, ascending.
        sources: (sources,) global indices of the neurons and input channels that have synapses on
            them, ascending.
        pre, post: (synapses,) positions in `sources` and in `targets`.
        weight: (synapses,) signed.
    """

    net: Netlist
    parts: ChipParts
    signs: str
    targets: np.ndarray
    sources: np.ndarray
    pre: np.ndarray
    post: np.ndarray
    weight: np.ndarray

    @functools.cached_property
    def on_chip(self) -> np.ndarray:
        """Position in `targets` of each source, (sources,), -1 where the host sends its spikes."""
        if not len(self.targets):
            return np.full(len(self.sources), -1)
        place = np.searchsorted(self.targets, self.sources).clip(max=len(self.targets) - 1)
        return np.where(self.targets[place] == self.sources, place, -1)

    @functools.cached_property
    def demand(self) -> np.ndarray:
        """Number of synapses of the chip, (sources, kinds, targets) int32; kinds are exc and inh,
        or a single kind if signs are free.
        """
        kinds = 1 if self.signs == "free" else 2
        demand = np.zeros((len(self.sources), kinds, len(self.targets)), np.int32)
        demand[self.pre, 0 if kinds == 1 else (self.weight < 0).astype(int), self.post] = (
            synapses_of(self.weight)
        )
        return demand

    @functools.cached_property
    def fan_in(self) -> np.ndarray:
        """Number of synapses of the chip that each neuron needs, (targets,)."""
        units = synapses_of(self.weight)
        return np.bincount(self.post, weights=units, minlength=len(self.targets)).astype(int)

    @functools.cached_property
    def population(self) -> np.ndarray:
        """Number of each neuron's population, (targets,)."""
        return self.net.owner[self.targets]


def task_of(net: Netlist, parts: ChipParts, signs: str, targets: np.ndarray) -> Task:
    """Return the run that has some neurons of a net on the chip."""
    position = np.full(net.size, -1)
    position[targets] = np.arange(len(targets))
    is_inside = position[net.post] >= 0
    feeds = np.zeros(net.size, bool)
    feeds[net.pre[is_inside]] = True
    place = np.cumsum(feeds) - 1
    return Task(
        net=net,
        parts=parts,
        signs=signs,
        targets=np.asarray(targets),
        sources=np.flatnonzero(feeds),
        pre=place[net.pre[is_inside]],
        post=position[net.post[is_inside]],
        weight=net.weight[is_inside].astype(np.int64),
    )


def rank_within(keys: np.ndarray) -> np.ndarray:
    """Return the number of equal keys before each key.

    >>> rank_within(np.array([7, 3, 7, 7])).tolist()
    [0, 0, 1, 2]
    """
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    rank = np.empty(len(keys), int)
    rank[order] = np.arange(len(keys)) - np.searchsorted(ordered, ordered, side="left")
    return rank
