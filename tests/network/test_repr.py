"""What a graph and a network look like at a prompt: a few lines, however large they are."""

import jax
import numpy as np
import pytest

from jaxsnn import lower
from jaxsnn.nir import build

SMALL = build.sequential(
    build.input(3),
    build.linear(4),
    build.cubalif(tau_mem=0.02, tau_syn=0.01),
    build.linear(2),
    build.li(tau=0.01),
    seed=0,
)
LARGE = build.sequential(
    build.input(3),
    *[layer for _ in range(99) for layer in (build.linear(4), build.lif(tau=0.01))],
    seed=0,
    dialect="nir",
)


def test_a_graph_says_its_types_shapes_and_framework():
    assert repr(SMALL).splitlines() == [
        "Graph(6 nodes, 5 edges, 54 parameters",
        "  dialect: jaxsnn",
        "  types: 2 Linear, 1 CubaLIF, 1 LI, 1 Input, 1 Output",
        "  inputs: 'input' (3,)",
        "  neurons: '2' CubaLIF (4,), '4' LI (2,)",
        "  outputs: 'output' (2,))",
    ]


def test_a_network_says_its_sizes():
    network = lower(SMALL)
    assert repr(network).splitlines() == [
        "Network(6 nodes, 6 neurons, 54 parameters",
        "  inputs: 'input' 3",
        "  populations: '2' CubaLIF 4, '4' LI 2",
        "  outputs: 'output')",
    ]


def test_an_undecided_graph_says_so():
    graph = build.sequential(
        build.input(2), build.linear(weight=np.eye(2)), build.lif(tau=0.01), dialect="auto"
    )
    assert "  dialect: undecided" in repr(graph).splitlines()


@pytest.mark.parametrize("record", [LARGE, lower(LARGE)], ids=["graph", "network"])
def test_200_nodes_take_at_most_ten_short_lines(record):
    lines = repr(record).splitlines()
    assert "(200 nodes, " in lines[0]
    assert len(lines) <= 10
    assert max(map(len, lines)) <= 120
    assert "'2' LIF" in repr(record)
    assert "and 93 more" in repr(record)


def test_a_traced_network_and_one_without_numbers_have_a_text_too():
    network, texts = lower(SMALL), []

    @jax.jit
    def total(network):
        texts.append(repr(network))
        return sum(map(jax.numpy.sum, jax.tree.leaves(network)))

    total(network)
    assert texts == [repr(network)]
    assert "0 parameters" in repr(jax.tree.map(lambda leaf: None, network))
