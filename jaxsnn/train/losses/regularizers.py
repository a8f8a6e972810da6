"""Additions to the loss: regularisers, remedies for silent neurons, and noise of parameters.

Exact gradients neither create nor delete spikes: a neuron that does not fire has no gradient and
would stay silent. A neuron that should fire has all its input weights raised instead (weight
bumping), on top of the step that the optimiser takes. Noise of parameters makes a network
tolerate chips whose circuits deviate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsnn.errors import UsageError, as_number, shown, suggestion
from jaxsnn.event.event_solution import EventSolution
from jaxsnn.keywords import suggests_keywords
from jaxsnn.network.array_types import Array, Float
from jaxsnn.network.network import Network
from jaxsnn.options import NOISE
from jaxsnn.train.option_values import replace_fields
from jaxsnn.wording import Text

#: Multiple of a budget's spikes up to which the budget counts as met.
_TOLERATED = 1.05


class Regulariser(Protocol):
    """Term of the loss that reads a solution of the event engine; a frozen dataclass, hashable like
    a `Loss`.
    """

    def __call__(self, network: Network, solution: EventSolution) -> jax.Array:
        """Return one number for each sample, (batch,), without a unit, differentiated by JAX.

        Args:
            network: network with the parameters of this step.
            solution: solution of the batch.
        """
        ...


class _Checked:
    """Base class of regularisers that validate their fields on construction.

    Raises:
        UsageError: an invalid field.
    """

    def __post_init__(self) -> None:
        """Refuse invalid fields."""
        name = type(self).__name__
        for field, least in (("strength", 0.0), ("target", 0.0), ("most", np.finfo(float).tiny)):
            value = getattr(self, field, least)
            if not (least <= as_number(value) < np.inf or isinstance(value, Tracer)):
                requirement = "above 0" if least else "of at least 0"
                raise UsageError(
                    Text(
                        "{term}: {parameter} is {value}",
                        term=name,
                        parameter=field,
                        value=shown(value),
                    ),
                    fix=f"pass a number {requirement}",
                )
        if isinstance(populations := getattr(self, "populations", ()), str):
            raise UsageError(
                Text("{term}: populations is {populations!r}", term=name, populations=populations),
                fix=f'pass a tuple of names, ("{populations}",)',
            )


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class SpikeRate(_Checked):
    """Penalty on spike counts that differ from `target` per sample: strength / 2 mean (count -
    target)^2.

    A count has no exact gradient: the gradient of each spike is that of a small jump of the membrane
    potential (`jaxsnn.train.losses.losses`), as in the regulariser of Nowotny et al., arXiv:2212.01232.
    A silent neuron has no spike, and thus no gradient: see `PeakMargin` and
    `jaxsnn.train.WeightBumping`.

    Attributes:
        target: target number of spikes per neuron and sample.
        strength: strength of the term.
        populations: names of populations; empty: all spiking populations.
    """

    target: float = 14.0
    strength: float = 0.01
    populations: tuple[str, ...] = ()

    def __call__(self, network: Network, solution: EventSolution) -> jax.Array:
        """Return the penalty of each sample, (batch,)."""
        populations = self.populations or firing(network, solution)
        excess = [
            jnp.mean(jnp.square(solution.count(name) - self.target), axis=1) for name in populations
        ]
        return 0.5 * self.strength * sum(excess, jnp.zeros(()))


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class SpikeBudget(_Checked):
    """Penalty on more than `most` spikes of all neurons in a sample: strength / 2 (excess /
    most)^2.

    The gradient of a count is that of `SpikeRate`. The best epoch of a run is preferably one that meets
    the budget on the validation samples.

    Attributes:
        most: largest number of spikes per sample, of all populations.
        strength: strength of the term.
    """

    most: float
    strength: float = 1.0

    def excess(self, spikes: float) -> float:
        """Return the fraction by which spikes exceed the budget, less a tolerance of 1/20."""
        return max(spikes / self.most - _TOLERATED, 0.0)

    def __call__(self, network: Network, solution: EventSolution) -> jax.Array:
        """Return the penalty of each sample, (batch,)."""
        counts = [jnp.sum(solution.count(name), axis=1) for name in firing(network, solution)]
        excess = jnp.maximum(sum(counts, jnp.zeros(())) / self.most - 1, 0.0)
        return 0.5 * self.strength * jnp.square(excess)


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class PeakMargin(_Checked):
    """Penalty on silent neurons whose voltage stays far below threshold: strength mean (threshold -
    peak) / height.

    The mean is over all neurons of a population; those that fire in the sample contribute 0. Terms
    of several populations are added. `height` is v_threshold - v_reset. The largest voltage of a
    silent neuron has an exact gradient, whereas its missing spikes have none.

    Attributes:
        strength: strength of the term.
        populations: names of populations; empty: all spiking populations.
    """

    strength: float = 0.01
    populations: tuple[str, ...] = ()

    def __call__(self, network: Network, solution: EventSolution) -> jax.Array:
        """Return the penalty of each sample, (batch,).

        Raises:
            UsageError: a population that does not fire, or does not exist.
        """
        total, spiking = jnp.zeros(()), firing(network, solution)
        for name in self.populations or spiking:
            if name not in spiking:
                raise UsageError(
                    Text("PeakMargin: '{population}' is not a spiking population", population=name),
                    fix=suggestion(name, spiking),
                    node=name,
                )
            threshold = jax.lax.stop_gradient(network.parameters[name]["v_threshold"])
            lacks = (threshold - solution.maximum(name)) / jax.lax.stop_gradient(
                solution.heights[name]
            )
            silent = solution.spikes[name].count == 0
            total += jnp.mean(jnp.where(silent, jnp.maximum(lacks, 0.0), 0.0), axis=1)
        return self.strength * total


def firing(network: Network, solution: EventSolution) -> tuple[str, ...]:
    """Return the names of the populations that fire; a Threshold is not one of them."""
    return tuple(name for name in solution.spikes if name in network.populations)


# Pairs of a population and the nodes with weights that feed it. Each node is a pair of its NIR name
# and the signs of its outputs, or of its channels for a convolution (None: positive).
Feeding = tuple[tuple[str, tuple[tuple[str, tuple[float, ...] | None], ...]], ...]
#: Types of nodes whose kernels are shared by all neurons of a channel.
_CONVOLUTIONS = ("Conv1d", "Conv2d")


@suggests_keywords
@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class WeightBumping:
    """Amounts by which the input weights of silent neurons are raised in a step, as fractions of
    the learning rate: 1 is a full step of Adam, in PSP amplitudes.

    Attributes:
        label: amount for the neuron of the label, times the fraction of its samples in which it is
            silent, if all labels are equally frequent: `label` for an output that never fires.
        hidden: amount for a neuron that fires in too few samples; after a convolution, for a channel
            whose neurons do so on average.
        hidden_fraction: fraction of the samples of a batch below which a neuron fires in too few.
    """

    label: float = 1.0
    hidden: float = 0.3
    hidden_fraction: float = 0.02

    @staticmethod
    def cases(
        counts: Mapping[str, jax.Array], labels: jax.Array, read: str
    ) -> dict[str, jax.Array]:
        """Return the statistics of each sample that `wanted` needs, population -> (batch, neurons)
        bool: for the population that the loss reads, whether a neuron is that of the label and
        silent; for other populations, whether a neuron fires.

        Args:
            counts: population -> spikes of each neuron, (batch, neurons).
            labels: (batch,).
            read: output population, which the loss reads.
        """
        by_population = {}
        for name, count in counts.items():
            fires = count > 0
            is_label = labels[:, None] == jnp.arange(fires.shape[1])
            by_population[name] = is_label & ~fires if name == read else fires
        return by_population

    def wanted(self, fractions: Mapping[str, jax.Array], read: str) -> dict[str, jax.Array]:
        """Return the amount by which the weights of each neuron, or channel, are raised, population
        -> array >= 0 in the shape of its fractions.

        Args:
            fractions: means of the `cases` over the samples of the whole batch, (neurons,) or
                (channels,).
            read: output population, which the loss reads.
        """
        return {
            name: self.label * jnp.minimum(fraction * len(fraction), 1.0)
            if name == read
            else jnp.where(fraction < self.hidden_fraction, self.hidden, 0.0)
            for name, fraction in fractions.items()
        }


def weight_bumping_of(
    weight_bumping: WeightBumping | Mapping[str, Any] | None, default: WeightBumping
) -> WeightBumping:
    """Return the weight bumping for an option: a record, a mapping of its fields, or None for the
    default.

    Raises:
        UsageError: a field that does not exist, or a number below 0.
    """
    bumping = default if weight_bumping is None else weight_bumping
    if isinstance(bumping, Mapping):
        bumping = replace_fields(WeightBumping(), bumping, "weight_bumping")
    if not isinstance(bumping, WeightBumping):
        fix = "pass WeightBumping(...), its fields by name, or None"
        raise UsageError(Text("weight_bumping is {bumping}", bumping=shown(bumping)), fix=fix)
    for name, value in vars(bumping).items():
        if not as_number(value) >= 0:
            raise UsageError(
                Text("weight_bumping.{parameter} is {value}", parameter=name, value=shown(value)),
                fix="pass at least 0",
            )
    return bumping


def feeding_weights(network: Network) -> Feeding:
    """Return for each population the Linear, Affine, Conv1d and Conv2d nodes that feed it, with the
    signs of the path from their outputs.

    A sign is -1 where a Scale on the way is negative. There are no such nodes for a population
    that inputs or other populations feed directly, or whose path has a Scale that inverts only a part
    of a channel.
    """
    wires = {wire.name: wire for wire in network.wires}

    def weights_into(name: str, sign: np.ndarray) -> list[tuple[str, tuple[float, ...] | None]]:
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
        return [entry for source in wire.sources for entry in weights_into(source, sign)]

    return tuple(
        (
            name,
            tuple(
                entry
                for source in wires[name].sources
                for entry in weights_into(source, np.ones(population.size))
            ),
        )
        for name, population in network.populations.items()
    )


def channels_of(network: Network) -> tuple[tuple[str, int], ...]:
    """Return the populations that only convolutions feed, with their numbers of channels."""
    wires = {wire.name: wire for wire in network.wires}
    return tuple(
        (name, wires[nodes[0][0]].shape[0])
        for name, nodes in feeding_weights(network)
        if nodes and all(wires[node].kind in _CONVOLUTIONS for node, _ in nodes)
    )


def by_channel(
    fractions: Mapping[str, jax.Array], channels: Sequence[tuple[str, int]], read: str
) -> dict[str, jax.Array]:
    """Average the fractions (neurons,) of populations with channels over each channel, to
    (channels,); the population that the loss reads keeps one entry for each class.
    """
    numbers = {name: number for name, number in channels if name != read}
    return {
        name: jnp.mean(fraction.reshape(numbers[name], -1), axis=1) if name in numbers else fraction
        for name, fraction in fractions.items()
    }


def bumped(
    directions: dict[str, dict[str, jax.Array]],
    bumps: dict[str, jax.Array],
    feeding: Feeding,
    rate: Any = 1.0,
) -> dict[str, dict[str, jax.Array]]:
    """Add weight bumping to the optimiser's steps (which are subtracted): `rate` times the amounts
    of `WeightBumping.wanted`, for weights that feed a population.

    A scalar weight, which all synapses share, is not raised.
    """
    directions = {node: dict(steps) for node, steps in directions.items()}
    for population, nodes in feeding:
        for node, sign in nodes:
            if population in bumps and "weight" in directions.get(node, {}):
                bump = bumps[population] if sign is None else bumps[population] * jnp.asarray(sign)
                weight = directions[node]["weight"]
                if weight.ndim > 1 and len(weight) == len(bump):
                    by_row = bump.reshape(-1, *[1] * (weight.ndim - 1))
                    directions[node]["weight"] = weight - rate * by_row
    return directions


#: Parameters that support noise, and gains of weights as on an analog chip. Time constants do not
#: support it, because the compiled step depends on their ratios.
NOISY = ("weight", "v_threshold", "input_gain", "driver_gain")

#: Name of a parameter, and the standard deviation of its noise, as a fraction.
Noise = tuple[tuple[str, float], ...]


def noise_of(noise: Any) -> Noise:
    """Return the option `noise` as sorted pairs, which compiled code can use as a static value.

    Raises:
        UsageError: not a table, a parameter that does not support noise, or an invalid deviation.
    """
    if isinstance(noise, float | int | str):
        fix = "pass parameters and numbers, such as weight:0.1,v_threshold:0.05"
        message = Text("{option} is {value}", option=NOISE, value=shown(noise))
        raise UsageError(message, fix=fix)
    pairs = dict(noise or ())
    for name, deviation in pairs.items():
        if name not in NOISY:
            raise UsageError(
                Text("noise of '{target}' is not supported", target=name),
                fix=suggestion(name, NOISY),
            )
        if not 0 <= as_number(deviation) < math.inf:
            raise UsageError(
                Text("the noise of {target} is {value}", target=name, value=shown(deviation)),
                fix="pass a finite number of at least 0",
            )
    return tuple(sorted(pairs.items()))


def noisy(network: Network, noise: Noise, key: jax.Array) -> Network:
    """Return the network with noise: parameters are multiplied by random factors 1 + d, where d is
    normally distributed.

    With `weight`, each weight has a separate factor. With `v_threshold`, each neuron has one, by
    which the distance of its threshold from its leak is multiplied.

    A gain is a factor that many weights of a matrix (targets, sources) share, so that it does not
    average out. With `input_gain`, each target has one factor for its positive and one for its
    negative weights; with `driver_gain`, each source has one. Weights that are not matrices, such
    as those of convolutions, have no gains.

    Gradients pass through the factors to the parameters, which stay without noise.
    """
    changed: dict[str, Any] = {}
    for number, (node, parameters) in enumerate(sorted(network.parameters.items())):
        new = dict(parameters)
        for name, deviation in noise:
            once = jax.random.fold_in(jax.random.fold_in(key, number), NOISY.index(name))
            if name in _GAINS:
                if jnp.ndim(parameters.get("weight", 0.0)) == 2:
                    new["weight"] = _GAINS[name](jnp.asarray(new["weight"]), deviation, once)
                continue
            if name not in parameters:
                continue
            value, around = jnp.asarray(new[name]), jnp.asarray(0.0)
            if name == "v_threshold":
                value = jnp.broadcast_to(value, (network.populations[node].size,))
                around = jnp.asarray(parameters.get("v_leak", 0.0))
            new[name] = around + (value - around) * _factors(deviation, value.shape, value, once)
        changed[node] = new
    return network.with_parameters(changed)


def noise_notes(network: Network, noise: Noise | None) -> list[str]:
    """Return notes on training with noise: the noise of validation, and weights without a gain."""
    if not noise:
        return []
    notes = ["validation also has parameter noise, which is the same in each epoch"]
    gains = [name for name, _ in noise if name in _GAINS]
    for node, parameters in sorted(network.parameters.items()) if gains else ():
        if "weight" in parameters and jnp.ndim(parameters["weight"]) != 2:
            notes.append(
                Text(
                    "the weights of '{node}' are not a matrix, so that they have no noise of {target}",
                    node=node,
                    target=gains[0],
                )
            )
    return notes


def _factors(
    deviation: float, shape: tuple[int, ...], like: jax.Array, key: jax.Array
) -> jax.Array:
    return 1 + deviation * jax.random.normal(key, shape, like.dtype)


def _by_target(
    weight: Float[Array, "targets sources"], deviation: float, key: jax.Array
) -> Float[Array, "targets sources"]:
    """Multiply weights by random gains: one for the excitatory and one for the inhibitory inputs of
    each target.
    """
    excite, inhibit = _factors(deviation, (2, len(weight), 1), weight, key)
    return weight * jnp.where(weight > 0, excite, inhibit)


def _by_source(
    weight: Float[Array, "targets sources"], deviation: float, key: jax.Array
) -> Float[Array, "targets sources"]:
    """Multiply weights by random gains: one for each source."""
    return weight * _factors(deviation, weight.shape[1:], weight, key)


_GAINS: Mapping[str, Callable[[jax.Array, float, jax.Array], jax.Array]] = MappingProxyType(
    {"input_gain": _by_target, "driver_gain": _by_source}
)
