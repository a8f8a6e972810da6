"""Coefficients of the neurons of a population, from their rule: of a time step (`Step`), or of the
equations (`Flow`).

The records are in `jaxsnn.nir.frameworks`: `Step` in `source_step`, `Flow` in `source_flow`, and the rule
in `source_rule`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.frameworks.source_flow import Flow, GiveUp
from jaxsnn.nir.frameworks.source_rule import NeuronRule, SpikeArea
from jaxsnn.nir.frameworks.source_step import Reset, Step
from jaxsnn.nir.model.decays import EULER_MEMBRANE, EXACT_SYNAPSE, Decay
from jaxsnn.nir.model.node import Node
from jaxsnn.nir.model.nodes import CURRENT_BASED, IF, NEURONS, SPIKING
from jaxsnn.wording import Text

#: Code of the problem that a conversion for Norse has scaled the graph to a reset of Norse; Norse
#: runs such a graph as it is.
ALREADY_CONVERTED = "already-converted"

#: Relative tolerance of membrane levels that a file contains in float32, and of decays outside of
#: the range from 0 to 1.
_ROUNDING = 2.0**-20


def step_of(
    rule: NeuronRule,
    shape: tuple[int, ...],
    *,
    readouts: bool = False,
    resetting: bool = False,
) -> Step:
    """Return one time step of a population in the source framework.

    Args:
        rule: Rule of its neurons.
        shape: Shape of the population.
        readouts: Whether to accept neurons that do not spike, as reset "none" with an infinite
            threshold.
        resetting: Whether to accept neurons that output their membrane potential although they
            reset, as spiking neurons.

    Raises:
        ConversionError: The population does not spike, so that no target supports it.
        DialectError: The dialect lacks information; the fix names the option.
    """
    rule.require("type")
    node = rule.node
    if not resetting:
        rule.require("resetting", error=ConversionError)
    rule.require("no_reset", error=ConversionError)
    _refuse_foreign(node, silent=not rule.resets and not readouts)
    rule.require(*(["reset", "initial", "reset_delay"] if rule.resets else ["initial"]))
    numbers = _membrane(rule) | _levels(rule)
    if isinstance(node, CURRENT_BASED):
        numbers |= _synapse(rule)
    numbers |= {key: _within(numbers[key]) for key in ("decay", "synapse_decay") if key in numbers}
    step = Step(
        name=node.name,
        type=node.type,
        shape=shape,
        current_based=isinstance(node, CURRENT_BASED),
        reset=_reset(rule),
        at_equality=rule.threshold == ">=",
        several=rule.spikes_per_step == "several",
        floor=rule.floor,
        late=rule.spikes_from == "before" and rule.resets,
        **cast(
            Any,
            {
                key: np.broadcast_to(_shaped(value, shape), shape).astype(float)
                for key, value in (_PLAIN | numbers).items()
            },
        ),
    )
    _refuse_odd_decays(step)
    return _by_reset_size(_reset_from_above(step, rule), rule.reset_size)


def flow_of(rule: NeuronRule, shape: tuple[int, ...], give_up: GiveUp) -> Flow:
    """Return the equations of a population.

    Args:
        rule: Rule of its neurons.
        shape: Shape of the population.
        give_up: Called for time-stepped source frameworks and for other kinds of resets.

    Raises:
        ConversionError: The population has no synaptic current.
        DialectError: The dialect lacks information.
    """
    node, name = rule.node, rule.node.name
    if not isinstance(node, CURRENT_BASED):
        raise ConversionError(
            Text(
                "node '{node}' ({type}) has no synaptic current, which all neurons of the importer "
                "have",
                node=name,
                type=node.type,
            ),
            fix="use CubaLIF",
            node=name,
        )
    rule.require("type", "seconds", "initial")
    rule.require("resetting", "no_reset", error=ConversionError)
    if not rule.is_continuous:
        give_up(
            name,
            Text(
                "the dialect {dialect} is time-stepped, and the importer solves the equations",
                dialect=rule.dialect,
            ),
            "the node is written as the equations that the event engine solves",
        )
    if not rule.readout:
        rule.require("reset")
        if rule.reset_delay:
            give_up(
                name,
                "it resets one time step after the spike",
                "it is written with an immediate reset",
            )
    spike = rule.known_spike
    if rule.spike_kernel == "box":
        reason = (
            "a spike is a rectangular pulse in the source framework and a delta in the importer"
        )
        give_up(name, reason, "spikes are written as deltas of the same area")
    assert rule.seconds is not None
    jump = _number(node, "r")
    if spike.kind == "scaled jump":
        jump = jump * _number(node, "w_in")
    elif spike.kind == "fixed":
        assert spike.seconds is not None
        jump = (
            jump * _number(node, "w_in") * spike.seconds / _number(node, "tau_syn") / rule.seconds
        )
    # In continuous time V is v_threshold at a spike, so subtracting v_threshold resets V to 0.
    numbers = _levels(rule) | {"v_leak": _number(node, "v_leak"), "jump": jump}
    numbers |= {key: _number(node, key) * rule.seconds for key in ("tau_mem", "tau_syn")}
    arrays = {
        key: np.broadcast_to(_shaped(value, shape), shape)
        for key, value in (numbers | {"bias_ratio": np.ones(())}).items()
    }
    return Flow(name=name, type=node.type, shape=shape, spikes=rule.resets, **arrays)


#: Defaults of a step: no leak potential, no current, at most one spike.
_PLAIN: dict[str, np.ndarray] = {
    "drive": np.zeros(()),
    "synapse_decay": np.zeros(()),
    "synapse_gain": np.ones(()),
    "bias_ratio": np.ones(()),
    "i_start": np.zeros(()),
    "level": np.ones(()),
}


def refuse_firing_at_rest(rule: NeuronRule) -> None:
    """Reject membrane potentials that start or reset at v_threshold or above it: importers treat
    these differently.

    Raises:
        ConversionError: Such a neuron; the message contains it and the two values.
    """
    if rule.resets:
        rule.require("v_reset", "v_start", error=ConversionError)


def _refuse_foreign(node: Node, *, silent: bool) -> None:
    """Reject a neuron that no importer has; `silent`: a neuron that would output its membrane
    potential."""
    if not isinstance(node, NEURONS):
        raise ConversionError(
            Text(
                "node '{node}' ({type}) is not a neuron type of NIR, and no importer supports it",
                node=node.name,
                type=node.type,
            ),
            fix="replace it by a neuron type of NIR",
            node=node.name,
        )
    if silent:
        kind = node.type if not isinstance(node, SPIKING) else "leaky readout, reset none"
        raise ConversionError(
            Text(
                "node '{node}' ({type}) outputs its membrane potential, and the importer has no such "
                "neuron",
                node=node.name,
                type=kind,
            ),
            fix="replace it by a spiking neuron",
            node=node.name,
        )


def _number(node: Node, parameter: str) -> np.ndarray:
    """Return a parameter in double precision; 0 for a level that the neuron does not have."""
    if parameter not in node.names and parameter in ("v_leak", "v_reset"):
        return np.zeros(())
    return np.asarray(node.value(parameter), float)


def _shaped(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return value.reshape(()) if value.size == 1 else value.reshape(shape)


def _dt(rule: NeuronRule) -> float:
    """Return the length of a step in the file's unit of time.

    Raises:
        DialectError: It is unknown.
    """
    if rule.unit_dt is None:
        rule.require("dt", "seconds")
    assert rule.unit_dt is not None
    return rule.unit_dt


def _factor(decay: Decay, rule: NeuronRule) -> np.ndarray:
    """Return the factor of one time step; dt is required only if the decay depends on it."""
    node = rule.node
    parameters = {name: _number(node, name) for name in node.names if node.value(name) is not None}
    return np.asarray(decay.factor(parameters, _dt(rule) if decay.needs_dt else None, np))


def _levels(rule: NeuronRule) -> dict[str, np.ndarray]:
    """Return v_threshold, v_reset and v_start."""
    node, zero = rule.node, np.zeros(())
    resets_to_value = rule.resets and rule.reset == "zero"
    return {
        "v_threshold": _number(node, "v_threshold") if rule.resets else np.array(np.inf),
        "v_reset": _number(node, "v_reset") if resets_to_value else zero,
        "v_start": zero if rule.initial in (None, "zero") else _number(node, rule.initial),
    }


def _membrane(rule: NeuronRule) -> dict[str, Any]:
    """Return decay, gain and drive of the membrane; see `Population.membrane`."""
    rule.require("own_option")
    rule.require("r", error=ConversionError)
    node, form = rule.node, rule.membrane
    if form == "relax":
        decay = _factor(EULER_MEMBRANE, rule)
        return {
            "decay": decay,
            "gain": 1 - decay,
            "drive": (1 - decay) * _number(node, "v_reset"),
        }
    if form == "relax, add":
        r = _number(node, "r")
        return {"decay": 1 - 1 / r, "gain": np.ones(()), "drive": _number(node, "v_reset") / r}
    decay = _factor(rule.membrane_decay, rule)
    if form == "leak":
        return {"decay": decay, "gain": np.ones(())}
    if form == "average":
        return {"decay": decay, "gain": 1 - decay}
    if form == "euler":
        leak = _number(node, "v_leak")
        if rule.synapse == "filter":
            # The current is measured from v_leak, where it starts and rests.
            r = _number(node, "r")
            return {"decay": decay, "gain": (1 - decay) * r, "drive": (1 - decay) * (1 + r) * leak}
        return {"decay": decay, "gain": 1 - decay, "drive": (1 - decay) * leak}
    return _continuous(rule, decay)


def _continuous(rule: NeuronRule, decay: np.ndarray) -> dict[str, Any]:
    """Return the coefficients of `_membrane` for the ODE over one step, at whose start spikes arrive;
    synaptic currents decay during the step.
    """
    node, r = rule.node, _number(rule.node, "r")
    drive = (1 - decay) * _number(node, "v_leak")
    spike = rule.known_spike
    if isinstance(node, CURRENT_BASED):
        dt, tau, tau_syn = _dt(rule), _number(node, "tau_mem"), _number(node, "tau_syn")
        synapse = np.exp(-dt / tau_syn)
        near = np.abs(tau - tau_syn) < 1 / 2**20 * tau
        apart = np.where(near, tau, tau - tau_syn)
        # Membrane potential at the end of a step per unit of current at its beginning.
        response = np.where(near, dt / tau * decay, tau_syn / apart * (decay - synapse))
        # In `Step`, `synapse_decay` acts before the input arrives, and the current at the beginning
        # of the step drives V.
        return {"decay": decay, "gain": r * response, "drive": drive}
    level = r * _dt(rule) if isinstance(node, IF) else r * (1 - decay)
    if spike.kind == "jump":
        return {"decay": decay, "gain": np.ones(()), "drive": drive, "bias_ratio": level}
    if spike.kind == "scaled jump":  # level = r (1 - decay)
        return {"decay": decay, "gain": r, "drive": drive, "bias_ratio": 1 - decay}
    strength = _area(rule, spike) / _dt(rule)
    return {
        "decay": decay,
        "gain": level * strength,
        "drive": drive,
        "bias_ratio": np.array(1 / strength),
    }


def _area(rule: NeuronRule, spike: SpikeArea) -> float:
    """Return the area of a spike in the file's unit of time."""
    rule.require("seconds")
    assert spike.seconds is not None
    assert rule.seconds is not None
    return spike.seconds / rule.seconds


def _synapse(rule: NeuronRule) -> dict[str, Any]:
    """Return synapse_decay and synapse_gain; see `Population.synapse`."""
    node = rule.node
    decay = _factor(rule.synapse_decay or EXACT_SYNAPSE, rule)
    if rule.synapse == "filter":
        return {"synapse_decay": decay, "synapse_gain": (1 - decay) * _number(node, "w_in")}
    if rule.synapse != "exact":
        return {
            "synapse_decay": decay,
            "synapse_gain": decay if rule.synapse == "add first" else np.ones(()),
        }
    spike, w_in = rule.known_spike, _number(node, "w_in")
    if spike.kind == "jump":
        return {"synapse_decay": decay, "bias_ratio": w_in * (1 - decay)}
    if spike.kind == "scaled jump":
        return {"synapse_decay": decay, "synapse_gain": w_in, "bias_ratio": 1 - decay}
    jump = w_in * _area(rule, spike) / _number(node, "tau_syn")
    return {"synapse_decay": decay, "synapse_gain": jump, "bias_ratio": w_in * (1 - decay) / jump}


def _reset(rule: NeuronRule) -> Reset:
    """Return the kind of reset, which includes the order of events."""
    if not rule.resets:
        return "none"
    if rule.reset == "zero":
        # A reset at the start of the next step, before anything else, is an immediate reset.
        return "value" if not rule.reset_delay or rule.resets_first else "skip"
    if rule.reset_delay:
        return "subtract" if rule.resets_first else "subtract later"
    return "subtract unless above" if rule.resets_at_start else "subtract"


def _reset_from_above(step: Step, rule: NeuronRule) -> Step:
    """Return the step of a population in which some membrane potentials start or reset above
    v_threshold and are reset at the beginning of a time step.
    """
    if step.reset == "none" or not (rule.resets_at_start or rule.reset_delay):
        return step
    levels = [step.v_start] + ([step.v_reset] if step.reset in ("value", "skip") else [])
    above = [
        bool(np.any(level >= step.v_threshold if step.at_equality else level > step.v_threshold))
        for level in levels
    ]
    if step.reset == "value" and not rule.reset_delay and any(above):
        reset = "difference" if rule.resets_first else "difference later"
        return dataclasses.replace(step, reset=reset)
    if step.reset == "subtract unless above":
        return step
    return dataclasses.replace(step, starts_with_reset=above[0])


def _by_reset_size(step: Step, size: str) -> Step:
    """Return the step with a reset that subtracts 1 as one that subtracts v_threshold.

    Raises:
        ConversionError: The two resets differ.
    """
    if step.reset != "subtract" or size == "v_threshold":
        return step
    if size == "1" and np.allclose(step.v_threshold, 1, rtol=_ROUNDING, atol=0):
        return step
    if size == "1" and np.allclose(step.v_threshold, step.decay, rtol=_ROUNDING, atol=0):
        # Until the next step the subtracted 1 decays to v_threshold.
        return dataclasses.replace(step, reset="subtract later")
    raise ConversionError(
        Text(
            "node '{node}' subtracts {reset} after a spike, but its v_threshold is {v_threshold:g}",
            node=step.name,
            reset=size,
            v_threshold=step.v_threshold.flat[0],
        ),
        fix="convert the original file, not the converted one",
        node=step.name,
        code=ALREADY_CONVERTED,
    )


def _refuse_odd_decays(step: Step) -> None:
    """Refuse decays outside of 0 to 1."""
    for decay, verb in (
        (step.decay, "decays"),
        (step.synapse_decay, "has a synaptic current that decays"),
    ):
        outside = (decay < 0) | (decay > 1)
        if outside.any():
            place = int(np.argmax(outside))
            raise ConversionError(
                Text(
                    "node '{node}': neuron {neuron} "
                    + verb
                    + " by the factor {value:g} per time step, outside 0 to 1, because its time constant "
                    "is shorter than dt",
                    node=step.name,
                    neuron=place,
                    value=decay.flat[place],
                ),
                fix="use a smaller dt, or a longer time constant",
                node=step.name,
            )


def _within(decay: np.ndarray) -> np.ndarray:
    """Return the decays of a time step; those that are outside of 0 to 1 by rounding become 0 or
    1.
    """
    near = (decay >= -_ROUNDING) & (decay <= 1 + _ROUNDING)
    return np.where(near, np.clip(decay, 0.0, 1.0), decay)
