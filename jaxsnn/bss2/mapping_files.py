"""Reads a mapping from a file, and quantises its network with the options of the mapping."""

from __future__ import annotations

import os
from collections.abc import Mapping as Mapped
from dataclasses import replace
from typing import Any

from jaxsnn.bss2.mapping import Mapping, from_json
from jaxsnn.bss2.quantization import Quantization, is_same, shown_option
from jaxsnn.bss2.search.measured_slopes import MeasuredSlope, slope_table
from jaxsnn.bss2.search.quantize import Quantized, QuantizeOptions, quantize
from jaxsnn.bss2.search.rounding import BALANCED
from jaxsnn.errors import UsageError, listing
from jaxsnn.files.structured_text import read_parsable_text
from jaxsnn.nir import Graph
from jaxsnn.nir.model.changes import Change
from jaxsnn.options import QUANTIZE_OPTIONS
from jaxsnn.wording import Text

#: Default of `QuantizeOptions.v_threshold` before the scale "balanced" became the default.
_EARLIER_THRESHOLD = 125
#: Options on which the neurons of the chip depend, but not the fingerprint of an earlier version.
_ASSUMED = ("speedup", "refractory_time", "bias", "v_leak", "v_threshold", "slope")


def read_mapping(path: str | os.PathLike[str]) -> Mapping:
    """Read the mapping in a file.

    Raises:
        FileError: The file cannot be read, or is not text.
        MappingError: The file is not a mapping; the message names the file.
    """
    return from_json(read_parsable_text(path, "a mapping of jaxsnn map"), location=str(path))


def quantize_as_mapped(graph: Graph, mapping: Mapping, **options: Any) -> Quantized:
    """Return a graph quantised with the options that its mapping stores.

    A mapping of an earlier version stores none: the defaults are used, or those of the version that
    created it, and a note lists them.

    Args:
        graph: Graph of the mapping, with its dialect.
        mapping: Mapping of the graph.
        options: Fields of `QuantizeOptions`, which must have the values of the mapping.

    Raises:
        UsageError: An option has another value in the mapping.
        MappingError, DialectError, LoweringError: See `quantize`.
    """
    stored = mapping.quantization
    scales = mapping.specified_scales
    # The check of the mapping reports other populations than those of the graph.
    is_of_graph = scales is None or sorted(scales) == sorted(graph.neurons)
    if stored is None:
        scale = {"scale": scales} if scales is not None and is_of_graph else {}
        return _quantize_as_earlier(graph, mapping, scale | options)
    _refuse_other_options(stored, options)
    return quantize(graph, _options_of(stored, stored.scale if is_of_graph else BALANCED))


def _options_of(stored: Quantization, scale: str | Mapped[str, float]) -> QuantizeOptions:
    """Return the stored options as options of `quantize`."""
    slope = None
    if stored.slope is not None:
        assert stored.i_synin_gm is not None
        assert stored.synapse_dac_bias is not None
        slope = (
            MeasuredSlope(
                slope=stored.slope,
                i_synin_gm=stored.i_synin_gm,
                synapse_dac_bias=stored.synapse_dac_bias,
            ),
        )
    defaults = QuantizeOptions()
    return QuantizeOptions(
        scale=scale,
        percentile=defaults.percentile if stored.percentile is None else stored.percentile,
        synapses_per_weight=stored.synapses_per_weight,
        speedup=stored.speedup,
        bias=stored.bias,
        bias_period=defaults.bias_period if stored.bias_period is None else stored.bias_period,
        v_leak=stored.v_leak,
        v_threshold=stored.v_threshold,
        refractory_time=stored.refractory_time,
        slope=slope,
        approximate=stored.approximate,
    )


def _refuse_other_options(stored: Quantization, options: Mapped[str, Any]) -> None:
    """Refuse options with other values than those that a mapping stores.

    Raises:
        UsageError: The first such option, with both values.
    """
    flags = {option.name: option for option in QUANTIZE_OPTIONS}
    for name, value in options.items():
        actual = getattr(stored, name)
        # `approximate` is a permission, and no speedup leaves the choice to `quantize`.
        if name == "approximate" or value is None or is_same(actual, value):
            continue
        if name == "slope":
            settings = stored.slope, stored.i_synin_gm, stored.synapse_dac_bias
            measured = [
                (entry.slope, entry.i_synin_gm, entry.synapse_dac_bias)
                for entry in slope_table(value)
            ]
            if settings in measured:
                continue
            value = listing([slope for slope, *_ in measured])
        if name == "scale" and isinstance(actual, Mapped):
            actual = "a number for each population"
        raise UsageError(
            Text(
                "{option} is {value}; the mapping was created with {actual}",
                option=flags[name],
                value=shown_option(name, value),
                actual=shown_option(name, actual),
            ),
            fix=Text("remove {option}, or map the network again with it", option=flags[name]),
        )


def _quantize_as_earlier(graph: Graph, mapping: Mapping, options: Mapped[str, Any]) -> Quantized:
    """Return a graph quantised for the mapping of an earlier version, with notes on the options that
    it does not store.
    """
    quantized, note = quantize(graph, **options), None
    current = QuantizeOptions(**options)
    if not isinstance(current.scale, Mapped) and not _is_of(mapping, quantized):
        scale = "max" if current.scale == BALANCED else current.scale
        earlier = quantize(graph, replace(current, scale=scale, v_threshold=_EARLIER_THRESHOLD))
        if _is_of(mapping, earlier):
            quantized = earlier
            note = Change(
                node="",
                what=Text(
                    "thresholds are at most at {v_threshold} CADC LSB; the current limit is {limit}",
                    v_threshold=_EARLIER_THRESHOLD,
                    limit=current.v_threshold,
                ),
                why="an earlier version created the mapping; map the network again to use the current "
                "limit",
            )
    used = quantized.netlist.quantization
    assumed = [
        f"{name} {shown_option(name, getattr(used, name))}"
        for name in _ASSUMED
        if name not in options
    ]
    notes = () if note is None else (note,)
    if assumed:
        stored = Change(
            node="",
            what=Text(
                "the mapping does not store its options; assumed: {options}",
                options=", ".join(assumed),
            ),
            why="an earlier version created it; pass the options with which it was created, or map the "
            "network again",
        )
        notes = (*notes, stored)
    return replace(quantized, notes=(*notes, *quantized.notes))


def _is_of(mapping: Mapping, quantized: Quantized) -> bool:
    return mapping.fingerprint == quantized.netlist.fingerprint(mapping.scales)
