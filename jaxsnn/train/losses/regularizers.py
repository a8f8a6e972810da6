"""Regularisers: terms that are added to the loss of each sample.

Remedies for silent neurons are in `silence` too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsnn.errors import UsageError, as_number, shown, suggestion
from jaxsnn.event.event_solution import EventSolution
from jaxsnn.network.network import Network

#: A budget is kept to, if no more than this times its spikes are fired.
_TOLERATED = 1.05


class Regulariser(Protocol):
    """A term of the loss that looks at a solution of the event engine; a frozen dataclass, hashable
    as a `Loss` is.
    """

    def __call__(self, network: Network, solution: EventSolution) -> jax.Array:
        """One number for each sample, (batch,), without a unit, differentiated by JAX.

        Args:
            network: with the parameters of this step.
            solution: what came out of the batch.
        """
        ...


class _Checked:
    """Regularisers whose fields are looked at when they are made.

    Raises:
        UsageError: names the regulariser, the field and the value.
    """

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        name = type(self).__name__
        for field, least in (("strength", 0.0), ("target", 0.0), ("most", np.finfo(float).tiny)):
            value = getattr(self, field, least)
            if not (least <= as_number(value) < np.inf or isinstance(value, Tracer)):
                wanted = "above 0" if least else "of at least 0"
                raise UsageError(
                    f"{name}: {field} is {shown(value)}", fix=f"give a number {wanted}"
                )
        if isinstance(populations := getattr(self, "populations", ()), str):
            raise UsageError(
                f"{name}: populations is {populations!r}",
                fix=f'give several names, ("{populations}",)',
            )


@dataclass(frozen=True, kw_only=True)
class SpikeRate(_Checked):
    """Neurons shall fire `target` times in a sample: strength / 2 mean (count - target)^2.

    A count has no exact gradient: each of a neuron's own spikes passes on what a kick of its
    voltage would do (`jaxsnn.train.losses.readings`), as in the regulariser of Nowotny et al.,
    arXiv:2212.01232. A silent neuron has no spike to pass anything on: see `PeakMargin` and
    `jaxsnn.train.WeightBumping`.

    Attributes:
        target: spikes of a neuron in a sample.
        strength: of the term.
        populations: names; empty: all that fire.
    """

    target: float = 14.0
    strength: float = 0.01
    populations: tuple[str, ...] = ()

    def __call__(self, network: Network, solution: EventSolution) -> jax.Array:
        """One number for each sample, (batch,)."""
        names = self.populations or firing(network, solution)
        excess = [
            jnp.mean(jnp.square(solution.count(name) - self.target), axis=1) for name in names
        ]
        return 0.5 * self.strength * sum(excess, jnp.zeros(()))


@dataclass(frozen=True, kw_only=True)
class SpikeBudget(_Checked):
    """All neurons together shall fire `most` times in a sample at most: strength / 2 (excess / most)^2.

    The gradient of a count is as of `SpikeRate`. The best epoch of a run is, before all else, one
    that keeps to the budget on the validation samples.

    Attributes:
        most: spikes of a sample, of all populations.
        strength: of the term.
    """

    most: float
    strength: float = 1.0

    def excess(self, spikes: float) -> float:
        """By which fraction a number of spikes is above the budget; a twentieth is none."""
        return max(spikes / self.most - _TOLERATED, 0.0)

    def __call__(self, network: Network, solution: EventSolution) -> jax.Array:
        """One number for each sample, (batch,)."""
        counts = [jnp.sum(solution.count(name), axis=1) for name in firing(network, solution)]
        excess = jnp.maximum(sum(counts, jnp.zeros(())) / self.most - 1, 0.0)
        return 0.5 * self.strength * jnp.square(excess)


@dataclass(frozen=True, kw_only=True)
class PeakMargin(_Checked):
    """The voltage of a silent neuron shall come near its threshold: strength mean (threshold -
    peak) / height.

    Over all neurons of a population, of which those that fire in the sample count 0; of several
    populations the sum. `height` is v_threshold - v_reset. Exact gradients of a silent neuron's
    largest voltage, where its missing spikes have none.

    Attributes:
        strength: of the term.
        populations: names; empty: all that fire.
    """

    strength: float = 0.01
    populations: tuple[str, ...] = ()

    def __call__(self, network: Network, solution: EventSolution) -> jax.Array:
        """One number for each sample, (batch,).

        Raises:
            UsageError: a population that does not fire, or does not exist.
        """
        total, known = jnp.zeros(()), firing(network, solution)
        for name in self.populations or known:
            if name not in known:
                raise UsageError(
                    f"PeakMargin: '{name}' is not a spiking population",
                    fix=suggestion(name, known),
                    node=name,
                )
            threshold = jax.lax.stop_gradient(network.parameters[name]["v_threshold"])
            lacks = (threshold - solution.maximum(name)) / jax.lax.stop_gradient(
                solution.heights[name]
            )
            silent = solution.spikes[name].count == 0
            total += jnp.mean(jnp.where(silent, jnp.maximum(lacks, 0.0), 0.0), axis=1)
        return self.strength * total


def firing(network: Network, solution: EventSolution) -> tuple[str, ...]:
    """Names of the populations that fire; a Threshold is none."""
    return tuple(name for name in solution.spikes if name in network.populations)
