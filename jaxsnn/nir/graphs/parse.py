"""Parser from a file, a document or a nir.NIRGraph to a `Graph`: it flattens nested graphs, repairs
unambiguous defects, and rejects broken graphs.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from jaxsnn.errors import (
    DialectError,
    GraphError,
    Problem,
    UnsupportedNodeError,
    UsageError,
    listing,
    printable,
    suggestion,
)
from jaxsnn.files.read_limits import limit_reading
from jaxsnn.keywords import suggests_keywords
from jaxsnn.nir.dialects.dialect_names import DIALECTS
from jaxsnn.nir.dialects.inference import resolve
from jaxsnn.nir.frameworks.registry import dialect_of
from jaxsnn.nir.graphs.repair import add_borders, findings
from jaxsnn.nir.io.documents import document_of
from jaxsnn.nir.io.files import Dataset, Group, text_of
from jaxsnn.nir.io.reading import read_nir
from jaxsnn.nir.model.changes import Change, Edge, natural_key
from jaxsnn.nir.model.dialect import Dialect
from jaxsnn.nir.model.graph import Graph, Subgraph
from jaxsnn.nir.model.node import Node, Parameter
from jaxsnn.nir.model.nodes import Input, Output, class_of
from jaxsnn.nir.model.validation import is_open, validate
from jaxsnn.options import DIALECT
from jaxsnn.wording import Text

if TYPE_CHECKING:
    from jaxsnn.nir.dialects.option_keywords import DialectKeywords, FrameworkKeywords

_RESERVED = ("type", "metadata")


@suggests_keywords
def read(
    path: str | os.PathLike[str],
    *,
    dialect: str = "auto",
    dt: float | str | None = None,
    dt_export: float | str | None = None,
    time_unit: str | None = None,
    reset: Any = None,
    reset_delay: Any = None,
    norm_input: Any = None,
    spike_kernel: Any = None,
    initial: Any = None,
    readout: Any = None,
    max_bytes: int | None = None,
    read_timeout: float | None = None,
    **framework_options: Unpack[FrameworkKeywords],
) -> Graph:
    """Read a NIR file.

    A separate process reads the file within limits of time and memory, because a file may be malicious.
    With an infinite `read_timeout`, and on systems without fork, this process reads it.

    Args:
        path: Path of the file.
        dialect: Framework that wrote the file, a key of `jaxsnn.nir.dialects.dialect_names.DIALECTS`,
            if necessary with a version ("norse==main"); "auto" infers it from the file if possible.
        dt: Length of a time step of the source framework: seconds, or text such as "100us".
        dt_export: The dt that was passed to Norse's exporter.
        time_unit: Unit of the time constants: "s", "ms" or "step".
        reset: "zero", "subtract" or "none". This option and those below it, up to `initial`, may differ
            from node to node: "NODE:VALUE", a mapping from node to value, or a list of these.
        reset_delay: True if the reset takes effect one time step after the spike.
        norm_input: Sinabs: True if the input is scaled by 1 - exp(-1/tau).
        spike_kernel: "delta", or "box" of width dt.
        initial: Initial membrane potential: "zero", "v_leak" or "v_reset".
        readout: Names of spiking nodes that were trained as leaky readouts.
        max_bytes: Largest size of the decoded arrays; None: 2 GiB, or the value of JAXSNN_MAX_BYTES.
        read_timeout: Time limit for reading in seconds; None: 60 s, or that of `jaxsnn.nir.limit_reading`.
        framework_options: Options of single frameworks. Sinabs: min_v_mem (lower bound of V at the end of a time
            step, or "none") and spike_fn ("multi" or "single"); those of other frameworks are
            registered with the framework.

    Returns:
        The graph. `graph.dialect` contains the conventions of the file and their evidence,
        `graph.repairs` the deviations from the file.

    Raises:
        FileError: The file does not exist, or is not a NIR file.
        GraphError: The graph is broken; the message names the node.
        UnsupportedNodeError: A node type that is neither in NIR 1.0.8 nor registered.
        DialectError, UsageError: An option is invalid or contradicts the file, or the path has a
            wrong type.
    """
    if not isinstance(path, str | os.PathLike):
        raise UsageError(
            Text("a {type} is not a path", type=type(path).__name__),
            fix="pass the path of a NIR file; jaxsnn.parse takes a nir.NIRGraph",
        )
    options = {"dt": dt, "dt_export": dt_export, "time_unit": time_unit, "reset": reset}
    options |= {"reset_delay": reset_delay, "norm_input": norm_input, "spike_kernel": spike_kernel}
    options |= {"initial": initial, "readout": readout}
    with limit_reading(max_bytes=max_bytes, read_timeout=read_timeout):
        document = read_nir(path)
    return parse(document, dialect=dialect, **options, **framework_options)


def parse(
    source: Any, *, dialect: str | Dialect = "auto", **options: Unpack[DialectKeywords]
) -> Graph:
    """Convert a nir.NIRGraph (which is not changed) or a document of `jaxsnn.nir.io.files` to a graph.

    The options and errors are those of `read`. `dialect` may also be a `Dialect`, which is used
    unchanged.

    >>> import nir, numpy
    >>> net = nir.NIRGraph.from_list(nir.Linear(numpy.ones((3, 2))), nir.LI(*(numpy.ones(3) for _ in range(3))))
    >>> parse(net).order()
    ('input', 'linear', 'li', 'output')
    """
    graph = assemble(source)
    broken = validate(graph)
    if not all(is_open(problem, graph) for problem in broken):
        raise GraphError.of(broken)
    graph = add_borders(graph)
    if not isinstance(dialect, Dialect):
        dialect = resolve(graph, dialect, **options)
    elif options:
        raise UsageError(
            Text(
                "a Dialect already specifies {options}, which would have no effect",
                options=listing(options),
            ),
            fix="change the Dialect with dataclasses.replace instead",
        )
    meant = graph.with_dialect(dialect)
    if broken and validate(meant):
        raise GraphError.of(_with_dialects(graph, broken))
    return findings(meant)


def _with_dialects(graph: Graph, broken: tuple[Problem, ...]) -> tuple[Problem, ...]:
    """Return the problems of a graph; the first advice names the dialects in which there are none."""
    sound = [name for name in DIALECTS if _is_sound(graph, name)]
    if not sound:
        return broken
    alternative_fix = Text(
        "{fix}, or pass another {dialect} (the graph is valid in {sound})",
        fix=broken[0].fix,
        dialect=DIALECT.keyword,
        sound=listing(sound),
    )
    return (dataclasses.replace(broken[0], fix=alternative_fix), *broken[1:])


def _is_sound(graph: Graph, name: str) -> bool:
    """Return whether a graph can be read in a dialect without problems."""
    try:
        return not validate(graph.with_dialect(dialect_of(name)))
    except DialectError:
        return False


def assemble(source: Any) -> Graph:
    """Build the flattened graph of a nir.NIRGraph or a document; its numbers and shapes may be
    broken, its dialect is undecided.

    Raises:
        GraphError: The nodes and edges do not form a graph.
        UnsupportedNodeError: A node type that is neither in NIR 1.0.8 nor registered.
    """
    document = source if isinstance(source, Group) else document_of(source)
    if not isinstance(document.get("node"), Group):
        raise GraphError(
            "the document has no group 'node', so it is not a NIR graph",
            fix="pass the document that jaxsnn.nir.io.files.load returns",
        )
    flat = _Flat()
    _flatten(document["node"], "", flat)
    nodes = {name: flat.nodes[name] for name in sorted(flat.nodes, key=natural_key)}
    version = document.get("version")
    return Graph(
        nodes=MappingProxyType(nodes),
        edges=tuple(flat.edges),
        written_edges=tuple(flat.edges),
        dialect=Dialect(),
        subgraphs=MappingProxyType(flat.subgraphs),
        repairs=tuple(flat.repairs),
        version=text_of(version) if isinstance(version, Dataset) else None,
        source=document,
    )


@dataclasses.dataclass(kw_only=True)
class _Flat:
    """Nodes, edges and repairs collected in flattening."""

    nodes: dict[str, Node] = dataclasses.field(default_factory=dict)
    edges: list[Edge] = dataclasses.field(default_factory=list)
    subgraphs: dict[str, Subgraph] = dataclasses.field(default_factory=dict)
    repairs: list[Change] = dataclasses.field(default_factory=list)


def _flatten(group: Group, path: str, flat: _Flat) -> None:
    """Collect the nodes of one level, then of the levels below; edges to a nested graph go to its
    Input.
    """
    location = f"nested graph '{path}'" if path else "the graph"
    members = group.get("nodes")
    if not isinstance(members, Group):
        raise GraphError(
            Text("{location} has no group 'nodes', so it is not a NIR graph", location=location),
            fix="export it again",
            node=path,
        )
    nested = []
    # Sort naturally, so that the result does not depend on the order in the file.
    for name in sorted(members, key=natural_key):
        entry = members[name]
        full = f"{path}/{name}" if path else name
        if _in_one_line(name) != name:
            raise GraphError(
                Text(
                    "{location} has a node whose name {name} is not valid text",
                    location=location,
                    name=ascii(name),
                ),
                fix="rename it where the file was exported",
            )
        kind = type_of(entry, full)
        if kind == "NIRGraph":
            nested.append(name)
        else:
            flat.nodes[full] = record(full, kind, entry)
    raw = _edges(group.get("edges"), path, location)
    flat.subgraphs[path] = Subgraph(
        path=path,
        nodes=tuple(sorted(members, key=natural_key)),
        edges=raw,
        metadata=_plain(group.get("metadata", Group())),
    )
    for name in nested:
        _flatten(members[name], f"{path}/{name}" if path else name, flat)
    local = _repaired_edges(raw, path, tuple(members), flat)
    for source, target in local:
        start = (
            _port(members, path, source, Output, flat) if source in nested else _join(path, source)
        )
        end = _port(members, path, target, Input, flat) if target in nested else _join(path, target)
        flat.edges.append((start, end))


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def type_of(entry: Any, name: str) -> str:
    kind = entry.get("type") if isinstance(entry, Group) else None
    text = text_of(kind) if isinstance(kind, Dataset) else None
    if text is None:
        raise GraphError(
            Text("node '{node}' has no type, so it is not a NIR node", node=name),
            fix="export the file again",
            node=name,
        )
    if text == "NIRGraph":
        return text
    try:
        class_of(text)
    except UnsupportedNodeError as error:
        message = Text(
            "node '{node}' has the type {type}, which is not supported", node=name, type=text
        )
        raise UnsupportedNodeError(message, fix=error.fix, node=name) from None
    return text


def _edges(dataset: Any, path: str, location: str) -> tuple[Edge, ...]:
    if not isinstance(dataset, Dataset):
        raise GraphError(
            Text("{location} has no dataset 'edges', so it is not a NIR graph", location=location),
            fix="export it again",
            node=path,
        )
    pairs = np.asarray(dataset.value)
    if pairs.size == 0:
        return ()
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise GraphError(
            Text(
                "'edges' of {location} has the shape {shape}, and must have (number of edges, 2)",
                location=location,
                shape=pairs.shape,
            ),
            fix="export it again",
            node=path,
        )
    return tuple((_text(source), _text(target)) for source, target in pairs)


def _text(value: Any) -> str:
    """Return the name of a node in an edge. Names with line breaks or control characters are
    invalid, see above, and are only displayed.
    """
    return _in_one_line(value.decode(errors="replace") if isinstance(value, bytes) else str(value))


def _in_one_line(name: str) -> str:
    """Return a name in which control characters and line breaks are escaped."""
    plain = printable(name) == name and {"\n", "\t"}.isdisjoint(name)
    return name if plain else ascii(name)[1:-1]


def _repaired_edges(
    raw: tuple[Edge, ...], path: str, node_names: tuple[str, ...], flat: _Flat
) -> list[Edge]:
    """Return the edges of a level without duplicates; broken edges of a nested graph are repaired
    or dropped.
    """
    edges: dict[Edge, None] = {}  # a dict as an ordered set
    known_names = frozenset(node_names)
    for edge in raw:
        repaired = tuple(_repaired_name(name, path, known_names) for name in edge)
        missing = [
            name for name, full_name in zip(edge, repaired, strict=True) if full_name is None
        ]
        text = f"edge {edge[0]} -> {edge[1]}"
        if missing and not path:
            raise GraphError(
                Text(
                    "{edge} is dangling: the graph has no node '{node}'", edge=text, node=missing[0]
                ),
                fix=_nested_owner(missing[0], flat) or suggestion(missing[0], node_names),
            )
        if missing:
            side = Input if missing[0] == edge[0] else Output
            why = f"it has no node '{missing[0]}'{_likely_port(path, side, node_names, flat)}"
            flat.repairs.append(Change(node=path, what=f"{text} is left out", why=why))
            continue
        repaired_edge = (str(repaired[0]), str(repaired[1]))
        if repaired_edge != edge:
            description = f"{text} is read as {repaired_edge[0]} -> {repaired_edge[1]}"
            why = "exactly one node has that name, with or without a prefix"
            flat.repairs.append(Change(node=path, what=description, why=why))
        if repaired_edge in edges:
            description = f"{text} is counted once"
            flat.repairs.append(
                Change(
                    node=_join(path, edge[1]), what=description, why="it is listed more than once"
                )
            )
        else:
            edges[repaired_edge] = None
    return list(edges)


def _nested_owner(name: str, flat: _Flat) -> str:
    """Return advice on an edge of the outermost graph that names a node of a nested one; "" if no
    nested graph has the node, or several do.
    """
    nested_names = [
        full
        for full in flat.nodes
        if "/" in full and name in (full, full.replace("/", "."), full.rpartition("/")[2])
    ]
    if len(nested_names) != 1:
        return ""
    outer, _, inner = nested_names[0].partition("/")
    kind = type(flat.nodes[nested_names[0]])
    alike = [type(node) for full, node in flat.nodes.items() if full.startswith(f"{outer}/")]
    if kind in (Input, Output) and alike.count(kind) > 1:
        return (
            f"an edge must end at a nested graph, not at its nodes, and '{outer}' has several {kind.__name__}"
            " nodes: keep a single one, or move the nodes of the nested graph to the outer graph"
        )
    return f"connect the edge to '{outer}', the nested graph that contains '{inner}'"


def _likely_port(path: str, side: type[Node], node_names: tuple[str, ...], flat: _Flat) -> str:
    """Return a hint at the likely end of a broken edge: the only Input or Output of its graph; ""
    if there is no single one.
    """
    ports = [name for name in node_names if isinstance(flat.nodes.get(_join(path, name)), side)]
    if len(ports) != 1:
        return ""
    return f"; its only {side.__name__} is '{ports[0]}'"


def _repaired_name(name: str, path: str, node_names: frozenset[str]) -> str | None:
    """Return the node that an edge of a nested graph refers to: exporters mix names with and
    without the graph's name as prefix.
    """
    if name in node_names or not path:
        return name if name in node_names else None
    prefix = path.rpartition("/")[2] + "."
    meant = {f"{prefix}{name}", name[len(prefix) :] if name.startswith(prefix) else ""} & node_names
    return meant.pop() if len(meant) == 1 else None


def _port(members: Group, path: str, name: str, kind: type[Node], flat: _Flat) -> str:
    """Return the node inside a nested graph that an edge to it (or from it) reaches."""
    inside = _join(path, name)
    ports = [
        full
        for full, node in flat.nodes.items()
        if full.rpartition("/")[0] == inside and isinstance(node, kind)
    ]
    if len(ports) == 1:
        return ports[0]
    if ports:
        ends = listing(port.rpartition("/")[2] for port in sorted(ports, key=natural_key))
        direction = "to" if kind is Input else "from"
        raise GraphError(
            Text(
                "an edge {direction} the nested graph '{graph}' is ambiguous: the graph has "
                "{count} {type} nodes ({nodes})",
                direction=direction,
                graph=inside,
                count=len(ports),
                type=kind.__name__,
                nodes=ends,
            ),
            fix="keep a single one, or move the nodes of the nested graph to the outer graph",
            node=inside,
        )
    level = flat.subgraphs[inside]
    end = 1 if kind is Input else 0
    used = {edge[end] for edge in level.edges if edge[0] != edge[1]}
    free = [local for local in level.nodes if local not in used]
    if len(free) != 1 or _join(inside, free[0]) not in flat.nodes:
        raise GraphError(
            Text("the nested graph '{graph}' has no {type} node", graph=inside, type=kind.__name__),
            fix="add such a node, to which the edges of the nested graph can be connected",
            node=inside,
        )
    description = f"edges {'to' if kind is Input else 'from'} '{inside}' reach its node '{free[0]}'"
    direction = "incoming" if kind is Input else "outgoing"
    why = f"it has no {kind.__name__}, and only this node has no {direction} edge"
    change = Change(node=inside, what=description, why=why)
    if change not in flat.repairs:
        flat.repairs.append(change)
    return _join(inside, free[0])


def record(name: str, kind: str, entry: Group) -> Node:
    """Convert one node of a document to a record."""
    cls = class_of(kind)
    entries = {key: entry[key] for key in entry if key not in _RESERVED}
    parameters: dict[str, Any] = {
        parameter.name: _parameter(name, parameter, entries[parameter.name])
        for parameter in cls.traits.parameters
        if parameter.name in entries
    }
    return cls(
        name=name,
        origin=name,
        metadata=_plain(entry.get("metadata", Group())),
        extra=MappingProxyType({key: entries[key] for key in entries if key not in cls.names}),
        **parameters,
    )


def _parameter(name: str, parameter: Parameter, entry: Any) -> np.ndarray | str:
    key = parameter.name
    if not isinstance(entry, Dataset) or not isinstance(entry.value, np.ndarray):
        raise GraphError(
            Text(
                "node '{node}': '{parameter}' is not a dataset with a value",
                node=name,
                parameter=key,
            ),
            fix="export the file again",
            node=name,
        )
    text = text_of(entry)
    if text is not None:
        return text
    if entry.value.dtype.kind not in "biuf":
        raise GraphError(
            Text(
                "node '{node}': '{parameter}' has the type {dtype}, and must be numbers",
                node=name,
                parameter=key,
                dtype=entry.dtype,
            ),
            fix="export the file again",
            node=name,
        )
    is_scalar = parameter.may_be_scalar and entry.value.size == 1
    return entry.value.reshape(()) if is_scalar else entry.value


def _plain(group: Any) -> Mapping[str, Any]:
    """Metadata as nested mappings of text and numbers."""
    if not isinstance(group, Group):
        return MappingProxyType({})
    return MappingProxyType({key: _plain_entry(entry) for key, entry in group.items()})


def _plain_entry(entry: Any) -> Any:
    if isinstance(entry, Group):
        return _plain(entry)
    text = text_of(entry)
    if text is not None or not isinstance(entry.value, np.ndarray):
        return text
    return entry.value[()] if entry.value.shape == () else entry.value
