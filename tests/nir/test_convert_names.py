"""Names, ways and kinds of numbers that importers would mistake, in what is written for them."""

import dataclasses
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from jaxsnn.errors import ConversionError
from jaxsnn.nir import build, parse
from jaxsnn.nir.convert.importers import importer_problems
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.initializers import normal
from jaxsnn.nir.io.documents import NIR_VERSION, group_of
from tests.helpers.random_spikes import random_raster
from tests.helpers.refusals import assert_refused
from tests.nir.conversions import SUBTRACTS, assert_same, played


def chain(first, weights, second, *, tau: Any = 1e-3, **said):
    """input, w, a population of 4, weights, a population of 3, output."""
    tau = np.broadcast_to(tau, 4)
    nodes = {
        "input": build.input(4),
        "w": build.linear(4, weight=normal(0.4, 1.0)),
        first: build.lif(tau=tau, r=tau / 1e-4),
        weights: build.linear(3, weight=normal(0.4, 1.0)),
        second: build.lif(tau=1e-3, r=10.0),
        "output": build.output(),
    }
    return build.network(nodes, [tuple(nodes)], seed=1, **(SUBTRACTS | said))


def entries(graph):
    """The nodes of a graph as NIR has them."""
    return {name: {"type": node.type, **node.parameters} for name, node in graph.nodes.items()}


def ports(size):
    """Where a nested graph takes and gives something."""
    kinds = {"in": "Input", "out": "Output"}
    return {name: {"type": kind, "shape": np.array([size])} for name, kind in kinds.items()}


def same(graph, conversion):
    assert_same(graph, conversion, random_raster(0, (40, 4, 4), 0.4), low=0.05)


def test_a_keyword_and_the_name_that_importers_give_it_become_two():
    made = convert(chain("class", "nir_node_class", "last"), to="norse")
    assert not {"class", "nir_node_class"} <= made.graph.nodes.keys()
    same(chain("class", "nir_node_class", "last"), made)


@pytest.mark.parametrize("name", ["__class__", "__call__", "__len__"])
def test_names_of_pythons_own_become_others(name):
    made = convert(chain(name, "w2", "last"), to="norse")
    assert name not in made.graph.nodes
    assert f"{name}_" in made.graph.nodes


@pytest.mark.parametrize("target", ["norse", "snntorch", "spikingjelly"])
def test_names_that_importers_spell_alike_become_others(target):
    graph = chain("lif.1", "x", "lif_1")
    found = importer_problems(graph, target)
    assert [one.node for one in found if one.code == "taken-name"] == ["lif_1"]
    made = convert(graph, to=target)
    assert len({name.replace(".", "_") for name in made.graph.nodes}) == len(made.graph.nodes)
    assert any("'lif.1' is renamed" in change.what for change in made.changes)
    same(graph, made)


def test_a_name_of_a_nested_node_that_is_there_already_does_not_merge_the_two():
    members = entries(chain("lif", "x", "m.lif"))
    inner = ports(4) | {"lif": members.pop("lif")}
    members["m"] = {
        "type": "NIRGraph",
        "nodes": inner,
        "edges": [("in", "lif"), ("lif", "out")],
    }
    members["lif"] = members.pop("x")
    edges = [("input", "w"), ("w", "m"), ("m", "lif"), ("lif", "m.lif"), ("m.lif", "output")]
    tree = {"type": "NIRGraph", "nodes": members, "edges": edges}
    graph = parse(group_of(tree, NIR_VERSION), **SUBTRACTS)
    same(graph, convert(graph, to="norse"))


@pytest.mark.parametrize("own", ["lif_0", "lif_1", "lif_0_places", "w_lif_0"])
def test_parts_of_a_population_do_not_take_the_place_of_another_node(own):
    graph = chain("lif", own, "n", tau=[2e-4, 1e-3, 2e-4, 1e-3])
    same(graph, convert(graph, to="spikingjelly"))


@pytest.mark.parametrize("own", ["lif_start", "lif_start_weights"])
def test_neurons_that_give_a_start_do_not_take_the_place_of_another_node(own):
    neurons: dict[str, Any] = {"tau": 1e-3, "v_leak": 0.05, "v_threshold": 0.2}
    nodes = {
        "input": build.input(4),
        "w": build.affine(4, bias=0.1, weight=normal(0.5, 1.5)),
        "lif": build.lif(**neurons),
        own: build.linear(3, weight=normal(0.5, 1.5)),
        "n": build.lif(**neurons),
        "output": build.output(),
    }
    said: dict[str, Any] = {"dialect": "norse", "dt": 1e-4, "dt_export": 1.0}
    graph = build.network(nodes, [tuple(nodes)], seed=1, **said)
    same(graph, convert(graph, to="snntorch"))


@pytest.mark.parametrize("target", ["norse", "hxtorch"])
def test_a_second_way_through_a_nested_graph_is_not_lost(target):
    passes = {"type": "NIRGraph", "nodes": ports(3), "edges": [("in", "out")]}
    plain = chain("lif", "x", "n")
    members = entries(plain) | {"p": passes}
    edges = [*plain.edges, ("x", "p"), ("p", "n")]
    tree = {"type": "NIRGraph", "nodes": members, "edges": edges}
    graph = parse(group_of(tree, NIR_VERSION), **SUBTRACTS)
    x = random_raster(0, (40, 4, 4), 0.4)
    assert not np.array_equal(played(graph, x), played(plain, x))
    assert_refused(
        lambda: convert(graph, to=target, approximate=True),
        ConversionError,
        "node 'n' receives the output of 'x' more than once",
    )


@pytest.mark.parametrize("dtype", ["i1", "?", ">f4", "f2"])
def test_weights_are_written_as_floats_of_this_machine(dtype):
    graph = chain("lif", "x", "n")
    weight = np.round(np.abs(graph.nodes["x"].value("weight"))).astype(dtype)
    nodes = dict(graph.nodes) | {"x": graph.nodes["x"].replace(weight=weight)}
    graph = dataclasses.replace(graph, nodes=MappingProxyType(nodes))
    made = convert(graph, to="spikingjelly")
    written = np.asarray(made.graph.nodes["x"].value("weight"))
    assert written.dtype in (np.float32, np.float64)
    assert written.dtype.isnative
    np.testing.assert_array_equal(written, weight)


@pytest.mark.parametrize("name", ["self", "initialized_state", "is_none", "_modules"])
def test_names_in_the_code_that_importers_write_are_changed(name):
    made = convert(chain("lif", name, "n"), to="snntorch")
    assert name not in made.graph.nodes
    assert f"{name}_" in made.graph.nodes


@pytest.mark.parametrize("target", ["snntorch", "spikingjelly"])
@pytest.mark.parametrize("name", ["keys", "values", "µ", "e\u0301", "ﬁ", 'a"b', "a\\b"])
def test_names_that_python_reads_as_others_are_changed(name, target):
    graph = chain("lif", name, "n")
    made = convert(graph, to=target)
    (change,) = (one for one in made.changes if "is renamed" in one.what)
    assert change.node != name
    assert change.node.isidentifier()
    same(graph, made)


def test_names_that_python_reads_alike_stay_two():
    graph = chain("\u03bc", "\u00b5", "n")  # mu, and the sign for micro
    made = convert(graph, to="snntorch")
    assert sum(name.startswith("\u03bc") for name in made.graph.nodes) == 2
    same(graph, made)
