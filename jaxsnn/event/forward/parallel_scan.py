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
from jaxsnn.network.array_types import Array, Float, Int
from jaxsnn.network.lookups import at_places

#: A layer's arrivals are so many blocks or one more,
_BLOCKS = 16
#: of at least so many arrivals.
_LEAST_BLOCK = 64

#: A quantity of all lanes behind each arrival of a block.
OfBlock = Float[Array, "arrivals a b"]


def covers(spec: LayerSpec) -> bool:
    """Whether a population can be simulated by a `ParallelScan`."""
    neuron = spec.neuron
    # Open boxes add up in pairs of numbers. Where arrivals move V itself, whether it comes to the
    # threshold exactly hangs on the order in which they are added up, and frameworks add them up one
    # after the other. In a refractory time V does not flow: of NIR's neurons nothing else heeds V.
    flows = isinstance(neuron, TwoVariables) or not spec.refractory
    return neuron.level is None and not neuron.jumps and flows


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
        return self.by_facts(lambda scan: LayerScan.first_spikes(scan, shape, first))

    def all_spikes(self, shape: tuple[int, int], first: Position) -> LaneLog:
        """See `LayerScan`."""
        return self.by_facts(lambda scan: LayerScan.all_spikes(scan, shape, first))

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
        last = first + self.block_size - 1
        waits, number = jnp.isinf(state.at), self._numbers(first)
        if state.done is not None:
            crossing &= number > state.done
            waits &= state.done < last
        found = jnp.min(jnp.where(crossing, number, last + 1), axis=0)
        stops = waits & (found <= last)
        place = jnp.minimum(found - first, self.block_size - 1)
        at = self._of_number(self.intervals.edge, found)
        x = select(stops, tuple(_taken(part, place) for part in behind), tuple(p[-1] for p in end))
        return state._replace(
            x=select(waits, x, state.x),
            at=jnp.where(stops, at, state.at),
            done=of_active(waits, jnp.minimum(found, last), state.done),
        )


def _sum(state: State, other: State) -> State:
    return tuple(a + b for a, b in zip(state, other, strict=True))


def _taken(array: OfBlock, place: NumberOfLanes) -> OfLanes:
    """Entries of a block at a place of each lane."""
    return at_places(array, place[None], axis=0)[0]
