"""Graph -> Network (`lower`), and a trained Network's numbers back into the Graph
(`update_graph`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from jaxsnn.errors import LoweringError
from jaxsnn.keywords import suggests_keywords
from jaxsnn.network.linear_nodes import check_operator
from jaxsnn.network.lowering.lower_nodes import NO_NEURONS, PURPOSE, plan
from jaxsnn.network.network import (
    Network,
    check_dtype,
    with_tau_facts,
    without_synaptic_delays,
)
from jaxsnn.network.number_ranges import beyond_type, with_reset_obstacle
from jaxsnn.network.on_processor import to_jax
from jaxsnn.nir.convert.importers import ignored_by_framework
from jaxsnn.nir.dialects.gains import require
from jaxsnn.nir.dialects.resolve import resolve_neurons
from jaxsnn.nir.frameworks.evidence import TOLERANCE, estimate
from jaxsnn.nir.frameworks.source_rule import NeuronRule
from jaxsnn.nir.graphs.synapses import with_delayed_synapses
from jaxsnn.nir.model.dialect import Dialect
from jaxsnn.nir.model.extension_nodes import EXTENSIONS
from jaxsnn.nir.model.graph import Graph, refuse_no_graph
from jaxsnn.nir.model.node import Node
from jaxsnn.nir.model.nodes import TYPES
from jaxsnn.nir.model.passes import shapes as graph_shapes
from jaxsnn.wording import Text

#: Parameter -> its new numbers, and a mask of the numbers that are unchanged.
Changes = Mapping[str, tuple[np.ndarray, np.ndarray]]
#: Types of nodes without a state whose parameters are scalars, or have an entry per channel.
_ELEMENTWISE = ("Scale", "Delay", "Threshold")


@suggests_keywords
def lower(graph: Graph, *, dtype: Any = None, free_time_constants: bool = False) -> Network:
    """Lower a graph to the network that the engines run.

    Conventions that the dialect leaves open are noted in the network's populations; an engine that
    needs one refuses to run, and names the option that sets it.

    Args:
        graph: graph with its dialect.
        dtype: float32 or float64 (needs jax_enable_x64); default JAX's own.
        free_time_constants: assume nothing of tau_mem and tau_syn, so that they can be trained.

    Raises:
        UsageError: float64, while jax_enable_x64 is off.
        LoweringError: a node that has no size, or that no engine runs, or a graph without neurons.
        DialectError: the dialect is undecided, or its framework never writes such a node.

    >>> from jaxsnn.nir import build
    >>> neurons = build.cubalif(tau_mem=10e-3, tau_syn=5e-3)
    >>> graph = build.sequential(build.input(2), build.linear(3), neurons, seed=0)
    >>> lower(graph).populations["2"].size
    3
    """
    refuse_no_graph(graph)
    require(graph.dialect, ["name"], PURPOSE)
    dtype = check_dtype(dtype)
    wires, parameters, populations = [], {}, {}
    ready = plan(graph)
    remarks: dict[str, list[str]] = {}
    for problem in ignored_by_framework(graph):
        # Problems of nodes that are not lowered are reported at the first node.
        place = problem.node if problem.node in ready.order else ready.order[0]
        remarks.setdefault(place, []).append(str(problem))
    for part in map(ready.part, ready.order):
        name = part.wire.name
        wires.append(replace(part.wire, remarks=tuple(remarks.get(name, ()))))
        has_function = part.wire.linear or part.wire.function
        if has_function and part.wire.kind not in (*TYPES, *EXTENSIONS):
            check_operator(part.wire, ready.shapes[name][0] or (), part.parameters)
        if part.parameters:
            parameters[name] = {
                key: to_jax(_as(dtype, value, name, key)) for key, value in part.parameters.items()
            }
        if part.population is not None:
            populations[name] = with_reset_obstacle(part.population, part.parameters, dtype)
    if not populations and not ready.late:
        raise LoweringError.of(NO_NEURONS)
    populations = {
        name: with_tau_facts(population, parameters[name])
        for name, population in populations.items()
    }
    network = Network(parameters=parameters, wires=wires, populations=populations)
    return network.with_free_time_constants() if free_time_constants else network


def _as(dtype: Any, value: Any, name: str, key: str) -> np.ndarray:
    """Return a parameter's numbers in a dtype.

    Raises:
        LoweringError: a finite number overflows the dtype.
    """
    if (problem := beyond_type(name, key, value, dtype)) is not None:
        raise LoweringError.of(problem)
    with np.errstate(over="ignore"):  # a threshold may become inf
        return np.asarray(value, dtype)


@suggests_keywords
def update_graph(graph: Graph, network: Network) -> Graph:
    """Return the graph with the changed numbers of a network that was lowered from it.

    Delays of synapses (`jaxsnn.with_synaptic_delays`) become nodes of their own. A number that did
    not change keeps its bits, its shape (a scalar stays one) and its dtype; a parameter that the
    file lacks stays absent. Changed float16 becomes the network's dtype.

    Raises:
        LoweringError: a changed number that the dialect cannot write, one of r and tau without the
            other if the framework ties them by its step (snnTorch, Rockpool, Spyx, ...), or a
            network of another graph.
    """
    refuse_no_graph(graph)
    before = lower(graph, dtype=network.dtype).parameters
    parameters, delays = without_synaptic_delays(network)
    _refuse_others(before, parameters)
    changed, shapes, rules = [], graph_shapes(graph), resolve_neurons(graph)
    for name, values in parameters.items():
        node = graph.nodes[name]
        changes = {}
        for key, value in values.items():
            new, old = np.asarray(value), np.asarray(before[name][key])
            if not np.array_equal(new, old):
                changes[key] = new, new == old
        if changes and node.traits.state:
            _refuse_unused(rules[name], changes)
        if changes:
            changed.append(_with_changes(node, changes, graph.dialect, shapes[name][1]))
    trained = graph.with_nodes(changed)
    _refuse_untied(graph, trained)
    for name, delay in delays.items():
        trained = with_delayed_synapses(
            trained, name, np.asarray(delay, float) / (graph.dialect.seconds or 1.0)
        )
    return trained


def _refuse_untied(before: Graph, after: Graph) -> None:
    """Refuse changes of r or tau that imply another time step: where a framework ties r to tau, it
    uses only one of the two.
    """
    conventions = before.dialect.conventions
    if conventions is None or conventions.evidence.dt_from is None:
        return
    evidence = conventions.evidence
    old, new = estimate(before.nodes, evidence), estimate(after.nodes, evidence)
    if old.equals(new) or (old.dt is not None and not old.agrees):
        return
    # If the old numbers imply no step (such as r = 1), the new ones must not imply another step
    # than that of the dialect.
    step = old.dt if old.dt is not None else before.dialect.dt
    apart = np.inf if step is None or new.dt is None else abs(new.dt - step) / step
    if new.agrees and apart <= TOLERANCE:
        return
    changed = [name for name in after.nodes if after.nodes[name] is not before.nodes[name]]
    alone = (estimate({name: after.nodes[name]}, evidence) for name in changed)
    step_estimates = [
        node_estimate
        for node_estimate in alone
        if node_estimate.dt is not None or node_estimate.node
    ] or [new]
    # the node whose implied step is farthest from that of the file
    worst = max(
        step_estimates,
        key=lambda node_estimate: 0.0 if step is None else abs(node_estimate.farthest - step),
    )
    steps = "specifies none" if step is None else Text("has a time step of {dt:.6g}", dt=step)
    raise LoweringError(
        Text(
            "node '{node}' has {parameters}: in dialect {dialect} this implies a time step of "
            "{actual:.6g}, but the file {steps}",
            node=worst.node,
            parameters=worst.pair,
            dialect=before.dialect.name,
            actual=worst.farthest,
            steps=steps,
        ),
        fix=f"change both parameters so that {evidence.dt_from} stays the same, or change neither",
        node=worst.node,
    )


def _refuse_others(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Refuse parameters of other nodes, or of other shapes."""
    for name in (*before, *after):
        old, new = (
            {key: np.shape(value) for key, value in side.get(name, {}).items()}
            for side in (before, after)
        )
        if old != new:
            raise LoweringError(
                Text(
                    "node '{node}' has parameters {expected} in the graph and {actual} in the "
                    "network",
                    node=name,
                    expected=old,
                    actual=new,
                ),
                fix="pass the graph that the network was lowered from",
                node=name,
            )


def _with_changes(
    node: Node, changes: Changes, dialect: Dialect, shape: tuple[int, ...] | None
) -> Node:
    """Return a node with changed parameters, in the units, shapes and dtypes of the file.

    If a parameter that is shared by all neurons becomes an array, the other parameters of the node
    that had the same shape are expanded, too, as `nir` requires.

    Args:
        changes: parameter -> its numbers, and a mask of those that did not change.
        shape: shape of the node's output.
    """
    written = {key: _written(node, key, new, same, dialect) for key, (new, same) in changes.items()}
    grown = {key for key, new in written.items() if new.size > np.size(node.value(key))}
    per_channel = node.type in TYPES and (node.traits.state or node.type in _ELEMENTWISE)
    if not grown or shape is None or not per_channel:
        return node.replace(**written)
    if len({np.shape(value) for value in node.parameters.values()}) == 1:
        grown = set(node.parameters) | grown
    sized = {
        key: np.broadcast_to(np.ravel(value), math.prod(shape)).reshape(shape).copy()
        for key, value in (node.parameters | written).items()
        if key in grown
    }
    return node.replace(**written | sized)


def _refuse_unused(rule: NeuronRule, changes: Changes) -> None:
    """Refuse changes of parameters that the framework does not use."""
    node = rule.node
    # if the framework computes r from the time constant, r may only change together with it
    r_alone = rule.resistance != "file" and not {"tau", "tau_mem"} & set(changes)
    for parameter, is_unused in (("v_leak", rule.leaks_to_zero), ("r", r_alone)):
        if not is_unused or parameter not in changes:
            continue
        raise LoweringError(
            Text(
                "node '{node}' ({type}): {parameter} cannot be trained in the dialect "
                "{dialect}, which does not use it",
                node=node.name,
                type=node.type,
                parameter=parameter,
                dialect=rule.dialect,
            ),
            fix=f"exclude {parameter} from training",
            node=node.name,
        )


def _written(
    node: Node, name: str, value: np.ndarray, same: np.ndarray, dialect: Dialect
) -> np.ndarray:
    """Return a changed parameter in the file's units and dtype, and its shape if the number of
    entries stays; `same` marks the entries that did not change.
    """
    description = Text("node '{node}' ({type})", node=node.name, type=node.type)
    if not np.isfinite(value).all():
        raise LoweringError(
            Text(
                "{description}: {parameter} is {value} after training",
                description=description,
                parameter=name,
                value=value[~np.isfinite(value)][0],
            ),
            fix="use a lower learning rate, or clip the gradients",
            node=node.name,
        )
    original = np.asarray(node.value(name))
    keeps_dtype = original.dtype.kind == "f" and original.dtype != np.float16
    dtype = original.dtype if keeps_dtype else value.dtype
    unit = (dialect.seconds or 1.0) ** node.traits.time_power(name)
    value = (value.astype(float) / unit).astype(dtype)
    was_one = original.size == 1 and value.size > 1  # one number for all neurons
    if was_one and (value == value[0]).all():
        return value[:1].reshape(original.shape)
    # Unchanged entries keep their bits.
    unchanged = original.reshape(value.shape if original.size == value.size else -1)
    value = np.where(same, unchanged, value).astype(dtype)
    return value.reshape(original.shape) if value.size == original.size else value
