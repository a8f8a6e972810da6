"""What BrainScaleS-2 (HICANN-X) cannot run, however it is placed, and what takes more than one run.

Counts are lower bounds: a network without a problem here may still not fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from jaxsnn.bss2.chip import HICANN_X, PARAMETERS
from jaxsnn.errors import Problem
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.node import Node
from jaxsnn.nir.model.passes import sizes

#: Types of neurons that a circuit can be.
_NEURONS = ("CubaLIF", "CubaLI", "LIF", "LI")


def chip_limits(graph: Graph) -> Iterator[Problem]:
    """What stands in the way of a network on the chip, in the order of its nodes."""
    size = sizes(graph)
    for name, node in graph.nodes.items():
        where = f"node '{name}' ({node.type})"
        reason = _reason(node)
        if reason:
            yield Problem(
                node=name,
                code="unsupported-node",
                message=f"{where} is not supported, {reason}",
                fix="use CubaLIF, CubaLI, Linear, Affine, convolutions and pools",
            )
        elif node.traits.state and not node.traits.current_based:
            yield Problem(
                node=name,
                code="approximated",
                severity="warning",
                message=f"{where} has no tau_syn, the chip's synaptic current always decays and "
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
            own = "tau" if key == "tau_mem" and not current_based else key
            if own not in node.names:
                continue
            taus = np.ravel(node.value(own)).astype(float)
            if not np.isfinite(taus).all():
                message = f"node '{name}' ({node.type}) has a {own} that is infinite"
                yield Problem(
                    node=name,
                    code="no-leak",
                    message=message,
                    fix="use a finite one, every circuit leaks",
                )
                continue
            if low / taus.min() > least:
                least, fastest = low / taus.min(), f"{own} {taus.min():g} of '{name}'"
            if high / taus.max() < most:
                most, slowest = high / taus.max(), f"{own} {taus.max():g} of '{name}'"
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
            names = ", ".join(f"'{name}'" for name in part if name in counted)
            yield Problem(
                node=part[0],
                code="too-large",
                message=f"the neurons that feed each other ({names}) need {needed} circuits, the "
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
