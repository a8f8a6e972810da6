"""The connections of NIR's linear nodes, one by one: `NodeTraits.entries`.

Each function takes (parameters, detail, inward) and gives (source, target, value): channels of
input and output, counted in C order, NumPy int arrays (entries,), and the numbers that they are
multiplied by, of the kind of the parameters: NumPy or JAX.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsnn.nir.model.node import Window
from jaxsnn.nir.model.node_shapes import Shape

Entries = tuple[np.ndarray, np.ndarray, Any]


def matrix_entries(parameters: Mapping[str, Any], detail: Any, inward: Shape) -> Entries:
    """All pairs of an input and an output; weight is (outputs, inputs)."""
    weight = parameters["weight"]
    target, source = np.divmod(np.arange(math.prod(weight.shape)), weight.shape[1])
    return source, target, weight.reshape(-1)


def scale_entries(parameters: Mapping[str, Any], detail: Any, inward: Shape) -> Entries:
    """Each channel to itself."""
    every = np.arange(math.prod(inward))
    return every, every, parameters["scale"]


def flatten_entries(
    parameters: Mapping[str, Any], detail: tuple[int, ...] | None, inward: Shape
) -> Entries:
    """Each channel to its place; detail is the order of the axes, or None."""
    every = np.arange(math.prod(inward))
    source = every if detail is None else every.reshape(inward).transpose(detail).reshape(-1)
    return source, every, np.ones(every.size)


def convolution_entries(parameters: Mapping[str, Any], detail: Window, inward: Shape) -> Entries:
    """The taps of a convolution; weight is (out channels, in channels / groups, *kernel)."""
    weight = parameters["weight"]
    source, target, number = _taps(detail, inward, *weight.shape[:2])
    return source, target, weight.reshape(-1)[number]


def sum_entries(parameters: Mapping[str, Any], detail: Window, inward: Shape) -> Entries:
    """Each pixel to the windows that it is in, within its channel."""
    return _pooled(detail, inward, 1.0)


def mean_entries(parameters: Mapping[str, Any], detail: Window, inward: Shape) -> Entries:
    """The same, by the share of the window."""
    return _pooled(detail, inward, 1 / math.prod(detail.kernel))


def _pooled(frame: Window, inward: Shape, share: float) -> Entries:
    # A pool is a convolution of each channel by itself.
    alone = Window(**{**vars(frame), "groups": inward[0]})
    source, target, _ = _taps(alone, inward, inward[0], 1)
    return source, target, np.full(source.size, share)


def _taps(
    frame: Window, inward: Shape, out_channels: int, in_channels: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which input meets which output through which number of the flattened weight.

    Args:
        frame: its groups divide both numbers of channels.
        in_channels: of one group.
    """
    space = frame.output(inward[1:]) or ()
    outputs = np.arange(out_channels * math.prod(space)).reshape(out_channels, -1)
    inputs = np.arange(math.prod(inward)).reshape(inward)
    first_of_group = np.arange(out_channels) // (out_channels // frame.groups) * in_channels
    taps = list(itertools.product(*(range(size) for size in frame.kernel)))
    sources, targets, numbers = [], [], []
    # Each tap of the kernel connects each output to at most one input of a channel.
    for number, tap in enumerate(taps):
        inside, pixels = _met(frame, tap, inward[1:], space)
        met = inputs[:, *np.ix_(*pixels)].reshape(inward[0], -1)
        target = outputs[:, inside]
        for channel in range(in_channels):
            sources.append(met[first_of_group + channel].reshape(-1))
            targets.append(target.reshape(-1))
            of_weight = (np.arange(out_channels) * in_channels + channel) * len(taps) + number
            numbers.append(np.repeat(of_weight, target.shape[1]))
    return np.concatenate(sources), np.concatenate(targets), np.concatenate(numbers)


def _met(
    frame: Window, tap: tuple[int, ...], size: Shape, space: Shape
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Which output pixels a tap connects, (pixels,) bool, and to which input pixels, by axis."""
    places = [
        np.arange(length) * stride - padding[0] + offset * dilation
        for length, stride, padding, offset, dilation in zip(
            space, frame.stride, frame.padding or (), tap, frame.dilation, strict=True
        )
    ]
    valid = [(place >= 0) & (place < length) for place, length in zip(places, size, strict=True)]
    inside = np.logical_and.reduce(np.meshgrid(*valid, indexing="ij")).reshape(-1)
    return inside, [place[good] for place, good in zip(places, valid, strict=True)]
