"""Conversion for importers that solve the equations in continuous time: the passes that they need."""

from __future__ import annotations

import numpy as np

from jaxsnn.errors import ConversionError, Problem, listing
from jaxsnn.nir.convert.target import Target
from jaxsnn.nir.convert.topology import join_weights, keep_one, refuse_for
from jaxsnn.nir.frameworks.framework import Importer
from jaxsnn.nir.model.draft import NEURON_TYPES, Draft, loops_of, weighted_feeder


def without_biases(draft: Draft, title: str) -> None:
    """Write Affine without a bias as Linear.

    Raises:
        ConversionError: A bias, which no node of the importer has.
    """
    for name in draft.of_type("Affine"):
        entry = dict(draft.nodes[name])
        largest = float(np.abs(np.asarray(entry.pop("bias"), float)).max(initial=0))
        if largest > 0:
            raise ConversionError(
                f"node '{name}' has a bias, up to {largest:g}, "
                f"and {title}'s importer takes Linear only",
                fix="train without a bias, or feed a constant source, one more input channel that "
                "spikes regularly, through the weights",
                node=name,
            )
        draft.nodes[name] = entry | {"type": "Linear"}
        draft.changed(name, "Affine with a bias of 0 is written as Linear", "it takes Linear only")


def straightened(draft: Draft, target: Target) -> None:
    """One matrix between two populations, Input included; edges in the order in which they run.

    Raises:
        ConversionError: Nodes or wiring that the importer cannot express.
    """
    importer, title = target.importer, target.title
    refuse_for(target, list(_unmapped(draft, importer)))
    without_biases(draft, title)
    join_weights(draft, list(draft.nodes))
    for name in draft.of_type(*NEURON_TYPES):
        for source in draft.sources(name):
            weighted_feeder(draft, source, name, False)
    _one_source(draft)
    without_biases(draft, title)
    refuse_for(target, list(_misfits(draft, importer)))


def plain_names(draft: Draft, title: str) -> None:
    """Names that a ModuleDict of PyTorch takes as keys: no dots."""
    names: dict[str, str] = {}
    for name in draft.nodes:
        new = name.replace(".", "_")
        while new != name and (new in draft.nodes or new in names.values()):
            new += "_"
        names[name] = new
        if new != name:
            why = f"{title}'s importer registers nodes in a ModuleDict, which takes no such key"
            draft.changed(new, f"'{name}' is renamed", why)
    draft.shapes = {names[name]: draft.shapes[name] for name in draft.nodes}
    draft.nodes = {names[name]: entry for name, entry in draft.nodes.items()}
    draft.edges = [(names[source], names[target]) for source, target in draft.edges]
    draft.renamed = names


def in_running_order(draft: Draft) -> None:
    """Edges and nodes, sources first, as far as there are no loops."""
    import networkx

    graph = networkx.DiGraph(draft.edges)
    parts = networkx.condensation(graph)
    order = [
        name
        for part in networkx.lexicographical_topological_sort(parts)
        for name in sorted(parts.nodes[part]["members"])
    ]
    place = {name: number for number, name in enumerate(order)}
    draft.edges = sorted(draft.edges, key=lambda edge: (place[edge[0]], place[edge[1]]))


def _one_source(draft: Draft) -> None:
    """A matrix that sums is one for each of its sources."""
    for name in draft.of_type("Linear"):
        for number, source in enumerate(draft.sources(name)[1:], 1):
            copy = draft.free(f"{name}_{number}")
            draft.nodes[copy], draft.shapes[copy] = dict(draft.nodes[name]), draft.shapes[name]
            draft.edges.remove((source, name))
            draft.edges += [(source, copy), *((copy, target) for target in draft.targets(name))]
            draft.changed(copy, f"copies '{name}' for '{source}'", f"'{name}' sums its sources")


def _unmapped(draft: Draft, importer: Importer) -> list[Problem]:
    taken = [*(importer.nodes or ()), "Affine", *NEURON_TYPES]
    return [
        _problem(
            name,
            f"node '{name}' is a {entry['type']}, which its importer does not map",
            f"replace it by one of {listing(importer.nodes or ())}",
        )
        for name, entry in draft.nodes.items()
        if entry["type"] not in taken
    ]


def _misfits(draft: Draft, importer: Importer) -> list[Problem]:
    found = [
        _problem(
            "",
            f"it has {len(ends)} {kind} nodes ({listing(ends)}), and its importer takes one",
            keep_one(kind),
        )
        for kind in ("Input", "Output")
        if len(ends := draft.of_type(kind)) != 1
    ]
    found += [
        _problem(
            name,
            f"node '{name}' has the shape {draft.shapes[name][1]}, and its importer takes one axis",
            "flatten it",
        )
        for name in draft.nodes
        if len(draft.shapes[name][1]) != 1
    ]
    for name in draft.of_type("Output"):
        sources = draft.sources(name)
        if len(sources) != 1 or draft.nodes[sources[0]]["type"] not in NEURON_TYPES:
            what = f"'{name}' gives what is no population ({listing(sources)})"
            found.append(_problem(name, what, "let one population end the network"))
    for part in () if importer.feeds_back else loops_of(draft):
        what = f"the loop through {listing(part)} calls a layer before it has run"
        found.append(_problem(part[0], what, "leave the loop out"))
    for name in () if importer.sums else draft.of_type(*NEURON_TYPES):
        if len(draft.sources(name)) > 1:
            what = f"node '{name}' sums {listing(draft.sources(name))}, which it runs one by one"
            found.append(_problem(name, what, "feed it from one node"))
    for name in () if importer.sums else draft.of_type("Input"):
        if len(draft.targets(name)) > 1:
            what = f"'{name}' feeds {listing(draft.targets(name))}, and it runs once for each"
            found.append(_problem(name, what, "let it feed one matrix"))
    return found


def _problem(node: str, message: str, fix: str) -> Problem:
    return Problem(node=node, code=ConversionError.default_code, message=message, fix=fix)
