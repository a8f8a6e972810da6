"""Edges of a graph, the natural order of names, and what reading or rewriting changed."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from jaxsnn.wording import Text, for_command_line

Edge = tuple[str, str]


def natural_key(name: str) -> tuple[Any, ...]:
    """Sorts names as people do.

    >>> sorted(["layer10", "layer2", "1.lif", "10"], key=natural_key)
    ['1.lif', '10', 'layer2', 'layer10']
    """
    parts = re.split(r"(\d+)", name)
    numbered = tuple(
        (0, int(part), "") if part.isascii() and part.isdigit() else (1, 0, part)
        for part in parts
        if part
    )
    return (numbered, name)


def edge_key(edge: Edge) -> tuple[Any, ...]:
    """Sorts edges by source, then by target, as people do."""
    return natural_key(edge[0]), natural_key(edge[1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """Something that was done to a graph: a repair by the reader, a change by a conversion, an
    approximation by a quantisation. What is wrong is a `jaxsnn.errors.Problem`.

    Attributes:
        node: NIR name of the node; "" for the whole graph.
        what: what was done.
        why: the reason.

    >>> Change(node="1", what="r becomes 1", why="the importer ignores r").as_text()
    '1: r becomes 1 (the importer ignores r)'
    """

    node: str
    what: str
    why: str

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        description, why = for_command_line(self.what), for_command_line(self.why)
        return {"node": self.node, "what": description, "why": why}

    @property
    def text(self) -> Text:
        """What was done to which node, and why."""
        node = Text("{node}: ", node=self.node or "graph")
        return node + self.what + " (" + self.why + ")"

    def as_text(self) -> str:
        """For people at the command line."""
        return for_command_line(self.text)
