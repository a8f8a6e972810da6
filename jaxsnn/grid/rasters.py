"""What goes into a time-stepped simulation: arrays in time, or events that are sorted into
steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxsnn.errors import UsageError
from jaxsnn.network.inputs import (
    by_input,
    checked_events,
    out_of_range,
    refuse_different_batches,
)
from jaxsnn.network.meshes import by_compiler
from jaxsnn.network.network import Network
from jaxsnn.network.spikes import Events

#: An event lies between two steps where it is further from both than this fraction of a step.
OFF_GRID = 2**-8


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Rasters:
    """Inputs of the time-stepped engine, by Input node.

    Attributes:
        x: (time, batch, *shape), in the network's dtype.
        rounded: of inputs given as events, how many were moved to the nearest step.
        late: of inputs given as events, how many lie behind the last step and are left out.
        invalid: whether some event lies before time 0 or names a channel that the input lacks,
            scalar bool.
    """

    x: dict[str, Float[Array, "time batch *shape"]]
    rounded: dict[str, Int[Array, ""]]
    late: dict[str, Int[Array, ""]]
    invalid: Bool[Array, ""]


def rasters(network: Network, inputs: Any, *, t_end: float | None, dt: float | None) -> Rasters:
    """Check inputs, and sort events into steps: one at time t is input of step t/dt, rounded.

    Args:
        inputs: an array (time, batch, *shape) or `Events` (batch, events); for several inputs a
            mapping from the Input node's name.
        t_end: seconds; needed for events.
        dt: seconds, length of a step; needed for events.

    Raises:
        UsageError: inputs that do not fit the network, or each other.
    """
    shapes = {wire.name: wire.shape for wire in network.wires if wire.kind == "input"}
    given = by_input(network, inputs)
    steps = None if t_end is None else _steps(t_end, dt)
    x, rounded, late, invalid = {}, {}, {}, jnp.asarray(False)
    for name, shape in shapes.items():
        if hasattr(given[name], "time") and hasattr(given[name], "index"):
            if steps is None or dt is None:
                raise UsageError(
                    f"input '{name}' is given as events, which are sorted into steps",
                    fix="pass t_end, and dt where the file does not say it",
                    node=name,
                )
            events = checked_events(name, given[name], math.prod(shape), network.dtype)
            invalid |= out_of_range(events, math.prod(shape))
            by_step = partial(_sorted_in, steps=steps, dt=dt, shape=shape, dtype=network.dtype)
            sorted_in = by_compiler(by_step, events, samples=events.time, axis_of=_samples_axis)
            x[name], rounded[name], late[name] = sorted_in
        else:
            x[name] = _raster(name, given[name], shape, network.dtype)
    lengths = {name: array.shape[0] for name, array in x.items()}
    if steps is not None:
        lengths["t_end"] = steps
    batches = {name: array.shape[1] for name, array in x.items()}
    if len(set(lengths.values())) > 1:
        raise UsageError(f"inputs of different lengths, in steps {lengths}", fix="make them equal")
    refuse_different_batches(batches)
    return Rasters(x=x, rounded=rounded, late=late, invalid=invalid)


def _samples_axis(path: tuple[Any, ...], array: Any) -> int | None:
    """The axis of the samples in what `_sorted_in` gives: its counts alone have one."""
    del path
    return 1 if array.ndim else None


def _steps(t_end: float, dt: float | None) -> int:
    """Number of steps of a sample that ends at t_end, seconds."""
    if dt is None:
        raise UsageError(
            "the length of a step is unknown",
            fix="pass dt=1e-3, for example, or leave t_end out",
        )
    steps = round(float(t_end) / dt)
    if steps < 1:
        raise UsageError(
            f"t_end is {float(t_end):g} s, shorter than half a step of {dt:g} s", fix="raise t_end"
        )
    return steps


def _raster(
    name: str, x: Any, shape: tuple[int, ...], dtype: Any
) -> Float[Array, "time batch *shape"]:
    """An input that is given by steps, in the shape of its node."""
    found = jnp.shape(x)
    if len(found) < 2 or found[2:] != shape:
        wanted = ", ".join(str(size) for size in ("time", "batch", *shape))
        raise UsageError(
            f"input '{name}' has shape {found}", fix=f"give it the shape ({wanted})", node=name
        )
    if 0 in found[:2]:
        raise UsageError(
            f"input '{name}' has {found[0]} steps and {found[1]} samples",
            fix="pass at least one of each",
            node=name,
        )
    return jnp.asarray(x, dtype)


def _sorted_in(
    events: Events, steps: int, dt: float, shape: tuple[int, ...], dtype: Any
) -> tuple[Float[Array, "time batch *shape"], Int[Array, ""], Int[Array, ""]]:
    """Counts (time, batch, *shape), how many events were moved, and how many left out."""
    time, index = events.time, events.index
    used = jnp.isfinite(time)
    exact = jnp.where(used, time, 0.0) / dt
    step = jnp.rint(exact)
    rounded = jnp.sum(used & (jnp.abs(step - exact) > OFF_GRID))
    late = jnp.sum(used & (step >= steps))
    # Events that are left out go to the step behind the last one, which is dropped.
    place = jnp.where(used, jnp.minimum(step, steps), steps).astype(jnp.int32)
    batch = time.shape[0]
    sample = jnp.broadcast_to(jnp.arange(batch)[:, None], time.shape)
    counts = jnp.zeros((steps, batch, math.prod(shape)), dtype)
    counts = counts.at[place, sample, index].add(1, mode="drop")
    return counts.reshape(steps, batch, *shape), rounded, late
