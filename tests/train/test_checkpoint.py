"""A run that is killed goes on, bit for bit."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxsnn.errors import FileError, UsageError
from jaxsnn.train import Dropout, fit
from tests.helpers.small_task import DATA, small_net

#: Everything that has a memory: momenta, a running average, random numbers, a learning rate that
#: falls.
SETTINGS = {
    "epochs": 6,
    "learning_rate": 0.05,
    "ema_decay": 0.9,
    "augment": Dropout(probability=0.05),
    "progress": None,
}

RUN = """
import sys
from tests.train.test_checkpoint import SETTINGS, summary
from tests.helpers.small_task import small_net
from jaxsnn.train import fit, yinyang_splits
settings = {**SETTINGS, "epochs": 200, "learning_rate": 0.01}
print(summary(fit(small_net(), yinyang_splits(0, (5000, 500, 500)), **settings, checkpoint=sys.argv[1], resume=True)))
"""


def summary(trained):
    """A hash of all that training changed, and of what it says of itself."""
    digest = hashlib.sha256(json.dumps(trained.as_dict()).encode())
    for name in ("1", "3"):
        digest.update(np.asarray(trained.graph.nodes[name].weight).tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, fit(small_net(), DATA, **SETTINGS, checkpoint=folder)


def lines_of(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def test_the_folder_holds_the_run_the_best_and_the_history(uninterrupted):
    folder, trained = uninterrupted
    assert sorted(path.name for path in folder.iterdir()) == [
        "best.npz",
        "history.jsonl",
        "last.npz",
    ]
    assert [line["epoch"] for line in lines_of(folder)] == list(range(7))
    assert lines_of(folder) == [vars(record) for record in trained.history]
    with np.load(folder / "best.npz") as best:
        assert sorted(best.files) == ["1.weight", "3.weight"]
        np.testing.assert_array_equal(best["1.weight"], trained.graph.nodes["1"].weight)


def test_a_run_without_checkpoints_is_the_same(uninterrupted):
    assert summary(fit(small_net(), DATA, **SETTINGS)) == summary(uninterrupted[1])


@pytest.mark.parametrize("epochs", [1, 4])
def test_a_run_cut_short_goes_on_to_the_same_bits(uninterrupted, tmp_path, epochs):
    def cut(line):
        if line.startswith(f"epoch {epochs + 1}/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(small_net(), DATA, **{**SETTINGS, "progress": cut}, checkpoint=tmp_path)
    assert summary(fit(small_net(), DATA, **SETTINGS, checkpoint=tmp_path, resume=True)) == summary(
        uninterrupted[1]
    )
    assert [line["epoch"] for line in lines_of(tmp_path)] == list(range(7))


def test_a_finished_run_is_not_trained_again(uninterrupted):
    folder, trained = uninterrupted
    lines = []
    again = fit(
        small_net(), DATA, **{**SETTINGS, "progress": lines.append}, checkpoint=folder, resume=True
    )
    assert summary(again) == summary(trained)
    assert lines == ["going on after epoch 6"]


def epochs_in(folder):
    return len(lines_of(folder)) if (folder / "history.jsonl").exists() else 0


def start(folder, cache, **options):
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder)], env=environment, text=True, **options
    )


def kill(folder, cache, after):
    """Start or resume a run, and end it with SIGKILL some seconds after it has finished one more
    epoch.
    """
    before = epochs_in(folder)
    process = start(folder, cache, stdout=subprocess.DEVNULL)
    while process.poll() is None and epochs_in(folder) <= before:
        time.sleep(0.002)
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was over before it was killed"


def finish(folder, cache):
    output, _ = start(folder, cache, stdout=subprocess.PIPE).communicate()
    return output.strip()


@pytest.mark.slow
def test_twenty_kills_change_no_bit(tmp_path):
    cache = tmp_path / "cache"
    expected = finish(tmp_path / "whole", cache)
    reached = []
    for after in np.random.default_rng(0).uniform(0.0, 0.3, 20):
        kill(tmp_path / "killed", cache, after)
        reached.append(epochs_in(tmp_path / "killed"))
    assert finish(tmp_path / "killed", cache) == expected
    assert len(expected) == 64
    assert reached == sorted(set(reached))


def test_an_existing_checkpoint_is_not_overwritten(uninterrupted):
    with pytest.raises(FileError, match=r"last\.npz exists: go on from it with resume=True"):
        fit(small_net(), DATA, **SETTINGS, checkpoint=uninterrupted[0])


@pytest.mark.parametrize(
    ("net", "changes", "message"),
    [
        ({}, {"learning_rate": 0.04}, r"learning_rate = 0\.05, now it is 0\.04"),
        ({}, {"epochs": 7}, r"epochs = 6, now it is 7"),
        ({"seed": 1}, {}, r"other data, or another network"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(uninterrupted, net, changes, message):
    with pytest.raises(UsageError, match=message):
        fit(
            small_net(**net),
            DATA,
            **{**SETTINGS, **changes},
            checkpoint=uninterrupted[0],
            resume=True,
        )


def test_a_checkpoint_with_former_names_of_options_is_resumed(uninterrupted, tmp_path):
    shutil.copytree(uninterrupted[0], tmp_path, dirs_exist_ok=True)
    with np.load(tmp_path / "last.npz") as file:
        arrays = dict(file)
    header = json.loads(arrays.pop("header").tobytes())
    assert set(header["settings"]).isdisjoint({"averaging", "push"})
    for now, former in (("ema_decay", "averaging"), ("weight_bumping", "push")):
        header["settings"][former] = header["settings"].pop(now)
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(tmp_path / "last.npz", header=text, **arrays)
    again = fit(small_net(), DATA, **SETTINGS, checkpoint=tmp_path, resume=True)
    assert summary(again) == summary(uninterrupted[1])


def test_a_damaged_checkpoint_is_refused(tmp_path):
    (tmp_path / "last.npz").write_bytes(b"PK no zip file")
    with pytest.raises(FileError, match=r"last\.npz is not a checkpoint"):
        fit(small_net(), DATA, **SETTINGS, checkpoint=tmp_path, resume=True)
