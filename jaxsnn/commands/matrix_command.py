"""`jaxsnn matrix`: a verdict for each node and each engine, chip and importer. It loads no JAX."""

from __future__ import annotations

import argparse
from typing import Any

from jaxsnn.commands.arguments import (
    add_command,
    add_file,
    print_outcome,
    read_graph,
    refuse_options_of_file,
)
from jaxsnn.wording import Option


def _purposes() -> str:
    from jaxsnn.compatibility.checks import purposes

    return f"one of {', '.join(purposes())}; may be repeated (default: all)"


_PURPOSES = Option(
    name="purposes",
    flag="for",
    other_flags=("--purposes",),
    metavar="PURPOSE",
    help=_purposes,
    repeated=True,
)


def add(commands: Any) -> None:
    """Add the parser."""
    text = (
        "show which engines, chips and importers support each node: exactly, approximately "
        "(with the loss), or not"
    )
    add_file(add_command(commands, "matrix", run, text, _PURPOSES), optional=True)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; exit code 1 if something is unsupported for a requested purpose."""
    from jaxsnn.compatibility.matrix import matrix, matrix_of_types

    selected_purposes = arguments.purposes or ()
    if arguments.file is None:
        refuse_options_of_file(arguments)
        support_matrix = matrix_of_types(selected_purposes)
        print_outcome(arguments, support_matrix)
        return 0
    support_matrix = matrix(read_graph(arguments), selected_purposes)
    print_outcome(arguments, support_matrix)
    return int(
        any(support_matrix.overall(purpose) == "unsupported" for purpose in selected_purposes)
    )
