"""Current-based neurons: CubaLIF, and CubaLI, which never fires."""

from dataclasses import dataclass

import jax.numpy as jnp

from jaxsnn.event.dynamics import crossing
from jaxsnn.event.dynamics.neuron_model import Neuron, Response


@dataclass(frozen=True, kw_only=True)
class CubaLIFDelta(Neuron):
    """Current-based leaky integrate-and-fire neuron (NIR: CubaLIFDelta), delta spikes; CubaLI, if
    it never fires.

        tau_syn I' = -I + w_in (u + sum W a delta),   tau_mem V' = v_leak - V + r I,
        V > v_threshold: V = v_reset

    In v = V - V_inf and j = r (I - I_inf), with I_inf = w_in u and V_inf = v_leak + r I_inf.
    """

    def v_inf(self, parameters, current):
        """Voltage at rest under the constant input; shape (neurons,)."""
        p = parameters
        return (
            p["v_leak"]
            if current is None
            else p["v_leak"] + self.r(p) * self._steady_current(p, current)
        )

    def j_start(self, parameters, current):
        """j of I = 0, at time 0."""
        return parameters["v_leak"] - self.v_inf(parameters, current)

    def _steady_current(self, p, current):
        """I_inf = w_in u. Where a bias is added once a step, u = bias area / step."""
        if self.step is None:
            return p["w_in"] * current
        if self.spike_area is None:
            return p["tau_syn"] / self.step * current
        return p["w_in"] * (self.spike_area / self.step) * current

    def arrival_factor(self, parameters):
        """Jump of j per unit weight, shape (neurons,): r w_in a / tau_syn."""
        p = parameters
        if self.spike_area is None:
            return self.r(p)
        return self.r(p) * p["w_in"] * self.spike_area / p["tau_syn"]

    def current_factor(self, parameters):
        """Rise of u under a constant current of 1, shape (neurons,): r w_in."""
        return self.r(parameters) * self._steady_current(parameters, 1.0)

    def kick(self, parameters):
        """Scale of what an arriving spike of weight 1 does to V: the jump of r I."""
        return self.arrival_factor(parameters)

    def decay(self, lanes, t):
        """Coefficients (em, es, k) of the flow (v, j) -> (v em + j k, j es) over t."""
        return crossing.decay(self.tau_shape, lanes.tau_mem, lanes.tau_syn, t)

    def decay_derivatives(self, lanes, t):
        """(em, es, k, dk/dtau_mem, dk/dtau_syn) over t."""
        return crossing.decay_derivatives(self.tau_shape, lanes.tau_mem, lanes.tau_syn, t)

    def crosses(self, lanes, state, end):
        """Whether v reaches the threshold in the interval from one state to another."""
        (v, j), (v_end, j_end) = state, end
        return crossing.crosses(
            self.tau_shape, v, j, v_end, j_end, lanes.threshold, lanes.tau_mem, lanes.tau_syn
        )

    def solve(self, lanes, state, duration, crossing_now):
        """Time to the crossing."""
        v, j = state
        return crossing.solve(
            self.tau_shape,
            v,
            j,
            lanes.threshold,
            lanes.tau_mem,
            lanes.tau_syn,
            duration,
            crossing_now,
        )


@dataclass(frozen=True, kw_only=True)
class CubaLIFBox(CubaLIFDelta):
    """The same neuron under box spikes: currents that are constant for a while.

    The state is (v, j, u) with v and j as for delta spikes and u = r w_in times the height of the
    open boxes: j flows towards u instead of 0, so that (v - u, j - u) flow as (v, j) do under delta
    spikes.
    """

    def arrival_factor(self, parameters):
        """Rise of u in a box of weight 1, shape (neurons,): r w_in a / width."""
        return super().arrival_factor(parameters) * parameters["tau_syn"] / self.width

    def kick(self, parameters):
        """Scale of what an arriving spike of weight 1 does to V."""
        return super().arrival_factor(parameters)

    def begin(self, lanes):
        """State at time 0: no box is open."""
        return lanes.v_start, lanes.j_start, jnp.zeros_like(lanes.v_start)

    def arrive(self, state, weight):
        """State after a box opened or closed."""
        v, j, u = state
        return v, j, u + weight

    def flow(self, decay, state):
        """State after the time that `decay` belongs to."""
        em, es, k = decay
        v, j, u = state
        return u + (v - u) * em + (j - u) * k, u + (j - u) * es, u

    def crosses(self, lanes, state, end):
        """Whether v reaches the threshold in the interval from one state to another."""
        (v, j, u), (v_end, j_end, _) = state, end
        return crossing.crosses(
            self.tau_shape,
            v - u,
            j - u,
            v_end - u,
            j_end - u,
            lanes.threshold - u,
            lanes.tau_mem,
            lanes.tau_syn,
        )

    def solve(self, lanes, state, duration, crossing_now):
        """Time to the crossing."""
        v, j, u = state
        return crossing.solve(
            self.tau_shape,
            v - u,
            j - u,
            lanes.threshold - u,
            lanes.tau_mem,
            lanes.tau_syn,
            duration,
            crossing_now,
        )

    def rate(self, lanes, state):
        """Time derivative of the state between events."""
        v, j, u = state
        return (j - v) / lanes.tau_mem, (u - j) / lanes.tau_syn, jnp.zeros_like(u)

    def bound(self, lanes, state):
        """A time before which v does not cross the threshold, cheaply: as if j never fell (but to
        u, if below it).
        """
        v, j, u = state
        return self._bound(v, jnp.maximum(j, u), lanes.threshold, lanes.tau_mem)

    def response(self, lanes, t):
        """What a box that opened t ago with height 1 leaves in v: 1 - em - k."""
        em, es, k, by_tau_mem, by_tau_syn = self.decay_derivatives(lanes, t)
        em_by_tau_mem = jnp.where(jnp.isinf(t), 0.0, t) * em / lanes.tau_mem**2
        return Response(
            1 - em - k, -em_by_tau_mem - by_tau_mem, -by_tau_syn, (em + k - es) / lanes.tau_mem
        )

    def drive_response(self, lanes, t):
        """What a box that opened t ago with height 1 leaves in j."""
        return 1 - self.decay(lanes, t)[1]

    def held_response(self, lanes, held, t):
        """What the box leaves in v at t after V was let go, where V had been held for `held` after
        it opened.
        """
        em, _, k = self.decay(lanes, t)
        return 1 - em - self.decay(lanes, held)[1] * k
