"""Outcome of a traced forward pass of a PyTorch module: the layers that are called, and the outputs
that it returns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

from jaxsnn.errors import ConversionError
from jaxsnn.nir.frameworks.torch_layers import Call
from jaxsnn.nir.torch.leaves import Before, exported
from jaxsnn.nir.torch.pass_record import (
    Member,
    Origin,
    PassRecord,
    SeenTensor,
    function_clause,
    function_of,
)
from jaxsnn.nir.torch.recording import TensorValue
from jaxsnn.wording import Text


@dataclasses.dataclass(frozen=True, kw_only=True)
class TracedOutput:
    """A tensor that the module returns, and that is an output of the graph.

    Attributes:
        sources, member: See `Origin`.
        place: Index among the tensors that the module returns, counted through nested tuples.
        shape: Shape without the axes of batch and time.
    """

    sources: tuple[str, ...]
    member: Member
    place: int
    shape: tuple[int, ...]


#: Place of a value in a recording: an operation, and the path of the value in its result. The operation is
#: its place in all steps, or its number among those outside of the steps. (-1, 0) is the sample.
Place = tuple[Any, int]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RecordedSteps:
    """Locations of the graph's inputs and outputs in a recording of all time steps.

    Attributes:
        stepped: Whether forward computes one time step, and is called for each step.
        from_sample: Whether the input of the graph is the sample, (time, batch, *shape), over whose time
            steps layers loop: it may have any number of them.
        signature: Kind, name and site of each operation; if forward is called for each step, of the operations
            of one step.
        input: Places of the graph's input, in order of steps; () if it is the argument of each call.
        layers: Places of the spikes and membranes of each neuron, by name: [spikes, membranes].
        outputs: Place of each output of the graph.
        before, after: Names of the functions and layers before the input and after the outputs.
        weights_before, weights_after: Names of the layers with parameters before the input and after the outputs.
        omission: Reason why the graph does not contain the layers of `weights_after`, or "".
        sequences_before: Names of the functions and layers before the input that compute all time steps at once.
    """

    stepped: bool
    from_sample: bool
    signature: tuple[Any, ...]
    input: tuple[Place, ...]
    layers: Mapping[str, tuple[Place, ...]]
    outputs: tuple[Place, ...]
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    weights_before: tuple[str, ...] = ()
    weights_after: tuple[str, ...] = ()
    omission: str = ""
    sequences_before: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ModuleTrace:
    """Result of tracing a forward pass.

    Attributes:
        calls: Calls of the leaves, in order.
        outputs: Outputs that forward returns.
        passes: Locations of the steps in a recording.
        left_out: Descriptions of results that are neither an output nor a state.
        absent: Calls that are not in the first step.
        counters: Numbers of the module that differed in the previous step.
        reads: Functions that convert tensors to Python values which may decide what forward computes,
            with their lines.
        arguments: Arguments of forward after the sample.
        state: Initial states, which follow these arguments in the first step.
        labels: Call that has no name in the user's code -> its layer, or its function and line.
    """

    calls: tuple[Call, ...]
    outputs: tuple[TracedOutput, ...]
    passes: RecordedSteps
    left_out: tuple[str, ...] = ()
    absent: frozenset[str] = frozenset()
    counters: tuple[str, ...] = ()
    reads: tuple[tuple[str, str], ...] = ()
    arguments: tuple[Any, ...] = ()
    state: tuple[Any, ...] = ()
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def label(self, name: str) -> str:
        """Return the name of a call in messages: that of the layer, or the function and its line."""
        return self.labels.get(name, name)

    def feeds_a_layer(self, leaf: str) -> bool:
        """Return whether a layer receives the output of a leaf, in this step or the next one."""
        return any(leaf in (*call.sources, _leaf_before(call)) for call in self.calls)

    def connections(self, neurons: Iterable[str]) -> Iterator[tuple[str, str, bool]]:
        """Yield each connection of a neuron: the presynaptic neuron, the target neuron ("" for an
        output), and whether the target receives the spikes of the previous step.
        """
        neurons = frozenset(neurons)
        carried: dict[str, set[tuple[str, bool]]] = {"": set()}
        for call in self.calls:
            arriving = set[tuple[str, bool]]().union(*(carried[source] for source in call.sources))
            if (leaf := _leaf_before(call)) is not None:
                arriving = {(leaf, True)}
            if call.name in neurons:
                yield from ((source, call.name, before) for source, before in sorted(arriving))
                arriving = {(call.name, False)}
            carried[call.name] = arriving
        for output in self.outputs:
            for source in output.sources:
                yield from ((leaf, "", before) for leaf, before in sorted(carried[source]))

    @property
    def uses(self) -> dict[str, int]:
        """Number of uses of each leaf's output, by leaves or as an output."""
        counts: dict[str, int] = {}
        for consumer in (*self.calls, *self.outputs):
            for source in consumer.sources:
                counts[source] = counts.get(source, 0) + 1
        return counts


def _leaf_before(call: Call) -> str | None:
    return call.module.leaf if isinstance(call.module, Before) else None


def outputs_of(record: PassRecord, returned: list[TensorValue]) -> tuple[TracedOutput, ...]:
    """Return the outputs: the first tensor, others that no leaf uses, and those of layers without a
    state. Any other results are states of neurons.

    Args:
        record: Record of the step.
        returned: Return value of the module.

    Raises:
        ConversionError: The first tensor is computed outside of layers.
    """
    origins = [record.of(value).unchanged for value in returned]
    if not returned or origins[0] is None:
        seen = record.of(returned[0]) if returned else SeenTensor()
        record.refuse_lost(seen)
        raise ConversionError(
            Text(
                "the output of the module is computed outside of layers{by}",
                by=function_clause(seen),
            ),
            fix="return the unchanged output of a layer in one time step",
        )
    consumed = {source for call in record.calls.values() for source in call.sources}
    consumed |= {_leaf_before(record.calls[name]) or name for name in consumed - {""}}
    outputs: dict[tuple[str, ...], TracedOutput] = {}
    for place, (value, origin) in enumerate(zip(returned, origins, strict=True)):
        if origin is None or (place and _feeds_a_layer(record, origin, consumed)):
            continue
        output = TracedOutput(
            sources=origin.sources,
            member=origin.member,
            place=place,
            shape=tuple(value.tensor.shape[1:]),
        )
        # Beside its spikes, a neuron that never resets gives its membrane.
        if origin.sources not in outputs or (
            origin.member == "membrane" and _is_silent(record, origin)
        ):
            outputs[origin.sources] = output
    return tuple(outputs.values())


def _feeds_a_layer(record: PassRecord, origin: Origin, consumed: Set[str]) -> bool:
    """Return whether the output of a single neuron, or the input, is also used by a layer."""
    source = origin.sources[0]
    if len(origin.sources) > 1 or source not in consumed:
        return False
    return not source or exported(record.calls[source]).framework is not None


def _is_silent(record: PassRecord, origin: Origin) -> bool:
    """Return whether a neuron never resets."""
    leaf = record.calls[origin.sources[0]].module
    threshold = getattr(leaf, "v_threshold", 0.0)
    unreached = isinstance(threshold, float) and threshold == float("inf")
    return unreached or getattr(leaf, "reset_mechanism", "") == "none"


def used_calls(record: PassRecord, outputs: tuple[TracedOutput, ...]) -> tuple[Call, ...]:
    """Return the calls whose results are used, and all calls of leaves, except leaves that are only
    called for the next step.
    """
    calls = _needed(record, outputs, frozenset())
    elsewhere = {id(call.module) for call in calls if call.name in record.earlier}
    return tuple(_needed(record, outputs, elsewhere))


def _needed(
    record: PassRecord, outputs: tuple[TracedOutput, ...], elsewhere: Set[int]
) -> list[Call]:
    """Return the calls whose results are used, and all calls of leaves.

    Args:
        elsewhere: Ids of leaves that are used in the previous step; their other calls are returned
            only if their results are used.
    """
    needed: list[Call] = []
    for call in reversed(record.calls.values()):
        consumed = {source for consumer in (*needed, *outputs) for source in consumer.sources}
        is_leaf = call.name in record.leaves and id(call.module) not in elsewhere
        if call.name in consumed or is_leaf:
            needed.append(call)
    return needed[::-1]


def left_out(
    record: PassRecord, returned: list[TensorValue], considered: Iterable[int] | None = None
) -> Iterator[str]:
    """Yield descriptions of results that are neither an output nor a state of a layer.

    Args:
        record: Record of the step.
        returned: Return value of the module.
        considered: Places of results; None: all.
    """
    for place in range(len(returned)) if considered is None else considered:
        value = returned[place]
        seen = record.of(value)
        origin = seen.unchanged
        if not place or seen.is_state or (origin is not None and origin.sources != ("",)):
            continue
        by = Text(" by {function}", function=function_of(seen)) if seen.function else Text("")
        description = (
            Text("computed outside of layers{by}", by=by) if origin is None else "its input"
        )
        yield Text(
            "tensor {index}, of shape {shape}, {description}",
            index=place + 1,
            shape=tuple(value.tensor.shape),
            description=description,
        )
