"""Adapter for the importer of snn-mlir.

snn-mlir compiles a file with the tools of LLVM. The adapter runs the layers that its importer returns
with the equations that its documentation gives for their operations.
"""

# The package is not installed where types are checked.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import numpy as np

from jaxsnn.conformance.adapter import NotApplicableError
from jaxsnn.conformance.networks import NetworkSpec


class SnnMlir:
    """snn-mlir: the layers of `parse_graph`, run in NumPy."""

    name = "snn_mlir"
    distribution = "snn-mlir"
    dt = 1e-4
    resets = ("zero",)

    def build(self, network: NetworkSpec) -> Any:
        """Raise an error: there is no exporter."""
        raise NotApplicableError("snn-mlir only imports")

    def export(self, module: Any, network: NetworkSpec) -> Any:
        """Raise an error: there is no exporter."""
        raise NotApplicableError("snn-mlir only imports")

    def import_graph(self, graph: Any) -> Any:
        """Return the layers of a file; they are also emitted as MLIR, which may refuse them."""
        import snn_mlir

        layers = snn_mlir.parse_graph(graph)
        snn_mlir.mlir_from_layers(layers)
        return layers

    def run(self, module: Any, x: np.ndarray) -> np.ndarray:
        """Run all time steps; a recurrent synapse reads the spikes of the step before."""
        layers = dict(zip(module.order, module.layers, strict=True))
        if images := [name for name, layer in layers.items() if type(layer).__name__ not in _KINDS]:
            raise NotApplicableError(f"the adapter does not run {type(layers[images[0]]).__name__}")
        states: dict[str, Any] = {name: [0.0, 0.0] for name in layers}
        outputs, signals = [], {name: np.zeros(()) for name in layers}
        for frame in np.asarray(x, float):
            before, signals = signals, {"input": frame}
            for name, layer in layers.items():
                sources = [signals[source] for source, target in module.edges if target == name]
                sources += [
                    before[source] for source, target in module.recurrent_edges if target == name
                ]
                # Nothing has been sent before the first step.
                total = np.asarray(sum(sources), float)
                if not total.ndim:
                    total = np.zeros((len(frame), layer.input_size))
                signals[name] = _advance(layer, states[name], total)
            (last,) = (source for source, target in module.edges if target == "output")
            outputs.append(signals[last])
        return np.stack(outputs)


#: Layers that the adapter runs.
_KINDS = ("LinearInfo", "LIFInfo", "LIInfo", "CubaLIFInfo", "CubaLIInfo")


def _advance(layer: Any, state: list[Any], x: np.ndarray) -> np.ndarray:
    """Return the output of a layer for one time step; its state (V, current) is changed."""
    kind = type(layer).__name__
    if kind == "LinearInfo":
        bias = 0 if layer.bias is None else np.ravel(layer.bias)
        return x @ np.reshape(layer.weights, (layer.output_size, layer.input_size)).T + bias
    if kind.startswith("Cuba"):
        state[1] = layer.cur_decay * state[1] + x
        v = layer.vol_decay * state[0] + state[1]
    else:
        v = layer.decay * state[0] + x
    if not kind.endswith("LIFInfo"):
        state[0] = v
        return v
    fired = v > layer.threshold
    state[0] = np.where(fired, getattr(layer, "v_reset", 0.0), v)
    return fired.astype(float)


ADAPTER = SnnMlir()
