# pyright: reportUnnecessaryTypeIgnoreComment=true
"""Calls with a misspelt keyword, each of which a type checker detects: `make check` fails if a
comment below suppresses no error. Nothing runs this file.
"""

import jaxsnn
from jaxsnn.nir import Graph, build
from jaxsnn.train import Latency, TrainOptions


def misspelt(graph: Graph, network: jaxsnn.Network, events: jaxsnn.Events) -> None:
    """Call the main functions with a misspelt keyword."""
    jaxsnn.read("model.nir", dialekt="snntorch")  # pyright: ignore[reportCallIssue]
    jaxsnn.parse(graph, resett="zero")  # pyright: ignore[reportCallIssue]
    build.sequential(build.input(2), sed=0)  # pyright: ignore[reportCallIssue]
    build.network({}, [], sed=0)  # pyright: ignore[reportCallIssue]
    build.lif(tau_mem="10ms")  # pyright: ignore[reportCallIssue]
    jaxsnn.simulate(network, events, tend=1.0)  # pyright: ignore[reportCallIssue]
    jaxsnn.EventDriven(max_spike=3)  # pyright: ignore[reportCallIssue]
    jaxsnn.TimeStepped(recrd=True)  # pyright: ignore[reportCallIssue]
    jaxsnn.fit(graph, "yinyang", epoch=3)  # pyright: ignore[reportCallIssue]
    TrainOptions(epoch=3)  # pyright: ignore[reportCallIssue]
    Latency(tmax=1.0)  # pyright: ignore[reportCallIssue]
    jaxsnn.convert(graph, too="norse")  # pyright: ignore[reportCallIssue]
    jaxsnn.quantize(graph, scal="balanced")  # pyright: ignore[reportCallIssue]
    jaxsnn.EmulatedChip(seeds=0)  # pyright: ignore[reportCallIssue]


def correct(graph: Graph) -> None:
    """Call functions with options of single frameworks, and with short names."""
    jaxsnn.read("model.nir", dialect="sinabs", spike_fn="multi", max_bytes=10)
    jaxsnn.fit(graph, "yinyang", lr=0.1, epochs=3)
