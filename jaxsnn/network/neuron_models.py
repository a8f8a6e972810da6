"""The kinds of neurons that the engines run: NIR's, and those that are registered from outside.

Nothing here loads JAX: objects that need it are created when an engine requests them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from jaxsnn.errors import LoweringError, UsageError, listing
from jaxsnn.keywords import suggests_keywords
from jaxsnn.wording import Text

ENTRY_POINTS = "jaxsnn.neurons"


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class NeuronModel:
    """Neuron model of one node type.

    Attributes:
        kind: name of the node type.
        fires: whether the neurons emit spikes; a readout does not.
        dynamics: function that returns the `jaxsnn.event.dynamics.neuron_model.Neuron` of a
            `jaxsnn.network.structure.Population`; None for
            NIR's own kinds, whose dynamics follow from the record of the population.
        stepping: function that returns the model for the time-stepped engine, a
            `jaxsnn.grid.step_input.SteppingModel`, or the location of this function, "module:name".
            It is called with the population, its parameters, and `dt`, `surrogate` and
            `detach_reset`. None: the time-stepped engine uses `dynamics`, which is exact.
    """

    kind: str
    fires: bool
    dynamics: Callable[[Any], Any] | None = None
    stepping: Callable[..., Any] | str | None = None


#: Types of neurons of NIR.
NIR_KINDS = ("CubaLIF", "CubaLI", "LIF", "LI", "IF", "I")
_NIR = {kind: NeuronModel(kind=kind, fires=kind.endswith("F")) for kind in NIR_KINDS}
#: Extensions of this package, which are defined in time steps only.
_STEPPED = {
    kind: NeuronModel(kind=kind, fires=True, stepping=f"jaxsnn.grid.extension_neurons:{maker}")
    for kind, maker in (("Alpha", "AlphaStepper"), ("LIFRefrac", "refractory_stepper"))
}
STEPPED_KINDS = tuple(_STEPPED)
_BUILT_IN = _NIR | _STEPPED
_REGISTERED: dict[str, NeuronModel] = {}


@suggests_keywords
def register_neuron(model: NeuronModel) -> None:
    """Register a neuron kind for both engines.

    Raises:
        UsageError: there is another kind of that name, or the model has no dynamics.
    """
    if model.kind in _BUILT_IN or _REGISTERED.get(model.kind, model) != model:
        raise UsageError(
            Text("neuron model '{kind}' is already registered", kind=model.kind),
            fix="register the model under another name",
        )
    if model.dynamics is None:
        raise UsageError(
            Text("neuron model '{kind}' has no dynamics", kind=model.kind),
            fix="pass dynamics=, a function that returns a Neuron for a population",
        )
    _REGISTERED[model.kind] = model


@cache
def _load_entry_points() -> None:
    for entry in entry_points(group=ENTRY_POINTS):
        register_neuron(entry.load())


def neuron_kinds() -> tuple[str, ...]:
    """Return the names of all neuron kinds."""
    _load_entry_points()
    return (*_BUILT_IN, *_REGISTERED)


def is_registered(kind: str) -> bool:
    """Return whether a neuron kind is registered by a plug-in."""
    return kind in _REGISTERED


def model_of(kind: str) -> NeuronModel:
    """Return the model of a neuron kind.

    Raises:
        LoweringError: no such kind is registered.
    """
    built_in = _BUILT_IN.get(kind)
    if built_in is not None:
        return built_in
    _load_entry_points()
    if kind not in _REGISTERED:
        raise LoweringError(
            Text(
                "neuron model '{kind}' is not registered. Available: {kinds}",
                kind=kind,
                kinds=listing(neuron_kinds()),
            ),
            fix="register one with jaxsnn.register_neuron",
        )
    return _REGISTERED[kind]
