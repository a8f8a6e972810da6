"""The root of a function between two times at which it has different signs, to the last digits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from jaxsnn.event.event_arrays import Numbers
from jaxsnn.network.array_types import Array, Bool, Int
from jaxsnn.network.meshes import match_device_axes
from jaxsnn.network.reductions import any_in

#: Maximum number of steps, which always suffices: each step is at most half as long as the previous
#: one, or halves the bracket (a wide bracket in the logarithm of time).
_MOST_STEPS = 200
#: Ratio of the ends of a bracket above which it is halved in the logarithm of time.
_WIDE = 16
#: Smallest time at which a root is searched, as a fraction of the bracket's end.
_LEAST = 2.0**-66


class Value(NamedTuple):
    """Value and slope of a function at some times."""

    value: Numbers
    slope: Numbers
    rounding: Numbers | float = 0.0  # bound of the rounding error of the value


class _Search(NamedTuple):
    """Carry of the search, arrays of one shape; the root lies between low and high.

    It includes the values of the function, so that all decisions of a step use the same numbers: the
    compiler may otherwise evaluate a function twice, with different rounding.
    """

    t: Numbers  # current time, and the result at the end
    at: Value  # the function at t
    low: Numbers
    high: Numbers
    step: Numbers  # length of the last step
    busy: Bool[Array, "..."]  # still searching
    count: int | Int[Array, ""]


def bracketed_root(
    function: Callable[[Numbers], Value],
    low: Numbers,
    high: Numbers,
    *,
    start: Numbers | None = None,
    rising: bool = False,
    required: Bool[Array, "..."] | bool = True,
) -> Numbers:
    """Return the time between `low` and `high` at which a function changes its sign, element by
    element.

    Newton's method, kept inside a shrinking bracket; if its steps do not shrink quickly, the
    bracket is halved. The search for an element ends when the bracket is as narrow as the precision of its ends,
    when the value is zero within its rounding error, or when a Newton step no longer changes the
    time. A single short step does not end it. The error is thus at most 2 ulp of the root, or the
    uncertainty of the root due to rounding of the function.

    Args:
        function: maps times to values. If it has the same sign at both ends of the bracket, the
            result is some time between them.
        low: lower end of the bracket, seconds, at least 0.
        high: upper end of the bracket, seconds.
        start: initial guess; by default the middle of the bracket.
        rising: whether the function is known to be below zero before its root, so that it need not
            be evaluated at `low`.
        required: elements whose root is required; the search does not wait for the others.
    """
    above = True if rising else function(low).value <= 0

    def unfinished(search: _Search) -> Bool[Array, ""]:
        return any_in(search.busy) & (search.count < _MOST_STEPS)

    begin = _middle(low, high) if start is None else start
    shape = jnp.broadcast_shapes(begin.shape, low.shape, high.shape)
    low, high, begin = (jnp.broadcast_to(array, shape) for array in (low, high, begin))
    # Comparisons with NaN are false, so that NaN ends the search at once.
    busy = required & (begin >= low) & (begin <= high)
    search = _Search(
        t=begin,
        at=_spread(function(begin), begin),
        low=low,
        high=high,
        step=2 * (high - low),
        busy=busy,
        count=0,
    )
    step = partial(_closer, function, above)
    return lax.while_loop(unfinished, step, match_device_axes(search, above)).t


def _closer(
    function: Callable[[Numbers], Value], above: Bool[Array, "..."] | bool, search: _Search
) -> _Search:
    """Perform one step of the search.

    Args:
        above: the function rises through zero.
    """
    t = search.t
    eps = jnp.finfo(t.dtype).eps
    value, slope, rounding = search.at
    before = (value <= 0) == above  # t lies before the root, or on it
    low = jnp.where(before, t, search.low)
    high = jnp.where(before, search.high, t)
    towards = (slope > 0) == above  # whether Newton's step points from t to the root
    step = -value / jnp.where(slope == 0, 1.0, slope)
    newton = t + step
    inside = towards & (newton >= low) & (newton <= high)
    stands = towards & (abs(step) <= 2 * eps * t)
    narrow = high - low <= 2 * eps * high
    converged = (abs(value) <= rounding) | narrow | stands
    fast = inside & (abs(step) <= 0.5 * search.step)
    # On convergence a last Newton step, if it stays inside, removes the remaining error.
    halved = jnp.where(converged, t, _middle(low, high))
    after = jnp.where(jnp.where(converged, inside, fast), newton, halved)
    after = jnp.where(search.busy, after, t)
    return _Search(
        t=after,
        at=_spread(function(after), after),
        low=low,
        high=high,
        step=abs(after - t),
        busy=search.busy & ~converged,
        count=search.count + 1,
    )


def _spread(at: Value, t: Numbers) -> Value:
    """Broadcast a value to the shape and the type of the times."""
    zero = jnp.zeros_like(t)
    return Value(*(part + zero for part in at))


def _middle(low: Numbers, high: Numbers) -> Numbers:
    """Return the middle of a bracket; the geometric mean for a wide one, so that a root at 1e-9 of
    its end takes no more steps than any other.
    """
    tiny = jnp.finfo(high.dtype).tiny
    floor = jnp.maximum(low, jnp.maximum(_LEAST * high, tiny))
    return jnp.where(high > _WIDE * floor, jnp.sqrt(floor) * jnp.sqrt(high), 0.5 * (low + high))
