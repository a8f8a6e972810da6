"""What importers ignore, or have no neuron for, is written another way: the rewritten graph, read
in the target's own dialect, gives what the source gives.
"""

import numpy as np
import pytest

from jaxsnn import TimeStepped, lower, simulate
from jaxsnn.errors import ConversionError
from jaxsnn.nir import build, write
from jaxsnn.nir.convert.bounds import _scale_bounds
from jaxsnn.nir.convert.layers import reorder_flattened
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.frameworks.neuron_writing import common_level
from jaxsnn.nir.initializers import normal
from jaxsnn.nir.model.draft import draft_of
from tests.helpers.random_spikes import random_raster

SUBTRACTS = {"dialect": "snntorch", "reset": "subtract", "reset_delay": True}


def played(graph, x):
    return np.asarray(simulate(lower(graph, dtype=np.float32), x, engine=TimeStepped()).output())


def image(*layers, seed=2, **said):
    """A network of 2 channels of 8 x 8 in the dialect of snnTorch."""
    return build.sequential(build.input((2, 8, 8)), *layers, seed=seed, **(SUBTRACTS | said))


def convolution(rng, outputs, inputs, size=3, bias=0.0, **options):
    given = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1} | options
    weight = rng.normal(0.1, 0.4, (outputs, inputs, size, size)).astype(np.float32)
    return build.node("Conv2d", weight=weight, bias=np.full(outputs, bias, np.float32), **given)


def leaky(tau=1e-3, r=10.0):
    return build.lif(tau=tau, r=r)


FLAT = build.node("Flatten", start_dim=0, end_dim=-1)


def same(graph, made, x, shift=0):
    """The conversion gives what the source gives; how active that is."""
    y, got = played(graph, x), played(made.graph, x)
    y, got = y.reshape(*y.shape[:2], -1), got.reshape(*got.shape[:2], -1)
    assert 0.02 < y.mean() < 0.9
    np.testing.assert_array_equal(got[shift:], y[: len(y) - shift])


def test_spyx_gets_kernels_with_zeros_in_place_of_dilation():
    rng = np.random.default_rng(0)
    last = build.linear(4, weight=normal(0.01, 0.2))
    graph = image(convolution(rng, 3, 2, dilation=[2, 2]), leaky(), FLAT, last, leaky())
    made = convert(graph, to="spyx")
    entry = made.graph.nodes["1"]
    assert np.shape(entry.value("weight")) == (3, 2, 5, 5)
    assert np.all(np.asarray(entry.value("dilation")) == 1)
    same(graph, made, random_raster(1, (30, 3, 2, 8, 8), 0.3), shift=2)


@pytest.mark.parametrize(("target", "shift"), [("norse", 0), ("spyx", 2)])
def test_padding_of_a_pool_is_put_into_a_convolution(target, shift):
    rng = np.random.default_rng(0)
    pool = build.node("AvgPool2d", kernel_size=[2, 2], stride=[2, 2], padding=[1, 1])
    reset = "zero" if target == "norse" else "subtract"
    layers = (convolution(rng, 3, 2), leaky(), pool, FLAT, build.linear(4), leaky())
    graph = image(*layers, reset=reset)
    made = convert(graph, to=target)
    pools = [node for node in made.graph.nodes.values() if node.type == "SumPool2d"]
    # Spyx's, whose padding is XLA's SAME, becomes a convolution as a whole.
    assert len(pools) == (target == "norse")
    assert not any(np.any(node.value("padding")) for node in pools)
    same(graph, made, random_raster(1, (30, 3, 2, 8, 8), 0.3), shift=shift)


@pytest.mark.parametrize(("size", "padding"), [(3, 0), (2, 0), (3, 1)])
def test_pools_that_spyx_runs_as_they_are_stay_pools(size, padding):
    """Without padding, and with one that XLA's SAME gives: 8 values in threes have 1 on each side."""
    rng = np.random.default_rng(0)
    stride = [size, size] if not padding else [1, 1]
    pool = build.node("SumPool2d", kernel_size=[size] * 2, stride=stride, padding=[padding] * 2)
    graph = image(convolution(rng, 3, 2), leaky(), pool, FLAT, build.linear(4), leaky())
    made = convert(graph, to="spyx")
    assert [node.type for node in made.graph.nodes.values()].count("SumPool2d") == 1
    same(graph, made, random_raster(1, (30, 3, 2, 8, 8), 0.3), shift=2)


@pytest.mark.parametrize(
    ("size", "stride", "padding", "reaches"),
    [(3, 1, 1, True), (3, 2, 1, True), (2, 1, 1, False), (3, 2, 2, False), (3, 1, 2, False)],
)
def test_spyx_gets_a_late_bias_where_a_constant_input_reaches_all_outputs(
    size, stride, padding, reaches
):
    rng = np.random.default_rng(3)
    given = {"size": size, "stride": [stride] * 2, "padding": [padding] * 2}
    late = convolution(rng, 2, 3, bias=0.3, **given)
    pool = build.node("AvgPool2d", kernel_size=[2, 2], stride=[2, 2], padding=[0, 0])
    graph = image(convolution(rng, 3, 2), leaky(), pool, late, leaky())
    made = convert(graph, to="spyx")
    assert made.graph.nodes["4"].type == ("Conv2d" if reaches else "Affine")  # a matrix
    added = made.graph.nodes["2"]
    assert [np.ravel(added.value(name))[-1] for name in ("v_threshold", "r")] == [1.0, 0.5]
    np.testing.assert_allclose(np.ravel(added.value("tau"))[-1], 2e-4)
    if stride == 2 and reaches:
        same(graph, made, random_raster(1, (12, 2, 2, 8, 8), 0.3), shift=2)


def flatten(start, end):
    return build.node("Flatten", start_dim=start, end_dim=end)


@pytest.mark.parametrize("parts", [[(0, 1)], [(1, 2)], [(0, 1), (0, 1)], [(2, 2), (1, 2)]])
def test_spyx_gets_one_flatten_for_several_that_join_some_axes(parts):
    rng = np.random.default_rng(0)
    joined = [flatten(*part) for part in parts]
    graph = image(convolution(rng, 3, 2), leaky(), *joined, FLAT, build.linear(4), leaky())
    made = convert(graph, to="spyx")
    assert [node.type for node in made.graph.nodes.values()].count("Flatten") == 1
    same(graph, made, random_raster(1, (30, 3, 2, 8, 8), 0.3), shift=2)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_flatten_that_leaves_axes_is_refused_where_their_order_changes(channels):
    """Weights that stand for it are written where nothing but matrices is left, else it is refused."""
    rng = np.random.default_rng(0)
    graph = image(convolution(rng, channels, 2, bias=0.5), leaky(), flatten(1, 2), leaky(), FLAT)
    draft, _ = draft_of(graph)
    message = rf"'3' \(Flatten\) makes \({channels}, 64\) of \({channels}, 8, 8\), and"
    with pytest.raises(ConversionError, match=message):
        reorder_flattened(draft, True, "it is channels last")
    same(graph, convert(graph, to="spyx"), random_raster(1, (30, 3, 2, 8, 8), 0.3), shift=2)


def test_a_trailing_flatten_keeps_its_order():
    rng = np.random.default_rng(0)
    x = random_raster(1, (30, 3, 2, 8, 8), 0.3)
    graph = image(convolution(rng, 3, 2), leaky(), FLAT)
    made = convert(graph, to="spyx")
    same(graph, made, x, shift=1)
    back = convert(made.graph, to="snntorch")
    assert next(iter(back.shift.values())) == -1
    y = played(graph, x)
    np.testing.assert_array_equal(played(back.graph, x)[:-1], y[:-1])
    assert any("a permutation between" in change.what for change in made.changes)


def test_what_inputs_carry_bounds_the_spikes_of_a_step():
    weights = np.full((4, 3), 0.2)
    graph = build.sequential(
        build.input(3),
        build.linear(4, weight=weights),
        build.integrate_and_fire(),
        dialect="sinabs",
    )
    spikes = convert(graph, to="norse")
    assert np.shape(spikes.graph.nodes["2"].value("v_threshold")) == (4,)
    assert any("inputs of 0 to 1" in note and "input_range=" in note for note in spikes.notes)
    for target in ("norse", "spyx"):
        valued = convert(graph, to=target, input_range=(0.0, 5.0))
        # The membrane reaches 1 + 3 * 0.2 * 5 = 4: four copies.
        nodes = valued.graph.nodes.values()
        fire = [node for node in nodes if "v_threshold" in node.names]
        assert max(np.size(node.value("v_threshold")) for node in fire) == 16


def test_spikingjelly_reads_conv1d(tmp_path):
    import nir

    weight = np.random.default_rng(0).normal(0.2, 0.5, (3, 2, 3)).astype(np.float32)
    said = {"stride": [1], "padding": [1], "dilation": [1], "groups": 1}
    layer = build.node("Conv1d", weight=weight, bias=np.zeros(3, np.float32), **said)
    graph = build.sequential(build.input((2, 20)), layer, leaky(), **SUBTRACTS | {"reset": "zero"})
    write(tmp_path / "a.nir", convert(graph, to="spikingjelly").graph)
    assert vars(nir.read(tmp_path / "a.nir").nodes["1"])["input_shape"] == 20
    # Others have no Conv1d: it becomes a matrix.
    made = convert(graph, to="snntorch")
    assert made.graph.nodes["1"].type == "Affine"
    same(graph, made, random_raster(1, (30, 3, 2, 20), 0.3))


def test_neurons_that_differ_from_pixel_to_pixel_get_matrices():
    rng = np.random.default_rng(0)
    taus = rng.choice([5e-4, 1e-3, 2e-3], (3, 8, 8))
    pool = build.node("SumPool2d", kernel_size=[2, 2], stride=[2, 2], padding=[0, 0])
    layers = (convolution(rng, 3, 2), leaky(tau=taus, r=taus / 1e-4), pool, FLAT)
    graph = image(*layers, build.linear(4, weight=normal(0, 0.3)), leaky(), reset="zero")
    made = convert(graph, to="spikingjelly")
    assert {"Conv2d", "SumPool2d"}.isdisjoint(node.type for node in made.graph.nodes.values())
    same(graph, made, random_raster(1, (30, 3, 2, 8, 8), 0.3))


@pytest.mark.parametrize("delay", [True, False])
@pytest.mark.parametrize("current", [True, False])
@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_snntorch_gets_its_own_resets(reset, current, delay):
    neurons = build.cubalif(tau_mem=1e-3, tau_syn=3e-4, r=10.0, w_in=3.0, v_threshold=8.0)
    layer = neurons if current else leaky()
    graph = build.sequential(
        build.input(5),
        build.linear(6, weight=normal(0.3, 0.6)),
        layer,
        build.linear(4, weight=normal(0.3, 0.6)),
        layer,
        seed=0,
        **SUBTRACTS | {"reset": reset, "reset_delay": delay},
    )
    made = convert(graph, to="snntorch", path="a.nir")
    same(graph, made, random_raster(1, (60, 4, 5), 0.4))
    dialect = made.graph.dialect
    assert dialect.reset == reset
    set_by_line = "reset_mechanism" in made.load_with
    assert set_by_line is (reset == "subtract" or bool(dialect.reset_delay))


@pytest.mark.parametrize("target", ["snntorch", "spikingjelly"])
def test_another_time_of_subtraction_is_made_up_for_by_weights(target):
    # Spyx subtracts before the membrane decays, snnTorch after it, SpikingJelly before.
    source = {"spikingjelly": "snntorch", "snntorch": "norse"}[target]
    said = {"snntorch": SUBTRACTS, "norse": {"dialect": "norse", "dt": 1e-4, "dt_export": 1.0}}
    said["norse"] |= {"reset": "subtract"}
    size = 1.0 if source == "snntorch" else 15.0
    layers = [build.linear(6, weight=normal(0.3 * size, 0.9 * size)), leaky()]
    if source == "norse":
        layers[1] = build.lif(tau=1e-3)
    graph = build.sequential(build.input(5), *layers, seed=0, **said[source])
    made = convert(graph, to=target, input_range=(0.0, 1.0))
    assert any("another step than the source" in change.why for change in made.changes)
    same(graph, made, random_raster(1, (60, 4, 5), 0.4))


@pytest.mark.parametrize("target", ["snntorch", "spikingjelly"])
def test_several_spikes_of_a_step_become_neurons_that_reset_each_other(target):
    # SpikingJelly takes one time constant for all.
    taus = np.array([4.0, 5.0, 6.0, 7.0]) if target == "snntorch" else 5.0
    graph = build.sequential(
        build.input(3),
        build.linear(4, weight=normal(0.8, 0.4)),
        build.lif(tau=taus),
        build.linear(2, weight=normal(0.2, 0.5)),
        build.integrate_and_fire(),
        seed=0,
        dialect="sinabs",
        norm_input=False,
    )
    x = random_raster(1, (60, 4, 3), 0.4)
    y = played(graph, x)
    assert y.max() > 1
    made = convert(graph, to=target)
    np.testing.assert_array_equal(played(made.graph, x), y)


def test_the_membrane_of_a_neuron_that_resets_is_refused():
    graph = build.sequential(
        build.input(3), build.linear(2), leaky(), seed=0, **SUBTRACTS | {"readout": "2"}
    )
    graph = read_with(graph, {"2": {"readout": True, "reset": "subtract"}})
    with pytest.raises(ConversionError, match="node '2' gives its membrane and resets"):
        convert(graph, to="snntorch")


def read_with(graph, nodes):
    import dataclasses

    return dataclasses.replace(graph, dialect=dataclasses.replace(graph.dialect, nodes=nodes))


def test_scale_is_written_as_weights():
    graph = build.sequential(
        build.input(3),
        build.linear(4, weight=normal(0.5, 0.6)),
        build.scale(np.array([1.0, 2.0, 0.5, 1.5])),
        leaky(),
        seed=0,
        **SUBTRACTS,
    )
    made = convert(graph, to="snntorch")
    assert "Scale" not in {node.type for node in made.graph.nodes.values()}
    same(graph, made, random_raster(1, (60, 4, 3), 0.4))


def test_scales_of_channels_are_written_as_weights():
    rng = np.random.default_rng(0)
    factor = np.broadcast_to(np.array([1.0, 2.0, 0.5])[:, None, None], (3, 8, 8))
    layers = (convolution(rng, 3, 2), build.scale(factor), leaky(), FLAT, build.linear(4), leaky())
    graph = image(*layers)
    made = convert(graph, to="snntorch")
    assert "Scale" not in {node.type for node in made.graph.nodes.values()}
    same(graph, made, random_raster(1, (30, 3, 2, 8, 8), 0.3))


def test_scales_within_a_channel_make_matrices():
    factor = np.ones((3, 8, 8))
    factor[1, 2:5, 3] = 2.0
    layers = (convolution(np.random.default_rng(0), 3, 2), build.scale(factor), leaky())
    graph = image(*layers, FLAT, build.linear(4), leaky())
    made = convert(graph, to="snntorch")
    assert {"Scale", "Conv2d"}.isdisjoint(node.type for node in made.graph.nodes.values())
    same(graph, made, random_raster(1, (30, 3, 2, 8, 8), 0.3))


def test_groups_are_written_as_one_for_spyx():
    rng = np.random.default_rng(0)
    first = convolution(rng, 4, 1, groups=2)
    graph = image(first, leaky(), FLAT, build.linear(4, weight=normal(0.01, 0.2)), leaky())
    made = convert(graph, to="spyx")
    assert np.shape(made.graph.nodes["1"].value("weight")) == (4, 2, 3, 3)
    same(graph, made, random_raster(1, (30, 3, 2, 8, 8), 0.3), shift=2)


LEVELS = {
    # of spikes, whose sums lie on the levels, and of what arrives first
    "counts": (
        build.linear(3, weight=np.ones((3, 3))),
        build.node("Threshold", threshold=[0, 1, 2]),
    ),
    "any": (
        build.linear(3, weight=np.ones((3, 3))),
        build.node("Threshold", threshold=0.5),
    ),
    "inputs": (
        build.node("Threshold", threshold=[-0.2, 0.3, 1.2]),
        build.linear(3, weight=normal(0.5, 0.4)),
    ),
    "small": (
        build.linear(3, weight=normal(0.0, 4e-10)),
        build.node("Threshold", threshold=[-2e-10, 0, 3e-10]),
        build.linear(3, weight=normal(0.5, 0.4)),
    ),
}


@pytest.mark.parametrize(
    ("target", "shift"), [("norse", 0), ("snntorch", 0), ("spikingjelly", 0), ("spyx", 2)]
)
@pytest.mark.parametrize("kind", LEVELS)
def test_a_threshold_is_written_as_neurons_that_keep_nothing(kind, target, shift):
    first = build.linear(3, weight=normal(0.3, 0.4)), leaky()
    of_spikes = kind in ("counts", "any")
    layers = [*first, *LEVELS[kind]] if of_spikes else [*LEVELS[kind], leaky()]
    graph = build.sequential(build.input(3), *layers, seed=3, **SUBTRACTS)
    made = convert(graph, to=target)
    assert made.losses == ()
    assert not any(node.type == "Threshold" for node in made.graph.nodes.values())
    same(graph, made, random_raster(1, (40, 3, 3), 0.4), shift=shift)


@pytest.mark.parametrize("target", ["norse", "snntorch", "spikingjelly"])
def test_a_threshold_of_membranes_is_written_as_neurons(target):
    layers = build.linear(3), build.li(tau=1e-2, r=1.0), build.node("Threshold", threshold=0.02)
    said = {"dialect": "norse", "dt": "1ms", "dt_export": 1.0}
    graph = build.sequential(build.input(4), *layers, seed=3, **said)
    same(graph, convert(graph, to=target), random_raster(1, (40, 3, 4), 0.4))


def test_a_threshold_of_pixels_makes_matrices_where_it_is_not_above_0():
    levels = build.node("Threshold", threshold=np.linspace(-0.3, 1.0, 128).reshape(2, 8, 8))
    kernels = [convolution(np.random.default_rng(seed), 2, 2) for seed in (0, 1)]
    graph = image(kernels[0], leaky(), kernels[1], levels, FLAT)
    same(graph, convert(graph, to="norse"), random_raster(1, (20, 3, 2, 8, 8), 0.3))


def test_a_threshold_is_refused_where_neurons_fire_several_spikes():
    levels = build.node("Threshold", threshold=0.5)
    layers = [
        build.linear(3),
        build.cubalif(tau_mem=0.01, tau_syn=0.01, r=10 * np.exp(-0.1)),
        levels,
    ]
    graph = build.sequential(build.input(4), *layers, seed=3, dialect="rockpool", dt="1ms")
    with pytest.raises(ConversionError, match="node '3' is a Threshold"):
        convert(graph, to="rockpool")


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
    y, got = played(graph, x), played(convert(graph, to=target).graph, x)
    late = int(source == "spyx")
    assert 0.05 < y.mean() < 0.9
    np.testing.assert_array_equal(got[: len(y) - late], y[late:])


def test_thresholds_without_a_small_common_multiple_scale_to_the_first():
    assert common_level(np.array([0.5, 0.75, 2.0])) == 6.0
    assert common_level(np.arange(1.0, 13.0)) == 27720.0
    assert common_level(np.array([0.3, 0.7, 0.9])) == 0.3
    assert common_level(np.arange(1.0, 40.0)) == 1.0


@pytest.mark.parametrize("target", ["snntorch", "spikingjelly"])
def test_many_spikes_in_a_step_meet_the_levels_that_they_are_counted_by(target):
    """Up to 10 spikes in a step are those of 11 neurons, whose thresholds are 1 to 11 times one."""
    weights = np.random.default_rng(2).integers(-1, 4, (6, 5))
    neurons = build.integrate_and_fire(r=1.0, v_threshold=np.array([1, 1.5, 2, 0.75, 2, 1]))
    layers = build.linear(6, weight=weights.astype(float)), neurons
    meant = {"dialect": "sinabs", "dt": "1ms", "reset": "subtract"}
    graph = build.sequential(build.input(5), *layers, **meant)
    x = random_raster(2, (60, 12, 5), 0.35)
    made = convert(graph, to=target)
    y = played(graph, x)
    assert y.max() > 8
    np.testing.assert_array_equal(played(made.graph, x), y)
    assert not any("float32" in note for note in made.notes)


@pytest.mark.parametrize(
    ("thresholds", "weight", "r", "target", "told"),
    [
        ([1.0, 1.5], 1.0, 2.0, "norse", True),  # by 1/3
        ([1.0, 2.0], 1.0, 2.0, "norse", False),
        ([1.0, 2.0], 1.0, 5.0, "norse", True),  # by 0.8, which a membrane keeps
        ([1.0, 1.5], np.pi / 9, 2.0, "norse", False),  # sums of which meet no threshold
        ([0.3, 0.3], 0.3, 5.0, "norse", True),
        (np.arange(1.0, 40.0), 1.0, 2.0, "snntorch", True),
        (np.arange(1.0, 10.0), 1.0, 5.0, "snntorch", False),
    ],
)
@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_it_is_noted_where_scaling_rounds_sums_that_meet_a_threshold(
    reset, thresholds, weight, r, target, told
):
    neurons = build.lif(tau=1e-4 * r, r=r, v_threshold=np.array(thresholds))
    layers = build.linear(len(thresholds), weight=np.full((len(thresholds), 3), weight)), neurons
    meant = SUBTRACTS | {"reset": reset, "reset_delay": reset == "subtract"}
    made = convert(build.sequential(build.input(3), *layers, **meant), to=target)
    told = told and (reset == "subtract" or r == 5.0 or target == "snntorch")
    notes = [note for note in made.notes if note.startswith("node '2': ")]
    assert any("float32" in note and "rounds" in note for note in notes) == told


@pytest.mark.parametrize(
    ("weight", "bias", "target", "noted"),
    [
        (0.1, 0.0, "norse", True),
        (0.3, 0.0, "spikingjelly", True),
        (0.5, 0.0, "norse", False),
        (1.0, 0.1, "norse", True),  # which ten steps add up to v_threshold
        (1.0, 0.25, "norse", False),
        (np.pi / 9, np.pi / 99, "norse", False),  # sums of which meet no threshold
        (0.1, 0.0, "snntorch", False),  # where nothing changes
    ],
)
@pytest.mark.parametrize("flattened", [False, True])
def test_decimal_weights_and_biases_are_noted(flattened, weight, bias, target, noted):
    """float32 rounds them, so that the order of all operations decides about sums that meet a threshold."""
    neurons = build.lif(tau=2e-4, r=2.0, v_threshold=1.0)
    if flattened:
        kernel = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "bias": np.full(2, bias)}
        layers = build.node("Conv2d", weight=np.full((2, 1, 3, 3), weight), **kernel), FLAT, neurons
        graph = build.sequential(build.input((1, 6, 6)), *layers, **SUBTRACTS)
    else:
        weights = build.affine(weight=np.full((3, 4), weight), bias=np.full(3, bias))
        graph = build.sequential(build.input(4), weights, neurons, **SUBTRACTS)
    notes = [note for note in convert(graph, to=target).notes if "meets v_threshold" in note]
    assert bool(notes) is noted
    assert not noted or f"such as {bias or weight:g}," in notes[0]


@pytest.mark.parametrize(("side", "noted"), [(2, False), (3, True)])
def test_averages_that_float32_rounds_are_noted(side, noted):
    pool = build.node("AvgPool2d", kernel_size=side, stride=side, padding=0)
    size = (6 // side) ** 2
    graph = build.sequential(
        build.input((1, 6, 6)),
        pool,
        FLAT,
        build.linear(weight=np.ones((3, size))),
        build.lif(tau=2e-4, r=2.0),
        **SUBTRACTS,
    )
    notes = convert(graph, to="norse").notes
    assert any("'4'" in note and "'1'" in note for note in notes) is noted


def delayed(late, **said):
    """Neurons behind synapses that are late by so many steps of 1 ms."""
    layers = [build.linear(4, weight=normal(0.3, 0.5)), build.node("Delay", delay=late)]
    neurons = build.lif(tau=4e-3, r=1.0, v_threshold=0.1)
    last = build.linear(3, weight=normal(0.3, 0.5)), neurons
    meant = {"dialect": "norse", "dt": "1ms", "dt_export": 1.0} | said
    return build.sequential(build.input(4), *layers, neurons, *last, seed=3, **meant)


@pytest.mark.parametrize("target", ["norse", "snntorch", "spikingjelly"])
@pytest.mark.parametrize("late", [1e-3, np.array([0.0, 3e-3, 1e-3, 3e-3])])
def test_delays_of_whole_steps_are_written_as_weights_that_feed_themselves(late, target):
    graph = delayed(late)
    made = convert(graph, to=target)
    assert not any(node.type == "Delay" for node in made.graph.nodes.values())
    same(graph, made, random_raster(1, (40, 3, 4), 0.3))


def test_delays_of_pixels_are_written_with_matrices():
    late = np.arange(50).reshape(2, 5, 5) % 3 * 1e-4
    layers = build.node("Delay", delay=late), convolution(np.random.default_rng(0), 2, 2), leaky()
    graph = build.sequential(build.input((2, 5, 5)), *layers, FLAT, seed=2, **SUBTRACTS)
    same(graph, convert(graph, to="snntorch"), random_raster(1, (30, 3, 2, 5, 5), 0.3))


def test_a_delay_of_no_steps_is_left_out_and_one_of_half_a_step_refused():
    made = convert(delayed(0.0), to="norse")
    assert len(made.graph.nodes) == len(delayed(0.0).nodes) - 1
    with pytest.raises(
        ConversionError, match=r"'2' \(Delay\) delays by 0.0005 s, which is 0.5 steps"
    ):
        convert(delayed(5e-4), to="norse")
    with pytest.raises(ConversionError, match="'2' is a Delay"):
        convert(delayed(1e-3), to="spyx")
    with pytest.raises(
        ConversionError, match=r"delays 4 channels by up to 1e\+303 steps, .* at most 8388608"
    ):
        convert(delayed(1e300), to="norse")


def test_spyx_gets_no_delay_of_no_steps():
    layers = build.linear(3, weight=normal(0.3, 0.4)), build.node("Delay", delay=0.0), leaky()
    graph = build.sequential(build.input(4), *layers, seed=3, **SUBTRACTS)
    same(graph, convert(graph, to="spyx"), random_raster(1, (40, 3, 4), 0.4), shift=1)


def test_a_refusal_names_what_is_wrong_with_matrices_too():
    late = np.full((2, 8, 8), 5e-5)
    kernels = [convolution(np.random.default_rng(seed), 2, 2) for seed in (0, 1)]
    graph = image(kernels[0], build.node("Delay", delay=late), kernels[1], leaky(), FLAT)
    both = r"node '2' is a Delay.* with matrices instead, node '2' .* 0\.5 steps .*; or choose a dt"
    with pytest.raises(ConversionError, match=both):
        convert(graph, to="norse")
    with pytest.raises(ConversionError, match=r"node '2' is a Delay") as refused:
        convert(graph, to="spyx")
    assert "matrices" not in str(refused.value)


@pytest.mark.parametrize("target", ["norse", "snntorch", "spikingjelly"])
def test_what_is_left_out_beside_an_edge_counts_as_another(target):
    """Of a Delay of no steps, and of Flattens that matrices make needless."""
    meant = {"dialect": "norse", "dt": "1ms", "dt_export": 1.0}
    nodes = {
        "input": build.input((2, 4, 4)),
        "kernel": convolution(np.random.default_rng(0), 2, 2),
        "a": build.lif(tau=4e-3, r=1.0, v_threshold=np.linspace(0.1, 0.4, 32).reshape(2, 4, 4)),
        "flat": FLAT,
        "flat too": FLAT,
        "now": build.node("Delay", delay=0.0),
        "w": build.linear(4, weight=normal(0.0, 0.05)),
        "b": build.lif(tau=4e-3, r=1.0, v_threshold=0.05),
        "output": build.output(),
    }
    ways = [("input", "kernel", "a", "flat", "w", "b", "output"), ("a", "flat too", "w")]
    graph = build.network(nodes, [*ways, ("flat", "now", "w")], seed=1, **meant)
    same(graph, convert(graph, to=target), random_raster(1, (30, 3, 2, 4, 4), 0.3))


@pytest.mark.parametrize("beside", [True, False])
def test_subtraction_at_another_time_within_a_loop(beside):
    # What a neuron gives itself back goes into the weights of its loop, unless they feed others, too.
    rng = np.random.default_rng(3)
    nodes = {
        "input": build.input(5),
        "w": build.linear(weight=rng.normal(0.3, 0.9, (6, 5))),
        "lif": leaky(),
        "loop": build.linear(weight=rng.normal(0, 0.3, (6, 6))),
        "last": leaky(),
        "output": build.output(),
    }
    ways = [("input", "w", "lif", "loop", "lif"), ("lif", "last", "output")]
    if beside:
        ways[1:] = [("loop", "last", "output")]
    graph = build.network(nodes, ways, **SUBTRACTS)
    made = convert(graph, to="spikingjelly", input_range=(0.0, 1.0))
    assert any("another step than the source" in change.why for change in made.changes)
    same(graph, made, random_raster(1, (60, 4, 5), 0.4))


def test_bounds_hold_what_lies_between_two_ends():
    rng = np.random.default_rng(0)
    gain, plus = rng.normal(size=50), rng.normal(size=50)
    ends = np.sort(rng.normal(size=(2, 50)), axis=0)
    low, high = _scale_bounds(gain, (ends[0], ends[1]), plus)
    within = gain * (ends[0] + rng.random((100, 50)) * (ends[1] - ends[0])) + plus
    assert np.all((low - 1e-12 <= within) & (within <= high + 1e-12))
    np.testing.assert_allclose(high - low, np.abs(gain) * (ends[1] - ends[0]))
