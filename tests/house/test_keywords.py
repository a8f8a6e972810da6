"""The keyword arguments that type checkers know are those that the functions accept."""

from dataclasses import fields

from jaxsnn.bss2.search.quantize import QuantizeOptions
from jaxsnn.bss2.search.quantize_keywords import QuantizeKeywords
from jaxsnn.nir.dialects.option_keywords import DialectKeywords
from jaxsnn.nir.frameworks.registry import file_options
from jaxsnn.train.fit_keywords import FitKeywords
from jaxsnn.train.options import OPTIONS, SHORT_NAMES


def test_keywords_of_fit_are_its_options():
    assert set(FitKeywords.__annotations__) == {*OPTIONS, *SHORT_NAMES} - {"data"}


def test_keywords_of_quantize_are_its_options():
    options = {field.name for field in fields(QuantizeOptions)}
    assert set(QuantizeKeywords.__annotations__) == options


def test_keywords_of_read_are_the_options_of_files():
    assert set(DialectKeywords.__annotations__) == {*file_options()} - {"dialect"}
