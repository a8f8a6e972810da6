"""The scripts do with the chip's software what the mapping says: judged by what the fake software
was told.
"""

import dataclasses
import importlib
import itertools
import json
import subprocess
import sys
import types

import numpy as np
import pytest

from jaxsnn.bss2.check import check
from jaxsnn.bss2.chip import HICANN_X, SMALL, crossbar_nodes
from jaxsnn.bss2.deploy import deploy
from jaxsnn.bss2.mapping import PlacedNeuron, Run, Source
from jaxsnn.bss2.search.portfolio import place_and_route
from jaxsnn.bss2.search.quantize import QuantizeOptions, quantize
from jaxsnn.commands.cli import main
from jaxsnn.errors import FileError, MappingError
from jaxsnn.nir import build, write
from tests.bss2.fake_stack import Stack
from tests.bss2.recipes import layer_by_layer_mapping

NEURONS = {"tau_mem": 10e-3, "tau_syn": 5e-3}


def network(*sizes, seed=0, readout=False, bias=0.0):
    random = np.random.default_rng(seed)
    layers = [build.input(sizes[0])]
    for number, (before, size) in enumerate(itertools.pairwise(sizes)):
        weight = random.normal(size=(size, before))
        layers.append(build.affine(weight=weight, bias=np.full(size, bias)))
        last = readout and number == len(sizes) - 2
        layers.append(build.cubali(**NEURONS) if last else build.cubalif(**NEURONS))
    return build.sequential(*layers)


def deployed(tmp_path, quantized, mapping, **options):
    deploy(mapping, quantized, tmp_path, **options)
    return json.loads((tmp_path / "network.json").read_text())


@pytest.fixture
def script(tmp_path, monkeypatch):
    """`script(name)` imports a script of the folder, alone with its neighbours."""

    def load(name):
        monkeypatch.syspath_prepend(str(tmp_path))
        for one in ("common", "routing", "run_hxtorch", "run_pynn"):
            monkeypatch.delitem(sys.modules, one, raising=False)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    return load


@pytest.fixture
def stack(monkeypatch):
    made = Stack()
    for name, module in made.modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return made


def inputs(path, net, samples=2):
    arrays = {}
    for one in net["populations"]:
        if one["external"] and one["name"] != net["bias_source"]:
            size = one["size"]
            time = np.tile(np.append(np.arange(1, size + 1) * 1e-3, np.inf), (samples, 1))
            arrays[f"{one['name']}.time"] = time
            arrays[f"{one['name']}.index"] = np.tile(np.arange(size + 1), (samples, 1))
    np.savez(path, **arrays)
    return str(path)


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
        modes[divmod(row.value(), chip.rows)] = mode
    nodes = {node.parts[::-1]: filters for node, filters in routed.crossbar_nodes.items()}
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
                    address=addresses[0],
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
def test_hxtorch_is_told_the_mapping(case, tmp_path, script, stack, monkeypatch):
    graph, options, signs = CASES[case]()
    quantized = quantize(graph, options)
    mapping = place_and_route(quantized.netlist, signs=signs).mapping
    net = deployed(tmp_path, quantized, mapping)
    data = inputs(tmp_path / "x.npz", net)
    arguments = ["run", "--input", data, "--output", str(tmp_path / "y.npz"), "--duration", "0.5"]
    monkeypatch.setattr(sys, "argv", arguments)
    script("run_hxtorch").main()
    assert stack.calls == ["init", "release"]
    assert len(stack.experiments) == len(mapping.runs)
    runs = [
        run_as_told(mapping, number, experiment)
        for number, experiment in enumerate(stack.experiments)
    ]
    assert check(dataclasses.replace(mapping, runs=tuple(runs)), quantized.netlist) == ()
    for experiment in stack.experiments:
        for module in experiment.modules:
            for name in getattr(module, "taken", ()):
                assert name in module.parameters
    outputs = np.load(tmp_path / "y.npz")
    readout = case == "a readout"
    assert outputs[f"{list(quantized.populations)[-1]}.{'membrane' if readout else 'time'}"].size


def test_parameters_reach_the_modules_in_the_chips_units(tmp_path, script, stack, monkeypatch):
    graph = build.sequential(
        build.input(2),
        build.linear(weight=np.array([[1.0, -1.0], [0.5, 1.0]])),
        build.cubalif(tau_mem=np.array([8e-3, 16e-3]), tau_syn=4e-3),
    )
    quantized = quantize(graph)
    net = deployed(tmp_path, quantized, place_and_route(quantized.netlist).mapping)
    data = inputs(tmp_path / "x.npz", net)
    arguments = ["run", "--input", data, "--output", str(tmp_path / "y.npz"), "--duration", "0.02"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--calibration", "c.pkl", "--dt", "2e-6"])
    script("run_hxtorch").main()
    (experiment,) = stack.experiments
    assert (experiment.calib_path, experiment.dt) == ("c.pkl", 2e-6)
    (neurons,) = (one for one in experiment.modules if hasattr(one, "parameters"))
    taken = {name: neurons.parameters[name] for name in neurons.taken}
    np.testing.assert_allclose(taken.pop("tau_mem"), [8e-6, 16e-6])
    threshold = quantized.populations["2"].v_threshold
    assert taken.pop("threshold") == threshold[0]
    assert taken == {
        "leak": 80,
        "reset": 80,
        "tau_syn": pytest.approx(4e-6),
        "refractory_time": pytest.approx(40e-9),
    }
    assert neurons.parameters["i_synin_gm"] == 500
    (source,) = (one for one in experiment.modules if type(one).__name__ == "InputNeuron")
    spikes = source.inputs[0].spikes
    assert spikes.shape == (10, 2, 2)
    assert np.argwhere(spikes[:, 0] > 0).tolist() == [
        [0, 0],
        [1, 1],
    ]  # 1 and 2 ms are 0.5 and 1 step of 2 us


def test_later_runs_get_what_earlier_ones_recorded(tmp_path, script, stack, monkeypatch):
    quantized = quantize(network(4, 3, 2))
    mapping = layer_by_layer_mapping(quantized.netlist)
    net = deployed(tmp_path, quantized, mapping)
    arguments = ["--input", inputs(tmp_path / "x.npz", net), "--output", str(tmp_path / "y.npz")]
    monkeypatch.setattr(sys, "argv", ["run", *arguments, "--duration", "0.02"])
    script("run_hxtorch").main()
    source = next(
        one for one in stack.experiments[1].modules if type(one).__name__ == "InputNeuron"
    )
    sent = source.inputs[0].spikes
    assert np.argwhere(sent[:, 1] > 0).tolist() == [
        [0, 0],
        [1, 1],
        [2, 2],
    ]  # neuron i of the fake fires at step i
    outputs = np.load(tmp_path / "y.npz")
    np.testing.assert_allclose(outputs["4.time"], [[0, 1e-3], [0, 1e-3]])
    assert outputs["4.index"].tolist() == [[0, 1], [0, 1]]


@pytest.fixture
def routed(tmp_path, script, stack):
    """`routed(weights, signs)`: the routing of a mapped 2-2 network whose weights were changed
    since.
    """

    def make(weights, signs):
        weight = np.array([[63.0, -20.0], [0.0, 63.0]])
        graph = build.sequential(
            build.input(2), build.linear(weight=weight), build.cubalif(**NEURONS)
        )
        quantized = quantize(graph)
        net = deployed(
            tmp_path, quantized, place_and_route(quantized.netlist, signs=signs).mapping, force=True
        )
        module = script("run_hxtorch")
        run = {**net["runs"][0], "links": [{**net["runs"][0]["links"][0], **weights}]}
        trains = script("common").Trains(1)
        options = types.SimpleNamespace(
            dt=1e-6, calibration=None, i_synin_gm=500, synapse_dac_bias=600
        )
        module.run_once(net, run, trains, 10, options)
        (instance,) = stack.experiments[-1].result.execution_instances.values()
        return sorted(
            (instance.synapse_row_modes[one.synapse_row], one.weight)
            for placed in instance.connections.values()
            for connection in placed
            for one in connection
        )

    return make


def test_weights_may_change_in_training_and_signs_where_they_are_free(routed):
    excites, inhibits = 1, 2
    assert routed({}, "fixed") == [(excites, 63), (excites, 63), (inhibits, 20)]
    assert routed({"weight": [40, -7, 0]}, "fixed") == [(excites, 40), (inhibits, 7)]
    assert routed({"weight": [-63, 5, 63]}, "free") == [(excites, 5), (excites, 63), (inhibits, 63)]
    with pytest.raises(RuntimeError, match="another sign than when it was mapped"):
        routed({"weight": [63, 20, 63]}, "fixed")
    with pytest.raises(RuntimeError, match="weight 64 and 1 synapses"):
        routed({"weight": [64, -20, 63]}, "fixed")
    with pytest.raises(RuntimeError, match="weight 3 and no synapse"):
        routed(
            {"source": [0, 1, 0, 1], "target": [0, 0, 1, 1], "weight": [63, -20, 3, 63]}, "fixed"
        )


class FakePynn(types.ModuleType):
    """PyNN.brainscales: records what it is told; each neuron spikes once, at its number in
    milliseconds.
    """

    def __init__(self):
        super().__init__("pynn_brainscales.brainscales2")
        self.calls, self.populations, self.projections = [], [], []
        self.cells = types.SimpleNamespace(
            SpikeSourceArray=lambda spike_times: ("source", spike_times),
            CalibHXNeuronCuba=lambda **values: ("neuron", values),
        )
        synapses = types.SimpleNamespace(StaticSynapse=lambda weight: weight)
        self.standardmodels = types.SimpleNamespace(synapses=synapses)

    def setup(self, neuronPermutation):
        self.calls.append(("setup", neuronPermutation))
        self.populations.append([])

    def Population(self, size, cell):
        one = types.SimpleNamespace(size=size, cell=cell, record=lambda what: None)
        one.get_data = lambda what: types.SimpleNamespace(
            segments=[
                types.SimpleNamespace(spiketrains=[[0.001 * number] for number in range(size)])
            ]
        )
        self.populations[-1].append(one)
        return one

    def FromListConnector(self, rows, column_names):
        assert column_names == ["weight"]
        return rows

    def Projection(self, pre, post, connector, synapse_type, receptor_type):
        self.projections.append((len(self.calls), pre, post, connector, receptor_type))

    def run(self, milliseconds):
        self.calls.append(("run", milliseconds))

    def end(self):
        self.calls.append("end")


def test_pynn_is_told_the_network(tmp_path, script, monkeypatch):
    quantized = quantize(network(5, 4, 3))
    mapping = place_and_route(quantized.netlist).mapping
    net = deployed(tmp_path, quantized, mapping)
    pynn = FakePynn()
    monkeypatch.setitem(sys.modules, "pynn_brainscales", types.ModuleType("pynn_brainscales"))
    monkeypatch.setitem(sys.modules, "pynn_brainscales.brainscales2", pynn)
    sys.modules["pynn_brainscales"].brainscales2 = pynn
    data = inputs(tmp_path / "x.npz", net, samples=1)
    monkeypatch.setattr(
        sys,
        "argv",
        ["run", "--input", data, "--output", str(tmp_path / "y.npz"), "--duration", "0.05"],
    )
    script("run_pynn").main()
    (_, permutation), (_, duration), _ = pynn.calls
    heads = [
        256 * one.circuits[one.head][0] + one.circuits[one.head][1]
        for one in mapping.runs[0].neurons
    ]
    assert permutation == heads
    assert duration == pytest.approx(0.05)  # milliseconds of the chip
    (populations,) = pynn.populations
    assert [one.size for one in populations] == [1] * 5 + [4, 3]
    assert populations[2].cell == ("source", [pytest.approx(0.003)])
    kind, values = populations[5].cell
    assert kind == "neuron"
    assert (values["v_rest"], values["tau_m"], values["tau_syn_E"]) == (
        80,
        pytest.approx(10),
        pytest.approx(5),
    )
    matrix = np.zeros((7, 12), int)
    offset = {id(one): place for place, one in enumerate(populations[:5])}
    offset |= {id(populations[5]): 5, id(populations[6]): 9}
    for _, pre, post, rows, receptor in pynn.projections:
        for source, target, weight in rows:
            assert (weight > 0) == (receptor == "excitatory")
            matrix[offset[id(post)] - 5 + target, offset[id(pre)] + source] = weight
    expected = np.zeros((7, 12), int)
    expected[quantized.netlist.post - 5, quantized.netlist.pre] = quantized.netlist.weight
    np.testing.assert_array_equal(matrix, expected)
    outputs = np.load(tmp_path / "y.npz")
    np.testing.assert_allclose(outputs["4.time"], [[0.0, 1e-3, 2e-3]])


def test_without_the_stack_a_script_says_what_is_missing(tmp_path):
    quantized = quantize(network(3, 2))
    net = deployed(tmp_path, quantized, place_and_route(quantized.netlist).mapping)
    data = inputs(tmp_path / "x.npz", net)
    for name in ("run_hxtorch.py", "run_pynn.py"):
        arguments = [name, "--input", data, "--output", "y.npz", "--duration", "1"]
        code = "import sys; sys.modules.update(hxtorch=None, pynn_brainscales=None); import runpy; "
        code += f"sys.argv = {arguments!r}; sys.path.insert(0, '.'); "
        code += f"runpy.run_path({name!r}, run_name='__main__')"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "cannot be imported" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_scripts_that_cannot_run_the_network_are_left_out_and_named(tmp_path):
    recurrent = build.network(
        {
            "in": build.input(2),
            "w": build.linear(3),
            "n": build.cubalif(**NEURONS),
            "back": build.linear(3),
            "out": build.output(),
        },
        [("in", "w", "n", "out"), ("n", "back", "n")],
        seed=0,
    )
    for name, graph, absent in (
        ("loop", recurrent, "run_hxtorch.py"),
        ("readout", network(3, 2, readout=True), "run_pynn.py"),
        ("circuits", network(300, 2), "run_pynn.py"),
    ):
        quantized = quantize(graph)
        done = deploy(place_and_route(quantized.netlist).mapping, quantized, tmp_path / name)
        assert not any(path.endswith(absent) for path in done.files)
        assert any(absent in note for note in done.notes)
        assert all((tmp_path / name / path).exists() for path in done.files)


def test_what_is_wrong_is_not_deployed(tmp_path):
    quantized = quantize(network(3, 2))
    mapping = place_and_route(quantized.netlist).mapping
    mapping.runs[0].synapses[0, 4] ^= 1
    with pytest.raises(MappingError, match="the mapping has a violation in run 0"):
        deploy(mapping, quantized, tmp_path)
    with pytest.raises(MappingError, match="chip 'small'"):
        deploy(dataclasses.replace(mapping, chip=SMALL), quantized, tmp_path)
    mapping.runs[0].synapses[0, 4] ^= 1
    deploy(mapping, quantized, tmp_path / "a")
    before = (tmp_path / "a" / "network.json").read_bytes()
    with pytest.raises(FileError, match="exists"):
        deploy(mapping, quantized, tmp_path / "a")
    deploy(mapping, quantized, tmp_path / "a", force=True)
    assert (tmp_path / "a" / "network.json").read_bytes() == before


def test_a_network_in_float32_is_deployed_too(tmp_path):
    graph = network(4, 3)
    nodes = [
        node.replace(
            **{name: np.asarray(value, np.float32) for name, value in node.parameters.items()}
        )
        for node in graph.nodes.values()
        if node.parameters
    ]
    quantized = quantize(graph.with_nodes(nodes))
    content = deployed(tmp_path, quantized, place_and_route(quantized.netlist).mapping)
    assert content["slope"] == pytest.approx(quantized.slope)


def test_the_command_deploys_what_map_made(tmp_path, capsys):
    write(tmp_path / "net.nir", network(6, 5, 3, bias=0.1))
    file, mapping, folder = (str(tmp_path / name) for name in ("net.nir", "m.json", "out"))
    assert main(["map", file, "-o", mapping]) == 1
    assert "biases at 5 of its 5 neurons" in capsys.readouterr().err
    assert main(["map", file, "-o", mapping, "--bias", "source", "-q"]) == 0
    assert main(["deploy", file, mapping, "-o", folder, "--bias", "source", "--json"]) == 0
    done = capsys.readouterr()
    names = [
        path.rsplit("/", 1)[-1]
        for path in json.loads(done.out[done.out.index('{\n  "schema"') :])["files"]
    ]
    assert names == ["network.json", "common.py", "routing.py", "run_hxtorch.py", "run_pynn.py"]
    assert "never run on a chip" in done.err
    assert json.loads((tmp_path / "out" / "network.json").read_text())["bias_source"] == "bias"
    other = [
        "deploy",
        file,
        mapping,
        "-o",
        folder,
        "--bias",
        "source",
        "--synapses-per-weight",
        "2",
        "--force",
    ]
    assert main(other) == 1
    assert "it is of the net" in capsys.readouterr().err
