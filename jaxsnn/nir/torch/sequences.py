"""Split operations on all time steps of a recording into one operation for each time step.

Many loops compute the weights of all time steps at once and then use one time step after another, or
they stack the outputs of a loop and continue with the stack. Some layers loop over time themselves.
`Unstacking` rewrites such a recording, so that `folding` finds every operation in each time step:

    currents = fc(x)                       current 1 = fc(x[0]);  lif(current 1)
    lif(currents[0]); lif(currents[1])  => current 2 = fc(x[1]);  lif(current 2)
    ...                                    ...

An operation is split only if each time step of its result depends on the same time step of its arguments
alone. This is tested by running it on random numbers, for all time steps at once and for single ones. The
axis of time may be any axis, or a part of a first axis that joins time and batch (`_Layout`). Operations
that mix time steps, such as a convolution over time, stay as they are; `folded_reading` refuses them later.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from jaxsnn.nir.torch.leaves import exporter_of, in_time
from jaxsnn.nir.torch.module_order import RESHAPE
from jaxsnn.nir.torch.recording import (
    Operation,
    TensorValue,
    elements_of,
    index_along,
    with_tensors,
)
from jaxsnn.nir.torch.torch_functions import SPLIT, axis_of, flatten_of, is_parameter

#: Minimum number of steps of a sequence, unless a layer loops over them.
_LEAST_STEPS = 3
#: Function from the arguments of one time step, by the id of the tensor that contains all time steps, to the kind,
#: name, function and arguments of the operation on them.
_Step = Callable[[Mapping[int, Any]], dict[str, Any]]
#: Functions that change a tensor in place -> those that compute the same in a new one.
_OUT_OF_PLACE: Mapping[str, str] = MappingProxyType(
    {
        **{"__iadd__": "__add__", "__isub__": "__sub__", "__imul__": "__mul__"},
        **{"__itruediv__": "__truediv__", "relu_": "relu"},
        **{"add_": "add", "sub_": "sub", "mul_": "mul", "div_": "div"},
    }
)
#: Layers that only change axes.
_RESHAPING = ("Flatten", "Unflatten")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Layout:
    """Position of the time axis in a sequence.

    Attributes:
        lead: Lengths of the axes that the first axis joins, such as (batch, time); () if it joins
            none.
        axis: Axis of time, after the first axis is split.
    """

    lead: tuple[int, ...] = ()
    axis: int

    def part(self, tensor: Any, step: int) -> Any:
        """Return one step of a sequence."""
        if self.lead:
            tensor = tensor.reshape(*self.lead, *tensor.shape[1:])
        return tensor.select(self.axis, step)

    def steps(self, tensor: Any) -> int:
        """Return the number of steps of a sequence."""
        return self.lead[self.axis] if self.lead else tensor.shape[self.axis]

    def join(self, parts: list[Any]) -> Any:
        """Return the sequence of steps."""
        import torch

        stacked = torch.stack(parts, self.axis)
        return stacked.flatten(0, 1) if self.lead else stacked

    def fits(self, tensor: Any, steps: int) -> bool:
        """Return whether a tensor may have this layout and so many steps."""
        if self.lead:
            return tensor.ndim > 0 and tensor.shape[0] == math.prod(self.lead)
        return tensor.ndim > self.axis and tensor.shape[self.axis] == steps


#: Layout of the sequences that layers loop over: (time, batch, *shape).
_TIME_FIRST = _Layout(axis=0)


class Unstacking:
    """Replacement of operations on sequences in a recording.

    Attributes:
        operations, returned: Operations and returned values after the replacement.
        steps: Number of time steps over which layers loop themselves; 0 if no layer does.
        steps_of_neuron: Names of neurons that loop themselves -> the number of time steps of each call.
    """

    def __init__(
        self, operations: list[Operation], returned: list[TensorValue], sample: TensorValue
    ) -> None:
        self._sample = sample
        self._layouts: dict[int, _Layout] = {}
        self._parts: dict[int, list[TensorValue]] = {}
        #: By the id of an operation to be split: how to compute a step, and the arguments that are sequences.
        self._split: dict[int, tuple[_Step, list[TensorValue]]] = {}
        operations = _sliced(operations)
        for index, operation in enumerate(operations):
            operation.index = index
        self.operations, self.returned, self.steps = operations, returned, 0
        self.steps_of_neuron: dict[str, list[int]] = {}
        self._takers = self._indexed(operations)
        for operation in operations:
            if operation.kind == "layer" and in_time(operation.func) and operation.outputs:
                value = operation.values[0]
                self._layouts.setdefault(id(value), _TIME_FIRST)
                if self._try(operation, [_TIME_FIRST], _TIME_FIRST):
                    self.steps = len(value.tensor)
                    if operation.is_neuron:
                        self.steps_of_neuron.setdefault(operation.name, []).append(self.steps)
        while self._split_backwards() or self._split_forwards():
            pass
        if self._split:
            self._replace(operations)

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
                    dim = axis_of(operation.args[1:], operation.kwargs, value.tensor)
                    index = range(value.tensor.shape[axis]) if dim == axis else None
                else:
                    index = index_along(operation, axis)
                if index is not None:
                    takers.setdefault(id(value), []).append((operation, (axis, index)))
                    places = {index} if isinstance(index, int) else set(index)
                    indices.setdefault((id(value), axis), set()).update(places)
                    steps = value.tensor.shape[axis]
                    if len(indices[id(value), axis]) == steps >= _LEAST_STEPS:
                        self._layouts.setdefault(id(value), _Layout(axis=axis))
        return takers

    def _split_backwards(self) -> bool:
        """Split operations that compute sequences; return whether there are any."""
        count = len(self._split)
        for operation in reversed(self.operations):
            if not operation.values or not operation.outputs or id(operation) in self._split:
                continue
            result = operation.outputs[0]
            if (after := self._layouts.get(id(result))) is not None:
                first = self._first_sequence(operation)
                self._try(operation, _layouts_beside(first.tensor, result.tensor, after), after)
        return len(self._split) > count

    def _split_forwards(self) -> bool:
        """Split operations on stacks, and on results of split operations; return whether there are any."""
        count = len(self._split)
        computed = {id(op.outputs[0]) for op in self.operations if id(op) in self._split}
        for operation in self.operations:
            if not operation.values or not operation.outputs or id(operation) in self._split:
                continue
            for value in operation.values:
                if value.elements is not None and len(value.elements[1]) >= _LEAST_STEPS:
                    self._layouts.setdefault(id(value), _Layout(axis=value.elements[0]))
                    computed.add(id(value))
            first, result = self._first_sequence(operation), operation.outputs[0]
            if id(first) not in computed:
                continue
            before = self._layouts[id(first)]
            known = [self._layouts[id(result)]] if id(result) in self._layouts else []
            for after in known or _layouts_beside(result.tensor, first.tensor, before):
                if self._try(operation, [before], after):
                    computed.add(id(result))
                    break
        return len(self._split) > count

    def _first_sequence(self, operation: Operation) -> TensorValue:
        """Return the first argument that is a sequence, or else the first one that is not a parameter."""
        values = operation.values
        computed = [value for value in values if not is_parameter(value.tensor)]
        sequences = [value for value in values if id(value) in self._layouts]
        return (*sequences, *computed, *values)[0]

    def _try(self, operation: Operation, layouts: list[_Layout], after: _Layout) -> bool:
        """Split an operation if its result has a layout, and its first sequence one of some layouts;
        return whether that is possible.
        """
        result, first = operation.outputs[0], self._first_sequence(operation)
        if result.source is not operation or self._layouts.get(id(result), after) != after:
            return False
        if not after.fits(result.tensor, steps := after.steps(result.tensor)):
            return False
        for before in [self._layouts[id(first)]] if id(first) in self._layouts else layouts:
            if not before.fits(first.tensor, steps):
                continue
            sequences = {id(first): before}
            for value in () if in_time(operation.func) else operation.values:
                layout = self._layouts.get(id(value), before)
                is_similar = value.tensor.ndim == first.tensor.ndim
                is_similar &= value is self._sample or value.source is not None
                if (id(value) in self._layouts or is_similar) and layout.fits(value.tensor, steps):
                    sequences[id(value)] = layout
            for chosen in (sequences, {id(first): before}):
                if (step := _step_of(operation, chosen, after)) is not None:
                    self._layouts = {**chosen, id(result): after} | self._layouts
                    values = [value for value in operation.values if id(value) in chosen]
                    self._split[id(operation)] = step, values
                    return True
        return False

    def _replace(self, operations: list[Operation]) -> None:
        instead: dict[int, TensorValue] = {}
        dropped: set[int] = set()
        self.operations = []
        # The sites of steps contain this number, and must not depend on the number of time steps.
        for number, operation in enumerate(op for op in operations if id(op) in self._split):
            operation.index = number
        first_use: dict[
            int, int
        ] = {}  # id of a value -> index of the first operation that takes it
        for operation in operations:
            for value in operation.values:
                first_use.setdefault(id(value), operation.index)
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
            if id(operation) not in self._split:
                is_iterated = operation.name == "unbind" and len(operation.outputs) == self.steps
                self.operations += (
                    _single_elements(operation, first_use) if is_iterated else [operation]
                )
                continue
            result = operation.outputs[0]
            layout = self._layouts[id(result)]
            values = self._step_values(operation, *self._split[id(operation)], layout)
            self._parts[id(result)] = values
            for state in values[-1].source.membranes if values[-1].source else ():
                last = [m for m in operation.membranes if m.tensor.shape == state.tensor.shape]
                instead |= {id(value): state for value in last}
            self._add_stack(operation, result, values, layout)
            for taker, (axis, index) in self._takers.get(id(result), ()):
                if layout == _Layout(axis=axis):
                    dropped.add(id(taker))
                    places = [index] if isinstance(index, int) else list(index)
                    for value, place in zip(taker.outputs, places, strict=True):
                        instead[id(value)] = values[place]
        self.returned = [instead.get(id(value), value) for value in self.returned]
        for index, operation in enumerate(self.operations):
            operation.index = index

    def _step_values(
        self, operation: Operation, step: _Step, sequences: list[TensorValue], layout: _Layout
    ) -> list[TensorValue]:
        """Add an operation for each step, and return their results."""
        result = operation.outputs[0]
        parts_of_value = {
            id(value): self._parts.get(id(value)) or self._cut(value, operation, number)
            for number, value in enumerate(sequences)
        }
        tokens = operation.tokens
        if in_time(operation.func) and not operation.is_neuron:
            # norse.Lift of a layer without states ignores the states that it receives.
            tokens = list(sequences)
        held = [m for m in operation.membranes if m.tensor.shape == result.tensor.shape]
        values = []
        for number in range(layout.steps(result.tensor)):
            parts = {key: steps[number] for key, steps in parts_of_value.items()}
            tensor = layout.part(result.tensor, number)
            single = dataclasses.replace(
                operation,
                **step({id(value.tensor): parts[id(value)].tensor for value in sequences}),
                tokens=[parts.get(id(token), token) for token in tokens],
                inputs={**operation.inputs, **{id(part.tensor): part for part in parts.values()}},
                site=(*operation.site, "step", operation.index),
                is_split=True,
                outputs=[],
                results={},
                membranes=[],
                result=tensor,
            )
            value = TensorValue(tensor, single)
            if result.numbers is not None:
                value.numbers = layout.part(result.numbers, number)
            single.outputs, single.results = [value], {id(tensor): value}
            for path, membrane in enumerate(held[:1], start=1):
                state = TensorValue(layout.part(membrane.tensor, number), single, path)
                if membrane.numbers is not None:
                    state.numbers = layout.part(membrane.numbers, number)
                single.outputs.append(state)
                single.membranes = [state]
            self.operations.append(single)
            values.append(value)
        if held:
            states = [
                single.membranes[0] for v in values if (single := v.source) and single.membranes
            ]
            self._add_stack(operation, held[0], states, layout)
        for state in operation.outputs:  # after the last step
            if state is not result and state.source is operation:
                state.source = values[-1].source
        return values

    def _add_stack(
        self, operation: Operation, value: TensorValue, parts: list[TensorValue], layout: _Layout
    ) -> None:
        """Add the operation that computes a result of all time steps from those of single time steps."""
        tensors = [part.tensor for part in parts]
        stack = dataclasses.replace(
            operation,
            kind="function",
            name="stack",
            func=layout.join,
            args=(tensors,),
            kwargs={},
            tokens=[len(parts), *parts],
            inputs={id(part.tensor): part for part in parts},
            site=(*operation.site, "stack", operation.index),
            outputs=[value],
            results={id(value.tensor): value},
            membranes=[],
            is_neuron=False,
            result=value.tensor,
        )
        value.source, value.path = stack, 0
        if not layout.lead:
            value.elements = (layout.axis, dict(enumerate(parts)))
        self.operations.append(stack)

    def _cut(self, source: TensorValue, operation: Operation, number: int) -> list[TensorValue]:
        """Return the steps of a sequence that nothing computes step by step: the `number`-th argument of
        an operation.
        """
        layout = self._layouts[id(source)]
        if source.elements is not None and layout == _Layout(axis=source.elements[0]):
            elements = source.elements[1]
            if len(elements) == layout.steps(source.tensor):
                return [elements[step] for step in range(len(elements))]
        values = []
        for step in range(layout.steps(source.tensor)):
            tensor = layout.part(source.tensor, step)
            single = dataclasses.replace(
                operation,
                kind="function",
                name="__getitem__",
                func=layout.part,
                args=(source.tensor, step),
                kwargs={},
                tokens=[source, step],
                inputs={id(source.tensor): source},
                site=(*operation.site, "part", operation.index, number),
                is_split=True,
                outputs=[],
                membranes=[],
                is_neuron=False,
                result=tensor,
            )
            value = TensorValue(tensor, single)
            if source.numbers is not None:
                value.numbers = layout.part(source.numbers, step)
            single.outputs, single.results = [value], {id(tensor): value}
            self.operations.append(single)
            values.append(value)
        self._parts[id(source)] = values
        return values


def _single_elements(unbind: Operation, first_use: Mapping[int, int]) -> list[Operation]:
    """Return operations that select the elements of a sequence one by one, instead of `unbind`, in the order in
    which forward uses them: reversed(x) begins with the last one.
    """
    sequence = unbind.values[0]
    axis = axis_of(unbind.args[1:], unbind.kwargs, sequence.tensor)
    elements = elements_of(sequence, unbind.outputs, axis, unbind.site, unbind.line)
    return sorted(elements, key=lambda element: first_use.get(id(element.outputs[0]), 0))


def _sliced(operations: list[Operation]) -> list[Operation]:
    """Return operations in which the parts of torch.chunk and similar functions are computed one by one, as
    x[..., a:b], so that each may be split; except for parts over which forward loops.
    """
    sites: dict[
        int, tuple[Any, ...]
    ] = {}  # id of a value -> site of the first operation that takes it
    for operation in operations:
        for value in operation.values:
            sites.setdefault(id(value), operation.site)
    return [part for operation in operations for part in _slices(operation, sites)]


def _slices(operation: Operation, sites: Mapping[int, tuple[Any, ...]]) -> list[Operation]:
    parts = operation.outputs
    if operation.name not in SPLIT or any(part.source is not operation for part in parts):
        return [operation]
    if len({sites.get(id(part)) for part in parts}) == 1:
        return [operation]
    sequence = operation.values[0]
    axis = axis_of(operation.args[2:], operation.kwargs, sequence.tensor)
    slices, start = [], 0
    for number, part in enumerate(parts):
        end = start + part.tensor.shape[axis]
        index = (*[slice(None)] * axis, slice(start, end))
        slices.append(
            dataclasses.replace(
                operation,
                name="__getitem__",
                func=type(sequence.tensor).__getitem__,
                args=(sequence.tensor, index),
                kwargs={},
                tokens=[sequence, start, end],
                site=(*operation.site, "slice", number),
                outputs=[part],
                results={id(part.tensor): part},
                result=part.tensor,
            )
        )
        part.source, part.path, start = slices[-1], 0, end
    return slices


def _layouts_beside(tensor: Any, opposite: Any, layout: _Layout) -> list[_Layout]:
    """Return possible layouts of a tensor on one side of an operation, with that of the other side."""
    if not hasattr(tensor, "is_inference"):
        return []
    layouts = []
    if layout.lead and tuple(tensor.shape[:2]) == layout.lead:
        layouts.append(_Layout(axis=layout.axis))
    if not layout.lead and layout.axis < 2 and opposite.ndim > 1:
        lead, *shape = tuple(opposite.shape[:2]), *opposite.shape[2:]
        # With a batch of 1, (time, batch, *shape) may look like time and batch in one axis.
        if tensor.shape[:2] == lead and list(tensor.shape[1:]) != shape:
            layouts.append(layout)
        layouts.append(_Layout(lead=lead, axis=layout.axis))
    return [
        candidate
        for candidate in (*layouts, layout)
        if candidate.fits(tensor, layout.steps(opposite))
    ]


def _step_of(operation: Operation, layouts: Mapping[int, _Layout], after: _Layout) -> _Step | None:
    """Return the function that describes the operation on one step; None if a step of its result depends
    on more than the same step of its arguments.

    Args:
        layouts: Layouts of the arguments that are sequences, by the id of their values.
        after: Layout of the result.
    """
    import torch

    result, func, name = operation.outputs[0], operation.func, operation.name
    before = {
        id(v.tensor): (v.tensor, layouts[id(v)]) for v in operation.values if id(v) in layouts
    }
    is_layer = operation.kind == "layer"
    if is_layer and in_time(func):
        return lambda parts: {"args": with_tensors(operation.args, parts)}
    if is_layer and (operation.is_neuron or exporter_of(func) is None):
        return None
    if not is_layer and operation.kind != "function":
        return None
    changes: dict[str, Any] = {}
    shape: tuple[Any, ...] | None = None  # arguments of a reshaping function after the tensor
    full = call = func.forward if is_layer else func
    if not is_layer and (id(result.tensor) in operation.inputs or _is_in_place(name)):
        if name not in _OUT_OF_PLACE:
            return None
        call = getattr(torch.Tensor, _OUT_OF_PLACE[name])
        changes = {"name": _OUT_OF_PLACE[name], "func": call}
    if name in RESHAPE or (is_layer and type(func).__name__ in _RESHAPING):
        (tensor, layout), *_ = before.values()
        part = after.part(result.tensor, 0)
        flatten = flatten_of(layout.part(tensor, 0), part) if is_layer else None
        if flatten is not None:
            call, shape, changes = flatten.forward, (), {"func": flatten}
        else:
            call, shape = torch.Tensor.reshape, (tuple(part.shape),)
            changes = {"kind": "function", "name": "reshape", "func": call}

    # Other numbers than those of the sample, which may be zeros.
    generator = torch.Generator().manual_seed(0)
    numbers = {
        key: (torch.rand(tensor.shape, generator=generator) * 4 - 1).to(tensor)
        for key, (tensor, _) in before.items()
    }
    axes = [layout.axis for layout in (*layouts.values(), after) if not layout.lead]
    for args, kwargs in _forms_of_arguments(operation, axes, shape):

        def arguments(
            parts: Mapping[int, Any], args: Any = args, kwargs: Any = kwargs
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            if shape is not None:
                return (*parts.values(), *shape), {}
            return with_tensors((args, kwargs), parts)

        def step(parts: Mapping[int, Any], arguments: Any = arguments) -> dict[str, Any]:
            args, kwargs = arguments(parts)
            return changes | {"args": args, "kwargs": kwargs}

        try:
            with torch.no_grad():
                copies = {key: tensor.clone() for key, tensor in numbers.items()}
                full_args, full_kwargs = with_tensors(
                    (operation.args, dict(operation.kwargs)), copies
                )
                expected = full(*full_args, **full_kwargs)
                count = after.steps(expected)
                if all(
                    _is_same(
                        call,
                        arguments(
                            {key: at.part(numbers[key], n) for key, (_, at) in before.items()}
                        ),
                        after.part(expected, n),
                    )
                    for n in {0, count // 2, count - 1}
                ):
                    return step
        except (AttributeError, RuntimeError, TypeError, ValueError, IndexError):
            continue
    return None


def _is_same(call: Callable[..., Any], arguments: tuple[Any, Any], expected: Any) -> bool:
    """Return whether a function computes the expected numbers."""
    import torch

    args, kwargs = arguments
    actual = call(*args, **kwargs)
    same_shape = actual.shape == expected.shape
    return same_shape and torch.allclose(actual.double(), expected.double(), 1e-4, 1e-5)


def _forms_of_arguments(
    operation: Operation, axes: list[int], shape: tuple[Any, ...] | None
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Yield the arguments of an operation, and those of one step: the numbers of its axes are lower without the
    axis of time, one of `axes`, as in torch.cat(..., dim=2).
    """
    yield operation.args, dict(operation.kwargs)
    if operation.kind == "layer" or shape is not None:
        return
    first, rest = operation.args[:1], operation.args[1:]
    if operation.name == "permute" and rest and type(rest[0]) is int:
        rest = (rest,)
    for axis in dict.fromkeys(axes):
        kwargs = {
            key: _without_axis(argument, axis) if key in ("dim", "dims") else argument
            for key, argument in operation.kwargs.items()
        }
        yield (*first, *(_without_axis(argument, axis) for argument in rest)), kwargs


def _without_axis(argument: Any, axis: int) -> Any:
    """Return an argument that selects axes, such as 2, (3, 4) or the index [:, :, 1:3], without an axis."""
    if isinstance(argument, tuple | list):
        if any(isinstance(part, slice) for part in argument):
            return tuple(part for place, part in enumerate(argument) if place != axis)
        return tuple(
            _without_axis(part, axis) for part in argument if type(part) is not int or part != axis
        )
    return argument - 1 if type(argument) is int and argument > axis else argument


def _is_in_place(name: str) -> bool:
    return name.endswith("_") and not name.startswith("__")
