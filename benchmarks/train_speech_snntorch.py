"""Spoken digits by snnTorch, to be set beside a recipe of examples/recipes: the same recordings,
events, network and number of epochs, but in time steps, with its surrogate gradients.

    python benchmarks/train_speech_snntorch.py examples/recipes/fsdd-336-150-10.toml --data wav:FOLDER

Sizes, time constants, first weights, loss, epochs, batches, the course of the learning rate, the
average of the parameters and the changes of the training recordings are those of the recipe, and so
are the recordings that a seed holds out. The loss is `exp-sum`. Adam's learning rate is its own (`--lr`), and gradients
are those of its default surrogate. Events are counted in steps (`--step`). The validation
recordings choose the epoch, the test recordings are looked at once. Prints one line of JSON for
each seed.
"""

import argparse
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import snntorch
import torch
from seeds import each_seed
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from jaxsnn.commands.train_command import read_config
from jaxsnn.console import to_stderr
from jaxsnn.nir.layer_tables import graph_of_table
from jaxsnn.nir.model.graph import Graph
from jaxsnn.train.data.augment import augmentation_of
from jaxsnn.train.data.datasets import Data
from jaxsnn.train.data.labelled_files import load_splits
from jaxsnn.train.data.named_encoders import make_encoder
from jaxsnn.units import parse_time

#: Samples that are evaluated together.
AT_ONCE = 100


class Net(torch.nn.Module):
    """`Synaptic` neurons, and a readout of such that never fire: what they do between spikes is what
    the graph says, in steps.
    """

    def __init__(self, graph: Graph, step: float, decay: float):
        super().__init__()
        nodes: Any = graph.nodes
        self.step, self.tau = step, float(nodes["2"].tau_syn[0])
        self.fade = decay * self.tau
        self.weights, self.cells = torch.nn.ParameterList(), []
        kinds: dict[str, dict[str, Any]] = {"1": {}, "2": {"threshold": 1e9}}
        for name, options in kinds.items():
            neurons = nodes[name]
            tau_mem, tau_syn = float(neurons.tau_mem[0]), float(neurons.tau_syn[0])
            decays: dict[str, Any] = {
                "alpha": float(np.exp(-step / tau_syn)),
                "beta": float(np.exp(-step / tau_mem)),
            }
            # its currents are added to V in each step, those of NIR over tau_mem
            weight = step / tau_mem * np.asarray(nodes[f"w{name}"].weight)
            self.weights.append(torch.nn.Parameter(torch.tensor(weight, dtype=torch.float32)))
            reset = "none" if options else "zero"
            self.cells.append(snntorch.Synaptic(**decays, **options, reset_mechanism=reset))

    def forward(self, counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums of V e^(-t / T) / T of the readout (`exp-sum`), (samples, classes), and spikes of each
        hidden neuron, of events in each step, (samples, steps, channels).
        """
        hidden, readout = self.cells
        first, second = hidden.reset_mem(), readout.reset_mem()
        total, fired = torch.zeros(()), torch.zeros(())
        for number, current in enumerate((counts @ self.weights[0].T).unbind(1), 1):
            spikes, *first = hidden(current, *first)
            _, *second = readout(spikes @ self.weights[1].T, *second)
            share = float(np.exp(-number * self.step / self.fade)) * self.step / self.fade
            total, fired = total + share * second[1], fired + spikes
        return total, fired


@dataclass(frozen=True)
class Task:
    """The recordings as counts of events in steps.

    Attributes:
        parts: "train", "validation", "test" -> recordings.
        events: of these.
        shape: (steps, channels).
        step: seconds.
        augment: what changes a batch of events, given a key for each.
    """

    parts: dict[str, Data]
    events: dict[str, Any]
    shape: tuple[int, int]
    step: float
    augment: Callable[[Any, Any], Any]

    def batch(
        self, name: str, index: np.ndarray, key: Any = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Counts (samples, steps, channels) and labels of some recordings; changed, given a key."""
        events = jax.tree.map(lambda array: jnp.asarray(array[index]), self.events[name])
        if key is not None:
            events = self.augment(jax.random.split(key, len(index)), events)
        counts = np.array(binned(events, self.shape, self.step))
        return torch.tensor(counts), torch.tensor(np.asarray(self.parts[name].y)[index]).long()


@partial(jax.jit, static_argnums=(1, 2))
def binned(events: Any, shape: tuple[int, int], step: float) -> jax.Array:
    """How many events there are in each step, (samples, *shape)."""
    counts = jnp.zeros((len(events.time), *shape))
    place = jnp.where(jnp.isfinite(events.time), events.time / step, shape[0]).astype(jnp.int32)
    return counts.at[jnp.arange(len(counts))[:, None], place, events.index].add(1.0, mode="drop")


def accuracy(model: torch.nn.Module, task: Task, name: str) -> tuple[float, float]:
    """The fraction that is answered right, and spikes of a hidden neuron."""
    count, right, fired = len(task.parts[name]), 0, 0.0
    with torch.no_grad():
        for start in range(0, count, AT_ONCE):
            index = np.arange(start, min(start + AT_ONCE, count))
            counts, labels = task.batch(name, index)
            scores, spikes = model(counts)
            right += int((scores.argmax(1) == labels).sum())
            fired += float(spikes.mean()) * len(index)
    return right / count, fired / count


def trained(
    net: Net, task: Task, options: dict[str, Any], seed: int, rate: float
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The average of the parameters that validates best, and what is known of it."""
    loss_of, size, epochs = options["loss_options"], options["batch_size"], options["epochs"]
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(options["ema_decay"]))
    shuffle, batches = np.random.default_rng(seed), len(task.parts["train"]) // size
    optimiser = torch.optim.Adam(net.parameters(), lr=rate)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * batches)
    best, kept = {"validation": -1.0}, {}
    for epoch in range(1, epochs + 1):
        order = shuffle.permutation(len(task.parts["train"]))
        key, losses = jax.random.fold_in(jax.random.key(seed), epoch), []
        for number in range(batches):
            index = order[number * size : (number + 1) * size]
            counts, labels = task.batch("train", index, jax.random.fold_in(key, number))
            scores = loss_of["gain"] * net(counts)[0]
            smoothing = loss_of["smoothing"]
            loss = torch.nn.functional.cross_entropy(scores, labels, label_smoothing=smoothing)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rates.step()
            average.update_parameters(net)
            losses.append(float(loss.detach()))
        validated, spikes = accuracy(average, task, "validation")
        to_stderr(f"epoch {epoch}/{epochs}  loss {np.mean(losses):.4f}  validation {validated:.4f}")
        if validated > best["validation"]:
            best = {"validation": validated, "best_epoch": epoch, "spikes": round(spikes, 2)}
            kept = {name: array.clone() for name, array in average.state_dict().items()}
    average.load_state_dict(kept)
    return average, best


def run(seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One seed."""
    start, processor = time.perf_counter(), time.process_time()
    network = tomllib.loads(arguments.recipe.read_text())["network"]
    options: dict[str, Any] = read_config(str(arguments.recipe))
    step, decay = parse_time(arguments.step), options["loss_options"]["decay"]
    net = Net(graph_of_table(network, seed), step, decay)
    splits, _ = load_splits(arguments.data, seed)
    encode, _ = make_encoder(splits, net.tau, None, options.get("encoder_options"))
    parts = {name: getattr(splits, name) for name in ("train", "validation", "test")}
    task = Task(
        parts=parts,
        events={name: encode(part.x) for name, part in parts.items()},
        shape=(round(options["t_end"] / step), network["input"]),
        step=step,
        augment=jax.jit(jax.vmap(augmentation_of(options.get("augment", {}), ()))),
    )
    if arguments.epochs:
        options["epochs"] = arguments.epochs
    model, best = trained(net, task, options, seed, arguments.lr)
    return {
        "seed": seed,
        "test": accuracy(model, task, "test")[0] if arguments.test else None,
        **best,
        "minutes": round((time.perf_counter() - start) / 60, 2),
        "cpu_minutes": round((time.process_time() - processor) / 60, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Train on spoken digits with snnTorch.")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data", required=True, help="wav:FOLDER")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--epochs", type=int, help="by default those of the recipe")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--step", default="10ms")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-test", dest="test", action="store_false")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)  # what has decayed for long is slow to compute with
    names = ("validation", "test") if arguments.test else ("validation",)
    each_seed(lambda seed: run(seed, arguments), arguments.seeds, names, arguments.first)
    print({name: str(value) for name, value in vars(arguments).items()})


if __name__ == "__main__":
    main()
