"""An output that never fires at first, one of many, does not silence the others."""

import numpy as np
import pytest

from jaxsnn import simulate
from jaxsnn.nir import build
from jaxsnn.train import Data, Latency, Splits, WeightBumping, fit
from tests.helpers.small_task import DATA, QUICK, small_net

CLASSES = 10
NO_BUMPING = WeightBumping(label=0.0, hidden=0.0)


def earliest(samples, seed):
    """The class is the channel with the largest value, which spikes first."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 0.7, (samples, CLASSES)).astype(np.float32)
    y = rng.integers(0, CLASSES, samples)
    x[np.arange(samples), y] = 1
    return Data(x=x, y=y, classes=tuple(map(str, range(CLASSES))))


def test_a_silent_output_is_raised_before_its_label_silences_the_others():
    weights = np.random.default_rng(0).normal(0.3, 0.1, (CLASSES, CLASSES)) + 3 * np.eye(CLASSES)
    weights[3] = -0.3
    graph = build.sequential(
        build.input(CLASSES),
        build.linear(weight=weights),
        build.cubalif(tau_mem=0.02, tau_syn=0.01),
    )
    parts = {"train": earliest(640, 1), "validation": earliest(200, 2), "test": earliest(200, 3)}
    options = {"epochs": 12, "batch_size": 32, "learning_rate": 0.03}
    history = fit(graph, Splits(name="earliest", **parts), **options).history
    assert history[0].silent["2"] > 0.09
    assert history[0].validation_accuracy < 0.85
    assert history[-1].silent["2"] == 0
    assert history[-1].validation_accuracy > 0.95


@pytest.mark.parametrize("weight", [0.16, 0.2])
def test_samples_without_an_output_spike_are_counted_in_a_note(weight):
    options = {**QUICK, "epochs": 1, "learning_rate": 1e-6, "weight_bumping": NO_BUMPING}
    trained = fit(small_net(second=(weight, 0.05)), DATA, **options)
    encoder = trained.settings["encoder"]
    encode = Latency(**{name: value for name, value in encoder.items() if name != "name"})
    solution = simulate(trained.graph, encode(DATA.test.x), trained.settings["t_end"])
    silent = int((solution.count("4").sum(axis=1) == 0).sum())
    notes = [note for note in trained.notes if f"{silent} of 128 test samples" in note]
    assert len(notes) == (silent > 6)
    assert (silent > 6) == (weight < 0.2)
