"""Populations whose neurons differ, for an importer that takes one time constant for all: one
population for each.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from jaxsnn.nir.frameworks.source_step import Step
from jaxsnn.nir.model.draft import WEIGHTED, Draft, feedback_of, identity, loops_of

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
