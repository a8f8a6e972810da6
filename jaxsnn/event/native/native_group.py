"""Recurrently connected populations in the native backend, the counterpart of
`adjoint.recurrent_adjoint.group_spikes`.

For the kernels a group is one population with the neurons of all populations in sequence; its table
has zeros where there are no connections.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.typing import DTypeLike

from jaxsnn.event.adjoint.required_gradients import GradientFlags, RequiredGradients, values_of
from jaxsnn.event.dynamics.two_variables import Constants
from jaxsnn.event.event_arrays import Feedback, OutsideArrivals, Rows, Seconds, Times, Weights
from jaxsnn.event.forward.deliveries import Delays
from jaxsnn.event.forward.group import FanOut, GroupSpec, GroupSpikes
from jaxsnn.event.forward.layer import LayerSpikes
from jaxsnn.event.native.native_build import kernel, thread_count
from jaxsnn.event.native.native_layer import (
    Ordered,
    gradient_shape,
    stacked,
    unstacked,
    with_infinite_taus,
)
from jaxsnn.event.native.native_weights import transpose_by_kernel
from jaxsnn.network.array_types import Array, Float, Int
from jaxsnn.network.meshes import match_device_axes
from jaxsnn.network.promotion import usual_promotion

#: Maximum number of steps, of all samples, in the log of a cycle whose synapses have separate delays:
#: about 3 GB in XLA with float64.
MOST_STEPS = 2**25


class ByTarget(NamedTuple):
    """Weights of a population's feedback to itself without a delay, in NIR's layout: the kernels
    read them without transposing or scaling.
    """

    weight: Float[Array, "targets sources"]
    scale: Float[Array, "targets"]  # factor for each target


@dataclass(frozen=True, kw_only=True, eq=False)
class SynapseLists:
    """Synapses of each row of a group, instead of a table: static arrays.

    Attributes:
        begin: (rows + 1,) number of the first synapse of each row.
        target: (synapses,) postsynaptic neuron among all neurons of the group.
        senders: (delayed rows,) presynaptic neuron of each row of the delayed feedback.
        immediate: whether the last rows are those of feedback without a delay, one for each neuron.
    """

    begin: Int[np.ndarray, "rows"]
    target: Int[np.ndarray, "synapses"]
    senders: Int[np.ndarray, "delayed"]
    immediate: bool

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, SynapseLists)
            and self.immediate == other.immediate
            and all(
                np.array_equal(getattr(self, key), getattr(other, key))
                for key in ("begin", "target", "senders")
            )
        )

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        arrays = self.begin, self.target, self.senders
        return hash((self.immediate, *(array.tobytes() for array in arrays)))

    @cached_property
    def max_deliveries(self) -> int:
        """Maximum number of delayed rows of one presynaptic neuron."""
        return int(np.bincount(self.senders, minlength=1).max())


_NO_LISTS = SynapseLists(
    begin=np.zeros(0, np.int32),
    target=np.zeros(0, np.int32),
    senders=np.zeros(0, np.int32),
    immediate=False,
)


class _Outcome(NamedTuple):
    """Spikes of a group, by neuron and as a spike train in the order in which they act."""

    spikes: LayerSpikes
    time: Float[Array, "batch events"]  # inf where unused
    neuron: Int[Array, "batch events"]
    needed: Int[Array, "batch"]  # number of spikes, which may exceed the axis `events`
    weight_check: Float[Array, ""]  # 0, or NaN if a scaled weight of `ByTarget` is not finite


@dataclass(frozen=True, kw_only=True)
class _OnePopulation:
    """Static description of all neurons of a group as one population; fields as in `LayerSpec` and
    `GroupSpec`.

    Attributes:
        subtract: a spike lowers V and keeps the overshoot.
        senders: presynaptic neuron of each row of the delayed feedback, edge by edge.
        immediate: whether there is feedback without a delay.
        held: (neurons, refractory time) of each population; empty if none has one.
        threads: number of threads.
        lists: synapses of each row; without rows if the weights are a table.
    """

    max_spikes: int
    max_events: int
    once: bool
    subtract: bool
    min_slope: float
    senders: tuple[int, ...]
    immediate: bool
    held: tuple[tuple[int, float], ...]
    threads: int | None
    lists: SynapseLists = _NO_LISTS

    @property
    def max_deliveries(self) -> int:
        """Maximum number of later events that one spike causes: deliveries, and the end of a
        refractory period.
        """
        of_table = max(Counter(self.senders).values(), default=0)
        return max(of_table, self.lists.max_deliveries) + bool(self.held)

    def log_length(self, batch: int, arrivals: int) -> int:
        """Return the number of steps of a sample that the log has room for: one for each event, or
        two for each spike where a log of all events is long. The latter suffices if the kernels
        simulate the group in slices of time (slices.h); they fail if they cannot.
        """
        events = arrivals + self.max_events * (1 + self.max_deliveries)
        with_slices = len(self.lists.senders) > 0 and not self.lists.immediate
        return 2 * self.max_events if with_slices and batch * events > MOST_STEPS else events

    @property
    def all_senders(self) -> Int[np.ndarray, "delayed"]:
        """Presynaptic neuron of each row of the delayed feedback, of a table or of lists."""
        return np.concatenate([np.asarray(self.senders, np.int32), self.lists.senders])

    @property
    def refractory(self) -> Float[np.ndarray, "neurons"]:
        """Refractory period of each neuron, seconds; empty if no population has one."""
        times = [np.full(size, seconds) for size, seconds in self.held]
        return np.concatenate([np.zeros(0), *times])


class _Log(NamedTuple):
    """Record of the simulation's steps, in order; see `EventLog` in group.h."""

    wait: Float[Array, "batch steps"]
    row: Int[Array, "batch steps"]
    slope: Float[Array, "batch steps"]
    used: Int[Array, "batch"]
    origin: Int[Array, "batch steps"]  # (batch, 0) if no event is queued


class _Kept(NamedTuple):
    """Residuals of the backward pass."""

    table: Weights
    by_target: ByTarget
    constants: Constants
    delay: Delays
    t_end: Seconds
    outcome: _Outcome
    log: _Log
    arrivals: Ordered
    gradient_flags: GradientFlags

    @property
    def required(self) -> RequiredGradients:
        """Gradients that are required besides the gradient with respect to the weights."""
        return RequiredGradients.by(self.gradient_flags)


def native_group_spikes(
    spec: GroupSpec,
    threads: int | None,
    arrivals: OutsideArrivals,
    feedback: Feedback,
    constants: tuple[Constants, ...],
    t_end: Seconds,
) -> tuple[GroupSpikes, Any]:
    """Return the spikes of a group, differentiable, with the arguments of `group_spikes`; and
    arrays that are finite if all weights are.

    Args:
        threads: number of threads; None: the number of processors. Results do not depend on it.
        feedback: the only weight of a group of one population may be a `ByTarget`.
    """
    places = _Places([weight.shape[1] for weight, _, _ in arrivals])
    edges = list(zip(spec.edges, feedback, strict=True))
    fan_outs = dict(spec.fan_outs)
    at_once = [(edge, weight) for edge, (weight, delay) in edges if delay is None]
    later = [
        (*edge, _dense(weight, fan_outs.get(number), places.sizes[edge[1]]), delay)
        for number, (edge, (weight, delay)) in enumerate(edges)
        if delay is not None
    ]
    senders = [
        places.senders(spec, edge) for edge, (_, delay) in enumerate(feedback) if delay is not None
    ]
    population = _OnePopulation(
        max_spikes=max(layer.max_spikes for layer in spec.layers),
        max_events=spec.max_events,
        once=spec.layers[0].once,
        subtract=spec.layers[0].neuron.keeps_overshoot,
        min_slope=spec.layers[0].min_slope,
        senders=tuple(itertools.chain.from_iterable(senders)),
        immediate=bool(at_once),
        held=places.held(spec),
        threads=threads,
    )
    # Rows of the table, in this order: arrivals from outside, delayed projections, and one row per
    # neuron for feedback without a delay.
    outside = [places.beside(n, weight) for n, (weight, _, _) in enumerate(arrivals)]
    dtype = outside[0].dtype
    parts = [*outside, *(places.sent(source, target, w, dtype) for source, target, w, _ in later)]
    by_target = ByTarget(jnp.zeros((0, 0), dtype), jnp.zeros(0, dtype))
    first: Any = at_once[0][1] if at_once else None
    if isinstance(first, ByTarget):
        by_target = first
    elif at_once:
        parts.append(places.between(at_once, dtype))
    delays = [
        jnp.broadcast_to(delay.reshape(-1), len(neurons))
        for (*_, delay), neurons in zip(later, senders, strict=True)
    ]
    delay = jnp.concatenate([jnp.zeros(0, dtype), *delays]).astype(dtype)
    every = _joined_constants(spec, constants)
    time = jnp.concatenate([time for _, time, _ in arrivals], axis=1)
    table = jnp.concatenate(parts)
    # The separate weights must have the dtype that they would have as rows of the table.
    dtype = jnp.result_type(table, *by_target)
    table = table.astype(dtype)
    by_target = ByTarget(by_target.weight.astype(dtype), by_target.scale.astype(dtype))
    # Empty arrays are constants, which vary over no mesh axis: see `match_device_axes`.
    delay, by_target = match_device_axes((delay, by_target), table, time)
    outcome: Any = _group(population, table, by_target, every, delay, time, _rows(arrivals), t_end)
    return places.split(spec, outcome), (table, outcome.weight_check)


def sparse_group_spikes(
    spec: GroupSpec,
    threads: int | None,
    sizes: Sequence[int],
    lists: SynapseLists,
    weight: Float[Array, "synapses"],
    delay: Delays,
    arrivals: tuple[Times, Rows],
    constants: tuple[Constants, ...],
    t_end: Seconds,
) -> tuple[GroupSpikes, Any]:
    """Return the spikes of a group with lists of synapses, as `native_group_spikes` does.

    Args:
        sizes: number of neurons of each population.
        lists: rows of arrivals from outside, rows of delayed feedback, rows of other feedback.
        weight: weights of the synapses, in units of the neurons.
        delay: (delayed rows,) seconds.
        arrivals: times and rows of arrivals from outside.
    """
    places = _Places(sizes)
    population = _OnePopulation(
        max_spikes=max(layer.max_spikes for layer in spec.layers),
        max_events=spec.max_events,
        once=spec.layers[0].once,
        subtract=spec.layers[0].neuron.keeps_overshoot,
        min_slope=spec.layers[0].min_slope,
        senders=(),
        immediate=lists.immediate,
        held=places.held(spec),
        threads=threads,
        lists=lists,
    )
    time, row = arrivals
    by_target = ByTarget(jnp.zeros((0, 0), weight.dtype), jnp.zeros(0, weight.dtype))
    delay, by_target = match_device_axes((delay.astype(weight.dtype), by_target), weight, time)
    operands = (
        weight[:, None],
        by_target,
        _joined_constants(spec, constants),
        delay,
        time,
        row,
        t_end,
    )
    outcome: Any = _group(population, *operands)
    return places.split(spec, outcome), (weight, outcome.weight_check)


def _joined_constants(spec: GroupSpec, constants: tuple[Constants, ...]) -> Any:
    """Return the constants of all neurons of a group in the form that the kernels take."""
    prepared_constants = (
        with_infinite_taus(layer.neuron, layer_constants)
        for layer, layer_constants in zip(spec.layers, constants, strict=True)
    )
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *prepared_constants)


class _Places:
    """Index ranges of the populations among all neurons of their group."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = sizes
        self.first = [sum(sizes[:number]) for number in range(len(sizes))]
        self.total = sum(sizes)

    def beside(self, number: int, weight: Weights) -> Weights:
        """Return a population's weights, padded with zeros to all neurons of the group."""
        return jnp.pad(weight, ((0, 0), self._around(number)))

    def of(self, number: int) -> tuple[int, int]:
        """Return the index of a population's first neuron and its number of neurons."""
        return self.first[number], self.sizes[number]

    def senders(self, spec: GroupSpec, edge: int) -> list[int]:
        """Return the presynaptic neuron of each row of an edge, among all neurons of the group."""
        source, _ = spec.edges[edge]
        first, size = self.of(source)
        fan_out = dict(spec.fan_outs).get(edge)
        lines = 1 if fan_out is None else fan_out.targets.shape[1]
        return [first + neuron for neuron in range(size) for _ in range(lines)]

    def sent(self, source: int, target: int, weight: Weights | None, dtype: DTypeLike) -> Weights:
        """Return the weights from one population to another, padded to all neurons; None stands for
        the identity.
        """
        matrix = jnp.eye(self.sizes[source], dtype=dtype) if weight is None else weight
        return self.beside(target, matrix)

    def between(
        self, edges: Sequence[tuple[tuple[int, int], Weights | None]], dtype: DTypeLike
    ) -> Weights:
        """Return the sum of the weights of several edges, as a matrix from all neurons to all
        neurons.
        """
        total = jnp.zeros((self.total, self.total), dtype)
        for (source, target), weight in edges:
            rows = self.sent(source, target, weight, dtype)
            total += jnp.pad(rows, (self._around(source), (0, 0)))
        return total

    def held(self, spec: GroupSpec) -> tuple[tuple[int, float], ...]:
        """Return (neurons, refractory time) of each population; an empty tuple if none has one."""
        seconds = [float(layer.refractory) for layer in spec.layers]
        return tuple(zip(self.sizes, seconds, strict=True)) if any(seconds) else ()

    def _around(self, number: int) -> tuple[int, int]:
        """Return the numbers of neurons before and after a population."""
        before = self.first[number]
        return before, self.total - before - self.sizes[number]

    def split(self, spec: GroupSpec, outcome: _Outcome) -> GroupSpikes:
        """Split the outcome into the spikes of each population."""
        spikes, trains = [], []
        for layer, first, size in zip(spec.layers, self.first, self.sizes, strict=True):
            neuron_range = slice(first, first + size)
            slots = (slice(None), neuron_range, slice(layer.max_spikes))
            time, slope = outcome.spikes.time[slots], outcome.spikes.slope[slots]
            spikes.append(
                LayerSpikes(time=time, slope=slope, count=outcome.spikes.count[:, neuron_range])
            )
            mine = (outcome.neuron >= first) & (outcome.neuron < first + size)
            trains.append(
                (jnp.where(mine, outcome.time, jnp.inf), jnp.where(mine, outcome.neuron - first, 0))
            )
        return GroupSpikes(spikes=tuple(spikes), trains=tuple(trains), events_needed=outcome.needed)


def _dense(weight: Any, fan_out: FanOut | None, size: int) -> Any:
    """Return the weights of an edge as rows of a table, with a row for each line of a fan-out."""
    if fan_out is None:
        return weight
    count, columns = fan_out.by_line.shape
    place = np.arange(count)[:, None], fan_out.by_line
    return jnp.zeros((count, size), weight.dtype).at[place].add(weight.reshape(count, columns))


def _rows(arrivals: OutsideArrivals) -> Rows:
    """Return the row of every arrival from outside in one table; -1 for no row."""
    rows, first = [], 0
    for weight, time, row in arrivals:
        there = (row >= 0) & (row < len(weight))
        table_rows = jnp.where(there, row + first, -1).astype(jnp.int32)
        rows.append(jnp.broadcast_to(table_rows, time.shape) if len(arrivals) > 1 else table_rows)
        first += len(weight)
    return jnp.concatenate(rows, axis=-1)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _group(
    population: _OnePopulation,
    table: Weights,
    by_target: ByTarget,
    constants: Constants,
    delay: Delays,
    time: Times,
    row: Rows,
    t_end: Seconds,
) -> _Outcome:
    operands = table, by_target, constants, delay, time, row, t_end
    return _simulated(population, *operands, recorded=False)[0]


def _simulated(
    population: _OnePopulation,
    table: Weights,
    by_target: ByTarget,
    constants: Constants,
    delay: Delays,
    time: Times,
    row: Rows,
    t_end: Seconds,
    *,
    recorded: bool = True,
) -> tuple[_Outcome, _Log, Ordered]:
    """Simulate the group with the kernel.

    Args:
        recorded: whether to record what the backward pass needs; if not, the log and the sorted
            arrivals are empty.
    """
    dtype = table.dtype
    (batch, arrivals), neurons = time.shape, constants.tau_mem.size
    slots = batch, neurons, population.max_spikes
    steps = batch, population.log_length(batch, arrivals) if recorded else 0
    train, listed = (batch, population.max_events), (batch, arrivals if recorded else 0)
    sent = steps if population.max_deliveries else (batch, 0)
    real = partial(jax.ShapeDtypeStruct, dtype=dtype)
    integers = partial(jax.ShapeDtypeStruct, dtype=jnp.int32)
    results = (
        *(real(slots), real(slots), integers((batch, neurons))),
        *(real(train), integers(train), integers((batch,))),
        *(real(steps), integers(steps), real(steps), integers((batch,)), integers(sent)),
        *(real(listed), integers(listed), integers(listed), integers((batch,)), real(())),
    )
    outputs = kernel("jaxsnn_group_forward", results)(
        *(
            table,
            population.lists.begin,
            population.lists.target,
            *by_target,
            stacked(constants),
            time,
            row.astype(jnp.int32),
            jnp.asarray(t_end, dtype),
        ),
        *(
            delay,
            population.all_senders,
            jnp.asarray(population.refractory, dtype),
        ),
        max_spikes=np.int64(population.max_spikes),
        once=bool(population.once),
        subtract=bool(population.subtract),
        immediate=population.immediate,
        threads=np.int64(thread_count(population.threads)),
    )
    outputs = match_device_axes(tuple(outputs), table, time)
    spikes = LayerSpikes(time=outputs[0], slope=outputs[1], count=outputs[2])
    outcome = _Outcome(spikes, *outputs[3:6], weight_check=outputs[15])
    return outcome, _Log(*outputs[6:11]), Ordered(*outputs[11:15])


def _forward(population: _OnePopulation, *arguments: Any) -> tuple[_Outcome, _Kept]:
    """Return the spikes and the residuals of the backward pass. Each argument carries whether it is
    perturbed.
    """
    values = values_of(arguments)
    outcome, log, arrivals = _simulated(population, *values)
    table, by_target, constants, delay, _, _, t_end = values
    residuals = _Kept(
        table=table,
        by_target=by_target,
        constants=constants,
        delay=delay,
        t_end=t_end,
        outcome=outcome,
        log=log,
        arrivals=arrivals,
        gradient_flags=RequiredGradients.of(arguments[2], arguments[4]).gradient_flags,
    )
    return outcome, residuals


def _backward(
    population: _OnePopulation, residuals: _Kept, cotangent: _Outcome
) -> tuple[Weights, ByTarget, Constants, Delays, Times, None, None]:
    dtype = residuals.table.dtype
    constants, arrivals = stacked(residuals.constants), residuals.arrivals
    of_constants = gradient_shape(residuals.constants, residuals.required)
    of_time = arrivals.time.shape if residuals.required.time else (0,)
    rows, columns = residuals.table.shape
    of_rows = rows + len(residuals.by_target.weight), columns
    shapes = of_rows, of_constants, of_time, (len(population.all_senders),)
    lists = population.lists
    spikes, outcome = residuals.outcome.spikes, residuals.outcome
    drives = [
        jnp.zeros(drive.shape, dtype) if isinstance(drive, SymbolicZero) else drive
        for drive in (cotangent.spikes.time, cotangent.time)
    ]
    results = tuple(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes)
    gradients = kernel("jaxsnn_group_backward", results)(
        *(residuals.table, lists.begin, lists.target, *residuals.by_target, constants),
        *(
            jnp.asarray(residuals.t_end, dtype),
            residuals.delay,
            population.all_senders,
            jnp.asarray(population.refractory, dtype),
        ),
        *(spikes.time, spikes.slope, spikes.count, outcome.time, outcome.neuron, outcome.needed),
        *(*residuals.log, *arrivals, *drives),
        subtract=bool(population.subtract),
        immediate=population.immediate,
        min_slope=np.float64(population.min_slope),
        threads=np.int64(thread_count(population.threads)),
    )
    d_rows, d_stacked, d_time, d_delay = match_device_axes(
        tuple(gradients), residuals.table, arrivals.time, drives
    )
    d_time = d_time if residuals.required.time else jnp.zeros_like(arrivals.time)
    d_constants = unstacked(d_stacked, residuals.constants)
    d_by_target = residuals.by_target  # empty, like its gradient
    if len(residuals.by_target.weight):
        scaled = transpose_by_kernel(population.threads, d_rows[rows:])
        d_by_target = ByTarget(
            weight=scaled * residuals.by_target.scale[:, None],
            scale=jnp.einsum("ts,ts->t", scaled, residuals.by_target.weight),
        )
    return d_rows[:rows], d_by_target, d_constants, d_delay, d_time, None, None


_group.defvjp(usual_promotion(_forward), usual_promotion(_backward), symbolic_zeros=True)
