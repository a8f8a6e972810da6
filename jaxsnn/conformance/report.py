"""Reports of the suite: JSON, JUnit and HTML."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np

from jaxsnn.conformance.reproduction import folder_name, title_of, trains_of
from jaxsnn.conformance.suite import CellOutcome, ConformanceReport, Failure


def as_dict(report: ConformanceReport) -> dict[str, Any]:
    """Return a JSON-compatible dict."""
    return {
        "schema": 1,
        "ok": report.ok,
        "framework": report.framework,
        "version": report.version,
        "counts": report.counts,
        "cells": [_cell(outcome) for outcome in report.outcomes],
        "failures": [_failure(failure) for failure in report.failures],
    }


def _failure(failure: Failure) -> dict[str, Any]:
    """Return a failure with the arrays of its smallest network."""
    outcome = failure.smallest
    answer = outcome.answer
    layers = [
        {
            "type": layer.type,
            "shape": list(layer.shape),
            "reset": layer.reset,
            "recurrent": None if layer.recurrent is None else layer.recurrent.tolist(),
            "parameters": {
                name: np.asarray(value).tolist() for name, value in layer.parameters.items()
            },
        }
        for layer in outcome.network.layers
    ]
    return {
        "title": title_of(outcome),
        "verdict": answer.verdict,
        "reason": answer.reason,
        "stage": answer.stage,
        "cells": list(failure.cells),
        "folder": folder_name(failure),
        "layers": layers,
        "skips": [list(skip) for skip in outcome.network.skips],
        "input": outcome.x.tolist(),
        "expected": None if answer.expected is None else answer.expected.tolist(),
        "actual": None if answer.actual is None else np.asarray(answer.actual).tolist(),
    }


def _cell(outcome: CellOutcome) -> dict[str, Any]:
    cell, answer = outcome.cell, outcome.answer
    entry: dict[str, Any] = {
        "name": cell.name,
        "role": cell.role,
        "node": cell.node,
        "parameter": cell.parameter,
        "topology": cell.topology,
        "reset": cell.reset,
        "regime": cell.regime,
        "verdict": answer.verdict,
        "reason": answer.reason,
        "warning": answer.warning,
    }
    for name, convention in (("convention", answer.convention), ("exported", answer.exported)):
        entry[name] = None if convention is None else convention.differences
    return entry


def as_text(report: ConformanceReport) -> str:
    """Return a table of verdicts by role and node, then what is wrong or crashes."""
    lines = [f"{report.framework} {report.version}"]
    rows: dict[tuple[str, str], list[CellOutcome]] = {}
    for outcome in report.outcomes:
        rows.setdefault((outcome.cell.role, outcome.cell.node), []).append(outcome)
    for (role, node), outcomes in rows.items():
        verdicts = [outcome.answer.verdict for outcome in outcomes]
        counts = ", ".join(f"{verdicts.count(name)} {name}" for name in dict.fromkeys(verdicts))
        lines.append(f"{role:10s} {node:24s} {counts}")
    for failure in report.failures:
        answer = failure.smallest.answer
        lines += ["", f"{answer.verdict}: {title_of(failure.smallest)}", f"  {answer.reason}"]
        lines += [f"  {line}" for line in trains_of(failure.smallest).splitlines()]
        lines += [f"  cell {cell}" for cell in failure.cells]
    return "\n".join(lines)


def as_junit(report: ConformanceReport) -> str:
    """Return an XML document as test runners write it: a failure for "wrong", an error for "crash", a
    skipped test for "refused" and "not applicable".
    """
    counts = report.counts
    suite = ElementTree.Element(
        "testsuite",
        name=f"NIR conformance of {report.framework} {report.version}",
        tests=str(len(report.outcomes)),
        failures=str(counts["wrong"]),
        errors=str(counts["crash"]),
        skipped=str(counts["refused"] + counts["not applicable"]),
    )
    tags = {"wrong": "failure", "crash": "error", "refused": "skipped", "not applicable": "skipped"}
    for outcome in report.outcomes:
        answer = outcome.answer
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=f"{report.framework}.{outcome.cell.role}.{outcome.cell.node}",
            name=outcome.cell.name,
        )
        if answer.verdict in tags:
            ElementTree.SubElement(
                case, tags[answer.verdict], message=f"{answer.verdict}: {answer.reason}"
            )
        if answer.warning:
            ElementTree.SubElement(case, "system-out").text = answer.warning
    ElementTree.indent(suite)
    return f"{ElementTree.tostring(suite, encoding='unicode', xml_declaration=True)}\n"
