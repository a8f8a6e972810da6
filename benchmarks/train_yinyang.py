"""Yin-Yang with weights alone: accuracies on 10,000 points that no run has seen.

    python benchmarks/train_yinyang.py --hidden 30 --epochs 100 --lr 0.03 --first-spike-only
    python benchmarks/train_yinyang.py --hidden 200 --epochs 50 --lr 0.03 --first-spike-only

Training, validation and test sets have 5000, 1000 and 1000 points; the validation set chooses the
epoch. Prints one line of JSON for each seed, then a summary; seeds are 0, 1, ...; the fresh points
have the seed 123456.
"""

import argparse
import statistics
import time
from typing import Any

from seeds import each_seed

import jaxsnn
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.nir import Graph, build
from jaxsnn.nir.initializers import normal
from jaxsnn.train import Bounded, Free, evaluate, fit, yinyang, yinyang_splits
from jaxsnn.units import parse_time

FRESH_SEED, FRESH = 123456, 10_000
_MANY = ((3.0, 1.6), (0.5, 0.8))
#: Mean and deviation of the first weights, hidden and output, of neurons that fire once; by hidden
#: neurons.
ONCE = {30: ((3.0, 1.6), (1.5, 1.5)), 100: _MANY, 200: _MANY}
#: Of neurons that fire as often as they do: weights that large would make them fire four times a
#: sample.
OFTEN = {30: ((1.2, 0.6), (0.6, 0.6)), 200: ((1.2, 0.9), (0.15, 0.3))}


def network(hidden: int, seed: int, *, once: bool) -> Graph:
    """5-hidden-3 of CubaLIF neurons, tau_mem = 2 tau_syn."""
    neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
    first, second = (ONCE if once else OFTEN)[hidden]
    return build.sequential(
        build.input(5),
        build.linear(hidden, weight=normal(*first)),
        neurons,
        build.linear(3, weight=normal(*second)),
        neurons,
        seed=seed,
    )


def run(seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One seed: trains and evaluates."""
    start = time.perf_counter()
    reached: list[float] = []

    def watch(line: str) -> None:
        accuracy = (
            float(line.split("validation")[1].split("%")[0]) if line.startswith("epoch") else 0.0
        )
        if accuracy >= 98.0 and not reached:
            reached.append(time.perf_counter() - start)
        if arguments.verbose:
            print(line, flush=True)

    engine = (
        EventDriven(max_spikes=1, first_spike_only=True, min_slope=0.04)
        if arguments.first_spike_only
        else None
    )
    delays: dict[str, Any] = {}
    if arguments.delays:
        delays["synaptic_delays"] = dict.fromkeys(("1", "3"), parse_time("2ms"))
        delays["trainable"] = {"weight": Free(), "delay": Bounded(low=0.0, high=parse_time("10ms"))}
    options = {
        "epochs": arguments.epochs,
        "learning_rate": arguments.lr,
        "ema_decay": arguments.ema_decay,
        "seed": seed,
        "progress": watch,
    }
    trained = fit(
        network(arguments.hidden, seed, once=arguments.first_spike_only),
        yinyang_splits(seed),
        engine=engine,
        **options,
        **delays,
    )
    best = trained.history[trained.best_epoch]
    return {
        "seed": seed,
        "validation": best.validation_accuracy,
        "test": trained.test_accuracy,
        "fresh": evaluate(trained.graph, yinyang(FRESH, FRESH_SEED), bias=True, engine=engine),
        "seconds": sum(trained.seconds),
        "seconds_to_98": reached[0] if reached else float("nan"),
        "epoch_seconds": statistics.median(trained.seconds[2:]),
        "spikes": best.spikes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Train on Yin-Yang.")
    parser.add_argument("--hidden", type=int, default=30, choices=(30, 200))
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument(
        "--ema-decay", type=float, default=0.0, help="of the average of the weights; 0: none"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--first-spike-only",
        action="store_true",
        help="every neuron fires once, the hidden ones too",
    )
    parser.add_argument(
        "--delays", action="store_true", help="train a delay of each synapse too, up to tau_syn"
    )
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    each_seed(
        lambda seed: run(seed, arguments),
        arguments.seeds,
        ("validation", "test", "fresh", "seconds", "seconds_to_98", "epoch_seconds"),
    )
    print(f"jaxsnn-nir {jaxsnn.__version__}, 5-{arguments.hidden}-3, {vars(arguments)}")


if __name__ == "__main__":
    main()
