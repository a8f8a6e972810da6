"""Linear nodes between two populations, composed into one sparse map with shared weights.

A map sends an event of a source channel to some (position, row) pairs: at that position it weighs
`weight[row]`, a vector over the columns. A dense matrix has one position and a row for each source
channel; a convolution has a position for each output pixel, a row for each input channel and kernel
tap, and a column for each output channel; a pool has a position for each output channel and one
column. The pairs are static (NumPy); weights and delays are differentiable JAX arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxsnn.errors import LoweringError
from jaxsnn.linear_map import window_table
from jaxsnn.network.array_types import Array, Float, Int
from jaxsnn.network.linear_nodes import Arrays, entries_of, refuse_large
from jaxsnn.network.structure import Wire
from jaxsnn.options import ENGINE
from jaxsnn.wording import Text

#: The pairs of an operator: (source channel, position, row).
Pairs = tuple[Int[np.ndarray, "pairs"], Int[np.ndarray, "pairs"], Int[np.ndarray, "pairs"]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Operator:
    """Linear map from the channels of a source to the channels of a node, with delays.

    Attributes:
        inward: channels of the source.
        positions, columns: their product is the number of channels; channel n * positions + p is
            column n at position p.
        source, position, row: (pairs,) int arrays; None: source channel i goes to row i at the only
            position.
        weight: (rows, columns); None: the identity, with one column for each channel.
        delay: (inward,) seconds by which events of each source channel come later, or None.
        row_delay: (rows,) seconds, in addition, or None.
        order: (channels,) int array: channel k of the node is channel order[k] as counted above;
            None: as counted.
        is_sparse: whether it contains sparse weights: groups then store single synapses.
    """

    inward: int
    positions: int
    columns: int
    source: Int[np.ndarray, "pairs"] | None = None
    position: Int[np.ndarray, "pairs"] | None = None
    row: Int[np.ndarray, "pairs"] | None = None
    weight: Any = None
    delay: Any = None
    row_delay: Any = None
    order: Int[np.ndarray, "channels"] | None = None
    is_sparse: bool = False

    @property
    def size(self) -> int:
        """Number of channels of the node."""
        return self.positions * self.columns

    @property
    def is_identity(self) -> bool:
        """Whether the map only applies delays."""
        return self.weight is None

    @property
    def is_matrix(self) -> bool:
        """Whether the map is a matrix, possibly with delays of its source channels."""
        return self.source is None and self.row_delay is None and self.order is None

    @property
    def is_pool(self) -> bool:
        """Whether the map adds up channels, all with the same weight."""
        one_weight = self.weight is not None and self.weight.shape[0] == 1
        return one_weight and self.columns == 1 and self.row_delay is None

    def entries(self) -> Pairs:
        """Return (source, position, row), also for an operator that does not store them."""
        if self.source is None or self.position is None or self.row is None:
            every = np.arange(self.inward)
            return every, np.zeros_like(every), every
        return self.source, self.position, self.row

    def rows(self, dtype: DTypeLike) -> Float[Array, "rows columns"]:
        """Return `weight`, also for the identity."""
        return jnp.eye(self.inward, dtype=dtype) if self.weight is None else self.weight

    def in_place(self, values: Float[Array, "*lead channels"]) -> Float[Array, "*lead channels"]:
        """Return values of the node's channels in the order of columns and positions."""
        return values if self.order is None else values[..., np.argsort(self.order)]

    def dense(self, dtype: DTypeLike) -> Float[Array, "inward channels"]:
        """Return the map as a matrix, without its delays."""
        if self.source is None and self.order is None:
            return self.rows(dtype)
        source, position, row = self.entries()
        tiles = jnp.zeros((self.inward, self.positions, self.columns), dtype)
        tiles = tiles.at[source, position].add(self.rows(dtype)[row])
        # Channels are counted column by column.
        matrix = jnp.swapaxes(tiles, 1, 2).reshape(self.inward, self.size)
        return matrix if self.order is None else matrix[:, self.order]

    def synapses(
        self, dtype: DTypeLike
    ) -> tuple[
        Int[np.ndarray, "synapses"],
        Int[np.ndarray, "synapses"],
        Float[Array, "synapses"],
        Float[Array, "synapses"] | None,
    ]:
        """Return the source, the channel of the node, the weight and the delay of each connection; None
        if rows have no delays.
        """
        source, position, row = self.entries()
        if self.is_identity:
            return source, source, jnp.ones(self.inward, dtype), None
        # Channels are counted column by column.
        channel = np.arange(self.columns) * self.positions + position[:, None]
        if self.order is not None:
            channel = np.argsort(self.order)[channel]
        delay = None
        if self.row_delay is not None:
            delay = jnp.repeat(self.row_delay[row], self.columns)
        weight = self.weight[row].reshape(-1)
        return np.repeat(source, self.columns), channel.reshape(-1), weight, delay

    def apply(self, values: Float[Array, "inward"], dtype: DTypeLike) -> Float[Array, "channels"]:
        """Apply the map to constant values of the source's channels."""
        if self.is_identity:
            return values
        source, position, row = self.entries()
        tiles = jnp.zeros((self.positions, self.columns), dtype)
        tiles = tiles.at[position].add(values[source][:, None] * self.rows(dtype)[row])
        # Channels are counted column by column.
        flat = tiles.T.reshape(-1)
        return flat if self.order is None else flat[self.order]


#: A source (an input or a population), and the operator that its events pass.
Path = tuple[str, Operator]


def delayed_by_source(operator: Operator) -> Operator:
    """Return the operator with delays of its source channels instead of its rows, if each source
    channel meets one row (a Scale before a Delay).
    """
    source, _, row = operator.entries()
    if operator.row_delay is None or len(np.unique(source)) < len(source):
        return operator
    delay = jnp.zeros(operator.inward, operator.row_delay.dtype)
    delay = delay.at[source].set(operator.row_delay[row])
    source_delay = 0.0 if operator.delay is None else operator.delay
    return replace(operator, delay=source_delay + delay, row_delay=None)


def by_taps(operator: Operator, dtype: DTypeLike) -> list[Operator]:
    """Split an operator whose rows have delays into operators with at most one row, and so one delay,
    for each source channel: one operator for the first pairs of all source channels, one for the
    second pairs, and so on. Each operator has a single position, with a column for each channel.
    """
    by_source, _, tap = _pairs_by_source(operator)
    return [
        _at_one_position(operator, by_source[tap == number], dtype)
        for number in range(int(tap.max(initial=-1)) + 1)
    ]


def _pairs_by_source(operator: Operator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pairs in the order of their source channels: their indices, their source channels, and
    their numbers among the pairs of the same channel.
    """
    source = operator.entries()[0]
    by_source = np.argsort(source, kind="stable")
    source = source[by_source]
    return by_source, source, np.arange(len(source)) - np.searchsorted(source, source)


class Lines(NamedTuple):
    """Pairs of an operator whose rows have delays, by source channel; source channels with fewer pairs
    than others get additional ones, whose delay is finite but longer than any run.
    """

    weight: Float[Array, "inward lines columns"]
    delay: Float[Array, "inward lines"]  # seconds, including that of the source channel
    targets: Int[np.ndarray, "inward lines columns"]  # channels of the node


def count_line_weights(operator: Operator) -> int:
    """Return the number of weights of `delay_lines`."""
    source = operator.entries()[0]
    longest = int(np.bincount(source, minlength=1).max())
    return operator.inward * longest * operator.columns


def delay_lines(operator: Operator, dtype: DTypeLike) -> Lines:
    """Return the pairs of an operator whose rows have delays, by source channel."""
    _, position, row = operator.entries()
    by_source, source, tap = _pairs_by_source(operator)
    pair = np.full((operator.inward, int(tap.max(initial=-1)) + 1), -1)
    pair[source, tap] = by_source
    exists, row = pair >= 0, row[pair]
    never = np.finfo(dtype).max / 4  # inf would count as an invalid value
    delay = jnp.where(exists, operator.row_delay[row], never)
    if operator.delay is not None:
        delay += operator.delay[:, None]
    # Channels are counted column by column.
    targets = np.arange(operator.columns) * operator.positions + position[pair][..., None]
    if operator.order is not None:
        targets = np.argsort(operator.order)[targets]
    weight = jnp.where(exists[..., None], operator.rows(dtype)[row], 0.0)
    return Lines(weight=weight, delay=delay, targets=targets.astype(np.int32))


def _at_one_position(
    operator: Operator, pairs: Int[np.ndarray, "pairs"], dtype: DTypeLike
) -> Operator:
    """Return some pairs of an operator whose rows have delays as an operator with a single position,
    a column for each channel, and a row for each pair.

    Args:
        pairs: indices of the pairs.
    """
    source, position, row = (entry_array[pairs] for entry_array in operator.entries())
    pair, weight = np.arange(len(pairs)), operator.rows(dtype)[row]
    # (pairs, columns, positions): channels are counted column by column
    tiles = jnp.zeros((len(pairs), operator.columns, operator.positions), dtype)
    rows = tiles.at[pair, :, position].set(weight).reshape(len(pairs), operator.size)
    return Operator(
        inward=operator.inward,
        positions=1,
        columns=operator.size,
        source=source,
        position=np.zeros_like(pair),
        row=pair,
        weight=rows if operator.order is None else rows[:, operator.order],
        delay=operator.delay,
        row_delay=operator.row_delay[row],
    )


def as_matrix(operator: Operator, dtype: DTypeLike) -> Operator:
    """Return the same map as a matrix, for an operator whose rows have no delays."""
    return Operator(
        inward=operator.inward,
        positions=1,
        columns=operator.size,
        weight=operator.dense(dtype),
        delay=operator.delay,
    )


def group_by_source(
    paths: Iterable[Path], mergeable: Callable[[Operator], bool]
) -> list[tuple[str, list[Operator]]]:
    """Group paths by source and delays; a path that is not `mergeable` is a group by itself."""
    groups: dict[Any, tuple[str, list[Operator]]] = {}
    for number, (source, operator) in enumerate(paths):
        key = (source, id(operator.delay)) if mergeable(operator) else number
        groups.setdefault(key, (source, []))[1].append(operator)
    return list(groups.values())


def added(paths: Iterable[Path], dtype: DTypeLike) -> tuple[Path, ...]:
    """Return the paths with matrices from the same source and with the same delays added up, so
    that an event acts once.
    """
    merged = []
    for source, same in group_by_source(paths, lambda operator: operator.is_matrix):
        summed = same[0]
        if len(same) > 1:
            summed = replace(summed, weight=sum(operator.rows(dtype) for operator in same))
        merged.append((source, summed))
    return tuple(merged)


def identity(size: int) -> Operator:
    """Return the identity map."""
    return Operator(inward=size, positions=1, columns=size)


def through(
    wire: Wire,
    inward: tuple[int, ...],
    parameters: Arrays,
    operator: Operator,
    dtype: DTypeLike,
) -> Operator:
    """Return an operator followed by one linear node, without biases.

    Args:
        wire: the node.
        inward: shape of its input.
        parameters: NIR's names -> arrays.

    Raises:
        LoweringError: the two cannot be joined.
    """
    join = _JOINED.get(wire.kind, _one_by_one if wire.linear else None)
    if join is not None:
        return _with_a_row(join(wire, inward, parameters, operator, dtype))
    raise LoweringError(
        Text("node '{node}' ({type}) is not a linear node", node=wire.name, type=wire.kind),
        fix=Text("simulate with {engine}", engine=ENGINE.set_to("grid")),
        node=wire.name,
    )


def _with_a_row(operator: Operator) -> Operator:
    """Return the operator with a row of zeros if it has no rows: a window may see nothing but
    padding.
    """
    if operator.weight is None or operator.weight.shape[0]:
        return operator
    row_delay = None if operator.row_delay is None else jnp.pad(operator.row_delay, (0, 1))
    return replace(operator, weight=jnp.pad(operator.weight, ((0, 1), (0, 0))), row_delay=row_delay)


# ---- any linear node


def _one_by_one(
    wire: Wire,
    inward: tuple[int, ...],
    parameters: Arrays,
    operator: Operator,
    dtype: DTypeLike,
) -> Operator:
    """Return an operator followed by any linear node: as a matrix if the node connects all channels
    or the operator is a matrix, else with a pair for each connection.
    """
    source, target, value = entries_of(wire, inward, parameters, dtype)
    inputs = math.prod(inward)
    behind_matrix = operator.positions == 1 and not operator.is_identity
    if source.size == inputs * wire.size or behind_matrix:
        refuse_large(wire, inputs * wire.size)
        matrix = jnp.zeros((wire.size, inputs), dtype).at[target, source].add(value)
        return _linear(wire, operator, matrix)
    layout = {"positions": wire.size, "columns": 1, "order": None}
    if operator.is_identity:
        return replace(
            operator,
            **layout,
            source=source,
            position=target,
            row=np.arange(source.size),
            weight=value[:, None],
        )
    single = one_column(wire, operator, dtype)
    matches = _find_matches(single, source)
    refuse_large(wire, matches.count)
    row_delay = None if single.row_delay is None else single.row_delay[matches.row]
    return replace(
        single,
        **layout,
        source=matches.source,
        position=target[matches.meeting],
        row=np.arange(matches.count),
        weight=single.weight[matches.row] * value[matches.meeting][:, None],
        row_delay=row_delay,
    )


class _Matches(NamedTuple):
    """Matches between pairs of an operator and connections of a node: (pairs,) int arrays.

    Attributes:
        source, row: source channel and row of the operator's pair.
        meeting: index of the connection.
    """

    source: Int[np.ndarray, "pairs"]
    row: Int[np.ndarray, "pairs"]
    meeting: Int[np.ndarray, "pairs"]

    @property
    def count(self) -> int:
        """Number of matches."""
        return len(self.meeting)


def _find_matches(operator: Operator, enters: Int[np.ndarray, "connections"]) -> _Matches:
    """Return the matches between the pairs of an operator (of one column or of one position for
    each pixel) and the connections that start where a pair ends.

    Args:
        enters: the channel (with many columns: the position) where each connection starts.
    """
    source, position, row = operator.entries()
    if operator.order is not None:
        position = np.argsort(operator.order)[position]
    # Sort connections by their start: those with the same start are a range [first, first + count).
    order = np.argsort(enters, kind="stable")
    first = np.searchsorted(enters[order], position)
    count = np.searchsorted(enters[order], position, side="right") - first
    entry = np.repeat(np.arange(len(position)), count)
    # 0, 1, ... within each range
    within = np.arange(len(entry)) - np.repeat(np.cumsum(count) - count, count)
    meeting = order[np.repeat(first, count) + within]
    return _Matches(source=source[entry], row=row[entry], meeting=meeting)


# ---- Linear and Affine


def _matrix(
    wire: Wire,
    inward: tuple[int, ...],
    parameters: Arrays,
    operator: Operator,
    dtype: DTypeLike,
) -> Operator:
    if "delay" in parameters:
        return _synapses_with_delays(wire, operator, parameters["weight"], parameters["delay"])
    return _linear(wire, operator, parameters["weight"])


def _linear(wire: Wire, operator: Operator, weight: Float[Array, "outputs channels"]) -> Operator:
    """Return an operator followed by a matrix."""
    weight, outputs = operator.in_place(weight), weight.shape[0]
    if operator.is_identity and wire.kind == "Linear" and wire.detail is not None:
        return _copied(operator, wire.detail, weight)
    if operator.is_identity:
        return replace(operator, columns=outputs, weight=weight.T)
    if operator.positions == 1:
        return replace(operator, columns=outputs, weight=operator.weight @ weight.T, order=None)
    # The matrix has a single position, which receives from all positions of the operator.
    _, position, row = operator.entries()
    together = {"positions": 1, "columns": outputs, "position": 0 * position, "order": None}
    if operator.is_pool:
        return replace(operator, **together, row=position, weight=operator.weight[0, 0] * weight.T)
    if operator.columns == 1:  # each pair gets a separate row
        refuse_large(wire, len(row) * outputs)
        row_delay = None if operator.row_delay is None else operator.row_delay[row]
        rows = operator.weight[row] * weight.T[position]
        return replace(
            operator, **together, row=np.arange(len(row)), weight=rows, row_delay=row_delay
        )
    refuse_large(wire, operator.weight.shape[0] * operator.positions * outputs)
    # A row at each position: the sum over the columns n of (row, n) times (output, n, position).
    by_column = weight.reshape(outputs, operator.columns, operator.positions)
    rows = jnp.einsum("rn,onp->pro", operator.weight, by_column).reshape(-1, outputs)
    return replace(_rows_by_position(operator, rows), **together)


def _copied(
    operator: Operator, channels: Sequence[int], weight: Float[Array, "outputs channels"]
) -> Operator:
    """Return an operator followed by a Linear that copies channels, one to each output; NaN if its
    weights have changed.
    """
    every = np.arange(len(channels))
    expected = np.zeros(weight.shape, bool)
    expected[every, channels] = True
    # NaN if the weights have changed: the run ends as NOT_FINITE.
    unit_weight = jnp.where(jnp.all(weight == expected), 1.0, jnp.nan).astype(weight.dtype)
    return replace(
        operator,
        positions=len(channels),
        columns=1,
        source=np.asarray(channels),
        position=every,
        row=0 * every,
        weight=unit_weight[None, None],
    )


def _rows_by_position(operator: Operator, rows: Float[Array, "rows columns"]) -> Operator:
    """Return the operator with separate rows for each position, counted position by position."""
    _, position, row = operator.entries()
    count = operator.weight.shape[0]
    row_delay = operator.row_delay
    if row_delay is not None:
        row_delay = jnp.tile(row_delay, operator.positions)
    return replace(
        operator,
        **_explicit(operator),
        row=position * count + row,
        weight=rows,
        row_delay=row_delay,
    )


def _explicit(operator: Operator) -> dict[str, Int[np.ndarray, "pairs"]]:
    """Return the source and position of an operator's pairs, also if it does not store them."""
    source, position, _ = operator.entries()
    return {"source": source, "position": position}


def _behind_linear_node(wire: Wire) -> LoweringError:
    return LoweringError(
        Text(
            "node '{node}' ({type}) has individual synaptic delays, but receives its input "
            "through another linear node",
            node=wire.name,
            type=wire.kind,
        ),
        fix="connect it directly to neurons or to an input",
        node=wire.name,
    )


def _synapses_with_delays(
    wire: Wire,
    operator: Operator,
    weight: Float[Array, "outputs inputs"],
    delay: Float[Array, "outputs inputs"] | Float[Array, "inputs"] | Float[Array, ""],
) -> Operator:
    """Return a Linear whose synapses have delays as an operator: a position for each output, a row
    for each synapse; a matrix if the delays are those of the sources.
    """
    if not operator.is_identity:
        raise _behind_linear_node(wire)
    outputs, inputs = weight.shape
    if delay.ndim < 2:
        late = jnp.broadcast_to(delay, (inputs,))
        late = late if operator.delay is None else operator.delay + late
        return replace(operator, columns=outputs, weight=weight.T, delay=late)
    source, position = (axis.reshape(-1) for axis in np.mgrid[:inputs, :outputs])
    return replace(
        operator,
        positions=outputs,
        columns=1,
        source=source,
        position=position,
        row=np.arange(source.size),
        weight=weight.T.reshape(-1, 1),
        row_delay=delay.T.reshape(-1),
    )


def _sparse(
    wire: Wire,
    inward: tuple[int, ...],
    parameters: Arrays,
    operator: Operator,
    dtype: DTypeLike,
) -> Operator:
    """Return an operator followed by a SparseLinear: a position for each output, and a row for each
    synapse.
    """
    delay = parameters.get("delay")
    if not operator.is_identity:
        if delay is None:
            joined = _one_by_one(wire, inward, parameters, operator, dtype)
            return replace(joined, is_sparse=joined.source is not None)
        raise _behind_linear_node(wire)
    source, target, value = entries_of(wire, inward, parameters, dtype)
    return replace(
        operator,
        positions=wire.size,
        columns=1,
        source=source,
        position=target,
        row=np.arange(source.size),
        weight=value[:, None],
        row_delay=delay,
        is_sparse=True,
    )


# ---- Scale, Flatten, Delay


def _scaled(
    wire: Wire,
    inward: tuple[int, ...],
    parameters: Arrays,
    operator: Operator,
    dtype: DTypeLike,
) -> Operator:
    scale = operator.in_place(parameters["scale"])  # (channels,)
    if operator.is_identity or operator.is_pool:
        every = _pool_entries(operator)
        factor = 1.0 if operator.is_identity else operator.weight[0, 0]
        return replace(
            operator,
            **every,
            positions=operator.size,
            columns=1,
            row=every["position"],
            weight=(factor * scale)[:, None].astype(dtype),
        )
    if operator.positions == 1:
        return replace(operator, weight=operator.weight * scale)
    refuse_large(wire, operator.weight.shape[0] * operator.size)
    # (positions, 1, columns) times (rows, columns): separate rows at each position
    by_position = scale.reshape(operator.columns, operator.positions).T
    rows = operator.weight[None] * by_position[:, None]
    return _rows_by_position(operator, rows.reshape(-1, operator.columns))


def _pool_entries(operator: Operator) -> dict[str, Int[np.ndarray, "pairs"]]:
    """Return the source and position of an identity or a pool, in the layout of a pool."""
    if operator.is_identity:
        every = np.arange(operator.inward)
        return {"source": every, "position": every}
    return _explicit(operator)


def _as_pool(operator: Operator, dtype: DTypeLike) -> Operator:
    """Return the identity as a pool of one channel each; other operators unchanged."""
    if not operator.is_identity:
        return operator
    every = _pool_entries(operator)
    unit_weight = jnp.ones((1, 1), dtype)
    return replace(
        operator,
        **every,
        positions=operator.size,
        columns=1,
        row=0 * every["source"],
        weight=unit_weight,
    )


def _reordered(
    wire: Wire,
    inward: tuple[int, ...],
    parameters: Arrays,
    operator: Operator,
    dtype: DTypeLike,
) -> Operator:
    if wire.detail is None:
        return operator
    # number before the transposition of each channel after it
    place = np.arange(operator.size).reshape(inward).transpose(wire.detail).reshape(-1)
    operator = _as_pool(operator, dtype)
    return replace(operator, order=place if operator.order is None else operator.order[place])


def _delayed(
    wire: Wire,
    inward: tuple[int, ...],
    parameters: Arrays,
    operator: Operator,
    dtype: DTypeLike,
) -> Operator:
    delay = parameters["delay"]  # (channels,) seconds
    if operator.is_identity:
        return replace(operator, delay=delay if operator.delay is None else operator.delay + delay)
    delay = operator.in_place(delay)
    single = one_column(wire, operator, dtype)
    _, position, row = single.entries()
    row_delay = 0.0 if single.row_delay is None else single.row_delay[row]
    # Each pair gets a separate row, with the delays of its row and of its channel.
    return replace(
        single,
        row=np.arange(len(row)),
        weight=single.weight[row],
        row_delay=row_delay + delay[position],
    )


def one_column(wire: Wire, operator: Operator, dtype: DTypeLike) -> Operator:
    """Return the same map with a position for each channel."""
    if operator.is_identity:
        return _as_pool(operator, dtype)
    if operator.columns == 1:
        return operator
    source, position, row = operator.entries()
    columns, column = operator.columns, np.arange(operator.columns)
    refuse_large(wire, source.size * columns)
    row_delay = operator.row_delay
    if row_delay is not None:
        row_delay = jnp.repeat(row_delay, columns)
    # A pair becomes one for each column n: position n * positions + p, row r * columns + n.
    return replace(
        operator,
        positions=operator.size,
        columns=1,
        source=np.repeat(source, columns),
        position=(column * operator.positions + position[:, None]).reshape(-1),
        row=(row[:, None] * columns + column).reshape(-1),
        weight=operator.weight.reshape(-1, 1),
        row_delay=row_delay,
    )


# ---- pools and convolutions


def _is_image(operator: Operator, inward: tuple[int, ...]) -> bool:
    """Return whether the operator has a position for each channel and pixel."""
    return operator.columns == 1 and operator.positions == math.prod(inward)


def _has_columns_for_channels(operator: Operator, inward: tuple[int, ...]) -> bool:
    """Return whether the operator has a position for each pixel, and a column for each channel."""
    layout = operator.positions, operator.columns
    return operator.order is None and layout == (math.prod(inward[1:]), inward[0])


def _pooled(
    wire: Wire,
    inward: tuple[int, ...],
    parameters: Arrays,
    operator: Operator,
    dtype: DTypeLike,
) -> Operator:
    window, channels = wire.detail, inward[0]
    cells, outputs = math.prod(inward[1:]), math.prod(wire.shape[1:])
    factor = 1 / math.prod(window.kernel) if wire.kind == "AvgPool2d" else 1.0
    pixel, _, out = window_table(window, inward[1:], wire.shape[1:])
    operator = _as_pool(operator, dtype)
    positions = outputs
    if _is_image(operator, inward) or not _has_columns_for_channels(operator, inward):
        operator = one_column(wire, operator, dtype)
        channel = np.arange(channels)[:, None]  # the same window table for each channel
        pixel = (channel * cells + pixel).reshape(-1)
        out = (channel * outputs + out).reshape(-1)
        positions = channels * outputs
    matches = _find_matches(operator, pixel)
    return replace(
        operator,
        positions=positions,
        source=matches.source,
        position=out[matches.meeting],
        row=matches.row,
        weight=operator.weight * factor,
        order=None,
    )


def _convolved(
    wire: Wire,
    inward: tuple[int, ...],
    parameters: Arrays,
    operator: Operator,
    dtype: DTypeLike,
) -> Operator:
    operator = _as_pool(operator, dtype)
    has_columns = _has_columns_for_channels(operator, inward) and wire.detail.groups == 1
    if has_columns and not _is_image(operator, inward):
        return _convolved_columns(wire, inward, parameters["weight"], operator)
    operator = one_column(wire, operator, dtype)
    return _convolved_image(wire, inward, parameters["weight"], operator)


def _convolved_image(
    wire: Wire,
    inward: tuple[int, ...],
    kernel: Float[Array, "outputs inputs *taps"],
    operator: Operator,
) -> Operator:
    """Return a convolution of an operator that has a position for each channel and pixel.

    Args:
        kernel: its inputs are those of one group.
    """
    window, channels, groups = wire.detail, inward[0], wire.detail.groups
    cells, outputs = math.prod(inward[1:]), math.prod(wire.shape[1:])
    columns, taps = kernel.shape[0] // groups, math.prod(window.kernel)
    pixel, tap, out = window_table(window, inward[1:], wire.shape[1:])
    # The same window table for each channel, which has its own rows and the positions of its group.
    channel = np.arange(channels)[:, None]
    group = channel // (channels // groups)
    matches = _find_matches(operator, (channel * cells + pixel).reshape(-1))
    row = (channel * taps + tap).reshape(-1)[matches.meeting]
    position = (group * outputs + out).reshape(-1)[matches.meeting]
    # (groups, columns, inputs of a group, taps) to a row for each input channel and tap
    by_group = kernel.reshape(groups, columns, -1, taps).transpose(0, 2, 3, 1)
    weight = by_group.reshape(channels * taps, columns)
    row_delay = operator.row_delay
    if operator.is_pool:
        weight = weight * operator.weight[0, 0]
    else:  # a row for each pair of a row of the operator and a tap, shared by all positions
        pair = matches.row * len(weight) + row
        _, first, number = np.unique(pair, return_index=True, return_inverse=True)
        before = matches.row[first]
        refuse_large(wire, first.size * columns)
        weight = operator.weight[before] * weight[row[first]]
        row_delay = None if row_delay is None else row_delay[before]
        row = number
    return replace(
        operator,
        positions=groups * outputs,
        columns=columns,
        source=matches.source,
        position=position,
        row=row,
        weight=weight,
        row_delay=row_delay,
        order=_order_of_groups(groups, columns, outputs),
    )


def _order_of_groups(groups: int, columns: int, outputs: int) -> Int[np.ndarray, "channels"] | None:
    """Return the channel order of a convolution in groups: column n of group g at pixel p is
    counted as (n, g, p), and is channel (g, n, p).
    """
    if groups == 1 or columns == 1:
        return None
    counted = np.arange(columns * groups * outputs).reshape(columns, groups, outputs)
    return counted.transpose(1, 0, 2).reshape(-1)


def _convolved_columns(
    wire: Wire,
    inward: tuple[int, ...],
    kernel: Float[Array, "outputs inputs *taps"],
    operator: Operator,
) -> Operator:
    """Return a convolution, in one group, of an operator that has a position for each pixel and a
    column for each channel.
    """
    window, channels, columns = wire.detail, inward[0], kernel.shape[0]
    outputs, taps = math.prod(wire.shape[1:]), math.prod(window.kernel)
    pixel, tap, out = window_table(window, inward[1:], wire.shape[1:])
    matches = _find_matches(operator, pixel)
    # A row becomes one for each tap: the sum over the channels c of (row, c) times (n, c, tap).
    by_tap = kernel.reshape(columns, channels, taps)
    weight = jnp.einsum("rc,nct->rtn", operator.weight, by_tap).reshape(-1, columns)
    row_delay = operator.row_delay
    if row_delay is not None:
        row_delay = jnp.repeat(row_delay, taps)
    return replace(
        operator,
        positions=outputs,
        columns=columns,
        source=matches.source,
        position=out[matches.meeting],
        row=matches.row * taps + tap[matches.meeting],
        weight=weight,
        row_delay=row_delay,
        order=None,
    )


_Join = Callable[[Wire, tuple[int, ...], Arrays, Operator, DTypeLike], Operator]
#: Node kind -> function that joins such a node to an operator and shares weights between
#: positions, which saves pairs. All other nodes are joined connection by connection.
_JOINED: Mapping[str, _Join] = {
    "Linear": _matrix,
    "Affine": _matrix,
    "SparseLinear": _sparse,
    "Scale": _scaled,
    "Flatten": _reordered,
    "Delay": _delayed,
    "Conv1d": _convolved,
    "Conv2d": _convolved,
    "SumPool2d": _pooled,
    "AvgPool2d": _pooled,
}
