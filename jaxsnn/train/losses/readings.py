"""What a loss can read of a simulated batch, by any engine: every `jaxsnn.Solution` has it.

Gradients on the event engine are exact, but for counts: a number of spikes has none. There each
spike passes on what a kick of V would do (the costate kicks of Nowotny et al., arXiv:2212.01232):
dcount/dV = 1 / (v_threshold - v_reset) at the time of the spike. On the time-stepped engine all
gradients are those of the surrogate, and spike times have none.
"""

from __future__ import annotations

from typing import Protocol

import jax


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
