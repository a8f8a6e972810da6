"""Shapes and counts, against nir's own arithmetic and against counting one by one."""

import itertools

import nir
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from nir.ir.utils import calculate_conv_output

from jaxsnn.errors import GraphError
from jaxsnn.nir import parse
from jaxsnn.nir.model.nodes import Conv2d, Flatten
from jaxsnn.nir.model.passes import shapes, sizes, synapses, transfer, window
from tests.helpers.refusals import assert_refused
from tests.oracles.linear_nodes import synapses_of_convolution


def network(*nodes, inputs, outputs):
    chain = {"input": nir.Input(np.array(inputs))}
    chain |= {str(number): node for number, node in enumerate(nodes)}
    chain["output"] = nir.Output(np.array(outputs))
    return parse(nir.NIRGraph(chain, list(itertools.pairwise(chain)), type_check=False))


def conv(weight, stride=1, padding=0, dilation=1, groups=1):
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    arrays = {
        name: value if isinstance(value, str) else np.array(value)
        for name, value in settings.items()
    }
    return Conv2d(name="conv", weight=weight, bias=np.zeros(len(weight)), **arrays)


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.one_of(st.tuples(st.integers(0, 2), st.integers(0, 2)), st.integers(0, 2)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
)
def test_convolutions_have_the_shape_that_nir_computes(size, kernel, stride, padding, dilation):
    node = conv(np.ones((4, 2, *kernel)), stride, padding, dilation)
    pad = (padding, padding) if isinstance(padding, int) else padding
    theirs = calculate_conv_output(size, pad, dilation, kernel, stride)
    ours = transfer(node, (2, *size))
    assert ours == ((4, *theirs.tolist()) if min(theirs) > 0 else None)


def test_a_neuron_that_nothing_feeds_is_one_and_so_is_what_follows():
    single = np.ones(1)
    nodes = {
        "input": nir.Input(np.array([1])),
        "lif": nir.LIF(tau=single, r=single, v_leak=single, v_threshold=single),
        "scale": nir.Scale(single),
        "output": nir.Output(np.array([1])),
        "other": nir.Output(np.array([1])),
    }
    edges = [("lif", "scale"), ("scale", "output"), ("input", "other")]
    graph = parse(nir.NIRGraph(nodes, edges, type_check=False))
    assert shapes(graph) == dict.fromkeys(sorted(nodes), ((1,), (1,)))


@given(
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.sampled_from([1, 2]),
    st.integers(0, 2**32 - 1),
)
def test_synapses_of_a_convolution_are_its_unrolled_weights(
    size, kernel, stride, padding, dilation, groups, seed
):
    weight = np.random.default_rng(seed).integers(0, 2, (4, 2, *kernel)).astype(float)
    node = conv(weight, stride, padding, dilation, groups)
    space = window(node).output(size)
    assume(space is not None)
    count = synapses_of_convolution(size, weight, stride, padding, dilation, space)
    arguments = (stride, padding, dilation)
    theirs = nir.Conv2d(None, weight, *arguments, groups, np.zeros(4))
    graph = network(theirs, inputs=(2 * groups, *size), outputs=(4, *space))
    assert synapses(graph)["0"] == count


def test_same_padding_keeps_the_size():
    assert transfer(conv(np.ones((4, 1, 3, 4)), padding="same"), (1, 8, 9)) == (4, 8, 9)
    assert transfer(conv(np.ones((4, 1, 3, 3)), padding="valid"), (1, 8, 9)) == (4, 6, 7)
    # Frameworks disagree on the size for 'same' padding with a stride, so it stays unknown.
    assert transfer(conv(np.ones((4, 1, 3, 3)), stride=2, padding="same"), (1, 8, 9)) is None
    assert window(conv(np.ones((4, 1, 3, 4)), padding="same")).padding == ((1, 1), (1, 2))


@pytest.mark.parametrize(
    ("start", "end", "shape", "expected", "declared"),
    [
        (0, -1, (8, 4, 4), (128,), None),
        (1, -1, (8, 4, 4), (8, 16), None),
        (0, 1, (8, 4, 4), (32, 4), None),
        (1, 1, (8, 4, 4), (8, 4, 4), None),
        (-2, -1, (8, 4, 4), (8, 16), None),
        (3, -1, (8, 4, 4), None, None),
        # The batch axis that the exporter counted is ignored.
        (1, -1, (8, 4, 4), (128,), np.array([1, 8, 4, 4])),
    ],
)
def test_flatten(start, end, shape, expected, declared):
    ends = {"start_dim": np.array(start), "end_dim": np.array(end)}
    assert transfer(Flatten(name="f", input_type=declared, **ends), shape) == expected


def test_a_convolutional_network_of_scalars_is_sized_from_its_input():
    scalars = [np.array(value) for value in (0.1, 1.0, 0.0, 1.0)]
    graph = network(
        nir.Conv2d(None, np.ones((4, 1, 3, 3)), 1, 1, 1, 1, np.zeros(4)),
        nir.LIF(*scalars),
        nir.AvgPool2d(np.array(2), np.array(2), np.array(0)),
        nir.Flatten(None, 0, -1),
        nir.Linear(np.ones((3, 64))),
        nir.LI(*scalars[:3]),
        inputs=(20, 1, 8, 8),
        outputs=(20, 3),
    )
    expected = [(1, 8, 8), (4, 8, 8), (4, 8, 8), (4, 4, 4), (64,), (3,), (3,)]
    computed = shapes(graph)
    assert [computed[name][1] for name in ("input", *map(str, range(6)))] == expected
    assert computed["input"][0] == (1, 8, 8)
    assert sizes(graph) == {"1": 256, "5": 3}


def test_a_size_that_nothing_decides_is_unknown():
    nodes = {"a": nir.LIF(*(np.array(value) for value in (0.1, 1.0, 0.0, 1.0)))}
    graph = parse(nir.NIRGraph(nodes, [], type_check=False))
    assert sizes(graph) == {"a": None}
    assert graph.warnings[-1].message.startswith("node 'a' (LIF) has an unknown size")
    assert graph.warnings[-1].fix == "write its parameters as arrays of the layer's shape"


@pytest.mark.parametrize(("size", "repaired"), [(1, []), (5, ["1"])])
def test_a_population_of_one_is_not_stretched_without_reason(size, repaired):
    neuron = nir.LIF(*(np.array([value]) for value in (0.1, 1.0, 0.0, 1.0)))
    graph = network(nir.Linear(np.ones((size, 2))), neuron, inputs=[2], outputs=[size])
    assert sizes(graph) == {"1": size}
    assert [repair.node for repair in graph.repairs] == repaired


def test_a_flatten_that_counts_a_batch_axis_is_understood_from_what_follows():
    two, none = np.array([2, 2]), np.array([0, 0])
    layers = nir.SumPool2d(two, two, none), nir.Flatten(None, 1, -1), nir.Linear(np.ones((3, 32)))
    graph = network(*layers, inputs=(2, 8, 8), outputs=[3])
    assert shapes(graph)["1"] == ((2, 4, 4), (32,))
    (repair,) = graph.repairs
    assert repair.what == "start_dim 1 is read so that all axes of (2, 4, 4) are joined"


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (
            nir.Conv2d(None, np.ones((4, 3, 3, 3)), 1, 0, 1, 1, np.zeros(4)),
            r"expects 3 channels, but its input of shape \(2, 8, 8\)",
        ),
        (
            nir.Flatten(np.array([2, 4, 4]), 0, -1),
            r"declares the shape \(2, 4, 4\), but its input has the shape \(2, 8, 8\)",
        ),
    ],
)
def test_declarations_that_are_wrong_are_refused(node, message):
    assert_refused(lambda: network(node, inputs=(2, 8, 8), outputs=[3]), GraphError, message)
