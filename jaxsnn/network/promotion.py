"""JAX's standard promotion rules for the arithmetic of the engines, whichever rules the user's program
sets.

`jax.numpy_rank_promotion("raise")` and `jax.numpy_dtype_promotion("strict")` are meant for the user's
own arithmetic. Derivative rules are traced later, when the program differentiates, so that they have
to be wrapped separately.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import jax

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")


def usual_promotion(function: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """Wrap a function so that it runs, or is traced, under the standard promotion rules."""

    @wraps(function)
    def under_usual(*arguments: Parameters.args, **keywords: Parameters.kwargs) -> Returned:
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            return function(*arguments, **keywords)

    return under_usual
