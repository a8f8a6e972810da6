"""What is to be said of a run of the event engine although it came to an end: what was left out,
where gradients are not the exact ones of what was meant, how far its times reach.

All of it needs numbers: inside `jax.jit` there are none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxsnn.event.event_record import shortage_text, shortages
from jaxsnn.units import format_time

if TYPE_CHECKING:
    from jaxsnn.event.event_solution import EventSolution

#: Rounding of the recorded times matters where it is more than this fraction, a thousandth, of a
#: time constant.
COARSE = 2**-10
#: A run is long where its last spike comes within this fraction of it.
QUIET = 0.02


def numbers_noted(solution: EventSolution) -> Iterator[str]:
    """A sentence for each."""
    yield from _late(solution)
    yield from _lost(solution)
    yield from _long(solution)
    yield from _short(solution)
    yield from _within_steps(solution)
    yield from _clipped(solution)
    yield from _degenerate(solution)
    yield from _coarse(solution)


def total(count: Any) -> int:
    """A number, or the sum of those of several runs (`jax.vmap`)."""
    return int(np.sum(np.asarray(count)))


def _late(solution: EventSolution) -> Iterator[str]:
    yield from late_notes(
        {name: total(count) for name, count in solution.late.items()}, _largest(solution.t_end)
    )


def late_notes(late: Mapping[str, int], t_end: float) -> Iterator[str]:
    """Which inputs have events that come too late, by how many of each do.

    Args:
        t_end: seconds.
    """
    end = format_time(t_end)
    for name, count in late.items():
        if count:
            yield f"input '{name}': {count} events at or after t_end = {end} were left out (times are in seconds)"


def _lost(solution: EventSolution) -> Iterator[str]:
    for name, lost in solution.lost.items():
        if count := total(lost):
            yield (
                f"population '{name}': {count} spikes were fired and not recorded, as where the"
                " queues of a chip overflow"
            )


def _long(solution: EventSolution) -> Iterator[str]:
    """Whether nothing happens in nearly all of the run, as where milliseconds were meant."""
    fired = [np.asarray(own.time) for own in solution.spikes.values()]
    last = max((float(time[np.isfinite(time)].max(initial=0.0)) for time in fired), default=0.0)
    end = _largest(solution.t_end)
    if solution.shortest_tau is None or not 0 < last < QUIET * end:
        return
    shortest = float(np.min(np.asarray(solution.shortest_tau)))
    if shortest < QUIET * QUIET * end:
        yield (
            f"the last spike comes at {format_time(last)}, and t_end = {format_time(end)} is"
            f" {end / shortest:.0f} times the shortest time constant (times are in seconds)"
        )


def _short(solution: EventSolution) -> Iterator[str]:
    if any(np.ndim(budget.needed) for own in solution.budgets.values() for budget in own.values()):
        return  # of several runs at once
    for option, found in shortages(solution.budgets).items():
        for name in found:
            text = shortage_text(solution.budgets, option, name, is_level=name in solution.levels)
            yield f"{option} was too small: {text}; numbers of what is behind are lower bounds"


def _within_steps(solution: EventSolution) -> Iterator[str]:
    """Yield which populations fire more often than once in a time step, which their source cannot."""
    for name, dt in solution.one_per_step:
        time = np.asarray(solution.spikes[name].time)
        # A spike in each step is none of these, to the rounding of its time.
        rounding = 4 * float(np.finfo(time.dtype).eps) * _largest(solution.t_end)
        with np.errstate(invalid="ignore"):  # between unused slots
            close = np.diff(time, axis=-1) < (1 - COARSE) * dt - rounding
        if count := int(close.sum()):
            yield (
                f"node '{name}': {count} of {int(np.isfinite(time).sum())} recorded spikes come less"
                f" than one time step ({format_time(dt)}) after the spike before of the same neuron,"
                " and its framework fires at most one spike in a step: for the spikes of the"
                " framework simulate with engine=TimeStepped()"
            )


def _clipped(solution: EventSolution) -> Iterator[str]:
    if solution.min_slope is None:
        return
    for name, spikes, of_all in _counted(solution, solution.clipped_slopes):
        yield (
            f"node '{name}': {of_all} {spikes} so near tangency that their gradient is clipped at"
            f" min_slope={solution.min_slope:g}"
        )


def _degenerate(solution: EventSolution) -> Iterator[str]:
    if solution.jump_width is None:
        follows = "no weight moves them, and their exact gradient is zero (jump_width)"
    else:
        width = format_time(solution.jump_width)
        follows = f"no weight moves them, gradients take a ramp of jump_width={width} for each jump"
    for name, spikes, of_all in _counted(solution, solution.degenerate_spikes):
        yield f"node '{name}': {of_all} {spikes} at the very time of an arrival: {follows}"


def _counted(solution: EventSolution, counts: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Name, what is counted with its verb, and how many of how many; nothing where there is none."""
    for name, count in counts.items():
        if not (number := total(count)):
            continue
        if name in solution.levels:
            yield name, "rises and falls of V come", str(number)
        else:
            recorded = total(np.isfinite(np.asarray(solution.spikes[name].time)))
            yield name, "recorded spikes come", f"{number} of {recorded}"


def _coarse(solution: EventSolution) -> Iterator[str]:
    """Whether the type of the times is too coarse for the length of the run."""
    if solution.shortest_tau is None:
        return
    kind = np.asarray(solution.t_end).dtype
    end, shortest = _largest(solution.t_end), float(np.min(np.asarray(solution.shortest_tau)))
    what = "the shortest time constant is"
    if solution.shortest_box < shortest:
        what, shortest = "the shortest box spike lasts", solution.shortest_box
    rounding = float(np.finfo(kind).eps) * end
    if rounding > COARSE * shortest:
        yield (
            f"{kind} resolves spike times near t_end = {format_time(end)} to {rounding:.2g} s, {what}"
            f" {format_time(shortest)}: for finer times enable x64"
            ' (JAX_ENABLE_X64=1, or jax.config.update("jax_enable_x64", True))'
        )


def _largest(value: Any) -> float:
    return float(np.max(np.asarray(value)))
