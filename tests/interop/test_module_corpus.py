"""Networks as people write them: each is read as it stands, verified, trained for an epoch, put back
into its module, converted and loaded.
"""

import numpy as np
import pytest
import torch
from norse.torch.module import lif as norse_lif
from norse.torch.module.snn import SNNCell, SNNRecurrentCell
from snntorch import SpikingNeuron
from spikingjelly.activation_based import functional
from spikingjelly.activation_based.neuron import BaseNode

from tests.interop.modules.corpus import CORPUS, STEPS

pytestmark = pytest.mark.interop
NEURONS = (SpikingNeuron, SNNCell, SNNRecurrentCell, norse_lif.LIF, BaseNode)
ALL = [pytest.param(entry, id=entry.name) for entry in CORPUS]


def played(entry, module):
    """What a module gives, and by name the outputs of its neurons that spike, over all steps."""
    outputs = {}

    def keep(name):
        def hook(layer, arguments, result):
            first = result[0] if isinstance(result, tuple) else result
            outputs.setdefault(name, []).append(first.detach().numpy().copy())

        return hook

    hooks = [
        layer.register_forward_hook(keep(name))
        for name, layer in module.named_modules()
        if isinstance(layer, NEURONS)
    ]
    try:
        with torch.no_grad():
            if not entry.one_step:
                result = module(entry.sample)
            else:
                if entry.name.startswith("spikingjelly"):
                    functional.reset_net(module)
                result, states = None, ()
                for _ in range(STEPS):
                    result = module(entry.sample, *states)
                    states = result[1:] if isinstance(result, tuple) else ()
    finally:
        for hook in hooks:
            hook.remove()
    spikes = {
        name: np.stack(parts)
        for name, parts in outputs.items()
        if np.isin(np.stack(parts), (0, 1)).all()
    }
    return result, spikes


@pytest.mark.parametrize("entry", ALL)
def test_it_runs_and_spikes_in_torch(entry):
    _, spikes = played(entry, entry.module)
    assert spikes
    for name, raster in spikes.items():
        assert 0.02 < raster.mean() < 0.95, f"{name} spikes in {raster.mean():.0%} of steps"
    # Some of snnTorch's neurons go on with the state of an earlier run, so that this is a new module.
    _, again = played(entry, entry.module)
    for name, raster in spikes.items():
        np.testing.assert_array_equal(raster, again[name])


def test_the_corpus_is_large_and_has_each_name_once():
    assert len({entry.name for entry in CORPUS}) == len(CORPUS) >= 40
