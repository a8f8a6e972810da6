"""What a loss can read of a simulated batch, by either engine: spike times, counts, maxima and
integrals.

Gradients on the event engine are exact, but for counts: a number of spikes has none. There each
spike passes on what a kick of V would do (the costate kicks of Nowotny et al., arXiv:2212.01232):
dcount/dV = 1 / (v_threshold - v_reset) at the time of the spike. On the time-stepped engine all
gradients are those of the surrogate, and spike times have none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.errors import UsageError
from jaxsnn.grid.stepped_solution import GridSolution
from jaxsnn.network.network import Network
from jaxsnn.simulation.simulate import Solution


class Reading(Protocol):
    """What came out of a batch; arrays (batch, neurons) of a population, by its NIR name."""

    def first_spike(self, name: str) -> jax.Array:
        """First spike times, seconds; inf where a neuron is silent."""
        ...

    def count(self, name: str) -> jax.Array:
        """Numbers of spikes."""
        ...

    def spike_sum(self, name: str, tau: float) -> jax.Array:
        """Sums of e^(-t / tau) over the spikes of each neuron."""
        ...

    def maximum(self, name: str) -> jax.Array:
        """Largest voltages."""
        ...

    def integral(self, name: str, tau: float | None = None) -> jax.Array:
        """Integrals of V(t) e^(-t / tau), volts times seconds; tau None: of V."""
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class EventReading:
    """What the event engine left: exact gradients, but for counts."""

    network: Network
    solution: Solution

    def first_spike(self, name: str) -> jax.Array:
        """First spike times, seconds; inf where a neuron is silent."""
        return self.solution.first_spike(name)

    def count(self, name: str) -> jax.Array:
        """Numbers of spikes; their gradient is that of a kick of V at each spike."""
        spikes = self.solution.spikes[name]
        return spikes.count + jnp.sum(
            moved(spikes) / threshold_height(self.network, name)[:, None], axis=-1
        )

    def spike_sum(self, name: str, tau: float) -> jax.Array:
        """Sums of e^(-t / tau) over the recorded spikes of each neuron."""
        return jnp.sum(jnp.exp(-self.solution.spikes[name].time / tau), axis=-1)

    def maximum(self, name: str) -> jax.Array:
        """Largest voltages."""
        return self.solution.maximum(name)

    def integral(self, name: str, tau: float | None = None) -> jax.Array:
        """Integrals of V(t) e^(-t / tau), volts times seconds; tau None: of V."""
        return self.solution.integral(name, tau)


def moved(spikes) -> jax.Array:
    """0 for each spike, with the derivative of V at it: what V would rise by, if the spike came
    earlier, in volts.
    """
    known = jnp.isfinite(spikes.time) & jnp.isfinite(spikes.slope)
    time = jnp.where(known, spikes.time, 0.0)
    slope = lax.stop_gradient(jnp.where(known, spikes.slope, 0.0))
    return -slope * (time - lax.stop_gradient(time))


def threshold_height(network: Network, name: str) -> jax.Array:
    """v_threshold - v_reset, (neurons,)."""
    own = network.parameters[name]
    return lax.stop_gradient(
        own["v_threshold"] - own.get("v_reset", jnp.zeros_like(own["v_threshold"]))
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class GridReading:
    """What the time-stepped engine left: gradients of the surrogate."""

    solution: GridSolution

    def _output(self, name: str) -> jax.Array:
        """What a population sends to its Output: (time, batch, neurons)."""
        output = next(output for output, sources in self.solution.outputs if sources == (name,))
        y = self.solution.y[output]
        return y.reshape(*y.shape[:2], -1)

    def _times(self, y: jax.Array) -> jax.Array:
        return jnp.arange(y.shape[0], dtype=y.dtype)[:, None, None] * (self.solution.dt or 1.0)

    def first_spike(self, name: str) -> jax.Array:
        """Times of the first step with a spike, seconds; inf where there is none.

        They have no gradient.
        """
        fires = self._output(name) > 0
        first = jnp.argmax(fires, axis=0) * (self.solution.dt or 1.0)
        return jnp.where(jnp.any(fires, axis=0), first, jnp.inf)

    def count(self, name: str) -> jax.Array:
        """Numbers of spikes."""
        return jnp.sum(self._output(name), axis=0)

    def spike_sum(self, name: str, tau: float) -> jax.Array:
        """Sums of e^(-t / tau) over the spikes of each neuron."""
        y = self._output(name)
        return jnp.sum(y * jnp.exp(-self._times(y) / tau), axis=0)

    def maximum(self, name: str) -> jax.Array:
        """Largest voltages, at the end of a step."""
        return jnp.max(self._output(name), axis=0)

    def integral(self, name: str, tau: float | None = None) -> jax.Array:
        """Sums over steps of V(t) e^(-t / tau) dt; tau None: of V dt."""
        y = self._output(name)
        weights = jnp.ones_like(y) if tau is None else jnp.exp(-self._times(y) / tau)
        return jnp.sum(y * weights, axis=0) * (self.solution.dt or 1.0)


def refuse_unreadable(network: Network, population: str) -> None:
    """The time-stepped engine shows a population only at an Output that it feeds alone.

    Raises:
        UsageError: it feeds none, or not alone.
    """
    if (population,) not in network.outputs.values():
        raise UsageError(
            f"population '{population}' feeds no Output alone, and in time steps a loss reads what"
            " arrives at an Output",
            fix="give it an Output of its own, or take engine=EventDriven()",
            node=population,
        )
