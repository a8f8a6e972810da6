"""What happens next in a recurrent group, for each sample of a batch."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.event.forward.deliveries import Delivery, Queue
from jaxsnn.event.forward.earliest import Crossing, earliest_crossing
from jaxsnn.network.sorting import sorted_times


class PopulationState(NamedTuple):
    """State of one population; arrays (batch, neurons), but position (batch,).

    x: the neurons' own state; count: spikes of each; position: of the next arrival from outside;
    held: in the refractory time; cause, jump: as in `Log`, of the neurons that something moved
    above their threshold.
    """

    x: Any
    count: jax.Array
    position: jax.Array
    held: jax.Array | None
    cause: jax.Array | None
    jump: jax.Array | None


class GroupState(NamedTuple):
    """Carry of the loop: now, finished, (batch,); populations; queues, one for each channel."""

    now: jax.Array
    finished: jax.Array
    populations: tuple[PopulationState, ...]
    queues: tuple[Queue, ...]


class NextArrival(NamedTuple):
    """The next thing to arrive at a population, arrays (batch,).

    time, row: when, and which row of its table; source: 0 from outside, n + 1 from channel n; step:
    in which it was fired, if from a channel.
    """

    time: jax.Array
    row: jax.Array
    source: jax.Array
    step: jax.Array


class StepEvent(NamedTuple):
    """What happens in a step, arrays (batch,).

    now: when; wait: time to it; ends: nothing happens any more. fires: whether a neuron does;
    neuron: of each population, the one that fires, or the population's size. crossing: of each
    population, the neurons that cross the threshold at this time, (batch, neurons). arrives: of
    each population, whether something does from outside or from a queue; row: the row that acts.
    taken: of each channel, whether its next delivery is due. released: of each refractory
    population, the neuron whose refractory time ends, or the population's size.
    """

    now: jax.Array
    wait: jax.Array
    ends: jax.Array
    fires: jax.Array
    neuron: tuple[jax.Array, ...]
    crossing: tuple[jax.Array, ...]
    arrives: tuple[jax.Array, ...]
    row: tuple[jax.Array, ...]
    taken: tuple[jax.Array, ...]
    released: dict[int, jax.Array]


def in_order(time, row):
    """Arrivals from outside in the order of their times, with an unused slot at the end; and the
    slots they had.
    """
    _, position = sorted_times(time)
    row = jnp.broadcast_to(row, time.shape).astype(jnp.int32)
    pad = ((0, 0), (0, 1))
    time = jnp.pad(jnp.take_along_axis(time, position, 1), pad, constant_values=jnp.inf)
    return time, jnp.pad(jnp.take_along_axis(row, position, 1), pad), position


def first_of(lanes):
    """The lowest number of each sample's lanes that are set, (batch,); the number of lanes if none
    is.
    """
    size = lanes.shape[1]
    left = lax.broadcasted_iota(jnp.float32, lanes.shape, 1)
    return jnp.int32(size) - jnp.max(jnp.where(lanes, size - left, 0.0), axis=1).astype(jnp.int32)


def pick(array, column):
    """The entry of each sample in a column of an array (batch, columns)."""
    return jnp.take_along_axis(array, column[:, None], 1, mode="clip")[:, 0]


class Agenda:
    """Finds the next event.

    Args:
        layers, lanes: of each population.
        plan: the layout.
        trains: of each population, arrivals from outside in order, see `in_order`.
        delays: of each channel, (lines,).
        t_end: seconds.
        none: a step that never comes.
    """

    def __init__(self, layers, lanes, plan, trains, delays, t_end, none):
        self.layers, self.lanes, self.plan, self.trains, self.delays = (
            layers,
            lanes,
            plan,
            trains,
            delays,
        )
        self.t_end, self.none, self.batch = t_end, none, trains[0][0].shape[0]

    def arrivals(self, state: GroupState, deliveries, log) -> tuple[NextArrival, ...]:
        """The next arrival at each population."""
        return tuple(
            self._next_arrival(number, state, deliveries, log) for number in range(len(self.layers))
        )

    def _next_arrival(self, number, state, deliveries, log):
        """The next arrival at a population: of several at the same time the one from outside, or
        the first channel.
        """
        time, row = self.trains[number]
        position = state.populations[number].position
        zero = jnp.zeros_like(position)
        arrival = NextArrival(
            time=pick(time, position), row=pick(row, position), source=zero, step=zero + self.none
        )
        for channel, (_, target, _, first), delivery in zip(
            range(len(deliveries)), self.plan.channels, deliveries, strict=True
        ):
            if target != number:
                continue
            other = NextArrival(
                time=delivery.due,
                row=first + self._sender(channel, delivery, log),
                source=zero + channel + 1,
                step=delivery.step,
            )
            arrival = NextArrival(
                *(
                    jnp.where(other.time < arrival.time, b, a)
                    for a, b in zip(arrival, other, strict=True)
                )
            )
        return arrival

    def _sender(self, channel, delivery: Delivery, log):
        """The neuron, among those of its population, whose spike is to be delivered."""
        source = self.plan.channels[channel].source
        if self.delays[channel].size > 1 or self.plan.sizes[source] == 1:
            return delivery.line
        neuron = log.spike[delivery.step, jnp.arange(self.batch)] - self.plan.first(source)
        return jnp.clip(neuron, 0, self.plan.sizes[source] - 1)

    def event(self, state: GroupState, arrivals, deliveries, log) -> StepEvent:
        """What happens in a step."""
        until = self.t_end
        for time in [
            *(arrival.time for arrival in arrivals),
            *(delivery.due for delivery in deliveries),
        ]:
            until = jnp.minimum(until, time)
        until = jnp.maximum(until, state.now)
        window = until - state.now
        crossings = self._crossings(state, window)
        wait = jnp.full(self.batch, jnp.inf, window.dtype)
        for crossing in crossings:
            wait = jnp.minimum(wait, crossing.wait)
        fires = ~state.finished & jnp.isfinite(wait)
        crossing = tuple(c.lanes & (fires & (c.wait == wait))[:, None] for c in crossings)
        neuron = self._first(crossing)
        arrives, taken = self._taken(
            arrivals, deliveries, until, ~state.finished & ~fires & (until < self.t_end)
        )
        return StepEvent(
            now=jnp.where(fires, state.now + wait, until),
            wait=jnp.where(fires, wait, window),
            ends=~fires & (until >= self.t_end),
            fires=fires,
            neuron=neuron,
            crossing=crossing,
            arrives=arrives,
            row=self._rows(arrivals, arrives, neuron),
            taken=taken,
            released=self._released(deliveries, taken, log),
        )

    def _crossings(self, state, window) -> list[Crossing]:
        """The earliest crossing of each population within a window."""
        found = []
        for layer, lanes, population in zip(
            self.layers, self.lanes, state.populations, strict=True
        ):
            able = None if population.held is None else ~population.held
            if layer.once:
                able = (population.count == 0) if able is None else able & (population.count == 0)
            found.append(earliest_crossing(layer.neuron, lanes, population.x, able, window))
        return found

    def _first(self, crossing):
        """Of each population, the neuron that fires, given those that cross: the first of the first
        population.
        """
        found, before = [], jnp.zeros(self.batch, bool)
        for lanes, size in zip(crossing, self.plan.sizes, strict=True):
            neuron = first_of(lanes)
            found.append(jnp.where(before, size, neuron))
            before |= neuron < size
        return tuple(found)

    def _rows(self, arrivals, arrives, neuron):
        """Of each population, the row of its table that acts."""
        rows = []
        for number, nothing in enumerate(self.plan.nothing):
            row = jnp.where(arrives[number], arrivals[number].row, nothing)
            for (source, target), first in self.plan.immediate.items():
                if target == number:
                    row = jnp.where(
                        neuron[source] < self.plan.sizes[source], first + neuron[source], row
                    )
            rows.append(row)
        return tuple(rows)

    def _taken(self, arrivals, deliveries, until, acts):
        """Of each population, whether something arrives at a time; of each channel, whether its
        next delivery does.

        Refractory times end one after the other, and before anything arrives.
        """
        taken: list = [None] * len(deliveries)
        for number, (channel, delivery) in enumerate(
            zip(self.plan.channels, deliveries, strict=True)
        ):
            if channel.target is None:
                taken[number] = acts & (delivery.due <= until)
                acts &= ~taken[number]
        arrives = tuple(acts & (arrival.time <= until) for arrival in arrivals)
        for number, channel in enumerate(self.plan.channels):
            if channel.target is not None:
                taken[number] = arrives[channel.target] & (
                    arrivals[channel.target].source == number + 1
                )
        return arrives, tuple(taken)

    def _released(self, deliveries, taken, log):
        """Of each refractory population, the neuron whose refractory time ends."""
        released = {}
        for number, (channel, delivery) in enumerate(
            zip(self.plan.channels, deliveries, strict=True)
        ):
            if channel.target is None:
                sender = self._sender(number, delivery, log)
                released[channel.source] = jnp.where(
                    taken[number], sender, self.plan.sizes[channel.source]
                )
        return released
