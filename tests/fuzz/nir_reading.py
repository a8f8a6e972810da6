"""A NIR graph as populations and synapses of the plain reference, without the package's lowering.

Every source's channels are followed along the edges, one connection at a time, through linear nodes
that are unrolled with plain loops. Numbers are in SI units.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tests.oracles.continuous_time import Neurons, Synapses

NEURONS = ("CubaLIF", "CubaLI", "LIF", "LI", "IF", "I")


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What the file does not say.

    Attributes:
        area: of a spike of weight 1 by NIR type, seconds; "tau": tau_syn (LIF, LI: tau); None: V or I
            jumps by the weight.
        dt: seconds; the width of boxes.
        boxes: populations under box spikes.
        subtract, readouts: populations that reset by subtraction, or never fire.
        initial: "zero", "v_leak" or "v_reset".
        inclusive: an arrival onto the threshold suffices.
        steps: a bias is added like a spike once in every dt.
        late: seconds by which a spike is late that goes back (`back`).
        back: (source, target) populations of the edges that go back.
        refractory, once: by population.
    """

    area: Mapping[str, float | str | None]
    dt: float
    boxes: frozenset[str] = frozenset()
    subtract: frozenset[str] = frozenset()
    readouts: frozenset[str] = frozenset()
    initial: str = "zero"
    inclusive: bool = False
    steps: bool = False
    late: float = 0.0
    back: frozenset[tuple[str, str]] = frozenset()
    refractory: Mapping[str, float] = field(default_factory=dict)
    once: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Node:
    """One node: its type, its numbers (SI), and its settings (strides and the like)."""

    kind: str
    numbers: Mapping[str, np.ndarray] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def with_numbers(self, **changes: np.ndarray) -> Node:
        return replace(self, numbers={**self.numbers, **changes})


#: (source channel, channel here, weight, delay)
Strand = tuple[int, int, float, float]


def read(
    nodes: Mapping[str, Node], edges: Sequence[tuple[str, str]], meaning: Meaning
) -> tuple[dict[str, Neurons], list[Synapses]]:
    """Populations and synapses of a graph."""
    shapes = shapes_of(nodes, edges)
    biases: dict[str, np.ndarray] = {}
    synapses: list[Synapses] = []
    for name, node in nodes.items():
        size = math.prod(shapes[name])
        if "bias" in node.numbers:
            per_channel = size // len(node.numbers["bias"])
            bias = np.repeat(node.numbers["bias"], per_channel)
            strands = [(0, n, float(bias[n]), 0.0) for n in range(size)]
            for target, paths in reached(name, strands, nodes, edges, shapes):
                target_bias = biases.setdefault(target, np.zeros(math.prod(shapes[target])))
                for _, channel, weight, _ in paths:
                    target_bias[channel] += weight
        silent = node.kind in ("CubaLI", "LI", "I") or name in meaning.readouts
        if node.kind == "Input" or (node.kind in NEURONS and not silent):
            strands = [(n, n, 1.0, 0.0) for n in range(size)]
            collected: dict[str, list[Strand]] = {}
            for target, paths in reached(name, strands, nodes, edges, shapes):
                collected.setdefault(target, []).extend(paths)
            for target, paths in collected.items():
                late = meaning.late if (name, target) in meaning.back else 0.0
                synapses += matrices(name, target, paths, size, math.prod(shapes[target]), late)
    populations = {
        name: population(name, node, meaning, biases.get(name), math.prod(shapes[name]))
        for name, node in nodes.items()
        if node.kind in NEURONS
    }
    return populations, synapses


def population(name, node, meaning, bias, size) -> Neurons:
    """The record of the reference."""
    p = {key: np.broadcast_to(value.reshape(-1), (size,)) for key, value in node.numbers.items()}
    area, subtract = meaning.area[node.kind], name in meaning.subtract
    zero = np.zeros(size)
    start = {
        "zero": zero,
        "v_leak": p.get("v_leak", zero),
        "v_reset": p.get("v_reset", zero),
    }[meaning.initial]
    if bias is not None and meaning.steps:
        if area is not None:
            bias = bias * area / meaning.dt
        elif node.kind.startswith("Cuba"):
            bias = bias * p["tau_syn"] / p["w_in"] / meaning.dt
        else:
            bias = bias * p.get("tau", 1.0) / p["r"] / meaning.dt
    return Neurons(
        kind=node.kind,
        parameters=p,
        area=area,
        width=meaning.dt if name in meaning.boxes else 0.0,
        bias=0.0 if bias is None else bias,
        refractory=0.0 if name in meaning.once else meaning.refractory.get(name, 0.0),
        subtract=subtract,
        inclusive=meaning.inclusive,
        once=name in meaning.once,
        readout=name in meaning.readouts,
        v_start=start,
    )


def reached(name, strands, nodes, edges, shapes):
    """(population, strands) for each path that leaves a node and ends at neurons."""
    for source, target in edges:
        if source != name:
            continue
        node = nodes[target]
        if node.kind in NEURONS:
            yield target, strands
        elif node.kind != "Output":
            through = passed(node, strands, shapes[source])
            yield from reached(target, through, nodes, edges, shapes)


def matrices(source, target, strands, sources, targets, late):
    """Strands as matrices: those of equal ends and delays added up, one matrix for each delay of a
    pair of ends.
    """
    weights: dict[tuple[int, int], dict[float, float]] = {}
    for start, end, weight, delay in strands:
        weight_by_delay = weights.setdefault((end, start), {})
        weight_by_delay[delay] = weight_by_delay.get(delay, 0.0) + weight
    for layer in range(max(map(len, weights.values()), default=0)):
        weight, delay = np.zeros((targets, sources)), np.zeros((targets, sources))
        for pair, weight_by_delay in weights.items():
            if layer < len(weight_by_delay):
                delay[pair], weight[pair] = list(weight_by_delay.items())[layer]
        yield Synapses(source=source, target=target, weight=weight, delay=delay + late)


# -- linear nodes


def passed(node, strands, inward):
    """Strands behind a linear node."""
    size = math.prod(inward)
    if node.kind == "Delay":
        delay = np.broadcast_to(node.numbers["delay"].reshape(-1), (size,))
        return [(s, n, weight, late + float(delay[n])) for s, n, weight, late in strands]
    entries: dict[int, list[tuple[int, float]]] = {}
    for before, after, weight in connections(node, inward):
        entries.setdefault(before, []).append((after, weight))
    return [
        (source, after, weight * factor, delay)
        for source, before, weight, delay in strands
        for after, factor in entries.get(before, ())
    ]


def connections(node, inward):
    """(channel before, channel behind, weight) of a linear node."""
    size = math.prod(inward)
    if node.kind in ("Linear", "Affine"):
        for (after, before), weight in np.ndenumerate(node.numbers["weight"]):
            yield before, after, float(weight)
    elif node.kind == "Scale":
        scale = np.broadcast_to(node.numbers["scale"].reshape(-1), (size,))
        for n in range(size):
            yield n, n, float(scale[n])
    elif node.kind == "Flatten":
        for n in range(size):
            yield n, n, 1.0
    elif node.kind in ("Conv1d", "Conv2d"):
        yield from convolution(node, inward)
    else:
        yield from pool(node, inward)


def _pair(value, axes):
    return tuple(int(entry) for entry in np.broadcast_to(value, (axes,)))


def _space(node, inward):
    """(kernel, stride, padding, dilation, output space)."""
    axes = len(inward) - 1
    s = node.settings
    convolves = node.kind.startswith("Conv")
    kernel = node.numbers["weight"].shape[2:] if convolves else _pair(s["kernel_size"], axes)
    dilation = _pair(s["dilation"], axes) if convolves else (1,) * axes
    stride, padding = _pair(s["stride"], axes), _pair(s["padding"], axes)
    space = tuple(
        (inward[1 + a] + 2 * padding[a] - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1
        for a in range(axes)
    )
    return kernel, stride, padding, dilation, space


def _met(place, tap, window, inward):
    """The pixel before a window that a tap meets at a place, or None where that is padding."""
    _, stride, padding, dilation, _ = window
    pixel = [
        place[a] * stride[a] - padding[a] + tap[a] * dilation[a] for a in range(len(inward) - 1)
    ]
    inside = all(0 <= pixel[a] < inward[1 + a] for a in range(len(pixel)))
    return tuple(pixel) if inside else None


def convolution(node, inward):
    """Taps one by one."""
    window = _space(node, inward)
    kernel, space = window[0], window[-1]
    weight, groups = node.numbers["weight"], int(node.settings["groups"])
    outputs, inputs_per_group = weight.shape[:2]
    shape = (outputs, *space)
    for out in range(outputs):
        group = out // (outputs // groups)
        for place in itertools.product(*map(range, space)):
            after = int(np.ravel_multi_index((out, *place), shape))
            for channel in range(inputs_per_group):
                for tap in itertools.product(*map(range, kernel)):
                    pixel = _met(place, tap, window, inward)
                    if pixel is not None:
                        whence = (group * inputs_per_group + channel, *pixel)
                        before = int(np.ravel_multi_index(whence, inward))
                        yield before, after, float(weight[(out, channel, *tap)])


def pool(node, inward):
    """Windows one by one, each channel by itself."""
    window = _space(node, inward)
    kernel, space = window[0], window[-1]
    factor = 1.0 / math.prod(kernel) if node.kind == "AvgPool2d" else 1.0
    for channel in range(inward[0]):
        for place in itertools.product(*map(range, space)):
            after = int(np.ravel_multi_index((channel, *place), (inward[0], *space)))
            for tap in itertools.product(*map(range, kernel)):
                pixel = _met(place, tap, window, inward)
                if pixel is not None:
                    before = int(np.ravel_multi_index((channel, *pixel), inward))
                    yield before, after, factor


def shapes_of(nodes, edges) -> dict[str, tuple[int, ...]]:
    """Shape of what leaves each node."""
    shapes = {
        name: tuple(node.settings["shape"])
        for name, node in nodes.items()
        if "shape" in node.settings
    }
    while len(shapes) < len(nodes):
        before = len(shapes)
        for source, target in edges:
            if source in shapes and target not in shapes:
                shapes[target] = shape_behind(nodes[target], shapes[source])
        if len(shapes) == before:
            raise ValueError(f"shapes of {sorted(set(nodes) - set(shapes))} are not known")
    return shapes


def shape_behind(node, inward):
    """Shape of what leaves a node without a shape of its own."""
    if node.kind in ("Linear", "Affine"):
        return (len(node.numbers["weight"]),)
    if node.kind == "Flatten":
        return (math.prod(inward),)
    if node.kind in ("Conv1d", "Conv2d"):
        return (len(node.numbers["weight"]), *_space(node, inward)[-1])
    if node.kind.endswith("Pool2d"):
        return (inward[0], *_space(node, inward)[-1])
    return inward
