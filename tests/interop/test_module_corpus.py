"""Networks as people write them: each is read as it stands, verified, trained for an epoch, put back
into its module, converted and loaded.
"""

import functools

import numpy as np
import pytest
import torch
from norse.torch.module import lif as norse_lif
from norse.torch.module.snn import SNNCell, SNNRecurrentCell
from snntorch import SpikingNeuron
from spikingjelly.activation_based import functional
from spikingjelly.activation_based.neuron import BaseNode

from jaxsnn import (
    Note,
    TimeStepped,
    from_torch,
    load_into,
    lower,
    simulate,
    split_module,
    verify,
)
from jaxsnn.errors import ConversionError
from jaxsnn.nir.model.extension_nodes import EXTENSIONS
from jaxsnn.nir.torch.recording import tensors_of
from jaxsnn.train import fit
from tests.interop.modules.corpus import CORPUS, STEPS, TARGETS
from tests.interop.modules.snntorch_nets import StaticImage
from tests.interop.players import import_and_play, run_in_steps, shift_of

pytestmark = pytest.mark.interop
NEURONS = (SpikingNeuron, SNNCell, SNNRecurrentCell, norse_lif.LIF, BaseNode)
ALL = [pytest.param(entry, id=entry.name) for entry in CORPUS]


def is_usual(entry):
    """Whether the graph is that of the first network, so that its programs are compiled already."""
    return issubclass(entry.make, StaticImage) and not entry.extensions and entry.loss == "count"


#: All networks that are trained on values and on arrays with a time axis.
TRAINED = [
    pytest.param(
        entry,
        steps,
        id=f"{entry.name}-{'time steps' if steps else 'values'}",
        marks=() if is_usual(entry) and not steps else pytest.mark.slow,
    )
    for entry in CORPUS
    for steps in ((), (STEPS,))
]


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
    # Run a new module, because some of snnTorch's neurons keep the state of an earlier run.
    _, again = played(entry, entry.module)
    for name, raster in spikes.items():
        np.testing.assert_array_equal(raster, again[name])


@functools.cache
def graph_of(name):
    """The graph of a network of the corpus as it stands."""
    entry = next(entry for entry in CORPUS if entry.name == name)
    return from_torch(entry.module, entry.sample)


def input_shape(graph):
    return tuple(np.ravel(graph.nodes[graph.inputs[0]].value("shape")).tolist())


@pytest.mark.parametrize("entry", ALL)
def test_it_is_read_as_it_stands_and_verified(entry):
    graph = graph_of(entry.name)
    types = {node.type for node in graph.nodes.values()}
    assert sorted(types & set(EXTENSIONS)) == sorted(entry.extensions)
    _, spikes = played(entry, entry.module)
    assert len(spikes) <= len(graph.neurons)
    assert verify(graph, entry.module, entry.sample).ok


#: Networks for which load_into needs a sample, because its default of zeros does not fit: they split the
#: time axis, have several, or compute the input of the graph by layers of other sizes.
NEEDS_SAMPLE = (
    "snntorch-Split",
    "snntorch-Chunked",
    "snntorch-Windows",
    "spikingjelly-ActivatedStem",
)


@pytest.mark.parametrize(("entry", "steps"), TRAINED)
def test_it_is_trained_with_default_options_and_loaded_back(entry, steps):
    graph, module = graph_of(entry.name), entry.module
    rng = np.random.default_rng(0)
    data = rng.uniform(0, 1, (20, *steps, *input_shape(graph))), rng.integers(0, 2, 20)
    trained = fit(graph, data, epochs=1, progress=None)
    assert np.isfinite([epoch.validation_loss for epoch in trained.history]).all()
    codes = {note.code for note in trained.notes if isinstance(note, Note)}
    engine, loss = trained.settings["engine"]["name"], trained.settings["loss"]["name"]
    assert loss == entry.loss
    assert "default-loss" in codes
    assert ("default-engine" in codes) == (engine == "TimeStepped")
    if steps or entry.extensions:
        assert engine == "TimeStepped"
    assert ("fixed-weights" in codes) == entry.fixed_weights
    sample = {"sample": entry.sample} if entry.name in NEEDS_SAMPLE else {}
    assert load_into(module, trained.graph, **sample).numbers
    assert verify(trained.graph, module, entry.sample).ok


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("entry", ALL)
def test_it_is_converted_and_loaded_there(entry, target, tmp_path):
    graph = graph_of(entry.name)
    x = np.random.default_rng(1).random((12, 3, *input_shape(graph))) < 0.5
    x = x.astype(np.float32)
    reason = "|".join(entry.extensions) or entry.refused.get(target)
    if reason is not None:
        with pytest.raises(ConversionError, match=reason):
            import_and_play(graph, target, x, tmp_path / "a.nir")
        return
    conversion, theirs = import_and_play(graph, target, x, tmp_path / "a.nir")
    assert conversion.losses == ()
    ours = run_in_steps(graph, x).reshape(*x.shape[:2], -1)
    theirs, shift = theirs.reshape(*x.shape[:2], -1), shift_of(conversion)
    ours, theirs = ours[max(-shift, 0) : len(x) - max(shift, 0)], theirs[max(shift, 0) :]
    assert ours.any()
    if np.isin(ours, (0, 1)).all():
        np.testing.assert_array_equal(theirs[: len(ours)], ours)
    else:
        np.testing.assert_allclose(theirs[: len(ours)], ours, atol=1e-4 * np.abs(ours).max())


def test_the_corpus_is_large_and_has_each_name_once():
    assert len({entry.name for entry in CORPUS}) == len(CORPUS) >= 40


def results_of_all_steps(entry, sample):
    """The tensors that forward returns; of a module that processes one step per call, for all steps."""
    module = entry.module
    with torch.no_grad():
        if not entry.one_step:
            return tensors_of(module(sample))
        states, results = (), []
        for frame in sample:
            result = module(frame, *states)
            states = result[1:] if isinstance(result, tuple) else ()
            results.append(tensors_of(result))
    return [torch.stack(parts) for parts in zip(*results, strict=True)]


@pytest.mark.parametrize("entry", ALL)
def test_encoder_graph_and_decoder_compute_what_forward_does(entry):
    module = entry.module
    parts = split_module(module, entry.sample)
    sample = entry.sample
    if entry.one_step:
        sample = torch.stack([sample, 1 - sample, sample * sample, sample, 0 * sample])
    x = parts.encode(sample)
    outputs = simulate(lower(parts.graph), x, engine=TimeStepped()).y
    expected = results_of_all_steps(entry, sample)
    actual = parts.decode(outputs, sample)
    assert len(actual) == len(expected)
    computed = [pair for pair in zip(actual, expected, strict=True) if pair[0] is not None]
    assert computed
    for first, second in computed:
        assert torch.allclose(first, second, rtol=1e-3, atol=1e-4)
    silent = parts.decode({name: 0 * np.asarray(y) for name, y in outputs.items()}, sample)
    different = [
        not torch.allclose(first, second)
        for first, second in zip(silent, expected, strict=True)
        if first is not None and first.is_floating_point()
    ]
    assert not different or any(different)
