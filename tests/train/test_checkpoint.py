"""A run that is killed goes on, bit for bit."""

import errno
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsnn.errors import EnvironmentWarning, FileError, JaxsnnError, UsageError
from jaxsnn.network.lowering.lower import lower
from jaxsnn.nir import build
from jaxsnn.train import Dropout, Free, Positive, TrainingStopped, fit
from jaxsnn.train.loop import checkpoint as checkpoints
from jaxsnn.train.loop import history_schema
from jaxsnn.train.loop.checkpoint import sealed, unsealed
from jaxsnn.train.loop.constraints import raw_is_particular
from jaxsnn.train.loop.epoch import TrainState
from jaxsnn.train.loop.optimisers import optimiser_identity
from tests.fuzz.other_files import Checkpoints
from tests.helpers.command_line import DEMO_NET, ROOT, TOLD, call
from tests.helpers.refusals import assert_refused
from tests.helpers.small_task import DATA, small_net

#: Settings with all kinds of state: momenta, a moving average, random numbers, a decreasing
#: learning rate.
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


def interrupt(line_start, **settings):
    """Train until a line of progress begins so, and interrupt the run there."""

    def cut(line):
        if line.startswith(line_start):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(small_net(), DATA, **settings | {"progress": cut})


def resumed(folder, **changes):
    return fit(small_net(), DATA, **{**SETTINGS, **changes}, checkpoint=folder, resume=True)


def same(first, second):
    """Whether two runs agree in all but their notes."""
    return first.history == second.history and all(
        np.array_equal(first.graph.nodes[name].weight, second.graph.nodes[name].weight)
        for name in ("1", "3")
    )


def test_the_folder_holds_two_generations_the_best_and_the_history(uninterrupted):
    folder, trained = uninterrupted
    assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES)
    assert [line["epoch"] for line in lines_of(folder)] == list(range(7))
    assert lines_of(folder) == [vars(record) for record in trained.history]
    with np.load(folder / "best.npz") as best:
        assert sorted(best.files) == ["1.weight", "3.weight"]
        np.testing.assert_array_equal(best["1.weight"], trained.graph.nodes["1"].weight)
    last, before = (unsealed(folder / name)[0]["history"] for name in ("last.npz", "before.npz"))
    assert (len(last), last[:6]) == (7, before)
    # The file is an ordinary npz file.
    with np.load(folder / "last.npz") as file:
        assert "header" in file.files
    assert zipfile.ZipFile(folder / "last.npz").testzip() is None


def test_a_run_without_checkpoints_is_the_same(uninterrupted):
    assert summary(fit(small_net(), DATA, **SETTINGS)) == summary(uninterrupted[1])


@pytest.mark.parametrize("epochs", [1, 4])
def test_a_run_cut_short_goes_on_to_the_same_bits(uninterrupted, tmp_path, epochs):
    interrupt(f"epoch {epochs + 1}/", **SETTINGS, checkpoint=tmp_path)
    assert summary(resumed(tmp_path)) == summary(uninterrupted[1])
    assert [line["epoch"] for line in lines_of(tmp_path)] == list(range(7))


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_run_cut_short_around_a_collapse_goes_back_all_the_same(tmp_path, monkeypatch, epochs):
    """Every epoch counts as bad here, and two of them, of four steps each, as a collapse."""
    for name, value in (("_FAILING_STEPS", 8), ("_COLLAPSED", 10.0)):
        monkeypatch.setattr(f"jaxsnn.train.loop.training_run.{name}", value)
    direct = fit(small_net(), DATA, **SETTINGS)
    third = pytest.approx(1 / 3)
    assert [record.factor for record in direct.history[:4]] == [1.0, 1.0, 1.0, third]
    interrupt(f"epoch {epochs + 1}/", **SETTINGS, checkpoint=tmp_path)
    again = resumed(tmp_path)
    assert [note for note in again.notes if "at epoch 2 " in note and "goes back to" in note]
    assert summary(again) == summary(direct)


def test_a_run_that_stopped_does_not_succeed_by_being_resumed(tmp_path):
    settings = {**SETTINGS, "epochs": 1, "weight_bumping": {"label": 0.0, "hidden": 0.0}}
    quiet = small_net(second=(0.02, 0.01))
    for resume in (False, True):
        train = partial(fit, quiet, DATA, **settings, checkpoint=tmp_path, resume=resume)
        assert_refused(train, TrainingStopped, r"no neuron of '4' fires .* at epoch 1")


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_finished_run_is_not_trained_again_with_force_neither(uninterrupted, copy, overwrite):
    """A run is not begun again because its outputs may be overwritten."""
    settings = unsealed(copy / "last.npz")[0]["settings"]
    folder = checkpoints.Folder(copy, settings, "other", alone=True)
    assert_refused(
        lambda: folder.begin(resume=True, state=None, overwrite=overwrite),
        UsageError,
        "other data",  # the checkpoint was read, not replaced
    )
    folder.close()
    lines = []
    again = resumed(copy, progress=lines.append, overwrite=overwrite)
    assert lines == ["training continues after epoch 6"]
    assert summary(again) == summary(uninterrupted[1])


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
    assert_refused(
        lambda: fit(small_net(), DATA, **SETTINGS, checkpoint=uninterrupted[0]),
        FileError,
        r"last\.npz exists",
        fix="resume=True",
    )


def test_there_must_be_a_checkpoint_to_go_on_from():
    assert_refused(
        lambda: fit(small_net(), DATA, **SETTINGS, resume=True),
        UsageError,
        "the checkpoint to resume from is not specified",
        fix="checkpoint=",
    )


@pytest.mark.parametrize(
    ("net", "changes", "message"),
    [
        ({}, {"learning_rate": 0.04}, r"learning_rate = 0\.05, and this run has 0\.04"),
        ({}, {"epochs": 7}, r"epochs = 6, this run has epochs = 7.*schedule 'cosine'"),
        ({}, {"epochs": 5}, r"epochs = 6, of which 6 are completed, and this run has epochs = 5"),
        ({"seed": 1}, {}, r"other data, or another network"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(uninterrupted, net, changes, message):
    settings = {**SETTINGS, **changes, "checkpoint": uninterrupted[0], "resume": True}
    assert_refused(lambda: fit(small_net(**net), DATA, **settings), UsageError, message)


# -- runs that are extended to more epochs


def halving(step):
    """A learning rate of each step, whatever the number of epochs."""
    return 0.05 * 0.5 ** (step / 8)


#: Settings of a run whose learning rates do not depend on the number of epochs.
STEADY = {**SETTINGS, "epochs": 3, "schedule": "constant"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"schedule": halving},
        {"optimiser": "adamw", "patience": 2},
        {"optimiser": optax.chain(optax.scale_by_adam(), optax.scale_by_schedule(halving))},
        {"noise": {"weight": 0.1}, "batch_size": 48},
    ],
    ids=["constant", "function", "patience", "optax", "noise"],
)
@pytest.mark.parametrize("epochs", [1, 3])
def test_more_epochs_are_those_of_a_run_that_was_asked_for_them(changes, epochs, tmp_path):
    settings = {**STEADY, **changes}
    network = small_net()
    direct = fit(network, DATA, **settings | {"epochs": 5}, checkpoint=tmp_path / "direct")
    fit(network, DATA, **settings | {"epochs": epochs}, checkpoint=tmp_path / "run")
    more = fit(network, DATA, **settings | {"epochs": 5}, checkpoint=tmp_path / "run", resume=True)
    assert summary(more) == summary(direct)
    assert lines_of(tmp_path / "run") == lines_of(tmp_path / "direct")
    header = unsealed(tmp_path / "run" / "last.npz")[0]
    assert header["fingerprint"] == unsealed(tmp_path / "direct" / "last.npz")[0]["fingerprint"]
    # The folder now belongs to a run of five epochs.
    again = fit(network, DATA, **settings | {"epochs": 5}, checkpoint=tmp_path / "run", resume=True)
    assert summary(again) == summary(direct)


def test_a_run_may_be_extended_from_the_checkpoint_before(tmp_path):
    direct = fit(small_net(), DATA, **STEADY | {"epochs": 4})
    fit(small_net(), DATA, **STEADY, checkpoint=tmp_path)
    (tmp_path / "last.npz").write_bytes(b"PK no zip file")
    assert same(resumed(tmp_path, **STEADY | {"epochs": 4}), direct)


def test_a_run_of_which_no_epoch_is_done_takes_any_number(tmp_path):
    interrupt("epoch 1/", **SETTINGS | {"epochs": 2}, checkpoint=tmp_path)
    more = resumed(tmp_path, epochs=3)
    assert summary(more) == summary(fit(small_net(), DATA, **SETTINGS | {"epochs": 3}))


@pytest.mark.parametrize(
    ("before", "changes", "words"),
    [
        ({"schedule": "cosine"}, {}, "schedule 'cosine'"),
        ({"schedule": "warm-up"}, {}, "schedule 'warm-up'"),
        ({"schedule": "linear"}, {}, "schedule 'linear'"),
        ({"schedule": "exponential"}, {}, "schedule 'exponential'"),
        ({}, {"learning_rate": 0.04}, "learning_rate = 0.05, and this run has 0.04"),
        ({}, {"schedule": "cosine"}, "schedule = constant, and this run has cosine"),
        ({}, {"seed": 1}, "seed = 0, and this run has 1"),
        ({}, {"batch_size": 32}, "batch_size = 64, and this run has 32"),
        ({"schedule": halving}, {"schedule": lambda step: 0.01}, "another"),
        ({}, {"epochs": 2}, "of which 3 are completed"),
    ],
)
def test_more_epochs_of_another_run_are_refused(before, changes, words, tmp_path):
    fit(small_net(), DATA, **{**STEADY, **before}, checkpoint=tmp_path)
    content = (tmp_path / "last.npz").read_bytes()
    settings = {**STEADY, **before, "epochs": 4, **changes}
    assert_refused(
        lambda: fit(small_net(), DATA, **settings, checkpoint=tmp_path, resume=True),
        UsageError,
        words,
    )
    assert (tmp_path / "last.npz").read_bytes() == content


def test_epochs_that_were_compiled_otherwise_are_noted(tmp_path, monkeypatch):
    """A long run optimises its programs, whose last digits differ from those of a short one."""
    fit(small_net(), DATA, **STEADY, checkpoint=tmp_path)
    monkeypatch.setattr("jaxsnn.train.loop.passes._SHORT", 4 * 300 * 28)
    more = fit(small_net(), DATA, **STEADY | {"epochs": 5}, checkpoint=tmp_path, resume=True)
    assert [note for note in more.notes if "3 epochs" in note and "last digits" in note]


@pytest.mark.parametrize("epochs", [0, 10**18, -1, True, 3.0, "3", None])
def test_a_number_of_epochs_that_is_none_is_not_extended(epochs, copy):
    rewritten(copy / "last.npz", lambda header: header["settings"].update(epochs=epochs))
    message = rf"belongs to a run with epochs = {epochs}, and this run has 6"
    problem = assert_refused(lambda: resumed(copy), UsageError, message)
    assert (problem.facts["expected"], problem.facts["actual"]) == (epochs, 6)


def test_the_command_extends_a_finished_run(tmp_path, capsys):
    argv = ["train", DEMO_NET, *TOLD, "--data", "yinyang", "--lr", "0.01", "--schedule", "constant"]
    argv += ["--batch-size", "2048", "-o", tmp_path / "out.nir"]
    assert call(capsys, *argv, "--epochs", "1")[0] == 0
    assert call(capsys, *argv, "--epochs", "2", "--resume", "--force")[0] == 0
    direct = [*argv[:-1], tmp_path / "direct.nir", "--epochs", "2"]
    assert call(capsys, *direct)[0] == 0
    written = [(tmp_path / name).read_bytes() for name in ("out.nir", "direct.nir")]
    assert written[0] == written[1]


# -- files that are damaged, edited, or used by two runs


@pytest.fixture
def copy(uninterrupted, tmp_path):
    shutil.copytree(uninterrupted[0], tmp_path / "copy")
    return tmp_path / "copy"


def rewritten(path, change, seal=True, version=2):
    """A checkpoint with another header, sealed or as version 1 was."""
    header, arrays = unsealed(path)
    header["version"] = version
    change(header)
    named = {f"array{number}": array for number, array in enumerate(arrays)}
    if seal:
        path.write_bytes(sealed(header, named))
    else:
        np.savez(path, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **named)


def test_a_checkpoint_with_former_names_of_options_is_resumed(uninterrupted, copy):
    def rename(header):
        assert set(header["settings"]).isdisjoint({"averaging", "push"})
        for now, former in (("ema_decay", "averaging"), ("weight_bumping", "push")):
            header["settings"][former] = header["settings"].pop(now)

    rewritten(copy / "last.npz", rename)
    assert summary(resumed(copy)) == summary(uninterrupted[1])


#: Change of the bytes of a file; None: the file is removed.
DAMAGES = {
    "cut": lambda data: data[: len(data) // 2],
    "flipped": lambda data: flipped(data, len(data) // 3, 1),
    "gone": None,
    "zeros": lambda data: bytes(len(data)),
}


def flipped(data, place, bits):
    return data[:place] + bytes([data[place] ^ bits]) + data[place + 1 :]


@pytest.mark.parametrize("damage", DAMAGES)
def test_where_the_last_is_damaged_the_run_goes_on_from_the_one_before(damage, uninterrupted, copy):
    last, lines = copy / "last.npz", []
    data = last.read_bytes()
    last.unlink()
    if DAMAGES[damage] is not None:
        last.write_bytes(DAMAGES[damage](data))
    again = resumed(copy, progress=lines.append)
    assert same(again, uninterrupted[1])
    (note,) = [note for note in again.notes if "before.npz" in note]
    assert note.endswith("the run resumes from before.npz, after epoch 5")
    assert note in lines
    assert unsealed(last)[0]["history"] == unsealed(uninterrupted[0] / "last.npz")[0]["history"]


def test_every_byte_counts(copy):
    """The seal covers what the checksums of a zip file do not."""
    last = copy / "last.npz"
    data = last.read_bytes()
    for place in np.linspace(0, len(data) - 1, 200).astype(int):
        last.write_bytes(flipped(data, place, 0x10))
        with pytest.raises(FileError):
            unsealed(last)
    last.write_bytes(data)
    unsealed(last)


@pytest.mark.parametrize("file_names", [["last.npz"], ["last.npz", "before.npz"]], ids=len)
def test_where_all_are_damaged_the_run_is_refused(file_names, tmp_path):
    for name in file_names:
        (tmp_path / name).write_bytes(b"PK no zip file")
    assert_refused(lambda: resumed(tmp_path), FileError, rf"{file_names[-1]} is not")


EDITS = {
    **{
        f"no {name}": (lambda header, name=name: header.pop(name))
        for name in (
            "settings",
            "fingerprint",
            "history",
            "seconds",
            "best_epoch",
            "budgets",
            "factor",
            "failures",
            "failing_epochs",
            "version",
        )
    },
    "settings a list": lambda header: header.update(settings=[]),
    "history empty": lambda header: header.update(history=[]),
    "history of numbers": lambda header: header.update(history=[1] * 7),
    "a record without a loss": lambda header: header["history"][1].pop("train_loss"),
    "a record with more": lambda header: header["history"][1].update(more=1),
    "a loss of text": lambda header: header["history"][1].update(train_loss="1"),
    "spikes of text": lambda header: header["history"][1].update(spikes={"a": "b"}),
    "epochs out of order": lambda header: header["history"].reverse(),
    "seconds too few": lambda header: header["seconds"].pop(),
    "seconds of text": lambda header: header.update(seconds=["1"] * 7),
    "best epoch too large": lambda header: header.update(best_epoch=7),
    "best epoch negative": lambda header: header.update(best_epoch=-1),
    "best epoch true": lambda header: header.update(best_epoch=True),
    "budgets unknown": lambda header: header.update(budgets={"other": 1}),
    "budgets of text": lambda header: header.update(budgets={"max_spikes": "many"}),
    "budgets of broken pairs": lambda header: header.update(budgets={"max_spikes": [["a"]]}),
    "factor infinite": lambda header: header.update(factor=float("inf")),
    "factor zero": lambda header: header.update(factor=0),
    "failures half": lambda header: header.update(failures=0.5),
    "fingerprint a number": lambda header: header.update(fingerprint=1),
    "notes of numbers": lambda header: header.update(notes=[1]),
    "version true": lambda header: header.update(version=True),
    "version text": lambda header: header.update(version="2"),
    "version later": lambda header: header.update(version=3),
}


NAN, INF = float("nan"), float("inf")
#: Valid and invalid values of each kind of entry.
ENTRIES = {
    "is_count": ([0, 1, 10**6], [-1, True, False, 1.0, "1", None, [1]]),
    "is_number": ([0, -1.5, 10**300], [True, "1", None, [], INF, -INF, NAN]),
    "is_amount": ([0, 1.5], [-1e-9, INF, NAN, True]),
    "_is_fraction": ([0, 0.5, 1, 1 + 2**-21], [-1e-9, 1.001, NAN, True, None]),
    "_is_small_count": ([0, 2**31 - 1], [2**31, -1, 1.0, True]),
    "is_positive": ([0.5, 1, 1e-9, 2.0], [0, -1, INF, NAN, True, "1"]),
    "_is_text": (["", "a"], [1, None, ["a"]]),
    "_are_texts": ([[], ["a", ""]], [{}, ["a", 1], "a", None]),
    "_are_seconds": ([[], [1, 0.5]], [{}, [1, "1"], 1, [-1], [NAN]]),
    "_is_budget": (
        [None, "auto", 0, 5, [], [["a", 3], ["b", "auto"], ["c", None]], [["a", [["b", 1]]]]],
        [-1, True, "many", 1.5, {}, ["a1"], [["a"]], [["a", 1, 2]], [[1, 2]], [["a", -1]]],
    ),
    "_are_budgets": (
        [{}, {"max_spikes": 3}, {"max_spikes": [["a", 3]], "max_events": "auto"}],
        [[], {"other": 1}, {"max_spikes": -1}, {"max_spikes": 1, "max_events": "many"}],
    ),
}


@pytest.mark.parametrize("kind", ENTRIES)
def test_entries_of_a_header_fit_their_kind_or_do_not(kind):
    fits = getattr(checkpoints if hasattr(checkpoints, kind) else history_schema, kind)
    right, wrong = ENTRIES[kind]
    assert [value for value in right if not fits(value)] == []
    assert [value for value in wrong if fits(value)] == []


#: Numbers of the record of an epoch that no run writes.
NONSENSE = {
    "train_loss": [NAN, INF, "1", None, True],
    "train_accuracy": [NAN, -0.5, 1.5],
    "validation_loss": [NAN, -INF, [1.0]],
    "validation_accuracy": [NAN, INF, 2],
    "undecided": [NAN, -1, 1.1],
    "silent": [{"1": NAN}, {"1": -0.1}, {"1": 1.5}, [0.5], None],
    "spikes": [{"1": NAN}, {"1": INF}, {"1": -1.0}, {"1": None}],
    "clipped": [NAN, -1.0, 3],
    "max_spikes": [-1, 2**31, 10**30, 1.5, NAN],
    "gradient": [NAN, INF, -1.0],
    "factor": [NAN, 0.0, -1.0, INF],
    "epoch": [-1, 5, 0.5, NAN, 10**40],
}


@pytest.mark.parametrize(
    ("entry", "value"), [(name, value) for name, values in NONSENSE.items() for value in values]
)
def test_nonsense_in_the_history_is_refused_with_file_epoch_and_entry(entry, value, tmp_path):
    saved = Checkpoints(tmp_path)
    path = saved.folder / "last.npz"
    rewritten(path, lambda header: header["history"][2].update({entry: value}))
    problem = assert_refused(lambda: unsealed(path), FileError, r"last\.npz")
    assert "epoch 2" in problem.message
    assert entry == "epoch" or f"'{entry}'" in problem.message


@pytest.mark.parametrize("seal", [True, False], ids=["sealed", "as version 1"])
@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_header_is_refused_in_one_line(edit, seal, copy):
    rewritten(copy / "last.npz", EDITS[edit], seal, version=2 if seal else 1)
    assert_refused(lambda: unsealed(copy / "last.npz"), JaxsnnError, r"last\.npz")


class Counted(NamedTuple):
    """State of an optimiser that counts its steps, as those of optax do."""

    count: np.ndarray
    momentum: dict


def with_steps(saved):
    """A checkpoint whose optimiser counts, and the state from which such a run begins."""
    weights = {"1": np.ones((3, 2), np.float32)}
    memory = Counted(np.int32(0), {"1": np.zeros((3, 2), np.float32)})
    state = TrainState(raw=weights, memory=memory, average=None)
    arrays = [np.asarray(leaf) for leaf in jax.tree.leaves((state, state))]
    return state, {f"array{number}": array for number, array in enumerate(arrays)}


def set_at(place, value):
    def change(array):
        array = np.array(array)
        array[place] = value
        return array

    return change


#: Change of an array, and parts of the message: the entry, and what is wrong with it.
ARRAYS = {
    "NaN in a weight": ("array0", set_at((1, 0), np.nan), ("array0", "raw['1']", "nan", "(1, 0)")),
    "infinity in a momentum": ("array2", set_at((0, 1), -np.inf), ("memory.momentum", "-inf")),
    "a negative count": ("array1", set_at((), -3), ("array1", "memory.count", "-3")),
    "NaN in the best weights": ("array3", set_at((2, 1), np.nan), ("best epoch", "raw", "nan")),
    "another shape": ("array0", lambda array: array[:1], ("array0", "(1, 2)", "(3, 2)")),
    "an axis more": ("array2", lambda array: array[..., None], ("array2", "(3, 2, 1)")),
    "another type": ("array0", lambda array: array.astype(float), ("float64", "float32")),
    "text": ("array0", lambda array: array.astype("U8"), ("array0", "<U8", "float32")),
    "complex": ("array0", lambda array: array.astype(complex), ("array0", "complex128")),
    "big endian": ("array0", lambda array: array.astype(">f4"), ("array0", ">f4")),
    "a float count": ("array1", lambda array: array.astype(np.float32), ("memory.count", "int32")),
    "no axis": ("array3", lambda array: array.ravel()[0], ("array3", "()")),
}


@pytest.mark.parametrize("change", ARRAYS)
def test_an_array_that_no_run_writes_is_refused_with_its_entry(change, tmp_path):
    saved = Checkpoints(tmp_path)
    path = saved.folder / "last.npz"
    state, arrays = with_steps(saved)
    path.write_bytes(sealed(saved.header, arrays))
    shutil.copy(path, saved.folder / "before.npz")
    folder = opened(saved)
    begin = partial(folder.begin, resume=True, state=state, overwrite=False)
    assert begin() is not None
    name, edit, words = ARRAYS[change]
    path.write_bytes(sealed(saved.header, arrays | {name: edit(arrays[name])}))
    (saved.folder / "before.npz").unlink()
    problem = assert_refused(begin, JaxsnnError, r"last\.npz")
    for word in words:
        assert word in problem.message
    folder.close()


@pytest.mark.parametrize("number", [0, 5, 7, 200])
def test_another_number_of_arrays_is_refused(number, tmp_path):
    saved = Checkpoints(tmp_path)
    state, arrays = with_steps(saved)
    assert len(arrays) == 6
    arrays = {f"array{n}": np.zeros(1) for n in range(number)}
    (saved.folder / "last.npz").write_bytes(sealed(saved.header, arrays))
    folder = opened(saved)
    problem = assert_refused(
        lambda: folder.begin(resume=True, state=state, overwrite=False), UsageError, r"last\.npz"
    )
    assert (problem.facts["actual"], problem.facts["expected"]) == (number, 6)
    folder.close()


def test_a_checkpoint_of_before_seals_is_resumed(uninterrupted, copy):
    rewritten(copy / "last.npz", dict, seal=False, version=1)
    assert same(resumed(copy), uninterrupted[1])


def test_a_seal_that_was_taken_off_is_missed(copy):
    rewritten(copy / "last.npz", dict, seal=False)
    assert_refused(lambda: unsealed(copy / "last.npz"), FileError, "its checksum is missing")


# -- two runs, and force


def test_a_second_run_in_one_folder_is_refused_by_name(uninterrupted, copy):
    refused = []

    def second(line):
        if line.startswith("epoch 1/") and not refused:
            assert_refused(
                lambda: resumed(copy), FileError, r"another run writes checkpoints to .*copy"
            )
            refused.append(line)

    shutil.rmtree(copy)
    first = fit(small_net(), DATA, **{**SETTINGS, "progress": second}, checkpoint=copy)
    assert len(refused) == 1
    assert same(first, uninterrupted[1])
    assert same(resumed(copy), uninterrupted[1])  # the folder is free again


def test_force_replaces_both_generations(uninterrupted, copy):
    again = fit(small_net(), DATA, **{**SETTINGS, "epochs": 1}, checkpoint=copy, overwrite=True)
    assert len(again.history) == 2
    assert len(unsealed(copy / "before.npz")[0]["history"]) == 1
    assert len((copy / "history.jsonl").read_text().splitlines()) == 2


def test_a_resumed_run_cuts_the_history_to_its_checkpoint_and_removes_leftovers(
    uninterrupted, copy
):
    """Of epochs that the checkpoint does not know, and of runs that were killed."""
    line = (copy / "history.jsonl").read_text().splitlines()[-1]
    with (copy / "history.jsonl").open("a") as lines:
        lines.write(line.replace('"epoch": 6', '"epoch": 7') + '\n{"epoch": 8, "train_lo')
    for name in (".last.npz.12.ab", ".best.npz.1", ".history.jsonl.99", ".before.npz.5", ".mine"):
        (copy / name).write_bytes(b"half")
    resumed(copy)
    assert (copy / "history.jsonl").read_text() == (uninterrupted[0] / "history.jsonl").read_text()
    assert sorted(name for name in os.listdir(copy) if name.startswith(".")) == [".mine"]


# -- links in a folder


def chain_of_links(path, victim):
    path.with_name("between").symlink_to(victim)
    path.symlink_to("between")


def linked_pipe(path, victim):
    os.mkfifo(path.with_name("between"))
    path.symlink_to("between")


def bound_socket(path):
    before = os.getcwd()
    os.chdir(path.parent)  # the path of a socket has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(before)


#: Links and special files that replace a file of a checkpoint folder; `victim` is a file of the user.
LINKS = {
    "file": lambda path, victim: path.symlink_to(victim),
    "relative": lambda path, victim: path.symlink_to(os.path.relpath(victim, path.parent)),
    "chain": chain_of_links,
    "dangling": lambda path, victim: path.symlink_to(victim.with_name("nothing")),
    "folder": lambda path, victim: path.symlink_to(victim.parent, target_is_directory=True),
    "loop": lambda path, victim: path.symlink_to(path.name),
    "pipe": lambda path, victim: os.mkfifo(path),
    "link to an endless device": lambda path, victim: path.symlink_to("/dev/zero"),
    "link to a terminal": lambda path, victim: path.symlink_to("/dev/tty"),
    "link to a pipe": linked_pipe,
    "socket": lambda path, victim: bound_socket(path),
    "a folder": lambda path, victim: path.mkdir(),
}
NAMES = ("last.npz", "before.npz", "best.npz", "history.jsonl")


@pytest.fixture
def victim(tmp_path):
    """A user's file outside the folder, alone in its own."""
    (tmp_path / "home").mkdir()
    path = tmp_path / "home" / "diary.txt"
    path.write_text("what nobody may overwrite\n")
    path.chmod(0o600)
    return path


def untouched(victim):
    assert victim.read_text() == "what nobody may overwrite\n"
    assert victim.stat().st_mode & 0o777 == 0o600
    assert os.listdir(victim.parent) == [victim.name]


def opened(saved, path=None):
    """The folder of saved checkpoints as a run opens it."""
    return checkpoints.Folder(path or saved.folder, saved.settings, "print", alone=True)


def begun(folder, saved):
    """The checkpoint from which a run in a folder goes on."""
    checkpoint = folder.begin(resume=True, state=saved.state, overwrite=False)
    assert checkpoint is not None
    return checkpoint


@pytest.fixture
def running(tmp_path):
    """The path of a folder, the folder of a run that resumed there, and its checkpoint."""
    saved = Checkpoints(tmp_path / "run")
    folder = opened(saved)
    yield saved.folder, folder, begun(folder, saved)
    folder.close()


@pytest.mark.parametrize("options", [{"resume": True}, {"overwrite": True}, {}], ids=str)
@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("name", NAMES)
def test_a_link_in_a_checkpoint_folder_is_refused_before_anything_is_trained(
    name, kind, options, victim, tmp_path
):
    saved = Checkpoints(tmp_path / "run")
    (saved.folder / name).unlink(missing_ok=True)
    LINKS[kind](saved.folder / name, victim)
    before = sorted(os.listdir(saved.folder))
    folder = opened(saved)
    begin = {"resume": False, "overwrite": False, "state": saved.state} | options
    assert_refused(lambda: folder.begin(**begin), FileError, name.replace(".", r"\."))
    folder.close()
    untouched(victim)
    assert sorted(os.listdir(saved.folder)) == before


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("name", NAMES)
def test_a_link_that_comes_while_a_run_goes_on_is_not_followed(name, kind, victim, running):
    path, folder, checkpoint = running
    (path / name).unlink(missing_ok=True)
    LINKS[kind](path / name, victim)
    assert_refused(lambda: folder.save(checkpoint, dict), FileError, name.replace(".", r"\."))
    untouched(victim)


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("name", [".last.npz.12.ab", ".before.npz.{pid}", ".history.jsonl.7.cd"])
def test_hidden_names_of_a_folder_are_not_written_through(name, kind, victim, tmp_path):
    """Names that temporary files may have, of this process, too."""
    saved = Checkpoints(tmp_path / "run")
    hidden = saved.folder / name.format(pid=os.getpid())
    LINKS[kind](hidden, victim)
    folder = opened(saved)
    checkpoint = begun(folder, saved)
    LINKS[kind](hidden.with_name(hidden.name + "1"), victim) if kind == "file" else None
    folder.save(checkpoint, dict)
    folder.close()
    untouched(victim)
    for existing in ("last.npz", "before.npz", "history.jsonl"):
        assert (saved.folder / existing).is_file()
        assert not (saved.folder / existing).is_symlink()
    assert unsealed(saved.folder / "last.npz")[0]["history"] == saved.header["history"]


@pytest.mark.parametrize("kind", ["pipe", "socket", "link to a pipe", "dangling", "file of a user"])
def test_a_folder_of_checkpoints_is_a_folder(kind, victim, tmp_path):
    path = tmp_path / "run"
    if kind == "file of a user":
        path = victim
    else:
        LINKS[kind](path, victim)
    saved = Checkpoints(tmp_path / "other")
    assert_refused(lambda: opened(saved, path), FileError, path.name)
    untouched(victim)


@pytest.mark.parametrize("kind", LINKS)
def test_a_special_file_in_place_of_a_checkpoint_is_not_read(kind, victim, tmp_path):
    path = tmp_path / "last.npz"
    LINKS[kind](path, victim)
    fix = None if kind in ("dangling", "loop") else ""
    assert_refused(lambda: unsealed(path), FileError, "last.npz", fix=fix)


def test_a_hard_link_to_the_history_is_not_written_through(tmp_path, running):
    path, folder, checkpoint = running
    folder.save(checkpoint, dict)
    backups = {name: tmp_path / f"copy of {name}" for name in os.listdir(path)}
    for name, backup in backups.items():
        os.link(path / name, backup)
    contents = [backup.read_bytes() for backup in backups.values()]
    longer = replace(checkpoint, history=(*checkpoint.history, checkpoint.history[-1]))
    folder.save(longer, dict)
    assert [backup.read_bytes() for backup in backups.values()] == contents


@pytest.mark.parametrize("put", ["link", "folder", "nothing"])
def test_a_folder_that_is_replaced_while_a_run_goes_on_is_not_written_to(
    put, victim, tmp_path, running
):
    path, folder, checkpoint = running
    path.rename(tmp_path / "moved")
    if put == "link":
        path.symlink_to(victim.parent)
    elif put == "folder":
        path.mkdir()
    assert_refused(lambda: folder.save(checkpoint, dict), FileError)
    untouched(victim)


def test_a_folder_may_itself_be_named_by_a_link(tmp_path):
    """As where checkpoints are kept on another disk: the name is the user's."""
    saved = Checkpoints(tmp_path / "disk")
    (tmp_path / "out.checkpoint").symlink_to(saved.folder)
    folder = opened(saved, tmp_path / "out.checkpoint")
    folder.save(begun(folder, saved), dict)
    folder.close()
    assert (saved.folder / "before.npz").exists()


@pytest.mark.parametrize("name", ["best.npz", "history.jsonl"])
def test_a_file_that_no_checkpoint_belongs_to_is_not_overwritten_unasked(name, tmp_path):
    saved = Checkpoints(tmp_path / "run")
    shutil.rmtree(saved.folder)
    saved.folder.mkdir()
    (saved.folder / name).write_text("a user's own")
    folder = opened(saved)
    begin = {"resume": False, "state": saved.state, "overwrite": False}
    assert_refused(lambda: folder.begin(**begin), FileError, name.replace(".", r"\."))
    folder.close()
    assert (saved.folder / name).read_text() == "a user's own"


def test_the_print_of_data_is_of_their_types_and_shapes_too():
    numbers = np.arange(8, dtype=np.int32)
    prints = {
        checkpoints.fingerprint(numbers),
        checkpoints.fingerprint(numbers.astype(np.float32)),
        checkpoints.fingerprint(numbers.view(np.float32)),
        checkpoints.fingerprint(numbers.reshape(2, 4)),
        checkpoints.fingerprint(numbers.reshape(4, 2)),
        checkpoints.fingerprint(numbers + 1),
    }
    assert len(prints) == 6
    assert checkpoints.fingerprint(numbers) == checkpoints.fingerprint(numbers.copy())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_asked_to_end_leaves_a_checkpoint_and_goes_on(number, tmp_path):
    argv = [
        *(sys.executable, "-m", "jaxsnn.commands.cli", "train", str(DEMO_NET), *TOLD),
        *("--data", "yinyang", "--epochs", "300", "-o", str(tmp_path / "out.nir"), "-v"),
    ]
    running = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    folder = tmp_path / "out.checkpoint"
    while not (folder / "before.npz").exists() and running.poll() is None:
        time.sleep(0.02)
    running.send_signal(number)
    _, error = running.communicate(timeout=120)
    assert running.returncode == 2, error
    assert error.splitlines()[-1] == "jaxsnn: error: interrupted"
    assert not [name for name in os.listdir(folder) if name.startswith(".")]
    unsealed(folder / "last.npz")


def test_only_force_removes_what_is_there(tmp_path):
    saved = Checkpoints(tmp_path)

    def folder():
        return checkpoints.Folder(saved.folder, saved.settings, "print", alone=False)

    def assert_holds(*file_names):
        assert sorted(path.name for path in saved.folder.iterdir()) == sorted(file_names)
        assert lines_of(saved.folder) == [vars(record) for record in checkpoint.history]

    checkpoint = begun(folder(), saved)
    folder().save(checkpoint, dict)  # without `begin`
    assert_holds("before.npz", "history.jsonl", "last.npz")
    (saved.folder / "history.jsonl").unlink()
    for _ in range(2):  # the second time, there is no earlier checkpoint
        forced = folder()
        assert forced.begin(resume=False, state=saved.state, overwrite=True) is None
        forced.save(checkpoint, dict)
        assert_holds("history.jsonl", "last.npz")


def fail(*_, **__):
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_checkpoint_of_another_run_that_cannot_be_removed_is_a_warning(tmp_path, monkeypatch):
    saved = Checkpoints(tmp_path)
    checkpoint = begun(opened(saved), saved)
    forced = checkpoints.Folder(saved.folder, saved.settings, "print", alone=False)
    assert forced.begin(resume=False, state=saved.state, overwrite=True) is None
    (saved.folder / "before.npz").write_text("of another run")
    monkeypatch.setattr(os, "unlink", fail)
    with pytest.warns(EnvironmentWarning, match=r"before\.npz \(Input/output error\)"):
        forced.save(checkpoint, dict)
    unsealed(saved.folder / "last.npz")
    monkeypatch.undo()
    forced.save(checkpoint, dict)  # the next one takes its place
    unsealed(saved.folder / "before.npz")
    assert not [name for name in os.listdir(saved.folder) if name.startswith(".")]


def test_a_second_name_of_the_checkpoint_that_remains_is_reported(monkeypatch, running):
    path, folder, checkpoint = running
    monkeypatch.setattr(os, "replace", fail)
    monkeypatch.setattr(os, "unlink", fail)
    monkeypatch.setattr(checkpoints, "_write_lines", lambda *_: None)
    with pytest.warns(EnvironmentWarning) as caught:
        assert_refused(
            lambda: folder.save(checkpoint, dict), FileError, "before.npz cannot be", fix=None
        )
    (second,) = [name for name in os.listdir(path) if name.startswith(".")]
    assert str(path / second) in str(caught[0].message)


def test_a_lock_that_cannot_be_closed_hides_no_error(running, monkeypatch):
    _, folder, _ = running
    monkeypatch.setattr(os, "close", fail)
    folder.close()
    assert folder._lock is None


def test_the_first_setting_that_differs_is_named():
    before = {"seed": 0, "draw": {"size": 1, "range": [2]}}
    now = {"seed": 0, "draw": {"size": 1, "range": [3]}}
    assert checkpoints._difference("data", before, now) == ("data.draw.range", [2], [3])
    del now["draw"]["range"]
    assert checkpoints._difference("data", before, now) == ("data.draw.range", [2], None)


def grouped(rate):
    """An optimiser that is made for the network's own nodes."""
    groups = {"1": {"weight": "slow"}, "3": {"weight": "fast"}}
    return optax.multi_transform({"slow": optax.sgd(0.01), "fast": optax.sgd(rate)}, groups)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"optimiser": optax.sgd(0.1)}, {"optimiser": optax.sgd(1e-5)}),
        ({"optimiser": optax.adam(0.1)}, {"optimiser": optax.adam(0.1, b1=0.1)}),
        ({"optimiser": grouped(0.1), "trainable": ("weight",)}, {"optimiser": grouped(0.2)}),
        (
            {"schedule": optax.constant_schedule(0.1)},
            {"schedule": optax.constant_schedule(0.001)},
        ),
    ],
)
def test_another_optimiser_or_schedule_of_ones_own_is_refused(first, then, tmp_path):
    settings = {**SETTINGS, "epochs": 1, "checkpoint": tmp_path / "run", **first}
    fit(small_net(), DATA, **settings)
    fit(small_net(), DATA, **settings, resume=True)
    assert_refused(
        lambda: fit(small_net(), DATA, **settings | then, resume=True),
        UsageError,
        "or another network, optimiser or schedule",
    )


def test_an_optimiser_is_told_by_several_of_its_steps():
    """What it makes of the run's own parameters is compared: some act after several steps only."""
    raw = {"1": {"weight": np.ones((2, 2), np.float32)}}
    first, second = (
        optimiser_identity(optax.MultiSteps(optax.adam(rate), 4), raw)[0].tobytes()
        for rate in (0.1, 1e-5)
    )
    assert first != second
    assert optimiser_identity("adam", raw) == ()


@pytest.mark.parametrize(
    "optimiser",
    [
        optax.adam(0.01, mu_dtype=jnp.bfloat16),
        optax.noisy_sgd(0.01, key=jax.random.key(5)),
        optax.noisy_sgd(0.01, key=jax.random.key(5, impl="rbg")),
    ],
)
def test_what_an_optimiser_remembers_may_be_of_any_type(optimiser, tmp_path):
    settings = {"epochs": 3, "optimiser": optimiser}
    direct = fit(small_net(), DATA, **settings)
    interrupt("epoch 2/", **settings, checkpoint=tmp_path)
    again = fit(small_net(), DATA, **settings, checkpoint=tmp_path, resume=True)
    assert summary(again) == summary(direct)


def test_what_raw_numbers_stand_for_is_part_of_what_a_checkpoint_is_of():
    network, tied = lower(small_net()), lower(tied_net())
    assert not raw_is_particular(network, (("1", (("weight", Free()),)),))
    assert raw_is_particular(network, (("1", (("weight", Free(rate=0.5)),)),))
    assert not raw_is_particular(network, (("2", (("v_threshold", Positive(low="v_reset")),)),))
    assert raw_is_particular(tied, (("2", (("tau", Positive()),)),))


def tied_net():
    neurons = build.lif(tau=2e-3, r=20.0)
    options = {"dialect": "snntorch", "reset": "zero"}
    return build.sequential(build.input(1), build.linear(1), neurons, seed=0, **options)
