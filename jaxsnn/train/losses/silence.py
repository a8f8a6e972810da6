"""Remedies for silent neurons.

Exact gradients neither create nor delete spikes: a neuron that does not fire has no gradient and
would stay silent. A neuron that should fire has all its input weights raised instead (weight
bumping), on top of the step that the optimiser takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import UsageError, as_number, shown
from jaxsnn.network.network import Network
from jaxsnn.train.option_values import replace_fields

# Population, and the NIR name of each node with weights that feeds it, with the signs of its outputs,
# of a convolution of its channels (None: positive).
Feeding = tuple[tuple[str, tuple[tuple[str, tuple[float, ...] | None], ...]], ...]
#: Nodes whose kernels all neurons of a channel share.
_CONVOLUTIONS = ("Conv1d", "Conv2d")


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class WeightBumping:
    """How far the input weights of silent neurons are raised in a step, as fractions of the
    learning rate: 1 is a full step of Adam, in kicks.

    Attributes:
        label: for the neuron of the label, times the fraction of its samples in which it is silent,
            where each label has as many: an output that never fires is raised by `label`.
        hidden: for a neuron that fires in too few samples; behind a convolution for a channel whose
            neurons do so, on average.
        hidden_fraction: fraction of a batch below which these are too few.
    """

    label: float = 1.0
    hidden: float = 0.3
    hidden_fraction: float = 0.02

    @staticmethod
    def cases(
        counts: Mapping[str, jax.Array], labels: jax.Array, read: str
    ) -> dict[str, jax.Array]:
        """What `wanted` needs of each sample, population -> (batch, neurons) bool: of the
        population that the loss reads, which neuron is silent though it is that of the label; of
        others, which fire.

        Args:
            counts: population -> spikes of each neuron, (batch, neurons).
            labels: (batch,).
            read: the population that the loss reads.
        """
        found = {}
        for name, count in counts.items():
            fires = count > 0
            is_label = labels[:, None] == jnp.arange(fires.shape[1])
            found[name] = is_label & ~fires if name == read else fires
        return found

    def wanted(self, fractions: Mapping[str, jax.Array], read: str) -> dict[str, jax.Array]:
        """How far the weights of each neuron, or channel, are raised, population -> array >= 0 in
        the shape of its fractions.

        Args:
            fractions: means of the `cases` over the samples of the whole batch, (neurons,) or
                (channels,).
            read: the population that the loss reads.
        """
        return {
            name: self.label * jnp.minimum(fraction * len(fraction), 1.0)
            if name == read
            else jnp.where(fraction < self.hidden_fraction, self.hidden, 0.0)
            for name, fraction in fractions.items()
        }


def weight_bumping_of(
    given: WeightBumping | Mapping[str, Any] | None, default: WeightBumping
) -> WeightBumping:
    """The remedy: a record, its fields by name, or the default.

    Raises:
        UsageError: a field that does not exist, or a number below 0.
    """
    found = default if given is None else given
    if isinstance(found, Mapping):
        found = replace_fields(WeightBumping(), found, "weight_bumping")
    if not isinstance(found, WeightBumping):
        fix = "give WeightBumping(...), its fields by name, or None"
        raise UsageError(f"weight_bumping is {shown(found)}", fix=fix)
    for name, value in vars(found).items():
        if not as_number(value) >= 0:
            raise UsageError(f"weight_bumping.{name} is {shown(value)}", fix="give at least 0")
    return found


def feeding_weights(network: Network) -> Feeding:
    """For each population the Linear, Affine, Conv1d and Conv2d nodes that feed it, with the signs
    that their outputs arrive with.

    A sign is -1 where a Scale on the way is negative. A population that inputs or other populations
    feed directly has no such nodes, nor one behind a Scale that turns a part of a channel.
    """
    wires = {wire.name: wire for wire in network.wires}

    def found(name: str, sign: np.ndarray) -> list[tuple[str, tuple[float, ...] | None]]:
        wire = wires[name]
        if wire.kind in _CONVOLUTIONS:
            sign = sign.reshape(wire.shape[0], -1)
            if (sign != sign[:, :1]).any():
                return []
            sign = sign[:, 0]
        if wire.kind in ("Linear", "Affine", *_CONVOLUTIONS):
            return [(name, None if (sign > 0).all() else tuple(sign.tolist()))]
        if wire.kind == "Scale":
            sign = sign * np.sign(np.asarray(network.parameters[name]["scale"]))
        if wire.kind not in ("Scale", "Flatten"):
            return []
        return [entry for source in wire.sources for entry in found(source, sign)]

    return tuple(
        (
            name,
            tuple(
                entry
                for source in wires[name].sources
                for entry in found(source, np.ones(population.size))
            ),
        )
        for name, population in network.populations.items()
    )


def channels_of(network: Network) -> tuple[tuple[str, int], ...]:
    """The populations that convolutions alone feed, and how many channels they have."""
    wires = {wire.name: wire for wire in network.wires}
    return tuple(
        (name, wires[nodes[0][0]].shape[0])
        for name, nodes in feeding_weights(network)
        if nodes and all(wires[node].kind in _CONVOLUTIONS for node, _ in nodes)
    )


def by_channel(
    fractions: Mapping[str, jax.Array], channels: Sequence[tuple[str, int]], read: str
) -> dict[str, jax.Array]:
    """Fractions (neurons,) of each population, of those with channels the channels' means
    (channels,); the population that the loss reads has one neuron for each class.
    """
    numbers = {name: number for name, number in channels if name != read}
    return {
        name: jnp.mean(own.reshape(numbers[name], -1), axis=1) if name in numbers else own
        for name, own in fractions.items()
    }


def bumped(
    directions: dict[str, dict[str, jax.Array]],
    bumps: dict[str, jax.Array],
    feeding: Feeding,
    rate: Any = 1.0,
) -> dict[str, dict[str, jax.Array]]:
    """The optimiser's steps (which are descended), with `rate` times what `WeightBumping.wanted`
    says for weights that feed.

    A weight that is one number for all is not raised.
    """
    directions = {node: dict(own) for node, own in directions.items()}
    for population, nodes in feeding:
        for node, sign in nodes:
            if population in bumps and "weight" in directions.get(node, {}):
                bump = bumps[population] if sign is None else bumps[population] * jnp.asarray(sign)
                weight = directions[node]["weight"]
                if weight.ndim > 1 and len(weight) == len(bump):
                    by_row = bump.reshape(-1, *[1] * (weight.ndim - 1))
                    directions[node]["weight"] = weight - rate * by_row
    return directions
