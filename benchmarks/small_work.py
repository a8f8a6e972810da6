"""Random work of the kinds and sizes that are measured."""

import dataclasses

import numpy as np
from records import INPUTS, OUTPUTS, Convolution, Work
from reference import hidden_spikes, scan

BATCH = 64
SEED = 0
Spikes = tuple[np.ndarray, np.ndarray]  # times, inf where unused, and neurons: (batch, spikes)


def _inputs(rng: np.random.Generator, batch: int) -> np.ndarray:
    x, y = rng.random((2, batch, 1))
    return np.concatenate([2 * x, 2 * y, 2 - 2 * x, 2 - 2 * y, np.zeros((batch, 1))], axis=1)


def _work(
    hidden_weights, output_weights, input_times, once=False, recurrent_weights=None
) -> tuple[Work, Spikes]:
    """The work with the numbers of spikes that it comes to, and the hidden spikes."""
    work = Work(
        input_times=input_times,
        hidden_weights=hidden_weights,
        output_weights=output_weights,
        recurrent_weights=np.zeros((0, 0)) if recurrent_weights is None else recurrent_weights,
        once=once,
    )
    times, neuron = hidden_spikes(work)
    size = work.hidden
    count = np.array(
        [
            np.bincount(row[np.isfinite(t)], minlength=size)
            for t, row in zip(times, neuron, strict=True)
        ]
    )
    slack = 0 if once else 1  # for what rounding may add at the end of the trial
    numbers = {
        "max_spikes": int(count.max()) + slack,
        "hidden_events": int(count.sum(axis=1).max()) + 4 * slack,
    }
    return dataclasses.replace(work, **numbers, spikes_per_neuron=float(count.mean())), (
        times,
        neuron,
    )


def feed_forward(hidden: int, batch: int = BATCH) -> Work:
    """One spike of each of N hidden neurons. A neuron that would stay silent is drawn again."""
    rng = np.random.default_rng(SEED)
    inputs = _inputs(rng, batch)
    weights = rng.normal(3.0, 1.6, (INPUTS, hidden))
    output_weights = rng.normal(10.0, 10.0, (hidden, OUTPUTS)) / hidden
    while True:
        work, (times, neuron) = _work(weights, output_weights, inputs, once=True)
        fired = np.zeros((batch, hidden), bool)
        sample, slot = np.nonzero(np.isfinite(times))
        fired[sample, neuron[sample, slot]] = True
        silent = ~fired.all(axis=0)
        if not silent.any():
            return _with_late_outputs(work, (times, neuron), rescale=False)
        weights = weights.copy()
        weights[:, silent] = rng.normal(3.0, 1.6, (INPUTS, silent.sum()))


def several_spikes(hidden: int, spikes: float, batch: int = BATCH) -> Work:
    """About a given number of spikes of each hidden neuron, and outputs that fire when most of them
    are through.
    """
    rng = np.random.default_rng(SEED)
    inputs = _inputs(rng, batch)
    shape = rng.normal(1.0, 0.1, (INPUTS, hidden))
    output_weights = rng.normal(1.0, 0.3, (hidden, OUTPUTS)) / hidden
    low, high = 0.1, 30.0
    for _ in range(14):
        middle = (low + high) / 2
        mean = _work(middle * shape, output_weights, inputs)[0].spikes_per_neuron
        low, high = (middle, high) if mean < spikes else (low, middle)
    return _with_late_outputs(*_work(high * shape, output_weights, inputs), rescale=True)


def recurrent(hidden: int, batch: int = BATCH) -> Work:
    """N hidden neurons that feed back into each other, one to two spikes each."""
    rng = np.random.default_rng(SEED)
    inputs = _inputs(rng, batch)
    weights = rng.normal(1.2, 0.4, (INPUTS, hidden))
    feedback = rng.normal(0.0, 0.5, (hidden, hidden)) / np.sqrt(hidden)
    output_weights = rng.normal(1.0, 0.3, (hidden, OUTPUTS)) / hidden
    return _with_late_outputs(
        *_work(weights, output_weights, inputs, recurrent_weights=feedback), rescale=True
    )


def _with_late_outputs(work: Work, hidden: Spikes, *, rescale: bool) -> Work:
    """With output weights about as small as lets every output fire in every sample.

    Raises:
        ValueError: an output stays silent.
    """
    times, rows = hidden[0], np.minimum(hidden[1], work.hidden - 1)

    def fires(scale):
        return bool(
            np.isfinite(scan(work, times, rows, scale * work.output_weights, once=True)).all()
        )

    scale = 1.0
    if rescale:
        low, high = 0.0, 20.0
        for _ in range(12):
            scale = (low + high) / 2
            low, high = (low, scale) if fires(scale) else (scale, high)
        scale = 1.1 * high
    if not fires(scale):
        raise ValueError(
            f"with {work.hidden} hidden neurons an output stays silent: change the weights"
        )
    return dataclasses.replace(work, output_weights=scale * work.output_weights)


def convolution(events: int, taps: int = 5, batch: int = 1, spikes: float = 2.0) -> Convolution:
    """Random events and kernel; about a given number of spikes of each neuron, whatever the number
    of events.
    """
    rng = np.random.default_rng(SEED)
    times = np.sort(rng.uniform(0, 19, (batch, events)), axis=1)
    channels = rng.integers(0, 2 * 34 * 34, (batch, events))
    kernel = rng.normal(1.0, 0.5, (16, 2, taps, taps))
    work = Convolution(
        input_times=times, input_channels=channels, kernel=kernel, stride=2, padding=taps // 2
    )
    fields, low, high = work.fields(), 1e-4, 1e2
    for _ in range(16):
        middle = np.sqrt(low * high)
        found = (
            np.isfinite(scan(work, *fields, middle * work.rows(), once=False)).sum(axis=2).mean()
        )
        low, high = (middle, high) if found < spikes else (low, middle)
    work = dataclasses.replace(work, kernel=high * kernel)
    counts = np.isfinite(scan(work, *fields, work.rows(), once=False)).sum(axis=2)
    numbers = {"max_spikes": int(counts.max()) + 1, "max_arrivals": fields[0].shape[1]}
    return dataclasses.replace(work, **numbers, spikes_per_neuron=float(counts.mean()))
