"""Options as JSON: what a run depends on, in its record and in the checkpoints that go on with it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np

from jaxsnn.nir.initializers import seed_words

#: Arrays with more entries are recorded by what is in them, and not number by number.
_MOST_ENTRIES = 64


def as_recorded(record: Any) -> Any:
    """An object of the user's own as JSON, numbers that JSON does not have as words."""

    def finite(value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        if isinstance(value, dict):
            return {name: finite(own) for name, own in value.items()}
        return [finite(own) for own in value] if isinstance(value, list) else value

    return finite(for_json(record))


def for_json(value: Any) -> Any:
    """A value as JSON has it: records and functions with their name."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, complex | bytes | Enum | PurePath):
        return repr(value)
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    if isinstance(value, Mapping):
        return {str(name): for_json(own) for name, own in value.items()}
    if isinstance(value, tuple | list):
        return [for_json(own) for own in value]
    if hasattr(value, "dtype"):  # numbers, or a key
        return of_seed(value) if str(value.dtype).startswith("key<") else _of_array(value)
    return {"name": type_name(value), **of_record(value)}


def _of_array(value: Any) -> Any:
    array = np.asarray(value)
    if array.size <= _MOST_ENTRIES and array.dtype.kind in "biuf":
        return array.tolist()
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return {"shape": list(array.shape), "type": str(array.dtype), "sha256": digest}


def of_record(record: Any) -> dict[str, Any]:
    """The fields of a dataclass; of another object none."""
    if not is_dataclass(record) or isinstance(record, type):
        return {}
    return {field.name: for_json(getattr(record, field.name)) for field in fields(record)}


def of_seed(seed: Any) -> Any:
    """A number, or the numbers of a key."""
    words = seed_words(seed)
    return words[0] if len(words) == 1 else list(words)


def type_name(choice: Any) -> str:
    """Of a function or class its own name, of another object that of its class."""
    return getattr(choice, "__name__", type(choice).__name__)
