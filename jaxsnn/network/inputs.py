"""Inputs of a simulation: events and currents, validated."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsnn.errors import Note, UsageError, suggestion
from jaxsnn.network.array_types import Array, Bool, Float, Int
from jaxsnn.network.network import Network
from jaxsnn.network.on_processor import as_array_of, module_for
from jaxsnn.network.reductions import any_in
from jaxsnn.network.spikes import Events
from jaxsnn.network.valued_inputs import (
    Currents,
    GradedEvents,
    Input,
    late_pieces,
    out_of_order,
    refuse_no_array,
)
from jaxsnn.options import DT, ENGINE
from jaxsnn.units import format_time
from jaxsnn.wording import Text


def checked_inputs(network: Network, inputs: Any) -> dict[str, Input]:
    """Return the checked inputs of the event engine: name -> Events or GradedEvents (batch,
    events), or Currents (batch, pieces), in the network's dtype.

    Raises:
        UsageError: inputs that do not fit the network, or each other.
    """
    inputs_by_name = by_input(network, inputs)
    trains = {
        name: checked_input(
            name, inputs_by_name[name], shape_of_input(network, name), network.dtype
        )
        for name in network.inputs
    }
    refuse_different_batches({name: events.time.shape[0] for name, events in trains.items()})
    return trains


def other_step_notes(network: Network, inputs: Any) -> Iterator[str]:
    """Yield a note for each input whose time step differs from that of the network.

    Args:
        inputs: checked inputs, by the name of the Input node, or a single one; those without `dt`
            were not created from time steps.
    """
    steps = {
        population.dt for population in network.populations.values() if population.dt is not None
    }
    if len(steps) != 1:
        return
    (dt,) = steps
    for name, signal in by_input(network, inputs).items():
        step = getattr(signal, "dt", None)
        if step is not None and not math.isclose(step, dt, rel_tol=2.0**-18):
            yield Note(
                Text(
                    "input '{name}' has time steps of {step}, the network of {dt}: input times "
                    "are scaled by {ratio:.4g}. Create the input with {option}",
                    name=name,
                    step=format_time(step),
                    dt=format_time(dt),
                    ratio=step / dt,
                    option=DT.set_to(dt),
                ),
                kind="assumed",
                code="step-length",
            )


def plain_events(inputs: Mapping[str, Any], who: str) -> dict[str, Events]:
    """Return inputs that are all plain spikes; refuse currents and graded events.

    Args:
        who: description of the function that uses the inputs, for messages.

    Raises:
        UsageError: currents, or events with values.
    """
    for name, input_signal in inputs.items():
        if isinstance(input_signal, Currents | GradedEvents):
            raise UsageError(
                Text(
                    "input '{input}' ({type}) is not supported: {who} supports only spikes",
                    input=name,
                    type=type(input_signal).__name__,
                    who=who,
                ),
                fix="encode the values as jaxsnn.Events",
                node=name,
            )
    return dict(inputs)


def by_input(network: Network, inputs: Any) -> dict[str, Any]:
    """Return inputs by the name of the Input node, whether specified as a mapping or alone.

    Raises:
        UsageError: an unknown or a missing input.
    """
    input_names = list(network.inputs)
    if not isinstance(inputs, Mapping):
        if len(input_names) != 1:
            raise UsageError(
                Text(
                    "the network has {count} inputs ({inputs})",
                    count=len(input_names),
                    inputs=", ".join(input_names),
                ),
                fix="pass a mapping from input names to data",
            )
        return {input_names[0]: inputs}
    for name in inputs:
        if name not in input_names:
            raise UsageError(
                Text("the network has no input '{input}'", input=name),
                fix=suggestion(name, input_names),
                node=name,
            )
    for name in input_names:
        if name not in inputs:
            raise UsageError(
                Text("input '{input}' has no data", input=name),
                fix=f"pass data for each of {', '.join(input_names)}",
                node=name,
            )
    return dict(inputs)


def refuse_different_batches(batches: dict[str, int]) -> None:
    """Refuse inputs with different numbers of samples."""
    if len(set(batches.values())) > 1:
        raise UsageError(
            Text("the inputs have different batch sizes {batches}", batches=batches),
            fix="pass the same batch size for all inputs",
        )


def refuse_other_axes(name: str, axes: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Refuse values with as many numbers as the input has channels, but with the axes in another order,
    such as images with the channels last: after flattening, their channels would be permuted. Values
    that are already flat are accepted.

    Args:
        axes: shape of the values of one sample.
        shape: shape of the input.

    Raises:
        UsageError: the axes are in another order; the message contains both shapes.

    >>> refuse_other_axes("input", (3072,), (3, 32, 32))
    """
    lengths = [
        set(itertools.accumulate(lengths_of_axes, operator.mul)) - {1}
        for lengths_of_axes in (axes, shape)
    ]
    # Joining adjacent axes only removes some of the cumulative products.
    if math.prod(axes) == math.prod(shape) and not (
        lengths[0] <= lengths[1] or lengths[1] <= lengths[0]
    ):
        raise UsageError(
            Text(
                "input '{input}' has shape {expected} per sample, but its values have shape "
                "{actual}",
                input=name,
                expected=tuple(shape),
                actual=tuple(axes),
            ),
            fix="reorder the axes (numpy.moveaxis), or flatten them in the order of the input",
            node=name,
        )


def shape_of_input(network: Network, name: str) -> tuple[int, ...]:
    """Return the shape of an input."""
    return next(wire.shape for wire in network.wires if wire.name == name)


def checked_input(name: str, input_signal: Any, shape: tuple[int, ...], dtype: Any) -> Input:
    """Check one input; return it with a batch axis, in the specified dtype.

    Args:
        shape: shape of the input.

    Raises:
        UsageError: neither events nor currents, or values that do not fit the input.
    """
    if isinstance(input_signal, Currents):
        return _checked_currents(name, input_signal, shape, dtype)
    events = checked_events(name, input_signal, math.prod(shape), dtype)
    if not isinstance(input_signal, GradedEvents):
        return events
    if jnp.shape(input_signal.value) != jnp.shape(input_signal.time):
        raise UsageError(
            Text(
                "input '{input}': value has shape {value_shape}, but time has shape {time_shape}",
                input=name,
                value_shape=jnp.shape(input_signal.value),
                time_shape=jnp.shape(input_signal.time),
            ),
            fix="pass one value for each event",
            node=name,
        )
    value = _as_rows(input_signal.value, dtype)
    # Values in unused slots have no effect: ignore invalid ones.
    kind = module_for(events.time, value)
    value = kind.where(kind.isfinite(events.time), value, kind.zeros((), dtype))
    _refuse_values(name, value)
    return GradedEvents(time=events.time, index=events.index, value=value)


def _checked_currents(
    name: str, currents: Currents, shape: tuple[int, ...], dtype: Any
) -> Currents:
    """Return checked currents (batch, pieces, channels)."""
    times, values = jnp.shape(currents.time), jnp.shape(currents.value)
    if len(times) not in (1, 2) or values[: len(times)] != times or 0 in times:
        raise UsageError(
            Text(
                "input '{input}': time has shape {time_shape}, and value has shape {value_shape}",
                input=name,
                time_shape=times,
                value_shape=values,
            ),
            fix="pass time of shape (batch, pieces) and value of shape (batch, pieces, channels), "
            "with at least one sample and one piece",
            node=name,
        )
    refuse_other_axes(name, values[len(times) :], shape)
    channels, size = math.prod(values[len(times) :]), math.prod(shape)
    if channels != size:
        raise UsageError(
            Text(
                "input '{input}' has {expected} channels, but the currents have {actual}",
                input=name,
                expected=size,
                actual=channels,
            ),
            fix=f"pass {size} values per piece, one per channel",
            node=name,
        )
    if not isinstance(currents.time, Tracer):
        time = np.asarray(currents.time)
        _refuse_times(name, time, dtype)
        if (back := time[..., 1:] < time[..., :-1]).any():
            raise UsageError(
                Text(
                    "input '{input}': a piece of the current starts before the previous one "
                    "({location})",
                    input=name,
                    location=_first(back),
                ),
                fix="sort the pieces by time, unused ones (inf) last",
                node=name,
            )
    time = _as_rows(currents.time, dtype)
    value = as_array_of(currents.value, dtype).reshape(*time.shape, size)
    kind = module_for(time, value)
    value = kind.where(kind.isfinite(time)[..., None], value, kind.zeros((), dtype))
    _refuse_values(name, value)
    # The times may have been replaced since `lasting` was set.
    lasting = currents.lasting and times[-1] == 1
    if not isinstance(time, Tracer):
        lasting = lasting and not np.asarray(time).any()
    return Currents(time=time, value=value, lasting=lasting)


def _refuse_values(name: str, value: Any) -> None:
    """Refuse values that are not finite."""
    if isinstance(value, Tracer):
        return
    numbers = np.asarray(value)
    if (bad := ~np.isfinite(numbers)).any():
        place = np.argwhere(bad)[0]
        raise UsageError(
            Text(
                "input '{input}' has the value {value:g} ({location})",
                input=name,
                value=numbers[tuple(place)],
                location=place_of(place[:2]),
            ),
            fix="pass finite values",
            node=name,
        )


def checked_events(name: str, events: Any, size: int, dtype: Any) -> Events:
    """Return the checked events of one input: arrays (batch, events).

    Args:
        size: number of channels.

    Raises:
        UsageError: not events, or events that do not fit the input.
    """
    if not (hasattr(events, "time") and hasattr(events, "index")):
        raise UsageError(
            Text("input '{input}' has type {type}", input=name, type=type(events).__name__),
            fix=Text(
                "pass jaxsnn.Events(time=..., index=...); for time-stepped data "
                "jaxsnn.Events.of_steps(x, dt) (spikes) or jaxsnn.Currents.held(x, dt) "
                "(currents); or simulate with {engine}",
                engine=ENGINE.set_to("grid"),
            ),
            node=name,
        )
    refuse_no_numbers(name, events)
    shapes = np.shape(events.time), np.shape(events.index)
    if shapes[0] != shapes[1] or len(shapes[0]) not in (1, 2):
        raise UsageError(
            Text(
                "input '{input}': time has shape {time_shape}, and index has shape {index_shape}",
                input=name,
                time_shape=shapes[0],
                index_shape=shapes[1],
            ),
            fix="pass both with the same shape, (events,) or (batch, events)",
            node=name,
        )
    if 0 in shapes[0][:-1]:
        raise UsageError(
            Text(
                "input '{input}' has no samples (time has shape {shape})",
                input=name,
                shape=shapes[0],
            ),
            fix="pass at least one sample",
            node=name,
        )
    if not isinstance(events.time, Tracer):
        if isinstance(events.index, Tracer):
            _refuse_times(name, np.asarray(events.time), dtype)
        else:
            time, index = np.asarray(events.time), np.asarray(events.index)
            refuse_bad_events(name, time, index, size, dtype)
    return Events(time=_as_rows(events.time, dtype), index=_as_channels(events.index))


def refuse_no_numbers(name: str, events: Any) -> None:
    """Refuse rows of different lengths, text, and anything else that is not real numbers.

    Args:
        events: object with arrays `time`, `index`, and optionally `value`.

    Raises:
        UsageError: an array does not consist of real numbers; the message names it.
    """
    ways = {
        "shorter": "pad shorter rows: time with inf, index with the number of channels",
        "numbers": "pass numbers; times are in seconds",
    }
    for key in ("time", "index", "value"):
        refuse_no_array(getattr(events, key, 0), f"input '{name}': {key}", node=name, **ways)


def _as_rows(array: Any, dtype: Any) -> Any:
    """Return an array of the specified dtype with a batch axis; NumPy's, if that avoids a
    compilation.
    """
    rows = as_array_of(array, dtype)
    return rows if rows.ndim == 2 else module_for(rows).atleast_2d(rows)


def _as_channels(index: Any) -> Any:
    """Return channels as rows of int32: -1, which is not a channel, for a value that is not an integer
    or does not fit. For traced values this is only seen in the run.
    """
    kind = module_for(index)
    channels = kind.asarray(index)
    if channels.dtype.kind == "b" or kind.can_cast(channels.dtype, np.int32):
        return _as_rows(channels, np.int32)
    is_channel = (
        (channels == kind.rint(channels)) & (channels >= 0) & (channels < np.float32(2**31))
    )
    return _as_rows(kind.where(is_channel, channels, kind.full((), -1, np.int32)), np.int32)


def refuse_bad_events(
    name: str, time: np.ndarray, index: np.ndarray, size: int, dtype: Any
) -> None:
    """Refuse events of an input with an invalid time or channel.

    Args:
        size: number of channels.
        dtype: dtype of the times in the simulation.

    Raises:
        UsageError: an event is invalid; the message contains the first.
    """
    _refuse_times(name, time, dtype)
    are_channels = (
        index.dtype.kind in "iu" and index.size and 0 <= index.min() <= index.max() <= size
    )
    if are_channels and not _is_used(time, index, size):
        return  # the usual case, faster than a copy of the used slots
    _refuse_channels(name, index, np.isfinite(time), size)


def _is_used(time: np.ndarray, index: np.ndarray, channel: int) -> bool:
    """Return whether a channel has an event. Blocks of slots keep the arrays small."""
    block = 2**16
    time, index = np.broadcast_arrays(time, index)
    parts = ((..., slice(first, first + block)) for first in range(0, time.shape[-1], block))
    return any(np.isfinite(time[part][index[part] == channel]).any() for part in parts)


def _refuse_times(name: str, time: np.ndarray, dtype: Any) -> None:
    """Refuse times that are NaN, negative, or beyond the range of the dtype: larger finite ones would
    become inf, the mark of unused slots, and smaller ones 0, without a note.
    """
    earliest, latest = np.finfo(dtype).tiny, np.finfo(dtype).max
    if time.size:
        first, last = time.min(), time.max()  # NaN if there is one
        is_narrow = np.dtype(time.dtype).itemsize <= np.dtype(dtype).itemsize
        if first >= earliest and (last <= latest or (last == np.inf and is_narrow)):
            return  # the usual case, faster than marking all events
    is_small = (time < earliest) & (time != 0)
    bad = np.isnan(time) | is_small | (np.isfinite(time) & (time > latest))
    if bad.any():
        raise UsageError(
            Text(
                "input '{input}' has an event at time {time:g} s ({location})",
                input=name,
                time=time[bad].flat[0],
                location=_first(bad),
            ),
            fix=f"pass 0, or times from {earliest:.2g} to {latest:.2g} s (inf in unused slots)",
            node=name,
        )


def _first(bad: np.ndarray) -> str:
    """Return the place of the first marked event."""
    return place_of(np.argwhere(bad)[0])


def _refuse_channels(name: str, index: np.ndarray, used: np.ndarray, size: int) -> None:
    """Refuse channels that are not integers, and used channels that the input does not have."""
    broken = np.zeros(index.shape, bool)
    if index.dtype.kind == "f":  # unused slots may contain NaN
        broken = (index != np.rint(index)) & (used | ~np.isnan(index))
    if broken.any():
        worst = index[broken].flat[0]
        raise UsageError(
            Text(
                "input '{input}': an event has channel {channel:g} ({location})",
                input=name,
                channel=worst,
                location=_first(broken),
            ),
            fix="pass integers as channels",
            node=name,
        )
    named = index[used]
    if named.size and (named.min() < 0 or named.max() >= size):
        worst = named.min() if named.min() < 0 else named.max()
        location = _first(used & (index == worst))
        raise UsageError(
            Text(
                "input '{input}' has {size} channels (0 to {maximum}), but an event has channel "
                "{channel} ({location})",
                input=name,
                size=size,
                maximum=size - 1,
                channel=worst,
                location=location,
            ),
            fix=f"pass channels from 0 to {size - 1}",
            node=name,
        )


def place_of(place: np.ndarray) -> str:
    """Return the sample and slot of an event as text, from its indices (slot,) or (sample,
    slot).
    """
    sample, slot = place if len(place) == 2 else (0, place[0])
    return f"sample {sample}, slot {slot}"


def out_of_range(events: Input, size: int) -> Bool[Array, ""]:
    """Return whether an event has an invalid time or channel, which `checked_inputs` cannot detect
    inside `jax.jit`.
    """
    if isinstance(events, Currents):
        return out_of_order(events)
    used = jnp.isfinite(events.time)
    return any_in((events.time < 0) | used & ((events.index < 0) | (events.index >= size)))


def late_events(events: Input, t_end: Float[Array, ""]) -> Int[Array, ""]:
    """Return the number of events at or after the end of the simulation; for currents, of pieces
    that are not 0.
    """
    if isinstance(events, Currents):
        return late_pieces(events, t_end)
    return jnp.sum(jnp.isfinite(events.time) & (events.time >= t_end))
