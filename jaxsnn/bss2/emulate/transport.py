"""Transport of events: one in each cycle of the event clock, through queues of limited depth.
Nothing here has a gradient.

Times are in the file's seconds, and so is `cycle`: that of the chip's clock, times the speedup.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsnn.event.event_options import EventOptions
from jaxsnn.event.native.native_limits import calls_kernels
from jaxsnn.event.native.native_places import native_places
from jaxsnn.network.array_types import Array, Bool, Float
from jaxsnn.network.lookups import gather_along
from jaxsnn.network.sorting import sorted_times


class Sent(NamedTuple):
    """Events after a queue: `time` in the input's shape, inf where lost, and `lost`, their number,
    a scalar.
    """

    time: jax.Array
    lost: jax.Array


def serialised(time: jax.Array, cycle: float) -> jax.Array:
    """Return the times of events of one stream, (batch, events) in any order: each in the first
    free cycle at or after its time.

    Of events at one time the first in the array goes first.
    """
    rising, place = _in_order(time)
    return _put_back(_in_cycles(rising, cycle), place)


def queued(time: jax.Array, lane: np.ndarray, cycle: float, queue: int) -> Sent:
    """Send spikes of neurons that share lanes; each lane has a queue and sends one spike per cycle.

    Args:
        time: (batch, neurons, spikes) in any order, inf where unused.
        lane: (neurons,) index of the lane of each neuron.
        queue: maximum number of spikes that wait in the queue of a lane; further spikes are lost.
    """
    batch, neurons, spikes = time.shape
    members = [np.flatnonzero(lane == number) for number in np.unique(lane)]
    most = max(len(lane_members) for lane_members in members)
    # Members of each lane, (lanes, neurons); short lanes are padded with an added silent neuron.
    seats = np.array(
        [
            np.pad(lane_members, (0, most - len(lane_members)), constant_values=neurons)
            for lane_members in members
        ]
    )
    padded = jnp.pad(time, ((0, 0), (0, 1), (0, 0)), constant_values=jnp.inf)
    waiting = padded[:, seats].reshape(batch, len(members), most * spikes)
    rising, order = _in_order(waiting)
    served, lost = _through_queue(rising, cycle, queue)
    served = _put_back(served, order)
    place = np.empty(neurons, int)
    for row, lane_members in enumerate(members):
        place[lane_members] = row * most + np.arange(len(lane_members))
    times = served.reshape(batch, len(members) * most, spikes)[:, place]
    return Sent(time=times, lost=lost)


def _in_order(time: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sort times like `sorted_times`, by a native kernel if one is available: it skips unused
    slots, which are the majority.
    """
    flat = time.reshape(-1, time.shape[-1])
    if not calls_kernels(flat.dtype.name, flat.shape[0], EventOptions()):
        return sorted_times(time)
    place = native_places(flat, flat.shape[1], None)
    return gather_along(flat, place, 1).reshape(time.shape), place.reshape(time.shape)


def _in_cycles(time: jax.Array, cycle: float) -> jax.Array:
    """Return the times of the cycles in which events are sent, one event per cycle; events are sorted
    along the last axis.

    If event k can be sent in cycle c_k at the earliest, it is sent in cycle
    k + max over i <= k of (c_i - i).
    """
    return jnp.where(
        jnp.isfinite(time), cycle * _cycles(jnp.isfinite(time), _earliest(time, cycle)), jnp.inf
    )


def _earliest(time: jax.Array, cycle: float) -> jax.Array:
    return jnp.ceil(jnp.where(jnp.isfinite(time), time, 0.0) / cycle)


def _cycles(is_queued: jax.Array, earliest: jax.Array) -> jax.Array:
    """Return the cycle in which each queued event is sent; for others an unspecified number."""
    rank = jnp.cumsum(is_queued, axis=-1) - is_queued
    return rank + lax.cummax(jnp.where(is_queued, earliest - rank, -1.0), axis=is_queued.ndim - 1)


#: Mask of the remaining events, and the cycle of each event.
_Kept = tuple[Bool[Array, "... events"], Float[Array, "... events"]]


def _through_queue(time: jax.Array, cycle: float, queue: int) -> tuple[jax.Array, jax.Array]:
    """Return cycles like `_in_cycles`, but drop events that would wait for more than `queue`
    cycles, with their number.
    """
    finite, earliest = jnp.isfinite(time), _earliest(time, cycle)

    def drop_first(carry: _Kept) -> _Kept:
        is_queued, cycles = carry
        late = is_queued & (cycles - earliest > queue)
        # Only earlier events decide if the first event overflows; without it, later ones wait less.
        is_queued = is_queued & ~(late & (jnp.cumsum(late, axis=-1) == 1))
        return is_queued, _cycles(is_queued, earliest)

    def overflows(carry: _Kept) -> Bool[Array, ""]:
        is_queued, cycles = carry
        return jnp.any(is_queued & (cycles - earliest > queue))

    is_queued, cycles = lax.while_loop(overflows, drop_first, (finite, _cycles(finite, earliest)))
    return jnp.where(is_queued, cycles * cycle, jnp.inf), jnp.sum(finite & ~is_queued)


def _put_back(values: jax.Array, place: jax.Array) -> jax.Array:
    """Return values in sorted order to their original order."""
    return jnp.put_along_axis(jnp.zeros_like(values), place, values, axis=-1, inplace=False)


def jittered(time: jax.Array, deviation: Any, key: jax.Array) -> jax.Array:
    """Return spike times (batch, neurons, spikes) with normal noise, in any order; the deviation is
    (neurons,) seconds.
    """
    noise = (
        jax.random.normal(key, time.shape, time.dtype) * jnp.asarray(deviation, time.dtype)[:, None]
    )
    return jnp.maximum(time + noise, 0.0)
