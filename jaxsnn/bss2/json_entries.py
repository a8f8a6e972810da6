"""Reads JSON entry by entry: an entry of the wrong form raises an error of one line with the place
of the entry.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxsnn.errors import MappingError, suggestion
from jaxsnn.wording import Text

#: Advice for a mapping that cannot be read.
MAP_AGAIN = "map the file again"


class Entry:
    """Object of a JSON document, with its location and the fix for error messages.

    Args:
        keys: keys that the object may have; None for any.
    """

    def __init__(
        self,
        content: Any,
        location: str,
        fix: str = MAP_AGAIN,
        keys: Sequence[str] | None = None,
    ) -> None:
        if not isinstance(content, dict):
            raise MappingError(
                Text(
                    "{location} is {actual}, not an object",
                    location=location,
                    actual=_kind(content),
                ),
                fix=fix,
            )
        self.content, self.location, self.fix = content, location, fix
        for key in content if keys is not None else ():
            if key not in (keys or ()):
                raise MappingError(
                    Text("{location}: unknown key '{key}'", location=location, key=key),
                    fix=suggestion(key, keys or ()),
                )

    def value(self, key: str) -> Any:
        if key not in self.content:
            raise MappingError(
                Text("{location} has no '{key}'", location=self.location, key=key), fix=self.fix
            )
        return self.content[key]

    def _typed(self, key: str, kind: type, name: str) -> Any:
        value = self.value(key)
        if type(value) is not kind:
            raise MappingError(
                Text(
                    "{location}: '{key}' is {actual}, not {expected}",
                    location=self.location,
                    key=key,
                    actual=_kind(value),
                    expected=name,
                ),
                fix=self.fix,
            )
        return value

    def text(self, key: str) -> str:
        return self._typed(key, str, "text")

    def flag(self, key: str) -> bool:
        return self._typed(key, bool, "true or false")

    def integer(self, key: str) -> int:
        value = self._typed(key, int, "an integer")
        if not -_LARGEST <= value <= _LARGEST:
            raise MappingError(
                Text(
                    "{location}: '{key}' is {value}; the largest magnitude is {limit}",
                    location=self.location,
                    key=key,
                    value=value,
                    limit=_LARGEST,
                ),
                fix=self.fix,
            )
        return value

    def positive_number(self, key: str) -> float:
        value = self.value(key)
        if type(value) not in (int, float) or not 0 < value <= sys.float_info.max:
            raise MappingError(
                Text(
                    "{location}: '{key}' is {value!r}, not a positive number",
                    location=self.location,
                    key=key,
                    value=value,
                ),
                fix=MAP_AGAIN,
            )
        return float(value)

    def positive_numbers(self) -> dict[str, float]:
        """Return all values, checked to be positive, finite numbers."""
        return {key: self.positive_number(key) for key in self.content}

    def entry(self, key: str, keys: Sequence[str] | None = None) -> Entry:
        return Entry(self.value(key), f"{self.location}: {key}", keys=keys)

    def entries(self, key: str, keys: Sequence[str]) -> list[Entry]:
        items = self._typed(key, list, "a list")
        return [
            Entry(item, f"{self.location}: {key}[{number}]", keys=keys)
            for number, item in enumerate(items)
        ]

    def array(self, key: str, shape: tuple[int, ...] | None) -> np.ndarray:
        return integers(self.value(key), shape, self.location, key)

    def pairs(self, key: str) -> tuple[tuple[int, int], ...]:
        items = self._typed(key, list, "a list")
        array = integers(items, (len(items), 2), self.location, key)
        return tuple((first, second) for first, second in array.tolist())


#: Largest number in a mapping.
_LARGEST = 2**31 - 1


def integers(value: Any, shape: tuple[int, ...] | None, location: str, key: str) -> np.ndarray:
    """Return integers of a shape (None: a list of any length)."""
    try:
        array = np.asarray(value) if value != [] else np.zeros((0, *(shape or (0,))[1:]), np.int64)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind != "i" or array.ndim != (1 if shape is None else len(shape)):
        raise MappingError(
            Text(
                "{location}: '{key}' is not a rectangular list of integers",
                location=location,
                key=key,
            ),
            fix=MAP_AGAIN,
        )
    if shape is not None and array.shape != shape:
        sizes = (
            " x ".join(str(size) for size in array.shape),
            " x ".join(str(size) for size in shape),
        )
        raise MappingError(
            Text(
                "{location}: '{key}' has {actual} entries, not {expected}",
                location=location,
                key=key,
                actual=sizes[0],
                expected=sizes[1],
            ),
            fix=MAP_AGAIN,
        )
    if array.size and (array.min() < -_LARGEST or array.max() > _LARGEST):
        raise MappingError(
            Text(
                "{location}: '{key}' has a number of a magnitude above {limit}",
                location=location,
                key=key,
                limit=_LARGEST,
            ),
            fix=MAP_AGAIN,
        )
    return array


def _kind(value: Any) -> str:
    kind_names = {
        dict: "an object",
        list: "a list",
        str: "text",
        bool: "true or false",
        int: "an integer",
        float: "a number",
    }
    return kind_names.get(type(value), "null")
