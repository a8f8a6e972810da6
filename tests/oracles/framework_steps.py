"""One time step of neurons of several frameworks, each as its source computes it.

A rule takes p, the numbers of a population by NIR's names, what it remembers, x, what arrives, and
dt; it gives what it remembers, and the spikes.
"""

import numpy as np


def several(v, threshold):
    """How often V reaches the threshold."""
    return np.maximum(0, np.floor(v / threshold))


def rockpool(p, i, v, x, dt):
    """LIFTorch: several spikes a step, at equality too, subtracted."""
    i = (i + x) * np.exp(-dt / p["tau_syn"])
    v = v * np.exp(-dt / p["tau_mem"]) + i
    spikes = several(v, p["v_threshold"])
    return i, v - spikes * p["v_threshold"], spikes


def spikingjelly(p, i, v, x, dt):
    """CUBALIFNode: hard reset in the same step, at equality too."""
    i = (1 - 1 / p["w_in"]) * i + x
    v = (1 - 1 / p["r"]) * v + i
    spikes = (v >= p["v_threshold"]).astype(float)
    return i, np.where(spikes > 0, p["v_reset"], v), spikes


def spyx_recurrent(p, i, v, x, feedback, dt):
    """RCuBaLIF: the spike of the membrane before the step feeds back in this step; V loses it
    before it decays. `feedback` makes a current of spikes.
    """
    spikes = (v > p["v_threshold"]).astype(float)
    i = (1 - dt / p["tau_syn"]) * i + (x + feedback(spikes))
    v = p["r"] * (v - spikes * p["v_threshold"]) + i
    return i, v, spikes


def sinabs(p, v, x, reset):
    """IAF: several spikes a step, subtracted, or V goes to 0."""
    v = v + x
    spikes = several(v, p["v_threshold"])
    v = v - spikes * p["v_threshold"] if reset == "subtract" else np.where(spikes > 0, 0.0, v)
    return v, spikes


def norse_box(v, x, rate, threshold):
    """LIFBoxCell that leaks to 0, in float32: `rate` is dt/tau_mem; V goes to 0."""
    v = v + np.float32(rate) * (x - v)
    spikes = (v > threshold).astype(np.float32)
    return v * (1 - spikes), spikes


def layers(parts, x, rule, starts, dt):
    """Spikes (steps, batch, neurons) of a chain of current-based layers, for x (steps, batch,
    channels).

    Args:
        parts: (weight, bias, p) of each layer.
        rule: `rockpool` or `spikingjelly`.
        starts: V of each layer before the first step.
    """
    states: list = [(0.0, start) for start in starts]
    spikes = []
    for frame in x:
        signal = frame
        for number, (weight, bias, p) in enumerate(parts):
            *state, signal = rule(p, *states[number], signal @ weight.T + bias, dt)
            states[number] = tuple(state)
        spikes.append(signal)
    return np.stack(spikes)
