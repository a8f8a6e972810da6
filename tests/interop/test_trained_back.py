"""Modules that `to_torch` made, read back as graphs by `from_torch` after training in torch."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from jaxsnn import TimeStepped, from_torch, load_into, lower, simulate, to_torch
from jaxsnn.errors import ConversionError, GraphError
from jaxsnn.nir import build, parse
from jaxsnn.nir.io.documents import group_of
from tests.helpers.zoo import FACTS, RECORDED
from tests.interop import nets
from tests.interop.players import stepped

pytestmark = pytest.mark.interop
REPRODUCIBLE = [name for name in RECORDED if FACTS[name].get("reproducible", True)]
PLAIN = {"dialect": "snntorch", "reset": "zero", "reset_delay": False}


def trained_step(module, x):
    """A small step of SGD through 20 steps of time; gives the parameters that it moved."""
    before = {name: value.clone() for name, value in module.state_dict().items()}
    taught = [each for each in module.parameters() if each.requires_grad]
    total, state = torch.zeros(()), None
    for frame in torch.as_tensor(np.asarray(x[:20], np.float32)):
        y, state = module(frame.to(taught[0].dtype), state)
        for each in y.values() if isinstance(y, dict) else [y]:
            total = total + (each - 0.3).square().mean()
    total.backward()
    torch.nn.utils.clip_grad_norm_(taught, 1.0)
    torch.optim.SGD(taught, lr=0.02).step()
    return [
        key for key, value in module.state_dict().items() if not torch.equal(before[key], value)
    ]


def does_alike(graph, module, x):
    """The time-stepped engine gives, of a graph, what a module gives; it is given back."""
    ours = simulate(lower(graph, dtype=np.float32), np.asarray(x, np.float32), engine=TimeStepped())
    theirs = stepped(module, x)
    close = 0 if ours.spiking else 1e-5 * np.abs(theirs).max()
    np.testing.assert_allclose(np.asarray(ours.output()), theirs, rtol=0, atol=close)
    return theirs


def is_same(graph, other):
    """Two graphs are the same, bit for bit."""
    assert (graph.edges, graph.dialect, graph.subgraphs) == (
        other.edges,
        other.dialect,
        other.subgraphs,
    )
    assert list(graph.nodes) == list(other.nodes)
    for name, node in graph.nodes.items():
        for key, value in node.parameters.items():
            own, new = np.asarray(value), np.asarray(other.nodes[name].parameters[key])
            assert (own.dtype, own.shape, own.tobytes()) == (new.dtype, new.shape, new.tobytes())


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


def several_kinds():
    """Graphs with what the recordings lack, and their inputs' shapes."""
    rng = np.random.default_rng(1)
    neurons = build.lif(tau=1e-3, r=10.0)
    delays = build.node("Delay", delay=1e-4 * np.array([2, 0, 1]))
    delayed = build.sequential(build.input(3), delays, build.affine(8), neurons, seed=0, **PLAIN)
    ones, kernel = np.array(1), rng.normal(0.2, 0.5, (2, 1, 4))
    given = {"stride": ones, "dilation": ones, "groups": 1, "padding": "same", "input_shape": 6}
    layer = build.node("Conv1d", weight=kernel, bias=np.zeros(()), **given)
    uneven = build.sequential(build.input((1, 6)), layer, neurons, **PLAIN)
    return {"delay": (delayed, (3,)), "one bias for all channels": (uneven, (1, 6))}


@pytest.mark.parametrize("kind", ["delay", "one bias for all channels"])
def test_graphs_of_other_nodes_come_back(kind):
    graph, shape = several_kinds()[kind]
    module, x = to_torch(graph), nets.spikes(3, shape, steps=40, batch=3)
    is_same(graph, from_torch(module, torch.zeros(1, *shape)))
    assert trained_step(module, x)
    trained = from_torch(module, torch.zeros(1, *shape))
    assert 0.02 < does_alike(trained, module, x).mean() < 0.98


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("kind", ["rleaky", "rsynaptic"])
def test_biases_of_loops_come_back(kind, biased):
    """They are in the weights before the loop, where to_torch puts them."""
    net = nets.snntorch_net(kind, 4, reset_mechanism="zero", reset_delay=True)
    for layer in net if not biased else ():
        layer.bias = None
    graph, x = from_torch(net, torch.zeros(1, 5)), nets.spikes(3, steps=60, batch=4)
    looped = [name for part in graph.recurrent_components() for name in part]
    loops = [name for name in looped if graph.nodes[name].type == "Affine"]
    assert len(loops) == 3
    module = to_torch(graph)
    is_same(graph, from_torch(module, torch.zeros(1, 5)))
    trained_step(module, x)
    trained = from_torch(module, torch.zeros(1, 5))
    for name in loops:
        assert np.any(trained.nodes[name].value("bias")) == (not biased)
    assert 0.02 < does_alike(trained, module, x).mean() < 0.98


def test_names_of_nested_graphs_and_several_outputs_come_back():
    import snntorch

    class Heads(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.one, self.two = (torch.nn.Linear(5, size) for size in (5, 2, 3))
            self.lif, self.a, self.b = (
                snntorch.Leaky(beta=b, threshold=0.2, init_hidden=True) for b in (0.9, 0.8, 0.7)
            )

        def forward(self, x):
            y = self.lif(self.body(x))
            return self.a(self.one(y)), self.b(self.two(y))

    torch.manual_seed(0)
    graph, x = from_torch(Heads(), torch.zeros(1, 5)), nets.spikes(3, steps=40, batch=3)
    module = to_torch(graph)
    is_same(graph, from_torch(module, torch.zeros(1, 5)))
    trained_step(module, x)
    trained = from_torch(module, torch.zeros(1, 5))
    for name in ("body", "one", "two"):
        new = getattr(module, name).weight.detach().numpy()
        assert not np.array_equal(new, graph.nodes[name].value("weight"))
        np.testing.assert_array_equal(new, trained.nodes[name].value("weight"))


def test_what_only_orders_is_not_trained():
    """Weights that to_torch puts in, for Spyx's order of flattened channels."""
    rng = np.random.default_rng(0)
    layer = build.node(
        "Conv2d",
        weight=rng.normal(0.2, 0.4, (3, 2, 1, 1)),
        bias=np.zeros(3),
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        input_shape=(2, 2),
    )
    flatten = build.node("Flatten", input_type=(3, 2, 2), start_dim=0, end_dim=-1)
    graph = build.sequential(
        build.input((2, 2, 2)), layer, flatten, build.lif(tau=1e-3, r=0.9), dialect="spyx", dt=1e-4
    )
    module, x = to_torch(graph), nets.spikes(3, (2, 2, 2), steps=40, batch=3)
    moved = trained_step(module, x)
    assert {key.partition(".")[0] for key in moved} == {"1"}
    assert len(list(module.parameters())) == 3
    trained = from_torch(module, torch.zeros(1, 2, 2, 2))
    assert 0.02 < does_alike(trained, module, x).mean() < 0.98


def test_a_module_without_weights_comes_back():
    graph = build.sequential(build.input(5), build.lif(tau=1e-3, r=10.0), **PLAIN)
    is_same(graph, from_torch(to_torch(graph), torch.zeros(1, 5)))


def plain_module():
    graph = build.sequential(
        build.input(5), build.affine(8), build.lif(tau=1e-3, r=10.0), seed=0, **PLAIN
    )
    return graph, to_torch(graph), nets.spikes(1, steps=40, batch=3)


@pytest.mark.parametrize("how", ["copied", "compiled", "loaded", "in float64", "of weight_norm"])
def test_what_torch_makes_of_a_module_comes_back(how):
    graph, module, x = plain_module()
    trained_step(module, x)
    expected = from_torch(module, torch.zeros(1, 5))
    if how == "copied":
        other = copy.deepcopy(module)
    elif how == "compiled":
        other = torch.compile(module, backend="eager")
    elif how == "loaded":
        other = to_torch(graph)
        other.load_state_dict(module.state_dict())
    elif how == "in float64":
        other = copy.deepcopy(module).double()
        with pytest.raises(ConversionError, match=r"with sample.to\(torch.float64\)"):
            from_torch(other, torch.zeros(1, 5))
    else:
        other = copy.deepcopy(module)
        torch.nn.utils.parametrizations.weight_norm(other.get_submodule("1"))
    back = from_torch(other, torch.zeros(1, 5, dtype=next(other.parameters()).dtype))
    if how != "of weight_norm":
        is_same(expected, back)
    does_alike(back, module, x)


@pytest.mark.parametrize("each", [True, False])
def test_thresholds_that_torch_trains_come_back(each):
    """As parameters, which the user makes of them."""
    rng = np.random.default_rng(0)
    neurons = build.lif(tau=1e-3, r=10.0, v_threshold=rng.uniform(0.5, 1, 8) if each else 1.0)
    graph = build.sequential(build.input(5), build.affine(8), neurons, seed=0, **PLAIN)
    module, x = to_torch(graph), nets.spikes(1, steps=40, batch=3)
    layer = module.get_submodule("2")
    held = layer.v_threshold
    del layer._buffers["v_threshold"]
    layer.register_parameter("v_threshold", torch.nn.Parameter(held))
    assert "2.v_threshold" in trained_step(module, x)
    with torch.no_grad():
        layer.v_reset[0] = -0.5
    trained = from_torch(module, torch.zeros(1, 5))
    new = np.asarray(trained.nodes["2"].value("v_threshold"), np.float32)
    np.testing.assert_array_equal(new, layer.v_threshold.detach().numpy())
    assert np.ravel(trained.nodes["2"].value("v_reset"))[0] == -0.5
    assert 0.02 < does_alike(trained, module, x).mean() < 0.98


def test_numbers_of_a_file_go_into_what_to_torch_made():
    _, module, x = plain_module()
    neurons, stiff = build.lif(tau=1e-3, r=10.0), build.lif(tau=2e-3, r=20.0)
    other = build.sequential(build.input(5), build.affine(8), neurons, seed=1, **PLAIN)
    kept = module.get_submodule("1").weight
    assert load_into(module, other).numbers == ("module.1.weight", "module.1.bias")
    assert module.get_submodule("1").weight is kept
    back = from_torch(module, torch.zeros(1, 5))
    for key, value in other.nodes["1"].parameters.items():
        np.testing.assert_array_equal(back.nodes["1"].value(key), np.asarray(value, np.float32))
    does_alike(other, module, x)
    before = copy.deepcopy(module.state_dict())
    slow = build.sequential(build.input(5), build.affine(8), stiff, seed=0, **PLAIN)
    with pytest.raises(
        ConversionError, match=r"decay of a step is 0.9 in the module and 0.95 in the"
    ):
        load_into(module, slow)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("name", ["spyx_v_conv_hwc", "snntorch_v_rleaky_zero"])
def test_a_recorded_file_goes_into_what_to_torch_made(name, recorded):
    graph, x, _ = recorded(name)
    module = Parts(graph)
    before = copy.deepcopy(module.state_dict())
    trained_step(module, x)
    load_into(module, graph)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_what_a_file_cannot_say_is_refused():
    _, module, _ = plain_module()
    changed = copy.deepcopy(module)
    changed.get_submodule("2").decay.mul_(0.5)
    with pytest.raises(
        ConversionError, match=r"node '2': decay is 0.45 in the module and 0.9 in its graph"
    ):
        from_torch(changed, torch.zeros(1, 5))
    changed = copy.deepcopy(module)
    changed.get_submodule("1").weight.data[0, 0] = np.nan
    with pytest.raises(GraphError, match=r"node '1' \(Affine\) has 1 of 40 weight that is nan"):
        from_torch(changed, torch.zeros(1, 5))
    changed = copy.deepcopy(module)
    changed.add_module("1", torch.nn.Linear(5, 8, bias=False))
    with pytest.raises(ConversionError, match="the module has no bias of '1'"):
        from_torch(changed, torch.zeros(1, 5))
    with pytest.raises(ConversionError, match=r"'1' \(Linear\) computes in torch.bfloat16"):
        from_torch(copy.deepcopy(module).bfloat16(), torch.zeros(1, 5))
    changed = copy.deepcopy(module)
    changed.get_submodule("2").register_forward_hook(lambda *a: (2 * a[2][0], a[2][1]))
    with pytest.raises(ConversionError, match="the graph differs from the module"):
        from_torch(changed, torch.ones(1, 5))


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
    first, _, _ = plain_module()
    neurons = build.lif(tau=1e-3, r=10.0)
    second = build.sequential(build.input(8), build.linear(4), neurons, seed=1, **PLAIN)
    module, x = Parts(first, second, width=5), nets.spikes(3, (3,), steps=60, batch=3)
    moved = trained_step(module, x)
    assert len(moved) == 5
    graph = from_torch(module, torch.zeros(1, 3))
    assert set(graph.nodes) == {
        *("front", "parts.0.1", "parts.0.2", "parts.1.1", "parts.1.2", "input", "output")
    }
    for name in ("front", "parts.0.1", "parts.1.1"):
        weight = module.get_submodule(name).weight.detach().numpy()
        held = np.asarray(graph.nodes[name].value("weight"), np.float32)
        np.testing.assert_array_equal(held, weight)
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

    neurons = build.lif(tau=1e-3, r=10.0, v_threshold=50.0)
    graph = build.sequential(build.input(5), build.affine(8), neurons, seed=0, **PLAIN)
    assert from_torch(Parts(graph), torch.zeros(1, 5)).neurons == ("parts.0.2",)
    with pytest.raises(ConversionError, match=r"the module does: 'parts.0.2', step \d+, sample"):
        from_torch(Forgetful(graph), torch.zeros(1, 5))


def test_parts_that_make_no_graph_are_refused():
    import snntorch

    graph, module, _ = plain_module()
    neurons = build.lif(tau=1e-3, r=10.0)
    other = build.sequential(
        build.input(8), neurons, dialect="snntorch", reset="subtract", reset_delay=False
    )
    with pytest.raises(
        ConversionError, match=r"'parts.0' and 'parts.1' come from graphs whose dialects differ"
    ):
        from_torch(Parts(graph, other), torch.zeros(1, 5))
    mixed = Parts(graph)
    mixed.front = torch.nn.Sequential(
        torch.nn.Linear(5, 5), snntorch.Leaky(beta=0.9, init_hidden=True)
    )
    with pytest.raises(ConversionError, match=r"has a neuron 'front.1' beside those of 'parts.0'"):
        from_torch(mixed, torch.zeros(1, 5))
    with pytest.raises(
        ConversionError, match=r"Sequential calls '0' without the state that it returned"
    ):
        from_torch(torch.nn.Sequential(module), torch.zeros(1, 5))


def wired(nodes, edges):
    """A graph of weights of 3 to 4 and 4 to 4 inputs and of neurons, by what their names begin with."""
    rng, numbers = np.random.default_rng(0), {"tau": 1e-3, "r": 10.0, "v_leak": 0.0, "v_reset": 0.0}
    made = {"in": {"type": "Input", "shape": np.array([3])}}
    for name in nodes:
        if name.startswith("lif"):
            values = numbers | {"v_threshold": 0.5}
            made[name] = {"type": "LIF"} | {key: np.full(4, each) for key, each in values.items()}
        elif name.startswith("out"):
            made[name] = {"type": "Output", "shape": np.array([4])}
        elif name == "above":
            made[name] = {"type": "Threshold", "threshold": np.full(4, 0.5)}
        else:
            weight = rng.normal(0.2, 0.5, (4, 3 if ("in", name) in edges else 4))
            made[name] = {
                "type": "Affine",
                "weight": weight.astype(np.float32),
                "bias": np.full(4, 0.1),
            }
    tree = group_of({"type": "NIRGraph", "nodes": made, "edges": edges}, "1.0.4")
    return parse(tree, **PLAIN)


def test_a_threshold_passes_gradients_on():
    edges = [
        ("in", "w"),
        ("w", "lif"),
        ("lif", "above"),
        ("above", "v"),
        ("v", "lif2"),
        ("lif2", "out"),
    ]
    graph = wired(("w", "lif", "above", "v", "lif2", "out"), edges)
    module, x = to_torch(graph), nets.spikes(3, (3,), steps=40, batch=3)
    assert set(trained_step(module, x)) == {"w.weight", "w.bias", "v.weight", "v.bias"}
    does_alike(from_torch(module, torch.zeros(1, 3)), module, x)


def test_what_several_places_or_outputs_make_of_a_graph_is_named():
    edges = [("in", "a"), ("a", "lif"), ("lif", "w"), ("w", "lif"), ("w", "lif2"), ("lif2", "out")]
    module = to_torch(wired(("a", "lif", "w", "lif2", "out"), edges))
    from_torch(module, torch.zeros(1, 3))
    trained_step(module, nets.spikes(3, (3,), steps=40, batch=3))
    with pytest.raises(
        ConversionError, match=r"in another layer of the module, and the graph has one"
    ):
        from_torch(module, torch.zeros(1, 3))
    edges = [("in", "a"), ("a", "lif"), ("lif", "out1"), ("a", "lif2"), ("lif2", "out2")]
    heads = wired(("a", "lif", "lif2", "out1", "out2"), edges)
    assert from_torch(to_torch(heads), torch.zeros(1, 3)).outputs == ("out1", "out2")
    with pytest.raises(
        ConversionError, match=r"'parts.0' returns a dict, since its graph has the Outputs out1, "
    ):
        from_torch(Parts(heads), torch.zeros(1, 3))
