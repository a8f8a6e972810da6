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
    print_outcome,
    read_graph,
)


def add(commands: Any) -> None:
    """The parser."""
    text = "compare continuous time with time steps on your own data"
    parser = add_command(commands, "fidelity", run, text)
    add_file(parser)
    parser.add_argument("--input", metavar="X.npz", required=True, help="x (time, batch, channels)")
    add_threshold(parser)


def run(arguments: argparse.Namespace) -> int:
    """The work; exit code 0."""
    graph = read_graph(arguments)
    from jaxsnn.simulation.fidelity import fidelity
    from jaxsnn.simulation.recordings import load_arrays

    outcome = fidelity(graph, load_arrays(arguments.input), arguments.threshold)
    add_notes(arguments, outcome.notes)
    print_outcome(arguments, outcome)
    return 0
