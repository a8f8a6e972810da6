"""Keyword arguments of `read`, `parse` and the functions that build graphs, for type checkers.

`jaxsnn.nir.read` describes them. Frameworks of other distributions may add options, which type
checkers do not know.
"""

from __future__ import annotations

from typing import Any, TypedDict


class FrameworkKeywords(TypedDict, total=False):
    """Options of single frameworks."""

    spike_area: Any
    reset_size: Any
    min_v_mem: Any
    spike_fn: Any
    scale_spikes: Any


class DialectKeywords(FrameworkKeywords, total=False):
    """All conventions that a file may leave open, except the dialect."""

    dt: Any
    dt_export: Any
    norm_input: Any
    time_unit: Any
    reset: Any
    reset_delay: Any
    spike_kernel: Any
    initial: Any
    readout: Any
