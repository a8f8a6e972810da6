"""The event engine for a single run, such as that of a command: it is compiled quickly, because the
compiled code is used only once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Self

import jax
import numpy as np

from jaxsnn.event.event_driven import EventDriven, compiled_run, run_and_conclude
from jaxsnn.event.event_options import EventOptions
from jaxsnn.event.event_solution import EventSolution
from jaxsnn.network.compiling import NOT_AT_ALL, known_options, loops_in, unset_flags
from jaxsnn.network.network import Network
from jaxsnn.network.on_processor import on_processor

#: Total size of the inputs and outputs above which optimisation pays in a single run.
_MANY = 2**22
#: Spikes of a neuron per its shortest time constant that are seldom exceeded.
_SPIKES_PER_TAU = 8
#: Maximum initial capacity for the spikes of a neuron, and of a population in all samples.
_MOST_AT_FIRST, _SLOTS_AT_FIRST = 1024, 2**19


@cache
def _quick() -> Any:
    """Return `compiled_run`, compiled without optimisation."""
    options = known_options(unset_flags(NOT_AT_ALL))
    return jax.jit(run_and_conclude, static_argnums=(0, 1), compiler_options=options)


@dataclass(frozen=True, kw_only=True)
class RunOnce(EventDriven):
    """Engine for a single run: `EventDriven`, without compiler optimisations that take longer than
    they save.

    If native kernels run all populations, the few XLA operations around them are compiled without
    optimisation: the last digits of parameters that it combines may differ from those of
    `EventDriven`. If `max_spikes` is "auto" the initial budget is large, since each repetition with
    a larger one is compiled again.

    Attributes:
        at_first: pairs of a population and the initial number of spike slots of a neuron, if
            `max_spikes` is "auto".
    """

    at_first: tuple[tuple[str, int], ...] = ()

    def of(self, option: str, population: str) -> Any:
        """Return the value of an option for a population."""
        value = super().of(option, population)
        if option != "max_spikes" or isinstance(self.max_spikes, int):
            return value
        # `max_spikes` is "auto", or contains the larger budgets of some populations for a repeated
        # run: all other populations keep their initial budgets.
        budgets: Any = () if isinstance(self.max_spikes, str) else self.max_spikes
        return value if population in dict(budgets) else dict(self.at_first).get(population, value)

    def with_first_room(self, network: Network, samples: int, t_end: float) -> Self:
        """Return the engine with slots for the expected number of spikes.

        Args:
            samples: size of the batch.
            t_end: seconds.
        """
        room = {
            name: first_room(network, name, samples, t_end)
            for name, population in network.populations.items()
            if population.fires
        }
        return replace(self, at_first=tuple(room.items()))

    def simulated(self, facts: frozenset[str], *arguments: Any) -> EventSolution:
        """Perform a checked run, compiled in the way that takes the least time for a single run."""
        options = self.hashable()
        if not on_processor(arguments):
            return super().simulated(facts, *arguments)
        traced = compiled_run.trace(options, facts, *arguments)
        sizes = (
            math.prod(np.shape(leaf)) for leaf in jax.tree.leaves((arguments, traced.out_info))
        )
        small = sum(sizes) < _MANY and not loops_in(traced.jaxpr)
        return (_quick() if small else compiled_run)(options, facts, *arguments)


def first_room(network: Network, name: str, samples: int, t_end: float) -> int:
    """Return the initial number of spike slots of each neuron: a power of two, larger for few neurons
    with short time constants.

    Args:
        name: a population.
        samples: size of the batch.
        t_end: seconds.
    """
    least = int(EventOptions.__dataclass_fields__["max_spikes"].default)
    taus = [
        float(np.min(np.asarray(value), initial=np.inf))
        for key, value in network.parameters[name].items()
        if key.startswith("tau")
    ]
    shortest = min(taus, default=np.inf)
    expected = _SPIKES_PER_TAU * t_end / shortest if shortest > 0 else 0.0
    room = _SLOTS_AT_FIRST // max(samples * network.populations[name].size, 1)
    most = max(min(expected, room, _MOST_AT_FIRST), least)
    return 1 << int(math.log2(most))
