"""Times in and out, messages, and the examples of the docstrings."""

import doctest
import importlib
import pkgutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxsnn.nir
from jaxsnn import errors
from jaxsnn.errors import JaxsnnError, UsageError
from jaxsnn.units import format_time, parse_time

MODULES = [
    "jaxsnn.errors",
    "jaxsnn.units",
    *(module.name for module in pkgutil.walk_packages(jaxsnn.nir.__path__, "jaxsnn.nir.")),
]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10ms", 0.01),
        ("100us", 1e-4),
        ("6 us", 6e-6),
        ("6 µs", 6e-6),
        ("1e-4", 1e-4),
        ("2s", 2.0),
        (0.5, 0.5),
        (".5ms", 5e-4),
    ],
)
def test_times_are_parsed(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "ms", "1 2", "ten ms", "5 h", "-1ms", "0", "inf", "nan", float("nan"), 0, "1e400"]
)
def test_what_is_no_time_is_refused(text):
    with pytest.raises(UsageError) as caught:
        parse_time(text)
    assert "\n" not in str(caught.value)


@given(st.floats(1e-8, 1e4))
def test_times_survive_their_text(seconds):
    assert parse_time(format_time(seconds)) == pytest.approx(seconds, rel=1e-5)


def test_each_error_has_an_exit_code():
    classes = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, JaxsnnError)
    ]
    assert len(classes) > 5
    two = {cls.__name__ for cls in classes if cls.exit_code == 2}
    assert two == {"FileError", "UsageError"}
    assert {cls.exit_code for cls in classes} == {1, 2}


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0
