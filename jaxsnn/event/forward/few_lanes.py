"""Lanes that fire in a block, picked out of many: see `layer`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.event.forward.layer import NumberOfLanes, OfLanes, Position, WhichLanes
from jaxsnn.event.forward.layer_scan import (
    InBlock,
    Intervals,
    LaneLog,
    LaneState,
    LayerScan,
    goes_on,
)
from jaxsnn.network.array_types import Array, Bool, Float, Int
from jaxsnn.network.sorting import places_in

#: The part of all lanes that are solved for together.
_AT_ONCE = 1 / 16


class PickingScan(LayerScan):
    """A scan in whose blocks few lanes fire: these alone are solved for and swept again, some at a
    time.
    """

    def _block(self, first: Position, state: LaneState, log: LaneLog) -> InBlock:
        """All lanes through one block of arrivals, with all their spikes in it."""

        def some_fire(carry: InBlock) -> InBlock:
            few = _FewLanes(self, jnp.isfinite(carry.state.at), first)
            return few.through(carry.state, carry.log)

        swept = InBlock(state=self._sweep(first, state), log=log)
        return lax.while_loop(goes_on, some_fire, swept)


class _FewLanes(LayerScan):
    """Some lanes of a scan that are about to fire, through one block of its arrivals: arrays (1,
    few), as if each lane were a sample with one neuron.
    """

    def __init__(self, whole: LayerScan, fires: WhichLanes, first: Position) -> None:
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
        self.intervals = Intervals(edge=cut(edge, 1), duration=cut(duration), row=cut(rows))
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

    def through(self, state: LaneState, log: LaneLog) -> InBlock:
        """All lanes of the whole scan, behind the spikes and the flow of these in the block."""
        own = jax.tree.map(self._taken, state)
        own = own._replace(at=jnp.where(self.used, own.at, jnp.inf))
        own_log = log._replace(count=self._taken(log.count))
        moved, written = self.fires_until_none_does(self.first, InBlock(own, own_log))

        def put(old: Array, new: Float[Array, "1 few"]) -> Array:
            return old.at[self.row, self.column].set(new[0], mode="drop")

        written = written._replace(count=put(log.count, written.count))
        return InBlock(state=jax.tree.map(put, state, moved), log=written)

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
