"""from_torch: the usual layers give the module's own spikes; what no graph can hold is refused."""

import functools

import numpy as np
import pytest
import snntorch as snn
import torch
from torch import nn
from torch.nn import functional

from jaxsnn import check, convert, from_torch, load_into, verify
from jaxsnn.errors import ConversionError
from tests.helpers.refusals import assert_refused
from tests.interop import nets
from tests.interop.modules import (
    Wired,
    assert_loads,
    assert_no_graph,
    body,
    leaky,
    low_leaky,
    play_all_steps,
    play_with_states,
    round_trip,
    type_counts,
    verified,
)

pytestmark = pytest.mark.interop
TARGETS = ("norse", "snntorch", "spikingjelly")
AT_ONCE = {"reset_mechanism": "zero", "reset_delay": False}


def with_skip_connections():
    """Adds the input of a block to its output; joins axes by view; pools by functions."""

    def forward(net, x):
        spikes = functional.max_pool2d(net.first(net.conv(x)), 2)
        more = net.second(net.more(spikes) + spikes)
        spikes, more = net.pool(spikes), net.pool(more)
        spikes, more = spikes.view(spikes.size(0), -1), torch.flatten(more, 1)
        current = net.fc(net.dropout(more))
        current += net.straight(spikes)
        return net.out(current)

    layers = {"conv": nn.Conv2d(1, 3, 3, padding=1), "more": nn.Conv2d(3, 3, 3, padding=1)}
    layers |= {"fc": nn.Linear(12, 4), "straight": nn.Linear(12, 4), "pool": nn.AvgPool2d(2)}
    neurons = {"first": low_leaky(), "second": low_leaky()}
    return Wired(forward, 3, **layers, **neurons, dropout=nn.Dropout(0.5)).eval()


def reshaped():
    """The last two axes become one, by their sizes."""

    def forward(net, x):
        return net.out(net.fc(net.first(net.conv(x)).reshape(len(x), 18)))

    return Wired(forward, conv=nn.Conv1d(2, 3, 3), fc=nn.Linear(18, 4), first=low_leaky())


def batch_normalised(bias):
    return body(
        nn.Conv2d(1, 3, 3, bias=bias), nn.BatchNorm2d(3), leaky(), nn.Flatten(),
        nn.Linear(48, 4, bias=bias), nn.BatchNorm1d(4), nn.Dropout(0.3), leaky(),
    )  # fmt: skip


def rounding_up(kind, kernel=3):
    """A pool with ceil_mode, which changes nothing behind a kernel of 3."""
    pool = kind(2, ceil_mode=True)
    return body(
        nn.Conv2d(1, 3, kernel), leaky(), pool, nn.Flatten(), nn.Linear(27, 4), leaky()
    )  # fmt: skip


def pools_of_one_axis(first, second):
    convolution = nn.Conv1d(2, 3, 3, padding=1)
    return body(first, convolution, leaky(), second, nn.Flatten(), nn.Linear(9, 4), leaky(), seed=1)


def largest_of_windows():
    return body(
        nn.Conv2d(1, 3, 3), leaky(), nn.MaxPool2d(3, stride=2, padding=1), nn.Flatten(), nn.Linear(27, 4), leaky()
    )  # fmt: skip


def padded(axes):
    """Pads its sides by different widths, and takes away at one."""

    def forward(net, x):
        return net.out(
            net.b(functional.pad(net.first(net.a(net.pad(x))), (0, 2, 1, -1)[: 2 * axes]))
        )

    kind = [nn.Conv1d, nn.Conv2d][axes - 1]
    pad = [nn.ZeroPad1d((2, 1)), nn.ZeroPad2d((1, 0, 0, 3))][axes - 1]
    return Wired(forward, 4, pad=pad, a=kind(2, 3, 3), b=kind(3, 2, 3), first=low_leaky())


def scaled(net, x):
    """Divide the input and multiply currents."""
    return net.out(0.5 * net.b(3 * net.first(net.a(x / 0.3) * 2.0)))


def scaled_in_place(net, x):
    current = net.a(x / 0.3)
    current *= 2.0
    spikes = net.b(net.first(current).mul_(3))
    spikes.div_(2)
    return net.out(spikes)


def with_scales(forward):
    neurons = {"first": leaky(threshold=0.4), "out": leaky(threshold=0.2, reset_mechanism="zero")}
    return Wired(forward, a=nn.Linear(5, 8), b=nn.Linear(8, 3), **neurons)


#: Module, shape of a sample, and numbers of nodes of some types in its graph.
LAYERS = {
    "sums, flattens and pools": (
        with_skip_connections, (1, 8, 8), {"Threshold": 1, "AvgPool2d": 2, "Flatten": 2},
    ),
    "a reshape that joins axes": (reshaped, (2, 8), {"Flatten": 1}),
    "batch normalisation": (
        functools.partial(batch_normalised, True), (1, 6, 6),
        {"LIF": 2, "Conv2d": 1, "Affine": 1, "Flatten": 1, "Scale": 0},
    ),
    "batch normalisation without biases": (
        functools.partial(batch_normalised, False), (1, 6, 6),
        {"LIF": 2, "Conv2d": 1, "Affine": 1, "Flatten": 1, "Scale": 0},
    ),
    "mean, no need to round up": (
        functools.partial(rounding_up, nn.AvgPool2d), (1, 8, 8), {"AvgPool2d": 1},
    ),
    "largest, no need to round up": (
        functools.partial(rounding_up, nn.MaxPool2d), (1, 8, 8), {"Threshold": 1},
    ),
    "pools of one axis": (
        lambda: pools_of_one_axis(nn.AvgPool1d(2), nn.MaxPool1d(3, stride=2, padding=1)),
        (2, 12), {"Threshold": 1},
    ),
    "an adaptive pool of one axis": (
        lambda: pools_of_one_axis(nn.AdaptiveAvgPool1d(6), nn.MaxPool1d(2)),
        (2, 12), {"Threshold": 1},
    ),
    "zeros around one axis": (functools.partial(padded, 1), (2, 6), {}),
    "zeros around two axes": (functools.partial(padded, 2), (2, 6, 7), {}),
    "largest of windows": (largest_of_windows, (1, 7, 7), {"Threshold": 1}),
    "factors": (lambda: with_scales(scaled), (5,), {"Scale": 4}),
    "factors in place": (lambda: with_scales(scaled_in_place), (5,), {"Scale": 4}),
}  # fmt: skip


@pytest.mark.parametrize("case", LAYERS)
def test_layers_give_the_modules_spikes(case):
    make, shape, expected = LAYERS[case]
    graph, _, _ = verified(make(), shape)
    types = type_counts(graph)
    assert {kind: types[kind] for kind in expected} == expected


def test_a_sum_of_two_projections_has_both_as_sources():
    graph = from_torch(with_skip_connections(), torch.zeros(1, 1, 8, 8))
    assert {source for source, target in graph.edges if target == "out"} == {"fc", "straight"}


def test_factors_in_place_do_the_same():
    x = nets.spikes(5, steps=40, batch=4)
    plain, in_place = (nets.snntorch_play(with_scales(net), x) for net in (scaled, scaled_in_place))
    assert np.array_equal(plain, in_place)


def test_the_event_engine_refuses_the_largest_of_a_window():
    graph = from_torch(largest_of_windows(), torch.zeros(1, 1, 7, 7))
    (problem,) = [entry for entry in check(graph, "event").problems if entry.severity == "error"]
    assert problem.node == "2"
    assert "AvgPool2d" in problem.fix


class Stateful(nn.Module):
    """Takes its membranes and returns them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.fc1, self.fc2 = nn.Linear(5, 8), nn.Linear(8, 3)
        self.lif1, self.lif2 = leaky(init_hidden=False), leaky(init_hidden=False)
        with torch.no_grad():
            self.fc1.weight.mul_(3)
            self.fc2.weight.mul_(3)

    def forward(self, x, mem1=None, mem2=None):
        mem1 = self.lif1.reset_mem() if mem1 is None else mem1
        mem2 = self.lif2.reset_mem() if mem2 is None else mem2
        spikes, mem1 = self.lif1(self.fc1(x), mem1)
        spikes, mem2 = self.lif2(self.fc2(spikes), mem2)
        return spikes, mem1, mem2


class Forgetful(Stateful):
    """Starts anew in each call."""

    def forward(self, x):
        return super().forward(x)[0]


class ResetRecurrent(nn.Module):
    """Recurrent neurons that forward resets before each call."""

    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(5, 3), snn.RLeaky(beta=0.8, linear_features=3)

    def forward(self, x):
        return self.lif(self.fc(x), *self.lif.reset_mem())[0]


class Loop(Stateful):
    """Runs through time in its own forward pass."""

    def forward(self, x):
        spikes = mem1 = mem2 = None
        for _ in range(3):
            spikes, mem1, mem2 = super().forward(x, mem1, mem2)
        return spikes


class Frames(Stateful):
    """Runs through the steps of its input, as the tutorials of snnTorch do."""

    def forward(self, x):
        mem1, mem2, outputs = None, None, []
        for frame in x:
            spikes, mem1, mem2 = super().forward(frame, mem1, mem2)
            outputs.append(spikes)
        return torch.stack(outputs)


class Indexed(Frames):
    def forward(self, x):
        return super().forward([x[step] for step in range(len(x))])


@pytest.mark.parametrize("kind", [Loop, Frames, Indexed])
def test_a_module_that_loops_over_time_is_read_and_loaded(kind):
    net, sample = kind(), torch.ones(1, 5) if kind is Loop else torch.ones(4, 1, 5)
    graph = from_torch(net, sample)
    assert set(graph.edges) == set(from_torch(Stateful(), torch.ones(1, 5)).edges)
    with torch.no_grad():
        net.fc1.weight.zero_()
    assert not verify(graph, net, sample).ok
    load_into(net, graph)
    np.testing.assert_array_equal(net.fc1.weight.detach(), graph.nodes["fc1"].value("weight"))
    assert verify(graph, net, sample).ok


def test_membranes_that_forward_takes_and_returns_are_states():
    verified(Stateful(), (5,), 4, play=play_with_states)


class ReturnsMembrane(Stateful):
    """A readout that resets, which seldom spikes."""

    def forward(self, x, mem1=None, mem2=None):
        _, mem1, mem2 = super().forward(x, mem1, mem2)
        return mem2, mem1, mem2


@pytest.mark.parametrize("gain", [0.1, 1.0])
def test_the_membrane_of_a_neuron_that_resets_is_an_output(gain):
    net, x = ReturnsMembrane(), nets.spikes(4, steps=40)
    with torch.no_grad():
        net.fc2.weight.mul_(gain)
    assert verify(from_torch(net, torch.zeros(1, 5)), x, play_with_states(net, x)).ok


class KeepsStates(Stateful):
    """Keeps its membranes in attributes, which there are from the first step on."""

    def forward(self, x):
        spikes, self.mem1 = self.lif1(self.fc1(x), getattr(self, "mem1", None))
        spikes, self.mem2 = self.lif2(self.fc2(spikes), getattr(self, "mem2", None))
        return spikes


class KeepsAList(Stateful):
    def __init__(self):
        super().__init__()
        self.mems = [None, None]

    def forward(self, x):
        spikes, self.mems[0] = self.lif1(self.fc1(x), self.mems[0])
        spikes, self.mems[1] = self.lif2(self.fc2(spikes), self.mems[1])
        return spikes


@pytest.mark.parametrize("module", [KeepsStates, KeepsAList])
def test_states_in_attributes_of_the_module_begin_anew_and_do_not_stay(module):
    def first_state(net):
        return vars(net).get("mem1", getattr(net, "mems", [None])[0])

    net, x = module(), nets.spikes(4, steps=40, batch=3)
    graph = from_torch(net, torch.ones(3, 5))
    load_into(net, graph)
    assert not hasattr(net, "mem1")
    assert getattr(net, "mems", [None, None]) == [None, None]
    with torch.no_grad():
        y = torch.stack([net(frame) for frame in torch.as_tensor(x)]).numpy()
    assert 0.02 < y.mean() < 0.98
    assert verify(graph, x, y).ok
    state = first_state(net)
    message = "let the layers keep their states from call to call"
    assert_refused(lambda: from_torch(net, torch.ones(3, 5)), ConversionError, message)
    assert first_state(net) is state


def test_a_module_for_one_size_of_batch():
    net = Wired(lambda net, x: net.out(net.fc(x.view(6, -1))), fc=nn.Linear(8, 3))
    graph = from_torch(net, torch.zeros(6, 2, 4))
    assert tuple(graph.nodes["input"].shape) == (2, 4)


def clamped_in_place(net, x):
    return net.out(net.fc(net.states(x)[0]).clamp_(max=0.5))


def doubled_through_data(net, x):
    """Change numbers so that torch does not count it."""
    current = net.fc(x)
    current.data.mul_(2)
    return net.out(current)


def membrane_of_a_loop():
    lif = snn.RLeaky(beta=0.8, linear_features=8, init_hidden=True, output=True)
    return Wired(lambda net, x: net.out(net.lif(net.fc(x))[1]), fc=nn.Linear(5, 8), lif=lif)


def of_one_linear(forward):
    return Wired(forward, fc=nn.Linear(5, 8), b=nn.Linear(8, 3), states=leaky(init_hidden=False))


@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        (ResetRecurrent(), (5,), r"forward resets the states of 'lif' \(RLeaky\) before each call"),
        (of_one_linear(clamped_in_place), (5,), "input of 'out' .* by torch's clamp, which is not"),
        (of_one_linear(doubled_through_data), (5,), r"changes the output of a layer through \.data"),
        (membrane_of_a_loop(), (5,), "forward uses the membrane of 'lif', whose spikes are fed back to it"),
        (body(nn.Linear(5, 3), snn.RLeaky(beta=0.8, linear_features=3, init_hidden=True,
                                          reset_mechanism="none"), nn.Linear(3, 2), leaky()), (5,),
         "'1' .RLeaky. emits spikes and never resets"),
        (body(nn.Linear(5, 3), nn.Dropout(), leaky()).train(), (5,), "call module.eval"),
        (body(nn.Linear(5, 3), nn.BatchNorm1d(3), leaky()).train(), (5,), "call module.eval"),
        (body(leaky(), nn.Softmax(-1), leaky()), (2, 5), "'1' is a Softmax"),
        (rounding_up(nn.AvgPool2d, 4), (1, 8, 8), "'2' uses ceil_mode"),
        (rounding_up(nn.MaxPool2d, 4), (1, 8, 8), "'2' uses ceil_mode"),
        (body(nn.Conv2d(1, 3, 3), leaky(), nn.AdaptiveAvgPool2d(4), leaky()), (1, 8, 8),
         r"'2' .* reduces \(6, 6\) to \(4, 4\) with windows of"),
        (body(leaky(), nn.AdaptiveAvgPool1d(5), nn.Conv1d(2, 3, 2), leaky()), (2, 12),
         r"reduces \(12,\) to \(5,\) with windows of different sizes"),
        (body(leaky(), nn.AvgPool1d(3, padding=1, count_include_pad=False), nn.Conv1d(2, 3, 2), leaky()),
         (2, 12), "'1' uses ceil_mode, divisor_override"),
        (body(leaky(), nn.ConstantPad1d(1, 0.5), nn.Conv1d(2, 3, 2), leaky()), (2, 4),
         r"'1' \(ConstantPad1d\) pads with 0.5, and NIR pads with"),
    ],
)  # fmt: skip
def test_what_no_graph_can_hold_is_refused(module, shape, message):
    sample = torch.ones(1, *shape)
    assert_refused(lambda: from_torch(module, sample), ConversionError, message)


def test_alpha_neurons_without_a_reset_are_a_readout():
    import snntorch

    decays = {"alpha": torch.tensor([0.9, 0.8, 0.5]), "beta": torch.tensor([0.7, 0.75, 0.4])}
    options = {"reset_mechanism": "none", "init_hidden": True, "output": True}
    net = body(nn.Linear(5, 8), leaky(), nn.Linear(8, 3), snntorch.Alpha(**decays, **options))
    x = nets.spikes(3, steps=40, batch=3)
    graph = from_torch(net, torch.zeros(1, 5))
    net[1].reset_mem()
    net[3].reset_mem()
    y = np.stack([net(frame)[-1].detach().numpy() for frame in torch.as_tensor(x)])
    outcome = verify(graph, x, y)
    assert outcome.ok
    assert outcome.relative_rmse is not None


def weighted(layer):
    torch.manual_seed(7)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -0.5, 1.2)
    return layer


def recurrent_norse():
    import norse.torch as norse

    parameters = norse.LIFParameters(v_th=torch.tensor(0.3))
    cell = norse.LIFRecurrentCell(5, 8, p=parameters)
    return norse.SequentialState(weighted(cell), weighted(norse.LILinearCell(8, 3)))


def lifted_norse():
    """Layers of Norse that run through time themselves."""
    import norse.torch as norse

    return norse.SequentialState(
        norse.Lift(weighted(nn.Conv2d(1, 2, 3))),
        norse.LIF(norse.LIFParameters(v_th=torch.tensor(0.4))),
        nn.Flatten(2), weighted(nn.Linear(32, 3)), norse.Lift(norse.LICell()),
    )  # fmt: skip


def play_lifted(net, x):
    with torch.no_grad():
        ((y, _), _) = net(torch.as_tensor(x))
    return y.numpy()


@pytest.mark.parametrize(
    ("make", "shape", "time", "play", "types"),
    [
        (recurrent_norse, (5,), (), nets.stateful_play,
         {"CubaLI": 1, "CubaLIF": 1, "Input": 1, "Linear": 3, "Output": 1}),
        (lifted_norse, (1, 6, 6), (4,), play_lifted,
         {"Conv2d": 1, "CubaLIF": 1, "Flatten": 1, "Affine": 1, "CubaLI": 1, "Input": 1, "Output": 1}),
    ],
)  # fmt: skip
def test_membranes_of_norse_are_those_of_the_module(make, shape, time, play, types):
    net, x = make(), nets.spikes(5, shape, steps=40, batch=3)
    graph = from_torch(net, torch.zeros(*time, 1, *shape))
    outcome = verify(graph, x, play(net, x))
    assert outcome.ok
    assert outcome.relative_rmse is not None
    assert type_counts(graph) == types


@pytest.mark.parametrize("kind", ["lif", "lif_adds", "lif_v_reset", "if", "cuba", "conv"])
def test_spikingjelly(kind):
    net = nets.spikingjelly_net(kind, 1)
    with torch.no_grad():
        net[0].weight.mul_(3)
    shape = (1, 8, 8) if kind == "conv" else (5,)
    verified(net, shape, 7, play=nets.spikingjelly_play)


def test_spikingjelly_in_time_with_a_soft_reset():
    from spikingjelly.activation_based import functional as jelly
    from spikingjelly.activation_based import layer, neuron

    torch.manual_seed(2)
    net = nn.Sequential(
        layer.Conv2d(1, 3, 3, bias=False), layer.BatchNorm2d(3), neuron.IFNode(v_reset=None),
        layer.MaxPool2d(2), layer.Flatten(), layer.Linear(12, 4), neuron.ParametricLIFNode(v_reset=None),
    )  # fmt: skip
    jelly.set_step_mode(net, "m")
    with torch.no_grad():
        net[0].weight.mul_(4)
        net[5].weight.mul_(4)
    sample = torch.zeros(2, 1, 1, 6, 6)
    verified(net.eval(), (1, 6, 6), 8, play=play_all_steps, sample=sample)


@pytest.mark.parametrize("target", TARGETS)
def test_the_largest_of_spikes_converts(target, converts):
    """Neurons that fire where any spike of the window arrives; the readouts of a reset to zero."""
    net = body(
        nn.Conv2d(1, 3, 3), leaky(**AT_ONCE), nn.MaxPool2d(2), nn.Conv2d(3, 3, 2), nn.BatchNorm2d(3),
        leaky(threshold=0.7, **AT_ONCE), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3, 4), leaky(**AT_ONCE),
        seed=1,
    )  # fmt: skip
    x = nets.spikes(3, (1, 8, 8), steps=40, batch=8)
    y = nets.snntorch_play(net, x)
    conversion = converts(from_torch(net, torch.zeros(1, 1, 8, 8)), target, x, y)
    assert not any(conversion.shift.values())


def test_the_largest_of_spikes_of_one_axis_converts(converts):
    layers = nn.Conv1d(2, 3, 3), leaky(**AT_ONCE), nn.MaxPool1d(2), nn.Flatten()
    net = body(*layers, nn.Linear(12, 4), leaky(**AT_ONCE), seed=2)
    x = nets.spikes(3, (2, 10), steps=40, batch=8)
    graph = from_torch(net, torch.zeros(1, 2, 10))
    converts(graph, "spikingjelly", x, nets.snntorch_play(net, x))


@pytest.mark.parametrize("target", TARGETS)
def test_factors_convert(target, converts):
    net, x = with_scales(scaled), nets.spikes(5, steps=40, batch=4)
    graph = from_torch(net, torch.zeros(1, 5))
    load_into(net, graph)
    converts(graph, target, x, nets.snntorch_play(net, x))


def containers(seed):
    """Containers of SpikingJelly, which make time and batch one axis for their layers."""
    from spikingjelly.activation_based import layer, neuron

    torch.manual_seed(seed)
    net = nn.Sequential(
        layer.SeqToANNContainer(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)),
        neuron.LIFNode(v_threshold=0.5, step_mode="m"),
        layer.SeqToANNContainer(nn.Flatten(), nn.Linear(64, 5)),
        neuron.LIFNode(v_threshold=0.2, step_mode="m"),
    )
    with torch.no_grad():
        net[0][0].weight.mul_(4)
        net[2][1].weight.mul_(4)
    return net.eval()


@pytest.mark.parametrize("sample", [(1, 1), (3, 2)])
def test_layers_take_time_and_batch_as_one_axis(sample):
    sample = torch.zeros(*sample, 1, 6, 6)
    round_trip(containers, (1, 6, 6), seed=3, play=play_all_steps, sample=sample, steps=30)


def test_votes_means_of_all_pixels_and_norms_of_thresholds_are_layers():
    """Time and batch are one axis by functions of SpikingJelly and of the user."""
    from spikingjelly.activation_based import functional as jelly
    from spikingjelly.activation_based import layer, neuron

    def forward(net, x):
        y = net.first(net.norm(jelly.seq_to_ann_forward(x, net.conv)))
        z = net.fc(net.pool(y.flatten(0, 1)).flatten(1))
        return net.votes(net.out(z.view(*y.shape[:2], -1)))

    neuron_names = ("first", "out")
    neurons = {name: neuron.LIFNode(v_threshold=0.3, step_mode="m") for name in neuron_names}
    layers = {"conv": nn.Conv2d(1, 4, 3), "fc": nn.Linear(8, 12)}
    layers |= {"pool": nn.AdaptiveAvgPool2d((2, 1)), "votes": layer.VotingLayer(3, step_mode="m")}
    layers |= {"norm": layer.ThresholdDependentBatchNorm2d(1.0, 1.0, 4)}
    net, sample = Wired(forward, 1, **layers, **neurons), torch.zeros(3, 2, 1, 6, 6)
    message = r"'norm' .*BatchNorm2d\) is in training mode"
    assert_refused(lambda: from_torch(net, sample), ConversionError, message)
    net.norm.weight.data.fill_(2.0)
    options = {"play": play_all_steps, "sample": sample, "steps": 30}
    graph, _, _ = verified(net.eval(), (1, 6, 6), 3, **options)
    assert type_counts(graph)["AvgPool2d"] == 1


def test_containers_of_spikingjelly_that_are_refused():
    from spikingjelly.activation_based import layer, neuron

    inner = layer.SeqToANNContainer(nn.Linear(5, 4), neuron.LIFNode())
    one_step = nn.Sequential(inner, nn.Linear(4, 2), neuron.LIFNode(step_mode="m"))
    message = "'0.1' is called outside of the loop over time"
    assert_refused(lambda: from_torch(one_step, torch.zeros(3, 2, 5)), ConversionError, message)
    layers = nn.Sequential(nn.Linear(5, 4), neuron.LIFNode())
    net = nn.Sequential(layer.LinearRecurrentContainer(layers, 5, 4), nn.Linear(4, 2))
    assert_no_graph(
        net, (5,), "'0' .* contains a layer of type Sequential: use exactly one of IFNode"
    )


def recurrent_container(seed, multi=False, **options):
    from spikingjelly.activation_based import layer, neuron

    torch.manual_seed(seed)
    mode = "m" if multi else "s"
    neurons = neuron.LIFNode(v_threshold=0.3, **options)
    loop = layer.LinearRecurrentContainer(neurons, 8, 8, bias=multi, step_mode=mode)
    last = neuron.LIFNode(v_threshold=0.2, step_mode=mode)
    net = nn.Sequential(nn.Linear(5, 8), loop, nn.Linear(8, 4), last)
    with torch.no_grad():
        for weights in (net[0].weight, loop.rc.weight, net[2].weight):
            weights.mul_(3)
    return net


@pytest.mark.parametrize("multi", [True, False])
@pytest.mark.parametrize("reset", [0.0, None])
def test_a_neuron_that_feeds_itself_through_a_container(multi, reset):
    play = play_all_steps if multi else nets.spikingjelly_play
    net, target = (recurrent_container(seed, multi, v_reset=reset) for seed in (1, 2))
    sample = torch.zeros(3, 1, 5) if multi else torch.zeros(1, 5)
    graph, x, y = verified(net, (5,), 3, play=play, sample=sample, batch=4)
    net(torch.ones(3, 2, 5) if multi else torch.ones(2, 5))
    state = net[1].y
    assert from_torch(net, sample).edges == graph.edges  # regardless of an earlier batch
    assert net[1].y is state
    cut = graph.nodes["1.rec"].replace(weight=0 * graph.nodes["1.rec"].value("weight"))
    assert not verify(graph.with_nodes([cut]), x, y).ok
    assert_loads(target, graph, x, y, play)


@pytest.mark.parametrize("target", TARGETS)
def test_a_container_that_feeds_itself_converts(target, converts):
    net, x = recurrent_container(1), nets.spikes(3, steps=40, batch=4)
    converts(from_torch(net, torch.zeros(1, 5)), target, x, nets.spikingjelly_play(net, x))


def two_convolutions(**reset):
    """Convolutions and neurons whose output has three axes."""
    torch.manual_seed(1)  # with these biases, neurons may exceed twice the threshold
    net = body(nn.Conv2d(1, 2, 3), leaky(**reset), nn.Conv2d(2, 2, 1), leaky(**reset))
    return net, from_torch(net, torch.zeros(1, 1, 5, 5))


def test_a_conversion_that_joins_the_axes_of_an_output_says_so():
    _, graph = two_convolutions(reset_delay=False)
    conversion = convert(graph, to="spikingjelly")
    assert tuple(conversion.graph.nodes[conversion.graph.outputs[0]].shape) == (18,)
    note = conversion.notes[-1]
    assert note.startswith("output 'output' has the shape (18,) instead of (2, 3, 3): reshape ")


@pytest.mark.parametrize("target", ["spikingjelly", "norse"])
def test_a_conversion_of_delayed_resets_keeps_the_axes_of_an_output(target, converts):
    net, graph = two_convolutions()
    x = nets.spikes(3, (1, 5, 5), steps=40, batch=4)
    conversion = converts(graph, target, x, nets.snntorch_play(net, x))
    assert tuple(conversion.graph.nodes[conversion.graph.outputs[0]].shape) == (2, 3, 3)
    assert not any("instead of" in note for note in conversion.notes)


def normed(kind, seed):
    """A BatchNorm that is not straight behind weights: of the input, of spikes, of sums."""
    if kind == "linear":
        layers = nn.BatchNorm1d(5), nn.Linear(5, 6), leaky(), nn.BatchNorm1d(6)
        return body(*layers, nn.Linear(6, 3), leaky(), seed=seed)
    axes = {"conv1d": 1, "conv2d": 2}[kind]
    norm, conv = (getattr(nn, f"{name}{axes}d") for name in ("BatchNorm", "Conv"))
    first = norm(2), conv(2, 3, 3, padding=1), leaky(), norm(3)
    net = nn.Sequential(*first, conv(3, 3, 3), leaky(), nn.Flatten(), nn.LazyLinear(4), leaky())
    net(torch.zeros(2, 2, *(6,) * axes))
    return body(*net, seed=seed)


@pytest.mark.parametrize(
    ("kind", "shape"), [("linear", (5,)), ("conv1d", (2, 6)), ("conv2d", (2, 6, 6))]
)
def test_a_batch_normalisation_behind_no_weights_is_weights_of_its_own(kind, shape):
    graph, *_ = round_trip(functools.partial(normed, kind), shape, seed=4)
    assert graph.nodes["0"].type == ("Affine" if kind == "linear" else kind.capitalize())


@pytest.mark.parametrize(
    ("kinds", "notes"),
    [
        (("weights", "norm", "norm"), ["only adds a bias", "has no effect any more"]),
        (("weights", "bare", "norm"), ["only adds a bias", "has no effect any more"]),
        (("spikes", "bare", "norm"), ["has no effect any more"]),
        (("spikes", "norm", "bare"), ["has no effect any more"]),
        (("mean", "norm"), []),
        (("zeros", "norm"), []),
    ],
)
def test_the_numbers_of_batch_normalisations_in_a_row_and_behind_pools_go_back(kinds, notes):
    """Of weights without a bias one of them has it; pools keep their weights."""
    layers = {
        "weights": lambda: nn.Conv1d(3, 3, 3, padding=1, bias=False),
        "spikes": leaky,
        "mean": lambda: nn.AvgPool1d(2),
        "zeros": lambda: nn.ZeroPad1d((1, 2)),
        "norm": lambda: nn.BatchNorm1d(3),
        "bare": lambda: nn.BatchNorm1d(3, affine=False),
    }

    def make(seed):
        between = [layers[kind]() for kind in kinds]
        return body(nn.Conv1d(2, 3, 3), leaky(), *between, leaky(), seed=seed)

    *_, report = round_trip(make, (2, 8), seed=4)
    assert all(part in note for part, note in zip(notes, report.notes, strict=True))


def test_the_numbers_of_a_batch_normalisation_without_weights_go_back():
    first, second = (
        body(nn.BatchNorm1d(5, affine=False), nn.Linear(5, 3), leaky(), seed=seed)
        for seed in (1, 2)
    )
    load_into(second, from_torch(first, torch.zeros(1, 5)))
    for name in ("running_mean", "running_var"):
        np.testing.assert_allclose(getattr(second[0], name), getattr(first[0], name), rtol=1e-5)


def computed_weights(compute, seed):
    """A layer whose weights are computed of other parameters."""
    torch.manual_seed(seed)
    first, second = nn.Linear(5, 6), nn.Linear(6, 3)
    with torch.no_grad():
        first.weight.mul_(4)
        second.weight.mul_(4)
    return nn.Sequential(compute(first), leaky(), compute(second), leaky()).eval()


def test_weights_that_torch_computes_are_taken_and_set():
    make = functools.partial(computed_weights, nn.utils.parametrizations.weight_norm)
    _, _, second, report = round_trip(make, (5,), seed=4)
    assert report.notes == ()  # state_dict() contains the loaded weights
    assert "parametrizations.weight.original0" in dict(second[0].named_parameters())


def test_weights_that_torch_computes_and_cannot_set_are_refused_and_stay():
    spectral = nn.utils.parametrizations.spectral_norm
    first, second = computed_weights(spectral, 1), computed_weights(spectral, 2)
    graph = from_torch(first, torch.zeros(1, 5))
    before = {name: value.clone() for name, value in second.state_dict().items()}
    message = r"'0': weight is parametrized .* \(its right_inverse does not preserve the values\): first call"
    assert_refused(lambda: load_into(second, graph), ConversionError, message)
    assert all(torch.equal(value, before[name]) for name, value in second.state_dict().items())
    assert_no_graph(first.train(), (5,), r"'0' \(ParametrizedLinear\) is in training mode")


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_weights_that_hooks_compute_are_taken_and_refused_to_be_set():
    net, target = (computed_weights(nn.utils.weight_norm, seed) for seed in (1, 2))
    graph, _, _ = verified(net, (5,), 4)
    load_into(net, graph)  # the same numbers
    message = r"'0': weight is computed before each call, .*remove_weight_norm"
    assert_refused(lambda: load_into(target, graph), ConversionError, message)


def test_a_warning_reports_neurons_that_forward_resets_before_each_call():
    net = Forgetful()
    graph = from_torch(net, torch.zeros(1, 5))
    (warning,) = [w for w in graph.warnings if w.code == "states-reset"]
    assert "'lif1'" in str(warning.message)
    x = torch.tensor(np.random.default_rng(0).uniform(-1, 4, (30, 3, 5)).astype(np.float32))
    comparison = verify(graph, net, x)
    assert comparison.ok
    assert comparison.active
