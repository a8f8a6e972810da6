"""Build backend: hatchling, which gets XLA's headers from jaxlib if a wheel is built with a compiler.

A requirement in pyproject.toml would be installed without a compiler, too, and for editable installs,
which compile at first use: jaxlib and its dependencies are more than 100 MB.
"""

from __future__ import annotations

from typing import Any

from build_hook import kernel_compiler
from hatchling import build as hatchling_build
from hatchling.build import *  # noqa: F403

#: The oldest jaxlib that pyproject.toml allows: a wheel built with its headers was loaded by 0.10.0,
#: 0.10.1 and 0.10.2.
HEADERS = "jaxlib==0.10.0"


def get_requires_for_build_wheel(config_settings: dict[str, Any] | None = None) -> list[str]:
    """Return the packages that building a wheel needs (PEP 517)."""
    required = hatchling_build.get_requires_for_build_wheel(config_settings)
    return [*required, HEADERS] if kernel_compiler().find_compiler() else required
