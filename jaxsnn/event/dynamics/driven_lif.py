"""Neurons that voltages drive in the place of spikes: see
`jaxsnn.event.projections.driven_signals`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from jaxsnn.event.dynamics.cubalif import CubaLIFDelta
from jaxsnn.event.dynamics.lif import LeakyMembrane, LIFBox
from jaxsnn.event.event_arrays import Numbers, Parameters
from jaxsnn.network.array_types import Array, Float


@dataclass(frozen=True, kw_only=True)
class _Driven(LeakyMembrane):
    """What LIF and LI have in common that voltages drive: these enter like a bias."""

    def arrival_factor(self, parameters: Parameters) -> Numbers:
        """What a voltage of 1 adds to j, (neurons,): r, or what a bias of 1 does."""
        return self._steady_drive(parameters, jnp.ones_like(parameters["r"]))

    def kick(self, parameters: Parameters) -> Numbers:
        """Scale of what a voltage of 1 does to V, if it lasts."""
        return self.arrival_factor(parameters)

    def j_start(self, parameters: Parameters, current: Float[Array, "neurons"] | None) -> Numbers:
        """j of the voltages at time 0; "start" is what they exceed their rest by, (neurons,)."""
        # what the file says has no "start": `driven_parameters` adds it
        start = parameters.get("start", jnp.zeros_like(parameters["r"]))
        return self.arrival_factor(parameters) * start


# Under LI j decays with the tau of the LI like a synaptic current; under I it stays, as in a box
# that does not close.


@dataclass(frozen=True, kw_only=True)
class LIFUnderLI(_Driven, CubaLIFDelta):
    """Leaky integrate-and-fire neuron (NIR: LIF) driven by voltages that decay; LI, if it never
    fires.
    """


@dataclass(frozen=True, kw_only=True)
class LIFUnderI(_Driven, LIFBox):
    """Leaky integrate-and-fire neuron (NIR: LIF) driven by voltages that stay; LI, if it never
    fires.
    """

    level: ClassVar[int | None] = None
