"""Spikes and voltages of chains LI -> linear nodes -> LIF, by SciPy's integration of the ODE of both
populations, step by step, with events.

It knows of no closed form, nor that the pair is a CubaLIF.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.integrate import solve_ivp


@dataclass(kw_only=True)
class Sender:
    """LI or I (tau None): jumps (channels, neurons) of V, current (neurons,), and the matrix to the
    target.
    """

    jumps: np.ndarray
    matrix: np.ndarray
    r: np.ndarray
    tau: np.ndarray | None = None
    v_leak: np.ndarray | float = 0.0
    current: np.ndarray | float = 0.0
    start: np.ndarray | float = 0.0

    def slope(self, v):
        """dV/dt."""
        force = self.r * self.current
        return force + 0 * v if self.tau is None else (self.v_leak - v + force) / self.tau


@dataclass(kw_only=True)
class Chain:
    """What drives the LIF or LI `target` (NIR's names -> (neurons,)), and the constant that is
    added.
    """

    senders: list[Sender]
    target: dict[str, np.ndarray]
    current: np.ndarray | float = 0.0
    start: np.ndarray | float = 0.0
    refractory: float = 0.0
    tolerance: dict[str, float] = field(default_factory=lambda: {"rtol": 1e-12, "atol": 1e-13})

    def __post_init__(self):
        self.neurons = len(self.target["tau"])
        self.edges = np.cumsum([0, *(sender.matrix.shape[1] for sender in self.senders)])

    def slopes(self, state, held):
        """Time derivatives of all voltages, senders first."""
        parts = [state[low:high] for low, high in zip(self.edges, self.edges[1:], strict=False)]
        v, p = state[self.edges[-1] :], self.target
        level = self.current + sum(
            sender.matrix @ part for sender, part in zip(self.senders, parts, strict=True)
        )
        own = np.where(held, 0.0, (p["v_leak"] - v + p["r"] * level) / p["tau"])
        return np.concatenate(
            [*(s.slope(part) for s, part in zip(self.senders, parts, strict=True)), own]
        )

    def run(self, times, channels, t_end, samples=()):
        """Spike times of each neuron of the target, and all voltages at some times (samples,
        voltages).
        """
        starts = [np.broadcast_to(s.start, s.matrix.shape[1]) for s in self.senders]
        state = np.concatenate([*starts, np.broadcast_to(self.start, self.neurons)]).astype(float)
        used = np.isfinite(times)
        arrivals = sorted(zip(times[used], channels[used], strict=True))
        free, spikes, now = np.zeros(self.neurons), [[] for _ in range(self.neurons)], 0.0
        traces, crossings = {}, [self._crossing(n) for n in range(self.neurons)]
        stops = sorted({*(time for time, _ in arrivals if time < t_end), *samples, t_end})
        fires = "v_threshold" in self.target
        while stops:
            later = free[free > now]
            stop = min([stops[0], *later])
            held = free > now
            if stop > now:
                found = solve_ivp(
                    lambda t, y, held=held: self.slopes(y, held),
                    (now, stop),
                    state,
                    method="DOP853",
                    events=[crossings[n] for n in np.flatnonzero(~held)] if fires else None,
                    max_step=0.05,
                    **self.tolerance,
                )
                state, now = found.y[:, -1].copy(), float(found.t[-1])
                if fires and found.status == 1:
                    for place, n in enumerate(np.flatnonzero(~held)):
                        if found.t_events[place].size:
                            spikes[n].append(now)
                            state[self.edges[-1] + n] = self.target["v_reset"][n]
                            free[n] = now + self.refractory
                    continue
            if stop < stops[0]:
                continue
            stops.pop(0)
            for time, channel in arrivals:
                if time == stop:
                    state[: self.edges[-1]] += np.concatenate(
                        [s.jumps[channel] for s in self.senders]
                    )
            traces[stop] = state.copy()
        return spikes, np.array([traces[sample] for sample in samples])

    def _crossing(self, neuron):
        def above(t, y):
            return y[self.edges[-1] + neuron] - self.target["v_threshold"][neuron]

        above.terminal, above.direction = True, 1.0
        return above
