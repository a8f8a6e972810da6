"""How far continuous time is from the steps of the framework that wrote a file, on the user's data."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from jaxsnn.errors import UsageError
from jaxsnn.event.event_options import Event
from jaxsnn.grid.time_stepped import Grid
from jaxsnn.network.lowering.lower import lower
from jaxsnn.nir.graph import Graph
from jaxsnn.simulation.recordings import load_arrays
from jaxsnn.simulation.runs import network_inputs, simulate_fully
from jaxsnn.simulation.simulate import simulate
from jaxsnn.simulation.stepped_runs import notes_of


@dataclass(frozen=True, kw_only=True)
class PopulationFidelity:
    """One population on both engines, all samples together.

    Attributes:
        grid, event: numbers of spikes.
        count_cosine: cosine between the spike counts of all neurons in all samples; None where one
            engine is silent.
        rate_ratio: spikes of the event engine per spike of the grid; None where the grid is silent.
        multi_spike_steps: steps of a neuron in a sample in which the event engine fires more than
            once.
    """

    grid: int
    event: int
    count_cosine: float | None
    rate_ratio: float | None
    multi_spike_steps: int


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """What `jaxsnn fidelity` found, by population that fires, and what the grid played otherwise
    than it was said.
    """

    populations: dict[str, PopulationFidelity]
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        populations = {name: asdict(found) for name, found in self.populations.items()}
        return {"schema": 1, "populations": populations, "notes": list(self.notes)}

    def as_text(self) -> str:
        """For people."""
        lines = []
        for name, found in self.populations.items():
            ratio, cosine = (
                "undefined" if value is None else f"{value:.4f}"
                for value in (found.rate_ratio, found.count_cosine)
            )
            lines.append(
                f"{name}: {found.event} spikes in continuous time, {found.grid} in steps (ratio {ratio}), count cosine "
                f"{cosine}, {found.multi_spike_steps} steps with more than one spike"
            )
        return "\n".join(lines)


def fidelity_of_file(
    graph: Graph, source: str | os.PathLike[str], threshold: str | None = None
) -> Fidelity:
    """Play a graph on the inputs of an .npz file with both engines; see `fidelity`."""
    return fidelity(graph, load_arrays(source), threshold)


def fidelity(graph: Graph, arrays: dict[str, np.ndarray], threshold: str | None = None) -> Fidelity:
    """Play a graph with both engines and compare their spikes, population by population.

    Args:
        graph: read with its dialect; its dt must be known.
        arrays: an array (time, batch, *shape) for each Input, named "NODE.x", or "x" where there is
            one.
        threshold: how the event engine plays a Threshold, "level" (the default) or "event"; on the
            grid it is a level.

    Raises:
        JaxsnnError: inputs that do not fit, or something that one of the engines refuses.
    """
    network = lower(graph, dtype=np.float32)
    dt = graph.dialect.dt
    inputs = network_inputs(arrays, network, dt)
    if inputs.t_end is None or dt is None:
        raise UsageError(
            "the two engines are compared on inputs by steps: give 'x' (time, batch, ...) instead of events"
        )
    shapes = {wire.name: wire.shape for wire in network.wires if wire.kind == "input"}
    rasters = {name: arrays.get(f"{name}.x", arrays.get("x")) for name in shapes}
    events = simulate_fully(
        network, inputs.events, inputs.t_end, engine=Event(threshold=threshold or "level")
    )
    steps = simulate(network, rasters, engine=Grid(record=True))
    found = {}
    for name, spikes in events.spikes.items():
        if name not in network.populations:  # a Threshold
            continue
        time = np.asarray(spikes.time, float)
        raster = np.asarray(steps.spikes[name])
        played = raster.reshape(*raster.shape[:2], -1).sum(axis=0)
        found[name] = compared(time, played, dt)
    differently = events.notes if threshold == "event" else ()  # on the grid a Threshold is a level
    return Fidelity(populations=found, notes=(*notes_of(steps), *differently))


def compared(time: np.ndarray, played: np.ndarray, dt: float) -> PopulationFidelity:
    """One population.

    Args:
        time: (batch, neurons, spikes) seconds, inf where there is none.
        played: (batch, neurons), number of spikes on the grid.
    """
    fired = np.isfinite(time)
    counts = fired.sum(axis=-1)
    step = np.where(fired, np.floor(np.where(fired, time, 0.0) / dt), np.nan)
    together = step[..., 1:] == step[..., :-1]  # a third spike in one step makes it no second one
    crowded = together & ~np.pad(together, ((0, 0), (0, 0), (1, 0)))[..., :-1]
    norms = float(np.linalg.norm(counts)) * float(np.linalg.norm(played))
    grid, event = round(float(played.sum())), int(counts.sum())
    return PopulationFidelity(
        grid=grid,
        event=event,
        count_cosine=float((counts * played).sum()) / norms if norms else None,
        rate_ratio=event / grid if grid else None,
        multi_spike_steps=int(crowded.sum()),
    )
