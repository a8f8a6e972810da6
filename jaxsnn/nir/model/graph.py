"""The graph: frozen node records on a networkx.MultiDiGraph, always in the same order.

The order does not depend on the hash seed nor on the order in which a file lists its nodes: names
are sorted naturally (2 comes before 10). Nested graphs are flattened, their names joined by "/";
`subgraphs` stores the nesting, so that it can be restored.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxsnn.errors import GraphError, Problem, UsageError, listing, suggestion
from jaxsnn.nir.model.node import Node, nothing
from jaxsnn.nir.model.nodes import (
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
    Output,
    Scale,
    SumPool2d,
    Threshold,
)
from jaxsnn.nir.model.ordering import components, neighbours, sources_first

if TYPE_CHECKING:
    import networkx

    from jaxsnn.nir.model.dialect import Dialect

from jaxsnn.nir.model.changes import Change, Edge, edge_key, natural_key
from jaxsnn.wording import Text

__all__ = [
    "IF",
    "LI",
    "LIF",
    "Affine",
    "AvgPool2d",
    "Change",
    "Conv1d",
    "Conv2d",
    "CubaLI",
    "CubaLIF",
    "Delay",
    "Edge",
    "Flatten",
    "Graph",
    "I",
    "Input",
    "Linear",
    "Node",
    "Output",
    "Scale",
    "Subgraph",
    "SumPool2d",
    "Threshold",
    "edge_key",
    "natural_key",
]

#: Maximum number of names of each kind that the text of a graph lists.
_SHOWN = 6


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Subgraph:
    """One level of nesting as the file has it.

    Attributes:
        path: Names of the nested graphs from the outermost to this one, joined by "/"; "" for the
            outermost.
        nodes: Local names, including nested graphs.
        edges: Pairs of local names in the order of the file, including broken ones.
        metadata: Metadata of this level.
    """

    path: str
    nodes: tuple[str, ...]
    edges: tuple[Edge, ...]
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=nothing)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Graph:
    """NIR graph with the conventions for its interpretation, created by `jaxsnn.nir.read`,
    `jaxsnn.nir.graphs.parse` or `jaxsnn.nir.build`.

    Attributes:
        nodes: Records by name, in natural order of the names.
        edges: Pairs (source, target) in the order of the file, after flattening, as the dialect
            interprets them.
        written_edges: Edges before the repairs of the dialect.
        dialect: Conventions that the file does not specify.
        subgraphs: Levels of nesting by path; "" for the outermost.
        repairs: Entries that were read differently from the file, each with its reason.
        warnings: Entries that were read as in the file, but are probably mistakes of an exporter.
        version: Version of NIR in the file, or None.
        source: Document of the file (see `jaxsnn.nir.io.files`), from which `write` starts.
    """

    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...]
    dialect: Dialect
    subgraphs: Mapping[str, Subgraph]
    repairs: tuple[Change, ...] = ()
    warnings: tuple[Problem, ...] = ()
    version: str | None = None
    source: Any = None
    written_edges: tuple[Edge, ...] = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> Graph:
        """Return the graph itself, which is immutable."""
        return self

    def __repr__(self) -> str:
        """Return at most ten lines: the number of nodes of each type, and the shapes of Inputs,
        neurons and Outputs as in the file.
        """
        types = collections.Counter(node.type for node in self.nodes.values())
        values = [value for node in self.nodes.values() for value in node.parameters.values()]
        numbers = sum(np.size(value) for value in values if np.asarray(value).dtype.kind == "f")
        lines = [
            f"Graph({len(self.nodes)} nodes, {len(self.edges)} edges, {numbers} parameters",
            f"  dialect: {self.dialect.name or 'undecided'}",
            f"  types: {listing(f'{count} {name}' for name, count in types.most_common())}",
            f"  inputs: {listing(map(self._shown, self.inputs), _SHOWN)}",
            f"  neurons: {listing(map(self._shown, self.neurons), _SHOWN)}",
            f"  outputs: {listing(map(self._shown, self.outputs), _SHOWN)}",
        ]
        lines += [f"  repairs: {len(self.repairs)}"] if self.repairs else []
        lines += [f"  warnings: {len(self.warnings)}"] if self.warnings else []
        return "\n".join(lines) + ")"

    def _repr_html_(self) -> str | None:
        """Return HTML for notebooks: a drawing of the graph, and a table with a row for each
        node.
        """
        from jaxsnn.notebook import html_of

        rows = [("node", "type", "parameters")]
        for name in self.order():
            shaped = (
                f"{key} {tuple(np.shape(value))}"
                for key, value in self.nodes[name].parameters.items()
            )
            rows.append((name, self.nodes[name].type, ", ".join(shaped)))
        return html_of(self, rows=rows)

    def _shown(self, name: str) -> str:
        """Return a node's name, its type unless it is a port, and the shape that its parameters
        fix.
        """
        node = self.nodes[name]
        if node.traits.port:
            kind, shape = "", node.parameters.get("shape")
        else:
            kind, shape = f" {node.type}", node.traits.input_shape(node)
        sizes = "" if shape is None else f" {tuple(int(size) for size in np.ravel(shape))}"
        return f"'{name}'{kind}{sizes}"

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The metadata of the outermost graph, nested as in the file."""
        return self.subgraphs[""].metadata

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the outermost Input nodes."""
        return tuple(
            name for name, node in self.nodes.items() if isinstance(node, Input) and "/" not in name
        )

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outermost Output nodes."""
        return tuple(
            name
            for name, node in self.nodes.items()
            if isinstance(node, Output) and "/" not in name
        )

    @property
    def neurons(self) -> tuple[str, ...]:
        """Names of the nodes with a state: LIF, CubaLIF, IF, LI, CubaLI, I, extensions and registered
        types.
        """
        return tuple(name for name, node in self.nodes.items() if node.traits.state)

    @functools.cached_property
    def networkx(self) -> networkx.MultiDiGraph:
        """Graph for networkx, frozen; a node's attribute `record` is its record.

        Nodes and edges are sorted.
        """
        import networkx

        graph = networkx.MultiDiGraph()
        graph.add_nodes_from((name, {"record": node}) for name, node in self.nodes.items())
        graph.add_edges_from(sorted(self.edges, key=edge_key))
        return networkx.freeze(graph)

    def predecessors(self, name: str) -> tuple[str, ...]:
        """Return the sources of the edges that end at a node, in natural order."""
        return tuple(sorted(set(self._neighbours[0][self._existing(name)]), key=natural_key))

    def successors(self, name: str) -> tuple[str, ...]:
        """Return the targets of the edges that start at a node, in natural order."""
        return tuple(sorted(set(self._neighbours[1][self._existing(name)]), key=natural_key))

    @functools.cached_property
    def _neighbours(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """Sources and targets of each node."""
        return neighbours(self.nodes, sorted(self.edges, key=edge_key))

    def _existing(self, name: str) -> str:
        if name not in self.nodes:
            raise GraphError(
                Text("the graph has no node '{node}'", node=name), fix=suggestion(name, self.nodes)
            )
        return name

    @functools.cached_property
    def _components(self) -> tuple[tuple[str, ...], ...]:
        """Strongly connected components in topological order, ties by name."""
        sorted_parts = [
            tuple(sorted(part, key=natural_key)) for part in components(self._neighbours[1])
        ]
        parts = sorted(sorted_parts, key=lambda part: natural_key(part[0]))
        index = {name: number for number, part in enumerate(parts) for name in part}
        links = ((index[source], index[target]) for source, target in self.edges)
        between = [(source, target) for source, target in links if source != target]
        numbers = range(len(parts))
        return tuple(parts[number] for number in sources_first(numbers, between, key=int))

    def order(self) -> tuple[str, ...]:
        """Return all nodes, sources before targets, ties by name; the nodes of a cycle stand
        together, by name.
        """
        return tuple(name for part in self._components for name in part)

    def recurrent_components(self) -> tuple[tuple[str, ...], ...]:
        """Return the cycles: groups of nodes that reach each other, and nodes with an edge to
        themselves.
        """
        loops = {source for source, target in self.edges if source == target}
        return tuple(
            part for part in self._components if len(part) > 1 or not loops.isdisjoint(part)
        )

    def with_nodes(self, records: Iterable[Node] | Mapping[str, Node]) -> Graph:
        """Return the graph with some records replaced by records of the same names and types.

        Raises:
            GraphError: The graph has no node of this name, or its type differs.
        """
        changed = dict(self.nodes)
        for record in records.values() if isinstance(records, Mapping) else records:
            current = changed[self._existing(record.name)]
            if current.type != record.type:
                raise GraphError(
                    Text(
                        "node '{node}' has the type {expected}, not {actual}",
                        node=record.name,
                        expected=current.type,
                        actual=record.type,
                    ),
                    fix="keep the type",
                    node=record.name,
                )
            changed[record.name] = record
        return dataclasses.replace(self, nodes=MappingProxyType(changed))

    def written_shape(self, name: str, parameter: str) -> tuple[int, ...] | None:
        """Return the shape of a node's parameter in the file; None where the file has none."""
        *path, local = name.split("/")
        group = (self.source or {}).get("node", {})
        for nested in path:
            group = group.get("nodes", {}).get(nested, {})
        dataset = group.get("nodes", {}).get(local, {}).get(parameter)
        return None if dataset is None else np.shape(dataset.value)

    def with_dialect(self, dialect: Dialect) -> Graph:
        """Return the graph read in another dialect.

        To resolve names and options use `jaxsnn.nir.dialects.inference.resolve`.
        """
        plain = {name: node.in_file() for name, node in self.nodes.items()}
        file = dataclasses.replace(self, nodes=MappingProxyType(plain))
        nodes, edges, changes = file._meant_by(dialect)
        before = file._meant_by(self.dialect)[2]
        repairs = tuple(repair for repair in self.repairs if repair not in before)
        return dataclasses.replace(
            self,
            nodes=MappingProxyType(plain | nodes),
            dialect=dialect,
            edges=edges,
            repairs=(*repairs, *changes),
        )

    def _meant_by(
        self, dialect: Dialect
    ) -> tuple[dict[str, Node], tuple[Edge, ...], tuple[Change, ...]]:
        """Return the nodes and edges as a dialect reads them, if that differs from the file, and
        the changes.
        """
        conventions = dialect.conventions
        if conventions is None:
            return {}, self.written_edges, ()
        read = dataclasses.replace(self, dialect=dialect)
        nodes: dict[str, Node] = {}
        moved_edges: dict[Edge, Edge] = {}
        changes: list[Change] = []
        for meaning in conventions.meanings:
            for meant, change in meaning(read):
                if isinstance(meant, Node):
                    nodes[meant.name] = meant
                else:
                    moved_edges[meant[0]] = meant[1]
                changes.append(change)
        edges = tuple(moved_edges.get(edge, edge) for edge in self.written_edges)
        return nodes, edges, tuple(changes)


#: Advice for objects that users pass in place of a Graph, by class name.
_WAYS = {
    "str": "read it first: jaxsnn.read(path)",
    "PosixPath": "read it first: jaxsnn.read(path)",
    "NIRGraph": "parse it first: jaxsnn.parse(graph)",
    "Network": "pass the graph from which the network was lowered, or jaxsnn.update_graph(graph, network), "
    "which has the parameters of the network",
    "Fit": "pass its attribute graph",
    "Converted": "pass its attribute graph",
}


def refuse_no_graph(value: object) -> None:
    """Refuse a value that is not a Graph.

    Raises:
        UsageError: The value is not a Graph; the fix explains how to create one.
    """
    if not isinstance(value, Graph):
        kind = type(value).__name__
        fix = _WAYS.get(
            kind, "pass a graph from jaxsnn.read, jaxsnn.from_torch or jaxsnn.nir.build"
        )
        raise UsageError(Text("an object of type {type} is not a Graph", type=kind), fix=fix)
