"""Calls of the kernels for neuron models whose equations are integrated (`IntegratedNeuron`).

`native_layer` calls them. The kernels are compiled for each model (`model_source`).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import UsageError
from jaxsnn.event.adjoint.costate_rules import slope_floor
from jaxsnn.event.adjoint.required_gradients import RequiredGradients, is_perturbed
from jaxsnn.event.dynamics.integrated_neuron import IntegratedNeuron
from jaxsnn.event.dynamics.neuron_model import Neuron
from jaxsnn.event.event_arrays import NeuronConstants, OfSpikes, Rows, Seconds, Times, Weights
from jaxsnn.event.forward.layer import LayerSpec
from jaxsnn.event.native.model_source import model_source
from jaxsnn.event.native.native_build import kernel, thread_count
from jaxsnn.network.array_types import Array, Float
from jaxsnn.wording import Text


def _source(spec: LayerSpec, constants: NeuronConstants, dtype: Any) -> str:
    neuron: Any = spec.neuron
    return model_source(neuron, jax.tree.structure(constants), np.dtype(dtype).name)


def _start(
    neuron: Neuron, constants: NeuronConstants, neurons: int
) -> Float[Array, "variables neurons"]:
    return jnp.stack([jnp.broadcast_to(part, neurons) for part in neuron.begin(constants)])


def _parameters(
    spec: LayerSpec, constants: NeuronConstants, neurons: int
) -> Float[Array, "fields neurons"]:
    """Return the fields of `IntegratedNeurons` in integrated.h."""
    floor = jnp.broadcast_to(slope_floor(spec, constants), neurons)
    start = _start(spec.neuron, constants, neurons)
    return jnp.stack([*jax.tree.leaves(constants), *start, floor])


def integrated_forward(
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
        Time and slope of each spike, spike counts, and the sorted arrivals.
    """
    lists, dtype = (time.shape[0], weight.shape[1]), weight.dtype
    slots = jax.ShapeDtypeStruct((*lists, spec.max_spikes), dtype)
    results = slots, slots, jax.ShapeDtypeStruct(lists, jnp.int32), *sorted_shapes
    call = kernel("jaxsnn_integrated_forward", results, model=_source(spec, constants, dtype))
    return tuple(
        call(
            weight,
            _parameters(spec, constants, weight.shape[1]),
            time,
            row.astype(jnp.int32),
            jnp.asarray(t_end, dtype),
            max_spikes=np.int64(spec.max_spikes),
            counted=np.int64(spec.counted),
            once=bool(spec.once),
            threads=np.int64(thread_count(threads)),
        )
    )


def integrated_gradients_required(constants: NeuronConstants, time: Any) -> RequiredGradients:
    """Return the required gradients, from arguments that carry whether they are perturbed."""
    is_required = is_perturbed(constants)
    return RequiredGradients(constants=is_required, taus=is_required, time=is_perturbed(time))


def integrated_backward(
    spec: LayerSpec,
    threads: int | None,
    needs_grad: RequiredGradients,
    weight: Weights,
    constants: NeuronConstants,
    t_end: Seconds,
    arrivals: tuple[Array, ...],
    spike_time: OfSpikes,
    drive: OfSpikes,
) -> tuple[Weights, NeuronConstants, Times]:
    """Compute the gradients with respect to weight, constants and arrival times with the kernel; 0
    where they are not required.

    Args:
        arrivals: sorted arrivals.
        drive: dL/dt of each spike.
    """
    neuron, dtype, neurons = spec.neuron, weight.dtype, weight.shape[1]
    leaves, structure = jax.tree.flatten(constants)
    parameters = _parameters(spec, constants, neurons)
    fields = len(parameters) - 1 if needs_grad.constants else 0
    of_time = arrivals[0].shape if needs_grad.time else (0,)
    shapes = weight.shape, (fields, neurons), of_time
    results = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    call = kernel("jaxsnn_integrated_backward", results, model=_source(spec, constants, dtype))
    d_weight, d_parameters, d_time = call(
        weight,
        parameters,
        *arrivals,
        jnp.asarray(t_end, dtype),
        spike_time,
        drive,
        threads=np.int64(thread_count(threads)),
    )
    d_constants = jax.tree.map(jnp.zeros_like, constants)
    if needs_grad.constants:
        _, pull_back = jax.vjp(lambda constants: _start(neuron, constants, neurons), constants)
        (of_start,) = pull_back(d_parameters[len(leaves) :])
        of_equations = jax.tree.unflatten(structure, list(d_parameters[: len(leaves)]))
        d_constants = jax.tree.map(jnp.add, of_equations, of_start)
    d_time = d_time if needs_grad.time else jnp.zeros_like(arrivals[0])
    return d_weight, d_constants, d_time


def refuse_second_derivatives(neuron: Neuron) -> None:
    """Refuse derivatives for which XLA would have to simulate the population.

    Raises:
        UsageError: the model's equations are integrated.
    """
    if isinstance(neuron, IntegratedNeuron):
        raise UsageError(
            Text(
                "second derivatives of the neuron model {type} are not supported, because its "
                "equations are integrated",
                type=type(neuron).__name__,
            ),
            fix="use first derivatives (jax.grad)",
        )
