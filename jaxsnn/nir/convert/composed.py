"""Neurons that an importer does not have, composed of sums and of neurons that it has.

Every node below computes within a step, but for those that feed back, which act one step later.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.frameworks.source_step import Step
from jaxsnn.nir.model.draft import Draft, feedback_of, scale_inputs

#: What makes a neuron fire whatever else arrives, in units of its v_threshold.
_FORCED = 2.0**30


#: What a reset does that one node cannot.
_DOES = {
    "subtract unless above": "its membrane may stay above v_threshold after its reset",
    "skip": "it is zero at the end of the step after a spike, whatever arrives",
}


def _refuse(step: Step, title: str) -> None:
    """One that several nodes cannot stand for."""
    several = step.shape if len(step.shape) != 1 else None
    only = "neurons of one axis" if several else "membranes that start at 0"
    given = f"the shape {several}" if several else f"V = {step.v_start.flat[0]:g} at first"
    raise ConversionError(
        f"node '{step.name}': {_DOES[step.reset]}, for which {title} has no neuron; several nodes do"
        f" the same for {only}, and this one has {given}",
        fix="flatten what feeds it" if several else "let its membrane start at 0",
        node=step.name,
    )


def composed(
    draft: Draft, steps: dict[str, Step], kinds: Collection[str], title: str
) -> dict[str, Step]:
    """Write populations whose reset is one of some kinds as several nodes; the steps of all.

    Left alone, and to the writers to refuse: populations with a synaptic current.

    Args:
        draft: Edited in place.
        steps: Of the source.
        kinds: "subtract unless above" and "skip" are known here.
        title: The framework, for messages.
    """
    found: dict[str, Step] = {}
    for name, step in steps.items():
        if step.reset not in kinds or step.current_based:
            found[name] = step
            continue
        if len(step.shape) != 1 or np.any(step.v_start):
            _refuse(step, title)
        own = feedback_of(draft, name)
        write = _write_unless_above if step.reset == "subtract unless above" else _write_skip
        found |= write(draft, step, own)
        why = f"{title}'s importer has no neuron with that reset"
        draft.changed(name, "is written as several nodes, which together do the same", why)
    return found


def _write_unless_above(draft: Draft, step: Step, own: list[str]) -> dict[str, Step]:
    """snnTorch's reset_delay false, with R for a membrane that was above threshold after the last
    step:

        u = k v + x;   S = u - th R > th;   v = u - th S;   R' = v > th

    S and R are neurons that keep nothing of their membrane, u and v are sums.
    """
    name, size = step.name, step.shape[0]
    scale_inputs(draft, name, step.gain, step.drive, step.bias_ratio)
    before, after, above = (draft.free(f"{name}_{part}") for part in ("membrane", "rest", "high"))
    for sum_node in (before, after):
        _matrix(draft, sum_node, np.ones(size))
    draft.edges = [(source, before if target == name else target) for source, target in draft.edges]
    threshold = step.v_threshold
    draft.nodes[above] = dict(draft.nodes[name])
    draft.shapes[above] = draft.shapes[name]
    _join(draft, before, name, np.ones(size), "compare")
    draft.edges.append((before, after))
    _join(draft, name, after, -threshold, "taken")
    _join(draft, after, above, np.ones(size), "check")
    back = _join(draft, above, name, -threshold, "reset")
    leak = _join(draft, after, before, step.decay, "leak")
    draft.delayed += [(back, name), (leak, before), *((weights, before) for weights in own)]
    comparator = _comparator(step)
    return {name: comparator, above: dataclasses.replace(comparator, name=above)}


def _write_skip(draft: Draft, step: Step, own: list[str]) -> dict[str, Step]:
    """A step after each spike that ends at 0 and has no spike, whatever arrives.

    What fired is made to fire, and so to reset, once more, and that spike is taken out again:

        Z = fires with x + large O';   O = Z - O'       (O' of the step before)
    """
    name, size = step.name, step.shape[0]
    out = draft.free(f"{name}_spikes")
    draft.edges = [(out if source == name else source, target) for source, target in draft.edges]
    _matrix(draft, out, np.ones(size))
    draft.edges.append((name, out))
    undone = _join(draft, out, out, -np.ones(size), "undone")
    large = _FORCED * step.v_threshold / np.abs(step.gain)
    forced = _join(draft, out, name, large, "forced")
    draft.delayed += [(undone, out), (forced, name), *((weights, name) for weights in own)]
    return {name: dataclasses.replace(step, reset="value")}


def _comparator(step: Step) -> Step:
    """The neurons of a step, without a membrane that lasts."""
    none, one = np.zeros(step.shape), np.ones(step.shape)
    return dataclasses.replace(
        step,
        type="LIF",
        decay=none,
        gain=one,
        drive=none,
        bias_ratio=one,
        v_reset=none,
        v_start=none,
        reset="value",
    )


def _join(draft: Draft, source: str, target: str, diagonal: np.ndarray, part: str) -> str:
    """Put weights of a diagonal between two nodes; their name."""
    name = draft.free(f"{source}_{part}")
    _matrix(draft, name, diagonal)
    draft.edges += [(source, name), (name, target)]
    return name


def _matrix(draft: Draft, name: str, diagonal: np.ndarray) -> None:
    draft.nodes[name] = {"type": "Linear", "weight": np.diag(diagonal)}
    draft.shapes[name] = ((diagonal.size,), (diagonal.size,))
