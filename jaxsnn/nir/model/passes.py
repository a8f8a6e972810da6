"""Analysis passes: facts that follow from a graph.

They never change the graph and never guess: unknown facts are None.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping

import numpy as np

from jaxsnn.errors import GraphError
from jaxsnn.linear_map import Window
from jaxsnn.nir.model.changes import Edge, edge_key
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.node import Node, ints
from jaxsnn.nir.model.node import Shape as Shape
from jaxsnn.nir.model.nodes import Flatten, Input, Output
from jaxsnn.nir.model.ordering import neighbours
from jaxsnn.wording import Text

Shapes = Mapping[str, tuple[Shape | None, Shape | None]]


def window(node: Node) -> Window:
    """Return the window of a convolution or pool; scalars and arrays with one element apply to each
    axis.

    Raises:
        GraphError: The node has no window.
    """
    find = node.traits.window
    if find is None:
        raise GraphError(
            Text("node '{node}' ({type}) has no window", node=node.name, type=node.type),
            fix="call this function for a convolution or a pool",
            node=node.name,
        )
    return find(node)


def own_shape(node: Node) -> Shape | None:
    """Return the shape that a node's parameters fix for its input; None if they do not."""
    return node.traits.input_shape(node)


def _rank(node: Node) -> int | None:
    """Return the number of axes that a node takes; None for any number."""
    fixed = own_shape(node)
    return node.traits.axes if fixed is None else len(fixed)


def transfer(node: Node, shape: Shape) -> Shape | None:
    """Return the shape of a node's output for an input shape; None if the node does not accept it.

    Raises:
        UnsupportedNodeError: The node's type does not specify it.
    """
    return node.traits.output_shape(node, shape)


def shapes(graph: Graph) -> dict[str, tuple[Shape | None, Shape | None]]:
    """Return the input and output shape of each node, without batch and time axes.

    Parameters come first (a weight matrix fixes both sides); nodes whose parameters are scalars
    take the size of their neighbours. A shape is None if it is unknown, or if the
    sources of an Output disagree.

    >>> from jaxsnn.nir import build
    >>> shapes(build.sequential(build.input(2), build.linear(3), build.li(tau=0.01), seed=0))["1"]
    ((2,), (3,))
    """
    inward: dict[str, Shape | None] = {name: own_shape(node) for name, node in graph.nodes.items()}
    outward: dict[str, Shape | None] = dict.fromkeys(graph.nodes)
    sources, targets = _neighbours(graph)
    for name in graph.inputs:
        inward[name] = _declared_input(graph, name, targets[name], inward)
    _infer(graph, sources, targets, inward, outward)
    # Nodes without any input: populations of one neuron, and relays.
    alone = [name for name in graph.nodes if inward[name] is None and not sources[name]]
    inward |= {name: _alone(graph.nodes[name]) for name in alone}
    if alone:
        _infer(graph, sources, targets, inward, outward)
    return {name: (inward[name], outward[name]) for name in graph.nodes}


def _infer(
    graph: Graph,
    sources: Mapping[str, list[str]],
    targets: Mapping[str, list[str]],
    inward: dict[str, Shape | None],
    outward: dict[str, Shape | None],
) -> None:
    """Infer shapes node by node, and repeat until nothing changes.

    A node is looked at again only where a neighbour has changed, so that the work grows with the
    number of edges, also where a shape is known at the end alone.
    """
    order = graph.order()
    place = {name: number for number, name in enumerate(order)}
    now = list(range(len(order)))  # a heap of the places to visit in this pass
    while now:
        waiting, later = set(now), set()
        while now:
            here = heapq.heappop(now)
            name = order[here]
            waiting.discard(here)
            before = inward[name], outward[name]
            _improve(graph, name, sources[name], targets[name], inward, outward)
            neighbours = (sources[name] if inward[name] != before[0] else []) + (
                targets[name] if outward[name] != before[1] else []
            )
            for number in (place[neighbour] for neighbour in neighbours):
                if number <= here:
                    later.add(number)
                elif number not in waiting:
                    waiting.add(number)
                    heapq.heappush(now, number)
        now = sorted(later)


def _alone(node: Node) -> Shape | None:
    """Return the shape of parameters of one number each, such as (1,), for nodes of otherwise
    unknown shape.
    """
    if not node.traits.elementwise:
        return None
    lone = [np.shape(value) for value in node.parameters.values() if not isinstance(value, str)]
    return next((shape for shape in lone if shape), None)


def _neighbours(graph: Graph) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    return neighbours(graph.nodes, sorted(graph.edges, key=edge_key))


def _declared_input(
    graph: Graph, name: str, targets: list[str], inward: Mapping[str, Shape | None]
) -> Shape | None:
    """Return the shape of an Input, without leading axes that none of its targets takes."""
    shape = graph.nodes[name].value("shape")
    if shape is None:
        return None
    declared = ints(shape)
    for target in targets:
        rank = _rank(graph.nodes[target])
        target_shape = inward[target]
        if (
            rank is not None
            and len(declared) > rank
            and target_shape in (None, declared[len(declared) - rank :])
        ):
            return declared[len(declared) - rank :]
    return declared


def _improve(
    graph: Graph,
    name: str,
    sources: list[str],
    targets: list[str],
    inward: dict[str, Shape | None],
    outward: dict[str, Shape | None],
) -> None:
    """Infer missing shapes at a node: its input from its sources, its output from its input, and its
    input from its targets.
    """
    node = graph.nodes[name]
    arriving = [shape for source in sources if (shape := outward[source]) is not None]
    if inward[name] is None and arriving:
        agree = all(shape == arriving[0] for shape in arriving)
        if isinstance(node, Output) and not agree:
            return
        inward[name] = arriving[0]
    if inward[name] is None and node.traits.keeps_shape and not isinstance(node, Output):
        target_shapes = [shape for target in targets if (shape := inward[target]) is not None]
        inward[name] = target_shapes[0] if target_shapes else None
    if outward[name] is None and (shape := inward[name]) is not None:
        outward[name] = transfer(node, shape)
        flat_shape = (math.prod(shape),)
        if (
            isinstance(node, Flatten)
            and targets
            and all(own_shape(graph.nodes[target]) == flat_shape for target in targets)
        ):
            # The file counts a batch axis in start_dim; the order of the elements is the same.
            outward[name] = flat_shape


def sizes(graph: Graph) -> dict[str, int | None]:
    """Return the number of neurons of each population."""
    node_shapes = shapes(graph)
    return {
        name: None if (shape := node_shapes[name][1]) is None else math.prod(shape)
        for name in graph.neurons
    }


def synapses(graph: Graph) -> dict[str, int | None]:
    """Return the number of connections of each node that has some: pairs of an input and an output
    with a nonzero weight; None if the size of a convolution's input is unknown.
    """
    node_shapes = shapes(graph)
    return {
        name: count(node, node_shapes[name][0])
        for name, node in graph.nodes.items()
        if (count := node.traits.synapses) is not None
    }


def bypass_relays(graph: Graph) -> tuple[Edge, ...]:
    """Return the edges of the graph without the Input and Output nodes of nested graphs, which are
    only relays.

    The edges are in natural order. If several paths through relays connect two nodes, their edge is
    listed once for each path.
    """
    _, targets = _neighbours(graph)

    def ends(name: str, seen: tuple[str, ...]) -> list[str]:
        reached: list[str] = []
        for target in targets[name]:
            if not is_relay(graph.nodes[target]):
                reached.append(target)
            elif target not in seen:
                reached.extend(ends(target, (*seen, target)))
        return reached

    edges = [
        (name, end)
        for name in graph.nodes
        if not is_relay(graph.nodes[name])
        for end in ends(name, ())
    ]
    return tuple(sorted(edges, key=edge_key))


def is_relay(node: Node) -> bool:
    """Return whether a node is an Input or Output of a nested graph."""
    return isinstance(node, Input | Output) and "/" in node.name
