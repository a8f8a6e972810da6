"""IF, the integrate-and-fire neuron, and I, which never fires.

    V' = r (u + sum W S),   V > v_threshold: V = v_reset

Here v = V. Under box spikes j = V' is piecewise constant; under delta spikes arrivals move v
itself, and j is the constant drive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from jaxsnn.event.dynamics import crossing
from jaxsnn.event.dynamics.two_variables import Constants, Integrals, MovedMembrane, TwoVariables
from jaxsnn.event.event_arrays import Decay, Numbers, Parameters, State
from jaxsnn.network.array_types import Array, Bool, Float


@dataclass(frozen=True, kw_only=True)
class IFBox(TwoVariables):
    """Integrators (NIR: IF, I) under rectangular pulses."""

    level: ClassVar[int | None] = 1
    flow_fields: ClassVar[tuple[str, ...]] = ()

    # ---- parameters

    def tau_mem(self, parameters: Parameters) -> Numbers:
        """Return ones: an integrator has no membrane time constant."""
        return jnp.ones_like(parameters["r"])

    def v_inf(self, parameters: Parameters, current: Float[Array, "neurons"] | None) -> Numbers:
        """Return zeros: an integrator has no voltage at rest."""
        del current
        return jnp.zeros_like(parameters["r"])

    def j_start(self, parameters: Parameters, current: Float[Array, "neurons"] | None) -> Numbers:
        """Return V' under the constant input."""
        if current is None:
            return jnp.zeros_like(parameters["r"])
        return self._steady_rate(parameters, current)

    def _steady_rate(self, p: Parameters, current: Numbers | float) -> Numbers:
        """Return r u. If a bias is added once a step, like a spike, u = bias area / step."""
        if self.step is None:
            return p["r"] * current
        return self.kick(p) / self.step * current

    def lift(
        self, parameters: Parameters, current: Float[Array, "neurons"], t_end: float
    ) -> Numbers:
        """Return the displacement of V by a constant current until t_end: V has no rest."""
        return self.j_start(parameters, current) * t_end

    def current_factor(self, parameters: Parameters) -> Numbers:
        """Return the rise of j = V' under a constant current of 1, (neurons,): r."""
        return self._steady_rate(parameters, 1.0)

    def arrival_factor(self, parameters: Parameters) -> Numbers:
        """Return V' in a rectangular pulse of weight 1, (neurons,): r a / width, or the value for
        which V rises by 1.
        """
        return self.kick(parameters) / self.width

    def kick(self, parameters: Parameters) -> Numbers:
        """Return the effect of an arriving spike of weight 1 on V: r a."""
        if self.spike_area is None:  # V jumps by the weight itself
            return jnp.ones_like(parameters["r"])
        return parameters["r"] * self.spike_area

    # ---- flow and crossings

    def leak(self, constants: Constants) -> Numbers:
        """Return 0: V does not decay."""
        return jnp.zeros_like(constants.tau_mem)

    def synaptic_leak(self, constants: Constants) -> Numbers:
        """Return 0: j does not decay."""
        return jnp.zeros_like(constants.tau_syn)

    def rate(self, constants: Constants, state: State) -> State:
        """Return the time derivative of (v, j)."""
        return state[1], jnp.zeros_like(state[1])

    def decay(self, constants: Constants, t: Numbers) -> Decay:
        """Return the coefficients (em, es, k) of the flow (v, j) -> (v em + j k, j es) over t."""
        # neither v nor j decays, and v grows by j t; ones for each neuron and time
        ones = jnp.ones_like(t * constants.tau_mem)
        return ones, ones, t * ones

    def decay_by(self, constants: Constants, t: Numbers) -> tuple[Decay, dict[str, Decay]]:
        """Return the coefficients over t; they depend on no parameter."""
        return self.decay(constants, t), {}

    def crosses(
        self, constants: Constants, state: State, end: State, duration: Numbers
    ) -> Bool[Array, "..."]:
        """Return whether v, monotone between events, reaches the threshold in the interval."""
        del state, duration  # v is monotone
        return end[0] >= constants.threshold

    def solve(
        self,
        constants: Constants,
        state: State,
        duration: Numbers,
        crossing_now: Bool[Array, "..."],
    ) -> Numbers:
        """Return the time to the crossing: (threshold - v) / j."""
        # 1 for neurons that do not cross: their result is unused, but must not divide by 0
        v, j = state
        rise = jnp.where(crossing_now & (j > 0), j, 1.0)
        return jnp.clip((constants.threshold - v) / rise, 0.0, duration)

    def bound(self, constants: Constants, state: State) -> Numbers | None:
        """Return the time of the crossing."""
        v, j = state
        wait = (constants.threshold - v) / jnp.where(j > 0, j, 1.0)
        from_below = jnp.where(j > 0, wait, jnp.inf)
        return jnp.where(v >= constants.threshold, 0.0, from_below)

    def slope(self, constants: Constants, state: State) -> Numbers:
        """Return dV/dt just before a spike."""
        del constants
        return state[1]

    def integrals(self, constants: Constants, t: Numbers, rate: Numbers | float) -> Integrals:
        """Return the integrals of 1, 1 and t times e^(-rate t) over [0, t]."""
        zero = self.leak(constants)  # broadcasts the results to the constants
        unit_integral = crossing.integrated_exponential(zero + rate, t)
        ramp = crossing.integrated_ramp(rate, t) + zero
        return Integrals(em=unit_integral, es=unit_integral, k=ramp)


@dataclass(frozen=True, kw_only=True)
class IFDelta(MovedMembrane, IFBox):
    """Integrators (NIR: IF, I) under delta spikes: each moves V by r W a."""
