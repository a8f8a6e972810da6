"""Poisson spike trains of many channels at once: the waits between the events of all channels are
exponential, and each event belongs to a channel with a probability proportional to its rate.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import UsageError, as_number, shown
from jaxsnn.keywords import suggests_keywords
from jaxsnn.network.array_types import Float, Int
from jaxsnn.network.on_processor import to_jax
from jaxsnn.network.slots import bucket
from jaxsnn.network.spikes import Events
from jaxsnn.nir.initializers import Seed, generator_of
from jaxsnn.wording import Text

_BLOCK = 2**17  # number of events that are drawn together, so that their arrays fit into the cache


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
    slots = bucket(int(expected + 6 * np.sqrt(expected)) + 1)
    time = np.full((samples, slots), np.inf, dtype)
    index = np.full((samples, slots), len(rates), np.int32)
    channels = _ChannelTable(rates)
    for sample in range(samples if expected else 0):
        count, last = 0, 0.0
        while last < t_end:
            waits = generator.standard_exponential(_BLOCK, np.float32)
            times = np.cumsum(waits, dtype=np.float64) * (t_end / expected) + last
            last = times[-1]
            times = times.astype(dtype)
            times = times[: np.searchsorted(times, time.dtype.type(t_end))]
            if count + len(times) > time.shape[1]:
                more = ((0, 0), (0, bucket(count + len(times)) - time.shape[1]))
                time = np.pad(time, more, constant_values=np.inf)
                index = np.pad(index, more, constant_values=len(rates))
            slot = slice(count, count + len(times))
            time[sample, slot] = times
            index[sample, slot] = channels.draw(generator, len(times))
            count += len(times)
    return time, index


class _ChannelTable:
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
        self._alias = alias
        self._threshold = (probability * 2.0**32).clip(0, 2**32 - 1).astype(np.uint32)
        self._certain = bool((probability == 1).all())

    def draw(self, generator: np.random.Generator, count: int) -> Int[np.ndarray, "events"]:
        """Draw some channels."""
        column = generator.integers(0, len(self._alias), count, dtype=np.int32)
        if self._certain:
            return column
        level = generator.integers(0, 2**32, count, dtype=np.uint32)
        return np.where(level <= self._threshold[column], column, self._alias[column])
