"""Matching of the nodes of two graphs: by their names, else by their connections."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError, listing
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.node import Node
from jaxsnn.nir.model.passes import bypass_relays, is_relay
from jaxsnn.wording import Text


def matched(module: Graph, file: Graph, label: Callable[[str], str] = str) -> dict[str, str]:
    """Map each node of a module's graph to the corresponding node of a file's graph.

    Args:
        module, file: The two graphs.
        label: Name of a node of the module in messages, such as its layer.

    Raises:
        ConversionError: They differ in structure or in the shape of their weights, or
            several mappings are possible.
    """
    first, second = _wiring(module), _wiring(file)
    if _alike(first, second):
        return {name: name for name in first.nodes}
    ways = _ways(first, second, lambda a, b: a == b)
    if len(ways) == 1:
        return ways[0]
    if ways:
        name = next(name for name in ways[0] if ways[0][name] != ways[1][name])
        raise ConversionError(
            Text(
                "'{name}' of the module matches both '{first}' and '{second}' of the file",
                name=label(name),
                first=ways[0][name],
                second=ways[1][name],
            ),
            fix="give the nodes of the file the names of the module's layers",
            node=ways[0][name],
        )
    _refuse_shapes(first, second, label)
    kinds = [
        listing(sorted(attributes["kind"] for _, attributes in wiring.nodes(data=True)))
        for wiring in (first, second)
    ]
    raise ConversionError(
        Text(
            "the structures of module and file differ: the module has {module_types}; the "
            "file has {file_types}",
            module_types=kinds[0],
            file_types=kinds[1],
        ),
        fix="load the file into a module with the same layers and connections",
    )


def _wiring(graph: Graph) -> Any:
    """Return a directed graph of the nodes, with their kinds and weight shapes, without relays."""
    import networkx

    wiring = networkx.DiGraph()
    for name, node in graph.nodes.items():
        if not is_relay(node):
            wiring.add_node(name, kind=_kind(node), shape=_shape(node))
    wiring.add_edges_from(bypass_relays(graph))
    return wiring


def _kind(node: Node) -> str:
    """Return the node kind that must agree for two nodes to match. Linear and Affine are the same
    kind, and so are all neurons.
    """
    if node.traits.state:
        return "neuron"
    return "Linear" if node.type == "Affine" else node.type


def _shape(node: Node) -> tuple[int, ...]:
    return np.shape(node.value("weight")) if "weight" in node.names else ()


def _alike(first: Any, second: Any) -> bool:
    """Return whether two wirings have the same names, kinds, shapes and edges."""
    return dict(first.nodes(data=True)) == dict(second.nodes(data=True)) and set(
        first.edges
    ) == set(second.edges)


def _ways(first: Any, second: Any, same: Any) -> list[dict[str, str]]:
    """Return at most two isomorphisms between two wirings."""
    import networkx

    matcher = networkx.algorithms.isomorphism.DiGraphMatcher(first, second, node_match=same)
    return list(islice(matcher.isomorphisms_iter(), 2))


def _refuse_shapes(first: Any, second: Any, label: Callable[[str], str]) -> None:
    """Refuse graphs that are the same but for the shape of a weight."""
    ways = _ways(first, second, lambda a, b: a["kind"] == b["kind"])
    if not ways:
        return
    name, node = next(
        (name, node)
        for name, node in ways[0].items()
        if first.nodes[name]["shape"] != second.nodes[node]["shape"]
    )
    raise ConversionError(
        Text(
            "the weights of '{layer}' have the shape {actual} in the module, and those "
            "of node '{node}' have the shape {expected} in the file",
            layer=label(name),
            actual=first.nodes[name]["shape"],
            node=node,
            expected=second.nodes[node]["shape"],
        ),
        fix="load the file into a module with the shapes of the file",
        node=node,
    )
