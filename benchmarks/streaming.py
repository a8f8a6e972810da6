"""What an event costs in a stream: 700-256-20, 8,000 events in 1 s, by the size of the pieces.

python benchmarks/streaming.py [--repeats 5]
"""

import argparse
import time
from typing import Any

import numpy as np

import jaxsnn
from jaxsnn.nir import build

INPUTS, HIDDEN, OUTPUTS = 700, 256, 20
EVENTS, T_END = 8000, 1.0
PIECES = (1, 10, 100, 1000, 8000)


def network() -> jaxsnn.Network:
    """Weights under which a hidden neuron fires about 17 times."""
    rng = np.random.default_rng(0)

    def neurons(size: int) -> build.Layer:
        return build.cubalif(size, tau_mem="20ms", tau_syn="10ms")

    return jaxsnn.lower(
        build.sequential(
            build.input(INPUTS),
            build.linear(weight=rng.normal(0.011, 0.1, (HIDDEN, INPUTS))),
            neurons(HIDDEN),
            build.linear(weight=rng.normal(0.05, 0.1, (OUTPUTS, HIDDEN))),
            neurons(OUTPUTS),
        )
    )


def events_of(time: Any, index: Any) -> jaxsnn.Events:
    """NumPy's arrays as events."""
    return jaxsnn.Events(time=time, index=index)


def seconds(net: jaxsnn.Network, given: jaxsnn.Events, size: int) -> tuple[float, int]:
    """How long a whole stream takes, and how many spikes its hidden neurons fire."""
    session, fired = jaxsnn.stream(net, record=["2", "4"]), 0
    begin = time.perf_counter()
    for first in range(0, EVENTS, size):
        piece = slice(first, first + size)
        spikes = session.push(events_of(given.time[piece], given.index[piece]))
        fired += len(spikes["2"].time)
    return time.perf_counter() - begin, fired


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    rng = np.random.default_rng(1)
    given = events_of(np.sort(rng.uniform(0, T_END, EVENTS)), rng.integers(0, INPUTS, EVENTS))
    net = network()
    for size in PIECES:
        found = [seconds(net, given, size) for _ in range(repeats)]
        fastest, fired = min(found)
        print(
            f"pieces of {size:5} events: {fastest / EVENTS * 1e6:6.2f} us an event,"
            f" {fired / HIDDEN:.1f} spikes per hidden neuron"
        )


if __name__ == "__main__":
    main()
