"""V of neurons that do not fire in the native backend, the counterpart of
`forward.readout.membrane`.

The forward and the backward pass are one call of a kernel each. Second derivatives, for which these
calls are differentiated, use the XLA implementation of the same equations.
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
from jaxsnn.event.event_arrays import Rows, Times, Weights
from jaxsnn.event.forward.readout import Drive, membrane
from jaxsnn.event.native.native_build import kernel, thread_count
from jaxsnn.event.native.native_layer import (
    gradient_shape,
    kernel_constants,
    masked_gradient,
    unstacked,
)
from jaxsnn.network.array_types import Array, Float
from jaxsnn.network.meshes import match_device_axes
from jaxsnn.network.promotion import usual_promotion

Samples = Float[Array, "samples"]
Voltages = Float[Array, "batch samples neurons"]


class _KernelInputs(NamedTuple):
    """Inputs of the kernels."""

    weight: Weights
    constants: Constants
    time: Times
    row: Rows
    samples: Samples

    def arrays(self, neuron: Neuron) -> tuple[Any, ...]:
        """Return the arguments of a kernel: sample times become arrivals without a row, after the
        arrivals of the same time.
        """
        weight, constants, time, row, samples = self
        batch, dtype = time.shape[0], weight.dtype
        all_times = [time, jnp.broadcast_to(samples, (batch, *samples.shape)).astype(dtype)]
        none = jnp.full((*row.shape[:-1], *samples.shape), -1, jnp.int32)
        rows = jnp.concatenate([row.astype(jnp.int32), none], axis=-1)
        end = jnp.asarray(jnp.inf, dtype)
        return (
            weight,
            kernel_constants(neuron, constants),
            jnp.concatenate(all_times, axis=1),
            rows,
            end,
        )


class _Residuals(NamedTuple):
    """Residuals of the backward pass."""

    inputs: _KernelInputs
    gradient_flags: GradientFlags


def native_membrane(drive: Drive, threads: int | None, sample_times: Samples) -> Voltages:
    """Return V of a population without spikes at some sample times, differentiable as `membrane`.

    Args:
        drive: inputs of the population, whose neurons have `Constants` (neurons,).
        threads: number of threads; None: the number of processors. Results do not depend on it.
        sample_times: seconds.
    """
    inputs = drive.weight, drive.constants, drive.time, drive.row, sample_times
    v: Any = _membrane(drive.neuron, threads, *match_device_axes(inputs))
    return v + drive.v_inf


def _by_xla(neuron: Neuron, *arguments: Any) -> Voltages:
    weight, constants, time, row, samples = arguments
    still = jnp.zeros_like(constants.v_start)
    drive = Drive(
        neuron=neuron, constants=constants, v_inf=still, weight=weight, time=time, row=row
    )
    return membrane(drive, samples)


def _backwards_by_xla(neuron: Neuron, inputs: _KernelInputs, drive: Voltages) -> tuple[Any, ...]:
    """Compute the gradients with respect to weight, constants, arrival times and sample times with
    XLA.
    """

    def of(weight: Weights, constants: Constants, time: Times, samples: Samples) -> Voltages:
        return _by_xla(neuron, weight, constants, time, inputs.row, samples)

    return jax.vjp(of, inputs.weight, inputs.constants, inputs.time, inputs.samples)[1](drive)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _membrane(neuron: Neuron, threads: int | None, *arguments: Any) -> Voltages:
    return _simulated(neuron, threads, *arguments)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _simulated(neuron: Neuron, threads: int | None, *arguments: Any) -> Voltages:
    """Compute V with the kernel."""
    values = _KernelInputs(*arguments)
    shape = values.time.shape[0], values.samples.shape[0], values.weight.shape[1]
    result = jax.ShapeDtypeStruct(shape, values.weight.dtype)
    outputs = kernel("jaxsnn_readout_forward", (result,))(
        *values.arrays(neuron), jumps=bool(neuron.jumps), threads=np.int64(thread_count(threads))
    )
    return match_device_axes(outputs[0], values.weight, values.time)


@_simulated.defjvp
@usual_promotion
def _(
    neuron: Neuron, threads: int | None, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[Voltages, Voltages]:
    """Simulate with the kernel, and compute the tangents with XLA."""
    moved = jax.jvp(partial(_by_xla, neuron), primals, tangents)[1]
    return _simulated(neuron, threads, *primals), moved


def _forward(neuron: Neuron, threads: int | None, *arguments: Any) -> tuple[Voltages, _Residuals]:
    """Return V and the residuals of the backward pass. Each argument carries whether it is
    perturbed.
    """
    values = _KernelInputs(*values_of(arguments))
    needs_grad = RequiredGradients.of(arguments[1], arguments[2], arguments[4]).gradient_flags
    return _simulated(neuron, threads, *values), _Residuals(values, needs_grad)


def _backward(
    neuron: Neuron, threads: int | None, residuals: _Residuals, drive: Any
) -> tuple[Weights, Constants, Times, None, Samples]:
    inputs, needs_grad = residuals.inputs, RequiredGradients.by(residuals.gradient_flags)
    if isinstance(drive, SymbolicZero):
        drive = jnp.zeros(drive.shape, inputs.weight.dtype)
    if needs_grad.samples:
        d_weight, d_constants, d_time, d_samples = _backwards_by_xla(neuron, inputs, drive)
        return d_weight, d_constants, d_time, None, d_samples
    gradients = _gradients(neuron, threads, needs_grad, inputs, drive)
    d_weight, d_constants, d_time = match_device_axes(gradients, inputs, drive)
    return d_weight, d_constants, d_time, None, jnp.zeros_like(inputs.samples)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _gradients(
    neuron: Neuron,
    threads: int | None,
    needs_grad: RequiredGradients,
    inputs: _KernelInputs,
    drive: Voltages,
) -> tuple[Weights, Constants, Times]:
    """Compute the gradients with respect to weight, constants and arrival times with the kernel; 0
    where they are not required.
    """
    of_time = inputs.time.shape if needs_grad.time else (0,)
    shapes = inputs.weight.shape, gradient_shape(inputs.constants, needs_grad), of_time
    results = tuple(jax.ShapeDtypeStruct(shape, inputs.weight.dtype) for shape in shapes)
    d_weight, d_stacked, d_time = kernel("jaxsnn_readout_backward", results)(
        *inputs.arrays(neuron),
        drive,
        jumps=bool(neuron.jumps),
        threads=np.int64(thread_count(threads)),
    )
    d_time = d_time if needs_grad.time else jnp.zeros_like(inputs.time)
    return d_weight, unstacked(d_stacked, inputs.constants), d_time


@_gradients.defjvp
@usual_promotion
def _(
    neuron: Neuron,
    threads: int | None,
    needs_grad: RequiredGradients,
    primals: tuple[Any, ...],
    tangents: tuple[Any, ...],
) -> tuple[tuple[Weights, Constants, Times], tuple[Weights, Constants, Times]]:
    """Compute the gradients with the kernel, and their tangents with XLA."""

    def by_xla(inputs: _KernelInputs, drive: Voltages) -> tuple[Weights, Constants, Times]:
        d_weight, d_constants, d_time, _ = _backwards_by_xla(neuron, inputs, drive)
        d_time = d_time if needs_grad.time else jnp.zeros_like(d_time)
        return d_weight, masked_gradient(d_constants, needs_grad), d_time

    return _gradients(neuron, threads, needs_grad, *primals), jax.jvp(by_xla, primals, tangents)[1]


_membrane.defvjp(usual_promotion(_forward), usual_promotion(_backward), symbolic_zeros=True)
