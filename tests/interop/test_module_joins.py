"""from_torch: what forward joins, splits, subtracts and uses twice gives the module's own spikes."""

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import functional as sj_functional
from spikingjelly.activation_based import layer as sj_layer
from spikingjelly.activation_based import neuron as sj_neuron
from torch import nn
from torch.nn import functional

from jaxsnn import (
    TimeStepped,
    check,
    from_torch,
    load_into,
    lower,
    simulate,
    split_module,
    verify,
    write,
)
from jaxsnn.errors import ConversionError
from jaxsnn.nir.model.node import CONSTANT_KEY
from tests.helpers.refusals import assert_refused
from tests.interop import nets
from tests.interop.modules import (
    Wired,
    assert_loads,
    assert_no_graph,
    low_leaky,
    play_all_steps,
    round_trip,
    verified,
)

pytestmark = pytest.mark.interop
LINEAR, CONV = nn.Linear, nn.Conv2d


def norm(channels):
    """A batch normalisation in evaluation, with statistics of its own."""
    layer = nn.BatchNorm1d(channels).eval()
    layer.running_mean.uniform_(-0.1, 0.1)
    layer.running_var.uniform_(0.3, 0.6)
    return layer


def two_branches(axis=1):
    def forward(net, x):
        return net.out(net.c(torch.cat([net.first(net.a(x)), x, net.second(net.b(x))], axis)))

    return forward


def flat_branches(seed=0):
    neurons = {"first": low_leaky(), "second": low_leaky()}
    layers = {"a": LINEAR(4, 3), "b": LINEAR(4, 2), "c": LINEAR(9, 3)}
    return Wired(two_branches(), seed, **layers, **neurons)


def convolved_branches(axis):
    neurons = {"first": low_leaky(), "second": low_leaky()}
    layers = {"a": CONV(2, 2, 1), "b": CONV(2, 2, 1), "c": CONV(6 if axis == 1 else 2, 2, 2)}
    return Wired(two_branches(axis), **layers, **neurons)


def one_layer(kind, forward, *sizes):
    return Wired(forward, a=kind(*sizes))


def pooled(net, x):
    return net.out(
        net.c(functional.max_pool2d(functional.pad(net.first(net.a(x)), (1, 0, 2, 1)), 2))
    )


def difference(net, x):
    hidden = net.first(net.a(x)) - x
    return net.out(-net.c(hidden) - net.b(x))


def added_to_itself(net, x):
    first = net.a(x) + net.b(x + x)
    return net.out(first + first + net.a(x))


CASES = {
    "cat": (flat_branches, (4,)),
    "cat of channels": (lambda: convolved_branches(1), (2, 4, 4)),
    "cat of rows": (lambda: convolved_branches(2), (2, 4, 4)),
    "cat of columns": (lambda: convolved_branches(-1), (2, 4, 4)),
    "chunk": (
        lambda: Wired(
            lambda net, x: net.out(net.a(x.chunk(2, 1)[0]) + net.b(torch.split(x, [3, 1], dim=1)[1])),
            a=LINEAR(2, 3),
            b=LINEAR(1, 3),
        ),
        (4,),
    ),
    "channels": (lambda: one_layer(CONV, lambda net, x: net.out(net.a(x[:, 1:])), 2, 2, 2), (3, 4, 4)),
    "window": (
        lambda: one_layer(CONV, lambda net, x: net.out(net.a(x[..., 1:4, -3:])), 2, 2, 2),
        (2, 5, 5),
    ),
    "every second": (
        lambda: one_layer(
            LINEAR, lambda net, x: net.out(net.a(torch.cat([x[:, 1::2], x[:, 3:1], x[:, ::3]], 1))), 4, 3
        ),
        (5,),
    ),
    "every second row and channel": (
        lambda: one_layer(CONV, lambda net, x: net.out(net.a(x[:, ::2, 1::2, ::3])), 2, 2, 1),
        (3, 5, 6),
    ),
    "all of it": (
        lambda: one_layer(LINEAR, lambda net, x: net.out(net.a(x[:, :4][...])[:] - 0), 4, 3),
        (4,),
    ),
    "itself added": (
        lambda: Wired(added_to_itself, a=LINEAR(4, 3), b=LINEAR(4, 3)),
        (4,),
    ),
    "difference": (
        lambda: Wired(
            difference, a=LINEAR(4, 4), b=LINEAR(4, 3), c=LINEAR(4, 3), first=low_leaky()
        ),
        (4,),
    ),
    "sum of a list": (
        lambda: Wired(
            lambda net, x: net.out(sum([net.a(x), net.b(x)])), a=LINEAR(4, 3), b=LINEAR(4, 3)
        ),
        (4,),
    ),
    "squeeze": (lambda: one_layer(LINEAR, lambda net, x: net.out(net.a(x.squeeze(2))), 4, 3), (4, 1)),
    "pad": (
        lambda: one_layer(LINEAR, lambda net, x: net.out(net.a(functional.pad(x, (1, 2)))), 7, 3),
        (4,),
    ),
    "pad of nothing": (
        lambda: one_layer(LINEAR, lambda net, x: net.out(net.a(functional.pad(x, (0, 0)))), 4, 3),
        (4,),
    ),
    "pad of one axis": (
        lambda: one_layer(CONV, lambda net, x: net.out(net.a(functional.pad(x, (1, 2)))), 2, 3, 3),
        (2, 4, 4),
    ),
    "pad of channels": (
        lambda: one_layer(
            CONV, lambda net, x: net.out(net.a(x) + functional.pad(x, (0, 0, 0, 0, 1, 1))), 2, 4, 1
        ),
        (2, 3, 3),
    ),
    "largest of padded spikes": (
        lambda: Wired(pooled, a=CONV(1, 2, 1), c=CONV(2, 2, 2), first=low_leaky()),
        (1, 4, 5),
    ),
    "numbers added": (
        lambda: one_layer(
            LINEAR, lambda net, x: net.out((1 - net.a((x - 0.5) / 0.25)) + 0.1), 4, 3
        ),
        (4,),
    ),
    "numbers added to channels": (
        lambda: one_layer(CONV, lambda net, x: net.out(net.a(2 * x - 1).add_(0.2)), 2, 3, 2),
        (2, 4, 4),
    ),
    "a number before a batch norm": (
        lambda: Wired(
            lambda net, x: net.out(net.norm(net.a(x) + 0.5)), a=LINEAR(4, 3), norm=norm(3)
        ),
        (4,),
    ),
    "batch norm of a slice": (
        lambda: Wired(lambda net, x: net.out(6 * net.norm(x[:, 1:]) + 0.1), norm=norm(3)),
        (4,),
    ),
    "means of channels": (
        lambda: Wired(
            lambda net, x: net.out(net.b(4 * net.a(x).mean((2, 3)))),
            seed=3,
            a=CONV(2, 3, 3),
            b=LINEAR(3, 3),
        ),
        (2, 6, 6),
    ),
    "means of channels that keep their axes": (
        lambda: one_layer(
            CONV, lambda net, x: net.out(net.a(torch.mean(x, dim=[-1, -2], keepdim=True))), 2, 3, 1
        ),
        (2, 4, 4),
    ),
    "means along one axis": (
        lambda: one_layer(LINEAR, lambda net, x: net.out(net.a(x.mean(-1))), 4, 3),
        (4, 5),
    ),
    "twice": (
        lambda: Wired(
            lambda net, x: net.out(net.a(net.first(net.a(x)))), a=LINEAR(4, 4), first=low_leaky()
        ),
        (4,),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_computed_between_layers_gives_the_modules_spikes(case):
    make, shape = CASES[case]
    verified(make(), shape)


@pytest.mark.parametrize("target", ["norse", "snntorch", "spikingjelly"])
@pytest.mark.parametrize("case", ["cat", "difference"])
def test_joins_and_differences_convert(case, target, converts):
    make, shape = CASES[case]
    graph, x, y = verified(make(), shape)
    converts(graph, target, x, y)


def test_numbers_go_back_into_a_module_that_joins():
    round_trip(flat_branches, (4,))


def rectified(net, x):
    spikes = functional.relu(net.first(net.a(x)))
    return net.out(net.c(net.relu(spikes.relu()).relu_()))


def rectified_sums(net, x):
    """Rectified, some in place: sums of spikes, by weights of which none is below 0, too."""
    first, second = net.first(net.a(x)), net.second(net.b(x))
    both = nn.ReLU(inplace=True)(net.relu(first + second))
    return net.out(net.c(net.relu(net.pool(both).flatten(1)) + net.relu(0.5 * first).flatten(1)))


def with_relu(forward, kind=LINEAR, seed=0):
    layers = {"a": LINEAR(4, 3), "c": LINEAR(3, 3), "relu": nn.ReLU()}
    if kind is CONV:
        layers = {"a": CONV(1, 2, 1), "b": CONV(1, 2, 1), "relu": nn.ReLU(inplace=True)}
        layers |= {"second": low_leaky(), "pool": nn.AvgPool2d(1), "c": LINEAR(8, 3)}
    return Wired(forward, seed, **layers, first=low_leaky())


def test_spikes_and_sums_of_them_go_through_a_relu_as_they_are():
    graph, _, _ = verified(with_relu(rectified), (4,))
    assert ("first", "c") in graph.edges
    graph, _, _ = verified(with_relu(rectified_sums, CONV), (1, 2, 2))
    assert {("first", "pool"), ("second", "pool")} <= set(graph.edges)


@pytest.mark.parametrize(
    "current",
    [
        lambda net, x: net.relu(net.first(net.a(x)) - net.second(net.b(x))),
        lambda net, x: net.relu(net.a(net.first(net.a(x))[:, :1])),
        lambda net, x: net.relu(net.first(net.a(x)) - 0.5),
    ],
)
def test_a_relu_of_numbers_that_may_be_below_0_is_an_extension_node(current):
    net = with_relu(lambda net, x: net.out(current(net, x)), CONV, seed=8)
    graph, x, y = verified(net, (1, 2, 2))
    assert graph.nodes["relu"].type == "ReLU"
    comparison = verify(graph, net, x)
    assert comparison.ok
    assert comparison.identical == comparison.trains
    net.relu = nn.Identity()
    assert not np.array_equal(nets.snntorch_play(net, x), y)  # some of the numbers are below 0


def test_a_relu_of_a_current_is_an_extension_node():
    net = with_relu(lambda net, x: net.out(functional.relu(net.a(x))))
    graph, x, _ = verified(net, (4,))
    assert graph.nodes["relu_2"].type == "ReLU"
    assert {("a", "relu_2"), ("relu_2", "out")} <= set(graph.edges)
    comparison = verify(graph, net, x)
    assert comparison.ok
    assert comparison.identical == comparison.trains


def joined_numbers(net, x):
    return torch.cat([net.first(net.a(x)), x], 1)


def spikes_on_spikes(net, x):
    spikes = net.first(net.a(x))
    return functional.pad(spikes, (1, 1)) + functional.pad(spikes, (2, 0))


@pytest.mark.parametrize("join", [joined_numbers, spikes_on_spikes])
def test_the_largest_of_what_is_more_than_one_spike_is_an_extension_node(join):
    def forward(net, x):
        return net.out(functional.max_pool2d(join(net, x), 2))

    net = Wired(forward, a=CONV(1, 1, 1), first=low_leaky())
    graph, x, _ = verified(net, (1, 4, 4))
    assert graph.nodes["max_pool2d"].type == "MaxPool2d"
    assert len([edge for edge in graph.edges if edge[1] == "max_pool2d"]) == 2
    comparison = verify(graph, net, x)
    assert comparison.ok
    assert comparison.identical == comparison.trains


def joined_numbers_of_one_axis(net, x):
    return torch.cat([net.first(net.a(x)), x], 1)


def spikes_on_spikes_of_one_axis(net, x):
    spikes = net.first(net.a(x))
    return functional.pad(spikes, (1, 1)) + functional.pad(spikes, (2, 0))


@pytest.mark.parametrize("join", [joined_numbers_of_one_axis, spikes_on_spikes_of_one_axis])
def test_max_pooling_of_sums_of_spikes_is_that_of_values(join):
    def forward(net, x):
        return net.out(functional.max_pool1d(join(net, x), 2))

    net = Wired(forward, a=nn.Conv1d(1, 1, 1), first=low_leaky())
    graph = from_torch(net, torch.zeros(1, 1, 4))
    assert "MaxPool1d" in {node.type for node in graph.nodes.values()}


def normalised(net, x):
    return net.out(net.a(net.first(net.norm(net.a(x)))))


def test_a_batch_norm_behind_one_of_two_places_of_a_layer_stays_a_node():
    def make(seed):
        layer = nn.BatchNorm1d(4)
        layer.running_mean.uniform_(-0.5, 0.5)
        return Wired(normalised, seed, a=LINEAR(4, 4), norm=layer, first=low_leaky()).eval()

    graph, *_ = round_trip(make, (4,))
    np.testing.assert_array_equal(graph.nodes["a"].weight, graph.nodes["a_2"].weight)


def doubled_through_data(net, x):
    currents = net.a(x)
    first = currents.chunk(5, 1)[0]
    currents.data.mul_(2)
    return net.out(first)


class Inference(Wired):
    @torch.inference_mode()
    def forward(self, x):
        return self.wired(self, x)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Wired(doubled_through_data, a=LINEAR(4, 10)), r"changes the output of a layer through \.data"),
        (Inference(lambda net, x: net.out(net.a(x)), a=LINEAR(4, 3)),
         r"runs in torch\.inference_mode, .*torch\.no_grad"),
    ],
)  # fmt: skip
def test_what_torch_does_not_record_is_refused(net, message):
    assert_no_graph(net, (4,), message)


def test_inference_mode_around_a_module_does_not_matter():
    make, shape = CASES["twice"]
    with torch.inference_mode():
        assert_loads(make(), *verified(make(), shape))


def test_parts_that_nobody_takes_are_no_nodes():
    make, shape = CASES["chunk"]
    graph = from_torch(make(), torch.zeros(1, *shape))
    assert len(graph.nodes) == len(("input", "split", "a", "split_4", "b", "out", "output"))


#: A forward pass behind a neuron, the sizes of its Linear `a`, and the function of torch that a refusal names.
OUTSIDE_OF_LAYERS = [
    (lambda net, x: net.out(net.a(torch.cat([x, x], 0))), (4, 3), "cat"),
    (lambda net, x: net.out(net.a(functional.pad(x, (1, 0), value=1.0))), (5, 3), "pad"),
    (lambda net, x: net.out(torch.add(net.a(x), 1, alpha=2)), (4, 3), "add"),
    (lambda net, x: net.out(torch.add(net.a(x), net.a(x).clone(), alpha=2)), (4, 3), "add"),
    (lambda net, x: net.out(torch.sub(net.a(x), 2, alpha=2)), (4, 3), "sub"),
    (lambda net, x: net.out(torch.div(net.a(x), 2, rounding_mode="floor")), (4, 3), "div"),
    (lambda net, x: net.out(net.a(x) + torch.ones(3)), (4, 3), "add"),
    (lambda net, x: net.out(net.a(x) * torch.rand(3)), (4, 3), "mul"),
    (lambda net, x: net.out(net.a(x) / x.sum()), (4, 3), "sum"),
    (lambda net, x: net.out(net.a(x) - x.mean()), (4, 3), "mean"),
    (lambda net, x: net.out(torch.sub(net.a(x), x, alpha=2)), (4, 4), "sub"),
    (lambda net, x: net.out(torch.add(net.a(x), 2, x)), (4, 4), "add"),  # alpha as once
    (lambda net, x: net.out(net.a(torch.cat([x, torch.ones(1, 1)], 1))), (5, 3), "cat"),
    (lambda net, x: net.out(torch.maximum(net.a(x), 2 * net.a(x))), (4, 3), "maximum"),
    # The message names the first unsupported function.
    (lambda net, x: net.out((torch.abs(net.a(x)) * net.a.bias.sigmoid()).flatten(1)), (4, 3), "abs"),
]  # fmt: skip


@pytest.mark.parametrize(("forward", "sizes", "function"), OUTSIDE_OF_LAYERS)
def test_what_joins_samples_or_brings_numbers_of_its_own_is_refused(forward, sizes, function):
    message = rf"input of '(a|out)' .* computed outside of layers, by torch's {function}, "
    assert_no_graph(behind_a_neuron(forward, a=LINEAR(*sizes)), (4,), message)


def behind_a_neuron(forward, **layers):
    """A module whose `forward` receives spikes; in front of its neurons, functions are no part of the graph."""
    return Wired(lambda net, x: forward(net, net.first(x)), first=low_leaky(), **layers)


@pytest.mark.parametrize(
    ("forward", "before", "after"),
    [
        (lambda net, x: torch.tanh(net.out(net.a(x))), (), ("tanh",)),
        (lambda net, x: net.out(net.a(x)).flip(1), (), ("flip",)),
        (lambda net, x: net.out(net.a(x)).sum(0), (), ("sum",)),
        (lambda net, x: net.out(net.a(torch.cat([x, x], 0))), ("cat",), ()),
        (lambda net, x: net.out(net.a((x > 0.5).float())), ("gt",), ()),
        (lambda net, x: net.out(net.a(x * torch.arange(4.0).roll(1))).exp(), ("mul",), ("exp",)),
    ],
)
def test_functions_around_one_time_step_are_an_encoder_and_a_decoder(forward, before, after):
    net = Wired(forward, a=LINEAR(4, 3), out=low_leaky())
    parts = split_module(net, torch.zeros(2, 4))
    assert set(before) <= set(parts.before)
    assert parts.after == after
    (note,) = parts.graph.warnings
    assert (note.code, note.severity) == ("outside-graph", "note")
    x = torch.as_tensor(nets.spikes(0, (4,), steps=20, batch=2))
    encoded = parts.encode(x)
    y = simulate(lower(parts.graph), encoded, engine=TimeStepped()).output()
    (decoded,) = parts.decode(np.asarray(y), x)
    np.testing.assert_array_equal(decoded, torch.stack([net(frame) for frame in x]).detach())
    assert verify(parts.graph, net, x).ok


def test_layers_in_front_of_a_function_without_a_node_are_left_out_with_a_warning():
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), low_leaky())
    graph = from_torch(net, torch.zeros(1, 4))
    assert {"2", "3"} <= set(graph.nodes)
    assert "0" not in graph.nodes
    (warning,) = graph.warnings
    assert (warning.code, warning.severity) == ("outside-graph", "warning")
    assert "'1' is a Tanh" in warning.message


@pytest.mark.parametrize("part", [(0, 0), (slice(1), slice(1)), (torch.tensor([0]), 1)])
def test_parts_of_a_batch_are_refused(part):
    net = Wired(lambda net, x: net.out(net.a(x[part].reshape(1, -1))), a=LINEAR(2, 3))
    assert_no_graph(net, (4, 2), r"'a' .* receives a part of the sample")


@pytest.mark.parametrize(
    ("forward", "way_out"),
    [
        (lambda net, x: net.out(net.a(x.permute(0, 2, 1))), "in the order that the layers"),
        (lambda net, x: net.out(net.a(torch.stack([x, x], 1))), "with torch.cat"),
    ],
)
def test_what_no_node_of_nir_does_to_axes_has_a_way_out(forward, way_out):
    message = (
        rf"by torch's .* is not supported there \(test_module_joins\.py, line \d+\): .*{way_out}"
    )
    assert_no_graph(behind_a_neuron(forward, a=nn.Identity()), (4, 4), message)


@pytest.mark.parametrize(
    ("between", "shape"),
    [
        (lambda net, x: net.shaped(net.first(net.a(x))), [1, 5]),
        (lambda net, x: net.first(net.a(x)).unsqueeze(1), [1, 5]),
        (lambda net, x: net.first(net.a(x))[:, None], [1, 5]),
        (lambda net, x: functional.relu(net.a(x).view(-1, 5, 1)), [5, 1]),
    ],
)
def test_axes_are_added_by_a_reshape(between, shape):
    layers = {"a": LINEAR(4, 5), "shaped": nn.Unflatten(1, (1, 5)), "first": low_leaky()}
    convolution = nn.Conv1d(shape[0], 2, 1)
    net = Wired(lambda net, x: net.out(net.c(between(net, x))), c=convolution, **layers)
    graph = from_torch(net, torch.zeros(1, 4))
    (node,) = [node for node in graph.nodes.values() if node.type == "Reshape"]
    assert node.value("shape").tolist() == shape
    x = torch.tensor(np.random.default_rng(0).uniform(0, 3, (20, 2, 4)).astype(np.float32))
    assert verify(graph, net, x).ok


def test_an_unflatten_of_the_batch_axis_is_refused():
    layers = low_leaky(), nn.Unflatten(0, (1, 2)), nn.Flatten(0, 1), low_leaky()
    net = nn.Sequential(nn.Linear(4, 4), *layers)
    with pytest.raises(ConversionError):
        from_torch(net, torch.zeros(2, 4))


def scaled_weights(graph, parameters, factor=1.1):
    """The graph with other numbers of some (node, parameter), as training would give it."""
    for node, parameter in parameters:
        changed = {parameter: factor * getattr(graph.nodes[node], parameter)}
        graph = graph.with_nodes([graph.nodes[node].replace(**changed)])
    return graph


def test_one_layer_in_two_places_is_two_nodes_that_training_parts():
    make, shape = CASES["twice"]
    graph, x, y = verified(make(), shape)
    np.testing.assert_array_equal(graph.nodes["a"].weight, graph.nodes["a_2"].weight)
    (warning,) = graph.warnings
    message = (
        "nodes 'a', 'a_2' of the graph have copies of parameters that are shared in the module"
    )
    assert message in str(warning)
    assert warning in check(graph, "grid").problems
    target = make()
    with torch.no_grad():
        target.a.weight.mul_(0.5)
    assert_loads(target, graph, x, y)
    before = target.a.weight.detach().clone()
    parted = scaled_weights(graph, [("a_2", "weight")], 2)
    message = "nodes 'a' and 'a_2' have different parameters, and th"
    assert_refused(lambda: load_into(target, parted), ConversionError, message)
    assert torch.equal(target.a.weight, before)


def test_weights_that_load_into_does_not_take_are_named_before_training():
    graph = from_torch(flat_branches(), torch.zeros(1, 4))
    (warning,) = graph.warnings
    assert str(warning).startswith(
        "the weights of nodes 'cat', 'cat_2', 'cat_3' are not weights of a layer of the module"
    )
    constant = [name for name, node in graph.nodes.items() if CONSTANT_KEY in node.metadata]
    assert sorted(constant) == ["cat", "cat_2", "cat_3"]
    parameters = [(node, name) for node in "abc" for name in ("weight", "bias")]
    net = flat_branches(1)
    load_into(net, scaled_weights(graph, parameters))
    np.testing.assert_allclose(net.c.weight.detach(), 1.1 * graph.nodes["c"].weight, rtol=1e-6)
    changed = scaled_weights(graph, [("cat_2", "weight")])
    message = r"'cat \(test_module_joins\.py, line \d+\)' cannot implement node 'cat_2': weight"
    assert_refused(lambda: load_into(net, changed), ConversionError, message)


def test_layers_that_share_a_weight_are_named():
    net = nn.Sequential(LINEAR(4, 4), low_leaky(), LINEAR(4, 4), low_leaky())
    assert not from_torch(net, torch.zeros(1, 4)).warnings
    net[2].weight = net[0].weight
    warning = from_torch(net, torch.zeros(1, 4)).warnings[0]
    assert warning.code == "shared-parameters"
    assert "nodes '0', '2' of the graph" in str(warning)


def test_a_current_that_is_returned_beside_the_spikes_is_an_output(tmp_path):
    def forward(net, x):
        current = net.a(x)
        spikes = net.first(current)
        return net.out(net.b(spikes)), current, spikes

    net = Wired(forward, a=LINEAR(4, 3), b=LINEAR(3, 2), first=low_leaky())
    graph = from_torch(net, torch.zeros(1, 4))
    assert graph.outputs == ("output_a", "output_out")
    assert ("a", "output_a") in graph.edges
    write(tmp_path / "net.nir", graph)


def test_what_is_returned_behind_the_states_is_none_of_them():
    class CurrentBehindStates(Wired):
        def forward(self, x, mem=None):
            current = self.a(x)
            spikes, mem = self.out(current, self.out.reset_mem() if mem is None else mem)
            return spikes, mem, current

    net = CurrentBehindStates(None, a=LINEAR(4, 3), out=low_leaky(init_hidden=False))
    assert from_torch(net, torch.zeros(1, 4)).outputs == ("output_a", "output_out")


def test_weights_of_spikingjelly_in_two_places():
    from spikingjelly.activation_based import functional as jelly
    from spikingjelly.activation_based import layer, neuron

    neurons = {name: neuron.LIFNode(v_threshold=0.2) for name in ("first", "out")}
    net = Wired(lambda net, x: net.out(net.a(net.first(net.a(x)))), a=layer.Linear(4, 4), **neurons)
    jelly.set_step_mode(net, "m")
    graph, _, _ = verified(net, (4,), 2, play=play_all_steps, sample=torch.zeros(2, 1, 4))
    assert "a_2" in graph.nodes


def test_functions_take_no_names_of_layers():
    def forward(net, x):
        return net.out(net.scale(net.flatten(1.5 * x.flatten(1))))

    net = Wired(forward, scale=LINEAR(4, 3), flatten=nn.Flatten())
    graph, _, _ = verified(net, (2, 2))
    assert graph.nodes["scale"].type == "Affine"
    assert not graph.warnings


@pytest.mark.parametrize("kind", ["LIFCell", "LIFBoxCell"])
def test_a_membrane_is_read_from_a_state_of_norse(kind):
    import norse.torch as norse

    class Membrane(nn.Module):
        def __init__(self, seed):
            super().__init__()
            torch.manual_seed(seed)
            parameters = getattr(norse, kind.replace("Cell", "Parameters"))
            threshold = torch.tensor(0.2 + seed / 10)
            self.fc, self.lif = LINEAR(4, 3), getattr(norse, kind)(parameters(v_th=threshold))
            nn.init.uniform_(self.fc.weight, 0, 4)

        def forward(self, x, state=None):
            _, state = self.lif(self.fc(x), state)
            return state.v, state

    first, second = Membrane(1), Membrane(2)
    graph, x = from_torch(first, torch.zeros(1, 4)), nets.spikes(1, (4,), steps=40, batch=3)
    y = nets.stateful_play(first, x)
    assert np.ptp(y, axis=0).mean() > 0.1
    assert verify(graph, x, y).ok
    load_into(second, graph)
    np.testing.assert_allclose(nets.stateful_play(second, x), y, rtol=1e-5, atol=1e-6)


class SequenceLayers(nn.Module):
    """Layers of SpikingJelly in step mode "m" around a function of spikes (time, batch, *shape)."""

    def __init__(self, between, inputs=4, first=None):
        super().__init__()
        self.between, self.first = between, first or (lambda x: x)
        self.fc1 = sj_layer.Linear(4, 4, step_mode="m")
        self.fc2 = sj_layer.Linear(inputs, 4, step_mode="m")
        self.sn1 = sj_neuron.IFNode(v_threshold=0.5, step_mode="m")
        self.sn2 = sj_neuron.IFNode(v_threshold=0.2, step_mode="m")

    def forward(self, x):
        sj_functional.reset_net(self)
        currents = self.first(self.fc1(x))
        return self.sn2(self.fc2(self.between(self, self.sn1(currents))))


def added_in_place(net, spikes):
    currents = net.fc1(spikes)
    currents += spikes
    currents *= 0.5
    return currents


@pytest.mark.parametrize(
    ("between", "inputs"),
    [
        (added_in_place, 4),
        (lambda net, spikes: torch.cat([spikes, 0.5 * spikes], 2), 8),
        (lambda net, spikes: torch.cat([spikes, 0.5 * spikes], dim=2), 8),
        (lambda net, spikes: spikes[:, :, 1:3], 2),
        (lambda net, spikes: spikes.unflatten(2, (2, 2)).permute(0, 1, 3, 2).flatten(2), 4),
        (lambda net, spikes: spikes.unflatten(2, (2, 2)).transpose(2, 3).flatten(2), 4),
    ],
)
def test_functions_of_all_time_steps_are_functions_of_one(between, inputs):
    torch.manual_seed(0)
    net, x = SequenceLayers(between, inputs), 3 * torch.rand(6, 2, 4)
    parts = split_module(net, x)
    assert parts.before + parts.after == ()
    y = simulate(lower(parts.graph), parts.encode(x), engine=TimeStepped()).output()
    expected = net(x).detach().numpy()
    assert expected.any()
    np.testing.assert_array_equal(y, expected)


def changed_in_the_middle(net, spikes):
    spikes[2:4] = 0
    return spikes


@pytest.mark.parametrize(
    ("between", "message"),
    [
        (
            lambda net, spikes: spikes[[0, 2, 1, 3, 4, 5]],
            "all time steps of 'sn1' at once, by torch's getitem",
        ),
        (
            lambda net, spikes: spikes.cumsum(0),
            "all time steps of 'sn1' at once, by torch's cumsum",
        ),
        (changed_in_the_middle, "all time steps of 'sn1' at once, by torch's setitem"),
        (lambda net, spikes: spikes.transpose(0, 1), "steps: 'sn1' over 6, 'sn2' over 2"),
        (lambda net, spikes: spikes[::2], "steps: 'sn1' over 6, 'sn2' over 3"),
        (lambda net, spikes: net.sn1(net.fc1(spikes)), "'sn1' is called several times"),
    ],
)
def test_functions_that_mix_time_steps_are_refused(between, message):
    with pytest.raises(ConversionError, match=message):
        from_torch(SequenceLayers(between), torch.rand(6, 2, 4))


def test_a_warning_of_layers_in_front_names_the_function_that_mixes_time_steps():
    net = SequenceLayers(lambda net, spikes: spikes, first=lambda x: x.roll(1, 0))
    (warning,) = from_torch(net, torch.rand(6, 2, 4)).warnings
    assert (warning.code, warning.severity) == ("outside-graph", "warning")
    assert "roll for all time steps" in warning.message
