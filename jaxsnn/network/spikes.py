"""Events as padded arrays, sorted by time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxsnn.errors import UsageError, as_number, shown
from jaxsnn.keywords import suggests_keywords
from jaxsnn.network.array_types import Array, Float, Int
from jaxsnn.network.lookups import gather_along
from jaxsnn.network.meshes import by_compiler, first_axis
from jaxsnn.network.on_processor import on_processor, to_jax
from jaxsnn.network.sorting import sorted_times
from jaxsnn.options import DT
from jaxsnn.summary import summarised
from jaxsnn.wording import Text


@suggests_keywords
@summarised
@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Events:
    """Spikes of one population.

    Attributes:
        time: (..., events) times in seconds, ascending; inf in unused slots.
        index: (..., events) int32, the neuron or channel; the population's size in unused slots.
        dt: length in seconds of the time steps from which the events were created; None if they were
            not created from time steps. A run issues a note if the network has other time steps.
    """

    time: Float[Array, "*batch events"]
    index: Int[Array, "*batch events"]
    dt: float | None = field(default=None, metadata={"static": True})

    if TYPE_CHECKING:

        def __init__(
            self, *, time: ArrayLike, index: ArrayLike, dt: float | None = None
        ) -> None: ...

    @property
    def count(self) -> Int[Array, "*batch"]:
        """Number of events."""
        return jnp.sum(jnp.isfinite(self.time), axis=-1)

    @classmethod
    def of_steps(cls, x: Any, dt: float) -> Events:
        """Convert time-stepped spikes to events: step k is at time k dt, and a value of 2 becomes two
        simultaneous spikes.

        Args:
            x: (time, batch, *shape), integers of at least 0.
            dt: length of a step, seconds.

        Raises:
            UsageError: other values or axes, or a dt that is not positive.

        >>> events = Events.of_steps(np.array([[[0, 1]], [[2, 0]]]), dt=1e-3)
        >>> events.time.tolist(), events.index.tolist()
        ([[0.0, 0.001, 0.001]], [[1, 0, 0]])

        For a time-stepped network, pass its step: `dt=graph.dialect.dt`.
        """
        refuse_traced((x, dt), "time-stepped spikes")
        if not 0 < as_number(dt) < np.inf:
            raise UsageError(
                Text("{option} is {dt}", option=DT, dt=shown(dt)),
                fix="pass a positive time step in seconds",
            )
        shape = np.shape(x)
        refuse_masked(x, "x")
        if len(shape) < 3:
            fix = "pass an array of shape (time, batch, channels)"
            raise UsageError(Text("time-stepped spikes have shape {shape}", shape=shape), fix=fix)
        try:
            return replace(dense_to_events(x, dt), dt=float(dt))
        except (TypeError, ValueError) as error:
            fix = "pass spike counts, or use jaxsnn.Currents.held(x, dt) for other values"
            raise UsageError(
                Text("time-stepped spikes: {reason}", reason=str(error)), fix=fix
            ) from error


def refuse_traced(values: Any, description: str) -> None:
    """Refuse traced values: the number of their spikes is unknown.

    Args:
        description: description of the values in messages.

    Raises:
        UsageError: a value is traced.
    """
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(values)):
        raise UsageError(
            Text(
                "{description} are traced by jax.jit, vmap or grad, but spikes can be extracted "
                "only from concrete arrays",
                description=description,
            ),
            fix="extract the spikes outside of the transformation, and pass the events",
        )


def refuse_masked(values: Any, description: str, node: str = "") -> None:
    """Refuse an array with masked numbers: the mask would be ignored.

    Args:
        description: description of the array in messages.
        node: the input, if known.
    """
    if np.ma.is_masked(values):
        fix = "remove masked entries, or replace them with .filled()"
        raise UsageError(
            Text("{description} has masked entries", description=description), fix=fix, node=node
        )


def sort_events(
    time: Float[Array, "*batch events"], index: Int[Array, "*batch events"]
) -> tuple[Float[Array, "*batch events"], Int[Array, "*batch events"]]:
    """Sort both arrays by time, differentiable; equal times keep the order of their slots."""
    if on_processor(time, index):
        return to_jax(_sorted_here(time, index))
    _, position = sorted_times(time)
    return gather_along(time, position, -1), gather_along(index, position, -1)


def _sorted_here(time: Any, index: Any) -> tuple[np.ndarray, np.ndarray]:
    """Run `sort_events` in NumPy."""
    place = np.argsort(time, axis=-1, kind="stable")
    time, index = (np.take_along_axis(np.asarray(array), place, -1) for array in (time, index))
    return time, index


def flatten_spikes(times: Float[Array, "batch neurons spikes"]) -> Events:
    """Convert spike times of each neuron to sorted Events (batch, neurons * spikes).

    Events at exactly equal times come in the order of their neurons.
    """
    return by_compiler(_flattened, times, samples=times, axis_of=first_axis)


def _flattened(times: Float[Array, "batch neurons spikes"]) -> Events:
    batch, neurons, spikes = times.shape
    here = on_processor(times)
    flat: Any = (np.asarray(times) if here else times).reshape(batch, neurons * spikes)
    index: Any = np.broadcast_to(np.repeat(np.arange(neurons, dtype=np.int32), spikes), flat.shape)
    if here:
        time, index = _sorted_here(flat, index)
        index = np.where(np.isfinite(time), index, np.int32(neurons))
        return Events(time=to_jax(time), index=to_jax(index))
    time, index = sort_events(flat, index)
    return Events(time=time, index=jnp.where(jnp.isfinite(time), index, neurons))


def dense_to_events(steps: Any, dt: float) -> Events:
    """Convert a spike raster of 0 and 1 to Events, in NumPy; a value above 1 stands for that many
    spikes at one time.

    Args:
        steps: array (time, batch, *shape).
        dt: length of a step, seconds; step k is at time k dt.

    Raises:
        ValueError: a negative or fractional number of spikes.
    """
    raster = np.asarray(steps)
    counts = np.rint(raster.astype(float)).astype(int)
    if not np.array_equal(counts, raster) or (counts < 0).any():
        raise ValueError("a spike raster must contain only integers of at least 0")
    # (time, batch, *shape) to (batch, time, channels)
    counts = counts.reshape(counts.shape[0], counts.shape[1], -1).transpose(1, 0, 2)
    batch, _, size = counts.shape
    slots = max(int(counts.sum(axis=(1, 2)).max(initial=0)), 1)
    time = np.full((batch, slots), np.inf)
    index = np.full((batch, slots), size, np.int32)
    for sample in range(batch):
        step, channel = np.nonzero(counts[sample])
        repeat = counts[sample][step, channel]
        time[sample, : repeat.sum()] = np.repeat(step * dt, repeat)
        index[sample, : repeat.sum()] = np.repeat(channel, repeat)
    return Events(time=time, index=index)
