"""Compensated sums: a number is the sum of a pair (high, low), where `low` holds the rounding error
of `high`.

Times are absolute, and the intervals that are added to them are short. A million milliseconds after
the start, one float32 number would round a period of 11 ms to a multiple of 0.06 ms, always in the
same direction. A pair is exact to the square of the rounding error (Dekker, Numerische Mathematik 18,
1971; Knuth's TwoSum).
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from jaxsnn.event.event_arrays import Numbers
from jaxsnn.network.array_types import Array, Bool


class Pair(NamedTuple):
    """Number as an unevaluated sum high + low, with low below the rounding error of high."""

    high: Numbers
    low: Numbers


def two_sum(a: Numbers, b: Numbers) -> Pair:
    """Return a + b exactly; the low part of an infinite sum is 0."""
    high = a + b
    b_taken = high - a
    a_taken = high - b_taken
    low = (a - a_taken) + (b - b_taken)
    return Pair(high, jnp.where(jnp.isfinite(high), low, 0.0))


def plus(pair: Pair, number: Numbers) -> Pair:
    """Return the sum of a pair and a number."""
    high, low = two_sum(pair.high, number)
    return two_sum(high, low + pair.low)


def between(earlier: Pair, later: Pair) -> Numbers:
    """Return later - earlier."""
    return (later.high - earlier.high) + (later.low - earlier.low)


def either(condition: Bool[Array, "..."], yes: Pair, no: Pair) -> Pair:
    """Select element by element between two pairs."""
    return Pair(jnp.where(condition, yes.high, no.high), jnp.where(condition, yes.low, no.low))


def until(later: Numbers | float, pair: Pair) -> Numbers:
    """Return later - pair."""
    return (later - pair.high) - pair.low
