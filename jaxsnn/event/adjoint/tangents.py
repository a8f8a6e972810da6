"""Forward mode: tangents of spike times, for `jax.jvp` and `jax.jacfwd`.

The gradient is linear in the cotangents of the spike times, so that JAX can transpose it. The
transposed function maps the tangents of all quantities that a spike depends on to the tangents of the
spike times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.dtypes import float0

from jaxsnn.event.adjoint.layer_adjoint import Residuals, layer_backward
from jaxsnn.event.event_arrays import NeuronConstants, OfSpikes, Rows, Seconds, Times, Weights
from jaxsnn.event.forward.layer import LayerSpec, LayerSpikes
from jaxsnn.event.forward.simulate_layer import simulate_layer
from jaxsnn.network.array_types import Array, Float
from jaxsnn.network.promotion import usual_promotion


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def layer_spikes_forward(
    spec: LayerSpec,
    weight: Weights,
    constants: NeuronConstants,
    time: Times,
    row: Rows,
    t_end: Seconds,
) -> LayerSpikes:
    """Return the same spikes as `layer_adjoint.layer_spikes`, differentiable in forward mode."""
    return simulate_layer(spec, weight, constants, time, row, t_end)[0]


@layer_spikes_forward.defjvp
@usual_promotion
def _tangents(
    spec: LayerSpec, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[LayerSpikes, LayerSpikes]:
    """Return the spikes and their tangents; primals and tangents are those of the other
    arguments.
    """
    spikes, causes = simulate_layer(spec, *primals)
    weight, constants, time, row, _ = primals
    residuals = Residuals(weight, constants, time, row, spikes.time, spikes.slope, causes)

    def gradients(cotangent: OfSpikes) -> tuple[Weights, NeuronConstants, Times]:
        return layer_backward(spec, residuals, replace(spikes, time=cotangent), True)[:3]

    # row and t_end have no gradient
    input_tangents = tangents[:3]
    return spikes, moved_by(spikes, transposed(gradients, spikes.time, input_tangents))


def transposed(
    gradients: Callable[[Float[Array, "..."]], Any], times: Float[Array, "..."], tangents: Any
) -> Float[Array, "..."]:
    """Return the tangents of spike times, from the linear function that maps their cotangents to
    gradients and the tangents of its arguments.

    Args:
        gradients: linear, spike times' cotangents -> a tree of gradients.
        times: spike times.
        tangents: a tree like that of the gradients.
    """
    # The gradients are J^T c for cotangents c, so that the derivative of <J^T c, tangents> with
    # respect to c is J tangents. As they are linear in c, it is the same at any c.
    pull = jax.vjp(gradients, jax.tree.map(jnp.zeros_like, times))[1]
    return pull(tangents)[0]


Spikes = TypeVar("Spikes")


def moved_by(spikes: Spikes, tangent: Float[Array, "..."]) -> Spikes:
    """Return the tangent of spikes with a tangent of their times; slopes and counts have none."""

    def still(array: Array) -> Any:
        if jnp.issubdtype(array.dtype, jnp.floating):
            return jnp.zeros_like(array)
        return np.zeros(array.shape, float0)  # the tangent type that JAX expects for integers

    moved: Any = jax.tree.map(still, spikes)
    return replace(moved, time=tangent)
