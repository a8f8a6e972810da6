"""Adapter for Spyx, whose images have their channels last."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

from typing import Any

import numpy as np

from jaxsnn.conformance.adapter import NotApplicableError
from jaxsnn.conformance.networks import NetworkLayer, NetworkSpec


class Spyx:
    """Spyx: LIF, IF, CuBaLIF and their recurrent forms."""

    name = "spyx"
    distribution = "spyx"
    reduction_runs = 200  # each run compiles its module
    dt = 1.0
    resets = ("subtract",)

    def build(self, network: NetworkSpec) -> Any:
        """Return a Sequential."""
        from spyx import nn

        if network.skips:
            raise NotApplicableError("a Sequential is a chain of layers")
        shapes = (network.shape, *(layer.shape for layer in network.layers))
        pairs = zip(network.layers, shapes, strict=False)
        return nn.Sequential(*(self._layer(layer, shape) for layer, shape in pairs))

    def _layer(self, layer: NetworkLayer, shape: tuple[int, ...]) -> Any:
        import jax.numpy as jnp
        from flax import nnx
        from spyx import nn

        rngs, values = nnx.Rngs(0), layer.parameters
        if layer.is_neuron:
            return self._neuron(layer, rngs)
        if layer.type == "Flatten":
            return nn.Flatten()
        if layer.type == "SumPool2d":
            padding = "SAME" if np.any(values["padding"]) else "VALID"
            return nn.SumPool(_pair(values["kernel_size"]), _pair(values["stride"]), padding)
        if layer.type == "Conv2d":
            if np.any(np.asarray(values["dilation"]) != 1) or int(values["groups"]) != 1:
                raise NotApplicableError("the exporter of Spyx has neither dilation nor groups")
            weight = np.asarray(values["weight"])
            padding = [(side, side) for side in _pair(values["padding"])]
            module = nnx.Conv(
                shape[0],
                weight.shape[0],
                weight.shape[2:],
                strides=_pair(values["stride"]),
                padding=padding,
                rngs=rngs,
            )
            module.kernel[...] = jnp.asarray(weight.transpose(2, 3, 1, 0))
        elif layer.type in ("Linear", "Affine"):
            weight = np.asarray(values["weight"])
            module = nnx.Linear(
                shape[0], layer.shape[0], use_bias=layer.type == "Affine", rngs=rngs
            )
            module.kernel[...] = jnp.asarray(weight.T)
        else:
            raise NotApplicableError(f"Spyx has no layer for {layer.type}")
        if module.bias is not None:
            module.bias[...] = jnp.asarray(values["bias"])
        return module

    def _neuron(self, layer: NetworkLayer, rngs: Any) -> Any:
        import jax.numpy as jnp
        from spyx import nn

        kinds = {"LIF": "LIF", "IF": "IF", "CubaLIF": "CuBaLIF"}
        if layer.type not in kinds:
            raise NotApplicableError(f"Spyx has no neuron for {layer.type}")
        kind = kinds[layer.type] if layer.recurrent is None else f"R{kinds[layer.type]}"
        threshold = _channels_last(np.asarray(layer.parameters["v_threshold"]))
        if layer.recurrent is not None or np.ndim(threshold) == 0 or np.unique(threshold).size == 1:
            threshold = float(np.unique(threshold)[0])
        shape = _shape_last(layer.shape)
        module = getattr(nn, kind)(shape, threshold=threshold, rngs=rngs)
        for name, parameter in (("beta", "decay"), ("alpha", "current_decay")):
            if hasattr(module, name):
                numbers = _channels_last(np.asarray(layer.parameters[parameter], np.float32))
                setattr(module, name, type(getattr(module, name))(jnp.asarray(numbers)))
        if layer.recurrent is not None:
            module.recurrent_w[...] = jnp.asarray(layer.recurrent.T)
        return module

    def export(self, module: Any, network: NetworkSpec) -> Any:
        """Export with the default options."""
        import spyx.nir

        shape = network.layers[-1].shape
        return spyx.nir.to_nir(
            module, {"input": np.array(network.shape)}, {"output": np.array(shape)}
        )

    def import_graph(self, graph: Any) -> Any:
        """Import with the default options; Spyx also runs the network, here on no input."""
        import jax.numpy as jnp
        import spyx.nir

        entry = next(node for node in graph.nodes.values() if type(node).__name__ == "Input")
        shape = _shape_last(tuple(np.asarray(entry.input_type["input"]).tolist()))
        return spyx.nir.from_nir(graph, jnp.zeros((1, 1, *shape)))[0]

    def run(self, module: Any, x: np.ndarray) -> np.ndarray:
        """Run all time steps."""
        import jax
        import jax.numpy as jnp
        from spyx import nn

        images = x.ndim == 5
        y = np.asarray(nn.run(module, jnp.asarray(np.moveaxis(x, 2, -1) if images else x))[0])
        jax.clear_caches()  # thousands of compiled modules need gigabytes
        return np.moveaxis(y, -1, 2) if y.ndim == 5 else y


def _pair(value: Any) -> tuple[int, int]:
    first, second = np.broadcast_to(np.asarray(value), (2,))
    return int(first), int(second)


def _shape_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[1:], shape[0]) if len(shape) == 3 else shape


def _channels_last(numbers: np.ndarray) -> np.ndarray:
    return np.moveaxis(numbers, 0, -1) if numbers.ndim == 3 else numbers


ADAPTER = Spyx()
