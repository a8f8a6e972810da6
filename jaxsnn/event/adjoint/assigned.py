"""Exact gradients where a reset is an assignment: after a refractory time, and where arrivals move
V itself.

Let f be the time at which V is let go from v_reset for the last time before spike s, and

    v(t_s) = v_reset em(t_s - f) + j_start es(f) k(t_s - f) + sum_e W_e K(e, s)

with K the response to an arrival before t_s as far as it outlives the hold of V until f; before the
first spike the initial state stands in the place of v_reset. A spike where v crosses the threshold
smoothly has the costate lam_s = -E_s / v'(t_s), as in `adjoint`, and what it depends on through f
goes to the spike before,

    E_(s-1) = dL/dt_(s-1) - lam_s v'(f) em(t_s - f).

Where an arrival moves V across the threshold, the spike comes when that arrival comes, whatever the
weights: E_s is the gradient of the arrival's time, and lam_s = 0 (Wunderlich & Pehle, Scientific
Reports 11, 12829, 2021, for the smooth case). A `jump_width` takes the jump for a ramp of that
length at whose end V comes to the threshold instead: lam_s = -E_s width / jump.
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.event.forward.layer import gathered, spread
from jaxsnn.network.structure import TauShape


class _Spikes(NamedTuple):
    """Per spike, arrays (spikes, batch, neurons) or (spikes, neurons).

    time; cause: slot of the arrival that moved V across the threshold, else -1; free, freed_by:
    when V was let go before it, and the cause of the spike before; lam: its costate.
    """

    time: jax.Array
    cause: jax.Array
    free: jax.Array
    freed_by: jax.Array
    lam: jax.Array


def assigned_backward(spec, weight, lanes, time, row, times, slopes, cotangent, cause, jump):
    """The gradient of `adjoint.layer_spikes` by weight, lanes and arrival times.

    The arrays from `times` on are (spikes, batch, neurons).
    """
    neuron = spec.neuron
    if (
        neuron.tau_shape is not TauShape.APART
    ):  # a closed form at a fixed ratio would tie the constants' gradients
        neuron = replace(neuron, tau_shape=TauShape.ANY)
    batch = time.shape[0]
    wide = spread(lanes, batch)
    rows = jnp.where(jnp.isfinite(time), jnp.broadcast_to(row, time.shape), weight.shape[0])
    padded = jnp.pad(weight, ((0, 1), (0, 0)))
    slope_after = _released(spec, padded, wide, time, rows, times)
    spikes, drive = _costates(spec, wide, times, slopes, cotangent, cause, jump, slope_after)
    own = jax.grad(_own)(
        wide if lanes.threshold.ndim == 2 else _repeated(wide, batch), neuron, spikes
    )

    def sample(d_weight, inputs):
        arrival, row, spikes, own_lanes = inputs
        by_tile, d_lanes, d_time = jax.grad(_pairs, argnums=(0, 1, 2))(
            padded[row], own_lanes, arrival, neuron, spikes, spec.jump_width is not None
        )
        return d_weight.at[row].add(by_tile, mode="drop"), (d_lanes, d_time)

    by_sample = jax.tree.map(lambda array: jnp.moveaxis(array, 1, 0), spikes)
    inputs = (time, rows, by_sample, _repeated(wide, batch))
    d_weight, (d_lanes, d_time) = lax.scan(sample, jnp.zeros_like(weight), inputs)
    jumped = jnp.isfinite(times) & (cause >= 0)
    slot = jnp.moveaxis(jnp.where(jumped, cause, time.shape[1]), 1, 0).reshape(batch, -1)
    passed_on = jnp.moveaxis(jnp.where(jumped, drive, 0.0), 1, 0).reshape(batch, -1)
    d_time = d_time.at[jnp.arange(batch)[:, None], slot].add(passed_on, mode="drop")
    return d_weight, gathered(jax.tree.map(jnp.add, own, d_lanes), lanes), d_time, None, None


def _repeated(lanes, batch):
    return jax.tree.map(lambda array: jnp.broadcast_to(array, (batch, array.shape[1])), lanes)


def _released(spec, weight, lanes, time, rows, times):
    """dV/dt when V is let go after each spike, (spikes, batch, neurons)."""
    free = jnp.where(jnp.isfinite(times), times, 0.0) + spec.refractory

    def sample(inputs):
        arrival, row, free, lanes = inputs

        def drive(free):  # j when V is let go
            held = free - arrival[:, None]
            counts = (held >= 0) & jnp.isfinite(arrival)[:, None]
            left = spec.neuron.drive_response(lanes, jnp.where(counts, held, 0.0))
            own = lanes.j_start * spec.neuron.decay(lanes, free)[1]
            return own + jnp.sum(jnp.where(counts, weight[row] * left, 0.0), axis=0)

        return spec.neuron.slope_after(lanes, (lanes.v_reset, lax.map(drive, free)))

    inputs = (time, rows, jnp.moveaxis(free, 1, 0), _repeated(lanes, time.shape[0]))
    return jnp.moveaxis(lax.map(sample, inputs), 0, 1)


def _costates(spec, lanes, times, slopes, cotangent, cause, jump, slope_after):
    """The spikes with their costates, and E_s, by a scan from the last spike to the first."""
    fired = jnp.isfinite(times)
    finite = jnp.where(fired, times, 0.0)
    floor = spec.min_slope * (lanes.threshold - lanes.v_reset) * spec.neuron.leak(lanes)
    if spec.jump_width is not None:
        slopes = jnp.where(jnp.isinf(slopes) & (jump > 0), jump / spec.jump_width, slopes)
    slopes = jnp.maximum(slopes, floor)
    above = (lanes.v_start >= lanes.threshold)[None] & (jnp.arange(len(times)) == 0)[:, None, None]
    slopes = jnp.where(above, jnp.inf, slopes)
    before = jnp.concatenate([jnp.zeros_like(finite[:1]), finite[:-1] + spec.refractory])
    after = jnp.concatenate([jnp.zeros_like(finite[:1]), slope_after[:-1]])

    def step(passed_back, spike):
        time, free, slope, slope_after, cotangent, fired = spike
        drive = jnp.where(fired, cotangent + passed_back, 0.0)
        lam = -drive / slope
        em = spec.neuron.decay(lanes, jnp.maximum(time - free, 0.0))[0]
        return jnp.where(fired, -lam * slope_after * em, 0.0), (lam, drive)

    inputs = (finite, before, slopes, after, cotangent, fired)
    _, (lam, drive) = lax.scan(step, jnp.zeros_like(finite[0]), inputs, reverse=True)
    freed_by = jnp.concatenate([jnp.full_like(cause[:1], -1), cause[:-1]])
    return _Spikes(time=times, cause=cause, free=before, freed_by=freed_by, lam=lam), drive


def _own(lanes, neuron, spikes):
    """sum_s lam_s (what v(t_s) - threshold is without arrivals)."""
    first = (jnp.arange(len(spikes.time)) == 0)[:, None, None]
    fired = jnp.isfinite(spikes.time)
    free = jnp.where(first | ~fired, 0.0, spikes.free)
    since = jnp.where(fired, spikes.time - free, 0.0)
    em, _, k = neuron.decay(lanes, since)
    held = neuron.decay(lanes, free)[1]
    v = jnp.where(first, lanes.v_start, lanes.v_reset) * em + lanes.j_start * held * k
    return jnp.sum(jnp.where(fired, spikes.lam * (v - lanes.threshold), 0.0))


def _pairs(weights, lanes, arrival, neuron, spikes, through_jumps):
    """sum_s lam_s sum_e W_e K(e, s) of one sample; weights (arrivals, neurons), lanes (neurons,)."""

    slot = jnp.arange(len(arrival))[:, None]
    used = jnp.isfinite(arrival)[:, None]
    arrived = jnp.where(used, arrival[:, None], 0.0)

    def add(total, numbered):
        spike, first = numbered
        time, free, lam = spike.time, spike.free, spike.lam
        counts = used & jnp.isfinite(time)
        before = arrived < time
        if through_jumps:
            before |= (arrived == time) & (slot <= spike.cause)
        counts &= before
        lives = first | (arrived > free) | ((arrived == free) & (slot > spike.freed_by))
        response = neuron.response(lanes, jnp.where(counts & lives, time - arrived, 0.0)).v
        hold = counts & ~lives
        held = neuron.held_response(
            lanes, jnp.where(hold, free - arrived, 0.0), jnp.where(hold, time - free, 0.0)
        )
        kernel = jnp.where(lives, response, held)
        return total + jnp.sum(jnp.where(counts, lam * weights * kernel, 0.0)), None

    first = jnp.arange(len(spikes.time)) == 0
    return lax.scan(add, jnp.zeros((), weights.dtype), (spikes, first))[0]
