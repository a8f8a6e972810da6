"""Numbers that a framework does not take as it wrote them are read as it takes them, said so, and
written back as they were.
"""

import itertools
from functools import partial

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


PORT = {"shape": np.array([3])}
LINEAR = {"type": "Linear", "weight": np.ones((3, 3))}


def document_of(nodes, edges=None):
    """A document of nodes, which are a chain if there are no edges."""
    edges = list(itertools.pairwise(nodes)) if edges is None else edges
    return group_of({"type": "NIRGraph", "nodes": nodes, "edges": edges}, "1.0.8")


def between_ports(nodes):
    return {"input": {"type": "Input", **PORT}, **nodes, "output": {"type": "Output", **PORT}}


def graph_of(nodes, **options):
    """A chain from an Input to an Output."""
    return parse(document_of(between_ports(nodes)), **options)


def cubalif(alpha, beta):
    """As snnTorch writes it, three neurons."""
    alpha, beta = np.asarray(alpha, np.float32), np.asarray(beta, np.float32)
    with np.errstate(divide="ignore"):
        r, w_in = 1 / (1 - beta), 1 / (1 - alpha)
    none, ones = np.zeros(3, np.float32), np.ones(3, np.float32)
    times = {"tau_mem": np.float32(DT) * r, "tau_syn": np.float32(DT) * w_in}
    levels = {"v_leak": none, "v_reset": none, "v_threshold": ones}
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
    assert "neurons whose beta is below 0 and is read as 0: 1 of 3 (neuron 2: -0.5" in change.what
    assert "neurons whose beta is above 1 and is read as 1: 1 of 3 (neuron 0: 1.25" in change.what
    assert "neurons whose alpha is above 1 and is read as 1: 1 of 3 (neuron 2: 1.5" in change.what
    assert "tau_syn = -0.0002" in change.what
    assert "inf" in as_text(graph)


def test_the_description_has_infinite_numbers(files):
    text = as_text(read(files["snn_trained_learnable"]))
    assert " to inf" in text
    assert "neurons whose beta is above 1 and is read as 1: 2 of 32" in text


def test_what_lies_within_stays_and_is_not_mentioned():
    entry = cubalif([0.0, 0.5, 1.0], [0.0, 1.0, 0.25])
    graph = graph_of(entry, dialect="snntorch")
    assert not graph.repairs
    for name in ("tau_mem", "tau_syn", "r", "w_in"):
        np.testing.assert_array_equal(graph.nodes["lif"].value(name), entry["lif"][name])


def test_only_a_dialect_that_clamps_takes_a_negative_time_constant(files):
    path = files["snn_trained_learnable"]
    assert read(path).dialect.name == "snntorch"  # by the evidence in its numbers
    for dialect in ("nir", "spikingjelly"):
        assert_refused(
            partial(read, path, dialect=dialect),
            GraphError,
            "values of tau that are not positive: 2 of 32",
            fix="pass another dialect= (the graph is valid in snntorch)",
        )
    report, graph = check_file(path, "grid", reset="subtract", reset_delay=True)
    assert report.ok
    assert graph is not None
    report, graph = check_file(path, "grid", dialect="nir")
    assert [problem.code for problem in report.problems] == ["not-positive"]
    assert graph is None


def test_another_dialect_takes_the_numbers_of_the_file(files):
    path = files["snn_beta_negative"]
    clamped, plain = read(path, dialect="snntorch"), read(path, dialect="spikingjelly")
    assert clamped.repairs
    as_plain = clamped.with_dialect(plain.dialect)
    back = as_plain.with_dialect(clamped.dialect)
    assert (as_plain.repairs, back.repairs) == ((), clamped.repairs)
    tau, plain_tau, same_plain, same = (
        graph.nodes["1"].value("tau") for graph in (clamped, plain, as_plain, back)
    )
    np.testing.assert_array_equal(same_plain, plain_tau)
    np.testing.assert_array_equal(same, tau)
    assert tau.min() > plain_tau.min()


def test_trained_numbers_are_written_beside_those_of_the_file(files, tmp_path):
    path = files["snn_beta_negative"]
    graph = read(path, dialect="snntorch")
    node = graph.nodes["1"]
    tau, r = (np.array(node.value(name)) for name in ("tau", "r"))
    tau[1], r[1] = 8 * DT, 8
    write(tmp_path / "trained.nir", graph.with_nodes([node.replace(tau=tau, r=r)]))
    expected = np.array(read(path, dialect="spikingjelly").nodes["1"].value("r"))
    expected[1] = 8
    trained = read(tmp_path / "trained.nir", dialect="spikingjelly").nodes["1"]
    np.testing.assert_array_equal(trained.value("r"), expected)


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [(4, 2, 2), (5, 2, 2), (6, 3, 2), (7, 3, 3), (5, 4, 1)]
)
def test_pools_of_spyx_are_padded_as_xla_does(size, kernel, stride):
    outward = -(-size // stride)
    total = max((outward - 1) * stride + kernel - size, 0) or 1
    window = {"kernel_size": kernel, "stride": stride, "padding": total}
    window = {key: np.array([value] * 2) for key, value in window.items()}
    ends = {"start_dim": np.array(0), "end_dim": np.array(-1)}
    neurons = {"r": np.ones(3), "v_threshold": np.ones(3), "v_reset": np.zeros(3)}
    nodes = {
        "input": {"type": "Input", "shape": np.array([2, size, size])},
        "pool": {"type": "SumPool2d", **window},
        "flat": {"type": "Flatten", "input_type": np.array([2, outward, outward]), **ends},
        "fc": {"type": "Linear", "weight": np.ones((3, 2 * outward * outward))},
        "lif": {"type": "IF", **neurons},
        "output": {"type": "Output", **PORT},
    }
    graph = parse(document_of(nodes), dialect="spyx", time_unit="s", dt=DT)
    assert shapes(graph)["pool"] == ((2, size, size), (2, outward, outward))
    assert "SAME" in graph.repairs[0].what

    def pool_of(network):
        return next(wire for wire in network.wires if wire.name == "pool")

    before, after = lower(graph), lower(convert(graph, to="spyx").graph)
    expected = jax.lax.padtype_to_pads([size] * 2, [kernel] * 2, [stride] * 2, "SAME")
    assert [tuple(pair) for pair in pool_of(before).detail.padding] == list(map(tuple, expected))
    # The convolution or pool that is written for it, with explicit padding, computes the same sum.
    x = np.random.default_rng(0).normal(size=(2, 2, size, size)).astype(np.float32)
    sums = pool_of(after).apply(after.parameters.get("pool", {}), x)
    np.testing.assert_allclose(sums, pool_of(before).apply({}, x), rtol=1e-5, atol=1e-5)


def test_a_membrane_of_spyx_has_a_threshold_behind_it(files):
    options = {"dialect": "spyx", "time_unit": "s", "dt": DT}
    assert read(files["spyx_psu"], **options).dialect.at("layer_1").spike_kernel == "box"
    leaky = {"type": "LI", "tau": np.full(3, DT), "r": np.ones(3), "v_leak": np.zeros(3)}
    says = "with a Threshold after them, and node 'li' has none"
    assert_refused(lambda: graph_of({"li": leaky}, **options), DialectError, says)


def test_two_heads_of_one_size_on_one_output_are_a_warning():
    nodes = between_ports({"a": LINEAR, "b": LINEAR})
    edges = [("input", "a"), ("input", "b"), ("a", "output"), ("b", "output")]
    (warning,) = parse(document_of(nodes, edges)).warnings
    assert (warning.code, warning.node) == ("suspicious", "output")
    assert warning.facts == {"node": "output", "type": "Output", "nodes": "'a', 'b'"}
    assert "the sum of the outputs of 'a', 'b'" in warning.message


@pytest.mark.parametrize(
    ("outer", "inner", "advice"),
    [
        ("rnn.lif", "in_a", "connect the edge to 'rnn', the nested graph that contains 'lif'"),
        ("lif", "in_a", "connect the edge to 'rnn', the nested graph that contains 'lif'"),
        ("rnn", "x", "its only Input is 'in_a'"),
    ],
)
def test_an_edge_that_ends_nowhere_has_an_obvious_repair(outer, inner, advice):
    loop = {"in_a": {"type": "Input", **PORT}, "out_a": {"type": "Output", **PORT}, "w": LINEAR}
    loop |= cubalif([0.5] * 3, [0.5] * 3)
    inside = [(inner, "lif"), ("lif", "w"), ("w", "lif"), ("lif", "out_a")]
    nodes = between_ports({"rnn": {"type": "NIRGraph", "nodes": loop, "edges": inside}})
    document = document_of(nodes, [("input", outer), ("rnn", "output")])
    if outer != "rnn":
        assert_refused(lambda: parse(document), GraphError, fix=advice)
    else:
        assert advice in parse(document).repairs[0].why
