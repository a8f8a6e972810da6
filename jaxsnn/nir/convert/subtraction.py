"""Resets that subtract the threshold, for an importer that subtracts it at another time.

At once and one step later differ by what the subtracted part would have decayed in between:

    v' = k (v - th) + x = k v + x - th + (1 - k) th

so one is the other plus weights from each neuron to itself, which act one step later.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxsnn.nir.frameworks.source_step import Reset, Step
from jaxsnn.nir.model.draft import Draft, loops_of, weighted_feeder

_RESETS: dict[str, Reset] = {
    "at once": "subtract",
    "later": "subtract later",
    "unless above": "subtract unless above",
}


def subtracting(draft: Draft, steps: dict[str, Step], able: Sequence[str]) -> dict[str, Step]:
    """Steps that subtract as the importer does; the rest is left to the writers to refuse.

    Args:
        draft: Edited in place.
        steps: Of the source; without membranes above threshold after a reset, where "unless above"
            was bounded.
        able: When the importer's neurons subtract, see `Importer.subtraction`.
    """
    ways = [_RESETS[way] for way in able]
    found = dict(steps)
    for name, step in steps.items():
        if step.reset not in ("subtract", "subtract later") or step.reset in ways or step.several:
            continue
        wanted: Reset = "subtract later" if step.reset == "subtract" else "subtract"
        if wanted not in ways or step.current_based or len(step.shape) != 1:
            continue
        sign = 1.0 if wanted == "subtract later" else -1.0
        _add(draft, step, sign * (1 - step.decay) * step.v_threshold / step.gain)
        found[name] = dataclasses.replace(step, reset=wanted)
    return found


def _add(draft: Draft, step: Step, diagonal: np.ndarray) -> None:
    """Add weights from each neuron to itself."""
    if not np.any(diagonal):
        return
    name = step.name
    part = next((part for part in loops_of(draft) if name in part), [])
    if len(part) == 2:
        (weights,) = (other for other in part if other != name)
        if len(draft.targets(weights)) > 1:  # what they feed beside is not reset
            weights = weighted_feeder(draft, weights, name, False)
        entry = draft.nodes[weights]
        entry["weight"] = np.asarray(entry["weight"], float) + np.diag(diagonal)
    else:
        weights = draft.free(f"{name}_reset")
        draft.nodes[weights] = {"type": "Linear", "weight": np.diag(diagonal)}
        draft.shapes[weights] = (draft.shapes[name][1], draft.shapes[name][0])
        draft.edges += [(name, weights), (weights, name)]
        draft.delayed += [(weights, name)] if part else []
    draft.changed(
        weights,
        f"gives '{name}' back what the importer's subtraction of v_threshold takes at another time",
        "the importer subtracts in another step than the source",
    )
