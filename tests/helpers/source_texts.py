"""The modules of the package as syntax trees, their texts, and the errors that they raise."""

import ast
import re
from functools import cache
from pathlib import Path

import jaxsnn
from jaxsnn import errors
from jaxsnn.errors import JaxsnnError

PACKAGE = Path(jaxsnn.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
#: Flag of the command line.
FLAG = re.compile(r"(?<![\w-])--[a-z]")
KINDS = {
    name
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, JaxsnnError)
}


def name_of(path):
    """Return the path of a module within the package."""
    return path.relative_to(PACKAGE).as_posix()


@cache
def tree_of(path):
    """Return the syntax tree of a file, parsed once."""
    return ast.parse(path.read_text())


def texts(tree):
    """The literal texts of a module that are no docstrings, with their lines."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant))
    for node in constants:
        if isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def raised(tree):
    """The calls that make an exception of this library, where they are raised."""
    calls = (node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise))
    for call in calls:
        exception_class = call.func if isinstance(call, ast.Call) else None
        if isinstance(exception_class, ast.Name) and exception_class.id in KINDS:
            yield call
