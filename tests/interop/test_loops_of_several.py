"""Loops through several populations: what is written for an importer fires there what the source
fires, and what we read back from it.
"""

import functools

import numpy as np
import pytest

from jaxsnn import EventDriven, Events, lower, simulate
from jaxsnn.errors import ConversionError, LoweringError
from jaxsnn.nir import build, read
from jaxsnn.nir.convert.pipeline import convert
from tests.helpers.refusals import assert_refused
from tests.interop.drawn import drawn_with_loops, spikes_into
from tests.interop.players import import_and_play, run_in_steps

pytestmark = pytest.mark.interop
FRAMEWORKS = ("snntorch", "norse", "spikingjelly")


def fires_the_same(graph, target, folder, seed):
    """Assert that the target's importer of a conversion, and what is read back from its file, give what
    the graph gives; return whether that is anything.
    """
    x, path = spikes_into(graph, seed), folder / "made.nir"
    y = run_in_steps(graph, x)
    _, imported = import_and_play(graph, target, x, path)
    np.testing.assert_array_equal(imported, y)
    np.testing.assert_array_equal(run_in_steps(read(path), x), y)  # metadata specify the dialect
    return y.any()


# Cases: a population that also feeds itself; one that was split by its time constants.
@pytest.mark.parametrize(
    ("source", "target", "seed"),
    [("spikingjelly", "snntorch", 2), ("snntorch", "norse", 10), ("norse", "spikingjelly", 5)],
)
def test_converted_loops_fire_the_same(source, target, seed, tmp_path):
    assert fires_the_same(drawn_with_loops(source, seed), target, tmp_path, seed)


def with_biases_in_loops(weights_in):
    """Two populations that feed each other, one of them itself too, all through weights with biases;
    `weights_in` is the name of those from the input.
    """
    rng = np.random.default_rng(3)

    def affine(outputs, inputs):
        weight = rng.normal(0.1, 0.5, (outputs, inputs))
        return build.node("Affine", weight=weight, bias=rng.normal(0, 0.4, outputs))

    neurons = build.lif(tau=5e-4, r=5.0, v_threshold=0.8)
    nodes = {"in": build.input(5), weights_in: affine(4, 5), "a": neurons, "ab": affine(3, 4)}
    nodes |= {"b": neurons, "ba": affine(4, 3), "aa": affine(4, 4), "out": build.output()}
    chains = [("in", weights_in, "a", "ab", "b", "out"), ("b", "ba", "a"), ("a", "aa", "a")]
    options = {"dialect": "snntorch", "reset": "zero", "reset_delay": False}
    return build.network(nodes, chains, **options)


@pytest.mark.parametrize("weights_in", ["a_in", "z_in"])
@pytest.mark.parametrize("target", FRAMEWORKS)
def test_biases_leave_loops_whatever_nodes_are_called(target, weights_in, tmp_path):
    """Importers leave loops out of the first step: a bias goes where no loop is."""
    assert fires_the_same(with_biases_in_loops(weights_in), target, tmp_path, 0)


@pytest.mark.slow
@pytest.mark.parametrize("target", FRAMEWORKS)
@pytest.mark.parametrize("source", FRAMEWORKS)
def test_twenty_loops_of_each_framework_fire_the_same(source, target, tmp_path):
    active, refused = [], []
    for seed in range(20):
        try:
            active.append(fires_the_same(drawn_with_loops(source, seed), target, tmp_path, seed))
        except ConversionError as error:
            refused.append(str(error))
    # Only snnTorch has further resets that cannot be converted.
    assert source == "snntorch" or all("resets to a value" in reason for reason in refused)
    assert any(active)


def test_the_event_engine_refuses_an_importers_order():
    graph = convert(drawn_with_loops("norse", 5), to="spikingjelly", path="made.nir").graph
    silence = Events(time=np.full((1, 1), np.inf), index=np.full((1, 1), 5))
    run = functools.partial(simulate, lower(graph), silence, t_end=1e-2, engine=EventDriven())
    message = "add up signals of several neurons of their cycle"
    assert_refused(run, LoweringError, message, fix="separate weights")


def chained(way_out="u", way_back="v"):
    """A loop of two populations whose way back is two matrices, the first with a bias, and whose way
    out leaves at the first population.
    """
    neurons = build.lif(tau=1e-3, r=10.0)
    eye = np.eye(2)
    nodes = {"in": build.input(2), "w": build.linear(weight=[[0.7, 0.4], [0.3, 0.8]])}
    nodes |= {"a": neurons, "b": neurons, "c": neurons, "out": build.output()}
    nodes |= {way_back: build.linear(weight=[[0.9, 0.2], [0.1, 1.2]])}
    nodes |= {"p": build.node("Affine", weight=0.3 * eye, bias=[1.4, 0.2])}
    nodes |= {"q": build.linear(weight=[[0.6, 0.1], [0.2, -0.5]])}
    nodes |= {way_out: build.linear(weight=[[0.6, 0.5], [0.9, 0.1]])}
    chains = [("in", "w", "a", way_back, "b", "p", "q", "a"), ("a", way_out, "c", "out")]
    return build.network(nodes, chains, dialect="snntorch", reset="zero", reset_delay=False)


@pytest.mark.parametrize("node_names", [("u", "v"), ("v", "u")])
@pytest.mark.parametrize("target", FRAMEWORKS)
def test_ways_out_and_biases_of_chains(target, node_names, tmp_path):
    """An importer that runs nodes depth first returns what ran last, and none has the bias of a
    chain in a loop in its first step."""
    assert fires_the_same(chained(*node_names), target, tmp_path, 1)


def feeding_beside(bias):
    """Weights that feed their own population, and another."""
    rng = np.random.default_rng(1)
    neurons = build.lif(tau=1e-3, r=10.0)
    nodes = {"in": build.input(3), "w": build.linear(weight=rng.normal(0.2, 0.6, (4, 3)))}
    nodes |= {"a": neurons, "b": neurons, "out": build.output()}
    weight = rng.normal(0, 0.4, (4, 4))
    nodes |= {"r": build.node("Affine", weight=weight, bias=np.full(4, bias))}
    nodes |= {"v": build.linear(weight=rng.normal(0.3, 0.4, (4, 4)))}
    return nodes, [("in", "w", "a", "r", "a"), ("r", "b"), ("a", "v", "b", "out")]


@pytest.mark.parametrize("bias", [0.0, 0.15])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("target", FRAMEWORKS)
def test_weights_of_a_loop_that_feed_more(target, reset, bias, tmp_path):
    """Neither the bias nor what makes up for another reset is lost on, or given to, the others."""
    nodes, chains = feeding_beside(bias)
    graph = build.network(nodes, chains, dialect="snntorch", reset=reset, reset_delay=False)
    assert fires_the_same(graph, target, tmp_path, 0)


def test_what_a_loop_leaves_out_of_the_first_step_is_no_bias_of_another():
    """In a loop whose weights join, the source itself leaves the bias out of the first step."""
    neurons, eye = build.lif(tau=1e-3, r=10.0), np.eye(2)
    nodes = {"in": build.input(2), "w": build.linear(weight=0.5 * eye), "a": neurons}
    nodes |= {"r": build.node("Affine", weight=0.3 * eye, bias=[0.6, 0.6]), "b": neurons}
    nodes |= {"q": build.linear(weight=0.2 * eye), "out": build.output()}
    chains = [("in", "w", "a", "r", "a"), ("r", "b", "q", "a"), ("a", "out")]
    graph = build.network(nodes, chains, dialect="snntorch", reset="zero", reset_delay=False)
    message = "'r' has a bias, which reaches 'a' only from the second time step on"
    for target in FRAMEWORKS:
        assert_refused(functools.partial(convert, graph, to=target), ConversionError, message)


def test_a_straight_edge_beside_weights_is_refused():
    nodes = {"in": build.input(2), "w": build.linear(weight=np.eye(2)), "out": build.output()}
    nodes |= {"a": build.lif(tau=1e-3, r=10.0), "r": build.linear(weight=0.3 * np.eye(2))}
    chains = [("in", "w", "a", "out"), ("a", "r", "a"), ("a", "a")]
    graph = build.network(nodes, chains, dialect="snntorch", reset="zero", reset_delay=False)
    assert_refused(
        lambda: convert(graph, to="norse"),
        ConversionError,
        "'a' feeds itself both directly and through a, r",
    )
