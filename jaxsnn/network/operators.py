"""What stands between two populations: linear nodes, one after the other, as one sparse map with
shared weights.

A map sends an event of a source channel to some (position, row) pairs: at that position it weighs
`weight[row]`, a vector over the lanes. A dense matrix has one position and a row for each source
channel; a convolution has a position for each output pixel, a row for each input channel and kernel
tap, and a lane for each output channel; a pool has a position for each output channel and one lane.
Which pairs there are is static (NumPy), weights and delays are JAX arrays that a gradient can be
taken by.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import LoweringError
from jaxsnn.network.linear_nodes import entries_of
from jaxsnn.network.linear_nodes import refuse_large as _refuse_large
from jaxsnn.network.structure import Wire

_BETWEEN = "put spiking neurons in between, or simulate with engine=TimeStepped()"


@dataclass(frozen=True, kw_only=True, eq=False)
class Operator:
    """A linear map from the channels of a source to the channels of a node, with delays.

    Attributes:
        inward: channels of the source.
        positions, lanes: their product is the number of channels; channel n * positions + p is lane
            n at position p.
        source, position, row: (entries,) int arrays, the pairs; None: source channel i goes to row
            i at the only position.
        weight: (rows, lanes); None: the identity, with one lane for each channel.
        delay: (inward,) seconds by which events of each source channel come later, or None.
        row_delay: (rows,) seconds, in addition, or None.
        order: (channels,) int array: channel k of the node is channel order[k] as counted above;
            None: as counted.
    """

    inward: int
    positions: int
    lanes: int
    source: np.ndarray | None = None
    position: np.ndarray | None = None
    row: np.ndarray | None = None
    weight: Any = None
    delay: Any = None
    row_delay: Any = None
    order: np.ndarray | None = None

    @property
    def size(self):
        """Number of channels of the node."""
        return self.positions * self.lanes

    @property
    def is_identity(self):
        """Whether it does nothing but delay."""
        return self.weight is None

    @property
    def is_matrix(self):
        """Whether it is a matrix with delays of its source channels at most."""
        return self.source is None and self.row_delay is None and self.order is None

    @property
    def is_pool(self):
        """Whether it adds channels up, all with one weight."""
        return (
            self.lanes == 1
            and self.weight is not None
            and self.weight.shape[0] == 1
            and self.row_delay is None
        )

    def entries(self):
        """(source, position, row), also of an operator that goes without them."""
        if self.source is None or self.position is None or self.row is None:
            every = np.arange(self.inward)
            return every, np.zeros_like(every), every
        return self.source, self.position, self.row

    def rows(self, dtype):
        """`weight`, also of the identity."""
        return jnp.eye(self.inward, dtype=dtype) if self.weight is None else self.weight

    def in_place(self, values):
        """Values of the node's channels (..., channels) in the order of lanes and positions."""
        return values if self.order is None else values[..., np.argsort(self.order)]

    def dense(self, dtype):
        """The map as a matrix (inward, channels); its delays are not in it."""
        if self.source is None and self.order is None:
            return self.rows(dtype)
        source, position, row = self.entries()
        tiles = jnp.zeros((self.inward, self.positions, self.lanes), dtype)
        tiles = tiles.at[source, position].add(self.rows(dtype)[row])
        matrix = jnp.swapaxes(tiles, 1, 2).reshape(self.inward, self.size)
        return matrix if self.order is None else matrix[:, self.order]

    def apply(self, values, dtype):
        """What constant values of the source's channels become."""
        if self.is_identity:
            return values
        source, position, row = self.entries()
        tiles = jnp.zeros((self.positions, self.lanes), dtype)
        tiles = tiles.at[position].add(values[source][:, None] * self.rows(dtype)[row])
        flat = tiles.T.reshape(-1)
        return flat if self.order is None else flat[self.order]


def as_matrix(operator, dtype):
    """The same map as a matrix, of an operator whose rows have no delays."""
    return Operator(
        inward=operator.inward,
        positions=1,
        lanes=operator.size,
        weight=operator.dense(dtype),
        delay=operator.delay,
    )


def alike(paths, mergeable):
    """Paths (source, operator) in groups, each from one source with the same delays; alone where
    not `mergeable`.
    """
    groups = {}
    for number, (source, operator) in enumerate(paths):
        key = (source, id(operator.delay)) if mergeable(operator) else number
        groups.setdefault(key, (source, []))[1].append(operator)
    return list(groups.values())


def added(paths, dtype):
    """Paths (source, operator), in which matrices from one source with the same delays are one: an
    event acts once.
    """
    return tuple(
        (
            source,
            same[0]
            if len(same) == 1
            else replace(same[0], weight=sum(each.rows(dtype) for each in same)),
        )
        for source, same in alike(paths, lambda operator: operator.is_matrix)
    )


def identity(size):
    """The map that changes nothing."""
    return Operator(inward=size, positions=1, lanes=size)


def through(wire: Wire, inward, parameters, operator: Operator, dtype) -> Operator:
    """An operator followed by one linear node; biases are not part of it.

    Args:
        wire: the node.
        inward: shape of its input.
        parameters: NIR's names -> arrays.

    Raises:
        LoweringError: the two cannot be joined.
    """
    join = _JOINED.get(wire.kind)
    if join is not None:
        return join(wire, inward, parameters, operator, dtype)
    if wire.linear:
        return _one_by_one(wire, inward, parameters, operator, dtype)
    raise LoweringError(
        f"node '{wire.name}' is a {wire.kind}, which is not a linear node",
        fix="simulate with engine=TimeStepped()",
        node=wire.name,
    )


def _one_by_one(wire, inward, parameters, operator, dtype):
    """Any linear node: a matrix where all is connected or stands behind one, else each of its
    connections is an entry of its own.
    """
    source, target, value = entries_of(wire, inward, parameters, dtype)
    inputs = math.prod(inward)
    if source.size == inputs * wire.size or (operator.positions == 1 and not operator.is_identity):
        _refuse_large(wire, inputs * wire.size)
        matrix = jnp.zeros((wire.size, inputs), dtype).at[target, source].add(value)
        return _linear(wire, operator, matrix)
    layout = {"positions": wire.size, "lanes": 1, "order": None}
    if operator.is_identity:
        return replace(
            operator,
            **layout,
            source=source,
            position=target,
            row=np.arange(source.size),
            weight=value[:, None],
        )
    single = one_lane(wire, operator, dtype)
    meetings = source, None, target
    start, row, entry, meeting = _joined(single, meetings)
    _refuse_large(wire, len(entry))
    row_delay = None if single.row_delay is None else single.row_delay[row[entry]]
    return replace(
        single,
        **layout,
        source=start[entry],
        position=target[meeting],
        row=np.arange(len(entry)),
        weight=single.weight[row[entry]] * value[meeting][:, None],
        row_delay=row_delay,
    )


def _matrix(wire, inward, parameters, operator, dtype):
    if "delay" in parameters:
        return _synapses_with_delays(wire, operator, parameters["weight"], parameters["delay"])
    return _linear(wire, operator, parameters["weight"])


def _linear(wire, operator, weight):
    """weight: (outputs, channels)."""
    weight, outputs = operator.in_place(weight), weight.shape[0]
    if operator.is_identity and wire.kind == "Linear" and wire.detail is not None:
        return _copied(operator, wire.detail, weight)
    if operator.is_identity:
        return replace(operator, lanes=outputs, weight=weight.T)
    if operator.positions == 1:
        return replace(operator, lanes=outputs, weight=operator.weight @ weight.T, order=None)
    _, position, _ = operator.entries()
    together = {"positions": 1, "lanes": outputs, "position": 0 * position, "order": None}
    if operator.is_pool:
        return replace(operator, **together, row=position, weight=operator.weight[0, 0] * weight.T)
    if operator.lanes == 1:  # each entry with a row of its own
        _, _, row = operator.entries()
        _refuse_large(wire, len(row) * outputs)
        row_delay = None if operator.row_delay is None else operator.row_delay[row]
        rows = operator.weight[row] * weight.T[position]
        return replace(
            operator, **together, row=np.arange(len(row)), weight=rows, row_delay=row_delay
        )
    _refuse_large(wire, operator.weight.shape[0] * operator.positions * outputs)
    by_lane = weight.reshape(outputs, operator.lanes, operator.positions)
    rows = jnp.einsum("rn,onp->pro", operator.weight, by_lane).reshape(-1, outputs)
    return replace(_rows_by_position(operator, rows), **together)


def _copied(operator, channels, weight):
    """A Linear that copies channels, one to each output: wiring, as long as its weights are what
    they were.
    """
    every = np.arange(len(channels))
    expected = np.zeros(weight.shape, bool)
    expected[every, channels] = True
    one = jnp.where(jnp.all(weight == expected), 1.0, jnp.nan).astype(weight.dtype)
    return replace(
        operator,
        positions=len(channels),
        lanes=1,
        source=np.asarray(channels),
        position=every,
        row=0 * every,
        weight=one[None, None],
    )


def _rows_by_position(operator, rows):
    """The operator with rows of its own at each position, counted position by position."""
    _, position, row = operator.entries()
    count = operator.weight.shape[0]
    row_delay = (
        None if operator.row_delay is None else jnp.tile(operator.row_delay, operator.positions)
    )
    return replace(
        operator,
        **_explicit(operator),
        row=position * count + row,
        weight=rows,
        row_delay=row_delay,
    )


def _explicit(operator):
    """The entries of an operator that may go without them, but for their rows."""
    source, position, _ = operator.entries()
    return {"source": source, "position": position}


def _synapses_with_delays(wire, operator, weight, delay):
    """A Linear whose synapses have delays (outputs, inputs): a position for each output."""
    if not operator.is_identity:
        raise LoweringError(
            f"node '{wire.name}' ({wire.kind}) has a delay for each synapse, and stands behind another linear node",
            fix="put it right behind the neurons or the input",
            node=wire.name,
        )
    outputs, inputs = weight.shape
    source, position = (axis.reshape(-1) for axis in np.mgrid[:inputs, :outputs])
    return replace(
        operator,
        positions=outputs,
        lanes=1,
        source=source,
        position=position,
        row=np.arange(source.size),
        weight=weight.T.reshape(-1, 1),
        row_delay=delay.T.reshape(-1),
    )


def _scaled(wire, inward, parameters, operator, dtype):
    scale = operator.in_place(parameters["scale"])  # (channels,)
    if operator.is_identity or operator.is_pool:
        every = _pool_entries(operator)
        factor = 1.0 if operator.is_identity else operator.weight[0, 0]
        return replace(
            operator,
            **every,
            positions=operator.size,
            lanes=1,
            row=every["position"],
            weight=(factor * scale)[:, None].astype(dtype),
        )
    if operator.positions == 1:
        return replace(operator, weight=operator.weight * scale)
    _refuse_large(wire, operator.weight.shape[0] * operator.size)
    by_position = scale.reshape(operator.lanes, operator.positions).T
    return _rows_by_position(
        operator, (operator.weight[None] * by_position[:, None]).reshape(-1, operator.lanes)
    )


def _pool_entries(operator):
    """Source and position of an identity or a pool, as a pool has them."""
    if operator.is_identity:
        every = np.arange(operator.inward)
        return {"source": every, "position": every}
    return _explicit(operator)


def _as_pool(operator, dtype):
    """The identity as a pool of one channel each."""
    if not operator.is_identity:
        return operator
    every = _pool_entries(operator)
    one = jnp.ones((1, 1), dtype)
    return replace(
        operator, **every, positions=operator.size, lanes=1, row=0 * every["source"], weight=one
    )


def _reordered(wire, inward, parameters, operator, dtype):
    if wire.detail is None:
        return operator
    place = np.arange(operator.size).reshape(inward).transpose(wire.detail).reshape(-1)
    if operator.is_identity:
        operator = _as_pool(operator, dtype)
    return replace(operator, order=place if operator.order is None else operator.order[place])


def _delayed(wire, inward, parameters, operator, dtype):
    delay = parameters["delay"]  # (channels,) seconds
    if operator.is_identity:
        return replace(operator, delay=delay if operator.delay is None else operator.delay + delay)
    delay = operator.in_place(delay)
    single = one_lane(wire, operator, dtype)
    _, position, row = single.entries()
    own = 0.0 if single.row_delay is None else single.row_delay[row]
    return replace(
        single, row=np.arange(len(row)), weight=single.weight[row], row_delay=own + delay[position]
    )


def one_lane(wire, operator, dtype):
    """The same map with a position for each channel."""
    if operator.is_identity:
        return _as_pool(operator, dtype)
    if operator.lanes == 1:
        return operator
    source, position, row = operator.entries()
    _refuse_large(wire, source.size * operator.lanes)
    lane = np.arange(operator.lanes)
    spread = lambda array: np.repeat(array, operator.lanes)  # noqa: E731
    return replace(
        operator,
        positions=operator.size,
        lanes=1,
        source=spread(source),
        position=(lane * operator.positions + position[:, None]).reshape(-1),
        row=(row[:, None] * operator.lanes + lane).reshape(-1),
        weight=operator.weight.reshape(-1, 1),
        row_delay=None
        if operator.row_delay is None
        else jnp.repeat(operator.row_delay, operator.lanes),
    )


def window_table(window, inward, outward):
    """Which input pixel meets which output pixel through which kernel tap.

    Args:
        window: with kernel, stride, dilation and padding for each axis.
        inward, outward: spatial shapes.

    Returns:
        (input pixel, tap, output pixel), int arrays (meetings,), pixels and taps counted in C
        order.
    """
    axes = []
    for axis, size in enumerate(inward):
        out, tap = np.mgrid[: outward[axis], : window.kernel[axis]].reshape(2, -1)
        place = out * window.stride[axis] - window.padding[axis][0] + tap * window.dilation[axis]
        inside = (place >= 0) & (place < size)
        axes.append((place[inside], tap[inside], out[inside]))
    found = axes[0]
    for axis, more in enumerate(axes[1:], start=1):
        sizes = inward[axis], window.kernel[axis], outward[axis]
        found = tuple(
            (a[:, None] * n + b).reshape(-1) for a, b, n in zip(found, more, sizes, strict=True)
        )
    return found


def _joined(operator, meetings):
    """Sources and rows of an operator, and pairs (entry, meeting) where its channel is a meeting's
    input pixel.
    """
    source, position, row = operator.entries()
    if operator.order is not None:
        position = np.argsort(operator.order)[position]
    order = np.argsort(meetings[0], kind="stable")
    first = np.searchsorted(meetings[0][order], position)
    count = np.searchsorted(meetings[0][order], position, side="right") - first
    entry = np.repeat(np.arange(len(position)), count)
    within = np.arange(len(entry)) - np.repeat(np.cumsum(count) - count, count)
    return source, row, entry, order[np.repeat(first, count) + within]


def _pooled(wire, inward, parameters, operator, dtype):
    window, channels = wire.detail, inward[0]
    cells, outputs = math.prod(inward[1:]), math.prod(wire.shape[1:])
    factor = 1 / math.prod(window.kernel) if wire.kind == "AvgPool2d" else 1.0
    pixel, _, out = window_table(window, inward[1:], wire.shape[1:])
    operator = _as_pool(operator, dtype)
    if operator.lanes == 1 and operator.positions == channels * cells:
        every = np.arange(channels)[:, None]
        meetings = (every * cells + pixel).reshape(-1), None, (every * outputs + out).reshape(-1)
        outputs *= channels
    elif operator.order is None and (operator.positions, operator.lanes) == (cells, channels):
        meetings = pixel, None, out
    else:
        raise _unfit(wire)
    source, row, entry, meeting = _joined(operator, meetings)
    return replace(
        operator,
        positions=outputs,
        source=source[entry],
        position=meetings[2][meeting],
        row=row[entry],
        weight=operator.weight * factor,
        order=None,
    )


def _unfit(wire):
    return LoweringError(
        f"node '{wire.name}' ({wire.kind}) stands behind linear nodes that mix its channels and pixels",
        fix=_BETWEEN,
        node=wire.name,
    )


def _convolved(wire, inward, parameters, operator, dtype):
    kernel = parameters["weight"]  # (outputs, inputs of a group, *taps)
    window, channels, groups = wire.detail, inward[0], wire.detail.groups
    cells, outputs = math.prod(inward[1:]), math.prod(wire.shape[1:])
    lanes, taps = kernel.shape[0] // groups, math.prod(window.kernel)
    pixel, tap, out = window_table(window, inward[1:], wire.shape[1:])
    operator = _as_pool(operator, dtype)
    if operator.lanes == 1 and operator.positions == channels * cells:
        channel = np.arange(channels)[:, None]
        group = channel // (channels // groups)
        meetings = tuple(
            array.reshape(-1)
            for array in (channel * cells + pixel, channel * taps + tap, group * outputs + out)
        )
        rows = (
            kernel.reshape(groups, lanes, -1, taps)
            .transpose(0, 2, 3, 1)
            .reshape(channels * taps, lanes)
        )
    elif (
        operator.order is None
        and groups == 1
        and (operator.positions, operator.lanes) == (cells, channels)
    ):
        meetings = pixel, tap, out
        rows = jnp.einsum(
            "rc,nct->rtn", operator.weight, kernel.reshape(lanes, channels, taps)
        ).reshape(-1, lanes)
    else:
        raise _unfit(wire)
    source, row, entry, meeting = _joined(operator, meetings)
    row_delay = operator.row_delay
    if operator.lanes != 1:
        new_row = row[entry] * taps + meetings[1][meeting]
        row_delay = None if row_delay is None else jnp.repeat(row_delay, taps)
    elif operator.is_pool:
        new_row, rows = meetings[1][meeting], rows * operator.weight[0, 0]
    else:  # each channel with a weight or a delay of its own
        _refuse_large(wire, len(entry) * lanes)
        new_row, rows = (
            np.arange(len(entry)),
            operator.weight[row[entry]] * rows[meetings[1][meeting]],
        )
        row_delay = None if row_delay is None else row_delay[row[entry]]
    order = None
    if groups > 1 and lanes > 1:  # lane n of group g at pixel p is channel (g, n, p)
        order = (
            np.arange(lanes * groups * outputs)
            .reshape(lanes, groups, outputs)
            .transpose(1, 0, 2)
            .reshape(-1)
        )
    return replace(
        operator,
        positions=groups * outputs,
        lanes=lanes,
        source=source[entry],
        position=meetings[2][meeting],
        row=new_row,
        weight=rows,
        row_delay=row_delay,
        order=order,
    )


#: How nodes of some kinds join an operator: they share weights between positions, which saves
#: entries. All others are joined connection by connection.
_JOINED = {
    "Linear": _matrix,
    "Affine": _matrix,
    "Scale": _scaled,
    "Flatten": _reordered,
    "Delay": _delayed,
    "Conv1d": _convolved,
    "Conv2d": _convolved,
    "SumPool2d": _pooled,
    "AvgPool2d": _pooled,
}
