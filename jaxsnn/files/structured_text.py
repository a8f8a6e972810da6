"""JSON and TOML of unknown origin, parsed within limits that are checked before the parser runs."""

from __future__ import annotations

import json
import math
import re
import tomllib
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
#: Largest size of a configuration in TOML, characters, and largest number of parts of a dotted key. The
#: memory of `tomllib` grows with the square of the latter: 50,000 parts took 5.7 GB.
MAX_TOML, MAX_PARTS = 2**18, 16
#: Upper bounds of the memory of an item of a list, of a list or object, and of an entry of an object with
#: its key, bytes (CPython 3.11 to 3.14, 64 bits).
_ITEM, _CONTAINER, _ENTRY = 80, 96, 220
#: Memory that checking and parsing a text need for each of its characters, bytes.
_PER_CHARACTER = 16

_DIGITS_BEYOND = re.compile(rf"[0-9]{{{MAX_DIGITS + 1},}}")


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
    long = _DIGITS_BEYOND.search(text) is not None
    try:
        return json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_float=None if allow_nan else _finite,
            parse_int=_short_integer if long else None,
            parse_constant=None if allow_nan else _refuse_constant,
        )
    except RecursionError as error:  # without the closing brackets that end levels
        raise _too_deep() from error


def parse_toml(text: str) -> dict[str, Any]:
    """Return the content of a TOML document, with Python's types. Keys that occur twice are refused by
    `tomllib`.

    Raises:
        ValueError: the text is not TOML, has more than `MAX_TOML` characters, has a dotted key of more
            than `MAX_PARTS` parts, arrays and tables that are nested more than `MAX_DEPTH` levels deep,
            or a number that float64 does not have.

    >>> parse_toml("a.b = [1, 2.5]")
    {'a': {'b': [1, 2.5]}}
    """
    if len(text) > MAX_TOML:
        raise ValueError(
            Text(
                "it has {actual} characters; a configuration has at most {limit}",
                actual=len(text),
                limit=MAX_TOML,
            )
        )
    _refuse_deep_toml(text)
    return tomllib.loads(text, parse_float=_finite)


def reason_of(error: ValueError) -> str:
    """Return the reason of an error of `parse_json` or `parse_toml` in one line, with its facts."""
    reason = error.args[0] if error.args else ""
    return reason if isinstance(reason, Text) else first_line(error)


def _too_deep() -> ValueError:
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
        raise _too_deep()
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


def _short_integer(number: str) -> int:
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


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value) and "inf" not in number:  # TOML has the number inf
        raise ValueError(Text("the number {number} is too large", number=number[:40]))
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(Text("{constant} is not a number of JSON", constant=name))


#: Tokens of TOML, as far as they tell strings and comments from keys and brackets. Repetitions are
#: possessive, so that the time is proportional to the length of the text.
_TOKEN = re.compile(
    r'''"""(?:[^"\\]|\\.|"(?!""))*+"{3,5}|\'\'\'(?:[^']|'(?!''))*+'{3,5}'''
    r"""|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+'|\#[^\n]*+|[ \t]++|[^\s"'\#.\[\]{}=,]++|.|\n""",
    re.DOTALL,
)


def _refuse_deep_toml(text: str) -> None:
    """Refuse keys of many parts, and nested arrays and tables, before `tomllib` reads them."""
    depth, parts, after_dot = 0, 0, False
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token[0] in "\"'" and len(token) == 1:
            return  # a string without an end: `tomllib` reads no further, and reports it
        if token[0] in " \t":
            continue
        if token[0] in "[{":
            depth += 1
        elif token[0] in "]}":
            depth = max(depth - 1, 0)
        if depth > MAX_DEPTH:
            raise _too_deep()
        if token == ".":
            after_dot = True
            continue
        if token[0] in "0123456789+-" and len(token) > MAX_DIGITS + 1:
            _short_integer(token)
        parts = parts + 1 if after_dot else 1
        after_dot = False
        if parts > MAX_PARTS:
            line = text.count("\n", 0, match.start()) + 1
            raise ValueError(
                Text(
                    "a key has more than {limit} parts (at line {line})", limit=MAX_PARTS, line=line
                )
            )
