"""Examines a graph for the chip: what its populations do and what arrives at them, and all that
stands in the way.

`chip_limits` says what BrainScaleS-2 (HICANN-X) cannot run, however it is placed, and what takes more
than one run. Its counts are lower bounds: a network without a problem may still not fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from jaxsnn.bss2.chip import HICANN_X, PARAMETERS
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
from jaxsnn.nir.model.node import Node
from jaxsnn.nir.model.passes import sizes
from jaxsnn.options import BIAS
from jaxsnn.wording import Text

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


def _bias_problems(dynamics: Dynamics) -> Iterator[Problem]:
    biased = int(np.count_nonzero(dynamics.drive))
    if biased:
        name, kind = dynamics.population.name, dynamics.population.kind
        yield Problem(
            node=name,
            code="bias",
            message=f"node '{name}' ({kind}) has biases at {biased} of its {dynamics.drive.size} "
            "neurons, the chip has no constant current",
            fix=Text(
                "train without biases, or replace them by a source of regular spikes, {bias}",
                bias=BIAS.set_to("source"),
            ),
        )


def _problem(error: JaxsnnError, node: str, code: str) -> Problem:
    """What an error says, as a problem of a node."""
    return replace(error.problem, node=error.node or node, code=code)


# -- what no placement changes

#: Types of neurons that a circuit can be.
_NEURONS = ("CubaLIF", "CubaLI", "LIF", "LI")


def chip_limits(graph: Graph) -> Iterator[Problem]:
    """What stands in the way of a network on the chip, in the order of its nodes."""
    size = sizes(graph)
    for name, node in graph.nodes.items():
        label = f"node '{name}' ({node.type})"
        reason = _reason(node)
        if reason:
            yield Problem(
                node=name,
                code="unsupported-node",
                message=f"{label} is not supported, {reason}",
                fix="use CubaLIF, CubaLI, Linear, Affine, convolutions and pools",
            )
        elif node.traits.state and not node.traits.current_based:
            yield Problem(
                node=name,
                code="approximated",
                severity="warning",
                message=f"{label} has no tau_syn, the chip's synaptic current always decays and "
                "gets a short one",
                fix="use CubaLIF or CubaLI to train what runs there",
            )
        if node.traits.state and size[name] is None:
            yield Problem(
                node=name,
                code="unknown-size",
                message=f"the size of node '{name}' cannot be told from the file",
                fix="give its parameters a shape",
            )
    yield from _time_limits(graph)
    yield from _circuit_limits(graph, size)


def _reason(node: Node) -> str:
    """Why the chip has no such node; "" if it has."""
    traits = node.traits
    if traits.state and not traits.time_constants:
        return "its membrane does not leak, every circuit of the chip does"
    if traits.state:
        return "" if node.type in _NEURONS else "the chip has no neurons of that kind"
    if traits.delays:
        return "the chip delays no synapse"
    return "" if traits.port or traits.linear else "the chip has no node of that kind"


def _time_limits(graph: Graph) -> Iterator[Problem]:
    """Whether one factor brings all time constants into what the calibration reaches."""
    least, most = 0.0, math.inf
    slowest = fastest = ""
    for name, node in graph.nodes.items():
        if node.type not in _NEURONS:
            continue
        current_based = node.traits.current_based
        for key, (low, high) in ((key, _reach(key)) for key in ("tau_mem", "tau_syn")):
            parameter = "tau" if key == "tau_mem" and not current_based else key
            if parameter not in node.names:
                continue
            taus = np.ravel(node.value(parameter)).astype(float)
            if not np.isfinite(taus).all():
                message = f"node '{name}' ({node.type}) has a {parameter} that is infinite"
                yield Problem(
                    node=name,
                    code="no-leak",
                    message=message,
                    fix="use a finite one, every circuit leaks",
                )
                continue
            if low / taus.min() > least:
                least, fastest = low / taus.min(), f"{parameter} {taus.min():g} of '{name}'"
            if high / taus.max() < most:
                most, slowest = high / taus.max(), f"{parameter} {taus.max():g} of '{name}'"
    if least > most:
        message = f"its time constants are too far apart for the chip, {fastest} and {slowest}"
        factors = (
            f"all {key} within a factor of {_reach(key)[1] / _reach(key)[0]:g}"
            for key in ("tau_mem", "tau_syn")
        )
        fix = f"bring them closer together, {' and '.join(factors)}"
        yield Problem(code="time-constants", message=message, fix=fix)


def _reach(name: str) -> tuple[float, float]:
    """Times of the chip between which its calibration works; the network's own may be scaled by any
    factor.
    """
    reach = PARAMETERS[name]
    return reach.least or reach.low, reach.most or reach.high


def _circuit_limits(graph: Graph, size: Mapping[str, int | None]) -> Iterator[Problem]:
    """Each neuron takes a circuit at least; what recurs must be on the chip at once."""
    counted = {name: count or 0 for name, count in size.items()}
    for part in graph.recurrent_components():
        needed = sum(counted.get(name, 0) for name in part)
        if needed > HICANN_X.circuits:
            population_names = ", ".join(f"'{name}'" for name in part if name in counted)
            yield Problem(
                node=part[0],
                code="too-large",
                message=f"the neurons that feed each other ({population_names}) need {needed} circuits, the "
                f"chip has {HICANN_X.circuits} ({needed - HICANN_X.circuits} too many)",
                fix="make them fewer, a recurrent part cannot be split over runs",
            )
    total = sum(counted.values())
    if total > HICANN_X.circuits:
        yield Problem(
            code="several-runs",
            severity="warning",
            message=f"the network needs {total} circuits at least, the chip has "
            f"{HICANN_X.circuits}",
            fix=f"it takes {math.ceil(total / HICANN_X.circuits)} runs or more",
        )
