"""Membrane voltages of neurons that do not fire."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.event.dynamics.neuron_model import Neuron
from jaxsnn.event.event_arrays import (
    NeuronConstants,
    NumberOfSamples,
    OfNeurons,
    OfSamples,
    Rows,
    Times,
    Weights,
)
from jaxsnn.event.forward.box_levels import Level, arrived, least_level
from jaxsnn.event.forward.layer import broadcast_constants
from jaxsnn.network.array_types import Array, Float, Int
from jaxsnn.network.lookups import gather_along
from jaxsnn.network.meshes import match_device_axes
from jaxsnn.network.sorting import sorted_times


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Drive:
    """Inputs of a population that does not fire: neurons, weights and arrivals.

    Attributes:
        neuron: the neuron type.
        constants: constants of the population's neurons.
        v_inf: voltage at rest under the constant current.
        weight: weights of an arrival of each row.
        time: seconds; inf where unused.
        row: (arrivals,) or (batch, arrivals) int32; arbitrary where unused.
        places: element of each neuron, if positions have separate lists: then `constants` and
            `v_inf` are (positions, columns), and each sample has one row for each position.
    """

    neuron: Neuron = field(metadata={"static": True})
    constants: NeuronConstants
    v_inf: Float[Array, "neurons"]
    weight: Weights
    time: Times
    row: Rows
    places: Places | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Places:
    """Location of each neuron in arrays (positions, columns).

    Attributes:
        index: index in the flattened array, position by position.
        unit: unit of V in that array, volts.
    """

    index: Int[Array, "neurons"]
    unit: Float[Array, "neurons"]


class _Merged(NamedTuple):
    """Arrivals and samples of V in one order of time."""

    #: time since the previous slot, seconds; 0 in unused slots
    wait: Float[Array, "batch slots"]
    #: row of the weights; the row after the last where V is sampled or the slot is unused
    row: Int[Array, "batch slots"]
    #: slot of each sample of V
    place: Int[Array, "batch samples"]


class _Slot(NamedTuple):
    """Slot of `_Merged` in each sample of the batch: one step of the scan."""

    wait: OfSamples
    row: NumberOfSamples


def membrane(
    drive: Drive, sample_times: Float[Array, "samples"]
) -> Float[Array, "batch samples neurons"]:
    """Return V of a population without spikes at some sample times, exact; differentiable in
    everything but the rows.

    Args:
        sample_times: seconds.

    Returns:
        (batch, samples, neurons). A sample exactly at the time of an arrival is taken after it.
    """
    drive = with_general_kernel(drive)
    neuron, weight = drive.neuron, drive.weight
    batch = drive.time.shape[0]
    shape = (batch, weight.shape[1])
    if sample_times.shape[0] == 0:
        return jnp.zeros((batch, 0, weight.shape[1]), drive.time.dtype)
    merged = _merged(drive, sample_times)
    # A sample of V is treated as an arrival of the row of zeros that is appended here.
    padded = jnp.pad(weight, ((0, 1), (0, 0)))
    across = broadcast_constants(drive.constants, batch)

    least = least_level(weight)

    def step(held: Level, slot: _Slot) -> tuple[Level, OfNeurons]:
        # x(t_n) = Phi(t_n - t_(n - 1)) x(t_(n - 1)) + W_n e
        before = neuron.flow(neuron.decay(across, slot.wait[:, None]), held.x)
        if neuron.level is None:
            after = Level(neuron.arrive(before, padded[slot.row]), held.low)
        else:
            after = arrived(neuron, across, Level(before, held.low), padded[slot.row], least)
        return after, after.x[0]

    def fill(array: Float[Array, "#batch neurons"]) -> OfNeurons:
        return jnp.broadcast_to(array, shape)

    begin = jax.tree.map(fill, neuron.begin(across))
    start = match_device_axes(Level(begin, jnp.zeros_like(begin[0])), padded, across, merged)
    # The scan goes over the slots, so that they are the first axis.
    _, v = lax.scan(step, start, _Slot(wait=merged.wait.T, row=merged.row.T))
    by_sample = jnp.moveaxis(v, 0, 1)
    return gather_along(by_sample, merged.place[:, :, None], axis=1) + drive.v_inf


def _merged(drive: Drive, sample_times: Float[Array, "samples"]) -> _Merged:
    """Merge arrivals and samples of V in one order of time."""
    batch, arrivals = drive.time.shape
    rows, samples = drive.weight.shape[0], sample_times.shape[0]
    row = jnp.where(jnp.isfinite(drive.time), drive.row, rows)
    # Samples come last, and the sort is stable: at the same time arrivals act first.
    time = [drive.time, jnp.broadcast_to(sample_times, (batch, samples))]
    time = jnp.concatenate(time, axis=1)
    row = jnp.concatenate([row, jnp.full((batch, samples), rows, row.dtype)], axis=1)
    _, order = sorted_times(time)
    times = gather_along(time, order, 1)
    earlier = jnp.concatenate([jnp.zeros((batch, 1), times.dtype), times[:, :-1]], axis=1)
    used = jnp.isfinite(times)  # unused slots come last; their wait is 0
    wait = jnp.where(used, times, 0.0) - jnp.where(used, earlier, 0.0)
    return _Merged(
        wait=wait,
        row=gather_along(row, order, 1),
        # argsort of a permutation is its inverse: the new place of each original slot
        place=jnp.argsort(order, axis=1)[:, arrivals:],
    )


def with_general_kernel(drive: Drive) -> Drive:
    """Return the drive without closed forms for a fixed ratio of the time constants: with such a form
    the gradients of the two time constants would not be independent.
    """
    return replace(drive, neuron=drive.neuron.general())
