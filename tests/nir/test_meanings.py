"""Numbers that a framework does not take as it wrote them are read as it takes them, said so, and
written back as they were.
"""

import itertools

import jax
import numpy as np
import pytest

from jaxsnn import lower
from jaxsnn.compatibility.checks import check_file
from jaxsnn.errors import DialectError, GraphError
from jaxsnn.nir import parse, read, write
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.io.documents import group_of
from jaxsnn.nir.model.description import as_text
from jaxsnn.nir.model.passes import shapes
from tests.helpers.refusals import assert_refused
from tests.helpers.zoo import MORE, unpacked_more

DT = 1e-4


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return unpacked_more(tmp_path_factory.mktemp("more"))[0]


def graph_of(nodes, **options):
    """A chain from an Input to an Output."""
    size = np.array([3])
    chain = {
        "input": {"type": "Input", "shape": size},
        **nodes,
        "output": {"type": "Output", "shape": size},
    }
    tree = {"type": "NIRGraph", "nodes": chain, "edges": list(itertools.pairwise(chain))}
    return parse(group_of(tree, "1.0.8"), **options)


def cubalif(alpha, beta):
    """As snnTorch writes it, three neurons."""
    alpha, beta = np.asarray(alpha, np.float32), np.asarray(beta, np.float32)
    with np.errstate(divide="ignore"):
        r, w_in = 1 / (1 - beta), 1 / (1 - alpha)
    none, one = np.zeros(3, np.float32), np.ones(3, np.float32)
    times = {"tau_mem": np.float32(DT) * r, "tau_syn": np.float32(DT) * w_in}
    levels = {"v_leak": none, "v_reset": none, "v_threshold": one}
    return {"lif": {"type": "CubaLIF", "r": r, "w_in": w_in, **times, **levels}}


@pytest.mark.parametrize("name", MORE)
def test_what_was_read_otherwise_is_written_as_it_was(name, files, entries, tmp_path):
    write(tmp_path / "again.nir", read(files[name], **MORE[name]["options"]))
    assert entries(tmp_path / "again.nir") == entries(files[name])


def test_learnt_decays_are_clamped_and_named():
    graph = graph_of(cubalif([0.5, -0.25, 1.5], [1.25, 0.75, -0.5]), dialect="snntorch")
    node = graph.nodes["lif"]
    np.testing.assert_allclose(node.value("tau_mem"), [np.inf, 4 * DT, DT], rtol=1e-6)
    np.testing.assert_allclose(node.value("r"), [np.inf, 4, 1])
    np.testing.assert_allclose(node.value("tau_syn"), [2 * DT, DT, np.inf], rtol=1e-6)
    np.testing.assert_allclose(node.value("w_in"), [2, 1, np.inf])
    (change,) = graph.repairs
    assert change.node == "lif"
    assert "beta of 1 of 3 neurons is below 0 and is read as 0 (-0.5 at neuron 2" in change.what
    assert "beta of 1 of 3 neurons is above 1 and is read as 1 (1.25 at neuron 0" in change.what
    assert "alpha of 1 of 3 neurons is above 1 and is read as 1 (1.5 at neuron 2" in change.what
    assert "tau_syn = -0.0002" in change.what
    assert "inf" in as_text(graph)


def test_the_description_has_infinite_numbers(files):
    text = as_text(read(files["snn_trained_learnable"]))
    assert " to inf" in text
    assert "beta of 2 of 32 neurons is above 1" in text


def test_what_lies_within_stays_and_is_not_mentioned():
    entry = cubalif([0.0, 0.5, 1.0], [0.0, 1.0, 0.25])
    graph = graph_of(entry, dialect="snntorch")
    assert not graph.repairs
    for name in ("tau_mem", "tau_syn", "r", "w_in"):
        np.testing.assert_array_equal(graph.nodes["lif"].value(name), entry["lif"][name])


def test_only_a_dialect_that_clamps_takes_a_negative_time_constant(files):
    path = files["snn_trained_learnable"]
    assert read(path).dialect.name == "snntorch"  # by its numbers
    for dialect in ("nir", "spikingjelly"):
        with pytest.raises(GraphError, match="2 of 32 tau that are not positive") as raised:
            read(path, dialect=dialect)
        assert "say dialect= (snntorch means it otherwise)" in raised.value.fix
    report, graph = check_file(path, "grid", reset="subtract", reset_delay=True)
    assert report.ok
    assert graph is not None
    report, graph = check_file(path, "grid", dialect="nir")
    assert [problem.code for problem in report.problems] == ["not-positive"]
    assert graph is None


def test_another_dialect_takes_the_numbers_of_the_file(files):
    path = files["snn_beta_negative"]
    graph, plain = read(path, dialect="snntorch"), read(path, dialect="spikingjelly")
    assert graph.repairs
    again = graph.with_dialect(plain.dialect)
    assert not again.repairs
    np.testing.assert_array_equal(again.nodes["1"].value("tau"), plain.nodes["1"].value("tau"))
    assert graph.nodes["1"].value("tau").min() > plain.nodes["1"].value("tau").min()
    back = again.with_dialect(graph.dialect)
    assert back.repairs == graph.repairs
    np.testing.assert_array_equal(back.nodes["1"].value("tau"), graph.nodes["1"].value("tau"))


def test_trained_numbers_are_written_beside_those_of_the_file(files, tmp_path):
    graph = read(files["snn_beta_negative"], dialect="snntorch")
    node = graph.nodes["1"]
    tau, r = (np.array(node.value(name)) for name in ("tau", "r"))
    tau[1], r[1] = 8 * DT, 8
    write(tmp_path / "trained.nir", graph.with_nodes([node.replace(tau=tau, r=r)]))
    found, before = (
        read(path, dialect="spikingjelly").nodes["1"]
        for path in (tmp_path / "trained.nir", files["snn_beta_negative"])
    )
    kept = np.arange(tau.size) != 1
    np.testing.assert_array_equal(found.value("r")[kept], before.value("r")[kept])
    assert found.value("r")[1] == 8


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [(4, 2, 2), (5, 2, 2), (6, 3, 2), (7, 3, 3), (5, 4, 1)]
)
def test_pools_of_spyx_are_padded_as_xla_does(size, kernel, stride):
    outward = -(-size // stride)
    total = max((outward - 1) * stride + kernel - size, 0) or 1
    count = 2 * outward * outward
    nodes = {
        "input": {"type": "Input", "shape": np.array([2, size, size])},
        "pool": {
            "type": "SumPool2d",
            "kernel_size": np.array([kernel] * 2),
            "stride": np.array([stride] * 2),
            "padding": np.array([total] * 2),
        },
        "flat": {
            "type": "Flatten",
            "input_type": np.array([2, outward, outward]),
            "start_dim": np.array(0),
            "end_dim": np.array(-1),
        },
        "fc": {"type": "Linear", "weight": np.ones((3, count))},
        "lif": {
            "type": "IF",
            **{key: np.ones(3) for key in ("r", "v_threshold")},
            "v_reset": np.zeros(3),
        },
        "output": {"type": "Output", "shape": np.array([3])},
    }
    tree = {"type": "NIRGraph", "nodes": nodes, "edges": list(itertools.pairwise(nodes))}
    graph = parse(group_of(tree, "1.0.8"), dialect="spyx", time_unit="s", dt=DT)
    assert shapes(graph)["pool"] == ((2, size, size), (2, outward, outward))
    expected = jax.lax.padtype_to_pads([size] * 2, [kernel] * 2, [stride] * 2, "SAME")
    (wire,) = (wire for wire in lower(graph).wires if wire.name == "pool")
    assert [tuple(pair) for pair in wire.detail.padding] == [tuple(pair) for pair in expected]
    assert "SAME" in graph.repairs[0].what
    # what is written for it, in numbers and with zeros in the kernel, is the same sum
    written = convert(graph, to="spyx").graph
    x = np.random.default_rng(0).normal(size=(2, 2, size, size)).astype(np.float32)
    before, after = (
        next(part for part in lower(one).wires if part.name == "pool") for one in (graph, written)
    )
    parameters = lower(written).parameters.get("pool", {})
    np.testing.assert_allclose(
        after.apply(parameters, x), before.apply({}, x), rtol=1e-5, atol=1e-5
    )


def test_a_membrane_of_spyx_has_a_threshold_behind_it(files):
    graph = read(files["spyx_psu"], dialect="spyx", time_unit="s", dt=DT)
    assert graph.dialect.at("layer_1").spike_kernel == "box"
    leaky = {
        "li": {"type": "LI", "tau": np.full(3, DT), "r": np.ones(3), "v_leak": np.zeros(3)},
    }
    assert_refused(
        lambda: graph_of(leaky, dialect="spyx", time_unit="s", dt=DT),
        DialectError,
        "a Threshold behind it only, and 'li' has none",
    )


def test_two_heads_of_one_size_on_one_output_are_a_warning():
    one = {"type": "Linear", "weight": np.ones((3, 3))}
    size = np.array([3])
    nodes = {
        "input": {"type": "Input", "shape": size},
        "a": one,
        "b": dict(one),
        "output": {"type": "Output", "shape": size},
    }
    edges = [("input", "a"), ("input", "b"), ("a", "output"), ("b", "output")]
    graph = parse(group_of({"type": "NIRGraph", "nodes": nodes, "edges": edges}, "1.0.8"))
    (warning,) = graph.warnings
    assert "receives the sum of the outputs of 'a', 'b'" in warning.message


@pytest.mark.parametrize(
    ("outer", "inner", "said"),
    [
        ("rnn.lif", "in_a", "lead the edge to 'rnn', the nested graph that has 'lif'"),
        ("lif", "in_a", "lead the edge to 'rnn', the nested graph that has 'lif'"),
        ("rnn", "x", "and one Input, 'in_a': name that if the edge is meant"),
    ],
)
def test_an_edge_that_ends_nowhere_has_an_obvious_repair(outer, inner, said):
    size = np.array([3])
    loop = {
        "in_a": {"type": "Input", "shape": size},
        "out_a": {"type": "Output", "shape": size},
        "w": {"type": "Linear", "weight": np.ones((3, 3))},
        **cubalif([0.5] * 3, [0.5] * 3),
    }
    inside = [(inner, "lif"), ("lif", "w"), ("w", "lif"), ("lif", "out_a")]
    nodes = {
        "input": {"type": "Input", "shape": size},
        "rnn": {"type": "NIRGraph", "nodes": loop, "edges": inside},
        "output": {"type": "Output", "shape": size},
    }
    edges = [("input", outer), ("rnn", "output")]
    document = group_of({"type": "NIRGraph", "nodes": nodes, "edges": edges}, "1.0.8")
    if outer != "rnn":
        assert_refused(lambda: parse(document), GraphError, fix=said)
    else:
        assert said in parse(document).repairs[0].why
