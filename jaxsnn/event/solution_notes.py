"""Notes on a completed run of the event engine: dropped events, gradients that are approximate, and
the resolution of its times.

All of it needs numbers: inside `jax.jit` there are none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jax.core import Tracer
from jax.errors import TracerArrayConversionError

from jaxsnn.errors import Note, listing
from jaxsnn.event.event_record import shortage_text, shortages
from jaxsnn.options import ENGINE, T_END
from jaxsnn.units import format_time, look_like_milliseconds
from jaxsnn.wording import Text

if TYPE_CHECKING:
    from jaxsnn.network.network import Network

#: Fraction of a time constant above which the rounding of recorded times matters.
COARSE = 2**-10
#: Fraction of a run: if all spikes lie within it, a note reports that the run is long.
QUIET = 0.02


def numbers_noted(solution: Any) -> Iterator[str]:
    """Yield the notes on the results of a run; traced results, as during differentiation, give
    none.
    """
    for part in (
        _late,
        _lost,
        _long,
        _silent,
        _short,
        _within_steps,
        _clipped,
        _degenerate,
        _coarse,
    ):
        try:
            yield from part(solution)
        except TracerArrayConversionError:
            continue


def continuous_time_notes(network: Network) -> Iterator[str]:
    """Yield a note on the populations from a time-stepped framework, which are run in continuous
    time here.
    """
    stepped = [
        name for name, population in network.populations.items() if population.steps_through_time
    ]
    if stepped:
        listed = listing(f"'{name}'" for name in stepped)
        yield Note(
            Text(
                "{listed}: the source framework is time-stepped, but the equations are solved "
                "here in continuous time, so that spikes may differ. Pass {engine} to reproduce "
                "the framework's spikes; `jaxsnn fidelity` measures the difference",
                listed=listed,
                engine=ENGINE.set_to("grid"),
            ),
            kind="approximated",
            code="continuous-time",
        )


#: Minimum ratio of a time constant and the duration of a run for a note that the time constant looks
#: like milliseconds.
_RUNS = 10.0


def time_constant_notes(network: Network, t_end: Any) -> Iterator[str]:
    """Yield a note on each time constant that looks like milliseconds where seconds are expected.

    Those of a framework that steps through time were computed by an exporter, and may be long.

    Args:
        t_end: seconds; if it or a time constant is traced there is no note.
    """
    if isinstance(t_end, Tracer):
        return
    end = _largest(t_end)
    for name, population in network.populations.items():
        if population.steps_through_time or population.counts_steps:
            continue
        for key, value in network.parameters[name].items():
            if not key.startswith("tau") or isinstance(value, Tracer):
                continue
            tau = np.asarray(value, float)
            suspicious = tau[look_like_milliseconds(tau) & (tau >= _RUNS * end)]
            if suspicious.size:
                longest = float(suspicious.max())
                yield Note(
                    Text(
                        "node '{node}': {parameter} is {time}, {ratio:.0f} times the duration of "
                        'the run ({t_end}). Time constants are in seconds: write "{seconds:g}ms" '
                        "for milliseconds",
                        node=name,
                        parameter=key,
                        time=format_time(longest),
                        ratio=longest / end,
                        t_end=format_time(end),
                        seconds=longest,
                    ),
                    kind="assumed",
                    code="time-constant",
                )


def total(count: Any) -> int:
    """Return a number, or the sum of those of several runs (`jax.vmap`)."""
    return int(np.sum(np.asarray(count)))


def _late(solution: Any) -> Iterator[str]:
    yield from late_notes(
        {name: total(count) for name, count in solution.late.items()}, _largest(solution.t_end)
    )


def late_notes(late: Mapping[str, int], t_end: float) -> Iterator[str]:
    """Yield a note on each input with events at or after the end, with their number.

    Args:
        t_end: seconds.
    """
    end = format_time(t_end)
    for name, count in late.items():
        if count:
            yield Note(
                Text(
                    "input '{name}': events at or after {t_end} that are ignored: {count} (times "
                    "are in seconds)",
                    name=name,
                    count=count,
                    t_end=T_END.equal_to(end),
                ),
                kind="dropped",
                code="late-events",
            )


def _lost(solution: Any) -> Iterator[str]:
    for name, lost in solution.lost.items():
        if count := total(lost):
            yield Note(
                Text(
                    "population '{population}': spikes that were not recorded: {count}, for "
                    "example because queues of the chip overflowed",
                    population=name,
                    count=count,
                ),
                kind="dropped",
                code="lost-spikes",
            )


def _long(solution: Any) -> Iterator[str]:
    """Yield a note if nothing happens in nearly all of the run, as when times are in
    milliseconds.
    """
    if solution.shortest_tau is None:
        return
    end, shortest = _largest(solution.t_end), float(np.min(np.asarray(solution.shortest_tau)))
    if not is_very_long(end, shortest):  # cheap test before all spikes are read
        return
    fired = [np.asarray(spikes.time) for spikes in solution.spikes.values()]
    last = max((float(time[np.isfinite(time)].max(initial=0.0)) for time in fired), default=0.0)
    if last >= QUIET * end or not fired:
        return
    event = Text("the last spike occurs at {last}", last=format_time(last))
    yield Note(
        Text(
            "{event}, and {t_end} is {ratio:.0f} times the shortest time constant (times are in "
            "seconds)",
            event=event if last else "no neuron fires",
            t_end=T_END.equal_to(format_time(end)),
            ratio=end / shortest,
        ),
        kind="assumed",
        code="times-in-seconds",
    )


def is_very_long(t_end: float, shortest_tau: float) -> bool:
    """Return whether a run is so long in relation to a time constant, both in seconds, that its times
    are perhaps in milliseconds.
    """
    return shortest_tau < QUIET * QUIET * t_end


def _silent(solution: Any) -> Iterator[str]:
    """Yield a note if no neuron fires and all time constants look like milliseconds."""
    if solution.shortest_tau is None or not solution.spikes:
        return
    shortest = float(np.min(np.asarray(solution.shortest_tau)))
    # `time_constant_notes` reports those that are long in relation to the run.
    if not look_like_milliseconds(shortest) or shortest >= _RUNS * _largest(solution.t_end):
        return
    if not any(total(spikes.count) for spikes in solution.spikes.values()):
        yield Note(
            Text(
                "no neuron fires, and the shortest time constant is {time}. Time constants are in "
                'seconds: write "{seconds:g}ms" for milliseconds',
                time=format_time(shortest),
                seconds=shortest,
            ),
            kind="assumed",
            code="time-constant",
        )


def _short(solution: Any) -> Iterator[str]:
    if any(
        np.ndim(budget.needed)
        for budgets in solution.budgets.values()
        for budget in budgets.values()
    ):
        return  # results of several runs (`jax.vmap`)
    for option, population_needs in shortages(solution.budgets).items():
        for name in population_needs:
            text = shortage_text(solution.budgets, option, name)
            yield Note(
                Text(
                    "{option} is too small: {shortage}; spike counts of later populations are "
                    "lower bounds",
                    option=option,
                    shortage=text,
                ),
                kind="truncated",
                code="short-budget",
            )


def _within_steps(solution: Any) -> Iterator[str]:
    """Yield a note on each population that fires more than once in a time step, which its source
    framework cannot do.
    """
    for name, dt in solution.one_per_step:
        time = np.asarray(solution.spikes[name].time)
        # Spikes exactly one step apart are allowed, up to the rounding of their times.
        rounding = 4 * float(np.finfo(time.dtype).eps) * _largest(solution.t_end)
        with np.errstate(invalid="ignore"):  # inf - inf between unused slots
            close = np.diff(time, axis=-1) < (1 - COARSE) * dt - rounding
        if count := int(close.sum()):
            yield Note(
                Text(
                    "node '{name}': inter-spike intervals shorter than the time step of the "
                    "source framework ({dt}), which fires at most one spike per step: {count} of "
                    "{spikes} recorded spikes. To reproduce the framework's spikes, simulate with "
                    "{engine}",
                    name=name,
                    count=count,
                    spikes=int(np.isfinite(time).sum()),
                    dt=format_time(dt),
                    engine=ENGINE.set_to("grid"),
                ),
                kind="approximated",
                code="several-spikes-per-step",
            )


def _clipped(solution: Any) -> Iterator[str]:
    if solution.min_slope is None:
        return
    for name, share in _counted(solution, solution.clipped_slopes):
        yield (
            Text(
                "node '{node}': spikes whose gradient is clipped at min_slope={min_slope:g}, "
                "because V hardly rises at the threshold: {share}",
                node=name,
                share=share,
                min_slope=solution.min_slope,
            )
        )


def _degenerate(solution: Any) -> Iterator[str]:
    if solution.jump_width is None:
        follows = (
            "their times do not depend on weights, so that their exact gradient is zero; "
            "pass jump_width for a surrogate gradient"
        )
    else:
        width = format_time(solution.jump_width)
        follows = Text(
            "their times do not depend on weights; gradients use a surrogate, a ramp of "
            "jump_width={width} for each jump of V",
            width=width,
        )
    for name, share in _counted(solution, solution.degenerate_spikes):
        yield (
            Text(
                "node '{node}': spikes that coincide with an input spike: {share}; {follows}",
                node=name,
                share=share,
                follows=follows,
            )
        )


def _counted(solution: Any, counts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name of each population with counted spikes, and their number among all recorded
    ones.
    """
    for name, count in counts.items():
        if number := total(count):
            recorded = total(np.isfinite(np.asarray(solution.spikes[name].time)))
            yield name, Text("{count} of {size}", count=number, size=recorded)


def _coarse(solution: Any) -> Iterator[str]:
    """Yield a note if the type of the times is too coarse for the length of the run."""
    if solution.shortest_tau is None:
        return
    kind = np.asarray(solution.t_end).dtype
    end, shortest = _largest(solution.t_end), float(np.min(np.asarray(solution.shortest_tau)))
    relation = "the shortest time constant is"
    if solution.shortest_box < shortest:
        relation, shortest = "the shortest rectangular pulse lasts", solution.shortest_box
    rounding = float(np.finfo(kind).eps) * end
    if rounding > COARSE * shortest:
        yield Note(
            Text(
                "{kind} resolves spike times near {t_end} to {rounding:.2g} s, {relation} "
                "{shortest}: for a finer resolution enable x64 (JAX_ENABLE_X64=1, or "
                'jax.config.update("jax_enable_x64", True))',
                kind=kind,
                t_end=T_END.equal_to(format_time(end)),
                rounding=rounding,
                relation=relation,
                shortest=format_time(shortest),
            ),
            kind="approximated",
            code="coarse-times",
        )


def _largest(value: Any) -> float:
    return float(np.max(np.asarray(value)))
