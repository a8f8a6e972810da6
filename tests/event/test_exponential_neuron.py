"""The exponential integrate-and-fire neuron of docs/guide_neuron.md, outside the package, in networks."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsnn
from jaxsnn import EventDriven, Events, TimeStepped, lower, simulate
from jaxsnn.errors import LoweringError, SimulationError, UsageError
from jaxsnn.event.native import native_build
from jaxsnn.network import neuron_models
from jaxsnn.network.neuron_models import register_neuron
from jaxsnn.nir import build, register_node
from jaxsnn.nir.model import nodes
from tests.event.agreement import finite_times
from tests.event.differences import some_relative_errors
from tests.extending_page import defined_by
from tests.helpers.random_spikes import random_events
from tests.helpers.refusals import assert_refused
from tests.oracles import integrated_neuron

T_END, BATCH, CHANNELS, SIZE = 0.1, 2, 3, 2
PAGE = defined_by("A neuron model with nonlinear equations")
VALUES = {
    **{"tau_mem": 0.02, "tau_syn": 0.005, "sharpness": 0.2, "r": 1.0, "v_leak": 0.1},
    **{"v_rheobase": 1.0, "v_spike": 2.5, "v_reset": 0.05},
}
ENGINE = EventDriven(max_spikes=40)
pytestmark = pytest.mark.usefixtures("native_kernels")


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """The model and its node type, for the time of a test."""
    monkeypatch.setattr(neuron_models, "_REGISTERED", {})
    monkeypatch.setattr(nodes, "_REGISTERED", {}, raising=False)
    register_neuron(PAGE["EXPONENTIAL_MODEL"])
    register_node(PAGE["EXPONENTIAL_TRAITS"])


def drawn(seed=0, *, recurrent=False, behind=True, dt=None):
    """A graph of the model in front of CubaLIF neurons, input spikes, and the numbers."""
    rng = np.random.default_rng(seed)
    values = {name: value * rng.uniform(0.9, 1.1, SIZE) for name, value in VALUES.items()}
    weight, bias = rng.normal(0.02, 0.008, (SIZE, CHANNELS)), rng.uniform(0.0, 0.4, SIZE)
    layers = {
        "in": build.input(CHANNELS),
        "w": build.affine(weight=weight, bias=bias),
        "n": build.node("ExponentialLIF", **values),
    }
    edges = [("in", "w", "n")]
    if behind:
        layers["w2"] = build.linear(weight=np.full((SIZE, SIZE), 0.02))
        layers["last"] = build.cubalif(SIZE, tau_mem="20ms", tau_syn="5ms")
        edges.append(("n", "w2", "last", "out"))
    else:
        edges.append(("n", "out"))
    layers["out"] = build.output()
    if recurrent:
        layers["back"] = build.linear(weight=np.full((SIZE, SIZE), 1e-3))
        edges.append(("n", "back", "n"))
    graph = build.network(layers, edges, dialect="nir", time_unit="s", spike_kernel="delta", dt=dt)
    times, index = random_events(rng, (BATCH, 30), CHANNELS, 0.8 * T_END)
    return graph, Events(time=np.sort(times, axis=1), index=index), (values, weight, bias)


def test_it_fires_as_its_equations_say(x64):
    graph, events, (values, weight, bias) = drawn(behind=False)
    spikes = simulate(lower(graph, dtype=float), events, T_END, engine=ENGINE).spikes["n"]
    for sample, neuron in np.ndindex(BATCH, SIZE):
        p = {name: value[neuron] for name, value in values.items()}

        def rate(x, p=p, bias=p["r"] * bias[neuron]):
            upstroke = p["sharpness"] * np.exp((x[0] - p["v_rheobase"]) / p["sharpness"])
            v_rate = (p["v_leak"] - x[0] + upstroke + x[1] + bias) / p["tau_mem"]
            return v_rate, -x[1] / p["tau_syn"]

        arrivals = [
            (time, weight[neuron, channel] * p["r"] / p["tau_syn"])
            for time, channel in zip(events.time[sample], events.index[sample], strict=True)
        ]
        train, _ = integrated_neuron.spikes(
            rate,
            lambda x, p=p: x[0] - p["v_spike"],
            lambda x, p=p: (p["v_reset"], x[1]),
            lambda x, weight: (x[0], x[1] + weight),
            (p["v_leak"], 0.0),
            arrivals,
            T_END,
        )
        assert len(train) > 3
        assert spikes.count[sample, neuron] == len(train)
        times = spikes.time[sample, neuron, : len(train)]
        np.testing.assert_allclose(times, train, rtol=0, atol=1e-10)


def test_its_gradients_are_those_of_differences(x64):
    """By all numbers of a network with neurons behind it, and the input times."""
    graph, events, _ = drawn(1)
    network = lower(graph, dtype=float)
    factors = np.random.default_rng(5).normal(size=(BATCH, SIZE, 40))
    variables = network.parameters, jnp.asarray(events.time)

    def value(shares):
        parameters, time = jax.tree.map(lambda x, share: x * (1 + share), variables, shares)
        changed, train = network.with_parameters(parameters), Events(time=time, index=events.index)
        solution = simulate(changed, train, T_END, engine=ENGINE, throw=False)
        times = [finite_times(solution.spikes[name].time) * factors for name in ("n", "last")]
        return sum(map(jnp.sum, times)), [solution.spikes[name].count for name in ("n", "last")]

    nothing = jax.tree.map(jnp.zeros_like, variables)
    errors = some_relative_errors(value, nothing, np.random.default_rng(0), per_leaf=2)
    assert len(errors) > 20
    assert errors.max() < 1e-5


def test_a_float32_network_runs_inside_jit():
    graph, events, _ = drawn()
    network = lower(graph)
    run = jax.jit(
        lambda parameters: (
            simulate(network.with_parameters(parameters), events, T_END, engine=ENGINE)
            .spikes["n"]
            .time
        )
    )
    expected = simulate(network, events, T_END, engine=ENGINE).spikes["n"].time
    np.testing.assert_array_equal(run(network.parameters), expected)
    assert np.isfinite(expected).sum() > 10


def test_an_escape_to_infinity_is_reported():
    graph, events, (values, _, _) = drawn(behind=False)
    network = lower(graph)
    values = {**network.parameters["n"], "v_spike": jnp.full(SIZE, jnp.inf)}
    changed = network.with_parameters({**network.parameters, "n": values})
    run = partial(simulate, changed, events, T_END, engine=ENGINE)
    assert_refused(run, SimulationError, code="not-finite", node="n")


@pytest.mark.parametrize(
    ("engine", "recurrent", "error", "reason"),
    [
        (replace(ENGINE, backend="xla"), False, UsageError, "only the native backend"),
        (replace(ENGINE, forward_mode=True), False, UsageError, "forward_mode"),
        (replace(ENGINE, refractory=1e-3), False, UsageError, "refractory"),
        (ENGINE, True, UsageError, "ExponentialLIF"),
        (TimeStepped(), False, LoweringError, "ExponentialLIF"),
    ],
)
def test_what_cannot_run_it_is_refused(engine, recurrent, error, reason):
    graph, events, _ = drawn(recurrent=recurrent, dt=1e-4)
    assert_refused(partial(simulate, graph, events, T_END, engine=engine), error, reason)


def test_a_convolution_is_refused():
    layers = {
        "in": build.input((1, 3, 3)),
        "c": build.node(
            "Conv2d",
            weight=np.full((1, 1, 2, 2), 0.02),
            bias=np.zeros(1),
            input_shape=(3, 3),
            stride=1,
            padding=0,
            dilation=1,
            groups=1,
        ),
        "n": build.node("ExponentialLIF", (1, 2, 2), **VALUES),
        "out": build.output(),
    }
    graph = build.network(
        layers, [tuple(layers)], dialect="nir", time_unit="s", spike_kernel="delta"
    )
    events = Events(time=np.array([[0.01]]), index=np.array([[0]]))
    assert_refused(partial(simulate, graph, events, T_END), UsageError, "ExponentialLIF")


def test_a_missing_compiler_is_named(monkeypatch):
    """Kernels of the wheel do not help: each model has to be compiled."""
    monkeypatch.setattr(native_build, "find_compiler", lambda: None)
    native_build.model_library.cache_clear()
    jax.clear_caches()
    try:
        graph, events, _ = drawn()
        refused = partial(simulate, graph, events, T_END, engine=ENGINE)
        assert_refused(refused, UsageError, r"C\+\+ compiler")
    finally:
        native_build.model_library.cache_clear()


def test_the_chip_and_streams_refuse_it():
    graph, _, _ = drawn()
    assert not jaxsnn.check(graph, "bss2").ok
    assert_refused(
        partial(jaxsnn.stream, lower(graph)), (LoweringError, UsageError), "ExponentialLIF"
    )
