"""Keyword arguments of `quantize`, for type checkers; `QuantizeOptions` describes them."""

from __future__ import annotations

from typing import Any, TypedDict


class QuantizeKeywords(TypedDict, total=False):
    """Fields of `QuantizeOptions`."""

    scale: Any
    percentile: Any
    synapses_per_weight: Any
    speedup: Any
    bias: Any
    bias_period: Any
    v_leak: Any
    v_threshold: Any
    refractory_time: Any
    slope: Any
    approximate: Any
