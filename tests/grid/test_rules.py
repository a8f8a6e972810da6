"""Rules of frameworks for which there is no recording, on their own files, against their equations
in NumPy.
"""

import nir
import numpy as np
import pytest

from jaxsnn import TimeStepped, lower, simulate
from jaxsnn.nir import parse, read

STEPS, BATCH = 80, 6


def several(v, threshold):
    return np.maximum(0, np.floor(v / threshold))


def rockpool(p, i, v, x, dt):
    """LIFTorch: several spikes a step, at equality too, subtracted."""
    i = (i + x) * np.exp(-dt / p["tau_syn"])
    v = v * np.exp(-dt / p["tau_mem"]) + i
    spikes = several(v, p["v_threshold"])
    return i, v - spikes * p["v_threshold"], spikes


def spikingjelly(p, i, v, x, dt):
    """CUBALIFNode: hard reset in the same step, at equality too."""
    i = (1 - 1 / p["w_in"]) * i + x
    v = (1 - 1 / p["r"]) * v + i
    spikes = (v >= p["v_threshold"]).astype(float)
    return i, np.where(spikes > 0, p["v_reset"], v), spikes


def play(network, layers, x, rule, dt):
    # SpikingJelly starts at v_reset, Rockpool at 0.
    starts = [np.asarray(network.parameters[neuron]["v_reset"]) for _, neuron in layers]
    states: list = [(0.0, 0.0 if rule is rockpool else start) for start in starts]
    for frame in x:
        signal = frame
        for number, (weights, neuron) in enumerate(layers):
            node = network.parameters[weights]
            signal = signal @ np.asarray(node["weight"]).T + np.asarray(node.get("bias", 0.0))
            p = {key: np.asarray(value) for key, value in network.parameters[neuron].items()}
            *state, signal = rule(p, *states[number], signal, dt)
            states[number] = tuple(state)
        yield signal


@pytest.mark.parametrize(
    ("name", "rule", "options", "gain"),
    [
        ("rockpool_b_liftorch", rockpool, {}, 1),
        ("rockpool_b_liftorch_nobias", rockpool, {}, 1),
        ("spikingjelly_b_cubalif", spikingjelly, {}, 2),
    ],
)
def test_current_based_layers(name, rule, options, gain, zoo, x64):
    graph = read(zoo[name], dialect=name.split("_")[0], **options)
    network = lower(graph, dtype=float)
    order = [wire.name for wire in network.wires if wire.kind not in ("input", "output")]
    layers = list(zip(order[::2], order[1::2], strict=True))
    for weights, _ in layers:
        network.parameters[weights]["weight"] *= gain
    x = np.random.default_rng(0).random((STEPS, BATCH, 5)) < 0.3
    y = np.asarray(simulate(network, x, engine=TimeStepped()).output())
    expected = np.stack(list(play(network, layers, x.astype(float), rule, graph.dialect.dt)))
    np.testing.assert_array_equal(y, expected)
    assert y.mean() > 0.03
    assert y.max() > 1 or rule is spikingjelly


def test_recurrent_current_based_layers_of_spyx(zoo, x64):
    """RCuBaLIF: the spike of the membrane before the step feeds back in this step; V loses it
    before it decays.
    """
    graph = read(zoo["spyx_c_rcubalif"], dialect="spyx")
    network = lower(graph, dtype=float)
    p = {
        name: {key: np.asarray(value) for key, value in node.items()}
        for name, node in network.parameters.items()
    }
    neuron = next(
        name for name, node in graph.nodes.items() if node.type == "CubaLIF" and "/" in name
    )
    back = next(name for name in graph.nodes if name.endswith("w_rec"))
    first = network.wires[1].name
    x = 3.0 * (np.random.default_rng(0).random((STEPS, BATCH, 5)) < 0.4)
    spikes = np.asarray(simulate(network, x, engine=TimeStepped(record=(neuron,))).spikes[neuron])
    own = p[neuron]
    i = v = 0.0
    for number, frame in enumerate(x):
        s = (v > own["v_threshold"]).astype(float) * np.ones((BATCH, 1))
        entering = frame @ p[first]["weight"].T + p[first].get("bias", 0) + s @ p[back]["weight"].T
        i = (1 - graph.dialect.dt / own["tau_syn"]) * i + entering
        v = own["r"] * (v - s * own["v_threshold"]) + i
        np.testing.assert_array_equal(spikes[number], s)
    assert 0.05 < spikes.mean() < 0.95


@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_sinabs_several_spikes_a_step(reset, zoo, x64):
    graph = read(zoo["sinabs_v_iaf"], dialect="sinabs", reset=reset)
    network = lower(graph, dtype=float)
    weights, neuron = network.wires[1].name, network.wires[2].name
    p = {
        key: np.asarray(value)
        for key, value in {**network.parameters[weights], **network.parameters[neuron]}.items()
    }
    x = 4.0 * (np.random.default_rng(1).random((STEPS, BATCH, 5)) < 0.4)
    spikes = np.asarray(simulate(network, x, engine=TimeStepped(record=(neuron,))).spikes[neuron])
    v = 0.0
    for number, frame in enumerate(x):
        v = v + frame @ p["weight"].T + p["bias"]
        s = several(v, p["v_threshold"])
        v = v - s * p["v_threshold"] if reset == "subtract" else np.where(s > 0, 0.0, v)
        np.testing.assert_array_equal(spikes[number], s)
    assert spikes.max() > 1


@pytest.mark.parametrize(
    ("dialect", "fires"),
    [("norse", False), ("spyx", False), ("sinabs", True), ("spikingjelly", True), ("nir", False)],
)
def test_a_membrane_at_its_threshold(dialect, fires):
    one = np.ones(1)
    rate = 1 / 1e-3 if dialect == "spikingjelly" else 1.0
    nodes = {"input": nir.Input(one.astype(int)), "w": nir.Linear(np.array([[0.5]]))}
    nodes |= {"n": nir.IF(r=rate * one, v_threshold=one), "output": nir.Output(one.astype(int))}
    edges = [("input", "w"), ("w", "n"), ("n", "output")]
    options = (
        {"time_unit": "s"} if dialect == "nir" else {"dt_export": 1} if dialect == "norse" else {}
    )
    network = lower(parse(nir.NIRGraph(nodes, edges), dialect=dialect, **options))
    y = simulate(
        network,
        np.ones((4, 1, 1)),
        engine=TimeStepped(dt=None if dialect == "spikingjelly" else 1e-3),
    ).output()
    # V is 0.5, 1, 1.5, ... ; Spyx says so one step later.
    expected = (
        {True: [0, 1, 0, 1], False: [0, 0, 1, 0]}[fires] if dialect != "spyx" else [0, 0, 0, 1]
    )
    assert y[:, 0, 0].tolist() == expected
