"""Random networks, built here, exported, converted and played by the importers of snnTorch, Norse
and SpikingJelly.
"""

import nir
import numpy as np
import pytest
import snntorch
import torch
from spikingjelly.activation_based import neuron as spiking

from jaxsnn import from_torch
from jaxsnn.errors import ConversionError
from jaxsnn.nir import build, parse, read, write
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.initializers import normal
from tests.helpers.refusals import assert_refused
from tests.helpers.thinning import thinned
from tests.interop import nets
from tests.interop.players import import_and_play, run_in_steps

pytestmark = pytest.mark.interop
TARGETS = ("norse", "snntorch", "spikingjelly")
ZERO = {"reset_mechanism": "zero"}
AT_ONCE = {"reset_mechanism": "zero", "reset_delay": False}


#: Kind, seed and options of networks of snnTorch, and target frameworks.
SNNTORCH = [
    *thinned(2, ["leaky", "conv"], [1], [ZERO, AT_ONCE], ["norse", "snntorch"]),
    *(
        (kind, 1, AT_ONCE, target)
        for kind in ("synaptic", "rleaky")
        for target in ("norse", "snntorch")
    ),
    *(
        (kind, 3, {"alike": True, **AT_ONCE}, "spikingjelly")
        for kind in ("leaky", "synaptic", "rleaky", "conv")
    ),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "seed", "options", "target"), SNNTORCH)
def test_snntorch_reset_to_zero(kind, seed, options, target, converts):
    graph, x, y = nets.snntorch_case(kind, seed, **options)
    converts(graph, target, x, y)


@pytest.mark.parametrize("target", TARGETS)
def test_the_lines_that_are_given_load_and_run_it(target, tmp_path):
    graph, x, y = nets.snntorch_case("leaky", alike=True, **AT_ONCE)
    conversion = convert(graph, to=target, path=str(tmp_path / "made.nir"))
    write(tmp_path / "made.nir", conversion.graph)
    namespace = {"x": torch.as_tensor(x)}
    exec(f"{conversion.load_with}\n{conversion.run_with}", namespace)
    np.testing.assert_array_equal(torch.stack(namespace["spikes"]).detach().numpy(), y)


@pytest.mark.parametrize("kind", ["leaky", "synaptic", "rleaky", "rsynaptic", "conv"])
def test_snntorch_subtraction_to_norse(kind, converts):
    graph, x, y = nets.snntorch_case(kind)
    assert "reset_method" in converts(graph, "norse", x, y).load_with


@pytest.mark.parametrize(
    ("options", "target", "reason"),
    [
        (ZERO, "norse", "node '.*whatever the input"),
        ({}, "spikingjelly", "node '.*one time step later.*this node has a synaptic current"),
    ],
)
def test_snntorch_is_refused_with_its_reason(options, target, reason):
    graph, _, _ = nets.snntorch_case("rsynaptic", **options)
    assert_refused(lambda: convert(graph, to=target), ConversionError, reason)


@pytest.mark.parametrize("kind", ["leaky", "synaptic", "conv"])
def test_snntorch_with_a_tau_for_each_neuron_to_spikingjelly(kind, converts):
    graph, x, y = nets.snntorch_case(kind, 3, **AT_ONCE)
    changes = [change.what for change in converts(graph, "spikingjelly", x, y).changes]
    assert any("is written as" in change and "nodes" in change for change in changes)


@pytest.mark.parametrize(
    ("kind", "target"),
    thinned(3, ["lif", "cuba", "lif_v_leak", "cuba_v_leak", "if", "conv"], TARGETS),
)
def test_converted_norse_networks_fire_the_same(kind, target, converts):
    graph, x, y = nets.norse_case(kind)
    converts(graph, target, x, y)


@pytest.mark.parametrize(
    ("kind", "target"),
    thinned(3, ["lif", "lif_adds", "lif_v_reset", "if", "cuba", "conv"], TARGETS),
)
def test_converted_spikingjelly_networks_fire_the_same(kind, target, converts):
    graph, x, y = nets.spikingjelly_case(kind)
    converts(graph, target, x, y)


def test_a_converted_graph_is_read_in_the_dialect_of_its_target(tmp_path):
    graph, _, _ = nets.snntorch_case("leaky", **ZERO)
    conversion = convert(graph, to="norse")
    write(tmp_path / "a.nir", conversion.graph)
    again = read(tmp_path / "a.nir", dialect="norse", dt="100us", dt_export=1.0)
    assert again.dialect.seconds == conversion.graph.dialect.seconds == 1.0
    # A file that was converted for Norse converts back to the spikes of snnTorch.
    back = convert(again, to="snntorch").graph
    for name in ("0", "2", "4"):
        weights = (np.asarray(source.nodes[name].value("weight")) for source in (graph, back))
        scale = np.divide(*weights)
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


@pytest.mark.parametrize("more", [(), (("l1", "output"), ("l2", "loop", "l2"))])
@pytest.mark.parametrize("target", TARGETS)
def test_sums_and_shared_weights(target, more, converts):
    graph, x = nets.joined_graph(*more), nets.spikes(2)
    changes = converts(graph, target, x, run_in_steps(graph, x)).changes
    assert any("weight 0" in change.what for change in changes) is (target == "norse")


@pytest.mark.parametrize(
    ("kind", "reset", "delay", "target"),
    [
        *thinned(3, ["leaky", "synaptic"], ["subtract", "zero"], [True, False], TARGETS),
        *(("rleaky", *reset, "spikingjelly") for reset in (("subtract", True), ("subtract", False))),
        ("rleaky", "zero", False, "spikingjelly"),
        pytest.param("rleaky", "zero", True, "spikingjelly", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_every_reset_of_snntorch(kind, reset, delay, target, converts):
    options = {"reset_mechanism": reset, "reset_delay": delay}
    graph, x, y = nets.snntorch_case(kind, 3, **options)
    converts(graph, target, x, y)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("current", [True, False])
def test_a_leaky_readout_is_weights_that_feed_themselves(current, target, tmp_path):
    if current:  # no steps in the source: use those of Norse's main
        readout, options = (
            build.cubali(tau_mem=5e-3, tau_syn=2e-3, v_leak=0.0),
            {"dialect": "jaxsnn"},
        )
    else:
        readout = build.li(tau=5e-3, v_leak=np.array([0.1, -0.2, 0.0]))
        options = {"dialect": "norse", "dt_export": 1.0}
    graph = build.sequential(
        build.input(5),
        build.affine(8, weight=normal(1.0, 3.0), bias=0.05),
        build.lif(tau=8e-3, v_threshold=0.5),
        build.linear(3, weight=normal(0.1, 1.0)),
        readout,
        seed=2,
        dt=1e-3,
        **options,
    )
    x = nets.spikes(2)
    _, outputs = import_and_play(graph, target, x, tmp_path / "a.nir", approximate=current)
    if current:
        assert outputs.shape == (*x.shape[:2], 3)
        assert np.abs(outputs).max() > 0.05
        return
    y = run_in_steps(graph, x)
    assert np.abs(y - y[0]).max() > 0.1
    np.testing.assert_allclose(outputs, y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", TARGETS)
def test_kernels_that_are_not_square_are_read_without_nirs_own_shapes(target, tmp_path):
    """nir 1.0.8 infers other shapes behind them, and refuses what it wrote."""
    rng, path = np.random.default_rng(3), tmp_path / "made.nir"
    kernel = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "bias": np.zeros(2)}
    layers = (
        build.node("Conv2d", weight=rng.normal(0.5, 0.5, (2, 1, 3, 5)), **kernel),
        build.lif(tau=1e-3, r=10.0),
        build.output(),
    )
    options = {"dialect": "snntorch", "reset": "zero", "reset_delay": False}
    graph, x = (
        build.sequential(build.input((1, 8, 10)), *layers, **options),
        nets.spikes(3, (1, 8, 10), batch=4),
    )
    conversion, spikes = import_and_play(graph, target, x, path)
    with pytest.raises(ValueError, match="type mismatch"):
        nir.read(path)
    assert any("nir.read needs type_check=False" in note for note in conversion.notes)
    assert spikes.sum() > 0
    np.testing.assert_array_equal(spikes, run_in_steps(graph, x))


def convolutional(neuron, seed=3):
    """Two convolutions with a pool between them, whose dense weights would be too large."""
    torch.manual_seed(seed)
    layers = [
        *(torch.nn.Conv2d(1, 12, 5), neuron(), torch.nn.AvgPool2d(2)),
        *(torch.nn.Conv2d(12, 16, 5), neuron(), torch.nn.AvgPool2d(2)),
        *(torch.nn.Flatten(), torch.nn.Linear(256, 10), neuron()),
    ]
    with torch.no_grad():
        for layer in layers:
            if hasattr(layer, "weight"):
                layer.weight *= 4
    return torch.nn.Sequential(*layers)


def leaky():
    return snntorch.Leaky(beta=0.9, init_hidden=True)


def synaptic():
    return snntorch.Synaptic(alpha=0.8, beta=0.9, init_hidden=True)


@pytest.mark.parametrize("neuron", [leaky, synaptic])
@pytest.mark.parametrize("values", ["spikes", "currents"])
def test_delayed_subtraction_of_convolutions_to_spikingjelly(neuron, values, converts):
    net, x = convolutional(neuron), np.random.default_rng(0).random((20, 2, 1, 28, 28))
    x = ((x < 0.3) if values == "spikes" else x).astype(np.float32)
    graph = from_torch(net, torch.zeros(1, 1, 28, 28))
    conversion = converts(graph, "spikingjelly", x, nets.snntorch_play(net, x))
    added = [change.node for change in conversion.changes if "compensates in '" in change.what]
    types = {conversion.graph.nodes[conversion.names.get(name, name)].type for name in added}
    assert types == {"Conv2d", "Linear"}


def test_neurons_of_a_channel_that_differ_keep_their_delayed_subtraction():
    net = convolutional(leaky)
    net[1] = snntorch.Leaky(beta=torch.linspace(0.5, 0.9, 24).expand(12, 24, 24), init_hidden=True)
    graph = from_torch(net, torch.zeros(1, 1, 28, 28))
    assert_refused(
        lambda: convert(graph, to="spikingjelly"),
        ConversionError,
        "one time step later.*neurons of a channel differ",
        node="1",
        fix="approximate=True",
    )


def test_subtraction_of_convolutions_to_snntorch(converts):
    net = convolutional(lambda: spiking.LIFNode(tau=4.0, decay_input=False, v_reset=None))
    x = (np.random.default_rng(0).random((20, 2, 1, 28, 28)) < 0.3).astype(np.float32)
    graph = from_torch(net, torch.zeros(1, 1, 28, 28))
    converts(graph, "snntorch", x, nets.spikingjelly_play(net, x))
