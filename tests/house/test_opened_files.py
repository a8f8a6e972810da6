"""Files of unknown origin are opened in `jaxsnn/files` alone, where their kind and size are checked."""

import ast

import pytest

from tests.helpers.source_texts import PACKAGE, SOURCES, tree_of

#: Names of functions and methods that open a file for reading, or parse an open one without limits.
OPENERS = {
    "open",
    "fdopen",
    "read_text",
    "read_bytes",
    "fromfile",
    "memmap",
    "open_memmap",
    "loadtxt",
    "genfromtxt",
    "read_array",
    "File",
    "ZipFile",
    "GzipFile",
    "is_zipfile",
    "NamedTemporaryFile",
}
#: Modules whose function `load` reads a file.
LOADERS = {"np", "numpy", "json", "tomllib", "pickle", "marshal"}
#: Functions that may open files: file and function, and why.
ALLOWED = {
    ("files/opening.py", "open_input"): "checks the file that it has opened",
    ("files/read_process.py", "_be_the_child"): "the pipe and /dev/null",
    ("files/read_process.py", "_address_space"): "/proc",
    ("console.py", "_discard_output"): "the null device",
    ("files/png_images.py", "_decoded"): "an open file, in the process that reads",
    ("files/array_files.py", "map_array"): "an open file",
    ("train/data/images.py", "read_idx"): "an open file",
    ("nir/io/files.py", "load_hdf5"): "the name of an open file",
    ("nir/io/files.py", "_image"): "a file in memory",
    ("nir/io/files.py", "_load_image"): "a file in memory",
    ("nir/io/hdf5_objects.py", "load_root"): "a group of an open file",
    ("nir/io/hdf5_objects.py", "group"): "an object of an open file",
    ("files/opening.py", "read_text"): "calls a function that checks",
    ("bss2/deploy/__init__.py", "deploy"): "scripts of this package",
    ("bss2/deploy/__init__.py", "readme"): "text of this package",
    ("output.py", "*"): "writes",
    ("conformance/comparison.py", "file_bytes"): "a file that it has written",
    ("event/native/native_cache.py", "*"): "the cache, whose owner is this user",
    ("event/native/kernel_compiler.py", "*"): "source code of this package, and /proc",
    ("train/loop/checkpoint.py", "_locked"): "a folder, to lock it",
    ("train/loop/checkpoint.py", "sealed"): "an archive in memory",
    ("train/loop/parallel.py", "*"): "a pipe",
    ("commands/cli.py", "*"): "/dev/null",
}


def opening_calls(tree):
    """Pairs of the innermost function around a call that opens a file, and the name that is called."""
    calls = []

    def visit(node, function):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node.name
        if isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            module = getattr(getattr(called, "value", None), "id", "")
            if name in OPENERS or (name == "load" and module in LOADERS):
                calls.append((function, name))
        for child in ast.iter_child_nodes(node):
            visit(child, function)

    visit(tree, "")
    return calls


def test_files_are_opened_in_one_place():
    opened = set()
    for path in SOURCES:
        name = path.relative_to(PACKAGE).as_posix()
        if not name.startswith("bss2/deploy/scripts/"):  # which run on another machine
            # Functions of `jaxsnn/files/opening.py` check what they open.
            opened |= {
                (name, function)
                for function, called in opening_calls(tree_of(path))
                if not imports_opening(path, called)
            }
    opened |= {(name, "*") for name, _ in opened if (name, "*") in ALLOWED}
    listed = {entry for entry in opened if entry in ALLOWED or (entry[0], "*") in ALLOWED}
    assert opened - listed == set()
    assert ALLOWED.keys() - listed == set()


def imports_opening(path, name):
    """Whether a name in a module is the function of `jaxsnn.files.opening`."""
    return any(
        isinstance(node, ast.ImportFrom)
        and node.module == "jaxsnn.files.opening"
        and name in {alias.name for alias in node.names}
        for node in ast.walk(tree_of(path))
    ) and not any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == name
        for node in ast.walk(tree_of(path))
    )


def test_no_module_imports_a_reader_without_limits():
    readers = {"zipfile", "gzip", "bz2", "lzma", "tarfile", "wave", "pickle", "shelve", "mmap"}
    allowed = {
        ("train/loop/checkpoint.py", "zipfile"),  # writes
        ("nir/io/hdf5_objects.py", "mmap"),  # memory
        ("nir/io/reading.py", "mmap"),
        ("nir/io/global_heaps.py", "mmap"),  # an open file of limited size
    }
    imported = {
        (path.relative_to(PACKAGE).as_posix(), alias.name)
        for path in SOURCES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name in readers
    }
    assert {entry for entry in imported if "deploy/scripts" not in entry[0]} <= allowed


@pytest.mark.parametrize(
    "text",
    ["open(path)", "path.read_text()", "np.load(path)", "os.open(path, 0)", "h5py.File(path)"],
)
def test_openings_are_recognised(text):
    assert opening_calls(ast.parse(f"def f(path):\n    return {text}")) == [
        ("f", text.partition("(")[0].rpartition(".")[2])
    ]
