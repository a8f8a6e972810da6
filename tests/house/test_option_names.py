"""Options have the same names on the command line and in Python."""

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import pytest

import jaxsnn
from jaxsnn.bss2.search.portfolio import Portfolio
from jaxsnn.bss2.search.quantize import QuantizeOptions
from jaxsnn.commands import arguments
from jaxsnn.commands.cli import build_parser
from jaxsnn.nir.frameworks.registry import file_options
from jaxsnn.train import TrainOptions, tune
from jaxsnn.train.options import OPTIONS, SHORT_NAMES

#: Command -> functions and records of options with which Python does the same.
PYTHON: dict[str, tuple[Callable[..., Any], ...]] = {
    "train": (TrainOptions,),
    "tune": (TrainOptions, tune),
    "run": (jaxsnn.simulate, jaxsnn.EventDriven),
    "map": (QuantizeOptions, jaxsnn.place_and_route, Portfolio),
    "emulate": (QuantizeOptions, jaxsnn.emulate, jaxsnn.EmulatedChip),
    "convert": (jaxsnn.convert,),
    "check": (jaxsnn.check,),
}
#: Options of a command without a keyword argument of that name, with the reason.
ONLY_FLAGS = {
    "chip_seed": "EmulatedChip(seed=); the command has no other object whose seed this could be",
    "chips": 'EmulatedChip(several=True) is "--chips several", which leaves room for a number',
    "config": "a file of options; in Python, a dictionary",
    "neurobench": "jaxsnn.neurobench, a function of the result",
    "input": "a file; in Python, the argument inputs",
    "report": "a file; in Python, the record that the function returns",
    "svg": "a file; in Python, jaxsnn.plot.floorplan",
    "plot": "a file; in Python, jaxsnn.plot",
    "to_dt": "convert(dt=); on the command line --dt is the time step of the file that is read",
    "show_passes": "prints a list; in Python, it is an attribute",
    "values": "the meaning of an array in a file; in Python, the type of the inputs",
    "verify": "another task of the command; in Python, jaxsnn.check_mapping",
}
#: Reason -> keyword arguments without an option of that name.
ONLY_KEYWORDS = {
    "values that a flag cannot hold: objects, functions, mappings, arrays": (
        *("augment", "callbacks", "chip", "dead", "encoder_options", "engine_options"),
        *("loss_options", "options", "portfolio", "progress", "regularisers", "sample_times"),
        *("say", "synaptic_delays", "weight_bumping"),
    ),
    "a positional argument of the command": (
        *("graph", "inputs", "mapping", "net", "network", "quantized"),
    ),
    "the file that the command writes decides": ("checkpoint", "overwrite", "path"),
    "the command always raises errors": ("throw",),
    "gradients, which the command does not compute": ("forward_mode", "jump_width", "min_slope"),
    "settings of the event engine and of the emulated chip for experts": (
        *("backend", "between_chips", "first_spike_only", "max_arrivals", "max_events"),
        *("queue", "recorded_events", "refractory", "threads"),
    ),
    "an option with another name in ONLY_FLAGS": ("dt", "seed", "several"),
}
WITHOUT_FLAG = {name for keywords in ONLY_KEYWORDS.values() for name in keywords}


def options_of(command):
    """Option -> its spellings on the command line, without options of every command and of files."""
    actions = [action for action in build_parser()._actions if getattr(action, "choices", None)]
    parser = actions[0].choices[command]
    parser.complete()
    common = {"json", "quiet", "verbose", "debug", "read_timeout", "max_bytes", "output", "force"}
    common |= {*file_options(), "dialect"}
    return {
        option.name: action.option_strings
        for action in parser._actions
        if (option := getattr(action, arguments.OPTION, None)) is not None
        and option.name not in common
    }


def all_commands():
    actions = [action for action in build_parser()._actions if getattr(action, "choices", None)]
    return [name for name in actions[0].choices if name != "chip"]


def keywords_of(functions):
    """Names of the keyword arguments of functions and records."""
    names = set()
    for function in functions:
        parameters = inspect.signature(function).parameters
        names |= {field.name for field in fields(function)} if is_dataclass(function) else set()
        names |= {
            name
            for name, parameter in parameters.items()
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        }
    return names


@pytest.mark.parametrize("command", all_commands())
def test_every_option_can_be_spelled_as_in_python(command):
    options = options_of(command)
    assert [
        name for name, flags in options.items() if f"--{name.replace('_', '-')}" not in flags
    ] == []


@pytest.mark.parametrize("command", PYTHON)
def test_every_option_of_a_command_is_a_keyword_argument(command):
    without = set(options_of(command)) - keywords_of(PYTHON[command])
    assert sorted(without - ONLY_FLAGS.keys()) == []


@pytest.mark.parametrize("command", PYTHON)
def test_every_keyword_argument_is_an_option_of_the_command(command):
    without = keywords_of(PYTHON[command]) - set(options_of(command))
    assert sorted(without - WITHOUT_FLAG) == []


def test_exceptions_are_needed_and_have_a_reason():
    options = {command: set(options_of(command)) for command in PYTHON}
    keywords = {command: keywords_of(PYTHON[command]) for command in PYTHON}
    used_flags = set().union(*(options[name] - keywords[name] for name in PYTHON))
    used_keywords = set().union(*(keywords[name] - options[name] for name in PYTHON))
    assert sorted(ONLY_FLAGS.keys() - used_flags) == []
    assert sorted(WITHOUT_FLAG - used_keywords) == []


def test_short_names_are_flags_too():
    for short, name in SHORT_NAMES.items():
        assert f"--{short}" in OPTIONS[name].other_flags
