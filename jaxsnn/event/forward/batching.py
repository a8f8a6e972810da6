"""Loops under `jax.vmap`."""

import jax.numpy as jnp
from jax.custom_batching import custom_vmap


@custom_vmap
def anywhere(condition):
    """Whether an array of booleans is true anywhere, under `jax.vmap` in the whole batch.

    For the condition of a loop whose body leaves alone what has finished. With `jnp.any`, each
    member of the batch would have a condition of its own, and JAX would then copy everything that
    the loop carries, in every step.
    """
    return jnp.any(condition)


@anywhere.def_vmap
def _(axis_size, in_batched, condition):
    return anywhere(condition), False
