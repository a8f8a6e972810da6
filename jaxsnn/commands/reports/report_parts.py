"""Parts that the reports of several commands share: what was read, decided and left out, and how a
training run went.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxsnn import plot
from jaxsnn.commands.remarks import line_of
from jaxsnn.commands.reports.report_page import facts, figure, listed, table, words
from jaxsnn.units import format_time
from jaxsnn.wording import for_command_line

if TYPE_CHECKING:
    from jaxsnn.errors import Problem
    from jaxsnn.nir import Graph
    from jaxsnn.nir.model.changes import Change
    from jaxsnn.train.loop.history import Fit


def read_part(graph: Graph, source: str | Path) -> str:
    """Return the section on the file: its graph, drawn and as a table."""
    from jaxsnn.nir.model.passes import shapes, synapses

    node_shapes, counts = shapes(graph), synapses(graph)
    rows = [
        (name, node.type, *(_shape(part) for part in node_shapes[name]), counts.get(name))
        for name, node in ((name, graph.nodes[name]) for name in graph.order())
    ]
    headings = ("node", "type", "shape in", "shape out", "synapses")
    size = Path(source).stat().st_size if Path(source).is_file() else None
    return (
        facts({"file": source, "bytes": size, "NIR version": graph.version or None})
        + figure(lambda: plot.graph(graph), "the graph, signals from left to right")
        + table(headings, rows)
    )


def _shape(shape: Sequence[int] | None) -> str:
    return "open" if shape is None else " x ".join(map(str, shape))


def decided_part(graph: Graph) -> str:
    """Return the section on conventions that the file leaves open, and on what decided them."""
    dialect = graph.dialect
    conventions = {
        "dialect": dialect.name or "undecided",
        "decided by": dialect.decided_by,
        "why": for_command_line(dialect.why) or None,
        "step": None if dialect.dt is None else format_time(dialect.dt),
        "reset": dialect.reset,
        "reset a step late": dialect.reset_delay,
        "spikes are": dialect.spike_kernel,
        "time constants in": dialect.time_unit,
    }
    changes = listed(map(line_of, graph.repairs), "Nothing in the file was repaired.")
    return facts(conventions) + f"<h3>Repairs</h3>{changes}"


def left_out_part(notes: Iterable[str | Problem | Change], graph: Graph) -> str:
    """Return the section on approximations, warnings and unused data."""
    remark_lines = [line_of(note) for note in (*graph.warnings, *notes)]
    return listed(remark_lines, "There are no warnings and no notes.")


def command_line(arguments: argparse.Namespace) -> str:
    """Return the command line that made the report, so that it can be repeated."""
    import shlex

    return f"<p><code>{words(shlex.join(['jaxsnn', *arguments.argv]))}</code></p>"


def fit_part(graph: Graph, fit: Fit) -> str:
    """Return the section on a training run: its curve, its weights, and a row for each epoch."""
    headings = ("epoch", "loss", "accuracy", "validation loss", "validation accuracy", "undecided")
    rows = [
        (
            record.epoch,
            record.train_loss,
            record.train_accuracy,
            record.validation_loss,
            record.validation_accuracy,
            record.undecided,
        )
        for record in fit.history
    ]
    return (
        figure(lambda: plot.learning_curve(fit), "error rate and loss by epoch")
        + figure(lambda: plot.weights(fit.graph, graph), "weights before and after")
        + table(headings, rows)
    )
