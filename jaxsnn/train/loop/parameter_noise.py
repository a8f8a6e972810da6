"""Noise of parameters while a network is trained, so that it also answers on chips whose parts
deviate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from jaxsnn.errors import UsageError, as_number, shown, suggestion
from jaxsnn.network.array_types import Array, Float
from jaxsnn.network.network import Network

#: What can be given noise, and gains of weights as an analog chip has them. Time constants cannot:
#: the compiled step knows their ratios.
NOISY = ("weight", "v_threshold", "input_gain", "driver_gain")

#: Name of a parameter, and the standard deviation of its noise, as a fraction.
Noise = tuple[tuple[str, float], ...]


def noise_of(given: Any) -> Noise:
    """The option `noise` as sorted pairs, which compiled code can take for a static value.

    Raises:
        UsageError: no table, a parameter that takes no noise, or a deviation that is none.
    """
    if isinstance(given, float | int | str):
        fix = "say of what: weight:0.1,v_threshold:0.05"
        raise UsageError(f"noise is {shown(given)}", fix=fix)
    pairs = dict(given or ())
    for name, deviation in pairs.items():
        if name not in NOISY:
            raise UsageError(f"noise of '{name}' is not supported", fix=suggestion(name, NOISY))
        if not 0 <= as_number(deviation) < math.inf:
            raise UsageError(
                f"the noise of {name} is {shown(deviation)}",
                fix="give a finite number of at least 0",
            )
    return tuple(sorted(pairs.items()))


def noisy(network: Network, noise: Noise, key: jax.Array) -> Network:
    """The network with its parameters multiplied by 1 + a normal deviate: `weight` one for each
    weight, `v_threshold` one for each neuron, of the threshold's distance from the leak.

    Gains multiply matrices (targets, sources), one deviate for many weights, so that it does not
    average out: `input_gain` one for the positive and one for the negative weights of each target,
    `driver_gain` one for each source. Other weights have none.

    Gradients pass through the factors, so that the parameters themselves stay without noise.
    """
    changed: dict[str, Any] = {}
    for number, (node, own) in enumerate(sorted(network.parameters.items())):
        new = dict(own)
        for name, deviation in noise:
            once = jax.random.fold_in(jax.random.fold_in(key, number), NOISY.index(name))
            if name in _GAINS:
                if jnp.ndim(own.get("weight", 0.0)) == 2:
                    new["weight"] = _GAINS[name](jnp.asarray(new["weight"]), deviation, once)
                continue
            if name not in own:
                continue
            value, around = jnp.asarray(new[name]), jnp.asarray(0.0)
            if name == "v_threshold":
                value = jnp.broadcast_to(value, (network.populations[node].size,))
                around = jnp.asarray(own.get("v_leak", 0.0))
            new[name] = around + (value - around) * _factors(deviation, value.shape, value, once)
        changed[node] = new
    return network.with_parameters(changed)


def noise_notes(network: Network, noise: Noise | None) -> list[str]:
    """What training with noise has to say: where it is met, and weights that have no gain."""
    if not noise:
        return []
    said = ["the validation samples meet the noise of training, the same in each epoch"]
    gains = [name for name, _ in noise if name in _GAINS]
    for node, own in sorted(network.parameters.items()) if gains else ():
        if "weight" in own and jnp.ndim(own["weight"]) != 2:
            said.append(f"the weights of '{node}' are no matrix, and take no noise of {gains[0]}")
    return said


def _factors(
    deviation: float, shape: tuple[int, ...], like: jax.Array, key: jax.Array
) -> jax.Array:
    return 1 + deviation * jax.random.normal(key, shape, like.dtype)


def _by_target(
    weight: Float[Array, "targets sources"], deviation: float, key: jax.Array
) -> Float[Array, "targets sources"]:
    """Excitatory and inhibitory inputs of a neuron have a gain each."""
    excite, inhibit = _factors(deviation, (2, len(weight), 1), weight, key)
    return weight * jnp.where(weight > 0, excite, inhibit)


def _by_source(
    weight: Float[Array, "targets sources"], deviation: float, key: jax.Array
) -> Float[Array, "targets sources"]:
    """What a neuron or an input channel sends has one gain."""
    return weight * _factors(deviation, weight.shape[1:], weight, key)


_GAINS: Mapping[str, Callable[[jax.Array, float, jax.Array], jax.Array]] = MappingProxyType(
    {"input_gain": _by_target, "driver_gain": _by_source}
)
