"""Where the package starts programs and processes, or loads native code: from the syntax of its files."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Modules all of whose functions count.
_MODULES = {"subprocess", "multiprocessing", "pty", "webbrowser", "concurrent.futures.process"}
#: Functions and classes that count, by their module.
_CALLS = {
    "os": re.compile(
        r"(fork|forkpty|system|popen|startfile|exec[lv]p?e?|spawn[lv]p?e?|posix_spawnp?)"
    ),
    "ctypes": re.compile(r"(CDLL|PyDLL|WinDLL|OleDLL|cdll|pydll|windll|oledll)"),
    "asyncio": re.compile(r"(create_subprocess_(exec|shell)|subprocess)"),
    "concurrent.futures": re.compile(r"ProcessPoolExecutor"),
    "runpy": re.compile(r"run_(path|module)"),
    "code": re.compile(r"\w+"),
}
#: Attributes of these names are types, and start nothing.
_HARMLESS = re.compile(r"(\w*Error|TimeoutExpired|CompletedProcess|DEVNULL|PIPE|STDOUT)")


def starts(source):
    """Yield "module.function" of each place that starts a process or loads native code.

    Args:
        source: text of a Python file.
    """
    tree = ast.parse(source)
    modules, functions = {}, {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                modules[alias.asname or alias.name] = alias.name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                functions[alias.asname or alias.name] = (node.module, alias.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            module = modules.get(ast.unparse(node.value), "")
            if isinstance(node.value, ast.Name) and node.value.id in functions:
                module = ".".join(
                    functions[node.value.id]
                )  # as in `from concurrent import futures`
            name = node.attr
        elif isinstance(node, ast.Name) and node.id in functions:
            module, name = functions[node.id]
        elif isinstance(node, ast.Constant) and node.value in _MODULES:
            module, name = node.value, "by name"  # importlib.import_module("subprocess")
        else:
            continue
        counts = module in _MODULES or (module in _CALLS and _CALLS[module].fullmatch(name))
        if counts and not _HARMLESS.fullmatch(name):
            yield f"{module}.{name}"


def starts_by_file():
    """Path of each file of the package that starts something -> what."""
    entries = {}
    for path in sorted((ROOT / "jaxsnn").rglob("*.py")):
        if calls := set(starts(path.read_text())):
            entries[str(path.relative_to(ROOT))] = calls
    return entries


def listed():
    """The table of SECURITY.md: path -> names in the column of functions."""
    rows = re.findall(
        r"^\| `(jaxsnn/[^`]+)` \| ([^|]+) \|", (ROOT / "SECURITY.md").read_text(), re.MULTILINE
    )
    return {path: set(re.findall(r"`([^`]+)`", functions)) for path, functions in rows}
