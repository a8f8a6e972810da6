"""Spikes at random, as times with channels and in time steps."""

import numpy as np


def random_events(rng, shape, channels, span, *, unused=()):
    """Times and channels (samples, events), as arrays: uniform in time from 0 to `span`.

    Args:
        rng: numpy.random.Generator; draws the times, then the channels.
        channels: how many there are.
        unused: places (sample, event) of slots that are not used.
    """
    times = rng.uniform(0.0, span, shape)
    for place in unused:
        times[place] = np.inf
    return times, rng.integers(0, channels, shape)


def random_raster(seed, shape, probability=0.3):
    """Spikes of a shape (steps, samples, channels), 0 or 1 in float32."""
    return (np.random.default_rng(seed).random(shape) < probability).astype(np.float32)
