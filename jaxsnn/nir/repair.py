"""What the reader mends in its interpretation of a file, and what it warns of.

The content of the file stays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from types import MappingProxyType

import numpy as np

from jaxsnn.nir.graph import Edge, Finding, Graph, natural_key
from jaxsnn.nir.nodes import NEURONS, SPIKING, Flatten, Input, Node, Output, freeze
from jaxsnn.nir.passes import ELEMENTWISE, Shape, own_shape, shapes, transfer


def add_borders(graph: Graph) -> Graph:
    """Add Input nodes to a graph that has none at all, before the nodes that nothing feeds;
    likewise Output nodes.

    The added records have no `origin`, and are not written back.
    """
    added: list[Node] = []
    edges: list[Edge] = list(graph.edges)
    repairs: list[Finding] = list(graph.repairs)
    found = shapes(graph)
    for kind, side in ((Input, 0), (Output, 1)):
        if (graph.inputs, graph.outputs)[side]:
            continue
        for name in _ends(graph, side):
            shape = found[name][side]
            new = _free_name(f"{kind.__name__.lower()}_{name.replace('/', '.')}", graph)
            added.append(kind(name=new, shape=None if shape is None else freeze(shape)))
            edges.append((new, name) if kind is Input else (name, new))
            verb = "feeds" if kind is Input else "follows"
            why = f"the graph has no {kind.__name__} node, and nothing {verb} '{name}'"
            repairs.append(Finding(node=new, what=f"{kind.__name__} '{new}' is assumed", why=why))
    if not added:
        return graph
    nodes = dict(graph.nodes) | {node.name: node for node in added}
    ordered = {name: nodes[name] for name in sorted(nodes, key=natural_key)}
    return dataclasses.replace(
        graph,
        nodes=MappingProxyType(ordered),
        edges=tuple(edges),
        written_edges=tuple(edges),
        repairs=tuple(repairs),
    )


def _ends(graph: Graph, side: int) -> list[str]:
    """Nodes that no edge enters (side 0) or leaves (side 1), edges to themselves aside."""
    used = {edge[1 - side] for edge in graph.edges if edge[0] != edge[1]}
    return [name for name in graph.nodes if name not in used]


def _free_name(name: str, graph: Graph) -> str:
    while name in graph.nodes:
        name += "_"
    return name


def findings(graph: Graph) -> Graph:
    """List what is read otherwise than it is written, and what looks like a mistake of an exporter."""
    found = shapes(graph)
    repairs = [finding for name in graph.nodes for finding in _repairs_of(graph, name, found[name])]
    warnings = [finding for name in graph.nodes for finding in _warnings_of(graph, name, found)]
    return dataclasses.replace(
        graph, repairs=(*graph.repairs, *repairs), warnings=(*graph.warnings, *warnings)
    )


def _repairs_of(
    graph: Graph, name: str, shape: tuple[Shape | None, Shape | None]
) -> Iterator[Finding]:
    node = graph.nodes[name]
    inward, outward = shape
    if inward is None:
        return
    if isinstance(node, Flatten) and outward != transfer(node, inward):
        what = (
            f"start_dim {node.value('start_dim')} is read so that all axes of {inward} are joined"
        )
        yield Finding(node=name, what=what, why=f"what follows takes {outward}")
    if isinstance(node, Input | Output) and node.value("shape") is not None:
        declared = tuple(int(size) for size in np.ravel(node.value("shape")))
        if declared != inward:
            what = f"shape {declared} is read as {inward}"
            yield Finding(
                node=name, what=what, why="its neighbours take no leading axes of batch or time"
            )
    if (
        isinstance(node, ELEMENTWISE)
        and own_shape(node) is None
        and inward not in _own_shapes(node)
    ):
        what = f"{_parameter_names(node)} hold for all {int(np.prod(inward))} elements"
        yield Finding(
            node=name,
            what=what,
            why=f"they are single numbers, and its neighbours have the shape {inward}",
        )


def _own_shapes(node: Node) -> list[Shape]:
    return [np.shape(value) for value in node.parameters.values()]


def _parameter_names(node: Node) -> str:
    return ", ".join(node.parameters)


def _warnings_of(
    graph: Graph, name: str, found: dict[str, tuple[Shape | None, Shape | None]]
) -> Iterator[Finding]:
    node = graph.nodes[name]
    sources, targets = (
        tuple(end for end in ends(name) if end != name)
        for ends in (graph.predecessors, graph.successors)
    )
    if isinstance(node, Output) and len({found[source][1] for source in sources}) > 1:
        given = ", ".join(f"'{source}' {found[source][1]}" for source in sources)
        what = f"receives different shapes, which cannot be added: {given}"
        yield Finding(
            node=name, what=what, why="exporters merge the outputs of two heads, or lose a sum"
        )
    if not sources and not isinstance(node, Input):
        yield Finding(node=name, what="nothing feeds it", why="no edge ends at it")
    if not targets and not isinstance(node, Output):
        yield Finding(node=name, what="what it computes goes nowhere", why="no edge starts at it")
    if (
        isinstance(node, Input)
        and len(targets) == 1
        and name == f"input_{targets[0]}"
        and len(graph.inputs) > 1
    ):
        what = f"looks like a stand-in for what fed '{targets[0]}' in the source"
        yield Finding(node=name, what=what, why="nir adds an Input where an exporter lost an edge")
    if isinstance(node, SPIKING) and np.any(
        np.asarray(node.value("v_reset")) >= np.asarray(node.value("v_threshold"))
    ):
        what = "v_reset is not below v_threshold"
        yield Finding(
            node=name, what=what, why="a neuron that is reset to its threshold fires without end"
        )
    if isinstance(node, NEURONS) and found[name][1] is None:
        yield Finding(
            node=name,
            what="its size is unknown",
            why="its parameters are scalars, and so are its neighbours",
        )
