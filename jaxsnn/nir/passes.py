"""Analysis passes: what follows from a graph.

They never change it, and never guess: what cannot be known is None.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from jaxsnn.nir.graph import Edge, Graph, edge_key
from jaxsnn.nir.nodes import (
    NEURONS,
    Affine,
    AvgPool2d,
    Conv1d,
    Conv2d,
    Delay,
    Flatten,
    Input,
    Linear,
    Node,
    Output,
    Scale,
    SumPool2d,
    Threshold,
)

Shape = tuple[int, ...]
Shapes = Mapping[str, tuple[Shape | None, Shape | None]]

ELEMENTWISE = (*NEURONS, Scale, Delay, Threshold)
POOLS = (SumPool2d, AvgPool2d)
CONVOLUTIONS = (Conv1d, Conv2d)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
    """The sliding window of a convolution or pool, one entry for each spatial axis.

    Attributes:
        kernel, stride, dilation: Sizes.
        padding: (before, after); None where 'same' meets a stride, which frameworks read
            differently.
        groups: Of channels; 1 for a pool.
    """

    kernel: Shape
    stride: Shape
    dilation: Shape
    padding: tuple[tuple[int, int], ...] | None
    groups: int = 1

    def output(self, size: Sequence[int]) -> Shape | None:
        """Spatial shape of the output; None if it cannot be known or would be empty."""
        if self.padding is None or len(size) != len(self.kernel):
            return None
        found = []
        for axis, length in enumerate(size):
            reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            room = length + sum(self.padding[axis]) - reach
            found.append(room // self.stride[axis] + 1)
        return tuple(found) if all(count > 0 for count in found) else None


def window(node: Node) -> Window:
    """The window of a Conv1d, Conv2d, SumPool2d or AvgPool2d; 0-d and one-element parameters hold
    for each axis.
    """
    axes = 1 if isinstance(node, Conv1d) else 2
    if isinstance(node, POOLS):
        kernel, dilation, groups = _per_axis(node.value("kernel_size"), axes), (1,) * axes, 1
    else:
        kernel = tuple(int(size) for size in np.shape(node.value("weight"))[2:])
        dilation = _per_axis(node.value("dilation"), axes)
        groups = int(np.ravel(node.value("groups"))[0])
    stride, padding = _per_axis(node.value("stride"), axes), node.value("padding")
    if isinstance(padding, str):
        padded = _named_padding(padding, kernel, stride, dilation)
    else:
        padded = tuple((size, size) for size in _per_axis(padding, axes))
    return Window(kernel=kernel, stride=stride, dilation=dilation, padding=padded, groups=groups)


def _per_axis(value: np.ndarray, axes: int) -> Shape:
    flat = [int(entry) for entry in np.ravel(value)]
    return tuple(flat * axes) if len(flat) == 1 else tuple(flat)


def _named_padding(
    name: str, kernel: Shape, stride: Shape, dilation: Shape
) -> tuple[tuple[int, int], ...] | None:
    if name == "valid":
        return ((0, 0),) * len(kernel)
    if any(step != 1 for step in stride):
        return None
    totals = [spread * (size - 1) for spread, size in zip(dilation, kernel, strict=True)]
    return tuple((total // 2, total - total // 2) for total in totals)


def own_shape(node: Node) -> Shape | None:
    """The shape that a node's parameters fix for its input; None where they do not."""
    if isinstance(node, Linear | Affine):
        weight = np.shape(node.value("weight"))
        return (*weight[:-2], weight[-1])
    if isinstance(node, ELEMENTWISE):
        shapes = [np.shape(value) for value in node.parameters.values() if np.size(value) != 1]
        return shapes[0] if shapes else None
    if isinstance(node, CONVOLUTIONS) and node.value("input_shape") is not None:
        channels = np.shape(node.value("weight"))[1] * window(node).groups
        return (channels, *_ints(node.value("input_shape")))
    return None


def _ints(value: np.ndarray) -> Shape:
    return tuple(int(entry) for entry in np.ravel(value))


def _rank(node: Node) -> int | None:
    """How many axes a node takes; None for any number."""
    fixed = own_shape(node)
    if fixed is not None:
        return len(fixed)
    return 2 if isinstance(node, Conv1d) else 3 if isinstance(node, (Conv2d, *POOLS)) else None


def transfer(node: Node, shape: Shape) -> Shape | None:
    """The shape of a node's output for an input of a given shape; None if the node cannot take it."""
    if isinstance(node, Linear | Affine):
        weight = np.shape(node.value("weight"))
        return (*weight[:-2], weight[-2])
    if isinstance(node, (*CONVOLUTIONS, *POOLS)):
        frame = window(node)
        if len(shape) != len(frame.kernel) + 1:
            return None
        space = frame.output(shape[1:])
        channels = np.shape(node.value("weight"))[0] if isinstance(node, CONVOLUTIONS) else shape[0]
        return None if space is None else (channels, *space)
    if isinstance(node, Flatten):
        return _flattened(node, shape)
    return shape


def _flattened(node: Flatten, shape: Shape) -> Shape | None:
    declared = node.value("input_type")
    start, end = (int(np.ravel(node.value(key))[0]) for key in ("start_dim", "end_dim"))
    # Axes of batch or time that the exporter counted.
    extra = 0 if declared is None else max(0, np.size(declared) - len(shape))
    start, end = (place - extra if place >= 0 else place + len(shape) for place in (start, end))
    if not 0 <= start <= end < len(shape):
        return shape if start == end == 0 == len(shape) else None
    return (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :])


def shapes(graph: Graph) -> dict[str, tuple[Shape | None, Shape | None]]:
    """The input and output shape of each node, without axes of batch or time.

    Parameters come first (a weight matrix fixes both sides); nodes whose parameters are scalars
    take the size of their neighbours. Where nothing tells the shape, or the sources of an Output
    disagree, it is None.

    >>> from jaxsnn.nir import build
    >>> shapes(build.sequential(build.input(2), build.linear(3), build.li(tau=0.01), seed=0))["1"]
    ((2,), (3,))
    """
    inward: dict[str, Shape | None] = {name: own_shape(node) for name, node in graph.nodes.items()}
    outward: dict[str, Shape | None] = dict.fromkeys(graph.nodes)
    sources, targets = _neighbours(graph)
    for name in graph.inputs:
        inward[name] = _declared_input(graph, name, targets[name], inward)
    order = graph.order()
    changed = True
    while changed:
        changed = False
        for name in order:
            before = (inward[name], outward[name])
            _improve(graph, name, sources[name], targets[name], inward, outward)
            changed = changed or before != (inward[name], outward[name])
    for name, node in graph.nodes.items():
        # A population of one neuron, or a relay that nothing reaches.
        if inward[name] is None and outward[name] is None and not sources[name]:
            lone = [
                np.shape(value) for value in node.parameters.values() if not isinstance(value, str)
            ]
            alone = (
                next((shape for shape in lone if shape), None)
                if isinstance(node, ELEMENTWISE)
                else None
            )
            inward[name] = outward[name] = alone
    return {name: (inward[name], outward[name]) for name in graph.nodes}


def _neighbours(graph: Graph) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    sources: dict[str, list[str]] = {name: [] for name in graph.nodes}
    targets: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, target in graph.networkx.edges():
        sources[target].append(source)
        targets[source].append(target)
    return sources, targets


def _declared_input(
    graph: Graph, name: str, targets: list[str], inward: Mapping[str, Shape | None]
) -> Shape | None:
    """The shape of an Input, without leading axes that none of its targets takes."""
    shape = graph.nodes[name].value("shape")
    if shape is None:
        return None
    declared = _ints(shape)
    for target in targets:
        rank = _rank(graph.nodes[target])
        wanted = inward[target]
        if (
            rank is not None
            and len(declared) > rank
            and wanted in (None, declared[len(declared) - rank :])
        ):
            return declared[len(declared) - rank :]
    return declared


def _improve(
    graph: Graph,
    name: str,
    sources: list[str],
    targets: list[str],
    inward: dict[str, Shape | None],
    outward: dict[str, Shape | None],
) -> None:
    """One step of inference at one node: from its sources, through it, and back from its targets."""
    node = graph.nodes[name]
    arriving = [shape for source in sources if (shape := outward[source]) is not None]
    if inward[name] is None and arriving:
        agree = all(shape == arriving[0] for shape in arriving)
        if isinstance(node, Output) and not agree:
            return
        inward[name] = arriving[0]
    passes_on = isinstance(node, (*ELEMENTWISE, Input, Output))
    if inward[name] is None and passes_on and not isinstance(node, Output):
        wanted = [shape for target in targets if (shape := inward[target]) is not None]
        inward[name] = wanted[0] if wanted else None
    if isinstance(node, Linear | Affine):
        outward[name] = transfer(node, ())
    elif outward[name] is None and (shape := inward[name]) is not None:
        outward[name] = transfer(node, shape)
        whole = (math.prod(shape),)
        if (
            isinstance(node, Flatten)
            and targets
            and all(own_shape(graph.nodes[target]) == whole for target in targets)
        ):
            # Its exporter counted an axis of batch; the order of the elements is the same.
            outward[name] = whole


def sizes(graph: Graph) -> dict[str, int | None]:
    """Number of neurons of each population."""
    found = shapes(graph)
    return {
        name: None if (shape := found[name][1]) is None else math.prod(shape)
        for name in graph.neurons
    }


def synapses(graph: Graph) -> dict[str, int | None]:
    """Number of connections of each Linear, Affine and convolution: pairs of an input and an output
    with a weight other than zero; None where the size of a convolution's input is unknown."""
    found = shapes(graph)
    counts: dict[str, int | None] = {}
    for name, node in graph.nodes.items():
        if isinstance(node, Linear | Affine):
            counts[name] = int(np.count_nonzero(node.value("weight")))
        elif isinstance(node, CONVOLUTIONS):
            counts[name] = _taps(node, found[name][0])
    return counts


def _taps(node: Node, shape: Shape | None) -> int | None:
    frame = window(node)
    space = None if shape is None else frame.output(shape[1:])
    if shape is None or space is None or frame.padding is None:
        return None
    used = (np.asarray(node.value("weight")) != 0).sum(axis=(0, 1)).astype(np.int64)
    for axis, size in enumerate(shape[1:]):
        starts = np.arange(space[axis]) * frame.stride[axis] - frame.padding[axis][0]
        places = starts[None, :] + np.arange(frame.kernel[axis])[:, None] * frame.dilation[axis]
        valid = ((places >= 0) & (places < size)).sum(axis=1)
        used = np.moveaxis(np.moveaxis(used, axis, -1) * valid, -1, axis)
    return int(used.sum())


def bypass_relays(graph: Graph) -> tuple[Edge, ...]:
    """The edges of the graph without the Input and Output nodes of nested graphs, which only pass
    on what arrives.

    In natural order; a pair that several ways connect is listed once for each way.
    """
    _, targets = _neighbours(graph)

    def ends(name: str, seen: tuple[str, ...]) -> list[str]:
        found: list[str] = []
        for target in targets[name]:
            if not is_relay(graph.nodes[target]):
                found.append(target)
            elif target not in seen:
                found.extend(ends(target, (*seen, target)))
        return found

    found = [
        (name, end)
        for name in graph.nodes
        if not is_relay(graph.nodes[name])
        for end in ends(name, ())
    ]
    return tuple(sorted(found, key=edge_key))


def is_relay(node: Node) -> bool:
    """True for the Input and Output nodes of nested graphs."""
    return isinstance(node, Input | Output) and "/" in node.name
