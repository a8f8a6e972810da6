"""Traversal orders of a graph, like those of `networkx`, which takes a quarter of a second to load."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

Place = TypeVar("Place", bound=Hashable)


def neighbours(
    places: Iterable[Place], edges: Iterable[tuple[Place, Place]]
) -> tuple[dict[Place, list[Place]], dict[Place, list[Place]]]:
    """Return the sources and the targets of each place, in the order of the edges, once for each
    edge.
    """
    sources: dict[Place, list[Place]] = {place: [] for place in places}
    targets: dict[Place, list[Place]] = {place: [] for place in sources}
    for source, target in edges:
        sources[target].append(source)
        targets[source].append(target)
    return sources, targets


def components(targets: Mapping[Place, Sequence[Place]]) -> list[list[Place]]:
    """Return groups of places that reach each other, targets before sources.

    Args:
        targets: place -> its targets.

    Source: Tarjan, SIAM Journal on Computing 1, 146, 1972, without recursion.
    """
    groups: list[list[Place]] = []
    number: dict[Place, int] = {}
    lowest: dict[Place, int] = {}
    open_: list[Place] = []
    waiting: set[Place] = set()
    for start in targets:
        if start in number:
            continue
        path = [(start, iter(targets[start]))]
        number[start] = lowest[start] = len(number)
        open_.append(start)
        waiting.add(start)
        while path:
            place, remaining_targets = path[-1]
            following = next((target for target in remaining_targets if target not in number), None)
            if following is not None:
                number[following] = lowest[following] = len(number)
                open_.append(following)
                waiting.add(following)
                path.append((following, iter(targets[following])))
                continue
            path.pop()
            # Everything that the place leads to is numbered by now.
            reached = (lowest[target] for target in targets[place] if target in waiting)
            lowest[place] = min([lowest[place], *reached])
            if lowest[place] == number[place]:
                group = [open_.pop()]
                while group[-1] != place:
                    group.append(open_.pop())
                waiting.difference_update(group)
                groups.append(group)
    return groups


def sources_first(
    places: Iterable[Place],
    edges: Iterable[tuple[Place, Place]],
    key: Callable[[Place], int],
) -> list[Place]:
    """Return places in an order in which sources precede targets, ready places with the least key
    first.

    Args:
        edges: without a cycle.
        key: a unique number for each place.
    """
    sources, targets = neighbours(places, edges)
    missing = {place: len(before) for place, before in sources.items()}
    ready = [(key(place), place) for place, count in missing.items() if not count]
    heapq.heapify(ready)
    order = []
    while ready:
        _, place = heapq.heappop(ready)
        order.append(place)
        for target in targets[place]:
            missing[target] -= 1
            if not missing[target]:
                heapq.heappush(ready, (key(target), target))
    return order
