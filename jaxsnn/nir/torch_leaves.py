"""Layers of PyTorch as NIR nodes, by their attributes: no framework is imported.

Those of each framework are in its file in `jaxsnn.nir.frameworks`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxsnn.errors import ConversionError, listing
from jaxsnn.nir.convert.draft import WEIGHTED
from jaxsnn.nir.frameworks.registry import frameworks
from jaxsnn.nir.graph import Edge
from jaxsnn.nir.modules.trained_module import (
    is_of_graph,
    source_of,
    trained_graph,
    weights_for,
)
from jaxsnn.nir.passes import bypass_relays

if TYPE_CHECKING:
    from jaxsnn.nir.convert.step import Step
    from jaxsnn.nir.dialects import Dialect
    from jaxsnn.nir.nodes import Node

#: What to do instead of a layer or a function of torch that NIR has no node for, by its name.
WAYS_OUT: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(
            ("Unflatten", "unflatten", "unsqueeze", "view", "reshape"),
            "give the sample in the shape that the layers take to the part of the module behind it:"
            " NIR's Flatten joins axes behind batch, and no node makes new ones",
        ),
        **dict.fromkeys(
            ("permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims", "t", "T", "mT"),
            "give the sample in the order of axes that the layers take: NIR has no node that swaps"
            " axes",
        ),
        **dict.fromkeys(
            ("linear", "matmul", "mm", "addmm", "einsum"),
            "use a layer, such as torch.nn.Linear, which torch.nn.utils.parametrize gives weights that are"
            " computed",
        ),
        "stack": "join along the axis of channels, with torch.cat: no node of NIR makes a new axis",
    }
)
#: Bytes of the numbers of float32.
_LEAST_BYTES = 4


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """One call of a leaf module during the forward pass.

    Attributes:
        name, module: Of the leaf.
        sources: Where its input came from: names of leaves whose outputs it is the sum of; "" is
            the input of the module.
        inward, outward: Shapes without the axes of batch and time.
        leading: Number of those axes.
        columns: Of a Linear: which number of its input each column of its weight is for; None: all in
            order.
    """

    name: str
    module: Any
    sources: tuple[str, ...]
    inward: tuple[int, ...]
    outward: tuple[int, ...]
    leading: int = 1
    columns: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Factor:
    """What multiplies the numbers between two layers, and is added to them; it is computed by a
    function of torch.

    Attributes:
        value: One for all, or in the shape of the numbers.
        offset: One for all, or for each channel, where the value is one for all.
    """

    value: float | np.ndarray
    offset: float | np.ndarray = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Before:
    """What a neuron gave in the step before, which forward keeps and feeds back."""

    leaf: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moved:
    """What moves numbers along an axis, as torch.cat does with each of its tensors and torch.split
    for each of its parts: out[n] = x[step n - offset], and 0 where x has none.

    Attributes:
        axis: Of the shape, without batch and time.
        offset: How far; below 0 the first numbers are left out.
        step: One of so many is taken.
    """

    axis: int
    offset: int
    step: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Exported:
    """What a leaf becomes.

    Attributes:
        nodes: Entries by the suffix of their name; "" is the leaf itself. The first takes the input.
        edges: Between suffixes.
        last: Suffix of the node that gives the output; None: the first.
        neuron: Suffix of the neuron, which the options are of; None: what gives the output.
        framework: Whose neuron it is; None for weights and shapes.
        options: Options of `jaxsnn.nir.read` for it.
        dt: Length of its step in seconds, if the module says it.
        folds: (factor, offset), (channels,): the layer before it is to have its output y as factor
            y + offset instead.
        norm: The BatchNorm whose they are.
        takes_spikes: It is right for inputs of 0 and 1 alone.
        takes_positive: It is right for inputs that are not below 0 alone.
        dialect: Of a graph, which `jaxsnn.to_torch` made the leaf of; `takers` are its nodes that take
            the input, and `givers` those that give the output.
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
    dialect: Dialect | None = None
    takers: tuple[str, ...] = ()
    givers: tuple[str, ...] = ()

    @property
    def ends(self) -> tuple[str, ...]:
        """Suffixes of the nodes whose outputs it gives, as a sum."""
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
        node: Of the file, for messages.
        owner: Has the attribute; `name` of it, "p.v_th" where it is one of a named tuple.
        value: Of the shape of the node. A layer may have one number for all, where all are equal.
    """

    layer: str
    node: str
    owner: Any
    name: str
    value: np.ndarray


#: What puts numbers into a layer: (call, nodes of the file by suffix, steps of its neurons by suffix).
Setter = Callable[[Call, Mapping[str, "Node"], Mapping[str, "Step"]], list[LayerNumbers]]


def exporter_of(module: Any) -> Callable[[Call], Exported] | None:
    """The exporter of a type, or None; by name, so that no framework is imported for nothing."""
    if is_of_graph(module):
        return _graph_of
    return _exporters().get((_package(module), layer_class(module).__name__))


def layer_class(module: Any) -> type:
    """The class of a layer; of one whose weights torch.nn.utils.parametrize computes, the class that it
    had before.
    """
    kind = type(module)
    return kind.__bases__[0] if hasattr(module, "parametrizations") else kind


def of_library(module: Any) -> bool:
    """Whether the class of a module is torch's or a framework's, and not the user's own."""
    package = type(module).__module__.partition(".")[0]
    return package in {"torch", *(found.package for found in frameworks().values())}


def unsupported(name: str, module: Any) -> ConversionError:
    """The refusal of a layer that no graph has."""
    names = sorted({known for _, known in _exporters()})
    way_out = WAYS_OUT.get(type(module).__name__, f"supported are {listing(names, limit=30)}")
    return ConversionError(
        f"'{name}' is a {_kind(module, names)}, which is not supported",
        fix=way_out,
        node=name,
    )


def _package(module: Any) -> str:
    """Whose class a module is. Of torch only what is in torch.nn: torch.ao has quantized layers of
    the same names.
    """
    path = layer_class(module).__module__
    package = path.partition(".")[0]
    return path if package == "torch" and not path.startswith("torch.nn.") else package


def _kind(module: Any, known: Iterable[str]) -> str:
    """The name of its class, with where it comes from if a known one has the same."""
    kind = type(module)
    return f"{kind.__module__}.{kind.__name__}" if kind.__name__ in known else kind.__name__


def _exporters() -> dict[tuple[str, str], Callable[[Call], Exported]]:
    """By package and name of the class."""
    found = {("torch", kind): exporter for kind, exporter in LAYERS.items()}
    for framework in frameworks().values():
        found |= {(framework.package, kind): one for kind, one in framework.leaves.items()}
    return found


def setter_of(module: Any) -> Setter | None:
    """What puts numbers into a layer of a type; None if it has none, or nobody knows."""
    if is_of_graph(module):
        return _set_graph
    package, kind = _package(module), layer_class(module).__name__
    for framework in frameworks().values():
        if framework.package == package and kind in framework.setters:
            return framework.setters[kind]
    return LAYER_SETTERS.get(kind) if package == "torch" else None


def in_time(module: Any) -> bool:
    """Whether a layer takes (time, batch, *shape) and runs through time itself."""
    package = _package(module)
    return any(
        found.in_time is not None and found.in_time(module)
        for found in frameworks().values()
        if found.package == package
    )


def membranes_of(module: Any, state: Any) -> list[Any]:
    """Tensors in the attributes of a neuron, or of the state that it gives, that are its membrane
    after a call.
    """
    package = _package(module)
    names = [
        n for found in frameworks().values() if found.package == package for n in found.membranes
    ]
    held = [getattr(holder, name, None) for holder in (module, state) for name in names]
    return [tensor for tensor in held if hasattr(tensor, "_version")]


def without_state(module: Any) -> bool:
    """Whether a layer has nothing to learn or to remember, so that it may be called again."""
    kind = type(module).__name__
    return kind in _PLAIN and not list(module.parameters()) and not list(module.buffers())


def may_be_shared(module: Any) -> bool:
    """Whether a layer has weights and no state, so that a graph has a copy in each of its places."""
    return exporter_of(module) is not None and layer_class(module).__name__ in _SHARED


def takes_columns(module: Any) -> bool:
    """Whether a layer has a column of weights for each number of its input."""
    return exporter_of(module) is not None and layer_class(module).__name__ == "Linear"


def may_be_ordered(module: Any, places: np.ndarray) -> bool:
    """Whether a layer may take numbers that lie otherwise than those of the layer before: `places` is
    in the shape in which it takes them.
    """
    if takes_columns(module):
        return places.ndim == 1
    return exporter_of(module) is not None and layer_class(module).__name__ in _ORDERED


def exported(call: Call) -> Exported:
    """What a leaf becomes.

    Raises:
        ConversionError: A type that is not supported, or a setting that NIR cannot hold.
    """
    if isinstance(call.module, Factor):
        return Exported(nodes={"": _scaled(call)})
    if isinstance(call.module, Moved):
        return _moved(call)
    if isinstance(call.module, Before):
        return Exported(nodes={})
    exporter = exporter_of(call.module)
    if exporter is None:
        raise unsupported(call.name, call.module)
    return exporter(call)


def numbers_of(value: Any, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """A tensor or number as array; of a shape, one number holds for all, and axes of length 1 before
    it, such as one of batch, are left out.

    Raises:
        ConversionError: It has other axes.
    """
    array = (
        value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value, np.float32)
    )
    if shape is None:
        return np.array(array)
    before = max(array.ndim - len(shape), 0)
    if any(length != 1 for length in array.shape[:before]):
        raise ConversionError(
            f"numbers of shape {array.shape} are given for neurons of shape {shape}",
            fix="give one number for all, or one for each neuron, without an axis of batch",
        )
    return np.broadcast_to(array.reshape(array.shape[before:]), shape).copy()


def refuse_axes(call: Call, wanted: int) -> None:
    """Refuse weights that take a sample of another number of axes than NIR's do.

    Raises:
        ConversionError: An axis is missing, such as that of batch, or one too many, such as time.
    """
    if len(call.inward) == wanted:
        return
    first = "time and batch" if call.leading == 2 else "batch"
    missing = wanted > max(len(call.inward), 1)
    shape = "channels, *shape" if missing else "*shape"
    axes = "one axis" if wanted == 1 else f"{wanted} axes"
    raise ConversionError(
        f"'{call.name}' ({type(call.module).__name__}) takes numbers of shape {call.inward} behind "
        f"{first}, and in NIR numbers of {axes}",
        fix=f"give a sample (batch, {shape}) of one step, without an axis of time"
        if call.leading == 1
        else f"give a sample (time, batch, {shape})",
        node=call.name,
    )


def refuse_several_outputs(name: str, module: Any) -> None:
    """Refuse a part that `jaxsnn.to_torch` made, and that gives a dict.

    Raises:
        ConversionError: Its graph has several Outputs.
    """
    outputs = source_of(module).outputs
    if len(outputs) > 1:
        raise ConversionError(
            f"'{name}' gives a dict, for its graph has the Outputs {listing(outputs)}",
            fix="pass the module alone to from_torch; load_into takes those with one Output",
            node=name,
        )


def _graph_of(call: Call) -> Exported:
    """A module that `jaxsnn.to_torch` made, as the nodes of its graph."""
    graph = trained_graph(call.module)
    suffixes = {
        name: name.replace("/", ".") for name, node in graph.nodes.items() if not node.traits.port
    }
    wires = [[suffixes.get(name) for name in edge] for edge in bypass_relays(graph)]
    if [None, None] in wires or len({*suffixes.values()}) < len(suffixes):
        raise ConversionError(
            f"'{call.name}' is made of a graph that hands its input on, or has names"
            " that differ in '/' and '.' alone",
            fix="pass the module alone to from_torch, and make a new one of other numbers by"
            " jaxsnn.to_torch",
            node=call.name,
        )
    nodes = {}
    for name, suffix in suffixes.items():
        node = graph.nodes[name].in_file()
        nodes[suffix] = {"type": node.type, **node.parameters}
        if node.metadata:
            nodes[suffix]["metadata"] = dict(node.metadata)
    said = {suffixes[name]: own for name, own in graph.dialect.nodes.items() if name in suffixes}
    return Exported(
        nodes=nodes,
        edges=tuple((start, end) for start, end in wires if start and end),
        framework=graph.dialect.name,
        dialect=dataclasses.replace(graph.dialect, nodes=said),
        takers=tuple(end for start, end in wires if start is None and end),
        givers=tuple(start for start, end in wires if start and end is None),
    )


def _nothing(call: Call) -> Exported:
    return Exported(nodes={})


def exported_linear(call: Call) -> Exported:
    """A torch.nn.Linear as Linear or Affine."""
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
            f"'{call.name}' pads with {conv.padding_mode}, and NIR pads with zeros",
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


def _each_channel(
    call: Call,
    kernel: np.ndarray,
    bias: np.ndarray | None = None,
    stride: Any = 1,
    padding: Any = 0,
) -> dict[str, Any]:
    """A convolution of each channel by itself; `kernel` is (channels, *window)."""
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
    """Means of windows; NIR pools two axes, one is a convolution."""
    if len(kernel_size) == 1:
        channels, length = call.inward[0], int(kernel_size[0])
        kernel = np.full((channels, length), 1 / length, np.float32)
        return Exported(nodes={"": _each_channel(call, kernel, None, stride, padding)})
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
            f"'{call.name}' rounds up, or divides by another number than its window, "
            "and NIR does neither",
            fix="leave out ceil_mode and divisor_override, and count the padding",
            node=call.name,
        )
    return _mean(call, **_windows(pool))


def _rounds_up(call: Call) -> bool:
    """Whether a pool has windows that reach beyond the padded edge, as ceil_mode lets them."""
    pool = call.module
    if not pool.ceil_mode:
        return False
    sizes, axes = _windows(pool), _axes(pool)
    free = np.array(call.inward[-axes:]) + 2 * sizes["padding"] - sizes["kernel_size"]
    return not np.array_equal(free // sizes["stride"] + 1, call.outward[-axes:])


def _even_pool(call: Call) -> Exported:
    """An adaptive pool whose windows are all of one size."""
    axes = _axes(call.module)
    before, after = np.array(call.inward[-axes:]), np.array(call.outward[-axes:])
    if np.any(before % after):
        raise ConversionError(
            f"'{call.name}' ({type(call.module).__name__}) makes {tuple(call.outward[-axes:])} of "
            f"{tuple(call.inward[-axes:])} by windows of several sizes, and NIR's have one",
            fix="give it a size by which that of its input can be divided",
            node=call.name,
        )
    window = before // after
    return _mean(call, window, window.copy(), np.zeros(axes, int))


def _zeros_around(call: Call) -> Exported:
    """Zeros at the edges."""
    layer = call.module
    if getattr(layer, "value", 0) != 0:
        raise ConversionError(
            f"'{call.name}' ({type(layer).__name__}) pads with {layer.value:g}, and NIR with zeros",
            fix="pad with 0",
            node=call.name,
        )
    # torch has the last axis first
    sides = np.reshape(layer.padding, (-1, 2))[::-1]
    return Exported(nodes={"": _around(call, sides)})


def _around(call: Call, sides: np.ndarray) -> dict[str, Any]:
    """Zeros before and behind each axis, (axes, 2), as a convolution of each channel with a one among
    zeros, which moves it; below 0 numbers are left out.
    """
    padding = np.maximum(sides.max(axis=1), 0)
    kernel = np.zeros((call.inward[0], *(1 + 2 * padding - sides.sum(axis=1))), np.float32)
    kernel[(slice(None), *(padding - sides[:, 0]))] = 1
    return _each_channel(call, kernel, padding=padding)


def _scaled(call: Call) -> dict[str, Any]:
    """A factor of all numbers, and what is added: weights of each channel where there is any."""
    value, offset = (
        np.asarray(each, np.float32) for each in (call.module.value, call.module.offset)
    )
    if not offset.any():
        return {"type": "Scale", "scale": np.broadcast_to(value, call.outward).copy()}
    channels = call.inward[0]
    return _scaling_of_channels(
        call, *(np.broadcast_to(e, channels).copy() for e in (value, offset))
    )


def _moved(call: Call) -> Exported:
    """The ones and zeros that move numbers along an axis."""
    axis, offset, step = call.module.axis, call.module.offset, call.module.step
    inward, outward = call.inward[axis], call.outward[axis]
    length = max(step * (outward - 1) + 1, 0)  # before one of so many is taken
    if axis:
        sides, stride = np.zeros((len(call.inward) - 1, 2), int), np.ones(len(call.inward) - 1, int)
        sides[axis - 1], stride[axis - 1] = (offset, length - inward - offset), step
        return Exported(nodes={"": _around(call, sides) | {"stride": stride}})
    ones = np.eye(length, inward, k=-offset, dtype=np.float32)[::step]
    if len(call.inward) == 1:
        return Exported(nodes={"": {"type": "Linear", "weight": ones}})
    kernel = ones.reshape(*ones.shape, *(1,) * (len(call.inward) - 1))
    entry = _each_channel(call, np.zeros((outward, *kernel.shape[2:]), np.float32))
    return Exported(nodes={"": entry | {"weight": kernel, "groups": np.array(1)}})


def refuse_training(name: str, module: Any) -> None:
    """Refuse a layer that does in training what it does not do afterwards.

    Raises:
        ConversionError: It is in training mode.
    """
    kind = type(module).__name__
    random = kind.startswith("Dropout") and getattr(module, "p", 0)
    moves = any("SpectralNorm" in type(part).__name__ for part in module.modules())
    if module.training and (random or moves or "BatchNorm" in kind):
        raise ConversionError(
            f"'{name}' ({kind}) is in training mode, where it does not do what it does later",
            fix="call module.eval() first, as it is then exported",
            node=name,
        )


def refuse_few_digits(name: str, module: Any) -> None:
    """Refuse a layer that rounds its sums to half precision, whose spikes are those of no engine.

    Raises:
        ConversionError: Its numbers have 16 bits or less.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.dtype.is_floating_point and tensor.dtype.itemsize < _LEAST_BYTES:
            raise ConversionError(
                f"'{name}' ({type(module).__name__}) computes in {tensor.dtype}, and a graph of it "
                "in float32, which spikes at other steps",
                fix="give a copy in float32, copy.deepcopy(module).float(), "
                "and compare with what that does",
                node=name,
            )


def _dropout(call: Call) -> Exported:
    """Nothing in evaluation."""
    refuse_training(call.name, call.module)
    return Exported(nodes={})


def exported_normalisation(call: Call) -> Exported:
    """A BatchNorm by its running statistics: y = weight (x - mean) / sqrt(var + eps) + bias, for
    each channel; `weights_of_channels` where no weights before it can have these numbers.
    """
    norm = call.module
    if norm.running_mean is None:
        raise ConversionError(
            f"'{call.name}' ({type(norm).__name__}) has no running statistics, "
            "so that what it does depends on the batch",
            fix="use track_running_stats=True",
            node=call.name,
        )
    if call.leading != 1:
        raise ConversionError(
            f"'{call.name}' ({type(norm).__name__}) takes time and batch as two axes, and the batch for"
            " its channels",
            fix="let it take each step, as Norse's Lift does, or time and batch as one axis",
            node=call.name,
        )
    refuse_training(call.name, norm)
    mean, variance = (
        numbers_of(each).astype(float) for each in (norm.running_mean, norm.running_var)
    )
    factor = 1 / np.sqrt(variance + norm.eps)
    if norm.weight is not None:
        factor = factor * numbers_of(norm.weight)
    offset = -mean * factor
    if norm.bias is not None:
        offset = offset + numbers_of(norm.bias)
    return Exported(nodes={}, folds=(factor, offset), norm=norm)


def weights_of_channels(call: Call, one: Exported) -> dict[str, Any]:
    """The factor and offset of a BatchNorm for each channel as weights: a diagonal, or kernels of one."""
    assert one.folds is not None
    kind = numbers_of(one.norm.running_mean).dtype
    factor, offset = (each.astype(kind) for each in one.folds)
    return _scaling_of_channels(call, factor, offset)


def _scaling_of_channels(call: Call, factor: np.ndarray, offset: np.ndarray) -> dict[str, Any]:
    """Weights that multiply each channel by a factor, and add an offset."""
    if len(call.inward) == 1:
        return {"type": "Affine", "weight": np.diag(factor), "bias": offset}
    kernel = factor.reshape(-1, *(1,) * (len(call.inward) - 1))
    return _each_channel(call, kernel, offset)


def normalisation_numbers(
    norm: Any, factor: np.ndarray, offset: np.ndarray
) -> dict[str, np.ndarray]:
    """Numbers by which a BatchNorm gives factor x + offset, (channels,) each."""
    if norm.weight is None:
        with np.errstate(divide="ignore", invalid="ignore"):
            return {"running_mean": -offset / factor, "running_var": factor**-2.0 - norm.eps}
    values = {"running_mean": 0 * factor, "running_var": np.full_like(factor, 1 - norm.eps)}
    return {**values, "weight": factor, "bias": offset}


def set_normalisation(
    call: Call, nodes: Mapping[str, Node], steps: Mapping[str, Step]
) -> list[LayerNumbers]:
    """A BatchNorm that is a node of its own, see `weights_of_channels`."""
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
    """A MaxPool of spikes: 1 where any in the window is, their sum > 1/2."""
    pool = call.module
    if _rounds_up(call) or pool.return_indices or np.any(np.asarray(pool.dilation) != 1):
        raise ConversionError(
            f"'{call.name}' rounds up, dilates its window or returns indices, and NIR does neither",
            fix="leave out ceil_mode, dilation and return_indices",
            node=call.name,
        )
    threshold = {"type": "Threshold", "threshold": np.full(call.outward, 0.5, np.float32)}
    sizes = _windows(pool)
    total = {"type": "SumPool2d", **sizes}
    refuse_axes(call, 1 + _axes(pool))
    if _axes(pool) == 1:
        ones = np.ones((call.inward[0], *sizes["kernel_size"]), np.float32)
        total = _each_channel(call, ones, None, sizes["stride"], sizes["padding"])
    return Exported(
        nodes={"sum": total, "": threshold},
        edges=(("sum", ""),),
        last="",
        takes_spikes=True,
    )


def _rectified(call: Call) -> Exported:
    """A ReLU of spikes or their sums, which it gives as they are."""
    return Exported(nodes={}, takes_positive=True)


def _axes(pool: Any) -> int:
    """Over how many axes a pool goes: 1 of AvgPool1d."""
    return int(type(pool).__name__[-2])


def _windows(pool: Any) -> dict[str, np.ndarray]:
    """kernel_size, stride and padding of a pool, a number for each axis."""
    return {
        key: np.broadcast_to(getattr(pool, key), (_axes(pool),)).copy()
        for key in ("kernel_size", "stride", "padding")
    }


def _flatten(call: Call) -> Exported:
    dims, axes = call.leading + len(call.inward), (call.module.start_dim, call.module.end_dim)
    start, end = (dim % dims - call.leading for dim in axes)
    if start < 0:
        raise ConversionError(
            f"'{call.name}' flattens the axis of batch",
            fix=f"use start_dim={call.leading}",
            node=call.name,
        )
    entry = {
        "type": "Flatten",
        "input_type": np.array(call.inward),
        "start_dim": np.array(start),
        "end_dim": np.array(end),
    }
    return Exported(nodes={"": entry})


_PADDINGS = ("ZeroPad1d", "ZeroPad2d", "ConstantPad1d", "ConstantPad2d")
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
        **dict.fromkeys(_PADDINGS, _zeros_around),
        "Flatten": _flatten,
        **dict.fromkeys(_NORMS, exported_normalisation),
        "Dropout": _dropout,
        "Dropout1d": _dropout,
        "Dropout2d": _dropout,
        "Identity": _nothing,
        "ReLU": _rectified,
    }
)


def set_weights(
    call: Call, nodes: Mapping[str, Node], steps: Mapping[str, Step], *, suffix: str = ""
) -> list[LayerNumbers]:
    """The weight and the bias of a linear layer or convolution; a file without bias means 0."""
    layer, node = call.module, nodes[suffix]
    weight = np.asarray(node.value("weight"))
    if call.columns is not None:
        # Columns for one and the same number share its weight.
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


def _set_graph(
    call: Call, nodes: Mapping[str, Node], steps: Mapping[str, Step]
) -> list[LayerNumbers]:
    """The weights and biases of a module that `jaxsnn.to_torch` made."""
    found = []
    by_name = {
        name: nodes[name.replace("/", ".")]
        for name, node in source_of(call.module).nodes.items()
        if node.type in WEIGHTED
    }
    for name, key, value in weights_for(call.module, by_name):
        layer = call.module.get_submodule(name)
        if getattr(layer, key, None) is not None:
            found.append(
                LayerNumbers(
                    layer=f"{call.name}.{name}", node=call.name, owner=layer, name=key, value=value
                )
            )
    return found


#: What puts numbers into layers of torch.nn.
LAYER_SETTERS: Mapping[str, Setter] = MappingProxyType(
    {
        **dict.fromkeys(("Linear", "Conv1d", "Conv2d"), set_weights),
        **dict.fromkeys(_NORMS, set_normalisation),
    }
)
#: Those whose weights may be in several places.
_SHARED = ("Linear", "Conv1d", "Conv2d")
#: Those that change no number, and may change axes.
_ORDERED = ("Flatten", "Dropout", "Dropout1d", "Dropout2d", "Identity")
#: Those that may be called in several places.
_PLAIN = (
    *("AvgPool1d", "AdaptiveAvgPool1d", "MaxPool1d", *_PADDINGS),
    *("AvgPool2d", "AdaptiveAvgPool2d", "MaxPool2d", "Flatten"),
    *("Dropout", "Dropout1d", "Dropout2d", "Identity", "ReLU"),
)
