"""Recorded spikes in the native backend, the counterpart of `adjoint.recorded_spikes`.

One call of a kernel computes the slopes of V at the spikes. The backward pass is that of simulated
spikes.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.event.adjoint.recorded_spikes import Gradients
from jaxsnn.event.adjoint.required_gradients import RequiredGradients, values_of
from jaxsnn.event.dynamics.two_variables import Constants
from jaxsnn.event.event_arrays import OfSpikes, Rows, Seconds, Times, Weights
from jaxsnn.event.forward.layer import LayerSpec, LayerSpikes
from jaxsnn.event.native.native_build import kernel, thread_count
from jaxsnn.event.native.native_layer import (
    Kept,
    Ordered,
    Simulated,
    kernel_constants,
    native_backward,
    ordered_shapes,
)
from jaxsnn.network.array_types import Array, Int
from jaxsnn.network.meshes import match_device_axes
from jaxsnn.network.promotion import usual_promotion


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def native_recorded_spikes(
    spec: LayerSpec,
    threads: int | None,
    weight: Weights,
    constants: Constants,
    time: Times,
    row: Rows,
    times: OfSpikes,
    count: Int[Array, "batch neurons"],
) -> LayerSpikes:
    """Return the recorded spikes of one population, differentiable, with the arguments of
    `recorded_spikes`.

    Args:
        threads: number of threads; None: the number of processors. Results do not depend on it.
    """
    slope, _, _ = _slopes(spec, threads, weight, constants, time, row, times)
    return LayerSpikes(time=times, slope=slope, count=count)


def _forward(spec: LayerSpec, threads: int | None, *arguments: Any) -> tuple[LayerSpikes, Kept]:
    """Return the spikes and the residuals of the backward pass."""
    weight, constants, time, row, times, count = values_of(arguments)
    slope, arrivals, t_end = _slopes(spec, threads, weight, constants, time, row, times)
    spikes = LayerSpikes(time=times, slope=slope, count=count)
    none = jnp.zeros((*count.shape, 0), times.dtype)
    simulated = Simulated(spikes, none, none.astype(jnp.int32), arrivals)
    needs_grad = RequiredGradients.of(arguments[1], arguments[2]).gradient_flags
    return spikes, Kept(
        weight=weight,
        constants=constants,
        t_end=t_end,
        simulated=simulated,
        gradient_flags=needs_grad,
    )


def _slopes(
    spec: LayerSpec,
    threads: int | None,
    weight: Weights,
    constants: Constants,
    time: Times,
    row: Rows,
    times: OfSpikes,
) -> tuple[OfSpikes, Ordered, Seconds]:
    """Return the slopes at recorded spikes, the arrivals in order, and a time after all of them."""
    last = jnp.zeros((), time.dtype)
    for some in (time, times):
        last = jnp.maximum(last, jnp.max(jnp.where(jnp.isfinite(some), some, 0.0), initial=0.0))
    end = jnp.nextafter(last, jnp.inf)
    slope = jax.ShapeDtypeStruct(times.shape, times.dtype)
    call = kernel("jaxsnn_layer_recorded", (slope, *ordered_shapes(time)))
    constants_of_kernel = kernel_constants(spec.neuron, constants)
    operands = (weight, constants_of_kernel, time, row.astype(jnp.int32), end, times)
    outputs = match_device_axes(
        tuple(call(*operands, threads=np.int64(thread_count(threads)))), operands
    )
    return outputs[0], Ordered(*outputs[1:]), match_device_axes(end, time)


def _backward(
    spec: LayerSpec, threads: int | None, residuals: Kept, cotangent: LayerSpikes
) -> Gradients:
    d_weight, d_constants, d_time, _, _ = native_backward(spec, threads, residuals, cotangent)
    # Recorded times are data and have no gradient, as in `recorded_spikes`.
    return d_weight, d_constants, d_time, None, None, None


native_recorded_spikes.defvjp(
    usual_promotion(_forward), usual_promotion(_backward), symbolic_zeros=True
)
