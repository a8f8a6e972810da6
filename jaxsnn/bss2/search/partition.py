"""Which neurons are on the chip in which run: in topological order, recurrent components whole, in
few runs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from jaxsnn.bss2.netlist import Netlist
from jaxsnn.bss2.search.task import ChipParts
from jaxsnn.bss2.search.tiling import tile

#: How much of an even share of all circuits a run may take more, from even runs to full ones.
_SHARES = (1.0, 1.05, 1.15, None)


def units(net: Netlist) -> list[np.ndarray]:
    """Neurons that have to be in one run, sources before targets: components of recurrent nets,
    else single neurons.

    Returns:
        Sorted global indices, unit by unit.
    """
    import networkx

    neurons = np.flatnonzero(~net.external)
    components = net.recurrent_components()
    internal = ~net.external[net.pre]
    forward = net.owner[net.pre[internal]] < net.owner[net.post[internal]]
    if not components and forward.all():
        return [neurons[place : place + 1] for place in range(len(neurons))]
    unit = np.arange(net.size)
    for part in components:
        unit[part] = part[0]
    graph = networkx.DiGraph()
    graph.add_nodes_from(unit[neurons].tolist())
    pairs = np.unique(
        np.stack([unit[net.pre[internal]], unit[net.post[internal]]]), axis=1
    ).T.tolist()
    graph.add_edges_from((source, target) for source, target in pairs if source != target)
    members = {int(part[0]): part for part in components}
    order = networkx.lexicographical_topological_sort(graph)
    return [members.get(first, np.array([first])) for first in order]


def partitions(
    net: Netlist, parts: ChipParts, counts: np.ndarray, runs: int
) -> Iterator[list[np.ndarray]]:
    """Ways to put all neurons into at most so many runs, even ones first.

    Args:
        counts: (size,) circuits of each neuron, the fewest that can do.

    Yields:
        Sorted global indices, run by run.
    """
    if runs == 1:
        yield [np.flatnonzero(~net.external)]
        return
    parts_of_net = units(net)
    sizes = np.array([int(counts[unit].sum()) for unit in parts_of_net])
    capacity = int(parts.circuits.sum())
    seen: list[list[int]] = []
    for share in _SHARES:
        limit = (
            capacity
            if share is None
            else min(capacity, int(np.ceil(share * sizes.sum() / runs)) + 1)
        )
        ends = _ends(parts, parts_of_net, counts, sizes, limit, runs)
        if ends is None or ends in seen:
            continue
        seen.append(ends)
        yield [
            np.sort(np.concatenate(parts_of_net[first:end]))
            for first, end in zip([0, *ends[:-1]], ends, strict=True)
        ]


def _ends(
    parts: ChipParts,
    members: list[np.ndarray],
    counts: np.ndarray,
    sizes: np.ndarray,
    limit: int,
    runs: int,
) -> list[int] | None:
    """Where each run ends if it takes at most `limit` circuits; None where more runs are needed."""
    ends: list[int] = []
    total = np.concatenate([[0], np.cumsum(sizes)])
    first = 0
    while first < len(members):
        if len(ends) == runs:
            return None
        end = int(np.searchsorted(total, total[first] + limit, side="right")) - 1
        end = _longest(parts, members, counts, first, max(end, first + 1))
        if end == first:
            return None
        ends.append(end)
        first = end
    return ends


def _longest(
    parts: ChipParts, members: list[np.ndarray], counts: np.ndarray, first: int, end: int
) -> int:
    """The largest end, at most `end`, such that the units from `first` on have room on the chip."""

    def fits(last: int) -> bool:
        sizes = np.concatenate([counts[unit] for unit in members[first:last]])
        return tile(parts, np.sort(sizes)[::-1].tolist()) is not None

    if fits(end):
        return end
    low, high = first, end
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
