"""`jaxsnn fidelity`: continuous time against time steps, on the user's data.

Its outcome is a `jaxsnn.simulation.fidelity.Fidelity`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxsnn import plot
from jaxsnn.commands.arguments import (
    add_command,
    add_file,
    add_notes,
    print_outcome,
    read_graph,
    refuse_report,
    write_report,
)
from jaxsnn.commands.reports.report_page import facts, figure, page, table, verdict
from jaxsnn.commands.reports.report_parts import (
    command_line,
    decided_part,
    left_out_part,
    read_part,
)
from jaxsnn.options import FORCE, INPUT, MAX_SPIKES, REPORT, VALUES

if TYPE_CHECKING:
    from jaxsnn.nir import Graph
    from jaxsnn.simulation.fidelity import Fidelity


def add(commands: Any) -> None:
    """Add the parser."""
    text = "compare event-driven and time-stepped simulation on your data"
    sent = INPUT.but(required=True, help="inputs: x (time, batch, channels), or a file of NIR data")
    options = (sent, VALUES, MAX_SPIKES, REPORT, FORCE)
    add_file(add_command(commands, "fidelity", run, text, *options))


def run(arguments: argparse.Namespace) -> int:
    """Run the command; exit code 0."""
    refuse_report(arguments)
    graph = read_graph(arguments)
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


def fidelity_report(arguments: argparse.Namespace, graph: Graph, outcome: Fidelity) -> str:
    """Return the page on the effect of continuous time compared with the time steps of the source framework."""
    headings = (
        "population",
        "spikes, continuous time",
        "spikes, steps",
        "ratio",
        "cosine of the counts",
        "steps with more than one spike",
    )
    rows = [
        (
            name,
            counts.event,
            counts.grid,
            counts.rate_ratio,
            counts.count_cosine,
            counts.multi_spike_steps,
        )
        for name, counts in outcome.populations.items()
    ]
    done = facts({"input": arguments.input}) + figure(
        lambda: plot.fidelity(outcome), "spikes of each population, all samples together"
    )
    cosines = [
        counts.count_cosine for counts in outcome.populations.values() if counts.count_cosine
    ]
    summary = f"least cosine of spike counts: {min(cosines):.4f}" if cosines else "no spikes"
    sections = {
        "Read": read_part(graph, arguments.file),
        "Decided": decided_part(graph),
        "Done": done + table(headings, rows),
        "Left out": left_out_part(outcome.notes, graph),
    }
    title = f"fidelity: {Path(arguments.file).name}"
    return page(title, verdict(summary) + command_line(arguments), sections)
