"""Membrane voltages of neurons that do not fire."""

from dataclasses import replace

import jax.numpy as jnp
from jax import lax

from jaxsnn.event.events import sorted_times
from jaxsnn.network import TauShape


def membrane(neuron, weight, lanes, v_inf, time, row, sample_times):
    """V of a population without spikes at given times, exact; differentiable in everything but `row`.

    Args:
        neuron: the neuron type.
        weight: (rows, neurons), the jump of j that an arrival of each row causes.
        lanes: the population's neurons.
        v_inf: (neurons,) voltage at rest under the constant current.
        time: (batch, arrivals), seconds; inf where unused.
        row: (arrivals,) or (batch, arrivals) int32.
        sample_times: (samples,) seconds.

    Returns:
        (batch, samples, neurons). A sample at the very time of an arrival is taken after it (V does not jump).
    """
    if neuron.tau_shape is not TauShape.APART:  # a closed form at a fixed ratio would tie the constants' gradients
        neuron = replace(neuron, tau_shape=TauShape.ANY)
    batch, arrivals = time.shape
    rows, samples = weight.shape[0], sample_times.shape[0]
    row = jnp.where(jnp.isfinite(time), row, rows)
    merged = jnp.concatenate([time, jnp.broadcast_to(sample_times, (batch, samples))], axis=1)
    rows_merged = jnp.concatenate([row, jnp.full((batch, samples), rows, row.dtype)], axis=1)
    _, order = sorted_times(merged)
    times = jnp.take_along_axis(merged, order, 1)
    earlier = jnp.concatenate([jnp.zeros((batch, 1), times.dtype), times[:, :-1]], axis=1)
    used = jnp.isfinite(times)  # unused slots come last and wait for nothing
    waits = jnp.where(used, times, 0.0) - jnp.where(used, earlier, 0.0)
    padded = jnp.pad(weight, ((0, 1), (0, 0)))
    across = lanes.across((1, -1))

    def step(carry, inputs):
        v, j = carry
        wait, row = inputs
        em, es, k = neuron.decay(across, wait[:, None])
        v, j = v * em + j * k, j * es + padded[row]
        return (v, j), v

    shape = (batch, weight.shape[1])
    start = (jnp.broadcast_to(lanes.v_start, shape), jnp.broadcast_to(lanes.j_start, shape))
    ordered_rows = jnp.take_along_axis(rows_merged, order, 1)
    _, v = lax.scan(step, start, (waits.T, ordered_rows.T))
    place = jnp.argsort(order, axis=1)[:, arrivals:]  # where each sample went
    return jnp.take_along_axis(jnp.moveaxis(v, 0, 1), place[:, :, None], axis=1) + v_inf
