"""Leaky integrators for importers that have none: weights that feed themselves.

    y(t) = x(t) + k y(t-1)

is a node that sums, and a Linear of diag(k) from it to itself, which every importer that runs loops
delays by a step. A readout is one of them; with a synaptic current, two in a row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.frameworks.source_step import Step
from jaxsnn.nir.model.draft import Draft, loops_of, scale_inputs


def integrated(
    draft: Draft, steps: dict[str, Step], give_up: Callable[[str, str, str], None]
) -> dict[str, Step]:
    """Write what gives its membrane as weights that feed themselves; the other steps.

    Args:
        draft: Edited in place.
        steps: Of the source.
        give_up: For a current that does not start at 0.
    """
    rest: dict[str, Step] = {}
    for name, step in steps.items():
        if step.reset != "none":
            rest[name] = step
            continue
        if len(step.shape) != 1:
            raise ConversionError(
                f"node '{name}' gives membranes of shape {step.shape}, which weights that feed "
                "themselves can do for one axis",
                fix="flatten what feeds it",
                node=name,
            )
        if np.any(step.i_start):
            give_up(name, "its current does not start at 0", "it starts at 0")
        _write_readout(draft, step)
    return rest


def apart(
    draft: Draft, steps: dict[str, Step], wanted: Callable[[Step], bool], why: str
) -> dict[str, Step]:
    """Write the currents of some populations as weights that feed themselves; they become LIF.

    Left alone: populations of several axes, or that feed themselves, or whose current does not
    start at 0.

    Args:
        draft: Edited in place.
        steps: Of the source.
        wanted: Which ones.
        why: For people.
    """
    looped = {name for part in loops_of(draft) for name in part}
    found = dict(steps)
    for name, step in steps.items():
        plain = len(step.shape) == 1 and name not in looped and not np.any(step.i_start)
        if not (step.current_based and plain and wanted(step)):
            continue
        none, one = np.zeros(step.shape), np.ones(step.shape)
        scale_inputs(draft, name, step.synapse_gain, none, step.bias_ratio)
        _insert_current(draft, step)
        found[name] = dataclasses.replace(
            step,
            type="LIF",
            current_based=False,
            synapse_decay=none,
            synapse_gain=one,
            bias_ratio=one,
        )
        draft.changed(name, "its current is written as weights that feed themselves", why)
    return found


def _insert_current(draft: Draft, step: Step) -> None:
    """Put the current, and weights for what it gives, before a population."""
    name, size = step.name, step.shape[0]
    current, weights = (draft.free(f"{name}_{part}") for part in ("current", "drive"))
    draft.edges = [
        (source, current if target == name else target) for source, target in draft.edges
    ]
    draft.edges += [(current, weights), (weights, name)]
    draft.shapes[current] = draft.shapes[weights] = draft.shapes[name]
    draft.nodes[weights] = {"type": "Linear", "weight": np.eye(size)}
    feed_itself(draft, current, np.diag(step.synapse_decay))


def _write_readout(draft: Draft, step: Step) -> None:
    """The membrane without its start, v - v_start, which is added again behind it."""
    name = step.name
    drive = step.drive - (1 - step.decay) * step.v_start
    drive = np.where(np.abs(drive) < 1e-12 * np.abs(step.v_start), 0.0, drive)
    scale_inputs(draft, name, step.gain * step.synapse_gain, np.zeros(step.shape), step.bias_ratio)
    if step.current_based:
        current = draft.free(f"{name}_current")
        draft.edges = [
            (source, current if target == name else target) for source, target in draft.edges
        ]
        draft.edges.append((current, name))
        draft.shapes[current] = draft.shapes[name]
        feed_itself(draft, current, np.diag(step.synapse_decay))
    if np.any(step.v_start):
        _add_start(draft, name, step.v_start)
    feed_itself(draft, name, np.diag(step.decay), drive)
    draft.changed(
        name,
        f"{step.type} is written as weights that feed themselves",
        "the importer has no neuron that gives its membrane; y = x + k y is the same",
    )


def feed_itself(
    draft: Draft, name: str, weight: np.ndarray, drive: np.ndarray | None = None
) -> None:
    """Make a node that sums what arrives, `drive`, and `weight` times what it was."""
    size, leak = len(weight), draft.free(f"{name}_leak")
    draft.nodes[name] = {"type": "Linear", "weight": np.eye(size)}
    if drive is not None and np.any(drive):
        draft.nodes[name] |= {"type": "Affine", "bias": drive}
    draft.nodes[leak] = {"type": "Linear", "weight": weight}
    draft.shapes[leak] = ((size,), (size,))
    draft.edges += [(name, leak), (leak, name)]
    draft.memories.append(name)


def _add_start(draft: Draft, name: str, start: np.ndarray) -> None:
    """Add where the membrane starts, and rests, behind it."""
    level = draft.free(f"{name}_level")
    draft.edges = [(level if source == name else source, target) for source, target in draft.edges]
    draft.edges.append((name, level))
    draft.nodes[level] = {"type": "Affine", "weight": np.eye(len(start)), "bias": start}
    draft.shapes[level] = draft.shapes[name]
