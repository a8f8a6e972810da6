"""Resets that an importer's neurons do not have, written with further neurons and weights: several
spikes in a step, resets that several nodes do together, and subtractions in another step.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.convert.passes import Condition, Conversion
from jaxsnn.nir.frameworks.source_step import Reset, Step
from jaxsnn.nir.model.draft import (
    POOLS,
    WEIGHTED,
    Draft,
    dense_groups,
    diagonal,
    feedback_of,
    identity,
    loops_of,
    scale_inputs,
    weighted_feeder,
)
from jaxsnn.wording import Text


def copy_bursting_neurons(conversion: Conversion) -> None:
    """Write neurons that fire several spikes per time step as copies that fire one spike each.

    All copies have the neuron's membrane potential; copy j fires where it reaches j times v_threshold.
    The copies' spikes add up to the neuron's, so the following nodes receive each copy with the
    neuron's weights. If a copy in the target is reset only by its own spike, a loop between the copies
    subtracts v_threshold for the spikes of the others.

    Raises:
        ConversionError: Neurons whose copies cannot share a reset.
    """
    draft, steps = conversion.draft, conversion.steps
    if any(copies > 1 for copies in conversion.max_spikes.values()):
        dense_groups(draft, "copies of a neuron are additional channels, which belong to no group")
    for name, copies in conversion.max_spikes.items():
        if copies == 1:
            continue
        step = steps[name]
        for source in draft.sources(name):
            feeder = weighted_feeder(draft, source, name, False)
            _copy_rows(draft, feeder, copies)
            if draft.targets(feeder) == [source] and source != feeder:
                _lengthen(draft, source, copies)  # a Flatten between the weights and the neuron
        _copy_columns(draft, name, copies)
        inward, outward = draft.shapes[name]
        draft.shapes[name] = (
            (inward[0] * copies, *inward[1:]),
            (outward[0] * copies, *outward[1:]),
        )
        steps[name] = _copy_step(step, copies, draft.shapes[name][1])
        if "several" not in conversion.importer.subtracts:
            steps[name] = _share_resets(conversion, step, steps[name], copies)
        draft.changed(
            name,
            Text(
                "each neuron is written as {copies} neurons, with thresholds of 1 to {copies} times "
                "v_threshold",
                copies=copies,
            ),
            Text(
                "neurons of the target framework fire one spike per time step; in the source "
                "framework these neurons fire up to {copies}",
                copies=copies,
            ),
        )
    conversion.max_spikes = dict.fromkeys(conversion.max_spikes, 1)


def _copy_step(step: Step, copies: int, shape: tuple[int, ...]) -> Step:
    """Return the step of all copies, with j times v_threshold for copy j."""
    levels = np.repeat(np.arange(1.0, copies + 1), step.shape[0])
    levels = np.broadcast_to(levels.reshape((-1,) + (1,) * (len(step.shape) - 1)), shape)
    arrays = {
        field.name: np.tile(value, (copies,) + (1,) * (value.ndim - 1))
        for field in dataclasses.fields(step)
        if isinstance(value := getattr(step, field.name), np.ndarray)
    }
    arrays |= {"v_threshold": arrays["v_threshold"] * levels, "level": levels}
    return dataclasses.replace(step, shape=shape, **arrays)


def _share_resets(conversion: Conversion, step: Step, copied: Step, copies: int) -> Step:
    """Add weights through which each spike of a copy subtracts v_threshold from all copies."""
    if step.current_based or len(step.shape) != 1 or step.reset != "subtract":
        raise ConversionError(
            Text(
                "node '{node}' ({type}, shape {shape}) may fire {count} spikes per time step; the "
                "importer fires one, and only a LIF of one axis can be written as {count} neurons",
                node=step.name,
                count=copies,
                type=step.type,
                shape=step.shape,
            ),
            fix="use a LIF with one axis, or smaller weights",
            node=step.name,
        )
    draft, size = conversion.draft, step.shape[0]
    later = "later" in conversion.importer.subtracts
    lost = np.tile(np.diag(step.decay * step.v_threshold), (copies, copies))
    # The neuron's own reset subtracts this already; the weights must not subtract it again.
    already = copied.v_threshold if later else copied.decay * copied.v_threshold
    name = draft.free(f"{step.name}_shared")
    weight = (np.diag(already) - lost) / copied.gain[:, None]
    draft.nodes[name] = {"type": "Linear", "weight": weight}
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
    """Multiply the number of channels of a Flatten or a pool by the number of copies."""
    inward, outward = draft.shapes[name]
    draft.shapes[name] = (
        (inward[0] * copies, *inward[1:]),
        (outward[0] * copies, *outward[1:]),
    )
    if draft.nodes[name]["type"] == "Flatten":
        draft.nodes[name] |= {"input_type": np.array(draft.shapes[name][0])}


def _copy_columns(draft: Draft, name: str, copies: int) -> None:
    """Repeat the weights of the following nodes for each copy of a node's output."""
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


#: Input that makes a neuron fire in any case, in units of its v_threshold.
_FORCED = 2.0**30


#: Descriptions of resets that a single node cannot have.
_RESET_TEXTS = {
    "subtract unless above": "its membrane potential may stay above v_threshold after a reset",
    "skip": "its membrane potential is 0 at the end of the time step after a spike, whatever the "
    "input",
}


def _refuse(step: Step, title: str) -> None:
    """Reject a population that several nodes cannot replace."""
    has_axes = len(step.shape) != 1
    supported = (
        "neurons of one axis" if has_axes else "neurons whose membrane potential starts at 0"
    )
    actual = (
        Text("the shape {shape}", shape=step.shape)
        if has_axes
        else Text("the initial membrane potential {v_start:g}", v_start=step.v_start.flat[0])
    )
    raise ConversionError(
        Text(
            "node '{node}': "
            + _RESET_TEXTS[step.reset]
            + "; {framework} has no neuron with this reset, and several nodes can replace it only "
            "for " + supported + ", but this node has {actual}",
            node=step.name,
            framework=title,
            actual=actual,
        ),
        fix="add a Flatten before it" if has_axes else "start its membrane potential at 0",
        node=step.name,
    )


def compose_resets(conversion: Conversion) -> None:
    """Write populations with a reset that the importer lacks as several nodes.

    Added nodes compute within a time step, except those that feed back, which act one time step
    later. Populations with a synaptic current are not changed; the writers reject them.

    Raises:
        ConversionError: A population has several axes, or its membrane potential does not start at
            0.
    """
    draft, title = conversion.draft, conversion.title
    steps: dict[str, Step] = {}
    for name, step in conversion.steps.items():
        if not _is_composable(conversion, step):
            steps[name] = step
            continue
        if len(step.shape) != 1 or np.any(step.v_start):
            _refuse(step, title)
        feedback = feedback_of(draft, name)
        write = _write_unless_above if step.reset == "subtract unless above" else _write_skip
        steps |= write(draft, step, feedback)
        why = f"{title}'s importer has no neuron with that reset"
        draft.changed(name, "is written as several nodes, which together are equivalent", why)
    conversion.steps = steps


def _is_composable(conversion: Conversion, step: Step) -> bool:
    return "several nodes" in conversion.importer.does(step) and not step.current_based


def _write_unless_above(draft: Draft, step: Step, feedback: list[str]) -> dict[str, Step]:
    """Write snnTorch's reset_delay false, with R for a membrane that was above threshold after the last
    step:

        u = k v + x;   S = u - th R > th;   v = u - th S;   R' = v > th

    S and R are neurons that keep nothing of their membrane, u and v are sums.
    """
    name, size = step.name, step.shape[0]
    scale_inputs(draft, name, step.gain, step.drive, step.bias_ratio)
    before, after, above = (draft.free(f"{name}_{part}") for part in ("membrane", "rest", "high"))
    for sum_node in (before, after):
        _add_diagonal(draft, sum_node, np.ones(size))
    draft.edges = [(source, before if target == name else target) for source, target in draft.edges]
    threshold = step.v_threshold
    draft.nodes[above] = dict(draft.nodes[name])
    draft.shapes[above] = draft.shapes[name]
    _connect(draft, before, name, np.ones(size), "compare")
    draft.edges.append((before, after))
    _connect(draft, name, after, -threshold, "taken")
    _connect(draft, after, above, np.ones(size), "check")
    back = _connect(draft, above, name, -threshold, "reset")
    leak = _connect(draft, after, before, step.decay, "leak")
    draft.delayed += [(back, name), (leak, before), *((weights, before) for weights in feedback)]
    comparator = _comparator(step)
    return {name: comparator, above: dataclasses.replace(comparator, name=above)}


def _write_skip(draft: Draft, step: Step, feedback: list[str]) -> dict[str, Step]:
    """Write neurons whose step after each spike ends at 0 and has no spike, whatever arrives.

    A neuron that fired is forced to fire, and so to reset, once more, and this spike is removed:

        Z = fires with x + large O';   O = Z - O'       (O' of the step before)
    """
    name, size = step.name, step.shape[0]
    out = draft.free(f"{name}_spikes")
    draft.edges = [(out if source == name else source, target) for source, target in draft.edges]
    _add_diagonal(draft, out, np.ones(size))
    draft.edges.append((name, out))
    undone = _connect(draft, out, out, -np.ones(size), "undone")
    large = _FORCED * step.v_threshold / np.abs(step.gain)
    forced = _connect(draft, out, name, large, "forced")
    draft.delayed += [(undone, out), (forced, name), *((weights, name) for weights in feedback)]
    return {name: dataclasses.replace(step, reset="value")}


def _comparator(step: Step) -> Step:
    """Return the step of neurons that have no memory and fire above v_threshold."""
    zeros, ones = np.zeros(step.shape), np.ones(step.shape)
    return dataclasses.replace(
        step,
        type="LIF",
        decay=zeros,
        gain=ones,
        drive=zeros,
        bias_ratio=ones,
        v_reset=zeros,
        v_start=zeros,
        reset="value",
    )


def _connect(draft: Draft, source: str, target: str, diagonal: np.ndarray, part: str) -> str:
    """Put weights of a diagonal between two nodes and return their name."""
    name = draft.free(f"{source}_{part}")
    _add_diagonal(draft, name, diagonal)
    draft.edges += [(source, name), (name, target)]
    return name


def _add_diagonal(draft: Draft, name: str, diagonal: np.ndarray) -> None:
    draft.nodes[name] = {"type": "Linear", "weight": np.diag(diagonal)}
    draft.shapes[name] = ((diagonal.size,), (diagonal.size,))


#: Resets by the time at which the importer's neurons subtract; see `Importer.subtracts`.
_SUBTRACTIONS: dict[str, Reset] = {
    "at once": "subtract",
    "later": "subtract later",
    "unless above": "subtract unless above",
}


def move_subtractions(conversion: Conversion) -> None:
    """Subtract v_threshold in the time step of the importer; weights of each neuron to itself compensate.

    An immediate reset and a reset one step later differ by the decay of the subtracted part in between:

        v' = k (v - th) + x = k v + x - th + (1 - k) th

    so the former is the latter plus weights from each neuron to itself, which act one time step later.
    Recurrent populations with a synaptic current, and those whose neurons differ within a channel,
    are not changed; the writers reject them.
    """
    for name, step in list(conversion.steps.items()):
        reset = _moved_subtraction(conversion, step)
        if reset is None:
            continue
        lost = _lost_between(step, reset)
        if np.any(lost):
            _feed_back(conversion.draft, name, lost)
        conversion.steps[name] = dataclasses.replace(step, reset=reset)


def _moved_subtraction(conversion: Conversion, step: Step) -> Reset | None:
    """Return the reset of the importer that can replace that of a population; None if that is not
    needed or not possible.
    """
    if step.reset not in ("subtract", "subtract later"):
        return None
    available = [_SUBTRACTIONS[time] for time in conversion.importer.subtracts]
    reset: Reset = "subtract later" if step.reset == "subtract" else "subtract"
    if step.several or step.current_based or reset not in available or step.reset in available:
        return None
    if len(step.shape) > 1 and not {"loops", "forks"} <= {*conversion.importer.wiring}:
        return None  # the importer runs loops of one weight matrix only
    return None if diagonal(_lost_between(step, reset)) is None else reset


def _lost_between(step: Step, reset: Reset) -> np.ndarray:
    """Return the weights from each neuron to itself that compensate for another reset, (*shape)."""
    sign = 1.0 if reset == "subtract later" else -1.0
    return sign * (1 - step.decay) * step.v_threshold / step.gain


def _feed_back(draft: Draft, name: str, factors: np.ndarray) -> None:
    """Add weights from each neuron to itself."""
    part = next((part for part in loops_of(draft) if name in part), [])
    feeds_alone = len(part) == 2 and factors.ndim == 1
    if feeds_alone:
        (weights,) = (member for member in part if member != name)
        if len(draft.targets(weights)) > 1:  # other targets must not receive the reset
            weights = weighted_feeder(draft, weights, name, False)
        entry = draft.nodes[weights]
        entry["weight"] = np.asarray(entry["weight"], float) + np.diag(factors)
    else:
        weights = draft.free(f"{name}_reset")
        draft.nodes[weights] = dict(diagonal(factors) or {})
        draft.self_weights.append(weights)
        draft.shapes[weights] = (draft.shapes[name][1], draft.shapes[name][0])
        draft.edges += [(name, weights), (weights, name)]
        draft.delayed += [(weights, name)] if part else []
    draft.changed(
        weights,
        Text(
            "compensates in '{node}' for the later or earlier subtraction of v_threshold",
            node=name,
        ),
        "the importer subtracts v_threshold in a different time step than the source framework",
    )


ONE_SPIKE_PER_STEP = Condition(
    "no neuron fires more spikes per time step than the importer's neurons",
    lambda conversion: all(count == 1 for count in conversion.max_spikes.values()),
)
NO_COMPOSABLE_RESETS = Condition(
    "resets that can be written as several nodes remain only in neurons with a synaptic current",
    lambda conversion: (
        not any(_is_composable(conversion, step) for step in conversion.steps.values())
    ),
)
NO_MOVABLE_SUBTRACTIONS = Condition(
    "v_threshold is subtracted in the same time step as in the importer, wherever "
    "weights can compensate",
    lambda conversion: all(
        _moved_subtraction(conversion, step) is None for step in conversion.steps.values()
    ),
)
