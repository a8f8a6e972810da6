"""Descriptions of frameworks, one file each, and the registry, which also takes others."""

from jaxsnn.nir.frameworks.framework import Framework, Importer
from jaxsnn.nir.frameworks.registry import (
    framework_of,
    frameworks,
    register_framework,
    unregister_framework,
)
from jaxsnn.nir.frameworks.source_rule import NeuronRule
from jaxsnn.nir.model.decays import Decay
from jaxsnn.nir.model.dialect import Conventions, Evidence, FrameworkOption, Rule, StepLength

__all__ = [
    "Conventions",
    "Decay",
    "Evidence",
    "Framework",
    "FrameworkOption",
    "Importer",
    "NeuronRule",
    "Rule",
    "StepLength",
    "framework_of",
    "frameworks",
    "register_framework",
    "unregister_framework",
]
