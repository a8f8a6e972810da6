"""What all tests share: a reproducible hypothesis profile, 64-bit mode, fresh interpreters."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

settings.register_profile("jaxsnn", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("jaxsnn")


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


@pytest.fixture
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
