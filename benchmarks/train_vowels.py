"""JapaneseVowels, exact gradients through spiking hidden neurons, leaky readout: accuracy on the
official test set.

    python benchmarks/train_vowels.py --folder aeon/datasets/data/JapaneseVowels --seeds 5

The test set is looked at once, and chooses no epoch. Without --held-out all 270 training utterances
train, and the best epoch on these counts. Prints one line of JSON for each seed, then a summary.
"""

import argparse
from dataclasses import replace
from typing import Any

import numpy as np
from seeds import each_seed

from jaxsnn.event.event_driven import EventDriven
from jaxsnn.nir import Graph, build
from jaxsnn.nir.initializers import normal
from jaxsnn.train import Dropout, ExponentialSum, fit, japanese_vowels_splits
from jaxsnn.train.data.datasets import select_samples
from jaxsnn.units import parse_time

TAU = parse_time("10ms")


def network(hidden: int, seed: int, recurrent: bool) -> Graph:
    """72-hidden-9: CubaLIF neurons, which may feed back to each other, then a CubaLI readout."""
    nodes = {
        "input": build.input(72),
        "in": build.linear(hidden, weight=normal(0.04, 0.15)),
        "hidden": build.cubalif(tau_mem="20ms", tau_syn="10ms"),
        "out": build.linear(9, weight=normal(0.0, 0.1)),
        "readout": build.cubali(tau_mem="20ms", tau_syn="10ms"),
        "output": build.output(),
    }
    chains: list[tuple[str, ...]] = [("input", "in", "hidden", "out", "readout", "output")]
    if recurrent:
        nodes["back"] = build.linear(hidden, weight=normal(0.0, 0.02))
        chains.append(("hidden", "back", "hidden"))
    return build.network(nodes, chains, seed=seed)


def run(seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One seed."""
    held_out = 0.2 if arguments.held_out else 0.0
    splits = japanese_vowels_splits(
        seed, folder=arguments.folder, copies=arguments.copies, held_out=held_out
    )
    if not arguments.held_out:  # the utterances as they are, without the copies, choose the epoch
        splits = replace(
            splits,
            validation=select_samples(
                splits.train, np.arange(len(splits.train.y) // arguments.copies)
            ),
        )
    end = splits.span * TAU  # pyright: ignore[reportOptionalOperand]
    trained = fit(
        network(arguments.hidden, seed, arguments.recurrent),
        splits,
        loss=ExponentialSum(population="readout", tau=TAU, t_max=end, gain=arguments.gain),
        engine=EventDriven(max_spikes=8, min_slope=0.04),
        epochs=arguments.epochs,
        learning_rate=arguments.lr,
        augment=Dropout(probability=0.4),
        ema_decay=arguments.ema_decay,
        seed=seed,
        progress=(lambda line: print(line, flush=True)) if arguments.verbose else None,
    )
    best = trained.history[trained.best_epoch]
    return {
        "seed": seed,
        "validation": best.validation_accuracy,
        "best_epoch": trained.best_epoch,
        "test": trained.test_accuracy,
        "seconds": sum(trained.seconds),
        "spikes": best.spikes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Train on JapaneseVowels.")
    parser.add_argument("--folder")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--hidden", type=int, default=150)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--copies", type=int, default=20)
    parser.add_argument("--lr", type=float, default=0.005)
    parser.add_argument("--gain", type=float, default=20.0)
    parser.add_argument("--ema-decay", type=float, default=0.99)
    parser.add_argument(
        "--recurrent", action="store_true", help="the hidden neurons feed back to each other"
    )
    parser.add_argument(
        "--held-out",
        action="store_true",
        help="choose the epoch by a fifth of the training utterances",
    )
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    each_seed(
        lambda seed: run(seed, arguments),
        arguments.seeds,
        ("validation", "test", "seconds"),
        arguments.first,
    )
    print(vars(arguments))


if __name__ == "__main__":
    main()
