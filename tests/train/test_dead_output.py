"""An output that never fires at first, one of many, does not silence the others."""

import numpy as np

from jaxsnn.nir import build
from jaxsnn.train import Data, Splits, fit

CLASSES = 10


def earliest(samples, seed):
    """The class is the channel with the largest value, which spikes first."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 0.7, (samples, CLASSES)).astype(np.float32)
    y = rng.integers(0, CLASSES, samples)
    x[np.arange(samples), y] = 1
    return Data(x=x, y=y, classes=tuple(map(str, range(CLASSES))))


def test_it_is_raised_before_what_it_should_answer_silences_the_others():
    rng = np.random.default_rng(0)
    weights = rng.normal(0.3, 0.2, (CLASSES, 20))
    weights[3] = -0.3
    times = {"tau_mem": 0.02, "tau_syn": 0.01}
    graph = build.sequential(
        build.input(CLASSES),
        build.linear(weight=rng.normal(0.5, 0.5, (20, CLASSES))),
        build.cubalif(**times),
        build.linear(weight=weights),
        build.cubalif(**times),
    )
    parts = {"train": earliest(640, 1), "validation": earliest(200, 2), "test": earliest(200, 3)}
    options = {"epochs": 20, "batch_size": 32, "learning_rate": 0.01}
    trained = fit(graph, Splits(name="earliest", **parts), **options)
    assert trained.history[0].silent["4"] > 0
    assert trained.history[-1].silent["4"] < 0.01
    assert trained.history[-1].validation_accuracy > trained.history[0].validation_accuracy
