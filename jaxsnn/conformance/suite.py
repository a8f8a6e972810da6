"""Asking the cells: what a framework computes, what its files say, and the verdict."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxsnn.conformance.adapter import Adapter, NotApplicableError
from jaxsnn.conformance.cells import ROLES, Cell, Role, cells
from jaxsnn.conformance.comparison import (
    VERDICTS,
    Answer,
    FrameworkError,
    VerdictName,
    capture_output,
    explain,
    parse_exported,
    time_limit,
    write_and_read,
)
from jaxsnn.conformance.networks import NetworkSpec, graph_of
from jaxsnn.errors import first_line
from jaxsnn.nir.graphs.export import export
from jaxsnn.nir.model.graph import Graph

#: Time steps and samples of a run.
STEPS, BATCH = 40, 4
#: Longest duration of one call of an adapter, in seconds.
TIME_LIMIT = 30.0
#: Verdicts of an importer, the worst first.
_SEVERITY: tuple[VerdictName, ...] = ("wrong", "crash", "refused", "not applicable", "pass")
#: Seeds and factors of the weights that are tried until the share of spikes in the output is in a
#: range: networks that never fire prove nothing.
_ATTEMPTS, _ACTIVE = ((0, 1.0), (0, 0.2), (0, 5.0), (1, 1.0), (2, 1.0)), (0.02, 0.9)


@dataclass(frozen=True, kw_only=True, eq=False)
class CellOutcome:
    """One cell, what was run, and the answer.

    Attributes:
        cell: the question.
        network: the network.
        x: inputs (time, batch, *shape).
        answer: the verdict and its reason.
    """

    cell: Cell
    network: NetworkSpec
    x: np.ndarray
    answer: Answer


@dataclass(frozen=True, kw_only=True, eq=False)
class ConformanceReport:
    """All answers of one framework.

    Attributes:
        framework, version: name and version of the framework.
        outcomes: answers in the order of the cells.
    """

    framework: str
    version: str
    outcomes: tuple[CellOutcome, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Number of answers by verdict."""
        verdicts = [outcome.answer.verdict for outcome in self.outcomes]
        return {verdict: verdicts.count(verdict) for verdict in VERDICTS}

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong and nothing crashes."""
        return not (self.counts["wrong"] or self.counts["crash"])


def run(
    adapter: Adapter,
    *,
    roles: Sequence[Role] = ROLES,
    full: bool = False,
    only: str = "",
    progress: Callable[[CellOutcome], None] | None = None,
) -> ConformanceReport:
    """Ask all cells.

    Args:
        adapter: access to the framework.
        roles: what is tested.
        full: whether to ask the cells of complete runs, too.
        only: part of the names of the cells to ask.
        progress: called with each outcome.
    """
    outcomes = []
    for cell in cells(adapter.resets, full=full):
        if cell.role not in roles or only not in cell.name:
            continue
        outcomes.append(run_cell(adapter, cell))
        if progress is not None:
            progress(outcomes[-1])
    version = importlib.metadata.version(adapter.distribution)
    return ConformanceReport(framework=adapter.name, version=version, outcomes=tuple(outcomes))


def run_cell(adapter: Adapter, cell: Cell, seed: int = 0) -> CellOutcome:
    """Ask one cell, with the first network for which the framework or the literal reading fires neither
    never nor always; without one, with the first network whose verdict is not "pass".
    """
    outcomes = []
    for number, strength in _ATTEMPTS:
        network = cell.network(seed + number, strength)
        x = inputs_of(network, seed + number)
        answer = check_network(adapter, cell.role, network, x)
        outcomes.append(CellOutcome(cell=cell, network=network, x=x, answer=answer))
        if answer.actual is None or any(map(_is_informative, (answer.actual, answer.expected))):
            return outcomes[-1]
    return min(outcomes, key=lambda outcome: outcome.answer.verdict == "pass")


def _is_informative(y: np.ndarray | None) -> bool:
    """Return whether outputs contain spikes and pauses, or are membrane potentials."""
    if y is None:
        return False
    return not np.isin(y, (0, 1)).all() or bool(_ACTIVE[0] <= y.mean() <= _ACTIVE[1])


def inputs_of(network: NetworkSpec, seed: int) -> np.ndarray:
    """Return random input spikes, (time, batch, *shape)."""
    rng = np.random.default_rng([seed, 1])
    return (rng.random((STEPS, BATCH, *network.shape)) < 0.4).astype(np.float32)


def check_network(adapter: Adapter, role: Role, network: NetworkSpec, x: np.ndarray) -> Answer:
    """Return what a framework does with one network.

    Args:
        adapter: access to the framework.
        role: "export": what the exporter writes for a module, run by the reference, is compared with
            the module. "import": what the importer makes of a file is compared with the file, run by
            the reference. "round trip": what the importer makes of an exported module is compared
            with the module, if no convention explains both.
        network: the network.
        x: inputs (time, batch, *shape).
    """
    try:
        with capture_output() as log:
            literal = graph_of(network, adapter.dt)
            file = _as_nir(literal)
            if role == "import":
                return log.with_warning(_check_importer(adapter, literal, file, x))
            module = _call(adapter, "build", adapter.build, network)
            expected = _call(adapter, "run", adapter.run, module, x)
            written = _call(adapter, "export", adapter.export, module, network)
            graph = parse_exported(written)
            exported = explain(graph, x, expected, adapter.dt)
            if role == "export" or exported.verdict != "pass":
                return log.with_warning(exported)
            imported = _check_importer(adapter, graph, written, x)
            if imported.actual is not None and np.array_equal(imported.actual, expected):
                return log.with_warning(
                    Answer(verdict="pass", expected=expected, actual=imported.actual)
                )
            return log.with_warning(dataclasses.replace(imported, exported=exported.convention))
    except NotApplicableError as error:
        return Answer(verdict="not applicable", reason=str(error))
    except FrameworkError as failure:
        return failure.answer


def _as_nir(graph: Graph) -> Any:
    """Return a graph as nir reads it; what nir itself rejects tells nothing about a framework."""
    try:
        return write_and_read(export(graph))
    except Exception as error:
        raise NotApplicableError(f"nir rejects this network: {first_line(error)}") from error


def _check_importer(adapter: Adapter, graph: Graph, file: Any, x: np.ndarray) -> Answer:
    """Return what an importer makes of a graph, whose edges it reads in two orders."""
    answers: list[Answer] = []
    for reverse in (False, True):
        ordered = write_and_read(file, reverse=reverse)
        try:
            imported = _call(adapter, "import", adapter.import_graph, ordered)
            actual = _call(adapter, "run", adapter.run, imported, x)
        except FrameworkError as error:
            answers.append(error.answer)
            continue
        if answers and answers[0].actual is not None and np.array_equal(answers[0].actual, actual):
            return answers[0]
        answers.append(explain(graph, x, actual, adapter.dt))
    worst = min(answers, key=lambda answer: _SEVERITY.index(answer.verdict))
    if answers[0].verdict == answers[1].verdict:
        return worst
    return dataclasses.replace(worst, reason=f"in one of two orders of the edges: {worst.reason}")


def _call(adapter: Adapter, stage: str, method: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of a method of an adapter.

    Raises:
        FrameworkError: the framework raises an error, or does not return.
    """
    try:
        with time_limit(TIME_LIMIT):
            return method(*arguments)
    except NotApplicableError:
        raise
    except Exception as error:
        raise FrameworkError.of(error, stage, adapter) from error
