"""Where the neurons of a run are: what a placer is given and returns."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jaxsnn.bss2.chip import HEMISPHERES, Chip, Circuit
from jaxsnn.bss2.search.task import Task
from jaxsnn.errors import MappingError


@dataclass(frozen=True, kw_only=True, eq=False)
class Placement:
    """The circuits of each neuron of a run; the first is the head.

    Attributes:
        chip: the chip.
        circuits: for each target of the task its (row, column), the head first.
    """

    chip: Chip
    circuits: tuple[tuple[Circuit, ...], ...]

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """(hemispheres, targets) circuits of each neuron in each hemisphere."""
        counts = np.zeros((HEMISPHERES, len(self.circuits)), int)
        for number, circuits in enumerate(self.circuits):
            for row, _ in circuits:
                counts[row, number] += 1
        return counts

    @functools.cached_property
    def outputs(self) -> np.ndarray:
        """(targets,) event output of each neuron."""
        return np.array([self.chip.output_of(circuits[0][1]) for circuits in self.circuits], int)

    @functools.cached_property
    def buses(self) -> np.ndarray:
        """(targets,) the bus that each neuron's events can reach."""
        return self.outputs % self.chip.buses


#: A placer: `placer(task, counts, rng)` gives each of the task's targets, in their order, as many
#: circuits as `counts` (targets,) says, or returns None where it finds no room. The circuits of a
#: neuron are side by side in one half of the chip, alive, and no other neuron's. What it draws, it
#: draws from `rng`, so that the same seed gives the same mapping.
Placer = Callable[[Task, np.ndarray, np.random.Generator], Placement | None]


def refuse_misplaced(name: str, task: Task, counts: np.ndarray, placement: Placement) -> None:
    """Refuse a placement that no router can work with.

    Args:
        name: of the placer.
        task: what was placed.
        counts: (targets,) circuits that each neuron was to have.
        placement: what the placer returned.

    Raises:
        MappingError: it is no placement of all neurons, or a neuron has too few or too many
            circuits, or one that is dead, is not on the chip or is another neuron's.
    """
    who, fix = f"placer '{name}'", f"repair the placer, or use another one than '{name}'"
    if not isinstance(placement, Placement):
        kind = type(placement).__name__
        raise MappingError(f"{who} returned a {kind}, not a Placement or None", fix=fix)
    if len(placement.circuits) != len(counts):
        placed = len(placement.circuits)
        raise MappingError(f"{who} placed {placed} of {len(counts)} neurons", fix=fix)
    free = task.parts.circuits.copy()
    for target, circuits, count in zip(task.targets, placement.circuits, counts, strict=True):
        neuron = task.net.neuron(target)
        if len(circuits) != count:
            raise MappingError(
                f"{who} gave {len(circuits)} circuits to {neuron}, it takes {count}", fix=fix
            )
        for row, column in circuits:
            inside = 0 <= row < HEMISPHERES and 0 <= column < free.shape[1]
            if not (inside and free[row, column]):
                raise MappingError(
                    f"{who} gave circuit ({row}, {column}) to {neuron}, which is dead, taken or "
                    f"not among the {HEMISPHERES} x {free.shape[1]} of the chip",
                    fix=fix,
                )
            free[row, column] = False
