"""Event-driven simulation and exact-gradient training of spiking networks described in NIR.

The public names are resolved on first use: `import jaxsnn` alone loads neither JAX nor NumPy.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxsnn.bss2.check import check_mapping as check_mapping
    from jaxsnn.bss2.emulate import EmulatedChip as EmulatedChip
    from jaxsnn.bss2.emulate import emulate as emulate
    from jaxsnn.bss2.portfolio import map_net as map_net
    from jaxsnn.bss2.quantize import quantize as quantize
    from jaxsnn.check import check as check
    from jaxsnn.errors import JaxsnnError as JaxsnnError
    from jaxsnn.event import Event as Event
    from jaxsnn.event import Events as Events
    from jaxsnn.fidelity import fidelity as fidelity
    from jaxsnn.grid.engine import Grid as Grid
    from jaxsnn.grid.solution import GridSolution as GridSolution
    from jaxsnn.grid.surrogate import ArcTan as ArcTan
    from jaxsnn.grid.surrogate import FastSigmoid as FastSigmoid
    from jaxsnn.grid.surrogate import Sigmoid as Sigmoid
    from jaxsnn.grid.surrogate import StraightThrough as StraightThrough
    from jaxsnn.lower import lower as lower
    from jaxsnn.lower import raise_ as raise_
    from jaxsnn.network import Network as Network
    from jaxsnn.network import with_synaptic_delays as with_synaptic_delays
    from jaxsnn.nir import Graph as Graph
    from jaxsnn.nir import export as export
    from jaxsnn.nir import parse as parse
    from jaxsnn.nir import read as read
    from jaxsnn.nir import sequential as sequential
    from jaxsnn.nir import write as write
    from jaxsnn.nir.convert import convert as convert
    from jaxsnn.nir.torch_bridge import from_torch as from_torch
    from jaxsnn.nir.torch_bridge import to_torch as to_torch
    from jaxsnn.results import Result as Result
    from jaxsnn.simulate import Solution as Solution
    from jaxsnn.simulate import simulate as simulate
    from jaxsnn.train import fit as fit
    from jaxsnn.verify import Verification as Verification
    from jaxsnn.verify import verify as verify

__version__ = "0.1.0"

_HOME = {
    "ArcTan": "jaxsnn.grid.surrogate",
    "EmulatedChip": "jaxsnn.bss2.emulate",
    "Event": "jaxsnn.event",
    "Events": "jaxsnn.event",
    "FastSigmoid": "jaxsnn.grid.surrogate",
    "Graph": "jaxsnn.nir",
    "Grid": "jaxsnn.grid.engine",
    "GridSolution": "jaxsnn.grid.solution",
    "JaxsnnError": "jaxsnn.errors",
    "Network": "jaxsnn.network",
    "Result": "jaxsnn.results",
    "Sigmoid": "jaxsnn.grid.surrogate",
    "Solution": "jaxsnn.simulate",
    "StraightThrough": "jaxsnn.grid.surrogate",
    "Verification": "jaxsnn.verify",
    "check": "jaxsnn.check",
    "check_mapping": "jaxsnn.bss2.check",
    "convert": "jaxsnn.nir.convert",
    "emulate": "jaxsnn.bss2.emulate",
    "export": "jaxsnn.nir",
    "fidelity": "jaxsnn.fidelity",
    "fit": "jaxsnn.train",
    "from_torch": "jaxsnn.nir.torch_bridge",
    "lower": "jaxsnn.lower",
    "map_net": "jaxsnn.bss2.portfolio",
    "parse": "jaxsnn.nir",
    "quantize": "jaxsnn.bss2.quantize",
    "raise_": "jaxsnn.lower",
    "read": "jaxsnn.nir",
    "sequential": "jaxsnn.nir",
    "simulate": "jaxsnn.simulate",
    "to_torch": "jaxsnn.nir.torch_bridge",
    "verify": "jaxsnn.verify",
    "with_synaptic_delays": "jaxsnn.network",
    "write": "jaxsnn.nir",
}

__all__ = [*_HOME, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'jaxsnn' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    setattr(sys.modules[__name__], name, value)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """The import system stores a submodule on its package under the submodule's name; where that
    is also the name of a public function (`jaxsnn.simulate`), the function stays."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HOME and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
