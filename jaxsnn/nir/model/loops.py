"""Loops without a neuron, which an importer delays by one time step, and loops through several
neurons, in which the dialects specify the delayed edge.

An importer that runs nodes one by one has to begin somewhere in a loop: a node that runs before its
source receives the output of the source in the previous step, and nothing in the first step. So
weights that feed themselves have a memory: `jaxsnn.nir.convert.pipeline` writes leaky integrators in
this way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from jaxsnn.nir.model.changes import Edge
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.node import Node
from jaxsnn.nir.model.nodes import Delay
from jaxsnn.nir.model.passes import is_relay

#: Order in which an importer runs nodes; see `Conventions.runs_loops`.
Order = Literal["depth first", "in turn"]


def stepped_loops(graph: Graph) -> tuple[tuple[str, ...], ...]:
    """Return the cycles in which delays depend on the execution order of the nodes, each as nodes in
    that order.

    These are cycles that contain a loop without a neuron, and cycles through several neurons in which
    a node between the neurons has several sources or targets. Empty if the order is unknown: the dialect is undecided,
    its framework does not run such loops, or the graph is nested.
    """
    conventions = graph.dialect.conventions
    runs = None if conventions is None else conventions.runs_loops
    if runs is None or any(is_relay(node) for node in graph.nodes.values()):
        return ()
    parts = [
        part
        for part in graph.recurrent_components()
        if _is_instant(graph, part) or (_is_of_several(graph, part) and _joins(graph, part))
    ]
    if not parts:
        return ()
    place = _places(graph, runs)
    return tuple(
        tuple(sorted(part, key=place.__getitem__)) for part in parts if place.keys() >= {*part}
    )


def late_edges(graph: Graph) -> tuple[Edge, ...]:
    """Return the edges of `stepped_loops` that transmit their source's output of the previous
    step.
    """
    return tuple(edge for part in stepped_loops(graph) for edge in backward_edges(graph, part))


def feedback_edges(graph: Graph) -> tuple[Edge, ...]:
    """Return the edges by which loops through several neurons act one step later in the graph's
    dialect.

    As in the time-stepped engine, the neurons of a loop step in the order that follows the edges
    from the first node that is fed from outside. A spike reaches later neurons in the same step,
    all others one step later. Loops with a Delay are omitted, and loops in which a node between
    neurons has several sources or targets. There are no such edges in a dialect whose recurrent
    spikes are not one step late, or whose layers all delay spikes by one step.
    """
    conventions = graph.dialect.conventions
    if conventions is None or conventions.spikes_from == "before":
        return ()
    if conventions.recurrent_delay != 1:
        return ()
    parts = [part for part in loops_of_several(graph) if not _joins(graph, part)]
    return tuple(edge for part in parts for edge in _feedback(graph, part))


def loops_of_several(graph: Graph) -> tuple[tuple[str, ...], ...]:
    """Return the cycles through several neurons, without a Delay and without a loop between
    them.
    """
    if any(is_relay(node) for node in graph.nodes.values()):
        return ()
    return tuple(part for part in graph.recurrent_components() if _is_of_several(graph, part))


def importer_late_edges(graph: Graph, runs: Order) -> tuple[Edge, ...] | None:
    """Return the edges of `loops_of_several` on which an importer with this run order transmits the
    source's output of the previous step; None if it does not run all nodes of these loops.
    """
    place = _places(graph, runs)
    parts = loops_of_several(graph)
    if not all(place.keys() >= {*part} for part in parts):
        return None
    return tuple(
        edge
        for part in parts
        for edge in backward_edges(graph, sorted(part, key=place.__getitem__))
    )


def backward_edges(graph: Graph, order: Sequence[str]) -> list[Edge]:
    """Return the edges from later to earlier nodes of a sequence."""
    place = {name: number for number, name in enumerate(order)}
    return [
        (source, target)
        for source, target in graph.edges
        if source in place and target in place and place[source] >= place[target]
    ]


def _is_of_several(graph: Graph, part: Sequence[str]) -> bool:
    """Return whether the nodes of a cycle are one of `loops_of_several`."""
    nodes = [graph.nodes[name] for name in part]
    return (
        sum(bool(node.traits.state) for node in nodes) > 1
        and not any(isinstance(node, Delay) for node in nodes)
        and not _is_instant(graph, part)
    )


def _joins(graph: Graph, part: Sequence[str]) -> bool:
    """Return whether a node between the neurons of a cycle has several sources or targets in it."""
    inner = graph.networkx.subgraph(part)
    between = [name for name in part if not graph.nodes[name].traits.state]
    return any(inner.in_degree(name) > 1 or inner.out_degree(name) > 1 for name in between)


def _feedback(graph: Graph, part: Sequence[str]) -> list[Edge]:
    """Return the edges of a cycle that act one step later. The cycle is one of `loops_of_several` for
    which `_joins` is false.
    """
    import networkx

    rank = {name: number for number, name in enumerate(part)}
    inner = networkx.DiGraph(
        (name, target)
        for name in part
        for target in sorted(rank.keys() & {*graph.successors(name)}, key=rank.__getitem__)
    )
    entered = [name for name in part if not rank.keys() >= {*graph.predecessors(name)}]
    # The search starts from an artificial node, which leads to nodes with input from outside first.
    walk = networkx.DiGraph([("", name) for name in (*entered, *part)])
    walk.add_edges_from(inner.edges)
    order = [*networkx.dfs_postorder_nodes(walk, "")][::-1]
    place = {name: number for number, name in enumerate(order)}
    feedback = []
    for source, target in inner.edges:
        if not graph.nodes[target].traits.state:
            continue
        first = source
        while not graph.nodes[first].traits.state:
            (first,) = inner.predecessors(first)
        if place[first] >= place[target]:
            feedback.append((source, target))
    return feedback


def run_order(graph: Graph, runs: Order) -> list[str]:
    """Return the nodes in the order in which an importer runs them, without nodes that it never
    reaches.
    """
    return depth_first(graph) if runs == "depth first" else _in_turn(graph)


def _places(graph: Graph, runs: Order) -> dict[str, int]:
    """Return the position of each node in an importer's run order; nodes that never run are
    omitted.
    """
    return {name: number for number, name in enumerate(run_order(graph, runs))}


def _is_instant(graph: Graph, part: Sequence[str]) -> bool:
    """Return whether nodes of a cycle contain a loop without a neuron; False if one is a Delay."""
    import networkx

    nodes: list[Node] = [graph.nodes[name] for name in part]
    if any(isinstance(node, Delay) for node in nodes):
        return False
    plain = {node.name for node in nodes if not node.traits.state}
    inner = [edge for edge in graph.edges if plain.issuperset(edge)]
    return not networkx.is_directed_acyclic_graph(networkx.DiGraph(inner))


def depth_first(graph: Graph) -> list[str]:
    """Return the order of nirtorch.load: depth first from the Input, edges in the order of the
    file.
    """
    targets: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, target in graph.edges:
        targets[source].append(target)
    visited: dict[str, None] = {}
    waiting = list(graph.inputs[:1])
    while waiting:
        name = waiting.pop()
        if name not in visited:
            visited[name] = None
            waiting += reversed(targets[name])
    return list(visited)


def _in_turn(graph: Graph) -> list[str]:
    """Return the order of nirtorch.nir_to_torch: repeated rounds through the names, sorted as in a
    file, from the Input on; each node runs as soon as the nodes that it waits for have run.

    A node waits for its sources outside of its loop; for its source if it has only one. Nodes that
    wait forever are omitted.
    """
    sources: dict[str, set[str]] = {name: set() for name in graph.nodes}
    for source, target in graph.edges:
        sources[target].add(source)
    for part in graph.recurrent_components():
        for name in part:
            if len(sources[name]) > 1:
                sources[name] -= {*part}
    node_names = sorted(graph.nodes)
    first = next((node_names.index(name) for name in node_names if name in graph.inputs), 0)
    visited: dict[str, None] = {}
    rest, before = [*node_names[first:], *node_names[:first]], -1
    while len(visited) > before:
        before, waiting = len(visited), []
        for name in rest:
            if sources[name] <= visited.keys():
                visited[name] = None
            else:
                waiting.append(name)
        rest = waiting
    return list(visited)
