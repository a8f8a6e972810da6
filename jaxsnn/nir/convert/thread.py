"""Sums for an importer that runs nodes depth first, each as soon as one of its sources has run.

A node that sums paths would run after the first of them, and take from the others what they gave a
step before. So the nodes are threaded: connections of weight zero lead the importer through them in
an order in which sources come first.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.model.changes import Edge, edge_key
from jaxsnn.nir.model.draft import Draft, identity


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
