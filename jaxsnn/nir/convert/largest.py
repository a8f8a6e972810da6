"""A Threshold of spikes, as the largest of a window is written, as neurons that importers take.

Sums of spikes are whole numbers: what is above a threshold between 0 and 1 is 1 or more. A neuron
that is put to 0 by its own spike, in the same step, starts each step at 0, and fires where 1 or
more arrives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsnn.nir.convert.draft import WEIGHTED, Draft
from jaxsnn.nir.convert.step import Step
from jaxsnn.nir.nodes import SPIKING

#: Nodes that make whole numbers of whole numbers.
_WHOLE = ("SumPool2d", "Flatten")
_FIRES = tuple(cls.__name__ for cls in SPIKING)


def thresholds_as_neurons(draft: Draft, steps: Mapping[str, Step]) -> dict[str, Step]:
    """The steps of the neurons that Thresholds of spikes become; others stay.

    Args:
        draft: Edited in place.
        steps: Of the source's neurons.
    """
    found = {}
    for name in draft.of_type("Threshold"):
        shape = draft.shapes[name][1]
        threshold = np.broadcast_to(np.asarray(draft.nodes[name]["threshold"], float), shape).copy()
        if (
            np.any(threshold <= 0)
            or np.any(threshold >= 1)
            or not _counts_spikes(draft, name, steps, found)
        ):
            continue
        zero, one = np.zeros(shape), np.ones(shape)
        found[name] = Step(
            name=name,
            type="IF",
            shape=shape,
            current_based=False,
            decay=one,
            gain=one,
            drive=zero,
            synapse_decay=zero,
            synapse_gain=one,
            bias_ratio=one,
            v_threshold=threshold,
            v_reset=zero,
            v_start=zero,
            i_start=zero,
            level=one,
            reset="value",
            at_equality=False,
            several=False,
            late=False,
        )
    for name, step in found.items():
        entry = {"type": "IF", "r": np.ones(step.shape), "v_threshold": step.v_threshold}
        draft.nodes[name] = entry | {"v_reset": np.zeros(step.shape)}
        draft.changed(
            name,
            "a Threshold of spikes is written as neurons that fire where any spike arrives",
            "importers have no Threshold",
        )
    return found


def _is_whole(entry: Mapping[str, Any]) -> bool:
    """Whether weights make whole numbers from 0 on of whole numbers, as sums over windows do."""
    weight = np.asarray(entry["weight"])
    whole = np.all(weight >= 0) and np.all(weight == np.round(weight))
    return bool(whole) and not np.any(entry.get("bias", 0))


def _counts_spikes(
    draft: Draft, name: str, steps: Mapping[str, Step], found: Mapping[str, Step]
) -> bool:
    """Whether sums of spikes alone arrive at a node."""

    def whole(source: str) -> bool:
        kind = draft.nodes[source]["type"]
        fires = kind in _FIRES and source in steps and steps[source].reset != "none"
        adds = kind in _WHOLE or (kind in WEIGHTED and _is_whole(draft.nodes[source]))
        through = adds and _counts_spikes(draft, source, steps, found)
        return fires or source in found or through

    sources = draft.sources(name)
    return bool(sources) and all(map(whole, sources))
