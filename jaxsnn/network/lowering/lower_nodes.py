"""A NIR graph node by node: what each node becomes in a network, as static records and NumPy
arrays.

Nothing here loads JAX: `jaxsnn.lower` makes a network of it, `jaxsnn.check` asks what an engine
would refuse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxsnn.errors import LoweringError, Problem, listing
from jaxsnn.network.lowering.lower_neurons import per_channel, population_of
from jaxsnn.network.structure import Population, Wire
from jaxsnn.nir.dialects import Dialect
from jaxsnn.nir.gains import require
from jaxsnn.nir.graph import (
    IF,
    LI,
    LIF,
    Affine,
    AvgPool2d,
    Conv1d,
    Conv2d,
    CubaLI,
    CubaLIF,
    Delay,
    Flatten,
    I,
    Input,
    Linear,
    Node,
    Output,
    Scale,
    SumPool2d,
    Threshold,
)
from jaxsnn.nir.passes import Shapes, Window, bypass_relays, is_relay, shapes, window

if TYPE_CHECKING:
    from jaxsnn.nir.graph import Graph

PURPOSE = "simulation"
NO_NEURONS = Problem(
    code="no-neurons",
    message="the graph has no neurons",
    fix="add some, nothing else is simulated",
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One node of a network: its wire, its parameters (time constants in seconds), and a neuron's
    population.
    """

    wire: Wire
    parameters: dict[str, np.ndarray]
    population: Population | None


@dataclass(frozen=True, kw_only=True)
class LoweringPlan:
    """A graph made ready to be lowered node by node.

    Attributes:
        graph: the graph.
        order: names of the nodes to lower, sources before targets; relays of nested graphs are left
            out.
        shapes: node -> input and output shape.
        looped: names of nodes that feed themselves, directly or through others.
        sources: node -> names of the nodes that feed it, in the order of `order`.
    """

    graph: Graph
    order: tuple[str, ...]
    shapes: Shapes
    looped: tuple[str, ...]
    sources: Mapping[str, tuple[str, ...]]

    def part(self, name: str) -> Part:
        """Lower one node.

        Raises:
            LoweringError: the node has no size, or is one that no engine runs.
            DialectError: the dialect's framework never writes such a node.
        """
        node, (inward, shape) = self.graph.nodes[name], self.shapes[name]
        if inward is None or shape is None:
            raise LoweringError(
                f"node '{name}' ({node.type}): the file does not tell its size",
                fix="give its parameters a shape, or the Input before it",
                node=name,
            )
        lowered = lower_node(node, self.graph.dialect, inward, shape)
        detail = self._copied(name, lowered) if lowered.kind == "Linear" else lowered.detail
        wire = Wire(
            name=name, kind=lowered.kind, sources=self.sources[name], shape=shape, detail=detail
        )
        population = None
        if lowered.kind == "neuron":
            population = population_of(
                node, self.graph.dialect, wire.size, looped=name in self.looped
            )
        return Part(wire=wire, parameters=lowered.parameters, population=population)

    def _copied(self, name: str, lowered: Lowered) -> tuple[int, ...] | None:
        """The channel of each output of a Linear that gives each channel to several delays; None
        for any other.
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
    """Make a graph ready to be lowered; its nodes can be only where its dialect is decided."""
    place = {name: number for number, name in enumerate(graph.order())}
    incoming: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, target in bypass_relays(graph):
        incoming[target].append(source)
    return LoweringPlan(
        graph=graph,
        order=tuple(name for name in place if not is_relay(graph.nodes[name])),
        shapes=shapes(graph),
        looped=tuple(name for part in graph.recurrent_components() for name in part),
        sources={
            name: tuple(sorted(found, key=place.__getitem__)) for name, found in incoming.items()
        },
    )


class Lowered(NamedTuple):
    """One node: kind and detail of its `Wire`, and its parameters, time constants in seconds."""

    kind: str
    parameters: dict[str, np.ndarray]
    detail: Any = None


@singledispatch
def lower_node(
    node: Node, dialect: Dialect, inward: tuple[int, ...], shape: tuple[int, ...]
) -> Lowered:
    """Lower one node that takes signals of one shape and gives signals of another."""
    supported = listing(kind.__name__ for kind in lower_node.registry if kind not in (object, Node))
    raise LoweringError(
        f"node '{node.name}' is a {node.type}",
        fix=f"replace it, simulation runs {supported}",
        node=node.name,
        code="unsupported-node",
    )


@lower_node.register
def _(node: Input, dialect, inward, shape):
    return Lowered("input", {})


@lower_node.register
def _(node: Output, dialect, inward, shape):
    return Lowered("output", {})


@lower_node.register
def _(node: Flatten, dialect, inward, shape):
    if not dialect.conventions.channels_last or len(inward) == 1:
        return Lowered("Flatten", {})
    if len(shape) != 1:
        raise LoweringError(
            f"node '{node.name}' (Flatten) joins {inward} to {shape}, and {dialect.name} keeps channels last",
            fix="join all axes (start_dim 1, end_dim -1)",
            node=node.name,
        )
    return Lowered("Flatten", {}, (*range(1, len(inward)), 0))


@lower_node.register
def _(node: Threshold, dialect, inward, shape):
    return Lowered("Threshold", {"threshold": per_channel(node, "threshold", math.prod(shape))})


@lower_node.register
def _(node: Delay, dialect, inward, shape):
    if dialect.time_unit != "step":
        require(dialect, ["seconds"], PURPOSE, node.name)
    delays = per_channel(node, "delay", math.prod(shape)).astype(float) * (dialect.seconds or 1.0)
    return Lowered(
        "Delay",
        {"delay": delays},
        tuple((delays[:1] if (delays == delays[0]).all() else delays).tolist()),
    )


@lower_node.register(Conv1d)
@lower_node.register(Conv2d)
def _(node: Any, dialect, inward, shape):
    values = {"weight": node.numbers("weight"), "bias": per_channel(node, "bias", shape[0])}
    return Lowered(node.type, values, _window(node))


@lower_node.register(SumPool2d)
@lower_node.register(AvgPool2d)
def _(node: Any, dialect, inward, shape):
    return Lowered(node.type, {}, _window(node))


@lower_node.register
def _(node: Linear, dialect, inward, shape):
    return Lowered("Linear", {"weight": _matrix(node)})


@lower_node.register
def _(node: Affine, dialect, inward, shape):
    return Lowered(
        "Affine", {"weight": _matrix(node), "bias": per_channel(node, "bias", math.prod(shape))}
    )


@lower_node.register
def _(node: Scale, dialect, inward, shape):
    return Lowered("Scale", {"scale": per_channel(node, "scale", math.prod(shape))})


@lower_node.register(CubaLIF)
@lower_node.register(CubaLI)
@lower_node.register(LIF)
@lower_node.register(LI)
@lower_node.register(IF)
@lower_node.register(I)
def _(node: Any, dialect, inward, shape):
    values = {name: per_channel(node, name, math.prod(shape)) for name in node.names}
    seconds = dialect.seconds or 1.0  # unknown: the population says so
    return Lowered(
        "neuron", {key: value * seconds ** time_power(node, key) for key, value in values.items()}
    )


def time_power(node: Node, parameter: str) -> int:
    """Power of the unit of time in a parameter: 1 for time constants, -1 for r of IF and I, else 0."""
    if parameter.startswith(("tau", "delay")):
        return 1
    return -1 if parameter == "r" and isinstance(node, IF | I) else 0


def _window(node: Node) -> Window:
    frame = window(node)
    if frame.padding is None:
        raise LoweringError(
            f"node '{node.name}' ({node.type}) has padding 'same' and a stride of {listing(frame.stride)}, which "
            "frameworks pad differently",
            fix="give the padding in numbers",
            node=node.name,
        )
    return frame


def _matrix(node: Any) -> np.ndarray:
    if node.weight.ndim != 2:
        raise LoweringError(
            f"node '{node.name}' ({node.type}): weight has shape {node.weight.shape}",
            fix="give it the shape (outputs, inputs)",
            node=node.name,
        )
    return node.numbers("weight")
