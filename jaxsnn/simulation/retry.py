"""A simulation that makes room for as many spikes as there are: the loop that grows budgets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from jaxsnn.errors import SimulationError
from jaxsnn.event.event_options import Event
from jaxsnn.network.network import Network
from jaxsnn.network.results import Result
from jaxsnn.simulation.simulate import Solution, simulate

#: More spikes of one neuron in one sample than this are taken for a mistake.
LARGEST_BUDGET = 16384


def simulate_fully(
    network: Network,
    inputs: Any,
    t_end: float,
    *,
    engine: Event | None = None,
    sample_times: Any = None,
    max_spikes: int | None = None,
    say: Callable[[str], None] | None = None,
) -> Solution:
    """Simulate with as large budgets as it takes, starting from those of `engine`.

    Args:
        network, inputs, t_end, sample_times: as of `simulate`.
        max_spikes: fail where a neuron fires more often.
        say: takes a line each time that a budget was raised.

    Raises:
        SimulationError: the run fails for another reason, or a neuron fires more than `max_spikes`
            or 16384 times.
    """
    engine = engine or Event()
    if max_spikes is not None:
        engine = replace(engine, max_spikes=max_spikes)
    allowed = LARGEST_BUDGET if max_spikes is None else max_spikes
    while True:
        solution = simulate(
            network, inputs, t_end, engine=engine, sample_times=sample_times, throw=False
        )
        problem = solution.problem
        if problem is None:
            return solution
        if int(solution.result) != Result.BUDGET_EXHAUSTED:
            raise SimulationError.of(problem)
        most = max((int(count) for count in solution.spikes_needed.values()), default=0)
        if most > allowed:
            way = "leave it out" if max_spikes is not None else "look at weights and thresholds"
            raise SimulationError(
                problem.message,
                fix=f"pass max_spikes={most} or more, or {way}",
                node=problem.node,
                code=problem.code,
            )
        if say is not None:
            say(f"{problem.message}: repeated with more room")
        engine = engine.with_room(solution.shortages())
