"""A feed-forward population, event by event.

Neurons of one population do not see each other, so each one scans the population's sorted arrivals
on its own, batch and neurons in parallel. Arrivals come in blocks. Within a block every lane (one
neuron of one sample) flows from one arrival to the next and freezes where its voltage crosses the
threshold; then one solve for all frozen lanes gives the spikes, the lanes are reset and go on. The
state is local (the values just after the last event), so nothing grows with time.

Where the neurons of a population see different arrivals (a convolution), they are sorted into
positions: all neurons at one position see the same arrivals, and each position of each sample is
one row of the arrays below.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxsnn.event.dynamics.neuron_model import Lanes, Neuron
from jaxsnn.network.reductions import any_in, any_of_each, over_first
from jaxsnn.network.sorting import sorted_columns

_BLOCK = 8
_MOST_GATHERED = (
    2**20
)  # so many weights of all arrivals of few neurons are gathered before the scan, not in it
_ONCE_BLOCK = 16  # after which it is looked whether any lane has yet to fire
# Below this many neurons the batch is the last axis: over short rows loops are slow.
MINOR_NEURONS = 32


@dataclass(frozen=True, kw_only=True)
class LayerSpec:
    """Static description of one population's scan.

    Attributes:
        neuron: the neuron type.
        max_spikes: how many spikes of each neuron are recorded.
        once: a neuron stops after its first spike.
        min_slope: smallest slope that a gradient is divided by, as a fraction of (v_threshold -
            v_reset) / tau_mem.
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
    def counted(self):
        """Spikes of one neuron after which it is no longer simulated: far beyond the recorded ones."""
        return 16 * self.max_spikes + 64

    @property
    def forgets(self):
        """Whether a reset forgets by how much V was above, so that it is an assignment and no
        subtraction.
        """
        return self.neuron.jumps or self.refractory > 0


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

    time: Float[Array, "batch neurons spikes"]
    slope: Float[Array, "batch neurons spikes"]
    count: Int[Array, "batch neurons"]


class Causes(NamedTuple):
    """What the gradient needs to know of spikes after which the reset is an assignment; arrays as
    in `LayerSpikes`.

    cause: slot of the arrival that moved V across the threshold, else -1.
    jump: by how much it did.
    """

    cause: jax.Array
    jump: jax.Array


class _State(NamedTuple):
    """Carry of the scan; arrays have the shape of the lanes.

    x: the neuron's own state; at: its time in a lane that is about to fire, inf in the others;
    done: last interval that the lane finished or stands in (None where lanes stop after their first
    spike); free: time until which V stays at v_reset (None where it never does).
    """

    x: Any
    at: jax.Array
    done: jax.Array | None
    free: jax.Array | None


class _Log(NamedTuple):
    time: jax.Array
    slope: jax.Array
    count: jax.Array
    causes: Causes | None


class _Intervals(NamedTuple):
    """The interval that follows each arrival, (intervals, batch).

    edge: where each one begins, and behind the last one where that ends.
    """

    edge: jax.Array
    duration: jax.Array
    row: jax.Array


def _intervals(time, row, t_end, rows, block):
    """Of arrivals (arrivals, batch). Interval 0 lies before the first.

    There, in unused slots and from t_end on the row is `rows`.
    """
    row = jnp.where(time < t_end, row, rows)
    row = jnp.pad(row, ((1, block), (0, 0)), constant_values=rows)  # blocks may begin at interval 1
    edges = jnp.minimum(jnp.pad(time, ((1, block + 1), (0, 0)), constant_values=jnp.inf), t_end)
    edges = jnp.where(lax.broadcasted_iota(jnp.int32, edges.shape, 0) == 0, 0.0, edges)
    return _Intervals(edge=edges, duration=edges[1:] - edges[:-1], row=row)


def spread(lanes: Lanes, batch, neurons_last=True):
    """Lanes (neurons,) or (positions, neurons) as arrays that broadcast against (batch * positions,
    neurons).
    """

    def one(array):
        if array.ndim == 1:
            return array[None] if neurons_last else array[:, None]
        array = jnp.tile(array, (batch // array.shape[0], 1))
        return array if neurons_last else array.T

    return jax.tree.map(one, lanes)


def gathered(gradient: Lanes, lanes: Lanes) -> Lanes:
    """Gradients of each sample's lanes (batch, neurons), added up in the shape of the lanes: what
    `spread` undoes.
    """
    positions = lanes.threshold.shape[:-1]
    return jax.tree.map(
        lambda array: over_first(array.reshape(-1, *positions, array.shape[-1])), gradient
    )


def simulate_layer(
    spec: LayerSpec, weight, lanes: Lanes, time, row, t_end
) -> tuple[LayerSpikes, Causes | None]:
    """Spikes of one population. No gradient passes through: `adjoint.layer_spikes` is the
    differentiable version.

    Args:
        weight: (rows, neurons), what an arrival of each row weighs.
        lanes: the population's neurons, (neurons,) or (positions, neurons).
        time: (batch, arrivals) in any order, seconds; inf where unused. With positions, batch
            counts the positions of each sample, which come one after the other.
        row: (arrivals,) or (batch, arrivals) int32 in [0, rows); anything where unused.
        t_end: end of the simulation, seconds.

    Arrivals at exactly equal times act in the order of their slots.
    """
    row = row[None] if row.ndim == 1 else row
    if spec.in_order:
        columns, position, row = time.T, None, row.T
    else:
        columns, position = sorted_columns(time)
        row = row[0][position] if len(row) == 1 else jnp.take_along_axis(row.T, position, 0)
    minor_neurons = weight.shape[1] >= MINOR_NEURONS
    batch, neurons = time.shape[0], weight.shape[1]
    shape = (batch, neurons) if minor_neurons else (neurons, batch)
    block = min(time.shape[1] + 1, _ONCE_BLOCK if spec.once else _BLOCK)
    intervals = _intervals(columns, row, t_end, weight.shape[0], block)
    scan = _Scan(spec, weight, lanes, intervals, t_end, block, minor_neurons)
    moves = any_in(lanes.v_start != 0, lanes.j_start != 0, ~(lanes.threshold > 0))
    first = moves.astype(jnp.int32) ^ 1  # at rest nothing can happen before the first arrival
    log = (scan.first_spikes if spec.once else scan.all_spikes)(shape, first)
    if not minor_neurons:
        log = jax.tree.map(lambda array: jnp.moveaxis(array, -1, -2), log)
    last_axis = lambda array: jnp.moveaxis(array, 0, -1)  # noqa: E731
    spikes = LayerSpikes(time=last_axis(log.time), slope=last_axis(log.slope), count=log.count)
    if log.causes is None:
        return spikes, None
    causes = Causes(*map(last_axis, log.causes))
    slot = jnp.maximum(causes.cause - 1, 0)
    slot = slot if position is None else jnp.take_along_axis(position.T[:, None, :], slot, axis=2)
    return spikes, causes._replace(cause=jnp.where(causes.cause > 0, slot, -1))


class _Scan:
    """The steps of one population's scan, over arrays of shape (batch, neurons) or (neurons,
    batch).
    """

    def __init__(self, spec, weight, lanes, intervals, t_end, block_size, minor_neurons):
        self.spec, self.neuron, self.block_size, self.t_end = spec, spec.neuron, block_size, t_end
        self.lanes = spread(lanes, intervals.row.shape[1], minor_neurons)
        self.minor_neurons = minor_neurons
        self.intervals = intervals
        # a last row of zeros: what unused slots and the time before the first arrival add
        weight = jnp.pad(weight, ((0, 1), (0, 0)))
        self.weight = weight if minor_neurons else weight.T
        self.gathered = None
        if not minor_neurons and weight.shape[1] * intervals.row.size <= _MOST_GATHERED:
            self.gathered = self.weight.at[:, intervals.row].get(mode="promise_in_bounds")
        if (
            self.neuron.uniform
        ):  # the decay over each interval is the same for all neurons: computed once, here
            one = jax.tree.map(lambda array: array.reshape(-1)[0], lanes)
            self.decays = self.neuron.decay(one, intervals.duration)

    def sample(self, array):
        """A quantity of each sample, made to broadcast against the lanes."""
        return array[:, None] if self.minor_neurons else array[None, :]

    def _fill(self, shape, value):
        return jnp.broadcast_to(value, shape).astype(self.weight.dtype)

    def first_spikes(self, shape, first):
        """Log of a scan in which every lane stops where it crosses the threshold for the first
        time.
        """
        state = self._begin(shape)._replace(free=None)

        def body(carry):
            position, state = carry
            return position + self.block_size, self._sweep(position, state)

        def unfinished(carry):
            position, state = carry
            goes_on = jnp.broadcast_to(
                self.sample(self.intervals.edge[position] < self.t_end), shape
            )
            any_goes_on, any_waits = any_of_each(goes_on, jnp.isinf(state.at))
            return any_goes_on & any_waits

        if not self.neuron.jumps:
            state = state._replace(done=None)
        _, state = lax.while_loop(unfinished, body, (first, state))
        fires = jnp.isfinite(state.at)
        time, wait, x = self._crossing(state, self.t_end, fires)
        slope = jnp.where(fires, self.neuron.slope(self.lanes, x), 1.0)
        log = self._empty(shape)
        return self._write(log, state, fires, time, wait, slope)

    def _empty(self, shape):
        slots = (self.spec.max_spikes, *shape)
        causes = None
        if self.spec.forgets:
            zero = jnp.zeros(slots, self.weight.dtype)
            causes = Causes(cause=jnp.zeros(slots, jnp.int32), jump=zero)
        return _Log(
            time=self._fill(slots, jnp.inf),
            slope=self._fill(slots, 1.0),
            count=jnp.zeros(shape, jnp.int32),
            causes=causes,
        )

    def all_spikes(self, shape, first):
        """Log of a scan block by block."""

        def body(carry):
            position, state, log = carry
            return position + self.block_size, *self._block(position, state, log)

        def unfinished(carry):
            return jnp.any(self.intervals.edge[carry[0]] < self.t_end)

        start = (first, self._begin(shape), self._empty(shape))
        return lax.while_loop(unfinished, body, start)[2]

    def _begin(self, shape):
        """State at time 0; a neuron that starts above its threshold fires there."""
        above = self.lanes.v_start >= self.lanes.threshold
        return _State(
            x=tuple(self._fill(shape, array) for array in self.neuron.begin(self.lanes)),
            at=self._fill(shape, jnp.where(above, 0.0, jnp.inf)),
            done=jnp.broadcast_to(jnp.where(above, jnp.int32(0), jnp.int32(-1)), shape),
            free=self._fill(shape, 0.0) if self.spec.refractory else None,
        )

    def _weights(self, number):
        """What arrival `number` of each sample weighs, in the shape of the lanes."""
        if self.gathered is not None:
            return lax.dynamic_index_in_dim(self.gathered, number, 1, keepdims=False)
        row = self.intervals.row[number]
        if self.minor_neurons:
            return self.weight.at[row].get(mode="promise_in_bounds")
        return self.weight.at[:, row].get(mode="promise_in_bounds")

    def _decay(self, number):
        if self.neuron.uniform:
            return tuple(self.sample(array[number]) for array in self.decays)
        return self.neuron.decay(self.lanes, self.sample(self.intervals.duration[number]))

    def _hold(self, x, time):
        """State after V was held at v_reset for a time."""
        return self.neuron.after_reset(
            self.lanes, self.neuron.flow(self.neuron.decay(self.lanes, time), x)
        )

    def _interval(self, state, number):
        """Time and state from which V flows in the interval after arrival `number`, and the state
        at its end.
        """
        start = self.sample(self.intervals.edge[number])
        x = self.neuron.arrive(state.x, self._weights(number))
        if state.free is None:
            return start, x, self.neuron.flow(self._decay(number), x)
        duration = self.sample(self.intervals.duration[number])
        held = jnp.clip(state.free - start, 0.0, duration)
        x = _select(
            state.free > start, self._hold(x, held), x
        )  # also where the next arrival comes at the same time
        return start + held, x, self.neuron.flow(self.neuron.decay(self.lanes, duration - held), x)

    def _sweep(self, first, state):
        """All arrivals of a block, for the lanes that have come so far."""
        return lax.fori_loop(
            0, self.block_size, lambda n, state: self.step(first + n, state), state
        )

    def step(self, number, state):
        """Arrival `number` and the interval after it, for the lanes that have come so far."""
        start, x, end = self._interval(state, number)
        crossing = self.neuron.crosses(self.lanes, x, end)
        active = jnp.isinf(state.at)
        if state.done is not None:
            active &= state.done < number
        at = jnp.where(active & crossing, start, state.at)
        flows = active & jnp.isinf(at)
        if self.spec.once and not self.neuron.jumps:
            flows = jnp.isinf(at)
        moves_v = (
            self.neuron.jumps or self.spec.refractory > 0
        )  # else a lane that fires has the v of before
        stands = (
            _select(active, x, state.x)
            if moves_v
            else (state.x[0], *_select(active, x[1:], state.x[1:]))
        )
        return _State(
            x=_select(flows, end, stands),
            at=at,
            done=None if state.done is None else jnp.where(active, number, state.done),
            free=state.free,
        )

    def _block(self, first, state, log):
        """All lanes through one block of arrivals, with all their spikes in it."""

        def fire_and_go_on(carry):
            state, log = self._fire(*carry)
            return self._sweep(first, state), log

        def any_fires(carry):
            return jnp.any(jnp.isfinite(carry[0].at))

        return lax.while_loop(any_fires, fire_and_go_on, (self._sweep(first, state), log))

    def _crossing(self, state, end, fires):
        """Time of the spike, how long after `at` it is, and the state at it, for lanes that cross
        before `end`.
        """
        at = jnp.where(fires, state.at, 0.0)
        wait = self.neuron.solve(self.lanes, state.x, jnp.maximum(end - at, 0.0), fires)
        wait = jnp.where(state.x[0] >= self.lanes.threshold, 0.0, wait)
        return at + wait, wait, self.neuron.flow(self.neuron.decay(self.lanes, wait), state.x)

    def _fire(self, state, log):
        """One spike of every lane that is about to fire; the lane then goes on to its interval's
        end if it can.
        """
        fires = jnp.isfinite(state.at)
        after = jnp.maximum(state.done, 0) + 1
        if self.minor_neurons:
            end = jnp.take_along_axis(
                self.intervals.edge.T, after, axis=1, mode="promise_in_bounds"
            )
        else:
            end = jnp.take_along_axis(self.intervals.edge, after, axis=0, mode="promise_in_bounds")
        time, wait, x = self._crossing(state, end, fires)
        slope = self.neuron.slope(self.lanes, x)
        x, go = self.neuron.after_reset(self.lanes, x), time
        if self.spec.refractory:
            go = jnp.minimum(time + self.spec.refractory, end)
            x = self._hold(x, go - time)
        log = self._write(log, state, fires, time, wait, slope)
        finished = log.count >= self.spec.counted
        x_end = self.neuron.flow(self.neuron.decay(self.lanes, jnp.maximum(end - go, 0.0)), x)
        again = fires & ~finished & self.neuron.crosses(self.lanes, x, x_end)
        flows = fires & ~again
        state = _State(
            x=_select(flows, x_end, _select(again, x, state.x)),
            at=jnp.where(again, go, jnp.inf),
            done=jnp.where(fires & finished, self.intervals.row.shape[0] - 1, state.done),
            free=None
            if state.free is None
            else jnp.where(fires, time + self.spec.refractory, state.free),
        )
        return state, log

    def _write(self, log, state, fires, time, wait, slope):
        """The log with one more spike of some lanes."""
        here = fires & (lax.broadcasted_iota(jnp.int32, log.time.shape, 0) == log.count)
        causes = None
        if self.spec.forgets:
            jumped = (wait == 0) & (state.x[0] >= self.lanes.threshold) & self.neuron.jumps
            number = jnp.maximum(state.done, 0) if self.neuron.jumps else jnp.zeros_like(log.count)
            slope = jnp.where(jumped, jnp.inf, slope)
            jump = self._jump(number) if self.neuron.jumps else jnp.zeros_like(time)
            causes = Causes(
                cause=jnp.where(here & jumped, number, log.causes.cause),
                jump=jnp.where(here & jumped, jump, log.causes.jump),
            )
        return _Log(
            time=jnp.where(here, time, log.time),
            slope=jnp.where(here, slope, log.slope),
            count=log.count + fires,
            causes=causes,
        )

    def _jump(self, number):
        """What the arrival of a number (batch, neurons) weighs."""
        if self.minor_neurons:
            row = jnp.take_along_axis(
                self.intervals.row.T, number, axis=1, mode="promise_in_bounds"
            )
            return jnp.take_along_axis(self.weight, row, axis=0, mode="promise_in_bounds")
        row = jnp.take_along_axis(self.intervals.row, number, axis=0, mode="promise_in_bounds")
        return jnp.take_along_axis(self.weight, row, axis=1, mode="promise_in_bounds")


def _select(condition, yes, no):
    """Element by element one of two states."""
    return tuple(jnp.where(condition, a, b) for a, b in zip(yes, no, strict=True))
