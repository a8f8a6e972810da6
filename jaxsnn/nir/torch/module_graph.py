"""Build the `Graph` of a PyTorch module from the trace of its forward pass, for `from_torch`.

    forward pass -> ModuleTrace: calls of layers     -> nodes and edges       -> Graph with dialect
                    fc    sources: the input            input -> fc -> lif
                    lif   sources: fc                   Affine    LIF
                    outputs: lif                        lif -> output

`traced_module` traces the module (`module_trace`), and each call becomes one or several nodes, as the
exporter of its layer says (`leaves`). `_ModuleDraft` collects nodes and edges: it merges a BatchNorm into
the weights before it, adds an edge back for spikes of the previous time step, and copies layers that are
called several times. Properties that the frameworks' own exporters lose (reset, reset delay, leaky
readouts, dt and v_reset) go into the dialect and into the nodes. The graph is not compared with the module
here; `jaxsnn.simulation.torch_modules` runs both. `traced_back` is the shorter path for modules that
`jaxsnn.to_torch` created: their graph is known.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError, Problem, listing
from jaxsnn.nir.frameworks.registry import framework_of, frameworks
from jaxsnn.nir.frameworks.torch_layers import (
    Call,
    Exported,
    LayerNumbers,
    normalisation_numbers,
    refuse_few_digits,
    refuse_training,
    weights_of_channels,
)
from jaxsnn.nir.graphs.export import tagged
from jaxsnn.nir.graphs.parse import parse
from jaxsnn.nir.io.documents import NIR_VERSION, group_of
from jaxsnn.nir.model.changes import Edge
from jaxsnn.nir.model.dialect import Dialect
from jaxsnn.nir.model.draft import spelt
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.node import Node
from jaxsnn.nir.model.nodes import class_of
from jaxsnn.nir.torch.leaves import (
    Before,
    Membrane,
    exported,
    exporter_of,
    refuse_several_outputs,
    unsupported,
)
from jaxsnn.nir.torch.module_pass import error_refusal, leaves_of, sample_refusal
from jaxsnn.nir.torch.module_trace import traces
from jaxsnn.nir.torch.to_torch import drafted
from jaxsnn.nir.torch.trace_outcome import ModuleTrace, TracedOutput
from jaxsnn.nir.torch.trained_module import is_of_graph, source_of, trained_graph
from jaxsnn.options import TRAINABLE
from jaxsnn.units import format_time
from jaxsnn.wording import Text

#: What training changes of a node, if nothing else is said.
_TRAINED = ("weight", "bias")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Fold:
    """A BatchNorm that is merged into the weights before it.

    Attributes:
        layer, module: Name of the BatchNorm, and the BatchNorm itself.
        node: Node with these weights.
        offset: Whether the BatchNorm has the bias of the node, because the layer of the node has none.
    """

    layer: str
    module: Any
    node: str
    offset: bool

    def undone(self, node: Node) -> list[LayerNumbers]:
        """Return parameters with which the BatchNorm is the identity; with `offset`, it adds the bias
        of a node of a file.
        """
        norm = self.module
        channels = np.ones(tuple(norm.running_mean.shape))
        bias = channels * (node.value("bias") if self.offset and "bias" in node.names else 0.0)
        values = normalisation_numbers(norm, channels, bias)
        return [
            LayerNumbers(layer=self.layer, node=node.name, owner=norm, name=name, value=value)
            for name, value in values.items()
        ]


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
        return _label_of(node, self.parts, self.trace)


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
    refusal: ConversionError | None = None
    for seen in traces(module, sample, arguments):
        try:
            if isinstance(seen, ConversionError):
                raise seen
            return _graph_of(seen)
        except ConversionError as error:  # with a later input it may be possible
            refusal = refusal or error
    assert refusal is not None
    raise refusal


def _graph_of(seen: ModuleTrace) -> TracedModule:
    """Build the graph of a trace.

    Raises:
        ConversionError: A layer that NIR or the dialect cannot hold.
    """
    for call in seen.calls:  # which explains what others receive
        if hasattr(call.module, "forward") and exporter_of(call.module) is None:
            raise unsupported(seen.label(call.name), call.module)
    # Refusals name the layer, or the function and its line, instead of the name of the call.
    exports = {
        call.name: exported(dataclasses.replace(call, name=seen.label(call.name)))
        for call in seen.calls
    }
    framework_names = sorted(
        {export.framework for export in exports.values() if export.framework is not None}
    )
    if len(framework_names) != 1:
        titles = [framework.title for framework in frameworks().values() if framework.leaves]
        raise ConversionError(
            Text("the module has neurons of {frameworks}", frameworks=listing(framework_names))
            if framework_names
            else "the module has no neurons",
            fix=f"use neurons of one framework: {' or '.join(titles)}",
        )
    draft = _ModuleDraft(seen, exports)
    for call in seen.calls:
        draft.add(call)
    places = {draft.add_output(output): output.place for output in seen.outputs}
    steps = [export.dt for export in exports.values() if export.dt is not None]
    graph = _read(draft, framework_names[0], steps)
    # graphs that `to_torch` made modules of know their dt
    dt = graph.dialect.dt
    assumed_dt = dt if not steps and not draft.dialects else None
    if assumed_dt is not None:
        why = graph.dialect.why + Text(
            " No layer of the module specifies dt: {dt} is assumed.", dt=format_time(assumed_dt)
        )
        graph = dataclasses.replace(graph, dialect=dataclasses.replace(graph.dialect, why=why))
    warnings = (
        *graph.warnings,
        *_left_out(seen),
        *_outside(seen),
        *_counting(seen),
        *_reset(seen),
        *_shared_numbers(seen, draft),
        *_fixed_weights(seen, draft),
    )
    graph = dataclasses.replace(graph, warnings=warnings)
    firing = {leaf: node for leaf, node in draft.neurons.items() if draft.fires(node)}
    scales = {
        leaf: draft.nodes[draft.ends[leaf][0]]["scale"]
        for leaf, node in firing.items()
        if draft.ends[leaf][0] != node
    }
    inner = _inner(draft)
    for leaf, layers in inner.items():
        firing |= {f"{leaf}.{layer}": node for layer, node in layers.items()}
    seen = dataclasses.replace(seen, inner={leaf: tuple(layers) for leaf, layers in inner.items()})
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


def _inner(draft: _ModuleDraft) -> dict[str, dict[str, str]]:
    """Map each leaf that `jaxsnn.to_torch` created to its spiking layers and the nodes they
    implement.
    """
    layers_by_leaf = {}
    for call in draft.seen.calls:
        if is_of_graph(call.module):
            full = draft.parts[call.name]
            firing = _firing(source_of(call.module))
            layers_by_leaf[call.name] = {
                layer: full[node.replace("/", ".")] for layer, node in firing.items()
            }
    return layers_by_leaf


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
    import torch

    for name, layer in module.named_children():
        refuse_few_digits(name, layer)
    try:
        with torch.no_grad():
            module(sample.clone())
    except RuntimeError as error:
        raise sample_refusal(module, sample, error) from error
    except Exception as error:
        raise error_refusal(
            module, error, f"for a sample of shape {tuple(sample.shape)}"
        ) from error
    graph = trained_graph(module)
    ready, firing = drafted(graph), _firing(graph)
    return TracedModule(
        graph=graph,
        trace=ModuleTrace(calls=(), outputs=(), leading=1, inner={"": tuple(firing)}),
        places={output: place for place, output in enumerate(ready.outputs.values())},
        firing=firing,
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


class _ModuleDraft:
    """Nodes and edges built from the calls in order."""

    def __init__(self, seen: ModuleTrace, exports: Mapping[str, Exported]) -> None:
        self.seen, self.exports = seen, dict(exports)
        shape = seen.calls[0].inward if seen.calls else ()
        first = _free("input", exports)
        shape = next((call.inward for call in seen.calls if "" in call.sources), shape)
        self.nodes: dict[str, Any] = {first: {"type": "Input", "shape": np.array(shape)}}
        self.edges: list[Edge] = []
        self.by_node: dict[str, dict[str, Any]] = {}
        self.parts: dict[str, dict[str, str]] = {}
        self.folds: list[Fold] = []
        #: Leaf that `jaxsnn.to_torch` made -> the dialect of its graph, by the nodes here.
        self.dialects: dict[str, Dialect] = {}
        #: Leaf of a framework -> its neuron.
        self.neurons: dict[str, str] = {}
        #: Leaf -> nodes whose outputs it gives, as a sum.
        self.ends: dict[str, tuple[str, ...]] = {"": (first,)}

    def add(self, call: Call) -> None:
        """Add the nodes of a call, after the nodes that feed it."""
        if isinstance(call.module, Before):
            self._add_before(call)
            return
        if isinstance(call.module, Membrane):
            self.parts[call.name] = {"": self._membrane_of(call.module.leaf)}
            self.ends[call.name] = (self.parts[call.name][""],)
            return
        export = self.exports[call.name]
        before = self._before(call.name, call.sources)
        if export.folds is not None and not self._fold(call, export, before):
            export = Exported(nodes={"": weights_of_channels(call, export)})
        of_values = (export.takes_spikes and not self._binary(before)) or (
            export.takes_positive and not self._positive(before)
        )
        if of_values and export.for_values is not None:
            export = self.exports[call.name] = export.for_values
        self.parts[call.name] = {}
        if not export.nodes:
            self.ends[call.name] = before
            return
        full = _full_names(call.name, export)
        self.parts[call.name] = full
        first = [full[suffix] for suffix in export.takers] or [next(iter(full.values()))]
        self.nodes |= {full[suffix]: entry for suffix, entry in export.nodes.items()}
        self.edges += [(end, taker) for end in before for taker in first]
        self.edges += [(full[start], full[end]) for start, end in export.edges]
        self.ends[call.name] = tuple(full[suffix] for suffix in export.ends)
        if export.dialect is not None:
            self._add_dialect(call.name, export.dialect, full)
            return
        last = full[export.sends]
        neuron = last if export.neuron is None else full[export.neuron]
        if export.framework is not None:
            self.neurons[call.name] = neuron
        for option, value in export.options.items():
            self.by_node.setdefault(option, {})[neuron] = value
        if export.options.get("readout"):
            self._add_spikes(call)

    def _add_dialect(self, name: str, dialect: Dialect, full: Mapping[str, str]) -> None:
        """Merge the dialect of a graph that is a part of the module, and record which of its
        neurons are readouts.
        """
        nodes = {full[node]: options for node, options in dialect.nodes.items() if node in full}
        common = dataclasses.replace(dialect, nodes={}, why="")
        for earlier_name, earlier in self.dialects.items():
            if dataclasses.replace(earlier, nodes={}, why="") != common:
                raise ConversionError(
                    Text(
                        "'{first}' and '{second}' come from graphs whose dialects differ",
                        first=earlier_name,
                        second=name,
                    ),
                    fix="use graphs with the same dialect, dt and options in jaxsnn.to_torch",
                    node=name,
                )
        self.dialects[name] = dataclasses.replace(dialect, nodes=nodes)
        readouts = [node for node, options in nodes.items() if options.get("readout")]
        self.by_node.setdefault("readout", {}).update(dict.fromkeys(readouts, True))

    def dialect(self) -> Dialect | None:
        """Return the dialect of the graphs that are parts of the module; None if there are none."""
        parts = list(self.dialects.values())
        if not parts:
            return None
        if self.neurons:
            raise ConversionError(
                Text(
                    "the module has a neuron '{layer}' besides those of '{other_layer}', "
                    "which jaxsnn.to_torch created",
                    layer=next(iter(self.neurons)),
                    other_layer=next(iter(self.dialects)),
                ),
                fix="add the neuron to the graph before jaxsnn.to_torch",
            )
        nodes = {name: options for part in parts for name, options in part.nodes.items()}
        return dataclasses.replace(parts[0], nodes=nodes)

    def _add_before(self, call: Call) -> None:
        """Add a neuron's output of the previous step: an edge back from its nodes, which are added
        later.
        """
        leaf = call.module.leaf
        export = self.exports.get(leaf)
        if export is None or export.framework is None:
            raise ConversionError(
                Text(
                    "forward reads the previous output of '{layer}', which is not a "
                    "spiking layer of this module",
                    layer=leaf,
                ),
                fix="feed back only the spikes of a neuron that forward calls in each time step",
                node=leaf,
            )
        full = _full_names(leaf, export)
        self.nodes |= {full[suffix]: entry for suffix, entry in export.nodes.items()}
        self.parts[call.name] = {}
        self.ends[call.name] = tuple(full[suffix] for suffix in export.ends)

    def _before(self, name: str, sources: tuple[str, ...]) -> tuple[str, ...]:
        ends = tuple(end for source in sources for end in self.ends[source])
        if len(set(ends)) < len(ends):
            raise ConversionError(
                Text(
                    "'{layer}' receives the output of '{source}' twice, and a graph has "
                    "each edge once",
                    layer=self.seen.label(name),
                    source=self.label_of(next(end for end in ends if ends.count(end) > 1)),
                ),
                fix="add the output once, and double the weights",
                node=name,
            )
        return ends

    def _fold(self, call: Call, export: Exported, before: tuple[str, ...]) -> bool:
        """Fold a factor and an offset into the weights before them, if these feed nothing else, and
        return whether that was possible.
        """
        if len(before) != 1:
            return False
        entry = self.nodes[before[0]]
        if entry["type"] not in ("Linear", "Affine", "Conv1d", "Conv2d"):
            return False
        if any(self.seen.uses.get(name, 0) > 1 for name in self._between(call, before[0])):
            return False
        layer = next(
            (
                source_call.module
                for source_call in self.seen.calls
                if source_call.name == before[0]
            ),
            None,
        )
        held = getattr(layer, "state_dict", dict)()
        # Weights of a pool or a slice are no numbers of the module, and those of two places are in both.
        if not held or self._shared(layer):
            return False
        earlier = any(fold.node == before[0] for fold in self.folds)
        self.folds.append(
            Fold(
                layer=call.name,
                module=export.norm,
                node=before[0],
                offset=not earlier
                and not any("bias" in key or "running_mean" in key for key in held),
            )
        )
        assert export.folds is not None
        factor, offset = export.folds
        weight = np.asarray(entry["weight"])
        scaled = weight * factor.reshape(-1, *(1,) * (weight.ndim - 1))
        bias = np.asarray(entry.get("bias", 0.0)) * factor + offset
        kind = "Affine" if entry["type"] == "Linear" else entry["type"]
        entry |= {"type": kind, "weight": scaled.astype(weight.dtype)}
        entry["bias"] = bias.astype(weight.dtype)
        return True

    def _shared(self, layer: Any) -> bool:
        """Return whether another call uses parameters of a layer as well."""
        addresses = {parameter.data_ptr() for parameter in layer.parameters()}
        calls = [
            call
            for call in self.seen.calls
            if addresses.intersection(parameter.data_ptr() for parameter in _parameters(call))
        ]
        return len(calls) > 1

    def _between(self, call: Call, node: str) -> list[str]:
        """Return the leaves between a node and a call, through leaves that export no node."""
        leaves = list(call.sources)
        calls = {traced_call.name: traced_call for traced_call in self.seen.calls}
        while leaves[-1] not in ("", node) and not self.exports[leaves[-1]].nodes:
            leaves += calls[leaves[-1]].sources[:1]
        return leaves

    def label_of(self, node: str) -> str:
        """Return the name of a node in messages: the layer, or the function and its line."""
        return _label_of(node, self.parts, self.seen)

    def _positive(self, nodes: Iterable[str]) -> bool:
        """Return whether nodes emit spikes, or sums of spikes with non-negative weights."""
        for node in nodes:
            entry = self.nodes[node]
            before = [source for source, target in self.edges if target == node]
            weighted = entry["type"] in ("Linear", "Affine", "Conv1d", "Conv2d", "Scale")
            numbers = [entry.get(key, 0) for key in ("weight", "bias", "scale")]
            if weighted and any(np.any(np.asarray(array) < 0) for array in numbers):
                return False
            passes_on = weighted or entry["type"] in (
                "Flatten",
                "Reshape",
                "AvgPool2d",
                "SumPool2d",
            )
            if not (self._positive(before) if passes_on else self._emits_spikes(node)):
                return False
        return True

    def _binary(self, nodes: Iterable[str]) -> bool:
        """Return whether nodes emit only 0 and 1, with at most one 1 among them at each
        position.
        """
        reached: Any = 0  # by how many inputs, (channels,) or ()
        for node in nodes:
            entry = self.nodes[node]
            before = [source for source, target in self.edges if target == node]
            if entry["type"] in ("Linear", "Conv1d", "Conv2d"):
                weight = np.asarray(entry["weight"])
                if np.any(entry.get("bias", 0)) or not np.isin(weight, (0, 1)).all():
                    return False
                reached = reached + weight.sum(axis=tuple(range(1, weight.ndim)))
            else:
                reached = reached + 1
            passes_on = entry["type"] in ("Flatten", "Linear", "Conv1d", "Conv2d")
            if not (self._binary(before) if passes_on else self._emits_spikes(node)):
                return False
        return bool(np.all(reached <= 1))

    def _emits_spikes(self, node: str) -> bool:
        return self.nodes[node]["type"] == "Threshold" or self.fires(node)

    def fires(self, node: str) -> bool:
        """Return whether a node is a neuron whose output are its spikes."""
        traits = class_of(self.nodes[node]["type"]).traits
        return traits.fires and not self.by_node.get("readout", {}).get(node)

    def _add_spikes(self, call: Call) -> None:
        """Add a Threshold behind a neuron without a reset whose spikes are used.

        Raises:
            ConversionError: It receives its own spikes, or has an infinite threshold.
        """
        nodes, neuron = self.parts[call.name], self.neurons[call.name]
        looped = any(source == neuron and target in nodes.values() for source, target in self.edges)
        members = [output.member for output in self.seen.outputs if output.sources == (call.name,)]
        if not (looped or self.seen.feeds_a_layer(call.name) or "output" in members):
            return
        if looped or getattr(call.module, "v_threshold", 0.0) == float("inf"):
            raise ConversionError(
                Text(
                    "'{layer}' ({type}) emits spikes and never resets, and NIR has no "
                    "spiking neuron without a reset",
                    layer=self.seen.label(call.name),
                    type=type(call.module).__name__,
                ),
                fix="give it a reset, or use only its membrane, as a readout",
                node=call.name,
            )
        nodes["spikes"] = _free(f"{neuron}_spikes", self.nodes)
        level = self.nodes[neuron]["v_threshold"]
        self.nodes[nodes["spikes"]] = {"type": "Threshold", "threshold": level}
        self.edges.append((neuron, nodes["spikes"]))
        self.ends[call.name] = (nodes["spikes"],)

    def _membrane_of(self, leaf: str) -> str:
        """Return the node that gives the membrane of a neuron: the neuron itself if it never emits
        spikes, else an added one with the same inputs.

        Raises:
            ConversionError: The neuron receives its own spikes.
        """
        neuron = self.neurons[leaf]
        if self.by_node.get("readout", {}).get(neuron):
            return neuron
        reached, pending = set[str](), [neuron]
        while pending:
            source = pending.pop()
            after = {end for start, end in self.edges if start == source} - reached
            reached |= after
            pending += after
        if neuron in reached:
            raise ConversionError(
                Text(
                    "forward uses the membrane of '{layer}', whose spikes are fed back to it",
                    layer=leaf,
                ),
                fix="use its spikes instead, or the membrane of a layer without feedback",
                node=leaf,
            )
        node = _free(f"{neuron}_membrane", self.nodes)
        self.nodes[node] = dict(self.nodes[neuron])
        self.edges += [(source, node) for source, target in self.edges if target == neuron]
        for values in self.by_node.values():
            if neuron in values:
                values[node] = values[neuron]
        self._read_out(leaf, node)
        return node

    def _read_out(self, leaf: str, node: str) -> None:
        """Let a node give its membrane; that of a neuron which forgets it has no reset."""
        self.by_node.setdefault("readout", {})[node] = True
        if any(call.name == leaf and call.forgets for call in self.seen.calls):
            self.by_node["reset"][node] = "none"

    def add_output(self, output: TracedOutput) -> str:
        """Add an Output node and return its name."""
        alone = len(self.seen.outputs) == 1
        name = _free("output" if alone else f"output_{'_'.join(output.sources)}", self.nodes)
        if output.member == "membrane":
            leaf = output.sources[0]
            ends: tuple[str, ...] = (self.neurons.get(leaf, self.ends[leaf][0]),)
            if leaf in self.neurons and any(source == ends[0] for source, _ in self.edges):
                ends = (self._membrane_of(leaf),)
            self._read_out(leaf, ends[0])
        else:
            ends = self._before(name, output.sources)
        self.nodes[name] = {"type": "Output", "shape": np.array(output.shape)}
        self.edges += [(end, name) for end in ends]
        return name


def _label_of(node: str, parts: Mapping[str, Mapping[str, str]], seen: ModuleTrace) -> str:
    """Return the name of a node in messages, where the user's code does not contain it: that of
    its layer, or the function and its line.
    """
    call = next((call for call, nodes in parts.items() if node in nodes.values()), node)
    return seen.label(call) if call in seen.labels else node


def _full_names(name: str, export: Exported) -> dict[str, str]:
    """Map the suffixes of a leaf's nodes to their full names."""
    return {suffix: f"{name}.{suffix}" if suffix else name for suffix in export.nodes}


def _parameters(call: Call) -> list[Any]:
    """Return the parameters of a call's layer; functions have none."""
    return list(call.module.parameters()) if hasattr(call.module, "parameters") else []


def _left_out(seen: ModuleTrace) -> Iterator[Problem]:
    """Warn of tensors that the module returns and the graph leaves out."""
    for description in seen.left_out:
        yield Problem(
            code="left-out",
            severity="warning",
            message=Text(
                "the graph omits a value that the module returns besides its output: {description}",
                description=description,
            ),
            fix=(
                "compute it from the outputs of the graph, or let forward return outputs of layers"
            ),
        )


def _outside(seen: ModuleTrace) -> Iterator[Problem]:
    """Yield a note on operations of forward before the input of the graph and after its outputs."""
    steps = seen.passes
    if steps is None or not steps.before + steps.after:
        return
    parts = [
        Text("{operations} {position}", operations=listing(operations, limit=12), position=position)
        for operations, position in (
            (steps.before, "before its input"),
            (steps.after, "after its outputs"),
        )
        if operations
    ]
    yield Problem(
        code="outside-graph",
        severity="note",
        message=Text(
            "the graph is one time step of forward, and omits these operations of forward: {parts}",
            parts=listing(parts),
        ),
        fix="apply the same operations to the inputs and outputs of the graph",
    )


def _counting(seen: ModuleTrace) -> Iterator[Problem]:
    """Warn of a module whose attributes change in each time step, which later ones may depend on."""
    for name in seen.counters:
        yield Problem(
            code="counts-steps",
            severity="warning",
            message=Text(
                "forward changes '{name}' of the module in each time step, and effects "
                "of this on later time steps are not in the graph",
                name=name,
            ),
            fix=(
                "let forward compute the same in each time step, or call jaxsnn.verify "
                "with as many time steps as you run"
            ),
        )


def _reset(seen: ModuleTrace) -> Iterator[Problem]:
    """Warn of neurons that keep nothing from step to step."""
    if layers := [call.name for call in seen.calls if call.forgets]:
        yield Problem(
            node=layers[0],
            code="states-reset",
            severity="warning",
            message=Text(
                "forward resets the states of {layers} before each call, so that these neurons "
                "keep nothing from one time step to the next",
                layers=listing(f"'{name}'" for name in layers),
            ),
            fix="if they should keep their states, reset them outside of forward, or before its "
            "loop over time",
        )


def _shared_numbers(seen: ModuleTrace, draft: _ModuleDraft) -> Iterator[Problem]:
    """Yield notes on parameters that are copied to several nodes."""
    nodes: dict[int, list[str]] = {}
    for call in seen.calls:
        for node in tuple(draft.parts[call.name].values())[:1]:
            for parameter in _parameters(call):
                nodes.setdefault(parameter.data_ptr(), []).append(node)
    for node_names in dict.fromkeys(
        tuple(node_names) for node_names in nodes.values() if len(node_names) > 1
    ):
        shown = listing(f"'{name}'" for name in node_names)
        yield Problem(
            node=node_names[0],
            code="shared-parameters",
            severity="warning",
            message=Text(
                "nodes {layers} of the graph have copies of parameters that are shared "
                "in the module",
                layers=shown,
            ),
            fix=(
                "train the module instead of the graph, since training makes the copies "
                "in the graph different"
            ),
        )


def _fixed_weights(seen: ModuleTrace, draft: _ModuleDraft) -> Iterator[Problem]:
    """Yield notes on weights that are no parameters of the module, such as those of joins."""
    fixed, trainable = [], []
    for call in seen.calls:
        for suffix, node in draft.parts[call.name].items():
            if "weight" not in draft.nodes[node]:
                continue
            if _parameters(call) and suffix not in draft.exports[call.name].fixed:
                trainable += [f"{node}.{key}" for key in draft.nodes[node] if key in _TRAINED]
            else:
                fixed.append(f"'{node}'")
    if fixed and trainable:
        yield Problem(
            node=fixed[0].strip("'"),
            code="fixed-weights",
            severity="warning",
            message=Text(
                "the weights of nodes {nodes} are not parameters of the module, and "
                "load_into refuses the graph if training changes them",
                nodes=listing(fixed),
            ),
            fix=Text(
                "to train only the other parameters, pass {trainable}",
                trainable=TRAINABLE.set_to(",".join(trainable)),
            ),
        )


def _free(name: str, used_names: Any) -> str:
    while name in used_names:
        name += "_"
    return name


def _read(draft: _ModuleDraft, framework: str, steps: list[float]) -> Graph:
    tree = {"type": "NIRGraph", "nodes": draft.nodes, "edges": draft.edges}
    document, dialect = group_of(tree, NIR_VERSION), draft.dialect()
    if dialect is not None:
        return tagged(parse(document, dialect=dialect))
    options: dict[str, Any] = dict(draft.by_node)
    options["readout"] = list(draft.by_node.get("readout", ()))
    if steps:
        if len(set(steps)) != 1:
            raise ConversionError(
                Text("neurons have different time steps ({dt} s)", dt=listing(sorted(set(steps)))),
                fix="use the same dt for all neurons",
            )
        options["dt"] = steps[0]
    options |= framework_of(framework).leaf_options
    graph = parse(document, dialect=framework, **options)
    conventions = graph.dialect.conventions
    if graph.dialect.dt is None and conventions is not None and conventions.dt is not None:
        # No neuron has a time constant that tells it, as in a network of Alpha alone.
        graph = parse(document, dialect=framework, **options, dt=conventions.dt)
    return tagged(graph)
