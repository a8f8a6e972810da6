"""Linear nodes, convolutions and pools unrolled: what arrives at each population, as sparse sums of
spike trains.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from jaxsnn.errors import MappingError
from jaxsnn.network.lowering.lower_nodes import LoweringPlan, Part
from jaxsnn.network.structure import Wire
from jaxsnn.nir.model.node import Node

#: Connections of one node beyond which nothing is unrolled; the chip has 131072 synapses.
MOST_CONNECTIONS = 1 << 25


@dataclass(frozen=True, kw_only=True, eq=False)
class Links:
    """A sparse matrix: sources and targets (links,) int64, values (links,) float64, never zero."""

    pre: np.ndarray
    post: np.ndarray
    value: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class IncomingLinks:
    """What arrives at a node: weighted spikes of sources, by the name of the Input or population,
    and a constant.

    Attributes:
        links: source -> its weights.
        constant: (channels,) what biases add up to; None for nothing.
    """

    links: Mapping[str, Links]
    constant: np.ndarray | None


def arrivals(plan: LoweringPlan, parts: Mapping[str, Part]) -> dict[str, IncomingLinks]:
    """What arrives at each population and Output, by its NIR name; linear nodes are composed on the
    way.

    A value is the sum over all ways from a source to a target; values of zero are left out.

    Raises:
        MappingError: a node that is neither linear nor a neuron, a cycle without a neuron, or too
            many connections.
    """
    leaving: dict[str, IncomingLinks] = {}
    for name, part in parts.items():
        if part.wire.kind in ("input", "neuron"):
            leaving[name] = IncomingLinks(links={name: _identity(part.wire.size)}, constant=None)
    arriving = {}
    for name in _linear_first(plan, parts):
        wire, parameters = parts[name].wire, parts[name].parameters
        entering = _sum([leaving[source] for source in wire.sources])
        if wire.kind in ("neuron", "output"):
            arriving[name] = entering
        elif wire.kind != "input":
            inward = plan.shapes[name][0] or ()
            _refuse_many(wire, _own_connections(plan.graph.nodes[name], inward))
            leaving[name] = _through(wire, inward, parameters, entering)
    return arriving


def _own_connections(node: Node, inward: tuple[int, ...]) -> int:
    """How many connections a node has by itself, where that is known without making them."""
    count = node.traits.synapses
    connections = None if count is None else count(node, inward)
    return connections or 0


def _linear_first(plan: LoweringPlan, parts: Mapping[str, Part]) -> Iterable[str]:
    """All nodes, those without a state after what feeds them; populations and Outputs last."""
    linear = [
        name for name, part in parts.items() if part.wire.kind not in ("input", "output", "neuron")
    ]
    place = {name: number for number, name in enumerate(linear)}
    done = {name for name in parts if name not in place}
    missing = {name: set(plan.sources[name]) - done for name in linear}
    targets: dict[str, list[str]] = {}
    for name, sources in missing.items():
        for source in sources:
            targets.setdefault(source, []).append(name)
    order: list[str] = []
    ready = [name for name in linear if not missing[name]]
    while ready:
        order += ready
        freed = []
        for source in ready:
            for name in targets.get(source, ()):
                missing[name].discard(source)
                freed += [] if missing[name] else [name]
        # in the order in which they stand, as nodes are numbered by it
        ready = sorted(freed, key=place.__getitem__)
    if len(order) < len(linear):
        first = next(name for name in linear if missing[name])
        raise MappingError(
            f"node '{first}' feeds itself without a neuron",
            fix="put a neuron into the cycle",
            node=first,
        )
    return [*order, *(name for name in parts if name not in place)]


def _identity(size: int) -> Links:
    every = np.arange(size)
    return Links(pre=every, post=every, value=np.ones(size))


def _sum(parts: list[IncomingLinks]) -> IncomingLinks:
    source_names = dict.fromkeys(itertools.chain.from_iterable(part.links for part in parts))
    links = {
        name: _merged([part.links[name] for part in parts if name in part.links])
        for name in source_names
    }
    constants = [part.constant for part in parts if part.constant is not None]
    return IncomingLinks(
        links=links, constant=sum(constants[1:], constants[0]) if constants else None
    )


def _merged(parts: list[Links]) -> Links:
    """Links of the same pair added up, sorted by (post, pre); sums of zero left out."""
    pre, post, value = (
        np.concatenate([getattr(part, key) for part in parts]) for key in ("pre", "post", "value")
    )
    order = np.lexsort((pre, post))
    pre, post, value = pre[order], post[order], value[order]
    first = np.ones(pre.size, bool)
    first[1:] = (np.diff(pre) != 0) | (np.diff(post) != 0)
    starts = np.flatnonzero(first)
    total = np.add.reduceat(value, starts) if starts.size else value
    is_nonzero = total != 0
    return Links(
        pre=pre[starts][is_nonzero], post=post[starts][is_nonzero], value=total[is_nonzero]
    )


def _through(
    wire: Wire, inward: tuple[int, ...], parameters: Mapping[str, np.ndarray], signal: IncomingLinks
) -> IncomingLinks:
    """A signal after one linear node that takes the shape `inward`; a bias enters once, never once
    per spike.
    """
    matrix = _matrix(wire, inward, parameters)
    links = {
        name: _product(wire, links_of_source, matrix)
        for name, links_of_source in signal.links.items()
    }
    constant = None
    if signal.constant is not None:
        values = signal.constant[matrix.pre] * matrix.value
        constant = np.bincount(matrix.post, weights=values, minlength=wire.size)
    node_bias = wire.bias(parameters)
    if node_bias is not None:
        bias = np.repeat(np.asarray(node_bias, float), wire.size // np.size(node_bias))
        constant = bias if constant is None else constant + bias
    return IncomingLinks(links=links, constant=constant)


def _product(wire: Wire, first: Links, second: Links) -> Links:
    """The links of `first`, each followed by all links of `second` that start where it ends."""
    order = np.argsort(second.pre, kind="stable")
    starts = second.pre[order]
    begin = np.searchsorted(starts, first.post, side="left")
    count = np.searchsorted(starts, first.post, side="right") - begin
    total = int(count.sum())
    _refuse_many(wire, total)
    inside = np.arange(total) - np.repeat(np.cumsum(count) - count, count)
    followers = order[np.repeat(begin, count) + inside]
    value = np.repeat(first.value, count) * second.value[followers]
    return _merged(
        [Links(pre=np.repeat(first.pre, count), post=second.post[followers], value=value)]
    )


def _refuse_many(wire: Wire, count: int, makes: str = "makes", alternative: str = "") -> None:
    if count > MOST_CONNECTIONS:
        raise MappingError(
            f"node '{wire.name}' ({wire.kind}) {makes} {count} connections, more than "
            f"{MOST_CONNECTIONS} are not unrolled",
            fix=f"make the layer smaller{alternative}",
            node=wire.name,
        )


def _matrix(wire: Wire, inward: tuple[int, ...], parameters: Mapping[str, np.ndarray]) -> Links:
    """A linear node as a sparse matrix."""
    operator = wire.linear
    if operator is None or operator.apply is None:
        raise MappingError(
            f"node '{wire.name}' is a {wire.kind}, which the chip does not have",
            fix="use linear nodes and neurons",
            node=wire.name,
        )
    numbers = {name: np.asarray(value, float) for name, value in parameters.items()}
    if operator.entries is None:
        pre, post, value = _found_by_applying(wire, inward, numbers)
    else:
        pre, post, value = operator.entries(numbers, wire.detail, inward)
    return _merged([Links(pre=pre, post=post, value=np.asarray(value, float))])


def _found_by_applying(
    wire: Wire, inward: tuple[int, ...], parameters: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The connections of a node that has no list of them: what it makes of each input alone."""
    inputs = math.prod(inward)
    _refuse_many(wire, inputs * wire.size, "may make", " or give its type `entries`")
    each_alone = np.eye(inputs).reshape(inputs, *inward)
    matrix = np.asarray(wire.apply(parameters, each_alone)).reshape(inputs, wire.size)
    pre, post = np.nonzero(matrix)
    return pre, post, matrix[pre, post]
