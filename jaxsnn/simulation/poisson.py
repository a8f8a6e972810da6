"""Poisson spike trains of many channels at once. The events of all channels are one Poisson process,
and each event belongs to a channel with a probability proportional to its rate. The numbers of events
in blocks of time are drawn first; then threads draw the blocks, with a random generator for each.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import UsageError, as_number, shown
from jaxsnn.event.native.native_build import thread_count
from jaxsnn.keywords import suggests_keywords
from jaxsnn.network.array_types import Float, Int
from jaxsnn.network.on_processor import to_jax
from jaxsnn.network.slots import bucket
from jaxsnn.network.spikes import Events
from jaxsnn.nir.initializers import Seed, generator_of
from jaxsnn.wording import Text

_BLOCK = 2**16  # mean number of events of a block, whose arrays fit into the cache
_TAKEN = 2**13  # number of values that are looked up together; malloc reuses arrays of this size


@suggests_keywords
def poisson_events(rates: Any, t_end: float, *, seed: Seed, samples: int = 1) -> Events:
    """Draw a Poisson spike train for each channel: events (samples, events), in ascending order.

    Args:
        rates: (channels,) rates in spikes per second.
        t_end: end of the trains, seconds.
        seed: random seed: an integer, or a `jax.random` key.
        samples: number of samples, each with trains of its own.

    Raises:
        UsageError: rates that are not (channels,), or negative or infinite numbers.

    >>> events = poisson_events([0.0, 80.0, 40.0], t_end=1.0, seed=0)
    >>> [int((events.index[0] == channel).sum()) for channel in range(3)]
    [0, 82, 35]
    """
    rates = np.asarray(rates, np.float64)
    if rates.ndim != 1 or not len(rates):
        raise UsageError(
            Text("rates have shape {shape}", shape=rates.shape),
            fix="pass one rate for each channel, an array of shape (channels,)",
        )
    bad = ~(np.isfinite(rates) & (rates >= 0))
    if bad.any():
        raise UsageError(
            Text(
                "the rate of channel {channel} is {rate:g} spikes per second",
                channel=int(np.flatnonzero(bad)[0]),
                rate=rates[bad][0],
            ),
            fix="pass finite rates of at least 0",
        )
    if not 0 <= as_number(t_end) < np.inf:
        raise UsageError(
            Text("t_end is {t_end}", t_end=shown(t_end)),
            fix="pass the end of the trains in seconds, at least 0",
        )
    dtype = jnp.result_type(float)
    trains = _poisson_trains(rates, float(t_end), samples, generator_of(seed), dtype)
    time, index = to_jax(trains)
    return Events(time=time, index=index)


def _poisson_trains(
    rates: Float[np.ndarray, "channels"],
    t_end: float,
    samples: int,
    generator: np.random.Generator,
    dtype: np.dtype,
) -> tuple[Float[np.ndarray, "samples events"], Int[np.ndarray, "samples events"]]:
    """Draw the events of each sample, in ascending order; unused slots hold inf and the number of
    channels.

    Args:
        rates: rates of the channels, spikes per second.
        t_end: end of the trains, seconds.
        dtype: dtype of the times.
    """
    expected = float(rates.sum()) * t_end
    blocks = math.ceil(expected / _BLOCK)
    counts = generator.poisson(expected / max(blocks, 1), (samples, blocks))
    most = int(counts.sum(1).max(initial=0))
    # the expected number decides, so that trains of other seeds do not need another program
    slots = bucket(max(int(expected + 6 * np.sqrt(expected)) + 1, most))
    time = _aligned((samples, slots), dtype)
    index = _aligned((samples, slots), np.dtype(np.int32))
    table = _AliasTable(rates)
    generators = generator.spawn(samples * blocks)
    workers = thread_count(None)

    def draw(worker: int) -> None:
        memory = np.empty(
            counts.max() + 1
        )  # reused, since new memory is slower than the arithmetic
        for number in range(worker, samples * blocks, workers):
            sample, block = divmod(number, blocks)
            first, count = counts[sample, :block].sum(), counts[sample, block]
            length = t_end / blocks
            slot = slice(first, first + count)
            time[sample, slot] = _in_order(
                generators[number], block * length, length, memory[: count + 1]
            )
            table.draw(generators[number], memory[:count], index[sample, slot])

    if expected:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(draw, range(workers)))  # raises what a worker has raised
    for sample, count in enumerate(counts.sum(1)):
        time[sample, count:], index[sample, count:] = np.inf, len(rates)
        used = time[sample, :count]
        last = dtype.type(t_end)
        used[np.searchsorted(used, last) :] = np.nextafter(last, dtype.type(0))  # by rounding
    return time, index


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return an array that begins at a multiple of 64 bytes: `to_jax` does not copy it."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    first = -memory.ctypes.data % 64
    return memory[first : first + size].view(dtype).reshape(shape)


def _in_order(
    generator: np.random.Generator, begin: float, length: float, memory: Float[np.ndarray, "events"]
) -> Float[np.ndarray, "events"]:
    """Draw uniform times from an interval, in ascending order: sums of exponential waits, as shares
    of the sum up to one more event (Devroye, Non-Uniform Random Variate Generation, 1986, V.3).

    Args:
        memory: overwritten; its length is the number of times plus 1.
    """
    generator.standard_exponential(out=memory)
    np.cumsum(memory, out=memory)
    memory *= length / memory[-1]
    memory += begin
    return memory[:-1]


class _AliasTable:
    """Draws channels in proportion to their rates by the alias method (Walker, ACM Transactions on
    Mathematical Software 3:253, 1977): a column is drawn uniformly, and then the column's channel,
    with its probability, or else another channel, its alias.
    """

    def __init__(self, rates: Float[np.ndarray, "channels"]) -> None:
        probability = rates * (len(rates) / rates.sum()) if rates.any() else np.ones(len(rates))
        alias = np.arange(len(rates), dtype=np.int32)
        small, large = (
            list(np.flatnonzero(columns)) for columns in (probability < 1, probability >= 1)
        )
        while small and large:
            column, donor = small.pop(), large[-1]
            alias[column] = donor
            probability[donor] -= 1 - probability[column]
            if probability[donor] < 1:
                small.append(large.pop())
        probability[small + large] = 1  # what rounding has left
        self._alias, self._probability = alias, probability

    def draw(
        self,
        generator: np.random.Generator,
        memory: Float[np.ndarray, "events"],
        channels: Int[np.ndarray, "events"],
    ) -> None:
        """Draw `channels`. `memory` is overwritten."""
        generator.random(out=memory)
        memory *= len(self._alias)
        np.copyto(channels, memory, casting="unsafe")
        np.minimum(channels, len(self._alias) - 1, out=channels)  # rounding may exceed it
        memory -= channels
        for first in range(0, len(channels), _TAKEN):
            part = channels[first : first + _TAKEN]
            is_alias = memory[first : first + _TAKEN] >= self._probability.take(part, mode="clip")
            np.copyto(part, self._alias.take(part, mode="clip"), where=is_alias)
