"""A network that snnTorch trained: the same spikes on the grid, the drop in event mode, and what
fine-tuning gives.
"""

import numpy as np
import pytest
import snntorch
import torch
from sklearn.datasets import load_digits

from jaxsnn import from_torch
from jaxsnn.network.spikes import dense_to_events
from jaxsnn.simulation.verification import verify
from jaxsnn.train import Data, SpikeCount, Splits, evaluate, fit
from jaxsnn.train.data.datasets import select_samples, stratified

STEPS, HIDDEN, EPOCHS = 24, 60, 15
TAU_MEM, TAU_SYN = 20, 10  # steps


def rasters():
    """The digits, each pixel one spike, bright ones early: (samples, steps, 64); labels; the parts."""
    images, labels = load_digits(return_X_y=True)
    bright = images / 16
    step = np.rint((1 - bright) * (STEPS // 2)).astype(int)
    x = (np.arange(STEPS)[None, :, None] == step[:, None]) & (bright > 0.1)[:, None]
    test, train = stratified(labels, 0.2, seed=0)
    return x.astype(np.float32), labels.astype(np.int32), train, test


class Net(torch.nn.Module):
    """64-60-10 of snnTorch's Synaptic neurons."""

    def __init__(self):
        super().__init__()
        decays = {"alpha": float(np.exp(-1 / TAU_SYN)), "beta": float(np.exp(-1 / TAU_MEM))}
        options = {**decays, "reset_mechanism": "zero", "init_hidden": True}
        from snntorch import surrogate

        spike_grad = surrogate.fast_sigmoid(slope=10)
        self.fc1 = torch.nn.Linear(64, HIDDEN, bias=False)
        self.lif1 = snntorch.Synaptic(**options, spike_grad=spike_grad)
        self.fc2 = torch.nn.Linear(HIDDEN, 10, bias=False)
        self.lif2 = snntorch.Synaptic(**options, spike_grad=spike_grad)

    def forward(self, x):
        return self.lif2(self.fc2(self.lif1(self.fc1(x))))


def play(net, x):
    """Spikes (steps, samples, 10) of inputs (samples, steps, 64)."""
    from snntorch import utils

    utils.reset(net)
    return torch.stack([net(step) for step in torch.tensor(x).transpose(0, 1)])


@pytest.fixture(scope="module")
def trained():
    """The net, trained with snnTorch's own surrogate on spike counts; the data."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    x, labels, train, test = rasters()
    net = Net()
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    order = np.random.default_rng(0)
    for _ in range(EPOCHS):
        for part in np.array_split(order.permutation(train), len(train) // 64):
            loss = torch.nn.functional.cross_entropy(
                play(net, x[part]).sum(0), torch.tensor(labels[part]).long()
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return net, x, labels, train, test


@pytest.mark.slow
def test_the_grid_fires_its_spikes_and_fine_tuning_recovers_what_event_mode_loses(
    trained, record_property
):
    net, x, labels, train, test = trained
    with torch.no_grad():
        theirs = play(net, x[test]).numpy()
    accuracy = float(np.mean(theirs.sum(0).argmax(1) == labels[test]))
    assert accuracy > 0.9
    graph = from_torch(net, torch.zeros(1, 64))
    # Identical spikes imply the same accuracy.
    outcome = verify(graph, x[test].swapaxes(0, 1), theirs)
    assert outcome.identical == outcome.trains
    # In continuous time there are no steps, and resets are immediate.
    dt = graph.dialect.dt
    events = {name: spikes_of(x[part], dt) for name, part in (("train", train), ("test", test))}
    loss = SpikeCount(population="lif2", tau=10 * dt, t_max=STEPS * dt)
    classes = tuple("0123456789")
    parts = {
        name: Data(x=events[name], y=labels[part], classes=classes)
        for name, part in (("train", train), ("test", test))
    }
    before = evaluate(graph, parts["test"], loss=loss)
    held, training_rows = stratified(labels[train], 0.1, seed=1)
    splits = Splits(
        name="digits",
        train=select_samples(parts["train"], training_rows),
        validation=select_samples(parts["train"], held),
        test=parts["test"],
    )
    tuned = fit(graph, splits, loss=loss, epochs=3, learning_rate=0.003, progress=None)
    after = evaluate(tuned.graph, parts["test"], loss=loss)
    for name, value in (("snntorch", accuracy), ("event", before), ("fine_tuned", after)):
        record_property(name, value)
    assert before > accuracy - 0.05
    assert after > accuracy - 0.01


def spikes_of(x, dt):
    """Events of inputs (samples, steps, channels)."""
    return dense_to_events(x.swapaxes(0, 1), dt)
