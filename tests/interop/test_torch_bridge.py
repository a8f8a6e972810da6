"""Modules of torch to graphs and back: recordings played through nirtorch, and what exporters lose."""

import warnings

import numpy as np
import pytest
import snntorch
import torch

from jaxsnn import (
    ApproximationWarning,
    from_torch,
    load_into,
    lower,
    to_torch,
)
from jaxsnn.errors import ConversionError
from jaxsnn.nir import build, parse
from jaxsnn.nir.io.documents import group_of
from tests.helpers.refusals import assert_refused
from tests.helpers.thinning import thinned
from tests.helpers.zoo import FACTS, RECORDED
from tests.interop import nets
from tests.interop.modules import Wired, assert_no_graph, leaky, low_leaky, verified
from tests.interop.players import compare, run_in_steps, stepped

pytestmark = pytest.mark.interop
REPRODUCIBLE = [name for name in RECORDED if FACTS[name].get("reproducible", True)]
PLAIN = {"dialect": "snntorch", "reset": "zero", "reset_delay": False}
LINEAR = torch.nn.Linear


def assert_identical(expected, spikes):
    """All spike trains are the same."""
    identical, trains, _ = compare(expected, spikes, 0)
    assert identical == trains


@pytest.mark.parametrize("name", REPRODUCIBLE)
def test_a_module_plays_the_recording(name, recorded):
    graph, x, y = recorded(name)
    outputs = stepped(to_torch(graph), x)
    if name.endswith("_li"):
        np.testing.assert_allclose(outputs, y, rtol=1e-4, atol=1e-4 * np.abs(y).max())
    else:
        assert_identical(y, outputs)


@pytest.mark.parametrize("name", ["sin_minvmem", "snn_beta_negative", "spyx_beta_neg"])
def test_a_module_has_a_floor_and_clamped_decays(name, more):
    graph, x, y = more(name)
    assert_identical(y, stepped(to_torch(graph), x))


def test_a_readout_that_resets_is_no_module(more):
    graph, _, _ = more("snn_mem_spiking_sub")
    assert_refused(
        lambda: to_torch(graph), ConversionError, "outputs its membrane potential and resets"
    )


@pytest.mark.parametrize(
    ("kind", "delay", "reset"),
    thinned(
        2,
        ["leaky", "synaptic", "rleaky", "rsynaptic", "conv"],
        [True, False],
        ["zero", "subtract"],
    ),
)
def test_snntorch_there_and_back(kind, delay, reset):
    net = nets.snntorch_net(kind, 4, reset_mechanism=reset, reset_delay=delay)
    shape = (1, 8, 8) if kind == "conv" else (5,)
    x = nets.spikes(3, shape, steps=60, batch=4)
    if kind == "rsynaptic" and not delay:  # snnTorch 1.0.0 fails in its own forward pass
        with pytest.raises(TypeError):
            nets.snntorch_play(net, x)
        return
    y = nets.snntorch_play(net, x)
    assert_identical(y, stepped(to_torch(from_torch(net, torch.zeros(1, *shape))), x))


def test_the_module_learns():
    layers = build.input(5), build.affine(8), build.lif(tau=1e-3, r=10.0)
    net = to_torch(build.sequential(*layers, seed=0, **PLAIN))
    y, state = net(torch.ones(2, 5))
    y, _ = net(torch.ones(2, 5), state)
    y.sum().backward()
    gradients = {name: parameter.grad for name, parameter in net.named_parameters()}
    assert sorted(name.rpartition(".")[2] for name in gradients) == ["bias", "weight"]
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients.values())


def test_an_affine_keeps_its_bias_and_a_convolution_its_channels(recorded):
    graph, _, _ = recorded("snntorch_v_conv_zero")
    parameters = [parameter.detach().numpy() for parameter in to_torch(graph).parameters()]
    for name in ("0", "3", "6"):
        for key in ("weight", "bias"):
            value = np.asarray(graph.nodes[name].value(key))
            assert any(np.array_equal(value, parameter) for parameter in parameters)


def test_what_exporters_lose_is_in_the_dialect():
    net = torch.nn.Sequential(
        LINEAR(5, 4),
        leaky(beta=0.8, reset_mechanism="zero", reset_delay=False),
        LINEAR(4, 2),
        leaky(reset_mechanism="none", output=True),
    )
    graph = from_torch(net, torch.zeros(1, 5))
    hidden, readout = graph.dialect.at("1"), graph.dialect.at("3")
    assert (hidden.reset, hidden.reset_delay, hidden.readout) == ("zero", False, False)
    assert (readout.reset, readout.readout) == ("none", True)
    np.testing.assert_allclose(graph.nodes["1"].value("r"), np.full(4, 5.0), rtol=1e-6)


def test_norse_keeps_its_reset_and_true_time_constants():
    from norse.torch import SequentialState
    from norse.torch.functional.lif_box import LIFBoxParameters
    from norse.torch.functional.reset import reset_subtract
    from norse.torch.module.lif_box import LIFBoxCell

    values = {"tau_mem_inv": torch.tensor([100.0, 50.0]), "v_reset": torch.tensor([-0.5, -0.5])}
    net = SequentialState(
        torch.nn.Linear(5, 2),
        LIFBoxCell(LIFBoxParameters(**values), dt=5e-4),
        torch.nn.Linear(2, 2),
        LIFBoxCell(LIFBoxParameters(reset_method=reset_subtract), dt=5e-4),
    )
    graph = from_torch(net, torch.zeros(1, 5))
    first, second = (name for name in graph.order() if graph.nodes[name].type == "LIF")
    np.testing.assert_allclose(graph.nodes[first].value("tau"), [0.01, 0.02], rtol=1e-6)
    np.testing.assert_allclose(graph.nodes[first].value("v_reset"), [-0.5, -0.5])
    assert (graph.dialect.dt, graph.dialect.seconds) == (5e-4, 1.0)
    assert [graph.dialect.at(name).reset for name in (first, second)] == ["zero", "subtract"]


def two_heads(join):
    """A hidden layer and two output layers, which `join` joins."""

    def forward(net, x):
        y = net.first(net.body(x))
        return join(net, y)

    layers = {"body": LINEAR(5, 5), "one": LINEAR(5, 2), "two": LINEAR(5, 3)}
    neurons = {"first": low_leaky(), "a": low_leaky(beta=0.8), "b": low_leaky(beta=0.7)}
    return Wired(forward, 1, **layers, **neurons)


def apart(net, y):
    return net.a(net.one(y)), net.b(net.two(y))


def summed(net, y):
    return net.a(net.one(y)) + net.b(net.one(y))


def test_two_heads_are_two_outputs():
    """snnTorch's exporter keeps one of them, which depends on the hash seed."""
    graph = from_torch(two_heads(apart), torch.zeros(1, 5))
    assert dict(lower(graph).outputs) == {"output_a": ("a",), "output_b": ("b",)}


@pytest.mark.parametrize("join", [apart, summed])
def test_outputs_that_are_several_or_sum_come_out_of_a_module(join):
    net, x = two_heads(join), torch.as_tensor(nets.spikes(3, steps=40, batch=3))
    graph = from_torch(net, torch.zeros(1, 5))
    module, state, spikes = to_torch(graph), None, 0
    for layer in (net.first, net.a, net.b):
        layer.reset_mem()
    for frame in x:
        y, state = module(frame, state)
        y = y if isinstance(y, dict) else {"output": y}
        assert tuple(y) == graph.outputs
        expected = net(frame) if join is apart else [net(frame)]
        assert all(map(torch.equal, y.values(), expected))
        spikes += sum(output.sum() for output in expected)
    assert spikes > 20


def plays_alike(graph, shape):
    """The module of a graph fires what the time-stepped engine does."""
    x = nets.spikes(3, shape, steps=40, batch=4)
    y = run_in_steps(graph, x)
    assert 0.02 < y.mean() < 0.9
    np.testing.assert_array_equal(stepped(to_torch(graph), x), y)


def delayed(delays):
    layers = build.node("Delay", delay=delays), build.affine(8), build.lif(tau=1e-3, r=10.0)
    return build.sequential(build.input(3), *layers, seed=0, **PLAIN)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_delay_of_whole_steps_goes_into_a_module(steps):
    """Of each neuron; Alpha neurons of snnTorch have one of a step."""
    plays_alike(delayed(1e-4 * np.array([steps, 0, 2])), (3,))


def test_a_delay_that_is_no_whole_step_is_refused():
    graph = delayed(np.full(3, 1.5e-4))
    message = (
        r"'1' \(Delay\) has a delay of 0.00015 s, which is not an integer number of time steps: 1.5"
    )
    assert_refused(lambda: to_torch(graph), ConversionError, message)


@pytest.mark.parametrize("kind", ["Conv1d", "Conv2d"])
def test_a_convolution_that_pads_more_after_than_before_goes_into_a_module(kind):
    rank = int(kind[4])
    sides = 6 if rank == 1 else (5, 6)
    kernel = np.random.default_rng(0).normal(0.2, 0.5, (2, 1, 2, 4)[: 2 + rank])
    ones = np.array(1) if rank == 1 else np.array([1, 1])
    options = {"stride": ones, "dilation": ones, "groups": 1, "padding": "same"}
    layer = build.node(kind, weight=kernel, bias=np.zeros(2), input_shape=sides, **options)
    shape = (1, *np.atleast_1d(sides))
    plays_alike(
        build.sequential(build.input(shape), layer, build.lif(tau=1e-3, r=10.0), **PLAIN), shape
    )


def test_neurons_with_scalars_beside_arrays_go_into_a_module():
    numbers = {"tau": 1e-3, "r": 10.0, "v_leak": 0.0, "v_threshold": [0.3, 0.5, 1], "v_reset": 0.0}
    weight = np.random.default_rng(0).normal(0.2, 0.5, (3, 4)).astype(np.float32)
    nodes = {
        "in": {"type": "Input", "shape": np.array([4])},
        "1": {"type": "Linear", "weight": weight},
        "2": {"type": "LIF"} | {key: np.array(value) for key, value in numbers.items()},
        "out": {"type": "Output", "shape": np.array([3])},
    }
    edges = [("in", "1"), ("1", "2"), ("2", "out")]
    document = group_of({"type": "NIRGraph", "nodes": nodes, "edges": edges}, "1.0.4")
    plays_alike(parse(document, **PLAIN), (4,))


def test_alpha_readouts_go_into_a_module():
    torch.manual_seed(1)
    options = {"reset_mechanism": "none", "init_hidden": True, "output": True}
    net = torch.nn.Sequential(
        LINEAR(5, 6), leaky(threshold=0.3), LINEAR(6, 2), snntorch.Alpha(alpha=0.9, beta=0.8, **options)
    )  # fmt: skip
    x = nets.spikes(3, steps=40, batch=3)
    membranes = stepped(to_torch(from_torch(net, torch.zeros(1, 5))), x)
    net[1].reset_mem(), net[3].reset_mem()
    with torch.no_grad():
        y = np.stack([net(frame)[-1].numpy() for frame in torch.as_tensor(x)])
    assert np.ptp(y) > 0.5
    np.testing.assert_allclose(membranes, y, atol=1e-5 * np.abs(y).max())


class TwoStates(torch.nn.Module):
    """Two layers whose membranes it takes and gives."""

    def __init__(self):
        super().__init__()
        self.first, self.second = LINEAR(5, 4), LINEAR(4, 2)
        self.a, self.b = snntorch.Leaky(beta=0.9), snntorch.Leaky(beta=0.8)

    def forward(self, x, u, v):
        y, u = self.a(self.first(x), u)
        y, v = self.b(self.second(y), v)
        return y, u, v


class HalfAState(TwoStates):
    """Gives a part of the state that it takes."""

    def forward(self, x, state=None):
        y, _, v = super().forward(x, *(state or (None, None)))
        return y, v


class SkipsAState(TwoStates):
    """Needs what is no state."""

    def forward(self, x, steps, u):
        return super().forward(x, None, u)[: steps.bit_length()]


def test_states_that_forward_needs_begin_as_none():
    assert from_torch(TwoStates(), torch.zeros(1, 5)).outputs == ("output",)


def test_a_forward_that_needs_or_gives_other_states_is_refused():
    assert_no_graph(SkipsAState(), (5,), "SkipsAState needs steps, u, and only a sample was passed")
    assert_no_graph(HalfAState(), (5,), "fails in step 1 with the state that it returned")


def test_the_states_of_the_module_stay():
    net = nets.snntorch_net("leaky", 1)
    x = nets.spikes(1, steps=20)
    before = nets.snntorch_play(net, x)
    membrane = net[1].mem.clone()
    from_torch(net, torch.ones(3, 5))
    assert torch.equal(net[1].mem, membrane)
    assert np.array_equal(nets.snntorch_play(net, x), before)


@pytest.mark.parametrize("framework", ["snntorch", "spikingjelly"])
def test_a_backward_pass_goes_on_after_it(framework):
    """States with gradients, kept in the layers, stay as they are."""
    of_snntorch = framework == "snntorch"
    net = nets.snntorch_net("synaptic", 1) if of_snntorch else nets.spikingjelly_net("cuba", 1)
    if not of_snntorch:
        with torch.no_grad():
            net[0].weight.mul_(4)
    x = torch.as_tensor(nets.spikes(1, steps=3))
    gradients = []
    for between in (False, True):
        for layer in (net[1], net[3], net[5]):
            layer.reset_mem() if of_snntorch else layer.reset()
        net.zero_grad()
        net(x[0])
        if between:
            from_torch(net, torch.ones(10, 5))
        (net(x[1]) + net(x[2])).sum().backward()
        gradients.append(net[0].weight.grad.clone())
    assert gradients[0].abs().max() > 0
    assert torch.equal(*gradients)


@pytest.mark.parametrize("part", ["module", "layer", "in place"])
def test_a_compiled_module_is_that_of_which_it_was_made(part):
    """What torch.compile makes of a module has its numbers, and hides its layers."""
    net = nets.snntorch_net("leaky", 1)
    expected = from_torch(net, torch.zeros(1, 5))
    compiled = torch.compile(net, backend="eager") if part == "module" else net
    if part == "layer":
        net[1] = torch.compile(net[1], backend="eager")
    elif part == "in place":
        net.compile(backend="eager")
    graph = from_torch(compiled, torch.zeros(1, 5))
    assert set(graph.nodes) == set(expected.nodes)
    first = expected.nodes["0"]
    load_into(compiled, expected.with_nodes([first.replace(weight=2 * first.value("weight"))]))
    np.testing.assert_allclose(net[0].weight.detach(), 2 * first.value("weight"))


@pytest.mark.parametrize(("shape", "axes"), [((5,), (1, 4)), ((1, 5, 5), (1, 4, 1, 1))])
def test_parameters_may_have_an_axis_of_batch(shape, axes):
    torch.manual_seed(0)
    first = LINEAR(5, 4) if len(shape) == 1 else torch.nn.Conv2d(1, 4, 3)
    with torch.no_grad():
        first.weight.mul_(3)
    values = {"beta": 0.9 * torch.rand(axes), "threshold": 0.2 + torch.rand(axes)}
    net = torch.nn.Sequential(first, leaky(**values))
    graph, _, _ = verified(net, shape, 3, batch=4)
    assert load_into(net, graph).nodes["1"] == "1"
    net[1].threshold = torch.ones(3, *axes[1:])
    message = r"a parameter has the shape \(3, 4.*\), and its neurons have the sh"
    assert_refused(lambda: from_torch(net, torch.zeros(3, *shape)), ConversionError, message)


def test_parameters_of_norse_may_have_an_axis_of_batch():
    from norse.torch import LIFBoxCell, LIFBoxParameters, SequentialState

    torch.manual_seed(0)
    values = {"tau_mem_inv": 50 + 100 * torch.rand(1, 4), "v_th": torch.full((1, 4), 0.05)}
    net = SequentialState(LINEAR(5, 4), LIFBoxCell(LIFBoxParameters(**values)))
    verified(net, (5,), 3, play=nets.stateful_play, batch=4)


def test_layers_without_sizes_get_them():
    lazy = torch.nn.LazyConv2d(4, 3), torch.nn.LazyBatchNorm2d(), leaky(), torch.nn.Flatten()
    net = torch.nn.Sequential(*lazy, torch.nn.LazyLinear(3)).eval()
    graph = from_torch(net, torch.zeros(1, 2, 5, 5))
    assert (net[0].in_channels, net[1].num_features, net[4].in_features) == (2, 4, 36)
    assert from_torch(net, torch.zeros(1, 2, 5, 5)).edges == graph.edges


def _norse():
    import norse.torch as norse

    return norse.SequentialState(LINEAR(5, 4), norse.LIFBoxCell(dt=5e-4))


@pytest.mark.parametrize(
    ("make", "dt", "assumed"),
    [
        (lambda: nets.snntorch_net("leaky", 4), 1e-4, True),
        (lambda: nets.spikingjelly_net("if", 4), 1e-4, True),
        (_norse, 5e-4, False),
        (lambda: to_torch(from_torch(_norse(), torch.zeros(1, 5))), 5e-4, False),
    ],
)
def test_a_step_that_no_layer_says_is_assumed_with_a_warning(make, dt, assumed):
    module = make()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        graph = from_torch(module, torch.zeros(1, 5))
    issued = [warning for warning in caught if issubclass(warning.category, ApproximationWarning)]
    assert graph.dialect.dt == dt
    assert len(issued) == assumed
    assert all(warning.filename == __file__ for warning in issued)
    assert all("dt = 100 us is assumed" in str(warning.message) for warning in issued)
    assert ("is assumed" in graph.dialect.why) is assumed
