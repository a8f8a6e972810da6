"""Which gradients are asked for: JAX keeps what it has traced, and a gradient must not depend on which
others were asked for before.
"""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import EventDriven, Events, lower, simulate
from jaxsnn.event.adjoint.required_gradients import RequiredGradients
from jaxsnn.nir import build
from tests.helpers.transformed import CHANNELS, CUBA, T_END, input_arrays, matrix, recurrent_network

SAMPLED = jnp.linspace(0.1, 0.9, 5) * T_END


def layers():
    """Two populations that fire, one behind the other, and a readout."""
    neurons = build.cubalif(**CUBA)
    hidden = matrix(0, 6, CHANNELS, 3, 1), neurons, matrix(2, 3, 6, 2, 1), neurons
    readout = matrix(3, 2, 3, 1, 1), build.cubali(**CUBA)
    return lower(build.sequential(build.input(CHANNELS), *hidden, *readout))


def behind_a_convolution():
    """A convolution before a population that fires, and a readout."""
    kernel = np.random.default_rng(1).normal(2.0, 0.5, (3, 1, 2, 2))
    plain = {"stride": 1, "dilation": 1, "groups": 1, "padding": 0}
    layers = (
        build.node("Conv2d", weight=kernel, bias=np.zeros(3), **plain),
        build.cubalif(**CUBA),
        build.node("Flatten", start_dim=0, end_dim=-1),
        matrix(3, 2, 3, 1, 1),
        build.cubali(**CUBA),
    )
    return lower(build.sequential(build.input((1, 2, 2)), *layers))


def solved(network, backend, arguments):
    """A run with some arguments of its own: a parameter by node and name, times, sample times."""
    time, index = input_arrays()
    node, name = arguments.get("of", ("", ""))
    parameters = dict(network.parameters)
    if node:
        parameters[node] = {**parameters[node], name: arguments["parameter"]}
    return simulate(
        network.with_parameters(parameters),
        Events(time=arguments.get("time", time), index=index),
        T_END,
        engine=EventDriven(max_spikes=8, backend=backend),
        sample_times=arguments.get("sampled", SAMPLED),
        throw=False,
    )


def by_voltages(solution):
    return sum(jnp.sum(v**2) for v in solution.voltages.values())


def by_integrals(solution):
    return sum(jnp.sum(solution.integral(name)) / T_END for name in solution.voltages)


def gradient(network, backend, functional, key, of):
    """By what is called `key`, a parameter of a node and name."""
    time, _ = input_arrays()
    node, name = of
    begin = {"time": time, "sampled": SAMPLED, "parameter": network.parameters[node][name]}[key]

    def value(argument):
        arguments = {key: argument} | ({"of": of} if key == "parameter" else {})
        return functional(solved(network, backend, arguments))

    return np.asarray(jax.grad(value)(begin))


def last_voltages(solution):
    return sum(jnp.sum(v[:, -2:]) for v in solution.voltages.values())


#: Variable of a derivative -> function that is differentiated.
WAYS = {"times": by_integrals, "time constants": by_integrals, "sample times": last_voltages}
MAKERS = {"layers": layers, "group": recurrent_network, "convolution": behind_a_convolution}
QUICK = [("layers", "times", "native"), ("layers", "times", "xla"), ("group", "times", "native")]
QUICK += [("convolution", name, "native") for name in WAYS]
OTHERS = [
    pytest.param(*case, marks=pytest.mark.slow)
    for case in product(MAKERS, WAYS, ("native", "xla"))
    if case not in QUICK
]


@pytest.mark.parametrize(("make", "measure", "backend"), [*QUICK, *OTHERS])
def test_a_gradient_does_not_depend_on_those_before_it(make, measure, backend, request):
    if backend == "native":
        request.getfixturevalue("native_kernels")
    network, functional = MAKERS[make](), WAYS[measure]
    named = {"times": "time", "sample times": "sampled"}.get(measure, "parameter")
    last = next(reversed(network.outputs["output"]))
    first = next(name for name, parameters in network.parameters.items() if "weight" in parameters)
    of = partial(gradient, network, backend)
    jax.clear_caches()
    expected = of(functional, named, (last, "tau_mem"))
    jax.clear_caches()
    of(by_voltages, named, (last, "tau_mem"))
    of(by_voltages, "parameter", (first, "weight"))
    after_others = of(functional, named, (last, "tau_mem"))
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(
        after_others, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max()
    )


def test_requested_gradients_reach_the_backward_pass():
    for request in (
        RequiredGradients(),
        RequiredGradients(constants=False, taus=False),
        RequiredGradients(time=False, samples=True),
    ):
        assert RequiredGradients.by(request.gradient_flags) == request
    trees = {
        jax.tree.structure(requested.gradient_flags)
        for requested in (RequiredGradients(), RequiredGradients(time=False))
    }
    assert len(trees) == 1
