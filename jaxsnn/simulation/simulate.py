"""`simulate`, which runs a network on inputs with either engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, overload

import numpy as np
from jax import lax
from jax.core import Tracer

from jaxsnn.errors import LoweringError, Problem, SimulationError, UsageError, warn_of
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.event.event_solution import EventSolution
from jaxsnn.keywords import suggests_keywords
from jaxsnn.network.bad_numbers import bad_number
from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.network import Network
from jaxsnn.network.neuron_models import is_registered
from jaxsnn.network.promotion import usual_promotion
from jaxsnn.network.results import Result
from jaxsnn.nir.model.graph import Graph
from jaxsnn.options import ENGINE
from jaxsnn.simulation.retry import MOST_SLOTS, TooManySpikes, with_enough_room
from jaxsnn.simulation.solution import Engine, Solution, SolutionType
from jaxsnn.wording import Text


@overload
def simulate(
    network: Network | Graph,
    inputs: Any,
    t_end: float | None = None,
    *,
    engine: None = None,
    sample_times: Any = None,
    throw: bool = True,
) -> EventSolution: ...


@overload
def simulate(
    network: Network | Graph,
    inputs: Any,
    t_end: float | None = None,
    *,
    engine: Engine[SolutionType],
    sample_times: Any = None,
    throw: bool = True,
) -> SolutionType: ...


@suggests_keywords
@usual_promotion
def simulate(
    network: Network | Graph,
    inputs: Any,
    t_end: float | None = None,
    *,
    engine: Any = None,
    sample_times: Any = None,
    throw: bool = True,
) -> Solution:
    """Simulate a network: event by event, exactly in continuous time, or in the time steps of the
    source framework.

    The event engine has exact gradients with respect to the network's parameters and the input times;
    the time-stepped engine has surrogate gradients with respect to the parameters and the input.

    Everything that was dropped, truncated, approximated or assumed is in the `notes` of the solution,
    and is issued as an `ApproximationWarning`.

    Args:
        network: result of `jaxsnn.lower`; or a Graph, which is lowered.
        inputs: `Events` with arrays (events,) or (batch, events), in any order; for several inputs
            a mapping from the Input node's name. Times are in seconds, from 0 on. The time-stepped
            engine also accepts arrays (time, batch, *shape). It sorts events into time steps: an
            event at time t is input of step t/dt, rounded.
        t_end: end of the simulation in seconds, positive and finite. The time-stepped engine
            requires it for events only. On the event engine it may be traced by `jax.jit`; if its
            value is then invalid, `result` is INVALID_INPUT, times and voltages are NaN and counts
            are -1.
        engine: `EventDriven` or `TimeStepped`, with options. Default: `EventDriven()`, whose budgets
            grow as needed, except inside `jax.jit` and `jax.vmap`.
        sample_times: (samples,) seconds in [0, t_end] at which the event engine samples readouts;
            by default 101 times. Times outside this interval are rejected, unless they are traced.
            On the time-stepped engine a readout has a value in each time step.
        throw: whether to raise an error if the run does not succeed. Inside `jax.jit` no error can
            be raised: check `result` instead.

    Raises:
        UsageError: inputs or options that do not match the network.
        LoweringError: the engine does not support the network, or required information is missing.
        SimulationError: the run ended with a `Result` other than SUCCESS.

    >>> from jaxsnn.network.spikes import Events
    >>> from jaxsnn.nir import build
    >>> neurons = build.cubalif(tau_mem="10ms", tau_syn="5ms")
    >>> graph = build.sequential(build.input(1), build.linear(weight=[[9.0]]), neurons)
    >>> solution = simulate(graph, Events(time=[[0.0]], index=[[0]]), 30e-3)
    >>> print(solution.first_spike("2").round(4), solution.message)
    [[0.0014]] success
    """
    if isinstance(engine, type):
        raise UsageError(
            Text(
                "{option} is the class {name}, not an instance",
                option=ENGINE.title,
                name=engine.__name__,
            ),
            fix=f"pass an instance, {engine.__name__}()",
        )
    if engine is not None and not hasattr(engine, "run"):
        raise UsageError(
            Text("{option} is {engine!r}, which is not an engine", option=ENGINE, engine=engine),
            fix="pass jaxsnn.EventDriven() or jaxsnn.TimeStepped()",
        )
    is_default = engine is None
    engine = EventDriven() if is_default else engine
    network = lowered(network)

    def run(engine: Any) -> Any:
        return engine.run(network, inputs, t_end, sample_times)

    if engine.grows:
        solution = _in_room(engine, run, throw=throw, may_grow=engine.is_auto)
    else:
        solution = run(engine)
    if isinstance(solution.result, Tracer):
        warn_of(solution.notes)
        return solution
    if is_default and int(solution.result) == Result.BUDGET_EXHAUSTED:
        finished = [solution]  # the first run need not be repeated

        def attempt(engine: Any) -> Any:
            return finished.pop() if finished else run(engine)

        solution = _in_room(engine, attempt, throw=throw, slots=MOST_SLOTS)
    if int(solution.result) == Result.NOT_FINITE and hasattr(solution, "culprit"):
        # In time steps a time constant may be infinite: there is no leak.
        is_event = isinstance(solution, EventSolution)
        culprit = bad_number(network, inputs, finite=is_event)
        if culprit is None and is_event:
            culprit = _model_with_nan(solution, network)
        solution = replace(solution, culprit=culprit)
    if throw and solution.problem is not None:
        raise SimulationError.of(solution.problem)
    warn_of(solution.notes)
    return solution


def _in_room(engine: Any, run: Callable[[Any], Any], *, throw: bool, **limits: Any) -> Any:
    """Run with budgets that grow until they suffice. If no budget would, raise the error, or
    without `throw` return the incomplete run.

    Args:
        limits: as in `with_enough_room`.
    """
    try:
        return with_enough_room(engine, run, **limits)[1]
    except TooManySpikes:
        if throw:
            raise
        return run(engine)


def _model_with_nan(solution: EventSolution, network: Network) -> Problem | None:
    """Return the problem of the first registered neuron model whose population shows NaN, if what
    comes before it shows none.
    """
    for wire in network.wires:
        shown = [solution.spikes[wire.name].time] if wire.name in solution.spikes else []
        shown += [solution.voltages[wire.name]] if wire.name in solution.voltages else []
        # After stop_gradient a number has a concrete value under jax.grad, too.
        if not any(np.isnan(np.asarray(lax.stop_gradient(numbers))).any() for numbers in shown):
            continue
        population = network.populations.get(wire.name)
        if population is None or not is_registered(population.kind):
            return None
        return Problem(
            node=wire.name,
            code="not-finite",
            message=Text(
                "node '{node}' ({type}): its neuron model returns NaN, although all parameters "
                "and inputs are finite",
                node=wire.name,
                type=population.kind,
            ),
            fix="check its formulas for the parameters of this node: for example 1 / (tau_mem - "
            "tau_syn) is undefined if both are equal",
        )
    return None


def lowered(network: Any) -> Network:
    """Return the network, lowered if it is a graph.

    Raises:
        LoweringError: the graph cannot be lowered.
        UsageError: neither a network nor a graph.
    """
    if isinstance(network, Network):
        return network
    if not isinstance(network, Graph):
        raise UsageError(
            Text("an object of type {actual} is not a network", actual=type(network).__name__),
            fix="pass the result of jaxsnn.read or jaxsnn.lower",
        )
    try:
        return lower(network)
    except LoweringError as error:
        problem = error.problem
        fix = problem.fix + "; to specify options, lower the graph with jaxsnn.lower first"
        raise type(error).of(replace(problem, fix=fix)) from error
