"""Split operations on all time steps of a recording into one operation for each time step.

Many loops compute the weights of all time steps at once and then use one time step after another, or
they stack the outputs of a loop and continue with the stack. `Unstacking` rewrites such a recording, so
that `folding` finds every operation in each time step:

    currents = fc(x)                       current 1 = fc(x[0]);  lif(current 1)
    lif(currents[0]); lif(currents[1])  => current 2 = fc(x[1]);  lif(current 2)
    ...                                    ...

An operation is split only if each time step of its result depends on the same time step of its argument
alone. This is tested by running it on random numbers, for all time steps at once and for single ones. The
axis of time may be any axis, or a part of a first axis that joins time and batch (`_Layout`). Operations
that mix time steps, such as a convolution over time, stay as they are; `module_trace` refuses them later.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from jaxsnn.nir.torch.leaves import exporter_of, in_time
from jaxsnn.nir.torch.module_order import RESHAPE
from jaxsnn.nir.torch.recording import Operation, TensorValue, index_along

#: Minimum number of steps of a sequence.
_LEAST_STEPS = 3
#: Function from one step of a tensor to the fields of an operation on this step: its kind, name,
#: function and arguments.
_Step = Callable[[Any], dict[str, Any]]
#: Layers that only change axes.
_RESHAPING = ("Flatten", "Unflatten")


@dataclasses.dataclass(frozen=True)
class _Layout:
    """Position of the time axis in a sequence.

    Attributes:
        lead: Lengths of the axes that the first axis joins, such as (batch, time); () if it joins
            none.
        axis: Axis of time, after the first axis is split.
    """

    lead: tuple[int, ...]
    axis: int

    def part(self, tensor: Any, step: int) -> Any:
        """Return one step of a sequence."""
        if self.lead:
            tensor = tensor.reshape(*self.lead, *tensor.shape[1:])
        return tensor.select(self.axis, step)

    def steps(self, tensor: Any) -> int:
        """Return the number of steps of a sequence."""
        return self.lead[self.axis] if self.lead else tensor.shape[self.axis]


class Unstacking:
    """Replacement of operations on sequences in a recording.

    Attributes:
        operations, returned: Operations and returned values after the replacement.
    """

    def __init__(self, operations: list[Operation], returned: list[TensorValue]) -> None:
        self._layouts: dict[int, _Layout] = {}
        self._parts: dict[int, list[TensorValue]] = {}
        self._takers = self._indexed(operations)
        lifted = self._lifted(operations)
        self.operations: list[Operation] = []
        self.returned = returned
        if lifted:
            self._replace(operations, lifted)
        else:
            self.operations = operations

    def _indexed(self, operations: list[Operation]) -> dict[int, list[tuple[Operation, Any]]]:
        """Note the layout of tensors that are taken apart step by step, and return the operations
        that take an element of a tensor, by the tensor's value.
        """
        takers: dict[int, list[tuple[Operation, Any]]] = {}
        indices: dict[tuple[int, int], set[int]] = {}
        for operation in operations:
            if operation.name not in ("__getitem__", "select", "unbind") or not operation.values:
                continue
            value = operation.values[0]
            for axis in range(value.tensor.ndim):
                if operation.name == "unbind":
                    dim = operation.kwargs.get("dim", (*operation.args, 0)[1])
                    index = range(value.tensor.shape[axis]) if dim == axis else None
                else:
                    index = index_along(operation, axis)
                if index is not None:
                    takers.setdefault(id(value), []).append((operation, (axis, index)))
                    places = {index} if isinstance(index, int) else set(index)
                    indices.setdefault((id(value), axis), set()).update(places)
                    steps = value.tensor.shape[axis]
                    if len(indices[id(value), axis]) == steps >= _LEAST_STEPS:
                        self._layouts.setdefault(id(value), _Layout((), axis))
        return takers

    def _lifted(self, operations: list[Operation]) -> dict[int, _Step]:
        """Return the operations that are computed step by step: id -> function for one step."""
        lifted: dict[int, _Step] = {}
        for operation in reversed(operations):
            if not operation.values or not operation.outputs:
                continue
            source, result = operation.values[0], operation.outputs[0]
            layout = self._layouts.get(id(result))
            if layout is None or result.source is not operation:
                continue
            for candidate in _layouts_of_other(source.tensor, result.tensor, layout):
                step = _step_of(operation, candidate, layout)
                if step is not None:
                    self._layouts.setdefault(id(source), candidate)
                    lifted[id(operation)] = step
                    break
        forward: set[int] = set()
        for operation in operations:
            if not operation.values or not operation.outputs or id(operation) in lifted:
                continue
            source, result = operation.values[0], operation.outputs[0]
            if source.elements is not None:
                self._layouts.setdefault(id(source), _Layout((), source.elements[0]))
            elif id(source) not in forward:
                continue
            layout = self._layouts[id(source)]
            if layout.steps(source.tensor) < _LEAST_STEPS or result.source is not operation:
                continue
            for candidate in _layouts_of_other(result.tensor, source.tensor, layout):
                step = _step_of(operation, layout, candidate)
                if step is not None:
                    self._layouts.setdefault(id(result), candidate)
                    forward.add(id(result))
                    lifted[id(operation)] = step
                    break
        return lifted

    def _replace(self, operations: list[Operation], lifted: dict[int, _Step]) -> None:
        instead: dict[int, TensorValue] = {}
        dropped: set[int] = set()
        for operation in operations:
            operation.tokens = [
                instead.get(id(token), token) if isinstance(token, TensorValue) else token
                for token in operation.tokens
            ]
            operation.inputs = {
                place: instead.get(id(value), value) for place, value in operation.inputs.items()
            }
            for value in operation.outputs:
                if value.elements is not None:
                    axis, elements = value.elements
                    elements = {k: instead.get(id(e), e) for k, e in elements.items()}
                    value.elements = (axis, elements)
            if id(operation) in dropped:
                continue
            if id(operation) not in lifted:
                self.operations.append(operation)
                continue
            result = operation.outputs[0]
            layout = self._layouts[id(result)]
            values = self._step_values(operation, lifted[id(operation)], layout)
            self._parts[id(result)] = values
            if not layout.lead:
                result.elements = (layout.axis, dict(enumerate(values)))
            for taker, (axis, index) in self._takers.get(id(result), ()):
                if layout == _Layout((), axis):
                    dropped.add(id(taker))
                    places = [index] if isinstance(index, int) else list(index)
                    for value, place in zip(taker.outputs, places, strict=True):
                        instead[id(value)] = values[place]
        self.returned = [instead.get(id(value), value) for value in self.returned]
        for index, operation in enumerate(self.operations):
            operation.index = index

    def _step_values(self, operation: Operation, step: _Step, layout: _Layout) -> list[TensorValue]:
        """Add an operation for each step, and return their results."""
        source, result = operation.values[0], operation.outputs[0]
        parts = self._parts.get(id(source)) or self._cut(source, operation)
        values = []
        for number, part in enumerate(parts):
            tensor = layout.part(result.tensor, number)
            others = [token for token in operation.tokens if token is not source]
            single = dataclasses.replace(
                operation,
                **step(part.tensor),
                tokens=[part, *others],
                inputs={**operation.inputs, id(part.tensor): part},
                site=(*operation.site, "step"),
                outputs=[],
                results={},
                membranes=[],
                result=tensor,
            )
            value = TensorValue(tensor, single)
            if result.numbers is not None:
                value.numbers = layout.part(result.numbers, number)
            single.outputs, single.results = [value], {id(tensor): value}
            held = [m for m in operation.membranes if m.tensor.shape == result.tensor.shape]
            for path, membrane in enumerate(held[:1], start=1):
                state = TensorValue(layout.part(membrane.tensor, number), single, path)
                if membrane.numbers is not None:
                    state.numbers = layout.part(membrane.numbers, number)
                single.outputs.append(state)
                single.membranes = [state]
            self.operations.append(single)
            values.append(value)
        return values

    def _cut(self, source: TensorValue, operation: Operation) -> list[TensorValue]:
        """Return the steps of a sequence that nothing computes step by step."""
        layout = self._layouts[id(source)]
        if source.elements is not None and layout == _Layout((), source.elements[0]):
            elements = source.elements[1]
            if len(elements) == layout.steps(source.tensor):
                return [elements[step] for step in range(len(elements))]
        values = []
        for number in range(layout.steps(source.tensor)):
            tensor = layout.part(source.tensor, number)
            single = dataclasses.replace(
                operation,
                kind="function",
                name="__getitem__",
                func=layout.part,
                args=(source.tensor, number),
                kwargs={},
                tokens=[source, number],
                inputs={id(source.tensor): source},
                site=(*operation.site, "part"),
                outputs=[],
                membranes=[],
                is_neuron=False,
                result=tensor,
            )
            value = TensorValue(tensor, single)
            if source.numbers is not None:
                value.numbers = layout.part(source.numbers, number)
            single.outputs, single.results = [value], {id(tensor): value}
            self.operations.append(single)
            values.append(value)
        self._parts[id(source)] = values
        return values


def _layouts_of_other(tensor: Any, opposite: Any, layout: _Layout) -> list[_Layout]:
    """Return possible layouts of a tensor on one side of an operation, with that of the other side."""
    if not hasattr(tensor, "is_inference"):
        return []
    layouts = []
    if layout.lead and tuple(tensor.shape[:2]) == layout.lead:
        layouts.append(_Layout((), layout.axis))
    if not layout.lead and layout.axis < 2 and opposite.ndim > 1:
        lead = tuple(opposite.shape[:2])
        if tensor.ndim and tensor.shape[0] == math.prod(lead):
            layouts.append(_Layout(lead, layout.axis))
    layouts.append(layout)
    steps = layout.steps(opposite)
    return [
        candidate
        for candidate in layouts
        if (candidate.lead and tensor.ndim and tensor.shape[0] == math.prod(candidate.lead))
        or (
            not candidate.lead
            and tensor.ndim > candidate.axis
            and tensor.shape[candidate.axis] == steps
        )
    ]


def _step_of(operation: Operation, before: _Layout, after: _Layout) -> _Step | None:
    """Return the function that describes an operation on one step; None if a step of its result
    depends on more than the same step of its argument.
    """
    import torch

    source, result = operation.values[0], operation.outputs[0]
    name, args = operation.name, operation.args
    if not args or args[0] is not source.tensor:
        return None
    changes = {"kind": operation.kind, "name": name, "func": operation.func}
    changes |= {"kwargs": operation.kwargs}
    others = args[1:]
    call = operation.func
    if operation.kind == "layer":
        if in_time(call):
            step = {**changes}
            same = before == after == _Layout((), 0)
            return (lambda part: {**step, "args": (part, *others)}) if same else None
        if operation.is_neuron or exporter_of(call) is None:
            return None
        call = call.forward
    elif operation.kind != "function" or (name.endswith("_") and not name.startswith("__")):
        return None
    if name in RESHAPE or (
        operation.kind == "layer" and type(operation.func).__name__ in _RESHAPING
    ):
        call = torch.Tensor.reshape
        others = (tuple(after.part(result.tensor, 0).shape),)
        changes = {"kind": "function", "name": "reshape", "func": call, "kwargs": {}}
    # Other numbers than those of the sample, which may be zeros.
    generator = torch.Generator().manual_seed(0)
    numbers = torch.rand(source.tensor.shape, generator=generator) * 4 - 1
    sequence = numbers.to(source.tensor)
    try:
        with torch.no_grad():
            full = operation.func.forward if operation.kind == "layer" else operation.func
            expected = full(sequence, *args[1:], **operation.kwargs)
            for number in {0, before.steps(sequence) - 1}:
                actual = call(before.part(sequence, number), *others, **changes["kwargs"])
                part = after.part(expected, number)
                same = actual.shape == part.shape
                if not same or not torch.allclose(actual.double(), part.double(), 1e-4, 1e-5):
                    return None
    except (AttributeError, RuntimeError, TypeError, ValueError, IndexError):
        return None
    return lambda part: {**changes, "args": (part, *others)}
