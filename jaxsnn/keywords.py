"""Errors for misspelt keyword arguments of public functions and classes, with the nearest name; names of
options in tables.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from jaxsnn.errors import UsageError, suggestion
from jaxsnn.wording import Text

Target = TypeVar("Target", bound=Callable[..., Any])


class UnknownKeywordError(UsageError, TypeError):
    """Error for a keyword argument that a function does not have."""


def suggests_keywords(target: Target) -> Target:
    """Replace Python's error for an unknown keyword argument by one that suggests the right name.

    A decorator of functions and of classes; their signatures stay the same.

    >>> @suggests_keywords
    ... def run(*, t_end):
    ...     return t_end
    >>> run(tend=1.0)
    Traceback (most recent call last):
        ...
    jaxsnn.keywords.UnknownKeywordError: run has no argument 'tend': did you mean 't_end'? Available: t_end
    """
    decorated: Any = target
    is_class = isinstance(target, type)
    decorated_name = decorated.__name__
    function = decorated.__init__ if is_class else decorated

    @functools.wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        try:
            return function(*arguments, **keywords)
        except TypeError:
            accepted = _keywords_of(function)
            if accepted is None or set(keywords) <= set(accepted):
                raise
            unknown = next(name for name in keywords if name not in accepted)
        raise UnknownKeywordError(
            Text("{function} has no argument '{name}'", function=decorated_name, name=unknown),
            fix=suggestion(unknown, accepted) if accepted else "leave it out",
        )

    if is_class:
        decorated.__init__ = call
    else:
        decorated = call
    return decorated


def _keywords_of(function: Callable[..., Any]) -> list[str] | None:
    """Return the keyword arguments of a function; None if it takes any."""
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [
        parameter.name
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and parameter.name != "self"
    ]


def with_underscores(table: Mapping[str, Any], table_name: str) -> dict[str, Any]:
    """Return a table with "_" for "-" in its names.

    Args:
        table_name: name of the table in messages.

    Raises:
        UsageError: two names of the table differ in this only.

    >>> with_underscores({"late-weight": 0.1}, "loss_options")
    {'late_weight': 0.1}
    """
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name in values:
            raise UsageError(
                Text(
                    "{table} has {name} twice, with '-' and with '_'", table=table_name, name=name
                ),
                fix="set it once",
            )
        values[name] = value
    return values
