"""What a refusal has: one line, the node, the code, and what to do."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from jaxsnn.errors import JaxsnnError, Problem


def assert_refused(
    call: Callable[[], Any],
    error: type[JaxsnnError],
    says: str = "",
    *,
    node: str | None = None,
    code: str | None = None,
    fix: str | None = "",
) -> Problem:
    """Return the problem of an error of one line with advice; fail unless a call raises it.

    Args:
        call: what is refused.
        error: its class.
        says: a regular expression for the line, with the numbers and as few other words as tell one
            refusal from another.
        node: whom it names.
        code: of the problem.
        fix: words of the advice; None where there is nothing to do that the line does not say.
    """
    with pytest.raises(error) as caught:
        call()
    problem, line = caught.value.problem, str(caught.value)
    assert re.search(says, line), line
    assert "\n" not in line
    if fix is None:
        assert not problem.fix
    else:
        assert problem.fix
        assert fix in problem.fix
    assert node in (None, problem.node)
    assert code in (None, problem.code)
    return problem
