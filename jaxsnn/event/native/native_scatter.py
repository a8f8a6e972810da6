"""A population after a convolution or a pool in the native backend: each event is delivered to the
positions that it reaches, without lists of arrivals for each position.

Most slots of a convolution's neurons stay empty. If the postsynaptic populations receive only the
first spikes of a sample, up to a budget, then only these are stored for the backward pass, and the
array of all slots is built from them only where it is used:

    slots      (batch, neurons, slots)    time, slope     written unless a gradient is requested
    first      (batch, room)              time, slope, place, and what the gradient needs
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
from jaxsnn.event.projections.arrivals import Scattered
from jaxsnn.network.array_types import Array, Float, Int
from jaxsnn.network.lookups import gather_along
from jaxsnn.network.meshes import match_device_axes
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


class _Stored(NamedTuple):
    """Spikes in the form that the backward pass takes: the first ones, or all slots."""

    time: Float[Array, "batch spikes"]
    slope: Float[Array, "batch spikes"]
    slope_after: Float[Array, "batch spikes"]  # no entries if the gradient does not need them
    cause: Int[Array, "batch spikes"]  # arrival that caused a spike; no entries as above
    place: Int[Array, "batch spikes"]  # index on the axes (neurons, slots); no entries: all slots


class _Residuals(NamedTuple):
    """Residuals of the backward pass."""

    inputs: _KernelInputs
    spikes: _Stored
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
    slope: Float[Array, "batch room"]  # as in `LayerSpikes`


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
        room: number of first spikes to return as well, at most the number of slots. If there are
            more spikes, a gradient is requested, and so the run is to be repeated with a larger
            budget, then the others are missing in both results, but not in the counts.
        constants: (positions, neurons at each).
        events: events of each sample, sorted by time.

    Returns:
        Arrays (batch, neurons * positions, ...), and the first spikes. The gradient with respect to
        their times needs no array of all slots. A NaN among the times is the first of them, too.
    """
    place, row = jnp.asarray(events.place), jnp.asarray(events.row)
    arguments = weight, constants, events.time, events.channel, place, row, t_end
    spikes_and_first: Any = _scattered(spec, threads, room, *arguments)
    return spikes_and_first


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _scattered(
    spec: LayerSpec, threads: int | None, room: int | None, *arguments: Any
) -> tuple[LayerSpikes, FirstSpikes | None]:
    return _simulated(spec, threads, room, _KernelInputs(*arguments), with_slots=True)[:2]


def _simulated(
    spec: LayerSpec,
    threads: int | None,
    room: int | None,
    inputs: _KernelInputs,
    *,
    with_slots: bool,
) -> tuple[LayerSpikes, FirstSpikes | None, _Stored]:
    """Return the spikes, the first of them, and what the backward pass needs of them.

    Args:
        with_slots: whether to write all slots, even if only the first spikes are stored.
    """
    batch, neurons = inputs.time.shape[0], inputs.constants.tau_mem.size
    slots = slots_of(spec, batch, neurons, inputs.weight.dtype)
    real, integers = (partial(jax.ShapeDtypeStruct, dtype=slots[n].dtype) for n in (0, 3))
    capacity = (batch, room or 0)
    first_shapes = (
        *(real(capacity), real(capacity)),
        real(capacity if spec.assigns else (batch, 0)),
        integers(capacity if spec.neuron.jumps else (batch, 0)),
        integers(capacity),
    )
    if room is not None and not with_slots:
        none = batch, neurons, 0
        slots = real(none), real(none), real(none), integers((batch, neurons)), integers(none)
    outputs = kernel("jaxsnn_scatter_forward", (*slots, *first_shapes))(
        *inputs.arrays(spec.neuron),
        max_spikes=np.int64(spec.max_spikes),
        counted=np.int64(spec.counted),
        once=bool(spec.once),
        **kernel_options(spec),
        threads=np.int64(thread_count(threads)),
    )
    outputs = match_device_axes(tuple(outputs), inputs.weight, inputs.time)
    time, slope, after, count, cause, *of_first = outputs
    if room is None:
        # no -1 in reshape: arrays may be empty
        flat_time, flat_slope, flat_after, flat_cause = (
            array.reshape(batch, neurons * array.shape[2]) for array in (time, slope, after, cause)
        )
        stored = _Stored(flat_time, flat_slope, flat_after, flat_cause, place=of_first[-1])
        return LayerSpikes(time=time, slope=slope, count=count), None, stored
    stored = _Stored(*of_first)
    if not with_slots:
        shape, samples = (batch, neurons, spec.max_spikes), jnp.arange(batch)[:, None]

        def at_slots(values: Float[Array, "batch room"], unused: float) -> OfSpikes:
            empty = jnp.full((batch, neurons * spec.max_spikes), unused, values.dtype)
            entries = empty.at[samples, stored.place]
            return entries.set(values, unique_indices=True, mode="promise_in_bounds").reshape(shape)

        time, slope = at_slots(stored.time, jnp.inf), at_slots(stored.slope, 1.0)
    spikes = LayerSpikes(time=time, slope=slope, count=count)
    return spikes, FirstSpikes(stored.time, stored.place, stored.slope), stored


def _forward(
    spec: LayerSpec, threads: int | None, room: int | None, *arguments: Any
) -> tuple[tuple[LayerSpikes, FirstSpikes | None], _Residuals]:
    """Return the spikes and the residuals of the backward pass. Each argument carries whether it is
    perturbed.
    """
    values = _KernelInputs(*values_of(arguments))
    spikes, first, stored = _simulated(spec, threads, room, values, with_slots=False)
    residuals = _Residuals(
        inputs=values,
        spikes=stored,
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
    by_slot: Any = cotangent[0].time
    drive = jnp.zeros(spikes.time.shape, dtype)
    if not isinstance(by_slot, SymbolicZero):
        by_slot = by_slot.reshape(batch, inputs.constants.tau_mem.size * spec.max_spikes)
        drive = by_slot if cotangent[1] is None else gather_along(by_slot, spikes.place, 1)
    if cotangent[1] is not None and not isinstance(cotangent[1].time, SymbolicZero):
        drive = drive + cotangent[1].time
    of_time = inputs.time.shape if residuals.required.time else (0,)
    shapes = inputs.weight.shape, gradient_shape(inputs.constants, residuals.required), of_time
    results = tuple(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes)
    gradients = kernel("jaxsnn_scatter_backward", results)(
        *(
            *inputs.arrays(spec.neuron),
            *(spikes.time, spikes.slope, spikes.slope_after, spikes.cause),
            *(drive, spikes.place),
        ),
        max_spikes=np.int64(spec.max_spikes),
        **kernel_options(spec),
        min_slope=np.float64(spec.min_slope),
        threads=np.int64(thread_count(threads)),
    )
    d_weight, d_stacked, d_time = match_device_axes(
        tuple(gradients), inputs.weight, inputs.time, drive
    )
    d_time = d_time if residuals.required.time else jnp.zeros_like(inputs.time)
    return d_weight, unstacked(d_stacked, inputs.constants), d_time, None, None, None, None


_scattered.defvjp(usual_promotion(_forward), usual_promotion(_backward), symbolic_zeros=True)
