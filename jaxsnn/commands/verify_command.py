"""`jaxsnn verify`: a recorded input is simulated and compared with the recorded output."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
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
from jaxsnn.commands.reports.report_page import facts, figure, listed, page, summary
from jaxsnn.commands.reports.report_parts import (
    dialect_section,
    input_section,
    limitations_section,
)
from jaxsnn.errors import DialectError, JaxsnnError, UsageError, listing
from jaxsnn.options import FORCE, RECORDING, REPORT
from jaxsnn.wording import Text, for_command_line

#: Maximum number of alternative options in advice.
_SHOWN = 3

if TYPE_CHECKING:
    from jaxsnn.grid.stepped_solution import SteppedSolution
    from jaxsnn.nir import Graph
    from jaxsnn.simulation.recordings import Recording
    from jaxsnn.simulation.verification import Verification


#: Note on a recording whose output is 0 throughout.
_SILENT = (
    "the recorded output is 0 throughout, and agrees with every reset; record an input "
    "for which neurons fire"
)


@dataclass(frozen=True, kw_only=True)
class VerifyOutcome:
    """Outcome of `jaxsnn verify`.

    Attributes:
        replay: the recording, the run and their comparison.
        notes: approximations, and changed or unused parts of the recording, a sentence each.
        fits: other options that verify if this run does not, a text each, the shortest first.
    """

    replay: Replay
    notes: tuple[str, ...]
    fits: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every train is identical and membranes are within the tolerance."""
        return self.replay.comparison.ok

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-compatible dict; an infinite error is text."""
        content = {"schema": 1, **self.replay.comparison.as_dict(), "notes": list(self.notes)}
        content["fits"] = [for_command_line(fit) for fit in self.fits]
        error = self.replay.comparison.relative_rmse
        if error is not None and not math.isfinite(error):
            content["relative_rmse"] = str(error)
        return content

    def as_text(self) -> str:
        """Return human-readable text."""
        comparison = self.replay.comparison
        lines = []
        if comparison.trains:
            lines.append(
                f"identical spike trains: {comparison.identical} of {comparison.trains}, "
                f"of those with spikes {comparison.identical_active} of {comparison.active}; "
                f"spikes: {comparison.spikes_got} simulated, {comparison.spikes_expected} recorded"
            )
        if comparison.relative_rmse is not None:
            lines.append(f"membrane potentials: relative RMSE {comparison.relative_rmse:.2g}")
        first = comparison.first_difference
        if first is not None:
            lines.append(
                f"first difference: node '{first.node}', neuron {first.neuron}, sample {first.batch}, "
                f"step {first.step}: recorded {first.expected:g}, simulated {first.got:g}"
            )
        lines.append("verified" if comparison.ok else "not verified")
        if self.fits:
            first, *others = map(for_command_line, self.fits)
            more = f" (or {listing(others, limit=2)})" if others else ""
            lines.append(f"the recording agrees with {first}{more}")
        elif not comparison.ok:
            lines.append(
                "it agrees with no other reset or reset delay of all nodes or of a single node"
            )
        return "\n".join(lines)


def add(commands: Any) -> None:
    """Add the parser."""
    text = "simulate a recorded input and compare the result with the recorded output"
    recording = RECORDING.but(
        required=True, help="recording with x and y (time, batch, ...), or a file of NIR data"
    )
    add_file(add_command(commands, "verify", run, text, recording, REPORT, FORCE))


def run(arguments: argparse.Namespace) -> int:
    """Run the command; exit code 1 if the simulation differs from the recording."""
    refuse_report(arguments)
    graph = read_graph(arguments)
    outcome = verify_file(graph, arguments.recording)
    write_report(arguments, verify_report, graph, outcome)
    add_notes(arguments, outcome.notes)
    print_outcome(arguments, outcome)
    return 0 if outcome.ok else 1


def verify_file(graph: Graph, source: str | os.PathLike[str]) -> VerifyOutcome:
    """Simulate the input of a recording, and compare with its output.

    Args:
        graph: graph with its dialect.
        source: an .npz file or one of NIR data; see `jaxsnn.simulation.recordings.load_recording`.

    Raises:
        JaxsnnError: a recording that does not fit or lacks an output, or a dialect that is not
            known well enough.
    """
    from jaxsnn.simulation.verification import fitting_options

    replay = replay_recording(graph, source)
    comparison, recording = replay.comparison, replay.recording
    silent = () if _moves(recording) else (_SILENT,)
    others = () if comparison.ok else fitting_options(graph, recording.x, recording.y)
    return VerifyOutcome(
        replay=replay,
        notes=(*recording.notes, *replay.solution.notes, *silent),
        fits=tuple(reading.text for reading in others),
    )


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Recording, the time-stepped run of its input, and the comparison of their outputs."""

    recording: Recording
    solution: SteppedSolution
    comparison: Verification


def replay_recording(graph: Graph, source: str | os.PathLike[str]) -> Replay:
    """Simulate the input of a recording, and compare with its output, as `verify_file` does."""
    import numpy as np

    from jaxsnn.grid.time_stepped import TimeStepped
    from jaxsnn.network.lowering.lower import lower
    from jaxsnn.simulation.recordings import load_recording
    from jaxsnn.simulation.simulate import simulate
    from jaxsnn.simulation.verification import compare

    network = lower(graph, dtype=np.float32)
    recording = load_recording(source, network, graph.dialect.dt)
    _refuse_incomplete(source, recording, network.outputs)
    try:
        solution = simulate(network, recording.x, engine=TimeStepped())
    except JaxsnnError as error:
        raise _with_fits(graph, recording, error) from error
    return Replay(recording=recording, solution=solution, comparison=compare(solution, recording.y))


def _with_fits(graph: Graph, recording: Recording, error: JaxsnnError) -> JaxsnnError:
    """Return the error; if the reset is undecided, with advice that names the resets with which the
    recording agrees. A recording of zeros agrees with any reset, so that it gives no advice.
    """
    from jaxsnn.simulation.verification import fitting_options

    problem = error.problem
    if problem.code != DialectError.default_code or not _moves(recording):
        return error
    fitting = fitting_options(graph, recording.x, recording.y)
    if not fitting:
        return error
    first, *others = (reading.text for reading in fitting)
    fix = Text("pass {options}, with which the recording agrees", options=first)
    if others:
        more = Text(" and {count} more", count=len(others) - _SHOWN) if len(others) > _SHOWN else ""
        fix += Text(
            "; it also agrees with {options}{more}: ask the author of the file, or record an "
            "input for which neurons fire more often",
            options=Text.joined(", ", others[:_SHOWN]),
            more=more,
        )
    return type(error).of(dataclasses.replace(problem, fix=fix))


def _moves(recording: Recording) -> bool:
    """Return whether any recorded output is nonzero."""
    import numpy as np

    return any(bool(np.any(recorded)) for recorded in recording.y.values())


def _refuse_incomplete(
    source: str | os.PathLike[str], recording: Recording, outputs: Iterable[str]
) -> None:
    for name, recorded in recording.x.items():
        if hasattr(recorded, "time"):
            raise UsageError(
                Text(
                    "{path} has events for input '{node}'; verification requires time steps",
                    path=source,
                    node=name,
                ),
                fix="record an array with one value per time step",
                node=name,
            )
    if not recording.y:
        raise UsageError(
            Text("{path} has no output to compare with", path=source),
            fix="save it as 'y', or as 'NODE.y' for each Output",
        )
    missing = [name for name in outputs if name not in recording.y]
    if missing:
        raise UsageError(
            Text(
                "{path} has no recording of output {outputs}", path=source, outputs=listing(missing)
            ),
            fix="save each as 'NODE.y'",
            node=missing[0],
        )


def verify_report(arguments: argparse.Namespace, graph: Graph, outcome: VerifyOutcome) -> str:
    """Return the page on whether the file reproduces the spikes of its source framework."""
    comparison, replay = outcome.replay.comparison, outcome.replay
    results = facts(
        {
            "spike trains": comparison.trains,
            "identical": comparison.identical,
            "with a spike": comparison.active,
            "of these identical": comparison.identical_active,
            "spikes recorded": comparison.spikes_expected,
            "spikes simulated": comparison.spikes_got,
            "relative RMSE of membrane potentials": comparison.relative_rmse,
        }
    )
    if comparison.first_difference is not None:
        results += figure(
            lambda: plot.first_difference(comparison, replay.solution, replay.recording.y),
            "the first difference, with the steps before and after it",
        )
    if outcome.fits:
        results += "<h3>Options with which the file is verified</h3>"
        results += listed(map(for_command_line, outcome.fits), "")
    differing = comparison.trains - comparison.identical
    if comparison.ok:
        result = "Verified: all recorded outputs are reproduced"
    elif differing:
        result = f"Not verified: {differing} of {comparison.trains} spike trains differ"
    else:
        result = "Not verified: the membrane potentials differ"
    fraction = comparison.identical_fraction
    key_figures = {
        "identical spike trains": None if fraction is None else f"{fraction:.4%}",
        "spikes recorded": comparison.spikes_expected,
        "spikes simulated": comparison.spikes_got,
        "relative RMSE of membranes": comparison.relative_rmse,
    }
    sections = {
        "Input": input_section(arguments, graph, arguments.file, recording=arguments.recording),
        "Dialect": dialect_section(graph),
        "Results": results,
        "Limitations": limitations_section(outcome.notes, graph),
    }
    title = f"verify: {Path(arguments.file).name}"
    return page(title, summary(result, key_figures, comparison.ok), sections)
