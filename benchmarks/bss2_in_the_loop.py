"""Yin-Yang 5-120-3 on emulated BrainScaleS-2 chips: trained without them, with noise, in the loop.

    python benchmarks/bss2_in_the_loop.py --seeds 0 1 2

The network is the one of `jaxsnn demo`, as snnTorch exported it. It is trained with the event engine,
once as it is, once with noise of its parameters and of the input spikes, and once with such noise in
two steps and early spikes, and then goes on in the loop with each chip, from any (`--start`).
Chips differ by the seed of their fixed pattern, all else is the default of `EmulatedChip`. Prints
one line of JSON for each result.
"""

import argparse
import importlib.resources
import json
import time
from pathlib import Path
from typing import Any

import jaxsnn
from jaxsnn.bss2.emulate import SPREADS, EmulatedChip
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.nir import Graph
from jaxsnn.train import InTheLoop, fit, on_chip, yinyang, yinyang_splits
from jaxsnn.train.data.augment import Jitter
from jaxsnn.train.loop.evaluation import evaluate
from jaxsnn.train.losses.losses import FirstSpike

SOURCE = Path(str(importlib.resources.files("jaxsnn.commands.demo"))) / "snntorch_yinyang.nir"
TAU, MIN_SLOPE = 6.4e-3, 0.04
OUTPUT = "lif2"
FRESH_SEED, FRESH = 123456, 10_000


#: Early spikes cross their threshold steeply. Each step: late_weight, rate, epochs, noise of weights
#: and of thresholds, ema_decay.
STEPS = ((0.1, 0.03, 100, 0.04, 0.10, 0.95), (0.05, 0.02, 110, 0.03, 0.07, 0.97))


def loss_of(sharpness: float, late_weight: float = FirstSpike.late_weight) -> FirstSpike:
    """First-spike loss of the output population."""
    return FirstSpike(
        population=OUTPUT,
        tau=TAU,
        t_max=6.5 * TAU,
        sharpness=sharpness,
        late_weight=late_weight,
    )


def trained(
    graph: Graph, engine: EventDriven | InTheLoop, arguments: argparse.Namespace, **options: Any
) -> Graph:
    """The graph after training."""
    return fit(
        graph,
        yinyang_splits(0),
        engine=engine,
        seed=0,
        progress=print if arguments.verbose else None,
        **{"ema_decay": arguments.ema_decay, **options},
    ).graph


def on(
    engine: EventDriven | InTheLoop, graph: Graph, arguments: argparse.Namespace
) -> dict[str, float]:
    """Accuracy on the test points, and on fresh ones."""
    sets = {"test": yinyang_splits(0).test, "fresh": yinyang(FRESH, FRESH_SEED)}
    return {
        name: evaluate(graph, data, loss=loss_of(arguments.sharpness), bias=True, engine=engine)
        for name, data in sets.items()
    }


def say(**found: object) -> None:
    """One line of JSON."""
    print(json.dumps(found), flush=True)


def without_chips(
    graph: Graph, plain: EventDriven, arguments: argparse.Namespace
) -> dict[str, Graph]:
    """Trained on the event engine: as it is, with noise, and with noise and early spikes."""
    noise = dict(zip(("weight", "v_threshold"), arguments.noise, strict=True))
    # without noise a wide softmax moves wrong outputs later until they are silent
    still = {"loss": loss_of(0.03), "epochs": 50, "learning_rate": 0.01}
    loud = {"loss": loss_of(arguments.sharpness), "epochs": arguments.epochs_without}
    loud |= {"learning_rate": 0.03, "noise": noise}
    moved = Jitter(deviation=arguments.jitter * TAU)
    early = graph
    for late_weight, rate, epochs, weight, threshold, decay in STEPS:
        step: dict[str, Any] = {"loss": loss_of(arguments.sharpness, late_weight)}
        step |= {"learning_rate": rate, "epochs": epochs, "ema_decay": decay}
        step |= {"noise": {"weight": weight, "v_threshold": threshold}}
        early = trained(early, plain, arguments, **step, augment=moved)
    return {
        "plain": trained(graph, plain, arguments, **still),
        "noise": trained(graph, plain, arguments, **loud, augment=moved),
        "early": early,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Train on emulated chips.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--start", nargs="+", default=["noise"], choices=["plain", "noise", "early"]
    )
    parser.add_argument("--epochs", type=int, default=60, help="in the loop")
    parser.add_argument("--epochs-without", type=int, default=250)
    parser.add_argument("--lr", type=float, default=0.01, help="in the loop")
    parser.add_argument("--ema-decay", type=float, default=0.99)
    parser.add_argument("--sharpness", type=float, default=0.15)
    parser.add_argument("--noise", type=float, nargs=2, default=[0.07, 0.05])
    parser.add_argument("--jitter", type=float, default=0.05, help="of input spikes, in tau_syn")
    parser.add_argument("--headroom", type=float, default=1.3, help="in the loop")
    parser.add_argument("--spread", default="recorded", choices=sorted(SPREADS))
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    graph = jaxsnn.read(SOURCE, dialect="snntorch", reset="zero")
    loss, spread = loss_of(arguments.sharpness), SPREADS[arguments.spread]
    plain = EventDriven(max_spikes=8, first_spike_only=(OUTPUT,), min_slope=MIN_SLOPE)
    begun = without_chips(graph, plain, arguments)

    def chip(net: Graph, headroom: float, **which: Any) -> InTheLoop:
        return on_chip(net, loss, chip=EmulatedChip(spread=spread, **which), headroom=headroom)

    for name, net in begun.items():
        say(trained=name, on="event engine", **on(plain, net, arguments))
        say(trained=name, on="ideal chip", **on(chip(net, 1.0, ideal=True), net, arguments))
        for seed in arguments.seeds:
            say(trained=name, on=f"chip {seed}", **on(chip(net, 1.0, seed=seed), net, arguments))
    for name in arguments.start:
        for seed in arguments.seeds:
            start = time.perf_counter()
            engine, label = (
                chip(begun[name], arguments.headroom, seed=seed),
                f"{name}, on chip {seed}",
            )
            rate = {"loss": loss, "epochs": arguments.epochs, "learning_rate": arguments.lr}
            within = trained(begun[name], engine, arguments, **rate)
            seconds = round(time.perf_counter() - start, 1)
            found = on(engine, within, arguments)
            say(trained=label, on=f"chip {seed}", **found, seconds=seconds)
            say(trained=label, on="event engine", **on(plain, within, arguments))
    say(version=jaxsnn.__version__, **vars(arguments))


if __name__ == "__main__":
    main()
