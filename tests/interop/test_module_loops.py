"""from_torch: a loop over time in forward is folded into one step; what is no such loop is refused."""

import itertools

import numpy as np
import pytest
import snntorch as snn
import torch
from norse.torch import (
    LIF,
    IAFCell,
    IAFFeedForwardState,
    LIFBoxCell,
    LIFBoxParameters,
    LIFCell,
    LIFParameters,
    Lift,
)
from spikingjelly.activation_based.encoding import PoissonEncoder
from spikingjelly.activation_based.neuron import LIFNode
from torch import nn

from jaxsnn import (
    TimeStepped,
    from_torch,
    load_into,
    lower,
    read,
    simulate,
    split_module,
    verify,
    write,
)
from jaxsnn.errors import ConversionError
from jaxsnn.nir.torch.folding import fold
from jaxsnn.nir.torch.recording import Operation, TensorValue
from tests.helpers.refusals import assert_refused
from tests.interop.modules import Wired, low_leaky

pytestmark = pytest.mark.interop
STEPS = 6


class Script:
    """A recording that is written by hand: layers and functions by name, one place in the code each."""

    def __init__(self):
        self.operations, self.layers = [], {}

    def call(self, name, *tokens, results=1, kind="function", state_changed=False):
        func = self.layers.setdefault(name, object())
        operation = Operation(
            kind=kind, name=name, func=func, args=(), kwargs={}, tokens=list(tokens), inputs={},
            site=(name,), line=f"net.py, line {len(name)}", index=len(self.operations),
            is_neuron=name.startswith("lif"), state_changed=state_changed,
        )  # fmt: skip
        operation.outputs = [
            TensorValue(torch.zeros(()), operation, path) for path in range(results)
        ]
        self.operations.append(operation)
        return operation.outputs[0] if results == 1 else operation.outputs

    def layer(self, name, *tokens, **options):
        results = 2 if name.startswith("lif") else 1
        return self.call(name, *tokens, kind="layer", results=results, **options)


def unrolled(change=lambda step, current, script: current, *, state=True, steps=STEPS):
    """A recording of two layers, of which the first takes a part of x and the second weights, with a
    sum of its spikes.
    """
    script, x = Script(), TensorValue(torch.zeros(()))
    mem1 = mem2 = None
    total = 0
    for step in range(steps):
        current = script.layer("fc", script.call("__getitem__", x, step))
        current = change(step, current, script)
        spikes, mem1 = script.layer("lif1", current, *((mem1,) if state else ()))
        spikes, mem2 = script.layer("lif2", script.layer("out", spikes), mem2)
        total = script.call("add", total, spikes)
    return script


def names_in(folded, step):
    return [op.name for op in folded.operations if op.step == step]


def test_calls_of_a_loop_are_those_of_its_steps():
    script = unrolled()
    script.call("softmax", script.operations[-1].outputs[0], -1)
    folded = fold(script.operations)
    assert folded.steps == STEPS
    once = ["__getitem__", "fc", "lif1", "out", "lif2", "add"]
    for step in range(1, STEPS + 1):
        assert names_in(folded, step) == once
    assert names_in(folded, 0) == ["softmax"]


def test_layers_that_are_run_one_after_the_other_are_in_the_same_step():
    script, x = Script(), TensorValue(torch.zeros(()))
    state, spikes = None, []
    for step in range(STEPS):
        fired, state = script.layer("lif1", script.call("__getitem__", x, step), state)
        spikes.append(fired)
    state = None
    for fired in spikes:
        _, state = script.layer("lif2", fired, state)
    folded = fold(script.operations)
    assert names_in(folded, STEPS) == ["__getitem__", "lif1", "lif2"]


def test_what_begins_in_the_second_step_is_of_the_steps_from_the_second_on():
    held = []

    def with_feedback(step, current, script):
        held.append(script.operations)
        if not step:
            return current
        spikes = next(op for op in reversed(script.operations) if op.name == "lif2").outputs[0]
        return script.call("plus", current, script.layer("rec", spikes))

    folded = fold(unrolled(with_feedback).operations)
    assert "rec" not in names_in(folded, 1)
    assert all("rec" in names_in(folded, step) for step in range(2, STEPS + 1))


def times(step, current, script):
    return script.call("mul", current, step)


def one_step_doubled(step, current, script):
    return script.call("mul", current, 2) if step == 3 else current


def another_layer(step, current, script):
    return script.layer(f"fc{step}", current)


def read_in_python(step, current, script):
    script.call("item", current)
    return current


def constants(step, current, script):
    return script.call("add_noise", current, TensorValue(torch.zeros(())))


DIFFERS = "the input of 'lif1' is computed differently in different time steps"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (times, DIFFERS),
        (one_step_doubled, DIFFERS),
        (another_layer, DIFFERS),
        (constants, DIFFERS),
        (read_in_python, "converts a tensor to Python values, by item"),
    ],
)
def test_steps_that_differ_are_refused_with_the_line(change, message):
    script = unrolled(change)
    assert_refused(
        lambda: fold(script.operations), ConversionError, rf"{message}.*\(net\.py, line \d+\)"
    )


def states(kind):
    """A recording of one neuron whose state is not its own of the step before."""
    script, x = Script(), TensorValue(torch.zeros(()))
    initial = TensorValue(torch.zeros(()))
    held = [initial, initial]
    for step in range(STEPS):
        current = script.call("__getitem__", x, step)
        if kind == "reset":
            before = initial if step % 3 == 0 else held[-1]
        elif kind == "constant":
            before = initial
        else:
            before = {"late": held[-2], "scaled": script.call("mul", held[-1], 0.9)}[kind]
        held.append(script.layer("lif", current, before)[1])
    return script


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("reset", "the input of 'lif' is computed differently in different time steps"),
        (
            "constant",
            "receives a state that differs from the state it returned in the previous time step",
        ),
        ("late", "'lif' receives a tensor that was computed 2 time steps before"),
        (
            "scaled",
            "receives a state that differs from the state it returned in the previous time step",
        ),
    ],
)
def test_states_that_are_not_passed_on_are_refused(kind, message):
    assert_refused(lambda: fold(states(kind).operations), ConversionError, message)


def test_a_state_that_forward_writes_is_refused():
    script, x = Script(), TensorValue(torch.zeros(()))
    for step in range(STEPS):
        part = script.call("__getitem__", x, step)
        script.layer("lif", part, state_changed=step > 0)
    message = "forward changes the state of 'lif' in the loop over time"
    assert_refused(lambda: fold(script.operations), ConversionError, message)


@pytest.mark.parametrize("steps", [2, 3])
def test_two_steps_are_too_few(steps):
    script = unrolled(steps=steps)
    if steps == 3:
        assert fold(script.operations).steps == 3
        return
    message = "loops over 2 time steps of the sample, and at least 3 are needed"
    assert_refused(lambda: fold(script.operations), ConversionError, message)


# Modules


class Net(nn.Module):
    """Two layers, of which a subclass makes a loop."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.fc1, self.lif1 = nn.Linear(5, 8), low_leaky(init_hidden=False)
        self.fc2, self.lif2 = nn.Linear(8, 3), low_leaky(init_hidden=False)
        for layer in (self.fc1, self.fc2):
            nn.init.uniform_(layer.weight, -0.5, 0.8)

    def steps(self, frames):
        """Yield spikes and membranes of each step."""
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        for frame in frames:
            spikes, mem1 = self.lif1(self.fc1(frame), mem1)
            spikes, mem2 = self.lif2(self.fc2(spikes), mem2)
            yield spikes, mem2


LOOPS = {
    "stack of spikes and membranes": (
        lambda net, x: [torch.stack(rows) for rows in zip(*net.steps(x), strict=True)],
        (STEPS, 2, 5),
    ),
    "batch first": (
        lambda net, x: torch.stack([y for y, _ in net.steps(x[:, t] for t in range(STEPS))], 1),
        (2, STEPS, 5),
    ),
    "permuted": (lambda net, x: sum(y for y, _ in net.steps(x.permute(2, 0, 1))), (2, 5, STEPS)),
    "static": (lambda net, x: sum(y for y, _ in net.steps([x] * STEPS)) / STEPS, (2, 5)),
    "last membrane": (lambda net, x: [mem for _, mem in net.steps(x)][-1], (STEPS, 2, 5)),
    "encoder": (
        lambda net, x: torch.stack(
            [y for y, _ in net.steps((torch.rand_like(x) < x).float() for _ in range(STEPS))]
        ).mean(0),
        (2, 5),
    ),
    "split": (
        lambda net, x: sum(y for y, _ in net.steps(part[0] for part in torch.split(x, 1))),
        (STEPS, 2, 5),
    ),
}


def looped(forward, seed=0):
    net = Net(seed)
    net.forward = lambda x: forward(net, x)
    return net


@pytest.mark.parametrize("kind", LOOPS)
def test_a_loop_is_read_verified_and_loaded(kind):
    forward, shape = LOOPS[kind]
    net, sample = looped(forward), torch.rand(shape, generator=torch.Generator().manual_seed(3))
    graph = from_torch(net, sample)
    layers = ["input", "fc1", "lif1", "fc2", "lif2", "output"]
    assert set(itertools.pairwise(layers)) <= {*graph.edges, ("input", "fc1")}
    assert verify(graph, net, sample).ok
    second = looped(forward, seed=1)
    load_into(second, graph, sample=sample)
    np.testing.assert_array_equal(second.fc1.weight.detach(), net.fc1.weight.detach())
    assert verify(graph, second, sample).ok


def test_a_note_reports_steps_that_are_read_backwards():
    def forward(net, x):
        return torch.stack([y for y, _ in net.steps(x[len(x) - 1 - t] for t in range(len(x)))])

    net, sample = looped(forward), torch.rand(STEPS, 2, 5)
    graph = from_torch(net, sample)
    (note,) = graph.warnings
    assert note.code == "outside-graph"
    assert "indexing before its input" in note.message
    assert verify(graph, net, sample).ok


def test_what_forward_computes_around_its_steps_is_a_note():
    forward, shape = LOOPS["encoder"]
    (note,) = from_torch(looped(forward), torch.rand(shape)).warnings
    assert note.code == "outside-graph"
    assert note.severity == "note"
    assert note.message.endswith("rand_like, lt before its input, mean after its outputs")


class ThroughTime(Net):
    """Weights of all time steps at once, in front of the loop and behind another one."""

    def forward(self, x):
        currents, mem, outputs = self.fc1(x), None, []
        for current in currents:
            spikes, mem = self.lif1(current, mem)
            outputs.append(spikes)
        currents, mem, outputs = self.fc2(torch.stack(outputs)), None, []
        for step in range(len(x)):
            spikes, mem = self.lif2(currents[step], mem)
            outputs.append(spikes)
        return torch.stack(outputs)


def test_weights_of_all_steps_at_once_are_those_of_each_step():
    graph = from_torch(ThroughTime(), torch.rand(STEPS, 2, 5))
    assert {("input", "fc1"), ("fc1", "lif1"), ("lif1", "fc2"), ("fc2", "lif2")} <= set(graph.edges)


class TakesTwice(Net):
    """Takes a step of its input in two places."""

    def __init__(self):
        super().__init__()
        self.skip = nn.Linear(5, 3)

    def forward(self, x):
        mem1 = mem2 = None
        total = 0
        for step in range(len(x)):
            spikes, mem1 = self.lif1(self.fc1(x[step]), mem1)
            spikes, mem2 = self.lif2(self.fc2(spikes) + self.skip(x[step]), mem2)
            total = total + spikes
        return total


def test_a_step_of_the_input_that_is_taken_twice_is_one_input():
    graph = from_torch(TakesTwice(), torch.rand(STEPS, 2, 5))
    assert {("input", "fc1"), ("input", "skip")} <= set(graph.edges)


class AlongTime(Net):
    """A convolution along the axis of time, between two loops."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(8, 8, 3, padding=1)

    def forward(self, x):
        mem, outputs = None, []
        for frame in x:
            spikes, mem = self.lif1(self.fc1(frame), mem)
            outputs.append(spikes)
        mixed = self.conv(torch.stack(outputs, 2)).permute(2, 0, 1)
        mem, outputs = None, []
        for step in range(len(x)):
            spikes, mem = self.lif2(self.fc2(mixed[step]), mem)
            outputs.append(spikes)
        return torch.stack(outputs)


class Stops(Net):
    """Ends its loop by what neurons fire."""

    def forward(self, x):
        outputs = []
        for spikes, _ in self.steps(x):
            outputs.append(spikes)
            if sum(outputs).max() > 2:
                break
        return outputs[-1]


class Gated(Net):
    """DeltaLeaky neurons, which NIR does not have and whose state is a tuple."""

    def __init__(self):
        super().__init__()
        self.lif1 = snn.DeltaLeaky(beta=0.8)
        snn.SpikingNeuron.instances.remove(
            self.lif1
        )  # snnTorch's reset of all neurons fails for it

    def forward(self, x):
        mem, outputs = self.lif1.reset_mem(), []
        for frame in x:
            spikes, mem = self.lif1(self.fc1(frame), mem)
            outputs.append(spikes)
        return torch.stack(outputs)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Gated(), "'lif1' is a DeltaLeaky, which is not supported"),
        (AlongTime(), r"from all time steps of 'lif1' at once, by 'conv', .* \(test_mod"),
        (Stops(), r"converts a tensor to Python values, by bool|calls different operations for another inp"),
    ],
)  # fmt: skip
def test_what_no_step_computes_is_refused_with_the_line(net, message):
    assert_refused(lambda: from_torch(net, torch.rand(STEPS, 2, 5)), ConversionError, message)


def test_a_neuron_that_is_only_set_up_by_a_subclass_is_the_librarys():
    class Quick(type(low_leaky())):
        def __init__(self):
            super().__init__(beta=0.5, threshold=0.5)

    net = looped(LOOPS["last membrane"][0])
    net.lif1 = Quick()
    assert from_torch(net, torch.rand(STEPS, 2, 5)).nodes["lif1"].type == "LIF"


def test_a_number_of_steps_follows_the_sample():
    net = Net()
    net.forward = lambda x, steps: sum(y for y, _ in net.steps([x] * steps))
    sample = torch.rand(2, 5)
    graph = from_torch(net, (sample, STEPS))
    assert verify(graph, net, (sample, STEPS)).ok
    assert_refused(
        lambda: from_torch(net, sample), ConversionError, "needs steps, and only a sample"
    )


class Surrounded(Net):
    """Layers that NIR cannot express, before and after the neurons of each step."""

    def __init__(self):
        super().__init__()
        self.encoder = PoissonEncoder()
        self.head = nn.Sequential(nn.Linear(3, 2), nn.LogSoftmax(-1))

    def forward(self, x):
        frames = (self.encoder(x) for _ in range(STEPS))
        return torch.stack([self.head(spikes) for spikes, _ in self.steps(frames)])


def test_layers_around_the_neurons_that_nir_cannot_express_are_omitted():
    net, sample = Surrounded(), torch.rand(2, 5)
    graph = from_torch(net, sample)
    assert set(graph.nodes) == {"input", "fc1", "lif1", "fc2", "lif2", "head.0", "output"}
    assert verify(graph, net, sample).ok
    (note,) = graph.warnings
    assert note.message.endswith("encoder before its input, head.1 after its outputs")


class Forgetful(nn.Module):
    """Neurons that only return their state, which forward ignores."""

    def __init__(self, neuron):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.lif = nn.Linear(5, 3), neuron
        nn.init.uniform_(self.fc.weight, 0.0, 6.0)

    def forward(self, x):
        return torch.stack([self.lif(self.fc(frame))[0] for frame in x])


def test_neurons_without_their_state_are_refused():
    message = (
        r"'lif' is called without its state of the previous time step.* \(test_mod.*: pass to each"
    )
    assert_refused(
        lambda: from_torch(Forgetful(IAFCell()), torch.rand(STEPS, 2, 5)), ConversionError, message
    )


@pytest.mark.parametrize(
    ("cell", "parameters"), [(LIFCell, LIFParameters), (LIFBoxCell, LIFBoxParameters)]
)
def test_cells_without_their_state_start_anew_in_each_step(cell, parameters, tmp_path):
    net, second = (
        Forgetful(cell(p=parameters(tau_mem_inv=torch.tensor(rate), v_reset=torch.tensor(-1.0))))
        for rate in (130.0, 90.0)
    )
    sample = torch.rand(STEPS, 2, 5)
    graph = from_torch(net, sample)
    assert [warning.code for warning in graph.warnings] == ["states-reset"]
    assert 0.1 < net(sample).mean() < 0.9
    assert verify(graph, net, sample).ok
    path = tmp_path / "graph.nir"
    write(path, graph)
    assert verify(read(path), net, sample).ok
    load_into(second, graph)
    assert verify(graph, second, sample).ok


def test_cells_without_their_state_that_rest_elsewhere_are_refused():
    neuron = LIFCell(p=LIFParameters(v_leak=torch.tensor(0.5)))
    assert_refused(
        lambda: from_torch(Forgetful(neuron), torch.rand(STEPS, 2, 5)), ConversionError,
        r"'lif' \(LIFCell\) starts from its initial state in each call, and its v_leak is 0.5",
    )  # fmt: skip


class Limited(nn.Module):
    """Scales large currents down, and large numbers of spikes."""

    def __init__(self, of_spikes):
        super().__init__()
        self.of_spikes, self.lif = of_spikes, snn.Leaky(beta=0.8)

    def forward(self, x, mem=None):
        if not self.of_spikes and x.max() > 1e6:
            x = 0 * x
        spikes, mem = self.lif(x, mem)
        if self.of_spikes and spikes.sum() > 1e6:
            spikes = 0 * spikes
        return spikes, mem


@pytest.mark.parametrize("of_spikes", [False, True])
def test_branches_on_values_are_reported(of_spikes):
    (warning,) = from_torch(Limited(of_spikes), torch.rand(2, 3)).warnings
    assert warning.code == "python-values"
    assert "to Python values, by bool (test_module_loops.py, line " in warning.message


class LimitedLoop(Limited):
    """The same in a loop over time, whose sample is read before the loop as well."""

    def forward(self, x):
        assert x.min() >= 0
        mem, spikes = None, []
        for frame in x:
            spk, mem = super().forward(frame, mem)
            spikes.append(spk)
        return torch.stack(spikes)


def test_branches_on_values_in_a_loop_are_reported():
    (warning,) = from_torch(LimitedLoop(False), torch.rand(STEPS, 2, 3)).warnings
    assert warning.code == "python-values"


class Unbatched(nn.Module):
    """A loop over time steps without a batch axis, of which torch takes the first axis for features."""

    def __init__(self, weights):
        super().__init__()
        self.weights, self.lif = weights, snn.Leaky(beta=0.8)

    def forward(self, x):
        mem, spikes = self.lif.init_leaky(), []
        for frame in x:
            spk, mem = self.lif(self.weights(frame), mem)
            spikes.append(spk)
        return torch.stack(spikes)


@pytest.mark.parametrize(
    ("weights", "shape"), [(nn.Linear(4, 3), (4,)), (nn.Conv2d(2, 3, 3), (2, 4, 4))]
)
def test_samples_without_a_batch_axis_are_refused(weights, shape):
    problem = assert_refused(
        lambda: from_torch(Unbatched(weights), torch.rand(STEPS, *shape)), ConversionError,
        "'weights' .* receives inputs of shape", code="no-batch-axis", fix="or of several if",
    )  # fmt: skip
    assert problem.node == "weights"
    graph = from_torch(Unbatched(weights), torch.rand(STEPS, 1, *shape))
    assert "weights" in graph.nodes


class HalfForgetful(nn.Module):
    """Calls one cell for two layers, of which the second starts from zeros in each time step."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.cell = nn.Linear(3, 3), nn.Linear(3, 2), IAFCell()

    def forward(self, x):
        state, spikes = None, []
        for frame in x:
            spk, state = self.cell(self.first(frame), state)
            zeros = torch.zeros(len(frame), 2)
            spk, _ = self.cell(self.second(spk), IAFFeedForwardState(v=zeros))
            spikes.append(spk)
        return torch.stack(spikes)


def test_a_second_call_of_a_cell_that_forgets_is_refused_as_such():
    assert_refused(
        lambda: from_torch(HalfForgetful(), torch.rand(STEPS, 2, 3)), ConversionError,
        "forward resets the states of 'cell' .* before each call",
    )  # fmt: skip


class Stepped(nn.Module):
    """One step per call; the states of several layers in one tuple, which the caller passes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.fc2, self.lif = nn.Linear(5, 3), nn.Linear(3, 3), LIFCell()
        for layer in (self.fc1, self.fc2):
            nn.init.uniform_(layer.weight, 5, 9)

    def forward(self, x, states):
        first, second = states
        spikes, first = self.lif(self.fc1(x), first)
        spikes, second = self.lif(self.fc2(spikes), second)
        return spikes, (first, second)


def test_states_in_the_sample_are_initial_states():
    net, sample = Stepped(), (torch.rand(2, 5), (None, None))
    graph = from_torch(net, sample)
    assert {"lif", "lif_2"} <= set(graph.nodes)
    assert verify(graph, net, sample).ok


class WritesStates(Stepped):
    """Writes its states into the list, and into the tensors of the dict, that the caller passes."""

    def __init__(self):
        super().__init__()
        self.lif = snn.Leaky(beta=0.9, threshold=2.0)

    def forward(self, x, states):
        membranes, counts = states
        spikes, membranes[0] = self.lif(self.fc1(x), membranes[0])
        counts["steps"] += 1
        return spikes, states


def test_arguments_that_forward_writes_into_keep_their_values():
    membranes, counts = [torch.zeros(2, 3)], {"steps": torch.zeros(())}
    net, sample = WritesStates(), (torch.rand(2, 5), (membranes, counts))
    nn.init.uniform_(net.fc1.weight, 0.2, 0.6)
    graph = from_torch(net, sample)
    assert verify(graph, net, (torch.rand(STEPS, 2, 5), (membranes, counts))).ok
    assert not membranes[0].any()
    assert not counts["steps"].any()


@pytest.mark.parametrize("layers", [(), (nn.Flatten(),)])
def test_a_sample_of_all_steps_is_recognised_without_layers_of_fixed_width(layers):
    net = nn.Sequential(*layers, snn.Leaky(beta=0.5, init_hidden=True))
    shape = (3, 6) if not layers else (3, 2, 3)
    graph = from_torch(net, torch.rand(shape))
    assert verify(graph, net, 2 * torch.rand(10, *shape)).active
    assert verify(graph, net, 2 * torch.rand(shape)).ok


class TwoHeads(nn.Module):
    """Returns the spikes of two populations, and then the states of both."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.fc2 = nn.Linear(5, 3), nn.Linear(5, 2)
        self.lif1, self.lif2 = LIFCell(), LIFCell()
        for layer in (self.fc1, self.fc2):
            nn.init.uniform_(layer.weight, 3, 9)

    def heads(self, x, states):
        first, second = states or (None, None)
        spikes1, first = self.lif1(self.fc1(x), first)
        spikes2, second = self.lif2(self.fc2(x), second)
        return spikes1, spikes2, (first, second)

    def forward(self, x, states=None):
        spikes1, spikes2, (first, second) = self.heads(x, states)
        return spikes1, spikes2, (first, second)


class NamedState(TwoHeads):
    """Only the state has the name of a parameter, and it is between further results."""

    def forward(self, x, states=None):
        spikes1, spikes2, states = self.heads(x, states)
        return spikes1, torch.cat([spikes1, spikes2], 1), states, spikes2


@pytest.mark.parametrize("make", [TwoHeads, NamedState])
def test_states_are_returned_after_several_outputs_or_by_name(make):
    net, second = make(), make()
    graph = from_torch(net, torch.rand(2, 5))
    assert {"lif1", "lif2"} <= set(graph.nodes)
    sample = torch.rand(STEPS, 2, 5)
    assert verify(graph, net, sample).active
    nn.init.zeros_(second.fc2.weight)
    load_into(second, graph)
    assert verify(graph, second, sample).ok


def test_a_time_constant_that_is_an_int_gets_the_fractions_of_the_graph():
    net, second = (Stepped(), Stepped())
    net.lif, second.lif = (LIFCell(p=LIFParameters(tau_mem_inv=rate)) for rate in (180.4, 90))
    sample = (torch.rand(2, 5), (None, None))
    load_into(second, from_torch(net, sample), sample=sample)
    np.testing.assert_allclose(float(second.lif.p.tau_mem_inv), 180.4, rtol=1e-5)


def per_step(layer, x):
    return torch.stack([layer(x[t]) for t in range(len(x))])


def iterated(layer, x):
    return torch.stack([layer(frame) for frame in x])


def scaled_by_step(layer, x):
    return torch.stack([layer(frame) * (step + 1) for step, frame in enumerate(x)])


def around_all_steps(loop):
    """A neuron that loops over time itself, between two layers that forward loops over."""
    layers = {"fc": nn.Linear(6, 4), "lif": LIFNode(v_threshold=0.3, step_mode="m")}
    layers |= {"last": nn.Linear(4, 2)}
    return Wired(lambda net, x: per_step(net.last, net.lif(loop(net.fc, x))), **layers).eval()


@pytest.mark.parametrize("loop", [per_step, iterated])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_loops_over_layers_beside_neurons_that_loop_themselves_are_read(loop, steps):
    net, sample = around_all_steps(loop), torch.rand(steps, 3, 6)
    graph = from_torch(net, sample)
    assert set(graph.nodes) == {"input", "fc", "lif", "last", "output"}
    assert not graph.warnings
    second = around_all_steps(loop)
    load_into(second, graph, sample=sample)
    for length in (1, 4):
        assert verify(graph, second, torch.rand(length, 3, 6)).ok


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_loops_over_layers_that_compute_other_functions_in_other_steps_are_refused(steps):
    net, sample = around_all_steps(scaled_by_step), torch.rand(steps, 3, 6)
    message = "the input of 'lif' is computed differently in different time steps"
    assert_refused(lambda: from_torch(net, sample), ConversionError, message)


def test_layers_that_norse_lifts_ignore_states():
    linear, lifted = nn.Linear(6, 4), Lift(nn.Linear(4, 2))
    net, sample = nn.Sequential(linear, LIF(), lifted).eval(), torch.rand(5, 3, 6)
    graph = from_torch(net, sample)
    assert set(graph.nodes) == {"input", "0", "1", "2", "output"}
    assert verify(graph, net, sample).ok


@pytest.mark.parametrize("batch", [1, 2])
def test_a_batch_of_one_keeps_its_axis(batch):
    from spikingjelly.activation_based import layer

    def forward(net, x):
        return net.fc(torch.flatten(net.pool(net.lif(net.conv(x))), 2))

    layers = {"conv": layer.Conv2d(1, 3, 3, step_mode="m"), "fc": layer.Linear(12, 4)}
    layers |= {"pool": layer.AdaptiveAvgPool2d(2, step_mode="m"), "lif": LIFNode(step_mode="m")}
    net, sample = Wired(forward, **layers).eval(), torch.rand(4, batch, 1, 6, 6)
    graph = from_torch(net, sample)
    assert set(graph.nodes) == {"input", "conv", "lif", "pool", "flatten", "fc", "output"}
    assert verify(graph, net, sample).ok


class TwoLoops(nn.Module):
    """Two layers of neurons, each of which a function may run in a loop of its own."""

    def __init__(self, function, seed=0, **layers):
        super().__init__()
        torch.manual_seed(seed)
        self.function = function
        self.fc1, self.lif1 = nn.Linear(5, 8), low_leaky(init_hidden=False)
        self.fc2, self.lif2 = nn.Linear(8, 8), low_leaky(init_hidden=False)
        for layer in (self.fc1, self.fc2):
            nn.init.uniform_(layer.weight, -0.5, 0.8)
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.function(self, x)

    def first(self, frames):
        return self.loop(self.fc1, self.lif1, frames)

    def second(self, frames):
        return self.loop(self.fc2, self.lif2, frames)

    def loop(self, weights, neuron, frames):
        mem, outputs = None, []
        for frame in frames:
            spikes, mem = neuron(weights(frame), mem)
            outputs.append(spikes)
        return outputs


def over_attention(net, x):
    spikes = torch.stack(net.first(x), 1)
    query, key, value = net.qkv(spikes).chunk(3, -1)
    scores = torch.softmax(query @ key.transpose(1, 2), -1)
    return torch.stack(net.second((scores @ value).unbind(1)))


def over_tokens(net, x):
    spikes = torch.stack(net.first(x.unsqueeze(2).repeat(1, 1, 4, 1)))
    query, key, value = net.qkv(spikes).chunk(3, -1)
    return torch.stack(net.second((query @ key.transpose(-2, -1)) @ value))


def pooled_in_time(net, x):
    spikes = net.pool(torch.stack(net.first(x)).permute(1, 2, 0))
    return torch.stack(net.second(spikes.permute(2, 0, 1)))


def gated(net, x):
    spikes = net.first(x)
    return torch.stack(
        net.second(spk * net.fc1(frame) for spk, frame in zip(spikes, x, strict=True))
    )


ORDER = r"'lif2' receives in time step 6 a tensor that was computed in time step 1 \(test_mod"


@pytest.mark.parametrize(
    ("function", "layers", "message"),
    [
        (pooled_in_time, {"pool": nn.MaxPool1d(2)}, r"steps of 'lif1' at once, by 'pool', .* \(test_mod"),
        (over_attention, {"qkv": nn.Linear(8, 24)}, r"steps of 'lif1' at once, by torch's matmul, .* \(test_mod"),
        (over_tokens, {"qkv": nn.Linear(8, 24)}, r"by torch's matmul of two tensors .* \(test_mod.*: add the"),
        (gated, {}, r"by torch's mul of two tensors that depend on the sample, .* \(test_mod.*: add the tensors"),
        (lambda net, x: net.second(torch.stack(net.first(x)).flip(0)), {}, "steps of 'lif1' at once, by torch's flip"),
        (lambda net, x: net.second(net.first(x)[::-1]), {}, ORDER),
        (lambda net, x: net.second(torch.stack(net.first(x)[::-1])), {}, ORDER),
    ],
)  # fmt: skip
def test_operations_that_mix_time_steps_or_values_are_refused_with_the_line(
    function, layers, message
):
    net = TwoLoops(function, **layers)
    assert_refused(lambda: from_torch(net, torch.rand(STEPS, 2, 5)), ConversionError, message)


def view_before_the_loop(net, x):
    buffer = torch.zeros(2, STEPS, 8)
    rows = buffer.view(2 * STEPS, 8)
    for step, spikes in enumerate(net.first(x)):
        buffer[:, step] = spikes
    return net.fc2(rows).view(2, STEPS, 8)


def copied_into_parts(net, x):
    buffer = torch.zeros(STEPS, 2, 8)
    for step, spikes in enumerate(net.first(x)):
        buffer[step].copy_(spikes)
    return torch.stack(net.second(buffer))


def joined_currents(net, x):
    return torch.stack(net.second(torch.cat([net.fc1(frame)[None] for frame in x])))


def joined_along_the_second_axis(net, x):
    currents = torch.cat([net.fc1(frame).unsqueeze(1) for frame in x], axis=1)
    return torch.stack(net.second(currents.unbind(axis=-2)))


def permuted_between(net, x):
    return torch.stack(net.second(torch.stack(net.first(x), 2).permute(2, 0, 1)))


def reversed_head(net, x):
    return net.fc2(torch.stack(net.first(x)[::-1]))


ALL_LAYERS = ("fc1", "lif1", "fc2")


@pytest.mark.parametrize(
    ("function", "layers", "note"),
    [
        (view_before_the_loop, ALL_LAYERS, None),
        (copied_into_parts, (*ALL_LAYERS, "lif2"), None),
        (joined_currents, ("fc1", "fc2", "lif2"), None),
        (joined_along_the_second_axis, ("fc1", "fc2", "lif2"), None),
        (permuted_between, (*ALL_LAYERS, "lif2"), None),
        (reversed_head, ALL_LAYERS, "indexing after its outputs"),
        (lambda net, x: torch.stack(net.first(x)).flip(0), ("fc1", "lif1"), "flip after"),
        (lambda net, x: torch.stack(net.first(x.flip(0))), ("fc1", "lif1"), "flip before"),
    ],
)
def test_joined_and_reversed_time_steps_are_read(function, layers, note):
    net, sample = TwoLoops(function), torch.rand(STEPS, 2, 5)
    graph = from_torch(net, sample)
    assert set(graph.nodes) == {"input", *layers, "output"}
    assert [warning.severity for warning in graph.warnings] == ["note"] * (note is not None)
    assert note is None or note in graph.warnings[0].message
    assert verify(graph, net, sample).ok


def filled_through_a_view(net, x):
    buffer = torch.zeros(2, STEPS, 8)
    rows = buffer.transpose(0, 1)
    for step, spikes in enumerate(net.first(x)):
        rows[step] = spikes
        net.counts[0] += 1
    return buffer


def test_a_tensor_that_is_filled_through_a_view_of_it_is_a_result():
    net, sample = TwoLoops(filled_through_a_view), torch.rand(STEPS, 2, 5)
    net.register_buffer("counts", torch.zeros(2))
    parts = split_module(net, sample)
    y = simulate(lower(parts.graph), parts.encode(sample), engine=TimeStepped()).y
    for outputs in (y, {name: 1 - np.asarray(spikes) for name, spikes in y.items()}):
        (spikes,) = outputs.values()
        (buffer,) = parts.decode(outputs, sample)
        np.testing.assert_array_equal(buffer, np.asarray(spikes).swapaxes(0, 1))


def test_a_tensor_that_is_filled_through_a_view_of_it_is_not_taken_apart():
    net = TwoLoops(lambda net, x: net.second(filled_through_a_view(net, x).unbind(1)))
    net.register_buffer("counts", torch.zeros(2))
    message = r"steps of 'lif1' at once, by torch's change of a view, .* \(test_mod"
    assert_refused(lambda: from_torch(net, torch.rand(STEPS, 2, 5)), ConversionError, message)


def reversed_in_front(net, x):
    return net.lif(torch.stack([net.fc(frame) for frame in reversed(x.unbind(0))]))


def reversed_behind(net, x):
    return torch.stack([net.last(spikes) for spikes in reversed(net.lif(net.fc(x)).unbind(0))])


def reversed_between(net, x):
    return net.lif2(reversed_behind(net, x))


def all_steps(forward):
    layers = {"fc": nn.Linear(5, 4), "lif": LIFNode(v_threshold=0.3, step_mode="m")}
    layers |= {"last": nn.Linear(4, 2), "lif2": LIFNode(step_mode="m")}
    return Wired(forward, **layers).eval()


@pytest.mark.parametrize(
    ("forward", "place"),
    [(reversed_in_front, "before its input"), (reversed_behind, "after its outputs")],
)
def test_reversed_time_steps_beside_neurons_that_loop_themselves_are_read(forward, place):
    net, sample = all_steps(forward), torch.rand(STEPS, 3, 5)
    graph = from_torch(net, sample)
    (note,) = graph.warnings
    assert f"indexing {place}" in note.message
    assert verify(graph, net, sample).ok
    message = "with 24 time steps, forward reads or returns them in another order"
    assert_refused(lambda: from_torch(net, sample[:1]), ConversionError, message)


@pytest.mark.parametrize("steps", [1, STEPS])
def test_reversed_time_steps_between_neurons_that_loop_themselves_are_refused(steps):
    last = 24 if steps == 1 else STEPS
    message = f"'lif2' receives in time step {last} a tensor that was computed in time step 1 "
    net = all_steps(reversed_between)
    assert_refused(lambda: from_torch(net, torch.rand(steps, 3, 5)), ConversionError, message)


def revealed(net, x):
    """An image of which each time step shows one more column."""
    frames, image = [], torch.zeros_like(x)
    for column in range(5):
        image = image.clone()
        image[:, column:] = x[:, column:]
        frames.append(image)
    return torch.stack(net.first(frames))


def rising(net, x):
    return torch.stack(net.first(x * (0.2 * step) for step in range(STEPS)))


@pytest.mark.parametrize("function", [revealed, rising])
def test_functions_that_encode_the_sample_differently_in_each_step_are_an_encoder(function):
    net, sample = TwoLoops(function), torch.rand(2, 5)
    graph = from_torch(net, sample)
    assert set(graph.nodes) == {"input", "fc1", "lif1", "output"}
    (note,) = graph.warnings
    assert (note.code, note.severity) == ("outside-graph", "note")
    assert verify(graph, net, sample).active


def rising_currents(net, x):
    mem, outputs = None, []
    for step in range(STEPS):
        spikes, mem = net.lif1(net.fc1(x) * step, mem)
        outputs.append(spikes)
    return torch.stack(outputs)


def norms_by_step(net, x):
    currents = (net.norms[step](net.fc1(x)) for step in range(STEPS))
    return torch.stack(net.loop(nn.Identity(), net.lif1, currents))


def inhibited(net, x):
    mem, outputs = net.lif1.init_leaky(), []
    for _ in range(STEPS):
        spikes, mem = net.lif1(net.fc1(x), mem)
        mem = mem - spikes @ net.fc2.weight
        outputs.append(spikes)
    return torch.stack(outputs)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            rising_currents,
            r"steps of the loop: from torch's mul, with different arguments \(test_mod",
        ),
        (
            norms_by_step,
            r"from 'norms.1' .*in time step 2, and from 'norms.5' .*in time step 6 \(test_mod",
        ),
        (
            inhibited,
            r"previous time step: it comes from torch's sub \(test_mod.*: pass .* inhibition",
        ),
    ],
)
def test_time_steps_that_differ_are_refused_with_the_layer_or_function(function, message):
    net = TwoLoops(function, norms=nn.ModuleList(nn.BatchNorm1d(8) for _ in range(STEPS))).eval()
    assert_refused(lambda: from_torch(net, torch.rand(2, 5)), ConversionError, message)


def counting(net, x):
    mem1 = mem2 = None
    outputs, counts = [], []
    for frame in x:
        spikes, mem1 = net.lif1(net.fc1(frame), mem1)
        counts.append(spikes.sum() if net.keeps_tensors else spikes.sum().item())
        spikes, mem2 = net.lif2(net.fc2(spikes), mem2)
        outputs.append(spikes)
    return torch.stack(outputs), [float(count) for count in counts]


def test_numbers_for_python_are_to_be_converted_behind_the_loop():
    net, sample = TwoLoops(counting), torch.rand(STEPS, 2, 5)
    net.keeps_tensors = False
    message = (
        r"to Python values, by item, and then calls neurons.* \(test_mod.*: collect the tensors"
    )
    assert_refused(lambda: from_torch(net, sample), ConversionError, message)
    net.keeps_tensors = True
    assert {"lif1", "lif2"} <= set(from_torch(net, sample).nodes)


class HandWritten(nn.Module):
    """A neuron that its user wrote with functions of torch."""

    def __init__(self):
        super().__init__()
        self.mem = 0

    def forward(self, x):
        self.mem = 0.9 * self.mem + x
        spikes = (self.mem > 0.3).float()
        self.mem = self.mem - 0.3 * spikes
        return spikes


def norse_step(net, x):
    from norse.torch.functional.lif import LIFFeedForwardState, LIFParameters, lif_feed_forward_step

    state, outputs = LIFFeedForwardState(v=torch.zeros(2, 8), i=torch.zeros(2, 8)), []
    for frame in x:
        spikes, state = lif_feed_forward_step(net.fc1(frame), state, LIFParameters())
        outputs.append(net.fc2(spikes))
    return torch.stack(outputs)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Sequential(nn.Linear(5, 8), HandWritten(), nn.Linear(8, 3)),
         r"'1' is a HandWritten, which is not supported: if it is a neuron, use one of snnTorch"),
        (TwoLoops(norse_step),
         r"no neurons that are layers: functions of torch compute norse's lif_feed_forward_step \(test_mod"),
    ],
)  # fmt: skip
def test_neurons_that_are_no_layers_are_refused_by_name(net, message):
    assert_refused(lambda: from_torch(net, torch.rand(STEPS, 2, 5)), ConversionError, message)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda net, x: net.fc2(torch.stack(net.first(x)).mean(0)),
         "forward computes 'fc2' outside of its time steps (test_mod"),
        (lambda net, x: [net.fc2(spikes.tanh()) for spikes in net.first(x)],
         "the input of 'fc2' (Linear) is computed outside of layers, by torch's tanh"),
        (lambda net, x: [spikes.tanh() * net.lif1.gain for spikes in net.first(x)],
         "the input of torch's mul is computed outside of layers, by torch's tanh"),
    ],
)  # fmt: skip
def test_weights_behind_the_graph_are_a_warning_with_the_reason(function, reason):
    net = TwoLoops(function)
    net.lif1.gain = nn.Parameter(torch.ones(()))
    warnings = from_torch(net, torch.rand(STEPS, 2, 5)).warnings
    (warning,) = [warning for warning in warnings if warning.code == "outside-graph"]
    assert warning.severity == "warning"
    assert f"It does not end later: {reason}" in warning.message


def test_a_sample_whose_first_part_is_no_tensor_is_refused():
    sample = (([torch.rand(2, 5)] * STEPS, torch.zeros(2, 8)),)
    message = "the sample is a tuple that begins with a tuple, and the first argument of forward"
    assert_refused(lambda: from_torch(TwoLoops(reversed_head), sample), ConversionError, message)


def test_a_factor_that_counts_calls_is_refused():
    def forward(net, x):
        net.calls += 1
        return net.out(net.fc(x * net.calls))

    net = Wired(forward, fc=nn.Linear(5, 3))
    net.calls = 0
    message = r"the input of 'fc' .*: from torch's mul, with different arguments \(test_mod"
    assert_refused(lambda: from_torch(net, torch.rand(2, 5)), ConversionError, message)
