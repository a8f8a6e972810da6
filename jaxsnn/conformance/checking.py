"""One network: what a framework computes, what its files say, and the verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxsnn.conformance.adapter import Adapter, NotApplicableError
from jaxsnn.conformance.cells import Role
from jaxsnn.conformance.comparison import (
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

#: Longest processor time of one call of an adapter, in seconds.
TIME_LIMIT = 30.0
#: Verdicts of an importer, the worst first.
_SEVERITY: tuple[VerdictName, ...] = ("wrong", "crash", "refused", "not applicable", "pass")


def check_network(
    adapter: Adapter,
    role: Role,
    network: NetworkSpec,
    x: np.ndarray,
    judge: Callable[[Graph, np.ndarray, np.ndarray, float], Answer] = explain,
) -> Answer:
    """Return what a framework does with one network.

    Args:
        adapter: access to the framework.
        role: "export": what the exporter writes for a module, run by the reference, is compared with
            the module. "import": what the importer makes of a file is compared with the file, run by
            the reference. "round trip": what the importer makes of an exported module is compared
            with the module, if no convention explains both.
        network: the network.
        x: inputs (time, batch, *shape).
        judge: function that compares a graph with outputs for an input and a time step.
    """
    written = None
    try:
        with capture_output() as log:
            literal = graph_of(network, adapter.dt)
            file = _as_nir(literal)
            if role == "import":
                return log.with_warning(_check_importer(adapter, literal, file, x, judge))
            module = _call(adapter, "build", adapter.build, network)
            expected = _call(adapter, "run", adapter.run, module, x)
            written = _call(adapter, "export", adapter.export, module, network)
            graph = parse_exported(written)
            exported = dataclasses.replace(
                judge(graph, x, expected, adapter.dt), stage="export", file=written
            )
            if role == "export" or exported.verdict != "pass":
                return log.with_warning(exported)
            imported = _check_importer(adapter, graph, written, x, judge)
            if imported.actual is not None and np.array_equal(imported.actual, expected):
                return log.with_warning(
                    Answer(verdict="pass", expected=expected, actual=imported.actual)
                )
            return log.with_warning(dataclasses.replace(imported, exported=exported.convention))
    except NotApplicableError as error:
        return Answer(verdict="not applicable", reason=str(error))
    except FrameworkError as failure:
        return dataclasses.replace(failure.answer, file=written)


def _as_nir(graph: Graph) -> Any:
    """Return a graph as nir reads it; what nir itself rejects tells nothing about a framework."""
    try:
        return write_and_read(export(graph))
    except Exception as error:
        raise NotApplicableError(f"nir rejects this network: {first_line(error)}") from error


def _check_importer(
    adapter: Adapter, graph: Graph, file: Any, x: np.ndarray, judge: Callable[..., Answer]
) -> Answer:
    """Return what an importer makes of a graph, whose edges it reads in two orders."""
    answers: list[Answer] = []
    for reverse in (False, True):
        ordered = write_and_read(file, reverse=reverse)
        unchanged = write_and_read(ordered, reverse=reverse)  # importers may change what they read
        try:
            imported = _call(adapter, "import", adapter.import_graph, ordered)
            actual = _call(adapter, "run", adapter.run, imported, x)
        except FrameworkError as error:
            answers.append(dataclasses.replace(error.answer, stage="import", file=unchanged))
            continue
        if answers and answers[0].actual is not None and np.array_equal(answers[0].actual, actual):
            return answers[0]
        answer = judge(graph, x, actual, adapter.dt)
        answers.append(dataclasses.replace(answer, stage="import", file=unchanged))
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
