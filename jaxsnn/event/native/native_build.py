"""Loads the kernels and registers them with JAX: those that the installed wheel contains, or those that
are compiled at first use and stored in a cache folder.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.ffi
import jaxlib.version

from jaxsnn.console import report_progress
from jaxsnn.errors import UsageError, warn_of_environment
from jaxsnn.event.native.kernel_compiler import (
    FLAGS,
    MACHINE_FLAGS,
    NUMBERS,
    PREBUILT,
    compile_library,
    compiler_version,
    cpu_features,
    find_compiler,
    hash_of,
    prebuilt_path,
    source_parts,
    supported_levels,
    user_flags,
)
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

#: Names of the XLA FFI handlers in bindings.cc; `target_name` appends the dtype.
TARGETS = (
    "jaxsnn_layer_forward",
    "jaxsnn_layer_backward",
    "jaxsnn_layer_recorded",
    "jaxsnn_linear_forward",
    "jaxsnn_linear_backward",
    "jaxsnn_group_forward",
    "jaxsnn_group_backward",
    "jaxsnn_scatter_forward",
    "jaxsnn_scatter_backward",
    "jaxsnn_readout_forward",
    "jaxsnn_readout_backward",
    "jaxsnn_earliest",
    "jaxsnn_transpose",
)
#: Names of the handlers of a neuron model in integrated_calls.h.
MODEL_TARGETS = ("jaxsnn_integrated_forward", "jaxsnn_integrated_backward")
_OTHER_FOLDER = "set JAXSNN_CACHE_DIR to a writable folder"


@dataclass(frozen=True, kw_only=True)
class NativeLibrary:
    """Availability of the native backend on this machine.

    Attributes:
        there: whether JAX can call the library.
        reason: reason for its absence, in one line; if available, where it comes from.
        path: path of the library; None if it was built for this process only.
        handle: handle of the loaded library.
        fix: advice if the library is not available.
        level: instruction set of a library of the wheel; "" if it was compiled on this machine.
    """

    there: bool
    reason: str
    path: Path | None = None
    handle: ctypes.CDLL | None = None
    fix: str = ""
    level: str = ""


class NoLibraryError(Exception):
    """Error raised if no library is available, with the reason in one line and a fix."""

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(reason)
        self.reason, self.fix = reason, fix


@functools.cache
def native_library(dtype: str = "float32") -> NativeLibrary:
    """Load and register the library for a number type, or return the reason for its absence. The
    library of the wheel is used if it fits; otherwise the library is compiled, unless the cache
    contains it. The result is cached for the process.
    """
    try:
        if dtype not in NUMBERS:
            reason = f"the dtype is {dtype}; the native kernels support float32 and float64"
            raise NoLibraryError(reason, "use float32 or float64")
        prebuilt = _load_prebuilt(dtype)
        if isinstance(prebuilt, NativeLibrary):
            return prebuilt
        compiler = find_compiler()
        if compiler is None:
            raise NoLibraryError(
                "no C++ compiler: PATH contains none of c++, g++ and clang++, and CXX specifies "
                f"none; {prebuilt}",
                "install a C++ compiler",
            )
        path, handle = _loaded(compiler, dtype)
    except NoLibraryError as error:
        return NativeLibrary(there=False, reason=error.reason, fix=error.fix)
    destination = "for this process only" if path is None else f"into {path}"
    reason = f"built by {compiler} {destination}; {prebuilt}"
    return NativeLibrary(there=True, reason=reason, path=path, handle=handle)


def _load_prebuilt(dtype: str) -> NativeLibrary | str:
    """Return the library of the wheel for this processor, loaded and registered, or the reason why
    there is none. Code of the installed package is trusted like its Python files.
    """
    # Conda environments and build systems set CXX, which therefore does not ask for a build.
    if user_flags():
        return "prebuilt kernels are not used because JAXSNN_CXXFLAGS is set"
    paths = {level: prebuilt_path(dtype, level) for level in supported_levels()}
    level = next((level for level, path in paths.items() if path.is_file()), None)
    if level is None:
        if not PREBUILT.is_dir():
            return "this installation contains no prebuilt kernels"
        return "this installation contains no prebuilt kernels for this processor and these sources"
    path = paths[level]
    try:
        handle = _register(ctypes.CDLL(str(path)), dtype)
    except (OSError, AttributeError, RuntimeError) as error:
        reason = f"the prebuilt kernels {path} cannot be loaded ({str(error).splitlines()[0]})"
        warn_of_environment(reason)
        return reason
    reason = f"prebuilt for {level}: {path}"
    return NativeLibrary(there=True, reason=reason, path=path, handle=handle, level=level)


@contextmanager
def _otherwise(failure: str, fix: str) -> Iterator[None]:
    """Convert errors of the block into a `NoLibraryError` with the failed action and a fix."""
    try:
        yield
    except (OSError, subprocess.SubprocessError, RuntimeError, AttributeError) as error:
        text = str(error) or type(error).__name__
        raise NoLibraryError(f"{failure}: {text.splitlines()[0]}", fix) from error


@functools.cache
def model_library(model: str, dtype: str) -> NativeLibrary:
    """Load and register the library of a neuron model, or return the reason for its absence. It is
    compiled, unless the cache contains it.

    Args:
        model: C++ source (`model_source`).
    """
    compiler = find_compiler()
    if compiler is None:
        return NativeLibrary(
            there=False,
            reason="its neuron model has to be compiled, and there is no C++ compiler: PATH contains "
            "none of c++, g++ and clang++, and CXX specifies none",
            fix="install a C++ compiler",
        )
    try:
        path, handle = _loaded(compiler, dtype, model)
    except NoLibraryError as error:
        return NativeLibrary(there=False, reason=error.reason, fix=error.fix)
    return NativeLibrary(there=True, reason=f"built by {compiler}", path=path, handle=handle)


def _loaded(compiler: str, dtype: str, model: str = "") -> tuple[Path | None, ctypes.CDLL]:
    """Return the path of the library and the library itself, loaded and registered. A library that
    cannot be loaded is rebuilt once. If other users can change the cache folder, the library is
    built for this process only, and the path is None.

    Args:
        model: C++ source of a neuron model; "": the library of all other kernels.

    Raises:
        NoLibraryError: it cannot be built, stored or loaded.
    """
    with _otherwise(*_does_not_build(compiler)):
        name = f"native-{dtype}-{_key(compiler, model)}.so"
    with _otherwise("there is no cache folder for the native kernels", _OTHER_FOLDER):
        folder = cache_folder()
    try:
        with _otherwise(_cannot_be_stored(folder), _OTHER_FOLDER):
            folder = prepared_folder()
    except NoLibraryError as error:
        if not isinstance(error.__cause__, UntrustedError):
            raise
        reason = f"{error.__cause__}, and kernels are not loaded from {folder}"
        return None, _loaded_once(compiler, dtype, name, reason, model)
    path = folder / name
    _build(compiler, dtype, path, model)
    try:
        return path, _register(_load(path), dtype, model)
    except (OSError, AttributeError) as error:
        _build(compiler, dtype, path, model, again=str(error))
    fix = "set JAXSNN_CACHE_DIR to a folder from which programs may be executed"
    with _otherwise(f"{path} cannot be loaded", fix):
        return path, _register(_load(path), dtype, model)


def _loaded_once(compiler: str, dtype: str, name: str, reason: str, model: str = "") -> ctypes.CDLL:
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
            _compile(compiler, dtype, path, model)
        keep(path, path, again=False)
        handle = _register(_load(path), dtype, model)
    fix = "set JAXSNN_CACHE_DIR to a folder that only you can write to"
    warn_of_environment(f"{reason}; they were compiled for this process only: {fix}")
    return handle


def _does_not_build(compiler: str) -> tuple[str, str]:
    return f"{compiler} could not build the native kernels", "set CXX to another compiler"


def _cannot_be_stored(folder: Path) -> str:
    return f"the native kernels cannot be stored in {folder} (JAXSNN_CACHE_DIR)"


def _build(compiler: str, dtype: str, path: Path, model: str = "", *, again: str = "") -> None:
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
                _compile(compiler, dtype, built, model)
            keep(built, path, again=bool(again))
    if reason:
        warn_of_environment(f"{reason}: the native kernels were built again")


def _compile(compiler: str, dtype: str, output: Path, model: str = "") -> None:
    """Compile a library for this machine, and report how long it takes."""
    kernels, duration = "the native kernels", "half a minute"
    if model:
        kernels, duration = "the native kernels of a neuron model", "ten seconds"
    report_progress(
        f"jaxsnn: compiling {kernels} for {dtype}; this takes about {duration}, once on this machine"
    )
    start = time.perf_counter()
    if model:
        source = output.with_suffix(".cc")
        source.write_text(model)
        compile_library(compiler, dtype, output, jax.ffi.include_dir(), units=(source,))
    else:
        compile_library(compiler, dtype, output, jax.ffi.include_dir())
    report_progress(f"jaxsnn: compiled the native kernels in {time.perf_counter() - start:.1f} s")


def _key(compiler: str, model: str = "") -> str:
    """Return a hash of everything the library depends on: sources, compiler, flags, JAX and the
    machine.
    """
    settings = FLAGS, MACHINE_FLAGS, user_flags(), jaxlib.version.__version__, platform.machine()
    parts = [
        *source_parts(),
        compiler.encode() + compiler_version(compiler),
        repr(settings).encode(),
        # Machines with different CPU instructions may share a cache folder.
        cpu_features().encode(),
        *([model.encode()] if model else []),
    ]
    return hash_of(parts)


def target_name(target: str, dtype: str, model: str = "") -> str:
    """Return the name under which JAX registers one of `TARGETS`, or of `MODEL_TARGETS` of a model."""
    return f"{target}_{dtype}" + (f"_{hash_of([model.encode()])}" if model else "")


#: Paths of the loaded libraries, by the loader's handle.
_LOADED: dict[int, Path] = {}


def _register(library: ctypes.CDLL, dtype: str, model: str = "") -> ctypes.CDLL:
    """Register the kernels of a library.

    Raises:
        AttributeError: it lacks a kernel.
        RuntimeError: JAX refuses a kernel.
    """
    # Before JAX has started its CPU backend it only queues kernels. If it then refuses one, because
    # the library was built for other versions of its interface, every call of JAX fails. JAX_PLATFORMS
    # may exclude the CPU: then JAX never looks at the kernels.
    with suppress(RuntimeError):
        jax.local_devices(backend="cpu")
    targets = MODEL_TARGETS if model else TARGETS
    handlers = [jax.ffi.pycapsule(getattr(library, target)) for target in targets]
    for target, handler in zip(targets, handlers, strict=True):
        jax.ffi.register_ffi_target(target_name(target, dtype, model), handler, platform="cpu")
    return library


def _load(path: Path) -> ctypes.CDLL:
    """Load the file that was checked, even if another file takes its name in the meantime.

    Raises:
        OSError: it is damaged, not trusted, or cannot be loaded.
    """
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
    target: str, results: Sequence[jax.ShapeDtypeStruct], dtype: str = "", model: str = ""
) -> Callable[..., Any]:
    """Return a kernel as a function.

    Args:
        target: one of `TARGETS`, or of `MODEL_TARGETS` if there is a model.
        results: shapes and types of the results.
        dtype: floating-point type of the kernel; "": that of the first result.
        model: C++ source of a neuron model (`model_source`).

    Raises:
        RuntimeError: the library is not available.
        UsageError: the returned function is differentiated, as second derivatives do; for first
            derivatives there are separate kernels.
    """
    dtype = dtype or results[0].dtype.name
    library = model_library(model, dtype) if model else native_library(dtype)
    if not library.there:
        raise RuntimeError(library.reason)
    call = jax.ffi.ffi_call(target_name(target, dtype, model), results, vmap_method="sequential")

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
