"""The next event of a recurrent group, for each sample of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.event.compensated import Pair, between, either, plus
from jaxsnn.event.event_arrays import (
    NeuronConstants,
    NumberOfSamples,
    OfNeurons,
    OfSamples,
    Rows,
    State,
    Times,
    WhichNeurons,
    WhichSamples,
)
from jaxsnn.event.forward.deliveries import Delays, Delivery, FanOutQueue, Queue
from jaxsnn.event.forward.earliest import Crossing, earliest_crossing
from jaxsnn.event.forward.group import Layout, Log
from jaxsnn.event.forward.layer import LayerSpec
from jaxsnn.network.array_types import Array, Float, Int, Num
from jaxsnn.network.lookups import gather_along
from jaxsnn.network.sorting import sorted_times


class PopulationState(NamedTuple):
    """State of one population."""

    x: State  # the neurons' own state, arrays (batch, neurons)
    count: Int[Array, "batch neurons"]  # spikes of each
    position: NumberOfSamples  # of the next arrival from outside
    held: WhichNeurons | None  # in the refractory period; None: there is none
    #: neurons that fire now, one after the other, before anything else happens; None in a group
    #: without arrivals that change V
    due: WhichNeurons | None
    #: as in `Log`, of the neurons that an arrival moved above their threshold; None where arrivals
    #: do not change V
    cause: Int[Array, "batch neurons"] | None
    #: jump of V at the time of the last arrival; None unless a gradient needs it
    jump: OfNeurons | None
    #: rounding error of the level of open boxes; None without boxes
    level_low: OfNeurons | None


class GroupState(NamedTuple):
    """State of a group in the loop."""

    now: Pair  # current time of each sample, (batch,)
    finished: WhichSamples
    populations: tuple[PopulationState, ...]
    queues: tuple[Queue | FanOutQueue, ...]  # one for each channel


class SortedArrivals(NamedTuple):
    """Arrivals from outside in the order of their times."""

    time: Float[Array, "batch slots"]  # the last slot is unused
    row: Int[Array, "batch slots"]
    position: Int[Array, "batch arrivals"]  # the original slots


class NextArrival(NamedTuple):
    """Next arrival at a population."""

    time: Pair  # (batch,)
    row: NumberOfSamples  # of the population's table
    source: NumberOfSamples  # 0 from outside, n + 1 from channel n
    step: NumberOfSamples  # step in which the spike was fired, if from a channel


class StepEvent(NamedTuple):
    """Event of one step of the loop."""

    now: Pair  # time of the event, (batch,)
    wait: OfSamples  # time until the event
    ends: WhichSamples  # no further event before t_end
    fires: WhichSamples  # a neuron fires
    #: of each population, the neuron that fires, or the population's size
    neuron: tuple[NumberOfSamples, ...]
    #: of each population, the neurons that cross the threshold at this time
    crossing: tuple[WhichNeurons, ...]
    #: of each population, whether something arrives from outside or from a queue
    arrives: tuple[WhichSamples, ...]
    row: tuple[NumberOfSamples, ...]  # of each population's table, the row that acts
    taken: tuple[WhichSamples, ...]  # of each channel, whether its next delivery is due
    #: of each refractory population, the neuron whose refractory period ends, or the population's
    #: size
    released: dict[int, NumberOfSamples]


class _Acting(NamedTuple):
    """Arrivals and deliveries that act at a time; spikes are not included."""

    arrives: tuple[WhichSamples, ...]  # of each population, whether something arrives
    taken: tuple[WhichSamples, ...]  # of each channel, whether its next delivery acts


def in_order(time: Times, row: Rows) -> SortedArrivals:
    """Sort the arrivals from outside by time, append an unused slot, and keep the original
    slots.
    """
    _, position = sorted_times(time)
    row = jnp.broadcast_to(row, time.shape).astype(jnp.int32)
    # After its last arrival a sample points to the appended slot, whose time is inf.
    pad = ((0, 0), (0, 1))
    time = jnp.pad(gather_along(time, position, 1), pad, constant_values=jnp.inf)
    row = jnp.pad(gather_along(row, position, 1), pad)
    return SortedArrivals(time=time, row=row, position=position)


def first_of(mask: WhichNeurons) -> NumberOfSamples:
    """Return the lowest index of each sample's neurons that are set; the number of neurons if none
    is.
    """
    size = mask.shape[1]
    # first = size - max over the set neurons of (size - number)
    number = lax.broadcasted_iota(jnp.float32, mask.shape, 1)
    most = jnp.max(jnp.where(mask, size - number, 0.0), axis=1)
    return jnp.int32(size) - most.astype(jnp.int32)


def pick(array: Num[Array, "batch columns"], column: NumberOfSamples) -> Num[Array, "batch"]:
    """Return the entry of each sample in a column."""
    return jnp.take_along_axis(array, column[:, None], 1, mode="clip")[:, 0]


class Agenda:
    """Computation of the next event of each sample.

    Args:
        layers: static description of each population.
        constants: constants of each population's neurons.
        plan: the layout.
        trains: arrivals from outside at each population.
        delays: delays of each channel, seconds.
        t_end: seconds.
        none: sentinel for no step.
    """

    def __init__(
        self,
        layers: Sequence[LayerSpec],
        constants: Sequence[NeuronConstants],
        plan: Layout,
        trains: Sequence[SortedArrivals],
        delays: Sequence[Delays],
        t_end: Float[Array, ""],
        none: int,
    ) -> None:
        self.layers = layers
        self.constants = constants
        self.plan = plan
        self.trains = trains
        self.delays = delays
        self.t_end = t_end
        self.none = none
        self.batch = trains[0].time.shape[0]

    # ---- next arrivals

    def arrivals(
        self, state: GroupState, deliveries: Sequence[Delivery], log: Log
    ) -> tuple[NextArrival, ...]:
        """Return the next arrival at each population."""
        numbers = range(len(self.layers))
        return tuple(self._next_arrival(number, state, deliveries, log) for number in numbers)

    def _next_arrival(
        self, number: int, state: GroupState, deliveries: Sequence[Delivery], log: Log
    ) -> NextArrival:
        """Return the next arrival at a population; of several at the same time the one from
        outside, or that of the first channel.
        """
        train = self.trains[number]
        position = state.populations[number].position
        zero = jnp.zeros_like(position)
        time = pick(train.time, position)
        arrival = NextArrival(
            time=Pair(time, jnp.zeros_like(time)),
            row=pick(train.row, position),
            source=zero,
            step=zero + self.none,
        )
        pairs = zip(self.plan.channels, deliveries, strict=True)
        for count, (channel, delivery) in enumerate(pairs):
            if channel.target != number:
                continue
            candidate = NextArrival(
                time=delivery.due,
                row=channel.row + self._row(count, delivery, log),
                source=zero + count + 1,
                step=delivery.step,
            )
            arrival = _earlier(arrival, candidate)
        return arrival

    def _row(self, number: int, delivery: Delivery, log: Log) -> NumberOfSamples:
        """Return the row that channel `number` delivers next, counted from its first row: that of
        a synapse if these have separate delays, else that of the presynaptic neuron.
        """
        source, fan_out = self.plan.channels[number].source, self.plan.channels[number].fan_out
        # If each row has a separate line, the line number is that of the row.
        if fan_out is not None or self.delays[number].size > 1 or self.plan.sizes[source] == 1:
            return delivery.line
        # The log numbers the neurons of all populations of the group.
        neuron = log.spike[delivery.step, jnp.arange(self.batch)] - self.plan.first(source)
        # If the queue is empty, the log's entry is arbitrary: keep the index in range.
        return jnp.clip(neuron, 0, self.plan.sizes[source] - 1)

    # ---- next event

    def event(
        self,
        state: GroupState,
        arrivals: Sequence[NextArrival],
        deliveries: Sequence[Delivery],
        log: Log,
    ) -> StepEvent:
        """Return the event of the next step."""
        # Neurons flow at most to the next arrival or delivery, or to t_end.
        zero = jnp.zeros(self.batch, self.t_end.dtype)
        until = Pair(self.t_end + zero, zero)
        for time in (
            *(arrival.time for arrival in arrivals),
            *(delivery.due for delivery in deliveries),
        ):
            until = either(time.high < until.high, time, until)
        # Times that are equal after rounding are simultaneous.
        until = either(until.high <= state.now.high, state.now, until)
        window = between(state.now, until)
        crossings = self._crossings(state, window)
        wait = zero + jnp.inf
        for crossing in crossings:
            wait = jnp.minimum(wait, crossing.wait)
        # A crossing within the window acts before the arrival, also if both have the same time.
        fires = ~state.finished & jnp.isfinite(wait)
        crossing = tuple(c.neurons & (fires & (c.wait == wait))[:, None] for c in crossings)
        due = [population.due for population in state.populations if population.due is not None]
        if due:
            waits = self._any_of(due) & ~state.finished
            fires |= waits
            wait = jnp.where(waits, 0.0, wait)
            pairs = zip(due, crossing, strict=True)
            crossing = tuple(jnp.where(waits[:, None], now, crosses) for now, crosses in pairs)
        neuron = self._first(crossing)
        acts = ~state.finished & ~fires & (until.high < self.t_end)
        acting = self._acting(arrivals, deliveries, until, acts)
        return StepEvent(
            now=either(fires, plus(state.now, jnp.where(fires, wait, 0.0)), until),
            wait=jnp.where(fires, wait, window),
            ends=~fires & (until.high >= self.t_end),
            fires=fires,
            neuron=neuron,
            crossing=crossing,
            arrives=acting.arrives,
            row=self._rows(arrivals, acting.arrives, neuron),
            taken=acting.taken,
            released=self._released(deliveries, acting.taken, log),
        )

    def _any_of(self, masks: Sequence[WhichNeurons]) -> WhichSamples:
        """Return the samples in which some neuron of some population is set."""
        any_set = jnp.zeros(self.batch, bool)
        for mask in masks:
            any_set |= jnp.any(mask, axis=1)
        return any_set

    def _crossings(self, state: GroupState, window: OfSamples) -> list[Crossing]:
        """Return the earliest threshold crossing of each population within a window."""
        crossings = []
        parts = zip(self.layers, self.constants, state.populations, strict=True)
        for layer, constants, population in parts:
            # Leave out neurons in a refractory period, and neurons that fire once and have fired.
            able = None if population.held is None else ~population.held
            if layer.once:
                unfired = population.count == 0
                able = unfired if able is None else able & unfired
            crossings.append(earliest_crossing(layer.neuron, constants, population.x, able, window))
        return crossings

    def _first(self, crossing: Sequence[WhichNeurons]) -> tuple[NumberOfSamples, ...]:
        """Return the neuron of each population that fires, among those that cross: the first neuron
        of the first population.
        """
        neurons = []
        before = jnp.zeros(self.batch, bool)  # a neuron of an earlier population fires
        for mask, size in zip(crossing, self.plan.sizes, strict=True):
            neuron = first_of(mask)
            neurons.append(jnp.where(before, size, neuron))
            before |= neuron < size
        return tuple(neurons)

    # ---- effects of the event

    def _rows(
        self,
        arrivals: Sequence[NextArrival],
        arrives: Sequence[WhichSamples],
        neuron: Sequence[NumberOfSamples],
    ) -> tuple[NumberOfSamples, ...]:
        """Return, for each population, the row of its table that acts."""
        rows = []
        for number, nothing in enumerate(self.plan.nothing):
            row = jnp.where(arrives[number], arrivals[number].row, nothing)
            if self.plan.in_rounds:  # spikes arrive through channels
                rows.append(row)
                continue
            # A spike and an arrival never act in the same step, so that one row is enough.
            for (source, target), first in self.plan.immediate.items():
                if target == number:
                    fires = neuron[source] < self.plan.sizes[source]
                    row = jnp.where(fires, first + neuron[source], row)
            rows.append(row)
        return tuple(rows)

    def _acting(
        self,
        arrivals: Sequence[NextArrival],
        deliveries: Sequence[Delivery],
        until: Pair,
        acts: WhichSamples,
    ) -> _Acting:
        """Return the arrivals and deliveries that act at a time, for the samples in which no spike
        acts.

        Refractory periods end one after the other, before anything arrives.
        """
        delivered: dict[int, WhichSamples] = {}
        for number, channel in enumerate(self.plan.channels):
            if channel.target is None:
                ends = acts & (deliveries[number].due.high <= until.high)
                delivered[number] = ends
                acts &= ~ends
        arrives = tuple(acts & (arrival.time.high <= until.high) for arrival in arrivals)
        for number, channel in enumerate(self.plan.channels):
            if channel.target is not None:
                # Of several due channels, only that of the population's next arrival delivers.
                chosen = arrivals[channel.target].source == number + 1
                delivered[number] = arrives[channel.target] & chosen
        return _Acting(arrives=arrives, taken=tuple(delivered[n] for n in range(len(deliveries))))

    def _released(
        self, deliveries: Sequence[Delivery], delivered: Sequence[WhichSamples], log: Log
    ) -> dict[int, NumberOfSamples]:
        """Return, for each refractory population, the neuron whose refractory period ends."""
        released = {}
        pairs = zip(self.plan.channels, deliveries, strict=True)
        for number, (channel, delivery) in enumerate(pairs):
            if channel.target is None:
                neuron = self._row(number, delivery, log)
                size = self.plan.sizes[channel.source]
                released[channel.source] = jnp.where(delivered[number], neuron, size)
        return released


def _earlier(arrival: NextArrival, candidate: NextArrival) -> NextArrival:
    """Return the earlier of two arrivals, the first one if both have the same time."""
    is_other = candidate.time.high < arrival.time.high
    return jax.tree.map(lambda new, old: jnp.where(is_other, new, old), candidate, arrival)
