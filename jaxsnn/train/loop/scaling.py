"""Steps of the optimiser that mean the same in every dialect.

A file's weights live in its dialect: snnTorch's, for example, are about dt / tau_mem of those that
make the synaptic current jump by themselves. The optimiser therefore works on what a weight does.
The kick of a weight is the jump of R I that a spike through it causes in the population behind,
divided by v_threshold - v_reset (in a readout, which has no threshold, by 1); for LIF and IF, it is
the rise of V that a spike causes. Where a readout sends its voltage on, what that does to the
population behind counts instead; to weights behind it, a voltage of 1 is what a spike is to others.
The lift of a bias is the shift of the resting voltage (for IF, which has none, the rise of V during
a sample), divided by the same. A step of 0.01 moves kicks and lifts by 0.01.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxsnn.event.dynamics.kinds import neuron_of
from jaxsnn.event.dynamics.neuron_model import Neuron
from jaxsnn.network.network import Network
from jaxsnn.network.on_processor import in_numpy, to_jax
from jaxsnn.network.operators import identity, through
from jaxsnn.network.structure import OPERATORS, Wire, carried
from jaxsnn.train.loop.constraints import Free, Parameters, Trained

#: A neuron model, the parameters of its population, and whether voltages drive it -> what one unit
#: that arrives does to each neuron, (neurons,) >= 0.
EffectOf = Callable[[Neuron, dict[str, jax.Array], bool], np.ndarray]


def step_scales(network: Network, trained: Trained, t_end: float) -> Parameters:
    """What a step of 1 is in raw numbers, for each trained array; 0 where nothing follows.

    Free weights and biases step in kicks and lifts: per row of a weight, shape (outputs, 1, ...),
    and per entry of a bias. Other free parameters step by their own size. What is bounded steps in
    its raw number. A node that feeds several populations, or one behind further linear nodes, is
    scaled for the largest kick that it gives. `t_end` (seconds) is the length of a sample.
    """
    lift = partial(_lift_per_bias, t_end=t_end)
    effects = {"weight": _reach(network, _kick_per_weight), "bias": _reach(network, lift)}
    # Of nodes from outside nobody knows what a "weight" is: they step by their own size.
    known = {wire.name for wire in network.wires if wire.kind in OPERATORS}
    scales: Parameters = {}
    for node, names in trained:
        scales[node] = {}
        for name, constraint in names:
            value = network.parameters[node][name]
            scale = np.ones(())
            if isinstance(constraint, Free):
                effect = effects[name][node] if name in effects and node in known else None
                scale = _scale(np.asarray(value), effect)
                scale = np.mean(scale) if constraint.shared else scale
            scales[node][name] = to_jax(np.asarray(scale, value.dtype))
    return scales


def _scale(value: np.ndarray, effect: np.ndarray | None) -> np.ndarray:
    """The inverse of what one unit does, in the shape that multiplies the parameter."""
    if effect is None:
        largest = float(np.max(np.abs(value), initial=0.0))
        return np.asarray(largest or 1.0)
    per_channel = effect.reshape(len(value), -1).max(axis=1)
    scale = np.where(per_channel > 0, 1 / np.where(per_channel > 0, per_channel, 1.0), 0.0)
    return scale.reshape(-1, *[1] * (value.ndim - 1))


def _kick_per_weight(
    neuron: Neuron, parameters: dict[str, jax.Array], under_voltages: bool
) -> np.ndarray:
    # A voltage lasts, and does what a current does.
    kick = neuron.current_factor if under_voltages else neuron.kick
    return np.abs(np.asarray(kick(parameters)))


def _lift_per_bias(
    neuron: Neuron, parameters: dict[str, jax.Array], under_voltages: bool, t_end: float
) -> np.ndarray:
    del under_voltages  # a bias is the same constant current beside them
    one: Any = np.ones_like(next(iter(parameters.values())))
    return np.abs(np.asarray(neuron.lift(parameters, one, t_end)))


def _reach(network: Network, effect_of: EffectOf) -> dict[str, np.ndarray]:
    """For each node, the largest effect of one unit that leaves it, by channel; backwards through
    linear nodes.
    """
    leaving = {wire.name: np.zeros(wire.size) for wire in network.wires}
    readouts = [name for name, population in network.populations.items() if not population.fires]
    voltages = carried(network.wires, readouts)
    # Under boxes a voltage counts as a spike that lasts for one step.
    under_voltages = {
        name
        for name, population in network.populations.items()
        if voltages[name]
        and population.kind in ("LIF", "LI")
        and population.spike_kernel == "delta"
    }
    for _ in network.wires:  # again and again, for a cycle may run against the order
        before = {name: effect.copy() for name, effect in leaving.items()}
        for wire in reversed(network.wires):
            entering = _entering(network, wire, leaving[wire.name], effect_of, under_voltages)
            for source in wire.sources:
                if entering.size == leaving[source].size:
                    leaving[source] = np.maximum(leaving[source], entering)
                else:  # a window: the largest effect stands for all
                    leaving[source] = np.maximum(leaving[source], entering.max(initial=0.0))
        if all(np.array_equal(before[name], leaving[name]) for name in leaving):
            break
    return leaving


def _entering(
    network: Network,
    wire: Wire,
    leaving: np.ndarray,
    effect_of: EffectOf,
    under_voltages: Container[str],
) -> np.ndarray:
    """Return the largest effect of one unit that enters a node, by channel, or for all channels."""
    # In NumPy: of JAX's arrays each operation would be compiled.
    parameters = in_numpy(network.parameters.get(wire.name, {}))
    if wire.kind == "neuron":
        population = network.populations[wire.name]
        neuron = neuron_of(population)
        effect = effect_of(neuron, parameters, wire.name in under_voltages)
        if not population.fires:
            return np.where(leaving > 0, effect * leaving, effect)
        return effect / np.asarray(neuron.height(parameters))
    if wire.kind == "output":
        return np.zeros(wire.size)
    if wire.linear and wire.kind not in OPERATORS:
        return np.max(_absolute(network, wire) * leaving, axis=1, initial=0.0)
    if wire.kind == "Scale":
        return leaving * np.abs(np.asarray(parameters["scale"]))
    if "weight" in parameters:
        weight = np.abs(np.asarray(parameters["weight"]))
        if weight.ndim > 2:
            return np.asarray([leaving.max(initial=0.0) * weight.max(initial=0.0)])
        return np.max(leaving[:, None] * weight, axis=0)
    return leaving


def _absolute(network: Network, wire: Wire) -> np.ndarray:
    """What a linear node from outside does, without signs: (inputs, outputs)."""
    sources = [other for other in network.wires if other.name in wire.sources]
    inward = sources[0].shape if sources else wire.shape
    parameters = network.parameters.get(wire.name, {})
    start = identity(int(np.prod(inward)))
    joined = through(wire, inward, parameters, start, network.dtype)
    return np.abs(np.asarray(joined.dense(network.dtype)))
