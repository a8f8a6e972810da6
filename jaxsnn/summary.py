"""Readable `repr` of records: a line for each field, arrays by shape, long collections by length."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sized
from typing import Any, TypeVar

from jaxsnn.errors import listing

#: Maximum number of lines with a field each, and of characters of a value.
MAX_FIELDS, MAX_CHARACTERS = 10, 80

Record = TypeVar("Record", bound=type)


def summarised(record: Record) -> Record:
    """Give a dataclass the `repr` of `summary_of`; a class decorator."""
    record.__repr__ = summary_of  # pyright: ignore[reportAttributeAccessIssue]
    return record


def summary_of(record: Any) -> str:
    """Return a dataclass as text: its type, and a line for each field that is not at its default.

    Empty and missing values are omitted. Fields beyond `MAX_FIELDS` are listed by name.
    """
    fields = [field for field in dataclasses.fields(record) if field.repr]
    values = {
        field.name: getattr(record, field.name) for field in fields if _differs(record, field)
    }
    field_names = list(values)
    lines = [f"  {name}: {_short(values[name])}" for name in field_names[:MAX_FIELDS]]
    if len(field_names) > MAX_FIELDS:
        lines.append(f"  further fields: {listing(field_names[MAX_FIELDS:])}")
    return "\n".join((f"{type(record).__name__}(", *lines)) + ")"


def _differs(record: Any, field: dataclasses.Field[Any]) -> bool:
    """Return whether a field has a value that is neither empty nor its default."""
    value = getattr(record, field.name)
    if value is None or (
        isinstance(value, Sized) and not hasattr(value, "shape") and not len(value)
    ):
        return False
    return hasattr(value, "shape") or value is not field.default


def _short(value: Any) -> str:
    """Return a value in one line of at most about `MAX_CHARACTERS` characters."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"array {tuple(value.shape)} {value.dtype}"
    if isinstance(value, Mapping):
        return _short_mapping(value)
    if isinstance(value, tuple | list):
        shown = f"({', '.join(map(_short, value[:MAX_CHARACTERS]))})"
        types = sorted({type(entry).__name__ for entry in value})
        return shown if len(shown) <= MAX_CHARACTERS else f"{len(value)} x {listing(types, 3)}"
    if callable(value) and hasattr(value, "__qualname__"):
        return str(value.__qualname__)
    # the first line of a long text names the type and the main numbers
    first_line, *others = (line.strip() for line in repr(value).split("\n"))
    shown = f"{first_line}{'' if first_line.endswith('(') else ', '}{', '.join(others)}"
    if others and len(shown) > MAX_CHARACTERS:
        return f"{first_line}{'' if first_line.endswith('(') else ', '}...)"
    if len(first_line) > MAX_CHARACTERS:
        return f"{first_line[: MAX_CHARACTERS - 3]}..."
    return shown if others else first_line


def _short_mapping(value: Mapping[Any, Any]) -> str:
    shown = ", ".join(f"{key}: {_short(entry)}" for key, entry in value.items())
    if len(shown) <= MAX_CHARACTERS:
        return shown
    return f"{len(value)} entries: {listing(value, 6)}"
