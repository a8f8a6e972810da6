"""Layers without a state, written so that an importer that lacks a part of their geometry computes the
same: the holes of a dilated kernel, the padding of a pool, the order of flattened axes, and as a last
resort all axes, with convolutions and pools as matrices.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from jaxsnn.errors import ConversionError
from jaxsnn.nir.convert.bounds import sums_may_meet
from jaxsnn.nir.convert.passes import Condition, Conversion
from jaxsnn.nir.frameworks.neuron_writing import has_few_digits
from jaxsnn.nir.model.draft import (
    NEURON_TYPES,
    POOLS,
    WEIGHTED,
    Draft,
    as_node,
    dense_groups,
    identity,
    plain_flatten,
    rounded,
)
from jaxsnn.nir.model.passes import window
from jaxsnn.wording import Text


def replace_scales(conversion: Conversion) -> None:
    """Write Scale as weights: a diagonal, or for several axes one factor for each channel.

    Raises:
        ConversionError: The neurons of a channel are scaled by different factors.
    """
    draft = conversion.draft
    for name in draft.of_type("Scale"):
        shape = draft.shapes[name][0]
        factor = np.broadcast_to(np.asarray(draft.nodes[name]["scale"], float), shape)
        entry = identity(shape)
        rows = factor.reshape(shape[0], -1)
        if np.any(rows != rows[:, :1]):
            raise ConversionError(
                Text(
                    "node '{node}' scales neurons of the same channel by different factors, {minimum:g} "
                    "to {maximum:g}",
                    node=name,
                    minimum=rows.min(),
                    maximum=rows.max(),
                ),
                fix="use the same factor for all neurons of a channel",
                node=name,
            )
        column = rows[:, 0].reshape((-1,) + (1,) * (np.ndim(entry["weight"]) - 1))
        draft.nodes[name] = entry | {"weight": entry["weight"] * column}
        why = f"{conversion.title}'s importer does not support Scale"
        draft.changed(name, "Scale is written as weights", why)


def replace_linear(conversion: Conversion) -> None:
    """Write Linear as Affine with a bias of 0."""
    draft = conversion.draft
    for name in draft.of_type("Linear"):
        entry = draft.nodes[name]
        weight = np.asarray(entry["weight"])
        bias = np.zeros(weight.shape[:-1], np.promote_types(weight.dtype, np.float32))
        draft.nodes[name] = entry | {"type": "Affine", "bias": bias}
        draft.changed(
            name,
            "Linear is written as Affine with a bias of 0",
            Text("{target}'s importer does not support Linear", target=conversion.title),
        )


def set_channel_order(conversion: Conversion) -> None:
    """Reorder flattened channels where only one of the two frameworks has channels last.

    Raises:
        ConversionError: A Flatten joins only some of several axes, and no other Flatten joins the rest.
    """
    draft, target = conversion.draft, conversion.target
    if draft.channels_last != target.channels_last:
        title = conversion.source_title if draft.channels_last else target.title
        why = f"{title} has channels last, other frameworks channels first"
        reorder_flattened(draft, target.channels_last, why)
        draft.channels_last = target.channels_last


def join_groups(conversion: Conversion) -> None:
    """Write grouped convolutions with one group and zeros between the groups."""
    dense_groups(conversion.draft, f"{conversion.title}'s importer supports only one group")


def fill_dilations(conversion: Conversion) -> None:
    """Write dilated convolutions as larger kernels with zeros in the gaps."""
    draft = conversion.draft
    for name in draft.of_type("Conv1d", "Conv2d"):
        entry = draft.nodes[name]
        if not _is_dilated(entry):
            continue
        weight = np.asarray(entry["weight"])
        rank = weight.ndim - 2
        dilation = np.broadcast_to(np.ravel(entry["dilation"]), (rank,))
        kernel = [
            step * (size - 1) + 1 for step, size in zip(dilation, weight.shape[2:], strict=True)
        ]
        wide = np.zeros((*weight.shape[:2], *kernel), weight.dtype)
        taps = (slice(None, None, int(step)) for step in dilation)
        wide[(slice(None), slice(None), *taps)] = weight
        plain = np.ones(rank, int) if np.ndim(entry["dilation"]) else np.array(1)
        draft.nodes[name] = entry | {"weight": wide, "dilation": plain}
        draft.changed(
            name,
            Text(
                "its dilated kernel {kernel} is written as a kernel {dilated} with zeros in the gaps",
                kernel=weight.shape[2:],
                dilated=wide.shape[2:],
            ),
            Text("{target}'s importer ignores dilation", target=conversion.title),
        )


def _is_dilated(entry: Mapping[str, Any]) -> bool:
    return bool(np.any(np.asarray(entry["dilation"]) != 1))


def unify_pools(conversion: Conversion) -> None:
    """Write all pools as the type that the importer supports, and compensate for the factor in
    the weights that follow.
    """
    draft, pool_type = conversion.draft, conversion.importer.pool
    assert pool_type is not None
    _note_rounded_averages(draft, pool_type, conversion.title)
    for name in draft.of_type(*POOLS):
        entry = draft.nodes[name]
        frame = window(as_node(name, entry))
        assert frame.padding is not None
        for key, value in (("kernel_size", frame.kernel), ("stride", frame.stride)):
            entry[key] = np.array(value)
        entry["padding"] = np.array([before for before, _ in frame.padding])
        if entry["type"] == pool_type:
            continue
        area = float(np.prod(frame.kernel))
        entry["type"] = pool_type
        _scale_outputs(draft, name, area if pool_type == "AvgPool2d" else 1 / area)
        draft.changed(
            name,
            Text(
                "is written as {type}; the weights that follow are scaled to compensate for the "
                "factor {area:g}",
                type=pool_type,
                area=area,
            ),
            Text(
                "{target}'s importer supports only {type}", target=conversion.title, type=pool_type
            ),
        )


def _scale_outputs(draft: Draft, name: str, factor: float) -> None:
    """Compensate for a node whose output became 1/factor of its former value, in the weights that
    follow.
    """
    for target in draft.targets(name):
        entry = draft.nodes[target]
        edge = (name, target)
        if entry["type"] in ("Flatten", *POOLS) and len(draft.sources(target)) == 1:
            _scale_outputs(draft, target, factor)
            continue
        if entry["type"] not in WEIGHTED or len(draft.sources(target)) > 1:
            target = draft.insert(edge, f"{name}_weights", identity(draft.shapes[name][1]))
            entry = draft.nodes[target]
        weight = np.asarray(entry["weight"])
        entry["weight"] = rounded(weight * factor, weight)


def split_pool_padding(conversion: Conversion) -> None:
    """Move the padding of a pool into a convolution before it that changes nothing else."""
    draft = conversion.draft
    why = f"{conversion.title}'s importer does not support padding of pools"
    for name in draft.of_type(*POOLS):
        entry = draft.nodes[name]
        padding = _padding_before(name, entry)
        if not any(padding):
            continue
        inward = draft.shapes[name][0]
        padded = (inward[0], *(n + 2 * p for n, p in zip(inward[1:], padding, strict=True)))
        entry["padding"] = np.zeros(len(padding), int)
        draft.shapes[name] = (padded, draft.shapes[name][1])
        for source in draft.sources(name):
            # The kernel has a single weight of 1, in the middle.
            channels, kernel = np.arange(inward[0]), [2 * pad + 1 for pad in padding]
            weight = np.zeros((inward[0], inward[0], *kernel))
            weight[(channels, channels, *padding)] = 1
            convolution = identity(inward) | {"weight": weight, "padding": 2 * np.array(padding)}
            pads = draft.insert((source, name), f"{name}_padding", convolution)
            draft.shapes[pads] = (inward, padded)
            draft.changed(
                pads,
                Text(
                    "a convolution before '{node}' that only pads, by {padding}",
                    padding=padding,
                    node=name,
                ),
                why,
            )


def _padding_before(name: str, entry: dict[str, Any]) -> list[int]:
    padding = window(as_node(name, entry)).padding
    assert padding is not None
    return [before for before, _ in padding]


def _note_rounded_averages(draft: Draft, pool_type: str, title: str) -> None:
    """Note where an average is written as a sum, or the other way round, and float32 rounds
    their ratio.
    """
    import networkx

    for name in draft.of_type(*POOLS):
        area = float(np.prod(window(as_node(name, draft.nodes[name])).kernel))
        if draft.nodes[name]["type"] == pool_type or has_few_digits(np.array(1 / area)):
            continue
        # Follow edges only up to the next neurons, which sum this pool's averages.
        edges = [edge for edge in draft.edges if draft.nodes[edge[0]]["type"] not in NEURON_TYPES]
        behind = networkx.descendants(networkx.DiGraph(edges), name)
        for neuron in draft.of_type(*NEURON_TYPES):
            v_threshold = np.asarray(draft.nodes[neuron].get("v_threshold", np.inf))
            if neuron in behind and sums_may_meet(draft, neuron, v_threshold):
                draft.notes.append(
                    Text(
                        "node '{node}': float32 rounds the average of {cells:g} cells of '{pool}', which is "
                        "written as {type}; where a sum of weights equals v_threshold, only one of "
                        "{framework} and the source framework may fire",
                        node=neuron,
                        cells=area,
                        pool=name,
                        type=pool_type,
                        framework=title,
                    )
                )


def count_axes_from_end(conversion: Conversion) -> None:
    """Count the axes of each Flatten from the end, so that a batch axis does not matter."""
    plain_flatten(conversion.draft)


def _join_flattens(draft: Draft, why: str) -> None:
    """Make one Flatten of those that follow each other and end at one axis."""
    while name := next(
        (name for name in draft.of_type("Flatten") if _feeds_flattens_only(draft, name)), ""
    ):
        inward, sources, targets = draft.shapes[name][0], draft.sources(name), draft.targets(name)
        ends = {"input_type": np.array(inward), "start_dim": np.array(0), "end_dim": np.array(-1)}
        for target in targets:
            draft.nodes[target] = draft.nodes[target] | ends
            draft.shapes[target] = (inward, draft.shapes[target][1])
            draft.changed(
                target, Text("is merged with '{node}' and flattens all axes", node=name), why
            )
        draft.edges = [edge for edge in draft.edges if name not in edge]
        draft.edges += [(source, target) for source in sources for target in targets]
        del draft.nodes[name], draft.shapes[name]


def _feeds_flattens_only(draft: Draft, name: str) -> bool:
    """Return whether a node feeds only Flattens to one axis, and is their only input."""
    targets = draft.targets(name)
    return bool(targets) and all(
        draft.nodes[target]["type"] == "Flatten"
        and draft.sources(target) == [name]
        and len(draft.shapes[target][1]) == 1
        for target in targets
    )


def reorder_flattened(draft: Draft, to_channels_last: bool, why: str) -> None:
    """Follow the order of each Flatten, which changes between (C, H, W) and (H, W, C).

    The columns of the weights that follow are permuted; before other nodes, a permutation is inserted.

    Raises:
        ConversionError: A Flatten joins only some of several axes, and no other Flatten joins the rest.
    """
    _join_flattens(draft, why)
    for name in draft.of_type("Flatten"):
        inward, outward = draft.shapes[name]
        if len(inward) < 2:
            continue
        if len(outward) > 1:
            raise ConversionError(
                f"node '{name}' (Flatten) changes shape {inward} to {outward}, but {why}",
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
                draft.changed(
                    target, Text("its columns are reordered to match '{node}'", node=name), why
                )
                continue
            weight = np.eye(columns.size, dtype=np.float32)[:, columns]
            permutation = draft.insert(
                (name, target), f"{name}_order", {"type": "Linear", "weight": weight}
            )
            draft.changed(
                permutation,
                Text("a permutation between '{node}' and '{target}'", node=name, target=target),
                why,
            )


#: Maximum number of weights of a network that is written with matrices.
MAX_WEIGHTS = 2**23


def fits_as_matrices(draft: Draft) -> bool:
    """Return whether a network has several axes somewhere, and few enough weights without them."""
    shapes = [draft.shapes[name] for name, entry in draft.nodes.items() if entry["type"] != "Input"]
    if not any(len(shape) > 1 for ends in shapes for shape in ends):
        return False
    weights = 0
    for name in draft.of_type("Conv1d", "Conv2d", *POOLS):
        inward, outward = draft.shapes[name]
        if len(inward) == len(outward):
            weights += int(np.prod((inward, outward)))
    return weights <= MAX_WEIGHTS


def write_as_matrices(conversion: Conversion) -> None:
    """Write all nodes with one axis, and convolutions and pools as matrices.

    An importer that shares weights between positions does not support neurons that differ between
    positions, and some support no Conv1d; matrices avoid both. They need more memory, so this is
    the second attempt.

    Raises:
        ConversionError: A node of several axes that cannot be written in this form.
    """
    draft = conversion.draft
    why = "the importer does not support layers of these shapes"
    if draft.channels_last:
        reorder_flattened(draft, False, "other frameworks have channels first")
        draft.channels_last = False
    dense_groups(draft, why)
    for name in list(draft.nodes):
        entry, (inward, outward) = draft.nodes[name], draft.shapes[name]
        if entry["type"] == "Input":
            continue
        draft.shapes[name] = ((int(np.prod(inward)),), (int(np.prod(outward)),))
        if entry["type"] == "Flatten":
            remove_node(draft, name)
            continue
        draft.nodes[name] = _with_one_axis(name, entry, inward, outward)
        if draft.nodes[name]["type"] != entry["type"]:
            draft.changed(name, Text("{type} is written as a matrix", type=entry["type"]), why)
    for name in draft.of_type("Output"):
        draft.nodes[name]["shape"] = np.array(draft.shapes[name][0])
    for name in draft.of_type("Input"):
        if len(draft.shapes[name][1]) > 1:
            flat = draft.free(f"{name}_flat")
            draft.edges = [
                (flat if source == name else source, target) for source, target in draft.edges
            ]
            add_flatten(draft, name, flat)


def _with_one_axis(
    name: str, entry: dict[str, Any], inward: tuple[int, ...], outward: tuple[int, ...]
) -> dict[str, Any]:
    """Return the entry of a node with one axis."""
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

    def matrix(dtype: DTypeLike) -> np.ndarray:
        """Return the weights (outputs, inputs) between all channels and pixels."""
        node = as_node(name, entry)
        assert node.traits.entries is not None
        source, target, value = node.traits.entries(entry, window(node), inward)
        weights = np.zeros((math.prod(outward), math.prod(inward)), dtype)
        weights[target, source] = value
        return weights

    if kind in ("Conv1d", "Conv2d"):
        pixels = math.prod(outward[1:])
        bias = np.repeat(np.asarray(entry["bias"]), pixels)
        return {
            "type": "Affine",
            "weight": matrix(np.asarray(entry["weight"]).dtype),
            "bias": bias,
            **meta,
        }
    if kind in POOLS:
        return {"type": "Linear", "weight": matrix(np.float32), **meta}
    if kind == "Output":
        return dict(entry)
    raise ConversionError(
        Text(
            "node '{node}' ({type}) has the shape {shape} and cannot be written with one axis",
            node=name,
            type=kind,
            shape=inward,
        ),
        fix="add a Flatten before it",
        node=name,
    )


def remove_node(draft: Draft, name: str) -> None:
    """Remove a node that computes the identity. If its neighbours are connected directly, too, it
    becomes weights, because parallel edges count once.
    """
    bypass = list(itertools.product(draft.sources(name), draft.targets(name)))
    if any(edge in draft.edges for edge in bypass):
        draft.nodes[name] = identity(draft.shapes[name][0])
        return
    draft.edges = [edge for edge in draft.edges if name not in edge] + bypass
    del draft.nodes[name], draft.shapes[name]


def add_flatten(draft: Draft, source: str, name: str) -> None:
    """Add a Flatten of all axes after a node."""
    shape = draft.shapes[source][1]
    draft.edges.append((source, name))
    draft.nodes[name] = {
        "type": "Flatten",
        "input_type": np.array(shape),
        "start_dim": np.array(-len(shape)),
        "end_dim": np.array(-1),
    }
    draft.shapes[name] = (shape, (int(np.prod(shape)),))


CHANNELS_IN_ORDER = Condition(
    "channels have the order of the target framework where axes are flattened",
    lambda conversion: conversion.draft.channels_last == conversion.target.channels_last,
)
AXES_FROM_END = Condition(
    "the axes of each Flatten are counted from the end",
    lambda conversion: all(
        conversion.draft.nodes[name]["start_dim"] < 0
        and conversion.draft.nodes[name]["end_dim"] < 0
        for name in conversion.draft.of_type("Flatten")
    ),
)
ONE_GROUP = Condition(
    "every convolution has one group",
    lambda conversion: all(
        np.all(np.asarray(conversion.draft.nodes[name]["groups"]) == 1)
        for name in conversion.draft.of_type("Conv1d", "Conv2d")
    ),
)
NO_DILATIONS = Condition(
    "no convolution is dilated",
    lambda conversion: (
        not any(
            _is_dilated(conversion.draft.nodes[name])
            for name in conversion.draft.of_type("Conv1d", "Conv2d")
        )
    ),
)
POOLS_OF_ONE_TYPE = Condition(
    "all pools are of the type that the importer supports",
    lambda conversion: all(
        conversion.draft.nodes[name]["type"] == conversion.importer.pool
        for name in conversion.draft.of_type(*POOLS)
    ),
)
POOLS_WITHOUT_PADDING = Condition(
    "no pool has padding",
    lambda conversion: (
        not any(
            any(_padding_before(name, conversion.draft.nodes[name]))
            for name in conversion.draft.of_type(*POOLS)
        )
    ),
)
ONE_AXIS = Condition(
    "every node has one axis, except Inputs and the Flattens after them",
    lambda conversion: all(
        len(shape) == 1
        for name, entry in conversion.draft.nodes.items()
        if entry["type"] not in ("Input", "Flatten")
        for shape in conversion.draft.shapes[name]
    ),
)
