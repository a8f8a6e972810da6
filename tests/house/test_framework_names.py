"""No framework is known by its name outside `jaxsnn/nir/frameworks`: neither compared nor listed."""

import ast
import re
from collections.abc import Iterator

import pytest

from jaxsnn.nir.frameworks.registry import frameworks
from tests.helpers.source_texts import PACKAGE, SOURCES, name_of, tree_of

INSIDE = PACKAGE / "nir" / "frameworks"
OUTSIDE = [path for path in SOURCES if INSIDE not in path.parents]
NAMES = set(frameworks())
#: Frameworks that are also packages; a tuple of distributions may contain them.
PACKAGES = {"nir", "jaxsnn"}


def names_in(node: ast.AST) -> set[str]:
    """Names of frameworks that are constants of an expression."""
    constants = (part.value for part in ast.walk(node) if isinstance(part, ast.Constant))
    return {value for value in constants if isinstance(value, str) and value in NAMES}


def compared(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Comparisons with a name, patterns that match one, and calls that ask for one."""
    for node in ast.walk(tree):
        parts: list[ast.AST] = []
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            parts = [node.value]
        elif isinstance(node, ast.Subscript):
            parts = [node.slice]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            parts = list(node.args) if node.func.attr in ("get", "startswith", "endswith") else []
        for part in parts:
            yield from ((node.lineno, name) for name in sorted(names_in(part)))


def listed(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Containers with a name in them, and text other than docstrings that lists names."""
    documentation = {id(node) for node in docstrings(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            parts = node.elts
        elif isinstance(node, ast.Dict):
            parts = [key for key in node.keys if key is not None]
        else:
            parts = []
        for part in parts:
            if isinstance(part, ast.Constant) and part.value in NAMES - PACKAGES:
                yield part.lineno, part.value
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and id(node) not in documentation:
            words = set(re.findall(r"[a-z0-9]+", text)) & (NAMES - PACKAGES)
            if len(words) > 1:
                yield node.lineno, text


def docstrings(tree: ast.AST) -> Iterator[ast.Constant]:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            yield first.value


@pytest.mark.parametrize("scanner", [compared, listed])
def test_no_framework_is_compared_or_listed_by_name(scanner):
    hits = {name_of(path): list(scanner(tree_of(path))) for path in OUTSIDE}
    assert {name: lines for name, lines in hits.items() if lines} == {}


def test_messages_of_convert_name_no_framework():
    """It rewrites graphs; titles come from the register."""
    titles = {framework.title for framework in frameworks().values()} - {"NIR", "jaxsnn"}
    for path in sorted((PACKAGE / "nir" / "convert").glob("*.py")):
        tree = tree_of(path)
        documentation = {id(node) for node in docstrings(tree)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and id(node) not in documentation:
                assert not any(title in str(node.value) for title in titles), (path, node.lineno)


def test_the_scanners_find_what_they_look_for():
    tree = ast.parse(
        'if name == "norse" or name in ("spyx", "x"): pass\n'
        'match name:\n    case "sinabs": pass\n'
        'found.get("snntorch"), found["rockpool"], name.startswith("spikingjelly")\n'
        'names = ["norse"]; table = {"spyx": 1}; text = "norse, spyx or sinabs"\n'
        'def f(dialect="jaxsnn"):\n    """norse and spyx"""\n'
    )
    assert {framework for _, framework in compared(tree)} == {
        *("norse", "spyx", "sinabs", "snntorch", "rockpool", "spikingjelly")
    }
    assert {framework for _, framework in listed(tree)} == {
        "norse",
        "spyx",
        "norse, spyx or sinabs",
    }
