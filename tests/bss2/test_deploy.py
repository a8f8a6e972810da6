"""The scripts do with the chip's software what the mapping says: judged by what the fake software
was told.
"""

import dataclasses
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest

from jaxsnn.bss2.check import check
from jaxsnn.bss2.chip import BOTH, DISABLED, HICANN_X, SMALL, crossbar_nodes
from jaxsnn.bss2.deploy import deploy
from jaxsnn.bss2.deploy.content import calibrations_of
from jaxsnn.bss2.mapping import PlacedNeuron, Run, Source
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
        netlist = quantized.netlist
        mapping = (
            layer_by_layer_mapping(netlist)
            if by_layer
            else place_and_route(netlist, **search).mapping
        )
        return Deployment(tmp_path, monkeypatch, quantized, mapping)

    return make


def early(net, samples=2):
    """Channel i of each input fires after i + 1 milliseconds; an event that is none at the end."""
    found = {}
    for one in net["populations"]:
        if one["external"] and one["name"] != net["bias_source"]:
            size = one["size"]
            time = np.tile(np.append(np.arange(1, size + 1) * 1e-3, np.inf), (samples, 1))
            found[one["name"]] = time, np.tile(np.arange(size + 1), (samples, 1))
    return found


def run_as_told(mapping, number, experiment):
    """The run that a RoutingResult describes, with the neurons as they were placed."""
    (routed,) = experiment.result.execution_instances.values()
    (instance,) = experiment.network.execution_instances.values()
    run, chip = mapping.runs[number], HICANN_X
    masks = np.zeros((2, chip.drivers), np.int32)
    for driver, mask in routed.synapse_driver_compare_masks.items():
        masks[divmod(driver.value(), chip.drivers)] = mask
    modes = np.zeros((2, chip.rows), np.int8)
    for row, mode in routed.synapse_row_modes.items():
        modes[divmod(row.value(), chip.rows)] = mode.value
    nodes = {(node.entry, node.output): filters for node, filters in routed.crossbar_nodes.items()}
    table = [
        (*node, nodes[node].mask.value(), nodes[node].target.value())
        for node in crossbar_nodes(chip)
    ]
    synapses = sorted(
        (
            *divmod(one.synapse_row.value(), chip.rows),
            one.synapse_on_row.value(),
            one.label,
            one.weight,
        )
        for placed in routed.connections.values()
        for connection in placed
        for one in connection
    )
    ids = {one.circuits[one.head]: one for one in run.neurons}
    neurons = []
    for key, labels in routed.internal_neuron_labels.items():
        for neuron, label in zip(instance.populations[key].neurons, labels, strict=True):
            circuits = tuple(
                divmod(one.value(), chip.columns) for one in neuron.coordinate.get_atomic_neurons()
            )
            (addresses,) = label.values()
            assert len(addresses) == len(circuits)
            assert addresses[1:] == [None] * (len(circuits) - 1)
            one = ids[circuits[0]]
            neurons.append(
                PlacedNeuron(
                    population=one.population,
                    index=one.index,
                    circuits=circuits,
                    head=0,
                    address=one.address if addresses[0] is None else addresses[0],
                    recorded=True,
                )
            )
    ((labels),) = routed.external_spike_labels.values()
    sources = tuple(
        Source(
            population=one.population,
            index=one.index,
            from_run=one.from_run,
            events=tuple(event.value() for event in events),
        )
        for one, events in zip(run.sources, labels, strict=True)
    )
    return Run(
        method="told",
        neurons=tuple(sorted(neurons, key=lambda one: (one.population, one.index))),
        sources=sources,
        compare_masks=masks,
        row_modes=modes,
        synapses=np.array(synapses, np.int32),
        crossbar=np.array(table, np.int32),
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
    quantized, mapping = ready.quantized, ready.mapping
    ready.run(early(ready.net), 2e-3)
    stack = ready.stack
    assert stack.calls == ["init", "release"]
    runs = [
        run_as_told(mapping, number, experiment)
        for number, experiment in enumerate(stack.experiments)
    ]
    assert check(dataclasses.replace(mapping, runs=tuple(runs)), quantized.netlist) == ()


def test_parameters_reach_the_modules_in_the_chips_units(deployed):
    graph = build.sequential(
        build.input(2),
        build.linear(weight=np.array([[1.0, -1.0], [0.5, 1.0]])),
        build.cubalif(tau_mem=np.array([8e-3, 16e-3]), tau_syn=4e-3),
    )
    ready = deployed(graph)
    ready.run(early(ready.net), 0.02)
    (experiment,) = ready.stack.experiments
    (neurons,) = (one for one in experiment.modules.nodes if hasattr(one, "parameters"))
    taken = dict(neurons.parameters)
    np.testing.assert_allclose(taken.pop("tau_mem"), [8e-6, 16e-6])
    assert taken.pop("threshold") == ready.quantized.populations["2"].v_threshold[0]
    assert taken == {
        "leak": 80,
        "reset": 80,
        "tau_syn": pytest.approx(4e-6),
        "refractory_time": pytest.approx(40e-9),
        "i_synin_gm": 500,
    }
    # currents rest for 10 of the longest time constants between samples
    assert experiment.inter_batch_entry_wait == pytest.approx(10 * 16e-6 / 8e-9, abs=1)


def test_times_go_in_and_out_at_cycles_of_8_ns(deployed):
    """Input 1.2345 us of the chip is cycle 154; a grid of 1 us would give cycle 125."""
    ready = deployed(network(1, 1))
    common, run = ready.script("common"), ready.script("run_hxtorch")
    trains = common.Trains(1)
    trains.add((0, 0), [[1.2345e-6, 1.2385e-6]])
    assert run.cycles_of(ready.net, ready.net["runs"][0], trains) == [[[154, 155]]]


def test_later_runs_get_what_earlier_ones_recorded_to_the_cycle(deployed):
    ready = deployed(network(4, 3, 2, mean=0.8), by_layer=True)
    outputs = ready.run(early(ready.net), 0.03)
    _, second = ready.stack.experiments
    source = next(one for one in second.modules.nodes if type(one).__name__ == "ExactSource")
    sent = [sorted(cycle for train in sample for cycle in train) for sample in source.cycles]
    recorded = np.sort(outputs["2.time"]) / 1000 / 8e-9
    assert sent[0]
    np.testing.assert_allclose(sent[0], recorded[0][np.isfinite(recorded[0])], rtol=1e-9)


def test_one_calibration_serves_all_runs(deployed):
    """Thresholds of the layers differ, their time constants do not: one calibration is refined."""
    ready = deployed(network(4, 3, 2), by_layer=True)
    assert [one["refines"] for one in ready.net["calibrations"]] == [None, 0]
    ready.run(early(ready.net), 0.01)
    ready.run(early(ready.net), 0.01)  # results are kept
    assert ready.stack.counts == {"calibrated": 1, "refined": 1, "connections": 1}
    assert any("calibration 0 is refined" in note for note in ready.done.notes)
    told = json.loads((ready.folder / "calix_target.1.json").read_text())
    neuron = ready.quantized.populations["4"]
    head = ready.net["runs"][1]["groups"][0]["heads"][0]
    assert told["threshold"][head] == neuron.v_threshold[0]
    assert told["tau_mem"][head] == pytest.approx(10.0)  # microseconds
    ready.run(early(ready.net), 0.01, "--calibration", *map(str, ready.folder.glob("*.pkl")))
    assert ready.stack.counts["calibrated"] == 1
    with pytest.raises(SystemExit, match="1 calibrations are given, the network needs 2"):
        ready.run(early(ready.net), 0.01, "--calibration", "c.pkl")


@pytest.mark.parametrize(
    ("time", "index", "message"),
    [
        ([[1e-3, 2e-3]], [[0, 9]], "'input.index' has 9 at .0, 1., and must be from 0 to 3"),
        ([[1e-3]], [[-1]], "'input.index' has -1"),
        ([[1e-3]], [[1.5]], "'input.index' holds float64, not whole numbers"),
        ([[np.nan]], [[0]], "'input.time' has nan at .0, 0., and must be at least 0 s"),
        ([[-1e-3]], [[0]], "'input.time' has -0.001"),
        ([1e-3, 2e-3], [0, 1], r"has the shape \(2,\)"),
        ([[1e-3, 2e-3]], [[0]], r"has the shape \(1, 2\) and 'input.index' \(1, 1\)"),
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
    assert "1 events of 'input' at or after 0.01 s are left out" in capsys.readouterr().err


def test_other_time_constants_are_calibrated_again(deployed):
    last = build.cubalif(tau_mem=30e-3, tau_syn=5e-3)
    graph = build.sequential(
        build.input(4), build.linear(3), build.cubalif(**NEURONS), build.linear(2), last, seed=0
    )
    ready = deployed(graph, by_layer=True)
    assert [one["refines"] for one in ready.net["calibrations"]] == [None, None]
    assert any("calibrated again" in note for note in ready.done.notes)


def test_runs_whose_circuits_agree_share_a_calibration():
    quantized = quantize(network(4, 500, 20))
    mapping = place_and_route(quantized.netlist).mapping
    found = calibrations_of(mapping, quantized)
    assert sorted(run for one in found for run in one.runs) == list(range(len(mapping.runs)))
    for one in found:
        for run in one.runs:
            for neuron in mapping.runs[run].neurons:
                name = mapping.populations[neuron.population].name
                threshold = quantized.populations[name].v_threshold[neuron.index]
                for circuit in neuron.circuits:
                    assert one.potentials["threshold", circuit] == threshold


@pytest.mark.parametrize(
    ("change", "lacks"),
    [
        (
            lambda stack: vars(stack.modules["pygrenade_vx.network"]).pop("NetworkBuilder"),
            "Builder",
        ),
        (lambda stack: vars(stack.modules["hxtorch.spiking"]).pop("HXModuleWrapper"), "Wrapper"),
    ],
)
def test_other_releases_are_refused_at_start(deployed, change, lacks):
    ready = deployed(network(3, 2))
    change(ready.stack)
    with pytest.raises(SystemExit, match=f"has no .*{lacks}: use BrainScaleS OS 12"):
        ready.run(early(ready.net), 0.01)
    assert not ready.stack.counts


@pytest.fixture
def routed(deployed):
    """`routed(weights, signs)`: the routing of a mapped 2-2 network whose weights were changed
    since.
    """

    def make(weights, signs):
        weight = np.array([[63.0, -20.0], [0.0, 63.0]])
        graph = build.sequential(
            build.input(2), build.linear(weight=weight), build.cubalif(**NEURONS)
        )
        ready = deployed(graph, signs=signs)
        module = ready.script("run_hxtorch")
        run = {**ready.net["runs"][0], "links": [{**ready.net["runs"][0]["links"][0], **weights}]}
        trains = ready.script("common").Trains(1)
        (calibration,) = ready.script("calibrate").calibrated(ready.net)
        ready.stack.modules["hxtorch"].init_hardware()
        module.run_once(ready.net, run, trains, 1e-5, str(calibration))
        (instance,) = ready.stack.experiments[-1].result.execution_instances.values()
        return sorted(
            (instance.synapse_row_modes[one.synapse_row].name, one.weight)
            for placed in instance.connections.values()
            for connection in placed
            for one in connection
        )

    return make


def test_weights_may_change_in_training_and_signs_where_they_are_free(routed):
    excites, inhibits = "excitatory", "inhibitory"
    assert routed({}, "fixed") == [(excites, 63), (excites, 63), (inhibits, 20)]
    assert routed({"weight": [40, -7, 0]}, "fixed") == [(excites, 40), (inhibits, 7)]
    assert routed({"weight": [-63, 5, 63]}, "free") == [(excites, 5), (excites, 63), (inhibits, 63)]
    more = {"source": [0, 1, 0, 1], "target": [0, 0, 1, 1], "weight": [63, -20, 3, 63]}
    for weights, says in (
        ({"weight": [63, 20, 63]}, "another sign than when it was mapped"),
        ({"weight": [64, -20, 63]}, "weight 64 and 1 synapses"),
        (more, "weight 3 and no synapse"),
    ):
        with pytest.raises(RuntimeError, match=says):
            routed(weights, "fixed")


def test_without_the_stack_a_script_says_what_is_missing(tmp_path):
    quantized = quantize(network(3, 2))
    deploy(place_and_route(quantized.netlist).mapping, quantized, tmp_path)
    data = str(tmp_path / "x.npz")
    for name, arguments in (
        ("run_hxtorch.py", ["--input", data, "--output", "y.npz", "--duration", "1"]),
        ("calibrate.py", []),
    ):
        arguments = [name, *arguments]
        code = "import sys; sys.modules.update(hxtorch=None, calix=None); import runpy; "
        code += f"sys.argv = {arguments!r}; sys.path.insert(0, '.'); "
        code += f"runpy.run_path({name!r}, run_name='__main__')"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "cannot be imported" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_readouts_have_no_address(deployed):
    """They send nothing, so that nothing can be taken for theirs."""
    ready = deployed(network(8, 6, 3, readout=True))
    (run,) = ready.net["runs"]
    for group in run["groups"]:
        fires = ready.net["populations"][group["population"]]["fires"]
        assert all((one is not None) == fires for one in group["addresses"])


def test_the_folder_says_what_it_is(deployed):
    ready = deployed(network(4, 3, 2), by_layer=True)
    text = (ready.folder / "README.md").read_text()
    for path in ready.folder.iterdir():
        if path.suffix in (".py", ".json") and path.name != "__pycache__":
            assert path.name in text
    assert "`input.time`" in text
    neuron = ready.quantized.populations["4"]
    line = f"| 4 | 80 | {neuron.v_reset[0]:.0f} | {neuron.v_threshold[0]:.0f} | 10 | 5 | 0.04 |"
    assert line in text


def test_what_is_wrong_is_not_deployed(deployed, tmp_path):
    ready = deployed(network(3, 2))
    quantized, mapping = ready.quantized, ready.mapping
    (run,) = mapping.runs
    side, row = np.argwhere(run.row_modes == DISABLED)[0]
    synapses, modes = run.synapses.copy(), run.row_modes.copy()
    synapses[0, 4] ^= 1
    modes[side, row] = BOTH
    for changes, says in (
        ({"synapses": synapses}, "one violation in run 0"),
        ({"row_modes": modes}, rf"row \({side}, {row}\) excites and inhibits"),
    ):
        wrong = dataclasses.replace(mapping, runs=(dataclasses.replace(run, **changes),))
        call = lambda wrong=wrong: deploy(wrong, quantized, tmp_path / "a")  # noqa: E731
        assert_refused(call, MappingError, says)
    small = dataclasses.replace(mapping, chip=SMALL)
    assert_refused(lambda: deploy(small, quantized, tmp_path / "a"), MappingError, "chip 'small'")
    assert not (tmp_path / "a").exists()


def test_a_folder_is_written_over_by_force_alone(deployed, tmp_path):
    ready = deployed(network(3, 2))
    before = (tmp_path / "network.json").read_bytes()
    again = lambda **options: deploy(ready.mapping, ready.quantized, tmp_path, **options)  # noqa: E731
    assert_refused(again, FileError, "exists")
    again(force=True)
    assert (tmp_path / "network.json").read_bytes() == before


def test_a_network_in_float32_is_deployed_too(deployed):
    graph = network(4, 3)
    nodes = [
        node.replace(
            **{name: np.asarray(value, np.float32) for name, value in node.parameters.items()}
        )
        for node in graph.nodes.values()
        if node.parameters
    ]
    ready = deployed(graph.with_nodes(nodes))
    assert ready.net["slope"] == pytest.approx(ready.quantized.slope)


def test_the_command_deploys_what_map_made(tmp_path, capsys):
    write(tmp_path / "net.nir", network(6, 5, 3, bias=0.1))
    file, mapping, folder = (str(tmp_path / name) for name in ("net.nir", "m.json", "out"))
    bias = ("--bias", "source")
    assert "biases at 5 of its 5 neurons" in refused(capsys, "map", file, "-o", mapping)[1]
    assert call(capsys, "map", file, "-o", mapping, *bias, "-q")[0] == 0
    code, out, err = call(capsys, "deploy", file, mapping, "-o", folder, *bias, "--json")
    files = json.loads(out[out.index('{\n  "schema"') :])["files"]
    assert (code, [path.rsplit("/", 1)[-1] for path in files]) == (
        0,
        [
            *("README.md", "network.json", "calix_target.0.json", "calibrate.py"),
            *("chip_modules.py", "common.py", "routing.py", "run_hxtorch.py"),
        ],
    )
    assert "never run on a chip" in err
    assert json.loads((tmp_path / "out" / "network.json").read_text())["bias_source"] == "bias"
    finer = ["deploy", file, mapping, "-o", folder, *bias, "--synapses-per-weight", "2", "--force"]
    assert "it is of the net" in refused(capsys, *finer)[1]
