"""Torch functions that are supported between layers: their names by purpose, and equivalent layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.frameworks.torch_layers import numbers_of
from jaxsnn.nir.torch.leaves import Factor, Moved
from jaxsnn.nir.torch.module_order import MOVE, RESHAPE

#: Functions whose result has the numbers of their first argument.
SAME = ("clone", "contiguous", "detach", "float", "identity")
ADD = ("add", "add_", "__add__", "__radd__", "__iadd__")
SUBTRACT = ("sub", "sub_", "subtract", "__sub__", "__isub__")
#: Functions that subtract x from a number.
SUBTRACTED = ("__rsub__", "rsub")
NEGATE = ("neg", "negative", "__neg__")
JOIN = ("cat", "concat", "concatenate")
#: Functions that concatenate along the axis after the batch axis.
JOIN_NEXT = ("hstack", "column_stack")
#: Functions that return consecutive parts of a tensor.
SPLIT = ("chunk", "split", "tensor_split")
#: Functions that multiply by a number.
TIMES = ("mul", "mul_", "__mul__", "__rmul__", "__imul__")
#: Functions that divide by a number.
OVER = ("div", "div_", "true_divide", "__div__", "__truediv__", "__itruediv__")
#: Functions that multiply by a matrix.
MATRIX = ("linear", "matmul", "__matmul__", "mm", "addmm")
#: Convolutions.
CONVOLVE = ("conv1d", "conv2d")
#: Functions that write numbers into an existing tensor.
COPY = ("copy_",)
#: Rectifiers, which leave spikes (0 or 1) unchanged.
RECTIFY = ("relu", "relu_")
#: Further functions that are deterministic and have no side effects.
_PURE = (
    "__invert__ __pow__ __rdiv__ abs clamp exp gt lt masked_fill mean norm outer pow reciprocal round"
    " sigmoid sign softmax softplus sqrt square std sum tanh to tril triu where"
)
#: Functions whose result is fixed (the same in each time step) if their arguments are.
FIXED = (
    *(*SAME, *ADD, *SUBTRACT, *SUBTRACTED, *NEGATE, *TIMES, *OVER, *RECTIFY, *JOIN),
    *(*RESHAPE, *MOVE, *MATRIX, *_PURE.split()),
)
#: Functions that select a part of a tensor, such as one time step: x[t], `for frame in x`.
PART = ("__getitem__", "__iter__", "select", "unbind", "narrow")


def spoken_name(name: str, args: tuple[Any, ...]) -> str:
    """Return the name of a function for messages; x[..., None] is torch.unsqueeze."""
    if name == "__getitem__" and any(part is None for part in parts_of(args[1])):
        return "unsqueeze"
    return name.strip("_")


def selected_ranges(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[int, range] | None:
    """Return the range of indices that a slicing function selects along each axis, as `_spans_of`
    does; None for other functions.
    """
    if name == "__getitem__":
        return _spans_of(args[0], args[1])
    if name != "narrow" or len(args) != 4 or kwargs:
        return None
    axis, start, length = args[1] % args[0].ndim, *args[2:]
    start += args[0].shape[axis] if start < 0 else 0
    return {axis: range(start, start + length)} if axis else None


def _spans_of(tensor: Any, index: Any) -> dict[int, range] | None:
    """Return the range of indices that slices such as x[:, 2:5] select, for each axis of which only a
    part is selected; None for other indices, and if a leading axis is sliced.
    """
    entries = list(index) if isinstance(index, tuple) else [index]
    if any(entry is Ellipsis for entry in entries):
        place = next(place for place, entry in enumerate(entries) if entry is Ellipsis)
        entries[place : place + 1] = [slice(None)] * (tensor.ndim - len(entries) + 1)
    if not all(isinstance(entry, slice) for entry in entries):
        return None
    # x[:1] may be all of this batch, but not of a larger one.
    if any(entry != slice(None) for entry in entries[:1]):
        return None
    spans = {
        axis: range(tensor.shape[axis])[entry] for axis, entry in enumerate(entries[1:], start=1)
    }
    return {axis: span for axis, span in spans.items() if span != range(tensor.shape[axis])}


def axis_of(rest: Sequence[Any], kwargs: Mapping[str, Any], tensor: Any) -> int:
    """Return the axis argument of a torch function: `dim`, or the first of its remaining
    arguments.
    """
    axis = kwargs.get("dim", kwargs.get("axis", rest[0] if rest else 0))
    return int(axis) % tensor.ndim


def parts_of(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def flatten_of(tensor: Any, result: Any) -> Any:
    """Return the torch.nn.Flatten that turns a tensor's shape into that of a result, or None."""
    import torch

    shape, target_shape = tuple(tensor.shape), tuple(result.shape)
    for start in range(1, len(shape)):
        for end in range(start + 1, len(shape)):
            joined = 1
            for length in shape[start : end + 1]:
                joined *= length
            if (*shape[:start], joined, *shape[end + 1 :]) == target_shape:
                return torch.nn.Flatten(start, end)
    return None


def factor_of(name: str, tensor: Any, number: Any) -> Factor | None:
    """Return the factor that is equivalent to multiplying or dividing a tensor (batch, *shape) by a
    nonzero scalar or a fixed array; None for anything else.
    """
    value = _numbers(number, tensor)
    if (
        value is None
        or (np.ndim(value) == 0 and not value)
        or (name in OVER and np.any(value == 0))
    ):
        return None
    return Factor(value=1 / value if name in OVER else value)


def shift_of(name: str, tensor: Any, number: Any) -> Factor | None:
    """Return the Factor that is equivalent to a sum or difference of a tensor and numbers, a scalar
    or one number for each channel; None for anything else.
    """
    value = _numbers(number, tensor)
    if value is None or tensor.ndim - 1 not in (1, 2, 3):
        return None
    if np.ndim(value):
        channels = value.reshape(len(value), -1)
        if np.any(channels != channels[:, :1]):
            return None
        value = channels[:, 0]
    if name in SUBTRACTED:
        return Factor(value=-1.0, offset=value)
    return Factor(value=1.0, offset=-value if name in SUBTRACT else value)


def _numbers(number: Any, tensor: Any) -> Any:
    """Return a scalar as a float, and an operand that is a tensor as an array, broadcast to the shape
    of `tensor` without its batch axis; None if the operand differs between samples, or if broadcasting
    would change the shape of `tensor`.
    """
    if type(number) in (int, float):
        return float(number)
    if not hasattr(number, "_version") or number.ndim > tensor.ndim:
        return None
    full_shape = (1, *tensor.shape[1:])
    ends = zip(reversed(number.shape), reversed(full_shape), strict=False)
    if any(length not in (1, full_length) for length, full_length in ends):
        return None
    return numbers_of(number, tuple(tensor.shape[1:]))


def is_parameter(value: Any) -> bool:
    import torch

    return isinstance(value, torch.nn.Parameter)


def linear_of(weight: Any, bias: Any, parameters: Iterable[Any]) -> Any:
    """Return the torch.nn.Linear of a weight (out, in) and a bias, or None; see `_with_weights`."""
    import torch

    if weight.ndim != 2 or not (bias is None or bias.ndim == 1):
        return None
    return _with_weights(torch.nn.Linear(1, 1), weight, bias, parameters)


def convolution_of(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], parameters: Iterable[Any]
) -> Any:
    """Return the layer equivalent to torch.nn.functional.conv1d or conv2d, or None; see
    `_with_weights`.
    """
    import torch

    argument_names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    arguments = dict(zip(argument_names, args, strict=False)) | dict(kwargs)
    weight, bias = arguments["weight"], arguments.pop("bias", None)
    kind = {3: torch.nn.Conv1d, 4: torch.nn.Conv2d}.get(weight.ndim)
    if kind is None:
        return None
    options = {name: value for name, value in arguments.items() if name in argument_names[3:]}
    groups = options.get("groups", 1)
    layer = kind(groups, groups, tuple(weight.shape[2:]), **options)
    return _with_weights(layer, weight, bias, parameters)


def _with_weights(layer: Any, weight: Any, bias: Any, parameters: Iterable[Any]) -> Any:
    """Set the weight and bias of a layer, and return the layer. A view of a whole parameter, such as
    its transpose, is set as a parameter of the same memory; other tensors do not become parameters.
    """
    import torch

    parameter_memory = {(parameter.data_ptr(), parameter.numel()) for parameter in parameters}
    del layer.weight, layer.bias
    for name, value in (("weight", weight), ("bias", bias)):
        tensor = value
        if (
            value is not None
            and not is_parameter(value)
            and (value.data_ptr(), value.numel()) in parameter_memory
        ):
            tensor = torch.nn.Parameter(value.detach())  # shares the memory
        setattr(layer, name, tensor)
    return layer


def weights_of(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Any, Any] | None:
    """Return the weight (out, in) and bias of a call of a function in `MATRIX`; None if the call is
    unsupported.
    """
    if name == "linear":
        arguments = dict(zip(("input", "weight", "bias"), args, strict=False)) | dict(kwargs)
        return arguments["weight"], arguments.get("bias")
    *bias, _, matrix = args
    if kwargs or matrix.ndim != 2:
        return None
    return matrix.mT, bias[0] if bias else None


def refuse_dropping(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuse a call of torch.nn.functional.dropout that drops anything.

    Raises:
        ConversionError: The call is in training mode.
    """
    training = kwargs.get("training", args[2] if len(args) > 2 else True)
    if training and kwargs.get("p", args[1] if len(args) > 1 else 0.5):
        raise ConversionError(
            "forward calls dropout of torch.nn.functional in training mode, which sets "
            "random elements to 0",
            fix=(
                "call module.eval() first, and pass training=self.training to dropout, "
                "whose default is True"
            ),
        )


#: Functions of torch.nn.functional -> the layers that compute the same.
POOLS = {
    **{f"avg_pool{axes}d": f"AvgPool{axes}d" for axes in (1, 2)},
    **{f"max_pool{axes}d": f"MaxPool{axes}d" for axes in (1, 2)},
    **{f"adaptive_avg_pool{axes}d": f"AdaptiveAvgPool{axes}d" for axes in (1, 2)},
    "interpolate": "Upsample",
}


def pool_of(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return the layer equivalent to a call of a function in `POOLS`."""
    import torch

    return getattr(torch.nn, POOLS[name])(*args, **kwargs)


def padding_of(axes: int, pad: Any, mode: str = "constant", value: float | None = None) -> Any:
    """Return the layer equivalent to torch.nn.functional.pad, or None.

    Args:
        axes: Number of axes of the input, without batch and time.
        pad, mode, value: Arguments of the function.
    """
    import torch

    if mode != "constant":
        return None
    sides = (*pad, *(0,) * (2 * axes - len(pad)))
    if any(sides[-2:]) or axes == 1:  # padding of the channel axis
        return None if value or any(sides[:-2]) else Moved(axis=0, offset=sides[-2])
    layer = {2: torch.nn.ConstantPad1d, 3: torch.nn.ConstantPad2d}.get(axes)
    return None if layer is None else layer(sides[:-2], value or 0.0)
