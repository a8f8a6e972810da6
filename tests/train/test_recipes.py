"""Training runs as files: the network, the data, what is changed and how it is trained."""

import dataclasses
import itertools
import json
import runpy
import tomllib
from pathlib import Path

import numpy as np
import pytest

import jaxsnn
from jaxsnn.commands.train_command import read_config
from jaxsnn.errors import UsageError
from jaxsnn.network import neuron_models
from jaxsnn.nir.layer_tables import graph_of_table
from jaxsnn.nir.model import nodes
from jaxsnn.train import fit
from jaxsnn.train.options import TrainOptions, check_options
from tests.helpers.command_line import call, refused
from tests.helpers.refusals import assert_refused
from tests.train.test_images import write_idx

RECIPES = sorted((Path(__file__).parents[2] / "examples" / "recipes").glob("*.toml"))
LOSS_OPTIONS = {"temperature", "late_weight", "late_tau", "smoothing", "gain", "decay"}
ENGINE_OPTIONS = {field.name for field in dataclasses.fields(jaxsnn.EventDriven)}
TIMES = {"tau-mem": "20ms", "tau-syn": "10ms"}
DENSE = {"neurons": 4, "weight": [0.5, 0.1]}
CONV = {"channels": 3, "kernel": 3, "weight": [0.5, 0.1]}
LIF = {"type": "LIF", "tau": "30ms", "v-threshold": 2.0, "v_leak": 0.0, "r": 1.0, "v-reset": 0}
OUT = {"neurons": 2, "weight": [1.0, 0.2]}


def table(*layers, size=3, **changes):
    return {"input": size, **TIMES, "layers": list(layers)} | changes


def test_layers_are_connected_one_behind_the_other():
    graph = graph_of_table(table(DENSE | {"feedback": [0.0, 0.1]}, OUT | {"readout": True}), seed=3)
    chain = ["input", "w1", "1", "w2", "2", "output"]
    loop = [("1", "r1"), ("r1", "1")]
    assert sorted(graph.edges) == sorted([*itertools.pairwise(chain), *loop])
    assert graph.nodes["r1"].weight.shape == (4, 4)
    assert (graph.nodes["1"].type, graph.nodes["2"].type) == ("CubaLIF", "CubaLI")
    assert np.allclose(graph.nodes["1"].tau_mem, 0.02)


def test_convolutions_pools_and_what_is_behind_them():
    conv = CONV | {"stride": 2, "padding": 1}
    graph = graph_of_table(table(conv, {"pool": 2}, OUT, size=[2, 8, 8]), seed=3)
    assert graph.nodes["w1"].weight.shape == (3, 2, 3, 3)
    assert graph.nodes["1"].tau_mem.shape == (3, 4, 4)
    assert graph.nodes["w3"].weight.shape == (2, 3 * 2 * 2)
    again, drawn_anew = (
        graph_of_table(table(conv, OUT, size=[2, 8, 8]), seed).nodes["w1"].weight for seed in (3, 4)
    )
    assert np.array_equal(again, graph.nodes["w1"].weight)
    assert not np.array_equal(drawn_anew, graph.nodes["w1"].weight)


def test_a_bias_is_drawn_behind_the_weights_which_it_does_not_change():
    bias, size = {"bias": [0.5, 0.1]}, [2, 8, 8]
    plain, biased = (
        graph_of_table(table(*layers, OUT, size=size), seed=3).nodes
        for layers in ((CONV, DENSE), (CONV | bias, DENSE | bias))
    )
    assert (biased["w1"].type, biased["w2"].type) == ("Conv2d", "Affine")
    assert (biased["w1"].bias.shape, biased["w2"].bias.shape) == ((3,), (4,))
    assert 0 < np.std(biased["w1"].bias) < 0.5
    assert not plain["w1"].bias.any()
    assert np.array_equal(biased["w1"].weight, plain["w1"].weight)


def test_neurons_of_other_types_have_their_parameters_in_a_table():
    voltages = {"v_threshold": 3.0, "v_leak": 0.0, "v_reset": 0.0}
    synaptic = {"type": "CubaLIF", "r": 1.0, "w_in": 1.0, **voltages}
    layers = [
        DENSE | {"neuron": LIF, "readout": False},
        DENSE | {"neuron": synaptic, "tau-mem": "50ms"},
        OUT,
    ]
    graph = graph_of_table(table(*layers), seed=3)
    first, second = graph.nodes["1"], graph.nodes["2"]
    assert (first.type, second.type) == ("LIF", "CubaLIF")
    assert np.allclose(first.tau, 0.03)
    assert np.allclose(first.v_threshold, np.full(4, 2.0))
    # Times of the layer and the network apply if the neuron's table has none.
    assert np.allclose((second.tau_mem, second.tau_syn), [[0.05] * 4, [0.01] * 4])
    plain = graph_of_table(table(DENSE, DENSE, OUT), seed=3)
    assert np.array_equal(plain.nodes["w3"].weight, graph.nodes["w3"].weight)


def test_weights_are_drawn_as_they_are_said_and_times_of_a_layer_go_before():
    wide = {"neurons": 200, "weight": [0.5, 0.1], "tau_mem": "40ms"}
    nodes = graph_of_table(table(wide, OUT, size=50)).nodes
    weight = nodes["w1"].weight
    assert (round(weight.mean(), 2), round(weight.std(), 2)) == (0.5, 0.1)
    assert np.allclose(nodes["1"].tau_mem, 0.04)


def test_parts_of_the_inputs_can_have_weights_of_their_own():
    parts = [[40, 0.5, 0.1], [10, -1.0, 0.0]]
    weight = graph_of_table(table({"neurons": 200, "weight": parts}, size=50)).nodes["w1"].weight
    assert round(weight[:, :40].mean(), 2) == 0.5
    assert (weight[:, 40:] == -1.0).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (table(DENSE | {"bias": 0.5}), r"layer 1: bias is 0\.5.*\[mean, standard deviation\]"),
        (table(DENSE | {"bias": [0.5, -0.1]}), "the deviation must not be negative"),
        (
            table(CONV, {"pool": 2, "bias": [0.0, 0.0]}, size=[2, 8, 8]),
            "layer 2 is a pool and cannot have a bias",
        ),
        (table(DENSE | {"nuerons": 3}), "layer 1: there is no 'nuerons'.*neurons"),
        (table({"neurons": 3}), "layer 1 has no weight"),
        (table(DENSE | {"neuron": "LIF"}), "layer 1: neuron is 'LIF': specify type and param"),
        (
            table(DENSE | {"neuron": {"type": "LIF", "tau": [1]}}),
            "layer 1: neuron is .*specify type",
        ),
        (table(DENSE | {"neuron": {"type": "Conv2d"}}), "layer 1: a Conv2d is not a neuron"),
        (table(DENSE | {"neuron": {"type": "LIF", "taus": 1.0}}), "a LIF has no parameter 'taus'"),
        (
            table(OUT | {"readout": True, "neuron": {"type": "LIF"}}),
            "1 has both neuron and readout",
        ),
        (
            table(DENSE | {"neuron": LIF, "tau-mem": "5ms"}),
            "layer 1: a LIF has no parameter 'tau_mem'",
        ),
        (
            table(DENSE | {"neuron": LIF | {"v-threshold": "20ms"}}),
            "layer 1: v_threshold of its neurons is '20ms': write a number",
        ),
        (
            table(DENSE | {"neuron": LIF | {"v-reset": 1.0, "v_reset": 0.0}}),
            "of its neurons occurs twice",
        ),
        (
            table(DENSE | {"tau_mem": "5ms", "neuron": {"type": "CubaLIF", "tau-mem": "9ms"}}),
            "layer 1: a parameter of its neurons occurs twice",
        ),
        (
            table(DENSE | {"neuron": {"type": "LIF", "tau": "5ms", "r": 1.0}}),
            "layer 1: a LIF also needs v_leak, v_threshold: write them in neuron = ",
        ),
        (table({"neurons": 3, "weight": 0.5}), r"weight is 0\.5.*\[mean, standard deviation\]"),
        (table({"channels": 3, "kernel": 3, "weight": [0.5, 0.1]}), "its input is flat"),
        ({"input": 3, "layers": [DENSE]}, "has no tau_mem"),
        (table(DENSE, sise=3), "network: there is no 'sise'"),
        (3, r"network is not a table: write \[network\]"),
        (table(DENSE, size=0), "network: input is 0: specify an integer from 1 to 10000000"),
        (table(DENSE, size=[2, 4000, 4000]), r"input is \[2, 4000, 4000\].* 1 to 10000000"),
        (table(DENSE, size=[[2], 3]), "network: input is"),
        (table(DENSE, **{"tau-mem": True}), 'network: tau_mem is True: .* "10ms"'),
        ({"input": 3, "layers": DENSE}, "network: layers is .*a list of tables"),
        (table(), "layers has 0 tables: specify 1 to 100"),
        (table(*[DENSE] * 101), "layers has 101 tables: specify 1 to 100"),
        (table(DENSE | {"neurons": 10**7 + 1}), "1: neurons is 10000001: .* to 10000000"),
        (table(DENSE | {"neurons": 2.5}), r"layer 1: neurons is 2\.5: specify an integer"),
        (table(DENSE | {"neurons": True}), "layer 1: neurons is True"),
        (table(DENSE | {"neurons": "4"}), "layer 1: neurons is '4'"),
        (table(DENSE | {"neurons": 10**5}, DENSE | {"neurons": 10**5}), "80000000000 bytes"),
        (table(DENSE | {"weight": [0.1, -1.0]}), "1: weight is .*deviation must not be negative"),
        (table(DENSE | {"weight": [float("nan"), 1.0]}), "layer 1: weight is"),
        (table(DENSE | {"weight": [0.1, -0.0]}), "1: weight is .*deviation must not be negative"),
        (table(DENSE | {"weight": [[1, 0.1], [2, 0.1]]}), "layer 1: weight is"),
        (table(DENSE | {"weight": [[2, 0.1, 0.1]]}), "is for 2 inputs, and there are 3"),
        (
            table({"neurons": 2, "weight": [[40, 0.5, 0.1], [10, -1.0, 0.0]]}, size=49),
            "is for 50 inputs, and there are 49",
        ),
        (table(DENSE | {"readout": 1}), "layer 1: readout is 1: specify true or false"),
        (table(DENSE | {"channels": 3}), "layer 1 has neurons and channels: specify only one"),
        (
            table({**CONV, "feedback": [0, 1]}, size=[2, 8, 8]),
            "layer 1 has feedback but no neurons",
        ),
        (table(CONV | {"stride": 0}, size=[2, 8, 8]), "layer 1: stride is 0: .* from 1"),
        (
            table(CONV | {"padding": 9000}, size=[2, 8, 8]),
            r"layer 1 has 972648108 neurons \(shape",
        ),
    ],
)
def test_tables_that_make_no_sense_are_refused(content, message):
    assert_refused(lambda: graph_of_table(content), UsageError, message)


RUN = """
data = "mnist"
side = 4
epochs = 1
batch-size = 16
t-end = "50ms"
calibrate = 0.7
optimiser = "adamw"
[network]
input = 18
tau-mem = "20ms"
tau-syn = "10ms"
layers = [{ neurons = 6, weight = [0.5, 0.2] }, { neurons = 10, weight = [0.5, 0.2] }]
[encoder-options]
least = 0.1
t-max = "15ms"
clock = [0, "20ms"]
[augment]
shift = 1
jitter = "1ms"
[engine-options]
max-spikes = 8
[loss-options]
late-weight = 0.1
smoothing = 0.1
"""


@pytest.fixture
def configured(tmp_path):
    """`configured(text)`: the arguments for a configuration file and the images that it names."""
    write_idx(tmp_path)

    def make(text):
        (tmp_path / "run.toml").write_text(text)
        return "--config", str(tmp_path / "run.toml"), "--data-folder", str(tmp_path)

    return make


def test_a_run_is_a_file(configured, tmp_path, capsys):
    argv, report = configured(RUN), tmp_path / "r.html"
    output = "-o", tmp_path / "out.nir", "--json", "--report", report
    code, out, err = call(capsys, "train", *argv, *output)
    assert code == 0, err
    assert "<title>train: run.toml</title>" in report.read_text()
    assert json.loads(out)["best_epoch"] in (0, 1)
    assert jaxsnn.read(tmp_path / "out.nir").nodes["w1"].weight.shape == (6, 18)
    settings = json.loads((tmp_path / "out.history.json").read_text())["settings"]
    assert settings["engine"]["max_spikes"] == 8
    assert settings["loss"]["smoothing"] == 0.1
    assert (settings["encoder"]["least"], settings["encoder"]["t_max"]) == (0.1, 0.015)
    assert [step["name"] for step in settings["augment"]["steps"]] == ["Warp", "Jitter"]
    _, message = refused(capsys, "train", tmp_path / "out.nir", *argv, "-o", tmp_path / "b.nir")
    assert f"in {tmp_path / 'run.toml'} and in {tmp_path / 'out.nir'}: " in message
    assert "[network] table" in message


def test_without_a_network_there_is_nothing_to_train(tmp_path, capsys):
    _, message = refused(capsys, "train", "--data", "yinyang", "-o", tmp_path / "b.nir")
    assert "the network to train is not specified" in message


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_can_be_read(path, monkeypatch):
    monkeypatch.setattr(neuron_models, "_REGISTERED", {})
    monkeypatch.setattr(nodes, "_REGISTERED", {})
    runpy.run_path(str(RECIPES[0].parents[2] / "benchmarks" / "adaptive_lif.py"))
    options = read_config(str(path))
    check_options(TrainOptions(**options))
    for table_name, option_names in (
        ("loss_options", LOSS_OPTIONS),
        ("engine_options", ENGINE_OPTIONS),
    ):
        assert {name.replace("-", "_") for name in options[table_name]} <= option_names
    content = tomllib.loads(path.read_text())
    # Recipes in the loop continue with the network of another recipe.
    assert ("network" in content) == (content.get("engine") != "loop")
    assert "network" not in content or len(graph_of_table(content["network"]).outputs) == 1


DELAYED = RUN.replace("calibrate = 0.7", 'trainable = ["weight", "delay"]')


@pytest.mark.parametrize(
    ("begin", "size"), [('"2ms"', 6 * 18), (f"[{', '.join(18 * ['0.002'])}]", 18)]
)
def test_a_run_begins_with_delays_of_synapses_and_trains_them(configured, begin, size):
    text = f"{DELAYED}\n[synaptic-delays]\nw1 = {begin}\n"
    _, path, _, data_folder = configured(text)
    options = TrainOptions(**read_config(path) | {"data_folder": data_folder})
    graph = graph_of_table(tomllib.loads(text)["network"])
    trained = fit(graph, options=options).graph
    [delays] = [node.delay for node in trained.nodes.values() if node.type == "Delay"]
    assert delays.size == size
    assert np.ptp(delays) > 0
    assert np.all((delays > 0) & (delays < 0.01))


@pytest.mark.parametrize(
    ("begin", "word"),
    [
        ('"2 apples"', "'apples'"),
        ("[0.002, 0.003]", "node 'w1': delay has shape (2,), but its weight has shape (6, 18)"),
        ('["2ms"]', "node 'w1': delay is ['2ms']: pass seconds"),
        ("true", "node 'w1': delay is True: pass seconds"),
        (
            "[[0.001], [0.002, 0.003]]",
            "node 'w1': delay is [[0.001], [0.002, 0.003]]: pass seconds",
        ),
        (f"[{', '.join(18 * ['true'])}]", "node 'w1': delay is [True, True"),
        (f"[{', '.join(17 * ['0.001'])}, -0.5]", "node 'w1': delay is -0.5: pass seconds"),
        (f"1{300 * '0'}", "node 'w1': the initial value of delay"),
        ("-0.001", "node 'w1': delay is -0.001"),
    ],
)
def test_delays_that_make_no_sense_are_refused(configured, tmp_path, capsys, begin, word):
    argv = configured(f"{DELAYED}\n[synaptic-delays]\nw1 = {begin}\n")
    assert word in refused(capsys, "train", *argv, "-o", tmp_path / "b.nir")[1]
