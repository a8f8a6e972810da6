"""TOML of unknown origin, parsed within limits that are checked before the parser runs."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from jaxsnn.files.structured_text import (
    MAX_DEPTH,
    MAX_DIGITS,
    finite_number,
    short_integer,
    too_deep,
)
from jaxsnn.wording import Text

#: Largest size of a configuration in TOML, characters, and largest number of parts of a dotted key. The
#: memory of `tomllib` grows with the square of the latter: 50,000 parts took 5.7 GB.
MAX_TOML, MAX_PARTS = 2**18, 16
#: Tokens of TOML, as far as they tell strings and comments from keys and brackets. Repetitions are
#: possessive, so that the time is proportional to the length of the text.
_TOKEN = re.compile(
    r'''"""(?:[^"\\]|\\.|"(?!""))*+"{3,5}|\'\'\'(?:[^']|'(?!''))*+'{3,5}'''
    r"""|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+'|\#[^\n]*+|[ \t]++|[^\s"'\#.\[\]{}=,]++|.|\n""",
    re.DOTALL,
)


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
    return tomllib.loads(text, parse_float=finite_number)


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
            raise too_deep()
        if token == ".":
            after_dot = True
            continue
        if token[0] in "0123456789+-" and len(token) > MAX_DIGITS + 1:
            short_integer(token)
        parts = parts + 1 if after_dot else 1
        after_dot = False
        if parts > MAX_PARTS:
            line = text.count("\n", 0, match.start()) + 1
            raise ValueError(
                Text(
                    "a key has more than {limit} parts (at line {line})", limit=MAX_PARTS, line=line
                )
            )
