"""Numbers that a conversion computes itself, against NumPy, the engine, or the number of copies and delays
that they stand for.
"""

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jaxsnn.errors import ConversionError
from jaxsnn.nir import build
from jaxsnn.nir.convert.bounds import _through
from jaxsnn.nir.convert.importers import _alike, _joined
from jaxsnn.nir.convert.memories import delay_in_steps
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.convert.run_order import move_biases_out_of_loops
from jaxsnn.nir.convert.topology import merge_weights
from jaxsnn.nir.dialects.resolve import resistance, resolve_neurons
from jaxsnn.nir.dialects.steps import step_of
from jaxsnn.nir.initializers import normal
from jaxsnn.nir.model.draft import draft_of
from tests.helpers.random_spikes import random_raster
from tests.helpers.refusals import assert_refused
from tests.nir.conversions import NORSE, SINABS, SUBTRACTS, assert_same, played

LEAK = np.array([0.3, -0.2, 0.1])


def chain(*layers, inputs=3, **options):
    return build.sequential(build.input(inputs), *layers, seed=1, **options)


def weights(mean=0.5, spread=0.6, size=3, bias=0.0):
    return build.affine(size, weight=normal(mean, spread), bias=bias)


@pytest.mark.parametrize("target", ["snntorch", "spikingjelly"])
def test_a_readout_that_starts_at_its_leak_keeps_its_membranes(target):
    readout = build.li(tau=[4e-3, 6e-3, 9e-3], v_leak=LEAK)
    graph = chain(weights(), readout, **NORSE)
    x = random_raster(0, (20, 2, 3), 0.5)
    expected = played(graph, x)
    np.testing.assert_allclose(played(convert(graph, to=target).graph, x), expected, atol=1e-5)


def test_a_current_that_starts_at_its_leak_is_set_up_by_two_kicks():
    neurons = build.cubalif(
        tau_mem=8e-3, tau_syn=4e-3, r=1.5, w_in=3.0, v_leak=[0.2, 0.1, -0.1], v_threshold=0.9
    )
    graph = chain(weights(0.3, 0.2), neurons, dialect="norse==importer", dt=1e-3, reset="zero")
    assert_same(graph, convert(graph, to="snntorch"), random_raster(0, (60, 4, 3), 0.5))


@pytest.mark.parametrize(("unit", "delay"), [("ms", [0.0, 1.0, 3.0]), ("s", [0.0, 1e-3, 3e-3])])
def test_delays_are_counted_in_time_steps_of_any_unit(unit, delay):
    graph = chain(
        build.node("Delay", delay=np.array(delay)), dialect="nir", time_unit=unit, dt="1ms"
    )
    np.testing.assert_array_equal(delay_in_steps(graph, "1"), [0, 1, 3])
    halved = chain(build.node("Delay", delay=1.5e-3), dialect="nir", time_unit="s", dt="1ms")
    assert_refused(lambda: delay_in_steps(halved, "1"), ConversionError, "1.5 of 0.001 s")


@pytest.mark.parametrize("target", ["snntorch", "spikingjelly"])
def test_neurons_of_a_loop_with_several_time_constants_hear_it_a_step_later(target):
    rng = np.random.default_rng(3)
    tau = np.array([1e-3, 2e-3, 1e-3, 4e-3])
    nodes = {
        "input": build.input(3),
        "w": build.linear(weight=rng.normal(0.4, 0.8, (4, 3))),
        "lif": build.lif(tau=tau, r=tau / 1e-4),
        "loop": build.linear(weight=rng.normal(0, 0.6, (4, 4))),
        "output": build.output(),
    }
    chains = [("input", "w", "lif", "output"), ("lif", "loop", "lif")]
    options = SUBTRACTS | {"reset": "zero", "reset_delay": False}
    graph = build.network(nodes, chains, **options)
    assert_same(graph, convert(graph, to=target), random_raster(0, (60, 4, 3), 0.4))


#: Weight and bias of three inputs of 0 or 1, and the largest number of spikes of a step: the membrane
#: reaches 1 + 3 weight + bias.
@pytest.mark.parametrize(
    ("weight", "bias", "copies"),
    [
        (0.2137, 0.0, 1),
        (0.3187, 0.0, 1),
        (0.4219, 0.0, 2),
        (0.2137, 0.5131, 2),
        (0.2137, 1.4973, 3),
        (0.4219, -0.5131, 1),
    ],
)
def test_weights_and_biases_bound_the_spikes_of_a_step(weight, bias, copies):
    layer = build.affine(weight=np.full((2, 3), weight), bias=np.full(2, bias))
    graph = chain(layer, build.integrate_and_fire(r=1.0), **SINABS)
    conversion = convert(graph, to="norse")
    assert np.size(conversion.graph.nodes["2"].value("v_threshold")) == 2 * copies
    x = random_raster(0, (40, 3, 3), 0.7)
    np.testing.assert_array_equal(played(conversion.graph, x), played(graph, x))


WINDOW: dict[str, Any] = {"kernel_size": [2, 2], "stride": [2, 2], "padding": [0, 0]}
MATRIX = np.array([[1.0, -2.0, 0.5], [0.3, 0.2, -1.0]])
KERNEL = np.random.default_rng(0).normal(size=(2, 1, 2, 2)).astype(np.float32)
CONVOLUTION = build.node(
    "Conv2d", weight=KERNEL, bias=LEAK[:2], stride=1, padding=0, dilation=1, groups=1
)
#: Node, shape of its input, and its outputs for inputs (corners, *shape).
LINEAR: dict[str, tuple[Any, tuple[int, ...], Any]] = {
    "Affine": (build.affine(weight=MATRIX, bias=LEAK[:2]), (3,), lambda x: x @ MATRIX.T + LEAK[:2]),
    "Scale": (build.scale([1.5, -0.5, 2.0]), (3,), lambda x: x * [1.5, -0.5, 2.0]),
    "SumPool2d": (build.node("SumPool2d", **WINDOW), (1, 2, 2), lambda x: x.sum(axis=(2, 3))),
    "AvgPool2d": (build.node("AvgPool2d", **WINDOW), (1, 2, 2), lambda x: x.mean(axis=(2, 3))),
    "Conv2d": (
        CONVOLUTION,
        (1, 2, 2),
        lambda x: np.einsum("oiyx,biyx->bo", KERNEL, x) + LEAK[:2],
    ),
}


@pytest.mark.parametrize("name", LINEAR)
def test_bounds_of_a_linear_node_are_what_its_outputs_reach(name):
    """An extreme of a linear function is at a corner of its inputs, of which there are at most 16."""
    layer, shape, outputs = LINEAR[name]
    draft, _ = draft_of(build.sequential(build.input(shape), layer, **SUBTRACTS))
    low, high = _through(draft, "1", (np.full(shape, -0.5), np.full(shape, 1.0)))
    corners = np.array(list(itertools.product([-0.5, 1.0], repeat=int(np.prod(shape)))))
    values = outputs(corners.reshape(-1, *shape))
    np.testing.assert_allclose(low.ravel(), values.min(axis=0), rtol=1e-6)
    np.testing.assert_allclose(high.ravel(), values.max(axis=0), rtol=1e-6)


@pytest.mark.parametrize("target", ["norse"])
def test_biases_of_a_second_layer_act_before_its_first_input_where_layers_delay_spikes(target):
    """Layer 2 of Spyx has its bias from the first step on, and spikes of layer 1 a step later."""
    neurons = build.lif(tau=1e-3, r=0.9)
    layers = weights(0.3, 0.5, 5), neurons, weights(0.2, 0.5, 4, bias=0.3), neurons
    graph = chain(*layers, dialect="spyx", dt=1e-4, time_unit="s")
    conversion = convert(graph, to=target)
    (shift,) = conversion.shift.values()
    assert shift == -2
    x = random_raster(0, (40, 4, 3), 0.4)
    y, converted = played(graph, x), played(conversion.graph, x)
    assert 0.05 < y.mean() < 0.9
    np.testing.assert_array_equal(converted[:-2], y[2:])


def test_merged_weights_take_the_first_bias_through_the_second():
    rng = np.random.default_rng(0)
    (first, second), (bias, more) = rng.normal(size=(2, 3, 3)), rng.normal(size=(2, 3))
    layers = build.affine(weight=first, bias=bias), build.affine(weight=second, bias=more)
    draft, _ = draft_of(chain(*layers, **SUBTRACTS))
    merge_weights(draft, ["1", "2"])
    (merged,) = (entry for entry in draft.nodes.values() if entry["type"] == "Affine")
    np.testing.assert_allclose(merged["weight"], second @ first, rtol=1e-6)
    np.testing.assert_allclose(merged["bias"], second @ bias + more, rtol=1e-6)


def test_a_bias_that_leaves_a_loop_is_added_to_the_one_that_is_there():
    bias, looped = np.array([0.1, 0.2]), np.array([0.4, -0.3])
    nodes = {
        "input": build.input(2),
        "w": build.affine(weight=np.eye(2), bias=bias),
        "lif": build.lif(tau=1e-3, r=10.0),
        "loop": build.affine(weight=0.5 * np.eye(2), bias=looped),
        "output": build.output(),
    }
    chains = [("input", "w", "lif", "output"), ("lif", "loop", "lif")]
    draft, _ = draft_of(build.network(nodes, chains, **SUBTRACTS))
    move_biases_out_of_loops(draft)
    np.testing.assert_allclose(draft.nodes["w"]["bias"], bias + looped, rtol=1e-6)
    assert draft.nodes["loop"]["type"] == "Linear"


@pytest.mark.parametrize("target", ["norse", "snntorch", "spikingjelly"])
def test_biases_of_continuous_time_are_currents_and_spikes_have_an_area(target):
    neurons = build.lif(tau=4e-3, r=2.0, v_threshold=0.45)
    layer = build.affine(weight=np.array([[0.9, 0.2, 0.1], [0.3, 0.8, -0.2]]), bias=[0.1, 0.15])
    options = {"dialect": "nir", "time_unit": "s", "dt": "1ms", "spike_area": "2ms"}
    graph = chain(layer, neurons, reset="zero", **options)
    conversion = convert(graph, to=target, approximate=True)
    assert_same(graph, conversion, random_raster(0, (60, 4, 3), 0.3))


def test_time_constants_are_equal_up_to_the_rounding_of_float32():
    for name in ("tau", "tau_mem", "r"):
        for value in (1e-9, 1e-3, 1e3):
            number = np.array([value, 2 * value])
            assert _alike(name, number, number * (1 + 2.0**-22), stateful=True)
            assert not _alike(name, number, number * (1 + 2.0**-16), stateful=True)


@pytest.mark.parametrize(
    ("ends", "counts_batch", "joined"),
    [
        ((1, -1), True, (24,)),  # PyTorch's axes, of which the first is the batch
        ((2, -1), True, (2, 12)),
        ((1, 2), True, (6, 4)),
        ((0, -1), False, (24,)),
        ((1, 2), False, (2, 12)),
        ((-3, -2), True, (6, 4)),
        ((0, -1), True, None),
        ((0, 1), None, (24,)),
    ],
)
def test_axes_of_a_flatten_with_and_without_the_batch(ends, counts_batch, joined):
    axes = dict(zip(("start_dim", "end_dim"), map(np.array, ends), strict=True))
    node: Any = SimpleNamespace(value=axes.__getitem__)
    assert _joined(node, (2, 3, 4), counts_batch) == joined


def test_the_resistance_of_spyx_is_its_time_constant_in_steps():
    for unit, scale in (("s", 1.0), ("ms", 1e3)):
        neurons = build.lif(tau=scale * np.array([4e-3, 8e-3]), r=[0.75, 0.875])
        layers = build.linear(weight=np.eye(2)), neurons
        graph = build.sequential(build.input(2), *layers, dialect="spyx", time_unit=unit, dt="1ms")
        np.testing.assert_allclose(resistance(graph.dialect, graph.nodes["2"]), [4.0, 8.0])


@pytest.mark.parametrize(("threshold", "reset"), [(1.0, "subtract"), (0.9, "subtract later")])
def test_a_subtracted_1_that_decays_to_the_threshold_is_a_later_subtraction(threshold, reset):
    neurons = build.cubalif(tau_mem=1e-2, tau_syn=5e-3, v_threshold=threshold)
    options = {"dialect": "norse==importer", "dt": 1e-3, "reset": "subtract", "reset_size": "1"}
    graph = chain(build.linear(weight=np.eye(3)), neurons, **options)
    assert step_of(resolve_neurons(graph)["2"], (3,)).reset == reset
