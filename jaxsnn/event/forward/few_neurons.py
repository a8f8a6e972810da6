"""Scan that solves only for the neurons that fire in a block, selected out of many: see
`layer_scan`.

Forward and backward of 784-350-10 with 784 events (batch 128) take twice as long if all neurons are
solved for instead.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.event.event_arrays import IntOfNeurons, OfNeurons, WhichNeurons
from jaxsnn.event.forward.layer import Position
from jaxsnn.event.forward.layer_scan import (
    InBlock,
    Intervals,
    LayerScan,
    ScanState,
    SpikeLog,
    goes_on,
)
from jaxsnn.network.array_types import Array, Bool, Float, Int
from jaxsnn.network.lookups import entries_at
from jaxsnn.network.sorting import places_in

#: Maximum fraction of all neurons for which equations are solved together.
_AT_ONCE = 1 / 16
#: Maximum number of runs of neurons that are counted by a product with a triangular matrix.
_FEW_RUNS = 512


class PickingScan(LayerScan):
    """Scan for blocks in which few neurons fire: only these are solved for and swept again, some at
    a time.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        durations = self.intervals.duration, *(self.decays if self.neuron.uniform else ())
        padded = (jnp.pad(array, ((0, 1), (0, 0))) for array in durations)
        #: (edges, batch, quantities): beginning, length and decays of each interval
        self.flows = jnp.stack([self.intervals.edge, *padded], axis=-1)

    def _block(self, first: Position, state: ScanState, log: SpikeLog) -> InBlock:
        """Simulate all neurons through one block of arrivals, with all their spikes."""

        def some_fire(carry: InBlock) -> InBlock:
            few = _FewNeurons(self, jnp.isfinite(carry.state.at), first)
            return few.through(carry.state, carry.log)

        swept = InBlock(state=self._sweep(first, state), log=log)
        return lax.while_loop(goes_on, some_fire, swept)


class _FewNeurons(LayerScan):
    """Scan of some neurons that are about to fire, through one block of arrivals: arrays (few, 1),
    as if each neuron were a sample with one neuron.
    """

    def __init__(self, scan: PickingScan, fires: WhichNeurons, first: Position) -> None:
        self.spec, self.neuron, self.t_end = scan.spec, scan.neuron, scan.t_end
        self.assumption_holds = scan.assumption_holds
        self.block_size, self.last = scan.block_size, scan.last
        self.first = first
        few = max(int(fires.size * _AT_ONCE), 32)
        # Without the barrier XLA would repeat the search wherever its result is used.
        #: flat index of each neuron, sample * neurons + neuron; the total number in unused entries
        self.number = lax.optimization_barrier(_numbers_of_first(fires.reshape(-1), few))
        self.of_all, self.used = fires.size, (self.number < fires.size)[:, None]
        self.element = jnp.minimum(self.number, fires.size - 1)
        columns = jnp.full_like(self.element, fires.shape[1])
        self.row, self.column = lax.div(self.element, columns), lax.rem(self.element, columns)
        # the intervals of the block and the one before it; edges are one more than intervals
        self.offset = jnp.maximum(first - 1, 0)
        numbers = self.offset + jnp.arange(self.block_size + 2, dtype=jnp.int32)
        place = numbers[:, None], self.row[None]
        edge, duration, *decays = jnp.moveaxis(entries_at(scan.flows, *place), -1, 0)
        rows = entries_at(scan.intervals.row, place[0][:-1], place[1])
        self.intervals = Intervals(edge=edge, duration=duration[:-1], row=rows)
        self.weight = scan.weight
        #: (intervals, few): the weights that arrive at the beginning of each interval
        self.gathered = entries_at(scan.weight, self.intervals.row, self.column)
        self.constants = jax.tree.map(self._selected, scan.constants)
        if self.neuron.uniform:
            self.decays = tuple(decays)
        if self.neuron.level is not None:
            self.least = self._selected(scan.least)

    def _selected(self, array: Float[Array, "#batch #neurons"]) -> Float[Array, "few 1"]:
        """Select the entries of these neurons from an array that broadcasts to all neurons."""
        rows, columns = array.shape
        if array.size == self.of_all:
            return entries_at(array.reshape(-1), self.element)[:, None]
        row, column = jnp.minimum(self.row, rows - 1), jnp.minimum(self.column, columns - 1)
        return entries_at(array, row, column)[:, None]

    def _weights(self, number: Position) -> OfNeurons:
        """Return the weights of an arrival, see `LayerScan`."""
        return self.gathered[number - self.offset][:, None]

    def through(self, state: ScanState, log: SpikeLog) -> InBlock:
        """Return all neurons of the whole scan, after these neurons have gone through the block."""
        few_state = jax.tree.map(self._selected, state)
        few_state = few_state._replace(at=jnp.where(self.used, few_state.at, jnp.inf))
        own_log = log._replace(count=self._selected(log.count))
        moved, written = self.fires_until_none_does(self.first, InBlock(few_state, own_log))

        def put(old: Array, new: Float[Array, "few 1"]) -> Array:
            flat = old.reshape(-1).at[self.number]
            return flat.set(new[:, 0], mode="drop").reshape(old.shape)

        written = written._replace(count=put(log.count, written.count))
        return InBlock(state=jax.tree.map(put, state, moved), log=written)

    def _put(self, slot: IntOfNeurons, fires: WhichNeurons, logged: Array, new: OfNeurons) -> Array:
        """Write a slot of each of these neurons into an array of the whole scan's log."""
        # A spike beyond the last slot is counted, but not recorded.
        beyond = jnp.where(fires, slot, logged.shape[0])[:, 0]
        flat = logged.reshape(-1, self.of_all).at[beyond, self.number]
        return flat.set(new[:, 0], mode="drop").reshape(logged.shape)


def _numbers_of_first(which: Bool[Array, "neurons"], few: int) -> Int[Array, "few"]:
    """Return the indices of the first `few` neurons that are set; unused entries are the number of
    neurons.
    """
    size, run = which.size, 128
    # A cumulative sum as a product with a triangular matrix: exact in float32, and faster than
    # `jnp.cumsum`.
    runs = jnp.pad(which, (0, -size % run)).astype(jnp.float32).reshape(-1, run)
    within = runs @ jnp.triu(jnp.ones((run, run), jnp.float32))
    totals = within[:, -1]
    if len(totals) <= _FEW_RUNS:
        before = totals @ jnp.triu(jnp.ones((len(totals), len(totals)), jnp.float32), 1)
    else:
        before = jnp.cumsum(totals) - totals
    count = (within + before[:, None]).reshape(-1)[:size]
    ranks = jnp.arange(1, few + 1, dtype=jnp.float32)
    return places_in(count, ranks)
