"""What every library must come to: spike times and gradients in float64, by plain NumPy.

Spikes are found event by event and checked against the threshold equation, which is a sum over all
pairs of arrivals and times. Gradients solve the linear system that the implicit function theorem
gives for all spikes of a sample.
"""

import dataclasses
from typing import Any

import numpy as np
from records import AREA, INPUTS, OUTPUTS
from scipy.linalg import solve_triangular
from scipy.sparse import csr_array

_TOLERANCE = 1e-9  # of the threshold equation
_STEP = 1e-5  # of central differences


def _scale(work: Any) -> float:
    """Largest slope of the potential after a spike of weight 1, times tau_mem."""
    return work.r * work.w_in * AREA / work.tau_syn


def _flow(work: Any, v, j, t):
    """(v, j) a time t later, v relative to v_leak and j the current in volts."""
    em, es = np.exp(-t / work.tau_mem), np.exp(-t / work.tau_syn)
    return v * em + j * (em - es) * work.tau_syn / (work.tau_mem - work.tau_syn), j * es


def kernel(work: Any, t: np.ndarray) -> np.ndarray:
    """The potential at time t after a spike of weight 1."""
    t = np.maximum(t, 0.0)
    scale = _scale(work) * work.tau_syn / (work.tau_mem - work.tau_syn)
    return scale * (np.exp(-t / work.tau_mem) - np.exp(-t / work.tau_syn))


def kernel_slope(work: Any, t: np.ndarray) -> np.ndarray:
    """The derivative of `kernel` by time."""
    past = np.maximum(t, 0.0)
    scale = _scale(work) * work.tau_syn / (work.tau_mem - work.tau_syn)
    slope = (
        np.exp(-past / work.tau_syn) / work.tau_syn - np.exp(-past / work.tau_mem) / work.tau_mem
    )
    return np.where(t > 0, scale * slope, 0.0)


def _crossing(work: Any, v, j, gap):
    """Time to the threshold crossing of each lane within its gap, else inf.

    V rises, concave, up to one maximum; Newton's method from the left cannot step over the
    crossing.
    """
    theta = work.v_threshold - work.v_leak
    found = np.full(v.shape, np.inf)
    lane = np.nonzero((j > v) & (j > 0) & (gap > 0))
    v, j, gap = v[lane], j[lane], np.broadcast_to(gap, found.shape)[lane]
    c = work.tau_syn / (work.tau_mem - work.tau_syn)
    rises = v + c * j
    top = np.where(
        rises > 0, c * j / work.tau_syn / np.where(rises > 0, rises / work.tau_mem, 1.0), np.inf
    )
    peak = np.log(np.maximum(top, 1.0)) / (1 / work.tau_syn - 1 / work.tau_mem)
    end = np.minimum(peak, gap)
    hits = _flow(work, v, j, end)[0] >= theta
    lane = tuple(axis[hits] for axis in lane)
    v, j, end, time = v[hits], j[hits], end[hits], np.zeros(hits.sum())
    for _ in range(100):
        at, current = _flow(work, v, j, time)
        slope = np.maximum((current - at) / work.tau_mem, 1e-300)
        step = np.minimum((theta - at) / slope, end - time)
        time = time + np.maximum(step, 0.0)
        if not (step > 1e-15).any():
            break
    found[lane] = time
    return found


def spike_list(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Times (batch, channels, ...) as a list in order: times and channels, (batch, spikes)."""
    batch, channels = times.shape[:2]
    channel = np.broadcast_to(
        np.arange(channels).reshape(1, -1, *[1] * (times.ndim - 2)), times.shape
    )
    flat, channel = times.reshape(batch, -1), channel.reshape(batch, -1)
    order = np.argsort(flat, axis=1, kind="stable")
    order = order[:, : np.isfinite(flat).sum(axis=1).max()]
    return np.take_along_axis(flat, order, 1), np.take_along_axis(channel, order, 1)


def scan(
    work: Any, time: np.ndarray, row: np.ndarray, weights: np.ndarray, once: bool
) -> np.ndarray:
    """Spike times (lists, neurons, spikes) of neurons that do not see each other, inf where unused.

    Args:
        time, row: (lists, arrivals) in order of time, inf where unused; weights: (rows, neurons).
            Every neuron sees every arrival of its list.
    """
    lists, neurons = len(time), weights.shape[1]
    time = np.concatenate([time, np.full((lists, 1), np.inf)], axis=1)
    row = np.concatenate([row, np.zeros((lists, 1), int)], axis=1)
    shape = (lists, neurons)
    v, j, now = np.full(shape, -work.v_leak), np.zeros(shape), np.zeros(shape)
    place, count = np.zeros(shape, int), np.zeros(shape, int)
    scale = _scale(work)
    line, column = np.arange(lists)[:, None], np.arange(neurons)
    spikes: list[tuple[np.ndarray, ...]] = []
    done = np.zeros(shape, bool)
    while not done.all():
        arrival = time[line, place]
        gap = np.where(done, 0.0, np.minimum(arrival, work.t_end) - now)
        wait = _crossing(work, v, j, gap)
        fires = np.isfinite(wait)
        v, j = _flow(work, v, j, np.where(fires, wait, gap))
        now = now + np.where(fires, wait, gap)
        where = np.nonzero(fires)
        spikes.append((*where, count[where], now[where]))
        count += fires
        v = v - work.v_threshold * fires
        arrives = ~fires & ~done & (arrival < work.t_end)
        j = j + np.where(arrives, scale * weights[row[line, place], column], 0.0)
        done |= (~fires & ~arrives) | (fires & once)
        place += arrives
    found = np.full((*shape, max(int(count.max()), 1)), np.inf)
    for a, b, n, t in spikes:
        found[a, b, n] = t
    return found


def recurrent_population(work: Any) -> tuple[np.ndarray, np.ndarray]:
    """Hidden spikes of each sample in order: times (inf where unused) and neurons, (batch, spikes)."""
    time, row = spike_list(work.input_times)
    batch, neurons = len(time), work.hidden_weights.shape[1]
    time = np.concatenate([time, np.full((batch, 1), np.inf)], axis=1)
    v, j, now = np.full((batch, neurons), -work.v_leak), np.zeros((batch, neurons)), np.zeros(batch)
    place, done, samples = np.zeros(batch, int), np.zeros(batch, bool), np.arange(batch)
    scale, log = _scale(work), []
    while not done.all():
        arrival = time[samples, place]
        gap = np.where(done, 0.0, np.minimum(arrival, work.t_end) - now)
        wait = _crossing(work, v, j, gap[:, None])
        first = wait.argmin(axis=1)
        wait = wait[samples, first]
        fires = np.isfinite(wait)
        step = np.where(fires, wait, gap)
        v, j = _flow(work, v, j, step[:, None])
        now = now + step
        arrives = ~fires & ~done & (arrival < work.t_end)
        v[samples, first] -= work.v_threshold * fires
        j[fires] += scale * work.recurrent_weights[first[fires]]
        here = np.nonzero(arrives)[0]
        j[here] += scale * work.hidden_weights[row[here, place[here]]]
        place += arrives
        done |= ~fires & ~arrives
        log.append((np.where(fires, now, np.inf), np.where(fires, first, neurons)))
    times, neuron = (np.array(part).T for part in zip(*log, strict=True))
    order = np.argsort(times, axis=1, kind="stable")[:, : np.isfinite(times).sum(axis=1).max()]
    return np.take_along_axis(times, order, 1), np.take_along_axis(neuron, order, 1)


def hidden_spikes(work: Any) -> tuple[np.ndarray, np.ndarray]:
    """Hidden spikes of each sample in order: times (inf where unused) and neurons, (batch, spikes)."""
    if work.recurrent:
        return recurrent_population(work)
    return spike_list(scan(work, *spike_list(work.input_times), work.hidden_weights, work.once))


def population(work: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hidden spikes in order, times and neurons (batch, spikes), and the first spikes of the
    outputs (batch, 3).
    """
    times, neuron = hidden_spikes(work)
    rows = np.minimum(neuron, work.hidden - 1)
    outputs = scan(work, times, rows, work.output_weights, once=True)[..., 0]
    return times, neuron, outputs


def _own(work: Any, times, neuron):
    """What a neuron's earlier spikes (second axis) took off its potential at its later ones (first
    axis).
    """
    gap = times[:, None] - times
    same = (neuron[:, None] == neuron) & (gap > 0)
    return np.where(same, work.v_threshold * np.exp(-np.maximum(gap, 0.0) / work.tau_mem), 0.0)


def pull_back(work: Any, arrivals, rows, weights, times, neuron, cotangent, feedback=None):
    """Gradients of sum(cotangent * times) for one list of arrivals and of spikes, both in order.

    Without a cotangent each time is weighted by the slope of the potential at it.

    The potential of each spike's neuron at the spike's time is v_threshold. Differentiated by
    everything, that is one triangular system for all spikes.

    Returns:
        by weights, by arrivals, by feedback (None without); and by how much the threshold equation
        is missed.
    """
    delays = times[:, None] - arrivals
    pairs, slopes = kernel(work, delays), kernel_slope(work, delays)
    strength = weights[rows][:, neuron].T
    v = (pairs * strength).sum(axis=1) + work.v_leak * (1 - np.exp(-times / work.tau_mem))
    slope = (slopes * strength).sum(axis=1) + work.v_leak * np.exp(
        -times / work.tau_mem
    ) / work.tau_mem
    own = (
        _own(work, times, neuron)
        if len(np.unique(neuron)) < len(neuron) or feedback is not None
        else None
    )
    by_spike, back = None, None
    if own is not None:
        v, slope, by_spike = (
            v - own.sum(axis=1),
            slope + own.sum(axis=1) / work.tau_mem,
            -own / work.tau_mem,
        )
    if feedback is not None:
        between = times[:, None] - times
        back, back_slope, back_weight = (
            kernel(work, between),
            kernel_slope(work, between),
            feedback[neuron][:, neuron].T,
        )
        v, slope = (
            v + (back * back_weight).sum(axis=1),
            slope + (back_slope * back_weight).sum(axis=1),
        )
        by_spike = by_spike - back_slope * back_weight
    if cotangent is None:
        cotangent = slope
    if by_spike is None:
        lam = -cotangent / slope
    else:
        lam = solve_triangular((np.diag(slope) + by_spike).T, -cotangent, lower=False)
    from_rows, to_neurons = _one_hot(rows, len(weights)), _one_hot(neuron, weights.shape[1])
    by_weight = from_rows @ (to_neurons @ (lam[:, None] * pairs)).T
    by_feedback = None if feedback is None else to_neurons @ (to_neurons @ (lam[:, None] * back)).T
    by_arrival = -(lam[:, None] * slopes * strength).sum(axis=0)
    return by_weight, by_arrival, by_feedback, np.abs(v - work.v_threshold).max(initial=0.0)


def _one_hot(number: np.ndarray, size: int) -> csr_array:
    """(size, entries): adds up the entries with the same number."""
    return csr_array(
        (np.ones(len(number)), (number, np.arange(len(number)))), shape=(size, len(number))
    )


def network_results(work: Any, *, parameters: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Output times and the gradients of their sum; by the parameters named, with central
    differences.

    Raises:
        ArithmeticError: the spikes found do not satisfy the threshold equation.
    """
    times, neuron, outputs = population(work)
    feedback = work.recurrent_weights if work.recurrent_weights.size else None
    found = {
        name: np.zeros_like(getattr(work, name))
        for name in ("hidden_weights", "output_weights", "recurrent_weights", "input_times")
    }
    channels, worst = np.arange(INPUTS), 0.0
    for sample, inputs in enumerate(work.input_times):
        used = np.isfinite(times[sample])
        here, cells = times[sample, used], neuron[sample, used]
        ones = np.ones(OUTPUTS)
        by_weight, by_hidden, _, missed = pull_back(
            work, here, cells, work.output_weights, outputs[sample], np.arange(OUTPUTS), ones
        )
        found["output_weights"] += by_weight
        worst = max(worst, missed)
        by_weight, by_input, by_feedback, missed = pull_back(
            work, inputs, channels, work.hidden_weights, here, cells, by_hidden, feedback
        )
        found["hidden_weights"] += by_weight
        found["input_times"][sample] = by_input
        if by_feedback is not None:
            found["recurrent_weights"] += by_feedback
        worst = max(worst, missed)
    _satisfied(worst)
    if feedback is None:
        del found["recurrent_weights"]
    return {
        "output_times": outputs,
        **found,
        **{name: _by_parameter(work, name) for name in parameters},
    }


def _satisfied(worst: float) -> None:
    if not worst < _TOLERANCE:
        raise ArithmeticError(
            f"the reference misses the threshold by {worst:.1e}, more than {_TOLERANCE:.0e}"
        )


def _by_parameter(work: Any, name: str) -> np.ndarray:
    """Gradient by one parameter that all neurons share."""
    value = getattr(work, name)
    ends = [
        population(dataclasses.replace(work, **{name: value + step}))[-1].sum()
        for step in (_STEP, -_STEP)
    ]
    return np.array((ends[0] - ends[1]) / (2 * _STEP))


def convolution_results(work: Any) -> dict[str, np.ndarray]:
    """Spike counts and summed spike times of each neuron, and the gradients of the sum of slopes
    times times.

    Raises:
        ArithmeticError: as `network_results`.
    """
    arrivals, rows = work.fields()
    spikes = scan(work, arrivals, rows, work.rows(), once=False)
    by_kernel, worst = np.zeros_like(work.rows()), 0.0
    for position, of_neurons in enumerate(spikes):
        times, neuron = (array[0] for array in spike_list(of_neurons[None]))
        used = np.isfinite(arrivals[position])
        by_weight, _, _, missed = pull_back(
            work,
            arrivals[position, used],
            rows[position, used],
            work.rows(),
            times,
            neuron,
            None,
        )
        by_kernel, worst = by_kernel + by_weight, max(worst, missed)
    _satisfied(worst)
    batch, fired = len(work.input_times), np.isfinite(spikes)

    def by_neuron(array):
        return array.reshape(batch, -1, array.shape[1]).swapaxes(1, 2).reshape(batch, -1)

    return {
        "counts": by_neuron(fired.sum(axis=2)),
        "summed_times": by_neuron(np.where(fired, spikes, 0.0).sum(axis=2)),
        "kernel": by_kernel.T.reshape(work.kernel.shape),
    }
