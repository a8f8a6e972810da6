"""Which gradients are asked for: what nobody asks for is neither computed nor compiled.

Rules of derivatives that are defined with `symbolic_zeros=True` see of each argument whether it is
perturbed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax


class Wanted(NamedTuple):
    """What is asked for beside the gradient by the weights."""

    lanes: bool = True
    time: bool = True


def _is_primal(leaf: Any) -> bool:
    return hasattr(leaf, "perturbed")


def values_of(given: Any) -> Any:
    """Arguments that know whether they are perturbed, as plain arrays."""
    return jax.tree.map(lambda leaf: leaf.value, given, is_leaf=_is_primal)


def is_perturbed(tree: Any) -> bool:
    """Whether a derivative by any part of an argument is asked for."""
    return any(leaf.perturbed for leaf in jax.tree.leaves(tree, is_leaf=_is_primal))
