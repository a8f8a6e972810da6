"""The mapping in a file, and the scales that it was made with."""

from __future__ import annotations

import os
from collections.abc import Mapping as Mapped

from jaxsnn.bss2.mapping import Mapping, from_json
from jaxsnn.nir import Graph
from jaxsnn.nir.io.read_limits import read_text


def read_mapping(path: str | os.PathLike[str]) -> Mapping:
    """Read the mapping in a file.

    Raises:
        FileError: it cannot be read, or is not text.
        MappingError: it is not a mapping.
    """
    return from_json(read_text(path, "a mapping of jaxsnn map"))


def scales_of(mapping: Mapping, graph: Graph) -> Mapped[str, float] | None:
    """Return the scales that a mapping carries; None where it has none, or is of other populations,
    which its check reports.
    """
    scales = mapping.scales
    return scales if scales is not None and sorted(scales) == sorted(graph.neurons) else None
