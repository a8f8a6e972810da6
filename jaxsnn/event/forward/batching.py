"""Loops under `jax.vmap`."""

from jax.custom_batching import custom_vmap

from jaxsnn.network.array_types import Array, Bool
from jaxsnn.network.reductions import any_in


@custom_vmap
def anywhere(condition: Bool[Array, "..."]) -> Bool[Array, ""]:
    """Return whether any entry of an array of booleans is true, under `jax.vmap` in the whole
    batch.

    Used for the condition of a loop whose body leaves finished members unchanged. With `jnp.any`,
    each member of the batch would have a separate condition, and JAX would then copy the whole
    carry of the loop in every step.
    """
    # Without vmap there is one member: reduce over all its axes.
    return any_in(condition)


@anywhere.def_vmap
def _(
    axis_size: int, in_batched: list[bool], condition: Bool[Array, "members ..."]
) -> tuple[Bool[Array, ""], bool]:
    # Reduce over the axis of the members, too: the result has no such axis (False).
    return anywhere(condition), False
