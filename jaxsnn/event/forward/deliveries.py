"""Queues of the spikes that a recurrent group sends with a delay, first in, first out.

Spikes that travel with the same delay keep their order. A queue therefore has one line for all
neurons of its source if they share one delay, a line for each neuron if these have separate delays,
and several lines for each neuron if its synapses have separate delays. It stores the next spike of
each line, and the successor of each spike: in all lines that a spike joins, the same spike follows.
Spikes are identified by the step of the loop in which they were fired.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from jaxsnn.event.compensated import Pair, either, plus
from jaxsnn.event.event_arrays import NumberOfSamples, WhichSamples
from jaxsnn.network.array_types import Array, Bool, Float, Int, Num
from jaxsnn.network.lookups import at_places

#: Number of a step of the loop, the same for all samples.
StepNumber = Int[Array, ""]
#: The delay of each line of a queue, seconds.
Delays = Float[Array, "lines"]


class Queue(NamedTuple):
    """Spikes of one edge that are not delivered yet. A spike is the number of the step in which it was
    fired; the number of steps, which is the last row of `behind`, stands for no spike.
    """

    head: Int[Array, "batch lines"]  # step of the next spike to be delivered in each line
    due: Pair  # time of that delivery, (batch, lines); inf if there is none
    last: Int[Array, "batch lines"]  # step of the last spike that joined the line
    behind: Int[Array, "steps batch"]  # step of the spike that follows in the same line


class Delivery(NamedTuple):
    """Next spike to leave a queue."""

    due: Pair  # time of the delivery, (batch,); inf if there is none
    line: NumberOfSamples
    step: NumberOfSamples  # step in which the spike was fired


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


def next_delivery(queue: Queue) -> Delivery:
    """Return the next spike to deliver; of several at the same time the one in the first line."""
    high = jnp.min(queue.due.high, axis=1)
    first = queue.due.high == high[:, None]
    lines = lax.broadcasted_iota(jnp.int32, first.shape, 1)
    # the lowest index among the lines with the earliest delivery
    line = jnp.min(jnp.where(first, lines, first.shape[1] - 1), axis=1)
    return Delivery(
        due=Pair(high, _pick(queue.due.low, line)), line=line, step=_pick(queue.head, line)
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
    high, low = plus(fired, delay[delivery.line])
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


def _pick(array: Num[Array, "batch lines"], column: NumberOfSamples) -> Num[Array, "batch"]:
    """Return the entry of each sample in a column that is known to exist."""
    return at_places(array, column[:, None], 1)[:, 0]


def _at(queue: Queue, line: NumberOfSamples, chosen: WhichSamples) -> Bool[Array, "batch lines"]:
    """Return a mask of one line in each of the chosen samples."""
    lines = lax.broadcasted_iota(jnp.int32, queue.head.shape, 1)
    return chosen[:, None] & (lines == line[:, None])
