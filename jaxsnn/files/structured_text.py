"""JSON of unknown origin, parsed within limits that are checked before the parser runs."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any, NoReturn

import numpy as np

from jaxsnn.errors import first_line
from jaxsnn.files.opening import Name, open_input, read_text, size_of
from jaxsnn.files.read_limits import ByteBudget, read_limits
from jaxsnn.wording import Text

#: Largest number of nested lists and tables.
MAX_DEPTH = 32
#: Largest number of digits of an integer: float64 has no larger numbers.
MAX_DIGITS = 308
#: Upper bounds of the memory of an item of a list, of a list or object, and of an entry of an object with
#: its key, bytes (CPython 3.11 to 3.14, 64 bits).
_ITEM, _CONTAINER, _ENTRY = 80, 96, 220
#: Memory that checking and parsing a text need for each of its characters, bytes.
_PER_CHARACTER = 16

_DIGITS_BEYOND = rf"[0-9]{{{MAX_DIGITS + 1},}}"


def read_parsable_text(path: Name, kind: str) -> str:
    """Return the text of a UTF-8 file that is small enough to be parsed within the limit of bytes.

    Args:
        path: path of the file.
        kind: expected kind of file, for messages: "a mapping".

    Raises:
        FileError: as in `read_text`, or the file is too large.
    """
    with open_input(path, kind) as file:
        ByteBudget(path).take("its parsed content", _PER_CHARACTER * size_of(file))
    return read_text(path, kind)


def parse_json(text: str, *, allow_nan: bool = False) -> Any:
    """Return the content of a JSON document, with Python's types.

    NaN and Infinity, which JSON does not have, are refused, as are numbers that float64 does not have.

    Args:
        text: the document.
        allow_nan: whether to return them instead, for callers that name the entry.

    Raises:
        ValueError: the text is not JSON, an object has a key twice, lists and objects are nested more
            than `MAX_DEPTH` levels deep, or the content would need more memory than
            `jaxsnn.files.read_limits` allows.

    >>> parse_json('{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    """
    _refuse_large_json(text)
    # A hook for every integer is slow, so it is set only for texts that contain a long one.
    long = re.search(_DIGITS_BEYOND, text) is not None
    try:
        return json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_float=None if allow_nan else finite_number,
            parse_int=short_integer if long else None,
            parse_constant=None if allow_nan else _refuse_constant,
        )
    except RecursionError as error:  # without the closing brackets that end levels
        raise too_deep() from error


def reason_of(error: ValueError) -> str:
    """Return the reason of an error of `parse_json` or `parse_toml` in one line, with its facts."""
    reason = error.args[0] if error.args else ""
    return reason if isinstance(reason, Text) else first_line(error)


def too_deep() -> ValueError:
    """Return the error for lists and tables that are nested more than `MAX_DEPTH` levels deep."""
    return ValueError(Text("it is nested more than {limit} levels deep", limit=MAX_DEPTH))


def _refuse_large_json(text: str) -> None:
    """Refuse a text by its structure: the brackets, commas and colons outside of strings."""
    # Backslashes are in strings only. Without escaped quotes, a quote begins or ends a string.
    plain = text.replace("\\\\", "").replace('\\"', "") if "\\" in text else text
    raw = np.frombuffer(plain.encode("utf-8", "surrogatepass"), np.uint8)
    marks = raw[np.isin(raw, np.frombuffer(b'"[]{},:', np.uint8))]
    marks = marks[np.cumsum(marks == ord('"'), dtype=np.int32) % 2 == 0]
    opening = (marks == ord("[")) | (marks == ord("{"))
    closing = (marks == ord("]")) | (marks == ord("}"))
    depth = np.cumsum(opening.astype(np.int8) - closing.astype(np.int8), dtype=np.int32)
    if depth.max(initial=0) > MAX_DEPTH:
        raise too_deep()
    size = (
        len(text) * (1 if text.isascii() else 4)
        + _CONTAINER * int(opening.sum())
        + _ITEM * int((marks == ord(",")).sum())
        + _ENTRY * int((marks == ord(":")).sum())
    )
    limit = read_limits().max_bytes
    if size > limit:
        raise ValueError(
            Text(
                "its content needs up to {size} bytes; the limit is {limit}", size=size, limit=limit
            )
        )


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        ((key, count),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(Text("an object has the key '{key}' {count} times", key=key, count=count))
    return content


def short_integer(number: str) -> int:
    """Return an integer, whose conversion takes time that grows with the square of its length."""
    if len(number) > MAX_DIGITS + 1:  # with the sign
        raise ValueError(
            Text(
                "it has a number of {digits} digits; the limit is {limit}",
                digits=len(number),
                limit=MAX_DIGITS,
            )
        )
    return int(number)


def finite_number(number: str) -> float:
    """Return a number that float64 has.

    Raises:
        ValueError: it is too large.
    """
    value = float(number)
    if math.isinf(value) and "inf" not in number:  # TOML has the number inf
        raise ValueError(Text("the number {number} is too large", number=number[:40]))
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(Text("{constant} is not a number of JSON", constant=name))
