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
    print_outcome,
    read_graph,
    refuse_report,
    write_report,
)
from jaxsnn.options import FORCE, INPUT, MAX_SPIKES, REPORT, VALUES


def add(commands: Any) -> None:
    """Add the parser."""
    text = "compare continuous time with time steps on your own data"
    sent = INPUT.but(required=True, help="x (time, batch, channels); or a file of NIR data")
    options = (sent, VALUES, MAX_SPIKES, REPORT, FORCE)
    add_file(add_command(commands, "fidelity", run, text, *options))


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
