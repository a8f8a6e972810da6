"""from_torch: what forward joins, splits, subtracts and uses twice gives the module's own spikes."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from jaxsnn import check, from_torch, load_into, verify, write
from jaxsnn.errors import ConversionError
from tests.interop import nets

pytestmark = pytest.mark.interop


def leaky(**options):
    import snntorch

    return snntorch.Leaky(**{"beta": 0.9, "threshold": 0.5, "init_hidden": True} | options)


class Wired(torch.nn.Module):
    """Layers by name and a forward pass of them."""

    def __init__(self, forward, seed=0, **layers):
        super().__init__()
        torch.manual_seed(seed)
        self.wired = forward
        for name, layer in {**layers, "out": layers.get("out", leaky())}.items():
            setattr(self, name, layer)
        for parameter in self.parameters():
            size = 2 / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 0.1
            torch.nn.init.uniform_(parameter, -size, 1.2 * size)

    def forward(self, x):
        return self.wired(self, x)


def verified(net, shape, seed=5):
    """The graph of a module, whose own spikes are the graph's; the inputs and the spikes."""
    x = nets.spikes(seed, shape, steps=40, batch=3)
    graph, y = from_torch(net, torch.zeros(1, *shape)), nets.snntorch_play(net, x)
    assert 0.02 < y.mean() < 0.98
    assert verify(graph, x, y).ok
    return graph, x, y


LINEAR, CONV = torch.nn.Linear, torch.nn.Conv2d


def norm(channels):
    """A batch normalisation in evaluation, with statistics of its own."""
    made = torch.nn.BatchNorm1d(channels).eval()
    made.running_mean.uniform_(-0.1, 0.1)
    made.running_var.uniform_(0.3, 0.6)
    return made


def two_branches(axis=1):
    def forward(net, x):
        return net.out(net.c(torch.cat([net.first(net.a(x)), x, net.second(net.b(x))], axis)))

    return forward


def flat_branches(seed=0):
    neurons = {"first": leaky(), "second": leaky()}
    layers = {"a": LINEAR(4, 3), "b": LINEAR(4, 2), "c": LINEAR(9, 3)}
    return Wired(two_branches(), seed, **layers, **neurons)


def convolved_branches(axis):
    neurons = {"first": leaky(), "second": leaky()}
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
            difference, a=LINEAR(4, 4), b=LINEAR(4, 3), c=LINEAR(4, 3), first=leaky()
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
        lambda: Wired(pooled, a=CONV(1, 2, 1), c=CONV(2, 2, 2), first=leaky()),
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
            lambda net, x: net.out(net.a(net.first(net.a(x)))), a=LINEAR(4, 4), first=leaky()
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
    first, second = flat_branches(1), flat_branches(2)
    graph, x, y = verified(first, (4,))
    assert not np.array_equal(nets.snntorch_play(second, x), y)
    load_into(second, graph)
    assert np.array_equal(nets.snntorch_play(second, x), y)


def joined_numbers(net, x):
    return torch.cat([net.first(net.a(x)), x], 1)


def spikes_on_spikes(net, x):
    spikes = net.first(net.a(x))
    return functional.pad(spikes, (1, 1)) + functional.pad(spikes, (2, 0))


def rectified(net, x):
    spikes = functional.relu(net.first(net.a(x)))
    return net.out(net.c(net.relu(spikes.relu()).relu_()))


def test_spikes_go_through_a_relu_as_they_are_and_other_numbers_are_refused():
    layers = {"a": LINEAR(4, 3), "c": LINEAR(3, 3), "first": leaky(), "relu": torch.nn.ReLU()}
    graph, _, _ = verified(Wired(rectified, **layers), (4,))
    assert ("first", "c") in graph.edges
    net = Wired(lambda net, x: net.out(functional.relu(net.a(x))), **layers)
    message = r"'relu_2' \(ReLU\) takes what 'a' \(Affine\) gives, .* spikes alone: put it after the neurons$"
    with pytest.raises(ConversionError, match=message):
        from_torch(net, torch.zeros(1, 4))


def summed(net, x):
    """Rectified, some in place: sums of spikes, by weights of which none is below 0, too."""
    first, second = net.first(net.a(x)), net.second(net.b(x))
    both = torch.nn.ReLU(inplace=True)(net.relu(first + second))
    return net.out(net.c(net.relu(net.pool(both).flatten(1)) + net.relu(0.5 * first).flatten(1)))


def test_sums_of_spikes_go_through_a_relu_and_one_in_place():
    layers = {"a": CONV(1, 2, 1), "b": CONV(1, 2, 1), "first": leaky(), "second": leaky()}
    layers |= {
        "pool": torch.nn.AvgPool2d(1),
        "relu": torch.nn.ReLU(inplace=True),
        "c": LINEAR(8, 3),
    }
    graph, _, _ = verified(Wired(summed, **layers), (1, 2, 2))
    assert {("first", "pool"), ("second", "pool")} <= set(graph.edges)
    for current in (
        lambda net, x: net.relu(net.first(net.a(x)) - net.second(net.b(x))),
        lambda net, x: net.relu(net.a(net.first(net.a(x))[:, :1])),
        lambda net, x: net.relu(net.first(net.a(x)) - 0.5),
    ):
        net = Wired(lambda net, x, current=current: net.out(current(net, x)), **layers)
        with pytest.raises(
            ConversionError, match=r"'relu' .*, and NIR supports it only for plain sums of spi"
        ):
            from_torch(net, torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize("join", [joined_numbers, spikes_on_spikes])
def test_the_largest_of_what_is_more_than_one_spike_is_refused(join):
    net = Wired(
        lambda net, x: net.out(functional.max_pool2d(join(net, x), 2)),
        a=CONV(1, 1, 1),
        first=leaky(),
    )
    with pytest.raises(ConversionError, match=r"'max_pool2d' .* what '\w+' .*, '\w+_2' .* gives"):
        from_torch(net, torch.zeros(1, 1, 4, 4))


def normalised(net, x):
    return net.out(net.a(net.first(net.norm(net.a(x)))))


def test_a_batch_norm_behind_one_of_two_places_of_a_layer_stays_a_node():
    def make(seed):
        norm = torch.nn.BatchNorm1d(4)
        norm.running_mean.uniform_(-0.5, 0.5)
        return Wired(normalised, seed, a=LINEAR(4, 4), norm=norm, first=leaky()).eval()

    first, second = make(1), make(2)
    graph, x, y = verified(first, (4,))
    np.testing.assert_array_equal(graph.nodes["a"].weight, graph.nodes["a_2"].weight)
    load_into(second, graph)
    assert np.array_equal(nets.snntorch_play(second, x), y)


def written_to(net, x):
    currents = net.a(x)
    first = currents.chunk(5, 1)[0]
    currents.data.mul_(2)
    return net.out(first)


def test_writes_through_data_are_refused():
    with pytest.raises(ConversionError, match=r"changes what a layer gives through \.data"):
        from_torch(Wired(written_to, a=LINEAR(4, 10)), torch.zeros(1, 4))


class Inference(Wired):
    @torch.inference_mode()
    def forward(self, x):
        return self.wired(self, x)


def test_inference_mode_is_left_around_a_module_and_refused_within():
    make, shape = CASES["twice"]
    with torch.inference_mode():
        graph, x, y = verified(make(), shape)
        other = make()
        load_into(other, graph)
        assert np.array_equal(nets.snntorch_play(other, x), y)
    net = Inference(lambda net, x: net.out(net.a(x)), a=LINEAR(4, 3))
    with pytest.raises(ConversionError, match=r"runs in torch\.inference_mode, .*torch\.no_grad"):
        from_torch(net, torch.zeros(1, 4))


def test_parts_that_nobody_takes_are_no_nodes():
    make, shape = CASES["chunk"]
    graph = from_torch(make(), torch.zeros(1, *shape))
    assert len(graph.nodes) == len(("input", "split", "a", "split_4", "b", "out", "output"))


@pytest.mark.parametrize(
    ("forward", "sizes"),
    [
        (lambda net, x: net.out(net.a(torch.cat([x, x], 0))), (4, 3)),
        (lambda net, x: net.out(net.a(functional.pad(x, (1, 0), value=1.0))), (5, 3)),
        (lambda net, x: net.out(torch.add(net.a(x), 1, alpha=2)), (4, 3)),
        (lambda net, x: net.out(net.a(x) + torch.ones(3)), (4, 3)),
        (lambda net, x: net.out(net.a(x) - x.mean()), (4, 3)),
        (lambda net, x: net.out(torch.sub(net.a(x), x, alpha=2)), (4, 4)),
        (lambda net, x: net.out(torch.add(net.a(x), 2, x)), (4, 4)),  # alpha, in the former order
        (lambda net, x: net.out(net.a(torch.cat([x, torch.ones(1, 1)], 1))), (5, 3)),
    ],
)
def test_what_joins_samples_or_brings_numbers_of_its_own_is_refused(forward, sizes):
    with pytest.raises(ConversionError, match=r"input of '(a|out)' .* computed outside of layers"):
        from_torch(Wired(forward, a=LINEAR(*sizes)), torch.zeros(1, 4))


@pytest.mark.parametrize(
    "part",
    [
        (0, 0),
        (slice(1), slice(1)),
        (torch.tensor([0]), 1),
    ],
)
def test_parts_of_a_batch_are_refused(part):
    net = Wired(lambda net, x: net.out(net.a(x[part].reshape(1, -1))), a=LINEAR(2, 3))
    with pytest.raises(ConversionError, match=r"'a' .* receives a part of the input"):
        from_torch(net, torch.zeros(1, 4, 2))


@pytest.mark.parametrize(
    ("forward", "way_out"),
    [
        (lambda net, x: net.out(net.a(x.permute(0, 2, 1))), "in the order of axes that the layers"),
        (lambda net, x: net.out(net.a(x.unsqueeze(1))), "in the shape that the layers take"),
        (lambda net, x: net.out(net.a(torch.stack([x, x], 1))), "with torch.cat"),
    ],
)
def test_what_no_node_of_nir_does_to_axes_has_a_way_out(forward, way_out):
    with pytest.raises(
        ConversionError, match=rf"by torch's .* is not supported there: .*{way_out}"
    ):
        from_torch(Wired(forward, a=torch.nn.Identity()), torch.zeros(1, 4, 4))
    net = torch.nn.Sequential(torch.nn.Unflatten(1, (1, 4)), leaky())
    with pytest.raises(ConversionError, match=r"'0' is a Unflatten, .*: give the sample in the sh"):
        from_torch(net, torch.zeros(1, 4))


def test_one_layer_in_two_places_is_two_nodes_that_training_parts():
    make, shape = CASES["twice"]
    graph, x, y = verified(make(), shape)
    np.testing.assert_array_equal(graph.nodes["a"].weight, graph.nodes["a_2"].weight)
    message = "shares the same numbers between 'a', 'a_2', and the graph has a copy for each"
    (said,) = graph.warnings
    assert message in str(said)
    assert said in check(graph, "grid").problems
    other = make()
    with torch.no_grad():
        other.a.weight.mul_(0.5)
    load_into(other, graph)
    assert np.array_equal(nets.snntorch_play(other, x), y)
    before = other.a.weight.detach().clone()
    parted = graph.with_nodes([graph.nodes["a_2"].replace(weight=2 * graph.nodes["a_2"].weight)])
    with pytest.raises(ConversionError, match="nodes 'a' and 'a_2' have different numbers, and th"):
        load_into(other, parted)
    assert torch.equal(other.a.weight, before)


def test_weights_that_load_into_does_not_take_are_named_before_training():
    graph = from_torch(flat_branches(), torch.zeros(1, 4))
    (said,) = graph.warnings
    assert str(said).startswith(
        "weights of 'cat', 'cat_2', 'cat_3' are no parameters of the module"
    )
    _, named = str(said).split('train the others alone: trainable="')
    own = [name.split(".") for name in named.rstrip('"').split(",")]
    assert own == [[node, name] for node in "abc" for name in ("weight", "bias")]
    net = flat_branches(1)
    load_into(net, moved(graph, own))
    np.testing.assert_allclose(net.c.weight.detach(), 1.1 * graph.nodes["c"].weight, rtol=1e-6)
    with pytest.raises(ConversionError, match="'cat_2' cannot implement node 'cat_2': weight"):
        load_into(net, moved(graph, [("cat_2", "weight")]))


def moved(graph, names):
    """The graph with other numbers, as training would give it."""
    for node, name in names:
        held = graph.nodes[node]
        graph = graph.with_nodes([held.replace(**{name: 1.1 * getattr(held, name)})])
    return graph


def test_layers_that_share_a_weight_are_named():
    net = torch.nn.Sequential(LINEAR(4, 4), leaky(), LINEAR(4, 4), leaky())
    assert not from_torch(net, torch.zeros(1, 4)).warnings
    net[2].weight = net[0].weight
    assert "for '0', '2', and the graph" in str(from_torch(net, torch.zeros(1, 4)).warnings[0])


def test_a_current_that_is_returned_beside_the_spikes_is_an_output(tmp_path):
    def forward(net, x):
        current = net.a(x)
        spikes = net.first(current)
        return net.out(net.b(spikes)), current, spikes

    net = Wired(forward, a=LINEAR(4, 3), b=LINEAR(3, 2), first=leaky())
    graph = from_torch(net, torch.zeros(1, 4))
    assert graph.outputs == ("output_a", "output_out")
    assert ("a", "output_a") in graph.edges
    write(tmp_path / "net.nir", graph)


class CurrentBehindStates(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.fc, self.lif = LINEAR(4, 3), leaky(init_hidden=False)
        torch.nn.init.uniform_(self.fc.weight, -0.3, 0.6)

    def forward(self, x, mem=None):
        current = self.fc(x)
        spikes, mem = self.lif(current, self.lif.reset_mem() if mem is None else mem)
        return spikes, mem, current


def test_what_is_returned_behind_the_states_is_none_of_them():
    graph = from_torch(CurrentBehindStates(), torch.zeros(1, 4))
    assert graph.outputs == ("output_fc", "output_lif")


def test_weights_of_spikingjelly_in_two_places():
    from spikingjelly.activation_based import functional as jelly
    from spikingjelly.activation_based import layer, neuron

    kinds = {name: neuron.LIFNode(v_threshold=0.2) for name in ("first", "out")}
    net = Wired(lambda net, x: net.out(net.a(net.first(net.a(x)))), a=layer.Linear(4, 4), **kinds)
    jelly.set_step_mode(net, "m")
    graph, x = from_torch(net, torch.zeros(2, 1, 4)), nets.spikes(2, (4,), steps=40, batch=3)
    y = net(torch.as_tensor(x)).detach().numpy()
    assert 0.02 < y.mean() < 0.98
    assert verify(graph, x, y).ok
    assert "a_2" in graph.nodes


def test_functions_take_no_names_of_layers():
    net = Wired(
        lambda net, x: net.out(net.scale(net.flatten(1.5 * x.flatten(1)))),
        scale=LINEAR(4, 3),
        flatten=torch.nn.Flatten(),
    )
    graph, _, _ = verified(net, (2, 2))
    assert graph.nodes["scale"].type == "Affine"
    assert not graph.warnings


@pytest.mark.parametrize("kind", ["LIFCell", "LIFBoxCell"])
def test_a_membrane_is_read_from_a_state_of_norse(kind):
    import norse.torch as norse

    class Membrane(torch.nn.Module):
        def __init__(self, seed):
            super().__init__()
            torch.manual_seed(seed)
            parameters = getattr(norse, kind.replace("Cell", "Parameters"))
            threshold = torch.tensor(0.2 + seed / 10)
            self.fc, self.lif = LINEAR(4, 3), getattr(norse, kind)(parameters(v_th=threshold))
            torch.nn.init.uniform_(self.fc.weight, 0, 4)

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
