"""Shapes of NIR's nodes: those that parameters determine, those of outputs, and shapes that do not
fit.

Functions for `NodeTraits`. All take a record, whose parameters are as the file has them; none looks
at its class.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from jaxsnn.errors import LoweringError, listing
from jaxsnn.linear_map import Window, axis_table
from jaxsnn.nir.model.node import LIKE_XLA, Fault, Shape, Surroundings, ints
from jaxsnn.wording import Text

if TYPE_CHECKING:
    from jaxsnn.nir.model.node import Node

# -- matrices


def matrix_input(node: Node) -> Shape:
    """Return the input shape (..., inputs) of a weight of shape (..., outputs, inputs)."""
    weight = np.shape(node.value("weight"))
    return (*weight[:-2], weight[-1])


def matrix_output(node: Node, shape: Shape = ()) -> Shape:
    """Return the output shape (..., outputs) of a weight of shape (..., outputs, inputs), for any
    input.
    """
    weight = np.shape(node.value("weight"))
    return (*weight[:-2], weight[-2])


def matrix_synapses(node: Node, shape: Shape | None = None) -> int:
    """Return the number of nonzero weights."""
    return int(np.count_nonzero(node.value("weight")))


def matrix_problems(node: Node) -> Iterator[Fault]:
    """Yield a fault for a weight that is not a matrix, or a bias whose shape does not match it."""
    weight = np.shape(node.value("weight"))
    if len(weight) < 2:
        yield Fault(
            "weight-shape",
            Text("has a weight of shape {shape}", shape=weight),
            "its shape must be (outputs, inputs)",
        )
    elif node.traits.bias is not None:
        yield from _bias_problems(node, matrix_output(node))


def matrix_detail(node: Node, around: Surroundings) -> None:
    """Refuse a weight with more than two axes; matrices need no details.

    Raises:
        LoweringError: No engine supports it.
    """
    weight = np.shape(node.value("weight"))
    if len(weight) != 2:
        raise LoweringError(
            Text(
                "node '{node}' ({type}): weight has shape {shape}",
                node=node.name,
                type=node.type,
                shape=weight,
            ),
            fix="use the shape (outputs, inputs)",
            node=node.name,
        )


def _bias_problems(node: Node, outputs: Shape) -> Iterator[Fault]:
    weight, bias = (np.shape(node.value(key)) for key in ("weight", "bias"))
    one_number = math.prod(bias) == 1 and len(bias) <= len(outputs)
    if not one_number and bias != outputs:
        description = Text(
            "has a bias of shape {shape}, but its weight of shape {weight_shape} has outputs of "
            "shape {expected}",
            shape=bias,
            weight_shape=weight,
            expected=outputs,
        )
        yield Fault("bias-shape", description, "use the same number of outputs for both")


def convolution_window(node: Node) -> Window:
    """Return the window of a convolution; scalars and arrays with one element apply to each axis."""
    kernel = tuple(int(size) for size in np.shape(node.value("weight"))[2:])
    dilation = _per_axis(node, "dilation")
    groups = int(np.ravel(node.value("groups"))[0])
    return _window(node, kernel, dilation, groups)


def pool_window(node: Node) -> Window:
    """Return the window of a pool; scalars and arrays with one element apply to each axis."""
    return _window(node, _per_axis(node, "kernel_size"), (1,) * _spatial_axes(node), 1)


def _window(node: Node, kernel: Shape, dilation: Shape, groups: int) -> Window:
    stride, padding = _per_axis(node, "stride"), node.value("padding")
    like_xla = isinstance(padding, str) and padding == LIKE_XLA
    if like_xla:
        padded = None
    elif isinstance(padding, str):
        padded = _named_padding(padding, kernel, stride, dilation)
    else:
        padded = tuple((size, size) for size in _per_axis(node, "padding"))
    return Window(
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        padding=padded,
        groups=groups,
        like_xla=like_xla,
    )


def _spatial_axes(node: Node) -> int:
    """Return the number of axes of a window: all axes after the channel axis, or only the last axis
    for types that accept any number of axes.
    """
    return 1 if node.traits.axes is None else node.traits.axes - 1


def _per_axis(node: Node, name: str) -> Shape:
    flat = ints(node.value(name))
    return flat * _spatial_axes(node) if len(flat) == 1 else flat


def _named_padding(
    name: str, kernel: Shape, stride: Shape, dilation: Shape
) -> tuple[tuple[int, int], ...] | None:
    if name == "valid":
        return ((0, 0),) * len(kernel)
    if any(step != 1 for step in stride):
        return None
    totals = [spread * (size - 1) for spread, size in zip(dilation, kernel, strict=True)]
    return tuple((total // 2, total - total // 2) for total in totals)


def _channels(node: Node) -> int:
    """Return the number of input channels of a convolution."""
    return np.shape(node.value("weight"))[1] * convolution_window(node).groups


def convolution_input(node: Node) -> Shape | None:
    """Return the input shape (channels, *space) of a convolution if the file declares it."""
    declared = node.value("input_shape")
    return None if declared is None else (_channels(node), *ints(declared))


def convolution_output(node: Node, shape: Shape) -> Shape | None:
    """Return the output shape (channels, *space) of a convolution."""
    return _after_window(convolution_window(node), np.shape(node.value("weight"))[0], shape)


def pool_output(node: Node, shape: Shape) -> Shape | None:
    """Return the output shape (channels, *space) of a pool."""
    return _after_window(pool_window(node), shape[0] if shape else 0, shape)


def last_axis_output(node: Node, shape: Shape) -> Shape | None:
    """Return the output shape (*channels, length) of a pool along the last axis."""
    space = pool_window(node).output(shape[-1:]) if shape else None
    return None if space is None else (*shape[:-1], *space)


def _after_window(frame: Window, channels: int, shape: Shape) -> Shape | None:
    if len(shape) != len(frame.kernel) + 1:
        return None
    space = frame.output(shape[1:])
    return None if space is None else (channels, *space)


def convolution_synapses(node: Node, shape: Shape | None) -> int | None:
    """Return the number of pairs of an input and an output with a nonzero weight."""
    frame = convolution_window(node)
    if shape is not None:
        frame = frame.at(shape[1:])
    space = None if shape is None else frame.output(shape[1:])
    if shape is None or space is None or frame.padding is None:
        return None
    # (*kernel): nonzero weights of each tap, times the pixels that it meets along each axis.
    pairs = np.count_nonzero(node.value("weight"), axis=(0, 1)).astype(np.int64)
    for axis in range(len(space)):
        _, tap, _ = axis_table(frame, axis, shape[1 + axis], space[axis])
        meetings = np.bincount(tap, minlength=frame.kernel[axis])
        pairs = np.moveaxis(np.moveaxis(pairs, axis, -1) * meetings, -1, axis)
    return int(pairs.sum())


def convolution_problems(node: Node) -> Iterator[Fault]:
    """Yield faults for a weight, bias, groups or window settings whose shapes do not fit
    together.
    """
    rank = _spatial_axes(node) + 2
    weight = np.shape(node.value("weight"))
    if len(weight) != rank:
        yield Fault(
            "weight-shape",
            Text("has a weight of shape {shape}", shape=weight),
            f"it must have {rank} axes",
        )
        return
    yield from _bias_problems(node, weight[:1])
    yield from window_problems(node)
    outputs, groups = weight[0], int(np.ravel(node.value("groups"))[0])
    if groups > 0 and outputs % groups:
        description = Text(
            "has {outputs} output channels in {groups} groups", outputs=outputs, groups=groups
        )
        fix = "the number of channels must be a multiple of the number of groups"
        yield Fault("groups", description, fix)


def window_problems(node: Node) -> Iterator[Fault]:
    """Yield faults for window settings with neither one number nor one for each axis."""
    axes = _spatial_axes(node)
    for name in ("kernel_size", "stride", "padding", "dilation", "input_shape"):
        value = getattr(node, name, None)
        if value is None or isinstance(value, str):
            continue
        if np.size(value) not in ((axes,) if name == "input_shape" else (1, axes)):
            description = Text(
                "has {parameter} of shape {shape}", parameter=name, shape=np.shape(value)
            )
            yield Fault("parameter-shapes", description, f"specify one number or {axes}")


def convolution_misfits(node: Node, shape: Shape) -> Iterator[Fault]:
    """Yield a fault if the input does not have the number of channels that a convolution expects."""
    channels, arriving = _channels(node), shape[0] if shape else 0
    if arriving != channels:
        description = Text(
            "expects {expected} channels, but its input of shape {shape} has {actual}",
            expected=channels,
            shape=shape,
            actual=arriving,
        )
        yield Fault(
            "shape-mismatch", description, "use the order of axes of NIR: channels, height, width"
        )


def window_detail(node: Node, around: Surroundings) -> Window:
    """Return the window, with its padding in numbers.

    Raises:
        LoweringError: The padding differs between frameworks.
    """
    return padded_window(node, around.inward)


def padded_window(node: Node, inward: Shape) -> Window:
    """Return the window over an input of a shape, with its padding in numbers.

    Raises:
        LoweringError: The padding differs between frameworks.
    """
    assert node.traits.window is not None
    frame = node.traits.window(node).at(inward[1:])
    if frame.padding is None:
        raise LoweringError(
            Text(
                "node '{node}' ({type}) has padding 'same' and a stride of {stride}, for which the "
                "padding differs between frameworks",
                node=node.name,
                type=node.type,
                stride=listing(frame.stride),
            ),
            fix="specify the padding as numbers",
            node=node.name,
        )
    return frame


# -- other nodes


def flattened(node: Node, shape: Shape) -> Shape | None:
    """Return the shape with the axes from start_dim to end_dim joined."""
    declared = node.value("input_type")
    start, end = (int(np.ravel(node.value(key))[0]) for key in ("start_dim", "end_dim"))
    # Number of batch or time axes that the exporter included.
    extra = 0 if declared is None else max(0, np.size(declared) - len(shape))
    start, end = (place - extra if place >= 0 else place + len(shape) for place in (start, end))
    if not 0 <= start <= end < len(shape):
        return shape if start == end == 0 == len(shape) else None
    return (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :])


def flatten_detail(node: Node, around: Surroundings) -> tuple[int, ...] | None:
    """Return the order in which the axes are joined; None for the order of the input.

    Raises:
        LoweringError: The dialect has channels last, and not all axes are joined.
    """
    inward, dialect = around.inward, around.dialect
    conventions = dialect.conventions
    if conventions is None or not conventions.channels_last or len(inward) == 1:
        return None
    if len(around.outward) != 1:
        raise LoweringError(
            Text(
                "node '{node}' ({type}) flattens {inward} to {outward}, which is not supported "
                "because {dialect} has channels last",
                node=node.name,
                type=node.type,
                inward=inward,
                outward=around.outward,
                dialect=dialect.name,
            ),
            fix="flatten all axes (start_dim 1, end_dim -1)",
            node=node.name,
        )
    return (*range(1, len(inward)), 0)


def delay_detail(node: Node, around: Surroundings) -> tuple[float, ...]:
    """Return the delays in seconds, one for all channels or one for each."""
    delays = around.parameters["delay"]
    return tuple((delays[:1] if (delays == delays[0]).all() else delays).tolist())
