"""Networks in the making, node by node, with windows and neurons drawn at random."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.linear_map import Window
from jaxsnn.network.network import Network
from jaxsnn.network.structure import Population, TauShape, Wire
from tests.event.cases import similar_neurons


class Draft:
    """Nodes in order, each fed by those named."""

    def __init__(self, seed, shape):
        self.rng, self.wires, self.parameters, self.populations = (
            np.random.default_rng(seed),
            [],
            {},
            {},
        )
        self.wires.append(Wire(name="in", kind="input", sources=(), shape=shape))

    def add(self, name, kind, source, shape, detail=None, **parameters):
        sources = (source,) if isinstance(source, str) else tuple(source)
        self.wires.append(Wire(name=name, kind=kind, sources=sources, shape=shape, detail=detail))
        if parameters:
            self.parameters[name] = parameters

    def window(
        self, name, kind, source, shape, kernel, stride=(1, 1), padding=((0, 0), (0, 0)), **more
    ):
        detail = Window(
            kernel=kernel,
            stride=stride,
            dilation=more.get("dilation", (1,) * len(kernel)),
            padding=padding,
        )
        detail = Window(**{**vars(detail), "groups": more.get("groups", 1)})
        inward = next(wire.shape for wire in self.wires if wire.name == source)
        parameters = {}
        if kind.startswith("Conv"):
            taps = (shape[0], inward[0] // detail.groups, *kernel)
            weight = self.rng.normal(1.2, 0.8, taps) * more.get("scale", 1.0)
            parameters = {"weight": weight, "bias": self.rng.normal(0.1, 0.1, shape[0])}
        self.add(name, kind, source, shape, detail, **parameters)

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
