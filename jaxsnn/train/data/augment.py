"""Changes of the training inputs, drawn anew in each epoch: from the run's seed, the epoch, the
step and the sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxsnn.errors import UsageError
from jaxsnn.network.valued_inputs import Currents


@dataclass(frozen=True, kw_only=True)
class Dropout:
    """Each input spike is left out with a probability.

    Attributes:
        probability: from 0 to 1, 1 excluded.

    Raises:
        UsageError: another probability.
    """

    probability: float

    def __post_init__(self) -> None:
        if not 0 <= self.probability < 1:
            raise UsageError(
                f"dropout has the probability {self.probability:g}",
                fix="give a number from 0 to 1, 1 excluded",
            )

    def __call__(self, key: jax.Array, inputs: Any) -> Any:
        """One sample: Events or GradedEvents (events,), an array (time, *shape), or Currents, of
        which whole channels are left out.
        """
        if isinstance(inputs, Currents):
            gone = jax.random.bernoulli(key, self.probability, inputs.value.shape[-1:])
            return replace(inputs, value=jnp.where(gone, 0.0, inputs.value))
        if hasattr(inputs, "time"):
            gone = jax.random.bernoulli(key, self.probability, inputs.time.shape)
            return replace(inputs, time=jnp.where(gone, jnp.inf, inputs.time))
        return jnp.where(jax.random.bernoulli(key, self.probability, inputs.shape), 0, inputs)


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """Each input spike moves by a normal deviate; none before time 0.

    Attributes:
        deviation: seconds.

    Raises:
        UsageError: a deviation that is negative or not finite.
    """

    deviation: float

    def __post_init__(self) -> None:
        if not 0 <= self.deviation < math.inf:
            raise UsageError(
                f"jitter has the deviation {self.deviation:g} s",
                fix="give a finite number of at least 0",
            )

    def __call__(self, key: jax.Array, inputs: Any) -> Any:
        """One sample, Events or GradedEvents (events,)."""
        if isinstance(inputs, Currents) or not hasattr(inputs, "time"):
            raise UsageError("jitter moves spikes, and inputs are values", fix="leave it out")
        moved = inputs.time + self.deviation * jax.random.normal(
            key, inputs.time.shape, inputs.time.dtype
        )
        return replace(inputs, time=jnp.maximum(moved, 0.0))
