"""Build backend: hatchling, which gets XLA's headers from jaxlib if a wheel is built with a compiler.

A requirement in pyproject.toml would be installed without a compiler, too, and for editable installs,
which compile at first use: jaxlib and its dependencies are more than 100 MB.
"""

from __future__ import annotations

import os
from typing import Any

from build_hook import kernel_compiler
from hatchling import build as hatchling_build
from hatchling.build import *  # noqa: F403

#: The headers contain the version of XLA's FFI API (XLA_FFI_API_MAJOR and XLA_FFI_API_MINOR in
#: xla/ffi/api/c_api.h). XLA refuses kernels whose version is above its own, or below the oldest that
#: it supports. The oldest jaxlib that pyproject.toml allows has the lowest version: 0.3, as have 0.10.1
#: and 0.10.2, which accept 0.1 to 0.3. Wheels for others are built with it.
OLDEST = "jaxlib==0.10.0"
#: Requirement of jaxlib for a wheel of this machine: what pyproject.toml allows, so that it can be
#: installed where the package can.
ALLOWED = "jaxlib>=0.10,<0.11"


def get_requires_for_build_wheel(config_settings: dict[str, Any] | None = None) -> list[str]:
    """Return the packages that building a wheel needs (PEP 517)."""
    required = hatchling_build.get_requires_for_build_wheel(config_settings)
    if kernel_compiler().find_compiler() is None:
        return required
    return [*required, OLDEST if os.environ.get("JAXSNN_WHEEL_LEVELS") == "all" else ALLOWED]
