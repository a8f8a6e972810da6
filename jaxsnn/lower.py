"""Graph -> Network (`lower`), and a trained Network's numbers back into the Graph (`raise_`)."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import LoweringError, listing
from jaxsnn.network import Network, Wire, with_tau_facts
from jaxsnn.nir.dialects import Dialect
from jaxsnn.nir.gains import require, rule_of
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
from jaxsnn.nir.passes import Window, bypass_relays, is_relay, shapes, window
from jaxsnn.populations import per_channel, population_of

if TYPE_CHECKING:
    from jaxsnn.nir.graph import Graph

_PURPOSE = "simulation"


def lower(graph: Graph, *, dtype: Any = None, free_time_constants: bool = False) -> Network:
    """The network that the engines run.

    What the dialect leaves open is noted in the network's populations; an engine that needs it refuses to run, and says
    which option tells it.

    Args:
        graph: read with a dialect.
        dtype: float32 or float64 (needs jax_enable_x64); default JAX's own.
        free_time_constants: assume nothing of tau_mem and tau_syn, so that they can be trained.

    Raises:
        LoweringError: a node that has no size, or none of the graph's nodes is a neuron.
        DialectError: the dialect is undecided, or its framework never writes such a node.

    >>> from jaxsnn.nir import build
    >>> graph = build.sequential(build.input(2), build.linear(3), build.cubalif(tau_mem=10e-3, tau_syn=5e-3), seed=0)
    >>> lower(graph).populations["2"].size
    3
    """
    require(graph.dialect, ["name"], _PURPOSE)
    dtype = jnp.zeros((), dtype or float).dtype
    found = shapes(graph)
    looped = {name for part in graph.recurrent_components() for name in part}
    place = {name: number for number, name in enumerate(graph.order())}
    incoming: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, target in bypass_relays(graph):
        incoming[target].append(source)
    wires, parameters, populations = [], {}, {}
    for name in place:
        node, (inward, shape) = graph.nodes[name], found[name]
        if is_relay(node):
            continue
        if inward is None or shape is None:
            raise LoweringError(f"the size of node '{name}' cannot be told from the file: give its parameters a shape")
        lowered = lower_node(node, graph.dialect, inward, shape)
        sources = tuple(sorted(incoming[name], key=place.__getitem__))
        wires.append(Wire(name=name, kind=lowered.kind, sources=sources, shape=shape, detail=lowered.detail))
        if lowered.parameters:
            parameters[name] = {key: jnp.asarray(value, dtype) for key, value in lowered.parameters.items()}
        if lowered.kind == "neuron":
            population = population_of(node, graph.dialect, wires[-1].size, looped=name in looped)
            populations[name] = with_tau_facts(population, parameters[name])
    if not populations:
        raise LoweringError("the graph has no neurons: nothing to simulate")
    network = Network(parameters=parameters, wires=wires, populations=populations)
    return network.with_free_time_constants() if free_time_constants else network


class Lowered(NamedTuple):
    """One node: kind and detail of its `Wire`, and its parameters, time constants in seconds."""

    kind: str
    parameters: dict[str, np.ndarray]
    detail: Any = None


@singledispatch
def lower_node(node: Node, dialect: Dialect, inward: tuple[int, ...], shape: tuple[int, ...]) -> Lowered:
    """Lower one node that takes signals of one shape and gives signals of another."""
    supported = listing(kind.__name__ for kind in lower_node.registry if kind not in (object, Node))
    raise LoweringError(f"node '{node.name}' is a {node.type}: simulation runs {supported}")


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
            f"node '{node.name}' (Flatten) joins {inward} to {shape}, and {dialect.name} keeps channels last: join all "
            "axes (start_dim 1, end_dim -1)"
        )
    return Lowered("Flatten", {}, (*range(1, len(inward)), 0))


@lower_node.register
def _(node: Threshold, dialect, inward, shape):
    return Lowered("Threshold", {"threshold": per_channel(node, "threshold", math.prod(shape))})


@lower_node.register
def _(node: Delay, dialect, inward, shape):
    if dialect.time_unit != "step":
        require(dialect, ["seconds"], _PURPOSE, node.name)
    delays = per_channel(node, "delay", math.prod(shape)).astype(float) * (dialect.seconds or 1.0)
    return Lowered("Delay", {}, tuple((delays[:1] if (delays == delays[0]).all() else delays).tolist()))


@lower_node.register(Conv1d)
@lower_node.register(Conv2d)
def _(node: Any, dialect, inward, shape):
    values = {"weight": np.asarray(node.weight), "bias": per_channel(node, "bias", shape[0])}
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
    return Lowered("Affine", {"weight": _matrix(node), "bias": per_channel(node, "bias", math.prod(shape))})


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
    return Lowered("neuron", {key: value * seconds ** time_power(node, key) for key, value in values.items()})


def time_power(node: Node, parameter: str) -> int:
    """Power of the unit of time in a parameter: 1 for time constants, -1 for r of IF and I, else 0."""
    if parameter.startswith("tau"):
        return 1
    return -1 if parameter == "r" and isinstance(node, IF | I) else 0


def _window(node: Node) -> Window:
    frame = window(node)
    if frame.padding is None:
        raise LoweringError(
            f"node '{node.name}' ({node.type}) has padding 'same' and a stride of {listing(frame.stride)}, which "
            "frameworks pad differently: give the padding in numbers"
        )
    return frame


def _matrix(node: Any) -> np.ndarray:
    if node.weight.ndim != 2:
        raise LoweringError(
            f"node '{node.name}' ({node.type}): weight has shape {node.weight.shape}: "
            "simulation takes (outputs, inputs)"
        )
    return node.weight


def raise_(graph: Graph, network: Network) -> Graph:
    """The graph with the numbers of a network that was lowered from it and changed since.

    A number that did not change keeps its bits, its shape (a scalar stays one) and its dtype; a parameter that the file
    lacks stays absent.

    Raises:
        LoweringError: a changed number that the dialect cannot write.
    """
    before = lower(graph, dtype=network.dtype).parameters
    changed = []
    for name, values in network.parameters.items():
        node = graph.nodes[name]
        changes = {
            key: _written(node, key, np.asarray(value), graph.dialect)
            for key, value in values.items()
            if not np.array_equal(np.asarray(value), np.asarray(before[name][key]))
        }
        if changes:
            changed.append(node.replace(**changes))
    return graph.with_nodes(changed)


def _written(node: Node, name: str, value: np.ndarray, dialect: Dialect) -> np.ndarray:
    """A changed parameter in the file's units, shape and dtype."""
    if not np.isfinite(value).all():
        raise LoweringError(
            f"node '{node.name}' ({node.type}): {name} is {value[~np.isfinite(value)][0]} after training"
        )
    value = value / (dialect.seconds or 1.0) ** time_power(node, name)
    if name == "r" and rule_of(dialect, node).resistance != "file":
        raise LoweringError(
            f"node '{node.name}' ({node.type}): r cannot be trained in the dialect {dialect.name}, "
            "which does not play it"
        )
    original = np.asarray(node.value(name))
    if original.size == 1 and value.size > 1:  # it was one number for all
        value = value[:1] if (value == value[0]).all() else value
    if value.size == original.size:
        value = value.reshape(original.shape)
    dtype = original.dtype if original.dtype.kind == "f" else value.dtype
    return value.astype(dtype)
