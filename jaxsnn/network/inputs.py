"""What goes into a simulation: events, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from jaxsnn.errors import UsageError, suggestion
from jaxsnn.network.network import Network
from jaxsnn.network.reductions import any_in
from jaxsnn.network.spikes import Events


def checked_inputs(network: Network, inputs: Any) -> dict[str, Events]:
    """Checked inputs of the event engine: name -> Events (batch, events) in the network's dtype.

    Raises:
        UsageError: inputs that do not fit the network, or each other.
    """
    given = by_input(network, inputs)
    trains = {
        name: checked_events(name, given[name], size, network.dtype)
        for name, size in network.inputs.items()
    }
    refuse_different_batches({name: events.time.shape[0] for name, events in trains.items()})
    return trains


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


def refuse_different_batches(batches: dict[str, int]) -> None:
    """Refuse inputs with different numbers of samples."""
    if len(set(batches.values())) > 1:
        raise UsageError(
            f"the inputs have different batch sizes {batches}", fix="use one size for all"
        )


def checked_events(name: str, events: Any, size: int, dtype: Any) -> Events:
    """Checked events of one input: arrays (batch, events).

    Args:
        size: number of channels.

    Raises:
        UsageError: what are no events, or some that do not fit the input.
    """
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
            f"input '{name}' has an event at time {time[bad].flat[0]:g} s ({_first(bad)})",
            fix="give times of at least 0 s (inf: no event)",
            node=name,
        )


def _first(bad: np.ndarray) -> str:
    """Where the first of some events is."""
    return place_of(np.argwhere(bad)[0])


def _refuse_channels(name: str, index: np.ndarray, used: np.ndarray, size: int) -> None:
    """Refuse channels that are no whole numbers, and used ones that the input lacks."""
    if index.dtype.kind == "f" and not np.array_equal(index, np.rint(index), equal_nan=True):
        broken = index != np.rint(index)
        worst = index[broken].flat[0]
        raise UsageError(
            f"input '{name}': an event names channel {worst:g} ({_first(broken)})",
            fix="number channels by whole numbers",
            node=name,
        )
    named = index[used]
    if named.size and (named.min() < 0 or named.max() >= size):
        worst = named.min() if named.min() < 0 else named.max()
        where = _first(used & (index == worst))
        raise UsageError(
            f"input '{name}' has {size} channels (0 to {size - 1}), an event names channel {worst}"
            f" ({where})",
            fix=f"name channels from 0 to {size - 1}",
            node=name,
        )


def place_of(place: np.ndarray) -> str:
    """Sample and slot of an event, by its indices (slot,) or (sample, slot)."""
    sample, slot = place if len(place) == 2 else (0, place[0])
    return f"sample {sample}, slot {slot}"


def out_of_range(events: Events, size: int) -> Bool[Array, ""]:
    """Whether some event has no place in the simulation: what `checked_inputs` cannot see inside
    `jax.jit`.
    """
    used = jnp.isfinite(events.time)
    return any_in((events.time < 0) | used & ((events.index < 0) | (events.index >= size)))


def late_events(events: Events, t_end: Float[Array, ""]) -> Int[Array, ""]:
    """Number of events at or after the end of the simulation."""
    return jnp.sum(jnp.isfinite(events.time) & (events.time >= t_end))
