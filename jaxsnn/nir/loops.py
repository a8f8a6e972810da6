"""Loops without a neuron, in which an importer lets a step pass.

An importer that runs nodes one by one has to begin somewhere in a loop: what runs before its source
takes what the source gave one step before, and nothing in the first step. So weights that feed
themselves remember: that is how `jaxsnn.nir.convert` writes leaky integrators.
"""

from __future__ import annotations

from collections.abc import Sequence

import networkx

from jaxsnn.nir.graph import Edge, Graph
from jaxsnn.nir.nodes import Delay, Node
from jaxsnn.nir.passes import is_relay


def stepped_loops(graph: Graph) -> tuple[tuple[str, ...], ...]:
    """The cycles with a loop in which only the order of the nodes takes time, each in that order.

    Empty where nothing is known of an order: the dialect is undecided, or its framework runs no
    loops of this kind, or the graph is nested.
    """
    conventions = graph.dialect.conventions
    runs = None if conventions is None else conventions.runs_loops
    if runs is None or any(is_relay(node) for node in graph.nodes.values()):
        return ()
    parts = [part for part in graph.recurrent_components() if _is_instant(graph, part)]
    if not parts:
        return ()
    order = _depth_first(graph) if runs == "depth first" else _in_turn(graph)
    place = {name: number for number, name in enumerate(order)}
    return tuple(
        tuple(sorted(part, key=place.__getitem__)) for part in parts if place.keys() >= {*part}
    )


def late_edges(graph: Graph) -> tuple[Edge, ...]:
    """The edges of `stepped_loops` that pass on what left their source one step before."""
    found = []
    for part in stepped_loops(graph):
        place = {name: number for number, name in enumerate(part)}
        found += [
            (source, target)
            for source, target in graph.edges
            if source in place and target in place and place[source] >= place[target]
        ]
    return tuple(found)


def _is_instant(graph: Graph, part: Sequence[str]) -> bool:
    """Whether nodes of a cycle make a loop without a neuron; False where one is a Delay."""
    nodes: list[Node] = [graph.nodes[name] for name in part]
    if any(isinstance(node, Delay) for node in nodes):
        return False
    plain = {node.name for node in nodes if not node.traits.state}
    inner = [edge for edge in graph.edges if plain.issuperset(edge)]
    return not networkx.is_directed_acyclic_graph(networkx.DiGraph(inner))


def _depth_first(graph: Graph) -> list[str]:
    """The order of nirtorch.load: depth first from the Input, edges in the order of the file."""
    targets: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, target in graph.edges:
        targets[source].append(target)
    found: dict[str, None] = {}
    waiting = list(graph.inputs[:1])
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = None
            waiting += reversed(targets[name])
    return list(found)


def _in_turn(graph: Graph) -> list[str]:
    """The order of nirtorch.nir_to_torch: round after round through the names, sorted as in a file,
    from the Input on, each node as soon as what it waits for has run.

    A node waits for what is in no loop with it; where one edge alone feeds it, for that. Those that
    wait for ever are left out.
    """
    sources: dict[str, set[str]] = {name: set() for name in graph.nodes}
    for source, target in graph.edges:
        sources[target].add(source)
    for part in graph.recurrent_components():
        for name in part:
            if len(sources[name]) > 1:
                sources[name] -= {*part}
    names = sorted(graph.nodes)
    first = next((names.index(name) for name in names if name in graph.inputs), 0)
    found: dict[str, None] = {}
    rest, before = [*names[first:], *names[:first]], -1
    while len(found) > before:
        before, waiting = len(found), []
        for name in rest:
            if sources[name] <= found.keys():
                found[name] = None
            else:
                waiting.append(name)
        rest = waiting
    return list(found)
