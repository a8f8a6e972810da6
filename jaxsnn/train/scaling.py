"""Steps of the optimiser that mean the same in every dialect.

A file's weights live in its dialect: snnTorch's, for example, are about dt / tau_mem of those that make the synaptic
current jump by themselves. The optimiser therefore works on what a weight does. The kick of a weight is the jump of
R I that a spike through it causes in the population behind, divided by v_threshold - v_reset (in a readout, which has
no threshold, by 1); for LIF and IF, it is the rise of V that a spike causes. The lift of a bias is the shift of the
resting voltage (for IF, which has none, the rise of V during a sample), divided by the same. A step of 0.01 moves kicks
and lifts by 0.01.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import UsageError, listing
from jaxsnn.event.kinds import neuron_of
from jaxsnn.event.neurons import Neuron
from jaxsnn.network import Network, Wire

#: NIR parameters that can be trained.
TRAINABLE = ("weight", "bias")


def trainable_parameters(network: Network, names: tuple[str, ...]) -> dict[str, dict[str, jax.Array]]:
    """NIR node -> parameter -> array, of the parameters with the given NIR names.

    Raises:
        UsageError: a name that cannot be trained, or none of them in the network.
    """
    unknown = [name for name in names if name not in TRAINABLE]
    if unknown:
        raise UsageError(f"'{unknown[0]}' cannot be trained so far: there are {listing(TRAINABLE)}")
    found = {node: {name: own[name] for name in names if name in own} for node, own in network.parameters.items()}
    found = {node: own for node, own in found.items() if own}
    if not found:
        raise UsageError(f"the network has no {listing(names)} to train: its nodes are {listing(network.parameters)}")
    return found


def step_scales(
    network: Network, trainable: dict[str, dict[str, jax.Array]], t_end: float
) -> dict[str, dict[str, jax.Array]]:
    """What a step of 1 in kicks or lifts is in the file's numbers, for each trainable array; 0 where nothing follows.

    Per row of a weight matrix, shape (outputs, 1), and per entry of a bias. A node that feeds several populations, or
    one behind further linear nodes, is scaled for the largest kick that it gives. `t_end` (seconds) is the length of a
    sample.
    """
    lift = partial(_lift_per_bias, t_end=t_end)
    effects = {"weight": _reach(network, _kick_per_weight), "bias": _reach(network, lift)}
    scales = {}
    for node, own in trainable.items():
        scales[node] = {}
        for name, value in own.items():
            effect = effects[name][node]
            scale = np.where(effect > 0, 1 / np.where(effect > 0, effect, 1.0), 0.0)
            scales[node][name] = jnp.asarray(scale.reshape(-1, 1) if name == "weight" else scale, value.dtype)
    return scales


def _kick_per_weight(neuron: Neuron, parameters: dict[str, jax.Array]) -> np.ndarray:
    return np.abs(np.asarray(neuron.kick(parameters)))


def _lift_per_bias(neuron: Neuron, parameters: dict[str, jax.Array], t_end: float) -> np.ndarray:
    one = jnp.ones_like(parameters["r"])
    shift = neuron.v_inf(parameters, one) - neuron.v_inf(parameters, None)
    rise = (neuron.j_start(parameters, one) - neuron.j_start(parameters, None)) * t_end
    leaks = neuron.leak(neuron.lanes(parameters, None)) > 0
    return np.abs(np.asarray(jnp.where(leaks, shift, rise)))


def _reach(network: Network, effect_of) -> dict[str, np.ndarray]:
    """For each node, the largest effect of one unit that leaves it, by channel; backwards through linear nodes."""
    leaving = {wire.name: np.zeros(wire.size) for wire in network.wires}
    for wire in reversed(network.wires):
        entering = _entering(network, wire, leaving[wire.name], effect_of)
        for source in wire.sources:
            leaving[source] = np.maximum(leaving[source], entering)
    return leaving


def _entering(network: Network, wire: Wire, leaving: np.ndarray, effect_of) -> np.ndarray:
    """The largest effect of one unit that enters a node, by channel."""
    parameters = network.parameters.get(wire.name, {})
    if wire.kind == "neuron":
        population = network.populations[wire.name]
        effect = effect_of(neuron_of(population), parameters)
        if not population.fires:
            return effect
        lanes = neuron_of(population).lanes(parameters, None)
        return effect / np.asarray(lanes.threshold - lanes.v_reset)
    if wire.kind == "output":
        return np.zeros(wire.size)
    if wire.kind == "Scale":
        return leaving * np.abs(np.asarray(parameters["scale"]))
    if "weight" in parameters:
        return np.max(leaving[:, None] * np.abs(np.asarray(parameters["weight"])), axis=0)
    return leaving
