"""Validation of a graph: all defects at once. Nothing is repaired here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from jaxsnn.errors import GraphError, Problem, listing
from jaxsnn.nir.model.changes import edge_key
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.node import Fault, Node, Parameter, ints
from jaxsnn.nir.model.passes import Shape, is_relay, own_shape, shapes
from jaxsnn.wording import Text


def validate(graph: Graph) -> tuple[Problem, ...]:
    """Return all problems of a graph that cannot be repaired without guessing, in the order of its
    nodes.

    These are missing parameters, parameters that are NaN, infinite or out of range, shapes that do not
    match, edges into an Input or out of an Output of the outermost graph, and nested graphs whose
    Inputs and Outputs form a loop without any other node.
    """
    problems = [problem for node in graph.nodes.values() for problem in _node_problems(node)]
    problems += _border_problems(graph)
    problems += _relay_problems(graph)
    # Edges are checked only between valid nodes: wrong parameters have wrong shapes.
    return tuple(problems or _edge_problems(graph))


def is_open(problem: Problem, graph: Graph) -> bool:
    """Return whether a problem may disappear in a dialect that interprets parameters differently: learnt
    decays that are clamped, pools with named padding. Inconsistent shapes of a node remain.
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
        description = Text("has no {parameter}", parameter=parameter.name)
        fix = "NIR requires this parameter: export the file again"
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
    if not wrong:
        traits = node.traits
        wrong = [*_element_problems(node)] if traits.elementwise else []
        wrong += _faults(node, traits.problems(node)) if traits.problems is not None else ()
    yield from wrong or _infinite_problems(node)


def _value_problems(node: Node, parameter: Parameter, value: np.ndarray | str) -> Iterator[Problem]:
    name = parameter.name
    if isinstance(value, str):
        if value not in parameter.texts and name not in node.written:
            texts = "".join(f", or '{text}'" for text in parameter.texts)
            fix = f"it must contain numbers{texts}"
            yield _problem(
                node,
                "bad-parameter",
                Text("has {parameter} = '{value}'", parameter=name, value=value),
                fix,
            )
    elif parameter.single and value.size != 1:
        description = Text("has {parameter} of shape {shape}", parameter=name, shape=value.shape)
        yield _problem(node, "bad-parameter", description, "it must be a scalar")
    else:
        yield from _number_problems(node, parameter, value)


def _problem(node: Node, code: str, description: str, fix: str) -> Problem:
    return Problem(
        node=node.name,
        code=code,
        message=Text(
            "node '{node}' ({type}) {description}",
            node=node.name,
            type=node.type,
            description=description,
        ),
        fix=fix,
    )


def _faults(node: Node, faults: Iterable[Fault]) -> Iterator[Problem]:
    """Yield the faults that a node's traits report, as problems of the node."""
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
        description = _describe(name, value, bad, "not finite")
        yield _problem(node, "not-finite", description, "correct the values before export")
        return
    if parameter.positive and np.any(bad := value <= 0):
        subject = "a time constant" if parameter.is_time_constant else "it"
        description = _describe(name, value, bad, "not positive")
        yield _problem(node, "not-positive", description, f"{subject} must be greater than 0")
    if parameter.whole and value.dtype.kind == "f" and np.any(bad := value != np.round(value)):
        description = Text("has {parameter} = {first}", parameter=name, first=_first(value, bad))
        yield _problem(node, "not-whole", description, "it must be an integer")
    minimum = parameter.least
    if minimum is not None and np.any(bad := value < minimum):
        code = "not-positive" if minimum > 0 else "negative" if minimum == 0 else "too-small"
        description = Text("has {parameter} = {first}", parameter=name, first=_first(value, bad))
        yield _problem(node, code, description, f"it must be at least {minimum:g}")


def _infinite_problems(node: Node) -> Iterator[Problem]:
    """Yield problems for infinite factors of neurons with finite time constants."""
    for parameter in node.traits.parameters:
        if not parameter.tied_to:
            continue
        value = np.asarray(node.value(parameter.name), float)
        bad = np.isinf(value)
        for name in parameter.tied_to:
            bad = bad & np.isfinite(np.asarray(node.value(name), float))
        if np.any(bad):
            value = np.broadcast_to(value, bad.shape)
            fix = "it may be infinite only if its time constant is infinite"
            yield _problem(
                node, "not-finite", _describe(parameter.name, value, bad, "infinite"), fix
            )


def _describe(parameter: str, value: np.ndarray, bad: np.ndarray, condition: str) -> Text:
    """Return the number of invalid values of a parameter, and the first of them.

    Args:
        bad: Mask of the invalid values.
        condition: Property of the invalid values, such as "not finite".
    """
    if bad.size == 1:
        return Text(
            "has {parameter} = {first}, which is " + condition,
            parameter=parameter,
            first=_first(value, bad),
        )
    return Text(
        "has values of {parameter} that are "
        + condition
        + ": {count} of {size}, the first is {first}",
        parameter=parameter,
        count=int(bad.sum()),
        size=bad.size,
        first=_first(value, bad),
    )


def _first(value: np.ndarray, bad: np.ndarray) -> Text:
    """Return the first wrong number, and its index in an array."""
    index = tuple(int(place) for place in np.argwhere(bad)[0])
    if not index:
        return Text("{value:g}", value=value[index])
    shown_index = index[0] if len(index) == 1 else index
    return Text("{value:g} at index {index}", value=value[index], index=shown_index)


def _element_problems(node: Node) -> Iterator[Problem]:
    """Yield problems for parameters per element whose shapes differ or are empty."""
    named = list(node.traits.element_shapes(node).items())
    for name, shape in named[1:]:
        if shape != named[0][1]:
            description = Text(
                "has {parameter} of shape {shape} and {other_parameter} of shape {other_shape}",
                parameter=named[0][0],
                shape=named[0][1],
                other_parameter=name,
                other_shape=shape,
            )
            fix = "use the same shape for all its parameters, or scalars"
            yield _problem(node, "parameter-shapes", description, fix)
            return
    if any(0 in shape for _, shape in named):
        description = Text(
            "has {parameter} of shape {shape}", parameter=named[0][0], shape=named[0][1]
        )
        yield _problem(node, "empty", description, "it must have at least one neuron")


def _border_problems(graph: Graph) -> Iterator[Problem]:
    """Yield problems for edges into an Input or out of an Output of the outermost graph; those of
    nested graphs are relays.
    """
    for name in graph.inputs:
        if sources := graph.predecessors(name):
            description = Text(
                "receives the output of {nodes}, but it is an Input", nodes=listing(sources)
            )
            yield _problem(
                graph.nodes[name],
                "fed-input",
                description,
                "connect the edge to the targets of the Input instead",
            )
    for name in graph.outputs:
        if targets := graph.successors(name):
            description = Text("feeds {nodes}, but it is an Output", nodes=listing(targets))
            yield _problem(
                graph.nodes[name],
                "feeding-output",
                description,
                "start the edge at the inputs of the Output instead",
            )


def _relay_problems(graph: Graph) -> Iterator[Problem]:
    """Yield problems for nested graphs that feed themselves only through their Inputs and
    Outputs.
    """
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
                message=Text(
                    "the nested graph '{node}' feeds its own input, and no node in this loop has a delay "
                    "or a state",
                    node=owner,
                ),
                fix="remove the edge, or insert a neuron or a Delay",
            )


def _edge_problems(graph: Graph) -> Iterator[Problem]:
    node_shapes = shapes(graph)
    for source, target in sorted(graph.edges, key=edge_key):
        output_shape, input_shape = node_shapes[source][1], node_shapes[target][0]
        node = graph.nodes[target]
        if output_shape is None or input_shape is None or output_shape == input_shape:
            continue
        description = Text(
            "the output of node '{source}' has the shape {actual}, but node '{node}' ({type}) "
            "expects {expected}",
            source=source,
            actual=output_shape,
            node=target,
            type=node.type,
            expected=input_shape,
        )
        yield Problem(
            node=target,
            code="shape-mismatch",
            message=description,
            fix=_advice(graph, source, output_shape, input_shape),
        )
    for name, node in graph.nodes.items():
        inward, outward = node_shapes[name]
        if inward is None:
            continue
        # Frameworks interpret a named padding differently.
        has_text = any(isinstance(value, str) for value in node.parameters.values())
        if outward is None and not has_text:
            description = Text("does not support an input of shape {shape}", shape=inward)
            fix = "correct the node or the node before it"
            yield _problem(node, "shape-mismatch", description, fix)
        yield from _declaration_problems(node, inward)
        if node.traits.misfits is not None:
            yield from _faults(node, node.traits.misfits(node, inward))


def _declaration_problems(node: Node, inward: Shape) -> Iterator[Problem]:
    """Yield problems for declared shapes that differ from the shape of the input."""
    for parameter in node.traits.parameters:
        value = node.value(parameter.name)
        if not parameter.declares_shape or value is None:
            continue
        declared = ints(value)
        if declared[len(declared) - len(inward) :] != inward:
            description = Text(
                "declares the shape {actual}, but its input has the shape {expected}",
                actual=declared,
                expected=inward,
            )
            yield _problem(node, "shape-mismatch", description, "correct one of the two")


def _advice(graph: Graph, source: str, output_shape: Shape, input_shape: Shape) -> str:
    if (
        len(input_shape) == 1
        and len(output_shape) > 1
        and int(np.prod(output_shape)) == input_shape[0]
    ):
        return "insert a Flatten between them"
    declared_shape = own_shape(graph.nodes[source])
    return (
        "correct the size of one of the two nodes"
        if declared_shape is not None or graph.predecessors(source)
        else "correct the Input"
    )
