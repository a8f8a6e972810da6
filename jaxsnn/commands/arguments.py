"""What all commands share: their options, reading FILE, and printing what they did."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn

from jaxsnn.errors import UsageError

if TYPE_CHECKING:
    from jaxsnn.nir import Graph
    from jaxsnn.nir.graph import Finding

_PER_NODE = "may be repeated as NODE:VALUE"
#: Options that say what a NIR file does not, and what they mean.
DIALECT_OPTIONS = {
    "dialect": (
        "NAME",
        "who wrote the file: auto, nir, snntorch, norse, sinabs, rockpool, spyx, spikingjelly, jaxsnn, hxtorch",
    ),
    "dt": ("TIME", "length of a time step, such as 100us"),
    "dt-export": ("TIME", "Norse: the dt that its exporter was given"),
    "time-unit": ("UNIT", "unit of the file's time constants: s, ms or step"),
    "reset": ("KIND", f"zero, subtract or none; {_PER_NODE}"),
    "reset-delay": ("BOOL", f"true: a spike resets one step later; {_PER_NODE}"),
    "norm-input": ("BOOL", f"Sinabs: true or false; {_PER_NODE}"),
    "spike-kernel": ("KIND", f"delta or box; {_PER_NODE}"),
    "initial": ("KIND", f"where V starts: zero, v_leak or v_reset; {_PER_NODE}"),
    "readout": ("NODE", "a spiking node that was trained as a leaky readout; may be repeated"),
}
_REPEATED = ("reset", "reset-delay", "norm-input", "spike-kernel", "initial", "readout")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are exceptions, so that they come out as one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}: see {self.prog} --help")


def add_command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    """A command with the options that all commands have."""
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, no notes")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="say more about what was decided"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def add_file(
    parser: argparse.ArgumentParser, *, dialect_flags: tuple[str, ...] = ("--dialect",)
) -> None:
    """The NIR file, and the options that say what it does not; `--dialect` may have other names."""
    parser.add_argument("file", metavar="FILE", help="a NIR file")
    group = parser.add_argument_group("what a NIR file does not say")
    for name, (metavar, text) in DIALECT_OPTIONS.items():
        flags = dialect_flags if name == "dialect" else (f"--{name}",)
        action = "append" if name in _REPEATED else "store"
        group.add_argument(
            *flags, dest=name.replace("-", "_"), metavar=metavar, help=text, action=action
        )


def add_output(parser: argparse.ArgumentParser, metavar: str, text: str, **options: Any) -> None:
    """An output file, and what allows to overwrite it."""
    parser.add_argument("-o", "--output", metavar=metavar, help=text, **options)
    parser.add_argument("--force", action="store_true", help="overwrite files that exist")


def add_threshold(parser: argparse.ArgumentParser) -> None:
    """How the event engine plays a Threshold."""
    parser.add_argument(
        "--threshold",
        metavar="READING",
        help="event engine: a Threshold is a level (default), or an event at each upward crossing",
    )


def read_graph(arguments: argparse.Namespace, *, notes: bool = True) -> Graph:
    """The graph of FILE; with `notes`, what the reader found goes to stderr."""
    from jaxsnn.nir import read

    graph = read(arguments.file, **dialect_options(arguments))
    if notes:
        note_findings(arguments, (*graph.repairs, *graph.warnings))
        if arguments.verbose:
            add_note(arguments, f"dialect {graph.dialect.name}: {graph.dialect.why}")
    return graph


def dialect_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was said of the file, as `jaxsnn.nir.read` takes it."""
    names = [name.replace("-", "_") for name in DIALECT_OPTIONS]
    return {name: getattr(arguments, name) for name in names} | {
        "dialect": arguments.dialect or "auto"
    }


def note_findings(arguments: argparse.Namespace, findings: Iterable[Finding]) -> None:
    """Say what the reader found."""
    for finding in findings:
        add_note(arguments, f"{finding.node or 'graph'}: {finding.what} ({finding.why})")


def add_note(arguments: argparse.Namespace, text: str) -> None:
    """Say something on stderr, unless it was asked to be quiet."""
    if not arguments.quiet:
        print(f"jaxsnn: note: {text}", file=sys.stderr)


def progress(arguments: argparse.Namespace) -> Any:
    """A function that prints a line of progress to stderr, or None."""
    return None if arguments.quiet else lambda line: print(line, file=sys.stderr, flush=True)


def print_json(content: Any) -> None:
    """Print one JSON object."""
    from jaxsnn.output import as_json

    print(as_json(content))


def time_of(text: str | None) -> float | None:
    """Seconds of a time that may be absent."""
    from jaxsnn.units import parse_time

    return None if text is None else parse_time(text)


def print_outcome(arguments: argparse.Namespace, outcome: Any) -> None:
    """Every outcome is a record with `as_dict` and `as_text`."""
    if arguments.json:
        print_json(outcome.as_dict())
    else:
        print(outcome.as_text())
