"""The one loop that grows budgets: a run is repeated with more room until none is too small."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from jax.core import Tracer

from jaxsnn.errors import Problem, SimulationError, UsageError
from jaxsnn.event.event_record import shortage_text, shortages
from jaxsnn.network.results import Result
from jaxsnn.options import T_END
from jaxsnn.simulation.endless import Busiest, busiest, frequent_problem, infinite_problem
from jaxsnn.wording import Text

#: More spikes of one neuron in one sample than this are taken for a mistake,
LARGEST_BUDGET = 16384
#: and so are more spikes of a population, or arrivals at a position.
MOST_EVENTS = 2**20
#: Spikes of a population, in all samples, for which there is room without being asked for: a GiB of
#: float32 times.
MOST_SLOTS = 2**28
#: A neuron is followed over so many times the spikes that are recorded of it, and then left.
_FOLLOWED = 16
#: Room grows by this factor at least, where only that more is needed is known, and where spikes of
#: a population are lacking, whose feedback may bring others.
_UNKNOWN, _LACKING = 8, 2
#: With room for so many events of a cycle a run takes longer than to compile it: it grows by less,
#: and with so many a rate that leads far beyond the limit is believed.
_LONG, _EXPENSIVE, _FAR = 2**12, 2**15, 4

#: What to do about a neuron that fires too often where nobody can say how much room there shall be.
FIRE_LESS = Text("lower its input weights, or end samples earlier with {t_end}", t_end=T_END)

EngineType = TypeVar("EngineType")
Outcome = TypeVar("Outcome")


class TooManySpikes(SimulationError):
    """A neuron fires more often than any budget."""


def an_eighth_more(needed: int) -> int:
    """The usual growth: what is needed behind a budget that was too small is a lower bound."""
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
    """The engine that had enough room, and what came of it.

    A run that fails for another reason, or where a budget was too small that may not grow, is not
    repeated. Each run is compiled anew, so that few are made: room grows by factors where only a
    lower bound of what is needed is known.

    Args:
        engine: an engine to begin with (`jaxsnn.simulation.solution.Engine`).
        attempt: runs one; its outcome has a `result` and `budgets`, as a `Solution` has. What it
            has of `spikes`, `heights` and `t_end` is used to name a neuron.
        may_grow: whether an option of a population may.
        limit: so many spikes of a neuron at most.
        slots: so many of all neurons of a population in all samples at most.
        advice: what to do where one fires more often; None: what its spikes suggest.
        grown: what there shall be room for, where a number was needed.
        say: takes a line each time.

    Raises:
        TooManySpikes: a neuron fires more often than `limit`, or infinitely often at one time;
            others see more than `MOST_EVENTS` of a population; or room takes more than `slots`.
        UsageError: the result is traced.
    """
    current: Any = engine
    while True:
        outcome: Any = attempt(current)
        if isinstance(outcome.result, Tracer):
            raise UsageError(
                'a budget that is "auto" needs to see the result, which jax.jit hides',
                fix="pass numbers inside jax.jit",
            )
        if int(outcome.result) != Result.BUDGET_EXHAUSTED:
            return current, outcome
        short = shortages(outcome.budgets)
        if not all(may_grow(option, name) for option, found in short.items() for name in found):
            return current, outcome
        _refuse_endless(outcome, short, limit, advice)
        room = _larger(outcome.budgets, short, limit, grown)
        _refuse_vast(outcome, room, slots)
        if say is not None:
            option, found = next(iter(room.items()))
            name, most = next(iter(found.items()))
            say(f"{_in_words(outcome, option, name)}: repeated with room for {most}")
        current = current.with_room(room)


def _larger(
    budgets: Any,
    short: Mapping[str, Mapping[str, int]],
    limit: int,
    grown: Callable[[int], int],
) -> dict[str, dict[str, int]]:
    """What there shall be room for: option -> population -> number."""
    # Where spikes of a population are lacking, what these do in a cycle is lacking, too.
    factor = _LACKING if "max_events" in short else 1
    for option in ("max_events", "max_arrivals"):
        for name, needed in short.get(option, {}).items():
            # What stopped where its room ended knows no more than that.
            room = int(budgets[option][name].room)
            if needed <= room + 1:
                factor = _UNKNOWN if room < _LONG else _LACKING
    larger: dict[str, dict[str, int]] = {}
    for option, found in short.items():
        larger[option] = {}
        for name, needed in found.items():
            had = int(budgets[option][name].room)
            wanted = max(grown(needed), factor * had)
            most = limit if option == "max_spikes" else MOST_EVENTS
            if option == "max_spikes" and needed >= _FOLLOWED * had:
                # It was left before its end. With so much room it is followed beyond the limit: one
                # that fires for ever costs no more, of another the number is known then.
                most = max(limit // _FOLLOWED, 2 * had)
            larger[option][name] = min(wanted, most)
    return larger


def _refuse_vast(outcome: Any, room: Mapping[str, Mapping[str, int]], slots: float) -> None:
    """Refuse to take much memory for one neuron that fires more often than all others."""
    for name, most in room.get("max_spikes", {}).items():
        own = getattr(outcome, "spikes", {}).get(name)
        if (shape := getattr(getattr(own, "time", None), "shape", None)) is None:
            continue
        lists = math.prod(shape[:-1])
        if lists * most > slots:
            ways = f"simulate fewer samples at once, or pass EventDriven(max_spikes={most})"
            ways += ", or more, if there is memory for it"
            what = (
                f"{_in_words(outcome, 'max_spikes', name)}, and room for {most} of each of {lists}"
            )
            raise TooManySpikes(
                f"spike budget exhausted: {what} (samples times neurons) is more than {slots:.0f}",
                fix=ways,
                node=name,
                code="budget",
            )


def _refuse_endless(
    outcome: Any, short: Mapping[str, Mapping[str, int]], limit: int, advice: str | None
) -> None:
    """Refuse to go on where that would never end."""
    spikes = short.get("max_spikes", {})
    firing = {name: found for name in spikes if (found := busiest(outcome, name)) is not None}
    for found in firing.values():
        if found.is_infinite:
            raise TooManySpikes.of(_advised(infinite_problem(found), advice))
    most = max(spikes, key=spikes.__getitem__, default="")
    if most in firing and (spikes[most] > limit or _leads_far(outcome, short, firing[most], limit)):
        raise TooManySpikes.of(_advised(frequent_problem(firing[most], limit), advice))
    if spikes.get(most, 0) > limit:
        raise _too_many(outcome, "max_spikes", most, limit, advice or "look at weights")
    for option in ("max_events", "max_arrivals"):
        for name, needed in short.get(option, {}).items():
            if needed > MOST_EVENTS:
                # in the words of Python alone: no command has a flag for it
                room = f"EventDriven({option}={2 * needed})"
                ways = f"{advice or 'look at weights'}, or in Python pass {room} if it is meant"
                raise _too_many(outcome, option, name, MOST_EVENTS, ways)


def _leads_far(
    outcome: Any, short: Mapping[str, Mapping[str, int]], found: Busiest, limit: int
) -> bool:
    """Whether a cycle has become expensive, and a neuron's rate leads far beyond the limit."""
    rooms = [int(outcome.budgets["max_events"][name].room) for name in short.get("max_events", {})]
    return max(rooms, default=0) >= _EXPENSIVE and found.by_the_end > _FAR * limit


def _too_many(outcome: Any, option: str, name: str, limit: int, fix: str) -> TooManySpikes:
    text = _in_words(outcome, option, name)
    return TooManySpikes(
        f"spike budget exhausted: {text}, the limit is {limit}", fix=fix, node=name, code="budget"
    )


def _advised(problem: Problem, advice: str | None) -> Problem:
    """A problem with other advice, if there is some."""
    return problem if advice is None else replace(problem, fix=advice)


def _in_words(outcome: Any, option: str, name: str) -> str:
    is_level = name in getattr(outcome, "levels", ())
    return shortage_text(outcome.budgets, option, name, is_level=is_level)
