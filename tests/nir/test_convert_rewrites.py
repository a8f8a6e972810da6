"""What importers ignore, or have no neuron for, is written another way: the rewritten graph, read
in the target's own dialect, gives what the source gives.
"""

import collections

import nir
import numpy as np
import pytest

from jaxsnn.errors import ConversionError
from jaxsnn.nir import build, write
from jaxsnn.nir.convert.bounds import _scale_bounds
from jaxsnn.nir.convert.layers import reorder_flattened
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.frameworks.neuron_writing import common_level
from jaxsnn.nir.initializers import normal
from jaxsnn.nir.model.draft import draft_of
from tests.helpers.random_spikes import random_raster
from tests.helpers.refusals import assert_refused
from tests.nir.conversions import (
    FLAT,
    NORSE,
    SUBTRACTS,
    assert_same,
    convolution,
    image,
    leaky,
    played,
)


def flatten(start, end):
    return build.node("Flatten", start_dim=start, end_dim=end)


def pool(kind="SumPool2d", size=2, stride=None, padding=0):
    window = {"kernel_size": [size] * 2, "stride": [stride or size] * 2, "padding": [padding] * 2}
    return build.node(kind, **window)


def pooled(*joined, **options):
    """A convolution, and nodes before a matrix."""
    layers = convolution(0, 3, 2), leaky(), *joined, FLAT, build.linear(4), leaky()
    return image(*layers, **options)


def chain(*layers, inputs=3, seed=3, **options):
    return build.sequential(build.input(inputs), *layers, seed=seed, **(SUBTRACTS | options))


def delayed(late):
    """Neurons behind synapses that are late by so many seconds, in steps of 1 ms."""
    neurons = build.lif(tau=4e-3, r=1.0, v_threshold=0.1)
    layers = [build.linear(4, weight=normal(0.3, 0.5)), build.node("Delay", delay=late), neurons]
    return chain(*layers, build.linear(3, weight=normal(0.3, 0.5)), neurons, inputs=4, **OF_NORSE)


def beside_an_edge():
    """A Delay of no steps and a Flatten, that are left out beside an edge: it counts twice."""
    nodes = {
        "input": build.input((2, 4, 4)),
        "kernel": convolution(0, 2, 2),
        "a": build.lif(tau=4e-3, r=1.0, v_threshold=np.linspace(0.1, 0.4, 32).reshape(2, 4, 4)),
        "flat": FLAT,
        "flat too": FLAT,
        "now": build.node("Delay", delay=0.0),
        "w": build.linear(4, weight=normal(0.0, 0.05)),
        "b": build.lif(tau=4e-3, r=1.0, v_threshold=0.05),
        "output": build.output(),
    }
    ways = [("input", "kernel", "a", "flat", "w", "b", "output"), ("a", "flat too", "w")]
    return build.network(nodes, [*ways, ("flat", "now", "w")], seed=1, **NORSE)


def other_heights():
    """No convolution of 1 x 1 with weight zero leads from (2, 6, 4) to (2, 4, 4)."""
    rng = np.random.default_rng(0)
    frame = {"padding": [1, 0], "stride": [1, 1], "groups": 1, "dilation": [1, 1]}
    nodes = {"input": build.input((2, 4, 4)), "hidden": leaky(), "sum": leaky()}
    for name in ("a", "b"):
        weight = rng.normal(size=(2, 2, 1, 1))
        nodes[name] = build.node("Conv2d", weight=weight, bias=np.zeros(2), **frame)
    chains = [("input", "a", "hidden", "sum", "output"), ("input", "b", "sum")]
    options = SUBTRACTS | {"reset": "zero", "reset_delay": False}
    return build.network(nodes | {"output": build.output()}, chains, seed=0, **options)


OF_NORSE = NORSE | {"reset": None, "reset_delay": None}
LAST = build.linear(4, weight=normal(0.01, 0.2))
SPIKES = build.linear(3, weight=normal(0.3, 0.4)), leaky()
COUNTS, MIXED = build.linear(3, weight=np.ones((3, 3))), build.linear(3, weight=normal(0.5, 0.4))
TAUS = np.random.default_rng(5).choice([5e-4, 1e-3, 2e-3], (3, 8, 8))
CHANNELS = np.broadcast_to(np.array([1.0, 2.0, 0.5])[:, None, None], (3, 8, 8))
PIXELS = np.where(np.arange(192).reshape(3, 8, 8) % 64 // 20 == 1, 2.0, 1.0)
EVERY, THREE = (
    {"norse": 0, "snntorch": 0, "spikingjelly": 0, "spyx": 2},
    ("norse", "snntorch", "spikingjelly"),
)


def level(*thresholds):
    return build.node("Threshold", threshold=np.array(thresholds).squeeze())


#: Graph, delay of spikes in steps by target, and numbers of nodes of some types.
REWRITTEN = {
    "dilation": (
        lambda: image(convolution(0, 3, 2, dilation=[2, 2]), leaky(), FLAT, LAST, leaky()),
        {"spyx": 2},
        {"Conv2d 5 x 5": 1},
    ),
    "groups": (
        lambda: image(convolution(0, 4, 1, groups=2), leaky(), FLAT, LAST, leaky()),
        {"spyx": 2},
        {"Conv2d 3 x 3": 1},
    ),
    "a pool with padding": (
        lambda: pooled(pool("AvgPool2d", padding=1), reset="zero"),
        {"norse": 0},
        {"SumPool2d": 1, "padded": 0},
    ),
    # Spyx pads as XLA's SAME does, so this pool becomes a convolution.
    "a pool with padding, subtracting": (
        lambda: pooled(pool("AvgPool2d", padding=1)),
        {"spyx": 2},
        {"SumPool2d": 0},
    ),
    # For 8 values and a kernel of 3, XLA's SAME pads 1 on each side.
    **{
        f"a pool that stays one, {size} {padding}": (
            lambda size=size, padding=padding: pooled(
                pool(size=size, stride=1 if padding else None, padding=padding)
            ),
            {"spyx": 2},
            {"SumPool2d": 1},
        )
        for size, padding in ((3, 0), (2, 0), (3, 1))
    },
    **{
        f"several Flattens, {parts}": (
            lambda parts=parts: pooled(*(flatten(*part) for part in parts)),
            {"spyx": 2},
            {"Flatten": 1},
        )
        for parts in ([(0, 1)], [(1, 2)], [(0, 1), (0, 1)], [(2, 2), (1, 2)])
    },
    "neurons that differ from pixel to pixel": (
        lambda: image(
            convolution(0, 3, 2), leaky(TAUS, TAUS / 1e-4), pool(), FLAT,
            build.linear(4, weight=normal(0, 0.3)), leaky(), reset="zero",
        ),
        {"spikingjelly": 0},
        {"Conv2d": 0, "SumPool2d": 0},
    ),
    "neurons of different decays": (
        lambda: chain(
            build.affine(4, bias=0.25),
            build.lif(tau=np.array([1, 2, 1, 4]) * 1e-3, r=[10, 20, 10, 40], v_threshold=0.4),
            reset="zero", reset_delay=False,
        ),
        {"spikingjelly": 0},
        {"uneven": 0},
    ),
    "sums of other heights": (other_heights, {"norse": 0}, {"Conv2d": 0}),
    "a Scale": (
        lambda: chain(
            build.linear(4, weight=normal(0.5, 0.6)), build.scale([1.0, 2.0, 0.5, 1.5]), leaky()
        ),
        {"snntorch": 0},
        {"Scale": 0},
    ),
    "a Scale of channels": (
        lambda: image(
            convolution(0, 3, 2), build.scale(CHANNELS), leaky(), FLAT, build.linear(4), leaky()
        ),
        {"snntorch": 0},
        {"Scale": 0},
    ),
    "a Scale within a channel": (
        lambda: image(
            convolution(0, 3, 2), build.scale(PIXELS), leaky(), FLAT, build.linear(4), leaky()
        ),
        {"snntorch": 0},
        {"Scale": 0, "Conv2d": 0},
    ),
    # Levels of spike counts, which meet the levels exactly, and levels of the input.
    "levels of counts": (lambda: chain(*SPIKES, COUNTS, level(0, 1, 2)), EVERY, {"Threshold": 0}),
    "one level": (lambda: chain(*SPIKES, COUNTS, level(0.5)), EVERY, {"Threshold": 0}),
    "levels of inputs": (
        lambda: chain(level(-0.2, 0.3, 1.2), MIXED, leaky()), EVERY, {"Threshold": 0}
    ),
    "small levels": (
        lambda: chain(
            build.linear(3, weight=normal(0.0, 4e-10)), level(-2e-10, 0, 3e-10), MIXED, leaky()
        ),
        EVERY,
        {"Threshold": 0},
    ),
    "a level of membranes": (
        lambda: chain(build.linear(3), build.li(tau=1e-2, r=1.0), level(0.02), inputs=4, **OF_NORSE),
        dict.fromkeys(THREE, 0),
        {"Threshold": 0},
    ),
    "levels of pixels, also below 0": (
        lambda: image(
            convolution(0, 2, 2), leaky(), convolution(1, 2, 2),
            level(*np.linspace(-0.3, 1.0, 128).reshape(2, 8, 8)), FLAT,
        ),
        {"norse": 0},
        {"Threshold": 0},
    ),
    "a delay": (lambda: delayed(1e-3), dict.fromkeys(THREE, 0), {"Delay": 0}),
    "delays": (
        lambda: delayed(np.array([0, 3e-3, 1e-3, 3e-3])), dict.fromkeys(THREE, 0), {"Delay": 0}
    ),
    "delays of pixels": (
        lambda: build.sequential(
            build.input((2, 5, 5)),
            build.node("Delay", delay=np.arange(50).reshape(2, 5, 5) % 3 * 1e-4),
            convolution(0, 2, 2), leaky(), FLAT, seed=2, **SUBTRACTS,
        ),
        {"snntorch": 0},
        {"Delay": 0},
    ),
    "a delay of no steps": (
        lambda: chain(SPIKES[0], build.node("Delay", delay=0.0), leaky(), inputs=4),
        {"spyx": 1, "norse": 0},
        {"Delay": 0},
    ),
    "what is left out beside an edge": (beside_an_edge, dict.fromkeys(THREE, 0), {}),
}  # fmt: skip


def kinds_of(graph):
    """How many nodes of each type there are, of kernels of each size, and of what importers ignore."""
    for node in graph.nodes.values():
        yield node.type
        if node.type == "Conv2d":
            yield f"Conv2d {' x '.join(map(str, np.shape(node.value('weight'))[2:]))}"
        if node.type == "SumPool2d" and np.any(node.value("padding")):
            yield "padded"
        if node.type == "LIF" and np.ptp(node.value("tau")):
            yield "uneven"


@pytest.mark.parametrize(
    ("name", "target"), [(name, to) for name, (_, late, _) in REWRITTEN.items() for to in late]
)
def test_what_an_importer_does_not_have_is_written_another_way(name, target):
    make, late, expected = REWRITTEN[name]
    graph = make()
    conversion = convert(graph, to=target)
    counts = collections.Counter(kinds_of(conversion.graph))
    assert {kind: counts[kind] for kind in expected} == expected
    assert conversion.losses == ()
    shape = tuple(np.asarray(graph.nodes["input"].value("shape")).tolist())
    assert_same(graph, conversion, random_raster(1, (40, 3, *shape), 0.4), shift=late[target])


@pytest.mark.parametrize(
    ("size", "stride", "padding", "reaches"),
    [(3, 1, 1, True), (3, 2, 1, True), (2, 1, 1, False), (3, 2, 2, False), (3, 1, 2, False)],
)
def test_spyx_gets_a_late_bias_where_a_constant_input_reaches_all_outputs(
    size, stride, padding, reaches
):
    settings = {"size": size, "stride": [stride] * 2, "padding": [padding] * 2}
    late = convolution(3, 2, 3, bias=0.3, **settings)
    graph = image(convolution(4, 3, 2), leaky(), pool("AvgPool2d"), late, leaky())
    conversion = convert(graph, to="spyx")
    assert conversion.graph.nodes["4"].type == ("Conv2d" if reaches else "Affine")  # a matrix
    added = conversion.graph.nodes["2"]
    assert [np.ravel(added.value(name))[-1] for name in ("v_threshold", "r")] == [1.0, 0.5]
    np.testing.assert_allclose(np.ravel(added.value("tau"))[-1], 2e-4)
    if stride == 2 and reaches:
        assert_same(graph, conversion, random_raster(1, (12, 2, 2, 8, 8), 0.3), shift=2)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_flatten_that_leaves_axes_is_refused_where_their_order_changes(channels):
    """Weights that stand for it are written where nothing but matrices is left, else it is refused."""
    graph = image(convolution(0, channels, 2, bias=0.5), leaky(), flatten(1, 2), leaky(), FLAT)
    draft, _ = draft_of(graph)
    message = rf"'3' \(Flatten\) changes shape \({channels}, 8, 8\) to \({channels}, 64\), but"
    assert_refused(
        lambda: reorder_flattened(draft, True, "it is channels last"), ConversionError, message
    )
    assert_same(graph, convert(graph, to="spyx"), random_raster(1, (30, 3, 2, 8, 8), 0.3), shift=2)


def test_a_trailing_flatten_keeps_its_order():
    x = random_raster(1, (30, 3, 2, 8, 8), 0.3)
    graph = image(convolution(0, 3, 2), leaky(), FLAT)
    conversion = convert(graph, to="spyx")
    assert_same(graph, conversion, x, shift=1)
    back = convert(conversion.graph, to="snntorch")
    assert next(iter(back.shift.values())) == -1
    np.testing.assert_array_equal(played(back.graph, x)[:-1], played(graph, x)[:-1])
    assert any("a permutation between" in change.what for change in conversion.changes)


def test_what_inputs_carry_bounds_the_spikes_of_a_step():
    layers = build.linear(4, weight=np.full((4, 3), 0.2)), build.integrate_and_fire()
    graph = build.sequential(build.input(3), *layers, dialect="sinabs")
    spikes = convert(graph, to="norse")
    assert np.shape(spikes.graph.nodes["2"].value("v_threshold")) == (4,)
    assert any("inputs of 0 to 1" in note and "input_range=" in note for note in spikes.notes)
    for target in ("norse", "spyx"):
        nodes = convert(graph, to=target, input_range=(0.0, 5.0)).graph.nodes.values()
        # The membrane reaches 1 + 3 * 0.2 * 5 = 4: four copies.
        sizes = [
            np.size(node.value("v_threshold")) for node in nodes if "v_threshold" in node.names
        ]
        assert max(sizes) == 16


def test_spikingjelly_reads_conv1d(tmp_path):
    weight = np.random.default_rng(0).normal(0.2, 0.5, (3, 2, 3)).astype(np.float32)
    window = {"stride": [1], "padding": [1], "dilation": [1], "groups": 1}
    layer = build.node("Conv1d", weight=weight, bias=np.zeros(3, np.float32), **window)
    graph = build.sequential(build.input((2, 20)), layer, leaky(), **SUBTRACTS | {"reset": "zero"})
    write(tmp_path / "a.nir", convert(graph, to="spikingjelly").graph)
    assert vars(nir.read(tmp_path / "a.nir").nodes["1"])["input_shape"] == 20
    # Other importers do not support Conv1d, which becomes a matrix.
    conversion = convert(graph, to="snntorch")
    assert conversion.graph.nodes["1"].type == "Affine"
    assert_same(graph, conversion, random_raster(1, (30, 3, 2, 20), 0.3))


@pytest.mark.parametrize("delay", [True, False])
@pytest.mark.parametrize("current", [True, False])
@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_snntorch_gets_its_own_resets(reset, current, delay):
    neurons = build.cubalif(tau_mem=1e-3, tau_syn=3e-4, r=10.0, w_in=3.0, v_threshold=8.0)
    neurons = neurons if current else leaky()
    hidden, last = (build.linear(size, weight=normal(0.3, 0.6)) for size in (6, 4))
    options = {"inputs": 5, "seed": 0, "reset": reset, "reset_delay": delay}
    graph = chain(hidden, neurons, last, neurons, **options)
    conversion = convert(graph, to="snntorch", path="a.nir")
    assert_same(graph, conversion, random_raster(1, (60, 4, 5), 0.4))
    dialect = conversion.graph.dialect
    assert dialect.reset == reset
    set_by_line = "reset_mechanism" in conversion.load_with
    assert set_by_line is (reset == "subtract" or bool(dialect.reset_delay))


def looped(beside):
    """What a neuron gives itself back goes into the weights of its loop, unless they feed others."""
    rng = np.random.default_rng(3)
    nodes = {
        "input": build.input(5),
        "w": build.linear(weight=rng.normal(0.3, 0.9, (6, 5))),
        "lif": leaky(),
        "loop": build.linear(weight=rng.normal(0, 0.3, (6, 6))),
        "last": leaky(),
        "output": build.output(),
    }
    last = ("loop" if beside else "lif", "last", "output")
    return build.network(nodes, [("input", "w", "lif", "loop", "lif"), last], **SUBTRACTS)


def subtracting(gain, neurons, **options):
    layers = build.linear(6, weight=normal(0.3 * gain, 0.9 * gain)), neurons
    return chain(*layers, inputs=5, seed=0, **options)


#: Spyx subtracts before the decay, snnTorch after it, SpikingJelly and Norse before.
SUBTRACTING = {
    "norse": (
        lambda: subtracting(
            15.0, build.lif(tau=1e-3), **OF_NORSE | {"dt": 1e-4, "reset": "subtract"}
        ),
        "snntorch",
    ),
    "snntorch": (lambda: subtracting(1.0, leaky()), "spikingjelly"),
    "in a loop": (lambda: looped(False), "spikingjelly"),
    "in a loop and beside it": (lambda: looped(True), "spikingjelly"),
}


@pytest.mark.parametrize("name", SUBTRACTING)
def test_another_time_of_subtraction_is_made_up_for_by_weights(name):
    make, target = SUBTRACTING[name]
    graph = make()
    conversion = convert(graph, to=target, input_range=(0.0, 1.0))
    assert any(
        "different time step than the source framework" in change.why
        for change in conversion.changes
    )
    assert_same(graph, conversion, random_raster(1, (60, 4, 5), 0.4))


def two_bursting_layers(target):
    # SpikingJelly needs one time constant for all neurons.
    taus = np.array([4.0, 5.0, 6.0, 7.0]) if target == "snntorch" else 5.0
    layers = [build.linear(4, weight=normal(0.8, 0.4)), build.lif(tau=taus)]
    layers += [build.linear(2, weight=normal(0.2, 0.5)), build.integrate_and_fire()]
    options = {"dialect": "sinabs", "norm_input": False}
    return build.sequential(build.input(3), *layers, seed=0, **options)


def many_spikes(_):
    """Up to 10 spikes in a step are those of 11 neurons, whose thresholds are 1 to 11 times one."""
    weights = np.random.default_rng(2).integers(-1, 4, (6, 5)).astype(float)
    neurons = build.integrate_and_fire(r=1.0, v_threshold=np.array([1, 1.5, 2, 0.75, 2, 1]))
    options = {"dialect": "sinabs", "dt": "1ms", "reset": "subtract"}
    return build.sequential(build.input(5), build.linear(6, weight=weights), neurons, **options)


@pytest.mark.parametrize("target", ["snntorch", "spikingjelly"])
@pytest.mark.parametrize(
    ("make", "raster", "least", "rounds"),
    [
        (two_bursting_layers, (1, (60, 4, 3), 0.4), 1, True),
        (many_spikes, (2, (60, 12, 5), 0.35), 8, False),
    ],
)
def test_several_spikes_of_a_step_become_neurons_that_reset_each_other(
    make, raster, least, rounds, target
):
    graph, x = make(target), random_raster(*raster)
    y = played(graph, x)
    assert y.max() > least
    conversion = convert(graph, to=target)
    np.testing.assert_array_equal(played(conversion.graph, x), y)
    assert rounds or not any("float32" in note for note in conversion.notes)


MEETS = {
    "spikingjelly": {"dt": "1ms"},
    "norse": {"dt": "1ms", "dt_export": 1.0},
    "spyx": {"dt": "1ms", "time_unit": "s"},
}


@pytest.mark.parametrize("target", ["snntorch", "spikingjelly", "norse"])
@pytest.mark.parametrize("source", ["spikingjelly", "norse", "spyx"])
def test_sums_that_meet_different_thresholds_meet_them_when_scaled(source, target):
    """Whole numbers; of the sources, SpikingJelly fires at a threshold, the others above it."""
    weights = np.random.default_rng(0).integers(-1, 3, (12, 6))
    r = 1e3 if source == "spikingjelly" else 1.0
    thresholds = build.integrate_and_fire(r=r, v_threshold=np.tile([3.0, 2.0, 1.5], 4))
    layers = build.linear(12, weight=weights), thresholds
    graph = build.sequential(build.input(6), *layers, dialect=source, **MEETS[source])
    x = random_raster(0, (60, 5, 6), 0.3)
    y, converted = played(graph, x), played(convert(graph, to=target).graph, x)
    late = int(source == "spyx")
    assert 0.05 < y.mean() < 0.9
    np.testing.assert_array_equal(converted[: len(y) - late], y[late:])


@pytest.mark.parametrize(
    ("thresholds", "level"),
    [
        ([0.5, 0.75, 2.0], 6.0),
        (np.arange(1.0, 13.0), 27720.0),
        ([0.3, 0.7, 0.9], 0.3),
        (np.arange(1.0, 40.0), 1.0),
    ],
)
def test_thresholds_without_a_small_common_multiple_scale_to_the_first(thresholds, level):
    assert common_level(np.array(thresholds)) == level


@pytest.mark.parametrize(
    ("thresholds", "weight", "r", "target", "noted"),
    [
        ([1.0, 1.5], 1.0, 2.0, "norse", {"subtract"}),  # 1/3 is rounded
        ([1.0, 2.0], 1.0, 2.0, "norse", set()),
        ([1.0, 2.0], 1.0, 5.0, "norse", {"zero", "subtract"}),  # by 0.8, the decay of V
        ([1.0, 1.5], np.pi / 9, 2.0, "norse", set()),  # sums meet no threshold
        ([0.3, 0.3], 0.3, 5.0, "norse", {"zero", "subtract"}),
        (np.arange(1.0, 40.0), 1.0, 2.0, "snntorch", {"zero", "subtract"}),
        (np.arange(1.0, 10.0), 1.0, 5.0, "snntorch", set()),
    ],
)
@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_it_is_noted_where_scaling_rounds_sums_that_meet_a_threshold(
    reset, thresholds, weight, r, target, noted
):
    neurons = build.lif(tau=1e-4 * r, r=r, v_threshold=np.array(thresholds))
    weights = build.linear(len(thresholds), weight=np.full((len(thresholds), 3), weight))
    graph = chain(weights, neurons, reset=reset, reset_delay=reset == "subtract")
    notes = [note for note in convert(graph, to=target).notes if note.startswith("node '2': ")]
    assert any("float32" in note and "rounds" in note for note in notes) == (reset in noted)


@pytest.mark.parametrize(
    ("weight", "bias", "target", "noted"),
    [
        (0.1, 0.0, "norse", True),
        (0.3, 0.0, "spikingjelly", True),
        (0.5, 0.0, "norse", False),
        (1.0, 0.1, "norse", True),  # ten steps add up to v_threshold
        (1.0, 0.25, "norse", False),
        (np.pi / 9, np.pi / 99, "norse", False),  # sums meet no threshold
        (0.1, 0.0, "snntorch", False),  # the conversion changes no number
    ],
)
@pytest.mark.parametrize("flattened", [False, True])
def test_decimal_weights_and_biases_are_noted(flattened, weight, bias, target, noted):
    """float32 rounds them, so that the order of all operations decides about sums that meet a threshold."""
    neurons = build.lif(tau=2e-4, r=2.0, v_threshold=1.0)
    layers = [build.affine(weight=np.full((3, 4), weight), bias=np.full(3, bias)), neurons]
    if flattened:
        kernel = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "bias": np.full(2, bias)}
        kernel["weight"] = np.full((2, 1, 3, 3), weight)
        layers[:1] = build.node("Conv2d", **kernel), FLAT
    graph = chain(*layers, inputs=(1, 6, 6) if flattened else 4)
    notes = [note for note in convert(graph, to=target).notes if "equals v_threshold" in note]
    assert bool(notes) is noted
    assert not noted or f"such as {bias or weight:g}," in notes[0]


@pytest.mark.parametrize(("side", "noted"), [(2, False), (3, True)])
def test_averages_that_float32_rounds_are_noted(side, noted):
    average = build.node("AvgPool2d", kernel_size=side, stride=side, padding=0)
    weights = build.linear(weight=np.ones((3, (6 // side) ** 2)))
    graph = chain(average, FLAT, weights, build.lif(tau=2e-4, r=2.0), inputs=(1, 6, 6))
    notes = convert(graph, to="norse").notes
    assert any("'4'" in note and "'1'" in note for note in notes) is noted


def test_bounds_hold_what_lies_between_two_ends():
    rng = np.random.default_rng(0)
    gain, offset = rng.normal(size=50), rng.normal(size=50)
    ends = np.sort(rng.normal(size=(2, 50)), axis=0)
    low, high = _scale_bounds(gain, (ends[0], ends[1]), offset)
    within = gain * (ends[0] + rng.random((100, 50)) * (ends[1] - ends[0])) + offset
    assert np.all((low - 1e-12 <= within) & (within <= high + 1e-12))
    np.testing.assert_allclose(high - low, np.abs(gain) * (ends[1] - ends[0]))
