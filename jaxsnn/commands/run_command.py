"""`jaxsnn run`: the network of a NIR file, simulated on inputs from a file."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxsnn.commands.arguments import (
    add_command,
    add_file,
    add_notes,
    output_options,
    print_outcome,
    read_graph,
    refuse_report,
    time_of,
    write_report,
)
from jaxsnn.commands.reports.report_page import facts, figure, page, summary, table
from jaxsnn.commands.reports.report_parts import (
    dialect_section,
    input_section,
    limitations_section,
    neurobench_facts,
)
from jaxsnn.errors import UsageError, listing, suggestion
from jaxsnn.options import (
    ENGINE,
    INPUT,
    MAX_SPIKES,
    NEUROBENCH,
    PLOT,
    REPORT,
    RESET_DELAY,
    T_END,
    VALUES,
)
from jaxsnn.units import format_time
from jaxsnn.wording import Text

if TYPE_CHECKING:
    from jaxsnn.network.network import Network
    from jaxsnn.nir import Graph
    from jaxsnn.simulation.neurobench import NeuroBench

ENGINES = ("event", "grid")


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """Outcome of `jaxsnn run`.

    Attributes:
        result: "success".
        spikes: population -> number of spikes, all samples together.
        spikes_needed: population -> largest number of spikes of one neuron in one sample.
        samples: size of the batch.
        t_end: seconds; None where the length of a time step is unknown.
        output: path of the file that was written.
        arrays: name -> shape of each array in it.
        steps: number of steps of a time-stepped run.
        notes: approximations, and specified options that are not followed, a sentence each.
        neurobench: metrics of NeuroBench, if they were requested.
        solution, inputs: the run and its inputs, to be drawn.
    """

    result: str
    spikes: dict[str, int]
    spikes_needed: dict[str, int]
    samples: int
    t_end: float | None
    output: str
    arrays: dict[str, tuple[int, ...]]
    steps: int | None = None
    notes: tuple[str, ...] = ()
    neurobench: NeuroBench | None = None
    solution: Any = field(default=None, repr=False, compare=False)
    inputs: Any = field(default=None, repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-compatible dict."""
        return {
            "schema": 1,
            "result": self.result,
            "spikes": self.spikes,
            "events_needed": max(self.spikes_needed.values(), default=0),
            "spikes_needed": self.spikes_needed,
            "samples": self.samples,
            "t_end": self.t_end,
            "steps": self.steps,
            "notes": list(self.notes),
            "output": self.output,
            "arrays": {name: list(shape) for name, shape in self.arrays.items()},
            "neurobench": None if self.neurobench is None else self.neurobench.as_dict(),
        }

    def as_text(self) -> str:
        """Return human-readable text."""
        lengths = [f"{self.steps} steps"] if self.steps is not None else []
        lengths += [format_time(self.t_end)] if self.t_end is not None else []
        lines = [f"{self.samples} samples of {', '.join(lengths)}"]
        lines += [
            f"{name}: {count} spikes, at most {self.spikes_needed[name]} per neuron and sample"
            for name, count in self.spikes.items()
        ]
        if self.neurobench is not None:
            lines.append(self.neurobench.as_text())
        arrays = ", ".join(f"{name} {shape}" for name, shape in self.arrays.items())
        return "\n".join([*lines, f"{self.output}: {arrays}"])


def add(commands: Any) -> None:
    """Add the parser."""
    parser = add_command(
        commands,
        "run",
        run,
        "simulate the network of a NIR file",
        INPUT.but(
            required=True,
            help="inputs: x (time, batch, channels), or time and index (batch, events), with value "
            "for graded events; a recording of events; or a file of NIR data",
        ),
        VALUES,
        *output_options("OUT.npz", "file for the outputs of the network", required=True),
        PLOT.but(help="picture of the spikes of the first sample: .png, .svg or .pdf"),
        ENGINE,
        T_END,
        MAX_SPIKES,
        NEUROBENCH,
        REPORT,
    )
    add_file(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; exit code 0."""
    from jaxsnn.output import refuse_unwritable
    from jaxsnn.plot.picture import refuse_undrawable

    _refuse_options(arguments)
    refuse_report(arguments)
    output = refuse_unwritable(arguments.output, arguments.force)
    if arguments.plot is not None:
        refuse_undrawable(refuse_unwritable(arguments.plot, arguments.force))
    graph = read_graph(arguments)
    options: dict[str, Any] = {
        "t_end": time_of(arguments.t_end),
        "force": arguments.force,
        "values": arguments.values,
        "neurobench": arguments.neurobench or arguments.report is not None,
    }
    if arguments.engine == "grid":
        outcome = run_in_steps(graph, arguments.input, output, **options)
    else:
        options["max_spikes"] = arguments.max_spikes
        outcome = run_file(graph, arguments.input, output, **options)
    if arguments.plot is not None:
        from jaxsnn.plot import raster
        from jaxsnn.plot.spike_plots import drawable

        shown = drawable(outcome.inputs)
        raster(outcome.solution, inputs=shown).save(arguments.plot, arguments.force)
    write_report(arguments, run_report, graph, outcome)
    add_notes(arguments, outcome.notes)
    print_outcome(arguments, outcome)
    return 0


def _refuse_options(arguments: argparse.Namespace) -> None:
    """Refuse an engine that does not exist, and options that it does not have."""
    if arguments.engine not in ENGINES:
        raise UsageError(
            Text("there is no engine '{engine}'", engine=arguments.engine),
            fix=suggestion(arguments.engine, ENGINES),
        )
    if arguments.engine == "grid" and arguments.max_spikes != "auto":
        raise UsageError(
            Text(
                "{option} applies only to the event engine; the time-stepped engine records all "
                "spikes",
                option=MAX_SPIKES,
            ),
            fix="remove the option",
        )


def run_file(
    graph: Graph,
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    t_end: float | None = None,
    max_spikes: int | Literal["auto"] = "auto",
    values: str = "auto",
    force: bool = False,
    neurobench: bool = False,
) -> RunOutcome:
    """Simulate a graph event by event on the inputs of an .npz file or a file of NIR data, and
    write its outputs; see `jaxsnn.simulation.network_arrays`.

    Args:
        t_end: seconds; default for time-stepped inputs: the end of the last time step; for events:
            `assumed_end`, which a note states.
        max_spikes: number of spikes per neuron above which the run fails; "auto": the budget grows as needed.
        values: kind of time-stepped inputs, one of `jaxsnn.simulation.network_arrays.VALUE_KINDS`.
        neurobench: whether to compute the metrics of NeuroBench.

    Raises:
        JaxsnnError: inputs that do not match the network, a dialect with unknown conventions, or a run
            that fails.
    """
    import numpy as np

    from jaxsnn.capabilities import unsupported
    from jaxsnn.errors import refuse
    from jaxsnn.event.capabilities import OUTPUTS
    from jaxsnn.event.run_once import RunOnce
    from jaxsnn.network.features import StaticNetwork
    from jaxsnn.network.lowering.lower import lower
    from jaxsnn.network.results import Result
    from jaxsnn.output import write_arrays
    from jaxsnn.simulation.network_arrays import assumed_end, load_inputs, output_arrays
    from jaxsnn.simulation.simulate import simulate

    if max_spikes != "auto" and max_spikes < 1:
        raise UsageError(
            Text("{option} is {value}", option=MAX_SPIKES, value=max_spikes),
            fix="pass an integer of at least 1",
        )
    engine = RunOnce(max_spikes=max_spikes, max_events="auto", max_arrivals="auto")
    network = lower(graph)
    refuse(unsupported(StaticNetwork.of(network), OUTPUTS))
    inputs = load_inputs(source, network, graph.dialect.dt, values)
    end, notes = inputs.t_end if t_end is None else t_end, inputs.notes
    if end is None:
        end, note = assumed_end(network, inputs.events)
        notes = (*notes, note)
    samples = next((len(np.atleast_2d(events.time)) for events in inputs.events.values()), 1)
    engine = engine.with_first_room(network, samples, end)
    solution = simulate(
        network, inputs.events, end, engine=engine, sample_times=inputs.sampled(network, end)
    )
    leaving = output_arrays(network, solution)
    write_arrays(output, leaving, force)
    metrics = _metrics(graph, network, solution, inputs.events) if neurobench else None
    return RunOutcome(
        result=Result(int(solution.result)).name.lower(),
        spikes={
            name: int(np.asarray(events.count).sum()) for name, events in solution.spikes.items()
        },
        spikes_needed={name: int(count) for name, count in solution.spikes_needed.items()},
        samples=samples,
        t_end=end,
        output=os.fspath(output),
        arrays={name: array.shape for name, array in leaving.items()},
        notes=(
            *notes,
            *solution.notes,
            *_unused_options(graph, network),
            *(() if metrics is None else metrics.notes),
        ),
        neurobench=metrics,
        solution=solution,
        inputs=inputs.events,
    )


def run_in_steps(
    graph: Graph,
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    t_end: float | None = None,
    values: str = "auto",
    force: bool = False,
    neurobench: bool = False,
) -> RunOutcome:
    """Simulate a graph step by step on the inputs of an .npz file, and write its outputs as
    "NODE.y" (time, batch, *shape).

    Args:
        source: see `jaxsnn.simulation.network_arrays.load_inputs`.
        t_end: seconds; default for time-stepped inputs: the end of the last time step; for events:
            `assumed_end`, which a note states.
        values: as in `run_file`; it matters if NIR's own equations are simulated, in which spikes
            and currents differ.
        neurobench: whether to compute the metrics of NeuroBench.

    Raises:
        JaxsnnError: inputs that do not match the network, a dialect with unknown conventions, or a run
            that fails.
    """
    import numpy as np

    from jaxsnn.grid.time_stepped import TimeStepped
    from jaxsnn.network.lowering.lower import lower
    from jaxsnn.network.results import Result
    from jaxsnn.output import write_arrays
    from jaxsnn.simulation.network_arrays import (
        assumed_end,
        refuse_large_rasters,
        stepped_inputs,
    )
    from jaxsnn.simulation.simulate import simulate

    network = lower(graph, dtype=np.float32)
    inputs = stepped_inputs(source, network, graph.dialect.dt, values)
    end, notes = inputs.t_end if t_end is None else t_end, inputs.notes
    if end is None and all(hasattr(events, "time") for events in inputs.events.values()):
        end, note = assumed_end(network, inputs.events, graph.dialect.dt)
        notes = (*notes, note)
    refuse_large_rasters(inputs, network, end, graph.dialect.dt)
    solution = simulate(network, inputs.events, end, engine=TimeStepped(record=True))
    leaving = {f"{name}.y": np.asarray(y) for name, y in solution.y.items()}
    write_arrays(output, leaving, force)
    metrics = _metrics(graph, network, solution, inputs.events) if neurobench else None
    counts = {name: np.asarray(spikes).sum(axis=0) for name, spikes in solution.spikes.items()}
    steps, samples = next(iter(solution.voltages.values())).shape[:2]
    return RunOutcome(
        result=Result(int(solution.result)).name.lower(),
        spikes={name: round(float(count.sum())) for name, count in counts.items()},
        spikes_needed={name: round(float(count.max())) for name, count in counts.items()},
        samples=samples,
        t_end=None if solution.dt is None else steps * solution.dt,
        steps=steps,
        notes=(*notes, *solution.notes, *(() if metrics is None else metrics.notes)),
        neurobench=metrics,
        output=os.fspath(output),
        arrays={name: array.shape for name, array in leaving.items()},
        solution=solution,
        inputs=inputs.events,
    )


def _metrics(graph: Graph, network: Network, solution: Any, inputs: Any) -> NeuroBench:
    """Return the metrics of NeuroBench of a run; time steps are those of the file."""
    from jaxsnn.simulation.neurobench import neurobench

    return neurobench(network, solution, inputs, dt=graph.dialect.dt)


def run_report(arguments: argparse.Namespace, graph: Graph, outcome: RunOutcome) -> str:
    """Return the page on the run."""
    from jaxsnn.plot import raster
    from jaxsnn.plot.spike_plots import drawable

    assert outcome.neurobench is not None
    spikes = sum(outcome.spikes.values())
    rows = [(name, count, outcome.spikes_needed[name]) for name, count in outcome.spikes.items()]
    key_figures = {
        "samples": outcome.samples,
        "duration": None if outcome.t_end is None else format_time(outcome.t_end),
        "time steps": outcome.steps,
        "spikes": spikes,
        "operations per sample": outcome.neurobench.operations,
    }
    results = (
        table(("population", "spikes", "most spikes of a neuron in a sample"), rows)
        + figure(
            lambda: raster(outcome.solution, inputs=drawable(outcome.inputs)),
            "spikes of the first sample",
        )
        + neurobench_facts(outcome.neurobench)
        + f"<h3>Files</h3>{facts({'results': outcome.output})}"
    )
    sections = {
        "Input": input_section(arguments, graph, arguments.file, inputs=arguments.input),
        "Dialect": dialect_section(graph),
        "Results": results,
        "Limitations": limitations_section(outcome.notes, graph),
    }
    result = f"{spikes} spikes in {outcome.samples} samples"
    return page(f"run: {Path(arguments.file).name}", summary(result, key_figures), sections)


def _unused_options(graph: Graph, network: Network) -> tuple[str, ...]:
    """Return notes on options of the dialect that have no effect in continuous time."""
    conventions = graph.dialect.conventions
    if conventions is None or conventions.reset_delay is not None:
        return ()
    delayed = [
        name
        for name, population in network.populations.items()
        if population.fires and graph.dialect.at(name).reset_delay
    ]
    if not delayed:
        return ()
    return (
        Text(
            "{reset_delay} has no effect for {delayed}: in continuous time, a neuron resets at "
            "the time of its spike",
            reset_delay=RESET_DELAY,
            delayed=listing(delayed),
        ),
    )
