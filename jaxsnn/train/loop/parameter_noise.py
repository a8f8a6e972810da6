"""Noise of parameters while a network is trained, so that it also answers on chips whose parts
deviate.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxsnn.errors import UsageError, suggestion
from jaxsnn.network.network import Network

#: What can be given noise. Time constants cannot: the compiled step knows their ratios.
NOISY = ("weight", "v_threshold")

#: Name of a parameter, and the standard deviation of its noise, as a fraction.
Noise = tuple[tuple[str, float], ...]


def noise_of(given: Any) -> Noise:
    """The option `noise` as sorted pairs, which compiled code can take for a static value.

    Raises:
        UsageError: no table, a parameter that takes no noise, or a deviation that is none.
    """
    if isinstance(given, float | int):
        raise UsageError(f"noise is {given:g}", fix="say of what: weight:0.1,v_threshold:0.05")
    pairs = dict(given or ())
    for name, deviation in pairs.items():
        if name not in NOISY:
            raise UsageError(f"noise of '{name}' is not supported", fix=suggestion(name, NOISY))
        if not 0 <= deviation < math.inf:
            raise UsageError(
                f"the noise of {name} is {deviation:g}", fix="give a finite number of at least 0"
            )
    return tuple(sorted(pairs.items()))


def noisy(network: Network, noise: Noise, key: jax.Array) -> Network:
    """The network with its parameters multiplied by 1 + a normal deviate, one for each weight; a
    threshold's distance from the leak is, one for each neuron.

    Gradients pass through the factors, so that the parameters themselves stay without noise.
    """
    changed: dict[str, Any] = {}
    for number, (node, own) in enumerate(sorted(network.parameters.items())):
        new = dict(own)
        for name, deviation in noise:
            if name not in own:
                continue
            once = jax.random.fold_in(jax.random.fold_in(key, number), NOISY.index(name))
            value, around = jnp.asarray(own[name]), jnp.asarray(0.0)
            if name == "v_threshold":
                value = jnp.broadcast_to(value, (network.populations[node].size,))
                around = jnp.asarray(own.get("v_leak", 0.0))
            factor = 1 + deviation * jax.random.normal(once, value.shape, value.dtype)
            new[name] = around + (value - around) * factor
        changed[node] = new
    return network.with_parameters(changed)
