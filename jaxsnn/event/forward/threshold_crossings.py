"""When the voltage of a readout passes a threshold, upwards and downwards.

A readout has no reset, so that one scan over its sorted arrivals gives its state after each of
them. From one arrival to the next V has at most one extremum: the interval falls into two pieces on
which V is monotonic, and V passes the threshold in a piece at whose ends it is on different sides.
Where arrivals move V itself there is no extremum, and V can pass the threshold at the arrival. The
times are solved for after the scan.

Gradient, by the implicit function theorem, as in `adjoint`: at a crossing t

    dt/dp = -(dx(t)/dp) / x'(t)

for x = gain V and everything that x depends on. A crossing at an arrival that moves V comes when the
arrival comes, whatever the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.event.adjoint.held import held
from jaxsnn.event.event_arrays import (
    NeuronLanes,
    NumberOfSamples,
    Numbers,
    OfNeurons,
    OfSamples,
    Seconds,
    State,
    Times,
    Weights,
    WhichNeurons,
)
from jaxsnn.event.forward.layer import spread
from jaxsnn.event.forward.readout import Drive, with_general_kernel
from jaxsnn.network.array_types import Array, Bool, Float, Int, Num
from jaxsnn.network.lookups import at_places
from jaxsnn.network.meshes import varying_like
from jaxsnn.network.promotion import usual_promotion
from jaxsnn.network.sorting import sorted_times

#: A quantity of each crossing, some of them chosen, and numbers of crossings or intervals.
OfCrossings = Float[Array, "crossings batch neurons"]
WhichCrossings = Bool[Array, "crossings batch neurons"]
NumberOfCrossings = Int[Array, "crossings batch neurons"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Watched:
    """A population that does not fire, and what is looked for: where gain v passes the threshold.

    Attributes:
        drive: all that moves it.
        gain, threshold: in the shape of the drive's lanes; v is measured from V at rest, as the
            drive does.
    """

    drive: Drive
    gain: Numbers
    threshold: Numbers


class Crossings(NamedTuple):
    """Crossings of each neuron in order of time, (crossings, batch, neurons)."""

    time: OfCrossings  # seconds, differentiable; inf where unused
    #: of gain v there; 1 where unused, inf where an arrival moved V itself across the threshold
    slope: OfCrossings
    clipped: WhichCrossings  # whether a gradient divides by something larger than that slope


class Trace(NamedTuple):
    """What a scan over the arrivals finds. Interval 0 lies before the first arrival."""

    state: State  # after each arrival, arrays (intervals, batch, neurons)
    #: whether V has an extremum in the interval that follows
    turns: Bool[Array, "intervals batch neurons"]
    #: whether V passes the threshold at the arrival or before the extremum, and after it
    passes: Bool[Array, "intervals 2 batch neurons"]
    #: by how much the arrivals at one time have moved v so far
    jump: Float[Array, "intervals batch neurons"]
    above: WhichNeurons  # whether V begins above the threshold
    start: Float[Array, "intervals batch"]  # of the intervals, seconds
    duration: Float[Array, "intervals batch"]

    @property
    def count(self) -> Int[Array, "batch neurons"]:
        """Crossings of each neuron."""
        return jnp.sum(self.passes, axis=(0, 1), dtype=jnp.int32)


class _Arrivals(NamedTuple):
    """Arrivals in order of time."""

    time: Times
    row: Int[Array, "batch arrivals"]  # where unused the row behind the last


class _Step(NamedTuple):
    """One interval in each sample: what the scan goes over."""

    row: NumberOfSamples  # of the weights that arrive at its beginning
    duration: OfSamples


class _Carry(NamedTuple):
    """Carry of the scan."""

    state: State  # just before the next arrival
    above: WhichNeurons  # whether V was above the threshold, at the end of the last interval
    shown: OfNeurons  # v there


class _Shown(NamedTuple):
    """What the scan finds in one interval, fields as in `Trace`."""

    state: State
    turns: WhichNeurons
    passes: Bool[Array, "2 batch neurons"]
    jump: OfNeurons


class _Interval(NamedTuple):
    """The interval that a crossing is in; fields as in `Trace`, of each crossing."""

    number: NumberOfCrossings  # how many arrivals came before it
    state: State
    turns: WhichCrossings
    jump: OfCrossings
    start: OfCrossings
    duration: OfCrossings
    second: WhichCrossings  # whether the crossing is in its second piece


class _Found(NamedTuple):
    """Where crossings are."""

    time: OfCrossings  # seconds
    divisor: OfCrossings  # what a gradient divides by
    interval: NumberOfCrossings  # how many arrivals came before


class _Wide(NamedTuple):
    """What is watched, as arrays that broadcast against (batch, neurons)."""

    lanes: NeuronLanes
    gain: Float[Array, "#batch neurons"]
    threshold: Float[Array, "#batch neurons"]


class _Moving(NamedTuple):
    """All that moves a crossing."""

    weight: Weights
    lanes: NeuronLanes
    gain: Numbers
    threshold: Numbers
    time: Times  # of the arrivals


class _Solved(NamedTuple):
    """Crossings by the flow."""

    time: OfCrossings  # seconds; the start of the piece where V does not flow across
    slope: OfCrossings  # of gain v there


class _Place(NamedTuple):
    """One crossing of each neuron."""

    time: OfNeurons
    interval: Int[Array, "batch neurons"]  # how many arrivals came before


# ---- the scan


def trace(watched: Watched, t_end: Seconds) -> Trace:
    """Scan over the arrivals until t_end (seconds). No gradient passes through."""
    watched = held(watched)
    drive, arrivals = watched.drive, _in_order(watched.drive)
    neuron, batch = drive.neuron, drive.time.shape[0]
    wide, gain, threshold = _spread(watched)
    weight = jnp.pad(drive.weight, ((0, 1), (0, 0)))
    nothing = weight.shape[0] - 1  # the row of zeros
    end = jnp.full((batch, 1), t_end, drive.time.dtype)
    # Interval n lies between arrival n - 1 and arrival n; those behind t_end have no length.
    start = jnp.minimum(jnp.concatenate([jnp.zeros_like(end), arrivals.time], axis=1), end)
    duration = jnp.minimum(jnp.concatenate([arrivals.time, end], axis=1), end) - start
    rows = jnp.where(arrivals.time < end, arrivals.row, nothing)
    rows = jnp.pad(rows, ((0, 0), (1, 0)), constant_values=nothing)
    shape = (batch, weight.shape[1])
    begin = jax.tree.map(lambda array: jnp.broadcast_to(array, shape), neuron.begin(wide))

    def is_above(v: OfNeurons) -> WhichNeurons:
        return gain * v > threshold

    def step(carry: _Carry, interval: _Step) -> tuple[_Carry, _Shown]:
        state = neuron.arrive(carry.state, weight[interval.row])
        duration = interval.duration[:, None]
        after = neuron.flow(neuron.decay(wide, duration), state)
        turned = neuron.turns(wide, state, after)
        # V is monotonic from one of these to the next: before the arrival (`carry.above`), after
        # it, at the extremum, at the end of the interval.
        now, finally_above = is_above(state[0]), is_above(after[0])
        halfway = jnp.where(turned, is_above(neuron.extremum(wide, state)[1]), now)
        in_first = (now != carry.above) | (halfway != now)
        passes = jnp.stack([in_first, finally_above != halfway])
        lasts = duration > 0  # of arrivals at one time only the last one shows where V is
        found = _Shown(
            state=state, turns=turned, passes=passes & lasts, jump=state[0] - carry.shown
        )
        above = jnp.where(lasts, finally_above, carry.above)
        shown = jnp.where(lasts, after[0], carry.shown)
        return _Carry(state=after, above=above, shown=shown), found

    above = jnp.broadcast_to(is_above(begin[0]), shape)
    first = _Carry(state=begin, above=above, shown=begin[0])
    first = varying_like(first, wide, gain, threshold, weight, rows, duration)
    # The scan goes over the intervals, so that they are the first axis.
    _, found = lax.scan(step, first, _Step(row=rows.T, duration=duration.T))
    return Trace(
        state=found.state,
        turns=found.turns,
        passes=found.passes,
        jump=found.jump,
        above=above,
        start=start.T,
        duration=duration.T,
    )


def _in_order(drive: Drive) -> _Arrivals:
    """The arrivals in order of time."""
    _, order = sorted_times(drive.time)
    row = at_places(jnp.broadcast_to(drive.row, drive.time.shape), order, axis=1)
    time = at_places(drive.time, order, axis=1)
    # Rows of unused slots may be anything; the one behind the last is that of zeros.
    return _Arrivals(time=time, row=jnp.where(jnp.isfinite(time), row, drive.weight.shape[0]))


def _spread(watched: Watched) -> _Wide:
    """Lanes, gain and threshold as arrays that broadcast against (batch, neurons)."""
    lanes, batch = watched.drive.lanes, watched.drive.time.shape[0]
    return _Wide(*spread((lanes, watched.gain, watched.threshold), batch))


# ---- crossings of the trace


def crossings(
    watched: Watched,
    found: Trace,
    number: NumberOfCrossings,
    rises: Bool[Array, "#crossings #batch #neurons"],
    min_slope: float,
    jump_width: float | None,
) -> Crossings:
    """Some of the crossings that a trace has.

    Args:
        number: 1 for the first of each neuron; 0 stands for the time 0.
        rises: whether V passes upwards there.
        min_slope, jump_width: as in `jaxsnn.event.EventDriven`, the slope as a fraction of
            |threshold| / tau_mem, with the threshold counted from V at rest.
    """
    still = held(watched)
    neuron, arrivals = still.drive.neuron, _in_order(watched.drive)
    wide, gain, threshold = _spread(still)
    # Mirrored by the sign, every crossing is one upwards.
    sign = jnp.where(rises, 1.0, -1.0).astype(threshold.dtype)
    at, used = _interval(found, number)
    jumped = used & ~at.second & neuron.jumps
    time, slope = _solved(still, at, sign, used & ~jumped)
    floor = min_slope * abs(threshold) * neuron.leak(wide)
    steep = jnp.maximum(sign * slope, floor)
    # dt = -dx / divisor; by infinity where there is no slope to divide by: no gradient
    divisor = jnp.where(used & ~jumped & (steep > 0), sign * steep, jnp.inf)
    arrived = jnp.zeros_like(time)
    if neuron.jumps:
        # Interval n begins at arrival n - 1, whose time is the crossing's.
        last = jnp.maximum(at.number - 1, 0)
        arrived = at_places(arrivals.time.T[:, :, None], last, axis=0)
        arrived = jnp.where(jumped, arrived, 0.0)
        if jump_width is not None:
            # The jump is taken for a ramp of that length: slope = jump / width.
            jump = gain * at.jump
            divisor = jnp.where(jumped & (sign * jump > 0), jump / jump_width, divisor)
    place = _Found(
        time=jnp.where(used, time, 0.0), divisor=divisor, interval=jnp.where(used, at.number, 0)
    )
    # A zero, whose derivative is that of the arrival's time.
    with_arrival = arrived - lax.stop_gradient(arrived)
    time = _moved(watched, arrivals, place) + with_arrival
    return Crossings(
        time=jnp.where(used, time, jnp.where(number == 0, 0.0, jnp.inf)),
        slope=jnp.where(used, jnp.where(jumped, jnp.inf, slope), 1.0),
        clipped=used & ~jumped & ((sign * slope < floor) | (steep <= 0)),
    )


def _interval(found: Trace, number: NumberOfCrossings) -> tuple[_Interval, WhichCrossings]:
    """The interval of each crossing, and whether there is such a crossing."""
    # (intervals, 2, batch, neurons) -> (pieces, batch, neurons), crossings counted up to each piece
    pieces = found.passes.reshape(-1, *found.passes.shape[2:])
    passed = jnp.cumsum(pieces, axis=0, dtype=jnp.int32)
    # Crossing n is in the first piece by which n have been counted.
    over_neurons = jax.vmap(jnp.searchsorted, in_axes=1)
    over_samples = jax.vmap(over_neurons, in_axes=1)
    place = jnp.moveaxis(over_samples(passed, number), -1, 0)
    place = jnp.minimum(place, len(passed) - 1)
    interval = place // 2

    def taken(
        array: Num[Array, "intervals batch *neurons"],
    ) -> Num[Array, "crossings batch neurons"]:
        array = array.reshape(*array.shape, *[1] * (3 - array.ndim))
        return at_places(array, interval, axis=0)

    at = _Interval(
        number=interval,
        state=tuple(map(taken, found.state)),
        turns=taken(found.turns),
        jump=taken(found.jump),
        start=taken(found.start),
        duration=taken(found.duration),
        second=place % 2 == 1,
    )
    return at, (number >= 1) & (number <= found.count)


def _solved(
    still: Watched,
    at: _Interval,
    sign: Float[Array, "#crossings #batch #neurons"],
    passes: WhichCrossings,
) -> _Solved:
    """Time and slope of crossings; where V does not flow across the threshold the start of the
    piece.
    """
    neuron = still.drive.neuron
    wide, gain, threshold = _spread(still)
    wait, extreme = neuron.extremum(wide, at.state)
    wait = jnp.clip(wait, 0.0, at.duration)
    turned = at.second & at.turns  # the piece begins where v = j
    late = jnp.where(turned, wait, 0.0)
    v, j, *more = at.state
    state = (jnp.where(turned, extreme, v), jnp.where(turned, extreme, j), *more)
    lasts = jnp.where(at.second, at.duration - late, wait)
    # The flow is linear: sign gain x follows it too, and rises to sign threshold.
    mirrored = tuple(sign * gain * each for each in state)
    flows = neuron.solve(replace(wide, threshold=sign * threshold), mirrored, lasts, passes)
    flows = jnp.where(passes & (mirrored[0] < sign * threshold), flows, 0.0)
    slope = gain * neuron.rate(wide, neuron.flow(neuron.decay(wide, flows), state))[0]
    return _Solved(time=at.start + late + flows, slope=slope)


# ---- their gradient


@jax.custom_jvp
def _moved(watched: Watched, arrivals: _Arrivals, found: _Found) -> OfCrossings:
    """The times that were found, which move with everything that V depends on there."""
    return found.time


@_moved.defjvp
@usual_promotion
def _tangents(
    primals: tuple[Watched, _Arrivals, _Found], tangents: tuple[Watched, _Arrivals, _Found]
) -> tuple[OfCrossings, OfCrossings]:
    """dt = -dx / divisor, with dx the change of gain v - threshold at the time t held."""
    watched, arrivals, found = primals
    by_watched, by_arrivals, _ = tangents
    # A closed form at a fixed ratio of the time constants would tie their gradients.
    neuron = with_general_kernel(watched.drive).neuron

    def excess(moving: _Moving) -> OfCrossings:
        drive = replace(watched.drive, neuron=neuron, lanes=moving.lanes, weight=moving.weight)
        here = Watched(drive=drive, gain=moving.gain, threshold=moving.threshold)
        return _excess(here, moving.time, arrivals.row, found)

    def parts(watched: Watched, arrivals: _Arrivals) -> _Moving:
        return _Moving(
            weight=watched.drive.weight,
            lanes=watched.drive.lanes,
            gain=watched.gain,
            threshold=watched.threshold,
            time=arrivals.time,
        )

    moving, along = parts(watched, arrivals), parts(by_watched, by_arrivals)
    moved = jax.jvp(excess, (moving,), (along,))[1]
    return found.time, -moved / found.divisor


def _excess(
    watched: Watched, time: Times, row: Int[Array, "batch arrivals"], found: _Found
) -> OfCrossings:
    """gain v - threshold at the times found, by the arrivals before each."""
    neuron = watched.drive.neuron
    wide, gain, threshold = _spread(watched)
    # arrays (batch, arrivals, neurons): every arrival as each neuron sees it
    weights = jnp.pad(watched.drive.weight, ((0, 1), (0, 0)))[row]
    each = jax.tree.map(lambda array: array[:, None, :], wide)
    slot = jnp.arange(time.shape[1])[None, :, None]
    came = jnp.isfinite(time)[..., None]
    arrival = jnp.where(jnp.isfinite(time), time, 0.0)[..., None]
    # the state just after an arrival of weight 1 at rest
    rest = jax.tree.map(jnp.zeros_like, neuron.begin(each))
    pulse = neuron.arrive(rest, jnp.ones_like(rest[0]))

    # Kept for all crossings, what the derivative needs would be as large as crossings x arrivals.
    @jax.checkpoint
    def one(place: _Place) -> OfNeurons:
        """v(t) = free(t) + sum over the arrivals before t of W_e R(t - t_e)."""
        counts = came & (slot < place.interval[:, None, :])
        gap = jnp.where(counts, place.time[:, None, :] - arrival, 0.0)
        response = neuron.flow(neuron.decay(each, gap), pulse)[0]
        free = neuron.flow(neuron.decay(wide, place.time), neuron.begin(wide))[0]
        arrived = jnp.sum(jnp.where(counts, weights * response, 0.0), axis=1)
        return gain * (free + arrived) - threshold

    # One crossing of each neuron after the other.
    return lax.map(one, _Place(time=found.time, interval=found.interval))
