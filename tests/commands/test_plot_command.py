"""`jaxsnn plot` and `run --plot`: each kind of picture, from the files that the commands write."""

import json
import re
import sys

import numpy as np
import pytest

from jaxsnn.commands.plot_command import KINDS
from tests.helpers.command_line import DEMO_NET, TOLD, assert_cli_refused, refused, run_cli_json
from tests.plot.test_pictures import history

STEPPED = [*TOLD, "--reset-delay", "true"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An input, the run of it with its picture, a recording that differs, and a history."""
    from jaxsnn.commands.cli import main

    place = tmp_path_factory.mktemp("plots")
    x = (np.random.default_rng(0).random((60, 2, 5)) < 0.1).astype(np.float32)
    np.savez(place / "x.npz", x=x)
    run = ["run", DEMO_NET, "--input", place / "x.npz", "-o", place / "out.npz", "-q"]
    assert main([str(part) for part in [*run, *TOLD, "--plot", place / "run.svg"]]) == 0
    np.savez(place / "recorded.npz", x=x, y=np.ones((60, 2, 3)))
    (place / "net.history.json").write_text(json.dumps(history("ttfs")))
    return place


def test_a_run_is_drawn_with_its_inputs(folder):
    comments = re.findall("<!-- (.*?) -->", (folder / "run.svg").read_text())
    assert {"input", "5 channels", "lif1", "120 neurons", "lif2", "time, ms"} <= set(comments)


CASES = {
    "graph": [DEMO_NET],
    "weights": [DEMO_NET, "--kind", "weights", "--before", DEMO_NET],
    "raster": ["out.npz"],
    "histogram": ["out.npz", "--kind", "histogram"],
    "curve": ["net.history.json"],
    "voltage": [DEMO_NET, *TOLD, "--kind", "voltage", "--input", "x.npz", "--node", "lif1"],
    "fidelity": [DEMO_NET, *STEPPED, "--kind", "fidelity", "--input", "x.npz"],
    "difference": [DEMO_NET, *STEPPED, "--recording", "recorded.npz"],
}


SLOW = ("fidelity", "voltage")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in SLOW)) for kind in CASES]
)
def test_each_kind_is_drawn(folder, tmp_path, capsys, kind):
    words = [folder / word if str(word).endswith(("npz", "json")) else word for word in CASES[kind]]
    path = tmp_path / "p.png"
    content, _ = run_cli_json(capsys, "plot", *words, "-o", path)
    assert (content["schema"], content["kind"], content["output"]) == (1, kind, str(path))
    assert path.read_bytes().startswith(b"\x89PNG")
    assert_cli_refused(capsys, "plot", *words, "-o", path, says=str(path))


def test_all_kinds_have_a_case():
    assert {*CASES, "floorplan"} == set(KINDS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([DEMO_NET, "--sample", "0"], "--sample has no effect on pictures of kind 'graph'"),
        ([DEMO_NET, "--t-end", "9ms"], "--t-end has no effect on pictures of kind 'graph'"),
        ([DEMO_NET, "--kind", "weights", "--node", "lif1"], "--node has no effect"),
        (["out.npz", "--node", "lif1"], "--node has no effect on pictures of saved spikes"),
        (["out.npz", "--before", DEMO_NET], "--before has no effect on pictures of saved"),
        (["out.npz", *TOLD], "--dialect has no effect on pictures of saved spikes"),
        (["out.npz", "--kind", "histogram", "--sample", "0"], "--sample has no effect"),
        (["net.history.json", "--dialect", "nir"], "--dialect has no effect on pictures of kind"),
    ],
)
def test_options_that_a_picture_does_not_look_at_are_refused(
    folder, tmp_path, capsys, words, message
):
    there = {"out.npz", "net.history.json"}
    words = [folder / word if word in there else word for word in words]
    line = assert_cli_refused(
        capsys, "plot", *words, "-o", tmp_path / "p.png", code=2, says=message
    )
    assert line.rstrip().endswith(": remove the option")


def test_without_matplotlib_nothing_runs_first(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    x, out, picture = folder / "x.npz", tmp_path / "o.npz", ["--plot", tmp_path / "p.png"]
    raster = ["--input", x, "-o", tmp_path / "p.png"]
    train = ["train", DEMO_NET, *TOLD, "--data", "yinyang", "-o", tmp_path / "t.nir", *picture]
    for words in (
        ["run", DEMO_NET, *TOLD, "--input", x, "-o", out, *picture],
        ["plot", DEMO_NET, *TOLD, *raster],
        train,
    ):
        assert_cli_refused(
            capsys,
            *words,
            code=2,
            says="pictures need matplotlib, which is not installed: pip install matplotlib",
        )
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_said(folder, tmp_path, capsys):
    to = ["-o", tmp_path / "p.png"]
    cases = {
        "there is no kind of picture 'rster': did you mean 'raster'?": ["--kind", "rster"],
        "a picture of voltages requires --input: pass --input": ["--kind", "voltage"],
        "a picture of a difference requires --recording": ["--kind", "difference"],
    }
    for message, words in cases.items():
        assert_cli_refused(capsys, "plot", DEMO_NET, *TOLD, *words, *to, says=message)
    bad = refused(capsys, "plot", DEMO_NET, "-o", tmp_path / "p.gif")
    assert "is not a supported picture format: pass a file name that ends in" in bad[1]
    (tmp_path / "a.json").write_text("[")
    assert_cli_refused(capsys, "plot", tmp_path / "a.json", *to, says="is not JSON")
    wrong = ["plot", folder / "x.npz", "--kind", "raster", *to]
    assert_cli_refused(capsys, *wrong, says="has no spike times")
    for number in ("2", "-1"):
        far = ["plot", folder / "out.npz", "--sample", number, *to]
        assert_cli_refused(
            capsys,
            *far,
            says=f"--sample is {number}, but the number of samples is 2: pass an index from 0 to 1",
        )
    assert not (tmp_path / "p.png").exists()


# -- histories of unknown origin


def lines_of(run):
    return "".join(json.dumps(record) + "\n" for record in run["epochs"])


def test_the_history_of_a_run_that_goes_on_is_drawn(tmp_path, capsys):
    run = history("ttfs")
    (tmp_path / "history.jsonl").write_text(lines_of(run))
    content, _ = run_cli_json(capsys, "plot", tmp_path / "history.jsonl", "-o", tmp_path / "p.svg")
    assert content["kind"] == "curve"
    drawn = (tmp_path / "p.svg").read_text()
    assert "best epoch" not in drawn
    assert "test, evaluated once" not in drawn


#: Change of a history, and words of the message.
BAD_HISTORIES = {
    "NaN": (
        lambda run: run["epochs"][1].update(train_loss=float("nan")),
        ("epoch 1", "train_loss"),
    ),
    "infinity": (
        lambda run: run["epochs"][0].update(gradient=float("inf")),
        ("epoch 0", "gradient"),
    ),
    "text": (
        lambda run: run["epochs"][2].update(validation_accuracy="x"),
        ("epoch 2", "'x'", "val"),
    ),
    "accuracy of 7": (lambda run: run["epochs"][1].update(train_accuracy=7), ("epoch 1", "7")),
    "no record": (lambda run: run["epochs"].insert(1, 5), ("epoch 1",)),
    "no loss": (lambda run: run["epochs"][1].pop("train_loss"), ("epoch 1", "train_loss")),
    "more": (lambda run: run["epochs"][1].update(more=1), ("epoch 1", "more")),
    "out of order": (lambda run: run["epochs"].reverse(), ("epoch 0",)),
    "no epochs": (lambda run: run["epochs"].clear(), ("epochs",)),
}
#: As above, of entries that only the file of a run that has ended has.
BAD_RUNS = {
    "best epoch": (lambda run: run.update(best_epoch=999), ("best_epoch", "999")),
    "best epoch of text": (lambda run: run.update(best_epoch="a"), ("best_epoch",)),
    "test accuracy": (lambda run: run.update(test_accuracy=float("nan")), ("test_accuracy", "nan")),
    "settings": (lambda run: run.update(settings=[1]), ("settings",)),
    "no settings": (lambda run: run.pop("settings"), ("settings",)),
    "epochs a table": (lambda run: run.update(epochs={}), ("epochs",)),
}


@pytest.mark.parametrize(
    ("change", "ending"),
    [
        *((change, ending) for change in BAD_HISTORIES for ending in ("history.json", "jsonl")),
        *((change, "history.json") for change in BAD_RUNS),
    ],
)
def test_nonsense_in_a_history_is_refused(change, ending, tmp_path, capsys):
    run = history("ttfs")
    edit, words = (BAD_HISTORIES | BAD_RUNS)[change]
    edit(run)
    path = tmp_path / f"a.{ending}"
    path.write_text(json.dumps(run) if ending == "history.json" else lines_of(run))
    line = assert_cli_refused(capsys, "plot", path, "-o", tmp_path / "p.svg")
    assert path.name in line
    for word in words:
        assert word in line
    assert not (tmp_path / "p.svg").exists()


@pytest.mark.parametrize(
    "text",
    ["", "\n", "[" * 10_000, '{"epoch": 1', "x", "1", '{"a": 1, "a": 2}', "9" * 10_000, "[1e999]"],
    ids=range(9),
)
@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_a_file_that_is_no_history_is_refused(text, ending, tmp_path, capsys):
    path = tmp_path / f"a.{ending}"
    path.write_text(text)
    line = assert_cli_refused(capsys, "plot", path, "--kind", "curve", "-o", tmp_path / "p.svg")
    assert "unexpected" not in line
    assert path.name in line


def test_a_history_of_extreme_numbers_is_drawn(tmp_path, capsys):
    run = history("ttfs")
    run["epochs"][0].update(train_loss=1e30, validation_loss=-5.0, train_accuracy=1.0)
    run["epochs"][1].update(train_loss=0.0, validation_loss=1e-300, validation_accuracy=0.0)
    (tmp_path / "a.history.json").write_text(json.dumps(run))
    run_cli_json(capsys, "plot", tmp_path / "a.history.json", "-o", tmp_path / "p.png")
