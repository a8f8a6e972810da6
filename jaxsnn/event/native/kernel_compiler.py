"""Compiles the kernels: at first use for this machine, and when a wheel is built for several
instruction sets.

Only the standard library is imported, because the build of a wheel loads this file by its path.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCES = Path(__file__).parent / "source"
#: Folder of the libraries that a wheel contains.
PREBUILT = Path(__file__).parent / "prebuilt"
#: Files that are compiled separately and in parallel; those that take longest come first.
UNITS = (
    "layer_forward.cc",
    "layer_backward.cc",
    "group.cc",
    "linear_backward.cc",
    "linear_forward.cc",
    "bindings.cc",
)
#: Dtype -> C++ type. Each dtype has its own library, since compilation is slow and float64 is
#: seldom needed.
NUMBERS = {"float32": "float", "float64": "double"}
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fPIC", "-pthread", "-w")
#: Compiler flags for the machine's instructions: the first set that the compiler accepts is used.
MACHINE_FLAGS = (("-march=native",), ("-mcpu=native",), ())
PATIENCE = 600  # timeout of a compiler call, seconds

#: Machine -> instruction sets for which wheels contain libraries, the fastest first, with the
#: features that the processor needs, as /proc/cpuinfo names them (System V psABI for x86-64, section
#: 3.1.1). jaxlib needs AVX, so processors without SSE4.2 do not occur.
_X86_64_V3 = ("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave")
_X86_64_V4 = (*_X86_64_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
LEVELS: dict[str, dict[str, tuple[str, ...]]] = {
    "x86_64": {"x86-64-v4": _X86_64_V4, "x86-64-v3": _X86_64_V3, "x86-64-v2": ()},
    "aarch64": {"generic": ()},
    "arm64": {"generic": ()},
}


def find_compiler() -> str | None:
    """Return the path of the C++ compiler, or None if there is none."""
    commands = [os.environ.get("CXX", ""), "c++", "g++", "clang++"]
    return next((path for name in commands if name and (path := shutil.which(name))), None)


def user_flags() -> list[str]:
    """Return the user's additional compiler flags, for example for sanitizers."""
    return os.environ.get("JAXSNN_CXXFLAGS", "").split()


def compiler_version(compiler: str) -> bytes:
    """Return what the compiler prints for --version.

    Raises:
        OSError, subprocess.SubprocessError: it cannot be run.
    """
    command = [compiler, "--version"]
    return subprocess.run(command, capture_output=True, timeout=PATIENCE, check=True).stdout


def cpu_features() -> str:
    """Return the processor's instruction sets, separated by spaces, as Linux names them; "" on other
    systems.
    """
    information = Path("/proc/cpuinfo")
    lines = information.read_text(errors="replace").splitlines() if information.exists() else []
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def supported_levels() -> list[str]:
    """Return the instruction sets of `LEVELS` that this machine supports, the fastest first."""
    features = set(cpu_features().split())
    levels = LEVELS.get(platform.machine(), {})
    return [level for level, needed in levels.items() if features.issuperset(needed)]


def level_flags(level: str) -> tuple[str, ...]:
    """Return the compiler flags of an instruction set."""
    return () if level == "generic" else (f"-march={level}",)


def source_parts() -> list[bytes]:
    """Return names and contents of the source files, in a fixed order."""
    files = sorted(SOURCES.iterdir())
    return [part for file in files for part in (file.name.encode(), file.read_bytes())]


def hash_of(parts: Sequence[bytes]) -> str:
    """Return 20 hexadecimal digits of the hash of several parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part + b"\0")
    return digest.hexdigest()[:20]


def prebuilt_path(dtype: str, level: str) -> Path:
    """Return the path of a library in a wheel. Its name contains a hash of the sources and flags, so
    that a library is not used after a change of them.
    """
    settings = repr((FLAGS, level_flags(level), LEVELS)).encode()
    return PREBUILT / f"native-{dtype}-{level}-{hash_of([*source_parts(), settings])}.so"


def compile_library(
    compiler: str,
    dtype: str,
    output: Path,
    include: str,
    machine_flags: Sequence[Sequence[str]] = MACHINE_FLAGS,
    units: Sequence[str | Path] = UNITS,
) -> None:
    """Compile and link the library of a number type; object files are written beside it and stay there.

    Args:
        include: folder of XLA's headers.
        machine_flags: flags for the instruction set; the first that the compiler accepts are used.
        units: files to compile, relative to the folder of the sources.

    Raises:
        OSError, subprocess.SubprocessError: the compiler cannot be run.
        RuntimeError: the compiler reports an error.
    """
    problem = ""
    for machine in machine_flags:
        flags = [*FLAGS, *machine, *user_flags()]
        numbers = [f"-DNUMBER={NUMBERS[dtype]}", f"-I{include}", f"-I{SOURCES}"]
        objects = [str(output.parent / f"{output.stem}-{Path(unit).stem}.o") for unit in units]
        commands = [
            [compiler, *flags, *numbers, "-c", str(SOURCES / unit), "-o", compiled]
            for unit, compiled in zip(units, objects, strict=True)
        ]
        error = _run_in_parallel(commands) or _run_in_parallel(
            [[compiler, *flags, "-shared", *objects, "-o", str(output)]]
        )
        if not error:
            return
        problem = problem or error
    raise RuntimeError(problem)


def _run_in_parallel(commands: Sequence[Sequence[str]]) -> str:
    """Run compiler commands, one per processor at a time, and return the first error in one line, or
    "". If this process is interrupted, the compilers end, too.
    """
    running: list[subprocess.Popen[str]] = []

    def run(command: Sequence[str]) -> str:
        with subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as process:
            running.append(process)
            try:
                errors = process.communicate(timeout=PATIENCE)[1]
            except BaseException:
                process.kill()
                raise
        if process.returncode == 0:
            return ""
        lines = [line for line in errors.splitlines() if "error" in line]
        return next(iter(lines), f"exit code {process.returncode}")

    with ThreadPoolExecutor(_processors()) as pool:
        try:
            return next(filter(None, pool.map(run, commands)), "")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.kill()
            raise


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return max(len(os.sched_getaffinity(0)), 1)
    return os.cpu_count() or 1
