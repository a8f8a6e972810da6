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
from jaxsnn.wording import Option


def _purposes() -> str:
    from jaxsnn.compatibility.checks import purposes

    return f"what the file is for: {', '.join(purposes())}; NAME==VERSION for one version of an importer"


_PURPOSE = Option(
    name="purpose",
    flag="for",
    other_flags=("--purpose",),
    metavar="PURPOSE",
    help=_purposes,
    required=True,
)


def add(commands: Any) -> None:
    """Add the parser."""
    text = "list all problems of a NIR file for one purpose, without running it"
    parser = add_command(commands, "check", run, text, _PURPOSE)
    add_file(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; exit code 1 if there is an error among the problems."""
    from jaxsnn.compatibility.checks import check_file

    report, graph = check_file(arguments.file, arguments.purpose, **dialect_options(arguments))
    if graph is not None:
        add_notes(arguments, graph.repairs)
    print_outcome(arguments, report)
    return 0 if report.ok else 1
