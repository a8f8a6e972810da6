"""Neurons without a synaptic current: LIF and IF, and LI and I, which never fire."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from jaxsnn.event.dynamics.neuron_model import Neuron, Response


@dataclass(frozen=True, kw_only=True)
class _Jumping(Neuron):
    """What neurons have in common that arrivals move themselves."""

    jumps: ClassVar[bool] = True

    def arrival_factor(self, parameters):
        """Jump of V per unit weight, shape (neurons,)."""
        return self.kick(parameters)

    def arrive(self, state, weight):
        """State after an arrival, which moves v."""
        return state[0] + weight, state[1]

    def crosses(self, lanes, state, end):
        """Whether v is above the threshold after the arrival, or reaches it in the interval."""
        return (state[0] >= lanes.threshold) | (end[0] >= lanes.threshold)

    def held_response(self, lanes, held, t):
        """What arrives while V is held is lost."""
        return jnp.zeros_like(held * t)

    def drive_response(self, lanes, t):
        """An arrival moves v alone."""
        return jnp.zeros_like(t * lanes.tau_mem)


@dataclass(frozen=True, kw_only=True)
class LeakyMembrane(Neuron):
    """What LIF and LI have in common, whatever drives them: tau V' = v_leak - V + r (u + ...)."""

    def tau_mem(self, parameters):
        """Membrane time constants (neurons,)."""
        return parameters["tau"]

    def v_inf(self, parameters, current):
        """Voltage at rest under the constant input; shape (neurons,)."""
        p = parameters
        return p["v_leak"] if current is None else p["v_leak"] + self._steady_drive(p, current)

    def _steady_drive(self, p, current):
        """r u. Where a bias is added once a step, like a spike, u = bias area / step."""
        if self.step is None:
            return self.r(p) * current
        if self.spike_area is None:
            return p["tau"] / self.step * current
        return self.r(p) * (self.spike_area / self.step) * current

    def current_factor(self, parameters):
        """Rise of j under a constant current of 1, shape (neurons,): r."""
        return self._steady_drive(parameters, 1.0)


@dataclass(frozen=True, kw_only=True)
class LIFBox(LeakyMembrane):
    """Leaky integrate-and-fire neuron (NIR: LIF) under box spikes; LI, if it never fires.

        tau V' = v_leak - V + r (u + sum W box),   V > v_threshold: V = v_reset

    In v = V - v_leak - r u, with j the sum of r W over the boxes that are open; j does not decay.
    """

    def j_start(self, parameters, current):
        """No box is open at time 0."""
        return jnp.zeros_like(parameters["r"])

    def arrival_factor(self, parameters):
        """Height of j in a box of weight 1, shape (neurons,): r a / width, or what lets V jump by
        1.
        """
        return self.kick(parameters) * parameters["tau"] / self.width

    def kick(self, parameters):
        """Scale of what an arriving spike of weight 1 does to V: r a / tau."""
        if self.spike_area is None:
            return jnp.ones_like(parameters["tau"])
        return self.r(parameters) * self.spike_area / parameters["tau"]

    def synaptic_leak(self, lanes):
        """j does not decay."""
        return jnp.zeros_like(lanes.tau_syn)

    def decay(self, lanes, t):
        """Coefficients (em, es, k) of the flow (v, j) -> (v em + j k, j es) over t."""
        em = jnp.exp(-t / lanes.tau_mem)
        return em, jnp.ones_like(em), -jnp.expm1(-t / lanes.tau_mem)

    def decay_derivatives(self, lanes, t):
        """(em, es, k, dk/dtau_mem, dk/dtau_syn) over t."""
        em, es, k = self.decay(lanes, t)
        return (
            em,
            es,
            k,
            -jnp.where(jnp.isinf(t), 0.0, t) * em / lanes.tau_mem**2,
            jnp.zeros_like(k),
        )

    def crosses(self, lanes, state, end):
        """Whether v, monotone between events, reaches the threshold in the interval."""
        return end[0] >= lanes.threshold

    def solve(self, lanes, state, duration, crossing_now):
        """Time to the crossing: tau ln((j - v) / (j - threshold))."""
        v, j = state
        drive = jnp.where(crossing_now, j - v, 1.0)
        share = jnp.clip(jnp.where(crossing_now, lanes.threshold - v, 0.0) / drive, 0.0, 1.0)
        return jnp.clip(-lanes.tau_mem * jnp.log1p(-share), 0.0, duration)


@dataclass(frozen=True, kw_only=True)
class LIFDelta(_Jumping, LIFBox):
    """Leaky integrate-and-fire neuron (NIR: LIF) under delta spikes; LI, if it never fires.

    A spike moves V by r W a / tau. In v = V - v_leak - r u; j stays 0.
    """

    def response(self, lanes, t):
        """What a jump by 1 leaves in v after t."""
        em = self.decay(lanes, t)[0]
        by_tau_mem = jnp.where(jnp.isinf(t), 0.0, t) * em / lanes.tau_mem**2
        return Response(em, by_tau_mem, jnp.zeros_like(em), -em / lanes.tau_mem)


@dataclass(frozen=True, kw_only=True)
class IFBox(Neuron):
    """Integrate-and-fire neuron (NIR: IF) under box spikes; I, if it never fires.

        V' = r (u + sum W box),   V > v_threshold: V = v_reset

    Here v = V, and j = V' is piecewise constant.
    """

    def tau_mem(self, parameters):
        """It has none."""
        return jnp.ones_like(parameters["r"])

    def leak(self, lanes):
        """V does not decay."""
        return jnp.zeros_like(lanes.tau_mem)

    def synaptic_leak(self, lanes):
        """j does not decay."""
        return jnp.zeros_like(lanes.tau_syn)

    def rate(self, lanes, state):
        """Time derivative of the state between events."""
        return state[1], jnp.zeros_like(state[1])

    def bound(self, lanes, state):
        """The time of the crossing."""
        v, j = state
        wait = (lanes.threshold - v) / jnp.where(j > 0, j, 1.0)
        return jnp.where(v >= lanes.threshold, 0.0, jnp.where(j > 0, wait, jnp.inf))

    def slope(self, lanes, state):
        """dV/dt just before a spike."""
        return state[1]

    def slope_after(self, lanes, state):
        """dV/dt just after a spike."""
        return state[1]

    def v_inf(self, parameters, current):
        """V is not measured from a voltage at rest: it has none."""
        return jnp.zeros_like(parameters["r"])

    def j_start(self, parameters, current):
        """V' under the constant input.

        Where a bias is added once a step, like a spike, u = bias area / step.
        """
        if current is None:
            return jnp.zeros_like(parameters["r"])
        if self.step is None:
            return parameters["r"] * current
        return self.kick(parameters) / self.step * current

    def current_factor(self, parameters):
        """Rise of j = V' under a constant current of 1, shape (neurons,): r."""
        return self.j_start(parameters, 1.0)

    def arrival_factor(self, parameters):
        """V' in a box of weight 1, shape (neurons,): r a / width, or what lets V rise by 1."""
        return self.kick(parameters) / self.width

    def kick(self, parameters):
        """What an arriving spike of weight 1 does to V: r a."""
        if self.spike_area is None:
            return jnp.ones_like(parameters["r"])
        return parameters["r"] * self.spike_area

    def decay(self, lanes, t):
        """Coefficients (em, es, k) of the flow (v, j) -> (v em + j k, j es) over t."""
        one = jnp.ones_like(t * lanes.tau_mem)
        return one, one, t * one

    def decay_derivatives(self, lanes, t):
        """(em, es, k, dk/dtau_mem, dk/dtau_syn) over t."""
        em, es, k = self.decay(lanes, t)
        return em, es, k, jnp.zeros_like(k), jnp.zeros_like(k)

    def response(self, lanes, t):
        """What a box that opened t ago with height 1 leaves in v."""
        one, _, k, zero, _ = self.decay_derivatives(lanes, t)
        return Response(k, zero, zero, one)

    def crosses(self, lanes, state, end):
        """Whether v, monotone between events, reaches the threshold in the interval."""
        return end[0] >= lanes.threshold

    def solve(self, lanes, state, duration, crossing_now):
        """Time to the crossing: (threshold - v) / j."""
        v, j = state
        rise = jnp.where(crossing_now & (j > 0), j, 1.0)
        return jnp.clip((lanes.threshold - v) / rise, 0.0, duration)


@dataclass(frozen=True, kw_only=True)
class IFDelta(_Jumping, IFBox):
    """Integrate-and-fire neuron (NIR: IF) under delta spikes; I, if it never fires.

    A spike moves V by r W a. Here v = V, and j = V' is the constant drive.
    """

    def response(self, lanes, t):
        """What a jump by 1 leaves in v."""
        one, _, _, zero, _ = self.decay_derivatives(lanes, t)
        return Response(one, zero, zero, zero)
