"""Names, ways and kinds of numbers that importers would mistake, in what is written for them."""

import keyword
import unicodedata
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


def chain(first="lif", weights="x", second="n", *, tau: Any = 1e-3, **options):
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
    return build.network(nodes, [tuple(nodes)], seed=1, **(SUBTRACTS | options))


def started(weights):
    """The same with neurons of Norse that start at v_leak."""
    neurons = build.lif(tau=1e-3, v_leak=0.05, v_threshold=0.2)
    nodes = {
        "input": build.input(4),
        "w": build.affine(4, bias=0.1, weight=normal(0.5, 1.5)),
        "lif": neurons,
        weights: build.linear(3, weight=normal(0.5, 1.5)),
        "n": neurons,
        "output": build.output(),
    }
    options: dict[str, Any] = {"dialect": "norse", "dt": 1e-4, "dt_export": 1.0}
    return build.network(nodes, [tuple(nodes)], seed=1, **options)


def entries(graph):
    """The nodes of a graph as NIR has them."""
    return {name: {"type": node.type, **node.parameters} for name, node in graph.nodes.items()}


def ports(size):
    """Where a nested graph takes and gives something."""
    kinds = {"in": "Input", "out": "Output"}
    return {name: {"type": kind, "shape": np.array([size])} for name, kind in kinds.items()}


def graph_with(members, edges):
    tree = {"type": "NIRGraph", "nodes": members, "edges": edges}
    return parse(group_of(tree, NIR_VERSION), **SUBTRACTS)


def nested_namesake():
    """A nested node m.lif beside a node of that name."""
    members = entries(chain("lif", "x", "m.lif"))
    inner = ports(4) | {"lif": members.pop("lif")}
    members["m"] = {"type": "NIRGraph", "nodes": inner, "edges": [("in", "lif"), ("lif", "out")]}
    members["lif"] = members.pop("x")
    edges = [("input", "w"), ("w", "m"), ("m", "lif"), ("lif", "m.lif"), ("m.lif", "output")]
    return graph_with(members, edges)


TAUS = [2e-4, 1e-3, 2e-4, 1e-3]
#: A graph whose names importers would confuse, and a target.
CLASHES = {
    "a keyword": (lambda: chain("class", "nir_node_class", "last"), "norse"),
    **{
        f"a name as it is spelt, {target}": (lambda: chain("lif.1", "x", "lif_1"), target)
        for target in ("norse", "snntorch", "spikingjelly")
    },
    "a nested node": (nested_namesake, "norse"),
    **{
        f"a part of a population, {name}": (
            lambda name=name: chain("lif", name, "n", tau=TAUS), "spikingjelly",
        )
        for name in ("lif_0", "lif_1", "lif_0_places", "w_lif_0")
    },
    **{
        f"neurons that give a start, {name}": (lambda name=name: started(name), "snntorch")
        for name in ("lif_start", "lif_start_weights")
    },
    **{
        f"python reads {name} otherwise, {target}": (lambda name=name: chain("lif", name, "n"), target)
        for name in ("keys", "values", "µ", "e\u0301", "ﬁ", 'a"b', "a\\b")
        for target in ("snntorch", "spikingjelly")
    },
    # The Greek letter mu and the micro sign.
    "python reads them alike": (lambda: chain("\u03bc", "\u00b5", "n"), "snntorch"),
}  # fmt: skip


def as_spelt(name):
    """The attribute that importers make of a name."""
    spelt = unicodedata.normalize("NFKC", name).replace(".", "_")
    return f"nir_node_{spelt}" if keyword.iskeyword(spelt) else spelt


@pytest.mark.parametrize("name", CLASHES)
def test_nodes_whose_names_importers_mistake_do_not_merge(name):
    make, target = CLASHES[name]
    graph = make()
    conversion = convert(graph, to=target)
    spelt = {as_spelt(node) for node in conversion.graph.nodes}
    assert len(spelt) == len(conversion.graph.nodes)
    assert_same(graph, conversion, random_raster(0, (40, 4, 4), 0.4), low=0.05)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        *((name, "norse") for name in ("__class__", "__call__", "__len__")),
        *((name, "snntorch") for name in ("self", "initialized_state", "is_none", "_modules")),
        *((name, "snntorch") for name in ("keys", "values", "µ", "e\u0301", "ﬁ", 'a"b', "a\\b")),
    ],
)
def test_names_that_importers_cannot_use_are_changed(name, target):
    conversion = convert(chain(weights=name), to=target)
    (change,) = (change for change in conversion.changes if "renamed from" in change.what)
    assert name not in conversion.graph.nodes
    assert change.node in conversion.graph.nodes
    assert change.node.isidentifier()
    assert change.node == f"{name}_" or not (name.isascii() and name.isidentifier())


@pytest.mark.parametrize("target", ["norse", "snntorch", "spikingjelly"])
def test_names_that_importers_spell_alike_are_reported(target):
    graph = chain("lif.1", "x", "lif_1")
    problems = importer_problems(graph, target)
    assert [problem.node for problem in problems if problem.code == "taken-name"] == ["lif_1"]
    changes = convert(graph, to=target).changes
    assert any("renamed from 'lif.1'" in change.what for change in changes)


@pytest.mark.parametrize("target", ["norse", "hxtorch"])
def test_a_second_way_through_a_nested_graph_is_not_lost(target):
    plain = chain()
    passes = {"type": "NIRGraph", "nodes": ports(3), "edges": [("in", "out")]}
    graph = graph_with(entries(plain) | {"p": passes}, [*plain.edges, ("x", "p"), ("p", "n")])
    x = random_raster(0, (40, 4, 4), 0.4)
    assert not np.array_equal(played(graph, x), played(plain, x))
    assert_refused(
        lambda: convert(graph, to=target, approximate=True),
        ConversionError,
        "node 'n' receives the output of 'x' several times",
    )


@pytest.mark.parametrize("dtype", ["i1", "?", ">f4", "f2"])
def test_weights_are_written_as_floats_of_this_machine(dtype):
    graph = chain()
    weight = np.round(np.abs(graph.nodes["x"].value("weight"))).astype(dtype)
    graph = graph.with_nodes([graph.nodes["x"].replace(weight=weight)])
    written = np.asarray(convert(graph, to="spikingjelly").graph.nodes["x"].value("weight"))
    assert written.dtype in (np.float32, np.float64)
    assert written.dtype.isnative
    np.testing.assert_array_equal(written, weight)
