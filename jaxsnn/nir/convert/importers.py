"""Problems that another simulator's importer has with a file: parts that it does not read, or
interprets differently.

Importers are those of the versions that `jaxsnn.nir.frameworks` knows. If `jaxsnn.nir.convert.pipeline`
can write for an importer, the refusals and changes of a conversion show the problems of the file; for
other importers, only their rules are checked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import prod
from typing import Any

import numpy as np

from jaxsnn.capabilities import Capabilities, Limit, Requirement, Row, unsupported
from jaxsnn.errors import ConversionError, DialectError, Problem
from jaxsnn.nir.convert.pipeline import Converted, convert
from jaxsnn.nir.convert.target import Target, importer_target
from jaxsnn.nir.dialects.steps import ALREADY_CONVERTED
from jaxsnn.nir.frameworks.framework import Importer
from jaxsnn.nir.frameworks.registry import framework_of
from jaxsnn.nir.graphs.export import types_refused
from jaxsnn.nir.model import features
from jaxsnn.nir.model.changes import Edge, natural_key
from jaxsnn.nir.model.dialect import Dialect
from jaxsnn.nir.model.draft import settings_of_one_number
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.loops import Order, backward_edges, late_edges, run_order
from jaxsnn.nir.model.node import Node
from jaxsnn.nir.model.nodes import Input, Output
from jaxsnn.nir.model.passes import Shape, bypass_relays, is_relay, shapes
from jaxsnn.options import TO
from jaxsnn.units import format_time
from jaxsnn.wording import Text

#: Codes of problems that a conversion solves.
_CONVERTED = ("needs-conversion", "needs-load-line")
#: Parameters that only describe the inputs of a node.
_SHAPES = ("shape", "input_type", "input_shape", "start_dim", "end_dim")
#: Relative tolerance of time constants and gains, which are recomputed from decays.
_ROUNDED = 2.0**-20


def importer_problems(
    graph: Graph, target: str, *, converted: Converted | None = None
) -> list[Problem]:
    """List all problems that a target's importer has with a graph as it is.

    Args:
        graph: Graph with its dialect.
        target: Framework, optionally with a version: "norse", "sinabs", "snntorch==main". Default:
            the installed version, or the newest release if none is installed.
        converted: Result of `convert` for the graph and the target, if available.

    Raises:
        UsageError: The target is unknown.
    """
    resolved_target = importer_target(target)
    if resolved_target.importer.write is None:
        table = capabilities_of(resolved_target, repairs=False)
        return [*_dialect_problems(graph, resolved_target), *unsupported(graph, table)]
    conversion_problems = list(_conversion_problems(graph, target, resolved_target, converted))
    repairs = all(
        problem.code in _CONVERTED for problem in conversion_problems if problem.severity == "error"
    )
    table = capabilities_of(resolved_target, repairs=repairs)
    return [*unsupported(_in_file(graph, resolved_target), table), *conversion_problems]


def capabilities_of(target: Target, *, repairs: bool) -> Capabilities[Graph]:
    """Return the unsupported features of an importer.

    Unsupported connections and rules are only detected by a conversion.

    Args:
        target: The importer.
        repairs: Whether a conversion can write the graph for the importer.
    """
    importer, title = target.importer, target.title
    rename = "rename it" if importer.write is None else "rename it, or convert the file"
    types = Limit(
        feature=features.other_types(importer.reads_type),
        code="unmapped-node",
        reason=f"{title}'s importer does not support node '{{node}}' ({{kind}})",
        fix="convert the file" if repairs else "replace the node",
    )
    name_limits: list[Limit[Graph]] = []
    if importer.torch_names:
        name_limits = [
            Limit(
                feature=features.UNREADABLE_NAME,
                code="taken-name",
                reason=f"{title}'s importer generates Python code, which spells the name of node '{{node}}' "
                "as '{spelling}'",
                fix=rename,
            ),
            Limit(
                feature=features.EQUAL_SPELLING,
                code="taken-name",
                reason=f"{title}'s importer registers nodes '{{node}}' and '{{other_name}}' under the same "
                "name",
                fix=rename,
            ),
            Limit(
                feature=features.ATTRIBUTE_NAME,
                code="taken-name",
                reason=f"node '{{node}}' has the name of an attribute of PyTorch modules, and {title}'s "
                "importer fails on it",
                fix=rename,
            ),
        ]
    # A writer can rename nodes; unsupported types then come first.
    first = [*name_limits, types] if importer.write is None else [types, *name_limits]
    limits: list[Row[Graph]] = [*first, _ignored_values(importer, title)]
    if "scalars" in importer.lacks:
        limits.append(
            Limit(
                feature=features.SCALAR_PARAMETERS,
                code="scalar",
                reason=f"node '{{node}}' ({{kind}}) has scalar parameters ({{parameters}}), and {title}'s "
                "importer needs arrays",
                fix="specify them as arrays with one entry per neuron",
            )
        )
    if importer.remarks is not None:
        limits.append(_remarks(importer, importer.remarks))
    return Capabilities(title=target.label, limits=tuple(limits))


def _ignored_values(importer: Importer, title: str) -> Limit[Graph]:
    return Limit(
        feature=features.ignored_values(importer.ignores),
        code="ignored",
        reason=f"node '{{node}}' ({{kind}}) has {{parameter}} = {{value:g}}, which {title}'s "
        "importer ignores; it uses {assumed:g}",
        fix="multiply it into the weights before the node"
        if importer.write is None
        else "convert the file, or set the parameter to the value that the importer uses",
    )


def _remarks(
    importer: Importer, remarks: Callable[[Node, Dialect], Iterator[Problem]]
) -> Requirement[Graph]:
    def problems(graph: Graph) -> Iterator[Problem]:
        for node in graph.nodes.values():
            if importer.reads_type(node.type) and not isinstance(node, Input | Output):
                yield from remarks(node, graph.dialect)

    return Requirement(
        description="Parameters that the importer rounds or interprets differently",
        problems=problems,
    )


def ignored_by_framework(graph: Graph) -> list[Problem]:
    """List the deviations of the framework of a graph's dialect from this library: parameters that
    its neurons do not have and its importer ignores, and nodes that its importer runs differently,
    if the importer alone defines the meaning of such files.

    Returns:
        Warnings, for the notes of a simulation; none if the dialect is undecided.
    """
    conventions = graph.dialect.conventions
    if conventions is None:
        return []
    framework = framework_of(conventions.name)
    if not framework.importers:
        return []
    warnings: list[Problem] = []
    if conventions.importer:
        target = f"{framework.name}=={conventions.importer}"
        problems = importer_problems(graph, target)
        # The simulation follows the settings of the line that loads the file.
        followed = ("needs-load-line", ALREADY_CONVERTED)
        warnings = [
            problem
            for problem in problems
            if problem.severity == "error" and problem.code not in followed
        ]
    else:
        importer = next(
            (
                candidate
                for candidate in framework.importers
                if candidate.version == conventions.version
            ),
            framework.importers[0],
        )
        ignored = _ignored_values(importer, framework.title)
        warnings = list(ignored.problems(graph))
        if conventions.loops_by_importer and conventions.runs_loops is not None:
            warnings += _late_biases(graph, conventions.runs_loops, framework.title)
    return [dataclasses.replace(problem, severity="warning") for problem in warnings]


def _late_biases(graph: Graph, runs: Order, title: str) -> Iterator[Problem]:
    """Yield a problem for each node with a bias in a loop that reaches its neuron from the second
    step on in an importer, and in each step here.
    """
    late = {*late_edges(graph)}
    for source, end in backward_edges(graph, run_order(graph, runs)):
        waiting = [] if (source, end) in late else [source]
        seen = set(waiting)
        while waiting:
            node = graph.nodes[waiting.pop()]
            if node.traits.state:
                continue
            if "bias" in node.names and np.any(node.value("bias")):
                yield Problem(
                    node=node.name,
                    code="ignored",
                    message=f"node '{node.name}' has a bias in a loop, which {title}'s importer omits in the "
                    f"first time step; here it reaches '{end}' in every time step",
                    fix="convert the file, or move the bias to weights outside of the loop",
                )
            before = [name for name in graph.predecessors(node.name) if name not in seen]
            waiting += before
            seen.update(before)


def undecided(graph: Graph) -> Problem:
    """Return the problem of a graph whose dialect is undecided."""
    dialect = graph.dialect
    why = Text.joined("", (dialect.why,)).without_end(" .")
    reason = Text(" ({why})", why=why) if why else ""
    message = "the dialect of the file is undecided" + reason
    return Problem(code="not-said", message=message, fix=dialect.fix)


def _conversion_problems(
    graph: Graph, target: str, resolved_target: Target, converted: Converted | None
) -> Iterator[Problem]:
    """Yield the obstacles to a conversion; if there are none, the changes by a conversion, without
    which the importer would run the file differently, or not at all.
    """
    title = resolved_target.title
    if graph.dialect.name is None:
        yield undecided(graph)
        return
    try:
        converted = converted or convert(graph, to=target)
    except (ConversionError, DialectError) as error:
        # The conversion may refuse a node that it has added and that is not in the graph.
        node = error.node if error.node in graph.nodes else ""
        yield dataclasses.replace(error.problem, node=node)
        return
    if converted.graph.dialect.name is not None:
        yield from _load_line_problems(graph, converted, target, resolved_target)
    needed = needed_changes(graph, converted, resolved_target)
    for name, changes in needed.items():
        subject = f"node '{name}'" if name else "the file"
        for change in changes:
            yield Problem(
                node=name,
                code="needs-conversion",
                message=f"{subject} needs a conversion for {title}'s importer: {change}",
                fix=Text("convert the file with {to}", to=TO.set_to(target)),
            )
    if not needed:
        yield from _loading_problems(graph, converted, resolved_target)
    for name, steps in converted.shift.items():
        if steps:
            when = "later" if steps > 0 else "earlier"
            yield Problem(
                node=name,
                code="shifted",
                severity="warning",
                message=f"node '{name}': spikes are {abs(steps)} dt {when} than in the source framework, "
                "because layers of only one of the two frameworks delay spikes by one time step",
                fix="shift spike trains by this number of time steps before you compare them",
            )


def _loading_problems(
    graph: Graph, converted: Converted, resolved_target: Target
) -> Iterator[Problem]:
    """Yield a warning for each argument that must be passed to load a file as it is."""
    title, dt = resolved_target.title, converted.graph.dialect.dt
    if dt is not None and dt != resolved_target.importer.dt and f"dt={dt!r}" in converted.load_with:
        yield Problem(
            code="needs-load-line",
            severity="warning",
            message=f"{title}'s importer uses dt = {format_time(resolved_target.importer.dt or 0)} by "
            f"default, and the file needs dt = {format_time(dt)}",
            fix=f"pass {dt!r} to the importer as its time step",
        )
    if (refused := types_refused(graph)) is not None:
        yield Problem(
            code="needs-load-line",
            severity="warning",
            message="nir.read infers shapes that differ from those of the file "
            f"({refused.splitlines()[0]})",
            fix="read it with nir.read(path, type_check=False)",
        )


# Changes by a conversion


def needed_changes(graph: Graph, converted: Converted, target: Target) -> dict[str, list[str]]:
    """Describe all changes by a conversion that affect the importer.

    The file and the converted graph are compared: nodes, numbers, edges, nesting and, if an
    importer's loops and sums depend on it, the order in which it runs the nodes. If all of these are
    equal, the importer creates the same module from both.

    Args:
        graph: The source.
        converted: Result of `convert`.
        target: The importer that it was written for.

    Returns:
        Descriptions by node of the source; "" for the whole graph.
    """
    before, after = _in_file(graph, target), converted.graph
    written_names = {
        name: converted.names[name] for name in before.nodes if name in converted.names
    }
    described = _described(before, converted)
    descriptions: dict[str, list[str]] = {}

    def note(name: str, changes: Iterable[str], otherwise: str) -> None:
        texts = descriptions.setdefault(name, [])
        texts += [text for text in changes or [otherwise] if text not in texts]

    sizes = shapes(before)
    is_own = target.framework is not None and graph.dialect.name == target.framework.name
    gone = [
        name
        for name, node in before.nodes.items()
        if name not in written_names and not is_relay(node)
    ]
    for name in gone:
        note(name, described.get(name, []), "it is removed")
    for name, written in written_names.items():
        arrays = [setting for setting, _ in settings_of_one_number(graph, name)]
        differs = f"its {arrays[0]} becomes a scalar" if arrays else ""
        differs = differs or _difference(
            before.nodes[name], after.nodes[written], sizes[name], target, is_own=is_own
        )
        if differs:
            # `convert` notes changes of weights at the neuron that they feed.
            fed = [end for end in _onward(before, name) if end in described]
            owner = name if name in described or not fed else fed[0]
            note(owner, described.get(owner, []), differs)
        elif name.count("/") != written.count("/") or (
            name != written and "/" not in name and target.importer.order != "names"
        ):
            texts = described.get(name) or described.get(written, [])
            note(name, texts, f"it is renamed to '{written}'")
    added = after.nodes.keys() - written_names.values()
    for written in sorted(added, key=natural_key):
        if not is_relay(after.nodes[written]):
            owner = _neighbour(after, written, {new: old for old, new in written_names.items()})
            texts = [f"'{written}' is added, {text}" for text in described.get(written, [])]
            note(owner, texts, f"'{written}' is added")
    if not descriptions:
        for name, text in _wiring_differences(before, after, written_names, target):
            note(name, [], text)
    order = {name: place for place, name in enumerate(before.nodes)}
    return dict(sorted(descriptions.items(), key=lambda item: order.get(item[0], -1)))


def _in_file(graph: Graph, target: Target) -> Graph:
    """Return the graph with the numbers and edges that the importer reads from the file. It
    interprets files of its own framework as the dialect does.
    """
    if target.framework is not None and graph.dialect.name == target.framework.name:
        return graph
    nodes = {name: node.in_file() for name, node in graph.nodes.items()}
    return dataclasses.replace(graph, nodes=nodes, edges=graph.written_edges or graph.edges)


def _described(graph: Graph, converted: Converted) -> dict[str, list[str]]:
    """Return the descriptions of `convert`'s changes, by node of the graph, or of the written one
    for added nodes.
    """
    descriptions: dict[str, list[str]] = {}
    for change in converted.changes:
        name = _original(graph, change.node) or converted.names.get(change.node, change.node)
        descriptions.setdefault(name, []).append(change.what + " (" + change.why + ")")
    return descriptions


def _onward(graph: Graph, name: str) -> list[str]:
    """Return the nodes that a node feeds, through the relays of nested graphs."""
    fed: list[str] = []
    for target in graph.successors(name):
        fed += _onward(graph, target) if is_relay(graph.nodes[target]) else [target]
    return fed


def _neighbour(graph: Graph, name: str, source_names: Mapping[str, str]) -> str:
    """Return the nearest node of the source graph after a node, else before it; "" for none.

    Args:
        graph: The converted graph.
        name: A node of the converted graph.
        source_names: Names in the source graph, by names in the converted graph.
    """
    for step in (graph.successors, graph.predecessors):
        waiting, seen = [name], {name}
        while waiting:
            place = waiting.pop(0)
            if place in source_names:
                return source_names[place]
            following = [neighbour for neighbour in step(place) if neighbour not in seen]
            waiting += following
            seen.update(following)
    return ""


def _difference(
    node: Node,
    written: Node,
    sizes: tuple[Shape | None, Shape | None],
    target: Target,
    *,
    is_own: bool,
) -> str:
    """Return a description of the difference between a node of the file and its conversion; "" if
    the importer sees none.

    Args:
        is_own: Whether the framework of the importer wrote the file.
    """
    if node.type == "Flatten":
        same = _joined(node, sizes[0], target.importer.counts_batch) == sizes[1]
        return "" if same else "its axes are counted differently"
    types = {node.type, written.type}
    if len(types) > 1 and not types <= {"Linear", "Affine"}:
        return f"its type becomes {written.type}"
    parameters = dict.fromkeys((*node.names, *written.names))
    # In the framework's own files, a different rounding of weights does not count as a change.
    scale = (
        float(np.abs(node.numbers("weight")).max(initial=0.0)) if "weight" in node.names else 0.0
    )
    rounded = 4 * _ROUNDED * scale if is_own else None
    ignored, _ = target.importer.ignores.get(written.type, ("", 0.0))
    for name in (name for name in parameters if name not in (*_SHAPES, ignored)):
        before, after = (_number(version, name) for version in (node, written))
        if not _readable(name, before):
            return f"its {name} becomes {np.asarray(after).dtype.name} in the byte order of this machine"
        if not _alike(name, before, after, stateful=bool(node.traits.state), rounded=rounded):
            return f"its {name} changes"
    return ""


def _joined(node: Node, shape: Shape | None, counts_batch: bool | None) -> Shape | None:
    """Return the output shape of a Flatten in an importer; None if the importer also joins the batch
    axis.

    Args:
        shape: Input shape.
        counts_batch: Whether the importer counts the batch axis in start_dim and end_dim; None: it
            joins all axes.
    """
    if shape is None or counts_batch is None:
        return None if shape is None else (prod(shape),)
    axes = [int(np.ravel(node.value(key))[0]) for key in ("start_dim", "end_dim")]
    batch = int(counts_batch)
    start, end = (axis - batch if axis >= 0 else axis + len(shape) for axis in axes)
    if not 0 <= start <= end < len(shape):
        return None
    return (*shape[:start], prod(shape[start : end + 1]), *shape[end + 1 :])


def _readable(name: str, value: Any) -> bool:
    """Return whether importers accept the type of a parameter: PyTorch accepts neither other byte
    orders nor integers as weights.
    """
    dtype = np.asarray(value).dtype
    return dtype.isnative and (dtype.kind == "f" or name not in ("weight", "bias"))


def _number(node: Node, name: str) -> Any:
    """Return a parameter; the bias of a Linear is 0."""
    return node.value(name) if name in node.names else np.zeros(1)


def _alike(
    name: str, before: Any, after: Any, *, stateful: bool, rounded: float | None = None
) -> bool:
    """Return whether a parameter has the same numbers for an importer.

    Thresholds, resets, weights and kernels must be equal in float32, in which importers compute.
    Decays are computed from time constants and gains in other ways, so that these may differ by
    rounding.

    Args:
        rounded: Absolute rounding that is ignored in addition to a relative one; None for none.
    """
    if isinstance(before, str) or isinstance(after, str):
        return str(before) == str(after)
    a, b = np.asarray(before, float), np.asarray(after, float)
    if a.shape != b.shape and 1 not in (a.size, b.size):
        if a.size != b.size or not stateful:
            return False
        a, b = a.ravel(), b.ravel()
    if stateful and name in ("r", "w_in", "tau", "tau_mem", "tau_syn"):
        return np.allclose(a, b, rtol=_ROUNDED, atol=0)
    if rounded is not None:
        return np.allclose(a, b, rtol=4 * _ROUNDED, atol=rounded)
    with np.errstate(over="ignore"):
        return bool(np.all(a.astype(np.float32) == b.astype(np.float32)))


def _wiring_differences(
    before: Graph, after: Graph, written_names: Mapping[str, str], target: Target
) -> Iterator[tuple[str, str]]:
    """Yield the nodes at which two graphs with the same nodes differ in their edges or in the order
    in which the importer runs them.
    """
    wires = {(written_names[source], written_names[end]) for source, end in bypass_relays(before)}
    source_names = {new: old for old, new in written_names.items()}
    for source, end in sorted(wires ^ {*bypass_relays(after)}):
        yield source_names[end], f"the edge to it from '{source_names[source]}' changes"
        return
    if target.importer.order == "edges" and not _sources_first(before.edges):
        yield "", "its edges are sorted so that nodes run after their inputs"
    runs = target.runs_loops
    if runs is None or any(is_relay(node) for node in before.nodes.values()):
        return
    orders = [run_order(graph, runs) for graph in (before, after)]
    late_before = {
        (written_names[source], written_names[end])
        for source, end in backward_edges(before, orders[0])
    }
    late = late_before ^ {*backward_edges(after, orders[1])}
    for source, end in sorted(late):
        yield (
            source_names[end],
            f"nodes or edges are reordered (the importer runs '{source_names[end]}' and "
            f"'{source_names[source]}' in a different order, which changes the delay between them)",
        )
        return
    last = [order[-1] for order in orders]
    if target.importer.order == "depth first" and written_names[last[0]] != last[1]:
        yield (
            last[0],
            "edges are reordered (the importer returns the output of the node that runs last, "
            f"which is '{last[0]}')",
        )


def _sources_first(edges: Iterable[Edge]) -> bool:
    """Return whether edges are listed from sources to targets: none, except in loops, is listed
    before an edge that leads to its source.
    """
    edges = tuple(edges)
    earlier_sources: set[str] = set()
    for source, end in edges:
        if end in earlier_sources and (end, source) not in edges and end != source:
            return False
        earlier_sources.add(source)
    return True


def _load_line_problems(
    graph: Graph, converted: Converted, target: str, resolved_target: Target
) -> Iterator[Problem]:
    """Yield a problem for each reset that files do not contain and that the importer interprets as
    a different one.
    """
    defaults, dialect = resolved_target.importer.reads, converted.graph.dialect
    for original in graph.neurons:
        name = converted.names.get(original)
        if name is None or not converted.graph.nodes[name].traits.state:
            continue
        view = dialect.at(name)
        expected = {"reset": view.reset, "reset_delay": view.reset_delay}
        options = () if dialect.conventions is None else dialect.conventions.options
        for option in options:
            if option.kind == "choice":
                expected[option.name] = dialect.option(option.name, name)
        differing = [key for key, value in expected.items() if defaults.get(key, value) != value]
        if not differing:
            continue
        key, value = differing[0], expected[differing[0]]
        message = (
            f"node '{original}' needs {key}={value}, which NIR files cannot contain, and "
            f"{resolved_target.title}'s importer uses {defaults[key]}"
        )
        fix = Text(
            "convert the file with {to}, and load it with the line that the conversion prints",
            to=TO.set_to(target),
        )
        yield Problem(node=original, code="needs-load-line", message=message, fix=fix)


def _original(graph: Graph, name: str) -> str | None:
    """Return the node of a graph from its name after a conversion, which flattens nested graphs; None
    for a node that the conversion added.
    """
    if name in graph.nodes:
        return name
    if len(graph.subgraphs) == 1:
        # Only the flattening of nested graphs changes names.
        return None
    matches = [
        source_name
        for source_name in graph.nodes
        if name in (source_name.rpartition("/")[2], source_name.replace("/", "."))
    ]
    return matches[0] if len(matches) == 1 else None


def _dialect_problems(graph: Graph, target: Target) -> Iterator[Problem]:
    """Yield a problem for files of other frameworks, whose numbers the importer would interpret as
    those of its own framework.
    """
    dialect = graph.dialect
    if target.framework is not None and dialect.name == target.framework.name:
        return
    if dialect.name is None:
        yield undecided(graph)
        return
    message = (
        f"the file has the dialect {dialect.name}, but {target.title} interprets all files in "
        "its own dialect"
    )
    yield Problem(
        node="",
        code="other-dialect",
        message=message,
        fix=f"adapt the parameters by hand: there is no conversion to {target.title} yet",
    )
