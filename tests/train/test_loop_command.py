"""`jaxsnn train --engine loop`: a network trained on an emulated chip, and the mapping beside it,
from files.
"""

import contextlib
import dataclasses
import io
import json
import shutil

import numpy as np
import pytest

from jaxsnn.bss2.check import check
from jaxsnn.bss2.emulate import CALIBRATED, EmulatedChip
from jaxsnn.bss2.mapping_files import quantize_as_mapped, read_mapping
from jaxsnn.commands.cli import main
from jaxsnn.errors import UsageError
from jaxsnn.event.event_driven import EventDriven
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
from tests.helpers.refusals import assert_refused

QUICK = ["--engine", "loop", "--epochs", "3", "--batch-size", "16", "--lr", "0.1"]
WRITTEN = ("out.nir", "out.history.json", "out.mapping.json")
CHECKPOINTS = ("last.npz", "best.npz", "history.jsonl")


def neurons():
    return build.cubalif(tau_mem="20ms", tau_syn="10ms")


def stacked(*nodes, **settings):
    return build.sequential(build.input(3), *nodes, seed=0, **settings)


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
    # Parts of equal size share a compiled evaluation.
    arrays = {}
    for part, x in zip(
        ("train", "validation", "test"), np.random.default_rng(0).random((3, 32, 3)), strict=True
    ):
        # The class is the earlier of two spikes.
        arrays |= {f"x_{part}": x, f"y_{part}": np.argmin(x[:, :2], axis=1)}
    np.savez(folder / "task.npz", **arrays)
    return folder


def train(folder, output, *options):
    files = [folder / "net.nir", "--data", folder / "task.npz", "-o", output]
    return ["train", *map(str, files), *QUICK, *options]


@pytest.fixture(scope="module")
def done(folder):
    """The files of a run on chip 0, and what it printed."""
    into = folder / "done"
    into.mkdir()
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main([*train(folder, into / "out.nir"), "--json"]) == 0
    return into, json.loads(printed.getvalue())


def history_of(folder):
    return json.loads((folder / "out.history.json").read_text())


def fitted(folder, **options):
    """The same by Python."""
    settings = {"engine": "loop", "epochs": 3, "batch_size": 16, "learning_rate": 0.1}
    task = str(folder / "task.npz")
    return fit(read(folder / "net.nir"), task, **settings | options, progress=None)


def assert_same_run(trained, folder):
    weight, history = read(folder / "out.nir").nodes["1"].weight, history_of(folder)
    np.testing.assert_array_equal(trained.graph.nodes["1"].weight, weight)
    assert trained.settings == history["settings"]  # including the scale of the chip
    assert trained.test_accuracy == history["test_accuracy"]
    assert list(trained.notes) == history["notes"]


def contents(folder, file_names=WRITTEN):
    return {name: (folder / name).read_bytes() for name in file_names}


def test_the_command_writes_the_network_and_its_accuracy_on_and_off_the_chip(folder, done):
    into, printed = done
    assert {"test_accuracy", "best_epoch", "history", "seconds", "notes"} <= set(printed)
    assert (printed["schema"], printed["chip_seed"]) == (1, 0)
    assert printed["mapping"] == str(into / "out.mapping.json")
    history = history_of(into)
    assert history["test_accuracy"] == printed["test_accuracy"]
    assert history["settings"]["loss"]["temperature"] == 0.1
    chip = dataclasses.asdict(EmulatedChip(seed=0))
    assert history["settings"]["engine"]["device"]["chip"] == chip
    trained, data = read(into / "out.nir"), load_splits(folder / "task.npz")[0]
    engine = EventDriven(refractory=1e-3)  # of the chip: 1 us
    assert printed["off_chip_accuracy"] == evaluate(trained, data.test, engine=engine)
    assert any("refractory" in note for note in printed["notes"])
    # In the units of the file, close to the initial weights.
    first = read(folder / "net.nir").nodes["1"].weight
    moved = np.abs(trained.nodes["1"].weight - first)
    assert printed["best_epoch"] > 0
    assert 0 < moved.max() < 1.0
    assert moved[1, 2] > 0


def test_fit_by_the_name_of_the_engine_is_the_same_run(folder, done):
    assert_same_run(fitted(folder, chip_seed=0), done[0])


def test_a_configuration_calibrates_before_the_chip_and_has_options_of_its_engine(
    folder, tmp_path, capsys
):
    text = "calibrate = 0.4\n[engine-options]\nmax-spikes = 5\n"
    (tmp_path / "run.toml").write_text(text)
    more = ["--config", str(tmp_path / "run.toml"), "--epochs", "1"]
    assert call(capsys, *train(folder, tmp_path / "out.nir", *more))[0] == 0
    assert history_of(tmp_path)["settings"]["engine"]["max_spikes"] == 5
    trained = fitted(folder, epochs=1, calibrate=0.4, engine_options={"max_spikes": 5})
    assert_same_run(trained, tmp_path)


def test_the_engine_in_the_loop_has_options_of_its_own(folder):
    graph, data = read(folder / "net.nir"), load_splits(folder / "task.npz")[0]

    def engine(**fields):
        options = TrainOptions(data=data, engine="loop", engine_options=fields)
        check_options(options)
        return make_plan(lower(graph), on_emulated_chip(graph, options)).engine

    assert engine(max_spikes=3, first_spike_only=[]).as_dict()["max_spikes"] == 3
    assert_refused(lambda: engine(threads=2), UsageError, "engine_options has no field 'threads'")


def test_map_and_deploy_take_the_mapping(done, tmp_path, capsys):
    files = [done[0] / "out.nir", done[0] / "out.mapping.json"]
    graph, mapping = read(files[0]), read_mapping(files[1])
    assert (mapping.signs, len(mapping.runs)) == ("free", 1)
    net = quantize_as_mapped(graph, mapping).netlist
    assert check(mapping, net) == ()
    assert np.abs(net.weight).max() < 60  # the headroom is not used up
    verify = "map", files[0], "--verify", files[1], "-q"
    assert call(capsys, *verify)[0] == 0
    assert call(capsys, *verify, "--scale", "max")[0] == 2
    assert call(capsys, "deploy", *files, "-o", tmp_path / "scripts", "-q")[0] == 0
    assert (tmp_path / "scripts" / "run_hxtorch.py").exists()


def test_a_run_that_is_resumed_writes_the_same_bytes(folder, done, tmp_path, capsys, monkeypatch):
    save, argv = Folder.save, train(folder, tmp_path / "out.nir")

    def interrupted(self, checkpoint, best):
        save(self, checkpoint, best)
        if checkpoint.history[-1].epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "save", interrupted)
        assert call(capsys, *argv)[0] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out.checkpoint"]
    # Resuming is refused on another chip, or with other scales.
    for options, message in (
        (["--chip-seed", "1"], "engine.device.chip.seed = 0, and this run has 1"),
        (["--headroom", "3"], "engine.device.scales.2 = "),
    ):
        code, line = refused(capsys, *argv, "--resume", *options)
        assert (code, message in line) == (2, True)
    assert call(capsys, *argv, "--resume")[0] == 0
    assert contents(tmp_path) == contents(done[0])


def test_another_chip_is_another_run_and_replaces_the_first_with_force_alone(
    folder, done, tmp_path, capsys
):
    into = tmp_path / "out"
    shutil.copytree(done[0], into)
    argv = train(folder, into / "out.nir", "--chip-seed", "1")
    assert "out.nir exists" in refused(capsys, *argv)[1]
    before = contents(done[0])
    assert contents(into) == before
    code, out, _ = call(capsys, *argv, "--force")
    assert code == 0
    assert "samples, on the emulated chip 1\n" in out
    assert "off the chip" in out
    assert all(content != before[name] for name, content in contents(into).items())
    assert len((into / "out.checkpoint" / "history.jsonl").read_text().splitlines()) == 4


# -- refusals: one line, and no file changes

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
            "population '4' (CubaLI) is a readout, and a chip in the loop returns only spikes",
        ),
        (
            "biased",
            [],
            2,
            "'bias' cannot be trained, because the device in the loop supports only weight: pass --train weight",
        ),
        (
            "without-biases",
            [],
            2,
            "'bias' cannot be trained, because the device in the loop supports only weight: pass --train weight",
        ),
        (
            "large",
            [],
            1,
            "602 neurons need 1 or more circuits each for their fan-in; the chip has room for "
            "512 of them in 1",
        ),
        ("large", [], 1, "(90 too many): pass --runs 2 or more"),
        ("wide", ["--runs", "9"], 1, "neuron '2'[0] has 40000 sources"),
        ("lif", [], 1, "node '2' (LIF): input spikes act directly on the membrane potential"),
        (
            "recurrent",
            [],
            1,
            "nodes lif form a cycle; in-the-loop simulation supports only feed-forward networks",
        ),
    ],
)
def test_networks_that_the_chip_cannot_train(
    net, options, code, message, folder, done, tmp_path, capsys
):
    write(tmp_path / "net.nir", NETS[net]())
    x, y = np.random.default_rng(0).random((8, 40000 if net == "wide" else 3)), np.arange(8) % 2
    np.savez(tmp_path / "task.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    argv = train(tmp_path, tmp_path / "out.nir", *options)
    exit_code, line = refused(capsys, *argv)
    assert exit_code == code
    assert message in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.nir", "task.npz"]
    # The files of an earlier run stay as they were, even with --force.
    shutil.copytree(done[0], tmp_path, dirs_exist_ok=True)
    refused(capsys, *argv, "--force")
    written = *WRITTEN, *(f"out.checkpoint/{name}" for name in CHECKPOINTS)
    assert contents(tmp_path, written) == contents(done[0], written)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--devices", "2"],
            "--devices 2 requires --engine event or grid, and the engine is loop: leave out --devices",
        ),
        (
            ["--processes", "2"],
            "--processes 2 requires --engine event or grid, and the engine is loop",
        ),
        (["--chip-seed", "-1"], "the chip's seed is -1: pass an integer from 0 to 4294967295"),
        (
            ["--chip-seed", "4294967296"],
            "the chip's seed is 4294967296: pass an integer from 0 to 4294967295",
        ),
        (["--chip-seed", "1.5"], "--chip-seed is '1.5': pass an integer"),
        (["--runs", "0"], "--runs is 0: pass an integer of at least 1"),
        (["--headroom", "0"], "the headroom of population '2' is 0: pass a positive number"),
        (
            ["--headroom", "hidden:2"],
            "a headroom is specified for 'hidden', which is not a population: Available: 2",
        ),
        (["--headroom", "much"], "headroom is 'much': pass one factor, or NODE:FACTOR"),
        (["--headroom", "2:much"], "pass one factor, or NODE:FACTOR"),
        (
            ["--train", "weight,tau_mem"],
            "'tau_mem' cannot be trained, because the device in the loop supports only weight",
        ),
        (
            ["--engine", "event", "--chip-seed", "1"],
            "--chip-seed 1 requires --engine loop, and the engine is event: leave out --chip-seed",
        ),
        (
            ["--engine", "grid", "--headroom", "2"],
            "--headroom 2 requires --engine loop, and the engine is grid",
        ),
        (["--engine", "event", "--runs", "2"], "--runs 2 requires --engine loop"),
    ],
)
def test_options_that_make_no_sense_in_the_loop(options, message, folder, tmp_path, capsys):
    code, line = refused(capsys, *train(folder, tmp_path / "out.nir", *options))
    assert code == 2
    assert message in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'data = "{task}"\nengine = "loop"\n[headroom]\nhidden = 2.0\n',
            "specified for 'hidden', which is not a population",
        ),
        (
            'data = "{task}"\nengine = "loop"\n[headroom]\n2 = true\n',
            "headroom is {'2': True}: pass one factor, or NODE:FACTOR",
        ),
        ('engine = "event"\nchip_seed = 1\n', "--chip-seed 1 requires --engine loop"),
    ],
)
def test_a_configuration_file_says_the_same(text, message, folder, tmp_path, capsys):
    (tmp_path / "run.toml").write_text(text.format(task=folder / "task.npz"))
    argv = train(folder, tmp_path / "out.nir")[:6]
    assert message in refused(capsys, *argv, "--config", tmp_path / "run.toml")[1]


def test_an_output_that_exists_stops_it_before_anything_is_read(tmp_path, capsys):
    (tmp_path / "out.mapping.json").write_text("precious")
    code, line = refused(capsys, *train(tmp_path, tmp_path / "out.nir"))
    assert code == 2
    assert "out.mapping.json exists" in line


@pytest.mark.parametrize("scales", [{"2": 0.0}, {"2": "much"}, {"2": True}, [1.0]])
def test_the_scales_of_a_mapping_are_refused_where_they_are_none(scales, done, tmp_path, capsys):
    content = json.loads((done[0] / "out.mapping.json").read_text()) | {"scales": scales}
    (tmp_path / "m.json").write_text(json.dumps(content))
    argv = "map", done[0] / "out.nir", "--verify", tmp_path / "m.json"
    assert "scales" in refused(capsys, *argv)[1]


def test_a_scale_that_was_edited_is_no_longer_that_of_the_training(done, tmp_path, capsys):
    """It changes no whole weight, but what the chip's thresholds mean."""
    graph, edited = done[0] / "out.nir", tmp_path / "m.json"
    content = json.loads((done[0] / "out.mapping.json").read_text())
    content["quantization"]["scale"]["2"] *= 1 + 1e-6
    edited.write_text(json.dumps(content))
    code, out, _ = call(capsys, "map", graph, "--verify", edited, "-q")
    assert code == 1
    (line,) = (line for line in out.splitlines() if line.startswith("violation"))
    assert "or its options of quantisation were changed: map the network again, or pass the" in line
    line = refused(capsys, "deploy", graph, edited, "-o", tmp_path / "scripts")[1]
    assert "its options of quantisation were changed" in line


@pytest.mark.slow
def test_yinyang_is_learned_on_a_chip_that_is_milder_than_the_recordings():
    graph, data = read(DEMO_NET, dialect="snntorch", reset="zero"), yinyang_splits(0)
    chip = on_chip(graph, chip=EmulatedChip(seed=0, spread=CALIBRATED))
    trained = fit(graph, data, engine=chip, epochs=15, loss="ttfs", progress=None)
    assert trained.test_accuracy >= 0.90


@pytest.mark.slow
def test_yinyang_is_learned_on_a_chip_where_other_weights_fail(tmp_path, capsys):
    options = ["--engine", "loop", "--epochs", "15", "--loss", "ttfs"]
    options += ["-o", tmp_path / "out.nir", "--json", "-q"]
    code, out, err = call(capsys, "train", DEMO_NET, *TOLD, "--data", "yinyang", *options)
    assert code == 0, err
    printed = json.loads(out)
    assert printed["test_accuracy"] >= 0.82  # measured: 0.859, and 0.792 off the chip
    graph, data = read(DEMO_NET, dialect="snntorch", reset="zero"), yinyang_splits(0)
    without = fit(graph, data, epochs=15, loss="ttfs", progress=None)
    assert without.test_accuracy >= 0.95
    chip = on_chip(without.graph, chip=EmulatedChip(seed=0), headroom=1.0)
    transferred = evaluate(without.graph, data.test, bias=True, engine=chip)
    assert transferred < printed["test_accuracy"] - 0.05
    assert printed["off_chip_accuracy"] < printed["test_accuracy"] - 0.05
