"""Read torch functions between layers, such as `x * 0.5` and torch.cat, as layers where NIR has a node.

`_READERS_LAYER_FIRST` and `_READERS_FIXED_FIRST` map each supported function to the function that reads it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jaxsnn.errors import ConversionError
from jaxsnn.nir.torch.leaves import Factor, Moved, takes_columns
from jaxsnn.nir.torch.module_order import MOVE, RESHAPE
from jaxsnn.nir.torch.pass_record import Origin, PassRecord
from jaxsnn.nir.torch.recording import Operation, tensors_of
from jaxsnn.nir.torch.torch_functions import (
    ADD,
    CONVOLVE,
    COPY,
    FIXED,
    JOIN,
    JOIN_NEXT,
    MATRIX,
    NEGATE,
    OVER,
    PART,
    POOLS,
    RECTIFY,
    SAME,
    SPLIT,
    SUBTRACT,
    SUBTRACTED,
    TIMES,
    axis_of,
    convolution_of,
    factor_of,
    flatten_of,
    linear_of,
    padding_of,
    parts_of,
    pool_of,
    refuse_dropping,
    selected_ranges,
    shift_of,
    spoken_name,
    weights_of,
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FunctionCall:
    """A function of torch that forward calls between layers.

    Attributes:
        func, name: The function, and its name.
        args, kwargs: Arguments by position, and constant arguments by name.
        sources: Origins of the arguments that come from layers, at least one.
        result: Result of the call.
    """

    func: Callable[..., Any]
    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    sources: list[Origin]
    result: Any

    @property
    def tensor(self) -> Any:
        """First argument of the function."""
        return self.args[0]

    @property
    def origin(self) -> Origin:
        """Origin of the first tensor argument that comes from a layer."""
        return self.sources[0]


def read_function(record: PassRecord, operation: Operation, varies: bool) -> None:
    """Note the results of a function of torch that was called outside of layers.

    Args:
        varies: Whether the function takes a different part of a tensor in each step.
    """
    name, args, kwargs = operation.name, operation.args, operation.kwargs
    sources = _sources(record, name, args, kwargs)
    if sources:
        reader = _READERS_FIXED_FIRST.get(name)
        if reader is None and not record.is_fixed(args[0]):
            reader = _READERS_LAYER_FIRST.get(name)
        if reader is not None:
            reader(
                record,
                FunctionCall(
                    func=operation.func,
                    name=name,
                    args=args,
                    kwargs=kwargs,
                    sources=sources,
                    result=operation.result,
                ),
            )
    tensors = tensors_of((args, kwargs)) if name in FIXED and not varies else []
    if tensors and not record.in_step_before and all(map(record.is_fixed, tensors)):
        record.fix(operation.outputs)
    _note_function(record, operation)


def _sources(
    record: PassRecord, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[Origin]:
    """Return the origins of a function's tensor arguments.

    The list is empty if a keyword argument is not fixed, if a tensor does not come from a layer, or
    if the function does not accept a membrane potential or a reordered tensor that it is applied to.
    """
    if not all(map(record.is_fixed, tensors_of(list(kwargs.values())))):
        return []
    origins: list[Origin] = []
    for argument in (part for value in args[name in COPY :] for part in parts_of(value)):
        if not hasattr(argument, "is_inference") or record.is_fixed(argument):
            continue
        seen = record.seen(argument)
        origin = seen.origin
        if origin is None and origins and name in MOVE and not seen.function:
            continue  # an index array, such as `order` in x[:, order]
        if origin is None:
            return []
        if origin.member == "membrane" and name not in SAME:
            return []
        if name not in (*RESHAPE, *MOVE, *SAME, "dropout"):
            origin = record.reshaped(origin, tuple(argument.shape))
            if origin is None:
                return []
        origins.append(origin)
    return origins


def _note_function(record: PassRecord, operation: Operation) -> None:
    """Note the first unsupported function that was applied to a layer's output.

    Raises:
        ConversionError: It changes a layer's output through `.data`.
    """
    arguments = (*operation.args, *operation.kwargs.values())
    tensors = [part for value in arguments for part in parts_of(value)]
    seen_arguments = [record.seen(part) for part in tensors]
    for value, seen in zip(operation.values, map(record.of, operation.values), strict=True):
        if seen.through_data and any(value.tensor is v.tensor for v in operation.outputs):
            raise ConversionError(
                "forward changes the output of a layer through .data, which cannot be traced",
                fix="compute a new tensor instead, such as x = 2 * x",
            )
    is_state = operation.name in SAME and any(seen.is_state for seen in seen_arguments)
    from_layers = [seen for seen in seen_arguments if seen.function or seen.origin is not None]
    is_product = (
        operation.name in (*TIMES, *OVER, *MATRIX, "bmm", "einsum") and len(from_layers) > 1
    )
    earlier = next(
        (seen for seen in from_layers if seen.function and not (is_product and seen.origin)), None
    )
    for value in operation.outputs:
        origin = record.of(value).origin
        if is_state:
            record.of_entry(value).is_state = True
        if from_layers and (origin is None or origin.order is not None):
            entry = record.of_entry(value)
            entry.function = (
                earlier.function if earlier else spoken_name(operation.name, operation.args)
            )
            entry.line = earlier.line if earlier else operation.line
            entry.caller = earlier.caller if earlier else operation.caller
            entry.is_product = earlier.is_product if earlier else is_product
            entry.through_data = operation.name == "data"


def _layer(record: PassRecord, op: FunctionCall, kind: str, layer: Any) -> None:
    """Note a function as a call of its equivalent layer, if there is one."""
    if layer is not None:
        record.add(record.free(kind), layer, op.origin, op.tensor, op.result)


def _placed(
    record: PassRecord, kind: str, layer: Any, origin: Origin, input_shape: Any, shape: Any
) -> Origin:
    """Note a layer whose output is an intermediate result, for which no tensor exists.

    Args:
        kind: Prefix of the layer's name.
        layer, origin: The layer, and the origin of its input.
        input_shape, shape: Shapes of its input and its output.
    """
    return record.call(record.free(kind), layer, origin, input_shape, shape)


def _same(record: PassRecord, op: FunctionCall) -> None:
    record.keep(op.result, op.origin)


def _copied(record: PassRecord, op: FunctionCall) -> None:
    if op.args[1].shape == op.tensor.shape:
        record.keep(op.result, op.origin)


def _without_dropout(record: PassRecord, op: FunctionCall) -> None:
    refuse_dropping(op.args, op.kwargs)
    record.keep(op.result, op.origin)


def _added(record: PassRecord, op: FunctionCall) -> None:
    """Note a sum or a difference, of tensors or with a number."""
    if any(type(operand) in (int, float) and operand == 0 for operand in op.args[1:]):
        record.keep(op.result, op.origin)  # Python's sum starts with 0
        return
    if len(op.sources) == 1:
        _with_numbers(record, op)
        return
    # Not a plain sum: a third operand, a factor (alpha), or tensors of different shapes.
    plain = len(op.sources) == len(op.args) == 2 and not op.kwargs
    plain = plain and op.args[1].shape == op.tensor.shape
    if not plain:
        return
    first, second = op.sources
    if op.name in SUBTRACT:
        shape = op.tensor.shape
        second = _placed(record, "neg", Factor(value=-1.0), second, shape, shape)
    _sum(record, op.result, (first, second))


def _sum(record: PassRecord, result: Any, parts: Iterable[Origin]) -> None:
    """Note the sum of layer outputs. An output that occurs twice passes through an additional layer,
    a factor of 1, the second time.
    """
    sources: tuple[str, ...] = ()
    for origin in parts:
        once, shape = origin, result.shape
        if set(sources).intersection(origin.sources):
            once = _placed(record, "scale", Factor(value=1.0), origin, shape, shape)
        sources += once.sources
    record.keep(result, Origin(sources=sources))


def _with_numbers(record: PassRecord, op: FunctionCall) -> None:
    """Note the sum, difference, product or quotient of a tensor and fixed numbers."""
    if len(op.sources) != 1 or len(op.args) != 2 or op.kwargs:
        return
    name, (tensor, number) = op.name, op.args
    if record.is_fixed(tensor) and name in ADD + TIMES + SUBTRACT:
        tensor, number = number, tensor
        name = "rsub" if name in SUBTRACT else name
    if record.seen(tensor).origin is None:
        return
    op = dataclasses.replace(op, args=(tensor, number))
    if name in TIMES + OVER:
        _layer(record, op, "scale", factor_of(name, tensor, number))
    elif name not in ADD or not _add_bias(record, op.origin, number, op.result):
        _layer(record, op, "shift", shift_of(name, tensor, number))


def _add_bias(record: PassRecord, origin: Origin, bias: Any, result: Any) -> bool:
    """Add a bias to the Linear layer that stands for a function of `MATRIX`, if the bias is added to
    the result of that function, and return whether that was possible.
    """
    call = record.calls.get(origin.sources[0])
    if call is None or call.name in record.leaves or not takes_columns(call.module):
        return False
    shape = tuple(bias.shape) if record.is_fixed(bias) else ()
    if len(origin.sources) > 1 or call.module.bias is not None or shape != call.outward:
        return False
    name = record.free("linear")
    layer = linear_of(call.module.weight, bias, record.parameters)
    record.calls[name] = dataclasses.replace(call, name=name, module=layer)
    record.keep(result, dataclasses.replace(origin, sources=(name,)))
    return True


def _by_matrix(record: PassRecord, op: FunctionCall) -> None:
    """Note the product of a tensor and fixed weights."""
    tensor = op.args[1 if op.name == "addmm" else 0]
    weight_and_bias = weights_of(op.name, op.args, op.kwargs)
    if weight_and_bias is None or len(op.sources) != 1 or record.seen(tensor).origin is None:
        return
    if all(parameter is None or parameter.ndim for parameter in weight_and_bias):
        layer = linear_of(*weight_and_bias, record.parameters)
        _layer(record, dataclasses.replace(op, args=(tensor,)), "linear", layer)


def _convolved(record: PassRecord, op: FunctionCall) -> None:
    if len(op.sources) == 1:
        _layer(record, op, "conv", convolution_of(op.args, op.kwargs, record.parameters))


def _negated(record: PassRecord, op: FunctionCall) -> None:
    _layer(record, op, "neg", Factor(value=-1.0))


def _rectified(record: PassRecord, op: FunctionCall) -> None:
    import torch

    _layer(record, op, "relu", torch.nn.ReLU())


def _padded(record: PassRecord, op: FunctionCall) -> None:
    axes = op.tensor.ndim - 1
    _layer(record, op, "pad", padding_of(axes, *op.args[1:], **op.kwargs))


def _pooled(record: PassRecord, op: FunctionCall) -> None:
    _layer(record, op, op.name, pool_of(op.name, op.args[1:], op.kwargs))


def _averaged(record: PassRecord, op: FunctionCall) -> None:
    """Note a mean over all axes after the channel axis as a pool."""
    import torch

    origin, tensor, result = op.origin, op.tensor, op.result
    axes = tensor.ndim - 2
    dims = op.kwargs.get("dim", op.args[1] if len(op.args) > 1 else ())
    pooled_dims = list(range(tensor.ndim - axes, tensor.ndim))
    pool = {1: torch.nn.AdaptiveAvgPool1d, 2: torch.nn.AdaptiveAvgPool2d}.get(axes)
    if pool is None or sorted(int(dim) % tensor.ndim for dim in parts_of(dims)) != pooled_dims:
        return
    shape = (*tensor.shape[:-axes], *(1,) * axes)
    origin = _placed(record, "mean", pool(1), origin, tensor.shape, shape)
    if result.ndim < tensor.ndim:
        layer = torch.nn.Flatten(1, -1)
        origin = _placed(record, "flatten", layer, origin, shape, result.shape)
    record.keep(result, origin)


def _joined(record: PassRecord, op: FunctionCall) -> None:
    """Note the result of torch.cat along an axis of the shape as a sum: each tensor is padded with
    zeros to the shape of the result.
    """
    tensors, result, sources = op.tensor, op.result, op.sources
    kwargs = {"dim": 1} if op.name in JOIN_NEXT else op.kwargs
    axis = axis_of(op.args[1:], kwargs, result) - 1
    if axis < 0 or len(tensors) != len(sources):
        return
    parts, offset = [], 0
    for origin, tensor in zip(sources, tensors, strict=True):
        layer = Moved(axis=axis, offset=offset)
        parts.append(_placed(record, "cat", layer, origin, tensor.shape, result.shape))
        offset += tensor.shape[axis + 1]
    _sum(record, result, parts)


def _split(record: PassRecord, op: FunctionCall) -> None:
    """Note the parts of torch.split along an axis of the shape."""
    origin, tensor = op.origin, op.tensor
    axis = axis_of(op.args[2:], op.kwargs, tensor) - 1
    offset = 0
    for part in op.result if axis >= 0 else ():
        layer = Moved(axis=axis, offset=-offset)
        record.keep(part, _placed(record, "split", layer, origin, tensor.shape, part.shape))
        offset += part.shape[axis + 1]


def _moved(record: PassRecord, op: FunctionCall) -> None:
    """Note the result of a function that changes axes, or moves or selects elements: as layers, if
    NIR has nodes for them, else by the order of its elements.
    """
    name, origin, tensor, result = op.name, op.origin, op.tensor, op.result
    if name in RESHAPE and result.shape == tensor.shape:
        record.keep(result, origin)
        return
    if origin.order is None and name in RESHAPE:
        _layer(record, op, "flatten", flatten_of(tensor, result))
    elif origin.order is None:
        spans = selected_ranges(name, op.args, op.kwargs)
        if spans is not None:
            _cut(record, op, spans)
    if name in RESHAPE + MOVE and not _is_known(record, result):
        record.reorder(op.func, name, origin, op.args, op.kwargs, result)
    if name in PART and spoken_name(name, op.args) != "unsqueeze" and origin.sources == ("",):
        record.selects_input_part |= not _is_known(record, result)


def _is_known(record: PassRecord, result: Any) -> bool:
    return all(record.note(part).origin is not None for part in parts_of(result))


def _cut(record: PassRecord, op: FunctionCall, spans: Mapping[int, range]) -> None:
    """Note the result of slicing such as x[:, 2:5].

    Args:
        spans: Axis -> range of the selected indices.
    """
    origin, shape = op.origin, list(op.tensor.shape)
    for axis, span in spans.items():
        before = tuple(shape)
        shape[axis] = len(span)
        layer = Moved(axis=axis - 1, offset=-span.start, step=span.step)
        origin = _placed(record, "split", layer, origin, before, shape)
    record.keep(op.result, origin)


_Reader = Callable[[PassRecord, FunctionCall], None]

#: Functions whose first argument may be fixed numbers: name -> reader.
_READERS_FIXED_FIRST: Mapping[str, _Reader] = {
    **dict.fromkeys(COPY, _copied),
    **dict.fromkeys(MATRIX, _by_matrix),
    **dict.fromkeys(ADD + SUBTRACT, _added),
    **dict.fromkeys(SUBTRACTED + TIMES + OVER, _with_numbers),
}
#: Functions whose first argument is the output of a layer: name -> reader.
_READERS_LAYER_FIRST: Mapping[str, _Reader] = {
    **dict.fromkeys(SAME, _same),
    **dict.fromkeys(RESHAPE + MOVE + PART, _moved),
    **dict.fromkeys(JOIN + JOIN_NEXT, _joined),
    **dict.fromkeys(SPLIT, _split),
    **dict.fromkeys(CONVOLVE, _convolved),
    **dict.fromkeys(NEGATE, _negated),
    **dict.fromkeys(RECTIFY, _rectified),
    **dict.fromkeys(POOLS, _pooled),
    "dropout": _without_dropout,
    "mean": _averaged,
    "pad": _padded,
}
