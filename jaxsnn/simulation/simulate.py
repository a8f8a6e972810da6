"""One verb, `simulate`, and what comes out: a `Solution`, in time steps a `GridSolution`."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsnn.errors import Problem, SimulationError, UsageError, suggestion
from jaxsnn.event.event_driven import event_approximations, run
from jaxsnn.event.event_options import Event
from jaxsnn.event.event_record import Budget, EventRecord, Levels
from jaxsnn.event.forward.functionals import integral, maximum
from jaxsnn.event.forward.layer import LayerSpikes
from jaxsnn.event.forward.readout import Drive
from jaxsnn.event.threshold_feeds import check_reading
from jaxsnn.grid.stepped_solution import GridSolution, approximations, spiking_outputs
from jaxsnn.grid.time_stepped import Grid
from jaxsnn.grid.time_stepped import run as run_grid
from jaxsnn.grid.timing import step_length
from jaxsnn.network.inputs import checked_inputs, late_events, out_of_range, rasters
from jaxsnn.network.network import Network, entries
from jaxsnn.network.reductions import any_in, any_of, numbers_of
from jaxsnn.network.results import Result
from jaxsnn.network.spikes import Events, flatten_spikes
from jaxsnn.units import format_time

_DEFAULT_SAMPLES = 101


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Solution:
    """What a run left. A pytree; everything is by NIR node name.

    Attributes:
        spikes: population -> `LayerSpikes` with `time` and `slope` (batch, neurons, spikes),
            `count` (batch, neurons). A Threshold that is simulated as events is among them.
        levels: Threshold that is simulated as a level -> `Levels` with `rise` and `fall` (batch,
            neurons, rises) seconds, and `count` (batch, neurons).
        voltages: readout -> membrane voltage (batch, samples, neurons).
        sample_times: (samples,) seconds, where the readouts were sampled.
        result: how the run ended, a `Result` as int32 scalar.
        clipped_slopes: population -> number of spikes so close to tangency that a gradient is
            clipped.
        degenerate_spikes: population -> number of spikes at the very time of an arrival that moved
            V (LIF and IF under delta spikes): their times do not depend on any weight, so that
            their exact gradient is zero. Of a Threshold, as in `clipped_slopes`, the rises and
            falls of V.
        budgets: option of `Event` -> population -> what the run took and what there was room for;
            where one was not enough, the numbers of the populations behind are lower bounds.
        t_end: end of the simulation, seconds.
        late: input -> number of events at or after t_end, which nothing sees.
        notes: approximations, and where NIR's equations are not followed, a sentence each.
        voltage_taus: population that voltages of LI drive -> the smallest and the largest tau of
            these, (2,) seconds, which must be equal.
        drives: population -> all that moves it but its own resets, for `maximum` and `integral`.
        outputs: Output node -> names of the populations that feed it.
    """

    spikes: dict[str, LayerSpikes]
    voltages: dict[str, jax.Array]
    sample_times: jax.Array
    result: jax.Array
    clipped_slopes: dict[str, jax.Array]
    degenerate_spikes: dict[str, jax.Array]
    budgets: dict[str, dict[str, Budget]]
    shapes_hold: dict[str, jax.Array]
    t_end: jax.Array
    drives: dict[str, Drive]
    late: dict[str, jax.Array]
    outputs: tuple[tuple[str, tuple[str, ...]], ...] = field(metadata={"static": True})
    notes: tuple[str, ...] = field(metadata={"static": True})
    levels: dict[str, Levels] = field(default_factory=dict)
    voltage_taus: dict[str, jax.Array] = field(default_factory=dict)

    def events(self, name: str) -> Events:
        """Spikes of a population, sorted by time: (batch, neurons * spikes), padded with inf and
        the size.

        Spikes at exactly equal times come in the order of their neurons.
        """
        return flatten_spikes(self._of(name).time)

    def first_spike(self, name: str) -> jax.Array:
        """First spike time of each neuron, (batch, neurons) seconds; inf where it is silent."""
        return self._of(name).time[..., 0]

    def maximum(self, name: str) -> jax.Array:
        """Largest membrane voltage of each neuron of a readout from 0 to t_end, exact: (batch,
        neurons).

        What arrives at exactly one time acts together. Of a population that fires, what V would
        reach without resets: exact for neurons that stay silent.
        """
        return maximum(self._drive(name), self.t_end)

    def integral(self, name: str, tau: float | None = None) -> jax.Array:
        """Integral of a readout's V(t) e^(-t / tau) from 0 to t_end, exact: (batch, neurons), volts
        times seconds.

        Args:
            tau: seconds, positive; None: the integral of V itself.

        Raises:
            UsageError: there is no such population, or tau is not positive.
        """
        if tau is not None and not isinstance(tau, Tracer) and not tau > 0:
            raise UsageError(
                f"tau is {tau}", fix="give a positive tau, or None for the integral of V itself"
            )
        return integral(self._drive(name), self.t_end, tau)

    @property
    def spikes_needed(self) -> dict[str, jax.Array]:
        """Population -> largest number of spikes of one of its neurons; a lower bound behind an
        exhausted budget.
        """
        return {name: budget.needed for name, budget in self.budgets["max_spikes"].items()}

    def shortages(self) -> dict[str, dict[str, int]]:
        """Option of `Event` -> population -> what it must be at least, where it was too small
        (outside jit only).
        """
        return {
            option: {
                name: int(each.needed)
                for name, each in found.items()
                if int(each.needed) > int(each.room)
            }
            for option, found in self.budgets.items()
        }

    def _drive(self, name):
        if name not in self.drives:
            raise UsageError(
                f"'{name}' is not a population", fix=suggestion(name, self.drives), node=name
            )
        return self.drives[name]

    def _of(self, name):
        if name in self.levels and name not in self.spikes:
            raise UsageError(
                f"Threshold '{name}' was simulated as a level, which has no spikes",
                fix="look at levels",
                node=name,
            )
        if name not in self.spikes:
            raise UsageError(
                f"'{name}' is not a spiking population",
                fix=suggestion(name, self.spikes),
                node=name,
            )
        return self.spikes[name]

    @property
    def problem(self) -> Problem | None:
        """Why there is no result, with the numbers and what to do; None if the run succeeded
        (outside jit only).
        """
        match Result(int(self.result)):
            case Result.SUCCESS:
                return None
            case Result.BUDGET_EXHAUSTED:
                return self._exhausted()
            case Result.TIME_CONSTANTS_CHANGED:
                return self._changed()
            case Result.INVALID_INPUT:
                return Problem(
                    code="invalid-input",
                    message="an event lies before time 0 or names a channel that the input lacks, or t_end is not "
                    "after 0",
                    fix="look at t_end, and at the times and channels of the inputs",
                )
        return Problem(
            code="not-finite",
            message="a parameter, a product of some, a spike time or a voltage is NaN or infinite, a time constant is "
            "not positive, a delay is negative, r w_in of neurons behind a convolution or pool is not positive, or a "
            "Linear that copies channels has other weights",
            fix="look at parameters and inputs",
        )

    @property
    def message(self) -> str:
        """The result in words, with the numbers and what to do (outside jit only)."""
        return "success" if (problem := self.problem) is None else str(problem)

    def _exhausted(self) -> Problem:
        option, short = next((option, found) for option, found in self.shortages().items() if found)
        name, needed = next(iter(short.items()))
        room = int(self.budgets[option][name].room)
        what = {
            "max_spikes": f"a neuron of '{name}' fires {needed} times, {room} spikes of each are recorded",
            "max_events": f"'{name}' fires {needed} times in one sample, others see {room} of its spikes",
            "max_arrivals": f"{needed} spikes arrive at one position of '{name}', there is room for {room}",
        }[option]
        if name in self.levels and option != "max_arrivals":
            whole = (
                "rises and falls in one sample, others see"
                if option == "max_events"
                else "rises, it records"
            )
            what = f"Threshold '{name}' takes {needed} {whole} {room}"
        return Problem(
            node=name,
            code="budget",
            message=f"spike budget exhausted: {what}",
            fix=f'raise {option} from {room} to at least {max(short.values())}, or pass max_events="auto"',
        )

    def _changed(self) -> Problem:
        for name, (least, most) in self.voltage_taus.items():
            if least < most:
                return Problem(
                    node=name,
                    code="time-constants",
                    message=f"'{name}' takes voltages of LI whose tau runs from {format_time(float(least))} to "
                    f"{format_time(float(most))}, the event engine takes one tau for all",
                    fix="train it with Positive(shared=True), or simulate with engine=TimeStepped()",
                )
        name = next(name for name, holds in self.shapes_hold.items() if not holds)
        return Problem(
            node=name,
            code="time-constants",
            message=f"the time constants of '{name}' are no longer those that the network was lowered for",
            fix="change parameters with network.with_parameters(...), or lower with free_time_constants=True",
        )


@overload
def simulate(
    network: Network,
    inputs: Any,
    t_end: float,
    *,
    engine: Event | None = None,
    sample_times: Any = None,
    max_events: Any = None,
    throw: bool = True,
) -> Solution: ...


@overload
def simulate(
    network: Network, inputs: Any, t_end: float | None = None, *, engine: Grid, throw: bool = True
) -> GridSolution: ...


def simulate(
    network: Network,
    inputs: Any,
    t_end: float | None = None,
    *,
    engine: Event | Grid | None = None,
    sample_times: Any = None,
    max_events: Any = None,
    throw: bool = True,
) -> Solution | GridSolution:
    """Simulate a network: exactly, event by event, or in steps as the framework that wrote it does.

    The event engine is differentiable in the network's parameters and the input times, exactly; the
    time-stepped engine in the parameters and the input, through the surrogate of `Grid`.

    Args:
        network: made by `jaxsnn.lower`.
        inputs: `Events` with arrays (events,) or (batch, events), in any order; for several inputs
            a mapping from the Input node's name. Times are in seconds, from 0 on. The time-stepped
            engine takes arrays (time, batch, *shape) too, and sorts events into steps: one at time
            t is input of step t/dt, rounded.
        t_end: end of the simulation, seconds. The time-stepped engine needs it for events only.
        engine: `Event` (the default) or `Grid`, with options.
        sample_times: (samples,) seconds in [0, t_end] at which the event engine samples readouts;
            default 101. Others are refused, but where they are traced. In time steps a readout has
            a value in each step.
        max_events: the engine's budget `Event.max_events`; "auto": the event engine runs again with
            what it took where one of its budgets was too small. Not inside `jax.jit`.
        throw: raise where the run did not succeed. Inside `jax.jit` nothing can be raised: look at
            the `result`.

    Raises:
        UsageError: inputs or options that do not fit the network.
        LoweringError: the network has something that the engine does not run, or needs to know.
        SimulationError: the run ended with a `Result` other than SUCCESS.
    """
    if isinstance(engine, Grid):
        if sample_times is not None:
            raise UsageError(
                "sample_times are for the event engine, in time steps a readout has a value in each step",
                fix="leave sample_times out",
            )
        if max_events is not None:
            raise UsageError(
                "max_events is for the event engine, the time-stepped engine needs no budget",
                fix="leave max_events out",
            )
        solution = _on_grid(network, inputs, t_end, engine)
    else:
        engine = engine or Event()
        if max_events is not None and max_events != "auto":
            engine = replace(engine, max_events=max_events)
        solution = _by_events(network, inputs, t_end, engine, sample_times)
        while max_events == "auto" and _is_exhausted(solution):
            engine = engine.with_room(solution.shortages())
            solution = _by_events(network, inputs, t_end, engine, sample_times)
    if throw and not isinstance(solution.result, Tracer) and solution.problem is not None:
        raise SimulationError.of(solution.problem)
    return solution


def _is_exhausted(solution):
    if isinstance(solution.result, Tracer):
        raise UsageError(
            'max_events="auto" needs to see the results, which jax.jit hides',
            fix="pass a number inside jax.jit",
        )
    return int(solution.result) == Result.BUDGET_EXHAUSTED


def _by_events(network, inputs, t_end, engine, sample_times):
    check_engine(network, engine)
    trains = checked_inputs(network, inputs)
    if t_end is None:
        raise UsageError("t_end is missing", fix="pass when the simulation ends, in seconds")
    if not isinstance(t_end, Tracer) and not 0 < t_end < np.inf:
        raise UsageError(f"t_end is {t_end:g} s", fix="pass a finite time after 0, in seconds")
    end = jnp.asarray(t_end, network.dtype)
    if sample_times is None:
        sample_times = jnp.linspace(0.0, 1.0, _DEFAULT_SAMPLES, dtype=network.dtype) * end
    elif not any(isinstance(given, Tracer) for given in (sample_times, t_end)):
        _refuse_samples(np.asarray(sample_times, network.dtype), np.asarray(t_end, network.dtype))
    return _simulate(
        engine.hashable(), network, trains, end, jnp.asarray(sample_times, network.dtype)
    )


def _refuse_samples(times, t_end):
    """Refuse sample times at which nothing was simulated."""
    if times.ndim != 1:
        raise UsageError(
            f"sample_times have shape {times.shape}", fix="pass one row of times, (samples,)"
        )
    outside = times[~((times >= 0) & (times <= t_end))]
    if outside.size:
        raise UsageError(
            f"sample_times has {outside.size} of {times.size} times outside of the simulation, such as "
            f"{outside[0]:g} s",
            fix=f"pass times from 0 to t_end, {t_end:g} s",
        )


def _on_grid(network, inputs, t_end, engine):
    for name in () if isinstance(engine.record, bool) else engine.record:
        if name not in network.populations:
            raise UsageError(
                f"record names '{name}', which is not a population",
                fix=suggestion(name, network.populations),
                node=name,
            )
    dt = step_length(network, engine.dt)
    return _simulate_grid(engine, network, rasters(network, inputs, t_end=t_end, dt=dt))


@partial(jax.jit, static_argnums=0)
def _simulate_grid(engine, network, given):
    record = run_grid(network, given.x, engine)
    broken = any_of(
        [~finite for finite in record.finite.values()]
        + [~jnp.all(jnp.isfinite(y)) for y in record.y.values()]
        + [jnp.any(jnp.isnan(entries(network.parameters)))]  # inf: there is no leak
    )
    conditions = [(given.invalid, Result.INVALID_INPUT), (broken, Result.NOT_FINITE)]
    return GridSolution(
        y=record.y,
        spikes=record.spikes,
        voltages=record.voltages,
        result=first_of(conditions),
        finite=record.finite,
        rounded=given.rounded,
        late=given.late,
        dt=step_length(network, engine.dt),
        outputs=tuple(network.outputs.items()),
        spiking=spiking_outputs(network),
        notes=approximations(network),
    )


@partial(jax.jit, static_argnums=0)
def _simulate(engine, network, trains, t_end, sample_times):
    record = run(network, trains, t_end, sample_times, engine)
    return conclude(network, trains, t_end, sample_times, record, engine)


def conclude(
    network: Network,
    trains: dict[str, Events],
    t_end: Any,
    sample_times: Any,
    record: EventRecord,
    engine: Event,
) -> Solution:
    """What a run of the event engine left, and how it ended."""
    stop = {name for name in network.populations if engine.stops(name)}
    exhausted = any_of(
        [
            each.needed > each.room
            for option, found in record.budgets.items()
            for name, each in found.items()
            if not (option == "max_spikes" and name in stop)
        ]
    )
    stale = any_of(
        [~holds for holds in record.shapes_hold.values()]
        + [taus[0] < taus[1] for taus in record.voltage_taus.values()]
    )
    times = [spikes.time for spikes in record.spikes.values()] + [
        events.time for events in trains.values()
    ]
    times += [edge for level in record.levels.values() for edge in (level.rise, level.fall)]
    named = [pair for own in network.parameters.values() for pair in own.items()]
    broken = any_in(
        jnp.isnan(numbers_of(times)),
        ~jnp.isfinite(numbers_of((record.numbers, record.voltages, network.parameters))),
        *[value <= 0 for key, value in named if key.startswith("tau")],
        *[value < 0 for key, value in named if key == "delay"],
    )
    invalid = any_of([out_of_range(trains[name], size) for name, size in network.inputs.items()])
    conditions = [
        (invalid | ~((t_end > 0) & jnp.isfinite(t_end)), Result.INVALID_INPUT),
        (stale, Result.TIME_CONSTANTS_CHANGED),
        (broken, Result.NOT_FINITE),
        (exhausted, Result.BUDGET_EXHAUSTED),
    ]
    return Solution(
        spikes=record.spikes,
        levels=record.levels,
        voltages=record.voltages,
        sample_times=sample_times,
        result=first_of(conditions),
        clipped_slopes=record.clipped,
        degenerate_spikes=record.degenerate,
        budgets=record.budgets,
        shapes_hold=record.shapes_hold,
        voltage_taus=record.voltage_taus,
        t_end=t_end,
        drives=record.drives,
        late={name: late_events(events, t_end) for name, events in trains.items()},
        outputs=tuple(network.outputs.items()),
        notes=event_approximations(network, engine),
    )


def first_of(conditions):
    """The `Result` of the first of some pairs (scalar bool, `Result`) that is true; success, if
    none is.
    """
    holds, results = zip(*conditions, strict=True)
    return jnp.select(
        list(holds), [jnp.int32(result) for result in results], jnp.int32(Result.SUCCESS)
    )


def check_engine(network, engine):
    """Refuse options of the event engine that make no sense for a network.

    Raises:
        UsageError: says which.
    """
    check_reading(engine.threshold)
    for option in ("min_slope", "jump_width"):
        if (found := getattr(engine, option)) is not None and not found >= 0:
            raise UsageError(f"{option} is {found}", fix="give at least 0")
    firing = [name for name, population in network.populations.items() if population.fires]
    parts = [wire.name for wire in network.wires if wire.kind in ("neuron", "Threshold")]
    for option in ("max_spikes", "max_events", "max_arrivals", "refractory"):
        value = getattr(engine, option)
        meant = parts if option in ("max_spikes", "max_events") else network.populations
        for name in dict(value) if isinstance(value, Mapping | tuple) else ():
            if name not in meant:
                raise UsageError(
                    f"{option} names '{name}', which is not a population",
                    fix=suggestion(name, meant),
                    node=name,
                )
        least = 0 if option == "refractory" else 1
        for name in parts:
            if (found := engine.of(option, name)) is not None and not found >= least:
                raise UsageError(
                    f"{option} is {found} for '{name}'", fix=f"give at least {least}", node=name
                )
    for name in () if isinstance(engine.first_spike_only, bool) else engine.first_spike_only:
        if name not in firing:
            raise UsageError(
                f"first_spike_only names '{name}', which is not a spiking population",
                fix=suggestion(name, firing),
                node=name,
            )
