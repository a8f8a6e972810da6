"""A feed-forward population, event by event.

Neurons of one population do not see each other, so each one scans the population's sorted arrivals on its own, batch
and neurons in parallel. Arrivals come in blocks. Within a block every lane (one neuron of one sample) flows from one
arrival to the next and freezes where its voltage crosses the threshold; then one solve for all frozen lanes gives the
spikes, the lanes are reset and go on. The state is local (the values just after the last event), so nothing grows with
time.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxsnn.event.events import sorted_times
from jaxsnn.event.neurons import Lanes, Neuron

_BLOCK = 8
_ONCE_BLOCK = 16  # after which it is looked whether any lane has yet to fire
# Below this many neurons the batch is the longer, faster axis.
MINOR_NEURONS = 8


@dataclass(frozen=True, kw_only=True)
class LayerSpec:
    """Static description of one population's scan.

    Attributes:
        neuron: the neuron type.
        max_spikes: how many spikes of each neuron are recorded.
        once: a neuron stops after its first spike.
        min_slope: smallest slope that a gradient is divided by, as a fraction of (v_threshold - v_reset) / tau_mem.
    """

    neuron: Neuron
    max_spikes: int
    once: bool = False
    min_slope: float = 0.0

    @property
    def counted(self):
        """Spikes of one neuron after which it is no longer simulated: far beyond the recorded ones."""
        return 16 * self.max_spikes + 64


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class LayerSpikes:
    """Spikes of a population; arrays (batch, neurons, max_spikes), but count (batch, neurons).

    Attributes:
        time: seconds, rising along the last axis; inf in unused slots.
        slope: dV/dt just before the spike; 1 in unused slots.
        count: spikes fired, which may exceed the recorded ones.
    """

    time: Float[Array, "batch neurons spikes"]
    slope: Float[Array, "batch neurons spikes"]
    count: Int[Array, "batch neurons"]


class _State(NamedTuple):
    """Carry of the scan; arrays have the shape of the lanes.

    at: time of (v, j) in a lane that is about to fire, inf in the others; done: last interval that the lane finished or
    stands in (None where lanes stop after their first spike).
    """

    v: jax.Array
    j: jax.Array
    at: jax.Array
    done: jax.Array | None


class _Log(NamedTuple):
    time: jax.Array
    slope: jax.Array
    count: jax.Array


class _Intervals(NamedTuple):
    """The interval that follows each arrival; the first axis runs over intervals, the others over samples."""

    start: jax.Array
    duration: jax.Array
    row: jax.Array


def _intervals(time, row, t_end, rows, block):
    """Interval 0 lies before the first arrival; there and in unused slots the row is `rows`."""
    batch = time.shape[0]
    row = jnp.where(jnp.isfinite(time), row, rows)
    padding = block  # blocks may begin at interval 1
    start = jnp.concatenate([jnp.zeros((batch, 1), time.dtype), time], axis=1)
    start = jnp.pad(start, ((0, 0), (0, padding)), constant_values=jnp.inf)
    start = jnp.minimum(start, t_end)
    end = jnp.concatenate([start[:, 1:], jnp.full((batch, 1), t_end, time.dtype)], axis=1)
    row = jnp.pad(row, ((0, 0), (1, padding)), constant_values=rows)
    return _Intervals(start=start.T, duration=(end - start).T, row=row.T)


def simulate_layer(spec: LayerSpec, weight, lanes: Lanes, time, row, t_end) -> LayerSpikes:
    """Spikes of one population. No gradient passes through: `adjoint.layer_spikes` is the differentiable version.

    Args:
        weight: (rows, neurons), the jump of j that an arrival of each row causes.
        lanes: the population's neurons.
        time: (batch, arrivals) in any order, seconds; inf where unused.
        row: (arrivals,) or (batch, arrivals) int32 in [0, rows); anything where unused.
        t_end: end of the simulation, seconds.

    Arrivals at exactly equal times act in the order of their slots.
    """
    time, position = sorted_times(time)
    row = row[position] if row.ndim == 1 else jnp.take_along_axis(row, position, -1)
    minor_neurons = weight.shape[1] >= MINOR_NEURONS
    batch, neurons = time.shape[0], weight.shape[1]
    shape = (batch, neurons) if minor_neurons else (neurons, batch)
    block = min(time.shape[1] + 1, _ONCE_BLOCK if spec.once else _BLOCK)
    intervals = _intervals(time, row, t_end, weight.shape[0], block)
    scan = _Scan(spec, weight, lanes, intervals, t_end, block, minor_neurons)
    at_rest = jnp.all((lanes.v_start == 0) & (lanes.j_start == 0) & (lanes.threshold > 0))
    first = at_rest.astype(jnp.int32)  # nothing can happen before the first arrival
    last = jnp.max(jnp.sum(time < t_end, axis=1, dtype=jnp.int32))
    log = (scan.first_spikes if spec.once else scan.all_spikes)(shape, first, last)
    if not minor_neurons:
        log = _Log(*(jnp.moveaxis(array, -1, -2) for array in log))
    return LayerSpikes(time=jnp.moveaxis(log.time, 0, -1), slope=jnp.moveaxis(log.slope, 0, -1), count=log.count)


class _Scan:
    """The steps of one population's scan, over arrays of shape (batch, neurons) or (neurons, batch)."""

    def __init__(self, spec, weight, lanes, intervals, t_end, block_size, minor_neurons):
        self.spec, self.neuron, self.block_size, self.t_end = spec, spec.neuron, block_size, t_end
        self.lanes = lanes.across((1, -1) if minor_neurons else (-1, 1))
        self.minor_neurons = minor_neurons
        self.intervals = intervals
        # a last row of zeros: what unused slots and the time before the first arrival add
        weight = jnp.pad(weight, ((0, 1), (0, 0)))
        self.weight = weight if minor_neurons else weight.T
        if self.neuron.uniform:  # the decay over each interval is the same for all neurons: computed once, here
            one = jax.tree.map(lambda array: array[0], lanes)
            self.decays = self.neuron.decay(one, intervals.duration)

    def sample(self, array):
        """A quantity of each sample, made to broadcast against the lanes."""
        return array[:, None] if self.minor_neurons else array[None, :]

    def _fill(self, shape, value):
        return jnp.broadcast_to(value, shape).astype(self.weight.dtype)

    def first_spikes(self, shape, first, last):
        """Log of a scan in which every lane stops where it crosses the threshold for the first time."""
        state = self._begin(shape)._replace(done=None)

        def body(carry):
            position, state = carry
            after = jnp.minimum(position + self.block_size, last + 1)
            return after, lax.fori_loop(position, after, self.step, state)

        def unfinished(carry):
            position, state = carry
            return (position <= last) & jnp.any(jnp.isinf(state.at))

        _, state = lax.while_loop(unfinished, body, (first, state))
        fires = jnp.isfinite(state.at)
        time, j = self._crossing(state, self.t_end, fires)
        slope = jnp.where(fires, self.neuron.slope(self.lanes, j), 1.0)
        return _Log(time=jnp.where(fires, time, jnp.inf)[None], slope=slope[None], count=fires.astype(jnp.int32))

    def all_spikes(self, shape, first, last):
        """Log of a scan block by block."""
        slots = (self.spec.max_spikes, *shape)
        log = _Log(time=self._fill(slots, jnp.inf), slope=self._fill(slots, 1.0), count=jnp.zeros(shape, jnp.int32))

        def body(carry):
            position, state, log = carry
            return position + self.block_size, *self._block(position, state, log)

        start = (first, self._begin(shape), log)
        return lax.while_loop(lambda carry: carry[0] <= last, body, start)[2]

    def _begin(self, shape):
        """State at time 0; a neuron that starts above its threshold fires there."""
        above = self.lanes.v_start >= self.lanes.threshold
        return _State(
            v=self._fill(shape, self.lanes.v_start),
            j=self._fill(shape, self.lanes.j_start),
            at=self._fill(shape, jnp.where(above, 0.0, jnp.inf)),
            done=jnp.broadcast_to(jnp.where(above, jnp.int32(0), jnp.int32(-1)), shape),
        )

    def _weights(self, row):
        if self.minor_neurons:
            return self.weight.at[row].get(mode="promise_in_bounds")
        return self.weight.at[:, row].get(mode="promise_in_bounds")

    def _decay(self, number):
        if self.neuron.uniform:
            return tuple(self.sample(array[number]) for array in self.decays)
        return self.neuron.decay(self.lanes, self.sample(self.intervals.duration[number]))

    def step(self, number, state):
        """Arrival `number` and the interval after it, for the lanes that have come so far."""
        em, es, k = self._decay(number)
        j = state.j + self._weights(self.intervals.row[number])
        v_end, j_end = state.v * em + j * k, j * es
        crossing = self.neuron.crosses(self.lanes, state.v, j, v_end, j_end)
        active = jnp.isinf(state.at)
        if state.done is not None:
            active &= state.done < number
        at = jnp.where(active & crossing, self.sample(self.intervals.start[number]), state.at)
        flows = jnp.isinf(at) if state.done is None else active & jnp.isinf(at)
        return _State(
            v=jnp.where(flows, v_end, state.v),
            j=jnp.where(flows, j_end, jnp.where(active, j, state.j)),
            at=at,
            done=None if state.done is None else jnp.where(active, number, state.done),
        )

    def _block(self, first, state, log):
        """All lanes through one block of arrivals, with all their spikes in it."""

        def sweep(state):
            return lax.fori_loop(first, first + self.block_size, self.step, state)

        def fire_and_go_on(carry):
            state, log = self._fire(*carry)
            return sweep(state), log

        def any_fires(carry):
            return jnp.any(jnp.isfinite(carry[0].at))

        return lax.while_loop(any_fires, fire_and_go_on, (sweep(state), log))

    def _crossing(self, state, end, fires):
        """Time of the spike and j at it, for lanes that cross before `end`."""
        at = jnp.where(fires, state.at, 0.0)
        wait = self.neuron.solve(self.lanes, state.v, state.j, jnp.maximum(end - at, 0.0), fires)
        wait = jnp.where(state.v >= self.lanes.threshold, 0.0, wait)
        return at + wait, state.j * self.neuron.decay(self.lanes, wait)[1]

    def _fire(self, state, log):
        """One spike of every lane that is about to fire; the lane then goes on to its interval's end if it can."""
        fires = jnp.isfinite(state.at)
        end = self.intervals.start + self.intervals.duration
        number = jnp.maximum(state.done, 0)
        if self.minor_neurons:
            end = jnp.take_along_axis(end.T, number, axis=1, mode="promise_in_bounds")
        else:
            end = jnp.take_along_axis(end, number, axis=0, mode="promise_in_bounds")
        time, j = self._crossing(state, end, fires)
        slot = lax.broadcasted_iota(jnp.int32, log.time.shape, 0)
        here = fires & (slot == log.count)
        log = _Log(
            time=jnp.where(here, time, log.time),
            slope=jnp.where(here, self.neuron.slope(self.lanes, j), log.slope),
            count=log.count + fires,
        )
        finished = log.count >= self.spec.counted
        em, es, k = self.neuron.decay(self.lanes, jnp.maximum(end - time, 0.0))
        v = self.lanes.v_reset + jnp.zeros_like(state.v)
        v_end, j_end = v * em + j * k, j * es
        again = fires & ~finished & self.neuron.crosses(self.lanes, v, j, v_end, j_end)
        flows = fires & ~again
        state = _State(
            v=jnp.where(flows, v_end, jnp.where(again, v, state.v)),
            j=jnp.where(flows, j_end, jnp.where(again, j, state.j)),
            at=jnp.where(again, time, jnp.inf),
            done=jnp.where(fires & finished, self.intervals.row.shape[0], state.done),
        )
        return state, log
