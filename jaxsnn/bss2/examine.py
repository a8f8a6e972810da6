"""Examines a graph for the chip: what its populations do and what arrives at them, and all that
stands in the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from jaxsnn.bss2.chip_limits import chip_limits
from jaxsnn.bss2.search.chip_dynamics import (
    Dynamics,
    dynamics,
    feeding_problems,
    population_problems,
)
from jaxsnn.bss2.search.unroll import IncomingLinks, arrivals
from jaxsnn.errors import DialectError, JaxsnnError, LoweringError, MappingError, Problem
from jaxsnn.network.lowering.lower_nodes import Part, plan
from jaxsnn.nir.model.graph import Graph

#: Of `Problem.code`: left to the mapper, which says which resource is short.
LEFT_TO_THE_MAPPER = ("too-large", "several-runs")


@dataclass(frozen=True, kw_only=True, eq=False)
class Examined:
    """What was found, in the order of execution; after an error some of it is missing.

    Attributes:
        problems: errors and warnings.
        parts: the lowered nodes by name.
        arriving: what arrives at populations and Outputs.
        neurons: what populations do.
    """

    problems: tuple[Problem, ...]
    parts: Mapping[str, Part] = field(default_factory=dict)
    arriving: Mapping[str, IncomingLinks] = field(default_factory=dict)
    neurons: Mapping[str, Dynamics] = field(default_factory=dict)


def examine(graph: Graph) -> Examined:
    """Examine a graph whose dialect is decided."""
    problems = list(chip_limits(graph))
    if any(one.severity == "error" and one.code not in LEFT_TO_THE_MAPPER for one in problems):
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
    problems += feeding_problems(ready, parts)
    if not graph.neurons:
        problems.append(
            Problem(
                code="no-neurons",
                message="the graph has no neurons, there is nothing to place on the chip",
                fix="add neurons",
            )
        )
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
            continue
        problems += population_problems(neurons[name])
        problems += _bias_problems(neurons[name])
    return Examined(
        problems=tuple(problems), parts=parts, arriving=arriving, neurons=_in_order(parts, neurons)
    )


def _in_order(parts: Mapping[str, Part], neurons: Mapping[str, Dynamics]) -> dict[str, Dynamics]:
    return {name: neurons[name] for name in parts if name in neurons}


def _bias_problems(one: Dynamics) -> Iterator[Problem]:
    biased = int(np.count_nonzero(one.drive))
    if biased:
        name, kind = one.population.name, one.population.kind
        yield Problem(
            node=name,
            code="bias",
            message=f"node '{name}' ({kind}) has biases at {biased} of its {one.drive.size} "
            "neurons, the chip has no constant current",
            fix="train without biases, or replace them by a source of regular spikes, "
            'bias="source"',
        )


def _problem(error: JaxsnnError, node: str, code: str) -> Problem:
    """What an error says, as a problem of a node."""
    return replace(error.problem, node=error.node or node, code=code)
