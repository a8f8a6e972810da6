"""What the suite needs to know of a framework: one small class with four methods."""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from typing import Any, Protocol

import numpy as np

from jaxsnn.conformance.networks import NetworkSpec
from jaxsnn.errors import UsageError, suggestion
from jaxsnn.wording import Text

#: Group of entry points with which distributions add adapters.
ENTRY_POINTS = "jaxsnn.adapters"


class NotApplicableError(Exception):
    """The framework has nothing like this network, and does not claim to; the message says what."""


class Adapter(Protocol):
    """Access to one framework.

    A method that the framework does not have raises `NotApplicableError`. All other exceptions are
    outcomes: an error that the framework's own code raises on purpose is a refusal, any other a crash.

    Attributes:
        name: name on the command line.
        distribution: name of the Python package.
        dt: length of the time step that modules have and that the importer assumes, in seconds.
        resets: resets of the framework's neurons, "zero" and "subtract".
        reduction_runs: optional; largest number of runs that reduce all failures. Default: 600.
    """

    name: str
    distribution: str
    dt: float
    resets: tuple[str, ...]

    def build(self, network: NetworkSpec) -> Any:
        """Return a module of the framework, with its own layers."""
        ...

    def export(self, module: Any, network: NetworkSpec) -> Any:
        """Return the nir.NIRGraph that the framework's exporter writes for a module from `build`."""
        ...

    def import_graph(self, graph: Any) -> Any:
        """Return what the framework's importer makes of a nir.NIRGraph."""
        ...

    def run(self, module: Any, x: np.ndarray) -> np.ndarray:
        """Return the outputs (time, batch, *shape) of a module from `build` or `import_graph`.

        Args:
            x: inputs (time, batch, *shape), channels first, float32.
        """
        ...


def adapters() -> dict[str, str]:
    """Return the locations of all adapters by name: those of this package, then external ones."""
    package = importlib.import_module("jaxsnn.conformance.adapters")
    names = (module.name for module in pkgutil.iter_modules(package.__path__))
    locations = {name: f"{package.__name__}.{name}:ADAPTER" for name in names}
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        locations.setdefault(entry.name, entry.value)
    return locations


def adapter_of(name: str) -> Adapter:
    """Return the adapter of a framework.

    Args:
        name: name of an adapter, or "MODULE:ATTRIBUTE" of one that is not installed.

    Raises:
        UsageError: there is no such adapter, or the framework is not installed.
    """
    location = name if ":" in name else adapters().get(name)
    if location is None:
        raise UsageError(
            Text("there is no adapter '{adapter}'", adapter=name),
            fix=suggestion(name, adapters()),
        )
    module, _, attribute = location.partition(":")
    try:
        adapter = getattr(importlib.import_module(module), attribute)
        importlib.metadata.version(adapter.distribution)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            Text(
                "the adapter '{adapter}' cannot be loaded: {reason}",
                adapter=name,
                reason=str(error),
            ),
            fix="install the framework in this environment, or correct the adapter",
        ) from error
    if isinstance(adapter, type):
        raise UsageError(
            Text("the adapter '{adapter}' is a class", adapter=name),
            fix="assign an instance to a name of the module, such as ADAPTER = MySimulator()",
        )
    return adapter
