"""What all commands share: their options, reading FILE, and printing what they did."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NoReturn

from jaxsnn.commands.remarks import line_of, similar_lines
from jaxsnn.errors import FileError, Problem, UsageError, flag_name, printable, suggestion

if TYPE_CHECKING:
    from jaxsnn.network.network import Network
    from jaxsnn.nir import Graph
    from jaxsnn.nir.model.changes import Change

_PER_NODE = "may be repeated as NODE:VALUE"
#: Options that say what a NIR file does not, and what they mean. Those that single frameworks have
#: come after --dt.
_COMMON_OPTIONS = {
    "dialect": (
        "NAME",
        "who wrote the file: auto (default: from the numbers, or refused), {names}; "
        "NAME==VERSION where versions differ",
    ),
    "dt": ("TIME", "length of a time step, such as 100us"),
    "time-unit": ("UNIT", "unit of the file's time constants: s, ms or step"),
    "reset": (
        "KIND",
        f"zero (V becomes v_reset), subtract (V loses v_threshold) or none; {_PER_NODE}",
    ),
    "reset-delay": ("BOOL", f"true: a spike resets one step later; {_PER_NODE}"),
    "spike-kernel": ("KIND", f"a spike is a delta, or a box that lasts one step; {_PER_NODE}"),
    "initial": ("KIND", f"where V starts: zero, v_leak or v_reset; {_PER_NODE}"),
    "readout": (
        "NODE",
        "a neuron that spikes in the file but was trained as a leaky readout, or whose membrane was recorded: "
        "then say its reset, too; may be repeated",
    ),
}
#: What the own options of frameworks take, by kind.
_METAVARS = {"time": "TIME", "bool": "BOOL", "number": "V", "choice": "KIND"}
#: Commands that read no file of the user's.
_WITHOUT_FILES = ("demo", "doctor")
_REPEATED = ("reset", "reset-delay", "spike-kernel", "initial", "readout")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are exceptions, so that they come out as one line.

    What it takes from the register of frameworks, which loads NumPy, it takes when it is used:
    `when_used`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._waiting: list[Callable[[], None]] = []
        self._given: Sequence[str] = ()

    def when_used(self, complete: Callable[[], None]) -> None:
        """Call something before the parser parses or prints anything."""
        self._waiting.append(complete)

    def complete(self) -> None:
        """Take what waits."""
        waiting, self._waiting = self._waiting, []
        for step in waiting:
            step()

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        """As argparse does, with all options, and with values that begin with a minus sign."""
        self.complete()
        self._given = args or ()
        words = self._join_negative_values(sys.argv[1:] if args is None else args)
        parsed, unknown = super().parse_known_args(words, namespace)
        for word in unknown:
            if word.startswith("--"):  # said here, where the options of the command are known
                raise self._stranger(word.partition("=")[0])
        return parsed, unknown

    def _join_negative_values(self, words: Sequence[str]) -> list[str]:
        """Return the words with `--option -5:5` as `--option=-5:5`.

        argparse takes a word that begins with "-" for an option, plain numbers excepted. Here only
        words that begin with "--", or with "-" and the letter of a short option, are options.
        """
        letters = {name[1] for name in self._option_string_actions if not name.startswith("--")}
        joined: list[str] = []
        for number, word in enumerate(words):
            if word == "--":
                return [*joined, *words[number:]]
            is_value = len(word) > 1 and word[0] == "-" and word[1] not in {"-", *letters}
            if is_value and joined and self._takes_value(joined[-1]):
                joined[-1] += f"={word}" if joined[-1].startswith("--") else word
            else:
                joined.append(word)
        return joined

    def _takes_value(self, word: str) -> bool:
        """Return whether a word is an option, perhaps abbreviated, that takes one value."""
        options = self._option_string_actions
        matches = [word] if word in options else [name for name in options if name.startswith(word)]
        if not word.startswith("--") and word not in options:
            return False
        return len(matches) == 1 and options[matches[0]].nargs is None

    def format_help(self) -> str:
        """As argparse does, with all options."""
        self.complete()
        return super().format_help()

    def _print_message(self, message: str, file: Any = None) -> None:
        """Of --help and --version; argparse passes over what cannot be written."""
        print_arriving(message, end="", file=file, flush=True)

    def error(self, message: str) -> NoReturn:
        flags = [word.partition("=")[0] for word in self._given if word.startswith("--")]
        known = [flag for flag in self._option_string_actions if flag.startswith("--")]
        odd = [flag for flag in flags if not any(one.startswith(flag) for one in known)]
        if odd and "required" in message:  # argparse looks for what is missing first
            raise self._stranger(odd[0])
        raise UsageError(message, fix=f"see {self.prog} --help")

    def _stranger(self, flag: str) -> UsageError:
        """The error on an option that does not exist."""
        offered = [own for own in self._actions if own.help != argparse.SUPPRESS]
        known = [name for own in offered for name in own.option_strings if name.startswith("--")]
        return UsageError(f"{self.prog} has no option '{flag}'", fix=suggestion(flag, known))


# Options


def add_command(commands: Any, name: str, run: Any, text: str) -> Parser:
    """A command with the options that all commands have.

    Args:
        run: does the work, from the parsed arguments to the exit code.
        text: what the command does, in a few words.
    """
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, no notes")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="say more about what was decided"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    if name not in _WITHOUT_FILES:
        parser.add_argument(
            "--read-timeout",
            metavar="TIME",
            default="60s",
            help="give up reading a file after this time (default 60s)",
        )
        parser.add_argument(
            "--max-bytes",
            type=int,
            metavar="N",
            help="of the arrays of a file, decoded (default 2147483648, or JAXSNN_MAX_BYTES)",
        )
    return parser


def limits_of(arguments: argparse.Namespace) -> AbstractContextManager[None]:
    """A context in which what was said of reading holds."""
    if not hasattr(arguments, "read_timeout"):
        return nullcontext()
    from jaxsnn.nir.io.read_limits import limit_reading

    timeout = time_of(arguments.read_timeout)
    return limit_reading(max_bytes=arguments.max_bytes, read_timeout=timeout)


def add_file(
    parser: Parser, *, dialect_flags: tuple[str, ...] = ("--dialect",), optional: bool = False
) -> None:
    """The NIR file, and the options that say what it does not; `--dialect` may have other names."""
    parser.add_argument("file", metavar="FILE", help="a NIR file", nargs="?" if optional else None)
    group = parser.add_argument_group("what a NIR file does not say")

    def complete() -> None:
        for name, (metavar, text, repeated) in _dialect_options().items():
            flags = dialect_flags if name == "dialect" else (f"--{name}",)
            action = "append" if repeated else "store"
            group.add_argument(
                *flags, dest=name.replace("-", "_"), metavar=metavar, help=text, action=action
            )

    parser.when_used(complete)


def _dialect_options() -> dict[str, tuple[str, str, bool]]:
    """Option -> what it takes, what it means, and whether it may be repeated."""
    from jaxsnn.nir.frameworks.registry import frameworks, own_options

    found = {}
    for name, (metavar, text) in _COMMON_OPTIONS.items():
        found[name] = (metavar, text.format(names=", ".join(frameworks())), name in _REPEATED)
        for option in own_options().values() if name == "dt" else ():
            flag, by_node = option.name.replace("_", "-"), option.kind != "time"
            help_text = f"{option.help}; {_PER_NODE}" if by_node else option.help
            found[flag] = (_METAVARS[option.kind], help_text, by_node)
    return found


def add_output(parser: argparse.ArgumentParser, metavar: str, text: str, **options: Any) -> None:
    """An output file, and what allows to overwrite it."""
    parser.add_argument("-o", "--output", metavar=metavar, help=text, **options)
    parser.add_argument("--force", action="store_true", help="overwrite files that exist")


def add_report(parser: argparse.ArgumentParser) -> None:
    """A page for people, beside what the command prints."""
    parser.add_argument(
        "--report", metavar="R.html", help="write what was done as one HTML page, pictures inside"
    )


def refuse_report(arguments: argparse.Namespace) -> None:
    """Refuse a report that could not be written, before the work."""
    from jaxsnn.output import refuse_unwritable

    if arguments.report is None:
        return
    if not arguments.report.lower().endswith((".html", ".htm")):
        raise UsageError(
            f"'{arguments.report}' is no .html file", fix="name one that ends in .html"
        )
    refuse_unwritable(arguments.report, arguments.force)


def write_report(arguments: argparse.Namespace, make: Callable[..., str], *parts: Any) -> None:
    """Write the report, if one was asked for.

    Args:
        make: gives the page; see `jaxsnn.commands.reports.run_reports`.
        parts: what it takes after the arguments.
    """
    if arguments.report is None:
        return
    from jaxsnn.output import write_whole

    text = make(arguments, *parts)
    write_whole(arguments.report, text, arguments.force)
    if not arguments.quiet:
        print(printable(f"jaxsnn: report: {arguments.report}"), file=sys.stderr)


def add_max_spikes(parser: argparse.ArgumentParser) -> None:
    """How many spikes of a neuron the event engine records."""
    parser.add_argument(
        "--max-spikes",
        type=_budget,
        metavar="N",
        default="auto",
        help='fail where a neuron fires more often (default "auto": all are recorded, up to 16384)',
    )


def _budget(text: str) -> int | str:
    """A whole number, or "auto"."""
    try:
        return text if text == "auto" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number, nor auto") from None


def add_values(parser: argparse.ArgumentParser) -> None:
    """What the values of an input by steps are."""
    parser.add_argument(
        "--values",
        default="auto",
        metavar="KIND",
        help="what x holds: spikes, a current that is held for each step, graded (a spike of that "
        "size in each step), or auto (default): spikes where all are whole numbers from 0, else a current",
    )


def add_quantization(parser: argparse.ArgumentParser) -> None:
    """How a network is brought onto the chip; a mapping is checked and deployed with what it was
    made with.
    """
    parser.add_argument(
        "--scale",
        help="max (default), percentile or least-error: of whole weights; not needed where M.json has its scales",
    )
    parser.add_argument("--percentile", type=float, metavar="P", help="for that scale (default 99)")
    parser.add_argument(
        "--synapses-per-weight",
        type=int,
        default=1,
        metavar="N",
        help="that may add up (default 1)",
    )
    parser.add_argument(
        "--speedup", type=float, metavar="F", help="of the chip (default 1000, or the nearest)"
    )
    parser.add_argument(
        "--slope",
        metavar="S|T.json",
        help="CADC LSB per us by which one LSB of a weight changes dV/dt on the chip, or a table",
    )
    parser.add_argument(
        "--bias",
        default="refuse",
        help="refuse (default); source: regular spikes stand in for biases",
    )
    parser.add_argument(
        "--bias-period", metavar="TIME", help="of the chip, between those spikes (default 1us)"
    )


# What was given


def quantization_of(arguments: argparse.Namespace, scales: Any = None) -> Any:
    """The options of `add_quantization` as `QuantizeOptions`.

    Args:
        scales: population -> scale, taken where no option names one.
    """
    from jaxsnn.bss2.search.measured_slopes import slopes_of
    from jaxsnn.bss2.search.quantize import QuantizeOptions

    names = ("percentile", "synapses_per_weight", "speedup", "bias")
    said = {name: getattr(arguments, name) for name in names}
    said["bias_period"] = time_of(arguments.bias_period)
    if arguments.bias_period is not None and arguments.bias != "source":
        raise UsageError(
            f"--bias-period {arguments.bias_period} has no effect here",
            fix="leave it out, or say --bias source, too",
        )
    if arguments.percentile is not None and arguments.scale != "percentile":
        raise UsageError(
            f"--percentile {arguments.percentile:g} has no effect here",
            fix="leave it out, or say --scale percentile, too",
        )
    return QuantizeOptions(
        scale=arguments.scale or scales or "max",
        slope=None if arguments.slope is None else slopes_of(arguments.slope),
        **{name: value for name, value in said.items() if value is not None},
    )


def dialect_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was said of the file, as `jaxsnn.nir.read` takes it."""
    names = [name.replace("-", "_") for name in _dialect_options()]
    return {name: getattr(arguments, name) for name in names} | {
        "dialect": arguments.dialect or "auto"
    }


def refuse_options_of_file(arguments: argparse.Namespace) -> None:
    """Refuse what is said of FILE where there is none.

    Raises:
        UsageError: the first such option.
    """
    for name in dialect_options(arguments):
        if getattr(arguments, name) not in (None, []):
            what = f"{flag_name(name)} has no effect without FILE"
            raise UsageError(what, fix="name a NIR file, or leave it out")


def read_graph(arguments: argparse.Namespace, *, notes: bool = True) -> Graph:
    """The graph of FILE; with `notes`, repairs and warnings of the reader go to stderr."""
    from jaxsnn.nir import read

    graph = read(arguments.file, **dialect_options(arguments))
    if notes:
        add_notes(arguments, (*graph.repairs, *graph.warnings))
        if arguments.verbose:
            add_notes(arguments, [f"dialect {graph.dialect.name}: {graph.dialect.why}"])
    return graph


def refuse_no_population(network: Network, name: str) -> None:
    """Refuse a name that no population of a network has.

    Raises:
        UsageError: there is none.
    """
    if name not in network.populations:
        raise UsageError(
            f"there is no population '{name}'", fix=suggestion(name, network.populations)
        )


def time_of(text: str | None) -> float | None:
    """Seconds of a time that may be absent."""
    from jaxsnn.units import parse_time

    return None if text is None else parse_time(text)


# What comes out


def add_notes(arguments: argparse.Namespace, remarks: Iterable[str | Problem | Change]) -> None:
    """Say something on stderr, unless it was asked to be quiet, and among the notes of JSON; of many
    similar remarks stderr has a summary.
    """
    remarks = list(remarks)
    arguments.notes = [*_notes_of(arguments), *map(line_of, remarks)]
    if not arguments.quiet:
        for line in similar_lines(remarks, kind="notes", prefix="jaxsnn: note: "):
            print(printable(line), file=sys.stderr)


def _notes_of(arguments: argparse.Namespace) -> list[str]:
    """What `add_notes` was told."""
    return getattr(arguments, "notes", [])


def _content(arguments: argparse.Namespace, outcome: Any) -> dict[str, Any]:
    """What an outcome has for JSON; its notes are all that were said, in the words of the command
    line.
    """
    content = outcome.as_dict()
    if "notes" in content or hasattr(arguments, "notes"):
        said = (*_notes_of(arguments), *map(line_of, content.get("notes", ())))
        content["notes"] = list(dict.fromkeys(said))
    return content


def print_outcome(arguments: argparse.Namespace, outcome: Any) -> None:
    """Every outcome is a record with `as_dict` and `as_text`."""
    if arguments.json:
        from jaxsnn.output import as_json

        text = as_json(_content(arguments, outcome))
    else:
        text = printable(outcome.as_text())
    print_arriving(text)


def print_arriving(text: str = "", **options: Any) -> None:
    """As `print`.

    Raises:
        FileError: it cannot be written, for a full disk, mostly.
    """
    try:
        print(text, **options)
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        # what is left in the buffer would fail again at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        message = f"the output cannot be written ({reason})"
        raise FileError(message, fix="make room, or lead it elsewhere") from error
