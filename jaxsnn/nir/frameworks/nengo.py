"""Nengo: its LIF without a refractory period, as the converter of the NIR repository sets it up.

It writes no files; the dialect describes how it runs files of other frameworks. The converter is
`paper/02_cnn/nengo_import.py` of neuromorphs/NIR (at 7232ada), the neuron `nengo/neurons.py` (at
036a0ce): J = (W s + b) / v_threshold, v = J + (v - J) exp(-dt/tau), a spike of height 1/dt where
v > 1, then v = 0, and no v below 0. It takes r = 1 and v_leak = 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import numpy as np

from jaxsnn.errors import DialectError
from jaxsnn.nir.frameworks.framework import Framework, Importer
from jaxsnn.nir.model.changes import Change
from jaxsnn.nir.model.dialect import Conventions, Estimate, Evidence, Rule, rules
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.node import Node
from jaxsnn.options import DIALECT, TIME_UNIT
from jaxsnn.wording import Text


def _refutes(nodes: Mapping[str, Node], dt_estimate: Estimate) -> tuple[str, str] | None:
    """Return a node with parameters that Nengo's converter cannot have written, and the reason;
    None if there is none.
    """
    for node in nodes.values():
        if node.type != "LIF":
            continue
        leak, tau = (np.ravel(np.asarray(node.value(key), float)) for key in ("v_leak", "tau"))
        if np.any(leak):
            worst = leak[int(np.argmax(np.abs(leak)))]
            return node.name, Text(
                "nengo requires v_leak = 0, but node '{node}' has {value:g}",
                node=node.name,
                value=worst,
            )
        if np.ptp(tau) > 0:
            return node.name, Text(
                "nengo requires one tau per node, but node '{node}' has {minimum:g} to {maximum:g}",
                node=node.name,
                minimum=tau.min(),
                maximum=tau.max(),
            )
        reset = np.ravel(np.asarray(node.value("v_reset"), float))
        if np.any(reset):
            worst = reset[int(np.argmax(np.abs(reset)))]
            return node.name, Text(
                "nengo requires v_reset = 0, but node '{node}' has {value:g}",
                node=node.name,
                value=worst,
            )
    return None


def _refuse_loops(graph: Graph) -> Iterator[tuple[Node, Change]]:
    """Refuse loops: the converter's connections have no synapse, and Nengo allows no loop of such
    connections.
    """
    import networkx

    wires = networkx.DiGraph(graph.edges)
    if not networkx.is_directed_acyclic_graph(wires):
        source, target = next(iter(networkx.find_cycle(wires)))[:2]
        raise DialectError(
            Text(
                "the edge from '{source}' to '{target}' closes a loop, and Nengo does not support "
                "loops of connections without a synapse",
                source=source,
                target=target,
            ),
            fix=Text("remove the loop, or pass a different {dialect}", dialect=DIALECT.keyword),
            node=source,
            code="contradiction",
        )
    yield from ()


def _refuse_bound(graph: Graph) -> Iterator[tuple[Node, Change]]:
    """Refuse weights and biases that may bring a membrane below 0, where Nengo clips it."""
    for node in graph.nodes.values():
        for name in ("weight", "bias"):
            value = node.value(name) if name in node.names else None
            if value is not None and np.any(np.asarray(value) < 0):
                raise DialectError(
                    Text(
                        "node '{node}' has {parameter} = {value:g}, and Nengo clips membrane potentials "
                        "below 0, which this library does not simulate",
                        node=node.name,
                        parameter=name,
                        value=np.min(value),
                    ),
                    fix=Text(
                        "pass {dialect} and {time_unit} for membrane potentials without a lower bound",
                        dialect=DIALECT.set_to("nir"),
                        time_unit=TIME_UNIT.set_to("s"),
                    ),
                    node=node.name,
                    code="contradiction",
                )
    yield from ()


def _at_the_end_of_steps(graph: Graph) -> Iterator[tuple[Node, Change]]:
    """Yield a remark on the spike times of each neuron."""
    for name in graph.neurons:
        description = (
            "fires at the end of a time step, as in Nengo, only on the time-stepped engine"
        )
        why = "the event engine solves the equations exactly, and its spikes are within time steps"
        yield graph.nodes[name], Change(node=name, what=description, why=why)


_RUNS = Conventions(
    name="nengo",
    ran=False,
    reads_only=True,
    rules=rules(LIF=Rule(arrival="unit", kernel="box", ones=("r",))),
    evidence=Evidence(refutes=_refutes),
    time_unit="s",
    reset="zero",
    reset_delay=False,
    constant_input="current",
    meanings=(_refuse_loops, _refuse_bound, _at_the_end_of_steps),
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
            wiring=("forks", "sums"),
            reads=MappingProxyType({"reset": "zero", "reset_delay": False, "initial": "zero"}),
        ),
    ),
    distribution="nengo",
    note=(
        "It does not write NIR files. The dialect describes how its LIF runs files of other "
        "frameworks. It is based on the converter of the NIR repository and the source code, "
        "and was not tested by running it. Each spike, including input spikes, is a current "
        "of 1/dt for one time step. Membrane potentials never fall below 0: negative weights "
        "and biases are rejected, and so are loops, IF, LI and CubaLIF."
    ),
)
