"""Calls of the kernels for neuron models with linear equations (`dynamics.linear_form`).

`native_layer` calls them for populations whose model the kernels do not know.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.event.adjoint.costate_rules import slope_floor
from jaxsnn.event.adjoint.required_gradients import RequiredGradients, is_perturbed
from jaxsnn.event.dynamics.linear_form import (
    flow_leaves,
    flow_matrix,
    flow_scale,
    levels,
    linear_form,
)
from jaxsnn.event.dynamics.neuron_model import Neuron
from jaxsnn.event.event_arrays import NeuronConstants, OfSpikes, Rows, Seconds, Times, Weights
from jaxsnn.event.forward.layer import LayerSpec
from jaxsnn.event.native.native_build import kernel, thread_count
from jaxsnn.network.array_types import Array, Float


def _coefficients(
    spec: LayerSpec, constants: NeuronConstants
) -> tuple[Float[Array, "fields neurons"], Float[Array, "variables"], Float[Array, "variables"]]:
    """Return the fields of `LinearFields` in linear.h, the effect of an arrival, and the scales of
    the variables.
    """
    scale = flow_scale(spec.neuron, constants)
    form = linear_form(spec.neuron, constants, scale)
    neurons = form.threshold.shape
    floor = jnp.broadcast_to(slope_floor(spec, constants), neurons)
    parts = form.flow, form.reset, form.offset, form.start, form.threshold, floor
    return jnp.concatenate([part.reshape(-1, *neurons) for part in parts]), form.arrival, scale


def linear_forward(
    spec: LayerSpec,
    threads: int | None,
    weight: Weights,
    constants: NeuronConstants,
    time: Times,
    row: Rows,
    t_end: Seconds,
    sorted_shapes: tuple[jax.ShapeDtypeStruct, ...],
) -> tuple[Array, ...]:
    """Simulate a population with the kernel.

    Args:
        sorted_shapes: shapes of the sorted arrivals.

    Returns:
        Time and slope of each spike, the state just before it, spike counts, and the sorted
        arrivals.
    """
    coefficients, arrival, _ = _coefficients(spec, constants)
    lists, dtype = (time.shape[0], weight.shape[1]), weight.dtype
    slots = jax.ShapeDtypeStruct((*lists, spec.max_spikes), dtype)
    state = jax.ShapeDtypeStruct((*slots.shape, len(arrival)), dtype)
    results = slots, slots, state, jax.ShapeDtypeStruct(lists, jnp.int32), *sorted_shapes
    return tuple(
        kernel("jaxsnn_linear_forward", results)(
            weight,
            coefficients,
            arrival,
            time,
            row.astype(jnp.int32),
            jnp.asarray(t_end, dtype),
            max_spikes=np.int64(spec.max_spikes),
            counted=np.int64(spec.counted),
            once=bool(spec.once),
            threads=np.int64(thread_count(threads)),
        )
    )


def linear_gradients_required(
    neuron: Neuron, constants: NeuronConstants, time: Any
) -> RequiredGradients:
    """Return the required gradients, from arguments that carry whether they are perturbed; `taus`
    stands for the constants that the flow depends on.
    """
    is_leaf = lambda leaf: hasattr(leaf, "perturbed")  # noqa: E731
    leaves, structure = jax.tree.flatten(constants, is_leaf=is_leaf)
    values = jax.tree.unflatten(structure, [leaf.value for leaf in leaves])
    of_flow = [leaves[number] for number in flow_leaves(neuron, values)]
    return RequiredGradients(
        constants=is_perturbed(constants), taus=is_perturbed(of_flow), time=is_perturbed(time)
    )


def linear_backward(
    spec: LayerSpec,
    threads: int | None,
    needs_grad: RequiredGradients,
    weight: Weights,
    constants: NeuronConstants,
    t_end: Seconds,
    arrivals: tuple[Array, ...],
    spikes: tuple[Array, ...],
    drive: OfSpikes,
) -> tuple[Weights, NeuronConstants, Times]:
    """Compute the gradients with respect to weight, constants and arrival times with the kernel; 0
    where they are not required.

    Args:
        arrivals: sorted arrivals.
        spikes: time and slope of each spike, and the state just before it.
        drive: dL/dt of each spike.
    """
    neuron, dtype = spec.neuron, weight.dtype
    coefficients, arrival, scale = _coefficients(spec, constants)
    variables, neurons = len(arrival), weight.shape[1]
    leaves, structure = jax.tree.flatten(constants)
    moving = flow_leaves(neuron, constants) if needs_grad.taus else []

    def flow(number: int, leaf: Array) -> Array:
        changed = [leaf if n == number else other for n, other in enumerate(leaves)]
        return flow_matrix(neuron, jax.tree.unflatten(structure, changed), scale)

    a_by = jnp.zeros((0, variables**2, neurons), dtype)
    if moving:
        # Neurons are independent: a tangent of ones gives the derivative of each neuron.
        changes = [
            jax.jvp(partial(flow, n), (leaves[n],), (jnp.ones_like(leaves[n]),))[1] for n in moving
        ]
        a_by = jnp.stack(changes).reshape(len(moving), variables**2, neurons)
    of_levels = variables**2 + 2 * variables + 1 if needs_grad.constants else 0
    of_time = arrivals[0].shape if needs_grad.time else (0,)
    shapes = weight.shape, (of_levels, neurons), (len(moving), neurons), of_time
    call = kernel(
        "jaxsnn_linear_backward", [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    )
    d_weight, d_levels, d_flow, d_time = call(
        weight,
        coefficients,
        arrival,
        a_by,
        *arrivals,
        jnp.asarray(t_end, dtype),
        *spikes,
        drive,
        threads=np.int64(thread_count(threads)),
    )
    d_constants = jax.tree.map(jnp.zeros_like, constants)
    if needs_grad.constants:
        _, pull_back = jax.vjp(lambda constants: levels(neuron, constants, scale), constants)
        ends = np.cumsum([variables**2, variables, variables])
        reset, offset, start, threshold = jnp.split(d_levels, ends)
        reset = reset.reshape(variables, variables, neurons)
        (d_constants,) = pull_back((reset, offset, start, threshold[0]))
        of_leaves = jax.tree.leaves(d_constants)
        for place, number in enumerate(moving):
            of_leaves[number] = of_leaves[number] + d_flow[place]
        d_constants = jax.tree.unflatten(structure, of_leaves)
    d_time = d_time if needs_grad.time else jnp.zeros_like(arrivals[0])
    return d_weight, d_constants, d_time
