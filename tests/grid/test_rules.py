"""Rules of frameworks for which there is no recording, on their own files, against their equations
in NumPy.
"""

import itertools

import nir
import numpy as np
import pytest

from jaxsnn import TimeStepped, lower, simulate
from jaxsnn.nir import build, parse, read
from tests.oracles import framework_steps

STEPS, BATCH = 80, 6


def arrays_of(network):
    """The parameters of all nodes as NumPy arrays."""
    return {
        name: {key: np.asarray(value) for key, value in node.items()}
        for name, node in network.parameters.items()
    }


@pytest.mark.parametrize(
    ("name", "rule", "gain"),
    [
        ("rockpool_b_liftorch", framework_steps.rockpool, 1),
        ("rockpool_b_liftorch_nobias", framework_steps.rockpool, 1),
        ("spikingjelly_b_cubalif", framework_steps.spikingjelly, 2),
    ],
)
def test_current_based_layers(name, rule, gain, zoo, x64):
    graph = read(zoo[name], dialect=name.split("_")[0])
    network = lower(graph, dtype=float)
    order = [wire.name for wire in network.wires if wire.kind not in ("input", "output")]
    layers = list(zip(order[::2], order[1::2], strict=True))
    for weights, _ in layers:
        network.parameters[weights]["weight"] *= gain
    x = np.random.default_rng(0).random((STEPS, BATCH, 5)) < 0.3
    y = np.asarray(simulate(network, x, engine=TimeStepped()).output())
    p = arrays_of(network)
    parts = [(p[w]["weight"], p[w].get("bias", 0.0), p[neuron]) for w, neuron in layers]
    rockpool = rule is framework_steps.rockpool
    # SpikingJelly starts at v_reset, Rockpool at 0.
    starts = [0.0 if rockpool else neuron["v_reset"] for _, _, neuron in parts]
    expected = framework_steps.layers(parts, x.astype(float), rule, starts, graph.dialect.dt)
    np.testing.assert_array_equal(y, expected)
    assert y.mean() > 0.03
    assert y.max() > 1 or not rockpool


def test_recurrent_current_based_layers_of_spyx(zoo, x64):
    """RCuBaLIF: its feedback takes no step."""
    graph = read(zoo["spyx_c_rcubalif"], dialect="spyx")
    network = lower(graph, dtype=float)
    p = arrays_of(network)
    neuron = next(
        name for name, node in graph.nodes.items() if node.type == "CubaLIF" and "/" in name
    )
    back = next(name for name in graph.nodes if name.endswith("w_rec"))
    first = network.wires[1].name
    x = 3.0 * (np.random.default_rng(0).random((STEPS, BATCH, 5)) < 0.4)
    spikes = np.asarray(simulate(network, x, engine=TimeStepped(record=(neuron,))).spikes[neuron])
    i, v = 0.0, np.zeros((BATCH, 1))
    for number, frame in enumerate(x):
        entering = frame @ p[first]["weight"].T + p[first].get("bias", 0)
        i, v, expected = framework_steps.spyx_recurrent(
            p[neuron], i, v, entering, lambda s: s @ p[back]["weight"].T, graph.dialect.dt
        )
        np.testing.assert_array_equal(spikes[number], expected)
    assert 0.05 < spikes.mean() < 0.95


@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_sinabs_several_spikes_a_step(reset, zoo, x64):
    graph = read(zoo["sinabs_v_iaf"], dialect="sinabs", reset=reset)
    network = lower(graph, dtype=float)
    weights, neuron = network.wires[1].name, network.wires[2].name
    p = arrays_of(network)
    x = 4.0 * (np.random.default_rng(1).random((STEPS, BATCH, 5)) < 0.4)
    spikes = np.asarray(simulate(network, x, engine=TimeStepped(record=(neuron,))).spikes[neuron])
    v = 0.0
    for number, frame in enumerate(x):
        arriving = frame @ p[weights]["weight"].T + p[weights]["bias"]
        v, expected = framework_steps.sinabs(p[neuron], v, arriving, reset)
        np.testing.assert_array_equal(spikes[number], expected)
    assert spikes.max() > 1


@pytest.mark.parametrize(
    ("dialect", "options", "r", "dt", "expected"),
    [
        ("norse", {"dt_export": 1}, 1.0, 1e-3, [0, 0, 1, 0]),
        ("spyx", {}, 1.0, 1e-3, [0, 0, 0, 1]),  # Spyx outputs spikes one step later
        ("sinabs", {}, 1.0, 1e-3, [0, 1, 0, 1]),
        ("spikingjelly", {}, 1e3, None, [0, 1, 0, 1]),
        ("nir", {"time_unit": "s"}, 1.0, 1e-3, [0, 0, 1, 0]),
    ],
)
def test_a_membrane_at_its_threshold(dialect, options, r, dt, expected):
    """V is 0.5, 1, 1.5, ..."""
    ones = np.ones(1)
    nodes = {"input": nir.Input(ones.astype(int)), "w": nir.Linear(np.array([[0.5]]))}
    nodes |= {"n": nir.IF(r=r * ones, v_threshold=ones), "output": nir.Output(ones.astype(int))}
    graph = nir.NIRGraph(nodes, list(itertools.pairwise(nodes)))
    network = lower(parse(graph, dialect=dialect, **options))
    y = simulate(network, np.ones((4, 1, 1)), engine=TimeStepped(dt=dt)).output()
    assert y[:, 0, 0].tolist() == expected


@pytest.mark.parametrize(
    ("size", "reset_by"),
    [
        ("v_threshold", lambda v, fires: 0.8 * fires),
        ("1", lambda v, fires: fires),
        ("floor", lambda v, fires: np.maximum(np.floor(v), 0)),
        ("rounded-floor", lambda v, fires: np.maximum(np.floor(v * (1 + 2.0**-20)), 0)),
    ],
)
def test_what_a_reset_of_norse_s_importer_takes_off(size, reset_by, x64):
    neurons = build.cubalif(tau_mem=10e-3, tau_syn=5e-3, v_threshold=0.8)
    layers = build.input(2), build.linear(weight=8 * np.eye(2)), neurons
    options = {"reset": "subtract", "reset_size": size, "dt": 1e-3}
    graph = build.sequential(*layers, dialect="norse==importer", **options)
    x = (np.random.default_rng(0).random((40, 3, 2)) < 0.5).astype(float)
    solution = simulate(lower(graph, dtype=float), x, engine=TimeStepped(record=("2",)))
    i = v = np.zeros((3, 2))
    for frame, membrane, spikes in zip(x, solution.voltages["2"], solution.output(), strict=True):
        i = i + 0.2 * (8 * frame - i)
        v = v + 0.1 * (i - v)
        fires = v > 0.8
        v = v - reset_by(v, fires)
        np.testing.assert_array_equal(spikes, fires)
        np.testing.assert_allclose(membrane, v, atol=1e-12)
    assert 0.2 < solution.output().mean() < 0.5
