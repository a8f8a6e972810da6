"""Random networks in the event engine: from nodes through a NIR graph to a network, and run."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn import EventDriven, Events, lower
from jaxsnn.network.network import Network
from jaxsnn.nir import build
from tests.fuzz.nir_reading import NEURONS
from tests.fuzz.random_networks import Drawn

MAX_SPIKES = 24


def graph_of(drawn: Drawn) -> Any:
    """The NIR graph; where its dialect counts time in steps, times are in steps."""
    structure = drawn.structure
    step = structure.meaning.dt if structure.dialect == "sinabs" else 1.0
    layers = {}
    for name, node in drawn.nodes.items():
        numbers = dict(node.numbers)
        for key in numbers:
            power = 1 if key.startswith("tau") or key == "delay" else 0
            power = -1 if key == "r" and node.kind in ("IF", "I") else power
            numbers[key] = numbers[key] / step**power
        layers[name] = layer(node, numbers)
    options = dict(structure.options)
    if structure.dialect == "nir":
        options["time_unit"] = "s"
    return build.network(layers, structure.edges, dialect=structure.dialect, **options)


def layer(node, numbers):
    """One node for `build.network`."""
    settings = dict(node.settings)
    shape = settings.pop("shape", None)
    if node.kind == "Input":
        return build.input(shape)
    if node.kind == "Output":
        return build.output(shape)
    if node.kind == "Linear":
        return build.linear(weight=numbers["weight"])
    if node.kind == "Affine":
        return build.affine(weight=numbers["weight"], bias=numbers["bias"])
    if node.kind in NEURONS:
        numbers = {key: np.reshape(value, shape) for key, value in numbers.items()}
        return build.node(node.kind, shape, **numbers)
    return build.node(node.kind, **numbers, **settings)


def engine_of(structure, max_spikes: int = MAX_SPIKES) -> EventDriven:
    """The engine with the options of a structure."""
    meaning = structure.meaning
    return EventDriven(
        max_spikes=max_spikes,
        refractory=dict(meaning.refractory),
        first_spike_only=tuple(sorted(meaning.once)),
    )


def inputs_of(drawn: Drawn, dtype: str = "float64") -> dict[str, Events]:
    return {
        name: Events(
            time=jnp.asarray(times, dtype), index=jnp.asarray(drawn.channels[name], "int32")
        )
        for name, times in drawn.times.items()
    }


class Group:
    """The networks of one structure: one compiled function serves them all."""

    def __init__(self, first: Drawn, dtype: str = "float64", max_spikes: int = MAX_SPIKES):
        self.dtype = dtype
        self.base: Network = lower(graph_of(first), dtype=dtype)
        self.engine = engine_of(first.structure, max_spikes)
        self._gradient = None

    def network(self, drawn: Drawn) -> Network:
        numbers = lower(graph_of(drawn), dtype=self.dtype).parameters
        return self.base.with_parameters(numbers)

    def run(self, drawn: Drawn, sample_times: np.ndarray) -> Any:
        """The solution. Budgets behind convolutions grow; spikes are few enough in the reference."""
        network, inputs = self.network(drawn), inputs_of(drawn, self.dtype)
        for _ in range(3):
            solution = self.engine.run(network, inputs, drawn.t_end, sample_times)
            short = solution.shortages()
            if not short or "max_spikes" in short:
                break
            self.engine = self.engine.with_room(short)
        return solution

    def gradient(self, drawn: Drawn, weights: dict[str, np.ndarray]) -> Any:
        """Gradient of a linear functional of the first spike times, by parameters and input times.

        Args:
            weights: population -> (samples, neurons, spikes), what the functional takes of each.
        """
        network, inputs = self.network(drawn), inputs_of(drawn, self.dtype)
        if self._gradient is None:
            self._gradient = jax.jit(jax.grad(self._functional, argnums=(0, 1)))
        times = {name: events.time for name, events in inputs.items()}
        channels = {name: events.index for name, events in inputs.items()}
        return self._gradient(network.parameters, times, channels, weights, drawn.t_end)

    def _functional(self, parameters, times, channels, weights, t_end):
        network = self.base.with_parameters(parameters)
        inputs = {name: Events(time=times[name], index=channels[name]) for name in times}
        solution = self.engine.run(network, inputs, t_end)
        total = 0.0
        for name, weight in weights.items():
            first = solution.spikes[name].time[..., : weight.shape[-1]]
            # Neurons that fire once have one slot.
            weight = weight[..., : first.shape[-1]]
            total += jnp.sum(jnp.where(jnp.isfinite(first), first, 0.0) * weight)
        return total
