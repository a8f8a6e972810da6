"""Faults of importers and exporters of NIR that are known: each as a test that a file means here
what it says.
"""

from itertools import pairwise

import h5py
import nir
import numpy as np
import pytest

from jaxsnn import TimeStepped, check, lower, parse, read, simulate, write

DT = 1e-4
ODE = {"dialect": "nir", "time_unit": "s", "dt": DT}
SNNTORCH = {"dialect": "snntorch", "reset": "zero", "reset_delay": False}


def lif(size, beta=0.9, **changes):
    """As snnTorch writes it."""
    rest = (1 - beta) * np.ones(size)
    values = {"tau": DT / rest, "r": 1 / rest, "v_leak": 0 * rest, "v_threshold": np.ones(size)}
    return nir.LIF(**values | {name: np.asarray(value) for name, value in changes.items()})


def cubalif(size, **changes):
    values = {"tau_syn": 1e-3, "tau_mem": 2e-3, "r": 1.0, "v_leak": 0.0, "v_threshold": 1.0}
    values = {name: np.full(size, value) for name, value in (values | {"w_in": 1.0}).items()}
    return nir.CubaLIF(**values | {name: np.asarray(value) for name, value in changes.items()})


def graph_of(layers, shape, out=(1,), edges=None, **options):
    """A chain of nodes, or nodes with edges, between an Input and an Output."""
    if not isinstance(layers, dict):
        layers = {str(number): layer for number, layer in enumerate(layers)}
    nodes = {"input": nir.Input(np.array(shape)), **layers, "output": nir.Output(np.array(out))}
    net = nir.NIRGraph(nodes, edges or list(pairwise(nodes)), type_check=False)
    return parse(net, **options or SNNTORCH)


def play(graph, x):
    network = lower(graph, dtype=np.float32)
    return np.asarray(simulate(network, np.asarray(x, np.float32), engine=TimeStepped()).output())


def one_channel(*values):
    """Input (time, 1, 1)."""
    return np.reshape(values, (-1, 1, 1))


def weights(outputs, inputs, seed=0):
    return np.random.default_rng(seed).normal(0.3, 0.6, (outputs, inputs))


def trains(shape=(3,), steps=40, batch=2):
    return np.random.default_rng(1).integers(0, 2, (steps, batch, *shape))


# Nodes that are dropped, replaced or bounded


@pytest.mark.parametrize(
    ("node", "shape"),
    [
        (
            nir.AvgPool2d(
                kernel_size=np.array([2, 2]), stride=np.array([2, 2]), padding=np.array([0, 0])
            ),
            (1, 2, 2),
        ),
        (nir.Conv1d(4, np.full((1, 1, 4), 0.4), 1, 0, 1, 1, np.zeros(1)), (1, 4)),
        (nir.Threshold(np.full(1, 0.5)), (1,)),
        (nir.LI(tau=np.full(1, 1e-3), r=np.full(1, 10.0), v_leak=np.zeros(1)), (1,)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_norse_drops_nodes_without_an_error(node, shape):
    flatten = [nir.Flatten({"input": np.array((1, 1) if len(shape) == 2 else (1, 1, 1))}, 0, -1)]
    after = flatten if len(shape) > 1 else []
    options = ODE if isinstance(node, nir.LI) else {}
    graph = graph_of([node, *after, nir.Linear(np.full((1, 1), 3.0)), lif(1)], shape, **options)
    assert "0" in [wire.name for wire in lower(graph).wires]
    assert play(graph, np.full((3, 1, *shape), 0.3)).shape == (3, 1, 1)
    if not isinstance(node, nir.AvgPool2d):  # conversions write it as a SumPool2d
        assert "0" in [problem.node for problem in check(graph, "norse").problems]


def test_snntorch_imports_an_if_with_a_leak():
    options = {"dialect": "spikingjelly", "dt": DT}
    graph = graph_of([nir.IF(np.full(1, 1 / DT), np.ones(1), np.zeros(1))], (1,), **options)
    y = play(graph, one_channel(0.6, *[0.0] * 50, 0.6))
    assert y.ravel().tolist() == [0.0] * 51 + [1.0]


def test_sinabs_imports_an_if_that_is_bounded_below():
    graph = graph_of(
        [nir.IF(np.ones(1), np.ones(1), np.zeros(1))], (1,), dialect="sinabs", reset="subtract"
    )
    y = play(graph, one_channel(-5.0, 5.5, 0.75))
    assert y.ravel().tolist() == [0.0, 0.0, 1.0]


def test_a_convolutional_network_takes_a_batch():
    convolution = nir.Conv2d((4, 4), weights(2, 9).reshape(2, 1, 3, 3), 1, 0, 1, 1, np.zeros(2))
    flatten = nir.Flatten({"input": np.array((2, 2, 2))}, 0, -1)
    graph = graph_of(
        [convolution, lif((2, 2, 2)), flatten, nir.Linear(weights(1, 8)), lif(1)], (1, 4, 4)
    )
    x = trains((1, 4, 4), batch=3)
    together = play(graph, x)
    assert 0 < together.mean() < 1
    for sample in range(3):
        np.testing.assert_array_equal(
            play(graph, x[:, sample : sample + 1])[:, 0], together[:, sample]
        )


# Parameters that are ignored, or taken from the first neuron


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("tau", [1e-3, 3e-3]),
        ("r", [10.0, 15.0]),
        ("v_leak", [0.0, 0.4]),
        ("v_threshold", [1.0, 1.5]),
        ("v_reset", [0.0, -0.5]),
    ],
)
def test_every_parameter_counts_neuron_by_neuron(name, values):
    plain = {"tau": 1e-3, "r": 10.0, "v_leak": 0.0, "v_threshold": 1.0, "v_reset": 0.0}

    def fired(*values):
        size = len(values)
        parameters = {key: np.full(size, value) for key, value in plain.items()}
        neuron = nir.LIF(**parameters | {name: np.array(values)})
        graph = graph_of([nir.Linear(np.full((size, 1), 0.2 * DT)), neuron], (1,), (size,), **ODE)
        return play(graph, one_channel(*[1.0] * 40))[:, 0]

    alone = [fired(value)[:, 0] for value in values]
    assert not np.array_equal(*alone)
    np.testing.assert_array_equal(fired(*values), np.stack(alone, axis=1))


@pytest.mark.parametrize("name", ["r", "w_in"])
def test_gains_of_current_based_neurons_count(name):
    def fired(value):
        layers = [nir.Linear(np.full((1, 1), 2e-3)), cubalif(1, **{name: [value]})]
        return play(graph_of(layers, (1,), **ODE), one_channel(*[1.0] * 40)).sum()

    assert fired(1.0) < fired(2.0)


def test_one_number_for_all_neurons_is_one_for_each():
    """Sinabs fails on parameters without axes."""
    scalars = {"tau": 1e-3, "r": 10.0, "v_leak": 0.0, "v_threshold": 1.0}
    linear = nir.Linear(weights(4, 3))
    spikes, expected = (
        play(graph_of([linear, nir.LIF(**parameters)], (3,), (4,)), trains())
        for parameters in (
            {key: np.array(value) for key, value in scalars.items()},
            {key: np.full(4, value) for key, value in scalars.items()},
        )
    )
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(spikes, expected)


def test_rockpool_reads_a_step_that_is_only_nearly_that_of_its_exporter():
    """dt = tau/(1+r) is off where tau is short; tau W(1/r) is exact."""
    tau = np.array([2e-4, 5e-4, 9e-4])
    r = tau / DT * np.exp(-DT / tau)
    graph = graph_of([nir.LIF(tau, r, np.zeros(3), np.ones(3))], (3,), (3,), dialect="rockpool")
    assert graph.dialect.dt == pytest.approx(DT, rel=1e-6)
    assert abs((tau / (1 + r))[0] - DT) > 0.01 * DT


# Names, nesting and the order of nodes and edges


def test_neither_names_nor_the_order_of_edges_matter():
    """Spyx walks from a node named `input` and finds nothing else; hxtorch needs edges sources
    first.
    """
    layers = [nir.Affine(weights(4, 3), np.full(4, 0.1)), lif(4), nir.Linear(weights(2, 4)), lif(2)]
    y = play(graph_of(layers, (3,), (2,)), trains())
    assert 0 < y.mean() < 1
    node_names = ["x", "10", "2", "1", "b.c", "out"]  # a file lists them as 1, 10, 2, b.c, out, x
    nodes = dict(
        zip(node_names, [nir.Input(np.array([3])), *layers, nir.Output(np.array([2]))], strict=True)
    )
    edges = list(pairwise(node_names))
    renamed = parse(nir.NIRGraph(nodes, edges[::-1], type_check=False), **SNNTORCH)
    np.testing.assert_array_equal(play(renamed, trains()), y)


def test_a_recurrent_layer_is_the_same_flat_and_nested():
    """snnTorch's importer fails on both, its own files included."""
    loop = {
        "w": nir.Linear(weights(4, 3)),
        "r.lif": lif(4),
        "r.w_rec": nir.Linear(weights(4, 4, 2) - 0.4),
    }
    edges = [
        ("input", "w"),
        ("w", "r.lif"),
        ("r.lif", "r.w_rec"),
        ("r.w_rec", "r.lif"),
        ("r.lif", "output"),
    ]
    flat = play(graph_of(loop, (3,), (4,), edges), trains())
    inner = {"input": nir.Input(np.array([4])), "output": nir.Output(np.array([4]))}
    inner |= {"lif": loop["r.lif"], "w_rec": loop["r.w_rec"]}
    ends = [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")]
    nested = nir.NIRGraph(inner, ends, type_check=False)
    assert 0 < flat.mean() < 1
    np.testing.assert_array_equal(
        play(graph_of({"w": loop["w"], "r": nested}, (3,), (4,)), trains()), flat
    )


# Properties of real files


def test_a_file_from_before_v_reset_and_w_in(tmp_path):
    neuron = cubalif(2, tau_mem=np.full(2, 1e-3), r=np.full(2, 10.0))
    source = graph_of([nir.Linear(weights(2, 3)), neuron], (3,), (2,), **ODE)
    for name in ("new.nir", "old.nir"):
        write(tmp_path / name, source)
    with h5py.File(tmp_path / "old.nir", "a") as file:
        for name in {"v_reset", "w_in"} & {*file["node/nodes/1"]}:
            del file["node/nodes/1"][name]
    old, new = (read(tmp_path / name, **ODE) for name in ("old.nir", "new.nir"))
    assert not {"v_reset", "w_in"} & {*old.nodes["1"].parameters}
    for name, default in (("v_reset", 0.0), ("w_in", 1.0)):
        assert np.ravel(old.nodes["1"].value(name))[0] == default
    np.testing.assert_array_equal(play(old, trains()), play(new, trains()))


def test_odd_types_mean_the_same_numbers():
    """Whole thresholds, a bias that is one truth value, kernels without axes, padding in words, no
    leak.
    """
    kernel, shape = weights(2, 9).reshape(2, 1, 3, 3), (2, 2, 2)
    ones = np.array([1, 1])
    odd = nir.Conv2d((4, 4), kernel, 1, "same", 1, 1, np.array(False))
    plain = nir.Conv2d((4, 4), kernel, ones, ones, ones, np.array(1), np.zeros(2))
    endless = {"tau": np.full(shape, np.inf), "r": np.full(shape, np.inf)}
    spikes, expected = (
        play(graph_of([convolution, pool, neuron], (1, 4, 4), shape), trains((1, 4, 4)))
        for convolution, pool, neuron in (
            (odd, sum_pool(2, 0), lif(shape, v_threshold=np.full(shape, 2, np.int64), **endless)),
            (plain, sum_pool([2, 2], [0, 0]), lif(shape, v_threshold=np.full(shape, 2.0), **endless)),
        )
    )  # fmt: skip
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(spikes, expected)


def sum_pool(size, padding):
    size, padding = np.array(size), np.array(padding)
    return nir.SumPool2d(kernel_size=size, stride=size, padding=padding)


def test_an_axis_of_batch_in_the_input_is_understood_aloud():
    layers = [nir.Linear(weights(4, 3)), lif(4)]
    graph = graph_of(layers, (1, 3), (1, 4))
    assert [finding.node for finding in graph.repairs] == ["input", "output"]
    np.testing.assert_array_equal(
        play(graph, trains()), play(graph_of(layers, (3,), (4,)), trains())
    )
