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


def chain(node_names, extra=()):
    """A graph of scalings with the given node names in a row."""
    nodes = {name: nir.Scale(np.ones(2)) for name in node_names}
    ends = {"input": nir.Input(np.array([2])), "output": nir.Output(np.array([2]))}
    edges = list(zip(["input", *node_names], [*node_names, "output"], strict=True))
    return nir.NIRGraph({**nodes, **ends}, [*edges, *extra], type_check=False)


@given(st.permutations([str(number) for number in range(13)]))
def test_nodes_are_sorted_as_people_do(node_names):
    graph = parse(chain(node_names))
    assert list(graph.nodes) == [*map(str, range(13)), "input", "output"]
    assert graph.order() == ("input", *node_names, "output")


@given(st.permutations(list(range(5))), st.permutations(list(range(9))))
def test_order_ignores_the_order_in_the_file(nodes, edges):
    reference = chain("abcde", extra=[("a", "d"), ("a", "e"), ("a", "c")])
    node_names = [*("abcde"[place] for place in nodes), "output", "input"]
    shuffled = {name: reference.nodes[name] for name in node_names}
    pairs = [reference.edges[place] for place in edges]
    a, b = parse(reference), parse(nir.NIRGraph(shuffled, pairs, type_check=False))
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


@pytest.fixture
def graph():
    return build.sequential(build.input(2), build.linear(3), build.li(tau=0.01), seed=0)


def test_nothing_can_be_changed_in_place(graph):
    weight = graph.nodes["1"].value("weight")
    with pytest.raises(ValueError, match="read-only"):
        weight[0, 0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        graph.nodes["1"].weight = weight
    with pytest.raises(TypeError):
        graph.nodes["1"] = graph.nodes["2"]
    zeros = np.zeros((3, 2))
    changed = graph.with_nodes([graph.nodes["1"].replace(weight=zeros)])
    zeros[0, 0] = 7
    assert changed.nodes["1"].value("weight")[0, 0] == 0
    assert graph.nodes["1"].value("weight") is weight


@pytest.mark.parametrize(
    ("name", "says"), [("x", "no node 'x'"), ("2", "node '2' has the type LI, not Linear")]
)
def test_records_are_replaced_by_records_of_the_same_name_and_type(name, says, graph):
    record = Linear(name=name, weight=np.ones((3, 2)))
    assert_refused(lambda: graph.with_nodes([record]), GraphError, says)


def test_values_have_the_defaults_of_nir():
    node = CubaLIF(name="n", tau_syn=np.array(0.1))
    assert (node.value("v_reset"), node.value("w_in")) == (0, 1)
    assert list(node.parameters) == ["tau_syn"]
    assert_refused(lambda: node.value("tau"), UsageError, "has no parameter 'tau'")


def test_every_primitive_of_nir_is_a_record_with_its_parameters():
    primitives = set(nir.ir.__all__) - {"NIRGraph", "NIRNode", "str2NIRNode", "dict2NIRNode"}
    assert set(TYPES) == primitives
    for name, cls in TYPES.items():
        fields = {field.name for field in dataclasses.fields(getattr(nir, name)) if field.init}
        expected = {"shape"} if name in ("Input", "Output") else fields - {"metadata"}
        assert set(cls.names) == expected


def nested(depth):
    """A graph in a graph in a graph, recurrent at the bottom."""
    inner: nir.NIRNode = nir.LIF(*(np.full(2, value) for value in (0.1, 1.0, 0.0, 1.0)))
    for level in range(depth):
        ports = {"input": nir.Input(np.array([2])), "output": nir.Output(np.array([2]))}
        nodes, edges = {**ports, "core": inner}, [("input", "core"), ("core", "output")]
        if level == 0:
            nodes["w_rec"] = nir.Linear(np.ones((2, 2)))
            edges += [("core", "w_rec"), ("w_rec", "core")]
        inner = nir.NIRGraph(nodes, edges, metadata={"level": level}, type_check=False)
    return inner


def test_nesting_is_flattened_and_restored(tmp_path):
    source = nested(3)
    graph = parse(source)
    neuron, weights = "core/core/core", "core/core/w_rec"
    assert neuron in graph.nodes
    assert {("core/input", "core/core/input"), ("core/core/output", "core/output")} <= set(
        graph.edges
    )
    assert graph.recurrent_components() == ((neuron, weights),)
    assert (graph.inputs, graph.outputs) == (("input",), ("output",))
    levels = [graph.subgraphs[path].metadata["level"] for path in ("", "core", "core/core")]
    assert levels == [2, 1, 0]
    bypassed = (neuron, weights), (neuron, "output"), (weights, neuron), ("input", neuron)
    assert bypass_relays(graph) == bypassed

    write(tmp_path / "nested.nir", graph)
    theirs = nir.read(tmp_path / "nested.nir")
    assert theirs.edges == source.edges
    assert theirs.nodes["core"].nodes["core"].edges == source.nodes["core"].nodes["core"].edges
    assert read(tmp_path / "nested.nir").edges == graph.edges


def test_an_edge_to_a_graph_with_two_inputs_is_ambiguous():
    port = np.array([2])
    inner = {"a": nir.Input(port), "b": nir.Input(port), "core": nir.Scale(np.ones(2))}
    inner["output"] = nir.Output(port)
    two = nir.NIRGraph(inner, [("a", "core"), ("b", "core"), ("core", "output")])
    nodes = {"input": nir.Input(port), "two": two, "output": nir.Output(port)}
    graph = nir.NIRGraph(nodes, [("input", "two"), ("two", "output")], type_check=False)
    says = r"to the nested graph 'two' is ambiguous: the graph has 2 Input nodes \(a, b\)"
    assert_refused(lambda: parse(graph), GraphError, says)


# -- order, compared with networkx on random graphs


def random_edges(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 25))
    count = int(rng.integers(0, 3 * size))
    return rng, size, [tuple(map(int, rng.integers(0, size, 2))) for _ in range(count)]


@pytest.mark.parametrize("seed", range(20))
def test_cycles_are_those_of_networkx(seed):
    _, size, edges = random_edges(seed)
    graph = networkx.MultiDiGraph(edges)
    graph.add_nodes_from(range(size))
    cycles = components(neighbours(range(size), edges)[1])
    expected = networkx.strongly_connected_components(graph)
    assert sorted(map(sorted, cycles)) == sorted(map(sorted, expected))
    # Targets come before sources.
    place = {name: number for number, group in enumerate(cycles) for name in group}
    assert all(place[target] <= place[source] for source, target in edges)


@pytest.mark.parametrize("seed", range(20))
def test_sources_come_first_as_in_networkx(seed):
    rng, size, edges = random_edges(seed)
    edges = [(a, b) for a, b in edges if a < b]
    rank = [int(number) for number in rng.permutation(size)]
    graph = networkx.DiGraph(edges)
    graph.add_nodes_from(range(size))
    expected = networkx.lexicographical_topological_sort(graph, key=rank.__getitem__)
    assert sources_first(range(size), edges, key=rank.__getitem__) == list(expected)


def test_long_chains_need_no_recursion():
    edges = [(number, number + 1) for number in range(5000)]
    assert len(components(neighbours(range(5001), edges)[1])) == 5001
