"""Spikes and voltages of current-based neurons in float64 NumPy, many at once: linear ODEs by their
Taylor series, crossings by bisection.

Like `cubalif_expm`, against which it is tested, it shares no formula with the engine. A lane is one
neuron of one sample: V' = a V + b I + c, I' = d I + e, and V is reset where it reaches a threshold.
"""

from dataclasses import dataclass

import numpy as np

ORDER = 22
HALVINGS = 56


@dataclass(frozen=True, kw_only=True)
class Lanes:
    """Coefficients of the ODE, threshold, reset and initial state: arrays (lanes,)."""

    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    d: np.ndarray
    e: np.ndarray
    threshold: np.ndarray
    reset: np.ndarray
    v: np.ndarray
    i: np.ndarray

    @property
    def largest_step(self):
        """A step over which the series converges to the last digit."""
        return 0.5 / np.maximum(abs(self.a), abs(self.d))

    def take(self, chosen):
        return Lanes(**{name: array[chosen] for name, array in vars(self).items()})


def cuba(p, current=0.0, start=0.0):
    """tau_syn I' = -I + w_in u, tau_mem V' = v_leak - V + r I, from NIR's parameters."""
    lanes = p["tau_mem"].shape
    full = {
        "a": -1 / p["tau_mem"],
        "b": p["r"] / p["tau_mem"],
        "c": p["v_leak"] / p["tau_mem"],
        "d": -1 / p["tau_syn"],
        "e": p["w_in"] * current / p["tau_syn"],
        "threshold": p.get("v_threshold", np.inf),
        "reset": p.get("v_reset", 0.0),
        "v": start,
        "i": 0.0,
    }
    return Lanes(
        **{name: np.broadcast_to(np.asarray(value, float), lanes) for name, value in full.items()}
    )


def series_of(lanes, v, i, step):
    """Taylor coefficients of V and I over a step, which is mapped to [0, 1]: arrays (ORDER + 1,
    lanes).
    """
    vs, currents = [v], [i]
    for n in range(ORDER):
        drive = (lanes.c, lanes.e) if n == 0 else (0.0, 0.0)
        vs.append(step / (n + 1) * (lanes.a * vs[n] + lanes.b * currents[n] + drive[0]))
        currents.append(step / (n + 1) * (lanes.d * currents[n] + drive[1]))
    return np.array(vs), np.array(currents)


def value_at(series, s):
    """A polynomial at s."""
    total = np.zeros_like(series[0])
    for coefficient in series[::-1]:
        total = total * s + coefficient
    return total


def _bisect(series, level, low, high, rising):
    """Where a polynomial crosses a level between two points at which it lies on both sides of it."""
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        beyond = (value_at(series, middle) >= level) == rising
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
    return high


def first_crossing(series, threshold):
    """First place in [0, 1] where V reaches the threshold; inf where it does not.

    V of these neurons has at most one extremum.
    """
    ones = np.ones_like(threshold)
    slope = series[1:] * np.arange(1, ORDER + 1)[:, None]
    end = value_at(series, ones)
    place = np.where(series[0] >= threshold, 0.0, np.inf)
    below = series[0] < threshold
    bracket = np.where(below & (end >= threshold), 1.0, np.nan)
    peaks = np.flatnonzero(
        below & (end < threshold) & (value_at(slope, 0 * ones) > 0) & (value_at(slope, ones) < 0)
    )
    if peaks.size:
        low, high = np.zeros(peaks.size), np.ones(peaks.size)
        top = _bisect(slope[:, peaks], 0.0, low, high, rising=False)
        reaches = value_at(series[:, peaks], top) >= threshold[peaks]
        bracket[peaks[reaches]] = top[reaches]
    inside = np.flatnonzero(np.isfinite(bracket))
    if inside.size:
        low, high = np.zeros(inside.size), bracket[inside]
        place[inside] = _bisect(series[:, inside], threshold[inside], low, high, rising=True)
    return place


def spike_times(lanes, times, jumps, t_end, limit=400):
    """Spikes of each lane.

    Args:
        lanes: `Lanes`.
        times: (lanes, arrivals), sorted; inf where unused.
        jumps: (lanes, arrivals), what arrivals add to I.
        t_end: a number, or one for each lane.
        limit: spikes after which a lane stops.

    Returns:
        (lanes, limit), padded with inf.
    """
    number = len(times)
    t_end = np.broadcast_to(np.asarray(t_end, float), (number,))
    stops = np.concatenate([np.minimum(times, t_end[:, None]), t_end[:, None]], axis=1)
    jumps = np.concatenate([jumps, np.zeros((number, 1))], axis=1)
    v, i, now = lanes.v.copy(), lanes.i.copy(), np.zeros(number)
    following, count = np.zeros(number, int), np.zeros(number, int)
    out = np.full((number, limit), np.inf)
    going = np.arange(number)
    while going.size:
        part, stop = lanes.take(going), stops[going, following[going]]
        step = np.minimum(stop - now[going], part.largest_step)
        series, currents = series_of(part, v[going], i[going], step)
        place = first_crossing(series, part.threshold)
        fires = np.isfinite(place)
        place = np.where(fires, place, 1.0)
        at_stop = ~fires & (step == stop - now[going])
        now[going] = np.where(at_stop, stop, now[going] + place * step)
        v[going] = np.where(fires, part.reset, value_at(series, place))
        i[going] = value_at(currents, place) + np.where(
            at_stop, jumps[going, following[going]], 0.0
        )
        out[going[fires], count[going[fires]]] = now[going[fires]]
        count[going] += fires
        following[going] += at_stop
        going = going[(now[going] < t_end[going]) & (count[going] < limit)]
    return out


def flow(lanes, v, i, t):
    """V after a time t >= 0 without events, array (lanes,)."""
    steps = max(int(np.ceil(np.max(t / lanes.largest_step, initial=0.0))), 1)
    whole = np.ones_like(t)
    for _ in range(steps):
        series, currents = series_of(lanes, v, i, t / steps)
        v, i = value_at(series, whole), value_at(currents, whole)
    return v


def voltages(lanes, times, jumps, samples):
    """V at some times, arrivals superposed: (lanes, samples); `lanes.threshold` does not matter."""
    free = Lanes(**{**vars(lanes), "c": 0 * lanes.c, "e": 0 * lanes.e})
    out = []
    for sample in samples:
        total = flow(lanes, lanes.v, lanes.i, np.full(lanes.v.shape, sample))
        for time, jump in zip(times.T, jumps.T, strict=True):
            wait = np.where(time < sample, sample - time, 0.0)
            total = total + np.where(time < sample, flow(free, 0 * lanes.v, jump, wait), 0.0)
        out.append(total)
    return np.array(out).T


def lanes_of(p, weight, times, rows, *, current=0.0, start=0.0, area=None):
    """Lanes of a population, sample by sample, their arrival times and jumps: see `population`."""
    order = np.argsort(times, axis=1, kind="stable")
    times, rows = np.take_along_axis(times, order, 1), np.take_along_axis(rows, order, 1)
    samples, neurons = times.shape[0], weight.shape[1]
    factor = 1.0 if area is None else p["w_in"] * area / p["tau_syn"]
    jumps = (weight * factor)[np.where(np.isfinite(times), rows, 0)]  # samples, arrivals, neurons
    each = {name: np.tile(values, samples) for name, values in p.items()}
    lanes = cuba(each, *(np.tile(np.broadcast_to(x, neurons), samples) for x in (current, start)))
    return (
        lanes,
        np.repeat(times, neurons, axis=0),
        jumps.transpose(0, 2, 1).reshape(samples * neurons, -1),
    )


def population(
    p, weight, times, rows, t_end, *, current=0.0, start=0.0, area=None, reset=None, limit=400
):
    """Spikes of a population, (samples, neurons, limit), padded with inf.

    Args:
        p: NIR's names -> arrays (neurons,).
        weight: (sources, neurons).
        times: (samples, arrivals) in any order; inf where unused.
        rows: (samples, arrivals), the source of each.
        area: spike area in seconds; None: a spike of weight w moves I by w.
        reset: where V goes, if not to v_reset.
    """
    lanes, times, jumps = lanes_of(p, weight, times, rows, current=current, start=start, area=area)
    if reset is not None:
        lanes = Lanes(**{**vars(lanes), "reset": np.full(lanes.v.shape, reset)})
    found = spike_times(lanes, times, jumps, t_end, limit)
    return found.reshape(-1, weight.shape[1], limit)
