"""Layers without a state, written so that an importer that lacks a part of their geometry computes the
same: the holes of a dilated kernel, the padding of a pool, the order of flattened axes, and as a last
resort all axes, with convolutions and pools as matrices.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.model.draft import NEURON_TYPES, POOLS, Draft, as_node, dense_groups, identity
from jaxsnn.nir.model.passes import window


def scales_as_weights(draft: Draft, why: str) -> None:
    """Write Scale as weights: a diagonal, or for several axes one factor for each channel."""
    for name in draft.of_type("Scale"):
        shape = draft.shapes[name][0]
        factor = np.broadcast_to(np.asarray(draft.nodes[name]["scale"], float), shape)
        entry = identity(shape)
        rows = factor.reshape(shape[0], -1)
        if np.any(rows != rows[:, :1]):
            raise ConversionError(
                f"node '{name}' scales neurons of one channel by {rows.min():g} to {rows.max():g}",
                fix="give all neurons of a channel the same factor",
                node=name,
            )
        column = rows[:, 0].reshape((-1,) + (1,) * (np.ndim(entry["weight"]) - 1))
        draft.nodes[name] = entry | {"weight": entry["weight"] * column}
        draft.changed(name, "Scale is written as weights", why)


def undilated(draft: Draft, why: str) -> None:
    """Write dilated convolutions with their holes as zeros of a larger kernel."""
    for name in draft.of_type("Conv1d", "Conv2d"):
        entry = draft.nodes[name]
        weight = np.asarray(entry["weight"])
        rank = weight.ndim - 2
        dilation = np.broadcast_to(np.ravel(entry["dilation"]), (rank,))
        if np.all(dilation == 1):
            continue
        kernel = [
            step * (size - 1) + 1 for step, size in zip(dilation, weight.shape[2:], strict=True)
        ]
        wide = np.zeros((*weight.shape[:2], *kernel), weight.dtype)
        taps = (slice(None, None, int(step)) for step in dilation)
        wide[(slice(None), slice(None), *taps)] = weight
        plain = np.ones(rank, int) if np.ndim(entry["dilation"]) else np.array(1)
        draft.nodes[name] = entry | {"weight": wide, "dilation": plain}
        what = f"its kernel {weight.shape[2:]} is written as {wide.shape[2:]}, with zeros as holes"
        draft.changed(name, what, why)


def padded_apart(draft: Draft, why: str) -> None:
    """Write the padding of a pool as that of a convolution before it, which changes nothing else."""
    for name in draft.of_type(*POOLS):
        entry = draft.nodes[name]
        frame = window(as_node(name, entry))
        assert frame.padding is not None
        padding = [before for before, _ in frame.padding]
        if not any(padding):
            continue
        inward = draft.shapes[name][0]
        padded = (inward[0], *(n + 2 * p for n, p in zip(inward[1:], padding, strict=True)))
        entry["padding"] = np.zeros(len(padding), int)
        draft.shapes[name] = (padded, draft.shapes[name][1])
        for source in draft.sources(name):
            made = draft.insert((source, name), f"{name}_padding", _padding(inward, padding))
            draft.shapes[made] = (inward, padded)
            draft.changed(made, f"a convolution that only pads, by {padding}, before '{name}'", why)


def _padding(shape: tuple[int, ...], padding: list[int]) -> dict:
    """A convolution that adds `padding` zeros on each side."""
    entry = identity(shape)
    kernel = [2 * pad + 1 for pad in padding]
    weight = np.zeros((shape[0], shape[0], *kernel))
    weight[(np.arange(shape[0]), np.arange(shape[0]), *padding)] = 1
    return entry | {"weight": weight, "padding": 2 * np.array(padding)}


def _join_flattens(draft: Draft, why: str) -> None:
    """Make one Flatten of those that follow each other and end at one axis."""
    while name := next(filter(lambda one: _only_joined(draft, one), draft.of_type("Flatten")), ""):
        inward, sources, targets = draft.shapes[name][0], draft.sources(name), draft.targets(name)
        ends = {"input_type": np.array(inward), "start_dim": np.array(0), "end_dim": np.array(-1)}
        for target in targets:
            draft.nodes[target] = draft.nodes[target] | ends
            draft.shapes[target] = (inward, draft.shapes[target][1])
            draft.changed(target, f"takes '{name}' in, and flattens all axes", why)
        draft.edges = [edge for edge in draft.edges if name not in edge]
        draft.edges += [(source, target) for source in sources for target in targets]
        del draft.nodes[name], draft.shapes[name]


def _only_joined(draft: Draft, name: str) -> bool:
    """Whether a node feeds nothing but Flattens that end at one axis, and is alone in it."""
    targets = draft.targets(name)
    return bool(targets) and all(
        draft.nodes[target]["type"] == "Flatten"
        and draft.sources(target) == [name]
        and len(draft.shapes[target][1]) == 1
        for target in targets
    )


def reorder_flattened(draft: Draft, to_channels_last: bool, why: str) -> None:
    """Follow the order of each Flatten, which changes between (C, H, W) and (H, W, C).

    The columns of weights that follow are permuted; before what else follows, a permutation is put.

    Raises:
        ConversionError: A Flatten joins some axes of several, and no other one the rest.
    """
    _join_flattens(draft, why)
    for name in draft.of_type("Flatten"):
        inward, outward = draft.shapes[name]
        if len(inward) < 2:
            continue
        if len(outward) > 1:
            raise ConversionError(
                f"node '{name}' (Flatten) makes {outward} of {inward}, and {why}",
                fix="flatten all axes at once",
                node=name,
            )
        order = np.moveaxis(np.arange(np.prod(inward)).reshape(inward), 0, -1).ravel()
        columns = order if to_channels_last else np.argsort(order)
        if np.array_equal(columns, np.arange(columns.size)):
            continue
        for target in draft.targets(name):
            entry = draft.nodes[target]
            if entry["type"] in ("Linear", "Affine") and len(draft.sources(target)) == 1:
                entry["weight"] = np.asarray(entry["weight"])[..., columns]
                draft.changed(target, f"its columns are reordered to follow '{name}'", why)
                continue
            weight = np.eye(columns.size, dtype=np.float32)[:, columns]
            made = draft.insert(
                (name, target), f"{name}_order", {"type": "Linear", "weight": weight}
            )
            draft.changed(made, f"a permutation between '{name}' and '{target}'", why)


#: The most weights that a network is written with as matrices.
MOST_WEIGHTS = 2**23
_WHY = "the importer cannot take the network with its axes"


def can_be_matrices(draft: Draft) -> bool:
    """Whether a network has several axes somewhere, and few enough weights without them."""
    inner = [name for name in draft.nodes if draft.nodes[name]["type"] != "Input"]
    if not any(len(shape) > 1 for name in inner for shape in draft.shapes[name]):
        return False
    windows = draft.of_type("Conv1d", "Conv2d", *POOLS)
    return sum(int(np.prod(draft.shapes[name])) for name in windows if _known(draft, name)) <= (
        MOST_WEIGHTS
    )


def _known(draft: Draft, name: str) -> bool:
    return len({len(shape) for shape in draft.shapes[name]}) == 1


def as_matrices(draft: Draft) -> None:
    """Write all nodes with one axis; the draft must be channels first.

    Raises:
        ConversionError: A node of several axes that has no such form.
    """
    dense_groups(draft, _WHY)
    for name in list(draft.nodes):
        entry, (inward, outward) = draft.nodes[name], draft.shapes[name]
        if entry["type"] == "Input":
            continue
        draft.shapes[name] = ((int(np.prod(inward)),), (int(np.prod(outward)),))
        if entry["type"] == "Flatten":
            remove(draft, name)
            continue
        draft.nodes[name] = _flat(name, entry, inward, outward)
        if draft.nodes[name]["type"] != entry["type"]:
            draft.changed(name, f"{entry['type']} is written as a matrix", _WHY)
    for name in draft.of_type("Output"):
        draft.nodes[name]["shape"] = np.array(draft.shapes[name][0])
    for name in draft.of_type("Input"):
        _flatten_behind(draft, name)


def _flat(
    name: str, entry: dict[str, Any], inward: tuple[int, ...], outward: tuple[int, ...]
) -> dict[str, Any]:
    """One node with one axis."""
    kind = entry["type"]
    meta = {"metadata": entry["metadata"]} if "metadata" in entry else {}
    if len(inward) == 1 and len(outward) == 1:
        return entry
    if kind in NEURON_TYPES or kind in ("Scale", "Threshold", "Delay"):
        return {
            key: np.asarray(value).reshape(-1)
            if not isinstance(value, str | dict) and np.ndim(value)
            else value
            for key, value in entry.items()
        }
    if kind in ("Conv1d", "Conv2d"):
        weight = np.asarray(entry["weight"])
        places = int(np.prod(outward[1:]))
        bias = np.repeat(np.asarray(entry["bias"]), places)
        frame = window(as_node(name, entry))
        matrix = _unrolled(weight, frame, np.ravel(entry["dilation"]), inward, outward)
        return {"type": "Affine", "weight": matrix, "bias": bias, **meta}
    if kind in POOLS:
        frame = window(as_node(name, entry))
        value = 1.0 if kind == "SumPool2d" else 1.0 / float(np.prod(frame.kernel))
        weight = np.zeros((inward[0], inward[0], *frame.kernel), np.float32)
        weight[np.arange(inward[0]), np.arange(inward[0])] = value
        return {"type": "Linear", "weight": _unrolled(weight, frame, [1], inward, outward), **meta}
    if kind == "Output":
        return dict(entry)
    raise ConversionError(
        f"node '{name}' ({kind}) of shape {inward} cannot be written with one axis",
        fix="flatten what feeds it",
        node=name,
    )


def _unrolled(
    weight: np.ndarray, frame: Any, dilation: Any, inward: tuple[int, ...], outward: tuple[int, ...]
) -> np.ndarray:
    """The matrix (outputs, inputs) of a convolution without groups.

    Tap k of the kernel joins output y to input y * stride + k * dilation - padding.
    """
    rank = len(inward) - 1
    steps = np.broadcast_to(np.asarray(dilation), (rank,))
    matrix = np.zeros((*outward, *inward), weight.dtype)
    for tap in itertools.product(*(range(size) for size in weight.shape[2:])):
        axes = []
        for axis in range(rank):
            y = np.arange(outward[1 + axis])
            x = y * frame.stride[axis] + tap[axis] * steps[axis] - frame.padding[axis][0]
            axes.append([(a, b) for a, b in zip(y, x, strict=True) if 0 <= b < inward[1 + axis]])
        for pairs in itertools.product(*axes):
            y, x = (tuple(int(pair[side]) for pair in pairs) for side in (0, 1))
            matrix[(slice(None), *y, slice(None), *x)] += weight[(slice(None), slice(None), *tap)]
    return matrix.reshape(int(np.prod(outward)), int(np.prod(inward)))


def remove(draft: Draft, name: str) -> None:
    """Take a node out whose output is its input; beside an edge between the same two, which would
    be counted once, it becomes weights.
    """
    joined = list(itertools.product(draft.sources(name), draft.targets(name)))
    if any(edge in draft.edges for edge in joined):
        draft.nodes[name] = identity(draft.shapes[name][0])
        return
    draft.edges = [edge for edge in draft.edges if name not in edge] + joined
    del draft.nodes[name], draft.shapes[name]


def _flatten_behind(draft: Draft, name: str) -> None:
    """One Flatten behind an Input of several axes."""
    shape = draft.shapes[name][1]
    if len(shape) == 1:
        return
    flat = draft.free(f"{name}_flat")
    draft.edges = [(flat if source == name else source, target) for source, target in draft.edges]
    draft.edges.append((name, flat))
    ends = {"start_dim": np.array(-len(shape)), "end_dim": np.array(-1)}
    draft.nodes[flat] = {"type": "Flatten", "input_type": np.array(shape), **ends}
    draft.shapes[flat] = (shape, (int(np.prod(shape)),))
