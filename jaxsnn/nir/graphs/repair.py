"""Repairs that the reader makes in its interpretation of a file, and its warnings.

The content of the file stays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from types import MappingProxyType

import numpy as np

from jaxsnn.errors import Problem, listing
from jaxsnn.nir.dialects.inference import other_tag
from jaxsnn.nir.frameworks.registry import framework_of, later_release
from jaxsnn.nir.model.changes import Change, Edge, natural_key
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.node import Node, freeze
from jaxsnn.nir.model.nodes import Flatten, Input, Output
from jaxsnn.nir.model.passes import Shape, own_shape, shapes, transfer
from jaxsnn.options import DIALECT
from jaxsnn.wording import Text


def add_borders(graph: Graph) -> Graph:
    """Add Input nodes to a graph that has none at all, before the nodes that nothing feeds;
    likewise Output nodes.

    The added records have no `origin`, and are not written back.
    """
    added: list[Node] = []
    edges: list[Edge] = list(graph.edges)
    repairs: list[Change] = list(graph.repairs)
    node_shapes = shapes(graph)
    for kind, side in ((Input, 0), (Output, 1)):
        if (graph.inputs, graph.outputs)[side]:
            continue
        # Nodes with an incoming edge (side 0) or an outgoing edge (side 1), self-loops aside.
        connected = {edge[1 - side] for edge in graph.edges if edge[0] != edge[1]}
        for name in graph.nodes:
            if name in connected:
                continue
            shape = node_shapes[name][side]
            new = f"{kind.__name__.lower()}_{name.replace('/', '.')}"
            while new in graph.nodes:
                new += "_"
            added.append(kind(name=new, shape=None if shape is None else freeze(shape)))
            edges.append((new, name) if kind is Input else (name, new))
            verb = "feeds" if kind is Input else "follows"
            why = f"the graph has no {kind.__name__} node, and nothing {verb} '{name}'"
            repairs.append(Change(node=new, what=f"{kind.__name__} '{new}' is assumed", why=why))
    if not added:
        return graph
    nodes = dict(graph.nodes) | {node.name: node for node in added}
    ordered = {name: nodes[name] for name in sorted(nodes, key=natural_key)}
    return dataclasses.replace(
        graph,
        nodes=MappingProxyType(ordered),
        edges=tuple(edges),
        written_edges=tuple(edges),
        repairs=tuple(repairs),
    )


def findings(graph: Graph) -> Graph:
    """List the values that are read differently from how they are written, and likely mistakes of an
    exporter.
    """
    node_shapes = shapes(graph)
    repairs = [
        change for name in graph.nodes for change in _repairs_of(graph, name, node_shapes[name])
    ]
    warnings = [
        problem for name in graph.nodes for problem in _warnings_of(graph, name, node_shapes)
    ]
    return dataclasses.replace(
        graph,
        repairs=(*graph.repairs, *repairs),
        warnings=(
            *graph.warnings,
            *_version_warnings(graph),
            *_tag_warnings(graph),
            *_release_warnings(graph),
            *warnings,
        ),
    )


#: Major versions of NIR whose files are known.
_KNOWN_VERSIONS = ("0", "1")


def _version_warnings(graph: Graph) -> Iterator[Problem]:
    """Yield a warning for a version that is invalid, or later than the known ones."""
    document = graph.source if isinstance(graph.source, dict) else {}
    version = graph.version
    if version is None and "version" not in document:
        return  # the oldest files have no version
    if version is None or version.split(".")[0] not in _KNOWN_VERSIONS:
        version_text = (
            Text("is not text") if version is None else Text("is '{version}'", version=version[:40])
        )
        yield Problem(
            code="unknown-version",
            severity="warning",
            message=Text(
                "the version of NIR in the file {version_text}, and versions 0 and 1 are supported",
                version_text=version_text,
            ),
            fix="compare the graph with the source framework: later versions may use other units or conventions",
        )


def _tag_warnings(graph: Graph) -> Iterator[Problem]:
    """Yield a warning if the specified dialect is not the one that the file's tag names."""
    tagged = other_tag(graph)
    if tagged:
        yield Problem(
            code="other-dialect",
            severity="warning",
            message=Text(
                "{tagged}, but {dialect} was specified", tagged=tagged, dialect=graph.dialect.name
            ),
            fix=Text(
                "remove {dialect} to read the file as its metadata specify", dialect=DIALECT.keyword
            ),
        )


def _release_warnings(graph: Graph) -> Iterator[Problem]:
    """Yield a warning for a specified version of the framework that is unknown."""
    dialect = graph.dialect
    if dialect.name is None or (conventions := dialect.conventions) is None:
        return
    title = framework_of(dialect.name).title
    if later := later_release(title, conventions, dialect.version):
        yield Problem(
            code="unknown-release",
            severity="warning",
            message=later,
            fix=Text(
                "pass {dialect} if that version is intended",
                dialect=DIALECT.set_to(f"{dialect.name}=={conventions.version}"),
            ),
        )


def _repairs_of(
    graph: Graph, name: str, shape: tuple[Shape | None, Shape | None]
) -> Iterator[Change]:
    node = graph.nodes[name]
    inward, outward = shape
    if inward is None:
        return
    if isinstance(node, Flatten) and outward != transfer(node, inward):
        description = (
            f"start_dim {node.value('start_dim')} is read so that all axes of {inward} are joined"
        )
        yield Change(node=name, what=description, why=f"the following nodes take {outward}")
    if isinstance(node, Input | Output) and node.value("shape") is not None:
        declared = tuple(int(size) for size in np.ravel(node.value("shape")))
        if declared != inward:
            description = f"shape {declared} is read as {inward}"
            yield Change(
                node=name,
                what=description,
                why="its neighbours take no leading batch or time axes",
            )
    if (
        node.traits.elementwise
        and own_shape(node) is None
        and inward not in map(np.shape, node.parameters.values())
    ):
        description = f"{', '.join(node.parameters)} hold for all {int(np.prod(inward))} elements"
        yield Change(
            node=name,
            what=description,
            why=f"they are scalars, and its neighbours have the shape {inward}",
        )


def _warnings_of(
    graph: Graph, name: str, node_shapes: dict[str, tuple[Shape | None, Shape | None]]
) -> Iterator[Problem]:
    node = graph.nodes[name]
    yield from _edge_warnings(graph, node, node_shapes)
    if node.traits.fires and {"v_reset", "v_threshold"} <= set(node.names):
        yield from _reset_warnings(node)
    yield from _rounding_warnings(node)
    if node.extra:
        extra_names = listing(f"'{name}'" for name in node.extra)
        description = Text(
            "has {parameters}, which NIR does not define for it and nothing reads",
            parameters=extra_names,
        )
        fix = "write the parameter as NIR defines it, such as a bias in an Affine, or remove it"
        yield _warning(node, description, fix)
    if node.traits.state and node_shapes[name][1] is None:
        description = "has an unknown size: its parameters and those of its neighbours are scalars"
        yield _warning(node, description, "write its parameters as arrays of the layer's shape")


def _edge_warnings(
    graph: Graph, node: Node, node_shapes: dict[str, tuple[Shape | None, Shape | None]]
) -> Iterator[Problem]:
    """Yield warnings for edges that an exporter may have lost or merged."""
    sources, targets = (
        tuple(end for end in ends(node.name) if end != node.name)
        for ends in (graph.predecessors, graph.successors)
    )
    if isinstance(node, Output) and len({node_shapes[source][1] for source in sources}) > 1:
        source_list = ", ".join(f"'{source}' {node_shapes[source][1]}" for source in sources)
        description = Text(
            "receives different shapes, which cannot be added, from {nodes}", nodes=source_list
        )
        fix = "connect each of them to a separate Output; exporters merge the outputs of two heads, or lose a sum"
        yield _warning(node, description, fix)
    elif isinstance(node, Output) and len(sources) > 1:
        source_list = listing(f"'{source}'" for source in sources)
        description = Text("receives the sum of the outputs of {nodes}", nodes=source_list)
        fix = "if no sum is intended, use a separate Output for each; exporters merge the outputs of heads"
        yield _warning(node, description, fix)
    if not sources and not isinstance(node, Input):
        fix = "connect it or remove it; an exporter may have lost an edge"
        yield _warning(node, "has no incoming edge", fix)
    if not targets and not isinstance(node, Output):
        fix = "connect it or remove it; an exporter may have lost an edge"
        yield _warning(node, "has no outgoing edge", fix)
    stands_in = len(targets) == 1 and node.name == f"input_{targets[0]}"
    if isinstance(node, Input) and stands_in and len(graph.inputs) > 1:
        description = Text(
            "looks like a placeholder for the node that fed '{target}' in the source",
            target=targets[0],
        )
        fix = "restore that edge; nir adds an Input where an exporter lost one"
        yield _warning(node, description, fix)


def _reset_warnings(node: Node) -> Iterator[Problem]:
    reset, threshold = np.broadcast_arrays(node.value("v_reset"), node.value("v_threshold"))
    bad = reset >= threshold
    if np.any(bad):
        low, high = float(reset[bad][0]), float(threshold[bad][0])
        description = Text(
            "has v_reset = {v_reset:g}, not below v_threshold = {v_threshold:g}",
            v_reset=low,
            v_threshold=high,
        )
        fix = "lower v_reset; a neuron that is reset to its threshold fires without end"
        yield _warning(node, description, fix)


#: Largest integer up to which all integers are exact in float64.
_EXACT = 2**53


def _rounding_warnings(node: Node) -> Iterator[Problem]:
    """Yield a warning for integers that float64 cannot represent exactly."""
    for name, value in node.parameters.items():
        if isinstance(value, str) or value.dtype.kind not in "iu" or value.size == 0:
            continue
        largest = max(abs(int(value.max())), abs(int(value.min())))
        if largest > _EXACT:
            description = Text(
                "has the {parameter} {value}, an integer that float64 cannot represent exactly",
                parameter=name,
                value=largest,
            )
            yield _warning(node, description, f"keep integers below {_EXACT}, or write floats")


def _warning(node: Node, description: str, fix: str) -> Problem:
    message = Text(
        "node '{node}' ({type}) {description}",
        node=node.name,
        type=node.type,
        description=description,
    )
    return Problem(node=node.name, code="suspicious", severity="warning", message=message, fix=fix)
