"""`jaxsnn plot`: a picture of a file, or of the activity of its network."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxsnn.commands.arguments import (
    add_command,
    add_file,
    add_notes,
    dialect_options,
    output_options,
    print_outcome,
    read_graph,
    refuse_no_population,
    time_of,
)
from jaxsnn.errors import FileError, UsageError, suggestion
from jaxsnn.options import ENGINE, INPUT, MAX_SPIKES, RECORDING, T_END
from jaxsnn.wording import Option, Text

if TYPE_CHECKING:
    from jaxsnn.plot import Picture, SpikeTrain


@dataclass(frozen=True, kw_only=True)
class PlotOutcome:
    """Outcome of `jaxsnn plot`: the path, the kind of picture, and its description."""

    output: str
    kind: str
    alt: str

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-compatible dict."""
        return {"schema": 1, "output": self.output, "kind": self.kind, "alt": self.alt}

    def as_text(self) -> str:
        """Return human-readable text."""
        return f"{self.output}: {self.alt}"


_KIND = Option(
    name="kind",
    help=lambda: (
        f"{', '.join(KINDS)} (default: depends on FILE, which is a NIR file, OUT.npz of run, a history "
        "or a mapping)"
    ),
)
_BEFORE = Option(
    name="before",
    help="for weights: file before training, drawn in grey",
    metavar="B.nir",
    file="file",
)
_NODE = Option(
    name="node", help="for voltage: population to draw (default: the last one)", metavar="NODE"
)
_SAMPLE = Option(
    name="sample",
    help="for raster and voltage: index of the sample (default 0)",
    metavar="N",
    convert=int,
)


def add(commands: Any) -> None:
    """Add the parser."""
    parser = add_command(
        commands,
        "plot",
        run,
        "draw the content of a file, or a simulation of its network",
        *output_options("PICTURE", "file to write: .png, .svg or .pdf", required=True),
        _KIND,
        INPUT.but(help="for raster, histogram, voltage and fidelity: input file, as for run"),
        RECORDING.but(help="for difference: recording, as for verify"),
        _BEFORE,
        T_END,
        _NODE,
        _SAMPLE,
        MAX_SPIKES,
    )
    add_file(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; exit code 0."""
    from jaxsnn.output import refuse_unwritable
    from jaxsnn.plot.picture import format_of, refuse_undrawable

    format_of(refuse_unwritable(arguments.output, arguments.force))
    kind = arguments.kind or _kind_of(arguments)
    if kind not in KINDS:
        raise UsageError(
            Text("there is no kind of picture '{kind}'", kind=kind), fix=suggestion(kind, KINDS)
        )
    _refuse_unused(arguments, kind)
    if kind in _SIMULATED:
        refuse_undrawable(arguments.output)
    picture = KINDS[kind](arguments)
    picture.save(arguments.output, arguments.force)
    print_outcome(
        arguments, PlotOutcome(output=os.fspath(arguments.output), kind=kind, alt=picture.alt)
    )
    return 0


def _kind_of(arguments: argparse.Namespace) -> str:
    """Return the default kind of picture for a file."""
    path = Path(arguments.file)
    if path.suffix == ".npz":
        return "raster"
    if path.suffix == ".jsonl":
        return "curve"
    if path.suffix == ".json":
        return "curve" if "epochs" in _document(path) else "floorplan"
    if arguments.recording is not None:
        return "difference"
    return "graph" if arguments.input is None else "raster"


def _refuse_unused(arguments: argparse.Namespace, kind: str) -> None:
    """Refuse options that a picture of this kind does not use."""
    from jaxsnn.nir.frameworks.registry import file_options

    saved = Path(arguments.file).suffix == ".npz" and kind in ("raster", "histogram")
    used = _USED[kind] - ({"input", "max_spikes", *dialect_options(arguments)} if saved else set())
    of_files = set(dialect_options(arguments)) if kind in _OF_NIR and not saved else set()
    for option in (*_OPTIONS, *file_options().values()):
        is_set = getattr(arguments, option.name) not in (None, [], "auto")
        if is_set and option.name not in used | of_files:
            source = "saved spikes" if saved else Text("kind '{kind}'", kind=kind)
            message = Text(
                "{option} has no effect on pictures of {source}", option=option, source=source
            )
            raise UsageError(message, fix="remove the option")


def _document(path: Path) -> dict[str, Any]:
    """Read a JSON file, or a file with the record of an epoch in each line; content other than an object
    is returned as an empty dict.

    Raises:
        FileError: the file is not a JSON file.
    """
    from jaxsnn.files.structured_text import parse_json, read_parsable_text, reason_of

    text = read_parsable_text(path, "a history or a mapping")
    try:
        if path.suffix == ".jsonl":
            lines = text.splitlines()
            return {"epochs": [parse_json(line, allow_nan=True) for line in lines]}
        document = parse_json(text, allow_nan=True)
    except ValueError as error:
        raise FileError(
            Text("{path} is not JSON ({error})", path=path, error=reason_of(error)),
            fix="pass another file",
        ) from error
    return document if isinstance(document, dict) else {}


def _needed(arguments: argparse.Namespace, option: Option, subject: str) -> str:
    value = getattr(arguments, option.name)
    if value is None:
        raise UsageError(
            Text("a picture of {subject} requires {option}", subject=subject, option=option),
            fix=Text("pass {option}", option=option.keyword),
        )
    return value


# -- pictures


def _graph(arguments: argparse.Namespace) -> Picture:
    from jaxsnn import plot

    return plot.graph(read_graph(arguments))


def _weights(arguments: argparse.Namespace) -> Picture:
    from jaxsnn import plot
    from jaxsnn.nir import read

    before = None if arguments.before is None else read(arguments.before)
    return plot.weights(read_graph(arguments), before)


def _curve(arguments: argparse.Namespace) -> Picture:
    from jaxsnn import plot
    from jaxsnn.train.loop.history_schema import DRAWN, history_defect, run_defect

    path = Path(arguments.file)
    content = _document(path)
    if path.suffix == ".jsonl":
        defect = history_defect(content["epochs"], DRAWN)
    else:
        defect = run_defect(content)
    if defect:
        raise FileError(
            Text("{path} is not a training history: {reason}", path=path, reason=defect),
            fix="pass the OUT.history.json of a training run, or history.jsonl of its checkpoints",
        )
    return plot.learning_curve(content)


def _floorplan(arguments: argparse.Namespace) -> Picture:
    from jaxsnn import plot
    from jaxsnn.bss2.mapping_files import read_mapping

    return plot.floorplan(read_mapping(arguments.file))


def _raster(arguments: argparse.Namespace) -> Picture:
    from jaxsnn import plot

    drawn, inputs = _run_of(arguments)
    if isinstance(drawn, list):
        shown = drawn[_sample_of(arguments, len(drawn))]
        return plot.raster([shown], t_end=time_of(arguments.t_end))
    return plot.raster(drawn, inputs=inputs, samples=(arguments.sample or 0,))


def _sample_of(arguments: argparse.Namespace, samples: int) -> int:
    """Return the index of the requested sample, by default the first.

    Raises:
        UsageError: there is no sample with this index.
    """
    sample = arguments.sample or 0
    if not 0 <= sample < samples:
        raise UsageError(
            Text(
                "{option} is {value}, but the number of samples is {samples}",
                option=_SAMPLE,
                value=sample,
                samples=samples,
            ),
            fix=f"pass an index from 0 to {samples - 1}",
        )
    return sample


def _histogram(arguments: argparse.Namespace) -> Picture:
    from jaxsnn import plot

    return plot.histogram(_run_of(arguments)[0], t_end=time_of(arguments.t_end))


def _run_of(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """Return a run and its inputs: the run of OUT.npz, or a new simulation of the network of a NIR
    file.
    """
    if Path(arguments.file).suffix == ".npz":
        return saved_trains(arguments.file), None
    from jaxsnn.plot.spike_plots import drawable

    _, solution, inputs = _simulated(arguments, "spikes")
    return solution, drawable(inputs)


def _simulated(arguments: argparse.Namespace, subject: str) -> tuple[Any, Any, Any]:
    """Simulate a network event by event; return the network, solution and inputs."""
    import numpy as np

    from jaxsnn.event.event_driven import EventDriven
    from jaxsnn.network.lowering.lower import lower
    from jaxsnn.simulation.network_arrays import load_inputs
    from jaxsnn.simulation.simulate import simulate

    source = _needed(arguments, INPUT, subject)
    graph = read_graph(arguments)
    network = lower(graph)
    inputs = load_inputs(source, network, graph.dialect.dt)
    t_end = time_of(arguments.t_end) or inputs.t_end
    if t_end is None:
        raise UsageError(
            Text("{path} does not specify the duration of a sample", path=source),
            fix=Text("pass {t_end}", t_end=T_END.keyword),
        )
    engine = EventDriven(max_spikes=arguments.max_spikes, max_events="auto", max_arrivals="auto")
    sampled = inputs.sampled(network, t_end)
    solution = simulate(network, inputs.events, t_end, engine=engine, sample_times=sampled)
    add_notes(arguments, (*inputs.notes, *solution.notes))
    _sample_of(arguments, max(len(np.atleast_2d(events.time)) for events in inputs.events.values()))
    return network, solution, inputs.events


def saved_trains(path: str) -> list[dict[str, SpikeTrain]]:
    """Return the spikes that `jaxsnn run` wrote: for each sample, population -> its `SpikeTrain`.

    Raises:
        FileError: the file contains no spikes.
    """
    import numpy as np

    from jaxsnn.files.array_files import load_arrays
    from jaxsnn.network.spikes import Events
    from jaxsnn.plot.spike_plots import one_train
    from jaxsnn.simulation.recordings import saved_events

    arrays = load_arrays(path)
    populations = [key.removesuffix(".time") for key in arrays if key.endswith(".time")]
    trains_by_sample: list[dict[str, SpikeTrain]] = []
    for name in populations:
        time, index = saved_events(path, arrays, name)
        if trains_by_sample and len(time) != len(trains_by_sample):
            raise FileError(
                Text(
                    "{path}: '{first}.time' has {samples} samples, and '{name}.time' has {actual}",
                    path=path,
                    first=populations[0],
                    samples=len(trains_by_sample),
                    name=name,
                    actual=len(time),
                ),
                fix="pass a file that jaxsnn run wrote",
            )
        # Unused slots contain the number of neurons.
        full = np.isfinite(time).all()
        size = int(index.max(initial=0)) + int(full)
        trains_by_sample = trains_by_sample or [{} for _ in range(len(time))]
        for sample in range(len(time)):
            events: Any = Events(time=time, index=index)
            trains_by_sample[sample][name] = one_train(events, sample, max(size, 1))
    if not trains_by_sample:
        raise FileError(
            Text("{path} has no spike times ('NODE.time' and 'NODE.index')", path=path),
            fix=Text("pass {engine} when you write the file", engine=ENGINE.set_to("event")),
        )
    return trains_by_sample


def _voltage(arguments: argparse.Namespace) -> Picture:
    from jaxsnn import plot

    network, solution, inputs = _simulated(arguments, "voltages")
    node = arguments.node or list(network.populations)[-1]
    refuse_no_population(network, node)
    return plot.voltage(
        solution, node, network=network, inputs=inputs, sample=arguments.sample or 0
    )


def _fidelity(arguments: argparse.Namespace) -> Picture:
    source = _needed(arguments, INPUT, "fidelity")
    graph = read_graph(arguments)
    from jaxsnn import plot
    from jaxsnn.simulation.fidelity import fidelity

    return plot.fidelity(fidelity(graph, source, max_spikes=arguments.max_spikes))


def _difference(arguments: argparse.Namespace) -> Picture:
    source = _needed(arguments, RECORDING, "a difference")
    graph = read_graph(arguments)
    from jaxsnn import plot
    from jaxsnn.commands.verify_command import replay_recording

    replay = replay_recording(graph, source)
    return plot.first_difference(replay.comparison, replay.solution, replay.recording.y)


#: Kind of picture -> function that draws it.
KINDS: dict[str, Callable[[argparse.Namespace], Picture]] = {
    "graph": _graph,
    "weights": _weights,
    "raster": _raster,
    "histogram": _histogram,
    "voltage": _voltage,
    "curve": _curve,
    "floorplan": _floorplan,
    "fidelity": _fidelity,
    "difference": _difference,
}
#: Kind of picture -> options that it uses, except those of all kinds.
_USED: dict[str, set[str]] = {
    "graph": set(),
    "weights": {"before"},
    "raster": {"input", "t_end", "sample", "max_spikes"},
    "histogram": {"input", "t_end", "max_spikes"},
    "voltage": {"input", "t_end", "sample", "node", "max_spikes"},
    "curve": set(),
    "floorplan": set(),
    "fidelity": {"input", "max_spikes"},
    "difference": {"recording"},
}
_OPTIONS = (_BEFORE, INPUT, MAX_SPIKES, _NODE, RECORDING, _SAMPLE, T_END)
#: Kinds of pictures of a NIR file; those in the second set need a simulation of its network.
_OF_NIR = set(KINDS) - {"curve", "floorplan"}
_SIMULATED = _OF_NIR - {"graph", "weights"}
