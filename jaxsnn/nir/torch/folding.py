"""Fold a recorded loop over time into one time step.

The recording of a loop over T time steps repeats the same operations T times. The k-th call of a layer
belongs to time step k, and the calls at the same place of each time step must be connected in the same way:

    step 1:  x[0] -> fc -> lif(state 0) -> spikes, state 1
    step 2:  x[1] -> fc -> lif(state 1) -> spikes, state 2      step k:  x[k-1] -> fc -> lif -> spikes
    step 3:  x[2] -> fc -> lif(state 2) -> spikes, state 3  =>                          ^   |
                                                                           state k-1 ---+   +-> state k

An argument of step k may be a value of step k, a value of step k - 1 (a state, or spikes that are fed
back), a value from outside of the loop, or a part of a tensor whose index depends on k, such as x[k-1].
Anything else raises a `ConversionError` with the line of the user's code. Connections are compared by
the identity of values, never by their numbers: two steps that happen to compute equal numbers in
different ways are not the same. The last step has the states of all others before it, so it is the
one that `folded_reading` reads.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jaxsnn.errors import ConversionError, listing
from jaxsnn.nir.torch.leaves import exporter_of, of_library, unsupported
from jaxsnn.nir.torch.module_order import MOVE_AXES
from jaxsnn.nir.torch.recording import (
    KEEPS_STATE,
    READS,
    Operation,
    TensorValue,
    in_line,
    index_along,
    keeps_order,
)
from jaxsnn.nir.torch.torch_functions import JOIN
from jaxsnn.wording import Text

#: Minimum number of steps of a loop; with two, every recording would be a loop.
LEAST_STEPS = 3
#: Functions that return a part of a tensor, whose index may depend on the step.
PARTS = ("__getitem__", "select", "narrow", "unbind", "split", "chunk", "tensor_split")

#: Functions that join time steps.
_JOINING = ("stack", "__setitem__", *JOIN)

_Key = tuple[str, str, tuple[Any, ...]]


@dataclasses.dataclass(eq=False, kw_only=True)
class Folded:
    """A recording whose operations are divided into steps.

    Attributes:
        operations: All operations, those of a loop with their `step`.
        steps: Number of steps.
        looped: Calls of a step, by key and number in the step: the operation of each step.
        place: Key and number of each operation of the loop, by id.
        varying: Keys and numbers of operations that take another part of a tensor in each step, as
            x[t] does -> the tokens that do so.
        dependent: Values that depend on a layer of the loop, by id.
        spiking: Values that depend on a neuron, by id.
    """

    operations: list[Operation]
    steps: int
    looped: dict[tuple[_Key, int], dict[int, Operation]]
    place: dict[int, tuple[_Key, int]]
    varying: dict[tuple[_Key, int], set[int]]
    dependent: set[int]
    spiking: set[int]

    def twin(self, operation: Operation, step: int) -> Operation | None:
        """Return the operation that does the same in another step."""
        return self.looped[self.place[id(operation)]].get(step)

    def value_in(self, value: TensorValue, step: int) -> TensorValue | None:
        """Return the value that is the same in another step, see `value`: itself if it is outside
        of the loop.
        """
        source = value.source
        if source is None or not source.step:
            return value
        twin = self.twin(source, step)
        is_output = twin is not None and value.path < len(twin.outputs)
        return twin.outputs[value.path] if twin is not None and is_output else None


def fold(
    operations: list[Operation],
    calls: int = 0,
    length: int = 0,
    sample: TensorValue | None = None,
) -> Folded:
    """Divide the operations of a recording into time steps.

    Args:
        operations: Operations of the recording, in order.
        calls: Number of calls of forward, if each is one time step; else 0.
        length: Number of time steps, if no neuron is called for a single time step, but splitting (`sequences`)
            found all of their time steps; else 0. If both numbers are 0, the number of steps is found.
        sample: Sample, from which functions may compute a different input of a layer in each time step.

    Raises:
        ConversionError: The steps differ, or are too few.
    """
    if calls or length:
        return _Fold(operations, calls or length, sample, calls > 0, length > 0).folded()
    counts = neuron_calls(operations)
    refusal: ConversionError | None = None
    for steps in _candidates(counts.values()):
        try:
            return _Fold(operations, steps, sample).folded()
        except ConversionError as error:
            refusal = refusal or error
    if refusal is not None:
        raise refusal
    most = max(counts.values())
    if most >= LEAST_STEPS:
        numbers = {op.name: counts[id(op.func)] for op in operations if op.is_neuron}
        raise ConversionError(
            Text(
                "forward calls its neurons different numbers of times, which do not fit "
                "one number of time steps: {calls}",
                calls=listing(f"'{name}' {count} times" for name, count in numbers.items()),
            ),
            fix=(
                "let all loops of forward run over the same time steps; without a loop over "
                "time, use a separate layer for each call"
            ),
        )
    raise ConversionError(
        Text(
            "forward loops over {steps} time steps of the sample, and at least {least} "
            "are needed to find the operations that all time steps share",
            steps=most,
            least=LEAST_STEPS,
        ),
        fix=Text(
            "pass a sample with at least {least} time steps; without a loop over "
            "time, use a separate layer for each call",
            least=LEAST_STEPS,
        ),
    )


def refuse_mixed_steps(operations: list[Operation]) -> None:
    """Refuse a neuron that receives in a time step what depends on other time steps of a neuron before it, as
    behind a convolution along time, attention over time, or a reversal.

    Raises:
        ConversionError: There is such a neuron; the message names the first operation that mixes time steps.
    """
    calls = Counter((id(op.func), op.site) for op in operations if op.is_neuron)
    #: Id of a value -> the neuron of which it contains all time steps, and the operation that mixed them.
    contents: dict[int, tuple[str, Operation | None] | None] = {}
    for operation in operations:
        joins = operation.name in _JOINING and operation.outputs[0].elements is not None
        for value in () if joins else operation.values:
            axes = [value.elements[0]] if value.elements is not None else []
            takes = operation.name in ("__getitem__", "select")
            if takes and any(index_along(operation, axis) is not None for axis in axes):
                continue  # a part of a buffer that is not filled yet
            if id(value) not in contents:
                contents[id(value)] = _joined_neuron(value, calls)
        present = [content for v in operation.values if (content := contents.get(id(v)))]
        if not present:
            continue
        source, mixing = next((c for c in present if c[1] is not None), present[0])
        if operation.is_neuron and mixing is not None:
            raise _refusal(
                mixing,
                Text(
                    "the input of '{layer}' is computed from all time steps of '{source}' at once, by "
                    "{operation}, which may combine them",
                    layer=operation.name,
                    source=source,
                    operation=spoken(mixing),
                ),
                fix="compute it separately in each time step; if it combines time steps, read the layers before "
                "and after it as separate modules",
            )
        keeps_steps = joins or keeps_order(operation) or operation.name in MOVE_AXES + KEEPS_STATE
        if mixing is None and not (keeps_steps or operation.is_neuron):
            mixing = operation
        for value in () if operation.is_neuron else operation.outputs:
            if value.source is operation:
                contents[id(value)] = source, mixing


def _joined_neuron(
    value: TensorValue, calls: Mapping[Any, int]
) -> tuple[str, Operation | None] | None:
    """Return the neuron of whose calls at one place most are joined in a tensor, by torch.stack, torch.cat or
    item assignments, as in `refuse_mixed_steps`; None if there is none.

    Args:
        calls: Neuron and place -> number of its calls.
    """
    source = value.source
    if value.elements is not None:
        parts = list(value.elements[1].values())
    else:
        parts = source.values if source is not None and source.name in _JOINING else []
    if len(parts) < LEAST_STEPS:
        return None
    neurons = [op for op in ancestors(parts, set(), past_neurons=False) if op.is_neuron]
    for place, count in Counter((id(op.func), op.site) for op in neurons).items():
        if count >= LEAST_STEPS and 2 * count > calls[place]:
            return next(op.name for op in neurons if id(op.func) == place[0]), None
    return None


def neuron_calls(operations: Iterable[Operation]) -> Counter[int]:
    """Return how often each neuron is called, by its id."""
    return Counter(id(operation.func) for operation in operations if operation.is_neuron)


def _candidates(counts: Iterable[int]) -> list[int]:
    """Return possible numbers of steps, largest first. A layer may begin in the second step."""
    counts = set(counts)
    common = math.gcd(*counts)
    possible = {n for n in range(LEAST_STEPS, common + 1) if common % n == 0}
    possible |= {n for count in counts for n in (count, count + 1)}
    return sorted(
        (
            n
            for n in possible
            if n >= LEAST_STEPS and all(count % n == 0 or count == n - 1 for count in counts)
            if any(count % n == 0 for count in counts)
        ),
        reverse=True,
    )


class _Fold:
    """One attempt to fold a recording into a number of steps.

    Attributes:
        encoded: Ids of values that functions compute from the sample.
        call_per_step: Whether forward is called for each step.
        only_split: Whether the time steps of all neurons come from splitting.
    """

    def __init__(
        self,
        operations: list[Operation],
        steps: int,
        sample: TensorValue | None = None,
        call_per_step: bool = False,
        only_split: bool = False,
    ) -> None:
        self.operations, self.steps = operations, steps
        self.call_per_step, self.only_split = call_per_step, only_split
        # The places of values outside of the loop do not depend on the number of calls.
        self.encoded = set[int]() if call_per_step else _encoded(operations, sample)
        #: Id of a function outside of the loop -> longest delay of its arguments, in time steps.
        self.longest_delay: dict[int, int] = {}
        self.looped: dict[tuple[_Key, int], dict[int, Operation]] = {}
        self.place: dict[int, tuple[_Key, int]] = {}
        self.varying: dict[tuple[_Key, int], set[int]] = {}

    def folded(self) -> Folded:
        self._assign_steps()
        while removed := [place for place in self.looped if not self._matches(place)]:
            for place in removed:
                for operation in self.looped.pop(place).values():
                    del self.place[id(operation)]
                    operation.step = 0
        dependent = self._dependent()
        last = max((op.index for op in self.operations if op.is_neuron), default=0)
        for operation in self.operations:
            if operation.is_neuron:
                if not operation.step:
                    raise _refusal(
                        operation,
                        Text(
                            "'{layer}' is called outside of the loop over time",
                            layer=operation.name,
                        ),
                    )
                self._check_state(operation)
            # If each step is one call of forward, numbers that Python reads do not reach later steps.
            reads = operation.name in READS and operation.index < last and not self.call_per_step
            if reads and any(id(value) in dependent for value in operation.values):
                raise _refusal(
                    operation,
                    Text(
                        "forward converts a tensor to Python values, by {function}, and then calls "
                        "neurons, which may depend on these values",
                        function=operation.name.strip("_"),
                    ),
                    fix=(
                        "collect the tensors, for example in a list, and convert them after the last call "
                        "of a neuron: a graph computes the same in each time step, whatever the values are"
                    ),
                )
        self._name_calls()
        return Folded(
            operations=self.operations,
            steps=self.steps,
            looped=self.looped,
            place=self.place,
            varying=self.varying,
            dependent=dependent,
            spiking=self._dependent(neurons_only=True),
        )

    def _name_calls(self) -> None:
        """Name the calls of a neuron that is called several times in each time step, with separate
        states: lif, lif_2, ...
        """
        operation_names = {operation.name for operation in self.operations}
        for (_, count), by_step in list(self.looped.items()):
            if count and by_step[self.steps].is_neuron:
                name, number = by_step[self.steps].name, count + 1
                while f"{name}_{number}" in operation_names:
                    number += 1
                operation_names.add(f"{name}_{number}")
                for operation in by_step.values():
                    operation.call_name = f"{name}_{number}"

    def _assign_steps(self) -> None:
        by_name: dict[tuple[str, str], dict[Any, list[Operation]]] = {}
        of_elements = self._of_elements() if self.only_split else set()
        for operation in self.operations:
            operation.step = 0
            if self.only_split and not operation.is_split and id(operation) not in of_elements:
                continue
            sites = by_name.setdefault((operation.kind, operation.name), {})
            sites.setdefault(operation.site, []).append(operation)
        calls: dict[_Key, list[Operation]] = {}
        for (kind, name), sites in by_name.items():
            # A layer that the first step calls in another place is the same layer.
            divisible = all(len(calls) % self.steps == 0 for calls in sites.values())
            is_neuron = next(iter(sites.values()))[0].is_neuron
            if is_neuron or (kind == "layer" and not divisible):
                together = [call for calls in sites.values() for call in calls]
                sites = {(): sorted(together, key=lambda call: call.index)}
            calls |= {(kind, name, site): occurrences for site, occurrences in sites.items()}
        for key, occurrences in sorted(calls.items(), key=lambda item: item[1][0].index):
            if len(occurrences) == self.steps and not occurrences[0].is_neuron:
                occurrences = _in_order_of_steps(occurrences)
            for steps, first in ((self.steps, 1), (self.steps - 1, 2)):
                per_step, rest = divmod(len(occurrences), steps)
                if not rest:
                    for count, operation in enumerate(occurrences):
                        operation.step = count // per_step + first
                        place = key, count % per_step
                        self.place[id(operation)] = place
                        self.looped.setdefault(place, {})[operation.step] = operation
                    break

    def _of_elements(self) -> set[int]:
        """Return the ids of operations that forward calls at one place, once in each time step, and that
        depend on an element of a sequence, or on which an element of a stack depends. If the
        sample has too few time steps to compare them: both, for elements of the same time step.
        """
        calls: dict[_Key, list[Operation]] = {}
        for op in self.operations:
            if op.name != "stack" and all(value.elements is None for value in op.outputs):
                calls.setdefault((op.kind, op.name, op.site), []).append(op)
        place_of = {
            id(op): place
            for occurrences in calls.values()
            if len(occurrences) == self.steps
            for place, op in enumerate(occurrences)
        }
        few = self.steps < LEAST_STEPS

        def depends(element_places: Iterable[int | None], place: int) -> bool:
            distinct = set(element_places) - {None}
            return distinct == {place} if few else bool(distinct)

        element_of: dict[int, int] = {}  # id of a value -> place of the element on which it depends
        after, before = set[int](), set[int]()
        for op in self.operations:
            if (place := place_of.get(id(op))) is None:
                continue
            places = [element_of.get(id(value)) for value in op.values]
            if op.name in ("__getitem__", "select"):
                axes = range(op.values[0].tensor.ndim)
                places += [
                    index_along(op, axis)
                    for axis in axes
                    if op.values[0].tensor.shape[axis] == self.steps
                ]
            if op.is_split or depends(places, place):
                after.add(id(op))
                element_of |= {id(value): place for value in op.outputs}
        stacked: dict[int, int] = {}  # id of a value -> place of the element that depends on it
        for op in reversed(self.operations):
            for value in op.outputs:
                if value.elements is not None and len(value.elements[1]) == self.steps:
                    stacked |= {id(element): k for k, element in value.elements[1].items()}
            place = place_of.get(id(op))
            places = [stacked.get(id(value)) for value in op.outputs or op.values]
            if place is not None and not op.is_split and depends(places, place):
                before.add(id(op))
                stacked |= {id(value): place for value in op.values}
        return after & before if few else after | before

    def _dependent(self, neurons_only: bool = False) -> set[int]:
        """Return the ids of values that depend on a neuron, or another layer of the loop."""
        dependent: set[int] = set()
        for operation in self.operations:
            inner = operation.kind == "layer" and operation.step
            inner = inner and (operation.is_neuron or not neurons_only)
            if inner or any(id(value) in dependent for value in operation.values):
                # A layer may return its argument unchanged, such as Flatten of a flat tensor.
                results = (*operation.outputs, *operation.membranes)
                dependent |= {id(v) for v in results if v.source is operation}
        return dependent

    def _reference(self, value: TensorValue, call: Operation) -> tuple[Any, ...]:
        """Return the origin of an argument of a call: an operation of the loop and a delay, or a value
        outside. A state that the layer returned in the previous step has a delay of 1, even if it was
        computed earlier.
        """
        value, place = _copied_value(value), self.place[id(call)]
        previous = self.looped[place].get(call.step - 1)
        if call.is_neuron and previous is not None:
            for path, state in enumerate(previous.outputs):
                if state is value:
                    return ("loop", place, path, 1)
        source = value.source
        if source is not None and source.step:
            return ("loop", self.place[id(source)], value.path, call.step - source.step)
        return ("outside", id(source) if source else id(value), value.path)

    def _matches(self, place: tuple[_Key, int]) -> bool:
        """Return whether a function does the same in all steps from the second one.

        Raises:
            ConversionError: A layer does not.
        """
        by_step = self.looped[place]
        template = by_step[self.steps]
        if template.kind in ("enter", "exit"):
            return True
        is_called = self.only_split and not template.is_split
        steps = range(1 if self.only_split and self.steps < LEAST_STEPS else 2, self.steps)
        is_wrong, reason = False, Text("")
        if any(len(by_step[k].tokens) != len(template.tokens) for k in steps):
            is_wrong = True
        else:
            calls = [by_step[k] for k in (*steps, self.steps)]
            columns = zip(*(call.tokens for call in calls), strict=True)
            affine = template.kind == "function" and template.name in PARTS
            for index, column in enumerate(columns):
                agrees, varies = self._agree(column, calls)
                if not agrees or (varies and not affine and type(column[-1]) is int):
                    is_wrong, reason = True, reason or self._difference(column, calls)
                if varies:
                    self.varying.setdefault(place, set()).add(index)
        if not is_wrong:
            return True
        if template.kind == "function" or is_called:
            for call in by_step.values():
                self.longest_delay[id(call)] = self._delay(call)
            return False
        if of_library(template.func) and exporter_of(template.func) is None:
            raise unsupported(template.name, template.func)
        if (delay := self._delay(template)) > 1:
            is_constant = delay == self._delay(by_step[self.steps - 1])
            raise _refusal(
                template,
                Text(
                    "'{layer}' receives a tensor that was computed {count} time steps before",
                    layer=template.name,
                    count=delay,
                )
                if is_constant
                else Text(
                    "'{layer}' receives in time step {step} a tensor that was computed in time step {before}",
                    layer=template.name,
                    step=self.steps,
                    before=self.steps - delay,
                ),
                fix="pass to a layer only tensors of the same time step or of the previous one, in the order "
                "of time",
            )
        raise _refusal(
            template,
            Text(
                "the input of '{layer}' is computed differently in different time steps "
                "of the loop{reason}",
                layer=template.name,
                reason=reason,
            ),
        )

    def _delay(self, call: Operation) -> int:
        """Return by how many time steps the arguments of a call are older than the call, at most."""
        delays = [
            call.step - value.source.step
            if value.source.step
            else self.longest_delay.get(id(value.source), 0)
            for value in call.values
            if value.source is not None
        ]
        return max(delays, default=0)

    def _difference(self, column: tuple[Any, ...], calls: list[Operation]) -> Text:
        """Return a clause on an argument that differs between a time step and the last one."""
        for token, call in zip(column, calls, strict=True):
            if not self._agree((token, column[-1]), [call, calls[-1]])[0]:
                line = calls[-1].line
                first, last = _description(token, line), _description(column[-1], line)
                if first == last:
                    return Text(": from {function}, with different arguments", function=last)
                return Text(
                    ": from {first} in time step {step}, and from {last} in time step {last_step}",
                    first=first,
                    step=call.step,
                    last=last,
                    last_step=calls[-1].step,
                )
        return Text("")

    def _agree(self, column: tuple[Any, ...], calls: list[Operation]) -> tuple[bool, bool]:
        """Return whether an argument is the same in steps 2, 3, ... up to a shift in time, or
        a varying part or index of one tensor; and whether it is such a varying part or index.
        """
        *earlier, last = column
        if isinstance(last, TensorValue):
            expected = self._reference(last, calls[-1])
            delay, first_step = 0, 1
            if expected[0] == "loop":
                delay, first_step = expected[3], min(self.looped[expected[1]])
            if delay not in (0, 1):
                return False, False
            paths, is_encoded = [], all(id(token) in self.encoded for token in column)
            for token, call in zip(column, calls, strict=True):
                if call.step - delay < first_step and delay:  # a value from before the first step
                    continue
                if not isinstance(token, TensorValue):
                    return False, False
                actual = self._reference(token, call)
                if actual != expected and (actual[:2] != expected[:2] or actual[0] == "loop"):
                    is_outside = actual[0] == expected[0] == "outside"
                    return is_outside and is_encoded, is_outside and is_encoded
                paths.append(actual[2])
            if len(set(paths)) == 1:
                return True, False
            return expected[0] == "outside", True
        if any(isinstance(token, TensorValue) for token in earlier):
            return False, False
        if all(token == last and type(token) is type(last) for token in earlier):
            return True, False
        return all(type(token) is int for token in column), True

    def _check_state(self, operation: Operation) -> None:
        """Refuse a neuron that does not continue from its own state of the previous step.

        Raises:
            ConversionError: The neuron starts from another state.
        """
        name = operation.name
        if self.place[id(operation)][1] and operation.keeps_state:
            raise _refusal(
                operation,
                Text("'{layer}' is called several times in each time step", layer=name),
                fix="use a separate layer for each call",
            )
        twins = self.looped[self.place[id(operation)]]
        if operation.step < 2 or all(op.is_reset for step, op in twins.items() if step > 1):
            return
        if operation.state_changed and not operation.values[1:]:
            raise _refusal(
                operation,
                Text("forward changes the state of '{layer}' in the loop over time", layer=name),
                fix="reset states before the loop only",
            )
        if not operation.keeps_state and not operation.values[1:]:
            raise _refusal(
                operation,
                Text(
                    "'{layer}' is called without its state of the previous time step, so that it "
                    "starts from its initial state in every time step",
                    layer=name,
                ),
                fix="pass to each call the state that the call of the previous time step returned",
            )
        for value in operation.values[1:]:
            previous = self.looped[self.place[id(operation)]][operation.step - 1]
            held = any(_copied_value(value) is state for state in previous.outputs)
            if not held and operation.step == self.steps:
                raise _refusal(
                    operation,
                    Text(
                        "'{layer}' receives a state that differs from the state it "
                        "returned in the previous time step: it comes from {function}",
                        layer=name,
                        function=_description(value, operation.line),
                    ),
                    fix=Text(
                        "pass the returned state on unchanged; for inhibition, pass the spikes of the "
                        "previous time step through a layer, and add them to the input of '{layer}'",
                        layer=name,
                    ),
                )


def _in_order_of_steps(calls: list[Operation]) -> list[Operation]:
    """Return the calls of a layer without a state, one in each time step, in the order of the time steps from
    which their arguments come, if forward calls it in another one, such as for reversed(outputs).
    """
    steps = [{v.source.step for v in op.values if v.source and v.source.step} for op in calls]
    if sorted(map(sorted, steps)) != [[step] for step in range(1, len(calls) + 1)]:
        return calls
    return sorted(
        calls,
        key=lambda call: min(v.source.step for v in call.values if v.source and v.source.step),
    )


def _encoded(operations: Iterable[Operation], sample: TensorValue | None) -> set[int]:
    """Return the ids of values that functions compute from the sample, without any layer."""
    encoded, of_layers = set[int](), set[int]()
    for operation in operations:
        arguments = {id(value) for value in operation.values}
        results = {id(value) for value in operation.outputs if value.source is operation}
        if operation.kind == "layer" or arguments & of_layers:
            of_layers |= results
        elif id(sample) in arguments or arguments & encoded:
            encoded |= results
    return encoded


def _description(token: Any, line: str) -> Text:
    """Return the description of an argument: the layer or function that computed it, and its line, if it
    differs from the line of the call.
    """
    source = token.source if isinstance(token, TensorValue) else None
    if source is None:
        return Text("a tensor that forward does not compute")
    return spoken(source) + in_line("" if source.line == line else source.line)


def spoken(operation: Operation) -> Text:
    """Return the name of a layer or function for messages."""
    if operation.kind == "layer":
        return Text("'{layer}'", layer=operation.name)
    return Text(operation.caller) or Text("torch's {function}", function=operation.name.strip("_"))


def _copied_value(value: TensorValue) -> TensorValue:
    """Return the value of which a value is a copy, or the value itself."""
    source = value.source
    while source is not None and source.kind == "function" and source.values:
        if source.name in KEEPS_STATE:
            value = source.values[0]
        elif source.name == "copy_" and source.args[0].shape == source.args[1].shape:
            value = source.values[1]
        else:
            break
        source = value.source
    return value


def _refusal(operation: Operation, message: Text, fix: str | Text = "") -> ConversionError:
    return ConversionError(
        message + in_line(operation.line),
        fix=fix
        or (
            "let forward call the same layers, with the same weights and numbers, in each time step "
            "of its loop"
        ),
        node=operation.name,
    )


def ancestors(
    values: Iterable[TensorValue], stop: set[int], past_neurons: bool = True
) -> Iterator[Operation]:
    """Yield the operations from which values are computed, back to the values at which to stop, and
    to neurons unless `past_neurons`.
    """
    pending, seen = list(values), set[int]()
    while pending:
        value = pending.pop()
        source = value.source
        if id(value) in stop or source is None or id(source) in seen:
            continue
        seen.add(id(source))
        yield source
        if past_neurons or not source.is_neuron:
            pending += source.values
