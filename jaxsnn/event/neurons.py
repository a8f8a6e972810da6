"""Neuron types of the event engine.

A type is a frozen, hashable record. It turns NIR's parameters into the `Lanes` that the engine scans (`lanes`), and
supplies the flow between events and the crossing solver; everything else, forward and backward, is written once.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxsnn.event import crossing
from jaxsnn.event.crossing import TauShape


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
    """Current-based leaky integrate-and-fire neuron (NIR: CubaLIF), delta spikes.

        tau_syn I' = -I + w_in (u + sum W a delta),   tau_mem V' = v_leak - V + r I,
        V > v_threshold: V = v_reset

    Attributes:
        tau_shape: what holds for tau_mem / tau_syn of all neurons; picks the crossing solver.
        uniform: every neuron has the same tau_mem and the same tau_syn.
        spike_area: `a`, in seconds; None where a spike of weight w moves I by w (then a = tau_syn / w_in).
        initial: where V starts: "zero", "v_leak" or "v_reset". I starts at 0.
    """

    tau_shape: TauShape = TauShape.ANY
    uniform: bool = False
    spike_area: float | None = None
    initial: str = "zero"
    fires = True

    def lanes(self, parameters, current):
        """`Lanes` of a population.

        Args:
            parameters: NIR's names -> arrays of shape (neurons,).
            current: u, the constant input current, shape (neurons,).
        """
        p = parameters
        i_inf = p["w_in"] * current
        v_inf = p["v_leak"] + p["r"] * i_inf
        zero = jnp.zeros_like(v_inf)
        start = {"zero": zero, "v_leak": p["v_leak"], "v_reset": p.get("v_reset", zero)}[self.initial]
        return Lanes(
            threshold=p["v_threshold"] - v_inf,
            v_reset=p["v_reset"] - v_inf,
            v_start=start - v_inf,
            j_start=-p["r"] * i_inf,
            tau_mem=p["tau_mem"],
            tau_syn=p["tau_syn"],
        )

    def arrival_factor(self, parameters):
        """Jump of j per unit weight, shape (neurons,): r w_in a / tau_syn."""
        p = parameters
        if self.spike_area is None:
            return p["r"]
        return p["r"] * p["w_in"] * self.spike_area / p["tau_syn"]

    def shape_holds(self, lanes):
        """Whether the static record still describes the numbers: scalar bool."""
        holds = jnp.all(crossing.holds(self.tau_shape, lanes.tau_mem, lanes.tau_syn))
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
