"""A population behind a convolution or a pool in the native backend: each event goes to the positions
that it reaches, and no lists of what arrives at each are made for it.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from jaxsnn.event.adjoint.wanted import Wanted, values_of
from jaxsnn.event.dynamics.neuron_model import Neuron
from jaxsnn.event.dynamics.two_variables import Lanes
from jaxsnn.event.event_arrays import OfSpikes, Seconds, Times, Weights
from jaxsnn.event.forward.layer import LayerSpec, LayerSpikes
from jaxsnn.event.native.native_build import kernel, thread_count
from jaxsnn.event.native.native_layer import (
    gradient_shape,
    kernel_lanes,
    kernel_options,
    slots_of,
    unstacked,
)
from jaxsnn.event.projections.arrivals import Scattered
from jaxsnn.network.array_types import Array, Int
from jaxsnn.network.meshes import varying_like

Table = Int[Array, "channels taps"]


class _Given(NamedTuple):
    """What the kernels take."""

    weight: Weights
    lanes: Lanes
    time: Times  # of events, in order
    channel: Int[Array, "batch events"]
    place: Table
    row: Table
    t_end: Seconds

    def arrays(self, neuron: Neuron) -> tuple[Any, ...]:
        """As arguments of a kernel."""
        end = jnp.asarray(self.t_end, self.weight.dtype)
        whole = (array.astype(jnp.int32) for array in (self.channel, self.place, self.row))
        return self.weight, kernel_lanes(neuron, self.lanes), self.time, *whole, end


class _Kept(NamedTuple):
    """What the backward pass needs."""

    given: _Given
    spikes: LayerSpikes
    #: V' behind spikes, and their causes
    more: tuple[OfSpikes, Int[Array, "batch neurons slots"]]
    wanted: Wanted


def native_scattered_spikes(
    spec: LayerSpec,
    threads: int | None,
    weight: Weights,
    lanes: Lanes,
    events: Scattered,
    t_end: Seconds,
) -> LayerSpikes:
    """Spikes of one population, as `native_layer_spikes` finds them of the lists that the events make.

    Args:
        lanes: (positions, neurons at each).
        events: of each sample, in order.

    Returns:
        Arrays (batch, neurons * positions, ...).
    """
    place, row = jnp.asarray(events.place), jnp.asarray(events.row)
    return _scattered(spec, threads, weight, lanes, events.time, events.channel, place, row, t_end)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scattered(spec: LayerSpec, threads: int | None, *given: Any) -> LayerSpikes:
    return _simulated(spec, threads, _Given(*given))[0]


def _simulated(spec: LayerSpec, threads: int | None, given: _Given) -> tuple[LayerSpikes, Any]:
    """Spikes, and V' behind them and their causes (no slots where the gradient asks for none)."""
    batch, neurons = given.time.shape[0], given.lanes.tau_mem.size
    results = slots_of(spec, batch, neurons, given.weight.dtype)
    found = kernel("jaxsnn_scatter_forward", results)(
        *given.arrays(spec.neuron),
        max_spikes=np.int64(spec.max_spikes),
        counted=np.int64(spec.counted),
        once=bool(spec.once),
        **kernel_options(spec),
        threads=np.int64(thread_count(threads)),
    )
    time, slope, after, count, cause = varying_like(tuple(found), given.weight, given.time)
    return LayerSpikes(time=time, slope=slope, count=count), (after, cause)


def _forward(spec: LayerSpec, threads: int | None, *given: Any) -> tuple[LayerSpikes, _Kept]:
    """Spikes, and what the backward pass needs; each argument knows whether it is perturbed."""
    values = _Given(*values_of(given))
    spikes, more = _simulated(spec, threads, values)
    kept = _Kept(
        given=values,
        spikes=spikes,
        more=more,
        wanted=Wanted.of(given[1], given[2]),
    )
    return spikes, kept


def _backward(
    spec: LayerSpec, threads: int | None, kept: _Kept, cotangent: LayerSpikes
) -> tuple[Any, ...]:
    given, spikes = kept.given, kept.spikes
    dtype = given.weight.dtype
    drive: Any = cotangent.time
    if isinstance(drive, SymbolicZero):
        drive = jnp.zeros(drive.shape, dtype)
    of_time = given.time.shape if kept.wanted.time else (0,)
    shapes = given.weight.shape, gradient_shape(given.lanes, kept.wanted), of_time
    results = tuple(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes)
    found = kernel("jaxsnn_scatter_backward", results)(
        *(*given.arrays(spec.neuron), spikes.time, spikes.slope, *kept.more, drive),
        **kernel_options(spec),
        min_slope=np.float64(spec.min_slope),
        threads=np.int64(thread_count(threads)),
    )
    d_weight, d_stacked, d_time = varying_like(tuple(found), given.weight, given.time, drive)
    d_time = d_time if kept.wanted.time else jnp.zeros_like(given.time)
    return d_weight, unstacked(d_stacked, given.lanes), d_time, None, None, None, None


_scattered.defvjp(_forward, _backward, symbolic_zeros=True)
