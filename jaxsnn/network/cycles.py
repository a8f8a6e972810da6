"""The cycles of a network, and the order of a step in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxsnn.errors import LoweringError, listing
from jaxsnn.network.structure import Wire
from jaxsnn.wording import Text


@dataclass(frozen=True, kw_only=True)
class Cycle:
    """Nodes of a strongly connected component: several, or one with an edge to itself.

    Attributes:
        wires: the nodes.
        order: names of its neurons in the order in which they step, which follows the edges from
            the first node that is fed from outside. A spike reaches later neurons in the same step,
            all others one step later. If several nodes are fed from outside, the order starts at the
            first by name; names matter only in this case.
        in_turn: whether all nodes run in the order of `wires`; `Wire.late` specifies the edges that
            take a step.
    """

    wires: tuple[Wire, ...]
    order: tuple[str, ...]
    in_turn: bool = False


def groups(wires: Sequence[Wire]) -> list[Wire | Cycle]:
    """Return the nodes in execution order, those of a cycle together.

    Args:
        wires: sources before targets, the nodes of a cycle one after the other.

    Raises:
        LoweringError: a cycle without a neuron or a delay.
    """
    place = {wire.name: number for number, wire in enumerate(wires)}
    # Place of the last source of each node; in a cycle it may be after the node itself.
    last = [max((place[source] for source in wire.sources), default=-1) for wire in wires]
    ordered: list[Wire | Cycle] = []
    start = 0
    while start < len(wires):
        if last[start] < start:
            ordered.append(wires[start])
            start += 1
            continue
        # The cycle ends where none of its nodes has a source after the end.
        stop = reach = start
        while stop <= reach:
            reach = max(reach, last[stop])
            stop += 1
        ordered.append(_cycle(tuple(wires[start:stop])))
        start = stop
    return ordered


def _cycle(wires: tuple[Wire, ...]) -> Cycle:
    _refuse_instant_cycles(wires)
    neurons = {wire.name for wire in wires if wire.kind == "neuron"}
    in_turn = any(wire.late for wire in wires)
    places = [wire.name for wire in wires] if in_turn else _from_the_entry(wires)
    order = tuple(name for name in places if name in neurons)
    return Cycle(wires=wires, order=order, in_turn=in_turn)


def _from_the_entry(wires: tuple[Wire, ...]) -> list[str]:
    """Return names in reverse postorder of a depth-first search: sources first, ignoring edges that
    close a cycle.
    """
    targets = {
        wire.name: [target.name for target in wires if wire.name in target.sources]
        for wire in wires
    }
    # Nodes that are fed from outside the cycle. The search from the first reaches all nodes.
    entries = [wire.name for wire in wires if any(source not in targets for source in wire.sources)]
    finished: list[str] = []
    seen: list[str] = []
    for entry in [*entries, *targets]:
        path = [entry] if entry not in seen else []
        seen += path
        # Extend the path to an unseen node. If there is none, its last node is finished.
        while path:
            onward = next((target for target in targets[path[-1]] if target not in seen), None)
            if onward is None:
                finished.append(path.pop())
            else:
                seen.append(onward)
                path.append(onward)
    return finished[::-1]


def _refuse_instant_cycles(wires: tuple[Wire, ...]) -> None:
    """Refuse a cycle without a neuron or a delay."""
    settled = {wire.name for wire in wires if wire.kind in ("neuron", "Delay")}
    rest = [wire for wire in wires if wire.name not in settled]
    inside = {wire.name for wire in wires}
    while rest:
        ready = [
            wire
            for wire in rest
            if all(
                source in settled or source not in inside or source in wire.late
                for source in wire.sources
            )
        ]
        if not ready:
            raise LoweringError(
                Text(
                    "nodes {nodes} form a cycle without a neuron or a Delay, so that their "
                    "signals depend on themselves at the same time",
                    nodes=listing(wire.name for wire in rest),
                ),
                fix="break the cycle, or insert a neuron or a Delay",
                node=rest[0].name,
                code="instant-cycle",
            )
        settled.update(wire.name for wire in ready)
        rest = [wire for wire in rest if wire.name not in settled]
