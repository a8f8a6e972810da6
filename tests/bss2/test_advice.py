"""Advice of the chip's room is in the words of Python; only the command line translates it."""

import ast
import re
from pathlib import Path

import pytest

import jaxsnn
from tests.helpers.source_texts import texts

ROOM = Path(jaxsnn.__file__).parent / "bss2"
#: The scripts for the chip's own software are command lines of their own.
SOURCES = [path for path in sorted(ROOM.rglob("*.py")) if "scripts" not in path.parts]
FLAG = re.compile(r"(?<![\w-])--?[a-z][a-z-]+")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOM).as_posix())
def test_no_text_has_a_flag(path):
    found = [(text, line) for line, text in texts(ast.parse(path.read_text())) if FLAG.search(text)]
    assert found == []


def test_the_scanner_finds_flags():
    code = 'def f():\n    """Says --this."""\n    raise E(f"{x}: pass --dt {y}", fix="or -f")\n'
    assert [line for line, text in texts(ast.parse(code)) if FLAG.search(text)] == [3]
    assert FLAG.search("or -fo")
