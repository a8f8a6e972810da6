"""Back to files: random graphs survive, changed numbers fit in, other tools read the result."""

import dataclasses

import h5py
import nir
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsnn.nir import build, describe, export, parse, read, write
from jaxsnn.nir.graphs.export import same_array
from jaxsnn.nir.io.documents import group_of
from jaxsnn.nir.model.node import Node

DTYPES = st.sampled_from(["float32", "float64", "float16"])
WIDTH = 3


@st.composite
def arrays(draw, shape, low=0.125, high=4.0):
    """Numbers of some dtype, one for all (0-d) or one for each."""
    shape = () if draw(st.booleans()) else shape
    seed = draw(st.integers(0, 2**32 - 1))
    return np.random.default_rng(seed).uniform(low, high, shape).astype(draw(DTYPES))[
        ()
    ] + np.zeros(shape, "float16")


NAMES = {
    "LIF": "tau r v_leak v_threshold v_reset",
    "CubaLIF": "tau_syn tau_mem r v_leak v_threshold v_reset w_in",
    "LI": "tau r v_leak",
    "CubaLI": "tau_syn tau_mem r v_leak w_in",
    "IF": "r v_threshold v_reset",
    "I": "r",
    "Scale": "scale",
    "Delay": "delay",
    "Threshold": "threshold",
}
KEYS = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=5
).filter(lambda key: key != ".")
VALUES = st.one_of(
    st.text(max_size=4).filter(lambda text: "\0" not in text), st.integers(0, 9), st.floats(0, 1)
)
METADATA = st.dictionaries(
    KEYS, st.one_of(VALUES, st.dictionaries(KEYS, VALUES, max_size=2)), max_size=3
)


@st.composite
def neurons(draw):
    """A neuron of some type as the dict that nir writes; parameters that NIR lets out may be out."""
    kind = draw(st.sampled_from(list(NAMES)))
    entry = {"type": kind}
    for name in NAMES[kind].split():
        if name not in ("v_reset", "w_in") or draw(st.booleans()):
            entry[name] = draw(arrays((WIDTH,)))
    if draw(st.booleans()):
        entry["metadata"] = draw(METADATA)
    return entry


@st.composite
def graphs(draw, depth=2):
    """A chain of weights, neurons and nested graphs, with recurrent weights and skipping edges here
    and there.
    """
    nodes, previous = {"input": {"type": "Input", "shape": np.array([WIDTH])}}, "input"
    edges = []
    for number in range(draw(st.integers(1, 4))):
        name = draw(st.sampled_from(["layer.", "", "_", "n"])) + str(number)
        inner = depth > 0 and draw(st.integers(0, 3)) == 0
        nodes[name] = draw(graphs(depth=depth - 1)) if inner else draw(neurons())
        edges.append((previous, name))
        if draw(st.booleans()):
            seed = draw(st.integers(0, 2**32 - 1))
            nodes[f"{name}.w"] = {
                "type": "Linear",
                "weight": np.random.default_rng(seed).normal(size=(WIDTH, WIDTH)),
            }
            edges += [(name, f"{name}.w"), (f"{name}.w", name)]
        if draw(st.booleans()) and not inner:
            edges.append((name, name))
        previous = name
    nodes["output"] = {"type": "Output", "shape": np.array([WIDTH])}
    edges.append((previous, "output"))
    return {"type": "NIRGraph", "nodes": nodes, "edges": draw(st.permutations(edges))}


def same_nodes(a: Node, b: Node) -> bool:
    """Equal in type, and in every parameter to the last bit."""
    if a.type != b.type or a.parameters.keys() != b.parameters.keys():
        return False
    return all(same_array(value, b.parameters[name]) for name, value in a.parameters.items())


@settings(max_examples=20)
@given(tree=graphs())
def test_random_graphs_survive(tree, tmp_path_factory, entries):
    folder = tmp_path_factory.mktemp("random")
    graph = parse(group_of(tree, "1.0.8"))
    write(folder / "a.nir", graph)
    reread = read(folder / "a.nir")
    assert reread.order() == graph.order()
    assert reread.edges == graph.edges
    assert all(same_nodes(reread.nodes[name], node) for name, node in graph.nodes.items())
    assert describe(reread) == describe(graph)
    write(folder / "b.nir", reread)
    assert entries(folder / "a.nir") == entries(folder / "b.nir")
    assert (folder / "a.nir").read_bytes() == (folder / "b.nir").read_bytes()


def trained(graph, name, parameter, value):
    return graph.with_nodes([graph.nodes[name].replace(**{parameter: value})])


def test_only_what_changed_is_different(zoo, tmp_path, entries):
    graph = read(zoo["snntorch_v_syn_sub"])
    weight = np.asarray(graph.nodes["0"].value("weight")).astype("float64") * 1.1
    write(tmp_path / "a.nir", trained(graph, "0", "weight", weight))
    before, after = entries(zoo["snntorch_v_syn_sub"]), entries(tmp_path / "a.nir")
    assert before.keys() == after.keys()
    assert [name for name in before if before[name] != after[name]] == ["node/nodes/0/weight"]
    assert read(tmp_path / "a.nir").nodes["0"].value("weight").dtype == np.float32


SPYX = "layer_1/layer_1.lif"


def small():
    return build.sequential(build.input(2), build.linear(3), build.li(tau=0.01), seed=0)


def half_precision(_):
    layer = build.linear(weight=np.ones((1, 1), "float16"))
    return build.sequential(build.input(1), layer, build.li(tau=0.1))


def whole_numbers(zoo):
    return read(zoo["spyx_v_rlif"])


@pytest.mark.parametrize(
    ("make", "node", "parameter", "value", "dtype"),
    [
        (whole_numbers, SPYX, "v_threshold", np.array(2), "int64"),
        (whole_numbers, SPYX, "v_threshold", np.array(2.0), "int64"),
        (whole_numbers, SPYX, "v_threshold", np.array(1.5), "float64"),
        (whole_numbers, SPYX, "v_threshold", np.array([1.5, 2.5] * 15, "float32"), "float32"),
        (half_precision, "1", "weight", np.array([[1e6 + 1]]), "float32"),
        (half_precision, "1", "weight", np.array([[1.0001]]), "float32"),
        (half_precision, "1", "weight", np.array([[2.0]]), "float16"),
    ],
)
def test_a_dtype_gives_way_where_it_would_lose_digits(
    make, node, parameter, value, dtype, zoo, tmp_path
):
    """Whole numbers stay whole or become floats; half precision stays, or grows."""
    write(tmp_path / "a.nir", trained(make(zoo), node, parameter, value))
    written = read(tmp_path / "a.nir").nodes[node].value(parameter)
    assert written.dtype == dtype
    np.testing.assert_allclose(written, value, rtol=1e-7)


def test_a_parameter_can_appear_and_go(zoo, tmp_path):
    graph = read(zoo["norse_a_lifbox_vec__nir104"])
    write(tmp_path / "a.nir", trained(graph, "1", "v_reset", np.full(30, -0.5)))
    graph = read(tmp_path / "a.nir")
    assert graph.nodes["1"].value("v_reset").tolist() == [-0.5] * 30
    assert graph.nodes["3"].v_reset is None
    without = dataclasses.replace(graph.nodes["1"], v_reset=None)
    write(tmp_path / "b.nir", graph.with_nodes([without]))
    assert read(tmp_path / "b.nir").nodes["1"].v_reset is None


def test_nir_reads_and_checks_what_was_written(tmp_path):
    nodes = {
        "input": build.input(2),
        "w": build.affine(4),
        "hidden": build.cubalif(tau_mem="20ms", tau_syn="10ms"),
        "w_rec": build.linear(4),
        "v": build.linear(3),
        "readout": build.cubali(tau_mem="20ms", tau_syn="10ms"),
        "output": build.output(),
    }
    edges = [("input", "w", "hidden", "v", "readout", "output"), ("hidden", "w_rec", "hidden")]
    graph = build.network(nodes, edges, seed=3)
    write(tmp_path / "a.nir", graph)
    theirs = nir.read(tmp_path / "a.nir")
    assert set(theirs.nodes) == set(graph.nodes)
    assert (theirs.edges, theirs.metadata) == (list(graph.edges), dict(graph.metadata))
    for name, node in graph.nodes.items():
        for parameter in set(node.parameters) - {"shape"}:
            written = getattr(theirs.nodes[name], parameter)
            np.testing.assert_array_equal(written, node.parameters[parameter])


@pytest.mark.parametrize("text", [[["999", "1e-"], ["", "9"]], [[b"999", b"\xff"]], b"one", "ü"])
def test_text_among_the_metadata_is_written_as_it_is(text, tmp_path):
    """Of fixed length, too, as other programs write it: NumPy has it as bytes."""
    theirs = export(small())
    theirs.metadata = {"said": np.array(text) if isinstance(text, list) else text}
    write(tmp_path / "a.nir", parse(theirs))
    with h5py.File(tmp_path / "a.nir") as file:
        written = np.ravel(np.array(file["node"]["metadata"]["said"][()], object))
    expected = np.ravel(np.array(text, object))
    encoded = [part.encode() if isinstance(part, str) else part for part in expected]
    assert written.tolist() == encoded


def test_export_gives_copies():
    graph = small()
    export(graph).nodes["1"].weight[:] = 0
    assert np.all(graph.nodes["1"].value("weight") != 0)


def test_export_leaves_out_what_was_assumed():
    graph = parse(nir.NIRGraph({"w": nir.Linear(np.ones((3, 2)))}, [], type_check=False))
    assert set(graph.nodes) == {"input_w", "w", "output_w"}
    assert set(export(graph).nodes) == {"w"}
