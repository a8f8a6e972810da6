"""Advice of the chip's room is in the words of Python; only the command line translates it."""

import ast
import re
from pathlib import Path

import pytest

import jaxsnn

ROOM = Path(jaxsnn.__file__).parent / "bss2"
#: The scripts for the chip's own software are command lines of their own.
SOURCES = [path for path in sorted(ROOM.rglob("*.py")) if "scripts" not in path.parts]
FLAG = re.compile(r"(?<![\w-])--?[a-z][a-z-]+")


def texts(tree):
    """The texts of a module that are not docstrings, with their lines."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and type(node.value) is str
            and id(node) not in docstrings
        ):
            yield node.value, node.lineno


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOM).as_posix())
def test_no_text_has_a_flag(path):
    found = [(text, line) for text, line in texts(ast.parse(path.read_text())) if FLAG.search(text)]
    assert found == []


def test_the_scanner_finds_flags():
    code = 'def f():\n    """Says --this."""\n    raise E(f"{x}: pass --dt {y}", fix="or -f")\n'
    assert [line for text, line in texts(ast.parse(code)) if FLAG.search(text)] == [3]
    assert FLAG.search("or -fo")
