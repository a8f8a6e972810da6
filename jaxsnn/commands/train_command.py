"""`jaxsnn train`: the network of a NIR file, trained.

Its outcome is a `jaxsnn.train.train_file.TrainOutcome`.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxsnn.commands.arguments import (
    add_command,
    add_file,
    add_notes,
    add_output,
    print_outcome,
    read_graph,
)
from jaxsnn.errors import FileError, UsageError, suggestion
from jaxsnn.units import parse_time


def _headroom(value: Any) -> float | dict[str, float]:
    """One number, or numbers by population: "2", "hidden:1.5,output:4", in a configuration file a
    table too.
    """
    if isinstance(value, str) and ":" in value:
        pairs = [part.rpartition(":") for part in value.split(",") if part.strip()]
        names = [name.strip() for name, _, _ in pairs]
        if len(set(names)) < len(names):
            raise UsageError(f"headroom is {value!r}", fix="name each population once")
        value = dict(zip(names, (number for _, _, number in pairs), strict=True))
    numbers = value if isinstance(value, dict) else {"": value}
    try:
        if any(isinstance(number, bool) for number in numbers.values()):
            raise TypeError(value)
        numbers = {name: float(number) for name, number in numbers.items()}
        return numbers if isinstance(value, dict) else numbers[""]
    except (TypeError, ValueError):
        raise UsageError(
            f"headroom is {value!r}",
            fix="say one factor, or NODE:FACTOR for each population, with commas",
        ) from None


#: Options: name -> (what converts text, default, metavar, help). In a configuration file the same
#: names.
OPTIONS: Mapping[str, tuple[Callable[[Any], Any], Any, str, str]] = {
    "data": (
        str,
        None,
        "D",
        "yinyang, digits, japanese-vowels, or an .npz with x_train, y_train, x_test, y_test",
    ),
    "data-folder": (
        str,
        None,
        "DIR",
        "japanese-vowels: where its .ts files are (default: the installed aeon)",
    ),
    "copies": (
        int,
        1,
        "N",
        "digits, japanese-vowels: of each training sample, all but one distorted (default 1)",
    ),
    "loss": (str, "ttfs", "NAME", "ttfs (default), mse, max, count, integral or exp-sum"),
    "epochs": (int, 50, "N", "default 50"),
    "batch-size": (int, 64, "N", "default 64"),
    "lr": (float, 0.01, "R", "step of a weight in units of its kick (default 0.01)"),
    "schedule": (
        str,
        "cosine",
        "NAME",
        "cosine (default), constant, linear, exponential or warm-up",
    ),
    "optimiser": (
        str,
        "adam",
        "NAME",
        "adam (default), adamax, nadam, lion, rmsprop, momentum or sgd",
    ),
    "train": (
        str,
        "weight,bias",
        "NAMES",
        "parameters, with commas: weight, bias, tau_mem, NODE.delay, ...",
    ),
    "seed": (int, 0, "N", "of the data and their order (default 0)"),
    "engine": (
        str,
        "event",
        "NAME",
        "event: exact, in continuous time (default); grid: in steps, with a surrogate; loop: on an emulated chip",
    ),
    "chip-seed": (int, None, "N", "loop: which emulated chip (default 0)"),
    "headroom": (
        _headroom,
        None,
        "H",
        "loop: weights may grow by this factor; NODE:H, ... by population (default 2)",
    ),
    "runs": (int, None, "N", "loop: at most so many runs of the chip for a batch (default 1)"),
    "t-end": (parse_time, None, "TIME", "end of a sample, such as 40ms"),
    "dropout": (float, 0.0, "P", "leave out each input spike with this probability while training"),
    "averaging": (float, 0.0, "A", "EMA decay of the parameters, such as 0.995"),
    "clip": (float, None, "NORM", "shorten longer gradients to this norm"),
    "patience": (int, None, "N", "stop after N epochs without a better validation"),
    "on-failure": (
        str,
        "back",
        "WHAT",
        "back: to the best epoch, with smaller steps (default); stop",
    ),
    "devices": (int, None, "N", "share the samples out over N devices"),
    "coordinator": (str, None, "HOST:PORT", "of process 0, where several processes train together"),
    "processes": (int, 1, "N", "how many processes train together (default 1)"),
    "process": (int, 0, "I", "number of this process, from 0"),
    "plot": (str, None, "PNG", "draw the learning curve"),
}
ENGINES = ("event", "grid", "loop")
#: Options of the engine "loop" alone.
LOOP_OPTIONS = ("chip-seed", "headroom", "runs")
#: Only in a configuration file: tables.
TABLES = ("trainable", "push", "loss-options")


def add(commands: Any) -> None:
    """The parser."""
    parser = add_command(commands, "train", run, "train the network of a NIR file")
    add_file(parser)
    add_output(
        parser, "OUT.nir", "the trained file; its history goes to OUT.history.json", required=True
    )
    for name, (_, _, metavar, text) in OPTIONS.items():
        parser.add_argument(f"--{name}", metavar=metavar, help=text)
    parser.add_argument(
        "--resume", action="store_true", help="go on from OUT.checkpoint, if the run was ended"
    )
    parser.add_argument(
        "--config", metavar="RUN.toml", help="a file with any of these options; flags win"
    )


def run(arguments: argparse.Namespace) -> int:
    """The work; exit code 0."""
    from jaxsnn.output import refuse_shared, refuse_unwritable

    settings = settings_of(arguments)
    output = Path(arguments.output)
    written = _written(output, settings)
    refuse_shared(_read(arguments, settings), written | _checkpoints(output))
    for path in written.values():
        refuse_unwritable(path, arguments.force)
    graph = read_graph(arguments)

    from jaxsnn.train.train_file import train_file

    outcome = train_file(
        graph,
        output,
        settings,
        force=arguments.force,
        resume=arguments.resume,
        progress=_progress(arguments),
    )
    if outcome is None:  # another process reports
        return 0
    add_notes(arguments, outcome.notes)
    print_outcome(arguments, outcome)
    return 0


def settings_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options by name, from flags, then the configuration file, then the defaults.

    Raises:
        FileError: the file cannot be read.
        UsageError: an option that does not exist, or whose value makes no sense.
    """
    written = {} if arguments.config is None else read_config(arguments.config)
    settings = {}
    for name, (convert, default, _, _) in OPTIONS.items():
        flag = getattr(arguments, name.replace("-", "_"))
        value, where = (
            (flag, f"--{name}")
            if flag is not None
            else (written.get(name), f"{arguments.config}: {name}")
        )
        settings[name] = default if value is None else _converted(convert, value, where)
    if settings["data"] is None:
        raise UsageError(
            "the training data are missing", fix="pass --data, or write data into --config"
        )
    _refuse_engine(settings)
    _refuse_processes(settings["processes"], settings["process"])
    return settings | {name: written[name] for name in TABLES if name in written}


def _refuse_processes(processes: int, process: int) -> None:
    if processes < 1:
        raise UsageError(f"processes is {processes}", fix="give at least 1")
    if not 0 <= process < processes:
        raise UsageError(
            f"process is {process} of {processes}",
            fix=f"number them from 0 to {processes - 1}, or say --processes",
        )


def _refuse_engine(settings: Mapping[str, Any]) -> None:
    """Refuse an engine that does not exist, and what does not go with it."""
    if settings["engine"] not in ENGINES:
        raise UsageError(
            f"there is no engine '{settings['engine']}'",
            fix=suggestion(settings["engine"], ENGINES),
        )
    if settings["engine"] != "loop":
        for name in LOOP_OPTIONS:
            if settings[name] is not None:
                raise UsageError(
                    f"{name} is for --engine loop, the engine is {settings['engine']}",
                    fix=f"leave out --{name}",
                )
        return
    for name, most in (("devices", settings["devices"] or 1), ("processes", settings["processes"])):
        if most > 1:
            raise UsageError(
                f"{name} is {most}, and one emulated chip runs each batch, in one process",
                fix=f"leave out --{name}",
            )


def read_config(path: str) -> dict[str, Any]:
    """The options of a TOML file, names with "-" or "_".

    Raises:
        FileError: it cannot be read.
        UsageError: it names an option that does not exist.
    """
    try:
        with Path(path).open("rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror or error})") from error
    except tomllib.TOMLDecodeError as error:
        raise FileError(
            f"{path} is not TOML ({error})", fix="write one option a line, such as epochs = 50"
        ) from error
    options = {name.replace("_", "-"): value for name, value in content.items()}
    for name, value in options.items():
        if name not in OPTIONS and name not in TABLES:
            raise UsageError(
                f"{path}: there is no option '{name}'", fix=suggestion(name, (*OPTIONS, *TABLES))
            )
        if name in TABLES and not isinstance(value, dict):
            raise UsageError(f"{path}: {name} is {value!r}", fix=f"write a table, [{name}]")
    return options


def _converted(convert: Callable[[Any], Any], value: Any, where: str) -> Any:
    if isinstance(value, bool) or (
        convert in (int, float) and not isinstance(value, int | float | str)
    ):
        raise UsageError(f"{where} is {value!r}", fix="give a number or a name")
    try:
        if convert is int and isinstance(value, float):
            raise ValueError(value)
        return convert(value)
    except (ValueError, TypeError) as error:
        kind = "a whole number" if convert is int else "a number"
        raise UsageError(f"{where} is {value!r}", fix=f"give {kind}") from error


def _written(output: Path, settings: Mapping[str, Any]) -> dict[str, Path]:
    """The files that a run writes, by what asks for them."""
    written = {"-o": output, "the history of -o": output.with_suffix(".history.json")}
    if settings["engine"] == "loop":
        written["the mapping of -o"] = output.with_suffix(".mapping.json")
    if settings["plot"] is not None:
        written["--plot"] = Path(settings["plot"])
    return written


def _checkpoints(output: Path) -> dict[str, Path]:
    folder = output.with_suffix(".checkpoint")
    inside = {
        f"the checkpoint's {name}": folder / name
        for name in ("last.npz", "best.npz", "history.jsonl")
    }
    return {"the checkpoint of -o": folder} | inside


def _read(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> list[str | Path]:
    """The files that a run reads."""
    read: list[str | Path] = [arguments.file, settings["data"]]
    if arguments.config is not None:
        read.append(arguments.config)
    if settings["data-folder"] is not None:
        read += sorted(Path(settings["data-folder"]).glob("*.ts"))
    return read


def _progress(arguments: argparse.Namespace) -> Callable[[str], None] | None:
    """A line for each epoch, where somebody looks at stderr, or asked with -v."""
    if arguments.quiet or not (arguments.verbose or sys.stderr.isatty()):
        return None

    def say(line: str) -> None:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    return say
