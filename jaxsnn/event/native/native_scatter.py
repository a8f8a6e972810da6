"""A population after a convolution or a pool in the native backend: each event is delivered to the
positions that it reaches, without lists of arrivals for each position.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from jaxsnn.event.adjoint.required_gradients import GradientFlags, RequiredGradients, values_of
from jaxsnn.event.dynamics.neuron_model import Neuron
from jaxsnn.event.dynamics.two_variables import Constants
from jaxsnn.event.event_arrays import OfSpikes, Seconds, Times, Weights
from jaxsnn.event.forward.layer import LayerSpec, LayerSpikes
from jaxsnn.event.native.native_build import kernel, thread_count
from jaxsnn.event.native.native_layer import (
    gradient_shape,
    kernel_constants,
    kernel_options,
    slots_of,
    unstacked,
)
from jaxsnn.event.native.native_places import native_places
from jaxsnn.event.projections.arrivals import Scattered
from jaxsnn.network.array_types import Array, Float, Int
from jaxsnn.network.lookups import at_places
from jaxsnn.network.meshes import varying_like
from jaxsnn.network.promotion import usual_promotion

Table = Int[Array, "channels taps"]


class _KernelInputs(NamedTuple):
    """Inputs of the kernels."""

    weight: Weights
    constants: Constants
    time: Times  # of the events, sorted
    channel: Int[Array, "batch events"]
    place: Table
    row: Table
    t_end: Seconds

    def arrays(self, neuron: Neuron) -> tuple[Any, ...]:
        """Return the arguments of a kernel."""
        end = jnp.asarray(self.t_end, self.weight.dtype)
        integers = (array.astype(jnp.int32) for array in (self.channel, self.place, self.row))
        return self.weight, kernel_constants(neuron, self.constants), self.time, *integers, end


class _Residuals(NamedTuple):
    """Residuals of the backward pass."""

    inputs: _KernelInputs
    spikes: LayerSpikes
    place: Int[Array, "batch room"] | None  # slots of the first spikes, if requested
    #: V' after each spike, and the number of the arrival that caused it
    more: tuple[OfSpikes, Int[Array, "batch neurons slots"]]
    gradient_flags: GradientFlags

    @property
    def required(self) -> RequiredGradients:
        """Gradients that are required besides the gradient with respect to the weights."""
        return RequiredGradients.by(self.gradient_flags)


class FirstSpikes(NamedTuple):
    """First spikes of each sample, sorted by time, for a subsequent convolution that reads only a
    few of the spike slots.
    """

    time: Float[Array, "batch room"]  # seconds, inf where unused
    place: Int[Array, "batch room"]  # index on the flattened axes (neurons, slots)


def native_scattered_spikes(
    spec: LayerSpec,
    threads: int | None,
    room: int | None,
    weight: Weights,
    constants: Constants,
    events: Scattered,
    t_end: Seconds,
) -> tuple[LayerSpikes, FirstSpikes | None]:
    """Return the spikes of one population, as `native_layer_spikes` does for the lists of arrivals
    that the events produce.

    Args:
        threads: see `native_layer_spikes`.
        room: number of first spikes to return as well, at most the number of slots.
        constants: (positions, neurons at each).
        events: events of each sample, sorted by time.

    Returns:
        Arrays (batch, neurons * positions, ...), and the first spikes. The gradient with respect to
        their times needs no array of all slots.
    """
    place, row = jnp.asarray(events.place), jnp.asarray(events.row)
    arguments = weight, constants, events.time, events.channel, place, row, t_end
    spikes_and_first: Any = _scattered(spec, threads, room, *arguments)
    return spikes_and_first


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _scattered(
    spec: LayerSpec, threads: int | None, room: int | None, *arguments: Any
) -> tuple[LayerSpikes, FirstSpikes | None]:
    spikes, _ = _simulated(spec, threads, _KernelInputs(*arguments))
    return spikes, _first(spikes, room, threads)


def _first(spikes: LayerSpikes, room: int | None, threads: int | None) -> FirstSpikes | None:
    if room is None:
        return None
    time = spikes.time.reshape(len(spikes.time), -1)
    place = native_places(time, room, threads)
    return FirstSpikes(at_places(time, place, 1), place)


def _simulated(
    spec: LayerSpec, threads: int | None, inputs: _KernelInputs
) -> tuple[LayerSpikes, Any]:
    """Return the spikes, V' after them and their causes (without slots where the gradient does not
    need them).
    """
    batch, neurons = inputs.time.shape[0], inputs.constants.tau_mem.size
    results = slots_of(spec, batch, neurons, inputs.weight.dtype)
    outputs = kernel("jaxsnn_scatter_forward", results)(
        *inputs.arrays(spec.neuron),
        max_spikes=np.int64(spec.max_spikes),
        counted=np.int64(spec.counted),
        once=bool(spec.once),
        **kernel_options(spec),
        threads=np.int64(thread_count(threads)),
    )
    time, slope, after, count, cause = varying_like(tuple(outputs), inputs.weight, inputs.time)
    return LayerSpikes(time=time, slope=slope, count=count), (after, cause)


def _forward(
    spec: LayerSpec, threads: int | None, room: int | None, *arguments: Any
) -> tuple[tuple[LayerSpikes, FirstSpikes | None], _Residuals]:
    """Return the spikes and the residuals of the backward pass. Each argument carries whether it is
    perturbed.
    """
    values = _KernelInputs(*values_of(arguments))
    spikes, more = _simulated(spec, threads, values)
    first = _first(spikes, room, threads)
    residuals = _Residuals(
        inputs=values,
        spikes=spikes,
        place=None if first is None else first.place,
        more=more,
        gradient_flags=RequiredGradients.of(arguments[1], arguments[2]).gradient_flags,
    )
    return (spikes, first), residuals


def _backward(
    spec: LayerSpec,
    threads: int | None,
    _: int | None,
    residuals: _Residuals,
    cotangent: tuple[LayerSpikes, FirstSpikes | None],
) -> tuple[Any, ...]:
    inputs, spikes = residuals.inputs, residuals.spikes
    batch, dtype = inputs.time.shape[0], inputs.weight.dtype
    drive: Any = cotangent[0].time
    if isinstance(drive, SymbolicZero):
        drive = jnp.zeros((batch, inputs.constants.tau_mem.size, 0), dtype)
    of_first: Any = None if cotangent[1] is None else cotangent[1].time
    place = residuals.place
    if place is None or isinstance(of_first, SymbolicZero):
        of_first, place = jnp.zeros((batch, 0), dtype), jnp.zeros((batch, 0), jnp.int32)
    of_time = inputs.time.shape if residuals.required.time else (0,)
    shapes = inputs.weight.shape, gradient_shape(inputs.constants, residuals.required), of_time
    results = tuple(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes)
    gradients = kernel("jaxsnn_scatter_backward", results)(
        *(
            *inputs.arrays(spec.neuron),
            spikes.time,
            spikes.slope,
            *residuals.more,
            drive,
            of_first,
            place,
        ),
        **kernel_options(spec),
        min_slope=np.float64(spec.min_slope),
        threads=np.int64(thread_count(threads)),
    )
    d_weight, d_stacked, d_time = varying_like(
        tuple(gradients), inputs.weight, inputs.time, drive, of_first
    )
    d_time = d_time if residuals.required.time else jnp.zeros_like(inputs.time)
    return d_weight, unstacked(d_stacked, inputs.constants), d_time, None, None, None, None


_scattered.defvjp(usual_promotion(_forward), usual_promotion(_backward), symbolic_zeros=True)
