"""What all tests share: a reproducible hypothesis profile, 64-bit mode, fresh interpreters, and the
real files with their recordings.
"""

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

import jaxsnn
from jaxsnn.wording import Text
from tests.durations import function_of, long_tests

PACKAGE = os.path.dirname(os.path.abspath(jaxsnn.__file__)) + os.sep

# Conversions check what each of their passes requires and guarantees.
os.environ.setdefault("JAXSNN_CHECK_PASSES", "1")

settings.register_profile("jaxsnn", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("jaxsnn")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the long tests, except those that are compiled in another way."""
    long = long_tests()
    for item in items:
        if function_of(item.nodeid) in long and item.get_closest_marker("last_digits") is None:
            item.add_marker("long")


def pytest_collection_finish() -> None:
    """What is there when the tests begin stays, and tracing makes many objects: to look through all
    of them so often takes a sixth of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


def format_outside_the_package(text: Text, spec: str) -> str:
    """Format a text that refers to options, which a message of the package must not do: an f-string
    keeps the words of Python, and the command line would show them.
    """
    refers = any(not isinstance(part, str) for part in text.parts)
    assert not (refers and sys._getframe(1).f_code.co_filename.startswith(PACKAGE)), (
        f"use Text(...) or +, not an f-string, for what has {text!r}"
    )
    return format(str(text), spec)


setattr(Text, "__format__", format_outside_the_package)  # noqa: B010


@pytest.fixture(autouse=True, scope="module")
def forget_compiled() -> Iterator[None]:
    """Drops what a module has compiled: thousands of programs in one process exhaust its memory
    maps.
    """
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


@pytest.fixture
def x64() -> Iterator[None]:
    """Runs the test in 64-bit mode, which no other test sees."""
    import jax

    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def native_kernels() -> None:
    """The native backend, both libraries of it. Without a compiler XLA runs and there is nothing to
    test; with one a build that fails is a failure.
    """
    from jaxsnn.event.native import native_build
    from jaxsnn.event.native.kernel_compiler import find_compiler

    if find_compiler() is None:
        pytest.skip("no C++ compiler on this machine")
    for dtype in ("float32", "float64"):
        library = native_build.native_library(dtype)
        assert library.there, library.reason


@pytest.fixture
def auto_is_native(native_kernels: None) -> None:
    """Kernels where nothing is said of the backend."""
    if os.environ.get("JAXSNN_BACKEND") == "xla":
        pytest.skip("JAXSNN_BACKEND=xla asks for the other backend")


@pytest.fixture(scope="session")
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python code in a fresh interpreter: `run_python(code, PYTHONHASHSEED="1").stdout`."""

    def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )

    return run


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The real files by name."""
    from tests.helpers.zoo import unpacked

    return unpacked(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="session")
def recordings() -> dict[str, Any]:
    """What frameworks recorded, by name of the file: what went in (time, batch, *shape), and what
    came out.
    """
    from tests.helpers.zoo import recordings

    return recordings()


@pytest.fixture(scope="session")
def more(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """`more(name, **options)`: likewise of the files of `tests.helpers.zoo.MORE`."""
    from jaxsnn.nir import read
    from tests.helpers.zoo import MORE, unpacked_more

    paths, recordings = unpacked_more(tmp_path_factory.mktemp("more"))

    def get(name: str, **options: Any) -> Any:
        graph = read(paths[name], **(MORE[name]["options"] | options))
        return graph, *recordings[name]

    return get


@pytest.fixture
def recorded(zoo: dict[str, Path], recordings: dict[str, Any]) -> Callable[..., Any]:
    """`recorded(name, **options)`: a graph read with all that its file does not say, the
    recording's x and y.
    """
    from jaxsnn.nir import read
    from tests.helpers.zoo import FACTS, options_of

    def load(name: str, **options: Any) -> tuple:
        graph = read(zoo[name], dialect=FACTS[name]["framework"], **{**options_of(name), **options})
        return graph, *recordings[name]

    return load


@pytest.fixture
def one_torch_thread() -> Iterator[None]:
    """More threads only wait for each other on networks of a test's size."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
