"""What `simulate` needs of an engine, and what every engine gives: one `Solution`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self, TypeVar, runtime_checkable

import jax

from jaxsnn.errors import Problem
from jaxsnn.network.network import Network
from jaxsnn.network.spikes import Events


class Reading(Protocol):
    """What a loss can read of a run, by any engine; arrays (batch, neurons) of a population, by its
    NIR name.
    """

    def first_spike(self, name: str) -> jax.Array:
        """First spike time of each neuron, seconds; inf where it is silent."""
        ...

    def count(self, name: str) -> jax.Array:
        """Number of spikes of each neuron."""
        ...

    def spike_sum(self, name: str, tau: float) -> jax.Array:
        """Sum of e^(-t / tau) over the spikes of each neuron."""
        ...

    def maximum(self, name: str) -> jax.Array:
        """Largest voltage of each neuron of a readout."""
        ...

    def integral(self, name: str, tau: float | None = None) -> jax.Array:
        """Integral of V(t) e^(-t / tau) of each neuron of a readout, volts times seconds; tau None:
        of V.
        """
        ...


@runtime_checkable
class Solution(Reading, Protocol):
    """What a run left, by whichever engine; everything is by NIR node name."""

    @property
    def spikes(self) -> Mapping[str, Any]:
        """Population that fires -> its spikes, in the form of the engine; `events` gives them in
        one form for all.
        """
        ...

    @property
    def voltages(self) -> Mapping[str, jax.Array]:
        """Readout -> its membrane voltages: (batch, samples, neurons), in time steps (time, batch,
        *shape).
        """
        ...

    @property
    def result(self) -> jax.Array:
        """How the run ended, a `jaxsnn.Result` as int32 scalar."""
        ...

    @property
    def late(self) -> Mapping[str, jax.Array]:
        """Input -> number of events behind the end of the simulation, which nothing sees."""
        ...

    @property
    def outputs(self) -> Mapping[str, tuple[str, ...]]:
        """Output node -> names of the nodes that feed it."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Approximations, and what was moved or left out, a sentence each."""
        ...

    @property
    def problem(self) -> Problem | None:
        """Why there is no result, and what to do; None if the run succeeded (outside jit only)."""
        ...

    @property
    def message(self) -> str:
        """The result in words (outside jit only)."""
        ...

    @property
    def budgets(self) -> Mapping[str, Mapping[str, Any]]:
        """Option of the engine -> population -> what was needed, and what there was room for."""
        ...

    @property
    def clipped_slopes(self) -> Mapping[str, jax.Array]:
        """Population -> number of spikes whose gradient is clipped."""
        ...

    @property
    def counts(self) -> Mapping[str, jax.Array]:
        """Recorded population that fires -> spikes of each neuron, (batch, neurons)."""
        ...

    @property
    def spikes_recorded(self) -> jax.Array:
        """Number of spikes of all populations that are recorded, scalar."""
        ...

    def events(self, name: str) -> Events:
        """Spikes of a population as Events (batch, events), sorted by time, seconds."""
        ...


SolutionType = TypeVar("SolutionType", bound=Solution, covariant=True)


class Engine(Protocol[SolutionType]):
    """What simulates: a frozen, hashable record whose fields are its options."""

    #: What configuration files and the command line call it.
    kind: ClassVar[str]

    #: Gradients are exact, not those of a surrogate.
    exact: ClassVar[bool]

    #: It takes arrays (time, batch, *shape) for inputs, too.
    takes_rasters: ClassVar[bool]

    def as_dict(self) -> dict[str, Any]:
        """The options by name, for JSON."""
        ...

    @property
    def grows(self) -> bool:
        """Whether a run shall be repeated with more room, where some budget was too small."""
        ...

    def is_auto(self, option: str, population: str) -> bool:
        """Whether that is so of one budget."""
        ...

    def check(self, network: Network) -> None:
        """Raise UsageError for options that make no sense for a network."""
        ...

    def run(
        self, network: Network, inputs: Any, t_end: float | None, sample_times: Any = None
    ) -> SolutionType:
        """Simulate a batch; see `jaxsnn.simulate`. Where the run does not succeed the solution says
        so, nothing is raised.
        """
        ...

    def with_room(self, needed: Mapping[str, Mapping[str, int]]) -> Self:
        """The same engine with more room: option -> population -> what it shall be at least."""
        ...

    def prepared(self) -> Self:
        """The same engine as compiled training takes it: hashable, looking at every population."""
        ...
