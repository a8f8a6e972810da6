"""Computation of nodes without state that are not linear, on arrays.

A function of a node has the signature of those in `jaxsnn.network.linear_nodes`: (parameters, detail, x)
-> y, with x of shape (samples, *inward). Biases are included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.network.array_types import Array, Float

Arrays = Mapping[str, Any]


def largest(
    parameters: Arrays, detail: Any, x: Float[Array, "samples *shape"]
) -> Float[Array, "samples *shape"]:
    """Apply MaxPool1d or MaxPool2d: maxima over windows of the last axes, without the padding."""
    leading_axes = x.ndim - len(detail.kernel)
    kernel, stride = (*(1,) * leading_axes, *detail.kernel), (*(1,) * leading_axes, *detail.stride)
    padding = (*((0, 0),) * leading_axes, *detail.padding)
    return lax.reduce_window(x, -jnp.inf, lax.max, kernel, stride, padding)


def reshaped(
    parameters: Arrays, detail: tuple[int, ...], x: Float[Array, "samples *shape"]
) -> Float[Array, "samples *new"]:
    """Apply Reshape; `detail` is the new shape."""
    return x.reshape(len(x), *detail)


def rectified(
    parameters: Arrays, detail: Any, x: Float[Array, "samples *shape"]
) -> Float[Array, "samples *shape"]:
    """Apply ReLU; its derivative at 0 is 0, as in PyTorch."""
    return jax.nn.relu(x)


def normalised(
    parameters: Arrays, detail: tuple[int, float], x: Float[Array, "samples *shape"]
) -> Float[Array, "samples *shape"]:
    """Apply LayerNorm; `detail` is the number of normalised axes, the last ones, and epsilon."""
    count, epsilon = detail
    axes = tuple(range(x.ndim - count, x.ndim))
    centred = x - jnp.mean(x, axis=axes, keepdims=True)
    variance = jnp.mean(centred**2, axis=axes, keepdims=True)
    return centred * lax.rsqrt(variance + epsilon) * parameters["weight"] + parameters["bias"]
