"""Spikes on their way: what a recurrent group sends with a delay, first in, first out.

Spikes that travel with the same delay keep their order. A queue therefore has one line for all
neurons of its source where they share one delay, else a line for each neuron; it knows of each line
the next spike to come, and of each spike the one behind it in its line. Spikes are known by the
step of the loop at which they were fired.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Queue(NamedTuple):
    """One edge's spikes on their way; no spike is step `steps`, the size of `behind` less one.

    head: (batch, lines) step of the next spike to come in each line.
    due: (batch, lines) when it comes, inf if there is none.
    last: (batch, lines) step of the last spike that joined the line.
    behind: (steps + 1, batch) step of the spike that follows in the same line.
    """

    head: jax.Array
    due: jax.Array
    last: jax.Array
    behind: jax.Array


class Delivery(NamedTuple):
    """The next spike to come out of a queue, arrays (batch,): when, its line, the step at which it
    was fired.
    """

    due: jax.Array
    line: jax.Array
    step: jax.Array


def empty_queue(batch, lines, steps, dtype) -> Queue:
    """A queue with nothing in it."""
    none = jnp.full((batch, lines), steps, jnp.int32)
    return Queue(
        head=none,
        due=jnp.full((batch, lines), jnp.inf, dtype),
        last=none,
        behind=jnp.full((steps + 1, batch), steps, jnp.int32),
    )


def next_delivery(queue: Queue) -> Delivery:
    """The next spike to come; of several at the same time the one in the first line."""
    due = jnp.min(queue.due, axis=1)
    lines = lax.broadcasted_iota(jnp.int32, queue.due.shape, 1)
    line = jnp.min(jnp.where(queue.due == due[:, None], lines, queue.due.shape[1] - 1), axis=1)
    return Delivery(due=due, line=line, step=_pick(queue.head, line))


def deliver(queue: Queue, delivery: Delivery, takes, delay, fired_at) -> Queue:
    """The queue without its next spike.

    Args:
        takes: (batch,) bool, the samples in which it is taken out.
        delay: (lines,) seconds.
        fired_at: (steps + 1, batch) times of all spikes, by step.
    """
    samples = jnp.arange(takes.shape[0])
    step = queue.behind[delivery.step, samples]
    due = jnp.where(
        step < len(fired_at) - 1, fired_at[step, samples] + delay[delivery.line], jnp.inf
    )
    here = _at(queue, delivery.line, takes)
    return queue._replace(
        head=jnp.where(here, step[:, None], queue.head),
        due=jnp.where(here, due[:, None], queue.due),
    )


def send(queue: Queue, line, fires, step, time, delay) -> Queue:
    """The queue with one more spike.

    Args:
        line: (batch,) the line that the spike joins.
        fires: (batch,) bool, the samples in which there is one.
        step: the step of the loop.
        time: (batch,) when the spike was fired.
        delay: (lines,) seconds.
    """
    samples, none = jnp.arange(fires.shape[0]), queue.behind.shape[0] - 1
    here = _at(queue, line, fires)
    before = jnp.where(fires, _pick(queue.last, line), none)
    starts = here & jnp.isinf(queue.due)
    return Queue(
        head=jnp.where(starts, step, queue.head),
        due=jnp.where(starts, (time + delay[line])[:, None], queue.due),
        last=jnp.where(here, step, queue.last),
        behind=queue.behind.at[before, samples].set(jnp.where(before < none, step, none)),
    )


def _pick(array, column):
    return jnp.take_along_axis(array, column[:, None], 1, mode="promise_in_bounds")[:, 0]


def _at(queue, line, chosen):
    return chosen[:, None] & (lax.broadcasted_iota(jnp.int32, queue.due.shape, 1) == line[:, None])
