"""The root of a function between two times at which it has different signs, to the last digits."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int

from jaxsnn.event.event_arrays import Numbers

#: Every second step halves the bracket at least, so that this many are always enough.
_MOST_STEPS = 200


class _Search(NamedTuple):
    """Carry of the search, arrays of one shape; the root lies between low and high."""

    t: Numbers  # where the function is looked at next
    low: Numbers
    high: Numbers
    mark: Numbers  # how wide the bracket was when it was last checked
    count: int | Int[Array, ""]


def bracketed_root(
    function: Callable[[Numbers], tuple[Numbers, Numbers]], low: Numbers, high: Numbers
) -> Numbers:
    """The time between `low` and `high` at which a function changes its sign, element by element.

    Newton's method, kept inside a bracket that shrinks; where it does not come closer fast, the
    bracket is halved. It ends where the bracket is as narrow as its ends are exact, or the function
    is exactly zero.

    Args:
        function: times -> its values and derivatives. Where it has the same sign at both ends the
            result is some number between them.
    """
    above = function(high)[0] > 0  # its sign at the upper end
    eps = jnp.finfo(low.dtype).eps

    def unfinished(search: _Search) -> Bool[Array, ""]:
        wide = search.high - search.low > 2 * eps * search.high
        return jnp.any(wide) & (search.count < _MOST_STEPS)

    def body(search: _Search) -> _Search:
        t = search.t
        value, slope = function(t)
        before = (value <= 0) == above  # t lies before the root, or on it
        low = jnp.where(before, t, search.low)
        high = jnp.where(before, search.high, t)
        # An exact zero ends the search there: a bracket without width.
        exact = value == 0
        low = jnp.where(exact, t, low)
        high = jnp.where(exact, t, high)
        # A little beyond the root, so that the bracket closes from the other side, too.
        beyond = jnp.where(before, 2 * eps, -2 * eps) * t
        newton = t - value / jnp.where(slope == 0, 1.0, slope) + beyond
        # Checked in every second step: has the bracket been halved since?
        checks = search.count % 2 == 0
        stalled = checks & (high - low > 0.5 * search.mark)
        mark = jnp.where(checks, high - low, search.mark)
        usable = (slope != 0) & (newton > low) & (newton < high) & ~stalled
        middle = 0.5 * (low + high)
        t = jnp.where(usable, newton, middle)
        return _Search(t=t, low=low, high=high, mark=mark, count=search.count + 1)

    middle = 0.5 * (low + high)
    start = _Search(t=middle, low=low, high=high, mark=2 * (high - low), count=0)
    return lax.while_loop(unfinished, body, start).t
