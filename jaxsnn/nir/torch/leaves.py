"""Find the exporter of a layer of a PyTorch module, and the setter of its parameters.

Layers of `torch.nn` are in `jaxsnn.nir.frameworks.torch_layers`, those of each framework in its file
there. They are looked up by package and class name, so that no framework is imported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxsnn.errors import ConversionError, listing
from jaxsnn.nir.frameworks.framework import Forward, Framework
from jaxsnn.nir.frameworks.registry import frameworks
from jaxsnn.nir.model.draft import WEIGHTED
from jaxsnn.nir.model.passes import bypass_relays
from jaxsnn.nir.torch.trained_module import is_of_graph, source_of, trained_graph, weights_for

if TYPE_CHECKING:
    from jaxsnn.nir.frameworks.source_step import Step
    from jaxsnn.nir.model.node import Node

from jaxsnn.nir.frameworks.torch_layers import (
    LAYER_SETTERS,
    LAYERS,
    PADDING_LAYERS,
    Call,
    Exported,
    LayerNumbers,
    Setter,
    channel_scaling,
    depthwise_convolution,
    exported_reshape,
    layer_class,
    padding_node,
)
from jaxsnn.wording import Text

#: Name of a layer or function of torch for which NIR has no node -> advice.
WAYS_OUT: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(
            ("Unflatten", "unflatten", "unsqueeze", "view", "reshape"),
            "remove the reshaping from the module, and pass a sample that already has "
            "the new shape: NIR's Flatten joins axes after the batch axis, and no node "
            "of NIR adds axes",
        ),
        **dict.fromkeys(
            ("permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims", "t", "T", "mT"),
            "remove the permutation of axes from the module, and pass a sample whose "
            "axes are already in the order that the layers expect: NIR has no node that "
            "swaps axes",
        ),
        **dict.fromkeys(
            ("linear", "matmul", "mm", "addmm", "einsum"),
            "use a layer, such as torch.nn.Linear; if its weights are computed, use "
            "torch.nn.utils.parametrize",
        ),
        "change of a view": (
            "assign to the tensor itself, such as buffer[t] = x, or collect tensors in a list and use torch.stack"
        ),
        "stack": ("concatenate along the channel axis with torch.cat: no node of NIR adds an axis"),
    }
)


#: Advice for a layer that has no entry in `WAYS_OUT` and no alternative.
_OUTSIDE = (
    "compute it before the first layer or after the last one, where it is not part of "
    "the graph: NIR has no node for it"
)
#: Class name of a layer of torch for which NIR has no node -> the nearest alternative.
_ALTERNATIVES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(
            ("Tanh", "Sigmoid", "GELU", "SiLU", "ELU", "SELU", "LeakyReLU", "PReLU", "Softplus"),
            "replace it by a spiking neuron: NIR has no nonlinear activation functions",
        ),
        **dict.fromkeys(("Softmax", "LogSoftmax"), "return its input, and compute it in the loss"),
        **dict.fromkeys(
            ("LayerNorm", "GroupNorm", "InstanceNorm1d", "InstanceNorm2d", "RMSNorm"),
            "use BatchNorm, which is merged into the weights: NIR has no normalisation "
            "by statistics of a sample",
        ),
        **dict.fromkeys(
            (
                *("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"),
                *("SpikingLSTM", "SpikingGRU", "SpikingVanillaRNN"),
            ),
            "use recurrent neurons: RLeaky, LIFRecurrentCell, or a neuron in a LinearRecurrentContainer",
        ),
        **dict.fromkeys(("LPPool1d", "LPPool2d"), "use AvgPool2d"),
        "SynapseFilter": "use NonSpikingLIFNode, or LIFNode with an infinite threshold: the decay of a "
        "SynapseFilter depends on its input, and NIR has no such node",
        "Conv3d": "use Conv2d: NIR has convolutions along one or two axes",
    }
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Factor:
    """Multiplication and addition between two layers, computed by a function of torch.

    Attributes:
        value: Factor, a scalar or in the shape of the input.
        offset: Summand, a scalar, or one for each channel if the value is a scalar.
    """

    value: float | np.ndarray
    offset: float | np.ndarray = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Before:
    """Output of a neuron in the previous step, which forward keeps and feeds back."""

    leaf: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Membrane:
    """Membrane potential of a neuron, as the input of a layer. In the graph it is that of a second
    neuron with the same inputs.
    """

    leaf: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moved:
    """Shift along an axis, as in torch.cat (for each tensor) and torch.split (for each part):
    out[n] = x[step n - offset], and 0 where x has no such element.

    Attributes:
        axis: Axis of the shape, without batch and time.
        offset: Distance; a negative one drops the first elements.
        step: Stride: every `step`-th element is used.
    """

    axis: int
    offset: int
    step: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reshaped:
    """Change of shape between two layers for which NIR has no node, such as x.view(-1, 1, 8, 8)."""


def exporter_of(module: Any) -> Callable[[Call], Exported] | None:
    """Return the exporter of a module's type, or None. It is looked up by name, so that no
    framework is imported needlessly.
    """
    if is_of_graph(module):
        return _graph_of
    exporter = _exporters().get((_package(module), layer_class(module).__name__))
    if not isinstance(exporter, str):
        return exporter
    layer = getattr(module, exporter)
    has_layers = list(layer.children()) and exporter_of(layer) is None
    return None if has_layers else _export_wrapped


def of_library(module: Any) -> bool:
    """Return whether a module's class belongs to torch or a framework, not to the user."""
    return type(module).__module__.partition(".")[0] in library_packages()


def of_framework(module: Any) -> bool:
    """Return whether a module's class belongs to a framework of spiking networks."""
    return of_library(module) and type(module).__module__.partition(".")[0] != "torch"


def is_neuron_without_node(module: Any) -> bool:
    """Return whether a module is a layer with a state, of a framework or derived from its neurons, for
    which NIR has no node.
    """
    framework = _framework_of(module)
    if framework is None or not hasattr(module, framework.rewind or " "):
        return False
    has_membrane = any(_attribute(module, name) is not None for name in framework.membranes)
    return (of_library(module) or has_membrane) and exporter_of(module) is None


def _framework_of(module: Any) -> Framework | None:
    """Return the framework from one of whose classes a module's class derives; None if there is none."""
    of_package = {framework.package: framework for framework in frameworks().values()}
    packages = [base.__module__.partition(".")[0] for base in type(module).__mro__]
    return next((of_package[package] for package in packages if package in of_package), None)


def library_packages() -> set[str]:
    """Return the packages whose modules are layers: torch and the frameworks."""
    return {"torch", *(framework.package for framework in frameworks().values())}


def unsupported(name: str, module: Any) -> ConversionError:
    """Return the refusal of an unsupported layer: why, and the nearest alternative."""
    kind, framework = type(module).__name__, _framework_of(module)
    alternative = _ALTERNATIVES.get(kind, "")
    is_neuron = framework is not None and hasattr(module, framework.rewind or "forward")
    supported = [k for k in framework.leaves if k not in LAYERS] if framework and is_neuron else []
    if supported and not alternative:
        alternative = f"use one of {listing(supported, limit=8)}, which NIR supports"
    if not (of_library(module) or alternative):
        alternative = (
            f"if it is a neuron, use one of {framework_titles()} instead; otherwise {_OUTSIDE}"
        )
    fix = WAYS_OUT.get(kind, alternative or _OUTSIDE)
    return ConversionError(
        Text(
            "'{layer}' is a {type}, which is not supported",
            layer=name,
            type=_kind(module, {layer for _, layer in _exporters()}),
        ),
        fix=fix,
        node=name,
    )


def _package(module: Any) -> str:
    """Return the package of a module's class; the full module path for classes of torch outside of
    torch.nn, since torch.ao has quantized layers of the same names.
    """
    path = layer_class(module).__module__
    package = path.partition(".")[0]
    return path if package == "torch" and not path.startswith("torch.nn.") else package


def _kind(module: Any, layer_names: Iterable[str]) -> str:
    """Return the name of a module's class, with its module path if a supported layer has the same
    name.
    """
    kind = type(module)
    return f"{kind.__module__}.{kind.__name__}" if kind.__name__ in layer_names else kind.__name__


def _exporters() -> dict[tuple[str, str], Callable[[Call], Exported] | str]:
    """Return `Framework.leaves` by package and name of the class, and torch's layers."""
    exporters: dict[tuple[str, str], Callable[[Call], Exported] | str]
    exporters = {("torch", kind): exporter for kind, exporter in LAYERS.items()}
    for framework in frameworks().values():
        exporters |= {
            (framework.package, kind): exporter for kind, exporter in framework.leaves.items()
        }
    return exporters


def setter_of(module: Any) -> Setter | None:
    """Return the function that sets the parameters of a layer of this type; None if there is
    none.
    """
    if is_of_graph(module):
        return _set_graph
    if _wrapped_layer(module) is not None:
        return _set_wrapped
    package, kind = _package(module), layer_class(module).__name__
    for framework in frameworks().values():
        if framework.package == package and kind in framework.setters:
            return framework.setters[kind]
    return LAYER_SETTERS.get(kind) if package == "torch" else None


def _wrapped_layer(module: Any) -> Any:
    """Return the layer that a framework's wrapper applies in each time step; None for other
    layers.
    """
    attribute = _exporters().get((_package(module), layer_class(module).__name__))
    return getattr(module, attribute) if isinstance(attribute, str) else None


def _export_wrapped(call: Call) -> Exported:
    """Export the layer that a wrapper applies in each time step."""
    layer = _wrapped_layer(call.module)
    return exported(dataclasses.replace(call, module=layer))


def _set_wrapped(
    call: Call, nodes: Mapping[str, Node], steps: Mapping[str, Step]
) -> list[LayerNumbers]:
    """Set the numbers of the layer that a wrapper applies in each time step."""
    layer = dataclasses.replace(call, module=_wrapped_layer(call.module))
    setter = setter_of(layer.module)
    return [] if setter is None else setter(layer, nodes, steps)


def in_time(module: Any) -> bool:
    """Return whether a layer takes (time, batch, *shape) and iterates over time itself."""
    package = _package(module)
    return any(
        framework.in_time is not None and framework.in_time(module)
        for framework in frameworks().values()
        if framework.package == package
    )


def split_forward(module: Any, forward: Forward) -> tuple[Forward, Forward | None]:
    """Return the forward of a layer to be recorded, and the function that computes its result from what
    this returns, if they differ; see `Framework.split_forward`.
    """
    package = _package(module)
    for framework in frameworks().values():
        if framework.package == package and framework.split_forward is not None:
            return framework.split_forward(module, forward)
    return forward, None


def membranes_of(module: Any, state: Any) -> list[Any]:
    """Return the membrane potentials of a neuron after a call: tensors among its attributes, or in
    the state that it returns.
    """
    package = _package(module)
    attributes = [
        n
        for framework in frameworks().values()
        if framework.package == package
        for n in framework.membranes
    ]
    held = [_attribute(holder, name) for holder in (module, state) for name in attributes]
    return [tensor for tensor in held if hasattr(tensor, "_version")]


def _attribute(holder: Any, path: str) -> Any:
    """Return an attribute, "lif.v" one of an attribute; None if there is none."""
    for name in path.split("."):
        holder = getattr(holder, name, None)
    return holder


def without_state(module: Any) -> bool:
    """Return whether a layer has neither parameters nor state, so that it may be called
    repeatedly.
    """
    kind = type(module).__name__
    return kind in _PLAIN and not list(module.parameters()) and not list(module.buffers())


def may_be_shared(module: Any) -> bool:
    """Return whether a layer has weights and no state, so that a graph can hold a copy for each
    call.
    """
    return exporter_of(module) is not None and layer_class(module).__name__ in _SHARED


def takes_columns(module: Any) -> bool:
    """Return whether a layer has a column of weights for each element of its input."""
    return exporter_of(module) is not None and layer_class(module).__name__ == "Linear"


def may_be_ordered(module: Any, places: np.ndarray) -> bool:
    """Return whether a layer accepts reordered elements of the previous layer.

    Args:
        places: Indices into the output of the previous layer, in the shape of the layer's input.
    """
    if takes_columns(module):
        return places.ndim == 1
    return exporter_of(module) is not None and layer_class(module).__name__ in _ORDERED


def exported(call: Call) -> Exported:
    """Return the nodes that a leaf is exported to.

    Raises:
        ConversionError: The type is unsupported, or NIR cannot represent a setting.
    """
    if isinstance(call.module, Factor):
        return Exported(nodes={"": _scaled(call)})
    if isinstance(call.module, Moved):
        return _moved(call)
    if isinstance(call.module, Reshaped):
        return exported_reshape(call)
    if isinstance(call.module, Before | Membrane):
        return Exported(nodes={})
    exporter = exporter_of(call.module)
    if exporter is None:
        raise unsupported(call.name, call.module)
    if call.reset_each_call and not is_resettable(call.module):
        raise ConversionError(
            Text(
                "forward resets the states of '{layer}' ({type}) before each call, and neurons of a graph keep "
                "their states",
                layer=call.name,
                type=type(call.module).__name__,
            ),
            fix="reset them once, before the loop over time, or outside of forward if it computes "
            "one time step",
            node=call.name,
        )
    return exporter(call)


def is_resettable(module: Any) -> bool:
    """Return whether a neuron can be exported if it starts from its initial state in each call."""
    package, kind = _package(module), layer_class(module).__name__
    return any(
        framework.package == package and kind in framework.resettable
        for framework in frameworks().values()
    )


def no_neurons(of_functions: Sequence[str] = ()) -> ConversionError:
    """Return the refusal of a module that calls no neurons.

    Args:
        of_functions: Modules and functions that compute with functions of torch, and may be neurons.
    """
    message = Text("the module has no neurons")
    if of_functions:
        message += Text(
            " that are layers: functions of torch compute {functions}, and are not read as neurons",
            functions=listing(of_functions, limit=3),
        )
    return ConversionError(message, fix=f"use neurons of one framework: {framework_titles()}")


def framework_titles() -> str:
    """Return the frameworks whose layers are read, as words."""
    return " or ".join(f.title for f in frameworks().values() if f.leaves)


def refuse_several_outputs(name: str, module: Any) -> None:
    """Refuse a module of `jaxsnn.to_torch` that returns a dict.

    Raises:
        ConversionError: Its graph has several Outputs.
    """
    outputs = source_of(module).outputs
    if len(outputs) > 1:
        raise ConversionError(
            Text(
                "'{layer}' returns a dict, since its graph has the Outputs {outputs}",
                layer=name,
                outputs=listing(outputs),
            ),
            fix=(
                "pass this submodule itself to from_torch, or use a graph with one "
                "Output in jaxsnn.to_torch"
            ),
            node=name,
        )


def _graph_of(call: Call) -> Exported:
    """Export a module that `jaxsnn.to_torch` created as the nodes of its graph."""
    graph = trained_graph(call.module)
    suffixes = {
        name: name.replace("/", ".") for name, node in graph.nodes.items() if not node.traits.port
    }
    wires = [[suffixes.get(name) for name in edge] for edge in bypass_relays(graph)]
    if [None, None] in wires or len({*suffixes.values()}) < len(suffixes):
        raise ConversionError(
            Text(
                "the graph of '{layer}' connects its Input to its Output, or has names "
                "that differ only in '/' and '.'",
                layer=call.name,
            ),
            fix="pass this submodule itself to from_torch",
            node=call.name,
        )
    nodes = {}
    for name, suffix in suffixes.items():
        node = graph.nodes[name].in_file()
        nodes[suffix] = {"type": node.type, **node.parameters}
        if node.metadata:
            nodes[suffix]["metadata"] = dict(node.metadata)
    node_options = {
        suffixes[name]: options for name, options in graph.dialect.nodes.items() if name in suffixes
    }
    return Exported(
        nodes=nodes,
        edges=tuple((start, end) for start, end in wires if start and end),
        framework=graph.dialect.name,
        dialect=dataclasses.replace(graph.dialect, nodes=node_options),
        takers=tuple(end for start, end in wires if start is None and end),
        givers=tuple(start for start, end in wires if start and end is None),
    )


def _scaled(call: Call) -> dict[str, Any]:
    """Return a Scale node for a factor of all elements; weights of each channel if there is an
    offset.
    """
    value, offset = (
        np.asarray(numbers, np.float32) for numbers in (call.module.value, call.module.offset)
    )
    if not offset.any():
        return {"type": "Scale", "scale": np.broadcast_to(value, call.outward).copy()}
    channels = call.inward[0]
    return channel_scaling(call, *(np.broadcast_to(e, channels).copy() for e in (value, offset)))


def _moved(call: Call) -> Exported:
    """Return the 0/1 weights that shift elements along an axis."""
    axis, offset, step = call.module.axis, call.module.offset, call.module.step
    inward, outward = call.inward[axis], call.outward[axis]
    length = max(step * (outward - 1) + 1, 0)  # before every `step`-th element is selected
    if axis:
        sides, stride = np.zeros((len(call.inward) - 1, 2), int), np.ones(len(call.inward) - 1, int)
        sides[axis - 1], stride[axis - 1] = (offset, length - inward - offset), step
        return Exported(nodes={"": padding_node(call, sides) | {"stride": stride}})
    ones = np.eye(length, inward, k=-offset, dtype=np.float32)[::step]
    if len(call.inward) == 1:
        return Exported(nodes={"": {"type": "Linear", "weight": ones}})
    kernel = ones.reshape(*ones.shape, *(1,) * (len(call.inward) - 1))
    entry = depthwise_convolution(call, np.zeros((outward, *kernel.shape[2:]), np.float32))
    return Exported(nodes={"": entry | {"weight": kernel, "groups": np.array(1)}})


def _set_graph(
    call: Call, nodes: Mapping[str, Node], steps: Mapping[str, Step]
) -> list[LayerNumbers]:
    """Return the weights and biases to set in a module that `jaxsnn.to_torch` created."""
    numbers = []
    by_name = {
        name: nodes[name.replace("/", ".")]
        for name, node in source_of(call.module).nodes.items()
        if node.type in (*WEIGHTED, "LayerNorm")
    }
    for name, key, value in weights_for(call.module, by_name):
        layer = call.module.get_submodule(name)
        if getattr(layer, key, None) is not None:
            numbers.append(
                LayerNumbers(
                    layer=f"{call.name}.{name}", node=call.name, owner=layer, name=key, value=value
                )
            )
    return numbers


#: Layers with weights that may be called repeatedly; the graph has a copy of the weights per call.
_SHARED = ("Linear", "Conv1d", "Conv2d")
#: Layers that change no number, at most the axes.
_ORDERED = ("Flatten", "Dropout", "Dropout1d", "Dropout2d", "Identity")
#: Layers without weights and state, which may be called repeatedly.
_PLAIN = (
    *("AvgPool1d", "AdaptiveAvgPool1d", "MaxPool1d", *PADDING_LAYERS),
    *("AvgPool2d", "AdaptiveAvgPool2d", "MaxPool2d", "Flatten"),
    *("Dropout", "Dropout1d", "Dropout2d", "Identity", "ReLU", "Unflatten", "Upsample"),
)
