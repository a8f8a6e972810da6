"""What a module cannot be is refused for its own reason, with the way out."""

import numpy as np
import pytest
import torch

from jaxsnn import Events, TimeStepped, check, convert, from_torch, simulate
from jaxsnn.errors import ConversionError, LoweringError, UsageError
from tests.helpers.random_spikes import random_raster

pytestmark = pytest.mark.interop


def leaky(**options):
    import snntorch

    return snntorch.Leaky(**{"beta": 0.9, "init_hidden": True} | options)


@pytest.mark.parametrize("shape", [(5,), (1, 5)])
def test_layers_that_run_through_time_need_an_axis_of_time(shape):
    from spikingjelly.activation_based import neuron

    net = torch.nn.Sequential(torch.nn.Linear(5, 3), neuron.LIFNode(step_mode="m"))
    with pytest.raises(
        ConversionError,
        match=r"layer '1' \(LIFNode\) runs through time itself, .* which has no time axis: give a sample \(time, b",
    ):
        from_torch(net, torch.zeros(shape))
    assert from_torch(net, torch.zeros(4, 1, 5)).nodes["1"].type == "LIF"


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_spikes_at_other_steps_and_is_refused(kind):
    from spikingjelly.activation_based import neuron

    net = torch.nn.Sequential(torch.nn.Linear(5, 3), neuron.LIFNode(), torch.nn.Linear(3, 2))
    message = rf"'0' \(Linear\) computes in {kind}, .* in float32, .*: give a copy in float32"
    with pytest.raises(ConversionError, match=message):
        from_torch(net.to(kind), torch.zeros(1, 5, dtype=kind))
    assert from_torch(net.float(), torch.zeros(1, 5)).nodes["1"].type == "LIF"
    assert from_torch(net.double(), torch.zeros(1, 5).double()).nodes["1"].type == "LIF"


def test_a_sample_is_a_tensor_of_the_type_of_the_weights_or_an_array():
    from spikingjelly.activation_based import neuron

    net = torch.nn.Sequential(torch.nn.Linear(5, 3), neuron.LIFNode())
    expected = from_torch(net, torch.zeros(1, 5))
    for sample in (np.zeros((1, 5)), np.zeros((1, 5), int), [[0, 0, 0, 0, 0]]):
        assert from_torch(net, sample).edges == expected.edges
        assert from_torch(net.double(), sample).edges == expected.edges
        net.float()
    message = r"sample of shape \(1, 5\) of torch.int64: .*: give a sample of torch.float32, as its weights are"
    with pytest.raises(ConversionError, match=message):
        from_torch(net, torch.zeros(1, 5, dtype=torch.int64))
    with pytest.raises(
        ConversionError, match=r"the sample, a str, cannot be converted to a tensor: .*: give a t"
    ):
        from_torch(net, "zeros")


class Fails(torch.nn.Module):
    """Raises its own errors: at once, or later in a layer of its own."""

    def __init__(self, steps, error):
        super().__init__()
        self.fc, self.lif, self.left, self.error = torch.nn.Linear(5, 3), leaky(), steps, error

    def forward(self, x):
        self.left -= 1
        if self.left < 0:
            raise self.error
        return self.lif(self.fc(x))


@pytest.mark.parametrize(
    ("steps", "error", "message"),
    [
        (
            0,
            KeyError("a"),
            r"for a sample of shape \(1, 5\) with KeyError \(a\), in layer '0' \(Fails\)",
        ),
        (3, KeyError("a"), r"forward of Sequential fails in step 3 with KeyError \(a\), in layer"),
        (
            0,
            AssertionError(),
            r"fails for a sample of shape \(1, 5\) with AssertionError, in layer",
        ),
        (0, RuntimeError("no 'b'"), r"does not take .* of torch.float32: no 'b', in layer '0' \(F"),
    ],
)
def test_what_a_module_raises_is_said_with_the_layer(steps, error, message):
    with pytest.raises(ConversionError, match=message) as caught:
        from_torch(torch.nn.Sequential(Fails(steps, error)), torch.zeros(1, 5))
    assert caught.value.__cause__ is error


def test_a_refusal_names_the_function_that_is_not_taken():
    class Joined(torch.nn.Module):
        def __init__(self, late):
            super().__init__()
            self.a, self.b, self.lif = torch.nn.Linear(5, 3), torch.nn.Linear(5, 3), leaky()
            self.late = late

        def forward(self, x):
            if self.late:
                return torch.tanh(self.lif(self.a(x)))
            return self.lif(torch.maximum(self.a(x), self.b(x)))

    with pytest.raises(ConversionError, match=r"input of 'lif' .* of layers, by torch's maximum, "):
        from_torch(Joined(False), torch.zeros(1, 5))
    with pytest.raises(ConversionError, match=r"output of the module .*, by torch's tanh, which"):
        from_torch(Joined(True), torch.zeros(1, 5))


def test_a_refusal_names_the_first_function_that_is_not_taken():
    class Gated(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif, self.gate = (
                torch.nn.Linear(5, 3),
                leaky(),
                torch.nn.Parameter(torch.ones(3)),
            )

        def forward(self, x):
            return self.lif((torch.abs(self.fc(x)) * self.gate.sigmoid()).flatten(1))

    with pytest.raises(ConversionError, match=r"input of 'lif' .* of layers, by torch's abs, whi"):
        from_torch(Gated(), torch.zeros(1, 5))


def test_a_layer_that_gives_no_tensor_is_not_supported():
    """SpikingJelly's NonSpikingLIFNode gives a list of membranes."""
    net = torch.nn.Sequential(torch.nn.Linear(5, 3), spikingjelly("NonSpikingLIFNode"))
    with pytest.raises(ConversionError, match="'1' is a NonSpikingLIFNode, which is not supp"):
        from_torch(net, torch.zeros(4, 1, 5))


def spikingjelly(kind):
    from spikingjelly.activation_based import neuron

    return getattr(neuron, kind)()


@pytest.mark.parametrize("kind", ["QIFNode", "KLIFNode"])
@pytest.mark.parametrize("last", [True, False])
def test_a_neuron_with_layers_within_that_is_not_supported_is_named(kind, last):
    """The layer behind it, or the one within, was named, as if forward computed something."""
    first = torch.nn.Linear(5, 3), spikingjelly("LIFNode"), torch.nn.Linear(3, 3)
    behind = () if last else (torch.nn.Linear(3, 2), spikingjelly("LIFNode"))
    net = torch.nn.Sequential(*first, spikingjelly(kind), *behind)
    with pytest.raises(
        ConversionError, match=f"'3' is a {kind}, which is not supported: supported"
    ):
        from_torch(net, torch.zeros(1, 5))


def test_classes_and_modules_of_torchs_compiler_are_refused():
    traced = torch.jit.trace(torch.nn.Linear(5, 3), torch.zeros(1, 5))
    for module, message in (
        (
            torch.nn.Linear,
            r"Linear is a class, not a torch.nn.Module: pass a module, such as Linear\(",
        ),
        (
            traced,
            "of torch.jit has no layers of Python that could be traced: pass the module that",
        ),
    ):
        with pytest.raises(UsageError, match=message):
            from_torch(module, torch.zeros(1, 5))


@pytest.mark.parametrize(
    ("first", "shape", "inward", "axes", "wanted"),
    [
        (torch.nn.Linear(5, 3), (5,), r"\(\)", "one axis", r"\*shape"),
        (torch.nn.Linear(5, 3), (7, 2, 5), r"\(2, 5\)", "one axis", r"\*shape"),
        (torch.nn.Conv2d(1, 3, 3), (1, 8, 8), r"\(8, 8\)", "3 axes", r"channels, \*shape"),
        (torch.nn.AvgPool2d(2), (1, 8, 8), r"\(8, 8\)", "3 axes", r"channels, \*shape"),
    ],
)
def test_a_sample_without_batch_or_with_time_is_refused_as_that(first, shape, inward, axes, wanted):
    net = torch.nn.Sequential(first, leaky())
    message = (
        rf"'0' \(\w+\) takes numbers of shape {inward} behind batch, and in NIR numbers of {axes}"
    )
    with pytest.raises(
        ConversionError, match=rf"{message}: give a sample \(batch, {wanted}\) of one st"
    ):
        from_torch(net, torch.zeros(shape))


class Drops(torch.nn.Module):
    def __init__(self, knows):
        super().__init__()
        self.fc, self.lif, self.knows = torch.nn.Linear(5, 3), leaky(), knows

    def forward(self, x):
        told = {"training": self.training} if self.knows else {}
        return self.lif(torch.nn.functional.dropout(self.fc(x), **told))


def test_a_function_that_drops_at_random_is_refused_as_that():
    assert "lif" in from_torch(Drops(True).eval(), torch.zeros(1, 5)).nodes
    message = r"dropout .* in training mode, .* call module.eval\(\) first, and give dropout training=self"
    for net in (Drops(True), Drops(False).eval()):
        with pytest.raises(ConversionError, match=message):
            from_torch(net, torch.zeros(1, 5))


class ByName(torch.nn.Module):
    """Gives its layers what they take by name, changed before or not."""

    def __init__(self, change):
        super().__init__()
        self.change = change
        self.block = torch.nn.Sequential(torch.nn.Linear(5, 3), leaky())

    def forward(self, x):
        first, second = self.block
        return second(input_=first(input=self.change(x)))


def test_layers_take_their_input_by_name():
    assert "block.1" in from_torch(ByName(lambda x: x), torch.zeros(1, 5)).nodes
    with pytest.raises(ConversionError, match=r"the input of 'block.0' \(Linear\) is computed out"):
        from_torch(ByName(torch.tanh), torch.zeros(1, 5))


class Leaky(torch.nn.Module):
    """Of another package than snnTorch."""

    def forward(self, x):
        return (x > 1).to(x.dtype)


def test_layers_of_the_same_name_from_elsewhere_are_named_with_their_home():
    from torch.ao.nn.quantized import dynamic

    quantized = dynamic.Linear(5, 3)
    with pytest.raises(
        ConversionError, match=r"'0' is a torch\.ao\.nn\.[a-z.]*\.Linear, which is not"
    ):
        from_torch(torch.nn.Sequential(quantized, leaky()), torch.zeros(1, 5))
    with pytest.raises(
        ConversionError, match=r"'1' is a [a-z_.]*test_module_messages\.Leaky, which"
    ):
        from_torch(torch.nn.Sequential(torch.nn.Linear(5, 3), Leaky(), leaky()), torch.zeros(1, 5))


def pooled(**reset):
    """A convolution, neurons, the largest of their spikes, and a readout of spikes."""
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(1, 2, 3, bias=False), leaky(**reset), torch.nn.MaxPool2d(2)
    torch.nn.init.constant_(layers[0].weight, 0.5)  # membranes reach twice the threshold
    net = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(18, 3), leaky(**reset))
    return from_torch(net, torch.zeros(1, 1, 8, 8))


@pytest.mark.parametrize("late", [True, False])
def test_neurons_before_a_largest_that_subtract_are_written_by_matrices(late, converts):
    """The importer's neurons of several axes cannot subtract so; those of one axis can."""
    graph, x = (
        pooled(reset_mechanism="subtract", reset_delay=late),
        random_raster(3, (40, 4, 1, 8, 8)),
    )
    y = np.asarray(simulate(graph, x, engine=TimeStepped()).output())
    made = converts(graph, "spikingjelly", x, y)
    kinds = [node.type for node in made.graph.nodes.values()]
    assert "SumPool2d" not in kinds
    assert "Conv2d" not in kinds
    assert not convert(pooled(reset_mechanism="zero"), to="spikingjelly").losses


def test_neurons_that_never_decay_are_refused_by_events_and_run_in_steps():
    net = torch.nn.Sequential(torch.nn.Linear(5, 3), leaky(beta=1.0, reset_mechanism="zero"))
    graph = from_torch(net, torch.zeros(1, 5))
    first = check(graph, "event").problems[0]
    assert "node '1' (LIF): tau of neuron 0 is infinite: " in first.message
    assert "alpha or beta is 1" in first.message
    assert "write an IF" in first.fix
    assert "simulate with engine=TimeStepped()" in first.fix
    with pytest.raises(LoweringError, match="beta is 1"):
        simulate(graph, Events(time=np.array([0.0]), index=np.array([0])), t_end=1.0)
    assert simulate(graph, np.ones((3, 1, 5), np.float32), engine=TimeStepped()).output().shape == (
        3,
        1,
        3,
    )


def test_a_reset_above_the_threshold_is_to_be_lowered():
    from spikingjelly.activation_based import neuron

    net = torch.nn.Sequential(torch.nn.Linear(5, 3), neuron.LIFNode(v_threshold=1.0, v_reset=2.0))
    graph = from_torch(net, torch.zeros(1, 5))
    message = r"resets to 2, not below its v_threshold 1, .*: lower v_reset or raise v_threshold"
    with pytest.raises(ConversionError, match=message):
        convert(graph, to="spikingjelly")


@pytest.mark.parametrize(
    ("function", "given"),
    [
        (torch.div, {"rounding_mode": "floor"}),
        (torch.add, {"alpha": 2}),
        (torch.sub, {"alpha": 2}),
    ],
)
def test_products_that_are_more_than_one_by_a_number_are_refused(function, given):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif = torch.nn.Linear(5, 3), leaky()

        def forward(self, x):
            return self.lif(function(self.fc(x), 2, **given))

    with pytest.raises(ConversionError, match=rf"by torch's {function.__name__}, which is not"):
        from_torch(Net(), torch.zeros(1, 5))
