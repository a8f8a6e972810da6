"""What a module cannot be is refused for its own reason, with the way out."""

import numpy as np
import pytest
import snntorch
import torch
from torch.ao.nn.quantized import dynamic

from jaxsnn import Events, TimeStepped, check, convert, from_torch, simulate
from jaxsnn.errors import ConversionError, LoweringError, UsageError
from tests.helpers.random_spikes import random_raster
from tests.helpers.refusals import assert_refused
from tests.interop.modules import Wired, assert_no_graph, leaky

pytestmark = pytest.mark.interop


def jelly(kind, **options):
    from spikingjelly.activation_based import neuron

    return getattr(neuron, kind)(**options)


def sequence(*layers):
    return torch.nn.Sequential(torch.nn.Linear(5, 3), *layers)


@pytest.mark.parametrize("shape", [(5,), (1, 5)])
def test_layers_that_run_through_time_need_an_axis_of_time(shape):
    net = sequence(jelly("LIFNode", step_mode="m"))
    message = r"layer '1' \(LIFNode\) processes all time steps .* without a batch axis: pass a s.* \(time, b"
    assert_refused(lambda: from_torch(net, torch.zeros(shape)), ConversionError, message)
    assert from_torch(net, torch.zeros(4, 1, 5)).nodes["1"].type == "LIF"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_spikes_at_other_steps_and_is_refused(dtype):
    net = sequence(jelly("LIFNode"), torch.nn.Linear(3, 2)).to(dtype)
    sample = torch.zeros(1, 5, dtype=dtype)
    message = rf"'0' \(Linear\) computes in {dtype}, .* in float32, .*: export a float32 copy"
    assert_refused(lambda: from_torch(net, sample), ConversionError, message)
    for wide in (torch.float32, torch.float64):
        assert from_torch(net.to(wide), torch.zeros(1, 5, dtype=wide)).nodes["1"].type == "LIF"


def test_a_sample_is_a_tensor_of_the_type_of_the_weights_or_an_array():
    net = sequence(jelly("LIFNode"))
    expected = from_torch(net, torch.zeros(1, 5))
    for sample in (np.zeros((1, 5)), np.zeros((1, 5), int), [[0, 0, 0, 0, 0]]):
        assert from_torch(net, sample).edges == expected.edges
        assert from_torch(net.double(), sample).edges == expected.edges
        net.float()
    for sample, message in (
        (torch.zeros(1, 5, dtype=torch.int64),
         r"sample of shape \(1, 5\) of torch.int64: .*: pass a sample of torch.float32, the dtype of the weights"),
        ("zeros", r"the sample, a str, cannot be converted to a tensor: .*: pass a t"),
    ):  # fmt: skip
        assert_refused(lambda sample=sample: from_torch(net, sample), ConversionError, message)


class Fails(torch.nn.Module):
    """Raises its own errors: at once, or after some steps."""

    def __init__(self, steps, error):
        super().__init__()
        self.fc, self.lif, self.steps, self.error = torch.nn.Linear(5, 3), leaky(), steps, error

    def forward(self, x):
        self.steps -= 1
        if self.steps < 0:
            raise self.error
        return self.lif(self.fc(x))


@pytest.mark.parametrize(
    ("steps", "error", "message"),
    [
        (0, KeyError("a"), r"for a sample of shape \(1, 5\) with KeyError \(a\), in layer '0' \(Fails\)"),
        (3, KeyError("a"), r"forward of Sequential fails in step 3 with KeyError \(a\), in layer"),
        (0, AssertionError(), r"fails for a sample of shape \(1, 5\) with AssertionError, in layer"),
        (0, RuntimeError("no 'b'"), r"does not accept .* of torch.float32: no 'b', in layer '0' \(F"),
    ],
)  # fmt: skip
def test_an_error_of_the_module_is_reported_with_the_layer(steps, error, message):
    with pytest.raises(ConversionError, match=message) as caught:
        from_torch(torch.nn.Sequential(Fails(steps, error)), torch.zeros(1, 5))
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("kind", ["QIFNode", "KLIFNode"])
@pytest.mark.parametrize("last", [True, False])
def test_a_neuron_with_layers_within_that_is_not_supported_is_named(kind, last):
    """The layer behind it, or the one within, was named, as if forward computed something."""
    behind = () if last else (torch.nn.Linear(3, 2), jelly("LIFNode"))
    net = sequence(jelly("LIFNode"), torch.nn.Linear(3, 3), jelly(kind), *behind)
    assert_no_graph(net, (5,), f"'3' is a {kind}, which is not supported: use one of .*LIFNode")


class PassesLstmStates(torch.nn.Module):
    """Layers before and behind an LSTM neuron of snnTorch, whose states forward passes on."""

    def __init__(self, make, weights, shape, behind):
        super().__init__()
        self.first, self.shape = torch.nn.Sequential(weights(), leaky()), shape
        self.lstm = make()
        self.behind = torch.nn.Sequential(weights(), leaky()) if behind else torch.nn.Identity()

    def forward(self, x):
        syn, mem = torch.zeros(self.shape), torch.zeros(self.shape)
        outputs = []
        for frame in x:
            spikes, syn, mem = self.lstm(self.first(frame), syn, mem)
            outputs.append(self.behind(spikes))
        return torch.stack(outputs)


#: Neuron -> function that creates it, weights before and after it, and the shape of its states.
LSTM_NEURONS = {
    "SLSTM": (lambda: snntorch.SLSTM(3, 3), lambda: torch.nn.Linear(3, 3), (2, 3)),
    "SConv2dLSTM": (
        lambda: snntorch.SConv2dLSTM(2, 2, 3),
        lambda: torch.nn.Conv2d(2, 2, 3, padding=1),
        (2, 2, 4, 4),
    ),
}


@pytest.mark.parametrize("behind", [True, False])
@pytest.mark.parametrize("kind", LSTM_NEURONS)
def test_neurons_of_snntorch_with_layers_within_are_named(kind, behind):
    net = PassesLstmStates(*LSTM_NEURONS[kind], behind)
    message = f"'lstm' is a {kind}, which is not supported: use one of .*Leaky"
    assert_refused(lambda: from_torch(net, torch.rand(4, *net.shape)), ConversionError, message)


class Leaky(torch.nn.Module):
    """Of another package than snnTorch."""

    def forward(self, x):
        return (x > 1).to(x.dtype)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (sequence(torch.nn.Tanh()), "'1' is a Tanh, which is not supported: replace it by a spiking neuron"),
        (sequence(), "the module has no neurons"),
        # Layers with the name of a supported layer are reported with their package.
        (sequence(leaky(), dynamic.Linear(3, 3), leaky()),
         r"'2' is a torch\.ao\.nn\.[a-z.]*\.Linear, which is not"),
        (sequence(leaky(), Leaky(), leaky()), r"'2' is a [a-z_.]*test_module_messages\.Leaky, which"),
    ],
)  # fmt: skip
def test_layers_that_are_not_supported_are_named(net, message):
    assert_no_graph(net, (5,), message)


def test_a_layer_that_gives_no_tensor_is_not_supported():
    """SpikingJelly's NoisyNonSpikingIFNode gives a list of membranes."""
    net = sequence(jelly("NoisyNonSpikingIFNode", num_node=3, is_training=False, T=4))
    assert_no_graph(net, (5,), "'1' is a NoisyNonSpikingIFNode, which is not supp", time=(4,))


def test_classes_and_modules_of_torchs_compiler_are_refused():
    traced = torch.jit.trace(torch.nn.Linear(5, 3), torch.zeros(1, 5))
    for module, message in (
        (torch.nn.Linear, r"Linear is a class, not an instance of torch.nn.Module: pass a module, such as Linear\("),
        (traced, "of torch.jit is compiled and cannot be traced: pass the module before"),
    ):  # fmt: skip
        assert_refused(
            lambda module=module: from_torch(module, torch.zeros(1, 5)), UsageError, message
        )


@pytest.mark.parametrize(
    ("first", "shape", "inner", "axes", "expected"),
    [
        (torch.nn.Linear(5, 3), (5,), r"\(\)", "one axis", r"\*shape"),
        (torch.nn.Linear(5, 3), (7, 2, 5), r"\(2, 5\)", "one axis", r"\*shape"),
        (torch.nn.Conv2d(1, 3, 3), (1, 8, 8), r"\(8, 8\)", "3 axes", r"channels, \*shape"),
        (torch.nn.AvgPool2d(2), (1, 8, 8), r"\(8, 8\)", "3 axes", r"channels, \*shape"),
    ],
)
def test_a_sample_without_batch_or_with_time_is_refused_as_that(
    first, shape, inner, axes, expected
):
    net = torch.nn.Sequential(first, leaky())
    message = (
        rf"'0' \(\w+\) receives inputs of shape {inner} after batch, and NIR supports {axes}: "
        rf"pass a sample \(batch, {expected}\) of one time st"
    )
    assert_refused(lambda: from_torch(net, torch.zeros(shape)), ConversionError, message)


def dropping(**options):
    """Drops at random by a function."""

    def forward(net, x):
        flags = {name: getattr(net, flag) for name, flag in options.items()}
        return net.out(torch.nn.functional.dropout(net.fc(x), **flags))

    return Wired(forward, fc=torch.nn.Linear(5, 3))


def test_a_function_that_drops_at_random_is_refused_as_that():
    assert "out" in from_torch(dropping(training="training").eval(), torch.zeros(1, 5)).nodes
    message = r"dropout .* in training mode, .* call module.eval\(\) first, and pass training=self"
    for net in (dropping(training="training"), dropping().eval()):
        assert_no_graph(net, (5,), message)


def test_layers_take_their_input_by_name():
    def by_name(change):
        def forward(net, x):
            return net.out(input_=net.fc(input=change(net.first(input_=x))))

        return Wired(forward, first=leaky(), fc=torch.nn.Linear(5, 3))

    assert "out" in from_torch(by_name(lambda x: x), torch.zeros(1, 5)).nodes
    assert_no_graph(by_name(torch.tanh), (5,), r"the input of 'fc' \(Linear\) is computed out")


class AlongTime(torch.nn.Module):
    """Neurons in step mode "m", with a convolution along time between them."""

    def __init__(self):
        super().__init__()
        self.lif1, self.lif2 = jelly("LIFNode", step_mode="m"), jelly("LIFNode", step_mode="m")
        self.conv = torch.nn.Conv1d(5, 3, 3, padding=1)

    def forward(self, x):
        spikes = self.lif1(x.permute(1, 0, 2)).permute(1, 2, 0)
        return self.lif2(self.conv(spikes).permute(2, 0, 1))


def test_the_error_names_the_layer_that_mixes_time_steps():
    message = r"the input of 'lif2' .* time steps of 'lif1' at once, by 'conv', .* \(.*, line \d+\)"
    assert_refused(lambda: from_torch(AlongTime(), torch.rand(2, 6, 5)), ConversionError, message)


def pooled(**reset):
    """A convolution, neurons, the largest of their spikes, and a readout of spikes."""
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(1, 2, 3, bias=False), leaky(**reset), torch.nn.MaxPool2d(2)
    torch.nn.init.constant_(layers[0].weight, 0.5)  # membranes reach twice the threshold
    net = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(18, 3), leaky(**reset))
    return from_torch(net, torch.zeros(1, 1, 8, 8))


@pytest.mark.parametrize("late", [True, False])
def test_neurons_before_a_largest_that_subtract_are_converted_exactly(late, converts):
    """Weights of each neuron to itself move a delayed subtraction and keep the convolutions; an immediate
    one needs several nodes, which are written as matrices.
    """
    graph = pooled(reset_mechanism="subtract", reset_delay=late)
    x = random_raster(3, (40, 4, 1, 8, 8))
    y = np.asarray(simulate(graph, x, engine=TimeStepped()).output())
    conversion = converts(graph, "spikingjelly", x, y)
    types = {node.type for node in conversion.graph.nodes.values()}
    if late:
        assert {"Conv2d", "AvgPool2d"} <= types
        assert "SumPool2d" not in types
        # Self-weights of the neurons '1' and '5': by channel, and of one axis.
        self_weights = [
            change.node for change in conversion.changes if "compensates in '" in change.what
        ]
        weight_nodes = [conversion.names.get(name, name) for name in self_weights]
        assert [conversion.graph.nodes[name].type for name in weight_nodes] == ["Conv2d", "Linear"]
    else:
        assert not types & {"SumPool2d", "AvgPool2d", "Conv2d"}
    assert not convert(pooled(reset_mechanism="zero"), to="spikingjelly").losses


def test_neurons_that_never_decay_are_refused_by_events_and_run_in_steps():
    net = sequence(leaky(beta=1.0, reset_mechanism="zero"))
    graph = from_torch(net, torch.zeros(1, 5))
    problem = check(graph, "event").problems[0]
    assert problem.node == "1"
    assert "tau of neuron 0 is infinite, " in problem.message
    assert "alpha or beta is 1" in problem.message
    assert "use an IF" in problem.fix
    assert "simulate with engine=TimeStepped()" in problem.fix
    events = Events(time=np.array([0.0]), index=np.array([0]))
    assert_refused(lambda: simulate(graph, events, t_end=1.0), LoweringError, "beta is 1")
    solution = simulate(graph, np.ones((3, 1, 5), np.float32), engine=TimeStepped())
    assert solution.output().shape == (3, 1, 3)


def test_a_reset_above_the_threshold_is_to_be_lowered():
    graph = from_torch(sequence(jelly("LIFNode", v_threshold=1.0, v_reset=2.0)), torch.zeros(1, 5))
    message = (
        r"resets to 2, which is not below its v_threshold 1, .*: lower v_reset or raise v_threshold"
    )
    assert_refused(lambda: convert(graph, to="spikingjelly"), ConversionError, message)
