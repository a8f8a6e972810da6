"""Sums that keep what rounding takes from them: a number is a pair (high, low), whose sum it is.

Times are absolute, and what is added to them is short: in one float32 number a million milliseconds
from the start a period of 11 ms is rounded to a multiple of 0.06 ms, always the same way. As a pair
it is exact to the square of the rounding (Dekker, Numerische Mathematik 18, 1971; Knuth's TwoSum).
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
