"""How a batch is run while training: on the event engine, in time steps, or by something else in
the loop.
"""

from __future__ import annotations

from dataclasses import replace
from functools import singledispatch
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsnn.errors import UsageError
from jaxsnn.event.event_options import Event
from jaxsnn.event.event_record import Budget
from jaxsnn.grid.time_stepped import Grid
from jaxsnn.network.network import Network
from jaxsnn.network.spikes import Events
from jaxsnn.simulation.simulate import Solution, simulate
from jaxsnn.train.loop.in_the_loop import InTheLoop, simulate_in_the_loop
from jaxsnn.train.losses.readings import EventReading, GridReading, Reading

#: Options of the event engine that grow where a run needs more.
BUDGETS = ("max_spikes", "max_events", "max_arrivals")

Engine = Event | Grid | InTheLoop


class BatchOutcome(NamedTuple):
    """A batch that was run.

    Attributes:
        reading: what losses read.
        solution: of the event engine, for regularisers; None in time steps.
        counts: population that fires -> spikes of each neuron, (batch, neurons).
        budgets: option of `Event` -> population -> what it took, and what there was room for.
        clipped: spikes whose gradient is clipped.
        recorded: all spikes, as far as they were recorded.
        result: a `jaxsnn.simulation.simulate.Result`.
    """

    reading: Reading
    solution: Solution | None
    counts: dict[str, jax.Array]
    budgets: dict[str, dict[str, Budget]]
    clipped: jax.Array
    recorded: jax.Array
    result: jax.Array

    def shortages(self) -> dict[str, dict[str, int]]:
        """Budgets that were too small, and what they must be (outside jit only)."""
        return (
            {}
            if self.solution is None
            else {name: short for name, short in self.solution.shortages().items() if short}
        )


def hashable(engine: Any) -> Any:
    """The engine as a static argument: budgets by population as tuples."""
    return engine.hashable() if isinstance(engine, Event) else engine


@singledispatch
def kind_of(engine: Any) -> str:
    """Its kind: "event", "grid", or "device" for one in the loop."""
    raise UsageError(
        f"{engine!r} is not an engine",
        fix="pass EventDriven(...), TimeStepped(...) or InTheLoop(...)",
    )


@kind_of.register
def _(engine: Event) -> str:
    return "event"


@kind_of.register
def _(engine: Grid) -> str:
    return "grid"


@kind_of.register
def _(engine: InTheLoop) -> str:
    return "device"


@singledispatch
def run_batch(engine: Any, network: Network, inputs: Any, t_end: float) -> BatchOutcome:
    """Run one batch; nothing is raised, the result is looked at later.

    Args:
        inputs: Events (batch, events), or for the time-stepped engine an array (batch, time,
            *shape).
        t_end: seconds, end of the sample.
    """
    raise TypeError(f"{engine!r} is not an engine")


@run_batch.register
def _(engine: Event, network: Network, inputs: Any, t_end: float) -> BatchOutcome:
    solution = simulate(network, inputs, t_end, engine=engine, sample_times=(), throw=False)
    return _by_events(network, solution)


@run_batch.register
def _(engine: InTheLoop, network: Network, inputs: Any, t_end: float) -> BatchOutcome:
    return _by_events(network, simulate_in_the_loop(engine, network, inputs, t_end))


def _by_events(network: Network, solution: Solution) -> BatchOutcome:
    zero = jnp.zeros(())
    counts = {
        name: spikes.count
        for name, spikes in solution.spikes.items()
        if name in network.populations
    }
    return BatchOutcome(
        reading=EventReading(network=network, solution=solution),
        solution=solution,
        counts=counts,
        budgets=solution.budgets,
        clipped=sum(solution.clipped_slopes.values(), zero),
        recorded=sum((jnp.sum(jnp.isfinite(own.time)) for own in solution.spikes.values()), zero),
        result=solution.result,
    )


@run_batch.register
def _(engine: Grid, network: Network, inputs: Any, t_end: float) -> BatchOutcome:
    if isinstance(inputs, Events):
        solution = simulate(
            network, inputs, t_end, engine=replace(engine, record=True), throw=False
        )
    else:
        over_time = jnp.moveaxis(inputs, 1, 0)
        solution = simulate(network, over_time, engine=replace(engine, record=True), throw=False)
    counts = {name: jnp.sum(spikes, axis=0) for name, spikes in solution.spikes.items()}
    return BatchOutcome(
        reading=GridReading(solution=solution),
        solution=None,
        counts={name: count.reshape(len(count), -1) for name, count in counts.items()},
        budgets={},
        clipped=jnp.zeros(()),
        recorded=sum((jnp.sum(count) for count in counts.values()), jnp.zeros(())),
        result=solution.result,
    )
