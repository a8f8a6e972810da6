"""Adapter for snnTorch."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxsnn.conformance.adapter import NotApplicableError
from jaxsnn.conformance.networks import NetworkLayer, NetworkSpec
from jaxsnn.conformance.torch_modules import built_chain, run_stateful, tensor


class SnnTorch:
    """snnTorch: Leaky, Synaptic, RLeaky and RSynaptic that hold their states."""

    name = "snntorch"
    distribution = "snntorch"
    dt = 1e-4
    resets = ("zero", "subtract", "zero at once", "subtract at once")

    def build(self, network: NetworkSpec) -> Any:
        """Return a Sequential."""
        import torch

        return torch.nn.Sequential(*built_chain(network, self._neuron))

    def _neuron(self, layer: NetworkLayer) -> Any:
        import snntorch
        import torch

        if layer.type not in ("LIF", "CubaLIF"):
            raise NotApplicableError(f"snnTorch has no neuron for {layer.type}")
        options: dict[str, Any] = {
            "beta": tensor(layer, "decay"),
            "threshold": tensor(layer, "v_threshold"),
            "reset_mechanism": layer.reset.partition(" ")[0],
            "reset_delay": not layer.reset.endswith("at once"),
            "init_hidden": True,
        }
        if layer.type == "CubaLIF":
            options["alpha"] = tensor(layer, "current_decay")
        kind = "Leaky" if layer.type == "LIF" else "Synaptic"
        if layer.recurrent is None:
            return getattr(snntorch, kind)(**options)
        neuron = getattr(snntorch, f"R{kind}")(linear_features=layer.shape[0], **options)
        with torch.no_grad():
            neuron.recurrent.weight.copy_(torch.tensor(layer.recurrent))
            neuron.recurrent.bias.zero_()
        return neuron

    def export(self, module: Any, network: NetworkSpec) -> Any:
        """Export as the documentation of snnTorch shows, without the axis of the batch."""
        import torch
        from snntorch.export_nir import export_to_nir

        return export_to_nir(module, torch.zeros(1, *network.shape), ignore_dims=[0])

    def import_graph(self, graph: Any) -> Any:
        """Import with the default options."""
        from snntorch.import_nir import import_from_nir

        return import_from_nir(graph)

    def run(self, module: Any, x: np.ndarray) -> np.ndarray:
        """Reset the states and run all time steps."""
        from snntorch import utils

        utils.reset(module)
        return run_stateful(module, x)


ADAPTER = SnnTorch()
