"""Continuous time against the steps of the framework that wrote a file, on the user's data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from jaxsnn.errors import UsageError, warn_of
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.grid.time_stepped import TimeStepped
from jaxsnn.keywords import suggests_keywords
from jaxsnn.network.lowering.lower import lower
from jaxsnn.nir.model.graph import Graph
from jaxsnn.simulation.network_arrays import load_inputs, network_inputs
from jaxsnn.simulation.simulate import simulate
from jaxsnn.summary import summarised

#: Relative rounding error of a float32 time.
_ROUNDING = 2.0**-22


@dataclass(frozen=True, kw_only=True)
class PopulationFidelity:
    """Comparison of one population on both engines, all samples together.

    Attributes:
        grid, event: numbers of spikes.
        count_cosine: cosine similarity of the spike counts of all neurons in all samples; None
            where one engine is silent.
        rate_ratio: spikes of the event engine per spike of the time-stepped one; None where that is
            silent.
        multi_spike_steps: steps of a neuron in a sample in which the event engine fires more than
            once.
    """

    grid: int
    event: int
    count_cosine: float | None
    rate_ratio: float | None
    multi_spike_steps: int


@summarised
@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """Comparison of both engines.

    Attributes:
        populations: spiking population -> its comparison.
        notes: approximations, and specified options that are not followed, a sentence each.
    """

    populations: dict[str, PopulationFidelity]
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-compatible dict."""
        populations = {
            name: asdict(population_fidelity)
            for name, population_fidelity in self.populations.items()
        }
        return {"schema": 1, "populations": populations, "notes": list(self.notes)}

    def as_text(self) -> str:
        """Return human-readable text."""
        lines = []
        for name, comparison in self.populations.items():
            ratio, cosine = (
                "undefined" if value is None else f"{value:.4f}"
                for value in (comparison.rate_ratio, comparison.count_cosine)
            )
            lines.append(
                f"{name}: spikes in continuous time: {comparison.event}, time-stepped: "
                f"{comparison.grid} (ratio {ratio}); cosine similarity of spike counts: {cosine}; "
                f"time steps with more than one spike: {comparison.multi_spike_steps}"
            )
        return "\n".join(lines)


@suggests_keywords
def fidelity(
    graph: Graph,
    arrays: Mapping[str, np.ndarray] | str | os.PathLike[str],
    values: str = "auto",
    *,
    max_spikes: int | Literal["auto"] = "auto",
) -> Fidelity:
    """Simulate a graph with both engines and compare their spikes, population by population.

    Args:
        graph: graph with its dialect, which must specify dt.
        arrays: an array (time, batch, *shape) for each Input, named "NODE.x", or "x" where there is
            one; or the path of a file of these or of NIR data.
        values: meaning of time-stepped values: "spikes" (counts), "current" (constant during each
            step), "graded" (one spike of that size in each step), or "auto": spikes if all values
            are integers, else a current.
        max_spikes: spike budget of the event engine, see `EventDriven`.

    Raises:
        JaxsnnError: inputs that do not fit, or a network that one of the engines does not support.
    """
    network = lower(graph, dtype=np.float32)
    dt = graph.dialect.dt
    is_path = isinstance(arrays, str | os.PathLike)
    load: Any = load_inputs if is_path else network_inputs
    inputs = load(arrays, network, dt, values)
    if inputs.t_end is None or inputs.sample_times is None or dt is None:
        raise UsageError(
            "the inputs are events, but the two engines are compared on time-stepped inputs",
            fix="pass arrays 'x' (time, batch, ...) instead",
        )
    every = EventDriven(max_spikes=max_spikes, max_events="auto", max_arrivals="auto")
    events = simulate(network, inputs.events, inputs.t_end, engine=every)
    steps = simulate(network, inputs.events, inputs.t_end, engine=TimeStepped(record=True))
    population_fidelities = {}
    for name, spikes in events.spikes.items():
        time = np.asarray(spikes.time, float)
        raster = np.asarray(steps.spikes[name])
        counts = raster.reshape(*raster.shape[:2], -1).sum(axis=0)
        population_fidelities[name] = compared(time, counts, dt)
    measured = Fidelity(populations=population_fidelities, notes=(*inputs.notes, *steps.notes))
    warn_of(measured.notes)
    return measured


def compared(time: np.ndarray, in_steps: np.ndarray, dt: float) -> PopulationFidelity:
    """Compare the spikes of one population.

    Args:
        time: (batch, neurons, spikes) seconds, inf where there is none.
        in_steps: (batch, neurons), numbers of spikes of the time-stepped engine.
        dt: length of a step, seconds.
    """
    fired = np.isfinite(time)
    counts = fired.sum(axis=-1)
    exact = np.where(fired, time, 0.0) / dt
    # a spike at k dt belongs to step k, even if float32 rounds its time down
    near = np.rint(exact)
    at = np.where(np.abs(exact - near) <= _ROUNDING * np.maximum(near, 1), near, np.floor(exact))
    step = np.where(fired, at, np.nan)
    together = step[..., 1:] == step[..., :-1]
    # count each step once, also if it has more than two spikes
    crowded = together & ~np.pad(together, ((0, 0), (0, 0), (1, 0)))[..., :-1]
    norms = float(np.linalg.norm(counts)) * float(np.linalg.norm(in_steps))
    grid, event = round(float(in_steps.sum())), int(counts.sum())
    return PopulationFidelity(
        grid=grid,
        event=event,
        count_cosine=float((counts * in_steps).sum()) / norms if norms else None,
        rate_ratio=event / grid if grid else None,
        multi_spike_steps=int(crowded.sum()),
    )
