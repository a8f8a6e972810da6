"""Record the forward passes of a PyTorch module: one pass, or one for each time step.

If `forward` loops over time, or has layers that do so, one pass contains all time steps. If `forward`
computes one time step, it is called repeatedly, with the states that it returned in the previous call. The
recording then looks like that of a loop over the frames x[0], x[1], ..., and is read in the same way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError, JaxsnnError, listing
from jaxsnn.nir.torch.fixed_numbers import (
    copies_of,
    fixed_buffers,
    refuse_learning,
    user_buffers,
)
from jaxsnn.nir.torch.module_pass import (
    error_refusal,
    fed_back,
    leaves_of,
    loops_in_layers,
    numbers_held,
    rewind,
    sample_refusal,
    unchanged,
    uncompiled,
)
from jaxsnn.nir.torch.recording import (
    Operation,
    Recorder,
    TensorValue,
    elements_of,
    tensors_of,
    with_tensors,
)
from jaxsnn.nir.torch.sequences import Unstacking
from jaxsnn.nir.torch.torch_functions import is_parameter
from jaxsnn.wording import Text

#: Minimum number of calls of a module that computes one step per call. The first may differ; the
#: others are compared.
LEAST_CALLS = 4


@dataclasses.dataclass(kw_only=True, eq=False)
class RecordedPasses:
    """Recorded forward passes of a module.

    Attributes:
        operations: Operations of all passes, in order.
        arguments: Arguments of all calls after the sample.
        state: Initial states: the arguments of the first call after these.
        steps: Number of calls, if forward computes one time step; 0 if one call contains all steps.
        length: Number of time steps, if layers loop over them and forward does not; else 0.
        sample: Value of the sample; if forward computes one step, of the samples of all calls, along the first
            axis.
        results: Values that each call returned.
        buffers: Buffers that forward does not change.
        counters: Names of the numbers of the module that changed in calls after the first.
    """

    operations: list[Operation]
    arguments: tuple[Any, ...]
    state: tuple[Any, ...]
    steps: int
    sample: TensorValue
    results: list[list[TensorValue]]
    buffers: list[Any]
    length: int = 0
    counters: tuple[str, ...] = ()

    @property
    def returned(self) -> list[TensorValue]:
        """Values that the last call returned."""
        return self.results[-1]


def record_passes(
    module: Any,
    sample: Any,
    arguments: tuple[Any, ...] = (),
    state: tuple[Any, ...] = (),
    *,
    stepped: bool = False,
    copies: bool = False,
) -> RecordedPasses:
    """Record one forward pass of all time steps, or a pass for each step if forward computes only one.

    Args:
        module: A torch.nn.Module; its states are restored afterwards.
        sample: Input of forward; with `stepped`, the inputs of all calls, along the first axis.
        arguments: Arguments of all calls after the sample.
        state: Initial states, which follow these arguments.
        stepped: Whether forward computes one time step, and the sample contains several.
        copies: Whether values keep copies of their numbers, because forward may change them in place.

    Raises:
        ConversionError: The module does not accept the sample, or fails in a later time step.
    """
    import torch
    from torch.nn.parameter import is_lazy

    leaves, in_time = leaves_of(module), loops_in_layers(module)
    recorder = Recorder(module, leaves, copies)
    frames: list[TensorValue] = []

    constants, first_state = _copied((arguments, state))

    def call(frame: Any, *states: Any) -> Any:
        x = frame.clone()  # which forward may change in place
        frames.append(recorder.value(x))
        with recorder.watching():
            return module(x, *constants, *states)

    # in inference_mode torch counts no changes in place
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        torch.random.fork_rng(devices=[]),
        unchanged(module),
        uncompiled(module),
    ):
        buffers, parameters = user_buffers(module), copies_of(module.named_parameters())
        buffers_before = copies_of(buffers.items())
        first = sample[0] if stepped else sample
        try:
            # The first call of a lazy layer creates its parameters.
            if any(map(is_lazy, module.parameters())):
                module(first.clone(), *_copied((*arguments, *state)))
            rewind(leaf for _, leaf in leaves)  # states may be of another size of batch
            result = call(first, *first_state)
        except JaxsnnError:
            raise
        except RuntimeError as error:  # of layers that do not take its shape or its type
            raise sample_refusal(module, sample, error) from error
        except Exception as error:
            when = Text("for a sample of shape {shape}", shape=tuple(sample.shape))
            raise error_refusal(module, error, when) from error
        passes = RecordedPasses(
            operations=recorder.operations,
            arguments=arguments,
            state=state,
            steps=0,
            sample=frames[0],
            results=[[recorder.value(tensor) for tensor in tensors_of(result)]],
            buffers=[],
        )
        loops = _loops(recorder.operations)
        if stepped or not (loops or in_time):
            all_frames = sample if stepped else torch.stack([sample] * LEAST_CALLS)
            numbers, results = numbers_held(module), [result]
            parameters = copies_of(module.named_parameters())
            for step, frame in enumerate(all_frames[1:], start=1):
                states = fed_back(module, results[-1], arguments)
                with _named_step(module, step, states):
                    results.append(call(frame, *states))
                    passes.results.append(list(map(recorder.value, tensors_of(results[-1]))))
            _refuse_unequal_results(module, results)
            passes.steps, passes.sample = len(results), recorder.value(all_frames)
            _insert_parts(passes, frames)
            passes.counters = _changed_numbers(module, passes, numbers)
        else:
            unstacking = Unstacking(passes.operations, passes.returned, passes.sample)
            passes.operations, passes.results = unstacking.operations, [unstacking.returned]
            passes.length = 0 if loops else unstacking.steps
            _refuse_other_steps(unstacking.steps_of_neuron, loops)
        passes.buffers = fixed_buffers(buffers, buffers_before, module)
        refuse_learning(parameters, module)
    return passes


def _copied(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return arguments with copies of their lists, dicts and tensors, which forward may change in place."""
    import torch

    tensors = [t for t in tensors_of(arguments) if torch.is_tensor(t) and not is_parameter(t)]
    return with_tensors(arguments, {id(tensor): tensor.detach().clone() for tensor in tensors})


def _loops(operations: list[Operation]) -> bool:
    """Return whether a neuron is called several times. Calls of a neuron that keeps no state itself only
    count if they are at the same place in the code: calls at other places have other states.
    """
    calls = [(id(op.func), op.keeps_state or op.site) for op in operations if op.is_neuron]
    return len(set(calls)) < len(calls)


def _refuse_other_steps(steps_of_neuron: Mapping[str, list[int]], loops: bool) -> None:
    """Refuse neurons that loop over time themselves, and over different time steps.

    Raises:
        ConversionError: The numbers of time steps differ, or a neuron is called several times.
    """
    counts = {name: steps[0] for name, steps in steps_of_neuron.items()}
    if len(set(counts.values())) > 1 and not loops:
        raise ConversionError(
            Text(
                "neurons of the module loop over different numbers of time steps: {counts}",
                counts=listing(f"'{name}' over {count}" for name, count in counts.items()),
            ),
            fix="let all neurons process the same time steps, along the first axis of their inputs",
        )
    for name, steps in steps_of_neuron.items():
        if len(steps) > 1 and max(steps) > 1:  # forward may loop over sequences of one step
            raise ConversionError(
                Text("'{layer}' is called several times in each time step", layer=name),
                fix="use a separate layer for each call",
                node=name,
            )


def _insert_parts(passes: RecordedPasses, frames: list[TensorValue]) -> None:
    """Insert the operations that give each call its part of the sample."""
    passes.operations[:0] = elements_of(passes.sample, frames)
    for index, operation in enumerate(passes.operations):
        operation.index = index


def _changed_numbers(
    module: Any, passes: RecordedPasses, numbers: dict[str, float]
) -> tuple[str, ...]:
    """Return the names of the numbers of the module that changed in calls after the first. States do
    not count: they depend on layers.
    """
    of_layers = [v for op in passes.operations if op.kind == "layer" for v in op.outputs]
    dependent = depending_on(passes.operations, of_layers)
    states = {id(v.tensor) for op in passes.operations for v in op.outputs if id(v) in dependent}
    return tuple(
        name
        for name, value in numbers_held(module, states).items()
        if name in numbers and not np.array_equal(value, numbers[name], equal_nan=True)
    )


@contextmanager
def _named_step(module: Any, step: int, state: tuple[Any, ...]) -> Iterator[None]:
    """Name the time step in the refusal of a module that fails after the first step.

    Raises:
        ConversionError: Forward fails.
    """
    try:
        yield
    except JaxsnnError:
        raise
    except Exception as error:
        if not state:
            raise error_refusal(module, error, Text("in step {step}", step=step)) from error
        raise ConversionError(
            Text(
                "forward of {module} fails in step {step} with the state that it "
                "returned in the previous step ({error_type}: {reason})",
                module=type(module).__name__,
                step=step,
                error_type=type(error).__name__,
                reason=str(error),
            ),
            fix="return (output, state), with a state that forward accepts",
        ) from error


def _refuse_unequal_results(module: Any, results: list[Any]) -> None:
    """Refuse a module that returns different numbers of tensors in different time steps.

    Raises:
        ConversionError: The numbers differ.
    """
    counts = {len(tensors_of(result)) for result in results}
    if len(counts) != 1:
        raise ConversionError(
            Text(
                "forward of {module} returns different numbers of tensors in different "
                "time steps: {counts}",
                module=type(module).__name__,
                counts=listing(sorted(counts)),
            ),
            fix="return the same number of tensors in each time step",
        )


def depending_on(operations: list[Operation], values: list[TensorValue]) -> set[int]:
    """Return the ids of some values, and of all values that depend on them."""
    dependent = {id(value) for value in values}
    for operation in operations:
        if any(id(value) in dependent for value in operation.values):
            dependent |= {id(value) for value in operation.outputs}
    return dependent
