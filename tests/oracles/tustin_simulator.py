"""The simulator of the framework Tustin, which tests register: LIF by the implicit Euler step, in
float32.
"""

import nir
import numpy as np


def load(path, dt):
    """`net(x)`, the network of a file."""
    graph = nir.read(path)

    def net(x):
        return run(graph, x.astype(np.float32), dt)

    return net


def run(graph, x, dt, tick=1.0, scaled=True):
    """Spikes (steps, batch, neurons) of a chain of layers."""
    (name,) = (name for name, node in graph.nodes.items() if isinstance(node, nir.Input))
    while True:
        (name,) = (end for start, end in graph.edges if start == name)
        node = graph.nodes[name]
        if isinstance(node, nir.Output):
            return x
        if isinstance(node, nir.LIF):
            x = layer(node, x, np.float32(dt / tick), scaled)
        else:
            x = x @ np.asarray(node.weight, np.float32).T
            if hasattr(node, "bias"):
                x = x + np.asarray(node.bias, np.float32)


def layer(node, x, dt, scaled):
    """Spikes of LIF neurons."""
    assert np.all(node.r == 2)
    tau, threshold, reset = (
        np.asarray(value, np.float32) for value in (node.tau, node.v_threshold, node.v_reset)
    )
    k = 1 / (1 + dt / tau)
    v, spikes = np.zeros_like(x[0]), []
    for now in x:
        v = k * v + ((1 - k) * now if scaled else now)
        fired = (v > threshold).astype(np.float32)
        v = (1 - fired) * v + fired * reset
        spikes.append(fired)
    return np.stack(spikes)
