"""`jaxsnn train`: the network of a NIR file, trained.

The options are those of `jaxsnn.train.options.TrainOptions`: flags, names in the configuration file
and help texts come from it. JAX is loaded when the command runs.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxsnn.commands.arguments import (
    Parser,
    add_command,
    add_file,
    add_notes,
    add_option,
    output_options,
    print_outcome,
    read_graph,
    refuse_options_of_file,
    refuse_report,
    write_report,
)
from jaxsnn.commands.reports.report_page import facts, folded, page, summary
from jaxsnn.commands.reports.report_parts import (
    dialect_section,
    input_section,
    limitations_section,
    training_results,
)
from jaxsnn.console import to_stderr
from jaxsnn.errors import FileError, UsageError, first_line, suggestion
from jaxsnn.options import REPORT
from jaxsnn.train.options import (
    OPTIONS,
    TrainOptions,
    check_options,
    help_of,
    names_in_files,
)
from jaxsnn.wording import Option, Text

if TYPE_CHECKING:
    from jaxsnn.nir import Graph
    from jaxsnn.train.loop.chip_training import OnChip
    from jaxsnn.train.loop.history import Fit

# Options

#: Table of a configuration file that specifies a network instead of FILE.
_NETWORK = "network"


def add(commands: Any) -> None:
    """Add the parser."""
    text = "train the network of a NIR file"
    trained = "trained file; the history is written to OUT.history.json"
    output = output_options("OUT.nir", trained, required=True)
    parser = add_command(commands, "train", run, text, *output, REPORT)
    add_file(parser, optional=True)
    add_options(parser)


CONFIG = Option(
    name="config",
    metavar="RUN.toml",
    help="configuration file with any of these options, which flags override; a [network] in "
    "it replaces FILE",
    file="file",
)


def add_options(parser: Parser, hidden: Collection[str] = ()) -> None:
    """Add the options of a training run to the parser of a command.

    Args:
        hidden: names of options that the command rejects, and that its help therefore omits.
    """
    for name, option in OPTIONS.items():
        if not option.has_flag:
            continue
        text = argparse.SUPPRESS if name in hidden else help_of(name).replace("`", "")
        # Keep text: `converted` converts it, like the values of a configuration file.
        add_option(parser, option.but(help=text, default=None, convert=None))
    add_option(parser, CONFIG)


def options_of(arguments: argparse.Namespace) -> TrainOptions:
    """Return the options from flags, then the configuration file, then the defaults.

    Raises:
        FileError: the file cannot be read.
        UsageError: an option that does not exist, or an invalid value.
    """
    written = {} if arguments.config is None else read_config(arguments.config)
    for name, option in OPTIONS.items():
        if not option.has_flag:
            continue
        value, flag = getattr(arguments, name), option.long_flag
        if value is not None and value is not False:
            written[name] = converted(name, value, flag)
    options = TrainOptions(**written)
    if options.data is None:
        fix = Text("pass {data}, or specify data in {config}", data=OPTIONS["data"], config=CONFIG)
        raise UsageError("the training data are missing", fix=fix)
    check_options(options)
    return options


def read_config(path: str) -> dict[str, Any]:
    """Return the options of a TOML file, whose names may contain "-" or "_". Deprecation warnings
    for former names are shown.

    Raises:
        FileError: the file cannot be read.
        UsageError: an option does not exist, or is set twice.
    """
    # By default, Python shows warnings of former names only to code of the main program.
    warnings.filterwarnings("default", category=DeprecationWarning, module=r"jaxsnn\.train\.")
    option_names, options, key_of = names_in_files(), {}, {}
    for key, value in _content(path).items():
        if key == _NETWORK:
            continue
        key_in_file = key.replace("_", "-")
        if key_in_file not in option_names:
            raise UsageError(
                Text("{path}: there is no option '{option}'", path=path, option=key_in_file),
                fix=suggestion(key_in_file, sorted(option_names)),
            )
        name = option_names[key_in_file]
        if name in options:
            raise UsageError(
                Text(
                    "{path} sets {option} twice, as {first} and as {key}",
                    path=path,
                    option=name,
                    first=key_of[name],
                    key=key,
                ),
                fix="set the option once",
            )
        key_of[name] = key
        options[name] = converted(name, value, f"{path}: {key_in_file}")
    return options


def _content(path: str) -> dict[str, Any]:
    """Read a TOML file."""
    from jaxsnn.files.structured_text import read_parsable_text, reason_of
    from jaxsnn.files.toml_text import parse_toml

    text = read_parsable_text(path, "a configuration in TOML")
    try:
        return parse_toml(text)
    except ValueError as error:
        fix = "write one option per line, such as epochs = 50"
        raise FileError(
            Text("{path} is not TOML ({error})", path=path, error=reason_of(error)), fix=fix
        ) from error


def graph_of(arguments: argparse.Namespace, options: TrainOptions) -> Graph:
    """Return the network of FILE, or of the configuration file, with weights drawn from the seed.

    Raises:
        UsageError: neither contains a network, or both do.
    """
    table = {} if arguments.config is None else _content(arguments.config).get(_NETWORK)
    if arguments.file is None and table:
        from jaxsnn.nir.layer_tables import graph_of_table

        refuse_options_of_file(arguments)
        graph = graph_of_table(table, options.seed)
        add_notes(arguments, graph.warnings)
        return graph
    if arguments.file is None:
        fix = "pass a NIR file, or write a [network] table into the configuration file"
        raise UsageError("the network to train is not specified", fix=fix)
    if table:
        raise UsageError(
            Text(
                "the network is specified twice, in {config} and in {file}",
                config=arguments.config,
                file=arguments.file,
            ),
            fix="omit the NIR file, or remove the [network] table from the configuration file",
        )
    return read_graph(arguments)


def converted(name: str, value: Any, location: str) -> Any:
    """Convert the value of an option from text or a TOML value.

    Args:
        location: name of the option's source in the message.

    Raises:
        UsageError: an invalid value.
    """
    convert = OPTIONS[name].convert
    assert convert is not None
    try:
        return convert(value)
    except ValueError as error:
        fix = str(error) if OPTIONS[name].has_flag else f"{error}, [{location.split()[-1]}]"
        raise UsageError(
            Text("{option} is {value!r}", option=location, value=value), fix=fix
        ) from error


# Run


@dataclass(frozen=True, kw_only=True)
class TrainFiles:
    """Paths of the files that a run writes, next to the trained file; `force`: overwrite files that
    exist.
    """

    trained: Path
    force: bool = False

    @property
    def history(self) -> Path:
        """Path of the history of the run."""
        return self.trained.with_suffix(".history.json")

    @property
    def mapping(self) -> Path:
        """Path of the mapping used in training, if the engine is a chip in the loop."""
        return self.trained.with_suffix(".mapping.json")

    @property
    def checkpoint(self) -> Path:
        """Path of the folder of checkpoints."""
        return self.trained.with_suffix(".checkpoint")

    def written(self, options: TrainOptions) -> dict[str, Path]:
        """Return the files that a run writes, by the option that requests them."""
        paths = {"-o": self.trained, "the history of -o": self.history}
        if options.engine == "loop":
            paths["the mapping of -o"] = self.mapping
        if options.plot is not None:
            paths["--plot"] = Path(options.plot)
        return paths

    def checkpoints(self) -> dict[str, Path]:
        """Return the paths of the checkpoint folder and of its files, by descriptions for messages."""
        file_names = ("last.npz", "before.npz", "best.npz", "history.jsonl")
        inside = {f"the checkpoint's {name}": self.checkpoint / name for name in file_names}
        return {"the checkpoint of -o": self.checkpoint} | inside


def run(arguments: argparse.Namespace) -> int:
    """Run the command; exit code 0."""
    from jaxsnn.output import refuse_shared, refuse_unwritable

    refuse_report(arguments)
    options = options_of(arguments)
    options = replace(options, neurobench=options.neurobench or arguments.report is not None)
    files = TrainFiles(trained=Path(arguments.output), force=arguments.force)
    written = files.written(options)
    if arguments.report is not None:
        written["--report"] = Path(arguments.report)
    refuse_shared(read_by(arguments, options), written | files.checkpoints())
    for path in written.values():
        refuse_unwritable(path, arguments.force)
    if options.plot is not None:
        from jaxsnn.plot.picture import refuse_undrawable

        refuse_undrawable(options.plot)
    graph = graph_of(arguments, options)
    with _aborts(options, files):
        outcome = train_file(graph, files, replace(options, progress=progress_of(arguments)))
    if outcome is None:  # another process reports the outcome
        return 0
    write_report(arguments, train_report, graph, outcome)
    add_notes(arguments, outcome.notes)
    print_outcome(arguments, outcome)
    return 0


def read_by(arguments: argparse.Namespace, options: TrainOptions) -> list[str | Path]:
    """Return the files that a run reads."""
    from jaxsnn.train.data.labelled_files import data_files

    named = [name for name in (arguments.file, arguments.config) if name is not None]
    return [*named, *data_files(str(options.data), options.data_folder)]


def progress_of(arguments: argparse.Namespace) -> Callable[[str], None] | None:
    """Return the function that prints a line for each epoch, if stderr is a terminal or -v is set;
    else None.
    """
    looks = arguments.verbose or sys.stderr.isatty()
    return to_stderr if looks and not arguments.quiet else None


def train_file(graph: Graph, files: TrainFiles, options: TrainOptions) -> TrainOutcome | None:
    """Train a graph on a named task or an .npz file, write the trained file and its history.

    Checkpoints go to a folder beside it. Where training stops early, the best epoch so far is
    written, and the error says so. Of several processes only the first writes; the others get None.

    Raises:
        JaxsnnError: data that do not fit, files that exist, or a training run that stops.
    """
    from jaxsnn.train import TrainingStopped
    from jaxsnn.train.fitting import fit_prepared, prepare
    from jaxsnn.train.loop.parallel import is_first

    overrides = {"checkpoint": files.checkpoint, "overwrite": files.force, "plot": None}
    prepared = prepare(graph, replace(options, **overrides))
    chosen = prepared.options
    try:
        with _partners(files.checkpoint if options.processes > 1 else None):
            trained = fit_prepared(prepared)
    except TrainingStopped as error:
        file_notes = _write(files, error.fit, chosen)
        reached = error.fit.history[error.fit.best_epoch]
        written_epoch = Text(
            "epoch {epoch} (validation accuracy {validation_accuracy:.2%}) was written to {path}",
            epoch=reached.epoch,
            validation_accuracy=reached.validation_accuracy,
            path=files.trained,
        )
        message = Text.joined("; ", (error.problem.message, written_epoch, *file_notes))
        raise TrainingStopped(message, error.fit, fix=error.fix) from error
    notes = (*trained.notes, *_write(files, trained, chosen))
    if not is_first():
        return None
    data: Any = chosen.data
    if options.plot is not None:
        from jaxsnn.plot import learning_curve

        title = f"{data.name}: error and loss by epoch"
        learning_curve(trained, title=title).save(options.plot, files.force)
    on_chip = None
    if options.engine == "loop":
        from jaxsnn.train.loop.chip_training import OnChip, device_of, off_chip_accuracy

        on_chip = OnChip(
            seed=device_of(chosen.engine).chip.seed,
            mapping=str(files.mapping),
            off_chip_accuracy=off_chip_accuracy(trained.graph, chosen),
        )
    return TrainOutcome(
        fit=trained,
        test_samples=len(data.test),
        output=os.fspath(files.trained),
        history=str(files.history),
        checkpoint=str(files.checkpoint),
        notes=notes,
        on_chip=on_chip,
    )


def _aborts(options: TrainOptions, files: TrainFiles) -> AbstractContextManager[None]:
    """Return a context manager that prints one line with advice if JAX aborts because processes
    that train together lose the coordinator.
    """
    if options.processes == 1:
        return nullcontext()
    from jaxsnn.train.loop.parallel import aborting_in_one_line

    return aborting_in_one_line(
        f"jaxsnn: error: process {options.process} lost the coordinator {options.coordinator}, or did"
        f" not reach all {options.processes} processes: if {files.checkpoint} contains an epoch, start all"
        " processes again with --resume"
    )


@contextmanager
def _partners(checkpoint: Path | None) -> Iterator[None]:
    """Print advice in one line if one of several processes that train together is lost.

    JAX itself would wait for the lost one, or abort with a trace.

    Args:
        checkpoint: folder of checkpoints; None: there are no other processes, and nothing is done.
    """
    import jax

    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if checkpoint is None:
            raise
        reason = first_line(error)
        to_stderr(
            f"jaxsnn: error: process {jax.process_index()} lost another process ({reason}):"
            f" {checkpoint} contains the last complete epoch: start all processes again with --resume"
        )
        os._exit(1)


def _write(files: TrainFiles, done: Fit, options: TrainOptions) -> tuple[str, ...]:
    """Write the files, in the first process; return notes on approximations of the chip, if one was
    in the loop.
    """
    from jaxsnn.nir.graphs.export import nir_bytes
    from jaxsnn.output import as_json, write_together
    from jaxsnn.train.loop.chip_training import mapped
    from jaxsnn.train.loop.in_the_loop import InTheLoop
    from jaxsnn.train.loop.parallel import is_first

    if not is_first():
        return ()
    engine = options.engine
    in_the_loop = isinstance(engine, InTheLoop)
    text, notes = mapped(engine, done.graph) if in_the_loop else ("", ())
    written: dict[Any, bytes | str] = {files.mapping: text} if in_the_loop else {}
    written[files.history] = as_json(done.as_dict()) + "\n"
    written[files.trained] = nir_bytes(files.trained, done.graph)
    write_together(written, files.force)
    return notes


# Outcome


@dataclass(frozen=True, kw_only=True)
class TrainOutcome:
    """Outcome of `jaxsnn train`.

    Attributes:
        fit: the training run.
        test_samples: number of samples that the test accuracy is measured on.
        output, history, checkpoint: paths of the files and the folder that were written.
        notes: notes for the user.
        on_chip: results on the emulated chip; None on other engines.
    """

    fit: Fit
    test_samples: int
    output: str
    history: str
    checkpoint: str
    notes: tuple[str, ...]
    on_chip: OnChip | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-compatible dict."""
        metrics = self.fit.neurobench
        return {
            "schema": 1,
            "test_accuracy": self.fit.test_accuracy,
            "accuracy_in_steps": self.fit.accuracy_in_steps,
            "neurobench": None if metrics is None else metrics.as_dict(),
            "best_epoch": self.fit.best_epoch,
            "history": self.history,
            "seconds": round(sum(self.fit.seconds), 3),
            "output": self.output,
            "checkpoint": self.checkpoint,
            "notes": list(self.notes),
            **({} if self.on_chip is None else self.on_chip.as_dict()),
        }

    def as_text(self) -> str:
        """Return human-readable text."""
        record, chip = self.fit.history[self.fit.best_epoch], self.on_chip
        chip_clause = "" if chip is None else f", on the emulated chip {chip.seed}"
        tested = f"{self.fit.test_accuracy:.2%} of {self.test_samples} samples{chip_clause}"
        validated = f"validation {record.validation_accuracy:.2%}"
        lines = [
            f"test accuracy  {tested}",
            f"best epoch     {record.epoch} of {len(self.fit.history) - 1}, {validated}",
            f"trained file   {self.output}",
            f"history        {self.history}",
        ]
        if self.fit.accuracy_in_steps is not None:
            in_steps = f"{self.fit.accuracy_in_steps:.2%}: the same weights, time-stepped as in the source framework"
            lines.insert(1, f"time-stepped   {in_steps}")
        if chip is not None:
            accuracy = f"{chip.off_chip_accuracy:.2%}"
            off_chip = f"{accuracy}: the same weights, simulated with the chip's refractory period"
            lines.insert(1, f"off the chip   {off_chip}")
            lines.append(f"mapping        {chip.mapping}")
        if self.fit.neurobench is not None:
            lines.append(self.fit.neurobench.as_text())
        return "\n".join(lines)


def train_report(arguments: argparse.Namespace, graph: Graph, outcome: TrainOutcome) -> str:
    """Return the page on the training run."""
    fit, on_chip = outcome.fit, outcome.on_chip
    best = fit.history[fit.best_epoch]
    engine = "" if on_chip is None else " on the emulated chip"
    result = f"Test accuracy {fit.test_accuracy:.2%} on {outcome.test_samples} samples{engine}"
    key_figures = {
        "test accuracy": f"{fit.test_accuracy:.2%}",
        "time-stepped as in the source framework": _percentage(fit.accuracy_in_steps),
        "off the chip": None if on_chip is None else _percentage(on_chip.off_chip_accuracy),
        "validation before training": _percentage(fit.history[0].validation_accuracy),
        "validation, best epoch": _percentage(best.validation_accuracy),
        "best epoch": f"{fit.best_epoch} of {len(fit.history) - 1}",
        "operations per sample": None if fit.neurobench is None else fit.neurobench.operations,
    }
    files = {
        "trained network": outcome.output,
        "history": outcome.history,
        "checkpoints": outcome.checkpoint,
    }
    chip = {
        "emulated chip": None if on_chip is None else f"seed framework {on_chip.seed}",
        "mapping": None if on_chip is None else on_chip.mapping,
        "test accuracy on the chip": _percentage(fit.test_accuracy),
        "test accuracy, event engine": None
        if on_chip is None
        else _percentage(on_chip.off_chip_accuracy),
    }
    source = arguments.file or arguments.config  # the network may be in the configuration
    options = folded("Options", facts(_flatten(fit.settings)))
    sections = {
        "Input": input_section(arguments, graph, source) + options,
        "Dialect": dialect_section(graph),
        "Results": training_results(graph, fit) + f"<h3>Files</h3>{facts(files)}",
        **({} if on_chip is None else {"Chip": facts(chip)}),
        "Limitations": limitations_section(outcome.notes, graph),
    }
    title = f"train: {Path(source).name}"
    return page(title, summary(result, key_figures), sections)


def _percentage(fraction: float | None) -> str | None:
    return None if fraction is None else f"{fraction:.2%}"


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested options by a dotted name."""
    flattened: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            flattened |= _flatten(value, f"{prefix}{name}.")
        else:
            flattened[f"{prefix}{name}"] = value
    return flattened
