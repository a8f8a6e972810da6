"""The static record of a population: what the dialect says of a NIR neuron, and what it leaves
open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from jaxsnn.errors import DialectError, LoweringError, Problem
from jaxsnn.network.structure import Population
from jaxsnn.nir.dialects import Dialect
from jaxsnn.nir.frameworks.framework import Rule
from jaxsnn.nir.gains import require, rule_of, spike_area
from jaxsnn.nir.nodes import Node

_PURPOSE = "simulation"


def population_of(node: Node, dialect: Dialect, size: int, *, looped: bool) -> Population:
    """The population of a NIR neuron.

    Args:
        node: the neuron.
        dialect: decided.
        size: number of neurons.
        looped: the neuron feeds itself, directly or through other nodes.

    Raises:
        DialectError: the dialect never writes such a node.
        LoweringError: a parameter that has neither one entry nor one for each neuron.
    """
    view = dialect.at(node.name)
    readout = not node.traits.fires or view.readout
    conventions, rule = dialect.conventions, rule_of(dialect, node)
    assert conventions is not None
    obstacles = _obstacles(node, size, told_reset=view.reset)
    # Where time is counted in steps, time-stepped simulation needs no dt. In continuous time
    # "seconds" stands in the way.
    counts_steps = dialect.time_unit == "step" and dialect.dt is None

    def known(field: str, get: Callable[[], Any], default: Any) -> Any:
        try:
            return get()
        except DialectError as error:
            obstacles[field] = replace(error.problem, node=node.name)
            return default

    def told(field: str, default: Any) -> Any:
        def get() -> Any:
            require(dialect, [field], _PURPOSE, node.name)
            return dialect.option(field, node.name)

        return known(field, get, default)

    told("seconds", None)
    if rule.option:
        known("own_option", lambda: require(dialect, [rule.option], _PURPOSE, node.name), None)
    reset = "none" if readout else told("reset", "zero")
    first = (
        rule.recurrent_resets_first
        if looped and rule.recurrent_resets_first is not None
        else rule.resets_first
    )
    own_delay = rule.recurrent_reset_delay if looped and not readout else None
    remarks = ()
    if own_delay is not None and view.reset_delay not in (None, own_delay):
        remarks = (
            f"node '{node.name}' ({node.type}): reset_delay is {own_delay}, not {view.reset_delay}, as {dialect.name} "
            "has no other way for recurrent neurons of this type",
        )
    return Population(
        name=node.name,
        kind=node.type,
        size=size,
        readout=readout,
        spike_area=known("spike_area", lambda: spike_area(dialect, node).seconds, None),
        spike_kernel=told("spike_kernel", "delta"),
        dt=None if counts_steps else told("dt", None),
        bias=conventions.constant_input,
        resistance=rule.resistance,
        initial=told("initial", "zero"),
        reset=reset,
        membrane=_membrane(node, rule, obstacles, size),
        synapse=rule.synapse,
        membrane_decay=rule.membrane_decay,
        synapse_decay=rule.synapse_decay,
        threshold=conventions.threshold,
        spikes_per_step=conventions.spikes_per_step,
        spikes_from=conventions.spikes_from,
        reset_delay=False
        if readout
        else told("reset_delay", False)
        if own_delay is None
        else own_delay,
        resets_at_start=conventions.resets_at_start,
        detaches_resets=conventions.detaches_resets,
        resets_first=reset in first,
        recurrent_delay=conventions.recurrent_delay,
        counts_steps=counts_steps,
        obstacles=tuple(obstacles.items()),
        remarks=remarks,
    )


def _membrane(node: Node, rule: Rule, obstacles: dict[str, Problem], size: int) -> Any:
    """`Population.membrane`: the dialect's rule, where numbers of the node do not change it."""
    if rule.membrane != "relax":
        return rule.membrane
    decayed = per_channel(node, "r", size) == 1
    if decayed.any() and not decayed.all():
        other = per_channel(node, "r", size)[~decayed][0]
        obstacles["r"] = _bad(
            node,
            f"r is 1 at {int(decayed.sum())} of {size} neurons, whose input decays, and {other:g} at others, whose "
            "input does not",
            "split it into two nodes",
        )
    return "relax" if decayed.all() else "relax, add"


def per_channel(node: Node, name: str, size: int) -> np.ndarray:
    """A parameter as (size,) array; a scalar holds for all.

    Raises:
        LoweringError: it has neither one entry nor `size`.
    """
    value = node.numbers(name)
    if value.size not in (1, size):
        raise LoweringError(
            f"node '{node.name}' ({node.type}): {name} has {value.size} entries for {size} channels",
            fix=f"give one entry, or {size}",
            node=node.name,
        )
    return np.broadcast_to(value.reshape(-1), size)


def _obstacles(node: Node, size: int, *, told_reset: str | None) -> dict[str, Problem]:
    """Numbers that make no sense in continuous time, by parameter."""
    found = {}
    for name in sorted(node.traits.time_constants):
        if not (finite := np.isfinite(per_channel(node, name, size))).all():
            neuron = int((~finite).argmax())
            # Engines ask for those of NIR by name, and for "tau" in any case.
            field = name if name in ("tau_mem", "tau_syn") else "tau"
            found[field] = _bad(
                node,
                f"{name} of neuron {neuron} is infinite",
                "give a finite time constant, which continuous time needs",
            )
    if {"v_threshold", "v_reset"} <= set(node.names):
        v_threshold = per_channel(node, "v_threshold", size)
        v_reset = np.zeros(size) if told_reset == "subtract" else per_channel(node, "v_reset", size)
        if (bad := v_reset >= v_threshold).any():
            neuron = int(bad.argmax())
            found["v_reset"] = _bad(
                node,
                f"neuron {neuron} resets to {v_reset[neuron]:g}, not below its v_threshold {v_threshold[neuron]:g}, "
                "and would fire without end at one time",
                "lower v_reset or raise v_threshold",
            )
    return found


def _bad(node: Node, what: str, fix: str) -> Problem:
    """A number that an engine cannot use."""
    return Problem(
        node=node.name,
        code="bad-parameter",
        message=f"node '{node.name}' ({node.type}): {what}",
        fix=fix,
    )
