"""Record a forward pass of a PyTorch module: every call of a layer and of a torch function, in order.

A recording of

    for frame in x:
        spikes, mem = self.lif(self.fc(frame), mem)

is a list of `Operation`s: `unbind`, then 'fc' and 'lif' for each time step, which `TensorValue`s connect:

    x -> unbind -> frame 1 -> layer 'fc' -> current 1 -> layer 'lif' -> spikes 1, mem 1
                -> frame 2 -> layer 'fc' -> current 2 -> layer 'lif' -> spikes 2, mem 2
                -> ...

A tensor that is changed in place gets a new `TensorValue` (static single assignment). So two operations
are connected if, and only if, they share a `TensorValue`; values are never compared by their numbers.
Layers are recorded by replacing their `forward`, functions by a `TorchFunctionMode`; operations inside
a layer are not recorded. The next steps: `sequences` splits operations on all time steps, `folding` finds
the time steps, and `step_reader` reads the layers of one time step.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any, Literal

from jaxsnn.errors import ConversionError
from jaxsnn.nir.torch.leaves import (
    in_time,
    is_neuron_without_node,
    is_resettable,
    library_packages,
    membranes_of,
    of_library,
    split_forward,
)
from jaxsnn.nir.torch.module_order import RESHAPE
from jaxsnn.nir.torch.torch_functions import JOIN, axis_of, is_parameter
from jaxsnn.nir.torch.trained_module import is_of_graph
from jaxsnn.wording import Text

#: Functions that convert a tensor to Python values, which cannot be traced.
READS = (
    *("item", "tolist", "numpy", "equal", "allclose"),
    *("__bool__", "__int__", "__float__", "__index__", "__array__"),
)
#: Functions whose result counts as the same state as their argument.
KEEPS_STATE = ("clone", "contiguous", "detach", "detach_", "requires_grad_", "to", "float")
#: Packages whose functions messages do not name as callers: torch and this package.
_INTERNAL_PACKAGES = ("torch", __name__.partition(".")[0])
_ZEROS = ("zeros", "zeros_like", "new_zeros")


@dataclasses.dataclass(eq=False, slots=True)
class TensorValue:
    """Content of a tensor between two changes in place.

    Attributes:
        tensor: The tensor, kept alive so that its id stays unique.
        source: Operation that computed it; None for parameters, buffers and the input.
        path: Position among the results of the operation.
        elements: For a stack: the axis, and the value at each index.
        numbers: A copy of the numbers, if the recorder keeps copies.
    """

    tensor: Any
    source: Operation | None = None
    path: int = 0
    elements: tuple[int, dict[int, TensorValue]] | None = None
    numbers: Any = None


@dataclasses.dataclass(eq=False, slots=True)
class Operation:
    """A call of a layer or a function.

    Attributes:
        kind: "layer", "function", or "enter" and "exit" of a module that contains others.
        name, func: Name of the layer or function, and the object itself.
        args, kwargs, result: As in Python.
        tokens: The arguments in order, flattened: values, and numbers or other constants.
        inputs: Values of the tensors among the arguments, by the id of the tensor, before the call.
        outputs: Values of the results, then of arguments that are changed in place.
        results: The values in `outputs`, by the id of the tensor.
        site: Places in the code from the operation up to `forward`, which distinguish loops.
        line: Line of the user's code, such as "model.py, line 12"; in code of a framework if the user's contains none.
        caller: Function of a framework that called it, such as "norse's lif_step"; "" if the user's code or a
            module did.
        step: Number of the time step from 1; 0 outside of the steps.
        membranes: Values of a layer's membranes after the call.
        inner: Output and membranes of each layer inside a module that `jaxsnn.to_torch` created, by the name
            of the layer.
        is_neuron: Whether it is a layer that keeps a state from step to step.
        state_changed: Whether the state of a layer was written since its previous call.
        keeps_state: Whether a neuron stores its state itself, instead of only returning it.
        call_name: Name of the call, if the layer is called several times in each step (see `folding`); else "".
        is_reset: Whether the states of a layer were replaced by new zeros since its previous call, or it
            keeps none and receives none.
        is_split: Whether it is one time step of an operation on all time steps (see `sequences`).
        index: Index in the recording.
    """

    kind: Literal["layer", "function", "enter", "exit"]
    name: str
    func: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    tokens: list[Any]
    inputs: dict[int, TensorValue]
    site: tuple[Any, ...]
    line: str
    caller: str = ""
    result: Any = None
    outputs: list[TensorValue] = dataclasses.field(default_factory=list)
    results: dict[int, TensorValue] = dataclasses.field(default_factory=dict)
    membranes: list[TensorValue] = dataclasses.field(default_factory=list)
    inner: dict[str, list[TensorValue]] = dataclasses.field(default_factory=dict)
    step: int = 0
    is_neuron: bool = False
    state_changed: bool = False
    keeps_state: bool = True
    call_name: str = ""
    is_reset: bool = False
    is_split: bool = False
    index: int = 0

    @property
    def values(self) -> list[TensorValue]:
        """Values among the arguments, in order."""
        return [token for token in self.tokens if isinstance(token, TensorValue)]


def elements_of(
    sequence: TensorValue,
    elements: list[TensorValue],
    axis: int = 0,
    site: tuple[Any, ...] = (),
    line: str = "",
) -> list[Operation]:
    """Return the operations that select the elements of a sequence, one for each element."""
    tensor, operations = sequence.tensor, []
    for index, value in enumerate(elements):
        operation = Operation(
            kind="function",
            name="__getitem__",
            func=type(tensor).__getitem__,
            args=(tensor, (*[slice(None)] * axis, index)),
            kwargs={},
            tokens=[sequence, index],
            inputs={id(tensor): sequence},
            site=site,
            line=line,
            result=value.tensor,
            outputs=[value],
            results={id(value.tensor): value},
        )
        value.source, value.path = operation, 0
        operations.append(operation)
    return operations


class Recorder:
    """Recorder of the operations of a module.

    Attributes:
        operations: The recorded operations, in order.
        copies: Whether values keep a copy of their numbers, since forward may change them in place.
    """

    def __init__(self, module: Any, leaves: list[tuple[str, Any]], copies: bool = False) -> None:
        self.copies = copies
        self.operations: list[Operation] = []
        self._module = module
        self._leaves = leaves
        self._names = {id(part): name for name, part in module.named_modules()}
        #: Id of a tensor -> the tensor, its version counter, and its value.
        self._values: dict[int, tuple[Any, int, TensorValue]] = {}
        self._states: dict[int, dict[str, tuple[int, int]]] = {}
        self._code_positions: dict[CodeType, list[Any]] = {}
        #: (id of the value of x, axis, index t) -> the value of x[t].
        self._elements: dict[tuple[int, int, int], TensorValue] = {}
        #: Id of a view of another tensor -> the operation that returned it.
        self._views: dict[int, Operation] = {}
        #: Spikes and membranes of the neurons inside the layer that runs; see `Operation.inner`.
        self._inner: dict[str, list[Any]] = {}
        self._inside = 0
        self._root: FrameType | None = None
        self._libraries = {*_INTERNAL_PACKAGES, *library_packages()}

    def value(self, tensor: Any) -> TensorValue:
        """Return the current value of a tensor."""
        return self._assigned(tensor, None)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record the operations that run in the context."""
        import torch
        from torch.overrides import TorchFunctionMode

        recorder = self

        class Mode(TorchFunctionMode):
            def __torch_function__(
                self, func: Any, types: Any, args: Any = (), kwargs: Any = None
            ) -> Any:
                if torch.is_inference_mode_enabled():
                    raise ConversionError(
                        "forward runs in torch.inference_mode, in which changes in place "
                        "cannot be traced",
                        fix="use torch.no_grad() instead",
                    )
                return recorder.function(func, args, kwargs or {})

        watched = [("layer", name, leaf) for name, leaf in self._leaves]
        inside = {id(leaf) for _, leaf in self._leaves}
        for name, outer in self._module.named_modules():
            # Error messages name modules of libraries that contain layers, and modules of the user
            # that contain none or are neurons.
            computes = of_library(outer) == bool(list(outer.children()))
            computes |= is_neuron_without_node(outer)
            if id(outer) not in inside and computes and type(outer) is not torch.nn.Sequential:
                watched.append(("outer", name or "module", outer))
        before = [(part, part.__dict__.get("forward")) for _, _, part in watched]
        self._root = sys._getframe(2)
        for kind, name, part in watched:
            watch = self._watched_layer if kind == "layer" else self._watched_outer
            part.__dict__["forward"] = watch(name, part, part.forward)
        hooks = [
            layer.register_forward_hook(self._inner_hook(name))
            for _, leaf in self._leaves
            if is_of_graph(leaf)
            for name, layer in leaf.named_children()
        ]
        try:
            with Mode():
                yield
        finally:
            for inner_hook in hooks:
                inner_hook.remove()
            for part, forward in before:
                part.__dict__.pop("forward", None)
                if forward is not None:
                    part.__dict__["forward"] = forward

    def function(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call a function of torch and record it."""
        if self._inside:
            return func(*args, **kwargs)
        name = function_name(func)
        if name == "__getitem__" and (indices := _split_index(args[1])):
            # Record x[t, :, 2:5] as x[t][:, 2:5], so that all parts of x[t] have the same source.
            return self.function(
                func, (self.function(func, (args[0], indices[0]), {}), indices[1]), {}
            )
        self._inside += 1
        try:
            operation = self._start("function", name, func, args, kwargs)
            result = func(*args, **kwargs)
            if name == "__iter__":
                result, operation.name = tuple(result), "unbind"
            for tensor in tensors_of(result):
                if (
                    getattr(tensor, "_base", None) is not None
                    and id(tensor) not in operation.inputs
                ):
                    self._views[id(tensor)] = operation
            if not self._is_element(operation, result):
                self._end(operation, result)
            return iter(result) if name == "__iter__" else result
        finally:
            self._inside -= 1

    def _watched_layer(self, name: str, leaf: Any, forward: Callable[..., Any]) -> Any:
        recorded_forward, result_of = split_forward(leaf, forward)

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return forward(*args, **kwargs)
            result = record(*args, **kwargs)
            return result if result_of is None else result_of(result)

        def record(*args: Any, **kwargs: Any) -> Any:
            self._inside += 1
            try:
                operation = self._start("layer", name, leaf, args, kwargs)
                states, self._inner = self._states.get(id(leaf)), {}
                if states is not None:
                    operation.state_changed = states != _states_of(leaf)
                    operation.is_reset = self._is_reset(operation, states)
                result = recorded_forward(*args, **kwargs)
                self._states[id(leaf)] = _states_of(leaf)
                parts = list(result) if isinstance(result, tuple) else [result]
                membranes = membranes_of(leaf, parts[-1])
                self._end(operation, result)
                operation.membranes = [self._result(t, operation) for t in membranes]
                operation.is_neuron = bool(membranes) or is_of_graph(leaf)
                if operation.is_neuron and not in_time(leaf):
                    operation.keeps_state = bool(membranes_of(leaf, None)) or is_of_graph(leaf)
                    if not operation.keeps_state and not operation.values[1:]:
                        operation.is_reset = is_resettable(leaf)
                operation.inner = {
                    layer: [self._result(tensor, operation) for tensor in tensors]
                    for layer, tensors in self._inner.items()
                }
                return result
            finally:
                self._inside -= 1

        return call

    def _inner_hook(self, name: str) -> Callable[..., None]:
        def hook(layer: Any, args: Any, result: Any) -> None:
            parts = result if isinstance(result, tuple) else (result,)
            self._inner[name] = [parts[0], *membranes_of(layer, parts[-1])]

        return hook

    def _is_reset(self, operation: Operation, states: dict[str, tuple[int, int]]) -> bool:
        """Return whether a layer starts from new zeros: all states that it receives are new zeros, or,
        if it receives none, all that changed since its previous call.
        """
        passed = operation.values[1:]
        if not passed:
            current = _states_of(operation.func)
            changed = [name for name, state in states.items() if current.get(name) != state]
            state_values = [getattr(operation.func, name, None) for name in changed]
            passed = [self.value(tensor) for tensor in tensors_of(state_values)]
            if not changed:
                return False
        return all(map(_is_new_zeros, passed))

    def _watched_outer(self, name: str, outer: Any, forward: Callable[..., Any]) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return forward(*args, **kwargs)
            self._inside += 1
            self._append(self._start("enter", name, outer, args, kwargs))
            self._inside -= 1
            result = forward(*args, **kwargs)
            self._inside += 1
            self._append(self._start("exit", name, outer, (result,), {}))
            self._inside -= 1
            return result

        return call

    def _append(self, operation: Operation) -> None:
        operation.index = len(self.operations)
        self.operations.append(operation)

    def _start(self, kind: Any, name: str, func: Any, args: Any, kwargs: Any) -> Operation:
        tokens: list[Any] = []
        inputs: dict[int, TensorValue] = {}
        self._flatten((args, dict(kwargs)), tokens, inputs)
        site, line, library_line, caller = [], "", "", ""
        frame = sys._getframe(2)
        while frame is not None and frame is not self._root:
            package = frame.f_globals.get("__name__", "").partition(".")[0]
            code = frame.f_code
            if code.co_filename != __file__:
                # The position in the source, since the offset of an instruction changes when Python
                # specialises code that runs often.
                position = self._positions(code)[frame.f_lasti // 2]
                site.append((code, position, self._module_of(frame)))
            if not line and package not in _INTERNAL_PACKAGES:
                here = f"{code.co_filename.rpartition('/')[2]}, line {frame.f_lineno}"
                if package not in self._libraries:
                    line = here
                else:
                    library_line = library_line or here
                    is_method = code.co_varnames[:1] == ("self",)
                    caller = "" if is_method else f"{package}'s {code.co_name}"
            frame = frame.f_back
        return Operation(
            kind=kind,
            name=name,
            func=func,
            args=args,
            kwargs=kwargs,
            tokens=tokens,
            inputs=inputs,
            site=tuple(site),
            line=line or library_line,
            caller=caller,
        )

    def _module_of(self, frame: FrameType) -> str:
        """Return the name of the module whose forward runs in a frame; "" for other frames. The name
        distinguishes loops of modules of the same class, which run the same code.
        """
        code = frame.f_code
        if code.co_name != "forward" or not code.co_argcount:
            return ""
        return self._names.get(id(frame.f_locals.get(code.co_varnames[0])), "")

    def _positions(self, code: CodeType) -> list[Any]:
        """Return the position in the source of each instruction."""
        if code not in self._code_positions:
            self._code_positions[code] = list(code.co_positions())
        return self._code_positions[code]

    def _end(self, operation: Operation, result: Any) -> None:
        """Note the results of an operation, and record it, unless it is a function that returns and
        changes no tensor (those in `READS` are recorded).
        """
        operation.result = result
        changed = [self._values[place][0] for place in operation.inputs]
        changed = [t for t in changed if version_of(t) != self._values[id(t)][1]]
        for tensor in {id(t): t for t in (*tensors_of(result), *changed)}.values():
            self._result(tensor, operation)
        if operation.outputs or operation.name in READS or operation.kind == "layer":
            self._append(operation)
        if operation.name in ("stack", *JOIN) and operation.kind == "function":
            self._note_elements(operation)
        if operation.name == "__setitem__" and len(operation.values) == 2:
            self._set_element(operation)

    def _result(self, tensor: Any, operation: Operation) -> TensorValue:
        """Note a result of an operation, and return its value."""
        value = operation.results[id(tensor)] = self._assigned(tensor, operation)
        if value.source is operation and value not in operation.outputs:
            value.path = len(operation.outputs)
        operation.outputs.append(value)
        return value

    def _assigned(self, tensor: Any, operation: Operation | None) -> TensorValue:
        """Return the value of a tensor: a new one if the tensor is new or was changed; a tensor that an
        operation returns unchanged keeps its value.
        """
        if operation is None and id(tensor) in self._values:
            self._follow_views(tensor)
        version = version_of(tensor)
        _, last_version, value = self._values.get(id(tensor), (None, -1, None))
        if value is None or last_version != version:
            value = TensorValue(tensor, operation)
            if self.copies:
                copied = hasattr(tensor, "detach")
                value.numbers = tensor.detach().clone() if copied else tensor
            self._values[id(tensor)] = (tensor, version, value)
        return value

    def _flatten(self, argument: Any, tokens: list[Any], inputs: dict[int, TensorValue]) -> None:
        if hasattr(argument, "is_inference"):
            tokens.append(self.value(argument))
            inputs[id(argument)] = tokens[-1]
        elif isinstance(argument, list | tuple):
            tokens.append(len(argument))
            for part in argument:
                self._flatten(part, tokens, inputs)
        elif isinstance(argument, dict):
            for key, part in argument.items():
                tokens.append(key)
                self._flatten(part, tokens, inputs)
        elif isinstance(argument, slice):
            self._flatten((argument.start, argument.stop, argument.step), tokens, inputs)
        elif dataclasses.is_dataclass(argument):
            self._flatten(vars(argument), tokens, inputs)
        else:
            simple = isinstance(argument, int | float | str) or argument is None
            tokens.append(argument if simple else type(argument))

    def _is_element(self, operation: Operation, result: Any) -> bool:
        """Return whether results are elements of a stack, or of a tensor whose element was selected
        before, and bind them to the values of these elements.
        """
        if not operation.values or self._is_repeated_element(operation, result):
            return bool(operation.values)
        if operation.values[0].elements is None:
            return False
        axis, elements = operation.values[0].elements
        if operation.name == "unbind":
            indices = list(range(len(result)))
            parts = list(result)
            if axis_of(operation.args[1:], operation.kwargs, operation.args[0]) != axis:
                return False
        elif operation.name in ("__getitem__", "select"):
            index = index_along(operation, axis)
            if index is None:
                return False
            indices, parts = [index], [result]
        else:
            return False
        if not all(index in elements for index in indices):
            return False
        for index, part in zip(indices, parts, strict=True):
            self._values[id(part)] = (part, version_of(part), elements[index])
        return True

    def _is_repeated_element(self, operation: Operation, result: Any) -> bool:
        """Return whether the result is an x[t], or all of x.unbind(), that was selected before, and bind it to
        the values of the first ones.
        """
        if len(operation.values) != 1:
            return False
        source = operation.values[0]
        if source.elements is not None or is_parameter(source.tensor):
            return False
        places: list[tuple[int, int, int]] = []
        if operation.name == "unbind":
            axis = axis_of(operation.args[1:], operation.kwargs, source.tensor)
            places = [(id(source), axis, index) for index in range(len(result))]
        elif operation.name in ("__getitem__", "select"):
            indices = [(axis, index_along(operation, axis)) for axis in range(source.tensor.ndim)]
            places = [(id(source), axis, index) for axis, index in indices if index is not None][:1]
        parts = list(zip(places, tensors_of(result), strict=False))
        if places and all(place in self._elements for place in places):
            for place, part in parts:
                self._values[id(part)] = (part, version_of(part), self._elements[place])
            return True
        for place, part in parts:
            self._elements.setdefault(place, self._assigned(part, operation))
        return False

    def _follow_views(self, tensor: Any) -> None:
        """Note the new value of a tensor that was changed through another tensor of the same memory."""
        if self._values[id(tensor)][1] == version_of(tensor):
            return
        if (view := self._views.get(id(tensor))) is not None:
            tokens: list[Any] = []
            inputs: dict[int, TensorValue] = {}
            self._flatten((view.args, dict(view.kwargs)), tokens, inputs)
            again = dataclasses.replace(view, tokens=tokens, inputs=inputs, outputs=[], results={})
            if not self._is_element(again, view.result):
                self._end(again, view.result)
            return
        source = self._values[id(tensor)][2].source
        for operation in self.operations[source.index + 1 if source else 0 :]:
            for part in operation.outputs:
                is_written = id(part.tensor) in operation.inputs
                if is_written and getattr(part.tensor, "_base", None) is tensor:
                    self._write_part(tensor, part, operation)

    def _write_part(self, tensor: Any, part: TensorValue, writer: Operation) -> None:
        """Record that an operation changed a view of a tensor, and thereby the tensor."""
        view, before = part.tensor, self._values[id(tensor)][2]
        values = writer.values
        if writer.name == "copy_" and len(values) > 1 and values[1].tensor.shape == view.shape:
            part = values[1]
        tokens: list[Any] = [before, part]
        inputs = {id(tensor): before, id(part.tensor): part}
        place = view.shape, view.stride(), view.storage_offset() - tensor.storage_offset()

        def write_part(base: Any, numbers: Any) -> Any:
            base = base.clone()
            base.as_strided(*place).copy_(numbers)
            return base

        name, func, args = "change of a view", write_part, (tensor, part.tensor)
        selection = self._views.get(id(view))
        if (
            selection is not None
            and selection.name == "__getitem__"
            and selection.args[0] is tensor
        ):
            name, func, args = (
                "__setitem__",
                type(tensor).__setitem__,
                (tensor, selection.args[1], part.tensor),
            )
            self._flatten(selection.args[1], tokens, inputs)
        change = dataclasses.replace(
            writer,
            name=name,
            func=func,
            args=args,
            kwargs={},
            tokens=tokens,
            inputs=inputs,
            outputs=[],
            results={},
        )
        self._values[id(tensor)] = (tensor, -1, before)
        self._end(change, tensor)

    def _note_elements(self, operation: Operation) -> None:
        """Note the elements of torch.stack, or of torch.cat of tensors with a new axis, such as x[None]."""
        stack, elements = operation.outputs[0], operation.values
        axis = axis_of(operation.args[1:], operation.kwargs, stack.tensor)
        if operation.name != "stack":
            elements = [part for value in elements for part in _before_new_axis(value, axis)]
        if len(elements) == stack.tensor.shape[axis]:
            stack.elements = (axis, dict(enumerate(elements)))

    def _set_element(self, operation: Operation) -> None:
        """Note the element that an item assignment, such as x[t] = y, writes into a buffer."""
        before, element = operation.values
        buffer = operation.results[id(operation.args[0])]
        for axis in range(before.tensor.ndim):
            index = index_along(operation, axis)
            if index is not None and element.tensor.ndim == before.tensor.ndim - 1:
                old = before.elements if before.elements and before.elements[0] == axis else None
                buffer.elements = (axis, {**(old[1] if old else {}), index: element})


def _before_new_axis(value: TensorValue, axis: int) -> list[TensorValue]:
    """Return the value of which a value has a new axis of length 1, such as x for x[None]; none for others."""
    source, shape = value.source, list(value.tensor.shape)
    if source is None or len(source.values) != 1:
        return []
    before = source.values[0]
    is_new = shape.pop(axis) == 1 and list(before.tensor.shape) == shape
    return [before] if keeps_order(source) and is_new else []


def keeps_order(operation: Operation) -> bool:
    """Return whether an operation only changes the axes of a tensor, not the order of its elements, as x[None] does."""
    if operation.name != "__getitem__":
        return operation.kind == "function" and operation.name in RESHAPE
    index = operation.args[1]
    return all(
        entry is None or entry is Ellipsis or (isinstance(entry, slice) and entry == slice(None))
        for entry in (index if isinstance(index, tuple) else (index,))
    )


def _is_new_zeros(value: TensorValue) -> bool:
    """Return whether a tensor was created as zeros, such as by torch.zeros_like."""
    while value.source is not None and value.source.name in KEEPS_STATE:
        if value.source.kind != "function" or not value.source.values:
            return False
        value = value.source.values[0]
    return value.source is not None and value.source.name in _ZEROS


def _split_index(index: Any) -> tuple[Any, Any] | None:
    """Split an index such as [t, :, 2:5] into [t] and [:, 2:5]; None for other indices."""
    entries = index if isinstance(index, tuple) else ()
    numbers = [place for place, entry in enumerate(entries) if type(entry) is int]
    slices = [entry for entry in entries if isinstance(entry, slice)]
    full_slice = slice(None)
    if len(numbers) != 1 or len(slices) != len(entries) - 1:
        return None
    if all(entry == full_slice for entry in slices):
        return None
    first = tuple(entry if type(entry) is int else full_slice for entry in entries)
    return first, tuple(slices)


def index_along(operation: Operation, axis: int) -> int | None:
    """Return the index of x[t], x[:, t], x[..., t] or x.select(axis, t) along an axis; None for
    other indices.
    """
    tensor = operation.args[0]
    if operation.name == "select":
        dim, index = operation.args[1:3] if len(operation.args) == 3 else (None, None)
        return index % tensor.shape[axis] if dim is not None and dim % tensor.ndim == axis else None
    entry = operation.args[1]
    entries = list(entry) if isinstance(entry, tuple) else [entry]
    if Ellipsis in [e for e in entries if not hasattr(e, "shape")]:
        place = next(place for place, e in enumerate(entries) if e is Ellipsis)
        entries[place : place + 1] = [slice(None)] * (tensor.ndim - len(entries) + 1)
    others = [e for place, e in enumerate(entries) if place != axis]
    if len(entries) <= axis or type(entries[axis]) is not int:
        return None
    if any(not isinstance(e, slice) or e != slice(None) for e in others):
        return None
    return entries[axis] % tensor.shape[axis]


def version_of(tensor: Any) -> int:
    """Return torch's in-place version counter of a tensor; 0 for tensors that have none."""
    import torch

    counted = isinstance(tensor, torch.Tensor) and not torch.nn.parameter.is_lazy(tensor)
    return tensor._version if counted and not tensor.is_inference() else 0


def function_name(func: Any) -> str:
    """Return the name of a torch function, or of the tensor attribute that it reads."""
    name = getattr(func, "__name__", "")
    return getattr(func.__self__, "__name__", name) if name == "__get__" else name


def _states_of(leaf: Any) -> dict[str, tuple[int, int]]:
    """Return the id and version counter of the tensors that a layer keeps, besides parameters."""
    held = {**vars(leaf), **leaf._buffers, **vars(leaf).get("_memories", {})}
    return {
        name: (id(tensor), version_of(tensor))
        for name, tensor in held.items()
        if hasattr(tensor, "is_inference")
    }


def tensors_of(result: Any) -> list[Any]:
    """Return the tensors of a module's result, in order, including nested ones."""
    if isinstance(result, Mapping):
        return tensors_of(list(result.values()))
    if isinstance(result, tuple | list):
        return [tensor for part in result for tensor in tensors_of(part)]
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return tensors_of(list(vars(result).values()))
    # Test the type, since the shape of a lazy parameter raises an error.
    return [result] if hasattr(type(result), "shape") else []


def in_line(line: str) -> Text:
    """Return a clause that names a line of the user's code; an empty one if there is no line."""
    return Text(" ({line})", line=line) if line else Text("")


def with_tensors(argument: Any, tensors: Mapping[int, Any]) -> Any:
    """Return an argument with its tensors replaced by those that `tensors` has for their ids."""
    if isinstance(argument, tuple | list):
        parts = [with_tensors(part, tensors) for part in argument]
        is_named = hasattr(argument, "_fields")
        return type(argument)(*parts) if is_named else type(argument)(parts)
    if isinstance(argument, dict):
        return {key: with_tensors(part, tensors) for key, part in argument.items()}
    if isinstance(argument, slice):
        ends = (argument.start, argument.stop, argument.step)
        return slice(*(with_tensors(end, tensors) for end in ends))
    return tensors.get(id(argument), argument)
