"""`Draft`, a graph while it is rewritten for another simulator: plain entries, and edits that
preserve its function.
"""

from __future__ import annotations

import collections
import dataclasses
import keyword
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.model.changes import Change, Edge, natural_key
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.loops import feedback_edges, late_edges
from jaxsnn.nir.model.node import LIKE_XLA, Node
from jaxsnn.nir.model.nodes import NEURONS, class_of
from jaxsnn.nir.model.passes import Shape, bypass_relays, is_relay, shapes, window
from jaxsnn.wording import Text

#: Types that multiply by weights, into which a factor can be merged.
WEIGHTED = ("Linear", "Affine", "Conv1d", "Conv2d")
POOLS = ("SumPool2d", "AvgPool2d")
_ATTRIBUTES = """
    T_destination add_module add_submodule apply bfloat16 buffers call_super_init children code compile cpu cuda
    delete_all_unused_submodules delete_submodule double dump_patches eval execution_order extra_repr float forward
    get_buffer get_execution_order get_extra_state get_input_nodes get_parameter get_submodule graph half
    instantiate_modules ipu load_state_dict modules mtia named_buffers named_children named_modules named_parameters
    parameters print_readable recompile register_backward_hook register_buffer register_forward_hook
    register_forward_pre_hook register_full_backward_hook register_full_backward_pre_hook
    register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module register_parameter
    register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ return_state set_extra_state
    set_submodule share_memory state_dict stateful_modules to to_empty to_folder train training type xpu
    __annotations__ __call__ __dict__ __getattr__ __module__ __setstate__ __weakref__
    zero_grad _buffers _modules _parameters initialized_state is_none self clear items keys pop update values
"""
#: Attributes of torch.nn.Module, of torch.nn.ModuleDict and of the modules that nirtorch makes, and
#: names in the code that these execute; nodes cannot have these names.
TORCH_NAMES = frozenset(
    [*_ATTRIBUTES.split(), *(name for name in dir(dict) if name.startswith("__"))]
)
NEURON_TYPES = tuple(cls.__name__ for cls in NEURONS)


@dataclasses.dataclass(kw_only=True)
class Draft:
    """Graph that is being rewritten. Relays of nested graphs are removed, and names have no "/".

    Attributes:
        nodes: Entries by name: "type", parameters of NIR, and "metadata" if the file has some.
        shapes: Shape of the input and of the output of each node.
        edges: Pairs of names.
        changes: Changes so far.
        losses: Losses of approximations.
        notes: Assumptions, as sentences for the user.
        memories: Sums with feedback through weights: loops without a neuron.
        self_weights: Weights from each neuron to itself, added by a pass.
        delayed: Edges from weights to nodes by which loops of more than two nodes act one time step
            later.
        channels_last: Whether a Flatten joins height, width and channel, in this order.
        renamed: Final names of all nodes, by former name.
    """

    nodes: dict[str, dict[str, Any]]
    shapes: dict[str, tuple[Shape, Shape]]
    edges: list[Edge]
    changes: list[Change] = dataclasses.field(default_factory=list)
    losses: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    memories: list[str] = dataclasses.field(default_factory=list)
    self_weights: list[str] = dataclasses.field(default_factory=list)
    delayed: list[Edge] = dataclasses.field(default_factory=list)
    channels_last: bool = False
    renamed: dict[str, str] = dataclasses.field(default_factory=dict)

    def sources(self, name: str) -> list[str]:
        """Return the nodes with an edge to a node, in natural order."""
        return sorted((source for source, target in self.edges if target == name), key=natural_key)

    def targets(self, name: str) -> list[str]:
        """Return the nodes with an edge from a node, in natural order."""
        return sorted((target for source, target in self.edges if source == name), key=natural_key)

    def of_type(self, *types: str) -> list[str]:
        """Return the names of the nodes of some types, in natural order."""
        return sorted(
            (name for name, entry in self.nodes.items() if entry["type"] in types), key=natural_key
        )

    def changed(self, node: str, description: str, why: str) -> None:
        """Note a change."""
        self.changes.append(Change(node=node, what=description, why=why))

    def free(self, name: str) -> str:
        """Return the name, extended if another node has it or one that importers spell alike."""
        spelt_names = {spelt(node_name) for node_name in self.nodes}
        while spelt(name) in spelt_names:
            name += "_"
        return name

    def insert(self, edge: Edge, name: str, entry: dict[str, Any]) -> str:
        """Insert a node that keeps the shape into an edge; its name is extended if it is not free."""
        name = self.free(name)
        place = self.edges.index(edge)
        self.edges[place : place + 1] = [(edge[0], name), (name, edge[1])]
        self.delayed = [
            (name, edge[1]) if delayed_edge == edge else delayed_edge
            for delayed_edge in self.delayed
        ]
        self.nodes[name] = entry
        shape = self.shapes[edge[0]][1]
        self.shapes[name] = (shape, shape)
        return name


def _unknown_size(
    name: str, wires: Iterable[Edge], node_shapes: Mapping[str, tuple[Any, Any]]
) -> ConversionError:
    """Return the error for a node of unknown or ambiguous size."""
    arriving = {source: node_shapes[source][1] for source, target in wires if target == name}
    sizes = {str(size): source for source, size in arriving.items() if size is not None}
    if len(sizes) < 2:
        fix = "specify its parameters as arrays, whose shape determines the size"
        return ConversionError(
            Text("the size of node '{node}' is unknown", node=name), fix=fix, node=name
        )
    (first_size, first), (second_size, second) = list(sizes.items())[:2]
    return ConversionError(
        Text(
            "node '{node}' sums '{first}' of shape {first_size} and '{second}' of shape "
            "{second_size}",
            node=name,
            first=first,
            first_size=first_size,
            second=second,
            second_size=second_size,
        ),
        fix="use a separate Output for each of them",
        node=name,
    )


def draft_of(graph: Graph) -> tuple[Draft, dict[str, str]]:
    """Return a draft of a graph and the new names by old name; nodes that reach no Output are
    removed.

    Raises:
        ConversionError: The size of a node is unknown.
    """
    node_shapes = shapes(graph)
    wires = bypass_relays(graph)
    reaching = _reaching(wires, graph.outputs)
    node_names = [
        name for name, node in graph.nodes.items() if not is_relay(node) and name in reaching
    ]
    new_names = _flat_names(node_names)
    conventions = graph.dialect.conventions
    last = conventions is not None and conventions.channels_last
    draft = Draft(nodes={}, shapes={}, edges=[], channels_last=last)
    for name, node in graph.nodes.items():
        if not is_relay(node) and name not in reaching:
            draft.changed(
                name,
                "is removed",
                "it has no path to an Output, and importers might return its output",
            )
    for name in node_names:
        inward, outward = node_shapes[name]
        if inward is None or outward is None:
            raise _unknown_size(name, wires, node_shapes)
        draft.nodes[new_names[name]] = _entry(graph.nodes[name], inward)
        draft.shapes[new_names[name]] = (inward, outward)
        for setting, shape in settings_of_one_number(graph, name):
            draft.changed(
                new_names[name],
                Text(
                    "{setting} of shape {shape} is written as a scalar",
                    setting=setting,
                    shape=shape,
                ),
                "the nir package and importers support a single number only as a scalar",
            )
        _pad_evenly(draft, new_names[name], inward)
        if new_names[name] != name:
            draft.changed(
                new_names[name], Text("renamed from '{node}'", node=name), _why_renamed(name)
            )
    draft.edges = _edges(wires, new_names)
    late, feedback = (
        [
            (new_names[source], new_names[target])
            for source, target in edges
            if {source, target} <= reaching
        ]
        for edges in (late_edges(graph), feedback_edges(graph))
    )
    refuse_late_biases(draft, late)
    draft.delayed = [*late, *feedback]
    return draft, new_names


def settings_of_one_number(graph: Graph, name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the settings of a node that the file stores as an array with one element, and the
    shape of the array.

    The nir package and importers accept a single number only as a scalar, so conversion writes a
    scalar. In one spatial dimension such an array has one element per axis, which importers accept.
    """
    node = graph.nodes[name]
    for parameter in node.traits.parameters:
        is_complete = parameter.per_axis and node.traits.axes == 2
        if not parameter.may_be_scalar or is_complete:
            continue
        shape = graph.written_shape(name, parameter.name)
        if shape and math.prod(shape) == 1:
            yield parameter.name, shape


def _reaching(edges: Iterable[Edge], outputs: Iterable[str]) -> set[str]:
    """Return the nodes from which an Output can be reached, including Outputs."""
    import networkx

    backward = networkx.DiGraph((target, source) for source, target in edges)
    backward.add_nodes_from(outputs)
    return {
        name for output in outputs for name in (output, *networkx.descendants(backward, output))
    }


def _edges(wires: Iterable[Edge], new_names: Mapping[str, str]) -> list[Edge]:
    """Return the edges between the remaining nodes, with their new names.

    Raises:
        ConversionError: An edge occurs twice, which files cannot represent.
    """
    edges: dict[Edge, None] = {}
    for source, target in wires:
        if target not in new_names:
            continue
        edge = new_names[source], new_names[target]
        if edge in edges:
            raise ConversionError(
                Text(
                    "node '{node}' receives the output of '{source}' several times through nested "
                    "graphs, but without nested graphs an edge can occur only once",
                    node=target,
                    source=source,
                ),
                fix="keep one of these connections, and multiply its weights by their number",
                node=target,
            )
        edges[edge] = None
    return list(edges)


def spelt(name: str) -> str:
    """Return a name as PyTorch-based importers register it."""
    plain = readable(name).replace(".", "_")
    return f"nir_node_{plain}" if keyword.iskeyword(plain) else plain


def readable(name: str) -> str:
    """Return a name as it appears in the code that importers generate: Python normalises
    identifiers (PEP 3131), and quotes and backslashes would end the string.
    """
    return re.sub(r'["\\]', "_", unicodedata.normalize("NFKC", name))


def _why_renamed(name: str) -> str:
    if "/" in name:
        return "nested graphs are written flat"
    if spelt(name) in TORCH_NAMES:
        return "PyTorch modules have an attribute with that name"
    if readable(name) != name:
        return f"importers generate Python code, which spells it '{readable(name)}'"
    return f"importers register two nodes as '{spelt(name)}'"


def _flat_names(node_names: list[str]) -> dict[str, str]:
    """Return names without "/": the last part if it is unique, else all parts joined by dots; none
    of `TORCH_NAMES`, none that Python normalises to another, and no two that are spelt alike.
    """
    flat: dict[str, str] = {}
    times = collections.Counter(name.rpartition("/")[2] for name in node_names)
    for name in node_names:
        last = name.rpartition("/")[2]
        flat[name] = readable(last if times[last] == 1 else name.replace("/", "."))
    spelling_counts = collections.Counter(map(spelt, flat.values()))
    for name, short in flat.items():
        before = short
        while spelt(short) in TORCH_NAMES or spelling_counts[spelt(short)] > (short == before):
            short += "_"
        spelling_counts.subtract([spelt(before)])
        spelling_counts.update([spelt(short)])
        flat[name] = short
    return flat


def _entry(node: Node, inward: Shape) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": node.type, **node.parameters}
    if node.metadata:
        entry["metadata"] = dict(node.metadata)
    if node.type in ("Input", "Output"):
        entry["shape"] = np.array(inward)
    if node.type == "Flatten":
        entry["input_type"] = np.array(inward)
    if node.type in WEIGHTED:
        # Importers fail on integers, and on another byte order than that of the machine.
        entry |= {key: node.numbers(key) for key in ("weight", "bias") if key in entry}
    if node.type in ("Conv1d", "Conv2d"):
        # A scalar if there is one axis: nir.read fails on [20].
        sides = np.array(inward[1:])
        entry["input_shape"] = sides if sides.size > 1 else sides.reshape(())
        entry["bias"] = np.broadcast_to(entry["bias"], np.shape(entry["weight"])[:1]).copy()
    if node.type == "Affine":
        weight = np.shape(entry["weight"])
        entry["bias"] = np.broadcast_to(entry["bias"], (*weight[:-2], weight[-2])).copy()
    return entry


def _pad_evenly(draft: Draft, name: str, inward: Shape) -> None:
    """Write the padding of a window that is padded as in XLA as numbers; if these differ before and
    after the input, write the window as a convolution whose kernel starts with zeros.

    NIR pads both sides equally: d zeros before the kernel compensate for d additional cells before
    the input.
    """
    entry = draft.nodes[name]
    padding = entry.get("padding")
    if not isinstance(padding, str) or padding != LIKE_XLA:
        return
    frame = window(as_node(name, entry)).at(inward[1:])
    assert frame.padding is not None
    ends = np.array([after for _, after in frame.padding])
    entry["padding"] = ends
    lacking = ends - [before for before, _ in frame.padding]
    if not np.any(lacking):
        return
    if entry["type"] == "SumPool2d":
        draft.nodes[name] = entry = pool_as_convolution(draft, name)
    zeros = [(int(count) // step, 0) for count, step in zip(lacking, frame.dilation, strict=True)]
    entry["weight"] = np.pad(entry["weight"], ((0, 0), (0, 0), *zeros))
    why = "NIR pads both sides equally, the source framework pads more at the end"
    draft.changed(
        name,
        Text("is written as a Conv2d with padding {padding}", padding=tuple(ends.tolist())),
        why,
    )


def pool_as_convolution(draft: Draft, name: str) -> dict[str, Any]:
    """Return a SumPool2d with numeric padding as the entry of a depthwise convolution."""
    entry, inward = draft.nodes[name], draft.shapes[name][0]
    frame = window(as_node(name, entry))
    settings = {key: value for key, value in entry.items() if key != "kernel_size"}
    return settings | {
        "type": "Conv2d",
        "weight": np.ones((inward[0], 1, *frame.kernel)),
        "bias": np.zeros(inward[0]),
        "groups": np.array(inward[0]),
        "dilation": np.array(1),
        "input_shape": np.array(inward[1:]),
    }


def loops_of(draft: Draft) -> list[list[str]]:
    """Return the cycles as groups of nodes."""
    import networkx

    graph = networkx.DiGraph(draft.edges)
    parts = [sorted(part) for part in networkx.strongly_connected_components(graph)]
    return sorted(part for part in parts if len(part) > 1 or (part[0], part[0]) in draft.edges)


def refuse_late_biases(draft: Draft, late: Iterable[Edge]) -> None:
    """Refuse a bias in weights that the source omits in the first step: the written graph would
    apply it.

    Raises:
        ConversionError: There is such a bias; the message contains its node.
    """
    for source, target in late:
        if np.any(draft.nodes[source].get("bias", 0)):
            raise ConversionError(
                Text(
                    "node '{node}' has a bias, which reaches '{target}' only from the second time step "
                    "on, because the source framework runs this loop in the order of its nodes",
                    node=source,
                    target=target,
                ),
                fix=f"move the bias to weights of '{target}' outside of the loop",
                node=source,
            )


def feedback_of(draft: Draft, name: str) -> list[str]:
    """Return the nodes of a population's loop whose output reaches it one step later."""
    part = next((part for part in loops_of(draft) if name in part), [])
    if len(part) > 2:
        return [source for source, target in draft.delayed if target == name]
    return [source for source in draft.sources(name) if source in part]


def as_node(name: str, entry: dict[str, Any]) -> Node:
    """Return an entry as a record."""
    cls = class_of(entry["type"])
    return cls(name=name, **{key: entry[key] for key in cls.names if key in entry})


def scale_inputs(
    draft: Draft, neuron: str, factor: np.ndarray, offset: np.ndarray, bias_ratio: np.ndarray
) -> None:
    """Multiply all that arrives at a neuron by `factor`, its biases by `factor * bias_ratio`, and
    add `offset`.

    Args:
        draft: Edited in place.
        neuron: Name of the neuron.
        factor, offset, bias_ratio: Arrays of the neuron's shape.

    Raises:
        ConversionError: The weights are shared between positions whose factors differ.
    """
    rescaled = not (np.all(factor == 1) and np.all(bias_ratio == 1))
    if not rescaled and not np.any(offset):
        return
    feeders = draft.sources(neuron)
    for number, source in enumerate(feeders):
        added = offset if number == 0 else np.zeros_like(offset)
        if not rescaled and not np.any(added):
            continue
        weighted = weighted_feeder(draft, source, neuron, bool(np.any(added)))
        shape = draft.shapes[weighted][1]
        values = [np.reshape(array, shape) for array in (factor, added, bias_ratio)]
        _scale_rows(draft, weighted, values[0], values[1], values[2])


def weighted_feeder(draft: Draft, source: str, neuron: str, needs_bias: bool) -> str:
    """Return the node with weights that feeds only this neuron; it is created if there is none, or
    if that node feeds others too.
    """
    entry, edge = draft.nodes[source], (source, neuron)
    if entry["type"] in WEIGHTED and len(draft.targets(source)) == 1:
        return source
    if entry["type"] == "Flatten" and len(draft.targets(source)) == 1:
        before = draft.sources(source)
        if (
            len(before) == 1
            and draft.nodes[before[0]]["type"] in WEIGHTED
            and len(draft.targets(before[0])) == 1
        ):
            return before[0]
    # A copy would receive input without the delay of the edges into this node.
    late = source in draft.memories or any(end == source for _, end in draft.delayed)
    if entry["type"] in WEIGHTED and not late:
        copy = draft.insert(edge, f"{source}_{neuron}", dict(entry))
        draft.shapes[copy] = draft.shapes[source]
        draft.edges.remove((source, copy))
        draft.edges.extend((before, copy) for before in draft.sources(source))
        draft.changed(
            copy,
            Text("is a copy of '{source}' for '{neuron}'", source=source, neuron=neuron),
            Text("'{source}' also feeds other nodes", source=source),
        )
        return copy
    name = draft.insert(edge, f"{neuron}_weights", identity(draft.shapes[source][1]))
    why = "the connection needs a factor or a bias, and the source framework has no weights in it"
    draft.changed(name, Text("an identity before '{neuron}'", neuron=neuron), why)
    return name


def identity(shape: Shape) -> dict[str, Any]:
    """Return an Affine or convolution that computes the identity."""
    if len(shape) == 1:
        return {"type": "Affine", "weight": np.eye(shape[0]), "bias": np.zeros(shape)}
    if len(shape) != 3:
        raise ConversionError(
            Text("NIR has no node that computes the identity for the shape {shape}", shape=shape),
            fix="insert weights before the neuron",
        )
    return {
        "type": "Conv2d",
        "input_shape": np.array(shape[1:]),
        "weight": np.eye(shape[0])[:, :, None, None],
        "stride": np.array([1, 1]),
        "padding": np.array([0, 0]),
        "dilation": np.array([1, 1]),
        "groups": np.array(1),
        "bias": np.zeros(shape[0]),
    }


def diagonal(factors: np.ndarray) -> dict[str, Any] | None:
    """Return weights that multiply each element by its factor; None where NIR has none.

    For one axis that is a Linear. For several it is a convolution of width 1, which has one factor for
    all elements of a channel.

    Args:
        factors: (*shape).
    """
    if factors.ndim == 1:
        return {"type": "Linear", "weight": np.diag(factors)}
    rows = factors.reshape(len(factors), -1)
    if factors.ndim not in (2, 3) or np.any(rows != rows[:, :1]):
        return None
    sides = factors.ndim - 1
    return {
        "type": f"Conv{sides}d",
        "input_shape": np.array(factors.shape[1:]) if sides > 1 else np.array(factors.shape[1]),
        "weight": np.diag(rows[:, 0]).reshape(len(rows), len(rows), *(1,) * sides),
        "stride": np.ones(sides, int),
        "padding": np.zeros(sides, int),
        "dilation": np.ones(sides, int),
        "groups": np.array(1),
        "bias": np.zeros(len(rows)),
    }


def _scale_rows(
    draft: Draft, name: str, factor: np.ndarray, offset: np.ndarray, bias_ratio: np.ndarray
) -> None:
    """Scale weights and biases: W = factor W, b = factor bias_ratio b + offset."""
    entry = draft.nodes[name]
    if entry["type"] in ("Conv1d", "Conv2d"):
        factor, offset, bias_ratio = (
            _per_channel(name, array) for array in (factor, offset, bias_ratio)
        )
    weight = np.asarray(entry["weight"])
    bias = np.asarray(entry.get("bias", np.zeros(1)), float)
    new_bias = factor * bias_ratio * bias + offset
    column = (
        np.reshape(factor, (-1,) + (1,) * (weight.ndim - 1))
        if entry["type"][:4] == "Conv"
        else factor[..., None]
    )
    if not np.all(factor == 1):
        entry["weight"] = rounded(weight * column, weight)
    if entry["type"] == "Linear" and np.any(new_bias):
        draft.nodes[name] = entry | {"type": "Affine", "bias": rounded(new_bias, weight)}
    elif "bias" in entry:
        entry["bias"] = rounded(new_bias, weight)


def rounded(value: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Return numbers in the dtype of those they replace; float16, which would lose digits, becomes
    float32.
    """
    return (
        value.astype(np.promote_types(like.dtype, np.float32)) if like.dtype.kind == "f" else value
    )


def _per_channel(name: str, array: np.ndarray) -> np.ndarray:
    rows = array.reshape(array.shape[0], -1)
    spread = np.abs(rows - rows[:, :1]).max(axis=1)
    if np.any(spread > 1e-9 * np.abs(rows).max(axis=1)):
        raise ConversionError(
            Text(
                "node '{node}' shares its weights between neurons that need different factors, "
                "{minimum:g} to {maximum:g}",
                node=name,
                minimum=rows.min(),
                maximum=rows.max(),
            ),
            fix="use the same parameters for all neurons of a channel",
            node=name,
        )
    return rows[:, 0]


def dense_groups(draft: Draft, why: str) -> None:
    """Write grouped convolutions with one group and zeros between the groups."""
    for name in draft.of_type("Conv1d", "Conv2d"):
        entry = draft.nodes[name]
        groups = int(np.ravel(entry["groups"])[0])
        if groups == 1:
            continue
        weight = np.asarray(entry["weight"])
        outputs, inputs = weight.shape[0] // groups, weight.shape[1]
        dense = np.zeros((weight.shape[0], inputs * groups, *weight.shape[2:]), weight.dtype)
        for group in range(groups):
            rows = slice(group * outputs, (group + 1) * outputs)
            dense[rows, group * inputs : (group + 1) * inputs] = weight[rows]
        draft.nodes[name] = entry | {"weight": dense, "groups": np.array(1)}
        draft.changed(
            name,
            Text(
                "{groups} groups are written as one group, with weights of 0 between them",
                groups=groups,
            ),
            why,
        )


def plain_flatten(draft: Draft) -> None:
    """Write the axes of each Flatten counted from the end, so that a batch axis does not
    matter.
    """
    for name in draft.of_type("Flatten"):
        inward, outward = draft.shapes[name]
        start_axis = next(
            (n for n, (a, b) in enumerate(zip(inward, outward, strict=False)) if a != b),
            len(outward) - 1,
        )
        tail = len(outward) - start_axis - 1
        entry = draft.nodes[name]
        start, end = np.array(start_axis - len(inward)), np.array(-1 - tail)
        if int(entry.get("start_dim", 1)) != start or int(entry.get("end_dim", -1)) != end:
            entry |= {"start_dim": start, "end_dim": end}
            draft.changed(
                name,
                Text("start_dim is {start}, end_dim is {end}", start=start, end=end),
                "axes that are counted from the end do not depend on a batch axis",
            )
