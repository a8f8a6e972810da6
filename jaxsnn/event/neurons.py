"""Neuron types of the event engine.

A type is a frozen, hashable record. It turns NIR's parameters into the `Lanes` that the engine scans (`lanes`), and
supplies the flow between events and the crossing solver; everything else, forward and backward, is written once.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxsnn.event import crossing
from jaxsnn.network import Population, TauShape, tau_shape_holds


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Lanes:
    """What the scan needs of each neuron: arrays of shape (neurons,), in v = V - V_inf, j = R (I - I_inf).

    Bias, v_leak and r have ended in these: the scan itself knows no drive.
    """

    threshold: Float[Array, "neurons"]
    v_reset: Float[Array, "neurons"]
    v_start: Float[Array, "neurons"]
    j_start: Float[Array, "neurons"]
    tau_mem: Float[Array, "neurons"]
    tau_syn: Float[Array, "neurons"]

    def across(self, shape):
        """The same lanes with every array reshaped, say to (1, neurons)."""
        return jax.tree.map(lambda array: array.reshape(shape), self)


@dataclass(frozen=True, kw_only=True)
class Neuron:
    """What all neuron types have. A subclass supplies the flow between events and the crossing solver.

    Attributes:
        tau_shape: what holds for tau_mem / tau_syn of all neurons; picks the crossing solver.
        uniform: all neurons have the same time constants.
        width: length of a box spike, seconds; 0 where spikes are deltas.
        spike_area, dt, resistance, initial, reset: as in `jaxsnn.network.Population`.
        step: a bias is added once in every step of this length (seconds) like a spike; None: it is a constant current.
    """

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
            parameters: NIR's names -> arrays of shape (neurons,); v_threshold and v_reset may lack in a readout.
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
        holds = jnp.all(tau_shape_holds(self.tau_shape, lanes.tau_mem, lanes.tau_syn))
        if self.uniform:
            holds &= jnp.all(lanes.tau_mem == lanes.tau_mem[0]) & jnp.all(lanes.tau_syn == lanes.tau_syn[0])
        return holds

    def v_inf(self, parameters, current) -> jax.Array:
        """Voltage that v is measured from, (neurons,)."""
        raise NotImplementedError

    def j_start(self, parameters, current) -> jax.Array:
        """j at time 0, (neurons,)."""
        raise NotImplementedError

    def arrival_factor(self, parameters) -> jax.Array:
        """Jump of j that an arriving spike of weight 1 causes, (neurons,)."""
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

    def crosses(self, lanes, v, j, v_end, j_end) -> jax.Array:
        """Whether v reaches the threshold in the interval from (v, j) to (v_end, j_end)."""
        raise NotImplementedError

    def solve(self, lanes, v, j, duration, crossing_now) -> jax.Array:
        """Time to the crossing where there is one."""
        raise NotImplementedError

    def tau_mem(self, parameters):
        """Membrane time constants (neurons,)."""
        return parameters["tau_mem"]

    def r(self, parameters):
        """Resistances (neurons,): the file's, or what the framework plays in spite of it."""
        return parameters["r"] if self.resistance == "file" else self.tau_mem(parameters) / self.dt

    def leak(self, lanes):
        """Rate at which V decays, (neurons,)."""
        return 1 / lanes.tau_mem

    def slope(self, lanes, j):
        """dV/dt just before a spike: there V is at the threshold."""
        return (j - lanes.threshold) / lanes.tau_mem

    def k_slope(self, lanes, es, k):
        """dk/dt, the slope of V after a unit jump of j."""
        return (es - k) / lanes.tau_mem


@dataclass(frozen=True, kw_only=True)
class CubaLIF(Neuron):
    """Current-based leaky integrate-and-fire neuron (NIR: CubaLIF), delta spikes; CubaLI, if it never fires.

        tau_syn I' = -I + w_in (u + sum W a delta),   tau_mem V' = v_leak - V + r I,
        V > v_threshold: V = v_reset

    In v = V - V_inf and j = r (I - I_inf), with I_inf = w_in u and V_inf = v_leak + r I_inf.
    """

    def v_inf(self, parameters, current):
        """Voltage at rest under the constant input; shape (neurons,)."""
        p = parameters
        return p["v_leak"] if current is None else p["v_leak"] + self.r(p) * self._steady_current(p, current)

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

    def kick(self, parameters):
        """Scale of what an arriving spike of weight 1 does to V: the jump of r I."""
        return self.arrival_factor(parameters)

    def decay(self, lanes, t):
        """Coefficients (em, es, k) of the flow (v, j) -> (v em + j k, j es) over t."""
        return crossing.decay(self.tau_shape, lanes.tau_mem, lanes.tau_syn, t)

    def decay_derivatives(self, lanes, t):
        """(em, es, k, dk/dtau_mem, dk/dtau_syn) over t."""
        return crossing.decay_derivatives(self.tau_shape, lanes.tau_mem, lanes.tau_syn, t)

    def crosses(self, lanes, v, j, v_end, j_end):
        """Whether v reaches the threshold in the interval from (v, j) to (v_end, j_end)."""
        return crossing.crosses(self.tau_shape, v, j, v_end, j_end, lanes.threshold, lanes.tau_mem, lanes.tau_syn)

    def solve(self, lanes, v, j, duration, crossing_now):
        """Time to the crossing."""
        return crossing.solve(
            self.tau_shape, v, j, lanes.threshold, lanes.tau_mem, lanes.tau_syn, duration, crossing_now
        )


@dataclass(frozen=True, kw_only=True)
class LIF(Neuron):
    """Leaky integrate-and-fire neuron (NIR: LIF) under box spikes; LI, if it never fires.

        tau V' = v_leak - V + r (u + sum W box),   V > v_threshold: V = v_reset

    In v = V - v_leak - r u, with j the sum of r W over the boxes that are open; j does not decay.
    """

    def tau_mem(self, parameters):
        """Membrane time constants (neurons,)."""
        return parameters["tau"]

    def v_inf(self, parameters, current):
        """Voltage at rest under the constant input; shape (neurons,)."""
        p = parameters
        return p["v_leak"] if current is None else p["v_leak"] + self._steady_drive(p, current)

    def j_start(self, parameters, current):
        """No box is open at time 0."""
        return jnp.zeros_like(parameters["r"])

    def _steady_drive(self, p, current):
        """r u. Where a bias is added once a step, like a spike, u = bias area / step."""
        if self.step is None:
            return self.r(p) * current
        if self.spike_area is None:
            return p["tau"] / self.step * current
        return self.r(p) * (self.spike_area / self.step) * current

    def arrival_factor(self, parameters):
        """Height of j in a box of weight 1, shape (neurons,): r a / width, or what lets V jump by 1."""
        if self.spike_area is None:
            return parameters["tau"] / self.width
        return self.r(parameters) * (self.spike_area / self.width)

    def kick(self, parameters):
        """Scale of what an arriving spike of weight 1 does to V: r a / tau."""
        return self.arrival_factor(parameters) * self.width / parameters["tau"]

    def decay(self, lanes, t):
        """Coefficients (em, es, k) of the flow (v, j) -> (v em + j k, j es) over t."""
        em = jnp.exp(-t / lanes.tau_mem)
        return em, jnp.ones_like(em), -jnp.expm1(-t / lanes.tau_mem)

    def decay_derivatives(self, lanes, t):
        """(em, es, k, dk/dtau_mem, dk/dtau_syn) over t."""
        em, es, k = self.decay(lanes, t)
        return em, es, k, -jnp.where(jnp.isinf(t), 0.0, t) * em / lanes.tau_mem**2, jnp.zeros_like(k)

    def crosses(self, lanes, v, j, v_end, j_end):
        """Whether v, monotone between events, reaches the threshold in the interval."""
        return v_end >= lanes.threshold

    def solve(self, lanes, v, j, duration, crossing_now):
        """Time to the crossing: tau ln((j - v) / (j - threshold))."""
        drive = jnp.where(crossing_now, j - v, 1.0)
        share = jnp.clip(jnp.where(crossing_now, lanes.threshold - v, 0.0) / drive, 0.0, 1.0)
        return jnp.clip(-lanes.tau_mem * jnp.log1p(-share), 0.0, duration)


@dataclass(frozen=True, kw_only=True)
class IF(Neuron):
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

    def slope(self, lanes, j):
        """dV/dt just before a spike."""
        return j

    def k_slope(self, lanes, es, k):
        """dk/dt."""
        return es

    def v_inf(self, parameters, current):
        """V is not measured from a voltage at rest: it has none."""
        return jnp.zeros_like(parameters["r"])

    def j_start(self, parameters, current):
        """V' under the constant input. Where a bias is added once a step, like a spike, u = bias area / step."""
        if current is None:
            return jnp.zeros_like(parameters["r"])
        if self.step is None:
            return parameters["r"] * current
        if self.spike_area is None:
            return jnp.ones_like(parameters["r"]) / self.step * current
        return parameters["r"] * (self.spike_area / self.step) * current

    def arrival_factor(self, parameters):
        """V' in a box of weight 1, shape (neurons,): r a / width, or what lets V rise by 1."""
        if self.spike_area is None:
            return jnp.ones_like(parameters["r"]) / self.width
        return parameters["r"] * (self.spike_area / self.width)

    def kick(self, parameters):
        """What an arriving spike of weight 1 does to V: r a."""
        return self.arrival_factor(parameters) * self.width

    def decay(self, lanes, t):
        """Coefficients (em, es, k) of the flow (v, j) -> (v em + j k, j es) over t."""
        one = jnp.ones_like(t * lanes.tau_mem)
        return one, one, t * one

    def decay_derivatives(self, lanes, t):
        """(em, es, k, dk/dtau_mem, dk/dtau_syn) over t."""
        em, es, k = self.decay(lanes, t)
        return em, es, k, jnp.zeros_like(k), jnp.zeros_like(k)

    def crosses(self, lanes, v, j, v_end, j_end):
        """Whether v, monotone between events, reaches the threshold in the interval."""
        return v_end >= lanes.threshold

    def solve(self, lanes, v, j, duration, crossing_now):
        """Time to the crossing: (threshold - v) / j."""
        rise = jnp.where(crossing_now & (j > 0), j, 1.0)
        return jnp.clip((lanes.threshold - v) / rise, 0.0, duration)


#: NIR types of neurons that the event engine runs.
NEURONS = {"CubaLIF": CubaLIF, "CubaLI": CubaLIF, "LIF": LIF, "LI": LIF, "IF": IF, "I": IF}


def neuron_of(population: Population):
    """The neuron type of a population."""
    return NEURONS[population.kind](
        tau_shape=population.tau_shape,
        uniform=population.uniform,
        width=(population.dt or 0.0) if population.spike_kernel == "box" else 0.0,
        spike_area=population.spike_area,
        dt=population.dt,
        step=population.dt if population.bias == "step" else None,
        resistance=population.resistance,
        initial=population.initial,
        reset=population.reset,
    )
