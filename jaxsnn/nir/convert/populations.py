"""Populations that an importer cannot take as they are: Thresholds, neurons that start or rest
elsewhere than the importer's, and neurons of several time constants.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.convert.layers import add_flatten
from jaxsnn.nir.convert.passes import Condition, Conversion
from jaxsnn.nir.convert.topology import recurrent_nodes, refuse_for
from jaxsnn.nir.dialects.steps import refuse_firing_at_rest, step_of
from jaxsnn.nir.frameworks.source_step import Step
from jaxsnn.nir.model.draft import WEIGHTED, Draft, feedback_of, identity, scale_inputs
from jaxsnn.nir.model.nodes import SPIKING
from jaxsnn.units import format_time
from jaxsnn.wording import Text

_FIRES = tuple(cls.__name__ for cls in SPIKING)
#: Threshold that replaces 0, so that neurons at rest are below it: far smaller than sums of
#: weights, in any unit.
_ABOVE_ZERO = 2.0**-60


def resolve_steps(conversion: Conversion) -> None:
    """Compute one time step of each population of the source.

    Raises:
        ConversionError: Populations whose time step has no supported form, all in one exception.
        DialectError: The dialect does not specify everything that a time step depends on.
    """
    source, importer = conversion.source, conversion.importer
    if any(rule.is_continuous for rule in conversion.rules.values()):
        length = format_time(source.dialect.dt or 0)
        conversion.draft.losses.append(
            Text("continuous time is divided into steps of {dt}", dt=length)
        )
    readouts = conversion.request.maps("LI") or {"loops", "forks"} <= {*importer.wiring}
    problems = []
    for name, rule in conversion.rules.items():
        if name not in conversion.draft_names:
            continue
        draft_name = conversion.draft_names[name]
        try:
            shape = conversion.draft.shapes[draft_name][1]
            step = step_of(rule, shape, readouts=readouts)
            refuse_firing_at_rest(rule)
            if step.floor is not None and "floor" not in importer.does(step):
                reason = Text(
                    "its membrane potential has the lower bound {value:g}, and the importer supports no "
                    "lower bound",
                    value=step.floor,
                )
                conversion.give_up(draft_name, reason, "the membrane potential has no lower bound")
                step = dataclasses.replace(step, floor=None)
            conversion.steps[draft_name] = dataclasses.replace(step, name=draft_name)
        except ConversionError as error:
            problems.append(error.problem)
    refuse_for(conversion.target, problems)


def replace_thresholds(conversion: Conversion) -> None:
    """Write Thresholds as neurons that fire if the input of a time step exceeds their threshold.

    These neurons have no memory between time steps. Sums of spikes are integers, so that a threshold
    between two integers is equivalent to the lower one and robust to rounding. If layers of the source
    framework delay spikes, such a neuron would add a delay, so Thresholds remain.

    Raises:
        ConversionError: A threshold of at most 0 needs a bias, but its weights are shared.
    """
    if any(step.late for step in conversion.steps.values()):
        return
    draft = conversion.draft
    neurons: dict[str, Step] = {}
    for name in draft.of_type("Threshold"):
        shape = draft.shapes[name][1]
        threshold = np.broadcast_to(np.asarray(draft.nodes[name]["threshold"], float), shape)
        zeros, ones = np.zeros(shape), np.ones(shape)
        if _counts_spikes(draft, name, conversion.steps | neurons):
            threshold = np.where(threshold == np.round(threshold), threshold + 0.5, threshold)
        # A neuron rests at 0, so its threshold must be positive: a threshold t < 0 becomes -t, and
        # a bias adds -2 t to the input.
        raised = np.where(threshold < 0, -2 * threshold, 0.0)
        threshold = np.where(threshold == 0, _ABOVE_ZERO, np.abs(threshold))
        scale_inputs(draft, name, ones, raised, ones)
        neurons[name] = Step(
            name=name,
            type="LIF",
            shape=shape,
            current_based=False,
            decay=zeros,
            gain=ones,
            drive=zeros,
            synapse_decay=zeros,
            synapse_gain=ones,
            bias_ratio=ones,
            v_threshold=threshold,
            v_reset=zeros,
            v_start=zeros,
            i_start=zeros,
            level=ones,
            reset="value",
            at_equality=False,
            several=False,
            late=False,
        )
        numbers = {"r": ones, "v_threshold": threshold, "v_reset": zeros}
        draft.nodes[name] = {"type": "LIF", **numbers}
        draft.changed(
            name,
            "a Threshold is written as neurons without memory between time steps",
            "importers do not support Threshold",
        )
    conversion.steps |= neurons


def _counts_spikes(draft: Draft, name: str, steps: Mapping[str, Step]) -> bool:
    """Return whether all inputs of a node are sums of spikes: integers of at least 0."""
    sources = draft.sources(name)
    for source in sources:
        entry = draft.nodes[source]
        if entry["type"] == "Threshold":
            continue
        if entry["type"] in _FIRES and source in steps and steps[source].reset != "none":
            continue
        if entry["type"] in WEIGHTED:
            weight = np.asarray(entry["weight"])
            counts = np.all(weight >= 0) and np.all(weight == np.round(weight))
            adds = bool(counts) and not np.any(entry.get("bias", 0))
        else:
            adds = entry["type"] in ("SumPool2d", "Flatten")
        if not (adds and _counts_spikes(draft, source, steps)):
            return False
    return bool(sources)


#: Constant inputs of the two neurons that set an initial state. They do not leak and their
#: v_threshold is 1, so that the first fires in the first time step, the second one step later.
_DRIVE = (1.5, 0.75)
#: Weight by which each of these neurons inhibits itself, so that it fires only once.
_SILENCED = 2.0**30
_NEGLIGIBLE = 1e-9


def set_initial_state(conversion: Conversion) -> None:
    """Let neurons start and rest at v_reset, and set their initial state by input of added neurons.

    Some importers start membranes where they reset, and currents at 0. A pair of neurons that fire in
    the first step and in the second one, and never again, moves them to where the source starts.
    Populations of several axes and those without a v_reset are not changed; the writers reject them.
    """
    steps: dict[str, Step] = {}
    for name, step in conversion.steps.items():
        if not _needs_start(step):
            steps[name] = step
            continue
        lasting, passing, constant = _starting_input(step)
        again = -step.synapse_decay * passing if step.current_based else np.zeros_like(passing)
        kicks = np.stack([lasting + passing, again], axis=1)
        pair = _insert_starter(conversion.draft, name, kicks, constant / step.bias_ratio)
        steps[pair.name] = pair
        rest = (1 - step.decay) * step.v_reset if step.current_based else step.drive
        steps[name] = dataclasses.replace(
            step, v_start=step.v_reset, i_start=np.zeros_like(step.i_start), drive=rest
        )
    conversion.steps = steps


def _needs_start(step: Step) -> bool:
    """Return whether a population does not start and rest at v_reset, and added input can
    compensate for that.
    """
    strength = step.gain * step.synapse_gain
    if step.reset != "value" or len(step.shape) != 1 or np.any(strength == 0):
        return False
    small = _NEGLIGIBLE * np.abs(step.v_threshold)
    return any(np.any(np.abs(strength * part) > small) for part in _starting_input(step))


def _starting_input(step: Step) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the inputs that start a population: the input of the first step that persists, the input
    of the first step only, and the input of every step.

    A constant drive of the membrane becomes part of the current: the written current I + drive/gain
    starts at drive/gain.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        passing = step.decay * (step.v_start - step.v_reset) / (step.gain * step.synapse_gain)
        if not step.current_based:
            return np.zeros(step.shape), np.nan_to_num(passing), np.zeros(step.shape)
        current = (step.drive - (1 - step.decay) * step.v_reset) / step.gain
        lasting = step.synapse_decay * (current + step.i_start) / step.synapse_gain
        constant = (1 - step.synapse_decay) * current / step.synapse_gain
    return np.nan_to_num(lasting), np.nan_to_num(passing), np.nan_to_num(constant)


def _insert_starter(draft: Draft, name: str, kicks: np.ndarray, constant: np.ndarray) -> Step:
    """Add the pair of neurons and its outgoing weights, and return its step.

    Args:
        kicks: Inputs in the first and in the second time step, shape (neurons, 2).
        constant: Input in every time step, shape (neurons,).
    """
    (source,) = draft.of_type("Input")
    inward = draft.shapes[source][1]
    pair, size = draft.free(f"{name}_start"), int(np.prod(inward))
    if len(inward) > 1:
        flat = draft.free(f"{pair}_flat")
        add_flatten(draft, source, flat)
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
        "in the importer, membrane potentials start and rest at v_reset; in the source "
        "framework they start or rest elsewhere"
    )
    draft.changed(
        pair,
        Text(
            "two neurons that fire once each, in the first two time steps, set the initial state "
            "of '{node}'",
            node=name,
        ),
        why,
    )
    ones, zeros = np.ones(2), np.zeros(2)
    return Step(
        name=pair, type="IF", shape=(2,), current_based=False, decay=ones, gain=ones, drive=zeros, synapse_decay=zeros,
        synapse_gain=ones, bias_ratio=ones, v_threshold=ones, v_reset=zeros, v_start=zeros, i_start=zeros, level=ones,
        reset="value", at_equality=False, several=False, late=False,
    )  # fmt: skip


#: Number of digits of a decay that must agree for time constants to count as equal.
_DIGITS = 12


def unify_time_constants(conversion: Conversion) -> None:
    """Split populations by time constant, and join their spikes again.

    Not changed are channels whose neurons have different time constants, and populations in a loop if
    the importer does not run nodes in the order of their names, because a different edge would be
    delayed. The writers reject these.
    """
    draft = conversion.draft
    steps: dict[str, Step] = {}
    recurrent = recurrent_nodes(draft)
    for name, step in conversion.steps.items():
        groups = _groups(step)
        if len(groups) < 2 or (name in recurrent and conversion.importer.order != "names"):
            steps[name] = step
            continue
        feedback = feedback_of(draft, name) if name in recurrent else []
        steps |= _split(draft, step, groups, feedback)
        why = f"{conversion.title}'s importer supports one time constant per node"
        draft.changed(
            name,
            Text(
                "is written as {count} nodes, whose spikes are joined in '{node}'",
                count=len(groups),
                node=name,
            ),
            why,
        )
    conversion.steps = steps


def _groups(step: Step) -> list[np.ndarray]:
    """Return channels by their decays, in the order of their first channel; one group where a channel has
    several.
    """
    rows = np.stack([step.decay, step.synapse_decay]).reshape(2, step.shape[0], -1).round(_DIGITS)
    if np.any(rows != rows[..., :1]):
        return [np.arange(step.shape[0])]
    groups: dict[bytes, list[int]] = {}
    for channel in range(step.shape[0]):
        groups.setdefault(rows[:, channel, 0].tobytes(), []).append(channel)
    return [np.array(group) for group in groups.values()]


def _split(
    draft: Draft, step: Step, groups: list[np.ndarray], feedback: list[str]
) -> dict[str, Step]:
    """Split a population and return the steps of its parts.

    Edges from `feedback`, the weights of its loop, act a step later.
    """
    name = step.name
    parts: dict[str, Step] = {}
    sources, inward = draft.sources(name), draft.shapes[name][0]
    old = draft.nodes[name]
    alone = [
        draft.nodes[source]["type"] in WEIGHTED and draft.targets(source) == [name]
        for source in sources
    ]
    for number, group in enumerate(groups):
        part = draft.free(f"{name}_{number}")
        draft.nodes[part] = {key: _select(value, group, step.shape) for key, value in old.items()}
        shape = (len(group), *inward[1:])
        draft.shapes[part] = (shape, shape)
        arrays = {
            field.name: value[group]
            for field in dataclasses.fields(step)
            if isinstance(value := getattr(step, field.name), np.ndarray)
        }
        parts[part] = dataclasses.replace(step, name=part, shape=shape, **arrays)
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
            if source in feedback:
                draft.delayed.append((rows, part))
        places = draft.free(f"{part}_places")
        entry = identity(inward)
        draft.nodes[places] = entry | {"weight": np.asarray(entry["weight"])[:, group]}
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
    return parts


def _select(value: Any, group: np.ndarray, shape: tuple[int, ...]) -> Any:
    """Return the entries of a group, where a parameter has one for each channel; else the parameter."""
    array = np.asarray(value) if not isinstance(value, str | dict) else None
    return value if array is None or array.shape != shape else array[group]


NO_THRESHOLDS = Condition(
    "no node is a Threshold, unless layers of the source framework delay spikes by one time step",
    lambda conversion: (
        any(step.late for step in conversion.steps.values())
        or not conversion.draft.of_type("Threshold")
    ),
)
STARTS_AT_RESET = Condition(
    "neurons start and rest at v_reset, except those of several axes and those without a v_reset",
    lambda conversion: not any(_needs_start(step) for step in conversion.steps.values()),
)
ONE_TIME_CONSTANT = Condition(
    "neurons of a node have equal time constants, except in loops that the importer runs "
    "in a different order",
    lambda conversion: all(
        len(_groups(step)) < 2
        or (name in recurrent_nodes(conversion.draft) and conversion.importer.order != "names")
        for name, step in conversion.steps.items()
    ),
)
