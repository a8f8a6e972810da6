"""Random networks, built here, exported, converted and played by the importers of snnTorch, Norse
and SpikingJelly.
"""

import numpy as np
import pytest
import torch

from jaxsnn import TimeStepped, from_torch, lower, simulate
from jaxsnn.errors import ConversionError
from jaxsnn.nir import build, parse, read, write
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.initializers import normal
from tests.helpers.thinning import thinned
from tests.interop import nets
from tests.interop.players import play

pytestmark = pytest.mark.interop
TARGETS = ("norse", "snntorch", "spikingjelly")


def snntorch_case(kind, seed=1, **options):
    net = nets.snntorch_net(kind, seed, **options)
    shape = (1, 8, 8) if kind == "conv" else (5,)
    x = nets.spikes(seed, shape, batch=4 if kind == "conv" else 10)
    graph = from_torch(net, torch.zeros(1, *shape))
    return graph, x, nets.snntorch_play(net, x)


@pytest.mark.parametrize(
    ("kind", "delay", "target"), thinned(2, ["leaky", "conv"], [True, False], ["norse", "snntorch"])
)
def test_snntorch_reset_to_zero(kind, delay, target, converts):
    converts(*in_order(snntorch_case(kind, reset_mechanism="zero", reset_delay=delay), target))


def in_order(case, target):
    graph, x, y = case
    return graph, target, x, y


@pytest.mark.parametrize("target", TARGETS)
def test_the_lines_that_are_given_load_and_run_it(target, tmp_path):
    options = {"alike": True, "reset_mechanism": "zero", "reset_delay": False}
    graph, x, y = snntorch_case("leaky", **options)
    made = convert(graph, to=target, path=str(tmp_path / "made.nir"))
    write(tmp_path / "made.nir", made.graph)
    names = {"x": torch.as_tensor(x)}
    exec(f"{made.load_with}\n{made.run_with}", names)
    got = torch.stack(names["spikes"]).detach().numpy()
    np.testing.assert_array_equal(got, y)


@pytest.mark.parametrize("target", ["norse", "snntorch"])
@pytest.mark.parametrize("kind", ["synaptic", "rleaky"])
def test_snntorch_reset_to_zero_at_once(kind, target, converts):
    converts(*in_order(snntorch_case(kind, reset_mechanism="zero", reset_delay=False), target))


@pytest.mark.parametrize("kind", ["leaky", "synaptic", "rleaky", "conv"])
def test_snntorch_with_one_tau_a_layer_to_spikingjelly(kind, converts):
    case = snntorch_case(kind, seed=3, alike=True, reset_mechanism="zero", reset_delay=False)
    converts(*in_order(case, "spikingjelly"))


@pytest.mark.parametrize("kind", ["leaky", "synaptic", "rleaky", "rsynaptic", "conv"])
def test_snntorch_subtraction_to_norse(kind, converts):
    made = converts(*in_order(snntorch_case(kind), "norse"))
    assert "reset_method" in made.load_with


@pytest.mark.parametrize(
    ("kind", "options", "target", "reason"),
    [
        ("rsynaptic", {"reset_mechanism": "zero"}, "norse", "whatever arrives"),
        ("rsynaptic", {}, "spikingjelly", "one step later.*it has a synaptic current"),
    ],
)
def test_snntorch_is_refused_with_its_reason(kind, options, target, reason):
    graph, _, _ = snntorch_case(kind, **options)
    with pytest.raises(ConversionError, match=reason) as caught:
        convert(graph, to=target)
    assert "node '" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["leaky", "synaptic", "conv"])
def test_snntorch_with_a_tau_for_each_neuron_to_spikingjelly(kind, converts):
    made = converts(
        *in_order(
            snntorch_case(kind, seed=3, reset_mechanism="zero", reset_delay=False), "spikingjelly"
        )
    )
    assert any("is written as" in change.what and "nodes" in change.what for change in made.changes)


@pytest.mark.parametrize(
    ("kind", "target"),
    thinned(3, ["lif", "cuba", "lif_v_leak", "cuba_v_leak", "if", "conv"], TARGETS),
)
def test_norse(kind, target, converts):
    shape = (1, 8, 8) if kind == "conv" else (5,)
    net, x = nets.norse_net(kind, seed=3), nets.spikes(4, shape, batch=4 if kind == "conv" else 10)
    graph = from_torch(net, torch.zeros(1, *shape))
    converts(graph, target, x, nets.stateful_play(net, x))


@pytest.mark.parametrize(
    ("kind", "target"),
    thinned(3, ["lif", "lif_adds", "lif_v_reset", "if", "cuba", "conv"], TARGETS),
)
def test_spikingjelly(kind, target, converts, tmp_path):
    import nir
    from spikingjelly.activation_based.nir_exchange import export_to_nir

    net, shape = nets.spikingjelly_net(kind, seed=5), (1, 8, 8) if kind == "conv" else (5,)
    x = nets.spikes(6, shape, batch=4 if kind == "conv" else 10)
    nir.write(tmp_path / "source.nir", export_to_nir(net, torch.zeros(1, *shape), dt=1e-4))
    graph = read(tmp_path / "source.nir", dialect="spikingjelly", dt=1e-4)
    converts(graph, target, x, nets.spikingjelly_play(net, x))


def test_a_converted_graph_is_read_in_the_dialect_of_its_target(tmp_path):
    graph, *_ = snntorch_case("leaky", reset_mechanism="zero")
    made = convert(graph, to="norse")
    write(tmp_path / "a.nir", made.graph)
    again = read(tmp_path / "a.nir", dialect="norse", dt="100us", dt_export=1.0)
    assert again.dialect.seconds == made.graph.dialect.seconds == 1.0
    # What was converted for Norse converts back to what snnTorch fires.
    back = convert(again, to="snntorch")
    for name in ("0", "2", "4"):
        weight, other = (
            np.asarray(found.nodes[name].value("weight")) for found in (graph, back.graph)
        )
        scale = weight / other
        assert np.allclose(scale, scale[:, :1], rtol=1e-4)


def test_from_torch_agrees_with_the_exporters_where_they_work():
    from snntorch.export_nir import export_to_nir

    net = nets.snntorch_net("synaptic", seed=2)
    theirs = parse(export_to_nir(net, torch.zeros(1, 5), ignore_dims=[0]), dialect="snntorch")
    ours = from_torch(net, torch.zeros(1, 5))
    assert list(theirs.nodes) == list(ours.nodes)
    assert sorted(theirs.edges) == sorted(ours.edges)
    for name, node in theirs.nodes.items():
        for key, value in node.parameters.items():
            np.testing.assert_allclose(ours.nodes[name].value(key), value, rtol=1e-6)


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("target", TARGETS)
def test_sums_and_shared_weights(target, joined, converts):
    leaky, weights = {"tau": 1e-3, "r": 10.0}, {"weight": normal(0.1, 0.5), "bias": 0.02}
    nodes = {name: build.affine(6, **weights) for name in ("a", "b", "c", "skip")}
    nodes |= {"l1": build.lif(**leaky), "l2": build.lif(tau=2e-3, r=20.0), "l3": build.lif(**leaky)}
    nodes |= {"input": build.input(5), "output": build.output()}
    chains = [
        ("input", "a", "l1", "b", "l3", "output"),
        ("a", "l2", "c", "l3"),
        ("input", "skip", "l3"),
    ]
    if joined:
        nodes |= {"loop": build.linear(6, weight=normal(0, 0.3))}
        chains += [("l1", "output"), ("l2", "loop", "l2")]
    graph = build.network(
        nodes, chains, seed=1, dialect="snntorch", reset="zero", reset_delay=False
    )
    x = nets.spikes(2)
    made = converts(
        graph,
        target,
        x,
        np.asarray(simulate(lower(graph, dtype=np.float32), x, engine=TimeStepped()).output()),
    )
    assert any("weight zero" in change.what for change in made.changes) is (target == "norse")


@pytest.mark.parametrize(
    ("kind", "reset", "delay", "target"),
    thinned(3, ["leaky", "synaptic"], ["subtract", "zero"], [True, False], TARGETS),
)
def test_every_reset_of_snntorch(kind, reset, delay, target, converts):
    options = {"reset_mechanism": reset, "reset_delay": delay}
    converts(*in_order(snntorch_case(kind, seed=3, **options), target))


@pytest.mark.parametrize(
    ("reset", "delay"),
    [
        ("subtract", True),
        ("subtract", False),
        pytest.param("zero", True, marks=pytest.mark.slow),
        ("zero", False),
    ],
)
def test_loops_with_a_tau_for_each_neuron_to_spikingjelly(reset, delay, converts):
    options = {"reset_mechanism": reset, "reset_delay": delay}
    converts(*in_order(snntorch_case("rleaky", seed=3, **options), "spikingjelly"))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("current", [True, False])
def test_a_leaky_readout_is_weights_that_feed_themselves(current, target, tmp_path):
    parameters = {"tau_mem": 5e-3, "tau_syn": 2e-3} if current else {"tau": 5e-3}
    layer = build.cubali if current else build.li
    graph = build.sequential(
        build.input(5),
        build.affine(8, weight=normal(1.0, 3.0), bias=0.05),
        build.lif(tau=8e-3, v_threshold=0.5),
        build.linear(3, weight=normal(0.1, 1.0)),
        layer(v_leak=0.0 if current else np.array([0.1, -0.2, 0.0]), **parameters),
        seed=2,
        dialect="jaxsnn" if current else "norse",
        dt=1e-3,
        **({} if current else {"dt_export": 1.0}),
    )
    x = nets.spikes(2)
    path = tmp_path / "a.nir"
    made = convert(graph, to=target, path=str(path), approximate=current)
    write(path, made.graph)
    got = play(made.load_with, target, x)
    if current:  # the source has no steps: those of the conversion to Norse's main, by hand
        assert got.shape == (*x.shape[:2], 3)
        assert np.abs(got).max() > 0.05
        return
    y = np.asarray(simulate(lower(graph, dtype=np.float32), x, engine=TimeStepped()).output())
    assert np.abs(y - y[0]).max() > 0.1
    np.testing.assert_allclose(got, y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", TARGETS)
def test_kernels_that_are_not_square_are_read_without_nirs_own_shapes(target, tmp_path):
    """nir 1.0.8 infers other shapes behind them, and refuses what it wrote."""
    import nir

    rng = np.random.default_rng(3)
    kernel = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "bias": np.zeros(2)}
    graph = build.sequential(
        build.input((1, 8, 10)),
        build.node("Conv2d", weight=rng.normal(0.5, 0.5, (2, 1, 3, 5)), **kernel),
        build.lif(tau=1e-3, r=10.0),
        build.output(),
        dialect="snntorch",
        reset="zero",
        reset_delay=False,
    )
    x = nets.spikes(3, (1, 8, 10), batch=4)
    y = np.asarray(simulate(lower(graph, dtype=np.float32), x, engine=TimeStepped()).output())
    path = tmp_path / "made.nir"
    made = convert(graph, to=target, path=str(path))
    write(path, made.graph)
    with pytest.raises(ValueError, match="type mismatch"):
        nir.read(path)
    assert any("nir.read needs type_check=False" in note for note in made.notes)
    got = play(made.load_with, target, x)
    assert y.sum() > 0
    np.testing.assert_array_equal(got, y)
