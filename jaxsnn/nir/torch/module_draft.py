"""Collect the nodes and edges of a graph from the calls of a PyTorch module's layers.

`ModuleDraft` takes the calls in order. The exporter of its layer (`leaves`) turns each call into nodes. A
BatchNorm is merged into the weights before it, spikes of the previous time step become a recurrent edge, and
properties that no node has, such as the reset, are collected as options of the dialect.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.frameworks.torch_layers import (
    Call,
    Exported,
    LayerNumbers,
    normalisation_numbers,
    weights_of_channels,
)
from jaxsnn.nir.model.changes import Edge
from jaxsnn.nir.model.dialect import Dialect
from jaxsnn.nir.model.node import Node
from jaxsnn.nir.model.nodes import class_of
from jaxsnn.nir.torch.leaves import Before, Membrane
from jaxsnn.nir.torch.trace_outcome import ModuleTrace, TracedOutput
from jaxsnn.wording import Text


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Fold:
    """A BatchNorm that is merged into the weights before it.

    Attributes:
        layer, module: Name of the BatchNorm, and the BatchNorm itself.
        node: Node with these weights.
        offset: Whether the bias of the node is that of the BatchNorm, because the layer of the node has no bias.
    """

    layer: str
    module: Any
    node: str
    offset: bool

    def undone(self, node: Node) -> list[LayerNumbers]:
        """Return the parameters for which the BatchNorm is the identity; with `offset`, it adds the bias
        of the node.
        """
        norm = self.module
        channels = np.ones(tuple(norm.running_mean.shape))
        bias = channels * (node.value("bias") if self.offset and "bias" in node.names else 0.0)
        values = normalisation_numbers(norm, channels, bias)
        return [
            LayerNumbers(layer=self.layer, node=node.name, owner=norm, name=name, value=value)
            for name, value in values.items()
        ]


class ModuleDraft:
    """Nodes and edges of a graph that grows call by call."""

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
        #: Leaf that `jaxsnn.to_torch` created -> the dialect of its graph, with the node names of the draft.
        self.dialects: dict[str, Dialect] = {}
        #: Leaf of a framework -> its neuron.
        self.neurons: dict[str, str] = {}
        #: Leaf -> nodes whose summed outputs are its output.
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
        if of_values:
            if export.for_values is None:
                raise ConversionError(
                    Text(
                        "'{layer}' ({type}) is supported only for inputs that are spikes",
                        layer=self.seen.label(call.name),
                        type=type(call.module).__name__,
                    ),
                    fix="place it after the neurons",
                    node=call.name,
                )
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
        if export.options.get("readout") and not export.gives_membrane:
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
                    "'{layer}' receives the output of '{source}' twice, but a graph cannot "
                    "contain an edge twice",
                    layer=self.seen.label(name),
                    source=self.label_of(next(end for end in ends if ends.count(end) > 1)),
                ),
                fix="add the output once, and double the weights",
                node=name,
            )
        return ends

    def _fold(self, call: Call, export: Exported, before: tuple[str, ...]) -> bool:
        """Fold a factor and an offset into the weights before them, and return whether that is possible:
        these weights must feed nothing else.
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
        layer_state = getattr(layer, "state_dict", dict)()
        # A pool or a slice has no parameters to fold into, and shared parameters would change elsewhere, too.
        if not layer_state or self._shared(layer):
            return False
        earlier = any(fold.node == before[0] for fold in self.folds)
        self.folds.append(
            Fold(
                layer=call.name,
                module=export.norm,
                node=before[0],
                offset=not earlier
                and not any("bias" in key or "running_mean" in key for key in layer_state),
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
            if addresses.intersection(parameter.data_ptr() for parameter in parameters_of(call))
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
        return layer_label(node, self.parts, self.seen)

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
        reached: Any = 0  # number of inputs that reach each channel: (channels,) or ()
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
        """Return whether a node is a neuron that outputs spikes."""
        traits = class_of(self.nodes[node]["type"]).traits
        return traits.fires and not self.by_node.get("readout", {}).get(node)

    def _add_spikes(self, call: Call) -> None:
        """Add a Threshold behind a neuron without a reset whose spikes are used.

        Raises:
            ConversionError: The neuron receives its own spikes, or has an infinite threshold.
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
        """Return the node that outputs the membrane of a neuron: the neuron itself if it is a readout,
        else a second neuron with the same inputs, which is added.

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
        """Make a node output its membrane. It gets no reset if `forward` resets the neuron before each
        call, because nothing of a reset is left in the next step.
        """
        self.by_node.setdefault("readout", {})[node] = True
        if any(call.name == leaf and call.reset_each_call for call in self.seen.calls):
            self.by_node["reset"][node] = "none"

    def constant_nodes(self) -> list[str]:
        """Return the nodes whose weights are not parameters of the module, such as those of torch.cat."""
        constant = []
        for call in self.seen.calls:
            trained = parameters_of(call)
            for suffix, node in self.parts[call.name].items():
                fixed = not trained or suffix in self.exports[call.name].fixed
                if "weight" in self.nodes[node] and fixed:
                    constant.append(node)
        return constant

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


def layer_label(node: str, parts: Mapping[str, Mapping[str, str]], seen: ModuleTrace) -> str:
    """Return the name of a node in messages: that of its layer, or, if the user's code has no name for
    it, the function and its line.
    """
    call = next((call for call, nodes in parts.items() if node in nodes.values()), node)
    return seen.label(call) if call in seen.labels else node


def _full_names(name: str, export: Exported) -> dict[str, str]:
    """Map the suffixes of a leaf's nodes to their full names."""
    return {suffix: f"{name}.{suffix}" if suffix else name for suffix in export.nodes}


def parameters_of(call: Call) -> list[Any]:
    """Return the parameters of a call's layer; functions have none."""
    return list(call.module.parameters()) if hasattr(call.module, "parameters") else []


def _free(name: str, used_names: Any) -> str:
    while name in used_names:
        name += "_"
    return name
