"""Read the last time step of a folded recording, and find what forward computes around its steps.

The input of the graph is the sample, or a value through which all paths from the sample to the layers lead. Its
outputs are the values of the steps from which forward computes its results. Operations before the input and after
the outputs are named (`outside_operations`); `Place`s find the input, the outputs and the states of neurons in other
recordings.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from jaxsnn.errors import ConversionError, listing
from jaxsnn.nir.frameworks.torch_layers import Call
from jaxsnn.nir.torch.folding import PARTS, ancestors, fold, refuse_mixed_steps, spoken
from jaxsnn.nir.torch.forward_passes import (
    RecordedPasses,
    depending_on,
)
from jaxsnn.nir.torch.leaves import (
    exported,
    is_neuron_without_node,
    no_neurons,
    of_framework,
    of_library,
    unsupported,
)
from jaxsnn.nir.torch.module_pass import leaves_of, state_names
from jaxsnn.nir.torch.outside_operations import (
    STACKING,
    is_part,
    operation_names,
    skips_steps,
    takes_part,
    with_indexing,
)
from jaxsnn.nir.torch.pass_record import Origin, PassRecord, function_clause
from jaxsnn.nir.torch.recording import READS, Operation, TensorValue, in_line
from jaxsnn.nir.torch.step_reader import StepReader
from jaxsnn.nir.torch.trace_outcome import (
    ModuleTrace,
    Place,
    RecordedSteps,
    left_out,
    outputs_of,
    used_calls,
)
from jaxsnn.wording import Text


class FoldedReading:
    """Reading of recorded passes: their last time step."""

    def __init__(self, module: Any, passes: RecordedPasses) -> None:
        self.module, self.passes = module, passes
        self.leaves = leaves_of(module)
        refuse_mixed_steps(passes.operations)
        self.folded = fold(passes.operations, passes.steps, passes.length, passes.sample)
        self.operations = passes.operations
        #: Operations on which layers, results or Python values depend. Others may come from elsewhere, such as
        #: those of snntorch.utils.reset, which resets all networks of the process.
        self.used = _used(passes)
        self.outside = [op for op in self.used if not op.step]
        self.last = [op for op in self.operations if op.step == self.folded.steps]
        #: Values that depend on the sample, and those that depend on layers of the graph, by id.
        self.from_sample = depending_on(self.operations, [passes.sample])
        self.dependent = self.folded.dependent

    def traces(self) -> Iterator[ModuleTrace | ConversionError]:
        """Yield the trace for each possible input of the graph, or the error if there is none."""
        for value, places in self.inputs():
            try:
                yield self._trace_from(value, places)
            except ConversionError as refusal:
                yield refusal

    def inputs(self) -> Iterator[tuple[TensorValue, list[TensorValue]]]:
        """Yield values that may be the input of the graph, and their values in each step."""
        sample = self.passes.sample
        possible: set[int] = set()
        all_consumed: list[TensorValue] = []
        # If the graph cannot contain the layers before the neurons, it begins after them.
        for dependent in (self.folded.dependent, self.folded.spiking):
            self.dependent = dependent
            inner = [op for op in self.last if any(id(v) in dependent for v in op.outputs)]
            consumed = [
                value
                for operation in inner
                for value in operation.values
                if id(value) in self.from_sample and id(value) not in dependent
            ]
            all_consumed += consumed
            for value in [sample, *self._dominating(consumed)] if consumed else ():
                places = self._places(value, consumed, inner)
                if self.passes.steps and self._mixes_steps(value):
                    continue
                if places is not None and id(value) not in possible:
                    possible.add(id(value))
                    yield value, places
        if not all_consumed:
            if not any(operation.is_neuron for operation in self.operations):
                raise no_neurons(self._of_functions())
            raise ConversionError(
                "forward does not depend on the sample"
                if self.passes.steps
                else "the loop over time does not depend on the sample",
                fix="compute the input of the first layer from the sample",
            )
        if not possible:
            self._refuse_inputs()

    def _of_functions(self) -> list[str]:
        """Return what may be neurons that are not layers: functions of frameworks, and the user's modules that
        compute with functions of torch.
        """
        names = {}
        for op in self.operations:
            if op.kind == "enter" and not of_library(op.func) and op.func is not self.module:
                names[op.name] = f"'{op.name}' ({type(op.func).__name__})"
            elif op.caller and any(id(value) in self.from_sample for value in op.values):
                names[op.caller] = op.caller + in_line(op.line)
        return list(names.values())

    def _mixes_steps(self, value: TensorValue) -> bool:
        """Return whether a value is computed from other calls of forward, or from one part of the sample of its
        call, which may be the only time step of a loop.
        """
        last = self.folded.steps
        return any(
            op.step not in (0, last)
            or (op.name in PARTS and op.values[0] is not self.passes.sample)
            for op in ancestors([value], set())
        )

    def _refuse_inputs(self) -> NoReturn:
        """Refuse a loop over time that uses several parts of the sample in each step.

        Raises:
            ConversionError: Always.
        """
        if self.passes.steps:
            raise ConversionError(
                "forward computes the input of its layers from samples of earlier time steps",
                fix="compute it from the sample of the same time step",
            )
        raise ConversionError(
            "the loop over time uses several parts of the sample in each time step",
            fix="read one part of the sample per time step, such as x[t]",
        )

    def _places(
        self, value: TensorValue, consumed: list[TensorValue], inner: list[Operation]
    ) -> list[TensorValue] | None:
        """Return the values of a possible input in each step; None if the loop takes parts of another
        value, or not one part in each step.
        """
        folded = self.folded
        parts: list[TensorValue] | None = None
        for operation in {*ancestors(consumed, {id(value)}), *inner}:
            if not operation.step:
                continue
            for token in folded.varying.get(folded.place[id(operation)], ()):
                if operation.tokens[token] is not value:
                    return None
                twins = [folded.twin(operation, k) for k in range(1, folded.steps + 1)]
                parts = [twin.tokens[token] for twin in twins if twin is not None]
        if parts is None:
            parts = self.in_each_step(value)
        return parts if len(parts) == folded.steps else None

    def _dominating(self, consumed: list[TensorValue]) -> list[TensorValue]:
        """Return the values through which all paths from the sample to the consumed values go, in order."""
        sample, dominating = self.passes.sample, []
        for operation in sorted(ancestors(consumed, set()), key=lambda op: op.index):
            for value in operation.outputs:
                if id(value) in self.from_sample and operation.kind in ("function", "layer"):
                    stop = {id(value)}
                    inner = list(ancestors(consumed, stop))
                    used = any(v is value for op in inner for v in op.values)
                    used |= any(v is value for v in consumed)
                    around = any(v is sample for op in inner for v in op.values)
                    if used and not around and not any(v is sample for v in consumed):
                        dominating.append(value)
        return dominating

    def read(self, record: PassRecord, reader: StepReader, value: TensorValue) -> None:
        """Read the last two steps.

        Args:
            record: Record to fill.
            reader: Reader of steps, which fills the record.
            value: Input of the graph.
        """
        folded = self.folded
        outside = [
            op
            for op in self.operations
            if not op.step and not any(id(v) in self.dependent for v in op.outputs)
        ]
        varying = frozenset(
            op.index for op in self.operations if op.step and folded.place[id(op)] in folded.varying
        )
        reader.read(op for op in outside if op.kind == "function")
        before = [op for op in self.operations if op.step and op.step == folded.steps - 1]
        reader.read_before(before)
        record.of_entry(value).origin = Origin(sources=("",))
        inputs = depending_on(outside, [value])
        reader.read(op for op in outside if any(id(v) in inputs for v in op.values))
        inputs |= self.dependent | depending_on(self.last, [value])
        reader.read(
            (
                op
                for op in self.last
                if op.kind != "layer" or any(id(v) in inputs for v in op.values)
            ),
            varying,
            self.heads(),
        )

    def heads(self) -> frozenset[int]:
        """Return the indices of layers on which no neuron depends in any step."""
        neurons = [op for op in self.operations if op.is_neuron]
        if not neurons:
            return frozenset()
        before = {*neurons, *ancestors([v for op in neurons for v in op.values], set())}
        layer_names = {op.name for op in before if op.kind == "layer"}
        return frozenset(
            op.index for op in self.operations if op.kind == "layer" and op.name not in layer_names
        )

    def in_last_step(self, value: TensorValue) -> TensorValue | None:
        """Return the corresponding value of the step that is read."""
        if id(value) not in self.dependent:
            return None
        return self.folded.value_in(value, self.folded.steps)

    def in_each_step(self, value: TensorValue) -> list[TensorValue]:
        """Return the corresponding values of all steps; none if a step has no such value."""
        steps = range(1, self.folded.steps + 1)
        values = [self.folded.value_in(value, step) for step in steps]
        return [v for v in values if v is not None] if None not in values else []

    def _trace_from(self, value: TensorValue, places: list[TensorValue]) -> ModuleTrace:
        record = PassRecord(self.module, dict(self.leaves), self.passes.buffers)
        if not any(operation.is_neuron for operation in self.operations):
            record.no_neurons = no_neurons(self._of_functions())
        reader = StepReader(record)
        self.read(record, reader, value)
        returned, decoder = self._collected(record)
        outputs = outputs_of(record, returned)
        calls = used_calls(record, outputs)
        absent = self.absent()
        late = {call.name for call in calls if id(call.module) in absent}
        _refuse_biases(self.module, calls, late | record.earlier, record.labels)
        stepped = self.passes.steps > 0
        before = list(ancestors([value], set()))
        selected = [returned[output.place] for output in outputs]
        heads = sorted(filter(self._has_weights, decoder), key=lambda op: op.index)
        return ModuleTrace(
            calls=calls,
            outputs=tuple(
                dataclasses.replace(output, place=place) for place, output in enumerate(outputs)
            ),
            left_out=tuple(self._left_out(record, selected, decoder)),
            absent=frozenset(late | record.earlier),
            counters=self.passes.counters,
            reads=tuple(dict.fromkeys(self._reads())),
            arguments=self.passes.arguments,
            state=self.passes.state,
            labels=record.labels,
            passes=RecordedSteps(
                stepped=stepped,
                from_sample=self._is_sample(places),
                signature=self.signature(),
                input=tuple(map(self.place_of, places)),
                layers=self._layers(),
                outputs=tuple(self.place_of(returned[output.place]) for output in outputs),
                before=with_indexing(
                    operation_names(before),
                    skips_steps(places) or any(is_part(op, places) for op in before),
                ),
                weights_before=operation_names(op for op in before if self._has_weights(op)),
                sequences_before=operation_names(op for op in before if not op.step),
                after=self._names_after(decoder, selected),
                weights_after=operation_names(heads),
                omission=self._omission(record, heads),
            ),
        )

    def _names_after(self, decoder: list[Operation], outputs: list[TensorValue]) -> tuple[str, ...]:
        """Return the names of the operations after the outputs of the graph, with "indexing" if forward does
        not return all time steps in order, and "delay" if it returns an output of an earlier call.
        """
        labels = operation_names(decoder, () if self.passes.steps else STACKING)
        all_steps = set(range(1, self.folded.steps + 1))
        steps_of, is_ordered = self._returned_steps({id(value) for value in outputs})
        if self.passes.steps:
            is_late = any(self.folded.steps not in steps for steps in steps_of.values())
            labels += ("delay",) if is_late else ()
            is_partial = False
        else:
            is_partial = not is_ordered or any(steps != all_steps for steps in steps_of.values())
        is_partial |= any(map(takes_part, decoder))
        return with_indexing(labels, is_partial)

    def reorders(self, steps: RecordedSteps) -> bool:
        """Return whether forward reads or returns time steps in another order, for places of another recording."""
        outputs = {id(self.values([place])[-1]) for place in steps.outputs}
        return skips_steps(self.values(steps.input)) or not self._returned_steps(outputs)[1]

    def _returned_steps(self, outputs: set[int]) -> tuple[dict[int, set[int]], bool]:
        """Return the time steps of which forward uses each output of the graph for its results, by the id of
        its value in the last step, and whether all stacks of an output contain the time steps in order.
        """
        steps_of: dict[int, set[int]] = {}
        is_ordered = True
        pending, seen = list(self.passes.returned), set[int]()
        while pending:
            value = pending.pop()
            if id(value) in seen:
                continue
            seen.add(id(value))
            last, source = self.in_last_step(value), value.source
            if last is not None and id(last) in outputs:
                if source is not None and source.step:
                    steps_of.setdefault(id(last), set()).add(source.step)
            elif value.elements is not None:
                elements = [value.elements[1][index] for index in sorted(value.elements[1])]
                steps = [
                    element.source.step
                    for element in elements
                    if element.source is not None and id(self.in_last_step(element)) in outputs
                ]
                is_stack_of_steps = source is not None and not source.step
                is_ordered &= not is_stack_of_steps or steps == sorted(steps)
                pending += elements
            elif source is not None:
                pending += source.values
        return steps_of, is_ordered

    def _omission(self, record: PassRecord, heads: list[Operation]) -> str:
        """Return the reason why the graph ends before the first of some operations; "" if there are none."""
        if not heads:
            return ""
        head = heads[0]
        if not head.step:
            return Text(
                "forward computes {operation} outside of its time steps{line}",
                operation=spoken(head),
                line=in_line(head.line),
            )
        last = self.in_last_step(head.outputs[0])
        clause = "" if last is None else function_clause(record.of(last))
        reasons = [
            *record.omitted.values(),
            Text(
                "the input of {operation} is computed outside of layers{by}",
                operation=spoken(head),
                by=clause,
            ),
        ]
        return reasons[0]

    def _has_weights(self, operation: Operation) -> bool:
        """Return whether an operation is a layer with parameters, or a function of a parameter of the module."""
        if operation.kind == "layer":
            return any(True for _ in operation.func.parameters())
        parameters = {id(parameter) for parameter in self.module.parameters()}
        return any(id(value.tensor) in parameters for value in operation.values)

    def _is_sample(self, places: list[TensorValue]) -> bool:
        """Return whether values are the steps of the sample, over which layers loop."""
        sample = self.passes.sample.tensor
        shapes = {place.tensor.shape for place in places}
        sources = [place.source.values for place in places if place.source is not None]
        parts = len(sources) == len(places) == self.passes.length == len(sample)
        return (
            parts
            and shapes == {sample.shape[1:]}
            and sources == [[self.passes.sample]] * len(sample)
        )

    def _reads(self) -> Iterator[tuple[str, str]]:
        """Yield function and line of each conversion of a tensor to a Python value that may determine
        what the graph computes.
        """
        last = max((op.step for op in self.operations if op.is_neuron), default=0)
        # All steps have the same; without a step, they are part of an encoder or a decoder.
        steps = {last, 0} if self.passes.steps else {last} - {0}
        for read in (op for op in self.operations if op.name in READS and op.step in steps):
            before_neurons = any(
                op.is_neuron and op.index > read.index and read.step in (0, op.step)
                for op in self.operations
            )
            decides = before_neurons or (self.passes.steps and read.name == "__bool__")
            if decides and any(id(value) in self.from_sample for value in read.values):
                yield read.name.strip("_"), read.line

    def of_graph(self) -> ModuleTrace:
        """Return the trace of a module that `jaxsnn.to_torch` created, which is a single layer."""
        return ModuleTrace(
            calls=(),
            outputs=(),
            state=self.passes.state,
            arguments=self.passes.arguments,
            passes=RecordedSteps(
                stepped=True,
                from_sample=False,
                signature=self.signature(),
                input=(
                    self.place_of(self.operations[0].outputs[0]),
                ),  # the part of the sample of a call
                layers=self._layers(),
                outputs=tuple(map(self.place_of, self.passes.returned)),
            ),
        )

    def _layers(self) -> dict[str, tuple[Place, ...]]:
        """Map each neuron that is called in all steps to the places of its spikes and membranes. Neurons
        inside a module that `jaxsnn.to_torch` created have separate entries.
        """
        layers: dict[str, tuple[Place, ...]] = {}
        for operation in self.operations:
            call = operation.call_name or operation.name
            if not operation.is_neuron or call in layers:
                continue
            is_root = operation.func is self.module
            prefix = "" if is_root else f"{call}."
            neurons = {call: [operation.outputs[0], *operation.membranes]}
            neurons |= {prefix + name: values for name, values in operation.inner.items()}
            for name, (spikes, *membranes) in neurons.items():
                shape = spikes.tensor.shape
                same_shape = [v for v in membranes[:1] if v.tensor.shape == shape]
                rows = [spikes, *same_shape]
                if all(self.in_each_step(value) for value in rows):
                    layers[name] = tuple(map(self.place_of, rows))
        return layers

    def place_of(self, value: TensorValue) -> Place:
        """Return the place of a value in the recording: that of its operation in the loop, or outside of it."""
        if value.source is None:
            return (-1, 0)
        if value.source.step:
            return self.folded.place[id(value.source)], value.path
        return self.outside.index(value.source), value.path

    def signature(self) -> tuple[Any, ...]:
        """Return a tuple that is equal for recordings of the same operations."""
        return tuple((op.kind, op.name, op.site) for op in self.compared())

    def compared(self) -> list[Operation]:
        """Return the operations that recordings for different inputs must share: of the steps only one, if
        the number of steps may differ.
        """
        templates = [by_step[self.folded.steps] for by_step in self.folded.looped.values()]
        if self.passes.steps:
            return templates
        return [*self.outside, *templates] if self.passes.length else self.used

    def differing(self, signature: tuple[Any, ...]) -> str | None:
        """Return the line of the first operation that differs from a signature; None if all agree."""
        current = self.signature()
        if current == signature:
            return None
        pairs = zip(self.compared(), current, signature, strict=False)
        return next((op.line for op, new, before in pairs if new != before), "")

    def values(self, places: Sequence[Place]) -> list[TensorValue]:
        """Return the values at places of the recording: the place in each step, or one for all."""
        steps = range(1, self.folded.steps + 1)
        return [
            self._value_at(index, path)
            if isinstance(index, int)
            else self.folded.looped[index][step].outputs[path]
            for step, (index, path) in zip(steps, itertools.cycle(places), strict=False)
        ]

    def array(self, places: Sequence[Place], label: str) -> np.ndarray:
        """Return the numbers at places of the recording, (time, batch, *shape).

        Raises:
            ConversionError: Their shapes differ between steps.
        """
        arrays = [_array(value.numbers) for value in self.values(places)]
        shapes = {array.shape for array in arrays}
        if len(shapes) > 1:
            raise ConversionError(
                Text(
                    "{values} has different shapes in different time steps: {shapes}",
                    values=label,
                    shapes=listing(sorted(map(str, shapes))),
                ),
                fix="return the tensor of one time step, and collect the time steps outside of forward",
            )
        return np.stack(arrays)

    def _value_at(self, index: Any, path: int) -> TensorValue:
        return self.outside[index].outputs[path] if index >= 0 else self.passes.sample

    def absent(self) -> set[int]:
        """Return the ids of layers that are not called in the first step."""
        first = {id(op.func) for op in self.operations if op.step < 2}
        return {id(leaf) for _, leaf in self.leaves} - first

    def _collected(self, record: PassRecord) -> tuple[list[TensorValue], list[Operation]]:
        """Return the values of the graph from which forward computes its results, and the operations
        that do so.
        """
        collected: list[TensorValue] = []
        decoder: list[Operation] = []
        seen: set[int] = set()

        def visit(value: TensorValue) -> None:
            if id(value) in seen:
                return
            seen.add(id(value))
            last = self.in_last_step(value)
            lost_in = None if last is None else record.of(last).lost_in
            if lost_in is not None and of_framework(lost_in[1]):
                raise unsupported(*lost_in)
            origin = None if last is None else record.of(last).unchanged
            if last is not None and origin is not None and origin.sources != ("",):
                if last not in collected:
                    collected.append(last)
            elif record.of(value).unchanged is not None or record.of(last or value).is_state:
                pass  # the input of the graph, or a state
            elif value.elements is not None:
                if self.passes.steps and value.source is not None:  # forward stacks several calls
                    decoder.append(value.source)
                for element in value.elements[1].values():
                    visit(element)
            elif value.source is not None and not self._is_layer_of_graph(value.source, record):
                if value.source not in decoder:
                    decoder.append(value.source)
                for argument in value.source.values:
                    visit(argument)

        returned = self.passes.returned
        for value in returned:
            visit(value)
        self._refuse_neurons(decoder)
        return collected or returned, decoder

    def _refuse_neurons(self, after: list[Operation]) -> None:
        """Refuse operations after the graph that are part of a neuron for which NIR has no node.

        Raises:
            ConversionError: There is such a neuron; the message names the first.
        """
        entered: list[Operation] = []
        for operation in self.operations:
            if operation.kind == "enter":
                entered.append(operation)
            elif operation.kind == "exit":
                del entered[-1:]
            elif operation in after:
                for outer in (*entered, operation):
                    if outer.kind != "function" and is_neuron_without_node(outer.func):
                        raise unsupported(outer.name, outer.func)

    def _left_out(
        self, record: PassRecord, outputs: list[TensorValue], decoder: list[Operation]
    ) -> Iterator[str]:
        """Yield descriptions of results that are neither states nor computed from outputs of the graph."""
        stop = {id(value) for last in outputs for value in self.in_each_step(last)}
        independent = []
        # States that forward also receives may be those of a next call.
        is_result = not self.passes.steps and not self.passes.state
        is_result &= not state_names(self.module, self.passes.arguments)[0]
        for place, value in enumerate(self.passes.returned):
            layers, reaches_output = _neurons_before(value, stop)
            last = self.in_last_step(value)
            seen = record.of(last or value)
            is_state = seen.is_state or (last is not None and seen.unchanged is not None)
            is_state |= value.source is not None and value.source.is_neuron
            if id(value) not in stop and layers and place and is_state and is_result:
                yield Text(
                    "tensor {index}, of shape {shape}, a state of {layers} after the last time step",
                    index=place + 1,
                    shape=tuple(value.tensor.shape),
                    layers=listing(f"'{name}'" for name in layers),
                )
            elif layers and place and not is_state:
                yield Text(
                    "tensor {index}, of shape {shape}, computed from spikes or states of {layers} that "
                    "are no outputs of the graph",
                    index=place + 1,
                    shape=tuple(value.tensor.shape),
                    layers=listing(f"'{name}'" for name in layers),
                )
            elif not layers and not reaches_output and value.source not in decoder:
                independent.append(place)
        yield from left_out(record, self.passes.returned, independent)

    def _is_layer_of_graph(self, operation: Operation, record: PassRecord) -> bool:
        """Return whether an operation is a layer of the graph: its other results are states."""
        if operation.kind != "layer":
            return False
        last = self.in_last_step(operation.outputs[0])
        return last is not None and record.of(last).origin is not None


def _used(passes: RecordedPasses) -> list[Operation]:
    """Return the operations on which layers, results of forward or Python values depend, in order."""
    ends = [op for op in passes.operations if op.kind != "function" or op.name in READS]
    values = [value for op in ends for value in op.values]
    returned = [value for results in passes.results for value in results]
    used = {op.index for op in (*ends, *ancestors([*values, *returned], set()))}
    return [op for op in passes.operations if op.index in used]


def _neurons_before(value: TensorValue, stop: set[int]) -> tuple[list[str], bool]:
    """Return the neurons from which a value is computed, except through values at which to stop,
    and whether there are such values.
    """
    pending, seen, neurons, stops = [value], set[int](), set[str](), False
    while pending:
        current = pending.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        source = current.source
        if id(current) in stop:
            stops = True
        elif current.elements is not None:
            pending += current.elements[1].values()
        elif source is not None and source.is_neuron:
            neurons.add(source.call_name or source.name)
        elif source is not None:
            pending += source.values
    return sorted(neurons), stops


def _refuse_biases(
    module: Any, calls: Iterable[Call], late: Collection[str], labels: Mapping[str, str]
) -> None:
    """Refuse layers with a bias that are not called in the first step."""
    leaf_names = {id(leaf): name for name, leaf in leaves_of(module)}
    for call in (call for call in calls if call.name in late):
        if any(np.any(entry.get("bias", 0)) for entry in exported(call).nodes.values()):
            raise ConversionError(
                Text(
                    "forward skips '{layer}' in the first time step, but a graph adds "
                    "its bias in every time step",
                    layer=leaf_names.get(id(call.module), labels.get(call.name, call.name)),
                ),
                fix="call the layer with zeros in the first time step, or use bias=False",
                node=call.name,
            )


def _array(tensor: Any) -> np.ndarray:
    return np.array(tensor.detach().cpu().numpy() if hasattr(tensor, "detach") else tensor)
