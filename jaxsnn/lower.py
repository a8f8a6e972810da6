"""Graph -> Network (`lower`), and a trained Network's numbers back into the Graph (`raise_`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import LoweringError
from jaxsnn.lowering import PURPOSE, plan, time_power
from jaxsnn.network import Network, with_tau_facts
from jaxsnn.nir.dialects import Dialect
from jaxsnn.nir.gains import require, rule_of
from jaxsnn.nir.nodes import Node

if TYPE_CHECKING:
    from jaxsnn.nir.graph import Graph


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
    require(graph.dialect, ["name"], PURPOSE)
    dtype = jnp.zeros((), dtype or float).dtype
    wires, parameters, populations = [], {}, {}
    ready = plan(graph)
    for part in map(ready.part, ready.order):
        name = part.wire.name
        wires.append(part.wire)
        if part.parameters:
            parameters[name] = {key: jnp.asarray(value, dtype) for key, value in part.parameters.items()}
        if part.population is not None:
            populations[name] = with_tau_facts(part.population, parameters[name])
    if not populations:
        raise LoweringError("the graph has no neurons: nothing to simulate")
    network = Network(parameters=parameters, wires=wires, populations=populations)
    return network.with_free_time_constants() if free_time_constants else network


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
