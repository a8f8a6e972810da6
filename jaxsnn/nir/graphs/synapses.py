"""A delay for each synapse, in the nodes that NIR has: a Linear that copies channels, a Delay, and
the weights.
"""

from __future__ import annotations

import numpy as np

from jaxsnn.errors import GraphError
from jaxsnn.nir.graphs.export import document_of_graph
from jaxsnn.nir.graphs.parse import parse
from jaxsnn.nir.io.documents import group_of
from jaxsnn.nir.io.files import Group
from jaxsnn.nir.model.graph import Affine, Graph, Linear
from jaxsnn.wording import Text


def with_delayed_synapses(graph: Graph, name: str, delay: np.ndarray) -> Graph:
    """Return the graph with a delay for each synapse of a Linear or Affine.

    Channel source * outputs + target of the two nodes that are added, `NAME_copies` and
    `NAME_delays`, belongs to the synapse between the two. Where all synapses of a source have one
    delay, `NAME_delays` alone is added, with a channel for each source.

    Args:
        name: the node, outside nested graphs.
        delay: (outputs, inputs), in the file's unit of time.

    Raises:
        GraphError: there is no such Linear or Affine, or a name is already used.
    """
    node = graph.nodes.get(name)
    if not isinstance(node, Linear | Affine) or "/" in name:
        raise GraphError(
            Text("node '{node}' is not a Linear or Affine of the outermost graph", node=name),
            fix="pass the name of the node whose weights have the delays",
            node=name,
        )
    copies, delays = f"{name}_copies", f"{name}_delays"
    for added_name in (copies, delays):
        if added_name in graph.nodes:
            raise GraphError(
                Text(
                    "the graph already has a node '{node}', which is the name for the delays of "
                    "'{synapse}'",
                    node=added_name,
                    synapse=name,
                ),
                fix="rename it",
                node=added_name,
            )
    weight = np.asarray(node.weight)
    outputs, inputs = weight.shape
    delay = np.broadcast_to(delay, weight.shape)
    of_sources = bool((delay == delay[:1]).all())
    before = graph.subgraphs[""].edges
    entry = delays if of_sources else copies
    edges = [(start, entry if end == name else end) for start, end in before] + [(delays, name)]
    if of_sources:
        tree = {delays: {"type": "Delay", "delay": delay[0]}, "edges": edges}
    else:
        channel = np.arange(inputs * outputs)
        source, target = channel // outputs, channel % outputs
        copy = np.zeros((inputs * outputs, inputs), weight.dtype)
        copy[channel, source] = 1
        block = np.zeros((outputs, inputs * outputs), weight.dtype)
        block[target, channel] = weight[target, source]
        tree = {
            copies: {"type": "Linear", "weight": copy},
            delays: {"type": "Delay", "delay": delay.T.reshape(-1)},
            name: {"weight": block},
            "edges": [*edges, (copies, delays)],
        }
    added = group_of(tree, "")["node"]
    document = document_of_graph(graph)
    level = document["node"]
    new = {added_name: added[added_name] for added_name in (copies, delays) if added_name in tree}
    nodes = Group({**level["nodes"], **new}, level["nodes"].attributes)
    if name in tree:
        nodes[name] = Group({**nodes[name], **added[name]}, nodes[name].attributes)
    document["node"] = Group({**level, "nodes": nodes, "edges": added["edges"]}, level.attributes)
    return parse(document, dialect=graph.dialect)
