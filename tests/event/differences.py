"""Gradients against central differences of many parameters at once."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

#: The smaller step, which sees less of the curvature near a tangential crossing and more of the rounding, is taken only
#: where the larger one does not do.
STEPS = (1e-5, 1e-6)
ENOUGH = 1e-5


@cache
def _many(function):
    def many(trees, fixed):
        return jax.vmap(lambda tree: function(tree, *fixed))(trees)

    return jax.jit(many, compiler_options={"xla_backend_optimization_level": 0})  # it runs a few times only


def central_differences(function, tree, *fixed, step):
    """Derivatives of a function of a pytree by each entry, with Richardson's extrapolation; nan where counts change.

    `function` maps (pytree, *fixed) to (value, counts); where counts (any pytree) change within the step there is no
    derivative. It is compiled once for all calls.
    """
    flat, unravel = ravel_pytree(tree)
    directions = step * np.eye(flat.size)
    points = jnp.concatenate([flat + factor * directions for factor in (-2, -1, 1, 2)])
    values, counts = _many(function)(jax.vmap(unravel)(points), fixed)
    values = np.asarray(values).reshape(4, flat.size)
    far, near = (values[3] - values[0]) / (4 * step), (values[2] - values[1]) / (2 * step)
    same = np.full(flat.size, True)
    for leaf in jax.tree.leaves(counts):
        leaf = np.asarray(leaf).reshape(4, flat.size, -1)
        same &= (leaf == leaf[:1]).all(axis=(0, 2))
    return np.where(same, (4 * near - far) / 3, np.nan)


def relative_errors(gradient, function, tree, *fixed):
    """Errors of the entries of a gradient of `function` (see `central_differences`), nan where there is no derivative.

    Entries that are less than a thousandth of the largest one of their array are taken relative to that.
    """
    scale = jax.tree.map(lambda array: jnp.maximum(abs(array), 1e-3 * jnp.max(abs(array), initial=0.0)), gradient)
    flat, scale = (np.asarray(ravel_pytree(part)[0]) for part in (gradient, scale))
    best = np.full(flat.shape, np.nan)
    for step in STEPS:
        estimates = central_differences(function, tree, *fixed, step=step)
        best = np.fmin(best, abs(estimates - flat) / np.where(scale == 0, 1.0, scale))
        if (best < ENOUGH).all():
            break
    return best
