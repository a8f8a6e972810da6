"""Biases, Thresholds and Delays, on arrays with any leading axes (time, batch).

All other computations of linear nodes are in `jaxsnn.network.linear_nodes`.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp

from jaxsnn.grid.surrogate import Surrogate, spike
from jaxsnn.network.array_types import Array, Float
from jaxsnn.network.structure import Wire


def bias_of(
    wire: Wire, parameters: Mapping[str, Float[Array, "..."]]
) -> Float[Array, "*bias"] | None:
    """Return the bias of a linear node, in the shape of its output or with axes of length 1 after
    that of the channels; None if it has none.
    """
    bias = wire.bias(parameters)
    if bias is None:
        return None
    if bias.size == wire.size:
        return bias.reshape(wire.shape)
    # One number for each channel, which is the first axis of the shape.
    return bias.reshape(-1, *(1,) * (len(wire.shape) - 1))


def above(
    parameters: Mapping[str, Float[Array, "..."]],
    shape: tuple[int, ...],
    x: Float[Array, "*lead *shape"],
    surrogate: Surrogate,
) -> Float[Array, "*lead *shape"]:
    """Evaluate NIR's Threshold: 1 where x > threshold, else 0; backward the surrogate."""
    return spike(x - parameters["threshold"].reshape(shape), surrogate, False)


def delayed(
    steps: tuple[int, ...], x: Float[Array, "time batch *shape"]
) -> Float[Array, "time batch *shape"]:
    """Return x delayed by `steps`, one number or one for each element of the shape; zeros come
    first.
    """
    if len(steps) == 1:
        shift = min(steps[0], len(x))
        return jnp.concatenate([jnp.zeros_like(x[:shift]), x[: len(x) - shift]])
    flat = x.reshape(*x.shape[:2], -1)  # (time, batch, elements)
    # Step from which each element comes, (time, 1, elements); negative: zero.
    source = jnp.arange(len(x))[:, None, None] - jnp.asarray(steps)
    shifted = jnp.take_along_axis(flat, jnp.maximum(source, 0), axis=0)
    return jnp.where(source < 0, 0, shifted).reshape(x.shape)
