"""`jaxsnn info`: the content of a NIR file, and the conventions that it does not specify. It loads no JAX."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxsnn.commands.arguments import add_command, add_file, print_outcome, read_graph

if TYPE_CHECKING:
    from jaxsnn.nir import Graph


@dataclass(frozen=True, kw_only=True)
class InfoOutcome:
    """Outcome of `jaxsnn info`.

    Attributes:
        graph: the graph of the file.
    """

    graph: Graph

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-compatible dict."""
        from jaxsnn.nir.model.description import describe

        return describe(self.graph)

    def as_text(self) -> str:
        """Return human-readable text."""
        from jaxsnn.nir.model.description import as_text

        return as_text(self.graph)


def add(commands: Any) -> None:
    """Add the parser."""
    text = "show the content of a NIR file, and which conventions it does not specify"
    add_file(add_command(commands, "info", run, text))


def run(arguments: argparse.Namespace) -> int:
    """Run the command; exit code 0."""
    print_outcome(arguments, InfoOutcome(graph=read_graph(arguments, notes=False)))
    return 0
