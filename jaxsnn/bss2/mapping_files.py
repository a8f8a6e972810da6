"""Reads a mapping from a file, and the scales with which it was created."""

from __future__ import annotations

import os
from collections.abc import Mapping as Mapped

from jaxsnn.bss2.mapping import Mapping, from_json
from jaxsnn.nir import Graph
from jaxsnn.nir.io.read_limits import read_text


def read_mapping(path: str | os.PathLike[str]) -> Mapping:
    """Read the mapping in a file.

    Raises:
        FileError: The file cannot be read, or is not text.
        MappingError: The file is not a mapping.
    """
    return from_json(read_text(path, "a mapping of jaxsnn map"))


def scales_of(mapping: Mapping, graph: Graph) -> Mapped[str, float] | None:
    """Return the scales of a mapping; None if it has none, or if it has other populations than the
    graph, which the check of the mapping reports.
    """
    scales = mapping.scales
    return scales if scales is not None and sorted(scales) == sorted(graph.neurons) else None
