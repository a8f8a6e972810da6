"""The order in which an importer runs nodes: edges and names that make it run sources before what they
feed, and loops as the source does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.convert.target import Target
from jaxsnn.nir.convert.topology import as_problem, forward_order, recurrent_edges, refuse_for
from jaxsnn.nir.frameworks.source_step import Step
from jaxsnn.nir.model.changes import Edge, edge_key
from jaxsnn.nir.model.draft import (
    NEURON_TYPES,
    Draft,
    identity,
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
        refuse_for(target, [as_problem(last, what, fix="leave the loop out")])
    if wrong:
        source, end = wrong[0]
        what = f"the loop through '{source}' and '{end}' would act in another step there"
        refuse_for(target, [as_problem(end, what, fix="leave the loop out")])


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
    recurrent = recurrent_edges(draft)
    for place, (source, neuron) in enumerate(recurrent):
        biased = np.any(draft.nodes[source].get("bias", 0))
        if len(draft.targets(source)) > 1 and (apart or biased):
            source = weighted_feeder(draft, source, neuron, False)
            recurrent[place] = (source, neuron)
        _bias_out_of_loop(draft, source, neuron, recurrent)
    return recurrent


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


def threaded(draft: Draft, loops: Sequence[Edge], title: str) -> list[Edge]:
    """Edges that must come first, in this order, so that depth first is sources first; missing ones
    are added.

    Args:
        draft: Edited in place.
        loops: Edges from the weights of a loop to its neuron.
        title: The framework, for messages.

    Raises:
        ConversionError: Nodes of shapes between which NIR has no connection of weight zero.
    """
    import networkx

    inner = {weights for weights, _ in loops}
    edges = [edge for edge in sorted(draft.edges, key=edge_key) if not inner & {*edge}]
    counted = [target for _, target in edges]
    if all(counted.count(name) == 1 for name in counted):
        return []
    order = [
        *reversed(
            list(networkx.dfs_postorder_nodes(networkx.DiGraph(edges), draft.of_type("Input")[0]))
        )
    ]
    (end,) = draft.of_type("Output")
    order = [*(name for name in order if name != end), end]
    first: list[Edge] = []
    for before, after in pairwise(order):
        first += (
            [(before, after)] if (before, after) in edges else _thread(draft, before, after, title)
        )
    return first


def _thread(draft: Draft, before: str, after: str, title: str) -> list[Edge]:
    """A connection of weight zero; its edges."""
    outward, inward = draft.shapes[before][1], draft.shapes[after][0]
    name = draft.free(f"{before}_{after}_order")
    chain = [before, name, after]
    if len(inward) == 1 and len(outward) == 1:
        entry = {"type": "Linear", "weight": np.zeros((inward[0], outward[0]))}
    elif len(inward) == 1:
        flat, size = draft.free(f"{name}_flat"), int(np.prod(outward))
        ends = {"start_dim": np.array(-len(outward)), "end_dim": np.array(-1)}
        draft.nodes[flat] = {"type": "Flatten", "input_type": np.array(outward), **ends}
        draft.shapes[flat] = (outward, (size,))
        chain.insert(1, flat)
        entry = {"type": "Linear", "weight": np.zeros((inward[0], size))}
    elif outward[1:] == inward[1:] and len(inward) == 3:
        entry = identity(outward) | {
            "weight": np.zeros((inward[0], outward[0], 1, 1)),
            "bias": np.zeros(inward[0]),
        }
    else:
        raise ConversionError(
            f"node '{after}' must run after '{before}', so that their sum is that of one step, and "
            f"NIR has no connection of weight zero from shape {outward} to {inward}, "
            f"which {title}'s importer needs for this",
            fix="flatten one of them",
            node=after,
        )
    draft.nodes[name] = entry
    draft.shapes[name] = (draft.shapes[chain[-3]][1], inward)
    edges = list(pairwise(chain))
    draft.edges += edges
    draft.changed(
        name,
        f"a connection of weight zero from '{before}'",
        f"{title}'s importer runs nodes depth first",
    )
    return edges
