"""Places and routes a net: placers and routers in turn, cheap ones first, until one fits, counting
forbids, or time is up.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from jaxsnn.bss2.chip import HICANN_X, NOTHING_DEAD, Chip, Dead
from jaxsnn.bss2.mapping import SIGNS, Mapping, PlacedPopulation, Run
from jaxsnn.bss2.netlist import Netlist
from jaxsnn.bss2.search.assign_bins import hopeless
from jaxsnn.bss2.search.effort import Effort, Unrouted
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
from jaxsnn.bss2.search.placement import refuse_misplaced
from jaxsnn.bss2.search.route import ROUTERS
from jaxsnn.bss2.search.task import ChipParts, Task, task_of, usable_parts
from jaxsnn.errors import (
    MappingError,
    Problem,
    UsageError,
    as_number,
    as_whole,
    shown,
    suggestion,
)

#: More runs than counting asks for that are tried before giving up.
_MORE_RUNS = 8
#: How many sources the thorough attempts may move, one round after the other, each with draws of
#: its own; only the first where a mapping is known.
_THOROUGH = (200, 1000, 1500, 2000, 3000)
#: Of the time limit, after which free signs are tried in the place of fixed ones.
_SHARE = 0.25
#: Placers of the quick and of the thorough attempts, where none were chosen.
_QUICK_PLACERS = ("first-fit", "by-connectivity")
_THOROUGH_PLACERS = ("spread", "annealed", "first-fit")
_LARGEST_SEED = (1 << 31) - 1


@dataclass(frozen=True, kw_only=True)
class Portfolio:
    """Which placers and routers are tried, by name and in this order.

    Attributes:
        placers: keys of `place.PLACERS`; None for those that have proven best.
        routers: keys of `route.ROUTERS`; None for "mixed", and "greedy" after the placer "vendor".
    """

    placers: Sequence[str] | None = None
    routers: Sequence[str] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What placing and routing a net came to.

    Attributes:
        stop_reason: "fits", "impossible" (proven, see `certificate`) or "gave up".
        mapping: where it fits.
        certificate: where it is impossible; else why fewer runs are, or None.
        tried: attempts at a run.
        problem: what stood in the way, where it does not fit; its code is "impossible" or
            "gave-up".
    """

    stop_reason: str
    mapping: Mapping | None
    certificate: Certificate | None
    tried: int
    problem: Problem | None = None

    @property
    def fits(self) -> bool:
        """There is a mapping."""
        return self.mapping is not None

    @property
    def why(self) -> str:
        """What stood in the way and what to do about it, in one line; "" where it fits."""
        return "" if self.problem is None else str(self.problem)


def place_and_route(
    net: Netlist,
    *,
    chip: Chip = HICANN_X,
    dead: Dead = NOTHING_DEAD,
    signs: str = "fixed",
    seed: int = 0,
    max_runs: int | None = None,
    time_limit: float = 60.0,
    portfolio: Portfolio | None = None,
) -> Outcome:
    """Place and route a net in as few runs as can be found.

    What is found is not verified here: `jaxsnn.check_mapping` does that, and `jaxsnn map` with it.

    Args:
        net: the netlist of a quantised graph, `quantize(graph).netlist`.
        chip: its sizes.
        dead: its parts that are not used.
        signs: "fixed": one synapse row for each weight as it is; "free": rows of both signs for
            each.
        seed: of the placers and routers that search at random; the same seed gives the same
            mapping.
        max_runs: at most so many runs; None for as many as it takes.
        time_limit: seconds after which no new attempt is started.
        portfolio: which placers and routers are tried; with chosen ones a small chip is not
            searched exhaustively.

    Raises:
        ChipError: a dead part does not exist.
        MappingError: a registered placer or router returned what none may return.
        UsageError: unknown signs, placers or routers, a seed that is negative or beyond 31 bits, or
            a limit that is not positive.
    """
    if not isinstance(net, Netlist):
        raise UsageError(
            f"a {type(net).__name__} is not a Netlist", fix="pass jaxsnn.quantize(graph).netlist"
        )
    for given, kind in ((chip, Chip), (dead, Dead)):
        if not isinstance(given, kind):
            text = f"a {type(given).__name__} is not a {kind.__name__}"
            raise UsageError(text, fix="see jaxsnn.bss2.chip")
    _refuse(signs, seed, max_runs, time_limit)
    chosen = _chosen(portfolio or Portfolio())
    parts = usable_parts(chip, dead)
    forbidden = impossible(net, parts, signs)
    if forbidden is None and max_runs is not None:
        forbidden = too_few_runs(net, parts, signs, max_runs)
    if forbidden is not None:
        return _impossible(forbidden, tried=0)
    deadline = time.monotonic() + time_limit
    kinds = ["fixed", "free"] if signs == "fixed" else ["free"]
    attempts = [
        _Attempt(net=net, parts=parts, signs=kind, seed=seed, deadline=deadline, portfolio=chosen)
        for kind in kinds
        if kind == signs or impossible(net, parts, kind) is None
    ]
    return _Search(attempts, max_runs, time_limit).outcome()


def _refuse(signs: str, seed: int, max_runs: int | None, time_limit: float) -> None:
    if signs not in SIGNS:
        raise UsageError(f"there are no signs '{signs}'", fix=suggestion(str(signs), SIGNS))
    number = as_whole(seed)
    if number is None or not 0 <= number <= _LARGEST_SEED:
        fix = f"give a whole number from 0 to {_LARGEST_SEED}"
        raise UsageError(f"the seed is {seed!r}", fix=fix)
    if max_runs is not None and (as_whole(max_runs) or 0) < 1:
        raise UsageError(f"at most {max_runs!r} runs are allowed", fix="allow at least max_runs=1")
    if not 0 < as_number(time_limit) < math.inf:
        raise UsageError(
            f"the time limit is {shown(time_limit)} s", fix="give a positive number of seconds"
        )


def _chosen(portfolio: Portfolio) -> Portfolio:
    """The portfolio, having made sure that what it names is there."""
    placers, routers = portfolio.placers, portfolio.routers
    return Portfolio(
        placers=None if placers is None else PLACERS.named(placers),
        routers=None if routers is None else ROUTERS.named(routers),
    )


def _impossible(certificate: Certificate, tried: int) -> Outcome:
    return Outcome(
        stop_reason="impossible",
        mapping=None,
        certificate=certificate,
        tried=tried,
        problem=certificate.problem,
    )


def _more_freedom(late: bool, time_limit: float, max_runs: int | None, seed: int) -> str:
    """What to do where the search gave up: more time only where there was too little."""
    other = f"allow time_limit={2 * time_limit:g}" if late else f"try another seed={seed + 1}"
    return other if max_runs is None else f"{other}, or max_runs={max_runs + 1}"


def _mapping(net: Netlist, parts: ChipParts, signs: str, seed: int, runs: list[Run]) -> Mapping:
    """The mapping of some runs."""
    populations = [
        PlacedPopulation(name=one.name, size=one.size, external=one.external)
        for one in net.populations
    ]
    return Mapping(
        chip=parts.chip,
        dead=parts.dead,
        signs=signs,
        seed=seed,
        fingerprint=net.fingerprint(),
        populations=tuple(populations),
        runs=_linked(runs),
    )


def _linked(runs: list[Run]) -> tuple[Run, ...]:
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


class _Search:
    """The search of a net's runs, with the signs that are asked for and, where those are fixed,
    with free ones too: a mapping that leaves room for both signs is one of fixed signs.

    Attributes:
        attempts: the one for the signs that are asked for first.
        last: runs that are tried at most.
    """

    def __init__(
        self, attempts: Sequence[_Attempt], max_runs: int | None, time_limit: float
    ) -> None:
        self.attempts, self.max_runs, self.time_limit = attempts, max_runs, time_limit
        self.deadline = attempts[0].deadline
        self.start = self.deadline - time_limit
        self.last = attempts[0].fewest + _MORE_RUNS if max_runs is None else max_runs

    def outcome(self) -> Outcome:
        """What the search comes to."""
        first = self.attempts[0]
        found = self._runs()
        tried = self._tried()
        if found is None and first.certificate is not None and self.max_runs == 1:
            return _impossible(first.certificate, tried)
        certificate = first.certificate or first.fewer
        if found is not None:
            mapping = _mapping(first.net, first.parts, first.signs, first.seed, found)
            return Outcome(
                stop_reason="fits", mapping=mapping, certificate=certificate, tried=tried
            )
        late, last = time.monotonic() > self.deadline, self.last
        limit = f"within {self.time_limit:g} s" if late else f"in {last} run{'s' * (last > 1)}"
        problem = Problem(
            code="gave-up",
            message=f"no mapping was found {limit} ({tried} attempts; {first.why})",
            fix=_more_freedom(late, self.time_limit, self.max_runs, first.seed),
        )
        return Outcome(
            stop_reason="gave up",
            mapping=None,
            certificate=certificate,
            tried=tried,
            problem=problem,
        )

    def _runs(self) -> list[Run] | None:
        """The runs: first whatever is found quickly, then fewer of them."""
        found = self._quickly()
        if found is None:
            return self._thoroughly()
        if len(self.attempts) > 1:  # finding fewer may take half of what is left
            self._until(0.5 * (time.monotonic() + self.deadline))
        return self._in_fewest(self.attempts, len(found) - 1, _THOROUGH[0]) or found

    def _quickly(self) -> list[Run] | None:
        """Signs as they are asked for, and if that takes long, free ones before going on with
        them.
        """
        if len(self.attempts) > 1:
            self._until(self.start + _SHARE * self.time_limit)
            found = self._in_fewest(self.attempts[:1], self.last, 0)
            self._until(self.deadline)
            if found is not None:
                return self._in_fewest(self.attempts[1:], len(found) - 1, 0) or found
            found = self._in_fewest(self.attempts[1:], self.last, 0)
            if found is not None:
                self._until(0.5 * (time.monotonic() + self.deadline))
                fewer = self._in_fewest(self.attempts[:1], len(found) - 1, 0)
                self._until(self.deadline)
                return fewer or found
        return self._in_fewest(self.attempts[:1], self.last, 0)

    def _thoroughly(self) -> list[Run] | None:
        """Other draws and more of them, while there is time and hope."""
        for effort in _THOROUGH:
            before = self._tried()
            found = self._in_fewest(self.attempts, self.last, effort)
            if found is not None or self._tried() == before or self._late():
                return found
        return None

    def _in_fewest(self, attempts: Sequence[_Attempt], last: int, repairs: int) -> list[Run] | None:
        """As few runs as are found, at most so many."""
        for runs in range(self.attempts[0].fewest, last + 1):
            for one in attempts:
                if runs < one.fewest:
                    continue
                found = one.in_runs(runs, repairs)
                if found is not None:
                    return found
                if self._late():
                    return None
        return None

    def _until(self, deadline: float) -> None:
        for one in self.attempts:
            one.deadline = deadline

    def _late(self) -> bool:
        return time.monotonic() > self.attempts[0].deadline

    def _tried(self) -> int:
        return sum(one.tried for one in self.attempts)


class _Attempt:
    """The search, and how often it tried.

    Attributes:
        least: (size,) the fewest circuits of each neuron.
        fewest: runs that counting allows, and `fewer`, why one less is not enough.
        tried: attempts at a run.
        why: the last attempt failed.
        certificate: why one run is impossible, where all mappings were tried.
        overflow: by the neurons of a run, the fewest synapses or labels that were too many.
        found: by the neurons of a run, what was found.
        failed: neurons of a run and repairs for which nothing was found.
    """

    def __init__(
        self,
        *,
        net: Netlist,
        parts: ChipParts,
        signs: str,
        seed: int,
        deadline: float,
        portfolio: Portfolio,
    ) -> None:
        self.net, self.parts, self.signs = net, parts, signs
        self.seed, self.deadline, self.portfolio = seed, deadline, portfolio
        self.least = least_circuits(net, parts, signs)
        self.fewest, self.fewer = least_runs(net, parts, signs)
        self.tried, self.why = 0, "nothing was tried"
        self.certificate: Certificate | None = None
        self.overflow: dict[bytes, int] = {}
        self.found: dict[bytes, Run] = {}
        self.failed: set[tuple[bytes, int]] = set()

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
                self.failed.add((key, repairs))
            return result
        return self.found.get(key)

    def _search(self, task: Task, repairs: int) -> Run | Certificate | None:
        """One run by the members of the portfolio, cheap ones first; on a small chip the last one
        is exhaustive.
        """
        if repairs and self.portfolio == Portfolio() and is_small(task):
            self.tried += 1
            return search(task, self.deadline)
        if repairs and hopeless(task, self.overflow.get(task.targets.tobytes(), 0)):
            return None
        least = self.least[task.targets]
        for counts, placer, router in _members(task, least, repairs, self.portfolio):
            if time.monotonic() > self.deadline and self.tried:
                return None
            run = self._try(task, counts, placer, router, repairs)
            if run is not None:
                return run
        return None

    def _try(
        self, task: Task, counts: np.ndarray, placer: str, router: str, repairs: int
    ) -> Run | None:
        """One placer and one router; why they found nothing goes to `why` and `overflow`."""
        self.tried += 1
        rng = np.random.default_rng([self.seed, self.tried])
        placement = PLACERS[placer](task, counts, rng)
        if placement is None:
            self.why = f"{int(counts.sum())} circuits have no room with '{placer}'"
            return None
        refuse_misplaced(placer, task, counts, placement)
        effort = Effort(repairs=repairs, deadline=self.deadline)
        found = ROUTERS[router](task, placement, rng, effort)
        if isinstance(found, Run):
            return dataclasses.replace(found, method=f"{placer}, {found.method}")
        if not isinstance(found, Unrouted):
            kind = type(found).__name__
            raise MappingError(
                f"router '{router}' returned a {kind}, not a Run or Unrouted",
                fix=f"repair the router, or use another one than '{router}'",
            )
        self.why = found.why
        if found.overflow is not None:
            key = task.targets.tobytes()
            self.overflow[key] = min(found.overflow, self.overflow.get(key, found.overflow))
        return None


def _members(
    task: Task, least: np.ndarray, repairs: int, portfolio: Portfolio
) -> Iterator[tuple[np.ndarray, str, str]]:
    """(circuits of each neuron, placer, router)."""
    levels = list(_levels(task, least))
    placers, routers = portfolio.placers, portfolio.routers
    if not repairs and portfolio == Portfolio():
        for counts in levels:
            yield counts, "spread", "mixed"
        yield least, "vendor", "greedy"
    if placers is None:
        placers = _THOROUGH_PLACERS if repairs or routers is not None else _QUICK_PLACERS
        if not (task.on_chip >= 0).any():
            # where a neuron is decides how its own events travel, and nothing else
            placers = placers[:1]
    for placer in placers:
        for counts in levels:
            for router in routers or ("mixed",):
                yield counts, placer, router


def _levels(task: Task, least: np.ndarray) -> Iterator[np.ndarray]:
    """Circuits of each neuron: the fewest, then more while the chip has room; even numbers fill
    both hemispheres. At last those with the largest fan-in get what is left.
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
    left = room - int(least.sum())
    if len(seen) == 1 and 0 < left < len(least):
        counts = least.copy()
        counts[np.argsort(-task.fan_in / least, kind="stable")[:left]] += 1
        yield counts
