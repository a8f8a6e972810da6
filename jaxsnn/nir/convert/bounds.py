"""Bounds on membrane potentials, without a simulation: they prove that certain events never occur in a
network, and show how far biases move membrane potentials before the first input.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from jaxsnn.nir.convert.passes import Condition, Conversion
from jaxsnn.nir.convert.topology import forward_order, layer_depths, recurrent_nodes
from jaxsnn.nir.frameworks.framework import Importer
from jaxsnn.nir.frameworks.source_step import Reset, Step
from jaxsnn.nir.model.draft import NEURON_TYPES, POOLS, Draft, as_node
from jaxsnn.nir.model.passes import window
from jaxsnn.options import INPUT_RANGE
from jaxsnn.wording import Text

Bounds = tuple[np.ndarray, np.ndarray]
#: Maximum number of copies by which a neuron with several spikes per time step may be written.
MAX_COPIES = 64
#: Bound of membranes that feedback makes unbounded; finite, so that its product with 0 is 0.
_ANY = 1e30


#: Spacings of grids: sums of weights that are multiples of one spacing may be exactly equal to a
#: threshold. float32 rounds multiples of the second.
_GRIDS = _BINARY, _DECIMAL = 2.0**-10, 10.0**-3
#: Maximum fraction of a neuron's weights that may lie on a grid by chance.
_BY_CHANCE = 0.01


def sums_may_meet(draft: Draft, name: str, v_threshold: np.ndarray) -> bool:
    """Return whether sums of the inputs of a population may be exactly equal to a threshold.

    This is possible if weights from one source to one neuron are on a grid or equal v_threshold,
    or if biases are on a grid. A single such source suffices, whatever the weights of the others:
    these do not contribute while they are silent.
    """
    for source in draft.sources(name):
        entry = draft.nodes[source]
        if "weight" not in entry:
            # Spikes that arrive without weights count as weights of 1.
            if not _passes_on(entry) or sums_may_meet(draft, source, v_threshold):
                return True
            continue
        weight = np.asarray(entry["weight"], float)
        if np.any(np.isin(np.float32(weight), np.float32(v_threshold))):
            return True
        if any(np.any(_on_grid(rows, grid)) for rows in _summands(entry) for grid in _GRIDS):
            return True
    return False


def rounded_summand(draft: Draft, name: str) -> float:
    """Return a weight or bias of a population that is a multiple of 0.001 and that float32 rounds, such
    as 0.1; 0 for none. Whether sums of such numbers meet a threshold depends on the order of all
    additions and multiplications.
    """
    for source in draft.sources(name):
        entry = draft.nodes[source]
        if "weight" not in entry:
            rounded = rounded_summand(draft, source) if _passes_on(entry) else 0.0
            if rounded:
                return rounded
            continue
        for rows in _summands(entry):
            is_rounded = _on_grid(rows, _DECIMAL) & ~_is_multiple(rows, _BINARY)
            if np.any(is_rounded):
                return float(rows[is_rounded][0])
    return 0.0


def _passes_on(entry: Mapping[str, np.ndarray]) -> bool:
    """Return whether a node passes on the sums that arrive at it."""
    return entry["type"] in ("Flatten", *POOLS, "Delay")


def _summands(entry: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return weights by neuron, (rows, weights), and biases, (rows, 1)."""
    weight = np.asarray(entry["weight"], float)
    bias = np.asarray(entry.get("bias", 0.0), float)
    return weight.reshape(weight.shape[0], -1), bias.reshape(-1, 1)


def _is_multiple(numbers: np.ndarray, grid: float) -> np.ndarray:
    """Return a mask of the nonzero numbers that are multiples of a grid, to the rounding of float32."""
    steps = numbers / grid
    return (numbers != 0) & (np.abs(steps - np.round(steps)) <= 2.0**-23 * np.abs(steps))


def _on_grid(rows: np.ndarray, grid: float) -> np.ndarray:
    """Return a mask of the numbers that are multiples of a grid. Rows with no more multiples than
    expected by chance are excluded.
    """
    fits = _is_multiple(rows, grid)
    counts, counted = np.count_nonzero(fits, axis=1), np.count_nonzero(rows, axis=1)
    many = (counts > _BY_CHANCE * counted) & (counts > np.where(counted > 1, 1, 0))
    return fits & many[:, None]


def bound_membranes(conversion: Conversion) -> None:
    """Exclude several spikes per time step, and resets that end above threshold, where they cannot occur.

    An importer may support several spikes per time step as spikes of several neurons
    (`Importer.subtracts`), or any height of the membrane potential (`Importer.does`).

    Raises:
        ConversionError: Behaviour that can occur and that the target does not support.
    """
    draft, steps, importer = conversion.draft, conversion.steps, conversion.importer
    inputs = conversion.request.input_range
    # Neurons are bounded in forward order, from the source's steps of the neurons that feed them.
    source_steps = dict(steps)
    max_spikes = dict.fromkeys(steps, 1)
    fired: dict[str, float] = dict.fromkeys(steps, 1.0)
    is_bounded = False
    for name in (name for name in forward_order(draft) if name in source_steps):
        step = source_steps[name]
        if _is_independent_of_height(step, importer):
            continue
        if "any height" in importer.does(step):
            if step.several:
                peak = _peak(step, _arriving(draft, source_steps, fired, inputs)[name])
                fired[name] = float(max(1, np.max(peak // step.v_threshold)))
            continue
        peak = _peak(step, _arriving(draft, source_steps, fired, inputs)[name])
        is_bounded = True
        place = int(np.argmax(peak / step.v_threshold))
        limit = 2 * step.v_threshold.flat[place]
        # Limit the quotient: an unbounded membrane would give more spikes than an integer can hold.
        spikes = int(np.max(np.minimum(peak / step.v_threshold, _ANY)))
        high = peak.flat[place]
        height = Text("{value:.4g}", value=high) if high < _ANY / 2**20 else "any value"
        reach = Text(
            "its membrane potential can reach {height}, and twice its v_threshold is {limit:.4g}",
            height=height,
            limit=limit,
        )
        if np.all(peak < 2 * step.v_threshold):
            why = (
                f"so it fires at most one spike per time step, as long as inputs are {inputs[0]:g} to "
                f"{inputs[1]:g}"
            )
            draft.changed(name, reach, why)
        elif (
            step.several
            and importer.subtracts
            and spikes <= MAX_COPIES
            and name not in recurrent_nodes(draft)
        ):
            max_spikes[name] = spikes
            fired[name] = float(spikes)
            continue
        elif not (step.several or importer.bursts) and (
            step.reset == "subtract" or "several nodes" in importer.does(step)
        ):
            # The importer also fires at most one spike per step, however high the membrane gets.
            continue
        else:
            count = "all spikes of a time step" if importer.bursts else "one spike per time step"
            conversion.give_up(
                name,
                _describe_excess(step, importer) + ": " + reach,
                f"the written neuron fires {count} and subtracts v_threshold",
            )
        reset = step.reset if step.reset == "value" else _immediate_subtraction(importer)
        steps[name] = dataclasses.replace(step, several=importer.bursts, reset=reset)
    if is_bounded:
        draft.notes.append(
            Text(
                "the conversion is valid for inputs of {minimum:g} to {maximum:g}; for other values "
                "pass {input_range}",
                minimum=inputs[0],
                maximum=inputs[1],
                input_range=INPUT_RANGE.keyword,
            )
        )
    conversion.max_spikes = max_spikes


def _immediate_subtraction(importer: Importer) -> Reset:
    """Return the reset of neurons of the importer that subtract in the step of the spike."""
    return "subtract unless above" if "unless above" in importer.subtracts else "subtract"


def _is_independent_of_height(step: Step, importer: Importer) -> bool:
    """Return whether the height of the membrane potential makes no difference."""
    if step.reset == "none":
        return True
    if step.several or (importer.bursts and step.reset == "subtract"):
        return False
    return step.reset in ("value", "subtract later", "skip", _immediate_subtraction(importer))


def _describe_excess(step: Step, importer: Importer) -> str:
    """Describe the behaviour of a membrane that reaches twice its threshold."""
    if importer.bursts and not step.several and step.reset == "subtract":
        return "it fires at most one spike per time step, and the importer's neurons fire several"
    if step.several:
        return "it may fire several spikes per time step"
    return (
        "its membrane potential may stay above v_threshold after a reset, and with "
        "reset_delay false the next time step then compares it with twice v_threshold"
    )


def _peak(step: Step, arriving: Bounds) -> np.ndarray:
    """Return the maximum membrane potential before a reset, starting at most at threshold."""
    low, high = np.minimum(arriving[0], 0), np.maximum(arriving[1], 0)
    if np.any(step.decay < 0) or np.any(step.synapse_decay < 0):
        return np.full(step.shape, _ANY)
    if step.current_based:
        low, high = _accumulate_bounds(
            _scale_bounds(step.synapse_gain, (low, high)), step.synapse_decay, step.i_start
        )
    _, highest = _scale_bounds(step.gain, (low, high))
    return step.decay * np.maximum(step.v_threshold, step.v_start) + highest + step.drive


def _scale_bounds(gain: np.ndarray, ends: Bounds, plus: np.ndarray | float = 0.0) -> Bounds:
    """Return bounds of `gain * x + plus`, for gains of either sign and x between two bounds."""
    scaled = gain * ends[0] + plus, gain * ends[1] + plus
    return np.minimum(*scaled), np.maximum(*scaled)


def _accumulate_bounds(ends: Bounds, decay: np.ndarray, start: np.ndarray) -> Bounds:
    """Return bounds of a decaying state to which each time step adds a value between two bounds."""
    loss = np.maximum(1 - decay, 1 / _ANY)
    return np.minimum(start, ends[0] / loss), np.maximum(start, ends[1] / loss)


def apply_early_biases(conversion: Conversion) -> None:
    """Start neurons in the state that their biases produce before the first input arrives.

    In a source framework whose layers delay spikes, layer n receives its biases from the first time
    step on, but its input n - 1 time steps later.

    Raises:
        ConversionError: Biases that make a neuron fire before its first input, or that reach it
            through several weights.
    """
    if not any(steps_later < 0 for steps_later in conversion.shift.values()):
        return
    draft, steps = conversion.draft, conversion.steps
    depth = layer_depths(draft, conversion.source_title)
    arriving = _arriving(draft, steps, dict.fromkeys(steps, 0.0), (0.0, 0.0))
    for name, step in list(steps.items()):
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
                "before its first input arrives, its biases make it fire or act through several "
                "weights"
            )
            conversion.give_up(name, reason, "it starts at rest, and its first spikes may differ")
            continue
        steps[name] = dataclasses.replace(
            step, v_start=v, i_start=i if step.current_based else step.i_start
        )
        draft.changed(
            name,
            Text(
                "its initial membrane potential is set to {minimum:.4g} to {maximum:.4g}",
                minimum=v.min(),
                maximum=v.max(),
            ),
            Text(
                "its biases act for {steps} dt before its first input arrives",
                steps=depth[name] - 1,
            ),
        )


def _membrane(step: Step, arriving: Bounds) -> Bounds:
    """Return bounds of the membrane of a readout, which never resets."""
    if np.any(step.decay < 0) or np.any(step.synapse_decay < 0):
        return np.full(step.shape, -_ANY), np.full(step.shape, _ANY)
    if step.current_based:
        currents = _scale_bounds(step.synapse_gain, arriving)
        arriving = _accumulate_bounds(currents, step.synapse_decay, step.i_start)
    low, high = _accumulate_bounds(
        _scale_bounds(step.gain, arriving, step.drive), step.decay, step.v_start
    )
    return np.maximum(low, -_ANY), np.minimum(high, _ANY)


def _arriving(
    draft: Draft,
    steps: Mapping[str, Step],
    max_spikes: Mapping[str, float],
    inputs: tuple[float, float],
) -> dict[str, Bounds]:
    """Return the lowest and the highest sum of the inputs of each neuron, if firing neurons emit 0
    to `max_spikes`, and readouts their membranes.
    """
    leaving: dict[str, Bounds] = {}
    for name, entry in draft.nodes.items():
        shape = draft.shapes[name][1]
        if entry["type"] == "Input":
            leaving[name] = (np.full(shape, inputs[0]), np.full(shape, inputs[1]))
        elif entry["type"] in NEURON_TYPES and not _is_readout(steps, name):
            leaving[name] = (np.zeros(shape), np.full(shape, max_spikes.get(name, np.inf)))
        elif name in draft.memories or any(end == name for _, end in draft.delayed):
            leaving[name] = (np.full(shape, -_ANY), np.full(shape, _ANY))

    def bounds(name: str) -> Bounds:
        if name not in leaving:
            if not _is_readout(steps, name):
                leaving[name] = _through(draft, name, total(name))
                return leaving[name]
            shape = draft.shapes[name][1]
            # Placeholder that ends the recursion below if the readout feeds itself.
            leaving[name] = np.full(shape, -_ANY), np.full(shape, _ANY)
            leaving[name] = _membrane(steps[name], total(name))
        return leaving[name]

    def total(name: str) -> Bounds:
        shape = draft.shapes[name][0]
        low, high = np.zeros(shape), np.zeros(shape)
        for lowest, highest in [bounds(source) for source in draft.sources(name)]:
            low, high = low + lowest.reshape(shape), high + highest.reshape(shape)
        return low, high

    return {name: total(name) for name in draft.of_type(*NEURON_TYPES)}


def _is_readout(steps: Mapping[str, Step], name: str) -> bool:
    return name in steps and steps[name].reset == "none"


def _through(draft: Draft, name: str, arriving: Bounds) -> Bounds:
    """Return bounds of the output of a node without a state."""
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
    """Return bounds of the output of each channel; padding counts as zero."""
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


SEVERAL_SPIKES_BOUNDED = Condition(
    "neurons that fire several spikes per time step can do so in the importer, or are "
    "written as copies",
    lambda conversion: all(
        not step.several
        or step.reset == "none"
        or conversion.importer.bursts
        or conversion.max_spikes[name] > 1
        or "any height" in conversion.importer.does(step)
        for name, step in conversion.steps.items()
    ),
)
