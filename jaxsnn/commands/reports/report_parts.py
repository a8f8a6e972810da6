"""Sections that the reports of several commands share: Input, Dialect and Limitations, and the results
of a training run and of a mapping.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxsnn import plot
from jaxsnn.commands.remarks import line_of, similar_lines
from jaxsnn.commands.reports.report_page import facts, figure, folded, paragraph, table
from jaxsnn.units import format_time
from jaxsnn.wording import for_command_line

if TYPE_CHECKING:
    from jaxsnn.bss2.mapping import Mapping
    from jaxsnn.bss2.search.quantize import Quantized
    from jaxsnn.errors import Problem
    from jaxsnn.nir import Graph
    from jaxsnn.nir.model.changes import Change
    from jaxsnn.simulation.neurobench import NeuroBench
    from jaxsnn.train.loop.history import Fit


def input_section(
    arguments: argparse.Namespace, graph: Graph, source: str | Path, **files: Any
) -> str:
    """Return the section on the input of the command: the command line, the files, the graph as a
    drawing and as a table, and the repairs of the reader.

    Args:
        arguments: arguments of the command.
        graph: graph of the file.
        source: path of the file.
        files: description -> path of each further file.
    """
    import shlex

    from jaxsnn.nir.model.passes import shapes, synapses

    node_shapes, counts = shapes(graph), synapses(graph)
    rows = [
        (name, node.type, *(_shape(part) for part in node_shapes[name]), counts.get(name))
        for name, node in ((name, graph.nodes[name]) for name in graph.order())
    ]
    headings = ("node", "type", "input shape", "output shape", "synapses")
    size = Path(source).stat().st_size if Path(source).is_file() else None
    received = {
        "command": shlex.join(["jaxsnn", *arguments.argv]),
        "file": source,
        "bytes": size,
        "NIR version": graph.version or None,
        **files,
    }
    repairs = _prose(graph.repairs) if graph.repairs else ""
    return (
        facts(received)
        + figure(lambda: plot.graph(graph), "the graph, signals from left to right")
        + table(headings, rows)
        + (f"<h3>Repairs</h3>{repairs}" if repairs else "")
    )


def _shape(shape: Sequence[int] | None) -> str:
    return "not specified" if shape is None else " x ".join(map(str, shape))


def dialect_section(graph: Graph) -> str:
    """Return the section on the conventions that the file leaves open, and on what decided them."""
    dialect = graph.dialect
    return facts(
        {
            "dialect": dialect.name or "undecided",
            "decided by": dialect.decided_by,
            "reason": for_command_line(dialect.why) or None,
            "time step": None if dialect.dt is None else format_time(dialect.dt),
            "reset": dialect.reset,
            "reset delayed by a step": dialect.reset_delay,
            "spikes": {"delta": "delta pulses", "box": "rectangular pulses"}.get(
                dialect.spike_kernel or "", dialect.spike_kernel
            ),
            "time constants in": dialect.time_unit,
        }
    )


def limitations_section(notes: Iterable[str | Problem | Change], graph: Graph) -> str:
    """Return the section on approximations, omissions and suspicious entries of the file."""
    remarks = [*graph.warnings, *notes]
    return _prose(remarks) if remarks else paragraph("No warnings and no approximations.")


def _prose(remarks: Sequence[str | Problem | Change]) -> str:
    """Return remarks as paragraphs of HTML; changes that differ only in their node share one."""
    nodes_of: dict[str, list[str]] = {}
    sentences: list[str | Problem | Change] = []
    for remark in remarks:
        if isinstance(remark, str) or not hasattr(remark, "what"):
            sentences.append(remark)
            continue
        change: Any = remark
        text = f"{line_of(change.what)} ({line_of(change.why)})"
        nodes_of.setdefault(text, []).append(change.node)
    changes = [
        f"{', '.join(filter(None, nodes))}: {text}" if any(nodes) else text
        for text, nodes in nodes_of.items()
    ]
    lines = [*changes, *similar_lines(sentences, kind="remarks")]
    return "".join(paragraph(_as_sentence(line)) for line in lines)


def _as_sentence(line: str) -> str:
    """Return a line with a full stop, and with a capital unless it begins with a name or a symbol."""
    first_word = line.split(maxsplit=1)[0]
    if first_word == "a" or (first_word.isalpha() and len(first_word) > 1):
        line = line[0].upper() + line[1:]
    return line.rstrip(".") + "."


def training_results(graph: Graph, fit: Fit) -> str:
    """Return the results of a training run: its curve, its weights, and a row for each epoch."""
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
        + figure(lambda: plot.weights(fit.graph, graph), "weights before and after training")
        + ("" if fit.neurobench is None else neurobench_facts(fit.neurobench))
        + folded("All epochs", table(headings, rows))
    )


def neurobench_facts(metrics: NeuroBench) -> str:
    """Return the metrics of NeuroBench as a table with its heading."""
    return f"<h3>NeuroBench</h3>{facts(metrics.rows())}"


def chip_section(mapping: Mapping, quantized: Quantized) -> str:
    """Return the section on a network on the chip: used resources, floor plan, rounded weights."""
    from jaxsnn.bss2.usage import used

    resources = [(name, usage["used"], usage["available"]) for name, usage in used(mapping).items()]
    return (
        table(("resource", "used", "available"), resources)
        + figure(lambda: plot.floorplan(mapping), "the chip; hover over a neuron for its name")
        + calibration_table(quantized)
        + rounding_table(quantized)
    )


def calibration_table(quantized: Quantized) -> str:
    """Return the calibration targets of each population, and the strength of a weight."""
    from jaxsnn.bss2.target_cells import slope_cells, target_cells

    rows = [(name, *target_cells(population)) for name, population in quantized.populations.items()]
    headings = (
        *("population", "leak, CADC LSB", "reset, CADC LSB", "threshold, CADC LSB"),
        *("tau_mem, us", "tau_syn, us", "refractory time, us"),
    )
    slope = slope_cells(quantized)
    return (
        "<h3>Calibration targets</h3>"
        + table(headings, rows)
        + ("" if slope is None else facts({slope[0]: slope[1]}))
    )


def rounding_table(quantized: Quantized) -> str:
    """Return how the weights of each population were rounded to integers."""
    rows = [
        (name, node.scale, node.saturated, node.zeroed, node.rms_error, node.relative_error)
        for name, node in quantized.nodes.items()
    ]
    headings = (
        *("population", "scale, LSB per unit of the file", "saturated weights"),
        *("weights rounded to 0", "rms error", "rms error, fraction of the rms weight"),
    )
    return "<h3>Weights rounded to integers</h3>" + table(headings, rows)
