"""When a Threshold behind a readout is high, and spikes of what it drives, in float64 NumPy.

A neuron is x' = A x with x = (V, I, u, 1): u is the current that flows in from outside, the last
entry carries what is constant. Between two changes of x the Taylor series of exp(A t) gives x on a
dense grid; crossings between two of its points are refined by Brent's method.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

POINTS = 100  # of the grid in each interval


@dataclass(frozen=True)
class Node:
    """One neuron: its matrix, its state at time 0, and what an impulse of area 1 adds to it."""

    matrix: np.ndarray
    start: np.ndarray
    kick: np.ndarray


def node(kind, p, *, current=0.0, start=0.0):
    """A neuron of a NIR type from its parameters, numbers."""
    matrix, kick = np.zeros((4, 4)), np.zeros(4)
    if kind.startswith("Cuba"):
        matrix[0, :] = [-1 / p["tau_mem"], p["r"] / p["tau_mem"], 0, p["v_leak"] / p["tau_mem"]]
        matrix[1, :] = np.array([0, -1, p["w_in"], p["w_in"] * current]) / p["tau_syn"]
        kick[1] = p["w_in"] / p["tau_syn"]
    elif kind.startswith("L"):
        matrix[0, :] = np.array([-1, 0, p["r"], p["v_leak"] + p["r"] * current]) / p["tau"]
        kick[0] = p["r"] / p["tau"]
    else:
        matrix[0, :] = [0, 0, p["r"], p["r"] * current]
        kick[0] = p["r"]
    return Node(matrix=matrix, start=np.array([start, 0.0, 0.0, 1.0]), kick=kick)


def changes(neuron, times, weights, *, area, width):
    """(time, what is added to the state) of spikes: deltas, or with a width boxes."""
    if not width:
        return [
            (time, area * weight * neuron.kick) for time, weight in zip(times, weights, strict=True)
        ]
    return currents(
        np.concatenate([times, times + width]), np.concatenate([weights, -weights]) * area / width
    )


def currents(times, steps):
    """(time, what is added to the state) where the current from outside steps."""
    return [(time, np.array([0, 0, step, 0])) for time, step in zip(times, steps, strict=True)]


def crossings(neuron, added, t_end, *, gain=1.0, threshold, reset=None):
    """Times at which gain V comes above the threshold, and below it, in order: (rises, falls).

    Where it begins above, the first rise is 0. With a `reset` V goes there at each rise, and there
    are no falls.
    """
    state, now, rises, falls = neuron.start, 0.0, [], []
    above = gain * state[0] > threshold
    rises += [0.0] * bool(above)
    for time, step in [*sorted(added, key=lambda change: change[0]), (t_end, np.zeros(4))]:
        time = min(time, t_end)
        state, above = _flow(neuron, state, now, time, above, gain, threshold, reset, rises, falls)
        now = time
        if now < t_end:
            state = state + step
        if (gain * state[0] > threshold) != above and now < t_end:
            above = not above
            (rises if above else falls).append(now)
            if above and reset is not None:
                state, above = np.array([reset, *state[1:]]), False
    return np.array(rises), np.array(falls)


def exponential(matrix):
    """exp of a small matrix of small numbers."""
    total, term = np.eye(len(matrix)), np.eye(len(matrix))
    for n in range(1, 20):
        term = term @ matrix / n
        total = total + term
    return total


def _flow(neuron, state, now, end, above, gain, threshold, reset, rises, falls):
    while True:
        step = exponential(neuron.matrix * (end - now) / POINTS)
        states = [state]
        for _ in range(POINTS):
            states.append(step @ states[-1])
        sides = gain * np.array(states)[:, 0] > threshold
        crossed = np.flatnonzero(sides[1:] != np.append(above, sides[1:-1]))
        begin = now
        for place in crossed:
            left = begin + place * (end - begin) / POINTS
            wait = brentq(
                lambda t, at: gain * (exponential(neuron.matrix * t) @ at)[0] - threshold,
                0.0,
                (end - begin) / POINTS,
                args=(states[place],),
                xtol=1e-14,
                rtol=1e-14,
            )
            above = not above
            (rises if above else falls).append(left + wait)
            if reset is not None:
                state = exponential(neuron.matrix * wait) @ states[place]
                state, above, now = np.array([reset, *state[1:]]), False, left + wait
                break
        if not (reset is not None and len(crossed)):
            return states[-1], above
