"""Quantisation: what the chip is told is the file's network, up to what the report says."""

import dataclasses
import itertools
import re

import jax.numpy as jnp
import nir
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsnn.bss2.chip import PARAMETERS
from jaxsnn.bss2.search.measured_slopes import slopes_of
from jaxsnn.bss2.search.quantize import QuantizeOptions, quantize
from jaxsnn.compatibility.checks import check
from jaxsnn.errors import JaxsnnError, MappingError, UsageError
from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.spikes import Events
from jaxsnn.nir import build, parse, read
from jaxsnn.simulation.simulate import simulate
from jaxsnn.units import parse_time
from jaxsnn.wording import Text
from tests.helpers.refusals import assert_refused
from tests.helpers.zoo import FACTS, options_of

NEURONS = {"tau_mem": 10e-3, "tau_syn": 5e-3}
#: Scales that use the full range, and a threshold 45 LSB above the leak.
MAX = {"scale": "max", "v_threshold": 125}


def one_layer(weight, options=None, **neurons):
    weight = np.asarray(weight, float)
    layers = build.linear(weight=weight), build.cubalif(**{**NEURONS, **neurons})
    return build.sequential(build.input(weight.shape[1]), *layers, **(options or {}))


def weights_of(done, shape):
    """The netlist's weights between its two populations as a matrix."""
    matrix = np.zeros(shape, int)
    matrix[done.netlist.post - shape[1], done.netlist.pre] = done.netlist.weight
    return matrix


def test_weights_are_rounded_half_away_from_zero_and_zeros_take_nothing():
    weight = np.array([[63.0, 1.5, -1.5, 0.5], [-62.49, 0.0, 0.49, -2.5]])
    done = quantize(one_layer(weight))
    assert weights_of(done, (2, 4)).tolist() == [[63, 2, -2, 1], [-62, 0, 0, -3]]
    report = vars(done.nodes["2"])
    counts = {"scale": 1.0, "connections": 7, "synapses": 6, "zeroed": 1, "saturated": 0}
    assert {name: report[name] for name in counts} == counts
    lost = np.array([0, 0.5, -0.5, 0.5, 0.49, -0.49, -0.5])
    assert report["rms_error"] == pytest.approx(np.sqrt(np.mean(lost**2)))


def test_half_precision_is_calculated_in_single():
    settings = {"dialect": "jaxsnn", "time_unit": "step", "dt": 1e-7}
    graph = one_layer([[0.75, 0.5], [1.25, -0.5]], settings, tau_mem=200.0, tau_syn=100.0)
    node = graph.nodes["2"]
    half, single = (
        quantize(
            graph.with_nodes(
                [node.replace(**{k: np.asarray(v, dtype) for k, v in node.parameters.items()})]
            )
        )
        for dtype in ("float16", "float32")
    )
    assert half.slope == pytest.approx(single.slope, rel=1e-6)
    assert half.netlist.weight.tolist() == single.netlist.weight.tolist()


@given(
    st.lists(st.floats(-100, 100).filter(lambda w: abs(w) > 1e-3), min_size=1, max_size=12),
    st.sampled_from(["balanced", "max", "percentile", "least-error"]),
    st.integers(1, 3),
)
def test_the_report_is_what_the_weights_lost(values, scale, parts):
    weight, limit = np.array([values]), 63 * parts
    options = QuantizeOptions(scale=scale, synapses_per_weight=parts, percentile=60)
    done = quantize(one_layer(weight), options)
    report, chip_weights = done.nodes["2"], weights_of(done, weight.shape)
    assert np.abs(chip_weights).max() <= limit
    assert report.rms_error == pytest.approx(
        np.sqrt(np.mean((chip_weights / report.scale - weight) ** 2)), rel=1e-6, abs=1e-9
    )
    assert report.saturated == np.sum(np.abs(weight * report.scale) >= limit + 0.5 - 1e-6)
    assert report.zeroed == np.sum(chip_weights == 0)
    assert report.synapses == np.sum(-(-np.abs(chip_weights) // 63))
    largest = quantize(one_layer(weight), QuantizeOptions(synapses_per_weight=parts)).nodes["2"]
    if scale in ("balanced", "max"):
        assert (report.saturated, np.abs(chip_weights).max()) == (0, limit)
    if scale == "least-error":
        assert report.rms_error <= largest.rms_error


def test_an_outlier_saturates_under_percentile():
    weight = np.concatenate([np.linspace(-1, 1, 200), [100.0]])[None, :]
    largest, percentile = (
        quantize(one_layer(weight), QuantizeOptions(scale=scale)).nodes["2"]
        for scale in ("max", "percentile")
    )
    assert largest.zeroed > 100
    assert percentile.saturated == 1
    assert percentile.zeroed < 10


def test_r_w_in_and_time_constants_of_each_neuron_are_folded_into_its_weights():
    tau = np.array([10e-3, 10e-3, 20e-3])
    gains = {"r": np.array([1.0, 2.0, 4.0]), "w_in": np.array([1.0, 0.5, 0.5])}
    graph = one_layer(np.full((3, 2), 10.0), **gains, tau_mem=tau)
    parameters = lower(graph).parameters["2"]
    # In this dialect, a spike makes I jump by w_in w.
    per_weight = np.asarray(parameters["r"]) * np.asarray(parameters["w_in"]) / tau
    assert graph.dialect.name == "jaxsnn"
    expected = np.rint(63 * per_weight / per_weight.max())
    assert weights_of(quantize(graph), (3, 2))[:, 0].tolist() == expected.tolist()


def spike_times(graph, times, t_end):
    """First spikes of its population in 64 bit; input channel i fires at times[i]."""
    events = Events(time=jnp.asarray(times)[None], index=jnp.arange(len(times))[None])
    return simulate(lower(graph, dtype=jnp.float64), events, t_end=t_end).first_spike("2")[0]


def test_the_chips_numbers_fire_when_the_files_do(x64):
    """The quantised network in LSB and chip time, simulated, against the file's: r, w_in, taus and
    leaks differ.
    """
    random = np.random.default_rng(3)
    size, channels = 6, 12
    neurons = {
        "tau_mem": random.uniform(8e-3, 16e-3, size),
        "tau_syn": random.uniform(3e-3, 7e-3, size),
        "r": random.uniform(0.8, 1.5, size),
        "w_in": random.uniform(0.5, 1.5, size),
        "v_leak": random.uniform(-0.2, 0.2, size),
    }
    neurons |= {"v_threshold": neurons["v_leak"] + 1.0, "v_reset": neurons["v_leak"]}
    weight = random.uniform(0.4, 1.4, (size, channels))
    graph = one_layer(weight, {"initial": "v_leak"}, **neurons)
    done = quantize(graph, QuantizeOptions(synapses_per_weight=200, v_threshold=125))
    chip = done.populations["2"]
    assert set(chip.v_threshold.tolist()) == {125}
    assert set(chip.v_reset.tolist()) == {80} == set(chip.v_leak.tolist())
    parameter_names = ("tau_mem", "tau_syn", "v_leak", "v_reset", "v_threshold")
    on_chip = {name: getattr(chip, name) for name in parameter_names}
    on_chip["r"] = done.slope * 1e6 * chip.tau_mem
    again = one_layer(weights_of(done, weight.shape), {"initial": "v_leak"}, **on_chip)
    times = np.sort(random.uniform(0, 20e-3, channels))
    expected = spike_times(graph, times, 60e-3)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(
        spike_times(again, times / done.speedup, 60e-3 / done.speedup) * done.speedup,
        expected,
        atol=5e-6,
    )


def two_layers(thresholds=(1.0, 1.0), **neurons):
    return build.sequential(
        build.input(4),
        build.linear(weight=np.ones((3, 4))),
        build.cubalif(**NEURONS, v_threshold=thresholds[0], **neurons),
        build.linear(weight=np.ones((2, 3))),
        build.cubalif(**NEURONS, v_threshold=thresholds[1], **neurons),
    )


LOWEST_RESET = PARAMETERS["v_reset"].low


@pytest.mark.parametrize(
    ("graph", "options", "levels"),
    [
        # All populations share one strength of an LSB: half as many weights, half the threshold.
        (two_layers(thresholds=(1.0, 2.25)), {}, {"2": 100, "4": 125}),
        # Resets below the leak lower all thresholds.
        (one_layer([[1.0]], v_reset=-2.0), {}, {"2": 95}),
        # Only 33.3 LSB are available: the slope of the chip is reduced, not the weights.
        (one_layer([[1.0, -0.5]], v_threshold=1.0, v_reset=-0.9), {}, {"2": 80 + 33}),
        # Scales are not chosen so that a reset falls below the range of the calibration.
        (
            two_layers(thresholds=(11.92, 11.92), v_reset=LOWEST_RESET - 140.0),
            {"v_leak": 140, "v_threshold": 185},
            {"2": 151, "4": 151},
        ),
        # Scales round a threshold up to an integer if no weight saturates: rounding 11.95 LSB down
        # would lose a twelfth of the range of the weights.
        (two_layers(thresholds=(45.0, 11.95)), {}, {"2": 125, "4": 80 + 12}),
        (two_layers(thresholds=(45.0, 11.5)), {}, {"2": 125, "4": 80 + 11}),
        (two_layers(thresholds=(45.0, 44.9)), {}, {"2": 125, "4": 80 + 45}),
    ],
)
def test_thresholds_are_as_far_from_the_leak_as_weights_say(graph, options, levels):
    done = quantize(graph, QuantizeOptions(**(MAX | options)))
    thresholds = {name: set(chip.v_threshold.tolist()) for name, chip in done.populations.items()}
    assert thresholds == {name: {level} for name, level in levels.items()}
    assert min(chip.v_reset.min() for chip in done.populations.values()) >= LOWEST_RESET


def test_the_lowest_reset_is_used():
    done = quantize(one_layer([[1.0]], v_reset=-2.0))
    assert done.populations["2"].v_reset.tolist() == [50]


def test_time_runs_a_thousand_times_faster_or_says_how_fast():
    done = quantize(one_layer(np.ones((1, 1))))
    assert (done.speedup, done.populations["2"].tau_mem[0]) == (1000.0, pytest.approx(10e-6))
    assert quantize(one_layer(np.ones((1, 1)), tau_mem=5.0)).speedup == pytest.approx(2500)


# -- biases


def biased(bias=(0.0, 0.25)):
    weight = np.array([[1.0, 2.0], [0.5, 1.0]])
    layer = build.affine(weight=weight, bias=np.array(bias))
    return build.sequential(build.input(2), layer, build.cubalif(**NEURONS))


def test_biases_become_a_regular_source():
    done = quantize(biased(), QuantizeOptions(bias="source"))
    sizes = {part.name: part.size for part in done.netlist.populations}
    assert (sizes, done.bias_source) == ({"input": 2, "bias": 1, "2": 2}, "bias")
    # A weight w with period T is on average a current of w tau_syn / T.
    (place,) = np.flatnonzero(done.netlist.pre == 2)
    expected = 0.25 * (done.bias_period * done.speedup) / NEURONS["tau_syn"]
    assert done.netlist.post[place] == 4
    assert done.netlist.weight[place] == round(expected * done.nodes["2"].scale)
    quantize(biased(), QuantizeOptions(bias="source", bias_period=149e-6))  # the maximum


@pytest.mark.parametrize(("period", "kicks"), [(1e-6, False), (30e-6, True)])
def test_how_often_the_source_of_biases_fires_is_said(period, kicks):
    done = quantize(biased(), QuantizeOptions(bias="source", bias_period=period))
    (note,) = (note for note in done.notes if note.node == "bias")
    share = period * done.speedup / NEURONS["tau_syn"]
    assert f"every {1e6 * period:.0f} us of chip time, {share:.0%} of the shortest" in note.what
    assert ("single spikes" in note.what) is (share > 1) is kicks
    assert "generate these events" in note.why


@pytest.mark.parametrize("bias", ["refuse", "leak", "source"])
def test_biases_of_0_need_no_source(bias):
    assert quantize(biased((0.0, 0.0)), QuantizeOptions(bias=bias)).bias_source is None


# -- notes and refusals


def lif(weights, bias=None, **neurons):
    layer = build.affine(weight=weights, bias=np.zeros(1) if bias is None else bias)
    cell = build.lif(tau=10e-3, **neurons)
    return build.sequential(build.input(len(weights[0])), layer, cell, spike_kernel="delta")


#: One weight reaches the threshold alone. r doubles the bias, which is not counted.
LOSES = lif([[1.1, 0.9, -2.0]], [3.0], r=2.0, v_threshold=2.2, v_leak=0.2)
#: A network, options, and words of one of its notes.
NOTED = [
    (one_layer(np.ones((1, 1)), tau_mem=5.0), {}, "2500 times"),
    (one_layer(np.ones((1, 1)), tau_mem=0.1), {}, "tau_mem is 100 us on the chip, above 60 us"),
    (two_layers(thresholds=(1.0, 10.0)), MAX, "4.5 LSB from its leak"),
    (lif([[1.0]]), {}, "input of LIF; its tau_syn is 300 us"),
    (
        LOSES,
        {"bias": "source"},
        "Weights of which one spike alone reaches the threshold: 1 of 3",
    ),
]


def starting(initial, **neurons):
    """A neuron that begins at some voltage; a readout, if it has no reset."""
    cell = (build.cubalif if "v_reset" in neurons else build.cubali)(**NEURONS, **neurons)
    layers = build.input(1), build.linear(weight=np.ones((1, 1))), cell
    return build.sequential(*layers, initial=initial)


def small_biases():
    """Of 0.1, 0.2 and 0.3: weights in LSB are 63 / 5 of them times the period over tau_syn."""
    layer = build.affine(weight=np.full((3, 2), 5.0), bias=[0.1, 0.2, 0.3])
    return build.sequential(build.input(2), layer, build.cubalif(**NEURONS))


AT_LEAK = "its membrane starts at v_leak"
#: Of a neuron that is reset 0.3 V below its leak, 4 us of the chip before the sample.
AFTER_RESET = (
    "with grenade of 13 March 2026 or later, its membrane starts up to "
    f"{0.3 * np.exp(-4e-3 / NEURONS['tau_mem']):.3g} V from where it rests, towards v_reset"
)
#: A network, options, words of notes, and all notes that contain them.
NOTES = [
    (starting("zero", v_leak=0.3, v_reset=0.3), {}, "starts", [AT_LEAK]),
    (starting("zero", v_leak=0.3, v_reset=0.0), {}, "starts", [AT_LEAK, AFTER_RESET]),
    (starting("v_leak", v_leak=0.3, v_reset=0.0), {}, "starts", [AFTER_RESET]),
    (starting("v_reset", v_leak=0.3, v_reset=0.0), {}, "starts", [AT_LEAK, AFTER_RESET]),
    (starting("v_leak", v_leak=0.3, v_reset=0.3), {}, "starts", []),
    (starting("zero", v_leak=0.3), {}, "starts", [AT_LEAK]),
    (starting("v_leak", v_leak=0.3), {}, "starts", []),
    (starting("zero", v_leak=0.0), {}, "starts", []),
    (
        one_layer([[1e6, 1.0], [1.0, 1.0]]),
        {},
        "round to 0",
        ["weights that round to 0: 3 of 4; neurons that no spike reaches: 1 (1)"],
    ),
    (one_layer([[1e6, 1.0], [1.0, 1e5]]), {}, "round to 0", ["weights that round to 0: 2 of 4"]),
    (one_layer([[1e6, 0.0], [1e5, 1e5]]), {}, "round to 0", []),
    *(
        (small_biases(), {"bias": "source", "bias_period": period}, "biases that round to 0", notes)
        for period, notes in (
            (100e-9, ["biases that round to 0: 3 of 3"]),
            (1e-6, ["biases that round to 0: 1 of 3"]),
            (5e-6, []),
        )
    ),
    (biased((0.0, 0.0)), {"bias": "refuse"}, "bias", []),
    (biased((0.0, 0.0)), {"bias": "source"}, "bias", ['bias="source" has no effect']),
    (two_layers(), {}, "rounding changes", []),
]


@pytest.mark.parametrize(("graph", "options", "words", "expected"), NOTES)
def test_what_the_chip_changes_is_noted(graph, options, words, expected):
    notes = quantize(graph, QuantizeOptions(**options)).notes
    assert [note.what for note in notes if words in note.what] == expected


@pytest.mark.parametrize(("period", "lost"), [(100e-9, 3), (1e-6, 1), (5e-6, 0)])
def test_biases_that_round_to_zero_take_no_synapse(period, lost):
    net = quantize(small_biases(), QuantizeOptions(bias="source", bias_period=period)).netlist
    assert np.sum(net.pre == 2) == 3 - lost


@pytest.mark.parametrize(("graph", "options", "text"), NOTED)
def test_a_note_comes_for_its_network_alone(graph, options, text):
    notes = quantize(graph, QuantizeOptions(**options)).notes
    assert sum(text in note.what for note in notes) == 1
    assert not any(text in note.what for note in quantize(two_layers()).notes)


ONE = one_layer(np.ones((1, 1)))
SLOW = one_layer(np.ones((1, 1)), tau_mem=5.0)
#: A network, options, the node, and a pattern of the refusal.
REFUSED = [
    (two_layers(thresholds=(1.0, 150.0)), MAX, "2", r"neuron 0 is 0\.3 LSB"),
    (SLOW, {"speedup": 1000.0}, None, "speedup is 1000; tau_mem 5 s of '2' .* 2500"),
    (one_layer(np.ones((1, 1)), tau_mem=5.0, tau_syn=1e-7), {}, None, "too far apart"),
    (biased(), {}, "2", "biases .1 of 2 neurons"),
    # The effect of an event has decayed when the next event arrives, 10 (tau_mem + tau_syn) later.
    (biased(), {"bias": "source", "bias_period": 2.0}, "2", "2 s .* within 150 us"),
    *(
        (one_layer(np.array([[w, -w]])), {}, "2", "outside the range of floating-point numbers")
        for w in (1e-308, 1e308)
    ),
    (two_layers(v_reset=-100.0), {}, None, "100 V .* 1 V"),
]
#: Options that are invalid for every network.
WRONG = [
    ({"scale": "min"}, "no scale 'min'"),
    ({"bias": "drop"}, "bias is 'drop'"),
    ({"percentile": 0.0}, "percentile is 0"),
    ({"synapses_per_weight": 0}, "synapses_per_weight is 0"),
    ({"v_threshold": 221}, "v_threshold is 221; .* 50 to 220"),
    ({"v_threshold": 80}, "v_threshold 80 is not above v_leak 80"),
    ({"refractory_time": 1.0}, "refractory_time is 1"),
    ({"refractory_time": 39e-9}, "refractory_time is 3.9e-08 s; .* 40 ns to 32 us"),
    ({"speedup": 0.0}, "speedup is 0"),
    ({"speedup": "1000"}, "speedup is '1000'"),
    ({"scale": 5.0}, "no scale '5'"),
    ({"scale": {"2": "3"}}, "scale of population '2' is '3'"),
    ({"bias_period": -1e-6}, "bias_period is -1e-06 s; .* 8 ns"),
    ({"bias_period": float("nan")}, "bias_period is nan"),
    ({"synapses_per_weight": 1.5}, "synapses_per_weight is 1.5"),
    ({"v_leak": 80.5}, "v_leak is 80.5"),
    ({"slope": "0.1"}, "slope is '0.1'"),
    ({"slope": ()}, r"slope is \(\)"),
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("graph", "options", "node", "says"), REFUSED)
def test_a_network_that_does_not_fit_is_refused(graph, options, node, says):
    settings = QuantizeOptions(**options)
    assert_refused(lambda: quantize(graph, settings), MappingError, says, node=node)


@pytest.mark.parametrize(("options", "says"), WRONG)
def test_options_are_checked(options, says):
    assert_refused(lambda: quantize(ONE, QuantizeOptions(**options)), UsageError, says)


def assert_alike(first, second):
    """Fail unless two quantised networks are the same on the chip."""
    assert first.slope == pytest.approx(second.slope, rel=1e-12)
    np.testing.assert_array_equal(first.netlist.weight, second.netlist.weight)
    for name, population in first.populations.items():
        for voltages in ("v_leak", "v_threshold", "v_reset"):
            expected = getattr(second.populations[name], voltages)
            np.testing.assert_array_equal(getattr(population, voltages), expected)


@pytest.mark.parametrize("v_reset", [0.0, -0.9, -2.3])
@pytest.mark.parametrize("scale", ["balanced", "max", "least-error"])
def test_the_scales_that_were_found_give_the_same_again(v_reset, scale):
    """Also where a reset, 30 LSB below the leak at most, leaves a threshold 33.3 or 13.04 LSB."""
    random = np.random.default_rng(0)
    weights = random.normal(0.5, 1, (6, 4)), random.normal(0.2, 0.5, (3, 6))
    neurons = build.cubalif(**NEURONS, v_reset=v_reset)
    layers = [part for weight in weights for part in (build.linear(weight=weight), neurons)]
    graph = build.sequential(build.input(4), *layers)
    first = quantize(graph, QuantizeOptions(scale=scale))
    scales = {name: report.scale for name, report in first.nodes.items()}
    assert_alike(quantize(graph, QuantizeOptions(scale=scales)), first)
    quantized_nodes = [
        graph.nodes[node].replace(weight=weights_between(first, place) / scales[name])
        for place, (node, name) in enumerate((("1", "2"), ("3", "4")))
    ]
    assert_alike(quantize(graph.with_nodes(quantized_nodes), QuantizeOptions(scale=scales)), first)


def weights_between(done, place):
    """(neurons, neurons) whole weights between a population and the next."""
    net = done.netlist
    matrix = np.zeros((net.size, net.size))
    matrix[net.post, net.pre] = net.weight
    begin, middle, end = net.offsets[place : place + 3]
    return matrix[middle:end, begin:middle]


@pytest.mark.parametrize(
    ("graph", "weights"),
    [
        (one_layer([[1.0, -0.5]], v_threshold=1.0, v_reset=-0.9), [63, -32]),
        (two_layers(thresholds=(45.0, 11.95)), [63] * 6),
        (two_layers(thresholds=(45.0, 11.5)), [60] * 6),
        (two_layers(thresholds=(45.0, 44.9)), [63] * 6),
    ],
)
def test_scales_follow_thresholds_and_no_weight_saturates(graph, weights):
    done = quantize(graph, **MAX)
    last = list(done.nodes.values())[-1]
    assert done.netlist.weight[-len(weights) :].tolist() == weights
    assert last.threshold_error == pytest.approx(0.0, abs=1e-9)
    assert last.saturated == 0


def graph_of(nodes, edges=None):
    node_names = list(nodes)
    return parse(
        nir.NIRGraph(nodes, edges or list(itertools.pairwise(node_names)), type_check=False),
        dialect="jaxsnn",
        time_unit="s",
    )


def cuba(size, kind=nir.CubaLIF, **changes):
    ones = np.ones(size)
    values = {"tau_mem": 0.01 * ones, "tau_syn": 0.005 * ones, "r": ones, "v_leak": 0 * ones}
    if kind is nir.CubaLIF:
        values["v_threshold"] = ones
    return kind(**{**values, **changes})


INPUT, OUTPUT = nir.Input(np.array([2])), nir.Output(np.array([2]))


LINEAR, READOUT = nir.Linear(np.eye(2)), cuba(2, nir.CubaLI)
IF, THRESHOLD = nir.IF(np.ones(2), np.ones(2)), nir.Threshold(np.ones(2))


@pytest.mark.parametrize(
    ("nodes", "node", "code", "reason"),
    [
        (
            {"d": nir.Delay(np.ones(2)), "n": cuba(2)},
            "d",
            "unsupported-node",
            "the chip does not delay spikes",
        ),
        ({"n": IF}, "n", "unsupported-node", "does not leak"),
        ({"t": THRESHOLD, "n": cuba(2)}, "t", "unsupported-node", ""),
        ({"n": cuba(2, r=np.array([1.0, -1.0]))}, "n", "bad-gain", "neuron 1"),
        ({"n": cuba(2), "l": LINEAR}, "o", "no-population", "'l'"),
        ({"a": READOUT, "l": LINEAR, "n": cuba(2)}, "a", "analog-source", "'l'"),
    ],
)
def test_what_the_chip_cannot_run_is_refused_by_name(nodes, node, code, reason):
    graph = graph_of({"i": INPUT, **nodes, "o": OUTPUT})
    assert_refused(lambda: quantize(graph), MappingError, reason, node=node, code=code)


def test_sparse_weights_are_mapped_as_dense_ones_and_their_delays_are_refused():
    matrix = np.array([[0.0, 2.0], [0.0, 1.0], [1.0, -3.0]])
    post, pre = np.nonzero(matrix)
    edges = {"pre": pre, "post": post, "weight": matrix[post, pre]}

    def graph_of_weight(weight):
        neurons = build.cubalif(**NEURONS)
        return build.sequential(build.input(2), build.linear(3, weight=weight), neurons)

    sparse, dense = (
        quantize(graph_of_weight(weight)).netlist for weight in (build.Edges(**edges), matrix)
    )
    for field in ("pre", "post", "weight"):
        np.testing.assert_array_equal(getattr(sparse, field), getattr(dense, field))
    delayed = graph_of_weight(build.Edges(**edges, delay=1e-3))
    assert_refused(lambda: quantize(delayed), MappingError, "does not delay spikes", node="1")


def test_resets_by_subtraction_are_refused():
    weight, neurons = build.linear(weight=np.ones((1, 1))), build.cubalif(**NEURONS)
    graph = build.sequential(build.input(1), weight, neurons, reset="subtract")
    fix = 'pass reset={"2": "zero"} or approximate=True to map it with a reset to v_reset, or readout="2"'
    problem = assert_refused(lambda: quantize(graph), MappingError, node="2", code="reset", fix=fix)
    assert (
        problem.as_text().count(
            "--reset 2:zero or --approximate to map it with a reset to v_reset, or --readout 2"
        )
        == 1
    )
    readout = build.sequential(build.input(1), weight, neurons, readout=["2"])
    assert not quantize(readout).populations["2"].fires
    # The same as an argument, for a graph that is not read again.
    assert not quantize(graph, readout=["2"]).populations["2"].fires
    for reset in ("zero", {"2": "zero"}, "2:zero"):
        quantized = quantize(graph, reset=reset)
        assert quantized.populations["2"].fires
        assert quantized.approximated_resets == ()


def test_resets_by_subtraction_are_approximated_if_that_is_allowed():
    weight, neurons = build.linear(weight=np.ones((1, 1))), build.cubalif(**NEURONS)
    graph = build.sequential(build.input(1), weight, neurons, reset="subtract")
    approximated, zero = quantize(graph, approximate=True), quantize(graph, reset="zero")
    assert approximated.approximated_resets == ("2",)
    assert approximated.notes[0].node == "2"
    assert approximated.notes[1:] == zero.notes
    np.testing.assert_array_equal(approximated.netlist.weight, zero.netlist.weight)
    for name in ("v_threshold", "v_reset", "v_leak"):
        first, second = (getattr(net.populations["2"], name) for net in (approximated, zero))
        np.testing.assert_array_equal(first, second)
    assert quantize(zeroed := graph.with_dialect(graph.dialect), reset="zero").notes == zero.notes
    assert zeroed.dialect.reset == "subtract"


def test_options_may_be_passed_by_name():
    neurons = build.cubalif(**NEURONS)
    graph = build.sequential(
        build.input(1), build.affine(weight=np.ones((1, 1)), bias=0.1), neurons
    )
    by_name = quantize(graph, bias="source")
    assert by_name.bias_source == quantize(graph, QuantizeOptions(bias="source")).bias_source
    assert_refused(lambda: quantize(graph, bais="source"), UsageError, "no option 'bais'")


def test_order_recurrence_and_fan_in_sums():
    nodes = {
        "in": INPUT,
        "a": nir.Linear(np.array([[1.0, 0.0], [0.0, 1.0]])),
        "skip": nir.Linear(np.array([[1.0, 0.0], [0.0, -0.5]])),
        "n": cuba(2),
        "rec": nir.Linear(np.array([[0.0, 1.0], [-1.0, 0.0]])),
        "out": OUTPUT,
    }
    edges = [
        ("in", "a"),
        ("in", "skip"),
        ("a", "n"),
        ("skip", "n"),
        ("n", "rec"),
        ("rec", "n"),
        ("n", "out"),
    ]
    net = quantize(graph_of(nodes, edges)).netlist
    assert [(part.name, part.external) for part in net.populations] == [("in", True), ("n", False)]
    synapses = list(zip(net.post.tolist(), net.pre.tolist(), net.weight.tolist(), strict=True))
    assert synapses == [(2, 0, 63), (2, 3, 32), (3, 1, 16), (3, 2, -32)]
    assert [part.tolist() for part in net.recurrent_components()] == [[2, 3]]


def refusal(graph, **options):
    """Why quantize refuses a graph, or None."""
    try:
        quantize(graph, QuantizeOptions(**options))
    except JaxsnnError as error:
        return str(error)
    return None


def test_check_and_quantize_agree_on_the_zoo(zoo):
    """`check --for bss2` calls a file fine exactly where quantize takes it, whether all is told or
    nothing.
    """
    fine = {"refuse": 0, "source": 0}
    for name, path in zoo.items():
        for graph in (read(path), read(path, dialect=FACTS[name]["framework"], **options_of(name))):
            problems = check(graph, "bss2").problems
            codes = {problem.code for problem in problems if problem.severity == "error"}
            for bias, errors in (("refuse", codes), ("source", codes - {"bias"})):
                reason = refusal(graph, bias=bias)
                assert (reason is None) == (not errors), (name, bias, reason, errors)
                assert "\n" not in str(reason)
                fine[bias] += reason is None
    assert fine["source"] > 30 > fine["refuse"] > 0


def strengths(weight):
    """A neuron with one synapse."""
    return one_layer([[weight]])


def test_thresholds_follow_from_the_slope_that_was_measured():
    """dV/dt of one LSB is the slope: a weight w needs (threshold in LSB) / (threshold in V) x w /
    tau_mem per second of the file, 1000 times as much on the chip.
    """
    needed = quantize(strengths(1.5), **MAX).slope
    assert needed == pytest.approx(45 / 1.0 * 1.5 / 63 / 10e-3 * 1000 * 1e-6)
    weak, strong = (
        quantize(strengths(1.5), QuantizeOptions(slope=factor * needed, **MAX))
        for factor in (1 / 3, 3)
    )
    assert weak.slope == pytest.approx(needed / 3)
    assert [done.populations["2"].v_threshold[0] for done in (weak, strong)] == [80 + 15, 125]
    assert [done.netlist.weight.tolist() for done in (weak, strong)] == [[63], [21]]
    assert any("use 33% of the integer range" in str(note) for note in strong.notes)


def test_a_slope_that_is_too_weak_is_refused_with_the_number():
    needed = quantize(strengths(1.5), **MAX).slope
    problem = assert_refused(
        lambda: quantize(strengths(1.5), QuantizeOptions(slope=needed / 10, **MAX)),
        MappingError,
        r"4\.5 CADC LSB .* at least 0\.019",
    )
    assert "--synapses-per-weight 2 or --speedup 557" in problem.as_text()
    quantize(strengths(1.5), QuantizeOptions(slope=needed * 8.01 / 45, **MAX))


@pytest.mark.parametrize("delta", [False, True])
@pytest.mark.parametrize("factor", [1.0, 1.9, 5.9, 60.0, 1e3, 1e8])
def test_what_is_advised_of_a_slope_that_is_too_weak_is_enough(factor, delta):
    """A delta is the chip's shortest current: it is as strong at any speedup."""
    population = build.lif(tau="10ms") if delta else build.cubalif(**NEURONS)
    layers = [build.linear(weight=np.array([[weight]])) for weight in (1.5, 0.9)]
    graph = build.sequential(build.input(1), layers[0], population, layers[1], population)
    options = QuantizeOptions(slope=quantize(graph, **MAX).slope * 8 / 45 / factor * 0.99, **MAX)
    with pytest.raises(MappingError) as refused:
        quantize(graph, options)
    number = r"(synapses_per_weight|speedup|slope)(?:=| of )([\d.e-]+)"
    advised = dict(re.findall(number, str(refused.value)))
    assert ("speedup" in advised) == (factor < 6 and not delta)
    assert ("synapses_per_weight" in advised) == (factor < 500)
    for name, value in advised.items():
        kind = int if name == "synapses_per_weight" else float
        quantize(graph, dataclasses.replace(options, **{name: kind(value)}))


def test_a_table_of_slopes_gives_the_setting(tmp_path):
    path = tmp_path / "slopes.json"
    path.write_text(
        '[{"slope": 0.005, "i_synin_gm": 300}, {"slope": 0.04, "i_synin_gm": 700},'
        ' {"slope": 0.2, "i_synin_gm": 800, "synapse_dac_bias": 1000}]'
    )
    steep, flat = (  # they need 0.107 and 0.021
        quantize(strengths(weight), QuantizeOptions(slope=slopes_of(str(path)), **MAX))
        for weight in (1.5, 0.3)
    )
    assert (steep.measured.i_synin_gm, steep.measured.synapse_dac_bias) == (800, 1000)
    assert (flat.measured.i_synin_gm, flat.slope) == (700, pytest.approx(0.04))
    assert slopes_of("0.1") == 0.1
    assert quantize(strengths(1.5), QuantizeOptions(slope=0.1)).measured.slope == 0.1


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("[]", MappingError, "has no list"),
        ('[{"slope": "much"}]', MappingError, "'slope' is not a number"),
        ('[{"slope": true}]', MappingError, "'slope' is not a number"),
        ('[{"i_synin_gm": 5}]', MappingError, "has no 'slope'"),
        ('[{"slope": 1, "i_synin_gm": 5.5}]', MappingError, "not an integer"),
        ("{", MappingError, "is not JSON"),
        ("steep", UsageError, "'steep'"),
        ("-1", UsageError, "-1"),
        ('[{"slope": 0.1, "i_synin_gm": 900}]', UsageError, "i_synin_gm is 900; .* 30 to 800"),
        (f'[{{"slope": 1{400 * "0"}}}]', MappingError, "401 digits"),
        (
            '[{"slope": 0.1}, {"slope": 0.2, "i_synin_gm": 500}]',
            UsageError,
            "2 slopes .* i_synin_gm 500 and synapse_dac_bias 600",
        ),
    ],
)
def test_what_is_no_table_of_slopes_is_refused(text, error, message, tmp_path):
    path = tmp_path / "slopes.json"
    path.write_text(text)
    slope = str(path) if text[0] in "[{" else text
    graph = strengths(1.5)
    assert_refused(lambda: quantize(graph, QuantizeOptions(slope=slopes_of(slope))), error, message)


@pytest.mark.parametrize("number", [3, 3.0, np.float32(3), np.int64(3)])
def test_a_scale_is_one_whatever_kind_of_number_it_is(number):
    done = quantize(one_layer(np.array([[20.0, -7.0]])), QuantizeOptions(scale={"2": number}))
    assert done.nodes["2"].scale == 3.0
    np.testing.assert_array_equal(done.netlist.weight, [60, -21])


def test_a_threshold_that_rounding_moves_by_much_is_noted():
    done = quantize(two_layers(thresholds=(1.0, 0.0757)), **MAX)
    error = done.nodes["4"].threshold_error
    assert error > 0.01
    assert any(f"from the leak by {error:.1%}" in note.what for note in done.notes)


def test_weights_whose_squares_are_no_numbers_are_reported():
    report = quantize(one_layer(np.array([[1e200, 3e199]]))).nodes["2"]
    assert 0 < report.relative_error < 0.01


@pytest.mark.parametrize("slope", [None, 0.06])
def test_scales_are_chosen_so_that_thresholds_are_whole_lsb(slope):
    graph = two_layers(thresholds=(1.0, 0.357))
    done = quantize(graph, QuantizeOptions(slope=slope, **MAX))
    hidden, last = done.nodes["2"], done.nodes["4"]
    assert [hidden.threshold_error, last.threshold_error] == pytest.approx([0.0, 0.0], abs=1e-9)
    assert not any("rounded by" in note.what for note in done.notes)
    # All populations share one strength of an LSB: thresholds in LSB are distances times scales.
    first, second = (
        done.populations[name].v_threshold[0] - done.populations[name].v_leak[0] for name in "24"
    )
    assert second / first == pytest.approx(0.357 * last.scale / hidden.scale, rel=1e-9)
    assert last.saturated == 0
    # An explicit scale does not change.
    scales = {"2": 0.99 * hidden.scale, "4": 0.99**2 * last.scale}
    again = quantize(graph, slope=slope, scale=scales, v_threshold=125).nodes["4"]
    assert again.scale == scales["4"]
    assert again.threshold_error > 1e-3


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"scale": "min"}, {"scale": "min"}),
        ({"percentile": 0.0}, {"value": 0.0}),
        ({"v_leak": 49}, {"value": 49, "minimum": 50, "maximum": 160}),
        ({"v_threshold": 80}, {"v_threshold": 80, "v_leak": 80}),
        ({"scale": {"2": "3"}}, {"node": "2", "value": "3"}),
        ({"slope": -1.0}, {"value": -1.0}),
    ],
)
def test_a_refused_option_has_its_value_and_limits_as_facts(options, facts):
    call = lambda: quantize(ONE, QuantizeOptions(**options))  # noqa: E731
    assert assert_refused(call, UsageError).facts == facts


def test_approximations_have_their_numbers_as_facts():
    graph = lif([[1.0]])
    facts = [change.what.facts for change in quantize(graph).notes if isinstance(change.what, Text)]
    assert {"speedup": 1000.0} in facts
    assert any(entry.get("tau_syn") == parse_time("300us") for entry in facts)
    assert any(entry.get("refractory_time") == parse_time("1us") for entry in facts)


@pytest.mark.parametrize(
    ("refractory_time", "warnings"), [(20e-6, 0), (240e-9, 0), (239e-9, 2), (40e-9, 2)]
)
def test_a_refractory_period_limits_the_rate_of_the_network(refractory_time, warnings):
    done = quantize(two_layers(), refractory_time=refractory_time, speedup=500.0)
    assert {chip.refractory_time for chip in done.populations.values()} == {refractory_time}
    facts = [change.what.facts for change in done.notes if isinstance(change.what, Text)]
    rates = [entry["rate"] for entry in facts if "rate" in entry]
    assert rates == pytest.approx(2 * [1 / (refractory_time * 500.0)])
    limits = [entry["limit"] for entry in facts if "limit" in entry]
    assert limits == pytest.approx(warnings * [240e-9])


def unequal(*tail, v_threshold=0.1):
    """Two layers of which the second has a tenth of the threshold, and further layers."""
    random = np.random.default_rng(4)
    weights = random.normal(0.2, 0.5, (12, 6)), random.normal(0.2, 0.5, (3, 12))
    cells = build.cubalif(**NEURONS), build.cubalif(**NEURONS, v_threshold=v_threshold)
    layers = [
        part
        for weight, cell in zip(weights, cells, strict=True)
        for part in (build.linear(weight=weight), cell)
    ]
    return build.sequential(build.input(6), *layers, *tail)


def errors_of(done):
    """The sum of the squares of the errors of thresholds, of 8 / 1.96 LSB, and of weights."""
    thresholds = [
        8 / 1.96 / float(np.min(chip.v_threshold - chip.v_leak))
        for chip in done.populations.values()
        if chip.fires
    ]
    weights = [report.relative_error for report in done.nodes.values()]
    return float(np.sum(np.square([*thresholds, *weights])))


def test_balanced_scales_move_low_thresholds_away_from_the_leak():
    balanced, full = (quantize(unequal(), scale=scale) for scale in ("balanced", "max"))
    lowest, highest = (
        [done.populations[name].v_threshold[0] - 80 for done in (balanced, full)] for name in "42"
    )
    assert highest == [70, 70]
    assert lowest[0] > 2 * lowest[1]
    assert errors_of(balanced) < errors_of(full) / 4
    weights, all_weights = (weights_between(done, 0) for done in (balanced, full))
    assert np.abs(all_weights).max() == 63
    share = np.abs(weights).max() / 63
    assert 0 < share < 0.5
    facts = [change.what.facts for change in balanced.notes if isinstance(change.what, Text)]
    assert [entry["fraction"] for entry in facts if "fraction" in entry] == [
        pytest.approx(share, abs=0.02)
    ]
    assert quantize(unequal()).netlist.weight.tolist() == balanced.netlist.weight.tolist()


def test_balanced_is_max_where_thresholds_are_equally_far():
    for graph in (two_layers(), one_layer([[1.0, -0.3]])):
        balanced, full = (quantize(graph, scale=scale) for scale in ("balanced", "max"))
        assert_alike(balanced, full)


def test_balanced_scales_keep_the_potentials_of_a_readout():
    readout = build.linear(weight=np.array([[0.5, -0.3, 1.0]])), build.cubali(**NEURONS)
    balanced, full = (quantize(unequal(*readout), scale=scale) for scale in ("balanced", "max"))
    factors = [done.populations["6"].lsb_per_volt for done in (balanced, full)]
    assert factors[0] == pytest.approx(factors[1], rel=1e-6)
    assert balanced.nodes["6"].scale < full.nodes["6"].scale / 2


def test_balanced_scales_accept_thresholds_that_max_rounds_to_the_leak():
    graph = two_layers(thresholds=(1.0, 150.0))
    done = quantize(graph)
    assert min(chip.v_threshold.min() for chip in done.populations.values()) > 85
    assert_refused(lambda: quantize(graph, scale="max"), MappingError, node="2")
