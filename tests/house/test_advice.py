"""Whatever is refused says what to do, in the words of Python: only the commands speak of flags."""

import argparse
import ast
import inspect

import pytest

import jaxsnn
from jaxsnn import errors
from jaxsnn.commands.cli import main
from jaxsnn.errors import advice_for, in_flags
from jaxsnn.train.options import OPTIONS, flag_of
from tests.commands.test_cli import commands
from tests.helpers.source_texts import FLAG, SOURCES, name_of, raised, texts, tree_of

ROOMS = ("bss2", "network", "nir", "grid", "simulation", "train", "event", "plot")
ALONE = ("output.py", "units.py")
FILES = [
    path
    for path in SOURCES
    if name_of(path).startswith((*(f"{room}/" for room in ROOMS), *ALONE))
    and "scripts" not in path.parts  # command lines of their own, for the chip's software
]
COMMANDS = [path for path in SOURCES if name_of(path).startswith("commands/")]
#: What others than this library's commands read.
FOREIGN = ("XLA_FLAGS=--xla_", "--version")
#: Options of commands that advice never names: of what is printed, where to, and of which file.
NEVER_ADVISED = {"--help", "--json", "--quiet", "--verbose", "--debug"}
NEVER_ADVISED |= {"--output", "--input", "--recording", "--for", "--from"}
#: Of which part of the data, and which chip is emulated: nothing fails for the lack of them.
NEVER_ADVISED |= {"--part", "--samples", "--ideal", "--spread"}
#: What of a file is drawn.
NEVER_ADVISED |= {"--report", "--kind", "--before", "--node", "--sample"}
#: How a conversion works.
NEVER_ADVISED |= {"--show-passes"}
#: Which population answers: `chip inputs` says it in its own words, in Python it is an argument of losses.
NEVER_ADVISED |= {"--population"}
#: Where there is nothing to do that the message does not say.
WITHOUT_FIX = (
    "only neurons are placed",
    "no such file",
    "cannot be written (",
    "cannot be made (",
    "cannot be read (",
)


def test_no_text_speaks_of_flags():
    flagged = [
        (name_of(path), line, text)
        for path in FILES
        for line, text in texts(tree_of(path))
        if FLAG.search(text) and not any(foreign in text for foreign in FOREIGN)
    ]
    assert flagged == []


def test_every_refusal_says_what_to_do():
    without = [
        (name_of(path), call.lineno)
        for path in [*FILES, *COMMANDS]
        for call in raised(tree_of(path))
        if "fix" not in {keyword.arg for keyword in call.keywords}
        and not any(words in ast.unparse(call) for words in WITHOUT_FIX)
    ]
    assert without == []


def test_the_scanners_see_flags_and_refusals():
    tree = ast.parse('"""--dt"""\nraise UsageError(f"say --dt {x}")\nraise ValueError("a -->b")')
    assert [text for _, text in texts(tree) if FLAG.search(text)] == ["say --dt "]
    assert len(list(raised(tree))) == 1


def flag_for(name):
    """What the command line makes of advice that names an option."""
    return in_flags(f"pass {name}=1").split()[1]


def test_advice_can_name_every_option_and_no_other():
    flagged = {name for name, known in OPTIONS.items() if known.has_flag}
    names = {*errors.OPTIONS, *errors._SPELLED, *flagged}
    flags = {
        flag
        for command in commands().values()
        for action in command._actions
        for flag in action.option_strings
        if flag.startswith("--")
    }
    assert {flag_for(name) for name in names} == flags - NEVER_ADVISED


@pytest.mark.parametrize("name", [name for name, known in OPTIONS.items() if known.has_flag])
def test_advice_on_training_has_the_flag_of_the_record(name):
    assert flag_for(name) == f"--{flag_of(name)}"


def test_advice_on_a_file_has_the_flags_that_say_what_it_does_not():
    options = set(inspect.signature(jaxsnn.read).parameters) - {"path", "own"}
    flags = {flag for action in commands()["info"]._actions for flag in action.option_strings}
    assert {flag_for(name) for name in options} <= flags


def shown_flags(name):
    """The options that a command lists."""
    return {
        flag
        for action in commands()[name]._actions
        if action.help != argparse.SUPPRESS
        for flag in action.option_strings
    }


@pytest.mark.parametrize("name", sorted(commands()))
def test_advice_on_quantisation_is_in_the_flags_of_the_command_that_has_them(name):
    """`check --for bss2` tells of biases, and `map` is what has --bias."""
    for option in errors._QUANTISATION:
        flag = f"--{option.replace('_', '-')}"
        expected = flag if flag in shown_flags(name) else f"jaxsnn map {flag}"
        with advice_for(name):
            assert in_flags(f"say {option}=1") == f"say {expected} 1"


@pytest.mark.parametrize("name", sorted(commands()))
def test_advice_on_the_engine_is_in_the_flags_of_the_command_that_runs(name):
    own = "--engine" in shown_flags(name)
    with advice_for(name):
        told = in_flags("simulate with engine=TimeStepped(), or end earlier with t_end")
    expected = "--engine grid" if own else "jaxsnn run --engine grid"
    assert told == f"simulate with {expected}, or end earlier with --t-end"


def test_the_command_line_says_which_command_runs(monkeypatch):
    said = []
    monkeypatch.setattr(
        "jaxsnn.commands.cli._outcome",
        lambda argv: said.append(in_flags("engine=TimeStepped()")) or 0,
    )
    for name in ("train", "plot"):
        main([name])
    assert said == ["--engine grid", "jaxsnn run --engine grid"]


def test_advice_to_simulate_in_steps_names_the_command_that_can():
    """`plot`, `compare` and others give it too, and have no such flag."""
    command, flag, kind = in_flags("simulate with engine=TimeStepped()").split()[-3:]
    flags = {flag for action in commands()[command]._actions for flag in action.option_strings}
    assert (flag, kind) == ("--engine", "grid")
    assert flag in flags
