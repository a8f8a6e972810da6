"""Changes of the training inputs, drawn anew in each epoch: from the run's seed, the epoch, the step and the sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxsnn.event.events import Events


@dataclass(frozen=True, kw_only=True)
class Dropout:
    """Each input spike is left out with a probability.

    Attributes:
        probability: from 0 to 1.
    """

    probability: float

    def __call__(self, key: jax.Array, inputs: Any) -> Any:
        """One sample: Events (events,), or an array (time, *shape)."""
        if isinstance(inputs, Events):
            gone = jax.random.bernoulli(key, self.probability, inputs.time.shape)
            return Events(time=jnp.where(gone, jnp.inf, inputs.time), index=inputs.index)
        return jnp.where(jax.random.bernoulli(key, self.probability, inputs.shape), 0, inputs)


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """Each input spike moves by a normal deviate; none before time 0.

    Attributes:
        deviation: seconds.
    """

    deviation: float

    def __call__(self, key: jax.Array, inputs: Any) -> Any:
        """One sample, Events (events,)."""
        moved = inputs.time + self.deviation * jax.random.normal(key, inputs.time.shape, inputs.time.dtype)
        return Events(time=jnp.maximum(moved, 0.0), index=inputs.index)
