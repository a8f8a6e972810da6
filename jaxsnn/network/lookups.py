"""Entries of arrays at places that there are, in the form that XLA's CPU compiler (jaxlib 0.10) makes the
best of: that a place might not be there is neither looked at nor compiled.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from jaxsnn.network.array_types import Array, Int, Num, Shaped


def entries_at(array: Shaped[Array, "..."], *place: Int[Array, "..."]) -> Shaped[Array, "..."]:
    """As `array[place]`."""
    return array.at[place].get(mode="promise_in_bounds")


def at_places(
    values: Shaped[Array, "..."], places: Int[Array, "..."], axis: int
) -> Shaped[Array, "..."]:
    """As `jnp.take_along_axis`, of places that there are: that they might not be is neither looked at
    nor compiled.
    """
    return jnp.take_along_axis(values, places, axis, mode="promise_in_bounds")


def of_columns(
    values: Num[Array, "numbers columns"], number: Int[Array, "first columns last"]
) -> Num[Array, "first columns last"]:
    """The value at a number of each column, of numbers that there are: a look-up for which nothing is
    turned.
    """
    column = lax.broadcasted_iota(jnp.int32, number.shape, 1)
    return entries_at(values, number, column)


def turned(matrix: Shaped[Array, "rows columns"]) -> Shaped[Array, "columns rows"]:
    """The transposed matrix, by look-ups: of a transposed copy XLA's CPU compiler makes three times as
    much code.
    """
    column, row = (lax.broadcasted_iota(jnp.int32, matrix.shape[::-1], axis) for axis in (0, 1))
    return entries_at(matrix, row, column)
