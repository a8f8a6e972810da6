"""Event-driven simulation and exact-gradient training of spiking networks described in NIR.

The public names are resolved on first use: `import jaxsnn` alone loads neither JAX nor NumPy.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from jaxsnn.version import __version__

if TYPE_CHECKING:
    from jaxsnn.bss2.check import check_mapping as check_mapping
    from jaxsnn.bss2.emulate import EmulatedChip as EmulatedChip
    from jaxsnn.bss2.emulate import emulate as emulate
    from jaxsnn.bss2.search.portfolio import place_and_route as place_and_route
    from jaxsnn.bss2.search.quantize import quantize as quantize
    from jaxsnn.compatibility.checks import check as check
    from jaxsnn.errors import ApproximationWarning as ApproximationWarning
    from jaxsnn.errors import EnvironmentWarning as EnvironmentWarning
    from jaxsnn.errors import JaxsnnError as JaxsnnError
    from jaxsnn.errors import Note as Note
    from jaxsnn.event.event_driven import EventDriven as EventDriven
    from jaxsnn.event.event_solution import EventSolution as EventSolution
    from jaxsnn.event.streaming import EventStream as EventStream
    from jaxsnn.event.streaming import stream as stream
    from jaxsnn.grid.stepped_solution import SteppedSolution as SteppedSolution
    from jaxsnn.grid.surrogate import ArcTan as ArcTan
    from jaxsnn.grid.surrogate import FastSigmoid as FastSigmoid
    from jaxsnn.grid.surrogate import Sigmoid as Sigmoid
    from jaxsnn.grid.surrogate import StraightThrough as StraightThrough
    from jaxsnn.grid.time_stepped import TimeStepped as TimeStepped
    from jaxsnn.network.lowering.lower import lower as lower
    from jaxsnn.network.lowering.lower import update_graph as update_graph
    from jaxsnn.network.network import Network as Network
    from jaxsnn.network.network import with_synaptic_delays as with_synaptic_delays
    from jaxsnn.network.neuron_models import NeuronModel as NeuronModel
    from jaxsnn.network.neuron_models import register_neuron as register_neuron
    from jaxsnn.network.results import Result as Result
    from jaxsnn.network.spikes import Events as Events
    from jaxsnn.network.valued_inputs import Currents as Currents
    from jaxsnn.network.valued_inputs import GradedEvents as GradedEvents
    from jaxsnn.nir import Graph as Graph
    from jaxsnn.nir import export as export
    from jaxsnn.nir import parse as parse
    from jaxsnn.nir import read as read
    from jaxsnn.nir import sequential as sequential
    from jaxsnn.nir import write as write
    from jaxsnn.nir.convert.pipeline import convert as convert
    from jaxsnn.nir.frameworks import Framework as Framework
    from jaxsnn.nir.frameworks import register_framework as register_framework
    from jaxsnn.nir.model.node import NodeTraits as NodeTraits
    from jaxsnn.nir.model.nodes import register_node as register_node
    from jaxsnn.nir.torch.to_torch import to_torch as to_torch
    from jaxsnn.simulation.fidelity import fidelity as fidelity
    from jaxsnn.simulation.neurobench import NeuroBench as NeuroBench
    from jaxsnn.simulation.neurobench import neurobench as neurobench
    from jaxsnn.simulation.poisson import poisson_events as poisson_events
    from jaxsnn.simulation.reset_comparison import compare_resets as compare_resets
    from jaxsnn.simulation.simulate import simulate as simulate
    from jaxsnn.simulation.solution import Solution as Solution
    from jaxsnn.simulation.torch_modules import from_torch as from_torch
    from jaxsnn.simulation.torch_modules import load_into as load_into
    from jaxsnn.simulation.torch_modules import split_module as split_module
    from jaxsnn.simulation.verification import Verification as Verification
    from jaxsnn.simulation.verification import verify as verify
    from jaxsnn.train import fit as fit

_HOME = {
    "ApproximationWarning": "jaxsnn.errors",
    "ArcTan": "jaxsnn.grid.surrogate",
    "Currents": "jaxsnn.network.valued_inputs",
    "EmulatedChip": "jaxsnn.bss2.emulate",
    "EnvironmentWarning": "jaxsnn.errors",
    "EventDriven": "jaxsnn.event.event_driven",
    "EventSolution": "jaxsnn.event.event_solution",
    "EventStream": "jaxsnn.event.streaming",
    "Events": "jaxsnn.network.spikes",
    "FastSigmoid": "jaxsnn.grid.surrogate",
    "Framework": "jaxsnn.nir.frameworks",
    "GradedEvents": "jaxsnn.network.valued_inputs",
    "Graph": "jaxsnn.nir",
    "JaxsnnError": "jaxsnn.errors",
    "Network": "jaxsnn.network.network",
    "NodeTraits": "jaxsnn.nir.model.node",
    "NeuroBench": "jaxsnn.simulation.neurobench",
    "NeuronModel": "jaxsnn.network.neuron_models",
    "Note": "jaxsnn.errors",
    "Result": "jaxsnn.network.results",
    "Sigmoid": "jaxsnn.grid.surrogate",
    "Solution": "jaxsnn.simulation.solution",
    "SteppedSolution": "jaxsnn.grid.stepped_solution",
    "StraightThrough": "jaxsnn.grid.surrogate",
    "TimeStepped": "jaxsnn.grid.time_stepped",
    "Verification": "jaxsnn.simulation.verification",
    "check": "jaxsnn.compatibility.checks",
    "check_mapping": "jaxsnn.bss2.check",
    "convert": "jaxsnn.nir.convert.pipeline",
    "emulate": "jaxsnn.bss2.emulate",
    "export": "jaxsnn.nir",
    "compare_resets": "jaxsnn.simulation.reset_comparison",
    "fidelity": "jaxsnn.simulation.fidelity",
    "fit": "jaxsnn.train",
    "from_torch": "jaxsnn.simulation.torch_modules",
    "load_into": "jaxsnn.simulation.torch_modules",
    "split_module": "jaxsnn.simulation.torch_modules",
    "lower": "jaxsnn.network.lowering.lower",
    "neurobench": "jaxsnn.simulation.neurobench",
    "parse": "jaxsnn.nir",
    "place_and_route": "jaxsnn.bss2.search.portfolio",
    "poisson_events": "jaxsnn.simulation.poisson",
    "quantize": "jaxsnn.bss2.search.quantize",
    "read": "jaxsnn.nir",
    "register_framework": "jaxsnn.nir.frameworks",
    "register_neuron": "jaxsnn.network.neuron_models",
    "register_node": "jaxsnn.nir.model.nodes",
    "sequential": "jaxsnn.nir",
    "simulate": "jaxsnn.simulation.simulate",
    "stream": "jaxsnn.event.streaming",
    "to_torch": "jaxsnn.nir.torch.to_torch",
    "update_graph": "jaxsnn.network.lowering.lower",
    "verify": "jaxsnn.simulation.verification",
    "with_synaptic_delays": "jaxsnn.network.network",
    "write": "jaxsnn.nir",
}

#: Subpackages with public names, loaded when they are first used.
_ROOMS = ("nir", "plot", "train")

__all__ = [*_HOME, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"jaxsnn.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'jaxsnn' has no attribute {name!r}")
    try:
        value = getattr(import_module(_HOME[name]), name)
    except ImportError as error:
        from jaxsnn.other_distributions import mixed_files_advice

        if advice := mixed_files_advice():
            raise ImportError(f"{error}; {advice}", name=error.name, path=error.path) from error
        raise
    setattr(sys.modules[__name__], name, value)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
