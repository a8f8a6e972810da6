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

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxsnn.event.adjoint.held import held
from jaxsnn.event.forward.layer import spread
from jaxsnn.event.forward.readout import Drive, with_general_kernel
from jaxsnn.network.sorting import sorted_times


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
    gain: Float[Array, "..."]
    threshold: Float[Array, "..."]


class Crossings(NamedTuple):
    """Crossings of each neuron in order of time, (crossings, batch, neurons).

    time: seconds, differentiable; inf where unused. slope: of gain v there; 1 where unused, inf
    where an arrival moved V itself across the threshold. clipped: whether a gradient divides by
    something larger than that slope.
    """

    time: jax.Array
    slope: jax.Array
    clipped: jax.Array


class Trace(NamedTuple):
    """What a scan over the arrivals finds.

    state: after each arrival, arrays (intervals, batch, neurons). turns: whether V has an extremum
    in the interval that follows. passes: (intervals, 2, batch, neurons), whether V passes the
    threshold at the arrival or before the extremum, and after it. jump: by how much the arrivals at
    one time have moved v so far, like state. above: whether V begins above the threshold, (batch,
    neurons). start, duration: of the intervals, (intervals, batch).
    """

    state: Any
    turns: jax.Array
    passes: jax.Array
    jump: jax.Array
    above: jax.Array
    start: jax.Array
    duration: jax.Array

    @property
    def count(self):
        """Crossings of each neuron, (batch, neurons)."""
        return jnp.sum(self.passes, axis=(0, 1), dtype=jnp.int32)


class _Arrivals(NamedTuple):
    """Arrivals in order of time: (batch, arrivals) times, and rows; where unused the row behind the
    last.
    """

    time: jax.Array
    row: jax.Array


class _Interval(NamedTuple):
    """The interval that a crossing is in, arrays (crossings, batch, neurons): how many arrivals came
    before it, the rest as in `Trace`; and whether the crossing is in its second piece."""

    number: jax.Array
    state: Any
    turns: jax.Array
    jump: jax.Array
    start: jax.Array
    duration: jax.Array
    second: jax.Array


class _Found(NamedTuple):
    """Where crossings are, (crossings, batch, neurons): seconds, what a gradient divides by, how many
    arrivals came before."""

    time: jax.Array
    divisor: jax.Array
    interval: jax.Array


def trace(watched: Watched, t_end) -> Trace:
    """Scan over the arrivals until t_end (seconds). No gradient passes through."""
    watched = held(watched)
    drive, arrivals = watched.drive, _in_order(watched.drive)
    neuron, batch = drive.neuron, drive.time.shape[0]
    wide, gain, threshold = _spread(watched)
    weight = jnp.pad(drive.weight, ((0, 1), (0, 0)))
    end = jnp.full((batch, 1), t_end, drive.time.dtype)
    start = jnp.minimum(jnp.concatenate([jnp.zeros_like(end), arrivals.time], axis=1), end)
    duration = jnp.minimum(jnp.concatenate([arrivals.time, end], axis=1), end) - start
    rows = jnp.where(arrivals.time < end, arrivals.row, weight.shape[0] - 1)
    rows = jnp.pad(rows, ((0, 0), (1, 0)), constant_values=weight.shape[0] - 1)
    shape = (batch, weight.shape[1])
    begin = jax.tree.map(lambda array: jnp.broadcast_to(array, shape), neuron.begin(wide))

    def is_above(v):
        return gain * v > threshold

    def step(carry, inputs):
        state, above, shown = carry
        row, duration = inputs
        state = neuron.arrive(state, weight[row])
        after = neuron.flow(neuron.decay(wide, duration[:, None]), state)
        turned = neuron.turns(wide, state, after)
        now, finally_above = is_above(state[0]), is_above(after[0])
        halfway = jnp.where(turned, is_above(neuron.extremum(wide, state)[1]), now)
        passes = jnp.stack([(now != above) | (halfway != now), finally_above != halfway])
        lasts = duration[:, None] > 0  # of arrivals at one time only the last one shows where V is
        found = state, turned, passes & lasts, state[0] - shown
        return (
            after,
            jnp.where(lasts, finally_above, above),
            jnp.where(lasts, after[0], shown),
        ), found

    above = jnp.broadcast_to(is_above(begin[0]), shape)
    _, found = lax.scan(step, (begin, above, begin[0]), (rows.T, duration.T))
    return Trace(*found, above, start.T, duration.T)


def crossings(watched: Watched, found: Trace, number, rises, min_slope, jump_width) -> Crossings:
    """Some of the crossings that a trace has.

    Args:
        number: (crossings, batch, neurons) int32, 1 for the first of each neuron; 0 stands for the
            time 0.
        rises: (crossings, batch, neurons) bool or what broadcasts to that, whether V passes upwards
            there.
        min_slope, jump_width: as in `jaxsnn.event.EventDriven`, the slope as a fraction of |threshold| /
            tau_mem, with the threshold counted from V at rest.
    """
    still = held(watched)
    neuron, arrivals = still.drive.neuron, _in_order(watched.drive)
    wide, gain, threshold = _spread(still)
    sign = jnp.where(rises, 1.0, -1.0).astype(threshold.dtype)
    at, used = _interval(found, number)
    jumped = used & ~at.second & neuron.jumps
    time, slope = _solved(still, at, sign, used & ~jumped)
    floor = min_slope * abs(threshold) * neuron.leak(wide)
    steep = jnp.maximum(sign * slope, floor)
    divisor = jnp.where(used & ~jumped & (steep > 0), sign * steep, jnp.inf)
    arrived = jnp.zeros_like(time)
    if neuron.jumps:
        last = jnp.maximum(at.number - 1, 0)
        arrived = jnp.take_along_axis(arrivals.time.T[:, :, None], last, axis=0)
        arrived = jnp.where(jumped, arrived, 0.0)
        if jump_width is not None:
            jump = gain * at.jump
            divisor = jnp.where(jumped & (sign * jump > 0), jump / jump_width, divisor)
    place = _Found(
        time=jnp.where(used, time, 0.0), divisor=divisor, interval=jnp.where(used, at.number, 0)
    )
    time = _moved(watched, arrivals, place) + (arrived - lax.stop_gradient(arrived))
    return Crossings(
        time=jnp.where(used, time, jnp.where(number == 0, 0.0, jnp.inf)),
        slope=jnp.where(used, jnp.where(jumped, jnp.inf, slope), 1.0),
        clipped=used & ~jumped & ((sign * slope < floor) | (steep <= 0)),
    )


def _in_order(drive: Drive) -> _Arrivals:
    _, order = sorted_times(drive.time)
    row = jnp.take_along_axis(jnp.broadcast_to(drive.row, drive.time.shape), order, axis=1)
    time = jnp.take_along_axis(drive.time, order, axis=1)
    return _Arrivals(time=time, row=jnp.where(jnp.isfinite(time), row, drive.weight.shape[0]))


def _spread(watched: Watched):
    """Lanes, gain and threshold as arrays that broadcast against (batch, neurons)."""
    lanes, batch = watched.drive.lanes, watched.drive.time.shape[0]
    return spread((lanes, watched.gain, watched.threshold), batch)


def _interval(found: Trace, number):
    """The interval of each crossing, and whether there is such a crossing."""
    passes = jnp.cumsum(found.passes.reshape(-1, *found.passes.shape[2:]), axis=0, dtype=jnp.int32)
    search = jax.vmap(
        jax.vmap(jnp.searchsorted, in_axes=1), in_axes=1
    )  # over samples, over neurons
    place = jnp.moveaxis(search(passes, number), -1, 0)
    place = jnp.minimum(place, len(passes) - 1)
    interval = place // 2

    def taken(array):
        array = array.reshape(*array.shape, *[1] * (3 - array.ndim))
        return jnp.take_along_axis(array, interval, axis=0)

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


def _solved(still: Watched, at: _Interval, sign, passes):
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
    mirrored = tuple(sign * gain * each for each in state)
    flows = neuron.solve(replace(wide, threshold=sign * threshold), mirrored, lasts, passes)
    flows = jnp.where(passes & (mirrored[0] < sign * threshold), flows, 0.0)
    slope = gain * neuron.rate(wide, neuron.flow(neuron.decay(wide, flows), state))[0]
    return at.start + late + flows, slope


@jax.custom_jvp
def _moved(watched: Watched, arrivals: _Arrivals, found: _Found) -> jax.Array:
    """The times that were found, which move with everything that V depends on there."""
    return found.time


@_moved.defjvp
def _tangents(primals, tangents):
    watched, arrivals, found = primals
    by_watched, by_arrivals, _ = tangents
    neuron = with_general_kernel(watched.drive).neuron

    def excess(weight, lanes, gain, threshold, time):
        drive = replace(watched.drive, neuron=neuron, lanes=lanes, weight=weight)
        return _excess(
            Watched(drive=drive, gain=gain, threshold=threshold), time, arrivals.row, found
        )

    def parts(watched, arrivals):
        return (
            watched.drive.weight,
            watched.drive.lanes,
            watched.gain,
            watched.threshold,
            arrivals.time,
        )

    moved = jax.jvp(excess, parts(watched, arrivals), parts(by_watched, by_arrivals))[1]
    return found.time, -moved / found.divisor


def _excess(watched: Watched, time, row, found: _Found):
    """gain v - threshold at the times found, (crossings, batch, neurons), by the arrivals before
    each.
    """
    neuron = watched.drive.neuron
    wide, gain, threshold = _spread(watched)
    weights = jnp.pad(watched.drive.weight, ((0, 1), (0, 0)))[row]
    each = jax.tree.map(lambda array: array[:, None, :], wide)
    slot = jnp.arange(time.shape[1])[None, :, None]
    came, arrival = (
        jnp.isfinite(time)[..., None],
        jnp.where(jnp.isfinite(time), time, 0.0)[..., None],
    )

    rest = jax.tree.map(jnp.zeros_like, neuron.begin(each))
    pulse = neuron.arrive(rest, jnp.ones_like(rest[0]))

    @jax.checkpoint
    def one(place):
        at, interval = place
        counts = came & (slot < interval[:, None, :])
        gap = jnp.where(counts, at[:, None, :] - arrival, 0.0)
        response = neuron.flow(neuron.decay(each, gap), pulse)[0]
        free = neuron.flow(neuron.decay(wide, at), neuron.begin(wide))[0]
        return (
            gain * (free + jnp.sum(jnp.where(counts, weights * response, 0.0), axis=1)) - threshold
        )

    return lax.map(one, (found.time, found.interval))
