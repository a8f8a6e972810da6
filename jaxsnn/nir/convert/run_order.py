"""The order in which an importer runs nodes: edges and names that make it run sources before their
targets, and loops like the source framework.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from jaxsnn.errors import ConversionError, Problem
from jaxsnn.nir.convert.layers import add_flatten
from jaxsnn.nir.convert.passes import Condition, Conversion
from jaxsnn.nir.convert.target import Target
from jaxsnn.nir.convert.topology import as_problem, forward_order, recurrent_edges, refuse_for
from jaxsnn.nir.model.changes import Edge, edge_key
from jaxsnn.nir.model.draft import (
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
from jaxsnn.wording import Text


def order_nodes(conversion: Conversion) -> None:
    """Order and name edges and nodes so that the importer runs inputs first and loops as the source does.

    Raises:
        ConversionError: A bias that cannot be moved to weights outside of loops, or shapes between
            which NIR has no connection of weight 0.
    """
    draft, target, importer = conversion.draft, conversion.target, conversion.importer
    goes_deep = importer.order == "depth first"
    recurrent = move_biases_out_of_loops(draft, alone=goes_deep)
    # An importer that runs nodes depth first returns the output of the last node, so loops must
    # come before the nodes that they feed.
    loop_weights = {source for source, _ in recurrent}
    loop_edges = [edge for edge in draft.edges if loop_weights & {*edge}]
    chain = _chain_depth_first(draft, recurrent, target.title) if goes_deep else []
    first = [*loop_edges, *chain]
    onward = _reaching_output(draft, recurrent)
    rest = [edge for edge in sorted(draft.edges, key=edge_key) if edge not in first]
    # Run targets that only lead back into their loop before targets on the way to an Output.
    rest.sort(key=lambda edge: edge[1] in onward)
    draft.edges = [*first, *rest]
    if importer.order == "names" and draft.delayed:
        _name_in_order(draft, target.title)
    if importer.wire is not None:
        only_target_is_late = target.late and not any(
            step.late for step in conversion.steps.values()
        )
        importer.wire(draft, recurrent, only_target_is_late, conversion.dt)


def _reaching_output(draft: Draft, recurrent: Sequence[Edge]) -> set[str]:
    """Return the nodes from which an Output is reached without going round a loop."""
    import networkx

    graph = networkx.DiGraph([edge for edge in draft.edges if edge not in recurrent])
    outputs = set(draft.of_type("Output"))
    return outputs.union(*(networkx.ancestors(graph, name) for name in outputs if name in graph))


def check_order(conversion: Conversion) -> None:
    """Reject loops in which the importer would delay a different edge.

    Raises:
        ConversionError: Such a loop; the message names its nodes.
    """
    refuse_for(conversion.target, _order_problems(conversion))


def _order_problems(conversion: Conversion) -> list[Problem]:
    draft, converted, target = conversion.draft, conversion.graph, conversion.target
    assert converted is not None
    # `draft.delayed` and `memories` have the names from before `order_nodes`.
    delayed = {_renamed(draft, edge) for edge in draft.delayed}
    stepped = {name for part in stepped_loops(converted) for name in part}
    expected = {edge for edge in delayed if stepped.issuperset(edge)}
    late = late_edges(converted)
    memories = {draft.renamed.get(name, name) for name in draft.memories}
    late_at_neurons = {edge for edge in late if edge[1] not in memories}
    late_only = [
        name
        for name in {end for _, end in late}
        if all((source, name) in late for source in converted.predecessors(name))
    ]
    wrong = sorted((expected - {*late}) | (late_at_neurons - expected))
    wrong += [(name, name) for name in sorted(late_only)]
    if not (expected and wrong):
        wrong = sorted(_wrong_of_several(converted, delayed, target))
    if (
        target.importer.order == "depth first"
        and (last := depth_first(converted)[-1]) not in converted.outputs
    ):
        message = Text(
            "the loaded module returns the output of node '{node}', which runs last and is not "
            "an Output",
            node=last,
        )
        return [as_problem(last, message, fix="remove the loop")]
    if wrong:
        source, end = wrong[0]
        message = Text(
            "the importer would delay a different edge of the loop through '{source}' and "
            "'{target}'",
            source=source,
            target=end,
        )
        return [as_problem(end, message, fix="remove the loop")]
    return []


def _wrong_of_several(converted: Graph, delayed: set[Edge], target: Target) -> set[Edge]:
    """Return edges of loops through several neurons that are delayed by a step only in the graph, or
    only in the importer.
    """
    order = target.runs_loops
    nodes = {name for part in loops_of_several(converted) for name in part}
    expected = {edge for edge in delayed if nodes.issuperset(edge)}
    late = None if order is None else importer_late_edges(converted, order)
    return expected if late is None else expected ^ {*late}


def _renamed(draft: Draft, edge: Edge) -> Edge:
    return draft.renamed.get(edge[0], edge[0]), draft.renamed.get(edge[1], edge[1])


def move_biases_out_of_loops(draft: Draft, *, alone: bool = False) -> list[Edge]:
    """Move biases out of loops, because importers omit biases in loops in the first step.

    Args:
        draft: Edited in place.
        alone: Whether weights of a loop must feed only the loop.

    Returns:
        The edges from the weights of each loop to its neuron.

    Raises:
        ConversionError: A bias cannot be moved to weights outside of loops.
    """
    recurrent = recurrent_edges(draft)
    for place, (source, neuron) in enumerate(recurrent):
        biased = np.any(draft.nodes[source].get("bias", 0))
        if len(draft.targets(source)) > 1 and (alone or biased):
            source = weighted_feeder(draft, source, neuron, False)
            recurrent[place] = (source, neuron)
        _move_bias(draft, source, neuron, recurrent)
    return recurrent


def _move_bias(draft: Draft, weights: str, neuron: str, recurrent: list[Edge]) -> None:
    """Move the bias of the weights of a loop to weights of the neuron outside of loops."""
    entry = draft.nodes[weights]
    if entry["type"] != "Affine":
        return
    bias = np.asarray(entry.pop("bias"))
    draft.nodes[weights] = entry | {"type": "Linear"}
    if not np.any(bias):
        return
    sources = [source for source in draft.sources(neuron) if (source, neuron) not in recurrent]
    feeder = next(
        (name for name in sources if draft.nodes[name]["type"] in ("Linear", "Affine")), None
    )
    if feeder is None or len(draft.targets(feeder)) > 1:
        raise ConversionError(
            Text(
                "node '{node}' has a bias in a loop, which importers omit in the first time step; it "
                "cannot be moved, because '{target}' has no weights outside of loops",
                node=weights,
                target=neuron,
            ),
            fix=f"insert an Affine before '{neuron}'",
            node=weights,
        )
    entry = draft.nodes[feeder]
    total = np.asarray(entry.get("bias", 0), float) + bias
    draft.nodes[feeder] = entry | {
        "type": "Affine",
        "bias": rounded(total, np.asarray(entry["weight"])),
    }
    draft.changed(
        weights,
        Text("its bias is moved to '{feeder}'", feeder=feeder),
        "the importer does not run loops in the first time step",
    )


def _name_in_order(draft: Draft, title: str) -> None:
    """Give the nodes names whose alphabetical order is that in which they must run."""
    order = forward_order(draft)
    width = len(str(len(order)))
    new_names = {name: f"n{place:0{width}d}_{name}" for place, name in enumerate(order)}
    for name, new_name in new_names.items():
        why = f"{title}'s importer runs nodes in the order of their names"
        draft.changed(new_name, Text("renamed from '{node}'", node=name), why)
    rename_nodes(draft, new_names)


def rename_nodes(draft: Draft, new_names: dict[str, str]) -> None:
    """Rename all nodes of a draft, except in its `delayed` and `memories`."""
    draft.shapes = {new_names[name]: draft.shapes[name] for name in draft.nodes}
    draft.nodes = {new_names[name]: entry for name, entry in draft.nodes.items()}
    draft.edges = [(new_names[source], new_names[target]) for source, target in draft.edges]
    draft.renamed = new_names


def _chain_depth_first(draft: Draft, recurrent: Sequence[Edge], title: str) -> list[Edge]:
    """Chain the nodes for an importer that runs each as soon as one of its sources has run.

    A node that sums paths would run after the first of them, and receive the outputs of the others
    from the previous step. So connections of weight zero lead the importer through the nodes in an order in
    which sources come first.

    Args:
        draft: Edited in place.
        recurrent: Edges from the weights of a loop to its neuron.
        title: Name of the framework, for messages.

    Returns:
        The edges that must come first, in this order.

    Raises:
        ConversionError: Nodes of shapes between which NIR has no connection of weight zero.
    """
    import networkx

    loop_weights = {weights for weights, _ in recurrent}
    edges = [edge for edge in sorted(draft.edges, key=edge_key) if not loop_weights & {*edge}]
    targets = [target for _, target in edges]
    if all(targets.count(name) == 1 for name in targets):
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
            [(before, after)]
            if (before, after) in edges
            else _connect_with_zero(draft, before, after, title)
        )
    return first


def _connect_with_zero(draft: Draft, before: str, after: str, title: str) -> list[Edge]:
    """Add a connection of weight zero and return its edges."""
    outward, inward = draft.shapes[before][1], draft.shapes[after][0]
    name = draft.free(f"{before}_{after}_order")
    chain = [before, name, after]
    shape = outward
    if len(inward) == 1 and len(outward) == 1:
        entry = {"type": "Linear", "weight": np.zeros((inward[0], outward[0]))}
    elif len(inward) == 1:
        flat = draft.free(f"{name}_flat")
        add_flatten(draft, before, flat)
        chain.insert(1, flat)
        shape = draft.shapes[flat][1]
        entry = {"type": "Linear", "weight": np.zeros((inward[0], *shape))}
    elif outward[1:] == inward[1:] and len(inward) == 3:
        entry = identity(outward) | {
            "weight": np.zeros((inward[0], outward[0], 1, 1)),
            "bias": np.zeros(inward[0]),
        }
    else:
        raise ConversionError(
            Text(
                "node '{node}' must run after '{source}', so that both are added in the same time "
                "step; {framework}'s importer needs a connection of weight 0 for this, and NIR has "
                "none from shape {outward} to {inward}",
                node=after,
                source=before,
                outward=outward,
                inward=inward,
                framework=title,
            ),
            fix="add a Flatten to one of them",
            node=after,
        )
    draft.nodes[name] = entry
    draft.shapes[name] = (shape, inward)
    edges = list(pairwise(chain))
    draft.edges += [edge for edge in edges if edge not in draft.edges]
    draft.changed(
        name,
        Text("a connection of weight 0 from '{before}'", before=before),
        Text("{target}'s importer runs nodes depth first", target=title),
    )
    return edges


LATE_WEIGHTS_WITHOUT_BIAS = Condition(
    "weights of a loop that act one time step later have no bias",
    lambda conversion: (
        not any(
            np.any(conversion.draft.nodes[source].get("bias", 0))
            for source, _ in (_renamed(conversion.draft, edge) for edge in conversion.draft.delayed)
            if source in conversion.draft.nodes
        )
    ),
)
RUNS_AS_SOURCE = Condition(
    "the importer runs each loop like the source framework, and the Output last",
    lambda conversion: not _order_problems(conversion),
)
