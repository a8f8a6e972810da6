"""Options of engines as static arguments of compiled functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.core import Tracer


def hashable(value: Any, *, is_count: bool = False) -> Any:
    """Return an option in hashable form: mappings and names as sorted tuples, a NumPy number or an
    array of one as that number. Other values are returned unchanged, and refused later.

    Args:
        is_count: whether the option is a count, so that 8.0 becomes 8.
    """
    if isinstance(value, Mapping):
        pairs = [(name, hashable(entry, is_count=is_count)) for name, entry in value.items()]
        return tuple(sorted(pairs, key=lambda pair: str(pair[0])))
    is_array = isinstance(value, np.generic | np.ndarray | jax.Array)
    if is_array and not isinstance(value, Tracer) and (value.ndim == 0 or value.dtype.kind == "U"):
        value = value.tolist()
    if isinstance(value, list | set | frozenset) and all(
        isinstance(element, str) for element in value
    ):
        return tuple(sorted(value))
    return int(value) if is_count and isinstance(value, float) and value.is_integer() else value
