"""Random networks of the frameworks, and what they fire themselves."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxsnn import from_torch
from jaxsnn.nir import Graph, build, parse
from jaxsnn.nir.initializers import normal
from tests.helpers.random_spikes import random_raster

SIZES = ((5, 24), (24, 12), (12, 4))


def spikes(
    seed: int, shape: tuple[int, ...] = (5,), steps: int = 100, batch: int = 10
) -> np.ndarray:
    """Random input spikes (time, batch, *shape)."""
    return random_raster(seed, (steps, batch, *shape))


def _linear(rng: np.random.Generator, inputs: int, outputs: int, gain: float) -> Any:
    import torch

    layer = torch.nn.Linear(inputs, outputs)
    with torch.no_grad():
        layer.weight.copy_(
            torch.tensor(rng.normal(0.05, gain, (outputs, inputs)) * (5 / inputs) ** 0.5)
        )
        layer.bias.copy_(torch.tensor(rng.uniform(-0.1, 0.1, outputs)))
    return layer


def _convolutions(rng: np.random.Generator, neuron: Any, pool: Any, flatten: Any) -> list[Any]:
    import torch

    first, second = torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 6, 3, stride=2)
    with torch.no_grad():
        first.weight *= 2
        second.weight *= 8
    flat = 6 * 1 * 1
    return [
        first,
        neuron((4, 8, 8)),
        pool,
        second,
        neuron((6, 1, 1)),
        flatten,
        _linear(rng, flat, 3, 2.0),
        neuron((3,)),
    ]


def _vector(
    rng: np.random.Generator, low: float, high: float, shape: tuple[int, ...], alike: bool = False
) -> Any:
    """Random numbers, one for each channel, or one for all."""
    import torch

    channels = rng.uniform(low, high, (1 if alike else shape[0],) + (1,) * (len(shape) - 1))
    return torch.tensor(np.broadcast_to(channels, shape).copy(), dtype=torch.float32)


def snntorch_net(kind: str, seed: int, alike: bool = False, **options: Any) -> Any:
    """A Sequential of "leaky", "synaptic", "rleaky", "rsynaptic" or "conv" layers with random
    decays and thresholds.

    `alike`: one decay for all neurons of a layer.
    """
    import snntorch
    import torch

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)

    def neuron(shape: tuple[int, ...]) -> Any:
        values: dict[str, Any] = {
            "beta": _vector(rng, 0.7, 0.95, shape, alike),
            "threshold": _vector(rng, 0.8, 1.2, shape),
        }
        if "synaptic" in kind:
            values["alpha"] = _vector(rng, 0.5, 0.8, shape, alike)
        if kind.startswith("r"):
            values |= {"linear_features": shape[0], "all_to_all": True}
        layer_classes = {"rleaky": "RLeaky", "rsynaptic": "RSynaptic", "synaptic": "Synaptic"}
        return getattr(snntorch, layer_classes.get(kind, "Leaky"))(
            init_hidden=True, **values, **options
        )

    if kind == "conv":
        torch_layers = _convolutions(rng, neuron, torch.nn.AvgPool2d(2), torch.nn.Flatten())
    else:
        gain = 0.2 if "synaptic" in kind else 0.6
        torch_layers = [part for a, b in SIZES for part in (_linear(rng, a, b, gain), neuron((b,)))]
    return torch.nn.Sequential(*torch_layers)


def snntorch_play(net: Any, x: np.ndarray) -> np.ndarray:
    """Spikes of a network whose neurons keep their states themselves."""
    import torch
    from snntorch import utils

    utils.reset(net)
    with torch.no_grad():
        return np.stack([net(frame).numpy() for frame in torch.as_tensor(x)])


def norse_net(kind: str, seed: int, alike: bool = False) -> Any:
    """A SequentialState of LIFBoxCell ("lif"), LIFCell ("cuba") or IAFCell ("if") layers; "conv"
    has LIFBoxCells.

    "lif_v_leak" and "cuba_v_leak" start and rest at v_leak, and reset to 0.
    `alike`: one time constant for all neurons of a layer.
    """
    import torch
    from norse.torch import SequentialState
    from norse.torch.functional import iaf, lif, lif_box
    from norse.torch.module.iaf import IAFCell
    from norse.torch.module.lif import LIFCell
    from norse.torch.module.lif_box import LIFBoxCell

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)

    def neuron(shape: tuple[int, ...]) -> Any:
        threshold = _vector(rng, 0.15, 0.25, shape) * (0.3 if kind == "conv" else 1.0)
        if kind == "if":
            return IAFCell(iaf.IAFParameters(v_th=threshold * 5))
        mem = _vector(rng, 60, 200, shape, alike)
        leak = _vector(rng, -0.1, 0.1, shape) if kind.endswith("v_leak") else torch.zeros(shape)
        if kind.startswith("cuba"):
            values = {
                "tau_syn_inv": _vector(rng, 100, 300, shape, alike),
                "tau_mem_inv": mem,
                "v_leak": leak,
            }
            return LIFCell(lif.LIFParameters(v_th=threshold, **values))
        return LIFBoxCell(lif_box.LIFBoxParameters(tau_mem_inv=mem, v_th=threshold, v_leak=leak))

    if kind == "conv":
        return SequentialState(
            *_convolutions(rng, neuron, torch.nn.AvgPool2d(2), torch.nn.Flatten())
        )
    gain = 3.0 if kind == "lif_v_leak" else 1.0
    return SequentialState(
        *(part for a, b in SIZES for part in (_linear(rng, a, b, gain), neuron((b,))))
    )


def spikes_for(kind: str, seed: int) -> np.ndarray:
    """Random input spikes for a kind of networks."""
    return spikes(seed, (1, 8, 8), batch=4) if kind == "conv" else spikes(seed)


def _graph_of(net: Any, x: np.ndarray) -> Graph:
    import torch

    return from_torch(net, torch.zeros(1, *x.shape[2:]))


Case = tuple[Graph, np.ndarray, np.ndarray]


def snntorch_case(kind: str, seed: int = 1, x: np.ndarray | None = None, **options: Any) -> Case:
    """A network as a graph, input spikes, and what snnTorch fires."""
    net, x = snntorch_net(kind, seed, **options), spikes_for(kind, seed) if x is None else x
    return _graph_of(net, x), x, snntorch_play(net, x)


def norse_case(kind: str, x: np.ndarray | None = None, **options: Any) -> Case:
    """A network as a graph, input spikes, and what Norse fires."""
    net, x = norse_net(kind, 3, **options), spikes_for(kind, 4) if x is None else x
    return _graph_of(net, x), x, stateful_play(net, x)


def spikingjelly_case(kind: str, seed: int = 5, x: np.ndarray | None = None) -> Case:
    """A network as its own exporter writes it, input spikes, and what SpikingJelly fires."""
    import torch
    from spikingjelly.activation_based.nir_exchange import export_to_nir

    net, x = spikingjelly_net(kind, seed), spikes_for(kind, 6) if x is None else x
    exported = export_to_nir(net, torch.zeros(1, *x.shape[2:]), dt=1e-4)
    graph = parse(exported, dialect="spikingjelly", dt=1e-4)
    return graph, x, spikingjelly_play(net, x)


def joined_graph(*more_chains: tuple[str, ...]) -> Graph:
    """A graph of snnTorch in which populations take sums and share weights, with more edges.

    "loop" are weights of "l2".
    """
    leaky, weights = {"tau": 1e-3, "r": 10.0}, {"weight": normal(0.1, 0.5), "bias": 0.02}
    nodes = {name: build.affine(6, **weights) for name in ("a", "b", "c", "skip")}
    nodes |= {"l1": build.lif(**leaky), "l2": build.lif(tau=2e-3, r=20.0), "l3": build.lif(**leaky)}
    nodes |= {"input": build.input(5), "output": build.output()}
    if more_chains:
        nodes["loop"] = build.linear(6, weight=normal(0, 0.3))
    chains = [
        ("input", "a", "l1", "b", "l3", "output"),
        ("a", "l2", "c", "l3"),
        ("input", "skip", "l3"),
        *more_chains,
    ]
    options = {"dialect": "snntorch", "reset": "zero", "reset_delay": False}
    return build.network(nodes, chains, seed=1, **options)


def stateful_play(net: Any, x: np.ndarray) -> np.ndarray:
    """Spikes of a network that takes (input, state), as Norse's do."""
    import torch

    outputs, state = [], None
    with torch.no_grad():
        for frame in torch.as_tensor(x):
            out, state = net(frame, state)
            outputs.append(out.numpy().copy())
    return np.stack(outputs)


def spikingjelly_net(kind: str, seed: int) -> Any:
    """A Sequential of "lif", "lif_adds" (decay_input=False), "lif_v_reset", "if", "cuba" or "conv"
    layers.
    """
    import torch
    from spikingjelly.activation_based import layer, neuron

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)

    def make(shape: tuple[int, ...]) -> Any:
        if kind == "if":
            return neuron.IFNode(v_threshold=1.1)
        if kind == "cuba":
            return neuron.CUBALIFNode(c_decay=0.6, v_decay=0.8, v_threshold=0.9)
        reset = -0.2 if kind == "lif_v_reset" else 0.0
        threshold = {"lif_adds": 1.0, "lif_v_reset": 0.1, "conv": 0.15}.get(kind, 0.4)
        return neuron.LIFNode(
            tau=2.5, decay_input=kind != "lif_adds", v_threshold=threshold, v_reset=reset
        )

    if kind == "conv":
        parts = _convolutions(rng, make, layer.AvgPool2d(2), layer.Flatten())
        return torch.nn.Sequential(*parts)
    gain = 0.25 if kind == "cuba" else 0.6
    return torch.nn.Sequential(
        *(part for a, b in SIZES for part in (_linear(rng, a, b, gain), make((b,))))
    )


def spikingjelly_play(net: Any, x: np.ndarray) -> np.ndarray:
    """Spikes of a network whose neurons keep their states themselves."""
    import torch
    from spikingjelly.activation_based import functional

    functional.reset_net(net)
    with torch.no_grad():
        y = np.stack([net(frame).numpy() for frame in torch.as_tensor(x)])
    functional.reset_net(net)
    return y


def spyx_case(kind: str, x: np.ndarray, dt: float = 1e-4) -> tuple[Any, np.ndarray]:
    """A nir.NIRGraph of Spyx's exporter for "lif", "cuba", "if" or "rlif" layers, and what Spyx
    itself fires.
    """
    import jax.numpy as jnp
    import spyx.nir
    from flax import nnx
    from spyx import nn

    rng, rngs = np.random.default_rng(9), nnx.Rngs(0)
    gain, bias = (0.25, 0.02) if kind == "cuba" else (0.9, 0.1)
    makers = {
        "lif": lambda size: nn.LIF((size,), beta=0.9, rngs=rngs),
        "if": lambda size: nn.IF((size,)),
        "cuba": lambda size: nn.CuBaLIF((size,), alpha=0.8, beta=0.9, rngs=rngs),
        "rlif": lambda size: nn.RLIF((size,), beta=0.9, rngs=rngs),
    }
    layers = []
    for inputs, outputs in SIZES:
        linear = nnx.Linear(inputs, outputs, rngs=rngs)
        linear.kernel[...] = jnp.asarray(
            rng.normal(0, gain * (5 / inputs) ** 0.5, (inputs, outputs)), jnp.float32
        )
        linear.bias[...] = jnp.asarray(rng.uniform(-bias, bias, outputs), jnp.float32)
        neuron = makers[kind](outputs)
        if kind == "rlif":
            neuron.recurrent_w[...] = jnp.asarray(
                rng.normal(0, 0.15, (outputs, outputs)), jnp.float32
            )
        layers += [linear, neuron]
    net = nn.Sequential(*layers)
    y, _ = nn.run(net, jnp.asarray(x))
    graph = spyx.nir.to_nir(
        net, {"input": np.array([SIZES[0][0]])}, {"output": np.array([SIZES[-1][1]])}, dt=dt
    )
    return graph, np.asarray(y)
