"""The keyword arguments that type checkers know are those that the functions accept."""

from dataclasses import fields

import pytest

import jaxsnn
from jaxsnn import plot
from jaxsnn.bss2.search.quantize import QuantizeOptions
from jaxsnn.bss2.search.quantize_keywords import QuantizeKeywords
from jaxsnn.errors import UsageError
from jaxsnn.nir import build
from jaxsnn.nir.dialects.option_keywords import DialectKeywords
from jaxsnn.nir.frameworks.registry import file_options
from jaxsnn.train import Jitter, Latency, TrainOptions
from jaxsnn.train.fit_keywords import FitKeywords
from jaxsnn.train.options import OPTIONS, SHORT_NAMES


def test_keywords_of_fit_are_its_options():
    assert set(FitKeywords.__annotations__) == {*OPTIONS, *SHORT_NAMES} - {"data"}


def test_keywords_of_quantize_are_its_options():
    options = {field.name for field in fields(QuantizeOptions)}
    assert set(QuantizeKeywords.__annotations__) == options


def test_keywords_of_read_are_the_options_of_files():
    assert set(DialectKeywords.__annotations__) == {*file_options()} - {"dialect"}


MISSPELT = (
    (jaxsnn.simulate, {"tend": 1.0}, "t_end"),
    (jaxsnn.EventDriven, {"max_spike": 3}, "max_spikes"),
    (jaxsnn.TimeStepped, {"recrd": True}, "record"),
    (jaxsnn.EmulatedChip, {"sed": 0}, "seed"),
    (jaxsnn.convert, {"too": "norse"}, "to"),
    (jaxsnn.verify, {"recordings": None}, None),
    (plot.raster, {"sample": (0,)}, "samples"),
    (build.lif, {"tau_mem": 0.01}, None),
    (TrainOptions, {"epoch": 3}, "epochs"),
    (Latency, {"tmax": 1.0}, "t_max"),
    (Jitter, {"stdd": 1.0}, None),
)


@pytest.mark.parametrize(("target", "keywords", "nearest"), MISSPELT)
def test_misspelt_keywords_are_refused_with_the_nearest_name(target, keywords, nearest):
    with pytest.raises(UsageError) as error:
        target(**keywords)
    assert isinstance(error.value, TypeError)
    fix = error.value.problem.fix
    assert "Available: " in fix
    assert nearest is None or f"did you mean '{nearest}'?" in fix


def test_other_type_errors_pass_through():
    with pytest.raises(TypeError, match="missing"):
        jaxsnn.simulate()
