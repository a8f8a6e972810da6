"""Counts that prove that a net has no mapping, or none in fewer runs, however it is placed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxsnn.bss2.chip import HEMISPHERES, ROWS_PER_DRIVER
from jaxsnn.bss2.netlist import Netlist
from jaxsnn.bss2.search.task import ChipParts
from jaxsnn.errors import Problem
from jaxsnn.options import MAX_RUNS
from jaxsnn.wording import Text, for_command_line


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Reason why a net does not fit.

    Attributes:
        resource: Scarce resource: "circuits", "synapse rows" or "labels".
        where: Population or neuron that needs it.
        needed, available: Needed and available amount of the resource.
        message: Description in one line.
        fix: Advice in one line.
    """

    resource: str
    where: str
    needed: int
    available: int
    message: str
    fix: str

    @property
    def problem(self) -> Problem:
        """Certificate as a problem of the net."""
        facts = {"resource": self.resource, "needed": self.needed, "available": self.available}
        return Problem(
            node=self.where, code="impossible", message=self.message, fix=self.fix, facts=facts
        )

    def as_dict(self) -> dict[str, object]:
        """Return the certificate as a dict for JSON, worded for the command line."""
        return {
            "resource": self.resource,
            "where": self.where,
            "needed": self.needed,
            "available": self.available,
            "message": for_command_line(self.message),
            "fix": for_command_line(self.fix),
        }


def least_circuits(net: Netlist, parts: ChipParts, signs: str) -> np.ndarray:
    """Return the fewest circuits with room for the synapses of each neuron, (size,); 0 for input
    channels.
    """
    slots = max(1, int(parts.slots(signs).max()))
    excites, inhibits = net.fan_in()
    return np.where(net.external, 0, np.maximum(1, -(-(excites + inhibits) // slots)))


def _half_circuits(parts: ChipParts) -> np.ndarray:
    """Return the number of working circuits of each half, (halves,)."""
    chip = parts.chip
    return parts.circuits.reshape(HEMISPHERES, chip.halves, chip.half_columns).sum(axis=(0, 2))


def room_for(parts: ChipParts, count: int) -> int:
    """Return an upper bound on the neurons of `count` circuits that are on the chip at once: none
    crosses the border between halves.
    """
    return int((_half_circuits(parts) // count).sum())


def impossible(net: Netlist, parts: ChipParts, signs: str) -> Certificate | None:
    """Return the reason why a net fits in no number of runs, or None where counting does not
    exclude it.
    """
    forbidden = _too_many_sources(net, parts)
    if forbidden is not None:
        return forbidden
    least = least_circuits(net, parts, signs)
    largest = int(_half_circuits(parts).max())
    slots = int(parts.slots(signs).max())
    kind = "synapse drivers (both rows for each weight)" if signs == "free" else "synapse rows"
    excites, inhibits = net.fan_in()
    fan_in = excites + inhibits
    if fan_in.size and (slots == 0 or least.max() > largest):
        worst = int(np.argmax(fan_in))
        needed, available = int(fan_in[worst]), slots * largest
        if needed > available:
            return Certificate(
                resource="synapse rows",
                where=net.neuron(worst),
                needed=needed,
                available=available,
                message=Text(
                    "neuron {neuron} has {synapses} synapses; {circuits} circuits of one half with "
                    "{slots} {resource} each have room for {available} ({excess} too many)",
                    neuron=net.neuron(worst),
                    synapses=needed,
                    circuits=largest,
                    slots=slots,
                    resource=kind,
                    available=available,
                    excess=needed - available,
                ),
                fix="reduce its fan-in",
            )
    for part in net.recurrent_components():
        certificate = _too_many(net, parts, least[part], part, runs=1, is_recurrent=True)
        if certificate is not None:
            return certificate
    return None


def _too_many_sources(net: Netlist, parts: ChipParts) -> Certificate | None:
    """Return the reason why a neuron has too many sources, or None: each source takes a separate
    synapse, and so a label of a driver.
    """
    sources = np.bincount(net.post, minlength=net.size)
    rows = parts.rows.reshape(-1, ROWS_PER_DRIVER)
    drivers, labels = int(rows.any(axis=1).sum()), parts.chip.labels
    if sources.max(initial=0) <= (available := drivers * labels):
        return None
    worst = int(np.argmax(sources))
    needed = int(sources[worst])
    return Certificate(
        resource="labels",
        where=net.neuron(worst),
        needed=needed,
        available=available,
        message=Text(
            "neuron {neuron} has {sources} sources; {drivers} synapse drivers with {labels} "
            "labels each distinguish {available} ({excess} too many)",
            neuron=net.neuron(worst),
            sources=needed,
            drivers=drivers,
            labels=labels,
            available=available,
            excess=needed - available,
        ),
        fix="reduce its fan-in",
    )


def least_runs(net: Netlist, parts: ChipParts, signs: str) -> tuple[int, Certificate | None]:
    """Return the smallest number of runs that counting does not exclude, and the reason why one run
    less is not enough (None if the number is 1).

    There is no such number for a net that is `impossible`: check that first.
    """
    runs, why = 1, None
    while (certificate := too_few_runs(net, parts, signs, runs)) is not None:
        runs, why = runs + 1, certificate
    return runs, why


def too_few_runs(net: Netlist, parts: ChipParts, signs: str, runs: int) -> Certificate | None:
    """Return the reason why `runs` runs are not enough, or None if counting does not show it."""
    neurons = np.flatnonzero(~net.external)
    return _too_many(net, parts, least_circuits(net, parts, signs)[neurons], neurons, runs)


def _too_many(
    net: Netlist,
    parts: ChipParts,
    counts: np.ndarray,
    neurons: np.ndarray,
    runs: int,
    *,
    is_recurrent: bool = False,
) -> Certificate | None:
    """Return the reason why the chip has too few circuits for neurons in `runs` runs; None if
    counting does not show it.

    Args:
        counts: (neurons,) the fewest circuits of each neuron.
        neurons: (neurons,) indices in the net.
        is_recurrent: the neurons feed each other, and cannot be split over runs.
    """
    for count in np.unique(counts).tolist():
        needed, available = int((counts >= count).sum()), runs * room_for(parts, count)
        if needed > available:
            reason = Text(
                "{neurons} neurons need {circuits} or more circuits each for their fan-in; the chip "
                "has room for {available} of them",
                neurons=needed,
                circuits=count,
                available=available,
            )
            break
    else:
        needed, available = int(counts.sum()), runs * int(_half_circuits(parts).sum())
        if needed <= available:
            return None
        reason = Text(
            "the neurons need {circuits} circuits for their fan-in; the chip has {available}",
            circuits=needed,
            available=available,
        )
    if is_recurrent:
        template = "recurrently connected neurons, {populations}: {reason} in one run"
        fix = "reduce their number; recurrently connected neurons must be in the same run"
    else:
        template = "{populations}: {reason} in {runs} " + ("run" if runs == 1 else "runs")
        fix = Text("pass {max_runs} or more", max_runs=MAX_RUNS.set_to(runs + 1))
    population_names = dict.fromkeys(net.populations[number].name for number in net.owner[neurons])
    location = ", ".join(f"'{name}'" for name in population_names)
    return Certificate(
        resource="circuits",
        where=location,
        needed=needed,
        available=available,
        message=Text(
            template + " ({excess} too many)",
            populations=location,
            reason=reason,
            runs=runs,
            excess=needed - available,
        ),
        fix=fix,
    )
