"""Exact gradients of a recurrent group's spike times, by one pass over its log from the last step
to the first.

The forward pass (`recurrent`) writes each event of each sample to a log. The backward pass (`Pass`
in `costates`) walks through it in reverse with the costates of all neurons, the derivatives of the
loss with respect to their states. Per step the costates flow back over the time to the next step,
arrivals add to the gradients of their weights and of their times, and a spike changes the costate of
its neuron by the rules of `layer_adjoint`:

    forward    --a-----s--a------s---->      a: arrival, s: spike
    log         0     1  2      3            steps
    backward   <-a-----s--a------s-----      P of all neurons flows from step to step

An arrival of weight W that moves the state by W e adds P . e to dL/dW and -P . A e W to dL/dt,
where A is the generator of the flow. For feedback, dL/dt is passed on to the spike that was
transmitted: in the same step without a delay, in an earlier step with one.

    Log, dL/dt of spikes        (steps, batch)
    costates                    (batch, neurons)    one array for each entry of the state
    gradients of weights        (rows, neurons)     like the tables of `recurrent`

This is EventProp (Wunderlich & Pehle, Scientific Reports 11, 12829, 2021) with the flow in closed
form, for feedback with and without delays. No state is stored or recomputed: derivatives with
respect to the constants of the flow are carried along as derivatives of the costates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsnn.event.adjoint.costate_rules import dot, left_by_spike, start_of
from jaxsnn.event.adjoint.costates import Pass, PopulationCostate
from jaxsnn.event.adjoint.layer_adjoint import pulled
from jaxsnn.event.adjoint.tangents import moved_by, transposed
from jaxsnn.event.dynamics.neuron_model import Neuron, specialise
from jaxsnn.event.event_arrays import (
    Feedback,
    NeuronConstants,
    OfSteps,
    OutsideArrivals,
    Rows,
    Seconds,
    Times,
    Weights,
)
from jaxsnn.event.forward.agenda import in_order
from jaxsnn.event.forward.group import (
    GroupEvents,
    GroupSpec,
    GroupSpikes,
    Layout,
    Log,
    by_population,
    layout,
    tables,
)
from jaxsnn.event.forward.layer import LayerSpec
from jaxsnn.event.forward.recurrent import simulate_group
from jaxsnn.network.array_types import Array, Float, Int
from jaxsnn.network.meshes import match_device_axes
from jaxsnn.network.promotion import usual_promotion
from jaxsnn.network.reductions import over_first

#: Gradients with respect to arrivals from outside (except rows), feedback, and the constants of
#: each population.
Gradients = tuple[
    tuple[tuple[Weights, Times], ...],
    tuple[tuple[Any, Any], ...],
    tuple[NeuronConstants, ...],
]


def group_spikes(
    spec: GroupSpec,
    arrivals: OutsideArrivals,
    feedback: Feedback,
    constants: Sequence[NeuronConstants],
    t_end: Seconds,
) -> GroupSpikes:
    """Return the spikes of a recurrent group, differentiable in weights, delays, arrival times and
    every field of `constants`.

    Args:
        arrivals: (weight, time, row) of each population, for arrivals from outside: weight
            (rows, neurons); time (batch, arrivals) in any order, seconds, inf where unused; row
            (arrivals,) or (batch, arrivals) int32.
        feedback: (weight, delay) of each edge: weight (source's neurons, target's neurons), None
            for the identity; delay in seconds, at least 0, a scalar for all neurons of the source or
            an array with an entry for each, or None for 0. If synapses have separate delays
            (`GroupSpec.fan_outs`): weight (source's neurons, lines, columns), delay (source's
            neurons, lines).
        constants: constants of each population's neurons, (neurons,).
        t_end: end of the simulation, seconds; spikes do not depend on it, so its gradient is zero.

    Weights are multiplied by the target's arrival factor. A rectangular pulse consists of two
    arrivals, or in feedback of two edges: the weight at its beginning, and the negative weight at
    its end. Only the times carry a gradient. The refractory periods are static.
    """
    return by_population(spec, _events(spec, arrivals, feedback, constants, t_end))


def group_spikes_forward(
    spec: GroupSpec,
    arrivals: OutsideArrivals,
    feedback: Feedback,
    constants: Sequence[NeuronConstants],
    t_end: Seconds,
) -> GroupSpikes:
    """Return the same spikes as `group_spikes`, differentiable in forward mode."""
    return by_population(spec, _events_forward(spec, arrivals, feedback, constants, t_end))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _events(
    spec: GroupSpec,
    arrivals: OutsideArrivals,
    feedback: Feedback,
    constants: Sequence[NeuronConstants],
    t_end: Seconds,
) -> GroupEvents:
    return simulate_group(spec, arrivals, feedback, constants, t_end)[0]


class _Residuals(NamedTuple):
    """Residuals of the backward pass: the arguments and the log."""

    arrivals: OutsideArrivals
    feedback: Feedback
    constants: Sequence[NeuronConstants]
    log: Log
    steps: Int[Array, ""]  # number of steps in the log


def _forward(
    spec: GroupSpec,
    arrivals: OutsideArrivals,
    feedback: Feedback,
    constants: Sequence[NeuronConstants],
    t_end: Seconds,
) -> tuple[GroupEvents, _Residuals]:
    events, log, steps = simulate_group(spec, arrivals, feedback, constants, t_end)
    return events, _Residuals(arrivals, feedback, constants, log, steps)


def _backward(
    spec: GroupSpec, residuals: _Residuals, cotangent: GroupEvents
) -> tuple[Any, Any, Any, None]:
    d_arrivals, d_feedback, d_constants = match_device_axes(
        _gradients(spec, residuals, cotangent.time)
    )
    # rows of arrivals and t_end have no gradient
    return tuple((*d_arrival, None) for d_arrival in d_arrivals), d_feedback, d_constants, None


def _gradients(
    spec: GroupSpec, residuals: _Residuals, drive: OfSteps, fixed_length: bool = False
) -> Gradients:
    """Compute the gradients with respect to the arguments of `group_spikes`.

    Args:
        drive: (steps, batch) dL/dt of the spike of each step.
        fixed_length: see `Pass.run`.
    """

    def backward(neurons: list[Neuron]) -> Gradients:
        return _gradients_known(spec.with_neurons(neurons), residuals, drive, fixed_length)

    neurons = [layer.neuron for layer in spec.layers]
    return specialise(neurons, residuals.constants, backward)


def _gradients_known(
    spec: GroupSpec, residuals: _Residuals, drive: OfSteps, fixed_length: bool
) -> Gradients:
    """Compute the gradients with the assumptions of the models."""
    arrivals, feedback, constants, log, steps = residuals
    plan = layout(spec, arrivals, feedback)
    external = [weight for weight, _, _ in arrivals]
    between = [weight for weight, _ in feedback]
    # The pass returns the gradient of each row of the tables. `tables` is linear in the weights:
    # JAX transposes it, to return the gradients of the weights.
    table, pull = jax.vjp(partial(tables, spec, plan), external, between)
    total = Pass(spec, plan, table, constants, log).run(steps, drive, fixed_length)
    d_external, d_between = pull(tuple(population.table for population in total.populations))
    d_constants = tuple(
        _constants_gradient(layer, layer_constants, population)
        for layer, layer_constants, population in zip(
            spec.layers, constants, total.populations, strict=True
        )
    )
    d_times = [
        _time_gradient(time, row, weight.shape[0], arrived, by_time)
        for (weight, time, row), arrived, by_time in zip(
            arrivals, log.row, total.by_time, strict=True
        )
    ]
    d_delays = [
        None if delay is None else _delay_gradient(plan, edge, target, delay, log, total.by_time)
        for edge, ((_, target), (_, delay)) in enumerate(zip(spec.edges, feedback, strict=True))
    ]
    d_arrivals = tuple(zip(d_external, d_times, strict=True))
    d_feedback = tuple(zip(d_between, d_delays, strict=True))
    return d_arrivals, d_feedback, d_constants


_events.defvjp(usual_promotion(_forward), usual_promotion(_backward))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _events_forward(
    spec: GroupSpec,
    arrivals: OutsideArrivals,
    feedback: Feedback,
    constants: Sequence[NeuronConstants],
    t_end: Seconds,
) -> GroupEvents:
    return simulate_group(spec, arrivals, feedback, constants, t_end)[0]


@_events_forward.defjvp
@usual_promotion
def _tangents(
    spec: GroupSpec, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[GroupEvents, GroupEvents]:
    """Return the events and their tangents; primals and tangents are those of the other
    arguments.
    """
    events, residuals = _forward(spec, *primals)
    arrivals, feedback, constants, _ = tangents

    def gradients(drive: OfSteps) -> tuple[list[Any], list[Any], list[NeuronConstants]]:
        d_arrivals, d_feedback, d_constants = _gradients(spec, residuals, drive, fixed_length=True)
        return list(d_arrivals), list(d_feedback), list(d_constants)

    # Rows have no tangent. The other tangents must be a tree like that which `gradients` returns.
    input_tangents = (
        [(weight, time) for weight, time, _ in arrivals],
        list(feedback),
        list(constants),
    )
    return events, moved_by(events, transposed(gradients, events.time, input_tangents))


def _time_gradient(
    time: Times, row: Rows, rows: int, arrived: Int[Array, "steps batch"], by_time: OfSteps
) -> Times:
    """Return dL/dt of a population's arrivals from outside, in their original slots.

    Args:
        time, row: times and rows of the arrivals.
        rows: number of rows of arrivals from outside, the first rows of the table.
        arrived: the row that arrived in each step, `Log.row`.
        by_time: dL/dt of the arrival in each step.
    """
    position = in_order(time, row)[2]
    outside = arrived[:-1] < rows
    # Arrivals from outside are taken in the order of time: the n-th step with such an arrival took
    # the n-th sorted slot. All other steps get a slot that does not exist, and are dropped.
    number = jnp.where(outside, jnp.cumsum(outside, axis=0) - 1, time.shape[1])
    samples = jnp.arange(time.shape[0])
    by_order = jnp.zeros_like(time).at[samples, number].add(by_time, mode="drop")
    return jnp.zeros_like(time).at[samples[:, None], position].set(by_order)


def _delay_gradient(
    plan: Layout,
    edge: int,
    target: int,
    delay: Float[Array, "..."],
    log: Log,
    by_time: Sequence[OfSteps],
) -> Float[Array, "..."]:
    """Return dL/ddelay of one edge, in the shape of its delay.

    A delay is added to the time of the spike, so that its gradient is the sum of dL/dt of what came
    through the edge.
    """
    channel = next(channel for channel in plan.channels if channel.edge == edge)
    fan_out = channel.fan_out
    size = plan.sizes[channel.source] if fan_out is None else len(fan_out.by_line)
    # Rows of the target's table from channel.row on are the edge's rows; others lie outside of
    # 0 ... size - 1 and are dropped (a negative index would count from the end).
    row = log.row[target][:-1] - channel.row
    row = jnp.where(row < 0, size, row)
    by_row = jnp.zeros(size, log.time.dtype).at[row].add(by_time[target], mode="drop")
    shared = delay.size != size
    return (by_row.sum() if shared else by_row).reshape(delay.shape)


def _constants_gradient(
    layer: LayerSpec, constants: NeuronConstants, population: PopulationCostate
) -> NeuronConstants:
    """Return the gradient with respect to the constants, from the pass's carry of a population at
    time 0.
    """
    neuron = layer.neuron
    accumulators, costate = jax.tree.map(
        over_first, (population.constant_cotangents, population.costate)
    )
    still = jax.tree.map(jnp.zeros_like, neuron.begin(constants))
    # The excess at spikes, the initial state, and the state that a spike leaves depend on the
    # constants; each is pulled back with its costate.
    parts = (
        pulled(lambda constants: neuron.excess(constants, still), constants, accumulators.lam),
        pulled(partial(start_of, layer), constants, costate.p),
        pulled(partial(left_by_spike, layer), constants, accumulators.left),
    )
    gradient = jax.tree.map(lambda *of_each: sum(of_each), *parts)
    start = start_of(layer, constants)
    # The flow depends on time constants: dP/d(field), carried along with P, is multiplied by x(0).
    for name in neuron.flow_fields:
        by_flow = accumulators.fields[name] + dot(start, costate.by[name])
        gradient = replace(gradient, **{name: getattr(gradient, name) + by_flow})
    return gradient
