"""How events travel: one at a time in a cycle of the event clock, through queues that overflow. Nothing has a gradient.

Times are in the file's seconds, and so is `cycle`: that of the chip's clock, times the speedup.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


class Sent(NamedTuple):
    """Events behind a queue: `time` as before, inf where lost, and `lost`, how many, a scalar."""

    time: jax.Array
    lost: jax.Array


def serialised(time: jax.Array, cycle: float) -> jax.Array:
    """Events of one stream, (batch, events) in any order: each in the first free cycle at or after its time.

    Of events at one time the first in the array goes first.
    """
    order = jnp.argsort(time, axis=1)
    served, _ = _served(jnp.take_along_axis(time, order, axis=1), cycle, None)
    return jnp.take_along_axis(served, jnp.argsort(order, axis=1), axis=1)


def queued(time: jax.Array, lane: np.ndarray, cycle: float, queue: int) -> Sent:
    """Spikes of neurons that share lanes, one spike of a lane in a cycle; each lane has a queue.

    Args:
        time: (batch, neurons, spikes), rising along the last axis, inf where unused.
        lane: (neurons,) number of the lane that each takes.
        queue: spikes that wait at most; one that would wait for longer is lost.
    """
    batch, neurons, spikes = time.shape
    members = [np.flatnonzero(lane == number) for number in np.unique(lane)]
    most = max(len(own) for own in members)
    # lanes as rows, the last neuron a silent one that fills short lanes up
    seats = np.array([np.pad(own, (0, most - len(own)), constant_values=neurons) for own in members])
    padded = jnp.pad(time, ((0, 0), (0, 1), (0, 0)), constant_values=jnp.inf)
    waiting = padded[:, seats].reshape(batch, len(members), most * spikes)
    order = jnp.argsort(waiting, axis=-1)
    served, lost = _served(jnp.take_along_axis(waiting, order, axis=-1), cycle, queue)
    served = jnp.take_along_axis(served, jnp.argsort(order, axis=-1), axis=-1)
    place = np.empty(neurons, int)
    for row, own in enumerate(members):
        place[own] = row * most + np.arange(len(own))
    times = served.reshape(batch, len(members) * most, spikes)[:, place]
    return Sent(time=jnp.sort(times, axis=-1), lost=lost)


def _served(time: jax.Array, cycle: float, queue: int | None) -> tuple[jax.Array, jax.Array]:
    """The cycles in which events go, as times; events are sorted along the last axis. And how many were lost.

    The event that goes k-th, at the earliest in cycle c, goes in cycle k + max over all before and itself of (c - k).
    """
    finite = jnp.isfinite(time)
    earliest = jnp.ceil(jnp.where(finite, time, 0.0) / cycle)

    def cycles(kept):
        rank = jnp.cumsum(kept, axis=-1) - kept
        return rank + lax.cummax(jnp.where(kept, earliest - rank, -1.0), axis=time.ndim - 1)

    def overflowing(kept):
        return kept & (cycles(kept) - earliest > queue)

    def drop_first(kept):
        late = overflowing(kept)
        return kept & ~(late & (jnp.cumsum(late, axis=-1) == 1))

    kept: Any = finite
    if queue is not None:
        # whoever overflows first depends on those before alone; without it those behind wait less
        kept = lax.while_loop(lambda kept: jnp.any(overflowing(kept)), drop_first, finite)
    return jnp.where(kept, cycles(kept) * cycle, jnp.inf), jnp.sum(finite & ~kept)


def jittered(time: jax.Array, deviation: Any, key: jax.Array) -> jax.Array:
    """Spike times (batch, neurons, spikes) with normal noise of a deviation (neurons,) seconds; sorted, from 0 on."""
    noise = jax.random.normal(key, time.shape, time.dtype) * jnp.asarray(deviation, time.dtype)[:, None]
    return jnp.sort(jnp.maximum(time + noise, 0.0), axis=-1)
