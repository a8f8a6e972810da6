"""Populations that an importer cannot take as they are: Thresholds, neurons that start or rest
elsewhere than the importer's, and neurons of several time constants.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsnn.nir.frameworks.source_step import Step
from jaxsnn.nir.model.draft import WEIGHTED, Draft, feedback_of, identity, loops_of, scale_inputs
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


#: Time constants count as equal up to this many digits of the decay.
_DIGITS = 12


def alike(
    draft: Draft, steps: dict[str, Step], title: str, *, loops: bool = False
) -> dict[str, Step]:
    """Split populations so that the neurons of each decay alike, and join their spikes again.

    Left alone, and to the writers to refuse: channels whose neurons differ among themselves, and
    without `loops` populations of a loop, whose edges would then take steps in an order of the
    importer's own.

    Args:
        draft: Edited in place.
        steps: Of the source.
        title: The framework, for messages.
        loops: The importer runs loops through several nodes.
    """
    looped = {name for part in loops_of(draft) for name in part}
    found: dict[str, Step] = {}
    for name, step in steps.items():
        groups = _groups(step)
        if len(groups) < 2 or (name in looped and not loops):
            found[name] = step
            continue
        own = feedback_of(draft, name) if name in looped else []
        found |= _split(draft, step, groups, own)
        why = f"{title}'s importer takes one time constant for all neurons of a node"
        draft.changed(name, f"is written as {len(groups)} nodes, whose spikes '{name}' joins", why)
    return found


def _groups(step: Step) -> list[np.ndarray]:
    """Channels by their decays, in the order of their first channel; one group where a channel has
    several.
    """
    rows = np.stack([step.decay, step.synapse_decay]).reshape(2, step.shape[0], -1).round(_DIGITS)
    if np.any(rows != rows[..., :1]):
        return [np.arange(step.shape[0])]
    groups: dict[bytes, list[int]] = {}
    for channel in range(step.shape[0]):
        groups.setdefault(rows[:, channel, 0].tobytes(), []).append(channel)
    return [np.array(group) for group in groups.values()]


def _split(draft: Draft, step: Step, groups: list[np.ndarray], own: list[str]) -> dict[str, Step]:
    """The parts; edges from `own`, the weights of its loop, act a step later."""
    name, found = step.name, {}
    sources, inward = draft.sources(name), draft.shapes[name][0]
    old = draft.nodes[name]
    alone = [
        draft.nodes[source]["type"] in WEIGHTED and draft.targets(source) == [name]
        for source in sources
    ]
    for number, group in enumerate(groups):
        part = draft.free(f"{name}_{number}")
        draft.nodes[part] = {key: _taken(value, group, step.shape) for key, value in old.items()}
        shape = (len(group), *inward[1:])
        draft.shapes[part] = (shape, shape)
        found[part] = _part(step, part, group)
        for source, weighted in zip(sources, alone, strict=True):
            rows = draft.free(f"{source}_{part}")
            entry = draft.nodes[source] if weighted else identity(inward)
            fed = draft.sources(source) if weighted else [source]
            draft.nodes[rows] = {
                key: np.asarray(value)[group] if key in ("weight", "bias") else value
                for key, value in entry.items()
            }
            draft.shapes[rows] = (draft.shapes[source][0] if weighted else inward, shape)
            draft.edges += [(before, rows) for before in fed] + [(rows, part)]
            if source in own:
                draft.delayed.append((rows, part))
        places = draft.free(f"{part}_places")
        draft.nodes[places] = _columns(identity(inward), group)
        draft.shapes[places] = (shape, inward)
        draft.edges += [(part, places), (places, name)]
    draft.edges = [
        edge for edge in draft.edges if edge not in [(source, name) for source in sources]
    ]
    draft.delayed = [edge for edge in draft.delayed if edge[1] != name]
    for source, weighted in zip(sources, alone, strict=True):
        if weighted:
            del draft.nodes[source]
            draft.edges = [edge for edge in draft.edges if source not in edge]
    draft.nodes[name] = identity(inward)
    return found


def _taken(value: Any, group: np.ndarray, shape: tuple[int, ...]) -> Any:
    """The entries of a group, where a parameter has one for each channel; else the parameter."""
    array = np.asarray(value) if not isinstance(value, str | dict) else None
    return value if array is None or array.shape != shape else array[group]


def _part(step: Step, name: str, group: np.ndarray) -> Step:
    """The step of some channels, with the mean of decays that differ by rounding only."""
    arrays = {field.name: getattr(step, field.name) for field in dataclasses.fields(step)}
    taken = {key: value[group] for key, value in arrays.items() if isinstance(value, np.ndarray)}
    return dataclasses.replace(step, name=name, shape=(len(group), *step.shape[1:]), **taken)


def _columns(entry: dict, group: np.ndarray) -> dict:
    return entry | {"weight": np.asarray(entry["weight"])[:, group]}
