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
SAID = {
    "sinabs": {"dt": "1ms", "norm_input": False},
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


def layers(kind, size=5, weight=None):
    weight = normal(0.3, 0.5) if weight is None else weight
    found = [layer for n in (8, 4) for layer in (build.linear(n, weight=weight), NEURONS[kind]())]
    said = {"dialect": kind} | SAID[kind]
    return build.sequential(build.input(size), *found, seed=1, **said)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        *((source, "sinabs") for source in NEURONS),
        *((source, "rockpool") for source in ("sinabs", "averaging", "rockpool")),
    ],
)
def test_there_and_back_with_several_spikes_in_a_step(source, target):
    graph = layers(source)
    x = random_raster(0, (40, 4, 5), 0.4)
    y = played(graph, x)
    assert y.max() > 2
    there = convert(graph, to=target)
    assert there.graph.dialect.name == target
    np.testing.assert_array_equal(played(there.graph, x), y)
    name = graph.dialect.name
    # A lower bound is in no file, and Rockpool takes no LI, which a current is in Sinabs.
    if source != "bounded" and (source, target) != ("rockpool", "sinabs"):
        assert name is not None
        np.testing.assert_array_equal(played(convert(there.graph, to=name).graph, x), y)


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
    graph = build.sequential(*parts, dialect="sinabs", min_v_mem=-1.0, **SAID["sinabs"])
    there = convert(graph, to="sinabs", approximate=True)
    assert [node.type for node in there.graph.nodes.values() if node.traits.state] == ["LIF"]
    assert ["2: its membrane never falls below -1" in loss for loss in there.losses] == [True]
    assert there.graph.dialect.option("min_v_mem", "2") == "none"
    x = random_raster(0, (40, 4, 5), 0.4)  # above 0 the bound changes nothing
    np.testing.assert_array_equal(played(there.graph, x), played(graph, x))


@pytest.mark.parametrize(
    ("source", "reset", "sets"),
    [
        ("snntorch", "zero", ("SingleSpike", "MembraneReset()")),
        ("norse", "zero", ("SingleSpike", "MembraneReset()")),
        ("spikingjelly", "zero", ("SingleSpike", "MembraneReset()")),
        ("spikingjelly", "subtract", ("SingleSpike",)),
    ],
)
def test_one_spike_a_step_in_sinabs_by_the_line_that_loads_it(source, reset, sets):
    graph = network(source, reset)
    x = random_raster(0, (40, 4, 5), 0.4)
    y = played(graph, x)
    there = convert(graph, to="sinabs")
    np.testing.assert_array_equal(played(there.graph, x), y)
    assert y.mean() > 0.03
    assert y.max() == 1
    assert all(word in there.load_with for word in sets)
    assert ("MembraneReset" in there.load_with) == (reset == "zero")
    back = convert(there.graph, to=source)
    np.testing.assert_array_equal(played(back.graph, x), y)


def test_a_current_is_a_layer_of_its_own_in_sinabs():
    graph = layers("rockpool")
    made = convert(graph, to="sinabs")
    assert [made.graph.nodes[name].type for name in ("2_current", "2")] == ["LI", "LIF"]
    assert "2_current" not in made.load_with


def test_numbers_of_sinabs_are_single():
    """Its layers would give float64 otherwise, which its Linear refuses."""
    made = convert(layers("averaging"), to="sinabs").graph
    dtypes = {np.asarray(value).dtype for value in made.nodes["2"].parameters.values()}
    assert dtypes == {np.dtype(np.float32)}
    assert made.nodes["1"].type == "Affine"


def test_convolutions_with_leaky_neurons_are_matrices_in_sinabs():
    layer = build.node(
        "Conv2d",
        weight=np.random.default_rng(0).normal(0.3, 0.5, (3, 2, 3, 3)).astype(np.float32),
        bias=np.zeros(3, np.float32),
        **{"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1},
    )
    x = random_raster(0, (20, 2, 2, 5, 5), 0.3)
    for neuron, said, expected in (
        (NEURONS["sinabs"](), SAID["sinabs"], "LIF"),
        (NEURONS["bounded"](), SAID["bounded"], "IF"),
    ):
        graph = build.sequential(
            build.input((2, 5, 5)), layer, neuron, **{"dialect": "sinabs"} | said
        )
        made = convert(graph, to="sinabs").graph
        kinds = {node.type for node in made.nodes.values()}
        assert expected in kinds
        assert ("Conv2d" in kinds) == (expected == "IF")
        y = played(graph, x)
        np.testing.assert_array_equal(played(made, x).reshape(y.shape), y)


def test_a_readout_of_sinabs():
    graph = build.sequential(
        build.input(3),
        build.linear(4),
        build.lif(tau=10.0, r=1.0),
        build.linear(2),
        build.li(tau=5.0, r=1.0),
        seed=0,
        dialect="sinabs",
        **SAID["sinabs"],
    )
    x = random_raster(0, (20, 2, 3), 0.5)
    made = convert(graph, to="sinabs").graph
    np.testing.assert_allclose(played(made, x), played(graph, x), rtol=1e-5, atol=1e-6)


def test_the_step_that_rockpool_takes():
    made = convert(layers("sinabs"), to="rockpool", dt="2ms").graph
    for name in ("2", "4"):
        tau, r = (np.asarray(made.nodes[name].value(key)) for key in ("tau_mem", "r"))
        np.testing.assert_allclose(tau / (1 + r), 2e-3, rtol=1e-12)
        np.testing.assert_allclose(np.exp(-2e-3 / tau), np.exp(-0.1), rtol=1e-12)


@pytest.mark.parametrize("source", ["sinabs", "averaging"])
def test_a_file_for_rockpool_is_read_as_its_importer_does(source, tmp_path):
    graph = layers(source)
    x = random_raster(0, (40, 4, 5), 0.4)
    write(tmp_path / "a.nir", convert(graph, to="rockpool").graph)
    again = read(tmp_path / "a.nir", dialect="rockpool==importer")
    assert again.dialect.dt == pytest.approx(1e-3)
    np.testing.assert_array_equal(played(again, x), played(graph, x))


@pytest.mark.parametrize("groups", [(1, 2), (2, 1), (2, 2), (1, 4)])
@pytest.mark.parametrize("target", ["norse", "spikingjelly"])
def test_copies_of_neurons_are_channels_of_no_group(groups, target):
    """A neuron that fires several spikes in a step is written as several, and what follows takes
    them all, whatever its groups are."""
    rng = np.random.default_rng(0)
    window = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1]}
    found = []
    for number in groups:
        weight = rng.uniform(0, 1.5, (4, 4 // number, 1, 1))
        bias = np.zeros(4)
        found += [build.node("Conv2d", weight=weight, bias=bias, groups=number, **window)]
        found += [build.integrate_and_fire(r=1.0, v_threshold=1.0)]
    said = {"dialect": "sinabs", "dt": "1ms", "norm_input": False}
    graph = build.sequential(build.input((4, 2, 2)), *found, **said)
    x = random_raster(0, (20, 2, 4, 2, 2), 0.3)
    y = played(graph, x)
    assert y.max() > 1
    made = convert(graph, to=target)
    np.testing.assert_array_equal(played(made.graph, x).reshape(y.shape), y)


def test_changes_of_neurons_that_are_written_as_several_name_no_equal_numbers():
    said = {"dialect": "sinabs", "dt": "1ms", "norm_input": False, "reset": "subtract"}
    neurons = build.lif(tau=2.0, r=1.0)
    graph = build.sequential(
        build.input(3), build.linear(weight=np.full((3, 3), 5.0)), neurons, **said
    )
    (change,) = [
        change.what
        for change in convert(graph, to="spikingjelly").changes
        if " tau " in change.what
    ]
    assert "v_reset" not in change
    assert "in between" not in change


@pytest.mark.parametrize("target", ["snntorch", "norse", "spikingjelly"])
def test_copies_behind_a_flatten(target):
    window = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1}
    kernel = np.random.default_rng(0).normal(0.3, 0.5, (2, 1, 3, 3))
    layers = [build.node("Conv2d", weight=kernel, bias=np.array([0.05, 0.1]), **window)]
    layers += [
        build.node("Flatten", start_dim=0, end_dim=-1, input_type=[2, 3, 4]),
        build.integrate_and_fire(r=1.0, v_threshold=0.7),
    ]
    layers += [build.linear(3, weight=normal(0.1, 0.5)), build.integrate_and_fire(r=1.0)]
    graph = build.sequential(
        build.input((1, 3, 4)), *layers, seed=1, dialect="sinabs", **SAID["sinabs"]
    )
    x = random_raster(0, (20, 2, 1, 3, 4), 0.3)
    y = played(graph, x)
    assert y.max() > 1
    np.testing.assert_array_equal(played(convert(graph, to=target).graph, x), y)


@pytest.mark.parametrize("target", ["snntorch", "norse", "spikingjelly"])
@pytest.mark.parametrize("weight", [0.11, 0.53])
def test_membranes_that_feed_neurons_reach_more_than_spikes(weight, target):
    """A readout adds up to 1 / (1 - exp(-1/20)) = 20 spikes; what holds it acts on copies late."""
    layers = [build.linear(1, weight=[[weight]]), build.li(tau=20.0, r=1.0), build.lif(tau=10.0)]
    graph = build.sequential(build.input(1), *layers, dialect="sinabs", **SAID["sinabs"])
    x = random_raster(0, (40, 3, 1), 0.6)
    y = played(graph, x)
    assert y.max() > 1 or weight < 0.2
    made = convert(graph, to=target)
    np.testing.assert_array_equal(played(made.graph, x), y)
