"""Build hook of hatchling: compiles the kernels and adds them to the wheel.

A wheel contains the kernels for the instruction set of this machine, or, with
JAXSNN_WHEEL_LEVELS=all, for all instruction sets of its architecture. Without a compiler the wheel
contains no kernels, and they are compiled at first use if a compiler is installed then.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_NATIVE = Path("jaxsnn", "event", "native")


@cache
def kernel_compiler() -> ModuleType:
    """Return the module that compiles the kernels, without importing the package around it."""
    path = Path(__file__).parents[1] / _NATIVE / "kernel_compiler.py"
    spec = importlib.util.spec_from_file_location("kernel_compiler", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class KernelBuildHook(BuildHookInterface):
    """Hook that compiles the kernels for a wheel, but not for an editable install."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the kernels.

        Raises:
            RuntimeError: they cannot be compiled, and JAXSNN_WHEEL_LEVELS requires them.
        """
        if version == "editable":
            return
        self._folder = tempfile.TemporaryDirectory(prefix="jaxsnn-wheel-")
        try:
            libraries = self._compile(Path(self._folder.name))
        except (OSError, subprocess.SubprocessError, RuntimeError) as error:
            if self._requires_all():
                raise
            self.app.display_warning(f"the wheel contains no kernels: {error}")
            return
        for library in libraries:
            target = _NATIVE / kernel_compiler().PREBUILT.name / library.name
            build_data["force_include"][str(library)] = str(target)
        # The libraries do not depend on the version of Python.
        machine_tag = self.build_config.builder.get_best_matching_tag().split("-")[2]
        build_data["tag"] = f"py3-none-{machine_tag}"
        build_data["pure_python"] = False

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the compiled libraries."""
        del build_data, artifact_path
        if version != "editable":
            self._folder.cleanup()

    def _requires_all(self) -> bool:
        return os.environ.get("JAXSNN_WHEEL_LEVELS") == "all"

    def _compile(self, folder: Path) -> list[Path]:
        """Return the paths of the compiled libraries.

        Raises:
            RuntimeError: there is no compiler or no header, or the compiler reports an error.
            OSError, subprocess.SubprocessError: the compiler cannot be run.
        """
        build = kernel_compiler()
        compiler, jaxlib = build.find_compiler(), importlib.util.find_spec("jaxlib")
        if compiler is None:
            raise RuntimeError("there is no C++ compiler")
        if jaxlib is None or jaxlib.origin is None:
            raise RuntimeError("jaxlib, which contains XLA's headers, is not installed")
        headers = str(Path(jaxlib.origin).parent / "include")
        if self._requires_all():
            levels = [*build.LEVELS.get(platform.machine(), {})]
        else:
            levels = build.supported_levels()[:1]
        libraries = []
        for level in levels:
            for dtype in build.NUMBERS:
                library = folder / build.prebuilt_path(dtype, level).name
                self.app.display_info(f"compiling the kernels for {level}, {dtype}")
                build.compile_library(compiler, dtype, library, headers, [build.level_flags(level)])
                libraries.append(library)
        if not libraries:
            raise RuntimeError(f"there are no instruction sets for {platform.machine()}")
        return libraries
