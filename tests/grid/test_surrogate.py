"""Surrogate gradients: their formulas, and a whole network against a plain NumPy backpropagation."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import nir
import numpy as np
import pytest

from jaxsnn import ArcTan, FastSigmoid, Sigmoid, StraightThrough, TimeStepped, lower, simulate
from jaxsnn.grid.surrogate import spike, spike_count
from jaxsnn.nir import parse
from tests.oracles import snntorch_backpropagation

U = np.linspace(-1.3, 1.1, 41)


@pytest.mark.parametrize(
    ("surrogate", "smooth"),
    [
        (FastSigmoid(slope=7.0), lambda u: u / (1 + 7.0 * np.abs(u))),
        (ArcTan(alpha=3.0), lambda u: np.arctan(np.pi / 2 * 3.0 * u) / np.pi),
        (Sigmoid(slope=4.0), lambda u: 1 / (1 + np.exp(-4.0 * u))),
        (StraightThrough(), lambda u: u),
    ],
)
def test_a_surrogate_is_the_derivative_of_something_smooth(surrogate, smooth, x64):
    h = 1e-6
    numeric = (smooth(U + h) - smooth(U - h)) / (2 * h)
    np.testing.assert_allclose(surrogate.derivative(jnp.asarray(U)), numeric, rtol=1e-6)
    slope = jax.vmap(jax.grad(lambda u: 3 * spike(u, surrogate, False)))(jnp.asarray(U))
    np.testing.assert_allclose(slope, 3 * numeric, rtol=1e-6)


def test_sigmoid_is_finite_far_from_the_threshold():
    assert Sigmoid(slope=25.0).derivative(jnp.float32([-100, 100])).tolist() == [0, 0]


def test_equality_counts_where_the_framework_says_so():
    u = jnp.asarray([-0.1, 0.0, 0.1])
    assert spike(u, FastSigmoid(), False).tolist() == [0, 0, 1]
    assert spike(u, FastSigmoid(), True).tolist() == [0, 1, 1]


def test_several_spikes_a_step(x64):
    v = jnp.asarray([-3.0, 0.4, 0.5, 0.9, 1.0, 2.6])
    assert spike_count(v, 0.5, FastSigmoid(), True).tolist() == [0, 0, 1, 1, 2, 5]
    assert spike_count(v, 0.5, FastSigmoid(), False).tolist() == [0, 0, 0, 1, 1, 5]
    by_v = jax.vmap(jax.grad(spike_count), in_axes=(0, None, None, None))(
        v, 0.5, FastSigmoid(slope=4.0), True
    )
    nearest = np.array([0.5, 0.5, 0.5, 1.0, 1.0, 2.5])
    np.testing.assert_allclose(by_v, 1 / (1 + 4 * np.abs(v - nearest)) ** 2)
    by_threshold = jax.grad(spike_count, argnums=1)(2.6, 0.5, FastSigmoid(slope=4.0), True)
    assert by_threshold == pytest.approx(-5 * by_v[-1])


BETA, STEPS, BATCH, SLOPE = 0.8, 12, 4, 5.0


def leaky_network(reset, dtype=float, reset_delay=True):
    rng = np.random.default_rng(0)
    nodes = {"input": nir.Input(np.array([3]))}
    for name, (outputs, inputs) in (("0", (6, 3)), ("2", (2, 6))):
        nodes[name] = nir.Affine(rng.normal(size=(outputs, inputs)), 0.2 * rng.normal(size=outputs))
        ones, r = np.ones(outputs), np.full(outputs, 1 / (1 - BETA))
        nodes[str(int(name) + 1)] = nir.LIF(
            tau=1e-4 * r, r=r, v_leak=0 * ones, v_threshold=0.7 * ones
        )
    nodes["output"] = nir.Output(np.array([2]))
    graph = nir.NIRGraph(nodes, list(itertools.pairwise(nodes)))
    return lower(
        parse(graph, dialect="snntorch", reset=reset, reset_delay=reset_delay), dtype=dtype
    )


def loss_of(network, x, weights=1.0, **options):
    """A weighted sum of the output's spikes, by the parameters."""
    engine = TimeStepped(**options)

    def loss(parameters):
        solution = simulate(network.with_parameters(parameters), x, engine=engine, throw=False)
        return jnp.sum(weights * solution.output())

    return loss


def random_inputs():
    rng = np.random.default_rng(1)
    return rng.normal(size=(STEPS, BATCH, 3)), rng.normal(size=(STEPS, BATCH, 2))


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("detach", [None, True, False])
def test_gradients_are_those_of_a_plain_backpropagation(reset, detach, x64):
    network, (x, weights) = leaky_network(reset), random_inputs()
    options = {"surrogate": FastSigmoid(slope=SLOPE), "detach_reset": detach}
    p = jax.tree.map(np.asarray, {name: dict(node) for name, node in network.parameters.items()})
    y = simulate(network, x, engine=TimeStepped(**options)).output()
    np.testing.assert_array_equal(y, snntorch_backpropagation.spikes(p, x, reset, BETA))
    assert 0.05 < y.mean() < 0.9
    slopes = jax.grad(loss_of(network, x, weights, **options))(network.parameters)
    expected = snntorch_backpropagation.gradient(
        p, x, weights, reset, beta=BETA, slope=SLOPE, detach=detach is not False
    )
    for name in ("0", "1", "2", "3"):
        for key in ("weight", "bias") if name in "02" else ("v_threshold",):
            assert np.abs(expected[name][key]).max() > 0
            np.testing.assert_allclose(
                slopes[name][key], expected[name][key], rtol=1e-9, atol=1e-12
            )


def test_a_recorded_membrane_changes_no_gradient(x64):
    network, (x, weights) = leaky_network("subtract", reset_delay=False), random_inputs()
    slopes = [
        jax.grad(loss_of(network, x, weights, surrogate=FastSigmoid(slope=SLOPE), record=record))(
            network.parameters
        )
        for record in ((), ("1", "3"))
    ]
    assert np.abs(slopes[0]["0"]["weight"]).max() > 0
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12), *slopes)


def test_jit_grad_and_vmap_compose():
    network = leaky_network("subtract", dtype=np.float32)
    x = np.random.default_rng(2).normal(size=(STEPS, BATCH, 3)).astype(np.float32)

    def loss(parameters, x):
        return loss_of(network, x, jnp.arange(1, 3) / STEPS)(parameters)

    batch = jax.grad(loss)(network.parameters, x)
    single = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 1)))(network.parameters, x[:, :, None])
    total = jax.tree.map(lambda parts: parts.sum(axis=0), single)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), batch, total)
    by_input = jax.grad(loss, argnums=1)(network.parameters, jnp.asarray(x))
    assert by_input.shape == x.shape
    assert np.abs(by_input).max() > 0


def test_gradients_of_silent_and_of_leakless_neurons_are_finite():
    network = leaky_network("subtract", dtype=np.float32)
    infinite = {"tau": jnp.full(6, jnp.inf), "r": jnp.full(6, jnp.inf)}
    parameters = {**network.parameters, "1": {**network.parameters["1"], **infinite}}
    slopes = jax.grad(loss_of(network, jnp.zeros((STEPS, 1, 3))))(parameters)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


def test_surrogate_gradients_learn():
    """A few steps of gradient descent on a count of spikes."""
    network = leaky_network("zero", dtype=np.float32)
    x = np.random.default_rng(3).normal(size=(STEPS, 32, 3)).astype(np.float32)
    target = (x.sum(axis=(0, 2)) > 0).astype(int)

    @jax.jit
    @jax.value_and_grad
    def loss(weights):
        trained = network.with_parameters({**network.parameters, **weights})
        counts = simulate(trained, x, engine=TimeStepped(), throw=False).output().sum(axis=0)
        return -jnp.mean(jax.nn.log_softmax(counts)[jnp.arange(32), target])

    weights = {name: network.parameters[name] for name in ("0", "2")}
    before, slopes = loss(weights)
    for _ in range(60):
        weights = jax.tree.map(lambda weight, slope: weight - 0.1 * slope, weights, slopes)
        after, slopes = loss(weights)
    assert after < 0.6 * before
