"""Broken graphs: each problem names the node, the numbers and the way out."""

import re

import nir
import numpy as np
import pytest

from jaxsnn.compatibility.checks import check
from jaxsnn.errors import GraphError
from jaxsnn.nir import build, parse
from jaxsnn.nir.graphs.export import write
from jaxsnn.nir.graphs.parse import assemble
from jaxsnn.nir.io.documents import group_of
from jaxsnn.nir.io.files import load, text_dataset
from jaxsnn.nir.model.validation import validate
from tests.helpers.refusals import assert_refused


def network(**changes):
    """A small sound network as a document, with some parameters of some nodes changed:
    node__parameter=value.
    """
    parameters = {
        name: np.full(3, value)
        for name, value in zip(("tau", "r", "v_leak", "v_threshold"), (0.1, 1, 0, 1), strict=True)
    }
    cuba = {
        "tau_syn": 0.1,
        "tau_mem": 0.2,
        "r": 1.0,
        "v_leak": 0.0,
        "v_threshold": 1.0,
        "v_reset": 0.0,
        "w_in": 1.0,
    }
    tree = {
        "input": {"type": "Input", "shape": np.array([2])},
        "w": {"type": "Affine", "weight": np.ones((3, 2)), "bias": np.zeros(3)},
        "n": {"type": "LIF", **parameters},
        "v": {"type": "Linear", "weight": np.ones((4, 3))},
        "c": {"type": "CubaLIF", **{name: np.full(4, value) for name, value in cuba.items()}},
        "output": {"type": "Output", "shape": np.array([4])},
    }
    for change, value in changes.items():
        node, _, parameter = change.partition("__")
        tree[node][parameter] = value
        if value is None:
            del tree[node][parameter]
    edges = [("input", "w"), ("w", "n"), ("n", "v"), ("v", "c"), ("c", "output")]
    return group_of({"type": "NIRGraph", "nodes": tree, "edges": edges}, "1.0.8")


def test_the_sound_network_has_no_problem():
    assert validate(parse(network())) == ()


def test_what_nir_does_not_define_is_not_passed_over():
    """A bias of a Linear, for instance."""
    graph = parse(network(v__bias=np.ones(4), n__refractory=0.01))
    messages = [problem.message for problem in graph.warnings]
    assert messages == [
        "node 'n' (LIF) has 'refractory', which NIR does not define for it and nothing reads",
        "node 'v' (Linear) has 'bias', which NIR does not define for it and nothing reads",
    ]
    severities = {problem.severity for problem in check(graph, "event").problems}
    assert "warning" in severities


BROKEN = [
    (
        {"w__weight": np.array([[1, np.nan], [1, 1], [1, 1]])},
        "'w' .Affine. has values of weight that are not finite: 1 of 6, the first is nan at index .0, 1.",
    ),
    (
        {"v__weight": np.full((4, 3), np.inf)},
        "'v' .Linear. has values of weight that are not finite: 12 of 12",
    ),
    (
        {"w__bias": np.array([0, -np.inf, 0])},
        "'w' .Affine. has values of bias that are not finite: 1 of 3, the first is -inf at index 1",
    ),
    (
        {"n__tau": np.array([0.1, 0.0, 0.1])},
        "'n' .LIF. has values of tau that are not positive: 1 of 3, the first is 0 at index 1",
    ),
    (
        {"n__tau": np.array(-0.25)},
        "'n' .LIF. has tau = -0.25, which is not positive: a time constant must be greater than 0",
    ),
    (
        {"c__tau_syn": np.full(4, np.nan)},
        "'c' .CubaLIF. has values of tau_syn that are not finite: 4 of 4",
    ),
    (
        {"c__tau_mem": np.full(4, -np.inf)},
        "'c' .CubaLIF. has values of tau_mem that are not finite: 4 of 4",
    ),
    (
        {"n__v_threshold": np.array([1, 1, np.inf])},
        "'n' .LIF. has values of v_threshold that are not finite: 1 of 3, the first is inf at index 2",
    ),
    (
        {"c__w_in": np.full(4, np.nan)},
        "'c' .CubaLIF. has values of w_in that are not finite: 4 of 4",
    ),
    ({"n__r": np.full(3, np.nan)}, "'n' .LIF. has values of r that are not finite: 3 of 3"),
    (
        {"n__r": np.array([1, np.inf, 1])},
        "'n' .LIF. has values of r that are infinite: 1 of 3, the first is inf at index 1: it may be infinite only",
    ),
    (
        {"n__r": np.array(np.inf), "n__tau": np.array([1, np.inf, 1])},
        "'n' .LIF. has values of r that are infinite: 2 of 3, the first is inf at index 0",
    ),
    (
        {"c__r": np.full(4, np.inf)},
        "'c' .CubaLIF. has values of r that are infinite: 4 of 4, the first",
    ),
    (
        {"c__w_in": np.array(np.inf)},
        "'c' .CubaLIF. has values of w_in that are infinite: 4 of 4, the",
    ),
    ({"n__tau": None}, "'n' .LIF. has no tau: NIR requires this parameter"),
    ({"n__r": np.ones(2)}, r"'n' .LIF. has tau of shape \(3,\) and r of shape \(2,\)"),
    (
        {"w__bias": np.zeros(4)},
        r"'w' .Affine. has a bias of shape \(4,\), but its weight of shape \(3, 2\) has outputs of shape \(3,\)",
    ),
    (
        {"w__bias": np.ones((1, 1))},
        r"'w' .Affine. has a bias of shape \(1, 1\), but its weight of shape \(3, 2\) has outputs of shape \(3,\)",
    ),
    (
        {"v__weight": np.ones(3)},
        r"'v' .Linear. has a weight of shape \(3,\): its shape must be \(outputs, inputs\)",
    ),
    (
        {"v__weight": np.ones((4, 5))},
        r"output of node 'n' has the shape \(3,\), but node 'v' \(Linear\) expects \(5,\)",
    ),
    (
        {"v__weight": np.ones((5, 3))},
        r"output of node 'v' has the shape \(5,\), but node 'c' \(CubaLIF\) expects \(4,\)",
    ),
    (
        {"input__shape": np.array([3])},
        r"output of node 'input' has the shape \(3,\), but node 'w' \(Affine\) expects \(2,\)",
    ),
    (
        {"output__shape": np.array([5])},
        r"'output' .Output. declares the shape \(5,\), but its input has the shape \(4,\)",
    ),
    ({"v__weight": "same"}, "'v' .Linear. has weight = 'same'"),
    (
        {"n__tau": np.array(0.0), "n__r": np.ones(2)},
        "'n' .LIF. has tau = 0, which is not positive: a time .* than 0$",
    ),
]


@pytest.mark.parametrize(("changes", "message"), BROKEN)
def test_a_broken_network_is_refused(changes, message):
    node = re.findall(r"'(\w|input|output)'", message)[-1]
    assert_refused(lambda: parse(network(**changes)), GraphError, message, node=node)


@pytest.mark.parametrize(
    "changes",
    [
        {"n__tau": np.full(3, np.inf), "n__r": np.full(3, np.inf)},
        {"n__tau": np.array([0.1, 0.1, np.inf]), "n__r": np.array([1, 1, np.inf])},
        {"n__tau": np.array(np.inf), "n__r": np.full(3, np.inf)},
        {"n__v_threshold": np.array([1, 1, 1], dtype="int64")},
        {"w__bias": np.array(False)},
        {"n__tau": np.array(0.1)},
        {"c__w_in": None, "c__v_reset": None},
        {"w__weight": np.ones((3, 2), dtype="float16")},
        {"input__shape": np.array([7, 1, 2])},
    ],
)
def test_odd_but_sound_networks_are_read(changes):
    parse(network(**changes))


@pytest.mark.parametrize(
    ("edge", "message"),
    [
        (
            ("n", "input"),
            r"'input' \(Input\) receives the output of n, but it is an Input: connect the edge to the targets",
        ),
        (
            ("output", "v"),
            r"'output' \(Output\) feeds v, but it is an Output: start the edge at the inputs",
        ),
        (
            ("output", "input"),
            r"'input' \(Input\) receives the output of output.* \(and 1 more problem\)$",
        ),
    ],
)
def test_nothing_feeds_an_input_and_an_output_feeds_nothing(edge, message):
    document = network()
    edges = document["node"]["edges"]
    document["node"]["edges"] = text_dataset(
        [*([part.decode() for part in pair] for pair in edges.value), list(edge)]
    )
    assert_refused(lambda: parse(document), GraphError, message)


def test_all_problems_are_counted():
    bad = network(w__weight=np.full((3, 2), np.nan), n__tau=np.zeros(3), c__r=np.full(4, np.nan))
    with pytest.raises(GraphError, match=r"\(and 2 more problems\)$") as caught:
        parse(bad)
    first = validate(assemble(bad))[0]
    assert (caught.value.node, caught.value.problem.code) == (first.node, first.code)


def test_a_missing_flatten_is_advised():
    nodes = {
        "input": nir.Input(np.array([1, 4, 4])),
        "conv": nir.Conv2d(None, np.ones((2, 1, 3, 3)), 1, 0, 1, 1, np.zeros(2)),
        "w": nir.Linear(np.ones((3, 8))),
        "output": nir.Output(np.array([3])),
    }
    edges = [("input", "conv"), ("conv", "w"), ("w", "output")]
    assert_refused(
        lambda: parse(nir.NIRGraph(nodes, edges, type_check=False)),
        GraphError,
        r"has the shape \(2, 2, 2\).*expects \(8,\): insert a Flatten between them",
    )


def test_a_window_larger_than_its_input_is_refused():
    nodes = {
        "input": nir.Input(np.array([1, 4, 4])),
        "pool": nir.SumPool2d(np.array([5, 5]), np.array([1, 1]), np.array([0, 0])),
        "output": nir.Output(np.array([1, 1, 1])),
    }
    assert_refused(
        lambda: parse(
            nir.NIRGraph(nodes, [("input", "pool"), ("pool", "output")], type_check=False)
        ),
        GraphError,
        r"'pool' \(SumPool2d\) does not support an input of shape \(1, 4, 4\)",
    )


def test_what_became_broken_is_not_written(tmp_path):
    graph = build.sequential(build.input(2), build.linear(3), build.li(tau=0.01), seed=0)
    node = graph.nodes["1"]
    broken = graph.with_nodes([node.replace(weight=node.value("weight") * np.nan)])
    assert_refused(
        lambda: write(tmp_path / "a.nir", broken), GraphError, "weight that are not finite"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_reset_above_the_threshold_is_warned_of(tmp_path):
    graph = parse(network(n__v_reset=np.array([0.0, 1.0, 0.0])))
    (warning,) = graph.warnings
    assert (warning.node, warning.code, warning.severity) == ("n", "suspicious", "warning")
    assert warning.message == "node 'n' (LIF) has v_reset = 1, not below v_threshold = 1"
    assert warning.fix.startswith("lower v_reset")
    write(tmp_path / "a.nir", graph)
    assert load(tmp_path / "a.nir")["node"]["nodes"]["n"]["v_reset"].value.tolist() == [0, 1, 0]


def test_a_nested_graph_that_passes_on_to_itself_is_named():
    ends = {"in": nir.Input(np.array([2])), "out": nir.Output(np.array([2]))}
    passing = nir.NIRGraph(nodes=ends, edges=[("in", "out")], type_check=False)
    nodes = {"input": ends["in"], "p": passing, "output": ends["out"]}
    edges = [("input", "p"), ("p", "p"), ("p", "output")]
    (problem,) = validate(assemble(nir.NIRGraph(nodes=nodes, edges=edges, type_check=False)))
    assert problem.code == "instant-cycle"
    assert "the nested graph 'p' feeds its own input" in problem.message
    edges.remove(("p", "p"))
    assert validate(assemble(nir.NIRGraph(nodes=nodes, edges=edges, type_check=False))) == ()
    passing.edges.append(("in", "in"))
    (problem,) = validate(assemble(nir.NIRGraph(nodes=nodes, edges=edges, type_check=False)))
    assert problem.code == "instant-cycle"


@pytest.mark.parametrize(
    ("parameters", "facts"),
    [
        (
            {"tau": np.array([0.1, np.nan, np.nan])},
            {"count": 2, "size": 3, "parameter": "tau", "index": 1},
        ),
        (
            {"tau": np.array([0.1, -1.0, 0.1])},
            {"count": 1, "size": 3, "parameter": "tau", "value": -1.0, "index": 1},
        ),
        (
            {"v_threshold": np.ones(2)},
            {"parameter": "tau", "shape": (3,), "other_shape": (2,)},
        ),
    ],
)
def test_a_problem_has_its_numbers_as_facts(parameters, facts):
    changes = {f"n__{name}": value for name, value in parameters.items()}
    problem = validate(assemble(network(**changes)))[0]
    assert problem.facts["node"] == "n"
    assert problem.facts["type"] == "LIF"
    assert {name: problem.facts[name] for name in facts} == facts


def test_a_mismatch_of_shapes_has_both_shapes_as_facts():
    graph = assemble(
        nir.NIRGraph(
            {"input": nir.Input(np.array([2])), "w": nir.Linear(np.ones((3, 4)))},
            [("input", "w")],
            type_check=False,
        )
    )
    facts = {"source": "input", "actual": (2,), "node": "w", "type": "Linear", "expected": (4,)}
    assert facts in [dict(problem.facts) for problem in validate(graph)]
