"""What the time-stepped engine does not run, all of it, listed before anything runs.

Nothing here loads JAX.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from jaxsnn.errors import LoweringError, Problem, listing
from jaxsnn.grid.timing import delay_steps, known_dt, needs_dt, step_in_units
from jaxsnn.network.cycles import Cycle, groups
from jaxsnn.network.neuron_models import NIR_KINDS, model_of
from jaxsnn.network.obstacles import obstacles, unknown_model
from jaxsnn.network.structure import OPERATORS, Population, Wire, carriers
from jaxsnn.options import DIALECT, ENGINE, READOUT, RESET, RESET_DELAY
from jaxsnn.wording import Text

#: Kinds of NIR that fire, whatever is said of them.
_FIRING = tuple(kind for kind in NIR_KINDS if model_of(kind).fires)
#: A way out that leads here.
_HERE = Text(", or simulate with {engine}", engine=ENGINE.set_to("grid"))
#: Nodes that are not linear and that the engine runs.
_KINDS = ("input", "output", "neuron", "Threshold")


def grid_limits(
    wires: Sequence[Wire], populations: Mapping[str, Population], *, dt: float | None = None
) -> Iterator[Problem]:
    """Why the time-stepped engine cannot run a network.

    Args:
        wires: in execution order, the nodes of a cycle one after the other.
        populations: by name.
        dt: length of a step, seconds; None: the network's own.
    """
    for wire in wires:
        if not wire.linear and wire.kind not in _KINDS:
            yield Problem(
                node=wire.name,
                code="unsupported-node",
                message=f"node '{wire.name}' is a {wire.kind}",
                fix="replace it, the time-stepped engine runs neurons, "
                f"{listing((*OPERATORS, 'Threshold'))}",
            )
        if not wire.sources and wire.kind not in ("input", "neuron"):
            message = f"nothing feeds node '{wire.name}' ({wire.kind})"
            yield Problem(
                node=wire.name, code="not-fed", message=message, fix="connect it, or remove it"
            )
        if wire.name in populations:
            yield from _population_limits(populations[wire.name], dt)
    yield from _cycle_limits(wires, populations)
    yield from _delay_limits(wires, populations, dt)
    if any(population.membrane == "exact" for population in populations.values()):
        yield from _signal_limits(wires, populations)


def grid_losses(wires: Sequence[Wire], populations: Mapping[str, Population]) -> dict[str, str]:
    """What steps only approximate in a network that the engine runs: a sentence by node.

    Args:
        wires, populations: as of `grid_limits`.
    """
    losses = {}
    for cycle in (group for group in groups(wires) if isinstance(group, Cycle)):
        for place, name in enumerate(cycle.order):
            population = populations[name]
            early = population.recurrent_delay == 0 and population.spikes_from == "after"
            if early and not _reached_at_once(cycle, name).isdisjoint(cycle.order[: place + 1]):
                losses[name] = (
                    f"node '{name}': what it sends back to itself arrives one step later, the"
                    " network has no delay there"
                )
    for name, population in populations.items():
        voltage = population.membrane == "exact" and not population.fires
        if voltage and any(name in wire.sources and wire.kind != "output" for wire in wires):
            losses[name] = (
                f"node '{name}': its membrane voltage acts as a constant current over each step on"
                " what follows"
            )
    return losses


def _reached_at_once(cycle: Cycle, name: str) -> set[str]:
    """The neurons of a cycle that a neuron feeds without a Delay on the way."""
    ends, passed, reached = set[str](), set[str](), {name}
    while reached:
        passed |= reached
        behind = [wire for wire in cycle.wires if not reached.isdisjoint(wire.sources)]
        ends |= {wire.name for wire in behind if wire.kind == "neuron"}
        reached = {wire.name for wire in behind if wire.kind not in ("neuron", "Delay")} - passed
    return ends


def _population_limits(population: Population, dt: float | None) -> Iterator[Problem]:
    exact = population.membrane == "exact"
    needed = ["initial", "own_option", "r"]
    if needs_dt(population) and not population.counts_steps:
        needed += ["seconds"] if dt is not None else ["seconds", "dt"]
    if exact:
        needed += ["spike_area", "spike_kernel", "tau", "tau_mem", "tau_syn"]
    if population.resets:
        needed += ["reset", "reset_delay"]
    yield from unknown_model(population)
    for problem in obstacles(population, needed):
        yield replace(problem, fix=Text.joined("", (problem.fix,)).without(_HERE))
    if population.resetting and population.kind not in NIR_KINDS:
        yield Problem(
            node=population.name,
            code="resetting-readout",
            message=f"node '{population.name}' ({population.kind}) gives its membrane and resets"
            f" ({population.reset})",
            fix=Text("pass {reset}", reset=RESET.set_to("none", node=population.name)),
        )
    if population.resets and exact and population.reset_delay:
        yield Problem(
            node=population.name,
            code="reset-delay",
            message=f"node '{population.name}' ({population.kind}) resets one step late, but its"
            " time is continuous",
            fix=Text(
                "pass {reset_delay}", reset_delay=RESET_DELAY.set_to(False, node=population.name)
            ),
        )


def _cycle_limits(
    wires: Sequence[Wire], populations: Mapping[str, Population]
) -> Iterator[Problem]:
    try:
        cycles = [part for part in groups(wires) if isinstance(part, Cycle)]
    except LoweringError as error:
        yield error.problem
        return
    for name in (name for cycle in cycles for name in cycle.order):
        population = populations.get(name)
        if population is not None and not population.fires and population.kind in _FIRING:
            yield Problem(
                node=name,
                code="readout-in-cycle",
                message=f"node '{name}' ({population.kind}) gives its membrane, and is part of a cycle,"
                " through which its spikes go",
                fix=Text("leave out {readout}, and read its spikes", readout=READOUT.set_to(name)),
            )


def _delay_limits(
    wires: Sequence[Wire], populations: Mapping[str, Population], dt: float | None
) -> Iterator[Problem]:
    unit = step_in_units(populations, known_dt(populations, dt))
    looped = _looped(wires)
    for wire in wires:
        if wire.kind != "Delay" or wire.detail is None:
            continue
        try:
            steps = delay_steps(wire, unit)
        except LoweringError as error:
            yield error.problem
            continue
        if wire.name in looped and min(steps) < 1:
            yield Problem(
                node=wire.name,
                code="delay",
                message=f"node '{wire.name}' (Delay) is part of a cycle and delays by 0 steps, it"
                " needs at least 1",
                fix="raise its delay, or choose a smaller dt",
            )


def _looped(wires: Sequence[Wire]) -> tuple[str, ...]:
    try:
        cycles = [group for group in groups(wires) if isinstance(group, Cycle)]
    except LoweringError:  # said already
        return ()
    return tuple(wire.name for cycle in cycles for wire in cycle.wires)


def _signal_limits(
    wires: Sequence[Wire], populations: Mapping[str, Population]
) -> Iterator[Problem]:
    """In continuous time spikes have no height: they cannot be compared with a level, nor added to
    a current.
    """
    spikes, levels = _carriers(wires, populations)
    for wire in wires:
        arriving = not spikes.isdisjoint(wire.sources)
        if wire.kind == "Threshold" and arriving:
            yield Problem(
                node=wire.name,
                code="spikes-at-threshold",
                message=f"node '{wire.name}' (Threshold) receives spikes, which have no height in"
                " continuous time",
                fix=Text(
                    "put a LI or CubaLI before it, or pass another {dialect}",
                    dialect=DIALECT.keyword,
                ),
            )
        if wire.kind == "output" and arriving and not levels.isdisjoint(wire.sources):
            yield Problem(
                node=wire.name,
                code="mixed-output",
                message=f"node '{wire.name}' (Output) receives spikes and a current, which cannot"
                " be added in continuous time",
                fix="give each an Output of its own",
            )


def _carriers(
    wires: Sequence[Wire], populations: Mapping[str, Population]
) -> tuple[set[str], set[str]]:
    """Names of the nodes that send spikes, and of those that send a current."""
    spikes = {wire.name for wire in wires if wire.kind == "input"}
    spikes |= {name for name, population in populations.items() if population.fires}
    levels = {name for name, population in populations.items() if not population.fires}
    levels |= {wire.name for wire in wires if wire.biased or wire.kind == "Threshold"}
    return carriers(wires, spikes), carriers(wires, levels)
