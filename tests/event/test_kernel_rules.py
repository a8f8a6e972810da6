"""Rules of the kernels that decide about single events, against closed forms, finite differences and
each other: what happens at a threshold, at the end of a refractory period, and after a pulse.
"""

from functools import partial

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import EventDriven, Events, lower, simulate, stream
from jaxsnn.network.network import Network
from jaxsnn.nir import build
from tests.event.agreement import finite_times, sorted_finite

pytestmark = pytest.mark.usefixtures("x64", "native_kernels")
TAU = 1e-2
NATIVE = partial(EventDriven, backend="native")


def events(*times):
    return Events(time=np.array(times), index=np.zeros(len(times), int))


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_a_jump_onto_a_strict_threshold_does_not_fire(reset):
    """Two arrivals of 1/2 reach 1 exactly, and a third one passes it."""
    layers = build.linear(weight=[[0.5]]), build.integrate_and_fire(v_threshold=1.0)
    net = lower(build.sequential(build.input(1), *layers, reset=reset, dialect="jaxsnn"))
    assert net.populations["2"].threshold == ">"
    train = events(1e-3, 2e-3, 3e-3, 4e-3, 5e-3)
    solution = simulate(net, train, 6e-3, engine=NATIVE(max_spikes=4))
    times = sorted_finite(solution.spikes["2"].time)
    np.testing.assert_allclose(times, [3e-3] if reset == "zero" else [3e-3, 5e-3])
    streamed = stream(net, record=["2"]).push(train, until=6e-3)["2"].time
    np.testing.assert_allclose(streamed, times)


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize(("neurons", "looped"), [(1, False), (5, False), (1, True)])
def test_only_a_subtraction_keeps_the_overshoot_of_a_start_above_the_threshold(
    neurons, looped, reset
):
    """From 2.5, subtractions of 1 leave 1.5 and 0.5, and other resets 0; then V rises again to
    v_leak = 2.5, and crosses 1.
    """
    nodes = {
        "input": build.input(1),
        "w": build.linear(weight=np.zeros((neurons, 1))),
        "n": build.cubalif(neurons, tau_mem=TAU, tau_syn=TAU / 2, v_leak=2.5),
        "back": build.linear(weight=np.zeros((neurons, neurons))),
        "output": build.output(),
    }
    chains = [("input", "w", "n", "output"), *([("n", "back", "n")] if looped else [])]
    used = {name: node for name, node in nodes.items() if looped or name != "back"}
    options = {"dialect": "hxtorch", "time_unit": "s", "reset": reset}
    net = lower(build.network(used, chains, **options))
    solution = simulate(net, events(5e-4), 0.6 * TAU, engine=NATIVE(max_spikes=4))
    at_start, v_then = ([0.0, 0.0], 0.5) if reset == "subtract" else ([0.0], 0.0)
    expected = [*at_start, TAU * np.log((2.5 - v_then) / (2.5 - 1.0))]
    for times in solution.spikes["n"].time[0]:
        np.testing.assert_allclose(sorted_finite(times), expected, atol=1e-12)


def test_a_delay_as_long_as_the_refractory_period_acts_after_its_end():
    """The gradient with respect to the delay is that of a longer delay: V stays held at its reset before."""
    refractory, weight = 2.0**-9, 3.0

    def network(delay):
        nodes = {
            "input": build.input(1),
            "w": build.linear(weight=[[6.0]]),
            "n": build.cubalif(1, tau_mem=TAU, tau_syn=TAU / 2),
            "late": build.node("Delay", delay=np.array([delay])),
            "back": build.linear(weight=[[weight]]),
            "output": build.output(),
        }
        chains = [("input", "w", "n", "output"), ("n", "late", "back", "n")]
        return lower(build.network(nodes, chains))

    engine = NATIVE(max_spikes=8, refractory=refractory)

    def second_spike(delay):
        net = network(refractory)
        changed = net.with_parameters({**net.parameters, "late": {"delay": delay}})
        spikes = simulate(changed, events(0.0), 4 * refractory, engine=engine).spikes["n"]
        return finite_times(jnp.sort(spikes.time[0, 0]))[1]

    at = jnp.array([refractory])
    value, gradient = jax.value_and_grad(second_spike)(at)
    step = 1e-7
    difference = (second_spike(at + step) - value) / step
    np.testing.assert_allclose(gradient[0], difference, rtol=1e-3)
    before = (value - second_spike(at - step)) / step
    assert abs(before - difference) > 0.01 * abs(difference)


def test_a_reset_above_the_threshold_fires_at_the_end_of_each_refractory_period():
    """Lowering and `with_parameters` reject such a v_reset, but traced parameters may reach it."""
    nodes = {
        "input": build.input(1),
        "w": build.linear(weight=[[6.0]]),
        "n": build.cubalif(1, tau_mem=TAU, tau_syn=TAU / 2),
        "back": build.linear(weight=[[0.0]]),
        "output": build.output(),
    }
    net = lower(build.network(nodes, [("input", "w", "n", "output"), ("n", "back", "n")]))
    above = {**net.parameters["n"], "v_reset": jnp.full(1, 1.25)}
    parameters = {**net.parameters, "n": above}
    changed = Network(parameters=parameters, wires=net.wires, populations=net.populations)
    engine = NATIVE(max_spikes=8, refractory=4e-3)
    spikes = simulate(changed, events(0.0), 2e-2, engine=engine).spikes["n"]
    times = sorted_finite(spikes.time)
    assert len(times) == 5
    np.testing.assert_allclose(np.diff(times), 4e-3, rtol=1e-12)


def test_an_arrival_at_the_end_of_a_refractory_period_acts_after_that_end():
    """The gradient with respect to its time is that of a later arrival: V stays at its reset before."""
    refractory = 2.0**-9
    nodes = {
        "input": build.input(1),
        "w": build.linear(weight=[[3.0]]),
        "n": build.cubalif(1, tau_mem=TAU, tau_syn=TAU / 2, v_threshold=-0.5, v_reset=-1.0),
        "back": build.linear(weight=[[0.0]]),
        "output": build.output(),
    }
    net = lower(build.network(nodes, [("input", "w", "n", "output"), ("n", "back", "n")]))
    engine = NATIVE(max_spikes=8, refractory=refractory)

    def second_spike(time):
        train = Events(time=time, index=np.array([0]))
        spikes = simulate(net, train, 4 * refractory, engine=engine).spikes["n"]
        return finite_times(spikes.time[0, 0])[1]

    at = jnp.array([refractory])  # the neuron starts above its threshold, and fires at time 0
    value, gradient = jax.value_and_grad(second_spike)(at)
    assert refractory < value < 2 * refractory
    step = 1e-7
    after = (second_spike(at + step) - value) / step
    before = (value - second_spike(at - step)) / step
    np.testing.assert_allclose(gradient[0], after, rtol=1e-3)
    assert abs(before - after) > 0.01 * abs(after)


BOXES = {"spike_kernel": "box", "dialect": "nir", "time_unit": "s", "dt": 8e-3}


@pytest.mark.parametrize("options", [{}, {"refractory": 1.5e-3}])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize(
    "neurons",
    [build.lif(3, tau=TAU, r=0.02, v_reset=0.1), build.integrate_and_fire(3, r=2.0, v_reset=0.1)],
    ids=["LIF", "IF"],
)
def test_a_stream_of_pulses_fires_what_a_simulation_fires(neurons, reset, options):
    """Neurons fire several times during a pulse, and some refractory periods outlast it."""
    weight = np.array([[1.0371, 0.4123], [0.7219, 0.9337], [1.3171, -0.3119]])
    layers = build.linear(weight=weight), neurons
    net = lower(build.sequential(build.input(2), *layers, reset=reset, **BOXES))
    rng = np.random.default_rng(0)
    train = Events(time=np.sort(rng.uniform(0, 0.05, 12)), index=rng.integers(0, 2, 12))
    solution = simulate(net, train, 0.07, engine=NATIVE(max_spikes=64, **options))
    expected = sorted_finite(solution.spikes["2"].time)
    assert len(expected) > 10
    session = stream(net, EventDriven(max_spikes=64, **options), record=["2"])
    np.testing.assert_allclose(
        session.push(train, until=0.07)["2"].time, expected, rtol=0, atol=1e-10
    )


KINDS = {
    "currents": (build.cubalif(2, tau_mem=TAU, tau_syn=0.7 * TAU, v_reset=-0.2, v_leak=0.1), {}),
    "jumps": (build.lif(2, tau=TAU, v_reset=-0.2, v_leak=1.2), {}),
    "pulses": (build.lif(2, tau=TAU, r=0.02, v_reset=-0.2, v_leak=0.1), BOXES),
}


def network_of(kind, looped, reset):
    neurons, options = KINDS[kind]
    nodes = {
        "input": build.input(2),
        "w": build.linear(weight=np.array([[1.4, 0.9], [0.8, 1.7]])),
        "n": neurons,
        "back": build.linear(weight=np.array([[0.0, 0.2], [-0.3, 0.0]])),
        "output": build.output(),
    }
    chains = [("input", "w", "n", "output"), *([("n", "back", "n")] if looped else [])]
    used = {name: node for name, node in nodes.items() if looped or name != "back"}
    return lower(build.network(used, chains, reset=reset, **options))


@pytest.mark.parametrize(
    ("kind", "looped", "reset", "refractory"),
    [
        ("currents", False, "zero", 0.0),
        ("currents", False, "subtract", 0.0),
        ("currents", False, "zero", 2e-3),
        ("jumps", False, "zero", 2e-3),
        ("pulses", False, "zero", 2e-3),
        ("currents", True, "zero", 0.0),
        ("currents", True, "zero", 2e-3),
    ],
)
def test_gradients_of_kernels_are_those_of_central_differences(kind, looped, reset, refractory):
    """With respect to all weights, time constants and levels of two neurons, and all input times."""
    net = network_of(kind, looped, reset)
    engine = NATIVE(max_spikes=8, refractory=refractory)
    index = np.array([0, 1, 0, 1, 1, 0, 0, 1])
    time = jnp.asarray(1e-3 * np.array([0.1, 0.4, 1.3, 2.2, 4.1, 7.3, 9.2, 11.7]))
    weights = np.random.default_rng(0).normal(size=16)

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    def loss(parameters, time):
        spikes = simulate(
            net.with_parameters(parameters), Events(time=time, index=index), 0.02, engine=engine
        ).spikes["n"]
        times = finite_times(spikes.time).ravel()
        return jnp.sum(weights[: len(times)] * times), spikes.count

    (_, count), gradients = loss(net.parameters, time)
    assert int(count.min()) >= 2
    numbers, unflatten = jax.flatten_util.ravel_pytree((net.parameters, time))
    expected = np.zeros(len(numbers))
    for place in range(len(numbers)):
        step = 1e-6 * max(abs(float(numbers[place])), 1e-3)
        values = []
        for sign in (1, -1):
            (value, changed), _ = loss(*unflatten(numbers.at[place].add(sign * step)))
            np.testing.assert_array_equal(changed, count)
            values.append(float(value))
        expected[place] = (values[0] - values[1]) / (2 * step)
    got = np.asarray(jax.flatten_util.ravel_pytree(gradients)[0])
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


def test_a_held_neuron_forgets_its_overshoot():
    """An arrival of 1.6 fires; after the refractory period V is 0, so that one of 0.5 does not."""
    layers = build.linear(weight=[[1.6, 0.5]]), build.integrate_and_fire(v_threshold=1.0)
    net = lower(build.sequential(build.input(2), *layers, reset="subtract", dialect="jaxsnn"))
    train = Events(time=np.array([1e-3, 5e-3]), index=np.array([0, 1]))
    for refractory, expected in ((2e-3, [1e-3]), (0.0, [1e-3, 5e-3])):
        engine = NATIVE(max_spikes=4, refractory=refractory)
        solution = simulate(net, train, 6e-3, engine=engine)
        np.testing.assert_allclose(sorted_finite(solution.spikes["2"].time), expected)
        streamed = stream(net, engine, record=["2"]).push(train, until=6e-3)["2"].time
        np.testing.assert_allclose(streamed, expected)
