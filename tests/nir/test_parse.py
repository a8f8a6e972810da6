"""From what others made to a graph: repairs that are listed, refusals that name the node."""

import contextlib

import nir
import numpy as np
import pytest

from jaxsnn.errors import GraphError, UnsupportedNodeError
from jaxsnn.nir import parse, read, write
from jaxsnn.nir.io.files import Dataset, Group, load, save, text_dataset
from jaxsnn.nir.model.description import as_json
from tests.helpers.refusals import assert_refused


def lif(size):
    return nir.LIF(*(np.full(size, value) for value in (0.1, 1.0, 0.0, 1.0)))


def ends(inputs, outputs):
    return {"input": nir.Input(np.array([inputs])), "output": nir.Output(np.array([outputs]))}


def graph_of(nodes, edges):
    return nir.NIRGraph(nodes, edges, type_check=False)


def small():
    nodes = {**ends(2, 3), "w": nir.Linear(np.ones((3, 2))), "n": lif(3)}
    return graph_of(nodes, [("input", "w"), ("w", "n"), ("n", "output")])


def test_the_graph_does_not_follow_later_changes():
    source = small()
    graph = parse(source)
    source.nodes["w"].weight[:] = 9
    assert np.all(graph.nodes["w"].value("weight") == 1)


def test_parse_takes_what_nir_read_gives(tmp_path):
    nir.write(tmp_path / "a.nir", small())
    from_file, from_nir = read(tmp_path / "a.nir"), parse(nir.read(tmp_path / "a.nir"))
    assert from_file.order() == from_nir.order()
    assert sorted(from_file.edges) == sorted(from_nir.edges)
    assert_refused(lambda: parse([]), GraphError, r"a list is not a NIR graph: pass a nir.NIRGraph")


def test_an_unknown_type_is_refused_by_name_with_what_is_known(tmp_path):
    nir.write(tmp_path / "a.nir", small())
    document = load(tmp_path / "a.nir")
    document["node"]["nodes"]["n"]["type"] = text_dataset("ALIF")
    save(tmp_path / "b.nir", document)
    assert_refused(
        lambda: read(tmp_path / "b.nir"),
        UnsupportedNodeError,
        r"node 'n' has the type ALIF, .*: supported are Input, .*, NIRGraph",
        node="n",
        code="unknown-type",
    )


@pytest.mark.parametrize("edge", [("n", "outptu"), ("ww", "n")])
def test_a_dangling_edge_is_refused(edge):
    source = small()
    source.edges.append(edge)
    missing = "outptu" if "outptu" in edge else "ww"
    assert_refused(
        lambda: parse(source),
        GraphError,
        f"edge {edge[0]} -> {edge[1]} is dangling: the graph has no node '{missing}'",
    )


def test_a_dangling_edge_in_a_nested_graph_is_left_out_and_listed(tmp_path, entries):
    inner = graph_of({**ends(3, 3), "n": lif(3)}, [("input", "n"), ("n", "output"), ("ghost", "n")])
    nodes = {**ends(2, 3), "w": nir.Linear(np.ones((3, 2))), "sub": inner}
    source = graph_of(nodes, [("input", "w"), ("w", "sub"), ("sub", "output")])
    graph = parse(source)
    assert [(repair.node, repair.what) for repair in graph.repairs] == [
        ("sub", "edge ghost -> n is left out")
    ]
    assert graph.predecessors("sub/n") == ("sub/input",)
    write(tmp_path / "a.nir", graph)
    assert load(tmp_path / "a.nir")["node"]["nodes"]["sub"]["edges"].value.tolist()[-1] == [
        b"ghost",
        b"n",
    ]
    write(tmp_path / "b.nir", read(tmp_path / "a.nir"))
    assert entries(tmp_path / "a.nir") == entries(tmp_path / "b.nir")


def test_names_with_the_prefix_of_their_graph_are_understood():
    nodes = {
        "sub.input": nir.Input(np.array([3])),
        "sub.n": lif(3),
        "sub.output": nir.Output(np.array([3])),
    }
    inner = graph_of(nodes, [("input", "n"), ("sub.n", "sub.output")])
    outer = {**ends(3, 3), "sub": inner}
    graph = parse(graph_of(outer, [("input", "sub"), ("sub", "output")]))
    assert ("sub/sub.input", "sub/sub.n") in graph.edges
    assert [repair.what for repair in graph.repairs] == [
        "edge input -> n is read as sub.input -> sub.n"
    ]


def test_an_edge_that_is_listed_twice_counts_once():
    source = small()
    source.edges.append(("w", "n"))
    graph = parse(source)
    assert graph.edges.count(("w", "n")) == 1
    assert [repair.what for repair in graph.repairs] == ["edge w -> n counts once"]


def test_missing_input_and_output_are_assumed_but_never_written(tmp_path):
    source = graph_of({"w": nir.Linear(np.ones((3, 2))), "n": lif(3)}, [("w", "n")])
    graph = parse(source)
    assert graph.order() == ("input_w", "w", "n", "output_n")
    assert graph.inputs == ("input_w",)
    assert graph.nodes["input_w"].value("shape").tolist() == [2]
    assert graph.nodes["input_w"].origin is None
    assert [repair.node for repair in graph.repairs] == ["input_w", "output_n"]
    write(tmp_path / "a.nir", graph)
    assert sorted(load(tmp_path / "a.nir")["node"]["nodes"]) == ["n", "w"]


def test_a_nested_graph_without_borders_is_entered_where_it_is_free():
    inner = graph_of({"w": nir.Linear(np.ones((3, 3))), "n": lif(3)}, [("w", "n")])
    graph = parse(graph_of({**ends(3, 3), "sub": inner}, [("input", "sub"), ("sub", "output")]))
    assert graph.edges == (("sub/w", "sub/n"), ("input", "sub/w"), ("sub/n", "output"))
    assert [repair.what for repair in graph.repairs] == [
        "edges to 'sub' reach its node 'w'",
        "edges from 'sub' reach its node 'n'",
    ]
    closed = graph_of({"w": nir.Linear(np.ones((3, 3))), "n": lif(3)}, [("w", "n"), ("n", "w")])
    assert_refused(
        lambda: parse(
            graph_of({**ends(3, 3), "sub": closed}, [("input", "sub"), ("sub", "output")])
        ),
        GraphError,
        "nested graph 'sub' has no Input node",
    )


def test_nodes_that_nothing_feeds_are_warned_of():
    source = small()
    source.nodes["lost"] = nir.Linear(np.ones((3, 2)))
    graph = parse(source)
    assert [(warning.node, warning.message) for warning in graph.warnings] == [
        ("lost", "node 'lost' (Linear) is fed by nothing, no edge ends at it"),
        ("lost", "node 'lost' (Linear) feeds nothing, no edge starts at it"),
    ]
    assert {warning.severity for warning in graph.warnings} == {"warning"}


def test_a_name_that_no_file_can_hold_is_refused():
    source = small()
    source.nodes["a/b"] = source.nodes.pop("n")
    assert_refused(
        lambda: parse(source), GraphError, "an entry named 'a/b', which a NIR file cannot contain"
    )


@pytest.mark.parametrize("name", ["nodes", "edges"])
def test_a_graph_without_its_parts_is_refused(name, tmp_path):
    write(tmp_path / "a.nir", parse(small()))
    document = load(tmp_path / "a.nir")
    del document["node"][name]
    assert_refused(lambda: parse(document), GraphError, f"no (group|dataset) '{name}'")


def test_a_document_without_a_graph_is_refused():
    assert_refused(
        lambda: parse(Group({"version": text_dataset("1.0.8")})),
        GraphError,
        "the document has no group 'node'",
    )


def test_edges_of_the_wrong_shape_are_refused(tmp_path):
    write(tmp_path / "a.nir", parse(small()))
    document = load(tmp_path / "a.nir")
    document["node"]["edges"] = Dataset(value=np.ones((2, 3)), dtype=np.dtype(float))
    assert_refused(
        lambda: parse(document), GraphError, r"'edges' of the graph has the shape \(2, 3\)"
    )


def test_unknown_entries_are_kept(tmp_path, entries):
    write(tmp_path / "a.nir", parse(small()))
    document = load(tmp_path / "a.nir")
    document["node"]["nodes"]["n"]["surrogate"] = text_dataset("atan")
    document["node"]["nodes"]["n"]["more"] = Group(
        {"deep": Dataset(value=np.ones(2), dtype=np.dtype(float))}
    )
    save(tmp_path / "b.nir", document)
    graph = read(tmp_path / "b.nir")
    assert list(graph.nodes["n"].extra) == ["more", "surrogate"]
    told = [problem.message for problem in graph.warnings]
    assert (
        "node 'n' (LIF) has 'more', 'surrogate', which NIR does not define for it and nothing reads"
        in told
    )
    assert not [text for text in told if "'w'" in text]
    write(tmp_path / "c.nir", graph)
    assert entries(tmp_path / "c.nir") == entries(tmp_path / "b.nir")


def entries_below(group, path=()):
    """Every entry of a document with its path."""
    for name, entry in group.items():
        yield (*path, name), entry
        if isinstance(entry, Group):
            yield from entries_below(entry, (*path, name))


DAMAGE = [
    None,
    Group(),
    text_dataset("same"),
    text_dataset("NIRGraph"),
    text_dataset("Conv2d"),
    *(
        Dataset(value=value, dtype=value.dtype)
        for value in (
            np.zeros(0),
            np.array(-1),
            np.array(np.nan),
            np.ones((2, 2, 2)),
            np.array(2**40),
            np.array([0.5]),
        )
    ),
]


@pytest.mark.parametrize(
    "name",
    [
        "spyx_c_rcubalif",
        pytest.param("spikingjelly_v_conv", marks=pytest.mark.slow),
        "sinabs3_a_conv1d__inferred__nir104",
    ],
)
def test_whatever_is_damaged_no_other_error_comes_out(zoo, name):
    for path, _ in list(entries_below(load(zoo[name]))):
        for damage in DAMAGE:
            document = load(zoo[name]) if damage is None else document
            group = document
            for step in path[:-1]:
                group = group[step]
            if damage is None:
                del group[path[-1]]
            else:
                group[path[-1]] = damage
            with contextlib.suppress(GraphError):
                as_json(parse(document))
