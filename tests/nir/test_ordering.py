"""The order of a graph against networkx, on random graphs."""

import networkx
import numpy as np
import pytest

from jaxsnn.nir.model.ordering import components, neighbours, sources_first


def random_edges(rng, size):
    return [
        tuple(map(int, rng.integers(0, size, 2))) for _ in range(int(rng.integers(0, 3 * size)))
    ]


@pytest.mark.parametrize("seed", range(20))
def test_cycles_are_those_of_networkx(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 25))
    edges = random_edges(rng, size)
    graph = networkx.MultiDiGraph(edges)
    graph.add_nodes_from(range(size))
    found = components(neighbours(range(size), edges)[1])
    expected = networkx.strongly_connected_components(graph)
    assert sorted(map(sorted, found)) == sorted(map(sorted, expected))
    # Targets come before sources.
    place = {name: number for number, group in enumerate(found) for name in group}
    assert all(place[target] <= place[source] for source, target in edges)


@pytest.mark.parametrize("seed", range(20))
def test_sources_come_first_as_in_networkx(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 25))
    edges = [(a, b) for a, b in random_edges(rng, size) if a < b]
    rank = [int(number) for number in rng.permutation(size)]
    graph = networkx.DiGraph(edges)
    graph.add_nodes_from(range(size))
    expected = networkx.lexicographical_topological_sort(graph, key=rank.__getitem__)
    assert sources_first(range(size), edges, key=rank.__getitem__) == list(expected)


def test_long_chains_need_no_recursion():
    edges = [(number, number + 1) for number in range(5000)]
    assert len(components(neighbours(range(5001), edges)[1])) == 5001
