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


def nested(inner):
    """A graph between an Input and an Output."""
    return graph_of({**ends(3, 3), "sub": inner}, [("input", "sub"), ("sub", "output")])


@pytest.fixture
def document(tmp_path):
    """The small graph as a document."""
    write(tmp_path / "small.nir", parse(small()))
    return load(tmp_path / "small.nir")


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
    assert_refused(
        lambda: parse([]),
        GraphError,
        r"an object of type list is not a NIR graph: pass a nir.NIRGraph",
    )


def test_an_unknown_type_is_refused_by_name_with_the_supported_ones(document):
    document["node"]["nodes"]["n"]["type"] = text_dataset("ALIF")
    assert_refused(
        lambda: parse(document),
        UnsupportedNodeError,
        r"node 'n' has the type ALIF, .*: supported types: Input, .*, NIRGraph",
        node="n",
        code="unknown-type",
    )


@pytest.mark.parametrize(("edge", "missing"), [(("n", "outptu"), "outptu"), (("ww", "n"), "ww")])
def test_a_dangling_edge_is_refused(edge, missing):
    source = small()
    source.edges.append(edge)
    says = f"edge {' -> '.join(edge)} is dangling: the graph has no node '{missing}'"
    assert_refused(lambda: parse(source), GraphError, says)


def test_a_dangling_edge_in_a_nested_graph_is_left_out_and_listed(tmp_path, entries):
    inner = graph_of({**ends(3, 3), "n": lif(3)}, [("input", "n"), ("n", "output"), ("ghost", "n")])
    graph = parse(nested(inner))
    repairs = [(repair.node, repair.what) for repair in graph.repairs]
    assert repairs == [("sub", "edge ghost -> n is left out")]
    assert graph.predecessors("sub/n") == ("sub/input",)
    write(tmp_path / "a.nir", graph)
    edges = load(tmp_path / "a.nir")["node"]["nodes"]["sub"]["edges"].value
    assert edges.tolist()[-1] == [b"ghost", b"n"]
    write(tmp_path / "b.nir", read(tmp_path / "a.nir"))
    assert entries(tmp_path / "a.nir") == entries(tmp_path / "b.nir")


def test_names_with_the_prefix_of_their_graph_are_understood():
    nodes = {f"sub.{name}": node for name, node in {**ends(3, 3), "n": lif(3)}.items()}
    graph = parse(nested(graph_of(nodes, [("input", "n"), ("sub.n", "sub.output")])))
    assert ("sub/sub.input", "sub/sub.n") in graph.edges
    repairs = [repair.what for repair in graph.repairs]
    assert repairs == ["edge input -> n is read as sub.input -> sub.n"]


def test_an_edge_that_is_listed_twice_counts_once():
    source = small()
    source.edges.append(("w", "n"))
    graph = parse(source)
    assert graph.edges.count(("w", "n")) == 1
    assert [repair.what for repair in graph.repairs] == ["edge w -> n is counted once"]


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
    nodes = {"w": nir.Linear(np.ones((3, 3))), "n": lif(3)}
    graph = parse(nested(graph_of(nodes, [("w", "n")])))
    assert graph.edges == (("sub/w", "sub/n"), ("input", "sub/w"), ("sub/n", "output"))
    assert [repair.what for repair in graph.repairs] == [
        "edges to 'sub' reach its node 'w'",
        "edges from 'sub' reach its node 'n'",
    ]
    closed = nested(graph_of(nodes, [("w", "n"), ("n", "w")]))
    assert_refused(lambda: parse(closed), GraphError, "nested graph 'sub' has no Input node")


def test_nodes_that_nothing_feeds_are_warned_of():
    source = small()
    source.nodes["lost"] = nir.Linear(np.ones((3, 2)))
    warnings = parse(source).warnings
    assert [(warning.severity, warning.node, warning.message) for warning in warnings] == [
        ("warning", "lost", "node 'lost' (Linear) has no incoming edge"),
        ("warning", "lost", "node 'lost' (Linear) has no outgoing edge"),
    ]


def test_a_name_that_no_file_can_hold_is_refused():
    source = small()
    source.nodes["a/b"] = source.nodes.pop("n")
    says = "an entry named 'a/b', which a NIR file cannot contain"
    assert_refused(lambda: parse(source), GraphError, says)


def without(name):
    return lambda document: document["node"].pop(name)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda document: document.pop("node"), "the document has no group 'node'"),
        (without("nodes"), "no group 'nodes'"),
        (without("edges"), "no dataset 'edges'"),
        (
            lambda document: document["node"].update(
                edges=Dataset(value=np.ones((2, 3)), dtype=np.dtype(float))
            ),
            r"'edges' of the graph has the shape \(2, 3\)",
        ),
    ],
)
def test_a_document_without_its_parts_is_refused(damage, says, document):
    damage(document)
    assert_refused(lambda: parse(document), GraphError, says)


def test_unknown_entries_are_kept(document, tmp_path, entries):
    deep = Dataset(value=np.ones(2), dtype=np.dtype(float))
    node = document["node"]["nodes"]["n"]
    node["surrogate"], node["more"] = text_dataset("atan"), Group({"deep": deep})
    save(tmp_path / "b.nir", document)
    graph = read(tmp_path / "b.nir")
    assert list(graph.nodes["n"].extra) == ["more", "surrogate"]
    says = (
        "node 'n' (LIF) has 'more', 'surrogate', which NIR does not define for it and nothing reads"
    )
    messages = [problem.message for problem in graph.warnings]
    assert says in messages
    assert not [message for message in messages if "'w'" in message]
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
        document = group = load(zoo[name])
        for step in path[:-1]:
            group = group[step]
        for damage in DAMAGE:
            if damage is None:
                del group[path[-1]]
            else:
                group[path[-1]] = damage
            with contextlib.suppress(GraphError):
                as_json(parse(document))
