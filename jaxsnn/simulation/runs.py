"""Play a network on inputs from a file: what `jaxsnn run` does."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import SimulationError, UsageError, listing, refuse
from jaxsnn.event.event_options import Event
from jaxsnn.event.limits import output_limits
from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.network import Network
from jaxsnn.network.results import Result
from jaxsnn.network.spikes import Events, dense_to_events, flatten_spikes, sort_events
from jaxsnn.nir.graph import Graph
from jaxsnn.output import write_whole
from jaxsnn.simulation.recordings import inputs_of
from jaxsnn.simulation.recordings import load_arrays as load_arrays
from jaxsnn.simulation.simulate import Solution, simulate
from jaxsnn.units import format_time

#: More spikes of one neuron in one sample than this are taken for a mistake.
LARGEST_BUDGET = 16384


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What goes into a network.

    Attributes:
        events: Input node -> Events (batch, events), seconds.
        t_end: seconds, the end of the steps of dense inputs; None for event arrays.
        sample_times: (steps,) seconds, the steps of dense inputs; None for event arrays.
    """

    events: dict[str, Events]
    t_end: float | None
    sample_times: np.ndarray | None


def network_inputs(arrays: dict[str, np.ndarray], network: Network, dt: float | None) -> Inputs:
    """Inputs of a network from arrays.

    Arrays as in `jaxsnn.simulation.recordings`; step k of a raster "NODE.x", (time, batch, ...), is
    at k dt.

    Args:
        dt: seconds, length of a step; needed for rasters.

    Raises:
        UsageError: arrays that are missing or do not fit.
    """
    events, steps = {}, {}
    for name, given in inputs_of(arrays, network).items():
        if isinstance(given, Events):
            events[name] = given
            continue
        if dt is None:
            raise UsageError(
                f"input '{name}' is given by steps, and the file does not say how long one is: say dt (--dt)"
            )
        events[name] = _from_raster(name, given, network.inputs[name], dt)
        steps[name] = len(given)
    if not steps:
        return Inputs(events=events, t_end=None, sample_times=None)
    if len(steps) < len(events) or len(set(steps.values())) > 1:
        raise UsageError(
            f"inputs of different lengths, in steps {steps}, of {listing(events)}: make them equal"
        )
    count = next(iter(steps.values()))
    return Inputs(
        events=events, t_end=count * (dt or 0.0), sample_times=np.arange(count) * (dt or 0.0)
    )


def _from_raster(name: str, raster: np.ndarray, size: int, dt: float) -> Events:
    if raster.ndim < 3:
        raise UsageError(
            f"input '{name}': x has shape {raster.shape}, it must be (time, batch, channels)"
        )
    channels = math.prod(raster.shape[2:])
    if channels != size:
        raise UsageError(f"input '{name}': x has {channels} channels, the network takes {size}")
    try:
        return dense_to_events(raster, dt)
    except ValueError as error:
        raise UsageError(f"input '{name}': {error}") from error


def simulate_fully(
    network: Network,
    inputs: Any,
    t_end: float,
    *,
    engine: Event | None = None,
    sample_times: Any = None,
    max_spikes: int | None = None,
    say: Callable[[str], None] | None = None,
) -> Solution:
    """Simulate with as large budgets as it takes, starting from those of `engine`.

    Args:
        max_spikes: fail where a neuron fires more often.

    Raises:
        SimulationError: the run fails otherwise, or a neuron fires more than 16384 times.
    """
    engine = engine or Event()
    if max_spikes is not None:
        engine = replace(engine, max_spikes=max_spikes)
    while True:
        solution = simulate(
            network, inputs, t_end, engine=engine, sample_times=sample_times, throw=False
        )
        if int(solution.result) == Result.SUCCESS:
            return solution
        most = max((int(count) for count in solution.spikes_needed.values()), default=0)
        allowed = LARGEST_BUDGET if max_spikes is None else max_spikes
        if int(solution.result) != Result.BUDGET_EXHAUSTED or most > allowed:
            raise SimulationError(solution.message)
        if say is not None:
            say(f"{solution.message}: done")
        engine = engine.with_room(solution.shortages())


def output_arrays(network: Network, solution: Solution) -> dict[str, np.ndarray]:
    """What leaves a network, by Output node.

    "NODE.time" and "NODE.index" (batch, events), seconds, sorted, unused slots inf and the
    population's size; of a readout "NODE.y" (time, batch, neurons) and "NODE.sample_time" (time,),
    seconds; of a Threshold played as a level its rises as "NODE.time" and "NODE.index", and
    "NODE.fall_time" and "NODE.fall_index" likewise.

    Raises:
        UsageError: an Output that is not fed by populations that all fire, or by one readout or
            level.
    """
    arrays = {}
    for name, sources in network.outputs.items():
        if sources and all(source in solution.spikes for source in sources):
            trains = [solution.events(source) for source in sources]
            merged = sort_events(
                jnp.concatenate([train.time for train in trains], axis=1),
                jnp.concatenate([train.index for train in trains], axis=1),
            )
            arrays[f"{name}.time"], arrays[f"{name}.index"] = _trimmed(*map(np.asarray, merged))
        elif len(sources) == 1 and sources[0] in solution.levels:
            level = solution.levels[sources[0]]
            for prefix, times in (("", level.rise), ("fall_", level.fall)):
                events = flatten_spikes(times)
                time, index = _trimmed(np.asarray(events.time), np.asarray(events.index))
                arrays |= {f"{name}.{prefix}time": time, f"{name}.{prefix}index": index}
        elif len(sources) == 1 and sources[0] in solution.voltages:
            arrays[f"{name}.y"] = np.moveaxis(np.asarray(solution.voltages[sources[0]]), 1, 0)
            arrays[f"{name}.sample_time"] = np.asarray(solution.sample_times)
        else:
            raise UsageError(
                f"output '{name}' is fed by {listing(sources)}: what leaves must come from populations that fire, or "
                "from one readout, or from one Threshold"
            )
    return arrays


def _trimmed(time: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Without slots at the end that no sample uses."""
    used = max(int(np.isfinite(time).sum(axis=1).max(initial=0)), 1)
    return time[:, :used], index[:, :used]


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """What `jaxsnn run` did.

    Attributes:
        result: "success".
        spikes: population -> number of spikes, all samples together.
        spikes_needed: population -> largest number of spikes of one neuron in one sample; of a
            level, of rises.
        levels: Threshold that is played as a level -> number of rises, all samples together.
        samples: size of the batch.
        t_end: seconds; None on a grid whose steps have no known length.
        output: path of the file that was written.
        arrays: name -> shape of what is in it.
        steps: on the grid, how many.
        notes: what was played otherwise than it was said, or only approximated, a sentence each.
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
    levels: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "schema": 1,
            "result": self.result,
            "spikes": self.spikes,
            "levels": self.levels,
            "events_needed": max(self.spikes_needed.values(), default=0),
            "spikes_needed": self.spikes_needed,
            "samples": self.samples,
            "t_end": self.t_end,
            "steps": self.steps,
            "notes": list(self.notes),
            "output": self.output,
            "arrays": {name: list(shape) for name, shape in self.arrays.items()},
        }

    def as_text(self) -> str:
        """For people."""
        lengths = [f"{self.steps} steps"] if self.steps is not None else []
        lengths += [format_time(self.t_end)] if self.t_end is not None else []
        lines = [f"{self.samples} samples of {', '.join(lengths)}"]
        lines += [
            f"{name}: {count} spikes, at most {self.spikes_needed[name]} of one neuron in one sample"
            for name, count in self.spikes.items()
        ]
        lines += [
            f"{name}: rises {count} times, at most {self.spikes_needed[name]} times in one neuron of one sample"
            for name, count in self.levels.items()
        ]
        arrays = ", ".join(f"{name} {shape}" for name, shape in self.arrays.items())
        return "\n".join([*lines, f"{self.output}: {arrays}"])


def run_file(
    graph: Graph,
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    t_end: float | None = None,
    max_spikes: int | None = None,
    threshold: str | None = None,
    force: bool = False,
) -> RunOutcome:
    """Simulate a graph on the inputs of an .npz file (see `network_inputs`), write what leaves it
    (`output_arrays`).

    Args:
        t_end: seconds; default: the end of the steps, where inputs are given by steps.
        max_spikes: fail where a neuron fires more often; default: record as many spikes as there
            are.
        threshold: how a Threshold is played, "level" (the default) or "event".

    Raises:
        JaxsnnError: inputs that do not fit, a dialect that is not known well enough, or a run that
            fails.
    """
    if max_spikes is not None and max_spikes < 1:
        raise UsageError(f"max_spikes (--max-spikes) is {max_spikes}: it must be at least 1")
    arrays = load_arrays(source)
    network = lower(graph)
    refuse(output_limits(network.wires, network.populations, threshold or "level"))
    inputs = network_inputs(arrays, network, graph.dialect.dt)
    end = inputs.t_end if t_end is None else t_end
    if end is None:
        raise UsageError(
            f"{source} holds events, and does not say when a sample ends: say t_end (--t-end)"
        )
    solution = simulate_fully(
        network,
        inputs.events,
        end,
        engine=Event(threshold=threshold or "level"),
        sample_times=None
        if inputs.sample_times is None
        else inputs.sample_times[inputs.sample_times <= end],
        max_spikes=max_spikes,
    )
    late = sum(int(count) for count in solution.late.values())
    leaving = output_arrays(network, solution)
    write_whole(output, lambda temporary: save_arrays(temporary, leaving), force)
    needed = {name: int(count) for name, count in solution.spikes_needed.items()}
    return RunOutcome(
        result=Result(int(solution.result)).name.lower(),
        spikes=spike_counts(solution),
        spikes_needed=needed,
        samples=next((len(np.atleast_2d(events.time)) for events in inputs.events.values()), 1),
        t_end=end,
        output=os.fspath(output),
        arrays={name: array.shape for name, array in leaving.items()},
        notes=(
            *solution.notes,
            *_late_notes(late, end),
            *_unused_options(graph, network, threshold),
        ),
        levels={name: int(jnp.sum(level.count)) for name, level in solution.levels.items()},
    )


def _late_notes(late: int, end: float) -> tuple[str, ...]:
    return (
        (f"{late} input events at or after t_end = {format_time(end)} were left out",)
        if late
        else ()
    )


def _unused_options(graph: Graph, network: Network, threshold: str | None) -> tuple[str, ...]:
    """What was said of a file, and means nothing for it, or in continuous time."""
    unused = ()
    if threshold is not None and all(wire.kind != "Threshold" for wire in network.wires):
        unused = ("threshold has no effect: the network has no Threshold",)
    conventions = graph.dialect.conventions
    if conventions is None or conventions.reset_delay is not None:
        return unused
    delayed = [
        name
        for name, population in network.populations.items()
        if population.fires and graph.dialect.at(name).reset_delay
    ]
    if not delayed:
        return unused
    return (
        *unused,
        f"reset_delay of {listing(delayed)} has no effect: in continuous time a spike resets at its own time",
    )


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an .npz file."""
    # a file object: a path would get .npz appended
    with open(path, "wb") as file:
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]


def spike_counts(solution: Solution) -> dict[str, int]:
    """Spikes of each population, all samples together."""
    return {name: int(jnp.sum(spikes.count)) for name, spikes in solution.spikes.items()}
