"""Load the parameters of a `Graph` into a PyTorch module of the same structure.

Afterwards each layer of the module is compared with its node: both must compute the same time step.
Otherwise the module is restored, and a `ConversionError` names the layer, the node and the two values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError, JaxsnnError, first_line, listing
from jaxsnn.nir.dialects.resolve import resolve_neurons
from jaxsnn.nir.dialects.steps import step_of
from jaxsnn.nir.frameworks.source_step import Step
from jaxsnn.nir.frameworks.torch_layers import LayerNumbers, numbers_of
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.node import Node
from jaxsnn.nir.model.passes import shapes
from jaxsnn.nir.torch.graph_matching import matched
from jaxsnn.nir.torch.leaves import WAYS_OUT, setter_of
from jaxsnn.nir.torch.module_graph import TracedModule, traced_module
from jaxsnn.nir.torch.module_pass import loops_in_layers
from jaxsnn.nir.torch.trained_module import is_of_graph
from jaxsnn.summary import summarised
from jaxsnn.wording import Text

#: Tolerance of equal numbers, as a fraction of the largest in their array: conversion to float32
#: and back.
_TOLERANCE = 1e-5
#: Time steps of a sample for a module that may loop over time.
_STEPS = 5
#: Fields in which steps may differ: names, and values that are the same for all neurons of a layer.
_APART = ("name", "type", "shape", "level")


@summarised
@dataclasses.dataclass(frozen=True, kw_only=True)
class Loaded:
    """Report of loading a file into a module.

    Attributes:
        nodes: Nodes of the file by node of the module's graph.
        numbers: Parameters that were set, as "layer.name".
        notes: Further notes, one sentence each.
    """

    nodes: Mapping[str, str]
    numbers: tuple[str, ...]
    notes: tuple[str, ...] = ()


@contextmanager
def loaded(
    module: Any, graph: Graph, sample: Any, arguments: tuple[Any, ...] = ()
) -> Iterator[tuple[Loaded, TracedModule]]:
    """Load the parameters of a graph into a module, and restore the former ones if the context raises.

    Args:
        module: A torch.nn.Module that `jaxsnn.from_torch` accepts.
        graph: Read with its dialect.
        sample, arguments: Input of forward, and its further arguments.

    Yields:
        Names and notes of the loaded nodes (`Loaded`), and the module with its new numbers.

    Raises:
        ConversionError: The structures, shapes or steps differ.
        DialectError: The dialect of the graph leaves open a convention that a time step needs.
    """
    before = traced_module(module, sample, arguments)
    nodes = matched(before.graph, graph, before.label)
    assignments, notes = _assignments(before, graph, nodes)
    _refuse_parted(assignments)
    undo: list[Callable[[], Any]] = []
    try:
        undo.extend(_assigned(before, assignment) for assignment in assignments)
        try:
            after = traced_module(module, sample, arguments)
        except JaxsnnError:
            raise
        except Exception as error:  # what torch raises for numbers of a shape that it cannot use
            raise ConversionError(
                Text(
                    "the module fails with the parameters of the file ({reason})",
                    reason=first_line(error),
                ),
                fix="use layers with the shapes of the file",
            ) from error
        _refuse_difference(after, graph, nodes)
        number_names = tuple(f"{assignment.layer}.{assignment.name}" for assignment in assignments)
        yield Loaded(nodes=nodes, numbers=number_names, notes=tuple(notes)), after
    except BaseException:
        for back in reversed(undo):
            back()
        raise


def possible_samples(module: Any, graph: Graph) -> list[Any]:
    """Return zeros that a module may accept as the input of a graph: one sample, of one step or of
    several steps.
    """
    import torch

    if len(graph.inputs) != 1:
        raise ConversionError(
            Text(
                "the graph must have one Input to be loaded into a module, and its number of Inputs is {count}",
                count=len(graph.inputs),
            ),
            fix="load a graph with one Input",
        )
    shape = shapes(graph)[graph.inputs[0]][1]
    if shape is None:
        raise ConversionError(
            Text("the shape of input '{input}' is unknown", input=graph.inputs[0]),
            fix="specify the shape in the file",
            node=graph.inputs[0],
        )
    like = next(module.parameters(), torch.zeros(()))
    axes = [(1,), (_STEPS, 1), (1, _STEPS)]
    if loops_in_layers(module):
        axes.insert(0, (2, 1))
    return [like.new_zeros((*leading, *shape), requires_grad=False) for leading in axes]


def fitting_sample(module: Any, graph: Graph, samples: list[Any]) -> Any:
    """Return the first sample with which a module has the structure of a graph.

    Raises:
        ConversionError: There is none; the error is that of the first sample.
    """
    refusal: ConversionError | None = None
    for sample in samples if len(samples) > 1 and not is_of_graph(module) else ():
        try:
            traced = traced_module(module, sample)
            matched(traced.graph, graph, traced.label)
        except ConversionError as error:
            refusal = refusal or error
        else:
            return sample
    if refusal is not None:
        fix = refusal.fix + (
            "; if forward expects all time steps, pass sample=... to load_into with all time steps"
        )
        raise ConversionError.of(dataclasses.replace(refusal.problem, fix=fix)) from refusal
    return samples[0]


def _assignments(
    traced: TracedModule, graph: Graph, nodes: Mapping[str, str]
) -> tuple[list[LayerNumbers], list[str]]:
    """Return the parameters to set in the layers, in order, and notes on them."""
    assignments: list[LayerNumbers] = []
    notes: list[str] = []
    steps = _steps(graph)
    for call in traced.trace.calls:
        node_of_suffix = {suffix: nodes[name] for suffix, name in traced.parts[call.name].items()}
        setter = setter_of(call.module)
        if node_of_suffix and setter is not None:
            records = {suffix: graph.nodes[name] for suffix, name in node_of_suffix.items()}
            call_steps = {
                suffix: steps[name] for suffix, name in node_of_suffix.items() if name in steps
            }
            assignments += setter(call, records, call_steps)
    for fold in traced.folds:
        assignments += fold.undone(graph.nodes[nodes[fold.node]])
        effect = "only adds a bias now" if fold.offset else "has no effect any more"
        notes.append(
            Text(
                "'{layer}' {effect}: its statistics are merged into the weights before it",
                layer=fold.layer,
                effect=effect,
            )
        )
    notes += _unsaved(assignments)
    if graph.dialect.dt != traced.graph.dialect.dt:
        notes.append(
            Text(
                "a time step is {expected} s in the file and {actual} s in the module; "
                "the dynamics per time step are the same",
                expected=graph.dialect.dt,
                actual=traced.graph.dialect.dt,
            )
        )
    return assignments, notes


def _refuse_parted(numbers: list[LayerNumbers]) -> None:
    """Refuse different numbers for a tensor that the module uses in several places.

    Raises:
        ConversionError: The numbers differ; the message names the nodes.
    """
    import torch

    first: dict[tuple[int, int], tuple[LayerNumbers, np.ndarray]] = {}
    for assignment in numbers:
        held, value = getattr(assignment.owner, assignment.name, None), assignment.value
        if not torch.is_tensor(held):
            continue
        if value.ndim == held.ndim:  # a transpose has the same memory in another order
            value = value.transpose(np.argsort([-step for step in held.stride()], kind="stable"))
        value = value.ravel()  # and a view another shape
        earlier, earlier_value = first.setdefault(
            (held.data_ptr(), held.numel()), (assignment, value)
        )
        if not np.allclose(earlier_value, value, rtol=_TOLERANCE, atol=0):
            raise ConversionError(
                Text(
                    "nodes '{first}' and '{second}' have different parameters, and the "
                    "module has one {parameter} for both",
                    first=earlier.node,
                    second=assignment.node,
                    parameter=assignment.name,
                ),
                fix="use separate layers in the module",
                node=assignment.node,
            )


def _unsaved(numbers: list[LayerNumbers]) -> list[str]:
    """Return notes on values that change and that `module.state_dict()` omits."""
    visible = [assignment for assignment in numbers if not assignment.name.startswith("_")]
    lost = [
        f"{assignment.layer}.{assignment.name}"
        for assignment in visible
        if not _in_state_dict(assignment) and _moves(assignment)
    ]
    if not lost:
        return []
    return [
        Text(
            "state_dict() of the module omits {parameters}, which were changed: load the "
            "file again after load_state_dict(), or save the module itself",
            parameters=listing(lost, limit=4),
        )
    ]


def _in_state_dict(assignment: LayerNumbers) -> bool:
    name, _, field = assignment.name.partition(".")
    owner = assignment.owner
    is_saved_buffer = name in owner._buffers and name not in owner._non_persistent_buffers_set
    learnt = name in owner._parameters or name in getattr(owner, "parametrizations", ())
    return not field and (learnt or is_saved_buffer)


def _moves(assignment: LayerNumbers) -> bool:
    """Return whether a layer's present value differs from the assigned one by more than
    rounding.
    """
    name, _, field = assignment.name.partition(".")
    held = getattr(assignment.owner, name)
    if field:
        held = held[field] if isinstance(held, dict) else getattr(held, field)
    old = numbers_of(held).astype(float)
    fits = old.size in (1, assignment.value.size)
    held_for_all = np.broadcast_to(old.ravel(), assignment.value.size) if fits else old
    return not fits or not np.allclose(
        held_for_all, assignment.value.ravel(), rtol=_TOLERANCE, atol=0
    )


def _steps(graph: Graph) -> dict[str, Step]:
    """Return the time step of each neuron of NIR's types."""
    sizes = shapes(graph)
    return {
        name: step_of(rule, sizes[name][1] or (), readouts=True, resetting=True)
        for name, rule in resolve_neurons(graph).items()
        if not rule.node.traits.extension
    }


def _assigned(traced: TracedModule, assignment: LayerNumbers) -> Callable[[], Any]:
    """Set one number or array, and return a function that restores the old value.

    Raises:
        ConversionError: The layer cannot hold these numbers.
    """
    import torch

    label = traced.trace.label(assignment.layer)
    assignment = dataclasses.replace(assignment, layer=label)
    name, _, field = assignment.name.partition(".")
    old = getattr(assignment.owner, name)
    if field and isinstance(old, dict):
        setattr(assignment.owner, name, old | {field: float(_fitted(assignment, ()))})
        return lambda: setattr(assignment.owner, name, old)
    if field:
        # A tuple of tensors, which all layers may share by default, is replaced.
        tensor = torch.as_tensor(getattr(old, field))
        if (
            not tensor.is_floating_point()
        ):  # a time constant may be an int, which holds no fractions
            tensor = tensor.to(torch.get_default_dtype())
        shape = tuple(tensor.shape)
        value = _fitted(assignment, shape, refuse=isinstance(tensor, torch.nn.Parameter))
        new = torch.as_tensor(value, dtype=tensor.dtype, device=tensor.device)
        setattr(assignment.owner, name, old._replace(**{field: new}))
        return lambda: setattr(assignment.owner, name, old)
    if name in getattr(assignment.owner, "parametrizations", ()):
        return _through_parametrization(assignment, old)
    held = name in assignment.owner._parameters or name in assignment.owner._buffers
    if name in ("weight", "bias") and not held:
        if not _moves(assignment):
            return lambda: None
        removed = "first call torch.nn.utils.remove_weight_norm or torch.nn.utils.prune.remove"
        raise ConversionError(
            Text(
                "'{layer}': {parameter} is computed before each call, from other parameters",
                layer=assignment.layer,
                parameter=name,
            ),
            fix=removed if assignment.owner._forward_pre_hooks else WAYS_OUT["linear"],
            node=assignment.node,
        )
    if not isinstance(old, torch.Tensor):
        setattr(assignment.owner, name, float(_fitted(assignment, ())))
        return lambda: setattr(assignment.owner, name, old)
    before = old.detach().clone()
    value = torch.as_tensor(
        _fitted(assignment, tuple(old.shape)), dtype=old.dtype, device=old.device
    )
    with torch.no_grad():
        old.copy_(value)

    def back() -> None:
        with torch.no_grad():
            old.copy_(before)

    return back


def _through_parametrization(assignment: LayerNumbers, old: Any) -> Callable[[], Any]:
    """Set a parameter of torch.nn.utils.parametrize by its `right_inverse`; as `_assigned`."""
    import torch

    holder = assignment.owner.parametrizations[assignment.name]
    before = {key: value.detach().clone() for key, value in holder.state_dict().items()}
    value = torch.as_tensor(
        _fitted(assignment, tuple(old.shape)), dtype=old.dtype, device=old.device
    )
    cause: Exception | None = None
    try:
        setattr(assignment.owner, assignment.name, value)
        why = "its right_inverse does not preserve the values" if _moves(assignment) else ""
    except (NotImplementedError, RuntimeError) as error:
        cause, why = error, first_line(error)
    if why:
        holder.load_state_dict(before)
        raise ConversionError(
            Text(
                "'{layer}': {parameter} is parametrized and cannot be set ({reason})",
                layer=assignment.layer,
                parameter=assignment.name,
                reason=why,
            ),
            fix="first call torch.nn.utils.parametrize.remove_parametrizations",
            node=assignment.node,
        ) from cause
    return lambda: holder.load_state_dict(before)


def _fitted(assignment: LayerNumbers, shape: tuple[int, ...], refuse: bool = True) -> np.ndarray:
    """Return a value in the shape of its target; a scalar target accepts many equal numbers.

    Raises:
        ConversionError: The numbers differ and the target is a scalar.
    """
    value = np.array(assignment.value, float)
    if value.shape == shape:
        return value
    if len(shape) > value.ndim:
        # In a place with axes of one before, such as one of batch: (1, neurons).
        before = len(shape) - value.ndim
        if all(length == 1 for length in shape[:before]):
            fitted = _fitted(assignment, shape[before:], refuse)
            return fitted.reshape(shape) if fitted.size == int(np.prod(shape)) else fitted
    padded = (1,) * (value.ndim - len(shape)) + shape
    if len(padded) == value.ndim and all(
        padded_length in (1, length)
        for padded_length, length in zip(padded, value.shape, strict=True)
    ):
        index = tuple(
            slice(0, 1) if padded_length == 1 else slice(None) for padded_length in padded
        )
        few = value[index]
        if np.allclose(np.broadcast_to(few, value.shape), value, rtol=_TOLERANCE, atol=0):
            return few.reshape(shape)
        if not refuse:
            return value
        raise ConversionError(
            Text(
                "'{layer}': {parameter} has the shape {actual} in the module, and node "
                "'{node}' has values from {minimum:g} to {maximum:g} of the shape "
                "{expected}",
                layer=assignment.layer,
                parameter=assignment.name,
                actual=shape,
                node=assignment.node,
                minimum=value.min(),
                maximum=value.max(),
                expected=value.shape,
            ),
            fix=f"set this parameter of the layer to a tensor of the shape {value.shape}",
            node=assignment.node,
        )
    raise ConversionError(
        Text(
            "'{layer}': {parameter} has the shape {actual} in the module and {expected} "
            "in node '{node}'",
            layer=assignment.layer,
            parameter=assignment.name,
            actual=shape,
            expected=value.shape,
            node=assignment.node,
        ),
        fix="load the file into a module with the shapes of the file",
        node=assignment.node,
    )


def _refuse_difference(traced: TracedModule, graph: Graph, nodes: Mapping[str, str]) -> None:
    """Refuse a module whose layers still differ from the nodes of the file after loading.

    Raises:
        ConversionError: A number differs; the message contains the node and the two numbers.
    """
    module_steps, file_steps = _steps(traced.graph), _steps(graph)
    for name, node in nodes.items():
        if name in module_steps:
            _same_step(traced.label(name), node, module_steps[name], file_steps[node])
        else:
            _same_node(traced.label(name), traced.graph.nodes[name], graph.nodes[node])


def _same_step(name: str, node: str, module_step: Step, file_step: Step) -> None:
    keys = [field.name for field in dataclasses.fields(Step) if field.name not in _APART]
    if file_step.reset not in ("value", "skip", "difference", "difference later"):
        keys.remove("v_reset")
    # Kinds first: where the resets differ, numbers do for that reason.
    kinds = [key for key in keys if not isinstance(getattr(file_step, key), np.ndarray)]
    for key in kinds:
        _compared(name, node, key, getattr(module_step, key), getattr(file_step, key))
    for key in keys:
        if key not in kinds:
            _close(name, node, key, getattr(module_step, key), getattr(file_step, key))


def _same_node(label: str, module_node: Node, file_node: Node) -> None:
    for key in dict.fromkeys((*module_node.names, *file_node.names)):
        values = [_parameter(record, key) for record in (module_node, file_node)]
        if any(value is None for value in values) or any(isinstance(v, str) for v in values):
            continue
        shape = np.broadcast_shapes(*(np.shape(value) for value in values))
        first, second = (np.broadcast_to(value, shape) for value in values)
        _close(label, file_node.name, key, first, second)


def _parameter(node: Node, key: str) -> Any:
    """Return a parameter for comparison: 0 for a missing bias, None for parameters that a node may
    omit.
    """
    if key == "bias":
        return node.value("bias") if "bias" in node.names else 0.0
    if key in ("input_shape", "input_type", "shape"):
        return None
    return node.value(key) if key in node.names else None


def _close(
    name: str, node: str, key: str, module_value: np.ndarray, file_value: np.ndarray
) -> None:
    module_value, file_value = np.asarray(module_value, float), np.asarray(file_value, float)
    finite = np.isfinite(file_value)
    largest = np.abs(file_value[finite]).max(initial=0.0)
    with np.errstate(invalid="ignore"):
        same = (module_value == file_value) | (
            np.abs(module_value - file_value) <= _TOLERANCE * max(largest, 1e-30)
        )
    # Differences far below what a threshold of 1 sees are no differences.
    if not same.all() and key in ("drive", "bias", "v_start", "v_reset", "i_start"):
        same |= np.abs(module_value - file_value) <= 1e-7
    if not same.all():
        place = int(np.argmax(~same))
        _compared(name, node, key, float(module_value.flat[place]), float(file_value.flat[place]))


def _compared(name: str, node: str, key: str, module_value: Any, file_value: Any) -> None:
    if module_value != file_value:
        shown = [
            f"{value:g}" if isinstance(value, float) else f"{value}"
            for value in (module_value, file_value)
        ]
        raise ConversionError(
            Text(
                "'{layer}' cannot implement node '{node}': {key} is {actual} in the "
                "module and {expected} in the file",
                layer=name,
                node=node,
                key=key,
                actual=shown[0],
                expected=shown[1],
            ),
            fix=(
                "change that setting of the layer, or first convert the file for the "
                "module's framework"
            ),
            node=node,
        )
