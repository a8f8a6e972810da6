"""`jaxsnn conformance`: run a framework's exporter and importer, and compare spikes with the file."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxsnn.commands.arguments import (
    add_command,
    add_notes,
    print_outcome,
    refuse_report,
    write_report,
)
from jaxsnn.console import to_stderr
from jaxsnn.options import FORCE, REPORT
from jaxsnn.wording import Option

if TYPE_CHECKING:
    from jaxsnn.conformance.suite import CellOutcome, ConformanceReport

_ROLE = Option(
    name="role",
    help="what to test: the exporter (also its round trips), the importer, or both (default)",
    metavar="ROLE",
    choices=("export", "import", "both"),
    default="both",
)
_ONLY = Option(
    name="only", help="run only the cells with this text in their names", metavar="TEXT", default=""
)
_FULL = Option(name="full", help="run all cells; takes longer", is_switch=True)
_JUNIT = Option(
    name="junit",
    help="write the results as JUnit XML, for continuous integration",
    metavar="J.xml",
    file="file",
)
_FAILURES = Option(
    name="failures",
    help="write a folder for each failure: NIR file, script that shows it, text of an issue",
    metavar="DIR",
    file="folder",
)


@dataclass(frozen=True, kw_only=True)
class ConformanceOutcome:
    """Outcome of `jaxsnn conformance`.

    Attributes:
        report: the answers of all cells.
    """

    report: ConformanceReport

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-compatible dict."""
        from jaxsnn.conformance.report import as_dict

        return as_dict(self.report)

    def as_text(self) -> str:
        """Return human-readable text."""
        from jaxsnn.conformance.report import as_text

        return as_text(self.report)


def add(commands: Any) -> None:
    """Add the parser."""
    text = "test a framework's exporter and importer of NIR: spikes, file by file"
    options = (_ROLE, _ONLY, _FULL, REPORT, _JUNIT, _FAILURES, FORCE)
    parser = add_command(commands, "conformance", run, text, *options)
    parser.add_argument(
        "framework", metavar="FRAMEWORK", help="name of an adapter, or MODULE:ATTRIBUTE of your own"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command; exit code 1 if a cell is wrong or crashes."""
    from jaxsnn.commands.reports.conformance_report import conformance_page
    from jaxsnn.conformance.adapter import adapter_of
    from jaxsnn.conformance.cells import ROLES
    from jaxsnn.conformance.report import as_junit
    from jaxsnn.conformance.reproduction import refuse_full_folder, shows_fault, write_failures
    from jaxsnn.conformance.suite import run as run_suite
    from jaxsnn.output import refuse_unwritable, write_atomically

    refuse_report(arguments)
    if arguments.junit is not None:
        refuse_unwritable(arguments.junit, arguments.force)
    if arguments.failures is not None:
        refuse_full_folder(arguments.failures, arguments.force)
    adapter = adapter_of(arguments.framework)
    roles = {"export": ("export", "round trip"), "import": ("import",), "both": ROLES}
    report = run_suite(
        adapter,
        roles=roles[arguments.role],
        full=arguments.full,
        only=arguments.only,
        progress=_print_progress if arguments.verbose else None,
    )
    if arguments.junit is not None:
        write_atomically(arguments.junit, as_junit(report), arguments.force)
    if arguments.failures is not None:
        folders = write_failures(report, adapter, arguments.failures, arguments.force)
        silent = [folder for folder in folders if not shows_fault(folder)]
        add_notes(
            arguments, [f"the script in {folder} does not show the fault" for folder in silent]
        )
    write_report(arguments, conformance_page, report)
    print_outcome(arguments, ConformanceOutcome(report=report))
    return 0 if report.ok else 1


def _print_progress(outcome: CellOutcome) -> None:
    to_stderr(f"{outcome.answer.verdict}: {outcome.cell.name}")
