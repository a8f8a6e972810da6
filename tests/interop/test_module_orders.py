"""from_torch: weights follow numbers that forward moves before a Linear; what else it takes and gives."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from jaxsnn import check, from_torch, load_into, verify
from jaxsnn.errors import ConversionError
from tests.helpers.refusals import assert_refused
from tests.interop import nets
from tests.interop.modules import (
    Wired,
    assert_loads,
    assert_no_graph,
    leaky,
    low_leaky,
    play_all_steps,
    round_trip,
    type_counts,
    verified,
)

pytestmark = pytest.mark.interop
LINEAR, CONV = nn.Linear, nn.Conv2d


def channels_last(seed=0):
    """As networks of TensorFlow are carried over: features flattened as (H, W, C)."""

    def forward(net, x):
        spikes = net.first(net.a(x)).permute(0, 2, 3, 1)
        return net.out(net.c(net.dropout(net.flatten(spikes))))

    layers = {"a": CONV(2, 3, 2), "first": low_leaky(), "c": LINEAR(12, 4)}
    return Wired(forward, seed, **layers, flatten=nn.Flatten(), dropout=nn.Dropout(0.0))


def moved(*sizes):
    """A Linear behind a function."""
    return lambda move: Wired(lambda net, x: net.out(net.a(move(x))), a=LINEAR(*sizes))


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

    def forward(net, x):
        return net.out(net.a(net.dropout(net.flatten(x.movedim(-3, -1)))))

    layers = {"flatten": layer.Flatten(), "a": layer.Linear(18, 4), "dropout": layer.Dropout(0.5)}
    net = Wired(forward, 3, **layers, out=neuron.IFNode()).eval()
    stepping.set_step_mode(net, step_mode)
    play = play_all_steps if step_mode == "m" else nets.spikingjelly_play
    sample = torch.zeros(*((4,) if step_mode == "m" else ()), 1, 2, 3, 3)
    verified(net, (2, 3, 3), 2, play=play, sample=sample)


def test_weights_behind_a_permutation_go_back_into_the_module():
    graph, first, second, _ = round_trip(channels_last, (2, 3, 3))
    assert not graph.warnings
    assert torch.equal(second.c.weight, first.c.weight)


def test_columns_for_one_number_share_its_weight():
    first, second = (moved(4, 3)(lambda x: x[:, [3, 0, 0, 4]]) for _ in range(2))
    nn.init.zeros_(second.a.weight)
    assert_loads(second, *verified(first, (5,)))
    assert torch.equal(second.a.weight[:, 1], second.a.weight[:, 2])
    assert torch.equal(second.a.weight[:, 3], first.a.weight[:, 3])


def test_weights_of_what_a_module_leaves_out_have_no_place_in_it():
    graph = from_torch(moved(5, 4)(lambda x: x), torch.zeros(1, 5))
    part = moved(3, 4)(lambda x: x[:, [0, 2, 4]])
    message = r"'a' cannot implement node 'a': weight is 0 in the module"
    assert_refused(lambda: load_into(part, graph), ConversionError, message)


def sum_with_reversed(layer, spikes):
    return layer(spikes) + spikes.flip(1)


def sorted_by_the_first(spikes):
    return spikes[:, spikes.argsort(1)[0]]


@pytest.mark.parametrize(
    ("forward", "shape", "function"),
    [
        (lambda net, x: net.out(net.a(net.first(x).flip(0))), (5,), "flip"),
        (lambda net, x: net.out(sum_with_reversed(net.a, net.first(x))), (5,), "flip"),
        (lambda net, x: net.out(net.first(x).mT).flatten(1), (5, 5), "mT"),
        (lambda net, x: net.out(net.first(x).permute(0, 2, 1)), (2, 5), "permute"),
        (lambda net, x: net.out(net.a(sorted_by_the_first(net.first(x)))), (5,), "argsort"),
        (lambda net, x: net.out(net.a((net.first(x) + 1).flatten(1))), (1, 1, 1, 5), "add"),
        (lambda net, x: net.out(net.a((net.first(x) + 1).unsqueeze(1).expand(-1, 5))), (), "add"),
    ],
)
def test_moved_numbers_that_no_linear_takes_are_refused_by_the_name_of_the_function(
    forward, shape, function
):
    net = Wired(forward, a=LINEAR(5, 5), first=low_leaky())
    assert_no_graph(net, shape, rf"computed outside of layers, by torch's {function}")


@pytest.mark.parametrize("bias", [True, False])
def test_a_function_with_weights_of_the_module_is_a_linear(bias):
    def forward(net, x):
        parameters = (net.a.weight, net.a.bias) if bias else (net.a.weight,)
        return net.out(functional.linear(net.first(functional.linear(x, *parameters)), net.w))

    def make(seed):
        net = Wired(forward, seed, a=LINEAR(4, 3), first=low_leaky())
        net.w = nn.Parameter(torch.rand(2, 3) - 0.3)
        return net

    graph, first, second, _ = round_trip(make, (4,))
    types = {"Affine": 1, "Linear": 1} if bias else {"Linear": 2}
    assert type_counts(graph) == {"Input": 1, "LIF": 2, "Output": 1, **types}
    assert torch.equal(first.w, second.w)


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
    net, target = (with_numbers(COMPUTED[kind], seed) for seed in (0, 1))
    graph, _, _ = verified(net, (4,), 3, steps=60)
    load_into(net, graph)  # the same numbers
    function = r"'(linear|matmul) \(test_module_orders\.py, line \d+\)'"
    message = rf"{function}: weight is computed before each call, .*parametrize"
    assert_refused(lambda: load_into(target, graph), ConversionError, message)


def with_numbers(current, seed=0):
    """A module with parameters and buffers of its own; `current` is what the neurons take."""
    torch.manual_seed(seed)
    net = Wired(lambda net, x: net.out(current(net, x)), seed, a=LINEAR(4, 3))
    net.w, net.v = nn.Parameter(torch.randn(4, 5)), nn.Parameter(torch.randn(3, 4))
    net.b, net.row = nn.Parameter(torch.rand(3)), nn.Parameter(torch.rand(1, 3))
    net.column = nn.Parameter(torch.randn(4, 1))
    net.register_buffer("mask", torch.tensor([1.0, 0.0, 1.0, 0.5]))
    net.register_buffer("ones", (torch.arange(12).reshape(3, 4) % 3 > 0).float())
    return net


def through(net, x):
    """As a pair of layers without a bias."""
    return (x @ net.v.t()) @ net.v @ net.v.mT


#: Computations with parameters of the module that load_into can set.
PARAMETERS = {
    "matmul": lambda net, x: torch.matmul(x, net.v.t()),
    "bias": lambda net, x: x @ net.v.T + net.b,
    "addmm": lambda net, x: torch.addmm(net.b, x, net.v.t()),
    "tied": through,
    "tied by one": lambda net, x: (x @ net.column) @ net.column.t() @ net.v.t(),
}
#: Computations with numbers that are not weights of a layer.
NUMBERS = {
    "mask": lambda net, x: net.a(x * net.mask),
    "gate": lambda net, x: torch.sigmoid(net.b) * net.a(x),
    "over": lambda net, x: net.a(x) / net.row,
    "shift": lambda net, x: net.a(x) - net.b,
    "subtracted": lambda net, x: net.b - net.a(x),
}


@pytest.mark.parametrize("kind", [*PARAMETERS, *NUMBERS])
def test_parameters_and_buffers_of_the_module_are_taken(kind):
    current = (PARAMETERS | NUMBERS)[kind]
    net, target = with_numbers(current), with_numbers(current, seed=kind in PARAMETERS)
    x = 2 * nets.spikes(3, (4,), steps=60, batch=3)
    graph, y = from_torch(net, torch.zeros(1, 4)), nets.snntorch_play(net, x)
    assert 0.02 < y.mean() < 0.98
    assert verify(graph, x, y).ok
    parameters = [id(parameter) for parameter in target.parameters()]
    assert_loads(target, graph, x, y)
    assert [id(parameter) for parameter in target.parameters()] == parameters
    codes = [warning.code for warning in graph.warnings]
    assert codes.count("shared-parameters") == kind.startswith("tied")


def test_places_of_one_parameter_take_the_same_numbers_alone():
    net = with_numbers(through)
    graph = from_torch(net, torch.zeros(1, 4))
    _, node, *_ = [node for node in graph.nodes.values() if node.type == "Linear"]
    weight = np.array(node.value("weight"))
    weight[0, 1] += 0.5
    parted = graph.with_nodes([node.replace(weight=weight)])
    message = "have different parameters, and the module has one wei"
    assert_refused(lambda: load_into(net, parted), ConversionError, message)


@pytest.mark.parametrize(
    ("current", "by"),
    [
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
    message = f"of layers, by torch's {by}, which"
    net, sample = with_numbers(lambda net, x: current(net, net.first(x))), torch.zeros(2, 4)
    net.first = low_leaky()
    assert_refused(lambda: from_torch(net, sample), ConversionError, message)


def test_buffers_that_each_step_multiplies_in_place_are_refused():
    net = with_numbers(lambda net, x: net.a(x) * net.mask[:3].mul_(0.999))
    message = "'out' .*is computed"
    assert_refused(lambda: from_torch(net, torch.zeros(2, 4)), ConversionError, message)


def drift(numbers):
    """Where torch counts no change."""
    numbers.data.mul_(0.999999)
    return numbers


LEARNING = {
    "in place": lambda net: net.w.mul_(1.0),
    "data": lambda net: drift(net.w),
    "other data": lambda net: setattr(net.w, "data", 0.999999 * net.w),
    "another": lambda net: setattr(net, "w", nn.Parameter(0.999999 * net.w)),
}


@pytest.mark.parametrize("kind", LEARNING)
def test_a_forward_that_changes_a_parameter_is_refused(kind):
    net = with_numbers(lambda net, x: (LEARNING[kind](net), net.a(x))[1])
    before = net.w.detach().clone()
    assert_no_graph(net, (4,), "forward changes the parameter 'w' in each time step, and")
    assert torch.equal(net.w, before)


CONVOLUTIONS = {
    "plain": lambda net, x: functional.conv2d(x, net.k),
    "options": lambda net, x: functional.conv2d(x, net.k, stride=2, padding=(1, 0), groups=2),
    "one axis": lambda net, x: functional.conv1d(x.flatten(2), net.k[:, :, 0], net.b, 2),
}


@pytest.mark.parametrize(
    ("kind", "size"),
    [("plain", (4, 2, 2, 2)), ("options", (4, 1, 2, 2)), ("one axis", (4, 2, 1, 2))],
)
def test_convolutions_by_parameters_of_the_module_are_taken_and_set(kind, size):
    def make(seed):
        torch.manual_seed(seed)
        net = Wired(lambda net, x: net.out(CONVOLUTIONS[kind](net, x)), seed)
        net.k, net.b = nn.Parameter(torch.randn(size)), nn.Parameter(torch.rand(4))
        return net

    round_trip(make, (2, 4, 4))


class Weighted(nn.Module):
    """A layer of the user's own."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(3, 4))

    def forward(self, x):
        return 2 * (x @ self.weight.t())


class Squared(Weighted):
    def forward(self, x):
        return super().forward(x) ** 2


class Masked(nn.Linear):
    def forward(self, x):
        return functional.linear(x, self.weight * (self.weight > 0), self.bias)


def test_layers_of_the_users_own_are_taken_by_what_they_compute():
    round_trip(lambda seed: nn.Sequential(Weighted(seed), low_leaky()), (4,))
    verified(nn.Sequential(Masked(4, 3), low_leaky()), (4,))
    squared = nn.Sequential(low_leaky(), Squared(0), low_leaky())
    assert_no_graph(squared, (4,), "'1' is a Squared, which is not supported")
    assert_no_graph(Weighted(0), (4,), "the module has no neurons: use")


def test_parameters_of_the_module_itself_in_half_precision_are_refused():
    net, sample = nn.Sequential(Weighted(0).half(), low_leaky()), torch.zeros(1, 4).half()
    message = r"computes in torch\.float16"
    assert_refused(lambda: from_torch(net, sample), ConversionError, message)


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
    assert_no_graph(net, (4,), "'out' receives a tensor that was computed 2 time steps before")


def test_a_buffer_that_forward_replaces_is_no_fixed_number():
    def drifting(net, x):
        net.mask = net.mask * 0.9999999
        return net.a(net.first(x) * net.mask)

    net = with_numbers(drifting)
    net.first = low_leaky()
    assert_no_graph(net, (4,), r"input of 'a' .*, by torch's mul, which")


def returning(beside):
    """A module that returns something beside its spikes."""

    def forward(net, x):
        spikes, membrane = net.out(net.a(x))
        return spikes, beside(net, x, spikes, membrane)

    return Wired(forward, a=LINEAR(4, 3), out=low_leaky(output=True))


OUTSIDE = "computed outside of layers"
OF_THE_NEURON = "computed from spikes or states of 'out' that are no outputs of the graph"


@pytest.mark.parametrize(
    ("beside", "shape", "origin"),
    [
        (lambda net, x, spikes, membrane: 2 * membrane, "(1, 3)", OF_THE_NEURON),
        (lambda net, x, spikes, membrane: spikes.numpy().mean(1), "(1,)", OUTSIDE),
        (lambda net, x, spikes, membrane: membrane + 1, "(1, 3)", OF_THE_NEURON),
        (lambda net, x, spikes, membrane: x, "(1, 4)", "its input"),
    ],
)
def test_a_tensor_that_is_returned_beside_the_spikes_and_left_out_is_a_warning(
    beside, shape, origin
):
    graph = from_torch(returning(beside), torch.zeros(1, 4))
    (warning,) = [warning for warning in graph.warnings if warning.severity == "warning"]
    assert warning.code == "left-out"
    assert f"besides its output: tensor 2, of shape {shape}, {origin}" in warning.message
    assert warning in check(graph, "norse").problems


@pytest.mark.parametrize(
    "beside",
    [
        lambda net, x, spikes, membrane: membrane,
        lambda net, x, spikes, membrane: membrane.detach().clone(),
        lambda net, x, spikes, membrane: 2 * spikes,
        lambda net, x, spikes, membrane: [],
    ],
)
def test_states_and_what_the_graph_gives_are_left_out_without_a_warning(beside):
    assert not from_torch(returning(beside), torch.zeros(1, 4)).warnings


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

    net = Wired(forward, a=LINEAR(4, 4), b=LINEAR(4, 3), first=low_leaky())
    graph = from_torch(net, torch.zeros(1, 4))
    assert graph.outputs == ("output_first_", "output_out")


def test_a_result_that_grows_from_step_to_step_is_omitted_with_a_note():
    def forward(net, x):
        net.history.append(net.out(net.a(x)))
        return net.history[-1], torch.stack(net.history)

    net = Wired(forward, a=LINEAR(4, 3))
    net.history = []
    (warning,) = from_torch(net, torch.zeros(1, 4)).warnings
    assert warning.code == "outside-graph"
    assert "stack after its outputs" in warning.message
