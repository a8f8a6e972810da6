"""Simulation of recurrently connected populations, event by event: one strongly connected component
of a network.

A spike may change every neuron of the group, so that neurons cannot be simulated one by one as in
`layer_scan`. Instead one loop takes each sample to its next event, which is the earliest of

- an arrival from outside of the group,
- the delivery of a delayed spike,
- the end of a refractory period, and
- a threshold crossing.

All neurons flow to this time; then the event acts. The samples of a batch take their steps
together, each at its own time, until all have reached the end:

    sample 0    --x-----s-x------s-----|         x: arrival, s: spike
    sample 1    x-----x-----s----------|
                                     t_end       step 0 of sample 0 is its first x, and so on

The arrays and their axes:

    GroupState.now            (batch,)           time of each sample
    PopulationState.x         (batch, neurons)   state of the neurons
    Log                       (steps, batch)     the event of each step
    tables, one for each      (rows, neurons)    weights of all that can arrive: rows of arrivals
    population                                   from outside, one row for each presynaptic neuron
                                                 of the group, and at last a row of zeros
    FanOutQueue               (batch, neurons,   what is on its way where synapses have separate
                               lines)            delays, by presynaptic neuron; the weights of such
                                                 a projection are (neurons * lines, columns)

Simultaneous events are processed in rounds, so that results do not depend on the order of neurons
and inputs:

1. Refractory periods end.
2. All arrivals at this time are added up, from outside and from the group.
3. All neurons at or above the threshold fire and reset, several times if the reset keeps an
   overshoot.
4. Their spikes that have no delay arrive in the next round.

A step of the loop processes one arrival for each population, or one spike. Where arrivals do not
act on V itself, spikes without a delay arrive in the step of the spike, with the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.event.compensated import Pair
from jaxsnn.event.dynamics.neuron_model import Neuron, specialise
from jaxsnn.event.event_arrays import (
    NeuronConstants,
    NumberOfSamples,
    OfSamples,
    Seconds,
    State,
    WhichNeurons,
    WhichSamples,
)
from jaxsnn.event.forward.agenda import (
    Agenda,
    GroupState,
    NextArrival,
    PopulationState,
    StepEvent,
    in_order,
    pick,
)
from jaxsnn.event.forward.batching import anywhere
from jaxsnn.event.forward.box_levels import Level, arrived, least_level
from jaxsnn.event.forward.deliveries import (
    Delivery,
    FanOutQueue,
    Queue,
    StepNumber,
    deliver,
    empty_fan_out,
    empty_queue,
    send,
)
from jaxsnn.event.forward.group import (
    Feedback,
    GroupEvents,
    GroupSpec,
    Log,
    Outside,
    arriving,
    delays_of,
    largest_weights,
    layout,
    tables,
)
from jaxsnn.event.forward.layer import crosses_upwards, has_nan
from jaxsnn.network.array_types import Array, Bool, Float, Int, Num
from jaxsnn.network.lookups import entries_at
from jaxsnn.network.meshes import match_device_axes

#: Multiple of the log's steps after which a run that continues to count the required spikes ends.
_BEYOND = 16


class GroupRun(NamedTuple):
    """Outcome of a simulation."""

    events: GroupEvents
    log: Log
    steps: Int[Array, ""]  # number of steps in the log


class _Carry(NamedTuple):
    """Carry of the loop: `step` is the number of the next one."""

    step: StepNumber
    state: GroupState
    log: Log


class _Note(NamedTuple):
    """Log entries of the spike of one population; fields as in `Log`."""

    slot: NumberOfSamples
    slope: OfSamples
    cause: NumberOfSamples | None
    jump: OfSamples | None
    slope_after: OfSamples | None


class _Moved(NamedTuple):
    """Population after an event, and its log entries."""

    population: PopulationState
    note: _Note


def simulate_group(
    spec: GroupSpec,
    arrivals: Sequence[Outside],
    feedback: Sequence[Feedback],
    constants: Sequence[NeuronConstants],
    t_end: Seconds,
) -> GroupRun:
    """Return the spikes of a recurrent group, its log, and the number of steps in the log. No
    gradient passes through.

    Arguments as in `recurrent_adjoint.group_spikes`.
    """

    def simulated(neurons: list[Neuron]) -> GroupRun:
        return _simulated(spec.with_neurons(neurons), arrivals, feedback, constants, t_end)

    return specialise([layer.neuron for layer in spec.layers], constants, simulated)


def _simulated(
    spec: GroupSpec,
    arrivals: Sequence[Outside],
    feedback: Sequence[Feedback],
    constants: Sequence[NeuronConstants],
    t_end: Seconds,
) -> GroupRun:
    """Simulate the group with the assumptions of its models."""
    loop = _Loop(spec, arrivals, feedback, constants, t_end)
    steps, state, log = loop.run()
    counts = tuple(population.count for population in state.populations)
    fired = sum(count.sum(axis=1) for count in counts)
    # The log's last row collects the steps beyond its capacity.
    spike = log.spike[:-1]
    events = GroupEvents(
        time=jnp.where(spike < sum(loop.plan.sizes), log.time[:-1], jnp.inf),
        spike=spike,
        slot=log.slot[:-1],
        slope=log.slope[:-1],
        counts=counts,
        broken=tuple(
            has_nan(layer.neuron, layer_constants, population.x)
            for layer, layer_constants, population in zip(
                spec.layers, constants, state.populations, strict=True
            )
        ),
        events_needed=jnp.where(state.finished, fired, jnp.maximum(fired, spec.max_events + 1)),
    )
    return GroupRun(events=events, log=log, steps=jnp.minimum(steps, loop.steps))


class _Loop:
    """Event loop of a group."""

    def __init__(
        self,
        spec: GroupSpec,
        arrivals: Sequence[Outside],
        feedback: Sequence[Feedback],
        constants: Sequence[NeuronConstants],
        t_end: Seconds,
    ) -> None:
        self.layers = spec.layers
        self.constants = constants
        self.numbers = range(len(spec.layers))
        self.plan = layout(spec, arrivals, feedback)
        external = [weight for weight, _, _ in arrivals]
        between = [weight for weight, _ in feedback]
        self.tables = tables(spec, self.plan, external, between)
        self.dtype = self.tables[0].rows.dtype
        self.least = [
            least_level(largest_weights(self.plan, number, self.tables[number]))
            for number in self.numbers
        ]
        self.delays = delays_of(spec, self.plan, feedback, self.dtype)
        self.t_end = jnp.asarray(t_end, self.dtype)
        self.batch = arrivals[0][1].shape[0]
        # One step for each arrival from outside, for each spike, and for each delivery of a spike.
        slots = sum(time.shape[1] for _, time, _ in arrivals)
        self.steps = slots + spec.max_events * (1 + self.plan.max_deliveries)
        trains = [in_order(time, row) for _, time, row in arrivals]
        self.agenda = Agenda(
            self.layers, constants, self.plan, trains, self.delays, self.t_end, self.steps
        )

    def run(self) -> _Carry:
        """Run the loop and return the number of steps, the state and the log at the end."""
        # Queues identify spikes by their row in the log: with queues, the loop ends with the log.
        limit = self.steps + 1 if self.plan.channels else _BEYOND * (self.steps + 1)

        def unfinished(carry: _Carry) -> Bool[Array, ""]:
            return anywhere(~carry.state.finished) & (carry.step < limit)

        start = _Carry(step=jnp.int32(0), state=self._begin(), log=self._empty_log())
        inputs = self.tables, self.constants, self.delays, self.t_end, self.agenda.trains
        return lax.while_loop(unfinished, self._step, match_device_axes(start, inputs))

    # ---- initial state and log

    def _begin(self) -> GroupState:
        """Return the state at time 0."""
        populations = tuple(self._begin_of(number) for number in self.numbers)
        queues = tuple(self._empty_queue(delay) for delay in self.delays)
        zero = jnp.zeros(self.batch, self.dtype)
        finished = zero >= self.t_end
        return GroupState(
            now=Pair(zero, zero), finished=finished, populations=populations, queues=queues
        )

    def _empty_queue(self, delay: Float[Array, "..."]) -> Queue | FanOutQueue:
        """Return an empty queue for a channel's delays."""
        if delay.ndim == 1:
            return empty_queue(self.batch, delay.size, self.steps, self.dtype)
        neurons, lines = delay.shape
        return empty_fan_out(self.batch, neurons, lines, self.steps, self.dtype)

    def _begin_of(self, number: int) -> PopulationState:
        """Return a population's state at time 0."""
        layer = self.layers[number]
        shape = (self.batch, self.plan.sizes[number])
        begin = layer.neuron.begin(self.constants[number])
        x = tuple(jnp.broadcast_to(array, shape).astype(self.dtype) for array in begin)
        jumps = layer.neuron.jumps
        return PopulationState(
            x=x,
            count=jnp.zeros(shape, jnp.int32),
            position=jnp.zeros(self.batch, jnp.int32),
            held=jnp.zeros(shape, bool) if layer.refractory else None,
            due=jnp.zeros(shape, bool) if self.plan.in_rounds else None,
            cause=jnp.full(shape, self.steps, jnp.int32) if jumps else None,
            jump=jnp.zeros(shape, self.dtype) if layer.asks_for_rise else None,
            level_low=None if layer.neuron.level is None else jnp.zeros(shape, self.dtype),
        )

    def _empty_log(self) -> Log:
        """Return an empty log."""
        # one row more than steps, which is overwritten once the log is full
        shape = (self.steps + 1, self.batch)
        none = jnp.full(shape, self.steps, jnp.int32)
        zero = jnp.zeros(shape, self.dtype)
        channels = self.plan.channels
        jumps = any(layer.neuron.jumps for layer in self.layers)
        assigns = any(layer.assigns for layer in self.layers)
        return Log(
            time=zero,
            time_low=zero,
            spike=jnp.full(shape, sum(self.plan.sizes), jnp.int32),
            slot=jnp.zeros(shape, jnp.int32),
            slope=zero,
            row=tuple(jnp.full(shape, nothing, jnp.int32) for nothing in self.plan.nothing),
            origin=tuple(none for _ in self.numbers) if self.plan.delayed else None,
            released={channel.source: none for channel in channels if channel.target is None},
            cause=none if jumps else None,
            jump=zero if any(layer.asks_for_rise for layer in self.layers) else None,
            slope_after=zero if assigns else None,
        )

    # ---- a step

    def _step(self, carry: _Carry) -> _Carry:
        """Advance each sample to its next event, and apply that event."""
        step, state, log = carry
        deliveries = tuple(queue.next_delivery() for queue in state.queues)
        arrivals = self.agenda.arrivals(state, deliveries, log)
        event = self.agenda.event(state, arrivals, deliveries, log)
        populations, notes = [], []
        for number in self.numbers:
            population, note = self._move(number, step, state.populations[number], event)
            from_outside = event.arrives[number] & (arrivals[number].source == 0)
            populations.append(population._replace(position=population.position + from_outside))
            notes.append(note)
        log = self._write(log, step, event, notes, arrivals, deliveries)
        # The queues read the log after it is written, or else XLA would copy it in each step.
        queues = tuple(
            self._queue(number, queue, deliveries[number], event, step, log)
            for number, queue in enumerate(state.queues)
        )
        state = GroupState(
            now=event.now,
            finished=state.finished | event.ends,
            populations=tuple(populations),
            queues=queues,
        )
        return _Carry(step=step + 1, state=state, log=log)

    def _move(
        self, number: int, step: StepNumber, population: PopulationState, event: StepEvent
    ) -> _Moved:
        """Advance a population to the event, apply the spike if one of its neurons fires, and apply
        the arrivals.
        """
        neuron, constants = self.layers[number].neuron, self.constants[number]
        x = self._flow(number, population, event)
        note = self._note(number, population, x, event)
        # the spike
        numbers = lax.broadcasted_iota(jnp.int32, x[0].shape, 1)
        fires = numbers == event.neuron[number][:, None]
        reset = neuron.reset(constants, x)
        if self.layers[number].refractory:  # V is held, without an overshoot
            reset = neuron.clamp(constants, reset)
        x = _chosen(fires, reset, x)
        # the arrival; the row of zeros if there is none
        weights = arriving(self.plan, number, self.tables[number], event.row[number])
        moved = neuron.arrive(x, weights)
        level_low = population.level_low
        if level_low is not None:
            before = Level(x, level_low)
            moved, level_low = arrived(neuron, constants, before, weights, self.least[number])
        held, cause, jump = population.held, population.cause, population.jump
        if held is not None:
            held = (held | fires) & (numbers != event.released[number][:, None])
            # In a refractory period, arrivals act on all entries except V.
            moved = (jnp.where(held, x[0], moved[0]), *moved[1:])
        if cause is not None:
            # A neuron that was above its threshold before and has not fired yet keeps its cause.
            newly, stays = crosses_upwards(neuron, constants, x, moved)
            cause = jnp.where(newly, step, jnp.where(stays, cause, self.steps))
        if jump is not None:
            # The jumps of simultaneous arrivals add up.
            jump = jnp.where(event.wait[:, None] > 0, 0.0, jump) + weights
        due = population.due
        if due is not None:
            due = event.crossing[number] & ~fires
            if neuron.keeps_overshoot and not self.layers[number].once:
                due |= fires & neuron.above(constants, x)
        count = population.count + fires
        at = jnp.minimum(event.neuron[number], self.plan.sizes[number] - 1)
        population = PopulationState(
            x=moved,
            count=count,
            position=population.position,
            held=held,
            due=due,
            cause=cause,
            jump=jump,
            level_low=level_low,
        )
        return _Moved(population=population, note=note._replace(slot=pick(count, at) - 1))

    def _flow(self, number: int, population: PopulationState, event: StepEvent) -> State:
        """Return the neurons' state just before the event."""
        neuron, constants = self.layers[number].neuron, self.constants[number]
        # If all neurons have the same time constants, the decay of one neuron is valid for all.
        flowing = jax.tree.map(lambda array: array[:1], constants) if neuron.uniform else constants
        v = population.x[0]
        x = neuron.flow(neuron.decay(flowing, event.wait[:, None]), population.x)
        if population.held is not None:
            x = (jnp.where(population.held, v, x[0]), *x[1:])
        at_threshold = neuron.lifted(constants, x)  # rounding must not lose the crossing
        return _chosen(event.crossing[number], at_threshold, x)

    def _queue(
        self,
        number: int,
        queue: Queue | FanOutQueue,
        delivery: Delivery,
        event: StepEvent,
        step: StepNumber,
        log: Log,
    ) -> Queue | FanOutQueue:
        """Return a queue after the event.

        A step does not both send a spike and deliver one. `send` comes first: if `behind` were read
        before it is written, XLA would copy it in each step.
        """
        channel, delay = self.plan.channels[number], self.delays[number]
        # the population's size if none of its neurons fires
        neuron = event.neuron[channel.source][:, None]
        fired_at = Pair(log.time, log.time_low)
        if isinstance(queue, FanOutQueue):
            fires = neuron < self.plan.sizes[channel.source]
            lines = delay.shape[1]
            changing = jnp.where(fires[:, 0], neuron[:, 0], delivery.line // lines)
            of_neuron, delay = queue.of(changing), entries_at(delay, changing)
            delivery = delivery._replace(line=delivery.line % lines)
            of_neuron = send(of_neuron, fires, step, event.now, delay)
            of_neuron = deliver(of_neuron, delivery, event.taken[number], delay, fired_at)
            return queue.changed(changing, of_neuron)
        if delay.size > 1:  # a line for each neuron
            here = neuron == jnp.arange(delay.size, dtype=neuron.dtype)
        else:
            here = neuron < self.plan.sizes[channel.source]
        queue = send(queue, here, step, event.now, delay)
        return deliver(queue, delivery, event.taken[number], delay, fired_at)

    # ---- the log

    def _note(self, number: int, population: PopulationState, x: State, event: StepEvent) -> _Note:
        """Return the log entries of a population's spike, from its state just before that."""
        neuron, assigns = self.layers[number].neuron, self.layers[number].assigns
        size = self.plan.sizes[number]
        # If no neuron fires, the entries are those of the last neuron, and unused.
        at = jnp.minimum(event.neuron[number], size - 1)
        constants = self._constants_at(number, at)
        slope = neuron.slope(constants, tuple(pick(array, at) for array in x))
        cause = jump = slope_after = None
        if population.jump is not None:
            jump = pick(population.jump, at)
        if population.cause is not None:
            cause = pick(population.cause, at)
            # The time of a spike at time 0, or caused by an arrival, does not depend on the slope.
            slope = jnp.where((cause < self.steps) | (event.now.high == 0), jnp.inf, slope)
        if assigns:
            if number in event.released:
                # The gradient also needs dV/dt of a neuron at the end of its refractory period.
                fires = event.neuron[number] < size
                at = jnp.where(fires, at, event.released[number])
                at = jnp.minimum(at, size - 1)
                constants = self._constants_at(number, at)
            state = tuple(pick(array, at) for array in x)
            # `clamp` at the end of a refractory period: `reset` would add its constants again
            reset = neuron.clamp if self.layers[number].refractory else neuron.reset
            slope_after = neuron.rate(constants, reset(constants, state))[0]
        return _Note(
            slot=pick(population.count, at),
            slope=slope,
            cause=cause,
            jump=jump,
            slope_after=slope_after,
        )

    def _constants_at(self, number: int, neuron: NumberOfSamples) -> NeuronConstants:
        """Return the constants (batch,) of one neuron of a population in each sample."""
        return jax.tree.map(lambda array: array[neuron], self.constants[number])

    def _write(
        self,
        log: Log,
        step: StepNumber,
        event: StepEvent,
        notes: Sequence[_Note],
        arrivals: Sequence[NextArrival],
        deliveries: Sequence[Delivery],
    ) -> Log:
        """Return the log with one more step; once it is full the last row is overwritten."""
        spike = jnp.full(self.batch, sum(self.plan.sizes), jnp.int32)
        note = notes[0]
        for number, size in enumerate(self.plan.sizes):
            fires = event.neuron[number] < size
            spike = jnp.where(fires, self.plan.first(number) + event.neuron[number], spike)
            # At most one population fires or releases a neuron: the step gets its note.
            takes = fires | (event.released[number] < size) if number in event.released else fires
            note = _merged(takes, notes[number], note)
        origin = log.origin and tuple(
            jnp.where(event.arrives[number], arrivals[number].step, self.steps)
            for number in self.numbers
        )
        released = {
            channel.source: jnp.where(event.taken[number], deliveries[number].step, self.steps)
            for number, channel in enumerate(self.plan.channels)
            if channel.target is None
        }
        # A `Log` of this one step, arrays (batch,).
        record = Log(
            time=event.now.high,
            time_low=event.now.low,
            spike=spike,
            row=event.row,
            origin=origin,
            released=released,
            **note._asdict(),
        )
        place = jnp.minimum(step, self.steps)

        def written(rows: Num[Array, "steps batch"], row: Num[Array, "batch"]) -> Array:
            return lax.dynamic_update_index_in_dim(rows, row, place, 0)

        return jax.tree.map(written, log, record)


def _merged(takes: WhichSamples, note: _Note, fallback: _Note) -> _Note:
    """Merge two records of log entries, for fields that both or one of them have."""

    def merge_field(
        a: Num[Array, "batch"] | None, b: Num[Array, "batch"] | None
    ) -> Num[Array, "batch"] | None:
        if a is None or b is None:
            return a if b is None else b
        return jnp.where(takes, a, b)

    return _Note._make(merge_field(a, b) for a, b in zip(note, fallback, strict=True))


def _chosen(condition: WhichNeurons, yes: State, no: State) -> State:
    """Select element by element between two states."""
    return tuple(jnp.where(condition, a, b) for a, b in zip(yes, no, strict=True))
