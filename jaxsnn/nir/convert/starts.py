"""Starts and rests of the source where an importer knows none: neurons that fire once, in the first
steps.

Some importers start membranes where they reset, and currents at 0. A pair of neurons
that fire in the first step and in the second one, and never again, moves them from there to where
the source starts.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxsnn.nir.frameworks.source_step import Step
from jaxsnn.nir.model.draft import Draft

#: Constant input of the pair, whose v_threshold is 1 and which does not leak: one fires at once,
#: one a step later.
_DRIVE = (1.5, 0.75)
#: What each takes off itself once it has fired: it is never made up for.
_SILENCED = 2.0**30
_NEGLIGIBLE = 1e-9


def started(draft: Draft, steps: dict[str, Step]) -> dict[str, Step]:
    """Populations that start, and rest in spite of a leak, where they reset; the rest is written as
    input.

    Left alone, and to the writers to refuse: populations with several axes, and those that reset to
    no value.

    Args:
        draft: Edited in place.
        steps: Of the source.
    """
    found: dict[str, Step] = {}
    for name, step in steps.items():
        lasting, passing, constant = _input(step)
        small = _NEGLIGIBLE * np.abs(step.v_threshold)
        strength = step.gain * step.synapse_gain
        needed = any(
            np.any(np.abs(strength * part) > small) for part in (lasting, passing, constant)
        )
        if not needed or step.reset != "value" or len(step.shape) != 1 or np.any(strength == 0):
            found[name] = step
            continue
        again = -step.synapse_decay * passing if step.current_based else np.zeros_like(passing)
        starter = _insert(
            draft, name, np.stack([lasting + passing, again], axis=1), constant / step.bias_ratio
        )
        found[starter.name] = starter
        rest = (1 - step.decay) * step.v_reset if step.current_based else step.drive
        found[name] = dataclasses.replace(
            step, v_start=step.v_reset, i_start=np.zeros_like(step.i_start), drive=rest
        )
    return found


def _input(step: Step) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What must arrive in the first step, to last and for that step alone, and in every step.

    The drive of a membrane is a constant part of its current: I' = I + drive/gain, which starts at
    drive/gain.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        passing = step.decay * (step.v_start - step.v_reset) / (step.gain * step.synapse_gain)
        if not step.current_based:
            return np.zeros(step.shape), np.nan_to_num(passing), np.zeros(step.shape)
        current = (step.drive - (1 - step.decay) * step.v_reset) / step.gain
        lasting = step.synapse_decay * (current + step.i_start) / step.synapse_gain
        constant = (1 - step.synapse_decay) * current / step.synapse_gain
    return np.nan_to_num(lasting), np.nan_to_num(passing), np.nan_to_num(constant)


def _insert(draft: Draft, name: str, kicks: np.ndarray, constant: np.ndarray) -> Step:
    """Add the pair of neurons and what it sends; its step.

    Args:
        kicks: (neurons, 2), what arrives in the first step and in the second.
        constant: (neurons,), what arrives in every step.
    """
    (source,) = draft.of_type("Input")
    inward = draft.shapes[source][1]
    pair, size = draft.free(f"{name}_start"), int(np.prod(inward))
    if len(inward) > 1:
        flat = draft.free(f"{pair}_flat")
        ends = {"start_dim": np.array(-len(inward)), "end_dim": np.array(-1)}
        draft.nodes[flat] = {"type": "Flatten", "input_type": np.array(inward), **ends}
        draft.shapes[flat] = (inward, (size,))
        draft.edges.append((source, flat))
        source = flat
    weights, loop, kick = (draft.free(f"{pair}_{part}") for part in ("weights", "loop", "kick"))
    draft.nodes[weights] = {
        "type": "Affine",
        "weight": np.zeros((2, size)),
        "bias": np.array(_DRIVE),
    }
    draft.nodes[pair] = {
        "type": "IF",
        "r": np.ones(2),
        "v_threshold": np.ones(2),
        "v_reset": np.zeros(2),
    }
    draft.nodes[loop] = {"type": "Linear", "weight": -_SILENCED * np.eye(2)}
    draft.nodes[kick] = {"type": "Affine", "weight": kicks, "bias": constant}
    draft.shapes |= {
        weights: ((size,), (2,)),
        pair: ((2,), (2,)),
        loop: ((2,), (2,)),
        kick: ((2,), constant.shape),
    }
    draft.edges += [
        (source, weights),
        (weights, pair),
        (pair, loop),
        (loop, pair),
        (pair, kick),
        (kick, name),
    ]
    why = (
        "the importer starts its membranes where they reset, "
        "and the source starts or rests elsewhere"
    )
    draft.changed(
        pair, f"two neurons that fire once each, in the first two steps, move '{name}' there", why
    )
    one, none = np.ones(2), np.zeros(2)
    return Step(
        name=pair, type="IF", shape=(2,), current_based=False, decay=one, gain=one, drive=none, synapse_decay=none,
        synapse_gain=one, bias_ratio=one, v_threshold=one, v_reset=none, v_start=none, i_start=none, level=one,
        reset="value", at_equality=False, several=False, late=False,
    )  # fmt: skip
