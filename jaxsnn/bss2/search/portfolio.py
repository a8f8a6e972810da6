"""Places and routes a net: tries placers and routers in turn, fast ones first, until one succeeds,
counting proves that none can, or the time limit is reached.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxsnn.bss2.chip import HICANN_X, NOTHING_DEAD, Chip, Dead
from jaxsnn.bss2.mapping import SIGNS, Mapping, PlacedPopulation, Run
from jaxsnn.bss2.netlist import Netlist
from jaxsnn.bss2.search.balance import balanced, balanced_groups
from jaxsnn.bss2.search.bins import is_hopeless
from jaxsnn.bss2.search.feasibility import (
    Certificate,
    impossible,
    least_circuits,
    least_runs,
    too_few_runs,
)
from jaxsnn.bss2.search.place import PLACERS, refuse_misplaced, tile
from jaxsnn.bss2.search.route import ROUTERS, Effort, Unrouted
from jaxsnn.bss2.search.task import ChipParts, Task, task_of, usable_parts
from jaxsnn.errors import (
    MappingError,
    Problem,
    UsageError,
    as_integer,
    as_number,
    refuse_type,
    shown,
    suggestion,
)
from jaxsnn.keywords import suggests_keywords
from jaxsnn.options import MAX_RUNS, SEED, TIME_LIMIT
from jaxsnn.summary import summarised
from jaxsnn.wording import Text

#: Maximum number of runs above the lower bound that are tried.
_MORE_RUNS = 8
#: Maximum number of moved sources in each round of thorough attempts, all with other random
#: numbers; later rounds add `_MORE_REPAIRS` each. After a mapping has been found, only the first
#: round is used to find fewer runs.
_THOROUGH = (200, 1000, 1500, 2000, 3000)
_MORE_REPAIRS = 1000
#: Sweeps of `balanced` in a round: these, plus one for each repair, up to a maximum.
_SWEEPS, _MOST_SWEEPS = 1500, 6000
#: Largest overflow of other strategies, as a fraction of the synapses, with which `balanced` tries
#: to reduce the number of runs of a mapping.
_PROMISING = 0.02
#: Fraction of the time limit after which free signs are tried instead of fixed ones.
_SHARE = 0.25
#: Placers of the quick and of the thorough attempts, unless the caller chooses them.
_QUICK_PLACERS = ("first-fit", "by-connectivity")
_THOROUGH_PLACERS = ("spread", "annealed", "first-fit")
_LARGEST_SEED = (1 << 31) - 1
#: Limits of the circuits of a run, relative to an even share of all circuits; None for a full chip.
_RUN_SHARES = (1.0, 1.05, 1.15, None)


@dataclass(frozen=True, kw_only=True)
class Portfolio:
    """Placers and routers of a search, by name and in this order.

    Attributes:
        placers: keys of `place.PLACERS`; None for those that have proven best.
        routers: keys of `route.ROUTERS`; None for "mixed".
    """

    placers: Sequence[str] | None = None
    routers: Sequence[str] | None = None


@dataclass(frozen=True, kw_only=True)
class Attempts:
    """Attempts of one strategy at single runs of a partition.

    Attributes:
        runs: Number of runs into which the net was divided.
        signs: "fixed" or "free".
        strategy: Placer and router, or "balanced" with the number of groups per bus.
        seed: Random seed of the search, from which each attempt derives random numbers of its own.
        count: Number of attempts.
        successes: Number of attempts that placed and routed a run.
        overflow: Smallest number of synapses or labels without room in the other attempts; None if
            none of them got that far.
        seconds: Duration of all attempts.
    """

    runs: int
    signs: str
    strategy: str
    seed: int
    count: int
    successes: int
    overflow: int | None
    seconds: float

    def __str__(self) -> str:
        return str(self.as_text())

    def as_text(self) -> Text:
        """Return a description in one line."""
        template = "{runs} run" if self.runs == 1 else "{runs} runs"
        template += ", {signs} signs, {strategy}, seed {seed}: {count} "
        template += "attempt" if self.count == 1 else "attempts"
        if self.successes:
            template += ", routed: {successes}"
        if self.overflow is not None:
            template += ", at best {overflow} synapses or labels without room"
        template += ", {seconds:.2g} s"
        return Text(template, **self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """Return the attempts as a dict for JSON."""
        return dict(vars(self))


@summarised
@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """Result of placing and routing a net.

    Attributes:
        stop_reason: "fits", "impossible" (proven, see `certificate`) or "gave up".
        mapping: The mapping; None if the netlist does not fit.
        certificate: Proof that the netlist does not fit; if it fits, proof that fewer runs are not
            enough, or None.
        tried: Number of attempts at a run.
        problem: Reason why the netlist does not fit, with the code "impossible" or "gave-up"; None
            if it fits.
        attempts: Attempts by strategy, in the order of their first attempt.
    """

    stop_reason: str
    mapping: Mapping | None
    certificate: Certificate | None
    tried: int
    problem: Problem | None = None
    attempts: tuple[Attempts, ...] = ()

    @property
    def fits(self) -> bool:
        """Return whether there is a mapping."""
        return self.mapping is not None

    @property
    def why(self) -> str:
        """Reason why the net does not fit, and a fix, in one line; "" where it fits."""
        return "" if self.problem is None else str(self.problem)

    @property
    def required_mapping(self) -> Mapping:
        """The mapping of a network that fits.

        Raises:
            MappingError: The network has no mapping.
        """
        if self.mapping is None:
            raise MappingError(
                Text("the network has no mapping ({reason})", reason=self.why),
                fix="pass the result of a search that found one",
            )
        return self.mapping

    @property
    def notes(self) -> tuple[str, ...]:
        """Attempts by strategy, in one line each."""
        return tuple(str(attempts) for attempts in self.attempts)


@suggests_keywords
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
    """Place and route a net in as few runs as the search reaches.

    If there is no mapping yet, attempts continue until the time limit, with other random numbers
    and more effort in each round; only a search with a `portfolio` ends after a fixed number of
    rounds. The mapping is not verified here; `jaxsnn.check_mapping` does that, and so does `jaxsnn map`.

    Args:
        net: Netlist of a quantised graph, `quantize(graph).netlist`.
        chip: Chip to map onto.
        dead: Parts of the chip that must not be used.
        signs: "fixed": each weight has a synapse in a row of its sign; "free": each weight has
            synapses in rows of both signs.
        seed: Random seed of placers and routers; the same seed gives the same mapping.
        max_runs: Maximum number of runs; None for no limit.
        time_limit: Seconds after which no new attempt is started.
        portfolio: Placers and routers to try.

    Raises:
        ChipError: A dead part does not exist.
        MappingError: A registered placer or router returned an invalid result.
        UsageError: Signs, placers or routers are unknown, the seed is negative or exceeds 31 bits,
            or a limit is not positive.
    """
    refuse_type(net, Netlist, fix="pass jaxsnn.quantize(graph).netlist")
    for value, expected in ((chip, Chip), (dead, Dead)):
        refuse_type(value, expected, fix="pass an object of a class in jaxsnn.bss2.chip")
    if signs not in SIGNS:
        raise UsageError(
            Text("signs '{signs}' are not supported", signs=signs),
            fix=suggestion(str(signs), SIGNS),
        )
    number = as_integer(seed)
    if number is None or not 0 <= number <= _LARGEST_SEED:
        fix = f"pass an integer from 0 to {_LARGEST_SEED}"
        raise UsageError(Text("{option} is {value}", option=SEED, value=shown(seed)), fix=fix)
    if max_runs is not None and (as_integer(max_runs) or 0) < 1:
        raise UsageError(
            Text("{option} is {value}", option=MAX_RUNS, value=shown(max_runs)),
            fix="pass an integer of at least 1",
        )
    if not 0 < as_number(time_limit) < math.inf:
        raise UsageError(
            Text("{option} is {value} s", option=TIME_LIMIT, value=shown(time_limit)),
            fix="pass a positive number of seconds",
        )
    chosen = portfolio or Portfolio()
    chosen = Portfolio(
        placers=None if chosen.placers is None else PLACERS.named(chosen.placers),
        routers=None if chosen.routers is None else ROUTERS.named(chosen.routers),
    )
    parts = usable_parts(chip, dead)
    certificate = impossible(net, parts, signs)
    if certificate is None and max_runs is not None:
        certificate = too_few_runs(net, parts, signs, max_runs)
    if certificate is not None:
        return Outcome(
            stop_reason="impossible",
            mapping=None,
            certificate=certificate,
            tried=0,
            problem=certificate.problem,
        )
    searches = [
        _RunSearch(net, parts, kind, seed, chosen)
        # A mapping for free signs is also a mapping for fixed signs.
        for kind in (("fixed", "free") if signs == "fixed" else ("free",))
        if kind == signs or impossible(net, parts, kind) is None
    ]
    return _Search(searches, max_runs, time_limit).outcome()


class _Search:
    """Search for a net's runs, with the requested signs and, where those are fixed, with free ones,
    too.

    Args:
        searches: Searches with the requested signs, then with free signs.
        max_runs: Maximum number of runs.
        time_limit: Time limit, seconds.
    """

    def __init__(
        self, searches: Sequence[_RunSearch], max_runs: int | None, time_limit: float
    ) -> None:
        self.searches, self.max_runs, self.time_limit = searches, max_runs, time_limit
        self.start = time.monotonic()
        self.last = searches[0].fewest + _MORE_RUNS if max_runs is None else max_runs
        self._set_deadline(self.start + time_limit)

    @functools.cached_property
    def most_runs(self) -> int:
        """Number of runs beyond which runs would be empty."""
        return max(1, len(units(self.searches[0].net)))

    def outcome(self) -> Outcome:
        """Search, and return the outcome."""
        first, runs = self.searches[0], self._find_runs()
        if runs is not None:
            return Outcome(
                stop_reason="fits",
                mapping=_mapping(first, runs),
                certificate=first.fewer,
                tried=self._tried(),
                attempts=self._attempts(),
            )
        # Advise a longer time limit only if the search ran out of time.
        is_late = self._is_late()
        fix = (
            Text("pass {option}", option=TIME_LIMIT.set_to(2 * self.time_limit))
            if is_late
            else Text("pass {option} for another search", option=SEED.set_to(first.seed + 1))
        )
        problem = Problem(
            code="gave-up",
            message=Text(
                "no mapping was found within {time_limit:g} s ({attempts}; reason of the last "
                "failure: {reason})",
                time_limit=self.time_limit,
                attempts=self._summary(),
                reason=first.why,
            )
            if is_late
            else Text(
                "no mapping was found, and no strategy is left ({attempts}; reason of the last "
                "failure: {reason})",
                attempts=self._summary(),
                reason=first.why,
            ),
            fix=fix
            if self.max_runs is None or self.max_runs >= self.most_runs
            else Text("{fix}, or {option}", fix=fix, option=MAX_RUNS.set_to(self.max_runs + 1)),
        )
        return Outcome(
            stop_reason="gave up",
            mapping=None,
            certificate=first.fewer,
            tried=self._tried(),
            problem=problem,
            attempts=self._attempts(),
        )

    def _attempts(self) -> tuple[Attempts, ...]:
        return tuple(attempts for search in self.searches for attempts in search.attempts.values())

    def _summary(self) -> Text:
        """Describe for a message how often, with how many runs and how closely the search failed."""
        attempts = self._attempts()
        if not attempts:
            return Text("attempts: 0")
        runs = sorted({entry.runs for entry in attempts})
        strategies = dict.fromkeys(entry.strategy for entry in attempts)
        template = "attempts: {count}, with {fewest} "
        template += "run" if runs[-1] == 1 else "runs" if len(runs) == 1 else "to {most} runs"
        template += " and {strategies} "
        template += "strategy" if len(strategies) == 1 else "strategies"
        measured = [entry for entry in attempts if entry.overflow is not None]
        best = min(measured, key=lambda entry: entry.overflow or 0, default=attempts[0])
        if measured:
            template += "; closest: {overflow} synapses or labels without room, {strategy}"
        return Text(
            template,
            count=self._tried(),
            fewest=runs[0],
            most=runs[-1],
            strategies=len(strategies),
            overflow=best.overflow,
            strategy=best.strategy,
        )

    def _find_runs(self) -> list[Run] | None:
        """Return the runs of the quick search, then try to reduce their number; otherwise search
        thoroughly.
        """
        runs = self._find_quickly()
        if runs is None:
            return self._find_thoroughly()
        # The search for fewer runs may take half of the remaining time.
        if len(self.searches) > 1:
            self._set_deadline(0.5 * (time.monotonic() + self.deadline))
        for search in self.searches:
            search.promising = _PROMISING
        return self._find_fewest(self.searches, len(runs) - 1, _THOROUGH[0]) or runs

    def _find_quickly(self) -> list[Run] | None:
        """Search with the requested signs, and if that takes long, with free ones before
        continuing.
        """
        requested, free = self.searches[:1], self.searches[1:]
        if free:
            end = self.deadline
            self._set_deadline(self.start + _SHARE * self.time_limit)
            runs = self._find_fewest(requested, self.last, 0)
            self._set_deadline(end)
            if runs is not None:
                return self._find_fewest(free, len(runs) - 1, 0) or runs
            runs = self._find_fewest(free, self.last, 0)
            if runs is not None:
                self._set_deadline(0.5 * (time.monotonic() + end))
                fewer = self._find_fewest(requested, len(runs) - 1, 0)
                self._set_deadline(end)
                return fewer or runs
        return self._find_fewest(requested, self.last, 0)

    def _find_thoroughly(self) -> list[Run] | None:
        """Repeat the search with other random draws and more repairs, until time runs out or no
        attempt is left.
        """
        rounds: Iterable[int] = _THOROUGH
        if self.searches[0].portfolio == Portfolio():
            rounds = itertools.chain(
                _THOROUGH, itertools.count(_THOROUGH[-1] + _MORE_REPAIRS, _MORE_REPAIRS)
            )
        for repairs in rounds:
            before = self._tried()
            runs = self._find_fewest(self.searches, self.last, repairs)
            if runs is not None or self._tried() == before or self._is_late():
                return runs
        return None

    def _find_fewest(
        self, searches: Sequence[_RunSearch], last: int, repairs: int
    ) -> list[Run] | None:
        """Return the fewest runs that the searches reach, at most `last`."""
        for count in range(self.searches[0].fewest, last + 1):
            if count > 1 and count > self.most_runs:
                return None
            for search in searches:
                if count < search.fewest:
                    continue
                runs = search.find_runs(count, repairs)
                if runs is not None:
                    return runs
                if self._is_late():
                    return None
        return None

    def _set_deadline(self, deadline: float) -> None:
        self.deadline = deadline
        for search in self.searches:
            search.deadline = deadline

    def _is_late(self) -> bool:
        return time.monotonic() > self.deadline

    def _tried(self) -> int:
        return sum(search.tried for search in self.searches)


def _mapping(search: _RunSearch, runs: list[Run]) -> Mapping:
    """Return the mapping of some runs, with the run that recorded each replayed neuron."""
    run_of = {
        (neuron.population, neuron.index): number
        for number, run in enumerate(runs)
        for neuron in run.neurons
    }
    linked = []
    for run in runs:
        sources = tuple(
            source
            if source.from_run is None
            else dataclasses.replace(source, from_run=run_of[source.population, source.index])
            for source in run.sources
        )
        linked.append(dataclasses.replace(run, sources=sources))
    net = search.net
    return Mapping(
        chip=search.parts.chip,
        dead=search.parts.dead,
        signs=search.signs,
        seed=search.seed,
        fingerprint=net.fingerprint(quantization=net.quantization),
        populations=tuple(
            PlacedPopulation(
                name=population.name, size=population.size, external=population.external
            )
            for population in net.populations
        ),
        runs=tuple(linked),
        quantization=net.quantization,
    )


class _RunSearch:
    """Search for runs with fixed or with free signs, see `place_and_route`, with cached results.

    Attributes:
        least: (size,) the fewest circuits of each neuron.
        fewest: smallest number of runs that counting allows.
        fewer: reason why one run less is not enough.
        tried: number of attempts at a run.
        attempts: attempts by number of runs and strategy.
        why: reason why the last attempt failed.
        promising: largest overflow, as a fraction of the synapses, with which `balanced` is tried.
        deadline: `time.monotonic()` at which no new attempt is started.
    """

    def __init__(
        self, net: Netlist, parts: ChipParts, signs: str, seed: int, portfolio: Portfolio
    ) -> None:
        self.net, self.parts, self.signs = net, parts, signs
        self.seed, self.portfolio, self.deadline = seed, portfolio, math.inf
        self.least = least_circuits(net, parts, signs)
        self.fewest, self.fewer = least_runs(net, parts, signs)
        self.tried, self.why = 0, "no attempt was made"
        self.attempts: dict[tuple[int, str], Attempts] = {}
        self.promising = math.inf
        self._count, self._start = 1, 0.0
        # Cached results by the neurons of a run: the minimum number of synapses or labels that
        # found no room; the run; and, with the number of repairs, whether the search failed.
        self._overflow: dict[bytes, int] = {}
        self._runs: dict[bytes, Run] = {}
        self._failed: set[tuple[bytes, int]] = set()
        # By the neurons of a run and the number of groups: the minimum overflow of `balanced`.
        self._balanced: dict[tuple[bytes, int], int] = {}

    def find_runs(self, count: int, repairs: int) -> list[Run] | None:
        """Search for a mapping with `count` runs; None is no proof that there is none."""
        self._count = count
        for partition in partitions(self.net, self.parts, self.least, count):
            runs: list[Run] = []
            for targets in partition:
                run = self._find_run(targets, repairs)
                if run is None:
                    break
                runs.append(run)
            else:
                return runs
            if time.monotonic() > self.deadline:
                return None
        return None

    def _find_run(self, targets: np.ndarray, repairs: int) -> Run | None:
        """Search for one run; results for the same neurons are cached."""
        key = targets.tobytes()
        if key in self._runs or (key, repairs) in self._failed:
            return self._runs.get(key)
        task = task_of(self.net, self.parts, self.signs, targets)
        if not (repairs and is_hopeless(task, self._overflow.get(key, 0))):
            for counts, placer, router in _members(
                task, self.least[targets], repairs, self.portfolio
            ):
                if time.monotonic() > self.deadline and self.tried:
                    break
                run = self._try(task, counts, placer, router, repairs)
                if run is not None:
                    self._runs[key] = run
                    return run
        if repairs and self.portfolio == Portfolio():
            run = self._balance(task, repairs)
            if run is not None:
                self._runs[key] = run
                return run
        self._failed.add((key, repairs))
        return None

    def _balance(self, task: Task, repairs: int) -> Run | None:
        """Try `balanced` with each number of groups per bus that has not been far worse than the
        best number.
        """
        key = task.targets.tobytes()
        if not len(task.pre) or self._overflow.get(key, 0) > self.promising * len(task.pre):
            return None
        sweeps = min(_SWEEPS + repairs, _MOST_SWEEPS)
        for groups in balanced_groups(task):
            overflow = {
                number: least
                for (targets, number), least in self._balanced.items()
                if targets == key
            }
            if overflow.get(groups, 0) > 2 * min(overflow.values(), default=0) + 10:
                continue
            if time.monotonic() > self.deadline:
                return None
            rng = self._begin_attempt()
            effort = Effort(repairs=repairs, deadline=self.deadline)
            result = balanced(task, self.least[task.targets], groups, sweeps, rng, effort)
            template = "balanced, {groups} group" if groups == 1 else "balanced, {groups} groups"
            self._count_attempt(str(Text(template, groups=groups)), result)
            if isinstance(result, Run):
                return dataclasses.replace(result, method=f"balanced, {result.method}")
            self.why = result.why
            if result.overflow is not None:
                least = self._balanced.get((key, groups), result.overflow)
                self._balanced[key, groups] = min(least, result.overflow)
        return None

    def _begin_attempt(self) -> np.random.Generator:
        """Return the random numbers of the next attempt."""
        self.tried += 1
        self._start = time.monotonic()
        return np.random.default_rng([self.seed, self.tried])

    def _count_attempt(self, strategy: str, result: Run | Unrouted | None) -> None:
        """Record an attempt of a strategy with its result, None if it was not placed."""
        overflow = result.overflow if isinstance(result, Unrouted) else None
        key = self._count, strategy
        before = self.attempts.get(key)
        if before is not None and before.overflow is not None:
            overflow = before.overflow if overflow is None else min(before.overflow, overflow)
        self.attempts[key] = Attempts(
            runs=self._count,
            signs=self.signs,
            strategy=strategy,
            seed=self.seed,
            count=1 if before is None else before.count + 1,
            successes=isinstance(result, Run) + (0 if before is None else before.successes),
            overflow=overflow,
            seconds=time.monotonic() - self._start + (0.0 if before is None else before.seconds),
        )

    def _try(
        self, task: Task, counts: np.ndarray, placer: str, router: str, repairs: int
    ) -> Run | None:
        """Try one placer and one router."""
        rng = self._begin_attempt()
        placement = PLACERS[placer](task, counts, rng)
        if placement is None:
            self._count_attempt(f"{placer}, {router}", None)
            self.why = Text(
                "placer '{placer}' has no room for {circuits} circuits",
                circuits=int(counts.sum()),
                placer=placer,
            )
            return None
        refuse_misplaced(placer, task, counts, placement)
        result = ROUTERS[router](
            task, placement, rng, Effort(repairs=repairs, deadline=self.deadline)
        )
        if isinstance(result, Run):
            self._count_attempt(f"{placer}, {router}", result)
            return dataclasses.replace(result, method=f"{placer}, {result.method}")
        if not isinstance(result, Unrouted):
            raise MappingError(
                Text(
                    "router '{router}' returned {actual} instead of Run or Unrouted",
                    router=router,
                    actual=type(result).__name__,
                ),
                fix=f"correct the router, or select a router other than '{router}'",
            )
        self._count_attempt(f"{placer}, {router}", result)
        self.why = result.why
        if result.overflow is not None:
            key = task.targets.tobytes()
            self._overflow[key] = min(result.overflow, self._overflow.get(key, result.overflow))
        return None


def _members(
    task: Task, least: np.ndarray, repairs: int, portfolio: Portfolio
) -> Iterator[tuple[np.ndarray, str, str]]:
    """Yield attempts, cheap ones first: (circuits of each neuron, placer, router)."""
    levels = list(_levels(task, least))
    placers, routers = portfolio.placers, portfolio.routers
    if not repairs and portfolio == Portfolio():
        for counts in levels:
            yield counts, "spread", "mixed"
    if placers is None:
        placers = _THOROUGH_PLACERS if repairs or routers is not None else _QUICK_PLACERS
        if not (task.on_chip >= 0).any():
            # If no source is on the chip, positions of neurons do not affect the routing.
            placers = placers[:1]
    for placer in placers:
        for counts in levels:
            for router in routers or ("mixed",):
                yield counts, placer, router


def _levels(task: Task, least: np.ndarray) -> Iterator[np.ndarray]:
    """Yield numbers of circuits of each neuron: the fewest, then more while the chip has room; even
    numbers fill both hemispheres. The last level assigns the remaining circuits to the neurons with
    the largest fan-in.
    """
    room = int(task.parts.circuits.sum())
    levels: list[np.ndarray] = []
    for factor, is_even in (
        (1.0, False),
        (1.0, True),
        (1.25, True),
        (1.5, True),
        (2.0, True),
        (1.15, False),
    ):
        counts = np.ceil(least * factor).astype(int)
        counts += counts % 2 if is_even else 0
        if counts.sum() <= room and not any(np.array_equal(counts, level) for level in levels):
            levels.append(counts)
            yield counts
    spare = room - int(least.sum())
    if len(levels) == 1 and 0 < spare < len(least):
        counts = least.copy()
        counts[np.argsort(-task.fan_in / least, kind="stable")[:spare]] += 1
        yield counts


# -- partitions of the neurons into runs


def partitions(
    net: Netlist, parts: ChipParts, counts: np.ndarray, runs: int
) -> Iterator[list[np.ndarray]]:
    """Yield partitions of all neurons into at most `runs` runs, in topological order; first those
    with runs of similar size.

    Args:
        counts: (size,) minimum number of circuits of each neuron.

    Yields:
        Sorted global indices, run by run.
    """
    if runs == 1:
        yield [np.flatnonzero(~net.external)]
        return
    net_units = units(net)
    sizes = np.array([int(counts[unit].sum()) for unit in net_units])
    total, capacity = np.concatenate([[0], np.cumsum(sizes)]), int(parts.circuits.sum())

    def fits(first: int, last: int) -> bool:
        """Return whether the units from `first` to `last` have room on the chip."""
        circuits = np.concatenate([counts[unit] for unit in net_units[first:last]])
        return tile(parts, np.sort(circuits)[::-1].tolist()) is not None

    def run_ends(limit: int) -> list[int] | None:
        """Return the end of each run if it takes at most `limit` circuits; None where `runs` are
        too few.
        """
        ends: list[int] = []
        first = 0
        while first < len(net_units):
            end = int(np.searchsorted(total, total[first] + limit, side="right")) - 1
            end = max(end, first + 1)
            if len(ends) == runs:
                return None
            if not fits(first, end):
                low, high = first, end
                while high - low > 1:
                    middle = (low + high) // 2
                    low, high = (middle, high) if fits(first, middle) else (low, middle)
                end = low
            if end == first:
                return None
            ends.append(end)
            first = end
        return ends

    seen: list[list[int]] = []
    for share in _RUN_SHARES:
        limit = capacity
        if share is not None:
            limit = min(capacity, int(np.ceil(share * sizes.sum() / runs)) + 1)
        ends = run_ends(limit)
        if ends is None or ends in seen:
            continue
        seen.append(ends)
        yield [
            np.sort(np.concatenate(net_units[first:end]))
            for first, end in zip([0, *ends[:-1]], ends, strict=True)
        ]


def units(net: Netlist) -> list[np.ndarray]:
    """Return groups of neurons that have to be in one run, sources before targets: components of
    recurrent nets, else single neurons.

    Returns:
        Sorted global indices, unit by unit.
    """
    import networkx

    neurons = np.flatnonzero(~net.external)
    components = net.recurrent_components()
    internal = ~net.external[net.pre]
    forward = net.owner[net.pre[internal]] < net.owner[net.post[internal]]
    if not components and forward.all():
        return [neurons[place : place + 1] for place in range(len(neurons))]
    unit = np.arange(net.size)
    for component in components:
        unit[component] = component[0]
    graph = networkx.DiGraph()
    graph.add_nodes_from(unit[neurons].tolist())
    pairs = np.unique(
        np.stack([unit[net.pre[internal]], unit[net.post[internal]]]), axis=1
    ).T.tolist()
    graph.add_edges_from((source, target) for source, target in pairs if source != target)
    members = {int(component[0]): component for component in components}
    order = networkx.lexicographical_topological_sort(graph)
    return [members.get(first, np.array([first])) for first in order]
