"""Neurons whose threshold lies at or below their reset, which fire without input: graphs, modules that
`to_torch` makes and modules that a graph is loaded into fire what the framework itself does.
"""

import norse.torch as norse
import numpy as np
import pytest
import snntorch as snn
import torch
from spikingjelly.activation_based import functional
from spikingjelly.activation_based import neuron as jelly

from jaxsnn import convert, from_torch, load_into, to_torch
from jaxsnn.errors import ConversionError
from tests.helpers.refusals import assert_refused
from tests.interop.players import run_in_steps, stepped

pytestmark = pytest.mark.interop
STEPS, BATCH, CHANNELS, NEURONS = 40, 6, 4, 3


class OfSnnTorch(torch.nn.Module):
    """A Linear and a neuron of snnTorch, whose threshold may differ from neuron to neuron."""

    def __init__(self, kind, threshold, reset, delay):
        super().__init__()
        self.fc = torch.nn.Linear(CHANNELS, NEURONS)
        decays = {"beta": 0.8} if kind is snn.Leaky else {"alpha": 0.6, "beta": 0.8}
        options = {"reset_mechanism": reset, "reset_delay": delay}
        self.lif = kind(threshold=torch.as_tensor(threshold), **decays, **options)

    def forward(self, x, state=None):
        if isinstance(self.lif, snn.Leaky):
            spikes, state = self.lif(self.fc(x), self.lif.init_leaky() if state is None else state)
            return spikes, state
        initial_state = self.lif.init_synaptic() if state is None else state
        spikes, *state = self.lif(self.fc(x), *initial_state)
        return spikes, tuple(state)


class OfSpikingJelly(torch.nn.Module):
    """A Linear and a neuron of SpikingJelly, which keeps its membrane itself."""

    def __init__(self, kind, threshold, reset):
        super().__init__()
        self.fc, self.lif = (
            torch.nn.Linear(CHANNELS, NEURONS),
            kind(v_threshold=threshold, v_reset=reset),
        )

    def forward(self, x, state=None):
        if state is None:
            functional.reset_net(self)
        return self.lif(self.fc(x)), ()


def of_norse(kind, threshold, reset):
    options = {"v_th": torch.tensor(threshold), "v_reset": torch.tensor(reset)}
    if kind == "box":
        cell = norse.LIFBoxCell(norse.LIFBoxParameters(tau_mem_inv=torch.tensor(200.0), **options))
    else:
        cell = norse.LIFCell(norse.LIFParameters(tau_mem_inv=torch.tensor(200.0), **options))
    return norse.SequentialState(torch.nn.Linear(CHANNELS, NEURONS), cell)


CASES = {
    f"snnTorch {kind.__name__} {threshold} {reset} {delay}": (
        lambda *case: OfSnnTorch(*case),
        (kind, threshold, reset, delay),
    )
    for kind in (snn.Leaky, snn.Synaptic)
    for threshold in (0.0, -0.5, (-0.5, 0.0, 0.7))
    for reset in ("subtract", "zero")
    for delay in (True, False)
}
CASES |= {
    f"SpikingJelly {kind.__name__} {threshold} {reset}": (OfSpikingJelly, (kind, threshold, reset))
    for kind in (jelly.LIFNode, jelly.IFNode)
    for threshold, reset in (
        (0.5, 1.0),
        (1.0, 1.0),
        (-1.0, 0.0),
        (-1.0, -2.0),
        (0.0, None),
        (-0.5, None),
    )
}
CASES |= {
    f"Norse {kind} {threshold} {reset}": (of_norse, (kind, threshold, reset))
    for kind in ("box", "cuba")
    for threshold, reset in ((0.5, 1.0), (1.0, 1.0), (-1.0, 0.0), (-1.0, -2.0))
}


def make_module(case, seed):
    build, arguments = CASES[case]
    torch.manual_seed(seed)
    return build(*arguments)


@pytest.mark.parametrize("case", CASES)
def test_low_thresholds_fire_what_the_framework_fires(case):
    module = make_module(case, seed=0)
    graph = from_torch(module, torch.zeros(1, CHANNELS))
    x = np.random.default_rng(0).normal(0.0, 6.0, (STEPS, BATCH, CHANNELS)).astype(np.float32)
    theirs = stepped(module, x)
    assert theirs.any()
    np.testing.assert_array_equal(run_in_steps(graph, x), theirs)
    np.testing.assert_array_equal(stepped(to_torch(graph), x), theirs)
    second_module = make_module(case, seed=1)
    load_into(second_module, graph)
    np.testing.assert_array_equal(stepped(second_module, x), theirs)


@pytest.mark.parametrize("target", ["norse", "snntorch", "spikingjelly", "spyx", "sinabs"])
def test_convert_refuses_low_thresholds(target):
    """Importers differ in what these neurons do."""
    graph = from_torch(
        make_module("SpikingJelly LIFNode 0.5 1.0", seed=0), torch.zeros(1, CHANNELS)
    )
    assert_refused(
        lambda: convert(graph, to=target, approximate=True),
        ConversionError,
        "so it fires without input",
    )
