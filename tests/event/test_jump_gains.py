"""How w_in and r scale a spike in the dialect of this library, which is the default of `build`.

A spike of weight w makes the synaptic current jump by w_in w, and the membrane of a neuron without
one by r w. So a gain of g with weights w must do what a gain of 1 with weights g w does.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import Currents, EventDriven, Events, TimeStepped, lower, simulate
from jaxsnn.nir import build

T_END, DT = 0.06, 1e-3
GAINS = (0.0, 0.5, 3.0, -1.0)
#: No sum of these is equal to a threshold, where rounding could change spikes.
WEIGHTS = np.array([[0.913, 0.417], [0.531, 0.829], [-0.223, 1.307]])
EVENTS = Events(
    time=np.array([[2, 5, 6, 11, 15, 16, 20, 26, 31, 40]]) * 1e-3,
    index=np.array([[0, 1, 0, 0, 1, 1, 0, 1, 0, 1]]),
)
#: Layer of each type, and the gain of its spikes.
LAYERS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "CubaLIF": (build.cubalif, {"tau_mem": 20e-3, "tau_syn": 8e-3, "v_threshold": 0.4}, "w_in"),
    "CubaLI": (build.cubali, {"tau_mem": 20e-3, "tau_syn": 8e-3}, "w_in"),
    # A leak above the threshold, so that spike times depend on weights.
    "LIF": (build.lif, {"tau": 20e-3, "v_leak": 1.2}, "r"),
    "LI": (build.li, {"tau": 20e-3, "v_leak": 0.1}, "r"),
    "IF": (build.integrate_and_fire, {}, "r"),
    "I": (build.integrator, {}, "r"),
}
ENGINES = {
    "xla": EventDriven(max_spikes=32, backend="xla"),
    "native": EventDriven(max_spikes=32, backend="auto"),
    "steps": TimeStepped(record=("2",)),
}


def network(kind, weight, bias=0.0, **gains):
    make, numbers, _ = LAYERS[kind]
    layers = build.affine(weight=weight, bias=bias), make(**numbers, **gains)
    return lower(build.sequential(build.input(2), *layers, dt=DT), dtype=float)


def response(network, engine):
    solution = simulate(network, EVENTS, T_END, engine=engine)
    if not network.populations["2"].fires:
        return solution.voltages["2"]
    return solution.spikes["2"].time if isinstance(engine, EventDriven) else solution.count("2")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_gain_scales_spikes_as_weights_do(x64, kind, gain, engine):
    named = {LAYERS[kind][2]: gain}
    scaled = response(network(kind, WEIGHTS, **named), ENGINES[engine])
    expected = response(network(kind, gain * WEIGHTS), ENGINES[engine])
    np.testing.assert_allclose(scaled, expected, rtol=1e-12, atol=0)
    if gain == 3.0:  # the gain has an effect at all
        assert np.isfinite(np.asarray(scaled)).sum() >= 3
        assert not np.allclose(scaled, response(network(kind, WEIGHTS), ENGINES[engine]))


def test_a_gain_scales_the_voltage_that_drives_others(x64):
    """LI -> Linear -> LIF, which the time-stepped engine alone runs."""

    def spikes(gain, weight):
        li, lif = build.li(tau=8e-3, r=gain), build.lif(tau=20e-3, v_threshold=0.3)
        layers = build.linear(weight=weight), li, build.linear(weight=np.eye(3)), lif
        graph = build.sequential(build.input(2), *layers, dt=DT)
        network, engine = lower(graph, dtype=float), TimeStepped(record=("4",))
        return simulate(network, EVENTS, T_END, engine=engine).count("4")

    count = spikes(2.5, WEIGHTS)
    np.testing.assert_array_equal(count, spikes(1.0, 2.5 * WEIGHTS))
    assert np.asarray(count).sum() > np.asarray(spikes(1.0, WEIGHTS)).sum() > 0


def loss(network, engine):
    solution = simulate(network, EVENTS, T_END, engine=engine)
    if "2" in solution.voltages:
        return jnp.sum(solution.voltages["2"] ** 2)
    return solution.spike_sum("2", 0.02).sum()


@pytest.mark.parametrize("backend", ["xla", "native"])
@pytest.mark.parametrize("gain", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_by_gains_are_those_of_differences(x64, kind, gain, backend):
    engine = ENGINES[backend]
    named = {"r": 0.9, "w_in": 1.1} if kind.startswith("Cuba") else {}
    named[LAYERS[kind][2]] = gain
    # Few spikes coincide with an arrival, where weights do not change the spike time.
    bias = 53.7 if kind == "IF" else 0.3
    lowered = network(kind, 0.3 * WEIGHTS, bias, **named)
    parameters = lowered.parameters

    def of(name, shift):
        values = {**parameters["2"], name: parameters["2"][name] + shift}
        return loss(lowered.with_parameters({**parameters, "2": values}), engine)

    gradient = jax.grad(lambda p: loss(lowered.with_parameters(p), engine))(parameters)["2"]
    for name in named:
        step = 1e-6
        for neuron in range(3):
            shift = jnp.zeros(3).at[neuron].set(step)
            difference = (of(name, shift) - of(name, -shift)) / (2 * step)
            np.testing.assert_allclose(gradient[name][neuron], difference, rtol=1e-6, atol=1e-8)
        if gain:
            assert np.abs(gradient[name]).max() > 1e-6


@pytest.mark.parametrize("kind", ["CubaLI", "LI"])
def test_a_gain_scales_spikes_and_currents_alike(x64, kind):
    """Among spikes, too, of which a gain of 0 leaves nothing."""
    make, numbers, name = LAYERS[kind]
    numbers = {**numbers, "v_leak": 0.0}

    def network(gain):
        nodes = {
            "spikes": build.input(2),
            "currents": build.input(2),
            "w": build.linear(weight=WEIGHTS),
            "of currents": build.linear(weight=0.5 * WEIGHTS),
            "readout": make(3, **numbers, **{name: gain}),
            "output": build.output(),
        }
        edges = [("spikes", "w", "readout", "output"), ("currents", "of currents", "readout")]
        return lower(build.network(nodes, edges, spike_kernel="box", dt=DT), dtype=float)

    currents = Currents.held(np.array([[[0.5, -0.2]], [[1.5, 0.3]], [[0.0, 0.8]]]), 0.01)

    def voltages(network):
        inputs = {"spikes": EVENTS, "currents": currents}
        return simulate(network, inputs, T_END).voltages["readout"]

    of_one = voltages(network(1.0))
    assert np.abs(of_one).max() > 0.1
    np.testing.assert_allclose(voltages(network(3.0)), 3 * of_one, rtol=1e-9, atol=1e-12)
    assert not np.asarray(voltages(network(0.0))).any()
    still = network(0.0)

    def total(gain):
        values = {**still.parameters["readout"], name: gain}
        return voltages(still.with_parameters({**still.parameters, "readout": values})).sum()

    gradient = jax.grad(total)(jnp.zeros(3))
    np.testing.assert_allclose(gradient, of_one.sum((0, 1)), rtol=1e-9)


@pytest.mark.parametrize("neuron", [build.cubalif, build.lif])
@pytest.mark.parametrize("gain", [1.0, 1.5])
def test_gains_that_stay_are_left_out_where_they_are_1(neuron, gain):
    times = {"tau_mem": 0.02, "tau_syn": 0.01} if neuron is build.cubalif else {"tau": 0.02}
    gains = {"w_in": gain} if neuron is build.cubalif else {"r": gain}
    graph = build.sequential(build.input(2), build.linear(3), neuron(**times, **gains), seed=0)
    network = lower(graph).with_fixed_gains()
    assert network.populations["2"].scales_jumps == (gain != 1)
