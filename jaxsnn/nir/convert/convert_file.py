"""Conversion from file to file: what `jaxsnn convert` does."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from jaxsnn.nir.convert import convert
from jaxsnn.nir.export import write
from jaxsnn.nir.graph import Change, Graph


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertOutcome:
    """What `jaxsnn convert` did.

    Attributes:
        output: path of the file that was written.
        load_with: a line of Python that loads it with the target's importer.
        changes: what was changed, and why.
        losses: what an approximation loses.
        shift: Output -> steps by which its spikes leave later than the source's.
    """

    output: str
    load_with: str
    changes: tuple[Change, ...]
    losses: tuple[str, ...]
    shift: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "schema": 1,
            "output": self.output,
            "load_with": self.load_with,
            "changes": [change.as_dict() for change in self.changes],
            "losses": list(self.losses),
            "shift": self.shift,
        }

    def as_text(self) -> str:
        """For people."""
        lines = [change.as_text() for change in self.changes]
        lines += [f"lost: {loss}" for loss in self.losses]
        return "\n".join([*lines, f"{self.output}: load it with", f"  {self.load_with}"])


def convert_file(
    graph: Graph,
    output: str | os.PathLike[str],
    *,
    to: str,
    dt: float | None = None,
    approximate: bool = False,
    force: bool = False,
) -> ConvertOutcome:
    """Rewrite a graph for another simulator, and write the file; see `jaxsnn.nir.convert.convert`.

    Raises:
        JaxsnnError: what the conversion refuses, or a file that cannot be written.
    """
    path = os.fspath(output)
    converted = convert(graph, to=to, approximate=approximate, dt=dt, path=path)
    write(path, converted.graph, force)
    return ConvertOutcome(
        output=path,
        load_with=converted.load_with,
        changes=converted.changes,
        losses=converted.losses,
        shift=dict(converted.shift),
    )
