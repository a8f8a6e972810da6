"""Build the `Graph` of a PyTorch module from the trace of its forward pass, for `from_torch`.

    forward pass -> ModuleTrace: calls of layers     -> nodes and edges       -> Graph with dialect
                    fc    sources: the input            input -> fc -> lif
                    lif   sources: fc                   Affine    LIF
                    outputs: lif                        lif -> output

`traced_module` traces the module (`module_trace`), `ModuleDraft` (`module_draft`) collects nodes and edges,
and `warnings_of` (`module_warnings`) lists what they omit. Properties that the frameworks' own exporters
lose (reset, reset delay, leaky readouts, dt and v_reset) go into the dialect and into the nodes. The graph
is not compared with the module here; `jaxsnn.simulation.torch_modules` runs both. `traced_back` is the
shorter path for modules that `jaxsnn.to_torch` created: their graph is known.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError, Problem, listing
from jaxsnn.nir.frameworks.registry import framework_of
from jaxsnn.nir.frameworks.torch_layers import (
    NO_BATCH_AXIS,
    OTHER_AXES,
    Exported,
    refuse_few_digits,
    refuse_training,
)
from jaxsnn.nir.graphs.export import tagged
from jaxsnn.nir.graphs.parse import parse
from jaxsnn.nir.io.documents import NIR_VERSION, group_of
from jaxsnn.nir.model.draft import spelt
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.node import CONSTANT_KEY
from jaxsnn.nir.torch.leaves import (
    exported,
    exporter_of,
    framework_titles,
    no_neurons,
    refuse_several_outputs,
    unsupported,
)
from jaxsnn.nir.torch.module_draft import Fold, ModuleDraft, layer_label
from jaxsnn.nir.torch.module_pass import leaves_of
from jaxsnn.nir.torch.module_trace import trace_of_graph, traces
from jaxsnn.nir.torch.module_warnings import warnings_of
from jaxsnn.nir.torch.to_torch import drafted
from jaxsnn.nir.torch.trace_outcome import ModuleTrace
from jaxsnn.nir.torch.trained_module import is_of_graph, source_of, trained_graph
from jaxsnn.units import format_time
from jaxsnn.wording import Text


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TracedModule:
    """A module, its graph, and the correspondence of their layers and nodes.

    Attributes:
        graph: Graph of the module.
        trace: Trace of its forward pass.
        places: Output node -> place among the tensors that the module returns.
        firing: Leaf whose output is spikes -> its node.
        graded: Leaf whose spikes have a size other than 1 -> their size.
        parts: Leaf -> its nodes by suffix.
        folds: Layers whose factors and offsets are in the weights before them.
        assumed_dt: Length of a step in seconds that was assumed, because no layer specifies it; None: a layer
            specifies it.
    """

    graph: Graph
    trace: ModuleTrace
    places: Mapping[str, int]
    firing: Mapping[str, str]
    parts: Mapping[str, Mapping[str, str]]
    graded: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    folds: tuple[Fold, ...] = ()
    assumed_dt: float | None = None

    def label(self, node: str) -> str:
        """Return the name of a node in messages: the layer, or the function and its line."""
        return layer_label(node, self.parts, self.trace)


def traced_module(module: Any, sample: Any, arguments: tuple[Any, ...] = ()) -> TracedModule:
    """Build a graph of a module from one forward pass and the attributes of its layers.

    The graph is not compared with the module; `jaxsnn.from_torch` does that.

    Args:
        module, sample: As in `jaxsnn.from_torch`.
        arguments: Arguments of forward after the sample.

    Raises:
        ConversionError: A layer that NIR or the dialect cannot hold, or that computes in half
            precision, or an input that is computed outside of layers.
    """
    for name, leaf in leaves_of(module):
        refuse_training(name, leaf)
        refuse_few_digits(name, leaf)
        if is_of_graph(leaf):
            refuse_several_outputs(name, leaf)
    refuse_few_digits("module", module)  # parameters and buffers of its own
    _refuse_no_states(module)
    refusals: list[ConversionError] = []
    for seen in traces(module, sample, arguments):
        try:
            if isinstance(seen, ConversionError):
                raise seen
            return _graph_of(seen, refusals)
        except ConversionError as error:  # a graph with a later input may be possible
            stepped = isinstance(seen, ModuleTrace) and seen.passes.stepped
            # Neurons may be in the place of a batch, or time may be.
            if error.problem.code in (NO_BATCH_AXIS, OTHER_AXES) and (
                stepped or error.problem.code == NO_BATCH_AXIS
            ):
                raise
            refusals.append(error)
    raise refusals[-1]


def _graph_of(seen: ModuleTrace, refusals: Sequence[ConversionError] = ()) -> TracedModule:
    """Build the graph of a trace. `refusals` are those of graphs with an earlier input.

    Raises:
        ConversionError: A layer that NIR or the dialect cannot hold.
    """
    for call in seen.calls:  # first, because an unsupported layer causes other errors
        if hasattr(call.module, "forward") and exporter_of(call.module) is None:
            raise unsupported(seen.label(call.name), call.module)
    # Errors name the layer, or the function and its line, instead of the call.
    exports = {
        call.name: exported(dataclasses.replace(call, name=seen.label(call.name)))
        for call in seen.calls
    }
    exports, rescaled = _with_one_dt(exports)
    framework_names = sorted(
        {export.framework for export in exports.values() if export.framework is not None}
    )
    if not framework_names:
        raise no_neurons()
    if len(framework_names) > 1:
        raise ConversionError(
            Text("the module has neurons of {frameworks}", frameworks=listing(framework_names)),
            fix=f"use neurons of one framework: {framework_titles()}",
        )
    draft = ModuleDraft(seen, exports)
    for call in seen.calls:
        draft.add(call)
    places = {draft.add_output(output): output.place for output in seen.outputs}
    for node in draft.constant_nodes():
        draft.nodes[node].setdefault("metadata", {})[CONSTANT_KEY] = "jaxsnn"
    steps = [export.dt for export in exports.values() if export.dt is not None]
    graph = _read(draft, framework_names[0], steps)
    # a module that `to_torch` created has the dt of its graph
    dt = graph.dialect.dt
    assumed_dt = dt if not steps and not draft.dialects else None
    if assumed_dt is not None:
        why = graph.dialect.why + Text(
            " No layer of the module specifies dt: {dt} is assumed.", dt=format_time(assumed_dt)
        )
        graph = dataclasses.replace(graph, dialect=dataclasses.replace(graph.dialect, why=why))
    warnings = (
        *graph.warnings,
        *rescaled,
        *warnings_of(seen, draft, refusals),
    )
    graph = dataclasses.replace(graph, warnings=warnings)
    firing = {leaf: node for leaf, node in draft.neurons.items() if draft.fires(node)}
    scales = {
        leaf: draft.nodes[draft.ends[leaf][0]]["scale"]
        for leaf, node in firing.items()
        if draft.ends[leaf][0] != node
    }
    for call in seen.calls:
        if is_of_graph(call.module):
            full = draft.parts[call.name]
            firing |= {
                f"{call.name}.{layer}": full[node.replace("/", ".")]
                for layer, node in _firing(source_of(call.module)).items()
            }
    return TracedModule(
        graph=graph,
        trace=seen,
        places=places,
        firing=firing,
        parts=draft.parts,
        graded=scales,
        folds=tuple(draft.folds),
        assumed_dt=assumed_dt,
    )


def _refuse_no_states(module: Any) -> None:
    """Refuse graphs in a torch.nn.Sequential, which passes on their (output, state) pairs and keeps
    no state.

    Raises:
        ConversionError: There is such a graph; the message names the first.
    """
    import torch

    for part in module.modules():
        for name, child in part.named_children() if type(part) is torch.nn.Sequential else ():
            if is_of_graph(child):
                raise ConversionError(
                    Text(
                        "torch.nn.Sequential calls '{layer}' without its previous state, "
                        "so that its state restarts in each time step",
                        layer=name,
                    ),
                    fix=(
                        "pass the module from jaxsnn.to_torch itself, or write a module "
                        "whose forward(x, state) passes its state on and "
                        "returns (y, state)"
                    ),
                    node=name,
                )


def traced_back(module: Any, sample: Any, arguments: tuple[Any, ...] = ()) -> TracedModule:
    """Return the graph of a module that `jaxsnn.to_torch` created, see `trained_graph`, with the
    layers of its neurons.

    Raises:
        ConversionError: As in `trained_graph`, or the module computes in half precision, or does not
            accept the sample.
    """
    for name, layer in module.named_children():
        refuse_few_digits(name, layer)
    trace = trace_of_graph(module, sample, arguments)
    graph = trained_graph(module)
    return TracedModule(
        graph=graph,
        trace=trace,
        places={output: place for place, output in enumerate(drafted(graph).outputs.values())},
        firing=_firing(graph),
        parts={},
    )


def _firing(graph: Graph) -> dict[str, str]:
    """Map layers of the module that `jaxsnn.to_torch` creates from a graph to the neurons whose
    spikes they return.
    """
    ready = drafted(graph)
    node_of_layer = {}
    for name, step in ready.steps.items():
        layers = [name]
        if step.late:  # spikes leave through a delay, which the graph has not
            late_targets = {*ready.draft.targets(name)} - {*ready.nodes}
            layers = [delay for delay in ready.draft.of_type("Delay") if delay in late_targets]
        if step.reset != "none" and layers:
            node_of_layer[spelt(layers[0])] = ready.nodes[name]
    return node_of_layer


def _with_one_dt(exports: dict[str, Exported]) -> tuple[dict[str, Exported], list[Problem]]:
    """Return exports whose neurons all have the time step of the first neuron, and a note on each
    export that changed. Time constants are rescaled such that each neuron computes the same in each step.
    """
    unified, notes = dict(exports), []
    first = next((export.dt for export in exports.values() if export.dt is not None), None)
    for name, export in exports.items():
        if export.dt is None or first is None or export.dt == first:
            continue
        factor = first / export.dt
        nodes = {
            suffix: {k: v * factor if k.startswith("tau") else v for k, v in entry.items()}
            for suffix, entry in export.nodes.items()
        }
        unified[name] = dataclasses.replace(export, nodes=nodes, dt=first)
        notes.append(
            Problem(
                node=name,
                code="rescaled-time",
                severity="note",
                message=Text(
                    "'{layer}' has a time step of {dt}, and the first neuron one of {first}: the graph uses "
                    "{first}, and time constants of '{layer}' that give the same decay per time step",
                    layer=name,
                    dt=format_time(export.dt),
                    first=format_time(first),
                ),
                fix="to keep the time constants, use the same dt for all neurons of the module",
            )
        )
    return unified, notes


def _read(draft: ModuleDraft, framework: str, steps: list[float]) -> Graph:
    tree = {"type": "NIRGraph", "nodes": draft.nodes, "edges": draft.edges}
    document, dialect = group_of(tree, NIR_VERSION), draft.dialect()
    if dialect is not None:
        return tagged(parse(document, dialect=dialect))
    options: dict[str, Any] = dict(draft.by_node)
    options["readout"] = list(draft.by_node.get("readout", ()))
    if steps:
        options["dt"] = steps[0]
    options |= framework_of(framework).leaf_options
    graph = parse(document, dialect=framework, **options)
    conventions = graph.dialect.conventions
    if graph.dialect.dt is None and conventions is not None and conventions.dt is not None:
        # No neuron has a time constant from which dt follows, as in a network of Alpha alone.
        graph = parse(document, dialect=framework, **options, dt=conventions.dt)
    return tagged(graph)
