"""Read the layers of one recorded time step, and how they are connected.

The reader goes through the operations in order and notes the `Origin` of each value in a `PassRecord`:
the layers whose outputs it is the sum of.

    operation              origin of its result           call in the record
    a = fc(x)              ("fc",)                        fc, sources ("",), the input
    s, mem = lif(a, mem)   ("lif",), membrane of "lif"    lif, sources ("fc",)
    b = back(s_previous)   ("back",)                      back, sources ("lif",) of the previous step
    a + b                  ("fc", "back")                 none: a sum of two edges

Calls of layers are read here, functions between layers in `between_layers`. The previous time step
is read before (`read_before`), so that spikes which forward stores and feeds back have an origin. If a
layer receives a value without an origin, a `ConversionError` names the function and line that computed it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from jaxsnn.errors import ConversionError
from jaxsnn.nir.torch.between_layers import read_function
from jaxsnn.nir.torch.leaves import (
    WAYS_OUT,
    Before,
    exporter_of,
    in_time,
    may_be_ordered,
    may_be_shared,
    of_framework,
    takes_columns,
    unsupported,
    without_state,
)
from jaxsnn.nir.torch.pass_record import Origin, PassRecord, SeenTensor, function_clause
from jaxsnn.nir.torch.recording import Operation
from jaxsnn.wording import Text

#: Advice for a function of torch that is not supported.
_SUPPORTED = (
    "use layers, or the functions that are supported between layers: sums, differences, "
    "flatten, pools, pad, torch.cat, torch.split, and sums and products with a number, "
    "or with a parameter or buffer that forward does not change"
)
#: Advice for a product of two tensors.
_PRODUCT = (
    "add the tensors instead: NIR has no node that multiplies them, as attention and gates do"
)
#: Advice for a function of a framework, such as one step of a neuron.
_CALLER = (
    "use the module that computes it, such as LIFCell instead of lif_feed_forward_step: "
    "functions of frameworks are not read as layers"
)
#: Advice for a tensor that forward creates itself, or keeps from the previous step.
_FEEDBACK = (
    "compute it from outputs of layers in this time step, or from spikes of the previous "
    "time step: use a recurrent neuron, such as RLeaky or LIFRecurrentCell, or spikes "
    "that forward stores"
)


class StepReader:
    """Reader of the operations of one step, which notes its layers in a record.

    Attributes:
        leaves_before: Ids of the leaves that are called in the previous step.
    """

    def __init__(self, record: PassRecord) -> None:
        self.leaves_before: set[int] = set()
        self._record = record

    def read_before(self, operations: Iterable[Operation]) -> None:
        """Read the previous step."""
        record, outside = self._record, set(self._record.calls)
        record.in_step_before = True
        self.read(operations)
        record.in_step_before = False
        record.earlier = frozenset(record.calls.keys() - outside)

    def read(
        self,
        operations: Iterable[Operation],
        varying: frozenset[int] = frozenset(),
        heads: frozenset[int] = frozenset(),
    ) -> None:
        """Read operations in order.

        Args:
            operations: Operations to read.
            varying: Indices of operations that take another part of a tensor in each step.
            heads: Indices of layers behind all neurons; the graph omits those that it cannot express.
        """
        record = self._record
        for operation in operations:
            record.operation = operation
            if operation.kind == "function":
                read_function(record, operation, operation.index in varying)
            elif operation.kind == "enter":
                # The states that a framework's neuron receives may be its own results.
                values = operation.values[: 1 if of_framework(operation.func) else None]
                all_unchanged = bool(values) and all(record.of(v).unchanged for v in values)
                record.entered.append((operation.name, operation.func, all_unchanged))
            elif operation.kind == "exit":
                *_, all_unchanged = record.entered.pop() if record.entered else (False,)
                for value in operation.values[:1] if all_unchanged else ():
                    entry = record.of_entry(value)
                    if entry.origin is None and entry.lost_in is None:
                        entry.lost_in = (operation.name, operation.func)
            else:
                called = self._called_before if record.in_step_before else self._called
                is_head = operation.index in heads
                name = operation.call_name or operation.name
                try:
                    if is_head and exporter_of(operation.func) is None:
                        raise unsupported(name, operation.func)
                    called(name, operation.func, _input_of(operation), operation.result)
                except ConversionError as refusal:
                    if not is_head:
                        raise
                    record.omitted[name] = refusal.problem.message

    def _called_before(self, name: str, leaf: Any, input_tensor: Any, result: Any) -> None:
        """Note the output of a leaf in the previous step: the output of weights and reshapings as a
        function of their input, any other output as `Before`.
        """
        self.leaves_before.add(id(leaf))
        record = self._record
        out = result[0] if isinstance(result, tuple) else result
        # The output may be known already: Identity returns the output of another leaf.
        if not hasattr(out, "is_inference") or record.note(out).unchanged is not None:
            return
        source = record.seen(input_tensor).origin
        if source is not None:
            order, plain = source.order, may_be_shared(leaf) or without_state(leaf)
            if order is not None and may_be_ordered(leaf, order.places):
                self._add_ordered(record.free(name), leaf, source, input_tensor, out)
                return
            if order is None and plain:
                record.add(record.free(name), leaf, source, input_tensor, out)
                return
        record.add(record.free("spikes"), Before(leaf=name), Origin(sources=()), out, out)

    def _called(self, name: str, leaf: Any, input_tensor: Any, result: Any) -> None:
        """Note a call of a leaf.

        Raises:
            ConversionError: The leaf was called before, or its input is not the output of a layer.
        """
        record, layer = self._record, name
        name = self._name_of(layer, leaf)
        source = self._origin_of_input(input_tensor, layer, leaf)
        if source.order is not None:
            self._add_ordered(name, leaf, source, input_tensor, result)
            return
        if in_time(leaf) and input_tensor.ndim < 2:
            raise ConversionError(
                Text(
                    "layer '{layer}' ({type}) processes all time steps in one call, and its input "
                    "has shape {shape} in each of them, without a batch axis",
                    layer=layer,
                    type=type(leaf).__name__,
                    shape=tuple(input_tensor.shape),
                ),
                fix="pass a sample (time, batch, *shape), or use layers that compute one time step "
                "per call",
                node=layer,
            )
        parts = list(result) if isinstance(result, tuple) else [result]
        if not hasattr(parts[0], "is_inference"):  # a list of steps, for one
            raise unsupported(layer, leaf)
        record.add(name, leaf, source, input_tensor, parts[0])
        operation = record.operation
        assert operation is not None
        first = operation.results[id(parts[0])]
        for value in operation.outputs:
            record.of_entry(value).is_state |= value is not first
        membrane = Origin(sources=(name,), member="membrane")
        last = operation.results.get(id(parts[-1]), first)
        for value in (last, *operation.membranes):
            if value.tensor.shape == parts[0].shape and value is not first:
                record.of_entry(value).origin = membrane

    def _add_ordered(
        self, name: str, leaf: Any, source: Origin, input_tensor: Any, out: Any
    ) -> None:
        """Note a call of a layer with reordered input: the columns of a Linear are permuted, and
        layers that compute nothing pass the order on.
        """
        assert source.order is not None
        record = self._record
        if not takes_columns(leaf):
            forward = leaf.forward
            if in_time(leaf):
                forward = lambda x: leaf.forward(x[None])[0]  # noqa: E731
            record.reorder(forward, "flatten", source, (input_tensor,), {}, out)
            return
        batch, shape, places = len(input_tensor), source.order.shape, source.order.places
        flat = (batch, math.prod(shape))
        if len(shape) > 1:
            import torch

            layer = torch.nn.Flatten(1, -1)
            source = record.call(record.free("flatten"), layer, source, (batch, *shape), flat)
        record.keep(out, record.call(name, leaf, source, flat, out.shape, columns=places))

    def _name_of(self, name: str, leaf: Any) -> str:
        """Return the name of a call: the leaf's name, or a new one for repeated calls of a leaf
        that may be called several times.
        """
        if name not in self._record.calls:
            return name
        if not without_state(leaf) and not may_be_shared(leaf):
            raise ConversionError(
                Text(
                    "'{layer}' ({type}) is called twice in one time step, and a graph "
                    "contains it once",
                    layer=name,
                    type=type(leaf).__name__,
                ),
                fix="use a separate layer for each call",
                node=name,
            )
        return self._record.free(name)

    def _origin_of_input(self, tensor: Any, name: str, leaf: Any) -> Origin:
        """Return the origin of the tensor that a layer receives.

        Raises:
            ConversionError: The tensor comes from no layer, or was modified.
        """
        seen, kind = self._record.seen(tensor), type(leaf).__name__
        origin = seen.origin
        order = None if origin is None else origin.order
        if origin is not None and order is not None and not may_be_ordered(leaf, order.places):
            origin = self._record.reshaped(origin, tuple(tensor.shape))
        if origin is None:
            self._record.refuse_lost(seen)
            raise self._of_no_layer(seen, name, kind)
        if origin.member == "membrane":
            return self._record.membrane(origin, tuple(tensor.shape))
        return origin

    def _of_no_layer(self, seen: SeenTensor, name: str, kind: str) -> ConversionError:
        """Return the refusal of a layer whose input comes from no layer."""
        record = self._record
        if record.selects_input_part:
            return ConversionError(
                Text(
                    "'{layer}' ({type}) receives a part of the sample, such as x[t] of a "
                    "loop over time",
                    layer=name,
                    type=kind,
                ),
                fix=(
                    "if forward loops over time, pass a sample with at least 3 time "
                    "steps; otherwise let it compute one time step"
                ),
                node=name,
            )
        by = function_clause(seen) or ", not from outputs of layers in this time step"
        fix = WAYS_OUT.get(seen.function, _SUPPORTED) if seen.function else _FEEDBACK
        if seen.is_product:
            fix = _PRODUCT
        elif seen.caller:
            fix = _CALLER
        return ConversionError(
            Text(
                "the input of '{layer}' ({type}) is computed outside of layers{by}",
                layer=name,
                type=kind,
                by=by,
            ),
            fix=fix,
            node=name,
        )


def _input_of(operation: Operation) -> Any:
    """Return the input tensor of a leaf."""
    argument = (*operation.args, *operation.kwargs.values())[0]
    # Norse's lifted layers take what is left of (output, state) of the layer before.
    return argument[0] if isinstance(argument, tuple) else argument
