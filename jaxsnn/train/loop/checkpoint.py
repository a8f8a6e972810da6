"""Checkpoints: all that a run needs to go on, bit for bit, in one file that is replaced whole after
each epoch.

A folder holds `last.npz` (the run), `best.npz` (the parameters of the best epoch so far by
NODE.NAME, times in seconds) and `history.jsonl` (one line of JSON for each epoch). A run that is
killed at any time, kill -9 included, goes on from its last whole epoch; the epoch that was cut
short is done again, with the same random numbers. A checkpoint of other settings, another network
or other data is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxsnn.errors import FileError, UsageError
from jaxsnn.train.loop.epoch import TrainState
from jaxsnn.train.loop.history import EpochRecord
from jaxsnn.train.options import OPTIONS

LAST, BEST, HISTORY = "last.npz", "best.npz", "history.jsonl"
_VERSION = 1
_SAME = "resume with the same, or choose another folder"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A run after some epoch.

    Attributes:
        state, best_state: what training changes, now and at the best epoch.
        best_epoch: its number.
        history, seconds: as in `jaxsnn.train.Fit`.
        budgets: of the engine, by option.
        factor: what steps are multiplied by.
        failures: how often the run went back to its best epoch.
        failing_epochs: for how many epochs no output has fired, or answers were hardly better than
            none.
    """

    state: TrainState
    best_state: TrainState
    best_epoch: int
    history: tuple[EpochRecord, ...]
    seconds: tuple[float, ...]
    budgets: dict[str, Any]
    factor: float
    failures: int
    failing_epochs: int


def fingerprint(*trees: Any) -> str:
    """A hash of arrays and of what is JSON."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(trees):
        array = np.asarray(leaf)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class Folder:
    """A folder of checkpoints.

    Args:
        path: is made where it does not exist.
        settings: of the run, as JSON has them.
        print_: of the data and the network to begin with, see `fingerprint`.
    """

    def __init__(self, path: str | os.PathLike[str], settings: dict[str, Any], print_: str):
        self.path, self.settings, self.print = Path(path), json.loads(json.dumps(settings)), print_
        self._replaces = False
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(
                f"{path} cannot be a folder of checkpoints: {error.strerror or error}",
                fix="name another folder",
            ) from error

    def begin(
        self, *, resume: bool, state: TrainState, overwrite: bool = False
    ) -> Checkpoint | None:
        """The checkpoint to go on from; None: there is none, or it is replaced at the first `save`;
        the run begins.

        Raises:
            FileError: there is one, and neither `resume` nor `overwrite` is set; or it is damaged.
            UsageError: it is of other settings, data or parameters.
        """
        last = self.path / LAST
        self._replaces = overwrite and not resume
        if self._replaces or not last.exists():
            return None
        if not resume:
            raise FileError(
                f"{last} exists", fix="go on from it with resume=True, or choose another folder"
            )
        found = self._read(last, state)
        _write_lines(self.path / HISTORY, found.history)
        return found

    def save(self, checkpoint: Checkpoint, best: Callable[[], dict[str, np.ndarray]]) -> None:
        """Replace the checkpoint; `best` gives the arrays of best.npz, asked for only at the best
        epoch.
        """
        record = checkpoint.history[-1]
        if self._replaces:
            (self.path / HISTORY).unlink(missing_ok=True)
            self._replaces = False
        with (self.path / HISTORY).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(asdict(record)) + "\n")
        if record.epoch == checkpoint.best_epoch:
            _replace(self.path / BEST, best())
        names = [
            field.name
            for field in fields(Checkpoint)
            if field.name not in ("state", "best_state", "history")
        ]
        header = {
            "version": _VERSION,
            "settings": self.settings,
            "fingerprint": self.print,
            "history": [asdict(record) for record in checkpoint.history],
            **{name: getattr(checkpoint, name) for name in names},
        }
        leaves = jax.tree.leaves((checkpoint.state, checkpoint.best_state))
        arrays = {f"array{number}": np.asarray(leaf) for number, leaf in enumerate(leaves)}
        _replace(
            self.path / LAST,
            {"header": np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays},
        )

    def tidy(self) -> None:
        """Remove the folder if nothing is in it."""
        with suppress(OSError):
            self.path.rmdir()

    def _read(self, path: Path, state: TrainState) -> Checkpoint:
        leaves, structure = jax.tree.flatten((state, state))
        try:
            with np.load(path, allow_pickle=False) as file:
                header = json.loads(file["header"].tobytes().decode())
                arrays = [file[f"array{number}"] for number in range(len(file.files) - 1)]
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise FileError(
                f"{path} is not a checkpoint: {error}", fix="remove it, or choose another folder"
            ) from error
        self._refuse_other(path, header)
        shapes = [(np.shape(leaf), np.asarray(leaf).dtype) for leaf in leaves]
        if [(array.shape, array.dtype) for array in arrays] != shapes:
            raise UsageError(f"{path} holds arrays of another network or optimiser", fix=_SAME)
        state, best_state = jax.tree.unflatten(
            structure, [jax.numpy.asarray(array) for array in arrays]
        )
        history = tuple(EpochRecord(**record) for record in header["history"])
        rest = {
            name: header[name]
            for name in ("best_epoch", "budgets", "factor", "failures", "failing_epochs")
        }
        return Checkpoint(
            state=state,
            best_state=best_state,
            history=history,
            seconds=tuple(header["seconds"]),
            **rest,
        )

    def _refuse_other(self, path: Path, header: dict[str, Any]) -> None:
        if header.get("version") != _VERSION:
            raise FileError(
                f"{path} is a checkpoint of version {header.get('version')}, this reads {_VERSION}",
                fix="begin again in another folder",
            )
        before = dict(header["settings"])
        for name, value in self.settings.items():
            former = OPTIONS[name].former if name in OPTIONS else ""
            other = before.get(name, before.get(former))
            if other != value:
                where, then, now = _difference(name, other, value)
                raise UsageError(
                    f"{path} was made with {where} = {then}, now it is {now}", fix=_SAME
                )
        if header["fingerprint"] != self.print:
            raise UsageError(f"{path} was made with other data, or another network", fix=_SAME)


def _difference(where: str, before: Any, now: Any) -> tuple[str, Any, Any]:
    """The first place at which two settings differ, and what is there."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in (*now, *before):
            if before.get(name) != now.get(name):
                return _difference(f"{where}.{name}", before.get(name), now.get(name))
    return where, before, now


def _replace(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an .npz beside its place, onto the disk, then rename it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise FileError(f"{path} cannot be written ({error.strerror or error})") from error


def _write_lines(path: Path, history: Sequence[EpochRecord]) -> None:
    """The history as far as the checkpoint goes: lines of an epoch that will be done again are
    dropped.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(
        "".join(json.dumps(asdict(record)) + "\n" for record in history), encoding="utf-8"
    )
    os.replace(temporary, path)
