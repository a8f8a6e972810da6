"""The work that every library is given, and what it must come to, by brute force in float64.

A feed-forward network 5-N-3 of current-based LIF neurons with tau_mem = 2 tau_syn; every neuron
fires exactly once in every sample. Times are in units of tau_syn, a spike of weight w makes the
synaptic current jump by w_in w AREA / tau_syn, and tau_mem V' = v_leak - V + r I.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

INPUTS, OUTPUTS, BATCH = 5, 3, 64
AREA = 1.0  # of a spike: with tau_syn = 1 and w_in = 1 the current jumps by the weight
SEED = 0
STEP = 4e-3  # of the grid on which the reference looks for crossings


@dataclass(frozen=True, kw_only=True)
class Work:
    """One batch of work.

    input_times: batch x 5, sorted along the last axis in no way. hidden_weights: 5 x N.
    output_weights: N x 3. The neuron parameters hold for both layers. t_end: the end of the trial.
    """

    input_times: np.ndarray
    hidden_weights: np.ndarray
    output_weights: np.ndarray
    tau_mem: float = 2.0
    tau_syn: float = 1.0
    v_threshold: float = 1.0
    v_leak: float = 0.0
    r: float = 1.0
    w_in: float = 1.0
    t_end: float = 4.0

    def save(self, path: Path) -> None:
        np.savez(path, **dataclasses.asdict(self))

    @classmethod
    def load(cls, path: Path) -> "Work":
        with np.load(path) as arrays:
            return cls(**{name: a if a.ndim else a.item() for name, a in arrays.items()})


PARAMETERS = ("tau_mem", "tau_syn", "v_threshold", "v_leak", "r", "w_in")


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Output spike times (batch x 3), and the gradients of their sum."""

    output_times: np.ndarray
    hidden_weights: np.ndarray
    output_weights: np.ndarray
    input_times: np.ndarray
    parameters: dict[str, float]


def kernel(work: Work, t: np.ndarray) -> np.ndarray:
    """The potential at time t after a spike of weight 1."""
    t = np.maximum(t, 0.0)
    scale = work.r * work.w_in * AREA / (work.tau_mem - work.tau_syn)
    return scale * (np.exp(-t / work.tau_mem) - np.exp(-t / work.tau_syn))


def kernel_slope(work: Work, t: np.ndarray) -> np.ndarray:
    """The derivative of `kernel` with respect to time."""
    scale = work.r * work.w_in * AREA / (work.tau_mem - work.tau_syn)
    slope = np.exp(-t / work.tau_syn) / work.tau_syn - np.exp(-t / work.tau_mem) / work.tau_mem
    return np.where(t > 0, scale * slope, 0.0)


def potential(work: Work, arrivals: np.ndarray, weights: np.ndarray, t: np.ndarray) -> np.ndarray:
    """V of every neuron (neurons), each at its own time t (neurons), for one sample."""
    leak = work.v_leak * (1 - np.exp(-t / work.tau_mem))
    return leak + (kernel(work, t - arrivals[:, None]) * weights).sum(0)


def first_spikes(work: Work, arrivals: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """First crossing of every neuron (neurons) in one sample; inf if there is none.

    arrivals: the layer's spike times (inputs); weights: inputs x neurons. A dense grid brackets
    the first crossing, bisection finds it.
    """
    grid = np.arange(0.0, work.t_end, STEP)
    leak = work.v_leak * (1 - np.exp(-grid / work.tau_mem))
    above = leak[:, None] + kernel(work, grid[:, None] - arrivals) @ weights >= work.v_threshold
    late = grid[above.argmax(0)]
    early = late - STEP
    for _ in range(50):
        middle = (early + late) / 2
        crossed = potential(work, arrivals, weights, middle) >= work.v_threshold
        early, late = np.where(crossed, early, middle), np.where(crossed, middle, late)
    return np.where(above.any(0), late, np.inf)


def output_times(work: Work) -> np.ndarray:
    """Output spike times, batch x 3."""
    return np.array(
        [
            first_spikes(work, first_spikes(work, times, work.hidden_weights), work.output_weights)
            for times in work.input_times
        ]
    )


def layer_gradient(
    work: Work, arrivals: np.ndarray, weights: np.ndarray, times: np.ndarray, cotangent: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pulls a cotangent of a layer's spike times back to its weights and its arrivals.

    The implicit function theorem at V(t) = v_threshold: dt = -(dV at fixed t) / V'(t).
    """
    delays = times - arrivals[:, None]
    slopes = kernel_slope(work, delays) * weights
    leak_slope = work.v_leak * np.exp(-times / work.tau_mem) / work.tau_mem
    scaled = cotangent / (slopes.sum(0) + leak_slope)
    return -kernel(work, delays) * scaled, (slopes * scaled).sum(1)


def reference(work: Work, *, parameters: bool) -> Reference:
    """Times and gradients of one batch; those of the neuron parameters by central differences."""
    hidden_gradient = np.zeros_like(work.hidden_weights)
    output_gradient = np.zeros_like(work.output_weights)
    input_gradient = np.zeros_like(work.input_times)
    outputs = np.zeros((len(work.input_times), OUTPUTS))
    for sample, inputs in enumerate(work.input_times):
        hidden = first_spikes(work, inputs, work.hidden_weights)
        outputs[sample] = first_spikes(work, hidden, work.output_weights)
        d_weights, d_hidden = layer_gradient(work, hidden, work.output_weights, outputs[sample], np.ones(OUTPUTS))
        output_gradient += d_weights
        d_weights, d_inputs = layer_gradient(work, inputs, work.hidden_weights, hidden, d_hidden)
        hidden_gradient += d_weights
        input_gradient[sample] = d_inputs
    return Reference(
        output_times=outputs,
        hidden_weights=hidden_gradient,
        output_weights=output_gradient,
        input_times=input_gradient,
        parameters={name: parameter_gradient(work, name) for name in PARAMETERS} if parameters else {},
    )


def parameter_gradient(work: Work, name: str, step: float = 1e-5) -> float:
    """Gradient with respect to one neuron parameter that all neurons share."""

    def total(change: float) -> float:
        changed = dataclasses.replace(work, **{name: getattr(work, name) + change})
        return output_times(changed).sum()

    return float((total(step) - total(-step)) / (2 * step))


def feed_forward(hidden: int) -> Work:
    """Random work for N hidden neurons. A neuron that would stay silent is drawn again."""
    rng = np.random.default_rng(SEED)
    x, y = rng.random((2, BATCH, 1))
    inputs = np.concatenate([2 * x, 2 * y, 2 - 2 * x, 2 - 2 * y, np.zeros((BATCH, 1))], axis=1)
    work = Work(
        input_times=inputs,
        hidden_weights=rng.normal(3.0, 1.6, (INPUTS, hidden)),
        output_weights=rng.normal(10.0, 10.0, (hidden, OUTPUTS)) / hidden,
    )
    while (silent := silent_neurons(work)).any():
        weights = work.hidden_weights.copy()
        weights[:, silent] = rng.normal(3.0, 1.6, (INPUTS, silent.sum()))
        work = dataclasses.replace(work, hidden_weights=weights)
    if not np.isfinite(output_times(work)).all():
        raise ValueError(f"with {hidden} hidden neurons an output stays silent: change the weights")
    return work


def silent_neurons(work: Work) -> np.ndarray:
    """Which hidden neurons fail to fire in some sample (a mask)."""
    times = [first_spikes(work, inputs, work.hidden_weights) for inputs in work.input_times]
    return np.max(times, axis=0) == np.inf
