"""What `fit` says of the time steps of the source is what the user's own module does with the trained
weights.
"""

import warnings

import numpy as np
import pytest
import torch

from jaxsnn import ApproximationWarning, Events, fit, from_torch, load_into
from jaxsnn.train import splits_of_arrays

pytestmark = pytest.mark.interop
CHANNELS, HIDDEN, CLASSES, STEPS = 6, 12, 3, 25
QUICK = {"epochs": 6, "learning_rate": 0.05, "batch_size": 32, "progress": None}


def recurrent_module():
    import snntorch

    class Recurrent(torch.nn.Module):
        """RLeaky and Leaky, whose spikes are counted."""

        def __init__(self):
            super().__init__()
            self.first = torch.nn.Linear(CHANNELS, HIDDEN)
            self.hidden = snntorch.RLeaky(beta=0.9, linear_features=HIDDEN)
            self.second = torch.nn.Linear(HIDDEN, CLASSES)
            self.out = snntorch.Leaky(beta=0.9)

        def forward(self, x, state=None):
            if state is None:
                state = (*self.hidden.init_rleaky(), self.out.init_leaky())
            spikes, membrane, last = state
            spikes, membrane = self.hidden(self.first(x), spikes, membrane)
            y, last = self.out(self.second(spikes), last)
            return y, (spikes, membrane, last)

    torch.manual_seed(1)
    module = Recurrent()
    with torch.no_grad():
        module.first.weight *= 2
        module.hidden.recurrent.weight *= 0.3
    return module


def spikes_of_classes(samples=240):
    rng = np.random.default_rng(0)
    y = np.arange(samples) % CLASSES
    rate = 0.1 + 0.3 * (np.arange(CHANNELS) % CLASSES == y[:, None])
    return (rng.random((STEPS, samples, CHANNELS)) < rate).astype(np.float32), y


def counted(module, x, y, steps):
    """Fraction of samples whose class the most active output is, in torch."""
    x = np.concatenate([x, np.zeros((steps - len(x), *x.shape[1:]), np.float32)])
    state, counts = None, 0
    with torch.no_grad():
        for step in torch.tensor(x):
            spikes, state = module(step, state)
            counts = counts + spikes
    counts = counts.numpy()
    return float(np.mean((counts.argmax(axis=1) == y) & (counts.max(axis=1) > 0)))


@pytest.mark.parametrize("loss", [None, "ttfs"])
def test_the_accuracy_in_steps_is_that_of_the_module(loss):
    module = recurrent_module()
    graph = from_torch(module, torch.zeros(1, CHANNELS))
    x, y = spikes_of_classes()
    dt = graph.dialect.dt
    splits = splits_of_arrays(Events.of_steps(x, dt=dt), y)
    options = QUICK if loss is None else QUICK | {"loss": loss}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fitted = fit(graph, splits, **options)
    load_into(module, fitted.graph)
    time, index = np.asarray(splits.test.x.time), np.asarray(splits.test.x.index)
    test = np.zeros((STEPS, len(splits.test), CHANNELS), np.float32)
    for sample, used in enumerate(np.isfinite(time)):
        test[np.rint(time[sample, used] / dt).astype(int), sample, index[sample, used]] = 1
    there = counted(module, test, splits.test.y, round(fitted.settings["t_end"] / dt))
    apart = abs(there - fitted.test_accuracy) > 0.01
    if loss is None:
        assert fitted.settings["loss"]["name"] == "count"
        assert fitted.accuracy_in_steps == pytest.approx(there)
        assert there > 0.6
    else:  # the loss reads this field; the count is in a note
        read = f"is {there:.1%}, classified by spike counts"
        assert any(read in note for note in fitted.notes) is apart
    apart = apart or abs(fitted.accuracy_in_steps - fitted.test_accuracy) > 0.01
    assert (
        len([warning for warning in caught if issubclass(warning.category, ApproximationWarning)])
        == apart
    )
