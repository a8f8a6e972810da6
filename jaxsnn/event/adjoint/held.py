"""Numbers that are constant for first derivatives, but not for second derivatives.

The derivative of the maximum of V is that of V at the time of the maximum, with this time held
constant. But the time moves when parameters change, and with it the derivative. So `held` is a
`jax.lax.stop_gradient` that refuses to be differentiated twice.
"""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jaxsnn.errors import UsageError
from jaxsnn.network.array_types import Array, Float
from jaxsnn.network.promotion import usual_promotion

Tree = TypeVar("Tree")


def held(tree: Tree) -> Tree:
    """Return the same arrays with zero derivative.

    Raises:
        UsageError: at a second derivative.
    """

    def hold_leaf(leaf: Any) -> Any:
        # Integers and booleans have no derivative.
        floating = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        return _held(leaf) if floating else leaf

    return jax.tree.map(hold_leaf, tree)


# The first derivative is zero. Its primal output passes through `_held_once`, so that a second
# differentiation calls the rule of that function, which raises.
@jax.custom_jvp
def _held(array: Float[Array, "..."]) -> Float[Array, "..."]:
    return array


@_held.defjvp
@usual_promotion
def _(
    primals: tuple[Float[Array, "..."]], tangents: tuple[Any]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    del tangents
    return _held_once(*primals), jnp.zeros_like(*primals)


@jax.custom_jvp
def _held_once(array: Float[Array, "..."]) -> Float[Array, "..."]:
    return array


@_held_once.defjvp
@usual_promotion
def _(primals: tuple[Float[Array, "..."]], tangents: tuple[Any]) -> Any:
    del primals, tangents
    raise UsageError(
        "second derivatives of a maximum or an integral are not supported, only first derivatives",
        fix="use finite differences of first derivatives",
    )
