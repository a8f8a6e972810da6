"""Nodes, edges and names as an importer needs them: loops, sums, chains, and what layers that take
a step ask for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError, Problem, listing
from jaxsnn.nir.convert.target import Target
from jaxsnn.nir.convert.thread import threaded
from jaxsnn.nir.frameworks.source_step import Step
from jaxsnn.nir.model.changes import Edge, edge_key
from jaxsnn.nir.model.draft import (
    NEURON_TYPES,
    POOLS,
    Draft,
    identity,
    loops_of,
    rounded,
    weighted_feeder,
)
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.loops import (
    depth_first,
    importer_late_edges,
    late_edges,
    loops_of_several,
    stepped_loops,
)


def join_outputs(draft: Draft, target: Target) -> None:
    """Put an identity before an Output that sums: importers add what arrives at any other node."""
    for name in draft.of_type("Output") if target.importer.sums else ():
        sources = draft.sources(name)
        if len(_summed(draft, name, target)) < 2:
            continue
        join = draft.insert((sources[0], name), f"{name}_sum", identity(draft.shapes[name][0]))
        draft.edges = [
            (source, join if source in sources and end == name else end)
            for source, end in draft.edges
        ]
        draft.changed(
            join,
            f"an identity that sums what goes to '{name}'",
            "importers take one source of an Output",
        )


def _summed(draft: Draft, output: str, target: Target) -> list[str]:
    """Return the sources that an Output adds up, without those of weight zero by which an earlier
    conversion made an importer that runs nodes depth first run them before the Output.
    """
    return [
        source
        for source in draft.sources(output)
        if not target.importer.depth_first or np.any(draft.nodes[source].get("weight", 1))
    ]


def check_loops(draft: Draft, target: Target) -> None:
    """Join weights that follow each other in a loop, and refuse loops that are not one neuron and
    one weight matrix then.

    Raises:
        ConversionError: Names the first node and the number of other problems.
    """
    for part in loops_of(draft):
        delayed = any({*edge} <= {*part} for edge in draft.delayed)
        join_weights(draft, part, biased=delayed)
    problems = list(_loop_problems(draft, target))
    if not target.importer.feeds_back:
        problems = [
            _reason(
                part[0],
                f"the loop through {listing(part)} would act a step later, "
                "and what its importer makes runs each layer through all steps before the next",
                fix="leave the loop out, or convert for a framework that runs loops",
            )
            for part in loops_of(draft)
        ]
    refuse_for(target, problems)


def _is_identity(entry: Mapping[str, Any]) -> bool:
    """Return whether weights change nothing."""
    weight = np.asarray(entry["weight"])
    square = weight.ndim == 2 and weight.shape[0] == weight.shape[1]
    return bool(
        square and np.all(weight == np.eye(len(weight))) and not np.any(entry.get("bias", 0))
    )


def join_weights(draft: Draft, part: Sequence[str], *, biased: bool = False) -> None:
    """Multiply matrices that follow each other among some nodes; with `biased` those alone of which
    the first has a bias, as importers leave it out of the first step of a loop.
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
            # The first weights keep their name, so that a loop that was made longer is made so again.
            draft.edges = [
                (first if source == name else source, end)
                for source, end in draft.edges
                if end != name
            ]
            draft.delayed = [
                (first if source == name else source, end) for source, end in draft.delayed
            ]
            del draft.nodes[name]
            draft.changed(first, f"takes '{name}' in", "weights that follow each other")
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
        draft.changed(name, f"takes '{first}' in", "weights that follow each other")


def check_wiring(draft: Draft, target: Target) -> None:
    """Refuse node types and wiring that the importer cannot express, all of them at once.

    Raises:
        ConversionError: Names the first node and the number of other problems.
    """
    taken = target.importer.nodes or ()
    found = [
        _reason(
            name,
            f"node '{name}' is a {draft.nodes[name]['type']}, which its importer does not map",
            fix=f"replace it by one of {listing(taken)}",
        )
        for name in draft.nodes
        # Of neurons, what is written for the importer decides.
        if draft.nodes[name]["type"] not in (*taken, *POOLS, *NEURON_TYPES)
    ]
    for kind in ("Input", "Output"):
        ends = draft.of_type(kind)
        if len(ends) != 1:
            what = f"it has {len(ends)} {kind} nodes ({listing(ends)}), and its importer takes one"
            found.append(_reason("", what, fix=keep_one(kind)))
    found += [*_loop_problems(draft, target), *_sum_problems(draft, target)]
    refuse_for(target, found)


def keep_one(kind: str) -> str:
    """How to make a graph of one Input or Output."""
    fix = f"make a graph for each {kind}, without the others and their edges"
    return fix if kind == "Input" else f"{fix}; nodes that then reach no Output are left out"


def refuse_for(target: Target, problems: Sequence[Problem]) -> None:
    """Raise a ConversionError for the first problem of a target with a graph, if there is one."""
    if problems:
        message = f"{_refusal(target)}" + problems[0].message
        first = dataclasses.replace(problems[0], message=message)
        raise ConversionError.of((first, *problems[1:]))


def _refusal(target: Target) -> str:
    return f"{target.title} cannot take this graph: "


def without_title(message: str, target: Target) -> str:
    """What `refuse_for` says, without the title."""
    return message.removeprefix(_refusal(target))


def _reason(node: str, message: str, *, fix: str) -> Problem:
    return Problem(node=node, code=ConversionError.default_code, message=message, fix=fix)


def _loop_problems(draft: Draft, target: Target) -> Iterator[Problem]:
    """A loop must be one neuron and one weight matrix: then every framework delays the same edge."""
    for part in loops_of(draft):
        if len(part) == 2 and set(part) & set(draft.memories):
            continue
        straight = [name for name in part if (name, name) in draft.edges]
        if straight and len(part) > 1:
            what = f"node '{straight[0]}' feeds itself straight, and through {listing(part)}"
            fix = "add an identity to the weights of its loop, and leave the straight edge out"
            yield _reason(straight[0], what, fix=fix)
            continue
        # The source runs them as an importer does, and so will the target.
        if target.runs_loops and any({*edge} <= {*part} for edge in draft.delayed):
            continue
        kinds = sorted(
            "neuron" if draft.nodes[name]["type"] in NEURON_TYPES else "other" for name in part
        )
        matrices = [name for name in part if draft.nodes[name]["type"] in ("Linear", "Affine")]
        if kinds != ["neuron", "other"] or len(matrices) != 1:
            what = (
                f"the loop through {listing(part)} is not one neuron and one weight matrix, "
                "and frameworks differ in which of its edges takes a step"
            )
            fix = "feed the neuron back through one weight matrix"
            yield _reason(part[0], what, fix=fix)


def _sum_problems(draft: Draft, target: Target) -> Iterator[Problem]:
    inner = {name for part in loops_of(draft) for name in part}
    for name in draft.nodes:
        sources = [
            source for source in draft.sources(name) if not (name in inner and source in inner)
        ]
        is_output = draft.nodes[name]["type"] == "Output"
        summed = _summed(draft, name, target) if is_output else sources
        if len(summed) > 1 and (not target.importer.sums or is_output):
            what = (
                f"node '{name}' sums {listing(sources)}, "
                "and its importer does not add them in one step"
            )
            yield _reason(name, what, fix="feed it from one node")
        outward = [end for end in draft.targets(name) if not (name in inner and end in inner)]
        if target.importer.chain and len(outward) > 1:
            what = f"node '{name}' feeds {listing(outward)}, and its importer follows one edge"
            yield _reason(name, what, fix="let it feed one node")


def rewire(draft: Draft, target: Target, steps: Mapping[str, Step], dt: float) -> None:
    """Edges and names for the importer, whose step is `dt`."""
    importer = target.importer
    recurrent = settle_loops(draft, apart=importer.depth_first)
    # An importer that runs nodes depth first returns what ran last, so that loops must come before
    # what follows them.
    weights = {source for source, _ in recurrent}
    inner = [edge for edge in draft.edges if weights & {*edge}]
    sums = threaded(draft, recurrent, target.title) if importer.depth_first else []
    first = [*inner, *sums]
    onward = _reaching_output(draft, recurrent)
    rest = [edge for edge in sorted(draft.edges, key=edge_key) if edge not in first]
    # of what a node feeds, first what only leads back into its loop
    rest.sort(key=lambda edge: edge[1] in onward)
    draft.edges = [*first, *rest]
    if importer.by_name and draft.delayed:
        _name_in_order(draft, target.title)
    for edge in recurrent if importer.longer_loops else ():
        weights, neuron = _renamed(draft, edge)
        alone = draft.sources(weights) == [neuron] and draft.nodes[neuron]["type"] in NEURON_TYPES
        if edge[1] in draft.memories or (edge in draft.delayed and not alone):
            continue
        longer = _longer_loop(draft, (weights, neuron), target.title)
        draft.delayed = [longer if each == edge else each for each in draft.delayed]
    if importer.wire is not None:
        later = target.late and not any(step.late for step in steps.values())
        importer.wire(draft, recurrent, later, dt)


def _reaching_output(draft: Draft, recurrent: Sequence[Edge]) -> set[str]:
    """Nodes from which an Output is reached without going round a loop."""
    import networkx

    graph = networkx.DiGraph([edge for edge in draft.edges if edge not in recurrent])
    found = set(draft.of_type("Output"))
    return found.union(*(networkx.ancestors(graph, name) for name in found if name in graph))


def check_order(draft: Draft, made: Graph, target: Target) -> None:
    """Refuse a graph of whose loops an importer would let others act a step later.

    Args:
        draft: After `rewire`, its `delayed` still in the names before.
        made: The graph that was made of it.
        target: Whom it is written for.
    """
    delayed = {_renamed(draft, edge) for edge in draft.delayed}
    stepped = {name for part in stepped_loops(made) for name in part}
    meant = {edge for edge in delayed if stepped.issuperset(edge)}
    late = late_edges(made)
    remembering = {draft.renamed.get(name, name) for name in draft.memories}
    inside = {edge for edge in late if edge[1] not in remembering}
    only = [
        name
        for name in {end for _, end in late}
        if all((source, name) in late for source in made.predecessors(name))
    ]
    wrong = sorted((meant - {*late}) | (inside - meant)) + [(name, name) for name in sorted(only)]
    if not (meant and wrong):
        wrong = sorted(_wrong_of_several(made, delayed, target))
    if target.importer.depth_first and (last := depth_first(made)[-1]) not in made.outputs:
        what = f"what its importer makes returns what node '{last}' gives, which runs last"
        refuse_for(target, [_reason(last, what, fix="leave the loop out")])
    if wrong:
        source, end = wrong[0]
        what = f"the loop through '{source}' and '{end}' would act in another step there"
        refuse_for(target, [_reason(end, what, fix="leave the loop out")])


def _wrong_of_several(made: Graph, delayed: set[Edge], target: Target) -> set[Edge]:
    """Edges of loops through several neurons that act in another step in the importer than meant."""
    order = target.runs_loops
    nodes = {name for part in loops_of_several(made) for name in part}
    meant = {edge for edge in delayed if nodes.issuperset(edge)}
    late = None if order is None else importer_late_edges(made, order)
    return meant if late is None else meant ^ {*late}


def _renamed(draft: Draft, edge: Edge) -> Edge:
    return draft.renamed.get(edge[0], edge[0]), draft.renamed.get(edge[1], edge[1])


def settle_loops(draft: Draft, *, apart: bool = False) -> list[Edge]:
    """Move biases out of loops, which importers leave out of the first step; the edges from weights
    to neuron.

    Args:
        apart: Weights of a loop must feed nothing beside.
    """
    recurrent = _recurrent_edges(draft)
    for place, (source, neuron) in enumerate(recurrent):
        biased = np.any(draft.nodes[source].get("bias", 0))
        if len(draft.targets(source)) > 1 and (apart or biased):
            source = weighted_feeder(draft, source, neuron, False)
            recurrent[place] = (source, neuron)
        _bias_out_of_loop(draft, source, neuron, recurrent)
    return recurrent


def _recurrent_edges(draft: Draft) -> list[Edge]:
    """Edges from the weights of a loop to its neuron."""
    found = list(draft.delayed)
    for part in loops_of(draft):
        if any(edge[1] in part for edge in draft.delayed):
            continue
        weights, neuron = sorted(
            part,
            key=lambda name: draft.nodes[name]["type"] in NEURON_TYPES or name in draft.memories,
        )
        found.append((weights, neuron))
    return found


def _bias_out_of_loop(draft: Draft, weights: str, neuron: str, recurrent: list[Edge]) -> None:
    """Importers leave loops out of the first step, their biases included; so the bias goes to an
    input that is in none.
    """
    entry = draft.nodes[weights]
    if entry["type"] != "Affine":
        return
    bias = np.asarray(entry.pop("bias"))
    draft.nodes[weights] = entry | {"type": "Linear"}
    if not np.any(bias):
        return
    others = [one for one in draft.sources(neuron) if (one, neuron) not in recurrent]
    feeder = next(
        (name for name in others if draft.nodes[name]["type"] in ("Linear", "Affine")), None
    )
    if feeder is None or len(draft.targets(feeder)) > 1:
        raise ConversionError(
            f"node '{weights}' has a bias in a loop, which importers leave out of the first step, "
            f"and '{neuron}' has no weights outside of loops that could take it",
            fix=f"put an Affine before '{neuron}'",
            node=weights,
        )
    taken = draft.nodes[feeder]
    moved = np.asarray(taken.get("bias", 0), float) + bias
    draft.nodes[feeder] = taken | {
        "type": "Affine",
        "bias": rounded(moved, np.asarray(taken["weight"])),
    }
    draft.changed(
        weights,
        f"its bias is moved to '{feeder}'",
        "the importer leaves a loop out of the first step",
    )


def _name_in_order(draft: Draft, title: str) -> None:
    """Names whose alphabetical order is that in which the nodes must run."""
    order = forward_order(draft)
    width = len(str(len(order)))
    names = {name: f"n{place:0{width}d}_{name}" for place, name in enumerate(order)}
    for name, new in names.items():
        draft.changed(new, f"'{name}' is renamed", f"{title}'s importer runs nodes by their names")
    draft.shapes = {names[name]: draft.shapes[name] for name in draft.nodes}
    draft.nodes = {names[name]: entry for name, entry in draft.nodes.items()}
    draft.edges = [(names[source], names[target]) for source, target in draft.edges]
    draft.renamed = names


def _longer_loop(draft: Draft, edge: Edge, title: str) -> Edge:
    """Make three nodes of a loop of two, on which the importer fails; its edge to the neuron."""
    shape = draft.shapes[edge[0]][1]
    entry = {
        "type": "Linear",
        "weight": np.eye(shape[0], dtype=np.asarray(draft.nodes[edge[0]]["weight"]).dtype),
    }
    name = draft.insert(edge, f"{edge[0]}.identity", entry)
    before = {new: old for old, new in draft.renamed.items()}
    if edge[0] in before:
        draft.renamed[f"{before[edge[0]]}.identity"] = name
    draft.changed(
        name,
        "an identity in the loop",
        f"{title}'s importer fails on loops of two nodes, and runs longer ones",
    )
    return name, edge[1]


def depths(draft: Draft, title: str) -> dict[str, int]:
    """Layers of neurons up to each node, itself included.

    Args:
        draft: The graph.
        title: The framework whose layers take a step, for messages.

    Raises:
        ConversionError: Paths of different depth meet, which a framework whose layers take a step
            cannot do alike.
    """
    depth: dict[str, int] = {}
    for name in forward_order(draft):
        before = {depth[source] for source in draft.sources(name) if source in depth}
        if len(before) > 1:
            raise ConversionError(
                f"node '{name}' sums paths of {listing(sorted(before))} layers, "
                f"which would not meet, because each layer of {title} takes a step",
                fix="sum paths of equally many layers",
                node=name,
            )
        depth[name] = (before.pop() if before else 0) + (draft.nodes[name]["type"] in NEURON_TYPES)
    return depth


def shift_of(
    draft: Draft, target: Target, steps: Mapping[str, Step], source: str
) -> dict[str, int]:
    """Steps by which spikes leave later than in the source, one for each layer that is late in one
    of the two.

    Args:
        draft: The graph.
        target: Whom it is written for.
        steps: Of the source.
        source: Title of the source's framework.
    """
    change = int(target.late) - int(any(step.late for step in steps.values()))
    if change == 0:
        return {}
    title = target.title if target.late else source
    depth = depths(draft, title)
    shift = {name: change * depth[name] for name in draft.of_type("Output")}
    for name, steps_later in shift.items():
        when = "later" if steps_later > 0 else "earlier"
        draft.changed(
            name,
            f"spikes leave {abs(steps_later)} steps {when}",
            f"each layer of {title} takes a step, others none",
        )
    return shift


def forward_order(draft: Draft) -> list[str]:
    import networkx

    loops = set(_recurrent_edges(draft))
    graph = networkx.DiGraph([edge for edge in draft.edges if edge not in loops])
    graph.add_nodes_from(draft.nodes)
    try:
        return list(networkx.lexicographical_topological_sort(graph))
    except networkx.NetworkXUnfeasible:
        inside = sorted(edge[0] for edge in networkx.find_cycle(graph))
        raise ConversionError(
            f"nodes {listing(inside)} form a loop through which importers run in no order",
            fix="break it, or let a neuron that fires stand for the readout in it",
            node=inside[0],
        ) from None
