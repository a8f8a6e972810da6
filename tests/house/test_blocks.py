"""Every block of code of README.md and docs/ runs; every command is one that the parser takes."""

import collections
import dataclasses
import doctest
import importlib
import re
import shlex
import sys
import tomllib

import pytest

from jaxsnn.commands.cli import build_parser, main
from jaxsnn.commands.train_command import read_config
from jaxsnn.nir import build, export, parse
from jaxsnn.nir.frameworks.registry import unregister_framework
from tests.extending_page import PAGES, code_of
from tests.helpers.pages import ROOT, blocks_of, commands_of, pages, run_python
from tests.nir.test_units import MODULES

sys.path.insert(0, str(ROOT / "docs"))

import reference_pages

LANGUAGES = ("python", "sh", "console", "toml", "text", "{toctree}")
#: Pages whose blocks run here, one after the other in an empty folder.
HERE = (
    *("coming_from", "conformance", "event_engine", "getting_started", "guide_simulate"),
    *(
        "guide_chip",
        "guide_convert",
        "guide_data",
        "guide_finetune",
        "guide_results",
        "guide_streams",
        "guide_brian2",
        "nir_semantics",
    ),
)
#: Pages whose Python blocks run in other tests, and the code there that runs them.
ELSEWHERE = {
    "README": ("house/test_readme.py", 'exec(compile("\\n".join(BLOCKS), "README.md"'),
    "guide_loops": ("train/test_loops_page.py", "run_python(block, variables)"),
    "guide_devices": ("simulation/test_transformations.py", "run_page(rest)"),
}
#: Sections on extensions, and the tests that run them; one runs here.
EXTENSIONS = {
    "A node type": "nir/test_custom_node.py",
    "A neuron model": "event/test_custom_neuron.py",
    "A neuron model with nonlinear equations": "event/test_exponential_neuron.py",
    "A loss": "train/test_custom_loss.py",
    "An encoder, a constraint, a regulariser": "train/test_custom_loss.py",
    "A placer or a router": "bss2/test_custom_placer.py",
}
FRAMEWORK = "A framework"
#: All blocks that no test runs, with the reason that their page gives.
NOT_RUN = {
    "index: jaxsnn-nir": "the module is yours",
    "guide_chip: In the loop on the command line": "50 epochs on an emulated chip",
    "guide_finetune: A run from a configuration file": "MNIST is not part of the package",
    "guide_devices: A network": "the tests' process has begun with the devices that it has",
    "guide_devices: Train on several devices or machines": "two hosts",
}
BLOCKS = [block for page in pages() for block in blocks_of(page)]


def in_language(*languages):
    return [block for block in BLOCKS if block.language in languages]


def test_every_block_says_what_it_is():
    assert [block.where for block in BLOCKS if block.language not in LANGUAGES] == []
    for block in in_language("text"):
        assert not re.search(r"^(>>>|\w*\$ |import |from \w+ import)", block.code, re.M), block
    for page, path in pages().items():
        assert not re.search(r"^    +(>>>|\w*\$ |import )", bare(path.read_text()), re.M), page


def bare(text):
    """A page without its blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M)


def test_blocks_that_do_not_run_are_listed_and_have_a_reason():
    assert {block.where: block.not_run for block in BLOCKS if block.not_run} == NOT_RUN
    for path in pages().values():  # no mark is separated from its block by a blank line
        marks = path.read_text().count("<!-- not run:")
        assert marks == sum(bool(block.not_run) for block in blocks_of(path.stem))


def test_the_python_of_every_page_is_run_by_a_test():
    with_python = {block.page for block in in_language("python") if not block.not_run}
    of_extensions = {*PAGES.values()}
    assert with_python == {*HERE, *ELSEWHERE, *of_extensions}
    for file, call in ELSEWHERE.values():
        assert call in (ROOT / "tests" / file).read_text(), file
    sections = {block.section for block in in_language("python") if block.page in of_extensions}
    assert sections == {*EXTENSIONS, FRAMEWORK}
    for section, file in EXTENSIONS.items():
        text = (ROOT / "tests" / file).read_text()
        assert "defined_by(" in text
        assert f'"{section}"' in text


def test_the_framework_of_the_page_is_registered_and_recognised():
    exec(compile(code_of(FRAMEWORK), FRAMEWORK, "exec"), {"__name__": "page"})
    try:
        layers = build.linear(3), build.lif(tau=0.01, r=2.0)
        graph = export(build.sequential(build.input(2), *layers, seed=0, dialect="nir"))
        graph.metadata = {}
        dialect = parse(graph).dialect
        assert (dialect.name, dialect.decided_by, dialect.reset) == ("mine", "inference", "zero")
    finally:
        unregister_framework("mine")


# -- commands


def parsers():
    """Command -> its parser, complete."""
    actions = [action for action in build_parser()._actions if getattr(action, "choices", None)]
    (action,) = actions
    for command in action.choices.values():
        command.complete()
    return action.choices


def check_command(line, targets, extras, commands):
    """A command line of a page names what there is."""
    program, *words = shlex.split(line)
    if program == "jaxsnn":
        build_parser().parse_args(words)
    elif program == "make":
        assert words[0] in targets, line
    elif words[:1] == ["install"] and program == "pip":
        groups = re.findall(r"\[(.*?)\]", line)
        assert {extra for group in groups for extra in group.split(",")} <= extras, line
    else:
        raise AssertionError(f"no test knows {line}")


def test_every_command_of_a_block_is_one():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    lines = [line for block in in_language("sh", "console") for line in commands_of(block)]
    assert len(lines) > 10
    commands = parsers()
    for line in lines:
        check_command(line, targets, set(project["optional-dependencies"]), commands)


def test_make_help_names_all_targets():
    text = (ROOT / "Makefile").read_text()
    listed = re.search(r"^[.]PHONY: (.*)$", text, re.M)
    assert listed is not None
    assert re.search(r"^help:\n\t@sed -n 's/\^\[.\]PHONY: ", text, re.M)
    assert set(re.findall(r"^([a-z][\w-]*):", text, re.M)) <= set(listed[1].split())


def commands_in(text):
    """What a page writes of commands in running text and in lists: the words behind `jaxsnn`."""
    spans = re.findall(r"`jaxsnn ([a-z][^`\n]*)`", text)
    return [*spans, *re.findall(r"^jaxsnn ([a-z].*)$", text, re.M)]


@pytest.mark.parametrize("page", pages())
def test_commands_in_the_text_exist_with_their_options(page):
    commands = parsers()
    for words in commands_in(pages()[page].read_text()):
        name, *rest = words.split()
        assert name in commands, words
        declared = {flag for action in commands[name]._actions for flag in action.option_strings}
        flags = {flag for word in rest for flag in re.findall(r"^(--[a-z][\w-]*)", word)}
        assert flags <= declared, f"{page}: {words}"


def test_a_command_that_there_is_not_is_detected():
    text = "Say `jaxsnn train X --no-such` or\njaxsnn fly\n"
    assert commands_in(text) == ["train X --no-such", "fly"]
    with pytest.raises(SystemExit):
        build_parser().parse_args(["train", "--help"])
    with pytest.raises(AssertionError, match="no test knows"):
        check_command("curl x", [], set(), {})


def test_recipes_are_read_and_packages_name_what_their_page_defines(tmp_path):
    defined = collections.defaultdict(set)
    for block in in_language("python"):
        for groups in re.findall(r"^(?:class|def) (\w+)|^([A-Z]+) =", block.code, re.M):
            defined[block.page] |= set(filter(None, groups))
    for block in in_language("toml"):
        content = tomllib.loads(block.code)
        if "project" not in content:
            (tmp_path / "run.toml").write_text(block.code)
            assert read_config(tmp_path / "run.toml")["data"] == "mnist"
            continue
        ((group, entries),) = content["project"]["entry-points"].items()
        assert group.removeprefix("jaxsnn.") in ENTRY_POINTS
        targets = {value.rpartition(":")[2] for value in entries.values()}
        assert targets - {"FRAMEWORK"} <= defined[block.page], block


ENTRY_POINTS = ("nodes", "neurons", "frameworks", "losses", "placers", "routers", "adapters")


# -- slow blocks


@pytest.mark.slow
@pytest.mark.interop
@pytest.mark.parametrize("page", HERE)
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    variables: dict = {"__name__": "page"}
    for block in blocks_of(page):
        if block.not_run:
            continue
        if block.language == "python":
            run_python(block, variables)
        for line in commands_of(block) if block.language in ("sh", "console") else ():
            program, *words = shlex.split(line)
            assert program == "jaxsnn"
            assert main(words) == 0, line


def modules_of_the_reference():
    """The modules of all names of the reference that tests/nir/test_units.py does not run."""
    modules = [importlib.import_module(name) for name in reference_pages.REFERENCE]
    values = [
        getattr(module, name) for module in modules for name in reference_pages.public_names(module)
    ]
    homes = {getattr(value, "__module__", None) or "" for value in values} - set(MODULES)
    return sorted(home for home in homes if home.startswith("jaxsnn"))


@pytest.mark.slow
def test_the_examples_of_the_reference_print_what_they_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    modules = modules_of_the_reference()
    assert len(modules) > 10
    failed = {name: doctest.testmod(importlib.import_module(name)).failed for name in modules}
    assert {name: count for name, count in failed.items() if count} == {}


def test_a_dialogue_that_prints_something_else_fails():
    wrong = dataclasses.replace(blocks_of("guide_simulate")[0], code=">>> 1 + 1\n3\n")
    with pytest.raises(AssertionError, match="Expected"):
        run_python(wrong, {})
