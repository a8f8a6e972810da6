"""A feed-forward population, event by event.

Neurons of one population do not see each other, so each one scans the population's sorted arrivals
on its own, batch and neurons in parallel. Arrivals come in blocks. Within a block every lane (one
neuron of one sample) flows from one arrival to the next and freezes where its voltage crosses the
threshold; then one solve for all frozen lanes gives the spikes, the lanes are reset and go on. The
state is local (the values just after the last event), so nothing grows with time.

Where the neurons of a population see different arrivals (a convolution), they are sorted into
positions: all neurons at one position see the same arrivals, and each position of each sample is
one row of the arrays below.

What arrives at exactly one time acts together: the threshold is looked at where V has all of it,
whatever the order. Times are pairs of numbers (`compensated`), and so is what open boxes add up to:
where none is open that is exactly nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from typing import NamedTuple, Self, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.event.compensated import Pair, either, plus, two_sum, until
from jaxsnn.event.dynamics.neuron_model import Neuron
from jaxsnn.event.event_arrays import (
    Decay,
    NeuronLanes,
    OfNeurons,
    OfSpikes,
    Rows,
    Seconds,
    State,
    Times,
    Weights,
)
from jaxsnn.event.forward.box_levels import Level, arrived, least_level
from jaxsnn.network.array_types import Array, Bool, Float, Int
from jaxsnn.network.meshes import varying_like
from jaxsnn.network.reductions import any_in, any_of_each, over_first
from jaxsnn.network.sorting import at_places, places_in, sorted_columns

_BLOCK = 8  # arrivals between two solves
#: Of many arrivals few make a neuron fire: the lanes that do are picked out, and only these solved
#: for. So many arrivals between two looks at which they are,
_LONG_BLOCK = 16
#: where there are so many arrivals,
_MANY_ARRIVALS = 8 * _BLOCK
#: and lanes; and so large a part of these is solved for together.
_MANY_LANES, _AT_ONCE = 512, 1 / 16
_ONCE_BLOCK = 16  # arrivals between two looks at whether any lane has yet to fire
#: So many weights of all arrivals of few neurons are gathered before the scan, not in it.
_MOST_GATHERED = 2**20
#: Below this many neurons the batch is the last axis: over short rows loops are slow.
MINOR_NEURONS = 32

#: Arrays in the shape of the lanes, (batch, neurons) or (neurons, batch): quantities, conditions,
#: numbers of intervals or spikes.
OfLanes = Float[Array, "a b"]
WhichLanes = Bool[Array, "a b"]
NumberOfLanes = Int[Array, "a b"]
#: Number of an interval, one for all.
Position = Int[Array, ""]
Carry = TypeVar("Carry")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class LayerSpec:
    """Static description of one population's scan.

    Attributes:
        neuron: the neuron model.
        max_spikes: how many spikes of each neuron are recorded.
        once: a neuron stops after its first spike.
        min_slope: smallest slope that a gradient is divided by, as a fraction of
            `Neuron.slope_scale`, (v_threshold - v_reset) / tau_mem for NIR's neurons.
        refractory: time for which V stays at v_reset after a spike, seconds.
        jump_width: where an arrival moves V itself across the threshold, the spike's time does not
            depend on weights; with a width (seconds) gradients take the jump for a ramp of that
            length at whose end V comes to the threshold. None: exact, that is none.
        in_order: arrivals come in the order of their times, so that nothing is sorted.
    """

    neuron: Neuron
    max_spikes: int
    once: bool = False
    min_slope: float = 0.0
    refractory: float = 0.0
    jump_width: float | None = None
    in_order: bool = False

    @property
    def counted(self) -> int:
        """Spikes of one neuron after which it is no longer simulated: far beyond the recorded."""
        return 16 * self.max_spikes + 64

    @property
    def assigns(self) -> bool:
        """Whether a spike assigns V, whatever it was, and does not take the same from it always."""
        lowers = self.neuron.drops or self.neuron.keeps_overshoot
        return not lowers or self.refractory > 0

    @property
    def has_causes(self) -> bool:
        """Whether the gradient needs to know what caused each spike, and how V went on."""
        return self.assigns or self.neuron.jumps

    @property
    def asks_for_rise(self) -> bool:
        """Whether the gradient needs to know by how much arrivals moved V."""
        return self.neuron.jumps and self.jump_width is not None


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class LayerSpikes:
    """Spikes of a population; arrays (batch, neurons, max_spikes), but count (batch, neurons).

    Attributes:
        time: seconds, rising along the last axis; inf in unused slots.
        slope: dV/dt just before the spike; 1 in unused slots, inf where an arrival moved V itself
            across the threshold.
        count: spikes fired, which may exceed the recorded ones.
    """

    time: OfSpikes
    slope: OfSpikes
    count: Int[Array, "batch neurons"]


class Causes(NamedTuple):
    """What the gradient needs to know of spikes that assign V, or that arrivals make by moving V;
    arrays as in `LayerSpikes`, or with the axis of spikes first.
    """

    cause: Int[Array, "a b c"]  # slot of the arrival that moved V across the threshold, else -1
    #: by how much V moved with all that came at that time; 0 without a `LayerSpec.jump_width`
    jump: Float[Array, "a b c"]
    #: dV/dt just after the spike; 0 if there is a refractory time
    slope_after: Float[Array, "a b c"]


class _State(NamedTuple):
    """The lanes on their way through the arrivals; arrays have the shape of the lanes."""

    x: State  # the neurons' own state
    #: its time in a lane that is about to fire, inf in the others
    at: OfLanes
    at_low: OfLanes | None  # what rounding took from that; None where lanes stop after one spike
    #: last interval that the lane finished or stands in; None where lanes stop after their first
    #: spike
    done: NumberOfLanes | None
    free: Pair | None  # time until which V stays at v_reset; None where it never does
    #: what rounding took from the level of open boxes; None where there are no boxes
    level_low: OfLanes | None
    #: by how much V was moved at the time of the last arrival; None where nobody asks
    rise: OfLanes | None
    #: number of the arrival that moved V to where the neuron fires, 0 if none did; None where
    #: arrivals do not move V
    cause: NumberOfLanes | None


class _Log(NamedTuple):
    """Spikes so far, slots first: (spikes, *lanes), but count, in the shape of the lanes."""

    time: Float[Array, "spikes a b"]
    slope: Float[Array, "spikes a b"]
    count: NumberOfLanes
    causes: Causes | None


class _UntilFirst(NamedTuple):
    """Carry of `_Scan.first_spikes`: the next block begins at interval `position`."""

    position: Position
    state: _State


class _Blocks(NamedTuple):
    """Carry of `_Scan.all_spikes`: the next block begins at interval `position`."""

    position: Position
    state: _State
    log: _Log


class _InBlock(NamedTuple):
    """Carry of the loop over the spikes of one block."""

    state: _State
    log: _Log


class _Turn(NamedTuple):
    """Carry of `_Scan._block`."""

    state: _State
    log: _Log
    due: Bool[Array, ""]  # a lane is about to fire
    swept: Bool[Array, ""]  # lanes have gone through the block


class _Intervals(NamedTuple):
    """The interval that follows each arrival, (intervals, batch)."""

    edge: Float[Array, "edges batch"]  # where each one begins, and at last where the last one ends
    duration: Float[Array, "intervals batch"]
    row: Int[Array, "intervals batch"]  # of the weights that arrive at its beginning


class _FromTo(NamedTuple):
    """V's flow in an interval, arrays that broadcast to the lanes."""

    start: Pair  # when it begins, behind a refractory time
    x: State  # the state there
    end: State  # the state at the interval's end
    duration: Float[Array, "#a #b"]  # from one to the other


class _Crossing(NamedTuple):
    """Where lanes cross the threshold."""

    time: Pair
    wait: OfLanes  # how long after `_State.at` it is
    x: State  # the state there


class _Fired(NamedTuple):
    """Spikes of some lanes, and how these go on."""

    found: _Crossing
    slope: OfLanes
    x: State  # the state when V flows again
    go: Pair  # when that is
    end: State  # the state at the interval's end, if nothing comes before
    again: WhichLanes  # something does


def _intervals(
    time: Float[Array, "arrivals batch"],
    row: Int[Array, "arrivals batch"],
    t_end: Seconds,
    rows: int,
    block: int,
) -> _Intervals:
    """Of arrivals in order. Interval 0 lies before the first.

    There, in unused slots and from t_end on the row is `rows`, whose weights are 0.
    """
    row = jnp.where(time < t_end, row, rows)
    # One interval in front, and a whole block behind: the last block may begin at the last arrival.
    row = jnp.pad(row, ((1, block), (0, 0)), constant_values=rows)
    edges = jnp.pad(time, ((1, block + 1), (0, 0)), constant_values=jnp.inf)
    # Intervals behind t_end have no length: nothing flows there.
    edges = jnp.minimum(edges, t_end)
    number = lax.broadcasted_iota(jnp.int32, edges.shape, 0)
    edges = jnp.where(number == 0, 0.0, edges)
    return _Intervals(edge=edges, duration=edges[1:] - edges[:-1], row=row)


def spread(lanes: NeuronLanes, batch: int, neurons_last: bool = True) -> NeuronLanes:
    """Lanes (neurons,) or (positions, neurons) as arrays that broadcast against (batch * positions,
    neurons), or that turned.
    """

    def one(array: Float[Array, "..."]) -> Float[Array, "a b"]:
        if array.ndim == 1:
            return array[None] if neurons_last else array[:, None]
        # row sample * positions + position of the batch has the lanes of its position
        array = jnp.tile(array, (batch // array.shape[0], 1))
        return array if neurons_last else array.T

    return jax.tree.map(one, lanes)


def gathered(gradient: NeuronLanes, lanes: NeuronLanes) -> NeuronLanes:
    """Gradients of each sample's lanes (batch, neurons), added up in the shape of the lanes: what
    `spread` undoes.
    """
    positions = jax.tree.leaves(lanes)[0].shape[:-1]

    def one(array: OfNeurons) -> Float[Array, "..."]:
        return over_first(array.reshape(-1, *positions, array.shape[-1]))

    return jax.tree.map(one, gradient)


def _moves(neuron: Neuron, lanes: NeuronLanes) -> Bool[Array, ""]:
    """Whether anything can happen before the first arrival: some neuron is not at rest."""
    begin = neuron.begin(lanes)
    below = neuron.excess(lanes, begin) < 0
    # "not below" and not "above", so that a NaN counts as a movement
    return any_in(*(part != 0 for part in begin), ~below)


def simulate_layer(
    spec: LayerSpec, weight: Weights, lanes: NeuronLanes, time: Times, row: Rows, t_end: Seconds
) -> tuple[LayerSpikes, Causes | None]:
    """Spikes of one population. No gradient passes through: `layer_adjoint.layer_spikes` is the
    differentiable version.

    Args:
        weight: (rows, neurons), what an arrival of each row weighs.
        lanes: the population's neurons, (neurons,) or (positions, neurons).
        time: (batch, arrivals) in any order, seconds; inf where unused. With positions, batch
            counts the positions of each sample, which come one after the other.
        row: (arrivals,) or (batch, arrivals) int32 in [0, rows); anything where unused.
        t_end: end of the simulation, seconds.

    What arrives at exactly equal times acts together. A spike that several arrivals of one time
    make has the one as its cause with which V comes above the threshold, in the order of the slots.
    """

    row = row[None] if row.ndim == 1 else row
    # From here on arrivals come first: (arrivals, batch), in order of time.
    if spec.in_order:
        columns, position, row = time.T, None, row.T
    else:
        columns, position = sorted_columns(time)
        row = row[0][position] if row.shape[0] == 1 else at_places(row.T, position, 0)
    batch, neurons = time.shape[0], weight.shape[1]
    minor_neurons = neurons >= MINOR_NEURONS
    shape = (batch, neurons) if minor_neurons else (neurons, batch)
    lanes_known = isinstance(batch, int) and batch * neurons >= _MANY_LANES
    picks = lanes_known and time.shape[1] >= _MANY_ARRIVALS and not spec.once
    block = min(time.shape[1] + 1, _ONCE_BLOCK if spec.once else _BLOCK)
    if picks:
        block = _LONG_BLOCK
    intervals = _intervals(columns, row, t_end, weight.shape[0], block)
    scan = _Scan(spec, weight, lanes, intervals, t_end, block, minor_neurons)
    # At rest nothing can happen before the first arrival: interval 0 is left out.
    first = _moves(spec.neuron, lanes).astype(jnp.int32) ^ 1
    if spec.once:
        log = scan.first_spikes(shape, first)
    else:
        log = scan.all_spikes(shape, first, picks)
    if not minor_neurons:
        log = jax.tree.map(lambda array: jnp.moveaxis(array, -1, -2), log)
    return _spikes_of(log, position)


def _spikes_of(
    log: _Log, position: Int[Array, "arrivals batch"] | None
) -> tuple[LayerSpikes, Causes | None]:
    """The spikes of a log (spikes, batch, neurons), spike slots last, causes by original slot."""

    def last_axis(array: Array) -> Array:
        return jnp.moveaxis(array, 0, -1)

    spikes = LayerSpikes(time=last_axis(log.time), slope=last_axis(log.slope), count=log.count)
    if log.causes is None:
        return spikes, None
    causes = Causes(*map(last_axis, log.causes))
    # The log counts arrivals in order of time, from 1; gradients want the slots that they came in.
    slot = jnp.maximum(causes.cause - 1, 0)
    if position is not None:
        slot = at_places(position.T[:, None, :], slot, axis=2)
    return spikes, causes._replace(cause=jnp.where(causes.cause > 0, slot, -1))


class _Scan:
    """The steps of one population's scan, over arrays of shape (batch, neurons) or (neurons,
    batch).

    What a neuron model assumes and what holds of its numbers may be two things (`by_facts`). Only
    what differs is then compiled twice.
    """

    def __init__(
        self,
        spec: LayerSpec,
        weight: Weights,
        lanes: NeuronLanes,
        intervals: _Intervals,
        t_end: Seconds,
        block_size: int,
        minor_neurons: bool,
    ) -> None:
        self.spec = spec
        self.neuron = spec.neuron
        #: whether what the model assumes holds; None: that is known
        self.holds = None if spec.neuron.certain else spec.neuron.holds(lanes)
        self.block_size = block_size
        self.t_end = t_end
        self.lanes = spread(lanes, intervals.row.shape[1], minor_neurons)
        self.minor_neurons = minor_neurons
        self.intervals = intervals
        self.offset: Position | int = 0  # number of the first of `intervals`
        self.last = intervals.row.shape[0] - 1  # number of the last
        # a last row of zeros: what unused slots and the time before the first arrival add
        weight = jnp.pad(weight, ((0, 1), (0, 0)))
        self.weight = weight if minor_neurons else weight.T
        # (neurons, intervals, batch): of few neurons reading a column is faster than gathering one
        self.gathered = None
        # of a batch whose size is not known yet (`jax.export`) there may be too many
        rows = intervals.row.shape[0] * weight.shape[1]
        known = isinstance(intervals.row.shape[1], int)
        if not minor_neurons and known and rows * intervals.row.shape[1] <= _MOST_GATHERED:
            self.gathered = self.weight.at[:, intervals.row].get(mode="promise_in_bounds")
        if self.neuron.uniform:
            # the decay over each interval is the same for all neurons: computed once, here
            one = jax.tree.map(lambda array: array.reshape(-1)[0], lanes)
            self.decays = self.neuron.decay(one, intervals.duration)
        if self.neuron.level is not None:
            least = least_level(weight)
            self.least = least[None] if minor_neurons else least[:, None]

    def by_facts(self, function: Callable[[Self], Result]) -> Result:
        """What a function makes of the scan, by what holds of its numbers."""
        if self.holds is None:
            return function(self)
        sure = self._with(replace(self.neuron, certain=True))
        plain = self._with(self.neuron.unassuming())
        return lax.cond(self.holds, lambda: function(sure), lambda: function(plain))

    def _with(self, neuron: Neuron) -> Self:
        """The scan with another model, of which all is known."""
        scan = copy(self)
        scan.neuron, scan.holds = neuron, None
        scan.spec = replace(self.spec, neuron=neuron)
        return scan

    def sample(self, array: Float[Array, "batch"]) -> Float[Array, "#a #b"]:
        """A quantity of each sample, made to broadcast against the lanes."""
        return array[:, None] if self.minor_neurons else array[None, :]

    def _fill(self, shape: tuple[int, ...], value: Float[Array, "..."] | float) -> Array:
        return jnp.broadcast_to(value, shape).astype(self.weight.dtype)

    # ---- the whole scan

    def first_spikes(self, shape: tuple[int, int], first: Position) -> _Log:
        """Log of a scan in which every lane stops where it crosses the threshold for the first
        time.
        """
        # A refractory time would only come behind the spike, and one time is not added to.
        state = self._begin(shape)._replace(free=None, at_low=None)

        def body(carry: _UntilFirst) -> _UntilFirst:
            after = carry.position + self.block_size
            return _UntilFirst(position=after, state=self._sweep(carry.position, carry.state))

        def unfinished(carry: _UntilFirst) -> Bool[Array, ""]:
            goes_on = self.sample(self.intervals.edge[carry.position] < self.t_end)
            waits = jnp.isinf(carry.state.at)
            any_goes_on, any_waits = any_of_each(jnp.broadcast_to(goes_on, shape), waits)
            return any_goes_on & any_waits

        if not self.neuron.jumps:
            state = state._replace(done=None)
        start = self._varying(_UntilFirst(position=first, state=state))
        state = lax.while_loop(unfinished, body, start).state
        fires = jnp.isfinite(state.at)
        found = self.by_facts(lambda scan: scan.crossing(state, self.t_end, fires))
        slope = jnp.where(fires, self.neuron.slope(self.lanes, found.x), 1.0)
        return self._write(self._empty(shape), state, fires, found, slope)

    def all_spikes(self, shape: tuple[int, int], first: Position, picks: bool) -> _Log:
        """Log of a scan block by block.

        Args:
            picks: in each block the lanes that fire are picked out.
        """
        through = self._block_of_few if picks else self._block

        def body(carry: _Blocks) -> _Blocks:
            after = carry.position + self.block_size
            state, log = through(carry.position, carry.state, carry.log)
            return _Blocks(position=after, state=state, log=log)

        def unfinished(carry: _Blocks) -> Bool[Array, ""]:
            return jnp.any(self.intervals.edge[carry.position] < self.t_end)

        start = _Blocks(position=first, state=self._begin(shape), log=self._empty(shape))
        start = self._varying(start)
        return lax.while_loop(unfinished, body, start).log

    def _varying(self, carry: Carry) -> Carry:
        """What a loop begins with, as it is behind the first arrival."""
        return varying_like(carry, self.weight, self.lanes, self.intervals, self.t_end)

    def _empty(self, shape: tuple[int, int]) -> _Log:
        slots = (self.spec.max_spikes, *shape)
        causes = None
        if self.spec.has_causes:
            zero = jnp.zeros(slots, self.weight.dtype)
            causes = Causes(cause=jnp.zeros(slots, jnp.int32), jump=zero, slope_after=zero)
        return _Log(
            time=self._fill(slots, jnp.inf),
            slope=self._fill(slots, 1.0),
            count=jnp.zeros(shape, jnp.int32),
            causes=causes,
        )

    def _begin(self, shape: tuple[int, int]) -> _State:
        """State at time 0; a neuron that starts above its threshold fires there."""
        begin = self.neuron.begin(self.lanes)
        above = self.neuron.above(self.lanes, begin)
        if self.neuron.jumps:  # what arrives at time 0 counts
            above &= self.sample(self.intervals.duration[0]) > 0
        done = jnp.where(above, jnp.int32(0), jnp.int32(-1))  # it stands in interval 0
        zero = self._fill(shape, 0.0)
        return _State(
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

    def _weights(self, number: Position) -> OfLanes:
        """What arrival `number` of each sample weighs, in the shape of the lanes."""
        if self.gathered is not None:
            number = number - self.offset
            return lax.dynamic_index_in_dim(self.gathered, number, 1, keepdims=False)
        row = self._of_all(self.intervals.row, number)
        if self.minor_neurons:
            return self.weight.at[row].get(mode="promise_in_bounds")
        return self.weight.at[:, row].get(mode="promise_in_bounds")

    def _decay(self, number: Position) -> Decay:
        """The flow's coefficients over an interval."""
        if self.neuron.uniform:
            return tuple(self.sample(self._of_all(array, number)) for array in self.decays)
        return self.neuron.decay(self.lanes, self._duration(number))

    def _of_all(self, array: Array, number: Position) -> Array:
        """Entries of (intervals, batch) at one number."""
        return array[number - self.offset]

    def _duration(self, number: Position) -> Float[Array, "#a #b"]:
        """How long an interval is."""
        return self.sample(self._of_all(self.intervals.duration, number))

    def _hold(self, x: State, time: OfLanes) -> State:
        """State after V was held at v_reset for a time."""
        decay = self.neuron.decay(self.lanes, time)
        return self.neuron.clamp(self.lanes, self.neuron.flow(decay, x))

    def _interval(self, state: _State, number: Position, x: State) -> _FromTo:
        """V's flow in the interval after arrival `number`, from the state behind that."""
        start = self.sample(self._of_all(self.intervals.edge, number))
        duration = self._duration(number)
        if state.free is None:
            end = self.neuron.flow(self._decay(number), x)
            return _FromTo(
                start=Pair(start, jnp.zeros_like(start)), x=x, end=end, duration=duration
            )
        # How long V is held yet; 0 or less where it is not. What arrives at the very end of a
        # refractory time, as far as the rounded time of an arrival tells, comes after it.
        holds = jnp.where(start < state.free.high, -until(start, state.free), 0.0)
        held = jnp.clip(holds, 0.0, duration)
        x = _select(holds > 0, self._hold(x, held), x)
        left = duration - held
        end = self.neuron.flow(self.neuron.decay(self.lanes, left), x)
        return _FromTo(start=two_sum(start, held), x=x, end=end, duration=left)

    def _arrived(self, state: _State, number: Position) -> _State:
        """The lanes behind an arrival, all of them, and what they keep account of."""
        weights = self._weights(number)
        x = self.neuron.arrive(state.x, weights)
        level_low, rise = state.level_low, state.rise
        if level_low is not None:
            before = Level(state.x, level_low)
            x, level_low = arrived(self.neuron, self.lanes, before, weights, self.least)
        if rise is not None:
            # What came before at the same time adds to it: no time lies between.
            apart = self._duration(jnp.maximum(number - 1, 0)) > 0
            rise = jnp.where(apart, 0.0, rise) + weights
        cause = state.cause
        if cause is not None:
            newly, stays = comes_up(self.neuron, self.lanes, state.x, x)
            cause = jnp.where(newly, number, jnp.where(stays, cause, 0))
        return state._replace(x=x, level_low=level_low, rise=rise, cause=cause)

    def _sweep(self, first: Position, state: _State) -> _State:
        """All arrivals of a block, for the lanes that have come so far."""

        def through(scan: Self) -> _State:
            def one(number: Position, state: _State) -> _State:
                return scan.step(first + number, state)

            return lax.fori_loop(0, self.block_size, one, state)

        return self.by_facts(through)

    def step(self, number: Position, state: _State) -> _State:
        """Arrival `number` and the interval after it, for the lanes that have come so far."""
        arrived = self._arrived(state, number)
        interval = self._interval(state, number, arrived.x)
        x, end = interval.x, interval.end
        crossing = self.neuron.crosses(self.lanes, x, end, interval.duration)
        if self.neuron.jumps:
            # V has all that arrives at one time only where the next thing comes later.
            crossing &= interval.duration > 0
        # Lanes that are about to fire are frozen. Where the block is swept again, lanes pass over
        # the intervals that they have behind them.
        active = jnp.isinf(state.at)
        if state.done is not None:
            active &= state.done < number
        freezes = active & crossing
        at = jnp.where(freezes, interval.start.high, state.at)
        at_low = state.at_low
        if at_low is not None and self.spec.refractory:  # else an interval begins at an arrival
            at_low = jnp.where(freezes, interval.start.low, at_low)
        flows = active & jnp.isinf(at)
        if self.spec.once and not self.neuron.jumps:  # the same here, one operation less
            flows = jnp.isinf(at)
        if self.neuron.jumps or self.spec.refractory > 0:
            stands = _select(active, x, state.x)
        else:  # a lane that fires has the v of before: the arrival did not move it
            stands = (state.x[0], *_select(active, x[1:], state.x[1:]))
        return state._replace(
            x=_select(flows, end, stands),
            at=at,
            at_low=at_low,
            done=None if state.done is None else jnp.where(active, number, state.done),
            level_low=_of_active(active, arrived.level_low, state.level_low),
            rise=_of_active(active, arrived.rise, state.rise),
            cause=_of_active(active, arrived.cause, state.cause),
        )

    def _block(self, first: Position, state: _State, log: _Log) -> _InBlock:
        """All lanes through one block of arrivals, with all their spikes in it."""

        def fire(turn: _Turn) -> _Turn:
            # One solve for all lanes that fire.
            state, log = self._fire(turn.state, turn.log)
            return turn._replace(state=state, log=log, due=jnp.zeros_like(turn.due))

        def in_turn(turn: _Turn) -> _Turn:
            # a loop of at most one step, so that the sweep is in the program once
            turn = lax.while_loop(lambda turn: turn.due, fire, turn)
            state = self._sweep(first, turn.state)
            due = _any_fires(state)
            return _Turn(state=state, log=turn.log, due=due, swept=jnp.ones_like(due))

        not_yet = varying_like(jnp.asarray(False), state)
        start = _Turn(state=state, log=log, due=not_yet, swept=not_yet)
        end = lax.while_loop(lambda turn: turn.due | ~turn.swept, in_turn, start)
        return _InBlock(state=end.state, log=end.log)

    def _block_of_few(self, first: Position, state: _State, log: _Log) -> _InBlock:
        """As `_block`, where few lanes fire: these alone are solved for and swept again, some at a
        time.
        """

        def some_fire(carry: _InBlock) -> _InBlock:
            few = _FewLanes(self, jnp.isfinite(carry.state.at), first)
            return few.through(carry.state, carry.log)

        swept = _InBlock(state=self._sweep(first, state), log=log)
        return lax.while_loop(_goes_on, some_fire, swept)

    def fires_until_none_does(self, first: Position, swept: _InBlock) -> _InBlock:
        """Lanes that have been swept through a block of arrivals, with all their spikes in it."""

        def fire_and_go_on(carry: _InBlock) -> _InBlock:
            state, log = self._fire(carry.state, carry.log)
            return _InBlock(state=self._sweep(first, state), log=log)

        return lax.while_loop(_goes_on, fire_and_go_on, swept)

    # ---- spikes

    def crossing(self, state: _State, end: OfLanes | Seconds, fires: WhichLanes) -> _Crossing:
        """The spikes of the lanes that cross the threshold before `end`."""
        high = jnp.where(fires, state.at, 0.0)
        at = Pair(high, jnp.zeros_like(high) if state.at_low is None else state.at_low)
        room = jnp.maximum(until(end, at), 0.0)
        wait = self.neuron.solve(self.lanes, state.x, room, fires)
        # an arrival, or the start, has put it above: there is nothing to solve
        wait = jnp.where(self._is_above(state.x), 0.0, wait)
        x = self.neuron.flow(self.neuron.decay(self.lanes, wait), state.x)
        return _Crossing(time=plus(at, wait), wait=wait, x=x)

    def _is_above(self, x: State) -> WhichLanes:
        """Whether V is at the threshold or above."""
        return self.neuron.excess(self.lanes, x) >= 0

    def _fire(self, state: _State, log: _Log) -> _InBlock:
        """One spike of every lane that is about to fire; the lane then goes on to its interval's
        end if it can.
        """
        fires = jnp.isfinite(state.at)
        done = self._standing(state)
        end = self._of_number(self.intervals.edge, done + 1)
        fired = self.by_facts(lambda scan: scan.fired(state, end, fires))
        log = self._write(log, state, fires, fired.found, fired.slope)
        # A neuron that fires without end would keep the whole batch in this loop.
        finished = log.count >= self.spec.counted
        again = fires & ~finished & fired.again
        flows = fires & ~again
        state = state._replace(
            x=_select(flows, fired.end, _select(again, fired.x, state.x)),
            at=jnp.where(again, fired.go.high, jnp.inf),
            at_low=jnp.where(again, fired.go.low, 0.0),
            done=jnp.where(fires & finished, self.last, done),
            free=self._free_again(state, fires, fired.found.time),
        )
        return _InBlock(state=state, log=log)

    def fired(self, state: _State, end: OfLanes, fires: WhichLanes) -> _Fired:
        """One spike of every lane that is about to fire before `end`, and how the lane goes on."""
        found = self.crossing(state, end, fires)
        x = self.neuron.reset(self.lanes, found.x)
        go = found.time  # when V flows again
        if self.spec.refractory:
            held = jnp.clip(until(end, found.time), 0.0, self.spec.refractory)
            go = plus(found.time, held)
            x = self._hold(x, held)
        left = jnp.maximum(until(end, go), 0.0)
        x_end = self.neuron.flow(self.neuron.decay(self.lanes, left), x)
        again = self.neuron.crosses(self.lanes, x, x_end, left)
        if self.neuron.jumps:
            again &= left > 0
        elif self.neuron.keeps_overshoot and not self.spec.refractory:
            # One that starts far above its threshold may still be above.
            again |= self.neuron.above(self.lanes, x)
        slope = self.neuron.slope(self.lanes, found.x)
        return _Fired(found=found, slope=slope, x=x, go=go, end=x_end, again=again)

    def _free_again(self, state: _State, fires: WhichLanes, time: Pair) -> Pair | None:
        """When the lanes that are in their refractory time leave it."""
        if state.free is None:
            return None
        free = plus(time, jnp.full_like(time.high, self.spec.refractory))
        return either(fires, free, state.free)

    def _standing(self, state: _State) -> NumberOfLanes:
        """Number of the interval that each lane stands in."""
        assert state.done is not None
        return jnp.maximum(state.done, 0)

    def _of_number(self, array: Array, number: NumberOfLanes) -> Array:
        """Entries of (intervals, batch) at a number of each lane."""
        number = jnp.clip(number - self.offset, 0, array.shape[0] - 1)
        if self.minor_neurons:
            return at_places(array.T, number, axis=1)
        return at_places(array, number, axis=0)

    # ---- the log

    def _write(
        self, log: _Log, state: _State, fires: WhichLanes, found: _Crossing, slope: OfLanes
    ) -> _Log:
        """The log with one more spike of some lanes."""
        causes = None
        if log.causes is not None:
            slope, new = self._cause(state, log, found, slope)
            pairs = zip(log.causes, new, strict=True)
            causes = Causes(*(self._put(log.count, fires, *pair) for pair in pairs))
        return _Log(
            time=self._put(log.count, fires, log.time, found.time.high),
            slope=self._put(log.count, fires, log.slope, slope),
            count=log.count + fires,
            causes=causes,
        )

    def _put(self, slot: NumberOfLanes, fires: WhichLanes, logged: Array, new: OfLanes) -> Array:
        """An array of the log with what some lanes write into a slot each."""
        # A spike behind the last slot is counted, and lost.
        slots = lax.broadcasted_iota(jnp.int32, logged.shape, 0)
        return jnp.where(fires & (slots == slot), new, logged)

    def _cause(
        self, state: _State, log: _Log, found: _Crossing, slope: OfLanes
    ) -> tuple[OfLanes, Causes]:
        """The slope of spikes, inf where an arrival moved V, and what caused them."""
        number = jnp.zeros_like(log.count)
        jump = jnp.zeros_like(found.wait)
        if state.cause is not None:
            jumped = (found.wait == 0) & self._is_above(state.x)
            number = jnp.where(jumped, state.cause, 0)
            if state.rise is not None:
                jump = jnp.where(jumped, state.rise, 0.0)
            slope = jnp.where(jumped, jnp.inf, slope)
        after = jnp.zeros_like(found.wait)
        # Behind a refractory time V' is that of when V is let go, which `layer_adjoint` works out.
        if not self.spec.refractory:
            reset = self.neuron.reset(self.lanes, found.x)
            after = self.neuron.rate(self.lanes, reset)[0]
        return slope, Causes(cause=number, jump=jump, slope_after=after)


class _FewLanes(_Scan):
    """Some lanes of a scan that are about to fire, through one block of its arrivals: arrays (1,
    few), as if each lane were a sample with one neuron.
    """

    def __init__(self, whole: _Scan, fires: WhichLanes, first: Position) -> None:
        self.spec, self.neuron, self.t_end = whole.spec, whole.neuron, whole.t_end
        self.holds = whole.holds
        self.block_size, self.last = whole.block_size, whole.last
        self.minor_neurons, self.first = False, first
        few = max(int(fires.size * _AT_ONCE), 32)
        # Without the barrier the search would be computed again wherever a lane is looked up.
        lane = lax.optimization_barrier(_numbers_of_first(fires.reshape(-1), few))
        # of an unused entry the row lies beyond the lanes
        self.row, self.column = lane // fires.shape[1], lane % fires.shape[1]
        self.used = (lane < fires.size)[None]
        row = jnp.minimum(self.row, fires.shape[0] - 1)
        sample, neuron = (row, self.column) if whole.minor_neurons else (self.column, row)
        # one interval more than the block: that before it
        self.offset = jnp.maximum(first - 1, 0)

        def cut(array: Float[Array, "numbers batch"], more: int = 0) -> Array:
            size = self.block_size + 1 + more
            return (
                lax.dynamic_slice_in_dim(array, self.offset, size)
                .at[:, sample]
                .get(mode="promise_in_bounds")
            )

        edge, duration, rows = whole.intervals
        self.intervals = _Intervals(edge=cut(edge, 1), duration=cut(duration), row=cut(rows))
        pair = (self.intervals.row, neuron) if whole.minor_neurons else (neuron, self.intervals.row)
        self.weight = whole.weight
        self.gathered = whole.weight.at[pair].get(mode="promise_in_bounds")[None]
        self.lanes = jax.tree.map(self._taken, whole.lanes)
        if self.neuron.uniform:
            self.decays = tuple(map(cut, whole.decays))
        if self.neuron.level is not None:
            self.least = self._taken(whole.least)

    def _taken(self, array: Float[Array, "#a #b"]) -> Float[Array, "1 few"]:
        """What broadcasts to all lanes, for these."""
        rows, columns = array.shape
        row = jnp.minimum(self.row, rows - 1)
        column = jnp.minimum(self.column, columns - 1)
        return array.at[row, column].get(mode="promise_in_bounds")[None]

    def through(self, state: _State, log: _Log) -> _InBlock:
        """All lanes of the whole scan, behind the spikes and the flow of these in the block."""
        own = jax.tree.map(self._taken, state)
        own = own._replace(at=jnp.where(self.used, own.at, jnp.inf))
        own_log = log._replace(count=self._taken(log.count))
        moved, written = self.fires_until_none_does(self.first, _InBlock(own, own_log))

        def put(old: Array, new: Float[Array, "1 few"]) -> Array:
            return old.at[self.row, self.column].set(new[0], mode="drop")

        written = written._replace(count=put(log.count, written.count))
        return _InBlock(state=jax.tree.map(put, state, moved), log=written)

    def _put(self, slot: NumberOfLanes, fires: WhichLanes, logged: Array, new: OfLanes) -> Array:
        """An array of the log of the whole scan with what these lanes write into a slot each."""
        # A spike behind the last slot is counted, and lost.
        beyond = jnp.where(fires, slot, logged.shape[0])[0]
        return logged.at[beyond, self.row, self.column].set(new[0], mode="drop")


def _numbers_of_first(which: Bool[Array, "lanes"], few: int) -> Int[Array, "few"]:
    """Numbers of the first few lanes for which something holds; behind the last, how many lanes
    there are.
    """
    size, run = which.size, 128
    # A running count by a product with a triangle, exact in float32: `jnp.cumsum` takes longer.
    runs = jnp.pad(which, (0, -size % run)).astype(jnp.float32).reshape(-1, run)
    within = runs @ jnp.triu(jnp.ones((run, run), jnp.float32))
    before = jnp.cumsum(within[:, -1]) - within[:, -1]
    count = (within + before[:, None]).reshape(-1)[:size]
    wanted = jnp.arange(1, few + 1, dtype=jnp.float32)
    return places_in(count, wanted)


def _any_fires(state: _State) -> Bool[Array, ""]:
    return jnp.any(jnp.isfinite(state.at))


def _goes_on(carry: _InBlock) -> Bool[Array, ""]:
    return _any_fires(carry.state)


class ComesUp(NamedTuple):
    """What an arrival does to neurons whose V it moves."""

    newly: WhichLanes  # it moves V to the threshold, or above it
    stays: WhichLanes  # V is there behind it


def comes_up(neuron: Neuron, lanes: NeuronLanes, before: State, after: State) -> ComesUp:
    """Whether an arrival moves V from a state to another to where the neuron may fire."""
    at_before, at_after = (neuron.excess(lanes, x) >= 0 for x in (before, after))
    crosses = neuron.above(lanes, after) & ~neuron.above(lanes, before)
    return ComesUp(newly=crosses | (at_after & ~at_before), stays=at_after)


def _of_active(active: WhichLanes, new: Array | None, old: Array | None) -> Array | None:
    """An account of the lanes, of those that have come so far the new one."""
    return None if new is None or old is None else jnp.where(active, new, old)


def _select(condition: WhichLanes, yes: State, no: State) -> State:
    """Element by element one of two states."""
    return tuple(jnp.where(condition, a, b) for a, b in zip(yes, no, strict=True))
