"""Adapter for Sinabs, whose time constants are numbers of time steps."""

# The package is not installed where types are checked.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import numpy as np

from jaxsnn.conformance.adapter import NotApplicableError
from jaxsnn.conformance.networks import NetworkLayer, NetworkSpec
from jaxsnn.conformance.torch_modules import built_chain, tensor


class Sinabs:
    """Sinabs: LIFSqueeze, IAFSqueeze and ExpLeakSqueeze, for one sample at a time."""

    name = "sinabs"
    distribution = "sinabs"
    dt = 1.0
    resets = ("subtract",)

    def build(self, network: NetworkSpec) -> Any:
        """Return a Sequential."""
        import torch

        return torch.nn.Sequential(*built_chain(network, self._neuron))

    def _neuron(self, layer: NetworkLayer) -> Any:
        import sinabs.layers
        import torch

        if layer.recurrent is not None:
            raise NotApplicableError("the exporter of Sinabs has no recurrent layer")
        options: dict[str, Any] = {"batch_size": 1}
        if layer.type == "CubaLI":
            raise NotApplicableError("the exporter of Sinabs has no synaptic current")
        if layer.type != "LI":
            options["spike_threshold"] = tensor(layer, "v_threshold")
        if layer.type == "IF":
            return sinabs.layers.IAFSqueeze(**options)
        options["tau_mem"] = -1 / torch.log(tensor(layer, "decay"))
        if layer.type == "LI":
            return sinabs.layers.ExpLeakSqueeze(**options)
        # An input has the gain 1 - decay, while that of the layer is 1.
        options["spike_threshold"] = options["spike_threshold"] * (1 - tensor(layer, "decay"))
        if layer.type == "CubaLIF":
            options["tau_syn"] = -1 / torch.log(tensor(layer, "current_decay"))
        return sinabs.layers.LIFSqueeze(**options)

    def export(self, module: Any, network: NetworkSpec) -> Any:
        """Export with the default options; the exporter takes shapes from states."""
        import torch
        from sinabs.nir import to_nir

        return to_nir(module, torch.zeros(1, *network.shape))

    def import_graph(self, graph: Any) -> Any:
        """Import for batches of one sample."""
        from sinabs.nir import from_nir

        return from_nir(graph, batch_size=1)

    def run(self, module: Any, x: np.ndarray) -> np.ndarray:
        """Reset the states and run all time steps, sample by sample."""
        import sinabs
        import torch

        outputs = []
        with torch.no_grad():
            for sample in torch.as_tensor(np.moveaxis(x, 1, 0), dtype=torch.float32):
                sinabs.reset_states(module)
                output = module(sample)
                outputs.append(np.array(output[0] if isinstance(output, tuple) else output))
        return np.stack(outputs, axis=1)


ADAPTER = Sinabs()
