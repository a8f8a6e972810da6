"""Networks without a file."""

import numpy as np
import pytest

from jaxsnn.errors import GraphError, UsageError
from jaxsnn.nir import build, export, read, write
from jaxsnn.nir import initializers as init
from tests.helpers.refusals import assert_refused


def deep(seed):
    return build.sequential(
        build.input(5),
        build.affine(20, weight=init.normal(3.0, 1.6), bias=init.uniform(-1, 1)),
        build.cubalif(tau_mem="10ms", tau_syn="5ms"),
        build.linear(3),
        build.cubali(tau_mem=0.01, tau_syn=0.005),
        seed=seed,
    )


def test_one_seed_draws_everything():
    a, b, other = deep(0), deep(0), deep(1)
    for name in ("1", "3"):
        np.testing.assert_array_equal(a.nodes[name].value("weight"), b.nodes[name].value("weight"))
        assert not np.array_equal(a.nodes[name].value("weight"), other.nodes[name].value("weight"))
    assert a.nodes["1"].value("bias").std() > 0
    assert a.nodes["2"].value("tau_mem").tolist() == [0.01] * 20


def test_a_graph_that_is_built_is_a_graph_that_is_read(tmp_path):
    write(tmp_path / "a.nir", deep(0))
    again = read(tmp_path / "a.nir")
    assert again.version == "1.0.8"
    assert again.order() == deep(0).order()
    assert set(export(again).nodes) == set(deep(0).nodes)


def test_parameters_are_numbers_or_one_for_each():
    thresholds = np.linspace(1, 2, 4)
    graph = build.sequential(
        build.input(2), build.linear(4), build.lif(tau="2ms", v_threshold=thresholds), seed=0
    )
    np.testing.assert_array_equal(graph.nodes["2"].value("v_threshold"), thresholds)
    assert graph.nodes["2"].value("r").shape == (4,)
    assert_refused(
        lambda: build.sequential(
            build.input(2), build.linear(3), build.lif(tau="2ms", v_threshold=thresholds), seed=0
        ),
        GraphError,
        r"node '2': v_threshold of shape \(4,\) does not fit \(3,\)",
    )


def test_weights_may_be_given():
    weight = np.arange(6, dtype="float32").reshape(3, 2)
    graph = build.sequential(build.input(2), build.linear(weight=weight), build.li(tau=0.1))
    assert graph.nodes["1"].value("weight").dtype == np.float32
    assert_refused(
        lambda: build.sequential(build.input(5), build.linear(weight=weight), build.li(tau=0.1)),
        GraphError,
        r"node '1': weight of shape \(3, 2\) does not fit \(3, 5\)",
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: build.sequential(build.input(2), build.linear(3)),
            "node '1' draws its weight, and no seed is specified: set seed=0",
        ),
        (
            lambda: build.sequential(build.linear(3), seed=0),
            "the first layer does not specify the number of its inputs",
        ),
        (lambda: build.linear(), "a Linear layer has no number of outputs: give it"),
        (lambda: build.lif(tau="2 parsec"), "unknown unit 'parsec'"),
        (
            lambda: build.network({"a": build.input(2)}, [("a", "b")]),
            "an edge refers to 'b', which is not a node: There are a",
        ),
        (
            lambda: build.network({"a": build.lif(tau=0.1)}, []),
            "node 'a' has no size, and no node feeds it",
        ),
        (
            lambda: build.sequential(
                build.input(2), build.linear(3), build.lif(5, tau=0.1), seed=0
            ),
            "takes .5,.",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises((GraphError, UsageError), match=message):
        make()


def test_a_recurrent_network_in_a_few_lines():
    graph = build.network(
        {
            "input": build.input(2),
            "w": build.linear(4),
            "w_rec": build.linear(4),
            "hidden": build.lif(tau="10ms"),
            "spikes": build.output(),
        },
        [("input", "w", "hidden", "spikes"), ("hidden", "w_rec", "hidden")],
        seed=0,
    )
    assert graph.nodes["w_rec"].value("weight").shape == (4, 4)
    assert graph.predecessors("hidden") == ("w", "w_rec")


def test_another_dialect_can_be_meant():
    graph = build.sequential(
        build.input(2),
        build.linear(3),
        build.lif(tau=0.001, r=10.0),
        seed=0,
        dialect="snntorch",
        reset="zero",
    )
    assert (graph.dialect.name, graph.dialect.dt, graph.dialect.reset) == ("snntorch", 1e-4, "zero")


@pytest.mark.parametrize(
    ("initializer", "mean", "std"),
    [
        (init.normal(3.0, 1.6), 3.0, 1.6),
        (init.uniform(1.0, 3.0), 2.0, 2 / np.sqrt(12)),
        (init.constant(0.7), 0.7, 0.0),
        (init.kaiming_normal(), 0.0, np.sqrt(2 / 50)),
        (init.kaiming_uniform(), 0.0, np.sqrt(2 / 50)),
        (init.xavier_normal(), 0.0, np.sqrt(2 / 850)),
        (init.xavier_uniform(), 0.0, np.sqrt(2 / 850)),
    ],
)
def test_initialisers_have_their_moments(initializer, mean, std):
    drawn = initializer(np.random.default_rng(0), (800, 50))
    assert drawn.shape == (800, 50)
    assert drawn.mean() == pytest.approx(mean, abs=0.02)
    assert drawn.std() == pytest.approx(std, rel=0.02, abs=1e-12)


@pytest.mark.parametrize(
    ("make", "facts"),
    [
        (
            lambda: build.sequential(build.input(2), build.linear(3)),
            {"node": "1", "parameter": "weight"},
        ),
        (lambda: build.network({"a": build.input(2)}, [("a", "b")]), {"node": "b"}),
        (lambda: build.linear(), {"type": "Linear"}),
    ],
)
def test_a_problem_has_its_names_as_facts(make, facts):
    with pytest.raises((GraphError, UsageError)) as caught:
        make()
    assert dict(caught.value.problem.facts) == facts
