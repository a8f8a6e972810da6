"""Values of options: their conversion from text, or from TOML values, and checks of their ranges."""

from __future__ import annotations

import functools
import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from jaxsnn.errors import UsageError, as_number, refuse_seed, shown, suggestion
from jaxsnn.keywords import with_underscores
from jaxsnn.units import parse_time
from jaxsnn.wording import Option, Text

# Conversions of text and TOML values; the message of a `ValueError` is advice


def text(value: Any) -> str:
    """Return a name or a path as text.

    Raises:
        ValueError: anything else than text or a number.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("pass a number or a name")
    return str(value)


def integer(value: Any) -> int:
    """Return an integer."""
    if isinstance(value, bool | float) or not isinstance(value, str | int):
        raise ValueError("pass an integer")
    try:
        return int(value)
    except ValueError:
        raise ValueError("pass an integer") from None


def number(value: Any) -> float:
    """Return a float."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("pass a number")
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise ValueError("pass a number") from None


def duration(value: Any) -> float:
    """Return a time in seconds."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("pass a time, such as 40ms")
    return parse_time(value)


def switch(value: Any) -> bool:
    """Return a boolean."""
    if not isinstance(value, bool):
        raise ValueError("pass true or false")
    return value


def name_list(value: Any) -> tuple[str, ...] | Mapping[str, Any]:
    """Return names as a tuple, from text with commas or a list; return a mapping unchanged."""
    if isinstance(value, Mapping):
        return value
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise ValueError("pass names separated by commas")
    return tuple(part.strip() for part in parts if part.strip())


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a table of a configuration file; a flag cannot hold one."""
    if not isinstance(value, Mapping):
        raise ValueError("write a table")
    return value


def factors(value: Any) -> float | dict[str, float]:
    """Return one number, or numbers by population: from "2", "hidden:1.5,output:4", or a table."""
    if isinstance(value, str) and ":" in value:
        pairs = [part.rpartition(":") for part in value.split(",") if part.strip()]
        populations = [name.strip() for name, _, _ in pairs]
        if len(set(populations)) < len(populations):
            raise ValueError("specify each population once")
        value = dict(zip(populations, (factor for _, _, factor in pairs), strict=True))
    pairs = value if isinstance(value, Mapping) else {"": value}
    try:
        numbers = {name: number(factor) for name, factor in pairs.items()}
    except ValueError:
        fix = "pass one factor, or NODE:FACTOR for each population, separated by commas"
        raise ValueError(fix) from None
    return numbers if isinstance(value, Mapping) else numbers[""]


def by_name(value: Any) -> dict[str, float]:
    """Return numbers by name, from "weight:0.1,v_threshold:0.05" or a table."""
    fix = "pass NAME:NUMBER pairs separated by commas, such as weight:0.1,v_threshold:0.05"
    if not isinstance(value, Mapping) and not (isinstance(value, str) and ":" in value):
        raise ValueError(fix)
    try:
        numbers = factors(value)
    except ValueError:
        raise ValueError(fix) from None
    assert isinstance(numbers, Mapping)
    return numbers


# Checks of ranges: functions of the option, for messages, and of a value that is not None


def _is(option: Option | str, value: Any) -> Text:
    return Text("{option} is {value}", option=option, value=value)


def at_least(least: int, most: float = math.inf) -> Callable[[Option | str, Any], None]:
    """Return the check of an integer against a lower and an upper bound."""

    def check(option: Option | str, value: Any) -> None:
        is_integer = hasattr(value, "__index__") and not isinstance(value, bool)
        if not is_integer:
            fix = f"pass an integer of at least {least}"
            kind = type(value).__name__  # 2.0 is shown as 2
            raise UsageError(
                _is(option, Text("{value}, of type {kind}", value=shown(value), kind=kind)), fix=fix
            )
        if not value >= least:
            raise UsageError(_is(option, value), fix=f"pass at least {least}")
        if value > most:
            raise UsageError(_is(option, value), fix=f"pass at most {most}")

    return check


def positive(option: Option | str, value: Any) -> None:
    """Refuse a number that is not positive and finite."""
    number = as_number(value)
    if not (math.isfinite(number) and number > 0):
        raise UsageError(_is(option, shown(value)), fix="pass a positive, finite number")


def fraction(option: Option | str, value: Any) -> None:
    """Refuse a number below 0, or of 1 or more."""
    if not 0 <= as_number(value) < 1:
        raise UsageError(_is(option, shown(value)), fix="pass a number of at least 0 and below 1")


def between(option: Option | str, value: Any) -> None:
    """Refuse a number outside 0 to 1, both excluded."""
    if not 0 < as_number(value) < 1:
        raise UsageError(_is(option, shown(value)), fix="pass a number between 0 and 1")


def one_of(accepted: Iterable[str]) -> Callable[[Option | str, Any], None]:
    """Return the check of a name; a value that is not text passes."""

    def check(option: Option | str, value: Any) -> None:
        if isinstance(value, str) and value not in accepted:
            raise UsageError(
                _is(option, Text("'{value}'", value=value)), fix=suggestion(value, accepted)
            )

    return check


def table(option: Option | str, value: Any) -> None:
    """Refuse a value that is not a mapping with text as keys."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise UsageError(_is(option, repr(value)), fix="pass a mapping from names to values")


_TUPLE = "pass a tuple of objects or functions, (NAME(...),) or (NAME,)"


def several(option: Option | str, value: Any) -> None:
    """Refuse a value that is not a tuple or list of callables, or that holds classes."""
    for item in value if isinstance(value, tuple | list) else (None,):
        if isinstance(item, type) or not callable(item):
            raise UsageError(_is(option, repr(value)), fix=_TUPLE)


def functions_of_one_argument(option: Option | str, value: Any) -> None:
    """Refuse a value that is not a tuple or list of callables of one positional argument."""
    several(option, value)
    for function in value:
        try:
            inspect.signature(function).bind(None)
        except TypeError as error:
            name = getattr(function, "__name__", type(function).__name__)
            raise UsageError(
                Text(
                    "{option}: '{function}' cannot be called with one argument ({error})",
                    option=option,
                    function=name,
                    error=str(error),
                ),
                fix="pass functions of one argument, the report on an epoch",
            ) from error
        except ValueError:  # Python does not know the signature of some built-in functions
            continue


def called(
    *instead: type, needs: Iterable[str] = (), accepted: Iterable[str] | None = None
) -> Callable[[Option | str, Any], None]:
    """Return the check of a callable, such as a function, that is not a class.

    Args:
        instead: types whose values are also accepted.
        needs: required attributes of the callable.
        accepted: allowed names; None: names are checked elsewhere, or by `instead`.
    """

    def check(option: Option | str, value: Any) -> None:
        if accepted is not None:
            one_of(accepted)(option, value)
        if isinstance(value, instead):
            return
        lacks = not callable(value) or not all(hasattr(value, attribute) for attribute in needs)
        if isinstance(value, type):
            fix = f"pass an instance, {value.__name__}(...)"
            raise UsageError(_is(option, Text("the class {type}", type=value.__name__)), fix=fix)
        if lacks:
            has = f" with the attributes {', '.join(needs)}" if needs else ""
            raise UsageError(_is(option, shown(value)), fix=f"pass a callable object{has}")

    return check


def seed_check(option: Option | str, value: Any) -> None:
    """Refuse a value that is neither a valid seed of a JAX key nor a key."""
    if isinstance(value, int):
        refuse_seed(value, option)
    else:
        from jaxsnn.nir.initializers import seed_words

        words = seed_words(value, option)
        if len(words) == 1:
            refuse_seed(words[0], option)


#: Annotations of numeric fields.
_NUMBERS = ("float", "int", "float | None", "int | None")


def replace_fields(record: Any, table: Mapping[str, Any], table_name: str) -> Any:
    """Return a record with some fields replaced, by name, with "-" or "_"; former names are accepted
    with a warning.

    Args:
        table_name: name of the table in messages.

    Raises:
        UsageError: a field that the record does not have, or that the table has in two spellings, or
            text for a numeric field.
    """
    types = {field.name: str(field.type) for field in fields(record)}
    values = with_underscores(table, table_name)
    values = current_names(values, getattr(record, "former_fields", {}), table_name)
    for name, value in values.items():
        if name not in types:
            raise UsageError(
                Text("{table} has no field '{name}'", table=table_name, name=name),
                fix=suggestion(name, types),
            )
        if types[name] in _NUMBERS and isinstance(value, str):
            fix = "pass a number, not text; times are in seconds"
            raise UsageError(
                Text(
                    "{table}: {parameter} is {value!r}",
                    table=table_name,
                    parameter=name,
                    value=value,
                ),
                fix=fix,
            )
    return replace(record, **values)


# Names of earlier versions


def current_names(
    table: Mapping[str, Any], former_names: Mapping[str, str], table_name: str
) -> dict[str, Any]:
    """Return a table with current names for former ones, each with a `DeprecationWarning`.

    Args:
        former_names: current name by former name.
        table_name: name of the table in messages.

    Raises:
        UsageError: the table contains both names of a value.
    """
    current = dict(table)
    for former, name in former_names.items():
        if former not in current:
            continue
        if name in current:
            raise UsageError(
                Text(
                    "{table} contains both '{name}' and its former name '{former}'",
                    table=table_name,
                    name=name,
                    former=former,
                ),
                fix=f"remove '{former}'",
            )
        _warn_of_former_name(table_name, former, name)
        current[name] = current.pop(former)
    return current


def _warn_of_former_name(owner: str, former: str, name: str) -> None:
    message = f"{owner}: '{former}' is deprecated: use '{name}' instead"
    warnings.warn(message, DeprecationWarning, stacklevel=3)


class _FormerField:
    """Attribute with the former name of a field, which returns the value of the field."""

    def __init__(self, former: str, name: str) -> None:
        self.former, self.name = former, name

    def __get__(self, record: Any, record_type: type) -> Any:
        _warn_of_former_name(record_type.__name__, self.former, self.name)
        return getattr(record_type if record is None else record, self.name)


Record = TypeVar("Record", bound=type)


def accept_former_fields(**former_fields: str) -> Callable[[Record], Record]:
    """Return a decorator of dataclasses whose fields were renamed: their former names still work as
    keyword arguments and attributes, with a `DeprecationWarning`.

    Args:
        former_fields: current name by former name.
    """

    def decorate(record_type: Record) -> Record:
        initialise = record_type.__init__

        @functools.wraps(initialise)
        def __init__(self: Any, *args: Any, **values: Any) -> None:
            for former, name in former_fields.items():
                if former in values:
                    _warn_of_former_name(record_type.__name__, former, name)
                    # `dataclasses.replace` passes the current name, too, with the old value
                    values[name] = values.pop(former)
            initialise(self, *args, **values)

        record_type.__init__ = __init__  # pyright: ignore[reportAttributeAccessIssue]
        for former, name in former_fields.items():
            setattr(record_type, former, _FormerField(former, name))
        record_type.former_fields = former_fields  # pyright: ignore[reportAttributeAccessIssue]
        return record_type

    return decorate
