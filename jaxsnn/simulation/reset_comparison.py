"""Resets that subtract v_threshold against resets to v_reset, on the user's data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from jaxsnn.errors import UsageError, warn_of
from jaxsnn.grid.time_stepped import TimeStepped
from jaxsnn.keywords import suggests_keywords
from jaxsnn.network.lowering.lower import lower
from jaxsnn.nir.dialects.dialect_options import with_options
from jaxsnn.nir.dialects.resolve import subtracting_neurons
from jaxsnn.nir.model.graph import Graph, refuse_no_graph
from jaxsnn.options import DT
from jaxsnn.simulation.network_arrays import load_inputs, network_inputs
from jaxsnn.simulation.simulate import simulate
from jaxsnn.summary import summarised
from jaxsnn.wording import Text


@dataclass(frozen=True, kw_only=True)
class PopulationResets:
    """Spikes of one population with both resets, all samples together.

    Attributes:
        subtracting: number of spikes of the source, whose resets subtract v_threshold.
        to_v_reset: number of spikes where these neurons reset to v_reset.
        changed: steps of a neuron in a sample in which the two differ.
    """

    subtracting: int
    to_v_reset: int
    changed: int


@summarised
@dataclass(frozen=True, kw_only=True)
class ResetComparison:
    """Comparison of the two resets.

    Attributes:
        populations: spiking population -> its spikes.
        notes: approximations, a sentence each.
    """

    populations: dict[str, PopulationResets]
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, dict[str, int]]:
        """Return a JSON-compatible dict."""
        return {name: asdict(spikes) for name, spikes in self.populations.items()}

    def as_text(self) -> str:
        """Return human-readable text."""
        return "\n".join(
            f"resets of {name:14}{spikes.subtracting} spikes if they subtract, {spikes.to_v_reset} if"
            f" they go to v_reset, {spikes.changed} steps differ"
            for name, spikes in self.populations.items()
        )


@suggests_keywords
def compare_resets(
    graph: Graph,
    arrays: Mapping[str, np.ndarray] | str | os.PathLike[str],
    values: str = "auto",
) -> ResetComparison:
    """Count the spikes that change where neurons reset to v_reset instead of subtracting v_threshold.

    Neurons of the chip reset to v_reset, and `quantize(graph, approximate=True)` maps a graph in this way.
    Both variants run in the time steps of the source. Changed spikes of a population also change the
    populations after it, whatever the resets of these are.

    Args:
        graph: graph with its dialect, which must specify dt.
        arrays: an array (time, batch, *shape) for each Input, named "NODE.x", or "x" where there is
            one; or the path of a file of these or of NIR data.
        values: meaning of the input values, as in `fidelity`.

    Raises:
        UsageError: inputs that do not fit, or without time steps.
        LoweringError: a node that the time-stepped engine does not run.

    >>> from jaxsnn.nir import build
    >>> layers = build.linear(weight=np.array([[0.7]])), build.lif(tau=1e-3, r=10.0)
    >>> graph = build.sequential(
    ...     build.input(1), *layers, dialect="snntorch", reset="subtract", reset_delay=True, dt=1e-4
    ... )
    >>> spikes = compare_resets(graph, {"x": np.ones((30, 1, 1))}).populations["2"]
    >>> spikes.subtracting > spikes.to_v_reset
    True
    """
    refuse_no_graph(graph)
    dt = graph.dialect.dt
    if dt is None:
        raise UsageError("the length of a step is unknown", fix=Text("set {dt}", dt=DT.keyword))
    resetting = with_options(graph, reset=dict.fromkeys(subtracting_neurons(graph), "zero"))
    network = lower(graph, dtype=np.float32)
    load: Any = load_inputs if isinstance(arrays, str | os.PathLike) else network_inputs
    inputs = load(arrays, network, dt, values)
    if inputs.t_end is None:
        raise UsageError(
            "resets are compared on time-stepped inputs, and these are events",
            fix="use 'x' (time, batch, ...) instead",
        )
    engine = TimeStepped(record=True)
    source, chip = (
        simulate(variant, inputs.events, inputs.t_end, engine=engine)
        for variant in (network, lower(resetting, dtype=np.float32))
    )
    populations = {}
    for name in source.spikes:
        first, second = (np.asarray(run.spikes[name]) for run in (source, chip))
        populations[name] = PopulationResets(
            subtracting=int(first.sum()),
            to_v_reset=int(second.sum()),
            changed=int(np.count_nonzero(first != second)),
        )
    comparison = ResetComparison(populations=populations, notes=tuple(inputs.notes))
    warn_of(comparison.notes)
    return comparison
