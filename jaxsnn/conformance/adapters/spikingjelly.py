"""Adapter for SpikingJelly."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxsnn.conformance.adapter import NotApplicableError
from jaxsnn.conformance.networks import NetworkLayer, NetworkSpec
from jaxsnn.conformance.torch_modules import built_chain, run_stateful


class SpikingJelly:
    """SpikingJelly: IFNode, LIFNode and CUBALIFNode, which have single numbers as parameters."""

    name = "spikingjelly"
    distribution = "spikingjelly"
    dt = 1e-4
    resets = ("zero", "subtract")

    def build(self, network: NetworkSpec) -> Any:
        """Return a Sequential."""
        import torch

        return torch.nn.Sequential(*built_chain(network, self._neuron))

    def _neuron(self, layer: NetworkLayer) -> Any:
        from spikingjelly.activation_based import neuron

        if layer.recurrent is not None:
            raise NotApplicableError("the exporter of SpikingJelly has no recurrent layer")
        options: dict[str, Any] = {
            "v_threshold": _number(layer, "v_threshold"),
            "v_reset": 0.0 if layer.reset == "zero" else None,
        }
        if layer.type == "IF":
            return neuron.IFNode(**options)
        if layer.type == "LIF":
            tau = 1 / (1 - _number(layer, "decay"))
            return neuron.LIFNode(tau=tau, decay_input=False, **options)
        if layer.type == "CubaLIF":
            options |= {
                "c_decay": _number(layer, "current_decay"),
                "v_decay": _number(layer, "decay"),
            }
            return neuron.CUBALIFNode(**options)
        raise NotApplicableError(f"the exporter of SpikingJelly has no neuron for {layer.type}")

    def export(self, module: Any, network: NetworkSpec) -> Any:
        """Export with the default options."""
        import torch
        from spikingjelly.activation_based.nir_exchange import export_to_nir

        return export_to_nir(module, torch.zeros(1, *network.shape))

    def import_graph(self, graph: Any) -> Any:
        """Import with the default options."""
        from spikingjelly.activation_based.nir_exchange import import_from_nir

        return import_from_nir(graph)

    def run(self, module: Any, x: np.ndarray) -> np.ndarray:
        """Reset the states and run all time steps."""
        from spikingjelly.activation_based import functional

        functional.reset_net(module)
        return run_stateful(module, x)


def _number(layer: NetworkLayer, name: str) -> float:
    """Return a parameter that is the same for all neurons."""
    numbers = np.unique(np.asarray(layer.parameters[name]))
    if numbers.size > 1:
        raise NotApplicableError("parameters of SpikingJelly are single numbers")
    return float(numbers[0])


ADAPTER = SpikingJelly()
