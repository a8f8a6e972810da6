"""Reads a mapping from a file, and quantises its network with the options of the mapping."""

from __future__ import annotations

import os
from collections.abc import Mapping as Mapped
from dataclasses import replace

from jaxsnn.bss2.mapping import Mapping, from_json
from jaxsnn.bss2.search.quantize import Quantized, QuantizeOptions, quantize
from jaxsnn.bss2.search.rounding import BALANCED
from jaxsnn.files.structured_text import read_parsable_text
from jaxsnn.nir import Graph
from jaxsnn.nir.model.changes import Change
from jaxsnn.wording import Text

#: Default of `QuantizeOptions.v_threshold` before the scale "balanced" became the default.
_EARLIER_THRESHOLD = 125


def read_mapping(path: str | os.PathLike[str]) -> Mapping:
    """Read the mapping in a file.

    Raises:
        FileError: The file cannot be read, or is not text.
        MappingError: The file is not a mapping.
    """
    return from_json(read_parsable_text(path, "a mapping of jaxsnn map"))


def scales_of(mapping: Mapping, graph: Graph) -> Mapped[str, float] | None:
    """Return the scales of a mapping; None if it has none, or if it has other populations than the
    graph, which the check of the mapping reports.
    """
    scales = mapping.scales
    return scales if scales is not None and sorted(scales) == sorted(graph.neurons) else None


def quantize_as_mapped(graph: Graph, mapping: Mapping, options: QuantizeOptions) -> Quantized:
    """Return a quantised graph for its mapping. If the mapping was created with the defaults of an
    earlier version, these are used, and a note reports it.

    Raises:
        MappingError, DialectError, LoweringError, UsageError: See `quantize`.
    """
    quantized = quantize(graph, options)
    if isinstance(options.scale, Mapped) or _is_of(mapping, quantized):
        return quantized
    scale = "max" if options.scale == BALANCED else options.scale
    earlier = quantize(graph, replace(options, scale=scale, v_threshold=_EARLIER_THRESHOLD))
    if not _is_of(mapping, earlier):
        return quantized
    note = Change(
        node="",
        what=Text(
            "thresholds are at most at {v_threshold} CADC LSB; the current limit is {limit}",
            v_threshold=_EARLIER_THRESHOLD,
            limit=options.v_threshold,
        ),
        why="an earlier version created the mapping; map the network again to use the current limit",
    )
    return replace(earlier, notes=(note, *earlier.notes))


def _is_of(mapping: Mapping, quantized: Quantized) -> bool:
    return mapping.fingerprint == quantized.netlist.fingerprint(mapping.scales)
