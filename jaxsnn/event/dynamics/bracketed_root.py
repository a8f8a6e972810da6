"""The root of a function between two times at which it has different signs, to the last digits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

Numbers = Float[Array, "..."]

#: Every second step halves the bracket at least, so that this many are always enough.
_MOST_STEPS = 200


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

    def unfinished(state: Any) -> Bool[Array, ""]:
        _, low, high, _, count = state
        return jnp.any(high - low > 2 * eps * high) & (count < _MOST_STEPS)

    def body(state: Any) -> Any:
        t, low, high, mark, count = state
        value, slope = function(t)
        before = (value <= 0) == above  # t lies before the root, or on it
        low, high = jnp.where(before, t, low), jnp.where(before, high, t)
        low, high = jnp.where(value == 0, t, low), jnp.where(value == 0, t, high)
        # A little beyond the root, so that the bracket closes from the other side, too.
        beyond = jnp.where(before, 2 * eps, -2 * eps) * t
        newton = t - value / jnp.where(slope == 0, 1.0, slope) + beyond
        # Looked at in every second step: has the bracket been halved since?
        looks = count % 2 == 0
        stalled = looks & (high - low > 0.5 * mark)
        mark = jnp.where(looks, high - low, mark)
        usable = (slope != 0) & (newton > low) & (newton < high) & ~stalled
        return jnp.where(usable, newton, 0.5 * (low + high)), low, high, mark, count + 1

    state = 0.5 * (low + high), low, high, 2 * (high - low), 0
    return lax.while_loop(unfinished, body, state)[0]
