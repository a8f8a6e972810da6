"""from_torch: the usual layers give the module's own spikes; what no graph can hold is refused."""

import numpy as np
import pytest
import torch

from jaxsnn import check, convert, from_torch, load_into, verify
from jaxsnn.errors import ConversionError
from tests.interop import nets

pytestmark = pytest.mark.interop


def leaky(**options):
    import snntorch

    return snntorch.Leaky(**{"beta": 0.9, "init_hidden": True} | options)


def body(*layers, seed=0):
    """A Sequential of snnTorch with random weights, in evaluation; statistics of a BatchNorm are random."""
    torch.manual_seed(seed)
    net = torch.nn.Sequential(*layers)
    for layer in net.modules():
        if hasattr(layer, "running_var"):
            torch.nn.init.uniform_(layer.running_mean, -0.3, 0.3)
            torch.nn.init.uniform_(layer.running_var, 0.02, 0.3)
            if layer.affine:
                torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
                torch.nn.init.uniform_(layer.bias, -0.6, 0.2)
        elif hasattr(layer, "weight"):
            torch.nn.init.uniform_(layer.weight, -0.7, 0.7)
    return net.eval()


def verified(net, x, play):
    """The graph of a module whose own spikes, of which there are many, are the graph's."""
    graph = from_torch(net, torch.zeros(1, *x.shape[2:]))
    y = play(net, x)
    assert 0.02 < y.mean() < 0.98
    found = verify(graph, x, y)
    assert found.ok, found
    return graph


class Skip(torch.nn.Module):
    """Adds the input of a block to what it gives; joins axes by view; pools by functions."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.conv, self.more = (
            torch.nn.Conv2d(1, 3, 3, padding=1),
            torch.nn.Conv2d(3, 3, 3, padding=1),
        )
        self.pool = torch.nn.AvgPool2d(2)
        self.fc, self.straight = torch.nn.Linear(12, 4), torch.nn.Linear(12, 4)
        self.a, self.b, self.c = leaky(), leaky(threshold=0.8), leaky()
        self.dropout = torch.nn.Dropout(0.5)
        with torch.no_grad():
            for layer in (self.conv, self.more, self.fc, self.straight):
                layer.weight.mul_(3)

    def forward(self, x):
        spikes = torch.nn.functional.max_pool2d(self.a(self.conv(x)), 2)
        more = self.b(self.more(spikes) + spikes)
        spikes, more = self.pool(spikes), self.pool(more)
        spikes, more = spikes.view(spikes.size(0), -1), torch.flatten(more, 1)
        current = self.fc(self.dropout(more))
        current += self.straight(spikes)
        return self.c(current)


def test_sums_flattens_and_pools_between_layers():
    graph = verified(
        Skip().eval(), nets.spikes(1, (1, 8, 8), steps=40, batch=3), nets.snntorch_play
    )
    kinds = [graph.nodes[name].type for name in graph.order()]
    assert kinds.count("Threshold") == 1
    assert kinds.count("AvgPool2d") == 2
    assert kinds.count("Flatten") == 2
    assert {source for source, target in graph.edges if target == "c"} == {"fc", "straight"}


class Viewed(torch.nn.Module):
    """The last two axes become one, by their sizes."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = torch.nn.Conv1d(2, 3, 3), torch.nn.Linear(18, 4)
        self.first, self.second = leaky(), leaky()
        with torch.no_grad():
            self.conv.weight.mul_(3)
            self.fc.weight.mul_(3)

    def forward(self, x):
        return self.second(self.fc(self.first(self.conv(x)).reshape(len(x), 18)))


def test_a_reshape_that_joins_axes_is_a_flatten():
    torch.manual_seed(1)
    graph = verified(Viewed(), nets.spikes(1, (2, 8), steps=40, batch=3), nets.snntorch_play)
    assert [graph.nodes[name].type for name in graph.order()].count("Flatten") == 1


@pytest.mark.parametrize("bias", [True, False])
def test_batch_normalisation_goes_into_the_weights(bias):
    net = body(
        torch.nn.Conv2d(1, 3, 3, bias=bias), torch.nn.BatchNorm2d(3), leaky(), torch.nn.Flatten(),
        torch.nn.Linear(48, 4, bias=bias), torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.3), leaky(),
    )  # fmt: skip
    graph = verified(net, nets.spikes(2, (1, 6, 6), steps=40, batch=3), nets.snntorch_play)
    assert [graph.nodes[name].type for name in graph.order()].count("LIF") == 2
    assert len(graph.nodes) == 7


def test_the_largest_of_spikes_is_whether_any_fires():
    net = body(
        torch.nn.Conv2d(1, 3, 3), leaky(), torch.nn.MaxPool2d(3, stride=2, padding=1), torch.nn.Flatten(),
        torch.nn.Linear(27, 4), leaky(),
    )  # fmt: skip
    graph = verified(net, nets.spikes(3, (1, 7, 7), steps=40, batch=3), nets.snntorch_play)
    (problem,) = [own for own in check(graph, "event").problems if own.severity == "error"]
    assert problem.node == "2"
    assert problem.fix.startswith("replace the maximum of a window by an AvgPool2d")


class Stateful(torch.nn.Module):
    """Takes its membranes and returns them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.fc1, self.fc2 = torch.nn.Linear(5, 8), torch.nn.Linear(8, 3)
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
        mem1, mem2, found = None, None, []
        for frame in x:
            spikes, mem1, mem2 = super().forward(frame, mem1, mem2)
            found.append(spikes)
        return torch.stack(found)


class Indexed(Frames):
    def forward(self, x):
        return super().forward([x[step] for step in range(len(x))])


@pytest.mark.parametrize("kind", [Loop, Frames, Indexed])
def test_numbers_go_into_a_module_that_loops_over_time_by_a_step_that_holds_its_layers(kind):
    """`load_into` sets the layers of the loop, once it is shown what one step does."""
    net, graph = kind(), from_torch(Stateful(), torch.ones(1, 5))
    message = "over time.*one step of time; a module that holds your layers"
    with pytest.raises(ConversionError, match=message):
        from_torch(net, torch.ones(3, 1, 5))
    with pytest.raises(ConversionError, match=message):
        load_into(net, graph)
    step = Stateful()
    step.fc1, step.lif1, step.fc2, step.lif2 = net.fc1, net.lif1, net.fc2, net.lif2
    with torch.no_grad():
        net.fc1.weight.zero_()
    load_into(step, graph)
    np.testing.assert_array_equal(net.fc1.weight.detach(), graph.nodes["fc1"].value("weight"))


def test_membranes_that_forward_takes_and_returns_are_states():
    def play(net, x):
        states, found = (), []
        with torch.no_grad():
            for frame in torch.as_tensor(x):
                spikes, *states = net(frame, *states)
                found.append(spikes.numpy())
        return np.stack(found)

    verified(Stateful(), nets.spikes(4, steps=40, batch=3), play)


class ReturnsMembrane(Stateful):
    """A readout that resets, which seldom spikes."""

    def forward(self, x, mem1=None, mem2=None):
        _, mem1, mem2 = super().forward(x, mem1, mem2)
        return mem2, mem1, mem2


def test_the_membrane_of_a_neuron_that_resets_is_right_or_refused():
    net = ReturnsMembrane()
    with torch.no_grad():
        net.fc2.weight.mul_(0.1)
    refused = ""
    try:
        graph = from_torch(net, torch.zeros(1, 5))
    except ConversionError as error:
        refused = str(error)
    if refused:
        assert "differs from the module: 'output'" in refused
        return
    with torch.no_grad():
        net.fc2.weight.mul_(10)
    graph, x, states, found = from_torch(net, torch.zeros(1, 5)), nets.spikes(4, steps=40), (), []
    with torch.no_grad():
        for frame in torch.as_tensor(x):
            y, *states = net(frame, *states)
            found.append(y.numpy())
    assert verify(graph, x, np.stack(found)).ok


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
    net, x = module(), nets.spikes(4, steps=40, batch=3)
    graph = from_torch(net, torch.ones(3, 5))
    load_into(net, graph)
    assert not hasattr(net, "mem1")
    assert getattr(net, "mems", [None, None]) == [None, None]
    with torch.no_grad():
        y = torch.stack([net(frame) for frame in torch.as_tensor(x)]).numpy()
    assert 0.02 < y.mean() < 0.98
    assert verify(graph, x, y).ok
    held = vars(net).get("mem1", getattr(net, "mems", [None])[0])
    with pytest.raises(ConversionError, match="whose states go on from call to call"):
        from_torch(net, torch.ones(3, 5))
    assert vars(net).get("mem1", getattr(net, "mems", [None])[0]) is held


class OneSize(torch.nn.Module):
    """Made for batches of 6."""

    def __init__(self):
        super().__init__()
        self.fc, self.lif = torch.nn.Linear(8, 3), leaky()

    def forward(self, x):
        return self.lif(self.fc(x.view(6, -1)))


def test_a_module_for_one_size_of_batch():
    graph = from_torch(OneSize(), torch.zeros(6, 2, 4))
    assert tuple(graph.nodes["input"].shape) == (2, 4)


class Twice(Stateful):
    def forward(self, x):
        return self.between(self.fc1(x))

    def between(self, x):
        raise NotImplementedError


class InPlace(Twice):
    def between(self, x):
        x.clamp_(max=0.5)
        return self.lif1(x)[0]


class BehindTheBack(Twice):
    """Changes numbers so that torch does not count it; its states are kept by its layers."""

    def __init__(self):
        super().__init__()
        self.lif1 = leaky()

    def between(self, x):
        x.data.mul_(2)
        return self.lif1(x)


class Rectified(Twice):
    def between(self, x):
        return self.lif1(torch.relu(x))[0]


class ScaledSum(Twice):
    def between(self, x):
        return self.lif1(torch.add(x, x.clone(), alpha=2))[0]


class TakesMembrane(Twice):
    def between(self, x):
        return self.lif2(self.fc2(self.lif1(x)[1]))[0]


class Shifted(Twice):
    """What is returned is changed after the last layer."""

    def between(self, x):
        return self.lif1(x)[0].exp()


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Loop(), "'lif1' .Leaky. is called twice in one forward pass"),
        (InPlace(), "the output of 'fc1' is changed in place"),
        (BehindTheBack(), r"forward changes what a layer gives through \.data"),
        (Forgetful(), "differs from the module: 'lif1', step "),
        (Rectified(), "'relu' .ReLU. takes what 'fc1' .Affine. gives, .* for plain sums of spikes alone"),
        (ScaledSum(), "'lif1' .Leaky. is computed outside of layers"),
        (TakesMembrane(), "'fc2' .Linear. receives the membrane of 'lif1'"),
        (Shifted(), "the output of the module is computed outside of layers"),
        (body(torch.nn.Linear(5, 3), leaky(reset_mechanism="none"), torch.nn.Linear(3, 2), leaky()),
         "'1' .Leaky. never resets, and its spikes are taken"),
        (body(torch.nn.Linear(5, 3), torch.nn.Dropout(), leaky()).train(), "call module.eval"),
        (body(torch.nn.Linear(5, 3), torch.nn.BatchNorm1d(3), leaky()).train(), "call module.eval"),
    ],
)  # fmt: skip
def test_what_no_graph_can_hold_is_refused(module, message):
    with pytest.raises(ConversionError, match=message):
        from_torch(module, torch.ones(1, 5))


@pytest.mark.parametrize(
    "layers",
    [
        (torch.nn.Conv2d(1, 2, 3), torch.nn.MaxPool2d(2), leaky()),
        (torch.nn.MaxPool2d(2), torch.nn.Conv2d(1, 2, 3), leaky()),
    ],
)
def test_the_largest_of_numbers_is_refused(layers):
    with pytest.raises(ConversionError, match=r"put it after the neurons, or use AvgPool2d"):
        from_torch(body(*layers), torch.zeros(1, 1, 8, 8))


def test_alpha_neurons_without_a_reset_are_a_readout():
    import snntorch

    decays = {"alpha": torch.tensor([0.9, 0.8, 0.5]), "beta": torch.tensor([0.7, 0.75, 0.4])}
    options = {"reset_mechanism": "none", "init_hidden": True, "output": True}
    net = body(
        torch.nn.Linear(5, 8), leaky(), torch.nn.Linear(8, 3), snntorch.Alpha(**decays, **options)
    )
    x = nets.spikes(3, steps=40, batch=3)
    graph = from_torch(net, torch.zeros(1, 5))
    net[1].reset_mem()
    net[3].reset_mem()
    y = np.stack([net(frame)[-1].detach().numpy() for frame in torch.as_tensor(x)])
    found = verify(graph, x, y)
    assert found.ok
    assert found.relative_rmse is not None
    with pytest.raises(ConversionError, match="puts its currents to 0 with each spike"):
        from_torch(
            body(torch.nn.Linear(5, 3), snntorch.Alpha(0.9, 0.8, init_hidden=True)),
            torch.zeros(1, 5),
        )


def norse_net(*layers):
    from norse.torch import SequentialState

    return SequentialState(*layers)


def weighted(layer, gain=1.0):
    torch.manual_seed(7)
    for each in layer.parameters():
        torch.nn.init.uniform_(each, -0.5 * gain, 1.2 * gain)
    return layer


def test_norse_recurrent_cell_and_leaky_readout():
    from norse.torch import LIFParameters, LILinearCell
    from norse.torch.module.lif import LIFRecurrentCell

    cell = LIFRecurrentCell(5, 8, p=LIFParameters(v_th=torch.tensor(0.3)))
    net = norse_net(weighted(cell), weighted(LILinearCell(8, 3)))
    x = nets.spikes(5, steps=40, batch=3)
    graph = from_torch(net, torch.zeros(1, 5))
    found = verify(graph, x, nets.stateful_play(net, x))
    assert found.ok
    assert found.relative_rmse is not None
    assert sorted(node.type for node in graph.nodes.values()) == [
        "CubaLI", "CubaLIF", "Input", "Linear", "Linear", "Linear", "Output",
    ]  # fmt: skip


def test_norse_lifted_layers_run_through_time_themselves():
    from norse.torch import LICell, LIFParameters, Lift
    from norse.torch.module.lif import LIF

    net = norse_net(
        Lift(weighted(torch.nn.Conv2d(1, 2, 3))), LIF(LIFParameters(v_th=torch.tensor(0.4))),
        torch.nn.Flatten(2), weighted(torch.nn.Linear(32, 3)), Lift(LICell()),
    )  # fmt: skip
    x = nets.spikes(6, (1, 6, 6), steps=40, batch=3)
    graph = from_torch(net, torch.zeros(4, 1, 1, 6, 6))
    with torch.no_grad():
        ((y, _), _) = net(torch.as_tensor(x))
    found = verify(graph, x, y.numpy())
    assert found.ok
    assert found.relative_rmse is not None


@pytest.mark.parametrize("kind", ["lif", "lif_adds", "lif_v_reset", "if", "cuba", "conv"])
def test_spikingjelly(kind):
    shape = (1, 8, 8) if kind == "conv" else (5,)
    net = nets.spikingjelly_net(kind, 1)
    with torch.no_grad():
        net[0].weight.mul_(3)
    verified(
        net,
        nets.spikes(7, shape, steps=40, batch=3),
        nets.spikingjelly_play,
    )


def test_spikingjelly_in_time_with_a_soft_reset():
    from spikingjelly.activation_based import functional, layer, neuron

    torch.manual_seed(2)
    net = torch.nn.Sequential(
        layer.Conv2d(1, 3, 3, bias=False), layer.BatchNorm2d(3), neuron.IFNode(v_reset=None),
        layer.MaxPool2d(2), layer.Flatten(), layer.Linear(12, 4), neuron.ParametricLIFNode(v_reset=None),
    )  # fmt: skip
    functional.set_step_mode(net, "m")
    with torch.no_grad():
        net[0].weight.mul_(4)
        net[5].weight.mul_(4)
    net.eval()
    x = nets.spikes(8, (1, 6, 6), steps=40, batch=3)
    graph = from_torch(net, torch.zeros(2, 1, 1, 6, 6))
    functional.reset_net(net)
    with torch.no_grad():
        y = net(torch.as_tensor(x)).numpy()
    assert 0.02 < y.mean() < 0.98
    assert verify(graph, x, y).ok


@pytest.mark.parametrize("target", ["norse", "snntorch", "spikingjelly"])
def test_the_largest_of_spikes_converts(target, converts):
    """Neurons that fire where any spike of the window arrives; the readouts of a reset to zero."""
    reset = {"reset_mechanism": "zero", "reset_delay": False}
    net = body(
        torch.nn.Conv2d(1, 3, 3), leaky(**reset), torch.nn.MaxPool2d(2), torch.nn.Conv2d(3, 3, 2),
        torch.nn.BatchNorm2d(3), leaky(threshold=0.7, **reset), torch.nn.MaxPool2d(2), torch.nn.Flatten(),
        torch.nn.Linear(3, 4), leaky(**reset), seed=1,
    )  # fmt: skip
    x = nets.spikes(3, (1, 8, 8), steps=40, batch=8)
    y = nets.snntorch_play(net, x)
    made = converts(from_torch(net, torch.zeros(1, 1, 8, 8)), target, x, y)
    assert not any(made.shift.values())


def played_in_time(net, x):
    from spikingjelly.activation_based import functional

    functional.reset_net(net)
    with torch.no_grad():
        y = net(torch.as_tensor(x)).numpy()
    functional.reset_net(net)
    return y


class OneAxis(torch.nn.Module):
    """Makes time and batch one axis for its layers, as functions of SpikingJelly and users do."""

    def __init__(self):
        from spikingjelly.activation_based import layer, neuron

        super().__init__()
        self.conv, self.pool = torch.nn.Conv2d(1, 4, 3), torch.nn.AdaptiveAvgPool2d((2, 1))
        self.norm = layer.ThresholdDependentBatchNorm2d(1.0, 1.0, 4)
        self.first, self.second = (neuron.LIFNode(v_threshold=0.3, step_mode="m") for _ in range(2))
        self.fc, self.votes = torch.nn.Linear(8, 12), layer.VotingLayer(3, step_mode="m")

    def forward(self, x):
        from spikingjelly.activation_based import functional

        y = self.first(self.norm(functional.seq_to_ann_forward(x, self.conv)))
        z = self.fc(self.pool(y.flatten(0, 1)).flatten(1))
        return self.votes(self.second(z.view(*y.shape[:2], -1)))


def contained(seed):
    from spikingjelly.activation_based import layer, neuron

    torch.manual_seed(seed)
    convolution = torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4)
    net = torch.nn.Sequential(
        layer.SeqToANNContainer(*convolution), neuron.LIFNode(v_threshold=0.5, step_mode="m"),
        layer.SeqToANNContainer(torch.nn.Flatten(), torch.nn.Linear(64, 5)),
        neuron.LIFNode(v_threshold=0.2, step_mode="m"),
    )  # fmt: skip
    with torch.no_grad():
        net[0][0].weight.mul_(4)
        net[2][1].weight.mul_(4)
    return net.eval()


@pytest.mark.parametrize("sample", [(1, 1), (3, 2)])
def test_layers_take_time_and_batch_as_one_axis(sample):
    x = nets.spikes(3, (1, 6, 6), steps=30, batch=3)
    net = contained(1)
    graph = from_torch(net, torch.zeros(*sample, 1, 6, 6))
    y = played_in_time(net, x)
    assert 0.02 < y.mean() < 0.98
    assert verify(graph, x, y).ok
    other = contained(2)
    load_into(other, graph)
    assert np.array_equal(played_in_time(other, x), y)


def test_votes_means_of_all_pixels_and_norms_of_thresholds_are_layers():
    torch.manual_seed(1)
    net, x = OneAxis(), nets.spikes(3, (1, 6, 6), steps=30, batch=3)
    with pytest.raises(ConversionError, match=r"'norm' .*BatchNorm2d\) is in training mode"):
        from_torch(net, torch.zeros(3, 2, 1, 6, 6))
    net.norm.weight.data.fill_(2.0)
    graph = from_torch(net.eval(), torch.zeros(3, 2, 1, 6, 6))
    y = played_in_time(net, x)
    assert 0.02 < y.mean() < 0.98
    assert verify(graph, x, y).ok
    assert [graph.nodes[name].type for name in graph.order()].count("AvgPool2d") == 1


def test_neurons_of_one_step_are_refused_where_time_and_batch_are_one_axis():
    from spikingjelly.activation_based import layer, neuron

    inner = layer.SeqToANNContainer(torch.nn.Linear(5, 4), neuron.LIFNode())
    net = torch.nn.Sequential(inner, torch.nn.Linear(4, 2), neuron.LIFNode(step_mode="m"))
    with pytest.raises(ConversionError, match=r"'0.1' has an output of shape \(96, 4\)"):
        from_torch(net, torch.zeros(3, 2, 5))


@pytest.mark.parametrize("kind", [torch.nn.AvgPool2d, torch.nn.MaxPool2d])
def test_a_pool_that_would_round_up_and_need_not_is_taken(kind):
    layers = kind(2, ceil_mode=True), torch.nn.Flatten(), torch.nn.Linear(27, 4), leaky()
    net = body(torch.nn.Conv2d(1, 3, 3), leaky(), *layers)
    verified(net, nets.spikes(3, (1, 8, 8), steps=40, batch=3), nets.snntorch_play)
    with pytest.raises(ConversionError, match="'2' rounds up"):
        from_torch(body(torch.nn.Conv2d(1, 3, 4), leaky(), *layers), torch.zeros(1, 1, 8, 8))


def test_means_of_windows_of_several_sizes_are_refused():
    net = body(torch.nn.Conv2d(1, 3, 3), leaky(), torch.nn.AdaptiveAvgPool2d(4), leaky())
    with pytest.raises(ConversionError, match=r"'2' .* makes \(4, 4\) of \(6, 6\) by windows of"):
        from_torch(net, torch.zeros(1, 1, 8, 8))


def fed_back(seed, multi=False, **options):
    from spikingjelly.activation_based import layer, neuron

    torch.manual_seed(seed)
    mode = "m" if multi else "s"
    loop = layer.LinearRecurrentContainer(
        neuron.LIFNode(v_threshold=0.3, **options), 8, 8, bias=multi, step_mode=mode
    )
    last = neuron.LIFNode(v_threshold=0.2, step_mode=mode)
    net = torch.nn.Sequential(torch.nn.Linear(5, 8), loop, torch.nn.Linear(8, 4), last)
    with torch.no_grad():
        for weights in (net[0].weight, loop.rc.weight, net[2].weight):
            weights.mul_(3)
    return net


@pytest.mark.parametrize("multi", [True, False])
@pytest.mark.parametrize("reset", [0.0, None])
def test_a_neuron_that_feeds_itself_through_a_container(multi, reset):
    play = played_in_time if multi else nets.spikingjelly_play
    net, other = (fed_back(seed, multi, v_reset=reset) for seed in (1, 2))
    sample = torch.zeros(3, 1, 5) if multi else torch.zeros(1, 5)
    x = nets.spikes(3, steps=40, batch=4)
    y = play(net, x)
    assert 0.02 < y.mean() < 0.98
    graph = from_torch(net, sample)
    assert verify(graph, x, y).ok
    net(torch.ones(3, 2, 5) if multi else torch.ones(2, 5))
    held = net[1].y
    assert from_torch(net, sample).edges == graph.edges  # whatever batch it ran before
    assert net[1].y is held
    cut = graph.nodes["1.rec"].replace(weight=0 * graph.nodes["1.rec"].value("weight"))
    assert not verify(graph.with_nodes([cut]), x, y).ok
    load_into(other, graph)
    assert np.array_equal(play(other, x), y)


@pytest.mark.parametrize("target", ["norse", "snntorch", "spikingjelly"])
def test_a_container_that_feeds_itself_converts(target, converts):
    net, x = fed_back(1), nets.spikes(3, steps=40, batch=4)
    converts(from_torch(net, torch.zeros(1, 5)), target, x, nets.spikingjelly_play(net, x))


def test_a_container_of_several_layers_that_feeds_itself_is_refused():
    from spikingjelly.activation_based import layer, neuron

    inner = torch.nn.Sequential(torch.nn.Linear(5, 4), neuron.LIFNode())
    net = torch.nn.Sequential(layer.LinearRecurrentContainer(inner, 5, 4), torch.nn.Linear(4, 2))
    with pytest.raises(
        ConversionError, match=r"'0' .* holds a Sequential: let it hold one of IFNode"
    ):
        from_torch(net, torch.zeros(1, 5))


class Scaled(torch.nn.Module):
    """Divides its input, multiplies what goes on, and does neither to what it returns."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.lif = torch.nn.Linear(5, 8), leaky(threshold=0.4)
        self.out, self.last = torch.nn.Linear(8, 3), leaky(threshold=0.2, reset_mechanism="zero")

    def forward(self, x):
        return self.last(0.5 * self.out(3 * self.lif(self.fc(x / 0.3) * 2.0)))


@pytest.mark.parametrize("target", [None, "norse", "snntorch", "spikingjelly"])
def test_numbers_that_multiply_are_scales(target, converts):
    net, x = Scaled(), nets.spikes(5, steps=40, batch=4)
    graph = verified(net, x, nets.snntorch_play)
    assert [graph.nodes[name].type for name in graph.order()].count("Scale") == 4
    load_into(net, graph)
    if target:
        converts(graph, target, x, nets.snntorch_play(net, x))


class ScaledInPlace(Scaled):
    def forward(self, x):
        current = self.fc(x / 0.3)
        current *= 2.0
        spikes = self.out(self.lif(current).mul_(3))
        spikes.div_(2)
        return self.last(spikes)


def test_numbers_that_multiply_in_place_are_scales():
    net, plain, x = ScaledInPlace(), Scaled(), nets.spikes(5, steps=40, batch=4)
    graph = verified(net, x, nets.snntorch_play)
    assert [graph.nodes[name].type for name in graph.order()].count("Scale") == 4
    assert np.array_equal(nets.snntorch_play(net, x), nets.snntorch_play(plain, x))


class ByATensor(Scaled):
    def forward(self, x):
        return self.last(self.out(self.lif(self.fc(x) * torch.rand(8))))


class ByTheBatch(Scaled):
    def forward(self, x):
        return self.last(self.out(self.lif(self.fc(x) / x.sum())))


@pytest.mark.parametrize("module", [ByATensor, ByTheBatch])
def test_tensors_that_multiply_are_refused(module):
    with pytest.raises(ConversionError, match=r"'lif' \(Leaky\) is computed outside of layers"):
        from_torch(module(), torch.ones(1, 5))


def test_a_conversion_that_joins_the_axes_of_an_output_says_so():
    net = body(torch.nn.Conv2d(1, 2, 3), leaky(), torch.nn.Conv2d(2, 2, 1), leaky())
    graph = from_torch(net, torch.zeros(1, 1, 5, 5))
    made = convert(graph, to="spikingjelly")
    assert tuple(made.graph.nodes[made.graph.outputs[0]].shape) == (18,)
    assert made.notes[-1] == (
        "output 'output' has the shape (18,) instead of (2, 3, 3): reshape what it gives"
    )
    assert not any("instead of" in note for note in convert(graph, to="norse").notes)


def normed(kind, seed):
    """A BatchNorm that is not straight behind weights: of the input, of spikes, of sums."""
    if kind == "linear":
        layers = torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 6), leaky(), torch.nn.BatchNorm1d(6)
        return body(*layers, torch.nn.Linear(6, 3), leaky(), seed=seed)
    axes = {"conv1d": 1, "conv2d": 2}[kind]
    norm, conv = (getattr(torch.nn, f"{name}{axes}d") for name in ("BatchNorm", "Conv"))
    first = norm(2), conv(2, 3, 3, padding=1), leaky(), norm(3)
    rest = conv(3, 3, 3), leaky(), torch.nn.Flatten(), torch.nn.LazyLinear(4)
    net = torch.nn.Sequential(*first, *rest, leaky())
    net(torch.zeros(2, 2, *(6,) * axes))
    return body(*net, seed=seed)


@pytest.mark.parametrize(
    ("kind", "shape"), [("linear", (5,)), ("conv1d", (2, 6)), ("conv2d", (2, 6, 6))]
)
def test_a_batch_normalisation_behind_no_weights_is_weights_of_its_own(kind, shape):
    net, other, x = normed(kind, 1), normed(kind, 2), nets.spikes(4, shape, steps=40, batch=3)
    graph = verified(net, x, nets.snntorch_play)
    assert graph.nodes["0"].type == ("Affine" if kind == "linear" else kind.capitalize())
    load_into(other, graph)
    assert np.array_equal(nets.snntorch_play(other, x), nets.snntorch_play(net, x))


@pytest.mark.parametrize(
    ("kinds", "notes"),
    [
        (("weights", "norm", "norm"), ["only adds a bias", "does nothing"]),
        (("weights", "bare", "norm"), ["only adds a bias", "does nothing"]),
        (("spikes", "bare", "norm"), ["does nothing"]),
        (("spikes", "norm", "bare"), ["does nothing"]),
        (("mean", "norm"), []),
        (("zeros", "norm"), []),
    ],
)
def test_the_numbers_of_batch_normalisations_in_a_row_and_behind_pools_go_back(kinds, notes):
    """Of weights without a bias one of them has it; pools keep their weights."""
    layers = {
        "weights": lambda: torch.nn.Conv1d(3, 3, 3, padding=1, bias=False),
        "spikes": leaky,
        "mean": lambda: torch.nn.AvgPool1d(2),
        "zeros": lambda: torch.nn.ZeroPad1d((1, 2)),
        "norm": lambda: torch.nn.BatchNorm1d(3),
        "bare": lambda: torch.nn.BatchNorm1d(3, affine=False),
    }

    def net(seed):
        between = [layers[kind]() for kind in kinds]
        return body(torch.nn.Conv1d(2, 3, 3), leaky(), *between, leaky(), seed=seed)

    first, second, x = net(1), net(2), nets.spikes(4, (2, 8), steps=40, batch=3)
    graph = verified(first, x, nets.snntorch_play)
    found = load_into(second, graph).notes
    assert len(found) == len(notes)
    assert all(note in said for note, said in zip(notes, found, strict=True))
    y = nets.snntorch_play(first, x)
    assert np.array_equal(nets.snntorch_play(second, x), y)


def test_the_numbers_of_a_batch_normalisation_without_weights_go_back():
    def net(seed):
        norm = torch.nn.BatchNorm1d(5, affine=False)
        torch.manual_seed(seed)
        torch.nn.init.uniform_(norm.running_mean)
        torch.nn.init.uniform_(norm.running_var, 0.1, 1.0)
        return torch.nn.Sequential(norm, torch.nn.Linear(5, 3), leaky()).eval()

    first, second = net(1), net(2)
    load_into(second, from_torch(first, torch.zeros(1, 5)))
    np.testing.assert_allclose(second[0].running_mean, first[0].running_mean, rtol=1e-5)
    np.testing.assert_allclose(second[0].running_var, first[0].running_var, rtol=1e-5)


@pytest.mark.parametrize(
    "pools",
    [
        (torch.nn.AvgPool1d(2), torch.nn.MaxPool1d(3, stride=2, padding=1)),
        (torch.nn.AdaptiveAvgPool1d(6), torch.nn.MaxPool1d(2)),
    ],
)
def test_pools_of_one_axis(pools):
    layers = pools[0], torch.nn.Conv1d(2, 3, 3, padding=1), leaky(), pools[1], torch.nn.Flatten()
    net = body(*layers, torch.nn.Linear(9, 4), leaky(), seed=1)
    graph = verified(net, nets.spikes(3, (2, 12), steps=40, batch=3), nets.snntorch_play)
    assert [graph.nodes[name].type for name in graph.order()].count("Threshold") == 1


def test_the_largest_of_spikes_of_one_axis_converts(converts):
    reset = {"reset_mechanism": "zero", "reset_delay": False}
    layers = torch.nn.Conv1d(2, 3, 3), leaky(**reset), torch.nn.MaxPool1d(2), torch.nn.Flatten()
    net = body(*layers, torch.nn.Linear(12, 4), leaky(**reset), seed=2)
    x = nets.spikes(3, (2, 10), steps=40, batch=8)
    graph = from_torch(net, torch.zeros(1, 2, 10))
    converts(graph, "spikingjelly", x, nets.snntorch_play(net, x))


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (
            torch.nn.AvgPool1d(3, padding=1, count_include_pad=False),
            "'0' rounds up, or divides by an",
        ),
        (torch.nn.AdaptiveAvgPool1d(5), r"makes \(5,\) of \(12,\) by windows of several sizes"),
    ],
)
def test_pools_of_one_axis_that_nir_lacks_are_refused(pool, message):
    with pytest.raises(ConversionError, match=message):
        from_torch(body(pool, torch.nn.Conv1d(2, 3, 2), leaky()), torch.zeros(1, 2, 12))


class Padded(torch.nn.Module):
    """Pads its sides by different widths, and takes away at one."""

    def __init__(self, axes):
        super().__init__()
        torch.manual_seed(4)
        self.pad = [torch.nn.ZeroPad1d((2, 1)), torch.nn.ZeroPad2d((1, 0, 0, 3))][axes - 1]
        kind = [torch.nn.Conv1d, torch.nn.Conv2d][axes - 1]
        self.first, self.second = kind(2, 3, 3), kind(3, 2, 3)
        self.sides = (0, 2, 1, -1)[: 2 * axes]
        self.a, self.b = leaky(), leaky()
        with torch.no_grad():
            self.first.weight.mul_(3)
            self.second.weight.mul_(3)

    def forward(self, x):
        x = torch.nn.functional.pad(self.a(self.first(self.pad(x))), self.sides)
        return self.b(self.second(x))


@pytest.mark.parametrize("axes", [1, 2])
def test_zeros_around_are_weights(axes):
    x = nets.spikes(3, (2, 6, 7)[: axes + 1], steps=40, batch=3)
    verified(Padded(axes), x, nets.snntorch_play)
    filled = torch.nn.Sequential(torch.nn.ConstantPad1d(1, 0.5), torch.nn.Conv1d(2, 3, 2), leaky())
    with pytest.raises(ConversionError, match=r"'0' \(ConstantPad1d\) pads with 0.5, and NIR with"):
        from_torch(filled, torch.zeros(1, 2, 4))


def computed_weights(how, seed):
    """A layer whose weights are computed of other parameters."""
    torch.manual_seed(seed)
    first, second = torch.nn.Linear(5, 6), torch.nn.Linear(6, 3)
    with torch.no_grad():
        first.weight.mul_(4)
        second.weight.mul_(4)
    return torch.nn.Sequential(how(first), leaky(), how(second), leaky()).eval()


def test_weights_that_torch_computes_are_taken_and_set():
    norm, x = torch.nn.utils.parametrizations.weight_norm, nets.spikes(4, steps=40, batch=3)
    first, second = computed_weights(norm, 1), computed_weights(norm, 2)
    graph = verified(first, x, nets.snntorch_play)
    assert load_into(second, graph).notes == ()  # state_dict() has them
    assert np.array_equal(nets.snntorch_play(second, x), nets.snntorch_play(first, x))
    assert "parametrizations.weight.original0" in dict(second[0].named_parameters())


def test_weights_that_torch_computes_and_cannot_set_are_refused_and_stay():
    spectral = torch.nn.utils.parametrizations.spectral_norm
    first, second = computed_weights(spectral, 1), computed_weights(spectral, 2)
    graph = from_torch(first, torch.zeros(1, 5))
    before = {name: value.clone() for name, value in second.state_dict().items()}
    message = r"'0': weight is parametrized, .* \(it makes other numbers of them\): remove it first"
    with pytest.raises(ConversionError, match=message):
        load_into(second, graph)
    assert all(torch.equal(value, before[name]) for name, value in second.state_dict().items())
    with pytest.raises(ConversionError, match=r"'0' \(ParametrizedLinear\) is in training mode"):
        from_torch(first.train(), torch.zeros(1, 5))


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_weights_that_hooks_compute_are_taken_and_refused_to_be_set():
    net, x = computed_weights(torch.nn.utils.weight_norm, 1), nets.spikes(4, steps=40, batch=3)
    graph = verified(net, x, nets.snntorch_play)
    load_into(net, graph)  # the same numbers
    with pytest.raises(
        ConversionError,
        match=r"'0': weight is computed before each call, .*remove_weight_norm",
    ):
        load_into(computed_weights(torch.nn.utils.weight_norm, 2), graph)
