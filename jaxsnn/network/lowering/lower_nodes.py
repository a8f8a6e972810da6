"""Lowering of single nodes: static records and NumPy arrays for each node of a NIR graph.

Nothing here loads JAX: `jaxsnn.lower` builds a network from these records, and `jaxsnn.check` uses
them to list the features that an engine does not support.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxsnn.errors import LoweringError, Problem
from jaxsnn.network.lowering.lower_neurons import population_of
from jaxsnn.network.structure import LinearOperator, Population, Wire
from jaxsnn.nir.dialects.gains import require
from jaxsnn.nir.dialects.resolve import resolve_neurons
from jaxsnn.nir.frameworks.source_rule import NeuronRule
from jaxsnn.nir.model.dialect import Dialect
from jaxsnn.nir.model.loops import late_edges, stepped_loops
from jaxsnn.nir.model.node import Node, NodeTraits, Parameter, Surroundings
from jaxsnn.nir.model.node_shapes import padded_window
from jaxsnn.nir.model.nodes import Delay
from jaxsnn.nir.model.passes import Shape, Shapes, bypass_relays, is_relay, shapes
from jaxsnn.wording import Text

if TYPE_CHECKING:
    from jaxsnn.nir.model.graph import Graph

PURPOSE = "simulation"
NO_NEURONS = Problem(
    code="no-neurons",
    message="the graph has no neurons",
    fix="add at least one neuron node",
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Lowered node of a network: its wire, its parameters (time constants in seconds), and a
    neuron's population.
    """

    wire: Wire
    parameters: dict[str, np.ndarray]
    population: Population | None


@dataclass(frozen=True, kw_only=True)
class LoweringPlan:
    """Graph prepared to be lowered node by node.

    Attributes:
        graph: the graph.
        order: names of the nodes to lower, sources before targets; relays of nested graphs are left
            out.
        shapes: node -> input and output shape.
        sources: node -> names of the nodes that feed it, in the order of `order`.
        late: node -> its sources whose output of the previous time step arrives, see `Wire.late`.
    """

    graph: Graph
    order: tuple[str, ...]
    shapes: Shapes
    sources: Mapping[str, tuple[str, ...]]
    late: Mapping[str, tuple[str, ...]]

    @cached_property
    def rules(self) -> dict[str, NeuronRule]:
        """Source framework's rule for each neuron; needs a dialect that is decided."""
        return resolve_neurons(self.graph)

    def part(self, name: str) -> Part:
        """Lower one node.

        Raises:
            LoweringError: the node has no size, its padding differs between frameworks, or no engine
                supports it.
            DialectError: the dialect's framework never writes such a node.
        """
        node, (inward, shape) = self.graph.nodes[name], self.shapes[name]
        if inward is None or shape is None:
            if inward is not None and node.traits.window is not None:
                # raises a more specific error if the padding is the reason
                padded_window(node, inward)
            raise LoweringError(
                Text(
                    "node '{node}' ({type}): the file does not specify its number of neurons",
                    node=name,
                    type=node.type,
                ),
                fix="specify the shape of its parameters, or of the Input before it",
                node=name,
            )
        lowered = lower_node(node, self.graph.dialect, inward, shape)
        detail = self._copied(name, lowered) if node.type == "Linear" else lowered.detail
        shapes = tuple((key, np.shape(value)) for key, value in lowered.parameters.items())
        wire = replace(self.bare_wire(name), shape=shape, detail=detail, shapes=shapes)
        population = None
        if node.traits.state:
            population = population_of(self.rules[name], wire.size)
        return Part(wire=wire, parameters=lowered.parameters, population=population)

    def bare_wire(self, name: str) -> Wire:
        """Return one node without its numbers and its size; this does not require a dialect.

        Raises:
            UnsupportedNodeError: an unknown node type.
        """
        node = self.graph.nodes[name]
        traits = node.traits
        return Wire(
            name=name,
            kind=node.type.lower() if traits.port else "neuron" if traits.state else node.type,
            sources=self.sources[name],
            shape=(),
            operator=_operator_of(traits),
            function=None if traits.linear or traits.state else traits.apply,
            late=self.late.get(name, ()),
        )

    def _copied(self, name: str, lowered: Lowered) -> tuple[int, ...] | None:
        """Return the channel of each output of a Linear that copies each channel to several delays;
        None for any other.
        """
        weight = lowered.parameters["weight"]
        after = [
            self.graph.nodes[target] for target, sources in self.sources.items() if name in sources
        ]
        if (
            not after
            or not all(isinstance(node, Delay) for node in after)
            or len(weight) <= weight.shape[1]
        ):
            return None
        one_each = ((weight == 0) | (weight == 1)).all() and (weight.sum(axis=1) == 1).all()
        return tuple(weight.argmax(axis=1).tolist()) if one_each else None


def plan(graph: Graph) -> LoweringPlan:
    """Prepare a graph for lowering; its nodes can only be lowered if the dialect is decided."""
    place = {name: number for number, name in enumerate(_running_order(graph))}
    incoming: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, target in bypass_relays(graph):
        incoming[target].append(source)
    return LoweringPlan(
        graph=graph,
        order=tuple(name for name in place if not is_relay(graph.nodes[name])),
        shapes=shapes(graph),
        sources={
            name: tuple(sorted(node_sources, key=place.__getitem__))
            for name, node_sources in incoming.items()
        },
        late=_late_sources(graph),
    )


def _running_order(graph: Graph) -> list[str]:
    """Return all nodes, sources before targets; those of a cycle stand together."""
    shared = [(part, iter(part)) for part in stepped_loops(graph)]
    turns = {name: cycle_nodes for part, cycle_nodes in shared for name in part}
    # The nodes of a cycle share one iterator, and take its names one after the other.
    return [next(turns[name]) if name in turns else name for name in graph.order()]


def _late_sources(graph: Graph) -> dict[str, tuple[str, ...]]:
    sources_by_target: dict[str, tuple[str, ...]] = {}
    for source, target in late_edges(graph):
        sources_by_target[target] = (*sources_by_target.get(target, ()), source)
    return sources_by_target


class Lowered(NamedTuple):
    """Parameters of one lowered node, times in seconds, and the detail of its `Wire`."""

    parameters: dict[str, np.ndarray]
    detail: Any = None


@cache
def _operator_of(traits: NodeTraits) -> LinearOperator | None:
    """Return the linear operator of a node type; None if it is not linear."""
    if not traits.linear:
        return None
    return LinearOperator(apply=traits.apply, entries=traits.entries, bias=traits.bias)


def lower_node(node: Node, dialect: Dialect, inward: Shape, shape: Shape) -> Lowered:
    """Lower one node, with the specified shapes of its input and output.

    Raises:
        LoweringError: a parameter that does not fit, or a node that no engine runs.
        DialectError: the length of a unit of time is needed and unknown.
        UnsupportedNodeError: an unknown node type.
    """
    traits = node.traits
    timed = any(parameter.time for parameter in traits.parameters)
    if timed and not traits.state and dialect.time_unit != "step":
        require(dialect, ["seconds"], PURPOSE, node.name)
    parameters = {
        parameter.name: _lowered(node, parameter, dialect, shape)
        for parameter in traits.parameters
        if parameter.per != "setting" and node.value(parameter.name) is not None
    }
    around = Surroundings(inward=inward, outward=shape, dialect=dialect, parameters=parameters)
    return Lowered(parameters, None if traits.detail is None else traits.detail(node, around))


def per_channel(node: Node, name: str, size: int) -> np.ndarray:
    """Return a parameter as an array (size,); a scalar is repeated.

    Raises:
        LoweringError: the parameter has neither one entry nor `size` entries.
    """
    value = node.numbers(name)
    if value.size not in (1, size):
        raise LoweringError(
            Text(
                "node '{node}' ({type}): {parameter} has {actual} entries for {expected} channels",
                node=node.name,
                type=node.type,
                parameter=name,
                actual=value.size,
                expected=size,
            ),
            fix=f"use 1 entry, or {size} entries",
            node=node.name,
        )
    return np.broadcast_to(value.reshape(-1), size)


def _lowered(node: Node, parameter: Parameter, dialect: Dialect, shape: Shape) -> np.ndarray:
    """Return one parameter in the form that the engines use, times in seconds."""
    name = parameter.name
    if parameter.per == "array":
        value = node.numbers(name)
    else:
        count = math.prod(shape) if parameter.per == "element" else (shape or (1,))[0]
        value = per_channel(node, name, count)
    if not node.traits.state:
        if not parameter.time:
            return value
        value = value.astype(float)
    # An unknown time unit is among the population's obstacles.
    return value * (dialect.seconds or 1.0) ** parameter.time
