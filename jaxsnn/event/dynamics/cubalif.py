"""CubaLIF, the current-based leaky integrate-and-fire neuron, and CubaLI, which never fires.

    tau_syn I' = -I + w_in (u + sum W S),   tau_mem V' = v_leak - V + r I,
    V > v_threshold: V = v_reset

In v = V - V_inf and j = r (I - I_inf), with I_inf = w_in u and V_inf = v_leak + r I_inf. The
functions of `crossing` solve for spikes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from jaxsnn.event.dynamics import crossing
from jaxsnn.event.dynamics.two_variables import Constants, Integrals, TwoVariables, time_under
from jaxsnn.event.event_arrays import Decay, Numbers, Parameters, State
from jaxsnn.network.array_types import Array, Bool, Float
from jaxsnn.network.structure import TauShape


@dataclass(frozen=True, kw_only=True)
class CubaLIFDelta(TwoVariables):
    """Current-based neurons (NIR: CubaLIF, CubaLI) under delta spikes, at which I jumps."""

    # ---- parameters

    def v_inf(self, parameters: Parameters, current: Float[Array, "neurons"] | None) -> Numbers:
        """Return the voltage at rest under the constant input, (neurons,)."""
        p = parameters
        if current is None:
            return p["v_leak"]
        steady = self._steady_current(p, current)
        return p["v_leak"] + self.r(p) * steady

    def j_start(self, parameters: Parameters, current: Float[Array, "neurons"] | None) -> Numbers:
        """Return the value of j for I = 0, at time 0."""
        return parameters["v_leak"] - self.v_inf(parameters, current)

    def _steady_current(self, p: Parameters, current: Numbers | float) -> Numbers:
        """Return I_inf = w_in u. If a bias is added once a step, u = bias area / step."""
        if self.step is None:
            return p["w_in"] * current
        if self.spike_area is None:
            return self._jump(p) * p["tau_syn"] / self.step * current
        return p["w_in"] * (self.spike_area / self.step) * current

    def _jump(self, p: Parameters) -> Numbers | float:
        """Return the jump of I at a spike of weight 1 without a `spike_area`: a = tau_syn, or w_in
        a = tau_syn.
        """
        return p["w_in"] if self.scales_jumps else 1.0

    def arrival_factor(self, parameters: Parameters) -> Numbers:
        """Return the jump of j per unit weight, (neurons,): r w_in a / tau_syn."""
        p = parameters
        if self.spike_area is None:
            return self.r(p) * self._jump(p)
        return self.r(p) * p["w_in"] * self.spike_area / p["tau_syn"]

    def current_factor(self, parameters: Parameters) -> Numbers:
        """Return the rise of u under a constant current of 1, (neurons,): r w_in."""
        return self.r(parameters) * self._steady_current(parameters, 1.0)

    # ---- flow and crossings

    def decay(self, constants: Constants, t: Numbers) -> Decay:
        """Return the coefficients (em, es, k) of the flow (v, j) -> (v em + j k, j es) over t."""
        return crossing.decay(self.tau_shape, constants.tau_mem, constants.tau_syn, t)

    def decay_derivatives(self, constants: Constants, t: Numbers) -> tuple[Numbers, ...]:
        """Return (em, es, k, dk/dtau_mem, dk/dtau_syn) over t."""
        return crossing.decay_derivatives(self.tau_shape, constants.tau_mem, constants.tau_syn, t)

    def _from_target(self, constants: Constants, state: State) -> tuple[Numbers, Numbers, Numbers]:
        """Return v, j and the threshold relative to the value to which v and j decay."""
        v, j = state
        return v, j, constants.threshold

    def crosses(
        self, constants: Constants, state: State, end: State, duration: Numbers
    ) -> Bool[Array, "..."]:
        """Return whether v reaches the threshold in the interval from one state to another."""
        v, j, threshold = self._from_target(constants, state)
        v_end, j_end, _ = self._from_target(constants, end)
        taus = constants.tau_mem, constants.tau_syn
        return crossing.crosses(self.tau_shape, v, j, v_end, j_end, threshold, *taus)

    def solve(
        self,
        constants: Constants,
        state: State,
        duration: Numbers,
        crossing_now: Bool[Array, "..."],
    ) -> Numbers:
        """Return the time to the crossing."""
        v, j, threshold = self._from_target(constants, state)
        taus = constants.tau_mem, constants.tau_syn
        return crossing.solve(self.tau_shape, v, j, threshold, *taus, duration, crossing_now)

    def crossing_order(self, constants: Constants, state: State) -> Numbers | None:
        """Return exp(-t / tau_mem) at the crossing, if tau_mem = 2 tau_syn for all neurons: the
        root of a quadratic, which needs no exponential or logarithm per neuron.
        """
        if not (self.uniform and self.tau_shape is TauShape.DOUBLE):
            return None
        return crossing.decayed(*self._from_target(constants, state))

    def wait_of(self, constants: Constants, order: Numbers) -> Numbers:
        """Return the time at which exp(-t / tau_mem) has decayed to a number."""
        return -constants.tau_mem[0] * jnp.log(order)

    # ---- readouts

    def turns(self, constants: Constants, state: State, after: State) -> Bool[Array, "..."]:
        """Return whether V has a maximum or a minimum inside an interval from one state to
        another.
        """
        v, j, _ = self._from_target(constants, state)
        v_end, j_end, _ = self._from_target(constants, after)
        shape = self.tau_shape
        taus = constants.tau_mem, constants.tau_syn
        highest = crossing.peaks(shape, v, j, v_end, j_end, *taus)
        # a minimum is a maximum of the mirrored state, whose flow is the same
        lowest = crossing.peaks(shape, -v, -j, -v_end, -j_end, *taus)
        return highest | lowest

    def extremum(self, constants: Constants, state: State) -> tuple[Numbers, Numbers]:
        """Return the time and value of the extremum of v after a state; time 0 if there is none."""
        v, j, _ = self._from_target(constants, state)
        wait, peak = crossing.extremum(v, j, constants.tau_mem, constants.tau_syn)
        target = state[0] - v  # value that v was measured from: 0, or u
        return wait, peak + target

    def integrals(self, constants: Constants, t: Numbers, rate: Numbers | float) -> Integrals:
        """Return the integrals of em, es and k times e^(-rate t) over [0, t]."""
        return self._leaky_integrals(constants, t, rate)


@dataclass(frozen=True, kw_only=True)
class CubaLIFBox(CubaLIFDelta):
    """Current-based neurons (NIR: CubaLIF, CubaLI) under rectangular pulses: currents that are
    constant for a while.

    The state is (v, j, u) with v and j as for delta spikes and u = r w_in times the height of the
    open pulses: j flows towards u instead of 0, so that (v - u, j - u) flow as (v, j) do under
    delta spikes.
    """

    level: ClassVar[int | None] = 2

    def arrival_factor(self, parameters: Parameters) -> Numbers:
        """Return the rise of u in a rectangular pulse of weight 1, (neurons,): r w_in a / width."""
        of_delta = super().arrival_factor(parameters)  # r w_in a / tau_syn
        return of_delta * parameters["tau_syn"] / self.width

    def kick(self, parameters: Parameters) -> Numbers:
        """Return the scale of the effect of an arriving spike of weight 1 on V."""
        return super().arrival_factor(parameters)

    def begin(self, constants: Constants) -> State:
        """Return the state at time 0, without an open pulse."""
        return constants.v_start, constants.j_start, jnp.zeros_like(constants.v_start)

    def arrive(self, state: State, weight: Numbers | float) -> State:
        """Return the state after a pulse opened or closed."""
        v, j, u = state
        return v, j, u + weight

    def flow(self, decay: Decay, state: State) -> State:
        """Return the state after the flow: (v - u, j - u) as under delta spikes, u unchanged."""
        em, es, k = decay
        v, j, u = state
        v_after = u + (v - u) * em + (j - u) * k
        j_after = u + (j - u) * es
        return v_after, j_after, u

    def flow_back(self, decay: Decay, costate: State) -> State:
        """Apply the transposed flow. It is written explicitly, since a transposition of `flow` by JAX
        would lose the small difference 1 - em - k to rounding.
        """
        em, es, k = decay
        by_v, by_j, by_u = costate
        # The flow is v em + j k + u (1 - em - k), j es + u (1 - es), u.
        before_v = by_v * em
        before_j = by_v * k + by_j * es
        before_u = by_u + by_v * (1 - em - k) + by_j * (1 - es)
        return before_v, before_j, before_u

    def rate(self, constants: Constants, state: State) -> State:
        """Return the time derivative of (v, j, u)."""
        v, j, u = state
        v_rate = (j - v) / constants.tau_mem
        j_rate = (u - j) / constants.tau_syn
        return v_rate, j_rate, jnp.zeros_like(u)

    def _from_target(self, constants: Constants, state: State) -> tuple[Numbers, Numbers, Numbers]:
        """Return v, j and the threshold relative to u."""
        v, j, u = state
        return v - u, j - u, constants.threshold - u

    def bound(self, constants: Constants, state: State) -> Numbers | None:
        """Return a lower bound on the crossing time, assuming a j that does not decay (but is at
        least u).
        """
        v, j, u = state
        return time_under(v, jnp.maximum(j, u), constants.threshold, constants.tau_mem)
