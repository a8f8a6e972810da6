"""`to_torch`: a PyTorch module of a `Graph`. `module_graph` beside it is the opposite direction,
`trained_module` that for modules made here.

torch and nirtorch are imported inside functions: nothing else needs them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.keywords import suggests_keywords
from jaxsnn.nir.convert.layers import reorder_flattened
from jaxsnn.nir.convert.memories import delay_in_steps
from jaxsnn.nir.convert.run_order import move_biases_out_of_loops
from jaxsnn.nir.convert.target import Target
from jaxsnn.nir.convert.topology import refuse_wiring
from jaxsnn.nir.dialects.resolve import resolve_neurons
from jaxsnn.nir.dialects.steps import refuse_firing_at_rest, step_of
from jaxsnn.nir.frameworks.framework import Importer
from jaxsnn.nir.frameworks.source_rule import NeuronRule
from jaxsnn.nir.frameworks.source_step import Step
from jaxsnn.nir.graphs.export import export
from jaxsnn.nir.graphs.parse import parse
from jaxsnn.nir.io.documents import NIR_VERSION, group_of
from jaxsnn.nir.model.dialect import Dialect
from jaxsnn.nir.model.draft import WEIGHTED, Draft, as_node, draft_of, plain_flatten
from jaxsnn.nir.model.extension_nodes import EXTENSIONS
from jaxsnn.nir.model.graph import Graph, refuse_no_graph
from jaxsnn.nir.model.nodes import class_of
from jaxsnn.nir.model.passes import window
from jaxsnn.nir.torch.extension_modules import layer_norm, neuron
from jaxsnn.wording import Text

#: Key of the graph in the `meta` of a module that `to_torch` made.
SOURCE = "jaxsnn.graph"
#: Target of `to_torch`: the nodes that nirtorch runs, and its order of execution.
_TORCH = Target(
    title="nirtorch",
    importer=Importer(
        version="",
        nodes=(
            *(
                "Input",
                "Output",
                "Linear",
                "Affine",
                "Scale",
                "Conv1d",
                "Conv2d",
                "SumPool2d",
                "AvgPool2d",
                "Flatten",
                "Delay",
            ),
            *("Threshold", "CubaLIF", "CubaLI", "LIF", "LI", "IF", "I"),
            *(name for name in EXTENSIONS if name != "Reshape"),
        ),
    ),
)


@suggests_keywords
def to_torch(graph: Graph) -> Any:
    """Build a torch.nn.Module that runs a graph as its dialect specifies, step by step, through
    nirtorch.

    It maps (input, state) to (output, state); without a state it starts from the initial state. For a
    graph with several Outputs, output is a dict of tensors by their names. Weights and biases are
    parameters. In every dialect the surrogate gradient of a spike is that of an arctan (Fang et al.,
    2021, arXiv:2007.05785); gradients pass through resets that subtract, but not through resets to
    v_reset. Results equal those of the source framework up to the order of float32 sums. After
    training in torch, `jaxsnn.from_torch(module, sample)` returns the graph with the module's weights.

    Args:
        graph: Read with its dialect: one input, loops of one neuron and one weight matrix, delays
            of whole steps.

    Raises:
        ConversionError: Continuous time, or wiring that nirtorch cannot run.
        DialectError: A property that a time step depends on is unknown.
    """
    refuse_no_graph(graph)
    import nirtorch
    import torch

    ready = drafted(graph)
    draft, outputs = ready.draft, ready.outputs
    stand_ins = {name: _known_to_nir(name, draft) for name in draft.nodes}
    tree = {"type": "NIRGraph", "nodes": stand_ins, "edges": draft.edges}
    written = export(parse(group_of(tree, NIR_VERSION), dialect=Dialect(why="Read by to_torch.")))
    modules = {
        id(node): torch.nn.Identity() if name in outputs else _module(name, ready)
        for name, node in written.nodes.items()
    }
    kinds: dict[Any, Any] = {
        type(node): lambda node: modules[id(node)] for node in written.nodes.values()
    }
    for name, node in written.nodes.items():
        modules[id(node)].requires_grad_(name not in ready.fixed)
    # With a map of its own for every node, nirtorch's defaults, which lose biases and swap
    # channels, are never used.
    module = nirtorch.nir_to_torch(written, kinds, default_map={})
    if len(outputs) > 1:
        _give_all(module, {new.replace(".", "_"): name for new, name in outputs.items()})
    module.meta[SOURCE] = graph
    return module


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TorchDraft:
    """A graph as nirtorch runs it.

    Attributes:
        draft: Nodes of the module.
        steps: Time step of each neuron, by its name in the draft.
        outputs: Name in the draft -> Output of the graph.
        nodes: Name in the draft -> node of the graph.
        fixed: Names in the draft of weights that are not parameters of the graph, such as an order
            of columns.
        extensions: Rule of each neuron of a type that NIR does not have, by its name in the draft.
    """

    draft: Draft
    steps: Mapping[str, Step]
    outputs: Mapping[str, str]
    nodes: Mapping[str, str]
    fixed: frozenset[str]
    extensions: Mapping[str, NeuronRule]


def drafted(graph: Graph) -> TorchDraft:
    """Prepare a graph for nirtorch; errors as in `to_torch`."""
    rules = resolve_neurons(graph)
    for name, rule in rules.items():
        if rule.is_continuous:
            raise ConversionError(
                Text(
                    "node '{node}' has continuous time in the dialect {dialect}",
                    node=name,
                    dialect=rule.dialect,
                ),
                fix="first convert the graph for a time-stepped framework",
                node=name,
            )
    draft, draft_names = draft_of(graph)
    outputs = {draft_names[name]: name for name in graph.outputs}
    _one_output(draft, list(outputs))
    refuse_wiring(draft, _TORCH)
    for name, new in draft_names.items():
        if draft.nodes.get(new, {}).get("type") == "Delay":
            draft.nodes[new]["delay"] = delay_in_steps(graph, name)
    steps = {
        draft_names[name]: step_of(rule, draft.shapes[draft_names[name]][1], readouts=True)
        for name, rule in rules.items()
        if name in draft_names and not rule.node.traits.extension
    }
    for name, rule in rules.items():
        # Spikes are counted in thresholds, or leave before a step.
        if draft_names.get(name) in steps and (
            steps[draft_names[name]].several or steps[draft_names[name]].late
        ):
            refuse_firing_at_rest(rule)
    for name in steps:
        draft.nodes[name] = _full(draft.nodes[name], draft.shapes[name][1])
    conventions = graph.dialect.conventions
    if conventions is not None and conventions.channels_last:
        reorder_flattened(draft, False, "torch is channels first")
    plain_flatten(draft)
    nodes = {new: name for name, new in draft_names.items()}
    weighted = {new for new, name in nodes.items() if graph.nodes[name].type in WEIGHTED}
    fixed = frozenset(draft.of_type(*WEIGHTED)) - weighted
    _delay_late(draft, steps)  # which may copy weights
    extensions = {
        draft_names[name]: rule
        for name, rule in rules.items()
        if name in draft_names and rule.node.traits.extension
    }
    for rule in extensions.values():
        rule.require("type", "reset", "no_reset", "resetting", error=ConversionError)
    return TorchDraft(
        draft=draft,
        steps=steps,
        outputs=outputs,
        nodes=nodes,
        fixed=fixed,
        extensions=extensions,
    )


def _full(entry: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    """Return the entry of a neuron with each parameter as an array: the nir package does not accept
    a mix of scalars and arrays.
    """
    numbers = class_of(entry["type"]).names
    return {
        key: np.resize(value, shape) if key in numbers else value for key, value in entry.items()
    }


def _delay_late(draft: Draft, steps: Mapping[str, Step]) -> None:
    """Insert Delays of one step after neurons whose spikes leave a step late."""
    loops = move_biases_out_of_loops(draft)
    for name, step in steps.items():
        for target in draft.targets(name) if step.late else []:
            if (target, name) not in loops:
                entry = {"type": "Delay", "delay": np.ones(step.shape)}
                draft.insert((name, target), f"{name}.late", entry)


def _one_output(draft: Draft, outputs: list[str]) -> None:
    """Replace several or summing Outputs by identities, and add one Output after the first:
    nirtorch returns the output of one node.
    """
    if len(outputs) == 1 and len(draft.sources(outputs[0])) == 1:
        return
    for name in outputs:
        draft.nodes[name] = {"type": "Scale", "scale": np.ones(draft.shapes[name][0])}
    last = draft.free("output")
    draft.nodes[last] = {"type": "Output", "shape": np.array(draft.shapes[outputs[0]][1])}
    draft.shapes[last] = draft.shapes[outputs[0]]
    draft.edges.append((outputs[0], last))


def _known_to_nir(name: str, draft: Draft) -> dict[str, Any]:
    """Return the entry of a node. An extension is replaced by a node of the nir package with the same
    output shape: nirtorch needs it only for the wiring.
    """
    entry = draft.nodes[name]
    if entry["type"] not in EXTENSIONS:
        return entry
    if entry["type"] == "MaxPool2d":
        return entry | {"type": "SumPool2d"}
    inward, outward = draft.shapes[name]
    if entry["type"] == "MaxPool1d":
        return {"type": "Linear", "weight": np.zeros((*outward, inward[-1]))}
    return {"type": "Scale", "scale": np.ones(outward)}


def _give_all(module: Any, outputs: Mapping[str, str]) -> None:
    """Make a module of nirtorch return the outputs of several layers, by name; `outputs` maps
    layers to names.
    """
    calls = {node.target: node for node in module.graph.nodes if node.op == "call_module"}
    last = next(node for node in module.graph.nodes if node.op == "output")
    _, state = last.args[0]
    last.args = (({name: calls[layer] for layer, name in outputs.items()}, state),)
    module.graph.lint()
    module.recompile()


def _module(name: str, ready: TorchDraft) -> Any:
    """Build the torch module of one node."""
    import torch

    entry = ready.draft.nodes[name]
    kind = entry["type"]
    if name in ready.steps:
        return _neuron(ready.steps[name])
    if name in ready.extensions:
        return neuron(ready.extensions[name], ready.draft.shapes[name][1], _spike_of(False))
    if kind in ("Input", "Output"):
        return torch.nn.Identity()
    if kind in ("Linear", "Affine"):
        outputs, inputs = np.shape(entry["weight"])
        return _loaded(torch.nn.Linear(inputs, outputs, bias=kind == "Affine"), entry)
    if kind == "Flatten":
        return torch.nn.Flatten(int(entry["start_dim"]), int(entry["end_dim"]))
    if kind in ("Scale", "Threshold", "Delay"):
        return _elementwise(kind, entry)
    if kind == "ReLU":
        return torch.nn.ReLU()
    if kind == "LayerNorm":
        return layer_norm(entry)
    frame = window(as_node(name, entry))
    even = frame.padding is not None and all(before == after for before, after in frame.padding)
    # Torch's "same" pads more after than before, too; it takes no strides.
    if not even and (entry["padding"] != "same" or set(frame.stride) != {1}):
        raise ConversionError(
            Text(
                "node '{node}' ({type}) has different padding at its two ends", node=name, type=kind
            ),
            fix="specify the padding as numbers",
            node=name,
        )
    padding: Any = tuple(before for before, _ in frame.padding or ()) if even else "same"
    if kind in ("MaxPool1d", "MaxPool2d"):
        return getattr(torch.nn, kind)(frame.kernel, frame.stride, padding)
    if kind in ("SumPool2d", "AvgPool2d"):
        divisor = 1 if kind == "SumPool2d" else None
        pool: Any = torch.nn.AvgPool2d
        return pool(frame.kernel, frame.stride, padding, divisor_override=divisor)
    cls: Any = torch.nn.Conv1d if kind == "Conv1d" else torch.nn.Conv2d
    outputs, inputs = np.shape(entry["weight"])[0], np.shape(entry["weight"])[1] * frame.groups
    conv = cls(inputs, outputs, frame.kernel, frame.stride, padding, frame.dilation, frame.groups)
    return _loaded(conv, entry)


def _loaded(module: Any, entry: dict[str, Any]) -> Any:
    import torch

    with torch.no_grad():
        module.weight.copy_(torch.tensor(np.asarray(entry["weight"], np.float32)))
        if "bias" in entry:
            module.bias.copy_(torch.tensor(np.asarray(entry["bias"], np.float32)))
    return module


def _elementwise(kind: str, entry: dict[str, Any]) -> Any:
    """Build the module of a Scale, a Threshold, or a Delay of whole steps."""
    import torch

    above = _spike_of(False)

    class Elementwise(torch.nn.Module):
        value: Any

        def __init__(self) -> None:
            super().__init__()
            value = entry[{"Scale": "scale", "Threshold": "threshold", "Delay": "delay"}[kind]]
            self.register_buffer("value", torch.tensor(np.asarray(value, np.float32)))

        def forward(self, x: Any) -> Any:
            return x * self.value if kind == "Scale" else above(x - self.value)

    class Late(Elementwise):
        """Delay line, whose state contains the inputs of the previous steps, the latest first."""

        def forward(self, x: Any, state: Any = None) -> Any:
            longest = int(self.value.max())
            held = [x, *(state or [torch.zeros_like(x)] * longest)]
            parts = [
                torch.where(self.value == steps, held[steps], 0) for steps in range(longest + 1)
            ]
            return sum(parts), tuple(held[:longest])

    return Late() if kind == "Delay" else Elementwise()


def _spike_of(at_equality: bool) -> Callable[[Any], Any]:
    """Return a spike function: 1 where the membrane is above threshold, else 0; its gradient is the
    derivative of an arc tangent.
    """
    import torch

    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, height: Any) -> Any:
            ctx.save_for_backward(height)
            return (height >= 0 if at_equality else height > 0).to(height.dtype)

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            (height,) = ctx.saved_tensors
            return gradients[0] / (1 + (torch.pi * height) ** 2)

    return Spike.apply


def _fire_of(step: Step) -> Callable[[Any, Any], Any]:
    """Return a function that computes the spikes from v and the threshold, two tensors of one
    shape.
    """
    import torch

    spike = _spike_of(step.at_equality)

    def fire(v: Any, threshold: Any) -> Any:
        spikes: Any = spike(v - threshold)
        if not step.several:
            return spikes
        return spikes + (torch.floor(v / threshold) - 1).clamp(min=0).detach()

    return fire


def _neuron(step: Step) -> Any:
    """Build a population that steps as `jaxsnn.nir.frameworks.source_step` defines; its state is (v
    before reset, i, spikes).
    """
    import torch

    fire = _fire_of(step)

    class NeuronModule(torch.nn.Module):
        decay: Any
        gain: Any
        drive: Any
        synapse_decay: Any
        synapse_gain: Any
        v_threshold: Any
        v_reset: Any
        v_start: Any
        i_start: Any

        def __init__(self) -> None:
            super().__init__()
            for key in type(self).__annotations__:
                self.register_buffer(key, torch.tensor(getattr(step, key).astype(np.float32)))

        def forward(self, x: Any, state: Any = None) -> Any:
            zero = torch.zeros_like(x)
            if not state:
                v = zero + self.v_start
                before = fire(v, self.v_threshold) if step.starts_with_reset else zero
                state = (v, zero + self.i_start, before)
            v, i, spikes = state
            if step.reset.startswith("difference"):
                return self._by_difference(x, v, i)
            lost = spikes * self.v_threshold if step.reset.startswith("subtract") else zero
            if step.reset == "value":
                v = torch.where(spikes > 0, self.v_reset, v)
            if step.reset in ("subtract", "subtract unless above"):
                v = v - lost
            if step.floor is not None:
                v = (v - step.floor).clamp(min=0) + step.floor
            if step.current_based:
                x = i = self.synapse_decay * i + self.synapse_gain * x
            above = (v > self.v_threshold).to(v.dtype) * self.v_threshold
            v = self.decay * v + self.gain * x + self.drive
            if step.reset == "none":
                return v, (v, i, spikes)
            if step.reset == "subtract later":
                v = v - lost
            if step.reset == "skip":
                v = torch.where(spikes > 0, self.v_reset, v)
            compared = v - above if step.reset == "subtract unless above" else v
            spikes = fire(compared, self.v_threshold)
            return spikes, (v, i, spikes)

        def _by_difference(self, x: Any, v: Any, i: Any) -> Any:
            """Compute a step of snnTorch's reset_delay=False if some neurons rest above
            threshold.
            """
            before = (v > self.v_threshold).to(v.dtype)
            if step.reset == "difference":
                v = torch.where(before > 0, self.v_reset, v)
            if step.current_based:
                x = i = self.synapse_decay * i + self.synapse_gain * x
            v = self.decay * v + self.gain * x + self.drive
            if step.reset == "difference later":
                v = torch.where(before > 0, self.v_reset, v)
            spikes = fire(v, self.v_threshold)
            v = v - (spikes - before) * (v - self.v_reset)
            return spikes, (v, i, spikes)

    return NeuronModule()
