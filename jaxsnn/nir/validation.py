"""What makes a graph broken, found all at once. Nothing is repaired here."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from jaxsnn.errors import GraphError, Problem, listing
from jaxsnn.nir.graph import Graph
from jaxsnn.nir.nodes import Affine, Conv1d, Conv2d, Flatten, Linear, Node
from jaxsnn.nir.passes import CONVOLUTIONS, ELEMENTWISE, POOLS, Shape, own_shape, shapes, window

_TIME_CONSTANTS = ("tau", "tau_mem", "tau_syn")
#: Factors that may be infinite where a time constant is: a neuron without leak has tau and r
#: infinite.
_TIED = {"r": ("tau", "tau_mem"), "w_in": ("tau_syn",)}
_MAY_BE_INFINITE = (*_TIME_CONSTANTS, *_TIED)
_SINGLE = ("groups", "start_dim", "end_dim")
_OPTIONAL = ("v_reset", "w_in", "input_shape", "input_type", "start_dim", "end_dim", "shape")


def validate(graph: Graph) -> tuple[Problem, ...]:
    """All problems of a graph, in the order of its nodes. None of them can be repaired without
    guessing.

    Missing parameters, parameters that are NaN, infinite or out of range, shapes that do not match,
    edges into an Input or out of an Output of the outermost graph.
    """
    problems = [problem for node in graph.nodes.values() for problem in _node_problems(node)]
    problems += _border_problems(graph)
    # Shapes of broken parameters would only repeat what was said.
    return tuple(problems or _edge_problems(graph))


def refuse_problems(graph: Graph) -> None:
    """Raise a GraphError for the first problem, which says how many others there are."""
    problems = validate(graph)
    if problems:
        raise GraphError.of(problems)


def _node_problems(node: Node) -> Iterator[Problem]:
    missing = [name for name in node.names if getattr(node, name) is None and name not in _OPTIONAL]
    for name in missing:
        yield _problem(
            node, "missing-parameter", f"has no {name}", "NIR requires it, export the file again"
        )
    if missing:
        return
    wrong = [
        problem
        for name, value in node.parameters.items()
        for problem in _value_problems(node, name, value)
    ]
    wrong = wrong or list(_shape_problems(node))
    yield from wrong or _infinite_problems(node)


def _value_problems(node: Node, name: str, value: np.ndarray | str) -> Iterator[Problem]:
    if isinstance(value, str):
        if name != "padding" or value not in ("same", "valid"):
            yield _problem(node, "bad-parameter", f"has {name} = '{value}'", "it must be numbers")
    elif name in _SINGLE and value.size != 1:
        yield _problem(
            node, "bad-parameter", f"has {name} of shape {value.shape}", "it must be one number"
        )
    else:
        yield from _number_problems(node, name, value)


def _problem(node: Node, code: str, what: str, fix: str) -> Problem:
    return Problem(
        node=node.name, code=code, message=f"node '{node.name}' ({node.type}) {what}", fix=fix
    )


def _number_problems(node: Node, name: str, value: np.ndarray) -> Iterator[Problem]:
    if value.dtype.kind in "biu":
        bad = np.zeros(value.shape, bool)
    elif name in _MAY_BE_INFINITE:
        bad = np.isnan(value) | (np.isneginf(value))
    else:
        bad = ~np.isfinite(value)
    if np.any(bad):
        verb = "is" if bad.sum() == 1 else "are"
        what = f"has {_count(bad)} {name} that {verb} {_first(value, bad)}"
        yield _problem(node, "not-finite", what, "correct the numbers before export")
        return
    if name in _TIME_CONSTANTS and np.any(value <= 0):
        bad = value <= 0
        verb = "is" if bad.sum() == 1 else "are"
        what = f"has {_count(bad)} {name} that {verb} not positive, {_first(value, bad)}"
        yield _problem(node, "not-positive", what, "a time constant must be greater than 0")
    if name in ("delay", "padding") and np.any(value < 0):
        bad = value < 0
        yield _problem(
            node, "negative", f"has {name} = {_first(value, bad)}", "it must be at least 0"
        )
    if name in ("stride", "dilation", "groups", "kernel_size") and np.any(value < 1):
        bad = value < 1
        yield _problem(
            node, "not-positive", f"has {name} = {_first(value, bad)}", "it must be at least 1"
        )


def _infinite_problems(node: Node) -> Iterator[Problem]:
    """Infinite factors of neurons whose time constant is finite."""
    for name, tied in _TIED.items():
        if name not in node.names:
            continue
        value = np.asarray(node.value(name), float)
        tau = next(
            (np.asarray(node.value(key), float) for key in tied if key in node.names), np.zeros(())
        )
        bad = np.isinf(value) & np.isfinite(tau)
        if np.any(bad):
            value = np.broadcast_to(value, bad.shape)
            verb = "is" if bad.sum() == 1 else "are"
            what = f"has {_count(bad)} {name} that {verb} {_first(value, bad)}"
            yield _problem(
                node, "not-finite", what, "it may be infinite only where its time constant is"
            )


def _count(bad: np.ndarray) -> str:
    return "a" if bad.size == 1 else f"{int(bad.sum())} of {bad.size}"


def _first(value: np.ndarray, bad: np.ndarray) -> str:
    index = tuple(int(place) for place in np.argwhere(bad)[0])
    where = f" at index {index[0] if len(index) == 1 else index}" if index else ""
    return f"{value[index]:g}{where}"


def _shape_problems(node: Node) -> Iterator[Problem]:
    if isinstance(node, ELEMENTWISE):
        named = [
            (name, np.shape(value))
            for name, value in node.parameters.items()
            if np.size(value) != 1
        ]
        for name, shape in named[1:]:
            if shape != named[0][1]:
                what = f"has {named[0][0]} of shape {named[0][1]} and {name} of shape {shape}"
                yield _problem(
                    node, "parameter-shapes", what, "give all its parameters one shape, or a scalar"
                )
                return
        if any(0 in shape for _, shape in named):
            yield _problem(
                node, "empty", f"has {named[0][0]} of shape {named[0][1]}", "it must have a neuron"
            )
    if isinstance(node, Linear | Affine) and np.ndim(node.value("weight")) < 2:
        shape = np.shape(node.value("weight"))
        yield _problem(
            node, "weight-shape", f"has a weight of shape {shape}", "it must be (outputs, inputs)"
        )
        return
    if isinstance(node, Conv1d | Conv2d):
        rank = 3 if isinstance(node, Conv1d) else 4
        if np.ndim(node.value("weight")) != rank:
            shape = np.shape(node.value("weight"))
            yield _problem(
                node, "weight-shape", f"has a weight of shape {shape}", f"it must have {rank} axes"
            )
            return
    yield from _bias_problems(node)
    yield from _window_problems(node)


def _bias_problems(node: Node) -> Iterator[Problem]:
    if not isinstance(node, Affine | Conv1d | Conv2d) or np.size(node.value("bias")) == 1:
        return
    weight, bias = (np.shape(node.value(key)) for key in ("weight", "bias"))
    outputs = (*weight[:-2], weight[-2]) if isinstance(node, Affine) else weight[:1]
    if bias != outputs:
        what = f"has a bias of shape {bias}, but its weight of shape {weight} gives {outputs}"
        yield _problem(node, "bias-shape", what, "give them the same number of outputs")


def _window_problems(node: Node) -> Iterator[Problem]:
    if not isinstance(node, (*CONVOLUTIONS, *POOLS)):
        return
    axes = 1 if isinstance(node, Conv1d) else 2
    for name in ("kernel_size", "stride", "padding", "dilation", "input_shape"):
        value = getattr(node, name, None)
        if value is None or isinstance(value, str):
            continue
        if np.size(value) not in ((axes,) if name == "input_shape" else (1, axes)):
            what = f"has {name} of shape {np.shape(value)}"
            yield _problem(node, "parameter-shapes", what, f"it needs one number or {axes}")
    if isinstance(node, CONVOLUTIONS):
        outputs, groups = np.shape(node.value("weight"))[0], int(np.ravel(node.value("groups"))[0])
        if groups > 0 and outputs % groups:
            what = f"has {outputs} output channels in {groups} groups"
            fix = "the number of channels must be a multiple of the number of groups"
            yield _problem(node, "groups", what, fix)


def _border_problems(graph: Graph) -> Iterator[Problem]:
    """Data enter at an Input and leave at an Output; those of nested graphs are relays, which pass
    on what arrives.
    """
    for name in graph.inputs:
        if sources := graph.predecessors(name):
            what = f"receives what {listing(sources)} sends, but data enter there"
            yield _problem(
                graph.nodes[name], "fed-input", what, "lead the edge to the nodes that it feeds"
            )
    for name in graph.outputs:
        if targets := graph.successors(name):
            what = f"feeds {listing(targets)}, but data leave there"
            yield _problem(
                graph.nodes[name],
                "feeding-output",
                what,
                "lead the edge from the nodes that feed it",
            )


def _edge_problems(graph: Graph) -> Iterator[Problem]:
    found = shapes(graph)
    for source, target in graph.networkx.edges():
        given, taken = found[source][1], found[target][0]
        node = graph.nodes[target]
        if given is None or taken is None or given == taken:
            continue
        what = (
            f"node '{source}' gives the shape {given}, "
            f"but node '{target}' ({node.type}) takes {taken}"
        )
        yield Problem(
            node=target,
            code="shape-mismatch",
            message=what,
            fix=_advice(graph, source, given, taken),
        )
    for name, node in graph.nodes.items():
        inward, outward = found[name]
        if inward is None:
            continue
        if isinstance(node, (*CONVOLUTIONS, *POOLS, Flatten)) and outward is None:
            yield from _no_output(node, inward)
        yield from _declaration_problems(node, inward)


def _declaration_problems(node: Node, inward: Shape) -> Iterator[Problem]:
    """Shapes and channels that a node declares, against what reaches it."""
    entry = {"Input": "shape", "Output": "shape", "Flatten": "input_type"}.get(node.type)
    value = None if entry is None else node.value(entry)
    if value is not None:
        declared = tuple(int(size) for size in np.ravel(value))
        if declared[len(declared) - len(inward) :] != inward:
            what = f"declares the shape {declared}, but its neighbours have {inward}"
            yield _problem(node, "shape-mismatch", what, "correct the one that is wrong")
    if isinstance(node, CONVOLUTIONS):
        channels = np.shape(node.value("weight"))[1] * window(node).groups
        if inward[0] != channels:
            what = f"takes {channels} channels, but the shape {inward} reaches it, with {inward[0]}"
            yield _problem(node, "shape-mismatch", what, "NIR's order is channels, height, width")


def _no_output(node: Node, shape: Shape) -> Iterator[Problem]:
    if isinstance(node, (*CONVOLUTIONS, *POOLS)) and isinstance(node.value("padding"), str):
        return
    yield _problem(
        node,
        "shape-mismatch",
        f"cannot take the shape {shape}",
        "correct its size or the node before it",
    )


def _advice(graph: Graph, source: str, given: Shape, taken: Shape) -> str:
    if len(taken) == 1 and len(given) > 1 and int(np.prod(given)) == taken[0]:
        return "insert a Flatten between them"
    own = own_shape(graph.nodes[source])
    return (
        "correct the size of one of them"
        if own is not None or graph.predecessors(source)
        else "correct the Input"
    )
