"""Gradients against central differences of many parameters at once."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

#: Steps of differences. A larger step is less affected by rounding, a smaller one by the curvature
#: near a tangential crossing; each is used only if the steps before are not accurate enough.
STEPS = (1e-5, 1e-4, 1e-6)
ENOUGH = 1e-5


@cache
def _many(function):
    def many(trees, fixed):
        return jax.vmap(lambda tree: function(tree, *fixed))(trees)

    return jax.jit(
        many, compiler_options={"xla_backend_optimization_level": 0}
    )  # fast to compile, for a few runs


def central_differences(function, tree, *fixed, step):
    """Derivatives of a function of a pytree by each entry, with Richardson's extrapolation; nan
    where counts change.

    `function` maps (pytree, *fixed) to (value, counts); where counts (any pytree) change within the
    step there is no derivative. It is compiled once for all calls.
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
    """Errors of the entries of a gradient of `function` (see `central_differences`), nan where
    there is no derivative.

    Entries that are less than a thousandth of the largest one of their array are taken relative to
    that.
    """
    scale = jax.tree.map(
        lambda array: jnp.maximum(abs(array), 1e-3 * jnp.max(abs(array), initial=0.0)), gradient
    )
    flat, scale = (np.asarray(ravel_pytree(part)[0]) for part in (gradient, scale))
    best = np.full(flat.shape, np.nan)
    for step in STEPS:
        estimates = central_differences(function, tree, *fixed, step=step)
        best = np.fmin(best, abs(estimates - flat) / np.where(scale == 0, 1.0, scale))
        if (best < ENOUGH).all():
            break
    return best


def some_relative_errors(function, tree, rng, per_leaf):
    """Errors of some entries of each array's gradient, one entry after the other: for functions
    that are slow.

    `function` maps a pytree to (value, counts). Entries at which counts change are left out.
    """
    (_, before), gradient = jax.jit(jax.value_and_grad(function, has_aux=True))(tree)
    run, (leaves, structure) = jax.jit(function), jax.tree.flatten(tree)
    errors = []
    for number, (leaf, slope) in enumerate(zip(leaves, jax.tree.leaves(gradient), strict=True)):
        scale = 1e-3 * float(jnp.max(abs(slope), initial=0.0))
        for place in rng.choice(leaf.size, min(leaf.size, per_leaf), replace=False):
            expected = float(slope.reshape(-1)[place])
            best = np.nan
            for step in STEPS:
                values, same = [], True
                for factor in (-2, -1, 1, 2):
                    moved = leaf.reshape(-1).at[place].add(factor * step).reshape(leaf.shape)
                    value, counts = run(
                        jax.tree.unflatten(
                            structure, [*leaves[:number], moved, *leaves[number + 1 :]]
                        )
                    )
                    values.append(float(value))
                    same &= all(
                        map(np.array_equal, jax.tree.leaves(counts), jax.tree.leaves(before))
                    )
                near, far = (
                    (values[2] - values[1]) / (2 * step),
                    (values[3] - values[0]) / (4 * step),
                )
                error = abs((4 * near - far) / 3 - expected) / (max(abs(expected), scale) or 1.0)
                best = np.fmin(best, error if same else np.nan)
                if best < ENOUGH:
                    break
            errors.append(best)
    return np.array(errors)[~np.isnan(errors)]
