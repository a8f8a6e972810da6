"""What a loss reads in time steps: the mean over time of a membrane, values of other nodes, and sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import TimeStepped, lower, simulate
from jaxsnn.nir import build
from jaxsnn.train import MeanOverTime

DT = 1e-3
SNNTORCH = {"dialect": "snntorch", "reset": "subtract", "reset_delay": True, "dt": DT}


def leaky(beta=0.8):
    """snnTorch's Leaky."""
    return build.lif(tau=DT / (1 - beta), r=1 / (1 - beta))


def test_the_mean_over_time_steps_is_that_of_the_recursion(x64):
    """V = beta V + w x without a reset; the gradient of the loss against central differences."""
    weight = np.array([[0.4, -0.2], [0.1, 0.3], [0.2, 0.5]])
    layers = (build.input(2), build.linear(3, weight=weight), leaky(beta=0.8))
    graph = build.sequential(*layers, readout=["2"], **SNNTORCH)
    network = lower(graph, dtype=np.float64)
    x = np.random.default_rng(0).uniform(0, 1, (6, 4, 2))
    v, steps = np.zeros((4, 3)), []
    for frame in x:
        v = 0.8 * v + frame @ weight.T
        steps.append(v)
    expected = np.mean(steps, axis=0)
    solution = simulate(network, x, engine=TimeStepped())
    np.testing.assert_allclose(solution.mean("2"), expected, rtol=1e-6)
    loss, labels = MeanOverTime(population="2", tau=DT, t_max=6 * DT), jnp.array([0, 1, 2, 0])
    assert loss.predict(solution).tolist() == expected.argmax(axis=1).tolist()

    def total(weight):
        moved = network.with_parameters({**network.parameters, "1": {"weight": weight}})
        run = simulate(moved, x, engine=TimeStepped(), throw=False)
        return jnp.sum(loss(run, labels))

    gradient, step = jax.jit(jax.grad(total))(jnp.asarray(weight)), 1e-6
    value = jax.jit(total)
    for place in np.ndindex(weight.shape):
        above, below = (value(jnp.asarray(weight).at[place].add(move)) for move in (step, -step))
        assert gradient[place] == pytest.approx(float(above - below) / (2 * step), rel=1e-6)
