"""Conversion without the frameworks: what is written, what is said, and what is refused."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from jaxsnn import check
from jaxsnn.errors import ConversionError
from jaxsnn.nir import build, read, write
from jaxsnn.nir.convert.importers import importer_problems
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.convert.resets import compose_resets
from jaxsnn.nir.frameworks.registry import writable
from jaxsnn.nir.initializers import normal
from jaxsnn.nir.model.draft import Draft
from tests.helpers.random_spikes import random_raster
from tests.helpers.refusals import assert_refused
from tests.nir.conversions import FLAT, NORSE, assert_same, played

BETA = 0.9
RESET = {"reset": "zero", "reset_delay": False}


def snntorch(*, tau=1e-3, v_threshold=1.0, seed=0, **options):
    """Two layers of snnTorch's Leaky: r = tau/dt with dt = 100 us."""
    r = np.asarray(tau) / 1e-4
    neurons = {"tau": tau, "r": r, "v_threshold": v_threshold}
    layers = (
        build.affine(4, bias=0.25),
        build.lif(**neurons),
        build.affine(4),
        build.lif(**neurons),
    )
    return build.sequential(
        build.input(3), *layers, seed=seed, dialect="snntorch", **(RESET | options)
    )


def numbers(conversion, node, parameter):
    return np.asarray(conversion.graph.nodes[node].value(parameter))


def sinabs(weight):
    layers = build.linear(4, weight=np.full((4, 3), weight)), build.integrate_and_fire()
    return build.sequential(build.input(3), *layers, dialect="sinabs")


def test_a_converted_graph_is_what_its_file_is_read_as(tmp_path):
    """Of a continuous reading, too, that differs between the types of neurons."""
    neurons = build.lif(tau=1e-3, r=1.0), build.integrate_and_fire(r=1e4)
    layers = build.affine(4), neurons[0], build.affine(3), neurons[1]
    options = {"dialect": "spikingjelly", "dt": 1e-4, **RESET}
    graph = convert(build.sequential(build.input(3), *layers, seed=0, **options), to="norse").graph
    write(tmp_path / "converted.nir", graph)
    reread = read(tmp_path / "converted.nir")
    assert {reread.dialect.at(name).spike_kernel for name in ("2", "4")} == {"box", "delta"}
    for name in ("2", "4"):
        assert graph.dialect.at(name) == reread.dialect.at(name)
    assert check(graph, "event").ok


def test_norse_takes_r_in_its_weights():
    graph = snntorch()
    conversion = convert(graph, to="norse")
    # Weights are multiplied by a power of two, thresholds by its ratio to 10.
    weight, threshold = graph.nodes["1"].value("weight"), graph.nodes["2"].value("v_threshold")
    np.testing.assert_array_equal(numbers(conversion, "1", "weight"), 8 * weight)
    np.testing.assert_array_equal(numbers(conversion, "1", "bias"), 2.0)
    for parameter, expected in (("v_threshold", 0.8 * threshold), ("tau", 1e-3), ("r", 1)):
        np.testing.assert_allclose(numbers(conversion, "2", parameter), expected, rtol=1e-6)
    assert conversion.load_with.endswith(
        "norse.torch.from_nir(nir.read('model.nir'), dt=0.0001)  # Norse 1.1"
    )
    assert [change.node for change in conversion.changes] == ["2", "4"]
    assert all(change.what and change.why for change in conversion.changes)
    assert (conversion.losses, conversion.shift) == ((), {})


def test_the_literal_equations_of_a_neuron_without_a_current_are_cut_into_steps():
    layers = build.linear(weight=np.eye(2)), build.lif(tau=1e-3)
    graph = build.sequential(build.input(2), *layers, dialect="nir", time_unit="s")
    conversion = convert(graph, to="norse", approximate=True, dt=1e-4)
    assert conversion.losses
    assert conversion.graph.nodes["2"].type == "LIF"


def test_rescaled_half_precision_is_not_rounded_again():
    weight = np.array([[0.1, 0.3], [0.7, 0.9]], "float16")
    layers = build.linear(weight=weight), build.lif(tau=1.1e-3, r=11.0)
    graph = build.sequential(build.input(2), *layers, dialect="snntorch", **RESET)
    rescaled = numbers(convert(graph, to="norse"), "1", "weight")
    assert rescaled.dtype == np.float32
    ratio = rescaled / weight.astype(float)
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-6)


def spikingjelly():
    neurons = build.lif(tau=1e-3, r=1.0, v_leak=-0.25, v_reset=-0.25, v_threshold=0.5)
    options = {"dialect": "spikingjelly", "dt": 1e-4, **RESET}
    return build.sequential(build.input(3), build.linear(4), neurons, seed=0, **options)


@pytest.mark.parametrize("source", [snntorch, spikingjelly])
def test_a_file_of_its_own_kind_keeps_its_numbers(source):
    graph = source()
    conversion = convert(graph, to=source.__name__)
    for name, node in graph.nodes.items():
        for key, value in node.parameters.items():
            np.testing.assert_allclose(numbers(conversion, name, key), value, rtol=1e-9)
    assert conversion.changes == ()


def test_another_step_keeps_the_decay_of_a_step():
    layers, step = (build.linear(4), build.lif(tau=5e-3)), {"dt": "1ms", "dt_export": 1.0}
    graph = build.sequential(build.input(3), *layers, seed=0, dialect="norse", **step)
    conversion = convert(graph, to="snntorch")
    np.testing.assert_allclose(1 - 1e-4 / numbers(conversion, "2", "tau"), 1 - 1e-3 / 5e-3)
    assert any("multiplied by 0.1" in change.what for change in conversion.changes)
    doubled = convert(graph, to="spikingjelly", dt="2ms")
    np.testing.assert_allclose(numbers(doubled, "2", "tau"), 10e-3)


def test_thresholds_of_neurons_go_into_the_weights_where_one_is_taken():
    thresholds = np.array([0.5, 1.0, 2.0, 4.0])
    graph = snntorch(v_threshold=thresholds)
    conversion = convert(graph, to="spikingjelly")
    np.testing.assert_allclose(numbers(conversion, "2", "v_threshold"), 4.0, rtol=1e-6)
    factor, weight = 4.0 / thresholds, graph.nodes["1"].value("weight")
    np.testing.assert_allclose(numbers(conversion, "1", "weight"), factor[:, None] * weight)
    np.testing.assert_allclose(numbers(conversion, "1", "bias"), factor * 0.25)


def test_a_threshold_that_is_reached_and_one_that_is_passed_differ_by_one_float32():
    conversion = convert(snntorch(), to="spikingjelly")
    threshold = numbers(conversion, "2", "v_threshold")
    assert np.all(threshold.astype(np.float32) == np.nextafter(np.float32(1), np.float32(2)))
    back = convert(conversion.graph, to="snntorch")
    assert np.all(numbers(back, "2", "v_threshold") == 1.0)


#: A network that the target supports, if it does not support snnTorch's reset to zero.
CONVERTIBLE = {
    "spyx": lambda: snntorch(reset="subtract", reset_delay=True),
    "rockpool": lambda: linear_net("rockpool", build.cubalif(tau_mem=1e-2, tau_syn=5e-3, r=9.05)),
    **dict.fromkeys(
        ("jaxsnn", "hxtorch"),
        lambda: linear_net("jaxsnn", build.cubalif(tau_mem=2e-2, tau_syn=1e-2)),
    ),
}


def linear_net(dialect, *layers):
    return build.sequential(build.input(3), build.linear(4), *layers, seed=0, dialect=dialect)


@pytest.mark.parametrize("target", writable())
def test_a_written_file_reads_again(target, tmp_path):
    graph = convert(CONVERTIBLE.get(target, snntorch)(), to=target).graph
    write(tmp_path / "a.nir", graph)
    reread = read(tmp_path / "a.nir")
    assert reread.edges == graph.edges
    for name, node in graph.nodes.items():
        for key, value in node.parameters.items():
            assert np.array_equal(reread.nodes[name].value(key), value)


def biased(**nodes):
    """Two layers with biases, beside other nodes."""
    neurons = build.lif(tau=1e-3, r=10.0)
    layers = {"in": build.input(3), "w": build.affine(4, bias=0.1), "a": neurons}
    layers |= {"v": build.affine(2, bias=0.3), "b": neurons, "out": build.output()} | nodes
    edges = [("in", "w", "a", "v", "b", "out"), *(("a", name, "a") for name in nodes)]
    options = {"dialect": "snntorch", "reset": "subtract", "reset_delay": True}
    return build.network(layers, edges, seed=0, **options)


def test_spyx_gets_its_names_and_biases_that_are_late():
    conversion = convert(biased(), to="spyx")
    assert (conversion.graph.inputs, conversion.graph.outputs) == (("input",), ("output",))
    assert conversion.shift == {"out": 2}
    # The second bias is a weight from a neuron that fires in each step.
    np.testing.assert_allclose(numbers(conversion, "v", "weight")[:, -1], 0.3)
    np.testing.assert_allclose(numbers(conversion, "v", "bias"), 0)
    assert numbers(conversion, "a", "v_threshold").shape == (5,)


def test_spyx_s_late_biases_have_no_part_in_loops():
    """The neuron that stands for a bias neither hears its layer nor is heard in it."""
    weight = np.full((4, 4), 0.2)
    graph = convert(biased(back=build.linear(weight=weight)), to="spyx").graph
    (back,) = (node.value("weight") for node in graph.nodes.values() if node.type == "Linear")
    np.testing.assert_allclose(back, np.pad(weight, ((0, 1), (0, 1))))


def test_several_spikes_a_step_are_shared_among_copies_or_proven_not_to_occur():
    weak = convert(sinabs(0.2), to="norse")
    assert numbers(weak, "2", "v_threshold").shape == (4,)
    assert any("fires at most one spike per time step" in change.why for change in weak.changes)
    # The membrane reaches 1 + 3 * 0.8 = 3.4.
    strong = convert(sinabs(0.8), to="norse")
    thresholds = np.repeat([1, 2, 3], 4)
    np.testing.assert_allclose(numbers(strong, "2", "v_threshold"), thresholds, rtol=1e-6)
    assert strong.graph.inputs == weak.graph.inputs


def test_continuous_time_is_an_approximation_that_converges():
    neurons = build.cubalif(tau_mem="10ms", tau_syn="5ms", v_threshold=0.6)
    graph = build.sequential(build.input(3), build.linear(4), neurons, seed=0)
    conversion = convert(graph, to="norse", dt="100us", approximate=True)
    assert conversion.losses == ("continuous time is divided into steps of 100 us",)
    # Effect on V of the current from one spike, within one step, to first order in dt.
    keys = ("w_in", "tau_syn", "r", "tau_mem", "v_threshold")
    w_in, tau_syn, r, tau_mem, v_threshold = (numbers(conversion, "2", key) for key in keys)
    drive = w_in * 1e-4 / tau_syn * r * 1e-4 / tau_mem * 0.6 / v_threshold
    np.testing.assert_allclose(drive, 1e-4 / 10e-3, rtol=0.02)


def test_pools_and_groups_are_written_as_the_importer_takes_them(zoo):
    columns = np.arange(128).reshape(4, 4, 8).transpose(2, 0, 1).ravel()
    for name, options, pool, behind, expected in (
        ("spyx_v_conv_hwc", {}, "layer_2", "layer_6", lambda weight: weight[:, columns]),
        (
            "snntorch_v_conv_sub",
            {"reset": "subtract", "reset_delay": True},
            "2",
            "3",
            lambda weight: weight / 4,
        ),
    ):
        graph = read(zoo[name], dialect=name.partition("_")[0], **options)
        conversion = convert(graph, to="norse")
        assert conversion.graph.nodes[pool].type == "SumPool2d"
        weight = np.asarray(graph.nodes[behind].value("weight"))
        written = numbers(conversion, behind, "weight")
        np.testing.assert_allclose(written, expected(weight), rtol=1e-6)


@pytest.mark.parametrize("shape", [(3,), (1, 3)])
@pytest.mark.parametrize("target", ["snntorch", "spikingjelly"])
def test_a_start_at_v_leak_is_given_by_neurons_that_fire_once(target, shape):
    neurons = {"tau": 10e-3, "v_leak": np.array([-0.1, 0.1, 0.05, 0.0]), "v_threshold": 0.2}
    layers = [build.affine(4, bias=0.25, weight=normal(0.5, 1.5)), build.lif(**neurons)]
    layers[:0] = [FLAT] * (len(shape) - 1)
    graph = build.sequential(build.input(shape), *layers, seed=1, **NORSE)
    conversion = convert(graph, to=target)
    assert "two neurons that fire once each" in str(conversion.changes)
    x = random_raster(0, (60, 5, *shape), 0.5)
    assert_same(graph, conversion, x, low=0.05)
    without = dataclasses.replace(graph, dialect=dataclasses.replace(graph.dialect, initial="zero"))
    assert not np.array_equal(played(without, x), played(graph, x))


def chains(edges, **nodes):
    """Nodes of two channels in the dialect of snnTorch."""
    layers = {
        "input": build.input(2),
        "w": build.linear(weight=np.eye(2)),
        "lif": build.lif(tau=1e-3, r=10.0),
        "output": build.output(2),
    }
    return build.network({**layers, **nodes}, edges, dialect="snntorch", **RESET)


@pytest.mark.parametrize("target", ["norse", "snntorch", "spikingjelly"])
def test_what_reaches_no_output_is_left_out_by_name(target):
    def left_out(graph):
        changes = convert(graph, to=target).changes
        return {change.node for change in changes if change.what == "is removed"}

    branch = {"v": build.linear(weight=np.eye(2)), "dead": build.lif(tau=1e-3, r=10.0)}
    graph = chains([("input", "w", "lif", "output"), ("lif", "v", "dead", "v")], **branch)
    assert sorted(convert(graph, to=target).graph.nodes) == ["input", "lif", "output", "w"]
    assert {"v", "dead"} <= left_out(graph)
    assert {"v", "dead"} <= {problem.node for problem in importer_problems(graph, target)}
    assert not left_out(chains([("input", "w", "lif", "output"), ("lif", "output")]))


def test_names_that_modules_of_torch_have_are_changed():
    extra = {"forward": build.linear(weight=np.eye(2)), "forward_": build.lif(tau=1e-3, r=10.0)}
    graph = chains([("input", "forward", "forward_", "w", "lif", "output")], **extra)
    for target, expected in (("norse", ["forward"]), ("sinabs", ["forward"]), ("spyx", [])):
        problems = importer_problems(graph, target)
        assert [problem.node for problem in problems if problem.code == "taken-name"] == expected
    conversion = convert(graph, to="norse")
    assert sorted(conversion.graph.nodes) == [
        "forward_",
        "forward__",
        "input",
        "lif",
        "output",
        "w",
    ]
    assert conversion.graph.order()[1:3] == ("forward__", "forward_")
    changes = {(change.node, change.what) for change in conversion.changes}
    assert ("forward__", "renamed from 'forward'") in changes


def test_a_graph_without_neurons_has_an_answer():
    nodes = {"input": build.input(2), "output": build.output(2)}
    graph = build.network(nodes, [("input", "output")], dialect="spyx", dt=1e-3)
    assert {problem.severity for problem in importer_problems(graph, "spyx")} <= {"warning"}


def test_sums_for_norse_run_sources_first():
    neuron = build.lif(tau=1e-3, r=10.0)
    nodes = {"input": build.input(2), "output": build.output(), "sum": neuron, "hidden": neuron}
    nodes |= {name: build.affine(3) for name in ("a", "b", "c")}
    edges = [("input", "a", "hidden", "b", "sum", "output"), ("input", "c", "sum")]
    graph = build.network(nodes, edges, seed=0, dialect="snntorch", **RESET)
    order = depth_first(convert(graph, to="norse").graph.edges, "input")
    last_source = max(order.index(name) for name in ("b", "c"))
    assert last_source < order.index("sum") < order.index("output")


def depth_first(edges, node, order=()):
    """Nodes as Norse's importer runs them: each once, then what its edges lead to, in their order."""
    order = (*order, node)
    for source, target in edges:
        if source == node and target not in order:
            order = depth_first(edges, target, order)
    return order


def test_a_reset_that_no_neuron_has_is_composed_of_several():
    """What snnTorch subtracts at once, and leaves above its threshold where much arrives."""
    layers = build.linear(weight=np.ones((2, 3))), build.lif(tau=5e-4, r=5.0, v_threshold=0.5)
    options = {"dialect": "snntorch", "reset": "subtract", "reset_delay": False, "dt": 1e-4}
    conversion = convert(build.sequential(build.input(3), *layers, **options), to="spikingjelly")
    assert conversion.losses == ()
    assert (
        conversion.changes[0].what == "is written as several nodes, which together are equivalent"
    )
    nodes, edges = conversion.graph.nodes, dict(conversion.graph.edges)
    short = {name: name.partition("_")[2] for name in nodes}
    connections = {}
    for source, weights in conversion.graph.edges:
        if weights.endswith(("_compare", "_taken", "_check", "_reset", "_leak")):
            matrix = np.asarray(nodes[weights].value("weight"))
            assert np.array_equal(matrix, np.diag(np.diag(matrix)))
            connections[short[source], short[edges[weights]]] = np.diag(matrix).tolist()
    assert connections == {
        ("2_membrane", "2"): [1.0, 1.0],
        ("2", "2_rest"): [-0.5, -0.5],
        ("2_rest", "2_high"): [1.0, 1.0],
        ("2_high", "2"): [-0.5, -0.5],
        ("2_rest", "2_membrane"): pytest.approx([0.8, 0.8]),
    }
    # Both compare their input with the threshold, and have no memory.
    for node in (node for name, node in nodes.items() if short[name] in ("2", "2_high")):
        assert node.type == "CubaLIF"
        values = [np.asarray(node.value(key)) for key in ("tau_mem", "tau_syn", "r", "w_in")]
        np.testing.assert_allclose(values, [[1e-4] * 2] * 2 + [[1.0] * 2] * 2)


@pytest.mark.parametrize(
    ("v_start", "reason", "fix"),
    [
        (
            np.zeros((2, 2)),
            r"for neurons of one axis, but this node has the shape \(2, 2\)",
            "add a Flatten",
        ),
        (
            np.array([0.5, 0.5]),
            "for neurons whose membrane potential starts at 0, but this node has the initial membrane potential 0.5",
            "start its membrane potential at 0",
        ),
    ],
)
def test_what_cannot_be_composed_is_refused(v_start, reason, fix):
    rule = {"reset": "skip", "current_based": False, "shape": v_start.shape, "v_start": v_start}
    conversion = SimpleNamespace(
        draft=Draft.__new__(Draft),
        steps={"n": SimpleNamespace(name="n", **rule)},
        importer=SimpleNamespace(does=lambda step: ("several nodes",)),
        title="SpikingJelly",
    )
    says = f"node 'n': its membrane potential is 0 at .*{reason}"
    assert_refused(lambda: compose_resets(conversion), ConversionError, says, fix=fix)


# -- unsupported features, and effects of rounding


@pytest.mark.parametrize("constant", ["tau_syn", "tau_mem"])
def test_a_decay_of_nothing_may_be_rounded(constant):
    """A time constant of a step of 1 us, which Norse's exporter wrote in its own clock."""
    times = {"tau_mem": 10e-6, "tau_syn": 5e-6} | {constant: 1e-6 * (1 - 2e-8)}
    layers = build.linear(4), build.cubalif(4, w_in=1.0, r=1.0, **times)
    options = {"dialect": "norse", "dt": 1e-3, "dt_export": 1e-3}
    graph = build.sequential(build.input(3), *layers, seed=0, **options)
    assert convert(graph, to="norse").losses == ()


def test_a_membrane_without_bounds_fires_more_often_than_any_number():
    """A current that never decays adds up to anything."""
    neuron = build.cubalif(4, tau_mem=1e-3, tau_syn=np.inf, r=10.0, w_in=np.inf)
    linear = build.affine(weight=np.full((4, 3), 8.0), bias=np.full(4, 0.1))
    options = {"dialect": "snntorch", "reset": "subtract", "reset_delay": False}
    conversion = convert(build.sequential(build.input(3), linear, neuron, **options), to="norse")
    notes = ("the conversion is valid for inputs of 0 to 1; for other values pass input_range=",)
    assert conversion.notes == notes
