"""Requested gradients: those that nobody requests are neither computed nor compiled.

Derivative rules that are defined with `symbolic_zeros=True` can see which arguments are perturbed.

JAX caches traced functions: a forward pass for each set of perturbed arguments, but for all of them
only one tree structure of residuals, that of the last trace. So the requested gradients must not be
part of this structure, or a backward pass would omit gradients that another pass did not request.
They are stored as the shape of an array.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxsnn.network.array_types import Array, Bool

#: `RequiredGradients` encoded as the shape of an array, to pass from a forward pass to its backward
#: pass: axes of length 0 or 1.
GradientFlags = Bool[Array, "constants taus time samples"]


@dataclass(frozen=True, kw_only=True)
class RequiredGradients:
    """Gradients that are required besides the gradient with respect to the weights: those with
    respect to the constants, to their time constants, to arrival times and to sample times.
    """

    constants: bool = True
    taus: bool = True
    time: bool = True
    samples: bool = False

    @staticmethod
    def of(constants: Any, time: Any, samples: Any = ()) -> RequiredGradients:
        """Return the required gradients, from arguments that carry whether they are perturbed; the
        constants have `tau_mem`, `tau_syn`.
        """
        taus = is_perturbed((constants.tau_mem, constants.tau_syn))
        return RequiredGradients(
            constants=is_perturbed(constants),
            taus=taus,
            time=is_perturbed(time),
            samples=is_perturbed(samples),
        )

    @property
    def gradient_flags(self) -> GradientFlags:
        """Flags encoded in the shape of an array, as a residual of the forward pass."""
        flags = self.constants, self.taus, self.time, self.samples
        return jnp.zeros(tuple(map(int, flags)), bool)

    @staticmethod
    def by(flags: GradientFlags) -> RequiredGradients:
        """Return the required gradients, decoded from `gradient_flags`."""
        constants, taus, time, samples = map(bool, flags.shape)
        return RequiredGradients(constants=constants, taus=taus, time=time, samples=samples)


def _is_primal(leaf: Any) -> bool:
    return hasattr(leaf, "perturbed")


def values_of(arguments: Any) -> Any:
    """Return plain arrays from arguments that carry whether they are perturbed."""
    return jax.tree.map(lambda leaf: leaf.value, arguments, is_leaf=_is_primal)


def is_perturbed(tree: Any) -> bool:
    """Return whether a derivative with respect to any part of an argument is required."""
    return any(leaf.perturbed for leaf in jax.tree.leaves(tree, is_leaf=_is_primal))
