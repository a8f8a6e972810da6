"""Gradients with respect to the arrivals at a population, in one pass over its arrivals from the last
to the first.

An arrival needs the costate just after it (see `layer_adjoint`). Between two arrivals this costate
flows back in time. If a neuron fires between them, its costate just before its first spike in the
interval is flowed back to the arrival instead. So the pass carries the costates of all neurons, and
replaces those of the few neurons that fire in the interval. Its cost grows with arrivals times
neurons, and does not depend on the number of spikes. `arrival_tiles`, which supports all neuron
models, takes eight times as long for 784-350-10 with 784 events, and is faster for few arrivals.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.event.adjoint.costate_rules import Backward, Costate, Slots, dot
from jaxsnn.event.adjoint.required_gradients import RequiredGradients
from jaxsnn.event.dynamics.neuron_model import Neuron, specialise
from jaxsnn.event.event_arrays import (
    NeuronConstants,
    OfNeurons,
    OfSamples,
    Rows,
    Times,
    Weights,
)
from jaxsnn.event.forward.layer import LayerSpec, broadcast_constants
from jaxsnn.network.array_types import Array, Bool, Float, Int
from jaxsnn.network.lookups import gather_along, of_columns, transpose
from jaxsnn.network.meshes import match_device_axes
from jaxsnn.network.reductions import over_last
from jaxsnn.network.sorting import fullest, places_in, places_in_columns, sorted_columns

_AT_ONCE = 32  # neurons that are taken up in one step

#: Spikes of all neurons of all samples in one list.
OfList = Float[Array, "list"]
NumberOfList = Int[Array, "list"]


class ByArrivals(NamedTuple):
    """Gradients of a population through its arrivals."""

    weight: Weights
    fields: dict[str, OfNeurons]  # of the flow; empty if not required
    time: Times | None  # of the arrivals; None if not required


class _Arrivals(NamedTuple):
    """Arrivals in the order of time, (arrivals, batch)."""

    time: Float[Array, "arrivals batch"]
    row: Int[Array, "arrivals batch"]  # the row after the last where unused
    position: Int[Array, "arrivals batch"] | None  # original slot of each; None: already sorted


class _TakenUp(NamedTuple):
    """Neurons that fire, in the order of the arrivals after which they fire."""

    element: NumberOfList  # sample * neurons + neuron
    costate: Any  # just after that arrival: a Costate of arrays (list,)
    begin: Int[Array, "arrivals_and_one"]  # start of each arrival's part of the list


class _Carry(NamedTuple):
    """Carry of the pass, at one arrival."""

    costate: Costate
    weight: Weights
    fields: dict[str, OfNeurons]
    time: Float[Array, "arrivals batch"] | None  # None if not required


def arrivals_back(
    spec: LayerSpec,
    weight: Weights,
    constants: NeuronConstants,
    arrivals: tuple[Times, Rows],
    times: Slots,
    before: Costate,
    needs_grad: RequiredGradients,
) -> ByArrivals:
    """Compute the gradients with respect to weights, to the fields of the flow through arrivals,
    and to arrival times.

    Args:
        weight: (rows, neurons).
        constants: (neurons,) or (positions, neurons).
        arrivals: times and rows, see `layer_adjoint.layer_spikes`.
        times: spike times, seconds; inf in unused slots.
        before: costates just before each spike, (spikes, batch, neurons).
        needs_grad: gradients that are required besides the gradient with respect to the weights.
    """
    time, row = arrivals
    batch, neurons = times.shape[1:]
    ordered, wide = _in_order(spec, time, row, len(weight)), broadcast_constants(constants, batch)
    taken_up = _taken_up(spec, wide, ordered, times, before)

    def walked(models: list[Neuron]) -> ByArrivals:
        specialised = replace(spec, neuron=models[0])
        return _Walk(specialised, weight, constants, ordered, taken_up, needs_grad).run(
            batch, neurons
        )

    end = specialise([spec.neuron], [constants], walked)
    by_time = None if end.time is None else end.time.T
    if ordered.position is not None and by_time is not None:
        samples = jnp.arange(time.shape[0])[:, None]
        by_time = jnp.zeros_like(by_time).at[samples, ordered.position.T].set(by_time)
    return ByArrivals(weight=end.weight, fields=end.fields, time=by_time)


def _in_order(spec: LayerSpec, time: Times, row: Rows, rows: int) -> _Arrivals:
    row = jnp.broadcast_to(row, time.shape)
    if spec.in_order:
        columns, position, row = transpose(time), None, row.T
    else:
        columns, position = sorted_columns(time)
        row = gather_along(row.T, position, 0)
    return _Arrivals(
        time=columns, row=jnp.where(jnp.isfinite(columns), row, rows), position=position
    )


def _taken_up(
    spec: LayerSpec, constants: NeuronConstants, arrivals: _Arrivals, times: Slots, before: Costate
) -> _TakenUp:
    """Return the arrivals after which neurons join the pass, and their costates."""
    if not spec.neuron.certain:
        spec = replace(spec, neuron=spec.neuron.generic())
    count, neurons_of_all = len(arrivals.time), math.prod(times.shape[1:])
    number = places_in_columns(arrivals.time, times) - 1  # -1 before the first arrival
    # If a neuron fires several times after an arrival, the first spike counts.
    first = jnp.concatenate([jnp.ones_like(number[:1], bool), number[1:] != number[:-1]])
    counts = jnp.isfinite(times) & (number >= 0) & first
    at = of_columns(arrivals.time, jnp.maximum(number, 0))
    gap = jnp.where(counts, times - at, 0.0)
    costate = Backward(spec, constants, by_fields=bool(before.by)).flow_back(before, gap)
    key, order = _sorted(jnp.where(counts, number, count).reshape(-1), count)
    begin = places_in(key, jnp.arange(count + 1, dtype=key.dtype))
    return _TakenUp(
        element=lax.rem(order, jnp.full_like(order, neurons_of_all)),
        costate=jax.tree.map(lambda array: gather_along(array.reshape(-1), order, 0), costate),
        begin=begin,
    )


def _sorted(key: NumberOfList, most: int) -> tuple[NumberOfList, NumberOfList]:
    """Return integers up to `most` in rising order, and their original positions."""
    with jax.enable_x64(True):
        # sort one operand, which is faster than two
        integer = jnp.int32 if (most + 1) * key.size < 2**31 else jnp.int64
        packed = key.astype(integer) * key.size + lax.iota(integer, key.size)
        packed = lax.sort(packed, is_stable=False)
        size = jnp.full_like(packed, key.size)
        return lax.div(packed, size).astype(jnp.int32), lax.rem(packed, size).astype(jnp.int32)


class _Walk:
    """Pass over the arrivals, with arrays of shape (batch, neurons)."""

    def __init__(
        self,
        spec: LayerSpec,
        weight: Weights,
        constants: NeuronConstants,
        arrivals: _Arrivals,
        taken_up: _TakenUp,
        needs_grad: RequiredGradients,
    ) -> None:
        self.arrivals, self.taken_up, self.required = arrivals, taken_up, needs_grad
        self.weight = jnp.pad(weight, ((0, 1), (0, 0)))  # a last row of zeros for unused slots
        constants = broadcast_constants(constants, arrivals.time.shape[1])
        self.rules = Backward(spec, constants, needs_grad.constants)
        self.flow = self.rules
        if spec.neuron.uniform:  # the flow of one neuron is valid for all
            first_neuron = jax.tree.map(lambda array: array[:1, :1], constants)
            self.flow = Backward(spec, first_neuron, needs_grad.constants)

    def run(self, batch: int, neurons: int) -> ByArrivals:
        """Compute the gradients, those of arrivals in the order of time: (arrivals, batch)."""
        costate = self.rules.start((batch, neurons), self.weight.dtype).costate
        start = _Carry(
            costate=costate,
            weight=jnp.zeros_like(self.weight),
            fields=dict.fromkeys(costate.by, costate.p[0]),
            time=jnp.zeros_like(self.arrivals.time) if self.required.time else None,
        )
        start = match_device_axes(
            start, self.weight, self.arrivals, self.taken_up, self.rules.constants
        )
        # Start at the last arrival of the fullest list: later slots are unused.
        count = fullest(self.arrivals.time)
        end = lax.fori_loop(0, count, lambda n, carry: self._step(count - 1 - n, carry), start)
        return ByArrivals(weight=end.weight[:-1], fields=end.fields, time=end.time)

    def _step(self, number: Int[Array, ""], carry: _Carry) -> _Carry:
        """Go back to just after an arrival, and add its contributions to the gradients."""
        flowed = self.flow.flow_back(carry.costate, self._duration(number)[:, None])
        costate = self._take_up(number, flowed)
        row = self.arrivals.row[number]
        weights = self.weight.at[row].get(mode="promise_in_bounds")
        unit, moved = self.rules.arrived()
        # An arrival of weight W adds W e to the state. If it is later by dt, W A e dt is missing.
        time = carry.time
        if time is not None:
            by_time = -over_last(weights * dot(moved, costate.p))
            time = lax.dynamic_update_index_in_dim(time, by_time, number, 0)
        fields = {
            name: carry.fields[name] + weights * dot(unit, by) for name, by in costate.by.items()
        }
        return _Carry(
            costate=costate,
            weight=carry.weight.at[row].add(dot(unit, costate.p), mode="promise_in_bounds"),
            fields=fields,
            time=time,
        )

    def _duration(self, number: Int[Array, ""]) -> OfSamples:
        """Return the time from an arrival to the next; 0 for the last one, after which there is no
        flow to undo.
        """
        time = self.arrivals.time
        after = time[jnp.minimum(number + 1, len(time) - 1)]
        return jnp.where(jnp.isfinite(after), after - time[number], 0.0)

    def _take_up(self, number: Int[Array, ""], costate: Costate) -> Costate:
        """Return the costates after an arrival, with those of the neurons that fire after it."""
        begin, end = self.taken_up.begin[number], self.taken_up.begin[number + 1]
        shape = costate.p[0].shape
        room = self.taken_up.element.size
        few = min(_AT_ONCE, room)

        def unfinished(carry: tuple[Int[Array, ""], Costate]) -> Bool[Array, ""]:
            return carry[0] < end

        def some(carry: tuple[Int[Array, ""], Costate]) -> tuple[Int[Array, ""], Costate]:
            at, costate = carry
            first = jnp.minimum(at, room - few)

            def cut(array: OfList) -> Float[Array, "few"]:
                return lax.dynamic_slice_in_dim(array, first, few)

            numbers = first + jnp.arange(few)
            here = (numbers >= at) & (numbers < end)
            element = jnp.where(here, cut(self.taken_up.element), shape[0] * shape[1])

            def put(old: OfNeurons, new: OfList) -> OfNeurons:
                return old.reshape(-1).at[element].set(cut(new), mode="drop").reshape(shape)

            return at + few, jax.tree.map(put, costate, self.taken_up.costate)

        return lax.while_loop(unfinished, some, match_device_axes((begin, costate), costate))[1]
