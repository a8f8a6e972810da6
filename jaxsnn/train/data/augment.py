"""Changes of the training inputs, drawn anew in each epoch: from the run's seed, the epoch, the
step and the sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxsnn.errors import UsageError
from jaxsnn.network.valued_inputs import Currents

#: A function of a random key and one sample, Events (events,) or an array (time, *shape), that
#: gives a changed sample of the same shape; traced by JAX, and hashable.
Augment = Callable[[jax.Array, Any], Any]


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
        refuse_values(inputs, "jitter moves spikes")
        moved = inputs.time + self.deviation * jax.random.normal(
            key, inputs.time.shape, inputs.time.dtype
        )
        return replace(inputs, time=jnp.maximum(moved, 0.0))


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Each sample lasts longer or shorter: all its times are multiplied by one factor, drawn between
    e^-extent and e^extent, evenly in its logarithm.

    Attributes:
        extent: 0.2: from 0.82 to 1.22 times as long.

    Raises:
        UsageError: an extent that is negative or not finite.
    """

    extent: float

    def __post_init__(self) -> None:
        if not 0 <= self.extent < math.inf:
            fix = "give a finite number of at least 0"
            raise UsageError(f"stretch is {self.extent:g}", fix=fix)

    def __call__(self, key: jax.Array, inputs: Any) -> Any:
        """One sample, Events or GradedEvents (events,)."""
        refuse_values(inputs, "stretch moves spikes")
        drawn = jax.random.uniform(key, (), inputs.time.dtype, -1, 1)
        return replace(inputs, time=inputs.time * jnp.exp(self.extent * drawn))


@dataclass(frozen=True, kw_only=True)
class ChannelShift:
    """Each sample moves up or down by whole groups of channels: by a band, where the channels of
    each band of a sound stand together. Events that leave the channels are lost; channels behind
    them, such as a bias, stay.

    Attributes:
        most: groups, up or down, each number as likely as the others.
        group: channels.
        channels: that move.

    Raises:
        UsageError: a number that is negative, or channels that are no whole number of groups.
    """

    most: int
    group: int
    channels: int

    def __post_init__(self) -> None:
        if self.most < 0 or self.group < 1 or self.channels < 1 or self.channels % self.group:
            raise UsageError(
                f"channel_shift moves {self.channels} channels by up to {self.most} groups of"
                f" {self.group}",
                fix="give whole numbers, and groups that all channels are made of",
            )

    def __call__(self, key: jax.Array, inputs: Any) -> Any:
        """One sample, Events or GradedEvents (events,)."""
        refuse_values(inputs, "channel_shift moves spikes")
        groups = jax.random.randint(key, (), -self.most, self.most + 1)
        index = inputs.index + self.group * groups
        inside = (index >= 0) & (index < self.channels)
        moves = inputs.index < self.channels
        return replace(
            inputs,
            time=jnp.where(moves & ~inside, jnp.inf, inputs.time),
            index=jnp.where(moves & inside, index, inputs.index).astype(jnp.int32),
        )


def refuse_values(inputs: Any, what: str) -> None:
    """Refuse inputs that are no events; `what` changes these.

    Raises:
        UsageError: they are arrays or currents.
    """
    if isinstance(inputs, Currents) or not hasattr(inputs, "time"):
        raise UsageError(f"{what}, and inputs are values", fix="leave it out")
