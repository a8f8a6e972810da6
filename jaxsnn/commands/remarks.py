"""Remarks of the library as human-readable lines. Many similar remarks become one line; JSON and the
results in Python contain each of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from jaxsnn.errors import as_number
from jaxsnn.wording import Part, Shown, Text, for_command_line, parts_of

if TYPE_CHECKING:
    from jaxsnn.errors import Problem
    from jaxsnn.nir.model.changes import Change

#: Maximum number of remarks that are shown one by one.
_FEW = 12
#: Maximum number of lines after similar remarks have been merged.
_MOST = 20
#: Minimum number of similar remarks that are merged into one line.
_SIMILAR = 4


def line_of(remark: str | Problem | Change) -> str:
    """Return a human-readable line in the words of the command line for a problem, for a change that
    was made to a graph, or for a sentence of the library.
    """
    text = remark if isinstance(remark, str) else remark.text
    return " ".join(for_command_line(text).split())


def similar_lines(
    remarks: Sequence[str | Problem | Change], *, kind: str, prefix: str = ""
) -> list[str]:
    """Return one line for each remark; if there are many, one line for all of the same code that
    differ only in facts.

    Args:
        remarks: Changes, problems or sentences, in order.
        kind: Name of the remarks, for the last line: "changes".
        prefix: Prefix of each line.
    """
    if len(remarks) <= _FEW:
        return [prefix + line_of(remark) for remark in remarks]
    groups: dict[Any, list[str | Problem | Change]] = {}
    for remark in remarks:
        wording = tuple(
            (part.name,) if isinstance(part, Shown) else part for part in _parts(remark)
        )
        groups.setdefault((getattr(remark, "code", ""), wording), []).append(remark)
    lines: list[str] = []
    for group in groups.values():
        if len(group) < _SIMILAR:
            lines += map(line_of, group)
            continue
        first, last = _changed_node(group[0]), _changed_node(group[-1])
        subject = f"nodes '{first}' ... '{last}'" if first else kind
        lines.append(f"{len(group)} {subject}: {line_of(_merged([*map(_parts, group)]))}")
    more = len(lines) - _MOST
    if more > 0:
        lines = [*lines[:_MOST], f"... {more} more lines"]
    lines.append(f"({len(remarks)} {kind}: --json has each of them)")
    return [prefix + line for line in lines]


def _changed_node(remark: str | Problem | Change) -> str:
    """Return the node of a change; "" for other remarks, whose sentences name their nodes."""
    return getattr(remark, "node", "") if hasattr(remark, "what") else ""


def _parts(remark: str | Problem | Change) -> tuple[Part, ...]:
    """Return the parts of a remark; for a change without its node."""
    if _changed_node(remark):
        change = cast("Change", remark)
        return Text.joined("", (change.what, " (", change.why, ")")).parts
    return parts_of(remark if isinstance(remark, str) else remark.text)


def _merged(texts: Sequence[Sequence[Part]]) -> Text:
    """Return the merged text of several texts that differ in facts: `1 to 3`, `'a' ... 'c'`."""
    columns = [list(column) for column in zip(*texts, strict=True)]
    merged: list[Part] = []
    number = 0
    while number < len(columns):
        column, end = columns[number], columns[number]
        if columns[number + 1 : number + 2] and columns[number + 1][0] == " to ":
            end = columns[number + 2]  # the first and the last number of a range
        lows, highs = _numbers_of(column), _numbers_of(end)
        if len(set(column)) == len(set(end)) == 1 or not (lows and highs):
            end = column
        if len(set(column)) == len(set(end)) == 1:
            merged.append(column[0])
        elif lows and highs:
            merged.append(f"{min(lows):.6g} to {max(highs):.6g}")
        else:
            before = columns[number - 1][0] if number else ""
            quote = "'" if isinstance(before, str) and before.endswith("'") else ""
            merged.append(f"{column[0]}{quote} ... {quote}{column[-1]}")
        number += 1 if end is column else 3
    return Text.joined("", merged)


def _numbers_of(parts: Sequence[Part]) -> list[float]:
    """Return the numbers of facts; an empty list if one of them is not a number."""
    numbers = [as_number(part.value) if isinstance(part, Shown) else math.nan for part in parts]
    return [] if any(map(math.isnan, numbers)) else numbers
