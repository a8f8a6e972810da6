"""Maxima and integrals of readouts: against dense sampling, and their gradients against central
differences.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.event.event_driven import EventDriven
from jaxsnn.network.network import Network
from jaxsnn.network.spikes import Events
from jaxsnn.network.structure import Population, TauShape, Wire
from jaxsnn.simulation.simulate import simulate
from tests.event.cases import population
from tests.event.differences import ENOUGH, relative_errors
from tests.helpers.random_spikes import random_events

INPUTS, ARRIVALS, SAMPLES, NEURONS, T_END = 4, 8, 2, 4, 6.0

pytestmark = pytest.mark.usefixtures("x64")

#: Type, spike kernel, time constants.
CASES = [
    ("CubaLI", "delta", TauShape.DOUBLE),
    ("CubaLI", "delta", TauShape.ANY),
    ("CubaLI", "delta", TauShape.APART),
    ("CubaLI", "box", TauShape.ANY),
    ("LI", "delta", TauShape.ANY),
    ("LI", "box", TauShape.ANY),
    ("I", "delta", TauShape.ANY),
    ("I", "box", TauShape.ANY),
]
NAMES = {
    "CubaLI": ("tau_mem", "tau_syn", "r", "w_in", "v_leak"),
    "LI": ("tau_mem", "r", "v_leak"),
    "I": ("r",),
}
TAUS = (None, 1.7)


def drawn(kind, kernel, shape, seed=0):
    """An input, an Affine node and a readout; arrivals with an unused slot, and one after the end."""
    rng = np.random.default_rng([seed, *map(ord, kind + kernel)])
    drawn = population(shape, rng, NEURONS)
    parameters = {
        "affine": {
            "weight": rng.normal(0.3, 1.0, (NEURONS, INPUTS)),
            "bias": rng.normal(0.1, 0.3, NEURONS),
        },
        "readout": {
            "tau" if (kind, name) == ("LI", "tau_mem") else name: drawn[name]
            for name in NAMES[kind]
        },
    }
    wires = [
        Wire(name="input", kind="input", sources=(), shape=(INPUTS,)),
        Wire(name="affine", kind="Affine", sources=("input",), shape=(NEURONS,)),
        Wire(name="readout", kind="neuron", sources=("affine",), shape=(NEURONS,)),
    ]
    readout = Population(
        name="readout",
        kind=kind,
        size=NEURONS,
        tau_shape=shape,
        spike_area=0.7,
        spike_kernel=kernel,
        dt=0.11,
    )
    net = Network(
        parameters=jax.tree.map(jnp.asarray, parameters),
        wires=wires,
        populations={"readout": readout},
    )
    shape = (SAMPLES, ARRIVALS)
    times, index = random_events(rng, shape, INPUTS, 5.0, unused=[(0, 2), (1, 2)])
    times[0, 4] = 7.0  # after the end
    return net, jnp.asarray(times), jnp.asarray(index)


def ran(net, times, index, sample_times=None):
    return simulate(
        net, Events(time=times, index=index), T_END, sample_times=sample_times, throw=False
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_agree_with_dense_sampling(case):
    net, times, index = drawn(*case)
    edges = [times, times + 0.11, times - 1e-9]
    dense = np.unique(
        np.concatenate([np.linspace(0, T_END, 8001), *(np.asarray(edge).ravel() for edge in edges)])
    )
    dense = dense[(dense >= 0) & (dense <= T_END)]
    solution = ran(net, times, index, jnp.asarray(dense))
    v = np.asarray(solution.voltages["readout"])
    np.testing.assert_allclose(solution.maximum("readout"), v.max(axis=1), atol=1e-7)
    for tau in TAUS:
        weighted = v if tau is None else v * np.exp(-dense / tau)[:, None]
        expected = np.trapezoid(weighted, dense, axis=1)
        np.testing.assert_allclose(solution.integral("readout", tau), expected, atol=1e-5)
    mean = np.trapezoid(v, dense, axis=1) / T_END
    np.testing.assert_allclose(solution.mean("readout"), mean, atol=1e-5)


def numbers(variables, index, weights):
    net, times = variables
    solution = ran(net, times, index)
    parts = [solution.maximum("readout"), *(solution.integral("readout", tau) for tau in TAUS)]
    return sum(jnp.sum(part * weight) for part, weight in zip(parts, weights, strict=True)), 0


#: Quick cases, since each takes seconds to compile: one with a smooth maximum, and one with jumps.
QUICK = (CASES[1], CASES[4])


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=() if c in QUICK else pytest.mark.slow) for c in CASES], ids=str
)
def test_gradients_agree_with_central_differences(case):
    net, times, index = drawn(*case)
    variables = net.with_free_time_constants(), times
    weights = np.random.default_rng(7).normal(size=(3, SAMPLES, NEURONS))
    gradient = jax.jit(jax.grad(numbers, has_aux=True))(variables, index, weights)[0]
    error = relative_errors(gradient, numbers, variables, index, weights)
    assert np.isfinite(error).all()
    assert error.max() < ENOUGH


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=() if c == CASES[3] else pytest.mark.slow) for c in CASES],
    ids=str,
)
def test_neurons_with_the_same_time_constants_get_gradients_of_their_own(case):
    """What is computed once for all of a population is what each neuron would have computed for
    itself.
    """
    net, times, index = drawn(*case)
    shared_taus = {
        key: values[:1].repeat(NEURONS)
        for key, values in net.parameters["readout"].items()
        if "tau" in key
    }
    net = net.with_parameters(net.parameters | {"readout": net.parameters["readout"] | shared_taus})
    free = net.with_free_time_constants()
    together = {"readout": replace(free.populations["readout"], uniform=True)}
    weights = np.random.default_rng(7).normal(size=(3, SAMPLES, NEURONS))
    gradient = jax.jit(jax.grad(numbers, has_aux=True))
    uniform = Network(parameters=free.parameters, wires=free.wires, populations=together)
    once = gradient((uniform, times), index, weights)[0]
    separate = gradient((free, times), index, weights)[0]
    for slope, expected in zip(jax.tree.leaves(once), jax.tree.leaves(separate), strict=True):
        np.testing.assert_allclose(slope, expected, rtol=1e-11, atol=1e-13)


def test_half_of_a_maximum_s_gradient_comes_from_the_arrival_it_sits_at():
    """A kink is where the maximum is: an excitatory arrival's V still rises when an inhibitory one
    comes.
    """
    net, *_ = drawn("CubaLI", "delta", TauShape.DOUBLE)
    weight = jnp.asarray(np.array([[1.0], [-3.0], [0.0], [0.0]]).repeat(NEURONS, 1).T)
    parameters = net.parameters | {"affine": {"weight": weight, "bias": jnp.zeros(NEURONS)}}
    net = net.with_parameters(
        parameters | {"readout": net.parameters["readout"] | {"v_leak": jnp.zeros(NEURONS)}}
    )
    index = jnp.asarray([[0, 1]])

    @jax.jit
    def highest(times):
        return jnp.sum(ran(net, times, index).maximum("readout"))

    times = jnp.asarray([[1.0, 1.2]])
    gradient = jax.grad(highest)(times)[0]
    step = 1e-6 * np.eye(2)
    differences = [(highest(times + move) - highest(times - move)) / 2e-6 for move in step]
    np.testing.assert_allclose(gradient, differences, rtol=1e-6)
    assert gradient[1] > 0.1
    np.testing.assert_allclose(gradient[0], -gradient[1], rtol=1e-9)  # only the interval matters


def test_a_maximum_at_the_end_moves_with_the_end():
    """While V rises it is largest at the end; once it has turned, the end does not matter."""
    net, *_ = drawn("CubaLI", "delta", TauShape.DOUBLE)
    events = Events(time=jnp.asarray([[1.0]]), index=jnp.asarray([[0]]))

    @jax.jit
    def highest(end):
        return simulate(net, events, end, throw=False).maximum("readout")[0]

    by_end = jax.jit(jax.jacrev(highest))
    ends = np.array([1.1, 1.3, 4.5])
    slopes = np.array([by_end(end) for end in ends])
    differences = np.array([(highest(end + 1e-6) - highest(end - 1e-6)) / 2e-6 for end in ends])
    np.testing.assert_allclose(slopes, differences, atol=1e-7)
    assert (slopes[0] > 0.01).any()
    assert (slopes == 0).any()


def test_a_silent_population_s_maximum_is_that_of_its_membrane():
    """Without spikes the drive of a population that fires gives its own voltage."""
    net, times, index = drawn("CubaLI", "delta", TauShape.DOUBLE)
    firing_parameters = net.parameters["readout"] | {
        "v_threshold": jnp.full(NEURONS, 50.0),
        "v_reset": jnp.zeros(NEURONS),
    }
    firing = Network(
        parameters=net.parameters | {"readout": firing_parameters},
        wires=net.wires,
        populations={
            "readout": Population(name="readout", kind="CubaLIF", size=NEURONS, spike_area=0.7)
        },
    )
    solution = simulate(
        firing,
        Events(time=times, index=index),
        T_END,
        engine=EventDriven(max_spikes=1),
        throw=False,
    )
    assert int(solution.spikes["readout"].count.sum()) == 0
    np.testing.assert_allclose(
        solution.maximum("readout"), ran(net, times, index).maximum("readout"), rtol=1e-12
    )
