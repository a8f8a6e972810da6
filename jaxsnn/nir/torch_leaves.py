"""Layers of PyTorch as NIR nodes, by their attributes: no framework is imported.

Those of each framework are in its file in `jaxsnn.nir.frameworks`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError, listing
from jaxsnn.nir.frameworks.registry import frameworks
from jaxsnn.nir.graph import Edge


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """One call of a leaf module during the forward pass.

    Attributes:
        name, module: Of the leaf.
        sources: Where its input came from: names of leaves, or "input".
        inward, outward: Shapes without the axis of batch.
    """

    name: str
    module: Any
    sources: tuple[str, ...]
    inward: tuple[int, ...]
    outward: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Exported:
    """What a leaf becomes.

    Attributes:
        nodes: Entries by the suffix of their name; "" is the leaf itself.
        edges: Between suffixes.
        framework: Whose neuron it is; None for weights and shapes.
        options: Options of `jaxsnn.nir.read` for it.
        dt: Length of its step in seconds, if it has one.
    """

    nodes: Mapping[str, dict[str, Any]]
    edges: tuple[Edge, ...] = ()
    framework: str | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    dt: float | None = None


def exporter_of(module: Any) -> Callable[[Call], Exported] | None:
    """The exporter of a type, or None; by name, so that no framework is imported for nothing."""
    kind = type(module)
    package = kind.__module__.partition(".")[0]
    return _exporters().get((package, kind.__name__))


def _exporters() -> dict[tuple[str, str], Callable[[Call], Exported]]:
    """By package and name of the class."""
    found = {("torch", kind): exporter for kind, exporter in _LAYERS.items()}
    for framework in frameworks().values():
        found |= {(framework.package, kind): one for kind, one in framework.leaves.items()}
    return found


def exported(call: Call) -> Exported:
    """What a leaf becomes.

    Raises:
        ConversionError: A type that is not supported, or a setting that NIR cannot hold.
    """
    exporter = exporter_of(call.module)
    if exporter is None:
        names = listing(sorted({name for _, name in _exporters()}), limit=30)
        raise ConversionError(
            f"'{call.name}' is a {type(call.module).__name__}, which is not supported",
            fix=f"supported are {names}",
            node=call.name,
        )
    return exporter(call)


def numbers_of(value: Any, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """A tensor or number as array; of a shape, one number holds for all."""
    array = (
        value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value, np.float32)
    )
    return np.array(array) if shape is None else np.broadcast_to(array, shape).copy()


def _nothing(call: Call) -> Exported:
    return Exported(nodes={})


def exported_linear(call: Call) -> Exported:
    """A torch.nn.Linear as Linear or Affine."""
    entry = {"type": "Linear", "weight": numbers_of(call.module.weight)}
    if call.module.bias is not None:
        entry |= {"type": "Affine", "bias": numbers_of(call.module.bias)}
    return Exported(nodes={"": entry})


def _convolution(call: Call) -> Exported:
    conv = call.module
    if conv.padding_mode != "zeros":
        raise ConversionError(
            f"'{call.name}' pads with {conv.padding_mode}, and NIR pads with zeros",
            fix='use padding_mode="zeros"',
            node=call.name,
        )
    weight = numbers_of(conv.weight)
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


def _pool(call: Call) -> Exported:
    pool = call.module
    if (
        pool.ceil_mode
        or pool.divisor_override
        or (np.any(pool.padding) and not pool.count_include_pad)
    ):
        raise ConversionError(
            f"'{call.name}' rounds up, or divides by another number than its window, "
            "and NIR does neither",
            fix="leave out ceil_mode and divisor_override, and count the padding",
            node=call.name,
        )
    pairs = {
        key: np.broadcast_to(getattr(pool, key), (2,)).copy()
        for key in ("kernel_size", "stride", "padding")
    }
    return Exported(nodes={"": {"type": "AvgPool2d", **pairs}})


def _flatten(call: Call) -> Exported:
    start, end = (
        dim - 1 if dim > 0 else dim for dim in (call.module.start_dim, call.module.end_dim)
    )
    if call.module.start_dim == 0:
        raise ConversionError(
            f"'{call.name}' flattens the axis of batch", fix="use start_dim=1", node=call.name
        )
    entry = {
        "type": "Flatten",
        "input_type": np.array(call.inward),
        "start_dim": np.array(start),
        "end_dim": np.array(end),
    }
    return Exported(nodes={"": entry})


_LAYERS: Mapping[str, Callable[[Call], Exported]] = MappingProxyType(
    {
        "Linear": exported_linear,
        "Conv1d": _convolution,
        "Conv2d": _convolution,
        "AvgPool2d": _pool,
        "Flatten": _flatten,
        "Dropout": _nothing,
        "Identity": _nothing,
    }
)


def outputs_of(
    result: Any, makers: dict[int, str], calls: dict[str, Call]
) -> dict[str, tuple[int, ...]]:
    """The leaves that give what a module returns: the first tensor, and others that no leaf takes
    up.

    What is returned beside them are states of neurons.
    """
    tensors = _tensors(result)
    if not tensors or id(tensors[0]) not in makers:
        raise ConversionError(
            "the output of the module is computed outside of layers", fix="use a layer for it"
        )
    taken = {source for call in calls.values() for source in call.sources}
    found = {makers[id(tensors[0])]: tuple(tensors[0].shape[1:])}
    for tensor in tensors[1:]:
        maker = makers.get(id(tensor))
        if maker is not None and maker not in taken:
            found.setdefault(maker, tuple(tensor.shape[1:]))
    return found


def _tensors(result: Any) -> list[Any]:
    if isinstance(result, dict):
        return _tensors(list(result.values()))
    if isinstance(result, tuple | list):
        return [tensor for part in result for tensor in _tensors(part)]
    return [result] if hasattr(result, "shape") else []
