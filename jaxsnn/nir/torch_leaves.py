"""Layers and neurons of PyTorch, snnTorch and Norse as NIR nodes, by their attributes: no framework
is imported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError, listing
from jaxsnn.nir.dialects import DIALECTS
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
    framework = kind.__module__.partition(".")[0]
    return _EXPORTERS.get((framework, kind.__name__))


def exported(call: Call) -> Exported:
    """What a leaf becomes.

    Raises:
        ConversionError: A type that is not supported, or a setting that NIR cannot hold.
    """
    exporter = exporter_of(call.module)
    if exporter is None:
        names = listing(sorted({name for _, name in _EXPORTERS}), limit=30)
        raise ConversionError(
            f"'{call.name}' is a {type(call.module).__name__}, which is not supported",
            fix=f"supported are {names}",
            node=call.name,
        )
    return exporter(call)


def _numbers(value: Any, shape: tuple[int, ...] | None = None) -> np.ndarray:
    array = (
        value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value, np.float32)
    )
    return np.array(array) if shape is None else np.broadcast_to(array, shape).copy()


def _nothing(call: Call) -> Exported:
    return Exported(nodes={})


def _linear(call: Call) -> Exported:
    entry = {"type": "Linear", "weight": _numbers(call.module.weight)}
    if call.module.bias is not None:
        entry |= {"type": "Affine", "bias": _numbers(call.module.bias)}
    return Exported(nodes={"": entry})


def _convolution(call: Call) -> Exported:
    conv = call.module
    if conv.padding_mode != "zeros":
        raise ConversionError(
            f"'{call.name}' pads with {conv.padding_mode}, and NIR pads with zeros",
            fix='use padding_mode="zeros"',
            node=call.name,
        )
    weight = _numbers(conv.weight)
    bias = np.zeros(len(weight), weight.dtype) if conv.bias is None else _numbers(conv.bias)
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


def _snntorch(call: Call) -> Exported:
    """Leaky, Synaptic, RLeaky and RSynaptic, by the formulas of snnTorch's exporter."""
    neuron, shape = call.module, call.outward
    for what, odd in (
        ("inhibition", neuron.inhibition),
        ("state_quant", neuron.state_quant),
        ("graded_spikes_factor", float(neuron.graded_spikes_factor) != 1),
    ):
        if odd:
            raise ConversionError(
                f"'{call.name}' has {what}, which NIR cannot hold",
                fix="leave it out",
                node=call.name,
            )
    dt = np.float32(DIALECTS["snntorch"].dt or 0)
    rest = 1 - np.clip(_numbers(neuron.beta, shape), 0, 1)
    with np.errstate(divide="ignore"):
        entry = {"type": "LIF", "tau": dt / rest, "r": 1 / rest}
        if hasattr(neuron, "alpha"):
            share = 1 - np.clip(_numbers(neuron.alpha, shape), 0, 1)
            entry = {
                "type": "CubaLIF",
                "tau_mem": dt / rest,
                "tau_syn": dt / share,
                "r": 1 / rest,
                "w_in": 1 / share,
            }
    zero = np.zeros(shape, np.float32)
    entry |= {"v_leak": zero, "v_threshold": _numbers(neuron.threshold, shape), "v_reset": zero}
    options: dict[str, Any] = {
        "reset": neuron.reset_mechanism,
        "reset_delay": bool(neuron.reset_delay),
    }
    if neuron.reset_mechanism == "none":
        options["readout"] = True
    recurrent = getattr(neuron, "recurrent", None)
    if recurrent is None:
        return Exported(nodes={"": entry}, framework="snntorch", options=options)
    if not neuron.all_to_all:
        weights = {"type": "Linear", "weight": np.diag(_numbers(recurrent.V, shape))}
    elif type(recurrent).__name__ == "Linear":
        weights = _linear(dataclasses.replace(call, module=recurrent)).nodes[""]
    else:
        raise ConversionError(
            f"'{call.name}' feeds itself through a {type(recurrent).__name__}",
            fix="use a Linear",
            node=call.name,
        )
    nodes, edges = {"lif": entry, "w_rec": weights}, (("lif", "w_rec"), ("w_rec", "lif"))
    return Exported(nodes=nodes, edges=edges, framework="snntorch", options=options)


def _norse(call: Call) -> Exported:
    """LIFBoxCell, LIFCell, IAFCell and LIBoxCell; time constants in true seconds."""
    cell, shape = call.module, call.outward
    p = cell.p
    entry: dict[str, Any] = {"r": np.ones(shape, np.float32)}
    kind = {"LIFBoxCell": "LIF", "LIFCell": "CubaLIF", "IAFCell": "IF", "LIBoxCell": "LI"}[
        type(cell).__name__
    ]
    if kind != "IF":
        entry["tau_mem" if kind == "CubaLIF" else "tau"] = 1 / _numbers(p.tau_mem_inv, shape)
        entry["v_leak"] = _numbers(p.v_leak, shape)
    if kind == "CubaLIF":
        entry |= {"tau_syn": 1 / _numbers(p.tau_syn_inv, shape), "w_in": np.ones(shape, np.float32)}
    options: dict[str, Any] = {}
    if kind != "LI":
        entry |= {"v_threshold": _numbers(p.v_th, shape), "v_reset": _numbers(p.v_reset, shape)}
        options["reset"] = _norse_reset(call.name, getattr(p, "reset_method", None))
    if kind == "IF":
        options["initial"] = "v_reset"
    return Exported(
        nodes={"": {"type": kind, **entry}}, framework="norse", options=options, dt=float(cell.dt)
    )


def _norse_reset(name: str, method: Any) -> str:
    known = {"reset_value": "zero", "reset_subtract": "subtract"}
    if method is None:
        return "zero"
    called = getattr(method, "__name__", repr(method))
    if called not in known:
        raise ConversionError(
            f"'{name}' resets by {called}, which is not supported",
            fix=f"use {listing(known)}",
            node=name,
        )
    return known[called]


_EXPORTERS: Mapping[tuple[str, str], Callable[[Call], Exported]] = MappingProxyType(
    {
        ("torch", "Linear"): _linear,
        ("torch", "Conv1d"): _convolution,
        ("torch", "Conv2d"): _convolution,
        ("torch", "AvgPool2d"): _pool,
        ("torch", "Flatten"): _flatten,
        ("torch", "Dropout"): _nothing,
        ("torch", "Identity"): _nothing,
        **{("snntorch", kind): _snntorch for kind in ("Leaky", "Synaptic", "RLeaky", "RSynaptic")},
        **{("norse", kind): _norse for kind in ("LIFBoxCell", "LIFCell", "IAFCell", "LIBoxCell")},
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
