"""What another simulator's importer would not read, or would read otherwise than a file means it.

Importers are those of the versions that `jaxsnn.nir.frameworks` knows. Where `jaxsnn.nir.convert.pipeline`
writes for one, its refusals and its changes say what is wrong with a file as it is; the others are
known by their rules alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from jaxsnn.errors import ConversionError, DialectError, Problem, listing
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.convert.target import Target, importer_target
from jaxsnn.nir.model.draft import TORCH_NAMES, spelt
from jaxsnn.nir.model.graph import Affine, Conv1d, Conv2d, Graph, Linear
from jaxsnn.nir.model.node import Node
from jaxsnn.nir.model.nodes import NEURONS, AvgPool2d, Input, Output, SumPool2d
from jaxsnn.nir.model.passes import is_relay

#: Codes of what a conversion mends.
_CONVERTED = ("needs-conversion", "needs-load-line")
#: Parameters that only describe what reaches a node.
_SHAPES = ("shape", "input_type", "input_shape", "start_dim", "end_dim")
#: Types whose numbers decide which spikes there are.
_DECIDING = (*NEURONS, SumPool2d, AvgPool2d, Linear, Affine, Conv1d, Conv2d)


def importer_problems(graph: Graph, target: str) -> list[Problem]:
    """All problems that a target's importer has with a graph as it is.

    Args:
        graph: Read with its dialect.
        target: A framework whose importer is known, with a version if need be: "norse", "sinabs",
            "snntorch==main". Without one, the version that is installed; else the newest release.

    Raises:
        UsageError: An unknown target.
    """
    asked = importer_target(target)
    converts = asked.importer.write is not None
    names = _name_problems(graph, asked, converts=converts) if asked.importer.torch_names else []
    if not converts:
        return [*names, *_rule_problems(graph, asked)]
    found = list(_conversion_problems(graph, target, asked))
    converted = all(problem.code in _CONVERTED for problem in found)
    unmapped = [
        _unmapped(node, asked.title, converts=converted)
        for node in graph.nodes.values()
        if not asked.importer.reads_type(node.type) and not isinstance(node, Input | Output)
    ]
    scalars = [problem for node in graph.nodes.values() for problem in _scalars(node, asked)]
    return [*unmapped, *names, *scalars, *found]


def undecided(graph: Graph) -> Problem:
    """The problem of a graph whose dialect nobody knows."""
    dialect = graph.dialect
    why = f" ({dialect.why.rstrip(' .')})" if dialect.why else ""
    message = f"the dialect of the file is undecided{why}"
    return Problem(code="not-said", message=message, fix=dialect.fix)


def _unmapped(node: Node, title: str, *, converts: bool) -> Problem:
    message = f"node '{node.name}' is a {node.type}, which {title}'s importer does not map"
    fix = "convert the file" if converts else "replace the node"
    return Problem(node=node.name, code="unmapped-node", message=message, fix=fix)


def _name_problems(graph: Graph, target: Target, *, converts: bool) -> Iterator[Problem]:
    """Names under which PyTorch registers no module, or two as one."""
    first: dict[str, str] = {}
    for name in graph.nodes:
        other = first.setdefault(spelt(name), name)
        if other != name:
            message = f"{target.title}'s importer takes node '{name}' for node '{other}'"
            fix = "rename it, or convert the file" if converts else "rename it"
            yield Problem(node=name, code="taken-name", message=message, fix=fix)
        if name.rpartition("/")[2] in TORCH_NAMES:
            message = (
                f"node '{name}' is named as an attribute of PyTorch's modules, "
                f"and {target.title}'s importer fails on it"
            )
            fix = "rename it, or convert the file" if converts else "rename it"
            yield Problem(node=name, code="taken-name", message=message, fix=fix)


def _conversion_problems(graph: Graph, target: str, asked: Target) -> Iterator[Problem]:
    """What stands in the way of a conversion; else what it changes, which the importer would read
    otherwise.
    """
    title = asked.title
    if graph.dialect.name is None:
        yield undecided(graph)
        return
    try:
        converted = convert(graph, to=target)
    except (ConversionError, DialectError) as error:
        # A conversion may refuse a node that it has added.
        node = error.node if error.node in graph.nodes else ""
        yield dataclasses.replace(error.problem, node=node)
        return
    if converted.graph.dialect.name is not None:
        yield from _told_problems(graph, converted.graph, target, asked)
    for change in converted.changes:
        name = _original(graph, change.node)
        node = None if name is None else graph.nodes[name]
        if (
            node is not None
            and node.traits.state
            and _same_numbers(graph, converted.graph, change.node)
        ):
            continue
        where = f"node '{name or change.node}': " if change.node else ""
        yield Problem(
            node=name or "",
            code="needs-conversion",
            severity="error" if isinstance(node, _DECIDING) else "warning",
            message=f"{where}{title}'s importer needs another file, {change.what} ({change.why})",
            fix=f'convert the file with to="{target}"',
        )


def _told_problems(graph: Graph, converted: Graph, target: str, asked: Target) -> Iterator[Problem]:
    """Resets that no file holds, and that the importer takes for another."""
    taken = asked.importer.reads
    for name in converted.neurons:
        view, original = converted.dialect.at(name), _original(graph, name)
        meant = {"reset": view.reset, "reset_delay": view.reset_delay}
        conventions = converted.dialect.conventions
        counts = "" if conventions is None else conventions.spikes_option
        if counts:
            meant[counts] = converted.dialect.option(counts, name)
        other = {key: value for key, value in meant.items() if taken.get(key, value) != value}
        if original is None or not other:
            continue
        key, value = next(iter(other.items()))
        message = (
            f"node '{original}' needs {key}={value}, which is in no file, "
            f"and {asked.title}'s importer takes {taken[key]}"
        )
        fix = f'convert the file with to="{target}", and load it with the line that this gives'
        yield Problem(node=original, code="needs-load-line", message=message, fix=fix)


def _original(graph: Graph, name: str) -> str | None:
    """The node that a conversion, which writes nested graphs flat, has under a name; None for one
    that it added.
    """
    if name in graph.nodes:
        return name
    if len(graph.subgraphs) == 1:
        return None  # nothing is nested, and all names are what they were
    found = [
        known
        for known in graph.nodes
        if name in (known.rpartition("/")[2], known.replace("/", "."))
    ]
    return found[0] if len(found) == 1 else None


def _same_numbers(before: Graph, after: Graph, name: str) -> bool:
    """Whether a node and what feeds it kept their numbers, up to the rounding of float32."""
    old, new = _original(before, name), _original(after, name)
    if old is None or new is None:
        return False
    one, other = (
        [graph.nodes[node] for node in (found, *_feeders(graph, found))]
        for graph, found in ((before, old), (after, new))
    )
    return len(one) == len(other) and all(map(_close, one, other))


def _feeders(graph: Graph, name: str) -> list[str]:
    """What feeds a node, through the relays of nested graphs."""
    found: list[str] = []
    for source in graph.predecessors(name):
        found += _feeders(graph, source) if is_relay(graph.nodes[source]) else [source]
    return found


def _close(one: Node, other: Node) -> bool:
    if one.type != other.type:
        return False
    for name in (name for name in one.names if name not in _SHAPES):
        a, b = one.value(name), other.value(name)
        if isinstance(a, str) or isinstance(b, str):
            same = a is b or str(a) == str(b)
        else:
            fit = np.size(a) == np.size(b) or 1 in (np.size(a), np.size(b))
            same = fit and np.allclose(np.ravel(a), np.ravel(b), rtol=1e-5, atol=0)
        if not same:
            return False
    return True


def _rule_problems(graph: Graph, target: Target) -> Iterator[Problem]:
    importer, title = target.importer, target.title
    yield from _dialect_problems(graph, target)
    for node in graph.nodes.values():
        if isinstance(node, Input | Output):
            continue
        if not importer.reads_type(node.type):
            yield _unmapped(node, title, converts=False)
            continue
        parameter, taken = importer.ignores.get(node.type, ("", 0.0))
        if parameter and np.any(other := np.ravel(node.value(parameter)) != taken):
            value = np.ravel(node.value(parameter))[other][0]
            message = (
                f"node '{node.name}' ({node.type}) has {parameter} = {value:g}, "
                f"which {title}'s importer ignores, it takes {taken:g}"
            )
            yield Problem(
                node=node.name,
                code="ignored",
                message=message,
                fix="fold it into the weights before it",
            )
        yield from _scalars(node, target)
        if importer.remarks is not None:
            yield from importer.remarks(node, graph.dialect)


def _scalars(node: Node, target: Target) -> Iterator[Problem]:
    """Parameters that are one number for all neurons, where the importer fails on them."""
    found = [
        name for name, value in node.parameters.items() if node.traits.state and np.ndim(value) == 0
    ]
    if found and not target.importer.scalars:
        message = (
            f"node '{node.name}' ({node.type}): {listing(found)} are one number for all neurons"
        )
        fix = f"give one for each neuron, {target.title}'s importer fails otherwise"
        yield Problem(node=node.name, code="scalar", message=message, fix=fix)


def _dialect_problems(graph: Graph, target: Target) -> Iterator[Problem]:
    """Numbers mean what the importer takes them for in files of its own framework only."""
    dialect = graph.dialect
    if target.framework is not None and dialect.name == target.framework.name:
        return
    if dialect.name is None:
        yield undecided(graph)
        return
    message = f"the file is in the dialect {dialect.name}, and {target.title} reads it as its own"
    yield Problem(
        node="",
        code="other-dialect",
        message=message,
        fix=f"there is no conversion to {target.title} so far",
    )
