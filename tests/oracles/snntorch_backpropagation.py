"""Two layers of snnTorch's Leaky with reset_delay, and the surrogate gradient of what they fire, by
hand and backward in time.

Nodes are those of a chain "0" (weight, bias), "1" (v_threshold), "2", "3"; signals are (steps,
batch, neurons).
"""

import numpy as np

NAMES = (("0", "1"), ("2", "3"))


def spikes(p, x, reset, beta):
    """What the second layer fires; `reset` is "zero" or "subtract"."""
    return np.stack([signal for _, signal in _forward(p, x, reset, beta)])


def _forward(p, x, reset, beta):
    """Step by step (what enters, what fired before, V after) of each layer, and the output."""
    v = [np.zeros((x.shape[1], len(p[name]["bias"]))) for name, _ in NAMES]
    trace = []
    for frame in x:
        signal, now = frame, []
        for layer, (name, neuron) in enumerate(NAMES):
            threshold = p[neuron]["v_threshold"]
            old, entering = v[layer], signal
            fired = (old > threshold).astype(float)
            current = entering @ p[name]["weight"].T + p[name]["bias"]
            if reset == "zero":
                v[layer] = beta * (1 - fired) * old + current
            else:
                v[layer] = beta * old + current - fired * threshold
            signal = (v[layer] > threshold).astype(float)
            now.append((entering, fired, v[layer]))
        trace.append((now, signal))
    return trace


def gradient(p, x, weights, reset, *, beta, slope, detach):
    """Derivatives of sum(weights * spikes) by weights, biases and thresholds.

    Args:
        slope: of the fast sigmoid, whose derivative stands for that of a spike.
        detach: whether no gradient flows through the reset.
    """
    trace = _forward(p, x, reset, beta)
    gradients = {
        name: {key: np.zeros_like(value) for key, value in node.items()} for name, node in p.items()
    }
    later = [np.zeros_like(v) for _, _, v in trace[0][0]]  # by V at the start of the next step
    for step in reversed(range(len(x))):
        now, _ = trace[step]
        by_spikes = weights[step]
        for layer in (1, 0):
            name, neuron = NAMES[layer]
            threshold = p[neuron]["v_threshold"]
            entering, fired, v = now[layer]
            by_step = by_spikes / (1 + slope * np.abs(v - threshold)) ** 2
            by_v = later[layer] + by_step
            gradients[neuron]["v_threshold"] -= by_step.sum(axis=0)
            gradients[name]["weight"] += by_v.T @ entering
            gradients[name]["bias"] += by_v.sum(axis=0)
            old = trace[step - 1][0][layer][2] if step else np.zeros_like(v)
            old_slope = 1 / (1 + slope * np.abs(old - threshold)) ** 2
            if reset == "zero":
                later[layer] = by_v * beta * (1 - fired)
                by_reset = by_v * -beta * old
            else:
                later[layer] = by_v * beta
                gradients[neuron]["v_threshold"] -= (by_v * fired).sum(axis=0)
                by_reset = by_v * -threshold
            if not detach:
                later[layer] += by_reset * old_slope
                gradients[neuron]["v_threshold"] -= (by_reset * old_slope).sum(axis=0)
            by_spikes = by_v @ p[name]["weight"]
    return gradients
