"""Lava: CubaLIF of Loihi, whose states are integers.

The exporter is `docs/source/examples/lava/lava_to_nir.py` of neuromorphs/NIR (at 7232ada). It
converts the networks that lava-dl exports: dt = 0.1 ms, decays of n/4096 a step, r = tau_mem/dt,
w_in = tau_syn/dt, thresholds and weights of n/64. The importer is `nir_to_lava.py` in the same
folder, for lava-dl (at d825ac5): i = (1 - d_i) i + x, v = (1 - d_v) v + i, each state a multiple of
2^-12 that a decay rounds toward 0, a spike where v > v_threshold, then v = 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import numpy as np

from jaxsnn.errors import Problem
from jaxsnn.nir.frameworks.framework import Framework, Importer
from jaxsnn.nir.frameworks.shared_rules import TAU_OVER_R
from jaxsnn.nir.model.changes import Change
from jaxsnn.nir.model.decays import FROM_R, FROM_W_IN
from jaxsnn.nir.model.dialect import Conventions, Dialect, Estimate, Evidence, Rule, rules
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.node import Node
from jaxsnn.wording import Text

#: Decays of Loihi, and states in units of lava-dl, are multiples of this.
_QUANTUM = 2.0**-12
#: Thresholds and weights are multiples of this.
_LEVEL = 2.0**-6
#: Tolerance of these multiples in float32, in multiples.
_ROUNDING = 1e-2

# Files that the framework writes


def _refutes(nodes: Mapping[str, Node], dt_estimate: Estimate) -> tuple[str, str] | None:
    """Return a node whose decays or thresholds are not multiples of Loihi's resolution, and the
    reason; None if there is none.
    """
    for node in nodes.values():
        if not node.traits.state:
            continue
        for quantity, values, unit in (
            ("1/r", 1 / np.asarray(node.value("r"), float), _QUANTUM),
            ("1/w_in", 1 / np.asarray(node.value("w_in"), float), _QUANTUM),
            ("v_threshold", np.asarray(node.value("v_threshold"), float), _LEVEL),
        ):
            off = np.abs(values / unit - np.round(values / unit))
            if np.any(off > _ROUNDING):
                wrong = np.ravel(values)[int(np.argmax(off))]
                return node.name, Text(
                    "lava writes {parameter} in multiples of 1/{levels:g}, but node '{node}' has "
                    "{value:g}",
                    parameter=quantity,
                    levels=1 / unit,
                    node=node.name,
                    value=wrong,
                )
    return None


def _whole_states(graph: Graph) -> Iterator[tuple[Node, Change]]:
    """Yield a remark on each neuron with the largest effect of the rounding of its states, which is
    not simulated here.
    """
    for name in graph.neurons:
        node = graph.nodes[name]
        if node.type != "CubaLIF":
            continue
        r, w_in = (np.max(np.asarray(node.value(key), float), initial=0) for key in ("r", "w_in"))
        # Each decay rounds by less than one quantum, and rounding errors decay with the state, so
        # their sum is bounded.
        bound = _QUANTUM * (1 + w_in) * r
        far = f"up to {bound:.2g}" if np.isfinite(bound) else "increasing with every time step"
        yield (
            node,
            Change(
                node=name,
                what=f"its states are not rounded; error of the membrane potential between spikes: {far}",
                why="Lava stores states as integers in units of 2^-12, and rounds them toward 0 in each "
                "decay; if a membrane potential is closer to its threshold than this error, spikes "
                "may differ",
            ),
        )


_WRITES = Conventions(
    name="lava",
    ran=False,
    rules=rules(
        CubaLIF=Rule(
            membrane_decay=FROM_R, synapse_decay=FROM_W_IN, membrane="leak", synapse="add last"
        )
    ),
    evidence=Evidence(dt_from=TAU_OVER_R, refutes=_refutes),
    time_unit="s",
    dt=1e-4,
    reset="zero",
    reset_delay=False,
    meanings=(_whole_states,),
)

# Files that the framework reads


def _remarks(node: Node, dialect: Dialect) -> Iterator[Problem]:
    """Yield remarks on the numbers of a neuron that the framework's reader refuses or rounds."""
    if not node.traits.state:
        return
    node_label = Text("node '{node}' ({type})", node=node.name, type=node.type)
    yield Problem(
        node=node.name,
        code="rounded",
        message=Text(
            "{neuron}: Lava rounds decays to multiples of 1/4096, the threshold to a multiple of "
            "1/64, and states in every time step",
            neuron=node_label,
        ),
        fix="expect different spikes where a membrane potential is close to its threshold",
        severity="warning",
    )
    if node.type != "CubaLIF":
        return
    for name in ("tau_mem", "tau_syn", "v_threshold"):
        values = np.unique(np.asarray(node.value(name), float))
        if values.size > 1:
            yield Problem(
                node=node.name,
                code="differs",
                message=Text(
                    "{neuron}: its reader supports one {parameter} for all neurons, not {minimum:g} to "
                    "{maximum:g}",
                    neuron=node_label,
                    parameter=name,
                    minimum=values[0],
                    maximum=values[-1],
                ),
                fix="split the node into several",
            )
    leak = np.ravel(np.asarray(node.value("v_leak"), float))
    if np.any(leak):
        yield Problem(
            node=node.name,
            code="unread",
            message=Text(
                "{neuron}: its reader requires v_leak = 0, not {value:g}",
                neuron=node_label,
                value=leak[np.flatnonzero(leak)[0]],
            ),
            fix="shift v_leak, v_reset and v_threshold so that v_leak is 0",
        )


FRAMEWORK = Framework(
    name="lava",
    title="Lava",
    dialects=(_WRITES,),
    importers=(
        Importer(
            version="main",
            ran=False,
            nodes=(
                *("Input", "Output", "Affine", "Linear", "Conv2d", "SumPool2d", "Flatten"),
                *("IF", "CubaLIF"),
            ),
            remarks=_remarks,
            dt=1e-4,
            wiring=("loops",),
            reads=MappingProxyType({"reset": "zero", "reset_delay": False, "initial": "zero"}),
        ),
    ),
    note=(
        "Based on the scripts of the NIR repository and lava-dl; not tested by running them. "
        "States are integers in units of 2^-12, rounded toward 0 in each decay. The dialect "
        "uses real numbers, and a remark for each neuron contains the largest deviation. "
        "Spikes reach the next layer in the same time step, as in the scripts (`delay_shift` "
        "false)."
    ),
)
