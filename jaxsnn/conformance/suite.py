"""Running the cells of the table, and reducing what fails."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from jaxsnn.conformance.adapter import Adapter
from jaxsnn.conformance.cells import ROLES, Cell, Role, cells
from jaxsnn.conformance.checking import check_network
from jaxsnn.conformance.comparison import VERDICTS, Answer
from jaxsnn.conformance.networks import NetworkSpec
from jaxsnn.conformance.shrinking import MAX_RUNS, shrink
from jaxsnn.errors import UsageError
from jaxsnn.wording import Text

#: Time steps and samples of a run.
STEPS, BATCH = 40, 4
#: Largest number of runs that reduce all failures of a framework, except in complete runs; slow
#: adapters have a smaller one, `reduction_runs`.
_MAX_ALL_RUNS = 600
#: Seeds and factors of the weights that are tried until the share of spikes in the output is in a
#: range: networks that never fire prove nothing.
_ATTEMPTS, _ACTIVE = ((0, 1.0), (0, 0.2), (0, 5.0), (1, 1.0), (2, 1.0)), (0.02, 0.9)


@dataclass(frozen=True, kw_only=True, eq=False)
class CellOutcome:
    """One cell, what was run, and the answer.

    Attributes:
        cell: the question.
        network: the network.
        x: inputs (time, batch, *shape).
        answer: the verdict and its reason.
    """

    cell: Cell
    network: NetworkSpec
    x: np.ndarray
    answer: Answer


@dataclass(frozen=True, kw_only=True, eq=False)
class Failure:
    """One fault of a framework.

    Attributes:
        cells: names of the cells that show it.
        smallest: the smallest network that shows it, derived from that of the first cell.
    """

    cells: tuple[str, ...]
    smallest: CellOutcome


@dataclass(frozen=True, kw_only=True, eq=False)
class ConformanceReport:
    """All answers of one framework.

    Attributes:
        framework, version: name and version of the framework.
        outcomes: answers in the order of the cells.
        failures: faults behind the answers "wrong" and "crash"; empty if they were not reduced.
    """

    framework: str
    version: str
    outcomes: tuple[CellOutcome, ...]
    failures: tuple[Failure, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Number of answers by verdict."""
        verdicts = [outcome.answer.verdict for outcome in self.outcomes]
        return {verdict: verdicts.count(verdict) for verdict in VERDICTS}

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong and nothing crashes."""
        return not (self.counts["wrong"] or self.counts["crash"])


def run(
    adapter: Adapter,
    *,
    roles: Sequence[Role] = ROLES,
    full: bool = False,
    only: str = "",
    reduce: bool = True,
    progress: Callable[[CellOutcome], None] | None = None,
) -> ConformanceReport:
    """Run all cells.

    Args:
        adapter: access to the framework.
        roles: what is tested.
        full: whether to run the cells of complete runs, too, and to reduce failures further.
        only: part of the names of the cells to run.
        reduce: whether to look for the smallest network that shows each fault.
        progress: called with each outcome.

    Raises:
        UsageError: no cell has this part in its name.
    """
    outcomes = []
    asked = [
        cell
        for cell in cells(adapter.resets, full=full)
        if cell.role in roles and only in cell.name
    ]
    if not asked:
        raise UsageError(
            Text("no cell of these roles has '{only}' in its name", only=only),
            fix="correct the name, or run all cells: some belong to complete runs only",
        )
    for cell in asked:
        outcomes.append(run_cell(adapter, cell))
        if progress is not None:
            progress(outcomes[-1])
    return ConformanceReport(
        framework=adapter.name,
        version=importlib.metadata.version(adapter.distribution),
        outcomes=tuple(outcomes),
        failures=tuple(_failures(adapter, outcomes, full)) if reduce else (),
    )


def _failures(adapter: Adapter, outcomes: Sequence[CellOutcome], full: bool) -> Iterator[Failure]:
    """Yield the faults: cells that fail for the same reason show the same one."""
    groups: dict[tuple[str, ...], list[CellOutcome]] = {}
    for outcome in outcomes:
        cell, answer = outcome.cell, outcome.answer
        if answer.verdict in ("wrong", "crash"):
            key = (answer.verdict, answer.cause)
            if answer.actual is not None and answer.diagnosis is None:
                key += (cell.role, cell.node, cell.topology)
            groups.setdefault(key, []).append(outcome)
    all_runs = getattr(adapter, "reduction_runs", _MAX_ALL_RUNS)
    max_runs = MAX_RUNS if full else min(MAX_RUNS, all_runs // max(len(groups), 1))
    for group in groups.values():
        first = group[0]
        network, x, answer = shrink(
            adapter, first.cell.role, first.network, first.x, first.answer, max_runs=max_runs
        )
        smallest = dataclasses.replace(first, network=network, x=x, answer=answer)
        yield Failure(cells=tuple(outcome.cell.name for outcome in group), smallest=smallest)


def run_cell(adapter: Adapter, cell: Cell, seed: int = 0) -> CellOutcome:
    """Ask one cell, with the first network for which the framework or the literal reading fires neither
    never nor always; without one, with the first network whose verdict is not "pass".
    """
    outcomes = []
    for number, strength in _ATTEMPTS:
        network = cell.network(seed + number, strength)
        x = inputs_of(network, seed + number)
        answer = check_network(adapter, cell.role, network, x)
        outcomes.append(CellOutcome(cell=cell, network=network, x=x, answer=answer))
        if answer.actual is None or any(map(_is_informative, (answer.actual, answer.expected))):
            return outcomes[-1]
    return min(outcomes, key=lambda outcome: outcome.answer.verdict == "pass")


def _is_informative(y: np.ndarray | None) -> bool:
    """Return whether outputs contain spikes and pauses, or are membrane potentials."""
    if y is None:
        return False
    return not np.isin(y, (0, 1)).all() or bool(_ACTIVE[0] <= y.mean() <= _ACTIVE[1])


def inputs_of(network: NetworkSpec, seed: int) -> np.ndarray:
    """Return random input spikes, (time, batch, *shape)."""
    rng = np.random.default_rng([seed, 1])
    return (rng.random((STEPS, BATCH, *network.shape)) < 0.4).astype(np.float32)
