"""The page that `jaxsnn conformance --report` writes."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from urllib.parse import quote

from jaxsnn.commands.reports.report_page import (
    folded,
    listed,
    page,
    paragraph,
    summary,
    table,
    words,
)
from jaxsnn.conformance.reproduction import folder_name, title_of, trains_of
from jaxsnn.conformance.suite import CellOutcome, ConformanceReport, Failure


def conformance_page(arguments: argparse.Namespace, report: ConformanceReport) -> str:
    """Return the report as an HTML page."""
    title = f"NIR conformance of {report.framework} {report.version}"
    failures = "".join(_failure(arguments, failure) for failure in report.failures)
    headings = ("cell", "verdict", "reason", "convention", "warning")
    sections = {
        "Failures": failures or paragraph("No cell is wrong or crashes."),
        "Cells": table(headings, [_row(outcome) for outcome in report.outcomes]),
    }
    count = len(report.failures)
    result = "No fault" if report.ok else f"{count} fault{'s' if count > 1 else ''}"
    return page(title, summary(result, report.counts, report.ok), sections)


def _failure(arguments: argparse.Namespace, failure: Failure) -> str:
    """Return a failure as HTML: its title, the spike trains of the smallest network, and its cells."""
    outcome = failure.smallest
    answer = outcome.answer
    parts = [f"<h3>{words(answer.verdict)}: {words(title_of(outcome))}</h3>"]
    parts.append(paragraph(answer.reason))
    if trains := trains_of(outcome):
        parts.append(f"<pre>{words(trains)}</pre>")
    if arguments.failures is not None:
        folder = Path(arguments.failures) / folder_name(failure)
        place = quote(os.path.relpath(folder, Path(arguments.report).parent))
        names = ("issue.md", "reproduce.py", "network.nir")
        links = [
            f'<a href="{place}/{name}">{name}</a>' for name in names if (folder / name).exists()
        ]
        parts.append(f"<p>{' '.join(links)}</p>")
    cells = f"{len(failure.cells)} cell{'s' if len(failure.cells) > 1 else ''}"
    parts.append(folded(cells, listed(failure.cells, "")))
    return "".join(parts)


def _row(outcome: CellOutcome) -> tuple[str, ...]:
    answer = outcome.answer
    convention = "" if answer.convention is None else str(answer.convention)
    if answer.exported is not None:
        convention = f"file: {answer.exported}; importer: {convention}"
    return outcome.cell.name, answer.verdict, answer.reason, convention, answer.warning
