"""Populations that feed back into each other, in the native backend: as
`adjoint.recurrent_adjoint.group_spikes`.

For the kernels a group is one population, of all neurons one behind the other; its table has zeros
where nothing goes from one to the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.typing import DTypeLike

from jaxsnn.event.adjoint.wanted import Asked, Wanted, values_of
from jaxsnn.event.dynamics.two_variables import Lanes
from jaxsnn.event.event_arrays import Feedback, OutsideArrivals, Rows, Seconds, Times, Weights
from jaxsnn.event.forward.deliveries import Delays
from jaxsnn.event.forward.group import GroupSpec, GroupSpikes
from jaxsnn.event.forward.layer import LayerSpikes
from jaxsnn.event.native.native_build import kernel, thread_count
from jaxsnn.event.native.native_layer import (
    Ordered,
    gradient_shape,
    stacked,
    unstacked,
    with_infinite_taus,
)
from jaxsnn.event.native.native_weights import turned_by_kernel
from jaxsnn.network.array_types import Array, Float, Int
from jaxsnn.network.meshes import varying_like
from jaxsnn.network.promotion import usual_promotion


class ByTarget(NamedTuple):
    """What the spikes of a population send to itself at once, as NIR has it: the kernels take it
    unturned and unscaled.
    """

    weight: Float[Array, "targets sources"]
    scale: Float[Array, "targets"]  # by which it is multiplied


class _Outcome(NamedTuple):
    """Spikes of a group; those of a train in the order in which they act."""

    spikes: LayerSpikes
    time: Float[Array, "batch events"]  # inf where unused
    neuron: Int[Array, "batch events"]
    needed: Int[Array, "batch"]  # events that there are
    nothing: Float[Array, ""]  # 0, or NaN where a weight of ByTarget, scaled, is not finite


@dataclass(frozen=True, kw_only=True)
class _OnePopulation:
    """What is static of all neurons of a group together; fields as of `LayerSpec` and `GroupSpec`.

    Attributes:
        subtract: a spike lowers V and keeps the overshoot.
        delayed: of each feedback edge with a delay (first neuron, number) of its source.
        immediate: whether something is fed back without a delay.
        held: of each population (neurons, refractory time); nothing where none has one.
        threads: that take part.
    """

    max_spikes: int
    max_events: int
    once: bool
    subtract: bool
    min_slope: float
    delayed: tuple[tuple[int, int], ...]
    immediate: bool
    held: tuple[tuple[int, float], ...]
    threads: int | None

    @property
    def senders(self) -> Int[np.ndarray, "delayed"]:
        """The neurons whose spikes arrive with a delay, edge by edge."""
        edges = [np.arange(first, first + size) for first, size in self.delayed]
        return np.concatenate([np.zeros(0, int), *edges]).astype(np.int32)

    @property
    def most_sent(self) -> int:
        """What comes later because of one spike, at most: deliveries, and the end of a refractory
        time.
        """
        return int(max(np.bincount(self.senders), default=0)) + bool(self.held)

    @property
    def refractory(self) -> Float[np.ndarray, "neurons"]:
        """Seconds for which each neuron is held; nothing where none is."""
        times = [np.full(size, seconds) for size, seconds in self.held]
        return np.concatenate([np.zeros(0), *times])


class _Log(NamedTuple):
    """What happened, in order; see `Log` in group.h."""

    wait: Float[Array, "batch steps"]
    row: Int[Array, "batch steps"]
    slope: Float[Array, "batch steps"]
    used: Int[Array, "batch"]
    origin: Int[Array, "batch steps"]  # no steps where nothing comes later than what sends it


class _Kept(NamedTuple):
    """What the backward pass needs."""

    table: Weights
    apart: ByTarget
    lanes: Lanes
    t_end: Seconds
    outcome: _Outcome
    log: _Log
    arrivals: Ordered
    asked: Asked

    @property
    def wanted(self) -> Wanted:
        """What is asked for beside the gradient by the weights."""
        return Wanted.by(self.asked)


def native_group_spikes(
    spec: GroupSpec,
    threads: int | None,
    arrivals: OutsideArrivals,
    feedback: Feedback,
    lanes: tuple[Lanes, ...],
    t_end: Seconds,
) -> tuple[GroupSpikes, Any]:
    """Spikes of a group, differentiable as `group_spikes`, whose arguments these are; and numbers
    that are finite where all weights are.

    Args:
        threads: that take part; None: as many as there are processors. Results do not depend on it.
        feedback: the only weight of a group of one population may be a `ByTarget`.
    """
    places = _Places([weight.shape[1] for weight, _, _ in arrivals])
    edges = list(zip(spec.edges, feedback, strict=True))
    at_once = [(edge, weight) for edge, (weight, delay) in edges if delay is None]
    later = [(*edge, weight, delay) for edge, (weight, delay) in edges if delay is not None]
    one = _OnePopulation(
        max_spikes=max(layer.max_spikes for layer in spec.layers),
        max_events=spec.max_events,
        once=spec.layers[0].once,
        subtract=spec.layers[0].neuron.keeps_overshoot,
        min_slope=spec.layers[0].min_slope,
        delayed=tuple(places.of(source) for source, *_ in later),
        immediate=bool(at_once),
        held=places.held(spec),
        threads=threads,
    )
    # What arrives from outside, below it what arrives with a delay, and a row for each neuron's own
    # spikes, which arrive at once.
    outside = [places.beside(n, weight) for n, (weight, _, _) in enumerate(arrivals)]
    dtype = outside[0].dtype
    parts = [*outside, *(places.sent(source, target, w, dtype) for source, target, w, _ in later)]
    apart = ByTarget(jnp.zeros((0, 0), dtype), jnp.zeros(0, dtype))
    first: Any = at_once[0][1] if at_once else None
    if isinstance(first, ByTarget):
        apart = first
    elif at_once:
        parts.append(places.between(at_once, dtype))
    delays = [jnp.broadcast_to(delay, places.of(source)[1:]) for source, _, _, delay in later]
    delay = jnp.concatenate([jnp.zeros(0, dtype), *delays]).astype(dtype)
    taken = (
        with_infinite_taus(layer.neuron, own) for layer, own in zip(spec.layers, lanes, strict=True)
    )
    every = jax.tree.map(lambda *parts: jnp.concatenate(parts), *taken)
    time = jnp.concatenate([time for _, time, _ in arrivals], axis=1)
    table = jnp.concatenate(parts)
    # one type, as if all were in the table
    dtype = jnp.result_type(table, *apart)
    table = table.astype(dtype)
    apart = ByTarget(apart.weight.astype(dtype), apart.scale.astype(dtype))
    # those of nothing are constants
    delay, apart = varying_like((delay, apart), table, time)
    found: Any = _group(one, table, apart, every, delay, time, _rows(arrivals), t_end)
    return places.split(spec, found), (table, found.nothing)


class _Places:
    """Where each population is among all neurons of its group."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = sizes
        self.first = [sum(sizes[:number]) for number in range(len(sizes))]
        self.total = sum(sizes)

    def beside(self, number: int, weight: Weights) -> Weights:
        """Weights of a population's neurons as such of all neurons."""
        return jnp.pad(weight, ((0, 0), self._around(number)))

    def of(self, number: int) -> tuple[int, int]:
        """A population's first neuron, and how many it has."""
        return self.first[number], self.sizes[number]

    def sent(self, source: int, target: int, weight: Weights | None, dtype: DTypeLike) -> Weights:
        """What neurons of one population send to another, as weights of all neurons; None: the
        identity.
        """
        own = jnp.eye(self.sizes[source], dtype=dtype) if weight is None else weight
        return self.beside(target, own)

    def between(
        self, edges: Sequence[tuple[tuple[int, int], Weights | None]], dtype: DTypeLike
    ) -> Weights:
        """The sum of what goes from all neurons to all."""
        total = jnp.zeros((self.total, self.total), dtype)
        for (source, target), weight in edges:
            rows = self.sent(source, target, weight, dtype)
            total += jnp.pad(rows, (self._around(source), (0, 0)))
        return total

    def held(self, spec: GroupSpec) -> tuple[tuple[int, float], ...]:
        """Of each population (neurons, refractory time); nothing where none has one."""
        seconds = [float(layer.refractory) for layer in spec.layers]
        return tuple(zip(self.sizes, seconds, strict=True)) if any(seconds) else ()

    def _around(self, number: int) -> tuple[int, int]:
        """How many neurons are before and behind a population."""
        before = self.first[number]
        return before, self.total - before - self.sizes[number]

    def split(self, spec: GroupSpec, found: _Outcome) -> GroupSpikes:
        """What came of each population."""
        spikes, trains = [], []
        for layer, first, size in zip(spec.layers, self.first, self.sizes, strict=True):
            own = slice(first, first + size)
            slots = (slice(None), own, slice(layer.max_spikes))
            time, slope = found.spikes.time[slots], found.spikes.slope[slots]
            spikes.append(LayerSpikes(time=time, slope=slope, count=found.spikes.count[:, own]))
            mine = (found.neuron >= first) & (found.neuron < first + size)
            trains.append(
                (jnp.where(mine, found.time, jnp.inf), jnp.where(mine, found.neuron - first, 0))
            )
        return GroupSpikes(spikes=tuple(spikes), trains=tuple(trains), events_needed=found.needed)


def _rows(arrivals: OutsideArrivals) -> Rows:
    """The rows of all that arrives from outside, in one table; -1 where there is none."""
    rows, first = [], 0
    for weight, time, row in arrivals:
        there = (row >= 0) & (row < len(weight))
        own = jnp.where(there, row + first, -1).astype(jnp.int32)
        rows.append(jnp.broadcast_to(own, time.shape) if len(arrivals) > 1 else own)
        first += len(weight)
    return jnp.concatenate(rows, axis=-1)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _group(
    one: _OnePopulation,
    table: Weights,
    apart: ByTarget,
    lanes: Lanes,
    delay: Delays,
    time: Times,
    row: Rows,
    t_end: Seconds,
) -> _Outcome:
    return _simulated(one, table, apart, lanes, delay, time, row, t_end)[0]


def _simulated(
    one: _OnePopulation,
    table: Weights,
    apart: ByTarget,
    lanes: Lanes,
    delay: Delays,
    time: Times,
    row: Rows,
    t_end: Seconds,
) -> tuple[_Outcome, _Log, Ordered]:
    """The simulation, by the kernel."""
    dtype = table.dtype
    (batch, arrivals), neurons = time.shape, table.shape[1]
    slots, steps = (
        (batch, neurons, one.max_spikes),
        (
            batch,
            arrivals + one.max_events * (1 + one.most_sent),
        ),
    )
    train, listed = (batch, one.max_events), (batch, arrivals)
    sent = steps if one.most_sent else (batch, 0)
    real = partial(jax.ShapeDtypeStruct, dtype=dtype)
    whole = partial(jax.ShapeDtypeStruct, dtype=jnp.int32)
    results = (
        *(real(slots), real(slots), whole((batch, neurons))),
        *(real(train), whole(train), whole((batch,))),
        *(real(steps), whole(steps), real(steps), whole((batch,)), whole(sent)),
        *(real(listed), whole(listed), whole(listed), whole((batch,)), real(())),
    )
    found = kernel("jaxsnn_group_forward", results)(
        *(table, *apart, stacked(lanes), time, row.astype(jnp.int32), jnp.asarray(t_end, dtype)),
        *(delay, one.senders, jnp.asarray(one.refractory, dtype)),
        max_spikes=np.int64(one.max_spikes),
        once=bool(one.once),
        subtract=bool(one.subtract),
        immediate=one.immediate,
        threads=np.int64(thread_count(one.threads)),
    )
    found = varying_like(tuple(found), table, time)
    spikes = LayerSpikes(time=found[0], slope=found[1], count=found[2])
    outcome = _Outcome(spikes, *found[3:6], nothing=found[15])
    return outcome, _Log(*found[6:11]), Ordered(*found[11:15])


def _forward(one: _OnePopulation, *given: Any) -> tuple[_Outcome, _Kept]:
    """Spikes, and what the backward pass needs; each argument knows whether it is perturbed."""
    values = values_of(given)
    outcome, log, arrivals = _simulated(one, *values)
    table, apart, lanes, _, _, _, t_end = values
    kept = _Kept(
        table=table,
        apart=apart,
        lanes=lanes,
        t_end=t_end,
        outcome=outcome,
        log=log,
        arrivals=arrivals,
        asked=Wanted.of(given[2], given[4]).asked,
    )
    return outcome, kept


def _backward(
    one: _OnePopulation, kept: _Kept, cotangent: _Outcome
) -> tuple[Weights, ByTarget, Lanes, Delays, Times, None, None]:
    dtype = kept.table.dtype
    lanes, arrivals = stacked(kept.lanes), kept.arrivals
    of_lanes = gradient_shape(kept.lanes, kept.wanted)
    of_time = arrivals.time.shape if kept.wanted.time else (0,)
    rows, neurons = kept.table.shape
    of_rows = rows + len(kept.apart.weight), neurons
    shapes = of_rows, of_lanes, of_time, one.senders.shape
    spikes, outcome = kept.outcome.spikes, kept.outcome
    drives = [
        jnp.zeros(drive.shape, dtype) if isinstance(drive, SymbolicZero) else drive
        for drive in (cotangent.spikes.time, cotangent.time)
    ]
    results = tuple(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes)
    found = kernel("jaxsnn_group_backward", results)(
        *(kept.table, *kept.apart, lanes, jnp.asarray(kept.t_end, dtype)),
        *(spikes.time, spikes.slope, spikes.count, outcome.time, outcome.neuron, outcome.needed),
        *(*kept.log, *arrivals, *drives),
        subtract=bool(one.subtract),
        immediate=one.immediate,
        min_slope=np.float64(one.min_slope),
        threads=np.int64(thread_count(one.threads)),
    )
    d_rows, d_stacked, d_time, d_delay = varying_like(
        tuple(found), kept.table, arrivals.time, drives
    )
    d_time = d_time if kept.wanted.time else jnp.zeros_like(arrivals.time)
    d_lanes = unstacked(d_stacked, kept.lanes)
    d_apart = kept.apart  # of none
    if len(kept.apart.weight):
        scaled = turned_by_kernel(one.threads, d_rows[rows:])
        d_apart = ByTarget(
            weight=scaled * kept.apart.scale[:, None],
            scale=jnp.einsum("ts,ts->t", scaled, kept.apart.weight),
        )
    return d_rows[:rows], d_apart, d_lanes, d_delay, d_time, None, None


_group.defvjp(usual_promotion(_forward), usual_promotion(_backward), symbolic_zeros=True)
