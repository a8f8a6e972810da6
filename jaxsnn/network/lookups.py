"""Look-ups in arrays at indices that are known to be in bounds, in the form that XLA's CPU compiler
(jaxlib 0.10) compiles best: without bounds checks.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from jaxsnn.network.array_types import Array, Int, Num, Shaped


def entries_at(array: Shaped[Array, "..."], *place: Int[Array, "..."]) -> Shaped[Array, "..."]:
    """Return `array[place]` without a bounds check."""
    return jnp.asarray(array).at[place].get(mode="promise_in_bounds")


def gather_along(
    values: Shaped[Array, "..."], places: Int[Array, "..."], axis: int
) -> Shaped[Array, "..."]:
    """Return `jnp.take_along_axis` without a bounds check.

    Rows of a matrix are read from the flat array: with two indices for each entry XLA stores both,
    which takes twice the memory of the result.
    """
    if values.ndim == 2 and axis in (1, -1) and places.shape[0] == values.shape[0]:
        rows, columns = values.shape
        start = columns * lax.broadcasted_iota(places.dtype, (rows, 1), 0)
        return entries_at(values.reshape(rows * columns), start + places)
    return jnp.take_along_axis(values, places, axis, mode="promise_in_bounds")


def of_columns(
    values: Num[Array, "numbers columns"], number: Int[Array, "first columns last"]
) -> Num[Array, "first columns last"]:
    """Return the value at an index of each column, without a bounds check and without a
    transposition.
    """
    column = lax.broadcasted_iota(jnp.int32, number.shape, 1)
    return entries_at(values, number, column)


def transpose(matrix: Shaped[Array, "rows columns"]) -> Shaped[Array, "columns rows"]:
    """Return the transposed matrix by look-ups: for a transposed copy XLA's CPU compiler emits
    three times as much code.
    """
    column, row = (lax.broadcasted_iota(jnp.int32, matrix.shape[::-1], axis) for axis in (0, 1))
    return entries_at(matrix, row, column)
