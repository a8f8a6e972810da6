"""A feed-forward population in the native backend: as `adjoint.layer_adjoint.layer_spikes`."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float, Int

from jaxsnn.event.dynamics.two_variables import Lanes
from jaxsnn.event.event_arrays import OfSpikes, Rows, Seconds, Times, Weights
from jaxsnn.event.forward.layer import LayerSpec, LayerSpikes
from jaxsnn.event.native.native_build import thread_count
from jaxsnn.network.meshes import varying_like

#: The fields in the order of `Field` in layer.h.
_FIELDS = ("threshold", "v_reset", "v_start", "j_start", "tau_mem", "tau_syn")
assert {field.name for field in fields(Lanes)} == set(_FIELDS)


class _Ordered(NamedTuple):
    """Arrivals before the end in the order of time, as the kernels keep them."""

    time: Times
    row: Int[Array, "batch arrivals"]
    slot: Int[Array, "batch arrivals"]  # that they had
    used: Int[Array, "batch"]  # how many there are


class _Residuals(NamedTuple):
    """What the backward pass needs. `of_lanes`, `of_time`: (), if those gradients are asked for."""

    weight: Weights
    lanes: Lanes
    t_end: Seconds
    arrivals: _Ordered
    spikes: LayerSpikes
    slope_after: OfSpikes
    of_lanes: tuple[()] | None
    of_time: tuple[()] | None


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def native_layer_spikes(
    spec: LayerSpec,
    threads: int | None,
    weight: Weights,
    lanes: Lanes,
    time: Times,
    row: Rows,
    t_end: Seconds,
) -> LayerSpikes:
    """Spikes of one population, differentiable as `layer_spikes`, whose arguments these are.

    Args:
        threads: that take part; None: as many as there are processors. Results do not depend on it.
    """
    return _simulated(spec, threads, weight, lanes, time, row, t_end)[0]


def _stacked(lanes: Lanes) -> Float[Array, "fields positions neurons"]:
    """The lanes in one array."""
    array = jnp.stack([getattr(lanes, name) for name in _FIELDS])
    return array.reshape(len(_FIELDS), -1, array.shape[-1])


def _simulated(
    spec: LayerSpec,
    threads: int | None,
    weight: Weights,
    lanes: Lanes,
    time: Times,
    row: Rows,
    t_end: Seconds,
) -> tuple[LayerSpikes, OfSpikes, _Ordered]:
    """Spikes, V' behind refractory times (nothing without these), and the arrivals in order."""
    dtype, (batch, arrivals), neurons = weight.dtype, time.shape, weight.shape[1]
    slots = (batch, neurons, spec.max_spikes)
    held = (batch, neurons, spec.max_spikes if spec.refractory else 0)
    real = partial(jax.ShapeDtypeStruct, dtype=dtype)
    whole = partial(jax.ShapeDtypeStruct, dtype=jnp.int32)
    ordered = (real((batch, arrivals)), *(whole((batch, arrivals)),) * 2, whole((batch,)))
    results = (real(slots), real(slots), real(held), whole((batch, neurons)), *ordered)
    call = jax.ffi.ffi_call("jaxsnn_layer_forward", results, vmap_method="sequential")
    end = jnp.asarray(t_end, dtype)
    found = call(
        weight,
        _stacked(lanes),
        time,
        row.astype(jnp.int32),
        end,
        max_spikes=np.int64(spec.max_spikes),
        counted=np.int64(spec.counted),
        once=bool(spec.once),
        subtract=bool(spec.neuron.keeps_overshoot),
        refractory=np.float64(spec.refractory),
        threads=np.int64(thread_count(threads)),
    )
    spike_time, slope, slope_after, count, *in_order = varying_like(tuple(found), weight, time)
    spikes = LayerSpikes(time=spike_time, slope=slope, count=count)
    return spikes, slope_after, _Ordered(*in_order)


def _forward(
    spec: LayerSpec, threads: int | None, *given: Any
) -> tuple[LayerSpikes, _Residuals]:
    """Spikes, and what the backward pass needs; each argument knows whether it is perturbed."""
    weight, lanes, time, row, t_end = jax.tree.map(
        lambda leaf: leaf.value, given, is_leaf=lambda leaf: hasattr(leaf, "perturbed")
    )
    spikes, slope_after, arrivals = _simulated(spec, threads, weight, lanes, time, row, t_end)
    residuals = _Residuals(
        weight=weight,
        lanes=lanes,
        t_end=t_end,
        arrivals=arrivals,
        spikes=spikes,
        slope_after=slope_after,
        of_lanes=() if _perturbed(given[1]) else None,
        of_time=() if _perturbed(given[2]) else None,
    )
    return spikes, residuals


def _perturbed(tree: Any) -> bool:
    """Whether a derivative by any part of an argument is asked for."""
    leaves = jax.tree.leaves(tree, is_leaf=lambda leaf: hasattr(leaf, "perturbed"))
    return any(leaf.perturbed for leaf in leaves)


def _backward(
    spec: LayerSpec, threads: int | None, kept: _Residuals, cotangent: LayerSpikes
) -> tuple[Weights, Lanes, Times, None, None]:
    dtype, weight, arrivals = kept.weight.dtype, kept.weight, kept.arrivals
    lanes = _stacked(kept.lanes)
    drive = cotangent.time
    if isinstance(drive, SymbolicZero):
        drive = jnp.zeros(drive.shape, dtype)
    of_lanes = lanes.shape if kept.of_lanes is not None else (0,)
    of_time = arrivals.time.shape if kept.of_time is not None else (0,)
    results = tuple(
        jax.ShapeDtypeStruct(shape, dtype) for shape in (weight.shape, of_lanes, of_time)
    )
    call = jax.ffi.ffi_call("jaxsnn_layer_backward", results, vmap_method="sequential")
    found = call(
        weight,
        lanes,
        *arrivals,
        jnp.asarray(kept.t_end, dtype),
        kept.spikes.time,
        kept.spikes.slope,
        kept.slope_after,
        drive,
        subtract=bool(spec.neuron.keeps_overshoot),
        refractory=np.float64(spec.refractory),
        min_slope=np.float64(spec.min_slope),
        threads=np.int64(thread_count(threads)),
    )
    d_weight, d_stacked, d_time = varying_like(tuple(found), weight, arrivals.time, drive)
    if kept.of_lanes is None:
        d_lanes = jax.tree.map(jnp.zeros_like, kept.lanes)
    else:
        parts = zip(_FIELDS, d_stacked, strict=True)
        shape = kept.lanes.tau_mem.shape
        d_lanes = Lanes(**{name: part.reshape(shape) for name, part in parts})
    if kept.of_time is None:
        d_time = jnp.zeros_like(arrivals.time)
    return d_weight, d_lanes, d_time, None, None


native_layer_spikes.defvjp(_forward, _backward, symbolic_zeros=True)
