"""The work that every library is given.

Current-based LIF neurons with tau_mem = 2 tau_syn. Times are in units of tau_syn, a spike of weight w makes the
synaptic current jump by w_in w AREA / tau_syn, and tau_mem V' = v_leak - V + r I. A spike takes v_threshold off V.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from reference import AREA, INPUTS, OUTPUTS, population, recurrent_population, scan, spike_list

BATCH = 64
SEED = 0
PARAMETERS = ("tau_mem", "tau_syn", "v_threshold", "v_leak", "r", "w_in")


class _Saved:
    """A record that goes through a file to the process of a library."""

    def save(self, path: Path) -> None:
        np.savez(path, record=type(self).__name__, **dataclasses.asdict(self))  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True, kw_only=True)
class Work(_Saved):
    """One batch of a network 5-N-3 whose N neurons may feed back into each other.

    The time of the first spike of each output counts: the gradient is that of their sum over outputs and samples.

    Attributes:
        input_times: (batch, 5), in no order.
        hidden_weights: (5, N). output_weights: (N, 3). recurrent_weights: (N, N), or (0, 0) for none.
        once: hidden neurons stop after their first spike.
        max_spikes: largest number of spikes of a hidden neuron in a sample; hidden_events: of all of them.
    """

    input_times: np.ndarray
    hidden_weights: np.ndarray
    output_weights: np.ndarray
    recurrent_weights: np.ndarray
    once: bool
    max_spikes: int
    hidden_events: int
    tau_mem: float = 2.0
    tau_syn: float = 1.0
    v_threshold: float = 1.0
    v_leak: float = 0.0
    r: float = 1.0
    w_in: float = 1.0
    t_end: float = 4.0

    @property
    def hidden(self) -> int:
        """N."""
        return self.hidden_weights.shape[1]

    @property
    def recurrent(self) -> bool:
        """Whether hidden neurons feed back into each other."""
        return self.recurrent_weights.size > 0


@dataclass(frozen=True, kw_only=True)
class Convolution(_Saved):
    """One batch of events on a sensor 2 x 34 x 34, through a convolution, onto spiking neurons.

    The times of all spikes count: the gradient is that of their sum.

    Attributes:
        input_times, input_channels: (batch, events); channel = (polarity * 34 + y) * 34 + x.
        kernel: (16, 2, taps, taps). stride, padding: in both directions.
        max_spikes: largest number of spikes of a neuron. max_arrivals: of arrivals at a position.
    """

    input_times: np.ndarray
    input_channels: np.ndarray
    kernel: np.ndarray
    stride: int
    padding: int
    max_spikes: int = 0
    max_arrivals: int = 0
    side: int = 34
    tau_mem: float = 2.0
    tau_syn: float = 1.0
    v_threshold: float = 1.0
    v_leak: float = 0.0
    r: float = 1.0
    w_in: float = 1.0
    t_end: float = 20.0

    @property
    def out_side(self) -> int:
        """Positions along each direction."""
        return (self.side + 2 * self.padding - self.kernel.shape[-1]) // self.stride + 1

    def fields(self) -> tuple[np.ndarray, np.ndarray]:
        """What arrives at each position: times and rows of the kernel, (batch * positions, arrivals).

        Row (polarity * taps + dy) * taps + dx; unused slots have the time inf.
        """
        taps, batch = self.kernel.shape[-1], len(self.input_times)
        polarity, y, x = np.unravel_index(self.input_channels, (2, self.side, self.side))
        found: list[list[tuple[float, int]]] = [[] for _ in range(batch * self.out_side**2)]
        shifts = np.arange(taps)
        for sample in range(batch):
            for e in np.argsort(self.input_times[sample], kind="stable"):
                dy, dx = (self._shifts(int(place[sample, e]), shifts) for place in (y, x))
                for a, out_y in dy:
                    for b, out_x in dx:
                        row = (int(polarity[sample, e]) * taps + a) * taps + b
                        position = (sample * self.out_side + out_y) * self.out_side + out_x
                        found[position].append((self.input_times[sample, e], row))
        longest = max(map(len, found))
        times, rows = np.full((len(found), longest), np.inf), np.zeros((len(found), longest), int)
        for position, arrivals in enumerate(found):
            if arrivals:
                times[position, : len(arrivals)], rows[position, : len(arrivals)] = zip(*arrivals, strict=True)
        return times, rows

    def _shifts(self, place: int, shifts: np.ndarray) -> list[tuple[int, int]]:
        """(tap, output place) that an input place meets along one direction."""
        out = place + self.padding - shifts
        meets = (out % self.stride == 0) & (out >= 0) & (out < self.out_side * self.stride)
        return [(int(tap), int(at) // self.stride) for tap, at in zip(shifts[meets], out[meets], strict=True)]

    def rows(self) -> np.ndarray:
        """The kernel as (rows, channels)."""
        return self.kernel.reshape(len(self.kernel), -1).T


def load(path: Path) -> Any:
    """A saved piece of work."""
    with np.load(path) as arrays:
        values = {name: array if array.ndim else array.item() for name, array in arrays.items()}
    return {"Work": Work, "Convolution": Convolution}[values.pop("record")](**values)


def _inputs(rng: np.random.Generator, batch: int) -> np.ndarray:
    x, y = rng.random((2, batch, 1))
    return np.concatenate([2 * x, 2 * y, 2 - 2 * x, 2 - 2 * y, np.zeros((batch, 1))], axis=1)


def _work(hidden_weights, output_weights, input_times, once=False, recurrent_weights=None) -> Work:
    """The work, with the numbers of spikes that it comes to."""
    work = Work(
        input_times=input_times,
        hidden_weights=hidden_weights,
        output_weights=output_weights,
        recurrent_weights=np.zeros((0, 0)) if recurrent_weights is None else recurrent_weights,
        once=once,
        max_spikes=0,
        hidden_events=0,
    )
    count = hidden_counts(work)
    slack = 0 if once else 1  # for what rounding may add at the end of the trial
    largest, most = int(count.max()), int(count.sum(axis=1).max())
    return dataclasses.replace(work, max_spikes=largest + slack, hidden_events=most + 4 * slack)


def hidden_counts(work: Work) -> np.ndarray:
    """Spikes of each hidden neuron in each sample, (batch, N)."""
    if not work.recurrent:
        return np.isfinite(scan(work, *spike_list(work.input_times), work.hidden_weights, work.once)).sum(axis=2)
    _, neuron = recurrent_population(work)
    return np.array([np.bincount(row[row < work.hidden], minlength=work.hidden) for row in neuron])


def feed_forward(hidden: int, batch: int = BATCH) -> Work:
    """One spike of each of N hidden neurons. A neuron that would stay silent is drawn again."""
    rng = np.random.default_rng(SEED)
    inputs = _inputs(rng, batch)
    weights = rng.normal(3.0, 1.6, (INPUTS, hidden))
    output_weights = rng.normal(10.0, 10.0, (hidden, OUTPUTS)) / hidden
    while True:
        work = _work(weights, output_weights, inputs, once=True)
        silent = (hidden_counts(work) == 0).any(axis=0)
        if not silent.any():
            break
        weights = weights.copy()
        weights[:, silent] = rng.normal(3.0, 1.6, (INPUTS, silent.sum()))
    return _with_late_outputs(work, rescale=False)


def several_spikes(hidden: int, spikes: float, batch: int = BATCH) -> Work:
    """About a given number of spikes of each hidden neuron, and outputs that fire when most of them are through."""
    rng = np.random.default_rng(SEED)
    inputs = _inputs(rng, batch)
    shape = rng.normal(1.0, 0.1, (INPUTS, hidden))
    output_weights = rng.normal(1.0, 0.3, (hidden, OUTPUTS)) / hidden
    low, high = 0.1, 30.0
    for _ in range(14):
        middle = (low + high) / 2
        mean = hidden_counts(_work(middle * shape, output_weights, inputs)).mean()
        low, high = (middle, high) if mean < spikes else (low, middle)
    return _with_late_outputs(_work(high * shape, output_weights, inputs), rescale=True)


def recurrent(hidden: int, batch: int = BATCH) -> Work:
    """N hidden neurons that feed back into each other, one to two spikes each."""
    rng = np.random.default_rng(SEED)
    inputs = _inputs(rng, batch)
    weights = rng.normal(1.2, 0.4, (INPUTS, hidden))
    feedback = rng.normal(0.0, 0.5, (hidden, hidden)) / np.sqrt(hidden)
    output_weights = rng.normal(1.0, 0.3, (hidden, OUTPUTS)) / hidden
    return _with_late_outputs(_work(weights, output_weights, inputs, recurrent_weights=feedback), rescale=True)


def _with_late_outputs(work: Work, *, rescale: bool) -> Work:
    """With output weights that are as small as every output firing in every sample allows.

    Raises:
        ValueError: an output stays silent.
    """
    times, neuron, _ = population(work)
    rows = np.minimum(neuron, work.hidden - 1)
    fires = lambda scale: bool(np.isfinite(scan(work, times, rows, scale * work.output_weights, once=True)).all())  # noqa: E731
    scale = 1.0
    if rescale:
        low, high = 0.0, 20.0
        for _ in range(12):
            scale = (low + high) / 2
            low, high = (low, scale) if fires(scale) else (scale, high)
        scale = 1.1 * high
    if not fires(scale):
        raise ValueError(f"with {work.hidden} hidden neurons an output stays silent: change the weights")
    return dataclasses.replace(work, output_weights=scale * work.output_weights)


def convolution(events: int, taps: int = 5, batch: int = 1, spikes: float = 2.0) -> Convolution:
    """Random events and kernel; about a given number of spikes of each neuron, whatever the number of events."""
    rng = np.random.default_rng(SEED)
    times = np.sort(rng.uniform(0, 19, (batch, events)), axis=1)
    channels = rng.integers(0, 2 * 34 * 34, (batch, events))
    kernel = rng.normal(1.0, 0.5, (16, 2, taps, taps))
    work = Convolution(input_times=times, input_channels=channels, kernel=kernel, stride=2, padding=taps // 2)
    fields, low, high = work.fields(), 1e-4, 1e2
    for _ in range(16):
        middle = np.sqrt(low * high)
        found = np.isfinite(scan(work, *fields, middle * work.rows(), once=False)).sum(axis=2).mean()
        low, high = (middle, high) if found < spikes else (low, middle)
    work = dataclasses.replace(work, kernel=high * kernel)
    counts = np.isfinite(scan(work, *fields, work.rows(), once=False)).sum(axis=2)
    return dataclasses.replace(work, max_spikes=int(counts.max()) + 1, max_arrivals=fields[0].shape[1])
