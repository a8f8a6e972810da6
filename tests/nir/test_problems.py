"""What `jaxsnn.nir` says is wrong: what to do stands apart, in the words of Python, and the command
line translates it.
"""

import numpy as np
import pytest

from jaxsnn.errors import ConversionError, DialectError
from jaxsnn.nir import build, describe, read
from jaxsnn.nir.convert.importers import importer_problems, undecided
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.convert.target import target_of
from jaxsnn.nir.convert.topology import refuse_for
from jaxsnn.nir.dialects.gains import require
from jaxsnn.nir.model.changes import Change
from tests.helpers.refusals import assert_refused


def undecided_graph(dialect="auto"):
    layers = build.linear(weight=np.eye(2)), build.lif(tau=0.01)
    return build.sequential(build.input(2), *layers, dialect=dialect)


def test_an_undecided_dialect_has_one_advice():
    graph = undecided_graph()
    problem = undecided(graph)
    assert problem.fix == graph.dialect.fix
    assert_refused(
        lambda: require(graph.dialect, ["name"], "conversion", "2"),
        DialectError,
        node="2",
        fix=graph.dialect.fix,
    )
    assert problem.fix.startswith("pass dialect=, one of nir, ")
    assert (
        "(The parameters do not determine the dialect (r = 1 for all neurons): they"
        in problem.message
    )
    assert "--dialect, one of nir, " in problem.as_text()
    assert not graph.with_dialect(undecided_graph("nir").dialect).dialect.fix


def test_what_is_said_of_a_dialect_is_translated_for_the_command_line(zoo):
    dialect = read(zoo["snntorch_v_syn_sub"], dialect="snntorch").dialect
    assert "pass reset= and reset_delay=." in dialect.why
    assert "pass --reset and --reset-delay." in dialect.as_dict()["why"]
    assert undecided_graph().dialect.as_dict()["fix"].startswith("pass --dialect, one of nir, ")


def test_warnings_keep_their_keys():
    nodes = {"input": build.input(2), "w": build.linear(weight=np.eye(2))}
    nodes |= {"lost": build.linear(weight=np.ones((3, 2)), outputs=3), "output": build.output()}
    graph = build.network(nodes, [("input", "w", "output"), ("input", "lost")], dialect="nir")
    (warning,) = describe(graph)["warnings"]
    assert set(warning) == {"node", "code", "severity", "message", "facts", "fix", "what", "why"}
    assert (warning["node"], warning["severity"]) == ("lost", "warning")
    assert (warning["what"], warning["why"]) == (warning["message"], warning["fix"])


def test_a_change_says_what_and_why():
    change = Change(node="a", what="r becomes 1", why="it is ignored")
    assert change.as_text() == "a: r becomes 1 (it is ignored)"
    assert change.as_dict() == {"node": "a", "what": "r becomes 1", "why": "it is ignored"}
    assert Change(node="", what="x", why="y").as_text() == "graph: x (y)"


def leaky(**options):
    """Two neurons of snnTorch that may both be readouts, which Spyx's importer does not take."""
    neurons = build.lif(tau=1e-3, r=10.0)
    layers = build.linear(4), neurons, build.linear(4), neurons
    return build.sequential(build.input(3), *layers, seed=0, dialect="snntorch", **options)


def test_a_refused_conversion_names_the_first_node_and_counts_the_others():
    graph = leaky(reset="zero", reset_delay=False, readout=["2", "4"])
    with pytest.raises(ConversionError, match=r"\(and 1 more problem\)$") as caught:
        convert(graph, to="spyx")
    problem = caught.value.problem
    assert importer_problems(graph, "spyx")[0] == problem
    assert (problem.node, problem.code) == ("2", "cannot-convert")
    assert problem.message.startswith("Spyx cannot load this graph: node '2' (leaky readout")
    assert problem.fix.startswith("replace it by a spiking neuron")


def test_a_nested_node_is_refused_under_its_name_in_the_file(zoo):
    graph = read(zoo["spyx_c_rcubalif"])
    nested = "layer_1/layer_1.lif"
    says = rf"node 'layer_1\.lif': its reset subtracts.*'{nested}' in the file\)"
    assert_refused(lambda: convert(graph, to="snntorch"), ConversionError, says, node=nested)
    assert [problem.node for problem in importer_problems(graph, "snntorch")] == [nested]


def test_what_an_importer_needs_to_know_is_asked_for_by_node():
    (problem,) = importer_problems(leaky(), "norse")
    assert (problem.node, problem.code) == ("2", "not-said")
    assert problem.fix.startswith("pass reset= (zero, subtract or none), and pass reset_delay= ")
    assert problem.as_dict()["fix"].startswith("pass --reset (zero, subtract or none), and pass ")


def test_no_problem_is_no_refusal():
    refuse_for(target_of("norse"), [])
