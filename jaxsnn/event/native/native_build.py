"""Builds the kernels at their first use, stores them in a cache folder, and registers them with JAX."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.ffi
import jaxlib.version

from jaxsnn.errors import UsageError, warn_of_environment
from jaxsnn.event.native.native_cache import (
    UntrustedError,
    build_folder,
    cache_folder,
    defect,
    keep,
    locked_build,
    open_intact,
    prepared_folder,
    refuse_untrusted_parent,
    remove_leftovers,
    was_built_again,
)
from jaxsnn.output import close

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
        path: path of the library; None if it was built for this process only.
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
    destination = "for this process only" if path is None else f"into {path}"
    reason = f"built by {compiler} {destination}"
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


def _loaded(compiler: str, dtype: str) -> tuple[Path | None, ctypes.CDLL]:
    """Return the path of the library and the library itself, loaded and registered. A library that
    cannot be loaded is rebuilt once. If other users can change the cache folder, the library is
    built for this process only, and the path is None.

    Raises:
        NoLibraryError: it cannot be built, stored or loaded.
    """
    with _otherwise(*_does_not_build(compiler)):
        name = f"native-{dtype}-{_key(compiler)}.so"
    with _otherwise("there is no cache folder for the native kernels", _OTHER_FOLDER):
        folder = cache_folder()
    try:
        with _otherwise(_cannot_be_stored(folder), _OTHER_FOLDER):
            folder = prepared_folder()
    except NoLibraryError as error:
        if not isinstance(error.__cause__, UntrustedError):
            raise
        reason = f"{error.__cause__}, and kernels are not loaded from {folder}"
        return None, _loaded_once(compiler, dtype, name, reason)
    path = folder / name
    _build(compiler, dtype, path)
    try:
        return path, _register(path, dtype)
    except (OSError, AttributeError) as error:
        _build(compiler, dtype, path, again=str(error))
    fix = "set JAXSNN_CACHE_DIR to a folder from which programs may be executed"
    with _otherwise(f"{path} cannot be loaded", fix):
        return path, _register(path, dtype)


def _loaded_once(compiler: str, dtype: str, name: str, reason: str) -> ctypes.CDLL:
    """Return the library, built in a temporary folder, which is removed once it is loaded.

    Args:
        reason: reason why the cache folder is not used.

    Raises:
        NoLibraryError: it cannot be built or loaded.
    """
    failure = f"{reason}; they cannot be built in a temporary folder either"
    with _otherwise(failure, _OTHER_FOLDER), build_folder(None, "jaxsnn-") as private:
        refuse_untrusted_parent(private)
        path = private / name
        with _otherwise(*_does_not_build(compiler)):
            _compile(compiler, dtype, path)
        keep(path, path, again=False)
        handle = _register(path, dtype)
    fix = "set JAXSNN_CACHE_DIR to a folder that only you can write to"
    warn_of_environment(f"{reason}; they were compiled for this process only: {fix}")
    return handle


def _does_not_build(compiler: str) -> tuple[str, str]:
    return f"{compiler} could not build the native kernels", "set CXX to another compiler"


def _cannot_be_stored(folder: Path) -> str:
    return f"the native kernels cannot be stored in {folder} (JAXSNN_CACHE_DIR)"


def _build(compiler: str, dtype: str, path: Path, *, again: str = "") -> None:
    """Build the library if it is missing, damaged or not trusted.

    Args:
        again: reason to replace an existing library, unless it was rebuilt already.

    Raises:
        NoLibraryError: it cannot be built or stored.
    """

    def is_there() -> bool:
        return was_built_again(path) if again else defect(path) is None

    if is_there():
        return
    # One process builds the library while the others wait. Without file locks each process builds
    # it, and the last result replaces the others.
    with _otherwise(_cannot_be_stored(path.parent), _OTHER_FOLDER), locked_build(path) as locked:
        if is_there():
            return
        reason = again or defect(path)
        if locked:
            remove_leftovers(path)
        with build_folder(path.parent, f"{path.stem}-") as folder:
            built = folder / path.name
            with _otherwise(*_does_not_build(compiler)):
                _compile(compiler, dtype, built)
            keep(built, path, again=bool(again))
    if reason:
        warn_of_environment(f"{reason}: the native kernels were built again")


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


#: Paths of the loaded libraries, by the loader's handle.
_LOADED: dict[int, Path] = {}


def _register(path: Path, dtype: str) -> ctypes.CDLL:
    """Load a library and register its kernels.

    Raises:
        OSError: it is damaged, not trusted, or cannot be loaded.
        AttributeError: it lacks a kernel.
    """
    library = _load(path)
    handlers = [jax.ffi.pycapsule(getattr(library, target)) for target in TARGETS]
    for target, handler in zip(TARGETS, handlers, strict=True):
        jax.ffi.register_ffi_target(target_name(target, dtype), handler, platform="cpu")
    return library


def _load(path: Path) -> ctypes.CDLL:
    """Load the file that was checked, even if another file takes its name in the meantime."""
    descriptor = open_intact(path)
    opened = f"/proc/self/fd/{descriptor}"
    try:
        library = ctypes.CDLL(opened if os.path.exists(opened) else str(path))
        # The loader identifies libraries by their names. Where a program has closed the descriptor
        # of an earlier library, its number is used again, and the loader returns that library.
        if _LOADED.setdefault(library._handle, path) != path:
            raise OSError(f"{path} cannot be distinguished from {_LOADED[library._handle]}")
    except BaseException as error:
        close(descriptor)
        if isinstance(error, OSError):
            raise OSError(str(error).replace(opened, str(path))) from error
        raise
    return library  # with the descriptor open, so that its number is not used again


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
