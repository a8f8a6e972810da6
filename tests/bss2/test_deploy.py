"""The scripts do with the chip's software what the mapping says: judged by what the fake software
was told.
"""

import dataclasses
import errno
import itertools
import json
import os
import pickle
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

from jaxsnn.bss2.check import check
from jaxsnn.bss2.chip import BOTH, DISABLED, HICANN_X, SMALL, crossbar_nodes
from jaxsnn.bss2.deploy import deploy
from jaxsnn.bss2.deploy.content import calibrations_of
from jaxsnn.bss2.mapping import Run, digest, to_json
from jaxsnn.bss2.search.measured_slopes import read_slopes
from jaxsnn.bss2.search.portfolio import place_and_route
from jaxsnn.bss2.search.quantize import QuantizeOptions, quantize
from jaxsnn.errors import FileError, MappingError, UsageError
from jaxsnn.network.lowering.lower import lower
from jaxsnn.nir import build, write
from jaxsnn.train.loop.recorded_chip import read_recording
from tests.bss2.deployment import Deployment
from tests.bss2.recipes import layer_by_layer_mapping
from tests.bss2.stack.calibration import as_arrays
from tests.helpers.command_line import call, refused
from tests.helpers.refusals import assert_refused

NEURONS = {"tau_mem": 10e-3, "tau_syn": 5e-3}


def network(*sizes, seed=0, readout=False, bias=0.0, mean=0.0):
    random = np.random.default_rng(seed)
    layers = [build.input(sizes[0])]
    for number, (before, size) in enumerate(itertools.pairwise(sizes)):
        weight = random.normal(mean, size=(size, before))
        layers.append(build.affine(weight=weight, bias=np.full(size, bias)))
        last = readout and number == len(sizes) - 2
        layers.append(build.cubali(**NEURONS) if last else build.cubalif(**NEURONS))
    return build.sequential(*layers)


@pytest.fixture
def deployed(tmp_path, monkeypatch):
    """`deployed(graph)`: quantised, mapped, written and ready to run, by default in one run. With
    `by_layer` each layer is a run, and the thresholds of layers differ.
    """

    def make(graph, options=None, by_layer=False, records=False, **search):
        thresholds = QuantizeOptions(scale="max", v_threshold=125) if by_layer else None
        quantized = quantize(graph, options or thresholds)
        if by_layer:
            mapping = layer_by_layer_mapping(quantized.netlist)
        else:
            mapping = place_and_route(quantized.netlist, **search).mapping
        return Deployment(tmp_path, monkeypatch, quantized, mapping, records)

    return make


def early(net, samples=2):
    """Channel i of each input fires after i + 1 milliseconds; an event that is none at the end."""
    events = {}
    for part in net["populations"]:
        if part["external"] and part["name"] != net["bias_source"]:
            size = part["size"]
            time = np.append(np.arange(1, size + 1) * 1e-3, np.inf)
            events[part["name"]] = tuple(np.tile(a, (samples, 1)) for a in (time, range(size + 1)))
    return events


def connections_of(instance):
    """The synapses that an instance of a RoutingResult places."""
    return [
        synapse
        for placed in instance.connections.values()
        for connection in placed
        for synapse in connection
    ]


def table_of(shape, dtype, values):
    """A table over both hemispheres of values by coordinate."""
    table = np.zeros(shape, dtype)
    for coordinate, value in values.items():
        table[divmod(coordinate.value(), shape[1])] = value
    return table


def run_as_told(mapping, number, experiment):
    """The run that a RoutingResult describes, with the neurons as they were placed."""
    (routed,) = experiment.result.execution_instances.values()
    (instance,) = experiment.network.execution_instances.values()
    run, chip = mapping.runs[number], HICANN_X
    modes = {row: mode.value for row, mode in routed.synapse_row_modes.items()}
    nodes = {(node.entry, node.output): filters for node, filters in routed.crossbar_nodes.items()}
    crossbar = [
        (*node, nodes[node].mask.value(), nodes[node].target.value())
        for node in crossbar_nodes(chip)
    ]
    synapses = [
        (
            *divmod(synapse.synapse_row.value(), chip.rows),
            synapse.synapse_on_row.value(),
            synapse.label,
            synapse.weight,
        )
        for synapse in connections_of(routed)
    ]
    placed = {neuron.circuits[neuron.head]: neuron for neuron in run.neurons}
    neurons = []
    for key, labels in routed.internal_neuron_labels.items():
        for neuron, label in zip(instance.populations[key].neurons, labels, strict=True):
            atomic = neuron.coordinate.get_atomic_neurons()
            circuits = tuple(divmod(circuit.value(), chip.columns) for circuit in atomic)
            ((address, *others),) = label.values()
            assert others == [None] * (len(circuits) - 1)
            original = placed[circuits[0]]
            address = original.address if address is None else address
            changes = {"circuits": circuits, "head": 0, "address": address, "recorded": True}
            neurons.append(dataclasses.replace(original, **changes))
    ((labels),) = routed.external_spike_labels.values()
    sources = tuple(
        dataclasses.replace(source, events=tuple(event.value() for event in events))
        for source, events in zip(run.sources, labels, strict=True)
    )
    return Run(
        method="told",
        neurons=tuple(sorted(neurons, key=lambda neuron: (neuron.population, neuron.index))),
        sources=sources,
        compare_masks=table_of((2, chip.drivers), np.int32, routed.synapse_driver_compare_masks),
        row_modes=table_of((2, chip.rows), np.int8, modes),
        synapses=np.array(sorted(synapses), np.int32),
        crossbar=np.array(crossbar, np.int32),
    )


CASES = {
    "one run": lambda: (network(12, 9, 4), QuantizeOptions(), "fixed"),
    "free signs": lambda: (network(12, 9, 4), QuantizeOptions(), "free"),
    "sums of synapses": lambda: (network(6, 5, 3), QuantizeOptions(synapses_per_weight=3), "fixed"),
    "a readout": lambda: (network(8, 6, 3, readout=True), QuantizeOptions(), "fixed"),
    "a bias source": lambda: (network(8, 6, 3, bias=0.1), QuantizeOptions(bias="source"), "fixed"),
    "several circuits": lambda: (network(300, 12, 3), QuantizeOptions(), "free"),
    "several runs": lambda: (network(4, 500, 20), QuantizeOptions(), "free"),
}


@pytest.mark.parametrize("case", CASES)
def test_hxtorch_is_told_the_mapping(case, deployed):
    graph, options, signs = CASES[case]()
    ready = deployed(graph, options, signs=signs)
    ready.run(early(ready.net), 2e-3)
    assert ready.stack.calls == ["init", "release"]
    runs = tuple(
        run_as_told(ready.mapping, number, experiment)
        for number, experiment in enumerate(ready.stack.experiments)
    )
    assert check(dataclasses.replace(ready.mapping, runs=runs), ready.quantized.netlist) == ()


def test_parameters_reach_the_modules_in_the_chips_units(deployed):
    graph = build.sequential(
        build.input(2),
        build.linear(weight=np.array([[1.0, -1.0], [0.5, 1.0]])),
        build.cubalif(tau_mem=np.array([8e-3, 16e-3]), tau_syn=4e-3),
    )
    ready = deployed(graph)
    ready.run(early(ready.net), 0.02)
    (experiment,) = ready.stack.experiments
    (neurons,) = (node for node in experiment.modules.nodes if hasattr(node, "parameters"))
    parameters = dict(neurons.parameters)
    np.testing.assert_allclose(parameters.pop("tau_mem"), [8e-6, 16e-6])
    assert parameters == {
        "threshold": ready.quantized.populations["2"].v_threshold[0],
        "leak": 80,
        "reset": 80,
        "tau_syn": pytest.approx(4e-6),
        "refractory_time": pytest.approx(1e-6),
        "i_synin_gm": 500,
    }
    # Between samples, the chip rests for 10 times the longest time constant.
    assert experiment.inter_batch_entry_wait == pytest.approx(10 * 16e-6 / 8e-9, abs=1)


def test_times_go_in_and_out_at_cycles_of_8_ns(deployed):
    """Input 1.2345 us of the chip is cycle 154; a grid of 1 us would give cycle 125."""
    ready = deployed(network(1, 1))
    trains = ready.script("common").Trains(1)
    trains.add((0, 0), [[1.2345e-6, 1.2385e-6]])
    cycles = ready.script("run_hxtorch").cycles_of(ready.net, ready.net["runs"][0], trains)
    assert cycles == [[[154, 155]]]


def test_later_runs_get_what_earlier_ones_recorded_to_the_cycle(deployed):
    ready = deployed(network(4, 3, 2, mean=0.8), by_layer=True)
    times = ready.run(early(ready.net), 0.03)["2.time"][0]
    _, second = ready.stack.experiments
    (source,) = (node for node in second.modules.nodes if type(node).__name__ == "ExactSource")
    sent = sorted(cycle for train in source.cycles[0] for cycle in train)
    assert sent
    np.testing.assert_allclose(sent, np.sort(times[np.isfinite(times)]) / 1000 / 8e-9, rtol=1e-9)


@pytest.mark.parametrize("records", [False, True])
def test_one_calibration_serves_all_runs(records, deployed):
    """Thresholds of the layers differ, their time constants do not: one calibration is refined."""
    ready = deployed(network(4, 3, 2), by_layer=True, records=records)
    assert [calibration["refines"] for calibration in ready.net["calibrations"]] == [None, 0]
    for _ in range(2):  # the second run reuses results
        ready.run(early(ready.net), 0.01)
    counts = {"calibrated": 1, "potentials again": 1, "refined": 1, "connections": 1}
    assert ready.stack.counts == counts
    assert any("calibration 0 is refined" in note for note in ready.done.notes)
    target = json.loads((ready.folder / "calix_target.1.json").read_text())
    head = ready.net["runs"][1]["groups"][0]["heads"][0]
    assert target["threshold"][head] == ready.quantized.populations["4"].v_threshold[0]
    assert target["tau_mem"][head] == pytest.approx(10.0)  # microseconds
    results = sorted(map(str, ready.folder.glob("*.pkl")))
    ready.run(early(ready.net), 0.01, "--calibration", *results)
    assert ready.stack.counts["calibrated"] == 1
    with pytest.raises(SystemExit, match="1 calibrations are specified; the network needs 2"):
        ready.run(early(ready.net), 0.01, "--calibration", "c.pkl")


@pytest.mark.parametrize(
    ("time", "index", "message"),
    [
        ([[1e-3, 2e-3]], [[0, 9]], "'input.index' is 9 at .0, 1.; it must be from 0 to 3"),
        ([[1e-3]], [[-1]], "'input.index' is -1"),
        ([[1e-3]], [[1.5]], "'input.index' has dtype float64; integers are required"),
        ([[np.nan]], [[0]], "'input.time' is nan at .0, 0.; it must be at least 0 s"),
        ([[-1e-3]], [[0]], "'input.time' is -0.001"),
        ([1e-3, 2e-3], [0, 1], "has shape \\(2,\\)"),
        ([[1e-3, 2e-3]], [[0]], "has shape \\(1, 2\\) and 'input.index' has shape \\(1, 1\\)"),
    ],
)
def test_inputs_that_are_none_are_refused_by_the_script(deployed, time, index, message):
    ready = deployed(network(4, 3))
    with pytest.raises(SystemExit, match=message):
        ready.run({"input": (np.asarray(time), np.asarray(index))}, 0.01)


def test_events_after_the_end_are_left_out_by_the_script_and_said(deployed, capsys):
    ready = deployed(network(4, 3))
    events = {"input": (np.array([[1e-3, 90e-3]]), np.array([[0, 1]]))}
    ready.run(events, 0.01)
    assert "ignored events of 'input' at or after 0.01 s: 1" in capsys.readouterr().err


@pytest.mark.parametrize(("factor", "is_noted"), [(1, False), (1e-3, True), (0, False)])
def test_inputs_in_seconds_of_the_chip_are_reported(factor, is_noted, deployed, capsys):
    ready = deployed(network(4, 3))
    events = {
        name: (factor * time[:, :-1], index[:, :-1])
        for name, (time, index) in early(ready.net).items()
    }
    ready.run(events, 0.01)
    assert ("times are seconds of the network" in capsys.readouterr().err) == is_noted


def test_other_time_constants_are_calibrated_again(deployed):
    first, last = build.cubalif(**NEURONS), build.cubalif(tau_mem=30e-3, tau_syn=5e-3)
    layers = build.linear(3), first, build.linear(2), last
    ready = deployed(build.sequential(build.input(4), *layers, seed=0), by_layer=True)
    assert [calibration["refines"] for calibration in ready.net["calibrations"]] == [None, None]
    assert any("calibrated again" in note for note in ready.done.notes)


def test_runs_whose_circuits_agree_share_a_calibration():
    quantized = quantize(network(4, 500, 20))
    # A mapping with free signs is found sooner.
    mapping = place_and_route(quantized.netlist, signs="free").mapping
    assert len(mapping.runs) > 1
    calibrations = calibrations_of(mapping, quantized)
    runs = [(run, calibration) for calibration in calibrations for run in calibration.runs]
    assert sorted(run for run, _ in runs) == list(range(len(mapping.runs)))
    for run, calibration in runs:
        for neuron in mapping.runs[run].neurons:
            name = mapping.populations[neuron.population].name
            threshold = quantized.populations[name].v_threshold[neuron.index]
            for circuit in neuron.circuits:
                assert calibration.potentials["threshold", circuit] == threshold


@pytest.mark.parametrize(
    ("module", "name"),
    [("pygrenade_vx.network", "NetworkBuilder"), ("hxtorch.spiking", "HXModuleWrapper")],
)
def test_other_releases_are_refused_at_start(deployed, module, name):
    ready = deployed(network(3, 2))
    del vars(ready.stack.modules[module])[name]
    with pytest.raises(SystemExit, match=f"has no .*{name}: use BrainScaleS OS 12"):
        ready.run(early(ready.net), 0.01)
    assert not ready.stack.counts


@pytest.fixture
def routed(deployed):
    """`routed(weights, signs)`: the routing of a mapped 2-2 network whose weights were changed
    since.
    """

    def make(weights, signs):
        weight = np.array([[63.0, -20.0], [0.0, 63.0]])
        layers = build.linear(weight=weight), build.cubalif(**NEURONS)
        ready = deployed(build.sequential(build.input(2), *layers), signs=signs)
        ready.net["runs"][0]["links"][0] |= weights
        ready.run_once()
        (instance,) = ready.stack.experiments[-1].result.execution_instances.values()
        return sorted(
            (instance.synapse_row_modes[synapse.synapse_row].name, synapse.weight)
            for synapse in connections_of(instance)
        )

    return make


EXCITES, INHIBITS = "excitatory", "inhibitory"


@pytest.mark.parametrize(
    ("weights", "signs", "synapses"),
    [
        ({}, "fixed", [(EXCITES, 63), (EXCITES, 63), (INHIBITS, 20)]),
        ({"weight": [40, -7, 0]}, "fixed", [(EXCITES, 40), (INHIBITS, 7)]),
        ({"weight": [-63, 5, 63]}, "free", [(EXCITES, 5), (EXCITES, 63), (INHIBITS, 63)]),
    ],
)
def test_weights_may_change_in_training_and_signs_where_they_are_free(
    weights, signs, synapses, routed
):
    assert routed(weights, signs) == synapses


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"weight": [63, 20, 63]}, "changed its sign after it was mapped"),
        ({"weight": [64, -20, 63]}, "weight 64, but 1 synapses"),
        (
            {"source": [0, 1, 0, 1], "target": [0, 0, 1, 1], "weight": [63, -20, 3, 63]},
            "weight 3, but no synapse",
        ),
    ],
)
def test_other_weights_than_were_mapped_are_refused(weights, message, routed):
    with pytest.raises(RuntimeError, match=message):
        routed(weights, "fixed")


@pytest.mark.parametrize(
    "argv",
    [
        ["run_hxtorch.py", "--input", "x.npz", "--output", "y.npz", "--duration", "1"],
        ["calibrate.py"],
        ["measure_slope.py"],
    ],
    ids=lambda argv: argv[0],
)
def test_without_the_stack_a_script_names_what_is_missing(argv, tmp_path):
    quantized = quantize(network(3, 2))
    deploy(place_and_route(quantized.netlist).mapping, quantized, tmp_path)
    code = "import runpy, sys; sys.modules.update(hxtorch=None, calix=None); "
    code += f"sys.argv = {argv!r}; sys.path.insert(0, '.'); "
    code += f"runpy.run_path({argv[0]!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "cannot be imported" in line


def test_readouts_have_no_address(deployed):
    """They send nothing, so that nothing can be taken for theirs."""
    net = deployed(network(8, 6, 3, readout=True)).net
    for group in net["runs"][0]["groups"]:
        fires = net["populations"][group["population"]]["fires"]
        assert all((address is not None) == fires for address in group["addresses"])


def test_the_folder_describes_itself(deployed):
    ready = deployed(network(4, 3, 2), by_layer=True)
    text = (ready.folder / "README.md").read_text()
    files = [path.name for path in ready.folder.iterdir() if path.suffix in (".py", ".json")]
    assert [name for name in files if name not in text] == []
    assert "`input.time`" in text
    neuron = ready.quantized.populations["4"]
    line = f"| 4 | 80 | {neuron.v_reset[0]:.0f} | {neuron.v_threshold[0]:.0f} | 10 | 5 | 1 |"
    assert line in text


def test_what_is_wrong_is_not_deployed(deployed, tmp_path):
    ready = deployed(network(3, 2))
    (run,) = ready.mapping.runs
    side, row = np.argwhere(run.row_modes == DISABLED)[0]
    synapses, modes = run.synapses.copy(), run.row_modes.copy()
    synapses[0, 4] ^= 1
    modes[side, row] = BOTH
    for changes, message, code in (
        (
            {"runs": (dataclasses.replace(run, synapses=synapses),)},
            "one violation in run 0",
            "wrong-weight",
        ),
        (
            {"runs": (dataclasses.replace(run, row_modes=modes),)},
            rf"row \({side}, {row}\) excites and inhibits",
            None,
        ),
        ({"chip": SMALL}, "chip 'small'", None),
    ):
        wrong = dataclasses.replace(ready.mapping, **changes)
        call = partial(deploy, wrong, ready.quantized, tmp_path / "a")
        assert_refused(call, MappingError, message, code=code)
    assert not (tmp_path / "a").exists()


def test_a_folder_is_written_over_by_force_alone(deployed, tmp_path):
    ready = deployed(network(3, 2))
    before = (tmp_path / "network.json").read_bytes()
    again = partial(deploy, ready.mapping, ready.quantized, tmp_path)
    assert_refused(again, FileError, "exists")
    again(force=True)
    assert (tmp_path / "network.json").read_bytes() == before


def test_a_network_in_float32_is_deployed_too(deployed):
    graph = network(4, 3)
    single = [
        node.replace(**{name: np.float32(value) for name, value in node.parameters.items()})
        for node in graph.nodes.values()
        if node.parameters
    ]
    ready = deployed(graph.with_nodes(single))
    assert ready.net["slope"] == pytest.approx(ready.quantized.slope)


def test_the_command_deploys_what_map_made(tmp_path, capsys):
    file, mapping, folder = (tmp_path / name for name in ("net.nir", "m.json", "out"))
    write(file, network(6, 5, 3, bias=0.1))
    bias = ("--bias", "source")
    assert "biases (5 of 5 neurons)" in refused(capsys, "map", file, "-o", mapping)[1]
    assert call(capsys, "map", file, "-o", mapping, *bias, "-q")[0] == 0
    code, out, err = call(capsys, "deploy", file, mapping, "-o", folder, "--json")
    assert code == 0
    files = json.loads(out[out.index('{\n  "schema"') :])["files"]
    assert [path.rsplit("/", 1)[-1] for path in files] == [
        *("README.md", "network.json", "calix_target.0.json", "calibrate.py"),
        *("chip_modules.py", "common.py", "measure_slope.py", "routing.py"),
        *("run_hxtorch.py", "run_results.py"),
    ]
    assert "never run on a chip" in err
    assert json.loads((folder / "network.json").read_text())["bias_source"] == "bias"
    longer = "--refractory-time", "20us"
    again = "deploy", file, mapping, "-o", folder, "--force"
    for flags, expected in (((), 1.0), (longer, 20.0)):
        assert call(capsys, "map", file, "-o", mapping, *bias, *flags, "--force", "-q")[0] == 0
        for repeated in ((), (*bias, *flags)):
            assert call(capsys, *again, *repeated, "-q")[0] == 0
            targets = json.loads((folder / "calix_target.0.json").read_text())
            # 2 us: circuits without a neuron
            assert set(targets["refractory_time"]) == {expected, 2.0}
    for changed_option in (("--refractory-time", "10us"), ("--synapses-per-weight", "2")):
        line = refused(capsys, *again, *changed_option)[1]
        assert "the mapping was created with" in line
        assert changed_option[0] in line


def test_a_mapping_without_options_is_deployed_with_a_note(tmp_path, capsys):
    """As earlier versions wrote it."""
    file, path, folder = (tmp_path / name for name in ("net.nir", "m.json", "out"))
    graph = network(6, 5, 3)
    write(file, graph)
    net = quantize(graph, refractory_time=3e-6, speedup=900.0).netlist
    mapping = place_and_route(net).mapping
    fields = {"quantization": None, "fingerprint": net.fingerprint()}
    path.write_text(to_json(dataclasses.replace(mapping, **fields)))
    command = "deploy", file, path, "-o", folder, "--force"
    code, _, err = call(capsys, *command)
    assert code == 0
    assert "assumed: speedup 1000, refractory_time 1 us, bias refuse" in err
    code, _, err = call(capsys, *command, "--refractory-time", "3us", "--speedup", "900")
    assert code == 0
    assert "assumed: bias refuse, v_leak 80" in err
    content = json.loads((folder / "network.json").read_text())
    times = [part["refractory_time"] for part in content["populations"] if not part["external"]]
    assert (content["speedup"], times) == (900.0, [pytest.approx(3e-6)] * 2)


# ---- calibrations


@pytest.mark.parametrize("records", [False, True])
def test_calibrations_for_other_targets_are_refused(records, deployed):
    ready = deployed(network(4, 3, 2), by_layer=True, records=records)
    ready.run(early(ready.net), 0.01)
    first, second = sorted(map(str, ready.folder.glob("calibration.*.pkl")))
    head = ready.net["runs"][0]["groups"][0]["heads"][0]
    # the second run has fewer neurons: circuit 2 is calibrated to the vendor's default
    with pytest.raises(SystemExit, match=r"reset of circuit 2 is 70; calix_target\.0\.json has 80"):
        ready.run(early(ready.net), 0.01, "--calibration", second, first)
    times = ready.folder / "calix_target.0.json"
    content = json.loads(times.read_text())
    content["tau_mem"][head] *= 1.1
    times.write_text(json.dumps(content))
    with pytest.raises(SystemExit, match=f"tau_mem of circuit {head} is 10;"):
        ready.run(early(ready.net), 0.01, "--calibration", first, second)
    content["tau_mem"][head] /= 1.1
    content["reset"][content["reset"].index(70)] = 60  # a circuit that is not used
    times.write_text(json.dumps(content))
    ready.run(early(ready.net), 0.01, "--calibration", first, second)


def test_what_is_no_calibration_is_refused(deployed, tmp_path, capsys):
    ready = deployed(network(4, 3))
    (tmp_path / "c.pkl").write_bytes(b"no pickle")
    with pytest.raises(SystemExit, match="targets of the calibration cannot be read"):
        ready.run(early(ready.net), 0.01, "--calibration", str(tmp_path / "c.pkl"))
    ready.script("calibrate").refuse_other_targets(tmp_path / "c.pbin", 0, ready.net)
    assert "c.pbin: a .pbin file has no targets" in capsys.readouterr().err


@pytest.mark.parametrize("records", [False, True])
def test_chips_are_calibrated_to_the_targets_in_both_forms(records, deployed):
    ready = deployed(network(4, 3), records=records)
    (result,) = ready.script("calibrate").calibrated(ready.net)
    target = as_arrays(pickle.loads(result.read_bytes()).target.neuron_target)
    expected = json.loads((ready.folder / "calix_target.0.json").read_text())
    for name in ("leak", "reset", "threshold", "membrane_capacitance"):
        np.testing.assert_array_equal(getattr(target, name), expected[name])
    for name in ("tau_mem", "tau_syn", "refractory_time"):
        times = np.asarray(getattr(target, name)) * 1e6
        np.testing.assert_allclose(times, expected[name], rtol=1e-9)
    # one number, with which excitatory and inhibitory inputs become equally strong
    assert [target.i_synin_gm, target.synapse_dac_bias] == [500, expected["synapse_dac_bias"]]


def test_another_calix_is_refused(deployed):
    ready = deployed(network(4, 3))
    ready.stack.modules["calix.spiking"].SpikingCalibOptions = object
    with pytest.raises(
        SystemExit, match=r"has no calix\.spiking\.SpikingCalibOptions\.refine_potentials"
    ):
        ready.run(early(ready.net), 0.01)
    assert not ready.stack.counts


# ---- samples of the CADC


def test_the_offset_of_samples_is_detected_from_the_leak(deployed, capsys):
    ready = deployed(network(8, 6, 3, readout=True))
    plain = ready.run(early(ready.net), 0.03)["4.membrane"]
    assert "added 128" not in capsys.readouterr().err
    ready.stack.int8 = True
    samples = ready.run(early(ready.net), 0.03)["4.membrane"]
    np.testing.assert_allclose(samples, plain, atol=0.5)
    assert np.ptp(plain) > 2
    assert "'4': added 128" in capsys.readouterr().err


def test_membranes_that_do_not_start_at_the_leak_are_reported(deployed, capsys):
    readings = deployed(network(3, 2)).script("common").cadc_readings
    values = np.full((5, 2, 3), 80.0 + 40)
    np.testing.assert_array_equal(readings(values, 80, "n"), values)
    assert "the membrane starts +40 LSB from its leak" in capsys.readouterr().err


# ---- interruptions, and what identifies a recording


class Interrupted(Exception):
    """What ends a script in these tests."""


@pytest.fixture
def interrupted(deployed, monkeypatch):
    """A deployment of two runs whose execution ended after the first one, and the spikes that it
    records if it is not interrupted.
    """
    ready = deployed(network(4, 3, 2, mean=0.8), by_layer=True)
    with ready.run(early(ready.net), 0.03) as arrays:
        complete = dict(arrays)
    (ready.folder / "y.npz").unlink()
    software = ready.stack.modules["hxtorch.spiking"]
    run, count = software.run, len(ready.stack.experiments)

    def fail(experiment, runtime):
        if len(ready.stack.experiments) > count + 1:
            raise Interrupted
        run(experiment, runtime)

    with monkeypatch.context() as patch:
        patch.setattr(software, "run", fail)
        with pytest.raises(Interrupted):
            ready.run(early(ready.net), 0.03, force=False)
    assert ready.stack.calls[-2:] == ["init", "release"]
    assert not (ready.folder / "y.npz").exists()
    return ready, complete


def test_an_interrupted_execution_continues_with_the_next_run(interrupted):
    ready, complete = interrupted
    count = len(ready.stack.experiments)
    recorded = ready.run(early(ready.net), 0.03, force=False)
    assert len(ready.stack.experiments) == count + 1
    assert np.isfinite(complete["2.time"]).any()
    assert set(recorded.files) == set(complete)
    for name, array in complete.items():
        np.testing.assert_array_equal(recorded[name], array)
    assert not list(ready.folder.glob("y.npz.run*"))


def test_results_of_runs_that_cannot_be_removed_are_no_error(interrupted, monkeypatch, capsys):
    def fail(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    ready, complete = interrupted
    monkeypatch.setattr(os, "unlink", fail)
    recorded = ready.run(early(ready.net), 0.03, force=False)
    assert set(recorded.files) == set(complete)
    assert f"y.npz.run* could not be removed ({os.strerror(errno.EIO)})" in capsys.readouterr().err
    with pytest.raises(OSError, match="run0"):
        ready.run(early(ready.net), 0.03)  # with --force they must not be used


def test_results_of_anything_else_are_not_mixed(interrupted):
    ready, _ = interrupted
    file = ready.folder / "y.npz.run0"
    before = file.read_bytes()
    later = {name: (time + 1e-3, index) for name, (time, index) in early(ready.net).items()}
    with pytest.raises(SystemExit, match="run0 belongs to different --input"):
        ready.run(later, 0.03, force=False)
    with pytest.raises(SystemExit, match="run0 belongs to different --duration"):
        ready.run(early(ready.net), 0.02, force=False)
    (calibration,) = ready.folder.glob("calibration.0.*")
    content = calibration.read_bytes()
    result = pickle.loads(content)
    result.again = True
    calibration.write_bytes(pickle.dumps(result))
    with pytest.raises(SystemExit, match="run0 belongs to different --calibration"):
        ready.run(early(ready.net), 0.03, force=False)
    calibration.write_bytes(content)
    net = ready.folder / "network.json"
    content = net.read_text()
    net.write_text(content.replace(ready.net["mapping"], "0" * 16))
    with pytest.raises(SystemExit, match="run0 belongs to different network"):
        ready.run(early(ready.net), 0.03, force=False)
    assert file.read_bytes() == before
    net.write_text(content)
    count = len(ready.stack.experiments)
    ready.run(early(ready.net), 0.03)  # with --force
    assert len(ready.stack.experiments) == count + 2


def test_later_results_belong_to_those_of_earlier_runs(interrupted, monkeypatch):
    """A second run that replayed other spikes is not used."""
    ready, _ = interrupted
    results = ready.script("run_results").RunResults
    monkeypatch.setattr(results, "remove", lambda self: None)
    net, common = ready.net, ready.script("common")
    trains = common.read_inputs(str(ready.folder / "x.npz"), net, 0.03)
    (calibration, refined) = sorted(map(str, ready.folder.glob("calibration.*.pkl")))
    records = results(str(ready.folder / "y.npz"), net, trains, 0.03)
    assert records.load(0, calibration)
    trains.add((2, 0), [[1e-6], []])
    records.save(1, net["runs"][1], refined)
    again = results(str(ready.folder / "y.npz"), net, trains, 0.03)
    assert again.load(0, calibration)
    assert again.load(1, refined)
    trains.add((1, 0), [[2e-6], [3e-6]])
    changed = results(str(ready.folder / "y.npz"), net, trains, 0.03)
    changed.save(0, net["runs"][0], calibration)
    with pytest.raises(SystemExit, match="run1 belongs to different recordings of earlier runs"):
        changed.load(1, refined)


def test_a_recording_is_overwritten_by_force_alone(deployed):
    ready = deployed(network(4, 3))
    ready.run(early(ready.net), 0.01)
    before = (ready.folder / "y.npz").read_bytes()
    with pytest.raises(SystemExit, match="exists: pass --force"):
        ready.run(early(ready.net), 0.02, force=False)
    assert (ready.folder / "y.npz").read_bytes() == before


def test_a_recording_of_the_scripts_identifies_itself(deployed):
    graph = network(4, 3, 2)
    ready = deployed(graph)
    inputs = early(ready.net)
    ready.run(inputs, 0.01)
    inputs["input"][0][1] += 1e-4  # samples differ
    ready.run(inputs, 0.01)
    path, lowered = ready.folder / "y.npz", lower(graph)
    assert lowered.dtype == np.float32
    sent = {"input": (inputs["input"][0].astype(np.float32), inputs["input"][1])}
    recorded = read_recording(path, sent, lowered, mapping=digest(ready.mapping))
    assert (recorded.t_end, recorded.notes) == (0.01, ())
    swapped = {name: (time[::-1], index[::-1]) for name, (time, index) in sent.items()}
    assert_refused(
        lambda: read_recording(path, swapped, lowered), UsageError, "recorded as sample 1"
    )


# ---- strength of the synaptic inputs


@pytest.mark.parametrize("case", ["two layers", "a readout", "several circuits"])
def test_the_slope_is_measured_on_the_chip(case, deployed, monkeypatch, capsys):
    graph = {
        "two layers": lambda: network(12, 9, 4),
        "a readout": lambda: network(8, 6, 3, readout=True),
        "several circuits": lambda: network(300, 12, 3),
    }[case]()
    ready = deployed(graph, QuantizeOptions(slope=0.05), signs="free")
    ready.stack.int8 = True
    table = ready.folder / "slopes.json"
    settings = ("--i-synin-gm", "400", "700")
    monkeypatch.setattr(sys, "argv", ["measure", "--output", str(table), *settings])
    ready.script("measure_slope").main()
    first, second = read_slopes(table)
    assert [first.i_synin_gm, second.i_synin_gm] == [400, 700]
    assert first.slope == pytest.approx(0.05, rel=0.03)
    assert quantize(graph, QuantizeOptions(slope=(first, second))).measured == min(
        (first, second), key=lambda measured: measured.slope
    )
    assert "delay 0.00 us" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="exists: pass --force"):
        ready.script("measure_slope").main()
    assert ready.stack.counts["calibrated"] == 2
