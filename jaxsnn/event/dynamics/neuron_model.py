"""Neuron types of the event engine: the protocol, and who plays which population.

A type is a frozen, hashable record. It turns NIR's parameters into the `Lanes` that the engine
scans (`lanes`), and supplies the flow between events, what an arrival does, and the crossing
solver; everything else, forward and backward, feed-forward and recurrent, is written once.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxsnn.network.reductions import any_in
from jaxsnn.network.structure import TauShape, tau_shape_holds


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Lanes:
    """What the scan needs of each neuron: arrays of shape (neurons,), in v = V - V_inf, j = R (I -
    I_inf).

    Bias, v_leak and r have ended in these: the scan itself knows no drive. Where the neurons of a
    population stand at several positions that see different arrivals, the arrays are (positions,
    neurons at each).
    """

    threshold: Float[Array, "..."]
    v_reset: Float[Array, "..."]
    v_start: Float[Array, "..."]
    j_start: Float[Array, "..."]
    tau_mem: Float[Array, "..."]
    tau_syn: Float[Array, "..."]

    def across(self, shape):
        """The same lanes with every array reshaped, say to (1, neurons)."""
        return jax.tree.map(lambda array: array.reshape(shape), self)


class Response(NamedTuple):
    """What an arrival that weighs 1 leaves in v after a time t > 0, and its derivatives."""

    v: jax.Array
    by_tau_mem: jax.Array
    by_tau_syn: jax.Array
    by_time: jax.Array


@dataclass(frozen=True, kw_only=True)
class Neuron:
    """What all neuron types have. A subclass supplies the flow between events and the crossing
    solver.

    The state of a neuron is a tuple that begins with v and j.

    Attributes:
        tau_shape: what holds for tau_mem / tau_syn of all neurons; picks the crossing solver.
        uniform: all neurons have the same time constants.
        width: length of a box spike, seconds; 0 where spikes are deltas.
        spike_area, dt, resistance, initial, reset: as in `jaxsnn.network.network.Population`.
        step: a bias is added once in every step of this length (seconds) like a spike; None: it is
            a constant current.
    """

    #: An arrival moves V itself, so that a spike can come at the very time of an arrival.
    jumps: ClassVar[bool] = False

    tau_shape: TauShape = TauShape.ANY
    uniform: bool = False
    width: float = 0.0
    spike_area: float | None = None
    dt: float | None = None
    step: float | None = None
    resistance: str = "file"
    initial: str = "zero"
    reset: str = "zero"

    def lanes(self, parameters, current):
        """`Lanes` of a population.

        Args:
            parameters: NIR's names -> arrays of shape (neurons,); v_threshold and v_reset may lack
                in a readout.
            current: the constant input (a bias), shape (neurons,), or None.
        """
        p = parameters
        zero = jnp.zeros_like(p["r"])
        v_reset = p.get("v_reset", zero)
        rest = self.v_inf(p, current)
        start = {"zero": zero, "v_leak": p.get("v_leak", zero), "v_reset": v_reset}[self.initial]
        return Lanes(
            threshold=p.get("v_threshold", zero) - rest,
            v_reset=(zero if self.reset == "subtract" else v_reset) - rest,
            v_start=start - rest,
            j_start=self.j_start(p, current),
            tau_mem=self.tau_mem(p),
            tau_syn=p.get("tau_syn", zero + 1),
        )

    def shape_holds(self, lanes):
        """Whether the static record still describes the numbers: scalar bool."""
        tau_mem, tau_syn = lanes.tau_mem.reshape(-1), lanes.tau_syn.reshape(-1)
        broken = [~tau_shape_holds(self.tau_shape, tau_mem, tau_syn)]
        if self.uniform:
            broken += [tau_mem != tau_mem[0], tau_syn != tau_syn[0]]
        return ~any_in(*broken)

    def v_inf(self, parameters, current) -> jax.Array:
        """Voltage that v is measured from, (neurons,)."""
        raise NotImplementedError

    def j_start(self, parameters, current) -> jax.Array:
        """j at time 0, (neurons,)."""
        raise NotImplementedError

    def arrival_factor(self, parameters) -> jax.Array:
        """What an arriving spike of weight 1 weighs (`arrive`), (neurons,)."""
        raise NotImplementedError

    def current_factor(self, parameters) -> jax.Array:
        """By how much a constant current of 1 raises what an open box raises, (neurons,)."""
        raise NotImplementedError

    def kick(self, parameters) -> jax.Array:
        """Scale of what an arriving spike of weight 1 does to V, (neurons,)."""
        raise NotImplementedError

    def decay(self, lanes, t) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Coefficients (em, es, k) of the flow (v, j) -> (v em + j k, j es) over t."""
        raise NotImplementedError

    def decay_derivatives(self, lanes, t) -> tuple[jax.Array, ...]:
        """(em, es, k, dk/dtau_mem, dk/dtau_syn) over t."""
        raise NotImplementedError

    def crosses(self, lanes, state, end) -> jax.Array:
        """Whether v reaches the threshold in the interval from one state to another."""
        raise NotImplementedError

    def solve(self, lanes, state, duration, crossing_now) -> jax.Array:
        """Time to the crossing where there is one."""
        raise NotImplementedError

    def response(self, lanes, t) -> Response:
        """What an arrival that weighs 1 leaves in v after t > 0; here one that moves j."""
        _, es, k, by_tau_mem, by_tau_syn = self.decay_derivatives(lanes, t)
        return Response(k, by_tau_mem, by_tau_syn, (es - k) / lanes.tau_mem)

    def held_response(self, lanes, held, t):
        """What an arrival leaves in v at t after V was let go, where V had been held for `held`
        after the arrival.
        """
        _, es, _ = self.decay(lanes, held)
        return es * self.decay(lanes, t)[2]

    def drive_response(self, lanes, t):
        """What an arrival that weighs 1 leaves in j after t; here one that moves j."""
        return self.decay(lanes, t)[1]

    def begin(self, lanes):
        """State at time 0."""
        return lanes.v_start, lanes.j_start

    def arrive(self, state, weight):
        """State after an arrival; here it moves j."""
        return state[0], state[1] + weight

    def flow(self, decay, state):
        """State after the time that `decay` belongs to."""
        em, es, k = decay
        v, j = state
        return v * em + j * k, j * es

    def after_reset(self, lanes, state):
        """State after a spike."""
        return lanes.v_reset + jnp.zeros_like(state[0]), *state[1:]

    def tau_mem(self, parameters):
        """Membrane time constants (neurons,)."""
        return parameters["tau_mem"]

    def r(self, parameters):
        """Resistances (neurons,): the file's, or what the framework plays in spite of it."""
        return parameters["r"] if self.resistance == "file" else self.tau_mem(parameters) / self.dt

    def leak(self, lanes):
        """Rate at which V decays, (neurons,)."""
        return 1 / lanes.tau_mem

    def synaptic_leak(self, lanes):
        """Rate at which j decays, (neurons,)."""
        return 1 / lanes.tau_syn

    def rate(self, lanes, state):
        """Time derivative of the state between events."""
        v, j = state
        return (j - v) / lanes.tau_mem, -j * self.synaptic_leak(lanes)

    def bound(self, lanes, state):
        """A time before which v does not cross the threshold, cheaply: as if j never fell (but to
        0, if negative).
        """
        v, j = state
        return self._bound(v, jnp.maximum(j, 0.0), lanes.threshold, lanes.tau_mem)

    def _bound(self, v, drive, threshold, tau_mem):
        reaches = drive > threshold
        wait = tau_mem * (threshold - v) / jnp.where(reaches, drive - v, 1.0)
        return jnp.where(v >= threshold, 0.0, jnp.where(reaches, wait, jnp.inf))

    def slope(self, lanes, state):
        """dV/dt just before a spike, where V is at the threshold."""
        return (state[1] - lanes.threshold) / lanes.tau_mem

    def slope_after(self, lanes, state):
        """dV/dt just after a spike, where V is v_reset."""
        return (state[1] - lanes.v_reset) / lanes.tau_mem
