"""The mapping in a file, and the scales that it was made with."""

from __future__ import annotations

import os
from collections.abc import Mapping as Mapped
from pathlib import Path

from jaxsnn.bss2.mapping import Mapping, from_json
from jaxsnn.errors import FileError, MappingError
from jaxsnn.nir import Graph


def read_mapping(path: str | os.PathLike[str]) -> Mapping:
    """The mapping in a file.

    Raises:
        FileError: it cannot be read.
        MappingError: it is not a mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise FileError(
            f"{path} cannot be read ({error.strerror or error})", fix="name a mapping of jaxsnn map"
        ) from error
    except UnicodeDecodeError as error:
        raise MappingError(
            f"{path} is not text, so not a mapping", fix="make a mapping with jaxsnn map"
        ) from error
    return from_json(text)


def scales_of(mapping: Mapping, graph: Graph) -> Mapped[str, float] | None:
    """The scales that a mapping carries; None where it has none, or is of other populations, which
    its check says.
    """
    scales = mapping.scales
    return scales if scales is not None and sorted(scales) == sorted(graph.neurons) else None
