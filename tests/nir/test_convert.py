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
from tests.nir.conversions import played

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


def numbers(made, node, parameter):
    return np.asarray(made.graph.nodes[node].value(parameter))


def test_what_was_converted_is_what_its_file_is_read_as(tmp_path):
    """Of a continuous reading, too, that differs between the types of neurons."""
    layers = (
        build.affine(4),
        build.lif(tau=1e-3, r=1.0),
        build.affine(3),
        build.integrate_and_fire(r=1e4),
    )
    graph = build.sequential(
        build.input(3), *layers, seed=0, dialect="spikingjelly", dt=1e-4, **RESET
    )
    made = convert(graph, to="norse").graph
    write(tmp_path / "made.nir", made)
    again = read(tmp_path / "made.nir")
    assert {again.dialect.at(name).spike_kernel for name in ("2", "4")} == {"box", "delta"}
    for name in ("2", "4"):
        assert made.dialect.at(name) == again.dialect.at(name)
    assert check(made, "event").ok


def test_norse_takes_r_in_its_weights():
    graph = snntorch()
    made = convert(graph, to="norse")
    # Weights times a power of two, and thresholds times what 10 is of it.
    np.testing.assert_array_equal(
        numbers(made, "1", "weight"), 8 * graph.nodes["1"].value("weight")
    )
    np.testing.assert_array_equal(numbers(made, "1", "bias"), 2.0)
    threshold = np.asarray(graph.nodes["2"].value("v_threshold"))
    np.testing.assert_allclose(numbers(made, "2", "v_threshold"), 0.8 * threshold, rtol=1e-6)
    np.testing.assert_allclose(numbers(made, "2", "tau"), 1e-3)
    np.testing.assert_allclose(numbers(made, "2", "r"), 1)
    assert made.load_with.endswith(
        "norse.torch.from_nir(nir.read('model.nir'), dt=0.0001)  # Norse 1.1"
    )
    assert [change.node for change in made.changes] == ["2", "4"]
    assert all(change.what and change.why for change in made.changes)
    assert (made.losses, made.shift) == ((), {})


def test_the_literal_equations_of_a_neuron_without_a_current_are_cut_into_steps():
    layers = build.linear(weight=np.eye(2)), build.lif(tau=1e-3)
    graph = build.sequential(build.input(2), *layers, dialect="nir", time_unit="s")
    made = convert(graph, to="norse", approximate=True, dt=1e-4)
    assert made.losses
    assert made.graph.nodes["2"].type == "LIF"


def test_rescaled_half_precision_is_not_rounded_again():
    weight = np.array([[0.1, 0.3], [0.7, 0.9]], "float16")
    neurons = build.lif(tau=1.1e-3, r=11.0)
    graph = build.sequential(
        build.input(2), build.linear(weight=weight), neurons, dialect="snntorch", **RESET
    )
    made = convert(graph, to="norse")
    found = numbers(made, "1", "weight")
    assert found.dtype == np.float32
    ratio = found / weight.astype(float)
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-6)


def spikingjelly():
    neurons = build.lif(tau=1e-3, r=1.0, v_leak=-0.25, v_reset=-0.25, v_threshold=0.5)
    layers = build.linear(4), neurons
    said = {"dialect": "spikingjelly", "dt": 1e-4, **RESET}
    return build.sequential(build.input(3), *layers, seed=0, **said)


@pytest.mark.parametrize("source", [snntorch, spikingjelly])
def test_a_file_of_its_own_kind_keeps_its_numbers(source):
    graph = source()
    made = convert(graph, to=source.__name__)
    for name, node in graph.nodes.items():
        for key, value in node.parameters.items():
            np.testing.assert_allclose(numbers(made, name, key), value, rtol=1e-9)
    assert made.changes == ()


def test_another_step_keeps_the_decay_of_a_step():
    graph = build.sequential(
        build.input(3),
        build.linear(4),
        build.lif(tau=5e-3),
        seed=0,
        dialect="norse",
        dt="1ms",
        dt_export=1.0,
    )
    made = convert(graph, to="snntorch")
    np.testing.assert_allclose(1 - 1e-4 / numbers(made, "2", "tau"), 1 - 1e-3 / 5e-3)
    assert any("0.1 times as long" in change.what for change in made.changes)
    np.testing.assert_allclose(
        numbers(convert(graph, to="spikingjelly", dt="2ms"), "2", "tau"), 10e-3
    )


def test_thresholds_of_neurons_go_into_the_weights_where_one_is_taken():
    thresholds = np.array([0.5, 1.0, 2.0, 4.0])
    graph = snntorch(v_threshold=thresholds)
    made = convert(graph, to="spikingjelly")
    np.testing.assert_allclose(numbers(made, "2", "v_threshold"), 4.0, rtol=1e-6)
    factor = 4.0 / thresholds
    np.testing.assert_allclose(
        numbers(made, "1", "weight"), factor[:, None] * graph.nodes["1"].value("weight")
    )
    np.testing.assert_allclose(numbers(made, "1", "bias"), factor * 0.25)


def test_a_threshold_that_is_reached_and_one_that_is_passed_differ_by_one_float32():
    made = convert(snntorch(), to="spikingjelly")
    threshold = numbers(made, "2", "v_threshold")
    assert np.all(threshold.astype(np.float32) == np.nextafter(np.float32(1), np.float32(2)))
    back = convert(made.graph, to="snntorch")
    assert np.all(numbers(back, "2", "v_threshold") == 1.0)


#: A network that a target takes, where snnTorch's with a reset to zero is none.
TAKEN = {
    "spyx": lambda: snntorch(reset="subtract", reset_delay=True),
    "rockpool": lambda: bursting("rockpool", build.cubalif(tau_mem=1e-2, tau_syn=5e-3, r=9.05)),
    **dict.fromkeys(("jaxsnn", "hxtorch"), lambda: equations()),
}


def bursting(dialect, *layers):
    return build.sequential(build.input(3), build.linear(4), *layers, seed=0, dialect=dialect)


def equations():
    return bursting("jaxsnn", build.cubalif(tau_mem=2e-2, tau_syn=1e-2))


@pytest.mark.parametrize("target", writable())
def test_what_was_written_reads_again(target, tmp_path):
    made = convert(TAKEN.get(target, snntorch)(), to=target)
    write(tmp_path / "a.nir", made.graph)
    again = read(tmp_path / "a.nir")
    assert again.edges == made.graph.edges
    for name, node in made.graph.nodes.items():
        for key, value in node.parameters.items():
            assert np.array_equal(again.nodes[name].value(key), value)


def test_spyx_gets_its_names_and_biases_that_are_late():
    graph = build.network(
        {
            "in": build.input(3),
            "w": build.affine(4, bias=0.1),
            "a": build.lif(tau=1e-3, r=10.0),
            "v": build.affine(2, bias=0.3),
            "b": build.lif(tau=1e-3, r=10.0),
            "out": build.output(),
        },
        [("in", "w", "a", "v", "b", "out")],
        seed=0,
        dialect="snntorch",
        reset="subtract",
        reset_delay=True,
    )
    made = convert(graph, to="spyx")
    assert made.graph.inputs == ("input",)
    assert made.graph.outputs == ("output",)
    assert made.shift == {"out": 2}
    # The second bias is the weight of a neuron that fires in each step.
    np.testing.assert_allclose(numbers(made, "v", "weight")[:, -1], 0.3)
    np.testing.assert_allclose(numbers(made, "v", "bias"), 0)
    assert numbers(made, "a", "v_threshold").shape == (5,)


def test_spyx_s_late_biases_have_no_part_in_loops():
    """The neuron that stands for a bias neither hears its layer nor is heard in it."""
    layers = {
        "in": build.input(3),
        "w": build.affine(4, bias=0.1),
        "a": build.lif(tau=1e-3, r=10.0),
    }
    layers |= {"v": build.affine(2, bias=0.3), "b": build.lif(tau=1e-3, r=10.0)}
    layers |= {"out": build.output(), "back": build.linear(weight=np.full((4, 4), 0.2))}
    edges = [("in", "w", "a", "v", "b", "out"), ("a", "back", "a")]
    said = {"dialect": "snntorch", "reset": "subtract", "reset_delay": True}
    made = convert(build.network(layers, edges, seed=0, **said), to="spyx")
    (back,) = (node.value("weight") for node in made.graph.nodes.values() if node.type == "Linear")
    np.testing.assert_allclose(back, np.pad(np.full((4, 4), 0.2), ((0, 1), (0, 1))))


def test_several_spikes_a_step_are_shared_among_copies_or_proven_not_to_occur():
    weak = build.sequential(
        build.input(3),
        build.linear(4, weight=np.full((4, 3), 0.2)),
        build.integrate_and_fire(),
        dialect="sinabs",
    )
    made = convert(weak, to="norse")
    assert numbers(made, "2", "v_threshold").shape == (4,)
    assert any("fires at most one spike a step" in change.why for change in made.changes)
    strong = build.sequential(
        build.input(3),
        build.linear(4, weight=np.full((4, 3), 0.8)),
        build.integrate_and_fire(),
        dialect="sinabs",
    )
    made = convert(strong, to="norse")
    # The membrane reaches 1 + 3 * 0.8 = 3.4.
    np.testing.assert_allclose(
        numbers(made, "2", "v_threshold"), np.repeat([1, 2, 3], 4), rtol=1e-6
    )
    assert made.graph.inputs == weak.inputs


def test_continuous_time_is_an_approximation_that_converges():
    graph = build.sequential(
        build.input(3),
        build.linear(4),
        build.cubalif(tau_mem="10ms", tau_syn="5ms", v_threshold=0.6),
        seed=0,
    )
    made = convert(graph, to="norse", dt="100us", approximate=True)
    assert made.losses == ("continuous time is cut into steps of 100 us",)
    # A step of the current that one spike leaves, seen by the membrane: to first order in dt.
    drive = numbers(made, "2", "w_in") * 1e-4 / numbers(made, "2", "tau_syn")
    drive = drive * numbers(made, "2", "r") * 1e-4 / numbers(made, "2", "tau_mem")
    drive = drive * 0.6 / numbers(made, "2", "v_threshold")
    np.testing.assert_allclose(drive, 1e-4 / 10e-3, rtol=0.02)


def test_pools_and_groups_are_written_as_the_importer_takes_them(zoo):
    graph = read(zoo["spyx_v_conv_hwc"], dialect="spyx")
    made = convert(graph, to="norse")
    assert made.graph.nodes["layer_2"].type == "SumPool2d"
    columns = np.arange(128).reshape(4, 4, 8).transpose(2, 0, 1).ravel()
    old, new = (np.asarray(found.nodes["layer_6"].value("weight")) for found in (graph, made.graph))
    np.testing.assert_array_equal(new, old[:, columns])
    graph = read(zoo["snntorch_v_conv_sub"], dialect="snntorch", reset="subtract", reset_delay=True)
    made = convert(graph, to="norse")
    assert made.graph.nodes["2"].type == "SumPool2d"
    old, new = (np.asarray(found.nodes["3"].value("weight")) for found in (graph, made.graph))
    np.testing.assert_allclose(new, old / 4, rtol=1e-6)


@pytest.mark.parametrize("shape", [(3,), (1, 3)])
@pytest.mark.parametrize("target", ["snntorch", "spikingjelly"])
def test_a_start_at_v_leak_is_given_by_neurons_that_fire_once(target, shape):
    neurons = {"tau": 10e-3, "v_leak": np.array([-0.1, 0.1, 0.05, 0.0]), "v_threshold": 0.2}
    flat = [build.node("Flatten", start_dim=0, end_dim=-1)] if len(shape) > 1 else []
    layers = (build.affine(4, bias=0.25, weight=normal(0.5, 1.5)), build.lif(**neurons))
    graph = build.sequential(
        build.input(shape), *flat, *layers, seed=1, dialect="norse", dt=1e-3, dt_export=1.0
    )
    made = convert(graph, to=target)
    assert "two neurons that fire once each" in str(made.changes)
    x = random_raster(0, (60, 5, *shape), 0.5)
    y = played(graph, x)
    assert 0.05 < y.mean() < 0.9
    np.testing.assert_array_equal(played(made.graph, x), y)
    without = dataclasses.replace(graph, dialect=dataclasses.replace(graph.dialect, initial="zero"))
    assert not np.array_equal(played(without, x), y)


def named(ways, **others):
    """Nodes of two channels in the dialect of snnTorch."""
    neurons = build.lif(tau=1e-3, r=10.0)
    layers = {
        "input": build.input(2),
        "w": build.linear(weight=np.eye(2)),
        "lif": neurons,
        "output": build.output(2),
    }
    return build.network({**layers, **others}, ways, dialect="snntorch", **RESET)


@pytest.mark.parametrize("target", ["norse", "snntorch", "spikingjelly"])
def test_what_reaches_no_output_is_left_out_by_name(target):
    branch = {"v": build.linear(weight=np.eye(2)), "dead": build.lif(tau=1e-3, r=10.0)}
    graph = named([("input", "w", "lif", "output"), ("lif", "v", "dead", "v")], **branch)
    made = convert(graph, to=target)
    assert sorted(made.graph.nodes) == ["input", "lif", "output", "w"]
    assert {"v", "dead"} <= {change.node for change in made.changes if change.what == "is left out"}
    assert {"v", "dead"} <= {problem.node for problem in importer_problems(graph, target)}
    again = convert(named([("input", "w", "lif", "output"), ("lif", "output")]), to=target)
    assert not [change for change in again.changes if change.what == "is left out"]


def test_names_that_modules_of_torch_have_are_changed():
    extra = {"forward": build.linear(weight=np.eye(2)), "forward_": build.lif(tau=1e-3, r=10.0)}
    graph = named([("input", "forward", "forward_", "w", "lif", "output")], **extra)
    for target, expected in (("norse", ["forward"]), ("sinabs", ["forward"]), ("spyx", [])):
        found = importer_problems(graph, target)
        assert [problem.node for problem in found if problem.code == "taken-name"] == expected
    made = convert(graph, to="norse")
    assert sorted(made.graph.nodes) == ["forward_", "forward__", "input", "lif", "output", "w"]
    assert made.graph.order()[1:3] == ("forward__", "forward_")
    assert ("forward__", "'forward' is renamed") in {
        (change.node, change.what) for change in made.changes
    }


def test_a_graph_without_neurons_has_an_answer():
    graph = build.network(
        {"input": build.input(2), "output": build.output(2)},
        [("input", "output")],
        dialect="spyx",
        dt=1e-3,
    )
    assert not [
        problem for problem in importer_problems(graph, "spyx") if problem.severity == "error"
    ]


def test_sums_for_norse_run_sources_first():
    leaky = {"tau": 1e-3, "r": 10.0}
    nodes = {"input": build.input(2), "output": build.output(), "sum": build.lif(**leaky)}
    nodes |= {name: build.affine(3) for name in ("a", "b", "c")} | {"hidden": build.lif(**leaky)}
    chains = [("input", "a", "hidden", "b", "sum", "output"), ("input", "c", "sum")]
    graph = build.network(nodes, chains, seed=0, dialect="snntorch", **RESET)
    order = depth_first(convert(graph, to="norse").graph.edges, "input")
    assert (
        max(order.index(name) for name in ("b", "c")) < order.index("sum") < order.index("output")
    )


def depth_first(edges, start):
    """Nodes as Norse's importer runs them: each once, then what its edges lead to, in their order."""
    found = []

    def visit(name):
        if name not in found:
            found.append(name)
            for source, target in edges:
                if source == name:
                    visit(target)

    visit(start)
    return found


def test_a_reset_that_no_neuron_has_is_composed_of_several():
    """What snnTorch subtracts at once, and leaves above its threshold where much arrives."""
    layers = build.linear(weight=np.ones((2, 3))), build.lif(tau=5e-4, r=5.0, v_threshold=0.5)
    said = {"dialect": "snntorch", "reset": "subtract", "reset_delay": False, "dt": 1e-4}
    made = convert(build.sequential(build.input(3), *layers, **said), to="spikingjelly")
    assert made.losses == ()
    assert made.changes[0].what == "is written as several nodes, which together do the same"
    nodes, edges = made.graph.nodes, dict(made.graph.edges)
    found = {}
    for source, weights in made.graph.edges:
        if weights.endswith(("_compare", "_taken", "_check", "_reset", "_leak")):
            matrix = np.asarray(nodes[weights].value("weight"))
            assert np.array_equal(matrix, np.diag(np.diag(matrix)))
            ends = (name.partition("_")[2] for name in (source, edges[weights]))
            found[tuple(ends)] = np.diag(matrix).tolist()
    assert found == {
        ("2_membrane", "2"): [1.0, 1.0],
        ("2", "2_rest"): [-0.5, -0.5],
        ("2_rest", "2_high"): [1.0, 1.0],
        ("2_high", "2"): [-0.5, -0.5],
        ("2_rest", "2_membrane"): pytest.approx([0.8, 0.8]),
    }
    # both compare what arrives with the threshold, and keep nothing of it
    for name in ("2", "2_high"):
        node = next(node for key, node in nodes.items() if key.partition("_")[2] == name)
        assert node.type == "CubaLIF"
        kept = [np.asarray(node.value(key)) for key in ("tau_mem", "tau_syn", "r", "w_in")]
        np.testing.assert_allclose(kept, [[1e-4] * 2] * 2 + [[1.0] * 2] * 2)


@pytest.mark.parametrize(
    ("v_start", "given", "fix"),
    [
        (
            np.zeros((2, 2)),
            r"for neurons of one axis, and this one has the shape \(2, 2\)",
            "flatten",
        ),
        (
            np.array([0.5, 0.5]),
            "for membranes that start at 0, and this one has V = 0.5",
            "start at 0",
        ),
    ],
)
def test_what_cannot_be_composed_is_refused(v_start, given, fix):
    step = SimpleNamespace(
        name="n", reset="skip", current_based=False, shape=v_start.shape, v_start=v_start
    )
    conversion = SimpleNamespace(
        draft=Draft.__new__(Draft),
        steps={"n": step},
        importer=SimpleNamespace(does=lambda step: ("several nodes",)),
        title="SpikingJelly",
    )
    assert_refused(
        lambda: compose_resets(conversion),
        ConversionError,
        f"node 'n': it is zero at .*{given}",
        fix=fix,
    )


# ---- what no importer does, and what rounding alone brings about


def norse(**numbers):
    """A layer of Norse's LIFCell in steps of 1 ms, which its exporter multiplies time constants by."""
    neuron = build.cubalif(
        4, **{"tau_mem": 10e-6, "tau_syn": 5e-6, "w_in": 1.0, "r": 1.0} | numbers
    )
    return build.sequential(
        build.input(3), build.linear(4), neuron, seed=0, dialect="norse", dt=1e-3, dt_export=1e-3
    )


def test_a_decay_of_nothing_may_be_rounded():
    tau = 1e-6 * (1 - 2e-8)
    for numbers_of in ({"tau_syn": tau}, {"tau_mem": tau}):
        assert convert(norse(**numbers_of), to="norse").losses == ()


def test_a_membrane_without_bounds_fires_more_often_than_any_number():
    """A current that never decays adds up to anything."""
    neuron = build.cubalif(4, tau_mem=1e-3, tau_syn=np.inf, r=10.0, w_in=np.inf)
    linear = build.affine(weight=np.full((4, 3), 8.0), bias=np.full(4, 0.1))
    said = {"dialect": "snntorch", "reset": "subtract", "reset_delay": False}
    graph = build.sequential(build.input(3), linear, neuron, **said)
    made = convert(graph, to="norse")
    assert made.notes == ("holds for inputs of 0 to 1: for other values say input_range=",)
