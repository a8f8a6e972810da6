"""The structure of the package: modules, their imports, and the types of the engines."""

import ast
import collections

import networkx as nx
import pytest

from tests.helpers.source_texts import PACKAGE, SOURCES, tree_of


def module_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in SOURCES}


def test_no_public_class_name_is_there_twice():
    modules = collections.defaultdict(list)
    for path in SOURCES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                modules[node.name].append(module_of(path))
    assert {name: homes for name, homes in modules.items() if len(homes) > 1} == {}


def test_every_module_has_a_docstring():
    assert [module_of(path) for path in SOURCES if not ast.get_docstring(tree_of(path))] == []


def test_every_command_has_a_file_of_its_own():
    from jaxsnn.commands.cli import COMMANDS

    files = {path.name for path in (PACKAGE / "commands").glob("*_command.py")}
    assert files == {f"{name}_command.py" for name in COMMANDS}


def imported_modules(path):
    """Modules of the package that a module imports: at its top, inside functions, for type checking."""
    modules = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported = {f"{node.module}.{alias.name}" for alias in node.names}
            modules |= {name if name in MODULES else node.module for name in imported}
    return {name for name in modules if name in MODULES} - {module_of(path)}


def import_cycles(imports):
    """Strongly connected components of more than one module."""
    graph = nx.DiGraph([(source, target) for source in imports for target in imports[source]])
    return [sorted(part) for part in nx.strongly_connected_components(graph) if len(part) > 1]


def test_there_are_no_import_cycles():
    # The package itself lists its public names for type checkers, and imports nothing when loaded.
    imports = {name: imported_modules(path) for name, path in MODULES.items() if name != "jaxsnn"}
    assert import_cycles(imports) == []


def test_import_cycles_are_found():
    imports = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}
    assert import_cycles(imports) == [["a", "b", "c"]]


@pytest.mark.parametrize("layer", ["event", "grid"])
def test_every_argument_of_the_engines_has_a_type(layer):
    untyped = []
    for path in (PACKAGE / layer).rglob("*.py"):
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.FunctionDef):
                continue
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            untyped += [
                f"{path.relative_to(PACKAGE)}: {node.name}({argument.arg})"
                for argument in arguments
                if argument.arg not in ("self", "cls") and argument.annotation is None
            ]
    assert untyped == []
