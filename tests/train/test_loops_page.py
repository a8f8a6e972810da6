"""The code of docs/guide_loops.md, and the example that logs runs, with stand-ins for the loggers."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

import jaxsnn
from tests.helpers import loggers
from tests.helpers.pages import ROOT, blocks_of, run_python

sys.path.insert(0, str(ROOT / "docs"))

from example_runs import with_constants


@pytest.fixture
def standins(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return loggers.install(monkeypatch)


def test_the_blocks_of_the_page_run_in_their_order(standins, capsys):
    writers, runs = standins
    variables: dict = {"__name__": "page"}
    for block in blocks_of("guide_loops"):
        assert block.not_run is None
        run_python(block, variables)
    assert jaxsnn.read("best.nir").nodes.keys() == variables["graph"].nodes.keys()

    (writer,), (run,) = writers, runs
    assert writer.closed
    assert run.finished
    accuracies = [value for tag, value, _ in writer.scalars if tag == "validation_accuracy"]
    logged = [numbers["validation_accuracy"] for numbers, _ in run.logged]
    assert accuracies == logged  # 0.01 is the default learning rate
    assert [step for _, step in run.logged] == list(range(6))
    assert {step for _, _, step in writer.scalars} == set(range(6))

    # The loop of the page learns, and moves time constants by some percent.
    tau = variables["trained"].nodes["2"].value("tau_mem")
    assert not np.allclose(tau, 0.02, rtol=1e-3)
    np.testing.assert_allclose(tau, 0.02, rtol=0.3)
    np.testing.assert_array_equal(jaxsnn.read("trained.nir").nodes["2"].value("tau_mem"), tau)
    lines = capsys.readouterr().out.splitlines()
    *losses, accuracy = lines[-4:]
    first, *_, last = (float(line.split()[1]) for line in losses)
    assert last < first
    assert float(accuracy) > 0.5  # as encoded by the loop; by default large values come first


@pytest.mark.parametrize("logger", ["tensorboard", "wandb"])
def test_the_example_logs_every_epoch(logger, standins):
    constants = {"LOGGER": logger, "SAMPLES": (256, 128, 128), "HIDDEN": 20, "EPOCHS": 3}
    source = (ROOT / "examples" / "log_training.py").read_text()
    Path("log_training.py").write_text(with_constants(source, constants))
    variables = runpy.run_path("log_training.py", run_name="__main__")
    writers, runs = standins
    history = variables["trained"].history
    losses = [record.train_loss for record in history]
    if logger == "tensorboard":
        assert [value for tag, value, _ in writers[0].scalars if tag == "train_loss"] == losses
    else:
        assert [numbers["train_loss"] for numbers, _ in runs[0].logged] == losses
        assert runs[0].summary == {"test_accuracy": variables["trained"].test_accuracy}
        assert runs[0].config == {"epochs": 3, "learning_rate": 0.05}
    saved = jaxsnn.read("log_training.nir")
    for name in ("1", "3"):
        np.testing.assert_array_equal(
            saved.nodes[name].value("weight"),
            variables["trained"].graph.nodes[name].value("weight"),
        )
