"""The one loop that grows budgets: a run is repeated with more room until none is too small."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from jax.core import Tracer

from jaxsnn.errors import SimulationError, UsageError
from jaxsnn.event.event_record import shortage_text, shortages
from jaxsnn.network.results import Result

#: More spikes of one neuron in one sample than this are taken for a mistake.
LARGEST_BUDGET = 16384

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
    advice: str = "look at weights and thresholds",
    grown: Callable[[int], int] = an_eighth_more,
    say: Callable[[str], None] | None = None,
) -> tuple[EngineType, Outcome]:
    """The engine that had enough room, and what came of it.

    A run that fails for another reason, or where a budget was too small that may not grow, is not
    repeated.

    Args:
        engine: an engine to begin with (`jaxsnn.simulation.solution.Engine`).
        attempt: runs one; its outcome has a `result` and `budgets`, as a `Solution` has.
        may_grow: whether an option of a population may.
        limit: so many spikes of a neuron at most.
        advice: what to do where one fires more often.
        grown: what there shall be room for, where a number was needed.
        say: takes a line each time.

    Raises:
        TooManySpikes: a neuron fires more often than `limit`.
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
        room = {
            option: {name: grown(needed) for name, needed in found.items()}
            for option, found in short.items()
        }
        if say is not None:
            option, found = next(iter(room.items()))
            name, most = next(iter(found.items()))
            say(f"{_in_words(outcome, option, name)}: repeated with {option}={most}")
        current = current.with_room(room)


def _refuse_endless(
    outcome: Any, short: Mapping[str, Mapping[str, int]], limit: int, advice: str
) -> None:
    spikes = short.get("max_spikes", {})
    if max(spikes.values(), default=0) > limit:
        name = max(spikes, key=spikes.__getitem__)
        text = _in_words(outcome, "max_spikes", name)
        raise TooManySpikes(f"spike budget exhausted: {text}", fix=advice, node=name, code="budget")


def _in_words(outcome: Any, option: str, name: str) -> str:
    is_level = name in getattr(outcome, "levels", ())
    return shortage_text(outcome.budgets, option, name, is_level=is_level)
