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
    nodes, same, redrawn = deep(0).nodes, deep(0).nodes, deep(1).nodes
    for name in ("1", "3"):
        weight = nodes[name].value("weight")
        np.testing.assert_array_equal(same[name].value("weight"), weight)
        assert not np.array_equal(redrawn[name].value("weight"), weight)
    assert nodes["1"].value("bias").std() > 0
    assert nodes["2"].value("tau_mem").tolist() == [0.01] * 20


def test_a_graph_that_is_built_is_a_graph_that_is_read(tmp_path):
    graph = deep(0)
    write(tmp_path / "a.nir", graph)
    reread = read(tmp_path / "a.nir")
    assert (reread.version, reread.order()) == ("1.0.8", graph.order())
    assert set(export(reread).nodes) == set(graph.nodes)


THRESHOLDS = np.linspace(1, 2, 4)
WEIGHT = np.arange(6, dtype="float32").reshape(3, 2)


def with_thresholds(size):
    neurons = build.lif(tau="2ms", v_threshold=THRESHOLDS)
    return build.sequential(build.input(2), build.linear(size), neurons, seed=0)


def with_weight(inputs):
    return build.sequential(build.input(inputs), build.linear(weight=WEIGHT), build.li(tau=0.1))


def test_parameters_are_numbers_or_one_for_each():
    node = with_thresholds(4).nodes["2"]
    np.testing.assert_array_equal(node.value("v_threshold"), THRESHOLDS)
    assert node.value("r").shape == (4,)
    assert with_weight(2).nodes["1"].value("weight").dtype == np.float32


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: build.sequential(build.input(2), build.linear(3)),
            UsageError,
            "node '1' draws its weight, and no seed is specified: pass seed=0 or .* \\(3, 2\\)",
        ),
        (
            lambda: build.sequential(build.linear(3), seed=0),
            UsageError,
            "the first layer does not specify the number of its inputs: .*input\\(5\\)",
        ),
        (build.linear, UsageError, "a Linear layer has no number of outputs: pass it"),
        (lambda: build.lif(tau="2 parsec"), UsageError, "unknown unit 'parsec'"),
        (
            lambda: build.network({"a": build.input(2)}, [("a", "b")]),
            GraphError,
            "an edge refers to 'b', which is not a node: Available: a",
        ),
        (
            lambda: build.network({"a": build.lif(tau=0.1)}, []),
            GraphError,
            "node 'a' has no size, and no node feeds it",
        ),
        (
            lambda: build.sequential(
                build.input(2), build.linear(3), build.lif(5, tau=0.1), seed=0
            ),
            GraphError,
            r"the output of node '1' has the shape \(3,\), but node '2' \(LIF\) expects \(5,\): ",
        ),
        (
            lambda: with_thresholds(3),
            GraphError,
            r"node '2': v_threshold of shape \(4,\) does not fit \(3,\)",
        ),
        (
            lambda: with_weight(5),
            GraphError,
            r"node '1': weight of shape \(3, 2\) does not fit \(3, 5\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, error, message):
    assert_refused(make, error, message)


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


def test_a_delay_applies_to_all_elements_or_to_each():
    same = build.sequential(build.input(2), build.delay("2ms"), build.lif(tau="10ms"))
    np.testing.assert_array_equal(same.nodes["1"].value("delay"), [0.002, 0.002])
    different = build.sequential(build.input(2), build.delay([0.0, 0.003]), build.lif(tau="10ms"))
    np.testing.assert_array_equal(different.nodes["1"].value("delay"), [0.0, 0.003])
    with pytest.raises(UsageError):
        build.delay("2 parsec")
