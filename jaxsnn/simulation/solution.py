"""Interface of an engine, and `Solution`, which every engine returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self, TypeVar, runtime_checkable

import jax

from jaxsnn.errors import Problem
from jaxsnn.network.network import Network
from jaxsnn.network.spikes import Events


class Reading(Protocol):
    """Observables that a loss can read from a run, by any engine; arrays (batch, neurons) of a
    population, by its NIR name.
    """

    def first_spike(self, name: str) -> jax.Array:
        """Return the first-spike latency of each neuron, seconds; inf if it is silent."""
        ...

    def count(self, name: str) -> jax.Array:
        """Return the number of spikes of each neuron."""
        ...

    def spike_sum(self, name: str, tau: float) -> jax.Array:
        """Return the sum of e^(-t / tau) over the spikes of each neuron."""
        ...

    def maximum(self, name: str) -> jax.Array:
        """Return the largest voltage of each neuron of a readout."""
        ...

    def mean(self, name: str) -> jax.Array:
        """Return the mean over time of the voltage of each neuron of a readout."""
        ...

    def integral(self, name: str, tau: float | None = None) -> jax.Array:
        """Return the integral of V(t) e^(-t / tau) of each neuron of a readout, volts times
        seconds; tau None: of V.
        """
        ...


@runtime_checkable
class Solution(Reading, Protocol):
    """Result of a run, by any engine; everything is by NIR node name."""

    @property
    def spikes(self) -> Mapping[str, Any]:
        """Spikes of each population that fires, in the form of the engine; `events` returns them in
        the same form for all engines.
        """
        ...

    @property
    def voltages(self) -> Mapping[str, jax.Array]:
        """Membrane potentials of each readout: (batch, samples, neurons), in time steps (time,
        batch, *shape).
        """
        ...

    @property
    def result(self) -> jax.Array:
        """Status of the run, a `jaxsnn.Result` as int32 scalar."""
        ...

    @property
    def late(self) -> Mapping[str, jax.Array]:
        """Number of events after the end of the simulation, which are ignored, by Input node."""
        ...

    @property
    def outputs(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the nodes that feed each Output node."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on approximations, and on events that were moved or left out, a sentence each."""
        ...

    @property
    def problem(self) -> Problem | None:
        """Problem that ended the run, with advice; None if the run succeeded (outside jit only)."""
        ...

    @property
    def message(self) -> str:
        """Result in words (outside jit only)."""
        ...

    @property
    def budgets(self) -> Mapping[str, Mapping[str, Any]]:
        """Needed and available room of each budget: option of the engine -> population -> both."""
        ...

    @property
    def clipped_slopes(self) -> Mapping[str, jax.Array]:
        """Number of spikes whose gradient is clipped, by population."""
        ...

    @property
    def counts(self) -> Mapping[str, jax.Array]:
        """Spike counts of each neuron, (batch, neurons), by recorded population that fires."""
        ...

    @property
    def spikes_recorded(self) -> jax.Array:
        """Number of spikes of all populations that are recorded, scalar."""
        ...

    def events(self, name: str) -> Events:
        """Return the spikes of a population as Events (batch, events), sorted by time, seconds."""
        ...


SolutionType = TypeVar("SolutionType", bound=Solution, covariant=True)


class Engine(Protocol[SolutionType]):
    """Simulation engine: a frozen, hashable record whose fields are its options."""

    #: Name in configuration files and on the command line.
    kind: ClassVar[str]

    #: Whether gradients are exact, not those of a surrogate.
    exact: ClassVar[bool]

    #: Whether inputs may also be arrays (time, batch, *shape).
    takes_rasters: ClassVar[bool]

    def as_dict(self) -> dict[str, Any]:
        """Return the options by name, for JSON."""
        ...

    @property
    def grows(self) -> bool:
        """Whether a run is repeated with larger budgets if one was too small."""
        ...

    def is_auto(self, option: str, population: str) -> bool:
        """Return whether one budget grows automatically."""
        ...

    def check(self, network: Network) -> None:
        """Raise UsageError for options that are invalid for a network."""
        ...

    def run(
        self, network: Network, inputs: Any, t_end: float | None, sample_times: Any = None
    ) -> SolutionType:
        """Simulate a batch; see `jaxsnn.simulate`. A failed run raises no error, the solution
        reports it.
        """
        ...

    def with_room(self, needed: Mapping[str, Mapping[str, int]]) -> Self:
        """Return the same engine with larger budgets: option -> population -> lower bound."""
        ...

    def prepared(self) -> Self:
        """Return the same engine for compiled training: hashable, with all populations observed."""
        ...
