"""All settings of a hemisphere of a small chip, for the exhaustive search: what the drivers of its
only bus can single out of what arrives.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np

from jaxsnn.bss2.chip import Chip
from jaxsnn.bss2.search.task import Task


@dataclass(frozen=True, kw_only=True)
class HemisphereSetting:
    """How a hemisphere may be set.

    Attributes:
        alone: for each driver, the sources that its synapses can single out.
        passing: mask and target of the node from the neurons, None where it drops all.
        codes: (source, code) of the external sources that are sent here.
        masks: compare masks of the drivers.
    """

    alone: tuple[int, ...]
    passing: tuple[int, int] | None
    codes: tuple[tuple[int, int], ...]
    masks: tuple[int, ...]

    @property
    def reached(self) -> int:
        """The sources that some driver singles out."""
        return functools.reduce(int.__or__, self.alone)


def settings_of(task: Task, addresses: tuple[int, ...]) -> list[HemisphereSetting]:
    """The settings of a hemisphere, without those that single out less than another one."""
    chip = task.parts.chip
    external = [int(one) for one in np.flatnonzero(task.on_chip < 0)]
    source_of = {int(neuron): number for number, neuron in enumerate(task.on_chip) if neuron >= 0}
    passes: dict[tuple[int, ...], tuple[int, int] | None] = {(): None}
    if source_of:
        space = range(1 << chip.address_bits)
        for mask, target in itertools.product(space, space):
            passed = tuple(one for one, address in enumerate(addresses) if address & mask == target)
            passes.setdefault(passed, (mask, target))
    found: dict[tuple[int, ...], HemisphereSetting] = {}
    for passed, node in passes.items():
        bus = {addresses[neuron]: source_of.get(neuron, -1) for neuron in passed}
        for masks in itertools.product(
            range(1 << chip.row_select_bits), repeat=chip.drivers_per_bus
        ):
            by_label = [
                _label_options(chip, bus, masks, label, external) for label in range(chip.labels)
            ]
            for parts in itertools.product(*by_label):
                codes = tuple(itertools.chain.from_iterable(part[1] for part in parts))
                if len({source for source, _ in codes}) == len(codes):
                    alone = tuple(
                        functools.reduce(int.__or__, sides)
                        for sides in zip(*(part[0] for part in parts), strict=True)
                    )
                    if alone not in found:
                        found[alone] = HemisphereSetting(
                            alone=alone, passing=node, codes=codes, masks=masks
                        )
    return [one for one in found.values() if not any(_covers(other, one.alone) for other in found)]


def _covers(more: tuple[int, ...], less: tuple[int, ...]) -> bool:
    return more != less and all(one & other == other for one, other in zip(more, less, strict=True))


def _label_options(
    chip: Chip, bus: dict[int, int], masks: tuple[int, ...], label: int, external: list[int]
) -> list[tuple[tuple[int, ...], tuple[tuple[int, int], ...]]]:
    """What drivers can single out by one label, and the external sources that are given codes with
    it.
    """
    codes = [select << chip.label_bits | label for select in range(1 << chip.row_select_bits)]
    free = [code for code in codes if code not in bus]
    found: dict[tuple[int, ...], tuple[tuple[int, int], ...]] = {}
    for size in range(min(len(free), len(external)) + 1):
        for chosen in itertools.permutations(external, size):
            for given in itertools.combinations(free, size):
                arriving = bus | dict(zip(given, chosen, strict=True))
                alone = []
                for index, mask in enumerate(masks):
                    accepted = [
                        arriving[c]
                        for c in codes
                        if c in arriving and (c >> chip.label_bits) & mask == index & mask
                    ]
                    single = len(accepted) == 1 and accepted[0] >= 0
                    alone.append(1 << accepted[0] if single else 0)
                found.setdefault(tuple(alone), tuple(zip(chosen, given, strict=True)))
    return list(found.items())
