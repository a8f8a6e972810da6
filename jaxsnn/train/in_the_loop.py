"""Training in the loop: something else fires the spikes, the exact gradient is taken at the spikes that it recorded.

The forward pass is not simulated: a chip, or an emulator of one, says when which neuron fired. The backward pass is the
adjoint of the event engine at those times, with the slopes that the network's own equations give there (Pehle et al.,
arXiv:2302.07141). What the device does otherwise than the equations say enters through the recorded times alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import UsageError
from jaxsnn.event.engine import Event
from jaxsnn.event.recorded import replay
from jaxsnn.network import Network
from jaxsnn.simulate import Solution, checked_inputs, conclude


class Device(Protocol):
    """What fires in the loop; hashable, for the compiled code knows it."""

    def forward(self, network: Network, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
        """Spike times of each population that fires, by its NIR name.

        Args:
            network: with the parameters of this step, NumPy arrays.
            inputs: Input node -> Events (batch, events), NumPy arrays.

        Returns:
            Population -> (batch, neurons, spikes) seconds, rising along the last axis, inf where unused. Any number of
            spikes; those beyond `max_spikes` end the step with a result code that says so.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class InTheLoop:
    """Trains on the spikes of a device, with exact gradients at their times.

    Attributes:
        device: fires them.
        max_spikes: spikes recorded of each neuron.
        min_slope: as in `jaxsnn.Event`.
    """

    device: Device
    max_spikes: int = 16
    min_slope: float = 2**-20

    @property
    def event(self) -> Event:
        """The event engine with the same options."""
        return Event(max_spikes=self.max_spikes, min_slope=self.min_slope)

    def with_room(self, shortages: dict[str, dict[str, int]]) -> InTheLoop:
        """The same with a larger budget."""
        return replace(self, max_spikes=max(self.max_spikes, *shortages["max_spikes"].values()))

    def hashable(self) -> InTheLoop:
        """Itself."""
        return self


def simulate_in_the_loop(engine: InTheLoop, network: Network, inputs: Any, t_end: float) -> Solution:
    """What the device fired, as a `Solution` that is differentiable as that of the event engine is.

    Raises:
        UsageError: the device left out a population, or its arrays do not fit.
    """
    trains = checked_inputs(network, inputs)
    batch = next(iter(trains.values())).time.shape[0]
    firing = {name: own.size for name, own in network.populations.items() if own.fires}
    shapes = {
        name: (
            jax.ShapeDtypeStruct((batch, size, engine.max_spikes), network.dtype),
            jax.ShapeDtypeStruct((batch, size), jnp.int32),
        )
        for name, size in firing.items()
    }
    call = partial(_recorded, engine, network)
    frozen = jax.lax.stop_gradient((network.parameters, trains))
    recorded = jax.pure_callback(call, shapes, *frozen)
    at_end = jnp.asarray([t_end], network.dtype)
    record = replay(network, trains, t_end, at_end, engine.event.hashable(), recorded)
    return conclude(network, trains, jnp.asarray(t_end, network.dtype), at_end, record)


def _recorded(engine: InTheLoop, network: Network, parameters: Any, trains: Any) -> dict[str, Any]:
    """Times cut or padded to the budget, and the true counts."""
    as_numpy = partial(jax.tree.map, np.asarray)
    filled = Network(parameters=as_numpy(parameters), wires=network.wires, populations=network.populations)
    inputs = {
        name: replace(events, time=np.asarray(events.time), index=np.asarray(events.index))
        for name, events in trains.items()
    }
    times = engine.device.forward(filled, inputs)
    batch = len(next(iter(inputs.values())).time)
    result = {}
    for name, population in network.populations.items():
        if not population.fires:
            continue
        if name not in times:
            raise UsageError(f"the device says nothing of population '{name}': give its spike times")
        own = np.asarray(times[name], network.dtype)
        if own.ndim != 3 or own.shape[:2] != (batch, population.size):
            raise UsageError(
                f"population '{name}': the device gives times of shape {own.shape}, it must be "
                f"({batch}, {population.size}, spikes)"
            )
        slots = np.full((*own.shape[:2], engine.max_spikes), np.inf, own.dtype)
        kept = min(own.shape[2], engine.max_spikes)
        slots[..., :kept] = own[..., :kept]
        result[name] = (slots, np.isfinite(own).sum(axis=2).astype(np.int32))
    return result
