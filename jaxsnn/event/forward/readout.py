"""Membrane voltages of neurons that do not fire."""

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxsnn.event.dynamics.neuron_model import Neuron
from jaxsnn.event.forward.layer import spread
from jaxsnn.network.sorting import sorted_times


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Drive:
    """All that moves a population that does not fire.

    Attributes:
        neuron: the neuron type.
        lanes: the population's neurons.
        v_inf: (neurons,) voltage at rest under the constant current.
        weight: (rows, neurons), what an arrival of each row weighs.
        time: (batch, arrivals), seconds; inf where unused.
        row: (arrivals,) or (batch, arrivals) int32; anything where unused.
    """

    neuron: Neuron = field(metadata={"static": True})
    lanes: Any
    v_inf: Float[Array, "neurons"]
    weight: Float[Array, "rows neurons"]
    time: Float[Array, "batch arrivals"]
    row: Int[Array, "..."]


def membrane(drive: Drive, sample_times) -> jax.Array:
    """V of a population without spikes at given times, exact; differentiable in everything but the
    rows.

    Args:
        sample_times: (samples,) seconds.

    Returns:
        (batch, samples, neurons). A sample at the very time of an arrival is taken after it.
    """
    drive = with_general_kernel(drive)
    neuron, time, row, weight = drive.neuron, drive.time, drive.row, drive.weight
    batch, arrivals = time.shape
    rows, samples = weight.shape[0], sample_times.shape[0]
    if samples == 0:
        return jnp.zeros((batch, 0, weight.shape[1]), time.dtype)
    row = jnp.where(jnp.isfinite(time), row, rows)
    merged = jnp.concatenate([time, jnp.broadcast_to(sample_times, (batch, samples))], axis=1)
    rows_merged = jnp.concatenate([row, jnp.full((batch, samples), rows, row.dtype)], axis=1)
    _, order = sorted_times(merged)
    times = jnp.take_along_axis(merged, order, 1)
    earlier = jnp.concatenate([jnp.zeros((batch, 1), times.dtype), times[:, :-1]], axis=1)
    used = jnp.isfinite(times)  # unused slots come last and wait for nothing
    waits = jnp.where(used, times, 0.0) - jnp.where(used, earlier, 0.0)
    padded = jnp.pad(weight, ((0, 1), (0, 0)))
    across = spread(drive.lanes, batch)

    def step(state, inputs):
        wait, row = inputs
        state = neuron.arrive(neuron.flow(neuron.decay(across, wait[:, None]), state), padded[row])
        return state, state[0]

    start = jax.tree.map(
        lambda array: jnp.broadcast_to(array, (batch, weight.shape[1])), neuron.begin(across)
    )
    ordered_rows = jnp.take_along_axis(rows_merged, order, 1)
    _, v = lax.scan(step, start, (waits.T, ordered_rows.T))
    place = jnp.argsort(order, axis=1)[:, arrivals:]  # where each sample went
    return jnp.take_along_axis(jnp.moveaxis(v, 0, 1), place[:, :, None], axis=1) + drive.v_inf


def with_general_kernel(drive: Drive) -> Drive:
    """The drive without a closed form at a fixed ratio of the time constants, which would tie their
    gradients.
    """
    return replace(drive, neuron=drive.neuron.general())
