"""Adapter for Norse."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxsnn.conformance.adapter import NotApplicableError
from jaxsnn.conformance.networks import NetworkLayer, NetworkSpec
from jaxsnn.conformance.torch_modules import built_chain, run_stateful, tensor


class Norse:
    """Norse: LIFBoxCell, LIFCell, IAFCell and LIBoxCell."""

    name = "norse"
    distribution = "norse"
    dt = 1e-3
    resets = ("zero",)

    def build(self, network: NetworkSpec) -> Any:
        """Return a SequentialState."""
        from norse.torch import SequentialState

        return SequentialState(*built_chain(network, self._neuron))

    def _neuron(self, layer: NetworkLayer) -> Any:
        from norse.torch.functional import iaf, leaky_integrator_box, lif, lif_box
        from norse.torch.module.iaf import IAFCell
        from norse.torch.module.leaky_integrator_box import LIBoxCell
        from norse.torch.module.lif import LIFCell
        from norse.torch.module.lif_box import LIFBoxCell

        if layer.recurrent is not None:
            raise NotApplicableError("the exporter of Norse has no recurrent cell")
        if layer.type == "IF":
            return IAFCell(iaf.IAFParameters(v_th=tensor(layer, "v_threshold")), dt=self.dt)
        if layer.type == "CubaLI":
            raise NotApplicableError("the exporter of Norse has no LICell")
        rate = (1 - tensor(layer, "decay")) / self.dt
        values = {"tau_mem_inv": rate, "v_leak": 0 * rate}
        if layer.type == "LI":
            return LIBoxCell(leaky_integrator_box.LIBoxParameters(**values), dt=self.dt)
        values["v_th"] = self._threshold(layer)
        if layer.type == "LIF":
            return LIFBoxCell(lif_box.LIFBoxParameters(**values), dt=self.dt)
        values["tau_syn_inv"] = (1 - tensor(layer, "current_decay")) / self.dt
        return LIFCell(lif.LIFParameters(**values), dt=self.dt)

    def _threshold(self, layer: NetworkLayer) -> Any:
        """Return the threshold for the gain dt/tau, which Norse has: that of the layer is 1."""
        return tensor(layer, "v_threshold") * (1 - tensor(layer, "decay"))

    def export(self, module: Any, network: NetworkSpec) -> Any:
        """Export with the default options."""
        import torch
        from norse.torch.utils.export_nir import to_nir

        # The exporter keeps the axis of a batch, which only torch.nn.Flatten needs.
        batch = (1,) if any(layer.type == "Flatten" for layer in network.layers) else ()
        return to_nir(module, torch.zeros(*batch, *network.shape))

    def import_graph(self, graph: Any) -> Any:
        """Import with the default options."""
        from norse.torch.utils.import_nir import from_nir

        return from_nir(graph)

    def run(self, module: Any, x: np.ndarray) -> np.ndarray:
        """Run all time steps from the initial state."""
        return run_stateful(module, x, explicit=True)


ADAPTER = Norse()
