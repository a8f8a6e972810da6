"""Spikes of a neuron with linear equations, by a fine search with matrix exponentials between events:

x' = A x,  x = x + w e at an arrival of weight w,  c . x >= threshold: x = R x + r.
"""

import numpy as np
from scipy.linalg import expm

GRID = 256  # points of an interval


def spikes(a, c, threshold, reset, offset, start, e, arrivals, t_end, limit=10_000):
    """Spike times, at most `limit`, and the smallest distance between the threshold and a maximum of
    c . x between grid points that the search had to examine.

    Args:
        a: A; c, e, start: vectors; reset, offset: R, r; arrivals: (time, weight) in order.
    """
    x, now, fired, closest = np.array(start, float), 0.0, [], np.inf
    queue = [event for event in arrivals if event[0] < t_end]
    while now < t_end and len(fired) < limit:
        end = queue[0][0] if queue else t_end
        duration = end - now
        wait, gap = (0.0, np.inf)
        if c @ x < threshold:
            wait, gap = _crossing(a, c, threshold, x, duration)
        closest = min(closest, gap)
        if wait is not None:
            x = reset @ (expm(a * wait) @ x) + offset
            now += wait
            fired.append(now)
            continue
        x, now = expm(a * duration) @ x, end
        if queue:
            x = x + queue.pop(0)[1] * np.asarray(e)
    return fired, closest


def _crossing(a, c, threshold, x, duration):
    """Time to the first crossing, or None; and the distance of the nearest maximum."""
    if duration <= 0:
        return None, np.inf
    step = duration / GRID
    powers, flow = np.eye(len(x))[None], expm(a * step)
    while len(powers) <= GRID:  # flows over the first 1, 2, 4, ... steps
        powers, flow = np.concatenate([powers, powers @ flow]), flow @ flow
    states = powers[: GRID + 1] @ x
    values, slopes = states @ c - threshold, states @ (a.T @ c)
    closest = np.inf
    for n in range(GRID):
        low, high = n * step, (n + 1) * step
        reach = 2 * step * np.max(np.abs(slopes[n : n + 2]))
        # a maximum between two points, and not far below the threshold
        if slopes[n] > 0 > slopes[n + 1] and np.max(values[n : n + 2]) + reach >= 0:
            left, right = low, high
            for _ in range(60):
                middle = (left + right) / 2
                rising = c @ a @ expm(a * middle) @ x > 0
                left, right = (middle, right) if rising else (left, middle)
            top = c @ expm(a * left) @ x - threshold
            closest = min(closest, abs(top))
            if top >= 0 and values[n + 1] < 0:
                high = left
                return _bisected(a, c, threshold, x, low, high), closest
        if values[n + 1] >= 0:
            return _bisected(a, c, threshold, x, low, high), closest
    return None, closest


def _bisected(a, c, threshold, x, low, high):
    for _ in range(60):
        middle = (low + high) / 2
        above = c @ expm(a * middle) @ x >= threshold
        low, high = (low, middle) if above else (middle, high)
    return high
