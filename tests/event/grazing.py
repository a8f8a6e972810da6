"""Membranes whose maximum lies just above or below the threshold, inside an interval.

After an arrival of weight w at time 0, v' = (j - v) / tau_mem and j' = -j / tau_syn with
tau_mem = 2 tau_syn = 0.02 yield v = w (u - u^2), u = exp(-t / tau_mem). The maximum is w / 4.
"""

import jax.numpy as jnp
import numpy as np

TAU_MEM, TAU_SYN, T_END = 0.02, 0.01, 0.1
WEIGHTS = np.array([[4.0], [0.0]])
#: Threshold of each neuron, below and above the maximum.
MARGINS = np.array([*(10.0 ** -np.arange(3, 11)), *(-(10.0 ** -np.arange(3, 11)))])
THRESHOLD = 1 - MARGINS


def grazing_arrivals(seed, samples=50):
    """Arrival times and rows: one arrival of the weight 4, and two of weight 0 around the maximum."""
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 0.01, (samples, 1))
    maximum = start + TAU_MEM * np.log(2)
    idle = maximum + rng.normal(0, 0.1, (samples, 2)) * TAU_MEM
    time = np.concatenate([start, np.maximum(idle, start)], axis=1)
    return jnp.asarray(time), jnp.asarray(np.broadcast_to([0, 1, 1], time.shape))


def assert_grazed(spikes, time):
    """Neurons fire once if their threshold lies below the maximum, at the time of the crossing."""
    reached = MARGINS > 0
    assert (np.asarray(spikes.count) == reached).all()
    expected = time[:, :1] - TAU_MEM * np.log((1 + np.sqrt(MARGINS[reached])) / 2)
    np.testing.assert_allclose(spikes.time[:, reached, 0], expected, rtol=0, atol=1e-9)
