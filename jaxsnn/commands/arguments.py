"""Code that all commands share: parsers built from options, reading FILE, and printing the outcome."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NoReturn

from jaxsnn.commands.example_calls import EXAMPLES
from jaxsnn.commands.remarks import line_of, similar_lines
from jaxsnn.console import print_arriving, to_stderr
from jaxsnn.errors import EnvironmentWarning, Problem, UsageError, printable, suggestion
from jaxsnn.options import (
    BIAS,
    BIAS_PERIOD,
    DEBUG,
    DIALECT,
    FORCE,
    JSON,
    MAX_BYTES,
    OUTPUT,
    PER_NODE,
    PERCENTILE,
    QUIET,
    READ_TIMEOUT,
    SCALE,
    VERBOSE,
)
from jaxsnn.wording import Option, Text

if TYPE_CHECKING:
    from jaxsnn.network.network import Network
    from jaxsnn.nir import Graph
    from jaxsnn.nir.model.changes import Change

#: Metavariables of the options of frameworks, by kind.
_METAVARS = {"time": "TIME", "bool": "BOOL", "number": "V", "choice": "KIND"}
#: Name of the attribute of a parser's action that holds its `Option`.
OPTION = "option"
#: Commands that read no file of the user.
_WITHOUT_FILES = ("conformance", "demo", "doctor")


class Parser(argparse.ArgumentParser):
    """Argument parser that raises its errors as exceptions, so that they are shown in one line.

    Data from the register of frameworks, which loads NumPy, are only loaded when the parser is
    used: `when_used`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._waiting: list[Callable[[], None]] = []
        self._arguments: Sequence[str] = ()
        self._waiver = ""
        #: Parsers of the commands by name.
        self.commands: Mapping[str, Parser] = {}
        #: Purpose and arguments of calls that the help shows.
        self.examples: Sequence[tuple[str, str]] = ()

    def when_used(self, complete: Callable[[], None]) -> None:
        """Register a callable that runs before the parser parses or prints anything."""
        self._waiting.append(complete)

    def need_no_files_with(self, option: Option) -> None:
        """Make the positional arguments optional if a switch is set."""
        self._waiver = option.long_flag

    def complete(self) -> None:
        """Run the callables registered with `when_used`."""
        waiting, self._waiting = self._waiting, []
        for step in waiting:
            step()

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        """Parse as argparse does, with all options registered, and accept negative option
        values.
        """
        self.complete()
        self._arguments = args or ()
        words = self._join_negative_values(sys.argv[1:] if args is None else args)
        if self._waives_files(words):
            for action in self._get_positional_actions():
                action.required = False
        parsed, unknown = super().parse_known_args(words, namespace)
        for word in unknown:
            if word.startswith("--"):  # refused here, where the options of the command are known
                raise self._stranger(word.partition("=")[0])
        return parsed, unknown

    def _waives_files(self, words: Sequence[str]) -> bool:
        """Return whether the switch of `need_no_files_with` is set, perhaps abbreviated."""
        options = words[: words.index("--")] if "--" in words else words
        flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
        return bool(self._waiver) and any(
            word == self._waiver
            or [flag for flag in flags if flag.startswith(word)] == [self._waiver]
            for word in options
            if len(word) > 2
        )

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

    def takes(self, flag: str) -> bool:
        """Return whether the command has an option that is not hidden."""
        action = self._option_string_actions.get(flag)
        return action is not None and action.help != argparse.SUPPRESS

    def format_help(self) -> str:
        """Return the help text of argparse, with all options registered, and the examples."""
        self.complete()
        examples = [
            f"  {f'{self.prog} {arguments}'.rstrip()}\n      {purpose}\n"
            for purpose, arguments in self.examples
        ]
        heading = "\nexamples:\n" if examples else ""
        return f"{super().format_help()}{heading}{''.join(examples)}"

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print the text of --help or --version; unlike argparse, report failed writes."""
        print_arriving(message, end="", file=file, flush=True)

    def error(self, message: str) -> NoReturn:
        flags = [word.partition("=")[0] for word in self._arguments if word.startswith("--")]
        long_options = [flag for flag in self._option_string_actions if flag.startswith("--")]
        odd = [
            flag for flag in flags if not any(option.startswith(flag) for option in long_options)
        ]
        if odd and "required" in message:  # argparse reports missing arguments first
            raise self._stranger(odd[0])
        raise UsageError(message, fix=f"see {self.prog} --help")

    def _stranger(self, flag: str) -> UsageError:
        """Return the error for an option that does not exist."""
        offered = [action for action in self._actions if action.help != argparse.SUPPRESS]
        long_options = [
            name for action in offered for name in action.option_strings if name.startswith("--")
        ]
        return UsageError(
            Text("{command} has no option '{option}'", command=self.prog, option=flag),
            fix=suggestion(flag, long_options),
        )


# Options


def add_command(commands: Any, name: str, run: Any, text: str, *options: Option) -> Parser:
    """Return the parser of a command, with the options that all commands have.

    Args:
        run: Function that runs the command; it takes the parsed arguments and returns the exit
            code.
        text: Short description of the command.
        options: Options of the command.
    """
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.examples = EXAMPLES.get(name, ())
    parser.set_defaults(run=run)
    limits = () if name in _WITHOUT_FILES else (READ_TIMEOUT, MAX_BYTES)
    for option in (JSON, QUIET, VERBOSE, DEBUG, *limits, *options):
        add_option(parser, option)
    return parser


def add_option(parser: Parser, option: Option, group: Any = None) -> argparse.Action:
    """Add an option to the parser of a command.

    Args:
        group: argument group of the parser in which the help lists the option; None: the default.
    """
    keywords: dict[str, Any] = {"dest": option.name, "required": option.required}
    if option.is_switch:
        keywords["action"] = "store_true"
    else:
        keywords |= {"metavar": option.metavar or None, "default": option.default}
        keywords |= {"choices": option.choices or None} if not option.repeated else {}
        keywords |= {"action": "append"} if option.repeated else {"type": _converter(option)}
    flags = (*option.other_flags, option.long_flag)
    action = (parser if group is None else group).add_argument(*flags, **keywords)
    setattr(action, OPTION, option)
    if isinstance(option.help, str):
        action.help = option.help
    else:  # the text loads the descriptions of all frameworks
        parser.when_used(lambda: setattr(action, "help", option.help_text))
    return action


def _converter(option: Option) -> Callable[[str], Any] | None:
    """Return the type with which argparse converts the text of a value."""
    convert = option.convert
    if convert in (None, int, float):  # argparse names these types in its messages
        return convert

    def converted(text: str) -> Any:
        assert convert is not None
        try:
            return convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return converted


def limits_of(arguments: argparse.Namespace) -> AbstractContextManager[None]:
    """Return a context manager that applies the reading limits of the command line."""
    if not hasattr(arguments, "read_timeout"):
        return nullcontext()
    from jaxsnn.files.read_limits import limit_reading

    timeout = time_of(arguments.read_timeout)
    return limit_reading(max_bytes=arguments.max_bytes, read_timeout=timeout)


def add_file(parser: Parser, *, dialect: Option = DIALECT, optional: bool = False) -> None:
    """Add the NIR file as an argument, and the options for conventions that it leaves open.

    Args:
        dialect: the option DIALECT, perhaps with further flags.
    """
    parser.add_argument(
        "file", metavar="FILE", help="NIR file to read", nargs="?" if optional else None
    )
    group = parser.add_argument_group("conventions that a NIR file does not specify")

    def complete() -> None:
        for option in _file_options(dialect):
            add_option(parser, option, group)
        parser.complete()

    parser.when_used(complete)


def _file_options(dialect: Option = DIALECT) -> list[Option]:
    """Return the options of `jaxsnn.read`, described for the command line."""
    from jaxsnn.nir.frameworks.registry import file_options, framework_options, frameworks

    options = []
    options_of_frameworks = framework_options()
    for name, option in file_options().items():
        if name in options_of_frameworks:
            kind = options_of_frameworks[name].kind
            per_node = kind != "time"
            help_text = f"{option.help_text}; {PER_NODE}" if per_node else option.help_text
            option = option.but(metavar=_METAVARS[kind], repeated=per_node, help=help_text)
        if option is DIALECT:
            option = dialect.but(help=f"{option.help_text}; frameworks: {', '.join(frameworks())}")
        options.append(option)
    return options


def output_options(metavar: str, text: str, **changes: Any) -> tuple[Option, Option]:
    """Return the option for an output file, and the option that allows overwriting it."""
    return OUTPUT.but(metavar=metavar, help=text, **changes), FORCE


def refuse_report(arguments: argparse.Namespace) -> None:
    """Refuse a report that cannot be written, before the command does its work."""
    from jaxsnn.output import refuse_unwritable

    if arguments.report is None:
        return
    if not arguments.report.lower().endswith((".html", ".htm")):
        raise UsageError(
            Text("a report is an .html file, not '{path}'", path=arguments.report),
            fix="pass a file name that ends in .html",
        )
    refuse_unwritable(arguments.report, arguments.force)


def write_report(arguments: argparse.Namespace, make: Callable[..., str], *parts: Any) -> None:
    """Write the report, if one was requested.

    Args:
        make: returns the HTML page.
        parts: further arguments of `make`.
    """
    if arguments.report is None:
        return
    from jaxsnn.output import write_atomically

    text = make(arguments, *parts)
    write_atomically(arguments.report, text, arguments.force)
    if not arguments.quiet:
        to_stderr(f"jaxsnn: report: {arguments.report}")


# Values of options


def quantization_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return those options of QUANTIZE_OPTIONS that are set, as fields of `QuantizeOptions`."""
    from jaxsnn.bss2.search.measured_slopes import slopes_of

    option_names = (
        *("scale", "percentile", "synapses_per_weight", "speedup"),
        *("bias", "v_leak", "v_threshold"),
    )
    set_options = {name: getattr(arguments, name) for name in option_names}
    for name in ("bias_period", "refractory_time"):
        set_options[name] = time_of(getattr(arguments, name))
    if arguments.bias_period is not None and arguments.bias != "source":
        raise UsageError(
            Text(
                "{option} has no effect without {bias}",
                option=BIAS_PERIOD.set_to(arguments.bias_period),
                bias=BIAS.set_to("source"),
            ),
            fix=Text("remove the option, or pass {bias}", bias=BIAS.set_to("source")),
        )
    if arguments.percentile is not None and arguments.scale != "percentile":
        raise UsageError(
            Text(
                "{option} has no effect without {scale}",
                option=PERCENTILE.set_to(arguments.percentile),
                scale=SCALE.set_to("percentile"),
            ),
            fix=Text("remove the option, or pass {scale}", scale=SCALE.set_to("percentile")),
        )
    set_options["slope"] = None if arguments.slope is None else slopes_of(arguments.slope)
    set_options["approximate"] = arguments.approximate or None
    return {name: value for name, value in set_options.items() if value is not None}


def dialect_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options that describe the file, as keyword arguments of `jaxsnn.nir.read`."""
    from jaxsnn.nir.frameworks.registry import file_options

    values = {name: getattr(arguments, name) for name in file_options()}
    return values | {"dialect": arguments.dialect or "auto"}


def refuse_options_of_file(arguments: argparse.Namespace) -> None:
    """Refuse options for reading FILE if there is no FILE.

    Raises:
        UsageError: the first such option.
    """
    for option in _file_options():
        if getattr(arguments, option.name) not in (None, []):
            message = Text("{option} has no effect without FILE", option=option)
            raise UsageError(message, fix="pass a NIR file, or remove the option")


def read_graph(arguments: argparse.Namespace, *, notes: bool = True) -> Graph:
    """Read the graph of FILE; with `notes`, report repairs and warnings of the reader on stderr."""
    from jaxsnn.nir import read

    graph = read(arguments.file, **dialect_options(arguments))
    if notes:
        add_notes(arguments, (*graph.repairs, *graph.warnings))
        if arguments.verbose:
            add_notes(arguments, [f"dialect {graph.dialect.name}: " + graph.dialect.why])
    return graph


def refuse_no_population(network: Network, name: str) -> None:
    """Refuse a name that no population of a network has.

    Raises:
        UsageError: The population does not exist.
    """
    if name not in network.populations:
        raise UsageError(
            Text("there is no population '{node}'", node=name),
            fix=suggestion(name, network.populations),
        )


def time_of(text: str | None) -> float | None:
    """Return a time in seconds, or None if it is absent."""
    from jaxsnn.units import parse_time

    return None if text is None else parse_time(text)


# Output


def add_notes(arguments: argparse.Namespace, remarks: Iterable[str | Problem | Change]) -> None:
    """Add remarks to the notes for JSON and print them on stderr, unless the command is quiet; many
    similar remarks are summarised on stderr.
    """
    remarks = list(remarks)
    arguments.notes = [*_notes_of(arguments), *map(line_of, remarks)]
    if not arguments.quiet:
        for line in similar_lines(remarks, kind="notes", prefix="jaxsnn: note: "):
            to_stderr(line)


@contextmanager
def warnings_as_notes(arguments: argparse.Namespace) -> Iterator[None]:
    """Turn each `EnvironmentWarning` that is issued inside the context into a note of the command."""
    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=EnvironmentWarning)
        show = warnings.showwarning

        def show_as_note(message: Any, category: Any, *details: Any, **options: Any) -> None:
            if issubclass(category, EnvironmentWarning):
                add_notes(arguments, [str(message)])
            else:
                show(message, category, *details, **options)

        warnings.showwarning = show_as_note
        yield


def _notes_of(arguments: argparse.Namespace) -> list[str]:
    """Return the notes that `add_notes` has collected."""
    return getattr(arguments, "notes", [])


def _content(arguments: argparse.Namespace, outcome: Any) -> dict[str, Any]:
    """Return the JSON content of an outcome; its notes include those of `add_notes`, in the words
    of the command line.
    """
    content = outcome.as_dict()
    if "notes" in content or hasattr(arguments, "notes"):
        note_lines = (*_notes_of(arguments), *map(line_of, content.get("notes", ())))
        content["notes"] = list(dict.fromkeys(note_lines))
    return content


def print_outcome(arguments: argparse.Namespace, outcome: Any) -> None:
    """Print an outcome, a record with `as_dict` and `as_text`, as JSON or as text."""
    if arguments.json:
        from jaxsnn.output import as_json

        text = as_json(_content(arguments, outcome))
    else:
        text = printable(outcome.as_text())
    print_arriving(text)
