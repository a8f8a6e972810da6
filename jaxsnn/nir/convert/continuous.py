"""Conversion for importers that solve the equations in continuous time: the `Flow` of a population, and
the passes that such importers need.
"""

from __future__ import annotations

import numpy as np

from jaxsnn.errors import ConversionError, Problem, listing
from jaxsnn.nir.convert.target import Target
from jaxsnn.nir.convert.topology import join_weights, keep_one, refuse_for
from jaxsnn.nir.dialects.gains import require, spike_area
from jaxsnn.nir.dialects.resolve import is_continuous, refuse_other_resets
from jaxsnn.nir.frameworks.framework import Importer
from jaxsnn.nir.frameworks.source_flow import Flow, GiveUp
from jaxsnn.nir.model.draft import NEURON_TYPES, Draft, loops_of, weighted_feeder
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.node import Node
from jaxsnn.nir.model.nodes import CURRENT_BASED, SPIKING

_PURPOSE = "conversion in continuous time"


def flow_of(graph: Graph, name: str, shape: tuple[int, ...], give_up: GiveUp) -> Flow:
    """The equations of a population.

    Args:
        graph: Read with its dialect.
        name: A neuron.
        shape: Its shape.
        give_up: For a source in time steps, and resets of other kinds.

    Raises:
        ConversionError: It has no synaptic current.
        DialectError: The dialect leaves open what is needed.
    """
    node, dialect = graph.nodes[name], graph.dialect
    if not isinstance(node, CURRENT_BASED):
        raise ConversionError(
            f"node '{name}' is a {node.type}, and the importer takes neurons with a synaptic "
            "current",
            fix="use CubaLIF",
            node=name,
        )
    require(dialect, ["seconds", "initial"], _PURPOSE, name)
    view = dialect.at(name)
    refuse_other_resets(dialect, node)
    spikes = isinstance(node, SPIKING) and not view.readout
    if not is_continuous(dialect, node):
        give_up(
            name,
            f"the dialect {dialect.name} steps through time, and the importer solves the equations",
            "the equations of the node are written, as the event engine solves them",
        )
    if spikes:
        require(dialect, ["reset"], _PURPOSE, name)
        if view.reset_delay:
            give_up(name, "its reset comes one step later", "a reset at once is written")
    area, number = spike_area(dialect, node), lambda key: np.asarray(node.value(key), float)
    if area.kernel == "box":
        reason = "a spike is a current there that lasts, and a delta in the importer"
        give_up(name, reason, "deltas of its area are written")
    seconds, jump = dialect.seconds, number("r")
    assert seconds is not None
    if area.kind == "scaled jump":
        jump = jump * number("w_in")
    elif area.kind == "fixed":
        assert area.seconds is not None
        jump = jump * number("w_in") * area.seconds / number("tau_syn") / seconds
    values = _levels(node, spikes, view.reset == "subtract", view.initial)
    values |= {key: number(key) * seconds for key in ("tau_mem", "tau_syn")}
    values |= {"jump": jump, "bias_ratio": np.ones(())}
    arrays = {key: np.broadcast_to(_shaped(value, shape), shape) for key, value in values.items()}
    return Flow(name=name, type=node.type, shape=shape, spikes=spikes, **arrays)


def _levels(
    node: Node, spikes: bool, subtracts: bool, initial: str | None
) -> dict[str, np.ndarray]:
    """At an exact crossing, V less v_threshold is 0."""
    zero = np.zeros(())
    leak = np.asarray(node.value("v_leak"), float)
    reset = np.asarray(node.value("v_reset"), float) if "v_reset" in node.names else zero
    return {
        "v_leak": leak,
        "v_threshold": np.asarray(node.value("v_threshold"), float) if spikes else np.array(np.inf),
        "v_reset": zero if subtracts or not spikes else reset,
        "v_start": {"v_leak": leak, "v_reset": reset}.get(initial or "", zero),
    }


def _shaped(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return value.reshape(()) if value.size == 1 else value.reshape(shape)


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
