"""Simulation of a feed-forward population: a scan over its sorted arrivals.

Neurons of such a population do not influence each other. So all neurons of all samples walk along
the arrivals in parallel, as elements of arrays (batch, neurons). A solve for crossing times is
expensive, and few intervals between arrivals contain a crossing. Therefore arrivals are processed
in blocks:

1. Sweep (`_sweep`). Neurons flow from arrival to arrival through the block. A neuron whose V would
   cross the threshold in an interval freezes at the beginning of the interval (`ScanState.at`).
2. Fire (`_fire`). One solve for all frozen neurons returns their crossing times. Their spikes are
   recorded and the neurons reset; then they flow to the end of the interval, or freeze again if
   they cross the threshold once more.
3. Repeat both for the same block until no neuron is frozen. In a repeated sweep neurons skip the
   intervals that they have finished (`ScanState.done`).

    arrivals         |    |      |   |        |     one block
    neuron a         ------------------------->     first sweep
    neuron b         -------*                       first sweep: freezes at the third arrival
    neuron b                *->|                    fires, flows to the end of the interval
    neuron b                   --------------->     second sweep

The arrays and their axes:

    Intervals.edge      (intervals + 1, batch)    times of arrivals; interval 0 is before the first
    Intervals.row       (intervals, batch)        row of `weight` that arrives at its beginning
    LayerScan.weight    (rows + 1, neurons)       the last row is zero, for unused slots
    ScanState           (batch, neurons)          state of each neuron
    SpikeLog            (spikes, batch, neurons)  recorded spikes, slot by slot

Where neurons stand at several positions (convolutions), `batch` counts the positions of each sample
one after the other: see `layer`.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from functools import partial
from typing import NamedTuple, Self, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.event.compensated import Pair, either, plus, two_sum, until
from jaxsnn.event.dynamics.neuron_model import Neuron
from jaxsnn.event.event_arrays import (
    Decay,
    IntOfNeurons,
    NeuronConstants,
    OfNeurons,
    Seconds,
    State,
    Weights,
    WhichNeurons,
)
from jaxsnn.event.forward.box_levels import Level, arrived, least_level
from jaxsnn.event.forward.layer import (
    Causes,
    LayerSpec,
    Position,
    broadcast_constants,
    crosses_upwards,
    has_nan,
)
from jaxsnn.network.array_types import Array, Bool, Float, Int
from jaxsnn.network.lookups import gather_along
from jaxsnn.network.meshes import match_device_axes
from jaxsnn.network.reductions import any_in, any_of_each

#: Maximum number of intervals that are all compared; if there are more, they are searched.
_FEW_EDGES = 64
Carry = TypeVar("Carry")
Result = TypeVar("Result")


class ScanState(NamedTuple):
    """State of the neurons during the scan over the arrivals; arrays have the shape of the
    neurons.
    """

    x: State  # the neurons' own state
    #: time of the spike of a neuron that is about to fire, inf for the others
    at: OfNeurons
    #: rounding error of `at`; None where neurons stop after one spike
    at_low: OfNeurons | None
    #: last interval that the neuron finished or is in; None if neurons stop after their first spike
    done: IntOfNeurons | None
    free: Pair | None  # time until which V stays at v_reset; None without a refractory period
    #: rounding error of the level of open boxes; None without boxes
    level_low: OfNeurons | None
    #: jump of V at the time of the last arrival; None unless it is needed
    rise: OfNeurons | None
    #: number of the arrival that moved V above the threshold, 0 without one; None where arrivals do
    #: not change V
    cause: IntOfNeurons | None


class SpikeLog(NamedTuple):
    """Spikes so far, slots first: (spikes, *neurons); the count has the shape of the neurons."""

    time: Float[Array, "spikes batch neurons"]
    slope: Float[Array, "spikes batch neurons"]
    count: IntOfNeurons
    causes: Causes | None


class _UntilFirst(NamedTuple):
    """Carry of `LayerScan.first_spikes`: the next block begins at interval `position`."""

    position: Position
    state: ScanState


class _Blocks(NamedTuple):
    """Carry of `LayerScan.all_spikes`: the next block begins at interval `position`."""

    position: Position
    state: ScanState
    log: SpikeLog


class InBlock(NamedTuple):
    """Carry of the loop over the spikes of one block."""

    state: ScanState
    log: SpikeLog


class _Turn(NamedTuple):
    """Carry of `LayerScan._block`."""

    state: ScanState
    log: SpikeLog
    due: Bool[Array, ""]  # a neuron is about to fire
    swept: Bool[Array, ""]  # neurons have gone through the block


class Intervals(NamedTuple):
    """Interval after each arrival, (intervals, batch)."""

    edge: Float[Array, "edges batch"]  # start of each interval, and the end of the last
    duration: Float[Array, "intervals batch"]
    row: Int[Array, "intervals batch"]  # row of the weights that arrive at its start


class _FromTo(NamedTuple):
    """Flow of V in an interval, arrays that broadcast to the neurons."""

    start: Pair  # time at which V begins to flow, after a refractory period
    x: State  # state at that time
    end: State  # state at the interval's end
    duration: Float[Array, "batch #neurons"]  # from `start` to the interval's end


class _Crossing(NamedTuple):
    """Threshold crossings of the neurons."""

    time: Pair
    wait: OfNeurons  # time from `ScanState.at` to the crossing
    x: State  # state at the crossing


class _Fired(NamedTuple):
    """Spikes of some neurons, and the neurons' state after them."""

    found: _Crossing
    slope: OfNeurons
    x: State  # state when V flows again
    go: Pair  # time at which V flows again
    end: State  # state at the interval's end, without another spike
    again: WhichNeurons  # another spike follows in the interval


class LayerScan:
    """Scan of one population over its arrivals, with arrays of shape (batch, neurons).

    The assumptions of a neuron model may not hold for its numbers (`specialise`). Only the parts that
    depend on them are then compiled twice.
    """

    def __init__(
        self,
        spec: LayerSpec,
        weight: Weights,
        constants: NeuronConstants,
        intervals: Intervals,
        t_end: Seconds,
        block_size: int,
    ) -> None:
        self.spec = spec
        self.neuron = spec.neuron
        #: whether the assumptions of the model hold; None: they are known to hold
        self.assumption_holds = (
            None if spec.neuron.certain else spec.neuron.assumption_holds(constants)
        )
        self.block_size = block_size
        self.t_end = t_end
        self.constants = broadcast_constants(constants, intervals.row.shape[1])
        self.intervals = intervals
        self.offset: Position | int = 0  # number of the first of `intervals`
        self.last = intervals.row.shape[0] - 1  # number of the last
        # append a row of zeros, for unused slots and for interval 0, which has no arrival
        self.weight = jnp.pad(weight, ((0, 1), (0, 0)))
        if self.neuron.uniform:
            # the decay over each interval is the same for all neurons: computed once, here
            self.one = jax.tree.map(lambda array: array.reshape(-1)[0], constants)
            self.decays = self.neuron.decay(self.one, intervals.duration)
        if self.neuron.level is not None:
            self.least = least_level(self.weight)[None]

    def specialise(self, function: Callable[[Self], Result]) -> Result:
        """Apply a function to the scan, specialised if the model's assumptions hold for its
        numbers.
        """
        if self.assumption_holds is None:
            return function(self)
        sure = self._with(replace(self.neuron, certain=True))
        plain = self._with(self.neuron.generic())
        return lax.cond(self.assumption_holds, lambda: function(sure), lambda: function(plain))

    def _with(self, neuron: Neuron) -> Self:
        """Return the scan with another model, without a condition on its numbers."""
        scan = copy(self)
        scan.neuron, scan.assumption_holds = neuron, None
        scan.spec = replace(self.spec, neuron=neuron)
        return scan

    def _fill(self, shape: tuple[int, ...], value: Float[Array, "..."] | float) -> Array:
        return jnp.broadcast_to(value, shape).astype(self.weight.dtype)

    # ---- the whole scan

    def first_spikes(self, shape: tuple[int, int], first: Position) -> SpikeLog:
        """Return the log of a scan in which every neuron stops at its first threshold crossing.

        `all_spikes`, stopped after one spike, takes 1.6 times as long for the forward pass of
        5-120-3.
        """
        # Neurons stop at their first spike: they need neither refractory periods nor the rounding
        # errors of summed times.
        state = self._begin(shape)._replace(free=None, at_low=None)

        def body(carry: _UntilFirst) -> _UntilFirst:
            after = carry.position + self.block_size
            return _UntilFirst(position=after, state=self._sweep(carry.position, carry.state))

        def unfinished(carry: _UntilFirst) -> Bool[Array, ""]:
            goes_on = (self.intervals.edge[carry.position] < self.t_end)[:, None]
            waits = jnp.isinf(carry.state.at)
            any_goes_on, any_waits = any_of_each(jnp.broadcast_to(goes_on, shape), waits)
            return any_goes_on & any_waits

        if not self.neuron.jumps:
            state = state._replace(done=None)
        start = self._varying(_UntilFirst(position=first, state=state))
        state = lax.while_loop(unfinished, body, start).state
        fires = jnp.isfinite(state.at)
        end = self._end_of(state.at)
        first_crossing = self.specialise(lambda scan: scan.crossing(state, end, fires))
        slope = jnp.where(fires, self.neuron.slope(self.constants, first_crossing.x), 1.0)
        return self._with_nan(
            self._write(self._empty(shape), state, fires, first_crossing, slope), state.x
        )

    def _end_of(self, begin: OfNeurons) -> OfNeurons:
        """Return the ends of the intervals that begin at some times."""
        edges = self.intervals.edge.T
        method = "compare_all" if edges.shape[1] <= _FEW_EDGES else "scan_unrolled"
        search = jax.vmap(partial(jnp.searchsorted, side="right", method=method))
        return jnp.take_along_axis(edges, search(edges, begin), axis=1, mode="clip")

    def all_spikes(self, shape: tuple[int, int], first: Position) -> SpikeLog:
        """Return the log of a scan block by block."""

        def body(carry: _Blocks) -> _Blocks:
            after = carry.position + self.block_size
            state, log = self._block(carry.position, carry.state, carry.log)
            return _Blocks(position=after, state=state, log=log)

        def unfinished(carry: _Blocks) -> Bool[Array, ""]:
            return any_in(self.intervals.edge[carry.position] < self.t_end)

        start = _Blocks(position=first, state=self._begin(shape), log=self._empty(shape))
        start = self._varying(start)
        end = lax.while_loop(unfinished, body, start)
        return self._with_nan(end.log, end.state.x)

    def _varying(self, carry: Carry) -> Carry:
        """Return the initial carry with the device axes that the loop's inputs have."""
        return match_device_axes(carry, self.weight, self.constants, self.intervals, self.t_end)

    def _empty(self, shape: tuple[int, int]) -> SpikeLog:
        slots = (self.spec.max_spikes, *shape)
        causes = None
        if self.spec.has_causes:
            zero = jnp.zeros(slots, self.weight.dtype)
            causes = Causes(cause=jnp.zeros(slots, jnp.int32), jump=zero, slope_after=zero)
        return SpikeLog(
            time=self._fill(slots, jnp.inf),
            slope=self._fill(slots, 1.0),
            count=jnp.zeros(shape, jnp.int32),
            causes=causes,
        )

    def _begin(self, shape: tuple[int, int]) -> ScanState:
        """Return the state at time 0; a neuron that starts above its threshold fires there."""
        begin = self.neuron.begin(self.constants)
        above = self.neuron.above(self.constants, begin)
        if self.neuron.jumps:  # arrivals at time 0 act first
            above &= self.intervals.duration[0][:, None] > 0
        done = jnp.where(above, jnp.int32(0), jnp.int32(-1))  # a neuron that fires is in interval 0
        zero = self._fill(shape, 0.0)
        return ScanState(
            x=tuple(self._fill(shape, array) for array in begin),
            at=self._fill(shape, jnp.where(above, 0.0, jnp.inf)),
            at_low=zero,
            done=jnp.broadcast_to(done, shape),
            free=Pair(zero, zero) if self.spec.refractory else None,
            level_low=None if self.neuron.level is None else zero,
            rise=zero if self.spec.asks_for_rise else None,
            cause=jnp.zeros(shape, jnp.int32) if self.neuron.jumps else None,
        )

    # ---- from arrival to arrival

    def _weights(self, number: Position) -> OfNeurons:
        """Return the weights of arrival `number` of each sample, in the shape of the neurons."""
        return self.weight.at[self.intervals.row[number]].get(mode="promise_in_bounds")

    def _decay(self, number: Position) -> Decay:
        """Return the flow's coefficients over an interval."""
        if self.neuron.uniform:
            return tuple(self._of_all(array, number)[:, None] for array in self.decays)
        return self.neuron.decay(self.constants, self._duration(number))

    def _of_all(self, array: Array, number: Position) -> Array:
        """Return the entries of (intervals, batch) at one interval number."""
        return array[number - self.offset]

    def _duration(self, number: Position) -> Float[Array, "batch 1"]:
        """Return the duration of an interval."""
        return self._of_all(self.intervals.duration, number)[:, None]

    def _hold(self, x: State, time: OfNeurons) -> State:
        """Return the state after V was held at v_reset for a time."""
        decay = self.neuron.decay(self.constants, time)
        return self.neuron.clamp(self.constants, self.neuron.flow(decay, x))

    def _interval(self, state: ScanState, number: Position, x: State) -> _FromTo:
        """Return the flow of V in the interval after arrival `number`, starting from state `x`."""
        start = self._of_all(self.intervals.edge, number)[:, None]
        duration = self._duration(number)
        if state.free is None:
            end = self.neuron.flow(self._decay(number), x)
            return _FromTo(
                start=Pair(start, jnp.zeros_like(start)), x=x, end=end, duration=duration
            )
        return self._let_go(x, start, duration, state.free)

    def _let_go(self, x: State, start: OfNeurons, duration: OfNeurons, free: Pair) -> _FromTo:
        """Return the flow of V in an interval in which refractory periods may end."""
        # Remaining time for which V is held; 0 or less if it is not. Arrivals exactly at the end of
        # a refractory period, when rounded like arrival times, act after it.
        holds = jnp.where(start < free.high, -until(start, free), 0.0)
        held = jnp.clip(holds, 0.0, duration)
        x = select(holds > 0, self._hold(x, held), x)
        remaining = duration - held
        end = self.neuron.flow(self.neuron.decay(self.constants, remaining), x)
        return _FromTo(start=two_sum(start, held), x=x, end=end, duration=remaining)

    def _arrived(self, state: ScanState, number: Position) -> ScanState:
        """Return the state of all neurons after an arrival, including the recorded causes and
        jumps.
        """
        weights = self._weights(number)
        x = self.neuron.arrive(state.x, weights)
        level_low, rise = state.level_low, state.rise
        if level_low is not None:
            before = Level(state.x, level_low)
            x, level_low = arrived(self.neuron, self.constants, before, weights, self.least)
        if rise is not None:
            # The jumps of simultaneous arrivals add up: the interval between them has length 0.
            apart = self._duration(jnp.maximum(number - 1, 0)) > 0
            rise = jnp.where(apart, 0.0, rise) + weights
        cause = state.cause
        if cause is not None:
            newly, stays = crosses_upwards(self.neuron, self.constants, state.x, x)
            cause = jnp.where(newly, number, jnp.where(stays, cause, 0))
        return state._replace(x=x, level_low=level_low, rise=rise, cause=cause)

    def _sweep(self, first: Position, state: ScanState) -> ScanState:
        """Apply all arrivals of a block to the neurons that have reached them."""

        def through(scan: Self) -> ScanState:
            def step_through(number: Position, state: ScanState) -> ScanState:
                return scan.step(first + number, state)

            return lax.fori_loop(0, self.block_size, step_through, state)

        return self.specialise(through)

    def step(self, number: Position, state: ScanState) -> ScanState:
        """Apply arrival `number` and the interval after it to the neurons that have reached it."""
        arrived = self._arrived(state, number)
        interval = self._interval(state, number, arrived.x)
        x, end = interval.x, interval.end
        crossing = self.neuron.crosses(self.constants, x, end, interval.duration)
        if self.neuron.jumps:
            # V contains all simultaneous arrivals only if the next event is later.
            crossing &= interval.duration > 0
        # Neurons that are about to fire are frozen. When the block is swept again, neurons skip
        # the intervals that they have finished.
        active = jnp.isinf(state.at)
        if state.done is not None:
            active &= state.done < number
        freezes = active & crossing
        at = jnp.where(freezes, interval.start.high, state.at)
        at_low = state.at_low
        if at_low is not None and self.spec.refractory:  # else the start is an arrival: low = 0
            at_low = jnp.where(freezes, interval.start.low, at_low)
        flows = active & jnp.isinf(at)
        if self.spec.once and not self.neuron.jumps:  # equivalent here, with one operation less
            flows = jnp.isinf(at)
        if self.neuron.jumps or self.spec.refractory > 0:
            stands = select(active, x, state.x)
        else:  # arrivals do not move v
            stands = (state.x[0], *select(active, x[1:], state.x[1:]))
        return state._replace(
            x=select(flows, end, stands),
            at=at,
            at_low=at_low,
            done=None if state.done is None else jnp.where(active, number, state.done),
            level_low=of_active(active, arrived.level_low, state.level_low),
            rise=of_active(active, arrived.rise, state.rise),
            cause=of_active(active, arrived.cause, state.cause),
        )

    def _block(self, first: Position, state: ScanState, log: SpikeLog) -> InBlock:
        """Simulate all neurons through one block of arrivals, with all their spikes."""

        def fire(turn: _Turn) -> _Turn:
            # One solve for all neurons that fire.
            state, log = self._fire(turn.state, turn.log)
            return turn._replace(state=state, log=log, due=jnp.zeros_like(turn.due))

        def in_turn(turn: _Turn) -> _Turn:
            # a loop of at most one step instead of a branch: the program contains the sweep once
            turn = lax.while_loop(lambda turn: turn.due, fire, turn)
            state = self._sweep(first, turn.state)
            due = any_fires(state)
            return _Turn(state=state, log=turn.log, due=due, swept=jnp.ones_like(due))

        not_yet = match_device_axes(jnp.asarray(False), state)
        start = _Turn(state=state, log=log, due=not_yet, swept=not_yet)
        end = lax.while_loop(lambda turn: turn.due | ~turn.swept, in_turn, start)
        return InBlock(state=end.state, log=end.log)

    def fires_until_none_does(self, first: Position, swept: InBlock) -> InBlock:
        """Simulate the spikes of neurons that have been swept through a block, and sweep them
        again, until none fires.
        """

        def fire_and_go_on(carry: InBlock) -> InBlock:
            state, log = self._fire(carry.state, carry.log)
            return InBlock(state=self._sweep(first, state), log=log)

        return lax.while_loop(goes_on, fire_and_go_on, swept)

    # ---- spikes

    def crossing(
        self, state: ScanState, end: OfNeurons | Seconds, fires: WhichNeurons
    ) -> _Crossing:
        """Return the threshold crossings of the neurons that cross before `end`."""
        high = jnp.where(fires, state.at, 0.0)
        at = Pair(high, jnp.zeros_like(high) if state.at_low is None else state.at_low)
        room = jnp.maximum(until(end, at), 0.0)
        wait = self.neuron.solve(self.constants, state.x, room, fires)
        # Rounding must not move a spike beyond the end, the time of the next arrival. The
        # correction, here and below, has no derivative: a spike does not depend on what follows.
        wait -= lax.stop_gradient(jnp.where(wait > room, wait - room, 0.0))
        # V is already above, after an arrival or at the start: the neuron fires now
        wait = jnp.where(self._is_above(state.x), 0.0, wait)
        x = self.neuron.flow(self.neuron.decay(self.constants, wait), state.x)
        high, low = plus(at, wait)
        beyond = high > end
        high -= lax.stop_gradient(jnp.where(beyond, high - end, 0.0))
        return _Crossing(time=Pair(high, jnp.where(beyond, 0.0, low)), wait=wait, x=x)

    def _is_above(self, x: State) -> WhichNeurons:
        """Return whether V is at or above the threshold."""
        return self.neuron.excess(self.constants, x) >= 0

    def _fire(self, state: ScanState, log: SpikeLog) -> InBlock:
        """Record one spike of every neuron that is about to fire; the neuron then continues to its
        interval's end if it can.
        """
        fires = jnp.isfinite(state.at)
        done = self._standing(state)
        end = self._of_number(self.intervals.edge, done + 1)
        fired = self.specialise(lambda scan: scan.fired(state, end, fires))
        log = self._write(log, state, fires, fired.found, fired.slope)
        # A neuron that fires infinitely often would keep the whole batch in this loop.
        finished = log.count >= self.spec.counted
        again = fires & ~finished & fired.again
        flows = fires & ~again
        state = state._replace(
            x=select(flows, fired.end, select(again, fired.x, state.x)),
            at=jnp.where(again, fired.go.high, jnp.inf),
            at_low=jnp.where(again, fired.go.low, 0.0),
            done=jnp.where(fires & finished, self.last, done),
            free=self._free_again(state, fires, fired.found.time),
        )
        return InBlock(state=state, log=log)

    def fired(self, state: ScanState, end: OfNeurons, fires: WhichNeurons) -> _Fired:
        """Return one spike of every neuron that fires before `end`, and the neuron's state after
        it.
        """
        at_crossing = self.crossing(state, end, fires)
        x = self.neuron.reset(self.constants, at_crossing.x)
        go = at_crossing.time  # when V flows again
        if self.spec.refractory:
            held = jnp.clip(until(end, at_crossing.time), 0.0, self.spec.refractory)
            go = plus(at_crossing.time, held)
            x = self._hold(x, held)
        remaining = jnp.maximum(until(end, go), 0.0)
        x_end = self.neuron.flow(self.neuron.decay(self.constants, remaining), x)
        again = self.neuron.crosses(self.constants, x, x_end, remaining)
        if self.neuron.jumps:
            again &= remaining > 0
        elif self.neuron.keeps_overshoot and not self.spec.refractory:
            # A neuron that starts far above its threshold may still be above after the reset.
            again |= self.neuron.above(self.constants, x)
        slope = self.neuron.slope(self.constants, at_crossing.x)
        return _Fired(found=at_crossing, slope=slope, x=x, go=go, end=x_end, again=again)

    def _free_again(self, state: ScanState, fires: WhichNeurons, time: Pair) -> Pair | None:
        """Return the end of each neuron's refractory period."""
        if state.free is None:
            return None
        free = plus(time, jnp.full_like(time.high, self.spec.refractory))
        return either(fires, free, state.free)

    def _standing(self, state: ScanState) -> IntOfNeurons:
        """Return the index of each neuron's current interval."""
        assert state.done is not None
        return jnp.maximum(state.done, 0)

    def _of_number(self, array: Array, number: IntOfNeurons) -> Array:
        """Return an array's entries (intervals, batch) at the interval number of each neuron."""
        number = jnp.clip(number - self.offset, 0, array.shape[0] - 1)
        return gather_along(array.T, number, axis=1)

    # ---- the log

    def _write(
        self,
        log: SpikeLog,
        state: ScanState,
        fires: WhichNeurons,
        at_crossing: _Crossing,
        slope: OfNeurons,
    ) -> SpikeLog:
        """Return the log with one more spike of some neurons."""
        causes = None
        if log.causes is not None:
            slope, new = self._cause(state, log, at_crossing, slope)
            pairs = zip(log.causes, new, strict=True)
            causes = Causes(*(self._put(log.count, fires, *pair) for pair in pairs))
        # Gradients take arrivals at exactly the time of a spike to follow it, so that a spike after
        # an arrival must not be rounded to the time of that arrival.
        time, at = at_crossing.time.high, lax.stop_gradient(state.at)
        rounded = (at_crossing.wait > 0) & (time <= at)
        time += jnp.where(rounded, jnp.nextafter(at, jnp.inf) - at, 0.0)
        return SpikeLog(
            time=self._put(log.count, fires, log.time, time),
            slope=self._put(log.count, fires, log.slope, slope),
            count=log.count + fires,
            causes=causes,
        )

    def _put(self, slot: IntOfNeurons, fires: WhichNeurons, logged: Array, new: OfNeurons) -> Array:
        """Write a slot of some neurons into an array of the log."""
        # A spike beyond the last slot is counted, but not recorded.
        slots = lax.broadcasted_iota(jnp.int32, logged.shape, 0)
        return jnp.where(fires & (slots == slot), new, logged)

    def _with_nan(self, log: SpikeLog, x: State) -> SpikeLog:
        """Set the times of neurons whose numbers have become NaN to NaN.

        A comparison with NaN is false, so that such a neuron crosses no threshold and would look
        silent.
        """
        broken = has_nan(self.neuron, self.constants, x)
        return log._replace(time=jnp.where(broken, jnp.nan, log.time))

    def _cause(
        self, state: ScanState, log: SpikeLog, at_crossing: _Crossing, slope: OfNeurons
    ) -> tuple[OfNeurons, Causes]:
        """Return the slope of spikes, inf where an arrival moved V, and the causes."""
        number = jnp.zeros_like(log.count)
        jump = jnp.zeros_like(at_crossing.wait)
        if state.cause is not None:
            jumped = (at_crossing.wait == 0) & self._is_above(state.x)
            number = jnp.where(jumped, state.cause, 0)
            if state.rise is not None:
                jump = jnp.where(jumped, state.rise, 0.0)
            slope = jnp.where(jumped, jnp.inf, slope)
        after = jnp.zeros_like(at_crossing.wait)
        # With a refractory period, `layer_adjoint` computes V' at its end.
        if not self.spec.refractory:
            reset = self.neuron.reset(self.constants, at_crossing.x)
            after = self.neuron.rate(self.constants, reset)[0]
        return slope, Causes(cause=number, jump=jump, slope_after=after)


def any_fires(state: ScanState) -> Bool[Array, ""]:
    return any_in(jnp.isfinite(state.at))


def goes_on(carry: InBlock) -> Bool[Array, ""]:
    return any_fires(carry.state)


def of_active(active: WhichNeurons, new: Array | None, old: Array | None) -> Array | None:
    """Return the new values of the active neurons and the old values of the others."""
    return None if new is None or old is None else jnp.where(active, new, old)


def select(condition: WhichNeurons, yes: State, no: State) -> State:
    """Select element by element between two states."""
    return tuple(jnp.where(condition, a, b) for a, b in zip(yes, no, strict=True))
