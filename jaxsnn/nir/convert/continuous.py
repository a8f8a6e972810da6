"""Conversion for importers that solve the equations in continuous time: the passes that they need."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxsnn.errors import ConversionError, Problem, listing
from jaxsnn.nir.convert.passes import Condition, Conversion
from jaxsnn.nir.convert.run_order import rename_nodes
from jaxsnn.nir.convert.topology import as_problem, keep_one, merge_weights, refuse_for
from jaxsnn.nir.dialects.steps import flow_of
from jaxsnn.nir.frameworks.framework import Importer
from jaxsnn.nir.model.draft import NEURON_TYPES, Draft, loops_of, weighted_feeder
from jaxsnn.wording import Text


def resolve_flows(conversion: Conversion) -> None:
    """Compute the equations of each population of the source.

    Raises:
        ConversionError: Populations without such equations, all in one exception.
        DialectError: The dialect does not specify everything that the equations depend on.
    """
    problems = []
    for name, rule in conversion.rules.items():
        if name not in conversion.draft_names:
            continue
        draft_name = conversion.draft_names[name]
        try:
            shape = conversion.draft.shapes[draft_name][1]
            flow = flow_of(rule, shape, conversion.give_up)
            conversion.flows[draft_name] = dataclasses.replace(flow, name=draft_name)
        except ConversionError as error:
            problems.append(error.problem)
    refuse_for(conversion.target, problems)
    conversion.dt = conversion.source.dialect.dt or 0.0


def refuse_unmapped_types(conversion: Conversion) -> None:
    """Reject node types that the importer does not support."""
    mapped_types = conversion.importer.nodes or ()
    problems = [
        as_problem(
            name,
            Text(
                "the importer does not support node '{node}' ({type})",
                node=name,
                type=entry["type"],
            ),
            fix=f"replace it by one of {listing(mapped_types)}",
        )
        for name, entry in conversion.draft.nodes.items()
        if entry["type"] not in (*mapped_types, "Affine", *NEURON_TYPES)
    ]
    refuse_for(conversion.target, problems)


def remove_zero_biases(conversion: Conversion) -> None:
    """Write Affine without a bias as Linear.

    Raises:
        ConversionError: A bias that is not 0, which no node of the importer has.
    """
    draft, title = conversion.draft, conversion.title
    for name in draft.of_type("Affine"):
        entry = dict(draft.nodes[name])
        largest = float(np.abs(np.asarray(entry.pop("bias"), float)).max(initial=0))
        if largest > 0:
            raise ConversionError(
                Text(
                    "node '{node}' has biases up to {limit:g}, and {framework}'s importer supports only "
                    "Linear, which has no bias",
                    node=name,
                    limit=largest,
                    framework=title,
                ),
                fix="train without a bias, or add an input channel that spikes regularly and connect it "
                "through the weights",
                node=name,
            )
        draft.nodes[name] = entry | {"type": "Linear"}
        draft.changed(
            name,
            "Affine with a bias of 0 is written as Linear",
            "the importer supports only Linear",
        )


def use_one_matrix(conversion: Conversion) -> None:
    """Insert one weight matrix for each connection of two populations, including the Input.

    Consecutive matrices are multiplied; a matrix with several inputs is copied for each of them.
    """
    draft = conversion.draft
    merge_weights(draft, list(draft.nodes))
    for name in draft.of_type(*NEURON_TYPES):
        for source in draft.sources(name):
            weighted_feeder(draft, source, name, False)
    for name in draft.of_type("Linear"):
        for number, source in enumerate(draft.sources(name)[1:], 1):
            copy = draft.free(f"{name}_{number}")
            draft.nodes[copy], draft.shapes[copy] = dict(draft.nodes[name]), draft.shapes[name]
            draft.edges.remove((source, name))
            draft.edges += [(source, copy), *((copy, target) for target in draft.targets(name))]
            draft.changed(
                copy,
                Text(
                    "is a copy of '{node}' with the single input '{source}'",
                    node=name,
                    source=source,
                ),
                Text("the importer does not support several inputs of '{node}'", node=name),
            )


def check_chain(conversion: Conversion) -> None:
    """Reject connections that an importer of equations does not support."""
    refuse_for(conversion.target, _chain_problems(conversion.draft, conversion.importer))


def remove_dots(conversion: Conversion) -> None:
    """Rename nodes whose names contain dots, which PyTorch's ModuleDict does not allow."""
    draft = conversion.draft
    new_names: dict[str, str] = {}
    for name in draft.nodes:
        new_name = name.replace(".", "_")
        while new_name != name and (new_name in draft.nodes or new_name in new_names.values()):
            new_name += "_"
        new_names[name] = new_name
        if new_name != name:
            why = (
                f"{conversion.title}'s importer registers nodes in a ModuleDict, whose keys must not "
                "contain dots"
            )
            draft.changed(new_name, Text("renamed from '{node}'", node=name), why)
    rename_nodes(draft, new_names)


def order_edges(conversion: Conversion) -> None:
    """Sort edges so that the inputs of a node come before it, except in loops."""
    import networkx

    draft = conversion.draft
    graph = networkx.DiGraph(draft.edges)
    components = networkx.condensation(graph)
    order = [
        name
        for component in networkx.lexicographical_topological_sort(components)
        for name in sorted(components.nodes[component]["members"])
    ]
    place = {name: number for number, name in enumerate(order)}
    draft.edges = sorted(draft.edges, key=lambda edge: (place[edge[0]], place[edge[1]]))


def _chain_problems(draft: Draft, importer: Importer) -> list[Problem]:
    problems = [
        as_problem(
            "",
            Text(
                "its importer supports one {type} node, and the graph has {count} ({nodes})",
                count=len(ends),
                type=kind,
                nodes=listing(ends),
            ),
            fix=keep_one(kind),
        )
        for kind in ("Input", "Output")
        if len(ends := draft.of_type(kind)) != 1
    ]
    problems += [
        as_problem(
            name,
            Text(
                "its importer supports shapes of one axis, and node '{node}' has the shape {shape}",
                node=name,
                shape=draft.shapes[name][1],
            ),
            fix="flatten it",
        )
        for name in draft.nodes
        if len(draft.shapes[name][1]) != 1
    ]
    for name in draft.of_type("Output"):
        sources = draft.sources(name)
        if len(sources) != 1 or draft.nodes[sources[0]]["type"] not in NEURON_TYPES:
            message = Text(
                "node '{node}' receives {sources}, and it must receive one population",
                node=name,
                sources=listing(sources),
            )
            problems.append(as_problem(name, message, fix="connect it to one population only"))
    for part in () if "loops" in importer.wiring else loops_of(draft):
        message = Text(
            "the loop through {nodes} needs the output of a layer before that layer has run",
            nodes=listing(part),
        )
        problems.append(as_problem(part[0], message, fix="remove the loop"))
    for name in () if "sums" in importer.wiring else draft.of_type(*NEURON_TYPES):
        if len(draft.sources(name)) > 1:
            message = Text(
                "node '{node}' sums {sources}, and the importer does not add them",
                node=name,
                sources=listing(draft.sources(name)),
            )
            problems.append(as_problem(name, message, fix="connect a single node to it"))
    for name in () if "sums" in importer.wiring else draft.of_type("Input"):
        if len(draft.targets(name)) > 1:
            message = Text(
                "node '{node}' feeds {targets}, and its importer runs it again for each of them",
                node=name,
                targets=listing(draft.targets(name)),
            )
            problems.append(as_problem(name, message, fix="connect it to one weight matrix"))
    return problems


CHAIN_EXPRESSIBLE = Condition(
    "the importer supports the types and the connections of all nodes",
    lambda conversion: not _chain_problems(conversion.draft, conversion.importer),
)
ONE_SOURCE_PER_MATRIX = Condition(
    "every weight matrix has one input",
    lambda conversion: all(
        len(conversion.draft.sources(name)) == 1 for name in conversion.draft.of_type("Linear")
    ),
)
NO_DOTS = Condition(
    "no node name contains a dot",
    lambda conversion: not any("." in name for name in conversion.draft.nodes),
)
