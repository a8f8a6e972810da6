"""Edges of a graph, the natural order of names, and what reading or rewriting changed."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from jaxsnn.wording import Text, for_command_line

Edge = tuple[str, str]


def natural_key(name: str) -> tuple[Any, ...]:
    """Return a key that sorts names in natural order.

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
    """Return a key that sorts edges by source, then by target, in natural order."""
    return natural_key(edge[0]), natural_key(edge[1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """Change of a graph: a repair by the reader, an edit by a conversion, an approximation by a
    quantisation. Errors are reported as `jaxsnn.errors.Problem`.

    Attributes:
        node: NIR name of the node; "" for the whole graph.
        what: Description of the change.
        why: Reason for the change.

    >>> Change(node="1", what="r becomes 1", why="the importer ignores r").as_text()
    '1: r becomes 1 (the importer ignores r)'
    """

    node: str
    what: str
    why: str

    def as_dict(self) -> dict[str, str]:
        """Return the change as a dict for JSON."""
        description, why = for_command_line(self.what), for_command_line(self.why)
        return {"node": self.node, "what": description, "why": why}

    @property
    def text(self) -> Text:
        """Description of the change: the node, the change and the reason."""
        node = Text("{node}: ", node=self.node or "graph")
        return node + self.what + " (" + self.why + ")"

    def as_text(self) -> str:
        """Return the text of the change, in the wording of the command line."""
        return for_command_line(self.text)
