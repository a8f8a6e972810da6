"""A population that feeds back into itself, in the native backend: as
`adjoint.recurrent_adjoint.group_spikes`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float, Int

from jaxsnn.event.dynamics.two_variables import Lanes
from jaxsnn.event.event_arrays import Feedback, OutsideArrivals, Rows, Seconds, Times, Weights
from jaxsnn.event.forward.group import GroupSpec, GroupSpikes
from jaxsnn.event.forward.layer import LayerSpikes
from jaxsnn.event.native.native_build import kernel, thread_count
from jaxsnn.event.native.native_layer import Ordered, is_perturbed, stacked, unstacked, values_of
from jaxsnn.network.meshes import varying_like


class _Outcome(NamedTuple):
    """Spikes of a group; those of a train in the order in which they act."""

    spikes: LayerSpikes
    time: Float[Array, "batch events"]  # inf where unused
    neuron: Int[Array, "batch events"]
    needed: Int[Array, "batch"]  # events that there are


class _Log(NamedTuple):
    """What happened, in order; see `Log` in group.h."""

    wait: Float[Array, "batch steps"]
    row: Int[Array, "batch steps"]
    slope: Float[Array, "batch steps"]
    used: Int[Array, "batch"]


class _Kept(NamedTuple):
    """What the backward pass needs. `of_lanes`, `of_time`: (), if those gradients are asked for."""

    table: Weights
    lanes: Lanes
    t_end: Seconds
    outcome: _Outcome
    log: _Log
    arrivals: Ordered
    of_lanes: tuple[()] | None
    of_time: tuple[()] | None


def native_group_spikes(
    spec: GroupSpec,
    threads: int | None,
    arrivals: OutsideArrivals,
    feedback: Feedback,
    lanes: tuple[Lanes, ...],
    t_end: Seconds,
) -> GroupSpikes:
    """Spikes of a group of one population, differentiable as `group_spikes`, whose arguments these
    are.

    Args:
        threads: that take part; None: as many as there are processors. Results do not depend on it.
    """
    ((weight, time, row),) = arrivals
    size = weight.shape[1]
    own = [jnp.eye(size, dtype=weight.dtype) if w is None else w for w, _ in feedback]
    # What arrives from outside, and below it a row for each neuron's own spikes.
    table = jnp.concatenate([weight, jnp.asarray(sum(own))])
    found: Any = _group(spec, threads, table, lanes[0], time, row, t_end)
    return GroupSpikes(
        spikes=(found.spikes,),
        trains=((found.time, found.neuron),),
        events_needed=found.needed,
    )


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _group(
    spec: GroupSpec,
    threads: int | None,
    table: Weights,
    lanes: Lanes,
    time: Times,
    row: Rows,
    t_end: Seconds,
) -> _Outcome:
    return _simulated(spec, threads, table, lanes, time, row, t_end)[0]


def _simulated(
    spec: GroupSpec,
    threads: int | None,
    table: Weights,
    lanes: Lanes,
    time: Times,
    row: Rows,
    t_end: Seconds,
) -> tuple[_Outcome, _Log, Ordered]:
    """The simulation, by the kernel."""
    layer, dtype = spec.layers[0], table.dtype
    (batch, arrivals), neurons = time.shape, table.shape[1]
    slots, steps = (batch, neurons, layer.max_spikes), (batch, arrivals + spec.max_events)
    train, listed = (batch, spec.max_events), (batch, arrivals)
    real = partial(jax.ShapeDtypeStruct, dtype=dtype)
    whole = partial(jax.ShapeDtypeStruct, dtype=jnp.int32)
    results = (
        *(real(slots), real(slots), whole((batch, neurons))),
        *(real(train), whole(train), whole((batch,))),
        *(real(steps), whole(steps), real(steps), whole((batch,))),
        *(real(listed), whole(listed), whole(listed), whole((batch,))),
    )
    found = kernel("jaxsnn_group_forward", results)(
        *(table, stacked(lanes), time, row.astype(jnp.int32), jnp.asarray(t_end, dtype)),
        max_spikes=np.int64(layer.max_spikes),
        once=bool(layer.once),
        subtract=bool(layer.neuron.keeps_overshoot),
        threads=np.int64(thread_count(threads)),
    )
    found = varying_like(tuple(found), table, time)
    spikes = LayerSpikes(time=found[0], slope=found[1], count=found[2])
    return _Outcome(spikes, *found[3:6]), _Log(*found[6:10]), Ordered(*found[10:])


def _forward(spec: GroupSpec, threads: int | None, *given: Any) -> tuple[_Outcome, _Kept]:
    """Spikes, and what the backward pass needs; each argument knows whether it is perturbed."""
    values = values_of(given)
    outcome, log, arrivals = _simulated(spec, threads, *values)
    table, lanes, _, _, t_end = values
    kept = _Kept(
        table=table,
        lanes=lanes,
        t_end=t_end,
        outcome=outcome,
        log=log,
        arrivals=arrivals,
        of_lanes=() if is_perturbed(given[1]) else None,
        of_time=() if is_perturbed(given[2]) else None,
    )
    return outcome, kept


def _backward(
    spec: GroupSpec, threads: int | None, kept: _Kept, cotangent: _Outcome
) -> tuple[Weights, Lanes, Times, None, None]:
    layer, dtype = spec.layers[0], kept.table.dtype
    lanes, arrivals = stacked(kept.lanes), kept.arrivals
    of_lanes = lanes.shape if kept.of_lanes is not None else (0,)
    of_time = arrivals.time.shape if kept.of_time is not None else (0,)
    shapes = kept.table.shape, of_lanes, of_time
    spikes, outcome = kept.outcome.spikes, kept.outcome
    drives = [
        jnp.zeros(drive.shape, dtype) if isinstance(drive, SymbolicZero) else drive
        for drive in (cotangent.spikes.time, cotangent.time)
    ]
    results = tuple(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes)
    found = kernel("jaxsnn_group_backward", results)(
        *(kept.table, lanes, jnp.asarray(kept.t_end, dtype)),
        *(spikes.time, spikes.slope, spikes.count, *outcome[1:], *kept.log, *arrivals, *drives),
        subtract=bool(layer.neuron.keeps_overshoot),
        min_slope=np.float64(layer.min_slope),
        threads=np.int64(thread_count(threads)),
    )
    d_table, d_stacked, d_time = varying_like(tuple(found), kept.table, arrivals.time, drives)
    d_lanes = jax.tree.map(jnp.zeros_like, kept.lanes)
    if kept.of_lanes is not None:
        d_lanes = unstacked(d_stacked, kept.lanes)
    return (
        d_table,
        d_lanes,
        d_time if of_time != (0,) else jnp.zeros_like(arrivals.time),
        None,
        None,
    )


_group.defvjp(_forward, _backward, symbolic_zeros=True)
