"""Neuron types of the event engine.

A type is a frozen, hashable record. It turns NIR's parameters into the `Lanes` that the engine scans (`lanes`), and
supplies the flow between events and the crossing solver; everything else, forward and backward, is written once.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxsnn.event import crossing
from jaxsnn.network import Population, TauShape, tau_shape_holds


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Lanes:
    """What the scan needs of each neuron: arrays of shape (neurons,), in v = V - V_inf, j = R (I - I_inf).

    Bias, v_leak and r have ended in these: the scan itself knows no drive.
    """

    threshold: jax.Array
    v_reset: jax.Array
    v_start: jax.Array
    j_start: jax.Array
    tau_mem: jax.Array
    tau_syn: jax.Array

    def across(self, shape):
        """The same lanes with every array reshaped, say to (1, neurons)."""
        return jax.tree.map(lambda array: array.reshape(shape), self)


@dataclass(frozen=True, kw_only=True)
class CubaLIF:
    """Current-based leaky integrate-and-fire neuron (NIR: CubaLIF), delta spikes; CubaLI, if it never fires.

        tau_syn I' = -I + w_in (u + sum W a delta),   tau_mem V' = v_leak - V + r I,
        V > v_threshold: V = v_reset

    Attributes:
        tau_shape: what holds for tau_mem / tau_syn of all neurons; picks the crossing solver.
        uniform: every neuron has the same tau_mem and the same tau_syn.
        spike_area, dt, step, resistance, initial, reset: as in `jaxsnn.network.Population`.
    """

    tau_shape: TauShape = TauShape.ANY
    uniform: bool = False
    spike_area: float | None = None
    dt: float | None = None
    step: float | None = None
    resistance: str = "file"
    initial: str = "zero"
    reset: str = "zero"

    @classmethod
    def of(cls, population: Population):
        """The neuron type of a population."""
        return cls(
            tau_shape=population.tau_shape,
            uniform=population.uniform,
            spike_area=population.spike_area,
            dt=population.dt,
            step=population.dt if population.bias == "step" else None,
            resistance=population.resistance,
            initial=population.initial,
            reset=population.reset,
        )

    def lanes(self, parameters, current):
        """`Lanes` of a population.

        Args:
            parameters: NIR's names -> arrays of shape (neurons,); v_threshold and v_reset may lack in a readout.
            current: the constant input (a bias), shape (neurons,), or None.
        """
        p = parameters
        zero = jnp.zeros_like(p["tau_mem"])
        v_threshold, v_reset = p.get("v_threshold", zero), p.get("v_reset", zero)
        v_inf = self.v_inf(p, current)
        start = {"zero": zero, "v_leak": p["v_leak"], "v_reset": v_reset}[self.initial]
        return Lanes(
            threshold=v_threshold - v_inf,
            v_reset=(zero if self.reset == "subtract" else v_reset) - v_inf,
            v_start=start - v_inf,
            j_start=p["v_leak"] - v_inf,
            tau_mem=p["tau_mem"],
            tau_syn=p["tau_syn"],
        )

    def v_inf(self, parameters, current):
        """Voltage at rest under the constant input, v_leak + r I_inf; shape (neurons,)."""
        p = parameters
        return p["v_leak"] if current is None else p["v_leak"] + self._r(p) * self._steady_current(p, current)

    def _r(self, p):
        return p["r"] if self.resistance == "file" else p["tau_mem"] / self.dt

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
            return self._r(p)
        return self._r(p) * p["w_in"] * self.spike_area / p["tau_syn"]

    def shape_holds(self, lanes):
        """Whether the static record still describes the numbers: scalar bool."""
        holds = jnp.all(tau_shape_holds(self.tau_shape, lanes.tau_mem, lanes.tau_syn))
        if self.uniform:
            holds &= jnp.all(lanes.tau_mem == lanes.tau_mem[0]) & jnp.all(lanes.tau_syn == lanes.tau_syn[0])
        return holds

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

    def slope(self, lanes, j):
        """dV/dt just before a spike."""
        return (j - lanes.threshold) / lanes.tau_mem
