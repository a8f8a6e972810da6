"""Modules of torch for the tests of from_torch, to_torch and load_into, and what is asserted of them."""

import collections

import numpy as np
import snntorch
import torch

from jaxsnn import from_torch, load_into, verify
from jaxsnn.errors import ConversionError
from tests.helpers.refusals import assert_refused
from tests.interop import nets


def leaky(**options):
    """A Leaky of snnTorch that holds its own membrane."""
    return snntorch.Leaky(**{"beta": 0.9, "init_hidden": True} | options)


def low_leaky(**options):
    """The same with half the threshold."""
    return leaky(**{"threshold": 0.5} | options)


class Wired(torch.nn.Module):
    """Layers by name, with random weights, and a forward pass of them."""

    def __init__(self, forward, seed=0, **layers):
        super().__init__()
        torch.manual_seed(seed)
        self.wired = forward
        for name, layer in {**layers, "out": layers.get("out", low_leaky())}.items():
            setattr(self, name, layer)
        for parameter in self.parameters():
            size = 2 / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 0.1
            torch.nn.init.uniform_(parameter, -size, 1.2 * size)

    def forward(self, x):
        return self.wired(self, x)


def body(*layers, seed=0):
    """A Sequential with random weights, in evaluation; statistics of a BatchNorm are random."""
    torch.manual_seed(seed)
    net = torch.nn.Sequential(*layers)
    for layer in net.modules():
        if hasattr(layer, "running_var"):
            torch.nn.init.uniform_(layer.running_mean, -0.3, 0.3)
            torch.nn.init.uniform_(layer.running_var, 0.02, 0.3)
            if layer.affine:
                torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
                torch.nn.init.uniform_(layer.bias, -0.6, 0.2)
        elif hasattr(layer, "weight"):
            torch.nn.init.uniform_(layer.weight, -0.7, 0.7)
    return net.eval()


def play_with_states(net, x):
    """Outputs (time, batch, *shape) of a module that takes (x, *states) and returns (y, *states)."""
    outputs, states = [], ()
    with torch.no_grad():
        for frame in torch.as_tensor(x):
            y, *states = net(frame, *states)
            outputs.append(y.numpy())
    return np.stack(outputs)


def play_all_steps(net, x):
    """Outputs of a module of SpikingJelly whose layers run through time themselves."""
    from spikingjelly.activation_based import functional

    functional.reset_net(net)
    with torch.no_grad():
        y = net(torch.as_tensor(x)).numpy()
    functional.reset_net(net)
    return y


def verified(net, shape, seed=5, *, play=nets.snntorch_play, sample=None, batch=3, steps=40):
    """Assert that a module's own spikes, of which there are many, are those of its graph.

    Returns:
        the graph, the inputs and the spikes.
    """
    x = nets.spikes(seed, shape, steps=steps, batch=batch)
    graph = from_torch(net, torch.zeros(1, *shape) if sample is None else sample)
    y = play(net, x)
    assert 0.02 < y.mean() < 0.98
    assert verify(graph, x, y).ok
    return graph, x, y


def assert_loads(module, graph, x, y, play=nets.snntorch_play):
    """Assert that a module gives, with the numbers of a graph, what the graph's module gives.

    Returns:
        what `load_into` reports.
    """
    report = load_into(module, graph)
    np.testing.assert_array_equal(play(module, x), y)
    return report


def round_trip(make, shape, **options):
    """Assert that `make(1)` is verified and that its numbers make `make(2)`, which fires otherwise,
    fire the same.

    Returns:
        the graph, both modules, and what `load_into` reports.
    """
    play = options.get("play", nets.snntorch_play)
    first, second = make(1), make(2)
    graph, x, y = verified(first, shape, **options)
    assert not np.array_equal(play(second, x), y)
    return graph, first, second, assert_loads(second, graph, x, y, play)


def assert_no_graph(net, shape, message, time=()):
    """Assert that from_torch refuses a module for samples (*time, 1, *shape)."""
    sample = torch.zeros(*time, 1, *shape)
    assert_refused(lambda: from_torch(net, sample), ConversionError, message)


def type_counts(graph):
    """How many nodes of each type a graph has."""
    return collections.Counter(node.type for node in graph.nodes.values())
