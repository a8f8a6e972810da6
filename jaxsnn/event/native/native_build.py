"""Builds the kernels at their first use, stores them in a cache folder, and registers them with JAX."""

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
from jaxsnn.event.native.native_cache import (
    cache_folder,
    is_intact,
    keep,
    locked_build,
    remove_leftovers,
    was_built_again,
)

_SOURCES = Path(__file__).parent / "source"
_MAIN = "bindings.cc"
#: Names of the XLA FFI handlers in bindings.cc; `target_name` appends the dtype.
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
    "jaxsnn_transpose",
)
#: Dtype -> C++ type. Each dtype has its own library, since compilation is slow and float64 is
#: seldom needed.
_NUMBERS = {"float32": "float", "float64": "double"}
_FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fPIC", "-shared", "-pthread", "-w")
#: Compiler flags for the machine's instructions: the first set that the compiler accepts is used.
_MACHINE_FLAGS = (("-march=native",), ("-mcpu=native",), ())
_PATIENCE = 600  # timeout of a compiler call, seconds
_OTHER_FOLDER = "set JAXSNN_CACHE_DIR to a writable folder"


@dataclass(frozen=True, kw_only=True)
class NativeLibrary:
    """Availability of the native backend on this machine.

    Attributes:
        there: whether JAX can call the library.
        reason: reason for its absence, in one line; if available, its compiler and path.
        path: path of the library.
        handle: handle of the loaded library.
        fix: advice if the library is not available.
    """

    there: bool
    reason: str
    path: Path | None = None
    handle: ctypes.CDLL | None = None
    fix: str = ""


class NoLibraryError(Exception):
    """Error raised if no library is available, with the reason in one line and a fix."""

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(reason)
        self.reason, self.fix = reason, fix


@functools.cache
def native_library(dtype: str = "float32") -> NativeLibrary:
    """Build, load and register the library for a number type, or return the reason for its absence.
    The result is cached for the process.
    """
    try:
        compiler = _compiler_for(dtype)
        path, handle = _loaded(compiler, dtype)
    except NoLibraryError as error:
        return NativeLibrary(there=False, reason=error.reason, fix=error.fix)
    reason = f"built by {compiler} into {path}"
    return NativeLibrary(there=True, reason=reason, path=path, handle=handle)


def _compiler_for(dtype: str) -> str:
    """Return the compiler that builds the library.

    Raises:
        NoLibraryError: there is no compiler, or the number type is not supported.
    """
    if dtype not in _NUMBERS:
        reason = f"the dtype is {dtype}; the native kernels support float32 and float64"
        raise NoLibraryError(reason, "use float32 or float64")
    compiler = _compiler()
    if compiler is None:
        reason = (
            "no C++ compiler: PATH contains none of c++, g++ and clang++, and CXX specifies none"
        )
        raise NoLibraryError(reason, "install a C++ compiler")
    return compiler


@contextmanager
def _otherwise(failure: str, fix: str) -> Iterator[None]:
    """Convert errors of the block into a `NoLibraryError` with the failed action and a fix."""
    try:
        yield
    except (OSError, subprocess.SubprocessError, RuntimeError, AttributeError) as error:
        text = str(error) or type(error).__name__
        raise NoLibraryError(f"{failure}: {text.splitlines()[0]}", fix) from error


def _compiler() -> str | None:
    commands = [os.environ.get("CXX", ""), "c++", "g++", "clang++"]
    return next((path for name in commands if name and (path := shutil.which(name))), None)


def _loaded(compiler: str, dtype: str) -> tuple[Path, ctypes.CDLL]:
    """Return the path of the library and the library itself, loaded and registered. A library that
    cannot be loaded is rebuilt once.

    Raises:
        NoLibraryError: it cannot be built, stored or loaded.
    """
    path = _built(compiler, dtype)
    with suppress(OSError, AttributeError):
        return path, _register(path, dtype)
    _built(compiler, dtype, again=True)
    fix = "set JAXSNN_CACHE_DIR to a folder from which programs may be executed"
    with _otherwise(f"{path} cannot be loaded", fix):
        return path, _register(path, dtype)


def _built(compiler: str, dtype: str, *, again: bool = False) -> Path:
    """Return the path of the library, after building it if it is missing or damaged.

    Args:
        again: replace an existing library, unless it was rebuilt already.

    Raises:
        NoLibraryError: it cannot be built or stored.
    """
    does_not_build = f"{compiler} could not build the native kernels", "set CXX to another compiler"
    with _otherwise(*does_not_build):
        name = f"native-{dtype}-{_key(compiler)}.so"
    with _otherwise("there is no cache folder for the native kernels", _OTHER_FOLDER):
        path = cache_folder() / name
    is_there = was_built_again if again else is_intact
    if is_there(path):
        return path
    with _otherwise(
        f"the native kernels cannot be stored in {path.parent} (JAXSNN_CACHE_DIR)", _OTHER_FOLDER
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        # One process builds the library while the others wait. Without file locks each process
        # builds it, and the last result replaces the others.
        with locked_build(path) as locked:
            if is_there(path):
                return path
            if locked:
                remove_leftovers(path)
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=f"{path.stem}-") as folder:
                built = Path(folder) / path.name
                with _otherwise(*does_not_build):
                    _compile(compiler, dtype, built)
                keep(built, path, again=again)
    return path


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
    """Return the user's additional compiler flags, for example for sanitizers."""
    return os.environ.get("JAXSNN_CXXFLAGS", "").split()


def _key(compiler: str) -> str:
    """Return a hash of everything the library depends on: sources, compiler, flags, JAX and the
    machine.
    """
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
    # Machines with different CPU instructions may share a cache folder.
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text(errors="replace").splitlines()
        yield next((line for line in lines if line.startswith(("flags", "Features"))), "").encode()


def target_name(target: str, dtype: str) -> str:
    """Return the name under which JAX registers one of `TARGETS`."""
    return f"{target}_{dtype}"


def _register(path: Path, dtype: str) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    handlers = [jax.ffi.pycapsule(getattr(library, target)) for target in TARGETS]
    for target, handler in zip(TARGETS, handlers, strict=True):
        jax.ffi.register_ffi_target(target_name(target, dtype), handler, platform="cpu")
    return library


def kernel(
    target: str, results: Sequence[jax.ShapeDtypeStruct], dtype: str = ""
) -> Callable[..., Any]:
    """Return a kernel as a function.

    Args:
        target: one of `TARGETS`.
        results: shapes and types of the results.
        dtype: floating-point type of the kernel; "": that of the first result.

    Raises:
        RuntimeError: the library is not available.
        UsageError: the returned function is differentiated, as second derivatives do; for first
            derivatives there are separate kernels.
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
        "the native kernels do not support second derivatives through a cycle or a convolution",
        fix="pass EventDriven(backend='xla'), and use jax.jacfwd(jax.grad(...))",
    )


def thread_count(threads: int | None) -> int:
    """Return the number of threads of a kernel: `threads`, or the number of available
    processors.
    """
    if threads is not None:
        return threads
    if hasattr(os, "sched_getaffinity"):
        return max(len(os.sched_getaffinity(0)), 1)
    return os.cpu_count() or 1
