"""Status of a run, for all engines, and access to solutions that failed."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax.core import Tracer

from jaxsnn.errors import UsageError, as_number, shown
from jaxsnn.network.array_types import Array, Bool, Int
from jaxsnn.wording import Text


class Result(enum.IntEnum):
    """Status of a finished run."""

    SUCCESS = 0
    BUDGET_EXHAUSTED = 1
    # 2 is no longer used: it marked runs in which voltages drove neurons
    NOT_FINITE = 3
    INVALID_INPUT = 4


def first_of(conditions: Sequence[tuple[Bool[Array, ""], Result]]) -> Int[Array, ""]:
    """Return the `Result` of the first condition that is true; success if none is."""
    holds, results = zip(*conditions, strict=True)
    codes = [jnp.int32(result) for result in results]
    return jnp.select(list(holds), codes, jnp.int32(Result.SUCCESS))


def refuse_several(result: Int[Array, "..."]) -> None:
    """Refuse a solution that holds several runs.

    Args:
        result: result of a solution.

    Raises:
        UsageError: the result has axes.
    """
    if shape := jnp.shape(result):
        raise UsageError(
            Text(
                "this solution contains several runs, combined by jax.vmap (shape {shape})",
                shape=shape,
            ),
            fix="evaluate it inside of the function that jax.vmap maps, or select one run: "
            "jax.tree.map(lambda x: x[0], solution)",
        )


def refuse_no_tau(tau: Any) -> None:
    """Refuse a time constant of a weighted sum over time that is not positive, or not a number.

    Args:
        tau: seconds, which may be traced; None: there is none.

    Raises:
        UsageError: the time constant is invalid; the message contains it.
    """
    if tau is not None and not isinstance(tau, Tracer) and not as_number(tau) > 0:
        raise UsageError(Text("tau is {tau}", tau=shown(tau)), fix="pass a positive tau in seconds")
