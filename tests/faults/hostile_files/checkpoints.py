"""Hostile folders of checkpoints, from which a training run is to continue."""

import functools
import json
import os
import tempfile
from pathlib import Path

import numpy as np

from jaxsnn.train.loop.checkpoint import Checkpoint, Folder, sealed, unsealed
from jaxsnn.train.loop.epoch import TrainState
from jaxsnn.train.loop.history import EpochRecord
from tests.faults.hostile_files.case import Corpus, archive, described, gzip_bomb, npy_header

CORPUS = Corpus()
SETTINGS, PRINT = {"epochs": 3, "learning_rate": 0.01}, "print"


def state() -> TrainState:
    """Parameters of a small network."""
    weights = {"1": np.ones((3, 2), np.float32), "3": np.zeros(3, np.float32)}
    return TrainState(raw=weights, memory=(np.zeros(3, np.float32),), average=None)


@functools.cache
def _sound() -> dict[str, bytes]:
    """The files of a valid folder."""
    fields = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
    numbers = dict.fromkeys((*fields, "undecided", "clipped"), 0.5)
    more = {"silent": {"1": 0.5}, "spikes": {"1": 1.0}, "max_spikes": 4}
    with tempfile.TemporaryDirectory() as name:
        folder = Folder(name, SETTINGS, PRINT, alone=True)
        for epoch in range(2):
            history = tuple(
                EpochRecord(epoch=number, **numbers, **more) for number in range(epoch + 1)
            )
            checkpoint = Checkpoint(
                state=state(),
                best_state=state(),
                best_epoch=0,
                history=history,
                seconds=(0.1,) * (epoch + 1),
                budgets={"max_spikes": 4},
                factor=1.0,
                failures=0,
                failing_epochs=0,
            )
            folder.save(checkpoint, lambda: {"1": np.ones(3)})
        folder.close()
        return {path.name: path.read_bytes() for path in Path(name).iterdir() if path.is_file()}


@functools.cache
def _parts():
    """The header and the arrays of the last checkpoint."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "last.npz"
        path.write_bytes(_sound()["last.npz"])
        return unsealed(path)


def add(name, changes, *words, **options):
    """A folder some of whose files are replaced; a function writes what is no regular file. Both
    generations are replaced, so that the run cannot continue from the one before.
    """

    def write(folder):
        folder.mkdir()
        contents = _sound() | (changes() if callable(changes) else changes)
        for file_name, content in contents.items():
            place = folder / file_name
            if content is not None:
                content(place) if callable(content) else place.write_bytes(content)

    CORPUS.add(
        f"checkpoint: {name}", write, *words, reader="checkpoint", path="checkpoint", **options
    )


def both(content):
    return {"last.npz": content, "before.npz": content}


for name in ("last.npz", "before.npz", "best.npz", "history.jsonl"):
    for kind, writes in {
        "a pipe": os.mkfifo,
        "a link to a device": lambda place: place.symlink_to("/dev/zero"),
        "a link to another file": lambda place: place.symlink_to("/etc/hostname"),
        "a link to nowhere": lambda place: place.symlink_to("nowhere"),
        "a folder": lambda place: place.mkdir(),
    }.items():
        add(f"{name} is {kind}", {name: writes}, name)
for keep in (0, 1, 20, 100, 500):
    add(f"{keep} bytes", lambda keep=keep: both(_sound()["last.npz"][:keep]), "before.npz|last.npz")
add(
    "a byte changed",
    lambda: both(_sound()["last.npz"][:300] + b"\7" + _sound()["last.npz"][301:]),
    "npz",
)
add("seal gone", lambda: both(_sound()["last.npz"][:-90]), "npz")
add("text", both(b"hello"), "npz")


def _sparse(place):
    place.write_bytes(b"PK\3\4")
    os.truncate(place, 2**30)


add("1 GiB", both(_sparse), "bytes")


def sealed_header(change):
    """Both generations with a changed header and a right seal."""

    def contents():
        header, arrays = _parts()
        header = json.loads(json.dumps(header))
        header = change(header) or header
        return both(
            sealed(header, {f"array{number}": array for number, array in enumerate(arrays)})
        )

    return contents


def put(value, *keys):
    def change(header):
        for key in keys[:-1]:
            header = header[key]
        header[keys[-1]] = value

    return sealed_header(change)


NAN, INF = float("nan"), float("inf")
for name, (changes, *words) in {
    "header a list": (sealed_header(lambda header: [1]), "header"),
    "version 99": (put(99, "version"), "99"),
    "settings a list": (put([], "settings"), "settings"),
    "settings of another run": (put(0.5, "settings", "learning_rate"), "learning_rate"),
    "epochs -1": (put(-1, "settings", "epochs"), "epochs"),
    "epochs NaN": (put(NAN, "settings", "epochs"), "epochs"),
    "fingerprint of another run": (put("other", "fingerprint"),),
    "fingerprint a number": (put(3, "fingerprint"), "fingerprint"),
    "history empty": (put([], "history"), "history"),
    "history a number": (put(3, "history"), "history"),
    "history of numbers": (put([1, 2], "history"), "history|epoch 0"),
    "loss NaN": (put(NAN, "history", 1, "train_loss"), "train_loss"),
    "loss infinite": (put(-INF, "history", 1, "validation_loss"), "validation_loss"),
    "loss a text": (put("low", "history", 1, "train_loss"), "train_loss"),
    "loss 10^400": (put(10**400, "history", 1, "train_loss"), "401|train_loss"),
    "accuracy 7": (put(7.0, "history", 1, "train_accuracy"), "train_accuracy"),
    "accuracy NaN": (put(NAN, "history", 0, "validation_accuracy"), "validation_accuracy"),
    "silent NaN": (put({"1": NAN}, "history", 1, "silent"), "silent"),
    "spikes negative": (put({"1": -1.0}, "history", 1, "spikes"), "spikes"),
    "factor NaN in the history": (put(NAN, "history", 1, "factor"), "factor"),
    "epoch -1": (put(-1, "history", 1, "epoch"), "epoch"),
    "epoch 10^12": (put(10**12, "history", 1, "epoch"), "epoch"),
    "entry of the history unknown": (put(1, "history", 1, "los"), "los"),
    "best epoch 9": (put(9, "best_epoch"), "best"),
    "best epoch -1": (put(-1, "best_epoch"), "best_epoch"),
    "seconds NaN": (put([NAN, 0.1], "seconds"), "seconds"),
    "seconds negative": (put([-1.0, 0.1], "seconds"), "seconds"),
    "seconds of three": (put([0.1] * 3, "seconds"), "3"),
    "factor NaN": (put(NAN, "factor"), "factor"),
    "factor -1": (put(-1.0, "factor"), "factor"),
    "factor infinite": (put(INF, "factor"), "factor"),
    "failures -1": (put(-1, "failures"), "failures"),
    "failures 10^400": (put(10**400, "failures"), "401|failures"),
    "budget -1": (put({"max_spikes": -1}, "budgets"), "budgets|max_spikes"),
    "budget NaN": (put({"max_spikes": NAN}, "budgets"), "budgets|max_spikes"),
    "budget 10^400": (put({"max_spikes": 10**400}, "budgets"), "401|max_spikes"),
    "budget unknown": (put({"spikes": 3}, "budgets"), "budgets"),
    "notes of numbers": (put([1], "notes"), "notes"),
}.items():
    add(name, changes, *words)


def sealed_arrays(change):
    """Both generations with changed arrays and a right seal."""

    def contents():
        header, arrays = _parts()
        named = {f"array{number}": np.array(array) for number, array in enumerate(arrays)}
        change(named)
        return both(sealed(header, named))

    return contents


def array(value):
    return sealed_arrays(lambda arrays: arrays.update(array0=value))


for name, value in {
    "array of another shape": np.ones((2, 2), np.float32),
    "array of another type": np.ones((3, 2), np.float64),
    "array of the other order": np.ones((3, 2), ">f4"),
    "array NaN": np.full((3, 2), np.nan, np.float32),
    "array infinite": np.full((3, 2), np.inf, np.float32),
    "array complex": np.ones((3, 2), complex),
    "array of texts": np.full((3, 2), "a"),
    "array of objects": np.full((3, 2), None),
    "array of records": np.zeros((3, 2), [("a", "f4")]),
    "array empty": np.ones((0, 2), np.float32),
}.items():
    add(name, array(value), "npz")
add("array missing", sealed_arrays(lambda arrays: arrays.pop("array1")), "npz")
add("array too many", sealed_arrays(lambda arrays: arrays.update(array99=np.ones(3))), "npz")
add(
    "header missing",
    lambda: both(archive(("array0.npy", npy_header(described("(3,)"), bytes(24))))),
    "npz",
)
add(
    "negative shape",
    lambda: both(archive(("header.npy", npy_header(described("(-9,)", "'|u1'"), bytes(9))))),
    "npz",
)
for name, text in {
    "100,000 brackets": b"[" * 100_000,
    "a number of 10^6 digits": b"1" * 10**6,
    "no text": b"\xff\xfe",
    "NaN": b"NaN",
}.items():
    content = archive(("header.npy", npy_header(described(f"({len(text)},)", "'|u1'"), text)))
    add(f"header of {name}", both(content), "npz")
add("a gzip bomb", lambda: both(gzip_bomb(1024)), "npz")
