"""Central differences of many parameters at once."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

#: Small steps see the curvature near a tangential crossing less, and the rounding more: the best of them counts.
STEPS = (1e-5, 1e-6)


@cache
def _many(function):
    return jax.jit(lambda trees, fixed: jax.vmap(lambda tree: function(tree, *fixed))(trees))


def central_differences(function, tree, *fixed):
    """Derivatives of a function of a pytree by each entry, with Richardson's extrapolation.

    Args:
        function: (pytree, *fixed) -> (value, counts); where counts (any pytree) change within a step there is no
            derivative. Compiled once for all calls.

    Returns:
        (steps, entries): estimates, nan where counts change.
    """
    flat, unravel = ravel_pytree(tree)
    directions, steps = np.eye(flat.size), np.array(STEPS)[:, None]
    points = jnp.concatenate([flat + factor * step * directions for step in STEPS for factor in (-2, -1, 1, 2)])
    values, counts = _many(function)(jax.vmap(unravel)(points), fixed)
    values = np.asarray(values).reshape(len(STEPS), 4, flat.size)
    far, near = (values[:, 3] - values[:, 0]) / (4 * steps), (values[:, 2] - values[:, 1]) / (2 * steps)
    same = np.full(far.shape, True)
    for leaf in jax.tree.leaves(counts):
        leaf = np.asarray(leaf).reshape(len(STEPS), 4, flat.size, -1)
        same &= (leaf == leaf[:, :1]).all(axis=(1, 3))
    return np.where(same, (4 * near - far) / 3, np.nan)


def relative_errors(gradient, estimates):
    """Errors of the entries of a gradient, nan where there is no derivative.

    Entries that are less than a thousandth of the largest one of their array are taken relative to that.
    """
    scale = jax.tree.map(lambda array: jnp.maximum(abs(array), 1e-3 * jnp.max(abs(array), initial=0.0)), gradient)
    flat, scale = (np.asarray(ravel_pytree(tree)[0]) for tree in (gradient, scale))
    return np.fmin.reduce(abs(estimates - flat) / np.where(scale == 0, 1.0, scale))
