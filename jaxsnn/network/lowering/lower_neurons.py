"""The static record of a population: what the dialect says of a NIR neuron, and what it leaves
open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxsnn.errors import DialectError, LoweringError
from jaxsnn.network.structure import Population
from jaxsnn.nir.dialects import DIALECTS, Dialect, NodeDialect, Rule
from jaxsnn.nir.gains import require, rule_of, spike_area
from jaxsnn.nir.graph import LI, CubaLI, I, Node

_PURPOSE = "simulation"


def population_of(node: Node, dialect: Dialect, size: int, *, looped: bool) -> Population:
    """The population of a NIR neuron.

    Args:
        node: The neuron.
        dialect: Decided.
        size: Number of neurons.
        looped: The neuron feeds itself, directly or through other nodes.

    Raises:
        DialectError: The dialect never writes such a node.
    """
    view = dialect.at(node.name)
    readout = isinstance(node, CubaLI | LI | I) or view.readout
    conventions, rule = DIALECTS[dialect.name or ""], rule_of(dialect, node)
    obstacles = _obstacles(node, size, told_reset=view.reset)
    # Counted in steps, time needs no dt on the grid. In continuous time "seconds" stands in the
    # way.
    counts_steps = dialect.time_unit == "step" and dialect.dt is None

    def known(field: str, get: Callable[[], Any], default: Any) -> Any:
        try:
            return get()
        except DialectError as error:
            obstacles[field] = str(error)
            return default

    def told(field: str, default: Any) -> Any:
        def get() -> Any:
            require(dialect, [field], _PURPOSE, node.name)
            return getattr(view if hasattr(view, field) else dialect, field)

        return known(field, get, default)

    told("seconds", None)
    if rule.arrival == "norm_input":
        told("norm_input", True)
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
            f"node '{node.name}' ({node.type}): reset_delay is {own_delay}, whatever was said: {dialect.name} plays "
            "neurons of this type that feed themselves no other way",
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
        membrane=_membrane(node, rule, view, obstacles, size),
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
        resets_first=reset in first,
        recurrent_delay=conventions.recurrent_delay,
        counts_steps=counts_steps,
        obstacles=tuple(obstacles.items()),
        remarks=remarks,
    )


def _membrane(
    node: Node, rule: Rule, view: NodeDialect, obstacles: dict[str, str], size: int
) -> Any:
    """`Population.membrane`: the dialect's rule, where options or numbers of the node do not change
    it.
    """
    if rule.membrane == "average" and view.norm_input is False:
        return "leak"
    if rule.membrane != "relax":
        return rule.membrane
    decayed = per_channel(node, "r", size) == 1
    if decayed.any() and not decayed.all():
        obstacles["r"] = (
            f"node '{node.name}' ({node.type}): r is 1 at {int(decayed.sum())} of {size} neurons, whose input decays, "
            f"and {per_channel(node, 'r', size)[~decayed][0]:g} at others, whose input does not: split it in two"
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
            f"node '{node.name}' ({node.type}): {name} has {value.size} entries for {size} channels: give one or {size}"
        )
    return np.broadcast_to(value.reshape(-1), size)


def _obstacles(node: Node, size: int, *, told_reset: str | None) -> dict[str, str]:
    """Numbers that make no sense in continuous time."""
    found = {}
    for name in ("tau", "tau_mem", "tau_syn"):
        if name in node.names and not (finite := np.isfinite(per_channel(node, name, size))).all():
            neuron = int((~finite).argmax())
            found[name] = (
                f"node '{node.name}' ({node.type}): {name} of neuron {neuron} is infinite: continuous time needs a "
                "finite time constant"
            )
    if "v_threshold" in node.names:
        v_threshold = per_channel(node, "v_threshold", size)
        v_reset = np.zeros(size) if told_reset == "subtract" else per_channel(node, "v_reset", size)
        if (bad := v_reset >= v_threshold).any():
            neuron = int(bad.argmax())
            found["v_reset"] = (
                f"node '{node.name}' ({node.type}): neuron {neuron} resets to {v_reset[neuron]:g}, not below its "
                f"v_threshold {v_threshold[neuron]:g}: it would fire for ever at once"
            )
    return found
