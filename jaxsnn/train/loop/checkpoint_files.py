"""What a checkpoint is on the disk: an .npz file with a header of JSON, sealed by a hash over all of
its bytes, and the schema of that header.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from jaxsnn.errors import FileError
from jaxsnn.event.event_options import BUDGETS
from jaxsnn.nir.io.read_limits import ByteBudget
from jaxsnn.output import refuse_unreadable
from jaxsnn.simulation.recordings import load_arrays
from jaxsnn.train.loop.history import EpochRecord

#: Of the header; files of version 1 have no seal.
VERSION, UNSEALED = 2, 1
#: The comment of the zip file, which stands at its end: this, then the hash in hexadecimal digits.
_SEAL, _DIGITS = b"sha256 ", 64
_BEGIN_AGAIN = "remove it, or choose another folder"


def sealed(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of a checkpoint."""
    written = io.BytesIO()
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(written, header=text, **arrays)  # pyright: ignore[reportArgumentType]
    with zipfile.ZipFile(written, "a") as archive:
        archive.comment = _SEAL + b"0" * _DIGITS
    content = written.getvalue()[:-_DIGITS]
    return content + hashlib.sha256(content).hexdigest().encode()


def unsealed(path: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The header and the arrays of a checkpoint, in their order.

    Raises:
        FileError: it cannot be read, its bytes are not those that were sealed, or its header is
            none.
    """
    refuse_unreadable(path, "a checkpoint")
    ByteBudget(path).take("its bytes", path.stat().st_size)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror or error})") from error
    end = content[-_DIGITS - len(_SEAL) :]
    has_seal = end.startswith(_SEAL)
    if has_seal and hashlib.sha256(content[:-_DIGITS]).hexdigest().encode() != end[len(_SEAL) :]:
        raise _damaged(path, "its bytes are not those that were written")
    found = load_arrays(path)
    try:
        header = json.loads(found.pop("header").tobytes().decode())
        arrays = [found.pop(f"array{number}") for number in range(len(found))]
    except (KeyError, ValueError, RecursionError) as error:
        raise _damaged(path, f"it has no header or not all arrays, {error}") from error
    _refuse_header(path, header)
    if not has_seal and header["version"] != UNSEALED:
        raise _damaged(path, "it has no seal")
    return header, arrays


def _damaged(path: str | os.PathLike[str], what: str) -> FileError:
    return FileError(f"{path} is not a checkpoint, or damaged: {what}", fix=_BEGIN_AGAIN)


# ---- the schema of the header


def is_whole(value: Any) -> bool:
    """Return whether a value of JSON is a whole number of at least 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_positive(value: Any) -> bool:
    return _is_number(value) and 0 < value < math.inf


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _numbers_by_name(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


def _is_budget(value: Any) -> bool:
    """A number, "auto" or none, or a list of pairs of a population and such a one."""
    single = value is None or value == "auto" or is_whole(value)
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
    return isinstance(value, list) and all(map(_is_number, value))


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


#: What the entries of a header are, and what is said of those that are not.
_ENTRIES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "settings": (lambda value: isinstance(value, dict), "a table"),
    "fingerprint": (_is_text, "text"),
    "history": (lambda value: isinstance(value, list) and bool(value), "a list of epochs"),
    "seconds": (_are_seconds, "a list of numbers"),
    "best_epoch": (is_whole, "a whole number"),
    "budgets": (_are_budgets, f"a table of {', '.join(BUDGETS)}"),
    "factor": (_is_positive, "a positive number"),
    "failures": (is_whole, "a whole number"),
    "failing_epochs": (is_whole, "a whole number"),
    "notes": (_are_texts, "a list of sentences"),  # earlier versions wrote none
}
_OF_TYPE: dict[str, tuple[Callable[[Any], bool], str]] = {
    "int": (is_whole, "a whole number"),
    "float": (_is_number, "a number"),
    "dict[str, float]": (_numbers_by_name, "a table of numbers"),
}
#: Likewise of the record of an epoch.
_RECORD = {field.name: _OF_TYPE[str(field.type)] for field in fields(EpochRecord)}


def _refuse_header(path: Path, header: Any) -> None:
    """Refuse a header that is not as `sealed` was given it."""
    if not isinstance(header, dict):
        raise _damaged(path, "its header is no table")
    if header.get("version") not in (VERSION, UNSEALED):
        raise FileError(
            f"{path} is a checkpoint of version {header.get('version')}, this reads {VERSION}",
            fix="begin again in another folder",
        )
    _refuse_entries(path, {"notes": []} | header, _ENTRIES, "its header")
    history = header["history"]
    for number, record in enumerate(history):
        where = f"epoch {number} of its history"
        if not isinstance(record, dict):
            raise _damaged(path, f"{where} is no table")
        _refuse_entries(path, record, _RECORD, where)
        if unknown := [name for name in record if name not in _RECORD]:
            raise _damaged(path, f"{where} has an unknown '{unknown[0]}'")
        if record["epoch"] != number:
            raise _damaged(path, f"{where} is of epoch {record['epoch']}")
    if len(header["seconds"]) != len(history):
        raise _damaged(path, f"{len(header['seconds'])} seconds of {len(history)} epochs")
    if header["best_epoch"] >= len(history):
        raise _damaged(path, f"its best epoch is {header['best_epoch']} of {len(history)}")


def _refuse_entries(
    path: Path,
    content: Mapping[str, Any],
    wanted: Mapping[str, tuple[Callable[[Any], bool], str]],
    where: str,
) -> None:
    for name, (fits, kind) in wanted.items():
        if name not in content:
            raise _damaged(path, f"{where} has no '{name}'")
        if not fits(content[name]):
            shown = str(content[name])[:40]
            raise _damaged(path, f"'{name}' of {where} is {shown}, not {kind}")
