"""Compute the results of `forward` from outputs of its graph, by the operations that follow the graph.

`forward` is recorded for a sample. The recorded outputs of the graph are replaced by other numbers, and the
operations between them and the results are run again, such as

    spikes 1, spikes 2, ... -> stack -> sum over time -> linear -> log_softmax
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.torch.recording import (
    READS,
    Operation,
    TensorValue,
    in_line,
    tensors_of,
    with_tensors,
)
from jaxsnn.wording import Text


def recompute_results(
    returned: Sequence[TensorValue], replacements: Mapping[int, Any]
) -> list[Any]:
    """Return the results of `forward` with other outputs of its graph.

    Args:
        returned: Values that forward returned, in a recording that keeps copies of all numbers.
        replacements: Tensors with the new numbers, by the id of the value that they replace.

    Returns:
        A tensor for each result; None if it also depends on a neuron whose output is not replaced.
    """
    results = []
    for value in returned:
        operations = _operations_between(value, replacements)
        if any(operation.is_neuron for operation in operations):
            results.append(None)
            continue
        tensors = dict(replacements)
        for operation in sorted(operations, key=lambda op: op.index):
            _run_again(operation, tensors)
        results.append(_present_tensor(value, tensors))
    return results


def _operations_between(result: TensorValue, replacements: Mapping[int, Any]) -> set[Operation]:
    """Return the operations that compute a result from replaced values."""
    pending, operations, visited = [result], set[Operation](), set[int]()
    while pending:
        value = pending.pop()
        if id(value) in replacements or id(value) in visited:
            continue
        visited.add(id(value))
        if (stacked := _stacked(value)) is not None:
            pending += stacked[1]
        elif value.source is not None and value.source not in operations:
            operations.add(value.source)
            pending += value.source.values
    return operations


def _run_again(operation: Operation, tensors: dict[int, Any]) -> None:
    """Run an operation again if any of its arguments is replaced, and store its results in `tensors`."""
    import torch

    if all(_present_tensor(value, tensors) is value.numbers for value in operation.values):
        return
    output_ids = {id(value.tensor) for value in operation.outputs}
    arguments: dict[int, Any] = {}
    for identity, value in operation.inputs.items():
        tensor = _present_tensor(value, tensors)
        arguments[identity] = tensor.clone() if identity in output_ids else tensor
    function = operation.func.forward if operation.kind == "layer" else operation.func
    if (
        operation.name == "unbind"
    ):  # a loop over a tensor is recorded with the function of its iterator
        function = torch.Tensor.unbind
    args, kwargs = with_tensors((operation.args, dict(operation.kwargs)), arguments)
    result = function(*args, **kwargs)
    recorded, recomputed = tensors_of(operation.result), tensors_of(result)
    new_tensors = arguments | dict(zip(map(id, recorded), recomputed, strict=False))
    for value in operation.outputs:
        if id(value.tensor) in new_tensors:
            tensors[id(value)] = new_tensors[id(value.tensor)]


def _present_tensor(value: TensorValue, tensors: Mapping[int, Any]) -> Any:
    """Return the tensor of a value after the replacements, or as recorded."""
    import torch

    stacked = _stacked(value)
    if id(value) in tensors or stacked is None:
        return tensors.get(id(value), value.numbers)
    axis, values = stacked
    parts = [_present_tensor(element, tensors) for element in values]
    if all(part is element.numbers for part, element in zip(parts, values, strict=True)):
        return value.numbers
    return torch.stack(parts, axis)


def _stacked(value: TensorValue) -> tuple[int, list[TensorValue]] | None:
    """Return the axis of a stack and its elements in order; None for other values, such as a buffer of
    which only some elements were set.
    """
    if value.elements is None:
        return None
    axis, elements = value.elements
    is_complete = len(elements) == value.tensor.shape[axis]
    return (axis, [elements[index] for index in sorted(elements)]) if is_complete else None


def refuse_other_reads(operations: Sequence[Operation], replacements: Mapping[int, Any]) -> None:
    """Refuse replacements that change a number which `forward` converts to a Python value, such as a
    sum by which it divides: computations with Python values are not recorded.

    Raises:
        ConversionError: Such a number changes, or depends on a neuron that is not replaced.
    """
    for read in (operation for operation in operations if operation.name in READS):
        between: set[Operation] = set()
        for value in read.values:
            between |= _operations_between(value, replacements)
        tensors = dict(replacements)
        if not (is_unknown := any(operation.is_neuron for operation in between)):
            for operation in sorted(between, key=lambda op: op.index):
                _run_again(operation, tensors)
            arguments = {key: _present_tensor(value, tensors) for key, value in read.inputs.items()}
            args, kwargs = with_tensors((read.args, dict(read.kwargs)), arguments)
            if np.array_equal(read.func(*args, **kwargs), read.result, equal_nan=True):
                continue
        raise ConversionError(
            Text(
                "forward converts a tensor after the graph to Python values, by {function}{line}, and "
                "these {problem}",
                function=read.name.strip("_"),
                line=in_line(read.line),
                problem=Text("depend on a state that is not an output of the graph")
                if is_unknown
                else Text("differ for these outputs"),
            ),
            fix="in forward, compute with tensors only, or compute the results from the outputs yourself",
        )


def replacement_tensors(array: np.ndarray, values: Sequence[TensorValue]) -> dict[int, Any]:
    """Map the ids of the values of a graph's output to the tensors that replace them.

    Args:
        array: Output of the graph, (time, batch, *shape).
        values: Recorded values of this output: one for each step, or one that contains all steps.
    """
    import torch

    parts = [array] if len(values) == 1 and values[0].tensor.ndim == array.ndim else list(array)
    return {
        id(value): torch.tensor(np.asarray(part)).to(value.tensor)
        for value, part in zip(values, parts, strict=True)
    }
