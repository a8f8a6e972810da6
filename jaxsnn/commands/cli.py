"""The command line: it dispatches to the commands, and prints their errors.

Nothing is imported before a command needs it, so that `info` and `--help` are quick.
"""

from __future__ import annotations

import argparse
import gc
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from types import ModuleType

from jaxsnn import commands as command_package
from jaxsnn.commands.arguments import Parser, limits_of, warnings_as_notes
from jaxsnn.commands.remarks import line_of
from jaxsnn.console import print_arriving, progress_reports, to_stderr
from jaxsnn.errors import FileError, JaxsnnError, Problem, UsageError
from jaxsnn.output import as_json, refuse_shared
from jaxsnn.version import __version__
from jaxsnn.wording import Text, advice_for

#: Order of commands in `--help`; commands that are missing here follow by name.
_ORDER = (
    "info",
    "train",
    "tune",
    "run",
    "check",
    "matrix",
    "draw",
    "plot",
    "convert",
    "map",
    "deploy",
    "chip",
    "emulate",
    "compare",
    "verify",
    "fidelity",
    "conformance",
    "demo",
    "doctor",
    "completion",
)


def command_names() -> tuple[str, ...]:
    """Return the names of the commands, those of the files NAME_command.py beside this one."""
    suffix = "_command.py"
    files = [file for folder in command_package.__path__ for file in os.listdir(folder)]
    commands = {file.removesuffix(suffix) for file in files if file.endswith(suffix)}
    ordered = [name for name in _ORDER if name in commands]
    return (*ordered, *sorted(commands - set(ordered)))


#: Commands. The file of each has `add`, which adds its parser, and `run`, which executes it.
COMMANDS = command_names()
#: Arguments that name a file to read.
_SOURCES = (
    "file",
    "input",
    "recording",
    "data",
    "verify",
    "mapping",
    "config",
    "before",
    "slope",
)
#: Arguments that name a file to write, and their options.
_WRITTEN = {
    "output": "-o",
    "svg": "--svg",
    "plot": "--plot",
    "report": "--report",
    "junit": "--junit",
}


def command_module(name: str) -> ModuleType:
    """Return the module of a command."""
    return import_module(f"jaxsnn.commands.{name}_command")


def build_parser(only: str | None = None) -> Parser:
    """Return the parser of all commands, or of a single one; then the modules of the others are not imported."""
    parser = Parser(
        prog="jaxsnn",
        description="Simulate, train, convert and deploy spiking neural networks from NIR files.",
    )
    parser.add_argument("--version", action="version", version=f"jaxsnn-nir {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for name in COMMANDS if only is None else (only,):
        command_module(name).add(commands)
    parser.commands = commands.choices
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command `jaxsnn`; exit code 0: success, 1: the input has problems, 2: usage error or
    tool failure.

    Args:
        argv: arguments; None: those of the process, in which nothing else runs.
    """
    if argv is None:
        with _seldom_tidied():
            return main(sys.argv[1:])
    if sys.stderr is None:  # if it is closed, its text must not go to stdout
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for terminals that lack some characters
    with _ended_by_signals(), ExitStack() as stack:
        return _outcome(list(argv), stack)


@contextmanager
def _seldom_tidied() -> Iterator[None]:
    """Reduce garbage collection while the context lasts, and skip it at exit: imports and traces
    create many objects and little garbage, and collection took a fifth of a short command's time.
    """
    gc.set_threshold(100_000, 20, 20)
    try:
        yield
    finally:
        gc.freeze()


def _single(argv: Sequence[str]) -> str | None:
    """Return the command named on the command line; None where all commands are needed, as for
    `completion`.
    """
    return argv[0] if argv and argv[0] in COMMANDS and argv[0] != "completion" else None


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Handle SIGTERM as Ctrl-C while the context lasts: temporary files are removed, complete files
    stay.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _outcome(argv: Sequence[str], stack: ExitStack) -> int:
    """Run a command and return its exit code.

    Args:
        stack: receives the context in which errors are reported: the flags of the command.
    """
    try:
        name = _single(argv)
        parser = build_parser(name)
        if not argv:
            print_arriving(parser.format_help(), end="", flush=True)
            return 0
        if name is not None:
            stack.enter_context(advice_for(parser.commands[name].takes))
        arguments = parser.parse_args(argv)
        arguments.argv = argv
        _refuse_own_input(arguments)
        with (
            limits_of(arguments),
            warnings_as_notes(arguments),
            progress_reports(not arguments.quiet),
        ):
            code = arguments.run(arguments)
        print_arriving(end="", flush=True)
        return code
    except JaxsnnError as error:
        return _failed(argv, error.problem, error.exit_code)
    except KeyboardInterrupt:
        return _failed(argv, Problem(code="interrupted", message="interrupted"), 2)
    except MemoryError:
        message = "not enough memory"
        return _failed(
            argv,
            Problem(
                code="memory",
                message=message,
                fix="reduce the batch, the number of samples or the network",
            ),
            2,
        )
    except Exception as error:
        return _failed(argv, _unexpected(error), 2)


def _unexpected(error: Exception) -> Problem:
    """Return the problem that reports an unexpected error."""
    try:
        os.getcwd()
    except OSError:
        message = "the current folder no longer exists"
        return Problem(code="file", message=message, fix="change to an existing folder")
    if "jax" in sys.modules:
        from jaxsnn.commands.doctor_command import missing_device

        if (problem := missing_device()) is not None:
            return problem
    first = str(error).splitlines()[0] if str(error) else "no message"
    return Problem(
        code="unexpected",
        message=Text("unexpected {type}: {error}", type=type(error).__name__, error=first),
        fix="please report it, with the output of --debug",
    )


def _refuse_own_input(arguments: argparse.Namespace) -> None:
    """Refuse files that are named twice, and standard output, which is not a file; `train` and
    `deploy` also check the files that they write next to them.
    """
    text_arguments = {
        name: value for name, value in vars(arguments).items() if isinstance(value, str)
    }
    sources = [text_arguments[name] for name in _SOURCES if name in text_arguments]
    written = {
        flag: text_arguments[name] for name, flag in _WRITTEN.items() if name in text_arguments
    }
    for flag, path in written.items():
        if path == "-":
            message = Text(
                "{option} is '-', but files cannot be written to standard output", option=flag
            )
            raise UsageError(message, fix="pass a file name (./- for a file that is named '-')")
    refuse_shared(sources, written)


def _failed(argv: Sequence[str], problem: Problem, code: int) -> int:
    """Report the exception that is being handled; with --json on stdout, too."""
    if "--debug" in argv:
        to_stderr(traceback.format_exc().rstrip())
    to_stderr(f"jaxsnn: error: {line_of(problem)}")
    if "--json" in argv:
        error = {key: text for key, text in problem.as_dict().items() if key != "severity"}
        with suppress(FileError):
            print_arriving(as_json({"schema": 1, "ok": False, "error": error}), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
