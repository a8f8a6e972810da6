"""What can be known of a network without simulating it: bounds on membranes, and how far biases
move them early.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxsnn.nir.frameworks.framework import Importer
from jaxsnn.nir.frameworks.source_step import Reset, Step
from jaxsnn.nir.model.draft import NEURON_TYPES, POOLS, Draft, as_node, loops_of
from jaxsnn.nir.model.passes import window
from jaxsnn.options import INPUT_RANGE
from jaxsnn.wording import Text

Bounds = tuple[np.ndarray, np.ndarray]
#: Called with node, reason and what is done instead; raises unless an approximation is wanted.
GiveUp = Callable[[str, str, str], None]


#: The most spikes of one neuron in one step that are written as neurons of their own.
MOST_SPIKES = 64


#: What weights that feed themselves may reach; finite, so that nothing times it is 0.
_ANY = 1e30


#: Weights that are multiples of one of these are taken to be on a grid.
_GRIDS = (2.0**-10, 10.0**-3)
#: More than this share of the weights of a neuron on a grid is no coincidence of real numbers.
_BY_CHANCE = 0.01


def sums_may_meet(draft: Draft, name: str, v_threshold: np.ndarray) -> bool:
    """Return whether sums of what arrives at a population may meet a threshold exactly: several
    weights of one neuron from one source, or one that arrives alone, are on a grid, or equal
    v_threshold. Weights from other sources may be any: they do not count while these are silent.
    """
    for source in draft.sources(name):
        entry = draft.nodes[source]
        if "weight" not in entry:
            through = entry["type"] in ("Flatten", *POOLS, "Delay")
            # Spikes themselves count as weights of 1.
            if not through or sums_may_meet(draft, source, v_threshold):
                return True
            continue
        weight = np.asarray(entry["weight"], float)
        rows = np.reshape(weight, (weight.shape[0], -1))
        counted = np.count_nonzero(rows, axis=1)
        for grid in _GRIDS:
            steps = rows / grid
            fits = (rows != 0) & (np.abs(steps - np.round(steps)) <= 2.0**-23 * np.abs(steps))
            counts = np.count_nonzero(fits, axis=1)
            if np.any((counts > _BY_CHANCE * counted) & (counts > np.where(counted > 1, 1, 0))):
                return True
        if np.any(np.isin(np.float32(weight), np.float32(v_threshold))):
            return True
        bias = np.asarray(entry.get("bias", 0.0), float) * 2.0**10
        if np.any((bias != 0) & (bias == np.round(bias))):
            return True
    return False


def settled(
    draft: Draft,
    steps: Mapping[str, Step],
    order: Sequence[str],
    importer: Importer,
    give_up: GiveUp,
    inputs: tuple[float, float] = (0.0, 1.0),
) -> tuple[dict[str, Step], dict[str, int]]:
    """Steps without several spikes, and without resets of membranes that stay above threshold,
    where they cannot occur.

    Args:
        draft: Still with the source's weights.
        steps: Of the source.
        order: The nodes, sources before targets.
        importer: Whom it is written for. It may take several spikes in a step as spikes of several
            neurons (`subtracts`), or do what a step does, however high its membrane reaches
            (`does`).
        give_up: For what can occur, and the target cannot do.
        inputs: The lowest and the highest value that an input channel carries in a step.

    Returns:
        The steps, and the most spikes that each neuron fires in a step.
    """
    most: dict[str, float] = dict.fromkeys(steps, 1.0)
    found = dict(steps)
    fired = dict(most)
    counted = False
    for name in (name for name in order if name in steps):
        step = steps[name]
        if _is_plain(step, importer):
            continue
        if importer.does is not None and importer.does(step):
            fired[name] = _in_a_step(draft, steps, name, fired, inputs)
            continue
        peak = _peak(step, _arriving(draft, steps, fired, inputs)[name])
        counted = True
        place = int(np.argmax(peak / step.v_threshold))
        limit = 2 * step.v_threshold.flat[place]
        # of a membrane that can reach anything more than any number of spikes
        spikes = int(np.max(np.minimum(peak / step.v_threshold, _ANY)))
        reset = step.reset if step.reset == "value" else _at_once(importer)
        high = peak.flat[place]
        height = f"{high:.4g}" if high < _ANY / 2**20 else "any height"
        reach = f"its membrane can reach {height}, twice its v_threshold is {limit:.4g}"
        if np.all(peak < 2 * step.v_threshold):
            why = f"so it fires at most one spike a step, as long as inputs are {_range(inputs)}"
            draft.changed(name, reach, why)
        elif step.several and importer.subtracts and _few(draft, name, spikes):
            most[name] = fired[name] = spikes
            continue
        elif not (step.several or importer.bursts) and step.reset in _loops(importer):
            continue
        else:
            give_up(name, f"{_too_much(step, importer)}: {reach}", _nearest(importer))
        found[name] = dataclasses.replace(step, several=importer.bursts, reset=reset)
    if counted:
        draft.notes.append(
            Text(
                "holds for inputs of {inputs}: for other values say {input_range}",
                inputs=_range(inputs),
                input_range=INPUT_RANGE.keyword,
            )
        )
    return found, {name: int(most[name]) for name in steps}


def _at_once(importer: Importer) -> Reset:
    """The immediate subtraction of its neurons."""
    return "subtract unless above" if _compares(importer) else "subtract"


def _is_plain(step: Step, importer: Importer) -> bool:
    """Whether it does not matter how high the membrane reaches."""
    if step.reset == "none":
        return True
    if step.several or (importer.bursts and step.reset == "subtract"):
        return False
    return step.reset in ("value", "subtract later", "skip", _at_once(importer))


def _in_a_step(
    draft: Draft,
    steps: Mapping[str, Step],
    name: str,
    fired: Mapping[str, float],
    inputs: tuple[float, float],
) -> float:
    """The most spikes in a step of a neuron that the importer has as it is."""
    step = steps[name]
    if not step.several:
        return 1.0
    peak = _peak(step, _arriving(draft, steps, fired, inputs)[name])
    return float(max(1, np.max(peak // step.v_threshold)))


def _nearest(importer: Importer) -> str:
    count = "as many spikes as fit in" if importer.bursts else "one spike a step"
    return f"{count} and a plain subtraction are written"


def _compares(importer: Importer) -> bool:
    """Whether its immediate subtraction counts membranes above threshold as reset already."""
    return importer.subtraction is not None and "unless above" in importer.subtraction


def _few(draft: Draft, name: str, spikes: int) -> bool:
    """Whether the spikes of a step can be those of copies."""
    return spikes <= MOST_SPIKES and name not in _looped(draft)


def _loops(importer: Importer) -> tuple[Reset, ...]:
    """Resets of one spike a step, however high the membrane reaches."""
    return ("subtract", *importer.composes)


def _range(inputs: tuple[float, float]) -> str:
    return f"{inputs[0]:g} to {inputs[1]:g}"


def _too_much(step: Step, importer: Importer) -> str:
    """What may happen to a membrane that reaches twice its threshold."""
    if importer.bursts and not step.several and step.reset == "subtract":
        return "it fires one spike in a step at most, and the importer's neurons fire several"
    if step.several:
        return "it may fire several spikes in a step"
    return (
        "it may stay above v_threshold after a reset, "
        "which reset_delay false compares in its own way"
    )


def _looped(draft: Draft) -> set[str]:
    return {name for part in loops_of(draft) for name in part}


def _peak(step: Step, arriving: Bounds) -> np.ndarray:
    """The highest membrane before the reset, for one that was at most at threshold before."""
    low, high = np.minimum(arriving[0], 0), np.maximum(arriving[1], 0)
    if np.any(step.decay < 0) or np.any(step.synapse_decay < 0):
        return np.full(step.shape, _ANY)
    if step.current_based:
        low, high = _lasting(
            _times(step.synapse_gain, (low, high)), step.synapse_decay, step.i_start
        )
    _, highest = _times(step.gain, (low, high))
    return step.decay * np.maximum(step.v_threshold, step.v_start) + highest + step.drive


def _times(gain: np.ndarray, ends: Bounds, plus: np.ndarray | float = 0.0) -> Bounds:
    """Of either sign times what lies between two ends, and a number more."""
    both = gain * ends[0] + plus, gain * ends[1] + plus
    return np.minimum(*both), np.maximum(*both)


def _lasting(ends: Bounds, decay: np.ndarray, start: np.ndarray) -> Bounds:
    """Where what decays stays, if so much is added in each step."""
    left = np.maximum(1 - decay, 1 / _ANY)
    return np.minimum(start, ends[0] / left), np.maximum(start, ends[1] / left)


def begun(
    draft: Draft, steps: Mapping[str, Step], depth: Mapping[str, int], give_up: GiveUp
) -> dict[str, Step]:
    """Steps that start where the biases of a late source have brought them when their input
    first arrives.

    There layer n sees its biases from the first step on, but its input n - 1 steps later.

    Args:
        draft: Still with the source's weights.
        steps: Of the source.
        depth: Layers of neurons up to each neuron, itself included.
        give_up: For what cannot be known.
    """
    arriving = _arriving(draft, steps, dict.fromkeys(steps, 0.0), (0.0, 0.0))
    found = dict(steps)
    for name, step in steps.items():
        low, high = arriving[name]
        if depth[name] < 2 or not (np.any(low) or np.any(high)):
            continue
        v, i, highest = step.v_start, step.i_start, np.full(step.shape, -np.inf)
        for _ in range(depth[name] - 1):
            i = step.synapse_decay * i + step.synapse_gain * low
            v = step.decay * v + step.gain * (i if step.current_based else low) + step.drive
            highest = np.maximum(highest, v)
        if np.any(low != high) or np.any(highest >= step.v_threshold):
            reason = (
                "its biases make it fire, or act through several weights, "
                "before its first input arrives"
            )
            give_up(name, reason, "it starts at rest and the first spikes may differ")
            continue
        found[name] = dataclasses.replace(
            step, v_start=v, i_start=i if step.current_based else step.i_start
        )
        what = f"starts at {v.min():.4g} to {v.max():.4g}"
        draft.changed(
            name, what, f"its biases act for {depth[name] - 1} steps before its first input arrives"
        )
    return found


def _membrane(step: Step, arriving: Bounds) -> Bounds:
    """Between what the membrane of a readout stays, which never resets."""
    if np.any(step.decay < 0) or np.any(step.synapse_decay < 0):
        return np.full(step.shape, -_ANY), np.full(step.shape, _ANY)
    if step.current_based:
        currents = _times(step.synapse_gain, arriving)
        arriving = _lasting(currents, step.synapse_decay, step.i_start)
    low, high = _lasting(_times(step.gain, arriving, step.drive), step.decay, step.v_start)
    return np.maximum(low, -_ANY), np.minimum(high, _ANY)


def _arriving(
    draft: Draft,
    steps: Mapping[str, Step],
    most: Mapping[str, float],
    inputs: tuple[float, float],
) -> dict[str, Bounds]:
    """Lowest and highest sum of what arrives at each neuron, if those that fire give 0 to `most`,
    and readouts their membranes.
    """
    leaving: dict[str, Bounds] = {}
    for name, entry in draft.nodes.items():
        shape = draft.shapes[name][1]
        if entry["type"] == "Input":
            leaving[name] = (np.full(shape, inputs[0]), np.full(shape, inputs[1]))
        elif entry["type"] in NEURON_TYPES and not _is_readout(steps, name):
            leaving[name] = (np.zeros(shape), np.full(shape, most.get(name, np.inf)))
        elif name in draft.memories or any(end == name for _, end in draft.delayed):
            leaving[name] = (np.full(shape, -_ANY), np.full(shape, _ANY))

    def bounds(name: str) -> Bounds:
        if name not in leaving:
            if not _is_readout(steps, name):
                leaving[name] = _through(draft, name, total(name))
                return leaving[name]
            shape = draft.shapes[name][1]
            leaving[name] = np.full(shape, -_ANY), np.full(shape, _ANY)  # where it feeds itself
            leaving[name] = _membrane(steps[name], total(name))
        return leaving[name]

    def total(name: str) -> Bounds:
        found = [bounds(source) for source in draft.sources(name)]
        shape = draft.shapes[name][0]
        low, high = np.zeros(shape), np.zeros(shape)
        for one in found:
            low, high = low + one[0].reshape(shape), high + one[1].reshape(shape)
        return low, high

    return {name: total(name) for name in draft.of_type(*NEURON_TYPES)}


def _is_readout(steps: Mapping[str, Step], name: str) -> bool:
    return name in steps and steps[name].reset == "none"


def _through(draft: Draft, name: str, arriving: Bounds) -> Bounds:
    """Bounds of the output of a node without a state."""
    entry, shape = draft.nodes[name], draft.shapes[name][1]
    low, high = arriving
    if entry["type"] in ("Linear", "Affine"):
        weight = np.asarray(entry["weight"], float)
        positive, negative = np.maximum(weight, 0), np.minimum(weight, 0)
        bias = np.asarray(entry.get("bias", 0.0), float)
        return positive @ low + negative @ high + bias, positive @ high + negative @ low + bias
    if entry["type"] in ("Conv1d", "Conv2d"):
        return _through_convolution(entry, low, high, shape)
    if entry["type"] in POOLS:
        frame = window(as_node(name, entry))
        size = float(np.prod(frame.kernel)) if entry["type"] == "SumPool2d" else 1.0
        axes = tuple(range(1, low.ndim))
        lowest, highest = low.min(axis=axes, initial=0), high.max(axis=axes, initial=0)
        column = (-1,) + (1,) * (low.ndim - 1)
        return tuple(
            np.broadcast_to(size * end.reshape(column), shape) for end in (lowest, highest)
        )  # type: ignore
    if entry["type"] == "Scale":
        ends = np.asarray(entry["scale"]) * low, np.asarray(entry["scale"]) * high
        return np.minimum(*ends), np.maximum(*ends)
    if entry["type"] == "Delay":
        return np.minimum(low, 0), np.maximum(high, 0)
    if entry["type"] == "Threshold":
        return np.zeros(shape), np.ones(shape)
    if entry["type"] == "Flatten" and draft.channels_last and len(shape) < low.ndim:
        low, high = np.moveaxis(low, 0, -1), np.moveaxis(high, 0, -1)
    return low.reshape(shape), high.reshape(shape)


def _through_convolution(
    entry: Mapping[str, np.ndarray], low: np.ndarray, high: np.ndarray, shape: tuple[int, ...]
) -> Bounds:
    """Bounds of each output channel; padding counts as zero."""
    weight = np.asarray(entry["weight"], float)
    axes = tuple(range(1, low.ndim))
    groups = low.shape[0] // weight.shape[1]
    rows = np.repeat(np.arange(groups), weight.shape[0] // groups)
    lowest = low.min(axis=axes, initial=0).reshape(groups, -1)[rows]
    highest = high.max(axis=axes, initial=0).reshape(groups, -1)[rows]
    taps = tuple(range(2, weight.ndim))
    positive, negative = np.maximum(weight, 0).sum(axis=taps), np.minimum(weight, 0).sum(axis=taps)
    bias = np.asarray(entry["bias"], float)
    column = (-1,) + (1,) * (len(shape) - 1)
    ends = (positive * lowest + negative * highest, positive * highest + negative * lowest)
    low, high = (np.broadcast_to((end.sum(axis=1) + bias).reshape(column), shape) for end in ends)
    return low, high
