"""Arrays over the devices of a mesh.

Inside `jax.shard_map` the type of an array specifies the axes of the mesh over which it varies. The
carry of a loop must vary like the result of the loop's body, but constants vary over no axis. The
engines therefore apply `match_device_axes` to initial carries, and to the arguments of their derivative
rules.

On a mesh with explicit axes the type of an array specifies its layout. The engines gather, sort and
reshape the rows of a batch: `by_compiler` leaves the layout to the compiler while they do so, and
specifies the layout of the results.

Both functions have no effect elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

Tree = TypeVar("Tree")
Result = TypeVar("Result")
#: Keys from the root of a tree to one of its arrays.
Path = tuple[Any, ...]
_AXES = 2  # the sample axis of a result, if any, is one of this many first axes


# ---- inside shard_map


def match_device_axes(tree: Tree, *others: Any) -> Tree:
    """Return a tree whose arrays vary over all mesh axes over which any array of the tree or of
    `others` varies.
    """
    arrays = jax.tree.leaves((tree, others))
    axes = frozenset[str]().union(*map(_varying, arrays))
    if not axes:
        return tree

    def cast(array: Any) -> Any:
        missing = tuple(sorted(axes - _varying(array)))
        return lax.pcast(array, missing, to="varying") if missing else array

    return jax.tree.map(cast, tree)


def _varying(array: Any) -> frozenset[str]:
    """Return the axes of the mesh over which an array varies."""
    kind = jax.typeof(array)
    manual = getattr(kind, "manual_axis_type", None)
    # the documentation, and versions that are not supported, have `vma` instead
    return getattr(kind, "vma", frozenset()) if manual is None else manual.varying


# ---- on a mesh with explicit axes


def by_compiler(
    function: Callable[..., Result],
    *arguments: Any,
    samples: Any,
    axis: int = 0,
    axis_of: Callable[[Path, Any], int | None],
) -> Result:
    """Return the result of a function, with the compiler deciding the layout of arrays on a mesh.

    Args:
        arguments: trees of arrays.
        samples: an array over samples; results are laid out like it.
        axis: sample axis of `samples`.
        axis_of: function of an array of the result and its path that returns the sample axis of the
            array, or None if it has none.
    """
    mesh = jax.typeof(samples).sharding.mesh
    mesh = jax.sharding.get_abstract_mesh() if mesh.empty else mesh
    if not mesh.explicit_axes:
        return function(*arguments)
    spec = jax.typeof(samples).sharding.spec
    over = spec[axis] if axis < len(spec) else None
    trees = []

    def by_axis(*arguments: Any) -> dict[int, list[Any]]:
        """Return the arrays of the result by their batch axis; -1: they have none."""
        pairs, tree = jax.tree_util.tree_flatten_with_path(function(*arguments))
        axes = [axis_of(path, array) for path, array in pairs]
        order = [-1 if axis is None else axis for axis in axes]
        trees.append((tree, order))
        return {
            axis: [array for place, (_, array) in zip(order, pairs, strict=True) if place == axis]
            for axis in range(-1, _AXES)
        }

    layouts = {
        axis: NamedSharding(mesh, PartitionSpec(*[None] * axis, *([over] if axis >= 0 else [])))
        for axis in range(-1, _AXES)
    }
    laid_out = jax.sharding.auto_axes(by_axis, axes=mesh.explicit_axes, out_sharding=layouts)
    arrays_by_axis = {axis: iter(arrays) for axis, arrays in laid_out(*arguments).items()}
    tree, order = trees[-1]
    return jax.tree.unflatten(tree, [next(arrays_by_axis[axis]) for axis in order])


def first_axis(path: Path, array: Any) -> int:
    """Return batch axis 0, for a result with the batch axis first in all arrays."""
    del path, array
    return 0
