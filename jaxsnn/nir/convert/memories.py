"""Readouts, synaptic currents and delays for importers that have none: weights that feed themselves.

    y(t) = x(t) + k y(t-1)

is a node that sums, and a Linear of diag(k) from it to itself, which every importer that runs loops
delays by a step. A readout is one such loop; a readout with a synaptic current is two in series. A
delay stores the inputs of this and of earlier steps, h(t) = [x(t), 0, ...] + shifted h(t-1), and
weights select for each channel the input that is as old as its delay.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.convert.layers import MAX_WEIGHTS, remove_node
from jaxsnn.nir.convert.passes import Condition, Conversion
from jaxsnn.nir.convert.topology import recurrent_nodes
from jaxsnn.nir.dialects.gains import required_field
from jaxsnn.nir.frameworks.source_step import Step
from jaxsnn.nir.model.draft import Draft, diagonal, scale_inputs
from jaxsnn.nir.model.graph import Graph
from jaxsnn.wording import Text


def replace_readouts(conversion: Conversion) -> None:
    """Replace populations that output their membrane potentials by recurrent weights.

    Raises:
        ConversionError: A readout of several axes, or one whose current does not start at 0.
    """
    for name, step in list(conversion.steps.items()):
        if step.reset != "none":
            continue
        if len(step.shape) != 1:
            raise ConversionError(
                Text(
                    "node '{node}' outputs membrane potentials of shape {shape}, and the recurrent "
                    "weights that replace it need one axis",
                    node=name,
                    shape=step.shape,
                ),
                fix="add a Flatten before it",
                node=name,
            )
        if np.any(step.i_start):
            conversion.give_up(name, "its current does not start at 0", "it starts at 0")
        _write_readout(conversion.draft, step)
        del conversion.steps[name]


def split_synaptic_currents(conversion: Conversion) -> None:
    """Replace synaptic currents that the importer does not support by recurrent weights.

    The populations become LIF. Recurrent populations, those whose current does not start at 0, and
    those whose neurons differ within a channel are not changed.
    """
    draft = conversion.draft
    for step in _separable(conversion):
        name, shape = step.name, step.shape
        zeros, ones = np.zeros(shape), np.ones(shape)
        scale_inputs(draft, name, step.synapse_gain, zeros, step.bias_ratio)
        current, weights = (draft.free(f"{name}_{part}") for part in ("current", "drive"))
        draft.edges = [
            (source, current if target == name else target) for source, target in draft.edges
        ]
        draft.edges += [(current, weights), (weights, name)]
        draft.shapes[current] = draft.shapes[weights] = draft.shapes[name]
        draft.nodes[weights] = dict(diagonal(ones) or {})
        _feed_itself(draft, current, dict(diagonal(step.synapse_decay) or {}))
        conversion.steps[name] = dataclasses.replace(
            step,
            type="LIF",
            current_based=False,
            synapse_decay=zeros,
            synapse_gain=ones,
            bias_ratio=ones,
        )
        why = f"{conversion.title}'s importer does not support the synaptic current of this neuron"
        draft.changed(name, "its synaptic current is written as recurrent weights", why)


def _separable(conversion: Conversion) -> list[Step]:
    """Return the populations whose synaptic current the importer does not support and recurrent
    weights can replace."""
    recurrent = recurrent_nodes(conversion.draft)
    return [
        step
        for name, step in conversion.steps.items()
        if step.current_based
        and diagonal(step.synapse_decay) is not None
        and name not in recurrent
        and not np.any(step.i_start)
        and "no current" in conversion.importer.does(step)
    ]


def _write_readout(draft: Draft, step: Step) -> None:
    """Write recurrent weights for v - v_start, and add v_start to their output."""
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
        _feed_itself(draft, current, dict(diagonal(step.synapse_decay) or {}))
    if np.any(step.v_start):
        level = draft.free(f"{name}_level")
        draft.edges = [
            (level if source == name else source, target) for source, target in draft.edges
        ]
        draft.edges.append((name, level))
        draft.nodes[level] = {
            "type": "Affine",
            "weight": np.eye(len(step.v_start)),
            "bias": step.v_start,
        }
        draft.shapes[level] = draft.shapes[name]
    _feed_itself(draft, name, dict(diagonal(step.decay) or {}), drive)
    draft.changed(
        name,
        Text("{type} is written as recurrent weights", type=step.type),
        "the importer has no neuron that outputs its membrane potential; y = x + k y is equivalent",
    )


def _feed_itself(
    draft: Draft, name: str, weights: dict[str, Any], drive: np.ndarray | None = None
) -> None:
    """Add a node whose output is the sum of its input, of `drive`, and of its previous output
    multiplied by `weights` (an entry of a node with weights).
    """
    leak = draft.free(f"{name}_leak")
    if drive is not None and np.any(drive):
        draft.nodes[name] = {"type": "Affine", "weight": np.eye(len(drive)), "bias": drive}
    else:
        draft.nodes[name] = dict(diagonal(np.ones(draft.shapes[name][1])) or {})
    draft.nodes[leak] = weights
    shape = draft.shapes[name][1]
    draft.shapes[leak] = (shape, shape)
    draft.edges += [(name, leak), (leak, name)]
    draft.memories.append(name)


#: Relative tolerance of delays in whole steps: the rounding of float32.
_TOLERANCE = 2**-18


def delay_in_steps(graph: Graph, name: str) -> np.ndarray:
    """Return the delays of a Delay in time steps.

    Raises:
        ConversionError: A delay is not an integer number of time steps.
        DialectError: The length of a time step or the unit of time is unknown.
    """
    seconds, dt = (
        required_field(graph.dialect, field, "a delay in time steps", name)
        for field in ("seconds", "dt")
    )
    delay = np.asarray(graph.nodes[name].value("delay"), float) * seconds
    steps = np.rint(delay / dt)
    wrong = np.abs(steps - delay / dt) > _TOLERANCE * np.maximum(steps, 1)
    if np.any(wrong):
        late = float(delay[wrong].flat[0])
        raise ConversionError(
            Text(
                "node '{node}' (Delay) has a delay of {delay:g} s, which is not an integer number of "
                "time steps: {steps:g} of {dt:g} s",
                node=name,
                delay=late,
                steps=late / dt,
                dt=dt,
            ),
            fix="choose a dt that divides the delay",
            node=name,
        )
    return steps


def replace_delays(conversion: Conversion) -> None:
    """Remove Delays of 0, and replace others by recurrent weights.

    Delays in loops and those of several axes remain; if the importer supports no loops, all Delays
    that are not 0 remain.

    Raises:
        ConversionError: A delay is not an integer number of time steps, or needs too many weights.
        DialectError: The length of a time step or the unit of time is unknown.
    """
    draft, importer = conversion.draft, conversion.importer
    feeds_back = {"loops", "forks"} <= {*importer.wiring}
    recurrent = recurrent_nodes(draft)
    for source_name, name in conversion.draft_names.items():
        if name not in draft.of_type("Delay") or name in recurrent:
            continue
        if not np.any(draft.nodes[name]["delay"]):
            remove_node(draft, name)
            change = (
                "is written as a weight matrix, the identity"
                if name in draft.nodes
                else "is removed"
            )
            draft.changed(name, change, "its delay is 0")
        elif feeds_back and len(draft.shapes[name][1]) == 1:
            _write_delay(draft, name, delay_in_steps(conversion.source, source_name))


def _write_delay(draft: Draft, name: str, delay: np.ndarray) -> None:
    """Replace a Delay, in time steps, by weights that spread, hold and read its input."""
    (size,), longest = draft.shapes[name][1], delay.max()
    held = size * (longest + 1)
    if held > MAX_WEIGHTS**0.5:
        raise ConversionError(
            Text(
                "node '{node}' (Delay) delays {channels} channels by up to {steps:.15g} time steps, "
                "which needs {size:.6g} x {size:.6g} weights; the limit is {limit}",
                node=name,
                channels=size,
                steps=longest,
                size=held,
                limit=MAX_WEIGHTS,
            ),
            fix="use a shorter delay",
            node=name,
        )
    late, held = np.resize(delay, size).astype(int), int(held)
    memory, output = (draft.free(f"{name}_{part}") for part in ("held", "taken"))
    draft.edges = [(output if source == name else source, end) for source, end in draft.edges]
    draft.edges += [(name, memory), (memory, output)]
    draft.nodes[name] = {"type": "Linear", "weight": np.eye(held, size, dtype=np.float32)}
    weight = np.zeros((size, held), np.float32)
    weight[np.arange(size), late * size + np.arange(size)] = 1
    draft.nodes[output] = {"type": "Linear", "weight": weight}
    draft.shapes |= {
        name: ((size,), (held,)),
        memory: ((held,), (held,)),
        output: ((held,), (size,)),
    }
    _feed_itself(
        draft, memory, {"type": "Linear", "weight": np.eye(held, k=-size, dtype=np.float32)}
    )
    draft.changed(
        name,
        Text(
            "a Delay of up to {steps} time steps is written as a chain of weights",
            steps=late.max(),
        ),
        "importers do not support Delay",
    )


NO_IDLE_DELAYS = Condition(
    "no Delay outside of loops has a delay of 0",
    lambda conversion: all(
        np.any(conversion.draft.nodes[name]["delay"])
        for name in {*conversion.draft.of_type("Delay")} - recurrent_nodes(conversion.draft)
    ),
)
NO_READOUTS = Condition(
    "no population outputs its membrane potential",
    lambda conversion: all(step.reset != "none" for step in conversion.steps.values()),
)
NO_SEPARABLE_CURRENTS = Condition(
    "a synaptic current that the importer does not support remains only where weights "
    "cannot replace it",
    lambda conversion: not _separable(conversion),
)
