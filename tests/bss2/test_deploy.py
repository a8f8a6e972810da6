"""The scripts do with the chip's software what the mapping says: judged by what the fake software
was told.
"""

import dataclasses
import itertools
import json
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

from jaxsnn.bss2.check import check
from jaxsnn.bss2.chip import BOTH, DISABLED, HICANN_X, SMALL, crossbar_nodes
from jaxsnn.bss2.deploy import deploy
from jaxsnn.bss2.deploy.content import calibrations_of
from jaxsnn.bss2.mapping import Run
from jaxsnn.bss2.search.portfolio import place_and_route
from jaxsnn.bss2.search.quantize import QuantizeOptions, quantize
from jaxsnn.errors import FileError, MappingError
from jaxsnn.nir import build, write
from tests.bss2.deployment import Deployment
from tests.bss2.recipes import layer_by_layer_mapping
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
    """`deployed(graph)`: quantised, mapped, written and ready to run, by default in one run."""

    def make(graph, options=None, by_layer=False, **search):
        quantized = quantize(graph, options or QuantizeOptions())
        if by_layer:
            mapping = layer_by_layer_mapping(quantized.netlist)
        else:
            mapping = place_and_route(quantized.netlist, **search).mapping
        return Deployment(tmp_path, monkeypatch, quantized, mapping)

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
    # currents rest for 10 of the longest time constants between samples
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


def test_one_calibration_serves_all_runs(deployed):
    """Thresholds of the layers differ, their time constants do not: one calibration is refined."""
    ready = deployed(network(4, 3, 2), by_layer=True)
    assert [calibration["refines"] for calibration in ready.net["calibrations"]] == [None, 0]
    for _ in range(2):  # results are kept
        ready.run(early(ready.net), 0.01)
    assert ready.stack.counts == {"calibrated": 1, "refined": 1, "connections": 1}
    assert any("calibration 0 is refined" in note for note in ready.done.notes)
    target = json.loads((ready.folder / "calix_target.1.json").read_text())
    head = ready.net["runs"][1]["groups"][0]["heads"][0]
    assert target["threshold"][head] == ready.quantized.populations["4"].v_threshold[0]
    assert target["tau_mem"][head] == pytest.approx(10.0)  # microseconds
    ready.run(early(ready.net), 0.01, "--calibration", *map(str, ready.folder.glob("*.pkl")))
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


def test_other_time_constants_are_calibrated_again(deployed):
    first, last = build.cubalif(**NEURONS), build.cubalif(tau_mem=30e-3, tau_syn=5e-3)
    layers = build.linear(3), first, build.linear(2), last
    ready = deployed(build.sequential(build.input(4), *layers, seed=0), by_layer=True)
    assert [calibration["refines"] for calibration in ready.net["calibrations"]] == [None, None]
    assert any("calibrated again" in note for note in ready.done.notes)


def test_runs_whose_circuits_agree_share_a_calibration():
    quantized = quantize(network(4, 500, 20))
    mapping = place_and_route(quantized.netlist, signs="free").mapping  # which is found sooner
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
    line = f"| 4 | 80 | {neuron.v_reset[0]:.0f} | {neuron.v_threshold[0]:.0f} | 10 | 5 | 0.04 |"
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
    code, out, err = call(capsys, "deploy", file, mapping, "-o", folder, *bias, "--json")
    assert code == 0
    files = json.loads(out[out.index('{\n  "schema"') :])["files"]
    assert [path.rsplit("/", 1)[-1] for path in files] == [
        *("README.md", "network.json", "calix_target.0.json", "calibrate.py"),
        *("chip_modules.py", "common.py", "routing.py", "run_hxtorch.py"),
    ]
    assert "never run on a chip" in err
    assert json.loads((folder / "network.json").read_text())["bias_source"] == "bias"
    again = ("deploy", file, mapping, "-o", folder, *bias, "--force", "-q")
    for flags, expected in (((), 1.0), (("--refractory-time", "20us"), 20.0)):
        assert call(capsys, *again, *flags)[0] == 0
        targets = json.loads((folder / "calix_target.0.json").read_text())
        assert set(targets["refractory_time"]) == {expected, 2.0}  # 2 us: circuits without a neuron
    finer = ["deploy", file, mapping, "-o", folder, *bias, "--synapses-per-weight", "2", "--force"]
    assert "it was made for the netlist" in refused(capsys, *finer)[1]
