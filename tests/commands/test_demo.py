"""The demo, short: fewer points and epochs, everything else as it is."""

import json
import re
from dataclasses import replace

import pytest

from jaxsnn.bss2.search.quantize import quantize
from jaxsnn.commands.cli import main
from jaxsnn.commands.demo import demo_mapping as on_chip
from jaxsnn.commands.demo import demo_steps as steps
from jaxsnn.commands.demo_command import FILES, demo
from jaxsnn.errors import FileError, MappingError, SimulationError
from jaxsnn.nir import read
from tests.helpers.programs import compiled
from tests.helpers.refusals import assert_refused

END = ["map", "prove", "draw"]
SHORT = {"epochs": 3, "sizes": (640, 128, 128)}


@pytest.fixture(scope="module")
def programs():
    """What the first demo of the module compiles."""
    return []


@pytest.fixture(scope="module")
def ran(tmp_path_factory, programs):
    folder = tmp_path_factory.mktemp("demo") / "new" / "folder"
    lines = []
    with compiled() as program_names:
        report = demo(folder, **SHORT, progress=lines.append)
    programs += program_names
    return folder, report, lines


def test_the_demo_compiles_few_programs(ran, programs):
    assert {"jit(run_and_conclude)", "jit(run_epoch)", "jit(run_evaluation)"} <= set(programs)
    # Splits of three sizes share one compiled evaluation.
    assert programs.count("jit(run_evaluation)") == 1
    # Two of them evaluate the trained network in snnTorch's time steps.
    assert len(programs) <= 10, programs


def test_the_demo_writes_all_files_and_nothing_else(ran):
    folder, report, _ = ran
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert list(report.files) == list(FILES)
    for name in ("learning_curve.png", "raster.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_the_report_has_the_documented_keys_and_what_was_found(ran):
    folder, report, _ = ran
    content = json.loads((folder / "report.json").read_text())
    assert {"schema", "test_accuracy", "steps", "files"} <= set(content)
    assert content == json.loads(json.dumps(report.as_dict()))
    steps = {step["name"]: step for step in content["steps"]}
    simulated = ["read", "kernels", "simulate", "check", "train", "export", "read back"]
    assert list(steps) == [*simulated, *END]
    assert steps["read"]["dialect"]["dt"] == 1e-4
    assert steps["export"]["changed"] == ["fc1/weight", "fc2/weight"]
    assert steps["export"]["added"] == ["node/metadata/jaxsnn"]  # the conventions of the training
    assert steps["export"]["lost"] == []
    assert steps["read back"]["equal"]
    assert steps["read back"]["spikes"]["lif1"] > 1000
    for differences in steps["check"]["populations"].values():
        assert differences["at_spikes"] < 1e-3
        assert differences["elsewhere"] < 1e-3


def test_the_demo_learns(ran):
    _, report, lines = ran
    steps = {step.name: step.facts for step in report.steps}
    assert report.test_accuracy > 0.6 > steps["simulate"]["accuracy"]
    # In the exported network neurons go on firing after their first spike; its predictions are
    # those of training.
    assert steps["train"]["accuracy"] == pytest.approx(report.test_accuracy)
    assert steps["train"]["accuracy_in_steps"] > 0.6
    assert len([line for line in lines if line.startswith("epoch")]) == 4


def test_the_history_has_no_wall_time(ran):
    text = (ran[0] / "history.json").read_text()
    assert "seconds" not in text
    assert [record["epoch"] for record in json.loads(text)["epochs"]] == [0, 1, 2, 3]


def test_the_trained_file_is_read_as_the_source_is(ran):
    source = read(steps.SOURCE, **steps.DIALECT_OPTIONS)
    trained = read(ran[0] / "trained.nir", **steps.DIALECT_OPTIONS)
    assert trained.edges == source.edges
    assert replace(trained.dialect, why="") == replace(source.dialect, why="")


def test_an_earlier_run_is_not_overwritten(ran):
    assert_refused(lambda: demo(ran[0], **SHORT), FileError, r"trained\.nir exists")


def test_a_file_that_reads_back_otherwise_is_an_error(ran, tmp_path, monkeypatch):
    """Should the exporter write something else, the demo must see it."""

    def wrong(path, graph, force):
        changed = graph.nodes["fc1"].weight * 1.001
        right(path, graph.with_nodes([graph.nodes["fc1"].replace(weight=changed)]), force)

    right = steps.write
    monkeypatch.setattr(steps, "write", wrong)
    assert_refused(
        lambda: demo(tmp_path, **SHORT),
        SimulationError,
        "does not fire the spikes that it was trained with",
    )


def test_the_mapping_is_of_the_trained_file_and_a_wrong_one_is_an_error(ran, tmp_path):
    folder, report, _ = ran
    facts = {step.name: step.facts for step in report.steps}
    assert facts["prove"]["violations"] == 0
    assert facts["prove"]["synapses"] == facts["map"]["used"]["synapses"]["used"] > 500
    assert (folder / "floorplan.svg").read_text().startswith("<svg")
    quantized = quantize(read(folder / "trained.nir", **steps.DIALECT_OPTIONS))
    text = (folder / "mapping.json").read_text()
    wrong = tmp_path / "mapping.json"
    wrong.write_text(
        re.sub(
            r'"weights":\[(\d+)',
            lambda match: f'"weights":[{int(match[1]) % 63 + 1}',
            text,
            count=1,
        )
    )
    assert_refused(
        lambda: on_chip.prove_step(quantized, wrong),
        MappingError,
        "violations in mapping\\.json: 1, the first: .*the netlist has weight",
    )


def test_without_matplotlib_the_pictures_are_left_out_and_it_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    monkeypatch.setattr("jaxsnn.train.data.datasets.YINYANG_SIZES", SHORT["sizes"])
    assert main(["demo", "-o", str(tmp_path), "--epochs", "3", "-q"]) == 0
    out = capsys.readouterr().out
    assert "pictures need matplotlib, which is not installed: pip install matplotlib" in out
    assert "test accuracy" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["history.json", "report.json", "trained.nir", "mapping.json", "floorplan.svg"]
    )
