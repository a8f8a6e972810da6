"""A feed-forward population in the native backend, the counterpart of
`adjoint.layer_adjoint.layer_spikes`.

The forward and the backward pass are one call of a kernel each. Second derivatives, for which these
calls are differentiated, use the XLA implementation of the same equations.
"""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.dtypes import float0

from jaxsnn.event.adjoint.layer_adjoint import Residuals, layer_backward, slopes_after
from jaxsnn.event.adjoint.required_gradients import GradientFlags, RequiredGradients, values_of
from jaxsnn.event.dynamics.integrated_neuron import IntegratedNeuron
from jaxsnn.event.dynamics.neuron_model import Neuron
from jaxsnn.event.dynamics.two_variables import Constants
from jaxsnn.event.event_arrays import NeuronConstants, OfSpikes, Rows, Seconds, Times, Weights
from jaxsnn.event.forward.layer import LayerSpec, LayerSpikes
from jaxsnn.event.forward.simulate_layer import simulate_layer
from jaxsnn.event.native.native_build import kernel, thread_count
from jaxsnn.event.native.native_integrated import (
    integrated_backward,
    integrated_forward,
    integrated_gradients_required,
    refuse_second_derivatives,
)
from jaxsnn.event.native.native_limits import is_built_in
from jaxsnn.event.native.native_linear import (
    linear_backward,
    linear_forward,
    linear_gradients_required,
)
from jaxsnn.network.array_types import Array, Float, Int
from jaxsnn.network.lookups import gather_along
from jaxsnn.network.meshes import match_device_axes
from jaxsnn.network.promotion import usual_promotion

#: Fields of the constants in the order of `Field` in tiles.h.
_LEVELS, _TAUS = ("threshold", "v_reset", "v_start", "j_start"), ("tau_mem", "tau_syn")
_FIELDS = (*_LEVELS, *_TAUS)
assert {field.name for field in fields(Constants)} == set(_FIELDS)


class Ordered(NamedTuple):
    """Arrivals before the end of the simulation, sorted by time, in the layout of the kernels."""

    time: Times  # inf after the last arrival
    row: Int[Array, "batch arrivals"]  # row of the weights; len(weight) stands for a row of zeros
    slot: Int[Array, "batch arrivals"]  # index of the arrival before sorting
    used: Int[Array, "batch"]  # number of arrivals

    def numbers(self, of: Int[Array, "batch arrivals"], none: int) -> Int[Array, "batch arrivals"]:
        """Return the rows or slots, with `none` in the entries after the last arrival, which the
        kernels do not write.
        """
        return jnp.where(self.time < jnp.inf, of, none)


class Simulated(NamedTuple):
    """Outcome of a simulation."""

    spikes: LayerSpikes
    #: V' after each spike; no slots if spikes only subtract from V. For models that the kernels do
    #: not know: the state just before each spike, with an axis of variables
    slope_after: Float[Array, "batch neurons slots *variables"]
    #: number of the arrival that caused each spike (from 1, in sorted order), or 0; no slots if
    #: arrivals do not increment V
    cause: Int[Array, "batch neurons slots"]
    arrivals: Ordered


class Kept(NamedTuple):
    """Residuals of the backward pass."""

    weight: Weights
    constants: NeuronConstants
    t_end: Seconds
    simulated: Simulated
    gradient_flags: GradientFlags

    @property
    def required(self) -> RequiredGradients:
        """Gradients that are required besides the gradient with respect to the weights."""
        return RequiredGradients.by(self.gradient_flags)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def native_layer_spikes(
    spec: LayerSpec,
    threads: int | None,
    weight: Weights,
    constants: NeuronConstants,
    time: Times,
    row: Rows,
    t_end: Seconds,
) -> LayerSpikes:
    """Return the spikes of one population, differentiable, with the arguments of `layer_spikes`.

    Args:
        threads: number of threads; None: the number of processors. Results do not depend on it.
    """
    return _simulated(spec, threads, weight, constants, time, row, t_end).spikes


# ---- forward pass


def stacked(constants: Constants) -> Float[Array, "fields positions neurons"]:
    """Stack the fields of the constants into one array."""
    array = jnp.stack([getattr(constants, name) for name in _FIELDS])
    return array if array.ndim == 3 else array[:, None]


def unstacked(array: Float[Array, "fields positions neurons"], like: Constants) -> Constants:
    """Invert `stacked`, in the shape of some constants; fields that the array lacks (all, or the
    last ones) are 0.
    """
    there = dict(zip(_FIELDS, array, strict=False))
    missing = jnp.zeros_like(like.tau_mem)
    parts = ((name, there.get(name, missing)) for name in _FIELDS)
    return Constants(**{name: part.reshape(like.tau_mem.shape) for name, part in parts})


def gradient_shape(constants: NeuronConstants, needs_grad: RequiredGradients) -> tuple[int, ...]:
    """Return the shape of a kernel's gradient with respect to the constants: all fields, all but
    the time constants, or empty.
    """
    fields, neurons = _FIELDS if needs_grad.taus else _LEVELS, constants.tau_mem.shape
    positions = neurons if len(neurons) == 2 else (1, *neurons)
    return (len(fields), *positions) if needs_grad.constants else (0,)


def masked_gradient(gradient: Constants, needs_grad: RequiredGradients) -> Constants:
    """Return the gradient with respect to the constants, set to 0 where it is not required."""
    missing = () if needs_grad.taus else _TAUS
    missing = missing if needs_grad.constants else _FIELDS
    return replace(gradient, **{name: jnp.zeros_like(gradient.tau_mem) for name in missing})


def with_infinite_taus(neuron: Neuron, constants: Constants) -> Constants:
    """Return the constants with a time constant of inf for each quantity that does not decay, as
    the kernels expect.
    """
    never = jnp.full_like(constants.tau_mem, jnp.inf)
    undecaying = {"tau_mem", "tau_syn"} - set(neuron.flow_fields)
    return replace(constants, **dict.fromkeys(undecaying, never))


def kernel_constants(
    neuron: Neuron, constants: Constants
) -> Float[Array, "fields positions neurons"]:
    """Return all neuron parameters that the kernels read, in one array."""
    return stacked(with_infinite_taus(neuron, constants))


def kernel_options(spec: LayerSpec) -> dict[str, Any]:
    """Return the options of a population for the kernels of both passes."""
    neuron: Any = spec.neuron
    return {
        "subtract": bool(neuron.keeps_overshoot),
        "refractory": np.float64(spec.refractory),
        "jumps": bool(neuron.jumps),
        "strict": bool(neuron.jumps and not neuron.fires_at_equality),
    }


def slots_of(spec: LayerSpec, lists: int, neurons: int, dtype: Any) -> tuple[Any, ...]:
    """Return the shapes of a kernel's results for each spike: time, slope, V' after it, spike
    counts and causes.
    """
    shape = lists, neurons
    slots, none = (*shape, spec.max_spikes), (*shape, 0)
    real = partial(jax.ShapeDtypeStruct, dtype=dtype)
    integers = partial(jax.ShapeDtypeStruct, dtype=jnp.int32)
    after = real(slots if spec.assigns else none)
    cause = integers(slots if spec.neuron.jumps else none)
    return real(slots), real(slots), after, integers(shape), cause


def ordered_shapes(time: Times) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Return the shapes of the arrivals that a kernel sorts, as in `Ordered`."""
    integers = partial(jax.ShapeDtypeStruct, dtype=jnp.int32)
    slots = (integers(time.shape),) * 2
    return jax.ShapeDtypeStruct(time.shape, time.dtype), *slots, integers(time.shape[:1])


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _simulated(
    spec: LayerSpec,
    threads: int | None,
    weight: Weights,
    constants: NeuronConstants,
    time: Times,
    row: Rows,
    t_end: Seconds,
) -> Simulated:
    """Simulate the population with the kernel."""
    if isinstance(spec.neuron, IntegratedNeuron):
        arguments = weight, constants, time, row, t_end
        outputs = integrated_forward(spec, threads, *arguments, ordered_shapes(time))
        spike_time, slope, count, *ordered = match_device_axes(outputs, weight, time)
        spikes = LayerSpikes(time=spike_time, slope=slope, count=count)
        after = jnp.zeros((*count.shape, 0), weight.dtype)
        cause = jnp.zeros((*count.shape, 0), jnp.int32)
        return Simulated(spikes, after, cause, Ordered(*ordered))
    if not is_built_in(spec.neuron):
        arguments = weight, constants, time, row, t_end
        outputs = linear_forward(spec, threads, *arguments, ordered_shapes(time))
        spike_time, slope, state, count, *ordered = match_device_axes(outputs, weight, time)
        spikes = LayerSpikes(time=spike_time, slope=slope, count=count)
        cause = jnp.zeros((*count.shape, 0), jnp.int32)
        return Simulated(spikes, state, cause, Ordered(*ordered))
    dtype, neurons = weight.dtype, weight.shape[1]
    results = (*slots_of(spec, time.shape[0], neurons, dtype), *ordered_shapes(time))
    call = kernel("jaxsnn_layer_forward", results)
    outputs = call(
        weight,
        kernel_constants(spec.neuron, constants),
        time,
        row.astype(jnp.int32),
        jnp.asarray(t_end, dtype),
        max_spikes=np.int64(spec.max_spikes),
        counted=np.int64(spec.counted),
        once=bool(spec.once),
        **kernel_options(spec),
        threads=np.int64(thread_count(threads)),
    )
    outputs = match_device_axes(tuple(outputs), weight, time)
    spikes = LayerSpikes(time=outputs[0], slope=outputs[1], count=outputs[3])
    return Simulated(spikes, outputs[2], outputs[4], Ordered(*outputs[5:]))


@_simulated.defjvp
@usual_promotion
def _(
    spec: LayerSpec, threads: int | None, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[Simulated, Simulated]:
    """Simulate with the kernel, and compute the tangents with XLA."""
    refuse_second_derivatives(spec.neuron)
    simulated = _simulated(spec, threads, *primals)
    *moving, row, t_end = primals
    there, slot = (
        simulated.arrivals.time < jnp.inf,
        simulated.arrivals.numbers(simulated.arrivals.slot, 0),
    )

    def by_xla(
        weight: Weights, constants: NeuronConstants, time: Times
    ) -> tuple[OfSpikes, OfSpikes, OfSpikes, Times]:
        spikes, causes = simulate_layer(spec, weight, constants, time, row, t_end)
        after = jnp.zeros_like(simulated.slope_after)
        if spec.refractory:
            residuals = Residuals(weight, constants, time, row, spikes.time, spikes.slope, causes)
            after = slopes_after(spec, residuals)
        elif is_built_in(spec.neuron) and spec.assigns and causes is not None:
            after = causes.slope_after
        ordered = jnp.where(there, gather_along(time, slot, 1), jnp.inf)
        return spikes.time, spikes.slope, after, ordered

    time, slope, after, ordered = jax.jvp(by_xla, tuple(moving), tangents[:3])[1]
    still = jax.tree.map(_no_tangent, simulated)
    spikes = LayerSpikes(time=time, slope=slope, count=still.spikes.count)
    arrivals = still.arrivals._replace(time=ordered)
    return simulated, still._replace(spikes=spikes, slope_after=after, arrivals=arrivals)


def _no_tangent(array: Array) -> Any:
    """Return the zero tangent of an array that is not differentiated."""
    if jnp.issubdtype(array.dtype, jnp.floating):
        return jnp.zeros_like(array)
    return np.zeros(array.shape, float0)  # the tangent type that JAX expects for integers


def _forward(spec: LayerSpec, threads: int | None, *arguments: Any) -> tuple[LayerSpikes, Kept]:
    """Return the spikes and the residuals of the backward pass. Each argument carries whether it is
    perturbed.
    """
    values = values_of(arguments)
    simulated = _simulated(spec, threads, *values)
    weight, constants, _, _, t_end = values
    required = RequiredGradients.of
    if isinstance(spec.neuron, IntegratedNeuron):
        required = integrated_gradients_required
    elif not is_built_in(spec.neuron):
        required = partial(linear_gradients_required, spec.neuron)
    residuals = Kept(
        weight=weight,
        constants=constants,
        t_end=t_end,
        simulated=simulated,
        gradient_flags=required(arguments[1], arguments[2]).gradient_flags,
    )
    return simulated.spikes, residuals


# ---- backward pass


def native_backward(
    spec: LayerSpec, threads: int | None, residuals: Kept, cotangent: LayerSpikes
) -> tuple[Weights, NeuronConstants, Times, None, None]:
    """Return the gradients with respect to the arguments of `native_layer_spikes`."""
    drive: Any = cotangent.time
    if isinstance(drive, SymbolicZero):
        drive = jnp.zeros(drive.shape, residuals.weight.dtype)
    inputs = residuals.weight, residuals.constants, residuals.t_end, residuals.simulated, drive
    gradients = _gradients(spec, threads, residuals.required, *inputs)
    d_weight, d_constants, d_time = match_device_axes(gradients, inputs)
    return d_weight, d_constants, d_time, None, None


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _gradients(
    spec: LayerSpec,
    threads: int | None,
    needs_grad: RequiredGradients,
    weight: Weights,
    constants: NeuronConstants,
    t_end: Seconds,
    simulated: Simulated,
    drive: OfSpikes,
) -> tuple[Weights, NeuronConstants, Times]:
    """Compute the gradients with respect to weight, constants and arrival times with the kernel; 0
    where they are not required.

    Args:
        drive: dL/dt of each spike.
    """
    spikes, slope_after, cause, arrivals = simulated
    if isinstance(spec.neuron, IntegratedNeuron):
        inputs = weight, constants, t_end, tuple(arrivals), spikes.time, drive
        return integrated_backward(spec, threads, needs_grad, *inputs)
    if not is_built_in(spec.neuron):
        outcome = spikes.time, spikes.slope, slope_after
        inputs = weight, constants, t_end, tuple(arrivals), outcome, drive
        return linear_backward(spec, threads, needs_grad, *inputs)
    dtype, all_constants = weight.dtype, kernel_constants(spec.neuron, constants)
    of_time = arrivals.time.shape if needs_grad.time else (0,)
    shapes = weight.shape, gradient_shape(constants, needs_grad), of_time
    results = tuple(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes)
    call = kernel("jaxsnn_layer_backward", results)
    end = jnp.asarray(t_end, dtype)
    d_weight, d_stacked, d_time = call(
        *(
            weight,
            all_constants,
            *arrivals,
            end,
            spikes.time,
            spikes.slope,
            slope_after,
            cause,
            drive,
        ),
        **kernel_options(spec),
        min_slope=np.float64(spec.min_slope),
        threads=np.int64(thread_count(threads)),
    )
    d_time = d_time if needs_grad.time else jnp.zeros_like(arrivals.time)
    return d_weight, unstacked(d_stacked, constants), d_time


@_gradients.defjvp
@usual_promotion
def _(
    spec: LayerSpec,
    threads: int | None,
    needs_grad: RequiredGradients,
    primals: tuple[Any, ...],
    tangents: tuple[Any, ...],
) -> tuple[tuple[Weights, NeuronConstants, Times], tuple[Weights, NeuronConstants, Times]]:
    """Compute the gradients with the kernel, and their tangents with XLA."""
    refuse_second_derivatives(spec.neuron)
    arrivals = primals[3].arrivals
    count = primals[3].spikes.count
    samples = jnp.arange(arrivals.time.shape[0])[:, None]

    def by_xla(
        weight: Weights,
        constants: NeuronConstants,
        time: Times,
        spike_time: OfSpikes,
        slope: OfSpikes,
        drive: OfSpikes,
    ) -> tuple[Weights, NeuronConstants, Times]:
        row, causes = arrivals.numbers(arrivals.row, weight.shape[0]), None
        if spec.neuron.jumps:
            causes = simulate_layer(spec, weight, constants, time, row, primals[2])[1]
        residuals = Residuals(weight, constants, time, row, spike_time, slope, causes)
        cotangent = LayerSpikes(time=drive, slope=drive, count=count)
        d_weight, d_constants, d_time, _, _ = layer_backward(spec, residuals, cotangent)
        # from sorted order to the slots of the arrivals
        slot = arrivals.numbers(arrivals.slot, time.shape[1])
        by_slot = jnp.zeros_like(d_time).at[samples, slot].set(d_time, mode="drop")
        return d_weight, d_constants, by_slot

    def moving(weight: Any, constants: Any, _: Any, simulated: Simulated, drive: Any) -> tuple:
        spikes = simulated.spikes
        return weight, constants, simulated.arrivals.time, spikes.time, spikes.slope, drive

    gradients = _gradients(spec, threads, needs_grad, *primals)
    d_weight, d_constants, d_time = jax.jvp(by_xla, moving(*primals), moving(*tangents))[1]
    d_time = d_time if needs_grad.time else jnp.zeros_like(d_time)
    if is_built_in(spec.neuron):
        d_constants = masked_gradient(d_constants, needs_grad)
    return gradients, (d_weight, d_constants, d_time)


native_layer_spikes.defvjp(
    usual_promotion(_forward), usual_promotion(native_backward), symbolic_zeros=True
)
