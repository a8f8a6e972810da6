"""Nodes and edges that an importer supports: types, loops, sums, and layers that take a step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError, Problem, listing
from jaxsnn.nir.convert.passes import Condition, Conversion
from jaxsnn.nir.convert.target import Target
from jaxsnn.nir.model.changes import Edge
from jaxsnn.nir.model.draft import (
    NEURON_TYPES,
    POOLS,
    Draft,
    identity,
    loops_of,
    rounded,
)
from jaxsnn.wording import Text


def sum_before_outputs(conversion: Conversion) -> None:
    """Insert an identity before each Output with several inputs, because importers add the inputs
    of other nodes only.
    """
    draft = conversion.draft
    for name in draft.of_type("Output"):
        sources = draft.sources(name)
        if len(_summed(draft, name, conversion.target)) < 2:
            continue
        join = draft.insert((sources[0], name), f"{name}_sum", identity(draft.shapes[name][0]))
        draft.edges = [
            (source, join if source in sources and end == name else end)
            for source, end in draft.edges
        ]
        draft.changed(
            join,
            Text("an identity that sums the inputs of '{node}'", node=name),
            "importers support one input per Output",
        )


def _summed(draft: Draft, output: str, target: Target) -> list[str]:
    """Return the sources that an Output adds up, without connections of weight zero: an earlier
    conversion added these for an importer that runs nodes depth first, to run them before the Output.
    """
    return [
        source
        for source in draft.sources(output)
        if target.importer.order != "depth first" or np.any(draft.nodes[source].get("weight", 1))
    ]


def merge_loop_weights(conversion: Conversion) -> None:
    """Multiply consecutive weights of a loop, and reject loops that the importer would run differently.

    Raises:
        ConversionError: A loop that then does not consist of one population and one weight matrix.
    """
    draft, target = conversion.draft, conversion.target
    for part in loops_of(draft):
        delayed = any({*edge} <= {*part} for edge in draft.delayed)
        merge_weights(draft, part, biased=delayed)
    problems = list(_loop_problems(draft, target))
    if "loops" not in target.importer.wiring:
        problems = [
            as_problem(
                part[0],
                Text(
                    "the loop through {nodes} cannot be run: the loaded module runs each layer through "
                    "all time steps before the next layer",
                    nodes=listing(part),
                ),
                fix="remove the loop, or convert for a framework that supports loops",
            )
            for part in loops_of(draft)
        ]
    refuse_for(target, problems)


def _is_identity(entry: Mapping[str, Any]) -> bool:
    """Return whether weights are an identity."""
    weight = np.asarray(entry["weight"])
    square = weight.ndim == 2 and weight.shape[0] == weight.shape[1]
    return bool(
        square and np.all(weight == np.eye(len(weight))) and not np.any(entry.get("bias", 0))
    )


def merge_weights(draft: Draft, part: Sequence[str], *, biased: bool = False) -> None:
    """Multiply consecutive matrices among some nodes. With `biased`, only those of which the first
    has a bias, because importers omit this bias in the first step of a loop.
    """
    waiting = [*part]
    while waiting:
        first = waiting.pop(0)
        if first not in draft.nodes:
            continue
        entry = draft.nodes[first]
        targets = draft.targets(first)
        if entry["type"] not in ("Linear", "Affine") or len(targets) != 1 or targets[0] == first:
            continue
        bias = np.asarray(entry.get("bias", 0.0))
        if (biased and not np.any(bias)) or (first, targets[0]) in draft.delayed:
            continue
        second = draft.nodes[targets[0]]
        alone = second["type"] in ("Linear", "Affine") and draft.sources(targets[0]) == [first]
        if targets[0] not in part or not alone:
            continue
        (name,) = targets
        if _is_identity(second):
            # Keep the name of the first weights: a writer that lengthens loops by an identity
            # derives the identity's name from it, and must arrive at the same name again.
            draft.edges = [
                (first if source == name else source, end)
                for source, end in draft.edges
                if end != name
            ]
            draft.delayed = [
                (first if source == name else source, end) for source, end in draft.delayed
            ]
            del draft.nodes[name]
            draft.changed(
                first,
                Text("is multiplied by '{node}'", node=name),
                "consecutive weights are merged",
            )
            waiting.insert(0, first)
            continue
        if np.any(bias):
            through = np.asarray(second["weight"], float) @ bias
            draft.nodes[name] = second = second | {
                "type": "Affine",
                "bias": rounded(through + np.asarray(second.get("bias", 0.0)), bias),
            }
        second["weight"] = np.asarray(second["weight"]) @ np.asarray(entry["weight"])
        draft.edges = [
            (source, name if end == first else end)
            for source, end in draft.edges
            if source != first
        ]
        del draft.nodes[first]
        draft.shapes[name] = (draft.shapes[first][0], draft.shapes[name][1])
        draft.changed(
            name, Text("is multiplied by '{first}'", first=first), "consecutive weights are merged"
        )


def check_wiring(conversion: Conversion) -> None:
    """Reject node types and connections that the importer does not support."""
    refuse_wiring(conversion.draft, conversion.target)


def refuse_wiring(draft: Draft, target: Target) -> None:
    """Reject node types and connections that an importer does not support, all in one exception.

    Raises:
        ConversionError: There are such nodes or connections; the message names the first and the number
            of the others.
    """
    refuse_for(target, _wiring_problems(draft, target))


def _wiring_problems(draft: Draft, target: Target) -> list[Problem]:
    mapped_types = target.importer.nodes or ()
    problems = [
        as_problem(
            name,
            Text(
                "the importer does not support node '{node}' ({type})",
                node=name,
                type=draft.nodes[name]["type"],
            ),
            fix=f"replace it by one of {listing(mapped_types)}",
        )
        for name in draft.nodes
        # Neurons are checked when they are written for the importer.
        if draft.nodes[name]["type"] not in (*mapped_types, *POOLS, *NEURON_TYPES)
    ]
    for kind in ("Input", "Output"):
        ends = draft.of_type(kind)
        if len(ends) != 1:
            message = Text(
                "its importer supports one {type} node, and the graph has {count} ({nodes})",
                count=len(ends),
                type=kind,
                nodes=listing(ends),
            )
            problems.append(as_problem("", message, fix=keep_one(kind)))
    return [*problems, *_loop_problems(draft, target), *_sum_problems(draft, target)]


def keep_one(kind: str) -> str:
    """Return the advice for graphs of several Inputs or Outputs."""
    fix = f"make one graph per {kind}, without the other nodes of this type and their edges"
    return (
        fix if kind == "Input" else f"{fix}; nodes that then have no path to an Output are removed"
    )


def refuse_for(target: Target, problems: Sequence[Problem]) -> None:
    """Raise a ConversionError for the problems of a target with a graph, if there are any."""
    if problems:
        message = _refusal(target) + problems[0].message
        first = dataclasses.replace(problems[0], message=message)
        raise ConversionError.of((first, *problems[1:]))


def _refusal(target: Target) -> Text:
    return Text("{framework} cannot load this graph: ", framework=target.title)


def without_title(message: str, target: Target) -> str:
    """Return a message of `refuse_for` without the title of its target."""
    title = _refusal(target)
    return message.without(title) if isinstance(message, Text) else message.removeprefix(title)


def as_problem(node: str, message: str, *, fix: str) -> Problem:
    """Return a problem of a conversion as a record."""
    return Problem(node=node, code=ConversionError.default_code, message=message, fix=fix)


def _loop_problems(draft: Draft, target: Target) -> Iterator[Problem]:
    """Yield a problem for each loop that does not consist of one population and one weight matrix:
    in other loops, frameworks delay different edges.
    """
    for part in loops_of(draft):
        if len(part) == 2 and set(part) & {*draft.memories, *draft.self_weights}:
            continue
        straight = [name for name in part if (name, name) in draft.edges]
        if straight and len(part) > 1:
            message = Text(
                "node '{node}' feeds itself both directly and through {nodes}",
                node=straight[0],
                nodes=listing(part),
            )
            fix = "add an identity to the weights of its loop, and remove the direct edge"
            yield as_problem(straight[0], message, fix=fix)
            continue
        # The source delays an edge of this loop; `check_order` verifies that the target does so.
        if target.runs_loops and any({*edge} <= {*part} for edge in draft.delayed):
            continue
        kinds = sorted(
            "neuron" if draft.nodes[name]["type"] in NEURON_TYPES else "other" for name in part
        )
        matrices = [name for name in part if draft.nodes[name]["type"] in ("Linear", "Affine")]
        if kinds != ["neuron", "other"] or len(matrices) != 1:
            message = Text(
                "the loop through {nodes} does not consist of one population and one weight matrix, "
                "and frameworks delay different edges of such loops",
                nodes=listing(part),
            )
            fix = "use one weight matrix for the feedback of each population"
            yield as_problem(part[0], message, fix=fix)


def _sum_problems(draft: Draft, target: Target) -> Iterator[Problem]:
    inner = recurrent_nodes(draft)
    for name in draft.nodes:
        sources = [
            source for source in draft.sources(name) if not (name in inner and source in inner)
        ]
        is_output = draft.nodes[name]["type"] == "Output"
        summed = _summed(draft, name, target) if is_output else sources
        if len(summed) > 1 and ("sums" not in target.importer.wiring or is_output):
            message = Text(
                "node '{node}' sums {sources}, and the importer does not add them in the same time "
                "step",
                node=name,
                sources=listing(sources),
            )
            yield as_problem(name, message, fix="connect a single node to it")
        outward = [end for end in draft.targets(name) if not (name in inner and end in inner)]
        if "forks" not in target.importer.wiring and len(outward) > 1:
            message = Text(
                "node '{node}' feeds {targets}, and the importer follows only one of these edges",
                node=name,
                targets=listing(outward),
            )
            yield as_problem(name, message, fix="connect it to one node")


def recurrent_nodes(draft: Draft) -> set[str]:
    """Return the nodes that are part of a loop."""
    return {name for part in loops_of(draft) for name in part}


def recurrent_edges(draft: Draft) -> list[Edge]:
    """Return the edges from the weights of a loop to its neuron."""
    edges = list(draft.delayed)
    for part in loops_of(draft):
        if any(edge[1] in part for edge in draft.delayed):
            continue
        weights, neuron = sorted(
            part,
            key=lambda name: draft.nodes[name]["type"] in NEURON_TYPES or name in draft.memories,
        )
        edges.append((weights, neuron))
    return edges


def layer_depths(draft: Draft, title: str) -> dict[str, int]:
    """Return the number of layers of neurons up to each node, itself included.

    Args:
        draft: The graph.
        title: Name of the framework whose layers delay spikes, for messages.

    Raises:
        ConversionError: Paths of different depth meet; a framework whose layers delay spikes cannot
            reproduce that.
    """
    depth: dict[str, int] = {}
    for name in forward_order(draft):
        before = {depth[source] for source in draft.sources(name) if source in depth}
        if len(before) > 1:
            raise ConversionError(
                Text(
                    "node '{node}' sums paths of {layers} layers, whose spikes would arrive in different "
                    "time steps, because each layer of {framework} delays spikes by one time step",
                    node=name,
                    layers=listing(sorted(before)),
                    framework=title,
                ),
                fix="sum paths with equal numbers of layers",
                node=name,
            )
        depth[name] = (before.pop() if before else 0) + (draft.nodes[name]["type"] in NEURON_TYPES)
    return depth


def measure_shift(conversion: Conversion) -> None:
    """Count the time steps by which spikes are emitted later or earlier than in the source framework.

    Raises:
        ConversionError: Paths of different depth meet.
    """
    draft, target = conversion.draft, conversion.target
    source_is_late = any(step.late for step in conversion.steps.values())
    change = int(target.late) - int(source_is_late)
    if change == 0:
        return
    title = target.title if target.late else conversion.source_title
    depth = layer_depths(draft, title)
    conversion.shift = {name: change * depth[name] for name in draft.of_type("Output")}
    for name, steps_later in conversion.shift.items():
        direction = "later" if steps_later > 0 else "earlier"
        draft.changed(
            name,
            Text(
                "its spikes are {steps_later} dt {direction}",
                steps_later=abs(steps_later),
                direction=direction,
            ),
            Text(
                "each layer of {target} delays spikes by one time step, but layers of other "
                "frameworks do not",
                target=title,
            ),
        )


def forward_order(draft: Draft) -> list[str]:
    """Return the nodes with sources before targets, loops aside.

    Raises:
        ConversionError: Nodes that form a loop without a delayed edge.
    """
    import networkx

    loops = set(recurrent_edges(draft))
    graph = networkx.DiGraph([edge for edge in draft.edges if edge not in loops])
    graph.add_nodes_from(draft.nodes)
    try:
        return list(networkx.lexicographical_topological_sort(graph))
    except networkx.NetworkXUnfeasible:
        inside = sorted(edge[0] for edge in networkx.find_cycle(graph))
        raise ConversionError(
            Text(
                "nodes {nodes} form a loop, for which importers have no order",
                nodes=listing(inside),
            ),
            fix="remove an edge of the loop, or replace the readout in it by a spiking neuron",
            node=inside[0],
        ) from None


LOOPS_RUN_ALIKE = Condition(
    "the importer delays the same edge of every loop as the source framework",
    lambda conversion: not [*_loop_problems(conversion.draft, conversion.target)],
)
WIRING_EXPRESSIBLE = Condition(
    "the importer supports the types (except neurons) and the connections of all nodes",
    lambda conversion: not _wiring_problems(conversion.draft, conversion.target),
)
OUTPUTS_HAVE_ONE_SOURCE = Condition(
    "every Output has one input",
    lambda conversion: all(
        len(_summed(conversion.draft, name, conversion.target)) < 2
        for name in conversion.draft.of_type("Output")
    ),
)
