"""A Threshold is written as neurons that importers take: they keep nothing of their membrane from
step to step, so that each fires where what arrives in a step is above its threshold.

Sums of spikes, as the largest of a window takes them, are whole numbers: a threshold between two of
them is as good as the lower one, and no rounding of an importer meets it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsnn.nir.frameworks.source_step import Step
from jaxsnn.nir.model.draft import WEIGHTED, Draft, scale_inputs
from jaxsnn.nir.model.nodes import SPIKING

#: Nodes that make whole numbers of whole numbers.
_WHOLE = ("SumPool2d", "Flatten")
_FIRES = tuple(cls.__name__ for cls in SPIKING)
#: A threshold of 0, which neurons at rest must not reach: far below what weights add, in any unit.
_ABOVE_ZERO = 2.0**-60


def thresholds_as_neurons(draft: Draft, steps: Mapping[str, Step]) -> dict[str, Step]:
    """The steps of the neurons that Thresholds become; others stay.

    Args:
        draft: Edited in place.
        steps: Of the source's neurons.

    Raises:
        ConversionError: A threshold that is not above 0 needs a bias where weights are shared.
    """
    found: dict[str, Step] = {}
    for name in draft.of_type("Threshold"):
        shape = draft.shapes[name][1]
        threshold = np.broadcast_to(np.asarray(draft.nodes[name]["threshold"], float), shape)
        zero, one = np.zeros(shape), np.ones(shape)
        if _counts_spikes(draft, name, steps, found):
            threshold = np.where(threshold == np.round(threshold), threshold + 0.5, threshold)
        # A neuron at rest is below its threshold, which a bias keeps above 0.
        raised = np.where(threshold < 0, -2 * threshold, 0.0)
        threshold = np.where(threshold == 0, _ABOVE_ZERO, np.abs(threshold))
        scale_inputs(draft, name, one, raised, one)
        found[name] = Step(
            name=name,
            type="LIF",
            shape=shape,
            current_based=False,
            decay=zero,
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
        numbers = {"r": one, "v_threshold": threshold, "v_reset": zero}
        draft.nodes[name] = {"type": "LIF", **numbers}
        draft.changed(
            name,
            "a Threshold is written as neurons that keep nothing from step to step",
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
        fires = fires or kind == "Threshold"
        adds = kind in _WHOLE or (kind in WEIGHTED and _is_whole(draft.nodes[source]))
        through = adds and _counts_spikes(draft, source, steps, found)
        return fires or source in found or through

    sources = draft.sources(name)
    return bool(sources) and all(map(whole, sources))
