"""Modules that `to_torch` made, read back as graphs by `from_torch` after training in torch."""

import copy
import dataclasses
import functools
import itertools

import numpy as np
import pytest
import torch

from jaxsnn import TimeStepped, from_torch, load_into, lower, simulate, to_torch
from jaxsnn.errors import ConversionError, GraphError
from jaxsnn.nir import build, parse
from jaxsnn.nir.io.documents import group_of
from tests.helpers.refusals import assert_refused
from tests.helpers.zoo import FACTS, RECORDED
from tests.interop import nets
from tests.interop.modules import Wired, leaky, low_leaky
from tests.interop.players import stepped

pytestmark = pytest.mark.interop
REPRODUCIBLE = [name for name in RECORDED if FACTS[name].get("reproducible", True)]
PLAIN = {"dialect": "snntorch", "reset": "zero", "reset_delay": False}
NEURONS = build.lif(tau=1e-3, r=10.0)


def trained_step(module, x):
    """Take a small step of SGD through 20 steps of time; return the parameters that it moved."""
    before = copy.deepcopy(module.state_dict())
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    total, state = torch.zeros(()), None
    for frame in torch.as_tensor(np.asarray(x[:20], np.float32)):
        y, state = module(frame.to(trainable[0].dtype), state)
        for output in y.values() if isinstance(y, dict) else [y]:
            total = total + (output - 0.3).square().mean()
    total.backward()
    torch.nn.utils.clip_grad_norm_(trainable, 1.0)
    torch.optim.SGD(trainable, lr=0.02).step()
    return [
        key for key, value in module.state_dict().items() if not torch.equal(before[key], value)
    ]


def assert_unchanged(module, before):
    """The state of a module is as it was."""
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def does_alike(graph, module, x):
    """Assert that the time-stepped engine gives what a module gives; return it."""
    solution = simulate(
        lower(graph, dtype=np.float32), np.asarray(x, np.float32), engine=TimeStepped()
    )
    outputs = stepped(module, x)
    tolerance = 0 if solution.spiking else 1e-5 * np.abs(outputs).max()
    np.testing.assert_allclose(np.asarray(solution.output()), outputs, rtol=0, atol=tolerance)
    return outputs


def is_same(graph, second_graph):
    """Assert that two graphs are the same, bit for bit."""
    for name in ("edges", "dialect", "subgraphs"):
        assert getattr(graph, name) == getattr(second_graph, name)
    assert list(graph.nodes) == list(second_graph.nodes)
    for name, node in graph.nodes.items():
        for key, value in node.parameters.items():
            arrays = np.asarray(value), np.asarray(second_graph.nodes[name].parameters[key])
            first, second = ((array.dtype, array.shape, array.tobytes()) for array in arrays)
            assert first == second


def trained_and_read_back(graph, shape, seed=3, **spikes):
    """Assert that a graph comes back out of `to_torch`, and does, after training, what the module
    does, which fires; return the module and the trained graph.
    """
    module, sample = to_torch(graph), torch.zeros(1, *shape)
    x = nets.spikes(seed, shape, **{"steps": 40, "batch": 3} | spikes)
    is_same(graph, from_torch(module, sample))
    assert trained_step(module, x)
    trained = from_torch(module, sample)
    assert 0.02 < does_alike(trained, module, x).mean() < 0.98
    return module, trained


@pytest.mark.parametrize("name", REPRODUCIBLE)
def test_what_torch_trained_is_a_graph_again(name, recorded):
    graph, x, _ = recorded(name)
    module, sample = to_torch(graph), torch.zeros(1, *x.shape[2:])
    is_same(graph, from_torch(module, sample))
    moved = trained_step(module, x)
    trained = from_torch(module, sample)
    others = [key for key in graph.nodes if trained.nodes[key] is not graph.nodes[key]]
    assert len({key.rpartition(".")[0] for key in moved}) == len(others) > 0
    assert trained.dialect == graph.dialect
    assert np.ptp(does_alike(trained, module, x[:100])) > 0


def with_delays():
    delays = build.node("Delay", delay=1e-4 * np.array([2, 0, 1]))
    return build.sequential(build.input(3), delays, build.affine(8), NEURONS, seed=0, **PLAIN)


def with_one_bias_for_all_channels():
    kernel = np.random.default_rng(1).normal(0.2, 0.5, (2, 1, 4))
    options = {"stride": np.array(1), "dilation": np.array(1), "groups": 1, "padding": "same"}
    layer = build.node("Conv1d", weight=kernel, bias=np.zeros(()), input_shape=6, **options)
    return build.sequential(build.input((1, 6)), layer, NEURONS, **PLAIN)


@pytest.mark.parametrize(
    ("make", "shape"), [(with_delays, (3,)), (with_one_bias_for_all_channels, (1, 6))]
)
def test_graphs_of_nodes_that_the_recordings_lack_come_back(make, shape):
    trained_and_read_back(make(), shape)


def normalised():
    """A network with a LayerNorm and a ReLU before its neurons; one bias of the LayerNorm is 0."""
    weight = np.random.default_rng(0).uniform(0.5, 1.5, 6)
    norm = build.node("LayerNorm", weight=weight, bias=np.linspace(0, 0.5, 6), epsilon=1e-5)
    layers = (build.input(5), build.affine(6), norm, build.node("ReLU"), NEURONS, build.linear(4))
    return build.sequential(*layers, NEURONS, seed=0, **PLAIN)


def test_a_layer_norm_trained_in_torch_comes_back():
    graph = normalised()
    module, trained = trained_and_read_back(graph, (5,))
    layer = next(part for part in module.modules() if isinstance(part, torch.nn.LayerNorm))
    for key in ("weight", "bias"):
        value = getattr(layer, key).detach().numpy()
        assert not np.array_equal(value, graph.nodes["2"].value(key).astype(np.float32))
        np.testing.assert_array_equal(trained.nodes["2"].value(key), value)
    # load_into also sets these numbers in another module of the same graph.
    second = to_torch(graph)
    assert load_into(second, trained).numbers
    x = nets.spikes(4, (5,), steps=30, batch=2)
    np.testing.assert_array_equal(stepped(second, x), stepped(module, x))


@pytest.mark.parametrize("kind", ["Alpha", "LIFRefrac"])
def test_numbers_of_extension_neurons_come_back(kind):
    keys = {"Alpha": ("alpha", "beta", "v_threshold")}
    values = {"alpha": 0.9, "beta": 0.6, "v_threshold": 0.4, "tau_mem": 1e-3, "tau_syn": 5e-4}
    values |= {"v_leak": 0.0, "v_reset": 0.0, "refractory_steps": 2.0}
    lif = ("tau_syn", "tau_mem", "v_leak", "v_threshold", "v_reset", "refractory_steps")
    node = build.node(kind, (4,), **{key: values[key] for key in keys.get(kind, lif)})
    options = PLAIN if kind == "Alpha" else {"dialect": "norse==main", "dt": 1e-4}
    layers = (build.input(5), build.linear(4), node)
    graph = build.sequential(*layers, seed=0, **options)
    module, sample = to_torch(graph), torch.zeros(1, 5)
    is_same(graph, from_torch(module, sample))
    layer = next(part for part in module.modules() if hasattr(part, "v_threshold"))
    layer.v_threshold[1:] *= 0.9
    trained = from_torch(module, sample).nodes["2"]
    expected = 0.4 * np.array([1.0, 0.9, 0.9, 0.9])
    np.testing.assert_allclose(trained.value("v_threshold"), expected, rtol=1e-6)
    assert trained.value("v_threshold")[0] == 0.4  # an unchanged number keeps all its bits
    x = nets.spikes(3, (5,), steps=40, batch=3)
    assert does_alike(from_torch(module, sample), module, x).any()


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("kind", ["rleaky", "rsynaptic"])
def test_biases_of_loops_come_back(kind, biased):
    """They are in the weights before the loop, where to_torch puts them."""
    net = nets.snntorch_net(kind, 4, reset_mechanism="zero", reset_delay=True)
    for layer in net if not biased else ():
        layer.bias = None
    graph = from_torch(net, torch.zeros(1, 5))
    recurrent = [name for part in graph.recurrent_components() for name in part]
    loops = [name for name in recurrent if graph.nodes[name].type == "Affine"]
    assert len(loops) == 3
    _, trained = trained_and_read_back(graph, (5,), steps=60, batch=4)
    for name in loops:
        assert np.any(trained.nodes[name].value("bias")) == (not biased)


def test_names_of_nested_graphs_and_several_outputs_come_back():
    def forward(net, x):
        y = net.first(net.body(x))
        return net.a(net.one(y)), net.b(net.two(y))

    sizes = {"body": 5, "one": 2, "two": 3}
    layers = {name: torch.nn.Linear(5, size) for name, size in sizes.items()}
    heads = Wired(forward, **layers, first=low_leaky(), a=low_leaky(), b=low_leaky())
    graph, sample = from_torch(heads, torch.zeros(1, 5)), torch.zeros(1, 5)
    module = to_torch(graph)
    is_same(graph, from_torch(module, sample))
    trained_step(module, nets.spikes(3, steps=40, batch=3))
    trained = from_torch(module, sample)
    for name in sizes:
        weight = getattr(module, name).weight.detach().numpy()
        assert not np.array_equal(weight, graph.nodes[name].value("weight"))
        np.testing.assert_array_equal(weight, trained.nodes[name].value("weight"))


def test_what_only_orders_is_not_trained():
    """Weights that to_torch puts in, for Spyx's order of flattened channels."""
    weight = np.random.default_rng(0).normal(0.2, 0.4, (3, 2, 1, 1))
    options = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "input_shape": (2, 2)}
    layer = build.node("Conv2d", weight=weight, bias=np.zeros(3), **options)
    flatten = build.node("Flatten", input_type=(3, 2, 2), start_dim=0, end_dim=-1)
    graph = build.sequential(
        build.input((2, 2, 2)), layer, flatten, build.lif(tau=1e-3, r=0.9), dialect="spyx", dt=1e-4
    )
    module, x = to_torch(graph), nets.spikes(3, (2, 2, 2), steps=40, batch=3)
    assert {key.partition(".")[0] for key in trained_step(module, x)} == {"1"}
    assert len(list(module.parameters())) == 3
    trained = from_torch(module, torch.zeros(1, 2, 2, 2))
    assert 0.02 < does_alike(trained, module, x).mean() < 0.98


def test_a_module_without_weights_comes_back():
    graph = build.sequential(build.input(5), NEURONS, **PLAIN)
    is_same(graph, from_torch(to_torch(graph), torch.zeros(1, 5)))


def plain_graph(seed=0, neurons=NEURONS):
    return build.sequential(build.input(5), build.affine(8), neurons, seed=seed, **PLAIN)


PLAIN_GRAPH = plain_graph()


def copied(module):
    return copy.deepcopy(module)


def compiled(module):
    return torch.compile(module, backend="eager")


def loaded(module):
    second_module = to_torch(PLAIN_GRAPH)
    second_module.load_state_dict(module.state_dict())
    return second_module


def in_float64(module):
    return copy.deepcopy(module).double()


def with_weight_norm(module):
    normed = copy.deepcopy(module)
    torch.nn.utils.parametrizations.weight_norm(normed.get_submodule("1"))
    return normed


@pytest.mark.parametrize("change", [copied, compiled, loaded, in_float64, with_weight_norm])
def test_what_torch_makes_of_a_module_comes_back(change):
    module, x = to_torch(PLAIN_GRAPH), nets.spikes(1, steps=40, batch=3)
    trained_step(module, x)
    expected = from_torch(module, torch.zeros(1, 5))
    changed = change(module)
    if change is in_float64:
        sample = torch.zeros(1, 5)
        message = r"with sample.to\(torch.float64\)"
        assert_refused(lambda: from_torch(changed, sample), ConversionError, message)
    back = from_torch(changed, torch.zeros(1, 5, dtype=next(changed.parameters()).dtype))
    if change is not with_weight_norm:
        is_same(expected, back)
    does_alike(back, module, x)


@pytest.mark.parametrize("v_threshold", [np.random.default_rng(0).uniform(0.5, 1, 8), 1.0])
def test_thresholds_that_torch_trains_come_back(v_threshold):
    """As parameters, which the user makes of them."""
    module = to_torch(plain_graph(neurons=build.lif(tau=1e-3, r=10.0, v_threshold=v_threshold)))
    layer, x = module.get_submodule("2"), nets.spikes(1, steps=40, batch=3)
    threshold = layer.v_threshold
    del layer._buffers["v_threshold"]
    layer.register_parameter("v_threshold", torch.nn.Parameter(threshold))
    assert "2.v_threshold" in trained_step(module, x)
    with torch.no_grad():
        layer.v_reset[0] = -0.5
    trained = from_torch(module, torch.zeros(1, 5))
    new = np.asarray(trained.nodes["2"].value("v_threshold"), np.float32)
    np.testing.assert_array_equal(new, layer.v_threshold.detach().numpy())
    assert np.ravel(trained.nodes["2"].value("v_reset"))[0] == -0.5
    assert 0.02 < does_alike(trained, module, x).mean() < 0.98


def test_numbers_of_a_file_go_into_what_to_torch_made():
    module, second_graph = to_torch(plain_graph()), plain_graph(seed=1)
    weight = module.get_submodule("1").weight
    assert load_into(module, second_graph).numbers == ("module.1.weight", "module.1.bias")
    assert module.get_submodule("1").weight is weight
    back = from_torch(module, torch.zeros(1, 5))
    for key, value in second_graph.nodes["1"].parameters.items():
        np.testing.assert_array_equal(back.nodes["1"].value(key), np.asarray(value, np.float32))
    does_alike(second_graph, module, nets.spikes(1, steps=40, batch=3))
    before = copy.deepcopy(module.state_dict())
    slow = plain_graph(neurons=build.lif(tau=2e-3, r=20.0))
    message = r"decay is 0.9 in the module and 0.95 in the"
    assert_refused(lambda: load_into(module, slow), ConversionError, message)
    assert_unchanged(module, before)


@pytest.mark.parametrize("name", ["spyx_v_conv_hwc", "snntorch_v_rleaky_zero"])
def test_a_recorded_file_goes_into_what_to_torch_made(name, recorded):
    graph, x, _ = recorded(name)
    module = Parts(graph)
    before = copy.deepcopy(module.state_dict())
    trained_step(module, x)
    load_into(module, graph)
    assert_unchanged(module, before)


def hooked(module):
    hook = lambda *call: (2 * call[2][0], call[2][1])  # noqa: E731
    module.get_submodule("2").register_forward_hook(hook)


def with_nan(module):
    module.get_submodule("1").weight.data[0, 0] = np.nan


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda module: module.get_submodule("2").decay.mul_(0.5), ConversionError,
         r"node '2': decay is 0.45 in the module and 0.9 in its graph"),
        (with_nan, GraphError, r"node '1' \(Affine\) has values of weight that are not finite: 1 of 40"),
        (lambda module: module.add_module("1", torch.nn.Linear(5, 8, bias=False)), ConversionError,
         "the module lacks bias of '1'"),
        (lambda module: module.bfloat16(), ConversionError,
         r"'1' \(Linear\) computes in torch.bfloat16"),
        (hooked, ConversionError,
         "the graph differs from the module: '2', step .* is 2 in the module and 1 in the graph"),
    ],
)  # fmt: skip
def test_what_a_file_cannot_say_is_refused(change, error, message):
    module = to_torch(plain_graph())
    change(module)
    assert_refused(lambda: from_torch(module, torch.ones(1, 5)), error, message)


class Parts(torch.nn.Module):
    """Graphs and a layer of torch, one after the other."""

    def __init__(self, *graphs, width=None):
        super().__init__()
        torch.manual_seed(0)
        self.front = torch.nn.Identity() if width is None else torch.nn.Linear(3, width)
        self.parts = torch.nn.ModuleList(map(to_torch, graphs))

    def forward(self, x, states=None):
        x, after = self.front(x), []
        for part, state in zip(self.parts, states or [None] * len(self.parts), strict=True):
            x, state = part(x, state)
            after.append(state)
        return x, after


def test_graphs_that_are_parts_of_a_module_come_back():
    second = build.sequential(build.input(8), build.linear(4), NEURONS, seed=1, **PLAIN)
    module, x = Parts(plain_graph(), second, width=5), nets.spikes(3, (3,), steps=60, batch=3)
    assert len(trained_step(module, x)) == 5
    graph = from_torch(module, torch.zeros(1, 3))
    assert set(graph.nodes) == {
        *("front", "parts.0.1", "parts.0.2", "parts.1.1", "parts.1.2", "input", "output")
    }
    for name in ("front", "parts.0.1", "parts.1.1"):
        weight = module.get_submodule(name).weight.detach().numpy()
        value = np.asarray(graph.nodes[name].value("weight"), np.float32)
        np.testing.assert_array_equal(value, weight)
    assert does_alike(graph, module, x).any()


@pytest.mark.parametrize(
    "name", ["spyx_v_conv_hwc", "snntorch_v_rleaky_zero", "snntorch_v_li", "norse_v_lifcell"]
)
def test_a_recorded_network_comes_back_as_a_part(name, recorded):
    graph, x, _ = recorded(name)
    module = Parts(graph)
    trained_step(module, x)
    back = from_torch(module, torch.zeros(1, *x.shape[2:]))
    assert np.ptp(does_alike(back, module, x[:100])) > 0
    same = dataclasses.replace(back.dialect, nodes={}, why="")
    assert same == dataclasses.replace(graph.dialect, nodes={}, why="")


def test_a_part_without_its_state_is_refused_though_little_of_it_fires():
    class Forgetful(Parts):
        def forward(self, x, states=None):
            return super().forward(x)

    graph = plain_graph(neurons=build.lif(tau=1e-3, r=10.0, v_threshold=50.0))
    sample = torch.zeros(1, 5)
    assert from_torch(Parts(graph), sample).neurons == ("parts.0.2",)
    message = r"the graph differs from the module: 'parts.0.2', step \d+, sample"
    assert_refused(lambda: from_torch(Forgetful(graph), sample), ConversionError, message)


def parts_of_two_dialects():
    options = PLAIN | {"reset": "subtract"}
    return Parts(plain_graph(), build.sequential(build.input(8), NEURONS, **options))


def a_part_behind_a_neuron():
    module = Parts(plain_graph())
    module.front = torch.nn.Sequential(torch.nn.Linear(5, 5), leaky())
    return module


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (parts_of_two_dialects, r"'parts.0' and 'parts.1' come from graphs whose dialects differ"),
        (a_part_behind_a_neuron, r"has a neuron 'front.1' besides those of 'parts.0'"),
        (lambda: torch.nn.Sequential(to_torch(plain_graph())),
         r"Sequential calls '0' without its previous state"),
    ],
)  # fmt: skip
def test_parts_that_make_no_graph_are_refused(make, message):
    assert_refused(lambda: from_torch(make(), torch.zeros(1, 5)), ConversionError, message)


def wired(*chains):
    """A graph of weights of 3 to 4 and 4 to 4 inputs and of neurons, by what their names begin with."""
    rng = np.random.default_rng(0)
    chains = [chain.split() for chain in chains]
    edges = [pair for chain in chains for pair in itertools.pairwise(chain)]
    numbers = {"tau": 1e-3, "r": 10.0, "v_leak": 0.0, "v_reset": 0.0, "v_threshold": 0.5}
    neurons = {"type": "LIF"} | {key: np.full(4, value) for key, value in numbers.items()}
    nodes = {}
    for name in dict.fromkeys(name for chain in chains for name in chain):
        if name == "in":
            nodes[name] = {"type": "Input", "shape": np.array([3])}
        elif name.startswith("lif"):
            nodes[name] = neurons
        elif name.startswith("out"):
            nodes[name] = {"type": "Output", "shape": np.array([4])}
        elif name == "above":
            nodes[name] = {"type": "Threshold", "threshold": np.full(4, 0.5)}
        else:
            weight = rng.normal(0.2, 0.5, (4, 3 if ("in", name) in edges else 4))
            affine = {"weight": weight.astype(np.float32), "bias": np.full(4, 0.1)}
            nodes[name] = {"type": "Affine", **affine}
    document = group_of({"type": "NIRGraph", "nodes": nodes, "edges": edges}, "1.0.4")
    return parse(document, **PLAIN)


def test_a_threshold_passes_gradients_on():
    module = to_torch(wired("in w lif above v lif2 out"))
    x = nets.spikes(3, (3,), steps=40, batch=3)
    assert set(trained_step(module, x)) == {"w.weight", "w.bias", "v.weight", "v.bias"}
    does_alike(from_torch(module, torch.zeros(1, 3)), module, x)


def test_weights_that_several_layers_of_a_module_have_are_refused_after_training():
    module = to_torch(wired("in a lif w lif", "w lif2 out"))
    read_back = functools.partial(from_torch, module, torch.zeros(1, 3))
    read_back()
    trained_step(module, nets.spikes(3, (3,), steps=40, batch=3))
    message = r"in another layer of the module, but the graph has one"
    assert_refused(read_back, ConversionError, message)


def test_a_part_of_several_outputs_is_refused():
    heads, sample = wired("in a lif out1", "a lif2 out2"), torch.zeros(1, 3)
    assert from_torch(to_torch(heads), sample).outputs == ("out1", "out2")
    message = r"'parts.0' returns a dict, since its graph has the Outputs out1, out2"
    assert_refused(lambda: from_torch(Parts(heads), sample), ConversionError, message)
