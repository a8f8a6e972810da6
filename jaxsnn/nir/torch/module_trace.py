"""Trace of a PyTorch module: which layer takes the output of which in one time step.

`forward` is recorded (`recording`). If it does one step, its second call is read, in which kept state is
available. If it loops over time, the recording is folded into steps (`folding`), and the last one is
read. If layers run through time themselves, all steps are read at once. `step_reader` notes layers, and
`between_layers` the functions of torch that are called between them; functions for which NIR has no node
are rejected, unless they are called before the first layer or after the last one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError, JaxsnnError, listing
from jaxsnn.nir.frameworks.torch_layers import Call
from jaxsnn.nir.torch.fixed_numbers import (
    copies_of,
    fixed_buffers,
    refuse_learning,
    user_buffers,
)
from jaxsnn.nir.torch.folding import PARTS, Folded, ancestors, fold, neuron_calls
from jaxsnn.nir.torch.leaves import exported
from jaxsnn.nir.torch.module_pass import (
    error_refusal,
    fed_back,
    leading_axes,
    leaves_of,
    numbers_held,
    rewind,
    sample_refusal,
    state_names,
    unchanged,
    uncompiled,
)
from jaxsnn.nir.torch.pass_record import Origin, PassRecord
from jaxsnn.nir.torch.recording import Operation, Recorder, TensorValue, tensors_of
from jaxsnn.nir.torch.sequences import Unstacking
from jaxsnn.nir.torch.step_reader import OF_BEFORE, StepReader
from jaxsnn.nir.torch.trace_outcome import (
    ModuleTrace,
    RecordedSteps,
    left_out,
    outputs_of,
    used_calls,
)
from jaxsnn.wording import Text


def traces(
    module: Any, sample: Any, arguments: tuple[Any, ...] = ()
) -> Iterator[ModuleTrace | ConversionError]:
    """Yield the possible traces of a module, the one with the earliest input of the graph first, or
    the reason why there is none. Restore the states of the module afterwards.

    Args:
        module: A torch.nn.Module.
        sample: Input of `forward`: a tensor of one step (batch, *shape), or of all steps.
        arguments: Arguments of `forward` after the sample, such as a number of steps.

    Raises:
        ConversionError: The input of a layer is computed outside of layers, or a layer is called more
            than once in a step, or adds a bias only from the second step on; or steps differ; or
            `forward` requires further arguments, or does not accept the sample.
    """
    import torch

    _, required = state_names(module, arguments)
    try:
        recorded = record_passes(module, sample, arguments, (None,) * len(required))
    except ConversionError:
        if not required:
            raise
        try:
            zeros = (torch.zeros(()),) * len(required)
            recorded = record_passes(module, sample, arguments, zeros)
        except ConversionError as refusal:
            raise ConversionError(
                Text(
                    "forward of {module} needs {arguments}, and only a sample was passed",
                    module=type(module).__name__,
                    arguments=listing(required),
                ),
                fix=f"give {listing(required)} a default, such as None for states, or pass a tuple of the sample"
                f" and {listing(required)} as the sample",
            ) from refusal
    if recorded.loops or recorded.leading == 2:
        reading = _LoopReading if recorded.loops else _SequenceReading
        yield from reading(module, recorded).traces()
        return
    first: ModuleTrace | ConversionError
    try:
        first = _step_trace(module, recorded, 1)
    except ConversionError as refusal:
        if refusal.problem.code != OF_BEFORE:
            raise
        first = refusal
    if recorded.failure is None:
        later = _step_trace(module, recorded, 2)
        _refuse_late_biases(module, first, later)
        yield later
    else:  # what fails in the second step fails when the module is run, which knows the step
        yield first


@dataclasses.dataclass(kw_only=True, eq=False)
class RecordedPasses:
    """Recorded forward passes: one, or those of the first two steps.

    Attributes:
        recorder: Recorder with the operations.
        leading: Axes before the shape in the sample: 2 if layers run through time themselves.
        arguments: Arguments of all calls after the sample.
        state: Initial states, which follow these arguments in the first call.
        loops: Forward calls a neuron several times.
        samples: Values of the samples that forward was called with.
        returned: Values that forward returned, in each call.
        buffers: Buffers that are the same after the first call.
        counters: Numbers of the module that the second call changed.
        parameters: Copies of the parameters between the calls.
        failure: Error of the second call.
    """

    recorder: Recorder
    leading: int
    arguments: tuple[Any, ...] = ()
    state: tuple[Any, ...] = ()
    loops: bool = False
    samples: list[TensorValue] = dataclasses.field(default_factory=list)
    returned: list[list[TensorValue]] = dataclasses.field(default_factory=list)
    buffers: list[Any] = dataclasses.field(default_factory=list)
    counters: tuple[str, ...] = ()
    parameters: dict[str, tuple[int, Any]] = dataclasses.field(default_factory=dict)
    failure: Exception | None = None

    def operations(self, step: int) -> list[Operation]:
        """Return the operations of a step."""
        return [operation for operation in self.recorder.operations if operation.step == step]


def record_passes(
    module: Any,
    sample: Any,
    arguments: tuple[Any, ...] = (),
    state: tuple[Any, ...] = (),
    copies: bool = False,
) -> RecordedPasses:
    """Record one forward pass, and a second one if forward does one step of time.

    Raises:
        ConversionError: The module does not accept the sample.
    """
    import torch

    leaves = leaves_of(module)
    recorder = Recorder(module, leaves, copies)
    passes = RecordedPasses(
        recorder=recorder, leading=leading_axes(module), arguments=arguments, state=state
    )

    def call(*state: Any) -> Any:
        with torch.inference_mode(False):  # in which torch counts no changes in place
            x = sample.clone()  # which forward may change in place
        passes.samples.append(recorder.value(x))
        recorder.step += 1
        with recorder.watching():
            result = module(x, *arguments, *state)
        passes.returned.append([recorder.value(tensor) for tensor in tensors_of(result)])
        return result

    try:
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            torch.random.fork_rng(devices=[]),
            unchanged(module),
            uncompiled(module),
        ):
            rewind(leaf for _, leaf in leaves)  # states may be of another size of batch
            buffers = user_buffers(module)
            before = copies_of(buffers.items())
            result = call(*state)
            passes.loops = _loops(recorder)
            if passes.loops or passes.leading == 2:
                unstacking = Unstacking(recorder.operations, passes.returned[0])
                recorder.operations = unstacking.operations
                passes.returned = [unstacking.returned]
                passes.loops = _loops(recorder)
            passes.buffers = fixed_buffers(buffers, before, module)
            if passes.loops or passes.leading == 2:
                return passes
            numbers, passes.parameters = numbers_held(module), copies_of(module.named_parameters())
            try:
                call(*fed_back(module, result))
            except JaxsnnError:
                raise
            except Exception as error:
                passes.failure = error
                return passes
            operations = recorder.operations
            of_layers = [v for op in operations if op.kind == "layer" for v in op.outputs]
            dependent = _depending_on(operations, of_layers)
            states = {id(v.tensor) for op in operations for v in op.outputs if id(v) in dependent}
            later = numbers_held(module, states)  # what is kept of layers is fed back
            passes.counters = tuple(
                name
                for name, value in later.items()
                if name in numbers and not np.array_equal(value, numbers[name], equal_nan=True)
            )
            refuse_learning(passes.parameters, module)
    except JaxsnnError:
        raise
    except RuntimeError as error:  # of layers that do not take its shape or its type
        raise sample_refusal(module, sample, error) from error
    except Exception as error:
        raise error_refusal(
            module, error, Text("for a sample of shape {shape}", shape=tuple(sample.shape))
        ) from error
    return passes


def _loops(recorder: Recorder) -> bool:
    """Return whether forward calls a neuron several times."""
    return any(count > 1 for count in neuron_calls(recorder.operations).values())


def _step_trace(module: Any, passes: RecordedPasses, step: int) -> ModuleTrace:
    """Read the pass of a step; in the second one the outputs of neurons in the first are known."""
    sample = passes.samples[step - 1].tensor
    leaves = leaves_of(module)
    buffers = user_buffers(module).values() if step == 1 else passes.buffers
    record = PassRecord(module, 1, tuple(sample.shape[:1]), dict(leaves), buffers)
    reader = StepReader(record)
    if step == 2:
        reader.read_before(passes.operations(1))
    record.of_entry(passes.samples[step - 1]).origin = Origin(sources=("",), leading=1)
    reader.read(passes.operations(step))
    returned = passes.returned[step - 1]
    outputs = outputs_of(record, returned)
    calls = used_calls(record, outputs)
    absent = {id(leaf) for _, leaf in leaves} - reader.leaves_before if step == 2 else set()
    late = {call.name for call in calls if id(call.module) in absent}
    return ModuleTrace(
        calls=calls,
        outputs=outputs,
        leading=1,
        left_out=tuple(left_out(record, returned)),
        absent=frozenset(late | record.earlier),
        counters=passes.counters,
        state=passes.state,
        labels=record.labels,
    )


class _SequenceReading:
    """Reading of a module whose layers run through time themselves: all steps at once."""

    def __init__(self, module: Any, passes: RecordedPasses) -> None:
        self.module, self.passes = module, passes
        self.operations = passes.recorder.operations
        self.leaves = leaves_of(module)
        self.leading = passes.leading

    def traces(self) -> Iterator[ModuleTrace | ConversionError]:
        """Yield the trace with each possible input, or why it is not one."""
        for value, places in self.inputs():
            try:
                yield self._trace_from(value, places)
            except ConversionError as refusal:
                yield refusal

    def inputs(self) -> Iterator[tuple[TensorValue, list[TensorValue]]]:
        """Yield values that may be the input of the graph, and their values in each step."""
        (sample,) = self.passes.samples
        yield sample, [sample]
        consumed = [
            value
            for operation in self.operations
            if operation.is_neuron
            for value in operation.values
        ]
        for value in self._dominating(consumed):
            # Layers belong to the graph, but for those in front of what makes the axis of time.
            source = value.source
            if value.tensor.ndim > 1 and source is not None and source.kind == "function":
                yield value, [value]

    def _dominating(self, consumed: list[TensorValue]) -> list[TensorValue]:
        """Return values that all ways from the sample to some values go through, in order."""
        (sample,) = self.passes.samples
        dominating = []
        dependent = _depending_on(self.operations, [sample])
        for operation in sorted(ancestors(consumed, set()), key=lambda op: op.index):
            for value in operation.outputs:
                if id(value) in dependent and operation.kind in ("function", "layer"):
                    stop = {id(value)}
                    inner = list(ancestors(consumed, stop))
                    used = any(v is value for op in inner for v in op.values)
                    used |= any(v is value for v in consumed)
                    around = any(v is sample for op in inner for v in op.values)
                    if used and not around and not any(v is sample for v in consumed):
                        dominating.append(value)
        return dominating

    def read(self, record: PassRecord, reader: StepReader, value: TensorValue) -> None:
        """Read the operations of one step, with a value as the input of the graph."""
        inputs = _depending_on(self.operations, [value])
        constants = [op for op in self.operations if op.kind == "function"]
        record.of_entry(value).origin = Origin(sources=("",), leading=self.leading)
        reader.read(
            (
                op
                for op in self.operations
                if op in constants or any(id(v) in inputs for v in op.values) or op.kind == "exit"
            ),
            heads=self.heads(),
        )

    def heads(self) -> frozenset[int]:
        """Return the indices of layers on which no neuron depends, in any step."""
        neurons = [op for op in self.operations if op.is_neuron]
        before = {*neurons, *ancestors([v for op in neurons for v in op.values], set())}
        names = {op.name for op in before if op.kind == "layer"}
        return frozenset(
            op.index for op in self.operations if op.kind == "layer" and op.name not in names
        )

    def in_last_step(self, value: TensorValue) -> TensorValue | None:
        """Return the value that does the same in the step that is read."""
        return value

    def in_each_step(self, value: TensorValue) -> list[TensorValue]:
        """Return the values that do the same in each step."""
        return [value]

    def _trace_from(self, value: TensorValue, places: list[TensorValue]) -> ModuleTrace:
        axes = tuple(value.tensor.shape[: self.leading])
        record = PassRecord(self.module, self.leading, axes, dict(self.leaves), self.passes.buffers)
        reader = StepReader(record)
        self.read(record, reader, value)
        returned, decoder = self._collected(record)
        outputs = outputs_of(record, returned)
        calls = used_calls(record, outputs)
        absent = self.absent(reader)
        late = {call.name for call in calls if id(call.module) in absent}
        _refuse_biases(self.module, calls, late | record.earlier, record.labels)
        layers = {}
        for operation in self.operations:
            name = operation.call or operation.name
            if operation.is_neuron and name not in layers:
                spikes = self.in_each_step(operation.outputs[0])
                held = [
                    v for v in operation.membranes[:1] if v.tensor.shape == spikes[-1].tensor.shape
                ]
                rows = [spikes, *map(self.in_each_step, held)]
                if all(row for row in rows):
                    layers[name] = tuple(tuple(map(_place_of, row)) for row in rows)
        encoder = ancestors([value], set())
        read = tuple(
            tuple(map(_place_of, self.in_each_step(returned[output.place]))) for output in outputs
        )
        return ModuleTrace(
            calls=calls,
            outputs=tuple(
                dataclasses.replace(output, place=place) for place, output in enumerate(outputs)
            ),
            leading=self.leading,
            absent=frozenset(late | record.earlier),
            arguments=self.passes.arguments,
            state=self.passes.state,
            labels=record.labels,
            passes=RecordedSteps(
                signature=signature_of(self.operations),
                input=tuple(map(_place_of, places)),
                layers=layers,
                outputs=read,
                before=_names(encoder),
                after=_names(decoder),
            ),
        )

    def absent(self, reader: StepReader) -> set[int]:
        """Return the ids of layers that the first step leaves out."""
        return set()

    def _collected(self, record: PassRecord) -> tuple[list[TensorValue], list[Operation]]:
        """Return the values of the graph that forward returns, or computes its results of, and the
        operations that compute these results.
        """
        collected: list[TensorValue] = []
        decoder: list[Operation] = []
        seen: set[int] = set()

        def visit(value: TensorValue) -> None:
            if id(value) in seen:
                return
            seen.add(id(value))
            last = self.in_last_step(value)
            origin = None if last is None else record.of(last).unchanged
            if last is not None and origin is not None and origin.sources != ("",):
                if last not in collected:
                    collected.append(last)
            elif value.elements is not None:
                for element in value.elements[1].values():
                    visit(element)
            elif value.source is not None and not self._is_layer_of_graph(value.source, record):
                if value.source not in decoder:
                    decoder.append(value.source)
                for argument in value.source.values:
                    visit(argument)

        (returned,) = self.passes.returned
        for value in returned:
            visit(value)
        return collected or returned, decoder

    def _is_layer_of_graph(self, operation: Operation, record: PassRecord) -> bool:
        """Return whether an operation is a layer of the graph, whose other results are states."""
        if operation.kind != "layer":
            return False
        last = self.in_last_step(operation.outputs[0])
        return last is not None and record.of(last).origin is not None


class _LoopReading(_SequenceReading):
    """Reading of a module that loops over time: its last step."""

    def __init__(self, module: Any, passes: RecordedPasses) -> None:
        super().__init__(module, passes)
        self.leading = 1
        self.folded: Folded = fold(self.operations)
        #: Values that depend on layers of the graph, by id.
        self.dependent = self.folded.dependent
        self.last = [op for op in self.operations if op.step == self.folded.steps]

    def inputs(self) -> Iterator[tuple[TensorValue, list[TensorValue]]]:
        """Yield values that may be the input of the graph, and their values in each step."""
        (sample,) = self.passes.samples
        from_sample = _depending_on(self.operations, [sample])
        possible: set[int] = set()
        # Layers in front of the neurons are not in the graph if it cannot have them.
        for dependent in (self.folded.dependent, self.folded.spiking):
            self.dependent = dependent
            inner = [op for op in self.last if any(id(v) in dependent for v in op.outputs)]
            consumed = [
                value
                for operation in inner
                for value in operation.values
                if id(value) in from_sample and id(value) not in dependent
            ]
            for value in [sample, *self._dominating(consumed)]:
                places = self._places(value, consumed, inner)
                if places is not None and id(value) not in possible:
                    possible.add(id(value))
                    yield value, places
        if not consumed:
            raise ConversionError(
                "the loop over time does not depend on the sample",
                fix="compute the input of the first layer from the sample",
            )
        if not possible:
            mixed = [
                op
                for op in inner
                if self.folded.place[id(op)] in self.folded.varying
                and id(op.values[0]) in dependent
            ]
            source = mixed[0].values[0].source if mixed else None
            if source is None:
                raise ConversionError(
                    "the loop over time uses several parts of the sample in each time step",
                    fix="read one part of the sample per time step, such as x[t]",
                )
            raise ConversionError(
                Text(
                    "the loop over time uses parts of the result of {function}, which "
                    "computes all time steps at once ({line})",
                    function=source.name.strip("_"),
                    line=mixed[0].line,
                ),
                fix="compute it separately in each time step: a graph describes one time step",
            )

    def _places(
        self, value: TensorValue, consumed: list[TensorValue], inner: list[Operation]
    ) -> list[TensorValue] | None:
        """Return the values of a possible input in each step; None if it contains all steps, of which
        the loop takes parts.
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

    def read(self, record: PassRecord, reader: StepReader, value: TensorValue) -> None:
        """Read the last step, and the one before it, with a value as the input of the graph."""
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
        reader.read_before(op for op in self.operations if op.step == folded.steps - 1)
        record.of_entry(value).origin = Origin(sources=("",), leading=1)
        inputs = _depending_on(outside, [value])
        reader.read(op for op in outside if any(id(v) in inputs for v in op.values))
        inputs |= self.dependent | _depending_on(self.last, [value])
        reader.read(
            (
                op
                for op in self.last
                if op.kind != "layer" or any(id(v) in inputs for v in op.values)
            ),
            varying,
            self.heads(),
        )

    def in_last_step(self, value: TensorValue) -> TensorValue | None:
        """Return the value that does the same in the step that is read."""
        if id(value) not in self.dependent:
            return None
        return self.folded.value_in(value, self.folded.steps)

    def in_each_step(self, value: TensorValue) -> list[TensorValue]:
        """Return the values that do the same in each step; none if it is not in all steps."""
        steps = range(1, self.folded.steps + 1)
        values = [self.folded.value_in(value, step) for step in steps]
        return [v for v in values if v is not None] if None not in values else []

    def absent(self, reader: StepReader) -> set[int]:
        """Return the ids of layers that the first step leaves out."""
        first = {id(op.func) for op in self.operations if op.step < 2}
        return {id(leaf) for _, leaf in self.leaves} - first


def signature_of(operations: Iterable[Operation]) -> tuple[Any, ...]:
    """Return what two recordings of the same operations have in common."""
    return tuple((op.kind, op.name, op.site) for op in operations)


def _place_of(value: TensorValue) -> tuple[int, int]:
    return (-1, 0) if value.source is None else (value.source.index, value.path)


def _depending_on(operations: Iterable[Operation], values: Iterable[TensorValue]) -> set[int]:
    """Return the ids of values that depend on some values."""
    dependent = {id(value) for value in values}
    for operation in operations:
        if any(id(value) in dependent for value in operation.values):
            dependent |= {id(value) for value in operation.outputs}
    return dependent


def _names(operations: Iterable[Operation]) -> tuple[str, ...]:
    """Return the names of functions and layers, in order, each once, without those that take steps
    out of a sequence or put them together.
    """
    ordered = sorted(operations, key=lambda operation: operation.index)
    labels = [op.name for op in ordered if op.name not in (*PARTS, "stack", "__setitem__")]
    return tuple(dict.fromkeys(name.strip("_") for name in labels))


def _refuse_late_biases(
    module: Any, first: ModuleTrace | ConversionError, later: ModuleTrace
) -> None:
    """Refuse layers with a bias that forward omits in the first step.

    Raises:
        ConversionError: There is such a layer.
    """
    late = set(later.absent)
    if isinstance(first, ModuleTrace):  # else it fed back zeros, and its leaves alone are known
        late |= {call.name for call in later.calls} - {call.name for call in first.calls}
    _refuse_biases(module, later.calls, late, later.labels)


def _refuse_biases(
    module: Any, calls: Iterable[Call], late: Collection[str], labels: Mapping[str, str]
) -> None:
    """Refuse layers with a bias among those that act from the second step on."""
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
