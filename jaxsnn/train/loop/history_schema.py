"""The form of the history of a run in files of unknown origin: checkpoints, `history.jsonl` and
`OUT.history.json`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, fields
from typing import Any

from jaxsnn.train.loop.history import EpochRecord
from jaxsnn.wording import Text

#: Largest number of spikes or epochs: counts of the engine have 32 bits.
_MOST = 2**31 - 1
#: Rounding of a mean in float32, which may exceed 1 by this.
_ROUNDING = 2**-20

#: Check of an entry, and the expected kind of value in words.
Check = tuple[Callable[[Any], bool], str]


def is_count(value: Any) -> bool:
    """Return whether a value of JSON is an integer of at least 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_number(value: Any) -> bool:
    """Return whether a value of JSON is a finite number."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and -math.inf < value < math.inf
    )


def is_positive(value: Any) -> bool:
    """Return whether a value of JSON is a finite number above 0."""
    return is_number(value) and value > 0


def is_amount(value: Any) -> bool:
    """Return whether a value of JSON is a finite number of at least 0."""
    return is_number(value) and value >= 0


def _is_small_count(value: Any) -> bool:
    return is_count(value) and value <= _MOST


def _is_fraction(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1 + _ROUNDING


def _of_populations(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


_NUMBER: Check = (is_number, "a finite number")
_AMOUNT: Check = (is_amount, "a finite number of at least 0")
_FRACTION: Check = (_is_fraction, "a number from 0 to 1")
#: Check of each entry of the record of an epoch.
_RECORD: dict[str, Check] = {
    "epoch": (_is_small_count, "an integer from 0 to 2147483647"),
    "train_loss": _NUMBER,
    "train_accuracy": _FRACTION,
    "validation_loss": _NUMBER,
    "validation_accuracy": _FRACTION,
    "undecided": _FRACTION,
    "silent": (_of_populations(_is_fraction), "a table of numbers from 0 to 1"),
    "spikes": (_of_populations(is_amount), "a table of finite numbers of at least 0"),
    "clipped": _FRACTION,
    "max_spikes": (_is_small_count, "an integer from 0 to 2147483647"),
    "gradient": _AMOUNT,
    "factor": (is_positive, "a finite number above 0"),
}
#: Entries that all versions write, and those that a learning curve needs.
_WRITTEN = tuple(field.name for field in fields(EpochRecord) if field.default is MISSING)
DRAWN = ("epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy")


def entry_defect(
    content: Mapping[str, Any], expected: Mapping[str, Check], location: str
) -> Text | None:
    """Return what is wrong with the first entry that is missing or has another form; None: nothing.

    Args:
        content: a table of JSON.
        expected: check of each entry.
        location: the place of the table, for messages.
    """
    for name, (fits, kind) in expected.items():
        if name not in content:
            return Text("{location} has no entry '{entry}'", location=location, entry=name)
        if not fits(content[name]):
            return Text(
                "'{entry}' of {location} is {value}, not {expected}",
                entry=name,
                location=location,
                value=repr(content[name])[:40],
                expected=kind,
            )
    return None


def record_defect(record: Any, epoch: int, required: Collection[str] = _WRITTEN) -> Text | None:
    """Return what is wrong with the record of an epoch; None: nothing.

    Args:
        record: value of JSON.
        epoch: number that the record should have.
        required: names of the entries that must be there.
    """
    location = f"epoch {epoch} of its history"
    if not isinstance(record, dict):
        return Text("{location} is not a table", location=location)
    present = {name: check for name, check in _RECORD.items() if name in required or name in record}
    if defect := entry_defect(record, present, location):
        return defect
    if unknown := [name for name in record if name not in _RECORD]:
        return Text(
            "{location} has the unknown entry '{entry}'", location=location, entry=unknown[0][:40]
        )
    if record["epoch"] != epoch:
        return Text(
            "{location} has the epoch number {epoch}", location=location, epoch=record["epoch"]
        )
    return None


def history_defect(history: Any, required: Collection[str] = _WRITTEN) -> Text | None:
    """Return what is wrong with the records of all epochs; None: nothing. Arguments as in
    `record_defect`.
    """
    if not isinstance(history, list) or not history:
        return Text("its history is not a list of epochs")
    for epoch, record in enumerate(history):
        if defect := record_defect(record, epoch, required):
            return defect
    return None


def run_defect(content: Mapping[str, Any]) -> Text | None:
    """Return what is wrong with the content of `OUT.history.json`, which `Fit.as_dict` returns; None:
    nothing.
    """
    if defect := history_defect(content.get("epochs"), DRAWN):
        return defect
    epochs = len(content["epochs"])
    expected: dict[str, Check] = {
        "best_epoch": (
            lambda value: is_count(value) and value < epochs,
            f"an epoch from 0 to {epochs - 1}",
        ),
        "test_accuracy": _FRACTION,
        "settings": (lambda value: isinstance(value, dict), "a table"),
    }
    if defect := entry_defect(content, expected, "the history"):
        return defect
    loss: dict[str, Check] = {
        "loss": (lambda value: isinstance(value, dict | str), "a table or a name")
    }
    has_loss = "loss" in content["settings"]
    return entry_defect(content["settings"], loss, "its settings") if has_loss else None
