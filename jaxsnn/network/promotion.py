"""JAX's usual rules of promotion for the engines' own arithmetic, whatever the program around them has
asked for: `jax.numpy_rank_promotion("raise")` and `jax.numpy_dtype_promotion("strict")` are about its
own. Rules of derivatives are traced when the program differentiates, and need that for themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import jax

Given = ParamSpec("Given")
Found = TypeVar("Found")


def usual_promotion(function: Callable[Given, Found]) -> Callable[Given, Found]:
    """Wrap a function so that it runs, or is traced, under the standard promotion rules."""

    @wraps(function)
    def under_usual(*arguments: Given.args, **named: Given.kwargs) -> Found:
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            return function(*arguments, **named)

    return under_usual
