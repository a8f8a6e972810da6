"""What each command's report shows: what was read, what was decided, what was done, and what was
left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxsnn import plot
from jaxsnn.commands.remarks import line_of
from jaxsnn.commands.reports.report_page import (
    facts,
    figure,
    listed,
    page,
    paragraph,
    table,
    verdict,
    words,
)
from jaxsnn.units import format_time
from jaxsnn.wording import for_command_line

# Outcomes are records of the commands, which import this module: hence `Any`.
if TYPE_CHECKING:
    from jaxsnn.nir import Graph
    from jaxsnn.simulation.fidelity import Fidelity


# ---- what all reports have


def read_part(graph: Graph, source: str | Path) -> str:
    """The file: its graph, drawn and as a table."""
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


def decided_part(graph: Graph, others: Mapping[str, Any] | None = None) -> str:
    """What the file does not say, and who decided it."""
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
    return facts({**conventions, **(others or {})}) + f"<h3>Repairs</h3>{changes}"


def left_out_part(notes: Iterable[Any], graph: Graph) -> str:
    """Approximations, warnings, and what was not used."""
    remark_lines = [line_of(note) for note in (*graph.warnings, *notes)]
    return listed(remark_lines, "There are no warnings and no notes.")


def command_line(arguments: argparse.Namespace) -> str:
    """The command that made the report, for whoever wants to make it again."""
    import shlex

    return f"<p><code>{words(shlex.join(['jaxsnn', *arguments.argv]))}</code></p>"


# ---- the reports


def verify_report(arguments: argparse.Namespace, graph: Graph, outcome: Any) -> str:
    """`jaxsnn verify`: whether the file fires what its own framework fired."""
    comparison = outcome.found
    fraction = comparison.identical_fraction
    done = facts(
        {
            "recording": arguments.recording,
            "spike trains": comparison.trains,
            "identical": comparison.identical,
            "with a spike": comparison.active,
            "of these identical": comparison.identical_active,
            "identical, fraction": None if fraction is None else f"{fraction:.4%}",
            "spikes recorded": comparison.spikes_expected,
            "spikes simulated": comparison.spikes_got,
            "membranes, relative RMSE": comparison.relative_rmse,
        }
    )
    compared = outcome.compared
    if comparison.first_difference is not None and compared is not None:
        done += figure(
            lambda: plot.first_difference(comparison, compared.solution, compared.recording.y),
            "the first difference, some steps before and behind",
        )
    if outcome.fits:
        done += "<h3>It verifies with</h3>" + listed(map(for_command_line, outcome.fits), "")
    summary = "verified: every train is identical" if comparison.ok else "not verified"
    sections = {
        "Read": read_part(graph, arguments.file),
        "Decided": decided_part(graph),
        "Done": done,
        "Left out": left_out_part(outcome.notes, graph),
    }
    title = f"verify: {Path(arguments.file).name}"
    return page(title, verdict(summary, comparison.ok) + command_line(arguments), sections)


def fidelity_report(arguments: argparse.Namespace, graph: Graph, measured: Fidelity) -> str:
    """`jaxsnn fidelity`: what continuous time changes against the steps of the source."""
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
        for name, counts in measured.populations.items()
    ]
    done = facts({"input": arguments.input}) + figure(
        lambda: plot.fidelity(measured), "spikes of each population, all samples together"
    )
    cosines = [
        counts.count_cosine for counts in measured.populations.values() if counts.count_cosine
    ]
    summary = f"least cosine of spike counts: {min(cosines):.4f}" if cosines else "no spikes"
    sections = {
        "Read": read_part(graph, arguments.file),
        "Decided": decided_part(graph),
        "Done": done + table(headings, rows),
        "Left out": left_out_part(measured.notes, graph),
    }
    title = f"fidelity: {Path(arguments.file).name}"
    return page(title, verdict(summary) + command_line(arguments), sections)


def train_report(arguments: argparse.Namespace, graph: Graph, outcome: Any) -> str:
    """`jaxsnn train`: how training went."""
    fit = outcome.fit
    summary = (
        f"test accuracy {fit.test_accuracy:.2%} on {outcome.test_samples} samples, "
        f"epoch {fit.best_epoch} of {len(fit.history) - 1}"
    )
    if fit.accuracy_in_steps is not None:
        summary += f", in the time steps of the source {fit.accuracy_in_steps:.2%}"
    files = [outcome.output, outcome.history, outcome.checkpoint]
    source = arguments.file or arguments.config  # a configuration may have the network
    sections = {
        "Read": read_part(graph, source),
        "Decided": decided_part(graph) + f"<h3>Options</h3>{facts(_flat(fit.settings))}",
        "Done": fit_part(graph, fit) + "<h3>Files</h3>" + listed(files, ""),
        "Left out": left_out_part(outcome.notes, graph),
    }
    title = f"train: {Path(source).name}"
    return page(title, verdict(summary) + command_line(arguments), sections)


def fit_part(graph: Graph, fit: Any) -> str:
    """A training run: its curve, its weights, and a row for each epoch."""
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


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Options of options by a dotted name."""
    flattened: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            flattened |= _flat(value, f"{prefix}{name}.")
        else:
            flattened[f"{prefix}{name}"] = value
    return flattened


def map_report(arguments: argparse.Namespace, graph: Graph, outcome: Any) -> str:
    """`jaxsnn map`: where the network lies on the chip, or why it cannot."""
    content = outcome.as_dict()
    headings = ("resource", "used", "available")
    used = [(name, usage["used"], usage["available"]) for name, usage in content["used"].items()]
    mapping = outcome.mapping
    done = facts(
        {"result": outcome.stop_reason, "runs": content["runs"], "signs": content["signs"]}
    )
    if outcome.why:
        done += paragraph(outcome.why)
    if mapping is not None and not outcome.violations:
        done += table(headings, used)
        done += figure(lambda: plot.floorplan(mapping), "the chip: point at a neuron for its name")
    wrong = [(violation.node, violation.as_text()) for violation in outcome.violations]
    if wrong:
        done += table(("where", "violation"), wrong)
    rows = [
        (name, node.scale, node.saturated, node.zeroed, node.rms_error)
        for name, node in outcome.quantized.nodes.items()
    ]
    headings = ("node", "scale, LSB", "saturated weights", "weights that became 0", "rms error")
    weights = table(headings, rows)
    summary = "the network fits, 0 violations" if outcome.ok else f"{outcome.stop_reason}"
    sections = {
        "Read": read_part(graph, arguments.file),
        "Decided": decided_part(graph) + f"<h3>Whole weights</h3>{weights}",
        "Done": done,
        "Left out": left_out_part(outcome.quantized.notes, graph),
    }
    title = f"map: {Path(arguments.file).name}"
    return page(title, verdict(summary, outcome.ok) + command_line(arguments), sections)


def demo_report(arguments: argparse.Namespace, outcome: Any, parts: Any) -> str:
    """`jaxsnn demo`: all steps, with their pictures."""
    from jaxsnn.commands.demo.demo_pictures import raster_of

    rows = [
        (number, step.name, round(step.seconds, 2)) for number, step in enumerate(outcome.steps, 1)
    ]
    step_sections = "".join(
        f"<h3>{number} {words(step.name)}</h3>" + listed(step.lines, "")
        for number, step in enumerate(outcome.steps, 1)
    )
    notes = [note for step in outcome.steps for note in step.facts.get("notes", ())]
    sections = {
        "Read": read_part(parts.graph, parts.source),
        "Decided": decided_part(parts.graph),
        "Done": table(("step", "name", "seconds"), rows) + step_sections,
        "Spikes": figure(
            lambda: raster_of(parts.after, parts.data), "what goes in, what fires, who is first"
        ),
        "Training": fit_part(parts.graph, parts.trained),
        "Chip": figure(lambda: plot.floorplan(parts.mapping), "point at a neuron for its name"),
        "Left out": left_out_part(notes, parts.graph),
    }
    summary = f"test accuracy {outcome.test_accuracy:.2%}"
    title = "demo: from snnTorch's file to the chip"
    return page(title, verdict(summary) + command_line(arguments), sections)
