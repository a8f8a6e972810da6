"""Input of a population in a time step, and the interface of a model that computes the step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import jax

from jaxsnn.network.array_types import Array, Float
from jaxsnn.network.structure import Population


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class StepInput:
    """Input of a step; None stands for no input.

    In the time steps of a framework all input is a `level`; in continuous time spikes and currents
    differ. For many steps at once, the arrays have a leading time axis.

    Attributes:
        spikes: weighted spikes, each of the population's `spike_area`.
        level: a current that is constant over the step.
    """

    spikes: Float[Array, "*time batch *shape"] | None = None
    level: Float[Array, "*time batch *shape"] | None = None

    @property
    def only(self) -> Any:
        """Spikes, or the level if there are none."""
        return self.level if self.spikes is None else self.spikes


class SteppingModel(Protocol):
    """Interface of a population ready to step: a pytree of its parameters. Its state is a pytree
    with the membrane as `v`.
    """

    @property
    def population(self) -> Population:
        """Static description of the population."""
        ...

    def start(self, batch: int) -> Any:
        """Return the state before the first step."""
        ...

    def fire(self, tested: Float[Array, "*lead *shape"]) -> Float[Array, "*lead *shape"]:
        """Return the spikes for the tested values of a step."""
        ...

    def leaving(self, tested: Float[Array, "*lead *shape"]) -> Float[Array, "*lead *shape"]:
        """Return the output for the tested values of a step: spikes, or the membrane of a
        readout.
        """
        ...

    def step(
        self,
        state: Any,
        drive: StepInput,
        tested_before: Float[Array, "batch *shape"] | None = None,
    ) -> tuple[Any, Float[Array, "batch *shape"], Float[Array, "batch *shape"]]:
        """Simulate one step.

        Args:
            drive: input of the step.
            tested_before: tested values of an earlier run of this step; they may be reused.

        Returns:
            The next state, the tested values (see `leaving`), and the membrane after a reset.
        """
        ...
