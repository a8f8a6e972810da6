"""Sum of the open box spikes at a neuron, which is exactly 0 if none is open.

A box of weight W adds W when it opens and -W when it closes. Rounded sums do not return to exactly
0. The remaining error would never decay, and would eventually make an integrator fire.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from jaxsnn.event.compensated import Pair, plus
from jaxsnn.event.dynamics.neuron_model import Neuron
from jaxsnn.event.event_arrays import NeuronConstants, Numbers, State, Weights
from jaxsnn.network.array_types import Array, Float

#: Bound below the weight of every box, as a fraction of the rounding error of the largest weight.
_LEAST = 2.0**-16


class Level(NamedTuple):
    """State of neurons, and the rounding error of the entry that rectangular pulses raise."""

    x: State
    low: Numbers


def least_level(weight: Weights) -> Float[Array, "neurons"]:
    """Return the level of each neuron below which it counts as 0: far below the rounding error of
    its largest rectangular pulse.
    """
    return _LEAST * jnp.finfo(weight.dtype).eps * jnp.max(abs(weight), axis=0)


def arrived(
    neuron: Neuron, constants: NeuronConstants, before: Level, weight: Numbers, least: Numbers
) -> Level:
    """Return the state and the rounding error after the start of a rectangular pulse, or after its end
    if the weight is negative.
    """
    entry = neuron.level
    assert entry is not None
    x = neuron.arrive(before.x, weight)
    level = plus(Pair(before.x[entry], before.low), weight)
    rest = neuron.begin(constants)[entry]
    closed = abs((level.high - rest) + level.low) <= least
    # The correction removes only a rounding error: the derivative of the level is unchanged.
    off = lax.stop_gradient(jnp.where(closed, rest - level.high, 0.0))
    low = lax.stop_gradient(jnp.where(closed, 0.0, level.low))
    return Level((*x[:entry], level.high + off, *x[entry + 1 :]), low)
