"""Neurons that fire for ever, or infinitely often at one time: which, how fast, and why, as far as
what was recorded of them tells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jax import lax

from jaxsnn.errors import Problem
from jaxsnn.event.event_driven import MOST_ROOM
from jaxsnn.options import MAX_SPIKES, T_END
from jaxsnn.units import format_time
from jaxsnn.wording import Text

#: So many spikes of one neuron at one time are taken for infinitely many,
AT_ONCE = 1024
#: or so many of a population, if a neuron has so many of them.
_AT_ONCE_OF_ALL, _AT_ONCE_EACH = 2**16, 64
#: So many at one time are enough where a reset leaves V above the threshold.
_AT_ONCE_ABOVE = 8
#: A rate is that of the last recorded spikes, so many at most.
_LAST = 256


@dataclass(frozen=True, kw_only=True)
class Busiest:
    """The neuron of a population that fires most, and what is known of its spikes.

    Attributes:
        name: the population's.
        sample, neuron: their numbers.
        count: how often it fires; a lower bound where it was not followed to the end.
        recorded: spikes that were recorded of it.
        last: time of the last of these, seconds.
        together: how many of these come at that very time.
        of_all: how many spikes of the population do, in this sample.
        rate: of the last recorded spikes, spikes per second; inf if they come at one time.
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
        """Whether its reset leaves V at the threshold or above, and it fires on at that time."""
        lifted = self.height is not None and self.height <= 0
        return lifted and self.together >= min(_AT_ONCE_ABOVE, self.recorded) > 1

    @property
    def is_infinite(self) -> bool:
        """Whether its rate is taken for infinite."""
        many = self.of_all >= _AT_ONCE_OF_ALL and self.together >= _AT_ONCE_EACH
        return self.is_above or self.together >= AT_ONCE or many

    @property
    def by_the_end(self) -> int:
        """How many spikes it fires if it goes on as in the last ones; `count`, if that is unknown."""
        if self.t_end is None or not 0 < self.rate < float("inf"):
            return self.count
        return max(self.count, self.recorded + round(self.rate * (self.t_end - self.last)))


def busiest(outcome: Any, name: str) -> Busiest | None:
    """The neuron of a population that fires most; None where no spikes of it are recorded.

    Args:
        outcome: of a run, outside jit; its `spikes`, `heights` and `t_end` are looked at, where it
            has them.
    """
    own = getattr(outcome, "spikes", {}).get(name)
    if own is None or not hasattr(own, "time"):
        return None
    time, count = _numbers(own.time), _numbers(own.count)
    # times rise along the last axis, and are inf behind the last
    recorded = np.isfinite(time).sum(axis=-1)
    if not recorded.any():
        return None
    last = np.take_along_axis(time, np.maximum(recorded - 1, 0)[..., None], -1)[..., 0]
    together = np.sum((time == last[..., None]) & np.isfinite(time), axis=-1)
    crowded = together if together.max() >= AT_ONCE else count
    sample, neuron = np.unravel_index(np.argmax(crowded), count.shape)
    mine = time[sample, neuron, : recorded[sample, neuron]]
    heights, end = getattr(outcome, "heights", {}), getattr(outcome, "t_end", None)
    return Busiest(
        name=name,
        sample=int(sample),
        neuron=int(neuron),
        count=int(count[sample, neuron]),
        recorded=len(mine),
        last=float(last[sample, neuron]),
        together=int(together[sample, neuron]),
        of_all=int(np.sum(time[sample] == last[sample, neuron])),
        rate=_rate(mine),
        height=float(_numbers(heights[name])[neuron]) if name in heights else None,
        t_end=None if end is None else float(_numbers(end)),
    )


def _numbers(value: Any) -> np.ndarray:
    """What an array holds, where it is being differentiated too."""
    return np.asarray(lax.stop_gradient(value))


def _rate(times: np.ndarray) -> float:
    """Spikes per second of the last spikes; inf if they come at one time."""
    # in double precision: single times differ by little
    times = times[-_LAST:].astype(np.float64)
    if len(times) < 2:
        return 0.0
    span = times[-1] - times[0]
    return (len(times) - 1) / span if span > 0 else float("inf")


def infinite_problem(found: Busiest) -> Problem:
    """What is to be said of a neuron that fires infinitely often at one time."""
    when = format_time(found.last)
    where = f"neuron {found.neuron} of '{found.name}' fires without end in sample {found.sample}"
    if found.is_above:
        cause = (
            f"v_threshold - v_reset is {found.height:g} and must be above 0, a reset leaves V at"
            " the threshold or above"
        )
        fix = f"lower v_reset of '{found.name}', or raise its v_threshold"
    else:
        cause = (
            "what it sends comes back without a delay, or an arrival moves V over many thresholds,"
            " and the overshoot stays"
        )
        fix = Text(
            "give what it sends back a delay, lower weights or raise v_threshold, or pass "
            "{max_spikes} or more if it ends somewhere",
            max_spikes=MAX_SPIKES.set_to(2 * found.count),
        )
    message = (
        f"spike budget exhausted: {where}: its rate is infinite at {when}, {found.together} of its"
        f" {found.recorded} recorded spikes come at that time; {cause}"
    )
    facts = {"neuron": found.neuron, "sample": found.sample, "spikes": found.count}
    return Problem(node=found.name, code="budget", message=message, fix=fix, facts=facts)


def frequent_problem(found: Busiest, limit: int) -> Problem:
    """What is to be said of a neuron that fires more often than a limit."""
    message = (
        f"spike budget exhausted: neuron {found.neuron} of '{found.name}' fires at least"
        f" {found.count} times in sample {found.sample}"
    )
    if 0 < found.rate < float("inf"):
        message += f", at about {found.rate:.6g} spikes/s up to {format_time(found.last)}"
    if found.t_end is not None:
        message += Text(
            ": about {by_the_end} spikes by {option}",
            by_the_end=found.by_the_end,
            option=T_END.equal_to(format_time(found.t_end)),
        )
    wanted = found.by_the_end + found.by_the_end // 8
    fix = Text(
        "lower what drives it (weights, bias, v_leak), lengthen its time constants, or "
        "end earlier with {t_end}",
        t_end=T_END,
    )
    if wanted <= MOST_ROOM:
        fix += Text(
            ", or pass {max_spikes} if it is meant to fire so often",
            max_spikes=MAX_SPIKES.set_to(wanted),
        )
    message += f", the limit is {limit}"
    facts = {"neuron": found.neuron, "sample": found.sample, "spikes": found.count}
    return Problem(node=found.name, code="budget", message=message, fix=fix, facts=facts)
