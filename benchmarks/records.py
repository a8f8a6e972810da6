"""The work that every library is given, as records that go through files.

Current-based LIF neurons with tau_mem = 2 tau_syn. Times are in units of tau_syn, a spike of weight
w makes the synaptic current jump by w_in w AREA / tau_syn, and tau_mem V' = v_leak - V + r I. A
spike takes v_threshold off V.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

AREA = 1.0  # of a spike: with tau_syn = 1 and w_in = 1 the current jumps by the weight
INPUTS, OUTPUTS = 5, 3
STEPS = 100  # of the libraries that step, where nothing else is said
SIDE = 34  # pixels of a sensor
PARAMETERS = ("tau_mem", "tau_syn", "v_threshold", "v_leak", "r", "w_in")
_TIMES = {"tau_mem": 2.0, "tau_syn": 1.0}
_LINEAR = {**_TIMES, "v_threshold": 1.0, "v_reset": 0.0}
_NIR = {**_LINEAR, "r": 1.0, "w_in": 1.0, "v_leak": 0.0}
_EXPONENTIAL = {
    **_TIMES,
    **{
        "r": 1.0,
        "v_leak": 0.0,
        "v_rheobase": 1.0,
        "sharpness": 0.2,
        "v_spike": 2.0,
        "v_reset": 0.0,
    },
}
#: Neuron model of custom_neurons.py -> parameters, equal for all neurons.
NEURON_MODELS = {
    "CubaLIF": _NIR,
    "AdaptiveLIF": {**_NIR, "tau_adaptation": 6.0, "step": 0.4},
    "TwoSynapses": {**_LINEAR, "tau_slow": 4.0},
    "Resonator": {**_LINEAR, "frequency": 2.0},
    "ThetaQIF": _TIMES,
    "ExponentialLIF": _EXPONENTIAL,
    "AdEx": {**_EXPONENTIAL, "tau_slow": 6.0, "coupling": 0.2, "step": 0.3},
}


class Stage(NamedTuple):
    """Weights and the neurons behind them.

    Attributes:
        name: of the weights, a field of the record: (inputs, neurons), or a kernel (channels out,
            channels in, taps, taps).
        pool: the side of the windows that are added up before.
        stride, padding: of the kernel, in both directions.
    """

    name: str
    pool: int = 1
    stride: int = 1
    padding: int = 0


@dataclass(frozen=True, kw_only=True)
class _Saved:
    """A record that goes through a file to the process of a library: CubaLIF neurons of equal
    parameters, the end of a sample, and into how many steps libraries that step cut it.
    """

    tau_mem: float = 2.0
    tau_syn: float = 1.0
    v_threshold: float = 1.0
    v_leak: float = 0.0
    r: float = 1.0
    w_in: float = 1.0
    t_end: float = 4.0
    steps: int = STEPS

    def save(self, path: Path) -> None:
        np.savez(path, record=type(self).__name__, **dataclasses.asdict(self))  # pyright: ignore[reportArgumentType]

    @property
    def dt(self) -> float:
        """Step of the libraries that step."""
        return self.t_end / self.steps

    def binned(self, times: np.ndarray, channels: np.ndarray, size: int) -> np.ndarray:
        """Numbers of spikes in each step, (steps, samples, size); those at inf are none."""
        found = np.zeros((self.steps, len(times), size), np.float32)
        sample, slot = np.nonzero(np.isfinite(times))
        step = np.rint(times[sample, slot] / self.dt).astype(int)
        np.add.at(found, (step, sample, channels[sample, slot]), 1)
        return found


@dataclass(frozen=True, kw_only=True)
class Work(_Saved):
    """One batch of a network 5-N-3 whose N neurons may feed back into each other.

    The time of the first spike of each output counts: the gradient is that of their sum over
    outputs and samples.

    Attributes:
        input_times: (batch, 5), in no order.
        hidden_weights: (5, N). output_weights: (N, 3). recurrent_weights: (N, N), or (0, 0) for
            none.
        once: hidden neurons stop after their first spike.
        max_spikes: largest number of spikes of a hidden neuron in a sample; hidden_events: of all
            of them.
        spikes_per_neuron: of the hidden neurons, on average.
    """

    input_times: np.ndarray
    hidden_weights: np.ndarray
    output_weights: np.ndarray
    recurrent_weights: np.ndarray
    once: bool
    max_spikes: int = 0
    hidden_events: int = 0
    spikes_per_neuron: float = 0.0
    t_end: float = 4.0
    feedback: ClassVar[str] = "recurrent_weights"

    @property
    def stages(self) -> tuple[Stage, ...]:
        return Stage("hidden_weights"), Stage("output_weights")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the inputs."""
        return (INPUTS,)

    @property
    def hidden(self) -> int:
        """N."""
        return self.hidden_weights.shape[1]

    def raster(self) -> np.ndarray:
        """Input spikes for the libraries that step, (steps, batch, 5)."""
        return self.binned(self.input_times, np.indices(self.input_times.shape)[1], INPUTS)

    @property
    def recurrent(self) -> bool:
        """Whether hidden neurons feed back into each other."""
        return self.recurrent_weights.size > 0


@dataclass(frozen=True, kw_only=True)
class Convolution(_Saved):
    """One batch of events on a sensor 2 x 34 x 34, through a convolution, onto spiking neurons.

    All spikes count, each with its slope dV/dt as a fixed weight, so that no nearly tangential one
    outweighs the others: the gradient is that of the sum of slope times time.

    Attributes:
        input_times, input_channels: (batch, events); channel = (polarity * 34 + y) * 34 + x.
        kernel: (16, 2, taps, taps). stride, padding: in both directions.
        max_spikes: largest number of spikes of a neuron. max_arrivals: of arrivals at a position.
        spikes_per_neuron: on average.
    """

    input_times: np.ndarray
    input_channels: np.ndarray
    kernel: np.ndarray
    stride: int
    padding: int
    max_spikes: int = 0
    max_arrivals: int = 0
    spikes_per_neuron: float = 0.0
    side: int = SIDE
    t_end: float = 20.0
    recurrent: ClassVar[bool] = False
    feedback: ClassVar[str] = ""

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (Stage("kernel", stride=self.stride, padding=self.padding),)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the inputs."""
        return 2, self.side, self.side

    @property
    def out_side(self) -> int:
        """Positions along each direction."""
        return (self.side + 2 * self.padding - self.kernel.shape[-1]) // self.stride + 1

    def raster(self) -> np.ndarray:
        """Input spikes for the libraries that step, (steps, batch, 2, side, side)."""
        found = self.binned(self.input_times, self.input_channels, 2 * self.side**2)
        return found.reshape(*found.shape[:2], 2, self.side, self.side)

    def fields(self) -> tuple[np.ndarray, np.ndarray]:
        """What arrives at each position: times and rows of the kernel, (batch * positions,
        arrivals).

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
                times[position, : len(arrivals)], rows[position, : len(arrivals)] = zip(
                    *arrivals, strict=True
                )
        return times, rows

    def _shifts(self, place: int, shifts: np.ndarray) -> list[tuple[int, int]]:
        """(tap, output place) that an input place meets along one direction."""
        out = place + self.padding - shifts
        meets = (out % self.stride == 0) & (out >= 0) & (out < self.out_side * self.stride)
        return [
            (int(tap), int(at) // self.stride)
            for tap, at in zip(shifts[meets], out[meets], strict=True)
        ]

    def rows(self) -> np.ndarray:
        """The kernel as (rows, channels)."""
        return self.kernel.reshape(len(self.kernel), -1).T


@dataclass(frozen=True, kw_only=True)
class Layers(_Saved):
    """One batch for layers of a size that people train: events onto up to three layers of neurons,
    the first of which may feed back into itself, or through two convolutions with a pool between.

    Of matrices the time of the first spike of each output counts, t_end where there is none; of
    kernels the times of all spikes of the last layer, each weighed by its slope.

    Attributes:
        input_times, input_channels: (batch, events), in order.
        weights1, weights2, weights3: (inputs, neurons), or kernels (channels out, channels in,
            taps, taps); (0, 0) for none.
        feedback_weights: (N, N) of the first layer, or (0, 0).
        once: hidden neurons stop after their first spike.
        max_spikes: of a neuron of any hidden layer, or of the two layers behind kernels.
        room: most events of all neurons of the first layer; 0: any.
    """

    input_times: np.ndarray
    input_channels: np.ndarray
    weights1: np.ndarray
    weights2: np.ndarray
    weights3: np.ndarray
    feedback_weights: np.ndarray
    once: bool
    max_spikes: int
    room: int = 0
    t_end: float = 100.0
    feedback: ClassVar[str] = "feedback_weights"

    @property
    def stages(self) -> tuple[Stage, ...]:
        if self.convolves:
            return Stage("weights1", padding=self.weights1.shape[-1] // 2), Stage(
                "weights2", pool=2
            )
        names = ("weights1", "weights2", "weights3")
        return tuple(Stage(name) for name in names if getattr(self, name).size)

    @property
    def convolves(self) -> bool:
        """Whether weights are kernels."""
        return self.weights1.ndim == 4

    @property
    def recurrent(self) -> bool:
        """Whether the first layer feeds back into itself."""
        return self.feedback_weights.size > 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the inputs."""
        return (2, SIDE, SIDE) if self.convolves else (len(self.weights1),)

    @property
    def max_arrivals(self) -> tuple[int, int]:
        """Largest number of arrivals at a position of each layer behind a kernel."""
        return 160, 1300

    def raster(self) -> np.ndarray:
        """Input spikes for the libraries that step, (steps, batch, *shape)."""
        found = self.binned(self.input_times, self.input_channels, int(np.prod(self.shape)))
        return found.reshape(*found.shape[:2], *self.shape)

    def alone(self) -> "Layers":
        """The first sample."""
        first = {name: getattr(self, name)[:1] for name in ("input_times", "input_channels")}
        return dataclasses.replace(self, **first)


@dataclass(frozen=True, kw_only=True)
class NeuronWork(_Saved):
    """One batch of a network of two layers of a neuron model, without feedback.

    The time of the first spike of each output counts: the gradient is that of their sum over
    outputs and samples.

    Attributes:
        model: a key of NEURON_MODELS.
        input_times: (batch, inputs): each input has one spike.
        hidden_weights: (inputs, N). output_weights: (N, outputs).
        max_spikes: largest number of spikes of a hidden neuron in a sample; hidden_events: of all
            of them.
    """

    model: str
    input_times: np.ndarray
    hidden_weights: np.ndarray
    output_weights: np.ndarray
    max_spikes: int = 0
    hidden_events: int = 0


def load(path: Path) -> Any:
    """A saved piece of work."""
    with np.load(path) as arrays:
        values = {name: array if array.ndim else array.item() for name, array in arrays.items()}
    records = {record.__name__: record for record in (Work, Convolution, Layers, NeuronWork)}
    return records[values.pop("record")](**values)
