"""Units of time.

Inside, every time is a float in SI seconds; units appear only where text comes in or goes out.
"""

from __future__ import annotations

import math
import re
from typing import Any

from jaxsnn.errors import UsageError, as_number, shown
from jaxsnn.wording import Option, Shown, Text

#: Seconds in one unit.
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}

_ALIASES = {"": "s", "sec": "s", "µs": "us", "μs": "us"}
_TIME = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([A-Za-zµμ]*)\s*")


def parse_time(text: str | float) -> float:
    """Parse a positive time in seconds, from text with a unit, or a plain number of seconds.

    Raises:
        UsageError: the text is not a time, its unit is unknown, or the time is not positive and
            finite.

    >>> parse_time("10ms"), parse_time("6 us"), parse_time("1e-4"), parse_time(0.5)
    (0.01, 6e-06, 0.0001, 0.5)
    """
    match = _TIME.fullmatch(text if isinstance(text, str) else repr(as_number(text)))
    if match is None:
        raise UsageError(
            f"'{text}' is not a time" if isinstance(text, str) else f"{shown(text)} is not a time",
            fix="pass a number with a unit, such as 10ms, or a number of seconds, such as 1e-4",
        )
    number, unit = match.groups()
    unit = _ALIASES.get(unit, unit)
    if unit not in SECONDS:
        raise UsageError(
            f"'{text}' has the unknown unit '{unit}'", fix=f"use one of {', '.join(SECONDS)}"
        )
    # Division by a power of ten rounds once ("6us" is exactly 6e-6), a product with its inverse
    # twice.
    seconds = float(number) / round(1 / SECONDS[unit])
    if not (math.isfinite(seconds) and seconds > 0):
        raise UsageError(
            f"'{text}' is not a positive, finite time", fix="pass a positive time, such as 10ms"
        )
    return seconds


def parse_time_unit(value: str | float, option: str = "time_unit") -> float:
    """Parse the unit of the times of some data in seconds: a time as in `parse_time`, such as "1us".

    Args:
        option: name of the unit, for the message.

    Raises:
        UsageError: the value is not a time; a unit without a number is none.

    >>> parse_time_unit("1us"), parse_time_unit("10 ms"), parse_time_unit(1e-3)
    (1e-06, 0.01, 0.001)
    """
    try:
        return parse_time(value)
    except UsageError as error:
        example = '"1us"'
        if isinstance(value, str) and _ALIASES.get(value.strip(), value.strip()) in SECONDS:
            example = f'"1{value.strip()}"'
        raise UsageError(
            Text("{option} is {value}, which is not a time", option=option, value=shown(value)),
            fix=Text(
                "pass a positive number with a unit ({units}), such as {example}, or seconds",
                units=", ".join(SECONDS),
                example=example,
            ),
        ) from error


def refuse_no_time(seconds: object, option: Option | str) -> None:
    """Refuse a time that is not positive and finite, or not a number.

    Args:
        option: option or name of the time, for the message.

    Raises:
        UsageError: the time is not positive and finite.
    """
    if not 0 < as_number(seconds) < math.inf:
        fix = "pass a positive, finite time in seconds"
        message = Text("{option} is {seconds} s", option=option, seconds=shown(seconds))
        raise UsageError(message, fix=fix)


#: Time constants in seconds above the first and up to the second value were probably meant in
#: milliseconds: those of neurons are shorter, those of integrators longer.
MILLISECONDS_MISTAKEN = (1.0, 1000.0)


def look_like_milliseconds(seconds: Any) -> Any:
    """Return for each time constant whether it was probably meant in milliseconds.

    >>> look_like_milliseconds(20.0), look_like_milliseconds(0.02), look_like_milliseconds(1e6)
    (True, False, False)
    """
    lowest, highest = MILLISECONDS_MISTAKEN
    return (seconds > lowest) & (seconds <= highest)


def format_time(seconds: float) -> Shown:
    """Return a time for people, in the largest unit that leaves a number of at least 1.

    >>> format_time(0.01), format_time(1e-4), format_time(2.5), format_time(0.0)
    ('10 ms', '100 us', '2.5 s', '0 s')
    """
    if seconds == 0 or not math.isfinite(seconds):
        return Shown(f"{seconds:g} s", seconds)
    for unit, size in SECONDS.items():
        # With the tolerance, 0.00099999999 is shown as 1 ms.
        if abs(seconds) >= size * (1 - SECONDS["ns"]) or unit == "ns":
            return Shown(f"{seconds / size:.6g} {unit}", seconds)
    raise AssertionError("the loop ends at ns")
