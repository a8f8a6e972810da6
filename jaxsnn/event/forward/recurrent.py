"""Populations that feed back into each other, event by event: one strongly connected component of a
network.

All neurons of a sample share one loop. Each step takes a sample to its next event, which is the
earliest of a threshold crossing, an arrival from outside, the delivery of a spike on its way, and
the end of a refractory time. All neurons flow there; then the event acts. Feedback without a delay
acts in the step of the spike itself. The samples of a batch advance together, each at its own time,
until all have come to the end.

Events at exactly the same time act in this order. Neurons at or above their threshold fire, those
of the first population and the lowest number first, each with its reset and what it sends without a
delay. Those that have come to the threshold by their own flow all fire, whatever the first ones
send to the others. Then each population takes the next thing that arrives: from outside in the
order of the slots, then by one edge after the other, what was fired first (or by the neuron of the
lowest number, where they have delays of their own) first. What this moved above the threshold fires
before the next thing arrives.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.event.dynamics.neuron_model import by_facts
from jaxsnn.event.forward.agenda import Agenda, GroupState, PopulationState, in_order, pick
from jaxsnn.event.forward.batching import anywhere
from jaxsnn.event.forward.deliveries import deliver, empty_queue, next_delivery, send
from jaxsnn.event.forward.group import GroupEvents, GroupSpec, Log, delays_of, layout, tables

_BEYOND = 16  # times the steps that the log holds: so long a run goes on to count the spikes it would have taken


class _Note(NamedTuple):
    """What the log is to know of the spike of one population, arrays (batch,); fields as in `Log`."""

    slot: jax.Array
    slope: jax.Array
    cause: jax.Array | None
    jump: jax.Array | None
    slope_after: jax.Array | None


def simulate_group(spec: GroupSpec, arrivals, feedback, lanes, t_end):
    """What fires in a recurrent group, its log, and how many steps of that were used. No gradient
    passes through.

    Arguments as in `recurrent_adjoint.group_spikes`.
    """

    def simulated(neurons):
        return _simulated(spec.with_neurons(neurons), arrivals, feedback, lanes, t_end)

    return by_facts([layer.neuron for layer in spec.layers], lanes, simulated)


def _simulated(spec, arrivals, feedback, lanes, t_end):
    loop = _Loop(spec, arrivals, feedback, lanes, t_end)
    steps, state, log = loop.run()
    counts = tuple(population.count for population in state.populations)
    fired = sum(count.sum(axis=1) for count in counts)
    spike = log.spike[:-1]
    events = GroupEvents(
        time=jnp.where(spike < sum(loop.plan.sizes), log.time[:-1], jnp.inf),
        spike=spike,
        slot=log.slot[:-1],
        slope=log.slope[:-1],
        counts=counts,
        events_needed=jnp.where(state.finished, fired, jnp.maximum(fired, spec.max_events + 1)),
    )
    return events, log, jnp.minimum(steps, loop.steps)


class _Loop:
    """The steps of a group's loop."""

    def __init__(self, spec, arrivals, feedback, lanes, t_end):
        self.layers, self.lanes = spec.layers, lanes
        self.plan = layout(spec, arrivals, feedback)
        self.tables = tables(
            spec,
            self.plan,
            [weight for weight, _, _ in arrivals],
            [weight for weight, _ in feedback],
        )
        self.dtype = self.tables[0].dtype
        self.delays = delays_of(spec, self.plan, feedback, self.dtype)
        self.t_end = jnp.asarray(t_end, self.dtype)
        self.batch = arrivals[0][1].shape[0]
        self.numbers = range(len(spec.layers))
        slots = sum(time.shape[1] for _, time, _ in arrivals)
        self.steps = slots + spec.max_events * (1 + len(self.plan.channels))
        trains = [in_order(time, row)[:2] for _, time, row in arrivals]
        self.agenda = Agenda(
            self.layers, lanes, self.plan, trains, self.delays, self.t_end, self.steps
        )

    def run(self):
        """Number of steps, state and log at the end."""
        limit = self.steps + 1 if self.plan.channels else _BEYOND * (self.steps + 1)

        def unfinished(carry):
            step, state, _ = carry
            return anywhere(~state.finished) & (step < limit)

        return lax.while_loop(
            unfinished, self._step, (jnp.int32(0), self._begin(), self._empty_log())
        )

    def _begin(self):
        """State at time 0."""
        populations = []
        for layer, lanes, size in zip(self.layers, self.lanes, self.plan.sizes, strict=True):
            shape = (self.batch, size)
            x = tuple(
                jnp.broadcast_to(array, shape).astype(self.dtype)
                for array in layer.neuron.begin(lanes)
            )
            populations.append(
                PopulationState(
                    x=x,
                    count=jnp.zeros(shape, jnp.int32),
                    position=jnp.zeros(self.batch, jnp.int32),
                    held=jnp.zeros(shape, bool) if layer.refractory else None,
                    cause=jnp.full(shape, self.steps, jnp.int32) if layer.neuron.jumps else None,
                    jump=jnp.zeros(shape, self.dtype) if layer.neuron.jumps else None,
                )
            )
        queues = tuple(
            empty_queue(self.batch, len(delay), self.steps, self.dtype) for delay in self.delays
        )
        now = jnp.zeros(self.batch, self.dtype)
        return GroupState(
            now=now, finished=now >= self.t_end, populations=tuple(populations), queues=queues
        )

    def _empty_log(self):
        shape = (self.steps + 1, self.batch)
        none, zero = jnp.full(shape, self.steps, jnp.int32), jnp.zeros(shape, self.dtype)
        jumps = any(layer.neuron.jumps for layer in self.layers)
        return Log(
            time=zero,
            spike=jnp.full(shape, sum(self.plan.sizes), jnp.int32),
            slot=jnp.zeros(shape, jnp.int32),
            slope=zero,
            row=tuple(jnp.full(shape, nothing, jnp.int32) for nothing in self.plan.nothing),
            origin=tuple(none for _ in self.numbers) if self.plan.delayed else None,
            released={
                channel.source: none for channel in self.plan.channels if channel.target is None
            },
            cause=none if jumps else None,
            jump=zero if jumps else None,
            slope_after=zero if any(layer.assigns for layer in self.layers) else None,
        )

    def _step(self, carry):
        """Takes each sample to its next event, and lets that act."""
        step, state, log = carry
        deliveries = tuple(next_delivery(queue) for queue in state.queues)
        arrivals = self.agenda.arrivals(state, deliveries, log)
        event = self.agenda.event(state, arrivals, deliveries, log)
        populations, notes = [], []
        for number in self.numbers:
            population, note = self._move(number, step, state.populations[number], event)
            from_outside = event.arrives[number] & (arrivals[number].source == 0)
            populations.append(population._replace(position=population.position + from_outside))
            notes.append(note)
        state = GroupState(
            now=event.now,
            finished=state.finished | event.ends,
            populations=tuple(populations),
            queues=tuple(
                self._queue(n, queue, deliveries[n], event, step, log)
                for n, queue in enumerate(state.queues)
            ),
        )
        return step + 1, state, self._write(log, step, event, notes, arrivals, deliveries)

    def _move(self, number, step, population, event):
        """A population after the event, and what the log is to know of it."""
        neuron, lanes = self.layers[number].neuron, self.lanes[number]
        flowing = jax.tree.map(lambda array: array[:1], lanes) if neuron.uniform else lanes
        v = population.x[0]
        x = neuron.flow(neuron.decay(flowing, event.wait[:, None]), population.x)
        if population.held is not None:
            x = (jnp.where(population.held, v, x[0]), *x[1:])
        at_threshold = neuron.lifted(lanes, x)  # rounding must not lose the crossing
        x = _chosen(event.crossing[number], at_threshold, x)
        note = self._note(number, population, x, event)
        numbers = lax.broadcasted_iota(jnp.int32, x[0].shape, 1)
        fires = numbers == event.neuron[number][:, None]
        x = _chosen(fires, neuron.reset(lanes, x), x)
        weights = self.tables[number].at[event.row[number]].get(mode="promise_in_bounds")
        moved = neuron.arrive(x, weights)
        held, cause, jump = population.held, population.cause, population.jump
        if held is not None:
            held = (held | fires) & (numbers != event.released[number][:, None])
            moved = (jnp.where(held, x[0], moved[0]), *moved[1:])
        if cause is not None:
            above = neuron.excess(lanes, moved) >= 0
            newly = above & (neuron.excess(lanes, x) < 0)
            cause = jnp.where(newly, step, jnp.where(above & ~fires, cause, self.steps))
            jump = jnp.where(newly, weights, jump)
        count = population.count + fires
        at = jnp.minimum(event.neuron[number], self.plan.sizes[number] - 1)
        population = population._replace(x=moved, count=count, held=held, cause=cause, jump=jump)
        return population, note._replace(slot=pick(count, at) - 1)

    def _note(self, number, population, x, event):
        """What the log is to know of a population's spike, from its state just before that."""
        neuron, assigns = self.layers[number].neuron, self.layers[number].assigns
        at = jnp.minimum(event.neuron[number], self.plan.sizes[number] - 1)
        lanes = jax.tree.map(lambda array: array[at], self.lanes[number])
        slope = neuron.slope(lanes, tuple(pick(array, at) for array in x))
        cause = jump = slope_after = None
        if population.cause is not None:
            cause, jump = pick(population.cause, at), pick(population.jump, at)
            slope = jnp.where((cause < self.steps) | (event.now == 0), jnp.inf, slope)
        if assigns:
            if number in event.released:
                at = jnp.where(
                    event.neuron[number] < self.plan.sizes[number], at, event.released[number]
                )
                at = jnp.minimum(at, self.plan.sizes[number] - 1)
                lanes = jax.tree.map(lambda array: array[at], self.lanes[number])
            state = tuple(pick(array, at) for array in x)
            # at the end of a refractory time V is held already, and nothing is added again
            reset = neuron.clamp if self.layers[number].refractory else neuron.reset
            slope_after = neuron.rate(lanes, reset(lanes, state))[0]
        return _Note(
            slot=pick(population.count, at),
            slope=slope,
            cause=cause,
            jump=jump,
            slope_after=slope_after,
        )

    def _queue(self, number, queue, delivery, event, step, log):
        """A queue after the event."""
        source, delay = self.plan.channels[number].source, self.delays[number]
        queue = deliver(queue, delivery, event.taken[number], delay, log.time)
        fires = event.neuron[source] < self.plan.sizes[source]
        line = (
            jnp.where(fires, event.neuron[source], 0)
            if delay.size > 1
            else jnp.zeros_like(event.neuron[source])
        )
        return send(queue, line, fires, step, event.now, delay)

    def _write(self, log, step, event, notes, arrivals, deliveries):
        """The log with one more step; beyond its end the last row is overwritten."""
        spike = jnp.full(self.batch, sum(self.plan.sizes), jnp.int32)
        note = notes[0]
        for number, size in enumerate(self.plan.sizes):
            fires = event.neuron[number] < size
            spike = jnp.where(fires, self.plan.first(number) + event.neuron[number], spike)
            takes = fires | (event.released[number] < size) if number in event.released else fires
            note = _merged(takes, notes[number], note)
        origin = log.origin and tuple(
            jnp.where(event.arrives[number], arrivals[number].step, self.steps)
            for number in self.numbers
        )
        released = {
            source: jnp.where(event.taken[number], deliveries[number].step, self.steps)
            for number, (source, target, _, _) in enumerate(self.plan.channels)
            if target is None
        }
        record = Log(
            time=event.now,
            spike=spike,
            row=event.row,
            origin=origin,
            released=released,
            **note._asdict(),
        )
        place = jnp.minimum(step, self.steps)
        return jax.tree.map(
            lambda rows, row: lax.dynamic_update_index_in_dim(rows, row, place, 0), log, record
        )


def _merged(takes, note: _Note, other: _Note):
    """One note of two, for fields that both or one of them know."""

    def one(a, b):
        if a is None or b is None:
            return a if b is None else b
        return jnp.where(takes, a, b)

    return _Note._make(one(a, b) for a, b in zip(note, other, strict=True))


def _chosen(condition, yes, no):
    """Element by element one of two states."""
    return tuple(jnp.where(condition, a, b) for a, b in zip(yes, no, strict=True))
