"""Arrivals at a population: the events of all its sources, as lists from which the scans read.

An event is a spike of a source (time, channel). An arrival is the effect of an event on the neurons
of the population: a time, and a row of a table of weights. Two cases differ:

- Dense connections. Each event reaches all neurons through one row of weights, so that all neurons
  share one list of arrivals.
- Convolutions, pools and synapses with individual delays. Neurons are grouped by position (an
  output pixel of a convolution); the neurons at one position, one for each column of the table,
  share a list. An event reaches some positions, each through another row. The cost grows with the
  number of events times the number of positions that an event reaches, not with the layer's size.

    source events        e0    e1     e2        time, channel (batch, events)
    dense                x     x      x         time, row (batch, arrivals)
    position 0           x            x         time, row (batch * positions, arrivals),
    position 1           x     x                  each list sorted by time, padded with inf
    position 2                 x      x
                                                weight (rows, columns); dense (rows, neurons)

Neuron n * positions + p is column n at position p, unless `Arrivals.order` permutes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from jaxsnn.event.event_arrays import Rows, Times
from jaxsnn.network.array_types import Array, Bool, Float, Int, Shaped
from jaxsnn.network.lookups import gather_along
from jaxsnn.network.operators import Operator, added, as_matrix, group_by_source, one_column
from jaxsnn.network.reductions import greatest
from jaxsnn.network.sorting import places_in, sorted_rows, sorted_times
from jaxsnn.network.structure import Wire


class Train(NamedTuple):
    """Events of one source."""

    time: Float[Array, "batch events"]  # seconds, inf where unused
    channel: Int[Array, "*batch events"]  # one list for all samples or one for each
    in_order: bool = False
    #: size of each event; None where all sizes are 1
    value: Float[Array, "batch events"] | None = None


class Scattered(NamedTuple):
    """Events in the order of time, and the positions that those of each channel reach, from which
    the lists of the positions are built.
    """

    time: Float[Array, "batch events"]  # seconds, inf where unused
    channel: Int[Array, "batch events"]  # row of `place` and `row`
    place: np.ndarray  # (channels, taps); the number of positions: no target
    row: np.ndarray  # (channels, taps)


#: A source, and the operator between it and the target.
Path = tuple[str, Operator]
#: Permutation of channels: channel k has the number order[k] in the layout by columns and
#: positions.
Order = np.ndarray | None


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """Arrivals at a population, in the form that `adjoint.layer_spikes` takes.

    Attributes:
        weight: (rows, columns), as in the file: without the neurons' arrival factor.
        time: (batch * positions, arrivals) seconds; inf where unused.
        row: (arrivals,) or (batch * positions, arrivals).
        positions: number of positions; channel n * positions + p is column n at position p.
        order: permutation of the channels: channel k has the index order[k] in the numbering of
            `positions`; None: no permutation.
        in_order: whether the arrivals are sorted by time.
        needed: largest number of arrivals at a position, scalar int; budget: number of slots.
        scattered: the same arrivals as events, if positions have separate lists without delays.
    """

    weight: Float[Array, "rows columns"]
    time: Times
    row: Rows
    positions: int = 1
    order: Order = None
    in_order: bool = False
    needed: Int[Array, ""] | int = 0
    budget: int = 0
    scattered: Scattered | None = None

    def by_position(self, values: Float[Array, "neurons"]) -> Float[Array, "..."]:
        """Return values of the neurons as (positions, columns); at one position (neurons,)."""
        if self.positions == 1:
            return values
        if self.order is not None:
            values = values[np.argsort(self.order)]
        # a channel has the number n * positions + p: its column n is the slow axis
        return values.reshape(-1, self.positions).T

    def neurons(
        self, values: Shaped[Array, "rows columns ..."]
    ) -> Shaped[Array, "batch neurons ..."]:
        """Return values of the columns (batch * positions, columns, ...) as (batch, neurons,
        ...).
        """
        if self.positions == 1:
            return values
        # (batch * positions, columns) -> (batch, columns, positions) -> (batch, columns *
        # positions)
        rows, columns, *rest = values.shape  # no -1 in reshape: arrays may be empty
        batch = rows // self.positions
        values = values.reshape(batch, self.positions, columns, *rest).swapaxes(1, 2)
        return self.ordered(values.reshape(batch, columns * self.positions, *rest))

    def ordered(
        self, values: Shaped[Array, "batch neurons ..."]
    ) -> Shaped[Array, "batch neurons ..."]:
        """Reorder values of the channels to the order of the neurons."""
        return values if self.order is None else values[:, self.order]


def arrivals(
    paths: Sequence[Path],
    trains: Mapping[str, Train],
    size: int,
    dtype: DTypeLike,
    budget: int | None = None,
) -> Arrivals:
    """Return all arrivals at a population of a size.

    Args:
        paths: pairs (source, `Operator`).
        trains: source -> `Train`.
        budget: number of arrival slots at one position, if positions have separate lists; None:
            chosen from the mean.
    """
    batch = next(iter(trains.values())).time.shape[0]
    if not paths:  # driven by its bias alone
        return Arrivals(
            weight=jnp.zeros((1, size), dtype),
            time=jnp.full((batch, 1), jnp.inf, dtype),
            row=jnp.zeros(1, jnp.int32),
            in_order=True,
        )
    operators = [operator for _, operator in paths]
    if all(map(_is_list, operators)) and not all(operator.is_identity for operator in operators):
        return _listed(_one_list_each(paths, dtype), trains, dtype)
    return _gathered(paths, trains, size, dtype, budget)


def _is_list(operator: Operator) -> bool:
    """Return whether each source channel reaches all neurons at once, through at most one row."""
    source, _, _ = operator.entries()
    return operator.positions == 1 and len(np.unique(source)) == len(source)


def _one_list_each(paths: Sequence[Path], dtype: DTypeLike) -> Sequence[Path]:
    """Sum the paths from one source with the same delays, all of which are lists, so that an event
    acts once.
    """
    lists = []
    # Only matrices can be added up: several operators from one source are converted.
    for source, same in group_by_source(paths, lambda operator: operator.row_delay is None):
        lists += [
            (source, operator if len(same) == 1 else as_matrix(operator, dtype))
            for operator in same
        ]
    return added(lists, dtype)


def _listed(paths: Sequence[Path], trains: Mapping[str, Train], dtype: DTypeLike) -> Arrivals:
    """Return one list of arrivals for all neurons."""
    weights, times, rows, offset = [], [], [], 0
    for source, operator in paths:
        weight = operator.rows(dtype)
        weight = weight if operator.order is None else weight[:, operator.order]
        time, channel = trains[source].time, trains[source].channel
        row = channel
        if operator.source is not None:
            to_row, weight = _row_of_channel(operator, weight)
            row = to_row.at[channel].get(mode="clip")
        if operator.delay is not None:
            time = time + operator.delay.at[channel].get(mode="clip")
        if operator.row_delay is not None:
            time = time + jnp.pad(operator.row_delay, (0, 1)).at[row].get(mode="clip")
        if (value := trains[source].value) is not None:
            weight, row = _sized(value, weight, row)
        # The tables of all paths are stacked: add the number of rows above.
        weights.append(weight)
        times.append(time)
        rows.append(row + offset)
        offset += weight.shape[0]
    if any(row.ndim > 1 for row in rows):
        rows = [jnp.broadcast_to(row, time.shape) for row, time in zip(rows, times, strict=True)]
    source, operator = paths[0]
    # Concatenated lists are not sorted, nor is a list whose channels have delays.
    alone = len(paths) == 1 and operator.delay is None and operator.row_delay is None
    return Arrivals(
        weight=jnp.concatenate(weights),
        time=jnp.concatenate(times, axis=1),
        row=jnp.concatenate(rows, axis=-1),
        in_order=alone and trains[source].in_order,
    )


def _sized(
    value: Float[Array, "batch events"],
    weight: Float[Array, "rows columns"],
    row: Int[Array, "*batch events"],
) -> tuple[Float[Array, "events columns"], Int[Array, "batch events"]]:
    """Multiply weights by the sizes of events: each event gets a separate row, numbered in
    order.
    """
    row = jnp.broadcast_to(row, value.shape)
    sized = value[..., None] * weight.at[row].get(mode="clip")
    event_rows = jnp.arange(value.size, dtype=jnp.int32).reshape(value.shape)
    return sized.reshape(value.size, weight.shape[1]), event_rows


def _row_of_channel(
    operator: Operator, weight: Float[Array, "rows columns"]
) -> tuple[Int[Array, "channels"], Float[Array, "rows columns"]]:
    """Return the row of each source channel of a list, and the weights, with an additional row of
    zeros if some channels have no target.
    """
    entering, _, row = operator.entries()
    if len(entering) < operator.inward:
        weight = jnp.pad(weight, ((0, 1), (0, 0)))
    to_row = np.full(operator.inward, weight.shape[0] - 1)
    to_row[entering] = row
    return jnp.asarray(to_row, jnp.int32), weight


class _Taps(NamedTuple):
    """Positions at which events arrive, each through some taps; arrays (batch, events, taps)."""

    time: Float[Array, "batch events"]  # of the event, plus the delay of its source
    place: Int[Array, "batch events taps"]  # the position; the number of positions where unused
    row: Int[Array, "batch events taps"]
    row_delay: Float[Array, "rows"] | None


class _Lists(NamedTuple):
    """List of arrivals for each position."""

    time: Float[Array, "lists arrivals"]  # lists: (batch * positions)
    row: Int[Array, "lists arrivals"]
    needed: Int[Array, ""]  # largest number of arrivals at one position
    budget: int  # number of slots, 0 if it always suffices


def _gathered(
    paths: Sequence[Path],
    trains: Mapping[str, Train],
    size: int,
    dtype: DTypeLike,
    budget: int | None,
) -> Arrivals:
    """Return a list of arrivals for each position."""
    layout = _layout([operator for _, operator in paths], size)
    positions = layout.positions
    paths = [(source, _laid_out(operator, layout, dtype)) for source, operator in paths]
    operators, sources = [], []
    for source, same in group_by_source(paths, lambda operator: operator.row_delay is None):
        operators.append(same[0] if same[0].row_delay is not None else _acting_once(same))
        sources.append(trains[source])
    table, row_delay = _table(operators, dtype)
    time, channel, in_order, value = _events(operators, sources)
    place, row = (jnp.asarray(array)[channel] for array in table)
    weight = jnp.concatenate([operator.weight for operator in operators])
    if value is not None:
        # Each tap of an event gets a separate row, with its delay.
        late, every = row_delay, jnp.broadcast_to(value[..., None], row.shape)
        row_delay = None if late is None else late[row].reshape(-1)
        flat = row.reshape(len(row), -1)
        weight, event_rows = _sized(every.reshape(flat.shape), weight, flat)
        row = event_rows.reshape(row.shape)
    taps = _Taps(time, place, row, row_delay)
    # leave out the last channel, which unused slots have, and whose taps have no target
    used = np.sort(table.position[:-1], axis=1)
    if used.shape[1] == positions and (used == np.arange(positions)).all():
        in_turn = bool((table.position[:-1] == np.arange(positions)).all())
        lists = _everywhere(taps, in_turn, dtype)
    else:
        lists = _found_by_position(taps, positions, budget)
    # `Scattered` does not cover delays of rows (the arrivals at a position are not in the order of
    # the events), events with values (their rows do not follow from their channels) and a single
    # position (its arrays have no axis of positions).
    scattered = None
    if row_delay is None and value is None and positions > 1:
        scattered = Scattered(time, channel, table.position, table.row)
    return Arrivals(
        weight=weight,
        time=lists.time,
        row=lists.row.astype(jnp.int32),
        positions=positions,
        order=layout.order,
        in_order=in_order and row_delay is None,
        needed=lists.needed,
        budget=lists.budget,
        scattered=scattered if in_order else None,
    )


def _everywhere(taps: _Taps, in_turn: bool, dtype: DTypeLike) -> _Lists:
    """Return the lists for events that each reach every position, without a search.

    Args:
        in_turn: whether tap k leads to position k.
    """
    batch, events, positions = taps.place.shape
    late = 0.0 if taps.row_delay is None else taps.row_delay[taps.row]
    times, row = taps.time[:, :, None] + late + jnp.zeros((1, 1, positions), dtype), taps.row
    if not in_turn:
        by_position = jnp.argsort(taps.place, axis=2)
        times, row = (gather_along(array, by_position, 2) for array in (times, row))
    # (batch, events, positions) -> (batch * positions, events)
    times, row = (array.swapaxes(1, 2).reshape(batch * positions, events) for array in (times, row))
    return _Lists(times, row, needed=jnp.int32(0), budget=0)


def _found_by_position(taps: _Taps, positions: int, budget: int | None) -> _Lists:
    """Return the lists for events that reach some positions.

    Args:
        budget: see `arrivals`.
    """
    batch, events, count = taps.place.shape
    if budget is None:
        # four times the mean, for the busiest position, but at most all entries
        mean = -(-events * count // positions)
        budget = min(events * count, 4 * mean + 32)
    entry, used, needed = _by_position(taps.place, positions, budget)
    # entry = event * count + tap
    times = gather_along(taps.time, lax.div(entry, jnp.int32(count)), axis=1)
    row = gather_along(taps.row.reshape(batch, -1), entry, axis=1)
    times = times if taps.row_delay is None else times + taps.row_delay[row]
    times = jnp.where(used, times, jnp.inf).reshape(batch * positions, -1)
    return _Lists(times, row.reshape(batch * positions, -1), needed, budget)


class _Layout(NamedTuple):
    """Layout of the channels: channel n * positions + p is column n at position p, before
    `order`.
    """

    positions: int
    columns: int
    order: Order


def _layout(operators: Sequence[Operator], size: int) -> _Layout:
    """Return the common layout of all operators."""
    # Identities, pools and lists fit every layout: see `_laid_out`.
    convolutions = [
        operator
        for operator in operators
        if not (operator.is_identity or operator.is_pool or _is_list(operator))
    ]
    if convolutions:
        first = convolutions[0]
        shape = first.positions, first.columns
        if all(
            (convolution.positions, convolution.columns) == shape
            and _same(convolution.order, first.order)
            for convolution in convolutions
        ):
            return _Layout(first.positions, first.columns, first.order)
    # Convolutions of different shapes: each channel is a separate position.
    return _Layout(size, 1, None)


def _same(order: Order, reference: Order) -> bool:
    """Return whether two orders of channels are equal."""
    if order is None or reference is None:
        return order is reference
    return order is reference or np.array_equal(order, reference)


def _laid_out(operator: Operator, layout: _Layout, dtype: DTypeLike) -> Operator:
    """Return an operator in another layout."""
    positions, columns, order = layout
    shape = operator.positions, operator.columns
    is_unchanged = shape == (positions, columns) and not operator.is_identity
    if is_unchanged and operator.source is not None and _same(operator.order, order):
        return operator
    channel_place = np.arange(positions * columns) if order is None else order
    if columns == 1 or operator.is_identity or operator.is_pool:
        return _laid_out_single(operator, layout, channel_place, dtype)
    return _laid_out_list(operator, layout, channel_place, dtype)


def _laid_out_single(
    operator: Operator, layout: _Layout, channel_place: np.ndarray, dtype: DTypeLike
) -> Operator:
    """Return an operator that needs only one column, in another layout.

    Args:
        channel_place: column * positions + position of each channel.
    """
    positions, columns, order = layout
    wire = Wire(name="fan-in", kind="Linear", sources=(), shape=(positions * columns,))
    single = one_column(wire, operator, dtype)
    channel = single.position if single.order is None else np.argsort(single.order)[single.position]
    if columns == 1:
        return replace(single, position=channel_place[channel], order=order)
    # The identity and pools have a single weight w: row n of w I acts only on column n.
    column, position = np.divmod(channel_place[channel], positions)
    return replace(
        single,
        **layout._asdict(),
        position=position,
        row=column,
        weight=single.weight[0, 0] * jnp.eye(columns, dtype=dtype),
    )


def _laid_out_list(
    operator: Operator, layout: _Layout, channel_place: np.ndarray, dtype: DTypeLike
) -> Operator:
    """Return a list in another layout: row r becomes the rows r * positions + p, one at each
    position.

    Args:
        channel_place: column * positions + position of each channel.
    """
    positions, columns, _ = layout
    source, _, row = operator.entries()
    weight = operator.rows(dtype)
    weight = weight if operator.order is None else weight[:, operator.order]
    # (rows, channels) -> (rows, columns, positions) -> (rows * positions, columns)
    weight = weight[:, np.argsort(channel_place)].reshape(-1, columns, positions)
    weight = weight.swapaxes(1, 2).reshape(-1, columns)
    every = np.arange(positions)
    return replace(
        operator,
        **layout._asdict(),
        source=np.repeat(source, positions),
        position=np.tile(every, len(source)),
        row=(row[:, None] * positions + every).reshape(-1),
        weight=weight,
        row_delay=None if operator.row_delay is None else jnp.repeat(operator.row_delay, positions),
    )


def _acting_once(operators: Sequence[Operator]) -> Operator:
    """Merge operators from one source with the same delays, so that an event reaches each position
    once.

    The weights of several taps or paths to the same position are added up beforehand. Otherwise a
    neuron whose V they move one after the other could fire before all of them have arrived.
    """
    count, offset = 0, []
    for operator in operators:
        offset.append(count)
        count += operator.weight.shape[0]
    every = [operator.entries() for operator in operators]
    source, position = (np.concatenate([entries[axis] for entries in every]) for axis in (0, 1))
    row = np.concatenate([entries[2] + first for entries, first in zip(every, offset, strict=True)])
    weight = jnp.concatenate([operator.weight for operator in operators])
    # Sort entries so that those with the same source channel and position, a pair, are adjacent.
    order = np.lexsort((row, position, source))
    source, position, row = source[order], position[order], row[order]
    new = np.ones(len(source), bool)
    new[1:] = (source[1:] != source[:-1]) | (position[1:] != position[:-1])
    if not new.all():
        # rows: (pairs, rows of a pair), padded with row `count`, which is zero. Pairs with the same
        # rows share one sum.
        start, pair = np.flatnonzero(new), np.cumsum(new) - 1
        rows = np.full((len(start), np.bincount(pair).max()), count)
        rows[pair, np.arange(len(row)) - start[pair]] = row
        rows, row = np.unique(rows, axis=0, return_inverse=True)
        source, position, row = source[start], position[start], row.reshape(-1)
        weight = jnp.sum(jnp.pad(weight, ((0, 1), (0, 0)))[rows], axis=1)
    return replace(operators[0], source=source, position=position, row=row, weight=weight)


class _Table(NamedTuple):
    """Targets of the events of each source channel: (channels + 1, taps), the last row for unused
    slots; padded.
    """

    position: np.ndarray
    row: np.ndarray


def _table(
    operators: Sequence[Operator], dtype: DTypeLike
) -> tuple[_Table, Float[Array, "rows"] | None]:
    """Return the table of all operators' source channels one after the other, and the delays of the
    rows.
    """
    channels, places, rows, delays = [], [], [], []
    offset, first = 0, 0  # numbers of the operator's first channel and row
    for operator in operators:
        source, position, row = operator.entries()
        count = operator.weight.shape[0]
        channels.append(source + offset)
        places.append(position)
        rows.append(row + first)
        delays.append(jnp.zeros(count, dtype) if operator.row_delay is None else operator.row_delay)
        offset, first = offset + operator.inward, first + count
    channel, place, row = map(np.concatenate, (channels, places, rows))
    # Sort entries by channel: the n-th entry of a channel is its tap n.
    by_channel = np.lexsort((place, channel))
    channel, place, row = channel[by_channel], place[by_channel], row[by_channel]
    start = np.searchsorted(channel, np.arange(offset))
    taps = max(int(np.bincount(channel, minlength=1).max(initial=0)), 1)
    within = np.arange(len(channel)) - start[channel]
    # Missing taps of a channel have the position after the last one.
    positions = operators[0].positions
    table = _Table(
        position=np.full((offset + 1, taps), positions, np.int32),
        row=np.zeros((offset + 1, taps), np.int32),
    )
    table.position[channel, within], table.row[channel, within] = place, row
    late = any(operator.row_delay is not None for operator in operators)
    return table, jnp.concatenate(delays) if late else None


class _Events(NamedTuple):
    """Events of all sources in one list in the order of time."""

    time: Float[Array, "batch events"]
    channel: Int[Array, "batch events"]  # row of the table
    in_order: bool
    value: Float[Array, "batch events"] | None  # None if all are 1


def _events(operators: Sequence[Operator], sources: Sequence[Train]) -> _Events:
    """Merge all sources' events, each with the delay of its source channel."""
    times, channels, offset = [], [], 0
    graded = any(train.value is not None for train in sources)
    values = [
        jnp.ones_like(train.time) if train.value is None else train.value
        for train in sources
        if graded
    ]
    total = sum(operator.inward for operator in operators)
    for operator, train in zip(operators, sources, strict=True):
        channel = jnp.broadcast_to(train.channel, train.time.shape)
        time = train.time
        if operator.delay is not None:
            time = time + operator.delay.at[channel].get(mode="clip")
        times.append(time)
        # unused slots get the table's last channel, which has no target
        channels.append(jnp.where(jnp.isfinite(time), channel + offset, total))
        offset += operator.inward
    time, channel = jnp.concatenate(times, axis=1), jnp.concatenate(channels, axis=1)
    value = jnp.concatenate(values, axis=1) if graded else None
    if len(sources) == 1 and sources[0].in_order and operators[0].delay is None:
        return _Events(time, channel, in_order=True, value=value)
    _, place = sorted_times(time)
    return _Events(
        gather_along(time, place, 1),
        gather_along(channel, place, 1),
        in_order=True,
        value=None if value is None else gather_along(value, place, 1),
    )


class _Entries(NamedTuple):
    """Entries sorted by position; each position has `budget` slots: (batch, positions * budget)."""

    entry: Int[Array, "batch slots"]
    used: Bool[Array, "batch slots"]
    needed: Int[Array, ""]  # largest number at one position


def _by_position(place: Int[Array, "batch events taps"], positions: int, budget: int) -> _Entries:
    """Sort entries (batch, events, taps) by their positions, and entries of one position by event."""
    batch, events, taps = place.shape
    count = events * taps
    # Sorting the single integer position * count + entry sorts by both. The entries of position
    # p begin where p * count would be inserted.
    with jax.enable_x64(True):
        integer = jnp.int32 if (positions + 1) * count < 2**31 else jnp.int64
        key = place.reshape(batch, count).astype(integer) * count + jnp.arange(count, dtype=integer)
        key = sorted_rows(key)
        edge = jnp.arange(positions + 1, dtype=integer) * count
        start = jax.vmap(places_in, in_axes=(0, None))(key, edge)
        entry = lax.rem(key, jnp.full_like(key, count)).astype(jnp.int32)
    slot = start[:, :-1, None] + jnp.arange(budget, dtype=jnp.int32)
    used = slot < start[:, 1:, None]
    entry = gather_along(entry, jnp.minimum(slot, count - 1).reshape(batch, -1), axis=1)
    needed = greatest(start[:, 1:] - start[:, :-1])
    return _Entries(entry, used.reshape(batch, -1), needed)
