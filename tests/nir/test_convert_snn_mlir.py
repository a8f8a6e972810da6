"""snn-mlir as a target: what is written is run here as its source says, layer by layer in NumPy."""

import nir
import numpy as np
import pytest

from jaxsnn.compatibility.checks import check
from jaxsnn.nir import build, parse, write
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.initializers import normal
from tests.helpers.random_spikes import random_raster
from tests.nir.conversions import network, played


def compiled(path, x):
    """What the compiled network gives for x (time, batch, inputs), in float32, with the checks of
    snn-mlir's reader.
    """
    graph = nir.read(path)
    name, y = "input", np.asarray(x, np.float32)
    while name != "output":
        (name,) = [target for source, target in graph.edges if source == name]
        y = layer(graph.nodes[name], y) if name != "output" else y
    return y


def one(values):
    assert values.ndim == 1
    (value,) = np.unique(values)
    return value


def layer(node, x):
    if isinstance(node, nir.Linear | nir.Affine):
        bias = np.float32(getattr(node, "bias", 0))
        return (x @ np.float32(node.weight).T + bias).astype(np.float32)
    spikes = isinstance(node, nir.LIF | nir.IF | nir.CubaLIF)
    if not isinstance(node, nir.IF):
        assert not np.any(node.v_leak)
    if spikes:
        assert not np.any(node.v_reset)
    a = np.float32(0)
    if isinstance(node, nir.IF):
        assert one(node.r) == 1
        k = np.float32(1)
    else:
        tau = one(node.tau_mem if hasattr(node, "tau_mem") else node.tau)
        dt = tau / one(node.r)
        k = np.float32(1 - dt / tau)
        if hasattr(node, "tau_syn"):
            a = np.float32(1 - dt / one(node.tau_syn))
            np.testing.assert_allclose(node.w_in * dt / node.tau_syn, 1, rtol=1e-5)
    i, v, out = np.zeros_like(x[0]), np.zeros_like(x[0]), []
    for now in x:
        i = a * i + now
        v = k * v + i
        if not spikes:
            out.append(v)
            continue
        fired = v > np.float32(one(node.v_threshold))
        out.append(fired.astype(np.float32))
        v = np.where(fired, np.float32(0), v)
    return np.array(out)


@pytest.mark.parametrize("source", ["snntorch", "norse", "spikingjelly"])
def test_it_fires_the_spikes_of_the_source(source, tmp_path):
    graph = network(source, "zero")
    x = random_raster(0, (40, 4, 5), 0.4)
    y = played(graph, x)
    made = convert(graph, to="snn_mlir")
    write(tmp_path / "x.nir", made.graph)
    np.testing.assert_array_equal(compiled(tmp_path / "x.nir", x), y)
    np.testing.assert_array_equal(played(made.graph, x), y)
    assert y.mean() > 0.03
    assert any("was not run" in note for note in made.notes)


def of(*layers, **said):
    said = {"dialect": "snntorch", "reset": "zero", "reset_delay": False} | said
    return build.sequential(build.input(5), *layers, seed=1, **said)


def linear(size, mean=0.3):
    return build.linear(size, weight=normal(mean, 0.5))


@pytest.mark.parametrize(
    "neuron",
    [
        lambda **said: build.cubalif(tau_mem=1e-3, tau_syn=5e-4, r=10.0, w_in=5.0, **said),
        lambda **said: build.lif(tau=1e-4, r=1.0, **said),
        lambda **said: build.lif(
            tau=1e-3, r=10.0, v_threshold=np.array([1.0, 2.0, 0.5, 0.75]), **said
        ),
    ],
)
def test_currents_no_decay_and_thresholds(neuron, tmp_path):
    graph = of(linear(4), neuron())
    x = random_raster(1, (60, 3, 5), 0.3)
    y = played(graph, x)
    write(tmp_path / "x.nir", convert(graph, to="snn_mlir").graph)
    np.testing.assert_array_equal(compiled(tmp_path / "x.nir", x), y)
    assert 0.02 < y.mean() < 0.98


def test_a_reset_to_another_voltage_is_counted_from_there(tmp_path):
    said = {"dialect": "spikingjelly", "dt": 1e-4, "initial": "v_reset"}
    neuron = build.lif(tau=1e-3, r=1.0, v_reset=0.25, v_leak=0.25)
    graph = build.sequential(build.input(5), linear(4, 0.6), neuron, seed=1, **said)
    x = random_raster(1, (60, 3, 5), 0.4)
    y = played(graph, x)
    made = convert(graph, to="snn_mlir")
    write(tmp_path / "x.nir", made.graph)
    np.testing.assert_array_equal(compiled(tmp_path / "x.nir", x), y)
    assert 0.05 < y.mean() < 0.5
    assert made.losses == ()


def test_integrate_and_fire_at_its_threshold(tmp_path):
    """SpikingJelly fires at the threshold, snn-mlir above it."""
    said = {"dialect": "spikingjelly", "reset": "zero", "reset_delay": None, "dt": 1e-4}
    graph = of(
        build.linear(4, weight=np.full((4, 5), 0.25)),
        build.integrate_and_fire(r=1e4),
        **{key: value for key, value in said.items() if value is not None},
    )
    x = random_raster(2, (40, 3, 5), 0.3)
    y = played(graph, x)
    write(tmp_path / "x.nir", convert(graph, to="snn_mlir").graph)
    np.testing.assert_array_equal(compiled(tmp_path / "x.nir", x), y)
    assert y.any()


@pytest.mark.parametrize(
    "readout",
    [build.li(tau=1e-3, r=10.0), build.cubali(tau_mem=1e-3, tau_syn=5e-4, r=10.0, w_in=5.0)],
)
def test_its_dialect_and_a_readout_that_gives_its_membrane(readout, tmp_path):
    graph = of(
        linear(4),
        build.lif(tau=1e-3, r=10.0),
        linear(2),
        readout,
        dialect="snn_mlir",
        dt=1e-4,
    )
    x = random_raster(3, (40, 3, 5), 0.3)
    write(tmp_path / "y.nir", graph)
    np.testing.assert_allclose(compiled(tmp_path / "y.nir", x), played(graph, x), atol=1e-5)
    write(tmp_path / "x.nir", convert(graph, to="snn_mlir").graph)
    np.testing.assert_allclose(compiled(tmp_path / "x.nir", x), played(graph, x), atol=1e-5)


def test_its_ends_have_the_names_that_it_asks_for(tmp_path):
    nodes = {
        **{"a": build.input(5), "output": linear(4), "input": build.lif(tau=1e-3, r=10.0)},
        "b": build.output(4),
    }
    said = {"dialect": "snntorch", "reset": "zero", "reset_delay": False}
    graph = build.network(nodes, [("a", "output", "input", "b")], seed=1, **said)
    made = convert(graph, to="snn_mlir")
    assert (made.graph.inputs, made.graph.outputs) == (("input",), ("output",))
    assert {change.node for change in made.changes} >= {"input", "output", "input_", "output_"}
    x = random_raster(4, (40, 3, 5), 0.3)
    write(tmp_path / "x.nir", made.graph)
    np.testing.assert_array_equal(compiled(tmp_path / "x.nir", x), played(graph, x))


@pytest.mark.parametrize(
    ("target", "told"), [("snn_mlir", True), ("sinabs", True), ("snntorch", False)]
)
def test_importers_that_fail_on_one_number_for_all_neurons_are_known(target, told):
    neurons = nir.LIF(*(np.array(value) for value in (1e-3, 10.0, 0.0, 1.0)))
    nodes = {"w": nir.Linear(np.ones((4, 3))), "n": neurons, "input": nir.Input(np.array([3]))}
    nodes["output"] = nir.Output(np.array([4]))
    edges = [("input", "w"), ("w", "n"), ("n", "output")]
    graph = parse(nir.NIRGraph(nodes, edges, type_check=False), dialect="nir", dt="100us")
    assert ("scalar" in {problem.code for problem in check(graph, target).problems}) is told
