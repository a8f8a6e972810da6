"""A `Graph` back to a file or a nir.NIRGraph.

Unchanged content is written bit for bit as it was, and nothing is added.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from jaxsnn.errors import GraphError, Note, UsageError, warn_of
from jaxsnn.keywords import suggests_keywords
from jaxsnn.nir.dialects.inference import TAG, contradicts_tag, tag_text
from jaxsnn.nir.io.files import Dataset, Group, image_of, save, text_dataset, text_of
from jaxsnn.nir.model.dialect import Dialect
from jaxsnn.nir.model.extension_nodes import EXTENSION_KEY
from jaxsnn.nir.model.graph import Graph, refuse_no_graph
from jaxsnn.nir.model.node import Node
from jaxsnn.nir.model.nodes import TYPES
from jaxsnn.nir.model.validation import refuse_problems
from jaxsnn.wording import Text

if TYPE_CHECKING:
    import nir

#: Types of nodes after which nir infers shapes.
_WITH_WINDOWS = ("Conv1d", "Conv2d", "SumPool2d", "AvgPool2d", "Flatten")
#: Maximum number of entries of a matrix that replaces a sparse one: 2 GiB in float64.
MAX_DENSE_ENTRIES = 2**28
#: Exceptions that nir raises if it cannot make a graph of a document.
_REFUSALS = (AssertionError, ValueError, TypeError, KeyError, IndexError, AttributeError)


@suggests_keywords
def write(path: str | os.PathLike[str], graph: Graph, force: bool = False) -> None:
    """Write a graph as a NIR file.

    Names, edges, nesting, metadata and unchanged numbers, with their dtypes, are those of the file
    from which the graph was read. Changed numbers keep the dtype of the file if it can represent them;
    float16, which rounds to three digits, is replaced by float32. Sparse weights become dense
    matrices, of which a note gives the size.

    Raises:
        GraphError: The graph has become broken, for example by a weight that is NaN; or a sparse
            matrix is too large as a dense one, or has delays.
        FileError: The file exists and `force` is not set, or cannot be written.
        UsageError: The argument is not a graph.
    """
    if not isinstance(path, str | os.PathLike):
        kind = type(path).__name__
        raise UsageError(
            Text("a {type} is not a path", type=kind), fix="pass the path first: write(path, graph)"
        )
    refuse_no_graph(graph)
    save(path, dense_document(graph), force)
    warn_of(_dense_notes(graph))


def nir_bytes(path: str | os.PathLike[str], graph: Graph) -> bytes:
    """Return the bytes of the file that `write` would write; `path` is for messages."""
    return image_of(path, dense_document(graph))


def document_of_graph(graph: Graph) -> Group:
    """Return the document (see `jaxsnn.nir.io.files`) of a graph: its source document with all
    changes, and with the dialect if it differs from the tag's.
    """
    refuse_problems(graph)
    document = Group(graph.source, graph.source.attributes)
    document["node"] = _rebuilt(document["node"], "", graph)
    return _with_tag(document, graph.dialect) if contradicts_tag(graph) else document


def dense_document(graph: Graph) -> Group:
    """Return the document of a graph with a Linear in place of each SparseLinear.

    Raises:
        GraphError: A matrix would have more than `MAX_DENSE_ENTRIES` entries, or synapses have delays.
    """
    dense_entries = {}
    for name, node in graph.nodes.items():
        if node.type != "SparseLinear":
            continue
        shape, weight = tuple(np.ravel(node.value("shape")).tolist()), node.value("weight")
        if node.value("delay") is not None:
            raise GraphError(
                Text(
                    "node '{node}' (SparseLinear) has synaptic delays, which NIR's Linear does not "
                    "have",
                    node=name,
                ),
                fix="build it without delays, and put a Delay before it",
                node=name,
            )
        if (entries := shape[0] * shape[1]) > MAX_DENSE_ENTRIES:
            raise GraphError(
                Text(
                    "node '{node}' (SparseLinear): {count} weights become a dense matrix of "
                    "{entries} entries ({size:.1f} GiB), the limit is {limit}",
                    node=name,
                    count=weight.size,
                    entries=entries,
                    size=entries * weight.itemsize / 2**30,
                    limit=MAX_DENSE_ENTRIES,
                ),
                fix="save the sparse matrix with scipy.sparse.save_npz, and build the graph from it",
                node=name,
            )
        dense = np.zeros(shape, weight.dtype)
        np.add.at(dense, (node.value("target"), node.value("source")), weight)
        kind = text_dataset("Linear")
        dense_entries[name] = Group(
            {"type": kind, "weight": Dataset(value=dense, dtype=dense.dtype)}
        )
    document = document_of_graph(graph)
    if dense_entries:
        document["node"] = _with_entries(document["node"], "", dense_entries)
    return document


def _with_entries(group: Group, path: str, entries: Mapping[str, Group]) -> Group:
    """Return one level of nesting with other entries for some nodes."""
    members = Group({}, group["nodes"].attributes)
    for name, entry in group["nodes"].items():
        full = f"{path}/{name}" if path else name
        nested = "nodes" in entry
        members[name] = _with_entries(entry, full, entries) if nested else entries.get(full, entry)
    return Group({**group, "nodes": members}, group.attributes)


def _dense_notes(graph: Graph) -> Iterator[Note]:
    """Yield a note on the size of each sparse matrix in a file."""
    for name, node in graph.nodes.items():
        if node.type == "SparseLinear":
            weight, shape = node.value("weight"), np.ravel(node.value("shape"))
            yield Note(
                Text(
                    "node '{node}': NIR files have dense matrices only: {count} weights become "
                    "{entries} entries ({size:.3g} MiB)",
                    node=name,
                    count=weight.size,
                    entries=int(np.prod(shape, dtype=int)),
                    size=float(np.prod(shape, dtype=float)) * weight.itemsize / 2**20,
                ),
                kind="approximated",
                code="sparse-weights",
            )


def _with_tag(document: Group, dialect: Dialect) -> Group:
    """Return the document with a dialect in its metadata."""
    node = Group(document["node"], document["node"].attributes)
    metadata = {**node.get("metadata", Group()), TAG: text_dataset(tag_text(dialect))}
    node["metadata"] = Group(metadata)
    return Group({**document, "node": node}, document.attributes)


def _rebuilt(group: Group, path: str, graph: Graph) -> Group:
    """Return one level of nesting with the parameters of the graph's records."""
    members = Group({}, group["nodes"].attributes)
    for name, entry in group["nodes"].items():
        full = f"{path}/{name}" if path else name
        members[name] = (
            _patched(entry, graph.nodes[full])
            if full in graph.nodes
            else _rebuilt(entry, full, graph)
        )
    return Group({**group, "nodes": members}, group.attributes)


def _patched(entry: Group, record: Node) -> Group:
    """Return a node's group with the parameters of its record, and the mark of an extension;
    unchanged parameters keep their dataset.
    """
    patched = Group(entry, entry.attributes)
    record = record.in_file()
    for parameter in record.traits.parameters:
        name = parameter.name
        value = getattr(record, name)
        old = entry.get(name)
        if parameter.may_be_scalar and isinstance(value, np.ndarray) and value.size == 1:
            # A single number keeps the shape that it has in the file; a new one is a scalar.
            shape: tuple[int, ...] = ()
            if old is not None and isinstance(old.value, np.ndarray) and old.value.size == 1:
                shape = old.value.shape
            value = value.reshape(shape)
        if value is None:
            patched.pop(name, None)
        elif isinstance(value, str):
            if old is None or text_of(old) != value:
                patched[name] = text_dataset(value)
        elif old is None:
            patched[name] = Dataset(value=value, dtype=value.dtype)
        elif not same_array(old.value, value):
            patched[name] = _changed(old, value)
    metadata = entry.get("metadata", Group())
    if record.traits.extension and EXTENSION_KEY not in metadata:
        mark = text_dataset(record.traits.extension)
        patched["metadata"] = Group({**metadata, EXTENSION_KEY: mark})
    return patched


def same_array(a: Any, b: Any) -> bool:
    """Return whether two arrays are equal in dtype, shape and every bit."""
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
        return False
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _changed(old: Dataset, value: np.ndarray) -> Dataset:
    """Return a dataset with new numbers, in the dtype of the old ones if possible.

    Floats may be rounded; integers, booleans and float16 are replaced by a wider dtype if necessary.
    """
    dtype = old.dtype
    if dtype.kind in "biu" and not np.array_equal(value, value.astype(dtype)):
        dtype = value.dtype
    if dtype == np.float16 and not np.array_equal(value, _cast(value, dtype)):
        dtype = np.dtype(np.float32)
    if dtype.kind not in "biuf":
        dtype = value.dtype
    stored = _cast(value, dtype)
    if np.any(np.isinf(stored.astype(float)) & np.isfinite(value.astype(float))):
        dtype, stored = value.dtype, value
    if same_array(old.value, stored):
        return old
    same_shape = isinstance(old.value, np.ndarray) and old.value.shape == stored.shape
    storage = old.storage if same_shape else {}
    return Dataset(value=stored, dtype=dtype, attributes=old.attributes, storage=storage)


def _cast(value: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Convert to a dtype; a number that is too large becomes infinite, without a warning."""
    with np.errstate(over="ignore"):
        return value.astype(dtype)


def tagged(graph: Graph) -> Graph:
    """Return the graph with its dialect in the metadata, so that this library reads it again
    without options.

    The tag is optional, and other tools ignore it. Graphs that are built here have it already.
    """
    from jaxsnn.nir.graphs.parse import parse

    return parse(_with_tag(document_of_graph(graph), graph.dialect), dialect=graph.dialect)


@suggests_keywords
def export(graph: Graph) -> nir.NIRGraph:
    """Convert the graph to a nir.NIRGraph, for other tools; nodes that this library added on
    reading are omitted.

    Raises:
        GraphError: nir itself refuses the graph.

    >>> from jaxsnn.nir import build
    >>> sorted(export(build.sequential(build.input(2), build.linear(3), build.li(tau=0.01), seed=0)).nodes)
    ['1', '2', 'input', 'output']
    """
    refuse_no_graph(graph)
    for node in graph.nodes.values():
        if node.type not in TYPES:
            raise GraphError(
                Text(
                    "node '{node}' is a {type}, which the nir package does not have",
                    node=node.name,
                    type=node.type,
                ),
                fix="write it to a file instead",
                node=node.name,
            )
    try:
        return _of_nir(graph)
    except _REFUSALS as error:
        raise GraphError(
            Text("the nir package rejects this graph: {reason}", reason=str(error)),
            fix="write it to a file instead",
        ) from error


def types_refused(graph: Graph) -> str | None:
    """Return the error that nir.read raises in its default check of the types of a graph's file;
    None if there is none, or if it cannot read the graph without the check either.

    nir 1.0.8 infers wrong shapes after kernels that are not square.
    """
    if not any(node.type in _WITH_WINDOWS for node in graph.nodes.values()):
        return None  # nir takes long for graphs of many nodes
    try:
        _of_nir(graph)
    except _REFUSALS:
        return None
    try:
        _of_nir(graph, type_check=True)
    except _REFUSALS as error:
        return str(error)
    return None


def _of_nir(graph: Graph, **reader_options: bool) -> nir.NIRGraph:
    """Return the graph as nir.read would load it from a file with `reader_options`."""
    import nir

    # nir changes the dicts that it receives
    tree = _values(document_of_graph(graph)["node"])
    return cast("nir.NIRGraph", nir.dict2NIRNode(tree | reader_options))


def _values(group: Group) -> dict[str, Any]:
    """Return a document as plain dicts, as nir.read loads them from a file, with settings that keep
    nir from adding nodes.
    """
    tree = {
        name: _values(entry) if isinstance(entry, Group) else _value(entry)
        for name, entry in group.items()
    }
    return tree | {"type_check": False} if tree.get("type") == "NIRGraph" else tree


def _value(dataset: Dataset) -> Any:
    text = text_of(dataset)
    if text is not None:
        return text
    value = dataset.value
    if not isinstance(value, np.ndarray):
        return None
    # nir takes scalars out of their arrays; arrays are copied because ours are read-only.
    return value[()] if value.shape == () else np.array(value)
