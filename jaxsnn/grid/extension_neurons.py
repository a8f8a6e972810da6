"""Time steps of the neuron types that NIR does not have: snnTorch's Alpha and Norse's LIFRefrac.

The order of floating-point operations is that of the frameworks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.grid.exact import Parameters
from jaxsnn.grid.neuron import MembraneState, SteppedNeuron, factors_of
from jaxsnn.grid.step_input import StepInput
from jaxsnn.grid.surrogate import Surrogate, spike
from jaxsnn.network.array_types import Array, Float
from jaxsnn.network.structure import Population


class AlphaState(NamedTuple):
    """State of Alpha neurons, (batch, *shape) each: membrane, excitatory and inhibitory current."""

    v: Float[Array, "batch *shape"]
    excitatory: Float[Array, "batch *shape"]
    inhibitory: Float[Array, "batch *shape"]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("parameters",),
    meta_fields=("population", "dt", "surrogate", "detach_reset"),
)
@dataclass(frozen=True)
class AlphaStepper:
    """Population of snnTorch's Alpha, ready to step. A pytree of its parameters.

    Attributes:
        population: its static description.
        parameters: names -> arrays of the population's shape.
        dt: not needed, since decays are per step.
        surrogate: derivative of a spike.
        detach_reset: whether the gradient leaves out resets; None: it does, as in snnTorch.
    """

    population: Population
    parameters: Parameters
    dt: float | None
    surrogate: Surrogate
    detach_reset: bool | None

    def start(self, batch: int) -> AlphaState:
        """Return the state before the first step, zeros."""
        threshold = self.parameters["v_threshold"]
        zero = jnp.zeros((batch, *threshold.shape), threshold.dtype)
        return AlphaState(v=zero, excitatory=zero, inhibitory=zero)

    def fire(self, tested: Float[Array, "*lead *shape"]) -> Float[Array, "*lead *shape"]:
        """Return the spikes of membranes, 0 or 1."""
        return spike(tested - self.parameters["v_threshold"], self.surrogate, False)

    def leaving(self, tested: Float[Array, "*lead *shape"]) -> Float[Array, "*lead *shape"]:
        """Return the output for membranes: spikes, or the membrane of a readout."""
        return self.fire(tested) if self.population.fires else tested

    def step(
        self,
        state: AlphaState,
        drive: StepInput,
        tested_before: Float[Array, "batch *shape"] | None = None,
    ) -> tuple[AlphaState, Float[Array, "batch *shape"], Float[Array, "batch *shape"]]:
        """Simulate one step; see `jaxsnn.grid.neuron.SteppedNeuron.step`. The spikes of the previous
        step reset within this one.
        """
        del tested_before  # the membrane is computed again
        alpha, beta = (jnp.clip(self.parameters[name], 0, 1) for name in ("alpha", "beta"))
        x = drive.level
        assert x is not None
        excitatory = alpha * state.excitatory + x
        inhibitory = beta * state.inhibitory - x
        height = jnp.log(alpha) / (jnp.log(beta) - jnp.log(alpha)) + 1
        v = height * (excitatory + inhibitory)
        if self.population.resets:
            fired = self.fire(state.v)
            if self.detach_reset is None or self.detach_reset:
                fired = lax.stop_gradient(fired)
            if self.population.reset == "subtract":
                # As in snnTorch, the three states change by unrelated amounts: the threshold, the
                # inhibitory current, and the inhibitory current of the previous step.
                excitatory = excitatory - self.parameters["v_threshold"] * fired
                v = v + state.inhibitory * fired
            elif self.population.reset == "zero":
                excitatory = excitatory - excitatory * fired
                v = v - v * fired
            if self.population.reset != "none":
                inhibitory = inhibitory - inhibitory * fired
        state = AlphaState(v=v, excitatory=excitatory, inhibitory=inhibitory)
        return state, v, v


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class RefractoryState:
    """State of LIFRefrac neurons.

    Attributes:
        lif: membrane and synaptic current.
        remaining: refractory time steps that remain.
    """

    lif: MembraneState
    remaining: Float[Array, "batch *shape"]

    @property
    def v(self) -> Float[Array, "batch *shape"]:
        """Membrane potential."""
        return self.lif.v


class RefractoryTest(NamedTuple):
    """Values that decide whether neurons spike: membranes, and 1 for refractory ones, else 0."""

    v: Float[Array, "*lead *shape"]
    refractory: Float[Array, "*lead *shape"]


def refractory_stepper(
    population: Population, parameters: Parameters, **rules: Any
) -> RefractoryStepper:
    """Return a population of LIFRefrac, ready to step.

    Args:
        rules: `dt`, `surrogate` and `detach_reset` of the engine.
    """
    factors = factors_of(population, parameters, rules["dt"])
    lif = SteppedNeuron(
        population=population,
        parameters={**parameters, "r": jnp.ones_like(parameters["tau_mem"])},
        factors=factors,
        **rules,
    )
    return RefractoryStepper(lif=lif)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class RefractoryStepper:
    """Population of Norse's LIFRefrac, ready to step: after a spike, the membrane of a neuron stays
    constant, and further spikes are dropped, for some time steps.
    """

    lif: SteppedNeuron

    @property
    def population(self) -> Population:
        """Static description of the population."""
        return self.lif.population

    def start(self, batch: int) -> RefractoryState:
        """Return the state before the first step; no neuron is refractory."""
        lif = self.lif.start(batch)
        return RefractoryState(lif=lif, remaining=jnp.zeros_like(lif.v))

    def fire(self, tested: RefractoryTest) -> Float[Array, "*lead *shape"]:
        """Return the spikes, 0 or 1."""
        return (1 - tested.refractory) * self.lif.fire(tested.v)

    def leaving(self, tested: RefractoryTest) -> Float[Array, "*lead *shape"]:
        """Return the output for tested values: spikes, or the membrane of a readout."""
        return self.fire(tested) if self.population.fires else tested.v

    def step(
        self, state: RefractoryState, drive: StepInput, tested_before: RefractoryTest | None = None
    ) -> tuple[RefractoryState, RefractoryTest, Float[Array, "batch *shape"]]:
        """Simulate one step; see `jaxsnn.grid.neuron.SteppedNeuron.step`."""
        del tested_before  # the membrane is computed again
        lif, v, after_reset = self.lif.step(state.lif, drive)
        refractory: Any = spike(state.remaining, self.lif.surrogate, False)
        held = (1 - refractory) * after_reset + refractory * state.v
        tested = RefractoryTest(v=v, refractory=refractory)
        fired = self.fire(tested)
        remaining = (1 - fired) * jax.nn.relu(state.remaining - refractory)
        remaining = remaining + fired * self.lif.parameters["refractory_steps"]
        state = RefractoryState(lif=MembraneState(v=held, i=lif.i), remaining=remaining)
        return state, tested, held
