"""`jaxsnn tune`: a network of another framework, tuned in continuous time: accuracy against spikes."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from jaxsnn.commands.arguments import (
    add_command,
    add_file,
    add_notes,
    output_options,
    print_outcome,
)
from jaxsnn.commands.train_command import (
    add_options,
    graph_of,
    options_of,
    progress_of,
    read_by,
)
from jaxsnn.errors import UsageError
from jaxsnn.train.options import OPTIONS, TrainOptions
from jaxsnn.wording import Option, Text

#: Options of training that `jaxsnn tune` does not have.
_REFUSED = ("engine", "plot", "resume", "skip_step_accuracy")


_BUDGETS = Option(
    name="budgets",
    flag="spikes-per-sample",
    other_flags=("--budgets",),
    help="budget of spikes per sample, of all neurons together; several budgets, separated by "
    "commas, give a curve",
    metavar="N,...",
)


def add(commands: Any) -> None:
    """Add the parser."""
    text = "tune a network in continuous time for fewer spikes"
    output = output_options("OUT.nir", "file for the tuned network", required=True)
    parser = add_command(commands, "tune", run, text, *output, _BUDGETS)
    add_file(parser)
    others = [
        name for name, option in OPTIONS.items() if option.engines and "event" not in option.engines
    ]
    add_options(parser, hidden=(*_REFUSED, "calibrate", "neurobench", *others))


def run(arguments: argparse.Namespace) -> int:
    """Run the command; exit code 0."""
    from jaxsnn.output import refuse_shared, refuse_unwritable

    options = options_of(arguments)
    for name in _REFUSED:
        value = getattr(options, name)
        if value not in (None, getattr(TrainOptions, name)):
            fix = (
                "remove the option: tuning runs in continuous time, from the beginning, and draws no "
                "picture"
            )
            message = Text("{option} is {value!r}", option=OPTIONS[name], value=value)
            raise UsageError(message, fix=fix)
    refuse_shared(read_by(arguments, options), {"-o": arguments.output})
    refuse_unwritable(arguments.output, arguments.force)
    budgets = _numbers(arguments.budgets)
    graph = graph_of(arguments, options)
    from jaxsnn.nir import write
    from jaxsnn.train.tuning import tune

    outcome = tune(graph, replace(options, progress=progress_of(arguments)), budgets)
    write(Path(arguments.output), outcome.chosen.graph, arguments.force)
    add_notes(arguments, outcome.notes)
    print_outcome(arguments, outcome)
    return 0


def _numbers(text: str | None) -> tuple[float, ...]:
    """Parse comma-separated numbers; return an empty tuple for None."""
    if text is None:
        return ()
    try:
        numbers = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        numbers = ()
    if not numbers:
        message = Text("{option} is {value!r}", option=_BUDGETS, value=text)
        raise UsageError(message, fix="pass numbers separated by commas")
    return numbers
