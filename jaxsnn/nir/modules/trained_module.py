"""The way back from a module that `jaxsnn.to_torch` made: its graph, with the numbers that it has now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.convert.draft import WEIGHTED, spelt
from jaxsnn.nir.graph import Graph
from jaxsnn.nir.nodes import Node
from jaxsnn.nir.torch import SOURCE, drafted, to_torch

#: Places of biases in loops are multiples of this: what importers need adds them to other biases.
_IN_LOOPS = 2.0**26


def is_of_graph(module: Any) -> bool:
    """Whether `jaxsnn.to_torch` made a module."""
    return SOURCE in getattr(module, "meta", ())


def trained_graph(module: Any) -> Graph:
    """The graph of a module that `jaxsnn.to_torch` made, with the weights and biases that it has now;
    what did not change keeps its bits.

    Raises:
        ConversionError: `to_torch` makes no such module of any weights of the graph.
        GraphError: Weights that are not finite.
    """
    graph = _with_weights(module.meta[SOURCE], module)
    _refuse_other_numbers(graph, module)
    return graph


def _with_weights(graph: Graph, module: Any) -> Graph:
    """The graph with the weights and biases of a module."""
    draft = drafted(graph).draft
    parts = list(_numbers(graph))
    places = drafted(_with_places(graph, parts)).draft
    now = np.concatenate([np.zeros(1), *(np.ravel(value) for _, _, value in parts)])
    changed = np.zeros(now.size, bool)
    for name in draft.of_type(*WEIGHTED):
        for key in ("weight", "bias"):
            if key not in draft.nodes[name]:
                continue
            new = _held(module, name, key)
            other = new != np.asarray(draft.nodes[name][key], np.float32)
            place = np.broadcast_to(places.nodes[name].get(key, 0.0), new.shape)
            looped, own = np.divmod(place, _IN_LOOPS) if key == "bias" else (0 * place, place)
            # of a sum of two biases, the one outside of the loop is all
            for where, value in ((looped, np.where(own > 0, 0.0, new)), (own, new)):
                index = where[other].astype(int)
                now[index], changed[index] = value[other], True
    kind = np.result_type(np.float32, *(_array(each).dtype for each in module.parameters()))
    records, first = {}, 1
    for name, key, value in parts:
        part = slice(first, first + value.size)
        first += value.size
        if changed[part].any():
            new = now[part].reshape(value.shape).astype(kind)
            mixed = np.where(changed[part].reshape(value.shape), new, value)
            records[name] = records.get(name, graph.nodes[name]).replace(**{key: mixed})
    return graph.with_nodes(records)


def _numbers(graph: Graph) -> Iterator[tuple[str, str, np.ndarray]]:
    """Node, name and value of all biases, then of all weights, with a bias for each output channel."""
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
    """The graph with the places of its numbers, counted from 1, instead of them."""
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
    """A number of a layer of a module, by the name of its node."""
    held = getattr(getattr(module, spelt(name), None), key, None)
    if held is None:
        raise ConversionError(
            f"the module has no {key} of '{name}', which jaxsnn.to_torch gave it",
            fix="keep the layers that jaxsnn.to_torch makes",
            node=name,
        )
    return _array(held)


def _array(tensor: Any) -> np.ndarray:
    return np.array(tensor.detach().cpu().numpy())


def _refuse_other_numbers(graph: Graph, module: Any) -> None:
    """Refuse a graph of which `to_torch` makes a module with other numbers than the one given.

    Raises:
        ConversionError: Names the node and the two numbers.
    """
    names = {spelt(name): node for name, node in drafted(graph).nodes.items()}
    for path, wanted in to_torch(graph).state_dict().items():
        layer, _, key = str(path).rpartition(".")
        node = names.get(layer, layer)
        own, new = _held(module, layer, key), wanted.numpy()
        if own.shape != new.shape:
            raise ConversionError(
                f"node '{node}': {key} has the shape {own.shape} in the module, and {new.shape} in its"
                " graph",
                fix="keep the shapes that jaxsnn.to_torch makes",
                node=node,
            )
        if not (same := own.astype(np.float32) == new).all():
            raise ConversionError(
                f"node '{node}': {key} is {own[~same][0]:g} in the module and {new[~same][0]:g} in its"
                " graph, which cannot hold that",
                fix="train its parameters, which are weights and biases, and set what neurons do in the"
                " graph before jaxsnn.to_torch",
                node=node,
            )
