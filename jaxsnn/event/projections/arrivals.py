"""What arrives at a population: the events of its sources, sorted by the positions of its neurons.

Where everything passes matrices, all neurons see the same arrivals. Else each position (of a
convolution: an output pixel) has a list of its own, gathered from the events: the cost grows with
events times taps, not with the layer.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsnn.network.operators import added, alike, as_matrix, one_lane
from jaxsnn.network.sorting import sorted_times
from jaxsnn.network.structure import Wire


class Train(NamedTuple):
    """Events of one source: time (batch, events) seconds, inf where unused; channel (events,) or
    (batch, events).
    """

    time: jax.Array
    channel: jax.Array
    in_order: bool = False


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """What arrives at a population, as `adjoint.layer_spikes` takes it.

    Attributes:
        weight: (rows, lanes), as the file has them: without the neurons' arrival factor.
        time: (batch * positions, arrivals) seconds; inf where unused.
        row: (arrivals,) or (batch * positions, arrivals).
        positions: how many; channel n * positions + p is lane n at position p.
        order: channel k is channel order[k] as counted above; None: as counted.
        in_order: the times rise.
        needed: most arrivals at one position, scalar int; budget: how many there is room for.
    """

    weight: jax.Array
    time: jax.Array
    row: jax.Array
    positions: int = 1
    order: np.ndarray | None = None
    in_order: bool = False
    needed: Any = 0
    budget: int = 0

    def lanes(self, values):
        """Values of the neurons (neurons,) as (positions, lanes); at one position (neurons,)."""
        if self.positions == 1:
            return values
        if self.order is not None:
            values = values[np.argsort(self.order)]
        return values.reshape(-1, self.positions).T

    def neurons(self, values):
        """Values of the lanes (batch * positions, lanes, ...) as (batch, neurons, ...)."""
        if self.positions == 1:
            return values
        values = values.reshape(-1, self.positions, *values.shape[1:]).swapaxes(1, 2)
        values = values.reshape(values.shape[0], -1, *values.shape[3:])
        return values if self.order is None else values[:, self.order]


def arrivals(paths, trains, size, dtype, budget=None) -> Arrivals:
    """Everything that arrives at a population of a size.

    Args:
        paths: pairs (source, `Operator`).
        trains: source -> `Train`.
        budget: arrivals at one position that there is room for, where positions have lists of their
            own; None: chosen from the mean.
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


def _is_list(operator):
    """Whether each source channel meets all neurons at once, through at most one row."""
    source, _, _ = operator.entries()
    return operator.positions == 1 and len(np.unique(source)) == len(source)


def _one_list_each(paths, dtype):
    """Paths that are lists, where those from one source with the same delays are added up: an event
    acts once.
    """
    found = []
    for source, same in alike(paths, lambda operator: operator.row_delay is None):
        found += [(source, each if len(same) == 1 else as_matrix(each, dtype)) for each in same]
    return added(found, dtype)


def _listed(paths, trains, dtype):
    """One list of arrivals for all neurons."""
    weights, times, rows, offset = [], [], [], 0
    for source, operator in paths:
        train = trains[source]
        entering, _, row = operator.entries()
        weight = operator.rows(dtype)
        weight = weight if operator.order is None else weight[:, operator.order]
        time, channel = train.time, train.channel
        if operator.source is not None:
            if len(entering) < operator.inward:  # some channels go nowhere
                weight = jnp.pad(weight, ((0, 1), (0, 0)))
            to_row = np.full(operator.inward, weight.shape[0] - 1)
            to_row[entering] = row
            channel_row = jnp.asarray(to_row, jnp.int32).at[channel].get(mode="clip")
        else:
            channel_row = channel
        if operator.delay is not None:
            time = time + operator.delay.at[channel].get(mode="clip")
        if operator.row_delay is not None:
            time = time + jnp.pad(operator.row_delay, (0, 1)).at[channel_row].get(mode="clip")
        weights.append(weight)
        times.append(time)
        rows.append(channel_row + offset)
        offset += weight.shape[0]
    if any(row.ndim > 1 for row in rows):
        rows = [jnp.broadcast_to(row, time.shape) for row, time in zip(rows, times, strict=True)]
    source, operator = paths[0]
    alone = len(paths) == 1 and operator.delay is None and operator.row_delay is None
    return Arrivals(
        weight=jnp.concatenate(weights),
        time=jnp.concatenate(times, axis=1),
        row=jnp.concatenate(rows, axis=-1),
        in_order=alone and trains[source].in_order,
    )


def _gathered(paths, trains, size, dtype, budget):
    """A list of arrivals for each position."""
    positions, lanes, order = _layout([operator for _, operator in paths], size)
    paths = [
        (source, _laid_out(operator, positions, lanes, order, dtype)) for source, operator in paths
    ]
    operators, sources = [], []
    for source, same in alike(paths, lambda operator: operator.row_delay is None):
        operators.append(same[0] if same[0].row_delay is not None else _acting_once(same))
        sources.append(trains[source])
    weight = jnp.concatenate([operator.weight for operator in operators])
    table, row_delay = _table(operators, dtype)
    time, source, in_order = _events(operators, sources)
    batch, events = time.shape
    taps = table.position.shape[1]
    place, row = (jnp.asarray(array)[source] for array in table)  # (batch, events, taps)
    late = 0.0 if row_delay is None else row_delay[row]
    if taps == positions and (np.sort(table.position[:-1], axis=1) == np.arange(positions)).all():
        # every event reaches every position: nothing is to be looked for
        by_position = (
            jnp.argsort(place, axis=2)
            if (table.position[:-1] != np.arange(positions)).any()
            else None
        )
        times = time[:, :, None] + late + jnp.zeros((1, 1, taps), dtype)
        if by_position is not None:
            times, row = (jnp.take_along_axis(array, by_position, 2) for array in (times, row))
        times, row = (
            array.swapaxes(1, 2).reshape(batch * positions, events) for array in (times, row)
        )
        needed, budget = jnp.int32(0), 0
    else:
        if budget is None:
            budget = min(events * taps, 4 * (-(-events * taps // positions)) + 32)
        entry, used, needed = _by_position(place, positions, budget)
        pick = lambda array: jnp.take_along_axis(array.reshape(batch, -1), entry, axis=1)  # noqa: E731
        times = jnp.take_along_axis(time, entry // taps, axis=1)
        row = pick(row)
        times = times if row_delay is None else times + row_delay[row]
        times = jnp.where(used, times, jnp.inf).reshape(batch * positions, -1)
        row = row.reshape(batch * positions, -1)
    return Arrivals(
        weight=weight,
        time=times,
        row=row.astype(jnp.int32),
        positions=positions,
        order=order,
        in_order=in_order and row_delay is None,
        needed=needed,
        budget=budget,
    )


def _layout(operators, size):
    """(positions, lanes, order) that all operators are brought to."""
    found = [
        operator
        for operator in operators
        if not (operator.is_identity or operator.is_pool or _is_list(operator))
    ]
    if found:
        first = found[0]
        shape = first.positions, first.lanes
        if all(
            (each.positions, each.lanes) == shape and _same(each.order, first.order)
            for each in found
        ):
            return first.positions, first.lanes, first.order
    return size, 1, None


def _same(order, other):
    """Whether two orders of channels are one."""
    return order is other or (
        order is not None and other is not None and np.array_equal(order, other)
    )


def _laid_out(operator, positions, lanes, order, dtype):
    """An operator with given positions and lanes."""
    where = Wire(name="fan-in", kind="Linear", sources=(), shape=(positions * lanes,))
    as_found = (operator.positions, operator.lanes) == (
        positions,
        lanes,
    ) and not operator.is_identity
    if as_found and operator.source is not None and _same(operator.order, order):
        return operator
    layout = {"positions": positions, "lanes": lanes, "order": order}
    channel_place = np.arange(positions * lanes) if order is None else order
    if lanes == 1 or operator.is_identity or operator.is_pool:
        single = one_lane(where, operator, dtype)
        channel = (
            single.position if single.order is None else np.argsort(single.order)[single.position]
        )
        if lanes == 1:
            return replace(single, position=channel_place[channel], order=order)
        lane, position = np.divmod(channel_place[channel], positions)
        return replace(
            single,
            **layout,
            position=position,
            row=lane,
            weight=single.weight[0, 0] * jnp.eye(lanes, dtype=dtype),
        )
    source, _, row = operator.entries()
    weight = operator.rows(dtype)
    weight = weight if operator.order is None else weight[:, operator.order]
    weight = (
        weight[:, np.argsort(channel_place)]
        .reshape(-1, lanes, positions)
        .swapaxes(1, 2)
        .reshape(-1, lanes)
    )
    every = np.arange(positions)
    return replace(
        operator,
        **layout,
        source=np.repeat(source, positions),
        position=np.tile(every, len(source)),
        row=(row[:, None] * positions + every).reshape(-1),
        weight=weight,
        row_delay=None if operator.row_delay is None else jnp.repeat(operator.row_delay, positions),
    )


def _acting_once(operators):
    """One operator for some from one source with the same delays, in which an event comes to each
    position once.

    What it does there over several taps or paths is added up before: else a neuron whose V it moves
    could fire on the way to the sum.
    """
    count, offset = 0, []
    for operator in operators:
        offset.append(count)
        count += operator.weight.shape[0]
    every = [operator.entries() for operator in operators]
    source, position = (np.concatenate([entries[axis] for entries in every]) for axis in (0, 1))
    row = np.concatenate([entries[2] + first for entries, first in zip(every, offset, strict=True)])
    weight = jnp.concatenate([operator.weight for operator in operators])
    order = np.lexsort((row, position, source))
    source, position, row = source[order], position[order], row[order]
    new = np.ones(len(source), bool)
    new[1:] = (source[1:] != source[:-1]) | (position[1:] != position[:-1])
    if not new.all():
        start, pair = np.flatnonzero(new), np.cumsum(new) - 1
        rows = np.full((len(start), np.bincount(pair).max()), count)
        rows[pair, np.arange(len(row)) - start[pair]] = row
        rows, row = np.unique(rows, axis=0, return_inverse=True)
        source, position, row = source[start], position[start], row.reshape(-1)
        weight = jnp.sum(jnp.pad(weight, ((0, 1), (0, 0)))[rows], axis=1)
    return replace(operators[0], source=source, position=position, row=row, weight=weight)


class _Table(NamedTuple):
    """Where the events of each source channel go: (channels + 1, taps), the last of an unused slot;
    padded.
    """

    position: np.ndarray
    row: np.ndarray


def _table(operators, dtype):
    """The table of all operators' source channels one after the other, and the delays of the rows."""
    channels, places, rows, delays, offset, first = [], [], [], [], 0, 0
    for operator in operators:
        source, position, row = operator.entries()
        count = operator.weight.shape[0]
        channels.append(source + offset)
        places.append(position)
        rows.append(row + first)
        delays.append(jnp.zeros(count, dtype) if operator.row_delay is None else operator.row_delay)
        offset, first = offset + operator.inward, first + count
    channel, place, row = map(np.concatenate, (channels, places, rows))
    by_channel = np.lexsort((place, channel))
    channel, place, row = channel[by_channel], place[by_channel], row[by_channel]
    start = np.searchsorted(channel, np.arange(offset))
    taps = max(int(np.bincount(channel, minlength=1).max(initial=0)), 1)
    within = np.arange(len(channel)) - start[channel]
    positions = operators[0].positions
    table = _Table(
        position=np.full((offset + 1, taps), positions, np.int32),
        row=np.zeros((offset + 1, taps), np.int32),
    )
    table.position[channel, within], table.row[channel, within] = place, row
    late = any(operator.row_delay is not None for operator in operators)
    return table, jnp.concatenate(delays) if late else None


def _events(operators, sources):
    """All sources' events in one list in the order of time: time (batch, events), channel in the
    table, in order?
    """
    times, channels, offset = [], [], 0
    total = sum(operator.inward for operator in operators)
    for operator, train in zip(operators, sources, strict=True):
        channel = jnp.broadcast_to(train.channel, train.time.shape)
        time = train.time
        if operator.delay is not None:
            time = time + operator.delay.at[channel].get(mode="clip")
        times.append(time)
        channels.append(jnp.where(jnp.isfinite(time), channel + offset, total))
        offset += operator.inward
    time, channel = jnp.concatenate(times, axis=1), jnp.concatenate(channels, axis=1)
    if len(sources) == 1 and sources[0].in_order and operators[0].delay is None:
        return time, channel, True
    _, place = sorted_times(time)
    return jnp.take_along_axis(time, place, 1), jnp.take_along_axis(channel, place, 1), True


def _by_position(place, positions, budget):
    """Entries (batch, events, taps) sorted by their positions, in the order of events at each.

    Returns:
        (batch, positions * budget) entries and whether they are used, and the most at one position.
    """
    batch, events, taps = place.shape
    count = events * taps
    with jax.enable_x64(True):
        integer = jnp.int32 if (positions + 1) * count < 2**31 else jnp.int64
        key = place.reshape(batch, count).astype(integer) * count + jnp.arange(count, dtype=integer)
        key = lax.sort(key, dimension=1, is_stable=False)
        edge = jnp.arange(positions + 1, dtype=integer) * count
        start = jax.vmap(jnp.searchsorted, in_axes=(0, None))(key, edge).astype(jnp.int32)
        entry = (key % count).astype(jnp.int32)
    slot = start[:, :-1, None] + jnp.arange(budget, dtype=jnp.int32)
    used = slot < start[:, 1:, None]
    entry = jnp.take_along_axis(entry, jnp.minimum(slot, count - 1).reshape(batch, -1), axis=1)
    return entry, used.reshape(batch, -1), jnp.max(start[:, 1:] - start[:, :-1])
