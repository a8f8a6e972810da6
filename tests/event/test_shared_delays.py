"""Delays in a cycle that synapses share: those of `with_synaptic_delays` and of Delay nodes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsnn
from jaxsnn.errors import LoweringError
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.network.spikes import Events
from jaxsnn.nir import build

pytestmark = pytest.mark.usefixtures("x64")

RNG = np.random.default_rng(2)
FIRST, BACK = RNG.uniform(0.8, 2.0, (3, 2)), RNG.uniform(-0.5, 0.8, (3, 3))
DELAYS = np.array([0.3, 0.45, 0.6])
EVENTS = Events(time=jnp.array([[0.0, 0.2, 0.5, 1.1]]), index=jnp.array([[0, 1, 0, 1]]))


def recurrent(late=None):
    """A population that feeds itself, with a Delay node on the way back where delays are given."""
    nodes = {
        "in": build.input(2),
        "w": build.linear(weight=FIRST),
        "n": build.cubalif(3, tau_mem=1.0, tau_syn=0.5, v_threshold=0.5),
        "back": build.linear(weight=BACK),
        "out": build.output(),
    }
    feedback = ("n", "back", "n")
    if late is not None:
        nodes["late"] = build.node("Delay", 3, delay=np.broadcast_to(late, 3))
        feedback = ("n", "late", "back", "n")
    return build.network(
        nodes, [("in", "w", "n", "out"), feedback], dialect="jaxsnn", time_unit="s"
    )


@pytest.mark.parametrize("delay", [DELAYS, DELAYS[None], 0.4], ids=["source", "row", "one"])
def test_shared_delays_in_a_cycle_are_those_of_a_delay_node(delay):
    network = jaxsnn.with_synaptic_delays(jaxsnn.lower(recurrent()), "back", delay)
    assert network.parameters["back"]["delay"].shape == (() if np.ndim(delay) == 0 else (3,))
    engine = EventDriven(max_spikes=32)
    solution = jaxsnn.simulate(network, EVENTS, 4.0, engine=engine)
    late = np.broadcast_to(delay, (1, 3))[0]
    expected = jaxsnn.simulate(jaxsnn.lower(recurrent(late)), EVENTS, 4.0, engine=engine)
    np.testing.assert_allclose(solution.spikes["n"].time, expected.spikes["n"].time, rtol=1e-12)
    without = jaxsnn.simulate(recurrent(), EVENTS, 4.0, engine=engine)
    assert int(solution.count("n").sum()) > 5
    assert not np.allclose(solution.spikes["n"].time, without.spikes["n"].time)


OUTSIDE = [("in", "w", "late", "n", "out"), ("n", "back", "n")]


def behind_weights(*edges, late=DELAYS, first=FIRST):
    """A population that feeds itself, and a Delay behind weights where the edges say."""
    nodes = {
        "in": build.input(first.shape[1]),
        "w": build.linear(weight=first),
        "late": build.node("Delay", 3, delay=np.asarray(late)),
        "n": build.cubalif(3, tau_mem=1.0, tau_syn=0.5, v_threshold=0.5),
        "back": build.linear(weight=BACK),
        "out": build.output(),
    }
    named = {name for chain in edges for name in chain}
    used = {name: node for name, node in nodes.items() if name in named}
    return build.network(used, edges, dialect="jaxsnn", time_unit="s")


@pytest.mark.parametrize("backend", ["xla", "auto"])
def test_inputs_of_a_cycle_may_have_a_delay_for_each_neuron(backend):
    engine = EventDriven(max_spikes=32, backend=backend)
    network = jaxsnn.lower(behind_weights(*OUTSIDE))
    delayed = jaxsnn.simulate(network, EVENTS, 4.0, engine=engine)
    # The same with an input channel for each pair, and with delayed event times.
    pairs = np.zeros((3, 6))
    pairs[np.arange(6) % 3, np.arange(6)] = FIRST.T.reshape(-1)
    wide = behind_weights(("in", "w", "n", "out"), ("n", "back", "n"), first=pairs)
    time = (EVENTS.time[..., None] + DELAYS).reshape(1, -1)
    index = (3 * EVENTS.index[..., None] + np.arange(3)).reshape(1, -1)
    expected = jaxsnn.simulate(wide, Events(time=time, index=index), 4.0, engine=engine)
    assert int(expected.count("n").sum()) > 5
    np.testing.assert_array_equal(delayed.count("n"), expected.count("n"))
    np.testing.assert_allclose(delayed.spikes["n"].time, expected.spikes["n"].time, rtol=1e-12)

    def loss(delay):
        parameters = {**network.parameters, "late": {"delay": delay}}
        solution = jaxsnn.simulate(
            network.with_parameters(parameters), EVENTS, 4.0, engine=engine, throw=False
        )
        times = solution.spikes["n"].time
        return jnp.sum(jnp.where(jnp.isfinite(times), times, 0.0))

    delay = jnp.asarray(DELAYS)
    gradient = jax.grad(loss)(delay)
    steps = 1e-6 * np.eye(3)
    differences = [(loss(delay + step) - loss(delay - step)) / 2e-6 for step in steps]
    np.testing.assert_allclose(gradient, differences, rtol=1e-6)


@pytest.mark.parametrize("backend", ["xla", "auto"])
def test_a_delay_behind_weights_in_a_cycle_is_one_of_each_synapse(backend):
    inside = behind_weights(("in", "w", "n", "out"), ("n", "back", "late", "n"))
    assert not jaxsnn.check(inside, "event").problems
    network = jaxsnn.with_synaptic_delays(jaxsnn.lower(recurrent()), "back", DELAYS[:, None])
    engine = EventDriven(max_spikes=32, backend=backend)
    solution, expected = (
        jaxsnn.simulate(subject, EVENTS, 4.0, engine=engine) for subject in (inside, network)
    )
    assert int(expected.count("n").sum()) > 5
    np.testing.assert_allclose(solution.spikes["n"].time, expected.spikes["n"].time, rtol=1e-12)


def test_a_delay_behind_a_pool_in_a_cycle_is_one_of_the_neurons_that_send():
    """Windows that do not overlap: each neuron is in one."""
    kernel = {"stride": 1, "dilation": 1, "groups": 1, "bias": np.zeros(1)}
    weight = np.full((1, 1, 1, 1), 2.0)

    def convolution(side, padding):
        size = np.array([side, side])
        values = {"input_shape": size, "weight": weight, "padding": padding}
        return build.node("Conv2d", **kernel, **values)

    late = np.linspace(0.3, 0.6, 4).reshape(1, 2, 2)
    neuron = {"tau_mem": 1.0, "tau_syn": 0.5, "v_threshold": 0.5}
    nodes = {
        "in": build.input((1, 4, 4)),
        "w": convolution(4, 0),
        "n": build.cubalif(**neuron),
        "pool": build.node("SumPool2d", kernel_size=2, stride=2, padding=0),
        "late": build.node("Delay", (1, 2, 2), delay=late),
        "m": build.cubalif(**neuron),
        "back": convolution(2, 1),
        "out": build.output(),
    }
    edges = [("in", "w", "n", "pool", "late", "m", "back", "n"), ("n", "out")]
    graph = build.network(nodes, edges, dialect="jaxsnn", time_unit="s")
    assert not jaxsnn.check(graph, "event").problems
    engine = EventDriven(max_spikes=32, max_events=200)
    solution = jaxsnn.simulate(graph, EVENTS, 2.0, engine=engine)
    assert int(solution.count("m").sum()) > 0


def test_a_stream_takes_a_delay_behind_weights_in_a_cycle(native_kernels):
    outside = ("in", "w", "n", "out")
    spikes, expected = (
        jaxsnn.stream(
            jaxsnn.lower(behind_weights(outside, feedback, late=[0.3] * 3)), record=["n"]
        ).push(Events(time=EVENTS.time[0], index=EVENTS.index[0]), until=4.0)["n"]
        for feedback in (("n", "back", "late", "n"), ("n", "late", "back", "n"))
    )
    assert len(expected.time) > 5
    np.testing.assert_array_equal(spikes.index, expected.index)
    np.testing.assert_allclose(spikes.time, expected.time, rtol=1e-12)


def test_the_time_stepped_engine_does_not_pass_over_delays_of_synapses():
    graph = recurrent()
    network = jaxsnn.with_synaptic_delays(jaxsnn.lower(graph), "back", 0.4)
    grid = jaxsnn.TimeStepped(dt=0.1, record=True)
    with pytest.raises(LoweringError, match=r"'back' has individual synaptic delays.*update_graph"):
        jaxsnn.simulate(network, EVENTS, 4.0, engine=grid)
    # Follow the advice of the message.
    written = jaxsnn.lower(jaxsnn.update_graph(graph, network))
    solution = jaxsnn.simulate(written, EVENTS, 4.0, engine=grid)
    expected = jaxsnn.simulate(jaxsnn.lower(recurrent(0.4)), EVENTS, 4.0, engine=grid)
    np.testing.assert_array_equal(solution.spikes["n"], expected.spikes["n"])
