"""Time steps of a neuron model computed from its flow, which is exact over a step: for models that
do not define rules for time steps.

Spikes arrive at the beginning of a step as deltas; currents are constant during the step. The
threshold is tested at the beginning of the step, after the arrivals.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.grid.step_input import StepInput
from jaxsnn.grid.surrogate import Surrogate, spike
from jaxsnn.network.array_types import Array, Float
from jaxsnn.network.structure import Population


class FlowState(NamedTuple):
    """State of a neuron model, (batch, *shape) each; the first is the membrane potential."""

    x: tuple[Float[Array, "batch *shape"], ...]

    @property
    def v(self) -> Float[Array, "batch *shape"]:
        """Membrane potential."""
        return self.x[0]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("parameters",),
    meta_fields=("neuron", "population", "dt", "surrogate", "detach_reset"),
)
@dataclass(frozen=True, kw_only=True)
class FlowStepper:
    """Population of a neuron model, ready to step. A pytree of its parameters.

    Attributes:
        neuron: its dynamics (`jaxsnn.event.dynamics.neuron_model.Neuron`).
        population: its static description.
        parameters: names -> arrays of the population's shape.
        dt: length of a step, seconds.
        surrogate: derivative of a spike.
        detach_reset: whether the gradient leaves out resets.
    """

    neuron: Any
    population: Population
    parameters: dict[str, Float[Array, "*shape"]]
    dt: float
    surrogate: Surrogate
    detach_reset: bool | None

    def start(self, batch: int) -> FlowState:
        """Return the state before the first step: no current flows."""
        begin = self.neuron.begin(self.neuron.constants(self.parameters, None))
        rest = self.neuron.rest(self.parameters, None)
        return FlowState(
            tuple(
                jnp.broadcast_to(part + origin, (batch, *part.shape))
                for part, origin in zip(begin, rest, strict=True)
            )
        )

    def fire(self, tested: Float[Array, "*lead *shape"]) -> Float[Array, "*lead *shape"]:
        """Return spikes, 0 or 1, for differences between V and the threshold."""
        return spike(tested, self.surrogate, self.population.threshold == ">=")

    def leaving(self, tested: Float[Array, "*lead *shape"]) -> Float[Array, "*lead *shape"]:
        """Return the output of tested values: spikes, or the membrane of a readout."""
        return self.fire(tested) if self.population.fires else tested

    def step(
        self,
        state: FlowState,
        drive: StepInput,
        tested_before: Float[Array, "batch *shape"] | None = None,
    ) -> tuple[FlowState, Float[Array, "batch *shape"], Float[Array, "batch *shape"]]:
        """Simulate one step; see `jaxsnn.grid.neuron.SteppedNeuron.step`.

        Args:
            tested_before: not needed: the tested excess is computed again.
        """
        del tested_before
        neuron = self.neuron
        constants = neuron.constants(self.parameters, drive.level)
        # A neuron model measures its state from its rest under the constant current.
        rest = neuron.rest(self.parameters, drive.level)
        x = tuple(part - origin for part, origin in zip(state.x, rest, strict=True))
        if drive.spikes is not None:
            x = neuron.arrive(x, neuron.arrival_factor(self.parameters) * drive.spikes)
        tested = x[0] + rest[0]
        if self.population.fires:
            tested = neuron.excess(constants, x)
            fired = self.fire(tested)
            if self.detach_reset:
                fired = lax.stop_gradient(fired)
            after = neuron.reset(constants, x)
            x = tuple((1 - fired) * old + fired * new for old, new in zip(x, after, strict=True))
        membrane = x[0] + rest[0]
        x = neuron.flow(neuron.decay(constants, jnp.asarray(self.dt, x[0].dtype)), x)
        ends = tuple(part + origin for part, origin in zip(x, rest, strict=True))
        return FlowState(ends), tested, membrane
