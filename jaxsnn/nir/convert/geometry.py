"""Layers written so that an importer that lacks a part of their geometry computes the same: holes
of a dilated kernel, padding of a pool, the order of flattened axes.
"""

from __future__ import annotations

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.model.draft import POOLS, Draft, as_node, identity
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
