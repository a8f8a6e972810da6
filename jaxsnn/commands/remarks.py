"""Remarks of the library as lines for people: many similar ones become one line, of which JSON and the
results in Python have each.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxsnn.wording import for_command_line

if TYPE_CHECKING:
    from jaxsnn.errors import Problem
    from jaxsnn.nir.model.changes import Change

#: So many lines are shown as they are.
_FEW = 12
#: So many lines at most, when similar ones have been put together.
_MOST = 20
#: So many similar remarks make one line.
_SIMILAR = 4
_NUMBER = r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?"
#: A name in quotes, or a number that is no part of a word.
_VARIES = re.compile(rf"(?<!\w)'[^']*'(?!\w)|(?<![\w.]){_NUMBER}(?!\w)")


def line_of(remark: str | Problem | Change) -> str:
    """One line for people, in the words of the command line: of a problem, of a change that was
    made to a graph, or of a sentence of the library.
    """
    text = remark if isinstance(remark, str) else remark.text
    return " ".join(for_command_line(text).split())


def similar_lines(
    remarks: Sequence[str | Problem | Change], *, kind: str, prefix: str = ""
) -> list[str]:
    """Return one line for each remark, or, of many, one for those that differ in names and numbers.

    Args:
        remarks: Changes, problems or sentences, in order.
        kind: What they are, for the last line: "changes".
        prefix: Of each line.
    """
    if len(remarks) <= _FEW:
        return [prefix + line_of(remark) for remark in remarks]
    groups: dict[str, list[tuple[str, str]]] = {}
    for remark in remarks:
        # a Change names its node first, which says nothing of what was done
        node = getattr(remark, "node", "") if hasattr(remark, "what") else ""
        text = line_of(remark).removeprefix(f"{node}: " if node else "")
        pattern = _VARIES.sub(lambda match: "'" if match[0][0] == "'" else "#", text)
        groups.setdefault(pattern, []).append((node, text))
    lines: list[str] = []
    for group in groups.values():
        nodes, texts = [node for node, _ in group], [text for _, text in group]
        if len(group) >= _SIMILAR:
            node_range = f"{len(group)} nodes '{nodes[0]}' ... '{nodes[-1]}'"
            lines.append(f"{node_range if nodes[0] else f'{len(group)} {kind}'}: {_merged(texts)}")
        else:
            lines += [f"{node}: {text}" if node else text for node, text in group]
    more = len(lines) - _MOST
    if more > 0:
        lines = [*lines[:_MOST], f"... {more} more lines"]
    lines.append(f"({len(remarks)} {kind}: --json has each of them)")
    return [prefix + line for line in lines]


def _merged(texts: Sequence[str]) -> str:
    """Return the one text of several that differ in names and numbers: `1 to 3`, `'a' ... 'c'`."""
    columns = list(zip(*(_VARIES.findall(text) for text in texts), strict=True))
    fixed = _VARIES.split(texts[0])
    merged, skip = fixed[0], False
    for place, column in enumerate(columns):
        after = fixed[place + 1]
        following = columns[place + 1] if after == " to " else ("'",)
        is_range = not column[0].startswith("'") and not following[0].startswith("'")
        if skip:  # the end of a range, which its beginning has brought
            skip = False
        elif is_range and len(set(column)) + len(set(following)) > 2:
            merged += f"{min(column, key=float)} to {max(following, key=float)}"
            skip, after = True, ""
        elif len(set(column)) == 1:
            merged += column[0]
        elif column[0].startswith("'"):
            merged += f"{column[0]} ... {column[-1]}"
        else:
            merged += f"{min(column, key=float)} to {max(column, key=float)}"
        merged += after
    return merged
