"""The 8x8 digits, latency coded, first-spike readout: accuracy on stratified test splits of a
fifth.

    python benchmarks/train_digits.py --splits 10

Seeds 0, 1, ... draw the splits, the weights and the order; a tenth of each training part chooses
the epoch. Needs scikit-learn. Prints one line of JSON for each split, then a summary.
"""

import argparse
from typing import Any

from seeds import FormerFlag, each_seed

from jaxsnn.nir import Graph, build
from jaxsnn.nir.initializers import normal
from jaxsnn.train import Dropout, FirstSpike, digits_splits, fit
from jaxsnn.units import parse_time

TAU = parse_time("10ms")


def network(hidden: int, seed: int) -> Graph:
    """129-hidden-10 of CubaLIF neurons, tau_mem = 2 tau_syn."""
    neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
    return build.sequential(
        build.input(129),
        build.linear(hidden, weight=normal(0.12, 0.25)),
        neurons,
        build.linear(10, weight=normal(0.1, 0.3)),
        neurons,
        seed=seed,
    )


def run(seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One split."""
    loss = FirstSpike(
        population="4", tau=TAU, t_max=6.5 * TAU, temperature=arguments.temperature, late_weight=0.0
    )
    trained = fit(
        network(arguments.hidden, seed),
        digits_splits(seed, copies=arguments.copies),
        loss=loss,
        epochs=arguments.epochs,
        learning_rate=arguments.lr,
        augment=Dropout(probability=0.05),
        ema_decay=0.995,
        seed=seed,
        progress=(lambda line: print(line, flush=True)) if arguments.verbose else None,
    )
    best = trained.history[trained.best_epoch]
    return {
        "seed": seed,
        "validation": best.validation_accuracy,
        "test": trained.test_accuracy,
        "seconds": sum(trained.seconds),
        "spikes": best.spikes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Train on the digits.")
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--hidden", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--copies", type=int, default=30)
    parser.add_argument("--lr", type=float, default=0.005)
    parser.add_argument("--temperature", type=float, default=0.07)
    parser.add_argument("--sharpness", type=float, dest="temperature", action=FormerFlag)
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    each_seed(
        lambda seed: run(seed, arguments),
        arguments.splits,
        ("validation", "test", "seconds"),
        arguments.first,
    )
    print(vars(arguments))


if __name__ == "__main__":
    main()
