"""Yin-Yang 5-120-3 on emulated BrainScaleS-2 chips: trained in the loop, and trained without.

    python benchmarks/bss2_in_the_loop.py --seeds 0 1 2

The network is the one of `jaxsnn demo`, as snnTorch exported it. It is trained once with the event
engine, and once in the loop for each chip, with the same loss, epochs and seed of the training.
Both are then run on the chips; chips differ by the seed of their fixed pattern, everything else
is the default of `EmulatedChip`. Prints one line of JSON for each result.
"""

import argparse
import importlib.resources
import json
import time
from pathlib import Path

import jaxsnn
from jaxsnn.bss2.emulate import SPREADS, EmulatedChip
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.nir import Graph
from jaxsnn.train import InTheLoop, fit, on_chip, yinyang, yinyang_splits
from jaxsnn.train.loop.evaluation import evaluate
from jaxsnn.train.losses.losses import FirstSpike

SOURCE = Path(str(importlib.resources.files("jaxsnn.commands.demo"))) / "snntorch_yinyang.nir"
TAU, MIN_SLOPE = 6.4e-3, 0.04
OUTPUT = "lif2"
FRESH_SEED, FRESH = 123456, 10_000


def loss_of(arguments: argparse.Namespace) -> FirstSpike:
    """First-spike loss of the output population."""
    return FirstSpike(population=OUTPUT, tau=TAU, t_max=6.5 * TAU, sharpness=arguments.sharpness)


def trained(
    graph: Graph, engine: EventDriven | InTheLoop, arguments: argparse.Namespace
) -> tuple[Graph, float]:
    """The graph after training, and the test accuracy on its own engine."""
    done = fit(
        graph,
        yinyang_splits(0),
        loss=loss_of(arguments),
        engine=engine,
        epochs=arguments.epochs,
        learning_rate=arguments.lr,
        ema_decay=arguments.ema_decay,
        seed=0,
        progress=print if arguments.verbose else None,
    )
    return done.graph, done.test_accuracy


def on(
    engine: EventDriven | InTheLoop, graph: Graph, arguments: argparse.Namespace
) -> dict[str, float]:
    """Accuracy on the test points, and on fresh ones."""
    sets = {"test": yinyang_splits(0).test, "fresh": yinyang(FRESH, FRESH_SEED)}
    return {
        name: evaluate(graph, data, loss=loss_of(arguments), bias=True, engine=engine)
        for name, data in sets.items()
    }


def say(**found: object) -> None:
    """One line of JSON."""
    print(json.dumps(found), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train on emulated chips.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--ema-decay", type=float, default=0.99)
    parser.add_argument("--sharpness", type=float, default=0.03)
    parser.add_argument(
        "--headroom", type=float, nargs=2, default=[1.25, 4.0], help="of either layer"
    )
    parser.add_argument("--spread", default="recorded", choices=sorted(SPREADS))
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--skip-baseline", action="store_true", help="only train in the loop")
    arguments = parser.parse_args()
    graph = jaxsnn.read(SOURCE, dialect="snntorch", reset="zero")
    loss, spread = loss_of(arguments), SPREADS[arguments.spread]
    plain = EventDriven(max_spikes=4, first_spike_only=(OUTPUT,), min_slope=MIN_SLOPE)
    if not arguments.skip_baseline:
        without, accuracy = trained(graph, plain, arguments)
        say(trained="without the loop", on="event engine", test=accuracy)
        ideal = on_chip(without, loss, chip=EmulatedChip(ideal=True), headroom=1.0)
        say(trained="without the loop", on="ideal chip", **on(ideal, without, arguments))
        for seed in arguments.seeds:
            engine = on_chip(
                without, loss, chip=EmulatedChip(seed=seed, spread=spread), headroom=1.0
            )
            say(trained="without the loop", on=f"chip {seed}", **on(engine, without, arguments))
    for seed in arguments.seeds:
        start = time.perf_counter()
        headroom = {"lif1": arguments.headroom[0], "lif2": arguments.headroom[1]}
        engine = on_chip(
            graph, loss, chip=EmulatedChip(seed=seed, spread=spread), headroom=headroom
        )
        within, accuracy = trained(graph, engine, arguments)
        seconds = round(time.perf_counter() - start, 1)
        say(
            trained=f"on chip {seed}",
            on=f"chip {seed}",
            **on(engine, within, arguments),
            seconds=seconds,
        )
        say(trained=f"on chip {seed}", on="event engine", **on(plain, within, arguments))
    say(version=jaxsnn.__version__, **vars(arguments))


if __name__ == "__main__":
    main()
