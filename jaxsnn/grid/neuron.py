"""One time step of a population, with the source framework's order of floating-point operations.

A step takes the state at its beginning and the input X of the step, and returns the state at its end
and the output: spikes, or the membrane of a readout. `Population` specifies the operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.grid import exact
from jaxsnn.grid.exact import Factors, Parameters
from jaxsnn.grid.step_input import StepInput
from jaxsnn.grid.surrogate import Surrogate, spike, spike_count
from jaxsnn.network.array_types import Array, Float
from jaxsnn.network.structure import Population

#: Relative distance below an integer within which the reset "rounded-floor" counts a membrane as
#: equal to it, like the reset_method that `convert` passes to Norse if sums of weights may equal a
#: threshold.
FLOOR_SLACK = 2.0**-20


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class MembraneState:
    """State that a population carries from step to step; `i` is None without a synaptic current."""

    v: Float[Array, "batch *shape"]
    i: Float[Array, "batch *shape"] | None


def tau_mem(parameters: Parameters) -> Float[Array, "*shape"]:
    """Return the membrane time constants: tau of LIF and LI."""
    return parameters["tau_mem"] if "tau_mem" in parameters else parameters["tau"]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("parameters", "factors"),
    meta_fields=("population", "dt", "surrogate", "detach_reset"),
)
@dataclass(frozen=True, kw_only=True)
class SteppedNeuron:
    """Population ready to step. A pytree of its parameters and factors.

    Attributes:
        population: its static description.
        parameters: NIR's names -> arrays of the population's shape.
        factors: factors of a step, computed once from the parameters and dt: see `factors_of`.
        dt: length of a step, in the unit of the time constants; None where nothing needs it.
        surrogate: derivative of a spike.
        detach_reset: whether the gradient leaves out resets; None: as the framework does.
    """

    population: Population
    parameters: Parameters
    factors: Factors
    dt: float | None
    surrogate: Surrogate
    detach_reset: bool | None

    def start(self, batch: int) -> MembraneState:
        """Return the state before the first step: currents are 0."""
        p = self.parameters
        zero = jnp.zeros_like(p["r"])
        initial = self.population.initial
        v = zero if initial == "zero" else p.get(initial, zero)
        shape = (batch, *zero.shape)
        i = jnp.zeros(shape, v.dtype) if "tau_syn" in p else None
        if self.population.synapse == "filter":
            i = jnp.broadcast_to(p["v_leak"], shape)
        return MembraneState(v=jnp.broadcast_to(v, shape), i=i)

    def fire(self, tested: Float[Array, "*lead *shape"]) -> Float[Array, "*lead *shape"]:
        """Return the spikes of tested membranes: 0, 1, or the number of multiples of the
        threshold.
        """
        at_equality = self.population.threshold == ">="
        if self.population.spikes_per_step == "several":
            return spike_count(tested, self.parameters["v_threshold"], self.surrogate, at_equality)
        return spike(tested - self.parameters["v_threshold"], self.surrogate, at_equality)

    def _resetting(
        self, v: Float[Array, "batch *shape"], detach: bool | None
    ) -> Float[Array, "batch *shape"]:
        """Return the spikes that reset, with or without their gradient."""
        return lax.stop_gradient(self.fire(v)) if detach else self.fire(v)

    def leaving(self, tested: Float[Array, "*lead *shape"]) -> Float[Array, "*lead *shape"]:
        """Return the output for tested membranes: spikes, or the membrane of a readout."""
        return self.fire(tested) if self.population.fires else tested

    def step(
        self,
        state: MembraneState,
        drive: StepInput,
        tested_before: Float[Array, "batch *shape"] | None = None,
    ) -> tuple[MembraneState, Float[Array, "batch *shape"], Float[Array, "batch *shape"]]:
        """Simulate one step.

        Args:
            tested_before: the tested membrane of this step, if an earlier run of the step has computed
                it; it is not computed again.

        Returns:
            The next state, the membrane that is tested against the threshold (see `leaving`), and
            the membrane after a reset (that of the next state, unless the step is a continuous flow).
        """
        if self.population.membrane == "exact":
            return self._exact_step(state, drive, tested_before)
        population, v = self.population, state.v
        assert drive.level is not None  # in time steps all input is a level
        # A spike of the membrane before the step resets it within this step.
        looks = population.resets and (population.resets_at_start or population.reset_delay)
        # Whether this reset is left out of the gradient depends on the framework.
        detach = population.detaches_resets if self.detach_reset is None else self.detach_reset
        first = self._resetting(v, detach) if looks else None
        if first is not None and population.resets_first:
            v = self.reset(v, first)
        v, i = self._charge(v, state.i, drive.level)
        if first is not None and not population.resets_first:
            v = self.reset(v, first)
        if not population.resets:
            floored = self._floored(v)
            return MembraneState(v=floored, i=i), v, floored
        if tested_before is not None and population.fires and population.spikes_from == "after":
            v = _with_value(v, tested_before)
        tested = state.v if population.spikes_from == "before" else v
        if not population.reset_delay:
            now = self._resetting(tested, self.detach_reset)
            # Spikes that reset the membrane at the beginning of the step do not reset it again.
            v = self.reset(v, now if first is None else now - first)
        v = self._floored(v)
        return MembraneState(v=v, i=i), tested if population.fires else v, v

    def _floored(self, v: Float[Array, "batch *shape"]) -> Float[Array, "batch *shape"]:
        """Return membranes at the end of a step, clipped at the floor; rounded as Sinabs does."""
        floor = self.population.floor
        return v if floor is None else jax.nn.relu(v - floor) + floor

    def _exact_step(
        self,
        state: MembraneState,
        drive: StepInput,
        tested_before: Float[Array, "batch *shape"] | None,
    ) -> tuple[MembraneState, Float[Array, "batch *shape"], Float[Array, "batch *shape"]]:
        """Simulate one step exactly: delta spikes arrive at its beginning, where V is tested too;
        rectangular pulses last until its end.
        """
        population, p, v, i = self.population, self.parameters, state.v, state.i
        boxes = population.spike_kernel == "box"
        force = 0.0 if drive.level is None else exact.level_force(p, drive.level)
        if drive.spikes is not None:
            if boxes:
                assert self.dt is not None
                force = force + exact.box_force(population, p, self.dt) * drive.spikes
            elif i is None:
                v = v + population.jump(p) * drive.spikes
            else:
                i = i + population.jump(p) * drive.spikes
        if boxes:
            v, i = exact.flow(p, self.factors, v, i, force)
        tested = v = (
            v if tested_before is None or population.resetting else _with_value(v, tested_before)
        )
        if population.resets:
            v = self.reset(v, self._resetting(v, self.detach_reset))
        membrane = v
        if population.resetting:
            tested = v
        if not boxes:
            v, i = exact.flow(p, self.factors, v, i, force)
        return MembraneState(v=v, i=i), tested, membrane

    def reset(
        self, v: Float[Array, "batch *shape"], spikes: Float[Array, "batch *shape"]
    ) -> Float[Array, "batch *shape"]:
        """Return the membranes after spikes."""
        p, population = self.parameters, self.population
        if population.reset == "none":
            return v
        if population.reset == "subtract" and population.reset_size == "rounded-floor":
            return v - jnp.maximum(jnp.floor(v * (1 + FLOOR_SLACK)), 0)
        if population.reset == "subtract" and population.reset_size == "floor":
            return v - jnp.maximum(jnp.floor(v), 0)
        if population.reset == "subtract" and population.reset_size == "1":
            return v - spikes
        if population.reset == "subtract":
            return v - spikes * p["v_threshold"]
        if population.spikes_per_step == "several":
            spikes = jnp.minimum(spikes, 1)
        return (1 - spikes) * v + spikes * p["v_reset"]

    def _charge(
        self,
        v: Float[Array, "batch *shape"],
        i: Float[Array, "batch *shape"] | None,
        x: Float[Array, "batch *shape"],
    ) -> tuple[Float[Array, "batch *shape"], Float[Array, "batch *shape"] | None]:
        """Return the membrane and current after a step without spikes; x is the step's input."""
        if i is not None:
            x, i = self._current(i, x)
        # The order of operations is that of the framework, as it determines the last digits.
        p, membrane, factors = self.parameters, self.population.membrane, self.factors
        if membrane == "euler":
            v = v + factors["rate"] * (p["v_leak"] - v + x)
        elif membrane == "relax":
            v = v + (x - (v - p["v_reset"])) / factors["steps"]
        elif membrane == "relax, add":
            v = v - (v - p["v_reset"]) / p["r"] + x
        elif membrane == "leak":
            v = factors["k"] * v + x
        else:
            v = factors["k"] * v + (1 - factors["k"]) * x
        return v, i

    def _current(
        self, i: Float[Array, "batch *shape"], x: Float[Array, "batch *shape"]
    ) -> tuple[Float[Array, "batch *shape"], Float[Array, "batch *shape"]]:
        """Return the current that drives V in a step, and the current at its end."""
        a, p = self.factors["a"], self.parameters
        if self.population.synapse == "filter":
            i_end = i + self.factors["share"] * ((p["v_leak"] - i) + p["w_in"] * x)
            return p["r"] * i_end, i_end
        if self.population.synapse == "add last":
            drives = i_end = a * i + x
        elif self.population.synapse == "add first":
            drives = i_end = (i + x) * a
        else:
            drives = i + x
            i_end = drives * a
        return drives, i_end


@jax.custom_vjp
def _with_value(
    v: Float[Array, "batch *shape"], value: Float[Array, "batch *shape"]
) -> Float[Array, "batch *shape"]:
    """Return `value`, with the gradient of `v`."""
    return value


_with_value.defvjp(
    lambda v, value: (value, value), lambda value, gradient: (gradient, jnp.zeros_like(value))
)


def factors_of(population: Population, parameters: Parameters, dt: float | None) -> Factors:
    """Return the factors of a step, computed from the parameters and its length: decays "k" of V and
    "a" of I, or their replacements.

    "rate" is dt/tau, "steps" tau/dt.

    Args:
        dt: length of a step, in the unit of the time constants; None where nothing needs it.
    """
    if population.membrane == "exact":
        assert dt is not None
        return exact.factors(parameters, dt)
    factors = {}
    if population.membrane == "euler":
        assert dt is not None
        factors["rate"] = dt * (1 / tau_mem(parameters))  # rounded twice, as Norse does
    elif population.membrane == "relax":
        assert dt is not None
        factors["steps"] = tau_mem(parameters) / dt
    elif population.membrane in ("leak", "average"):
        factors["k"] = population.membrane_decay.factor(parameters, dt, jnp)
    if "tau_syn" in parameters:
        factors["a"] = population.synapse_decay.factor(parameters, dt, jnp)
        if population.synapse == "filter":
            assert dt is not None
            factors["share"] = dt * (1 / parameters["tau_syn"])
    return factors
