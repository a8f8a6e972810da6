"""Commands on a NIR file that compute nothing: draw, check. None of them loads JAX."""

from __future__ import annotations

import argparse
from typing import Any

from jaxsnn.arguments import (
    add_command,
    add_file,
    add_output,
    dialect_options,
    note_findings,
    print_outcome,
    read_graph,
)


def add_draw(commands: Any) -> None:
    """The command `draw`."""
    parser = add_command(commands, "draw", _draw, "draw the graph of a NIR file")
    add_file(parser)
    add_output(parser, "PICTURE", "a .svg, .dot or .mmd (Mermaid) file", required=True)


def _draw(arguments: argparse.Namespace) -> int:
    from jaxsnn.nir.draw import draw

    print_outcome(arguments, draw(read_graph(arguments), arguments.output, force=arguments.force))
    return 0


def add_check(commands: Any) -> None:
    """The command `check`."""
    parser = add_command(commands, "check", _check, "list all problems of a NIR file for one purpose; nothing runs")
    add_file(parser)
    parser.add_argument(
        "--for",
        dest="purpose",
        metavar="PURPOSE",
        required=True,
        help="event, grid, bss2, norse, snntorch, spikingjelly, sinabs, rockpool or spyx",
    )


def _check(arguments: argparse.Namespace) -> int:
    from jaxsnn.check import check_file

    report, graph = check_file(arguments.file, arguments.purpose, **dialect_options(arguments))
    if graph is not None:
        note_findings(arguments, graph.repairs)
    print_outcome(arguments, report)
    return 0 if report.ok else 1
