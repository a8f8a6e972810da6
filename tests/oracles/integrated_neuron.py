"""Spikes of a neuron with any equations, by the Runge-Kutta method DOP853 and a search for the first
crossing on a fine grid of its dense output:

x' = f(x),  x = a(x, w) at an arrival of weight w,  e(x) rises to 0: x = r(x).
"""

import numpy as np
from scipy.integrate import solve_ivp

RTOL, ATOL = 1e-13, 1e-15
GRID = 32  # points of a step of the integration


def spikes(rate, excess, reset, arrive, start, arrivals, t_end, limit=10_000):
    """Spike times, at most `limit`, and the smallest distance of the excess from 0 at a maximum that
    the search had to examine.

    Args:
        rate, excess, reset: functions of the state.
        arrive: function of a state and a weight.
        arrivals: (time, weight) in order.
    """
    x, now, fired, closest = np.array(start, float), 0.0, [], np.inf
    queue = [event for event in arrivals if event[0] < t_end]
    while now < t_end and len(fired) < limit:
        end = queue[0][0] if queue else t_end
        if excess(x) >= 0:
            fired.append(now)
            x = np.array(reset(x), float)
            continue
        wait, x, gap = _advance(rate, excess, x, end - now)
        closest = min(closest, gap)
        if wait is not None:
            now += wait
            fired.append(now)
            x = np.array(reset(x), float)
            continue
        now = end
        if queue:
            x = np.array(arrive(x, queue.pop(0)[1]), float)
    return fired, closest


def _advance(rate, excess, x, duration):
    """Time to the first crossing or None, the state there or at the end, and the distance of the
    nearest maximum from the threshold.
    """
    if duration <= 0:
        return None, x, np.inf
    reached = lambda _, state: excess(state) - 1e-9  # noqa: E731
    reached.terminal, reached.direction = True, 1
    with np.errstate(over="ignore", invalid="ignore"):  # in steps that are rejected
        run = solve_ivp(
            lambda _, state: rate(state),
            (0.0, duration),
            x,
            method="DOP853",
            rtol=RTOL,
            atol=ATOL,
            dense_output=True,
            events=reached,
            first_step=min(duration, 1e-5),
        )
    knots, closest = run.t, np.inf
    for n in range(len(knots) - 1):
        grid = np.linspace(knots[n], knots[n + 1], GRID)
        values = [excess(run.sol(t)) for t in grid]
        for m in range(1, GRID):
            if values[m] >= 0:
                wait = _bisected(lambda t: excess(run.sol(t)), grid[m - 1], grid[m])
                return wait, run.sol(wait), closest
            if 0 < m < GRID - 1 and values[m - 1] < values[m] > values[m + 1]:
                closest = min(closest, -values[m])
    return None, run.y[:, -1], closest


def _bisected(function, low, high):
    for _ in range(70):
        middle = (low + high) / 2
        low, high = (low, middle) if function(middle) >= 0 else (middle, high)
    return high
