"""Sinabs and Rockpool as targets: several spikes in a step, whole layers at once.

What is written is read back by the target's own dialect, and fires the source's spikes.
"""

import numpy as np
import pytest

from jaxsnn.nir import build, read, write
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.initializers import normal
from tests.helpers.random_spikes import random_raster
from tests.nir.conversions import network, played

R = 10 * np.exp(-0.1)
SINABS_LEAKY = {"dt": "1ms", "norm_input": False}
OPTIONS = {
    "sinabs": SINABS_LEAKY,
    "averaging": {"dialect": "sinabs", "dt": "1ms", "norm_input": True},
    "bounded": {"dialect": "sinabs", "dt": "1ms", "min_v_mem": -1.0},
    "rockpool": {"dt": "1ms"},
}
NEURONS = {
    "sinabs": lambda: build.lif(tau=10.0, r=1.0),
    "averaging": lambda: build.lif(tau=2.0, r=1.0, v_threshold=0.3),
    "bounded": lambda: build.integrate_and_fire(r=1.0),
    "rockpool": lambda: build.cubalif(tau_mem=10e-3, tau_syn=5e-3, r=R, v_threshold=2.0),
}


def network_of(kind):
    """Two layers of a kind of neurons that fire several spikes in a step."""
    layers = [part for n in (8, 4) for part in (linear(n), NEURONS[kind]())]
    return build.sequential(build.input(5), *layers, seed=1, **{"dialect": kind} | OPTIONS[kind])


def linear(size, mean=0.3):
    return build.linear(size, weight=normal(mean, 0.5))


def convolution(weight, bias, padding=1, groups=1):
    window = {"stride": [1, 1], "padding": [padding] * 2, "dilation": [1, 1], "groups": groups}
    return build.node("Conv2d", weight=weight, bias=np.array(bias), **window)


def sinabs(shape, *layers, **options):
    options = {"dialect": "sinabs"} | (options or SINABS_LEAKY)
    return build.sequential(build.input(shape), *layers, seed=1, **options)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        *((source, "sinabs") for source in NEURONS),
        *((source, "rockpool") for source in ("sinabs", "averaging", "rockpool")),
    ],
)
def test_there_and_back_with_several_spikes_in_a_step(source, target):
    graph = network_of(source)
    x = random_raster(0, (40, 4, 5), 0.4)
    y = played(graph, x)
    assert y.max() > 2
    there = convert(graph, to=target).graph
    assert there.dialect.name == target
    np.testing.assert_array_equal(played(there, x), y)
    # Files contain no lower bound, and Rockpool does not support LI, Sinabs' synaptic current.
    if source != "bounded" and (source, target) != ("rockpool", "sinabs"):
        back = convert(there, to=graph.dialect.name).graph
        np.testing.assert_array_equal(played(back, x), y)


@pytest.mark.parametrize(("tau", "v_threshold"), [(10.0, 1.0), (None, 1.5)])
def test_membranes_whose_lower_bound_is_left_out_keep_all_else(tau, v_threshold):
    """Sinabs's importer bounds IF alone, and by -v_threshold: the others are LIF without a bound."""
    weight = np.random.default_rng(3).uniform(0.05, 0.3, (4, 5))
    neuron = (
        build.integrate_and_fire(r=1.0, v_threshold=v_threshold)
        if tau is None
        else build.lif(tau=tau, r=1.0, v_threshold=v_threshold)
    )
    parts = build.input(5), build.linear(4, weight=weight), neuron
    graph = build.sequential(*parts, dialect="sinabs", min_v_mem=-1.0, **SINABS_LEAKY)
    there = convert(graph, to="sinabs", approximate=True)
    assert [node.type for node in there.graph.nodes.values() if node.traits.state] == ["LIF"]
    assert [
        "2: its membrane potential has the lower bound -1" in loss for loss in there.losses
    ] == [True]
    assert there.graph.dialect.option("min_v_mem", "2") == "none"
    x = random_raster(0, (40, 4, 5), 0.4)  # above 0 the bound has no effect
    np.testing.assert_array_equal(played(there.graph, x), played(graph, x))


@pytest.mark.parametrize(
    ("source", "reset"),
    [
        ("snntorch", "zero"),
        ("norse", "zero"),
        ("spikingjelly", "zero"),
        ("spikingjelly", "subtract"),
    ],
)
def test_one_spike_a_step_in_sinabs_by_the_line_that_loads_it(source, reset):
    graph = network(source, reset)
    x = random_raster(0, (40, 4, 5), 0.4)
    y = played(graph, x)
    there = convert(graph, to="sinabs")
    np.testing.assert_array_equal(played(there.graph, x), y)
    assert y.mean() > 0.03
    assert y.max() == 1
    assert "SingleSpike" in there.load_with
    assert ("MembraneReset()" in there.load_with) == (reset == "zero")
    np.testing.assert_array_equal(played(convert(there.graph, to=source).graph, x), y)


def test_a_current_is_a_layer_of_its_own_in_sinabs():
    conversion = convert(network_of("rockpool"), to="sinabs")
    assert [conversion.graph.nodes[name].type for name in ("2_current", "2")] == ["LI", "LIF"]
    assert "2_current" not in conversion.load_with


def test_numbers_of_sinabs_are_single():
    """Its layers would give float64 otherwise, which its Linear refuses."""
    nodes = convert(network_of("averaging"), to="sinabs").graph.nodes
    dtypes = {np.asarray(value).dtype for value in nodes["2"].parameters.values()}
    assert dtypes == {np.dtype(np.float32)}
    assert nodes["1"].type == "Affine"


@pytest.mark.parametrize(
    ("kind", "types"), [("sinabs", {"LIF", "Affine"}), ("bounded", {"IF", "Conv2d"})]
)
def test_convolutions_with_leaky_neurons_are_matrices_in_sinabs(kind, types):
    weight = np.random.default_rng(0).normal(0.3, 0.5, (3, 2, 3, 3)).astype(np.float32)
    layers = convolution(weight, np.zeros(3, np.float32)), NEURONS[kind]()
    graph = sinabs((2, 5, 5), *layers, **OPTIONS[kind])
    converted = convert(graph, to="sinabs").graph
    written = {node.type for node in converted.nodes.values()}
    assert written & {"LIF", "IF", "Affine", "Conv2d"} == types
    x = random_raster(0, (20, 2, 2, 5, 5), 0.3)
    y = played(graph, x)
    np.testing.assert_array_equal(played(converted, x).reshape(y.shape), y)


def test_a_readout_of_sinabs():
    layers = build.linear(4), build.lif(tau=10.0, r=1.0), build.linear(2), build.li(tau=5.0, r=1.0)
    graph = sinabs(3, *layers)
    x = random_raster(0, (20, 2, 3), 0.5)
    y = played(convert(graph, to="sinabs").graph, x)
    np.testing.assert_allclose(y, played(graph, x), rtol=1e-5, atol=1e-6)


def test_the_step_that_rockpool_takes():
    nodes = convert(network_of("sinabs"), to="rockpool", dt="2ms").graph.nodes
    for name in ("2", "4"):
        tau, r = (np.asarray(nodes[name].value(key)) for key in ("tau_mem", "r"))
        np.testing.assert_allclose(tau / (1 + r), 2e-3, rtol=1e-12)
        np.testing.assert_allclose(np.exp(-2e-3 / tau), np.exp(-0.1), rtol=1e-12)


@pytest.mark.parametrize("source", ["sinabs", "averaging"])
def test_a_file_for_rockpool_is_read_as_its_importer_does(source, tmp_path):
    graph = network_of(source)
    x = random_raster(0, (40, 4, 5), 0.4)
    write(tmp_path / "a.nir", convert(graph, to="rockpool").graph)
    reread = read(tmp_path / "a.nir", dialect="rockpool==importer")
    assert reread.dialect.dt == pytest.approx(1e-3)
    np.testing.assert_array_equal(played(reread, x), played(graph, x))


def grouped(*groups):
    """Convolutions of 4 channels in groups, each before neurons."""
    rng, layers = np.random.default_rng(0), []
    for number in groups:
        weight = rng.uniform(0, 1.5, (4, 4 // number, 1, 1))
        layers += [convolution(weight, np.zeros(4), padding=0, groups=number)]
        layers += [build.integrate_and_fire(r=1.0, v_threshold=1.0)]
    return sinabs((4, 2, 2), *layers)


def flattened():
    """Neurons behind a Flatten."""
    kernel = np.random.default_rng(0).normal(0.3, 0.5, (2, 1, 3, 3))
    flatten = build.node("Flatten", start_dim=0, end_dim=-1, input_type=[2, 3, 4])
    hidden, last = (build.integrate_and_fire(r=1.0, v_threshold=level) for level in (0.7, 1.0))
    layers = convolution(kernel, [0.05, 0.1]), flatten, hidden, linear(3, 0.1), last
    return sinabs((1, 3, 4), *layers)


def behind_a_membrane(weight):
    """A readout adds up to 1 / (1 - exp(-1/20)) = 20 spikes; what holds it acts on copies late."""
    neurons = build.li(tau=20.0, r=1.0), build.lif(tau=10.0)
    return sinabs(1, build.linear(1, weight=[[weight]]), *neurons)


THREE = ("snntorch", "norse", "spikingjelly")
#: Networks with several spikes of a neuron per step, which become several neurons: function, shape
#: and probability of the input, whether outputs have several spikes, and targets.
COPIED = {
    **{
        f"channels in groups {groups}": (
            lambda groups=groups: grouped(*groups), (20, 2, 4, 2, 2), 0.3, True, THREE[1:],
        )
        for groups in [(1, 2), (2, 1), (2, 2), (1, 4)]
    },
    "behind a Flatten": (flattened, (20, 2, 1, 3, 4), 0.3, True, THREE),
    "behind a weak membrane": (
        lambda: behind_a_membrane(0.11), (40, 3, 1), 0.6, False, THREE,
    ),
    "behind a membrane": (lambda: behind_a_membrane(0.53), (40, 3, 1), 0.6, True, THREE),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "target"), [(name, target) for name in COPIED for target in COPIED[name][-1]]
)
def test_what_follows_takes_all_copies_of_a_neuron(name, target):
    make, shape, probability, several, _ = COPIED[name]
    graph, x = make(), random_raster(0, shape, probability)
    y = played(graph, x)
    assert y.max() > 1 or not several
    converted = convert(graph, to=target).graph
    np.testing.assert_array_equal(played(converted, x).reshape(y.shape), y)


def test_changes_of_neurons_that_are_written_as_several_name_no_equal_numbers():
    layers = build.linear(weight=np.full((3, 3), 5.0)), build.lif(tau=2.0, r=1.0)
    graph = sinabs(3, *layers, **SINABS_LEAKY, reset="subtract")
    changes = convert(graph, to="spikingjelly").changes
    (change,) = [change.what for change in changes if " tau " in change.what]
    assert "v_reset" not in change
    assert "in between" not in change
