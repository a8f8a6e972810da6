"""Maps a net: placers and routers in turn, cheap ones first, until one fits, counting forbids, or
time is up.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jaxsnn.bss2.chip import HICANN_X, NOTHING_DEAD, Chip, Dead
from jaxsnn.bss2.mapping import SIGNS, Mapping, PlacedPopulation, Run
from jaxsnn.bss2.netlist import Netlist
from jaxsnn.bss2.search.assign import hopeless
from jaxsnn.bss2.search.effort import Effort
from jaxsnn.bss2.search.exhaustive import is_small, search
from jaxsnn.bss2.search.feasibility import (
    Certificate,
    impossible,
    least_circuits,
    least_runs,
    too_few_runs,
)
from jaxsnn.bss2.search.partition import partitions
from jaxsnn.bss2.search.place import PLACERS
from jaxsnn.bss2.search.route import ROUTERS
from jaxsnn.bss2.search.task import ChipParts, Task, task_of, usable_parts
from jaxsnn.errors import UsageError, suggestion

#: More runs than counting asks for that are tried before giving up.
_MORE_RUNS = 8
#: How many sources the thorough attempts may move, one round after the other; only the first where
#: a mapping is known.
_THOROUGH = (200, 1000)


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What mapping a net came to.

    Attributes:
        stop_reason: "fits", "impossible" (proven, see `certificate`) or "gave up".
        mapping: where it fits.
        certificate: where it is impossible; else why fewer runs are, or None.
        tried: attempts at a run.
        why: one line on what stood in the way, where it does not fit, with advice to who maps a
            file.
        reason: where it gave up, the same without the advice.
    """

    stop_reason: str
    mapping: Mapping | None
    certificate: Certificate | None
    tried: int
    why: str = ""
    reason: str = ""

    @property
    def fits(self) -> bool:
        """There is a mapping."""
        return self.mapping is not None


def map_net(
    net: Netlist,
    *,
    chip: Chip = HICANN_X,
    dead: Dead = NOTHING_DEAD,
    signs: str = "fixed",
    seed: int = 0,
    max_runs: int | None = None,
    time_limit: float = 60.0,
) -> Outcome:
    """Place and route a net in as few runs as can be found.

    Args:
        signs: "fixed": one synapse row for each weight as it is; "free": rows of both signs for
            each.
        seed: of the placers and routers that search at random; the same seed gives the same
            mapping.
        max_runs: at most so many runs; None for as many as it takes.
        time_limit: seconds after which no new attempt is started.

    Raises:
        ChipError: a dead part does not exist.
        UsageError: unknown signs, a seed that is negative or beyond 31 bits, or a limit that is not
            positive.
    """
    _refuse(signs, seed, max_runs, time_limit)
    parts = usable_parts(chip, dead)
    forbidden = impossible(net, parts, signs)
    if forbidden is not None:
        return _stopped("impossible", forbidden, 0, forbidden.message)
    if (
        max_runs is not None
        and (forbidden := too_few_runs(net, parts, signs, max_runs)) is not None
    ):
        return _stopped("impossible", forbidden, 0, forbidden.message)
    fewest, why = least_runs(net, parts, signs)
    attempt = _Attempt(
        net=net, parts=parts, signs=signs, seed=seed, deadline=time.monotonic() + time_limit
    )
    last = fewest + _MORE_RUNS if max_runs is None else max_runs
    found = attempt.search(fewest, last)
    why = attempt.certificate or why
    if found is not None:
        mapping = Mapping(
            chip=chip,
            dead=dead,
            signs=signs,
            seed=seed,
            fingerprint=net.fingerprint(),
            populations=tuple(
                PlacedPopulation(name=one.name, size=one.size, external=one.external)
                for one in net.populations
            ),
            runs=_linked(net, found),
        )
        return Outcome(stop_reason="fits", mapping=mapping, certificate=why, tried=attempt.tried)
    if attempt.certificate is not None and max_runs == 1:
        return _stopped(
            "impossible", attempt.certificate, attempt.tried, attempt.certificate.message
        )
    limit = (
        f"within {time_limit:g} s"
        if time.monotonic() > attempt.deadline
        else f"in {last} run{'s' * (last > 1)}"
    )
    advice = (
        "allow more with --time-limit, or with --runs"
        if max_runs
        else "allow more with --time-limit"
    )
    reason = f"no mapping was found {limit} ({attempt.tried} attempts; {attempt.why})"
    return dataclasses.replace(
        _stopped("gave up", why, attempt.tried, f"{reason}: {advice}"), reason=reason
    )


def _refuse(signs: str, seed: int, max_runs: int | None, time_limit: float) -> None:
    if signs not in SIGNS:
        raise UsageError(f"there are no signs '{signs}': {suggestion(signs, SIGNS)}")
    if not 0 <= seed < 1 << 31:
        raise UsageError(f"{seed} is no seed: give one from 0 to {(1 << 31) - 1}")
    if max_runs is not None and max_runs < 1:
        raise UsageError(f"{max_runs} runs are no limit: allow at least 1")
    if not (math.isfinite(time_limit) and time_limit > 0):
        raise UsageError(f"{time_limit} s is no time limit: give a positive number of seconds")


def _stopped(reason: str, certificate: Certificate | None, tried: int, why: str) -> Outcome:
    return Outcome(stop_reason=reason, mapping=None, certificate=certificate, tried=tried, why=why)


def _linked(net: Netlist, runs: list[Run]) -> tuple[Run, ...]:
    """The runs, with the run that recorded each replayed neuron."""
    run_of = {
        (neuron.population, neuron.index): number
        for number, run in enumerate(runs)
        for neuron in run.neurons
    }
    return tuple(
        dataclasses.replace(
            run,
            sources=tuple(
                one
                if one.from_run is None
                else dataclasses.replace(one, from_run=run_of[one.population, one.index])
                for one in run.sources
            ),
        )
        for run in runs
    )


class _Attempt:
    """The search, and how often it tried."""

    def __init__(
        self, *, net: Netlist, parts: ChipParts, signs: str, seed: int, deadline: float
    ) -> None:
        self.net, self.parts, self.signs, self.seed, self.deadline = (
            net,
            parts,
            signs,
            seed,
            deadline,
        )
        self.least = least_circuits(net, parts, signs)
        self.tried, self.why = 0, "nothing was tried"
        self.certificate: Certificate | None = None
        self.overflow: dict[bytes, int] = {}
        self.found: dict[bytes, Run] = {}
        self.failed: dict[tuple[bytes, int], bool] = {}

    def search(self, fewest: int, last: int) -> list[Run] | None:
        """The runs: first whatever is found quickly, then fewer of them."""
        found = None
        for runs in range(fewest, last + 1):
            found = self.in_runs(runs, 0)
            if found is not None or time.monotonic() > self.deadline:
                break
        efforts = _THOROUGH if found is None else _THOROUGH[:1]
        for effort in efforts:
            for runs in range(fewest, last + 1 if found is None else len(found)):
                better = self.in_runs(runs, effort)
                if better is not None:
                    return better
                if time.monotonic() > self.deadline:
                    break
        return found

    def in_runs(self, runs: int, repairs: int) -> list[Run] | None:
        """The runs, or nothing, which proves nothing; a proof for one run goes to `certificate`."""
        for targets in partitions(self.net, self.parts, self.least, runs):
            found: list[Run] = []
            for inside in targets:
                run = self._run(inside, repairs)
                if isinstance(run, Certificate) and runs == 1:
                    self.certificate = run
                if not isinstance(run, Run):
                    break
                found.append(run)
            if len(found) == len(targets):
                return found
            if time.monotonic() > self.deadline:
                return None
        return None

    def _run(self, targets: np.ndarray, repairs: int) -> Run | Certificate | None:
        """One run; what was found before for the same neurons is not searched again."""
        key = targets.tobytes()
        if key not in self.found and (key, repairs) not in self.failed:
            result = self._search(task_of(self.net, self.parts, self.signs, targets), repairs)
            if isinstance(result, Run):
                self.found[key] = result
            elif result is None:
                self.failed[key, repairs] = True
            return result
        return self.found.get(key)

    def _search(self, task: Task, repairs: int) -> Run | Certificate | None:
        """One run by the members of the portfolio, cheap ones first; on a small chip the last one
        is exhaustive.
        """
        if repairs and is_small(task):
            self.tried += 1
            return search(task, self.deadline)
        key = task.targets.tobytes()
        if repairs and hopeless(task, self.overflow.get(key, 0)):
            return None
        least = self.least[task.targets]
        for counts, placer, router in _members(task, least, repairs):
            if time.monotonic() > self.deadline and self.tried:
                return None
            self.tried += 1
            rng = np.random.default_rng([self.seed, self.tried])
            placement = PLACERS[placer](task, counts, rng)
            if placement is None:
                self.why = f"{int(counts.sum())} circuits have no room with '{placer}'"
                continue
            found = ROUTERS[router](
                task, placement, rng, Effort(repairs=repairs, deadline=self.deadline)
            )
            if isinstance(found, Run):
                return dataclasses.replace(found, method=f"{placer}, {found.method}")
            self.why = found.why
            if found.overflow is not None:
                self.overflow[key] = min(found.overflow, self.overflow.get(key, found.overflow))
        return None


def _members(task: Task, least: np.ndarray, repairs: int) -> Iterator[tuple[np.ndarray, str, str]]:
    """(circuits of each neuron, placer, router)."""
    levels = list(_levels(task, least))
    if not repairs:
        for counts in levels:
            yield counts, "spread", "mixed"
        yield least, "vendor", "greedy"
    placers = ("spread", "annealed", "first-fit") if repairs else ("first-fit", "by-connectivity")
    if not (task.on_chip >= 0).any():
        # where a neuron is decides how its own events travel, and nothing else
        placers = placers[:1]
    for placer in placers:
        for counts in levels:
            yield counts, placer, "mixed"


def _levels(task: Task, least: np.ndarray) -> Iterator[np.ndarray]:
    """Circuits of each neuron: the fewest, then more while the chip has room; even numbers fill
    both hemispheres.
    """
    room = int(task.parts.circuits.sum())
    seen = []
    for factor, even in (
        (1.0, False),
        (1.0, True),
        (1.25, True),
        (1.5, True),
        (2.0, True),
        (1.15, False),
    ):
        counts = np.ceil(least * factor).astype(int)
        counts += counts % 2 if even else 0
        if counts.sum() <= room and not any(np.array_equal(counts, one) for one in seen):
            seen.append(counts)
            yield counts
