"""Functionals of readouts: numbers that a whole membrane trace leaves, exact and differentiable.

A readout sees its arrivals through a linear flow, so that V at any time is

    V(t) = V_inf + free(t) + sum_e W_e R(t - t_e),

with R what an arrival of weight 1 leaves after a time. Its integrals are the same sum over R's
integral; its maximum is V at a time that a scan over the arrivals finds.

Gradient of a maximum. Where V is smooth there, the time does not count (envelope theorem). Where it
is an arrival's kink, V is differentiated at the arrival's own time: the maximum moves with it.
Leaving that out is wrong by half of the gradient and more. (Wunderlich and Pehle, Scientific
Reports 11, 12829, 2021, state the smooth case.)
"""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.event.adjoint.held import held
from jaxsnn.event.dynamics import crossing
from jaxsnn.event.forward.readout import Drive, with_general_kernel
from jaxsnn.network.sorting import sorted_times


class _Sorted(NamedTuple):
    """Arrivals in order of time, and what they weigh: (batch, arrivals), (batch, arrivals,
    neurons).
    """

    time: jax.Array
    weight: jax.Array


@jax.jit  # called outside of a compiled function, each of its steps would be compiled by itself
def integral(drive: Drive, t_end, tau=None) -> jax.Array:
    """The integral of V(t) e^(-t / tau) over [0, t_end], exact: (batch, neurons), volts times
    seconds.

    Args:
        t_end: seconds.
        tau: seconds; None: no weighting, the integral of V itself.
    """
    drive = with_general_kernel(drive)
    rate = 0.0 if tau is None else 1 / tau
    counts = (drive.time < t_end)[..., None]
    begins = jnp.where(counts, drive.time[..., None], 0.0)
    gap = jnp.where(counts, t_end - begins, 0.0)

    def left(lanes):
        """What each arrival leaves, if it weighs 1: (batch, arrivals, lanes)."""
        one = replace(drive, lanes=lanes)
        return jnp.exp(-rate * begins) * _integrated(one, _impulse(one), gap, rate)

    end = jnp.asarray(t_end, drive.v_inf.dtype)
    free = _integrated(drive, drive.neuron.begin(drive.lanes), end, rate)
    return drive.v_inf * crossing.integrated_exponential(rate, end) + free + _arrived(drive, left)


def _arrived(drive: Drive, left):
    """The sum over all arrivals of what they weigh times `left`, a function of the lanes: (batch,
    neurons).

    Where all neurons have the same time constants the arrivals of each row are added up once for
    all of them.
    """
    row = jnp.broadcast_to(drive.row, drive.time.shape)
    if not drive.neuron.uniform:
        return jnp.sum(
            drive.weight.at[row].get(mode="fill", fill_value=0.0) * left(drive.lanes), axis=1
        )
    first = held(jax.tree.map(lambda array: array[:1], drive.lanes))
    samples = jnp.arange(row.shape[0])[:, None]
    times_weights = partial(jnp.matmul, b=drive.weight, precision=lax.Precision.HIGHEST)

    def by_row(lanes):
        empty = jnp.zeros((row.shape[0], drive.weight.shape[0]), drive.time.dtype)
        return empty.at[samples, row].add(left(lanes)[..., 0], mode="drop")

    arrived = times_weights(by_row(first))
    for name in drive.neuron.flow_fields:
        still = jax.tree.map(jnp.zeros_like, first)
        along = replace(still, **{name: jnp.ones_like(getattr(first, name))})
        by_tau = jax.jvp(by_row, (first,), (along,))[1]
        arrived += _zero_that_moves_with(getattr(drive.lanes, name), held(times_weights(by_tau)))
    return arrived


@jax.custom_jvp
def _zero_that_moves_with(tau, by_tau):
    """Zero, whose derivative by tau is `by_tau`: a derivative for each neuron of what is computed
    once for all.
    """
    return jnp.zeros_like(tau * by_tau)


@_zero_that_moves_with.defjvp
def _(primals, tangents):
    return _zero_that_moves_with(*primals), tangents[0] * primals[1]


@jax.jit
def maximum(drive: Drive, t_end) -> jax.Array:
    """The largest V in [0, t_end], exact, between the arrivals too: (batch, neurons)."""
    drive = with_general_kernel(drive)
    arrivals = _sorted(drive)
    place = _peaks(held(drive), held(arrivals), t_end)
    # the start of interval n is arrival n - 1, its end is arrival n
    edge = jnp.clip(
        jnp.where(place.at_start, place.interval - 1, place.interval), 0, arrivals.time.shape[1] - 1
    )
    own = jnp.take_along_axis(arrivals.time, edge, axis=1)
    time = jnp.where(place.at_arrival, jnp.where(jnp.isfinite(own), own, 0.0), place.time)
    return voltage(drive, arrivals, time, place.interval)


def voltage(drive: Drive, arrivals: _Sorted, time, interval) -> jax.Array:
    """V of each lane at a time of its own (batch, neurons), by the arrivals before its `interval`."""
    number = jnp.arange(arrivals.time.shape[1])[None, :, None]
    counts = (number < interval[:, None, :]) & jnp.isfinite(arrivals.time)[..., None]
    gap = time[:, None, :] - jnp.where(jnp.isfinite(arrivals.time), arrivals.time, 0.0)[..., None]
    gap = jnp.where(counts, gap, 0.0)
    left = drive.neuron.flow(drive.neuron.decay(drive.lanes, gap), _impulse(drive))[0]
    free = drive.neuron.flow(
        drive.neuron.decay(drive.lanes, time), drive.neuron.begin(drive.lanes)
    )[0]
    return drive.v_inf + free + jnp.sum(jnp.where(counts, arrivals.weight * left, 0.0), axis=1)


class _Place(NamedTuple):
    """Where each lane's maximum is, (batch, neurons): the interval after so many arrivals, the
    time, and whether that is the time of an arrival, at the interval's start or its end."""

    value: jax.Array
    interval: jax.Array
    time: jax.Array
    at_arrival: jax.Array
    at_start: jax.Array


def _peaks(drive: Drive, arrivals: _Sorted, t_end) -> _Place:
    neuron = drive.neuron
    lanes = jax.tree.map(lambda array: array[None], drive.lanes)
    batch = arrivals.time.shape[0]
    shape = (batch, drive.weight.shape[1])
    start = jax.tree.map(lambda array: jnp.broadcast_to(array, shape), neuron.begin(lanes))
    end = jnp.full((batch, 1), t_end, arrivals.time.dtype)
    starts = jnp.minimum(jnp.concatenate([jnp.zeros_like(end), arrivals.time], axis=1), end)
    ends = jnp.minimum(jnp.concatenate([arrivals.time, end], axis=1), end)
    weights = jnp.concatenate(
        [jnp.zeros((batch, 1, shape[1]), starts.dtype), arrivals.weight], axis=1
    )
    counts = jnp.concatenate([jnp.ones((batch, 1), bool), arrivals.time < end], axis=1)
    intervals = starts.T, ends.T, jnp.moveaxis(weights, 1, 0), counts.T
    nowhere = jnp.zeros(shape, bool)
    best = _Place(
        start[0], jnp.zeros(shape, jnp.int32), jnp.zeros(shape, starts.dtype), nowhere, nowhere
    )
    flowing = jax.tree.map(lambda array: array[:, :1], lanes) if neuron.uniform else lanes

    def step(number, carry):
        state, best = carry
        begin, finish, weight, used = (array[number] for array in intervals)
        state = neuron.arrive(state, jnp.where(used[:, None], weight, 0.0))
        duration = (finish - begin)[:, None]
        after = neuron.flow(neuron.decay(flowing, duration), state)
        rises = neuron.rate(lanes, state)[0] > 0
        inside = neuron.turns(lanes, state, after) & rises
        wait, peak = neuron.extremum(lanes, state)
        lasts = used[:, None] & (
            duration > 0
        )  # of arrivals at one time only the last one shows where V is
        if neuron.jumps:
            best = _better(best, state[0], number, begin[:, None], number > 0, True, lasts)
        best = _better(best, peak, number, begin[:, None] + wait, False, False, lasts & inside)
        best = _better(
            best, after[0], number, finish[:, None], finish[:, None] < t_end, False, lasts
        )
        return after, best

    return lax.fori_loop(0, jnp.max(jnp.sum(counts, axis=1)), step, (start, best))[1]


def _better(best: _Place, value, number, time, at_arrival, at_start, allowed) -> _Place:
    higher = allowed & (value > best.value)

    def chosen(new, old):
        return jnp.where(higher, new, old)

    return _Place(
        value=chosen(value, best.value),
        interval=chosen(number, best.interval),
        time=chosen(time, best.time),
        at_arrival=chosen(at_arrival, best.at_arrival),
        at_start=chosen(at_start, best.at_start),
    )


def _sorted(drive: Drive) -> _Sorted:
    _, order = sorted_times(drive.time)
    row = drive.row[order] if drive.row.ndim == 1 else jnp.take_along_axis(drive.row, order, axis=1)
    weight = drive.weight.at[row].get(mode="fill", fill_value=0.0)
    return _Sorted(time=jnp.take_along_axis(drive.time, order, axis=1), weight=weight)


def _impulse(drive: Drive):
    """State just after an arrival of weight 1 at rest."""
    rest = jax.tree.map(jnp.zeros_like, drive.neuron.begin(drive.lanes))
    return drive.neuron.arrive(rest, 1.0)


def _integrated(drive: Drive, state, duration, rate):
    """The integral of v e^(-rate t) from a state on. The flow is affine in its coefficients, so it
    is the flow by their weighted means, times the integral of the weight."""
    whole = crossing.integrated_exponential(rate, duration)
    share = jnp.where(duration > 0, whole, 1.0)
    integrals = drive.neuron.integrals(drive.lanes, duration, rate)
    means = [part / share for part in integrals]
    return jnp.where(duration > 0, drive.neuron.flow(tuple(means), state)[0] * whole, 0.0)
