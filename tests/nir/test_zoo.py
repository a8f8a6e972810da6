"""What frameworks really write: all of it is read, described, and written back as it was."""

import dataclasses
import json
from functools import cache

import nir
import numpy as np
import pytest

from jaxsnn.nir import describe, export, parse, read, write
from jaxsnn.nir.dialects.dialect_names import DIALECTS
from jaxsnn.nir.frameworks.evidence import estimate
from jaxsnn.nir.model.description import as_json, as_text
from tests.helpers.zoo import FACTS, options_of


@pytest.fixture(scope="module")
def read_without_options(zoo):
    """`read_without_options(name)`: a file of the zoo, read once and without options."""
    return cache(lambda name: read(zoo[name]))


def test_the_zoo_is_complete(zoo):
    assert len(zoo) == 104
    assert list(zoo) == sorted(FACTS)


@pytest.mark.parametrize("name", FACTS)
def test_reads_and_describes(read_without_options, name):
    graph = read_without_options(name)
    content = json.loads(as_json(graph))
    assert content["schema"] == 1
    assert content["nir_version"] == FACTS[name]["nir_version"]
    assert [node["name"] for node in content["nodes"]] == list(graph.nodes)
    assert as_text(graph)
    shapes = FACTS[name]
    if "x_shape" in shapes:
        by_name = {node["name"]: node for node in content["nodes"]}
        assert by_name[graph.inputs[0]]["output_shape"] == shapes["x_shape"][2:]
        assert by_name[graph.outputs[0]]["output_shape"] == shapes["y_shape"][2:]


@pytest.mark.parametrize("name", FACTS)
def test_untouched_round_trip_is_bit_equal(zoo, read_without_options, name, entries, tmp_path):
    write(tmp_path / "again.nir", read_without_options(name))
    assert entries(tmp_path / "again.nir") == entries(zoo[name])


@pytest.mark.parametrize("name", FACTS)
def test_a_dialect_that_is_inferred_is_right(read_without_options, name):
    facts, dialect = FACTS[name], read_without_options(name).dialect
    if dialect.name is None:
        assert dialect.decided_by == "undecided"
        # The true framework is among the choices (files of the event-based framework fit two).
        assert facts["framework"] in dialect.choices
        assert dialect.fix == f"pass dialect=, one of {', '.join(dialect.choices)}"
        return
    assert dialect.decided_by == "inference"
    assert dialect.name == facts["framework"]
    if dialect.time_unit == "s":
        assert dialect.dt == facts["dt"]
    if "time_unit" in facts:
        assert dialect.time_unit == facts["time_unit"]


@pytest.mark.parametrize(
    ("framework", "undecided"),
    # Spyx's IF layers have no leak, so nothing tells them apart.
    [("snntorch", []), ("rockpool", []), ("spyx", ["spyx_a_if", "spyx_v_if"])],
)
def test_most_that_can_be_inferred_are(zoo, read_without_options, framework, undecided):
    file_names = [name for name in zoo if FACTS[name]["framework"] == framework]
    assert [
        name for name in file_names if read_without_options(name).dialect.name is None
    ] == undecided


@pytest.mark.parametrize("name", FACTS)
def test_its_own_dialect_is_accepted(zoo, name):
    facts = FACTS[name]
    dialect = read(zoo[name], dialect=facts["framework"], **options_of(name)).dialect
    assert dialect.decided_by == "argument"
    for field in ("dt", "dt_export", "time_unit", "reset", "reset_delay"):
        if field in facts and not dialect.nodes:
            assert getattr(dialect, field) == facts[field]


@pytest.mark.parametrize("name", FACTS)
def test_export_is_what_nir_reads(zoo, read_without_options, name):
    ours, theirs = export(read_without_options(name)), nir.read(zoo[name], type_check=False)
    assert ours.edges == theirs.edges
    for key, node in theirs.nodes.items():
        if not isinstance(node, nir.NIRGraph):
            assert type(ours.nodes[key]) is type(node)
            expected, exported = node.to_dict(), ours.nodes[key].to_dict()
            assert exported.keys() == expected.keys()
            for entry, value in expected.items():
                np.testing.assert_array_equal(exported[entry], value)


@pytest.mark.parametrize(
    "name", [name for name in FACTS if not FACTS[name]["needs_type_check_false"]]
)
def test_parsing_a_nir_graph_does_not_change_it(zoo, read_without_options, name):
    graph = nir.read(zoo[name])
    before = {key: dict(vars(node)) for key, node in graph.nodes.items()}
    parsed = parse(graph)
    for key, node in graph.nodes.items():
        assert vars(node).keys() == before[key].keys()
        assert all(value is before[key][field] for field, value in vars(node).items())
    assert {node.type for node in parsed.nodes.values()} <= {
        node.type for node in read_without_options(name).nodes.values()
    }


def test_batch_and_time_axes_are_left_out(zoo):
    graph = read(zoo["rockpool_b_liftorch"])
    content = {node["name"]: node for node in describe(graph)["nodes"]}
    assert content["input"]["input_shape"] == [5]
    assert content["output"]["output_shape"] == [3]
    assert [(repair.node, repair.what) for repair in graph.repairs] == [
        ("input", "shape (1, 5) is read as (5,)"),
        ("output", "shape (1, 1, 3) is read as (3,)"),
    ]
    assert graph.nodes["output"].value("shape").tolist() == [1, 1, 3]


def test_scalar_parameters_take_the_size_of_their_neighbours(zoo):
    graph = read(zoo["sinabs_a_lif_scalar__nocomp"])
    content = {node["name"]: node for node in describe(graph)["nodes"]}
    assert content["1"]["output_shape"] == [30]
    assert graph.nodes["1"].value("tau").shape == ()
    assert [repair.node for repair in graph.repairs] == ["1", "3"]


def test_missing_v_reset_stays_missing(zoo):
    node = read(zoo["norse_a_lifbox_vec__nir104"]).nodes["1"]
    assert node.v_reset is None
    assert "v_reset" not in node.parameters
    assert node.value("v_reset") == 0


def test_two_heads_on_one_output_are_a_warning(zoo):
    graph = read(zoo["snntorch_a_twoheads"])
    assert [warning.node for warning in graph.warnings] == ["output"]
    assert "'la' (3,), 'lb' (2,)" in graph.warnings[0].message
    assert graph.warnings[0].fix.startswith("connect each of them to a separate Output")
    by_name = {node["name"]: node for node in describe(graph)["nodes"]}
    assert by_name["output"]["output_shape"] is None


@pytest.mark.parametrize("name", ["spyx_c_rlif", "spyx_c_rcubalif", "spyx_v_rlif"])
def test_recurrent_layers_of_spyx_are_rewired_in_its_dialect_only(zoo, name):
    feed, weights, neuron = (f"layer_1/layer_1.{end}" for end in ("input", "w_rec", "lif"))
    graph, literal = read(zoo[name]), read(zoo[name], dialect="nir")
    assert graph.dialect.name == "spyx"
    assert {(feed, neuron), (feed, weights)} & set(graph.edges) == {(feed, neuron)}
    assert (feed, weights) in literal.edges
    assert [repair.node for repair in graph.repairs] == [weights]
    assert literal.repairs == ()
    as_spyx, as_nir = literal.with_dialect(graph.dialect), graph.with_dialect(literal.dialect)
    assert as_spyx.edges == graph.edges
    assert (as_nir.edges, as_nir.repairs) == (literal.edges, ())


def test_formulas_of_the_wrong_framework_do_not_fit(zoo):
    graph = read(zoo["snntorch_v_li"])
    for name in ("snntorch", "rockpool", "spyx"):
        proven = estimate(graph.nodes, DIALECTS[name].evidence).proven
        assert bool(proven) is (name == "snntorch")
    r = graph.nodes["1"].value("r") * np.float32(1.01)
    altered = graph.with_nodes([dataclasses.replace(graph.nodes["1"], r=r)])
    assert not estimate(altered.nodes, DIALECTS["snntorch"].evidence).agrees
