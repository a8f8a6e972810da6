"""Spikes of a feed-forward population: see `layer`."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from jaxsnn.event.dynamics.neuron_model import Neuron
from jaxsnn.event.event_arrays import NeuronConstants, Rows, Seconds, Times, Weights
from jaxsnn.event.forward.few_neurons import PickingScan
from jaxsnn.event.forward.layer import Causes, LayerSpec, LayerSpikes
from jaxsnn.event.forward.layer_scan import Intervals, LayerScan, SpikeLog
from jaxsnn.network.array_types import Array, Bool, Float, Int
from jaxsnn.network.lookups import gather_along
from jaxsnn.network.reductions import any_in
from jaxsnn.network.sorting import sorted_columns

_BLOCK = 8  # arrivals between two solves
#: Arrivals of a block if there are many arrivals and neurons. Few arrivals make a neuron fire then,
#: and only the neurons that fire are selected and solved for.
_LONG_BLOCK = 16
#: Minimum number of arrivals for long blocks.
_MANY_ARRIVALS = 8 * _BLOCK
#: Minimum number of neurons (batch times neurons) for long blocks.
_MANY_NEURONS = 512
_ONCE_BLOCK = 16  # arrivals between two checks whether any neuron has yet to fire


def _intervals(
    time: Float[Array, "arrivals batch"],
    row: Int[Array, "arrivals batch"],
    t_end: Seconds,
    rows: int,
    block: int,
) -> Intervals:
    """Return the intervals of sorted arrivals. Interval 0 lies before the first.

    There, in unused slots and from t_end on the row is `rows`, whose weights are 0.
    """
    row = jnp.where(time < t_end, row, rows)
    # Append a whole block, which may begin at the last arrival, and prepend interval 0.
    row = jnp.pad(row, ((1, block), (0, 0)), constant_values=rows)
    edges = jnp.pad(time, ((1, block + 1), (0, 0)), constant_values=jnp.inf)
    # Intervals after t_end have length 0, so that the state does not change there.
    edges = jnp.minimum(edges, t_end)
    number = lax.broadcasted_iota(jnp.int32, edges.shape, 0)
    edges = jnp.where(number == 0, 0.0, edges)
    return Intervals(edge=edges, duration=edges[1:] - edges[:-1], row=row)


def _moves(neuron: Neuron, constants: NeuronConstants) -> Bool[Array, ""]:
    """Return whether anything can happen before the first arrival: some neuron is not at rest."""
    begin = neuron.begin(constants)
    below = neuron.excess(constants, begin) < 0
    # "not below" instead of "above", so that NaN counts as not at rest
    return any_in(*(part != 0 for part in begin), ~below)


def simulate_layer(
    spec: LayerSpec,
    weight: Weights,
    constants: NeuronConstants,
    time: Times,
    row: Rows,
    t_end: Seconds,
) -> tuple[LayerSpikes, Causes | None]:
    """Simulate one population and return its spikes. No gradient passes through:
    `layer_adjoint.layer_spikes` is the differentiable version.

    Args:
        weight, constants, time, row, t_end: see `layer_adjoint.layer_spikes`.

    Simultaneous arrivals act together. If several of them cause a spike, its recorded cause is the
    one with which V crosses the threshold, in the order of the slots.
    """

    row = row[None] if row.ndim == 1 else row
    # From here on arrays have the axes (arrivals, batch), arrivals in order of time.
    if spec.in_order:
        columns, position, row = time.T, None, row.T
    else:
        columns, position = sorted_columns(time)
        row = row[0][position] if row.shape[0] == 1 else gather_along(row.T, position, 0)
    batch, neurons = time.shape[0], weight.shape[1]
    shape = (batch, neurons)
    kind, block = _scan_of(spec, batch, neurons, time.shape[1])
    intervals = _intervals(columns, row, t_end, weight.shape[0], block)
    scan = kind(spec, weight, constants, intervals, t_end, block)
    # If all neurons are at rest, nothing happens before the first arrival: skip interval 0.
    first = _moves(spec.neuron, constants).astype(jnp.int32) ^ 1
    if spec.once:
        log = scan.first_spikes(shape, first)
    else:
        log = scan.all_spikes(shape, first)
    return _spikes_of(log, position)


def _scan_of(
    spec: LayerSpec, batch: int, neurons: int, arrivals: int
) -> tuple[type[LayerScan], int]:
    """Return the type of scan for a population's arrivals, and its block size."""
    if spec.once:
        return LayerScan, min(arrivals + 1, _ONCE_BLOCK)
    # a symbolic batch size (`jax.export`) may be small
    many = isinstance(batch, int) and batch * neurons >= _MANY_NEURONS
    if many and arrivals >= _MANY_ARRIVALS:
        return PickingScan, _LONG_BLOCK
    return LayerScan, min(arrivals + 1, _BLOCK)


def _spikes_of(
    log: SpikeLog, position: Int[Array, "arrivals batch"] | None
) -> tuple[LayerSpikes, Causes | None]:
    """Return the spikes of a log (spikes, batch, neurons), spike slots last, causes by original
    slot.
    """

    def last_axis(array: Array) -> Array:
        return jnp.moveaxis(array, 0, -1)

    spikes = LayerSpikes(time=last_axis(log.time), slope=last_axis(log.slope), count=log.count)
    if log.causes is None:
        return spikes, None
    causes = Causes(*map(last_axis, log.causes))
    # The log numbers arrivals in order of time, from 1; gradients need the original slots.
    slot = jnp.maximum(causes.cause - 1, 0)
    if position is not None:
        slot = gather_along(position.T[:, None, :], slot, axis=2)
    return spikes, causes._replace(cause=jnp.where(causes.cause > 0, slot, -1))
