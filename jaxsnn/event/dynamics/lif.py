"""LIF, the leaky integrate-and-fire neuron, and LI, which never fires.

    tau V' = v_leak - V + r (u + sum W S),   V > v_threshold: V = v_reset

In v = V - v_leak - r u. Under box spikes j is the sum of r W over the boxes that are open, and does
not decay; under delta spikes arrivals move v itself, and j stays 0.
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
class LIFBox(TwoVariables):
    """Leaky neurons (NIR: LIF, LI) under rectangular pulses."""

    level: ClassVar[int | None] = 1
    flow_fields: ClassVar[tuple[str, ...]] = ("tau_mem",)

    # ---- parameters

    def tau_mem(self, parameters: Parameters) -> Numbers:
        """Return the membrane time constants (neurons,), seconds."""
        return parameters["tau"]

    def v_inf(self, parameters: Parameters, current: Float[Array, "neurons"] | None) -> Numbers:
        """Return the voltage at rest under the constant input, (neurons,)."""
        p = parameters
        if current is None:
            return p["v_leak"]
        return p["v_leak"] + self._steady_drive(p, current)

    def _steady_drive(self, p: Parameters, current: Numbers | float) -> Numbers:
        """Return r u. If a bias is added once a step, like a spike, u = bias area / step."""
        if self.step is None:
            return self.r(p) * current
        if self.spike_area is None:
            return self._jump(p) * p["tau"] / self.step * current
        return self.r(p) * (self.spike_area / self.step) * current

    def _jump(self, p: Parameters) -> Numbers:
        """Return the jump of V at a spike of weight 1 without a `spike_area`: a = tau, or r a =
        tau.
        """
        return self.r(p) if self.scales_jumps else jnp.ones_like(p["tau"])

    def current_factor(self, parameters: Parameters) -> Numbers:
        """Return the rise of j under a constant current of 1, (neurons,): r."""
        return self._steady_drive(parameters, 1.0)

    def j_start(self, parameters: Parameters, current: Float[Array, "neurons"] | None) -> Numbers:
        """Return 0: no pulse is open at time 0."""
        del current
        return jnp.zeros_like(parameters["r"])

    def arrival_factor(self, parameters: Parameters) -> Numbers:
        """Return the height of j in a rectangular pulse of weight 1, (neurons,): r a / width, or
        the value for which V jumps by 1.
        """
        # tau V' = j during the pulse: a short pulse raises V by j width / tau, the kick
        return self.kick(parameters) * parameters["tau"] / self.width

    def kick(self, parameters: Parameters) -> Numbers:
        """Return the scale of the effect of an arriving spike of weight 1 on V: r a / tau."""
        if self.spike_area is None:
            return self._jump(parameters)
        return self.r(parameters) * self.spike_area / parameters["tau"]

    # ---- flow and crossings

    def synaptic_leak(self, constants: Constants) -> Numbers:
        """Return 0: j does not decay."""
        return jnp.zeros_like(constants.tau_syn)

    def decay(self, constants: Constants, t: Numbers) -> Decay:
        """Return the coefficients (em, es, k) of the flow (v, j) -> (v em + j k, j es) over t."""
        # j is constant (es = 1), so that k = 1 - em; expm1 is exact for short times
        em = jnp.exp(-t / constants.tau_mem)
        k = -jnp.expm1(-t / constants.tau_mem)
        return em, jnp.ones_like(em), k

    def decay_derivatives(self, constants: Constants, t: Numbers) -> tuple[Numbers, ...]:
        """Return (em, es, k, dk/dtau_mem, dk/dtau_syn) over t."""
        em, es, k = self.decay(constants, t)
        # d(1 - e^(-t / tau)) / dtau = -t e^(-t / tau) / tau^2, whose limit for t = inf is 0
        finite = jnp.where(jnp.isinf(t), 0.0, t)
        by_tau_mem = -finite * em / constants.tau_mem**2
        return em, es, k, by_tau_mem, jnp.zeros_like(k)

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
        """Return the time to the crossing: tau ln((j - v) / (j - threshold))."""
        v, j = state
        # = -tau log(1 - share), with share = (threshold - v) / (j - v)
        drive = jnp.where(crossing_now, j - v, 1.0)
        share = jnp.where(crossing_now, constants.threshold - v, 0.0) / drive
        remainder = jnp.where(crossing_now, j - constants.threshold, 1.0) / drive  # 1 - share
        tiny = jnp.finfo(v.dtype).tiny
        wait = constants.tau_mem * crossing.minus_log(
            jnp.clip(remainder, tiny, 1.0), jnp.maximum(share, 0.0)
        )
        return jnp.clip(wait, 0.0, duration)

    def integrals(self, constants: Constants, t: Numbers, rate: Numbers | float) -> Integrals:
        """Return the integrals of em, es and k times e^(-rate t) over [0, t]."""
        return self._leaky_integrals(constants, t, rate)


@dataclass(frozen=True, kw_only=True)
class LIFDelta(MovedMembrane, LIFBox):
    """Leaky neurons (NIR: LIF, LI) under delta spikes: each moves V by r W a / tau; j stays 0."""
