"""Numbers that a first derivative rightly takes for constants, and a second one would wrongly.

The maximum of V has the derivative of V at the time of the maximum, that time held; but as
parameters change, the time moves, and with it that derivative. So `held` is a
`jax.lax.stop_gradient` that refuses to be differentiated twice.
"""

import jax
import jax.numpy as jnp

from jaxsnn.errors import UsageError


def held(tree):
    """The same arrays, which do not move with what they were computed from.

    Raises:
        UsageError: at a second derivative.
    """
    floating = lambda array: jnp.issubdtype(jnp.result_type(array), jnp.floating)  # noqa: E731
    return jax.tree.map(lambda array: _held(array) if floating(array) else array, tree)


@jax.custom_jvp
def _held(array):
    return array


@_held.defjvp
def _(primals, _):
    return _held_once(*primals), jnp.zeros_like(*primals)


@jax.custom_jvp
def _held_once(array):
    return array


@_held_once.defjvp
def _(primals, _):
    raise UsageError(
        "a second derivative of a maximum, an integral or a Threshold's crossing: exact are first derivatives only, "
        "take differences of those"
    )
