"""Graphs with sparse weights: what `build.linear` takes, and what it refuses."""

from typing import Any

import numpy as np
import pytest
from scipy import sparse

import jaxsnn
from jaxsnn.errors import GraphError, LoweringError, UsageError
from jaxsnn.network.spikes import Events
from jaxsnn.nir import build
from tests.helpers.refusals import assert_refused

MATRIX: Any = sparse.csr_array(np.array([[0.0, 2.0], [0.0, 0.0], [3.0, 4.0]]))
EDGES = build.Edges(
    pre=np.array([1, 0, 1]), post=np.array([2, 2, 0]), weight=np.array([4.0, 3.0, 2.0])
)
LIF = build.lif(tau="10ms")


def graph_of(weight, delay=None, outputs=3):
    layer = build.linear(outputs, weight=weight, delay=delay)
    return build.sequential(build.input(2), layer, LIF)


@pytest.mark.parametrize("convert", ["tocsr", "tocsc", "tocoo"])
def test_a_matrix_and_its_edges_are_the_same_node(convert):
    nodes = [graph_of(weight).nodes["1"] for weight in (getattr(MATRIX, convert)(), EDGES)]
    for node in nodes:
        assert node.type == "SparseLinear"
        np.testing.assert_array_equal(node.value("source"), [0, 1, 1])
        np.testing.assert_array_equal(node.value("target"), [2, 0, 2])
        np.testing.assert_array_equal(node.value("weight"), [3.0, 2.0, 4.0])
        assert node.value("delay") is None


def test_delays_follow_their_synapses():
    delay = MATRIX.copy()
    delay.data = MATRIX.data * 1e-3
    node = graph_of(MATRIX, delay).nodes["1"]
    np.testing.assert_allclose(node.value("delay"), node.value("weight") * 1e-3)
    edges = build.Edges(pre=EDGES.pre, post=EDGES.post, weight=EDGES.weight, delay="1.5ms")
    np.testing.assert_allclose(graph_of(edges).nodes["1"].value("delay"), [1.5e-3] * 3)


def test_dense_weights_replace_sparse_ones():
    dense = build.with_dense_weights(graph_of(MATRIX))
    assert dense.nodes["1"].type == "Linear"
    np.testing.assert_array_equal(dense.nodes["1"].value("weight"), MATRIX.toarray())


WRONG = {
    "pattern": (UsageError, lambda: build.linear(weight=MATRIX, delay=MATRIX[:2])),
    "dense delay": (UsageError, lambda: build.linear(weight=MATRIX.toarray(), delay=1e-3)),
    "affine": (UsageError, lambda: build.affine(weight=MATRIX)),
    "inputs": (
        GraphError,
        lambda: build.sequential(build.input(3), build.linear(weight=MATRIX), LIF),
    ),
    "outside": (GraphError, lambda: graph_of(EDGES, outputs=2)),
    "fractions": (
        GraphError,
        lambda: graph_of(build.Edges(pre=np.array([0.5]), post=np.array([1]), weight=np.ones(1))),
    ),
    "lengths": (
        GraphError,
        lambda: graph_of(build.Edges(pre=np.array([0]), post=np.array([1]), weight=np.ones(2))),
    ),
    "large": (
        GraphError,
        lambda: build.with_dense_weights(
            build.sequential(build.input(2**15), build.linear(2**14, weight=EDGES), LIF)
        ),
    ),
    "delays to dense": (GraphError, lambda: build.with_dense_weights(graph_of(MATRIX, 1e-3))),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_synapses_are_refused(case):
    error, call = WRONG[case]
    assert_refused(call, error)


def test_time_steps_refuse_delays_of_sparse_synapses():
    events = Events(time=np.array([[0.0]]), index=np.array([[0]]))
    engine = jaxsnn.TimeStepped(dt=1e-3)
    assert_refused(
        lambda: jaxsnn.simulate(graph_of(MATRIX, 1e-3), events, 0.01, engine=engine),
        LoweringError,
        "delays",
        node="1",
    )


def test_files_have_dense_matrices_and_a_note_says_their_size(tmp_path):
    with pytest.warns(UserWarning, match=r"3 weights become 6 entries"):
        jaxsnn.nir.write(tmp_path / "net.nir", graph_of(MATRIX))
    node = jaxsnn.read(tmp_path / "net.nir").nodes["1"]
    assert node.type == "Linear"
    np.testing.assert_array_equal(node.value("weight"), MATRIX.toarray())


def test_files_of_large_sparse_matrices_are_refused(tmp_path):
    layer = build.linear(2**14, weight=EDGES)
    graph = build.sequential(build.input(2**15), layer, LIF)
    assert_refused(
        lambda: jaxsnn.nir.write(tmp_path / "net.nir", graph),
        GraphError,
        "3 weights .* 536870912 entries",
        node="1",
        fix="save_npz",
    )
