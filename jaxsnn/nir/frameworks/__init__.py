"""What is known of each framework: one file each, and the register, which takes others too."""

from jaxsnn.nir.frameworks.decays import Decay
from jaxsnn.nir.frameworks.framework import (
    Conventions,
    Evidence,
    Framework,
    Importer,
    OwnOption,
    Rule,
    StepLength,
)
from jaxsnn.nir.frameworks.registry import (
    framework_of,
    frameworks,
    register_framework,
    unregister_framework,
)

__all__ = [
    "Conventions",
    "Decay",
    "Evidence",
    "Framework",
    "Importer",
    "OwnOption",
    "Rule",
    "StepLength",
    "framework_of",
    "frameworks",
    "register_framework",
    "unregister_framework",
]
