"""`jaxsnn convert`: a NIR file rewritten for another simulator's own importer. It loads no JAX."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxsnn.commands.arguments import (
    add_command,
    add_file,
    add_notes,
    print_outcome,
    read_graph,
    refuse_options_of_file,
    time_of,
)
from jaxsnn.commands.remarks import similar_lines
from jaxsnn.errors import UsageError
from jaxsnn.options import APPROXIMATE, DIALECT, FORCE, INPUT_RANGE, TO
from jaxsnn.wording import Option, Text

if TYPE_CHECKING:
    from jaxsnn.nir.convert.passes import ConversionPass
    from jaxsnn.nir.model.changes import Change


@dataclass(frozen=True, kw_only=True)
class ConvertOutcome:
    """Outcome of `jaxsnn convert`.

    Attributes:
        output: path of the file that was written.
        load_with: a line of Python that loads it with the target's importer.
        run_with: lines of Python that run the loaded network.
        written_for: the importer that it was written for, with its version.
        changes: changes of the graph, with their reasons.
        losses: losses of an approximation.
        shift: Output -> steps by which its spikes leave later than the source's.
        notes: further notes on the version that it was written for.
    """

    output: str
    load_with: str
    run_with: str
    written_for: str
    changes: tuple[Change, ...]
    losses: tuple[str, ...]
    shift: dict[str, int]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-compatible dict."""
        return {
            "schema": 1,
            "output": self.output,
            "load_with": self.load_with,
            "run_with": self.run_with,
            "written_for": self.written_for,
            "changes": [change.as_dict() for change in self.changes],
            "losses": list(self.losses),
            "shift": self.shift,
            "notes": list(self.notes),
        }

    def as_text(self) -> str:
        """Return human-readable text: similar changes and losses in one line each, if there are
        many.
        """
        lines = similar_lines(self.changes, kind="changes")
        lines += similar_lines(self.losses, kind="losses", prefix="lost: ")
        lines += [f"{self.output}: load it with", f"  {self.load_with}"]
        if self.run_with:
            lines += ["and run it with", *(f"  {line}" for line in self.run_with.splitlines())]
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class PassesOutcome:
    """Outcome of `jaxsnn convert --show-passes`.

    Attributes:
        written_for: the importer that the passes write for, with its version.
        passes: the passes in their order.
    """

    written_for: str
    passes: tuple[ConversionPass, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-compatible dict."""
        return {
            "schema": 1,
            "written_for": self.written_for,
            "passes": [
                {
                    "name": conversion_pass.name,
                    "description": conversion_pass.description,
                    "requires": [condition.statement for condition in conversion_pass.requires],
                    "ensures": [condition.statement for condition in conversion_pass.ensures],
                }
                for conversion_pass in self.passes
            ],
        }

    def as_text(self) -> str:
        """Return human-readable text."""
        lines = [f"conversion passes for {self.written_for}:"]
        for number, conversion_pass in enumerate(self.passes, 1):
            lines += [
                "",
                f"{number:2d} {conversion_pass.name}",
                f"   {conversion_pass.description}",
            ]
            lines += [
                f"   requires: {condition.statement}" for condition in conversion_pass.requires
            ]
            lines += [f"   ensures: {condition.statement}" for condition in conversion_pass.ensures]
        lines += [
            "",
            "If convolutions must be converted to matrices, write_as_matrices runs first.",
        ]
        return "\n".join(lines)


_TO_DT = Option(
    name="to_dt",
    help="time step of the target (default: that of the source framework, or else the "
    "target's default)",
    metavar="TIME",
)
_SHOW_PASSES = Option(
    name="show_passes",
    help="print the conversion passes for --to; no files are read or written",
    is_switch=True,
)


def add(commands: Any) -> None:
    """Add the parser."""
    text = "convert a NIR file for the importer of another simulator"
    to = TO.but(help=_targets)
    options = (FORCE, to, _TO_DT, INPUT_RANGE, APPROXIMATE, _SHOW_PASSES)
    parser = add_command(commands, "convert", run, text, *options)
    add_file(parser, dialect=DIALECT.but(other_flags=("--from",)))
    parser.add_argument("output", metavar="OUT", help="file to write")
    parser.need_no_files_with(_SHOW_PASSES)


def _targets() -> str:
    """Return the help text of --to."""
    from jaxsnn.nir.frameworks.registry import writable

    return (
        f"{', '.join(writable())}; NAME==VERSION for one version (default: the installed version)"
    )


def _range(text: str) -> tuple[float, float]:
    """Parse the two numbers of "LOW:HIGH"."""
    low, _, high = text.partition(":")
    try:
        return float(low), float(high)
    except ValueError as error:
        raise UsageError(
            Text("{option} is '{value}', not of the form LOW:HIGH", option=INPUT_RANGE, value=text),
            fix="pass two numbers, such as 0:1 for spikes",
        ) from error


def _show_passes(arguments: argparse.Namespace) -> int:
    """Print the passes of a conversion; exit code 0."""
    from jaxsnn.nir.convert.passes import ConversionRequest
    from jaxsnn.nir.convert.pipeline import passes_for
    from jaxsnn.nir.convert.target import target_of

    if arguments.file is not None:
        message = Text("{option} cannot be combined with FILE", option=_SHOW_PASSES)
        raise UsageError(message, fix="remove FILE, or remove the option")
    refuse_options_of_file(arguments)
    for option in (_TO_DT, INPUT_RANGE, FORCE):
        if getattr(arguments, option.name) not in (option.default, False):
            message = Text(
                "{option} has no effect with {show_passes}", option=option, show_passes=_SHOW_PASSES
            )
            raise UsageError(message, fix="remove the option")
    target = target_of(arguments.to)
    request = ConversionRequest(target=target, approximate=arguments.approximate)
    outcome = PassesOutcome(written_for=target.label, passes=tuple(passes_for(request)))
    print_outcome(arguments, outcome)
    return 0


def run(arguments: argparse.Namespace) -> int:
    """Convert a file, or show the passes; exit code 0."""
    if arguments.show_passes:
        return _show_passes(arguments)
    from jaxsnn.nir.convert.pipeline import convert
    from jaxsnn.nir.graphs.export import write
    from jaxsnn.output import refuse_unwritable

    output = str(refuse_unwritable(arguments.output, arguments.force))
    graph, dt = read_graph(arguments), time_of(arguments.to_dt)
    converted = convert(
        graph,
        to=arguments.to,
        approximate=arguments.approximate,
        dt=dt,
        path=output,
        input_range=_range(arguments.input_range),
    )
    write(output, converted.graph, arguments.force)
    outcome = ConvertOutcome(
        output=output,
        load_with=converted.load_with,
        run_with=converted.run_with,
        written_for=converted.written_for,
        changes=converted.changes,
        losses=converted.losses,
        shift=dict(converted.shift),
        notes=converted.notes,
    )
    add_notes(arguments, [*(f"lost: {loss}" for loss in outcome.losses), *outcome.notes])
    print_outcome(arguments, outcome)
    return 0
