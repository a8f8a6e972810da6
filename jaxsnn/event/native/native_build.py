"""Builds the kernels at their first use, keeps them in a cache folder, and tells JAX of them."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.ffi
import jaxlib.version

from jaxsnn.errors import UsageError

_SOURCES = Path(__file__).parent / "source"
_MAIN = "bindings.cc"
#: The functions that JAX calls, under their names and the type of numbers.
TARGETS = (
    "jaxsnn_layer_forward",
    "jaxsnn_layer_backward",
    "jaxsnn_layer_recorded",
    "jaxsnn_group_forward",
    "jaxsnn_group_backward",
    "jaxsnn_scatter_forward",
    "jaxsnn_scatter_backward",
    "jaxsnn_readout_forward",
    "jaxsnn_readout_backward",
    "jaxsnn_earliest",
    "jaxsnn_turned",
)
#: Type of numbers -> what it is in C++. There is a library for each: that of float64 is seldom
#: needed, and building takes a while.
_NUMBERS = {"float32": "float", "float64": "double"}
_FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fPIC", "-shared", "-pthread", "-w")
#: What the machine has is used where the compiler knows how to: the first set that it takes.
_MACHINE_FLAGS = (("-march=native",), ("-mcpu=native",), ())
_PATIENCE = 600  # seconds that a compiler is waited for


@dataclass(frozen=True, kw_only=True)
class NativeLibrary:
    """What became of the native backend on this machine.

    Attributes:
        there: JAX can call it.
        reason: why it is not there, in one line; what it is, where it is.
        path: of the library.
    """

    there: bool
    reason: str
    path: Path | None = None


def cache_folder() -> Path:
    """Where libraries are kept: JAXSNN_CACHE_DIR, else the user's cache."""
    if own := os.environ.get("JAXSNN_CACHE_DIR"):
        return Path(own)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "jaxsnn"


@functools.cache
def native_library(dtype: str = "float32") -> NativeLibrary:
    """The library for a type of numbers, built and registered; or why there is none. Looked at once
    in a process.
    """
    if dtype not in _NUMBERS:
        return _missing(f"numbers are {dtype}, and neither float32 nor float64")
    compiler = _compiler()
    if compiler is None:
        return _missing("no C++ compiler: none of c++, g++ and clang++ is on the PATH, nor is CXX")
    try:
        path = _built(compiler, dtype)
        _register(path, dtype)
    except (OSError, subprocess.SubprocessError, RuntimeError, AttributeError) as error:
        what = str(error) or type(error).__name__
        return _missing(f"{compiler} did not build it: {what.splitlines()[0]}")
    return NativeLibrary(there=True, reason=f"built by {compiler} into {path}", path=path)


def _missing(reason: str) -> NativeLibrary:
    return NativeLibrary(there=False, reason=reason)


def _compiler() -> str | None:
    names = [os.environ.get("CXX", ""), "c++", "g++", "clang++"]
    return next((found for name in names if name and (found := shutil.which(name))), None)


def _built(compiler: str, dtype: str) -> Path:
    """The path of the library, which is built if it is not there.

    Raises:
        OSError, subprocess.SubprocessError, RuntimeError: it cannot be built, or not be kept.
    """
    path = cache_folder() / f"native-{dtype}-{_key(compiler)}.so"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    # One builds it, the others wait; where nothing locks, each does, and one of them stays.
    with _alone(path), tempfile.TemporaryDirectory(dir=path.parent) as folder:
        if not path.exists():
            unfinished = Path(folder) / path.name
            _compile(compiler, dtype, unfinished)
            os.replace(unfinished, path)
    return path


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Until no other process builds this library, and then alone."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    name = path.with_suffix(".lock")
    with name.open("w") as lock:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            name.unlink(missing_ok=True)


def _compile(compiler: str, dtype: str, output: Path) -> None:
    numbers, include = f"-DNUMBER={_NUMBERS[dtype]}", f"-I{jax.ffi.include_dir()}"
    source = str(_SOURCES / _MAIN)
    problem = ""
    for machine in _MACHINE_FLAGS:
        flags = [*_FLAGS, *machine, *_more_flags(), numbers, include]
        command = [compiler, *flags, source, "-o", str(output)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
        if done.returncode == 0:
            return
        lines = [line for line in done.stderr.splitlines() if "error" in line]
        problem = problem or next(iter(lines), f"exit code {done.returncode}")
    raise RuntimeError(problem)


def _more_flags() -> list[str]:
    """Flags of the user's: for sanitizers, say."""
    return os.environ.get("JAXSNN_CXXFLAGS", "").split()


def _key(compiler: str) -> str:
    """A name for what the library depends on: sources, compiler, flags, JAX and the machine."""
    digest = hashlib.sha256()
    for part in _ingredients(compiler):
        digest.update(part + b"\0")
    return digest.hexdigest()[:20]


def _ingredients(compiler: str) -> Iterator[bytes]:
    for source in sorted(_SOURCES.iterdir()):
        yield source.name.encode()
        yield source.read_bytes()
    version = subprocess.run(
        [compiler, "--version"], capture_output=True, timeout=_PATIENCE, check=True
    )
    yield compiler.encode() + version.stdout
    flags = _FLAGS, _MACHINE_FLAGS, _more_flags()
    yield repr((flags, jaxlib.version.__version__, platform.machine())).encode()
    # Folders may be shared by machines that do not have the same instructions.
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text(errors="replace").splitlines()
        yield next((line for line in lines if line.startswith(("flags", "Features"))), "").encode()


def target_name(target: str, dtype: str) -> str:
    """What JAX knows one of `TARGETS` as."""
    return f"{target}_{dtype}"


def _register(path: Path, dtype: str) -> None:
    library = ctypes.CDLL(str(path))
    for target in TARGETS:
        handler = jax.ffi.pycapsule(getattr(library, target))
        jax.ffi.register_ffi_target(target_name(target, dtype), handler, platform="cpu")


def kernel(
    target: str, results: Sequence[jax.ShapeDtypeStruct], dtype: str = ""
) -> Callable[..., Any]:
    """One of `TARGETS` for a type of numbers, by default that of its first result.

    Raises:
        RuntimeError: it is not there.
        UsageError: where it is differentiated, which first derivatives do not.
    """
    dtype = dtype or results[0].dtype.name
    if not (library := native_library(dtype)).there:
        raise RuntimeError(library.reason)
    call = jax.ffi.ffi_call(target_name(target, dtype), results, vmap_method="sequential")

    def without_derivative(*arguments: Any, **attributes: Any) -> Any:
        run = jax.custom_jvp(functools.partial(call, **attributes))
        run.defjvp(_refuse_derivative)
        return run(*arguments)

    return without_derivative


def _refuse_derivative(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
    del primals, tangents
    raise UsageError(
        "a second derivative through a loop or a convolution is not there natively",
        fix="simulate with EventDriven(backend='xla'), by jax.jacfwd(jax.grad(...))",
    )


def thread_count(wanted: int | None) -> int:
    """How many threads a kernel uses: those wanted, or the processors that there are for us."""
    if wanted is not None:
        return wanted
    if hasattr(os, "sched_getaffinity"):
        return max(len(os.sched_getaffinity(0)), 1)
    return os.cpu_count() or 1
