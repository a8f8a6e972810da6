"""Networks of several axes as networks of one: convolutions and pools as matrices.

An importer that shares weights between positions cannot take neurons that differ from position to
position, nor Conv1d if it has none; with matrices it can. It costs memory, so it is tried second.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.model.draft import NEURON_TYPES, POOLS, Draft, as_node, dense_groups, identity
from jaxsnn.nir.model.passes import window

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
