"""What makes a graph broken, found all at once. Nothing is repaired here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from jaxsnn.errors import GraphError, Problem, listing
from jaxsnn.nir.model.changes import edge_key
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.node import Fault, Node, Parameter, ints
from jaxsnn.nir.model.passes import Shape, is_relay, own_shape, shapes


def validate(graph: Graph) -> tuple[Problem, ...]:
    """All problems of a graph, in the order of its nodes. None of them can be repaired without
    guessing.

    Missing parameters, parameters that are NaN, infinite or out of range, shapes that do not match,
    edges into an Input or out of an Output of the outermost graph, nested graphs that only pass on
    to themselves.
    """
    problems = [problem for node in graph.nodes.values() for problem in _node_problems(node)]
    problems += _border_problems(graph)
    problems += _relay_problems(graph)
    # Shapes of broken parameters would only repeat what was said.
    return tuple(problems or _edge_problems(graph))


def is_open(problem: Problem, graph: Graph) -> bool:
    """Whether a problem may be none in a dialect that means numbers otherwise: learnt decays that
    are clamped, pools that are padded by name. No dialect makes shapes of one node fit each other.
    """
    if problem.code == "shape-mismatch":
        return True
    node = graph.nodes.get(problem.node)
    if problem.code != "not-positive" or node is None or not node.traits.state:
        return False
    return not any(_element_problems(node))


def refuse_problems(graph: Graph) -> None:
    """Raise a GraphError for the first problem, which says how many others there are."""
    problems = validate(graph)
    if problems:
        raise GraphError.of(problems)


def _node_problems(node: Node) -> Iterator[Problem]:
    parameters = node.traits.parameters
    missing = [
        parameter
        for parameter in parameters
        if getattr(node, parameter.name) is None and not parameter.optional
    ]
    for parameter in missing:
        description, fix = f"has no {parameter.name}", "NIR requires it, export the file again"
        yield _problem(node, "missing-parameter", description, fix)
    if missing:
        return
    values = node.parameters
    wrong = [
        problem
        for parameter in parameters
        if parameter.name in values
        for problem in _value_problems(node, parameter, values[parameter.name])
    ]
    wrong = wrong or list(_shape_problems(node))
    yield from wrong or _infinite_problems(node)


def _value_problems(node: Node, parameter: Parameter, value: np.ndarray | str) -> Iterator[Problem]:
    name = parameter.name
    if isinstance(value, str):
        if value not in parameter.texts and name not in node.written:
            texts = "".join(f", or '{text}'" for text in parameter.texts)
            fix = f"it must be numbers{texts}"
            yield _problem(node, "bad-parameter", f"has {name} = '{value}'", fix)
    elif parameter.single and value.size != 1:
        description = f"has {name} of shape {value.shape}"
        yield _problem(node, "bad-parameter", description, "it must be one number")
    else:
        yield from _number_problems(node, parameter, value)


def _problem(node: Node, code: str, description: str, fix: str, **facts: Any) -> Problem:
    return Problem(
        node=node.name,
        code=code,
        message=f"node '{node.name}' ({node.type}) {description}",
        fix=fix,
        facts=facts,
    )


def _faults(node: Node, faults: Iterable[Fault]) -> Iterator[Problem]:
    """What the traits of a node find, as problems of it."""
    for code, description, fix in faults:
        yield _problem(node, code, description, fix)


def _number_problems(node: Node, parameter: Parameter, value: np.ndarray) -> Iterator[Problem]:
    name = parameter.name
    if value.dtype.kind in "biu":
        bad = np.zeros(value.shape, bool)
    elif parameter.may_be_infinite:
        bad = np.isnan(value) | (np.isneginf(value))
    else:
        bad = ~np.isfinite(value)
    if np.any(bad):
        description = f"has {_count(bad)} {name} that {_verb(bad)} {_first(value, bad)}"
        yield _problem(
            node, "not-finite", description, "correct the numbers before export", parameter=name
        )
        return
    if parameter.positive and np.any(bad := value <= 0):
        description = (
            f"has {_count(bad)} {name} that {_verb(bad)} not positive, {_first(value, bad)}"
        )
        whatever = "a time constant" if parameter.is_time_constant else "it"
        yield _problem(
            node, "not-positive", description, f"{whatever} must be greater than 0", parameter=name
        )
    if parameter.whole and value.dtype.kind == "f" and np.any(bad := value != np.round(value)):
        description = f"has {name} = {_first(value, bad)}"
        yield _problem(node, "not-whole", description, "it must be a whole number", parameter=name)
    least = parameter.least
    if least is not None and np.any(bad := value < least):
        code = "not-positive" if least > 0 else "negative" if least == 0 else "too-small"
        description = f"has {name} = {_first(value, bad)}"
        yield _problem(
            node, code, description, f"it must be at least {least:g}", parameter=name, least=least
        )


def _infinite_problems(node: Node) -> Iterator[Problem]:
    """Infinite factors of neurons whose time constant is finite."""
    for parameter in node.traits.parameters:
        if not parameter.tied_to:
            continue
        value = np.asarray(node.value(parameter.name), float)
        bad = np.isinf(value)
        for name in parameter.tied_to:
            bad = bad & np.isfinite(np.asarray(node.value(name), float))
        if np.any(bad):
            value = np.broadcast_to(value, bad.shape)
            description = (
                f"has {_count(bad)} {parameter.name} that {_verb(bad)} {_first(value, bad)}"
            )
            fix = "it may be infinite only where its time constant is"
            yield _problem(node, "not-finite", description, fix)


def _verb(bad: np.ndarray) -> str:
    return "is" if bad.sum() == 1 else "are"


def _count(bad: np.ndarray) -> str:
    return "a" if bad.size == 1 else f"{int(bad.sum())} of {bad.size}"


def _first(value: np.ndarray, bad: np.ndarray) -> str:
    index = tuple(int(place) for place in np.argwhere(bad)[0])
    position = f" at index {index[0] if len(index) == 1 else index}" if index else ""
    return f"{value[index]:g}{position}"


def _shape_problems(node: Node) -> Iterator[Problem]:
    traits = node.traits
    if traits.elementwise:
        yield from _element_problems(node)
    if traits.problems is not None:
        yield from _faults(node, traits.problems(node))


def _element_problems(node: Node) -> Iterator[Problem]:
    """Parameters per element whose shapes differ, or that hold for no element at all."""
    named = list(node.traits.element_shapes(node).items())
    for name, shape in named[1:]:
        if shape != named[0][1]:
            description = f"has {named[0][0]} of shape {named[0][1]} and {name} of shape {shape}"
            fix = "give all its parameters one shape, or a scalar"
            yield _problem(node, "parameter-shapes", description, fix)
            return
    if any(0 in shape for _, shape in named):
        description = f"has {named[0][0]} of shape {named[0][1]}"
        yield _problem(node, "empty", description, "it must have a neuron")


def _border_problems(graph: Graph) -> Iterator[Problem]:
    """Data enter at an Input and leave at an Output; those of nested graphs are relays, which pass
    on what arrives.
    """
    for name in graph.inputs:
        if sources := graph.predecessors(name):
            description = f"receives what {listing(sources)} sends, but data enter there"
            yield _problem(
                graph.nodes[name],
                "fed-input",
                description,
                "lead the edge to the nodes that it feeds",
            )
    for name in graph.outputs:
        if targets := graph.successors(name):
            description = f"feeds {listing(targets)}, but data leave there"
            yield _problem(
                graph.nodes[name],
                "feeding-output",
                description,
                "lead the edge from the nodes that feed it",
            )


def _relay_problems(graph: Graph) -> Iterator[Problem]:
    """Nested graphs that feed themselves through nothing but their Inputs and Outputs."""
    import networkx

    relays = {name for name, node in graph.nodes.items() if is_relay(node)}
    inside = [edge for edge in graph.edges if relays.issuperset(edge)]
    for part in networkx.strongly_connected_components(networkx.DiGraph(inside)):
        name = min(part)
        if len(part) > 1 or (name, name) in inside:
            owner = name.rpartition("/")[0]
            yield Problem(
                node=name,
                code="instant-cycle",
                message=f"the nested graph '{owner}' passes on what arrives to itself, and nothing"
                " there takes time",
                fix="remove the edge, or put a neuron or a Delay into it",
            )


def _edge_problems(graph: Graph) -> Iterator[Problem]:
    node_shapes = shapes(graph)
    for source, target in sorted(graph.edges, key=edge_key):
        output_shape, input_shape = node_shapes[source][1], node_shapes[target][0]
        node = graph.nodes[target]
        if output_shape is None or input_shape is None or output_shape == input_shape:
            continue
        description = (
            f"node '{source}' gives the shape {output_shape}, "
            f"but node '{target}' ({node.type}) takes {input_shape}"
        )
        yield Problem(
            node=target,
            code="shape-mismatch",
            message=description,
            fix=_advice(graph, source, output_shape, input_shape),
            facts={"source": source, "gives": output_shape, "takes": input_shape},
        )
    for name, node in graph.nodes.items():
        inward, outward = node_shapes[name]
        if inward is None:
            continue
        if outward is None:
            yield from _no_output(node, inward)
        yield from _declaration_problems(node, inward)
        if node.traits.misfits is not None:
            yield from _faults(node, node.traits.misfits(node, inward))


def _declaration_problems(node: Node, inward: Shape) -> Iterator[Problem]:
    """Shapes that a node declares, against what reaches it."""
    for parameter in node.traits.parameters:
        value = node.value(parameter.name)
        if not parameter.declares_shape or value is None:
            continue
        declared = ints(value)
        if declared[len(declared) - len(inward) :] != inward:
            description = f"declares the shape {declared}, but its neighbours have {inward}"
            yield _problem(node, "shape-mismatch", description, "correct the one that is wrong")


def _no_output(node: Node, shape: Shape) -> Iterator[Problem]:
    if any(isinstance(value, str) for value in node.parameters.values()):
        return  # a padding by name, which frameworks read differently
    description = f"cannot take the shape {shape}"
    yield _problem(node, "shape-mismatch", description, "correct its size or the node before it")


def _advice(graph: Graph, source: str, output_shape: Shape, input_shape: Shape) -> str:
    if (
        len(input_shape) == 1
        and len(output_shape) > 1
        and int(np.prod(output_shape)) == input_shape[0]
    ):
        return "insert a Flatten between them"
    declared_shape = own_shape(graph.nodes[source])
    return (
        "correct the size of one of them"
        if declared_shape is not None or graph.predecessors(source)
        else "correct the Input"
    )
