"""What goes into a simulation: events; for the time-stepped engine arrays in time, or events that
are sorted into steps.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsnn.errors import UsageError, suggestion
from jaxsnn.network.network import Network
from jaxsnn.network.reductions import any_in
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

    x: dict[str, jax.Array]
    rounded: dict[str, jax.Array]
    late: dict[str, jax.Array]
    invalid: jax.Array


def checked_inputs(network: Network, inputs: Any) -> dict[str, Events]:
    """Checked inputs of the event engine: name -> Events (batch, events) in the network's dtype.

    Raises:
        UsageError: inputs that do not fit the network, or each other.
    """
    given = by_input(network, inputs)
    trains = {
        name: _train(name, given[name], size, network.dtype)
        for name, size in network.inputs.items()
    }
    _refuse_different({name: events.time.shape[0] for name, events in trains.items()})
    return trains


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
            events = _train(name, given[name], math.prod(shape), network.dtype)
            invalid |= out_of_range(events, math.prod(shape))
            x[name], rounded[name], late[name] = _sorted_in(events, steps, dt, shape, network.dtype)
        else:
            x[name] = _raster(name, given[name], shape, network.dtype)
    lengths = {name: array.shape[0] for name, array in x.items()} | (
        {} if steps is None else {"t_end": steps}
    )
    batches = {name: array.shape[1] for name, array in x.items()}
    if len(set(lengths.values())) > 1:
        raise UsageError(f"inputs of different lengths, in steps {lengths}", fix="make them equal")
    _refuse_different(batches)
    return Rasters(x=x, rounded=rounded, late=late, invalid=invalid)


def by_input(network: Network, inputs: Any) -> dict[str, Any]:
    """Inputs by the name of the Input node, whether given as a mapping or alone.

    Raises:
        UsageError: an input too many, or one that lacks.
    """
    names = list(network.inputs)
    if not isinstance(inputs, Mapping):
        if len(names) != 1:
            raise UsageError(
                f"the network has {len(names)} inputs ({', '.join(names)})",
                fix="pass a mapping from their names",
            )
        return {names[0]: inputs}
    for name in inputs:
        if name not in names:
            raise UsageError(
                f"the network has no input '{name}'", fix=suggestion(name, names), node=name
            )
    for name in names:
        if name not in inputs:
            raise UsageError(
                f"nothing is given for input '{name}'",
                fix=f"pass something for each of {', '.join(names)}",
                node=name,
            )
    return dict(inputs)


def _refuse_different(batches: dict[str, int]) -> None:
    if len(set(batches.values())) > 1:
        raise UsageError(
            f"the inputs have different batch sizes {batches}", fix="use one size for all"
        )


def _train(name, events, size, dtype):
    if not (hasattr(events, "time") and hasattr(events, "index")):
        raise UsageError(
            f"input '{name}' is a {type(events).__name__}",
            fix="pass jaxsnn.Events(time=..., index=...)",
            node=name,
        )
    shapes = jnp.shape(events.time), jnp.shape(events.index)
    if shapes[0] != shapes[1] or len(shapes[0]) not in (1, 2):
        raise UsageError(
            f"input '{name}': time has shape {shapes[0]} and index {shapes[1]}",
            fix="give both the shape (events,) or (batch, events)",
            node=name,
        )
    if 0 in shapes[0][:-1]:
        raise UsageError(
            f"input '{name}' has no samples (time has shape {shapes[0]})",
            fix="pass at least one",
            node=name,
        )
    if not isinstance(events.time, Tracer):
        time = np.asarray(events.time)
        _refuse_times(name, time)
        if not isinstance(events.index, Tracer):
            _refuse_channels(name, np.asarray(events.index), np.isfinite(time), size)
    time = jnp.asarray(events.time, dtype)
    return Events(
        time=jnp.atleast_2d(time), index=jnp.atleast_2d(jnp.asarray(events.index, jnp.int32))
    )


def _refuse_times(name: str, time: np.ndarray) -> None:
    """Refuse times that are NaN or negative."""
    bad = np.isnan(time) | (time < 0)
    if bad.any():
        raise UsageError(
            f"input '{name}' has an event at time {time[bad].flat[0]:g} s",
            fix="give times of at least 0 s (inf: no event)",
            node=name,
        )


def _refuse_channels(name: str, index: np.ndarray, used: np.ndarray, size: int) -> None:
    """Refuse channels that are no whole numbers, and used ones that the input lacks."""
    if index.dtype.kind == "f" and not np.array_equal(index, np.rint(index), equal_nan=True):
        worst = index[index != np.rint(index)].flat[0]
        raise UsageError(
            f"input '{name}': an event names channel {worst:g}",
            fix="number channels by whole numbers",
            node=name,
        )
    named = index[used]
    if named.size and (named.min() < 0 or named.max() >= size):
        worst = named.min() if named.min() < 0 else named.max()
        raise UsageError(
            f"input '{name}' has {size} channels (0 to {size - 1}), an event names channel {worst}",
            fix=f"name channels from 0 to {size - 1}",
            node=name,
        )


def out_of_range(events, size):
    """Whether some event has no place in the simulation: what `checked_inputs` cannot see inside
    `jax.jit`.
    """
    used = jnp.isfinite(events.time)
    return any_in((events.time < 0) | used & ((events.index < 0) | (events.index >= size)))


def late_events(events, t_end):
    """Number of events at or after the end of the simulation."""
    return jnp.sum(jnp.isfinite(events.time) & (events.time >= t_end))


def _steps(t_end: float, dt: float | None) -> int:
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


def _raster(name: str, x: Any, shape: tuple[int, ...], dtype: Any) -> jax.Array:
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


def _sorted_in(events: Events, steps: int, dt: float, shape: tuple[int, ...], dtype: Any):
    """Counts (time, batch, *shape), how many events were moved, and how many left out."""
    time, index = events.time, events.index
    used = jnp.isfinite(time)
    exact = jnp.where(used, time, 0.0) / dt
    step = jnp.rint(exact)
    rounded = jnp.sum(used & (jnp.abs(step - exact) > OFF_GRID))
    late = jnp.sum(used & (step >= steps))
    place = jnp.where(used, jnp.minimum(step, steps), steps).astype(jnp.int32)
    sample = jnp.broadcast_to(jnp.arange(len(time))[:, None], time.shape)
    counts = (
        jnp.zeros((steps, len(time), math.prod(shape)), dtype)
        .at[place, sample, index]
        .add(1, mode="drop")
    )
    return counts.reshape(steps, len(time), *shape), rounded, late
