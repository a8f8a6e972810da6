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


def single(values):
    """The number that all neurons have."""
    assert values.ndim == 1
    (value,) = np.unique(values)
    return value


def layer(node, x):
    if isinstance(node, nir.Linear | nir.Affine):
        bias = np.float32(getattr(node, "bias", 0))
        return (x @ np.float32(node.weight).T + bias).astype(np.float32)
    spikes = isinstance(node, nir.LIF | nir.IF | nir.CubaLIF)
    assert isinstance(node, nir.IF) or not np.any(node.v_leak)
    assert not (spikes and np.any(node.v_reset))
    a, k = np.float32(0), np.float32(1)
    if isinstance(node, nir.IF):
        assert single(node.r) == 1
    else:
        tau = single(node.tau_mem if hasattr(node, "tau_mem") else node.tau)
        dt = tau / single(node.r)
        k = np.float32(1 - dt / tau)
        if hasattr(node, "tau_syn"):
            a = np.float32(1 - dt / single(node.tau_syn))
            np.testing.assert_allclose(node.w_in * dt / node.tau_syn, 1, rtol=1e-5)
    i, v, out = np.zeros_like(x[0]), np.zeros_like(x[0]), []
    for x_now in x:
        i = a * i + x_now
        v = k * v + i
        fired = spikes and v > np.float32(single(node.v_threshold))
        out.append(np.float32(fired) if spikes else v)
        v = np.where(fired, np.float32(0), v)
    return np.array(out)


def of(*layers, **options):
    options = {"dialect": "snntorch", "reset": "zero", "reset_delay": False} | options
    return build.sequential(build.input(5), *layers, seed=1, **options)


def linear(size, mean=0.3):
    return build.linear(size, weight=normal(mean, 0.5))


JELLY = {"dialect": "spikingjelly", "dt": 1e-4}
QUARTERS = build.linear(4, weight=np.full((4, 5), 0.25))
#: Network; seed, shape and probability of the input; bounds of the activity.
SOURCES = {
    **{
        name: (lambda name=name: network(name, "zero"), (0, (40, 4, 5), 0.4), 0.03, 1)
        for name in ("snntorch", "norse", "spikingjelly")
    },
    **{
        name: (lambda neuron=neuron: of(linear(4), neuron), (1, (60, 3, 5), 0.3), 0.02, 0.98)
        for name, neuron in {
            "a current": build.cubalif(tau_mem=1e-3, tau_syn=5e-4, r=10.0, w_in=5.0),
            "no decay": build.lif(tau=1e-4, r=1.0),
            "thresholds": build.lif(tau=1e-3, r=10.0, v_threshold=np.array([1.0, 2.0, 0.5, 0.75])),
        }.items()
    },
    "a reset to another voltage": (
        lambda: build.sequential(
            build.input(5), linear(4, 0.6), build.lif(tau=1e-3, r=1.0, v_reset=0.25, v_leak=0.25),
            seed=1, initial="v_reset", **JELLY,
        ),
        (1, (60, 3, 5), 0.4),
        0.05,
        0.5,
    ),
    # SpikingJelly fires at V = v_threshold, snn-mlir only above it.
    "integrate and fire at its threshold": (
        lambda: of(QUARTERS, build.integrate_and_fire(r=1e4), **JELLY),
        (2, (40, 3, 5), 0.3),
        0,
        1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SOURCES)
def test_converted_files_fire_the_spikes_of_the_source(name, tmp_path):
    make, raster, low, high = SOURCES[name]
    graph, x = make(), random_raster(*raster)
    y = played(graph, x)
    assert low < y.mean() < high
    conversion = convert(graph, to="snn_mlir")
    write(tmp_path / "x.nir", conversion.graph)
    np.testing.assert_array_equal(compiled(tmp_path / "x.nir", x), y)
    np.testing.assert_array_equal(played(conversion.graph, x), y)
    assert conversion.losses == ()
    assert any("not tested by running it" in note for note in conversion.notes)


@pytest.mark.parametrize(
    "readout",
    [build.li(tau=1e-3, r=10.0), build.cubali(tau_mem=1e-3, tau_syn=5e-4, r=10.0, w_in=5.0)],
)
def test_its_dialect_and_a_readout_that_gives_its_membrane(readout, tmp_path):
    layers = linear(4), build.lif(tau=1e-3, r=10.0), linear(2), readout
    graph = of(*layers, dialect="snn_mlir", dt=1e-4)
    x = random_raster(3, (40, 3, 5), 0.3)
    for written in (graph, convert(graph, to="snn_mlir").graph):
        write(tmp_path / "x.nir", written, force=True)
        np.testing.assert_allclose(compiled(tmp_path / "x.nir", x), played(graph, x), atol=1e-5)


def test_its_ends_have_the_names_that_it_asks_for(tmp_path):
    nodes = {"a": build.input(5), "output": linear(4), "input": build.lif(tau=1e-3, r=10.0)}
    nodes["b"] = build.output(4)
    options = {"dialect": "snntorch", "reset": "zero", "reset_delay": False}
    graph = build.network(nodes, [("a", "output", "input", "b")], seed=1, **options)
    conversion = convert(graph, to="snn_mlir")
    assert (conversion.graph.inputs, conversion.graph.outputs) == (("input",), ("output",))
    renamed = {change.node for change in conversion.changes}
    assert renamed >= {"input", "output", "input_", "output_"}
    x = random_raster(4, (40, 3, 5), 0.3)
    write(tmp_path / "x.nir", conversion.graph)
    np.testing.assert_array_equal(compiled(tmp_path / "x.nir", x), played(graph, x))


@pytest.mark.parametrize(
    ("target", "fails"), [("snn_mlir", True), ("sinabs", True), ("snntorch", False)]
)
def test_importers_that_fail_on_one_number_for_all_neurons_are_reported(target, fails):
    neurons = nir.LIF(*(np.array(value) for value in (1e-3, 10.0, 0.0, 1.0)))
    nodes = {"w": nir.Linear(np.ones((4, 3))), "n": neurons, "input": nir.Input(np.array([3]))}
    nodes["output"] = nir.Output(np.array([4]))
    edges = [("input", "w"), ("w", "n"), ("n", "output")]
    graph = parse(nir.NIRGraph(nodes, edges, type_check=False), dialect="nir", dt="100us")
    assert ("scalar" in {problem.code for problem in check(graph, target).problems}) is fails
