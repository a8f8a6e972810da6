"""Exact gradients of a population's spike times, from spike times and slopes alone.

The voltage of neuron n just before its spike s, relative to V_inf, is

    v(t_s) = v_start em(t_s) + j_start k(t_s) + sum_e W_e k(t_s - t_e) - sum_{s' < s} H em(t_s - t_s'),

with e over the arrivals before t_s and H = v_threshold - v_reset, and it equals the threshold. The
implicit function theorem gives dL/dp = sum_s lam_s dv(t_s)/dp, where lam obeys, from the last spike
backwards,

    lam_s = -(dL/dt_s - H / tau_mem sum_{s'' > s} lam_s'' em(t_s'' - t_s)) / v'(t_s).

That is EventProp (Wunderlich & Pehle, Scientific Reports 11, 12829, 2021) with the adjoint's flow
in closed form; no trajectory is stored or integrated backwards.
"""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.event.adjoint.assigned import assigned_backward
from jaxsnn.event.dynamics.neuron_model import Lanes
from jaxsnn.event.forward.layer import (
    MINOR_NEURONS,
    LayerSpec,
    LayerSpikes,
    gathered,
    simulate_layer,
    spread,
)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def layer_spikes(spec: LayerSpec, weight, lanes: Lanes, time, row, t_end) -> LayerSpikes:
    """Spikes of one population, differentiable in weight, every field of `lanes` and the arrival
    times.

    Args:
        weight: (rows, neurons), what an arrival of each row weighs.
        lanes: the population's neurons, (neurons,) or (positions, neurons).
        time: (batch, arrivals) in any order, seconds; inf where unused. With positions, batch
            counts the positions of each sample, which come one after the other.
        row: (arrivals,) or (batch, arrivals) int32 in [0, rows); anything where unused.
        t_end: end of the simulation, seconds; spikes do not depend on it, so its gradient is zero.

    Only `LayerSpikes.time` carries a gradient. Slopes below `spec.min_slope` are divided by as if
    they were that large (`clipped_slopes` counts them).
    """
    return simulate_layer(spec, weight, lanes, time, row, t_end)[0]


def _forward(spec, weight, lanes, time, row, t_end):
    spikes, causes = simulate_layer(spec, weight, lanes, time, row, t_end)
    return spikes, (weight, lanes, time, row, spikes.time, spikes.slope, causes)


def slope_floor(spec, lanes):
    """Smallest slope that a gradient is divided by, in the shape of the lanes."""
    return spec.min_slope * (lanes.threshold - lanes.v_reset) * spec.neuron.leak(lanes)


def starts_above(lanes):
    """Whether a neuron starts above its threshold: it fires at time 0, whatever its numbers are
    exactly.
    """
    return lanes.v_start >= lanes.threshold


def clipped_slopes(spec, lanes, spikes):
    """Number of recorded spikes whose slope lies below the floor."""
    lanes = spread(lanes, spikes.time.shape[0])
    low = (spikes.slope < slope_floor(spec, lanes)[..., None]) & jnp.isfinite(spikes.time)
    return jnp.sum(low.at[..., 0].set(low[..., 0] & ~starts_above(lanes)))


class _Costates(NamedTuple):
    """Per spike: lam, and the sums over the neuron's later spikes of lam em and of lam em (t_s'' -
    t_s).
    """

    lam: jax.Array
    later: jax.Array
    later_time: jax.Array


def _costates(spec, lanes, times, slopes, cotangent):
    """Arrays (spikes, batch, neurons), by a scan from the last spike to the first."""
    jump = (lanes.threshold - lanes.v_reset) * spec.neuron.leak(lanes)
    fired = jnp.isfinite(times)
    slopes = jnp.maximum(slopes, slope_floor(spec, lanes))
    slopes = slopes.at[0].set(jnp.where(starts_above(lanes), jnp.inf, slopes[0]))
    drive = jnp.where(fired, cotangent, 0.0)
    finite = jnp.where(fired, times, 0.0)
    if times.shape[0] == 1:
        zero = jnp.zeros_like(finite)
        return _Costates(lam=-drive / slopes, later=zero, later_time=zero)

    def step(carry, spike):
        lam, later, later_time, next_time, next_fired = carry
        time, slope, drive, fired = spike
        gap = jnp.where(next_fired, next_time - time, 0.0)
        em = spec.neuron.decay(lanes, gap)[0]
        later_time = em * (later_time + gap * (later + lam))
        later = em * (later + lam)
        lam = jnp.where(fired, -(drive - jump * later) / slope, 0.0)
        return (lam, later, later_time, time, fired), _Costates(
            lam=lam, later=later, later_time=later_time
        )

    zero = jnp.zeros_like(finite[0])
    start = (zero, zero, zero, zero, jnp.zeros_like(fired[0]))
    return lax.scan(step, start, (finite, slopes, drive, fired), reverse=True)[1]


def _own_gradients(spec, lanes, times, costates):
    """The part of the gradient that needs no arrivals, (batch, neurons): threshold, v_reset,
    initial state, taus.
    """
    fired = jnp.isfinite(times)
    lam, later = jnp.where(fired, costates.lam, 0.0), jnp.where(fired, costates.later, 0.0)
    later_time = jnp.where(fired, costates.later_time, 0.0)
    finite = jnp.where(fired, times, 0.0)
    total = partial(jnp.sum, axis=0)
    rate = spec.neuron.leak(lanes) ** 2  # em's derivative by tau_mem is t em / tau_mem^2
    em, _, k, k_by_tau_mem, k_by_tau_syn = spec.neuron.decay_derivatives(lanes, finite)
    above = starts_above(lanes)  # as if v started at the threshold: the first reset takes H off
    v_start = jnp.where(above, lanes.threshold, lanes.v_start)
    tau_mem = total(lam * (v_start * finite * em * rate + lanes.j_start * k_by_tau_mem))
    d_start = total(lam * em)
    return Lanes(
        threshold=-total(lam) - total(later) + jnp.where(above, d_start, 0.0),
        v_reset=total(later),
        v_start=jnp.where(above, 0.0, d_start),
        j_start=total(lam * k),
        tau_mem=tau_mem - (lanes.threshold - lanes.v_reset) * rate * total(later_time),
        tau_syn=total(lam * lanes.j_start * k_by_tau_syn),
    )


class _Pairs(NamedTuple):
    """Sums over the spikes of one sample, per arrival and neuron, the longer of these axes last."""

    by_weight: jax.Array
    by_tau_mem: jax.Array
    by_tau_syn: jax.Array
    by_time: jax.Array


def _pair_sums(spec, lanes, arrival, lam, times):
    """One tile per spike slot, added up; `arrival`, `lanes` and the slots of `lam` and `times`
    broadcast to a tile.
    """

    def tile(lam, spike):
        gap = spike - arrival
        valid = (gap > 0) & jnp.isfinite(gap)
        response = spec.neuron.response(lanes, jnp.where(valid, gap, 0.0))
        lam = jnp.where(valid, lam, 0.0)
        return _Pairs(
            lam * response.v,
            lam * response.by_tau_mem,
            lam * response.by_tau_syn,
            -lam * response.by_time,
        )

    first = tile(lam[0], times[0])
    if lam.shape[0] == 1:
        return first
    used = jnp.max(jnp.sum(jnp.isfinite(times), axis=0))
    return lax.fori_loop(
        1, used, lambda n, total: jax.tree.map(jnp.add, total, tile(lam[n], times[n])), first
    )


def layer_backward(spec, residuals, cotangent):
    """Gradients of `layer_spikes` by its arguments, from weight, lanes, time, row, spike times,
    slopes and causes.
    """
    weight, lanes, time, row, times, slopes, causes = residuals
    spikes_first = partial(jnp.moveaxis, source=-1, destination=0)
    if causes is not None:
        by_spike = [spikes_first(array) for array in (times, slopes, cotangent.time, *causes)]
        return assigned_backward(spec, weight, lanes, time, row, *by_spike)
    times, slopes = spikes_first(times), spikes_first(slopes)
    batch = time.shape[0]
    costates = _costates(spec, spread(lanes, batch), times, slopes, spikes_first(cotangent.time))
    own = _own_gradients(spec, spread(lanes, batch), times, costates)
    shared = (
        row.ndim == 1
    )  # one row pattern for all samples: gather the weights once, scatter their gradient once
    neurons_last = weight.shape[1] >= MINOR_NEURONS
    turn = (lambda tile: tile) if neurons_last else jnp.transpose
    neuron_axis = 1 if neurons_last else 0
    across = partial(Lanes.across, shape=(1, -1) if neurons_last else (-1, 1))
    all_weights = turn(weight[row]) if shared else None
    positions = lanes.threshold.ndim == 2

    def sample(d_weight, inputs):
        arrival, row, lam, times, own_lanes = inputs
        tiles = partial(
            jnp.expand_dims, axis=2 - neuron_axis
        )  # (spikes, neurons) -> spikes of tiles
        these = across(own_lanes if positions else lanes)
        pairs = _pair_sums(
            spec, these, jnp.expand_dims(arrival, neuron_axis), tiles(lam), tiles(times)
        )
        weights = (
            turn(weight.at[row].get(mode="fill", fill_value=0.0))
            if all_weights is None
            else all_weights
        )
        if shared:
            d_weight += pairs.by_weight
        else:
            d_weight = d_weight.at[row].add(turn(pairs.by_weight), mode="drop")
        d_tau_mem = jnp.sum(pairs.by_tau_mem * weights, axis=1 - neuron_axis)
        d_tau_syn = jnp.sum(pairs.by_tau_syn * weights, axis=1 - neuron_axis)
        return d_weight, (d_tau_mem, d_tau_syn, jnp.sum(pairs.by_time * weights, axis=neuron_axis))

    rows = jnp.where(jnp.isfinite(time), row, weight.shape[0])
    start = jnp.zeros_like(weight if all_weights is None else all_weights)
    sample_lanes = spread(lanes, batch) if positions else None
    inputs = (time, rows, jnp.moveaxis(costates.lam, 1, 0), jnp.moveaxis(times, 1, 0), sample_lanes)
    d_weight, (d_tau_mem, d_tau_syn, d_time) = lax.scan(sample, start, inputs)
    if shared:
        d_weight = jnp.zeros_like(weight).at[row].add(turn(d_weight))
    d_lanes = replace(own, tau_mem=own.tau_mem + d_tau_mem, tau_syn=own.tau_syn + d_tau_syn)
    return d_weight, gathered(d_lanes, lanes), d_time, None, None


layer_spikes.defvjp(_forward, layer_backward)
