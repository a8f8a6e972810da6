"""Every node type on the grid, against plain loops over its definition."""

import itertools

import jax.numpy as jnp
import nir
import numpy as np
import pytest

from jaxsnn import TimeStepped, lower, simulate, update_graph
from jaxsnn.errors import LoweringError
from jaxsnn.nir import parse, read
from tests.helpers.refusals import assert_refused
from tests.oracles.linear_nodes import convolution

STEPS, BATCH = 5, 2


def play(nodes, shape, x, *, edges=None):
    """What arrives at the output of a chain of nodes, or of a graph."""
    nodes = {"input": nir.Input(np.array(shape)), **nodes, "output": nir.Output(None)}
    edges = [*(edges or itertools.pairwise(nodes)), ("in2", "n"), ("n", "out2")]
    # An additional neuron, so that there is something to simulate.
    nodes |= {"in2": nir.Input(np.array([1])), "n": neuron(1), "out2": nir.Output(np.array([1]))}
    graph = parse(nir.NIRGraph(nodes, edges, type_check=False), dialect="norse", dt_export=1)
    inputs = {"input": x, "in2": np.zeros((*x.shape[:2], 1))}
    solution = simulate(lower(graph), inputs, engine=TimeStepped(dt=1e-3))
    return np.asarray(solution.output("output"))


def neuron(size, **changes):
    ones = np.ones(size)
    return nir.LIF(
        **{"tau": 10 * ones, "r": ones, "v_leak": 0 * ones, "v_threshold": ones, **changes}
    )


def frames(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=(STEPS, BATCH, *shape)).astype(np.float32)


def assert_convolves(node, x, weight, bias, stride, padding, dilation, groups):
    """Compare a node with a convolution, of which pools are a kind."""
    expected = convolution(x, weight, bias, stride, padding, dilation, groups)
    y = play({"node": node}, x.shape[2:], x)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"),
    [
        ((1, 1), (0, 0), (1, 1), 1),
        ((2, 1), (1, 2), (1, 2), 1),
        ((1, 2), (0, 1), (2, 1), 2),
        ((3, 3), (2, 2), (1, 1), 4),
    ],
)
def test_conv2d(stride, padding, dilation, groups):
    x, rng = frames(4, 7, 8), np.random.default_rng(1)
    weight = rng.normal(size=(8, 4 // groups, 3, 2)).astype(np.float32)
    bias = rng.normal(size=8).astype(np.float32)
    node = nir.Conv2d((7, 8), weight, stride, padding, dilation, groups, bias)
    assert_convolves(node, x, weight, bias, stride, padding, dilation, groups)


@pytest.mark.parametrize(("padding", "amounts"), [("valid", (0,)), ("same", (2,)), (1, (1,))])
def test_conv1d(padding, amounts):
    x, rng = frames(2, 9), np.random.default_rng(2)
    weight, bias = rng.normal(size=(3, 2, 3)).astype(np.float32), np.float32([1, 2, 3])
    node = nir.Conv1d(9, weight, 1, padding, 2, 1, bias)
    assert_convolves(node, x, weight, bias, (1,), amounts, (2,), 1)


def test_same_with_an_even_kernel_pads_more_behind():
    x = frames(1, 4)
    node = nir.Conv1d(4, np.float32([[[1, 10]]]), 1, "same", 1, 1, np.zeros(1, np.float32))
    y = play({"c": node}, [1, 4], x)
    np.testing.assert_allclose(y[..., :3], x[..., :3] + 10 * x[..., 1:], rtol=1e-5)
    np.testing.assert_allclose(y[..., 3], x[..., 3], rtol=1e-5)


def test_same_with_a_stride_is_refused():
    node = nir.Conv1d(8, np.ones((1, 1, 3)), 2, "same", 1, 1, np.zeros(1))
    says = r"'c' .Conv1d. has padding 'same' and a stride of 2"
    assert_refused(lambda: play({"c": node}, [1, 8], frames(1, 8)), LoweringError, says)


@pytest.mark.parametrize("kind", ["SumPool2d", "AvgPool2d"])
@pytest.mark.parametrize(
    ("size", "stride", "padding"), [((2, 2), (2, 2), (0, 0)), ((3, 2), (1, 2), (1, 1))]
)
def test_pools(kind, size, stride, padding):
    node = getattr(nir, kind)(np.array(size), np.array(stride), np.array(padding))
    weight = np.full((3, 1, *size), 1 if kind == "SumPool2d" else 1 / np.prod(size))
    assert_convolves(node, frames(3, 6, 6), weight, np.zeros(3), stride, padding, (1, 1), 3)


@pytest.mark.parametrize(
    ("start", "end", "shape"), [(0, -1, (24,)), (1, 2, (2, 12))], ids=["all", "some"]
)
def test_flatten_joins_axes_in_the_order_of_the_dialect(start, end, shape):
    x = frames(2, 3, 4)
    node = nir.Flatten({"input": np.array([2, 3, 4])}, start, end)
    y = play({"f": node}, [2, 3, 4], x)
    np.testing.assert_array_equal(y, x.reshape(STEPS, BATCH, *shape))


def test_spyx_keeps_channels_last():
    weight = np.arange(144, dtype=np.float32).reshape(12, 12)
    nodes = {
        "input": nir.Input(np.array([2, 3, 2])),
        "f": nir.Flatten({"input": np.array([2, 3, 2])}, 0, -1),
        "a": nir.Affine(weight, np.zeros(12, np.float32)),
        "n": nir.IF(r=np.ones(12), v_threshold=np.full(12, 1e30)),
        "output": nir.Output(np.array([12])),
    }
    graph = nir.NIRGraph(nodes, list(itertools.pairwise(nodes)), type_check=False)
    network = lower(parse(graph, dialect="spyx", readout=["n"]))
    x = frames(2, 3, 2)[:1]
    y = simulate(network, x, engine=TimeStepped()).output()
    last = np.moveaxis(x, 2, -1).reshape(1, BATCH, 12)
    np.testing.assert_allclose(y, last @ weight.T, rtol=1e-5)


@pytest.mark.parametrize(
    ("delays", "steps"),
    [
        ([2.0, 2.0, 2.0], [STEPS] * 3),  # a delay of 2 s is longer than the input
        ([0.0, 1e-3, 3e-3], [0, 1, 3]),
        ([2e-3, 2e-3, 2e-3], [2, 2, 2]),
    ],
)
def test_delays_are_whole_steps(delays, steps):
    x = frames(3)
    y = play({"d": nir.Delay(np.array(delays)), "s": nir.Scale(np.ones(3))}, [3], x)
    for channel, late in enumerate(steps):
        silence = np.zeros((late, BATCH), np.float32)
        expected = np.concatenate([silence, x[: STEPS - late, :, channel]])
        np.testing.assert_array_equal(y[..., channel], expected)


def test_a_delay_between_steps_is_refused():
    delay = nir.Delay(np.array([0.0, 1.5e-3]))
    says = r"'d' \(Delay\): the delay of channel 1 is 0.0015 s, which is 1.5 time steps"
    assert_refused(lambda: play({"d": delay}, [2], frames(2)), LoweringError, says)


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (nir.Scale(np.array([2.0, 3.0, 4.0])), lambda x: x * np.float32([2, 3, 4])),
        (nir.Threshold(np.array([0.0, 0.5, -0.5])), lambda x: x > np.float32([0.0, 0.5, -0.5])),
    ],
    ids=["Scale", "Threshold"],
)
def test_elementwise_nodes(node, expected):
    x = frames(3)
    np.testing.assert_array_equal(play({"node": node}, [3], x), expected(x))


def test_sums_of_several_sources():
    nodes = {"a": nir.Scale(np.float32([2, 2])), "b": nir.Scale(np.float32([10, 20]))}
    edges = [("input", "a"), ("input", "b"), ("a", "output"), ("b", "output"), ("input", "output")]
    x = frames(2)
    np.testing.assert_allclose(play(nodes, [2], x, edges=edges), x * [13, 23], rtol=1e-6)


def test_several_inputs_and_outputs():
    nodes = {
        "left": nir.Input(np.array([2])),
        "right": nir.Input(np.array([3])),
        "w": nir.Linear(np.ones((3, 2), np.float32)),
        "n": neuron(3),
        "spikes": nir.Output(np.array([3])),
        "raw": nir.Output(np.array([3])),
    }
    edges = [("left", "w"), ("w", "n"), ("right", "n"), ("n", "spikes"), ("w", "raw")]
    network = lower(parse(nir.NIRGraph(nodes, edges), dialect="norse", dt=1e-3, dt_export=1))
    inputs = {"left": np.abs(frames(2)) * 1e6, "right": np.zeros((STEPS, BATCH, 3))}
    solution = simulate(network, inputs, engine=TimeStepped())
    assert solution.spiking == ("spikes",)
    sums = np.repeat(inputs["left"].sum(-1, keepdims=True), 3, -1)
    np.testing.assert_allclose(solution.y["raw"], sums, rtol=1e-6)
    assert np.asarray(solution.y["spikes"]).max() == 1


def test_a_population_that_nothing_feeds_rests():
    nodes = {
        "input": nir.Input(np.array([1])),
        "n": neuron(1),
        "m": neuron(2, v_leak=np.full(2, 0.5)),
        "output": nir.Output(np.array([1])),
        "unfed": nir.Output(np.array([2])),
    }
    edges = [("input", "n"), ("n", "output"), ("m", "unfed")]
    graph = nir.NIRGraph(nodes, edges, type_check=False)
    network = lower(parse(graph, dialect="norse", dt=1e-3, dt_export=1e-3))
    solution = simulate(network, frames(1), engine=TimeStepped(record=("m",)))
    np.testing.assert_array_equal(solution.voltages["m"], np.full((STEPS, BATCH, 2), 0.5))


def test_trained_numbers_of_a_convolution_go_back_into_the_graph(zoo):
    graph = read(zoo["snntorch_d_conv_avgpool_vec"], reset="zero", reset_delay=True)
    network = lower(graph)
    name = next(name for name, node in graph.nodes.items() if node.type == "Conv2d")
    changed = {**network.parameters, name: {**network.parameters[name], "bias": jnp.arange(4.0)}}
    before = graph.nodes[name]
    after = update_graph(graph, network.with_parameters(changed)).nodes[name]
    np.testing.assert_array_equal(after.value("bias"), np.arange(4.0))
    np.testing.assert_array_equal(after.value("weight"), before.value("weight"))
