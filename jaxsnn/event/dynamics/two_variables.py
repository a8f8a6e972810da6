"""Base of NIR's six neuron models: a membrane potential v and the current j that drives it.

    tau_mem v' = j - v,    j' = -j / tau_syn,

in v = V - V_inf and j = R (I - I_inf). Bias, v_leak and r are part of the `Constants`, so that the
equations need no constant term. Models in which j does not decay, or V does not leak, override the
rates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp

from jaxsnn.event.dynamics import crossing
from jaxsnn.event.dynamics.neuron_model import Neuron
from jaxsnn.event.event_arrays import Decay, Numbers, Parameters, State
from jaxsnn.network.array_types import Array, Bool, Float
from jaxsnn.network.on_processor import module_for
from jaxsnn.network.reductions import any_in
from jaxsnn.network.structure import TauShape, tau_shape_holds


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Constants:
    """Neuron parameters of the scan: arrays of shape (neurons,).

    Where the neurons of a population stand at several positions that see different arrivals, the
    arrays are (positions, neurons at each).
    """

    threshold: Float[Array, "..."]
    v_reset: Float[Array, "..."]
    v_start: Float[Array, "..."]
    j_start: Float[Array, "..."]
    tau_mem: Float[Array, "..."]
    tau_syn: Float[Array, "..."]


class Integrals(NamedTuple):
    """Integrals of the flow's coefficients, each weighted by e^(-rate t)."""

    em: Numbers
    es: Numbers
    k: Numbers


@dataclass(frozen=True, kw_only=True)
class TwoVariables(Neuron):
    """Common base of CubaLIF, CubaLI, LIF, LI, IF and I.

    Attributes:
        tau_shape: relation of tau_mem to tau_syn of all neurons; selects the crossing solver.
        spike_area, scales_jumps, dt, resistance, initial, reset_kind: as spike_area, scales_jumps,
            dt, resistance, initial and reset of `jaxsnn.network.structure.Population`.
        fires_at_equality: whether a neuron fires if an arrival moves V exactly to the threshold. If V
            reaches the threshold between arrivals, the neuron fires in either case.
        step: a bias is added once in every step of this length (seconds) like a spike; None: it is
            a constant current.
    """

    flow_fields: ClassVar[tuple[str, ...]] = ("tau_mem", "tau_syn")
    voltages: ClassVar[tuple[str, ...]] = ("threshold", "v_reset", "v_start", "j_start")

    tau_shape: TauShape = TauShape.ANY
    spike_area: float | None = None
    scales_jumps: bool = False
    dt: float | None = None
    step: float | None = None
    resistance: str = "file"
    initial: str = "zero"
    reset_kind: str = "zero"
    fires_at_equality: bool = False

    @property
    def keeps_overshoot(self) -> bool:
        """Return whether a spike subtracts v_threshold from V."""
        return self.reset_kind == "subtract"

    # ---- parameters

    def constants(
        self, parameters: Parameters, current: Float[Array, "neurons"] | None
    ) -> Constants:
        """Return `Constants` of a population; a readout may lack v_threshold and v_reset."""
        p = parameters
        zero = module_for(p["r"]).zeros_like(p["r"])
        v_reset = p.get("v_reset", zero)
        rest = self.v_inf(p, current)
        start = {"zero": zero, "v_leak": p.get("v_leak", zero), "v_reset": v_reset}[self.initial]
        # V is v_threshold at a crossing, so that "subtract" resets it to V - v_threshold = 0
        reset = zero if self.reset_kind == "subtract" else v_reset
        return Constants(
            threshold=p.get("v_threshold", zero) - rest,
            v_reset=reset - rest,
            v_start=start - rest,
            j_start=self.j_start(p, current),
            tau_mem=self.tau_mem(p),
            tau_syn=p.get("tau_syn", zero + 1),
        )

    def height(self, parameters: Parameters) -> Numbers:
        """Return v_threshold - v_reset, (neurons,)."""
        constants = self.constants(parameters, None)
        return constants.threshold - constants.v_reset

    def tau_mem(self, parameters: Parameters) -> Numbers:
        """Return the membrane time constants (neurons,), seconds."""
        return parameters["tau_mem"]

    def r(self, parameters: Parameters) -> Numbers:
        """Return the resistances (neurons,): those of the file, or those that the source framework
        uses instead.
        """
        if self.resistance == "file":
            return parameters["r"]
        assert self.dt is not None  # an unknown dt was refused before
        return self.tau_mem(parameters) / self.dt

    def j_start(self, parameters: Parameters, current: Float[Array, "neurons"] | None) -> Numbers:
        """Return j at time 0, (neurons,)."""
        raise NotImplementedError

    # ---- the state (v, j) and its flow

    def begin(self, constants: Constants) -> State:
        """Return the state at time 0."""
        return constants.v_start, constants.j_start

    def flow(self, decay: Decay, state: State) -> State:
        """Return the state after the flow: (v, j) -> (v em + j k, j es)."""
        em, es, k = decay
        v, j = state
        v_after = v * em + j * k
        return v_after, j * es

    def rate(self, constants: Constants, state: State) -> State:
        """Return the time derivative of (v, j)."""
        v, j = state
        v_rate = (j - v) / constants.tau_mem
        return v_rate, -j * self.synaptic_leak(constants)

    def leak(self, constants: Constants) -> Numbers:
        """Return the rate at which V decays, per second."""
        return 1 / constants.tau_mem

    def synaptic_leak(self, constants: Constants) -> Numbers:
        """Return the rate at which j decays, per second."""
        return 1 / constants.tau_syn

    def arrive(self, state: State, weight: Numbers | float) -> State:
        """Return the state after an arrival; here it moves j."""
        return state[0], state[1] + weight

    def excess(self, constants: Constants, state: State) -> Numbers:
        """Return v - threshold."""
        return state[0] - constants.threshold

    def reset(self, constants: Constants, state: State) -> State:
        """Return the state after a spike: V at v_reset, or as far above it as it was above the
        threshold.
        """
        after = super().reset(constants, state)
        if not self.keeps_overshoot:
            return after
        return after[0] + jnp.maximum(self.excess(constants, state), 0.0), *after[1:]

    def lifted(self, constants: Constants, state: State) -> State:
        """Return the state with v at the threshold at least."""
        return jnp.maximum(state[0], constants.threshold), *state[1:]

    def bound(self, constants: Constants, state: State) -> Numbers | None:
        """Return a lower bound on the crossing time, assuming a j that does not decay (but is at
        least 0).
        """
        v, j = state
        return time_under(v, jnp.maximum(j, 0.0), constants.threshold, constants.tau_mem)

    def slope(self, constants: Constants, state: State) -> Numbers:
        """Return dV/dt just before a spike, where V is at the threshold."""
        # the threshold instead of v, which has the rounding error of the crossing time
        return (state[1] - constants.threshold) / constants.tau_mem

    # ---- derivatives

    def decay_derivatives(self, constants: Constants, t: Numbers) -> tuple[Numbers, ...]:
        """Return (em, es, k, dk/dtau_mem, dk/dtau_syn) over t."""
        raise NotImplementedError

    def decay_by(self, constants: Constants, t: Numbers) -> tuple[Decay, dict[str, Decay]]:
        """Return the coefficients over t, and their derivatives with respect to the time constants,
        in closed form.
        """
        em, es, k, k_by_tau_mem, k_by_tau_syn = self.decay_derivatives(constants, t)
        finite = jnp.where(jnp.isinf(t), 0.0, t)
        # d e^(-t / tau) / dtau = t e^(-t / tau) / tau^2
        em_by_tau_mem = finite * em * self.leak(constants) ** 2
        es_by_tau_syn = finite * es * self.synaptic_leak(constants) ** 2
        zero = jnp.zeros_like(k)
        by_field = {
            "tau_mem": (em_by_tau_mem, zero, k_by_tau_mem),
            "tau_syn": (zero, es_by_tau_syn, k_by_tau_syn),
        }
        return (em, es, k), {name: by_field[name] for name in self.flow_fields}

    # ---- readouts

    def turns(self, constants: Constants, state: State, after: State) -> Bool[Array, "..."]:
        """Return whether V has an extremum inside an interval from one state to another (one at
        most).

        In this model V is monotone between events.
        """
        del constants, after
        return jnp.zeros_like(state[0], bool)

    def extremum(self, constants: Constants, state: State) -> tuple[Numbers, Numbers]:
        """Return the time and value of the extremum of v after a state: time 0 and the state's v,
        as there is none.
        """
        del constants
        return jnp.zeros_like(state[0]), state[0]

    def _leaky_integrals(
        self, constants: Constants, t: Numbers, rate: Numbers | float
    ) -> Integrals:
        """Return `integrals` where V leaks.

        The integral of k is computed without a difference of numbers that are nearly equal. k' =
        (es - k) / tau_mem yields it from that of es by parts, which is exact where V has decayed.
        Before that it is a divided difference, leak t^2 phi1[-(leak + rate) t, -(synaptic + rate)
        t]: evaluated directly, or by its power series.
        """
        leak, synaptic = self.leak(constants), self.synaptic_leak(constants)
        em = crossing.integrated_exponential(leak + rate, t)
        es = crossing.integrated_exponential(synaptic + rate, t)
        x = -(leak + rate) * t
        y = -(synaptic + rate) * t
        # for long times, when V has decayed: by parts
        k_end = self.decay(constants, t)[2] * jnp.exp(-rate * t)
        by_parts = (es - constants.tau_mem * k_end) / (1 + constants.tau_mem * rate)
        # for times shorter than both time constants: by the series
        small = (x > -1) & (y > -2)
        near_x = jnp.where(small, x, 0.0)
        near_y = jnp.where(small, y, 0.0)
        series = crossing.divided_difference_series(near_x, near_y)
        # In between x and y are far apart, so that the difference loses no digits.
        apart = jnp.where(small | (x <= -1), 1.0, (synaptic - leak) * t)
        difference = (em - es) / jnp.where(t > 0, t, 1.0) / apart
        divided = jnp.where(small, series, difference)
        k = jnp.where(x > -1, leak * t * t * divided, by_parts)
        return Integrals(em=em, es=es, k=k)

    # ---- assumptions on the constants

    def general(self) -> Self:
        """Return the model without a closed form at a fixed ratio, which would tie its time
        constants.
        """
        if not self.certain:
            return self.generic()
        if self.tau_shape is TauShape.APART:  # a range of ratios: it does not tie the constants
            return self
        return replace(self, tau_shape=TauShape.ANY)

    def guessed(self) -> Self:
        """Return the model with its assumptions marked as uncertain, as they were derived from
        other time constants.
        """
        assumes = self.uniform or self.tau_shape is not TauShape.ANY
        return replace(self, certain=not assumes)

    def generic(self) -> Self:
        """Return the model without any assumption on its time constants."""
        return replace(super().generic(), tau_shape=TauShape.ANY)

    def assumption_holds(self, constants: Constants) -> Bool[Array, ""]:
        """Return whether the assumptions hold: the shape of the time constants, and with `uniform`
        that they are the same for all neurons.
        """
        # constants may be (positions, neurons)
        tau_mem = constants.tau_mem.reshape(-1)
        tau_syn = constants.tau_syn.reshape(-1)
        broken = [~tau_shape_holds(self.tau_shape, tau_mem, tau_syn)]
        if self.uniform:
            broken += [tau_mem != tau_mem[0], tau_syn != tau_syn[0]]
        return ~any_in(*broken)


@dataclass(frozen=True, kw_only=True)
class MovedMembrane(TwoVariables):
    """Membranes under delta spikes, each of which moves v itself; j is the constant drive."""

    level: ClassVar[int | None] = None
    jumps: ClassVar[bool] = True
    drops: ClassVar[bool] = False

    def arrival_factor(self, parameters: Parameters) -> Numbers:
        """Return the jump of V per unit weight, (neurons,)."""
        return self.kick(parameters)

    def arrive(self, state: State, weight: Numbers | float) -> State:
        """Return the state after an arrival, which moves v."""
        return state[0] + weight, state[1]

    def above(self, constants: Constants, state: State) -> Bool[Array, "..."]:
        """Return whether v is above the threshold, or at it if that is enough."""
        excess = self.excess(constants, state)
        return excess >= 0 if self.fires_at_equality else excess > 0

    def crosses(
        self, constants: Constants, state: State, end: State, duration: Numbers
    ) -> Bool[Array, "..."]:
        """Return whether v is above the threshold after the arrival, or reaches it in the
        interval.
        """
        del duration
        # V may be above the threshold after the arrival and fall below it before the interval ends.
        jumped = self.above(constants, state)
        # or reach the threshold by its own flow, at the very end of the interval
        comes = (self.excess(constants, state) < 0) & (self.excess(constants, end) >= 0)
        return jumped | self.above(constants, end) | (comes & (self.slope(constants, end) > 0))


def time_under(v: Numbers, drive: Numbers, threshold: Numbers, tau_mem: Numbers) -> Numbers:
    """Return a lower bound on the time at which v reaches the threshold under a constant drive; inf
    if it never does.
    """
    # The time is -tau log(1 - share) >= tau share, with share = (threshold - v) / (drive - v).
    reaches = drive > threshold
    wait = tau_mem * (threshold - v) / jnp.where(reaches, drive - v, 1.0)
    from_below = jnp.where(reaches, wait, jnp.inf)
    return jnp.where(v >= threshold, 0.0, from_below)
