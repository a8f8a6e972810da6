"""Delays of whole steps for importers that have none: weights that pass on what they hold.

    h(t) = [x(t), 0, ...] + shifted h(t-1)

holds what arrived in this step and in those before; weights take of each channel what is as old as
its delay.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.convert.integrators import feed_itself
from jaxsnn.nir.convert.matrices import MOST_WEIGHTS, remove
from jaxsnn.nir.dialects.gains import known
from jaxsnn.nir.model.draft import Draft, loops_of
from jaxsnn.nir.model.graph import Graph

#: Delays may differ from whole steps by the rounding of float32, relative.
_TOLERANCE = 2**-18


def in_steps(graph: Graph, name: str) -> np.ndarray:
    """Delays of a Delay in steps.

    Raises:
        ConversionError: One is no whole number of steps.
        DialectError: How long a step is, or the unit of time, is unknown.
    """
    seconds, dt = (
        known(graph.dialect, field, "a delay in steps", name) for field in ("seconds", "dt")
    )
    delay = np.asarray(graph.nodes[name].value("delay"), float) * seconds
    steps = np.rint(delay / dt)
    wrong = np.abs(steps - delay / dt) > _TOLERANCE * np.maximum(steps, 1)
    if np.any(wrong):
        late = float(delay[wrong].flat[0])
        raise ConversionError(
            f"node '{name}' (Delay) delays by {late:g} s, which is {late / dt:g} steps of {dt:g} s",
            fix="choose a dt that divides it",
            node=name,
        )
    return steps


def delays_as_weights(
    draft: Draft, graph: Graph, names: Mapping[str, str], *, feeds_back: bool
) -> None:
    """Leave out Delays of no steps, and write others as weights that feed themselves.

    Left alone: Delays within a loop, and those of several axes that are not 0.

    Args:
        draft: Edited in place.
        graph: Of the source.
        names: In the draft, by those in the graph.
        feeds_back: The importer takes weights that feed themselves; else only Delays of no steps
            are edited.

    Raises:
        ConversionError: A delay is no whole number of steps, or takes too many weights.
        DialectError: How long a step is, or the unit of time, is unknown.
    """
    looped = {name for part in loops_of(draft) for name in part}
    for old, name in names.items():
        if name not in draft.of_type("Delay") or name in looped:
            continue
        if not np.any(draft.nodes[name]["delay"]):
            remove(draft, name)
            what = "is written as weights of 1" if name in draft.nodes else "is left out"
            draft.changed(name, what, "it delays by 0 steps")
        elif feeds_back and len(draft.shapes[name][1]) == 1:
            _write(draft, name, in_steps(graph, old))


def _write(draft: Draft, name: str, delay: np.ndarray) -> None:
    """Put weights that spread, hold and take in place of a Delay by so many steps."""
    (size,), most = draft.shapes[name][1], delay.max()
    held = size * (most + 1)
    if held > MOST_WEIGHTS**0.5:
        raise ConversionError(
            f"node '{name}' (Delay) delays {size} channels by up to {most:.15g} steps, which takes "
            f"{held:.6g} x {held:.6g} weights, and at most {MOST_WEIGHTS} are written",
            fix="delay by fewer steps",
            node=name,
        )
    late, held = np.resize(delay, size).astype(int), int(held)
    memory, taken = (draft.free(f"{name}_{part}") for part in ("held", "taken"))
    draft.edges = [(taken if start == name else start, end) for start, end in draft.edges]
    draft.edges += [(name, memory), (memory, taken)]
    draft.nodes[name] = {"type": "Linear", "weight": np.eye(held, size, dtype=np.float32)}
    weight = np.zeros((size, held), np.float32)
    weight[np.arange(size), late * size + np.arange(size)] = 1
    draft.nodes[taken] = {"type": "Linear", "weight": weight}
    draft.shapes |= {
        name: ((size,), (held,)),
        memory: ((held,), (held,)),
        taken: ((held,), (size,)),
    }
    feed_itself(draft, memory, np.eye(held, k=-size, dtype=np.float32))
    what = f"a Delay of up to {late.max()} steps is written as weights that pass on what they hold"
    draft.changed(name, what, "importers have no Delay")
