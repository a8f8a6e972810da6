"""Inputs of a time-stepped simulation: arrays over time, or events and currents that are sorted
into steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxsnn.errors import Note, UsageError
from jaxsnn.network.array_types import Array, Bool, Float, Int
from jaxsnn.network.inputs import (
    by_input,
    checked_input,
    late_events,
    out_of_range,
    refuse_different_batches,
)
from jaxsnn.network.meshes import by_compiler
from jaxsnn.network.network import Network
from jaxsnn.network.spikes import Events
from jaxsnn.network.valued_inputs import Currents, GradedEvents, refuse_no_array
from jaxsnn.options import DT, T_END
from jaxsnn.units import SECONDS, format_time, refuse_no_time
from jaxsnn.wording import Text

#: Distance from the nearest step, as a fraction of a step, above which an event lies between steps.
OFF_GRID = 2**-8
#: Largest number of time steps: steps have 32-bit indices.
_MOST_STEPS = 2**31 - 1


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Rasters:
    """Rasters of the time-stepped engine's inputs, by Input node.

    Attributes:
        x: (time, batch, *shape), in the network's dtype.
        rounded: number of events (or pieces of currents) that were moved to the nearest step, for
            inputs specified as events or currents.
        late: number of them that come after the last step and are ignored.
        invalid: whether an event lies before time 0 or has a channel that does not exist, scalar
            bool.
        currents: names of the inputs that are currents, where it makes a difference.
    """

    x: dict[str, Float[Array, "time batch *shape"]]
    rounded: dict[str, Int[Array, ""]]
    late: dict[str, Int[Array, ""]]
    invalid: Bool[Array, ""]
    currents: tuple[str, ...] = field(default=(), metadata={"static": True})


def rasters(network: Network, inputs: Any, *, t_end: float | None, dt: float | None) -> Rasters:
    """Check inputs, and sort events into steps: an event at time t is input of step t/dt, rounded.

    Args:
        inputs: an array (time, batch, *shape), `Events` or `GradedEvents` (batch, events), or
            `Currents`; for several inputs a mapping from the Input node's name.
        t_end: seconds; needed for all but arrays.
        dt: length of a step, seconds; needed for all but arrays.

    Raises:
        UsageError: inputs that do not fit the network, or each other.
    """
    shapes = {wire.name: wire.shape for wire in network.wires if wire.kind == "input"}
    named_inputs = by_input(network, inputs)
    steps = None if t_end is None else _steps(t_end, dt)
    x, rounded, late, invalid = {}, {}, {}, jnp.asarray(False)
    for name, shape in shapes.items():
        if hasattr(named_inputs[name], "time"):
            if steps is None or dt is None:
                raise UsageError(
                    f"input '{name}' consists of events, which must be sorted into time steps",
                    fix=Text(
                        "pass {t_end}, and {dt} if the file does not specify it",
                        t_end=T_END.keyword,
                        dt=DT.keyword,
                    ),
                    node=name,
                )
            events = checked_input(name, named_inputs[name], shape, network.dtype)
            invalid |= out_of_range(events, math.prod(shape))
            sort = _held_in if isinstance(events, Currents) else _sorted_in
            by_step = partial(sort, steps=steps, dt=dt, shape=shape, dtype=network.dtype)
            sorted_in = by_compiler(by_step, events, samples=events.time, axis_of=_samples_axis)
            x[name], rounded[name], late[name] = sorted_in
        else:
            x[name] = _raster(name, named_inputs[name], shape, network.dtype)
    lengths = {name: array.shape[0] for name, array in x.items()}
    if steps is not None:
        lengths["t_end"] = steps
    batches = {name: array.shape[1] for name, array in x.items()}
    if len(set(lengths.values())) > 1:
        raise UsageError(
            f"the inputs have different numbers of time steps, {lengths}",
            fix="pass inputs with the same number of time steps",
        )
    refuse_different_batches(batches)
    currents = tuple(name for name in x if isinstance(named_inputs[name], Currents))
    return Rasters(x=x, rounded=rounded, late=late, invalid=invalid, currents=currents)


def _samples_axis(path: tuple[Any, ...], array: Any) -> int | None:
    """Return the batch axis of an array that `_sorted_in` returns; None for its counts."""
    del path
    return 1 if array.ndim else None


def _steps(t_end: float, dt: float | None) -> int:
    """Return the number of steps of a sample that ends at t_end, seconds."""
    if dt is None:
        raise UsageError(
            "the length of a time step is not specified",
            fix=Text(
                "pass {dt}, for example, or omit {t_end}",
                dt=DT.set_to(SECONDS["ms"]),
                t_end=T_END,
            ),
        )
    if isinstance(t_end, Tracer):
        raise UsageError(
            Text(
                "{t_end} is traced by JAX, and the number of time steps depends on it", t_end=T_END
            ),
            fix="pass a Python number, for example with functools.partial or static_argnums",
        )
    refuse_no_time(t_end, T_END)
    steps = round(float(t_end) / dt)
    if steps < 1:
        raise UsageError(
            Text(
                "{option} is {t_end:g} s, less than half a time step of {dt:g} s",
                option=T_END,
                t_end=float(t_end),
                dt=dt,
            ),
            fix=Text("pass a larger {t_end}", t_end=T_END),
        )
    if steps > _MOST_STEPS:
        raise UsageError(
            Text(
                "{option} is {t_end:g} s: {steps:.3g} time steps of {dt:g} s, and the largest number is "
                "{limit}",
                option=T_END,
                t_end=float(t_end),
                steps=float(steps),
                dt=dt,
                limit=_MOST_STEPS,
            ),
            fix=Text("pass a smaller {t_end} or a larger {dt}", t_end=T_END, dt=DT),
        )
    return steps


def rounded_end(t_end: float | None, dt: float | None) -> Iterator[str]:
    """Yield a note if t_end lies between two steps.

    Args:
        t_end, dt: seconds.
    """
    if t_end is None or dt is None:
        return
    exact, steps = float(t_end) / dt, _steps(t_end, dt)
    if abs(exact - steps) > OFF_GRID:
        yield Note(
            Text(
                "{option} is not a multiple of the time step, {dt}: the simulation ends at {end}, "
                "after {steps} steps",
                option=T_END.equal_to(format_time(float(t_end))),
                dt=format_time(dt),
                steps=steps,
                end=format_time(steps * dt),
            ),
            kind="approximated",
            code="rounded-end",
        )


def _raster(
    name: str, x: Any, shape: tuple[int, ...], dtype: Any
) -> Float[Array, "time batch *shape"]:
    """Return a checked input that is specified in steps, in the shape of its node."""
    refuse_no_array(x, f"input '{name}'", node=name)
    x_shape = jnp.shape(x)
    if len(x_shape) < 2 or x_shape[2:] != shape:
        expected = ", ".join(str(size) for size in ("time", "batch", *shape))
        raise UsageError(
            f"input '{name}' has shape {x_shape}",
            fix=f"pass an array of shape ({expected})",
            node=name,
        )
    if 0 in x_shape[:2]:
        raise UsageError(
            f"input '{name}' is empty: {x_shape[0]} time steps, {x_shape[1]} samples",
            fix="pass at least one time step and one sample",
            node=name,
        )
    return jnp.asarray(x, dtype)


def _sorted_in(
    events: Events | GradedEvents, steps: int, dt: float, shape: tuple[int, ...], dtype: Any
) -> tuple[Float[Array, "time batch *shape"], Int[Array, ""], Int[Array, ""]]:
    """Return counts (time, batch, *shape), for graded events sums of their values; the number of
    events that were moved, and the number left out.
    """
    time, index = events.time, events.index
    used = jnp.isfinite(time)
    exact = jnp.where(used, time, 0.0) / dt
    step = jnp.rint(exact)
    rounded = jnp.sum(used & (jnp.abs(step - exact) > OFF_GRID))
    late = jnp.sum(used & (step >= steps))
    # Events that are left out get the step after the last one, which is dropped.
    place = jnp.where(used, jnp.minimum(step, steps), steps).astype(jnp.int32)
    batch = time.shape[0]
    sample = jnp.broadcast_to(jnp.arange(batch)[:, None], time.shape)
    counts = jnp.zeros((steps, batch, math.prod(shape)), dtype)
    size = events.value if isinstance(events, GradedEvents) else 1
    counts = counts.at[place, sample, index].add(size, mode="drop")
    return counts.reshape(steps, batch, *shape), rounded, late


def _held_in(
    currents: Currents, steps: int, dt: float, shape: tuple[int, ...], dtype: Any
) -> tuple[Float[Array, "time batch *shape"], Int[Array, ""], Int[Array, ""]]:
    """Return the values (time, batch, *shape) of the piece that each step is in, the number of
    pieces that were moved to a step, and the number left out.
    """
    used = jnp.isfinite(currents.time)
    exact = jnp.where(used, currents.time, 0.0) / dt
    step = jnp.rint(exact)
    rounded = jnp.sum(used & (jnp.abs(step - exact) > OFF_GRID))
    late = late_events(currents, jnp.asarray(steps * dt, dtype))
    begins = jnp.where(used, step, steps).astype(jnp.int32)
    # The piece of a step is the last one that has begun; before the first piece the value is 0.
    find = partial(jnp.searchsorted, side="right")
    piece = jax.vmap(find, in_axes=(0, None))(begins, jnp.arange(steps, dtype=jnp.int32))
    before = jnp.zeros_like(currents.value[:, :1])
    values = jnp.concatenate([before, currents.value], axis=1)
    held = jnp.take_along_axis(values, piece[..., None], axis=1)
    return jnp.moveaxis(held, 1, 0).reshape(steps, -1, *shape), rounded, late
