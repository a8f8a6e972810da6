"""split_module: what encode and decode do with other samples, arguments and outputs."""

import numpy as np
import pytest
import snntorch as snn
import torch
from torch import nn

from jaxsnn import split_module
from jaxsnn.errors import ConversionError
from tests.helpers.refusals import assert_refused

pytestmark = pytest.mark.interop
STEPS, BATCH, SIZE = 6, 2, 3


class _Loop(nn.Module):
    """A loop over time whose results `decoded` computes of the spikes of all time steps."""

    def __init__(self):
        super().__init__()
        self.lif = snn.Leaky(beta=0.8)

    def forward(self, x, steps=STEPS):
        mem, spikes = self.lif.init_leaky(), []
        for _ in range(steps):
            spk, mem = self.lif(x, mem)
            spikes.append(spk)
        return self.decoded(spikes, mem)

    def decoded(self, spikes, mem):
        return torch.stack(spikes).mean(0)


class _Normalised(_Loop):
    def decoded(self, spikes, mem):
        total = torch.stack(spikes).sum(0)
        return total / max(total.sum().item(), 1)


class _Branching(_Loop):
    def decoded(self, spikes, mem):
        total = torch.stack(spikes).sum(0)
        return 2 * total if total.sum() > 0 else total


class _ByMembrane(_Loop):
    def decoded(self, spikes, mem):
        return torch.stack(spikes).sum(0) / mem.max().item()


class _LongBuffer(_Loop):
    def decoded(self, spikes, mem):
        buffer = torch.zeros(STEPS + 2, BATCH, SIZE)
        for step, spk in enumerate(spikes):
            buffer[step + 1] = spk
        return buffer.mean(0), buffer


def _sample():
    return torch.linspace(0.3, 1.5, BATCH * SIZE).reshape(BATCH, SIZE)


def _parts(module):
    """The parts of a module, and the outputs of its graph for its sample."""
    parts = split_module(module.eval(), _sample())
    lif, mem, outputs = snn.Leaky(beta=0.8), torch.zeros(BATCH, SIZE), []
    for _ in range(STEPS):
        spk, mem = lif(_sample(), mem)
        outputs.append(spk.detach().numpy())
    return parts, np.stack(outputs)


def test_decode_keeps_the_rows_of_a_buffer_that_no_step_sets():
    parts, outputs = _parts(_LongBuffer())
    mean, buffer = parts.decode(2 * outputs, _sample())
    assert buffer.shape == (STEPS + 2, BATCH, SIZE)
    np.testing.assert_array_equal(buffer[1:-1], 2 * outputs)
    np.testing.assert_allclose(mean, 2 * outputs.sum(0) / (STEPS + 2), rtol=1e-6)


@pytest.mark.parametrize("kind", [_Normalised, _Branching])
def test_decode_refuses_outputs_of_which_python_would_get_other_numbers(kind):
    module = kind()
    parts, outputs = _parts(module)
    (result,) = parts.decode(outputs, _sample())
    np.testing.assert_allclose(result, module(_sample()).detach(), rtol=1e-6)
    assert_refused(
        lambda: parts.decode(0 * outputs, _sample()),
        ConversionError,
        "to Python values, by (item|bool) .* differ for these",
    )


def test_decode_refuses_numbers_of_a_state_that_is_no_output():
    parts, outputs = _parts(_ByMembrane())
    assert_refused(
        lambda: parts.decode(outputs, _sample()),
        ConversionError,
        "by item .* depend on a state that is not an output",
    )


def test_encode_takes_the_arguments_that_it_is_passed():
    parts, _ = _parts(_Loop())
    assert parts.encode((_sample(), STEPS)).shape == (STEPS, BATCH, SIZE)
    assert_refused(
        lambda: parts.encode((_sample(), STEPS + 2)),
        ConversionError,
        "calls different operations for another input",
    )


class _Currents(nn.Module):
    """Returns sums of the spikes and of the synaptic currents of all time steps, and the last state."""

    def __init__(self):
        super().__init__()
        self.lif = snn.Synaptic(alpha=0.7, beta=0.8)

    def forward(self, x):
        syn, mem = self.lif.init_synaptic()
        spikes, currents = 0, 0
        for _ in range(STEPS):
            spk, syn, mem = self.lif(x, syn, mem)
            spikes, currents = spikes + spk, currents + syn
        return spikes, currents, syn


def test_results_of_states_that_are_no_outputs_are_reported():
    parts = split_module(_Currents(), _sample())
    texts = [note.message for note in parts.graph.warnings if note.code == "left-out"]
    first, second = texts
    assert "tensor 2, of shape (2, 3), computed from spikes or states of 'lif'" in first
    assert "tensor 3, of shape (2, 3), a state of 'lif' after the last time step" in second
    results = parts.decode(np.zeros((STEPS, BATCH, SIZE), np.float32), _sample())
    assert [result is None for result in results] == [False, True, True]


class _TwoLayers(nn.Module):
    """Returns the spikes of two layers, and the membranes of the second."""

    def __init__(self):
        super().__init__()
        self.first, self.second = snn.Leaky(beta=0.8), snn.Leaky(beta=0.9)

    def forward(self, x):
        mem1, mem2 = self.first.init_leaky(), self.second.init_leaky()
        hidden, spikes, membranes = [], [], []
        for _ in range(STEPS):
            spk1, mem1 = self.first(x, mem1)
            spk2, mem2 = self.second(spk1, mem2)
            hidden.append(spk1)
            spikes.append(spk2)
            membranes.append(mem2)
        return torch.stack(hidden), torch.stack(spikes), torch.stack(membranes)


def test_stacks_of_outputs_are_not_reported_as_left_out():
    graph = split_module(_TwoLayers(), _sample()).graph
    assert set(graph.outputs) == {"output_first", "output_second"}
    (note,) = (note for note in graph.warnings if note.code == "left-out")
    assert (
        "tensor 3, of shape (6, 2, 3), computed from spikes or states of 'second' that"
        in note.message
    )


class _Selecting(_Loop):
    """Reads some time steps of the sample (time, batch, *shape), and returns some outputs."""

    def __init__(self, read=list, write=list):
        super().__init__()
        self.read, self.write = read, write

    def forward(self, x):
        mem, spikes = self.lif.init_leaky(), []
        for frame in self.read(x):
            spk, mem = self.lif(frame, mem)
            spikes.append(spk)
        return self.write(spikes)


@pytest.mark.parametrize(
    ("read", "write", "before", "after"),
    [
        (list, torch.stack, False, False),
        (lambda x: torch.tanh(x[None])[0], torch.stack, False, False),
        (list, lambda spikes: torch.stack(spikes)[None], False, False),
        (lambda x: [x[t] for t in range(len(x))], torch.stack, False, False),
        (lambda x: [x[t] for t in range(1, len(x))], torch.stack, True, False),
        (lambda x: [x[0]] * len(x), torch.stack, True, False),
        (lambda x: x[2:], torch.stack, True, False),
        (lambda x: x.narrow(0, 1, 4), torch.stack, True, False),
        (list, lambda spikes: spikes[-1], False, True),
        (list, lambda spikes: torch.stack(spikes[::-1]), False, True),
        (list, lambda spikes: torch.stack(spikes[2:]), False, True),
        (list, lambda spikes: torch.stack(spikes)[1:], False, True),
        (list, lambda spikes: torch.stack(spikes).mean(0), False, False),
        (list, lambda spikes: sum(spikes), False, False),
    ],
)
def test_time_steps_that_forward_skips_or_reorders_are_reported(read, write, before, after):
    sample = torch.linspace(0.3, 1.5, STEPS * BATCH * SIZE).reshape(STEPS, BATCH, SIZE)
    parts = split_module(_Selecting(read, write), sample)
    assert ("indexing" in parts.before, "indexing" in parts.after) == (before, after)


class _OneStep(nn.Module):
    """Computes one time step per call."""

    def __init__(self, forward):
        super().__init__()
        self.fc, self.weight = nn.Linear(SIZE, SIZE), nn.Parameter(torch.eye(SIZE))
        self.lif = snn.Leaky(beta=0.8, init_hidden=True, threshold=0.3)
        self.function, self.spikes = forward, torch.zeros(BATCH, SIZE)

    def forward(self, x):
        return self.function(self, x)

    def delayed(self, x):
        before, self.spikes = self.spikes, self.lif(self.fc(x))
        return before


def test_an_output_of_the_call_before_is_reported():
    assert split_module(_OneStep(_OneStep.delayed), _sample()).after == ("delay",)
    row = split_module(_OneStep(lambda net, x: net.lif(net.fc(x))[0]), _sample())
    assert row.after == ("indexing",)


def test_weights_of_the_module_in_front_of_the_graph_are_a_warning():
    net = _OneStep(lambda net, x: net.lif(net.fc(torch.tanh(x @ net.weight))))
    (warning,) = split_module(net, _sample()).graph.warnings
    assert (warning.code, warning.severity) == ("outside-graph", "warning")


@pytest.mark.parametrize(
    "encode",
    [
        lambda x: x / (x.max().item() + 1),
        lambda x: torch.exp(x) if x.sum() > 4 else x,
    ],
)
def test_python_values_of_the_input_are_named_where_one_step_computes_differently(encode):
    net = _OneStep(lambda net, x: net.lif(net.fc(torch.tanh(encode(x)))))
    assert_refused(
        lambda: split_module(net, _sample()),
        ConversionError,
        "to Python values, by (item|bool) .* computes differently for other values",
    )
