"""Random time constants and populations of every `TauShape`."""

import numpy as np

from jaxsnn.network.structure import TauShape

SHAPES = list(TauShape)
NEAR_ONE = np.array([0.0, 1e-9, -1e-9, 1e-6, -1e-6, 1e-3, -1e-3, 0.03, -0.03])


def ratios(shape, rng, count):
    """tau_mem / tau_syn from 0.05 to 20 as the shape allows; nearly 1 in a half of those of
    TauShape.ANY.
    """
    fixed = {TauShape.DOUBLE: 2.0, TauShape.HALF: 0.5, TauShape.EQUAL: 1.0}
    if shape in fixed:
        return np.full(count, fixed[shape])
    apart = np.exp(rng.uniform(np.log(1.15), np.log(20.0), count) * rng.choice([-1, 1], count))
    if shape is TauShape.APART:
        return apart
    return np.where(rng.random(count) < 0.5, apart, 1 + rng.choice(NEAR_ONE, count))


def population(shape, rng, neurons, *, uniform=False):
    """NIR's parameters of some neurons with time constants around 1: names -> (neurons,)."""
    tau_syn = rng.uniform(0.5, 1.5, neurons)
    tau_mem = np.clip(ratios(shape, rng, neurons), 0.2, 5.0) * tau_syn
    if uniform:
        tau_mem, tau_syn = np.full(neurons, tau_mem[0]), np.full(neurons, tau_syn[0])
    return {
        "tau_mem": tau_mem,
        "tau_syn": tau_syn,
        "r": rng.uniform(0.5, 1.5, neurons),
        "w_in": rng.uniform(0.5, 1.5, neurons),
        "v_leak": rng.normal(0, 0.3, neurons),
        "v_threshold": rng.uniform(0.8, 1.2, neurons),
        "v_reset": rng.normal(-0.2, 0.2, neurons),
    }


def similar_neurons(rng, size):
    """Parameters of CubaLIF neurons that differ a little, tau_mem about twice tau_syn."""
    drawn = {name: rng.uniform(0.9, 1.1, size) for name in ("r", "w_in", "v_threshold")}
    drawn |= {"tau_mem": rng.uniform(1.5, 2.5, size), "tau_syn": rng.uniform(0.8, 1.2, size)}
    return drawn | {
        "v_leak": rng.uniform(-0.1, 0.1, size),
        "v_reset": rng.uniform(-0.2, 0.2, size),
    }
