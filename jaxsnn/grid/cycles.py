"""Where a network runs in circles, and the order of a step there."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxsnn.errors import LoweringError, listing
from jaxsnn.wiring import Wire


@dataclass(frozen=True, kw_only=True)
class Cycle:
    """Nodes that reach each other, or one with an edge to itself.

    Attributes:
        wires: the nodes.
        order: names of its neurons in the order in which they step: nearest to what feeds the cycle first, then in the
            order of the network. A spike reaches the neurons behind in the same step, all others one step later.
    """

    wires: tuple[Wire, ...]
    order: tuple[str, ...]


def groups(wires: Sequence[Wire]) -> list[Wire | Cycle]:
    """The nodes in execution order, those of a cycle together.

    Args:
        wires: sources before targets, the nodes of a cycle one after the other.

    Raises:
        LoweringError: a cycle without a neuron or a delay.
    """
    place = {wire.name: number for number, wire in enumerate(wires)}
    last = [max((place[source] for source in wire.sources), default=-1) for wire in wires]
    found: list[Wire | Cycle] = []
    start = 0
    while start < len(wires):
        if last[start] < start:
            found.append(wires[start])
            start += 1
            continue
        stop = reach = start
        while stop <= reach:
            reach = max(reach, last[stop])
            stop += 1
        found.append(_cycle(tuple(wires[start:stop])))
        start = stop
    return found


def _cycle(wires: tuple[Wire, ...]) -> Cycle:
    _refuse_instant_cycles(wires)
    inside = {wire.name: wire for wire in wires}
    distance = {wire.name: 0 for wire in wires if any(source not in inside for source in wire.sources)}
    for _ in wires:
        for wire in wires:
            known = [distance[source] + 1 for source in wire.sources if source in distance]
            distance[wire.name] = min([*known, distance.get(wire.name, len(wires))])
    neurons = [wire.name for wire in wires if wire.kind == "neuron"]
    return Cycle(wires=wires, order=tuple(sorted(neurons, key=distance.__getitem__)))


def _refuse_instant_cycles(wires: tuple[Wire, ...]) -> None:
    """Refuse a cycle in which nothing takes time."""
    settled = {wire.name for wire in wires if wire.kind in ("neuron", "Delay")}
    rest = [wire for wire in wires if wire.name not in settled]
    inside = {wire.name for wire in wires}
    while rest:
        ready = [wire for wire in rest if all(source in settled or source not in inside for source in wire.sources)]
        if not ready:
            raise LoweringError(
                f"nodes {listing(wire.name for wire in rest)} form a cycle without a neuron or a Delay, where nothing "
                "takes time: break it, or put one of the two into it"
            )
        settled.update(wire.name for wire in ready)
        rest = [wire for wire in rest if wire.name not in settled]
