"""Forward mode: tangents of spike times, for `jax.jvp` and `jax.jacfwd`.

At a spike the voltage equals the threshold, so that for a direction dp of everything the spike
depends on

    dt_s = -(dv(t_s)/dp dp + sum_{s' < s} dv(t_s)/dt_s' dt_s') / v'(t_s),

spike by spike (the implicit function theorem, as in `adjoint`). JAX takes the first term from the
closed form of v.

Where a reset is an assignment, and in recurrent groups, the tangents are what the gradient is the
transpose of: the gradient is linear in the cotangents, so JAX transposes it.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.dtypes import float0

from jaxsnn.event.adjoint.layer_adjoint import layer_backward, slope_floor, starts_above
from jaxsnn.event.dynamics.neuron_model import Lanes
from jaxsnn.event.forward.layer import LayerSpec, LayerSpikes, simulate_layer, spread
from jaxsnn.network.structure import TauShape


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def layer_spikes_forward(spec: LayerSpec, weight, lanes: Lanes, time, row, t_end) -> LayerSpikes:
    """As `adjoint.layer_spikes`, differentiable in forward mode.

    Takes (batch, arrivals, neurons) numbers at once.
    """
    return simulate_layer(spec, weight, lanes, time, row, t_end)[0]


@layer_spikes_forward.defjvp
def _tangents(spec, primals, tangents):
    weight, lanes, time, row, t_end = primals
    spikes, causes = simulate_layer(spec, weight, lanes, time, row, t_end)
    if causes is not None:
        residuals = (weight, lanes, time, row, spikes.time, spikes.slope, causes)

        def gradients(cotangent):
            return layer_backward(spec, residuals, replace(spikes, time=cotangent))[:3]

        return spikes, moved_by(spikes, transposed(gradients, spikes.time, tangents[:3]))
    times = jnp.moveaxis(spikes.time, -1, 0)
    fired = jnp.isfinite(times)
    finite = jnp.where(fired, times, 0.0)
    wide = spread(lanes, time.shape[0])
    slopes = jnp.maximum(jnp.moveaxis(spikes.slope, -1, 0), slope_floor(spec, wide))
    slopes = slopes.at[0].set(jnp.where(starts_above(wide), jnp.inf, slopes[0]))
    row = jnp.broadcast_to(row, time.shape)

    def step(moved, number):
        def voltage(weight, lanes, time, earlier):
            return _voltage(spec.neuron, weight, lanes, time, row, finite[number], earlier, number)

        dv = jax.jvp(voltage, (weight, lanes, time, finite), (*tangents[:3], moved))[1]
        moved = moved.at[number].set(jnp.where(fired[number], -dv / slopes[number], 0.0))
        return moved, None

    moved, _ = lax.scan(step, jnp.zeros_like(finite), jnp.arange(len(times)))
    return spikes, moved_by(spikes, jnp.moveaxis(moved, 0, -1))


def transposed(gradients, times, tangents):
    """Tangents of spike times from the function that maps their cotangents to gradients, and the
    tangents by these.
    """
    return jax.vjp(gradients, jax.tree.map(jnp.zeros_like, times))[1](tangents)[0]


def moved_by(spikes, tangent) -> Any:
    """The tangent of spikes whose times move; slopes and counts are held."""

    def still(array):
        return (
            jnp.zeros_like(array)
            if jnp.issubdtype(array.dtype, jnp.floating)
            else np.zeros(array.shape, float0)
        )

    return replace(jax.tree.map(still, spikes), time=tangent)


def _voltage(neuron, weight, lanes, time, row, at, earlier, number):
    """v - threshold of each neuron at a time of its own (batch, neurons), after `number` earlier
    spikes.
    """
    if (
        neuron.tau_shape is not TauShape.APART
    ):  # a closed form at a fixed ratio would tie the constants' tangents
        neuron = replace(neuron, tau_shape=TauShape.ANY)
    wide = spread(lanes, time.shape[0])
    start = jnp.where(starts_above(wide), wide.threshold, wide.v_start)
    em, _, k = neuron.decay(wide, at)
    used = jnp.isfinite(time)
    gap = at[:, None, :] - jnp.where(used, time, 0.0)[:, :, None]
    counts = (gap > 0) & used[:, :, None]
    each = jax.tree.map(lambda array: array[:, None, :], wide)
    response = neuron.response(each, jnp.where(counts, gap, 0.0)).v
    arrived = jnp.sum(jnp.where(counts, weight.at[row].get(mode="clip") * response, 0.0), axis=1)
    before = (jnp.arange(len(earlier)) < number)[:, None, None]
    since = jnp.where(before, at - earlier, 0.0)
    resets = jnp.sum(jnp.where(before, neuron.decay(wide, since)[0], 0.0), axis=0)
    height = wide.threshold - wide.v_reset
    return start * em + wide.j_start * k + arrived - height * resets - wide.threshold
