"""Functionals of readouts: numbers computed from the entire membrane trace, exact and differentiable.

A readout sees its arrivals through a linear flow, so that V at any time is

    V(t) = V_inf + free(t) + sum_e W_e R(t - t_e),

where R(t) is the response at time t after an arrival of weight 1. The integral of V is the same sum
over the integral of R. The maximum of V is V at a time that a scan over the arrivals determines.

Gradient of a maximum. If V is smooth at its maximum, the change of the time has no effect (envelope
theorem). If the maximum is a kink at an arrival, it moves with the arrival, and V is differentiated
at the time of the arrival. Omitting this makes the gradient wrong by half or more. (Wunderlich and
Pehle, Scientific Reports 11, 12829, 2021, treat the smooth case.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.event.adjoint.held import held
from jaxsnn.event.dynamics import crossing
from jaxsnn.event.event_arrays import (
    IntOfNeurons,
    NeuronConstants,
    Numbers,
    OfNeurons,
    Seconds,
    State,
    Times,
    WhichNeurons,
)
from jaxsnn.event.forward.layer import broadcast_constants
from jaxsnn.event.forward.readout import Drive, with_general_kernel
from jaxsnn.network.array_types import Array, Bool, Float, Int
from jaxsnn.network.lookups import gather_along
from jaxsnn.network.meshes import match_device_axes
from jaxsnn.network.reductions import count_over_last, greatest
from jaxsnn.network.sorting import sorted_times

#: Function of the constants that returns the response to each arrival with weight 1, (batch,
#: arrivals, neurons).
Left = Callable[[NeuronConstants], Float[Array, "batch arrivals neurons"]]


#: Number of weight rows per arrival of a sample above which most rows belong to arrivals of other
#: samples.
_MANY_ROWS = 16


class _Sorted(NamedTuple):
    """Arrivals in order of time, with their weights."""

    time: Times
    weight: Float[Array, "batch arrivals neurons"]


def by_neuron(
    functional: Callable[..., OfNeurons], drive: Drive, *arguments: Any
) -> Float[Array, "batch neurons"]:
    """Return a functional of each neuron, also where neurons have separate lists of arrivals.

    Args:
        functional: function of a drive without `places` and of the arguments, linear in volts.
    """
    if drive.places is None:
        return functional(drive, *arguments)

    def of_row(
        constants: NeuronConstants,
        v_inf: Float[Array, "neurons"],
        time: Float[Array, "arrivals"],
        row: Int[Array, "arrivals"],
    ) -> Float[Array, "neurons"]:
        """Compute the functional at one position of one sample."""
        row_drive = replace(
            drive, constants=constants, v_inf=v_inf, time=time[None], row=row, places=None
        )
        return functional(row_drive, *arguments)[0]

    constants, v_inf = broadcast_constants((drive.constants, drive.v_inf), drive.time.shape[0])
    row = jnp.broadcast_to(drive.row, drive.time.shape)
    by_row = jax.vmap(of_row)(constants, v_inf, drive.time, row)
    return by_row.reshape(-1, drive.places.index.size)[:, drive.places.index] * drive.places.unit


# ---- integrals


@jax.jit  # outside of a compiled function each operation would be compiled separately
def integral(drive: Drive, t_end: Seconds, tau: Seconds | None = None) -> OfNeurons:
    """Return the integral of V(t) e^(-t / tau) over [0, t_end], exact: (batch, neurons), volts
    times seconds.

    Args:
        t_end: seconds.
        tau: seconds; None: no weighting, the integral of V itself.
    """
    drive = with_general_kernel(drive)
    rate = 0.0 if tau is None else 1 / tau
    counts = (drive.time < t_end)[..., None]
    begins = jnp.where(counts, drive.time[..., None], 0.0)
    gap = jnp.where(counts, t_end - begins, 0.0)

    def impulse_integral(constants: NeuronConstants) -> Float[Array, "batch arrivals neurons"]:
        """Return the integral of the response to each arrival with weight 1."""
        unit_drive = replace(drive, constants=constants)
        # integral of e^(-rate t) R(t - t_e) from t_e on
        #     = e^(-rate t_e) times the integral of e^(-rate s) R(s) over [0, t_end - t_e]
        return jnp.exp(-rate * begins) * _integrated(unit_drive, _impulse(unit_drive), gap, rate)

    end = jnp.asarray(t_end, drive.v_inf.dtype)
    free = _integrated(drive, drive.neuron.begin(drive.constants), end, rate)
    return (
        drive.v_inf * crossing.integrated_exponential(rate, end)
        + free
        + _arrived(drive, impulse_integral)
    )


def _arrived(drive: Drive, response: Left) -> OfNeurons:
    """Return the sum over all arrivals of their weights times `response`, a function of the
    constants.

    Where all neurons have the same time constants the arrivals of each row are added up once for
    all of them, unless most rows are of arrivals of other samples (`GradedEvents`: one for each).
    """
    row = jnp.broadcast_to(drive.row, drive.time.shape)
    many = drive.weight.shape[0] > _MANY_ROWS * drive.time.shape[1]
    if many or not drive.neuron.uniform:
        weight = drive.weight.at[row].get(mode="fill", fill_value=0.0)
        return jnp.sum(weight * response(drive.constants), axis=1)
    first = held(jax.tree.map(lambda array: array[:1], drive.constants))
    samples = jnp.arange(row.shape[0])[:, None]
    times_weights = partial(jnp.matmul, b=drive.weight, precision=lax.Precision.HIGHEST)

    def by_row(constants: NeuronConstants) -> Float[Array, "batch rows"]:
        """Return the summed responses to the arrivals of each row, for the single neuron that
        represents all.
        """
        empty = jnp.zeros((row.shape[0], drive.weight.shape[0]), drive.time.dtype)
        return empty.at[samples, row].add(response(constants)[..., 0], mode="drop")

    # (batch, rows) @ (rows, neurons)
    arrived = times_weights(by_row(first))
    for name in drive.neuron.flow_fields:
        # The sum has the first neuron's constants, without their derivative. The derivative with
        # respect to each neuron's constant is the same sum over dR/dtau: add a zero that has it.
        still = jax.tree.map(jnp.zeros_like, first)
        along = replace(still, **{name: jnp.ones_like(getattr(first, name))})
        by_tau = jax.jvp(by_row, (first,), (along,))[1]
        arrived += _zero_that_moves_with(
            getattr(drive.constants, name), held(times_weights(by_tau))
        )
    return arrived


def _zero_that_moves_with(tau: Float[Array, "neurons"], by_tau: OfNeurons) -> OfNeurons:
    """Return zeros whose derivative with respect to tau is `by_tau`: a derivative for each neuron
    of a value that is computed once for all.
    """
    still = jnp.isinf(tau)  # an infinite tau has no derivative
    return jnp.where(still, 0.0, jnp.where(still, 0.0, tau) - held(tau)) * by_tau


# ---- the maximum


@jax.jit
def maximum(drive: Drive, t_end: Seconds) -> OfNeurons:
    """Return the largest V in [0, t_end], exact, also between arrivals: (batch, neurons)."""
    drive = with_general_kernel(drive)
    arrivals = _sorted(drive)
    place = _peaks(held(drive), held(arrivals), held(t_end))
    # the start of interval n is arrival n - 1, its end is arrival n
    edge = jnp.where(place.at_start, place.interval - 1, place.interval)
    edge = jnp.clip(edge, 0, arrivals.time.shape[1] - 1)
    # Take the time of an arrival from `arrivals`, which are not held: the kink moves with it.
    edge_time = gather_along(arrivals.time, edge, axis=1)
    time = jnp.where(
        place.at_arrival, jnp.where(jnp.isfinite(edge_time), edge_time, 0.0), place.time
    )
    # a maximum at the end moves with t_end
    time = jnp.where(place.time >= t_end, t_end, time)
    return voltage(drive, arrivals, time, place.interval)


def voltage(drive: Drive, arrivals: _Sorted, time: OfNeurons, interval: IntOfNeurons) -> OfNeurons:
    """Return V of each neuron at its time, from the arrivals before its `interval`."""
    # arrays (batch, arrivals, neurons)
    number = jnp.arange(arrivals.time.shape[1])[None, :, None]
    counts = (number < interval[:, None, :]) & jnp.isfinite(arrivals.time)[..., None]
    gap = time[:, None, :] - jnp.where(jnp.isfinite(arrivals.time), arrivals.time, 0.0)[..., None]
    gap = jnp.where(counts, gap, 0.0)
    response = drive.neuron.flow(drive.neuron.decay(drive.constants, gap), _impulse(drive))[0]
    since_start = drive.neuron.decay(drive.constants, time)
    free = drive.neuron.flow(since_start, drive.neuron.begin(drive.constants))[0]
    # V(t) = V_inf + free(t) + sum_e W_e R(t - t_e)
    return drive.v_inf + free + jnp.sum(jnp.where(counts, arrivals.weight * response, 0.0), axis=1)


class _Place(NamedTuple):
    """Location of each neuron's maximum."""

    value: OfNeurons  # V at the maximum
    interval: IntOfNeurons  # number of arrivals before it
    time: OfNeurons  # seconds
    at_arrival: WhichNeurons  # the time is that of an arrival, at the interval's start or end
    at_start: WhichNeurons  # that arrival is at the interval's start


class _Candidate(NamedTuple):
    """Possible location of the largest V; arrays broadcast against (batch, neurons). Fields as in
    `_Place`.
    """

    value: OfNeurons
    interval: Int[Array, ""]
    time: Float[Array, "batch #neurons"]
    at_arrival: Bool[Array, "..."] | bool
    at_start: bool


class _Interval(NamedTuple):
    """Arrivals and the interval after each; a single interval has no `intervals` axis."""

    start: Float[Array, "batch *intervals"]
    end: Float[Array, "batch *intervals"]
    weight: Float[Array, "batch *intervals neurons"]  # of the arrival at its start
    used: Bool[Array, "batch *intervals"]  # the arrival comes before the end of the simulation


class _Carry(NamedTuple):
    """Carry of the loop over the intervals."""

    state: State  # just before the next arrival
    best: _Place  # so far


def _intervals(arrivals: _Sorted, t_end: Seconds) -> _Interval:
    """Return all intervals; number 0 lies before the first arrival."""
    batch, _, neurons = arrivals.weight.shape
    end = jnp.full((batch, 1), t_end, arrivals.time.dtype)
    starts = jnp.minimum(jnp.concatenate([jnp.zeros_like(end), arrivals.time], axis=1), end)
    ends = jnp.minimum(jnp.concatenate([arrivals.time, end], axis=1), end)
    # Interval 0 begins at time 0, without an arrival.
    nothing = jnp.zeros((batch, 1, neurons), starts.dtype)
    weights = jnp.concatenate([nothing, arrivals.weight], axis=1)
    used = jnp.concatenate([jnp.ones((batch, 1), bool), arrivals.time < end], axis=1)
    return _Interval(start=starts, end=ends, weight=weights, used=used)


def _peaks(drive: Drive, arrivals: _Sorted, t_end: Seconds) -> _Place:
    """Locate the maximum of each neuron by a scan over the arrivals: V is largest at an arrival, at
    a local extremum, or at the end.
    """
    neuron = drive.neuron
    constants = jax.tree.map(lambda array: array[None], drive.constants)
    shape = (arrivals.time.shape[0], drive.weight.shape[1])
    start = jax.tree.map(lambda array: jnp.broadcast_to(array, shape), neuron.begin(constants))
    intervals = _intervals(arrivals, t_end)
    # The loop reads one interval at a time, so that intervals are the first axis.
    by_interval = [jnp.moveaxis(array, 1, 0) for array in intervals]
    # If all neurons have the same time constants, the decay of one neuron is valid for all.
    flowing = jax.tree.map(lambda array: array[:, :1], constants) if neuron.uniform else constants

    def step(number: Int[Array, ""], carry: _Carry) -> _Carry:
        interval = _Interval(*(array[number] for array in by_interval))
        duration = (interval.end - interval.start)[:, None]
        begin, finish = interval.start[:, None], interval.end[:, None]
        used = interval.used[:, None]
        state = neuron.arrive(carry.state, jnp.where(used, interval.weight, 0.0))
        after = neuron.flow(neuron.decay(flowing, duration), state)
        # At a maximum inside the interval V has an extremum, and rises before it.
        rises = neuron.rate(constants, state)[0] > 0
        inside = neuron.turns(constants, state, after) & rises
        wait, peak = neuron.extremum(constants, state)
        # of simultaneous arrivals, only after the last one does V contain all of them
        lasts = used & (duration > 0)
        best = carry.best
        if neuron.jumps:
            at_start = _Candidate(state[0], number, begin, number > 0, True)
            best = _better(best, at_start, lasts)
        at_peak = _Candidate(peak, number, begin + wait, False, False)
        best = _better(best, at_peak, lasts & inside)
        at_end = _Candidate(after[0], number, finish, finish < t_end, False)
        best = _better(best, at_end, lasts)
        return _Carry(state=after, best=best)

    nowhere = jnp.zeros(shape, bool)
    best = _Place(
        value=start[0],
        interval=jnp.zeros(shape, jnp.int32),
        time=jnp.zeros(shape, arrivals.time.dtype),
        at_arrival=nowhere,
        at_start=nowhere,
    )
    # End after the last arrival that any sample uses.
    count = greatest(count_over_last(intervals.used.astype(jnp.int32)))
    carry = match_device_axes(_Carry(state=start, best=best), constants, by_interval)
    return lax.fori_loop(0, count, step, carry).best


def _better(best: _Place, candidate: _Candidate, allowed: Bool[Array, "batch #neurons"]) -> _Place:
    """Return the better of two locations, where the second one is allowed."""
    higher = allowed & (candidate.value > best.value)
    pairs = zip(candidate, best, strict=True)
    return _Place(*(jnp.where(higher, new, old) for new, old in pairs))


# ---- arrivals


def _sorted(drive: Drive) -> _Sorted:
    """Sort the arrivals by time."""
    _, order = sorted_times(drive.time)
    row = drive.row[order] if drive.row.ndim == 1 else gather_along(drive.row, order, axis=1)
    # rows of unused slots are arbitrary, and may lie beyond the table
    weight = drive.weight.at[row].get(mode="fill", fill_value=0.0)
    return _Sorted(time=gather_along(drive.time, order, axis=1), weight=weight)


def _impulse(drive: Drive) -> State:
    """Return the state just after an arrival of weight 1 at rest."""
    rest = jax.tree.map(jnp.zeros_like, drive.neuron.begin(drive.constants))
    return drive.neuron.arrive(rest, 1.0)


def _integrated(drive: Drive, state: State, duration: Numbers, rate: Numbers | float) -> Numbers:
    """Return the integral of v e^(-rate t) over a duration that starts in a state.

    The flow is affine in its coefficients, so it is the flow by their weighted means, times the
    integral of the weight.
    """
    total = crossing.integrated_exponential(rate, duration)
    # c_mean = integral of c(t) e^(-rate t) / integral of e^(-rate t); 0 / 1 for a duration of 0
    share = jnp.where(duration > 0, total, 1.0)
    integrals = drive.neuron.integrals(drive.constants, duration, rate)
    means = [part / share for part in integrals]
    return jnp.where(duration > 0, drive.neuron.flow(tuple(means), state)[0] * total, 0.0)
