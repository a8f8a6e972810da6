"""Small operations on concrete arrays, computed by NumPy.

Outside of `jax.jit` each operation on a `jax.Array` is a separate program, compiled for each shape:
compilation takes longer than the operation. For arrays in the memory of the processor NumPy returns
the same result to the last digit and compiles nothing. It is used for operations with an exact
result, such as selecting, sorting and comparing, and for elementwise arithmetic.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def on_processor(*trees: Any) -> bool:
    """Return whether NumPy can read all arrays of some trees in place: none is traced, lies on
    another device, or is laid out over several.
    """
    return all(map(_is_here, jax.tree.leaves(trees)))


def _is_here(array: Any) -> bool:
    if isinstance(array, Tracer):
        return False
    if not isinstance(array, jax.Array):
        return True
    if jnp.issubdtype(array.dtype, jax.dtypes.extended):  # random keys
        return False
    devices = array.devices()
    return len(devices) == 1 and next(iter(devices)).platform == "cpu"


def module_for(*trees: Any) -> ModuleType:
    """Return `numpy` if all arrays of some trees are on the processor, else `jax.numpy`."""
    return np if on_processor(*trees) else jnp


def in_numpy(tree: Any) -> Any:
    """Return the tree with NumPy arrays; unchanged if not all are on the processor."""
    return jax.tree.map(np.asarray, tree) if on_processor(tree) else tree


def to_jax(tree: Any) -> Any:
    """Return NumPy's arrays as JAX's; `jax.numpy.asarray` would compile a copy for each shape."""
    return jax.device_put(tree)


def as_array_of(array: Any, dtype: Any) -> Any:
    """Return an array of the specified dtype: NumPy's if it is on the processor, which `jax.jit`
    accepts as it is, else JAX's.
    """
    return module_for(array).asarray(array, dtype)
