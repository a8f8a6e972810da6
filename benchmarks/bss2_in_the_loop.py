"""Yin-Yang 5-120-3 on emulated BrainScaleS-2 chips: trained without them, with noise, in the loop.

    python benchmarks/bss2_in_the_loop.py --seeds 0 1 2
    python benchmarks/bss2_in_the_loop.py --ways plain weak noise early --start \\
        --seeds 0 1 2 3 4 5 6 7
    python benchmarks/bss2_in_the_loop.py --copies 2 --ways weak noise gains --start \\
        --seeds 0 1 2 3 4 5 6 7
    python benchmarks/bss2_in_the_loop.py --copies 4 --ways broad --start --seeds 0 1 2 3 4 5 6 7
    python benchmarks/bss2_in_the_loop.py --ways noise --start noise --seeds 0 1 2 \\
        --epochs 200 --lr 0.02 --schedule cosine --batch-size 128 --temperature 0.1
    python benchmarks/bss2_in_the_loop.py --ways noise --start noise --seeds 0 1 2 \\
        --epochs 100 --schedule cosine --batch-size 128 --temperature 0.1 --late-weight 0.05

The network is the one of `jaxsnn demo`, as snnTorch exported it, or that with its hidden neurons
several times (`--copies`). It is trained with the event engine in some `--ways`: `plain` as it is,
`weak` and `noise` with noise of its parameters and of the input spikes, `early` with such noise in two
steps and early spikes, `gains` likewise with noise of gains, `broad` with more of it and a rate that
falls. Then it goes on in the loop with each chip, from any of them (`--start`). Chips differ by the
seed of their fixed pattern, all else is the default of `EmulatedChip`.
Prints one line of JSON for each result.
"""

import argparse
import importlib.resources
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from seeds import FormerFlag

import jaxsnn
from jaxsnn.bss2.emulate import SPREADS, EmulatedChip
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.nir import Graph
from jaxsnn.train import InTheLoop, fit, on_chip, yinyang, yinyang_splits
from jaxsnn.train.data.augment import Jitter
from jaxsnn.train.loop.evaluation import evaluate
from jaxsnn.train.loop.optimisers import SCHEDULES
from jaxsnn.train.losses.losses import FirstSpike

SOURCE = Path(str(importlib.resources.files("jaxsnn.commands.demo"))) / "snntorch_yinyang.nir"
TAU, MIN_SLOPE = 6.4e-3, 0.04
HIDDEN, OUTPUT = "lif1", "lif2"
FRESH_SEED, FRESH = 123456, 10_000
TEMPERATURE = 0.15


#: What each way of training without a chip does, step by step; `temperature` is `TEMPERATURE` where none
#: is given. Early spikes (a large `late_weight`) cross their threshold steeply.
WAYS: dict[str, tuple[dict[str, Any], ...]] = {
    # without noise a wide softmax moves wrong outputs later until they are silent
    "plain": ({"temperature": 0.03, "learning_rate": 0.01, "epochs": 50, "jitter": 0.0},),
    "weak": (
        {
            "temperature": 0.1,
            "learning_rate": 0.02,
            "epochs": 100,
            "noise": {"weight": 0.03, "v_threshold": 0.02},
        },
    ),
    "noise": (
        {"learning_rate": 0.03, "epochs": 250, "noise": {"weight": 0.07, "v_threshold": 0.05}},
    ),
    "early": (
        {
            "late_weight": 0.1,
            "learning_rate": 0.03,
            "epochs": 100,
            "ema_decay": 0.95,
            "noise": {"weight": 0.04, "v_threshold": 0.10},
        },
        {
            "late_weight": 0.05,
            "learning_rate": 0.02,
            "epochs": 110,
            "ema_decay": 0.97,
            "noise": {"weight": 0.03, "v_threshold": 0.07},
        },
    ),
    "gains": (
        {
            "late_weight": 0.1,
            "learning_rate": 0.03,
            "epochs": 100,
            "ema_decay": 0.95,
            "noise": {
                "weight": 0.03,
                "v_threshold": 0.08,
                "input_gain": 0.05,
                "driver_gain": 0.04,
            },
        },
        {
            "late_weight": 0.05,
            "learning_rate": 0.02,
            "epochs": 110,
            "ema_decay": 0.97,
            "noise": {
                "weight": 0.02,
                "v_threshold": 0.06,
                "input_gain": 0.05,
                "driver_gain": 0.04,
            },
        },
    ),
    "broad": (
        {
            "late_weight": 0.1,
            "learning_rate": 0.03,
            "epochs": 60,
            "ema_decay": 0.95,
            "noise": {
                "weight": 0.02,
                "v_threshold": 0.08,
                "input_gain": 0.06,
                "driver_gain": 0.06,
            },
        },
        {
            "late_weight": 0.05,
            "learning_rate": 0.03,
            "schedule": "cosine",
            "epochs": 130,
            "ema_decay": 0.97,
            "noise": {
                "weight": 0.01,
                "v_threshold": 0.06,
                "input_gain": 0.06,
                "driver_gain": 0.06,
            },
        },
    ),
}


def loss_of(temperature: float, late_weight: float = FirstSpike.late_weight) -> FirstSpike:
    """First-spike loss of the output population."""
    return FirstSpike(
        population=OUTPUT,
        tau=TAU,
        t_max=6.5 * TAU,
        temperature=temperature,
        late_weight=late_weight,
    )


def trained(
    graph: Graph, engine: EventDriven | InTheLoop, arguments: argparse.Namespace, **options: Any
) -> Graph:
    """The graph after training."""
    options = {"ema_decay": arguments.ema_decay, "seed": 0, **options}
    progress = print if arguments.verbose else None
    return fit(graph, yinyang_splits(0), engine=engine, progress=progress, **options).graph


def on(
    engine: EventDriven | InTheLoop, graph: Graph, arguments: argparse.Namespace
) -> dict[str, float]:
    """Accuracy on the test points, and on fresh ones."""
    sets = {"test": yinyang_splits(0).test, "fresh": yinyang(FRESH, FRESH_SEED)}
    return {
        name: evaluate(graph, data, loss=loss_of(arguments.temperature), bias=True, engine=engine)
        for name, data in sets.items()
    }


def say(**found: object) -> None:
    """One line of JSON."""
    print(json.dumps(found), flush=True)


def widened(graph: Graph, copies: int) -> Graph:
    """The graph with each hidden neuron several times, what they send divided by as much; weights
    are scattered by 30 %, so that copies become neurons of their own.
    """
    if copies == 1:
        return graph
    generator, hidden = np.random.default_rng(0), graph.nodes[HIDDEN]
    own = {
        name: np.tile(value, copies)
        for name, value in hidden.parameters.items()
        if np.ndim(value) == 1
    }
    nodes = [hidden.replace(**own)]
    for name, times, share in (("fc1", (copies, 1), 1.0), ("fc2", (1, copies), 1 / copies)):
        weight = np.tile(graph.nodes[name].parameters["weight"], times) * share
        weight = weight * (1 + 0.3 * generator.standard_normal(weight.shape))
        nodes.append(graph.nodes[name].replace(weight=weight.astype(np.float32)))
    return graph.with_nodes(nodes)


def without_chip(
    graph: Graph, plain: EventDriven, way: str, arguments: argparse.Namespace
) -> Graph:
    """Trained on the event engine."""
    for number, given in enumerate(WAYS[way]):
        step = dict(given)
        temperature = step.pop("temperature", TEMPERATURE)
        step["loss"] = loss_of(temperature, step.pop("late_weight", FirstSpike.late_weight))
        if jitter := step.pop("jitter", arguments.jitter):
            step["augment"] = Jitter(deviation=jitter * TAU)
        graph = trained(graph, plain, arguments, seed=number, **step)
    return graph


def main() -> None:
    parser = argparse.ArgumentParser(description="Train on emulated chips.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--copies", type=int, default=1, help="of the hidden neurons")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--start", nargs="*", default=["noise"], choices=list(WAYS))
    parser.add_argument("--epochs", type=int, default=60, help="in the loop")
    parser.add_argument("--lr", type=float, default=0.01, help="in the loop")
    parser.add_argument("--schedule", default="constant", choices=list(SCHEDULES))
    parser.add_argument("--ema-decay", type=float, default=0.99)
    parser.add_argument("--temperature", type=float, default=TEMPERATURE, help="in the loop")
    parser.add_argument("--sharpness", type=float, dest="temperature", action=FormerFlag)
    parser.add_argument(
        "--late-weight", type=float, default=FirstSpike.late_weight, help="of the loss, in the loop"
    )
    parser.add_argument("--batch-size", type=int, default=64, help="in the loop")
    parser.add_argument("--jitter", type=float, default=0.05, help="of input spikes, in tau_syn")
    parser.add_argument("--headroom", type=float, default=1.3, help="in the loop")
    parser.add_argument("--spread", default="recorded", choices=sorted(SPREADS))
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    graph = widened(jaxsnn.read(SOURCE, dialect="snntorch", reset="zero"), arguments.copies)
    spread = SPREADS[arguments.spread]
    loss = loss_of(arguments.temperature, arguments.late_weight)
    plain = EventDriven(max_spikes=8, first_spike_only=(OUTPUT,), min_slope=MIN_SLOPE)
    ways = [way for way in WAYS if way in {*arguments.ways, *arguments.start}]
    begun = {way: without_chip(graph, plain, way, arguments) for way in ways}

    def chip(net: Graph, headroom: float, **which: Any) -> InTheLoop:
        return on_chip(net, loss, chip=EmulatedChip(spread=spread, **which), headroom=headroom)

    def off_chip(engine: InTheLoop) -> EventDriven:
        """The event engine with the refractory period of the chip, so that they are comparable."""
        return replace(plain, refractory=engine.event.refractory)

    for name, net in begun.items():
        ideal = chip(net, 1.0, ideal=True)
        say(trained=name, on="event engine", **on(off_chip(ideal), net, arguments))
        say(trained=name, on="ideal chip", **on(ideal, net, arguments))
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
            rate |= {"batch_size": arguments.batch_size, "schedule": arguments.schedule}
            within = trained(begun[name], engine, arguments, **rate)
            seconds = round(time.perf_counter() - start, 1)
            found = on(engine, within, arguments)
            say(trained=label, on=f"chip {seed}", **found, seconds=seconds)
            say(trained=label, on="event engine", **on(off_chip(engine), within, arguments))
    say(version=jaxsnn.__version__, **vars(arguments))


if __name__ == "__main__":
    main()
