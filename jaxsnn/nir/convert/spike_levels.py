"""Several spikes of one neuron in one step, as one spike each of several neurons.

Copy j of a neuron shares its membrane and fires where the membrane is at j times v_threshold. The
copies' spikes add up to the neuron's, so whatever follows takes each copy with the neuron's
weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.frameworks.source_step import Reset, Step
from jaxsnn.nir.model.draft import POOLS, WEIGHTED, Draft, dense_groups, identity, weighted_feeder

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
