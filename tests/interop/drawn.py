"""Networks drawn at random, in every dialect: layers, geometry, parameters, resets, loops."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxsnn.nir import Graph
from jaxsnn.nir.frameworks.registry import framework_of
from jaxsnn.nir.graphs.parse import parse
from jaxsnn.nir.model.nodes import class_of
from tests.helpers.random_spikes import random_raster

KINDS = ("snntorch", "norse", "sinabs", "rockpool", "spyx", "spikingjelly")
DT = 1e-4


def spikes_into(graph: Graph, seed: int) -> np.ndarray:
    """Random spikes (40 steps, 4 samples) into the single Input of a graph."""
    (name,) = graph.inputs
    shape = graph.nodes[name].value("shape")
    return random_raster(seed, (40, 4, *shape), 0.35).astype(np.float32)


def drawn_nets(count: int) -> Iterator[tuple[str, Graph]]:
    """`count` networks of every framework, with names that say what they are."""
    for framework in KINDS:
        for seed in range(count):
            yield f"drawn/{framework}/{seed}", drawn(framework, seed)


class _Net:
    """A chain of nodes while it is drawn."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.nodes: dict[str, Any] = {"input": {"type": "Input", "shape": np.array(shape)}}
        self.edges: list[tuple[str, str]] = []
        self.shape, self.last = shape, "input"

    def add(self, entry: dict[str, Any], shape: tuple[int, ...]) -> str:
        """Put a node behind the last one."""
        name = str(len(self.nodes))
        self.nodes[name] = entry
        self.edges.append((self.last, name))
        self.last, self.shape = name, shape
        return name


def drawn(framework: str, seed: int) -> Graph:
    """One network."""
    rng = np.random.default_rng([seed, len(framework), ord(framework[2])])
    conv = rng.random() < 0.4
    net = _Net((2, 8, 8) if conv else (5,))
    alike = rng.random() < 0.5
    if conv:
        _convolution(net, framework, rng)
        _neuron(net, framework, rng, alike)
        if rng.random() < 0.5:
            _pool(net, framework, rng)
        if rng.random() < 0.3:
            _convolution(net, framework, rng)
            _neuron(net, framework, rng, alike)
        if rng.random() < 0.85:
            size = int(np.prod(net.shape))
            entry = {"type": "Flatten", "start_dim": 0, "end_dim": -1}
            net.add(entry | {"input_type": np.array(net.shape)}, (size,))
    if not conv or (len(net.shape) == 1 and rng.random() < 0.7):
        for size in rng.integers(3, 12, rng.integers(1, 3)):
            _matrix(net, int(size), rng)
            name = _neuron(net, framework, rng, alike)
            if rng.random() < 0.25 and framework in ("snntorch", "norse", "spikingjelly"):
                _loop(net, name, rng)
    _readout(net, framework, rng)
    net.add({"type": "Output", "shape": np.array(net.shape)}, net.shape)
    return parse(_document(net), **_options(framework, rng))


def _document(net: _Net) -> Any:
    from jaxsnn.nir.io.documents import NIR_VERSION, group_of

    return group_of({"type": "NIRGraph", "nodes": net.nodes, "edges": net.edges}, NIR_VERSION)


def _options(framework: str, rng: np.random.Generator) -> dict[str, Any]:
    options: dict[str, Any] = {"dialect": framework}
    if framework == "snntorch":
        options |= {
            "reset": ("subtract", "zero")[rng.integers(2)],
            "reset_delay": bool(rng.integers(2)),
        }
    if framework == "norse":
        options |= {
            "dt": DT,
            "dt_export": 1.0,
            "reset": ("zero", "subtract")[int(rng.random() < 0.2)],
        }
    if framework == "sinabs":
        options |= {"norm_input": bool(rng.integers(2)), "dt": 1e-3}
    if framework == "spyx":
        options |= {"time_unit": "s", "dt": DT}
    if framework == "spikingjelly":
        options |= {"dt": DT}
    return options


def _matrix(net: _Net, size: int, rng: np.random.Generator) -> None:
    inputs = net.shape[0]
    weight = rng.normal(0.1, 0.7, (size, inputs)) * (5 / inputs) ** 0.5
    entry: dict[str, Any] = {"type": "Linear", "weight": weight.astype(np.float32)}
    if rng.random() < 0.7:
        entry |= {"type": "Affine", "bias": rng.uniform(-0.1, 0.1, size).astype(np.float32)}
    net.add(entry, (size,))


def _convolution(net: _Net, framework: str, rng: np.random.Generator) -> None:
    channels, kernel = int(rng.integers(2, 5)), 3
    stride, padding = int(rng.integers(1, 3)), int(rng.integers(0, 2))
    dilation = 2 if framework != "spyx" and rng.random() < 0.15 else 1
    reach = dilation * (kernel - 1)
    if min(net.shape[1:]) + 2 * padding <= reach:
        padding = reach
    grouped = framework != "spyx" and channels % 2 == net.shape[0] % 2 == 0 and rng.random() < 0.5
    inputs = net.shape[0] // (1 + grouped)
    weight = rng.normal(0.05, 0.4, (channels, inputs, kernel, kernel)).astype(np.float32)
    size = tuple((side + 2 * padding - reach - 1) // stride + 1 for side in net.shape[1:])
    entry = {
        "type": "Conv2d",
        "input_shape": np.array(net.shape[1:]),
        "weight": weight,
        "stride": np.array([stride] * 2),
        "padding": np.array([padding] * 2),
        "dilation": np.array([dilation] * 2),
        "groups": np.array(1 + grouped),
        "bias": rng.uniform(-0.05, 0.05, channels).astype(np.float32),
    }
    net.add(entry, (channels, *size))


def _pool(net: _Net, framework: str, rng: np.random.Generator) -> None:
    if min(net.shape[1:]) < 2:
        return
    kind = "SumPool2d" if framework in ("spyx", "sinabs", "norse") else "AvgPool2d"
    padding = int(framework != "spyx" and rng.random() < 0.3)
    size = tuple((side + 2 * padding - 2) // 2 + 1 for side in net.shape[1:])
    two = np.array([2, 2])
    entry = {"type": kind, "kernel_size": two, "stride": two, "padding": np.array([padding] * 2)}
    net.add(entry, (net.shape[0], *size))


def _spread(
    rng: np.random.Generator, low: float, high: float, shape: tuple[int, ...], granularity: str
) -> np.ndarray:
    """One number for all ("alike"), for each channel, or for each neuron ("pixel")."""
    size = {
        "alike": (1,) * len(shape),
        "channel": (shape[0],) + (1,) * (len(shape) - 1),
        "pixel": shape,
    }[granularity]
    return np.broadcast_to(rng.uniform(low, high, size), shape).astype(np.float32)


def _neuron(net: _Net, framework: str, rng: np.random.Generator, alike: bool) -> str:
    shape = net.shape
    granularity = (
        "alike" if alike or framework == "spikingjelly" else ("channel", "pixel")[rng.integers(2)]
    )
    kinds = [name for name in framework_of(framework).dialects[0].rules if name.endswith("F")]
    if framework == "snntorch":
        kinds = ["LIF", "CubaLIF"]
    if len(shape) > 1:
        kinds = [name for name in kinds if name != "CubaLIF" or framework == "snntorch"]
    kind = kinds[rng.integers(len(kinds))]
    decay = _spread(rng, 0.6, 0.95, shape, granularity).astype(float)
    current = _spread(rng, 0.3, 0.8, shape, granularity).astype(float)
    threshold = _spread(rng, 0.8, 1.4, shape, granularity)
    entry = _numbers(framework, kind, decay, current, shape)
    entry |= {"type": kind, "v_threshold": threshold, "v_reset": np.zeros(shape, np.float32)}
    parameter_names = class_of(kind).names
    if "v_leak" in parameter_names:
        leak = np.zeros(shape, np.float32)
        if framework == "norse" and rng.random() < 0.2:
            leak = _spread(rng, -0.1, 0.1, shape, granularity)
        entry["v_leak"] = leak
    return net.add(entry, shape)


def _numbers(
    framework: str, kind: str, k: np.ndarray, a: np.ndarray, shape: tuple[int, ...]
) -> dict[str, Any]:
    """Time constants and gains as a framework writes decays k of the membrane, a of the current."""
    ones = np.ones(shape)
    if kind in ("IF", "I"):
        return {"r": ones / DT if framework == "spikingjelly" else ones}
    tau, syn = DT / (1 - k), DT / (1 - a)
    gain, w_in = 1 / (1 - k), 1 / (1 - a)
    if framework == "sinabs":
        tau = -1 / np.log(k)
    if framework == "rockpool":
        tau, syn = -DT / np.log(k), -DT / np.log(a)
        gain = tau / DT * k
    if framework == "spyx":
        gain = k
    if framework in ("norse", "sinabs"):
        gain = ones
    if framework in ("norse", "rockpool", "spyx"):
        w_in = ones
    if kind.startswith("Cuba"):
        return {"tau_mem": tau, "tau_syn": syn, "r": gain, "w_in": w_in}
    return {"tau": tau, "r": gain}


def _loop(net: _Net, name: str, rng: np.random.Generator) -> None:
    size = net.shape[0]
    weight = rng.normal(0, 0.3, (size, size)).astype(np.float32)
    net.nodes[f"{name}r"] = {"type": "Linear", "weight": weight}
    net.edges += [(name, f"{name}r"), (f"{name}r", name)]


def _readout(net: _Net, framework: str, rng: np.random.Generator) -> None:
    """A leaky readout behind spikes, where the framework has one."""
    if rng.random() > 0.25 or len(net.shape) > 1:
        return
    if framework not in ("norse", "sinabs", "rockpool"):
        return
    _matrix(net, 3, rng)
    decay = rng.uniform(0.6, 0.95, 3)
    entry = _numbers(framework, "LI", decay, decay, (3,))
    net.add(entry | {"type": "LI", "v_leak": np.zeros(3)}, (3,))


def drawn_with_loops(framework: str, seed: int) -> Graph:
    """A network whose populations feed each other: some back to those before, some to themselves."""
    rng = np.random.default_rng([seed, len(framework), ord(framework[2]), 1])
    net, populations = _Net((5,)), []
    alike = rng.random() < 0.5
    for size in rng.integers(3, 8, rng.integers(2, 4)):
        _matrix(net, int(size), rng)
        populations.append(_neuron(net, framework, rng, alike))
    sizes = {name: net.nodes[name]["v_threshold"].size for name in populations}
    for number, source in enumerate(populations):
        for target in populations[: number + 1]:
            if rng.random() < (0.3 if source == target else 0.6) or (source, target) == (
                populations[-1],
                populations[0],
            ):
                weight = rng.normal(0, 0.4, (sizes[target], sizes[source])).astype(np.float32)
                entry: dict[str, Any] = {"type": "Linear", "weight": weight}
                if rng.random() < 0.3:
                    bias = rng.uniform(-0.1, 0.1, sizes[target]).astype(np.float32)
                    entry |= {"type": "Affine", "bias": bias}
                net.nodes[f"{source}to{target}"] = entry
                net.edges += [(source, f"{source}to{target}"), (f"{source}to{target}", target)]
    _matrix(net, 3, rng)
    _neuron(net, framework, rng, alike)
    net.add({"type": "Output", "shape": np.array(net.shape)}, net.shape)
    return parse(_document(net), **_options(framework, rng))
