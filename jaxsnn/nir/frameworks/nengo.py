"""Nengo: its LIF without a refractory period, as the converter of the NIR repository sets it up.

It writes no files; the dialect is how it runs those of others. The converter is
`paper/02_cnn/nengo_import.py` of neuromorphs/NIR (at 7232ada), the neuron `nengo/neurons.py` (at
036a0ce): J = (W s + b) / v_threshold, v = J + (v - J) exp(-dt/tau), a spike of height 1/dt where
v > 1, then v = 0, and no v below 0. It takes r = 1 and v_leak = 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import networkx
import numpy as np

from jaxsnn.errors import DialectError
from jaxsnn.nir.evidence import Estimate
from jaxsnn.nir.frameworks.framework import (
    Conventions,
    Evidence,
    Framework,
    Importer,
    OwnOption,
    Rule,
    rules,
)
from jaxsnn.nir.graph import Change, Graph
from jaxsnn.nir.nodes import Node

_MIN_VOLTAGE = OwnOption(
    name="min_voltage",
    kind="number",
    help="Nengo: V is raised to this times v_threshold at the end of each step (default 0)",
)


def _refutes(nodes: Mapping[str, Node], found: Estimate) -> tuple[str, str] | None:
    """What its converter asserts, and takes of the first neuron of a node."""
    for node in nodes.values():
        if node.type != "LIF":
            continue
        leak, tau = (np.ravel(np.asarray(node.value(key), float)) for key in ("v_leak", "tau"))
        if np.any(leak):
            worst = leak[int(np.argmax(np.abs(leak)))]
            return node.name, f"nengo takes v_leak = 0, but node '{node.name}' has {worst:g}"
        if np.ptp(tau) > 0:
            span = f"{tau.min():g} to {tau.max():g}"
            return node.name, f"nengo takes one tau a node, but node '{node.name}' has {span}"
        reset = np.ravel(np.asarray(node.value("v_reset"), float))
        if np.any(reset):
            worst = reset[int(np.argmax(np.abs(reset)))]
            return node.name, f"nengo takes v_reset = 0, but node '{node.name}' has {worst:g}"
    return None


def _refuse_loops(graph: Graph) -> Iterator[tuple[Node, Change]]:
    """Connections without a synapse, as the converter makes them, cannot be a loop in Nengo."""
    wires = networkx.DiGraph(graph.edges)
    if not networkx.is_directed_acyclic_graph(wires):
        source, target = next(iter(networkx.find_cycle(wires)))[:2]
        raise DialectError(
            f"the edge from '{source}' to '{target}' closes a loop, and Nengo builds none of "
            "connections without a synapse",
            fix="leave the loop out, or say another dialect=",
            node=source,
            code="contradiction",
        )
    yield from ()


_RUNS = Conventions(
    name="nengo",
    reads_only=True,
    rules=rules(LIF=Rule(kernel="box", ones=("r",))),
    evidence=Evidence(refutes=_refutes),
    time_unit="s",
    area="unit",
    reset="zero",
    reset_delay=False,
    constant_input="current",
    floor_option="min_voltage",
    meanings=(_refuse_loops,),
    options=(_MIN_VOLTAGE,),
    defaults=MappingProxyType(
        {"min_voltage": (0.0, "min_voltage is not in the file, 0 is its default.")}
    ),
)

FRAMEWORK = Framework(
    name="nengo",
    title="Nengo",
    dialects=(_RUNS,),
    importers=(
        Importer(
            version="4.0",
            ran=False,
            nodes=("Input", "Output", "Linear", "Affine", "Conv2d", "SumPool2d", "IF", "LIF", "LI"),
            uniform=True,
            dt=1e-3,
            feeds_back=False,
            pool="SumPool2d",
            reads=MappingProxyType({"reset": "zero", "reset_delay": False, "initial": "zero"}),
        ),
    ),
    distribution="nengo",
    note=(
        "It writes no NIR: the dialect is how its LIF runs files of others, by the converter of the "
        "NIR repository and by its source, not run. A spike is a current of 1/dt that lasts a step, "
        "inputs too. IF, LI and CubaLIF are custom there, and are not read."
    ),
)
