"""Sparse weights against the same weights as dense matrices: spikes and gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

import jaxsnn
from jaxsnn.errors import LoweringError
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.event.native import native_limits
from jaxsnn.network.spikes import Events
from jaxsnn.nir import build
from tests.helpers.refusals import assert_refused

pytestmark = pytest.mark.usefixtures("x64")

INPUTS, NEURONS, T_END = 6, 40, 0.1
RNG = np.random.default_rng(4)
FIRST: Any = sparse.csr_array(
    RNG.uniform(1.0, 3.0, (NEURONS, INPUTS)) * (RNG.random((NEURONS, INPUTS)) < 0.5)
)
BACK: Any = sparse.csr_array(
    RNG.normal(0.1, 0.5, (NEURONS, NEURONS)) * (RNG.random((NEURONS, NEURONS)) < 0.1)
)
EVENTS = Events(
    time=jnp.asarray(np.sort(RNG.uniform(0, 0.08, (2, 30)))),
    index=jnp.asarray(RNG.integers(0, INPUTS, (2, 30))),
)
NEURON: Any = {"tau_mem": "10ms", "tau_syn": "5ms"}


def delays_of(weight, least=1e-3):
    """Delays with the pattern of some weights."""
    delay = weight.copy()
    delay.data = np.random.default_rng(5).uniform(least, 4e-3, delay.nnz)
    return delay


def feed_forward(weight, delay=None):
    layers = build.linear(weight=weight, delay=delay), build.cubalif(**NEURON)
    return jaxsnn.lower(build.sequential(build.input(INPUTS), *layers))


def recurrent(first, back, delay=None, between=()):
    nodes = {
        "in": build.input(INPUTS),
        "1": build.linear(weight=first),
        "2": build.cubalif(NEURONS, **NEURON),
        "back": build.linear(weight=back, delay=delay),
        "late": build.delay(np.linspace(1e-3, 2e-3, NEURONS)),
        "out": build.output(),
    }
    chains = [("in", "1", "2", "out"), ("2", *between, "back", "2")]
    named = {name for chain in chains for name in chain}
    nodes = {name: layer for name, layer in nodes.items() if name in named}
    return jaxsnn.lower(build.network(nodes, chains))


def spikes(network, backend="native", engine=None):
    engine = engine or EventDriven(max_spikes=60, backend=backend)
    return jaxsnn.simulate(network, EVENTS, T_END, engine=engine, throw=False).spikes["2"]


def gradients(network):
    """Gradients of a weighted sum of all spike times."""
    weighting = np.random.default_rng(6).normal(size=(NEURONS, 60))

    def loss(parameters):
        times = spikes(network.with_parameters(parameters)).time
        return jnp.sum(jnp.where(jnp.isfinite(times), times, 0.0) * weighting)

    return jax.grad(loss)(network.parameters)


def compare(thin, dense, nodes, rtol=1e-12):
    """Compare spikes exactly up to rounding, and one gradient for each stored weight."""
    got, expected = spikes(thin), spikes(dense)
    assert int(expected.count.sum()) > 100
    np.testing.assert_array_equal(got.count, expected.count)
    np.testing.assert_allclose(got.time, expected.time, rtol=rtol)
    got, expected = gradients(thin), gradients(dense)
    patterns = {wire.name: wire.detail for wire in thin.wires}
    for node, node_gradients in expected.items():
        for key, values in node_gradients.items():
            if node in nodes and key in ("weight", "delay"):
                values = values[patterns[node].target, patterns[node].source]
            assert np.abs(values).max() > 0 or key in ("r", "v_leak", "w_in", "v_reset")
            scale = np.abs(values).max() + 1e-12
            np.testing.assert_allclose(got[node][key], values, atol=1e-8 * scale, rtol=1e-8)


def test_a_sparse_layer_fires_like_a_dense_one():
    compare(feed_forward(FIRST), feed_forward(FIRST.toarray()), ["1"])


def test_a_sparse_layer_with_delays_fires_like_a_dense_one():
    delay = delays_of(FIRST)
    dense = jaxsnn.with_synaptic_delays(feed_forward(FIRST.toarray()), "1", delay.toarray())
    compare(feed_forward(FIRST, delay), dense, ["1"])


@pytest.mark.parametrize("backend", ["xla"])
def test_xla_runs_sparse_layers(backend):
    got, expected = (spikes(feed_forward(weight), backend) for weight in (FIRST, FIRST.toarray()))
    np.testing.assert_allclose(got.time, expected.time, rtol=1e-12)


def test_time_steps_with_sparse_weights_are_those_with_dense_ones():
    engine = jaxsnn.TimeStepped(dt=1e-3)
    solutions = [
        jaxsnn.simulate(recurrent(FIRST, weight), EVENTS, T_END, engine=engine)
        for weight in (BACK, BACK.toarray())
    ]
    got, expected = (solution.count("2") for solution in solutions)
    assert int(expected.sum()) > 20
    np.testing.assert_array_equal(got, expected)


def test_a_sparse_cycle_fires_like_a_dense_one():
    compare(recurrent(FIRST, BACK), recurrent(FIRST.toarray(), BACK.toarray()), ["1", "back"])


def test_dense_inputs_of_a_sparse_cycle():
    first = FIRST.toarray()
    compare(recurrent(first, BACK), recurrent(first, BACK.toarray()), ["back"])


def test_a_sparse_cycle_with_a_delay_of_each_neuron():
    thin, dense = (recurrent(FIRST, weight, between=["late"]) for weight in (BACK, BACK.toarray()))
    compare(thin, dense, ["back"])


def test_a_sparse_cycle_with_a_delay_of_each_synapse():
    delay = delays_of(BACK)
    dense = recurrent(FIRST.toarray(), BACK.toarray())
    dense = jaxsnn.with_synaptic_delays(dense, "back", delay.toarray())
    compare(recurrent(FIRST, BACK, delay), dense, ["1", "back"])


def excitatory_and_inhibitory(convert):
    """Two populations of a cycle: all four projections are sparse, two of them without delays."""
    rng = np.random.default_rng(7)
    sizes = {"e": 30, "i": 10}
    nodes = {
        "in": build.input(INPUTS),
        "e": build.cubalif(30, **NEURON),
        "i": build.cubalif(10, tau_mem="8ms", tau_syn="4ms"),
        "out": build.output(),
    }
    chains: list[tuple[str, ...]] = [("i", "out")]
    for target, outputs in sizes.items():
        weight = FIRST[:outputs]
        nodes[f"in_{target}"] = build.linear(weight=convert(weight))
        chains.append(("in", f"in_{target}", target))
        for source, inputs in sizes.items():
            dense = rng.normal(0.2 if source == "e" else -0.6, 0.1, (outputs, inputs))
            weight = sparse.csr_array(dense * (rng.random(dense.shape) < 0.2))
            nodes[f"{source}_{target}"] = build.linear(weight=convert(weight))
            late = (f"late_{target}",) if source == "e" else ()
            if late:
                nodes[late[0]] = build.delay(np.full(inputs, 1.5e-3))
            chains.append((source, *late, f"{source}_{target}", target))
    return jaxsnn.lower(build.network(nodes, chains))


def test_excitatory_and_inhibitory_populations_with_sparse_weights():
    engine = EventDriven(max_spikes=100, backend="native", refractory=1e-3)
    solutions = [
        jaxsnn.simulate(excitatory_and_inhibitory(convert), EVENTS, T_END, engine=engine)
        for convert in (lambda weight: weight, lambda weight: weight.toarray())
    ]
    for name in ("e", "i"):
        got, expected = (solution.spikes[name] for solution in solutions)
        assert int(expected.count.sum()) > 50
        np.testing.assert_array_equal(got.count, expected.count)
        np.testing.assert_allclose(got.time, expected.time, rtol=1e-11)


def test_gradients_of_a_sparse_cycle_are_those_of_finite_differences():
    network = recurrent(FIRST, BACK, delays_of(BACK))

    def loss(values):
        node = {**network.parameters["back"], "weight": values}
        times = spikes(network.with_parameters({**network.parameters, "back": node})).time
        return jnp.sum(jnp.where(jnp.isfinite(times), times, 0.0))

    values = network.parameters["back"]["weight"]
    gradient = jax.grad(loss)(values)
    assert gradient.shape == (BACK.nnz,)
    for synapse in np.argsort(-abs(np.asarray(gradient)))[[0, 5, 20]]:
        step = jnp.zeros(BACK.nnz).at[synapse].set(1e-7)
        difference = (loss(values + step) - loss(values - step)) / 2e-7
        np.testing.assert_allclose(gradient[synapse], difference, rtol=1e-5)


def test_other_backends_refuse_sparse_cycles_by_name():
    assert_refused(
        lambda: spikes(recurrent(FIRST, BACK), "xla"),
        LoweringError,
        node="2",
        code="sparse-weights",
    )


def test_rectangular_pulses_refuse_sparse_cycles_by_name():
    nodes = {
        "in": build.input(INPUTS),
        "1": build.linear(weight=FIRST),
        "2": build.lif(NEURONS, tau="10ms"),
        "back": build.linear(weight=BACK),
        "out": build.output(),
    }
    network = jaxsnn.lower(build.network(nodes, [("in", "1", "2", "out"), ("2", "back", "2")]))
    assert_refused(lambda: spikes(network), LoweringError, node="2", code="sparse-weights")


def test_memory_of_a_sparse_cycle_has_no_table_of_all_pairs():
    size = 4000
    edges = build.Edges(np.arange(size - 1), np.arange(1, size), np.full(size - 1, 8.0))
    nodes = {
        "in": build.input(1),
        "1": build.linear(size, weight=build.Edges(np.array([0]), np.array([0]), np.array([8.0]))),
        "2": build.cubalif(size, **NEURON),
        "back": build.linear(size, weight=edges),
        "out": build.output(),
    }
    chains = [("in", "1", "2", "out"), ("2", "back", "2")]
    network = jaxsnn.lower(build.network(nodes, chains))
    engine = EventDriven(max_spikes=4, max_events=200, backend="native")

    def loss(parameters, events):
        subject = network.with_parameters(parameters)
        spikes = jaxsnn.simulate(subject, events, 5e-3, engine=engine, throw=False).spikes["2"]
        return jnp.sum(jnp.where(jnp.isfinite(spikes.time), spikes.time, 0.0))

    events = Events(time=jnp.zeros((1, 1)), index=jnp.zeros((1, 1), int))
    compiled = jax.jit(jax.grad(loss)).lower(network.parameters, events).compile()
    usage: Any = compiled.memory_analysis()
    assert usage.temp_size_in_bytes < size * size
    gradient = compiled(network.parameters, events)["back"]["weight"]
    assert gradient.shape == (size - 1,)
    assert float(gradient[0]) < 0


def test_auto_warns_if_a_table_is_too_large_for_the_kernels(monkeypatch):
    monkeypatch.setattr(native_limits, "LARGEST", 1000)
    native_limits._warn_of_large_table.cache_clear()
    network = recurrent(FIRST.toarray(), BACK.toarray())
    network = jaxsnn.with_synaptic_delays(network, "back", delays_of(BACK).toarray())
    engine = EventDriven(max_spikes=2, max_events=40, backend="auto")
    with pytest.warns(Warning, match=r"runs in XLA.*limit is 1000"):
        spikes(network, engine=engine)
