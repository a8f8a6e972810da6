"""`matrix`: a verdict for each node and each engine, chip and importer. It does not load JAX.

"exact": the same behaviour as in the source; an importer may need a converted file. "approximate": the
nearest supported behaviour, with a description of the loss. "unsupported": not possible, with advice.
"unknown": a conversion would have to change the node, but stopped before it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jaxsnn.bss2.netlist import LARGEST
from jaxsnn.compatibility.checks import MEASURE, check, purposes, stepped_neurons
from jaxsnn.errors import ConversionError, DialectError, Problem, listing
from jaxsnn.nir import build
from jaxsnn.nir.convert.importers import importer_problems
from jaxsnn.nir.convert.pipeline import Converted, convert
from jaxsnn.nir.frameworks.framework import Importer
from jaxsnn.nir.frameworks.registry import framework_of, split_version, writable
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.nodes import NEURONS, TYPES, Input, Output
from jaxsnn.units import parse_time
from jaxsnn.wording import for_command_line

Grade = Literal["exact", "approximate", "unknown", "unsupported"]
#: Verdicts, from best to worst.
_ORDER: tuple[Grade, ...] = ("exact", "approximate", "unknown", "unsupported")
#: Treatment of time by an engine or by the chip.
_TIMES: Mapping[str, Literal["steps", "equations"]] = {
    "grid": "steps",
    "event": "equations",
    "bss2": "equations",
}
_CELLS: Mapping[Grade, str] = {
    "exact": "exact",
    "approximate": "approx",
    "unknown": "?",
    "unsupported": "no",
}

#: Placeholder of the node in the wording of a reason.
_NODES = "\0"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Verdict on one node for one purpose.

    Attributes:
        node: Name of the node; "" for the entire graph.
        purpose: Purpose, one of `jaxsnn.compatibility.checks.purposes`.
        grade: Grade of the verdict, see the module.
        why: Loss, or the reason why the node is unsupported; for an exact verdict, the reason why
            the file must be converted, or "" if no conversion is needed.
        fix: Advice; "" if none is needed.
    """

    node: str
    purpose: str
    grade: Grade
    why: str = ""
    fix: str = ""


def _worst(grades: Iterable[Grade]) -> Grade:
    """Return the worst of some verdicts; exact if there is none."""
    severities = {_ORDER.index(grade) for grade in grades}
    return _ORDER[max(severities, default=0)]


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Table of verdicts for all nodes of a graph, or for all types of nodes.

    Attributes:
        purposes: Columns of the table.
        rows: Type of each node, by name; without a file, the names are types.
        verdicts: All verdicts; a verdict on the entire graph has the node "".
    """

    purposes: tuple[str, ...]
    rows: dict[str, str]
    verdicts: tuple[Verdict, ...]

    def grade(self, node: str, purpose: str) -> Grade:
        """Return the worst verdict on a node for a purpose."""
        return _worst(
            verdict.grade
            for verdict in self.verdicts
            if (verdict.node, verdict.purpose) == (node, purpose)
        )

    def overall(self, purpose: str) -> Grade:
        """Return the worst verdict for a purpose."""
        return _worst(verdict.grade for verdict in self.verdicts if verdict.purpose == purpose)

    @property
    def notes(self) -> tuple[str, ...]:
        """Note on the purposes that solve the equations, where there is no file whose source could
        be time-stepped.
        """
        solved = [name for name in self.purposes if _TIMES.get(name) == "equations"]
        if any(self.rows.values()) or not solved:
            return ()
        return (
            f"{', '.join(solved)}: these verdicts are for NIR's equations; neurons of files from a"
            " time-stepped framework are approximate",
        )

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-compatible dict."""
        nodes = [
            {
                "node": node,
                "type": kind,
                "verdicts": {purpose: self.grade(node, purpose) for purpose in self.purposes},
            }
            for node, kind in self.rows.items()
        ]
        reasons = [
            {
                "node": verdict.node,
                "purpose": verdict.purpose,
                "verdict": verdict.grade,
                "why": for_command_line(verdict.why),
                "fix": for_command_line(verdict.fix),
            }
            for verdict in self.verdicts
        ]
        overall = {purpose: self.overall(purpose) for purpose in self.purposes}
        return {
            "schema": 1,
            "overall": overall,
            "nodes": nodes,
            "reasons": reasons,
            "notes": list(self.notes),
        }

    def as_text(self) -> str:
        """Return human-readable text: the table, and below it the losses and the unsupported nodes."""
        table = [["node", "type", *self.purposes]]
        for node, kind in self.rows.items():
            cells = [_CELLS[self.grade(node, purpose)] for purpose in self.purposes]
            table.append([node, kind, *cells])
        of_a_file = any(self.rows.values())
        if of_a_file:
            overall_cells = [_CELLS[self.overall(purpose)] for purpose in self.purposes]
            table.append(["(all)", "", *overall_cells])
        widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]
        for purpose in self.purposes if of_a_file else ():
            changed = dict.fromkeys(
                verdict.node or "the wiring"
                for verdict in self.verdicts
                if (verdict.purpose, verdict.grade) == (purpose, "exact")
            )
            if changed:
                lines.append(f"{purpose}: convert the file first, which changes {listing(changed)}")
        return "\n".join([*lines, *(self._reasons() if of_a_file else ()), *self.notes])

    def _reasons(self) -> Iterator[str]:
        """Yield the losses and the reasons why nodes are unsupported; a line for those that differ
        only in purposes and nodes.
        """
        purposes_of: dict[tuple[Grade, str], dict[str, list[str]]] = {}
        for verdict in self.verdicts:
            if verdict.grade in ("approximate", "unsupported"):
                reason = for_command_line(verdict.why + (": " + verdict.fix if verdict.fix else ""))
                wording = (
                    reason.replace(f"node '{verdict.node}'", _NODES) if verdict.node else reason
                )
                by_node = purposes_of.setdefault((verdict.grade, wording), {})
                by_node.setdefault(verdict.node, []).append(verdict.purpose)
        for (grade, wording), by_node in purposes_of.items():
            while by_node:
                affected_purposes = max(by_node.values(), key=len)
                nodes = [
                    node for node in by_node if self._covers(by_node[node], affected_purposes, node)
                ]
                for node in nodes:
                    del by_node[node]
                subject = f"node{'s' * (len(nodes) > 1)} " + listing(f"'{node}'" for node in nodes)
                columns = listing(affected_purposes, len(self.purposes))
                yield f"{columns}, {grade}: {wording.replace(_NODES, subject)}"

    def _covers(self, purposes: list[str], affected_purposes: list[str], node: str) -> bool:
        """Return whether a reason that holds for a node and some purposes may be reported for
        `affected_purposes`: for the others the verdict on this node is unknown.
        """
        return {*purposes} <= {*affected_purposes} and all(
            purpose in purposes or self.grade(node, purpose) == "unknown"
            for purpose in affected_purposes
        )


def matrix(graph: Graph, selected_purposes: Sequence[str] = ()) -> Matrix:
    """Return the verdicts for all nodes of a graph.

    Args:
        graph: graph with its dialect.
        selected_purposes: purposes, which may have versions; (): all known purposes.

    Raises:
        UsageError: an unknown purpose.
    """
    columns = tuple(selected_purposes) or purposes()
    rows = {
        name: node.type
        for name, node in graph.nodes.items()
        if not isinstance(node, Input | Output)
    }
    verdicts: list[Verdict] = []
    for purpose in columns:
        converts = split_version(purpose)[0] in writable()
        verdicts += _converted(graph, purpose) if converts else _checked(graph, purpose)
    informative = tuple(verdict for verdict in verdicts if verdict.grade != "exact" or verdict.why)
    return Matrix(purposes=columns, rows=rows, verdicts=informative)


def _checked(graph: Graph, purpose: str) -> list[Verdict]:
    """Return verdicts from the check: errors are unsupported, warnings and a different treatment of
    time approximate; a specified dialect that differs from the file's tag is no loss.
    """
    grades: Mapping[str, Grade] = {"error": "unsupported", "warning": "approximate"}
    verdicts = [
        _of_problem(graph, problem, purpose, grades[problem.severity])
        for problem in check(graph, purpose).problems
        if problem.severity in grades and problem.code != "other-dialect"
    ]
    return [*verdicts, *_other_time(graph, purpose), *_on_the_chip(graph, purpose)]


def _on_the_chip(graph: Graph, purpose: str) -> Iterator[Verdict]:
    """Yield verdicts on weights and neurons, which no circuit reproduces exactly."""
    for name, node in graph.nodes.items() if purpose == "bss2" else ():
        if node.traits.state:
            why = "circuits deviate from their calibration, and are refractory after a spike"
            fix = "see the effect with `jaxsnn emulate`"
        elif "weight" in node.names:
            why = f"weights are rounded to integers from {-LARGEST} to {LARGEST}"
            fix = "see the rounding error with `jaxsnn map`"
        else:
            continue
        yield Verdict(
            node=name, purpose=purpose, grade="approximate", why=f"node '{name}': {why}", fix=fix
        )


def _other_time(graph: Graph, purpose: str) -> Iterator[Verdict]:
    """Yield verdicts on neurons whose source framework is time-stepped if the purpose is not, or the other
    way round; unknown for an undecided dialect.
    """
    if purpose not in _TIMES:
        return
    if graph.dialect.conventions is None:
        why = (
            "the dialect is undecided, so that it is not known whether the source framework is "
            "time-stepped"
        )
        for name in graph.neurons:
            yield Verdict(node=name, purpose=purpose, grade="unknown", why=why)
        return
    steps = _TIMES[purpose] == "steps"
    if steps:
        why = "the file describes continuous time; this simulation is time-stepped"
    else:
        why = f"{graph.dialect.name} is time-stepped; here the equations are solved in continuous time"
    for name in stepped_neurons(graph, stepped=not steps):
        yield Verdict(
            node=name,
            purpose=purpose,
            grade="approximate",
            why=f"node '{name}': {why}",
            fix=MEASURE,
        )


def _converted(graph: Graph, purpose: str) -> list[Verdict]:
    """Return verdicts on what a conversion changes, loses or refuses."""
    try:
        return _changes(graph, convert(graph, to=purpose), purpose)
    except (ConversionError, DialectError) as error:
        first = error
    try:
        approximation = convert(graph, to=purpose, approximate=True)
    except (ConversionError, DialectError) as error:
        problems = error.problem, *error.others
        refused = [_of_problem(graph, problem, purpose, "unsupported") for problem in problems]
        # of the others those are known that the importer reads as they are
        open_ = {problem.node for problem in check(graph, purpose).problems} & set(graph.nodes)
        why = "the conversion stopped before this node"
        return refused + [
            Verdict(node=name, purpose=purpose, grade="unknown", why=why)
            for name in sorted(open_ - {verdict.node for verdict in refused})
        ]
    lost = [
        Verdict(node=_row(graph, loss), purpose=purpose, grade="approximate", why=loss)
        for loss in approximation.losses
    ]
    return lost or [_of_problem(graph, first.problem, purpose, "approximate")]


def _changes(graph: Graph, conversion: Converted, purpose: str) -> list[Verdict]:
    """Return verdicts on the errors that make the importer reject the file, and that the conversion
    removes without a loss.
    """
    return [
        _of_problem(graph, problem, purpose, "exact")
        for problem in importer_problems(graph, purpose, converted=conversion)
        if problem.severity == "error"
    ]


def _row(graph: Graph, loss: str) -> str:
    """Return the node of a loss written as "NODE: what is lost"; "" if it names none."""
    name = loss.partition(": ")[0]
    flat = {path.rpartition("/")[2]: path for path in graph.nodes}
    return name if name in graph.nodes else flat.get(name, "")


def _of_problem(graph: Graph, problem: Problem, purpose: str, grade: Grade) -> Verdict:
    node = problem.node if problem.node in graph.nodes else ""
    return Verdict(node=node, purpose=purpose, grade=grade, why=problem.message, fix=problem.fix)


# Without a file


def matrix_of_types(selected_purposes: Sequence[str] = ()) -> Matrix:
    """Return verdicts for each of NIR's types, each in a small network of a framework that writes
    it.
    """
    columns = tuple(selected_purposes) or purposes()
    verdicts: list[Verdict] = []
    rows: dict[str, str] = {}
    for kind in TYPES:
        layers = _EXAMPLES.get(kind)
        if layers is None:  # Input and Output, which all have
            continue
        rows[kind] = ""
        graph = build.sequential(*layers, seed=0, **_written_by(kind))
        for purpose in columns:
            example = _in_equations(kind, layers, purpose) or graph
            for verdict in matrix(example, [purpose]).verdicts:
                node = example.nodes.get(verdict.node)
                if node is None or node.type == kind:
                    verdicts.append(dataclasses.replace(verdict, node=kind))
    return Matrix(purposes=columns, rows=rows, verdicts=tuple(verdicts))


def _in_equations(kind: str, layers: Sequence[build.Layer], purpose: str) -> Graph | None:
    """Return the example network for a purpose that solves the equations in continuous time.

    It is in NIR's dialect; for an importer, it is in the dialect of the framework, and its neurons
    have a synaptic current. None for time-stepped importers, and for neurons without such a current.
    """
    if _TIMES.get(purpose) == "equations":
        return build.sequential(*layers, seed=0, dialect="nir", time_unit="s")
    name = split_version(purpose)[0]
    importers = framework_of(name).importers if name in writable() else ()
    others = [cls.__name__ for cls in NEURONS if cls.__name__ != "CubaLIF"]
    if not importers or not importers[0].continuous or kind in others:
        return None
    with_currents = [_CURRENT if layer is _LIF else layer for layer in layers]
    if kind == "CubaLIF":
        with_currents[-1] = _CURRENT
    if _CURRENT not in with_currents:
        return None
    return build.sequential(*with_currents, seed=0, dialect=name, **_importer_options(importers[0]))


def _written_by(kind: str) -> dict[str, Any]:
    """Return the dialect options of a framework that writes a type, with its default
    conventions.
    """
    frameworks = [name for name in writable() if kind in framework_of(name).dialects[0].rules]
    framework = framework_of((frameworks or list(writable()))[0])
    importer = framework.importers[0]
    # what solves the equations has no step of its own
    step = parse_time("1ms") if importer.dt is None else importer.dt
    dt = {} if framework.dialects[0].dt is not None else {"dt": step}
    # the step that its exporter was given, where its numbers depend on that
    option = framework.dialects[0].unit_option
    unit = {} if option is None else {option.name: importer.dt}
    return {"dialect": framework.name, **unit, **_importer_options(importer), **dt}


def _importer_options(importer: Importer) -> dict[str, Any]:
    """Return the default conventions of an importer that also hold for the framework's own
    files.
    """
    excluded = ("initial", "version", "dt")
    return {key: value for key, value in importer.reads.items() if key not in excluded}


_CURRENT = build.cubalif(tau_mem="2ms", tau_syn="1ms", v_threshold=0.5)
_LIF = build.lif(tau="1ms", r=10.0, v_threshold=0.5)
_IMAGE = build.input((1, 4, 4))
_KERNEL = {
    "weight": [[[[0.3, 0.2], [0.1, 0.4]]]],
    "bias": [0.0],
    "stride": [1, 1],
    "padding": [0, 0],
    "dilation": [1, 1],
    "groups": 1,
}
_POOL = {"kernel_size": [2, 2], "stride": [2, 2], "padding": [0, 0]}
_FLAT = build.node("Flatten", start_dim=0, end_dim=-1)
#: Type of a node -> a network that contains one.
_EXAMPLES: Mapping[str, tuple[build.Layer, ...]] = {
    "Affine": (build.input(3), build.affine(2), _LIF),
    "Linear": (build.input(3), build.linear(2), _LIF),
    "Scale": (build.input(2), build.linear(2), build.scale(0.5), _LIF),
    "LIF": (build.input(3), build.linear(2), _LIF),
    "IF": (build.input(3), build.linear(2), build.integrate_and_fire()),
    "LI": (build.input(3), build.linear(2), build.li(tau="1ms")),
    "I": (build.input(3), build.linear(2), build.integrator()),
    "CubaLI": (build.input(3), build.linear(2), build.cubali(tau_mem="1ms", tau_syn="500us")),
    "CubaLIF": (
        build.input(3),
        build.linear(2),
        build.cubalif(tau_mem="1ms", tau_syn="500us", r=10.0, w_in=5.0, v_threshold=2.0),
    ),
    "Conv1d": (
        build.input((1, 6)),
        build.node(
            "Conv1d",
            weight=[[[0.3, 0.2, 0.1]]],
            bias=[0.0],
            stride=1,
            padding=0,
            dilation=1,
            groups=1,
        ),
        _LIF,
    ),
    "Conv2d": (_IMAGE, build.node("Conv2d", **_KERNEL), _LIF),
    "SumPool2d": (_IMAGE, build.node("SumPool2d", **_POOL), _LIF),
    "AvgPool2d": (_IMAGE, build.node("AvgPool2d", **_POOL), _LIF),
    "Flatten": (_IMAGE, _FLAT, build.linear(2), _LIF),
    "Threshold": (
        build.input(3),
        build.linear(2),
        build.node("Threshold", threshold=0.5),
        build.linear(2),
        _LIF,
    ),
    "Delay": (build.input(2), build.node("Delay", delay="100us"), build.linear(2), _LIF),
}
