"""`jaxsnn convert`: a NIR file rewritten for another simulator's own importer. It loads no JAX."""

from __future__ import annotations

import argparse
from typing import Any

from jaxsnn.commands.arguments import (
    add_command,
    add_file,
    add_notes,
    print_outcome,
    read_graph,
    time_of,
)


def add(commands: Any) -> None:
    """The parser."""
    text = "rewrite a NIR file for another simulator's own importer"
    parser = add_command(commands, "convert", run, text)
    add_file(parser, dialect_flags=("--from", "--dialect"))
    parser.add_argument("output", metavar="OUT", help="the file to write")
    parser.add_argument("--force", action="store_true", help="overwrite OUT")
    parser.add_argument(
        "--to", metavar="NAME", required=True, help="norse, snntorch, spikingjelly or spyx"
    )
    parser.add_argument(
        "--to-dt", metavar="TIME", help="step of the target; default: the source's, else its own"
    )
    parser.add_argument(
        "--approximate", action="store_true", help="do the nearest thing, and say what that loses"
    )


def run(arguments: argparse.Namespace) -> int:
    """The work; exit code 0."""
    from jaxsnn.nir.convert.convert_file import convert_file
    from jaxsnn.output import refuse_unwritable

    output = refuse_unwritable(arguments.output, arguments.force)
    outcome = convert_file(
        read_graph(arguments),
        output,
        to=arguments.to,
        dt=time_of(arguments.to_dt),
        approximate=arguments.approximate,
        force=arguments.force,
    )
    add_notes(arguments, [f"lost: {loss}" for loss in outcome.losses])
    print_outcome(arguments, outcome)
    return 0
