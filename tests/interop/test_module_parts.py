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
