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
