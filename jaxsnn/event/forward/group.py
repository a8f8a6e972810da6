"""A recurrent group: what describes it, what can arrive at its populations, and the log of what
happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxsnn.event.dynamics.neuron_model import Neuron
from jaxsnn.event.forward.layer import LayerSpec, LayerSpikes


@dataclass(frozen=True, kw_only=True)
class GroupSpec:
    """Static description of a recurrent group.

    Attributes:
        layers: of each population.
        edges: (source, target), numbers of populations, for each feedback edge; several may join
            the same two.
        max_events: spikes of the whole group that are recorded in each sample.
    """

    layers: tuple[LayerSpec, ...]
    edges: tuple[tuple[int, int], ...]
    max_events: int

    def with_neurons(self, neurons: Sequence[Neuron]) -> GroupSpec:
        """The same group with other models of its neurons."""
        layers = zip(self.layers, neurons, strict=True)
        return replace(
            self, layers=tuple(replace(layer, neuron=neuron) for layer, neuron in layers)
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class GroupEvents:
    """What fires in each step of a recurrent group's loop; arrays (steps, batch).

    Attributes:
        time: seconds, inf in steps without a spike.
        spike, slot, slope: as in `Log`.
        counts: of each population, spikes of each neuron, (batch, neurons).
        events_needed: as in `GroupSpikes`.
    """

    time: Float[Array, "steps batch"]
    spike: Int[Array, "steps batch"]
    slot: Int[Array, "steps batch"]
    slope: Float[Array, "steps batch"]
    counts: tuple[Int[Array, "batch neurons"], ...]
    events_needed: Int[Array, "batch"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class GroupSpikes:
    """Spikes of a recurrent group.

    Attributes:
        spikes: of each population.
        trains: the same spikes of each population in the order in which they act: (time, neuron),
            (batch, steps), the time inf where there is none.
        events_needed: (batch,) `max_events` that it takes; a lower bound where it is more than 16
            times too small, or where there are delays. The spikes of samples in which it exceeds
            `max_events` are incomplete.
    """

    spikes: tuple[LayerSpikes, ...]
    trains: tuple[tuple[Float[Array, "batch steps"], Int[Array, "batch steps"]], ...]
    events_needed: Int[Array, "batch"]


def by_population(spec: GroupSpec, events: GroupEvents) -> GroupSpikes:
    """Spikes of each population of a group; the gradient passes through their times."""
    spikes, trains, first = [], [], 0
    for layer, count in zip(spec.layers, events.counts, strict=True):
        batch, size = count.shape
        neuron = events.spike - first
        mine = (neuron >= 0) & (neuron < size)
        place = (jnp.arange(batch), jnp.where(mine, neuron, size), events.slot)
        empty = jnp.full((batch, size, layer.max_spikes), jnp.inf, events.time.dtype)
        spikes.append(
            LayerSpikes(
                time=empty.at[place].set(events.time, mode="drop"),
                slope=jnp.ones_like(empty).at[place].set(events.slope, mode="drop"),
                count=count,
            )
        )
        trains.append((jnp.where(mine, events.time, jnp.inf).T, jnp.where(mine, neuron, 0).T))
        first += size
    return GroupSpikes(
        spikes=tuple(spikes), trains=tuple(trains), events_needed=events.events_needed
    )


class Channel(NamedTuple):
    """What makes a queue: a feedback edge with a delay, or the refractory time of a population
    (edge and target None).

    row: where its neurons' weights begin in the target's table.
    """

    source: int
    target: int | None
    edge: int | None
    row: int


class Layout(NamedTuple):
    """Where the rows of the tables come from.

    sizes: neurons of each population; immediate: (source, target) -> first row of the feedback
    without delay; channels; nothing: of each population, the number of its last row, which is zero.
    """

    sizes: tuple[int, ...]
    immediate: dict[tuple[int, int], int]
    channels: tuple[Channel, ...]
    nothing: tuple[int, ...]

    @property
    def delayed(self):
        """Whether feedback arrives with a delay."""
        return any(channel.target is not None for channel in self.channels)

    def first(self, population):
        """Number of a population's first neuron among all neurons of the group."""
        return sum(self.sizes[:population])


class Log(NamedTuple):
    """What happened in each step; arrays (steps + 1, batch), of which the last row means nothing.

    time: when. spike: number of the neuron that fired among all neurons of the group, or how many
    they are. slot: how often it had fired before. slope: dV/dt just before. row: of each
    population, the row of its table that arrived, or `Layout.nothing`. origin: of each population,
    the step in which the spike was fired that arrived from a queue. released: of each refractory
    population, the step in which the neuron had fired whose refractory time ends. cause, jump: the
    step of the arrival that moved V of the neuron that fired across the threshold, and by how much.
    slope_after: dV/dt when V is let go from v_reset. The last three are None where no neuron of the
    group needs them.
    """

    time: jax.Array
    spike: jax.Array
    slot: jax.Array
    slope: jax.Array
    row: tuple[jax.Array, ...]
    origin: tuple[jax.Array, ...] | None
    released: dict[int, jax.Array]
    cause: Any
    jump: Any
    slope_after: Any


def layout(spec: GroupSpec, arrivals, feedback) -> Layout:
    """Where the rows of `tables` come from; arguments as in `recurrent_adjoint.group_spikes`."""
    sizes = tuple(weight.shape[1] for weight, _, _ in arrivals)
    rows = [weight.shape[0] for weight, _, _ in arrivals]
    immediate, channels = {}, []
    edges = [(*pair, delay) for pair, (_, delay) in zip(spec.edges, feedback, strict=True)]
    for source, target, delay in edges:
        if delay is None and (source, target) not in immediate:
            immediate[source, target] = rows[target]
            rows[target] += sizes[source]
    for edge, (source, target, delay) in enumerate(edges):
        if delay is not None:
            channels.append(Channel(source=source, target=target, edge=edge, row=rows[target]))
            rows[target] += sizes[source]
    for number, layer in enumerate(spec.layers):
        if layer.refractory:
            channels.append(Channel(source=number, target=None, edge=None, row=0))
    return Layout(sizes=sizes, immediate=immediate, channels=tuple(channels), nothing=tuple(rows))


def tables(spec: GroupSpec, plan: Layout, external, feedback):
    """Of each population, the weights of everything that can arrive there: (rows, neurons).

    Args:
        external: weights of the arrivals from outside, one array for each population.
        feedback: weights of the feedback edges, None for the identity.
    """
    delayed = {channel.edge for channel in plan.channels}
    parts = [[weight] for weight in external]

    def add(source, target, edges):
        identity = jnp.eye(plan.sizes[source], dtype=external[target].dtype)
        parts[target].append(
            sum(identity if feedback[edge] is None else feedback[edge] for edge in edges)
        )

    for source, target in plan.immediate:
        pairs = enumerate(spec.edges)
        add(
            source,
            target,
            [edge for edge, pair in pairs if pair == (source, target) and edge not in delayed],
        )
    for channel in plan.channels:
        if channel.edge is not None:
            add(channel.source, channel.target, [channel.edge])
    return tuple(
        jnp.concatenate([*part, jnp.zeros_like(part[0], shape=(1, part[0].shape[1]))])
        for part in parts
    )


def delays_of(spec: GroupSpec, plan: Layout, feedback, dtype):
    """Delays of each channel, (lines,)."""
    found = []
    for channel in plan.channels:
        delay = (
            spec.layers[channel.source].refractory
            if channel.edge is None
            else feedback[channel.edge][1]
        )
        found.append(jnp.atleast_1d(jnp.asarray(delay, dtype)))
    return tuple(found)
