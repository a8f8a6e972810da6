"""A network that snnTorch trains here on MNIST, tuned in continuous time: accuracy against spikes.

    python benchmarks/tune_snntorch.py --data-folder MNIST --seeds 1

784-100-10 of `Synaptic` neurons, 25 steps, images as static currents, cross-entropy of the spike
counts, its own surrogate. `jaxsnn.train.tune` then measures it as snnTorch simulates it (time steps,
spike for spike), in continuous time, and tuned for fewer and fewer spikes. The validation samples
choose; the test samples of each point are looked at once. Prints one line of JSON for each seed.
"""

import argparse
import json
import time
from typing import Any

import numpy as np
import snntorch
import torch

from jaxsnn import from_torch
from jaxsnn.console import to_stderr
from jaxsnn.train import TrainOptions, mnist_splits, tune
from jaxsnn.train.data.datasets import Data

STEPS, TAU_MEM, TAU_SYN = 25, 10, 5


class Net(torch.nn.Module):
    """Of snnTorch's Synaptic neurons."""

    def __init__(self, hidden: int):
        super().__init__()
        decays = {"alpha": float(np.exp(-1 / TAU_SYN)), "beta": float(np.exp(-1 / TAU_MEM))}
        options = {**decays, "reset_mechanism": "zero", "init_hidden": True}
        self.fc1 = torch.nn.Linear(784, hidden, bias=False)
        self.lif1 = snntorch.Synaptic(**options)
        self.fc2 = torch.nn.Linear(hidden, 10, bias=False)
        with torch.no_grad():
            # a weight of 1 raises V by up to 50: at first few neurons fire in each step
            self.fc1.weight *= 0.1
            self.fc2.weight *= 0.2
        self.lif2 = snntorch.Synaptic(**options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lif2(self.fc2(self.lif1(self.fc1(x))))


def counts(net: Net, x: torch.Tensor) -> torch.Tensor:
    """Spikes of each output in STEPS steps, (samples, 10)."""
    from snntorch import utils

    utils.reset(net)
    return torch.stack([net(x) for _ in range(STEPS)]).sum(0)


def trained(data: Data, hidden: int, epochs: int, seed: int) -> Net:
    """The net, trained with snnTorch's own surrogate."""
    torch.manual_seed(seed)
    net, order = Net(hidden), np.random.default_rng(seed)
    optimiser = torch.optim.Adam(net.parameters(), lr=5e-4)
    x, y = torch.tensor(data.x.reshape(len(data), -1)), torch.tensor(data.y).long()
    for epoch in range(epochs):
        for part in np.array_split(order.permutation(len(data)), len(data) // 128):
            loss = torch.nn.functional.cross_entropy(counts(net, x[part]), y[part])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        to_stderr(f"snnTorch, epoch {epoch + 1}/{epochs}")
    return net


def run(seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One seed."""
    start = time.perf_counter()
    splits = mnist_splits(seed, folder=arguments.data_folder)
    net = trained(splits.train, arguments.hidden, arguments.source_epochs, seed)
    with torch.no_grad():
        answers = counts(net, torch.tensor(splits.test.x.reshape(len(splits.test), -1))).argmax(1)
    graph = from_torch(net, torch.zeros(1, 784))
    step = graph.dialect.dt
    assert step is not None
    options = TrainOptions(
        data=splits,
        loss="count",
        encoder="current",
        t_end=STEPS * step,
        epochs=arguments.epochs,
        batch_size=128,
        learning_rate=arguments.lr,
        seed=seed,
        progress=to_stderr,
    )
    found = tune(graph, options, arguments.budgets).as_dict()
    snntorch_accuracy = float(np.mean(answers.numpy() == splits.test.y))
    minutes = round((time.perf_counter() - start) / 60, 1)
    return {"seed": seed, "snntorch": snntorch_accuracy, "minutes": minutes, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description="Tune a network of snnTorch.")
    parser.add_argument("--data-folder", required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--hidden", type=int, default=100)
    parser.add_argument("--source-epochs", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=6, help="for each budget")
    parser.add_argument("--lr", type=float, default=0.005)
    parser.add_argument("--budgets", type=float, nargs="*", default=[200.0])
    arguments = parser.parse_args()
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        print(json.dumps(run(seed, arguments)), flush=True)


if __name__ == "__main__":
    main()
