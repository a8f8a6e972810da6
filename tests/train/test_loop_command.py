"""`jaxsnn train --engine loop`: a network trained on an emulated chip, and the mapping beside it,
from files.
"""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from jaxsnn.bss2.check import check
from jaxsnn.bss2.emulate import CALIBRATED, EmulatedChip
from jaxsnn.bss2.mapping_files import read_mapping, scales_of
from jaxsnn.bss2.search.quantize import QuantizeOptions, quantize
from jaxsnn.commands.cli import main
from jaxsnn.errors import UsageError
from jaxsnn.network.lowering.lower import lower
from jaxsnn.nir import build, read, write
from jaxsnn.nir.initializers import normal
from jaxsnn.train import TrainOptions, evaluate, fit, on_chip, yinyang_splits
from jaxsnn.train.data.labelled_files import load_splits
from jaxsnn.train.loop.checkpoint import Folder
from jaxsnn.train.loop.chip_training import on_emulated_chip
from jaxsnn.train.loop.train_plan import make_plan
from jaxsnn.train.options import check_options
from tests.helpers.command_line import DEMO_NET, TOLD, call, refused

QUICK = ["--engine", "loop", "--epochs", "3", "--batch-size", "16", "--lr", "0.1"]
WRITTEN = ("out.nir", "out.history.json", "out.mapping.json")


def neurons():
    return build.cubalif(tau_mem="20ms", tau_syn="10ms")


def stacked(*nodes, **said):
    return build.sequential(build.input(3), *nodes, seed=0, **said)


def layer(size):
    return build.linear(size, weight=normal(2.5, 0.6))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network of 3-2 neurons, one of its weights 0, and a task of 3 channels."""
    folder = tmp_path_factory.mktemp("loop")
    graph = stacked(layer(2), neurons())
    weight = np.array(graph.nodes["1"].weight)
    weight[1, 2] = 0.0
    write(folder / "net.nir", graph.with_nodes([graph.nodes["1"].replace(weight=weight)]))
    x = np.random.default_rng(0).random((3, 32, 3))
    y = np.argmin(x[..., :2], axis=2)  # the earlier of two spikes
    # of equal size, so that their evaluation is compiled once
    parts = {"train": 0, "validation": 1, "test": 2}
    np.savez(
        folder / "task.npz",
        **{f"x_{part}": x[number] for part, number in parts.items()},
        **{f"y_{part}": y[number] for part, number in parts.items()},
    )
    return folder


def train(folder, output, *options):
    return [
        "train",
        str(folder / "net.nir"),
        "--data",
        str(folder / "task.npz"),
        "-o",
        str(output),
        *QUICK,
        *options,
    ]


@pytest.fixture(scope="module")
def done(folder):
    """The files of a run on chip 0, and what it printed."""
    into = folder / "done"
    into.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr(
            "builtins.print", lambda *words, **_: printed.append(" ".join(map(str, words)))
        )
        assert main([*train(folder, into / "out.nir"), "--json"]) == 0
    return into, json.loads(next(line for line in printed if line.startswith("{")))


def contents(folder):
    return {name: (folder / name).read_bytes() for name in WRITTEN}


def test_it_writes_the_network_and_says_how_good_it_is_on_and_off_the_chip(folder, done):
    into, said = done
    assert said["schema"] == 1
    assert {"test_accuracy", "best_epoch", "history", "seconds", "notes"} <= set(said)
    assert said["chip_seed"] == 0
    assert said["mapping"] == str(into / "out.mapping.json")
    history = json.loads((into / "out.history.json").read_text())
    assert history["test_accuracy"] == said["test_accuracy"]
    assert history["settings"]["loss"]["sharpness"] == 0.15
    assert history["settings"]["engine"]["device"]["chip"] == dataclasses.asdict(
        EmulatedChip(seed=0)
    )
    trained, data = read(into / "out.nir"), load_splits(folder / "task.npz")[0]
    assert said["off_chip_accuracy"] == evaluate(trained, data.test)
    assert any("refractory" in note for note in said["notes"])
    # in the file's own units: as the network began, and a little further
    first = read(folder / "net.nir").nodes["1"].weight
    moved = np.abs(trained.nodes["1"].weight - first)
    assert said["best_epoch"] > 0
    assert 0 < moved.max() < 1.0
    assert moved[1, 2] > 0


def test_fit_by_the_name_of_the_engine_is_the_same_run(folder, done):
    graph, task = read(folder / "net.nir"), str(folder / "task.npz")
    settings = {"engine": "loop", "epochs": 3, "batch_size": 16, "learning_rate": 0.1}
    trained = fit(graph, task, **settings, chip_seed=0, progress=None)
    weight = read(done[0] / "out.nir").nodes["1"].weight
    np.testing.assert_array_equal(trained.graph.nodes["1"].weight, weight)
    history = json.loads((done[0] / "out.history.json").read_text())
    assert trained.settings == history["settings"]
    assert trained.test_accuracy == history["test_accuracy"]


def test_a_configuration_calibrates_before_the_chip_and_has_options_of_its_engine(
    folder, tmp_path, capsys
):
    text = "calibrate = 0.4\n[engine-options]\nmax-spikes = 5\n"
    (tmp_path / "run.toml").write_text(text)
    more = ["--config", str(tmp_path / "run.toml"), "--epochs", "1"]
    assert call(capsys, *train(folder, tmp_path / "out.nir", *more))[0] == 0
    graph, task = read(folder / "net.nir"), str(folder / "task.npz")
    settings = {"engine": "loop", "epochs": 1, "batch_size": 16, "learning_rate": 0.1}
    chosen = {"calibrate": 0.4, "engine_options": {"max_spikes": 5}}
    trained = fit(graph, task, **settings, **chosen, progress=None)
    history = json.loads((tmp_path / "out.history.json").read_text())
    assert history["settings"]["engine"]["max_spikes"] == 5
    assert history["settings"] == trained.settings  # the chip's scale among them
    assert history["notes"] == list(trained.notes)
    weight = read(tmp_path / "out.nir").nodes["1"].weight
    np.testing.assert_array_equal(trained.graph.nodes["1"].weight, weight)


def test_the_engine_in_the_loop_has_options_of_its_own(folder):
    graph, data = read(folder / "net.nir"), load_splits(folder / "task.npz")[0]

    def engine(**fields):
        options = TrainOptions(data=data, engine="loop", engine_options=fields)
        check_options(options)
        return make_plan(lower(graph), on_emulated_chip(graph, options)).engine

    assert engine(max_spikes=3, first_spike_only=[]).as_dict()["max_spikes"] == 3
    with pytest.raises(UsageError, match=r"engine_options: .* no .*'threads'"):
        engine(threads=2)


def test_map_and_deploy_take_the_mapping(done, tmp_path, capsys):
    into, _ = done
    graph, mapping = read(into / "out.nir"), read_mapping(into / "out.mapping.json")
    assert mapping.signs == "free"
    assert len(mapping.runs) == 1
    quantized = quantize(graph, QuantizeOptions(scale=scales_of(mapping, graph)))
    assert check(mapping, quantized.netlist) == ()
    assert np.abs(quantized.netlist.weight).max() < 60  # there was room to grow
    files = [into / "out.nir", into / "out.mapping.json"]
    assert call(capsys, "map", files[0], "--verify", files[1], "-q")[0] == 0
    assert call(capsys, "map", files[0], "--verify", files[1], "-q", "--scale", "max")[0] == 1
    assert call(capsys, "deploy", *files, "-o", tmp_path / "scripts", "-q")[0] == 0
    assert (tmp_path / "scripts" / "run_hxtorch.py").exists()


def test_a_run_that_is_resumed_writes_the_same_bytes(folder, done, tmp_path, capsys, monkeypatch):
    save = Folder.save

    def interrupted(self, checkpoint, best):
        save(self, checkpoint, best)
        if checkpoint.history[-1].epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "save", interrupted)
        assert call(capsys, *train(folder, tmp_path / "out.nir"))[0] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out.checkpoint"]
    # nothing goes on from it on another chip, or with other scales
    code, line = refused(
        capsys, *train(folder, tmp_path / "out.nir", "--resume", "--chip-seed", "1")
    )
    assert (code, "engine.device.chip.seed = 0, and this run has 1" in line) == (2, True)
    line = refused(capsys, *train(folder, tmp_path / "out.nir", "--resume", "--headroom", "3"))[1]
    assert "engine.device.scales.2 = " in line
    assert call(capsys, *train(folder, tmp_path / "out.nir", "--resume"))[0] == 0
    assert contents(tmp_path) == contents(done[0])


def test_another_chip_is_another_run_and_replaces_the_first_with_force_alone(
    folder, done, tmp_path, capsys
):
    shutil.copytree(done[0], tmp_path / "out")
    argv = train(folder, tmp_path / "out" / "out.nir", "--chip-seed", "1")
    assert "out.nir exists" in refused(capsys, *argv)[1]
    assert contents(tmp_path / "out") == contents(done[0])
    code, out, _ = call(capsys, *argv, "--force")
    assert code == 0
    assert "samples, on the emulated chip 1\n" in out
    assert "off the chip" in out
    now, before = contents(tmp_path / "out"), contents(done[0])
    assert all(now[name] != before[name] for name in WRITTEN)
    assert (
        len((tmp_path / "out" / "out.checkpoint" / "history.jsonl").read_text().splitlines()) == 4
    )


# -- what is refused: one line, and nothing is touched

NETS = {
    "readout": lambda: stacked(
        layer(4), neurons(), layer(2), build.cubali(tau_mem="20ms", tau_syn="10ms")
    ),
    "biased": lambda: stacked(build.affine(2, weight=normal(1.5, 0.6), bias=0.1), neurons()),
    "without-biases": lambda: stacked(
        build.affine(2, weight=normal(1.5, 0.6), bias=0.0), neurons()
    ),
    "large": lambda: stacked(layer(600), neurons(), layer(2), neurons()),
    "wide": lambda: build.sequential(build.input(40000), layer(2), neurons(), seed=0),
    "lif": lambda: stacked(
        layer(2), build.lif(tau="20ms"), dialect="nir", time_unit="s", spike_kernel="delta"
    ),
    "recurrent": lambda: build.network(
        {
            "in": build.input(3),
            "w": layer(2),
            "lif": neurons(),
            "back": build.linear(2, weight=normal(0.2, 0.1)),
            "out": build.output(2),
        },
        [("in", "w"), ("w", "lif"), ("lif", "back"), ("back", "lif"), ("lif", "out")],
        seed=0,
    ),
}


@pytest.mark.parametrize(
    ("net", "options", "code", "message"),
    [
        (
            "readout",
            ["--loss", "max"],
            1,
            "population '4' (CubaLI) is a readout, and a chip in the loop returns spikes",
        ),
        (
            "biased",
            [],
            1,
            "node '1' (Affine) has 2 biases other than 0, and a chip in the loop has none",
        ),
        (
            "without-biases",
            [],
            2,
            "'bias' cannot be trained: the device in the loop supports only weight: leave it out: --train weight",
        ),
        (
            "large",
            [],
            1,
            "602 neurons need 1 or more circuits for their fan-in, the chip has room for 512 of them in 1",
        ),
        ("large", [], 1, "(90 too many): allow --runs 2 or more"),
        ("wide", ["--runs", "9"], 1, "neuron '2'[0] has 40000 sources"),
        ("lif", [], 1, "node '2' (LIF): arrivals change V itself"),
        (
            "recurrent",
            [],
            1,
            "nodes lif form a cycle, and only feed-forward networks run in the loop",
        ),
    ],
)
def test_networks_that_the_chip_cannot_train(
    net, options, code, message, folder, done, tmp_path, capsys
):
    write(tmp_path / "net.nir", NETS[net]())
    samples = np.random.default_rng(0).random((8, 40000 if net == "wide" else 3))
    y = np.arange(8) % 2
    np.savez(tmp_path / "task.npz", x_train=samples, y_train=y, x_test=samples, y_test=y)
    argv = train(tmp_path, tmp_path / "out.nir", *options)
    found, line = refused(capsys, *argv)
    assert found == code
    assert message in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.nir", "task.npz"]
    # what an earlier run wrote stays as it was, with --force too
    shutil.copytree(done[0], tmp_path, dirs_exist_ok=True)
    refused(capsys, *argv, "--force")
    assert contents(tmp_path) == contents(done[0])
    names = ("last.npz", "best.npz", "history.jsonl")
    now, before = (
        [(path / "out.checkpoint" / name).read_bytes() for name in names]
        for path in (tmp_path, done[0])
    )
    assert now == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--devices", "2"],
            "--devices 2 is for --engine event or grid, the engine is loop: leave out --devices",
        ),
        (
            ["--processes", "2"],
            "--processes 2 is for --engine event or grid, the engine is loop",
        ),
        (["--chip-seed", "-1"], "the chip's seed is -1: give a whole number from 0 to 4294967295"),
        (
            ["--chip-seed", "4294967296"],
            "the chip's seed is 4294967296: give a whole number from 0 to 4294967295",
        ),
        (["--chip-seed", "1.5"], "--chip-seed is '1.5': give a whole number"),
        (["--runs", "0"], "--runs is 0: allow at least 1"),
        (["--headroom", "0"], "the headroom of population '2' is 0: give a positive number"),
        (
            ["--headroom", "hidden:2"],
            "a headroom is specified for 'hidden', which is not a population: There are 2",
        ),
        (["--headroom", "much"], "headroom is 'much': give one factor, or NODE:FACTOR"),
        (["--headroom", "2:much"], "give one factor, or NODE:FACTOR"),
        (
            ["--train", "weight,tau_mem"],
            "'tau_mem' cannot be trained: the device in the loop supports only weight",
        ),
        (
            ["--engine", "event", "--chip-seed", "1"],
            "--chip-seed 1 is for --engine loop, the engine is event: leave out --chip-seed",
        ),
        (
            ["--engine", "grid", "--headroom", "2"],
            "--headroom 2 is for --engine loop, the engine is grid",
        ),
        (["--engine", "event", "--runs", "2"], "--runs 2 is for --engine loop"),
    ],
)
def test_options_that_make_no_sense_in_the_loop(options, message, folder, tmp_path, capsys):
    code, line = refused(capsys, *train(folder, tmp_path / "out.nir", *options))
    assert code == 2
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_a_configuration_file_says_the_same(folder, tmp_path, capsys):
    config = tmp_path / "run.toml"
    argv = train(folder, tmp_path / "out.nir")[:6]
    config.write_text(
        f'data = "{folder / "task.npz"}"\nengine = "loop"\n[headroom]\nhidden = 2.0\n'
    )
    assert (
        "specified for 'hidden', which is not a population"
        in refused(capsys, *argv, "--config", config)[1]
    )
    config.write_text(f'data = "{folder / "task.npz"}"\nengine = "loop"\n[headroom]\n2 = true\n')
    assert "give one factor, or NODE:FACTOR" in refused(capsys, *argv, "--config", config)[1]
    config.write_text('engine = "event"\nchip_seed = 1\n')
    assert "--chip-seed 1 is for --engine loop" in refused(capsys, *argv, "--config", config)[1]


def test_an_output_that_exists_stops_it_before_anything_is_read(tmp_path, capsys):
    (tmp_path / "out.mapping.json").write_text("precious")
    code, line = refused(capsys, *train(tmp_path, tmp_path / "out.nir"))
    assert code == 2
    assert "out.mapping.json exists" in line


def test_the_scales_of_a_mapping_are_refused_where_they_are_none(done, tmp_path, capsys):
    graph, text = done[0] / "out.nir", (done[0] / "out.mapping.json").read_text()
    for wrong in ('{"2":0.0}', '{"2":"much"}', '{"2":true}', "[1.0]"):
        begin = text.index('"scales":') + len('"scales":')
        (tmp_path / "m.json").write_text(text[:begin] + wrong + text[text.index("}", begin) + 1 :])
        assert "scales" in refused(capsys, "map", graph, "--verify", tmp_path / "m.json")[1]


def test_a_scale_that_was_edited_is_no_longer_that_of_the_training(done, tmp_path, capsys):
    """It changes no whole weight, but what the chip's thresholds mean."""
    graph = done[0] / "out.nir"
    content = json.loads((done[0] / "out.mapping.json").read_text())
    content["scales"]["2"] *= 1 + 1e-6
    (tmp_path / "m.json").write_text(json.dumps(content))
    code, out, _ = call(capsys, "map", graph, "--verify", tmp_path / "m.json", "-q")
    assert code == 1
    (line,) = (line for line in out.splitlines() if line.startswith("violation"))
    assert "or its scales were changed: map the network again, or give the options of" in line
    argv = ("deploy", graph, tmp_path / "m.json", "-o", tmp_path / "scripts")
    assert "its scales were changed" in refused(capsys, *argv)[1]


@pytest.mark.slow
def test_yinyang_is_learned_on_a_chip_that_is_milder_than_the_recordings():
    graph, data = read(DEMO_NET, dialect="snntorch", reset="zero"), yinyang_splits(0)
    chip = on_chip(graph, chip=EmulatedChip(seed=0, spread=CALIBRATED))
    trained = fit(graph, data, engine=chip, epochs=15, progress=None)
    assert trained.test_accuracy >= 0.90


@pytest.mark.slow
def test_yinyang_is_learned_on_a_chip_where_other_weights_fail(tmp_path, capsys):
    options = ["--engine", "loop", "--epochs", "15", "-o", tmp_path / "out.nir", "--json", "-q"]
    code, out, err = call(capsys, "train", DEMO_NET, *TOLD, "--data", "yinyang", *options)
    assert code == 0, err
    said = json.loads(out)
    assert said["test_accuracy"] >= 0.82  # measured: 0.859, and 0.792 off the chip
    graph, data = read(DEMO_NET, dialect="snntorch", reset="zero"), yinyang_splits(0)
    without = fit(graph, data, epochs=15, progress=None)
    assert without.test_accuracy >= 0.95
    chip = on_chip(without.graph, chip=EmulatedChip(seed=0), headroom=1.0)
    there = evaluate(without.graph, data.test, bias=True, engine=chip)
    assert there < said["test_accuracy"] - 0.05
    assert said["off_chip_accuracy"] < said["test_accuracy"] - 0.05
