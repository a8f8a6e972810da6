"""Whatever is refused says what to do, and refers to options as objects: no message spells one."""

import argparse
import ast
import importlib
import inspect
import re
from string import Formatter

import pytest

import jaxsnn
from jaxsnn import options
from jaxsnn.commands.arguments import OPTION
from jaxsnn.commands.cli import main
from jaxsnn.errors import UsageError
from jaxsnn.nir.frameworks.registry import file_options
from jaxsnn.options import BIAS, ENGINE, MAX_BYTES, READ_TIMEOUT, T_END
from jaxsnn.train.options import OPTIONS
from jaxsnn.wording import Option, Text, advice_for, for_command_line
from tests.commands.test_cli import commands
from tests.helpers.source_texts import FLAG, SOURCES, name_of, raised, texts, tree_of

ROOMS = ("bss2", "network", "nir", "grid", "simulation", "train", "event", "plot")
ALONE = ("output.py", "units.py")
COMMANDS = [path for path in SOURCES if name_of(path).startswith("commands/")]
#: All modules except commands, and except the scripts for the chip's software, which have their own
#: command lines.
FILES = [path for path in SOURCES if path not in COMMANDS and "scripts" not in path.parts]
IN_ROOMS = [
    path for path in FILES if name_of(path).startswith((*(f"{room}/" for room in ROOMS), *ALONE))
]
#: Flags that are not those of this library's commands.
FOREIGN = ("XLA_FLAGS=--xla_", "--version")
#: Messages that need no advice in addition.
WITHOUT_FIX = (
    "only neurons are placed",
    "no such file",
    "cannot be written (",
    "cannot be made (",
    "cannot be read (",
)
SHARED = {
    name: declaration
    for name, declaration in vars(options).items()
    if isinstance(declaration, Option)
}
OPTION_NAMES = {
    option.name for option in (*SHARED.values(), *OPTIONS.values(), *file_options().values())
}
#: Advice that sets a keyword argument: "say dt=", "pass force=True".
SPELLED = re.compile(r"\b(?:say|pass|set|with|or|and|take) ([a-z_]+)=(?![=>])")


def test_no_text_spells_a_flag():
    flagged = [
        (name_of(path), line, text)
        for path in IN_ROOMS
        for line, text in texts(tree_of(path))
        if FLAG.search(text) and not any(foreign in text for foreign in FOREIGN)
    ]
    assert flagged == []


def test_no_text_spells_an_option():
    spelled = [
        (name_of(path), line, text)
        for path in FILES
        for line, text in texts(tree_of(path))
        if not OPTION_NAMES.isdisjoint(SPELLED.findall(text))
    ]
    assert spelled == []


def test_every_refusal_says_what_to_do():
    without = [
        (name_of(path), call.lineno)
        for path in [*IN_ROOMS, *COMMANDS]
        for call in raised(tree_of(path))
        if "fix" not in {keyword.arg for keyword in call.keywords}
        and not any(words in ast.unparse(call) for words in WITHOUT_FIX)
    ]
    assert without == []


def test_the_scanners_see_flags_options_and_refusals():
    tree = ast.parse('"""--dt"""\nraise UsageError(f"say --dt {x}")\nraise ValueError("a -->b")')
    assert [text for _, text in texts(tree) if FLAG.search(text)] == ["say --dt "]
    assert len(list(raised(tree))) == 1
    assert SPELLED.findall("say dt=, with x==1, or force=True") == ["dt", "force"]


def test_texts_have_the_values_of_their_fields():
    calls = [
        (name_of(path), node)
        for path in [*FILES, *COMMANDS]
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "Text"
        and isinstance(node.args[0], ast.Constant)
    ]
    differing = [
        (name, call.lineno)
        for name, call in calls
        if {field for _, field, _, _ in Formatter().parse(call.args[0].value) if field}
        != {keyword.arg for keyword in call.keywords}
    ]
    assert differing == []


# Declarations


def actions(name):
    """The actions of a command's parser that come from options, by option."""
    return {
        option.name: (action, option)
        for action in commands()[name]._actions
        if (option := getattr(action, OPTION, None)) is not None
    }


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_option_of_the_command_line_is_declared(name):
    undeclared = [
        action.option_strings
        for action in commands()[name]._actions
        if action.option_strings and not hasattr(action, OPTION) and action.dest != "help"
    ]
    assert undeclared == []


@pytest.mark.parametrize("name", sorted(commands()))
def test_a_command_describes_an_option_as_it_is_declared(name):
    """A command may have another help text and default, but no other name."""
    declared = SHARED.values() if name not in ("train", "tune") else ()
    declared_options = {option.name: option for option in (*declared, *file_options().values())}
    for option_name, (action, option) in actions(name).items():
        if option_name in declared_options:
            assert option.long_flag == declared_options[option_name].long_flag
            assert declared_options[option_name].long_flag in action.option_strings


@pytest.mark.parametrize("name", sorted(set(SHARED) - {"DATA", "TRAINABLE"}))
def test_options_are_named_as_they_are_in_python(name):
    assert SHARED[name].name.upper() == name


@pytest.mark.parametrize(
    ("option", "function"),
    [
        pytest.param(option, function, id=f"{option.name}-{function}")
        for option in SHARED.values()
        for function in option.functions
    ],
)
def test_functions_take_the_options_that_are_declared_for_them(option, function):
    module, _, name = function.rpartition(".")
    parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    takes = {*parameters, *(OPTIONS if function == "jaxsnn.train.fit" else ())}
    takes |= set(file_options()) if function == "jaxsnn.read" else set()
    assert option.name in takes


def test_every_argument_of_read_is_an_option():
    parameters = set(inspect.signature(jaxsnn.read).parameters) - {"path", "framework_options"}
    limits = {MAX_BYTES.name, READ_TIMEOUT.name}
    assert parameters <= set(file_options()) | limits


@pytest.mark.parametrize(
    "option", [*SHARED.values(), *OPTIONS.values()], ids=lambda option: option.name
)
def test_advice_elsewhere_names_a_command_that_has_the_option(option):
    has_flag = getattr(option, "has_flag", True)
    if option.command and has_flag:
        assert commands()[option.command].takes(option.long_flag)


# Renderers


@pytest.mark.parametrize("name", sorted(commands()))
def test_advice_is_in_the_flags_of_the_command_that_has_them(name):
    """`check --for bss2` tells of biases, and `map` is what has --bias."""
    advice = Text(
        "replace them, {bias}, simulate with {engine}, or end earlier with {t_end}",
        bias=BIAS.set_to("source"),
        engine=ENGINE.set_to("grid"),
        t_end=T_END,
    )
    takes = commands()[name].takes
    expected = {
        "--bias source": "map",
        "--engine grid": "run",
        "--t-end": "run",
    }
    with advice_for(takes):
        shown = for_command_line(advice)
    for setting, command in expected.items():
        elsewhere = f"jaxsnn {command} {setting}"
        assert setting in shown
        assert (elsewhere in shown) != takes(setting.split()[0])
    assert str(advice) == (
        'replace them, bias="source", simulate with engine=TimeStepped(), or end earlier with t_end'
    )


def test_the_command_line_says_which_command_runs(monkeypatch, capsys):
    advice = Text("simulate with {engine}", engine=ENGINE.set_to("grid"))

    def refuse(arguments):
        raise UsageError("no", fix=advice)

    for name in ("train", "plot"):
        module = importlib.import_module(f"jaxsnn.commands.{name}_command")
        monkeypatch.setattr(module, "run", refuse)
        main([name, "x.nir", "-o", "y.png"])
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("with ")[2] for line in lines] == [
        "--engine grid",
        "jaxsnn run --engine grid",
    ]


def test_what_a_command_refuses_it_does_not_take():
    assert argparse.SUPPRESS in {action.help for action in commands()["tune"]._actions}
    assert not commands()["tune"].takes("--engine")
