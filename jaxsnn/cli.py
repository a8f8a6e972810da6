"""The command line: arguments in, text or JSON out. What the commands do is done elsewhere.

Nothing that needs JAX is imported before a command needs it, so that `info` and `--help` are quick.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from jaxsnn import __version__
from jaxsnn.errors import JaxsnnError, UsageError, suggestion

if TYPE_CHECKING:
    from jaxsnn.nir import Graph

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


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are exceptions, so that they come out as one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}: see {self.prog} --help")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(prog="jaxsnn", description="Spiking neural networks from NIR files, event by event.")
    parser.add_argument("--version", action="version", version=f"jaxsnn-nir {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    _add_info(commands)
    _add_train(commands)
    _add_run(commands)
    _add_demo(commands)
    _add_doctor(commands)
    return parser


def _add_command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    """A command with the options that all commands have."""
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, no notes")
    parser.add_argument("-v", "--verbose", action="store_true", help="say more about what was decided")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _add_file(parser: argparse.ArgumentParser) -> None:
    """The NIR file, and the options that say what it does not."""
    parser.add_argument("file", metavar="FILE", help="a NIR file")
    group = parser.add_argument_group("what a NIR file does not say")
    for name, (metavar, text) in DIALECT_OPTIONS.items():
        group.add_argument(f"--{name}", metavar=metavar, help=text, action="append" if name in _REPEATED else "store")


def _add_output(parser: argparse.ArgumentParser, metavar: str, text: str, **options: Any) -> None:
    parser.add_argument("-o", "--output", metavar=metavar, help=text, **options)
    parser.add_argument("--force", action="store_true", help="overwrite files that exist")


def _add_info(commands: Any) -> None:
    parser = _add_command(commands, "info", _info, "show what is in a NIR file, and what it does not say")
    _add_file(parser)


def _add_train(commands: Any) -> None:
    parser = _add_command(commands, "train", _train, "train the network of a NIR file with exact gradients")
    _add_file(parser)
    parser.add_argument(
        "--data", metavar="D", required=True, help="yinyang, or an .npz with x_train, y_train, x_test, y_test"
    )
    _add_output(parser, "OUT.nir", "the trained file; its history goes to OUT.history.json", required=True)
    parser.add_argument("--loss", default="ttfs", help="ttfs: cross-entropy of first spike times (default)")
    parser.add_argument("--epochs", type=int, default=50, help="default 50")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="default 64")
    parser.add_argument("--lr", type=float, default=0.01, help="step of a weight in units of its kick (default 0.01)")
    parser.add_argument("--seed", type=int, default=0, help="of the data and their order (default 0)")
    _add_engine(parser)


def _add_run(commands: Any) -> None:
    parser = _add_command(commands, "run", _run, "simulate the network of a NIR file")
    _add_file(parser)
    parser.add_argument(
        "--input", metavar="X.npz", required=True, help="x (time, batch, channels), or time and index (batch, events)"
    )
    _add_output(parser, "OUT.npz", "what leaves the network", required=True)
    _add_engine(parser)
    parser.add_argument(
        "--max-spikes", type=int, metavar="N", help="fail where a neuron fires more often (default: never)"
    )


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--engine", default="event", help="event: exact, in continuous time (default)")
    parser.add_argument("--t-end", metavar="TIME", help="end of a sample, such as 40ms")


def _add_demo(commands: Any) -> None:
    parser = _add_command(commands, "demo", _demo, "do the main job: read, simulate, train, export, compare")
    _add_output(parser, "DIR", "folder for the results (default jaxsnn-demo)", default="jaxsnn-demo")
    parser.add_argument("--epochs", type=int, default=50, help="default 50")
    parser.add_argument("--seed", type=int, default=0, help="default 0")


def _add_doctor(commands: Any) -> None:
    _add_command(commands, "doctor", _doctor, "show versions, devices and extras")


def _read(arguments: argparse.Namespace) -> Graph:
    """The graph of FILE; what the reader found goes to stderr."""
    from jaxsnn.nir import read

    options = {name.replace("-", "_"): getattr(arguments, name.replace("-", "_")) for name in DIALECT_OPTIONS}
    dialect = options.pop("dialect") or "auto"
    graph = read(arguments.file, dialect=dialect, **options)
    if arguments.run is not _info:
        for finding in (*graph.repairs, *graph.warnings):
            _note(arguments, f"{finding.node or 'graph'}: {finding.what} ({finding.why})")
        if arguments.verbose:
            _note(arguments, f"dialect {graph.dialect.name}: {graph.dialect.why}")
    return graph


def _note(arguments: argparse.Namespace, text: str) -> None:
    if not arguments.quiet:
        print(f"jaxsnn: note: {text}", file=sys.stderr)


def _progress(arguments: argparse.Namespace) -> Any:
    return None if arguments.quiet else lambda line: print(line, file=sys.stderr, flush=True)


def _print_json(content: Any) -> None:
    from jaxsnn.output import as_json

    print(as_json(content))


def _info(arguments: argparse.Namespace) -> int:
    from jaxsnn.nir.info import as_json, as_text

    graph = _read(arguments)
    print(as_json(graph) if arguments.json else as_text(graph))
    return 0


def _only_event(arguments: argparse.Namespace) -> None:
    if arguments.engine != "event":
        raise UsageError(f"there is no engine '{arguments.engine}' so far: {suggestion(arguments.engine, ['event'])}")


def _time(text: str | None) -> float | None:
    from jaxsnn.units import parse_time

    return None if text is None else parse_time(text)


def _train(arguments: argparse.Namespace) -> int:
    from jaxsnn.output import refuse_unwritable

    _only_event(arguments)
    output = refuse_unwritable(arguments.output, arguments.force)
    refuse_unwritable(output.with_suffix(".history.json"), arguments.force)
    graph, t_end = _read(arguments), _time(arguments.t_end)

    from jaxsnn.train.command import train_file

    outcome = train_file(
        graph,
        arguments.data,
        output,
        force=arguments.force,
        loss=arguments.loss,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.lr,
        seed=arguments.seed,
        t_end=t_end,
        progress=_progress(arguments),
    )
    for note in outcome.notes:
        _note(arguments, note)
    _print_outcome(arguments, outcome)
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from jaxsnn.output import refuse_unwritable

    _only_event(arguments)
    output = refuse_unwritable(arguments.output, arguments.force)
    graph, t_end = _read(arguments), _time(arguments.t_end)

    from jaxsnn.play import run_file

    outcome = run_file(
        graph,
        arguments.input,
        output,
        t_end=t_end,
        max_spikes=arguments.max_spikes,
        force=arguments.force,
    )
    _print_outcome(arguments, outcome)
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from jaxsnn.demo import demo, step_text

    def show(number: int, step: Any) -> None:
        if not arguments.json:
            print(step_text(number, step), flush=True)

    report = demo(
        arguments.output,
        force=arguments.force,
        epochs=arguments.epochs,
        seed=arguments.seed,
        step_done=show,
        progress=_progress(arguments),
    )
    _print_outcome(arguments, report)
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from jaxsnn.doctor import diagnose

    _print_outcome(arguments, diagnose())
    return 0


def _print_outcome(arguments: argparse.Namespace, outcome: Any) -> None:
    """Every outcome is a record with `as_dict` and `as_text`."""
    if arguments.json:
        _print_json(outcome.as_dict())
    else:
        print(outcome.as_text())


def main(argv: Sequence[str] | None = None) -> int:
    """The command `jaxsnn`: 0 fine, 1 the input has problems, 2 usage or tool failure."""
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        arguments = build_parser().parse_args(argv)
        return arguments.run(arguments)
    except JaxsnnError as error:
        return _failed(argv, " ".join(str(error).split()), error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()  # who read our output has gone, which is no error of ours
        return 0
    except KeyboardInterrupt:
        return _failed(argv, "interrupted", 2)
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else "no message"
        return _failed(
            argv, f"unexpected {type(error).__name__}: {first}: please report it, with what --debug shows", 2
        )


def _failed(argv: Sequence[str], message: str, code: int) -> int:
    """Report the exception that is being handled."""
    if "--debug" in argv:
        traceback.print_exc()
    print(f"jaxsnn: error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
