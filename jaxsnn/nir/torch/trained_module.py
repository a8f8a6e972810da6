"""Graph of a module that `jaxsnn.to_torch` created, with the present parameters of the module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.model.draft import WEIGHTED, spelt
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.node import Node
from jaxsnn.nir.torch.to_torch import SOURCE, drafted, to_torch
from jaxsnn.wording import Text

#: Factor of the places of biases in loops, which distinguishes them from others: importers may need
#: their sum.
_IN_LOOPS = 2.0**26


def is_of_graph(module: Any) -> bool:
    """Return whether `jaxsnn.to_torch` created a module."""
    return SOURCE in getattr(module, "meta", ())


def source_of(module: Any) -> Graph:
    """Return the graph from which `jaxsnn.to_torch` created a module."""
    return module.meta[SOURCE]


def trained_graph(module: Any) -> Graph:
    """Return the graph of a module that `jaxsnn.to_torch` created, with its present numbers.

    These are weights, biases, v_threshold and v_reset, and all numbers of nodes of types that NIR does not
    have. Unchanged numbers keep their bits.

    Raises:
        ConversionError: The module has numbers that `to_torch` would not create from any graph of this
            structure.
        GraphError: Weights that are not finite.
    """
    graph = _with_levels(_with_weights(source_of(module), module), module)
    graph = _with_extensions(graph, module)
    _refuse_other_numbers(graph, module)
    return graph


def weights_for(module: Any, nodes: Mapping[str, Node]) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield layer, "weight" or "bias", and value to set in a module that `jaxsnn.to_torch` created.

    Args:
        module: The module.
        nodes: Nodes with the weights to set, by the names in its graph; a missing bias means 0.
    """
    graph = source_of(module)
    records = []
    for name, node in nodes.items():
        original = graph.nodes[name]
        values = {"weight": node.value("weight")}
        if "bias" in original.names:
            has = "bias" in node.names
            values["bias"] = node.value("bias") if has else np.zeros(_channels(original))
        records.append(original.replace(**values))
    for path, value in to_torch(graph.with_nodes(records)).state_dict().items():
        layer, _, key = str(path).rpartition(".")
        if key in ("weight", "bias"):
            yield layer, key, value.numpy()


def _with_weights(graph: Graph, module: Any) -> Graph:
    """Return the graph with the weights and biases of a module."""
    ready = drafted(graph)
    draft = ready.draft
    parts = list(_numbers(graph))
    places = drafted(_with_places(graph, parts)).draft
    now = np.concatenate([np.zeros(1), *(np.ravel(value) for _, _, value in parts)])
    changed, read = np.zeros(now.size, bool), []
    for name in draft.of_type(*WEIGHTED):
        for key in ("weight", "bias"):
            if key not in draft.nodes[name] or name in ready.fixed:
                continue
            new = _held(module, name, key)
            differs = new != np.asarray(draft.nodes[name][key], np.float32)
            place = np.broadcast_to(places.nodes[name].get(key, 0.0), new.shape)
            looped, outside = np.divmod(place, _IN_LOOPS) if key == "bias" else (0 * place, place)
            # of a sum of two biases, the one outside of the loop is all
            for positions, value in ((looped, np.where(outside > 0, 0.0, new)), (outside, new)):
                index = positions[differs].astype(int)
                now[index], changed[index] = value[differs], True
            if key == "weight":
                read.append((name, new, outside.astype(int)))
    for name, new, place in read:
        apart = (place > 0) & (now[place].astype(np.float32) != new.astype(np.float32))
        apart &= ~np.isnan(new)  # which no graph has, and that is told
        if apart.any():
            raise ConversionError(
                Text(
                    "the weight of layer '{layer}' is {actual:g}, and {expected:g} in "
                    "another layer of the module, but the graph has one weight for both",
                    layer=spelt(name),
                    actual=new[apart][0],
                    expected=now[place][apart][0],
                ),
                fix="use separate weights in the graph before jaxsnn.to_torch",
                node=name,
            )
    kind = np.result_type(
        np.float32, *(_array(parameter).dtype for parameter in module.parameters())
    )
    records, first = {}, 1
    for name, key, value in parts:
        part = slice(first, first + value.size)
        first += value.size
        if changed[part].any():
            new = now[part].reshape(value.shape).astype(kind)
            mixed = np.where(changed[part].reshape(value.shape), new, value)
            records[name] = records.get(name, graph.nodes[name]).replace(**{key: mixed})
    return graph.with_nodes(records)


def _with_levels(graph: Graph, module: Any) -> Graph:
    """Return the graph with v_threshold and v_reset of the neurons of a module."""
    ready, records = drafted(graph), []
    for name, step in ready.steps.items():
        node, changes = graph.nodes[ready.nodes[name]], {}
        for key in ("v_threshold", "v_reset") if step.reset != "none" else ():
            new, old = _held(module, name, key), getattr(step, key).astype(np.float32)
            if key in node.names and new.shape == old.shape and not np.array_equal(new, old):
                value = np.resize(node.value(key), step.shape)
                changes[key] = np.where(new == old, value, new)
        if changes:
            parameters = {
                key: np.resize(value, step.shape) for key, value in node.parameters.items()
            }
            records.append(node.replace(**parameters | changes))
    return graph.with_nodes(records)


def _with_extensions(graph: Graph, module: Any) -> Graph:
    """Return the graph with the module's numbers of nodes of types that NIR does not have: the weight
    and bias of a LayerNorm, and the decays, thresholds and potentials of neurons.
    """
    ready, records = drafted(graph), []
    for layer, name in ready.nodes.items():
        node, changes = graph.nodes[name], {}
        parameters = node.traits.parameters if node.traits.extension else ()
        for key in (parameter.name for parameter in parameters if parameter.per != "setting"):
            new, value = _held(module, layer, key), node.value(key)
            old = np.broadcast_to(np.asarray(value, np.float32), new.shape)
            if not np.array_equal(new.astype(np.float32), old):
                changes[key] = np.where(new.astype(np.float32) == old, value, new)
        if changes:
            records.append(node.replace(**changes))
    return graph.with_nodes(records)


def _numbers(graph: Graph) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield node, name and value of all biases, then of all weights, with a bias for each output
    channel.
    """
    for key in ("bias", "weight"):
        for name, node in graph.nodes.items():
            if node.type in WEIGHTED and key in node.names:
                value = np.asarray(node.value(key))
                if key == "bias":
                    value = np.broadcast_to(value, _channels(node))
                yield name, key, value


def _channels(node: Node) -> tuple[int, ...]:
    shape = np.shape(node.value("weight"))
    return shape[:1] if node.type in ("Conv1d", "Conv2d") else (*shape[:-2], shape[-2])


def _with_places(graph: Graph, parts: list[tuple[str, str, np.ndarray]]) -> Graph:
    """Return the graph with each number replaced by its place, counted from 1."""
    looped = {name for part in graph.recurrent_components() for name in part}
    records: dict[str, Node] = {}
    first = 1
    for name, key, value in parts:
        places = np.arange(first, first + value.size, dtype=float).reshape(value.shape)
        first += value.size
        if key == "bias" and name in looped:
            places *= _IN_LOOPS if value.any() else 0.0
        records[name] = records.get(name, graph.nodes[name]).replace(**{key: places})
    return graph.with_nodes(records)


def _held(module: Any, name: str, key: str) -> np.ndarray:
    """Return a parameter of a module's layer, by the name of its node."""
    held = getattr(getattr(module, spelt(name), None), key, None)
    if held is None:
        raise ConversionError(
            Text(
                "the module lacks {parameter} of '{layer}', which jaxsnn.to_torch created",
                parameter=key,
                layer=name,
            ),
            fix="do not remove layers of a module from jaxsnn.to_torch",
            node=name,
        )
    return _array(held)


def _array(tensor: Any) -> np.ndarray:
    return np.array(tensor.detach().cpu().numpy())


def _refuse_other_numbers(graph: Graph, module: Any) -> None:
    """Refuse a graph whose `to_torch` module has other parameters than the module.

    Raises:
        ConversionError: A parameter differs; the message contains the node and the two numbers.
    """
    node_of_layer = {spelt(name): node for name, node in drafted(graph).nodes.items()}
    for path, expected in to_torch(graph).state_dict().items():
        layer, _, key = str(path).rpartition(".")
        node = node_of_layer.get(layer, layer)
        value, new = _held(module, layer, key), expected.numpy()
        if value.shape != new.shape:
            raise ConversionError(
                Text(
                    "node '{node}': {parameter} has the shape {actual} in the module and "
                    "{expected} in its graph",
                    node=node,
                    parameter=key,
                    actual=value.shape,
                    expected=new.shape,
                ),
                fix="do not change shapes in a module from jaxsnn.to_torch",
                node=node,
            )
        if not (same := value.astype(np.float32) == new).all():
            raise ConversionError(
                Text(
                    "node '{node}': {parameter} is {actual:g} in the module and {expected:g} in "
                    "its graph, and only weights, biases, v_threshold and v_reset are read back",
                    node=node,
                    parameter=key,
                    actual=value[~same][0],
                    expected=new[~same][0],
                ),
                fix="change it in the graph before jaxsnn.to_torch",
                node=node,
            )
