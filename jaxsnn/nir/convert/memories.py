"""Readouts, synaptic currents and delays for importers that have none: weights that feed themselves.

    y(t) = x(t) + k y(t-1)

is a node that sums, and a Linear of diag(k) from it to itself, which every importer that runs loops
delays by a step. A readout is one of them; with a synaptic current, two in a row. A delay holds what
arrived in this step and in those before, h(t) = [x(t), 0, ...] + shifted h(t-1), and weights take of
each channel what is as old as its delay.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.convert.layers import MOST_WEIGHTS, remove
from jaxsnn.nir.dialects.gains import known
from jaxsnn.nir.frameworks.source_step import Step
from jaxsnn.nir.model.draft import Draft, loops_of, scale_inputs
from jaxsnn.nir.model.graph import Graph


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


#: Delays may differ from whole steps by the rounding of float32, relative.
_TOLERANCE = 2**-18


def in_steps(graph: Graph, name: str) -> np.ndarray:
    """Delays of a Delay in steps.

    Raises:
        ConversionError: One is no whole number of steps.
        DialectError: How long a step is, or the unit of time, is unknown.
    """
    seconds, dt = (
        known(graph.dialect, field, "a delay in steps", name) for field in ("seconds", "dt")
    )
    delay = np.asarray(graph.nodes[name].value("delay"), float) * seconds
    steps = np.rint(delay / dt)
    wrong = np.abs(steps - delay / dt) > _TOLERANCE * np.maximum(steps, 1)
    if np.any(wrong):
        late = float(delay[wrong].flat[0])
        raise ConversionError(
            f"node '{name}' (Delay) delays by {late:g} s, which is {late / dt:g} steps of {dt:g} s",
            fix="choose a dt that divides it",
            node=name,
        )
    return steps


def delays_as_weights(
    draft: Draft, graph: Graph, names: Mapping[str, str], *, feeds_back: bool
) -> None:
    """Leave out Delays of no steps, and write others as weights that feed themselves.

    Left alone: Delays within a loop, and those of several axes that are not 0.

    Args:
        draft: Edited in place.
        graph: Of the source.
        names: In the draft, by those in the graph.
        feeds_back: The importer takes weights that feed themselves; else only Delays of no steps
            are edited.

    Raises:
        ConversionError: A delay is no whole number of steps, or takes too many weights.
        DialectError: How long a step is, or the unit of time, is unknown.
    """
    looped = {name for part in loops_of(draft) for name in part}
    for old, name in names.items():
        if name not in draft.of_type("Delay") or name in looped:
            continue
        if not np.any(draft.nodes[name]["delay"]):
            remove(draft, name)
            what = "is written as weights of 1" if name in draft.nodes else "is left out"
            draft.changed(name, what, "it delays by 0 steps")
        elif feeds_back and len(draft.shapes[name][1]) == 1:
            _write(draft, name, in_steps(graph, old))


def _write(draft: Draft, name: str, delay: np.ndarray) -> None:
    """Put weights that spread, hold and take in place of a Delay by so many steps."""
    (size,), most = draft.shapes[name][1], delay.max()
    held = size * (most + 1)
    if held > MOST_WEIGHTS**0.5:
        raise ConversionError(
            f"node '{name}' (Delay) delays {size} channels by up to {most:.15g} steps, which takes "
            f"{held:.6g} x {held:.6g} weights, and at most {MOST_WEIGHTS} are written",
            fix="delay by fewer steps",
            node=name,
        )
    late, held = np.resize(delay, size).astype(int), int(held)
    memory, taken = (draft.free(f"{name}_{part}") for part in ("held", "taken"))
    draft.edges = [(taken if start == name else start, end) for start, end in draft.edges]
    draft.edges += [(name, memory), (memory, taken)]
    draft.nodes[name] = {"type": "Linear", "weight": np.eye(held, size, dtype=np.float32)}
    weight = np.zeros((size, held), np.float32)
    weight[np.arange(size), late * size + np.arange(size)] = 1
    draft.nodes[taken] = {"type": "Linear", "weight": weight}
    draft.shapes |= {
        name: ((size,), (held,)),
        memory: ((held,), (held,)),
        taken: ((held,), (size,)),
    }
    feed_itself(draft, memory, np.eye(held, k=-size, dtype=np.float32))
    what = f"a Delay of up to {late.max()} steps is written as weights that pass on what they hold"
    draft.changed(name, what, "importers have no Delay")
