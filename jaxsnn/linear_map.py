"""Connections of NIR's linear nodes, as lists of single weights, and sparse maps composed of them.

Linear, Affine, Scale, Flatten, convolutions and pools all add up input channels with weights. The
functions `..._entries` list these connections for the traits of a node type. The engines' operators,
the chip's netlist and conversions to matrices use these lists, so that the geometry of a window is
implemented only in `window_table`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

Shape = tuple[int, ...]

#: Connections as (source, target, value): channels of input and output in C order, NumPy int arrays
#: (entries,), and the weights (entries,), NumPy or JAX arrays like the parameters.
Entries = tuple[np.ndarray, np.ndarray, Any]


def order_of_pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the indices that sort pairs of numbers of at least 0; equal pairs keep their order.

    It is `np.lexsort((second, first))`, several times as fast for millions of pairs.

    >>> order_of_pairs(np.array([1, 0, 1, 0]), np.array([2, 5, 2, 3])).tolist()
    [3, 1, 0, 2]
    """
    count = len(first)
    if count == 0:
        return np.zeros(0, np.int64)
    width = int(second.max()) + 1
    if (int(first.max()) + 1) * width * count >= 2**63:
        return np.lexsort((second, first))
    # Each key ends with the index of its pair, so that keys differ and contain the result.
    keys = (first.astype(np.int64) * width + second) * count + np.arange(count)
    keys.sort()
    return keys % count


@dataclass(frozen=True, kw_only=True)
class Window:
    """Sliding window of a convolution or pool, one entry for each spatial axis.

    Attributes:
        kernel, stride, dilation: Sizes.
        padding: (before, after); None if it is 'same' with a stride above 1, which frameworks
            interpret differently, or if it depends on the size of the input, see `like_xla`.
        groups: Number of groups of channels; 1 for a pool.
        like_xla: Padding like XLA's SAME: the output has the size of the input divided by the
            stride, rounded up; the smaller half of the padding comes before the input.
    """

    kernel: Shape
    stride: Shape
    dilation: Shape
    padding: tuple[tuple[int, int], ...] | None
    groups: int = 1
    like_xla: bool = False

    def at(self, size: Sequence[int]) -> Window:
        """Return the window with explicit padding, for an input of the specified spatial shape."""
        if not self.like_xla or len(size) != len(self.kernel):
            return self
        padding = []
        for axis, length in enumerate(size):
            reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            steps = -(-length // self.stride[axis]) - 1
            total = max(steps * self.stride[axis] + reach - length, 0)
            padding.append((total // 2, total - total // 2))
        return replace(self, padding=tuple(padding), like_xla=False)

    def output(self, size: Sequence[int]) -> Shape | None:
        """Return the spatial shape of the output; None if it is unknown or would be empty."""
        if self.like_xla:
            return self.at(size).output(size) if len(size) == len(self.kernel) else None
        if self.padding is None or len(size) != len(self.kernel):
            return None
        sizes = []
        for axis, length in enumerate(size):
            reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            room = length + sum(self.padding[axis]) - reach
            sizes.append(room // self.stride[axis] + 1)
        return tuple(sizes) if all(count > 0 for count in sizes) else None


def axis_table(
    window: Window, axis: int, inward: int, outward: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the input pixel, kernel tap and output pixel of each connection along one axis.

    Tap t connects output o with input o stride - padding + t dilation, if that input exists.

    Args:
        window: window with known padding.
        inward, outward: sizes along the axis.

    Returns:
        (input pixel, tap, output pixel), int arrays (connections,).
    """
    assert window.padding is not None
    out, tap = np.mgrid[:outward, : window.kernel[axis]].reshape(2, -1)
    pixel = out * window.stride[axis] - window.padding[axis][0] + tap * window.dilation[axis]
    inside = (pixel >= 0) & (pixel < inward)
    return pixel[inside], tap[inside], out[inside]


def window_table(
    window: Window, inward: Sequence[int], outward: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the input pixel, kernel tap and output pixel of each connection.

    Args:
        window: its padding is known.
        inward, outward: spatial shapes.

    Returns:
        (input pixel, tap, output pixel), int arrays (connections,), pixels and taps counted in C order.
    """
    axes = [
        axis_table(window, axis, *sizes)
        for axis, sizes in enumerate(zip(inward, outward, strict=True))
    ]
    # Combine every connection along the axes so far with every connection along the next axis.
    pixel, tap, out = axes[0]
    for axis, (next_pixel, next_tap, next_out) in enumerate(axes[1:], start=1):
        pixel = (pixel[:, None] * inward[axis] + next_pixel).reshape(-1)
        tap = (tap[:, None] * window.kernel[axis] + next_tap).reshape(-1)
        out = (out[:, None] * outward[axis] + next_out).reshape(-1)
    return pixel, tap, out


def matrix_entries(parameters: Mapping[str, Any], detail: Any, inward: Shape) -> Entries:
    """List all pairs of an input and an output; weight is (outputs, inputs)."""
    weight = parameters["weight"]
    target, source = np.divmod(np.arange(math.prod(weight.shape)), weight.shape[1])
    return source, target, weight.reshape(-1)


@dataclass(frozen=True, kw_only=True, eq=False)
class SparsePattern:
    """Connections of a sparse matrix, which are static: equal patterns have equal arrays.

    Attributes:
        shape: (outputs, inputs).
        source, target: (synapses,) int32 arrays, in the order of the weights.
    """

    shape: Shape
    source: np.ndarray
    target: np.ndarray

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, SparsePattern)
            and self.shape == other.shape
            and np.array_equal(self.source, other.source)
            and np.array_equal(self.target, other.target)
        )

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.shape, self.source.tobytes(), self.target.tobytes()))


def sparse_entries(parameters: Mapping[str, Any], detail: SparsePattern, inward: Shape) -> Entries:
    """List the synapses of a sparse matrix; weight is (synapses,)."""
    return detail.source, detail.target, parameters["weight"]


def scale_entries(parameters: Mapping[str, Any], detail: Any, inward: Shape) -> Entries:
    """Connect each channel to itself."""
    channels = np.arange(math.prod(inward))
    return channels, channels, parameters["scale"]


def flatten_entries(
    parameters: Mapping[str, Any], detail: tuple[int, ...] | None, inward: Shape
) -> Entries:
    """Connect each channel to its place; detail is the order of the axes, or None."""
    channels = np.arange(math.prod(inward))
    source = channels if detail is None else channels.reshape(inward).transpose(detail).reshape(-1)
    return source, channels, np.ones(channels.size)


def convolution_entries(parameters: Mapping[str, Any], detail: Window, inward: Shape) -> Entries:
    """List the taps of a convolution; weight is (out channels, in channels of a group, *kernel)."""
    weight = parameters["weight"]
    source, target, number = _taps(detail, inward, *weight.shape[:2])
    return source, target, weight.reshape(-1)[number]


def sum_entries(parameters: Mapping[str, Any], detail: Window, inward: Shape) -> Entries:
    """Connect each pixel to the windows that cover it, within its channel."""
    return _pool_entries(detail, inward, 1.0)


def mean_entries(parameters: Mapping[str, Any], detail: Window, inward: Shape) -> Entries:
    """Connect each pixel to the windows that cover it, as `sum_entries` does, with the weight of a
    mean.
    """
    return _pool_entries(detail, inward, 1 / math.prod(detail.kernel))


def _pool_entries(window: Window, inward: Shape, share: float) -> Entries:
    # A pool is a convolution with a group for each channel.
    source, target, _ = _taps(window, inward, inward[0], 1)
    return source, target, np.full(source.size, share)


def _taps(
    window: Window, inward: Shape, out_channels: int, channels_of_group: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the input, the output and the index into the flattened weight of each connection.

    Args:
        out_channels: number of output channels of all groups.
        channels_of_group: number of input channels of one group.
    """
    outward = window.output(inward[1:]) or ()
    pixel, tap, out = window_table(window, inward[1:], outward)
    groups = inward[0] // channels_of_group
    # (out channels, channels of a group, connections)
    target_channel = np.arange(out_channels)[:, None, None]
    channel = np.arange(channels_of_group)[None, :, None]
    source_channel = target_channel // (out_channels // groups) * channels_of_group + channel
    number = (target_channel * channels_of_group + channel) * math.prod(window.kernel) + tap
    source = source_channel * math.prod(inward[1:]) + pixel
    target = np.broadcast_to(target_channel * math.prod(outward) + out, number.shape)
    return source.reshape(-1), target.reshape(-1), number.reshape(-1)


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearMap:
    """Sparse matrix: entries (source, target, value), each target the weighted sum of its sources.

    Attributes:
        source, target: (entries,) int64, no pair twice, in the order of (target, source).
        value: (entries,) float64, none of them zero.
    """

    source: np.ndarray
    target: np.ndarray
    value: np.ndarray

    @classmethod
    def identity(cls, size: int) -> LinearMap:
        """Return the identity map."""
        channels = np.arange(size)
        return cls(source=channels, target=channels, value=np.ones(size))

    @classmethod
    def sum(cls, entries: Iterable[Entries | LinearMap]) -> LinearMap:
        """Return the sum of maps or lists of connections, without entries that cancel."""
        columns = [
            (part.source, part.target, part.value) if isinstance(part, LinearMap) else part
            for part in entries
        ]
        source, target, value = (
            np.concatenate([np.asarray(column) for column in parts])
            for parts in zip(*columns, strict=True)
        )
        value = value.astype(float)
        order = np.lexsort((source, target))
        source, target, value = source[order], target[order], value[order]
        is_first = np.ones(source.size, bool)
        is_first[1:] = (np.diff(source) != 0) | (np.diff(target) != 0)
        first = np.flatnonzero(is_first)
        total = np.add.reduceat(value, first) if first.size else value
        nonzero = total != 0
        return cls(
            source=source[first][nonzero], target=target[first][nonzero], value=total[nonzero]
        )

    def count_then(self, following: LinearMap) -> int:
        """Return the number of paths through this map and the one that follows it."""
        return int(np.sum(self._continuations(following)[1]))

    def then(self, following: LinearMap) -> LinearMap:
        """Return the map that applies this one first and then another."""
        begin, count, order = self._continuations(following)
        inside = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        continuation = order[np.repeat(begin, count) + inside]
        value = np.repeat(self.value, count) * following.value[continuation]
        source = np.repeat(self.source, count)
        return LinearMap.sum([(source, following.target[continuation], value)])

    def _continuations(self, following: LinearMap) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return for each entry the start and the number of its continuations, and the order that
        sorts the following map's entries so that these are adjacent.
        """
        order = np.argsort(following.source, kind="stable")
        starts = following.source[order]
        begin = np.searchsorted(starts, self.target, side="left")
        return begin, np.searchsorted(starts, self.target, side="right") - begin, order
