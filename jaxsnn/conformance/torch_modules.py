"""What adapters for PyTorch share: layers without a state, and running a module step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxsnn.conformance.adapter import NotApplicableError
from jaxsnn.conformance.networks import NetworkLayer, NetworkSpec


def built_chain(network: NetworkSpec, neuron: Callable[[NetworkLayer], Any]) -> list[Any]:
    """Return the layers of a network as modules of PyTorch.

    Args:
        network: a chain.
        neuron: function that returns the module of a neuron.

    Raises:
        NotApplicableError: the network is no chain, or PyTorch has no such layer.
    """
    if network.skips:
        raise NotApplicableError("a Sequential is a chain of layers")
    shapes = (network.shape, *(layer.shape for layer in network.layers))
    return [
        neuron(layer) if layer.is_neuron else torch_layer(layer, shape)
        for layer, shape in zip(network.layers, shapes, strict=False)
    ]


def torch_layer(layer: NetworkLayer, shape: tuple[int, ...]) -> Any:
    """Return a layer without a state as a module of PyTorch, for inputs of a shape.

    Raises:
        NotApplicableError: PyTorch has no such layer.
    """
    import torch

    values = layer.parameters
    if layer.type in ("Linear", "Affine"):
        module = torch.nn.Linear(shape[0], layer.shape[0], bias=layer.type == "Affine")
    elif layer.type == "Conv2d":
        weight = np.asarray(values["weight"])
        settings: dict[str, Any] = {
            name: _pair(values[name]) for name in ("stride", "padding", "dilation")
        }
        module = torch.nn.Conv2d(
            shape[0], weight.shape[0], weight.shape[2:], groups=int(values["groups"]), **settings
        )
    elif layer.type == "Conv1d":
        weight = np.asarray(values["weight"])
        settings = {name: int(values[name][0]) for name in ("stride", "padding", "dilation")}
        module = torch.nn.Conv1d(shape[0], weight.shape[0], weight.shape[2], **settings)
    elif layer.type == "AvgPool2d":
        settings: dict[str, Any] = {
            name: _pair(values[name]) for name in ("kernel_size", "stride", "padding")
        }
        return torch.nn.AvgPool2d(**settings)
    elif layer.type == "Flatten":
        return torch.nn.Flatten()
    else:
        raise NotApplicableError(f"PyTorch has no layer for {layer.type}")
    with torch.no_grad():
        module.weight.copy_(torch.tensor(np.asarray(values["weight"])))
        if module.bias is not None:
            module.bias.copy_(torch.tensor(np.asarray(values["bias"])))
    return module


def _pair(value: Any) -> tuple[int, int]:
    first, second = np.broadcast_to(np.asarray(value), (2,))
    return int(first), int(second)


def tensor(layer: NetworkLayer, name: str) -> Any:
    """Return a parameter of a layer as a tensor: a single number, or one for each neuron."""
    import torch

    return torch.tensor(np.array(layer.parameters[name]), dtype=torch.float32)


def run_stateful(module: Any, x: np.ndarray, *, explicit: bool | None = None) -> np.ndarray:
    """Return the outputs (time, batch, *shape) of a module, step by step.

    Args:
        module: the module.
        x: inputs (time, batch, *shape).
        explicit: whether the module takes and returns the states; None: a torch.fx.GraphModule, as
            nirtorch makes it, does, and others keep theirs.
    """
    import torch

    if explicit is None:
        explicit = isinstance(module, torch.fx.GraphModule)
    state, outputs = None, []
    with torch.no_grad():
        for frame in torch.as_tensor(x, dtype=torch.float32):
            if explicit:
                output, state = module(frame, state)
            else:
                output = module(frame)
            if isinstance(output, tuple):  # spikes, and states that the module does not keep
                output = output[0]
            outputs.append(np.array(output))
    return np.stack(outputs)
