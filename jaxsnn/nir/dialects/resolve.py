"""Compute what one time step of the source does to a population: a `Step`, from node and dialect.

The form of a step is in `jaxsnn.nir.frameworks.source_step`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from jaxsnn.errors import ConversionError, DialectError
from jaxsnn.nir.dialects.gains import (
    floor_of,
    own_reset_delay,
    require,
    reset_size,
    resetting_readout,
    rule_of,
    several_spikes,
    spike_area,
)
from jaxsnn.nir.frameworks.evidence import estimate
from jaxsnn.nir.frameworks.source_step import Reset, Step
from jaxsnn.nir.model.decays import EULER_MEMBRANE, EXACT_SYNAPSE, Decay
from jaxsnn.nir.model.dialect import Conventions, Dialect, NodeDialect, Rule
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.node import Node
from jaxsnn.nir.model.nodes import CURRENT_BASED, IF, NEURONS, SPIKING
from jaxsnn.options import READOUT, RESET
from jaxsnn.wording import Text

#: Code of the refusal of a graph that a conversion for Norse has scaled to a reset of Norse's own:
#: Norse runs it as it is.
ALREADY_CONVERTED = "already-converted"

_PURPOSE = "conversion"
#: Levels of membranes that a file holds in float32 are equal up to this, relative.
_ROUNDING = 2.0**-20


def _factor(decay: Decay, node: Node, dt: Callable[[], float]) -> np.ndarray:
    """The factor of one step; dt in the file's unit of time is asked for only where it is needed."""
    parameters = {name: _number(node, name) for name in node.names if node.value(name) is not None}
    return np.asarray(decay.factor(parameters, dt() if decay.needs_dt else None, np))


def _number(node: Node, parameter: str) -> np.ndarray:
    return np.asarray(node.value(parameter), float)


def _tau_mem(node: Node) -> np.ndarray:
    return _number(node, "tau_mem" if isinstance(node, CURRENT_BASED) else "tau")


def unit_dt(graph: Graph) -> float:
    """Length of a step in the file's unit of time.

    Raises:
        DialectError: Neither the dialect nor the numbers tell it.
    """
    dialect = graph.dialect
    if dialect.time_unit == "step":
        return 1.0
    if dialect.dt is not None and dialect.seconds is not None:
        return dialect.dt / dialect.seconds
    conventions = dialect.conventions
    found = None if conventions is None else estimate(graph.nodes, conventions.evidence).dt
    if found is None:
        require(dialect, ["dt", "seconds"], _PURPOSE)
    assert found is not None
    return found


def is_continuous(dialect: Dialect, node: Node) -> bool:
    """True where the source solves the ODE, so that a step is an approximation."""
    return rule_of(dialect, node).membrane == "exact"


def step_of(
    graph: Graph,
    name: str,
    shape: tuple[int, ...],
    looped: bool,
    *,
    readouts: bool = False,
    resetting: bool = False,
) -> Step:
    """What one step of the source does to a population.

    Args:
        graph: Read with its dialect.
        name: A node that is a neuron.
        shape: Its shape.
        looped: It feeds itself.
        readouts: Take neurons that do not spike too, as reset "none" with an infinite threshold.
        resetting: Take neurons that give their membrane although they reset too, as those that
            spike.

    Raises:
        ConversionError: It does not spike, so that no target can take it.
        DialectError: The dialect leaves open what is needed; the fix names the option.
    """
    node, dialect = graph.nodes[name], graph.dialect
    require(dialect, ["name"], _PURPOSE)
    conventions, view = dialect.conventions, dialect.at(name)
    assert conventions is not None
    rule = rule_of(dialect, node)
    resets = resetting and resetting_readout(dialect, node)
    silent = not isinstance(node, SPIKING) or (view.readout and not resets) or view.reset == "none"
    if not resets:
        refuse_other_resets(dialect, node)
    _refuse_foreign(node, silent=silent and not readouts)
    require(dialect, ["initial"] if silent else ["reset", "initial"], _PURPOSE, name)
    delay = own_reset_delay(dialect, node, looped=looped)
    if delay is None and not silent:
        require(dialect, ["reset_delay"], _PURPOSE, name)
        delay = view.reset_delay

    def dt() -> float:
        return unit_dt(graph)

    numbers = _membrane(dialect, node, rule, dt) | _levels(node, view, silent)
    if isinstance(node, CURRENT_BASED):
        numbers |= _synapse(dialect, node, rule, dt)
    numbers |= {key: _within(numbers[key]) for key in ("decay", "synapse_decay") if key in numbers}
    step = Step(
        name=name,
        type=node.type,
        shape=shape,
        current_based=isinstance(node, CURRENT_BASED),
        reset="none" if silent else _reset(conventions, rule, view.reset, delay, looped),
        at_equality=conventions.threshold == ">=",
        several=several_spikes(dialect, node),
        floor=floor_of(dialect, node),
        late=conventions.spikes_from == "before" and not silent,
        **cast(
            Any,
            {
                key: np.broadcast_to(_shaped(value, shape), shape).astype(float)
                for key, value in (_PLAIN | numbers).items()
            },
        ),
    )
    _refuse_odd_decays(step)
    step = _reset_from_above(step, conventions, rule, delay, looped)
    return _by_reset_size(step, reset_size(dialect, node))


#: What holds where nothing else is known: no leak potential, no current, one spike at most.
_PLAIN: dict[str, np.ndarray] = {
    "drive": np.zeros(()),
    "synapse_decay": np.zeros(()),
    "synapse_gain": np.ones(()),
    "bias_ratio": np.ones(()),
    "i_start": np.zeros(()),
    "level": np.ones(()),
}


def refuse_other_resets(dialect: Dialect, node: Node) -> None:
    """Refuse a neuron that gives its membrane and resets, and one that spikes for as long as it is
    above its threshold.
    """
    name, view = node.name, dialect.at(node.name)
    if resetting_readout(dialect, node):
        raise ConversionError(
            f"node '{name}' gives its membrane and resets ({view.reset}), which is not supported",
            fix=Text("say {reset} if it is a leaky readout", reset=RESET.set_to("none", node=name)),
            node=name,
        )
    if isinstance(node, SPIKING) and view.reset == "none" and not view.readout:
        raise ConversionError(
            f"node '{name}' never resets, and its spikes are taken, which NIR's neurons do not"
            " give",
            fix=Text(
                "say {readout} if its membrane is taken, or another reset",
                readout=READOUT.set_to(name),
            ),
            node=name,
        )


def _refuse_foreign(node: Node, *, silent: bool) -> None:
    """Refuse a neuron that no importer has; `silent`: one that would have to give its membrane."""
    if not isinstance(node, NEURONS):
        raise ConversionError(
            f"node '{node.name}' is a {node.type}, a neuron that NIR does not have, "
            "and no importer",
            fix="replace it by a neuron of NIR",
            node=node.name,
        )
    if silent:
        what = f"a {node.type}" if not isinstance(node, SPIKING) else "a leaky readout (reset none)"
        raise ConversionError(
            f"node '{node.name}' is {what}, and the importer has no neuron that gives its membrane",
            fix="replace it by a neuron that spikes",
            node=node.name,
        )


def _levels(node: Node, view: NodeDialect, silent: bool) -> dict[str, np.ndarray]:
    """v_threshold, v_reset and v_start."""
    leak = _number(node, "v_leak") if "v_leak" in node.names else np.zeros(())
    at_reset = _number(node, "v_reset") if "v_reset" in node.names else np.zeros(())
    start = {"zero": np.zeros(()), "v_leak": leak, "v_reset": at_reset}[view.initial or "zero"]
    return {
        "v_threshold": np.array(np.inf) if silent else _number(node, "v_threshold"),
        "v_reset": at_reset if view.reset == "zero" and not silent else np.zeros(()),
        "v_start": start,
    }


def _shaped(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return value.reshape(()) if value.size == 1 else value.reshape(shape)


def _membrane(dialect: Dialect, node: Node, rule: Rule, dt: Callable[[], float]) -> dict[str, Any]:
    """decay, gain and drive of the membrane; see `Rule.membrane`."""
    if rule.option:
        require(dialect, [rule.option], _PURPOSE, node.name)
    form = rule.membrane
    if form == "relax":
        r, reset = _number(node, "r"), _number(node, "v_reset")
        if np.all(r == 1):
            decay = _factor(EULER_MEMBRANE, node, dt)
            return {"decay": decay, "gain": 1 - decay, "drive": (1 - decay) * reset}
        if np.any(r == 1):
            raise ConversionError(
                f"node '{node.name}' has r = 1 at some neurons and others elsewhere",
                fix="split it in two",
                node=node.name,
            )
        return {"decay": 1 - 1 / r, "gain": np.ones(()), "drive": reset / r}
    decay = _factor(rule.membrane_decay, node, dt)
    if form == "leak":
        return {"decay": decay, "gain": np.ones(())}
    if form == "average":
        return {"decay": decay, "gain": 1 - decay}
    if form == "euler":
        leak = _number(node, "v_leak")
        if rule.synapse == "filter":
            # The current is counted from v_leak, where it starts and rests.
            r = _number(node, "r")
            return {"decay": decay, "gain": (1 - decay) * r, "drive": (1 - decay) * (1 + r) * leak}
        return {"decay": decay, "gain": 1 - decay, "drive": (1 - decay) * leak}
    return _continuous(dialect, node, decay, dt)


def _continuous(
    dialect: Dialect, node: Node, decay: np.ndarray, dt: Callable[[], float]
) -> dict[str, Any]:
    """The ODE over one step that starts with the arrival of its spikes, for currents that decay in
    between.
    """
    leak = _number(node, "v_leak") if "v_leak" in node.names else np.zeros(())
    r = _number(node, "r")
    drive = (1 - decay) * leak
    area = spike_area(dialect, node)
    if isinstance(node, CURRENT_BASED):
        tau, tau_syn = _tau_mem(node), _number(node, "tau_syn")
        synapse = np.exp(-dt() / tau_syn)
        near = np.abs(tau - tau_syn) < 1 / 2**20 * tau
        apart = np.where(near, tau, tau - tau_syn)
        # The current of the step's beginning, seen through the membrane at its end.
        response = np.where(near, dt() / tau * decay, tau_syn / apart * (decay - synapse))
        # `synapse_decay` acts before the arrival in `Step`, and the current of the step's beginning
        # drives V.
        return {"decay": decay, "gain": r * response, "drive": drive}
    level = r * dt() if isinstance(node, IF) else r * (1 - decay)
    if area.kind == "jump":
        return {"decay": decay, "gain": np.ones(()), "drive": drive, "bias_ratio": level}
    if area.kind == "scaled jump":  # level = r (1 - decay)
        return {"decay": decay, "gain": r, "drive": drive, "bias_ratio": 1 - decay}
    strength = _known_area(dialect, area.seconds) / dt()
    return {
        "decay": decay,
        "gain": level * strength,
        "drive": drive,
        "bias_ratio": np.array(1 / strength),
    }


def _known_area(dialect: Dialect, seconds: float | None) -> float:
    """A spike's area in the file's unit of time."""
    if seconds is None or dialect.seconds is None:
        raise DialectError(f"{_PURPOSE} needs the unit of time", fix=dialect.unit_fix)
    return seconds / dialect.seconds


def _synapse(dialect: Dialect, node: Node, rule: Rule, dt: Callable[[], float]) -> dict[str, Any]:
    """synapse_decay and synapse_gain; see `Rule.synapse`."""
    decay = _factor(rule.synapse_decay or EXACT_SYNAPSE, node, dt)
    if rule.synapse == "filter":
        return {"synapse_decay": decay, "synapse_gain": (1 - decay) * _number(node, "w_in")}
    if rule.synapse != "exact":
        return {
            "synapse_decay": decay,
            "synapse_gain": decay if rule.synapse == "add first" else np.ones(()),
        }
    area = spike_area(dialect, node)
    w_in = _number(node, "w_in")
    if area.kind == "jump":
        return {"synapse_decay": decay, "bias_ratio": w_in * (1 - decay)}
    if area.kind == "scaled jump":
        return {"synapse_decay": decay, "synapse_gain": w_in, "bias_ratio": 1 - decay}
    jump = w_in * _known_area(dialect, area.seconds) / _number(node, "tau_syn")
    return {"synapse_decay": decay, "synapse_gain": jump, "bias_ratio": w_in * (1 - decay) / jump}


def _reset(
    conventions: Conventions, rule: Rule, reset: str | None, delay: bool | None, looped: bool
) -> Reset:
    """The kind of reset, with the order of events put into it."""
    first = _resets_first(rule, looped)
    if reset == "zero":
        # Reset at the start of the next step, before anything else, is reset at once.
        return "value" if not delay or reset in first else "skip"
    if delay:
        return "subtract" if reset in first else "subtract later"
    return "subtract unless above" if conventions.resets_at_start else "subtract"


def _resets_first(rule: Rule, looped: bool) -> tuple[str, ...]:
    """The kinds of reset that act before a membrane decays, where they act one step late."""
    if looped and rule.recurrent_resets_first is not None:
        return rule.recurrent_resets_first
    return rule.resets_first


def _reset_from_above(
    step: Step, conventions: Conventions, rule: Rule, delay: bool | None, looped: bool
) -> Step:
    """The step of a population of which some membranes start or reset above v_threshold, where these
    are reset when a step begins.
    """
    if step.reset == "none" or not (conventions.resets_at_start or delay):
        return step
    levels = [step.v_start] + ([step.v_reset] if step.reset in ("value", "skip") else [])
    above = [
        bool(np.any(level >= step.v_threshold if step.at_equality else level > step.v_threshold))
        for level in levels
    ]
    if step.reset == "value" and not delay and any(above):
        is_first = "zero" in _resets_first(rule, looped)
        return dataclasses.replace(step, reset="difference" if is_first else "difference later")
    if step.reset == "subtract unless above":
        return step
    return dataclasses.replace(step, starts_with_reset=above[0])


def _by_reset_size(step: Step, size: str) -> Step:
    """The step with a reset that takes 1 off, whatever v_threshold is, as one that takes v_threshold.

    Raises:
        ConversionError: It is neither that of this step nor of the next.
    """
    if step.reset != "subtract" or size == "v_threshold":
        return step
    if size == "1" and np.allclose(step.v_threshold, 1, rtol=_ROUNDING, atol=0):
        return step
    if size == "1" and np.allclose(step.v_threshold, step.decay, rtol=_ROUNDING, atol=0):
        # After decaying, that 1 is v_threshold.
        return dataclasses.replace(step, reset="subtract later")
    raise ConversionError(
        f"node '{step.name}' subtracts {size} after a spike, and its v_threshold is "
        f"{step.v_threshold.flat[0]:g}",
        fix="convert the file that it was made of",
        node=step.name,
        code=ALREADY_CONVERTED,
    )


def refuse_firing_at_rest(step: Step) -> None:
    """Refuse membranes that start or reset at v_threshold or above it: importers differ in what these
    do.

    Raises:
        ConversionError: Names the neuron and the two numbers.
    """
    for level, what, fix in (
        (step.v_reset, "resets to", "lower v_reset or raise v_threshold"),
        (step.v_start, "starts at", "raise v_threshold"),
    ):
        high = level >= step.v_threshold
        if high.any():
            place = int(np.argmax(high))
            raise ConversionError(
                f"node '{step.name}': neuron {place} {what} {level.flat[place]:g}, "
                f"not below its v_threshold {step.v_threshold.flat[place]:g}, "
                "so it fires without input",
                fix=fix,
                node=step.name,
            )


def _refuse_odd_decays(step: Step) -> None:
    for decay, what in ((step.decay, "decays"), (step.synapse_decay, "has a current that decays")):
        outside = (decay < 0) | (decay > 1)
        if outside.any():
            place = int(np.argmax(outside))
            raise ConversionError(
                f"node '{step.name}': neuron {place} {what} by {decay.flat[place]:g} in a step, "
                "outside 0 to 1, because its time constant is shorter than dt",
                fix="use a smaller dt, or a longer time constant",
                node=step.name,
            )


#: By so much single precision moves a decay of 0 or 1 out of that range.
_ROUNDED = 2.0**-20


def _within(decay: np.ndarray) -> np.ndarray:
    """Decays of a step, of which those that rounding put just outside of 0 to 1 are 0 or 1."""
    near = (decay >= -_ROUNDED) & (decay <= 1 + _ROUNDED)
    return np.where(near, np.clip(decay, 0.0, 1.0), decay)
