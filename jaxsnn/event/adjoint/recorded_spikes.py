"""Spikes that something else fired, made differentiable: the adjoint of one population at recorded
times.

The slope of V at a recorded spike is what the population's own equations give there for arrivals at
recorded times, V taken to be at its threshold.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.event.adjoint.layer_adjoint import layer_backward
from jaxsnn.event.forward.layer import LayerSpec, LayerSpikes


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def recorded_spikes(spec: LayerSpec, weight, lanes: Any, time, row, times, count) -> LayerSpikes:
    """Recorded spikes of one population, differentiable as
    `jaxsnn.event.adjoint.layer_adjoint.layer_spikes` is.

    Args:
        weight, lanes, time, row: as there.
        times: (batch, neurons, spikes) recorded, seconds; inf where unused.
        count: (batch, neurons) how many there were.
    """
    slopes = jnp.where(jnp.isfinite(times), _slopes(spec, weight, lanes, time, row, times), 1.0)
    return LayerSpikes(time=times, slope=slopes, count=count)


def _slopes(spec, weight, lanes, time, row, times):
    """dV/dt at recorded spikes, (batch, neurons, spikes), one sample after the other."""
    neuron = spec.neuron
    wide = jax.tree.map(lambda array: array[:, None], lanes)
    row = jnp.where(jnp.isfinite(time), row, weight.shape[0])
    rest = jax.tree.map(jnp.zeros_like, neuron.begin(wide))

    def sample(inputs):
        arrival, row, spikes = inputs
        finite = jnp.where(jnp.isfinite(spikes), spikes, 0.0)
        weights = weight.at[row].get(mode="fill", fill_value=0.0)
        state = neuron.flow(neuron.decay(wide, finite), neuron.begin(wide))

        def add(state, arrival_and_weights):
            arrival, weights = arrival_and_weights
            gap = finite - arrival
            later = (gap > 0) & jnp.isfinite(gap)
            pulse = neuron.flow(
                neuron.decay(wide, jnp.where(later, gap, 0.0)),
                neuron.arrive(rest, weights[:, None]),
            )
            return jax.tree.map(
                lambda total, part: total + jnp.where(later, part, 0.0), state, pulse
            ), None

        state, _ = lax.scan(add, state, (arrival, weights))
        return neuron.slope(wide, state)

    return lax.map(sample, (time, jnp.broadcast_to(row, time.shape), times))


def _forward(spec, weight, lanes, time, row, times, count):
    spikes: Any = recorded_spikes(spec, weight, lanes, time, row, times, count)
    return spikes, (weight, lanes, time, row, spikes.time, spikes.slope, None)


def _backward(spec, residuals, cotangent):
    d_weight, d_lanes, d_time, _, _ = layer_backward(spec, residuals, cotangent)
    return d_weight, d_lanes, d_time, None, None, None


recorded_spikes.defvjp(_forward, _backward)
