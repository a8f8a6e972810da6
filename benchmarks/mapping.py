"""Which of 200 random nets around the limit of BrainScaleS-2 are mapped into one run, by whom, and
how fast.

    python benchmarks/mapping.py [--nets N] [--signs free|fixed] [--json]

Four families of N/4 nets each. "greedy" is the baseline, `vendor_mapper.py`: the vendor's rules,
with as few circuits for each neuron as its fan-in needs, and free signs. Every mapping is checked.
Seconds are processor time, which other jobs on the machine hardly change; the time limit of a search
is 20 s of wall time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping

import numpy as np
from vendor_mapper import route_greedily, vendor_fit

from jaxsnn.bss2.check import check
from jaxsnn.bss2.chip import HICANN_X, NOTHING_DEAD
from jaxsnn.bss2.mapping import Run
from jaxsnn.bss2.netlist import Netlist, NetPopulation, netlist
from jaxsnn.bss2.search.feasibility import least_circuits
from jaxsnn.bss2.search.portfolio import place_and_route
from jaxsnn.bss2.search.route import Effort
from jaxsnn.bss2.search.task import task_of, usable_parts


def layers(sizes: list[int], connected: float, rng: np.random.Generator) -> Netlist:
    """A feed-forward net; each weight is there with a probability, but for the last layer's, which
    all are.
    """
    starts = np.cumsum([0, *sizes])
    pre, post = [], []
    for layer in range(len(sizes) - 1):
        share = connected if layer < len(sizes) - 2 else 1.0
        source, target = np.nonzero(rng.random((sizes[layer], sizes[layer + 1])) < share)
        pre.append(source + starts[layer])
        post.append(target + starts[layer + 1])
    return _net(sizes, np.concatenate(pre), np.concatenate(post), rng)


def recurrent(inputs: int, neurons: int, connected: float, rng: np.random.Generator) -> Netlist:
    """Inputs and neurons, all connected to all neurons with a probability."""
    source, target = np.nonzero(rng.random((inputs + neurons, neurons)) < connected)
    return _net([inputs, neurons], source, target + inputs, rng)


def _net(sizes: list[int], pre: np.ndarray, post: np.ndarray, rng: np.random.Generator) -> Netlist:
    weight = rng.integers(1, 64, len(pre)) * rng.choice([-1, 1], len(pre))
    populations = [
        NetPopulation(name=f"layer {number}", size=size, external=number == 0)
        for number, size in enumerate(sizes)
    ]
    return netlist(populations, pre, post, weight)


def dense_single(rng: np.random.Generator) -> Netlist:
    """N-M-10, all neurons on one circuit: the baseline maps N + M <= 128."""
    return layers([int(rng.integers(16, 105)), int(rng.integers(16, 105)), 10], 1.0, rng)


def sparse(rng: np.random.Generator) -> Netlist:
    """N-M-10 with a fan-in of about 70."""
    inputs = int(rng.integers(80, 161))
    return layers([inputs, int(rng.integers(10, 81)), 10], 70 / inputs, rng)


def recurrent_family(rng: np.random.Generator) -> Netlist:
    """Everything onto all neurons with a probability of 0.3 to 1, from 0.2 to 1.1 of what counting
    allows.
    """
    inputs, connected = int(rng.integers(8, 129)), float(rng.uniform(0.3, 1.0))
    most = next(
        n for n in range(512, 0, -1) if n * max(1, -(-(n + inputs) * connected // 128)) <= 512
    )
    return recurrent(inputs, int(most * rng.uniform(0.2, 1.1)), connected, rng)


def dense_double(rng: np.random.Generator) -> Netlist:
    """N-M-10, hidden neurons on two circuits."""
    return layers([int(rng.integers(129, 257)), int(rng.integers(20, 247)), 10], 1.0, rng)


FAMILIES: Mapping[str, Callable[[np.random.Generator], Netlist]] = {
    "dense N-M-10": dense_single,
    "sparse, fan-in ~70": sparse,
    "recurrent": recurrent_family,
    "dense N-M-10, 2 circuits": dense_double,
}


def greedily(net: Netlist) -> bool:
    """Whether the baseline maps a net into one run."""
    parts = usable_parts(HICANN_X, NOTHING_DEAD)
    neurons = np.flatnonzero(~net.external)
    task = task_of(net, parts, "free", neurons)
    rng = np.random.default_rng(0)
    placement = vendor_fit(task, least_circuits(net, parts, "free")[neurons], rng)
    return placement is not None and isinstance(route_greedily(task, placement, rng, Effort()), Run)


def measure(name: str, count: int, signs: str) -> dict[str, object]:
    """One row of the table."""
    rows = []
    for seed in range(count):
        net = FAMILIES[name](np.random.default_rng([list(FAMILIES).index(name), seed]))
        baseline = greedily(net)
        start = time.process_time()
        found = place_and_route(net, signs=signs, max_runs=1, time_limit=20.0)
        seconds = time.process_time() - start
        if found.mapping is not None and check(found.mapping, net):
            raise SystemExit(f"{name}, net {seed}: the mapping is wrong")
        rows.append((baseline, found.stop_reason, seconds))
    outcomes = [(baseline, reason == "fits") for baseline, reason, _ in rows]
    return {
        "family": name,
        "nets": count,
        "both": outcomes.count((True, True)),
        "only ours": outcomes.count((False, True)),
        "only greedy": outcomes.count((True, False)),
        "impossible": sum(reason == "impossible" for _, reason, _ in rows),
        "gave up": sum(reason == "gave up" for _, reason, _ in rows),
        "median s": round(float(np.median([seconds for *_, seconds in rows])), 3),
        "longest s": round(max(seconds for *_, seconds in rows), 3),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", type=int, default=200)
    parser.add_argument("--signs", default="free", choices=["free", "fixed"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [measure(name, options.nets // len(FAMILIES), options.signs) for name in FAMILIES]
    if options.json:
        json.dump(rows, sys.stdout, indent=2)
        return
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")


if __name__ == "__main__":
    main()
