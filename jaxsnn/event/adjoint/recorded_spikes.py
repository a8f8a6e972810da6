"""Spikes that something else fired, made differentiable: the adjoint of one population at recorded
times.

The slope of V at a recorded spike is what the population's own equations give there for arrivals at
recorded times, V taken to be at its threshold.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxsnn.event.adjoint.layer_adjoint import Residuals, layer_backward
from jaxsnn.event.event_arrays import NeuronLanes, OfSpikes, Rows, State, Times, Weights
from jaxsnn.event.forward.layer import LayerSpec, LayerSpikes
from jaxsnn.network.meshes import varying_like

#: By weight, lanes, time, row, times and count; the last three have none.
Gradients = tuple[Weights, NeuronLanes, Times, None, None, None]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def recorded_spikes(
    spec: LayerSpec,
    weight: Weights,
    lanes: NeuronLanes,
    time: Times,
    row: Rows,
    times: OfSpikes,
    count: Int[Array, "batch neurons"],
) -> LayerSpikes:
    """Recorded spikes of one population, differentiable as
    `jaxsnn.event.adjoint.layer_adjoint.layer_spikes` is.

    Args:
        weight, lanes, time, row: as there.
        times: (batch, neurons, spikes) recorded, seconds; inf where unused.
        count: (batch, neurons) how many there were.
    """
    slopes = jnp.where(jnp.isfinite(times), _slopes(spec, weight, lanes, time, row, times), 1.0)
    return LayerSpikes(time=times, slope=slopes, count=count)


class _Sample(NamedTuple):
    """What arrives in one sample, and its recorded spikes; in `lax.map` with the batch first."""

    time: Float[Array, "*batch arrivals"]
    row: Rows
    spikes: Float[Array, "*batch neurons spikes"]


class _Arrival(NamedTuple):
    """One arrival of a sample; in the scan, all of them."""

    time: Float[Array, "*arrivals"]
    weights: Float[Array, "*arrivals neurons"]


def _slopes(
    spec: LayerSpec, weight: Weights, lanes: NeuronLanes, time: Times, row: Rows, times: OfSpikes
) -> OfSpikes:
    """dV/dt at recorded spikes, one sample after the other."""
    neuron = spec.neuron
    # (neurons, 1): against the axis of the spikes
    wide = jax.tree.map(lambda array: array[:, None], lanes)
    row = jnp.where(jnp.isfinite(time), row, weight.shape[0])
    rest = jax.tree.map(jnp.zeros_like, neuron.begin(wide))

    def of_sample(sample: _Sample) -> Float[Array, "neurons spikes"]:
        # an unused slot is looked at too, at time 0: its slope is replaced above
        finite = jnp.where(jnp.isfinite(sample.spikes), sample.spikes, 0.0)
        weights = weight.at[sample.row].get(mode="fill", fill_value=0.0)
        state = neuron.flow(neuron.decay(wide, finite), neuron.begin(wide))

        def add(state: State, arrival: _Arrival) -> tuple[State, None]:
            # The state is linear in what arrives: x(t) = F(t) x(0) + sum_a F(t - t_a) W_a e over
            # the arrivals before t.
            gap = finite - arrival.time
            later = (gap > 0) & jnp.isfinite(gap)
            decay = neuron.decay(wide, jnp.where(later, gap, 0.0))
            pulse = neuron.flow(decay, neuron.arrive(rest, arrival.weights[:, None]))

            def added(total: Float[Array, "..."], part: Float[Array, "..."]) -> Float[Array, "..."]:
                return total + jnp.where(later, part, 0.0)

            return jax.tree.map(added, state, pulse), None

        arrivals = _Arrival(sample.time, weights)
        state, _ = lax.scan(add, varying_like(state, sample, weights), arrivals)
        return neuron.slope(wide, state)

    # not all at once: arrivals times spikes times neurons of a whole batch would not fit
    return lax.map(of_sample, _Sample(time, jnp.broadcast_to(row, time.shape), times))


def _forward(
    spec: LayerSpec,
    weight: Weights,
    lanes: NeuronLanes,
    time: Times,
    row: Rows,
    times: OfSpikes,
    count: Int[Array, "batch neurons"],
) -> tuple[LayerSpikes, Residuals]:
    spikes: Any = recorded_spikes(spec, weight, lanes, time, row, times, count)
    # no causes: neurons whose V jumps are refused (`replay`)
    return spikes, Residuals(weight, lanes, time, row, spikes.time, spikes.slope, None)


def _backward(spec: LayerSpec, residuals: Residuals, cotangent: LayerSpikes) -> Gradients:
    d_weight, d_lanes, d_time, _, _ = layer_backward(spec, residuals, cotangent)
    # the recorded times are data; their gradient went to what the spikes depend on
    return d_weight, d_lanes, d_time, None, None, None


recorded_spikes.defvjp(_forward, _backward)
