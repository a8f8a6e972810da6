"""Queues of the spikes that a recurrent group sends with a delay, first in, first out.

Spikes that travel with the same delay keep their order. A queue therefore has one line for all
neurons of its source if they share one delay, a line for each neuron if these have separate delays,
and several lines for each neuron if its synapses have separate delays. It stores the next spike of
each line, and the successor of each spike: in all lines that a spike joins, the same spike follows.
Spikes are identified by the step of the loop in which they were fired.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from jaxsnn.event.compensated import Pair, either, plus
from jaxsnn.event.event_arrays import NumberOfSamples, WhichSamples
from jaxsnn.network.array_types import Array, Bool, Float, Int, Num
from jaxsnn.network.lookups import entries_at, gather_along

#: Number of a step of the loop, the same for all samples.
StepNumber = Int[Array, ""]
#: The delay of each line of a queue, seconds; it may differ between samples.
Delays = Float[Array, "lines"] | Float[Array, "batch lines"]


class Delivery(NamedTuple):
    """Next spike to leave a queue."""

    due: Pair  # time of the delivery, (batch,); inf if there is none
    line: NumberOfSamples
    step: NumberOfSamples  # step in which the spike was fired


class Queue(NamedTuple):
    """Spikes of one edge that are not delivered yet. A spike is the number of the step in which it was
    fired; the number of steps, which is the last row of `behind`, stands for no spike.
    """

    head: Int[Array, "batch lines"]  # step of the next spike to be delivered in each line
    due: Pair  # time of that delivery, (batch, lines); inf if there is none
    last: Int[Array, "batch lines"]  # step of the last spike that joined the line
    behind: Int[Array, "steps batch"]  # step of the spike that follows in the same line

    def next_delivery(self) -> Delivery:
        """Return the next spike to deliver; of several at the same time the one in the first line."""
        high = jnp.min(self.due.high, axis=1)
        first = self.due.high == high[:, None]
        lines = lax.broadcasted_iota(jnp.int32, first.shape, 1)
        # the lowest index among the lines with the earliest delivery
        line = jnp.min(jnp.where(first, lines, first.shape[1] - 1), axis=1)
        return Delivery(
            due=Pair(high, _pick(self.due.low, line)), line=line, step=_pick(self.head, line)
        )


def empty_queue(batch: int, lines: int, steps: int, dtype: DTypeLike) -> Queue:
    """Return an empty queue."""
    none = jnp.full((batch, lines), steps, jnp.int32)
    return Queue(
        head=none,
        due=Pair(jnp.full((batch, lines), jnp.inf, dtype), jnp.zeros((batch, lines), dtype)),
        last=none,
        # one row more than steps: `send` writes to row `steps` if there is no previous spike
        behind=jnp.full((steps + 1, batch), steps, jnp.int32),
    )


def deliver(
    queue: Queue, delivery: Delivery, takes: WhichSamples, delay: Delays, fired_at: Pair
) -> Queue:
    """Return the queue without its next spike.

    Args:
        takes: the samples in which the spike is removed.
        delay: seconds.
        fired_at: (steps + 1, batch) times of all spikes, by step.
    """
    samples = jnp.arange(takes.shape[0])
    # The successor of the delivered spike becomes the head of the line.
    step = queue.behind[delivery.step, samples]
    is_spike = step < len(fired_at.high) - 1
    # due = time of the spike + delay of the line
    fired = Pair(fired_at.high[step, samples], fired_at.low[step, samples])
    of_line = _pick(jnp.broadcast_to(delay, queue.head.shape), delivery.line)
    high, low = plus(fired, of_line)
    due = Pair(jnp.where(is_spike, high, jnp.inf)[:, None], jnp.where(is_spike, low, 0.0)[:, None])
    here = _at(queue, delivery.line, takes)
    return queue._replace(
        head=jnp.where(here, step[:, None], queue.head), due=either(here, due, queue.due)
    )


def send(
    queue: Queue,
    here: Bool[Array, "batch lines"],
    step: StepNumber,
    time: Pair,
    delay: Delays,
) -> Queue:
    """Return the queue with one more spike.

    Args:
        here: the lines that the spike joins; none in samples without a new spike.
        step: the step of the loop.
        time: when the spike was fired.
        delay: seconds.
    """
    samples = jnp.arange(here.shape[0])
    none = queue.behind.shape[0] - 1
    # All these lines have the same last spike. Samples without a new spike, or without a previous
    # one, write `none` to row `none`.
    before = jnp.min(jnp.where(here, queue.last, none), axis=1)
    # A spike that joins an empty line becomes its head.
    starts = here & jnp.isinf(queue.due.high)
    due = plus(Pair(time.high[:, None], time.low[:, None]), delay)
    return Queue(
        head=jnp.where(starts, step, queue.head),
        due=either(starts, due, queue.due),
        last=jnp.where(here, step, queue.last),
        behind=queue.behind.at[before, samples].set(jnp.where(before < none, step, none)),
    )


class FanOutQueue(NamedTuple):
    """Queue with several lines for each neuron. An event changes the lines of one neuron only: its cost
    does not grow with the number of all lines.
    """

    lines: Queue  # arrays (batch, neurons, lines)
    earliest: Float[Array, "batch neurons"]  # time of the next delivery among the lines of a neuron

    def of(self, neuron: NumberOfSamples) -> Queue:
        """Return the lines of one neuron of each sample."""
        samples = jnp.arange(len(neuron))

        def rows(array: Num[Array, "batch neurons lines"]) -> Num[Array, "batch lines"]:
            return entries_at(array, samples, neuron)

        head, due, last, behind = self.lines
        return Queue(
            head=rows(head),
            due=Pair(rows(due.high), rows(due.low)),
            last=rows(last),
            behind=behind,
        )

    def next_delivery(self) -> Delivery:
        """Return the next spike to deliver, with the number of its line among those of all neurons; of
        several at the same time the one in the first line.
        """
        neuron = jnp.argmin(self.earliest, axis=1).astype(jnp.int32)
        delivery = self.of(neuron).next_delivery()
        return delivery._replace(line=neuron * self.lines.head.shape[2] + delivery.line)

    def changed(self, neuron: NumberOfSamples, queue: Queue) -> FanOutQueue:
        """Return the queue with other lines of one neuron of each sample."""
        samples = jnp.arange(len(neuron))

        def set_rows(array: Any, rows: Any) -> Any:
            return array.at[samples, neuron].set(rows, mode="promise_in_bounds")

        head, due, last, _ = self.lines
        lines = Queue(
            head=set_rows(head, queue.head),
            due=Pair(set_rows(due.high, queue.due.high), set_rows(due.low, queue.due.low)),
            last=set_rows(last, queue.last),
            behind=queue.behind,
        )
        earliest = jnp.min(queue.due.high, axis=1)
        return FanOutQueue(lines=lines, earliest=set_rows(self.earliest, earliest))


def empty_fan_out(
    batch: int, neurons: int, lines: int, steps: int, dtype: DTypeLike
) -> FanOutQueue:
    """Return an empty queue."""
    empty = empty_queue(batch, neurons * lines, steps, dtype)
    shape = batch, neurons, lines
    return FanOutQueue(
        lines=Queue(
            head=empty.head.reshape(shape),
            due=Pair(empty.due.high.reshape(shape), empty.due.low.reshape(shape)),
            last=empty.last.reshape(shape),
            behind=empty.behind,
        ),
        earliest=jnp.full((batch, neurons), jnp.inf, dtype),
    )


def _pick(array: Num[Array, "batch lines"], column: NumberOfSamples) -> Num[Array, "batch"]:
    """Return the entry of each sample in a column that is known to exist."""
    return gather_along(array, column[:, None], 1)[:, 0]


def _at(queue: Queue, line: NumberOfSamples, chosen: WhichSamples) -> Bool[Array, "batch lines"]:
    """Return a mask of one line in each of the chosen samples."""
    lines = lax.broadcasted_iota(jnp.int32, queue.head.shape, 1)
    return chosen[:, None] & (lines == line[:, None])
