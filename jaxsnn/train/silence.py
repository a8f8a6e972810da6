"""Remedies for silent neurons.

Exact gradients neither create nor delete spikes: a neuron that does not fire has no gradient and would stay silent.
A neuron that should fire has the mean of its input weights pushed up instead, by an addition to their gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.network import Network
from jaxsnn.simulate import Solution


@dataclass(frozen=True, kw_only=True)
class Push:
    """How hard silent neurons are pushed; gradients are per unit kick (see `scaling`), averaged over the batch.

    Attributes:
        label: push of the neuron of the label, for the fraction of samples in which it is silent.
        hidden: push of a neuron that fires in too few samples.
        hidden_fraction: fraction of a batch below which these are too few.
    """

    label: float = 1.0
    hidden: float = 0.1
    hidden_fraction: float = 0.02

    def wanted(self, solution: Solution, labels: jax.Array, read: str) -> dict[str, jax.Array]:
        """Push of each neuron, population -> (neurons,) >= 0; `read` is the population that the loss reads."""
        pushes = {}
        for name, spikes in solution.spikes.items():
            fires = spikes.count > 0
            if name == read:
                is_label = labels[:, None] == jnp.arange(fires.shape[1])
                pushes[name] = self.label * jnp.mean(is_label & ~fires, axis=0)
            else:
                pushes[name] = jnp.where(jnp.mean(fires, axis=0) < self.hidden_fraction, self.hidden, 0.0)
        return pushes


def feeding_weights(network: Network) -> dict[str, tuple[tuple[str, np.ndarray], ...]]:
    """For each population the Linear and Affine nodes that feed it, with the sign that their outputs arrive with.

    Signs have shape (neurons,) and are -1 where a Scale on the way is negative. A population that inputs or other
    populations feed directly has none.
    """
    wires = {wire.name: wire for wire in network.wires}

    def found(name: str, sign: np.ndarray) -> list[tuple[str, np.ndarray]]:
        wire = wires[name]
        if wire.kind in ("Linear", "Affine"):
            return [(name, sign)]
        if wire.kind == "Scale":
            sign = sign * np.sign(np.asarray(network.parameters[name]["scale"]))
        if wire.kind not in ("Scale", "Flatten"):
            return []
        return [entry for source in wire.sources for entry in found(source, sign)]

    ones = {name: np.ones(population.size) for name, population in network.populations.items()}
    return {
        name: tuple(entry for source in wires[name].sources for entry in found(source, ones[name]))
        for name in network.populations
    }
