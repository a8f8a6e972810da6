"""Checkpoints: everything that a run needs to continue, bit for bit, in one file that is replaced
after each epoch.

A folder contains `last.npz` (the run), `before.npz` (the run one epoch earlier, from which it resumes if
the last checkpoint is damaged), `best.npz` (the parameters of the best epoch so far by
NODE.NAME, times in seconds) and `history.jsonl` (one line of JSON for each epoch). A run that is
killed at any time, kill -9 included, continues after its last complete epoch; the interrupted epoch
is repeated with the same random numbers. A checkpoint of other settings, another network
or other data is refused.

Each file is replaced whole under its name, so that neither hard links nor symbolic links are written
through. A symbolic link, or anything else that is not a regular file, is refused before anything is
trained.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxsnn.errors import FileError, UsageError, first_line
from jaxsnn.event.event_options import BUDGETS
from jaxsnn.files.array_files import arrays_of
from jaxsnn.files.opening import read_bytes, refuse_unreadable
from jaxsnn.files.read_limits import ByteBudget
from jaxsnn.files.structured_text import parse_json
from jaxsnn.output import (
    close,
    refuse_link,
    refuse_read_only,
    remove_files,
    write_arrays,
    write_atomically,
)
from jaxsnn.train.loop.epoch import TrainState
from jaxsnn.train.loop.history import EpochRecord
from jaxsnn.train.loop.history_schema import (
    Check,
    entry_defect,
    history_defect,
    is_amount,
    is_count,
    is_positive,
)
from jaxsnn.train.options import MOST_EPOCHS, OPTIONS
from jaxsnn.wording import Text

LAST, BEFORE, BEST, HISTORY = "last.npz", "before.npz", "best.npz", "history.jsonl"
#: Names of options in checkpoints of earlier versions.
_EARLIER_NAMES = {"ema_decay": "averaging", "weight_bumping": "push"}
#: Fields of losses and augmentations, by their names in checkpoints of earlier versions.
_EARLIER_FIELDS = {"sharpness": "temperature", "turn": "rotation", "bend": "distortion"}
_SAME = "resume with the settings of the checkpoint, or choose another folder"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """State of a run after some epoch.

    Attributes:
        state, best_state: mutable state of the run, after this epoch and after the best epoch.
        best_epoch: number of the best epoch.
        history, seconds: as in `jaxsnn.train.Fit`.
        budgets: budgets of the engine, by option.
        factor: factor of all step sizes.
        failures: number of times that the run went back to its best epoch.
        failing_epochs: number of consecutive epochs in which no output fired, or the accuracy
            had collapsed.
        notes: notes on going back, one sentence each.
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
    notes: tuple[str, ...] = ()


def fingerprint(*trees: Any) -> str:
    """Return a hash of arrays and JSON values."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(trees):
        array = np.asarray(leaf)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _is_key(leaf: Any) -> bool:
    """Return whether a leaf is an array of new-style `jax.random` keys."""
    kind = getattr(leaf, "dtype", None)
    return kind is not None and jax.numpy.issubdtype(kind, jax.dtypes.prng_key)


def _plain(leaf: Any) -> np.ndarray:
    """Return an array as files store it: `jax.random` keys, and types that NumPy does not write
    (bfloat16), as integers.
    """
    if _is_key(leaf):
        leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    return array.view(f"u{array.dtype.itemsize}") if array.dtype.kind == "V" else array


class Folder:
    """Folder of checkpoints.

    Args:
        path: folder, which is created if it does not exist.
        settings: settings of the run, as JSON values.
        print_: fingerprint of the data and the initial network, see `fingerprint`.
        alone: whether to lock the folder until `close`; of several processes that train together
            only the first locks it.

    Attributes:
        notes: notes on resuming, one sentence each.

    Raises:
        FileError: the path cannot be a folder, or another run writes to it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        settings: dict[str, Any],
        print_: str,
        *,
        alone: bool,
    ):
        self.path, self.settings, self.print = Path(path), json.loads(json.dumps(settings)), print_
        self.notes: list[str] = []
        self._replaces = False
        self._extend: Callable[[Path, int, int], str] | None = None
        self._lock: int | None = None
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._identity = self._device_and_inode()
        except OSError as error:
            raise FileError(
                Text(
                    "{path} cannot be a folder of checkpoints ({reason})",
                    path=path,
                    reason=error.strerror or str(error),
                ),
                fix="choose another folder",
            ) from error
        if alone:
            refuse_read_only(self.path, self.path)
            self._lock = _locked(self.path)
            _remove_leftovers(self.path)

    def close(self) -> None:
        """Release the lock on the folder."""
        if self._lock is not None:
            close(self._lock)
            self._lock = None

    def begin(
        self,
        *,
        resume: bool,
        state: TrainState,
        overwrite: bool,
        extend: Callable[[Path, int, int], str] | None = None,
    ) -> Checkpoint | None:
        """Return the checkpoint to resume from: the last, or, where that is damaged, the one
        before. None: there is none, or the first `save` replaces it; the run starts from the
        beginning.

        Args:
            extend: function of the path of a checkpoint with another number of epochs, that number,
                and the number of completed epochs. Returns the fingerprint of this run with that
                number, or raises `UsageError` if the completed epochs would differ. None: such
                checkpoints are refused.

        Raises:
            FileError: files of a checkpoint exist, and neither `resume` nor `overwrite` is set; one
                of them is a symbolic link or another special file; or all are damaged.
            UsageError: the checkpoint has other settings, data or parameters.
        """
        existing = self._existing()
        there = [self.path / name for name in (LAST, BEFORE) if name in existing]
        self._replaces = overwrite and not resume
        if existing and not resume and not overwrite:
            raise FileError(
                Text("{path} exists", path=self.path / existing[0]),
                fix=Text(
                    "pass {resume} to continue from it, or choose another folder",
                    resume=OPTIONS["resume"].set_to(True),
                ),
            )
        if self._replaces or not there:
            return None
        self._extend = extend
        checkpoint = self._read_one_of(there, state)
        if self._lock is not None:
            _write_lines(self.path / HISTORY, checkpoint.history)
        return checkpoint

    def _device_and_inode(self) -> tuple[int, int]:
        """Return the device and inode, which identify the folder independently of its name."""
        status = os.stat(self.path)
        return status.st_dev, status.st_ino

    def _existing(self) -> list[str]:
        """Return the names of the existing files.

        Raises:
            FileError: one of them is a symbolic link or another special file.
        """
        existing = []
        for name in (LAST, BEFORE, BEST, HISTORY):
            refuse_link(self.path / name)
            if os.path.lexists(self.path / name):
                refuse_unreadable(self.path / name, "a file of a checkpoint")
                existing.append(name)
        return existing

    def _refuse_replaced(self) -> None:
        """Refuse a folder that was replaced since the start of the run, and links in it."""
        try:
            same = self._device_and_inode() == self._identity
        except OSError as error:
            raise FileError(
                Text(
                    "{path} is no longer accessible ({reason})",
                    path=self.path,
                    reason=error.strerror or str(error),
                ),
                fix=Text(
                    "restore the folder, and pass {resume} to continue",
                    resume=OPTIONS["resume"].set_to(True),
                ),
            ) from error
        if not same:
            raise FileError(
                Text("{path} was replaced by another folder since the run began", path=self.path),
                fix=Text(
                    "restore the original folder, and pass {resume} to continue",
                    resume=OPTIONS["resume"].set_to(True),
                ),
            )
        self._existing()

    def _read_one_of(self, there: list[Path], state: TrainState) -> Checkpoint:
        first, *others = there
        try:
            checkpoint = self._read(first, state)
        except FileError as error:
            if not others:
                raise
            checkpoint = self._read(others[0], state)
            reason = error.problem.message
        else:
            if first.name == LAST:
                return checkpoint
            reason = Text("{path} does not exist", path=self.path / LAST)
        epoch = checkpoint.history[-1].epoch
        self.notes.append(
            reason
            + Text(
                ": the run resumes from {checkpoint}, after epoch {epoch}",
                checkpoint=BEFORE,
                epoch=epoch,
            )
        )
        return checkpoint

    def save(self, checkpoint: Checkpoint, best: Callable[[], dict[str, np.ndarray]]) -> None:
        """Replace the checkpoint, and keep the one before; `best` returns the arrays of best.npz,
        and is called only at the best epoch.
        """
        record = checkpoint.history[-1]
        self._refuse_replaced()
        _write_lines(self.path / HISTORY, checkpoint.history)
        if record.epoch == checkpoint.best_epoch:
            write_arrays(self.path / BEST, best(), force=True, follow_links=False)
        field_names = [
            field.name
            for field in fields(Checkpoint)
            if field.name not in ("state", "best_state", "history")
        ]
        header = {
            "version": VERSION,
            "settings": self.settings,
            "fingerprint": self.print,
            "history": [asdict(record) for record in checkpoint.history],
            **{name: getattr(checkpoint, name) for name in field_names},
        }
        leaves = jax.tree.leaves((checkpoint.state, checkpoint.best_state))
        arrays = {f"array{number}": _plain(leaf) for number, leaf in enumerate(leaves)}
        content = sealed(header, arrays)
        if not self._replaces:
            _keep_before(self.path)
        write_atomically(self.path / LAST, content, force=True, follow_links=False)
        if self._replaces:  # it is the checkpoint of another run
            remove_files([self.path / BEFORE], "files of another run")
            self._replaces = False

    def tidy(self) -> None:
        """Remove the folder if nothing is in it."""
        with suppress(OSError):
            self.path.rmdir()

    def _read(self, path: Path, state: TrainState) -> Checkpoint:
        leaves, structure = jax.tree.flatten((state, state))
        header, arrays = unsealed(path)
        self._refuse_other(path, header)
        _refuse_other_arrays(path, arrays, (state, state))
        restored = [
            jax.random.wrap_key_data(jax.numpy.asarray(array), impl=jax.random.key_impl(leaf))
            if _is_key(leaf)
            else jax.numpy.asarray(array.view(np.asarray(leaf).dtype))
            for array, leaf in zip(arrays, leaves, strict=True)
        ]
        state, best_state = jax.tree.unflatten(structure, restored)
        history = tuple(EpochRecord(**record) for record in header["history"])
        numbers = {
            name: header[name]
            for name in ("best_epoch", "budgets", "factor", "failures", "failing_epochs")
        }
        return Checkpoint(
            state=state,
            best_state=best_state,
            history=history,
            seconds=tuple(header["seconds"]),
            notes=tuple(header.get("notes", ())),  # earlier versions wrote none
            **numbers,
        )

    def _refuse_other(self, path: Path, header: dict[str, Any]) -> None:
        before = dict(header["settings"])
        before |= {
            name: _with_current_fields(before[name])
            for name in ("loss", "augment", "engine")
            if name in before
        }
        epochs: Any = before.get("epochs")
        is_number = is_count(epochs) and 1 <= epochs <= MOST_EPOCHS
        other_epochs = is_number and epochs != self.settings["epochs"]
        extend = self._extend if other_epochs else None
        if extend is not None:
            before["epochs"] = self.settings["epochs"]
        for name, value in self.settings.items():
            saved_value = before.get(name, before.get(_EARLIER_NAMES.get(name, "")))
            if saved_value != value:
                setting, then, now = _difference(name, saved_value, value)
                raise UsageError(
                    Text(
                        "{path} belongs to a run with {setting} = {expected}, and this run has {actual}",
                        path=path,
                        setting=setting,
                        expected=then,
                        actual=now,
                    ),
                    fix=_SAME,
                )
        done = len(header["history"]) - 1
        expected = self.print if extend is None else extend(path, epochs, done)
        if header["fingerprint"] != expected:
            raise UsageError(
                Text(
                    "{path} belongs to a run with other data, or another network, optimiser or schedule",
                    path=path,
                ),
                fix=_SAME,
            )


def _refuse_other_arrays(
    path: Path, arrays: Sequence[np.ndarray], states: tuple[TrainState, TrainState]
) -> None:
    """Refuse arrays whose number, shapes or types are not those of the run's states, and arrays with
    numbers that no state has.

    Args:
        path: path of the checkpoint.
        arrays: arrays of the file.
        states: the state of the run and that of its best epoch, as they are before the first step.

    Raises:
        UsageError: the arrays are those of another network or optimiser.
        FileError: a number is NaN or infinite, or a count of steps is negative.
    """
    leaves = jax.tree_util.tree_leaves_with_path(states)
    if len(arrays) != len(leaves):
        raise UsageError(
            Text(
                "{path} contains {actual} arrays, and the state of this run has {expected}: it belongs "
                "to another network or optimiser",
                path=path,
                actual=len(arrays),
                expected=len(leaves),
            ),
            fix=_SAME,
        )
    for number, (array, (place, leaf)) in enumerate(zip(arrays, leaves, strict=True)):
        expected, entry = _plain(leaf), f"array{number} ({_entry_name(place)})"
        if (array.shape, array.dtype) != (expected.shape, expected.dtype):
            raise UsageError(
                Text(
                    "{path}: {entry} has shape {shape} and dtype {dtype}, and this run has shape "
                    "{expected_shape} and dtype {expected_dtype}: it belongs to another network or "
                    "optimiser",
                    path=path,
                    entry=entry,
                    shape=array.shape,
                    dtype=array.dtype,
                    expected_shape=expected.shape,
                    expected_dtype=expected.dtype,
                ),
                fix=_SAME,
            )
        if _is_key(leaf):
            continue
        values, wrong = _impossible_numbers(array, leaf)
        if wrong.any():
            index = tuple(int(axis) for axis in np.argwhere(wrong)[0])
            raise _damaged(
                path,
                Text(
                    "{entry} has {value} at {index}", entry=entry, value=values[index], index=index
                ),
            )


def _impossible_numbers(array: np.ndarray, leaf: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of an array, and a mask of those that a run cannot reach from a state before
    the first step: numbers that are no longer finite, and negative counts of steps.

    Args:
        array: the array as files store it, of the shape of the leaf.
        leaf: array of the state before the first step.
    """
    before = np.asarray(leaf)
    values = array.view(before.dtype)
    if before.dtype.kind == "V":  # bfloat16, which has no comparisons
        before, values = before.astype(np.float32), values.astype(np.float32)
    if before.dtype.kind == "i" and before.ndim == 0:
        return values, (values < 0) & (before >= 0)
    return values, np.isfinite(before) & ~np.isfinite(values)


def _entry_name(place: Sequence[Any]) -> str:
    """Return the name of an array of the states, from its path in the tree."""
    which, *inner = place
    return ("state" if which.idx == 0 else "state of the best epoch") + jax.tree_util.keystr(
        tuple(inner)
    )


def _with_current_fields(value: Any) -> Any:
    """Return a setting of a checkpoint with the current names of fields."""
    if isinstance(value, list):
        return [_with_current_fields(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        _EARLIER_FIELDS.get(name, name): _with_current_fields(item) for name, item in value.items()
    }


def _difference(setting: str, before: Any, now: Any) -> tuple[str, Any, Any]:
    """Return the name of the first setting that differs, with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in (*now, *before):
            if before.get(name) != now.get(name):
                return _difference(f"{setting}.{name}", before.get(name), now.get(name))
    return setting, before, now


def _locked(folder: Path) -> int | None:
    """Lock a folder and return the open handle, which keeps other runs out; None where the system
    has no locks.

    Raises:
        FileError: another run has locked the folder.
    """
    try:
        import fcntl
    except ImportError:
        return None
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise FileError(
            Text(
                "{path} cannot be read ({reason})", path=folder, reason=error.strerror or str(error)
            ),
            fix="choose another folder",
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        close(handle)
        raise FileError(
            Text("another run writes checkpoints to {path}", path=folder),
            fix="wait until that run ends, or choose another folder",
        ) from error
    except OSError:  # a file system without locks
        close(handle)
        return None
    return handle


def _remove_leftovers(folder: Path) -> None:
    """Remove unfinished files of runs that were killed: nobody else writes here now."""
    leftovers: list[Path] = []
    with suppress(OSError):  # what is wrong with the folder is reported when it is read
        file_names = (LAST, BEFORE, BEST, HISTORY)
        leftovers = [path for name in file_names for path in folder.glob(f".{name}.*")]
    remove_files(leftovers)


def _keep_before(folder: Path) -> None:
    """Give the checkpoint a second name, under which it remains when it is replaced."""
    last, before = folder / LAST, folder / BEFORE
    if not last.exists():
        return
    second = folder / f".{BEFORE}.{os.getpid()}"
    try:
        try:
            os.link(last, second)
        except OSError:  # a file system without hard links
            os.replace(last, before)
        else:
            os.replace(second, before)
    except OSError as error:
        raise FileError(
            Text(
                "{path} cannot be written ({reason})",
                path=before,
                reason=error.strerror or str(error),
            )
        ) from error
    finally:
        remove_files([second])  # os.replace keeps it if both names are the same file


def _write_lines(path: Path, history: Sequence[EpochRecord]) -> None:
    """Write the history up to the checkpoint, without epochs that will be repeated."""
    lines = [json.dumps(asdict(record)) + "\n" for record in history]
    write_atomically(path, "".join(lines), force=True, follow_links=False)


#: Current version of the header, and the version without a seal.
VERSION, UNSEALED = 2, 1
#: Comment of the zip file, at its end: this prefix, then the hash with this number of hexadecimal
#: digits.
_SEAL, _DIGITS = b"sha256 ", 64
_BEGIN_AGAIN = "remove the file, or choose another folder"


def sealed(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return the bytes of a checkpoint."""
    written = io.BytesIO()
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(written, header=text, **arrays)  # pyright: ignore[reportArgumentType]
    with zipfile.ZipFile(written, "a") as archive:
        archive.comment = _SEAL + b"0" * _DIGITS
    content = written.getvalue()[:-_DIGITS]
    return content + hashlib.sha256(content).hexdigest().encode()


def unsealed(path: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Return the header and the arrays of a checkpoint, in their order.

    Raises:
        FileError: the file cannot be read, its contents do not match its checksum, or its header
            is invalid.
    """
    budget = ByteBudget(path)
    content = read_bytes(path, "a checkpoint", budget=budget, follow_links=False)
    end = content[-_DIGITS - len(_SEAL) :]
    has_seal = end.startswith(_SEAL)
    if has_seal and hashlib.sha256(content[:-_DIGITS]).hexdigest().encode() != end[len(_SEAL) :]:
        raise _damaged(path, "its contents do not match its checksum")
    entries = arrays_of(io.BytesIO(content), len(content), budget)
    try:
        header = parse_json(entries.pop("header").tobytes().decode(), allow_nan=True)
        arrays = [entries.pop(f"array{number}") for number in range(len(entries))]
    except (KeyError, ValueError) as error:
        raise _damaged(
            path, Text("the header or some arrays are missing ({reason})", reason=first_line(error))
        ) from error
    _refuse_header(path, header)
    if not has_seal and header["version"] != UNSEALED:
        raise _damaged(path, "its checksum is missing")
    return header, arrays


def _damaged(path: str | os.PathLike[str], reason: str) -> FileError:
    return FileError(
        Text("{path} is not a checkpoint, or is damaged: {reason}", path=path, reason=reason),
        fix=_BEGIN_AGAIN,
    )


# -- schema of the header


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_budget(value: Any) -> bool:
    """Return whether a value is an integer, "auto" or None, or a list of pairs of a population and
    such a value.
    """
    single = value is None or value == "auto" or is_count(value)
    return single or (
        isinstance(value, list)
        and all(
            isinstance(pair, list) and len(pair) == 2 and _is_text(pair[0]) and _is_budget(pair[1])
            for pair in value
        )
    )


def _are_budgets(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() <= set(BUDGETS)
        and all(map(_is_budget, value.values()))
    )


def _are_seconds(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_amount, value))


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


#: Check of each entry of a header, and the expected kind of value in words.
_ENTRIES: dict[str, Check] = {
    "settings": (lambda value: isinstance(value, dict), "a table"),
    "fingerprint": (_is_text, "text"),
    "seconds": (_are_seconds, "a list of finite numbers of at least 0"),
    "best_epoch": (is_count, "an integer"),
    "budgets": (_are_budgets, f"a table of {', '.join(BUDGETS)}"),
    "factor": (is_positive, "a finite number above 0"),
    "failures": (is_count, "an integer"),
    "failing_epochs": (is_count, "an integer"),
    "notes": (_are_texts, "a list of sentences"),  # earlier versions wrote none
}


def _refuse_header(path: Path, header: Any) -> None:
    """Refuse a header that differs from the form that `sealed` writes."""
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a table")
    version = header.get("version")
    if type(version) is not int or version not in (VERSION, UNSEALED):
        raise FileError(
            Text(
                "{path} has checkpoint version {actual}, and only version {expected} is supported",
                path=path,
                actual=str(version)[:40],
                expected=VERSION,
            ),
            fix="start the run again in another folder",
        )
    if defect := history_defect(header.get("history")) or entry_defect(
        {"notes": []} | header, _ENTRIES, "its header"
    ):
        raise _damaged(path, defect)
    history = header["history"]
    if len(header["seconds"]) != len(history):
        raise _damaged(
            path,
            Text(
                "the history has {epochs} epochs, but {seconds} durations",
                seconds=len(header["seconds"]),
                epochs=len(history),
            ),
        )
    if header["best_epoch"] >= len(history):
        raise _damaged(
            path,
            Text(
                "the best epoch is {epoch}, and the number of epochs is {epochs}",
                epoch=header["best_epoch"],
                epochs=len(history),
            ),
        )
