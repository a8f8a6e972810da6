"""Biases as shifts of the leak potential: quantised, emulated, deployed, and on the command line."""

import dataclasses
import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.bss2.check import check
from jaxsnn.bss2.emulate import ChipInTheLoop, EmulatedChip, Spread, emulate
from jaxsnn.bss2.emulate.connections import wired
from jaxsnn.bss2.emulate.emulated_chip import pattern_of
from jaxsnn.bss2.mapping import from_json, to_json
from jaxsnn.bss2.search.portfolio import place_and_route
from jaxsnn.bss2.search.quantize import QuantizeOptions, quantize
from jaxsnn.errors import MappingError, UsageError
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.network import Network
from jaxsnn.network.spikes import Events
from jaxsnn.nir import build, write
from jaxsnn.simulation.simulate import simulate
from jaxsnn.train import InTheLoop, on_chip
from tests.bss2.deployment import Deployment
from tests.helpers.command_line import call, refused
from tests.helpers.refusals import assert_refused

TAU_MEM, TAU_SYN = 10e-3, 5e-3
NEURONS = {"tau_mem": TAU_MEM, "tau_syn": TAU_SYN}
#: Of a threshold of 1 V, with the default leak of 80 and threshold of 150 CADC LSB.
LSB = 1 / 70
IDEAL = EmulatedChip(ideal=True)
LEAK = QuantizeOptions(bias="leak")


def biased(shifts, inputs=1, neurons=None, weight=6.0):
    """Neurons of equal weights, whose biases shift their leak by some LSB."""
    layer = build.affine(weight=np.full((len(shifts), inputs), weight), bias=np.array(shifts) * LSB)
    return build.sequential(build.input(inputs), layer, neurons or build.cubalif(**NEURONS))


def notes_of(quantized, words, node="2"):
    """What the notes of a node say that contain some words."""
    return [note.what for note in quantized.notes if note.node == node and words in note.what]


# -- quantised


def test_each_neuron_has_the_leak_of_its_bias_and_no_channel_is_needed():
    quantized, plain = quantize(biased([17.5, -7, 0, 0.2]), LEAK), quantize(biased([0, 0, 0, 0]))
    population = quantized.populations["2"]
    assert population.v_leak.tolist() == [98, 73, 80, 80]
    assert population.v_threshold.tolist() == [150] * 4
    assert population.v_reset.tolist() == [80] * 4
    assert quantized.bias_source is None
    assert quantized.netlist.fingerprint() == plain.netlist.fingerprint()
    assert plain.populations["2"].v_leak.tolist() == [80] * 4


def test_r_and_w_in_scale_the_shift():
    neurons = build.cubalif(**NEURONS, r=np.array([1.0, 2.0, 1.0]), w_in=np.array([1.0, 1.0, 3.0]))
    quantized = quantize(biased([10, 10, 10], neurons=neurons), LEAK)
    assert quantized.populations["2"].v_leak.tolist() == [90, 100, 110]


def test_shifts_shrink_with_a_measured_slope_as_thresholds_do():
    graph = biased([20, -15])
    population = quantize(graph, bias="leak", slope=quantize(graph, LEAK).slope / 2).populations[
        "2"
    ]
    assert population.v_threshold.tolist() == [115, 115]
    assert population.v_leak.tolist() == [90, 72]


def test_a_leak_of_the_file_moves_the_threshold_not_the_shift():
    neurons = build.cubalif(**NEURONS, v_leak=-0.5, v_threshold=0.5)
    quantized = quantize(biased([35, -20], neurons=neurons), LEAK)
    assert quantized.populations["2"].v_leak.tolist() == [115, 60]
    assert quantized.populations["2"].v_threshold.tolist() == [150, 150]


def test_a_readout_has_shifted_leaks_too():
    layer = build.affine(weight=np.ones((2, 2)), bias=np.array([0.5, -0.25]))
    nodes = [build.linear(weight=np.ones((2, 1))), build.cubalif(**NEURONS), layer]
    graph = build.sequential(build.input(1), *nodes, build.cubali(**NEURONS))
    population = quantize(graph, LEAK).populations["4"]
    expected = 80 + np.rint(population.lsb_per_volt * np.array([0.5, -0.25]))
    np.testing.assert_array_equal(population.v_leak, expected)
    assert len(set(population.v_leak.tolist())) == 2


@pytest.mark.parametrize(
    ("shifts", "words", "facts"),
    [
        (
            [17.5, -7.0],
            "biases shift the leak",
            {"lowest": -7, "highest": 18, "error": 0.5, "share": 0.5 / 70},
        ),
        ([17.0, -7.0], "biases shift the leak", {"lowest": -7, "highest": 17}),
        ([0.25, -7.0], "round to 0", {"count": 1, "biases": 2}),
        ([75.0, 70.0], "at or above their threshold", {"count": 2}),
        ([69.6, 75.0], "rounding moves across", {"count": 1}),
        ([63.0, 62.0, 78.0], "less than 8 LSB from", {"limit": 8, "count": 1}),
    ],
)
def test_rounding_and_leaks_near_the_threshold_are_noted(shifts, words, facts):
    (note,) = notes_of(quantize(biased(shifts), LEAK), words)
    assert dict(note.facts) == pytest.approx(facts, abs=1e-6)


@pytest.mark.parametrize("words", ["round to 0", "at or above", "across", "less than 8 LSB"])
def test_a_note_on_leaks_comes_for_its_network_alone(words):
    assert not notes_of(quantize(biased([17.5, -7, 0]), LEAK), words)


def test_without_biases_there_is_a_note_that_nothing_is_shifted():
    quantized = quantize(biased([0, 0]), LEAK)
    assert notes_of(quantized, 'bias="leak" has no effect', "graph")
    assert not notes_of(quantized, "its membrane starts")


@pytest.mark.parametrize(
    ("neurons", "starts"),
    [
        (build.cubalif(**NEURONS), True),
        # The potential is at rest, but the file has no synaptic current.
        (build.cubalif(**NEURONS, v_leak=-20 * LSB), True),
        (build.lif(tau=TAU_MEM), True),
        (build.lif(tau=TAU_MEM, v_leak=-20 * LSB), False),
    ],
)
def test_a_membrane_that_starts_elsewhere_than_in_the_file_is_noted(neurons, starts):
    layer = build.affine(weight=np.ones((1, 1)), bias=[20 * LSB])
    graph = build.sequential(build.input(1), layer, neurons, spike_kernel="delta")
    notes = notes_of(quantize(graph, LEAK), "its membrane starts at the resting potential")
    assert len(notes) == starts
    if starts:
        distance = 20 * LSB if not np.any(neurons.parameters["v_leak"]) else 0.0
        assert notes[0].facts["distance"] == pytest.approx(distance)
    # neurons are reset to 0, where those with a leak of -20 LSB rest
    after_reset = notes_of(quantize(graph, LEAK), "with grenade of 13 March 2026 or later")
    rests_at_reset = bool(np.any(neurons.parameters["v_leak"]))
    assert len(after_reset) == (not rests_at_reset)
    for note in after_reset:
        assert note.facts["distance"] == pytest.approx(20 * LSB * np.exp(-4e-3 / TAU_MEM))


# -- refused


@pytest.mark.parametrize(("shift", "reached"), [(-30, 50), (80, 160)])
def test_the_range_of_the_calibration_is_used_to_its_ends(shift, reached):
    assert quantize(biased([0, shift]), LEAK).populations["2"].v_leak[1] == reached


@pytest.mark.parametrize(
    ("shifts", "neuron", "leak"),
    [([0, -31], 1, 49), ([81, 0, 1], 0, 161), ([-60, 100], 0, 20), ([-60, 130], 1, 210)],
)
def test_a_leak_outside_the_range_is_refused_with_settings_that_fit(shifts, neuron, leak):
    graph = biased(shifts)
    error = assert_refused(
        lambda: quantize(graph, LEAK),
        MappingError,
        rf"node '2' \(CubaLIF\): the bias of neuron {neuron} .* 80 to {leak} CADC LSB; .* 50 to 160",
        node="2",
    )
    v_leak, v_threshold = map(
        int, re.search(r"v_leak=(\d+) and v_threshold=(\d+)", error.fix).groups()
    )
    quantized = quantize(graph, bias="leak", v_leak=v_leak, v_threshold=v_threshold)
    leaks = quantized.populations["2"].v_leak
    assert 50 <= leaks.min() < leaks.max() <= 160
    assert 'bias="source"' in error.fix
    quantize(graph, bias="source")
    # The threshold of the only population is at v_threshold, whatever its scale.
    assert "scale" not in error.fix


def test_a_smaller_scale_is_recommended_where_it_helps():
    """The second population determines the strength of an LSB."""
    first = build.affine(weight=np.full((2, 1), 6.0), bias=np.array([20.0, 0.0]))
    second = build.linear(weight=np.full((1, 2), 6.0))
    slow = build.cubalif(**NEURONS, v_threshold=10.0)
    neurons = build.cubalif(**NEURONS, v_threshold=2.0)
    graph = build.sequential(build.input(1), first, neurons, second, slow)
    options = QuantizeOptions(bias="leak", scale="max")
    error = assert_refused(lambda: quantize(graph, options), MappingError, "neuron 0", node="2")
    smaller, scale = re.search(r"scale of (\S+) instead of (\S+) for '2'", error.fix).groups()
    assert float(smaller) < float(scale)
    scales = {
        "2": float(smaller),
        "4": quantize(graph, scale="max", bias="source").nodes["4"].scale,
    }
    leaks = quantize(graph, bias="leak", scale=scales).populations["2"].v_leak
    assert 130 < leaks.max() <= 160


def test_a_bias_whose_size_on_the_chip_is_undetermined_is_refused():
    layer = build.affine(weight=np.ones((2, 1)), bias=np.array([0.5, 0.0]))
    readout = build.sequential(build.input(1), layer, build.cubali(**NEURONS))
    assert_refused(
        lambda: quantize(readout, LEAK), MappingError, "no weights arrive at spiking", node="2"
    )
    silent = build.affine(weight=np.zeros((2, 2)), bias=np.array([0.5, 0.0]))
    nodes = [build.cubalif(**NEURONS), silent, build.cubali(**NEURONS)]
    graph = build.sequential(build.input(1), build.linear(weight=np.ones((2, 1))), *nodes)
    assert_refused(lambda: quantize(graph, LEAK), MappingError, "no weights arrive at it", node="4")


def test_the_refusal_of_biases_offers_both_with_their_ranges():
    error = assert_refused(
        lambda: quantize(biased([20])), MappingError, "biases .1 of 1 neurons", node="2"
    )
    assert re.search(r'bias="leak".* 50 to 160 CADC LSB.*bias="source".* 63 LSB.* 8 ns', error.fix)


# -- emulated


def late_events(*times):
    """Events of channel 0 after the network has come to rest, which takes it 20 tau_syn."""
    return Events(time=jnp.array([times]), index=jnp.zeros((1, len(times)), int))


def simulated(graph, quantized, inputs, t_end):
    """Spikes of the event engine with the refractory period of the chip."""
    refractory = quantized.populations["2"].refractory_time * quantized.speedup
    engine = EventDriven(max_spikes=16, refractory=refractory)
    return simulate(lower(graph), inputs, t_end, engine=engine).spikes["2"]


def test_from_rest_the_emulated_chip_fires_what_the_network_with_biases_fires():
    graph, inputs = biased([20, -15, 0, 41]), late_events(0.4, 0.403, 0.42)
    quantized = quantize(graph, LEAK)
    expected = simulated(graph, quantized, inputs, 0.45)
    mapping = place_and_route(quantized.netlist).mapping
    for placed in (None, mapping):
        emulated = emulate(quantized, placed, inputs, 0.45, chip=IDEAL)
        np.testing.assert_array_equal(emulated.fired["2"], expected.count)
        times = emulated.spikes["2"]
        slots = min(times.shape[2], expected.time.shape[2])
        np.testing.assert_allclose(
            times[..., :slots], expected.time[..., :slots], rtol=0, atol=1e-6
        )
    first = np.asarray(expected.time)[0, :, 0]
    assert first[3] < first[0] < first[2] < first[1] < 0.45


def test_a_leak_above_the_threshold_fires_without_input_from_time_0():
    graph, nothing = biased([80, 0]), late_events(math.inf)
    quantized = quantize(graph, LEAK)
    (emulated, silent) = emulate(quantized, None, nothing, 0.15, chip=IDEAL).spikes["2"][0]
    rest = 80 * LSB
    interval = TAU_MEM * math.log(rest / (rest - 1)) + 1e-3
    expected = np.arange(0, 0.15, interval)
    np.testing.assert_allclose(emulated[: len(expected)], expected, atol=1e-6)
    assert np.isinf(emulated[len(expected) :]).all()
    assert np.isinf(silent).all()
    network = np.asarray(simulated(graph, quantized, nothing, 0.15).time)[0, 0]
    assert np.diff(network[np.isfinite(network)])[-1] == pytest.approx(interval, abs=1e-6)


@pytest.fixture(scope="module")
def wide():
    """Neurons of several circuits, each with another bias."""
    quantized = quantize(biased([12, -30, 0, 25], inputs=300, weight=0.1), LEAK)
    mapping = place_and_route(quantized.netlist, signs="free").mapping
    assert min(len(neuron.circuits) for neuron in mapping.runs[0].neurons) > 1
    return quantized, mapping


def test_deviations_of_a_chip_are_added_to_the_shifted_leak_of_the_head(wide):
    quantized, mapping = wide
    chip = EmulatedChip(seed=3, spread=Spread())
    (neurons,) = wired(quantized, quantized.netlist, mapping, chip, 1.0).runs[0].neurons
    pattern = pattern_of(mapping.chip, chip).v_leak
    for neuron in mapping.runs[0].neurons:
        expected = [92, 50, 80, 105][neuron.index] + pattern[neuron.circuits[neuron.head]]
        assert neurons.v_leak[neuron.index] == pytest.approx(expected)


def test_training_in_the_loop_keeps_the_biases_and_refuses_others():
    graph, inputs = biased([20, -15, 0, 41], inputs=2, weight=4.0), late_events(0.005, 0.01)
    device = ChipInTheLoop(graph, chip=IDEAL, options=LEAK, headroom=1.0)
    assert device.quantized.populations["2"].v_leak.tolist() == [100, 65, 80, 121]
    spikes = simulate(graph, inputs, 0.05, engine=InTheLoop(device=device)).spikes["2"].time
    expected = emulate(*device.with_weights(graph), inputs, 0.05, chip=IDEAL).spikes["2"]
    slots = min(spikes.shape[2], expected.shape[2])
    np.testing.assert_allclose(spikes[..., :slots], expected[..., :slots], atol=1e-7)
    assert np.isfinite(expected).sum() >= 3
    other = biased([20, -15, 5, 41], inputs=2, weight=4.0)
    assert_refused(
        lambda: device.refuse_other(lower(other)),
        UsageError,
        rf"node '1': bias of channel 2 is {5 * LSB:g}; .* mapped for 0",
    )
    device.refuse_other(lower(biased([20, -15, 0, 41], inputs=2, weight=1.0)))


def test_from_rest_the_gradient_in_the_loop_is_that_of_the_network_with_biases():
    graph, inputs = biased([20, -15, 0, 41]), late_events(0.4)
    device = ChipInTheLoop(graph, chip=IDEAL, options=LEAK, headroom=1.0)
    network = lower(graph)
    weight = network.parameters["1"]["weight"]

    def gradient(engine):
        def total(weight):
            parameters = network.parameters | {"1": network.parameters["1"] | {"weight": weight}}
            changed = Network(
                parameters=parameters, wires=network.wires, populations=network.populations
            )
            return simulate(changed, inputs, 0.45, engine=engine).spikes["2"].time[..., 0].sum()

        return jax.grad(total)(jnp.asarray(weight))

    refractory = device.refractory
    expected = gradient(EventDriven(max_spikes=16, refractory=refractory))
    in_the_loop = gradient(InTheLoop(device=device, refractory=refractory))
    assert (np.asarray(expected) < 0).all()
    np.testing.assert_allclose(in_the_loop, expected, rtol=1e-3)


def test_on_chip_shifts_leaks_by_the_biases_of_a_graph():
    quantized = on_chip(biased([20, -15], inputs=2), chip=IDEAL).device.quantized
    assert quantized.populations["2"].v_leak.tolist() == [100, 65]


# -- mapping files and deployments


def test_a_mapping_places_leaks_like_none_and_survives_its_file():
    """Mappings of earlier versions are mappings of networks whose leaks are shifted, too."""
    quantized, plain = quantize(biased([20, -15]), LEAK), quantize(biased([0, 0]))
    shifted, still = (place_and_route(network.netlist).mapping for network in (quantized, plain))
    stored = [mapping.quantization.bias for mapping in (shifted, still)]
    assert stored == ["leak", "refuse"]
    (problem,) = check(still, quantized.netlist)
    assert (problem.code, problem.message.facts["option"]) == ("other-quantization", "bias")
    earlier = [
        to_json(dataclasses.replace(mapping, quantization=None, fingerprint=net.fingerprint()))
        for mapping, net in ((shifted, quantized.netlist), (still, plain.netlist))
    ]
    assert earlier[0] == earlier[1]
    assert check(from_json(earlier[1]), quantized.netlist) == ()
    assert check(from_json(to_json(shifted)), quantized.netlist) == ()


@pytest.mark.parametrize(
    ("shifts", "leak"), [([20, -15], [100, 65]), ([20, 20], 100), ([0, 0], 80)]
)
def test_the_scripts_get_the_leak_of_each_neuron(shifts, leak, tmp_path, monkeypatch):
    quantized = quantize(biased(shifts), LEAK)
    mapping = place_and_route(quantized.netlist).mapping
    deployed = Deployment(tmp_path, monkeypatch, quantized, mapping)
    assert deployed.net["populations"][1]["leak"] == leak
    time = np.array([[1e-3]])
    deployed.run({"input": (time, np.zeros((1, 1), int))}, 0.02)
    (experiment,) = deployed.stack.experiments
    (neurons,) = (node for node in experiment.modules.nodes if hasattr(node, "parameters"))
    np.testing.assert_array_equal(neurons.parameters["leak"], leak)


def test_all_circuits_of_a_neuron_are_calibrated_to_its_shifted_leak(wide, tmp_path, monkeypatch):
    quantized, mapping = wide
    deployed = Deployment(tmp_path, monkeypatch, quantized, mapping)
    targets = json.loads((deployed.folder / "calix_target.0.json").read_text())["leak"]
    used = []
    for neuron in mapping.runs[0].neurons:
        for row, column in neuron.circuits:
            assert targets[256 * row + column] == [92, 50, 80, 105][neuron.index]
            used.append(256 * row + column)
    assert {target for place, target in enumerate(targets) if place not in used} == {80}
    assert "| 2 | 50 to 105 |" in (deployed.folder / "README.md").read_text()


def test_runs_that_share_circuits_refine_the_leaks(tmp_path, monkeypatch):
    from tests.bss2.recipes import layer_by_layer_mapping

    layers = []
    for weight, bias in ((np.full((3, 2), 2.0), [10, -5, 0]), (np.full((3, 3), 2.0), [4, 5, 6])):
        layers += [build.affine(weight=weight, bias=np.array(bias) * LSB)]
        layers += [build.cubalif(**NEURONS)]
    quantized = quantize(build.sequential(build.input(2), *layers), LEAK)
    mapping = layer_by_layer_mapping(quantized.netlist)
    deployed = Deployment(tmp_path, monkeypatch, quantized, mapping)
    assert [entry["refines"] for entry in deployed.net["calibrations"]] == [None, 0]
    for number, name in enumerate(("2", "4")):
        file = deployed.folder / f"calix_target.{number}.json"
        leaks = json.loads(file.read_text())["leak"]
        for neuron in mapping.runs[number].neurons:
            row, column = neuron.circuits[neuron.head]
            assert leaks[256 * row + column] == quantized.populations[name].v_leak[neuron.index]


# -- on the command line


def test_the_commands_take_biases_as_leaks(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("net.nir", biased([20, -40]))
    fits = ("--bias", "leak")
    line = refused(capsys, "map", "net.nir", "-o", "m.json", *fits)[1]
    flags = re.search(r"--v-leak (\d+) and --v-threshold (\d+)", line)
    fits += ("--v-leak", flags[1], "--v-threshold", flags[2], "--json")
    code, out, _ = call(capsys, "map", "net.nir", "-o", "m.json", *fits)
    assert code == 0
    low, high = json.loads(out)["calibration"]["2"]["leak"]
    assert (high - low, int(flags[1]) - low) == (60, 40)
    for repeated in ((), fits):
        assert call(capsys, "map", "net.nir", "--verify", "m.json", *repeated)[0] == 0
    code, _, err = call(capsys, "deploy", "net.nir", "m.json", "-o", "scripts")
    assert code == 0, err
    leaks = json.loads((tmp_path / "scripts" / "network.json").read_text())["populations"][1][
        "leak"
    ]
    assert leaks == [high, low]
    line = refused(capsys, "map", "net.nir", "--verify", "m.json", "--bias", "source")[1]
    assert "--bias is source; the mapping was created with leak:" in line
