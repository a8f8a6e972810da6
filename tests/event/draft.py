"""Networks in the making, node by node, with windows and neurons drawn at random; and networks whose
paths are replaced by matrices.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.linear_map import Window
from jaxsnn.network.network import Network
from jaxsnn.network.signals import signals
from jaxsnn.network.structure import Population, TauShape, Wire
from tests.event.cases import similar_neurons


class Draft:
    """Nodes in order, each fed by those named."""

    def __init__(self, seed, shape):
        self.rng = np.random.default_rng(seed)
        self.wires = [Wire(name="in", kind="input", sources=(), shape=shape)]
        self.parameters, self.populations = {}, {}

    def add(self, name, kind, source, shape, detail=None, **parameters):
        sources = (source,) if isinstance(source, str) else tuple(source)
        self.wires.append(Wire(name=name, kind=kind, sources=sources, shape=shape, detail=detail))
        if parameters:
            self.parameters[name] = parameters

    def window(self, name, kind, source, shape, kernel, *, scale=1.0, weight=None, **options):
        """A convolution or a pool; its weights are drawn, or given without a bias."""
        window = {"stride": (1,) * len(kernel), "padding": ((0, 0),) * len(kernel)}
        window |= {"dilation": (1,) * len(kernel), "groups": 1} | options
        channels = next(wire.shape for wire in self.wires if wire.name == source)[0]
        taps, parameters = (shape[0], channels // window["groups"], *kernel), {}
        if weight is not None:
            parameters = {"weight": np.reshape(weight, taps), "bias": np.zeros(shape[0])}
        elif kind.startswith("Conv"):
            weight = self.rng.normal(1.2, 0.8, taps) * scale
            parameters = {"weight": weight, "bias": self.rng.normal(0.1, 0.1, shape[0])}
        self.add(name, kind, source, shape, Window(kernel=kernel, **window), **parameters)

    def fire(self, name, source, shape, **rules):
        size = int(np.prod(shape))
        values = similar_neurons(self.rng, size)
        if rules.get("tau_shape") is TauShape.DOUBLE:
            values["tau_mem"] = 2 * values["tau_syn"]
        self.add(name, "neuron", source, shape, **values)
        self.populations[name] = Population(name=name, kind="CubaLIF", size=size, **rules)

    def network(self):
        return Network(
            parameters=jax.tree.map(jnp.asarray, self.parameters),
            wires=self.wires,
            populations=self.populations,
        )


def with_matrices(network):
    """The same network with a matrix in the place of each path between populations."""
    wires = [wire for wire in network.wires if wire.kind == "input"]
    parameters = {name: network.parameters[name] for name in network.populations}
    arriving = signals(network)
    for wire in network.wires:
        if wire.kind != "neuron":
            continue
        before, bias = [], arriving[wire.name].constant
        for source, matrix in arriving[wire.name].matrices(network.dtype).items():
            before.append(f"{source} to {wire.name}")
            bias = jnp.zeros(wire.size) if bias is None else bias
            parameters[before[-1]] = {"weight": matrix.T, "bias": bias}
            affine = {"kind": "Affine", "sources": (source,), "shape": (wire.size,)}
            wires.append(Wire(name=before[-1], **affine))
            bias = None  # the first matrix adds the bias
        wires.append(Wire(name=wire.name, kind="neuron", sources=tuple(before), shape=wire.shape))
    return Network(parameters=parameters, wires=wires, populations=network.populations)
