"""Learnt decays outside of 0 to 1, which some frameworks clamp when they run and export as they are.

A decay above 1 makes a negative time constant in the file, one below 0 a time constant shorter than
the step. `Conventions.meanings` of these frameworks read the nodes as they run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from jaxsnn.errors import listing
from jaxsnn.nir.model.changes import Change
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.node import Node

#: Distance of a decay from the range of 0 to 1 that is ascribed to the rounding of a file.
_ROUNDING = 1e-6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Learnt:
    """One learnt decay of a node, neuron by neuron, and the parameters that it is written into.

    Attributes:
        symbol: Name of the decay in the framework.
        decay: Learnt value, one per neuron.
        tau: Name of the time constant; `step` is the length of a time step according to its values.
        gain: Name of the parameter that also contains the decay, "" for none; `gains` are its
            values for decays that are clamped to 0 and to 1.
    """

    symbol: str
    decay: np.ndarray
    tau: str
    step: np.ndarray
    gain: str = ""
    gains: tuple[float, float] = (0.0, 1.0)


def clamping(
    title: str, learnt: Callable[[Node, Graph], Iterator[Learnt]]
) -> Callable[[Graph], Iterator[tuple[Node, Change]]]:
    """Return a function for `Conventions.meanings` that clamps learnt decays.

    Args:
        title: Title of the framework, for messages.
        learnt: Yields the decays of a node.
    """

    def meaning(graph: Graph) -> Iterator[tuple[Node, Change]]:
        for node in graph.nodes.values():
            clamp_notes: list[str] = []
            changes: dict[str, np.ndarray] = {}
            for learnt_decay in learnt(node, graph):
                changes |= _clamped(node, learnt_decay, clamp_notes)
            if clamp_notes:
                why = f"{title} clamps learnt decays to the range 0 to 1 in simulation, but not in export"
                change = Change(node=node.name, what=listing(clamp_notes), why=why)
                yield node.read_as(**changes), change

    return meaning


def _clamped(node: Node, learnt_decay: Learnt, clamp_notes: list[str]) -> dict[str, np.ndarray]:
    """Return the parameters with the decay clamped, and add a sentence to `clamp_notes` for each
    clamp.
    """
    with np.errstate(invalid="ignore"):
        below, above = learnt_decay.decay < -_ROUNDING, learnt_decay.decay > 1 + _ROUNDING
    if not np.any(below | above):
        return {}
    written = np.asarray(node.value(learnt_decay.tau))
    tau = np.broadcast_to(written, learnt_decay.decay.shape)
    for bad, end, side in ((below, 0, "below"), (above, 1, "above")):
        if np.any(bad):
            place = int(np.flatnonzero(bad)[0])
            clamp_notes.append(
                f"neurons whose {learnt_decay.symbol} is {side} {end} and is read as {end}: "
                f"{int(bad.sum())} of {bad.size} (neuron {place}: {learnt_decay.decay.flat[place]:g}, "
                f"{learnt_decay.tau} = {tau.flat[place]:g})"
            )
    meant = np.where(below, learnt_decay.step, np.where(above, np.inf, tau))
    changes = {learnt_decay.tau: _like(meant, written)}
    if learnt_decay.gain:
        gain = np.asarray(node.value(learnt_decay.gain))
        low, high = learnt_decay.gains
        changes[learnt_decay.gain] = _like(np.where(below, low, np.where(above, high, gain)), gain)
    return changes


def _like(value: np.ndarray, written: np.ndarray) -> np.ndarray:
    """Return numbers in the dtype of the file, if that can represent infinity."""
    return value.astype(written.dtype) if written.dtype.kind == "f" else value
