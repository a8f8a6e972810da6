"""Resets that an importer's neurons do not have, written with further neurons and weights: several
spikes in a step, resets that several nodes do together, and subtractions in another step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.frameworks.source_step import Reset, Step
from jaxsnn.nir.model.draft import (
    POOLS,
    WEIGHTED,
    Draft,
    dense_groups,
    feedback_of,
    identity,
    loops_of,
    scale_inputs,
    weighted_feeder,
)

_WHY = "one neuron of the target fires one spike a step, and the source's up to {} here"


def spread(
    draft: Draft, steps: Mapping[str, Step], most: Mapping[str, int], subtracts: Sequence[str]
) -> dict[str, Step]:
    """Write each neuron that fires several spikes in a step as copies.

    Args:
        draft: Edited in place.
        steps: Of the source.
        most: The most spikes of each neuron in a step.
        subtracts: When the target's neurons subtract, see `Importer.subtraction`, where each copy is
            reset by its own spike only, so that a loop between the copies does the rest; else empty.
    """
    found = dict(steps)
    if any(copies > 1 for copies in most.values()):
        dense_groups(draft, "copies of a neuron are further channels, which belong to no group")
    for name, step in steps.items():
        copies = most[name]
        if copies == 1:
            continue
        for source in draft.sources(name):
            feeder = weighted_feeder(draft, source, name, False)
            _copy_rows(draft, feeder, copies)
            if draft.targets(feeder) == [source] and source != feeder:
                _lengthen(draft, source, copies)  # a Flatten between them
        _copy_columns(draft, name, copies)
        inward, outward = draft.shapes[name]
        draft.shapes[name] = (
            (inward[0] * copies, *inward[1:]),
            (outward[0] * copies, *outward[1:]),
        )
        levels = np.repeat(np.arange(1.0, copies + 1), step.shape[0])
        levels = np.broadcast_to(
            levels.reshape((-1,) + (1,) * (len(step.shape) - 1)), draft.shapes[name][1]
        )
        found[name] = _copied(step, copies, levels)
        if subtracts:
            found[name] = _looped(draft, step, found[name], copies, "later" in subtracts)
        draft.changed(
            name,
            f"each neuron is written as {copies}, with v_threshold times 1 to {copies}",
            _WHY.format(copies),
        )
    return found


def _copied(step: Step, copies: int, levels: np.ndarray) -> Step:
    arrays = {field.name: getattr(step, field.name) for field in dataclasses.fields(step)}
    tiled = {
        key: np.tile(value, (copies,) + (1,) * (value.ndim - 1))
        for key, value in arrays.items()
        if isinstance(value, np.ndarray)
    }
    tiled["v_threshold"] = tiled["v_threshold"] * levels
    return dataclasses.replace(step, shape=levels.shape, **(tiled | {"level": levels}))


def _looped(draft: Draft, step: Step, copied: Step, copies: int, later: bool) -> Step:
    """Copies that reset by what all of them fire, through weights: each spike takes v_threshold off
    all membranes.
    """
    if step.current_based or len(step.shape) != 1 or step.reset != "subtract":
        raise ConversionError(
            f"node '{step.name}' may fire {copies} spikes in a step, "
            f"which the importer's recurrent LIF could share among {copies} neurons, "
            f"but not those of a {step.type} of shape {step.shape}",
            fix="use a LIF of one axis, or smaller weights",
            node=step.name,
        )
    size, gain = step.shape[0], copied.gain[:, None]
    taken = np.tile(np.diag(step.decay * step.v_threshold), (copies, copies))
    name = draft.free(f"{step.name}_shared")
    own = copied.v_threshold if later else copied.decay * copied.v_threshold
    draft.nodes[name] = {"type": "Linear", "weight": (np.diag(own) - taken) / gain}
    draft.shapes[name] = ((size * copies,), (size * copies,))
    draft.edges += [(step.name, name), (name, step.name)]
    reset: Reset = "subtract later" if later else "subtract"
    return dataclasses.replace(copied, reset=reset, several=False)


def _copy_rows(draft: Draft, name: str, copies: int) -> None:
    entry = draft.nodes[name]
    weight = np.asarray(entry["weight"])
    entry["weight"] = np.tile(weight, (copies,) + (1,) * (weight.ndim - 1))
    if "bias" in entry:
        entry["bias"] = np.tile(entry["bias"], copies)
    inward, outward = draft.shapes[name]
    draft.shapes[name] = (inward, (outward[0] * copies, *outward[1:]))


def _lengthen(draft: Draft, name: str, copies: int) -> None:
    """Let a Flatten or a pool take so many times the channels."""
    inward, outward = draft.shapes[name]
    draft.shapes[name] = (
        (inward[0] * copies, *inward[1:]),
        (outward[0] * copies, *outward[1:]),
    )
    if draft.nodes[name]["type"] == "Flatten":
        draft.nodes[name] |= {"input_type": np.array(draft.shapes[name][0])}


def _copy_columns(draft: Draft, name: str, copies: int) -> None:
    """Give what follows a node the same weights for each copy of its output."""
    for target in draft.targets(name):
        entry = draft.nodes[target]
        alone = len(draft.sources(target)) == 1
        if entry["type"] in ("Flatten", *POOLS) and alone:
            _copy_columns(draft, target, copies)
            _lengthen(draft, target, copies)
            continue
        if entry["type"] not in WEIGHTED or not alone:
            target = draft.insert((name, target), f"{name}_sum", identity(draft.shapes[name][1]))
            entry = draft.nodes[target]
        weight = np.asarray(entry["weight"])
        entry["weight"] = np.tile(weight, (1, copies) + (1,) * (weight.ndim - 2))
        inward, outward = draft.shapes[target]
        draft.shapes[target] = ((inward[0] * copies, *inward[1:]), outward)


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
