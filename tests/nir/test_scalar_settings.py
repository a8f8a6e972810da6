"""A setting that is one number means the same with the shape () and with (1,), whoever reads it."""

from functools import cache

import nir
import numpy as np
import pytest

from jaxsnn import TimeStepped, lower, simulate, to_torch
from jaxsnn.nir import build, parse, read, write
from jaxsnn.nir.convert.importers import importer_problems
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.graphs.export import document_of_graph
from jaxsnn.nir.io.files import Dataset, Group

SETTINGS = [
    ("conv", "stride"),
    ("conv", "padding"),
    ("conv", "dilation"),
    ("conv", "groups"),
    ("pool", "kernel_size"),
    ("pool", "stride"),
    ("pool", "padding"),
    ("flat", "start_dim"),
    ("flat", "end_dim"),
    ("conv1d", "stride"),
    ("conv1d", "padding"),
    ("conv1d", "dilation"),
    ("conv1d", "groups"),
    ("conv1d", "input_shape"),
]


def layers(dimensions):
    rng = np.random.default_rng(0)
    neuron = {"tau": 1e-3, "r": 10.0, "v_leak": 0.0, "v_threshold": 1.0, "v_reset": 0.0}
    frame = {"stride": 1, "padding": 1, "dilation": 1, "groups": 1, "bias": np.zeros(2)}
    flat = build.node("Flatten", start_dim=-1 - dimensions, end_dim=-1)
    if dimensions == 1:
        return {
            "in": build.input((1, 6)),
            "conv1d": build.node(
                "Conv1d", input_shape=6, weight=rng.normal(1, 1, (2, 1, 3)), **frame
            ),
            "lif": build.node("LIF", **neuron),
            "flat": flat,
            "lin": build.linear(weight=rng.normal(0.3, 1, (3, 12))),
            "lif2": build.node("LIF", **neuron),
            "out": build.output(3),
        }
    return {
        "in": build.input((1, 6, 6)),
        "conv": build.node(
            "Conv2d", input_shape=[6, 6], weight=rng.normal(0.5, 1, (2, 1, 3, 3)), **frame
        ),
        "lif": build.node("LIF", **neuron),
        "pool": build.node("AvgPool2d", kernel_size=2, stride=2, padding=0),
        "flat": flat,
        "lin": build.linear(weight=rng.normal(0.5, 1, (3, 18))),
        "lif2": build.node("LIF", **neuron),
        "out": build.output(3),
    }


@cache
def network(dimensions):
    nodes = layers(dimensions)
    options = {"dialect": "snntorch", "reset": "zero", "reset_delay": False}
    return build.network(nodes, [tuple(nodes)], **options)


def with_array(graph, node, setting):
    """The graph from a document in which a setting has the shape (1,)."""
    document = document_of_graph(graph)
    root = Group(document["node"])
    nodes = Group(root["nodes"])
    entry = Group(nodes[node])
    old = entry[setting]
    assert old.value.shape == ()
    entry[setting] = Dataset(value=old.value.reshape(1), dtype=old.dtype)
    nodes[node], root["nodes"] = entry, nodes
    changed = Group({**document, "node": root}, document.attributes)
    return parse(changed, dialect=graph.dialect)


@pytest.fixture(params=SETTINGS, ids="-".join)
def graphs(request):
    """A graph with scalars, the same with one of them as an array, and which it is."""
    node, setting = request.param
    plain = network(1 if node == "conv1d" else 2)
    return plain, with_array(plain, node, setting), node, setting


def numbers(graph):
    return {
        name: {key: np.asarray(value).tolist() for key, value in node.parameters.items()}
        for name, node in graph.nodes.items()
    }


@cache
def converted(dimensions, target):
    """What a network of scalars is converted to."""
    return numbers(convert(network(dimensions), to=target).graph)


def test_a_conversion_writes_a_scalar_that_the_nir_package_reads(graphs, tmp_path):
    plain, array, *_ = graphs
    one_axis = "conv1d" in plain.nodes
    for target in ("snntorch", "norse", "spikingjelly", *(() if one_axis else ("sinabs",))):
        conversion = convert(array, to=target).graph
        assert numbers(conversion) == converted(1 if one_axis else 2, target)
        write(tmp_path / f"{target}.nir", conversion)
        nir.read(tmp_path / f"{target}.nir")


def test_simulations_and_modules_are_the_same(graphs):
    plain, array, *_ = graphs
    rng = np.random.default_rng(1)
    x = (rng.random((8, 2, *plain.nodes["in"].value("shape"))) < 0.5).astype(np.float32)
    spikes = [
        np.asarray(simulate(lower(graph), x, engine=TimeStepped()).y["out"])
        for graph in (plain, array)
    ]
    assert spikes[0].sum() > 0
    np.testing.assert_array_equal(*spikes)
    state = to_torch(array).state_dict()
    for name, weight in to_torch(plain).state_dict().items():
        np.testing.assert_array_equal(state[name], weight)


def test_the_file_keeps_its_shape(graphs, tmp_path):
    _, array, node, setting = graphs
    write(tmp_path / "a.nir", array)
    written = document_of_graph(read(tmp_path / "a.nir"))["node"]["nodes"][node][setting]
    original = array.source["node"]["nodes"][node][setting]
    assert written.value.shape == (1,)
    assert written.value.dtype == original.value.dtype
    np.testing.assert_array_equal(written.value, original.value)


def test_an_importer_that_cannot_read_the_file_is_named(graphs):
    """nir.read fails on most of them, where there are two axes."""
    plain, array, node, setting = graphs
    before = {problem.message for problem in importer_problems(plain, "snntorch")}
    added = [fault for fault in importer_problems(array, "snntorch") if fault.message not in before]
    assert [fault.node for fault in added] == (
        [] if node == "conv1d" and setting != "groups" else [node]
    )
    assert all(fault.code == "needs-conversion" for fault in added)
