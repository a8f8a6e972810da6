"""Write a small snnTorch network as a NIR file, with snnTorch's own exporter.

The network is 5-HIDDEN-3: `nn.Linear`, `snn.Synaptic`, `nn.Linear`, `snn.Synaptic`, untrained, its
weights drawn so that training on the Yin-Yang task can start from it. Running the script again
writes the same numbers. It needs the `interop` extra:

    python examples/export_snntorch.py snntorch_yinyang.nir
"""

import argparse
from collections import OrderedDict
from pathlib import Path

import nir
import snntorch
import torch
from snntorch.export_nir import export_to_nir
from torch import nn

DT = 1e-4  # seconds; snnTorch's exporter takes this step for granted
TAU_MEM = 12.8e-3  # seconds: 128 steps, so that the decay factor is exact in float32
TAU_SYN = 6.4e-3  # seconds
INPUTS, OUTPUTS = 5, 3


def linear(inputs: int, outputs: int, *, mean: float, std: float) -> nn.Linear:
    """A layer of normally distributed synapses without bias.

    `mean` and `std` are for tau_mem V' = -V + I, where a spike makes I jump by the weight.
    snnTorch adds its I to V at every step, V' = -V / tau_mem + I / DT, and so needs weights that
    are smaller by the factor DT / TAU_MEM.
    """
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, mean * DT / TAU_MEM, std * DT / TAU_MEM)
    return layer


def synaptic(size: int) -> snntorch.Synaptic:
    """A population of current-based neurons, every parameter a vector, as the exporter wants it."""
    return snntorch.Synaptic(
        alpha=torch.full((size,), 1 - DT / TAU_SYN),
        beta=torch.full((size,), 1 - DT / TAU_MEM),
        threshold=torch.ones(size),  # pyright: ignore[reportArgumentType]
        reset_mechanism="zero",
        init_hidden=True,
    )


def network(hidden: int) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        fc1=linear(INPUTS, hidden, mean=1.0, std=0.6),
        lif1=synaptic(hidden),
        fc2=linear(hidden, OUTPUTS, mean=0.1, std=0.2),
        lif2=synaptic(OUTPUTS),
    )
    return nn.Sequential(layers)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a small snnTorch network as a NIR file.")
    parser.add_argument("file", type=Path, help="the NIR file to write")
    parser.add_argument("--hidden", type=int, default=120, help="neurons in the hidden layer")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights")
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    net = network(arguments.hidden)
    graph = export_to_nir(net, torch.zeros(1, INPUTS), ignore_dims=[0])
    assert isinstance(graph, nir.NIRGraph)
    graph.edges.sort()  # the exporter's order depends on the hash seed
    nir.write(arguments.file, graph)


if __name__ == "__main__":
    main()
