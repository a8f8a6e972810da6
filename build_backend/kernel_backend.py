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

#: The releases of jaxlib that pyproject.toml allows, and the oldest, for wheels that are published: a wheel
#: built with its headers was loaded by 0.10.0, 0.10.1 and 0.10.2.
ALLOWED, OLDEST = "jaxlib>=0.10,<0.11", "jaxlib==0.10.0"


def get_requires_for_build_wheel(config_settings: dict[str, Any] | None = None) -> list[str]:
    """Return the packages that building a wheel needs (PEP 517)."""
    required = hatchling_build.get_requires_for_build_wheel(config_settings)
    if kernel_compiler().find_compiler() is None:
        return required
    return [*required, OLDEST if os.environ.get("JAXSNN_WHEEL_LEVELS") == "all" else ALLOWED]
