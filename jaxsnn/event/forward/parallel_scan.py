"""One population's arrivals, all of a block at once: see `layer`.

Between two arrivals the state flows linearly, so that the states behind all arrivals of a block are
an associative scan: its depth grows with the logarithm of the block. A lane that fires goes on from
its reset state; what that differs by from what the scan has found flows on linearly too, and is
added to the states behind the later arrivals. So a block takes as many steps as its busiest lane
fires in it, however many arrivals it has.

A processor with a core or two is faster with one arrival after the other. One with thousands waits
at every step, and works through all arrivals of a block in the time of one ("Bullet Trains", arXiv
2603.13283, restarts scans behind hard resets likewise).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.event.dynamics.two_variables import TwoVariables
from jaxsnn.event.event_arrays import State
from jaxsnn.event.forward.layer import (
    LayerSpec,
    NumberOfLanes,
    OfLanes,
    Position,
    comes_up,
)
from jaxsnn.event.forward.layer_scan import (
    InBlock,
    LaneLog,
    LaneState,
    LayerScan,
    any_fires,
    of_active,
    select,
)
from jaxsnn.network.array_types import Array, Bool, Float, Int
from jaxsnn.network.sorting import at_places

#: A layer's arrivals are at most so many blocks,
_BLOCKS = 16
#: of at least so many arrivals.
_LEAST_BLOCK = 64

#: A quantity of all lanes behind each arrival of a block.
OfBlock = Float[Array, "arrivals a b"]


def covers(spec: LayerSpec) -> bool:
    """Whether a population can be simulated by a `ParallelScan`."""
    neuron = spec.neuron
    # Open boxes add up in pairs of numbers. In a refractory time V does not flow: what else there is
    # flows without it, and nothing comes of it where arrivals move V.
    holds = isinstance(neuron, TwoVariables) and not neuron.jumps
    return neuron.level is None and (holds or not spec.refractory)


def block_size(arrivals: int) -> int:
    """How many arrivals a block has, of a number of them."""
    return max(_LEAST_BLOCK, -(-arrivals // _BLOCKS))


class _Course(NamedTuple):
    """Carry of the loop over the spikes of one block."""

    state: LaneState
    log: LaneLog
    behind: State  # the states behind all arrivals, if the lanes do not fire any more: `OfBlock`


class ParallelScan(LayerScan):
    """A scan that takes all arrivals of a block at once."""

    def first_spikes(self, shape: tuple[int, int], first: Position) -> LaneLog:
        """See `LayerScan`."""
        return self.by_facts(lambda scan: super().first_spikes(shape, first))

    def all_spikes(self, shape: tuple[int, int], first: Position) -> LaneLog:
        """See `LayerScan`."""
        return self.by_facts(lambda scan: super().all_spikes(shape, first))

    def _block(self, first: Position, state: LaneState, log: LaneLog) -> InBlock:
        """All lanes through one block of arrivals, with all their spikes in it."""

        def fire(carry: _Course) -> _Course:
            state, log = self._fire(carry.state, carry.log)
            return go_on(state, log, carry.behind)

        def go_on(state: LaneState, log: LaneLog, behind: State) -> _Course:
            state = self._released(first, state, behind)
            behind = self._gone_on(first, state, behind)
            return _Course(state=self._stopped(first, state, behind), log=log, behind=behind)

        start = go_on(state, log, self._flown(first, state))
        end = lax.while_loop(lambda carry: any_fires(carry.state), fire, start)
        return InBlock(state=end.state, log=end.log)

    def _sweep(self, first: Position, state: LaneState) -> LaneState:
        """All arrivals of a block, for the lanes that have yet to fire."""
        return self._stopped(first, state, self._flown(first, state))

    # ---- the arrivals of a block

    def _cut(self, array: Array, first: Position) -> Array:
        """Entries of (intervals, batch) in a block, made to broadcast against its lanes."""
        block = lax.dynamic_slice_in_dim(array, first, self.block_size)
        return jax.vmap(self.sample)(block)

    def _numbers(self, first: Position) -> Int[Array, "arrivals 1 1"]:
        return first + jnp.arange(self.block_size, dtype=jnp.int32)[:, None, None]

    def _block_weights(self, first: Position) -> OfBlock:
        """What the arrivals of a block weigh."""
        return jax.vmap(self._weights)(first + jnp.arange(self.block_size, dtype=jnp.int32))

    def _flow(self, time: OfBlock, state: State) -> State:
        """The state after a time."""
        lanes = self.one if self.neuron.uniform else self.lanes
        return self.neuron.flow(self.neuron.decay(lanes, time), state)

    def _flown(self, first: Position, state: LaneState) -> State:
        """The states behind all arrivals of a block, if no lane fires."""
        edge = self._cut(self.intervals.edge, first)
        weights = self._block_weights(first)
        moved = self.neuron.arrive((jnp.zeros_like(weights),) * len(state.x), weights)

        def joined(
            early: tuple[OfBlock, State], late: tuple[OfBlock, State]
        ) -> tuple[OfBlock, State]:
            flown = self._flow(late[0], early[1])
            return early[0] + late[0], _sum(flown, late[1])

        gaps = jnp.diff(edge, axis=0, prepend=edge[:1])
        _, moved = lax.associative_scan(joined, (gaps, moved))
        return _sum(moved, self._flow(edge - edge[:1], state.x))

    def _released(self, first: Position, state: LaneState, behind: State) -> LaneState:
        """The lanes, those whose V is held at the end of the interval in which it is let go, or of
        the block.
        """
        if state.free is None:
            return state
        assert state.done is not None
        begins = self._of_number(self.intervals.edge, state.done + 1)
        inside = state.done < first + self.block_size - 1
        held = jnp.isinf(state.at) & inside & (begins < state.free.high)
        came = self._cut(self.intervals.edge, first) < state.free.high
        number = first + jnp.maximum(jnp.sum(came, axis=0, dtype=jnp.int32) - 1, 0)
        interval = self._let_go(
            tuple(_taken(part, number - first) for part in behind),
            self._of_number(self.intervals.edge, number),
            self._of_number(self.intervals.duration, number),
            state.free,
        )
        fires = held & self.neuron.crosses(self.lanes, interval.x, interval.end, interval.duration)
        return state._replace(
            x=select(fires, interval.x, select(held, interval.end, state.x)),
            at=jnp.where(fires, interval.start.high, state.at),
            at_low=of_active(fires, interval.start.low, state.at_low),
            done=jnp.where(held, number, state.done),
        )

    def _gone_on(self, first: Position, state: LaneState, behind: State) -> State:
        """The states behind all arrivals, where some lanes have fired and stand at the end of the
        interval in which they did.
        """
        assert state.done is not None
        # Others stand at the end of the block, or are about to fire again.
        gone_on = jnp.isinf(state.at) & (state.done >= first)
        place = jnp.clip(state.done - first, 0, self.block_size - 1)
        duration = self._of_number(self.intervals.duration, state.done)
        was = self._flow(duration, tuple(_taken(part, place) for part in behind))
        change = tuple(
            jnp.where(gone_on, now - old, 0.0) for now, old in zip(state.x, was, strict=True)
        )
        start = self._of_number(self.intervals.edge, state.done + 1)
        passed = jnp.maximum(self._cut(self.intervals.edge, first) - start, 0.0)
        later = self._numbers(first) > state.done
        change = self._flow(passed, change)
        return _sum(behind, tuple(jnp.where(later, part, 0.0) for part in change))

    # ---- where lanes stop

    def _stopped(self, first: Position, state: LaneState, behind: State) -> LaneState:
        """Lanes before the first interval in which they fire, the others at the block's end."""
        duration = self._cut(self.intervals.duration, first)
        end = self._flow(duration, behind)
        crossing = self.neuron.crosses(self.lanes, behind, end, duration)
        if self.neuron.jumps:
            # V has all that arrives at one time only where the next thing comes later.
            crossing &= duration > 0
        last = first + self.block_size - 1
        waits = jnp.isinf(state.at)
        if state.done is not None:
            crossing &= self._numbers(first) > state.done
            waits &= state.done < last
        number = self._numbers(first)
        found = jnp.min(jnp.where(crossing, number, last + 1), axis=0)
        stops = waits & (found <= last)
        place = jnp.minimum(found - first, self.block_size - 1)
        at = self._of_number(self.intervals.edge, found)
        x = select(stops, tuple(_taken(part, place) for part in behind), tuple(p[-1] for p in end))
        rise, cause = self._moved(first, state, place, behind, end)
        done = (
            None if state.done is None else jnp.where(waits, jnp.minimum(found, last), state.done)
        )
        return state._replace(
            x=select(waits, x, state.x),
            at=jnp.where(stops, at, state.at),
            done=done,
            rise=of_active(waits, rise, state.rise),
            cause=of_active(waits, cause, state.cause),
        )

    def _moved(
        self, first: Position, state: LaneState, place: NumberOfLanes, behind: State, end: State
    ) -> tuple[OfLanes | None, NumberOfLanes | None]:
        """By how much V was moved at the time of an arrival, and by which it came to where the
        neuron fires; None where nobody asks.

        Args:
            place: of the arrival in the block.
        """
        if state.cause is None:
            return None, None
        number, at = self._numbers(first), first + place
        done = jnp.int32(-1) if state.done is None else state.done
        seen = (number > done) & (number <= at)
        # Behind the last arrival that a lane has behind it, it is where it stands.
        before = tuple(jnp.concatenate([part[:1], part[:-1]]) for part in end)
        here = number == jnp.maximum(done + 1, first)
        before = tuple(jnp.where(here, x, part) for x, part in zip(state.x, before, strict=True))
        newly, stays = comes_up(self.neuron, self.lanes, before, behind)
        came = _last(seen & newly, number)
        left = _last(seen & ~stays & ~newly, number)
        cause = jnp.where(came > left, came, jnp.where(left >= 0, 0, state.cause))
        if state.rise is None:
            return None, cause
        # What comes at one time adds up: no time lies between.
        edge = self._cut(self.intervals.edge, first)
        together = seen & (edge == self._of_number(self.intervals.edge, at))
        rise = jnp.sum(jnp.where(together, self._block_weights(first), 0.0), axis=0)
        begins = jnp.maximum(done + 1, first)
        goes_back = self._of_number(self.intervals.edge, jnp.maximum(begins - 1, 0))
        same = goes_back == self._of_number(self.intervals.edge, at)
        return jnp.where(same & (at > 0), state.rise, 0.0) + rise, cause


def _sum(state: State, other: State) -> State:
    return tuple(a + b for a, b in zip(state, other, strict=True))


def _taken(array: OfBlock, place: NumberOfLanes) -> OfLanes:
    """Entries of a block at a place of each lane."""
    return at_places(array, place[None], axis=0)[0]


def _last(which: Bool[Array, "arrivals a b"], number: Int[Array, "arrivals 1 1"]) -> NumberOfLanes:
    """The last number at which something holds, -1 where it never does."""
    return jnp.max(jnp.where(which, number, -1), axis=0)
