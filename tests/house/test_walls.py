"""The walls of the design that import-linter cannot state."""

import ast
import json
from collections.abc import Iterator

import pytest

import jaxsnn
from tests.helpers.source_texts import PACKAGE, SOURCES, name_of, tree_of

ONLY_INSIDE_FUNCTIONS = {
    "matplotlib",
    "torch",
    "nirtorch",
    "snntorch",
    "norse",
    "spikingjelly",
    "calix",
    "dlens_vx_v3",
    "hxtorch",
    "pygrenade_vx",
    "pyhalco_hicann_dls_vx_v3",
    "pyhaldls_vx_v3",
    "pyhxcomm_vx",
    "pylola_vx_v3",
    "pynn_brainscales",
    "pystadls_vx_v3",
}
UNIT_FACTORS = {1e-3, 1e3, 1e6, 1e-6}
MAY_CONVERT_UNITS = (
    "units.py",
    "nir/model/dialect.py",
    "nir/frameworks/",
    "bss2/search/quantize.py",
    "conformance/adapters/",  # time steps of frameworks
)


def imports_on_load(node: ast.AST) -> Iterator[tuple[str, int]]:
    """The top-level packages imported when a module is loaded, with their lines."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.Import):
            yield from ((alias.name.split(".")[0], child.lineno) for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.level == 0 and child.module:
            yield child.module.split(".")[0], child.lineno
        else:
            yield from imports_on_load(child)


def unit_factors(tree: ast.AST) -> Iterator[tuple[float, int]]:
    """The numeric unit factors in a module, with their lines: floats anywhere, integers and powers
    that multiply.
    """
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and type(node.value) is float
            and node.value in UNIT_FACTORS
        ):
            yield node.value, node.lineno
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div):
            for side in (node.left, node.right):
                value = whole_or_power(side)
                if value in UNIT_FACTORS:
                    yield value, side.lineno


def whole_or_power(node: ast.AST) -> float | None:
    """The value of a literal integer or a power of literals."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return float(node.value)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        try:
            return float(ast.literal_eval(node.left)) ** ast.literal_eval(node.right)
        except ValueError:
            return None
    return None


def test_heavy_packages_are_imported_inside_functions():
    imports = {name_of(path): imports_on_load(tree_of(path)) for path in SOURCES}
    heavy = [
        (path, line)
        for path, modules in imports.items()
        for name, line in modules
        if name in ONLY_INSIDE_FUNCTIONS
    ]
    assert heavy == []


def test_unit_factors_stay_in_their_files():
    inside = [path for path in SOURCES if not name_of(path).startswith(MAY_CONVERT_UNITS)]
    factors = {name_of(path): list(unit_factors(tree_of(path))) for path in inside}
    assert {name: lines for name, lines in factors.items() if lines} == {}


def test_the_scanners_find_what_they_look_for():
    tree = ast.parse(
        "import torch.nn\n"
        "if True:\n    from matplotlib import pyplot\n"
        "def f():\n    import norse\n    return 0.001 * 1_000 + x / 10**-6 + 10**x * 1e-4 + g(1000)\n"
    )
    assert list(imports_on_load(tree)) == [("torch", 1), ("matplotlib", 3)]
    assert sorted(unit_factors(tree)) == [(1e-6, 6), (1e-3, 6), (1e3, 6)]


def test_every_public_name_resolves():
    assert [name for name in jaxsnn.__all__ if getattr(jaxsnn, name, None) is None] == []
    assert dir(jaxsnn) == sorted(jaxsnn.__all__)


def test_type_checkers_see_the_same_public_names():
    tree = tree_of(PACKAGE / "__init__.py")
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname: node.module for node in block.body for alias in node.names}
    assert seen == jaxsnn._HOME


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'simulat'"):
        _ = jaxsnn.simulat


def test_no_public_function_shares_its_name_with_a_module():
    modules = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.name for path in PACKAGE.iterdir()
    }
    assert modules.isdisjoint(jaxsnn.__all__)


OBSERVE = """
import json, logging, os, sys
no_plugins = {{"HDF5_PLUGIN_PRELOAD": "::"}}  # what files are read without
before = no_plugins | dict(os.environ), list(logging.root.handlers), logging.root.level
{statement}
after = no_plugins | dict(os.environ), list(logging.root.handlers), logging.root.level
heavy = [name for name in ("jax", "optax", "matplotlib", "torch") if name in sys.modules]
print(json.dumps({{"unchanged": before == after, "heavy": heavy}}))
"""


@pytest.mark.parametrize(
    "statement", ["import jaxsnn", "import jaxsnn.nir", "import jaxsnn; jaxsnn.read"]
)
def test_importing_changes_nothing_and_loads_no_jax(run_python, statement):
    done = run_python(OBSERVE.format(statement=statement))
    assert done.stderr == ""
    assert json.loads(done.stdout) == {"unchanged": True, "heavy": []}


def test_importing_everything_leaves_jax_as_it_was(run_python):
    code = """
import jax
before = dict(jax.config.values)
import jaxsnn
for name in jaxsnn.__all__:
    getattr(jaxsnn, name)
changed = [key for key, value in jax.config.values.items() if before.get(key) != value]
print(changed)
"""
    assert run_python(code).stdout == "[]\n"
