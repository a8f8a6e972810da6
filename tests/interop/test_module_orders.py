"""from_torch: weights follow numbers that forward moves before a Linear; what else it takes and gives."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from jaxsnn import check, from_torch, load_into, verify
from jaxsnn.errors import ConversionError
from tests.interop import nets
from tests.interop.test_module_joins import CONV, LINEAR, Wired, leaky, one_layer, verified

pytestmark = pytest.mark.interop


def channels_last(seed=0):
    """As networks of TensorFlow are carried over: features flattened as (H, W, C)."""

    def forward(net, x):
        spikes = net.first(net.a(x)).permute(0, 2, 3, 1)
        return net.out(net.c(net.dropout(net.flatten(spikes))))

    layers = {"a": CONV(2, 3, 2), "first": leaky(), "c": LINEAR(12, 4)}
    own = {"flatten": torch.nn.Flatten(), "dropout": torch.nn.Dropout(0.0)}
    return Wired(forward, seed, **layers, **own)


def moved(*sizes):
    """A Linear behind what a function gives."""
    return lambda move: one_layer(LINEAR, lambda net, x: net.out(net.a(move(x))), *sizes)


CASES = {
    "permute": (channels_last(), (2, 3, 3)),
    "transpose": (moved(6, 4)(lambda x: x.transpose(1, 2).reshape(len(x), -1)), (2, 3)),
    "mT": (moved(6, 4)(lambda x: x.mT.flatten(1)), (2, 3)),
    "flip": (moved(5, 4)(lambda x: x.flip(1)), (5,)),
    "roll": (moved(5, 4)(lambda x: torch.roll(x, 2, dims=-1)), (5,)),
    "one row": (moved(3, 4)(lambda x: x[:, 1]), (2, 3)),
    "select": (moved(3, 4)(lambda x: x.select(1, -1)), (2, 3)),
    "unbind": (moved(2, 4)(lambda x: x.unbind(2)[1]), (2, 3)),
    "narrow": (moved(3, 4)(lambda x: x.narrow(-1, 1, 3)), (5,)),
    "narrow from behind": (moved(3, 4)(lambda x: torch.narrow(x, 1, -4, 3)), (5,)),
    "some, one twice": (moved(4, 4)(lambda x: x[:, [3, 0, 0, 4]]), (5,)),
    "index_select": (moved(2, 4)(lambda x: x.index_select(1, torch.tensor([4, 1]))), (5,)),
    "an axis more and less": (moved(5, 4)(lambda x: x[..., None].flatten(1)), (5,)),
    "unflatten": (moved(6, 4)(lambda x: x.unflatten(1, (2, 3)).mT.flatten(1)), (6,)),
    "hstack": (moved(10, 4)(lambda x: torch.hstack([x, x])), (5,)),
    "0 - x": (moved(5, 4)(lambda x: 0 - (0 - (0 - x))), (5,)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_numbers_that_are_moved_before_a_linear_give_the_modules_spikes(case):
    net, shape = CASES[case]
    verified(net, shape)


@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_layers_of_spikingjelly_follow_what_is_moved(step_mode):
    from spikingjelly.activation_based import functional as stepping
    from spikingjelly.activation_based import layer, neuron

    class Moved(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(3)
            self.flatten, self.a = layer.Flatten(), layer.Linear(18, 4)
            self.dropout, self.out = layer.Dropout(0.5), neuron.IFNode()
            torch.nn.init.uniform_(self.a.weight, -0.3, 0.4)

        def forward(self, x):
            return self.out(self.a(self.dropout(self.flatten(x.movedim(-3, -1)))))

    net = Moved().eval()
    stepping.set_step_mode(net, step_mode)
    x = nets.spikes(2, (2, 3, 3), steps=40, batch=3)
    graph = from_torch(net, torch.zeros(*((4,) if step_mode == "m" else ()), 1, 2, 3, 3))
    with torch.no_grad():
        given = torch.as_tensor(x)
        y = net(given) if step_mode == "m" else torch.stack([net(frame) for frame in given])
    assert 0.02 < y.mean() < 0.98
    assert verify(graph, x, y.numpy()).ok


def test_weights_behind_a_permutation_go_back_into_the_module():
    first, second = channels_last(1), channels_last(2)
    graph, x, y = verified(first, (2, 3, 3))
    assert not graph.warnings
    assert not np.array_equal(nets.snntorch_play(second, x), y)
    load_into(second, graph)
    assert np.array_equal(nets.snntorch_play(second, x), y)
    assert torch.equal(second.c.weight, first.c.weight)


def test_columns_for_one_number_share_its_weight():
    first, second = (
        one_layer(LINEAR, lambda net, x: net.out(net.a(x[:, [3, 0, 0, 4]])), 4, 3) for _ in range(2)
    )
    torch.nn.init.zeros_(second.a.weight)
    graph, x, y = verified(first, (5,))
    load_into(second, graph)
    assert np.array_equal(nets.snntorch_play(second, x), y)
    assert torch.equal(second.a.weight[:, 1], second.a.weight[:, 2])
    assert torch.equal(second.a.weight[:, 3], first.a.weight[:, 3])


def test_weights_of_what_a_module_leaves_out_have_no_place_in_it():
    whole = moved(5, 4)(lambda x: x)
    part = moved(3, 4)(lambda x: x[:, [0, 2, 4]])
    with pytest.raises(ConversionError, match=r"'a' cannot implement node 'a': weight .* is 0 in"):
        load_into(part, from_torch(whole, torch.zeros(1, 5)))


def sorted_by_the_first(spikes):
    return spikes[:, spikes.argsort(1)[0]]


@pytest.mark.parametrize(
    ("forward", "shape", "function"),
    [
        (lambda net, x: net.out(net.a(x)).flip(1), (5,), "flip"),
        (lambda net, x: net.out(net.a(x.flip(0))), (5,), "flip"),
        (lambda net, x: net.out(net.a(x.flip(1)) + x.flip(1)), (5,), "flip"),
        (lambda net, x: net.first(x.mT).flatten(1), (5, 5), "mT"),
        (lambda net, x: net.out(net.a(x).unsqueeze(-1)), (5,), "unsqueeze"),
        (lambda net, x: net.out(net.a(x)[..., None]), (5,), "unsqueeze"),
        (lambda net, x: net.out(net.a(sorted_by_the_first(net.first(x)))), (5,), "argsort"),
        (lambda net, x: net.out(net.a((x + 1).flatten(1))), (1, 1, 1, 5), "add"),
        (lambda net, x: net.out(net.a((x + 1).unsqueeze(1).expand(-1, 5))), (), "add"),
    ],
)
def test_moved_numbers_that_no_linear_takes_are_refused_by_the_name_of_the_function(
    forward, shape, function
):
    net = Wired(forward, a=LINEAR(5, 5), first=leaky())
    with pytest.raises(
        ConversionError, match=rf"computed outside of layers, by torch's {function}"
    ):
        from_torch(net, torch.zeros(1, *shape))


@pytest.mark.parametrize("bias", [True, False])
def test_a_function_with_weights_of_the_module_is_a_linear(bias):
    def forward(net, x):
        given = (net.a.weight, net.a.bias) if bias else (net.a.weight,)
        return net.out(functional.linear(net.first(functional.linear(x, *given)), net.w))

    def made(seed):
        net = Wired(forward, seed, a=LINEAR(4, 3), first=leaky())
        net.w = torch.nn.Parameter(torch.rand(2, 3) - 0.3)
        return net

    first, second = made(0), made(1)
    graph, x, y = verified(first, (4,))
    kinds = [node.type for node in graph.nodes.values() if "weight" in node.names]
    assert kinds == ["Affine" if bias else "Linear", "Linear"]
    load_into(second, graph)
    assert torch.equal(first.w, second.w)
    assert np.array_equal(nets.snntorch_play(second, x), y)


COMPUTED = {
    "scaled": lambda net, x: functional.linear(x, 2 * net.a.weight),
    "masked": lambda net, x: functional.linear(x, net.a.weight * net.ones),
    "part": lambda net, x: x @ net.w[:, 2:],
    "of two": lambda net, x: functional.linear(x, net.v @ net.v.t() @ net.v),
    "normalised": lambda net, x: functional.linear(x, net.v / net.v.norm(dim=1, keepdim=True)),
    "where": lambda net, x: functional.linear(x, torch.where(net.ones > 0, net.v, 0.0) ** 2),
}


@pytest.mark.parametrize("kind", COMPUTED)
def test_weights_that_are_computed_of_parameters_are_those_of_the_module(kind):
    net = with_numbers(COMPUTED[kind])
    x = nets.spikes(3, (4,), steps=60, batch=3)
    graph = from_torch(net, torch.zeros(1, 4))
    y = nets.snntorch_play(net, x)
    assert 0.02 < y.mean() < 0.98
    assert verify(graph, x, y).ok
    load_into(net, graph)  # the same numbers
    with pytest.raises(ConversionError, match=r"'linear': weight is computed before .*parametrize"):
        load_into(with_numbers(COMPUTED[kind], seed=1), graph)


def with_numbers(current, seed=0):
    """A module with parameters and buffers of its own; `current` is what the neurons take."""
    torch.manual_seed(seed)
    net = Wired(lambda net, x: net.out(current(net, x)), seed, a=LINEAR(4, 3))
    net.w, net.v = torch.nn.Parameter(torch.randn(4, 5)), torch.nn.Parameter(torch.randn(3, 4))
    net.b, net.one = torch.nn.Parameter(torch.rand(3)), torch.nn.Parameter(torch.rand(1, 3))
    net.column = torch.nn.Parameter(torch.randn(4, 1))
    net.register_buffer("mask", torch.tensor([1.0, 0.0, 1.0, 0.5]))
    net.register_buffer("ones", (torch.arange(12).reshape(3, 4) % 3 > 0).float())
    return net


def through(net, x):
    """As a pair of layers without a bias."""
    return (x @ net.v.t()) @ net.v @ net.v.mT


#: What load_into puts back, into parameters of the module itself.
PARAMETERS = {
    "matmul": lambda net, x: torch.matmul(x, net.v.t()),
    "bias": lambda net, x: x @ net.v.T + net.b,
    "addmm": lambda net, x: torch.addmm(net.b, x, net.v.t()),
    "tied": through,
    "tied by one": lambda net, x: (x @ net.column) @ net.column.t() @ net.v.t(),
}
#: What is no weight of a layer.
NUMBERS = {
    "mask": lambda net, x: net.a(x * net.mask),
    "gate": lambda net, x: torch.sigmoid(net.b) * net.a(x),
    "over": lambda net, x: net.a(x) / net.one,
    "shift": lambda net, x: net.a(x) - net.b,
    "subtracted": lambda net, x: net.b - net.a(x),
}


@pytest.mark.parametrize("kind", [*PARAMETERS, *NUMBERS])
def test_parameters_and_buffers_of_the_module_are_taken(kind):
    current = (PARAMETERS | NUMBERS)[kind]
    net, other = with_numbers(current), with_numbers(current, seed=kind in PARAMETERS)
    x = 2 * nets.spikes(3, (4,), steps=60, batch=3)
    graph, y = from_torch(net, torch.zeros(1, 4)), nets.snntorch_play(net, x)
    assert 0.02 < y.mean() < 0.98
    assert verify(graph, x, y).ok
    own = [id(parameter) for parameter in other.parameters()]
    load_into(other, graph)
    assert [id(parameter) for parameter in other.parameters()] == own
    assert np.array_equal(nets.snntorch_play(other, x), y)
    shared = [each for each in graph.warnings if each.code == "shared-parameters"]
    assert len(shared) == kind.startswith("tied")


def test_places_of_one_parameter_take_the_same_numbers_alone():
    net = with_numbers(through)
    graph = from_torch(net, torch.zeros(1, 4))
    name = [name for name, node in graph.nodes.items() if node.type == "Linear"][1]
    node = graph.nodes[name]
    weight = np.array(node.value("weight"))
    weight[0, 1] += 0.5
    parted = graph.with_nodes({name: node.replace(weight=weight)})
    with pytest.raises(ConversionError, match="have different numbers, and the module has one wei"):
        load_into(net, parted)


@pytest.mark.parametrize(
    ("current", "by"),
    [
        (lambda net, x: net.a(x) * net.mask[:3].mul_(0.999), "mul"),
        (lambda net, x: net.a(x) * torch.bernoulli(net.b), "mul"),
        (lambda net, x: net.a(x) * net.b.expand(2, 3), "mul"),
        (lambda net, x: net.b / net.a(x), "div"),
        (lambda net, x: net.a(x) + torch.clamp(net.b, min=net.a(x)), "clamp"),
        (lambda net, x: net.a(x) * drift(net.mask)[:3], "mul"),
        (lambda net, x: functional.linear(x, net.v, bias=drift(net.mask)[1:]), "linear"),
        (lambda net, x: functional.linear(x, weight=net.v * drift(net.mask)), "linear"),
        (lambda net, x: torch.add(input=net.a(x), other=net.b), "add"),
    ],
)
def test_numbers_that_are_others_in_each_step_or_sample_are_refused(current, by):
    with pytest.raises(ConversionError, match=f"of layers, by torch's {by}, which"):
        from_torch(with_numbers(current), torch.zeros(2, 4))


def drift(numbers):
    """Where torch counts no change."""
    numbers.data.mul_(0.999999)
    return numbers


LEARNING = {
    "in place": lambda net: net.w.mul_(1.0),
    "data": lambda net: drift(net.w),
    "other data": lambda net: setattr(net.w, "data", 0.999999 * net.w),
    "another": lambda net: setattr(net, "w", torch.nn.Parameter(0.999999 * net.w)),
}


@pytest.mark.parametrize("kind", LEARNING)
def test_a_forward_that_changes_a_parameter_is_refused(kind):
    net = with_numbers(lambda net, x: (LEARNING[kind](net), net.a(x))[1])
    before = net.w.detach().clone()
    with pytest.raises(
        ConversionError, match="forward changes the parameter 'w' in each step, and"
    ):
        from_torch(net, torch.zeros(1, 4))
    assert torch.equal(net.w, before)


@pytest.mark.parametrize("kind", ["plain", "options", "one axis"])
def test_convolutions_by_parameters_of_the_module_are_taken_and_set(kind):
    def current(net, x):
        if kind == "one axis":
            return functional.conv1d(x.flatten(2), net.k[:, :, 0], net.b, 2)
        given = {"stride": 2, "padding": (1, 0), "groups": 2} if kind == "options" else {}
        return functional.conv2d(x, net.k, **given)

    def make(seed):
        torch.manual_seed(seed)
        net = Wired(lambda net, x: net.out(current(net, x)), seed)
        inward = 1 if kind == "options" else 2
        net.k = torch.nn.Parameter(torch.randn(4, inward, 1 if kind == "one axis" else 2, 2))
        net.b = torch.nn.Parameter(torch.rand(4))
        return net

    net, other = make(0), make(1)
    graph, x, y = verified(net, (2, 4, 4))
    load_into(other, graph)
    assert np.array_equal(nets.snntorch_play(other, x), y)


class Weighted(torch.nn.Module):
    """A layer of the user's own."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.weight = torch.nn.Parameter(torch.randn(3, 4))

    def forward(self, x):
        return 2 * (x @ self.weight.t())


class Squared(Weighted):
    def forward(self, x):
        return super().forward(x) ** 2


class Masked(torch.nn.Linear):
    def forward(self, x):
        return functional.linear(x, self.weight * (self.weight > 0), self.bias)


def test_layers_of_the_users_own_are_taken_by_what_they_compute():
    net, other = (torch.nn.Sequential(Weighted(seed), leaky()) for seed in (0, 1))
    graph, x, y = verified(net, (4,))
    load_into(other, graph)
    assert np.array_equal(nets.snntorch_play(other, x), y)
    verified(torch.nn.Sequential(Masked(4, 3), leaky()), (4,))
    with pytest.raises(ConversionError, match="'0' is a Squared, which is not supported"):
        from_torch(torch.nn.Sequential(Squared(0), leaky()), torch.zeros(1, 4))
    with pytest.raises(ConversionError, match="the module has no neurons: use"):
        from_torch(Weighted(0), torch.zeros(1, 4))


def test_parameters_of_the_module_itself_in_half_precision_are_refused():
    net = torch.nn.Sequential(Weighted(0).half(), leaky())
    with pytest.raises(ConversionError, match=r"computes in torch\.float16"):
        from_torch(net, torch.zeros(1, 4).half())


@pytest.mark.parametrize(
    "current",
    [
        lambda net, x: net.a(x.mul_(net.mask)),
        lambda net, x: (net.a.weight.data.clamp_(-0.3, 0.3), net.a(x))[1],
    ],
)
def test_a_forward_may_change_its_input_and_bound_its_weights(current):
    net, sample = with_numbers(current), torch.ones(1, 4)
    graph = from_torch(net, sample)
    assert torch.equal(sample, torch.ones(1, 4))
    x = nets.spikes(3, (4,), steps=60, batch=3)
    assert verify(graph, x, nets.snntorch_play(net, x.copy())).ok


def drifting(net, x):
    net.mask = net.mask * 0.9999999
    return net.a(x * net.mask)


def late_by_two(net, x):
    """Spikes of two steps before, in buffers that begin as zeros; none show it where none are fired."""
    spikes = net.out(net.a(x) - net.second)
    net.second, net.first = net.first, spikes
    return spikes


def test_a_buffer_that_others_take_the_place_of_is_no_fixed_number():
    net = with_numbers(None)
    net.wired, net.out = late_by_two, leaky(threshold=1e9)
    net.register_buffer("first", torch.zeros(3))
    net.register_buffer("second", torch.zeros(3))
    with pytest.raises(ConversionError, match=r"input of 'out' .*, by torch's sub, which"):
        from_torch(net, torch.zeros(1, 4))


def test_a_buffer_that_forward_replaces_is_no_fixed_number():
    with pytest.raises(ConversionError, match=r"input of 'a' .*, by torch's mul, which"):
        from_torch(with_numbers(drifting), torch.zeros(1, 4))


def returned(what):
    """A module that returns something beside its spikes."""

    def forward(net, x):
        spikes, membrane = net.out(net.a(x))
        return spikes, what(net, x, spikes, membrane)

    return Wired(forward, a=LINEAR(4, 3), out=leaky(output=True))


@pytest.mark.parametrize(
    ("what", "shape", "by"),
    [
        (lambda net, x, spikes, membrane: spikes.sum(0), "(3,)", " by torch's sum"),
        (lambda net, x, spikes, membrane: 2 * membrane, "(1, 3)", " by torch's mul"),
        (lambda net, x, spikes, membrane: [None, torch.exp(net.a.weight)], "(3, 4)", ""),
        (lambda net, x, spikes, membrane: spikes.numpy().mean(1), "(1,)", ""),
        (lambda net, x, spikes, membrane: membrane + 1, "(1, 3)", " by torch's add"),
    ],
)
def test_what_is_returned_beside_the_spikes_and_left_out_is_said(what, shape, by):
    graph = from_torch(returned(what), torch.zeros(1, 4))
    assert [problem.code for problem in graph.warnings] == ["left-out"]
    said = f"beside its output: tensor 2, of shape {shape}, computed outside of layers{by}"
    assert graph.warnings[0].message.endswith(said)
    assert graph.warnings[0] in check(graph, "norse").problems


def test_an_input_that_is_returned_is_said():
    graph = from_torch(returned(lambda net, x, spikes, membrane: x), torch.zeros(1, 4))
    assert graph.warnings[0].message.endswith("tensor 2, of shape (1, 4), its input")


@pytest.mark.parametrize(
    "what",
    [
        lambda net, x, spikes, membrane: membrane,
        lambda net, x, spikes, membrane: membrane.detach().clone(),
        lambda net, x, spikes, membrane: 2 * spikes,
        lambda net, x, spikes, membrane: [],
    ],
)
def test_states_and_what_the_graph_gives_are_left_out_without_a_word(what):
    assert not from_torch(returned(what), torch.zeros(1, 4)).warnings


def test_a_synaptic_current_without_its_gradient_is_a_state():
    import snntorch

    class Stated(Wired):
        def forward(self, x, current=None, membrane=None):
            spikes, current, membrane = self.out(self.a(x), current, membrane)
            return spikes, current.detach(), membrane.detach()

    net = Stated(None, a=LINEAR(4, 3), out=snntorch.Synaptic(alpha=0.8, beta=0.9))
    assert not from_torch(net, torch.zeros(1, 4)).warnings


def test_a_sum_with_spikes_that_go_on_is_an_output():
    def forward(net, x):
        spikes = net.first(net.a(x))
        return net.out(net.b(spikes)), spikes + x

    net = Wired(forward, a=LINEAR(4, 4), b=LINEAR(4, 3), first=leaky())
    graph = from_torch(net, torch.zeros(1, 4))
    assert graph.outputs == ("output_first_", "output_out")


def test_what_grows_from_step_to_step_is_refused():
    def forward(net, x):
        net.said.append(net.out(net.a(x)))
        return net.said[-1], torch.stack(net.said)

    net = Wired(forward, a=LINEAR(4, 3))
    net.said = []
    message = r"tensor 2 that forward of Wired returns has different shapes .*\(1, 1, 3\)"
    with pytest.raises(ConversionError, match=message):
        from_torch(net, torch.zeros(1, 4))
