"""The oracles in tests/oracles: each imports nothing of ours, says what it is a reference of, and is
used.
"""

import ast
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.helpers.source_texts import tree_of

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
ORACLES = sorted((TESTS / "oracles").rglob("*.py"))
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted(TESTS.rglob("*.py"))
}
#: Packages that no oracle may import, directly or through other test modules: an oracle must not
#: share errors with this library or with JAX.
OURS = {"jaxsnn", "benchmarks", "examples", "jax", "jaxlib", "optax"}


def imported(tree: ast.AST) -> Iterator[str]:
    """All modules that are imported, inside functions too, and what is taken out of them; names in
    calls of `import_module` and `__import__` likewise.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield module
            yield from (f"{module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("import_module", "__import__", "importorskip")
        ):
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant))


@cache
def reached(path: Path) -> frozenset[Path]:
    """The modules of the tests that a file imports, directly or through others, and itself."""
    visited, waiting = {path}, [path]
    while waiting:
        modules = imported(tree_of(waiting.pop()))
        new = {MODULES[name] for name in modules if name in MODULES} - visited
        visited |= new
        waiting += new
    return frozenset(visited)


def ours(tree: ast.AST) -> list[str]:
    """What it imports of ours, or by a path that this test does not follow."""
    return [name for name in imported(tree) if name.split(".")[0] in OURS or name.startswith(".")]


def test_oracles_import_nothing_of_ours_and_no_jax():
    imports = {path.name: ours(tree_of(path)) for oracle in ORACLES for path in reached(oracle)}
    assert {name: modules for name, modules in imports.items() if modules} == {}


def test_oracles_load_where_jaxsnn_is_not_there(run_python):
    modules = [name for name, path in MODULES.items() if path in ORACLES]
    code = f"""
import importlib, json, sys
sys.path.insert(0, {str(ROOT)!r})
sys.modules["jaxsnn"] = None
for name in {modules!r}:
    importlib.import_module(name)
print(json.dumps([name for name in sys.modules if name.split(".")[0] in ("jaxsnn", "jax")]))
"""
    assert json.loads(run_python(code).stdout) == ["jaxsnn"]


def test_every_oracle_is_used_by_a_test_and_says_what_it_is_a_reference_of():
    users = [reached(test) for test in MODULES.values() if test.name.startswith("test_")]
    assert set(ORACLES) <= set().union(*users)
    assert [path.name for path in ORACLES if not ast.get_docstring(tree_of(path))] == []


def test_oracles_are_nowhere_else():
    """A file named so belongs into tests/oracles."""
    stems = [path.stem for path in MODULES.values() if path not in ORACLES]
    named_so = [stem for stem in stems if stem.endswith(("oracle", "reference"))]
    assert [stem for stem in named_so if not stem.startswith("test_")] == []


@pytest.mark.parametrize(
    "line",
    [
        "import jaxsnn",
        "import jaxsnn.nir as nir",
        "import jax.numpy as jnp",
        "from jaxsnn.nir import read",
        "def f():\n    from jaxsnn import lower",
        "from ..event import cases",
        "import importlib\nimportlib.import_module('jaxsnn.nir')",
    ],
)
def test_the_scanner_finds_what_it_looks_for(line):
    assert ours(ast.parse(line)) != []


def test_the_scanner_follows_other_tests(tmp_path, monkeypatch):
    for name, text in (("one", "from tests import two"), ("two", "import jaxsnn")):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.setitem(MODULES, f"tests.{name}", tmp_path / f"{name}.py")
    assert {path.stem for path in reached(tmp_path / "one.py")} == {"one", "two"}
