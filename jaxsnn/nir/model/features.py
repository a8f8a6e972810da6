"""Features of graphs that the chip or an importer may not support; only this module detects them.

`jaxsnn.bss2.capabilities` and `jaxsnn.nir.convert.importers` state which of them they do not support.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np

from jaxsnn.capabilities import Feature, Occurrence
from jaxsnn.errors import listing
from jaxsnn.nir.model.draft import TORCH_NAMES, readable, spelt
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.node import Node
from jaxsnn.nir.model.nodes import Input, Output
from jaxsnn.nir.model.passes import sizes

#: A feature of a graph.
GraphFeature = Feature[Graph]


def _nodes(description: str, condition: Callable[[Node], bool]) -> GraphFeature:
    """Return the feature of nodes for which a condition holds."""
    return Feature(
        description=description,
        occurrences=lambda graph: (
            Occurrence(name, kind=node.type)
            for name, node in graph.nodes.items()
            if condition(node)
        ),
    )


# -- node types

NEURON_WITHOUT_LEAK = _nodes(
    "A neuron whose membrane does not leak",
    lambda node: node.traits.state and not node.traits.time_constants and not node.traits.extension,
)
NEURON_WITHOUT_CURRENT = _nodes(
    "A neuron without a synaptic current",
    lambda node: node.traits.state and not node.traits.current_based,
)
DELAY = _nodes("A Delay", lambda node: node.traits.delays and not node.traits.state)
DELAYS_OF_SYNAPSES = _nodes(
    "Delays of the synapses of a SparseLinear",
    lambda node: node.type == "SparseLinear" and node.value("delay") is not None,
)
NONLINEAR_NODE = _nodes(
    "A nonlinear node without a state, such as Threshold",
    lambda node: (
        not (node.traits.state or node.traits.delays or node.traits.port or node.traits.linear)
    ),
)


def other_neurons(types: Collection[str]) -> GraphFeature:
    """Return the feature of neurons whose type is not among `types`: those with a leak, and those of
    extensions.
    """
    return _nodes(
        f"A neuron other than {listing(types)}",
        lambda node: bool(
            node.traits.state
            and (node.traits.time_constants or node.traits.extension)
            and node.type not in types
        ),
    )


def other_types(reads_type: Callable[[str], bool]) -> GraphFeature:
    """Return the feature of nodes whose type an importer does not read; all read Input and Output."""
    return _nodes(
        "A node type that the importer does not support",
        lambda node: not reads_type(node.type) and not isinstance(node, Input | Output),
    )


# -- sizes and parameters


UNKNOWN_SIZE = GraphFeature(
    description="A population whose number of neurons is not in the file",
    occurrences=lambda graph: (
        Occurrence(name)
        for name, size in sizes(graph).items()
        if graph.nodes[name].traits.state and size is None
    ),
)
SCALAR_PARAMETERS = GraphFeature(
    description="A scalar parameter for all neurons of a population",
    occurrences=lambda graph: (
        Occurrence(name, kind=node.type, parameters=listing(scalars))
        for name, node in graph.nodes.items()
        if node.traits.state
        and (scalars := [key for key, value in node.parameters.items() if np.ndim(value) == 0])
    ),
)


def ignored_values(ignores: Mapping[str, tuple[str, float]]) -> GraphFeature:
    """Return the feature of parameters that an importer ignores, with other values than it assumes.

    Args:
        ignores: Node type -> the ignored parameter and the value that the importer assumes.
    """

    def occurrences(graph: Graph) -> Iterator[Occurrence]:
        for name, node in graph.nodes.items():
            parameter, assumed = ignores.get(node.type, ("", 0.0))
            if not parameter or (
                parameter == "v_reset" and graph.dialect.at(name).reset in ("subtract", "none")
            ):
                continue
            values = np.ravel(node.value(parameter))
            if np.any(differs := values != assumed):
                facts = {"kind": node.type, "parameter": parameter, "assumed": assumed}
                yield Occurrence(name, value=values[differs][0], **facts)

    return Feature(
        description="A parameter that the importer ignores, with a value that differs from its assumption",
        occurrences=occurrences,
    )


# -- names


def _equal_spellings(graph: Graph) -> Iterator[Occurrence]:
    first: dict[str, str] = {}
    for name in graph.nodes:
        if (other_name := first.setdefault(spelt(name), name)) != name:
            yield Occurrence(name, other_name=other_name)


UNREADABLE_NAME = GraphFeature(
    description="A node name that is not a valid name in Python code",
    occurrences=lambda graph: (
        Occurrence(name, spelling=readable(name))
        for name in graph.nodes
        if readable(name.rpartition("/")[2]) != name.rpartition("/")[2]
    ),
)
EQUAL_SPELLING = GraphFeature(
    description="Two node names that become the same name in a PyTorch module",
    occurrences=_equal_spellings,
)
ATTRIBUTE_NAME = GraphFeature(
    description="A node name that is an attribute of PyTorch modules",
    occurrences=lambda graph: (
        Occurrence(name) for name in graph.nodes if name.rpartition("/")[2] in TORCH_NAMES
    ),
)
