"""Record of one time step: the calls of layers, and the origin of each value."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.frameworks.torch_layers import Call
from jaxsnn.nir.torch.leaves import Membrane, Reshaped, unsupported
from jaxsnn.nir.torch.module_order import Order, first_order, orders
from jaxsnn.nir.torch.recording import Operation, TensorValue, in_line
from jaxsnn.nir.torch.torch_functions import is_parameter, parts_of, spoken_name
from jaxsnn.wording import Text

Member = Literal["output", "membrane"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """Origin of a tensor.

    Attributes:
        sources: Leaves whose outputs are summed in the tensor; "" is the input of the module.
        member: Part of the leaf's result, such as its membrane.
        order: Order of its elements, if it differs from that of the layer; only a Linear accepts
            such a tensor.
    """

    sources: tuple[str, ...]
    member: Member = "output"
    order: Order | None = None


@dataclasses.dataclass(kw_only=True, eq=False)
class SeenTensor:
    """Facts about a value.

    Attributes:
        origin: Origin; None if it is not the output of a layer.
        function: First function of torch that changed the output of a layer so that it has no
            origin any more, or "".
        caller: Function of a framework that called this function, or "".
        is_product: Whether this function multiplies outputs of layers.
        line: Line of the user's code with that function, or "".
        lost_in: Name and module of the library's module that did this instead of a function.
        is_state: Whether a layer keeps it from step to step.
        through_data: Whether it comes from `.data` of another tensor, whose changes are not traced.
    """

    origin: Origin | None = None
    function: str = ""
    caller: str = ""
    is_product: bool = False
    line: str = ""
    lost_in: tuple[str, Any] | None = None
    is_state: bool = False
    through_data: bool = False

    @property
    def unchanged(self) -> Origin | None:
        """Origin, if the value is the unmodified output of a layer; else None."""
        return None if self.origin is None or self.origin.order is not None else self.origin


class PassRecord:
    """Facts about the values of a step.

    Attributes:
        leaves: Names of the modules that are one node each.
        calls: Calls of layers, by name, in order.
        parameters: Parameters of the module.
        operation: Operation that is read.
        entered: Running modules that compute outside of layers: name, module, and whether the input of
            each is the output of a layer.
        selects_input_part: Whether a part of the input was selected, such as one step.
        in_step_before: Whether the previous step is read; only copies of its spikes are tracked.
        earlier: Calls of the previous step.
        no_neurons: Refusal of a module that calls no neurons; None for others.
        omitted: Name of a layer behind all neurons -> the reason why the graph omits it.
        labels: Names of calls that the user's code does not contain -> the layer or the function and
            line that they stand for, for messages.
    """

    def __init__(
        self,
        module: Any,
        leaves: Iterable[str],
        fixed_buffers: Iterable[Any],
    ) -> None:
        self.leaves = frozenset(leaves)
        self.calls: dict[str, Call] = {}
        self.parameters = list(module.parameters())
        self.operation: Operation | None = None
        self.entered: list[tuple[str, Any, bool]] = []
        self.selects_input_part = False
        self.in_step_before = False
        self.earlier: frozenset[str] = frozenset()
        self.no_neurons: ConversionError | None = None
        self.omitted: dict[str, Text | str] = {}
        self.labels: dict[str, str] = {}
        self._buffers = {id(buffer) for buffer in fixed_buffers}
        self._fixed: set[int] = set()
        self._seen: dict[int, SeenTensor] = {}

    def of(self, value: TensorValue) -> SeenTensor:
        """Return the facts about a value; an empty entry for unknown values."""
        return self._seen.get(id(value)) or SeenTensor()

    def of_entry(self, value: TensorValue) -> SeenTensor:
        """Return the entry of a value, to be modified. If there is none, it is created."""
        return self._seen.setdefault(id(value), SeenTensor())

    def seen(self, tensor: Any) -> SeenTensor:
        """Return the facts about an argument of the operation, or else a result; an empty entry
        for other values.
        """
        value = self._value(tensor)
        return SeenTensor() if value is None else self.of(value)

    def note(self, tensor: Any) -> SeenTensor:
        """Return the entry of a result of the operation, to be modified. If there is none, it is
        created.
        """
        assert self.operation is not None
        return self.of_entry(self.operation.results[id(tensor)])

    def keep(self, tensor: Any, origin: Origin) -> None:
        """Note the origin of a result of the operation."""
        self.note(tensor).origin = origin

    def is_fixed(self, tensor: Any) -> bool:
        """Return whether an argument is a tensor that is the same in each step and comes from no
        layer: a parameter, a buffer that no step changes, or a tensor computed only from these.
        """
        value = self._value(tensor)
        if value is None or self.of(value).origin is not None:
            return False
        held = is_parameter(value.tensor) or id(value.tensor) in self._buffers
        return id(value) in self._fixed or (value.source is None and held)

    def fix(self, values: Iterable[TensorValue]) -> None:
        """Note values that are the same in each step."""
        self._fixed |= {id(value) for value in values}

    def _value(self, tensor: Any) -> TensorValue | None:
        operation = self.operation
        if operation is None:
            return None
        return operation.inputs.get(id(tensor)) or operation.results.get(id(tensor))

    def call(
        self,
        name: str,
        layer: Any,
        origin: Origin,
        input_shape: tuple[int, ...],
        shape: tuple[int, ...],
        columns: np.ndarray | None = None,
    ) -> Origin:
        """Note a call of a layer with an input and an output of these shapes, and return the origin
        of its output.
        """
        self._label(name)
        self.calls[name] = Call(
            name=name,
            module=layer,
            sources=origin.sources,
            inward=tuple(input_shape[1:]),
            outward=tuple(shape[1:]),
            columns=columns,
            reset_each_call=self.operation is not None
            and self.operation.func is layer
            and self.operation.is_reset,
        )
        return Origin(sources=(name,))

    def _label(self, name: str) -> None:
        """Note the layer, or the function and its line, that a call stands for."""
        operation = self.operation
        if operation is None or name in self.leaves:
            return
        label = operation.name
        if operation.kind == "function":
            label = spoken_name(operation.name, operation.args)
            label += f" ({operation.line})" if operation.line else ""
        self.labels[name] = label

    def add(self, name: str, leaf: Any, origin: Origin, input_tensor: Any, result: Any) -> None:
        """Note a call of a layer, and its output."""
        self.keep(result, self.call(name, leaf, origin, input_tensor.shape, result.shape))

    def free(self, name: str) -> str:
        """Return an unused name for a call: the name itself, or with a number appended."""
        name = f"{name}_before" if self.in_step_before else name
        used_names = self.leaves | self.calls.keys()
        number, free = 2, name
        while free in used_names:
            number, free = number + 1, f"{name}_{number}"
        return free

    def reorder(
        self,
        func: Any,
        name: str,
        origin: Origin,
        args: Any,
        kwargs: Mapping[str, Any],
        result: Any,
    ) -> None:
        """Note the result of a function that only moves the elements of a tensor."""
        batch, *shape_list = args[0].shape
        shape = tuple(shape_list)
        before = origin.order or Order(places=first_order(shape), shape=shape)
        part_orders = orders(func, name, before, batch, args[1:], kwargs)
        for part, order in zip(parts_of(result), part_orders, strict=False):
            if order is not None:
                plain = order.unchanged
                self.keep(part, dataclasses.replace(origin, order=None if plain else order))

    def membrane(self, origin: Origin, shape: tuple[int, ...]) -> Origin:
        """Record that a layer receives the membrane of a neuron, and return the origin of this membrane."""
        (leaf,) = origin.sources
        for call in self.calls.values():
            if call.module == Membrane(leaf=leaf):
                return Origin(sources=(call.name,))
        name = self.free(f"{leaf}_membrane")
        return self.call(name, Membrane(leaf=leaf), Origin(sources=()), shape, shape)

    def reshaped(self, origin: Origin, shape: tuple[int, ...]) -> Origin | None:
        """Record the reshaping of a layer's output, and return the origin of the result.

        None if the elements have another order, or if the tensor is the input of the graph: the graph
        may then begin with the reshaped input.
        """
        order = origin.order
        if order is None or not origin.sources[0]:
            return origin if order is None else None
        if not np.array_equal(np.ravel(order.places), np.ravel(first_order(order.shape))):
            return None
        before = (shape[0], *order.shape)
        plain = dataclasses.replace(origin, order=None)
        return self.call(self.free("reshape"), Reshaped(), plain, before, shape)

    def refuse_lost(self, seen: SeenTensor) -> None:
        """Refuse a tensor that is not the output of a layer, naming the library's module that computes it.

        Raises:
            ConversionError: There is such a module, or the module has no neurons.
        """
        inner = [(name, part) for name, part, all_unchanged in self.entered if all_unchanged]
        lost_module = seen.lost_in or next(reversed(inner), None)
        if lost_module is not None:
            raise unsupported(*lost_module)
        if self.no_neurons is not None:
            raise self.no_neurons


def function_clause(seen: SeenTensor) -> str:
    """Return a clause that names the torch function that computed a tensor of no layer, or ""."""
    if not seen.function:
        return Text("")
    return Text(
        ", by {function}, which is not supported there{line}",
        function=function_of(seen),
        line=in_line(seen.line),
    )


def function_of(seen: SeenTensor) -> Text:
    """Return the function that computed a tensor of no layer, for messages."""
    function = Text(seen.caller) or Text("torch's {function}", function=seen.function)
    return (
        function + Text(" of two tensors that depend on the sample")
        if seen.is_product
        else function
    )
