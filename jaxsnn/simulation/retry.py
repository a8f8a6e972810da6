"""The loop that increases budgets: a run is repeated with larger budgets until all are sufficient.
Also the diagnosis of neurons that fire without end, or infinitely often at one time: their rate, and
the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from jax import lax
from jax.core import Tracer

from jaxsnn.errors import Problem, SimulationError, UsageError
from jaxsnn.event.event_driven import MOST_ROOM
from jaxsnn.event.event_record import shortage_text, shortages
from jaxsnn.network.results import Result
from jaxsnn.options import MAX_SPIKES, T_END
from jaxsnn.units import format_time
from jaxsnn.wording import Text

#: Maximum number of spikes of a neuron in a sample; more are considered a mistake.
LARGEST_BUDGET = 16384
#: Maximum number of spikes of a population, or of arrivals at a position; more are considered a
#: mistake.
MOST_EVENTS = 2**20
#: Maximum default capacity for spikes of a population in all samples: a GiB of float32 times.
MOST_SLOTS = 2**28
#: Multiple of the recorded spikes of a neuron up to which its further spikes are counted.
_FOLLOWED = 16
#: Minimum factors by which a capacity grows: if only its shortage is known, and if spikes of a
#: population are missing, whose feedback may cause others.
_UNKNOWN, _LACKING = 8, 2
#: Number of events per cycle from which on a run takes longer than its compilation, so that
#: capacities grow by less; number from which on an extrapolated rate is trusted, and the multiple
#: of the limit that it must exceed.
_LONG, _EXPENSIVE, _FAR = 2**12, 2**15, 4

#: Advice for a neuron that fires too often, if the required capacity is unknown.
FIRE_LESS = Text("decrease its input weights, or pass an earlier {t_end}", t_end=T_END)

EngineType = TypeVar("EngineType")
Outcome = TypeVar("Outcome")


class TooManySpikes(SimulationError):
    """Error raised when a neuron fires more often than any budget allows."""


def an_eighth_more(needed: int) -> int:
    """Return the default new budget, an eighth more than needed: the need is a lower bound if
    another budget was too small.
    """
    return needed + needed // 8


def with_enough_room(
    engine: EngineType,
    attempt: Callable[[EngineType], Outcome],
    *,
    may_grow: Callable[[str, str], bool] = lambda option, name: True,
    limit: int = LARGEST_BUDGET,
    slots: float = math.inf,
    advice: str | None = None,
    grown: Callable[[int], int] = an_eighth_more,
    say: Callable[[str], None] | None = None,
) -> tuple[EngineType, Outcome]:
    """Repeat a run with larger budgets until they suffice; return the engine and its outcome.

    A run is not repeated if it fails for another reason, or if a budget that may not grow is too
    small. Each run is compiled anew, so the number of runs is kept small: budgets grow by factors
    if only a lower bound of the need is known.

    Args:
        engine: the first engine (`jaxsnn.simulation.solution.Engine`).
        attempt: runs an engine; its outcome has `result` and `budgets` like a `Solution`, and its
            `spikes`, `heights` and `t_end`, if present, are used to name a neuron.
        may_grow: returns whether the budget of an option and a population may grow.
        limit: maximum number of spikes of a neuron.
        slots: maximum number of spikes of all neurons of a population in all samples.
        advice: advice if a neuron fires more often; None: advice that its spikes suggest.
        grown: returns the new budget for a needed number.
        say: called with a line for each repetition.

    Raises:
        TooManySpikes: a neuron fires more often than `limit`, or infinitely often at one time; a
            population sends more than `MOST_EVENTS` spikes to others; or a budget needs more than
            `slots`.
        UsageError: the result is traced.
    """
    current: Any = engine
    while True:
        outcome: Any = attempt(current)
        if isinstance(outcome.result, Tracer):
            raise UsageError(
                'a budget of "auto" requires concrete results and is not supported inside jax.jit',
                fix="pass integers inside jax.jit",
            )
        if int(outcome.result) != Result.BUDGET_EXHAUSTED:
            return current, outcome
        short = shortages(outcome.budgets)
        if not all(may_grow(option, name) for option, needs in short.items() for name in needs):
            return current, outcome
        _refuse_endless(outcome, short, limit, advice)
        room = _larger(outcome.budgets, short, limit, grown)
        _refuse_vast(outcome, room, slots)
        if say is not None:
            option, room_by_population = next(iter(room.items()))
            name, most = next(iter(room_by_population.items()))
            say(
                Text(
                    "{shortage}: repeating with a budget of {room}",
                    shortage=shortage_text(outcome.budgets, option, name),
                    room=most,
                )
            )
        current = current.with_room(room)


def _larger(
    budgets: Any,
    short: Mapping[str, Mapping[str, int]],
    limit: int,
    grown: Callable[[int], int],
) -> dict[str, dict[str, int]]:
    """Return the larger budgets: option -> population -> number."""
    # Missing spikes of a population may cause further spikes in a cycle, which are not counted.
    factor = _LACKING if "max_events" in short else 1
    for option in ("max_events", "max_arrivals"):
        for name, needed in short.get(option, {}).items():
            # If the run stopped at the end of the budget, the actual need is unknown.
            room = int(budgets[option][name].room)
            if needed <= room + 1:
                factor = _UNKNOWN if room < _LONG else _LACKING
    larger: dict[str, dict[str, int]] = {}
    for option, needs in short.items():
        larger[option] = {}
        for name, needed in needs.items():
            had = int(budgets[option][name].room)
            enlarged = max(grown(needed), factor * had)
            most = limit if option == "max_spikes" else MOST_EVENTS
            if option == "max_spikes" and needed >= _FOLLOWED * had:
                # Counting stopped early. This budget allows counting up to the limit: enough to
                # refuse a neuron that fires without end, or to know the number of its spikes.
                most = max(limit // _FOLLOWED, 2 * had)
            larger[option][name] = min(enlarged, most)
    return larger


def _refuse_vast(outcome: Any, room: Mapping[str, Mapping[str, int]], slots: float) -> None:
    """Refuse a budget that takes too much memory because one neuron fires more often than all
    others.
    """
    for name, most in room.get("max_spikes", {}).items():
        population_spikes = getattr(outcome, "spikes", {}).get(name)
        if (shape := getattr(getattr(population_spikes, "time", None), "shape", None)) is None:
            continue
        lists = math.prod(shape[:-1])
        if lists * most > slots:
            ways = Text(
                "simulate fewer samples at once, or pass {option}", option=MAX_SPIKES.set_to(most)
            )
            ways += " or more, if memory suffices"
            text = shortage_text(outcome.budgets, "max_spikes", name)
            raise TooManySpikes(
                Text(
                    "spike budget exhausted: {shortage}; a budget of {room} for each of {lists} "
                    "neurons (over all samples) exceeds the limit of {limit:.0f} spikes",
                    shortage=text,
                    room=most,
                    lists=lists,
                    limit=slots,
                ),
                fix=ways,
                node=name,
                code="budget",
            )


def _refuse_endless(
    outcome: Any, short: Mapping[str, Mapping[str, int]], limit: int, advice: str | None
) -> None:
    """Refuse to repeat a run that would never have enough room."""
    spikes = short.get("max_spikes", {})
    firing = {name: neuron for name in spikes if (neuron := busiest(outcome, name)) is not None}
    for neuron in firing.values():
        if neuron.is_infinite:
            raise TooManySpikes.of(_advised(infinite_problem(neuron), advice))
    most = max(spikes, key=spikes.__getitem__, default="")
    rooms = [int(outcome.budgets["max_events"][name].room) for name in short.get("max_events", {})]
    # once a cycle is expensive, an extrapolated rate far beyond the limit is trusted
    most_allowed = _FAR * limit if max(rooms, default=0) >= _EXPENSIVE else math.inf
    if most in firing and (spikes[most] > limit or firing[most].by_the_end > most_allowed):
        raise TooManySpikes.of(_advised(frequent_problem(firing[most], limit), advice))
    if spikes.get(most, 0) > limit:
        raise _too_many(outcome, "max_spikes", most, limit, advice or "check the weights")
    for option in ("max_events", "max_arrivals"):
        for name, needed in short.get(option, {}).items():
            if needed > MOST_EVENTS:
                # advice for Python only: commands have no flag for this budget
                room = f"EventDriven({option}={2 * needed})"
                ways = (advice or "check the weights") + (
                    f", or in Python pass {room} if this is intended"
                )
                raise _too_many(outcome, option, name, MOST_EVENTS, ways)


def _too_many(outcome: Any, option: str, name: str, limit: int, fix: str) -> TooManySpikes:
    text = shortage_text(outcome.budgets, option, name)
    return TooManySpikes(
        Text(
            "spike budget exhausted: {shortage}; the limit is {limit}", shortage=text, limit=limit
        ),
        fix=fix,
        node=name,
        code="budget",
    )


def _advised(problem: Problem, advice: str | None) -> Problem:
    """Return a problem with other advice, if there is any."""
    return problem if advice is None else replace(problem, fix=advice)


#: Number of simultaneous spikes of a neuron that counts as infinite.
AT_ONCE = 1024
#: Numbers of simultaneous spikes of a population, and of a neuron in it, that together count as
#: infinite.
_AT_ONCE_OF_ALL, _AT_ONCE_EACH = 2**16, 64
#: Number of simultaneous spikes that counts as infinite if a reset leaves V above the threshold.
_AT_ONCE_ABOVE = 8
#: Maximum number of last recorded spikes from which a rate is computed.
_LAST = 256


@dataclass(frozen=True, kw_only=True)
class Busiest:
    """Neuron of a population with the most spikes, and statistics of its spikes.

    Attributes:
        name: name of the population.
        sample, neuron: their indices.
        count: number of its spikes; a lower bound if the run stopped before the end.
        recorded: number of its recorded spikes.
        last: time of the last recorded spike, seconds.
        together: number of its recorded spikes at that time.
        of_all: number of spikes of the whole population at that time, in this sample.
        rate: firing rate over the last recorded spikes, per second; inf if they are simultaneous.
        height: v_threshold - v_reset, volts; None if unknown.
        t_end: end of the simulation, seconds; None if unknown.
    """

    name: str
    sample: int
    neuron: int
    count: int
    recorded: int
    last: float
    together: int
    of_all: int
    rate: float
    height: float | None
    t_end: float | None

    @property
    def is_above(self) -> bool:
        """Whether the reset leaves V at or above the threshold, so that the neuron fires again at the
        same time.
        """
        lifted = self.height is not None and self.height <= 0
        return lifted and self.together >= min(_AT_ONCE_ABOVE, self.recorded) > 1

    @property
    def is_infinite(self) -> bool:
        """Whether the firing rate is considered infinite."""
        many = self.of_all >= _AT_ONCE_OF_ALL and self.together >= _AT_ONCE_EACH
        return self.is_above or self.together >= AT_ONCE or many

    @property
    def by_the_end(self) -> int:
        """Estimated spike count at the end, at the rate of the last spikes; `count`, if that is
        unknown.
        """
        if self.t_end is None or not 0 < self.rate < float("inf"):
            return self.count
        return max(self.count, self.recorded + round(self.rate * (self.t_end - self.last)))


def busiest(outcome: Any, name: str) -> Busiest | None:
    """Return the neuron of a population with the most spikes; None if no spikes of it are recorded.

    Args:
        outcome: outcome of a run, outside jit; its `spikes`, `heights` and `t_end` are used, if
            present.
    """
    spikes = getattr(outcome, "spikes", {}).get(name)
    if spikes is None or not hasattr(spikes, "time"):
        return None
    time, count = _numbers(spikes.time), _numbers(spikes.count)
    # times ascend along the last axis; unused slots are inf
    recorded = np.isfinite(time).sum(axis=-1)
    if not recorded.any():
        return None
    last = np.take_along_axis(time, np.maximum(recorded - 1, 0)[..., None], -1)[..., 0]
    simultaneous = np.sum((time == last[..., None]) & np.isfinite(time), axis=-1)
    crowded = simultaneous if simultaneous.max() >= AT_ONCE else count
    sample, neuron = np.unravel_index(np.argmax(crowded), count.shape)
    times = time[sample, neuron, : recorded[sample, neuron]]
    # in double precision, as the differences are small
    latest = times[-_LAST:].astype(np.float64)
    span, rate = latest[-1] - latest[0], 0.0
    if len(latest) > 1:
        rate = (len(latest) - 1) / span if span > 0 else float("inf")
    heights, end = getattr(outcome, "heights", {}), getattr(outcome, "t_end", None)
    return Busiest(
        name=name,
        sample=int(sample),
        neuron=int(neuron),
        count=int(count[sample, neuron]),
        recorded=len(times),
        last=float(last[sample, neuron]),
        together=int(simultaneous[sample, neuron]),
        of_all=int(np.sum(time[sample] == last[sample, neuron])),
        rate=rate,
        height=float(_numbers(heights[name])[neuron]) if name in heights else None,
        t_end=None if end is None else float(_numbers(end)),
    )


def _numbers(value: Any) -> np.ndarray:
    """Return the values of an array, also while it is being differentiated."""
    return np.asarray(lax.stop_gradient(value))


def infinite_problem(busiest_neuron: Busiest) -> Problem:
    """Return the problem of a neuron that fires infinitely often at one time."""
    when = format_time(busiest_neuron.last)
    location = Text(
        "neuron {neuron} of '{node}' fires infinitely often in sample {sample}",
        neuron=busiest_neuron.neuron,
        node=busiest_neuron.name,
        sample=busiest_neuron.sample,
    )
    if busiest_neuron.is_above:
        cause = Text(
            "v_threshold - v_reset is {height:g} and must be above 0, because a reset leaves V at "
            "or above the threshold",
            height=busiest_neuron.height,
        )
        fix = f"decrease v_reset of '{busiest_neuron.name}', or increase its v_threshold"
    else:
        cause = (
            "either its spikes excite it again without a delay, or an input spike raises V by "
            "many thresholds and each reset subtracts only one"
        )
        fix = Text(
            "add a delay to its recurrent connection, decrease weights or increase v_threshold, "
            "or pass {max_spikes} or more if the number of spikes is finite",
            max_spikes=MAX_SPIKES.set_to(2 * busiest_neuron.count),
        )
    message = Text(
        "spike budget exhausted: {location}, at {time}. Recorded spikes at that time: "
        "{simultaneous} of {recorded}. Cause: {cause}",
        location=location,
        time=when,
        simultaneous=busiest_neuron.together,
        recorded=busiest_neuron.recorded,
        cause=cause,
    )
    return Problem(
        node=busiest_neuron.name,
        code="budget",
        message=message,
        fix=fix,
        facts={"spikes": busiest_neuron.count},
    )


def frequent_problem(busiest_neuron: Busiest, limit: int) -> Problem:
    """Return the problem of a neuron that fires more often than a limit."""
    message = Text(
        "spike budget exhausted: neuron {neuron} of '{node}' fires at least {spikes} spikes in "
        "sample {sample}",
        neuron=busiest_neuron.neuron,
        node=busiest_neuron.name,
        spikes=busiest_neuron.count,
        sample=busiest_neuron.sample,
    )
    if 0 < busiest_neuron.rate < float("inf"):
        message += Text(
            ", at about {rate:.6g} spikes/s until {last}",
            rate=busiest_neuron.rate,
            last=format_time(busiest_neuron.last),
        )
    if busiest_neuron.t_end is not None:
        message += Text(
            ", about {by_the_end} spikes until {option}",
            by_the_end=busiest_neuron.by_the_end,
            option=T_END.equal_to(format_time(busiest_neuron.t_end)),
        )
    spikes_with_margin = busiest_neuron.by_the_end + busiest_neuron.by_the_end // 8
    fix = Text(
        "decrease its drive (weights, bias, v_leak), increase its time constants, or pass an "
        "earlier {t_end}",
        t_end=T_END,
    )
    if spikes_with_margin <= MOST_ROOM:
        fix += Text(
            ", or pass {max_spikes} if this spike count is intended",
            max_spikes=MAX_SPIKES.set_to(spikes_with_margin),
        )
    message += Text("; the limit is {limit}", limit=limit)
    return Problem(node=busiest_neuron.name, code="budget", message=message, fix=fix)
