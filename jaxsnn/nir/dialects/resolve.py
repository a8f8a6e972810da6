"""Update rules of neurons: `resolve_neurons` derives one `NeuronRule` for every neuron node from
its parameters and the dialect of the file.

This is the only place that decodes what a dialect means for a neuron. Both engines run the rule
(`jaxsnn.network.lowering` makes populations of it); conversions and modules of PyTorch take it in
numbers, as a `Step` or a `Flow` (`jaxsnn.nir.dialects.steps`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError, DialectError, Problem
from jaxsnn.nir.dialects.gains import require, required_field, rule_of, spike_area
from jaxsnn.nir.frameworks.evidence import estimate, ties
from jaxsnn.nir.frameworks.registry import frameworks
from jaxsnn.nir.frameworks.source_rule import NeuronRule, bad_parameter
from jaxsnn.nir.model.dialect import Conventions, Dialect, NodeDialect, Rule
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.node import Node
from jaxsnn.nir.model.nodes import IF, I
from jaxsnn.options import ENGINE, READOUT, RESET
from jaxsnn.wording import Text

_PURPOSE = "the neuron model"


def resolve_neurons(graph: Graph) -> dict[str, NeuronRule]:
    """Return the rule of each neuron in the source framework, by node.

    Unspecified options and invalid parameters are listed in `problems` of a rule; functions that need
    them raise an error.

    Raises:
        DialectError: The dialect is undecided.
    """
    require(graph.dialect, ["name"], _PURPOSE)
    looped = {name for part in graph.recurrent_components() for name in part}
    unit_dt = _unit_dt(graph)
    return {
        name: resolve_neuron(graph.nodes[name], graph.dialect, unit_dt, is_recurrent=name in looped)
        for name in graph.neurons
    }


def subtracting_neurons(graph: Graph) -> list[str]:
    """Return the neurons that spike and subtract v_threshold at a reset."""
    return [
        name
        for name, rule in resolve_neurons(graph).items()
        if not rule.readout and rule.reset == "subtract"
    ]


def _unit_dt(graph: Graph) -> float | None:
    """Return the length of a time step in the file's unit of time; None if it is unknown."""
    dialect = graph.dialect
    if dialect.time_unit == "step":
        return 1.0
    if dialect.dt is not None and dialect.seconds is not None:
        return dialect.dt / dialect.seconds
    assert dialect.conventions is not None
    return estimate(graph.nodes, dialect.conventions.evidence).dt


def resolve_neuron(
    node: Node, dialect: Dialect, unit_dt: float | None = None, *, is_recurrent: bool = False
) -> NeuronRule:
    """Return the rule of one neuron in the source framework.

    Args:
        node: The neuron.
        dialect: Decided dialect of its graph.
        unit_dt: Length of a time step in the file's unit of time; None if it is unknown.
        is_recurrent: Whether the neuron feeds itself, directly or through other nodes.
    """
    conventions, view = dialect.conventions, dialect.at(node.name)
    assert conventions is not None
    problems: dict[str, Problem] = {}

    def tried(field: str, get: Callable[[], Any]) -> Any:
        """Return the result of a function of the dialect, or None if it is unspecified, and note
        the problem.
        """
        try:
            return get()
        except DialectError as error:
            problems[field] = dataclasses.replace(error.problem, node=node.name)
            return None

    def option(field: str) -> Any:
        """Return an option of the file or the node, or None if it is unspecified."""
        tried(field, lambda: require(dialect, [field], _PURPOSE, node.name))
        return dialect.option(field, node.name)

    # If the framework has no such neuron, a default rule stands in; only the problem is reported.
    rule = tried("type", lambda: rule_of(dialect, node)) or Rule()
    declared_reset = dialect.nodes.get(node.name, {}).get("reset", "none")
    readout = not node.traits.fires or view.readout
    resetting = node.traits.fires and view.readout and declared_reset != "none"
    may_reset = not readout or resetting
    counts_steps = dialect.time_unit == "step" and dialect.dt is None
    # Problems are collected in the order in which engines report them.
    problems |= _infinite_time_constants(node)
    problems |= _levels_above_threshold(node, view)
    seconds = option("seconds")
    if rule.option:
        tried("own_option", lambda: require(dialect, [rule.option], _PURPOSE, node.name))
    reset = option("reset") if may_reset else "none"
    spike = tried("spike_area", lambda: spike_area(dialect, node))
    kernel = option("spike_kernel")
    dt = None if counts_steps else option("dt")
    initial = option("initial")
    problems |= _mixed_gains(node, rule)
    reset_delay = option("reset_delay") if may_reset else False
    problems |= _foreign_outputs(node, view, resetting=resetting)
    adds_undecayed = rule.membrane == "relax" and not np.all(node.numbers("r") == 1)
    resolved = NeuronRule(
        node=node,
        dialect=conventions.name,
        is_recurrent=is_recurrent,
        seconds=seconds,
        dt=dt,
        unit_dt=unit_dt,
        counts_steps=counts_steps,
        spike=spike,
        spike_kernel=kernel,
        constant_input=conventions.constant_input,
        membrane="relax, add" if adds_undecayed else rule.membrane,
        membrane_decay=rule.membrane_decay,
        synapse=rule.synapse,
        synapse_decay=rule.synapse_decay,
        threshold=conventions.threshold,
        spikes_per_step=conventions.spikes_per_step,
        spikes_from=conventions.spikes_from,
        recurrent_delay=conventions.recurrent_delay,
        readout=readout,
        resetting=resetting,
        initial=initial,
        reset=reset,
        reset_delay=reset_delay,
        resets_at_start=conventions.resets_at_start,
        resets_first=reset in rule.resets_first,
        leaks_to_zero=rule.leaks_to_zero,
        surrogate=frameworks()[conventions.name].surrogate,
        step_length=conventions.evidence.dt_from,
        tied_gains=dict(_tied_gains(node, dialect, conventions)),
        problems=problems,
    )
    return resolved if conventions.refine is None else conventions.refine(resolved, dialect)


def resistance(dialect: Dialect, node: Node) -> np.ndarray:
    """Return r in SI units: for IF and I per second, for other types as in the file.

    Spyx writes its decay into r of NIR and simulates r = tau_mem/dt.
    """
    require(dialect, ["name"], "the resistance", node.name)
    rule = resolve_neuron(node, dialect)
    rule.require("type")
    if rule.resistance == "tau/dt":
        purpose = f"the resistance that {dialect.name} simulates"
        tau = node.value("tau_mem" if node.traits.current_based else "tau")
        seconds, dt = (
            required_field(dialect, field, purpose, node.name) for field in ("seconds", "dt")
        )
        return np.asarray(tau, float) * seconds / dt
    if isinstance(node, IF | I):
        return np.asarray(node.value("r"), float) / required_field(
            dialect, "seconds", "the resistance", node.name
        )
    return node.numbers("r")


def _tied_gains(
    node: Node, dialect: Dialect, conventions: Conventions
) -> Iterator[tuple[tuple[str, str], float]]:
    """Yield `NeuronRule.tied_gains` of a neuron."""
    evidence = conventions.evidence
    if evidence.dt_from is None or evidence.dt_from.gain is None:
        return
    for pair in ties({node.name: node}, evidence):
        finite = np.isfinite(pair.tau) & np.isfinite(pair.gain)
        if not finite.any():
            continue
        (tau, gain), unit = pair.names, dialect.seconds or 1.0
        dt = float(np.median(evidence.dt_from.of(pair.tau[finite], pair.gain[finite]))) * unit
        if tau in node.names and dt > 0:
            yield (tau, gain), dt


# Problems


def _infinite_time_constants(node: Node) -> dict[str, Problem]:
    """Return the problems of time constants that continuous time does not support."""
    problems = {}
    for name in sorted(node.traits.time_constants):
        finite = np.isfinite(node.numbers(name)).ravel()
        if finite.all():
            continue
        # Engines look up problems of tau_mem and tau_syn by name, of other time constants as "tau".
        field = name if name in ("tau_mem", "tau_syn") else "tau"
        instead = ", or use an IF, which has none" if node.type == "LIF" else ""
        problems[field] = bad_parameter(
            node,
            Text(
                "{parameter} of neuron {neuron} is infinite, so that nothing decays (alpha or beta "
                "is 1 in a time-stepped framework); this neuron type does not support that in "
                "continuous time",
                parameter=name,
                neuron=int((~finite).argmax()),
            ),
            Text(
                "use a finite time constant{instead}, or simulate with {engine}",
                instead=instead,
                engine=ENGINE.set_to("grid"),
            ),
        )
    return problems


def _levels_above_threshold(node: Node, view: NodeDialect) -> dict[str, Problem]:
    """Return problems of membrane potentials that start or reset at v_threshold or above it:
    engines and importers treat these differently.
    """
    if not {"v_threshold", "v_reset"} <= set(node.names):
        return {}
    v_threshold = node.numbers("v_threshold").ravel()
    levels = {
        "v_reset": (
            np.zeros(1) if view.reset == "subtract" else node.numbers("v_reset").ravel(),
            "resets to",
            ", and without a refractory period it never stops",
            "lower v_reset or raise v_threshold",
        )
    }
    if view.initial is not None:
        in_node = view.initial in node.names
        start = node.numbers(view.initial).ravel() if in_node else np.zeros(1)
        levels["v_start"] = start, "starts at", "", "raise v_threshold"
    problems = {}
    for field, (level, verb, consequence, fix) in levels.items():
        if 1 not in (level.size, v_threshold.size) and level.size != v_threshold.size:
            # Readers of the numbers refuse sizes that do not fit.
            continue
        high = level >= v_threshold
        if high.any():
            neuron = int(high.argmax())
            height, limit = (
                np.broadcast_to(voltages, high.shape)[neuron] for voltages in (level, v_threshold)
            )
            problems[field] = bad_parameter(
                node,
                Text(
                    "neuron {neuron} "
                    + verb
                    + " {value:g}, which is not below its v_threshold {limit:g}, so it fires without input"
                    + consequence,
                    neuron=neuron,
                    value=height,
                    limit=limit,
                ),
                fix,
            )
    return problems


def _mixed_gains(node: Node, rule: Rule) -> dict[str, Problem]:
    """Return the problem of a node in which r determines the rule of each neuron."""
    if rule.membrane != "relax":
        return {}
    r = node.numbers("r").ravel()
    decayed = r == 1
    if decayed.all() or not decayed.any():
        return {}
    text = Text(
        "the input of neurons with r = 1 decays ({count} of {size}), the input of others (r "
        "= {r:g}) does not",
        count=int(decayed.sum()),
        size=r.size,
        r=r[~decayed][0],
    )
    return {"r": bad_parameter(node, text, "split the node into two")}


def _foreign_outputs(node: Node, view: NodeDialect, *, resetting: bool) -> dict[str, Problem]:
    """Return problems of a neuron that outputs its membrane potential and resets, and of a neuron
    that spikes in every time step while it is above its threshold.
    """
    name = node.name
    if resetting:
        return {
            "resetting": Problem(
                node=name,
                code=ConversionError.default_code,
                message=Text(
                    "node '{node}' outputs its membrane potential and resets ({reset}), which is not "
                    "supported",
                    node=name,
                    reset=view.reset,
                ),
                fix=Text(
                    "pass {reset} if it is a leaky readout", reset=RESET.set_to("none", node=name)
                ),
            )
        }
    if node.traits.fires and view.reset == "none" and not view.readout:
        return {
            "no_reset": Problem(
                node=name,
                code=ConversionError.default_code,
                message=Text(
                    "node '{node}' never resets and outputs spikes, which no NIR neuron does",
                    node=name,
                ),
                fix=Text(
                    "pass {readout} if its output is its membrane potential, or pass a different reset",
                    readout=READOUT.set_to(name),
                ),
            )
        }
    return {}
