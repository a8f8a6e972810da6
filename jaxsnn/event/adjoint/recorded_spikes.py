"""Differentiable spikes that another system fired: the adjoint of one population at recorded times.

The slope of V at a recorded spike follows from the equations of the population and the recorded
arrival times, assuming that V is at its threshold.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.event.adjoint.layer_adjoint import Residuals, layer_backward
from jaxsnn.event.event_arrays import NeuronConstants, OfSpikes, Rows, State, Times, Weights
from jaxsnn.event.forward.layer import LayerSpec, LayerSpikes
from jaxsnn.network.array_types import Array, Float, Int
from jaxsnn.network.lookups import gather_along
from jaxsnn.network.meshes import match_device_axes
from jaxsnn.network.promotion import usual_promotion
from jaxsnn.network.sorting import fullest, sorted_columns

#: Gradients with respect to weight, constants, time, row, times and count; None for the last three.
Gradients = tuple[Weights, NeuronConstants, Times, None, None, None]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def recorded_spikes(
    spec: LayerSpec,
    weight: Weights,
    constants: NeuronConstants,
    time: Times,
    row: Rows,
    times: OfSpikes,
    count: Int[Array, "batch neurons"],
) -> LayerSpikes:
    """Return the recorded spikes of one population, differentiable as
    `jaxsnn.event.adjoint.layer_adjoint.layer_spikes` is.

    Args:
        weight, constants, time, row: see `layer_adjoint.layer_spikes`.
        times: (batch, neurons, spikes) recorded, seconds; inf where unused.
        count: (batch, neurons) number of spikes.
    """
    slopes = _slopes(spec, weight, constants, time, row, times)
    return LayerSpikes(time=times, slope=slopes, count=count)


class _Arrival(NamedTuple):
    """Arrival in each sample; or all arrivals in order."""

    time: Float[Array, "*arrivals batch"]
    row: Int[Array, "*arrivals batch"]


class _Behind(NamedTuple):
    """State after an arrival, and its time; arrays that broadcast against (batch, neurons,
    spikes).
    """

    time: Float[Array, "..."]
    state: State


def _slopes(
    spec: LayerSpec,
    weight: Weights,
    constants: NeuronConstants,
    time: Times,
    row: Rows,
    times: OfSpikes,
) -> OfSpikes:
    """Return dV/dt at recorded spikes, 1 in unused slots: all neurons flow from one arrival to the
    next, and a spike continues from the last arrival before it.
    """
    neuron = spec.neuron
    wide = jax.tree.map(lambda array: array[None, :, None], constants)
    columns, position = sorted_columns(time)
    rows = gather_along(jnp.broadcast_to(row, time.shape).T, position, 0)
    rows = jnp.where(jnp.isfinite(columns), rows, weight.shape[0])
    finite = jnp.where(jnp.isfinite(times), times, 0.0)
    arrivals = _Arrival(columns, rows)

    def add(number: Any, carry: tuple[_Behind, _Behind]) -> tuple[_Behind, _Behind]:
        now, before = carry
        arrival = jax.tree.map(lambda array: array[number], arrivals)
        # A sample with fewer arrivals keeps its time.
        at = jnp.where(
            jnp.isfinite(arrival.time)[:, None, None], arrival.time[:, None, None], now.time
        )
        weights = weight.at[arrival.row].get(mode="fill", fill_value=0.0)
        state = neuron.flow(neuron.decay(wide, at - now.time), now.state)
        now = _Behind(at, neuron.arrive(state, weights[..., None]))
        later = arrival.time[:, None, None] < finite
        return now, jax.tree.map(partial(jnp.where, later), now, before)

    begin = _Behind(jnp.zeros((), time.dtype), neuron.begin(wide))
    start = match_device_axes(
        tuple(
            jax.tree.map(partial(jnp.broadcast_to, shape=shape), begin)
            for shape in ((*times.shape[:2], 1), times.shape)
        ),
        weight,
        time,
        times,
    )
    # Unused slots come last: stop after the longest list.
    _, before = lax.fori_loop(0, fullest(columns), add, start)
    decay = neuron.decay(wide, finite - before.time)
    slopes = neuron.slope(wide, neuron.flow(decay, before.state))
    return jnp.where(jnp.isfinite(times), slopes, 1.0)


def _forward(
    spec: LayerSpec,
    weight: Weights,
    constants: NeuronConstants,
    time: Times,
    row: Rows,
    times: OfSpikes,
    count: Int[Array, "batch neurons"],
) -> tuple[LayerSpikes, Residuals]:
    spikes: Any = recorded_spikes(spec, weight, constants, time, row, times, count)
    # no causes: neurons whose V jumps are refused (`replay`)
    return spikes, Residuals(weight, constants, time, row, spikes.time, spikes.slope, None)


def _backward(spec: LayerSpec, residuals: Residuals, cotangent: LayerSpikes) -> Gradients:
    d_weight, d_constants, d_time, _, _ = layer_backward(spec, residuals, cotangent)
    # the recorded times are data: their gradient goes to weights, constants and arrival times
    return d_weight, d_constants, d_time, None, None, None


recorded_spikes.defvjp(usual_promotion(_forward), usual_promotion(_backward))
