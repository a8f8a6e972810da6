"""Description of a graph, as text and as JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from jaxsnn.errors import Problem, listing
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.node import Node
from jaxsnn.nir.model.passes import Shape, shapes, sizes, synapses
from jaxsnn.options import DIALECT
from jaxsnn.units import format_time
from jaxsnn.wording import Text, for_command_line

#: Maximum size of arrays that are listed in full.
LISTED = 4


def describe(graph: Graph) -> dict[str, Any]:
    """Return a description of a graph, ready for JSON.

    Shapes are without batch and time axes; unknown values are None. `populations` counts
    nodes with a state, `synapses` the weights that are not zero, convolutions unrolled.
    """
    node_shapes = shapes(graph)
    counts = list(synapses(graph).values())
    neurons = list(sizes(graph).values())
    return {
        "schema": 1,
        "nodes": [_node(node, node_shapes[name]) for name, node in graph.nodes.items()],
        "edges": [list(edge) for edge in graph.edges],
        "inputs": list(graph.inputs),
        "outputs": list(graph.outputs),
        "recurrent": bool(graph.recurrent_components()),
        "recurrent_components": [list(part) for part in graph.recurrent_components()],
        "nested": len(graph.subgraphs) > 1,
        "populations": len(graph.neurons),
        "neurons": _total(neurons),
        "synapses": _total(counts),
        "dialect": graph.dialect.as_dict(),
        "repairs": [change.as_dict() for change in graph.repairs],
        "warnings": [_warning(problem) for problem in graph.warnings],
        "metadata": _plain(graph.metadata),
        "nir_version": graph.version,
    }


def _warning(problem: Problem) -> dict[str, str]:
    """Return a warning for JSON, also under the keys of repairs: `what` and `why`."""
    content = problem.as_dict()
    return content | {"what": content["message"], "why": content["fix"]}


def _total(counts: list[int | None]) -> int | None:
    known_counts = [count for count in counts if count is not None]
    return sum(known_counts) if len(known_counts) == len(counts) else None


def _node(node: Node, shape: tuple[Shape | None, Shape | None]) -> dict[str, Any]:
    return {
        "name": node.name,
        "type": node.type,
        "input_shape": None if shape[0] is None else list(shape[0]),
        "output_shape": None if shape[1] is None else list(shape[1]),
        "parameters": {name: numbers(value) for name, value in node.parameters.items()},
        "metadata": _plain(node.metadata),
    }


def numbers(value: np.ndarray | str) -> dict[str, Any]:
    """Return shape, dtype and values: one value if all are equal, all values of a short array, else
    the extremes.
    """
    if isinstance(value, str):
        return {"value": value}
    entry: dict[str, Any] = {"shape": list(value.shape), "dtype": value.dtype.name}
    flat = value.ravel()
    if flat.size and np.all(flat == flat[0]):
        return entry | {"value": _number(flat[0])}
    if flat.size <= LISTED:
        return entry | {"values": [_number(number) for number in flat]}
    return entry | {
        "min": _number(flat.min()),
        "max": _number(flat.max()),
        "mean": _number(flat.mean(dtype=float)),
    }


def _number(value: Any) -> Any:
    """Return a number that JSON can represent; float32 in its shortest decimal form, infinity as
    text.
    """
    if isinstance(value, np.bool_ | np.integer):
        return value.item()
    number = float(str(value))
    return number if np.isfinite(number) else str(number)


def _plain(value: Any) -> Any:
    if hasattr(value, "items"):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return [_plain(entry) for entry in value.tolist()]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, np.bool_ | np.integer | np.floating):
        return _number(value)
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def as_json(graph: Graph) -> str:
    """Return the description as JSON, byte-identical for identical graphs."""
    return json.dumps(describe(graph), indent=2, ensure_ascii=False, allow_nan=False)


def as_text(graph: Graph) -> str:
    """Return the description as text: a table of the nodes from input to output, then the repairs
    and warnings.
    """
    content = describe(graph)
    rows = [("node", "type", "in", "out", "parameters")]
    by_name = {node["name"]: node for node in content["nodes"]}
    for node in map(by_name.__getitem__, graph.order()):
        shown = ", ".join(
            f"{name} {_shown(entry)}"
            for name, entry in node["parameters"].items()
            if name != "shape"
        )
        rows.append(
            (
                node["name"],
                node["type"],
                _dims(node["input_shape"]),
                _dims(node["output_shape"]),
                shown,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  ".join(
            [*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]
        ).rstrip()
        for row in rows
    ]
    lines += ["", f"edges: {', '.join(f'{source} -> {target}' for source, target in graph.edges)}"]
    kinds = ", ".join(kind for kind in ("recurrent", "nested") if content[kind])
    totals = (_unknown(content["neurons"]), _unknown(content["synapses"]))
    lines.append(
        f"{content['populations']} populations, {totals[0]} neurons, {totals[1]} synapses; "
        f"{kinds or 'feed-forward'}; NIR {_unknown(graph.version)}"
    )
    lines += [*_dialect_lines(graph), *_remark_lines(graph)]
    return "\n".join(lines)


def _shown(entry: dict[str, Any]) -> str:
    if "value" in entry:
        return f"{entry['value']}"
    if "values" in entry:
        return str(entry["values"])
    low, high = (
        end if isinstance(end, str) else f"{end:.4g}" for end in (entry["min"], entry["max"])
    )
    return f"{low} to {high}"


def _dims(shape: list[int] | None) -> str:
    return "?" if shape is None else "x".join(map(str, shape)) or "scalar"


def _unknown(value: Any) -> str:
    return "unknown" if value is None else str(value)


def _dialect_lines(graph: Graph) -> list[str]:
    dialect = graph.dialect
    # `why` already lists the possible dialects.
    why = (
        Text("{why} Pass {dialect}.", why=dialect.why, dialect=DIALECT.keyword)
        if dialect.name is None
        else dialect.why
    )
    lines = [
        "",
        f"dialect: {dialect.name or 'undecided'} ({dialect.decided_by})",
        f"  {for_command_line(why)}",
    ]
    shown = {
        "dt": None if dialect.dt is None else format_time(dialect.dt),
        "time unit": dialect.time_unit,
        "spike kernel": _in_general(graph, "spike_kernel"),
        "reset": _in_general(graph, "reset"),
        "initial": _in_general(graph, "initial"),
    }
    lines.append("  " + ", ".join(f"{name}: {_unknown(value)}" for name, value in shown.items()))
    for name, node_options in dialect.nodes.items():
        lines.append(
            f"  {name}: " + ", ".join(f"{field} {value}" for field, value in node_options.items())
        )
    return lines


def _in_general(graph: Graph, field: str) -> str | None:
    """Return a field of the dialect that may differ by node, for all nodes together."""
    value = getattr(graph.dialect, field)
    explicit = [name for name, options in graph.dialect.nodes.items() if field in options]
    if value is not None or not explicit:
        return value
    unknown = [
        name
        for name in graph.neurons
        if graph.nodes[name].traits.fires and graph.dialect.option(field, name) is None
    ]
    return f"by node, unknown for {listing(unknown, 3)}" if unknown else "by node"


def _remark_lines(graph: Graph) -> list[str]:
    """Return lines with the reader's repairs and warnings."""
    lines = []
    for title, remarks in (
        ("repaired when the file was read (the file is unchanged)", graph.repairs),
        ("warnings", graph.warnings),
    ):
        if remarks:
            lines += ["", f"{title}:", *(f"  {remark.as_text()}" for remark in remarks)]
    return lines
