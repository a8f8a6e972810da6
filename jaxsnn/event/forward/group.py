"""Records of a recurrent group: its description, the arrivals at its populations, and the log of
its events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from jaxsnn.event.dynamics.neuron_model import Neuron
from jaxsnn.event.event_arrays import (
    NumberOfSamples,
    OfNeurons,
    OfSteps,
    Rows,
    Times,
    Weights,
)
from jaxsnn.event.forward.deliveries import Delays
from jaxsnn.event.forward.layer import LayerSpec, LayerSpikes
from jaxsnn.network.array_types import Array, Bool, Float, Int
from jaxsnn.network.lookups import entries_at

#: Arrivals at a population from outside the group: (weight, time, row).
Outside = tuple[Weights, Times, Rows]
#: A delay for all neurons of a source, a delay for each of them, or for each of their lines, seconds.
Delay = Float[Array, ""] | Float[Array, "sources"] | Float[Array, "sources lines"]
#: Weights of an edge, None for the identity, and its delay, None for 0. With a `FanOut` the weights
#: have the shape of its targets.
Feedback = tuple[
    Float[Array, "sources targets"] | Float[Array, "sources lines columns"] | None, Any
]
#: The spikes of a population in the order in which they act: (time, neuron), inf where unused.
SpikeTrain = tuple[Float[Array, "batch steps"], Int[Array, "batch steps"]]
#: The number of a neuron, a step or a row in each step of the loop.
NumberOfSteps = Int[Array, "steps batch"]


@dataclass(frozen=True, kw_only=True, eq=False)
class FanOut:
    """Lines of an edge whose synapses have separate delays: each presynaptic neuron sends each of its
    spikes through all of its lines. A line reaches one neuron, or several with the same delay.

    Attributes:
        targets: (sources, lines, columns) postsynaptic neurons. Neurons with fewer lines than others
            have additional ones, whose delay is longer than any run.
    """

    targets: Int[np.ndarray, "sources lines columns"]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FanOut) and np.array_equal(self.targets, other.targets)

    def __hash__(self) -> int:
        return hash((self.targets.shape, self.targets.tobytes()))

    @property
    def by_line(self) -> Int[np.ndarray, "all_lines columns"]:
        """Return the targets of the lines of all neurons, in order."""
        return self.targets.reshape(-1, self.targets.shape[2])


@dataclass(frozen=True, kw_only=True)
class GroupSpec:
    """Static description of a recurrent group.

    Attributes:
        layers: static description of each population.
        edges: (source, target), indices of populations, for each feedback edge; several edges may
            connect the same two populations.
        max_events: spikes of the whole group that are recorded in each sample.
        fan_outs: (index of an edge, lines) of the edges whose synapses have separate delays; all
            other edges have one row of weights for each neuron of their source.
    """

    layers: tuple[LayerSpec, ...]
    edges: tuple[tuple[int, int], ...]
    max_events: int
    fan_outs: tuple[tuple[int, FanOut], ...] = ()

    def with_neurons(self, neurons: Sequence[Neuron]) -> GroupSpec:
        """Return the same group with other neuron models."""
        layers = zip(self.layers, neurons, strict=True)
        return replace(
            self, layers=tuple(replace(layer, neuron=neuron) for layer, neuron in layers)
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class GroupEvents:
    """Spikes of each step of a recurrent group's loop; arrays (steps, batch).

    Attributes:
        time: seconds, inf in steps without a spike.
        spike, slot, slope: as in `Log`.
        counts: spike counts of each population, (batch, neurons).
        broken: whether the state of a neuron has become NaN, for each population (batch, neurons).
        events_needed: as in `GroupSpikes`.
    """

    time: OfSteps
    spike: NumberOfSteps
    slot: NumberOfSteps
    slope: OfSteps
    counts: tuple[Int[Array, "batch neurons"], ...]
    broken: tuple[Bool[Array, "batch neurons"], ...]
    events_needed: NumberOfSamples


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class GroupSpikes:
    """Spikes of a recurrent group.

    Attributes:
        spikes: spikes of each population, by neuron.
        trains: spikes of each population in the order in which they act: pairs (time, neuron) of
            arrays (batch, steps), time inf in unused slots.
        events_needed: (batch,) required `max_events`; a lower bound if `max_events` is more than 16
            times too small, or if there are delays. The spikes of samples in which it exceeds
            `max_events` are incomplete.
    """

    spikes: tuple[LayerSpikes, ...]
    trains: tuple[SpikeTrain, ...]
    events_needed: NumberOfSamples


def by_population(spec: GroupSpec, events: GroupEvents) -> GroupSpikes:
    """Split the spikes of a group by population; the gradient passes through their times."""
    spikes, trains = [], []
    first = 0  # number of the population's first neuron among all neurons of the group
    for layer, count, broken in zip(spec.layers, events.counts, events.broken, strict=True):
        batch, size = count.shape
        neuron = events.spike - first
        mine = (neuron >= 0) & (neuron < size)
        # Scatter (steps, batch) to (batch, neurons, spikes). Steps of other populations get neuron
        # `size`, surplus spikes a slot beyond the last: both do not exist, and are dropped.
        place = (jnp.arange(batch), jnp.where(mine, neuron, size), events.slot)
        empty = jnp.full((batch, size, layer.max_spikes), jnp.inf, events.time.dtype)
        time = empty.at[place].set(events.time, mode="drop")
        # A neuron whose state is NaN crosses no threshold, and would look silent.
        time = jnp.where(broken[..., None], jnp.nan, time)
        slope = jnp.ones_like(empty).at[place].set(events.slope, mode="drop")
        spikes.append(LayerSpikes(time=time, slope=slope, count=count))
        # Steps are already in the order in which spikes act.
        trains.append((jnp.where(mine, events.time, jnp.inf).T, jnp.where(mine, neuron, 0).T))
        first += size
    return GroupSpikes(
        spikes=tuple(spikes), trains=tuple(trains), events_needed=events.events_needed
    )


class Channel(NamedTuple):
    """Source of a queue: a feedback edge with a delay, the refractory period of a population, or in
    a group that acts in rounds all feedback without a delay between two populations.
    """

    source: int
    target: int | None  # None: a refractory period, which ends in the source itself
    edge: int | None  # None: no delay, or a refractory period
    row: int  # first row of its weights in the target's table
    fan_out: FanOut | None = None  # None: one row for each neuron of the source


class Layout(NamedTuple):
    """Order of the rows in the tables."""

    sizes: tuple[int, ...]  # neurons of each population
    #: (source, target) -> first row of the feedback without delay
    immediate: dict[tuple[int, int], int]
    channels: tuple[Channel, ...]
    #: of each population, the number of a row of zeros, behind which the lines of fan-outs are
    #: numbered
    nothing: tuple[int, ...]
    #: Whether arrivals change V, so that simultaneous events act in rounds (see `recurrent`), and
    #: spikes without a delay arrive through channels.
    in_rounds: bool

    @property
    def delayed(self) -> bool:
        """Return whether feedback arrives with a delay."""
        return any(channel.target is not None for channel in self.channels)

    @property
    def max_deliveries(self) -> int:
        """Return the maximum number of events that a spike puts into the queues."""
        deliveries = [0] * len(self.sizes)
        for channel in self.channels:
            lines = 1 if channel.fan_out is None else channel.fan_out.targets.shape[1]
            deliveries[channel.source] += lines
        return max(deliveries)

    def fan_outs(self, population: int) -> list[tuple[Channel, FanOut]]:
        """Return the channels to a population whose synapses have separate delays."""
        return [
            (channel, channel.fan_out)
            for channel in self.channels
            if channel.target == population and channel.fan_out is not None
        ]

    def first(self, population: int) -> int:
        """Return the index of a population's first neuron among all neurons of the group."""
        return sum(self.sizes[:population])


class Log(NamedTuple):
    """Record of each step; arrays (steps + 1, batch), whose last row is unused.

    One step of it is the same record of arrays (batch,). The last three are None where no neuron of
    the group needs them.
    """

    time: OfSteps
    time_low: OfSteps  # rounding error of `time`
    #: number of the neuron that fired among all neurons of the group, or the number of all neurons
    spike: NumberOfSteps
    slot: NumberOfSteps  # number of its earlier spikes
    slope: OfSteps  # dV/dt just before the spike
    #: of each population, the row of its table that arrived, or `Layout.nothing`
    row: tuple[NumberOfSteps, ...]
    #: of each population, the step of the spike that arrived from a queue; None without delays
    origin: tuple[NumberOfSteps, ...] | None
    #: of each refractory population, the step of the spike whose refractory period ends
    released: dict[int, NumberOfSteps]
    #: step of the arrival that moved V of the neuron that fired across the threshold
    cause: Any  # NumberOfSteps, or None
    #: jump of V at that arrival
    jump: Any  # OfSteps, or None
    #: dV/dt at the end of the refractory period, from v_reset
    slope_after: Any  # OfSteps, or None


def layout(spec: GroupSpec, arrivals: Sequence[Outside], feedback: Sequence[Feedback]) -> Layout:
    """Return the order of the rows of `tables`; arguments as in
    `recurrent_adjoint.group_spikes`.
    """
    sizes = tuple(weight.shape[1] for weight, _, _ in arrivals)
    # A table: rows from outside, then feedback without delay, then channels, then a row of zeros;
    # and the lines of fan-outs.
    rows = [weight.shape[0] for weight, _, _ in arrivals]
    in_rounds = any(layer.neuron.jumps for layer in spec.layers)
    immediate, channels = {}, []
    edges = [(*pair, delay) for pair, (_, delay) in zip(spec.edges, feedback, strict=True)]
    for source, target, delay in edges:
        # Edges without delay between the same two populations share rows: their weights are added.
        if delay is None and (source, target) not in immediate:
            immediate[source, target] = rows[target]
            rows[target] += sizes[source]
    if in_rounds:
        for (source, target), row in immediate.items():
            channels.append(Channel(source=source, target=target, edge=None, row=row))
    fan_outs = dict(spec.fan_outs)
    for edge, (source, target, delay) in enumerate(edges):
        if delay is not None and edge not in fan_outs:
            channels.append(Channel(source=source, target=target, edge=edge, row=rows[target]))
            rows[target] += sizes[source]
    nothing = tuple(rows)
    rows = [row + 1 for row in nothing]
    for edge, fan_out in fan_outs.items():
        source, target, _ = edges[edge]
        channels.append(
            Channel(source=source, target=target, edge=edge, row=rows[target], fan_out=fan_out)
        )
        rows[target] += len(fan_out.by_line)
    for number, layer in enumerate(spec.layers):
        # A refractory period ends with the delivery of the spike to its own neuron.
        if layer.refractory:
            channels.append(Channel(source=number, target=None, edge=None, row=0))
    return Layout(
        sizes=sizes,
        immediate=immediate,
        channels=tuple(channels),
        nothing=nothing,
        in_rounds=in_rounds,
    )


class Table(NamedTuple):
    """Weights of everything that can arrive at a population."""

    rows: Weights  # (rows, neurons), the last one is zero: `Layout.nothing`
    #: weights of each of `Layout.fan_outs`
    lines: tuple[Float[Array, "all_lines columns"], ...]


def tables(
    spec: GroupSpec,
    plan: Layout,
    external: Sequence[Weights],
    feedback: Sequence[Any],
) -> tuple[Table, ...]:
    """Return the weights of everything that can arrive at each population.

    Args:
        external: weights of the arrivals from outside, one array for each population.
        feedback: weights of the feedback edges, None for the identity.
    """
    delayed = {channel.edge for channel in plan.channels}
    parts = [[weight] for weight in external]

    def add(source: int, target: int, edges: list[int]) -> None:
        """Append a target's rows for spikes of a source: the sum of some edges' weights."""
        identity = jnp.eye(plan.sizes[source], dtype=external[target].dtype)
        weights = [feedback[edge] for edge in edges]
        total = sum(identity if weight is None else weight for weight in weights)
        parts[target].append(jnp.asarray(total))

    # In the order of `layout`: edges without delay before channels.
    for joined in plan.immediate:
        between = [edge for edge, pair in enumerate(spec.edges) if pair == joined]
        add(*joined, [edge for edge in between if edge not in delayed])
    for channel in plan.channels:
        if channel.edge is not None and channel.target is not None and channel.fan_out is None:
            add(channel.source, channel.target, [channel.edge])

    def table(population: int) -> Table:
        """Concatenate the parts, and the row of zeros, `Layout.nothing`."""
        part = parts[population]
        nothing = jnp.zeros_like(part[0], shape=(1, part[0].shape[1]))
        lines = [
            jnp.reshape(feedback[channel.edge], fan_out.by_line.shape)
            for channel, fan_out in plan.fan_outs(population)
            if channel.edge is not None
        ]
        return Table(rows=jnp.concatenate([*part, nothing]), lines=tuple(lines))

    return tuple(table(population) for population in range(len(parts)))


def arriving(plan: Layout, population: int, table: Table, row: NumberOfSamples) -> OfNeurons:
    """Return the weights of a row of a population's table, or of a line of its fan-outs."""
    weights = entries_at(table.rows, jnp.minimum(row, plan.nothing[population]))
    samples = jnp.arange(len(row))[:, None]
    for (channel, fan_out), lines in zip(plan.fan_outs(population), table.lines, strict=True):
        line, here = line_of(channel, fan_out, row)
        of_line = jnp.where(here[:, None], entries_at(lines, line), 0.0)
        targets = entries_at(jnp.asarray(fan_out.by_line), line)
        if targets.shape[1] == 1:  # faster than a scatter
            neurons = lax.broadcasted_iota(targets.dtype, weights.shape, 1)
            weights = jnp.where(neurons == targets, weights + of_line, weights)
        else:
            weights = weights.at[samples, targets].add(of_line, mode="promise_in_bounds")
    return weights


def largest_weights(plan: Layout, population: int, table: Table) -> Float[Array, "1 neurons"]:
    """Return the largest magnitude of the weights that can arrive at each neuron."""
    largest = jnp.max(abs(table.rows), axis=0)
    for (_, fan_out), lines in zip(plan.fan_outs(population), table.lines, strict=True):
        largest = largest.at[fan_out.by_line].max(abs(lines))
    return largest[None]


def line_of(
    channel: Channel, fan_out: FanOut, row: NumberOfSamples
) -> tuple[NumberOfSamples, Bool[Array, "batch"]]:
    """Return the line of a fan-out that a row number stands for, and whether it stands for one; the
    line is arbitrary if it does not.
    """
    line, count = row - channel.row, len(fan_out.by_line)
    return jnp.clip(line, 0, count - 1), (line >= 0) & (line < count)


def delays_of(
    spec: GroupSpec, plan: Layout, feedback: Sequence[Feedback], dtype: DTypeLike
) -> tuple[Delays, ...]:
    """Return the delays of each channel: one for all neurons of its source, one for each of them, or
    (sources, lines) of a fan-out.
    """
    delays = []
    for channel in plan.channels:
        if channel.edge is None:
            ends = channel.target is None  # end of a refractory period
            delay = spec.layers[channel.source].refractory if ends else 0.0
        else:
            delay = feedback[channel.edge][1]
        delays.append(jnp.atleast_1d(jnp.asarray(delay, dtype)))
    return tuple(delays)
