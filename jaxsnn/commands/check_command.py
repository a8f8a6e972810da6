"""`jaxsnn check`: all problems of a NIR file for one purpose, before anything runs.

It loads no JAX. Its outcome is a `jaxsnn.compatibility.checks.CheckReport`.
"""

from __future__ import annotations

import argparse
from typing import Any

from jaxsnn.commands.arguments import (
    add_command,
    add_file,
    add_notes,
    dialect_options,
    print_outcome,
)


def add(commands: Any) -> None:
    """The parser."""
    text = "list all problems of a NIR file for one purpose; nothing runs"
    parser = add_command(commands, "check", run, text)
    add_file(parser)
    purpose = parser.add_argument("--for", dest="purpose", metavar="PURPOSE", required=True)
    parser.when_used(lambda: setattr(purpose, "help", _purposes()))


def _purposes() -> str:
    """The help of --for."""
    from jaxsnn.compatibility.checks import purposes

    return f"{', '.join(purposes())}; NAME==VERSION for one version of an importer"


def run(arguments: argparse.Namespace) -> int:
    """The work; exit code 1 where there is an error among the problems."""
    from jaxsnn.compatibility.checks import check_file

    report, graph = check_file(arguments.file, arguments.purpose, **dialect_options(arguments))
    if graph is not None:
        add_notes(arguments, graph.repairs)
    print_outcome(arguments, report)
    return 0 if report.ok else 1
