"""The static record of a population: what the dialect says of a NIR neuron, and what it leaves
open.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxsnn.errors import DialectError, LoweringError, Problem
from jaxsnn.network.structure import Population, TiedGain
from jaxsnn.nir.dialects.gains import (
    assumptions,
    floor_of,
    own_reset_delay,
    require,
    reset_size,
    resetting_readout,
    rule_of,
    several_spikes,
    spike_area,
)
from jaxsnn.nir.frameworks.evidence import ties
from jaxsnn.nir.frameworks.registry import frameworks
from jaxsnn.nir.model.dialect import Dialect, Rule
from jaxsnn.nir.model.node import Node
from jaxsnn.options import ENGINE, RESET_DELAY
from jaxsnn.wording import Text

_PURPOSE = "simulation"


@dataclass(frozen=True, kw_only=True)
class _Said:
    """What the dialect says of a neuron. What it leaves open is noted among the obstacles.

    Attributes:
        obstacles: field or parameter -> the problem of an engine that needs it.
    """

    node: Node
    dialect: Dialect
    obstacles: dict[str, Problem]

    def known(self, field: str, get: Callable[[], Any], default: Any) -> Any:
        """What a function of the dialect gives, or the default where the dialect does not say."""
        try:
            return get()
        except DialectError as error:
            self.obstacles[field] = replace(error.problem, node=self.node.name)
            return default

    def option(self, field: str, default: Any) -> Any:
        """An option that is said of the file or of the node, or the default."""

        def get() -> Any:
            require(self.dialect, [field], _PURPOSE, self.node.name)
            return self.dialect.option(field, self.node.name)

        return self.known(field, get, default)


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
    view, rule = dialect.at(node.name), rule_of(dialect, node)
    framework = _by_framework(node, dialect, size)
    fires = not framework.readout
    said = _Said(
        node=node, dialect=dialect, obstacles=_obstacles(node, size, told_reset=view.reset)
    )
    said.option("seconds", None)
    if rule.option:
        said.known("own_option", lambda: require(dialect, [rule.option], _PURPOSE, node.name), None)
    _refuse_continuous(node, dialect, rule, said.obstacles, size)
    # The order in which things are asked for is that in which an engine names what it lacks.
    resets = fires or framework.resetting
    reset = said.option("reset", "zero") if resets else "none"
    area = said.known("spike_area", lambda: spike_area(dialect, node), None)
    kernel = said.option("spike_kernel", "delta")
    dt = None if framework.counts_steps else said.option("dt", None)
    initial = said.option("initial", "zero")
    membrane = _membrane(node, rule, said.obstacles, size)
    own_delay = own_reset_delay(dialect, node, looped=looped) if resets else None
    reset_delay = False
    if own_delay is not None:
        reset_delay = own_delay
    elif resets:
        reset_delay = said.option("reset_delay", False)
    remarks = _remarks(node, dialect, rule, reset_delay) if looped and resets else ()
    return replace(
        framework,
        spike_area=None if area is None else area.seconds,
        scales_jumps=area is not None and area.kind == "scaled jump",
        spike_kernel=kernel,
        dt=dt,
        initial=initial,
        reset=reset,
        membrane=membrane,
        reset_delay=reset_delay,
        resets_first=reset in _resets_first(rule, looped),
        obstacles=tuple(said.obstacles.items()),
        remarks=remarks,
    )


def _refuse_continuous(
    node: Node, dialect: Dialect, rule: Rule, obstacles: dict[str, Problem], size: int
) -> None:
    """Note what only time steps can do, where an engine of continuous time asks for the strength of
    a spike.
    """
    fix = Text("simulate with {engine}", engine=ENGINE.set_to("grid"))
    if rule.synapse == "filter" and (leak := per_channel(node, "v_leak", size)).any():
        what = f"its current starts and rests at v_leak = {leak[leak != 0][0]:g}"
        obstacles["spike_area"] = _bad(node, f"{what}, which has no meaning in the equations", fix)
    size_of_reset = reset_size(dialect, node)
    if size_of_reset != "v_threshold" and dialect.at(node.name).reset == "subtract":
        what = f"its reset takes off {size_of_reset}, whatever its v_threshold is"
        obstacles["spike_area"] = _bad(node, f"{what}, which has no meaning in the equations", fix)


def _by_framework(node: Node, dialect: Dialect, size: int) -> Population:
    """What holds for all files of the framework."""
    conventions, rule = dialect.conventions, rule_of(dialect, node)
    assert conventions is not None
    return Population(
        name=node.name,
        kind=node.type,
        size=size,
        readout=not node.traits.fires or dialect.at(node.name).readout,
        resetting=resetting_readout(dialect, node),
        bias=conventions.constant_input,
        resistance=rule.resistance,
        synapse=rule.synapse,
        reset_size=reset_size(dialect, node),
        membrane_decay=rule.membrane_decay,
        synapse_decay=rule.synapse_decay,
        threshold=conventions.threshold,
        spikes_per_step="several" if several_spikes(dialect, node) else "one",
        floor=floor_of(dialect, node),
        assumed=assumptions(dialect, node),
        spikes_from=conventions.spikes_from,
        resets_at_start=conventions.resets_at_start,
        detaches_resets=conventions.detaches_resets,
        recurrent_delay=conventions.recurrent_delay,
        # Where time is counted in steps, time-stepped simulation needs no dt. In continuous time
        # "seconds" stands in the way.
        counts_steps=dialect.time_unit == "step" and dialect.dt is None,
        surrogate=frameworks()[dialect.name or ""].surrogate,
        ties=tuple(_ties(node, dialect)),
        leaks_to_zero=rule.leaks_to_zero,
    )


def _ties(node: Node, dialect: Dialect) -> Iterator[TiedGain]:
    """The gains of a neuron that its framework ties to its time constants."""
    assert dialect.conventions is not None
    evidence = dialect.conventions.evidence
    if evidence.dt_from is None or evidence.dt_from.gain is None:
        return
    for pair in ties({node.name: node}, evidence):
        finite = np.isfinite(pair.tau) & np.isfinite(pair.gain)
        if not finite.any():
            continue
        (tau, gain), unit = pair.names, dialect.seconds or 1.0
        dt = float(np.median(evidence.dt_from.of(pair.tau[finite], pair.gain[finite]))) * unit
        if tau in node.names and dt > 0:
            yield TiedGain(tau=tau, gain=gain, step=evidence.dt_from, dt=dt)


def _resets_first(rule: Rule, looped: bool) -> Collection[str]:
    """The kinds of reset that act before a step's decay and input, where they act a step late."""
    if looped and rule.recurrent_resets_first is not None:
        return rule.recurrent_resets_first
    return rule.resets_first


def _remarks(node: Node, dialect: Dialect, rule: Rule, reset_delay: bool) -> tuple[str, ...]:
    """Where a neuron that feeds itself resets otherwise than was said of all, or than its framework
    does.
    """
    own, said = rule.recurrent_reset_delay, dialect.at(node.name).reset_delay
    if own is None or said in (None, own):
        return ()
    where = f"node '{node.name}' ({node.type})"
    if reset_delay == said:
        return (
            f"{where}: reset_delay is {said}, as was said of this node; {dialect.name} itself acts"
            f" as with {own} in recurrent neurons of this type",
        )
    return (
        Text(
            "{subject}: {title} is {value}, not {expected}, as {dialect} has no other way for recurrent "
            "neurons of this type; for the other rule say {setting}",
            subject=where,
            title=RESET_DELAY.name,
            value=own,
            expected=said,
            dialect=dialect.name,
            setting=RESET_DELAY.set_to(said, node=node.name),
        ),
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
            f"r is 1 at {int(decayed.sum())} of {size} neurons, whose input decays, and {other:g}"
            " at others, whose input does not",
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
            f"node '{node.name}' ({node.type}): {name} has {value.size} entries for {size}"
            " channels",
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
            instead = ", or write an IF, which has none" if node.type == "LIF" else ""
            found[field] = _bad(
                node,
                f"{name} of neuron {neuron} is infinite: nothing decays (in a framework of steps"
                " alpha or beta is 1), which this neuron cannot do in continuous time",
                Text(
                    "give a finite time constant{instead}, or simulate with {engine}",
                    instead=instead,
                    engine=ENGINE.set_to("grid"),
                ),
            )
    if {"v_threshold", "v_reset"} <= set(node.names):
        v_threshold = per_channel(node, "v_threshold", size)
        v_reset = np.zeros(size) if told_reset == "subtract" else per_channel(node, "v_reset", size)
        if (bad := v_reset >= v_threshold).any():
            neuron = int(bad.argmax())
            found["v_reset"] = _bad(
                node,
                f"neuron {neuron} resets to {v_reset[neuron]:g}, not below its v_threshold"
                f" {v_threshold[neuron]:g}, which the event engine does not run: without a refractory"
                " time it may fire without end at one time",
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
