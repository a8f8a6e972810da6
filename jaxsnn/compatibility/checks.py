"""`check`: all problems of a NIR file for one purpose, before anything runs. It does not load JAX."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from jaxsnn.bss2.capabilities import CHIP
from jaxsnn.bss2.examine import examine
from jaxsnn.capabilities import Capabilities, unsupported
from jaxsnn.errors import (
    DialectError,
    GraphError,
    JaxsnnError,
    LoweringError,
    Problem,
    UsageError,
    listing,
    suggestion,
)
from jaxsnn.event.capabilities import KERNELS, SIMULATION
from jaxsnn.grid.capabilities import APPROXIMATIONS, GRID
from jaxsnn.keywords import suggests_keywords
from jaxsnn.network.features import StaticNetwork, undecided_fields
from jaxsnn.network.lowering.lower_nodes import NO_NEURONS, LoweringPlan, Part, plan
from jaxsnn.network.number_ranges import beyond_type, with_reset_obstacle
from jaxsnn.network.structure import Population, Wire
from jaxsnn.nir.convert.importers import ignored_by_framework, importer_problems, undecided
from jaxsnn.nir.convert.target import importer_target
from jaxsnn.nir.dialects.resolve import resolve_neurons
from jaxsnn.nir.frameworks.registry import split_version, with_importers
from jaxsnn.nir.graphs.parse import assemble, parse, type_of
from jaxsnn.nir.io.files import Group
from jaxsnn.nir.io.reading import read_nir
from jaxsnn.nir.model.graph import Graph, refuse_no_graph
from jaxsnn.nir.model.validation import is_open, validate
from jaxsnn.summary import summarised

#: Advice on networks whose simulation treats time differently from the source framework.
MEASURE = "measure the effect with `jaxsnn fidelity`"


#: Severities, the worst first, and the maximum number of problems in the text of a report.
_SEVERITIES, _SHOWN = ("error", "warning", "note"), 8


@summarised
@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """Report of the problems of a file for one purpose.

    Attributes:
        purpose: purpose of the check, one of `purposes`.
        problems: errors, warnings and notes.
    """

    purpose: str
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no error; warnings are allowed."""
        return all(problem.severity != "error" for problem in self.problems)

    def __str__(self) -> str:
        """Return the most severe problems, at most eight, and the verdict."""
        by_severity = sorted(self.problems, key=lambda problem: _SEVERITIES.index(problem.severity))
        lines = [f"{problem.severity}: {problem}" for problem in by_severity[:_SHOWN]]
        if len(by_severity) > _SHOWN:
            lines.append(f"... and {len(by_severity) - _SHOWN} more in `problems`")
        return "\n".join([*lines, self._verdict])

    @property
    def _verdict(self) -> str:
        """Verdict with the numbers of errors and warnings."""
        errors = sum(problem.severity == "error" for problem in self.problems)
        warnings = sum(problem.severity == "warning" for problem in self.problems)
        verdict = "fine" if self.ok else "not supported"
        return f"{self.purpose}: {verdict} (errors: {errors}, warnings: {warnings})"

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-compatible dict."""
        return {
            "schema": 1,
            "ok": self.ok,
            "for": self.purpose,
            "problems": [problem.as_dict() for problem in self.problems],
        }

    def as_text(self) -> str:
        """Return human-readable text."""
        lines = [f"{problem.severity}: {problem.as_text()}" for problem in self.problems]
        return "\n".join([*lines, self._verdict])


def check_file(
    path: str | os.PathLike[str], purpose: str, **options: Any
) -> tuple[CheckReport, Graph | None]:
    """Check a NIR file for a purpose; return the report and the graph, or None if the file is not a
    graph.

    Args:
        path: the file.
        purpose: one of `purposes`.
        options: as in `jaxsnn.nir.read`.

    Raises:
        FileError: no such file, or not a NIR file.
        UsageError: an unknown purpose or option.
    """
    refuse_unknown(purpose)
    document = read_nir(path)
    problems, decided = _broken(document)
    if decided:
        return CheckReport(purpose=purpose, problems=problems), None
    try:
        graph = parse(document, **options)
    except GraphError as error:
        return CheckReport(purpose=purpose, problems=problems or (error.problem,)), None
    except DialectError as error:
        problem = replace(error.problem, code="contradiction")
        return CheckReport(purpose=purpose, problems=(problem,)), None
    return check(graph, purpose), graph


@suggests_keywords
def check(graph: Graph, purpose: str) -> CheckReport:
    """Check a graph for a purpose.

    Args:
        purpose: one of `purposes`; a framework with a version if need be, "snntorch==main".

    Raises:
        UsageError: an unknown purpose.

    >>> from jaxsnn.nir import build
    >>> graph = build.sequential(build.input(2), build.linear(3), build.cubalif(tau_mem=10e-3, tau_syn=5e-3), seed=0)
    >>> check(graph, "event").ok
    True
    """
    refuse_no_graph(graph)
    refuse_unknown(purpose)
    problems = [*validate(graph)] or [*graph.warnings, *_checker(purpose)(graph)]
    return CheckReport(purpose=purpose, problems=tuple(_once(problems)))


def refuse_unknown(purpose: str) -> None:
    """Raise UsageError for a purpose that does not exist."""
    if purpose not in _ENGINES:
        name, _ = split_version(purpose)
        if name not in with_importers():
            raise UsageError(
                f"unknown purpose of a check: '{purpose}'", fix=suggestion(purpose, purposes())
            )
        importer_target(purpose)  # refuses an unknown version


def _broken(document: Group) -> tuple[tuple[Problem, ...], bool]:
    """Return the problems that keep a document from being a graph, and whether they hold in every
    dialect.
    """
    unknown = tuple(_unknown_types(document["node"], ""))
    if unknown:
        return unknown, True
    try:
        graph = assemble(document)
    except GraphError as error:
        return (error.problem,), True
    problems = validate(graph)
    return problems, not all(is_open(problem, graph) for problem in problems)


def _unknown_types(group: Group, path: str) -> Iterator[Problem]:
    members = group.get("nodes")
    for name, entry in members.items() if isinstance(members, Group) else ():
        full = f"{path}/{name}" if path else name
        try:
            if type_of(entry, full) == "NIRGraph":
                yield from _unknown_types(entry, full)
        except GraphError as error:
            yield replace(error.problem, node=full)


def _once(problems: Iterable[Problem]) -> list[Problem]:
    """Return the problems without duplicates, in order."""
    return list(dict.fromkeys(problems))


def _for_event(graph: Graph) -> Iterator[Problem]:
    yield from _for_engine(graph, SIMULATION, KERNELS, may_be_infinite="")
    yield from _solved(graph)


def _solved(graph: Graph) -> Iterator[Problem]:
    """Yield a note if the equations of neurons are solved whose source framework is
    time-stepped.
    """
    if stepped := stepped_neurons(graph):
        yield Problem(
            code="equations",
            message=f"{graph.dialect.name} is time-stepped; here the equations of"
            f" {listing(stepped)} are solved in continuous time",
            fix=MEASURE,
            severity="note",
        )


def stepped_neurons(graph: Graph, *, stepped: bool = True) -> list[str]:
    """Return the neurons whose source framework is time-stepped; with `stepped` false, the others.

    The list is empty if the dialect is undecided.
    """
    if graph.dialect.name is None:
        return []
    return [
        name
        for name, rule in resolve_neurons(graph).items()
        if "type" not in rule.problems and rule.is_continuous != stepped
    ]


def _for_grid(graph: Graph) -> Iterator[Problem]:
    yield from _for_engine(graph, GRID, APPROXIMATIONS)


def _assumed_type() -> Any:
    """Return the floating type that `lower` uses here, without loading JAX."""
    jax = sys.modules.get("jax")
    return np.float64 if jax is not None and jax.config.jax_enable_x64 else np.float32


def _for_engine(
    graph: Graph,
    capabilities: Capabilities[StaticNetwork],
    finer: Capabilities[StaticNetwork],
    *,
    may_be_infinite: str = "v_threshold",
) -> Iterator[Problem]:
    """Yield the problems of a graph for an engine.

    Args:
        capabilities: Limits of the engine.
        finer: features that the engine approximates, or runs slowly, although it supports the
            network.
        may_be_infinite: See `beyond_type`.
    """

    def limits(wires: list[Wire], populations: Mapping[str, Population]) -> list[Problem]:
        network = StaticNetwork(wires=wires, populations=populations)
        return unsupported(network, capabilities) or unsupported(network, finer)

    ready = plan(graph)
    if not graph.neurons and not ready.late:
        yield NO_NEURONS
    if graph.dialect.name is None:
        yield undecided(graph)
        # The structure needs no dialect.
        yield from limits([ready.bare_wire(name) for name in ready.order], {})
        return
    parts: dict[str, Part | JaxsnnError] = {name: _lowered(ready, name) for name in ready.order}
    for name, part in parts.items():
        if isinstance(part, JaxsnnError):
            yield replace(part.problem, node=name, code="cannot-lower")
            continue
        range_problems = (
            beyond_type(name, *pair, _assumed_type(), may_be_infinite=may_be_infinite)
            for pair in part.parameters.items()
        )
        yield from filter(None, range_problems)
    wires = [
        ready.bare_wire(name) if isinstance(part, JaxsnnError) else part.wire
        for name, part in parts.items()
    ]
    populations = {
        name: with_reset_obstacle(part.population, part.parameters, _assumed_type())
        for name, part in parts.items()
        if isinstance(part, Part) and part.population is not None
    }
    yield from limits(wires, populations)
    yield from ignored_by_framework(graph)


def _lowered(ready: LoweringPlan, name: str) -> Part | JaxsnnError:
    try:
        return ready.part(name)
    except (LoweringError, DialectError) as error:
        return error


def _for_chip(graph: Graph) -> Iterator[Problem]:
    if graph.dialect.name is None:
        yield undecided(graph)
        yield from unsupported(graph, CHIP)
    else:
        yield from examine(graph).problems


def _for_importer(target: str) -> Callable[[Graph], Iterable[Problem]]:
    def problems(graph: Graph) -> Iterator[Problem]:
        importer_findings = importer_problems(graph, target)
        yield from importer_findings
        if graph.dialect.name is not None and any(
            problem.code == "not-said" for problem in importer_findings
        ):
            # A conversion stops at the first thing that it does not know.
            yield from _missing_information(
                graph, reported=[problem.node for problem in importer_findings]
            )

    return problems


def _missing_information(graph: Graph, reported: list[str]) -> Iterator[Problem]:
    ready = plan(graph)
    for name in graph.neurons:
        part = _lowered(ready, name)
        if name in reported or isinstance(part, JaxsnnError) or part.population is None:
            continue
        yield from undecided_fields(
            part.population, ["reset", "reset_delay", "own_option", "initial"]
        )


#: Purposes of a check, besides importers, and the functions that list the problems.
_ENGINES: Mapping[str, Callable[[Graph], Iterable[Problem]]] = MappingProxyType(
    {"event": _for_event, "grid": _for_grid, "bss2": _for_chip}
)


def purposes() -> tuple[str, ...]:
    """Return the purposes that a file can be checked for: engines, the chip, and the known
    importers.
    """
    return (*_ENGINES, *with_importers())


def _checker(purpose: str) -> Callable[[Graph], Iterable[Problem]]:
    """Return the function that lists the problems for a purpose."""
    return _ENGINES[purpose] if purpose in _ENGINES else _for_importer(purpose)
