"""Forward mode: tangents of spike times, for `jax.jvp` and `jax.jacfwd`.

The gradient is linear in the cotangents of the spike times, so that JAX transposes it: what that
makes of the tangents of everything that a spike depends on are the tangents of the spike times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.dtypes import float0
from jaxtyping import Array, Float

from jaxsnn.event.adjoint.layer_adjoint import layer_backward
from jaxsnn.event.forward.layer import (
    LayerSpec,
    LayerSpikes,
    Rows,
    Seconds,
    Times,
    Weights,
    simulate_layer,
)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def layer_spikes_forward(
    spec: LayerSpec, weight: Weights, lanes: Any, time: Times, row: Rows, t_end: Seconds
) -> LayerSpikes:
    """As `layer_adjoint.layer_spikes`, differentiable in forward mode."""
    return simulate_layer(spec, weight, lanes, time, row, t_end)[0]


@layer_spikes_forward.defjvp
def _tangents(
    spec: LayerSpec, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[LayerSpikes, LayerSpikes]:
    spikes, causes = simulate_layer(spec, *primals)
    residuals = (*primals[:4], spikes.time, spikes.slope, causes)

    def gradients(cotangent: Float[Array, "batch neurons spikes"]) -> tuple[Any, ...]:
        return layer_backward(spec, residuals, replace(spikes, time=cotangent))[:3]

    return spikes, moved_by(spikes, transposed(gradients, spikes.time, tangents[:3]))


def transposed(
    gradients: Callable[[Any], Any], times: Float[Array, "..."], tangents: Any
) -> Float[Array, "..."]:
    """Tangents of spike times from the function that maps their cotangents to gradients, and the
    tangents by these.
    """
    return jax.vjp(gradients, jax.tree.map(jnp.zeros_like, times))[1](tangents)[0]


def moved_by(spikes: Any, tangent: Float[Array, "..."]) -> Any:
    """The tangent of spikes whose times move; slopes and counts are held."""

    def still(array: Array) -> Any:
        if jnp.issubdtype(array.dtype, jnp.floating):
            return jnp.zeros_like(array)
        return np.zeros(array.shape, float0)

    return replace(jax.tree.map(still, spikes), time=tangent)
