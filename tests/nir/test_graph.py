"""Order, cycles, nesting, and records that cannot be changed by accident."""

import dataclasses

import networkx
import nir
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsnn.errors import GraphError, UsageError
from jaxsnn.nir import build, parse, read, write
from jaxsnn.nir.model.nodes import TYPES, CubaLIF, Linear
from jaxsnn.nir.model.ordering import components, neighbours, sources_first
from jaxsnn.nir.model.passes import bypass_relays
from tests.helpers.refusals import assert_refused


def chain(names, extra=()):
    """A graph of scalings with the given node names in a row."""
    nodes = {name: nir.Scale(np.ones(2)) for name in names}
    ends = {"input": nir.Input(np.array([2])), "output": nir.Output(np.array([2]))}
    edges = list(zip(["input", *names], [*names, "output"], strict=True))
    return nir.NIRGraph({**nodes, **ends}, [*edges, *extra], type_check=False)


@given(st.permutations([str(number) for number in range(13)]))
def test_nodes_are_sorted_as_people_do(names):
    graph = parse(chain(names))
    assert list(graph.nodes) == [*map(str, range(13)), "input", "output"]
    assert graph.order() == ("input", *names, "output")


@given(st.permutations(list(range(5))), st.permutations(list(range(9))))
def test_order_ignores_the_order_in_the_file(nodes, edges):
    reference = chain("abcde", extra=[("a", "d"), ("a", "e"), ("a", "c")])
    names, pairs = list("abcde"), list(reference.edges)
    shuffled = {names[place]: reference.nodes[names[place]] for place in nodes}
    ends = {name: reference.nodes[name] for name in ("output", "input")}
    other = nir.NIRGraph({**shuffled, **ends}, [pairs[place] for place in edges], type_check=False)
    a, b = parse(reference), parse(other)
    assert list(a.nodes) == list(b.nodes)
    assert a.order() == b.order()
    assert list(a.networkx.edges) == list(b.networkx.edges)


def test_cycles_stand_together():
    graph = parse(chain("abcd", extra=[("c", "b"), ("d", "d")]))
    assert graph.recurrent_components() == (("b", "c"), ("d",))
    assert graph.order() == ("input", "a", "b", "c", "d", "output")
    assert graph.predecessors("b") == ("a", "c")
    assert graph.successors("c") == ("b", "d")
    assert_refused(lambda: graph.predecessors("aa"), GraphError, "no node 'aa': did you mean 'a'")


def test_the_networkx_view_is_frozen_and_has_the_records():
    graph = parse(chain("ab"))
    assert graph.networkx.nodes["a"]["record"] is graph.nodes["a"]
    with pytest.raises(networkx.NetworkXError):
        graph.networkx.add_edge("a", "input")


def test_nothing_can_be_changed_in_place():
    graph = build.sequential(build.input(2), build.linear(3), build.li(tau=0.01), seed=0)
    weight = graph.nodes["1"].value("weight")
    with pytest.raises(ValueError, match="read-only"):
        weight[0, 0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        graph.nodes["1"].weight = weight  # pyright: ignore
    with pytest.raises(TypeError):
        graph.nodes["1"] = graph.nodes["2"]  # pyright: ignore
    own = np.zeros((3, 2))
    changed = graph.with_nodes([graph.nodes["1"].replace(weight=own)])
    own[0, 0] = 7
    assert changed.nodes["1"].value("weight")[0, 0] == 0
    assert graph.nodes["1"].value("weight") is weight


def test_records_are_replaced_by_records_of_the_same_name_and_type():
    graph = build.sequential(build.input(2), build.linear(3), build.li(tau=0.01), seed=0)
    assert_refused(
        lambda: graph.with_nodes([Linear(name="x", weight=np.ones((3, 2)))]),
        GraphError,
        "no node 'x'",
    )
    assert_refused(
        lambda: graph.with_nodes([Linear(name="2", weight=np.ones((3, 2)))]),
        GraphError,
        "node '2' is a LI, not a Linear",
    )


def test_values_have_the_defaults_of_nir():
    node = CubaLIF(name="n", tau_syn=np.array(0.1))
    assert node.value("v_reset") == 0
    assert node.value("w_in") == 1
    assert list(node.parameters) == ["tau_syn"]
    assert_refused(lambda: node.value("tau"), UsageError, "has no parameter 'tau'")


def test_every_primitive_of_nir_is_a_record_with_its_parameters():
    primitives = set(nir.ir.__all__) - {"NIRGraph", "NIRNode", "str2NIRNode", "dict2NIRNode"}
    assert set(TYPES) == primitives
    for name, cls in TYPES.items():
        theirs = {field.name for field in dataclasses.fields(getattr(nir, name)) if field.init} - {
            "metadata"
        }
        renamed = {"Input": {"shape"}, "Output": {"shape"}}.get(name, theirs)
        assert set(cls.names) == renamed


def nested(depth):
    """A graph in a graph in a graph, recurrent at the bottom."""
    inner: nir.NIRNode = nir.LIF(*(np.full(2, value) for value in (0.1, 1.0, 0.0, 1.0)))
    for level in range(depth):
        nodes = {
            "input": nir.Input(np.array([2])),
            "core": inner,
            "output": nir.Output(np.array([2])),
        }
        edges = [("input", "core"), ("core", "output")]
        if level == 0:
            nodes["w_rec"] = nir.Linear(np.ones((2, 2)))
            edges += [("core", "w_rec"), ("w_rec", "core")]
        inner = nir.NIRGraph(nodes, edges, metadata={"level": level}, type_check=False)
    return inner


def test_nesting_is_flattened_and_restored(tmp_path):
    source = nested(3)
    graph = parse(source)
    assert "core/core/core" in graph.nodes
    assert ("core/input", "core/core/input") in graph.edges
    assert ("core/core/output", "core/output") in graph.edges
    assert graph.recurrent_components() == (("core/core/core", "core/core/w_rec"),)
    assert (graph.inputs, graph.outputs) == (("input",), ("output",))
    assert [graph.subgraphs[path].metadata["level"] for path in ("", "core", "core/core")] == [
        2,
        1,
        0,
    ]
    ends = [
        ("core/core/core", "core/core/w_rec"),
        ("core/core/core", "output"),
        ("core/core/w_rec", "core/core/core"),
    ]
    assert bypass_relays(graph) == (*ends, ("input", "core/core/core"))

    write(tmp_path / "nested.nir", graph)
    again = nir.read(tmp_path / "nested.nir")
    assert again.edges == source.edges
    assert again.nodes["core"].nodes["core"].edges == source.nodes["core"].nodes["core"].edges
    assert read(tmp_path / "nested.nir").edges == graph.edges


def test_an_edge_to_a_graph_with_two_inputs_is_ambiguous():
    two = nir.NIRGraph(
        {
            "a": nir.Input(np.array([2])),
            "b": nir.Input(np.array([2])),
            "core": nir.Scale(np.ones(2)),
            "output": nir.Output(np.array([2])),
        },
        [("a", "core"), ("b", "core"), ("core", "output")],
    )
    nodes = {"input": nir.Input(np.array([2])), "two": two, "output": nir.Output(np.array([2]))}
    graph = nir.NIRGraph(nodes, [("input", "two"), ("two", "output")], type_check=False)
    assert_refused(
        lambda: parse(graph),
        GraphError,
        r"to the nested graph 'two' is ambiguous: the graph has 2 Input nodes \(a, b\)",
    )


# ---- the order against networkx, on random graphs


def random_edges(rng, size):
    return [
        tuple(map(int, rng.integers(0, size, 2))) for _ in range(int(rng.integers(0, 3 * size)))
    ]


@pytest.mark.parametrize("seed", range(20))
def test_cycles_are_those_of_networkx(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 25))
    edges = random_edges(rng, size)
    graph = networkx.MultiDiGraph(edges)
    graph.add_nodes_from(range(size))
    found = components(neighbours(range(size), edges)[1])
    expected = networkx.strongly_connected_components(graph)
    assert sorted(map(sorted, found)) == sorted(map(sorted, expected))
    # Targets come before sources.
    place = {name: number for number, group in enumerate(found) for name in group}
    assert all(place[target] <= place[source] for source, target in edges)


@pytest.mark.parametrize("seed", range(20))
def test_sources_come_first_as_in_networkx(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 25))
    edges = [(a, b) for a, b in random_edges(rng, size) if a < b]
    rank = [int(number) for number in rng.permutation(size)]
    graph = networkx.DiGraph(edges)
    graph.add_nodes_from(range(size))
    expected = networkx.lexicographical_topological_sort(graph, key=rank.__getitem__)
    assert sources_first(range(size), edges, key=rank.__getitem__) == list(expected)


def test_long_chains_need_no_recursion():
    edges = [(number, number + 1) for number in range(5000)]
    assert len(components(neighbours(range(5001), edges)[1])) == 5001
