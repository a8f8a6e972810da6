"""Examines a graph for the chip: dynamics and inputs of its populations, and its problems.

`jaxsnn.bss2.capabilities` lists what BrainScaleS-2 (HICANN-X) does not support, independent of the
placement, and what takes more than one run. Its counts are lower bounds: a network without problems
may still not fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from jaxsnn.bss2.capabilities import CHIP, CIRCUITS, SYNAPSES, PlacedNetwork
from jaxsnn.bss2.search.chip_dynamics import Dynamics, dynamics
from jaxsnn.bss2.search.unroll import IncomingLinks, arrivals
from jaxsnn.capabilities import unsupported
from jaxsnn.errors import DialectError, JaxsnnError, LoweringError, MappingError, Problem
from jaxsnn.network.features import StaticNetwork
from jaxsnn.network.lowering.lower_nodes import Part, plan
from jaxsnn.nir.model.graph import Graph

#: Values of `Problem.code` that `examine` ignores, because the mapper reports the scarce resource.
LEFT_TO_THE_MAPPER = ("too-large", "several-runs")


@dataclass(frozen=True, kw_only=True, eq=False)
class Examined:
    """Results of an examination, in the order of execution; incomplete after an error.

    Attributes:
        problems: Errors and warnings.
        parts: Lowered nodes by name.
        arriving: Inputs of populations and Outputs, by name.
        neurons: Dynamics of populations, by name.
    """

    problems: tuple[Problem, ...]
    parts: Mapping[str, Part] = field(default_factory=dict)
    arriving: Mapping[str, IncomingLinks] = field(default_factory=dict)
    neurons: Mapping[str, Dynamics] = field(default_factory=dict)


def examine(graph: Graph) -> Examined:
    """Examine a graph whose dialect is resolved."""
    problems = unsupported(graph, CHIP)
    if any(
        problem.severity == "error" and problem.code not in LEFT_TO_THE_MAPPER
        for problem in problems
    ):
        return Examined(problems=tuple(problems))
    ready = plan(graph)
    parts: dict[str, Part] = {}
    for name in ready.order:
        try:
            parts[name] = ready.part(name)
        except (LoweringError, DialectError) as error:
            problems.append(_problem(error, name, "cannot-lower"))
    if len(parts) < len(ready.order):
        return Examined(problems=tuple(problems))
    wires = tuple(part.wire for part in parts.values())
    populations = {
        name: part.population for name, part in parts.items() if part.population is not None
    }
    problems += unsupported(StaticNetwork(wires=wires, populations=populations), SYNAPSES)
    try:
        arriving = arrivals(ready, parts)
    except MappingError as error:
        return Examined(problems=(*problems, _problem(error, "", "cannot-unroll")), parts=parts)
    neurons: dict[str, Dynamics] = {}
    for name in graph.neurons:
        try:
            neurons[name] = dynamics(parts[name], arriving[name].constant)
        except LoweringError as error:
            problems.append(_problem(error, name, "not-said"))
    neurons = {name: neurons[name] for name in parts if name in neurons}
    placed = PlacedNetwork(
        wires=wires,
        populations={name: populations[name] for name in neurons},
        dynamics=neurons,
    )
    problems += unsupported(placed, CIRCUITS)
    return Examined(problems=tuple(problems), parts=parts, arriving=arriving, neurons=neurons)


def _problem(error: JaxsnnError, node: str, code: str) -> Problem:
    """Return an error as a problem of a node."""
    return replace(error.problem, node=error.node or node, code=code)
