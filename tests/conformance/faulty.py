"""A framework that is right, and the same with one fault at a time that a real framework has had."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxsnn.conformance import NotApplicableError
from jaxsnn.conformance.networks import graph_of
from jaxsnn.conformance.reference import Convention, run_reference
from jaxsnn.nir import Graph, export, parse


def _unchanged(graph: Graph) -> Graph:
    return graph


def _exported(graph: Graph) -> Any:
    return export(graph)


@dataclasses.dataclass
class Simulator:
    """An adapter whose modules are graphs, run by the reference in float64.

    Attributes:
        convention: what the framework decides.
        write: function of the graph of a module that returns what the exporter writes.
        read: function of a graph that returns what the importer makes of it.
    """

    convention: Convention = dataclasses.field(default_factory=Convention)
    write: Callable[[Graph], Any] = _exported
    read: Callable[[Graph], Graph] = _unchanged
    name: str = "simulator"
    distribution: str = "numpy"
    dt: float = 1e-3
    resets: tuple[str, ...] = ("zero",)

    def build(self, network):
        if network.skips:
            raise NotApplicableError("no skips")
        return graph_of(network, self.dt)

    def export(self, module, network):
        return self.write(module)

    def import_graph(self, graph):
        return self.read(parse(graph, dialect="nir", time_unit="s"))

    def run(self, module, x):
        return run_reference(module, x, self.dt, self.convention).output


def with_parameters(graph: Graph, kind: str, **functions: Callable[[np.ndarray], Any]) -> Graph:
    """A graph with changed parameters of the nodes of a type."""
    changed = {
        name: node.replace(
            **{key: np.asarray(change(node.value(key))) for key, change in functions.items()}
        )
        for name, node in graph.nodes.items()
        if node.type == kind
    }
    return graph.with_nodes(changed)
