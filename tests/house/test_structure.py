"""The house as docs/architecture.md draws it: rooms, names, walls and readable lines, counted."""

import ast
import collections
import io
import re
import tokenize
from functools import cache
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "jaxsnn"
FILES = sorted(PACKAGE.rglob("*.py"))
#: Functions whose arguments are options that a user gives by name.
MANY_OPTIONS = {"read": "the options say what a file does not"}


@cache
def tree_of(path):
    return ast.parse(path.read_text())


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def functions():
    for path in FILES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef):
                yield path.relative_to(PACKAGE), node


def arguments_of(function):
    own = function.args
    every = [*own.posonlyargs, *own.args, *own.kwonlyargs]
    return [argument for argument in every if argument.arg not in ("self", "cls")]


# ---- rooms and names


def test_the_top_level_has_at_most_12_rooms():
    rooms = [path for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()]
    names = {path.stem for path in rooms if not path.name.startswith("__")}
    assert len(names) <= 12, sorted(names)


def test_no_file_name_is_there_twice():
    names = collections.Counter(path.name for path in FILES if path.name != "__init__.py")
    assert [name for name, times in names.items() if times > 1] == []


def test_no_public_class_name_is_there_twice():
    homes = collections.defaultdict(list)
    for path in FILES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(module_of(path))
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


def test_every_module_says_what_it_is():
    silent = [module_of(path) for path in FILES if not ast.get_docstring(tree_of(path))]
    assert silent == []


def test_every_command_has_a_file_of_its_own():
    from jaxsnn.commands.cli import COMMANDS

    files = {path.name for path in (PACKAGE / "commands").glob("*_command.py")}
    assert files == {f"{name}_command.py" for name in COMMANDS}


# ---- imports


def is_type_checking(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imported(path):
    """Modules of the package that a module imports, anywhere in it, but for type checkers alone."""

    def walk(node):
        for child in ast.iter_child_nodes(node):
            if is_type_checking(child):
                continue
            yield child
            yield from walk(child)

    found = set()
    for node in walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            below = {f"{node.module}.{name.name}" for name in node.names}
            found |= {name if name in MODULES else node.module for name in below}
    return {name for name in found if name in MODULES} - {module_of(path)}


def cycles(edges):
    """Strongly connected components of more than one module."""
    graph = nx.DiGraph([(start, end) for start, ends in edges.items() for end in ends])
    return [sorted(part) for part in nx.strongly_connected_components(graph) if len(part) > 1]


def test_no_import_goes_round_inside_functions_neither():
    edges = {name: imported(path) for name, path in MODULES.items()}
    assert cycles(edges) == []


def test_a_cycle_is_found():
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


# ---- readable lines


def test_few_lines_are_longer_than_100_characters():
    lines = [line for path in FILES for line in path.read_text().splitlines()]
    assert sum(len(line) > 100 for line in lines) < 20 / 1000 * len(lines)


def test_functions_are_short():
    long = {
        f"{path}: {node.name}": node.end_lineno - node.lineno + 1
        for path, node in functions()
        if node.end_lineno - node.lineno >= 64
    }
    assert long == {}


def test_functions_take_at_most_8_arguments():
    many = {
        f"{path}: {node.name}": len(arguments_of(node))
        for path, node in functions()
        if len(arguments_of(node)) > 8 and node.name not in MANY_OPTIONS
    }
    assert many == {}


@pytest.mark.parametrize("room", ["event", "grid"])
def test_every_argument_of_the_engines_has_a_type(room):
    bare = [
        f"{path}: {node.name}({argument.arg})"
        for path, node in functions()
        if path.parts[0] == room
        for argument in arguments_of(node)
        if argument.annotation is None
    ]
    assert bare == []


def test_formulas_and_layouts_are_commented():
    """At least 4 comments in 100 lines of the event engine."""
    comments = lines = 0
    for path in FILES:
        if path.relative_to(PACKAGE).parts[0] == "event":
            text = path.read_text()
            lines += len(text.splitlines())
            tokens = tokenize.generate_tokens(io.StringIO(text).readline)
            comments += sum(
                token.type == tokenize.COMMENT
                and not re.search(r"noqa|pyright|type:", token.string)
                for token in tokens
            )
    assert comments >= 0.04 * lines, (comments, lines)
