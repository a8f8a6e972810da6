"""The keyword arguments that type checkers know are those that the functions accept, and all public
functions and classes suggest names for misspelt ones.
"""

import enum
import sys
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest

import jaxsnn
from jaxsnn import plot
from jaxsnn.bss2.search.quantize import QuantizeOptions
from jaxsnn.bss2.search.quantize_keywords import QuantizeKeywords
from jaxsnn.errors import UsageError
from jaxsnn.nir import build
from jaxsnn.nir.dialects.option_keywords import DialectKeywords
from jaxsnn.nir.frameworks.registry import file_options
from jaxsnn.train import Jitter, Latency, TrainOptions, evaluate
from jaxsnn.train.fit_keywords import FitKeywords
from jaxsnn.train.options import OPTIONS, SHORT_NAMES

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))

import reference_pages

GRAPH = build.sequential(build.input(1), build.linear(1), build.lif(tau="10ms"), seed=0)
#: Public functions of any keywords, which check these after their other arguments -> these arguments.
POSITIONAL = {
    "jaxsnn.fit": (GRAPH,),
    "jaxsnn.parse": (jaxsnn.export(GRAPH),),
    "jaxsnn.quantize": (GRAPH,),
    "jaxsnn.sequential": (build.input(1),),
    "jaxsnn.train.fit": (GRAPH,),
    "jaxsnn.nir.build.network": (
        {"input": build.input(1), "out": build.output()},
        [("input", "out")],
    ),
    "jaxsnn.nir.build.node": ("LIF",),
    "jaxsnn.nir.build.sequential": (build.input(1),),
}
#: Functions of a file, whose options `jaxsnn.read` checks after it has read the file.
OF_FILES = ("jaxsnn.read", "jaxsnn.load_into")


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
    (evaluate, {"encode": "latency"}, "encoder"),
    (evaluate, {"tend": 1.0}, "t_end"),
)


@pytest.mark.parametrize(("target", "keywords", "nearest"), MISSPELT)
def test_misspelt_keywords_are_refused_with_the_nearest_name(target, keywords, nearest):
    with pytest.raises(UsageError) as error:
        target(**keywords)
    assert isinstance(error.value, TypeError)
    fix = error.value.problem.fix
    assert "Available: " in fix
    assert nearest is None or f"did you mean '{nearest}'?" in fix


def callables() -> Iterator[str]:
    """Yield the names of the public functions, and of the classes whose objects users construct."""
    for module in reference_pages.REFERENCE:
        for name in reference_pages.public_names(import_module(module)):
            full_name = f"{module}.{name}"
            value = reference_pages.resolve(full_name)
            if full_name in (*reference_pages.RETURNED, *OF_FILES):
                continue
            # Errors and notes are text, which the library constructs; protocols and tables are not called.
            is_text = isinstance(value, type) and issubclass(value, BaseException | str | enum.Enum)
            if callable(value) and not is_text and not reference_pages.is_protocol(value):
                yield full_name


@pytest.mark.parametrize("full_name", sorted(callables()))
def test_every_public_function_refuses_unknown_keywords_with_the_available_names(full_name):
    with pytest.raises(UsageError) as error:
        reference_pages.resolve(full_name)(*POSITIONAL.get(full_name, ()), no_such_name=1)
    assert "'no_such_name'" in error.value.problem.message
    fix = error.value.problem.fix
    assert fix.startswith("Available: ") or full_name == "jaxsnn.StraightThrough"


def test_functions_of_files_suggest_options_of_files(tmp_path):
    path = tmp_path / "net.nir"
    jaxsnn.write(path, GRAPH)
    for misspelt, nearest in (("dialekt", "dialect"), ("rest", "reset")):
        with pytest.raises(UsageError) as error:
            jaxsnn.read(path, **{misspelt: "zero"})
        assert f"did you mean '{nearest}'?" in error.value.problem.fix


def test_a_class_without_arguments_says_so():
    with pytest.raises(UsageError) as error:
        jaxsnn.StraightThrough(slope=1.0)
    assert error.value.problem.fix == "leave it out"


def test_other_type_errors_pass_through():
    with pytest.raises(TypeError, match="missing"):
        jaxsnn.simulate()
