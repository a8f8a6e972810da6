"""Recurrent networks in which each synapse has a separate delay: spikes against the oracle, gradients
against central differences, the nodes that `update_graph` writes, and the limits of size.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsnn
from jaxsnn.errors import LoweringError, UsageError
from jaxsnn.event import populations
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.event.native import native_limits
from jaxsnn.network.spikes import Events
from jaxsnn.nir import build
from tests.event.agreement import assert_same_spikes, assert_trees_close, finite_times, padded
from tests.oracles import continuous_time
from tests.oracles.continuous_time import Neurons, Synapses

pytestmark = pytest.mark.usefixtures("x64")

CELLS = {"tau_mem": 20e-3, "tau_syn": 5e-3}
SHORTEST, LONGEST = 0.5e-3, 2e-3  # seconds
STRENGTH = {("E", "E"): 0.5, ("E", "I"): 1.0, ("I", "E"): -2.0, ("I", "I"): -2.0}


class Balanced:
    """Excitatory and inhibitory neurons, connected at random with random delays.

    Args:
        fan_in: mean number of presynaptic neurons of the same kind.
        dt: delays are multiples of this; None: any.
    """

    def __init__(self, sizes, fan_in, t_end, rate, dt=None):
        rng = np.random.default_rng(0)
        self.sizes, self.t_end = sizes, t_end
        self.weights, self.delays = {}, {}
        for (source, target), strength in STRENGTH.items():
            shape = sizes[target], sizes[source]
            exists = rng.random(shape) < fan_in / sizes[source]
            self.weights[source, target] = strength * exists
            delay = rng.uniform(SHORTEST, LONGEST, shape)
            self.delays[source, target] = delay if dt is None else np.rint(delay / dt) * dt
        count = int(rate * sizes["E"] * t_end)
        self.times = np.sort(rng.uniform(0, t_end, count))
        self.channels = rng.integers(0, sizes["E"], count)
        nodes = {
            "in": build.input(sizes["E"]),
            "w": build.linear(weight=2.5 * np.eye(sizes["E"])),
            **{name: build.cubalif(size, **CELLS) for name, size in sizes.items()},
            "out": build.output(),
        }
        chains: list[tuple[str, ...]] = [("in", "w", "E", "out")]
        for (source, target), weight in self.weights.items():
            nodes[source + target] = build.linear(weight=weight)
            chains.append((source, source + target, target))
        self.graph = build.network(nodes, chains, dialect="jaxsnn", time_unit="s")
        self.network = jaxsnn.lower(self.graph)
        for (source, target), delay in self.delays.items():
            name = source + target
            self.network = jaxsnn.with_synaptic_delays(self.network, name, delay)

    def run(self, network=None, backend="auto", engine=None):
        events = Events(time=self.times[None], index=self.channels[None])
        # No neuron fires 32 times.
        engine = engine or EventDriven(max_spikes=32, max_events=500, backend=backend)
        subject = self.network if network is None else network
        return jaxsnn.simulate(subject, events, self.t_end, engine=engine, throw=False)

    def expected(self):
        """The oracle's spikes."""
        values = {"r": 1.0, "w_in": 1.0, "v_leak": 0.0, "v_threshold": 1.0, "v_reset": 0.0}
        neurons = {
            name: Neurons(
                kind="CubaLIF",
                parameters={key: np.full(size, x) for key, x in (CELLS | values).items()},
                area="tau",
            )
            for name, size in self.sizes.items()
        }
        weights = {("in", "E"): 2.5 * np.eye(self.sizes["E"])} | self.weights
        synapses = [
            Synapses(
                source=source,
                target=target,
                weight=weight,
                delay=self.delays.get((source, target), 0.0),
            )
            for (source, target), weight in weights.items()
        ]
        events = list(zip(self.times.tolist(), self.channels.tolist(), strict=True))
        outcome = continuous_time.simulate(neurons, synapses, {"in": events}, self.t_end)
        return {name: padded([outcome.spikes[name]]) for name in self.sizes}


def small(dt=None):
    return Balanced({"E": 5, "I": 2}, fan_in=4, t_end=0.05, rate=600.0, dt=dt)


def assert_agrees(network, solution):
    """Compare all spikes with the oracle, to 1e-9 synaptic time constants."""
    for name, times in network.expected().items():
        assert np.isfinite(times).sum() > 10
        assert_same_spikes(solution.spikes[name], times, 1e-9 * CELLS["tau_syn"])


@pytest.mark.parametrize("backend", ["native", "xla"])
def test_balanced_network_agrees_with_the_oracle(native_kernels, backend):
    network = Balanced({"E": 80, "I": 20}, fan_in=8, t_end=0.1, rate=80.0)
    assert_agrees(network, network.run(backend=backend))


def loss(network, backend, parameters):
    solution = network.run(network.network.with_parameters(parameters), backend)
    times = solution.spikes["E"].time
    readout = np.random.default_rng(3).normal(size=times.shape)
    return jnp.sum(finite_times(times) * readout), solution


@pytest.mark.parametrize("backend", ["auto", pytest.param("xla", marks=pytest.mark.slow)])
def test_gradients_agree_with_central_differences(backend):
    network = small()
    compiled = jax.jit(jax.value_and_grad(lambda p: loss(network, backend, p), has_aux=True))
    parameters = network.network.parameters
    (_, solution), gradient = compiled(parameters)
    assert_agrees(network, solution)
    compared = 0
    for name, key, step in (("EE", "delay", 1e-8), ("IE", "delay", 1e-8), ("EI", "weight", 1e-6)):
        for place in np.ndindex(parameters[name][key].shape):
            values = []
            for sign in (1, -1):
                changed = parameters[name][key].at[place].add(sign * step)
                moved = {**parameters, name: {**parameters[name], key: changed}}
                values.append(float(compiled(moved)[0][0]))
            difference = (values[0] - values[1]) / (2 * step)
            slope = float(gradient[name][key][place])
            np.testing.assert_allclose(slope, difference, rtol=1e-5, atol=1e-6)
            compared += abs(slope) > 1e-3
    assert compared > 10


def test_both_backends_have_the_same_gradients(native_kernels):
    network = small()
    by_kernels, by_xla = (
        jax.jit(jax.grad(lambda p, b=backend: loss(network, b, p)[0]))(network.network.parameters)
        for backend in ("native", "xla")
    )
    assert_trees_close(by_kernels, by_xla, atol=1e-9, rtol=0, absolute=1e-30)


def test_written_delays_are_those_of_the_synapses():
    """`update_graph` writes a Linear that copies channels, and a Delay: the same spikes."""
    network = small(dt=0.25e-3)
    graph = jaxsnn.update_graph(network.graph, network.network)
    assert not jaxsnn.check(graph, "event").problems
    written = jaxsnn.lower(graph)
    solution = network.run(written)
    assert_agrees(network, solution)
    # Time steps of 0.25 ms follow the delays, but not the exact times of the spikes.
    stepped = network.run(written, engine=jaxsnn.TimeStepped(dt=0.25e-3, record=True))
    assert stepped.problem is None
    count, expected = np.asarray(stepped.spikes["E"]).sum(), int(solution.count("E").sum())
    assert abs(count - expected) < 0.3 * expected


def test_a_gradient_passes_through_written_delays():
    network = small(dt=0.25e-3)
    graph = jaxsnn.update_graph(network.graph, network.network)
    written = jaxsnn.lower(graph)
    expected = jax.grad(lambda p: loss(network, "auto", p)[0])(network.network.parameters)

    def of_written(parameters):
        times = network.run(written.with_parameters(parameters)).spikes["E"].time
        readout = np.random.default_rng(3).normal(size=times.shape)
        return jnp.sum(finite_times(times) * readout)

    gradient = jax.grad(of_written)(written.parameters)["EE_delays"]["delay"]
    by_synapse = np.asarray(gradient).reshape(expected["EE"]["delay"].T.shape).T
    assert np.abs(by_synapse).max() > 1e-3
    np.testing.assert_allclose(by_synapse, expected["EE"]["delay"], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("backend", ["xla", "auto"])
def test_neurons_may_reach_different_numbers_of_others(backend):
    """A pool with a delay for each of its outputs, and the same synapses as a matrix."""
    size = 5
    delay = np.array([0.3, 0.5, 0.35, 0.6, 0.4])
    pool = build.node(
        "SumPool2d", kernel_size=np.array([1, 3]), stride=np.array([1, 1]), padding=np.array([0, 1])
    )
    band = np.tri(size, k=1) - np.tri(size, k=-2)
    solutions = []
    for shape, back in (((1, 1, size), pool), ((size,), build.linear(weight=band))):
        nodes = {
            "in": build.input(shape),
            "w": build.scale(np.full(shape, 4.0)),
            "n": build.cubalif(shape, tau_mem=1.0, tau_syn=0.5, v_threshold=0.5),
            "back": back,
            "late": build.delay(delay.reshape(shape)),
            "weight": build.scale(np.linspace(0.3, 0.5, size).reshape(shape)),
            "out": build.output(),
        }
        chains = [("in", "w", "n", "out"), ("n", "back", "late", "weight", "n")]
        graph = build.network(nodes, chains, dialect="jaxsnn", time_unit="s")
        events = Events(time=jnp.array([[0.0, 0.2, 0.5, 1.1]]), index=jnp.array([[0, 1, 4, 2]]))
        engine = EventDriven(max_spikes=32, backend=backend)
        solutions.append(jaxsnn.simulate(graph, events, 4.0, engine=engine).spikes["n"])
    by_pool, by_matrix = solutions
    assert 10 < int(by_matrix.count.sum()) < 5 * 32
    times = np.asarray(by_pool.time).reshape(by_matrix.time.shape)
    np.testing.assert_allclose(times, by_matrix.time, rtol=1e-12)


def test_too_many_weights_are_refused(monkeypatch):
    network = small()
    monkeypatch.setattr(populations, "LARGEST", 5 * 5 - 1)  # synapses from E to E
    with pytest.raises(LoweringError) as error:
        network.run()
    assert error.value.node == "E"
    assert "25" in str(error.value)


def test_a_log_that_is_too_long_is_refused(monkeypatch):
    network = small()
    steps = 2 * 500 * (1 + 5 + 2)  # spikes of two populations, each with a delivery to each neuron
    monkeypatch.setattr(populations, "MOST_STEPS", steps - 1)
    with pytest.raises(LoweringError) as error:
        network.run()
    assert error.value.node == "E"
    assert str(steps) in str(error.value)
    assert "max_events=499" in str(error.value)
    monkeypatch.setattr(populations, "MOST_STEPS", steps)
    assert network.run().problem is None


def test_xla_runs_what_is_too_large_for_the_kernels(native_kernels, monkeypatch):
    network = small()
    # The kernels have weights to all 7 neurons for each of 7 * 7 synapses.
    monkeypatch.setattr(native_limits, "LARGEST", 7**3 - 1)
    with pytest.raises(UsageError, match="343"):
        network.run(backend="native")
    assert_agrees(network, network.run())
