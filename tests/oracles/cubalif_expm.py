"""Spikes of current-based neurons in float64 NumPy, one neuron after the other, slowly.

It shares no formula with the engine: the flow is the exponential of the ODE's matrix in (V, I, 1),
crossings are looked for on a fine grid, refined around the maxima and then by Brent's method.
"""

import numpy as np
from scipy.linalg import expm
from scipy.optimize import brentq, minimize_scalar

GRID = 96


class Neuron:
    """One CubaLIF neuron: tau_syn I' = -I + w_in u, tau_mem V' = v_leak - V + r I."""

    def __init__(self, p, current, start):
        self.p, self.start = p, start
        self.matrix = np.array(
            [
                [-1 / p["tau_mem"], p["r"] / p["tau_mem"], p["v_leak"] / p["tau_mem"]],
                [0.0, -1 / p["tau_syn"], p["w_in"] * current / p["tau_syn"]],
                [0.0, 0.0, 0.0],
            ]
        )

    def flow(self, state, t):
        return expm(self.matrix * t) @ state

    def voltage(self, state, t):
        return self.flow(state, t)[0]

    def crossing(self, state, duration):
        """First upward crossing within `duration`, or None."""
        if duration <= 0:
            return None
        threshold = self.p["v_threshold"]
        step = expm(self.matrix * (duration / GRID))
        times, values = np.linspace(0, duration, GRID + 1), [state[0]]
        now = state
        for _ in range(GRID):
            now = step @ now
            values.append(now[0])
        for n in range(GRID):
            low, high = times[n], times[n + 1]
            if (
                values[n + 1] < threshold
                and n > 0
                and values[n] >= max(values[n - 1], values[n + 1])
            ):
                top = minimize_scalar(
                    lambda t: -self.voltage(state, t),
                    bounds=(times[n - 1], high),
                    method="bounded",
                    options={"xatol": 1e-13 * duration},
                ).x
                if self.voltage(state, top) >= threshold:
                    high = top
                    low = times[n - 1]
            if self.voltage(state, high) >= threshold:
                return brentq(
                    lambda t: self.voltage(state, t) - threshold, low, high, xtol=1e-15, rtol=1e-14
                )
        return None

    def spikes(self, arrivals, t_end):
        """Spike times up to t_end; `arrivals`: sorted (time, jump of I)."""
        state, now, times = np.array([self.start, 0.0, 1.0]), 0.0, []
        for time, jump in [*arrivals, (t_end, 0.0)]:
            while (wait := self.crossing(state, time - now)) is not None:
                state = self.flow(state, wait)
                now += wait
                times.append(now)
                state[0] = self.p["v_reset"]
            state = self.flow(state, time - now)
            state[1] += jump
            now = time
        return times


def population(parameters, weight, arrivals, t_end, *, current, start, area):
    """Spike times of a population for one sample.

    Args:
        parameters: NIR names -> (neurons,) arrays.
        weight: (sources, neurons).
        arrivals: sorted list of (time, source).
        current: (neurons,), a constant input.
        start: V at time 0.
        area: spike area in seconds.
    """
    trains = []
    for n in range(weight.shape[1]):
        p = {name: float(values[n]) for name, values in parameters.items()}
        factor = p["w_in"] * area / p["tau_syn"]
        jumps = [(time, weight[source, n] * factor) for time, source in arrivals]
        trains.append(Neuron(p, current[n], start).spikes(jumps, t_end))
    return trains
