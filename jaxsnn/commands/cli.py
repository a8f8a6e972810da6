"""The command line: arguments in, text or JSON out. What the commands do is done elsewhere.

Nothing that needs JAX is imported before a command needs it, so that `info` and `--help` are quick.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from jaxsnn import __version__
from jaxsnn.commands.arguments import (
    Parser,
    add_command,
    add_file,
    add_note,
    add_output,
    add_threshold,
    print_outcome,
    progress,
    read_graph,
    time_of,
)
from jaxsnn.commands.file_commands import (
    add_check,
    add_convert,
    add_deploy,
    add_draw,
    add_fidelity,
    add_map,
    add_verify,
)
from jaxsnn.commands.train_command import add_train
from jaxsnn.errors import JaxsnnError, UsageError, suggestion
from jaxsnn.output import refuse_shared

#: Arguments that name a file to read.
_SOURCES = ("file", "input", "recording", "data", "verify", "mapping", "config")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = Parser(
        prog="jaxsnn", description="Spiking neural networks from NIR files, event by event."
    )
    parser.add_argument("--version", action="version", version=f"jaxsnn-nir {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    _add_info(commands)
    add_train(commands)
    _add_run(commands)
    add_check(commands)
    add_draw(commands)
    add_convert(commands)
    add_map(commands)
    add_deploy(commands)
    add_verify(commands)
    add_fidelity(commands)
    _add_demo(commands)
    _add_doctor(commands)
    return parser


def _add_info(commands: Any) -> None:
    parser = add_command(
        commands, "info", _info, "show what is in a NIR file, and what it does not say"
    )
    add_file(parser)


def _add_run(commands: Any) -> None:
    parser = add_command(commands, "run", _run, "simulate the network of a NIR file")
    add_file(parser)
    parser.add_argument(
        "--input",
        metavar="X.npz",
        required=True,
        help="x (time, batch, channels), or time and index (batch, events)",
    )
    add_output(parser, "OUT.npz", "what leaves the network", required=True)
    _add_engine(
        parser,
        "event: exact, in continuous time (default); grid: in steps, as the framework that wrote the file",
    )
    parser.add_argument(
        "--max-spikes",
        type=int,
        metavar="N",
        help="fail where a neuron fires more often (default: never)",
    )
    add_threshold(parser)


def _add_engine(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--engine", default="event", help=text)
    parser.add_argument("--t-end", metavar="TIME", help="end of a sample, such as 40ms")


def _add_demo(commands: Any) -> None:
    parser = add_command(
        commands, "demo", _demo, "do the main job: read, simulate, train, export, compare"
    )
    add_output(parser, "DIR", "folder for the results (default jaxsnn-demo)", default="jaxsnn-demo")
    parser.add_argument("--epochs", type=int, default=50, help="default 50")
    parser.add_argument("--seed", type=int, default=0, help="default 0")


def _add_doctor(commands: Any) -> None:
    add_command(commands, "doctor", _doctor, "show versions, devices and extras")


def _info(arguments: argparse.Namespace) -> int:
    from jaxsnn.nir.description import as_json, as_text

    graph = read_graph(arguments, notes=False)
    print(as_json(graph) if arguments.json else as_text(graph))
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from jaxsnn.output import refuse_unwritable

    if arguments.engine not in ("event", "grid"):
        raise UsageError(
            f"there is no engine '{arguments.engine}': {suggestion(arguments.engine, ['event', 'grid'])}"
        )
    on_grid = arguments.engine == "grid"
    if on_grid and arguments.max_spikes is not None:
        raise UsageError("--max-spikes is for the event engine: the grid keeps all spikes")
    if on_grid and arguments.threshold is not None:
        raise UsageError("--threshold is for the event engine: on the grid a Threshold is a level")
    output = refuse_unwritable(arguments.output, arguments.force)
    graph, t_end = read_graph(arguments), time_of(arguments.t_end)
    options: dict[str, Any] = {"t_end": t_end, "force": arguments.force}
    if on_grid:
        from jaxsnn.simulation.stepped_runs import run_on_grid

        outcome = run_on_grid(graph, arguments.input, output, **options)
    else:
        from jaxsnn.simulation.runs import run_file

        options |= {"max_spikes": arguments.max_spikes, "threshold": arguments.threshold}
        outcome = run_file(graph, arguments.input, output, **options)
    for note in outcome.notes:
        add_note(arguments, note)
    print_outcome(arguments, outcome)
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from jaxsnn.commands.demo import demo, step_text

    def show(number: int, step: Any) -> None:
        if not arguments.json:
            print(step_text(number, step), flush=True)

    report = demo(
        arguments.output,
        force=arguments.force,
        epochs=arguments.epochs,
        seed=arguments.seed,
        step_done=show,
        progress=progress(arguments),
    )
    print_outcome(arguments, report)
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from jaxsnn.commands.doctor_command import diagnose

    print_outcome(arguments, diagnose())
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command `jaxsnn`: 0 fine, 1 the input has problems, 2 usage or tool failure."""
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        arguments = build_parser().parse_args(argv)
        _refuse_own_input(arguments)
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
            argv,
            f"unexpected {type(error).__name__}: {first}: please report it, with what --debug shows",
            2,
        )


def _refuse_own_input(arguments: argparse.Namespace) -> None:
    """Refuse files that are named twice; `train` and `deploy` look at the files that they write
    beside, too.
    """
    given = {name: value for name, value in vars(arguments).items() if isinstance(value, str)}
    written = {"output": "-o", "svg": "--svg", "plot": "--plot"}
    sources = [given[name] for name in _SOURCES if name in given]
    refuse_shared(sources, {flag: given[name] for name, flag in written.items() if name in given})


def _failed(argv: Sequence[str], message: str, code: int) -> int:
    """Report the exception that is being handled."""
    if "--debug" in argv:
        traceback.print_exc()
    print(f"jaxsnn: error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
