"""Layers of `torch.nn` as NIR nodes, and the records that describe any layer's translation.

Layers are recognised by the name of their class, so that no framework is imported. The layers of each
framework are in its file in `jaxsnn.nir.frameworks`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.model.changes import Edge
from jaxsnn.wording import Text

if TYPE_CHECKING:
    from jaxsnn.nir.frameworks.source_step import Step
    from jaxsnn.nir.model.dialect import Dialect
    from jaxsnn.nir.model.node import Node


#: Code of a refusal of weights that torch applies to an input without a batch axis.
NO_BATCH_AXIS = "no-batch-axis"
#: Code of a refusal of other layers whose input has a different number of axes than in NIR.
OTHER_AXES = "input-axes"
#: Bytes of a float32 number.
_LEAST_BYTES = 4


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """One call of a leaf module during the forward pass.

    Attributes:
        name, module: Name and module of the leaf.
        sources: Names of the layers whose outputs are summed as its input; "" is the input of the
            module.
        inward, outward: Shapes of one time step without the batch axis.
        columns: For a Linear: index of the input of each column of its weight; None: in order.
        reset_each_call: For a neuron: `forward` resets its states before each call.
    """

    name: str
    module: Any
    sources: tuple[str, ...]
    inward: tuple[int, ...]
    outward: tuple[int, ...]
    columns: np.ndarray | None = None
    reset_each_call: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Exported:
    """Nodes that a leaf is exported to, and their properties.

    Attributes:
        nodes: Entries by suffix of the node name; "" is the layer itself. The first receives the
            input.
        edges: Edges between suffixes.
        last: Suffix of the output node; None: the first.
        neuron: Suffix of the neuron, to which the options apply; None: the output node.
        framework: Framework of the neuron; None for weights and shapes.
        options: Options of `jaxsnn.nir.read` for the neuron.
        dt: Length of a time step in seconds, if the module specifies it.
        folds: (factor, offset), each of shape (channels,), by which the output y of the layer
            before is replaced by factor y + offset.
        norm: The BatchNorm that `folds` belongs to.
        takes_spikes: Whether the export is only valid for inputs of 0 and 1.
        takes_positive: Whether the export is only valid for inputs that are not negative.
        for_values: Export for all other inputs; None: these are refused.
        fixed: Suffixes of nodes whose weights are not parameters of the layer.
        gives_membrane: Whether the output of a readout's layer is its membrane, not spikes.
        dialect: Dialect of a graph that `jaxsnn.to_torch` exported as this layer; `takers` are its
            nodes that receive the input, and `givers` its output nodes.
    """

    nodes: Mapping[str, dict[str, Any]]
    edges: tuple[Edge, ...] = ()
    last: str | None = None
    neuron: str | None = None
    framework: str | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    dt: float | None = None
    folds: tuple[np.ndarray, np.ndarray] | None = None
    norm: Any = None
    takes_spikes: bool = False
    takes_positive: bool = False
    for_values: Exported | None = None
    fixed: tuple[str, ...] = ()
    gives_membrane: bool = False
    dialect: Dialect | None = None
    takers: tuple[str, ...] = ()
    givers: tuple[str, ...] = ()

    @property
    def ends(self) -> tuple[str, ...]:
        """Suffixes of the nodes whose outputs are summed to the leaf's output."""
        return self.givers or (self.sends,)

    @property
    def sends(self) -> str:
        """Suffix of the node that gives the output."""
        return next(iter(self.nodes)) if self.last is None else self.last


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LayerNumbers:
    """A number or array that a layer is to have.

    Attributes:
        layer: Name of the layer.
        node: Node of the file, for messages.
        owner: Object that has the attribute; `name` is the attribute, "p.v_th" for one of a named
            tuple.
        value: New value, of the shape of the node. A layer may have one scalar if all values are
            equal.
    """

    layer: str
    node: str
    owner: Any
    name: str
    value: np.ndarray


#: Function that returns the numbers to load into a layer, from (call, nodes of the file by suffix,
#: steps of its neurons by suffix).
Setter = Callable[[Call, Mapping[str, "Node"], Mapping[str, "Step"]], list[LayerNumbers]]


def layer_class(module: Any) -> type:
    """Return the class of a layer: its original class if torch.nn.utils.parametrize has changed it,
    and the library's class if the user's subclass only sets it up in another way.
    """
    kind = type(module)
    kind = kind.__bases__[0] if hasattr(module, "parametrizations") else kind
    package = kind.__module__.partition(".")[0]
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] != package:
            return base if hasattr(base, "forward") else kind
        methods = {name for name, value in vars(base).items() if callable(value)}
        if methods - {"__init__", "extra_repr", "reset_parameters"}:
            break
    return kind


def numbers_of(value: Any, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Return a tensor or number as an array. With a shape, a single number is broadcast, and extra
    leading axes of length 1, such as a batch axis, are dropped.

    Raises:
        ConversionError: The axes do not match the shape.
    """
    array = (
        value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value, np.float32)
    )
    if shape is None:
        return np.array(array)
    before = max(array.ndim - len(shape), 0)
    if any(length != 1 for length in array.shape[:before]):
        raise ConversionError(
            Text(
                "a parameter has the shape {actual}, and its neurons have the shape {expected}",
                actual=array.shape,
                expected=shape,
            ),
            fix="use a scalar, or one value per neuron without a batch axis",
        )
    return np.broadcast_to(array.reshape(array.shape[before:]), shape).copy()


def refuse_axes(call: Call, axis_count: int) -> None:
    """Reject weights whose input has a different number of axes than in NIR.

    Raises:
        ConversionError: An axis is missing, such as batch, or there is an additional one, such as
            time. Its code is `NO_BATCH_AXIS` for weights whose input in a time step has too few: torch
            takes its first axis for one of features; else `OTHER_AXES`.
    """
    if len(call.inward) == axis_count:
        return
    missing = axis_count > max(len(call.inward), 1)
    shape = "channels, *shape" if missing else "*shape"
    axes = "one axis" if axis_count == 1 else Text("{axes} axes", axes=axis_count)
    no_batch = len(call.inward) < axis_count and hasattr(call.module, "weight")
    raise ConversionError(
        Text(
            "layer '{node}' ({type}) receives inputs of shape {shape} after batch, and NIR "
            "supports {axes}",
            node=call.name,
            type=type(call.module).__name__,
            shape=call.inward,
            axes=axes,
        ),
        fix=f"pass a sample (batch, {shape}) of one time step, or of several if forward loops over them"
        if no_batch
        else f"pass a sample (batch, {shape}) of one time step, without a time axis",
        node=call.name,
        code=NO_BATCH_AXIS if no_batch else OTHER_AXES,
    )


def _nothing(call: Call) -> Exported:
    return Exported(nodes={})


def exported_linear(call: Call) -> Exported:
    """Export a torch.nn.Linear as Linear or Affine."""
    refuse_axes(call, 1)
    weight = numbers_of(call.module.weight)
    if call.columns is not None:
        ordered = np.zeros((*call.inward, len(weight)), weight.dtype)
        np.add.at(ordered, call.columns, weight.T)
        weight = ordered.T
    entry = {"type": "Linear", "weight": weight}
    if call.module.bias is not None:
        entry |= {"type": "Affine", "bias": numbers_of(call.module.bias)}
    return Exported(nodes={"": entry})


def exported_convolution(call: Call) -> Exported:
    conv = call.module
    if conv.padding_mode != "zeros":
        raise ConversionError(
            Text(
                "layer '{node}' uses the padding mode {padding}, and NIR pads with zeros",
                node=call.name,
                padding=conv.padding_mode,
            ),
            fix='use padding_mode="zeros"',
            node=call.name,
        )
    weight = numbers_of(conv.weight)
    refuse_axes(call, weight.ndim - 1)
    bias = np.zeros(len(weight), weight.dtype) if conv.bias is None else numbers_of(conv.bias)
    entry = {
        "type": f"Conv{weight.ndim - 2}d",
        "input_shape": np.array(call.inward[1:]),
        "weight": weight,
        "bias": bias,
    }
    entry |= {
        "stride": np.array(conv.stride),
        "dilation": np.array(conv.dilation),
        "groups": np.array(conv.groups),
    }
    entry["padding"] = conv.padding if isinstance(conv.padding, str) else np.array(conv.padding)
    return Exported(nodes={"": entry})


def depthwise_convolution(
    call: Call,
    kernel: np.ndarray,
    bias: np.ndarray | None = None,
    stride: Any = 1,
    padding: Any = 0,
) -> dict[str, Any]:
    """Return the entry of a depthwise convolution; `kernel` is (channels, *window)."""
    channels, *window = kernel.shape
    refuse_axes(call, kernel.ndim)
    return {
        "type": f"Conv{len(window)}d",
        "input_shape": np.array(call.inward[1:]),
        "weight": kernel[:, None],
        "bias": np.zeros(channels, kernel.dtype) if bias is None else bias,
        "stride": np.broadcast_to(stride, len(window)).copy(),
        "padding": np.broadcast_to(padding, len(window)).copy(),
        "dilation": np.ones(len(window), int),
        "groups": np.array(channels),
    }


def _mean(call: Call, kernel_size: np.ndarray, stride: Any, padding: Any) -> Exported:
    """Export means of windows. Pools of NIR have two axes, so one axis becomes a convolution."""
    if len(kernel_size) == 1:
        channels, length = call.inward[0], int(kernel_size[0])
        kernel = np.full((channels, length), 1 / length, np.float32)
        return Exported(nodes={"": depthwise_convolution(call, kernel, None, stride, padding)})
    refuse_axes(call, 3)
    sizes = {"kernel_size": kernel_size, "stride": stride, "padding": padding}
    return Exported(nodes={"": {"type": "AvgPool2d", **sizes}})


def _pool(call: Call) -> Exported:
    pool = call.module
    if (
        _rounds_up(call)
        or getattr(pool, "divisor_override", None)
        or (np.any(pool.padding) and not pool.count_include_pad)
    ):
        raise ConversionError(
            Text(
                "layer '{node}' uses ceil_mode, divisor_override or count_include_pad=False, which "
                "NIR does not support",
                node=call.name,
            ),
            fix="remove ceil_mode and divisor_override, and use count_include_pad=True",
            node=call.name,
        )
    return _mean(call, **_windows(pool))


def _rounds_up(call: Call) -> bool:
    """Return whether a pool has windows beyond the padded edge, which ceil_mode allows."""
    pool = call.module
    if not pool.ceil_mode:
        return False
    sizes, axes = _windows(pool), _axes(pool)
    free = np.array(call.inward[-axes:]) + 2 * sizes["padding"] - sizes["kernel_size"]
    return not np.array_equal(free // sizes["stride"] + 1, call.outward[-axes:])


def _even_pool(call: Call) -> Exported:
    """Export an adaptive pool whose windows have equal sizes."""
    axes = _axes(call.module)
    before, after = np.array(call.inward[-axes:]), np.array(call.outward[-axes:])
    if np.any(before % after):
        raise ConversionError(
            Text(
                "layer '{node}' ({type}) reduces {inward} to {outward} with windows of different "
                "sizes, and NIR supports one size",
                node=call.name,
                type=type(call.module).__name__,
                outward=tuple(call.outward[-axes:]),
                inward=tuple(call.inward[-axes:]),
            ),
            fix="use an output size that divides the input size",
            node=call.name,
        )
    window = before // after
    return _mean(call, window, window.copy(), np.zeros(axes, int))


def _zeros_around(call: Call) -> Exported:
    """Export zero padding."""
    layer = call.module
    if getattr(layer, "value", 0) != 0:
        raise ConversionError(
            Text(
                "layer '{node}' ({type}) pads with {value:g}, and NIR pads with zeros",
                node=call.name,
                type=type(layer).__name__,
                value=layer.value,
            ),
            fix="pad with 0",
            node=call.name,
        )
    # torch.nn lists the padding of the last axis first.
    sides = np.reshape(layer.padding, (-1, 2))[::-1]
    return Exported(nodes={"": padding_node(call, sides)})


def padding_node(call: Call, sides: np.ndarray) -> dict[str, Any]:
    """Return a convolution that pads each axis with zeros at both ends; negative padding crops. The
    kernel of each channel contains a single 1, which shifts the input.

    Args:
        call: call of the layer.
        sides: (axes, 2) numbers of zeros before and after the input.
    """
    padding = np.maximum(sides.max(axis=1), 0)
    kernel = np.zeros((call.inward[0], *(1 + 2 * padding - sides.sum(axis=1))), np.float32)
    kernel[(slice(None), *(padding - sides[:, 0]))] = 1
    return depthwise_convolution(call, kernel, padding=padding)


def refuse_training(name: str, module: Any) -> None:
    """Reject a layer in training mode if its evaluation mode computes different outputs.

    Raises:
        ConversionError: The layer is in training mode.
    """
    kind = type(module).__name__
    random = kind.startswith("Dropout") and getattr(module, "p", 0)
    moves = any("SpectralNorm" in type(part).__name__ for part in module.modules())
    returns_trace = kind == "OTTTLIFNode"  # beside its spikes
    if module.training and (random or moves or returns_trace or "BatchNorm" in kind):
        raise ConversionError(
            Text(
                "layer '{node}' ({type}) is in training mode, in which its output differs from "
                "evaluation mode",
                node=name,
                type=kind,
            ),
            fix="call module.eval() first, because evaluation mode is exported",
            node=name,
        )


def refuse_few_digits(name: str, module: Any) -> None:
    """Reject a layer that rounds its sums to half precision, which no engine reproduces.

    Raises:
        ConversionError: The parameters have 16 bits or less.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.dtype.is_floating_point and tensor.dtype.itemsize < _LEAST_BYTES:
            raise ConversionError(
                Text(
                    "layer '{node}' ({type}) computes in {dtype}, and its graph in float32, so that "
                    "spikes would differ",
                    node=name,
                    type=type(module).__name__,
                    dtype=tensor.dtype,
                ),
                fix="export a float32 copy, copy.deepcopy(module).float(), and compare with its spikes",
                node=name,
            )


def _dropout(call: Call) -> Exported:
    """Export no nodes: dropout does nothing in evaluation mode."""
    refuse_training(call.name, call.module)
    return Exported(nodes={})


def exported_normalisation(call: Call) -> Exported:
    """Export a BatchNorm by its running statistics: y = weight (x - mean) / sqrt(var + eps) + bias,
    for each channel; as `weights_of_channels` if no weights before it can absorb these numbers.
    """
    norm = call.module
    if norm.running_mean is None:
        raise ConversionError(
            Text(
                "layer '{node}' ({type}) has no running statistics, so that its output depends on "
                "the batch",
                node=call.name,
                type=type(norm).__name__,
            ),
            fix="use track_running_stats=True",
            node=call.name,
        )
    refuse_training(call.name, norm)
    mean, variance = (
        numbers_of(statistic).astype(float) for statistic in (norm.running_mean, norm.running_var)
    )
    factor = 1 / np.sqrt(variance + norm.eps)
    if norm.weight is not None:
        factor = factor * numbers_of(norm.weight)
    offset = -mean * factor
    if norm.bias is not None:
        offset = offset + numbers_of(norm.bias)
    return Exported(nodes={}, folds=(factor, offset), norm=norm)


def weights_of_channels(call: Call, normalisation: Exported) -> dict[str, Any]:
    """Return the factor and offset of a BatchNorm for each channel as weights: a diagonal matrix,
    or kernels of size one.
    """
    assert normalisation.folds is not None
    kind = numbers_of(normalisation.norm.running_mean).dtype
    factor, offset = (array.astype(kind) for array in normalisation.folds)
    return channel_scaling(call, factor, offset)


def channel_scaling(call: Call, factor: np.ndarray, offset: np.ndarray) -> dict[str, Any]:
    """Return weights that multiply each channel by a factor, and add an offset."""
    if len(call.inward) == 1:
        return {"type": "Affine", "weight": np.diag(factor), "bias": offset}
    kernel = factor.reshape(-1, *(1,) * (len(call.inward) - 1))
    return depthwise_convolution(call, kernel, offset)


def normalisation_numbers(
    norm: Any, factor: np.ndarray, offset: np.ndarray
) -> dict[str, np.ndarray]:
    """Return parameters with which a BatchNorm computes factor x + offset, (channels,) each."""
    if norm.weight is None:
        with np.errstate(divide="ignore", invalid="ignore"):
            return {"running_mean": -offset / factor, "running_var": factor**-2.0 - norm.eps}
    values = {"running_mean": 0 * factor, "running_var": np.full_like(factor, 1 - norm.eps)}
    return {**values, "weight": factor, "bias": offset}


def set_normalisation(
    call: Call, nodes: Mapping[str, Node], steps: Mapping[str, Step]
) -> list[LayerNumbers]:
    """Return the parameters of a BatchNorm that is a separate node, see `weights_of_channels`."""
    node = nodes[""]
    weight = np.asarray(node.value("weight"), float)
    factor = np.diag(weight) if weight.ndim == 2 else weight.reshape(len(weight), -1)[:, 0]
    offset = np.asarray(node.value("bias") if "bias" in node.names else 0 * factor, float)
    values = normalisation_numbers(call.module, factor.copy(), offset)
    return [
        LayerNumbers(layer=call.name, node=node.name, owner=call.module, name=name, value=value)
        for name, value in values.items()
    ]


def _largest(call: Call) -> Exported:
    """Export a MaxPool of spikes: 1 if any input in the window is 1, that is, if their sum is above
    1/2.
    """
    pool = call.module
    if _rounds_up(call) or pool.return_indices or np.any(np.asarray(pool.dilation) != 1):
        raise ConversionError(
            Text(
                "layer '{node}' uses ceil_mode, dilation or return_indices, which NIR does not "
                "support",
                node=call.name,
            ),
            fix="remove ceil_mode, dilation and return_indices",
            node=call.name,
        )
    threshold = {"type": "Threshold", "threshold": np.full(call.outward, 0.5, np.float32)}
    sizes = _windows(pool)
    total = {"type": "SumPool2d", **sizes}
    of_values = Exported(nodes={"": {"type": type(pool).__name__, **sizes}})
    if _axes(pool) == 1 == len(call.inward):  # an input (batch, features) without channels
        return of_values
    refuse_axes(call, 1 + _axes(pool))
    if _axes(pool) == 1:
        ones = np.ones((call.inward[0], *sizes["kernel_size"]), np.float32)
        total = depthwise_convolution(call, ones, None, sizes["stride"], sizes["padding"])
    return Exported(
        nodes={"sum": total, "": threshold},
        edges=(("sum", ""),),
        last="",
        takes_spikes=True,
        for_values=of_values,
    )


def exported_reshape(call: Call) -> Exported:
    """Export an Unflatten as the extension Reshape."""
    if np.prod(call.inward) != np.prod(call.outward):
        raise ConversionError(
            Text("layer '{node}' reshapes the batch axis", node=call.name),
            fix="reshape only the axes after the batch axis",
            node=call.name,
        )
    return Exported(nodes={"": {"type": "Reshape", "shape": np.array(call.outward)}})


def _rectified(call: Call) -> Exported:
    """Export no nodes for a ReLU of spikes or their sums, which are not negative; else the extension
    ReLU.
    """
    of_values = Exported(nodes={"": {"type": "ReLU"}})
    return Exported(nodes={}, takes_positive=True, for_values=of_values)


def _layer_normalisation(call: Call) -> Exported:
    """Export a LayerNorm as the extension of this name."""
    norm = call.module
    shape = tuple(norm.normalized_shape)
    entry = {
        "type": "LayerNorm",
        "weight": np.ones(shape, np.float32) if norm.weight is None else numbers_of(norm.weight),
        "bias": np.zeros(shape, np.float32) if norm.bias is None else numbers_of(norm.bias),
        "epsilon": np.array(norm.eps),
    }
    return Exported(nodes={"": entry})


def _transposed_convolution(call: Call) -> Exported:
    """Export a ConvTranspose as a convolution, of the input with zeros between its elements if it has
    a stride.

    NIR's nodes put no zeros between elements, see `_multiply_along_axes`.
    """
    layer = call.module
    weight, axes = numbers_of(layer.weight), len(layer.kernel_size)
    refuse_axes(call, 1 + axes)
    stride, dilation, extra = (
        np.broadcast_to(setting, axes)
        for setting in (layer.stride, layer.dilation, layer.output_padding)
    )
    padding = dilation * (np.array(layer.kernel_size) - 1) - np.broadcast_to(layer.padding, axes)
    if np.any(padding < 0):
        raise ConversionError(
            Text(
                "'{node}' ({type}) has a padding of {padding}, beyond its kernel",
                node=call.name,
                type=type(layer).__name__,
                padding=tuple(layer.padding),
            ),
            fix="give it a padding below its kernel_size",
            node=call.name,
        )
    outputs = weight.shape[1] * layer.groups
    convolution = {
        "type": f"Conv{axes}d",
        "weight": transposed_kernel(weight, layer.groups),
        "bias": np.zeros(outputs, weight.dtype) if layer.bias is None else numbers_of(layer.bias),
        "stride": np.ones(axes, int),
        "padding": padding,
        "dilation": dilation.copy(),
        "groups": np.array(layer.groups),
    }
    channels, *space = call.inward
    zero_insertions = {
        axis: _zero_insertion(space[axis], int(stride[axis]), int(extra[axis]))
        for axis in range(axes)
        if stride[axis] > 1 or extra[axis]
    }
    nodes, space = _multiply_along_axes(channels, space, zero_insertions)
    fixed = tuple(nodes)
    nodes[""] = convolution | {"input_shape": np.array(space)}
    return Exported(nodes=nodes, edges=tuple(itertools.pairwise(nodes)), last="", fixed=fixed)


def _zero_insertion(length: int, stride: int, extra: int) -> np.ndarray:
    """Return the matrix (after, before) that puts stride - 1 zeros between the elements of an axis, and
    extra zeros at its end.
    """
    return np.eye(stride * (length - 1) + 1 + extra, dtype=np.float32)[
        :, : stride * length : stride
    ]


def _multiply_along_axes(
    channels: int, space: list[int], matrices: Mapping[int, np.ndarray]
) -> tuple[dict[str, dict[str, Any]], list[int]]:
    """Return nodes that multiply each channel by a matrix (after, before) along some axes, and the
    lengths of all axes of the result.

    Each axis takes two convolutions. The first turns the elements of the axis into channels of length 1;
    the second multiplies each of these channels by a column of the matrix, and adds the products.
    """
    nodes: dict[str, dict[str, Any]] = {}
    axes, space = len(space), list(space)
    for axis, matrix in matrices.items():
        after, before = matrix.shape
        on_axis = np.arange(axes) == axis
        unit_kernels = np.eye(before, dtype=np.float32).reshape(
            -1, 1, *np.where(on_axis, before, 1)
        )
        # With a padding of after - 1, the first output for an input of one element has the kernel's
        # last tap, so the taps are in reverse order.
        matrix_kernels = matrix[::-1].T.reshape(1, before, *np.where(on_axis, after, 1))
        for suffix, weight, padding in (
            (f"elements{axis}", unit_kernels, 0),
            (f"places{axis}", matrix_kernels, after - 1),
        ):
            weights = np.tile(weight, (channels, *(1,) * (axes + 1)))
            nodes[suffix] = {
                "type": f"Conv{axes}d",
                "input_shape": np.array(space),
                "weight": weights,
                "bias": np.zeros(len(weights), np.float32),
                "stride": np.ones(axes, int),
                "padding": np.where(on_axis, padding, 0),
                "dilation": np.ones(axes, int),
                "groups": np.array(channels),
            }
            space[axis] = 1
        space[axis] = after
    return nodes, space


def _resized(call: Call) -> Exported:
    """Export an Upsample as convolutions. It is linear in each axis, so that its outputs for unit vectors
    along an axis are the matrix of that axis.
    """
    import torch

    channels, *space = call.inward
    refuse_axes(call, 1 + min(max(len(space), 1), 2))
    matrices = {}
    for axis, length in enumerate(space):
        shape = [length if dim == axis else 1 for dim in range(len(space))]
        with torch.no_grad():
            response = call.module(torch.eye(length).reshape(length, 1, *shape))
        index = tuple(slice(None) if dim == axis else 0 for dim in range(len(space)))
        matrices[axis] = response[(slice(None), 0, *index)].numpy().T
    nodes, _ = _multiply_along_axes(channels, space, matrices)
    suffixes = tuple(nodes)
    edges = tuple(itertools.pairwise(suffixes))
    return Exported(nodes=nodes, edges=edges, last=suffixes[-1], fixed=suffixes)


def transposed_kernel(weight: np.ndarray, groups: int) -> np.ndarray:
    """Return the kernel with which a convolution equals the transposed convolution with the kernel
    `weight`, and vice versa: (inputs, outputs of a group, *taps) -> (outputs, inputs of a group, *taps).
    """
    by_group = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    swapped = np.swapaxes(by_group, 1, 2)
    kernel = swapped.reshape(-1, *swapped.shape[2:])
    return np.ascontiguousarray(np.flip(kernel, tuple(range(2, kernel.ndim))))


def _axes(pool: Any) -> int:
    """Return the number of axes of a pool: 1 for AvgPool1d."""
    return int(type(pool).__name__[-2])


def _windows(pool: Any) -> dict[str, np.ndarray]:
    """Return kernel_size, stride and padding of a pool, a number for each axis."""
    return {
        key: np.broadcast_to(getattr(pool, key), (_axes(pool),)).copy()
        for key in ("kernel_size", "stride", "padding")
    }


def _flatten(call: Call) -> Exported:
    dims, axes = 1 + len(call.inward), (call.module.start_dim, call.module.end_dim)
    start, end = (dim % dims - 1 for dim in axes)
    if start < 0:
        raise ConversionError(
            Text("layer '{node}' flattens the batch axis", node=call.name),
            fix="use start_dim=1",
            node=call.name,
        )
    entry = {
        "type": "Flatten",
        "input_type": np.array(call.inward),
        "start_dim": np.array(start),
        "end_dim": np.array(end),
    }
    return Exported(nodes={"": entry})


PADDING_LAYERS = ("ZeroPad1d", "ZeroPad2d", "ConstantPad1d", "ConstantPad2d")
_NORMS = ("BatchNorm1d", "BatchNorm2d", "SyncBatchNorm")
#: Layers of torch.nn; frameworks may have layers of the same names.
LAYERS: Mapping[str, Callable[[Call], Exported]] = MappingProxyType(
    {
        "Linear": exported_linear,
        "Conv1d": exported_convolution,
        "Conv2d": exported_convolution,
        **dict.fromkeys(("AvgPool1d", "AvgPool2d"), _pool),
        **dict.fromkeys(("AdaptiveAvgPool1d", "AdaptiveAvgPool2d"), _even_pool),
        **dict.fromkeys(("MaxPool1d", "MaxPool2d"), _largest),
        **dict.fromkeys(("ConvTranspose1d", "ConvTranspose2d"), _transposed_convolution),
        **dict.fromkeys(PADDING_LAYERS, _zeros_around),
        "Flatten": _flatten,
        "Unflatten": exported_reshape,
        **dict.fromkeys(("Upsample", "UpsamplingNearest2d", "UpsamplingBilinear2d"), _resized),
        **dict.fromkeys(_NORMS, exported_normalisation),
        "Dropout": _dropout,
        "Dropout1d": _dropout,
        "Dropout2d": _dropout,
        "Identity": _nothing,
        "ReLU": _rectified,
        "LayerNorm": _layer_normalisation,
    }
)


def set_weights(
    call: Call, nodes: Mapping[str, Node], steps: Mapping[str, Step], *, suffix: str = ""
) -> list[LayerNumbers]:
    """Return the weight and the bias of a linear layer or convolution; 0 for a missing bias."""
    layer, node = call.module, nodes[suffix]
    weight = np.asarray(node.value("weight"))
    if call.columns is not None:
        # Columns that read the same input share its weight equally.
        weight = weight[:, call.columns] / np.bincount(call.columns)[call.columns]
    values = {"weight": weight}
    if layer.bias is not None:
        has = "bias" in node.names
        values["bias"] = node.value("bias") if has else np.zeros(tuple(layer.bias.shape))
    return [
        LayerNumbers(
            layer=call.name, node=node.name, owner=layer, name=name, value=np.asarray(value)
        )
        for name, value in values.items()
    ]


def _set_layer_norm(
    call: Call, nodes: Mapping[str, Node], steps: Mapping[str, Step]
) -> list[LayerNumbers]:
    """Return the weight and the bias of a LayerNorm that has them."""
    layer, node = call.module, nodes[""]
    return [
        LayerNumbers(
            layer=call.name, node=node.name, owner=layer, name=name, value=node.numbers(name)
        )
        for name in ("weight", "bias")
        if getattr(layer, name) is not None
    ]


def _set_transposed(
    call: Call, nodes: Mapping[str, Node], steps: Mapping[str, Step]
) -> list[LayerNumbers]:
    """Return the kernel and the bias of a transposed convolution."""
    layer, node = call.module, nodes[""]
    kernel = transposed_kernel(np.asarray(node.value("weight")), layer.groups)
    values = {"weight": kernel}
    if layer.bias is not None:
        values["bias"] = np.asarray(node.value("bias"))
    return [
        LayerNumbers(layer=call.name, node=node.name, owner=layer, name=name, value=value)
        for name, value in values.items()
    ]


#: Functions that return the numbers to load into layers of torch.nn.
LAYER_SETTERS: Mapping[str, Setter] = MappingProxyType(
    {
        **dict.fromkeys(("Linear", "Conv1d", "Conv2d"), set_weights),
        **dict.fromkeys(("ConvTranspose1d", "ConvTranspose2d"), _set_transposed),
        "LayerNorm": _set_layer_norm,
        **dict.fromkeys(_NORMS, set_normalisation),
    }
)
