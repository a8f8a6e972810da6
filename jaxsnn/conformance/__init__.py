"""The conformance suite: does a framework export and import NIR files that mean what it computes?"""

from jaxsnn.conformance.adapter import Adapter, NotApplicableError, adapter_of
from jaxsnn.conformance.networks import NetworkLayer, NetworkSpec
from jaxsnn.conformance.reference import Convention
from jaxsnn.conformance.suite import ConformanceReport, Failure, run

__all__ = [
    "Adapter",
    "ConformanceReport",
    "Convention",
    "Failure",
    "NetworkLayer",
    "NetworkSpec",
    "NotApplicableError",
    "adapter_of",
    "run",
]
