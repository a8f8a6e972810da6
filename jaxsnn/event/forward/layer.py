"""A feed-forward population, event by event.

This module has the records that the forward and backward passes share. `layer_scan` describes the
simulation, `layer_adjoint` the gradients.

Axes. `batch` is the number of samples, `neurons` that of the population. Where neurons of a
population receive different arrivals (a convolution), they are grouped by position: all neurons at
one position receive the same arrivals, and each position of each sample is one row of the arrays.
Then `batch` is samples times positions, and `neurons` the number of neurons at one position:

    dense          (samples, neurons)
    positions      (samples * positions, neurons at one position)

The state of a neuron is that just after its last event, relative to its rest, so that no number
grows with time. Simultaneous arrivals act together: V is compared with the threshold after the last
of them, in any order. Times are sums of two numbers (`compensated`), and so are sums of open
rectangular pulses: if none is open, the sum is exactly 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsnn.event.dynamics.neuron_model import Neuron
from jaxsnn.event.event_arrays import NeuronConstants, OfNeurons, OfSpikes, State, WhichNeurons
from jaxsnn.network.array_types import Array, Bool, Float, Int
from jaxsnn.network.reductions import over_first

#: Number of an interval, the same for all samples.
Position = Int[Array, ""]


@dataclass(frozen=True, kw_only=True)
class LayerSpec:
    """Static description of one population's scan.

    Attributes:
        neuron: the neuron model.
        max_spikes: number of recorded spikes of each neuron.
        once: whether a neuron stops after its first spike.
        min_slope: smallest slope that a gradient is divided by, as a fraction of
            `Neuron.slope_scale`, (v_threshold - v_reset) / tau_mem for NIR's neurons.
        refractory: time for which V stays at v_reset after a spike, seconds.
        jump_width: if an arrival moves V itself across the threshold, the spike's time does not
            depend on weights; with a width (seconds) gradients treat the jump as a ramp of that
            length that ends at the threshold. None: exact (zero).
        in_order: whether the arrivals are already sorted by time.
    """

    neuron: Neuron
    max_spikes: int
    once: bool = False
    min_slope: float = 0.0
    refractory: float = 0.0
    jump_width: float | None = None
    in_order: bool = False

    @property
    def counted(self) -> int:
        """Number of spikes after which a neuron is no longer simulated; far above the number that
        is recorded.
        """
        return 16 * self.max_spikes + 64

    @property
    def assigns(self) -> bool:
        """Return whether a spike sets V to a value that is independent of V before, instead of
        subtracting a constant.
        """
        lowers = self.neuron.drops or self.neuron.keeps_overshoot
        return not lowers or self.refractory > 0

    @property
    def has_causes(self) -> bool:
        """Return whether the gradient needs the cause of each spike and V' after it."""
        return self.assigns or self.neuron.jumps

    @property
    def asks_for_rise(self) -> bool:
        """Return whether the gradient needs the jumps of V at arrivals."""
        return self.neuron.jumps and self.jump_width is not None


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class LayerSpikes:
    """Spikes of a population: arrays (batch, neurons, max_spikes), except `count` (batch, neurons).

    Attributes:
        time: seconds, ascending along the last axis; inf in unused slots.
        slope: dV/dt just before the spike; 1 in unused slots, inf where an arrival moved V itself
            across the threshold. It is not differentiated: gradients that depend on it are NaN.
        count: spikes fired, which may exceed the recorded ones.
    """

    time: OfSpikes
    slope: OfSpikes
    count: Int[Array, "batch neurons"]


class Causes(NamedTuple):
    """Causes of spikes, as residuals of the gradient, for spikes that assign V and for spikes
    that follow a jump of V; arrays as in `LayerSpikes`, or with the axis of spikes first.
    """

    cause: Int[Array, "a b c"]  # slot of the arrival that moved V across the threshold, else -1
    #: sum of the jumps of V by the arrivals at that time; 0 without a `LayerSpec.jump_width`
    jump: Float[Array, "a b c"]
    #: dV/dt just after the spike; 0 if there is a refractory period
    slope_after: Float[Array, "a b c"]


def broadcast_constants(constants: NeuronConstants, batch: int) -> NeuronConstants:
    """Broadcast constants (neurons,) or (positions, neurons) against (batch * positions,
    neurons).
    """

    def of_samples(array: Float[Array, "..."]) -> Float[Array, "#batch neurons"]:
        if array.ndim == 1:
            return array[None]
        # batch row sample * positions + position has the constants of its position
        return jnp.tile(array, (batch // array.shape[0], 1))

    return jax.tree.map(of_samples, constants)


def gathered(gradient: NeuronConstants, constants: NeuronConstants) -> NeuronConstants:
    """Sum the gradients of each sample's constants (batch, neurons) to the shape of the constants:
    the transpose of `broadcast_constants`.
    """
    positions = jax.tree.leaves(constants)[0].shape[:-1]

    def add_samples(array: OfNeurons) -> Float[Array, "..."]:
        return over_first(array.reshape(-1, *positions, array.shape[-1]))

    return jax.tree.map(add_samples, gradient)


def has_nan(neuron: Neuron, constants: NeuronConstants, state: State) -> Bool[Array, "..."]:
    """Return for each neuron whether any entry of the state, or the quantity that its model compares
    with the threshold, is NaN.
    """
    return reduce(jnp.logical_or, map(jnp.isnan, (*state, neuron.excess(constants, state))))


class UpwardCrossing(NamedTuple):
    """Effect of an arrival on neurons whose V it moves."""

    newly: WhichNeurons  # the arrival moves V to the threshold, or above it
    stays: WhichNeurons  # V is at or above the threshold after the arrival


def crosses_upwards(
    neuron: Neuron, constants: NeuronConstants, before: State, after: State
) -> UpwardCrossing:
    """Return whether an arrival moves V from one state to another in which the neuron may fire."""
    at_before, at_after = (neuron.excess(constants, x) >= 0 for x in (before, after))
    crosses = neuron.above(constants, after) & ~neuron.above(constants, before)
    return UpwardCrossing(newly=crosses | (at_after & ~at_before), stays=at_after)
