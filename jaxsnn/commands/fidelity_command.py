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
from jaxsnn.commands.reports.report_page import figure, page, summary, table
from jaxsnn.commands.reports.report_parts import (
    dialect_section,
    input_section,
    limitations_section,
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
    """Return the page on the effect of continuous time compared with time steps."""
    headings = (
        "population",
        "spikes, continuous time",
        "spikes, time steps",
        "ratio",
        "cosine similarity of the spike counts",
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
    results = table(headings, rows) + figure(
        lambda: plot.fidelity(outcome), "spikes of each population, all samples together"
    )
    cosines = {
        name: counts.count_cosine
        for name, counts in outcome.populations.items()
        if counts.count_cosine is not None
    }
    if cosines:
        lowest = min(cosines, key=cosines.__getitem__)
        result = (
            "Spike counts in continuous time and in time steps have a cosine similarity of at "
            f"least {cosines[lowest]:.4f} (population '{lowest}')"
        )
    else:
        result = "No population fires in both engines"
    populations = outcome.populations.values()
    key_figures = {
        "spikes, continuous time": sum(counts.event for counts in populations),
        "spikes, time steps": sum(counts.grid for counts in populations),
        "lowest cosine similarity": f"{min(cosines.values()):.4f}" if cosines else None,
        "steps with more than one spike": sum(counts.multi_spike_steps for counts in populations),
    }
    sections = {
        "Input": input_section(arguments, graph, arguments.file, data=arguments.input),
        "Dialect": dialect_section(graph),
        "Results": results,
        "Limitations": limitations_section(outcome.notes, graph),
    }
    title = f"fidelity: {Path(arguments.file).name}"
    return page(title, summary(result, key_figures), sections)
