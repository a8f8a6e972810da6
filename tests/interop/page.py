"""Tables that are measured, written into a page that is otherwise written by hand."""

from __future__ import annotations

import re
from collections.abc import Iterable


def with_part(page: str, name: str, lines: Iterable[str]) -> str:
    """The page with other lines between the comments `begin NAME` and `end NAME`."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if len(pattern.findall(page)) != 1:
        raise ValueError(f"the page has no place for '{name}': write {begin} and {end}")
    return pattern.sub(lambda _: "\n".join([begin, "", *lines, "", end]), page)
