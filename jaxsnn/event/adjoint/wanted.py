"""Which gradients are asked for: what nobody asks for is neither computed nor compiled.

Rules of derivatives that are defined with `symbolic_zeros=True` see of each argument whether it is
perturbed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax


@jax.tree_util.register_static
@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is asked for beside the gradient by the weights: gradients by the lanes, by their time
    constants among them, and by the times of arrivals.
    """

    lanes: bool = True
    taus: bool = True
    time: bool = True

    @staticmethod
    def of(lanes: Any, time: Any) -> Wanted:
        """By arguments that know whether they are perturbed; the lanes have `tau_mem`, `tau_syn`."""
        taus = is_perturbed((lanes.tau_mem, lanes.tau_syn))
        return Wanted(lanes=is_perturbed(lanes), taus=taus, time=is_perturbed(time))


def _is_primal(leaf: Any) -> bool:
    return hasattr(leaf, "perturbed")


def values_of(given: Any) -> Any:
    """Arguments that know whether they are perturbed, as plain arrays."""
    return jax.tree.map(lambda leaf: leaf.value, given, is_leaf=_is_primal)


def is_perturbed(tree: Any) -> bool:
    """Whether a derivative by any part of an argument is asked for."""
    return any(leaf.perturbed for leaf in jax.tree.leaves(tree, is_leaf=_is_primal))
