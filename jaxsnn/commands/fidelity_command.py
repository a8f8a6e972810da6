"""`jaxsnn fidelity`: continuous time against time steps, on the user's data.

Its outcome is a `jaxsnn.simulation.fidelity.Fidelity`.
"""

from __future__ import annotations

import argparse
from typing import Any

from jaxsnn.commands.arguments import (
    add_command,
    add_file,
    add_max_spikes,
    add_notes,
    add_report,
    add_values,
    print_outcome,
    read_graph,
    refuse_report,
    write_report,
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
    add_max_spikes(parser)
    add_report(parser)
    parser.add_argument("--force", action="store_true", help="overwrite a report that exists")


def run(arguments: argparse.Namespace) -> int:
    """The work; exit code 0."""
    refuse_report(arguments)
    graph = read_graph(arguments)
    from jaxsnn.commands.reports.run_reports import fidelity_report
    from jaxsnn.simulation.fidelity import fidelity

    outcome = fidelity(
        graph,
        arguments.input,
        arguments.values,
        max_spikes=arguments.max_spikes,
    )
    write_report(arguments, fidelity_report, graph, outcome)
    add_notes(arguments, outcome.notes)
    print_outcome(arguments, outcome)
    return 0
