"""Unrolled nodes against plain loops over their definitions."""

import itertools

import nir
import numpy as np
import pytest

from jaxsnn.bss2.search import unroll
from jaxsnn.bss2.search.unroll import arrivals
from jaxsnn.errors import MappingError
from jaxsnn.network.lowering.lower_nodes import plan
from jaxsnn.nir import parse
from tests.helpers.refusals import assert_refused
from tests.oracles.linear_nodes import convolution


def neurons(shape):
    ones = np.ones(shape)
    return nir.CubaLIF(
        tau_mem=0.01 * ones, tau_syn=0.005 * ones, r=ones, v_leak=0 * ones, v_threshold=ones
    )


def arriving(nodes, shape_in, shape_out, edges=None):
    """What arrives at the neurons behind a chain of nodes, or behind a graph with neurons 'n'."""
    nodes = {
        "in": nir.Input(np.array(shape_in)),
        **nodes,
        "n": neurons(shape_out),
        "out": nir.Output(None),
    }
    edges = [*(edges or itertools.pairwise([*nodes][:-1])), ("n", "out")]
    graph = parse(nir.NIRGraph(nodes, edges, type_check=False), dialect="jaxsnn", time_unit="s")
    ready = plan(graph)
    return arrivals(ready, {name: ready.part(name) for name in ready.order})["n"]


def dense(links, size_in, size_out):
    """The matrix; it must be sparse without zeros, sorted, each pair once."""
    pairs = list(zip(links.target.tolist(), links.source.tolist(), strict=True))
    assert pairs == sorted(set(pairs))
    assert np.all(links.value != 0)
    matrix = np.zeros((size_out, size_in))
    matrix[links.target, links.source] = links.value
    return matrix


RANDOM = np.random.default_rng(1)
WEIGHT = RANDOM.normal(size=(8, 4, 3, 2)) * np.arange(1, 9).reshape(8, 1, 1, 1) ** 0.5
WEIGHT[1, :, 0] = 0


def conv2d(stride, padding, dilation, groups):
    weight = WEIGHT[:, : 4 // groups]
    node = nir.Conv2d((5, 6), weight, stride, padding, dilation, groups, np.zeros(8))
    return node, (4, 5, 6), (weight, np.zeros(8), stride, padding, dilation, groups)


def pool(kind, size, stride, padding):
    weight = np.full((3, 1, *size), 1.0 if kind == "SumPool2d" else 1 / np.prod(size))
    node = getattr(nir, kind)(np.array(size), np.array(stride), np.array(padding))
    return node, (3, 6, 4), (weight, np.zeros(3), stride, padding, (1, 1), 3)


KERNELS = RANDOM.normal(size=(3, 2, 3))
WINDOWS = [
    conv2d((1, 1), (0, 0), (1, 1), 1),
    conv2d((2, 1), (1, 2), (1, 2), 1),
    conv2d((1, 2), (0, 1), (2, 1), 2),
    conv2d((3, 3), (2, 2), (1, 1), 4),
    (
        nir.Conv1d(9, KERNELS, 2, 1, 2, 1, np.zeros(3)),
        (2, 9),
        (KERNELS, np.zeros(3), (2,), (1,), (2,), 1),
    ),
    *(
        pool(kind, *window)
        for kind in ("SumPool2d", "AvgPool2d")
        for window in (((2, 2), (2, 2), (0, 0)), ((3, 2), (1, 2), (1, 1)))
    ),
]


@pytest.mark.parametrize(("node", "shape", "settings"), WINDOWS)
def test_convolutions_and_pools(node, shape, settings):
    x = np.random.default_rng(3).normal(size=shape)
    expected = convolution(x, *settings)
    links = arriving({"c": node}, shape, expected.shape).links["in"]
    unrolled = dense(links, x.size, expected.size) @ x.ravel()
    np.testing.assert_allclose(unrolled, expected.ravel(), atol=1e-12)


def test_what_cannot_be_unrolled_is_named(monkeypatch):
    monkeypatch.setattr(unroll, "MOST_CONNECTIONS", 3)
    eye, loop = nir.Linear(np.eye(2)), [("in", "a"), ("a", "b"), ("b", "a"), ("b", "n")]
    for nodes, edges, says in (
        ({"a": eye, "b": eye}, loop, "node 'a' is in a cycle without a neuron"),
        ({"d": nir.Delay(np.ones(2))}, None, r"node 'd' \(Delay\)"),
        ({"a": nir.Linear(np.ones((2, 2)))}, None, r"'a' \(Linear\) has 4 .* at most 3"),
    ):
        call = lambda these=(nodes, (2,), (2,), edges): arriving(*these)  # noqa: E731
        assert_refused(call, MappingError, says)


def test_a_chain_is_the_product_of_its_matrices_and_biases_go_through_it():
    random = np.random.default_rng(4)
    weight, bias = random.normal(size=(5, 12)), random.normal(size=5)
    scale = np.array([1.0, 0.0, 2.0, -1.0, 3.0])
    nodes = {
        "p": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "f": nir.Flatten({"input": np.array([3, 2, 2])}, 0, -1),
        "a": nir.Affine(weight, bias),
        "s": nir.Scale(scale),
    }
    signal = arriving(nodes, (3, 4, 4), (5,))
    x = random.normal(size=(3, 4, 4))
    pooled = x.reshape(3, 2, 2, 2, 2).sum(axis=(2, 4)).ravel()
    got = dense(signal.links["in"], 48, 5) @ x.ravel()
    np.testing.assert_allclose(got, scale * (weight @ pooled), atol=1e-12)
    np.testing.assert_allclose(signal.constant, scale * bias)
    assert not np.any(signal.links["in"].target == 1)  # a scale of zero connects nothing


def test_ways_that_meet_add_up_and_what_cancels_is_no_connection():
    first, second = np.array([[1.0, 2.0]]), np.array([[3.0, -2.0]])
    nodes = {"a": nir.Linear(first), "b": nir.Linear(second)}
    edges = [("in", "a"), ("in", "b"), ("a", "n"), ("b", "n")]
    links = arriving(nodes, (2,), (1,), edges).links["in"]
    assert (links.source.tolist(), links.value.tolist()) == ([0], [4.0])


def test_recurrence_and_skips_keep_their_sources_apart():
    nodes = {
        "a": nir.Linear(np.eye(2)),
        "r": nir.Linear(np.array([[0, 1.0], [0, 0]])),
        "skip": nir.Scale(np.ones(2)),
    }
    edges = [("in", "a"), ("a", "n"), ("n", "r"), ("r", "n"), ("in", "skip"), ("skip", "n")]
    signal = arriving(nodes, (2,), (2,), edges)
    assert dense(signal.links["in"], 2, 2).tolist() == [[2, 0], [0, 2]]
    assert dense(signal.links["n"], 2, 2).tolist() == [[0, 1], [0, 0]]
