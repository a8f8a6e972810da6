"""`jaxsnn fidelity`: continuous time against time steps, on the user's data.

Its outcome is a `jaxsnn.simulation.fidelity.Fidelity`.
"""

from __future__ import annotations

import argparse
from typing import Any

from jaxsnn.commands.arguments import (
    add_command,
    add_file,
    add_notes,
    add_threshold,
    add_values,
    print_outcome,
    read_graph,
)


def add(commands: Any) -> None:
    """The parser."""
    text = "compare continuous time with time steps on your own data"
    parser = add_command(commands, "fidelity", run, text)
    add_file(parser)
    parser.add_argument(
        "--input",
        metavar="X.npz",
        required=True,
        help="x (time, batch, channels); or a file of NIR data",
    )
    add_values(parser)
    add_threshold(parser)


def run(arguments: argparse.Namespace) -> int:
    """The work; exit code 0."""
    graph = read_graph(arguments)
    from jaxsnn.simulation.fidelity import fidelity

    outcome = fidelity(graph, arguments.input, arguments.threshold, arguments.values)
    add_notes(arguments, outcome.notes)
    print_outcome(arguments, outcome)
    return 0
