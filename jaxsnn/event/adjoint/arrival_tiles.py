"""Gradients with respect to the arrivals at a population, computed for all pairs of an arrival and a
neuron: tiles (arrivals, neurons), in which the next spike of each neuron is searched for each arrival.

All neuron models are supported. The pass over arrivals (`arrivals_back`) is faster if there are many
arrivals.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.event.adjoint.arrivals_back import ByArrivals
from jaxsnn.event.adjoint.costate_rules import (
    Backward,
    Costate,
    Passed,
    Slots,
    dot,
    without_v_of_costate,
)
from jaxsnn.event.adjoint.required_gradients import RequiredGradients
from jaxsnn.event.event_arrays import (
    NeuronConstants,
    Rows,
    Times,
    Weights,
)
from jaxsnn.event.forward.layer import Causes, LayerSpec
from jaxsnn.network.array_types import Array, Float, Int
from jaxsnn.network.lookups import gather_along
from jaxsnn.network.meshes import match_device_axes

#: Arrays of a tile, and arrays that broadcast to a tile.
OfTile = Float[Array, "arrivals neurons"]
Broadcast = Float[Array, "#arrivals #neurons"]


class _Sample(NamedTuple):
    """Arrays of one sample; before the scan splits a batch, with a leading axis of samples."""

    arrival: Float[Array, "*batch arrivals"]
    row: Int[Array, "*batch arrivals"]
    times: Float[Array, "*batch spikes neurons"]
    cause: Int[Array, "*batch spikes neurons"] | None  # None if arrivals cause no spikes
    before: Costate  # just before each spike, (spikes, neurons)
    free: Costate | None  # when V is released; None without a refractory period
    constants: NeuronConstants


class _ByArrival(NamedTuple):
    """Contributions of each arrival through each neuron to the gradients; or sums of these."""

    weight: Any  # OfTile; None in a sum
    time: Any  # OfTile, or summed (arrivals,); None if not required
    #: OfTile, or summed (neurons,); empty if no gradient is requested
    fields: dict[str, Any]


class _Tile:
    """Arrivals of one sample against the neurons of its population.

    Args:
        needs_grad: gradients that are required besides the gradient with respect to the weights.
    """

    def __init__(self, spec: LayerSpec, needs_grad: RequiredGradients) -> None:
        self.spec = spec
        self.required = needs_grad

    @staticmethod
    def taken(
        array: Float[Array, "spikes neurons"], number: Int[Array, "arrivals neurons"]
    ) -> OfTile:
        """Return entries of a spike's array at a slot of each arrival and neuron."""
        if len(array) == 2:  # one spike, and the padding after it
            first, behind = jnp.split(array, 2)
            return jnp.where(number == 0, first, behind)
        return gather_along(array, number, axis=0)

    @staticmethod
    def next_spike(sample: _Sample) -> Int[Array, "arrivals neurons"]:
        """Return the index of each neuron's next spike after each arrival; the number of its spikes if
        there is none.
        """
        arrival = sample.arrival[:, None]
        number = jnp.zeros((len(arrival), sample.times.shape[1]), jnp.int32)
        # For many spikes a binary search is faster than a comparison with each.
        if sample.cause is None and len(sample.times) > 4:
            search = partial(jnp.searchsorted, side="right", method="scan_unrolled")
            spike_index = jax.vmap(search, in_axes=(1, None))(sample.times, sample.arrival)
            return spike_index.astype(jnp.int32).T
        for spike in range(len(sample.times)):
            time = sample.times[spike]
            behind = time <= arrival
            if sample.cause is not None:  # arrivals precede a simultaneous spike that they caused
                behind &= ~((time == arrival) & (sample.cause[spike] >= 0))
            number += behind
        return number

    def back(self, sample: _Sample, weights: OfTile) -> _ByArrival:
        """Compute the contributions of a sample's arrivals to the gradients."""
        constants = jax.tree.map(lambda field: field[None], sample.constants)
        arrival = sample.arrival[:, None]
        number = self.next_spike(sample)
        # Arrivals after the last spike have no effect: `number` is the slot that `_padded` adds.
        used = jnp.isfinite(arrival) & (number < len(sample.times))
        target = self.taken(_padded(sample.times), number)
        costate = jax.tree.map(lambda x: self.taken(_padded(x), number), sample.before)
        if sample.free is not None:
            target, costate = self._or_release(sample, arrival, number, target, costate)
        used &= jnp.isfinite(target)
        gap = jnp.where(used, target, 0.0) - jnp.where(used, arrival, 0.0)
        backward = Backward(self.spec, constants, self.required.constants)
        at_arrival = backward.flow_back(costate, jnp.maximum(gap, 0.0))
        # An arrival of weight W adds W e to the state. If it is later by dt, W A e dt is missing.
        unit, moved = backward.arrived()

        def counted(values: OfTile) -> OfTile:
            return jnp.where(used, values, 0.0)

        return _ByArrival(
            weight=counted(dot(unit, at_arrival.p)),
            time=-counted(weights * dot(moved, at_arrival.p)) if self.required.time else None,
            fields={name: counted(weights * dot(unit, x)) for name, x in at_arrival.by.items()},
        )

    def _or_release(
        self,
        sample: _Sample,
        arrival: Broadcast,
        number: Int[Array, "arrivals neurons"],
        target: OfTile,
        costate: Costate,
    ) -> tuple[OfTile, Costate]:
        """Return the target time and the costate of each arrival.

        For an arrival in a refractory period these are the end of the period and the costate at
        that time, without the entry of V.
        """
        assert sample.free is not None
        # previous spike of each neuron: the arrival may lie in its refractory period
        before = jnp.maximum(number - 1, 0)
        end = self.taken(_padded(sample.times), before) + self.spec.refractory
        held = (number > 0) & (arrival < end)
        free = jax.tree.map(lambda x: self.taken(_padded(x), before), sample.free)
        chosen = partial(jax.tree.map, partial(jnp.where, held))
        return jnp.where(held, end, target), chosen(without_v_of_costate(free), costate)


def _padded(array: Float[Array, "spikes neurons"]) -> Float[Array, "slots neurons"]:
    """Append a 0 after the values of the last spike."""
    return jnp.concatenate([array, jnp.zeros_like(array[:1])])


def tiles_back(
    spec: LayerSpec,
    weight: Weights,
    constants: NeuronConstants,
    arrivals: tuple[Times, Rows],
    times: Slots,
    causes: Causes | None,
    passed: Passed,
    needs_grad: RequiredGradients,
) -> ByArrivals:
    """Compute the gradients with respect to weights, to the fields of the flow through arrivals,
    and to arrival times.

    Args:
        weight: (rows, neurons).
        constants: broadcast to (batch, neurons).
        arrivals: times and rows, see `layer_adjoint.layer_spikes`.
        times: spike times, seconds; inf in unused slots.
        causes, passed: records of the spikes, arrays (spikes, batch, neurons).
        needs_grad: gradients that are required besides the gradient with respect to the weights.
    """
    row = arrivals[1]
    shared = row.ndim == 1  # one row pattern for all samples: gather and scatter weights once
    tile = _Tile(spec, needs_grad)
    all_weights = weight[row] if shared else None

    def sample_back(d_weight: OfTile, sample: _Sample) -> tuple[OfTile, _ByArrival]:
        weights = all_weights
        if weights is None:
            weights = weight.at[sample.row].get(mode="fill", fill_value=0.0)
        by_arrival = tile.back(sample, weights)
        if shared:
            d_weight += by_arrival.weight
        else:
            d_weight = d_weight.at[sample.row].add(by_arrival.weight, mode="drop")
        return d_weight, _summed(by_arrival)

    inputs = _samples(spec, constants, arrivals, len(weight), times, causes, passed)
    start = jnp.zeros_like(weight if all_weights is None else all_weights)
    start = match_device_axes(start, inputs, weight)
    # One sample after the other: an array (batch, arrivals, neurons) would not stay in the cache.
    d_weight, by_arrival = lax.scan(sample_back, start, inputs)
    if shared:
        d_weight = jnp.zeros_like(weight).at[row].add(d_weight)
    return ByArrivals(weight=d_weight, fields=by_arrival.fields, time=by_arrival.time)


def _samples(
    spec: LayerSpec,
    constants: NeuronConstants,
    arrivals: tuple[Times, Rows],
    rows: int,
    times: Slots,
    causes: Causes | None,
    passed: Passed,
) -> _Sample:
    """Return the samples of a batch, from arrays (spikes, batch, neurons)."""
    time, row = arrivals
    by_sample = partial(jax.tree.map, lambda array: jnp.moveaxis(array, 1, 0))
    return _Sample(
        arrival=time,
        # unused slots point beyond the table
        row=jnp.where(jnp.isfinite(time), row, rows),
        times=by_sample(times),
        cause=by_sample(causes.cause) if spec.neuron.jumps and causes is not None else None,
        before=by_sample(passed.before),
        free=by_sample(passed.free) if spec.refractory else None,
        constants=jax.tree.map(
            lambda x: jnp.broadcast_to(x, (time.shape[0], x.shape[1])), constants
        ),
    )


def _summed(by_arrival: _ByArrival) -> _ByArrival:
    """Sum the contributions of a tile to the gradients with respect to the fields of neurons (over
    arrivals) and to the times of arrivals (over neurons).
    """
    fields = {name: jnp.sum(by, axis=0) for name, by in by_arrival.fields.items()}
    by_time = None if by_arrival.time is None else jnp.sum(by_arrival.time, axis=1)
    return _ByArrival(weight=None, time=by_time, fields=fields)
