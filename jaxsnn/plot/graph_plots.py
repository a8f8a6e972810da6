"""Graphs and mappings: the pictures of `jaxsnn.plot.graph_drawing` and `jaxsnn.bss2.floorplan`."""

from __future__ import annotations

from typing import Any

from jaxsnn.errors import UsageError
from jaxsnn.plot.picture import Picture


def graph(graph: Any) -> Picture:
    """The nodes of a `jaxsnn.Graph` and what feeds what, from left to right."""
    from jaxsnn.plot.graph_drawing import FORMATS

    def render(kind: str) -> bytes:
        drawn = FORMATS[f".{kind}"](graph)
        return drawn.encode("utf-8") if isinstance(drawn, str) else drawn

    alt = f"graph of {len(graph.nodes)} nodes and {len(graph.edges)} edges"
    return Picture(alt=alt, render=render, vector=True)


def floorplan(mapping: Any) -> Picture:
    """Where a mapping puts neurons and synapses on the chip, and how full that is; as SVG."""
    from jaxsnn.bss2.floorplan import floorplan as drawn

    def render(kind: str) -> bytes:
        if kind != "svg":
            raise UsageError(
                f"a floorplan is not drawn as {kind}", fix="name a file that ends in .svg"
            )
        return drawn(mapping).encode("utf-8")

    runs = len(mapping.runs)
    alt = f"floorplan of {runs} run{'s' * (runs != 1)} on {mapping.chip.name}"
    return Picture(alt=alt, render=render, vector=True)
