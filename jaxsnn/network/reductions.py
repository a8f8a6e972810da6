"""Reductions in the form that XLA's CPU compiler (jaxlib 0.10) compiles best.

Sums are matrix products with ones: if the terms of a `jnp.sum` are products, the compiler fuses them
with the sum, which takes several times as long as the parts. It does not fuse matrix products.

Several conditions are reduced in one loop, and other arrays in two halves: from the reduction of a
single array the compiler makes up to five consecutive loops, each of which takes time and memory to
compile.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.tree import leaves

from jaxsnn.network.array_types import Array, Bool, Float, Int


def over_first(array: Float[Array, "first *rest"]) -> Float[Array, "*rest"]:
    """Return the sum over the first axis."""
    ones = jnp.ones(array.shape[0], array.dtype)
    return jnp.tensordot(ones, array, axes=1, precision=lax.Precision.HIGHEST)


def over_last(array: Float[Array, "*rest last"], factor: float = 1.0) -> Float[Array, "*rest"]:
    """Return the sum over the last axis, times a factor."""
    ones = jnp.full(array.shape[-1], factor, array.dtype)
    return jnp.tensordot(array, ones, axes=1, precision=lax.Precision.HIGHEST)


def count_over_last(counts: Int[Array, "*rest last"]) -> Int[Array, "*rest"]:
    """Return the sum of integers over the last axis."""
    return _by_halves(counts, 0, jnp.add)


def greatest(numbers: Int[Array, "..."]) -> Int[Array, ""]:
    """Return the largest of some integers; the minimum of the dtype if there are none."""
    return _by_halves(numbers.reshape(-1), jnp.iinfo(numbers.dtype).min, jnp.maximum)


def _by_halves(
    array: Int[Array, "*rest last"], nothing: int, joined: Callable[[Array, Array], Array]
) -> Int[Array, "*rest"]:
    """Reduce an array over the last axis in two halves; `nothing` is the neutral element."""
    start, size, axis = jnp.asarray(nothing, array.dtype), array.shape[-1], array.ndim - 1
    # For a symbolic size (`jax.export`): `lax.reduce` of a function has no derivative.
    if not isinstance(size, int):
        reduction = jnp.max if joined is jnp.maximum else jnp.sum
        return reduction(array, axis, initial=nothing).astype(array.dtype)
    more = [(0, 0)] * axis + [(0, size % 2)]
    halves = jnp.split(jnp.pad(array, more, constant_values=nothing), 2, axis)

    def both(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
        return joined(a[0], b[0]), joined(a[1], b[1])

    return joined(*lax.reduce(tuple(halves), (start, start), both, (axis,)))


def any_of_each(*conditions: Bool[Array, "*shape"]) -> tuple[Bool[Array, ""], ...]:
    """Return for each of some boolean arrays of the same shape whether any element is true: a
    scalar for each.
    """
    nowhere = (jnp.asarray(False),) * len(conditions)

    def either(
        a: tuple[Bool[Array, ""], ...], b: tuple[Bool[Array, ""], ...]
    ) -> tuple[Bool[Array, ""], ...]:
        return tuple(map(jnp.logical_or, a, b))

    return tuple(lax.reduce(conditions, nowhere, either, tuple(range(conditions[0].ndim))))


def any_in(*conditions: Bool[Array, "..."]) -> Bool[Array, ""]:
    """Return whether any element of some boolean arrays, of any shapes, is true."""
    # Conditions of the same size are reduced in one loop.
    by_size = defaultdict(list)
    for condition in conditions:
        if condition.size:
            by_size[condition.size].append(condition.reshape(-1))
    partial_results = []
    for size, same in by_size.items():
        # Split a single condition into halves: XLA would make several loops of it. A symbolic size
        # (`jax.export`) cannot be split.
        if len(same) == 1 and isinstance(size, int):
            same = jnp.split(jnp.pad(same[0], (0, size % 2)), 2)
        partial_results += any_of_each(*same)
    return any_of(partial_results)


def any_of(conditions: Iterable[Bool[Array, ""]]) -> Bool[Array, ""]:
    """Return whether any of some scalar booleans is true."""
    return reduce(jnp.logical_or, conditions, jnp.asarray(False))


def numbers_of(tree: Any) -> Float[Array, "numbers"]:
    """Return the numbers of some arrays as a flat array that is finite if and only if all numbers
    are. Arrays of two or more axes contribute one scaled sum for each index of their first axis.
    """
    return jnp.concatenate([_row(array) for array in leaves(tree)] or [jnp.zeros(0)])


def _row(array: Float[Array, "..."]) -> Float[Array, "numbers"]:
    if array.ndim < 2 or array.shape[0] == 0:
        return array.reshape(-1)
    # The factor is so small that no sum of finite numbers is infinite.
    return over_last(array.reshape(array.shape[0], -1), 1e-30)
