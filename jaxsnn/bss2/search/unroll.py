"""Unrolls linear nodes, convolutions and pooling: the input of each population as sparse weighted
sums of spike trains.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from jaxsnn.errors import MappingError
from jaxsnn.linear_map import LinearMap
from jaxsnn.network.lowering.lower_nodes import LoweringPlan, Part
from jaxsnn.network.structure import Wire
from jaxsnn.wording import Text

#: Maximum number of connections of a node that is unrolled; the chip has 131072 synapses.
MOST_CONNECTIONS = 1 << 25


@dataclass(frozen=True, kw_only=True, eq=False)
class IncomingLinks:
    """Inputs of a node: weighted spikes of sources, by the name of the Input or population, and a
    constant.

    Attributes:
        links: Weights by source.
        constant: Sum of the biases, (channels,); None if there are none.
    """

    links: Mapping[str, LinearMap]
    constant: np.ndarray | None


def arrivals(plan: LoweringPlan, parts: Mapping[str, Part]) -> dict[str, IncomingLinks]:
    """Return the inputs of each population and Output, by its NIR name; linear nodes are composed.

    A weight is the sum over all paths from a source to a target; weights of zero are omitted.

    Raises:
        MappingError: A node is neither linear nor a neuron, a cycle contains no neuron, or there
            are too many connections.
    """
    leaving: dict[str, IncomingLinks] = {}
    for name, part in parts.items():
        if part.wire.kind in ("input", "neuron"):
            leaving[name] = IncomingLinks(
                links={name: LinearMap.identity(part.wire.size)}, constant=None
            )
    arriving = {}
    for name in _linear_first(plan, parts):
        wire, parameters = parts[name].wire, parts[name].parameters
        entering = _sum([leaving[source] for source in wire.sources])
        if wire.kind in ("neuron", "output"):
            arriving[name] = entering
        elif wire.kind != "input":
            inward = plan.shapes[name][0] or ()
            node = plan.graph.nodes[name]
            if node.traits.synapses is not None:  # checked before any connection is created
                _refuse_many(wire, node.traits.synapses(node, inward) or 0)
            leaving[name] = _through(wire, inward, parameters, entering)
    return arriving


def _linear_first(plan: LoweringPlan, parts: Mapping[str, Part]) -> Iterable[str]:
    """Return all nodes: those without a state after their sources, populations and Outputs last."""
    import networkx

    linear = [
        name for name, part in parts.items() if part.wire.kind not in ("input", "output", "neuron")
    ]
    place = {name: number for number, name in enumerate(linear)}
    graph = networkx.DiGraph()
    graph.add_nodes_from(linear)
    graph.add_edges_from(
        (source, name) for name in linear for source in plan.sources[name] if source in place
    )
    order: list[str] = []
    try:
        for generation in networkx.topological_generations(graph):
            # Keep the order of the graph, which determines the numbers of neurons on the chip.
            order += sorted(generation, key=place.__getitem__)
    except networkx.NetworkXUnfeasible:
        first = next(name for name in linear if name not in order)
        raise MappingError(
            Text("node '{node}' is in a cycle without a neuron", node=first),
            fix="put a neuron into the cycle",
            node=first,
        ) from None
    return [*order, *(name for name in parts if name not in place)]


def _sum(parts: list[IncomingLinks]) -> IncomingLinks:
    source_names = dict.fromkeys(itertools.chain.from_iterable(part.links for part in parts))
    links = {
        name: LinearMap.sum(part.links[name] for part in parts if name in part.links)
        for name in source_names
    }
    constants = [part.constant for part in parts if part.constant is not None]
    return IncomingLinks(
        links=links, constant=sum(constants[1:], constants[0]) if constants else None
    )


def _through(
    wire: Wire, inward: tuple[int, ...], parameters: Mapping[str, np.ndarray], signal: IncomingLinks
) -> IncomingLinks:
    """Return a signal after one linear node with input shape `inward`; a bias enters once, never
    once per spike.
    """
    node_map = _map_of(wire, inward, parameters)
    links = {}
    for name, incoming in signal.links.items():
        _refuse_many(wire, incoming.count_then(node_map))
        links[name] = incoming.then(node_map)
    constant = None
    if signal.constant is not None:
        values = signal.constant[node_map.source] * node_map.value
        constant = np.bincount(node_map.target, weights=values, minlength=wire.size)
    node_bias = wire.bias(parameters)
    if node_bias is not None:
        bias = np.repeat(np.asarray(node_bias, float), wire.size // np.size(node_bias))
        constant = bias if constant is None else constant + bias
    return IncomingLinks(links=links, constant=constant)


def _refuse_many(wire: Wire, count: int, alternative: str = "") -> None:
    if count > MOST_CONNECTIONS:
        raise MappingError(
            Text(
                "node '{node}' ({type}) has {count} connections; at most {maximum} are supported",
                node=wire.name,
                type=wire.kind,
                count=count,
                maximum=MOST_CONNECTIONS,
            ),
            fix=f"make the layer smaller{alternative}",
            node=wire.name,
        )


def _map_of(wire: Wire, inward: tuple[int, ...], parameters: Mapping[str, np.ndarray]) -> LinearMap:
    """Return a linear node as a sparse matrix."""
    operator = wire.linear
    if operator is None or operator.apply is None:
        raise MappingError(
            Text(
                "node '{node}' ({type}) has no counterpart on the chip",
                node=wire.name,
                type=wire.kind,
            ),
            fix="use linear nodes and neurons",
            node=wire.name,
        )
    numbers = {name: np.asarray(value, float) for name, value in parameters.items()}
    if operator.entries is not None:
        return LinearMap.sum([operator.entries(numbers, wire.detail, inward)])
    # If the node type defines no `entries`, apply the node to each input alone.
    inputs = math.prod(inward)
    _refuse_many(wire, inputs * wire.size, ", or define `entries` for its node type")
    each_alone = np.eye(inputs).reshape(inputs, *inward)
    matrix = np.asarray(wire.apply(numbers, each_alone)).reshape(inputs, wire.size)
    source, target = np.nonzero(matrix)
    return LinearMap.sum([(source, target, matrix[source, target])])
