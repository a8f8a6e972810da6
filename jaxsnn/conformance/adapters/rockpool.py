"""Adapter for Rockpool."""

# The package is not installed where types are checked.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import numpy as np

from jaxsnn.conformance.adapter import NotApplicableError
from jaxsnn.conformance.networks import NetworkLayer, NetworkSpec
from jaxsnn.conformance.torch_modules import tensor


class Rockpool:
    """Rockpool: LIFTorch, LIFNeuronTorch, ExpSynTorch and LinearTorch."""

    name = "rockpool"
    distribution = "rockpool"
    dt = 1e-3
    resets = ("subtract",)

    def build(self, network: NetworkSpec) -> Any:
        """Return a Sequential."""
        from rockpool.nn.combinators import Sequential

        if network.skips:
            raise NotApplicableError("a Sequential is a chain of layers")
        shapes = (network.shape, *(layer.shape for layer in network.layers))
        pairs = zip(network.layers, shapes, strict=False)
        return Sequential(*(self._layer(layer, shape) for layer, shape in pairs))

    def _layer(self, layer: NetworkLayer, shape: tuple[int, ...]) -> Any:
        import torch
        from rockpool.nn.modules.torch import (
            ExpSynTorch,
            LIFNeuronTorch,
            LIFTorch,
            LinearTorch,
        )

        if layer.type in ("Linear", "Affine"):
            values = {"weight": tensor(layer, "weight").T}
            if layer.type == "Affine":
                values["bias"] = tensor(layer, "bias")
            return LinearTorch((*shape, *layer.shape), has_bias=layer.type == "Affine", **values)
        kinds = {"LIF": LIFNeuronTorch, "CubaLIF": LIFTorch, "LI": ExpSynTorch}
        if layer.type not in kinds or len(layer.shape) > 1:
            raise NotApplicableError(f"the exporter of Rockpool has no layer for {layer.type}")
        options: dict[str, Any] = {"dt": self.dt}
        tau = -self.dt / torch.log(tensor(layer, "decay"))
        if layer.type == "LI":
            return ExpSynTorch(*layer.shape, tau=tau, **options)
        options |= {"tau_mem": tau, "threshold": tensor(layer, "v_threshold")}
        if layer.type == "CubaLIF":
            options["tau_syn"] = -self.dt / torch.log(tensor(layer, "current_decay"))
        if layer.recurrent is not None:
            if layer.type == "LIF":
                raise NotApplicableError("LIFNeuronTorch has no recurrent weights")
            options |= {"has_rec": True, "w_rec": torch.tensor(layer.recurrent.T.copy())}
        return kinds[layer.type](*layer.shape, **options)

    def export(self, module: Any, network: NetworkSpec) -> Any:
        """Export with the default options."""
        from rockpool.nn.modules.torch.nir import to_nir

        return to_nir(module)

    def import_graph(self, graph: Any) -> Any:
        """Import with the default options."""
        from rockpool.nn.modules.torch.nir import from_nir

        return from_nir(graph)

    def run(self, module: Any, x: np.ndarray) -> np.ndarray:
        """Reset the states and run all time steps; an imported network has layers of Rockpool inside."""
        import torch
        from rockpool.nn.modules.module import ModuleBase

        layers = [module] if isinstance(module, ModuleBase) else module.modules()
        for layer in layers:
            if isinstance(layer, ModuleBase):
                layer.reset_state()
        with torch.no_grad():
            output = module(torch.as_tensor(np.moveaxis(x, 1, 0), dtype=torch.float32))
        while isinstance(output, tuple):
            output = output[0]
        return np.moveaxis(np.array(output), 1, 0)


ADAPTER = Rockpool()
