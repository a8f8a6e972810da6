"""Cross products of parameters, of which a share runs in `make test` and the rest in `make test-all`."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest


def thinned(every: int, *values: Sequence[Any]) -> list[Any]:
    """All combinations of several lists, for `parametrize`; those whose indices add up to a multiple
    of `every` are quick, the others slow.

    With `every` the length of a list, each combination of the others is quick with one of it.
    """
    return [
        pytest.param(*(value for _, value in combination), marks=() if quick else pytest.mark.slow)
        for combination in itertools.product(*map(enumerate, values))
        for quick in [sum(index for index, _ in combination) % every == 0]
    ]
