"""Exact gradients of a recurrent group's spike times, by one pass over its log from the last step
to the first.

The costate of a neuron's state flows as the transposed flow, and spikes and arrivals do to it what
they do in a feed-forward population (`layer_adjoint`); what arrives with weight W at time t and moves
the state by W e adds p e to dL/dW and -p A e W to dL/dt, A being the generator of the flow, and that
goes to the spike that sent it. That is EventProp (Wunderlich & Pehle, Scientific Reports 11, 12829,
2021), with the flow in closed form, for feedback with and without delays. No state is stored or
replayed: what depends on the lanes of the flow is carried along as the costate's derivatives by them.
"""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsnn.event.adjoint.costates import Pass, PopulationCostate
from jaxsnn.event.adjoint.layer_adjoint import dot, left_by_spike, pulled, start_of
from jaxsnn.event.adjoint.tangents import moved_by, transposed
from jaxsnn.event.dynamics.neuron_model import Neuron, by_facts
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
from jaxsnn.network.reductions import over_first


def group_spikes(spec: GroupSpec, arrivals, feedback, lanes: tuple[Any, ...], t_end) -> GroupSpikes:
    """Spikes of a recurrent group, differentiable in weights, delays, arrival times and every field
    of `lanes`.

    Args:
        arrivals: of each population (weight, time, row), what comes from outside the group: weight
            (rows, neurons); time (batch, arrivals) in any order, seconds, inf where unused; row
            (arrivals,) or (batch, arrivals) int32.
        feedback: of each edge (weight, delay): weight (source's neurons, target's neurons), None
            for the identity; delay in seconds, at least 0, for all neurons of the source (a scalar)
            or each, or None for 0.
        lanes: of each population, (neurons,).
        t_end: end of the simulation, seconds; spikes do not depend on it, so its gradient is zero.

    Weights are multiplied by the target's arrival factor. A box spike is two arrivals, and two
    edges: the weight, and its negative later by the width. Only the times carry a gradient. The
    refractory times are static.
    """
    return by_population(spec, _events(spec, arrivals, feedback, lanes, t_end))


def group_spikes_forward(
    spec: GroupSpec, arrivals, feedback, lanes: tuple[Any, ...], t_end
) -> GroupSpikes:
    """As `group_spikes`, differentiable in forward mode."""
    return by_population(spec, _events_forward(spec, arrivals, feedback, lanes, t_end))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _events(spec, arrivals, feedback, lanes, t_end) -> GroupEvents:
    return simulate_group(spec, arrivals, feedback, lanes, t_end)[0]


class _Residuals(NamedTuple):
    """The arguments, and what came of them."""

    arrivals: Any
    feedback: Any
    lanes: tuple[Any, ...]
    log: Log
    steps: jax.Array


def _forward(spec, arrivals, feedback, lanes, t_end):
    events, log, steps = simulate_group(spec, arrivals, feedback, lanes, t_end)
    return events, _Residuals(arrivals, feedback, lanes, log, steps)


def _backward(spec, residuals, cotangent):
    return _gradients(spec, residuals, cotangent.time)


def _gradients(spec, residuals, drive, fixed_length=False):
    """Gradients by the arguments of `group_spikes`, from dL/dt of the spike of each step, (steps,
    batch).
    """

    def backward(neurons: list[Neuron]) -> Any:
        return _gradients_known(spec.with_neurons(neurons), residuals, drive, fixed_length)

    neurons = [layer.neuron for layer in spec.layers]
    d_arrivals, d_feedback, d_lanes = by_facts(neurons, residuals.lanes, backward)
    # rows of arrivals have no gradient, nor has the end
    return tuple((*each, None) for each in d_arrivals), d_feedback, d_lanes, None


def _gradients_known(spec, residuals, drive, fixed_length):
    """The gradients, by what the models assume."""
    arrivals, feedback, lanes, log, steps = residuals
    plan = layout(spec, arrivals, feedback)
    external, between = [weight for weight, _, _ in arrivals], [weight for weight, _ in feedback]
    table, pull = jax.vjp(partial(tables, spec, plan), external, between)
    total = Pass(spec, plan, table, lanes, log).run(steps, drive, fixed_length)
    d_external, d_between = pull(tuple(population.table for population in total.populations))
    d_lanes = tuple(
        _lanes_gradient(layer, each, population)
        for layer, each, population in zip(spec.layers, lanes, total.populations, strict=True)
    )
    d_arrivals = tuple(
        (
            d_weight,
            _time_gradient(
                time, row, external[number].shape[0], log.row[number], total.by_time[number]
            ),
        )
        for number, (d_weight, (_, time, row)) in enumerate(zip(d_external, arrivals, strict=True))
    )
    d_feedback = tuple(
        (
            d_weight,
            None
            if delay is None
            else _delay_gradient(plan, edge, spec.edges[edge][1], delay, log, total.by_time),
        )
        for edge, (d_weight, (_, delay)) in enumerate(zip(d_between, feedback, strict=True))
    )
    return d_arrivals, d_feedback, d_lanes


_events.defvjp(_forward, _backward)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _events_forward(spec, arrivals, feedback, lanes, t_end) -> GroupEvents:
    return simulate_group(spec, arrivals, feedback, lanes, t_end)[0]


@_events_forward.defjvp
def _tangents(spec, primals, tangents):
    events, residuals = _forward(spec, *primals)
    arrivals, feedback, lanes, _ = tangents

    def gradients(drive):
        d_arrivals, d_feedback, d_lanes, _ = _gradients(spec, residuals, drive, fixed_length=True)
        return [(weight, time) for weight, time, _ in d_arrivals], list(d_feedback), list(d_lanes)

    given = [(weight, time) for weight, time, _ in arrivals], list(feedback), list(lanes)
    return events, moved_by(events, transposed(gradients, events.time, given))


def _time_gradient(time, row, rows, arrived, by_time):
    """dL/dt of a population's arrivals from outside, (batch, arrivals), in the slots that they had."""
    position = in_order(time, row)[2]
    outside = arrived[:-1] < rows
    number = jnp.where(outside, jnp.cumsum(outside, axis=0) - 1, time.shape[1])
    samples = jnp.arange(time.shape[0])
    sorted_ = jnp.zeros_like(time).at[samples, number].add(by_time, mode="drop")
    return jnp.zeros_like(time).at[samples[:, None], position].set(sorted_)


def _delay_gradient(plan: Layout, edge, target, delay, log: Log, by_time):
    """dL/ddelay of one edge, in the shape of its delay."""
    channel = next(channel for channel in plan.channels if channel.edge == edge)
    size = plan.sizes[channel.source]
    neuron = log.row[target][:-1] - channel.row
    neuron = jnp.where(neuron < 0, size, neuron)
    d_delay = jnp.zeros(size, log.time.dtype).at[neuron].add(by_time[target], mode="drop")
    return (
        d_delay.reshape(delay.shape) if delay.size == size else d_delay.sum().reshape(delay.shape)
    )


def _lanes_gradient(layer: LayerSpec, lanes: Any, population: PopulationCostate) -> Any:
    """The gradient by the lanes, from what the pass leaves of a population at time 0."""
    neuron = layer.neuron
    own, costate = jax.tree.map(over_first, (population.own, population.costate))
    still = jax.tree.map(jnp.zeros_like, neuron.begin(lanes))
    parts = (
        pulled(lambda lanes: neuron.excess(lanes, still), lanes, own.lam),
        pulled(partial(start_of, layer), lanes, costate.p),
        pulled(partial(left_by_spike, layer), lanes, own.left),
    )
    gradient = jax.tree.map(lambda *of_each: sum(of_each), *parts)
    start = start_of(layer, lanes)
    for name in neuron.flow_fields:
        by_flow = own.fields[name] + dot(start, costate.by[name])
        gradient = replace(gradient, **{name: getattr(gradient, name) + by_flow})
    return gradient
